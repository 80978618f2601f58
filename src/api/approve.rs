//! `backfill.approve`: four eyes. With `backfill.require_approval` a job that was started waits until another person
//! says so.

use super::caller::activated_job;
use super::control::{refused, start_of};
use super::existing::refuse_overlap;
use super::launch;
use crate::error::{Error, Result, sqlstate};
use crate::guc;
use crate::model::state::{State, Wish};
use crate::pg::report::notice;
use crate::pg::{server, txn};
use crate::store::approval::{self, Asked};
use crate::store::event;
use crate::store::job::{self, Job};

/// Options that decide what a job does to rows, or runs, and not only at what pace.
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

/// Keeps a job that is to run now from it, if it needs an approval: true if it has to wait. What changes no row needs none.
pub fn hold(job: &Job) -> Result<bool> {
    if !guc::REQUIRE_APPROVAL.get() || job.definition.action.is_read_only() {
        return Ok(false);
    }
    let me = server::current_user();
    if approval::asked(job.id)?.is_none() {
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

/// Lets a job run that waits for it. Gives the state that results.
pub fn approve(job_id: Option<i64>) -> Result<String> {
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
    refuse_the_same(&job, asked, &format!("approve backfill {}", job.shown()))?;
    refuse_overlap(job.id)?;
    job::set_wish(job.id, Wish::Run)?;
    let started = job::load(job.id)?.ok_or_else(|| job::unknown(job.id))?;
    let new = started.state();
    event::change(job.id, server::current_user(), "approve", Some(old), new)?;
    record_session(&job, "approve")?;
    launch::workers(&started)?;
    Ok(new.to_string())
}

/// Refuses a change of what an approved job does, or one that waits for it, unless it comes from one who might approve it.
pub fn check_altered(job: &Job, changed: &[&str]) -> Result<()> {
    let Some(what) = changed.iter().find(|name| WHAT_IT_DOES.contains(name)) else {
        return Ok(());
    };
    match approval::asked(job.id)? {
        Some(asked) => refuse_the_same(
            job,
            asked,
            &format!("alter {what} of backfill {}", job.shown()),
        ),
        None => Ok(()),
    }
}

/// Refuses who started the job, as whichever role, and its owner.
fn refuse_the_same(job: &Job, asked: Asked, verb: &str) -> Result<()> {
    let (me, session) = (server::current_user(), server::session_user());
    let starters = [asked.session, asked.by];
    let why = if !server::is_client() {
        "A background process is no person.".to_owned()
    } else if let Some(same) = [session, me].iter().find(|role| starters.contains(role)) {
        format!("{} started it.", server::role_name(*same))
    } else if me == job.owner || session == job.owner {
        format!("{} is its owner.", server::role_name(job.owner))
    } else if txn::in_security_definer() {
        "It is called by a SECURITY DEFINER function, or within a maintenance command: whoever runs that may not mean it."
            .to_owned()
    } else if !server::has_rights_of(session, job.owner) {
        let (session, owner) = (server::role_name(session), server::role_name(job.owner));
        format!("{session}, which is logged in, does not have the rights of {owner}.")
    } else {
        return Ok(());
    };
    Err(Error::new(
        sqlstate::INSUFFICIENT_PRIVILEGE,
        format!("permission denied to {verb}: it takes a second person"),
    )
    .detail(why)
    .hint("It takes one who logs in as another role, has the rights of the owner as a member or as a superuser, and acts without SET ROLE to the owner."))
}

/// The trail names the role that acted; where that is not the one that logged in, this one as well.
fn record_session(job: &Job, event: &str) -> Result<()> {
    let (me, session) = (server::current_user(), server::session_user());
    if me == session {
        return Ok(());
    }
    let (event, acted) = (format!("{event} by session"), server::role_name(me));
    event::record(job.id, session, &event, None, Some(&acted))
}
