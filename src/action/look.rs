//! Looks at rows without changing anything: a dry run, or a verification.

use serde::{Deserialize, Serialize};

use super::{Action, Batch, Changes, Rendered, Writes};
use crate::model::fate::Fate;
use crate::scan::clause::all_of;

/// A look at rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// The changes that the look is about.
    #[serde(flatten)]
    pub of: Changes,
    /// The question asked about each row.
    pub question: Question,
}

/// The question asked about each row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// How would the update change the row?
    DryRun,
    /// Is the row as another job should have left it?
    Verify {
        /// Id of that job.
        job: i64,
        /// The criterion for a wrong row.
        check: Check,
    },
}

/// Counts of a job that only reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Number of rows that were looked at.
    pub passed: i64,
    /// Number of those rows that match the WHERE clause, where that was asked.
    pub matching: i64,
    /// Number of rows that would change, or that are wrong.
    pub found: i64,
    /// Number of rows that would fail.
    pub failed: i64,
}

/// The reason why the verdict is uncertain, as a phrase. For rows that differ from what the SET list gives: why its result depends on
/// whether the row is done. For the WHERE clause: why it tells nothing about the rows for which it is not true.
pub type Doubt<'a> = Option<&'a str>;

/// The criterion for a wrong row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The WHERE clause is still true for the row.
    Pending,
    /// This clause is not true for the row.
    Clause(String),
    /// The SET list would change the row.
    Recompute,
}

impl Action for Look {
    fn name(&self) -> &'static str {
        "look"
    }

    fn done(&self) -> &'static str {
        "looked at"
    }

    fn writes(&self) -> Writes<'_> {
        Writes::Nothing
    }

    fn excludes_itself(&self, where_clause: Option<&str>) -> bool {
        // A look walks as the update would.
        self.of.as_action().excludes_itself(where_clause)
    }

    fn fate(&self) -> Fate {
        // Of what the look is about.
        self.of.as_action().fate()
    }

    fn clauses(&self) -> Vec<&str> {
        self.of.as_action().clauses()
    }

    fn render(&self, batch: &Batch) -> Rendered {
        if self.evaluates() {
            return self.of.as_action().reading(batch);
        }
        let given = match batch.returning.is_empty() {
            true => "NULL".to_owned(),
            false => batch.returning.join(", "),
        };
        let rows = batch.rows.as_ref();
        let condition = rows.map_or("true", |rows| rows.condition.as_str());
        Rendered::alone(format!(
            "SELECT {given}{} FROM {} WHERE {condition}",
            self.tried(),
            batch.item
        ))
    }
}

impl Look {
    /// Returns the condition for the rows that the look is about: those that match the WHERE clause, or those that are wrong.
    pub fn condition(&self, where_clause: Option<&str>) -> Option<String> {
        match self.question {
            Question::Verify { .. } if !self.evaluates() => self.question.wrong(where_clause),
            _ => where_clause.map(str::to_owned),
        }
    }

    /// Returns the result in one line, as [`Question::verdict`] does; a dry run says what would become of the rows.
    pub fn verdict(&self, found: Found, doubt: Doubt, unseen: Doubt) -> String {
        let of = self.of.as_action();
        if self.question != Question::DryRun || of.fate() == Fate::Changed {
            return self.question.verdict(found, doubt, unseen);
        }
        let failed = match found.failed {
            0 => String::new(),
            n => format!(", {n} would fail"),
        };
        format!(
            "dry run: of {} rows {} would be {}{failed}",
            found.passed,
            found.found,
            of.done()
        )
    }

    /// Returns the values that a dry run computes besides the key, as a list that begins with a comma: those that would be copied.
    fn tried(&self) -> String {
        match (&self.of, &self.question) {
            (Changes::Copy(copy), Question::DryRun) => format!(", {}", copy.select_list),
            _ => String::new(),
        }
    }

    /// Whether the new rows are computed. Of rows that would be deleted there are none.
    pub fn evaluates(&self) -> bool {
        matches!(self.of, Changes::Update(_)) && self.question.evaluates()
    }
}

impl Question {
    /// Whether the SET list, if there is one, is evaluated.
    fn evaluates(&self) -> bool {
        matches!(
            self,
            Question::DryRun
                | Question::Verify {
                    check: Check::Recompute,
                    ..
                }
        )
    }

