//! What an UPDATE would make of rows, without making it.
//!
//! PostgreSQL analyses the UPDATE as it is: rights, defaults, casts to the types of the columns. What comes of
//! that is turned into a SELECT of the rows as they would be, and run where nothing may be written. Each row is
//! put to the test of the table's constraints by the executor's own function. Triggers do not fire, and
//! unique and foreign keys are not looked at.

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

// Not among pgrx' bindings; both are exported by the server for extensions.
unsafe extern "C-unwind" {
    fn ExecComputeStoredGenerated(
        result: *mut pg_sys::ResultRelInfo,
        estate: *mut pg_sys::EState,
        slot: *mut pg_sys::TupleTableSlot,
        command: pg_sys::CmdType::Type,
    );
    fn datum_image_eq(one: Datum, other: Datum, by_value: bool, length: i32) -> bool;
}

/// A row, as it is and as the UPDATE would leave it. `'a` is how long the executor keeps it.
pub struct Change<'a> {
    /// The columns of the table.
    columns: &'a PgTupleDesc<'a>,
    /// Those of the SELECT: the table's as they would be, those that are set as they are, and the place.
    before: Values<'a>,
    /// The table's columns as they would be, computed ones too.
    after: Values<'a>,
    /// The columns that are set.
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
        // SAFETY: as the caller promises: a slot has as many values and marks of NULL as its row type has columns.
        unsafe {
            let columns = (*(*slot).tts_tupleDescriptor).natts as usize;
            Values {
                values: std::slice::from_raw_parts((*slot).tts_values, columns),
                nulls: std::slice::from_raw_parts((*slot).tts_isnull, columns),
            }
        }
    }

    /// A column, counted from 0; NULL is `None`.
    fn get(&self, column: usize) -> Option<Datum> {
        (!self.nulls[column]).then(|| self.values[column])
    }
}

