//! What an UPDATE would make of rows, without making it.
//!
//! PostgreSQL analyses the UPDATE as it is: rights, defaults, casts to the types of the columns. What comes of
//! that is turned into a SELECT of the rows as they would be, and run where nothing may be written. Each row is
//! put to the test of the table's constraints by the executor's own function. Triggers do not fire, and
//! unique and foreign keys are not looked at.

use std::ffi::{CStr, c_void};
use std::marker::PhantomData;

use pgrx::pg_sys::{self, Datum, Oid};

use super::arg::{Arg, CANONICAL};
use super::capture::capture;
use super::confine;
use super::heap::{self, Tid};
use super::settings;
use super::text::lossy;
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

/// A row, as it is and as the UPDATE would leave it.
pub struct Change<'a> {
    relation: pg_sys::Relation,
    before: *mut pg_sys::TupleTableSlot,
    after: *mut pg_sys::TupleTableSlot,
    /// The columns that are set.
    set: &'a [i16],
    columns: usize,
    borrowed: PhantomData<&'a ()>,
}

impl Change<'_> {
    /// Whether any column would have another value than before, byte by byte.
    pub fn differs(&self) -> bool {
        self.set.iter().any(|number| unsafe {
            let attribute = attribute(self.relation, *number);
            let (before, after) = (self.value(*number, true), self.value(*number, false));
            match (before, after) {
                (Some(before), Some(after)) => {
                    let (by_value, length) = (attribute.attbyval, i32::from(attribute.attlen));
                    !pg_sys::ffi::pg_guard_ffi_boundary(|| {
                        datum_image_eq(before, after, by_value, length)
                    })
                }
                (before, after) => before.is_some() != after.is_some(),
            }
        })
    }

    /// The columns that are set, by their numbers.
    pub fn set(&self) -> &[i16] {
        self.set
    }

    /// The value of a column before, in text form that does not depend on settings: the beginning of a long one.
    pub fn before(&self, number: i16) -> Result<Option<String>> {
        self.shown(number, true)
    }

    /// The same for its value after.
    pub fn after(&self, number: i16) -> Result<Option<String>> {
        self.shown(number, false)
    }

    /// Where the row is.
    pub fn place(&self) -> Option<Tid> {
        let column = self.columns + self.set.len();
        unsafe {
            let null = *(*self.before).tts_isnull.add(column);
            (!null).then(|| heap::tid(*(*self.before).tts_values.add(column)))
        }
    }

    unsafe fn value(&self, number: i16, before: bool) -> Option<Datum> {
        let own = number as usize - 1;
        let set = self.set.iter().position(|set| *set == number);
        unsafe {
            let (slot, column) = match (before, set) {
                (true, Some(n)) => (self.before, self.columns + n),
                // What is not set is the same.
                (true, None) | (false, _) => (self.after, own),
            };
            (!*(*slot).tts_isnull.add(column)).then(|| *(*slot).tts_values.add(column))
        }
    }

    fn shown(&self, number: i16, before: bool) -> Result<Option<String>> {
        let Some(value) = (unsafe { self.value(number, before) }) else {
            return Ok(None);
        };
        settings::with(CANONICAL, || unsafe {
            let (mut output, mut varlena) = (Oid::INVALID, false);
            let type_oid = attribute(self.relation, number).atttypid;
            pg_sys::getTypeOutputInfo(type_oid, &mut output, &mut varlena);
            Ok(lossy(pg_sys::OidOutputFunctionCall(output, value)))
        })
    }
}

unsafe fn attribute(relation: pg_sys::Relation, number: i16) -> pg_sys::FormData_pg_attribute {
    unsafe {
        let description = pgrx::PgTupleDesc::from_pg_unchecked((*relation).rd_att);
        *description
            .get(number as usize - 1)
            .expect("a column of the table's")
    }
}

