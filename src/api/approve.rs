//! `backfill.approve`: the four-eyes principle. With `backfill.require_approval`, a job that was started waits until
//! another person approves it.

use super::caller::activated_job;
use super::existing::refuse_overlap;
use super::hints::{refused, start_of};
use super::launch;
use crate::error::{Error, Result, sqlstate};
use crate::guc;
use crate::model::state::{State, Wish};
use crate::pg::report::notice;
use crate::pg::{name, server};
use crate::store::approval::{self, Asked};
use crate::store::event;
use crate::store::job::{self, Job};

/// Options that decide what a job does to rows, or what it runs, and not only its pace.
const WHAT_IT_DOES: &[&str] = &[
    "set_clause",
    "where_clause",
    "limit_rows",
    "key_from",
    "key_to",
    "on_end",
    "settings",
    "throttle_query",
    "triggers",
];

/// Returns true if the job must wait for approval, and records who asks for it. A job that changes no row needs none.
/// `typed`: whether the call is a client's own statement.
pub fn hold(job: &Job, typed: bool) -> Result<bool> {
    if !guc::REQUIRE_APPROVAL.get() || job.definition.action.is_read_only() {
        return Ok(false);
    }
    let me = server::current_user();
    if approval::asked(job.id)?.is_none() {
        refuse_nested(job, typed)?;
        let session = server::session_user();
        approval::ask(job.id, Asked { by: me, session })?;
        event::change(job.id, me, "start", Some(State::Pending), State::Pending)?;
        record_session(job, "start")?;
    }
    notice(
        &format!("backfill {} waits for approval", job.shown()),
        Some(&format!(
            "Another one with the rights of its owner says SELECT backfill.approve({}). The setting is backfill.require_approval.",
            job.id
        )),
    );
    Ok(true)
}

/// Refuses a start whose author may be someone other than the role that runs it: that person could then approve it.
fn refuse_nested(job: &Job, typed: bool) -> Result<()> {
    if typed {
        return Ok(());
    }
    Err(Error::new(
        sqlstate::INSUFFICIENT_PRIVILEGE,
        format!(
            "permission denied to start backfill {}: where backfill.require_approval is on, it takes a client's statement of its own",
            job.shown()
        ),
    )
    .detail("Who approves it must not be who has started it. The call is made by a function, a trigger, a view, a rule, a block or a worker, or within another statement: whoever runs that may not mean it.")
    .hint("Send the call as it is, by itself, with constants or parameters: SELECT backfill.start(...), with the schema."))
}

/// Approves a job that waits for it; returns the resulting state. `typed`: whether the call is a client's own
/// statement.
pub fn approve(job_id: Option<i64>, typed: bool) -> Result<String> {
    let job = activated_job(job_id, "backfill.approve()")?;
    let old = job.state();
    if old != State::Pending {
        return Err(refused(&job, old, "approve"));
    }
    let Some(asked) = approval::asked(job.id)? else {
        return Err(Error::new(
            sqlstate::NOT_IN_PREREQUISITE_STATE,
            format!(
                "cannot approve backfill {}: it was not started",
                job.shown()
            ),
        )
        .hint(format!("Start it first: {}", start_of(&job))));
    };
    let verb = format!("approve backfill {}", job.shown());
    refuse_the_same(&job, asked, &verb, typed)?;
    refuse_author(&job, &verb)?;
    refuse_overlap(job.id)?;
    job::set_wish(job.id, Wish::Run)?;
    let started = job::load(job.id)?.ok_or_else(|| job::unknown(job.id))?;
    let new = started.state();
    event::change(job.id, server::current_user(), "approve", Some(old), new)?;
    record_session(&job, "approve")?;
    launch::workers(&started)?;
    Ok(new.to_string())
}

/// Refuses to change what a job does, if it was approved or waits for approval, unless the caller might approve it.
pub fn check_altered(job: &Job, changed: &[&str], typed: bool) -> Result<()> {
    let Some(what) = changed.iter().find(|name| WHAT_IT_DOES.contains(name)) else {
        return Ok(());
    };
    match approval::asked(job.id)? {
        Some(asked) => refuse_the_same(
            job,
            asked,
            &format!("alter {what} of backfill {}", job.shown()),
            typed,
        ),
        None => refuse_unasked(job, &format!("alter {what} of")),
    }
}

