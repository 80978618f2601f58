//! Statements that are analysed once and run again and again.

use std::ffi::CString;

use pgrx::pg_sys::{self, Oid};

use super::super::text::to_server;
use super::super::{elevate, schemas, settings};
use super::row::Columns;
use super::{Arg, Bound, CANONICAL, Output, RawRow, allowed, output};
use crate::error::{Error, Result};

/// A statement that was analysed once and is kept for the life of the process (or until dropped).
/// Always run with a generic plan: its parameters are bounds, whose values don't change the plan.
#[derive(Debug)]
pub struct Plan {
    pointer: pg_sys::SPIPlanPtr,
    /// Those of its parameters.
    types: Vec<Oid>,
    /// Whether it is one of the extension's own, which runs within `as_extension` only; others never do.
    own: bool,
    /// What the names of schemas in it mean: it may be analysed again each time that it runs.
    meant: Vec<(Oid, CString)>,
    /// The statement's text, as `pg_stat_activity` shows it.
    pub text: CString,
}

impl Plan {
    /// Analyses a statement, within [`connect`].
    pub fn prepare(sql: &str, types: &[Oid]) -> Result<Plan> {
        allowed()?;
        let own = elevate::is_elevated();
        let text = to_server(sql)?;
        let mut types = types.to_vec();
        // SAFETY: SPI refuses to work where it is not connected. The text and as many types as are counted are
        // copied into the plan, which, once it is kept, lives until `drop` frees it.
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

    /// Runs the statement, within [`connect`].
    pub fn run(&self, args: &[Arg]) -> Result<Output> {
        let bound = Bound::new(args)?;
        let code = self.execute(bound)?;
        // SAFETY: it is the code of the call before this.
        unsafe { output(code) }
    }

    /// The same for values whose text form depends on settings: they are converted under
    /// [`CANONICAL`] ones, while the statement itself runs under those in force.
    pub fn run_canonical(&self, args: &[Arg]) -> Result<Output> {
        let bound = settings::with(CANONICAL, || Bound::new(args))?;
        let code = self.execute(bound)?;
        // SAFETY: it is the code of the last call, as `with` makes none.
        settings::with(CANONICAL, || unsafe { output(code) })
    }

    /// Runs the statement and shows each row to `f` as the server holds it: nothing of it may be
    /// kept but copies. Values that are bound are converted under [`CANONICAL`] settings.
    pub fn visit(&self, args: &[Arg], mut f: impl FnMut(&RawRow) -> Result<()>) -> Result<()> {
        let bound = settings::with(CANONICAL, || Bound::new(args))?;
        let code = self.execute(bound)?;
        if code < 0 {
            return Err(Error::internal(format!("SPI returned {code}")));
        }
        // SAFETY: the result of the call before this, or null, if the statement gives no rows. It stays until it
        // is freed below, or SPI is left, whatever `f` runs meanwhile, and has as many rows as it says. Each row
        // is lent to `f` for as long as its call lasts.
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
        // SAFETY: the plan was kept, and is freed by `drop` only; SPI refuses to work where it is not connected.
        // The values are those that the plan has parameters for, and live until it has run.
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
        // SAFETY: kept by `prepare`, and freed by nobody else. One that is in use, as it may be where an error is
        // on its way, is counted by those who use it.
        unsafe { pg_sys::SPI_freeplan(self.pointer) };
    }
}
