//! Checks of a definition against its table and the caller's rights.

use crate::error::{Error, Result, sqlstate};
use crate::pg::relation::{self, Relation};
use crate::pg::spi;
use crate::plan::sql::ident;

/// Adds what to do to PostgreSQL's own errors about the clauses.
pub fn with_hint(error: Error, relation: &Relation) -> Error {
    if error.hint.is_some() {
        return error;
    }
    let hint = match error.sqlstate.as_str() {
        sqlstate::UNDEFINED_COLUMN => {
            let names: Vec<&str> = relation.columns.iter().map(|c| c.name.as_str()).collect();
            format!("Columns of {}: {}.", relation.shown, names.join(", "))
        }
        sqlstate::FEATURE_NOT_SUPPORTED if error.message.contains("system column") => {
            "PostgreSQL keeps system columns itself: leave it out of set_clause.".to_owned()
        }
        sqlstate::INSUFFICIENT_PRIVILEGE => {
            "The batches run with the rights of the role that defines the job: GRANT it what is missing (UPDATE on the columns set, SELECT on those read), or SET ROLE to the table's owner.".to_owned()
        }
        _ => "set_clause and where_clause are checked as the UPDATE that they are parts of.".to_owned(),
    };
    error.hint(hint)
}

/// Refuses to write the key of the walk, or what PostgreSQL computes itself.
pub fn columns(relation: &Relation, set: &[String], key: &[String]) -> Result<()> {
    for name in set {
        if key.contains(name) {
            return Err(Error::invalid(format!(
                "set_clause writes column \"{name}\", which is part of the key that orders the walk"
            ))
            .hint("Rows would move while they are walked. Choose another unique index with the option \"key\"."));
        }
        let Some(column) = relation.columns.iter().find(|c| c.name == *name) else {
            continue;
        };
        if column.generated || column.identity_always {
            let what = if column.generated {
                "a generated"
            } else {
                "an identity (ALWAYS)"
            };
            return Err(
                Error::invalid(format!("set_clause writes {what} column \"{name}\""))
                    .hint("PostgreSQL computes it. Leave it out."),
            );
        }
    }
    Ok(())
}

/// The walk reads the key, so it takes SELECT on it besides UPDATE; and no policy may hide rows.
pub fn rights(relation: &Relation, key: &[String]) -> Result<()> {
    let policies = relation::has_policies_for_me(relation.oid);
    if policies {
        return Err(Error::new(
            sqlstate::INSUFFICIENT_PRIVILEGE,
            format!("row security policies of table {} apply to you", relation.shown),
        )
        .hint("They could hide rows from the backfill. Define it as the table's owner or as a role with BYPASSRLS; with FORCE ROW LEVEL SECURITY only the latter."));
    }
    for column in key {
        let row = spi::first(
            "SELECT pg_catalog.has_column_privilege($1, $2, 'SELECT')",
            &[spi::Arg::Oid(relation.oid), spi::Arg::Text(column)],
        )?;
        if !row.is_some_and(|row| row.bool(0)) {
            return Err(Error::new(
                sqlstate::INSUFFICIENT_PRIVILEGE,
                format!(
                    "permission denied for column \"{column}\" of table {}",
                    relation.shown
                ),
            )
            .hint(format!(
                "The walk reads the key: GRANT SELECT ({}) ON {} TO {}.",
                ident(column),
                relation.quoted(),
                who()?
            )));
        }
    }
    Ok(())
}

fn who() -> Result<String> {
    let row = spi::first("SELECT pg_catalog.quote_ident(current_user)", &[])?;
    Ok(row
        .and_then(|row| row.get(0).map(str::to_owned))
        .unwrap_or_default())
}
