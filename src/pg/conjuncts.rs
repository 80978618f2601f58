//! Takes a WHERE clause apart with PostgreSQL's own analyser.

use pgrx::pg_sys;

use super::clauses::analysed;
use super::list;
use super::relation::Relation;
use super::text::{lossy_whole, to_server};
use crate::error::Result;

/// Returns, as SQL, the conditions that must all be true for a WHERE clause on the relation to be true. As the current user, within
/// [`spi::connect`](super::spi::connect); nothing is run or planned.
pub fn of(relation: &Relation, where_clause: &str) -> Result<Vec<String>> {
    let from = relation.alone(None);
    let name = to_server(&relation.name)?;
    let mut found: Vec<Result<String>> = Vec::new();
    analysed(
        &format!("SELECT FROM {from} WHERE (\n{where_clause}\n)"),
        |it| {
            // SAFETY: the relation exists, since text about it has been analysed, and the name that stands for it lives in
            // this function. The queries are analysed ones, which have a jointree, and live until `analysed` frees them,
            // after this. What is deparsed is copied.
            unsafe {
                let context = pg_sys::deparse_context_for(name.as_ptr(), relation.oid);
                for query in it.queries() {
                    take_apart((*query.jointree).quals, &mut |condition| {
                        let text = pg_sys::deparse_expression(condition, context, false, false);
                        found.push(lossy_whole(text));
                    });
                }
            }
        },
    )?;
    found.into_iter().collect()
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
