//! Rows that the application changes after they were done: they keep what was computed from their former values.

use crate::action::Update;
use crate::error::Result;
use crate::pg::relation::Relation;
use crate::pg::report::notice;
use crate::pg::{clauses, name, triggers};

/// Columns that a SET list reads and does not set, and that may change after a row was done.
pub struct Sources {
    /// The columns, for people.
    pub columns: String,
    /// Description of what happens, as a sentence.
    pub value: String,
    /// Advice on what to do about it, as a sentence.
    pub advice: String,
}

/// Looks for such columns. Columns of the key do not count. There are none where a trigger computes what is set with
/// each update, or where the WHERE clause compares the source with what is set, so that a row that has changed matches
/// again. Within a session of the owner's.
pub fn of(
    relation: &Relation,
    update: &Update,
    where_clause: Option<&str>,
    key: &[String],
) -> Result<Option<Sources>> {
    let (set_clause, set_columns) = (update.set_list(), &update.set_columns);
    let target = relation.alone(None);
    let (read, _) = clauses::read_and_set(&format!("UPDATE {target} SET {set_clause}"))?;
    let whole = read.contains(&0);
    let mut sources: Vec<_> = relation.columns.iter().collect();
    sources.retain(|column| {
        let changes = !set_columns.contains(&column.name) && !key.contains(&column.name);
        changes && !column.identity_always && (whole || read.contains(&column.number))
    });
    if sources.is_empty() || triggers::sets_along(relation.oid, set_columns)? {
        return Ok(None);
    }
    if let Some(clause) = where_clause {
        let asked = format!("SELECT FROM {target} WHERE (\n{clause}\n)");
        let asked = clauses::columns_used(&asked)?;
        let set = relation.columns.iter();
        let mut set = set.filter(|column| set_columns.contains(&column.name));
        if set.any(|c| asked.contains(&c.number))
            && sources.iter().any(|c| asked.contains(&c.number))
        {
            return Ok(None);
        }
    }
    let names = |names: Vec<&str>| match names.as_slice() {
        [a, b, c, _, ..] => format!("{a}, {b}, {c} and others"),
        few => few.join(", "),
    };
    let shown: Vec<String> = sources
        .iter()
        .map(|column| name::quoted(&column.name))
        .collect();
    let set: Vec<String> = set_columns.iter().map(|name| name::quoted(name)).collect();
    let columns = match whole {
        true => "any column".to_owned(),
        false => names(shown.iter().map(String::as_str).collect()),
    };
    let set = names(set.iter().map(String::as_str).collect());
    let change = if shown.len() == 1 || whole {
        "changes"
    } else {
        "change"
    };
    Ok(Some(Sources {
        value: format!(
            "rows of {} whose {columns} {change} after they were done keep the value computed then",
            relation.shown
        ),
        advice: format!(
            "While the application writes that, let it or a trigger write {set}, too; verify with recompute => true finds such rows, and reapply does them again."
        ),
        columns,
    }))
}

/// Sends a notice about the columns to the client.
pub fn say(sources: Option<&Sources>) {
    if let Some(Sources { value, advice, .. }) = sources {
        notice(value, Some(advice));
    }
}
