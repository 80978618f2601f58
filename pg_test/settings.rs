//! Settings are put back, and so is the user, whatever happens in between.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::error::{Error, Result};
    use crate::pg::elevate::as_extension;
    use crate::pg::settings::{self, Pins};
    use crate::pg::{server, spi};
    use crate::server_tests::support::{connected, run, value};

    const GERMAN: &[(&std::ffi::CStr, &std::ffi::CStr)] =
        &[(c"DateStyle", c"German, DMY"), (c"TimeZone", c"Asia/Tokyo")];

    fn now_set() -> (Option<String>, Option<String>) {
        (settings::get(c"DateStyle"), settings::get(c"TimeZone"))
    }

    #[pg_test]
    fn settings_are_put_back_after_success_and_error() {
        run("SET LOCAL DateStyle = 'SQL, DMY'");
        let before = now_set();
        let within = settings::with(GERMAN, || Ok(now_set())).expect("no error");
        assert_eq!(within.0.as_deref(), Some("German, DMY"));
        assert_eq!(within.1.as_deref(), Some("Asia/Tokyo"));
        assert_eq!(now_set(), before);

        let failed: Result<()> = settings::with(GERMAN, || Err(Error::invalid("no")));
        assert!(failed.is_err());
        assert_eq!(now_set(), before);

        let raised = connected(|| settings::with(GERMAN, || spi::attempt("SELECT 1/0")));
        assert_eq!(raised.expect_err("an error").sqlstate, "22012");
        assert_eq!(now_set(), before);
    }

    #[pg_test]
    fn nested_settings_are_put_back_one_by_one() {
        let before = now_set();
        settings::with(GERMAN, || {
            settings::with(&[(c"DateStyle", c"ISO, YMD")], || {
                assert_eq!(now_set().0.as_deref(), Some("ISO, YMD"));
                assert_eq!(now_set().1.as_deref(), Some("Asia/Tokyo"));
                Ok(())
            })?;
            assert_eq!(now_set().0.as_deref(), Some("German, DMY"));
            Ok(())
        })
        .expect("no error");
        assert_eq!(now_set(), before);
    }

    #[pg_test]
    fn a_value_that_is_tried_does_not_stay() {
        let before = value("SHOW work_mem");
        assert!(settings::try_value("work_mem", "77MB").is_ok());
        assert!(settings::try_value("app.user", "backfill").is_ok());
        for (name, wrong, sqlstate) in [
            ("work_mem", "much", "22023"),
            ("nosuch_setting", "1", "42704"),
            ("max_connections", "5", "55P02"),
            ("TimeZone", "Nowhere/Land", "22023"),
        ] {
            let error = settings::try_value(name, wrong).expect_err(name);
            assert_eq!(error.sqlstate, sqlstate, "{name}: {error}");
        }
        assert_eq!(value("SHOW work_mem"), before);
        assert_eq!(
            value("SELECT current_setting('app.user', true)").unwrap_or_default(),
            ""
        );
    }

    #[pg_test]
    fn who_may_not_set_it_is_told_so() {
        run("CREATE ROLE nobody_special; SET LOCAL ROLE nobody_special");
        let error = settings::try_value("log_statement", "all").expect_err("no rights");
        run("RESET ROLE");
        assert_eq!(error.sqlstate, "42501", "{error}");
        assert!(settings::try_value("log_statement", "all").is_ok());
    }

    #[pg_test]
    fn pins_hold_until_someone_sets_them_and_are_applied_again() {
        let mut pins = Pins::default();
        pins.pin("work_mem", "64MB").expect("a pin");
        pins.pin("DateStyle", "German").expect("a pin");
        pins.pin("app.user", "first").expect("a pin");
        pins.pin("app.user", "it's me").expect("a pin");
        pins.pin_trusted("session_replication_role", "origin")
            .expect("a pin");
        assert!(!pins.hold());
        pins.apply();
        assert!(pins.hold());
        assert_eq!(value("SHOW work_mem").as_deref(), Some("64MB"));
        assert_eq!(
            value("SELECT current_setting('app.user')").as_deref(),
            Some("it's me")
        );
        run("SET work_mem = '1MB'");
        assert!(!pins.hold());
        pins.apply();
        assert!(pins.hold());
        assert_eq!(value("SHOW work_mem").as_deref(), Some("64MB"));
    }

    #[pg_test]
    fn elevation_ends_with_its_closure() {
        run("CREATE SCHEMA mine; SET LOCAL search_path = mine, public");
        run(
            "CREATE ROLE nobody_special; GRANT USAGE ON SCHEMA mine TO nobody_special; SET LOCAL ROLE nobody_special",
        );
        let me = server::current_user();
        let path = || settings::get(c"search_path");
        let before = path();
        let within = connected(|| {
            as_extension(|| {
                // Our own tables are closed to the role, and open here.
                spi::query("SELECT FROM backfill_internal.job", &[])?;
                Ok((server::current_user(), path()))
            })
        });
        let (user, within_path) = within.expect("elevated");
        assert_ne!(user, me);
        assert_eq!(within_path.as_deref(), Some("pg_catalog, pg_temp"));
        assert_eq!((server::current_user(), path()), (me, before.clone()));

        let failed: Result<()> = connected(|| as_extension(|| Err(Error::invalid("no"))));
        assert!(failed.is_err());
        assert_eq!((server::current_user(), path()), (me, before.clone()));

        let raised = connected(|| as_extension(|| spi::attempt("SELECT 1/0")));
        assert!(raised.is_err());
        assert_eq!((server::current_user(), path()), (me, before));
        let closed = connected(|| spi::attempt("SELECT FROM backfill_internal.job"));
        assert_eq!(closed.expect_err("closed").sqlstate, "42501");
        run("RESET ROLE");
    }

    #[pg_test]
    fn nobody_else_can_get_at_what_elevation_may_do() {
        run("CREATE ROLE nobody_special; SET LOCAL ROLE nobody_special");
        let nested =
            connected(|| as_extension(|| spi::attempt("SET SESSION AUTHORIZATION postgres")));
        run("RESET ROLE");
        assert_eq!(nested.expect_err("restricted").sqlstate, "42501");
    }
}
