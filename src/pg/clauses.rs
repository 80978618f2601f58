//! Checks a user's clauses with PostgreSQL's own parser and analyser.

use std::ffi::CStr;
use std::marker::PhantomData;

use pgrx::pg_sys;

use super::capture::capture;
use super::text::{lossy, to_server};
use super::{confine, list, server, settings, spi};
use crate::error::{Error, Result, sqlstate};

/// Text put before an expression to parse it; a bracket closes it.
const EXPRESSION: &str = "SELECT (\n";
pub(super) const STANDARD_STRINGS: (&CStr, &CStr) = (c"standard_conforming_strings", c"on");

/// Parses a SET list by itself and returns the names of the columns it sets. Refuses anything else that an UPDATE may have.
pub fn set_columns(set_clause: &str) -> Result<Vec<String>> {
    const PREFIX: &str = "UPDATE t SET ";
    const HINT: &str =
        "set_clause is what stands after SET in an UPDATE, without that word: 'a = 1, b = 2'.";
    // SAFETY: the result of parsing is null or a statement, in the current memory context, which is not left here. It is
    // treated as what its tag says; the targets of an UPDATE are of that type, each with a name or null.
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
            // Listed first, since FROM comes with a WHERE of its own.
            (!update.fromClause.is_null(), "FROM"),
            (!update.whereClause.is_null(), "WHERE"),
            (returning, "RETURNING"),
        ] {
            if found {
                return Err(only("set_clause", what, set_clause));
            }
        }
        let targets = list::pointers::<pg_sys::ResTarget>(update.targetList).into_iter();
        Ok(targets.filter_map(|t| lossy((*t).name)).collect())
    })
}

