//! Where text of users may be handed to PostgreSQL, and where it may not.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::error::{Error, Result};
    use crate::pg::confine::{own_script, own_text, require};
    use crate::pg::elevate::as_extension;
    use crate::pg::report::{collecting, notice, warning};
    use crate::pg::spi::{self, Arg, Plan};
    use crate::pg::{clauses, hot, server};

    fn me() -> pg_sys::Oid {
        server::current_user()
    }

    /// Every way to hand a text over, and what comes of it.
    fn all_ways() -> Vec<Result<()>> {
        let oid = first("SELECT 'pg_catalog.pg_class'::regclass::oid");
        vec![
            spi::query("SELECT 1", &[]).map(|_| ()),
            spi::query_latest("SELECT 1", &[]).map(|_| ()),
            spi::first("SELECT 1", &[]).map(|_| ()),
            spi::attempt("SELECT 1").map(|_| ()),
            spi::read_only("SELECT 1").map(|_| ()),
            spi::run_for_effect("SELECT 1"),
            Plan::prepare("SELECT 1", &[]).map(|_| ()),
            clauses::set_columns("a = 1").map(|_| ()),
            clauses::check_expression("where_clause", "a = 1"),
            clauses::check_query("throttle_query", "SELECT true"),
            clauses::explain("SELECT 1", &[]),
            clauses::is_volatile("SELECT 1").map(|_| ()),
            hot::facts(oid, &[]).map(|_| ()),
        ]
    }

    fn first(sql: &'static str) -> pg_sys::Oid {
        let row = spi::fixed_first(sql, &[]).expect("a row").expect("a row");
        pg_sys::Oid::from(row.number(0).expect("a number") as u32)
    }

    fn refused(result: &Result<()>) -> bool {
        matches!(result, Err(error) if error.message.contains("text of a user's"))
    }

    #[pg_test]
    fn in_a_callers_session_no_text_is_looked_at() {
        let ways = spi::connect(|| Ok(all_ways())).expect("results");
        for (n, way) in ways.iter().enumerate() {
            assert!(refused(way), "way {n}: {way:?}");
        }
        spi::connect(|| spi::fixed("SELECT 1", &[])).expect("what is static may be run");
    }

    #[pg_test]
    fn the_input_of_a_users_type_is_text_that_runs() {
        Spi::run("CREATE DOMAIN public.small AS int CHECK (VALUE < 10)").expect("a domain");
        let read = |oid| spi::fixed("SELECT $1", &[Arg::Typed(oid, "7")]).map(|_| ());
        let result = spi::connect(|| {
            let domain = first("SELECT 'public.small'::regtype::oid");
            let array = first("SELECT 'public.small[]'::regtype::oid");
            assert!(refused(&read(domain)) && refused(&read(array)));
            read(pg_sys::INT4OID)?;
            own_text(me(), || read(domain))
        });
        result.expect("read where it may be");
    }

    #[pg_test]
    fn the_callers_own_text_is_undone() {
        let result = spi::connect(|| {
            own_text(me(), || {
                require()?;
                spi::query("CREATE TABLE public.gone (a int)", &[])?;
                spi::query(
                    "SELECT pg_catalog.set_config('DateStyle', 'German', false)",
                    &[],
                )?;
                Ok(all_ways().into_iter().collect::<Result<Vec<()>>>()?.len())
            })
        });
        assert!(result.expect("all of them") > 10);
        let left = Spi::get_one::<bool>(
            "SELECT to_regclass('public.gone') IS NULL AND current_setting('DateStyle') !~ 'German'",
        );
        assert_eq!(left, Ok(Some(true)));
    }

    #[pg_test]
    fn nothing_that_would_outlive_it_can_be_done() {
        for sql in [
            "PREPARE p AS SELECT 1",
            "DEALLOCATE ALL",
            "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
            "CREATE TEMPORARY TABLE t (a int)",
            "LISTEN x",
            "SET ROLE NONE",
            "SET SESSION AUTHORIZATION DEFAULT",
            "DISCARD PLANS",
        ] {
            let error = spi::connect(|| own_text(me(), || spi::query(sql, &[]).map(|_| ())));
            let error: Error = error.expect_err(sql);
            assert_eq!(error.sqlstate, "42501", "{sql}: {error}");
        }
        // And the session goes on as it was.
        let after = Spi::get_one::<i64>("SELECT count(*) FROM pg_prepared_statements");
        assert_eq!(after, Ok(Some(0)));
    }

    #[pg_test]
    fn an_error_leaves_no_place_open() {
        let fails = || {
            own_text(me(), || -> Result<()> {
                spi::query("SELECT 1/0", &[])?;
                Ok(())
            })
        };
        assert!(spi::connect(fails).is_err());
        let panics = || own_text(me(), || -> Result<()> { panic!("in the midst of it") });
        assert!(spi::connect(panics).is_err());
        assert!(require().is_err(), "it is over");
    }

    #[pg_test]
    fn it_has_to_be_the_callers_own() {
        Spi::run("CREATE ROLE stranger").expect("a role");
        let result = spi::connect(|| {
            let stranger = first("SELECT 'stranger'::regrole::oid");
            own_text(stranger, || Ok(()))?;
            own_script(stranger, || Ok(()))
        });
        assert!(
            result
                .expect_err("not theirs")
                .message
                .contains("another role")
        );
    }

    #[pg_test]
    fn not_with_the_rights_of_the_extensions_owner() {
        let result = spi::connect(|| {
            own_text(me(), || {
                as_extension(|| {
                    spi::query("SELECT 1", &[])?;
                    clauses::set_columns("a = 1").map(|_| ())
                })
            })
        });
        assert!(refused(&result), "{result:?}");
    }

    #[pg_test]
    fn a_plan_runs_with_the_rights_it_was_made_for() {
        let result = spi::connect(|| {
            own_text(me(), || {
                let theirs = Plan::prepare("SELECT 1", &[])?;
                assert!(as_extension(|| theirs.run(&[])).is_err());
                let own = as_extension(|| Plan::prepare("SELECT 1", &[]))?;
                assert!(own.run(&[]).is_err());
                theirs.run(&[])?;
                as_extension(|| own.run(&[]))
            })
        });
        result.expect("each where it belongs");
    }

    #[pg_test]
    fn what_is_said_elsewhere_comes_along() {
        let ((), said) = collecting(|| {
            notice("one", None);
            warning("two", Some("a hint"));
        });
        assert_eq!(said.len(), 2);
        assert!(format!("{said:?}").contains("a hint"));
    }
}
