//! `CALL backfill.set_not_null`: runs the statements of `backfill.set_not_null_statements` one after another, each in a
//! transaction of its own, with short tries and pauses between them.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

use pgrx::pg_sys::{self, Oid};

use super::caller::required;
use super::not_null;
use crate::error::{Error, Result, sqlstate};
use crate::pg::latch::wait_in_call;
use crate::pg::report::notice;
use crate::pg::spi::{self, Arg};
use crate::pg::{schemas, settings};

/// Hint about the effect of the first step on others.
const FROM_HERE: &str = "From here on an INSERT or UPDATE that leaves the column NULL fails, also an UPDATE of other columns in a row that is not filled yet.";

/// The column, and how long to try.
pub struct Wanted {
    /// The column's table.
    pub relation: Option<Oid>,
    /// The column's name.
    pub column: Option<String>,
    /// Milliseconds that others may have to wait behind a try.
    pub lock_timeout_ms: Option<i32>,
    /// Number of tries that may follow a first one.
    pub retries: Option<i32>,
}

struct Column {
    relation: Oid,
    /// The table's name, for people.
    shown: String,
    name: String,
    /// The column's name, quoted for a statement.
    quoted: String,
    lock_timeout_ms: i32,
    retries: i32,
}

/// Sets the column NOT NULL. To be called where it may commit.
pub fn set_not_null(wanted: Wanted) -> Result<()> {
    // SAFETY: called from outside of a transaction block, within a transaction of the CALL's. It is disconnected below,
    // or by the abort if an error leaves what is between.
    unsafe { pg_sys::SPI_connect_ext(pg_sys::SPI_OPT_NONATOMIC as i32) };
    pin_path();
    let result = check(wanted).and_then(|column| step_by_step(&column));
    // SAFETY: connected above; nothing that belongs to Rust lives in the memory that this frees.
    unsafe { pg_sys::SPI_finish() };
    result
}

/// Sets search_path until the transaction ends, so that nothing on the caller's path is used here.
fn pin_path() {
    settings::set_for_transaction(c"search_path", c"pg_catalog, pg_temp");
}

fn check(wanted: Wanted) -> Result<Column> {
    let (Some(lock_timeout_ms @ 1..), Some(retries @ 0..)) =
        (wanted.lock_timeout_ms, wanted.retries)
    else {
        return Err(
            Error::invalid("lock_timeout_ms must be at least 1, and retries at least 0").hint(
                "Others wait behind each try for lock_timeout_ms at most; after it, it lets them pass and tries again, so many times.",
            ),
        );
    };
    let relation = required(wanted.relation, "relation")?;
    let name = required(wanted.column, "column_name")?;
    // `next` reports a table that does not exist.
    let found = spi::fixed_first(
        "SELECT c.oid::pg_catalog.regclass::text, pg_catalog.pg_has_role(c.relowner, 'USAGE'), pg_catalog.quote_ident($2)
         FROM pg_catalog.pg_class c WHERE c.oid = $1",
        &[Arg::Oid(relation), Arg::Text(&name)],
    )?;
    let (shown, quoted) = match &found {
        Some(row) => (row.text(0)?.to_owned(), row.text(2)?.to_owned()),
        None => Default::default(),
    };
    if found.is_some_and(|row| !row.bool(1)) {
        return Err(Error::new(
            sqlstate::INSUFFICIENT_PRIVILEGE,
            format!("must be owner of table {shown}"),
        )
        .hint("It runs ALTER TABLE with your rights: SET ROLE to the owner."));
    }
    Ok(Column {
        relation,
        shown,
        name,
        quoted,
        lock_timeout_ms,
        retries,
    })
}

/// The result of a statement.
enum Ending {
    Done,
    /// Another session was in its way, or was faster.
    Late,
    /// The column is NULL in some rows.
    Violated(String),
}