impl Change<'_> {
    /// Whether any column would have another value than before, byte by byte.
    pub fn differs(&self) -> bool {
        self.set.iter().any(|number| {
            let attribute = attribute(self.columns, *number);
            let (before, after) = (self.value(*number, true), self.value(*number, false));
            match (before, after) {
                (Some(before), Some(after)) => {
                    let (by_value, length) = (attribute.attbyval, i32::from(attribute.attlen));
                    // SAFETY: both are values of the column's type, which is passed like that, and not NULL.
                    // An error becomes a panic at the boundary, with nothing to be dropped before it.
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

    /// How many columns the table has, those included that were dropped.
    pub(super) fn width(&self) -> i16 {
        self.columns.len() as i16
    }

    /// A column of the table's.
    pub(super) fn attribute(&self, number: i16) -> &pg_sys::FormData_pg_attribute {
        attribute(self.columns, number)
    }

    /// The columns that are set, by their numbers.
    pub fn set(&self) -> &[i16] {
        self.set
    }

    /// The value of a column before, in text form that does not depend on settings: the beginning of one that is longer than
    /// `most` bytes.
    pub fn before(&self, number: i16, most: usize) -> Result<Option<String>> {
        self.shown(number, true, most)
    }

    /// The same for its value after.
    pub fn after(&self, number: i16, most: usize) -> Result<Option<String>> {
        self.shown(number, false, most)
    }

    /// Where the row is.
    pub fn place(&self) -> Option<Tid> {
        let place = self.before.get(self.columns.len() + self.set.len());
        // SAFETY: `select_instead` has put the ctid there, which is a tid.
        place.map(|place| unsafe { heap::tid(place) })
    }

    /// The value of a column of the table's, of its type.
    pub(super) fn value(&self, number: i16, before: bool) -> Option<Datum> {
        let own = usize::from(number.unsigned_abs()).wrapping_sub(1);
        assert!(own < self.columns.len(), "a column of the table's");
        match self.set.iter().position(|set| *set == number) {
            Some(n) if before => self.before.get(self.columns.len() + n),
            // What is not set is the same.
            _ => self.after.get(own),
        }
    }

    fn shown(&self, number: i16, before: bool, most: usize) -> Result<Option<String>> {
        let Some(value) = self.value(number, before) else {
            return Ok(None);
        };
        // SAFETY: within a transaction, as the executor is. The type's own output function takes its values, and
        // gives a string that ends with a zero, of which a copy is made.
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

/// A column of the table's; columns are counted from 1.
fn attribute<'a>(columns: &'a PgTupleDesc, number: i16) -> &'a pg_sys::FormData_pg_attribute {
    let found = usize::try_from(number - 1)
        .ok()
        .and_then(|n| columns.get(n));
    found.expect("a column of the table's")
}

/// What of a row is looked at, besides what the UPDATE itself reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The columns that are set, as they are.
    Set,
    /// All columns.
    Whole,
}

/// Runs `f`, which evaluates rows, and undoes whatever it does. The memory that it takes is free afterwards, and not only when
/// the transaction ends.
pub fn undone<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    let memory = Memory::new(c"backfill rows");
    // SAFETY: the subtransaction begins and ends within: the context from before belongs to what is around it. What `f` gives is
    // of Rust's.
    unsafe { memory.within(|| spi::undone(f)) }
}

/// Evaluates an UPDATE of one table, and shows each row that it would change to `f`, if the current user may SELECT what is
/// looked at. The table is locked by the caller. An error of the clauses, or of a constraint, is the statement's; the transaction, or the subtransaction,
/// has to be aborted then. Within an active snapshot.
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
    // SAFETY: within a transaction, with the table locked. What is parsed, analysed and planned is handed on as it
    // came, in the current memory context, with as many types of parameters as are counted; `update`, the
    // parameters and the receiver live until the query is freed. A query that fails is not
    // freed: it belongs to the memory of the transaction, and the abort ends what it uses.
    unsafe {
        let raw = pg_sys::pg_parse_query(update.as_ptr());
        let Some(raw) = list::only::<pg_sys::RawStmt>(raw) else {
            return Err(Error::internal("an UPDATE is not one statement"));
        };
        // What is analysed and planned runs code, too.
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
        // The executor holds it, too: from here on it is used through this pointer only.
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
        // It would refuse rights to write, which are asked for here, and runs nothing yet.
        let before = std::ptr::replace(&raw mut pg_sys::XactReadOnly, false);
        pg_sys::ExecutorStart(desc, 0);
        pg_sys::XactReadOnly = before;
        (*receiver).begin(desc, target);
        read_only(|| run(desc));
        if let Some(error) = (*receiver).error.take() {
            // What is left is the abort's to clean up, the relation as well: the error may have come out of anything.
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

/// Runs `f` where nothing may be written, not by functions of users' either. After an error, the end of the
/// transaction (or the subtransaction) puts that back.
pub fn read_only<T>(f: impl FnOnce() -> T) -> T {
    // SAFETY: a variable of this process, which belongs to the transaction, and which an abort sets back.
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

/// What is bound to the parameters, in the current memory context.
fn params(args: &[Arg]) -> Result<pg_sys::ParamListInfo> {
    let values = settings::with(CANONICAL, || {
        args.iter().map(Arg::datum).collect::<Result<Vec<_>>>()
    })?;
    // SAFETY: the list is made with as many parameters as are filled in, each with a value of its type.
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

/// Turns an analysed UPDATE into a SELECT: of all columns as they would be, of those that are set as they are,
/// and of the row's place. Gives the numbers of the columns that are set.
///
/// # Safety
/// `query` must be an analysed UPDATE of the table that the columns are of, and nobody else's.
unsafe fn select_instead(query: *mut pg_sys::Query, columns: &PgTupleDesc) -> Vec<i16> {
    // SAFETY: as the caller promises: the target list is one of such entries, none of which is null, and the
    // expressions in it are moved, not copied, to the list that takes its place.
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
        // What assigns several columns at once is computed there.
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

/// The columns that have values of their own.
fn kept(columns: &PgTupleDesc) -> impl Iterator<Item = i16> {
    let is_kept = |number: &i16| {
        let it = attribute(columns, *number);
        !it.attisdropped && it.attgenerated != b'v' as std::ffi::c_char
    };
    (1..=columns.len() as i16).filter(is_kept)
}

/// A column as it is; NULL for one that has no value of its own.
fn column(target: i32, columns: &PgTupleDesc, number: i16) -> *mut pg_sys::Expr {
    let it = attribute(columns, number);
    // SAFETY: makes nodes out of numbers, in the current memory context. The types of a table's columns, and int4,
    // exist, which a NULL of a type is looked up in the catalogs for: within a transaction.
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

/// Where the executor sends the rows. The executor knows the first field only.
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

    /// Once the executor has begun: what its functions need to know of the table.
    ///
    /// # Safety
    /// `desc` must be the query that was begun, and the table open, until `row` is called no more.
    unsafe fn begin(&mut self, desc: *mut pg_sys::QueryDesc, target: i32) {
        // SAFETY: as the caller promises. The struct is zeroed memory of its size, with its tag, as makeNode() gives it,
        // and then set up by the executor's own function.
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
    /// After `begin`, with a row of the SELECT that `select_instead` has made.
    unsafe fn row(&mut self, slot: *mut pg_sys::TupleTableSlot) -> Result<()> {
        // SAFETY: as the caller promises: the row begins with as many columns as the table has, of their types, and the
        // slot for the row after has room for as many. Their values stay where they are until the executor goes
        // on, which it does after this. `begin` has set up what the executor's functions need: what they
        // compute goes into the slot, and their errors become panics.
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
    // SAFETY: it is the one that `changes` has made, which begins with a DestReceiver, and uses through this pointer
    // only, and not while the query runs. Rows come after `begin`.
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
