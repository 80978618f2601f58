//! Inserts something for each row of a batch into another table. The rows themselves stay as they are.

use serde::{Deserialize, Serialize};

use super::{Action, Batch, Rendered, Writes};
use crate::model::fate::Fate;
use crate::model::row_lock::RowLock;
use crate::quote::{ident, qualified};

/// A copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// OID of the table that gets the rows. Its names are those of the moment at which the statement is written.
    pub target: u32,
    /// Schema of that table.
    pub schema: String,
    /// Name of that table.
    pub name: String,
    /// Columns of that table that are filled, in the order of the values.
    pub columns: Vec<String>,
    /// The values, as a select list over the row.
    pub select_list: String,
    /// The action for a row that is there already, as it follows ON CONFLICT; `None`: an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_conflict: Option<String>,
    /// Whether one of the columns is an identity column that takes given values only on request (GENERATED ALWAYS).
    #[serde(default)]
    pub overriding: bool,
    /// Lock that the copied rows get.
    pub lock: RowLock,
    /// The arguments of the call that do without names or values: a repeated call gives the same ones.
    pub asked: Asked,
}

/// The arguments of a call that define a copy, as they were given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Columns of the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<String>,
    /// The select list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select_list: Option<String>,
    /// The action for a row that is there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_conflict: Option<String>,
}

impl Action for Copy {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn done(&self) -> &'static str {
        "copied"
    }

    fn writes(&self) -> Writes<'_> {
        Writes::Elsewhere(Some(self.target))
    }

    fn excludes_itself(&self, _: Option<&str>) -> bool {
        false
    }

    fn lock(&self) -> Option<RowLock> {
        Some(self.lock)
    }

    fn fate(&self) -> Fate {
        Fate::Kept
    }

    fn clauses(&self) -> Vec<&str> {
        let given = [Some(self.select_list.as_str()), self.on_conflict.as_deref()];
        given.into_iter().flatten().collect()
    }

    fn render(&self, batch: &Batch) -> Rendered {
        let columns: Vec<String> = self.columns.iter().map(|name| ident(name)).collect();
        let overriding = match self.overriding {
            true => " OVERRIDING SYSTEM VALUE",
            false => "",
        };
        let on_conflict = self.on_conflict.as_ref();
        let on_conflict = on_conflict.map_or(String::new(), |what| format!("\nON CONFLICT {what}"));
        Rendered::alone(format!(
            "INSERT INTO {} ({}){overriding}\n{}{on_conflict}",
            qualified(&self.schema, &self.name),
            columns.join(", "),
            batch.selecting(&self.select_list, self.lock)
        ))
    }

    fn reading(&self, batch: &Batch) -> Rendered {
        Rendered::alone(batch.selecting(&self.select_list, RowLock::None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::sql::Selected;

    fn copy() -> Copy {
        Copy {
            target: 1,
            schema: "s".to_owned(),
            name: "new".to_owned(),
            columns: vec!["a".to_owned(), "B".to_owned()],
            select_list: "x, y + 1".to_owned(),
            on_conflict: None,
            overriding: false,
            lock: RowLock::KeyShare,
            asked: Asked::default(),
        }
    }

    fn batch(list: Option<&str>) -> Batch {
        Batch {
            item: "ONLY old".to_owned(),
            name: "old".to_owned(),
            rows: Some(Selected {
                list: list.map(str::to_owned),
                condition: "id <= $1".to_owned(),
            }),
            returning: Vec::new(),
            limit: Some("$2".to_owned()),
        }
    }

    #[test]
    fn rows_are_locked_where_they_are_read() {
        assert_eq!(
            copy().render(&batch(None)).text(),
            "INSERT INTO \"s\".\"new\" (\"a\", \"B\")\nSELECT x, y + 1\nFROM ONLY old\nWHERE id <= $1 LIMIT $2 FOR KEY SHARE"
        );
        let upsert = Copy {
            on_conflict: Some("(a) DO NOTHING".to_owned()),
            overriding: true,
            lock: RowLock::None,
            ..copy()
        };
        assert_eq!(
            upsert.render(&batch(Some("keys"))).text(),
            "INSERT INTO \"s\".\"new\" (\"a\", \"B\") OVERRIDING SYSTEM VALUE\nSELECT x, y + 1\nFROM ONLY old, keys\nWHERE id <= $1 LIMIT $2\nON CONFLICT (a) DO NOTHING"
        );
    }

    #[test]
    fn what_is_read_alone_locks_nothing() {
        assert_eq!(
            copy().reading(&batch(None)).text(),
            "SELECT x, y + 1\nFROM ONLY old\nWHERE id <= $1 LIMIT $2"
        );
    }
}
