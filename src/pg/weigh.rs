//! Computes how many bytes a row takes before an update, and how many after.

use std::ffi::{CStr, c_char};

use pgrx::pg_sys::{self, Datum};
use pgrx::varlena::{varatt_is_1b, varatt_is_1b_e, varsize_any};

use super::evaluate::Change;

// Missing from the bindings of pgrx; the server exports it for extensions (access/toast_internals.h).
unsafe extern "C-unwind" {
    fn toast_compress_datum(value: Datum, method: c_char) -> Datum;
}

/// Size of a row's header in bytes, null bitmap included.
const HEADER: usize = 24;
/// Rows longer than this many bytes are toasted: `TOAST_TUPLE_TARGET`.
const TARGET: usize = 2032;
/// Largest size, in bytes, of a value with a one-byte header; larger ones have a four-byte header: `VARATT_SHORT_MAX`.
const LONGEST_SHORT: usize = 127;

/// Sizes of a row, in bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Weight {
    /// The old row, in the table itself.
    pub before: usize,
    /// The header and the fixed-length values of the new version.
    pub fixed: usize,
    /// The variable-length values of the new version.
    pub values: Vec<Value>,
    /// The new values of the columns that are set, in the table itself.
    pub set: usize,
    /// Replaced values of the old row, in the TOAST table.
    pub replaced: usize,
    /// Each column of the new version, as an index stores it; 0 for NULL. In the order of the column numbers.
    pub columns: Vec<usize>,
}

/// A variable-length value of the new version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value {
    /// Size in the row, in bytes.
    pub stored: usize,
    /// Compressed size in bytes; `None` if the value is not to be compressed, or does not get smaller.
    pub compressed: Option<usize>,
    /// Whether the value may be moved to the TOAST table.
    pub movable: bool,
}

impl Change<'_> {
    /// Computes the sizes of the row. Compresses the values that an update would compress, to learn their size, which takes as long as in
    /// an update.
    pub fn weight(&self) -> Weight {
        let mut weight = Weight {
            before: HEADER,
            ..Weight::default()
        };
        let mut fixed = HEADER;
        let mut values = Vec::new();
        for number in 1..=self.width() {
            let set = self.set().contains(&number);
            let kept = Column::of(self, number, true);
            let new = Column::of(self, number, false);
            weight.before += kept.as_ref().map_or(0, |column| column.stored);
            weight
                .columns
                .push(new.as_ref().map_or(0, |column| column.stored));
            if set {
                weight.replaced += kept.as_ref().map_or(0, |column| column.elsewhere);
            }
            let Some(new) = new else { continue };
            match new.varies {
                // A value that is set is stored as a whole, wherever it was read from.
                true if set => values.push((number, new, true)),
                true => values.push((number, new, false)),
                false => fixed += new.stored,
            }
        }
        let whole = |(_, column, set): &(i16, Column, bool)| match set {
            true => column.plain,
            false => column.stored,
        };
        let long = fixed + values.iter().map(whole).sum::<usize>() > TARGET;
        let laid: Vec<Value> = values
            .iter()
            .map(|value| Value {
                stored: whole(value),
                compressed: (long && value.2)
                    .then(|| value.1.compressed(self, value.0))
                    .flatten(),
                movable: value.1.movable && (value.2 || value.1.elsewhere == 0),
            })
            .collect();
        weight.fixed = fixed;
        let small = |value: &Value| value.stored.min(TARGET);
        let mine = values.iter().zip(&laid).filter(|((_, _, set), _)| *set);
        weight.set = mine.map(|(_, value)| small(value)).sum::<usize>();
        weight.values = laid;
        weight
    }
}

/// A value as it is stored, or as it would be.
struct Column {
    value: Datum,
    /// Size in the row, in bytes.
    stored: usize,
    /// Size of the whole value, in bytes.
    plain: usize,
    /// Size in the TOAST table, in bytes.
    elsewhere: usize,
    /// Whether the value has a variable length.
    varies: bool,
    /// Whether the value may be moved to the TOAST table.
    movable: bool,
}

impl Column {
    fn of(change: &Change, number: i16, before: bool) -> Option<Column> {
        let value = change.value(number, before)?;
        let attribute = change.attribute(number);
        let column = |stored: usize| Column {
            value,
            stored,
            plain: stored,
            elsewhere: 0,
            varies: false,
            movable: false,
        };
        Some(match attribute.attlen {
            -1 => Column::varlena(attribute, value),
            // SAFETY: types of this length have zero-terminated values.
            -2 => column(unsafe { CStr::from_ptr(value.cast_mut_ptr()) }.count_bytes() + 1),
            length => column(usize::from(length.unsigned_abs())),
        })
    }

    fn varlena(attribute: &pg_sys::FormData_pg_attribute, value: Datum) -> Column {
        let plain_storage = attribute.attstorage == b'p' as c_char;
        let pointer = value.cast_mut_ptr::<pg_sys::varlena>();
        // SAFETY: a type of length -1 has varlena values, and this is one of them: the macros read its header only, and the functions
        // read what it refers to in the TOAST table.
        unsafe {
            let external = varatt_is_1b_e(pointer);
            let whole = pg_sys::toast_raw_datum_size(value) as usize;
            let size = varsize_any(pointer);
            let short = |size: usize| match size - 3 <= LONGEST_SHORT && !plain_storage {
                true => size - 3,
                false => size.next_multiple_of(4),
            };
            let stored = match external || varatt_is_1b(pointer) {
                true => size,
                false => short(size),
            };
            Column {
                value,
                stored,
                plain: short(whole),
                elsewhere: match external {
                    true => pg_sys::toast_datum_size(value) as usize,
                    false => 0,
                },
                varies: true,
                movable: !plain_storage,
            }
        }
    }

    /// Returns the compressed size in bytes; `None` if it is not smaller, or the column's storage does not compress.
    fn compressed(&self, change: &Change, number: i16) -> Option<usize> {
        let attribute = change.attribute(number);
        let compresses = [b'x' as c_char, b'm' as c_char].contains(&attribute.attstorage);
        if !compresses {
            return None;
        }
        // SAFETY: a varlena value, as `of` checked. The copy that is compressed is a whole one in the current memory context, and is
        // freed if it is a copy; an error becomes a panic at the boundary, with nothing to be dropped before it.
        unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                let given = self.value.cast_mut_ptr::<pg_sys::varlena>();
                let whole = pg_sys::pg_detoast_datum(given);
                let packed = toast_compress_datum(Datum::from(whole), attribute.attcompression);
                let size = (packed.value() != 0).then(|| {
                    let packed = packed.cast_mut_ptr::<pg_sys::varlena>();
                    let size = varsize_any(packed);
                    pg_sys::pfree(packed.cast());
                    size
                });
                if whole != given {
                    pg_sys::pfree(whole.cast());
                }
                size
            })
        }
    }
}
