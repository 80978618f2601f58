//! `CALL backfill.wait`: blocks until a job has ended, holding nothing meanwhile.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

use pgrx::pg_sys;

use super::caller::{denied, may_attend, required};
use super::hints::{after_cancel, after_failure, start_of};
use super::proof;
use crate::error::{Error, Result, sqlstate};
use crate::model::state::State;
use crate::pg::latch::wait_in_call;
use crate::pg::report::notice;
use crate::pg::server;
use crate::report::lasting;
use crate::store::job::{self, Job};
use crate::store::{outcome, walk};

/// Time between two looks at the job: short enough for a script, and a look costs 0.1 ms.
const INTERVAL: Duration = Duration::from_millis(100);

/// Time between two notices about the job's progress.
const SAID: Duration = Duration::from_secs(10);

/// True if the procedure was called where it may not commit.
///
/// # Safety
/// `fcinfo` must be the one that the function was called with.
pub unsafe fn is_atomic(fcinfo: pg_sys::FunctionCallInfo) -> bool {
    // SAFETY: by the caller's promise; so the context is null or a node, which is used as what its tag says.
    unsafe {
        let context = (*fcinfo).context;
        let call = !context.is_null() && (*context).type_ == pg_sys::NodeTag::T_CallContext;
        !call || (*context.cast::<pg_sys::CallContext>()).atomic
    }
}

/// Waits for the job's end. Fails unless the job completed.
pub fn wait(job_id: Option<i64>, timeout_ms: Option<i32>, atomic: bool) -> Result<()> {
    if atomic {
        return Err(Error::new(
            sqlstate::ACTIVE_SQL_TRANSACTION,
            "CALL backfill.wait() cannot run inside a transaction block",
        )
        .hint(
            "It would hold a snapshot for the whole run. CALL it by itself, with autocommit on.",
        ));
    }
    let id = required(job_id, "job_id")?;
    if timeout_ms.is_some_and(|ms| ms < 0) {
        return Err(
            Error::invalid("timeout_ms must not be negative").hint("NULL waits without end.")
        );
    }
    let deadline = timeout_ms.map(|ms| Instant::now() + Duration::from_millis(ms as u64));
    // SAFETY: called from outside of a transaction block, within a transaction of the CALL's. It is disconnected below,
    // or by the abort if an error leaves `watch`.
    unsafe { pg_sys::SPI_connect_ext(pg_sys::SPI_OPT_NONATOMIC as i32) };
    let result = watch(id, timeout_ms, deadline);
    // SAFETY: connected above; nothing that belongs to Rust lives in the memory that this frees.
    unsafe { pg_sys::SPI_finish() };
    result
}

fn watch(id: i64, timeout_ms: Option<i32>, deadline: Option<Instant>) -> Result<()> {
    let mut said = Instant::now();
    loop {
        let job = job::load(id)?.ok_or_else(|| job::unknown(id))?;
        if !may_attend(&job)? {
            return Err(denied(id));
        }
        if let Some(end) = end_of(&job)? {
            return end;
        }
        if said.elapsed() >= SAID {
            said = Instant::now();
            let far = outcome::how_far(id)?.map(|far| format!(": {far}"));
            let far = far.unwrap_or_default();
            notice(
                &format!("backfill {} is {}{far}", job.shown(), job.state()),
                None,
            );
        }
        // Releases the snapshot and ends the transaction, so that it does not age.
        // SAFETY: connected so that it may commit, which was checked first. `job` is a copy, and nothing else here
        // belongs to the transaction.
        unsafe { pg_sys::SPI_commit() };
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let mut error = Error::new(
                sqlstate::QUERY_CANCELED,
                format!(
                    "backfill {} is still {} after {} ms",
                    job.shown(),
                    job.state(),
                    timeout_ms.unwrap_or(0)
                ),
            )
            .hint(match job.state() {
                State::Paused => format!(
                    "SELECT backfill.resume({id}) lets it go on; its note in backfill.progress tells where it paused by itself."
                ),
                _ => "The job goes on. Wait longer, or look at backfill.progress.".to_owned(),
            });
            error.detail = outcome::how_far(id)?;
            return Err(error);
        }
        wait_in_call(INTERVAL);
    }
}

fn end_of(job: &Job) -> Result<Option<Result<()>>> {
    let id = job.id;
    let hint = match job.state() {
        State::Completed => return Ok(Some(say_verdict(job))),
        State::Cancelled => after_cancel(job),
        // The hint recorded with this error, or one that helps with any.
        State::Failed => outcome::hint(id)?.unwrap_or_else(|| after_failure(job)),
        State::Pending => format!("Start it first: {}", start_of(job)),
        State::Paused => return Ok(stands_still(job)?.map(Err)),
        _ => return Ok(None),
    };
    let message = format!("backfill {} {}", job.shown(), job.state().phrase(false));
    let mut error = Error::new(sqlstate::NOT_IN_PREREQUISITE_STATE, message).hint(hint);
    // It may contain row data.
    error.detail = job
        .last_error
        .clone()
        .filter(|_| server::may_act_for(job.owner));
    Ok(Some(Err(error)))
}

/// Sends a notice with the result of a completed job, and with what it lacks if `require_completed` would refuse it.
fn say_verdict(job: &Job) -> Result<()> {
    let shown = job.shown();
    let looked = match job.definition.action.question() {
        Some(question) => walk::note_beginning(job.id, &question.opening())?,
        None => None,
    };
    let came = match (looked, outcome::came_to(job.id)?) {
        (Some(verdict), _) => format!("backfill {shown} has completed: {verdict}"),
        (None, Some(end)) => format!(
            "backfill {shown} has completed: {} {} in {}, {} failed",
            rows(end.updated),
            job.definition.action.as_action().counted(),
            lasting(end.seconds),
            end.failed
        ),
        (None, None) => format!("backfill {shown} has completed"),
    };
    notice(&came, None);
    if job.definition.action.is_read_only() {
        return Ok(());
    }
    if let Some(lacking) = proof::lacking(job)? {
        notice(&lacking.message, lacking.hint.as_deref());
    }
    Ok(())
}

fn rows(count: i64) -> String {
    let rows = if count == 1 { "row" } else { "rows" };
    format!("{count} {rows}")
}

/// Returns the error that a paused job will not go on by itself, if no user has paused it: it has reached a limit, or
/// may not run as its row stands.
fn stands_still(job: &Job) -> Result<Option<Error>> {
    let id = job.id;
    let paused = |why: &str| {
        Error::new(
            sqlstate::NOT_IN_PREREQUISITE_STATE,
            format!("backfill {} is paused{why}", job.shown()),
        )
    };
    if let Some(why) = job.standing.waits_for(id) {
        return Ok(Some(
            paused("")
                .detail(format!("It waits for {why}."))
                .hint(format!(
                    "SELECT backfill.resume({id}), by whoever may, lets it go on."
                )),
        ));
    }
    let Some((at, rest)) = walk::pause_note(id)? else {
        return Ok(None);
    };
    Ok(Some(paused(&format!(": it has come to {at}")).hint(format!(
        "For the rest {rest}. As it stands, SELECT backfill.cancel({id}) ends it{}.",
        match job.definition.options.bounds() {
            Some(_) => format!(
                "; to have it complete between its bounds, SELECT backfill.alter({id}, options => '{{\"at_bounds\": \"complete\"}}'), backfill.resume({id})"
            ),
            None => String::new(),
        }
    ))))
}
