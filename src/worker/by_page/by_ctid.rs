//! The statements of a walk in physical order, which find rows by their places.

use pgrx::pg_sys::Oid;

use crate::action::Action;
use crate::action::statement::counted;
use crate::error::{Error, Result, Signal, sqlstate};
use crate::pg::planner::Access;
use crate::pg::report;
use crate::pg::spi::Arg;
use crate::pg::tid::Tid;
use crate::scan::sql::Target;
use crate::worker::batch::attempt::Attempt;
use crate::worker::batch::statement::{self, Prepared, Values};
use crate::worker::batch::step::{Work, changed_by};

/// The statements.
#[derive(Debug)]
pub struct Places {
    relation: Oid,
    read: Prepared,
    update: Prepared,
    /// Statements that lock rows: to the end of the table, and up to a page.
    lock: [Prepared; 2],
    skip: Prepared,
}

impl Places {
    /// Analyses the statements, as the owner.
    pub fn prepare(relation: Oid, target: &Target, action: &dyn Action) -> Result<Places> {
        let one = |statement| Prepared::new(statement, &target.key, Access::Tid);
        let places = Places {
            relation,
            read: one(target.read_pages())?,
            update: one(counted(action, target))?,
            lock: [
                one(target.lock_places(false))?,
                one(target.lock_places(true))?,
            ],
            skip: one(target.lock_listed_places())?,
        };
        statement::announce(relation, Oid::INVALID, places.all().into_iter());
        Ok(places)
    }

    fn all(&self) -> [&Prepared; 5] {
        let [all, range] = &self.lock;
        [&self.read, &self.update, all, range, &self.skip]
    }

    /// Returns the places of rows that match, on the pages from `first` to before `end`.
    pub fn read(&self, first: i64, end: i64) -> Result<Vec<Tid>> {
        let mut tids = Vec::new();
        let values = Values {
            pages: (first, end),
            rows: &[1],
            ..Values::default()
        };
        self.read.visit(values, |row| {
            tids.extend(row.tids(0)?);
            Ok(())
        })?;
        Ok(tids)
    }

    /// Locks rows that match, `most` at most, on the pages from `first` to before `end`, or to the end of the table.
    /// Waits for rows that others have locked.
    pub fn lock(&self, first: i64, end: Option<i64>, most: i64) -> Result<Vec<Tid>> {
        let values = Values {
            pages: (first, end.unwrap_or_default()),
            rows: &[most],
            ..Values::default()
        };
        found(&self.lock[usize::from(end.is_some())], values)
    }

    /// Locks those of these rows that still match and that nobody else has locked; returns where they are now.
    pub fn skip_locked(&self, tids: &[Tid]) -> Result<Vec<Tid>> {
        let values = Values {
            lists: &[Arg::Tids(tids)],
            rows: &[tids.len() as i64],
            ..Values::default()
        };
        found(&self.skip, values)
    }

    /// Updates rows; returns how many, how many of them were heap-only, and how many are now on a page of `ahead`.
    /// Fails if a row that it has changed still matches.
    pub fn update(
        &self,
        tids: &[Tid],
        ahead: (i64, i64),
        work: &mut Work,
    ) -> Result<((i64, i64), i64)> {
        if let [tid] = tids {
            *work.attempt = Some(Attempt::Place(*tid));
        }
        let lists = [Arg::Tids(tids)];
        report::activity(self.update.text());
        let (mut again, mut moved) = (0, 0);
        let changed = changed_by(self.relation, || {
            let values = Values {
                pages: ahead,
                ..Values::lists(&lists)
            };
            let output = self.update.run(values)?;
            let row = output.rows.first();
            moved = row.map_or(Ok(0), |row| row.number(2))?;
            again = row.map_or(Ok(0), |row| row.number(1))?;
            row.map_or(Ok(0), |row| row.number(0))
        })?;
        if again == 0 {
            return Ok((changed, moved));
        }
        let message = "rows still match where_clause after they were updated";
        Err(Error::new(sqlstate::NOT_IN_PREREQUISITE_STATE, message)
            .signal(Signal::Disproved)
            .detail(format!("{again} of {} rows of the batch do.", changed.0))
            .hint("Without a key to walk by, where_clause has to tell rows that are done from rows that are not."))
    }
}

/// Returns the places that a statement returns.
fn found(statement: &Prepared, values: Values) -> Result<Vec<Tid>> {
    let mut tids = Vec::new();
    statement.visit(values, |row| {
        tids.extend(row.tid(0)?);
        Ok(())
    })?;
    Ok(tids)
}
