//! The actions of jobs: what is done to the rows of a batch.
//!
//! A job is a *scan* (`scan`: which rows come next, and the position of the slice) and an *action*. Fence, checkpoint, throttles, failed
//! rows and progress know nothing of the action; the scan only knows how to select rows. Nothing here needs a server.

mod look;
pub mod statement;
mod update;

use serde::{Deserialize, Serialize};

pub use look::{Check, Found, Look, Question};
pub use update::Update;

use crate::error::{Error, Result};
use crate::scan::sql::Selected;

/// An action. Each implementation has a file of its own.
pub trait Action {
    /// Returns the action's name, as it is stored.
    fn name(&self) -> &'static str;

    /// Returns what the action changes in its rows. Two jobs that change the same columns of the same rows must not run at once.
    fn writes(&self) -> Writes<'_>;

    /// Whether rows no longer match the WHERE clause once the action is done, as far as the clause shows.
    fn excludes_itself(&self, where_clause: Option<&str>) -> bool;

    /// Returns the user's text in the action's statements: names that are added to the statements must not occur in it.
    fn clauses(&self) -> Vec<&str>;

    /// Writes the statement for the rows of a batch.
    fn render(&self, batch: &Batch) -> String;
}

/// The changes that an action makes to its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes<'a> {
    /// The action changes nothing.
    Nothing,
    /// The action writes these columns.
    Columns(&'a [String]),
}

/// The rows of a batch, and the expressions to return for them, as parts of a statement.
#[derive(Debug)]
pub struct Batch {
    /// The table, as an item of FROM.
    pub item: String,
    /// The selected rows; `None` for all rows, in a statement that is only analysed.
    pub rows: Option<Selected>,
    /// Expressions that the statement returns for each row, if any.
    pub returning: Option<String>,
}

/// The action of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Sets columns.
    Update(Update),
    /// Only looks.
    Look(Look),
}

impl Kind {
    /// Returns the common interface of all actions.
    pub fn as_action(&self) -> &dyn Action {
        match self {
            Kind::Update(update) => update,
            Kind::Look(look) => look,
        }
    }

    /// Returns the update that the action makes, or looks at.
    pub fn update(&self) -> &Update {
        match self {
            Kind::Update(update) => update,
            Kind::Look(look) => &look.update,
        }
    }

    /// Like [`update`](Self::update), but mutable.
    pub fn update_mut(&mut self) -> &mut Update {
        match self {
            Kind::Update(update) => update,
            Kind::Look(look) => &mut look.update,
        }
    }

    /// Returns the question asked about the rows, if the action only looks.
    pub fn question(&self) -> Option<&Question> {
        match self {
            Kind::Update(_) => None,
            Kind::Look(look) => Some(&look.question),
        }
    }

    /// Whether the action changes no rows.
    pub fn is_read_only(&self) -> bool {
        self.as_action().writes() == Writes::Nothing
    }

    /// Returns a column that both actions write, if there is one.
    pub fn meets(&self, other: &Kind) -> Option<String> {
        match (self.as_action().writes(), other.as_action().writes()) {
            (Writes::Columns(mine), Writes::Columns(theirs)) => {
                mine.iter().find(|column| theirs.contains(column)).cloned()
            }
            (Writes::Nothing, _) | (_, Writes::Nothing) => None,
        }
    }

    /// Returns the stored form of the action, which its name is stored along with.
    pub fn stored(&self) -> Result<serde_json::Value> {
        let stored = match self {
            Kind::Update(update) => serde_json::to_value(update),
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
                update: update.clone(),
                question,
            })
        };
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
            update: ab.clone(),
            question: Question::DryRun,
        });
        let (ab, bc) = (Kind::Update(ab), Kind::Update(bc));
        assert_eq!(ab.meets(&bc).as_deref(), Some("b"));
        assert_eq!(ab.meets(&Kind::Update(update(&["d"]))), None);
        assert_eq!(look.meets(&ab), None);
        assert!(look.is_read_only() && !ab.is_read_only());
    }
}
