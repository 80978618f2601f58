//! Whether a SET list gives a row that it was applied to the same once more. As the current user, within `spi::connect`;
//! nothing is run or planned.

use super::clauses;
use super::relation::Relation;
use crate::error::Result;

/// Why the second time may give something else, as a phrase with "it" for the SET list; nothing if it gives the same.
/// `known_as` is what the list may call the table, if that is not its name.
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

/// What is said of a list that gives something else each time, whatever the row is.
pub const OF_THE_MOMENT: &str = "it asks for the time, or calls a VOLATILE function";

/// Whether it gives something else each time, whatever the row is.
pub fn depends_on_the_moment(
    table: &Relation,
    known_as: Option<&str>,
    set_clause: &str,
) -> Result<bool> {
    let statement = update(table, known_as, set_clause);
    Ok(clauses::is_volatile(&statement)? || clauses::is_of_the_moment(&statement)?)
}

/// That it reads a column that it sets, as such a phrase: what it gives depends on whether it was applied before.
/// A generated column may be made of one.
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
