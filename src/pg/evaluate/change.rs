//! A row, before and after an UPDATE that is not performed.

use super::super::settings::{self, CANONICAL};
use super::super::text::beginning;
use super::super::tid::{self, Tid};
use crate::error::Result;
use pgrx::PgTupleDesc;
use pgrx::pg_sys::{self, Datum, Oid};

// Missing from the bindings of pgrx; the server exports it for extensions.
unsafe extern "C-unwind" {
    fn datum_image_eq(one: Datum, other: Datum, by_value: bool, length: i32) -> bool;
}

/// A row, as it is and as the UPDATE would leave it. `'a` is the time for which the executor keeps it.
pub struct Change<'a> {
    /// The columns of the table.
    pub(super) columns: &'a PgTupleDesc<'a>,
    /// The columns of the SELECT: all columns of the table with their new values, then the columns that are set with their old values,
    /// then the ctid.
    pub(super) before: Values<'a>,
    /// All columns of the table with their new values, generated ones included.
    pub(super) after: Values<'a>,
    /// Numbers of the columns that are set.
    pub(super) set: &'a [i16],
}

/// The columns of a row in the executor's memory.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    values: &'a [Datum],
    nulls: &'a [bool],
}

impl Values<'_> {
    /// # Safety
    /// `slot` must be one of the executor's in which all columns are unpacked, and stay so for `'a`.
    pub(super) unsafe fn of<'a>(slot: *mut pg_sys::TupleTableSlot) -> Values<'a> {
        // SAFETY: as the caller promises: a slot has as many values and null flags as its row type has columns.
        unsafe {
            let columns = (*(*slot).tts_tupleDescriptor).natts as usize;
            Values {
                values: std::slice::from_raw_parts((*slot).tts_values, columns),
                nulls: std::slice::from_raw_parts((*slot).tts_isnull, columns),
            }
        }
    }

    /// Returns a column's value; columns are counted from 0. `None` stands for NULL.
    fn get(&self, column: usize) -> Option<Datum> {
        (!self.nulls[column]).then(|| self.values[column])
    }
}

impl Change<'_> {
    /// Whether the UPDATE would change the value of any column. Values are compared byte by byte.
    pub fn differs(&self) -> bool {
        self.set.iter().any(|number| {
            let attribute = attribute(self.columns, *number);
            let (before, after) = (self.value(*number, true), self.value(*number, false));
            match (before, after) {
                (Some(before), Some(after)) => {
                    let (by_value, length) = (attribute.attbyval, i32::from(attribute.attlen));
                    // SAFETY: both are values of the column's type, which is passed in this way, and not NULL. An error
                    // becomes a panic at the boundary, with nothing to be dropped before it.
                    !unsafe {
                        pg_sys::ffi::pg_guard_ffi_boundary(|| {
                            datum_image_eq(before, after, by_value, length)
                        })
                    }
                }
                (before, after) => before.is_some() != after.is_some(),
            }
        })
    }

    /// Returns the number of the table's columns, dropped ones included.
    pub(in crate::pg) fn width(&self) -> i16 {
        self.columns.len() as i16
    }

    /// Returns the description of a column of the table.
    pub(in crate::pg) fn attribute(&self, number: i16) -> &pg_sys::FormData_pg_attribute {
        attribute(self.columns, number)
    }

    /// Returns the numbers of the columns that are set.
    pub fn set(&self) -> &[i16] {
        self.set
    }

    /// Returns a column's old value in a text form that does not depend on settings, cut to its beginning if it is longer than `most`
    /// bytes.
    pub fn before(&self, number: i16, most: usize) -> Result<Option<String>> {
        self.shown(number, true, most)
    }

    /// Returns a column's new value in the same form.
    pub fn after(&self, number: i16, most: usize) -> Result<Option<String>> {
        self.shown(number, false, most)
    }

    /// Returns the place (ctid) of the row.
    pub fn place(&self) -> Option<Tid> {
        let place = self.before.get(self.columns.len() + self.set.len());
        // SAFETY: `select_instead` put the ctid there, which is a tid.
        place.map(|place| unsafe { tid::of_datum(place) })
    }

    /// Returns a column's old or new value, of the column's type.
    pub(in crate::pg) fn value(&self, number: i16, before: bool) -> Option<Datum> {
        let own = usize::from(number.unsigned_abs()).wrapping_sub(1);
        assert!(own < self.columns.len(), "a column of the table's");
        match self.set.iter().position(|set| *set == number) {
            Some(n) if before => self.before.get(self.columns.len() + n),
            // A column that is not set keeps its value.
            _ => self.after.get(own),
        }
    }

    fn shown(&self, number: i16, before: bool, most: usize) -> Result<Option<String>> {
        let Some(value) = self.value(number, before) else {
            return Ok(None);
        };
        // SAFETY: within a transaction, as the executor is. The type's own output function takes its values, and returns a
        // zero-terminated string, which is copied.
        settings::with(CANONICAL, || unsafe {
            let (mut output, mut varlena) = (Oid::INVALID, false);
            let type_oid = attribute(self.columns, number).atttypid;
            pg_sys::getTypeOutputInfo(type_oid, &mut output, &mut varlena);
            Ok(beginning(
                pg_sys::OidOutputFunctionCall(output, value),
                most,
            ))
        })
    }
}

/// Returns the description of a column of the table; columns are counted from 1.
pub(super) fn attribute<'a>(
    columns: &'a PgTupleDesc,
    number: i16,
) -> &'a pg_sys::FormData_pg_attribute {
    let found = usize::try_from(number - 1)
        .ok()
        .and_then(|n| columns.get(n));
    found.expect("a column of the table's")
}
