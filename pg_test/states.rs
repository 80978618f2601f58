//! `backfill.state_of` and `waiting_for`, which the view shows, against the state machine.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::job::state::{Facts, Outcome, Wish, derive};
    use crate::pg::server;
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

    fn state_of(facts: Facts, system: Option<i64>, database: Option<i64>) -> Option<String> {
        let attempt = match facts.outcome {
            Some(Outcome::Failed { attempt }) => attempt,
            _ => facts.attempt,
        };
        first(
            "SELECT backfill.state_of($1, $2, $3, $4, $5, $6, $7)",
            &[
                Arg::Text(facts.wish.name()),
                Arg::Int4(facts.attempt),
                Arg::text(facts.outcome.map(Outcome::name)),
                Arg::Int4(attempt),
                Arg::Bool(facts.live),
                Arg::int8(system),
                Arg::int8(database),
            ],
        )
    }

    #[pg_test]
    fn state_of_agrees_with_the_state_machine() {
        let system = server::system_identifier();
        let database = i64::from(server::database().to_u32());
        let places = [
            (Some(system), Some(database), true),
            (Some(system), Some(database + 1), false),
            (Some(system + 1), Some(database), false),
            (None, None, false),
        ];
        for wish in WISHES {
            for outcome in OUTCOMES {
                for live in [false, true] {
                    for (system, database, here) in places {
                        let facts = Facts {
                            wish,
                            attempt: 2,
                            outcome,
                            live,
                            here,
                        };
                        let wanted = derive(facts).to_string();
                        assert_eq!(state_of(facts, system, database), Some(wanted), "{facts:?}");
                    }
                }
            }
        }
    }

    #[pg_test]
    fn state_of_knows_where_it_is() {
        // By what PostgreSQL says about itself, not by what we do.
        let state = |database: &str| {
            value(&format!(
                "SELECT backfill.state_of('run', 1, NULL, NULL, false, s.system_identifier, {database})
                 FROM pg_control_system() s, pg_database d WHERE d.datname = current_database()"
            ))
        };
        assert_eq!(state("d.oid::bigint").as_deref(), Some("running"));
        assert_eq!(state("d.oid::bigint + 1").as_deref(), Some("paused"));
    }

    #[pg_test]
    fn state_of_makes_nothing_of_nothing() {
        for arguments in [
            "NULL, 1, NULL, NULL, false, 1, 1",
            "'run', NULL, NULL, NULL, false, 1, 1",
            "'run', 1, NULL, NULL, NULL, 1, 1",
            "'nonsense', 1, NULL, NULL, false, 1, 1",
        ] {
            let sql = format!("SELECT backfill.state_of({arguments})");
            assert_eq!(value(&sql), None, "{arguments}");
        }
    }
}
