//! Errors come back whole: SQLSTATE, message, detail, hint, context; and nothing else breaks.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::error::{Error, sqlstate};
    use crate::pg::capture::capture;
    use crate::pg::{report, spi};
    use crate::server_tests::support::{connected, refused, run, value};

    #[pg_test]
    fn an_attempt_leaves_the_transaction_usable() {
        run("CREATE TABLE public.kept (a int)");
        run("INSERT INTO public.kept VALUES (1)");
        let errors = connected(|| {
            let mut states = Vec::new();
            for sql in [
                "SELECT 1/0",
                "SELECT nosuch",
                "INSERT INTO public.kept SELECT 1/(3 - i) FROM generate_series(1, 5) i",
                "DO $$ BEGIN PERFORM 1/0; END $$",
            ] {
                states.push(spi::attempt(sql).expect_err(sql).sqlstate.clone());
                // Within the same connection and outside of the subtransaction.
                spi::query("INSERT INTO public.kept VALUES (2)", &[])?;
            }
            Ok(states)
        });
        assert_eq!(
            errors.expect("states"),
            ["22012", "42703", "22012", "22012"]
        );
        assert_eq!(
            value("SELECT string_agg(a::text, '') FROM public.kept").as_deref(),
            Some("12222")
        );
    }

    #[pg_test]
    fn an_attempt_that_works_is_kept() {
        run("CREATE TABLE public.kept (a int)");
        let output =
            connected(|| spi::attempt("INSERT INTO public.kept VALUES (1), (2) RETURNING a"));
        let output = output.expect("two rows");
        assert_eq!((output.processed, output.rows.len()), (2, 2));
        assert_eq!(
            value("SELECT count(*) FROM public.kept").as_deref(),
            Some("2")
        );
    }

    #[pg_test]
    fn codes_that_postgres_does_not_know_survive() {
        for code in ["P0007", "ZZ999", "AB0C1", "P0001"] {
            let error = refused(&format!(
                "DO $$ BEGIN RAISE 'my message' USING ERRCODE = '{code}', DETAIL = 'my detail', HINT = 'my hint'; END $$"
            ));
            assert_eq!(error.sqlstate, code);
            assert_eq!(error.message, "my message");
            assert_eq!(error.detail.as_deref(), Some("my detail"));
            assert_eq!(error.hint.as_deref(), Some("my hint"));
            let context = error.context.clone().unwrap_or_default();
            assert!(
                context.contains("PL/pgSQL function inline_code_block line 1 at RAISE"),
                "{context}"
            );
        }
    }

    #[pg_test]
    fn an_error_of_ours_comes_back_as_it_left() {
        let error = refused("SELECT backfill.pause(-7)");
        assert_eq!(error.sqlstate, sqlstate::UNDEFINED_OBJECT);
        assert_eq!(error.message, "backfill job -7 does not exist");
        assert!(error.hint.is_some());
    }

    #[pg_test]
    fn panics_and_results_are_captured_too() {
        let panicked = capture::<()>(|| panic!("out of cheese")).expect_err("a panic");
        assert!(panicked.message.contains("out of cheese"), "{panicked}");
        let given = capture::<()>(|| Err(Error::invalid("so").hint("do"))).expect_err("an error");
        assert_eq!(
            (given.sqlstate.as_str(), given.hint.as_deref()),
            ("22023", Some("do"))
        );
        assert_eq!(capture(|| Ok(5)), Ok(5));
        // An error that was caught earlier is not taken for the later one.
        let raised = refused("SELECT 1/0");
        let later = capture::<()>(|| panic!("something else")).expect_err("a panic");
        assert_eq!(raised.message, "division by zero");
        assert!(later.message.contains("something else"), "{later}");
    }

    #[pg_test]
    fn options_say_what_is_wrong_with_them() {
        run("CREATE TABLE public.t (id int PRIMARY KEY, a int)");
        for (options, message, hint) in [
            ("[]", "options must be a JSON object", "{"),
            (
                r#"{"scan_limits": 5}"#,
                "unknown option \"scan_limits\"",
                "Did you mean \"scan_limit\"?",
            ),
            (
                r#"{"kye": "i"}"#,
                "unknown option \"kye\"",
                "Did you mean \"key\"?",
            ),
            (
                r#"{"scan_limit": "5"}"#,
                "option \"scan_limit\" must be an integer, not \"5\"",
                "integer",
            ),
            (
                r#"{"key": 5}"#,
                "option \"key\" must be a string, not 5",
                "string",
            ),
            (
                r#"{"settings": {"a.b": 5}}"#,
                "option \"settings\" must be an object of strings",
                "strings",
            ),
            (
                r#"{"settings": {"lock_timeout": "5"}}"#,
                "setting \"lock_timeout\" is pinned",
                "\"lock_timeout_ms\"",
            ),
            (
                r#"{"settings": {"row_security": "on"}}"#,
                "setting \"row_security\" is pinned",
                "Leave it out",
            ),
            (
                r#"{"settings": {"work_mem": "64XB"}}"#,
                "options.settings: invalid value",
                "Valid units",
            ),
        ] {
            let error = refused(&format!(
                "SELECT backfill.define('public.t', 'a = 1', options => '{options}')"
            ));
            assert_eq!(
                error.sqlstate,
                sqlstate::INVALID_PARAMETER_VALUE,
                "{options}: {error}"
            );
            assert!(error.message.starts_with(message), "{options}: {error}");
            let given = error.hint.clone().unwrap_or_default();
            assert!(given.contains(hint), "{options}: {given}");
        }
        assert_ne!(value("SHOW work_mem").as_deref(), Some("64XB"));
    }

    #[pg_test]
    fn a_cancel_that_arrives_with_a_notice_is_an_error_like_others() {
        struct Seen<'a>(&'a std::cell::Cell<bool>);
        impl Drop for Seen<'_> {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        let dropped = std::cell::Cell::new(false);
        let error = spi::in_subtransaction(|| -> crate::error::Result<()> {
            let _seen = Seen(&dropped);
            // SAFETY: what the handler of SIGINT does.
            unsafe {
                pg_sys::QueryCancelPending = 1;
                pg_sys::InterruptPending = 1;
            }
            report::notice("on the way", None);
            Ok(())
        });
        assert_eq!(error.expect_err("a cancel").sqlstate, "57014");
        assert!(dropped.get());
    }
}
