//! Whether a job's row is as the extension's functions wrote it, in this very database.

/// The standing of a job's row: `Here` if the functions wrote it in this database and its owner is still the same role;
/// otherwise, what keeps it from running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The job may run.
    Here,
    /// The row was written in another cluster, database or extension: it comes from a dump, a copied database, or the
    /// cluster that pg_upgrade made this one from.
    Copy,
    /// The role with the owner's OID has another name now: it was renamed, or it was dropped and its OID was used
    /// again.
    OwnerChanged,
    /// The row does not have the seal of the functions: it was written by something else.
    Unsealed,
}

impl Standing {
    /// The name used by the views.
    pub fn name(self) -> &'static str {
        match self {
            Standing::Here => "here",
            Standing::Copy => "copy",
            Standing::OwnerChanged => "owner changed",
            Standing::Unsealed => "unsealed",
        }
    }

    /// Returns the standing with this name; an unknown name counts as unsealed.
    pub fn parse(name: &str) -> Standing {
        [Standing::Here, Standing::Copy, Standing::OwnerChanged]
            .into_iter()
            .find(|standing| standing.name() == name)
            .unwrap_or(Standing::Unsealed)
    }

    /// Returns the text for `waiting_for`: why the job stands still, and what lets it go on.
    pub fn waits_for(self, job: i64) -> Option<String> {
        Some(match self {
            Standing::Here => return None,
            Standing::Copy => format!(
                "this database is a copy of the one the job was started in, or that one after pg_upgrade: backfill.resume({job}) runs it here"
            ),
            Standing::OwnerChanged => format!(
                "a superuser: the job's owner was renamed, or dropped and its OID used again: backfill.resume({job}) runs it as that role, backfill.cancel({job}) ends it"
            ),
            Standing::Unsealed => format!(
                "a superuser: the job was not written by backfill's functions (a restore, replication, an UPDATE by hand): backfill.resume({job}) runs it as it is, backfill.cancel({job}) ends it"
            ),
        })
    }

    /// Returns what keeps a definition that was not started from being started, and the way out.
    pub fn keeps_from_start(self) -> Option<&'static str> {
        match self {
            Standing::Here => None,
            Standing::Copy => Some(
                "backfill.start() by its owner, which checks it again: this database is a copy of the one it was defined in",
            ),
            Standing::OwnerChanged => Some(
                "backfill.cancel(), and another definition: its owner was renamed, or dropped and its OID used again",
            ),
            Standing::Unsealed => Some(
                "backfill.cancel(), and another definition: it was not written by backfill's functions (a restore, replication, an UPDATE by hand)",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for standing in [
            Standing::Here,
            Standing::Copy,
            Standing::OwnerChanged,
            Standing::Unsealed,
        ] {
            assert_eq!(Standing::parse(standing.name()), standing);
            assert_eq!(standing.waits_for(7).is_none(), standing == Standing::Here);
        }
        assert_eq!(Standing::parse("nonsense"), Standing::Unsealed);
    }
}
