//! The actions of jobs: what is done to the rows of a batch.
//!
//! A job is a *scan* (`scan`: which rows come next, and the position of the slice) and an *action*. Fence, checkpoint, throttles, failed
//! rows and progress know nothing of the action; the scan only knows how to select rows. Nothing here needs a server.

mod copy;
mod delete;
mod execute;
mod look;
pub mod statement;
mod update;

use serde::{Deserialize, Serialize};

pub use copy::{Asked, Copy};
pub use delete::{Archive, Delete};
pub use execute::{BATCH, Execute};
pub use look::{Check, Found, Look, Question};
pub use update::{Joined, Update};

use crate::error::{Error, Result};
use crate::model::fate::Fate;
use crate::model::row_lock::RowLock;
use crate::scan::sql::Selected;

/// An action. Each implementation has a file of its own.
pub trait Action {
    /// Returns the action's name, as it is stored.
    fn name(&self) -> &'static str;

    /// Returns the word for rows that the action was done to, as it follows "are".
    fn done(&self) -> &'static str;

    /// Returns the word for the rows that its statements report, as it follows "were".
    fn counted(&self) -> &'static str {
        self.done()
    }

    /// Returns what the action changes. Two jobs that change the same columns of the same rows must not run at once.
    fn writes(&self) -> Writes<'_>;

    /// Whether rows no longer match the WHERE clause once the action is done, as far as the clause shows.
    fn excludes_itself(&self, where_clause: Option<&str>) -> bool;

    /// Returns the user's text in the action's statements: names that are added to the statements must not occur in it.
    fn clauses(&self) -> Vec<&str>;

    /// Returns what becomes of a row that the action is done to. Only a key can order a walk that keeps rows as they are: one that somebody
    /// else updates moves, and would be met again.
    fn fate(&self) -> Fate;

    /// Returns the lock that the statement takes on rows that it keeps as they are.
    fn lock(&self) -> Option<RowLock> {
        None
    }

    /// Returns why only a key can order the walk, if that is so.
    fn only_by_key(&self) -> Option<&'static str> {
        None
    }

    /// Writes the statement for the rows of a batch.
    fn render(&self, batch: &Batch) -> Rendered;

    /// Writes a statement that reads of the table what the statement of a batch reads: for an update an UPDATE, which is analysed, or
    /// evaluated, and not run.
    fn reading(&self, batch: &Batch) -> Rendered {
        self.render(batch)
    }
}

/// The changes that an action makes to its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes<'a> {
    /// The action changes nothing.
    Nothing,
    /// The action writes these columns.
    Columns(&'a [String]),
    /// The action removes whole rows.
    Rows,
    /// The action writes into other tables: only into the one with this OID, or else whatever a statement says.
    Elsewhere(Option<u32>),
}

/// The rows of a batch, and the expressions to return for them, as parts of a statement.
#[derive(Debug, Default)]
pub struct Batch {
    /// The table, as the target of a statement.
    pub item: String,
    /// The name that qualifies the table's columns.
    pub name: String,
    /// The selected rows; `None` for all rows, in a statement that is only analysed.
    pub rows: Option<Selected>,
    /// Expressions that the statement returns for each row.
    pub returning: Vec<String>,
    /// A limit that limits nothing, for a statement that keeps its rows.
    pub limit: Option<String>,
}

impl Batch {
    /// Returns the list of keys that is joined, if there is one.
    fn list(&self) -> Option<&String> {
        self.rows.as_ref()?.list.as_ref()
    }

    /// Returns a SELECT of the rows that locks them.
    fn selecting(&self, list: &str, lock: RowLock) -> String {
        let mut text = format!("SELECT {list}\nFROM {}", self.item);
        if let Some(rows) = &self.rows {
            let list = rows.list.as_ref();
            let list = list.map_or(String::new(), |list| format!(", {list}"));
            text.push_str(&format!("{list}\nWHERE {}", rows.condition));
        }
        if let Some(limit) = &self.limit {
            text.push_str(&format!(" LIMIT {limit}"));
        }
        text + &lock.clause(None)
    }

    /// Returns the end of a statement that changes rows: the list to be joined after the word `joining`, WHERE, and RETURNING.
    fn tail(&self, joining: &str) -> String {
        let mut text = String::new();
        if let Some(rows) = &self.rows {
            let list = rows.list.as_ref();
            let list = list.map_or(String::new(), |list| format!("{joining} {list} "));
            text.push_str(&format!("\n{list}WHERE {}", rows.condition));
        }
        if !self.returning.is_empty() {
            text.push_str(&format!("\nRETURNING {}", self.returning.join(", ")));
        }
        text
    }
}

