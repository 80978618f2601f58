//! Carries a question to a background worker and its answer back, through shared memory.
//!
//! A segment of dynamic shared memory holds the question and a message queue (`shm_mq`) for the answer. Tables would not do:
//! a caller whose transaction is REPEATABLE READ sees nothing that other transactions write meanwhile, and the worker sees
//! nothing that the caller has not committed.

use std::ffi::c_void;
use std::time::{Duration, Instant};

use pgrx::pg_sys::{self, Datum};

use super::alloc::reserve;
use super::latch;
use crate::error::{Error, Result, sqlstate};

/// Beginning of a segment. Lets the worker verify that this is the segment it was started for.
#[repr(C)]
struct Header {
    /// Always [`MAGIC`].
    magic: u64,
    /// Length of the question in bytes; the question follows at offset [`HEADER`].
    question: u64,
}

const MAGIC: u64 = 0x6261_636b_6669_6c01;
/// Offset of the question, in bytes.
const HEADER: usize = 64;
/// Size of the queue, in bytes. A longer answer passes through it in parts.
const QUEUE: usize = 65_536;
/// Longest accepted answer, in bytes.
pub const LONGEST_ANSWER: usize = 32 << 20;

/// Returns the offset of the queue behind a question of `question` bytes, aligned as PostgreSQL requires.
fn queue_at(question: usize) -> usize {
    HEADER + question.next_multiple_of(64)
}

/// The asking side. Dropping it ends the worker, whatever the worker is doing.
pub struct Channel {
    segment: *mut pg_sys::dsm_segment,
    queue: *mut pg_sys::shm_mq_handle,
    worker: *mut pg_sys::BackgroundWorkerHandle,
}

/// Result of waiting for an answer.
pub enum Received {
    /// The answer.
    Answer(Vec<u8>),
    /// The worker has ended without an answer.
    Nothing,
    /// No answer has arrived yet.
    NotYet,
}

impl Channel {
    /// Puts the question into shared memory and registers the worker, which finds it there. `None` if the
    /// server has no free background worker. Within a transaction.
    pub fn open(
        question: &[u8],
        mut worker: Box<pg_sys::BackgroundWorker>,
    ) -> Result<Option<Channel>> {
        // SAFETY: within a transaction, whose resource owner keeps the segment until it is detached, by our drop or by the
        // abort. The segment has room for the header, the question and the queue, which do not overlap, and nobody else
        // knows of it yet. It is page-aligned, so each part is aligned. The worker's handle is allocated in
        // TopMemoryContext: `ended` reads it when the segment is detached, at the latest at the exit of the process.
        unsafe {
            let at = queue_at(question.len());
            let segment = pg_sys::dsm_create(at + QUEUE, 0);
            let base = pg_sys::dsm_segment_address(segment).cast::<u8>();
            base.cast::<Header>().write(Header {
                magic: MAGIC,
                question: question.len() as u64,
            });
            std::ptr::copy_nonoverlapping(question.as_ptr(), base.add(HEADER), question.len());
            let mq = pg_sys::shm_mq_create(base.add(at).cast(), QUEUE);
            pg_sys::shm_mq_set_receiver(mq, pg_sys::MyProc);
            let queue = pg_sys::shm_mq_attach(mq, segment, std::ptr::null_mut());
            worker.bgw_main_arg = Datum::from(pg_sys::dsm_segment_handle(segment));
            worker.bgw_notify_pid = pg_sys::MyProcPid;
            let mut handle = std::ptr::null_mut();
            let context = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            let registered = pg_sys::RegisterDynamicBackgroundWorker(&mut *worker, &mut handle);
            pg_sys::MemoryContextSwitchTo(context);
            if !registered {
                pg_sys::dsm_detach(segment);
                return Ok(None);
            }
            pg_sys::on_dsm_detach(segment, Some(ended), Datum::from(handle.cast::<c_void>()));
            pg_sys::shm_mq_set_handle(queue, handle);
            Ok(Some(Channel {
                segment,
                queue,
                worker: handle,
            }))
        }
    }

