//! A definition is stored as it was given, together with the session that it was given in.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::server_tests::support::{lines, refused, run, value};

    fn table() {
        run("CREATE TABLE public.orders (id bigint PRIMARY KEY, a int, b text, c int[])");
    }

    fn job(expression: &str) -> Option<String> {
        value(&format!("SELECT {expression} FROM backfill_internal.job"))
    }

    #[pg_test]
    fn the_definition_is_stored_as_given() {
        table();
        run(
            r#"SELECT backfill.define('public.orders', E'\n a = 1, (b, c[2]) = (SELECT ''x'', 3) ',
                ' a IS NULL ', 'rates', '{"scan_limit": 20000, "settings": {"app.user": "it''s"}}')"#,
        );
        let stored = [
            ("relation", "orders"),
            ("action", "update"),
            (
                "work ->> 'set_clause'",
                "a = 1, (b, c[2]) = (SELECT 'x', 3)",
            ),
            ("where_clause", "a IS NULL"),
            ("work ->> 'set_columns'", r#"["a", "b", "c"]"#),
            ("key_columns", "{id}"),
            ("name", "rates"),
            ("owner = current_user::regrole", "t"),
            ("batch_size", "1000"),
            ("sleep_ms", "0"),
            ("wish", "define"),
            ("attempt", "0"),
            ("started_at IS NULL", "t"),
            (
                "options",
                r#"{"settings": {"app.user": "it's"}, "scan_limit": 20000}"#,
            ),
        ];
        for (expression, wanted) in stored {
            assert_eq!(job(expression).as_deref(), Some(wanted), "{expression}");
        }
        let events = "SELECT format('%s %s -> %s by %s', event, old, new, actor = current_user::regrole) FROM backfill_internal.event";
        assert_eq!(lines(events), "define  -> pending by t");
    }

    #[pg_test]
    fn the_session_is_taken_along() {
        table();
        let settings = [
            ("search_path", "\"Odd, path\", public"),
            ("TimeZone", "Asia/Tokyo"),
            ("DateStyle", "German, DMY"),
            ("IntervalStyle", "iso_8601"),
            ("bytea_output", "escape"),
            ("extra_float_digits", "0"),
            ("array_nulls", "off"),
            ("xmloption", "document"),
            ("default_text_search_config", "pg_catalog.german"),
        ];
        for (name, value) in settings {
            run(&format!("SELECT set_config('{name}', '{value}', true)"));
        }
        run("SELECT backfill.define('orders', 'a = 1')");
        for (name, wanted) in settings {
            let taken = job(&format!("session->>'{name}'"));
            assert_eq!(taken.as_deref(), Some(wanted), "{name}");
        }
        // And they are still in force here.
        assert_eq!(value("SHOW DateStyle").as_deref(), Some("German, DMY"));
    }

    #[pg_test]
    fn the_owner_is_the_current_user() {
        table();
        run(
            "CREATE ROLE app_owner; GRANT SELECT, UPDATE ON public.orders TO app_owner; SET LOCAL ROLE app_owner",
        );
        run("SELECT backfill.define('public.orders', 'a = 1')");
        run("RESET ROLE");
        assert_eq!(job("owner").as_deref(), Some("app_owner"));
    }

    #[pg_test]
    fn a_refused_definition_leaves_nothing() {
        table();
        run("CREATE UNLOGGED TABLE public.quick (a int)");
        for call in [
            "SELECT backfill.define('public.orders', 'nosuch = 1')",
            "SELECT backfill.define('public.orders', 'a = 1; DELETE FROM t')",
            "SELECT backfill.define('public.quick', 'a = 1')",
            "SELECT backfill.start('public.orders', 0, 0, 'a = 1')",
        ] {
            refused(call);
            assert_eq!(
                value("SELECT count(*) FROM backfill_internal.job").as_deref(),
                Some("0")
            );
            assert_eq!(
                value("SELECT count(*) FROM backfill_internal.event").as_deref(),
                Some("0")
            );
        }
        // Sequences do not roll back, rows do; the next definition is a whole one.
        run("SELECT backfill.define('public.orders', 'a = 1')");
        assert_eq!(
            value("SELECT count(*) FROM backfill.progress").as_deref(),
            Some("1")
        );
    }

    #[pg_test]
    fn start_lays_its_options_over_those_of_the_definition() {
        table();
        run(
            r#"SELECT backfill.define('public.orders', 'a = 1', options =>
                '{"workers": 2, "vacuum": false, "settings": {"app.a": "1", "app.b": "1"}}')"#,
        );
        run(r#"SELECT backfill.start('public.orders', options =>
                '{"workers": 3, "target_ms": 50, "settings": {"app.b": "2"}}')"#);
        let wanted = r#"{"vacuum": false, "workers": 3, "settings": {"app.a": "1", "app.b": "2"}, "target_ms": 50}"#;
        assert_eq!(job("options").as_deref(), Some(wanted));
        run(
            r#"SELECT backfill.alter(job_id, options => '{"workers": 1, "strategy": "waves", "waves": 8}')
               FROM backfill.progress"#,
        );
        let altered = "SELECT format('%s: %s -> %s', event, old, new) FROM backfill.events
                       WHERE event LIKE 'alter%' ORDER BY event_id";
        assert_eq!(
            lines(altered),
            "alter strategy: default -> waves\nalter waves: default -> 8\nalter workers: 3 -> 1"
        );
    }

    #[pg_test]
    fn start_makes_the_definition_run_here() {
        table();
        run("SELECT backfill.define('public.orders', 'a = 1')");
        run("SELECT backfill.start('public.orders', 50, 7)");
        let stored = [
            ("wish", "run"),
            ("attempt", "1"),
            ("batch_size", "50"),
            ("sleep_ms", "7"),
            ("started_at IS NOT NULL", "t"),
            (
                "system_identifier = (SELECT system_identifier FROM pg_control_system())",
                "t",
            ),
            (
                "database_oid = ('backfill_internal.job'::regclass::oid::bigint << 32) | (SELECT oid::bigint FROM pg_database WHERE datname = current_database())",
                "t",
            ),
        ];
        for (expression, wanted) in stored {
            assert_eq!(job(expression).as_deref(), Some(wanted), "{expression}");
        }
        let shown = value("SELECT state || ' ' || workers FROM backfill.progress");
        assert_eq!(shown.as_deref(), Some("running 0"));
        // Nobody runs it before the commit, so it can be taken back at once.
        assert_eq!(
            value("SELECT backfill.pause(job_id) FROM backfill.progress").as_deref(),
            Some("paused")
        );
        assert_eq!(
            value("SELECT backfill.resume(job_id) FROM backfill.progress").as_deref(),
            Some("running")
        );
        assert_eq!(job("attempt").as_deref(), Some("2"));
        assert_eq!(
            value("SELECT backfill.cancel(job_id) FROM backfill.progress").as_deref(),
            Some("cancelled")
        );
        let events =
            "SELECT format('%s: %s -> %s', event, old, new) FROM backfill.events ORDER BY event_id";
        assert_eq!(
            lines(events),
            "define:  -> pending\nstart: pending -> running\npause: running -> paused\n\
             resume: paused -> running\ncancel: running -> cancelled"
        );
        run("SELECT backfill.forget(job_id) FROM backfill.progress");
        assert_eq!(
            value("SELECT count(*) FROM backfill_internal.job, backfill_internal.event").as_deref(),
            Some("0")
        );
    }

    #[pg_test]
    fn pause_all_and_resume_all_count_what_they_change() {
        table();
        run("SELECT backfill.define('public.orders', 'c = NULL')");
        run(
            "SELECT backfill.start('public.orders', set_clause => 'a = 1'), backfill.start('public.orders', set_clause => 'b = NULL')",
        );
        for (call, wanted) in [("pause_all", "2"), ("pause_all", "0"), ("resume_all", "2")] {
            assert_eq!(
                value(&format!("SELECT backfill.{call}()")).as_deref(),
                Some(wanted),
                "{call}"
            );
        }
        assert_eq!(
            lines("SELECT state FROM backfill.progress ORDER BY job_id"),
            "pending\nrunning\nrunning"
        );
    }
}
