//! `backfill.reapply`: does again the rows that a verification has found to be wrong.

use super::caller::activated_job;
use super::sample::Backfill;
use super::subject::Subject;
use super::verify::{begin, inherited, its_table, release, unseen};
use super::{existing, rehearsed, scope, tables};
use crate::action::Found;
use crate::error::{Error, Result, sqlstate};
use crate::model::options::{Options, Strategy};
use crate::model::state::State;
use crate::pg::repeat;
use crate::pg::report::notice;
use crate::scan::clause::all_of;
use crate::store::job::Definition;
use crate::store::{rights, slice, trial, verify_failure, walk};
use crate::stranger::errand::{Errand, carry_out};
use pgrx::pg_sys::Oid;
use serde::{Deserialize, Serialize};

/// Starts a job at commit that does again the rows that the last verification has found to be wrong. Returns its id;
/// `None` if there are no such rows. `typed`: whether the call is a client's own statement.
pub fn reapply(job_id: Option<i64>, typed: bool) -> Result<Option<i64>> {
    let of = activated_job(job_id, "backfill.reapply()")?;
    rights::require_execute("start")?;
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
    let question = verification.definition.action.question();
    let question = question.ok_or_else(|| Error::internal("a verification that asks nothing"))?;
    let unset = carry_out(ConditionsOf {
        subject: Subject::of(&of),
        job: of.id,
        computed: question.evaluates(),
    })?;
    let still = question.wrong(verification.definition.where_clause.as_deref());
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
    let still = if question.evaluates() {
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
    release(id, State::Pending, typed).map(Some)
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
        if let Some(why) = repeat::reads_what_it_sets(&table, alias, &of.update().set_clause)? {
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
