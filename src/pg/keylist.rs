//! Keeps the keys of a region of the walk in memory, in the server's own form: tens of thousands of keys are neither converted to text
//! nor read again for each wave.

use pgrx::pg_sys::{self, Datum, Oid};

use super::memory::Memory;
use super::row::RawRow;
use super::server;
use super::settings::{self, CANONICAL};
use super::text::from_server;
use crate::error::{Error, Result};

/// A list of keys in the order of the walk. It lives in a memory context of its own.
#[derive(Debug)]
pub struct KeyList {
    /// Holds the values that are not passed by value.
    memory: Memory,
    types: Vec<KeyType>,
    values: Vec<Datum>,
}

/// One column of some keys of a list.
#[derive(Debug, Clone, Copy)]
pub struct KeyColumn<'a> {
    list: &'a KeyList,
    rows: &'a [u32],
    /// Number of the column in the list, from 0.
    column: usize,
}

impl KeyColumn<'_> {
    /// Returns the array type over the column's type.
    pub(super) fn array_type(&self) -> Oid {
        self.list.types[self.column].array
    }

    /// Builds an array of the keys' values in this column, in the current memory context.
    pub(super) fn array(&self) -> Datum {
        let types = &self.list.types;
        let of = &types[self.column];
        let at = |row: &u32| self.list.values[*row as usize * types.len() + self.column];
        let mut elements: Vec<Datum> = self.rows.iter().map(at).collect();
        // SAFETY: the pointer and the count describe one vector, whose elements `push` copied from values of the column's type,
        // which is described as in the catalogs; the list, which owns them, is borrowed. They are copied into the array.
        let array = unsafe {
            pg_sys::construct_array(
                elements.as_mut_ptr(),
                elements.len() as i32,
                of.oid,
                i32::from(of.length),
                of.by_value,
                of.align,
            )
        };
        Datum::from(array)
    }
}

/// Properties of a column's type.
#[derive(Debug, Clone, Copy)]
struct KeyType {
    oid: Oid,
    array: Oid,
    length: i16,
    by_value: bool,
    align: std::ffi::c_char,
}

/// Whether keys of these types can be assigned to waves: this takes array types and hash functions for all of them.
pub fn supported(types: &[Oid]) -> bool {
    types.iter().all(|oid| {
        let of = describe(*oid);
        let hashed = [pg_sys::INT2OID, pg_sys::INT4OID, pg_sys::INT8OID].contains(oid)
            || (is_hash_lasting(*oid) && hash_function(*oid).is_some());
        of.array != Oid::INVALID && of.length >= -1 && hashed
    })
}

/// Whether a value's hash is the same in a copy of the database that was restored from a dump. False for enums, whose hashes are computed
/// from OIDs.
fn is_hash_lasting(oid: Oid) -> bool {
    server::require_transaction();
    // SAFETY: within a transaction any OID will do: one that is no type raises an error, or is its own base type.
    unsafe {
        let base = pg_sys::getBaseType(oid);
        let element = pg_sys::get_element_type(base);
        let of = if element == Oid::INVALID {
            base
        } else {
            element
        };
        pg_sys::get_typtype(of) as u8 == b'b'
    }
}

/// Returns the array type over a type; invalid if there is none.
pub fn array_type(oid: Oid) -> Oid {
    server::require_transaction();
    // SAFETY: within a transaction any OID will do.
    unsafe { pg_sys::get_array_type(oid) }
}

impl KeyList {
    /// Creates an empty list of keys whose columns have these types, or domains over them.
    pub fn new(types: &[Oid]) -> Result<KeyList> {
        let types: Vec<KeyType> = types.iter().map(|oid| describe(*oid)).collect();
        // A negative length below -1 means cstring, which no column can be.
        if let Some(of) = types.iter().find(|of| of.length < -1) {
            let message = format!("type {} cannot be a key's", of.oid);
            return Err(Error::internal(message));
        }
        Ok(KeyList {
            memory: Memory::new(c"backfill region"),
            types,
            values: Vec::new(),
        })
    }

    /// Adds the key in the first columns of a row.
    pub fn push(&mut self, row: &RawRow) -> Result<()> {
        for (column, of) in self.types.iter().enumerate() {
            let value = row
                .of_type(column, of.oid)?
                .ok_or_else(|| Error::internal("a key column is NULL"))?;
            // SAFETY: the value is of the column's type, which has a length, as `new` has checked, and not NULL; `copy` ends no
            // transaction.
            let kept = unsafe { self.memory.within(|| copy(value, of)) };
            self.values.push(kept);
        }
        Ok(())
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.values.len() / self.types.len().max(1)
    }

    /// Returns a key in its canonical text form.
    pub fn text(&self, row: usize) -> Result<Vec<String>> {
        settings::with(CANONICAL, || {
            let values = &self.values[row * self.types.len()..][..self.types.len()];
            values
                .iter()
                .zip(&self.types)
                // SAFETY: each value is of its column's type, copied by `push`.
                .map(|(value, of)| unsafe { text(*value, of.oid) })
                .collect()
        })
    }

