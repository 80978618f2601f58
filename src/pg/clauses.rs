//! Checks a user's clauses with PostgreSQL's own parser and analyser.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::capture::capture;
use super::confine;
use super::settings;
use super::spi;
use super::text::to_server;
use crate::error::{Error, Result, sqlstate};

/// What an expression is put behind to be parsed; a bracket closes it.
const EXPRESSION: &str = "SELECT (\n";
const STANDARD_STRINGS: (&std::ffi::CStr, &std::ffi::CStr) =
    (c"standard_conforming_strings", c"on");

/// Parses a SET list by itself and gives the names of the columns it sets. Refuses whatever else
/// an UPDATE may have.
pub fn set_columns(set_clause: &str) -> Result<Vec<String>> {
    const PREFIX: &str = "UPDATE t SET ";
    const HINT: &str =
        "set_clause is what stands after SET in an UPDATE, without that word: 'a = 1, b = 2'.";
    settings::with(&[STANDARD_STRINGS], || unsafe {
        let statement = parse(PREFIX, set_clause, HINT)?;
        if statement.is_null() || (*statement).type_ != pg_sys::NodeTag::T_UpdateStmt {
            return Err(only("set_clause", "a second statement", set_clause));
        }
        let update = &*statement.cast::<pg_sys::UpdateStmt>();
        #[cfg(feature = "pg18")]
        let returning = !update.returningClause.is_null();
        #[cfg(not(feature = "pg18"))]
        let returning = !update.returningList.is_null();
        for (found, what) in [
            (!update.whereClause.is_null(), "WHERE"),
            (!update.fromClause.is_null(), "FROM"),
            (returning, "RETURNING"),
        ] {
            if found {
                return Err(only("set_clause", what, set_clause));
            }
        }
        let targets = pgrx::PgList::<pg_sys::ResTarget>::from_pg(update.targetList);
        let names = targets
            .iter_ptr()
            .filter_map(|t| super::text::lossy((*t).name))
            .collect();
        std::mem::forget(targets);
        Ok(names)
    })
}

/// Parses an expression by itself: whether it is one expression and nothing else. `what` names it in errors.
pub fn check_expression(what: &str, expression: &str) -> Result<()> {
    let hint =
        format!("{what} is what stands after WHERE, without that word: 'a IS NULL AND b > 0'.");
    settings::with(&[STANDARD_STRINGS], || unsafe {
        let statement = parse(EXPRESSION, &format!("{expression}\n)"), &hint)?;
        // `(a, b)` is a row instead of one expression.
        let alone = target_of(statement)
            .is_some_and(|target| (*target).type_ != pg_sys::NodeTag::T_RowExpr);
        if alone {
            Ok(())
        } else {
            Err(only(what, "a list of them", expression))
        }
    })
}

/// Parses a query by itself: whether it is one query, as a subquery may be.
pub fn check_query(option: &str, query: &str) -> Result<()> {
    let hint =
        format!("{option} is one query, without a semicolon: 'SELECT count(*) > 100 FROM queue'.");
    settings::with(&[STANDARD_STRINGS], || unsafe {
        let statement = parse(EXPRESSION, &format!("{query}\n)"), &hint).map_err(|mut error| {
            error.message = format!("option \"{option}\": {}", error.message);
            error
        })?;
        let alone = target_of(statement)
            .is_some_and(|target| (*target).type_ == pg_sys::NodeTag::T_SubLink);
        if alone {
            Ok(())
        } else {
            let message = format!("option \"{option}\" must be one query");
            Err(Error::new(sqlstate::SYNTAX_ERROR, message).hint(hint))
        }
    })
}

