//! Makes sure that a schema's name stands for the same schema for as long as a call, or a kept statement, uses it.
//!
//! Checks are made on a table by its OID; statements name it. In between, the owner of a schema may rename it and put another one in
//! its place: the statement would then be analysed and planned for a table that nobody has checked, with somebody else's constraints
//! and index expressions. No lock keeps a schema from being renamed. So each schema whose name goes into a statement is remembered,
//! and at each look-up of a schema by name a hook checks whether PostgreSQL found another schema of the same name; that raises an
//! error before anything in the schema is opened. The table itself is locked by its OID before it is checked, so nobody drops or
//! renames it meanwhile.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString};

use pgrx::pg_sys::{self, Oid};

use super::{object_access, report};
use crate::error::{Error, sqlstate};

/// Schemas by OID, each with the name that it had.
type Meant = Vec<(Oid, CString)>;

thread_local! {
    static MEANT: RefCell<Meant> = const { RefCell::new(Vec::new()) };
    static INSTALLED: Cell<bool> = const { Cell::new(false) };
}

/// Remembers the schema of a relation until the [`Scope`] ends. Within a transaction.
pub fn remember(relation: Oid) {
    install();
    // SAFETY: within a transaction any OID will do.
    let schema = unsafe { pg_sys::get_rel_namespace(relation) };
    let Some(name) = name_of(schema) else {
        return;
    };
    let found = (schema, name);
    MEANT.with_borrow_mut(|meant| {
        if !meant.contains(&found) {
            meant.push(found);
        }
    });
}

/// Returns the schemas remembered now, for a statement that is kept.
pub fn remembered() -> Meant {
    MEANT.with_borrow(Clone::clone)
}

/// Guard for a period in which names keep their meaning. Dropping it restores what was remembered before, also when an error passes.
pub struct Scope(Meant);

impl Scope {
    /// Begins with no schema remembered.
    pub fn begin() -> Scope {
        Scope::of(&Meant::new())
    }

    /// Begins with the schemas that were remembered when a statement was made.
    pub fn of(meant: &Meant) -> Scope {
        Scope(MEANT.replace(meant.clone()))
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        MEANT.set(std::mem::take(&mut self.0));
    }
}

/// Returns the schema's current name, if the schema exists. Within a transaction.
fn name_of(schema: Oid) -> Option<CString> {
    // SAFETY: within a transaction, as schemas are looked up only there, any OID will do. The name is null, or a zero-terminated
    // copy that nobody else has: it is copied before it is freed.
    unsafe {
        let name = pg_sys::get_namespace_name(schema);
        if name.is_null() {
            return None;
        }
        let copy = CStr::from_ptr(name).to_owned();
        pg_sys::pfree(name.cast());
        Some(copy)
    }
}

fn install() {
    if INSTALLED.replace(true) {
        return;
    }
    object_access::watch(on_access);
}

/// Watcher for accesses: checks each schema that PostgreSQL has looked up by name.
fn on_access(access: pg_sys::ObjectAccessType::Type, class: Oid, object: Oid) {
    if access == pg_sys::ObjectAccessType::OAT_NAMESPACE_SEARCH
        && class == pg_sys::NamespaceRelationId
    {
        refuse_another(object);
    }
}

/// Raises an error if the schema has a name that is remembered as the name of another schema, even if the found schema is itself
/// remembered under another name.
fn refuse_another(found: Oid) {
    if MEANT.with_borrow(Vec::is_empty) {
        return;
    }
    let Some(name) = name_of(found) else {
        return;
    };
    let another = |(schema, known): &(Oid, CString)| *known == name && *schema != found;
    if MEANT.with_borrow(|meant| meant.iter().any(another)) {
        let name = name.to_string_lossy();
        report::unwrap::<()>(Err(Error::new(
            sqlstate::SERIALIZATION_FAILURE,
            format!("schema \"{name}\" is not the one that it was a moment ago: it was renamed meanwhile"),
        )
        .hint("Try again.")));
    }
}