/// Checks that `expression` parses as one expression and nothing else. `what` names it in errors.
pub fn check_expression(what: &str, expression: &str) -> Result<()> {
    let hint =
        format!("{what} is what stands after WHERE, without that word: 'a IS NULL AND b > 0'.");
    // SAFETY: the result of parsing is null or a statement, and its target is a node, which begins with its tag.
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

/// Checks that `query` parses as one query, as in a subquery. `option` names it in errors.
pub fn check_query(option: &str, query: &str) -> Result<()> {
    let hint =
        format!("{option} is one query, without a semicolon: 'SELECT count(*) > 100 FROM queue'.");
    // SAFETY: as in `check_expression`.
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

/// Checks that `statement` parses as one statement that can be run within a transaction. Returns true if it is a query, which
/// can be planned.
pub fn check_statement(option: &str, statement: &str) -> Result<bool> {
    let hint = format!(
        "{option} is one SQL statement: 'SELECT notify_us()', 'CALL next_step()' or 'INSERT INTO done ...'."
    );
    // SAFETY: the result of parsing is null, which is checked, or a node, which begins with its tag.
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

/// Returns the only target of a SELECT that has neither FROM nor WHERE; `None` for any other statement.
///
/// # Safety
/// `statement` must be null or a statement as it was parsed.
unsafe fn target_of(statement: *mut pg_sys::Node) -> Option<*mut pg_sys::Node> {
    // SAFETY: as the caller promises. The node is treated as what its tag says; the targets of a SELECT are of that type.
    unsafe {
        if statement.is_null() || (*statement).type_ != pg_sys::NodeTag::T_SelectStmt {
            return None;
        }
        let select = &*statement.cast::<pg_sys::SelectStmt>();
        let value = (*list::only::<pg_sys::ResTarget>(select.targetList)?).val;
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
        .hint(match found {
            "FROM" => "Give it as the option \"from\", and what joins the two in where_clause: set_clause => 'a = l.b', where_clause => 'l.id = orders.ref', options => '{\"from\": \"lookup l\"}'. Rows without a partner stay as they are.",
            "RETURNING" => "Leave it out: a batch returns nothing. backfill.preview shows what rows become.",
            _ => "Put conditions into where_clause, and other tables into subqueries: 'a = (SELECT b FROM lookup WHERE lookup.id = orders.ref)'.",
        })
}

/// Parses `prefix` + `clause`. Returns the only statement, or null if there is not exactly one, in the current memory context.
/// The position of a syntax error is counted in the clause.
pub(super) fn parse(prefix: &str, clause: &str, hint: &str) -> Result<*mut pg_sys::Node> {
    confine::require()?;
    let text = to_server(&format!("{prefix}{clause}"))?;
    // SAFETY: the parser reads the text, which ends with a zero, and nothing else: it needs no transaction, and
    // holds nothing that an error would leave behind. In this mode it returns a list of statements.
    let parsed = capture(|| unsafe {
        let mode = pg_sys::RawParseMode::RAW_PARSE_DEFAULT;
        let statements = pg_sys::raw_parser(text.as_ptr(), mode);
        let only = list::only::<pg_sys::RawStmt>(statements);
        Ok(only.map_or(std::ptr::null_mut(), |raw| (*raw).stmt))
    });
    parsed.map_err(|mut error| {
        if let Some(position) = &mut error.position {
            position.character = (position.character - prefix.chars().count() as i32).max(1);
            position.text = clause.trim_end_matches("\n)").to_owned();
        }
        error.hint(hint)
    })
}

/// Analyses and plans a statement as the current user, without running it, so that unknown columns, wrong types, missing
/// privileges and policies of row security raise an error here. The position of an error is counted in the clause that it is
/// in. Within [`spi::connect`].
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

/// The result of analysing a statement, for as long as it is kept.
pub(super) struct Analysed<'a> {
    source: *mut pg_sys::CachedPlanSource,
    plan: PhantomData<&'a ()>,
}

impl Analysed<'_> {
    /// Returns the queries that the statement became.
    pub fn queries(&self) -> Vec<&pg_sys::Query> {
        // SAFETY: the source is part of a plan that `analysed` frees later, and complete: its list holds queries, which
        // nobody changes.
        unsafe {
            let queries = list::pointers::<pg_sys::Query>((*self.source).query_list).into_iter();
            queries.map(|query| &*query).collect()
        }
    }

    /// Returns the relations that the statement uses.
    fn relations(&self) -> Vec<pg_sys::Oid> {
        // SAFETY: as above; the list holds OIDs.
        unsafe { list::oids((*self.source).relationOids) }
    }
}

/// Casts a query to a node, for functions that only read it.
fn node(query: &pg_sys::Query) -> *mut pg_sys::Node {
    std::ptr::from_ref(query).cast_mut().cast()
}

/// Analyses a statement as the current user, and calls `f` with each result. Nothing is run or planned.
pub(super) fn analysed(statement: &str, mut f: impl FnMut(&Analysed)) -> Result<()> {
    confine::require()?;
    let text = to_server(statement)?;
    // SAFETY: SPI returns an error where it is not connected. The text is copied. The plan is used by nobody else and lives
    // until it is freed here (or with SPI's memory, if an error leaves this function), and its sources live as long.
    settings::with(&[STANDARD_STRINGS], || unsafe {
        let plan = pg_sys::SPI_prepare(text.as_ptr(), 0, std::ptr::null_mut());
        if plan.is_null() {
            return Err(Error::internal("cannot analyse the clauses"));
        }
        for source in list::pointers(pg_sys::SPI_plan_get_plan_sources(plan)) {
            f(&Analysed {
                source,
                plan: PhantomData,
            });
        }
        pg_sys::SPI_freeplan(plan);
        Ok(())
    })
}

/// Whether a WHERE clause depends on anything besides the row: the time, the session, other rows, or any function that is not
/// immutable. `from` is the text after FROM. As the current user, within [`spi::connect`]; nothing is run or planned.
pub fn depends_on_more(from: &str, where_clause: &str) -> Result<bool> {
    let mut more = false;
    let statement = format!("SELECT FROM {from} WHERE (\n{where_clause}\n)");
    analysed(&statement, |it| {
        // SAFETY: the function walks over the query, which is whole, and changes nothing.
        let mutable =
            |query: &pg_sys::Query| unsafe { pg_sys::contain_mutable_functions(node(query)) };
        let depends = |query: &pg_sys::Query| query.hasSubLinks || mutable(query);
        more |= it.queries().into_iter().any(depends);
    })?;
    Ok(more)
}

/// Whether a statement calls a VOLATILE function. As the current user, within [`spi::connect`]; nothing is run
/// or planned.
pub fn is_volatile(statement: &str) -> Result<bool> {
    let mut found = false;
    analysed(statement, |it| {
        // SAFETY: the function walks over the query, which is whole, and changes nothing.
        let volatile =
            |query: &pg_sys::Query| unsafe { pg_sys::contain_volatile_functions(node(query)) };
        found |= it.queries().into_iter().any(volatile);
    })?;
    Ok(found)
}

/// Functions, besides `current_timestamp` and the like, whose result changes with the time, the transaction or the session.
const OF_THE_MOMENT: &[u32] = &[
    pg_sys::F_NOW,
    pg_sys::F_TRANSACTION_TIMESTAMP,
    pg_sys::F_STATEMENT_TIMESTAMP,
    pg_sys::F_TXID_CURRENT,
    pg_sys::F_PG_CURRENT_XACT_ID,
    pg_sys::F_PG_BACKEND_PID,
];

/// Whether a statement asks for the time, the transaction ID or the session's PID. As the current user, within [`spi::connect`];
/// nothing is run or planned.
pub fn is_of_the_moment(statement: &str) -> Result<bool> {
    // `op` of current_date, current_time, current_timestamp, localtime, localtimestamp: 0 to 8 of SQLValueFunctionOp.
    let values = (0..=8).map(|op| format!("{{SQLVALUEFUNCTION :op {op} "));
    let calls = OF_THE_MOMENT
        .iter()
        .map(|oid| format!("{{FUNCEXPR :funcid {oid} "));
    let signs: Vec<String> = values.chain(calls).collect();
    let mut found = false;
    analysed(statement, |it| {
        for query in it.queries() {
            // The query tree as text, in which constants are printed as bytes, so none of them can match by chance.
            // SAFETY: the query is whole, and only read. Its text ends with a zero, and stays in the current memory context, which
            // is SPI's.
            let text = unsafe { CStr::from_ptr(pg_sys::nodeToString(node(query).cast())) };
            let text = String::from_utf8_lossy(text.to_bytes());
            found |= signs.iter().any(|sign| text.contains(sign));
        }
    })?;
    Ok(found)
}

/// Returns the name of a temporary table, view or sequence that the statement uses, if any: a worker has temporary objects of
/// its own, or would use a permanent one of that name. As the current user, within [`spi::connect`]; nothing is run or planned.
pub fn temporary_used(statement: &str) -> Result<Option<String>> {
    let mut found = None;
    server::require_transaction();
    analysed(statement, |it| {
        // SAFETY: within a transaction, any OID will do where the relation is locked, as the relations of an analysed
        // statement are.
        let temporary = |oid: &pg_sys::Oid| unsafe {
            pg_sys::get_rel_persistence(*oid) == pg_sys::RELPERSISTENCE_TEMP as std::ffi::c_char
        };
        if let Some(oid) = it.relations().into_iter().find(temporary) {
            // SAFETY: as above; the name is a copy, or null.
            found = unsafe { lossy(pg_sys::get_rel_name(oid)) };
        }
    })?;
    Ok(found)
}

/// Returns the numbers of the columns that an UPDATE sets or reads in its target, or that a SELECT reads of the first relation
/// in its FROM. As the current user, within [`spi::connect`]; nothing is run or planned.
pub fn columns_used(statement: &str) -> Result<Vec<i16>> {
    let (mut used, written) = read_and_set(statement)?;
    used.extend(written);
    Ok(used)
}

/// Returns the numbers of the columns that an UPDATE reads of its target (0 for the row as a whole), and of those that it sets.
/// As the current user, within [`spi::connect`]; nothing is run or planned.
pub fn read_and_set(statement: &str) -> Result<(Vec<i16>, Vec<i16>)> {
    let (mut read, mut set) = (Vec::new(), Vec::new());
    analysed(statement, |it| {
        for query in it.queries() {
            let columns = columns_of_target(query);
            read.extend(columns.0);
            set.extend(columns.1);
        }
    })?;
    Ok((read, set))
}

/// Returns the columns of the query's target that need the privilege SELECT, and those that need UPDATE. Empty if it has no relation.
fn columns_of_target(query: &pg_sys::Query) -> (Vec<i16>, Vec<i16>) {
    // SAFETY: the list holds range table entries; an UPDATE's target is one of them, by its number from 1. The sets of its
    // columns are null or whole.
    unsafe {
        let tables = list::pointers::<pg_sys::RangeTblEntry>(query.rtable);
        let Some(target) = tables.get(query.resultRelation.max(1) as usize - 1) else {
            return Default::default();
        };
        let target = *target;
        #[cfg(feature = "pg15")]
        let (read, written) = ((*target).selectedCols, (*target).updatedCols);
        #[cfg(not(feature = "pg15"))]
        if (*target).perminfoindex == 0 {
            // It is no relation.
            return Default::default();
        }
        #[cfg(not(feature = "pg15"))]
        let (read, written) = {
            let rights = pg_sys::getRTEPermissionInfo(query.rteperminfos, target);
            ((*rights).selectedCols, (*rights).updatedCols)
        };
        (members(read), members(written))
    }
}

/// Returns the numbers of the columns in a set that counts from the first system column.
///
/// # Safety
/// `set` must be null, which is the empty set, or one of PostgreSQL's.
pub(super) unsafe fn members(set: *const pg_sys::Bitmapset) -> Vec<i16> {
    // SAFETY: as the caller promises. Each call returns a higher number, or a negative one at the end.
    let after = |member: i32| unsafe { pg_sys::bms_next_member(set, member) };
    std::iter::successors(Some(after(-1)), |member| Some(after(*member)))
        .take_while(|member| *member >= 0)
        .map(|member| (member + pg_sys::FirstLowInvalidHeapAttributeNumber) as i16)
        .collect()
}

/// Returns how many rows the planner expects to match. As the current user, within [`spi::connect`].
pub fn estimate_matches(from: &str, where_clause: &str) -> Result<Option<f64>> {
    let explain = format!("EXPLAIN (FORMAT JSON) SELECT FROM {from} WHERE (\n{where_clause}\n)");
    let Some(row) = settings::with(&[STANDARD_STRINGS], || spi::first(&explain, &[]))? else {
        return Ok(None);
    };
    let plan: serde_json::Value = serde_json::from_str(row.text(0)?)
        .map_err(|e| Error::internal(format!("EXPLAIN gave no JSON: {e}")))?;
    Ok(plan[0]["Plan"]["Plan Rows"].as_f64())
}

/// Whether the planner proves, from the table's constraints and the bounds of its partition, that no row of it matches. As the current user,
/// within [`spi::connect`]; nothing is run.
pub fn is_excluded(from: &str, where_clause: &str) -> Result<bool> {
    const ALL_CONSTRAINTS: (&CStr, &CStr) = (c"constraint_exclusion", c"on");
    let explain =
        format!("EXPLAIN (FORMAT JSON, COSTS off) SELECT FROM {from} WHERE (\n{where_clause}\n)");
    let found = settings::with(&[STANDARD_STRINGS, ALL_CONSTRAINTS], || {
        spi::first(&explain, &[])
    })?;
    let Some(row) = found else {
        return Ok(false);
    };
    let plan: serde_json::Value = serde_json::from_str(row.text(0)?)
        .map_err(|e| Error::internal(format!("EXPLAIN gave no JSON: {e}")))?;
    let plan = &plan[0]["Plan"];
    Ok(plan["Node Type"] == "Result" && plan["One-Time Filter"] == "false")
}

/// Finds the clause that contains the character, and the position in it. The clauses occur in `text` in the given order.
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
