//! The job that a name stands for.

use pgrx::pg_sys::Oid;

use super::caller::may_see_of;
use crate::error::{Error, Result, sqlstate};
use crate::pg::server;
use crate::store::job::{self, Called};

/// Returns the id of the job that the caller means by a name: one that the caller may see, and their own if several roles have one of this
/// name. The name may be preceded by the schema of the job's table. A number that is nobody's name is an id. `None` stays NULL.
pub fn id_of(name: Option<String>) -> Result<Option<i64>> {
    let Some(name) = name else {
        return Ok(None);
    };
    let mut found = Vec::new();
    for job in job::called(&name)? {
        if may_see_of(job.owner, job.relation)? {
            found.push(job);
        }
    }
    match pick(&found, &name, server::current_user()) {
        Picked::One(id) => Ok(Some(id)),
        Picked::Several(ids) => Err(ambiguous(&name, &ids)),
        Picked::None => match name.parse() {
            Ok(id) => Ok(Some(id)),
            Err(_) => Err(unknown(&name)),
        },
    }
}

/// The job, or the jobs, that a name stands for.
#[derive(Debug, PartialEq, Eq)]
enum Picked {
    None,
    One(i64),
    Several(Vec<i64>),
}

/// Chooses among jobs of this name: those of the whole name, then those whose table's schema precedes it; of these, runs before dry runs,
/// and the caller's own before others'.
fn pick(found: &[Called], name: &str, me: Oid) -> Picked {
    let mut jobs: Vec<&Called> = found.iter().collect();
    let wishes: [&dyn Fn(&Called) -> bool; 3] =
        [&|job| job.name == name, &|job| !job.dry_run, &|job| {
            job.owner == me
        }];
    for wish in wishes {
        if jobs.iter().any(|job| wish(job)) {
            jobs.retain(|job| wish(job));
        }
    }
    match jobs.as_slice() {
        [] => Picked::None,
        [one] => Picked::One(one.id),
        several => Picked::Several(several.iter().map(|job| job.id).collect()),
    }
}

fn unknown(name: &str) -> Error {
    Error::new(
        sqlstate::UNDEFINED_OBJECT,
        format!("there is no backfill job named \"{name}\""),
    )
    .hint("SELECT job_id, name, relation, state FROM backfill.progress lists the jobs.")
}

fn ambiguous(name: &str, ids: &[i64]) -> Error {
    let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
    Error::new(
        sqlstate::AMBIGUOUS_PARAMETER,
        format!(
            "several backfill jobs are named \"{name}\": {}",
            ids.join(", ")
        ),
    )
    .hint("Give the id, or put the schema of the job's table before the name: 'public.name'.")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: u32 = 10;

    fn job(id: i64, name: &str, owner: u32, dry_run: bool) -> Called {
        Called {
            id,
            name: name.to_owned(),
            owner: Oid::from(owner),
            relation: Oid::from(1),
            dry_run,
        }
    }

    fn picked(jobs: &[Called]) -> Picked {
        pick(jobs, "s.a", Oid::from(ME))
    }

    #[test]
    fn the_callers_own_run_comes_first() {
        assert_eq!(picked(&[]), Picked::None);
        assert_eq!(picked(&[job(1, "s.a", 11, false)]), Picked::One(1));
        let jobs = [
            job(1, "s.a", 11, false),
            job(2, "s.a", ME, true),
            job(3, "s.a", ME, false),
            job(4, "a", ME, false),
        ];
        assert_eq!(picked(&jobs), Picked::One(3));
        assert_eq!(picked(&jobs[..2]), Picked::One(1));
        assert_eq!(picked(&jobs[1..2]), Picked::One(2));
        // In schema s.
        assert_eq!(picked(&jobs[3..]), Picked::One(4));
    }

    #[test]
    fn of_others_none_is_preferred() {
        let jobs = [job(1, "s.a", 11, false), job(2, "s.a", 12, false)];
        assert_eq!(picked(&jobs), Picked::Several(vec![1, 2]));
    }
}
