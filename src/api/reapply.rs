//! `backfill.reapply`: does again the rows that a verification has found to be wrong.

use pgrx::pg_sys::Oid;
use serde::{Deserialize, Serialize};

use super::backfill::Backfill;
use super::caller::activated_job;
use super::subject::Subject;
use super::{approve, existing, launch, rehearsed, scope, tables};
use crate::action::Found;
use crate::error::{Error, Result, sqlstate};
use crate::model::fate::Fate;
use crate::model::options::{Options, Strategy};
use crate::model::state::{State, Wish};
use crate::pg::relation::{self, Relation};
use crate::pg::report::notice;
use crate::pg::{repeat, server};
use crate::scan::clause::all_of;
use crate::store::job::{self, Definition, Job};
use crate::store::{event, rights, slice, trial, verify_failure, walk};
use crate::stranger::errand::{Errand, carry_out};

/// Starts a job at commit that does again the rows that the last verification has found to be wrong. Returns its id;
/// `None` if there are no such rows. `typed`: whether the call is a client's own statement.
pub fn reapply(job_id: Option<i64>, typed: bool) -> Result<Option<i64>> {
    let of = activated_job(job_id, "backfill.reapply()")?;
    rights::require_execute("start")?;
    if of.definition.action.as_action().fate() == Fate::Kept {
        return Err(Error::new(
            sqlstate::FEATURE_NOT_SUPPORTED,
            format!(
                "cannot do rows of backfill {} again, whose rows are {}",
                of.shown(),
                of.definition.action.as_action().done()
            ),
        )
        .hint(
            "Start another job, with a where_clause that is true of the rows that are missing.",
        ));
    }
    let Some(verification) = trial::last_verification(of.id)? else {
        return Err(Error::new(
            sqlstate::NOT_IN_PREREQUISITE_STATE,
            format!("backfill {} has not been verified", of.shown()),
        )
        .hint(format!("SELECT backfill.verify({});", of.id)));
    };
    if verification.state() != State::Completed {
        return Err(Error::new(
            sqlstate::NOT_IN_PREREQUISITE_STATE,
            format!(
                "the last verification of backfill {}, {}, {}",
                of.shown(),
                verification.shown(),
                verification.state().phrase(true)
            ),
        )
        .hint(match verification.state() {
            State::Failed => format!(
                "Mend the cause, and SELECT backfill.resume({}).",
                verification.id
            ),
            _ => format!("Wait for it: CALL backfill.wait({});", verification.id),
        }));
    }
    let Found {
        found: wrong,
        failed,
        ..
    } = slice::found(verification.id)?;
    if wrong == 0 && failed > 0 {
        return Err(unseen(&of, &verification, failed));
    }
    if wrong == 0 {
        notice(
            &format!("backfill {} is verified: no row is wrong", of.shown()),
            None,
        );
        return Ok(None);
    }
    let recorded = verify_failure::count(verification.id)?;
    if recorded < wrong {
        return Err(Error::new(
            sqlstate::PROGRAM_LIMIT_EXCEEDED,
            format!("{wrong} rows are wrong, and only {recorded} of them are recorded"),
        )
        .hint("Start another job, with a where_clause that is true of these rows."));
    }
    if !verify_failure::have_keys(verification.id)? {
        return Err(Error::new(
            sqlstate::NOT_IN_PREREQUISITE_STATE,
            format!("table {} has no key to find the rows by", of.relation_name),
        )
        .hint("Start another job, with a where_clause that is true of these rows."));
    }
    let relation = its_table(&of)?;
    rehearsed::require_for_reapply(&of, &verification)?;
    let look = verification.definition.action.look();
    let look = look.ok_or_else(|| Error::internal("a verification that asks nothing"))?;
    let unset = carry_out(ConditionsOf {
        subject: Subject::of(&of),
        job: of.id,
        computed: look.evaluates(),
    })?;
    let still = look
        .question
        .wrong(verification.definition.where_clause.as_deref());
    let definition = Definition {
        where_clause: all_of(unset.into_iter().chain(still)),
        options: Options {
            // Row by row, since they are few.
            strategy: Some(Strategy::Sequential),
            ..inherited(&of)
        },
        ..of.definition.clone()
    };
    let id = begin(&of, &relation, &definition, "reapply")?;
    existing::refuse_overlap(id)?;
    verify_failure::take_up(verification.id, id)?;
    let rows = if wrong == 1 { "row" } else { "rows" };
    // If the SET list was evaluated, rows are not checked again before they are set.
    let still = if look.evaluates() {
        ""
    } else {
        ", if still so"
    };
    walk::add_note(
        id,
        &format!(
            "for {wrong} {rows} that job {} has found to be wrong{still}",
            verification.id
        ),
    )?;
    release(id, typed).map(Some)
}