fn step_by_step(column: &Column) -> Result<()> {
    let (mut done, mut undo, mut violation) = (None, None, None);
    let mut tries = 0;
    loop {
        pin_path();
        let (todo, takes_back) = match (&violation, &undo) {
            (None, _) => match next(column)? {
                Some(step) => step,
                None => break,
            },
            (Some(_), Some(undo)) => (String::clone(undo), None),
            (Some(_), None) => break,
        };
        if violation.is_none() && done.as_ref() == Some(&todo) {
            return Err(column.stands_still(&todo));
        }
        if tries == 0 {
            notice(&todo, todo.ends_with("NOT VALID").then_some(FROM_HERE));
        }
        let ending = run(column, &todo, tries)?;
        // SAFETY: connected so that it may commit, which was checked first. Nothing here belongs to the transaction.
        unsafe { pg_sys::SPI_commit() };
        if matches!(ending, Ending::Late) {
            tries += 1;
            if tries > column.retries {
                return Err(column.too_late(&todo, tries, undo.as_deref()));
            }
            pause(tries);
            continue;
        }
        tries = 0;
        if violation.is_some() {
            break;
        }
        undo = takes_back.or(undo);
        match ending {
            Ending::Violated(message) => violation = Some(message),
            _ => done = Some(todo),
        }
    }
    match violation {
        None => Ok(()),
        Some(why) => Err(column.has_nulls(&why, undo.is_some())),
    }
}

/// Returns the next statement, and the one that undoes it.
fn next(column: &Column) -> Result<Option<(String, Option<String>)>> {
    let found = spi::fixed_first(
        "SELECT s.statement, s.undo FROM backfill.set_not_null_statements($1, $2::pg_catalog.name) s ORDER BY s.step LIMIT 1",
        &[Arg::Oid(column.relation), Arg::Text(&column.name)],
    )?;
    found.map_or(Ok(None), |row| {
        Ok(Some((
            row.text(0)?.to_owned(),
            row.get(1).map(str::to_owned),
        )))
    })
}

fn run(column: &Column, todo: &str, tries: i32) -> Result<Ending> {
    let _names = schemas::Scope::begin();
    let result = spi::in_subtransaction(|| {
        not_null::step(column.relation, &column.name, todo, column.lock_timeout_ms)
    });
    let Err(error) = result else {
        return Ok(Ending::Done);
    };
    match error.sqlstate.as_str() {
        // Trying again helps, also if another call has done this step meanwhile.
        sqlstate::LOCK_NOT_AVAILABLE
        | sqlstate::DEADLOCK_DETECTED
        | sqlstate::NOT_IN_PREREQUISITE_STATE => Ok(Ending::Late),
        // Another call was faster, unless the error persists.
        sqlstate::DUPLICATE_OBJECT | sqlstate::UNDEFINED_OBJECT => {
            if tries < column.retries.min(5) {
                return Ok(Ending::Late);
            }
            Err(error.hint("A child of the table has another constraint of that name: rename it."))
        }
        sqlstate::CHECK_VIOLATION | sqlstate::NOT_NULL_VIOLATION => {
            Ok(Ending::Violated(error.message.clone()))
        }
        _ => Err(error),
    }
}

/// Gives others their turn: 0.1 s at first, 5 s at most.
fn pause(tries: i32) {
    let doubled = 2_f64.powi((tries - 1).min(10));
    let end = Instant::now() + Duration::from_secs_f64((0.1 * doubled).min(5.0));
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        wait_in_call(left);
    }
}

impl Column {
    fn stands_still(&self, todo: &str) -> Error {
        let message = format!(
            "\"{todo}\" did not bring column \"{}\" of {} any further",
            self.name, self.shown
        );
        Error::new(sqlstate::NOT_IN_PREREQUISITE_STATE, message).hint(
            "Somebody else takes back what is done here. Call it again when they are through.",
        )
    }

    fn too_late(&self, todo: &str, tries: i32, undo: Option<&str>) -> Error {
        let message = format!(
            "the lock for \"{todo}\" was not to be had in {tries} tries of {} ms",
            self.lock_timeout_ms
        );
        let hint = "pg_locks shows who uses the table. Call it again to go on from here.";
        Error::new(sqlstate::LOCK_NOT_AVAILABLE, message).hint(match undo {
            Some(undo) => format!("{hint} Or take back what was done: {undo};"),
            None => hint.to_owned(),
        })
    }

    fn has_nulls(&self, why: &str, taken_back: bool) -> Error {
        let (name, table) = (&self.name, &self.shown);
        let message =
            format!("column \"{name}\" of {table} cannot be set NOT NULL: rows of it are NULL");
        let end = if taken_back {
            "; it was dropped again."
        } else {
            "."
        };
        Error::new(sqlstate::NOT_NULL_VIOLATION, message)
            .detail(format!("{why}{end}"))
            .hint(format!(
                "Look at them: SELECT * FROM {table} WHERE {} IS NULL. Rows that come in with NULL need a DEFAULT, or a change of the application.",
                self.quoted
            ))
    }
}
