//! The statements of an action, for each way to select the rows of a batch.

use super::{Action, Batch};
use crate::scan::sql::{Rows, Statement, Target, matches};

/// The value that a statement returns for each of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Giving {
    /// Nothing.
    Nothing,
    /// The key of the row.
    Key,
    /// The ctid of the row.
    Place,
}

/// Returns the statement of a batch, for those of its rows that match the WHERE clause. Parameters: those of `rows`.
pub fn batch(action: &dyn Action, target: &Target, rows: Rows, giving: Giving) -> Statement {
    let mut writer = target.writer();
    let mut selected = target.select(&mut writer, rows, &action.clauses());
    selected.condition.push_str(&target.and_where());
    let returning = match giving {
        Giving::Nothing => None,
        Giving::Key => Some(writer.columns()),
        Giving::Place => Some(format!("{}.ctid", target.name())),
    };
    let text = action.render(&Batch {
        item: target.item(),
        rows: Some(selected),
        returning,
    });
    writer.statement(text)
}

/// Returns the statement of a batch in physical order, for a list of ctids. It returns one row: how many rows it has changed, how many of
/// these still match the WHERE clause, and how many are now in a range of pages. Parameters: the list, and that range.
pub fn counted(action: &dyn Action, target: &Target) -> Statement {
    let mut writer = target.writer();
    let mut selected = target.select(&mut writer, Rows::Places, &action.clauses());
    selected.condition.push_str(&target.and_where());
    let again = matches(target.where_clause.as_deref().unwrap_or("true"));
    let changed = action.render(&Batch {
        item: target.item(),
        rows: Some(selected),
        returning: Some(format!("{again} AS again, {} AS ahead", writer.pages())),
    });
    writer.statement(format!(
        "WITH done AS ({changed})\n\
         SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE done.again), \
         pg_catalog.count(*) FILTER (WHERE done.ahead) FROM done"
    ))
}

/// Returns the statement for a list of ctids, whether or not the rows match. Parameter: the list.
pub fn unasked(action: &dyn Action, target: &Target) -> Statement {
    let mut writer = target.writer();
    let selected = target.select(&mut writer, Rows::Places, &action.clauses());
    let text = action.render(&Batch {
        item: target.item(),
        rows: Some(selected),
        returning: None,
    });
    writer.statement(text)
}

/// Returns the statement for all rows at once, which is only analysed, not run.
pub fn whole(action: &dyn Action, target: &Target) -> String {
    action.render(&Batch {
        item: target.item(),
        rows: None,
        returning: None,
    })
}

#[cfg(test)]
#[path = "statement_tests.rs"]
mod tests;
