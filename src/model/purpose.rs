//! What a job is for.

use serde::{Deserialize, Serialize};

/// What a job does with the rows that it walks over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// It updates them.
    #[default]
    Update,
    /// It only sees what an update would make of them.
    DryRun,
    /// It looks whether the rows of another job are as they should be.
    Verify {
        /// That job.
        job: i64,
        /// What makes a row wrong.
        check: Check,
    },
}

/// What a job that only reads has found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Rows that were looked at.
    pub passed: i64,
    /// Rows among them that match the WHERE clause, where that was asked.
    pub matching: i64,
    /// Rows that would change, or that are wrong.
    pub found: i64,
    /// Rows that would fail.
    pub failed: i64,
}

/// What makes the verdict uncertain, as a phrase: on rows that differ from what the SET list gives, why what it gives depends on whether
/// the row is done; where the WHERE clause was asked for, why it says nothing of the rows that it is not true of.
pub type Doubt<'a> = Option<&'a str>;

/// What makes a row wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Check {
    /// The WHERE clause is true of it still.
    Pending,
    /// This is not true of it.
    Clause(String),
    /// The SET list would change it.
    Recompute,
}

impl Purpose {
    /// Whether it changes no row.
    pub fn is_read_only(&self) -> bool {
        *self != Purpose::Update
    }

    /// Whether it evaluates the SET list without doing it.
    pub fn evaluates(&self) -> bool {
        matches!(
            self,
            Purpose::DryRun
                | Purpose::Verify {
                    check: Check::Recompute,
                    ..
                }
        )
    }

    /// The job that it verifies, and what is asked of its rows, as they are stored.
    pub fn stored(&self) -> (Option<i64>, Option<&str>, bool) {
        match self {
            Purpose::Update | Purpose::DryRun => (None, None, false),
            Purpose::Verify { job, check } => match check {
                Check::Pending => (Some(*job), None, false),
                Check::Clause(clause) => (Some(*job), Some(clause), false),
                Check::Recompute => (Some(*job), None, true),
            },
        }
    }

    /// What was stored, read again.
    pub fn read(dry_run: bool, job: Option<i64>, clause: Option<&str>, recompute: bool) -> Purpose {
        let Some(job) = job else {
            return if dry_run {
                Purpose::DryRun
            } else {
                Purpose::Update
            };
        };
        let check = match clause {
            Some(clause) => Check::Clause(clause.to_owned()),
            None if recompute => Check::Recompute,
            None => Check::Pending,
        };
        Purpose::Verify { job, check }
    }

