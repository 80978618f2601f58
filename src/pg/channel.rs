//! Carries a question to a background worker and its answer back, through shared memory.
//!
//! A segment of dynamic shared memory holds the question and a message queue (`shm_mq`) for the answer. Tables
//! would not do: a caller whose transaction is REPEATABLE READ sees nothing that another one writes meanwhile,
//! and the worker sees nothing that the caller has not committed.

use std::ffi::c_void;
use std::time::{Duration, Instant};

use pgrx::pg_sys::{self, Datum};

use super::alloc::reserve;
use super::latch;
use crate::error::{Error, Result, sqlstate};

/// What a segment begins with, so that the worker can tell that it is the one it was started for.
#[repr(C)]
struct Header {
    /// [`MAGIC`]
    magic: u64,
    /// Bytes of the question, which follows at [`HEADER`].
    question: u64,
}

const MAGIC: u64 = 0x6261_636b_6669_6c01;
/// Bytes before the question.
const HEADER: usize = 64;
/// Bytes of the queue: a longer answer goes through it in parts.
const QUEUE: usize = 65_536;
/// The longest answer that is taken.
pub const LONGEST_ANSWER: usize = 32 << 20;

/// Where the queue begins behind a question of so many bytes: aligned as PostgreSQL wants it.
fn queue_at(question: usize) -> usize {
    HEADER + question.next_multiple_of(64)
}

/// The asking side. Dropping it ends the worker, whatever that is in.
pub struct Channel {
    segment: *mut pg_sys::dsm_segment,
    queue: *mut pg_sys::shm_mq_handle,
    worker: *mut pg_sys::BackgroundWorkerHandle,
}

/// What came back.
pub enum Received {
    /// The answer.
    Answer(Vec<u8>),
    /// The worker has ended without one.
    Nothing,
    /// Not yet.
    NotYet,
}

impl Channel {
    /// Puts the question into shared memory and registers the worker, which finds it there. `None` if the
    /// server has no free background worker. Within a transaction.
    pub fn open(
        question: &[u8],
        mut worker: Box<pg_sys::BackgroundWorker>,
    ) -> Result<Option<Channel>> {
        // SAFETY: within a transaction, whose resource owner keeps the segment until it is detached, by our
        // drop or by the abort. The segment has room for the header, the question and the queue, which do
        // not overlap, and nobody else knows of it yet. It is page aligned, so each part is aligned. The
        // worker's handle is allocated in TopMemoryContext: `ended` reads it when the segment is detached,
        // at the latest at the exit of the process.
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

    /// Waits for the answer for `time` at most. A cancel of the caller's is raised.
    pub fn receive(&mut self, time: Duration) -> Result<Received> {
        let deadline = Instant::now() + time;
        loop {
            let (mut length, mut data) = (0, std::ptr::null_mut());
            // SAFETY: the queue is attached while this lives. What it points to is ours until the next call.
            let result =
                unsafe { pg_sys::shm_mq_receive(self.queue, &mut length, &mut data, true) };
            match result {
                pg_sys::shm_mq_result::SHM_MQ_SUCCESS if length <= LONGEST_ANSWER => {
                    let mut answer = Vec::new();
                    reserve(&mut answer, length)?;
                    // SAFETY: as above; the queue says that so many bytes are there.
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

    /// Ends the worker, and waits until it is gone, `time` at most: false if it is not. Its place among the background workers is
    /// free only then.
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
            // The postmaster tells when the process is gone.
            latch::wait_in_call(left);
        }
    }

    /// The process that works on the answer, once it has started.
    pub fn pid(&self) -> Option<i32> {
        let mut pid = 0;
        // SAFETY: the handle lives until the segment is detached.
        let status = unsafe { pg_sys::GetBackgroundWorkerPid(self.worker, &mut pid) };
        (status == pg_sys::BgwHandleStatus::BGWH_STARTED).then_some(pid)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: attached by `open`, and detached nowhere else before the transaction's end: a value that
        // lives within a transaction is dropped within it. Calls `ended`.
        unsafe { pg_sys::dsm_detach(self.segment) };
    }
}

/// Runs when the asking side lets go of the segment, in whatever way: nobody waits for the worker any more.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn ended(_segment: *mut pg_sys::dsm_segment, handle: Datum) {
    let handle = handle.cast_mut_ptr::<pg_sys::BackgroundWorkerHandle>();
    // SAFETY: it is the handle that `open` gave, which this alone frees, once. A worker that has ended, and
    // another one in its place, is told by the handle's generation.
    unsafe {
        pg_sys::TerminateBackgroundWorker(handle);
        pg_sys::pfree(handle.cast());
    }
}

/// The answering side: the question, and where the answer goes.
pub struct Task {
    /// The question.
    pub question: Vec<u8>,
    queue: *mut pg_sys::shm_mq_handle,
}

impl Task {
    /// Takes up the task that this background worker was started for; `None` if whoever asked is gone.
    ///
    /// # Safety
    /// `argument` must be the one that the worker's main function was called with, and this the first call.
    pub unsafe fn take_up(argument: Datum) -> Result<Option<Task>> {
        // SAFETY: `dsm_attach` gives null for a handle that nobody has any more. The header says how long the
        // question is, and was written before the worker was registered; the queue lies where `open` has
        // put it. The segment stays mapped until the process ends: there is no resource owner yet.
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

    /// Sends the answer. That nobody waits for it any more is no error.
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
