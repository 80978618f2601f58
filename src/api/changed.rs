//! The check of options that a call changes in a stored job. Options that are text are checked in a session of the
//! owner's, with whose rights they will run.

use std::collections::BTreeMap;

use pgrx::pg_sys::Oid;
use serde::{Deserialize, Serialize};

use super::caller::refuse_unsound;
use super::subject::Subject;
use super::{bounds, on_end, session, throttles};
use crate::error::Result;
use crate::model::bounds::Bounds;
use crate::model::options::Options;
use crate::pg::settings;
use crate::store::job::Job;
use crate::stranger::errand::{Errand, carry_out};

/// Changes to a stored job's options whose text has to be checked.
#[derive(Serialize, Deserialize)]
pub struct ChangesOf {
    subject: Subject,
    job: String,
    relation_name: String,
    settings: BTreeMap<String, String>,
    throttle_query: Option<String>,
    on_end: Option<String>,
    /// Whether the bounds have changed; and, if so, the bounds of the walk that the job has begun.
    bounds: bool,
    covered: Option<Bounds>,
}

/// Returns the query of `after`, if it differs from that of `before`.
fn query(before: &Options, after: &Options) -> Option<String> {
    let query = |options: &Options| options.throttles.query().map(str::to_owned);
    query(after).filter(|_| query(before) != query(after))
}

/// Checks what `after` changes; returns it with bounds that mean the same under all settings.
pub fn check(job: &Job, before: &Options, after: Options) -> Result<Options> {
    if after.throttles != before.throttles {
        throttles::check(&after.throttles)?;
    }
    let differs =
        |text: &Option<String>, old: &Option<String>| text.clone().filter(|_| text != old);
    let bounds = after.bounds() != before.bounds();
    let mut changed = after.settings.clone();
    changed.retain(|name, value| before.settings.get(name) != Some(value));
    let changes = ChangesOf {
        subject: Subject::of(job).with(after.clone()),
        job: job.shown(),
        relation_name: job.relation_name.clone(),
        settings: changed,
        throttle_query: query(before, &after),
        on_end: differs(&after.on_end, &before.on_end),
        bounds,
        covered: if bounds { bounds::covered(job)? } else { None },
    };
    let nothing = changes.settings.is_empty()
        && changes.throttle_query.is_none()
        && changes.on_end.is_none()
        && !bounds;
    if nothing {
        return Ok(after);
    }
    // The text may belong to another role than the row says.
    refuse_unsound(job)?;
    carry_out(changes)
}

impl Errand for ChangesOf {
    const NAME: &'static str = "alter";
    type Answer = Options;

    fn owner(&self) -> Oid {
        self.subject.owner()
    }

    fn run(self) -> Result<Options> {
        session::try_settings(&self.settings)?;
        settings::nested(|| {
            for (name, value) in self.subject.session() {
                settings::set_text_local(name, value)?;
            }
            throttles::check_query(self.throttle_query.as_deref())?;
            on_end::check(self.on_end.as_deref())
        })?;
        if !self.bounds {
            return Ok(self.subject.options);
        }
        let settled = self.subject.settled()?;
        if let Some(covered) = &self.covered {
            let key = self.subject.key();
            bounds::refuse_narrowed(&self.job, &self.relation_name, key, &settled, covered)?;
        }
        Ok(settled)
    }
}
