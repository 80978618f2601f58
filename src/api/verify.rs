//! `backfill.verify`: checks whether the rows of a job are as they should be.

use pgrx::pg_sys::Oid;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::backfill::Backfill;
use super::caller::{locked_job, required};
use super::reapply::{begin, inherited, its_table, release};
use super::subject::Subject;
use super::{changed, checks, scope, tables};
use crate::action::{Changes, Check, Kind, Look, Question};
use crate::error::{Error, Result, sqlstate};
use crate::model::bounds::KeyText;
use crate::model::options::{Options, is_alterable};
use crate::model::state::State;
use crate::pg::relation::Relation;
use crate::pg::report::notice;
use crate::pg::{clauses, physical, repeat};
use crate::quote::{ident, literal};
use crate::scan::clause;
use crate::store::job::{Definition, Job};
use crate::store::walk;
use crate::stranger::errand::{Errand, carry_out};
use crate::table::copied;

/// Starts a verification of a job at commit; returns its id.
pub fn verify(
    job_id: Option<i64>,
    check_clause: Option<String>,
    recompute: Option<bool>,
    options: Option<Value>,
) -> Result<i64> {
    let of = locked_job(job_id, "backfill.verify()")?;
    let recompute = required(recompute, "recompute")?;
    let given = Options::parse(&required(options, "options")?)?;
    refuse_part(&of)?;
    let relation = its_table(&of)?;
    let check = choose(&of, check_clause, recompute)?;
    let bounds = walk::bounds(of.id)?.unwrap_or_default();
    refuse_options(&inherited(&of), &given)?;
    let before = inherited(&of);
    let options = Options {
        // A job that has walked between bounds is verified between the same bounds.
        key_from: bounds.from.map(KeyText::from),
        key_to: bounds.to.map(KeyText::from),
        ..changed::check(&of, &before, before.overlaid(&given)?)?
    };
    let question = Question::Verify { job: of.id, check };
    let where_clause = carry_out(VerificationOf {
        subject: Subject::of(&of),
        question: question.clone(),
    })?;
    let definition = Definition {
        options,
        action: Kind::Look(Look {
            of: of.definition.action.changes(),
            question,
        }),
        where_clause,
        ..of.definition.clone()
    };
    let id = begin(&of, &relation, &definition, "verify")?;
    // A verification changes nothing, so it needs no approval.
    release(id, true)
}

/// Checks what a verification of a stored job asks; returns the WHERE clause for the rows to be looked at.
#[derive(Serialize, Deserialize)]
pub struct VerificationOf {
    subject: Subject,
    question: Question,
}

impl Errand for VerificationOf {
    const NAME: &'static str = "verify";
    type Answer = Option<String>;

    fn owner(&self) -> Oid {
        self.subject.owner()
    }

    fn run(self) -> Result<Self::Answer> {
        if let Question::Verify {
            check: Check::Clause(clause),
            ..
        } = &self.question
        {
            clauses::check_expression("check_clause", clause)?;
        }
        let of = self.subject.open()?;
        of.under_its_settings(|| {
            let pending = matches!(
                self.question,
                Question::Verify {
                    check: Check::Pending,
                    ..
                }
            );
            let where_clause = match pending {
                true => of.where_clause.clone(),
                false if self.beyond_conditions(&of)? => None,
                false => scope::lasting(&of)?,
            };
            analyse(&of, &self.question, where_clause.as_deref())?;
            Ok(where_clause)
        })
    }
}

