//! Triggers on the extension's own tables.

use pgrx::pg_sys;

use super::elevate::extension_owner;
use super::server;
use crate::error::{Error, Result, sqlstate};

/// The event that called the trigger function.
#[derive(Debug, Clone, Copy)]
pub struct Fired {
    /// Whether the trigger fires once for each row, not once for the statement.
    by_row: bool,
    /// Whether the event is a TRUNCATE.
    truncates: bool,
    /// The row to be written or deleted.
    row: pg_sys::Datum,
}

/// Returns the event that called the function; `None` if it was not called by a trigger.
///
/// # Safety
/// `fcinfo` must be the one that the function was called with.
pub unsafe fn fired(fcinfo: pg_sys::FunctionCallInfo) -> Option<Fired> {
    // SAFETY: the caller's promise. The context of a function that a trigger calls is a TriggerData, as its first field
    // tells; for a row trigger it holds the old row, and for an UPDATE also the new one.
    unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
            return None;
        }
        let data = &*context.cast::<pg_sys::TriggerData>();
        let operation = data.tg_event & pg_sys::TRIGGER_EVENT_OPMASK;
        let row = if operation == pg_sys::TRIGGER_EVENT_UPDATE {
            data.tg_newtuple
        } else {
            data.tg_trigtuple
        };
        Some(Fired {
            by_row: data.tg_event & pg_sys::TRIGGER_EVENT_ROW != 0,
            truncates: operation == pg_sys::TRIGGER_EVENT_TRUNCATE,
            row: pg_sys::Datum::from(row),
        })
    }
}

/// Lets a statement or a row pass, or refuses it. Returns the trigger's return value: the row to go on with, or null for a row to
/// be left out and for a statement.
pub fn pass(fired: Fired) -> Result<pg_sys::Datum> {
    let nothing = pg_sys::Datum::from(0);
    // SAFETY: it reads a variable of this backend.
    if unsafe { pg_sys::IsLogicalWorker() } {
        // Jobs of another cluster are not this server's, and their ids would collide with those of its own.
        return if fired.truncates {
            Err(refuse_replicated_truncate())
        } else {
            Ok(nothing)
        };
    }
    refuse_others()?;
    Ok(if fired.by_row { fired.row } else { nothing })
}

fn refuse_replicated_truncate() -> Error {
    Error::new(
        sqlstate::NOT_IN_PREREQUISITE_STATE,
        "a TRUNCATE of a table of the extension \"backfill\" was replicated: it would remove the jobs of this server",
    )
    .hint("ALTER SUBSCRIPTION ... SKIP passes over it; a publication that leaves the schema backfill_internal out has none.")
}

/// Refuses writes to the extension's tables by anybody but the extension's own functions and superusers: members of the predefined role
/// pg_write_all_data may write every table, and these tables determine what a worker does with another role's rights.
fn refuse_others() -> Result<()> {
    // SAFETY: called by a trigger, and so within a transaction, in which the role can be looked up.
    if unsafe { pg_sys::superuser() } || server::current_user() == extension_owner()? {
        return Ok(());
    }
    Err(Error::new(
        sqlstate::INSUFFICIENT_PRIVILEGE,
        "permission denied: the tables of the extension \"backfill\" are written by its functions only",
    )
    .hint("Use backfill.define, start, alter, pause, resume, cancel and forget."))
}
