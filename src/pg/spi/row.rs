//! Rows of a result: copied, as text, or lent, as the server holds them.

use std::cell::Cell;

use pgrx::pg_sys::{self, Datum, Oid};

use super::super::heap::{self, Tid};
use super::super::text::{from_server, lossy_whole};
use crate::error::{Error, Result};

/// A row of a result, column by column in text form.
#[derive(Debug, Clone)]
pub struct Row(Vec<Option<String>>);

impl Row {
    /// The column, or NULL.
    pub fn get(&self, column: usize) -> Option<&str> {
        self.0.get(column).and_then(|v| v.as_deref())
    }

    /// The column, which must not be NULL.
    pub fn text(&self, column: usize) -> Result<&str> {
        self.get(column)
            .ok_or_else(|| Error::internal(format!("column {column} is NULL")))
    }

    /// The column as what it parses into, or NULL.
    pub fn parse<T: std::str::FromStr>(&self, column: usize) -> Result<Option<T>> {
        self.get(column)
            .map(|text| {
                text.parse()
                    .map_err(|_| Error::internal(format!("column {column} is \"{text}\"")))
            })
            .transpose()
    }

    /// The column as a number, which must not be NULL.
    pub fn number(&self, column: usize) -> Result<i64> {
        self.text(column)?;
        Ok(self.parse(column)?.unwrap_or_default())
    }

    /// The column as a boolean; NULL is false.
    pub fn bool(&self, column: usize) -> bool {
        self.get(column) == Some("t")
    }

    /// The first `n` columns, none of which may be NULL.
    pub fn texts(&self, n: usize) -> Result<Vec<String>> {
        (0..n).map(|i| self.text(i).map(str::to_owned)).collect()
    }
}

/// A row of a result as the server holds it. Columns are counted from 0.
#[derive(Debug)]
pub struct RawRow<'a> {
    pub(super) tuple: pg_sys::HeapTuple,
    pub(super) columns: &'a Columns,
}

impl RawRow<'_> {
    /// The value of a column of this type, or of a domain over it; NULL is `None`. It is part of the row, if it
    /// is not passed by value. An error for a column of another type.
    pub(in crate::pg) fn of_type(&self, column: usize, of: Oid) -> Result<Option<Datum>> {
        if self.columns.types.get(column) != Some(&of) {
            let message = format!("column {column} of a result is not of type {of}");
            return Err(Error::internal(message));
        }
        let (description, mut null) = (self.columns.description, false);
        // SAFETY: the row is one of the result that the description is of, which `visit` frees after it has shown
        // all of them, and the column is there.
        let value =
            unsafe { pg_sys::SPI_getbinval(self.tuple, description, column as i32 + 1, &mut null) };
        Ok((!null).then_some(value))
    }

    /// A boolean column; NULL is false.
    pub fn bool(&self, column: usize) -> Result<bool> {
        let value = self.of_type(column, pg_sys::BOOLOID)?;
        Ok(value.is_some_and(|value| value.value() != 0))
    }

    /// A column of type bigint.
    pub fn number(&self, column: usize) -> Result<Option<i64>> {
        let value = self.of_type(column, pg_sys::INT8OID)?;
        Ok(value.map(|value| value.value() as i64))
    }

    /// A column of type tid.
    pub fn tid(&self, column: usize) -> Result<Option<Tid>> {
        let value = self.of_type(column, pg_sys::TIDOID)?;
        // SAFETY: it is of that type, and not NULL.
        Ok(value.map(|value| unsafe { heap::tid(value) }))
    }
}

/// The columns of a result that is being looked at.
#[derive(Debug)]
pub(super) struct Columns {
    description: pg_sys::TupleDesc,
    /// Their types; of a domain, that which it is over.
    types: Vec<Oid>,
}

impl Columns {
    /// # Safety
    /// `description` must be that of a result, which lives as long as this. Within a transaction.
    pub(super) unsafe fn of(description: pg_sys::TupleDesc) -> Columns {
        // SAFETY: as the caller promises. The types of columns that are there exist.
        let base = |number| unsafe {
            match pg_sys::SPI_gettypeid(description, number) {
                // Below, there are no domains.
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

/// The row, copied, value by value in text form.
///
/// # Safety
/// The row must be one of the result that the description is of.
pub(super) unsafe fn copy(tuple: pg_sys::HeapTuple, description: pg_sys::TupleDesc) -> Result<Row> {
    // SAFETY: as the caller promises. Columns are counted from 1. The text of a value is allocated for the caller
    // alone, and ends with a zero; it is copied, and then freed.
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
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            FOR_PEOPLE.set(self.0);
        }
    }
    let _before = Before(FOR_PEOPLE.replace(true));
    f()
}
