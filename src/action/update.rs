//! UPDATE … SET, optionally FROM: gives the rows of a batch new values.

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
    /// Other rows that the SET list reads, if there are any.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub joined: Option<Joined>,
}

/// Rows that an update is joined with. A row without a partner stays as it is; one with several is an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// An item of FROM, with the name that the other clauses call it by.
    pub from: String,
    /// The condition that is true of a row and its partner.
    pub on: String,
}

impl Joined {
    /// Returns the condition that is true of a row that has a partner.
    pub fn matches(&self) -> String {
        format!("EXISTS (SELECT FROM {} WHERE (\n{}\n))", self.from, self.on)
    }
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

    fn only_by_key(&self) -> Option<&'static str> {
        // Rows are counted there by RETURNING, which MERGE has only since PostgreSQL 17.
        let joined = self.joined.is_some();
        joined.then_some("an update with the option \"from\" goes by a key")
    }

    fn clauses(&self) -> Vec<&str> {
        let joined = self.joined.as_ref();
        let of_join = joined.map(|join| [join.from.as_str(), join.on.as_str()]);
        let of_join = of_join.into_iter().flatten();
        of_join.chain([self.set_clause.as_str()]).collect()
    }

    fn render(&self, batch: &Batch) -> Rendered {
        match &self.joined {
            None => self.plain(batch),
            Some(joined) => self.merge(joined, batch),
        }
    }

    fn reading(&self, batch: &Batch) -> Rendered {
        match &self.joined {
            None => self.plain(batch),
            Some(joined) => {
                let list = batch
                    .list()
                    .map_or(String::new(), |list| format!(", {list}"));
                Rendered::alone(format!(
                    "UPDATE {} SET {}\nFROM {}{list}\nWHERE {}",
                    batch.item,
                    self.set_clause,
                    joined.from,
                    joined.condition(batch)
                ))
            }
        }
    }
}

impl Update {
    /// Returns what follows SET in an UPDATE of all rows that is only analysed: the list, and FROM.
    pub fn set_list(&self) -> String {
        match &self.joined {
            None => self.set_clause.clone(),
            Some(joined) => format!("{}\nFROM {}", self.set_clause, joined.from),
        }
    }

    fn plain(&self, batch: &Batch) -> Rendered {
        let mut text = format!("UPDATE {} SET {}", batch.item, self.set_clause);
        text.push_str(&batch.tail("FROM"));
        Rendered::alone(text)
    }

    /// Writes the update as MERGE, which raises an error if a row has several partners, where UPDATE takes any of them.
    fn merge(&self, joined: &Joined, batch: &Batch) -> Rendered {
        let list = batch.list();
        let list = list.map_or(String::new(), |list| format!(" CROSS JOIN {list}"));
        Rendered::alone(format!(
            "MERGE INTO {} USING {}{list}\nON {}\nWHEN MATCHED THEN UPDATE SET {}",
            batch.item,
            joined.from,
            joined.condition(batch),
            self.set_clause
        ))
    }
}

impl Joined {
    fn condition(&self, batch: &Batch) -> String {
        let on = format!("(\n{}\n)", self.on);
        match &batch.rows {
            None => on,
            Some(rows) => format!("{} AND {on}", rows.condition),
        }
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
            joined: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::sql::Selected;

    #[test]
    fn a_joined_update_is_a_merge() {
        let update = Update {
            joined: Some(Joined {
                from: "rates r".to_owned(),
                on: "r.id = t.rate".to_owned(),
            }),
            ..Update::new("price = r.price", &["price"])
        };
        let batch = |list: Option<&str>| Batch {
            item: "ONLY s.t".to_owned(),
            name: "s.t".to_owned(),
            rows: Some(Selected {
                list: list.map(str::to_owned),
                condition: "id <= $1".to_owned(),
            }),
            ..Batch::default()
        };
        assert_eq!(
            update.render(&batch(None)).text(),
            "MERGE INTO ONLY s.t USING rates r\nON id <= $1 AND (\nr.id = t.rate\n)\nWHEN MATCHED THEN UPDATE SET price = r.price"
        );
        assert_eq!(
            update.render(&batch(Some("keys"))).text(),
            "MERGE INTO ONLY s.t USING rates r CROSS JOIN keys\nON id <= $1 AND (\nr.id = t.rate\n)\nWHEN MATCHED THEN UPDATE SET price = r.price"
        );
        assert_eq!(
            update.reading(&batch(Some("keys"))).text(),
            "UPDATE ONLY s.t SET price = r.price\nFROM rates r, keys\nWHERE id <= $1 AND (\nr.id = t.rate\n)"
        );
        assert_eq!(
            update.reading(&Batch::default()).text(),
            "UPDATE  SET price = r.price\nFROM rates r\nWHERE (\nr.id = t.rate\n)"
        );
    }
}
