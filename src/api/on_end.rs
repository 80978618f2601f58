//! Checks of the option `on_end`.

use crate::error::Result;
use crate::pg::clauses;

/// Checks that it is one statement that a worker can run in a transaction; for a query, also that the objects it names
/// exist and the owner may use them. Within a session of the owner's.
pub fn check(statement: Option<&str>) -> Result<()> {
    let Some(statement) = statement else {
        return Ok(());
    };
    if clauses::check_statement("on_end", statement)? {
        clauses::explain(statement, &[statement]).map_err(|mut error| {
            error.message = format!("option \"on_end\": {}", error.message);
            if error.hint.is_none() {
                error = error.hint("It is run as the job's owner once the job has ended, with the search_path that the job was defined with.");
            }
            error
        })?;
    }
    Ok(())
}