/// Parses a statement by itself: whether it is one, and one that can be run within a transaction. True
/// for a query, which can be planned.
pub fn check_statement(option: &str, statement: &str) -> Result<bool> {
    let hint = format!(
        "{option} is one SQL statement: 'SELECT notify_us()', 'CALL next_step()' or 'INSERT INTO done ...'."
    );
    settings::with(&[STANDARD_STRINGS], || unsafe {
        let parsed = parse("", statement, &hint).map_err(|mut error| {
            error.message = format!("option \"{option}\": {}", error.message);
            error
        })?;
        let refuse = |what: &str| {
            let message = format!("option \"{option}\" must be one SQL statement{what}");
            Err(Error::new(sqlstate::SYNTAX_ERROR, message).hint(hint.as_str()))
        };
        if parsed.is_null() {
            return refuse("");
        }
        match (*parsed).type_ {
            pg_sys::NodeTag::T_TransactionStmt => {
                refuse(", and none that begins or ends a transaction")
            }
            pg_sys::NodeTag::T_CopyStmt => refuse(", and not COPY"),
            pg_sys::NodeTag::T_VacuumStmt
            | pg_sys::NodeTag::T_ListenStmt
            | pg_sys::NodeTag::T_UnlistenStmt => {
                refuse(" that a worker can run within a transaction")
            }
            pg_sys::NodeTag::T_SelectStmt
            | pg_sys::NodeTag::T_InsertStmt
            | pg_sys::NodeTag::T_UpdateStmt
            | pg_sys::NodeTag::T_DeleteStmt
            | pg_sys::NodeTag::T_MergeStmt => Ok(true),
            _ => Ok(false),
        }
    })
}

/// The one target of a SELECT that has nothing else.
unsafe fn target_of(statement: *mut pg_sys::Node) -> Option<*mut pg_sys::Node> {
    unsafe {
        if statement.is_null() || (*statement).type_ != pg_sys::NodeTag::T_SelectStmt {
            return None;
        }
        let select = &*statement.cast::<pg_sys::SelectStmt>();
        let targets = pgrx::PgList::<pg_sys::ResTarget>::from_pg(select.targetList);
        let only = targets.get_ptr(0).filter(|_| targets.len() == 1);
        std::mem::forget(targets);
        let value = (*only?).val;
        let alone = select.fromClause.is_null() && select.whereClause.is_null();
        (alone && !value.is_null()).then_some(value)
    }
}

fn only(what: &str, found: &str, clause: &str) -> Error {
    let wanted = if what == "set_clause" {
        "one SET list"
    } else {
        "one boolean expression"
    };
    Error::new(sqlstate::SYNTAX_ERROR, format!("{what} must be {wanted}, but has {found}"))
        .detail(format!("{what}: {clause}"))
        .hint("Put conditions into where_clause, and other tables into subqueries: 'a = (SELECT b FROM lookup WHERE lookup.id = orders.ref)'.")
}

/// The one statement of `prefix` + `clause`, or null if there are several. The position of a
/// syntax error is counted in the clause.
unsafe fn parse(prefix: &str, clause: &str, hint: &str) -> Result<*mut pg_sys::Node> {
    confine::require()?;
    let text = to_server(&format!("{prefix}{clause}"))?;
    let parsed = capture(|| unsafe {
        let mode = pg_sys::RawParseMode::RAW_PARSE_DEFAULT;
        let list =
            pgrx::PgList::<pg_sys::RawStmt>::from_pg(pg_sys::raw_parser(text.as_ptr(), mode));
        let statement = match (list.len(), list.get_ptr(0)) {
            (1, Some(raw)) => (*raw).stmt,
            _ => std::ptr::null_mut(),
        };
        std::mem::forget(list);
        Ok(statement)
    });
    parsed.map_err(|mut error| {
        if let Some(position) = &mut error.position {
            position.character = (position.character - prefix.chars().count() as i32).max(1);
            position.text = clause.trim_end_matches("\n)").to_owned();
        }
        error.hint(hint)
    })
}

/// Analyses and plans a statement as the current user, without running it: unknown columns, wrong
/// types, missing privileges and policies of row security come up here. The position of an error
/// is counted in the clause it is in. Within [`spi::connect`].
pub fn explain(statement: &str, clauses: &[&str]) -> Result<()> {
    let off = [STANDARD_STRINGS, (c"row_security", c"off")];
    let explain = format!("EXPLAIN {statement}");
    settings::with(&off, || spi::attempt(&explain).map(|_| ())).map_err(|mut error| {
        let own = format!("SQL statement \"{explain}\"");
        error.context = error.context.take().filter(|context| *context != own);
        if let Some(position) = &mut error.position
            && position.text == explain
            && let Some((character, clause)) = locate(position.character, &explain, clauses)
        {
            position.character = character;
            position.text = clause.to_owned();
        }
        error
    })
}

