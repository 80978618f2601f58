//! Evaluates the effect of an UPDATE on rows without performing it.
//!
//! PostgreSQL analyses the UPDATE as it is: privileges, defaults, casts to the types of the columns. The resulting query is turned
//! into a SELECT of the rows as they would be, and run where nothing may be written. The executor's own function checks each row
//! against the table's constraints. Triggers do not fire, and unique and foreign keys are not checked.

mod change;
mod receiver;

use std::ffi::CStr;

use pgrx::PgTupleDesc;
use pgrx::pg_sys::{self, Oid};

use super::arg::Arg;
use super::memory::Memory;
use super::open::Open;
use super::settings::{self, CANONICAL};
use super::{confine, list, server, subtransaction, visible};
use crate::error::{Error, Result};

pub use self::change::Change;
use self::change::attribute;
use self::receiver::Receiver;

/// The part of a row that the caller looks at, besides what the UPDATE itself reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The columns that are set, with their old values.
    Set,
    /// All columns.
    Whole,
}

/// Runs `f`, which evaluates rows, and undoes everything it does. The memory that it allocates is freed at once, not only when the
/// transaction ends.
pub fn undone<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    let memory = Memory::new(c"backfill rows");
    // SAFETY: the subtransaction begins and ends within: the context from before belongs to what is around it. The value that `f`
    // returns is Rust's.
    unsafe { memory.within(|| subtransaction::undone(f)) }
}

/// Evaluates an UPDATE of one table, and calls `f` with each row that it would change, if the current user has SELECT on the columns
/// looked at. The caller has locked the table. An error of the clauses or of a constraint is returned as the statement would raise
/// it; the caller then has to abort the (sub)transaction. Within an active snapshot.
pub fn changes(
    relation: Oid,
    update: &CStr,
    args: &[Arg],
    seen: Seen,
    mut f: impl FnMut(&Change) -> Result<()>,
) -> Result<()> {
    confine::require()?;
    server::require_transaction();
    let mut types: Vec<Oid> = args.iter().map(Arg::oid).collect();
    let params = params(args)?;
    // SAFETY: within a transaction, with the table locked. What is parsed, analysed and planned is handed on unchanged, in the
    // current memory context, with exactly as many parameter types as are counted; `update`, the parameters and the receiver
    // live until the query is freed. A query that fails is not freed: it belongs to the memory of the transaction, and the
    // abort ends what it uses.
    unsafe {
        let raw = pg_sys::pg_parse_query(update.as_ptr());
        let Some(raw) = list::only::<pg_sys::RawStmt>(raw) else {
            return Err(Error::internal("an UPDATE is not one statement"));
        };
        // Analysing and planning run code, too.
        let queries = read_only(|| {
            pg_sys::pg_analyze_and_rewrite_fixedparams(
                raw,
                update.as_ptr(),
                types.as_mut_ptr(),
                types.len() as i32,
                std::ptr::null_mut(),
            )
        });
        let Some(query) = list::only::<pg_sys::Query>(queries) else {
            return Err(Error::internal("an UPDATE became several statements"));
        };
        let target = (*query).resultRelation;
        if (*query).commandType != pg_sys::CmdType::CMD_UPDATE {
            return Err(Error::internal("not an UPDATE"));
        }
        let open = Open::locked(relation);
        let table = open.as_ptr();
        let columns = PgTupleDesc::from_pg_unchecked((*table).rd_att);
        let set = select_instead(query, &columns);
        match seen {
            Seen::Set => visible::require(relation, set.iter().copied())?,
            Seen::Whole => visible::require(relation, kept(&columns))?,
        }
        let plan = read_only(|| pg_sys::pg_plan_query(query, update.as_ptr(), 0, params));
        let mut receiver = Receiver::new(table, &columns, &set, &mut f);
        // The executor holds the receiver, too: from here on it is used through this pointer only.
        let receiver = &raw mut receiver;
        let desc = pg_sys::CreateQueryDesc(
            plan,
            update.as_ptr(),
            pg_sys::GetActiveSnapshot(),
            std::ptr::null_mut(),
            receiver.cast(),
            params,
            std::ptr::null_mut(),
            0,
        );
        // A read-only transaction would refuse the write privileges, which are to be checked here. Nothing runs yet.
        let before = std::ptr::replace(&raw mut pg_sys::XactReadOnly, false);
        pg_sys::ExecutorStart(desc, 0);
        pg_sys::XactReadOnly = before;
        (*receiver).begin(desc, target);
        read_only(|| run(desc));
        if let Some(error) = (*receiver).error.take() {
            // The abort cleans up the rest, including the relation: the error may have come from anywhere.
            std::mem::forget(open);
            return Err(error);
        }
        pg_sys::ExecDropSingleTupleTableSlot((*receiver).after);
        pg_sys::ExecutorFinish(desc);
        pg_sys::ExecutorEnd(desc);
        pg_sys::FreeQueryDesc(desc);
    }
    Ok(())
}

