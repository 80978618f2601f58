//! Deletes the rows of a batch, and may put them into an archive table by the same statement.

use serde::{Deserialize, Serialize};

use super::{Action, Batch, Rendered, Writes};
use crate::model::fate::Fate;
use crate::quote::{ident, qualified};

/// A delete.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    /// The table that gets the deleted rows, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archive>,
}

/// A table that gets deleted rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// OID of the table. Its names are those of the moment at which the statement is written.
    pub oid: u32,
    /// Schema of the table.
    pub schema: String,
    /// Name of the table.
    pub name: String,
    /// Columns that are copied; each has the same name in both tables.
    pub columns: Vec<String>,
    /// Whether one of them is an identity column that takes given values only on request (GENERATED ALWAYS).
    #[serde(default)]
    pub overriding: bool,
}

/// Name of the deleted rows within a statement.
const GONE: &str = "\"backfill gone\"";

impl Action for Delete {
    fn name(&self) -> &'static str {
        "delete"
    }

    fn done(&self) -> &'static str {
        "deleted"
    }

    fn writes(&self) -> Writes<'_> {
        Writes::Rows
    }

    fn excludes_itself(&self, _: Option<&str>) -> bool {
        true
    }

    fn fate(&self) -> Fate {
        Fate::Removed
    }

    fn clauses(&self) -> Vec<&str> {
        Vec::new()
    }

    fn render(&self, batch: &Batch) -> Rendered {
        let delete = format!("DELETE FROM {}", batch.item);
        match &self.archive {
            None => Rendered::alone(delete + &batch.tail("USING")),
            Some(archive) => archive.render(&delete, batch),
        }
    }

    fn reading(&self, batch: &Batch) -> Rendered {
        // What goes into the archive is matched by name anew whenever a table changes.
        Rendered::alone(format!("DELETE FROM {}", batch.item) + &batch.tail("USING"))
    }
}

impl Archive {
    /// Returns the statement that deletes rows, puts them into the archive, and returns what the batch asks for.
    fn render(&self, delete: &str, batch: &Batch) -> Rendered {
        let names = |letter: char, count| (1..=count).map(move |n| format!("{letter}{n}"));
        let columns: Vec<String> = self.columns.iter().map(|name| ident(name)).collect();
        let qualify = |column: &String| format!("{}.{column}", batch.name);
        let returning = columns.iter().map(qualify).chain(batch.returning.clone());
        let tail = Batch {
            returning: returning.collect(),
            rows: batch.rows.clone(),
            ..Batch::default()
        }
        .tail("USING");
        // The archive's columns come first; what the batch asks for follows.
        let kept: Vec<String> = names('c', columns.len()).collect();
        let asked: Vec<String> = names('r', batch.returning.len()).collect();
        let all = [kept.as_slice(), asked.as_slice()].concat().join(", ");
        let overriding = match self.overriding {
            true => " OVERRIDING SYSTEM VALUE",
            false => "",
        };
        Rendered {
            with: vec![
                format!("{GONE} ({all}) AS ({delete}{tail})"),
                format!(
                    "\"backfill kept\" AS (INSERT INTO {} ({}){overriding} SELECT {} FROM {GONE})",
                    qualified(&self.schema, &self.name),
                    columns.join(", "),
                    kept.join(", ")
                ),
            ],
            last: match asked.is_empty() {
                true => format!("SELECT FROM {GONE}"),
                false => format!("SELECT {} FROM {GONE}", asked.join(", ")),
            },
        }
    }
}