/// Analyses a statement as the current user, and shows what came of it to `f`. Nothing is run or planned.
pub(super) fn analysed(
    statement: &str,
    mut f: impl FnMut(*mut pg_sys::CachedPlanSource),
) -> Result<()> {
    confine::require()?;
    let text = to_server(statement)?;
    settings::with(&[STANDARD_STRINGS], || unsafe {
        let plan = pg_sys::SPI_prepare(text.as_ptr(), 0, std::ptr::null_mut());
        if plan.is_null() {
            return Err(Error::internal("cannot analyse the clauses"));
        }
        let sources = pgrx::PgList::<pg_sys::CachedPlanSource>::from_pg(
            pg_sys::SPI_plan_get_plan_sources(plan),
        );
        sources.iter_ptr().for_each(&mut f);
        std::mem::forget(sources);
        pg_sys::SPI_freeplan(plan);
        Ok(())
    })
}

/// The queries that a statement became.
pub(super) fn queries(source: *mut pg_sys::CachedPlanSource) -> Vec<*mut pg_sys::Query> {
    unsafe {
        let list = pgrx::PgList::<pg_sys::Query>::from_pg((*source).query_list);
        let queries = list.iter_ptr().collect();
        std::mem::forget(list);
        queries
    }
}

/// Whether a WHERE clause depends on more than the row: on the time, the session, other rows, or
/// anything else but immutable functions. `from` is what stands after FROM. As the current user,
/// within [`spi::connect`]; nothing is run or planned.
pub fn depends_on_more(from: &str, where_clause: &str) -> Result<bool> {
    let mut more = false;
    let statement = format!("SELECT FROM {from} WHERE (\n{where_clause}\n)");
    analysed(&statement, |source| {
        more |= queries(source).into_iter().any(|query| unsafe {
            (*query).hasSubLinks || pg_sys::contain_mutable_functions(query.cast())
        });
    })?;
    Ok(more)
}

/// Whether a statement calls a VOLATILE function. As the current user, within [`spi::connect`]; nothing is run
/// or planned.
pub fn is_volatile(statement: &str) -> Result<bool> {
    let mut found = false;
    analysed(statement, |source| {
        let volatile =
            |query: *mut pg_sys::Query| unsafe { pg_sys::contain_volatile_functions(query.cast()) };
        found |= queries(source).into_iter().any(volatile);
    })?;
    Ok(found)
}

/// Functions that give the same within a transaction only, beside `current_timestamp` and its like.
const OF_THE_MOMENT: &[u32] = &[
    pg_sys::F_NOW,
    pg_sys::F_TRANSACTION_TIMESTAMP,
    pg_sys::F_STATEMENT_TIMESTAMP,
    pg_sys::F_TXID_CURRENT,
    pg_sys::F_PG_CURRENT_XACT_ID,
    pg_sys::F_PG_BACKEND_PID,
];

/// Whether a statement asks what time it is, or which transaction it is in. As the current user, within
/// [`spi::connect`]; nothing is run or planned.
pub fn is_of_the_moment(statement: &str) -> Result<bool> {
    // `op` of current_date, current_time, current_timestamp, localtime, localtimestamp: 0 to 8 of SQLValueFunctionOp.
    let values = (0..=8).map(|op| format!("{{SQLVALUEFUNCTION :op {op} "));
    let calls = OF_THE_MOMENT
        .iter()
        .map(|oid| format!("{{FUNCEXPR :funcid {oid} "));
    let signs: Vec<String> = values.chain(calls).collect();
    let mut found = false;
    analysed(statement, |source| {
        for query in queries(source) {
            // The tree as text, in which constants are bytes.
            let text = unsafe { CStr::from_ptr(pg_sys::nodeToString(query.cast())) };
            let text = String::from_utf8_lossy(text.to_bytes());
            found |= signs.iter().any(|sign| text.contains(sign));
        }
    })?;
    Ok(found)
}