/// Evaluates an UPDATE of one table, and shows each row that it would change to `f`. The table is locked by the
/// caller. An error of the clauses, or of a constraint, is the statement's; the transaction, or the subtransaction,
/// has to be aborted then. Within an active snapshot.
pub fn changes(
    relation: Oid,
    update: &CStr,
    args: &[Arg],
    mut f: impl FnMut(&Change) -> Result<()>,
) -> Result<()> {
    confine::require()?;
    let mut types: Vec<Oid> = args.iter().map(Arg::oid).collect();
    unsafe {
        let params = params(args)?;
        let raw = pg_sys::pg_parse_query(update.as_ptr());
        let queries = pg_sys::pg_analyze_and_rewrite_fixedparams(
            pg_sys::list_nth(raw, 0).cast(),
            update.as_ptr(),
            types.as_mut_ptr(),
            types.len() as i32,
            std::ptr::null_mut(),
        );
        if queries.is_null() || (*queries).length != 1 {
            return Err(Error::internal("an UPDATE became several statements"));
        }
        let query = pg_sys::list_nth(queries, 0).cast::<pg_sys::Query>();
        let table = pg_sys::table_open(relation, pg_sys::NoLock as i32);
        let target = (*query).resultRelation;
        let set = select_instead(query, table);
        let plan = pg_sys::pg_plan_query(query, update.as_ptr(), 0, params);
        let mut receiver = Receiver::new(table, &set, &mut f);
        let desc = pg_sys::CreateQueryDesc(
            plan,
            update.as_ptr(),
            pg_sys::GetActiveSnapshot(),
            std::ptr::null_mut(),
            (&raw mut receiver).cast(),
            params,
            std::ptr::null_mut(),
            0,
        );
        pg_sys::ExecutorStart(desc, 0);
        receiver.begin(desc, target);
        read_only(|| run(desc));
        if let Some(error) = receiver.error.take() {
            // What is left is the abort's to clean up: the error may have come out of anything.
            return Err(error);
        }
        pg_sys::ExecDropSingleTupleTableSlot(receiver.after);
        pg_sys::ExecutorFinish(desc);
        pg_sys::ExecutorEnd(desc);
        pg_sys::FreeQueryDesc(desc);
        pg_sys::table_close(table, pg_sys::NoLock as i32);
        Ok(())
    }
}

/// Runs `f` where nothing may be written, not by functions of users' either. After an error, the end of the
/// transaction (or the subtransaction) puts that back.
pub fn read_only<T>(f: impl FnOnce() -> T) -> T {
    unsafe {
        let before = pg_sys::XactReadOnly;
        pg_sys::XactReadOnly = true;
        let value = f();
        pg_sys::XactReadOnly = before;
        value
    }
}

unsafe fn run(desc: *mut pg_sys::QueryDesc) {
    let forward = pg_sys::ScanDirection::ForwardScanDirection;
    unsafe {
        #[cfg(feature = "pg18")]
        pg_sys::ExecutorRun(desc, forward, 0);
        #[cfg(not(feature = "pg18"))]
        pg_sys::ExecutorRun(desc, forward, 0, true);
    }
}