/// Runs `f` where nothing may be written, not even by users' functions. After an error, the end of the (sub)transaction restores
/// the previous state.
pub fn read_only<T>(f: impl FnOnce() -> T) -> T {
    // SAFETY: a variable of this process, which belongs to the transaction, and which an abort resets.
    let before = unsafe { std::ptr::replace(&raw mut pg_sys::XactReadOnly, true) };
    let value = f();
    // SAFETY: as above.
    unsafe { pg_sys::XactReadOnly = before };
    value
}

/// # Safety
/// `desc` must be a query that was begun and not run yet.
unsafe fn run(desc: *mut pg_sys::QueryDesc) {
    let forward = pg_sys::ScanDirection::ForwardScanDirection;
    // SAFETY: as the caller promises; 0 stands for all rows.
    unsafe {
        #[cfg(feature = "pg18")]
        pg_sys::ExecutorRun(desc, forward, 0);
        #[cfg(not(feature = "pg18"))]
        pg_sys::ExecutorRun(desc, forward, 0, true);
    }
}

/// Returns the values to bind to the parameters, in the current memory context.
fn params(args: &[Arg]) -> Result<pg_sys::ParamListInfo> {
    let values = settings::with(CANONICAL, || {
        args.iter().map(Arg::datum).collect::<Result<Vec<_>>>()
    })?;
    // SAFETY: the list is made for exactly as many parameters as are filled in, each with a value of its type.
    unsafe {
        let list = pg_sys::makeParamList(args.len() as i32);
        for (n, (arg, value)) in args.iter().zip(values).enumerate() {
            let param = &mut *(*list).params.as_mut_ptr().add(n);
            param.value = value;
            param.isnull = matches!(arg, Arg::Null(_));
            param.pflags = pg_sys::PARAM_FLAG_CONST as u16;
            param.ptype = arg.oid();
        }
        Ok(list)
    }
}

/// Turns an analysed UPDATE into a SELECT of all columns with their new values, of the columns that are set with their old values,
/// and of the ctid. Returns the numbers of the columns that are set.
///
/// # Safety
/// `query` must be an analysed UPDATE of the table that the columns belong to, and used by nobody else.
unsafe fn select_instead(query: *mut pg_sys::Query, columns: &PgTupleDesc) -> Vec<i16> {
    // SAFETY: as the caller promises: the target list holds target entries, none of them null, and the expressions in it
    // are moved, not copied, to the list that replaces it.
    unsafe {
        let target = (*query).resultRelation;
        let assigned = list::pointers::<pg_sys::TargetEntry>((*query).targetList);
        let of = |number: i16| {
            let mut entries = assigned.iter();
            entries.find(|entry| !(***entry).resjunk && (***entry).resno == number)
        };
        let mut entries = Vec::new();
        let mut set = Vec::new();
        for number in 1..=columns.len() as i16 {
            let entry = of(number);
            set.extend(entry.map(|_| number));
            entries.push(match entry {
                Some(entry) => (**entry).expr,
                None => column(target, columns, number),
            });
        }
        entries.extend(set.iter().map(|number| column(target, columns, *number)));
        let ctid = pg_sys::SelfItemPointerAttributeNumber as i16;
        let (tid, none) = (pg_sys::TIDOID, Oid::INVALID);
        entries.push(pg_sys::makeVar(target, ctid, tid, -1, none, 0).cast());
        // Assignments of several columns at once compute their values in the junk entries.
        let shown = entries.len();
        let junk = assigned.iter().filter(|entry| (***entry).resjunk);
        entries.extend(junk.map(|entry| (**entry).expr));
        (*query).commandType = pg_sys::CmdType::CMD_SELECT;
        (*query).resultRelation = 0;
        (*query).targetList = list::of(entries.into_iter().enumerate().map(|(n, expression)| {
            let no_name = std::ptr::null_mut();
            pg_sys::makeTargetEntry(expression, n as i16 + 1, no_name, n >= shown)
        }));
        set
    }
}

/// Returns the columns that store values of their own.
fn kept(columns: &PgTupleDesc) -> impl Iterator<Item = i16> {
    let is_kept = |number: &i16| {
        let it = attribute(columns, *number);
        !it.attisdropped && it.attgenerated != b'v' as std::ffi::c_char
    };
    (1..=columns.len() as i16).filter(is_kept)
}

/// Returns a column's old value as an expression; NULL for a column that stores no value of its own.
fn column(target: i32, columns: &PgTupleDesc, number: i16) -> *mut pg_sys::Expr {
    let it = attribute(columns, number);
    // SAFETY: makes nodes out of numbers, in the current memory context. The types of a table's columns, and int4, exist; a
    // NULL of a type is looked up in the catalogs, which happens within a transaction.
    unsafe {
        if it.attisdropped {
            return pg_sys::makeNullConst(pg_sys::INT4OID, -1, Oid::INVALID).cast();
        }
        let (type_oid, typmod, collation) = (it.atttypid, it.atttypmod, it.attcollation);
        if it.attgenerated == b'v' as std::ffi::c_char {
            return pg_sys::makeNullConst(type_oid, typmod, collation).cast();
        }
        pg_sys::makeVar(target, number, type_oid, typmod, collation, 0).cast()
    }
}
