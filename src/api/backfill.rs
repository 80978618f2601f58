//! A backfill in a session of its owner's: its settings, and the statements and the order of the walk of each table.

use std::collections::BTreeMap;

use crate::action::Kind;
use crate::error::Result;
use crate::model::options::Options;
use crate::model::row_lock::RowLock;
use crate::pg::relation::Relation;
use crate::pg::{settings, triggers};
use crate::scan::clause::all_of;
use crate::scan::key::Candidate;
use crate::scan::order::{self, Asked, Order, Why};
use crate::scan::sql::Target;
use crate::table::index;
use crate::table::walked::{self, Walked};

/// A backfill that is looked at, or tried on some rows, in a session of its owner's.
pub struct Backfill {
    /// The table.
    pub relation: Relation,
    /// The action on the rows.
    pub action: Kind,
    /// The WHERE clause.
    pub where_clause: Option<String>,
    /// The columns of the key that orders the walk, as settled; none: pages order it.
    pub key_columns: Vec<String>,
    /// The options.
    pub options: Options,
    /// Settings of the defining session, in force meanwhile.
    pub session: BTreeMap<String, String>,
}

impl Backfill {
    /// Returns the names of the columns that are set.
    pub fn set_columns(&self) -> &[String] {
        self.action.set_columns()
    }

    /// Runs `f` with the settings that a worker would have, as far as they matter to the clauses.
    pub fn under_its_settings<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        settings::nested(|| {
            for (name, value) in self.session.iter().chain(&self.options.settings) {
                settings::set_text_local(name, value)?;
            }
            if self.options.skips_triggers() {
                settings::set_text_local(triggers::SETTING.0, triggers::SETTING.1)?;
            }
            settings::set_text_local("row_security", "off")?;
            settings::set_text_local("standard_conforming_strings", "on")?;
            f()
        })
    }

    /// Returns the condition of the bounds, if there are any.
    pub fn between(&self, target: &Target) -> Result<Option<String>> {
        let bounds = self.options.bounds().unwrap_or_default();
        let sides = [(">=", bounds.from), ("<=", bounds.to)];
        let mut conditions = Vec::new();
        for (operator, key) in sides {
            if let Some(key) = key.filter(|key| key.len() == target.key.len()) {
                conditions.push(index::condition(target, operator, &key)?);
            }
        }
        Ok(all_of(conditions))
    }

    /// Returns the target of the table's statements, with the key that its walk would use, if there is one.
    pub fn target(&self, table: &Relation) -> Target {
        self.target_with(table, self.key(table).ok().as_ref())
    }

    /// Returns the target of the table's statements, the order of its walk, and the reason.
    pub fn ordered(&self, table: &Relation) -> Result<(Target, Order, Why)> {
        let walked = Walked {
            table,
            root: &self.relation,
            where_clause: self.where_clause.as_deref(),
            changes: &self.action.changes(),
            skips_triggers: self.options.skips_triggers(),
        };
        let asked = Asked::of(&self.options, self.options.dry_run());
        let (order, why) = order::decide(asked, self.key(table), &walked)?;
        let target = match &order {
            Order::Key(key) => self.target_with(table, Some(key)),
            Order::Pages => self.target(table),
        };
        Ok((target, order, why))
    }

    fn key(&self, table: &Relation) -> Result<Candidate> {
        let named = self.options.key.as_deref();
        let (settled, written) = (&self.key_columns, self.set_columns());
        walked::key(table, &self.relation, named, settled, written)
    }

    fn target_with(&self, table: &Relation, key: Option<&Candidate>) -> Target {
        let partition = table.oid != self.relation.oid;
        Target {
            schema: table.schema.clone(),
            relation: table.name.clone(),
            alias: partition.then(|| self.relation.name.clone()),
            key: key.map_or(Vec::new(), |key| key.columns.clone()),
            where_clause: self.where_clause.clone(),
            lock: RowLock::NoKeyUpdate,
        }
    }
}
