//! The statement that is run for each batch.

use super::call::Call;
use crate::action::{BATCH, Execute};
use crate::error::{Error, Result, sqlstate};
use crate::pg::{batch, parts};

/// Returns the action that a call asks for. The caller's own text.
pub fn of(call: &Call, statement: &str) -> Result<Execute> {
    parts::batch_statement(statement)?;
    Ok(Execute {
        statement: statement.to_owned(),
        lock: call.options.lock_of_execute(),
    })
}

/// Refuses a statement, as it is run for a batch, that does not read the batch. The caller's own text.
pub fn refuse_unrelated(rendered: &str) -> Result<()> {
    if batch::is_read(rendered, BATCH)? {
        return Ok(());
    }
    Err(Error::new(
        sqlstate::INVALID_PARAMETER_VALUE,
        "statement does not read batch, the rows of the batch",
    )
    .hint("It names them like a table: 'INSERT INTO history SELECT id, now() FROM batch'. A statement that is to run once needs no job."))
}
