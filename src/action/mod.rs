//! What is done to the rows of a batch.
//!
//! A job is a *scan* (`scan`: which rows come next, and where the slice stands) and an *action*. Fence, checkpoint, throttles,
//! failed rows and progress know nothing of the action; the scan knows only how to name rows. Nothing here needs a server.

mod look;
pub mod statement;
mod update;

use serde::{Deserialize, Serialize};

pub use look::{Check, Found, Look, Question};
pub use update::Update;

use crate::error::{Error, Result};
use crate::scan::sql::Selected;

/// An action: one implementation a file.
pub trait Action {
    /// Its name, as it is stored.
    fn name(&self) -> &'static str;

    /// What it changes of its rows: two jobs that change the same of the same rows are not to run at once.
    fn writes(&self) -> Writes<'_>;

    /// Whether its rows do not match the WHERE clause any more once it is done, as far as the clause shows.
    fn excludes_itself(&self, where_clause: Option<&str>) -> bool;

    /// The user's text in its statements: names that they add must not be met there.
    fn clauses(&self) -> Vec<&str>;

    /// The statement for the rows of a batch.
    fn render(&self, batch: &Batch) -> String;
}

/// What an action changes of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes<'a> {
    /// Nothing.
    Nothing,
    /// These columns.
    Columns(&'a [String]),
}

/// The rows of a batch, and what is wanted of them, as parts of a statement.
#[derive(Debug)]
pub struct Batch {
    /// The table, as an item of FROM.
    pub item: String,
    /// Which of its rows; all of them, where the statement is only looked at.
    pub rows: Option<Selected>,
    /// What the statement is to give of each of them, if anything.
    pub returning: Option<String>,
}

/// The action of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It sets columns.
    Update(Update),
    /// It only looks.
    Look(Look),
}

impl Kind {
    /// What it has in common with all others.
    pub fn as_action(&self) -> &dyn Action {
        match self {
            Kind::Update(update) => update,
            Kind::Look(look) => look,
        }
    }

    /// The update that it makes, or looks at.
    pub fn update(&self) -> &Update {
        match self {
            Kind::Update(update) => update,
            Kind::Look(look) => &look.update,
        }
    }

    /// The same, to be changed.
    pub fn update_mut(&mut self) -> &mut Update {
        match self {
            Kind::Update(update) => update,
            Kind::Look(look) => &mut look.update,
        }
    }

    /// What is asked of the rows, if it only looks.
    pub fn question(&self) -> Option<&Question> {
        match self {
            Kind::Update(_) => None,
            Kind::Look(look) => Some(&look.question),
        }
    }

    /// Whether it changes no row.
    pub fn is_read_only(&self) -> bool {
        self.as_action().writes() == Writes::Nothing
    }

    /// The column that both write, if there is one.
    pub fn meets(&self, other: &Kind) -> Option<String> {
        match (self.as_action().writes(), other.as_action().writes()) {
            (Writes::Columns(mine), Writes::Columns(theirs)) => {
                mine.iter().find(|column| theirs.contains(column)).cloned()
            }
            (Writes::Nothing, _) | (_, Writes::Nothing) => None,
        }
    }

    /// What is stored of it beside its name.
    pub fn stored(&self) -> Result<serde_json::Value> {
        let stored = match self {
            Kind::Update(update) => serde_json::to_value(update),
            Kind::Look(look) => serde_json::to_value(look),
        };
        stored.map_err(|error| Error::internal(error.to_string()))
    }

    /// What was stored, read again. An error if it is no action of this version.
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
