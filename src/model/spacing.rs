//! Time between two samples of a job, chosen so that there are never too many samples.

/// Seconds between two samples of a job, at first.
pub const LEAST: i32 = 10;
/// Greatest number of samples of a job: more than a plot has pixels for.
const MOST: i64 = 1000;

/// Returns the seconds from the next sample to the one after it, given `count` samples that were `last` seconds apart.
/// If that is more than `last`, the caller deletes every second sample.
pub fn after(count: i64, last: i32) -> i32 {
    if count >= MOST {
        last.saturating_mul(2)
    } else {
        last.max(LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_too_many_and_they_cover_all_of_it() {
        let (mut samples, mut spacing) = (Vec::new(), LEAST);
        let mut due = 0;
        // A month.
        for second in (0..2_600_000).step_by(10) {
            if second < due {
                continue;
            }
            let next = after(samples.len() as i64, spacing);
            if next > spacing {
                let mut keep = false;
                samples.retain(|_| {
                    keep = !keep;
                    keep
                });
            }
            spacing = next;
            samples.push(second);
            due = second + spacing;
        }
        assert!((500..=1000).contains(&samples.len()), "{}", samples.len());
        let gaps: Vec<i32> = samples.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let (least, most) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
        assert!(*most <= 2 * least, "{least} to {most}");
        assert_eq!(samples[0], 0);
    }
}
