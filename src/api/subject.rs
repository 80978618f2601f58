//! A stored backfill on its way into a session of its owner's.

use std::collections::BTreeMap;

use pgrx::pg_sys::Oid;
use serde::{Deserialize, Serialize};

use super::sample::Backfill;
use super::{bounds, session};
use crate::action::Kind;
use crate::error::{Error, Result, sqlstate};
use crate::model::options::Options;
use crate::pg::relation::{self, Relation};
use crate::store::job::Job;

/// What a job says, as text. It may be one that the caller's transaction has not committed yet, so all of it
/// travels; its table is looked up where it arrives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Subject {
    relation: u32,
    relation_name: String,
    owner: u32,
    /// What it does to its rows.
    pub action: Kind,
    /// The WHERE clause.
    pub where_clause: Option<String>,
    key_columns: Vec<String>,
    /// The options.
    pub options: Options,
    session: BTreeMap<String, String>,
    /// The settings of whoever gave options with this call: values of keys are read under these.
    reading: Option<BTreeMap<String, String>>,
}

impl Subject {
    /// That of a job that is there already.
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

    /// The same with other options, which the caller has given a part of.
    pub fn with(self, options: Options) -> Subject {
        Subject {
            options,
            reading: Some(session::take()),
            ..self
        }
    }

    /// The role that the text belongs to.
    pub fn owner(&self) -> Oid {
        Oid::from(self.owner)
    }

    /// The backfill, with bounds that mean the same under all settings. Within a session of the owner's.
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

    /// The options, with bounds that mean the same under all settings. Within a session of the owner's.
    pub fn settled(&self) -> Result<Options> {
        let table = (Oid::from(self.relation), self.relation_name.as_str());
        let reading = self.reading.clone().unwrap_or_default();
        bounds::settle(table, &self.key_columns, self.options.clone(), &reading)
    }

    /// The table, and the columns of the key that orders the walk.
    pub fn key(&self) -> (Oid, &[String]) {
        (Oid::from(self.relation), &self.key_columns)
    }

    /// The settings under which the clauses mean what they meant.
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
