//! The statements of a walk, analysed once and bound again for each batch.

use std::ffi::{CStr, CString};

use pgrx::pg_sys::Oid;

use crate::catalog::{checkpoint, job};
use crate::error::Result;
use crate::pg::planner;
use crate::pg::spi::{Arg, Output, Plan};
use crate::plan::key::Column;
use crate::plan::sql::{Param, Statement, Target};

/// A key in text form.
pub type Key = Vec<String>;

/// A statement together with what has to be bound to it.
#[derive(Debug)]
struct Prepared {
    plan: Plan,
    params: Vec<Param>,
}

/// The statements of one batch.
#[derive(Debug)]
pub struct Plans {
    key: Vec<Column>,
    canonical: bool,
    /// Whether they have a lower bound: all but those of the first batch.
    pub after: bool,
    bound: Prepared,
    count: Prepared,
    update: Prepared,
}

impl Plans {
    /// Analyses the statements, as the owner. Within `spi::connect`.
    pub fn prepare(target: &Target, relation: Oid, index: u32, after: bool) -> Result<Plans> {
        let prepared = |statement: Statement| prepare(statement, &target.key);
        let plans = Plans {
            key: target.key.clone(),
            canonical: target.key.iter().any(Column::depends_on_settings),
            after,
            bound: prepared(target.bound(after))?,
            count: prepared(target.count(after))?,
            update: prepared(target.update(after))?,
        };
        let texts = plans.texts().map(CStr::to_owned);
        planner::set_walk(relation, index.into(), texts.to_vec());
        Ok(plans)
    }

    /// The key at which the batch ends, with the rows scanned and the matches up to there where
    /// there is a WHERE clause. `rows` are the numbers that [`Target::bound`] wants.
    pub fn bound(&self, cursor: Option<&Key>, end: &Key, rows: &[i64]) -> Result<Option<Bound>> {
        let output = self.run(&self.bound, cursor, end, rows)?;
        let Some(row) = output.rows.first() else {
            return Ok(None);
        };
        let n = self.key.len();
        Ok(Some(Bound {
            key: row.texts(n)?,
            scanned: row.parse(n)?,
            matched: row.parse(n + 1)?,
        }))
    }

    /// How many rows are left, up to `limit`.
    pub fn count(&self, cursor: Option<&Key>, end: &Key, limit: i64) -> Result<i64> {
        let output = self.run(&self.count, cursor, end, &[limit])?;
        output.rows.first().map_or(Ok(0), |row| row.number(0))
    }

    /// Runs the UPDATE; gives the rows changed.
    pub fn update(&self, cursor: Option<&Key>, end: &Key) -> Result<i64> {
        Ok(self.run(&self.update, cursor, end, &[])?.processed)
    }

    /// The UPDATE's text.
    pub fn update_text(&self) -> &CStr {
        &self.update.plan.text
    }

    /// The texts of all statements.
    pub fn texts(&self) -> [&CStr; 3] {
        [&self.bound, &self.count, &self.update].map(|p| p.plan.text.as_c_str())
    }

    fn run(
        &self,
        what: &Prepared,
        cursor: Option<&Key>,
        end: &Key,
        rows: &[i64],
    ) -> Result<Output> {
        let mut rows = rows.iter();
        let mut args = Vec::with_capacity(8);
        for param in &what.params {
            match param {
                Param::After => args.extend(cursor.into_iter().flat_map(|key| self.typed(key))),
                Param::UpTo => args.extend(self.typed(end)),
                Param::Rows => args.push(Arg::Int8(rows.next().copied().unwrap_or(1))),
            }
        }
        if self.canonical {
            what.plan.run_canonical(&args)
        } else {
            what.plan.run(&args)
        }
    }

    fn typed<'a>(&'a self, key: &'a Key) -> impl Iterator<Item = Arg<'a>> {
        self.key
            .iter()
            .zip(key)
            .map(|(column, text)| Arg::Typed(column.type_oid.into(), text))
    }
}

/// The end of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The last key of the batch.
    pub key: Key,
    /// Rows scanned up to there, where that was counted.
    pub scanned: Option<i64>,
    /// Rows among them that match the WHERE clause.
    pub matched: Option<i64>,
}

/// The last key of the relation, if it has rows. Within `spi::connect`.
pub fn last_key(target: &Target, relation: Oid, index: u32) -> Result<Option<Key>> {
    let prepared = prepare(target.last_key(), &target.key)?;
    planner::set_walk(relation, index.into(), vec![prepared.plan.text.clone()]);
    let output = prepared.plan.run_canonical(&[Arg::Int8(1)])?;
    output
        .rows
        .first()
        .map(|row| row.texts(target.key.len()))
        .transpose()
}

/// Makes the planner treat the extension's own statements as such.
pub fn announce_bookkeeping() {
    for text in [checkpoint::REPLACE, job::VersionReader::TEXT] {
        if let Ok(text) = CString::new(text) {
            planner::add_bookkeeping(text);
        }
    }
}

fn prepare(statement: Statement, key: &[Column]) -> Result<Prepared> {
    let mut types: Vec<Oid> = Vec::new();
    for param in &statement.params {
        match param {
            Param::Rows => types.push(pgrx::pg_sys::INT8OID),
            Param::After | Param::UpTo => types.extend(key.iter().map(|c| Oid::from(c.type_oid))),
        }
    }
    Ok(Prepared {
        plan: Plan::prepare(&statement.text, &types)?,
        params: statement.params,
    })
}