/// The conditions of a stored job's WHERE clause under which a row may be done again.
#[derive(Serialize, Deserialize)]
pub struct ConditionsOf {
    subject: Subject,
    job: i64,
    /// Whether the rows were found by computing them again.
    computed: bool,
}

impl Errand for ConditionsOf {
    const NAME: &'static str = "reapply";
    type Answer = Option<String>;

    fn owner(&self) -> Oid {
        self.subject.owner()
    }

    fn run(self) -> Result<Self::Answer> {
        let of = self.subject.open()?;
        of.under_its_settings(|| {
            if self.computed {
                refuse_undecided(&of, self.job)?;
            }
            scope::unset(&of)
        })
    }
}

/// Refuses to do rows again that may be done already, if the SET list gives something else for a row that is done.
fn refuse_undecided(of: &Backfill, id: i64) -> Result<()> {
    for table in tables::of(&of.relation, of.options.only())? {
        let alias = (table.oid != of.relation.oid).then_some(of.relation.name.as_str());
        let Some(set_clause) = of.action.set_list() else {
            continue;
        };
        if let Some(why) = repeat::reads_what_it_sets(&table, alias, &set_clause)? {
            return Err(Error::new(
                sqlstate::NOT_IN_PREREQUISITE_STATE,
                format!("set_clause cannot tell which rows are wrong: {why}"),
            )
            .detail("A row that is done would be changed once more.")
            .hint(format!(
                "Have the rows found by what is to be true of each: SELECT backfill.verify({id}, check_clause => '...'); when that has completed, SELECT backfill.reapply({id})."
            )));
        }
    }
    Ok(())
}

/// Returns the error that rows can't be done again because some could not even be looked at.
pub fn unseen(of: &Job, verification: &Job, failed: i64) -> Error {
    Error::new(
        sqlstate::NOT_IN_PREREQUISITE_STATE,
        format!(
            "backfill {} is not verified: {failed} rows could not be looked at",
            of.shown()
        ),
    )
    .hint(format!(
        "See backfill.failed_rows, where job_id is {}; once the cause is mended, SELECT backfill.verify({}).",
        verification.id, of.id
    ))
}

/// Returns the options of a job that also hold for a job that follows it.
pub(super) fn inherited(of: &Job) -> Options {
    Options {
        limit_rows: None,
        key_from: None,
        key_to: None,
        on_end: None,
        max_failed_rows: None,
        ..of.definition.options.clone()
    }
}

pub(super) fn its_table(of: &Job) -> Result<Relation> {
    let relation = relation::describe(of.relation)?.ok_or_else(|| {
        Error::new(
            sqlstate::UNDEFINED_TABLE,
            format!("table {} no longer exists", of.relation_name),
        )
        .hint("There is nothing to look at.")
    })?;
    relation.refuse_deceptive()?;
    Ok(relation)
}

/// Stores a job that follows another one, with the same owner; returns its id.
pub(super) fn begin(
    of: &Job,
    relation: &Relation,
    definition: &Definition,
    event: &str,
) -> Result<i64> {
    let pace = (of.batch_size, of.sleep_ms);
    let id = job::insert(of.owner, relation, None, definition, pace.0, pace.1)?;
    let me = server::current_user();
    event::change(id, me, "define", None, State::Pending)?;
    event::record(of.id, me, event, None, Some(&format!("job {id}")))?;
    Ok(id)
}

/// Makes a job that [`begin`] has stored run at commit, or wait for approval; returns its id.
pub(super) fn release(id: i64, typed: bool) -> Result<i64> {
    let job = job::load(id)?.ok_or_else(|| job::unknown(id))?;
    if approve::hold(&job, typed)? {
        return Ok(id);
    }
    job::set_wish(id, Wish::Run)?;
    event::change(
        id,
        server::current_user(),
        "start",
        Some(State::Pending),
        State::Running,
    )?;
    let started = job::load(id)?.ok_or_else(|| job::unknown(id))?;
    launch::workers(&started)?;
    Ok(id)
}