/// A statement as its action writes it.
#[derive(Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Common table expressions, each with its name. One that changes rows must be at the top of a statement.
    pub with: Vec<String>,
    /// The statement itself.
    pub last: String,
}

impl Rendered {
    /// Returns a statement without common table expressions.
    fn alone(last: String) -> Rendered {
        let with = Vec::new();
        Rendered { with, last }
    }

    /// Returns the whole text.
    pub fn text(&self) -> String {
        match self.with.is_empty() {
            true => self.last.clone(),
            false => format!("WITH {}\n{}", self.with.join(", "), self.last),
        }
    }
}

/// The action of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Sets columns.
    Update(Update),
    /// Deletes rows.
    Delete(Delete),
    /// Inserts something for each row into another table.
    Copy(Copy),
    /// Runs a statement for each batch.
    Execute(Execute),
    /// Only looks.
    Look(Look),
}

/// An action that changes something, which a look may be about. Read as the first one whose fields are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Changes {
    /// Sets columns.
    Update(Update),
    /// Inserts something for each row into another table.
    Copy(Copy),
    /// Runs a statement for each batch.
    Execute(Execute),
    /// Deletes rows.
    Delete(Delete),
}

impl Changes {
    /// Returns the common interface of all actions.
    pub fn as_action(&self) -> &dyn Action {
        match self {
            Changes::Update(update) => update,
            Changes::Copy(copy) => copy,
            Changes::Execute(execute) => execute,
            Changes::Delete(delete) => delete,
        }
    }

    /// Returns the update, if it is one.
    pub fn update(&self) -> Option<&Update> {
        match self {
            Changes::Update(update) => Some(update),
            _ => None,
        }
    }

    /// Returns the names of the columns that are set.
    pub fn set_columns(&self) -> &[String] {
        self.update().map_or(&[], |update| &update.set_columns)
    }
}

/// What two jobs would both do to the same rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meeting {
    /// Set this column.
    Column(String),
    /// Copy them into the same table.
    Target,
}

impl From<Changes> for Kind {
    fn from(changes: Changes) -> Kind {
        match changes {
            Changes::Update(update) => Kind::Update(update),
            Changes::Copy(copy) => Kind::Copy(copy),
            Changes::Execute(execute) => Kind::Execute(execute),
            Changes::Delete(delete) => Kind::Delete(delete),
        }
    }
}

impl Kind {
    /// Returns the common interface of all actions.
    pub fn as_action(&self) -> &dyn Action {
        match self {
            Kind::Update(update) => update,
            Kind::Delete(delete) => delete,
            Kind::Copy(copy) => copy,
            Kind::Execute(execute) => execute,
            Kind::Look(look) => look,
        }
    }

    /// Returns the changes that the action makes, or looks at.
    pub fn changes(&self) -> Changes {
        match self {
            Kind::Update(update) => Changes::Update(update.clone()),
            Kind::Delete(delete) => Changes::Delete(delete.clone()),
            Kind::Copy(copy) => Changes::Copy(copy.clone()),
            Kind::Execute(execute) => Changes::Execute(execute.clone()),
            Kind::Look(look) => look.of.clone(),
        }
    }

    /// Returns the update that the action makes, or looks at, if it is one.
    pub fn update(&self) -> Option<&Update> {
        match self {
            Kind::Update(update) => Some(update),
            Kind::Look(look) => look.of.update(),
            _ => None,
        }
    }

    /// Like [`update`](Self::update), but mutable.
    pub fn update_mut(&mut self) -> Option<&mut Update> {
        match self {
            Kind::Update(update)
            | Kind::Look(Look {
                of: Changes::Update(update),
                ..
            }) => Some(update),
            _ => None,
        }
    }

    /// Returns the names of the columns that are set.
    pub fn set_columns(&self) -> &[String] {
        self.update().map_or(&[], |update| &update.set_columns)
    }

    /// Returns the SET list, if there is one.
    pub fn set_clause(&self) -> Option<&str> {
        self.update().map(|update| update.set_clause.as_str())
    }

    /// Returns what follows SET in an UPDATE that is only analysed: the SET list, and FROM.
    pub fn set_list(&self) -> Option<String> {
        self.update().map(Update::set_list)
    }

