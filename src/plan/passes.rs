//! Passes: which waves of a region are done together.
//!
//! The versions that one pass leaves dead on a page make the room of the next, and each row that
//! stays takes a bit of it, since rows grow. So the passes begin large and get smaller: those to
//! come always fit into the room that is left, and few rows have to leave the page for it.

/// How the waves of a region are grouped into passes. No promise depends on it: the checkpoint has
/// the waves of the present pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passes {
    /// Each wave has its own.
    Even,
    /// Each pass does one part in so many of the waves that are left, and one wave at least.
    Shrinking(i32),
}

impl Passes {
    /// The last wave of the pass that begins with this one.
    pub fn end(self, wave: i32, waves: i32) -> i32 {
        let size = match self {
            Passes::Even => 1,
            Passes::Shrinking(part) => {
                let part = part.max(1);
                // Rounded to the nearest.
                (((waves - wave).max(0) + part / 2) / part).max(1)
            }
        };
        wave + size - 1
    }

    /// How many waves each pass has.
    pub fn sizes(self, waves: i32) -> Vec<i32> {
        let mut sizes = Vec::new();
        let mut wave = 0;
        while wave < waves {
            let next = self.end(wave, waves) + 1;
            sizes.push(next - wave);
            wave = next;
        }
        sizes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_cover_all_waves() {
        for waves in 1..300 {
            assert_eq!(Passes::Even.sizes(waves), vec![1; waves as usize]);
            for part in 0..100 {
                let sizes = Passes::Shrinking(part).sizes(waves);
                assert_eq!(sizes.iter().sum::<i32>(), waves, "{waves} {part}");
                assert!(sizes.iter().all(|size| *size > 0), "{waves} {part}");
                assert!(sizes.is_sorted_by(|a, b| a >= b), "{waves} {part}");
            }
        }
    }

    #[test]
    fn they_get_smaller() {
        let sizes = Passes::Shrinking(10).sizes(41);
        assert_eq!(sizes[..10], [4, 4, 3, 3, 3, 2, 2, 2, 2, 2]);
        assert_eq!(sizes[10..], [1; 14]);
        assert_eq!(Passes::Shrinking(1).sizes(41), [41]);
    }
}
