//! `backfill_internal.state_of` and `waiting_for`, which the view shows, against the state machine.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::model::standing::Standing;
    use crate::model::state::{Facts, Outcome, Wish, derive};
    use crate::pg::spi::Arg;
    use crate::server_tests::support::{first, value};

    const WISHES: [Wish; 4] = [Wish::Define, Wish::Run, Wish::Pause, Wish::Cancel];
    const OUTCOMES: [Option<Outcome>; 5] = [
        None,
        Some(Outcome::Completed),
        Some(Outcome::Failed { attempt: 1 }),
        Some(Outcome::Failed { attempt: 2 }),
        Some(Outcome::Cancelled),
    ];

    fn state_of(facts: Facts, standing: Standing) -> Option<String> {
        let attempt = match facts.outcome {
            Some(Outcome::Failed { attempt }) => attempt,
            _ => facts.attempt,
        };
        first(
            "SELECT backfill_internal.state_of($1, $2, $3, $4, $5, $6)",
            &[
                Arg::Text(facts.wish.name()),
                Arg::Int4(facts.attempt),
                Arg::text(facts.outcome.map(Outcome::name)),
                Arg::Int4(attempt),
                Arg::Bool(facts.live),
                Arg::Text(standing.name()),
            ],
        )
    }

    #[pg_test]
    fn state_of_agrees_with_the_state_machine() {
        let standings = [
            Standing::Here,
            Standing::Copy,
            Standing::OwnerChanged,
            Standing::Unsealed,
        ];
        for wish in WISHES {
            for outcome in OUTCOMES {
                for live in [false, true] {
                    for standing in standings {
                        let facts = Facts {
                            wish,
                            attempt: 2,
                            outcome,
                            live,
                            here: standing == Standing::Here,
                        };
                        let wanted = derive(facts).to_string();
                        assert_eq!(state_of(facts, standing), Some(wanted), "{facts:?}");
                    }
                }
            }
        }
    }

    #[pg_test]
    fn standing_knows_where_it_is() {
        // By what PostgreSQL says about itself, not by what we do. Without a seal nothing is right here.
        let standing = |database: &str, name: &str| {
            value(&format!(
                "SELECT backfill_internal.standing(u.oid, {name}, s.system_identifier, {database}, '\\x00', NULL)
                 FROM pg_control_system() s, pg_database d, pg_authid u
                 WHERE d.datname = current_database() AND u.rolname = current_user"
            ))
        };
        let here = "('backfill_internal.job'::regclass::oid::bigint << 32) | d.oid::bigint";
        let me = "current_user::text";
        assert_eq!(standing(here, me).as_deref(), Some("unsealed"));
        assert_eq!(standing("d.oid::bigint", me).as_deref(), Some("copy"));
        assert_eq!(standing("NULL", me).as_deref(), Some("copy"));
        assert_eq!(standing(here, "'x'").as_deref(), Some("owner changed"));
        assert_eq!(standing(here, "NULL").as_deref(), Some("owner changed"));
    }

    #[pg_test]
    fn state_of_makes_nothing_of_nothing() {
        for arguments in [
            "NULL, 1, NULL, NULL, false, 'here'",
            "'run', NULL, NULL, NULL, false, 'here'",
            "'run', 1, NULL, NULL, NULL, 'here'",
            "'nonsense', 1, NULL, NULL, false, 'here'",
            "'run', 1, NULL, NULL, false, NULL",
        ] {
            let sql = format!("SELECT backfill_internal.state_of({arguments})");
            assert_eq!(value(&sql), None, "{arguments}");
        }
    }
}
