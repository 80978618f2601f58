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
            // SAFETY: the list holds common table expressions, each with a name that ends with a zero, and whole as the query is.
            unsafe {
                let all = list::pointers::<pg_sys::CommonTableExpr>(query.cteList).into_iter();
                let mut read = all.filter(|one| (**one).cterefcount > 0);
                found |= read.any(|one| lossy((*one).ctename).is_some_and(|its| its == name));
            }
        }
    })?;
    Ok(found)
}
