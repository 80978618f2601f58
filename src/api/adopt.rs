//! Jobs that may not run as their rows stand, and who may decide that they run nevertheless.

use super::call::{Call, Work, check_kind, refuse_superusers_job};
use super::define;
use crate::error::{Error, Result, sqlstate};
use crate::model::standing::Standing;
use crate::pg::relation::Relation;
use crate::pg::report::warning;
use crate::pg::{name, role, server};
use crate::store::job::{self, Job};
use crate::store::{event, origin};

/// Makes a job that may not run as its row stands one that may, if the caller may decide that: for a copy, whoever may
/// act for its owner; for any other, a superuser. Returns false if the job may already run.
pub fn if_need_be(job: &Job) -> Result<bool> {
    match job.standing {
        Standing::Here => return Ok(false),
        Standing::Copy => {}
        Standing::OwnerChanged => change_owner(job)?,
        Standing::Unsealed => {
            require_superuser(job)?;
            warn_of_seal(job);
            event::record(job.id, server::current_user(), "seal", None, None)?;
        }
    }
    origin::adopt(job.id)?;
    Ok(true)
}

/// Accepts that the role with the owner's OID has another name.
fn change_owner(job: &Job) -> Result<()> {
    require_superuser(job)?;
    role::login_of(job.owner)?;
    let name = name::of_role(job.owner);
    if origin::of_renamed(job.id)? == Standing::Unsealed {
        warn_of_seal(job);
    }
    let before = name::quoted(&job.owner_name);
    event::record(
        job.id,
        server::current_user(),
        "owner",
        Some(&before),
        Some(&name),
    )
}

fn warn_of_seal(job: &Job) {
    warning(
        &format!(
            "backfill {} was not written by backfill's functions: somebody has changed it by hand",
            job.shown()
        ),
        Some(&format!(
            "Look at it in backfill.progress: if it is not what it should be, SELECT backfill.cancel({}).",
            job.id
        )),
    );
}

fn require_superuser(job: &Job) -> Result<()> {
    if server::is_superuser() {
        return Ok(());
    }
    let (why, id) = (job.standing.waits_for(job.id).unwrap_or_default(), job.id);
    Err(Error::new(
        sqlstate::INSUFFICIENT_PRIVILEGE,
        format!("permission denied to resume backfill {}", job.shown()),
    )
    .detail(format!("It waits for {why}."))
    .hint(format!(
        "A superuser may SELECT backfill.resume({id}). Or SELECT backfill.cancel({id}), and define it again with a where_clause that leaves out the rows that are done."
    )))
}

/// Warns of the jobs that `resume_all` has left out.
pub fn warn_of_left_out(idle: impl Fn(&Job) -> bool) -> Result<()> {
    let mut left = Vec::new();
    for id in job::unfinished(server::current_user())? {
        if job::load_readable(id)?.is_some_and(|job| !job.here && idle(&job)) {
            left.push(id.to_string());
        }
    }
    if !left.is_empty() {
        warning(
            &format!(
                "left alone, since they are of a copy, or were not written by backfill's functions, or their owner was renamed: job {}",
                left.join(", ")
            ),
            Some("Look at each in backfill.progress: SELECT backfill.resume(...) lets it go on."),
        );
    }
    Ok(())
}

/// Checks the definition of a copy again, in this database, as `define` does: its text was checked elsewhere. Only the
/// owner may start it.
pub fn define_again(job: &Job, relation: &Relation) -> Result<Job> {
    if job.standing != Standing::Copy || server::current_user() != job.owner {
        let refused = origin::refused("start", &job.shown(), job.id, job.standing);
        return Err(match job.standing {
            Standing::Copy => refused.hint(format!(
                "Its owner may start it, for whom it is checked again: SET ROLE {}. Or SELECT backfill.cancel({}), and define it again.",
                name::of_role(job.owner),
                job.id
            )),
            _ => refused,
        });
    }
    check_kind(relation)?;
    refuse_superusers_job(relation)?;
    let definition = &job.definition;
    let work = Work::of(&definition.action);
    let call = Call {
        relation: relation.clone(),
        work: Some(work.clone()),
        where_clause: definition.where_clause.clone(),
        joined: definition
            .action
            .update()
            .and_then(|update| update.joined.clone()),
        name: job.name.clone(),
        options: definition.options.clone(),
    };
    let checked = define::checked(&call, &work, job.batch_size)?;
    job::redefine(job.id, &checked)?;
    event::record(job.id, server::current_user(), "define again", None, None)?;
    job::load(job.id)?.ok_or_else(|| job::unknown(job.id))
}