    /// Returns the question asked about the rows, if the action only looks.
    pub fn question(&self) -> Option<&Question> {
        self.look().map(|look| &look.question)
    }

    /// Returns the look, if the action only looks.
    pub fn look(&self) -> Option<&Look> {
        match self {
            Kind::Look(look) => Some(look),
            _ => None,
        }
    }

    /// Whether the action changes no rows.
    pub fn is_read_only(&self) -> bool {
        self.as_action().writes() == Writes::Nothing
    }

    /// Returns what both actions would do to the same rows, if there is anything that must not be done twice.
    pub fn meets(&self, other: &Kind) -> Option<Meeting> {
        match (self.as_action().writes(), other.as_action().writes()) {
            (Writes::Columns(mine), Writes::Columns(theirs)) => {
                let mut mine = mine.iter();
                let both = mine.find(|column| theirs.contains(column));
                both.map(|column| Meeting::Column(column.clone()))
            }
            (Writes::Elsewhere(Some(mine)), Writes::Elsewhere(Some(theirs))) => {
                (mine == theirs).then_some(Meeting::Target)
            }
            // A row that another job deletes is passed over, as one that the application deletes.
            _ => None,
        }
    }

    /// Returns the stored form of the action, which its name is stored along with.
    pub fn stored(&self) -> Result<serde_json::Value> {
        let stored = match self {
            Kind::Update(update) => serde_json::to_value(update),
            Kind::Delete(delete) => serde_json::to_value(delete),
            Kind::Copy(copy) => serde_json::to_value(copy),
            Kind::Execute(execute) => serde_json::to_value(execute),
            Kind::Look(look) => serde_json::to_value(look),
        };
        stored.map_err(|error| Error::internal(error.to_string()))
    }

    /// Reads a stored action. Returns an error if this version has no such action.
    pub fn read(name: &str, stored: serde_json::Value) -> Result<Kind> {
        let whole = serde_json::Value::Object([(name.to_owned(), stored)].into_iter().collect());
        serde_json::from_value(whole)
            .map_err(|error| Error::internal(format!("action \"{name}\": {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_again() {
        let update = Update::new("a = 1", &["a"]);
        let look = |question| {
            Kind::Look(Look {
                of: Changes::Update(update.clone()),
                question,
            })
        };
        let copy = Copy {
            target: 7,
            schema: "s".to_owned(),
            name: "t".to_owned(),
            columns: vec!["a".to_owned()],
            select_list: "b".to_owned(),
            on_conflict: None,
            overriding: false,
            lock: RowLock::KeyShare,
            asked: Asked::default(),
        };
        let execute = Execute {
            statement: "TABLE batch".to_owned(),
            lock: RowLock::None,
        };
        for of in [
            Changes::Update(update.clone()),
            Changes::Delete(Delete::default()),
            Changes::Copy(copy),
            Changes::Execute(execute),
        ] {
            let question = Question::DryRun;
            let dry = Kind::Look(Look {
                of: of.clone(),
                question,
            });
            for kind in [Kind::from(of), dry] {
                let stored = kind.stored().unwrap();
                assert_eq!(Kind::read(kind.as_action().name(), stored).unwrap(), kind);
            }
        }
        let verify = |check| look(Question::Verify { job: 7, check });
        for kind in [
            Kind::Update(update.clone()),
            look(Question::DryRun),
            verify(Check::Pending),
            verify(Check::Clause("a > 0".to_owned())),
            verify(Check::Recompute),
        ] {
            let stored = kind.stored().unwrap();
            assert_eq!(Kind::read(kind.as_action().name(), stored).unwrap(), kind);
        }
        assert!(Kind::read("dance", serde_json::Value::Null).is_err());
    }

    #[test]
    fn who_only_looks_meets_nobody() {
        let update = |columns: &[&str]| Update::new("", columns);
        let (ab, bc) = (update(&["a", "b"]), update(&["b", "c"]));
        let look = Kind::Look(Look {
            of: Changes::Update(ab.clone()),
            question: Question::DryRun,
        });
        let (ab, bc) = (Kind::Update(ab), Kind::Update(bc));
        assert_eq!(ab.meets(&bc), Some(Meeting::Column("b".to_owned())));
        assert_eq!(ab.meets(&Kind::Update(update(&["d"]))), None);
        assert_eq!(look.meets(&ab), None);
        assert!(look.is_read_only() && !ab.is_read_only());
    }
}
