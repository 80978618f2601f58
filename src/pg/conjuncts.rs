//! Takes a WHERE clause apart with PostgreSQL's own analyser.

use pgrx::pg_sys;

use super::clauses::analysed;
use super::list;
use super::relation::Relation;
use super::settings::{self, CANONICAL};
use super::text::{from_server, to_server};
use crate::error::{Error, Result, sqlstate};

/// The conditions, as SQL, that all have to be true for the WHERE clause of an UPDATE of the relation to be so. An error for one
/// that means something else where it is written again under the settings in force.
/// As the current user, within [`spi::connect`](super::spi::connect); nothing is run or planned.
pub fn of(relation: &Relation, where_clause: &str) -> Result<Vec<String>> {
    let found = deparsed(relation, where_clause)?;
    for condition in &found {
        let again = deparsed(relation, condition)?;
        let same = |again: &String| unnamed(again) == unnamed(condition);
        if again.len() != 1 || !again.iter().all(same) {
            return Err(Error::new(
                sqlstate::FEATURE_NOT_SUPPORTED,
                format!("cannot take the where_clause apart: the condition {condition} would be read as another one"),
            )
            .hint("Values of dates, intervals and money in it are read by the settings of the job: write them so that they can't be mistaken, as in timestamptz '2026-11-30 12:00:00+00'."));
        }
    }
    Ok(found)
}

/// The conditions as PostgreSQL writes them; constants as settings make no difference to them.
fn deparsed(relation: &Relation, where_clause: &str) -> Result<Vec<String>> {
    let from = relation.alone(None);
    let name = to_server(&relation.name)?;
    let mut found: Vec<Result<String>> = Vec::new();
    analysed(
        &format!("SELECT FROM {from} WHERE (\n{where_clause}\n)"),
        |it| {
            // SAFETY: the relation exists, as the text on it was analysed, and the name that stands for
            // it lives in this function. The queries are analysed ones, which have a jointree, and live
            // until `analysed` frees them, after this. What is deparsed is copied.
            let written = settings::with(CANONICAL, || unsafe {
                let context = pg_sys::deparse_context_for(name.as_ptr(), relation.oid);
                for query in it.queries() {
                    take_apart((*query.jointree).quals, &mut |condition| {
                        let text = pg_sys::deparse_expression(condition, context, false, false);
                        found.push(from_server(text));
                    });
                }
                Ok(())
            });
            found.extend(written.err().map(Err));
        },
    )?;
    found.into_iter().collect()
}

/// Returns a condition without the names of what its subqueries return, which PostgreSQL adds to those that had none.
fn unnamed(condition: &str) -> String {
    let mut parts = condition.split(" AS ");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let name = match part.strip_prefix('"') {
            Some(quoted) => quoted.find('"').map_or(part.len(), |end| end + 2),
            None => part
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(part.len()),
        };
        text.push_str(&part[name..]);
    }
    text
}

/// Calls `f` for each condition of an AND, however the ANDs are nested.
///
/// # Safety
/// `condition` must be null or an expression that lives until this returns.
unsafe fn take_apart(condition: *mut pg_sys::Node, f: &mut impl FnMut(*mut pg_sys::Node)) {
    // SAFETY: a node is treated as what its tag says; the arguments of an AND are expressions.
    unsafe {
        if condition.is_null() {
            return;
        }
        if (*condition).type_ == pg_sys::NodeTag::T_BoolExpr {
            let expression = condition.cast::<pg_sys::BoolExpr>();
            if (*expression).boolop == pg_sys::BoolExprType::AND_EXPR {
                for part in list::pointers((*expression).args) {
                    take_apart(part, f);
                }
                return;
            }
        }
        f(condition);
    }
}