impl VerificationOf {
    /// Whether a check_clause is asked of all rows, since a trigger may have changed any column of those that the job was about.
    fn beyond_conditions(&self, of: &Backfill) -> Result<bool> {
        let Question::Verify {
            job,
            check: Check::Clause(_),
        } = &self.question
        else {
            return Ok(false);
        };
        if of.where_clause.is_none() {
            return Ok(false);
        }
        for table in tables::of(&of.relation, of.options.only())? {
            if physical::may_write_back(table.oid)? {
                let message = format!(
                    "check_clause is asked of all rows of table {}: a trigger may have changed the columns that the where_clause of job {job} reads",
                    of.relation.shown
                );
                notice(
                    &message,
                    Some(
                        "Where it is about some rows only, add the others to it: check_clause => '... OR ...'.",
                    ),
                );
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Refuses a job that cannot be verified.
fn refuse_part(of: &Job) -> Result<()> {
    if of.definition.action.is_read_only() {
        return Err(Error::new(
            sqlstate::NOT_IN_PREREQUISITE_STATE,
            format!("backfill {} has changed nothing to be verified", of.shown()),
        )
        .hint("Give the id of the job that has changed the rows."));
    }
    let state = of.state();
    if matches!(
        state,
        State::Pending | State::Running | State::Pausing | State::Cancelling
    ) {
        return Err(Error::new(
            sqlstate::NOT_IN_PREREQUISITE_STATE,
            format!(
                "cannot verify backfill {}: it {}",
                of.shown(),
                state.phrase(false)
            ),
        )
        .hint(match state {
            State::Pending => "Start it first.".to_owned(),
            _ => format!(
                "Wait for it (CALL backfill.wait({0})), or SELECT backfill.pause({0}).",
                of.id
            ),
        }));
    }
    Ok(())
}

/// Refuses options that make no sense here: all but those of the pace.
fn refuse_options(of: &Options, given: &Options) -> Result<()> {
    const OTHERS: &[&str] = &["limit_rows", "key_from", "key_to", "on_end", "settings"];
    let differs = |name: &str| OTHERS.contains(&name) || !is_alterable(name);
    let merged = of.differences(&of.overlaid(given)?);
    match merged.iter().find(|(name, ..)| differs(name)) {
        None => Ok(()),
        Some((name, ..)) => Err(Error::invalid(format!(
            "option \"{name}\" cannot be given to verify a job"
        ))
        .hint("Options of the pace can: workers, target_ms, and what it gives way to.")),
    }
}

/// Chooses what is asked of the rows.
fn choose(of: &Job, check_clause: Option<String>, recompute: bool) -> Result<Check> {
    let changes = of.definition.action.changes();
    match (check_clause, recompute) {
        (Some(_), true) => Err(Error::invalid("check_clause and recompute are both given")
            .hint("One verification asks one thing: start two.")),
        (Some(text), false) => {
            clause::check("check_clause", &text)?;
            Ok(Check::Clause(clause::trimmed(&text).to_owned()))
        }
        (None, true) if of.definition.action.set_clause().is_none() => {
            Err(Error::invalid(format!(
                "backfill {} has no set_clause to be computed again",
                of.shown()
            ))
            .hint(match changes {
                Changes::Delete(_) => {
                    "Leave recompute out: rows that match where_clause still are wrong."
                }
                Changes::Copy(_) => {
                    "Leave recompute out: rows without their row in the target are wrong."
                }
                _ => "Say what is to be true of each row: check_clause => '...'.",
            }))
        }
        (None, false) if matches!(changes, Changes::Copy(_)) => match &changes {
            Changes::Copy(copy) => copied::check(copy).map(Check::Clause),
            _ => Err(Error::internal("not a copy")),
        },
        (None, false) if matches!(changes, Changes::Execute(_)) => Err(Error::invalid(format!(
            "nothing tells whether the statement of backfill {} has done its work for a row",
            of.shown()
        ))
        .hint(format!(
            "Say what is to be true of each row: SELECT backfill.verify({}, check_clause => 'EXISTS (...)').",
            of.id
        ))),
        (None, true) => Ok(Check::Recompute),
        (None, false) if of.definition.where_clause.is_some() => Ok(Check::Pending),
        (None, false) => Err(Error::invalid(format!(
            "backfill {} has no where_clause that would tell whether a row is done",
            of.shown()
        ))
        .hint(format!(
            "Say what is to be true of each row, SELECT backfill.verify({0}, check_clause => {1}), or have set_clause evaluated again: recompute => true.",
            of.id,
            literal(&format!("{} IS NOT NULL", of.definition.action.set_columns().first().map_or_else(|| "...".to_owned(), |column| ident(column))))
        ))),
    }
}

/// Analyses the question. Within a session of the owner's.
fn analyse(of: &Backfill, question: &Question, clause: Option<&str>) -> Result<()> {
    let relation = &of.relation;
    for table in tables::of(relation, of.options.only())? {
        let alias = (table.oid != relation.oid).then_some(relation.name.as_str());
        match question.wrong(clause) {
            Some(wrong) => {
                let from = table.alone(alias);
                let statement = format!("SELECT FROM {from} WHERE (\n{wrong}\n)");
                let given = match question {
                    Question::Verify {
                        check: Check::Clause(clause),
                        ..
                    } => clause,
                    _ => &wrong,
                };
                clauses::explain(&statement, &[given])
                    .map_err(|error| checks::with_hint(error, &table))?;
            }
            None => {
                if let Some(set_clause) = of.action.set_list() {
                    refuse_unrepeatable(&set_clause, &table, alias)?;
                }
            }
        }
    }
    Ok(())
}

/// Refuses to compute again a SET list that gives something else each time: rows that are right would seem wrong. If
/// its result depends on whether it was applied before, it is allowed, and the verdict says so.
fn refuse_unrepeatable(set_clause: &str, table: &Relation, known_as: Option<&str>) -> Result<()> {
    if !repeat::depends_on_the_moment(table, known_as, set_clause)? {
        return Ok(());
    }
    let why = repeat::OF_THE_MOMENT;
    Err(
        Error::invalid(format!("set_clause gives something else each time: {why}"))
            .hint("Say what is to be true of each row instead: check_clause => '...'."),
    )
}
