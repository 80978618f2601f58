//! The asking side: runs in the caller's session.

use std::time::{Duration, Instant};

use pgrx::pg_sys::Oid;
use serde::Serialize;
use serde_json::Value;

use super::blocked::{self, Blocked};
use super::place::{Of, Place};
use super::{Answer, Question, unreadable};
use crate::error::{Error, Result, sqlstate};
use crate::pg::bgworker::{self, Start};
use crate::pg::channel::{Channel, Received};
use crate::pg::{confine, latch, name, report, role, server};

/// Checkers that may look at one role's text at the same time. They take background workers of the server, and a role
/// whose functions never return must not hold all of them.
const AT_ONCE: u32 = 2;
/// One in `SHARE` of the server's background workers may be a checker.
const SHARE: u32 = 4;
/// Time in which a checker has to end once it has answered. One that does not keeps its places until it ends.
const END_WITHIN: Duration = Duration::from_secs(1);
/// Longest wait for a free background worker, and the pause between two tries.
const PROCESS_WITHIN: Duration = Duration::from_secs(3);
const TRY_AGAIN: Duration = Duration::from_millis(50);
/// Time between two looks at what a checker waits for.
const LOOK: Duration = Duration::from_millis(300);

/// Has a checker, connected as `owner`, run an errand; returns its answer. Fails if the answer takes longer than
/// `limit`. Within `spi::connect`.
pub fn ask(
    name: &str,
    owner: Oid,
    errand: &impl Serialize,
    limit: Option<Duration>,
) -> Result<Value> {
    let start = role::start_for(owner)?;
    let turns = take_turns(owner)?;
    let question = Question {
        name: name.to_owned(),
        places: turns.map(Place::number),
        asks: server::session_user().to_u32(),
        errand,
    };
    let question = serde_json::to_vec(&question).map_err(unreadable)?;
    let mut channel = open(&question, start)?.ok_or_else(|| no_process(owner))?;
    let waited = wait(&mut channel, owner, limit);
    channel.close(END_WITHIN);
    turns.into_iter().for_each(Place::leave);
    let (answer, lock) = waited?;
    let answer: Answer = serde_json::from_slice(&answer).map_err(unreadable)?;
    for said in &answer.said {
        report::say(said);
    }
    answer.result.map_err(|error| match lock {
        Some(lock) if error.sqlstate == sqlstate::LOCK_NOT_AVAILABLE => lock.explain(error),
        _ => error,
    })
}

/// Opens a channel to a checker; `None` if the server has no free background worker for a while. Tries again in
/// between, since others may end.
fn open(question: &[u8], start: Start) -> Result<Option<Channel>> {
    let begun = Instant::now();
    loop {
        let opened = Channel::open(question, bgworker::checker(start))?;
        if opened.is_some() || begun.elapsed() > PROCESS_WITHIN {
            return Ok(opened);
        }
        latch::wait_in_call(TRY_AGAIN);
    }
}

/// Takes one place each of the owner's, of the session user's and of the server's, so that neither role can hold all of
/// the server's. A place is taken for as long as somebody asks from it, or the checker that was asked is running.
/// One more place of the server's is for superusers. A worker of this extension takes none: somebody could ask from the jobs of as
/// many roles as they are a member of.
fn take_turns(owner: Oid) -> Result<[Place; 3]> {
    if confine::is_owners_process() {
        return Err(Error::new(
            sqlstate::FEATURE_NOT_SUPPORTED,
            format!(
                "code of a backfill job can't have looked at what role {} wrote",
                name::of_role(owner)
            ),
        )
        .hint("Make the call in a session of your own."));
    }
    let all = (server::most_background_workers() / SHARE).max(1);
    let each = all.div_ceil(2).min(AT_ONCE);
    let asks = server::session_user();
    let place = |of, most| {
        let mut places = (0..most).map(|number| Place::new(of, number));
        places.find(|place| place.take())
    };
    let of_owner = place(Of::Owner(owner.to_u32()), AT_ONCE.min(all))
        .ok_or_else(|| busy(&format!("of role {}", name::of_role(owner))))?;
    let of_session = place(Of::Asker(asks.to_u32()), each)
        .ok_or_else(|| busy(&format!("for sessions of role {}", name::of_role(asks))))?;
    let for_superusers = u32::from(server::is_superuser());
    let of_server =
        place(Of::Server, all + for_superusers).ok_or_else(|| busy("in this server"))?;
    Ok([of_owner, of_session, of_server])
}

fn busy(whose: &str) -> Error {
    Error::new(
        sqlstate::CONFIGURATION_LIMIT_EXCEEDED,
        format!("others look at what was written by another role, as many as may at once {whose}"),
    )
    .hint("Try again when one of them has ended: pg_stat_activity shows them as backfill checker. Or make the call as the role that wrote it: SET ROLE.")
}

fn no_process(owner: Oid) -> Error {
    Error::new(
        sqlstate::CONFIGURATION_LIMIT_EXCEEDED,
        format!(
            "no background worker is free to look at what role {} wrote",
            name::of_role(owner)
        ),
    )
    .detail("Text of another role is looked at in a process of that role's, never in your session.")
    .hint("Try again later, raise max_worker_processes, or make the call as that role: SET ROLE.")
}

/// Returns the answer, and the lock that the checker last waited for.
fn wait(
    channel: &mut Channel,
    owner: Oid,
    limit: Option<Duration>,
) -> Result<(Vec<u8>, Option<Blocked>)> {
    let begun = Instant::now();
    let mut lock = None;
    loop {
        match channel.receive(LOOK)? {
            Received::Answer(answer) => return Ok((answer, lock)),
            Received::Nothing => return Err(no_answer(owner)),
            Received::NotYet => {}
        }
        if let Some(pid) = channel.pid() {
            lock = blocked::lock_waited_for(pid)?;
        }
        if let Some(lock) = &lock
            && lock.holders.contains(&server::pid())
        {
            return Err(lock.held_by_caller(owner));
        }
        if limit.is_some_and(|limit| begun.elapsed() > limit) {
            return Err(took_too_long(owner, limit.unwrap_or_default(), lock));
        }
    }
}

fn no_answer(owner: Oid) -> Error {
    Error::new(
        sqlstate::NOT_IN_PREREQUISITE_STATE,
        format!(
            "the process that was to look at what role {} wrote has ended without an answer",
            name::of_role(owner)
        ),
    )
    .hint("The server log says why: the role may not connect to this database, or somebody has ended it.")
}

fn took_too_long(owner: Oid, limit: Duration, lock: Option<Blocked>) -> Error {
    let error = Error::new(
        sqlstate::QUERY_CANCELED,
        format!(
            "looking at what role {} wrote took longer than {} s",
            name::of_role(owner),
            limit.as_secs()
        ),
    )
    .hint("A function that the planner calls, or a type's input function, does not return; or a lock is not to be had.");
    match lock {
        Some(lock) => error.detail(lock.shown()),
        None => error,
    }
}