/// Refuses to change what a job does if it was started without an approval and the server requires one now; the job may
/// go on as it is. A job that was not started yet may be changed.
pub fn refuse_unasked(job: &Job, verb: &str) -> Result<()> {
    let definition = &job.definition;
    if !guc::REQUIRE_APPROVAL.get()
        || definition.action.is_read_only()
        || job.state() == State::Pending
        || approval::asked(job.id)?.is_some()
    {
        return Ok(());
    }
    Err(Error::new(
        sqlstate::INSUFFICIENT_PRIVILEGE,
        format!(
            "permission denied to {verb} backfill {}: it was started without an approval, which backfill.require_approval asks for now",
            job.shown()
        ),
    )
    .hint(format!(
        "It may go on as it is. Or SELECT backfill.cancel({}), and start another one, with a where_clause that leaves out the rows that are done: that is approved.",
        job.id
    )))
}

/// Refuses the role that started the job, or was logged in when it did, and the job's owner. Refuses also calls that the
/// session user may not have meant (from a background process, a SECURITY DEFINER function, or another statement), and a
/// session user without the owner's rights.
fn refuse_the_same(job: &Job, asked: Asked, verb: &str, typed: bool) -> Result<()> {
    let (me, session) = (server::current_user(), server::session_user());
    let starters = [asked.session, asked.by];
    let why = if !server::is_client() {
        "A background process is no person.".to_owned()
    } else if let Some(same) = [session, me].iter().find(|role| starters.contains(role)) {
        format!("{} started it.", name::of_role(*same))
    } else if me == job.owner || session == job.owner {
        format!("{} is its owner.", name::of_role(job.owner))
    } else if server::in_security_definer() {
        "It is called by a SECURITY DEFINER function, or within a maintenance command: whoever runs that may not mean it."
            .to_owned()
    } else if !server::has_rights_of(session, job.owner) {
        let (session, owner) = (name::of_role(session), name::of_role(job.owner));
        format!("{session}, which is logged in, does not have the rights of {owner}.")
    } else if !typed {
        "It is not the client's own statement, but called by a function, a trigger, a view, a rule or a block, or within another statement: whoever runs that may not mean it."
            .to_owned()
    } else {
        return Ok(());
    };
    Err(alone(job, verb, why))
}

/// Refuses who has written any of what the job does, whoever started it.
fn refuse_author(job: &Job, verb: &str) -> Result<()> {
    let altered = WHAT_IT_DOES
        .iter()
        .flat_map(|what| [format!("alter {what}"), format!("redefine {what}")]);
    let events: Vec<String> = ["define", "define again"]
        .map(str::to_owned)
        .into_iter()
        .chain(altered)
        .collect();
    for role in [server::session_user(), server::current_user()] {
        if let Some(event) = event::first_of(job.id, &events, role)? {
            let why = format!(
                "{} wrote it: {event}, in backfill.events.",
                name::of_role(role)
            );
            return Err(alone(job, verb, why));
        }
    }
    Ok(())
}

/// The error for one who is no second person, and why.
fn alone(job: &Job, verb: &str, why: String) -> Error {
    Error::new(
        sqlstate::INSUFFICIENT_PRIVILEGE,
        format!("permission denied to {verb}: it takes a second person"),
    )
    .detail(why)
    .hint(format!(
        "It takes one who logs in as another role, has the rights of the owner as a member or as a superuser, acts without SET ROLE to the owner, and sends the call as it is, by itself, with constants or parameters: SELECT backfill.approve({});",
        job.id
    ))
}

/// Records the session user of an event, if that is not the role that acted. The event itself names only the latter.
fn record_session(job: &Job, event: &str) -> Result<()> {
    let (me, session) = (server::current_user(), server::session_user());
    if me == session {
        return Ok(());
    }
    let (event, acted) = (format!("{event} by session"), name::of_role(me));
    event::record(job.id, session, &event, None, Some(&acted))
}
