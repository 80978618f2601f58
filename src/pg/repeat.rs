//! Decides whether applying a SET list twice to a row gives the same result as applying it once. As the current user, within
//! `spi::connect`; nothing is run or planned.

use super::clauses;
use super::relation::Relation;
use crate::error::Result;

/// Returns why the second time may give a different result, as a phrase with "it" for the SET list; `None` if the result is the same.
/// `known_as` is the name that the list may use for the table, if not the table's own.
pub fn why_not(
    table: &Relation,
    known_as: Option<&str>,
    set_clause: &str,
) -> Result<Option<String>> {
    if depends_on_the_moment(table, known_as, set_clause)? {
        return Ok(Some(OF_THE_MOMENT.to_owned()));
    }
    reads_what_it_sets(table, known_as, set_clause)
}

/// Reason given for a list whose result differs each time, whatever the row is.
pub const OF_THE_MOMENT: &str = "it asks for the time, or calls a VOLATILE function";

/// Whether the result of the list differs each time, whatever the row is.
pub fn depends_on_the_moment(
    table: &Relation,
    known_as: Option<&str>,
    set_clause: &str,
) -> Result<bool> {
    let statement = update(table, known_as, set_clause);
    Ok(clauses::is_volatile(&statement)? || clauses::is_of_the_moment(&statement)?)
}

/// Returns, as such a phrase, that the list reads a column that it sets, or a generated column, which may be computed from one: the
/// result depends on whether the list was applied before.
pub fn reads_what_it_sets(
    table: &Relation,
    known_as: Option<&str>,
    set_clause: &str,
) -> Result<Option<String>> {
    let (read, set) = clauses::read_and_set(&update(table, known_as, set_clause))?;
    let mut columns = table.columns.iter();
    let found = columns.find(|column| {
        let number = &column.number;
        let depends = set.contains(number) && (read.contains(number) || read.contains(&0));
        depends || column.generated && read.contains(number)
    });
    Ok(found.map(|column| match column.generated {
        true => format!("it reads column \"{}\", which is generated", column.name),
        false => format!("it reads column \"{}\", which it sets", column.name),
    }))
}

fn update(table: &Relation, known_as: Option<&str>, set_clause: &str) -> String {
    format!("UPDATE {} SET {set_clause}", table.alone(known_as))
}
