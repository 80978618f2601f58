//! A statement of a walk, analysed once, and the binding of its parameters.

use std::ffi::CString;

use pgrx::pg_sys::{self, Oid};

use crate::error::Result;
use crate::pg::evaluate::{self, Change, Seen};
use crate::pg::keylist;
use crate::pg::planner::{self, Access};
use crate::pg::spi::{Arg, Output, Plan, RawRow};
use crate::scan::key::Column;
use crate::scan::position::Key;
use crate::scan::sql::{Param, Statement};
use crate::store::{checkpoint, version};

/// An analysed statement together with what is needed to bind its parameters.
#[derive(Debug)]
pub struct Prepared {
    plan: Plan,
    params: Vec<Param>,
    key: Vec<Column>,
    access: Access,
}

/// Values for the parameters of a statement. Each statement takes only those it has parameters for.
#[derive(Debug, Default, Clone, Copy)]
pub struct Values<'a> {
    /// The key after which rows are wanted.
    pub after: Option<&'a Key>,
    /// The last key of the range.
    pub up_to: Option<&'a Key>,
    /// Numbers of rows, in the order in which the statement has parameters for them.
    pub rows: &'a [i64],
    /// Arrays: keys, column by column, or places.
    pub lists: &'a [Arg<'a>],
    /// First page of a range, and the page after its last.
    pub pages: (i64, i64),
    /// A percentage.
    pub percent: f64,
}

impl<'a> Values<'a> {
    /// Makes values that are arrays only.
    pub fn lists(lists: &'a [Arg<'a>]) -> Values<'a> {
        Values {
            lists,
            ..Values::default()
        }
    }
}

impl Prepared {
    /// Analyses a statement, as the owner. Within `spi::connect`.
    pub fn new(statement: Statement, key: &[Column], access: Access) -> Result<Prepared> {
        let mut types: Vec<Oid> = Vec::new();
        let of_key = key.iter().map(|c| Oid::from(c.type_oid));
        for param in &statement.params {
            match param {
                Param::Rows | Param::All => types.push(pg_sys::INT8OID),
                Param::After | Param::UpTo => types.extend(of_key.clone()),
                Param::Keys => types.extend(of_key.clone().map(keylist::array_type)),
                Param::Tids => types.push(pg_sys::TIDARRAYOID),
                Param::From | Param::Until => types.push(pg_sys::TIDOID),
                Param::Percent => types.push(pg_sys::FLOAT4OID),
            }
        }
        Ok(Prepared {
            plan: Plan::prepare(&statement.text, &types)?,
            params: statement.params,
            key: key.to_vec(),
            access,
        })
    }

    /// Returns the statement's text, as the server knows it.
    pub fn text(&self) -> &CString {
        &self.plan.text
    }

    /// Runs the statement; values come back in their text form.
    pub fn run(&self, values: Values) -> Result<Output> {
        let (first, end) = texts_of(values.pages);
        let percent = values.percent.to_string();
        let args = self.args(&values, [&first, &end, &percent]);
        if self.key.iter().any(Column::depends_on_settings) {
            self.plan.run_canonical(&args)
        } else {
            self.plan.run(&args)
        }
    }

    /// Passes to `f` what each row would become if this UPDATE were made, without making it: see [`evaluate`]. Within a
    /// snapshot.
    pub fn evaluate(
        &self,
        relation: Oid,
        values: Values,
        f: impl FnMut(&Change) -> Result<()>,
    ) -> Result<()> {
        let (first, end) = texts_of(values.pages);
        let percent = values.percent.to_string();
        let args = self.args(&values, [&first, &end, &percent]);
        evaluate::changes(relation, &self.plan.text, &args, Seen::Set, f)
    }

    /// Runs the statement and passes each row to `f` as the server holds it.
    pub fn visit(&self, values: Values, f: impl FnMut(&RawRow) -> Result<()>) -> Result<()> {
        let (first, end) = texts_of(values.pages);
        let percent = values.percent.to_string();
        self.plan
            .visit(&self.args(&values, [&first, &end, &percent]), f)
    }

    fn args<'a>(&'a self, values: &Values<'a>, texts: [&'a str; 3]) -> Vec<Arg<'a>> {
        let [first, end, percent] = texts;
        let mut rows = values.rows.iter();
        let mut args = Vec::with_capacity(8);
        for param in &self.params {
            match param {
                Param::After => args.extend(values.after.into_iter().flat_map(|k| self.typed(k))),
                Param::UpTo => args.extend(values.up_to.into_iter().flat_map(|k| self.typed(k))),
                Param::Rows => args.push(Arg::Int8(rows.next().copied().unwrap_or(1))),
                Param::All => args.push(Arg::Int8(i64::MAX)),
                Param::Keys | Param::Tids => args.extend_from_slice(values.lists),
                Param::From => args.push(Arg::Typed(pg_sys::TIDOID, first)),
                Param::Until => args.push(Arg::Typed(pg_sys::TIDOID, end)),
                Param::Percent => args.push(Arg::Typed(pg_sys::FLOAT4OID, percent)),
            }
        }
        args
    }

    fn typed<'a>(&'a self, key: &'a Key) -> impl Iterator<Item = Arg<'a>> {
        self.key
            .iter()
            .zip(key)
            .map(|(column, text)| Arg::Typed(column.type_oid.into(), text))
    }
}

fn texts_of((first, end): (i64, i64)) -> (String, String) {
    (format!("({first},0)"), format!("({end},0)"))
}

/// Makes the planner treat these statements as those of the walk over `relation`, by `index`.
pub fn announce<'a>(relation: Oid, index: Oid, all: impl Iterator<Item = &'a Prepared>) {
    let texts = all.map(|p| (p.plan.text.clone(), p.access)).collect();
    planner::set_walk(relation, index, texts);
}

/// Makes the planner recognise the extension's own statements.
pub fn announce_bookkeeping() {
    for text in [checkpoint::REPLACE, &version::VersionReader::text()] {
        if let Ok(text) = CString::new(text) {
            planner::add_bookkeeping(text);
        }
    }
}
