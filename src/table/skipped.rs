//! What goes unchecked where triggers do not fire.

use pgrx::pg_sys::Oid;

use crate::action::Changes;
use crate::error::Result;
use crate::pg::triggers;

/// Refuses changes of a table that triggers of a constraint would have to check, in a session in which they do not fire. Within
/// `spi::connect`.
pub fn refuse_unchecked(table: Oid, changes: &Changes) -> Result<()> {
    match changes {
        Changes::Update(update) => triggers::refuse_unchecked(table, &update.set_columns),
        Changes::Delete(_) => triggers::refuse_referenced(table),
        // Refused when they are defined.
        Changes::Copy(_) | Changes::Execute(_) => Ok(()),
    }
}
