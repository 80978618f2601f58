//! Computes the layout of a row, what stays in the table and what goes to its TOAST table, by PostgreSQL's own rules
//! (heap_toast_insert_or_update).

/// Rows longer than this many bytes are toasted: `TOAST_TUPLE_TARGET`.
pub const TARGET: usize = 2032;
/// Size of a chunk in a TOAST table, in bytes: `TOAST_MAX_CHUNK_SIZE`.
pub const CHUNK: usize = 1996;
/// Bytes that a value moved to the TOAST table leaves in the row.
const POINTER: usize = 18;
/// Values of at most this many bytes stay where they are.
const SHORTEST: usize = 24;

/// A variable-length value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value {
    /// Size in the row, in bytes.
    pub stored: usize,
    /// Compressed size in bytes; `None` if the value is not to be compressed, or does not get smaller.
    pub compressed: Option<usize>,
    /// Whether the value may be moved to the TOAST table.
    pub movable: bool,
}

/// The layout of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Laid {
    /// Size of the row, in bytes.
    pub tuple: usize,
    /// Bytes in the TOAST table.
    pub toast: usize,
    /// Number of chunks in the TOAST table.
    pub chunks: usize,
}

/// Lays out a row that has `fixed` bytes in addition to these values.
pub fn lay_out(fixed: usize, values: &[Value]) -> Laid {
    let mut stored: Vec<usize> = values.iter().map(|value| value.stored).collect();
    let mut laid = Laid::default();
    let size = |stored: &[usize]| fixed + stored.iter().sum::<usize>();
    let mut tried = vec![false; values.len()];
    // First, the largest values are compressed, and moved at once if that alone does not make them small enough.
    while size(&stored) > TARGET {
        let Some(n) = largest(&stored, |n| !tried[n] && values[n].movable) else {
            break;
        };
        tried[n] = true;
        if let Some(compressed) = values[n].compressed {
            stored[n] = stored[n].min(compressed);
        }
        if stored[n] > TARGET {
            laid.move_out(&mut stored[n]);
        }
    }
    // Then the largest values are moved.
    while size(&stored) > TARGET {
        let Some(n) = largest(&stored, |n| values[n].movable) else {
            break;
        };
        laid.move_out(&mut stored[n]);
    }
    laid.tuple = size(&stored);
    laid
}

fn largest(stored: &[usize], wanted: impl Fn(usize) -> bool) -> Option<usize> {
    let all = 0..stored.len();
    all.filter(|n| stored[*n] > SHORTEST && wanted(*n))
        .max_by_key(|n| stored[*n])
}

impl Laid {
    fn move_out(&mut self, stored: &mut usize) {
        self.toast += *stored;
        self.chunks += stored.div_ceil(CHUNK);
        *stored = POINTER;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(stored: usize, compressed: Option<usize>) -> Value {
        Value {
            stored,
            compressed,
            movable: true,
        }
    }

    #[test]
    fn what_fits_stays() {
        let laid = lay_out(24, &[value(1000, None), value(900, Some(10))]);
        assert_eq!((laid.tuple, laid.toast, laid.chunks), (1924, 0, 0));
    }

    #[test]
    fn what_gets_small_enough_is_not_moved() {
        let laid = lay_out(24, &[value(5000, Some(700)), value(600, None)]);
        assert_eq!((laid.tuple, laid.toast), (1324, 0));
    }

    #[test]
    fn large_values_are_moved_in_chunks() {
        let laid = lay_out(32, &[value(25_000, None), value(100, None)]);
        assert_eq!((laid.tuple, laid.toast, laid.chunks), (150, 25_000, 13));
        // Each value alone is small enough, but together they are too large.
        let laid = lay_out(32, &[value(1500, None), value(1200, None)]);
        assert_eq!((laid.tuple, laid.toast, laid.chunks), (1250, 1500, 1));
        let fixed = Value {
            movable: false,
            ..value(5000, None)
        };
        assert_eq!(lay_out(32, &[fixed]).tuple, 5032);
    }
}
