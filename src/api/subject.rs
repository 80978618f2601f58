//! A stored backfill on its way into a session of its owner's.

use std::collections::BTreeMap;

use pgrx::pg_sys::Oid;
use serde::{Deserialize, Serialize};

use super::backfill::Backfill;
use super::{bounds, session};
use crate::action::Kind;
use crate::error::{Error, Result, sqlstate};
use crate::model::options::Options;
use crate::pg::relation::{self, Relation};
use crate::store::job::Job;

/// The definition of a job, as text. The caller's transaction may not have committed the job yet, so all of its text is
/// sent; the table is looked up where it arrives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Subject {
    relation: u32,
    relation_name: String,
    owner: u32,
    /// The action on the job's rows.
    pub action: Kind,
    /// The WHERE clause.
    pub where_clause: Option<String>,
    key_columns: Vec<String>,
    /// The options.
    pub options: Options,
    session: BTreeMap<String, String>,
    /// Settings of the caller who gave options with this call: values of keys are read under these.
    reading: Option<BTreeMap<String, String>>,
}

impl Subject {
    /// Makes the subject of an existing job.
    pub fn of(job: &Job) -> Subject {
        let definition = &job.definition;
        Subject {
            relation: job.relation.to_u32(),
            relation_name: job.relation_name.clone(),
            owner: job.owner.to_u32(),
            action: definition.action.clone(),
            where_clause: definition.where_clause.clone(),
            key_columns: definition.key_columns.clone(),
            options: definition.options.clone(),
            session: definition.session.clone(),
            reading: None,
        }
    }

    /// Replaces the options, some of which were given under the caller's present settings.
    pub fn with(self, options: Options) -> Subject {
        Subject {
            options,
            reading: Some(session::take()),
            ..self
        }
    }

    /// Returns the role that the text belongs to.
    pub fn owner(&self) -> Oid {
        Oid::from(self.owner)
    }

    /// Returns the backfill, with bounds that mean the same under all settings. Within a session of the owner's.
    pub fn open(&self) -> Result<Backfill> {
        let relation = self.relation()?;
        Ok(Backfill {
            options: self.settled()?,
            relation,
            action: self.action.clone(),
            where_clause: self.where_clause.clone(),
            key_columns: self.key_columns.clone(),
            session: self.session.clone(),
        })
    }

    /// Returns the options, with bounds that mean the same under all settings. Within a session of the owner's.
    pub fn settled(&self) -> Result<Options> {
        let table = (Oid::from(self.relation), self.relation_name.as_str());
        let reading = self.reading.clone().unwrap_or_default();
        bounds::settle(table, &self.key_columns, self.options.clone(), &reading)
    }

    /// Returns the table, and the columns of the key that orders the walk.
    pub fn key(&self) -> (Oid, &[String]) {
        (Oid::from(self.relation), &self.key_columns)
    }

    /// Returns the settings under which the clauses keep their meaning.
    pub fn session(&self) -> &BTreeMap<String, String> {
        &self.session
    }

    fn relation(&self) -> Result<Relation> {
        let relation = relation::describe(Oid::from(self.relation))?.ok_or_else(|| {
            Error::new(
                sqlstate::UNDEFINED_TABLE,
                format!("table {} is not there", self.relation_name),
            )
            .hint("It was dropped; or it was created in a transaction that has not committed, which other sessions do not see.")
        })?;
        relation.refuse_deceptive()?;
        Ok(relation)
    }
}