/// A temporary table, view or sequence that the statement uses, if there is one: a worker has its own, or
/// takes a permanent one of the same name. As the current user, within [`spi::connect`]; nothing is run or
/// planned.
pub fn temporary_used(statement: &str) -> Result<Option<String>> {
    let mut found = None;
    analysed(statement, |source| unsafe {
        let used = pgrx::PgList::<pg_sys::Oid>::from_pg((*source).relationOids);
        let temporary = |oid: &pg_sys::Oid| {
            pg_sys::get_rel_persistence(*oid) == pg_sys::RELPERSISTENCE_TEMP as std::ffi::c_char
        };
        if let Some(oid) = used.iter_oid().find(temporary) {
            found = super::text::lossy(pg_sys::get_rel_name(oid));
        }
        std::mem::forget(used);
    })?;
    Ok(found)
}

/// The numbers of the columns that an UPDATE sets or reads of its target, or a SELECT of the first
/// relation after its FROM. As the current user, within [`spi::connect`]; nothing is run or planned.
pub fn columns_used(statement: &str) -> Result<Vec<i16>> {
    let (mut used, written) = read_and_set(statement)?;
    used.extend(written);
    Ok(used)
}

/// The numbers of the columns that an UPDATE reads of its target, 0 for the row as a whole, and of those that it sets. As
/// the current user, within [`spi::connect`]; nothing is run or planned.
pub fn read_and_set(statement: &str) -> Result<(Vec<i16>, Vec<i16>)> {
    let (mut read, mut set) = (Vec::new(), Vec::new());
    analysed(statement, |source| {
        for query in queries(source) {
            let columns = unsafe { columns_of_target(query) };
            read.extend(columns.0);
            set.extend(columns.1);
        }
    })?;
    Ok((read, set))
}

/// What the query's target has to be readable for, and writable.
unsafe fn columns_of_target(query: *mut pg_sys::Query) -> (Vec<i16>, Vec<i16>) {
    unsafe {
        let target = pg_sys::list_nth((*query).rtable, (*query).resultRelation.max(1) - 1);
        let target = target.cast::<pg_sys::RangeTblEntry>();
        #[cfg(feature = "pg15")]
        let (read, written) = ((*target).selectedCols, (*target).updatedCols);
        #[cfg(not(feature = "pg15"))]
        let (read, written) = {
            let rights = pg_sys::getRTEPermissionInfo((*query).rteperminfos, target);
            ((*rights).selectedCols, (*rights).updatedCols)
        };
        (members(read), members(written))
    }
}

/// The numbers of columns in a set, in which they are counted from the first system column.
unsafe fn members(set: *mut pg_sys::Bitmapset) -> Vec<i16> {
    let mut columns = Vec::new();
    let mut member = unsafe { pg_sys::bms_next_member(set, -1) };
    while member >= 0 {
        columns.push((member + pg_sys::FirstLowInvalidHeapAttributeNumber) as i16);
        member = unsafe { pg_sys::bms_next_member(set, member) };
    }
    columns
}

/// How many rows the planner expects to match. As the current user, within [`spi::connect`].
pub fn estimate_matches(from: &str, where_clause: &str) -> Result<Option<f64>> {
    let explain = format!("EXPLAIN (FORMAT JSON) SELECT FROM {from} WHERE (\n{where_clause}\n)");
    let Some(row) = settings::with(&[STANDARD_STRINGS], || spi::first(&explain, &[]))? else {
        return Ok(None);
    };
    let plan: serde_json::Value = serde_json::from_str(row.text(0)?)
        .map_err(|e| Error::internal(format!("EXPLAIN gave no JSON: {e}")))?;
    Ok(plan[0]["Plan"]["Plan Rows"].as_f64())
}

/// Which of the clauses, that stand in `text` in this order, the character is in, and where.
fn locate<'a>(character: i32, text: &str, clauses: &[&'a str]) -> Option<(i32, &'a str)> {
    let mut from = 0;
    for clause in clauses {
        let start = from + text[from..].find(clause)?;
        from = start + clause.len();
        let first = text[..start].chars().count() as i32 + 1;
        let length = clause.chars().count() as i32;
        if (first..=first + length).contains(&character) {
            return Some((character - first + 1, clause));
        }
    }
    None
}
