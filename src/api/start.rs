//! `backfill.start`: starts a stored definition, or defines and starts a job at once.

use super::call::{self, Call, Request};
use super::caller::{refuse_unsound, required};
use super::hints::{after_cancel, after_failure};
use super::{
    adopt, approve, changed, checks, define, definition_lock, existing, launch, proof, rehearsed,
};
use serde::{Deserialize, Serialize};

use crate::action::{Kind, Look, Question};
use crate::error::{Error, Result, sqlstate};
use crate::model::options::Options;
use crate::model::state::{Event, State, Wish, next};
use crate::pg::report::{notice, warning};
use crate::pg::{name, server};
use crate::quote::literal;
use crate::store::job::{self, Definition, Job};
use crate::store::{approval, event, rights};

/// The pace of a job, within its limits.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Pace {
    /// Rows per commit at most.
    pub batch_size: i32,
    /// Pause between commits, in milliseconds.
    pub sleep_ms: i32,
}

impl Pace {
    /// Checks both values.
    pub fn check(batch_size: i32, sleep_ms: i32) -> Result<Pace> {
        if !(1..=1_000_000).contains(&batch_size) {
            return Err(Error::invalid(format!(
                "batch_size must be between 1 and 1000000, not {batch_size}"
            ))
            .hint("It is the number of rows per commit; 1000 to 10000 suits most tables."));
        }
        if !(0..=86_400_000).contains(&sleep_ms) {
            return Err(Error::invalid(format!(
                "sleep_ms must be between 0 and 86400000, not {sleep_ms}"
            ))
            .hint("It is the pause between two commits in milliseconds, a day at most."));
        }
        Ok(Pace {
            batch_size,
            sleep_ms,
        })
    }
}

/// Starts a job at commit; returns its id. `typed`: whether the call is a client's own statement.
pub fn start(
    request: Request,
    batch_size: Option<i32>,
    sleep_ms: Option<i32>,
    typed: bool,
) -> Result<i64> {
    begin(request, batch_size, sleep_ms, typed, "backfill.start()")
}

/// Like [`start`], for the entry point `function`.
pub fn begin(
    request: Request,
    batch_size: Option<i32>,
    sleep_ms: Option<i32>,
    typed: bool,
    function: &str,
) -> Result<i64> {
    let pace = Pace::check(
        required(batch_size, "batch_size")?,
        required(sleep_ms, "sleep_ms")?,
    )?;
    let call = call::check(request, function)?;
    definition_lock::take(call.relation.oid)?;
    let job = match &call.work {
        Some(work) => match existing::same_job(&call, work)? {
            Some(known) => known,
            None => {
                let id = define::store(&call, work, pace.batch_size, pace.sleep_ms)?;
                job::load(id)?.ok_or_else(|| job::unknown(id))?
            }
        },
        None if call.options.dry_run() => dry_run_of_definition(&call, pace)?,
        None => {
            let job = definition(&call)?;
            refuse_strangers_end(&job)?;
            job
        }
    };
    if job.state() != State::Pending {
        notice_of(&job)?;
        return Ok(job.id);
    }
    if call.work.is_none() {
        // The policies may have changed since its owner defined the job.
        checks::policies(&call.relation, job.definition.options.only(), job.owner)?;
    }
    let job = if job.here {
        job
    } else {
        adopt::define_again(&job, &call.relation)?
    };
    release(&job, &call.options, pace, typed)?;
    Ok(job.id)
}

/// Returns the dry run of the definition that the call is about, with its name and owner: the existing one, or a new
/// one.
fn dry_run_of_definition(call: &Call, pace: Pace) -> Result<Job> {
    let mut of = definition(call)?;
    if !of.here {
        of = adopt::define_again(&of, &call.relation)?;
    }
    if let Some(name) = &of.name
        && let Some(known) = existing::named(name, true)?
            .into_iter()
            .find(|job| job.owner == of.owner)
    {
        let clauses = |job: &Job| {
            let definition = &job.definition;
            (definition.action.changes(), definition.where_clause.clone())
        };
        if known.relation == of.relation && clauses(&known) == clauses(&of) {
            return Ok(known);
        }
        return Err(Error::new(
            sqlstate::DUPLICATE_OBJECT,
            format!(
                "backfill {} is a dry run of another definition",
                known.shown()
            ),
        )
        .hint(format!(
            "SELECT backfill.forget({}) once it has ended.",
            known.id
        )));
    }
    let definition = Definition {
        action: Kind::Look(Look {
            of: of.definition.action.changes(),
            question: Question::DryRun,
        }),
        options: Options {
            dry_run: Some(true),
            ..of.definition.options.clone()
        },
        ..of.definition.clone()
    };
    let name = of.name.as_deref();
    let (batch_size, sleep_ms) = (pace.batch_size, pace.sleep_ms);
    let id = job::insert(
        of.owner,
        &call.relation,
        name,
        &definition,
        batch_size,
        sleep_ms,
    )?;
    event::change(id, server::current_user(), "define", None, State::Pending)?;
    job::load(id)?.ok_or_else(|| job::unknown(id))
}

