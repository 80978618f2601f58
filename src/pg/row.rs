//! Rows of a result: copied as text, or lent in the server's own form.

use std::cell::Cell;

use pgrx::pg_sys::{self, Datum, Oid};

use super::flag::Raised;
use super::text::{from_server, lossy_whole};
use super::tid::{self, Tid};
use crate::error::{Error, Result};

/// A row of a result, as the text forms of its columns.
#[derive(Debug, Clone)]
pub struct Row(Vec<Option<String>>);

impl Row {
    /// Returns the column; `None` for NULL.
    pub fn get(&self, column: usize) -> Option<&str> {
        self.0.get(column).and_then(|v| v.as_deref())
    }

    /// Returns the column, which must not be NULL.
    pub fn text(&self, column: usize) -> Result<&str> {
        self.get(column)
            .ok_or_else(|| Error::internal(format!("column {column} is NULL")))
    }

    /// Parses the column; `None` for NULL.
    pub fn parse<T: std::str::FromStr>(&self, column: usize) -> Result<Option<T>> {
        self.get(column)
            .map(|text| {
                text.parse()
                    .map_err(|_| Error::internal(format!("column {column} is \"{text}\"")))
            })
            .transpose()
    }

    /// Parses the column, which must not be NULL, as a number.
    pub fn number(&self, column: usize) -> Result<i64> {
        self.text(column)?;
        Ok(self.parse(column)?.unwrap_or_default())
    }

    /// Returns the column as a boolean; NULL is false.
    pub fn bool(&self, column: usize) -> bool {
        self.get(column) == Some("t")
    }

    /// Returns the first `n` columns, none of which may be NULL.
    pub fn texts(&self, n: usize) -> Result<Vec<String>> {
        (0..n).map(|i| self.text(i).map(str::to_owned)).collect()
    }
}

/// A row of a result in the server's own form. Columns are counted from 0.
#[derive(Debug)]
pub struct RawRow<'a> {
    pub(super) tuple: pg_sys::HeapTuple,
    pub(super) columns: &'a Columns,
}

impl RawRow<'_> {
    /// Returns the value of a column of this type, or of a domain over it; `None` for NULL. The value points into the row, unless it is
    /// passed by value. Returns an error for a column of another type.
    pub(in crate::pg) fn of_type(&self, column: usize, of: Oid) -> Result<Option<Datum>> {
        if self.columns.types.get(column) != Some(&of) {
            let message = format!("column {column} of a result is not of type {of}");
            return Err(Error::internal(message));
        }
        let (description, mut null) = (self.columns.description, false);
        // SAFETY: the row belongs to the result that the description is of, which `visit` frees after it has lent all of its rows,
        // and the column exists.
        let value =
            unsafe { pg_sys::SPI_getbinval(self.tuple, description, column as i32 + 1, &mut null) };
        Ok((!null).then_some(value))
    }

    /// Returns a boolean column; NULL is false.
    pub fn bool(&self, column: usize) -> Result<bool> {
        let value = self.of_type(column, pg_sys::BOOLOID)?;
        Ok(value.is_some_and(|value| value.value() != 0))
    }

    /// Returns a bigint column; `None` for NULL.
    pub fn number(&self, column: usize) -> Result<Option<i64>> {
        let value = self.of_type(column, pg_sys::INT8OID)?;
        Ok(value.map(|value| value.value() as i64))
    }

    /// Returns a tid column; `None` for NULL.
    pub fn tid(&self, column: usize) -> Result<Option<Tid>> {
        let value = self.of_type(column, pg_sys::TIDOID)?;
        // SAFETY: the value is of that type, and not NULL.
        Ok(value.map(|value| unsafe { tid::of_datum(value) }))
    }

    /// Returns a tid[] column without its NULL elements; a NULL array is empty.
    pub fn tids(&self, column: usize) -> Result<Vec<Tid>> {
        let value = self.of_type(column, pg_sys::TIDARRAYOID)?;
        // SAFETY: the value is of that type, and not NULL.
        Ok(value.map_or(Vec::new(), |value| unsafe { tid::of_array(value) }))
    }
}

/// The columns of a result that is being read.
#[derive(Debug)]
pub(super) struct Columns {
    description: pg_sys::TupleDesc,
    /// Types of the columns; for a domain, its base type.
    types: Vec<Oid>,
}

impl Columns {
    /// # Safety
    /// `description` must be that of a result which lives as long as this. Within a transaction.
    pub(super) unsafe fn of(description: pg_sys::TupleDesc) -> Columns {
        // SAFETY: as the caller promises. The types of existing columns exist.
        let base = |number| unsafe {
            match pg_sys::SPI_gettypeid(description, number) {
                // No type with an OID below this one is a domain.
                own if own.to_u32() < pg_sys::FirstGenbkiObjectId => own,
                own => pg_sys::getBaseType(own),
            }
        };
        // SAFETY: as the caller promises.
        let count = unsafe { (*description).natts };
        Columns {
            description,
            types: (1..=count).map(base).collect(),
        }
    }
}

/// Copies the row, each value in its text form.
///
/// # Safety
/// The row must belong to the result that the description is of.
pub(super) unsafe fn copy(tuple: pg_sys::HeapTuple, description: pg_sys::TupleDesc) -> Result<Row> {
    // SAFETY: as the caller promises. Columns are counted from 1. The text of a value is allocated for the caller alone, and ends
    // with a zero; it is copied, and then freed.
    unsafe {
        let shown = FOR_PEOPLE.get();
        let mut values = Vec::with_capacity((*description).natts as usize);
        for column in 1..=(*description).natts {
            let text = pg_sys::SPI_getvalue(tuple, description, column);
            values.push(if text.is_null() {
                None
            } else {
                Some(if shown {
                    lossy_whole(text)?
                } else {
                    from_server(text)?
                })
            });
            if !text.is_null() {
                pg_sys::pfree(text.cast());
            }
        }
        Ok(Row(values))
    }
}

thread_local! {
    static FOR_PEOPLE: Cell<bool> = const { Cell::new(false) };
}

/// Runs statements whose rows only people read: names of others' objects, of whatever database or encoding. What is not valid text
/// is replaced in these; elsewhere it is an error, since a name that is put into a statement has to be the right one.
pub fn for_people<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    let _for_people = Raised::begin(&FOR_PEOPLE);
    f()
}