    /// Returns the result in one line. `unseen`: why rows of the job may not have been looked at.
    pub fn verdict(&self, found: Found, doubt: Doubt, unseen: Doubt) -> String {
        let Found {
            passed,
            matching,
            found,
            failed,
        } = found;
        let failures = |how: &str| match failed {
            0 => String::new(),
            n => format!(", {n} {how}"),
        };
        match self {
            Question::DryRun => {
                let same = (matching - found).max(0);
                format!(
                    "dry run: of {passed} rows {found} would change, {same} would get what they have{}",
                    failures("would fail")
                )
            }
            Question::Verify {
                job,
                check: Check::Pending,
            } if found == 0 && failed == 0 && doubt.is_some() => {
                format!(
                    "job {job} is not verified: none of {passed} rows matches where_clause still, but {}: verify it with recompute or a check_clause",
                    doubt.unwrap_or_default()
                )
            }
            Question::Verify { job, .. } if found == 0 && failed == 0 && unseen.is_some() => {
                format!(
                    "job {job} is not verified: {}: verify it with a check_clause",
                    unseen.unwrap_or_default()
                )
            }
            Question::Verify { job, .. } if found == 0 && failed == 0 => {
                format!("job {job} is verified: none of {passed} rows is wrong")
            }
            Question::Verify { job, .. } if found == 0 => {
                format!(
                    "job {job} is not verified: {failed} of {passed} rows could not be looked at"
                )
            }
            Question::Verify {
                job,
                check: Check::Recompute,
            } if doubt.is_some() => {
                format!(
                    "job {job} is not verified: {found} of {passed} rows are undecided, since set_clause would change them, but {}: verify them with a check_clause{}",
                    doubt.unwrap_or_default(),
                    failures("could not be looked at")
                )
            }
            Question::Verify { job, check } => {
                let wrong = match check {
                    Check::Pending => "still match where_clause",
                    Check::Clause(_) => "do not pass the check",
                    Check::Recompute => "have not what set_clause gives",
                };
                format!(
                    "job {job} is not verified: {found} of {passed} rows {wrong}, see backfill.verify_failures{}",
                    failures("could not be looked at")
                )
            }
        }
    }

    /// Returns the beginning of the line that [`verdict`](Self::verdict) returns.
    pub fn opening(&self) -> String {
        match self {
            Question::DryRun => "dry run: ".to_owned(),
            Question::Verify { job, .. } => format!("job {job} is "),
        }
    }

    /// Returns the condition for the wrong rows among those that match the WHERE clause; `None` if only the SET list can tell.
    pub fn wrong(&self, where_clause: Option<&str>) -> Option<String> {
        let Question::Verify { check, .. } = self else {
            return None;
        };
        match check {
            Check::Pending => where_clause.map(str::to_owned),
            Check::Clause(clause) => {
                let wrong = format!("(\n{clause}\n) IS NOT TRUE");
                all_of(where_clause.map(str::to_owned).into_iter().chain([wrong]))
            }
            Check::Recompute => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_is_unknown_does_not_hold() {
        let check = Check::Clause("a > 0 -- sign".to_owned());
        let question = Question::Verify { job: 7, check };
        let wrong = question.wrong(None).unwrap();
        assert_eq!(wrong, "(\na > 0 -- sign\n) IS NOT TRUE");
        let wrong = question.wrong(Some("b = 1 OR c")).unwrap();
        assert_eq!(
            wrong,
            "(\nb = 1 OR c\n) AND (\n(\na > 0 -- sign\n) IS NOT TRUE\n)"
        );
        assert_eq!(Question::DryRun.wrong(Some("a IS NULL")), None);
    }

    #[test]
    fn a_verdict_has_all_counts() {
        let found = Found {
            passed: 100,
            matching: 40,
            found: 30,
            failed: 2,
        };
        let dry = Question::DryRun.verdict(found, None, None);
        assert!(dry.starts_with("dry run: of 100 rows 30 would change, 10 would get"));
        assert!(dry.contains("2 would fail"));
        let check = Check::Pending;
        let verify = Question::Verify { job: 7, check };
        assert!(verify.verdict(found, None, None).contains("30 of 100 rows"));
        assert!(
            verify
                .verdict(Found::default(), None, None)
                .contains("is verified")
        );
        assert!(dry.starts_with(&Question::DryRun.opening()));
        let said = verify.verdict(found, None, None);
        assert!(said.starts_with(&verify.opening()));
        let check = Check::Recompute;
        let verify = Question::Verify { job: 7, check };
        let doubt = verify.verdict(found, Some("it reads what it sets"), None);
        assert!(doubt.contains("30 of 100 rows are undecided"));
        let verify = Question::Verify {
            job: 7,
            check: Check::Pending,
        };
        let unlike = verify.verdict(Found::default(), Some("it was redefined"), None);
        assert!(unlike.contains("is not verified: none of 0 rows matches"));
        let check = Check::Recompute;
        let verify = Question::Verify { job: 7, check };
        let none = verify.verdict(Found::default(), Some("it reads what it sets"), None);
        assert!(none.contains("is verified"));
    }
}
