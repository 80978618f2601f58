//! The statements of an action, for each way to select the rows of a batch.

use super::{Action, Batch, Rendered};
use crate::model::fate::Fate;
use crate::scan::sql::{Rows, Selected, Statement, Target, matches};

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
        Giving::Nothing => Vec::new(),
        Giving::Key => writer.key(),
        Giving::Place => vec![format!("{}.ctid", target.name())],
    };
    let limit = (action.fate() == Fate::Kept).then(|| writer.no_limit());
    let batch = Batch {
        limit,
        ..of(target, Some(selected), returning)
    };
    writer.statement(action.render(&batch).text())
}

/// Returns the statement of a batch in physical order, for a list of ctids. It returns one row: how many rows it has changed, how many of
/// these still match the WHERE clause, and how many are now in a range of pages. Parameters: the list, and that range.
pub fn counted(action: &dyn Action, target: &Target) -> Statement {
    let mut writer = target.writer();
    let mut selected = target.select(&mut writer, Rows::Places, &action.clauses());
    selected.condition.push_str(&target.and_where());
    let (again, ahead) = match action.fate() {
        Fate::Removed => ("false".to_owned(), "false".to_owned()),
        Fate::Changed | Fate::Kept => {
            let again = matches(target.where_clause.as_deref().unwrap_or("true"));
            (again, writer.pages())
        }
    };
    let Rendered { mut with, last } =
        action.render(&of(target, Some(selected), vec![again, ahead]));
    with.push(format!("done (again, ahead) AS ({last})"));
    let last = "SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE done.again), \
         pg_catalog.count(*) FILTER (WHERE done.ahead) FROM done"
        .to_owned();
    writer.statement(Rendered { with, last }.text())
}

/// Returns the statement for a list of ctids, whether or not the rows match. Parameter: the list.
pub fn unasked(action: &dyn Action, target: &Target) -> Statement {
    let mut writer = target.writer();
    let selected = target.select(&mut writer, Rows::Places, &action.clauses());
    let rendered = action.render(&of(target, Some(selected), Vec::new()));
    writer.statement(rendered.text())
}

/// Returns the statement that reads, for a list of ctids, what the action reads of these rows. Parameter: the list.
pub fn read_unasked(action: &dyn Action, target: &Target) -> Statement {
    let mut writer = target.writer();
    let selected = target.select(&mut writer, Rows::Places, &action.clauses());
    let rendered = action.reading(&of(target, Some(selected), Vec::new()));
    writer.statement(rendered.text())
}

/// Returns the statement for all rows at once, which is only analysed, not run.
pub fn whole(action: &dyn Action, target: &Target) -> String {
    action.render(&of(target, None, Vec::new())).text()
}

/// Returns the statement for all rows of a table (an item of FROM, and the name of its rows) that match a condition, which is only analysed
/// or planned, not run.
pub fn analysed(action: &dyn Action, item: &str, name: &str, condition: Option<&str>) -> String {
    action.render(&all(item, name, condition)).text()
}

/// Like [`analysed`], for a statement that reads of the table what the action reads.
pub fn reading(action: &dyn Action, item: &str, name: &str, condition: Option<&str>) -> String {
    action.reading(&all(item, name, condition)).text()
}

fn all(item: &str, name: &str, condition: Option<&str>) -> Batch {
    Batch {
        item: item.to_owned(),
        name: name.to_owned(),
        rows: condition.map(|condition| Selected {
            list: None,
            condition: format!("(\n{condition}\n)"),
        }),
        returning: Vec::new(),
        limit: None,
    }
}

fn of(target: &Target, rows: Option<Selected>, returning: Vec<String>) -> Batch {
    Batch {
        item: format!("ONLY {}", target.item()),
        name: target.name(),
        rows,
        returning,
        limit: None,
    }
}

#[cfg(test)]
#[path = "statement_tests.rs"]
mod tests;