unsafe fn params(args: &[Arg]) -> Result<pg_sys::ParamListInfo> {
    unsafe {
        let list = pg_sys::makeParamList(args.len() as i32);
        let values = settings::with(CANONICAL, || {
            args.iter().map(Arg::datum).collect::<Result<Vec<_>>>()
        })?;
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
unsafe fn select_instead(query: *mut pg_sys::Query, table: pg_sys::Relation) -> Vec<i16> {
    unsafe {
        let target = (*query).resultRelation;
        let assigned = pgrx::PgList::<pg_sys::TargetEntry>::from_pg((*query).targetList);
        let of = |number: i16| {
            let mut entries = assigned.iter_ptr();
            entries.find(|entry| !(**entry).resjunk && (**entry).resno == number)
        };
        let mut list = List::default();
        let mut set = Vec::new();
        for number in 1..=(*(*table).rd_att).natts as i16 {
            let entry = of(number);
            set.extend(entry.map(|_| number));
            list.add(match entry {
                Some(entry) => (*entry).expr,
                None => column(target, table, number),
            });
        }
        for number in &set {
            list.add(column(target, table, *number));
        }
        let ctid = pg_sys::SelfItemPointerAttributeNumber as i16;
        let (tid, none) = (pg_sys::TIDOID, Oid::INVALID);
        list.add(pg_sys::makeVar(target, ctid, tid, -1, none, 0).cast());
        // What assigns several columns at once is computed there.
        for entry in assigned.iter_ptr().filter(|entry| (**entry).resjunk) {
            list.add((*entry).expr);
            (*list.last()).resjunk = true;
        }
        std::mem::forget(assigned);
        (*query).commandType = pg_sys::CmdType::CMD_SELECT;
        (*query).resultRelation = 0;
        (*query).targetList = list.0;
        set
    }
}

/// A column as it is; NULL for one that has no value of its own.
unsafe fn column(target: i32, table: pg_sys::Relation, number: i16) -> *mut pg_sys::Expr {
    unsafe {
        let it = attribute(table, number);
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

/// A target list.
struct List(*mut pg_sys::List);

impl Default for List {
    fn default() -> List {
        List(std::ptr::null_mut())
    }
}

impl List {
    unsafe fn add(&mut self, expression: *mut pg_sys::Expr) {
        unsafe {
            let number = pg_sys::list_length(self.0) + 1;
            let entry =
                pg_sys::makeTargetEntry(expression, number as i16, std::ptr::null_mut(), false);
            self.0 = pg_sys::lappend(self.0, entry.cast());
        }
    }

    unsafe fn last(&self) -> *mut pg_sys::TargetEntry {
        unsafe { pg_sys::list_nth(self.0, pg_sys::list_length(self.0) - 1).cast() }
    }
}

type Visitor<'a> = &'a mut dyn FnMut(&Change) -> Result<()>;

/// Where the executor sends the rows.
#[repr(C)]
struct Receiver<'a> {
    base: pg_sys::DestReceiver,
    table: pg_sys::Relation,
    set: &'a [i16],
    f: Visitor<'a>,
    estate: *mut pg_sys::EState,
    result: *mut pg_sys::ResultRelInfo,
    after: *mut pg_sys::TupleTableSlot,
    error: Option<Error>,
}

impl<'a> Receiver<'a> {
    fn new(table: pg_sys::Relation, set: &'a [i16], f: Visitor<'a>) -> Receiver<'a> {
        Receiver {
            base: pg_sys::DestReceiver {
                receiveSlot: Some(receive),
                rStartup: Some(start_up),
                rShutdown: Some(shut_down),
                rDestroy: Some(shut_down),
                mydest: pg_sys::CommandDest::DestNone,
            },
            table,
            set,
            f,
            estate: std::ptr::null_mut(),
            result: std::ptr::null_mut(),
            after: std::ptr::null_mut(),
            error: None,
        }
    }

    /// Once the executor has begun: what its functions need to know of the table.
    unsafe fn begin(&mut self, desc: *mut pg_sys::QueryDesc, target: i32) {
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

    unsafe fn row(&mut self, slot: *mut pg_sys::TupleTableSlot) -> Result<()> {
        unsafe {
            pg_sys::slot_getallattrs(slot);
            let description = (*self.table).rd_att;
            let columns = (*description).natts as usize;
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
                relation: self.table,
                before: slot,
                after,
                set: self.set,
                columns,
                borrowed: PhantomData,
            })
        }
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn receive(
    slot: *mut pg_sys::TupleTableSlot,
    receiver: *mut pg_sys::DestReceiver,
) -> bool {
    // SAFETY: it is the one that `changes` has made, which begins with a DestReceiver.
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
