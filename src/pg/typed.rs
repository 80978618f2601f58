//! Tells a call that a client has typed from a call that something else in its statement makes.

use std::ffi::{CStr, c_char};

use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag::{
    T_A_Const, T_FuncCall, T_NamedArgExpr, T_ParamRef, T_SelectStmt, T_TypeCast,
};

use super::list;

/// Whether the function that is called stands in the client's own statement, `SELECT backfill.function(...)`, with constants and
/// parameters as arguments, and nothing else. Not so: a call in a function, a trigger, a rule, a view, a default, a block, a
/// prepared statement that is run by EXECUTE. Whoever has written that may be somebody else than who runs it.
///
/// The call has to be the very node of the plan of the client's portal that is its one column; and what the client has sent,
/// parsed again, has to be that call: PostgreSQL moves calls from views and from functions in SQL into the plans of statements
/// that use them, with places that whoever wrote these has chosen.
///
/// # Safety
/// `fcinfo` must be the one that the function was called with.
pub unsafe fn is_typed(fcinfo: pg_sys::FunctionCallInfo, function: &str) -> bool {
    // SAFETY: as the caller promises. The active portal is null or whole, and so is its query while it runs, with its plan; a node
    // is treated as what its tag says. Both texts are null or end with a zero.
    unsafe {
        let (sent, portal) = (pg_sys::debug_query_string, pg_sys::ActivePortal);
        if sent.is_null() || portal.is_null() || (*portal).sourceText.is_null() {
            return false;
        }
        let query = (*portal).queryDesc;
        if CStr::from_ptr(sent) != CStr::from_ptr((*portal).sourceText) || query.is_null() {
            return false;
        }
        let statement = (*query).plannedstmt;
        let plan = (*statement).planTree;
        if (*plan).type_ != pg_sys::NodeTag::T_Result || !(*plan).lefttree.is_null() {
            return false;
        }
        let Some(column) = list::only::<pg_sys::TargetEntry>((*plan).targetlist) else {
            return false;
        };
        let call = (*column).expr;
        if call.is_null()
            || (*call).type_ != pg_sys::NodeTag::T_FuncExpr
            || !std::ptr::addr_eq(call, (*(*fcinfo).flinfo).fn_expr)
        {
            return false;
        }
        let place = ((*statement).stmt_location, (*statement).stmt_len);
        let called = sole_call(sent, place);
        called.is_some_and(|called| {
            is_named(called, function)
                && (*called).location == (*call.cast::<pg_sys::FuncExpr>()).location
        })
    }
}

/// The function call that the statement at this place (its first byte and its length) of what the client sent consists of: its
/// arguments are constants and parameters. `None` where the statement is anything else. It is only parsed: no name is looked up.
///
/// # Safety
/// `sent` must be a text in the server's encoding that ends with a zero. The result lives in the current memory context.
unsafe fn sole_call(sent: *const c_char, place: (i32, i32)) -> Option<*mut pg_sys::FuncCall> {
    // SAFETY: as the caller promises. The server has parsed this text before; a node is taken for what its tag says.
    unsafe {
        let parsed = pg_sys::raw_parser(sent, pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        let statements = list::pointers::<pg_sys::RawStmt>(parsed);
        let mut here = statements.iter().filter(|raw| {
            let raw = &***raw;
            (raw.stmt_location, raw.stmt_len) == place
        });
        let select = as_node::<pg_sys::SelectStmt>((**here.next()?).stmt, T_SelectStmt)?;
        // Not: UNION, VALUES.
        let target = list::only::<pg_sys::ResTarget>((*select).targetList)?;
        let bare = (*select).intoClause.is_null()
            && (*select).fromClause.is_null()
            && (*select).whereClause.is_null()
            && (*select).withClause.is_null()
            && (*target).indirection.is_null();
        let call = as_node::<pg_sys::FuncCall>((*target).val, T_FuncCall)?;
        let mut arguments = list::pointers::<pg_sys::Node>((*call).args).into_iter();
        (bare && arguments.all(|argument| is_given(argument))).then_some(call)
    }
}

/// Whether an argument is a constant or a parameter, perhaps by name, or cast.
///
/// # Safety
/// `argument` must be null or a node of the raw parser's.
unsafe fn is_given(argument: *mut pg_sys::Node) -> bool {
    // SAFETY: as the caller promises; a node is taken for what its tag says.
    unsafe {
        if let Some(named) = as_node::<pg_sys::NamedArgExpr>(argument, T_NamedArgExpr) {
            return is_given((*named).arg.cast());
        }
        if let Some(cast) = as_node::<pg_sys::TypeCast>(argument, T_TypeCast) {
            return is_given((*cast).arg);
        }
        !argument.is_null() && matches!((*argument).type_, T_A_Const | T_ParamRef)
    }
}

/// Whether the function is called as `backfill.function`.
///
/// # Safety
/// `call` must be a node of the raw parser's.
unsafe fn is_named(call: *mut pg_sys::FuncCall, function: &str) -> bool {
    // SAFETY: as the caller promises; the parser gives names as strings that end with a zero.
    unsafe {
        let names = list::pointers::<pg_sys::String>((*call).funcname);
        let mut names = names.iter().map(|name| CStr::from_ptr((**name).sval));
        names.next().is_some_and(|name| name == c"backfill")
            && names
                .next()
                .is_some_and(|name| name.to_bytes() == function.as_bytes())
            && names.next().is_none()
    }
}

/// The node, if it is one of this kind.
///
/// # Safety
/// `node` must be null or a node, and `T` what nodes with that tag are.
unsafe fn as_node<T>(node: *mut pg_sys::Node, tag: pg_sys::NodeTag) -> Option<*mut T> {
    // SAFETY: as the caller promises.
    let of_this_kind = !node.is_null() && unsafe { (*node).type_ == tag };
    of_this_kind.then_some(node.cast())
}
