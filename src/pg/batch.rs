//! The rows of a batch, as a statement of the owner's reads them.

use pgrx::pg_sys;

use super::clauses::analysed;
use super::list;
use super::text::lossy;
use crate::error::Result;

/// Whether a statement reads the common table expression of this name, which it begins with. As the current user, within
/// `spi::connect`; nothing is run or planned.
pub fn is_read(statement: &str, name: &str) -> Result<bool> {
    let mut found = false;
    analysed(statement, |it| {
        for query in it.queries() {
            // SAFETY: the list holds common table expressions, each with a name, and whole as the query is.
            let all = unsafe { list::pointers::<pg_sys::CommonTableExpr>(query.cteList) };
            found |= all.into_iter().any(|one| unsafe {
                (*one).cterefcount > 0 && lossy((*one).ctename).is_some_and(|its| its == name)
            });
        }
    })?;
    Ok(found)
}
