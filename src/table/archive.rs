//! The table that gets deleted rows.

use crate::action::Archive;
use crate::error::{Error, Result, sqlstate};
use crate::pg::relation::Relation;
use crate::pg::triggers;
use crate::quote::ident;

/// Returns how rows of `table` go into `archive`: each column of the table has its place there, found by name. Returns an error if one has
/// none, or if something could keep rows out without an error. Both tables must be locked. Within `spi::connect`.
pub fn of(table: &Relation, archive: &Relation) -> Result<Archive> {
    if archive.oid == table.oid {
        return Err(Error::invalid(format!(
            "option \"archive_into\" names the table itself: {}",
            archive.shown
        ))
        .hint("Name another table, such as one made by CREATE TABLE ... (LIKE ...)."));
    }
    triggers::refuse_suppressed(archive.oid, &archive.shown)?;
    let columns = columns(table, archive)?;
    let is_identity = |name: &String| {
        let mut its = archive.columns.iter();
        its.any(|column| column.name == *name && column.identity_always)
    };
    Ok(Archive {
        oid: archive.oid.to_u32(),
        overriding: columns.iter().any(is_identity),
        columns,
        schema: archive.schema.clone(),
        name: archive.name.clone(),
    })
}

/// Returns the columns to be copied. A generated column is copied if the archive has it as an ordinary one.
fn columns(table: &Relation, archive: &Relation) -> Result<Vec<String>> {
    let mut columns = Vec::new();
    for column in &table.columns {
        match archive.columns.iter().find(|its| its.name == column.name) {
            Some(its) if its.generated && column.generated => {}
            Some(its) if its.generated => {
                return Err(no_place(table, archive, &column.name, "is generated there"));
            }
            Some(_) => columns.push(column.name.clone()),
            None => return Err(no_place(table, archive, &column.name, "is not there")),
        }
    }
    Ok(columns)
}

fn no_place(table: &Relation, archive: &Relation, column: &str, why: &str) -> Error {
    Error::new(
        sqlstate::UNDEFINED_COLUMN,
        format!(
            "column \"{column}\" of table {} has no place in {}: it {why}",
            table.shown, archive.shown
        ),
    )
    .hint(format!(
        "ALTER TABLE {} ADD COLUMN {} ...; columns are matched by name.",
        archive.quoted(),
        ident(column)
    ))
}
