//! The destination of the executor's rows, which hands each of them to a caller.

use super::super::capture::capture;
use super::change::{Change, Values};
use crate::error::{Error, Result};
use pgrx::PgTupleDesc;
use pgrx::pg_sys::{self};
use std::ffi::c_void;

// Missing from the bindings of pgrx; the server exports it for extensions.
unsafe extern "C-unwind" {
    fn ExecComputeStoredGenerated(
        result: *mut pg_sys::ResultRelInfo,
        estate: *mut pg_sys::EState,
        slot: *mut pg_sys::TupleTableSlot,
        command: pg_sys::CmdType::Type,
    );
}

type Visitor<'a> = &'a mut dyn FnMut(&Change) -> Result<()>;

/// Destination for the rows of the executor, which knows the first field only.
#[repr(C)]
pub(super) struct Receiver<'a> {
    base: pg_sys::DestReceiver,
    table: pg_sys::Relation,
    columns: &'a PgTupleDesc<'a>,
    set: &'a [i16],
    f: Visitor<'a>,
    estate: *mut pg_sys::EState,
    result: *mut pg_sys::ResultRelInfo,
    pub(super) after: *mut pg_sys::TupleTableSlot,
    pub(super) error: Option<Error>,
}

impl<'a> Receiver<'a> {
    pub(super) fn new(
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
    pub(super) unsafe fn begin(&mut self, desc: *mut pg_sys::QueryDesc, target: i32) {
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
