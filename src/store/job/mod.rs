//! Jobs: their definitions and the users' wishes. Workers only read here.

mod read;
mod write;

use std::collections::BTreeMap;

use pgrx::pg_sys::Oid;

pub(super) use self::read::{CAN_CONNECT, find, list};
pub use self::read::{
    Called, called, has_followers, held_by, load, load_latest, load_readable, lock, lock_if_free,
    name_of_relation, named, pending_on, started_on, understaffed, unfinished, workers_here,
};
pub use self::write::{begin_retry, delete, insert, redefine, set_clauses, set_pace, set_wish};
use crate::action::Kind;
use crate::error::{Error, sqlstate};
use crate::model::options::Options;
use crate::model::standing::Standing;
use crate::model::state::{self, Facts, Outcome, State, Wish};

/// A job, with everything its state is derived from.
#[derive(Debug, Clone)]
pub struct Job {
    /// The job's id.
    pub id: i64,
    /// The job's name, if it has one.
    pub name: Option<String>,
    /// The table that the job is about.
    pub relation: Oid,
    /// The table's name for people.
    pub relation_name: String,
    /// The role that defined the job.
    pub owner: Oid,
    /// The name of the owner when the job was defined.
    pub owner_name: String,
    /// The name of this database.
    pub database_name: String,
    /// The work of the job, as its owner gave it.
    pub definition: Definition,
    /// Largest number of rows per commit.
    pub batch_size: i32,
    /// Pause between commits, in milliseconds.
    pub sleep_ms: i32,
    /// The wish of the last call.
    pub wish: Wish,
    /// Number of times the job was started or resumed.
    pub attempt: i32,
    /// Grows with each change of the job's row, and with its outcome: see `store::version`.
    pub version: i64,
    /// Whether the job may run as its row stands: written by the functions, in this database, of an unchanged owner.
    pub here: bool,
    /// The standing of the job's row.
    pub standing: Standing,
    /// The outcome that its last worker recorded, if any.
    pub outcome: Option<Outcome>,
    /// Process ids of the job's workers.
    pub workers: Vec<i32>,
    /// Message, SQLSTATE and range of keys of the last failure. May contain row data: only for those who may act on the
    /// job.
    pub last_error: Option<String>,
}

/// The work of a job, as its owner gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// The action on the job's rows.
    pub action: Kind,
    /// The WHERE clause.
    pub where_clause: Option<String>,
    /// The columns that order the walk.
    pub key_columns: Vec<String>,
    /// The options.
    pub options: Options,
    /// Settings of the defining session that are in force in every batch.
    pub session: BTreeMap<String, String>,
}

impl Definition {
    /// Bytes of text in the stored action, the WHERE clause and the options.
    fn bytes(&self, work: &str) -> usize {
        let clause = self.where_clause.as_ref().map_or(0, String::len);
        work.len() + clause + self.options.to_json().len()
    }
}

impl Job {
    /// The current state.
    pub fn state(&self) -> State {
        state::derive(Facts {
            wish: self.wish,
            attempt: self.attempt,
            outcome: self.outcome,
            live: !self.workers.is_empty(),
            here: self.here,
        })
    }

    /// The job with other options.
    pub fn with_options(&self, options: &Options) -> Job {
        let mut job = self.clone();
        job.definition.options = options.clone();
        job
    }

    /// How many more workers it could do with.
    pub fn missing_workers(&self) -> usize {
        (self.definition.options.workers() as usize).saturating_sub(self.workers.len())
    }

    /// Returns name and id, for messages.
    pub fn shown(&self) -> String {
        match &self.name {
            Some(name) => format!("job {} (\"{name}\")", self.id),
            None => format!("job {}", self.id),
        }
    }

    /// Like [`shown`](Job::shown), with table, database and owner: in the server log, jobs of all databases stand side
    /// by side.
    pub fn logged(&self) -> String {
        format!(
            "{} on {} (database {}, owner {})",
            self.shown(),
            self.relation_name,
            self.database_name,
            self.owner_name
        )
    }
}

/// Returns the error for an id that no job has.
pub fn unknown(id: i64) -> Error {
    Error::new(
        sqlstate::UNDEFINED_OBJECT,
        format!("backfill job {id} does not exist"),
    )
    .hint("SELECT job_id, name, relation, state FROM backfill.progress lists the jobs.")
}
