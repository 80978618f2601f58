//! Evaluates the effect of an UPDATE on rows without performing it.
//!
//! PostgreSQL analyses the UPDATE as it is: privileges, defaults, casts to the types of the columns. The resulting query is turned
//! into a SELECT of the rows as they would be, and run where nothing may be written. The executor's own function checks each row
//! against the table's constraints. Triggers do not fire, and unique and foreign keys are not checked.

use std::ffi::{CStr, c_void};

use pgrx::PgTupleDesc;
use pgrx::pg_sys::{self, Datum, Oid};

use super::arg::{Arg, CANONICAL};
use super::capture::capture;
use super::heap::{self, Tid};
use super::memory::Memory;
use super::open::Open;
use super::text::beginning;
use super::{confine, list, server, settings, spi, visible};
use crate::error::{Error, Result};

// Missing from the bindings of pgrx; the server exports both for extensions.
unsafe extern "C-unwind" {
    fn ExecComputeStoredGenerated(
        result: *mut pg_sys::ResultRelInfo,
        estate: *mut pg_sys::EState,
        slot: *mut pg_sys::TupleTableSlot,
        command: pg_sys::CmdType::Type,
    );
    fn datum_image_eq(one: Datum, other: Datum, by_value: bool, length: i32) -> bool;
}

/// A row, as it is and as the UPDATE would leave it. `'a` is the time for which the executor keeps it.
pub struct Change<'a> {
    /// The columns of the table.
    columns: &'a PgTupleDesc<'a>,
    /// The columns of the SELECT: all columns of the table with their new values, then the columns that are set with their old values,
    /// then the ctid.
    before: Values<'a>,
    /// All columns of the table with their new values, generated ones included.
    after: Values<'a>,
    /// Numbers of the columns that are set.
    set: &'a [i16],
}

/// The columns of a row in the executor's memory.
#[derive(Clone, Copy)]
struct Values<'a> {
    values: &'a [Datum],
    nulls: &'a [bool],
}

impl Values<'_> {
    /// # Safety
    /// `slot` must be one of the executor's in which all columns are unpacked, and stay so for `'a`.
    unsafe fn of<'a>(slot: *mut pg_sys::TupleTableSlot) -> Values<'a> {
        // SAFETY: as the caller promises: a slot has as many values and null flags as its row type has columns.
        unsafe {
            let columns = (*(*slot).tts_tupleDescriptor).natts as usize;
            Values {
                values: std::slice::from_raw_parts((*slot).tts_values, columns),
                nulls: std::slice::from_raw_parts((*slot).tts_isnull, columns),
            }
        }
    }

    /// Returns a column's value; columns are counted from 0. `None` stands for NULL.
    fn get(&self, column: usize) -> Option<Datum> {
        (!self.nulls[column]).then(|| self.values[column])
    }
}

impl Change<'_> {
    /// Whether the UPDATE would change the value of any column. Values are compared byte by byte.
    pub fn differs(&self) -> bool {
        self.set.iter().any(|number| {
            let attribute = attribute(self.columns, *number);
            let (before, after) = (self.value(*number, true), self.value(*number, false));
            match (before, after) {
                (Some(before), Some(after)) => {
                    let (by_value, length) = (attribute.attbyval, i32::from(attribute.attlen));
                    // SAFETY: both are values of the column's type, which is passed in this way, and not NULL. An error
                    // becomes a panic at the boundary, with nothing to be dropped before it.
                    !unsafe {
                        pg_sys::ffi::pg_guard_ffi_boundary(|| {
                            datum_image_eq(before, after, by_value, length)
                        })
                    }
                }
                (before, after) => before.is_some() != after.is_some(),
            }
        })
    }

    /// Returns the number of the table's columns, dropped ones included.
    pub(super) fn width(&self) -> i16 {
        self.columns.len() as i16
    }

    /// Returns the description of a column of the table.
    pub(super) fn attribute(&self, number: i16) -> &pg_sys::FormData_pg_attribute {
        attribute(self.columns, number)
    }

    /// Returns the numbers of the columns that are set.
    pub fn set(&self) -> &[i16] {
        self.set
    }

    /// Returns a column's old value in a text form that does not depend on settings, cut to its beginning if it is longer than `most`
    /// bytes.
    pub fn before(&self, number: i16, most: usize) -> Result<Option<String>> {
        self.shown(number, true, most)
    }

    /// Returns a column's new value in the same form.
    pub fn after(&self, number: i16, most: usize) -> Result<Option<String>> {
        self.shown(number, false, most)
    }

    /// Returns the place (ctid) of the row.
    pub fn place(&self) -> Option<Tid> {
        let place = self.before.get(self.columns.len() + self.set.len());
        // SAFETY: `select_instead` put the ctid there, which is a tid.
        place.map(|place| unsafe { heap::tid(place) })
    }

    /// Returns a column's old or new value, of the column's type.
    pub(super) fn value(&self, number: i16, before: bool) -> Option<Datum> {
        let own = usize::from(number.unsigned_abs()).wrapping_sub(1);
        assert!(own < self.columns.len(), "a column of the table's");
        match self.set.iter().position(|set| *set == number) {
            Some(n) if before => self.before.get(self.columns.len() + n),
            // A column that is not set keeps its value.
            _ => self.after.get(own),
        }
    }

    fn shown(&self, number: i16, before: bool, most: usize) -> Result<Option<String>> {
        let Some(value) = self.value(number, before) else {
            return Ok(None);
        };
        // SAFETY: within a transaction, as the executor is. The type's own output function takes its values, and returns a
        // zero-terminated string, which is copied.
        settings::with(CANONICAL, || unsafe {
            let (mut output, mut varlena) = (Oid::INVALID, false);
            let type_oid = attribute(self.columns, number).atttypid;
            pg_sys::getTypeOutputInfo(type_oid, &mut output, &mut varlena);
            Ok(beginning(
                pg_sys::OidOutputFunctionCall(output, value),
                most,
            ))
        })
    }
}