    /// What was found, in a line; nothing where rows are updated.
    pub fn verdict(&self, found: Found, doubt: Doubt) -> Option<String> {
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
        Some(match self {
            Purpose::Update => return None,
            Purpose::DryRun => {
                let same = (matching - found).max(0);
                format!(
                    "dry run: of {passed} rows {found} would change, {same} would get what they have{}",
                    failures("would fail")
                )
            }
            Purpose::Verify {
                job,
                check: Check::Pending,
            } if found == 0 && failed == 0 && doubt.is_some() => {
                format!(
                    "job {job} is not verified: none of {passed} rows matches where_clause still, but {}: verify it with recompute or a check_clause",
                    doubt.unwrap_or_default()
                )
            }
            Purpose::Verify { job, .. } if found == 0 && failed == 0 => {
                format!("job {job} is verified: none of {passed} rows is wrong")
            }
            Purpose::Verify { job, .. } if found == 0 => {
                format!(
                    "job {job} is not verified: {failed} of {passed} rows could not be looked at"
                )
            }
            Purpose::Verify {
                job,
                check: Check::Recompute,
            } if doubt.is_some() => {
                format!(
                    "job {job} is not verified: {found} of {passed} rows are undecided, since set_clause would change them, but {}: verify them with a check_clause{}",
                    doubt.unwrap_or_default(),
                    failures("could not be looked at")
                )
            }
            Purpose::Verify { job, check } => {
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
        })
    }

    /// How the line begins that says what was found.
    pub fn opening(&self) -> Option<String> {
        match self {
            Purpose::Update => None,
            Purpose::DryRun => Some("dry run: ".to_owned()),
            Purpose::Verify { job, .. } => Some(format!("job {job} is ")),
        }
    }

    /// The condition that is true of the rows that are wrong, of those that the WHERE clause is about; none where
    /// the SET list tells.
    pub fn wrong(&self, where_clause: Option<&str>) -> Option<String> {
        let Purpose::Verify { check, .. } = self else {
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

/// The condition that is true where all of these are; none if there are none.
pub fn all_of(conditions: impl IntoIterator<Item = String>) -> Option<String> {
    let conditions: Vec<String> = conditions.into_iter().collect();
    match conditions.as_slice() {
        [] => None,
        [alone] => Some(alone.clone()),
        several => Some(format!("(\n{}\n)", several.join("\n) AND (\n"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_again() {
        let verify = |check| Purpose::Verify { job: 7, check };
        for purpose in [
            Purpose::Update,
            Purpose::DryRun,
            verify(Check::Pending),
            verify(Check::Clause("a > 0".to_owned())),
            verify(Check::Recompute),
        ] {
            let (job, clause, recompute) = purpose.stored();
            let dry_run = purpose == Purpose::DryRun;
            assert_eq!(Purpose::read(dry_run, job, clause, recompute), purpose);
        }
    }

    #[test]
    fn a_check_that_is_unknown_does_not_hold() {
        let check = Check::Clause("a > 0 -- sign".to_owned());
        let purpose = Purpose::Verify { job: 7, check };
        let wrong = purpose.wrong(None).unwrap();
        assert_eq!(wrong, "(\na > 0 -- sign\n) IS NOT TRUE");
        let wrong = purpose.wrong(Some("b = 1 OR c")).unwrap();
        assert_eq!(
            wrong,
            "(\nb = 1 OR c\n) AND (\n(\na > 0 -- sign\n) IS NOT TRUE\n)"
        );
        assert_eq!(Purpose::DryRun.wrong(Some("a IS NULL")), None);
    }

    #[test]
    fn a_verdict_has_all_counts() {
        let found = Found {
            passed: 100,
            matching: 40,
            found: 30,
            failed: 2,
        };
        let dry = Purpose::DryRun.verdict(found, None).unwrap();
        assert!(dry.starts_with("dry run: of 100 rows 30 would change, 10 would get"));
        assert!(dry.contains("2 would fail"));
        let check = Check::Pending;
        let verify = Purpose::Verify { job: 7, check };
        assert!(
            verify
                .verdict(found, None)
                .unwrap()
                .contains("30 of 100 rows")
        );
        assert!(
            verify
                .verdict(Found::default(), None)
                .unwrap()
                .contains("is verified")
        );
        assert_eq!(Purpose::Update.verdict(found, None), None);
        assert!(dry.starts_with(&Purpose::DryRun.opening().unwrap()));
        let said = verify.verdict(found, None).unwrap();
        assert!(said.starts_with(&verify.opening().unwrap()));
        let check = Check::Recompute;
        let verify = Purpose::Verify { job: 7, check };
        let doubt = verify.verdict(found, Some("it reads what it sets"));
        assert!(doubt.unwrap().contains("30 of 100 rows are undecided"));
        let verify = Purpose::Verify {
            job: 7,
            check: Check::Pending,
        };
        let unlike = verify.verdict(Found::default(), Some("it was redefined"));
        assert!(
            unlike
                .unwrap()
                .contains("is not verified: none of 0 rows matches")
        );
        let check = Check::Recompute;
        let verify = Purpose::Verify { job: 7, check };
        let none = verify.verdict(Found::default(), Some("it reads what it sets"));
        assert!(none.unwrap().contains("is verified"));
    }
}
