//! How a job's row stands: as the extension's functions wrote it, in this very database, or not.

/// What the row of a job that is no copy, of an owner that is still the same, written by the functions, has;
/// and what stands in the way of one that is otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It may be run.
    Here,
    /// It was defined or started in another cluster, database or extension: a dump, a copied database, or
    /// the cluster that this one was made of by pg_upgrade.
    Copy,
    /// The role with its owner's OID has another name now: it was renamed, or the owner was dropped and
    /// the OID was used again.
    OwnerChanged,
    /// It does not have the seal of the functions: somebody else wrote it.
    Unsealed,
}

impl Standing {
    /// The name that the views use.
    pub fn name(self) -> &'static str {
        match self {
            Standing::Here => "here",
            Standing::Copy => "copy",
            Standing::OwnerChanged => "owner changed",
            Standing::Unsealed => "unsealed",
        }
    }

    /// The standing with this name; what nobody knows counts as unsealed.
    pub fn parse(name: &str) -> Standing {
        [Standing::Here, Standing::Copy, Standing::OwnerChanged]
            .into_iter()
            .find(|standing| standing.name() == name)
            .unwrap_or(Standing::Unsealed)
    }

    /// Why the job stands still, for `waiting_for`; and what lets it go on.
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

    /// The same for a definition that was not started.
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
