//! UPDATE … SET: gives the rows of a batch new values.

use serde::{Deserialize, Serialize};

use super::{Action, Batch, Rendered, Writes};
use crate::model::fate::Fate;
use crate::scan::order;

/// An update.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// The SET list.
    pub set_clause: String,
    /// Names of the columns that the SET list writes.
    pub set_columns: Vec<String>,
}

impl Action for Update {
    fn name(&self) -> &'static str {
        "update"
    }

    fn done(&self) -> &'static str {
        "updated"
    }

    fn writes(&self) -> Writes<'_> {
        Writes::Columns(&self.set_columns)
    }

    fn excludes_itself(&self, where_clause: Option<&str>) -> bool {
        order::extinguishes(where_clause, &self.set_columns)
    }

    fn fate(&self) -> Fate {
        Fate::Changed
    }

    fn clauses(&self) -> Vec<&str> {
        vec![&self.set_clause]
    }

    fn render(&self, batch: &Batch) -> Rendered {
        let mut text = format!("UPDATE {} SET {}", batch.item, self.set_clause);
        text.push_str(&batch.tail("FROM"));
        Rendered::alone(text)
    }
}

#[cfg(any(test, feature = "pg_test"))]
impl Update {
    /// Creates an update for a test.
    pub fn new(set_clause: &str, set_columns: &[&str]) -> Update {
        Update {
            set_clause: set_clause.to_owned(),
            set_columns: set_columns
                .iter()
                .map(|&column| column.to_owned())
                .collect(),
        }
    }
}