    /// Whether the row begins with exactly this key, compared byte by byte.
    pub fn is(&self, key: usize, row: &RawRow) -> Result<bool> {
        for (column, of) in self.types.iter().enumerate() {
            let mine = self.values[key * self.types.len() + column];
            let Some(value) = row.of_type(column, of.oid)? else {
                return Ok(false);
            };
            // SAFETY: both values are of the column's type, and neither is NULL: `mine` was copied by `push`.
            if !unsafe { same(mine, value, of) } {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the keys of these rows, column by column.
    pub(super) fn columns<'a>(&'a self, rows: &'a [u32]) -> impl Iterator<Item = KeyColumn<'a>> {
        (0..self.types.len()).map(move |column| KeyColumn {
            list: self,
            rows,
            column,
        })
    }

    /// Returns the keys as numbers; `None` unless they consist of one integer column.
    pub fn integers(&self) -> Option<Vec<i64>> {
        let [of] = self.types.as_slice() else {
            return None;
        };
        let number: fn(&Datum) -> i64 = match of.oid {
            pg_sys::INT2OID => |d| i64::from(d.value() as i16),
            pg_sys::INT4OID => |d| i64::from(d.value() as i32),
            pg_sys::INT8OID => |d| d.value() as i64,
            _ => return None,
        };
        Some(self.values.iter().map(number).collect())
    }

    /// Returns a hash of each key, computed with the hash functions of its types, which depend on nothing but the key (hash partitions are
    /// based on the same functions).
    pub fn hashes(&self) -> Result<Vec<u64>> {
        let mut functions = Vec::with_capacity(self.types.len());
        for of in &self.types {
            let function = hash_function(of.oid)
                .ok_or_else(|| Error::internal(format!("type {} has no hash", of.oid)))?;
            functions.push(function);
        }
        let hash = |key: &[Datum]| {
            key.iter().zip(&functions).fold(0u64, |seed, (value, f)| {
                let seed = Datum::from(seed);
                // SAFETY: the function is in an entry of the type cache, which is never freed. It takes a value of the type, as
                // this one is, and a bigint, and returns a bigint, both passed by value.
                unsafe { pg_sys::FunctionCall2Coll(*f, pg_sys::C_COLLATION_OID, *value, seed) }
                    .value() as u64
            })
        };
        Ok(self.values.chunks(self.types.len()).map(hash).collect())
    }
}

fn describe(oid: Oid) -> KeyType {
    let (mut length, mut by_value, mut align) = (0, false, 0);
    server::require_transaction();
    // SAFETY: within a transaction any OID will do: one that is no type raises an error. The results go to variables of this
    // function.
    unsafe {
        pg_sys::get_typlenbyvalalign(oid, &mut length, &mut by_value, &mut align);
        KeyType {
            oid,
            array: pg_sys::get_array_type(oid),
            length,
            by_value,
            align,
        }
    }
}

/// Copies a value into the current memory context.
///
/// # Safety
/// `value` must be of the type that `of` describes, not NULL, and its type must have a length (no cstring).
unsafe fn copy(value: Datum, of: &KeyType) -> Datum {
    // SAFETY: as the caller promises: a value of variable length begins with its length, and a value of a fixed length that is
    // not passed by value points to that many bytes, which are copied to as many new ones.
    unsafe {
        match of.length {
            // Toasted keys are detoasted.
            -1 => Datum::from(pg_sys::pg_detoast_datum_copy(value.cast_mut_ptr())),
            _ if of.by_value => value,
            length => {
                let length = length.max(0) as usize;
                let kept = pg_sys::palloc(length);
                std::ptr::copy_nonoverlapping(value.cast_mut_ptr(), kept.cast::<u8>(), length);
                Datum::from(kept)
            }
        }
    }
}

/// Whether two values are the same, byte by byte.
///
/// # Safety
/// As for [`copy`], for both values.
unsafe fn same(one: Datum, other: Datum, of: &KeyType) -> bool {
    if of.by_value {
        return one == other;
    }
    // SAFETY: as the caller promises. Detoasted copies go into the current memory context, and the bytes are not read beyond
    // this expression.
    unsafe {
        let bytes = |value: Datum| match of.length {
            -1 => {
                let packed = pg_sys::pg_detoast_datum_packed(value.cast_mut_ptr());
                pgrx::varlena_to_byte_slice(packed)
            }
            length => std::slice::from_raw_parts(value.cast_mut_ptr(), length.max(0) as usize),
        };
        bytes(one) == bytes(other)
    }
}

/// Returns the text form of a value.
///
/// # Safety
/// `value` must be of this type, and not NULL.
pub(super) unsafe fn text(value: Datum, oid: Oid) -> Result<String> {
    server::require_transaction();
    // SAFETY: within a transaction, the type's own output function takes the value, and returns a string that is allocated
    // for the caller alone; it is copied, and then freed.
    unsafe {
        let (mut function, mut is_varlena) = (Oid::INVALID, false);
        pg_sys::getTypeOutputInfo(oid, &mut function, &mut is_varlena);
        let text = pg_sys::OidOutputFunctionCall(function, value);
        let read = from_server(text);
        pg_sys::pfree(text.cast());
        read
    }
}

/// Returns the type's 64-bit hash function, if it has one. It lives in the type cache, whose entries are never freed.
fn hash_function(oid: Oid) -> Option<*mut pg_sys::FmgrInfo> {
    server::require_transaction();
    // SAFETY: within a transaction any OID will do: one that is no type raises an error, so the entry is never null.
    unsafe {
        let flags = pg_sys::TYPECACHE_HASH_EXTENDED_PROC_FINFO as i32;
        let entry = pg_sys::lookup_type_cache(oid, flags);
        let function = &raw mut (*entry).hash_extended_proc_finfo;
        ((*function).fn_oid != Oid::INVALID).then_some(function)
    }
}
