//! Statements that are analysed once and run many times.

use std::ffi::CString;

use pgrx::pg_sys::{self, Oid};

use super::super::row::Columns;
use super::super::settings::CANONICAL;
use super::super::text::to_server;
use super::super::{elevate, schemas, settings};
use super::{Arg, Bound, Output, RawRow, allowed, output};
use crate::error::{Error, Result};

/// A statement that was analysed once and is kept for the life of the process (or until dropped). It always runs with a generic plan:
/// its parameters are bounds, whose values don't change the plan.
#[derive(Debug)]
pub struct Plan {
    pointer: pg_sys::SPIPlanPtr,
    /// Types of the parameters.
    types: Vec<Oid>,
    /// Whether the statement is one of the extension's own. These run within `as_extension` only; others never do.
    own: bool,
    /// The schemas that the names in the statement stand for. They are checked on each run, as the statement may be analysed again.
    meant: Vec<(Oid, CString)>,
    /// The statement's text, as `pg_stat_activity` shows it.
    pub text: CString,
}

impl Plan {
    /// Analyses a statement, within [`connect`](super::connect).
    pub fn prepare(sql: &str, types: &[Oid]) -> Result<Plan> {
        allowed()?;
        let own = elevate::is_elevated();
        let text = to_server(sql)?;
        let mut types = types.to_vec();
        // SAFETY: SPI returns an error where it is not connected. The text and the counted types are copied into the plan, which,
        // once it is kept, lives until `drop` frees it.
        unsafe {
            let pointer = pg_sys::SPI_prepare_cursor(
                text.as_ptr(),
                types.len() as i32,
                types.as_mut_ptr(),
                pg_sys::CURSOR_OPT_GENERIC_PLAN as i32,
            );
            if pointer.is_null() || pg_sys::SPI_keepplan(pointer) != 0 {
                return Err(Error::internal(format!("cannot prepare: {sql}")));
            }
            Ok(Plan {
                pointer,
                types,
                own,
                meant: schemas::remembered(),
                text,
            })
        }
    }

    /// Runs the statement, within [`connect`](super::connect).
    pub fn run(&self, args: &[Arg]) -> Result<Output> {
        let bound = Bound::new(args)?;
        let code = self.execute(bound)?;
        // SAFETY: `code` is the result of the call just before.
        unsafe { output(code) }
    }

    /// Runs the statement with values whose text form depends on settings: they are converted under [`CANONICAL`] settings, and so are the
    /// rows, while the statement itself runs under the settings in force. Within [`connect`](super::connect).
    pub fn run_canonical(&self, args: &[Arg]) -> Result<Output> {
        let bound = settings::with(CANONICAL, || Bound::new(args))?;
        let code = self.execute(bound)?;
        // SAFETY: `code` is the result of the last call that runs a statement, as `with` makes none.
        settings::with(CANONICAL, || unsafe { output(code) })
    }

    /// Runs the statement, within [`connect`](super::connect), and calls `f` with each row in the server's own form: only copies of it may
    /// be kept. Bound values are converted under [`CANONICAL`] settings.
    pub fn visit(&self, args: &[Arg], mut f: impl FnMut(&RawRow) -> Result<()>) -> Result<()> {
        let bound = settings::with(CANONICAL, || Bound::new(args))?;
        let code = self.execute(bound)?;
        if code < 0 {
            return Err(Error::internal(format!("SPI returned {code}")));
        }
        // SAFETY: the table is the result of the call just before, or null if the statement returns no rows. It stays until it is
        // freed below, or SPI is left, whatever `f` runs meanwhile, and has as many rows as it says. Each row is lent to `f` for
        // the duration of the call.
        unsafe {
            let table = pg_sys::SPI_tuptable;
            if table.is_null() {
                return Err(Error::internal("a statement gives no rows"));
            }
            let columns = Columns::of((*table).tupdesc);
            for i in 0..(*table).numvals as usize {
                let tuple = *(*table).vals.add(i);
                f(&RawRow {
                    tuple,
                    columns: &columns,
                })?;
            }
            pg_sys::SPI_freetuptable(table);
        }
        Ok(())
    }

    fn execute(&self, mut bound: Bound) -> Result<i32> {
        if self.own != elevate::is_elevated() {
            return Err(Error::internal(
                "a statement was about to run with rights that are not its own",
            ));
        }
        if self.types != bound.types {
            let message = format!(
                "{:?} were about to be bound to {:?}",
                bound.types, self.types
            );
            return Err(Error::internal(message));
        }
        let _names = (!self.own).then(|| schemas::Scope::of(&self.meant));
        // SAFETY: the plan was kept, and is freed by `drop` only; SPI returns an error where it is not connected. The values match
        // the plan's parameters, and live until it has run.
        let code = unsafe {
            pg_sys::SPI_execute_plan(
                self.pointer,
                bound.values.as_mut_ptr(),
                bound.nulls.as_ptr(),
                false,
                0,
            )
        };
        Ok(code)
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: kept by `prepare`, and freed by nobody else. If it is in use, as it may be when an error is on its way, its users
        // hold reference counts on it.
        unsafe { pg_sys::SPI_freeplan(self.pointer) };
    }
}