    /// Waits for the answer for at most `time`. Raises a cancel of the caller's statement as an error.
    pub fn receive(&mut self, time: Duration) -> Result<Received> {
        let deadline = Instant::now() + time;
        loop {
            let (mut length, mut data) = (0, std::ptr::null_mut());
            // SAFETY: the queue is attached while this lives. The data that it points to is ours until the next call.
            let result =
                unsafe { pg_sys::shm_mq_receive(self.queue, &mut length, &mut data, true) };
            match result {
                pg_sys::shm_mq_result::SHM_MQ_SUCCESS if length <= LONGEST_ANSWER => {
                    let mut answer = Vec::new();
                    reserve(&mut answer, length)?;
                    // SAFETY: as above; the queue says that `length` bytes are there.
                    let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), length) };
                    answer.extend_from_slice(bytes);
                    return Ok(Received::Answer(answer));
                }
                pg_sys::shm_mq_result::SHM_MQ_SUCCESS => {
                    return Err(Error::new(
                        sqlstate::PROGRAM_LIMIT_EXCEEDED,
                        format!("an answer of {length} bytes is too long"),
                    )
                    .hint("Ask for fewer rows."));
                }
                pg_sys::shm_mq_result::SHM_MQ_WOULD_BLOCK => {}
                _ => return Ok(Received::Nothing),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Received::NotYet);
            }
            latch::wait_in_call(left);
        }
    }

    /// Ends the worker and waits for at most `time` until it is gone. Returns false if it is not. Only once the worker is gone is its
    /// slot among the background workers free.
    pub fn close(self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        loop {
            let mut pid = 0;
            // SAFETY: the handle lives until the segment is detached, by the drop at the end.
            let status = unsafe {
                pg_sys::TerminateBackgroundWorker(self.worker);
                pg_sys::GetBackgroundWorkerPid(self.worker, &mut pid)
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if status == pg_sys::BgwHandleStatus::BGWH_STOPPED || left.is_zero() {
                return status == pg_sys::BgwHandleStatus::BGWH_STOPPED;
            }
            // The postmaster sets the latch when the process is gone.
            latch::wait_in_call(left);
        }
    }

    /// Returns the PID of the worker while it runs.
    pub fn pid(&self) -> Option<i32> {
        let mut pid = 0;
        // SAFETY: the handle lives until the segment is detached.
        let status = unsafe { pg_sys::GetBackgroundWorkerPid(self.worker, &mut pid) };
        (status == pg_sys::BgwHandleStatus::BGWH_STARTED).then_some(pid)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: attached by `open`, and detached nowhere else before the end of the transaction: a value that lives within a
        // transaction is dropped within it. Detaching calls `ended`.
        unsafe { pg_sys::dsm_detach(self.segment) };
    }
}

/// Ends the worker when the asking side detaches the segment, for whatever reason: nobody waits for the worker any more.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn ended(_segment: *mut pg_sys::dsm_segment, handle: Datum) {
    let handle = handle.cast_mut_ptr::<pg_sys::BackgroundWorkerHandle>();
    // SAFETY: the handle is the one that `open` got, and only this function frees it, once. The handle's generation tells
    // this worker from another one that took its slot after it ended.
    unsafe {
        pg_sys::TerminateBackgroundWorker(handle);
        pg_sys::pfree(handle.cast());
    }
}

/// The answering side.
pub struct Task {
    /// The question.
    pub question: Vec<u8>,
    queue: *mut pg_sys::shm_mq_handle,
}

impl Task {
    /// Takes up the task that this background worker was started for. Returns `None` if the asking side is gone.
    ///
    /// # Safety
    /// `argument` must be the one that the worker's main function was called with, and this the first call.
    pub unsafe fn take_up(argument: Datum) -> Result<Option<Task>> {
        // SAFETY: `dsm_attach` returns null for a handle that no process has attached any more. The header holds the length of
        // the question, and was written before the worker was registered; the queue lies where `open` put it. The segment
        // stays mapped until the process ends: there is no resource owner yet.
        unsafe {
            let segment = pg_sys::dsm_attach(argument.value() as u32);
            if segment.is_null() {
                return Ok(None);
            }
            let base = pg_sys::dsm_segment_address(segment).cast::<u8>();
            let header = &*base.cast::<Header>();
            let length = header.question as usize;
            let size = pg_sys::dsm_segment_map_length(segment);
            if header.magic != MAGIC || queue_at(length) + QUEUE > size {
                return Err(Error::internal("not a question"));
            }
            let mut question = Vec::new();
            reserve(&mut question, length)?;
            question.extend_from_slice(std::slice::from_raw_parts(base.add(HEADER), length));
            let mq = base.add(queue_at(length)).cast::<pg_sys::shm_mq>();
            pg_sys::shm_mq_set_sender(mq, pg_sys::MyProc);
            let queue = pg_sys::shm_mq_attach(mq, segment, std::ptr::null_mut());
            Ok(Some(Task { question, queue }))
        }
    }

    /// Sends the answer. It is no error if nobody waits for it any more.
    pub fn answer(self, answer: &[u8]) {
        // SAFETY: the queue stays attached until the process ends, and `answer` lives through the call.
        unsafe {
            pg_sys::shm_mq_send(
                self.queue,
                answer.len(),
                answer.as_ptr().cast(),
                false,
                true,
            );
        }
    }
}