/// Returns the job that a call without set_clause is about: the one with that name, or the pending one.
pub fn definition(call: &Call) -> Result<Job> {
    if call.where_clause.is_some() {
        return Err(Error::invalid("where_clause is given without set_clause")
            .hint("Give both to define the backfill, or neither to start the table's pending definition."));
    }
    let table = &call.relation.shown;
    if let Some(name) = &call.name {
        return definition_named(call, name);
    }
    let mut pending = Vec::new();
    for id in job::pending_on(call.relation.oid, server::current_user())? {
        pending.extend(job::load_latest(id)?);
    }
    pending.retain(|job| job.state() == State::Pending && !job.definition.options.dry_run());
    let mut pending = own_first(pending);
    match pending.len() {
        0 => Err(nothing_pending(&format!(
            "no backfill is defined for table {table}"
        ))),
        1 => sound(pending.remove(0)),
        several => {
            let names: Vec<String> = pending.iter().map(Job::shown).collect();
            Err(Error::new(
                sqlstate::NOT_IN_PREREQUISITE_STATE,
                format!("{several} backfills are defined for table {table}"),
            )
            .detail(format!("Pending: {}.", names.join(", ")))
            .hint(format!("Say which: SELECT backfill.start({}, name => '...'). One without a name can only be started once the others are withdrawn: SELECT backfill.cancel(...).", literal(table))))
        }
    }
}

/// Returns the caller's own jobs; all of them, if none is the caller's.
fn own_first(jobs: Vec<Job>) -> Vec<Job> {
    let me = server::current_user();
    let (own, others): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| job.owner == me);
    if own.is_empty() { others } else { own }
}

/// Returns the job with this name on the call's table: the caller's own, or else the one of another role.
fn definition_named(call: &Call, name: &str) -> Result<Job> {
    let table = &call.relation.shown;
    let (here, elsewhere): (Vec<Job>, Vec<Job>) = existing::named(name, false)?
        .into_iter()
        .partition(|job| job.relation == call.relation.oid);
    let mut here = own_first(here);
    match here.len() {
        0 => {}
        1 => {
            return sound(here.remove(0));
        }
        several => {
            let mut owners: Vec<String> = here.iter().map(|job| name::of_role(job.owner)).collect();
            owners.sort();
            return Err(Error::new(
                sqlstate::NOT_IN_PREREQUISITE_STATE,
                format!("{several} backfills of table {table} are called \"{name}\", of different owners"),
            )
            .detail(format!("Their owners: {}.", owners.join(", ")))
            .hint("Call it as the owner of the one that is meant: SET ROLE."));
        }
    }
    let Some(job) = elsewhere.first() else {
        return Err(nothing_pending(&format!(
            "no backfill \"{name}\" is defined for table {table}"
        )));
    };
    existing::refuse_recreated(job, &call.relation)?;
    Err(Error::new(
        sqlstate::UNDEFINED_OBJECT,
        format!(
            "backfill {} is on {}, not on {table}",
            existing::with_owner(job),
            job.relation_name
        ),
    )
    .hint("Name its table."))
}

/// Refuses to report a job as completed if its owner could not be trusted with the table.
fn refuse_strangers_end(job: &Job) -> Result<()> {
    let own = job.owner == server::current_user();
    if own || job.state() != State::Completed || rights::are_the_tables_owners(job)? {
        return Ok(());
    }
    Err(existing::no_proof(job)?)
}

/// Refuses a definition that was not written by the functions, or whose owner is another role now.
fn sound(job: Job) -> Result<Job> {
    refuse_unsound(&job)?;
    Ok(job)
}

fn nothing_pending(message: &str) -> Error {
    Error::new(sqlstate::UNDEFINED_OBJECT, message)
        .hint("Give it a set_clause: SELECT backfill.start('orders', 1000, 50, set_clause => 'rate_new = rate_old'), or store one with backfill.define() first.")
}

/// Answers a repeated call: sends a notice about the state of the first call's job.
fn notice_of(job: &Job) -> Result<()> {
    let id = job.id;
    if job.state() == State::Completed
        && !job.definition.action.is_read_only()
        && let Some(lacking) = proof::lacking(job)?
    {
        warning(&lacking.message, lacking.hint.as_deref());
        return Ok(());
    }
    let hint = match job.state() {
        State::Failed => Some(after_failure(job)),
        State::Paused => Some(format!("SELECT backfill.resume({id}) lets it go on.")),
        State::Cancelled => Some(after_cancel(job)),
        _ => None,
    };
    let message = format!(
        "backfill {} {}",
        existing::with_owner(job),
        job.state().phrase(true)
    );
    notice(&message, hint.as_deref());
    Ok(())
}

fn release(job: &Job, options: &Options, pace: Pace, typed: bool) -> Result<()> {
    let locked = job::lock(job.id)?.ok_or_else(|| job::unknown(job.id))?;
    let old = locked.state();
    let Some(new) = next(old, Event::Start) else {
        return notice_of(&locked);
    };
    existing::refuse_overlap(job.id)?;
    let merged = locked.definition.options.started_with(options)?;
    rehearsed::require_dry_run(&locked.with_options(&merged))?;
    // What was given at `define` was checked and settled then.
    let merged = match job.definition.options == merged {
        true => merged,
        false => changed::check(&locked, &locked.definition.options, merged)?,
    };
    if approval::asked(job.id)?.is_some() && approve::hold(&locked, typed)? {
        // The first request is the one to be approved, so later options are ignored.
        return Ok(());
    }
    job::set_pace(job.id, pace.batch_size, pace.sleep_ms, &merged)?;
    if approve::hold(&locked, typed)? {
        return Ok(());
    }
    job::set_wish(job.id, Wish::Run)?;
    event::change(job.id, server::current_user(), "start", Some(old), new)?;
    let started = job::load(job.id)?.ok_or_else(|| job::unknown(job.id))?;
    launch::workers(&started)
}
