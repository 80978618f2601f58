//! Tells a call that a client has typed from a call that something else in its statement makes.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::list;

/// Whether the called function stands in the client's own statement, `SELECT backfill.function(...)`, and is all that the statement
/// calls. False for a call in a function, a trigger, a rule, a view, a default, a block, or a prepared statement run by EXECUTE: the
/// author of those may be somebody other than the user who runs them.
///
/// The call must be the very node that is the only column in the plan of the client's portal. In addition, the text at its location,
/// within this statement of what the client sent, must read like the call, since PostgreSQL moves calls from views and from SQL
/// functions into the plans of statements that use them.
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
        let sent = CStr::from_ptr(sent);
        let query = (*portal).queryDesc;
        if sent != CStr::from_ptr((*portal).sourceText) || query.is_null() {
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
        let place = (*call.cast::<pg_sys::FuncExpr>()).location;
        let (begin, length) = ((*statement).stmt_location, (*statement).stmt_len);
        reads(sent.to_bytes(), (begin, length), place, function)
    }
}

/// Whether `place` is within the given statement of the text and `backfill.function(` stands there. A length of 0 means the rest of the
/// text.
fn reads(text: &[u8], (begin, length): (i32, i32), place: i32, function: &str) -> bool {
    let (Ok(begin), Ok(length), Ok(place)) = (
        usize::try_from(begin.max(0)),
        usize::try_from(length.max(0)),
        usize::try_from(place),
    ) else {
        return false;
    };
    let end = match length {
        0 => text.len(),
        length => begin.saturating_add(length).min(text.len()),
    };
    if place < begin || place >= end {
        return false;
    }
    let Some(rest) = name(&text[place..end], "backfill") else {
        return false;
    };
    let dotted = rest.trim_ascii_start().strip_prefix(b".");
    let called = dotted.and_then(|rest| name(rest.trim_ascii_start(), function));
    called.is_some_and(|rest| rest.trim_ascii_start().starts_with(b"("))
}

/// Returns the rest of the text after a name, quoted or not, if the text begins with that name.
fn name<'a>(text: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let quoted = text.first() == Some(&b'"');
    let text = &text[usize::from(quoted)..];
    let (found, rest) = text.split_at_checked(name.len())?;
    match quoted {
        true if found == name.as_bytes() => rest.strip_prefix(b"\""),
        false if found.eq_ignore_ascii_case(name.as_bytes()) => Some(rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::reads;

    fn in_all(text: &str, place: i32) -> bool {
        reads(text.as_bytes(), (0, 0), place, "approve")
    }

    #[test]
    fn a_call_is_read_in_any_spelling() {
        assert!(in_all("SELECT backfill.approve(7)", 7));
        assert!(in_all("SELECT \"backfill\" . Approve  (7)", 7));
        assert!(in_all("SELECT BACKFILL.\"approve\"(7)", 7));
    }

    #[test]
    fn other_texts_are_not_it() {
        assert!(!in_all("SELECT approve(7)", 7));
        assert!(!in_all("SELECT backfill.approve_all(7)", 7));
        assert!(!in_all("SELECT \"Backfill\".approve(7)", 7));
        assert!(!in_all("SELECT backfill.approve", 7));
        assert!(!in_all("SELECT backfill", 7));
        assert!(!in_all("SELECT hello()", 7));
        assert!(!in_all("SELECT backfill.approve(7)", -1));
        assert!(!in_all("SELECT backfill.approve(7)", 99));
    }

    #[test]
    fn it_stands_in_this_statement() {
        let text = b"SELECT backfill.approve(7); SELECT hello()";
        assert!(reads(text, (0, 26), 7, "approve"));
        assert!(!reads(text, (27, 0), 7, "approve"));
        assert!(!reads(text, (0, 6), 7, "approve"));
    }
}