/// Returns the description of a column of the table; columns are counted from 1.
fn attribute<'a>(columns: &'a PgTupleDesc, number: i16) -> &'a pg_sys::FormData_pg_attribute {
    let found = usize::try_from(number - 1)
        .ok()
        .and_then(|n| columns.get(n));
    found.expect("a column of the table's")
}

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
    unsafe { memory.within(|| spi::undone(f)) }
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

type Visitor<'a> = &'a mut dyn FnMut(&Change) -> Result<()>;

/// Destination for the rows of the executor, which knows the first field only.
#[repr(C)]
struct Receiver<'a> {
    base: pg_sys::DestReceiver,
    table: pg_sys::Relation,
    columns: &'a PgTupleDesc<'a>,
    set: &'a [i16],
    f: Visitor<'a>,
    estate: *mut pg_sys::EState,
    result: *mut pg_sys::ResultRelInfo,
    after: *mut pg_sys::TupleTableSlot,
    error: Option<Error>,
}

impl<'a> Receiver<'a> {
    fn new(
        table: pg_sys::Relation,
        columns: &'a PgTupleDesc<'a>,
        set: &'a [i16],
        f: Visitor<'a>,
    ) -> Receiver<'a> {
        Receiver {
            base: pg_sys::DestReceiver {
                receiveSlot: Some(receive),
                rStartup: Some(start_up),
                rShutdown: Some(shut_down),
                rDestroy: Some(shut_down),
                mydest: pg_sys::CommandDest::DestNone,
            },
            table,
            columns,
            set,
            f,
            estate: std::ptr::null_mut(),
            result: std::ptr::null_mut(),
            after: std::ptr::null_mut(),
            error: None,
        }
    }

    /// Sets up what the executor's functions need to know about the table, once the executor has begun.
    ///
    /// # Safety
    /// `desc` must be the query that was begun; it must stay so, and the table open, until the last call of `row`.
    unsafe fn begin(&mut self, desc: *mut pg_sys::QueryDesc, target: i32) {
        // SAFETY: as the caller promises. The struct is zeroed memory of its size, with its tag, as makeNode() would return it, and
        // is then initialised by the executor's own function.
        unsafe {
            self.estate = (*desc).estate;
            let size = size_of::<pg_sys::ResultRelInfo>();
            self.result = pg_sys::palloc0(size).cast();
            (*self.result).type_ = pg_sys::NodeTag::T_ResultRelInfo;
            let none = std::ptr::null_mut();
            pg_sys::InitResultRelInfo(self.result, self.table, target as u32, none, 0);
            self.after = pg_sys::MakeSingleTupleTableSlot(
                (*self.table).rd_att,
                &raw const pg_sys::TTSOpsVirtual,
            );
        }
    }

    /// # Safety
    /// Only after `begin`, with a row of the SELECT that `select_instead` made.
    unsafe fn row(&mut self, slot: *mut pg_sys::TupleTableSlot) -> Result<()> {
        // SAFETY: as the caller promises: the row begins with as many columns as the table has, of their types, and the slot for
        // the new row has room for as many. Their values stay where they are until the executor goes on, which it does after
        // this. `begin` has set up what the executor's functions need: their results go into the slot, and their errors become
        // panics.
        unsafe {
            pg_sys::slot_getallattrs(slot);
            let description = (*self.table).rd_att;
            let columns = self.columns.len();
            let after = self.after;
            pg_sys::ExecClearTuple(after);
            std::ptr::copy_nonoverlapping((*slot).tts_values, (*after).tts_values, columns);
            std::ptr::copy_nonoverlapping((*slot).tts_isnull, (*after).tts_isnull, columns);
            pg_sys::ExecStoreVirtualTuple(after);
            (*after).tts_tableOid = (*self.table).rd_id;
            if let Some(constraints) = (*description).constr.as_ref() {
                if constraints.has_generated_stored {
                    let (result, estate) = (self.result, self.estate);
                    pg_sys::ffi::pg_guard_ffi_boundary(|| {
                        let update = pg_sys::CmdType::CMD_UPDATE;
                        ExecComputeStoredGenerated(result, estate, after, update);
                    });
                }
                pg_sys::ExecConstraints(self.result, after, self.estate);
            }
            if (*(*self.table).rd_rel).relispartition {
                pg_sys::ExecPartitionCheck(self.result, after, self.estate, true);
            }
            (self.f)(&Change {
                columns: self.columns,
                before: Values::of(slot),
                after: Values::of(after),
                set: self.set,
            })
        }
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn receive(
    slot: *mut pg_sys::TupleTableSlot,
    receiver: *mut pg_sys::DestReceiver,
) -> bool {
    // SAFETY: the receiver is the one made by `changes`; it begins with a DestReceiver, and `changes` uses it through this
    // pointer only, and not while the query runs. Rows come after `begin`.
    unsafe {
        let receiver = &mut *receiver.cast::<c_void>().cast::<Receiver>();
        receiver.error = capture(|| receiver.row(slot)).err();
        receiver.error.is_none()
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn start_up(
    _receiver: *mut pg_sys::DestReceiver,
    _operation: i32,
    _description: pg_sys::TupleDesc,
) {
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn shut_down(_receiver: *mut pg_sys::DestReceiver) {}
