//! Plans the extension's own statements that every call needs once in a session. Planning a statement that reads the catalogs can take
//! ten times as long as running it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use pgrx::pg_sys::Oid;

use super::{Arg, Output, Plan, Row};
use crate::error::Result;

/// A statement: its text, which is part of this library, and the types of its parameters.
type Statement = (&'static str, Vec<Oid>);

thread_local! {
    static PLANS: RefCell<HashMap<Statement, Rc<Plan>>> = RefCell::default();
}

/// Runs a statement within `as_extension`, and keeps its plan for the life of the process. The number of plans is bounded by the number
/// of such statements in this library.
pub fn kept(sql: &'static str, args: &[Arg]) -> Result<Output> {
    let statement = (sql, args.iter().map(Arg::oid).collect());
    let known = PLANS.with_borrow(|plans| plans.get(&statement).cloned());
    let plan = match known {
        Some(plan) => plan,
        None => {
            let plan = Rc::new(Plan::prepare(sql, &statement.1)?);
            PLANS.with_borrow_mut(|plans| plans.insert(statement, plan.clone()));
            plan
        }
    };
    plan.run(args)
}

/// Like [`kept`], but returns only the first row, if any.
pub fn kept_first(sql: &'static str, args: &[Arg]) -> Result<Option<Row>> {
    Ok(kept(sql, args)?.rows.into_iter().next())
}
