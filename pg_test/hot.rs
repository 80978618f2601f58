//! What indexes mean for heap-only updates, the counts of these, and the shape of a table.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::pg::hot::{HotFacts, correlation, facts, shape, shared_buffers_bytes, xact_counts};
    use crate::server_tests::support::{connected, oid, run, value};

    fn found(columns: &[&str]) -> HotFacts {
        let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
        let table = oid("public.t");
        connected(|| facts(table, &columns)).expect("facts")
    }

    /// Which index is in the way of an update of `a`, if `create` makes it.
    fn blocking(create: &str) -> Option<String> {
        run(
            "CREATE TABLE public.t (x int, id int PRIMARY KEY, a int, b int, c int, g int GENERATED ALWAYS AS (a + 1) STORED)",
        );
        run("ALTER TABLE public.t DROP COLUMN x");
        run(create);
        let blocked = found(&["a"]).blocked_by;
        run("DROP TABLE public.t");
        blocked
    }

    #[pg_test]
    fn an_index_stands_in_the_way_however_it_reads_the_column() {
        for create in [
            "CREATE INDEX i ON public.t (a)",
            "CREATE INDEX i ON public.t (b, a)",
            "CREATE INDEX i ON public.t USING hash (a)",
            "CREATE INDEX i ON public.t (b) INCLUDE (a)",
            "CREATE INDEX i ON public.t ((b + a))",
            "CREATE INDEX i ON public.t (b) WHERE a IS NULL",
            "CREATE INDEX i ON public.t ((t IS NULL))",
            "CREATE INDEX i ON public.t (b) WHERE t IS NOT NULL",
            "CREATE INDEX i ON public.t (g)",
            "CREATE INDEX i ON public.t (b) WHERE g > 0",
            "ALTER TABLE public.t ADD CONSTRAINT i UNIQUE (b, a)",
            "CREATE INDEX other ON public.t (b); CREATE INDEX i ON public.t (a)",
        ] {
            assert_eq!(blocking(create).as_deref(), Some("i"), "{create}");
        }
        for create in [
            "SELECT 1",
            "CREATE INDEX i ON public.t (b) INCLUDE (c)",
            "CREATE INDEX i ON public.t ((b + c)) WHERE c > 0",
            "CREATE INDEX i ON public.t ((1))",
        ] {
            assert_eq!(blocking(create), None, "{create}");
        }
        let brin = blocking("CREATE INDEX i ON public.t USING brin (a)");
        assert_eq!(brin.is_some(), cfg!(feature = "pg15"));
    }

    #[pg_test]
    fn indexes_are_counted_if_they_get_entries() {
        run("CREATE TABLE public.t (id int PRIMARY KEY, a int, b int)");
        let wanted = |indexes| HotFacts {
            indexes,
            blocked_by: None,
        };
        assert_eq!(found(&["a"]), wanted(1));
        run("CREATE INDEX one ON public.t (b); CREATE INDEX two ON public.t (b) WHERE b > 0");
        assert_eq!(found(&["a"]), wanted(3));
        run("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'public.one'::regclass");
        assert_eq!(found(&["a"]), wanted(3));
        run("UPDATE pg_index SET indisready = false WHERE indexrelid = 'public.one'::regclass");
        assert_eq!(found(&["a"]), wanted(2));
        // One that is being built has no entries yet, but will have.
        assert_eq!(found(&["b"]).blocked_by.as_deref(), Some("one"));
        assert_eq!(found(&["a", "id"]).blocked_by.as_deref(), Some("t_pkey"));
        run("CREATE TABLE public.bare (a int)");
        let bare = oid("public.bare");
        assert_eq!(facts(bare, &["a".to_owned()]).expect("facts"), wanted(0));
    }

    #[pg_test]
    fn what_is_gone_is_named() {
        run("CREATE TABLE public.t (a int)");
        let table = oid("public.t");
        let error = facts(table, &["nosuch".to_owned()]).expect_err("no column");
        assert_eq!(
            (error.sqlstate.as_str(), error.message.as_str()),
            ("42703", "column \"nosuch\" does not exist")
        );
        run("DROP TABLE public.t");
        assert_eq!(facts(table, &[]).expect_err("no table").sqlstate, "42P01");
        assert_eq!(shape(table).expect_err("no table").sqlstate, "42P01");
    }

    #[pg_test]
    fn updates_are_counted_within_their_transaction() {
        run("CREATE TABLE public.t (id int PRIMARY KEY, a int, b int) WITH (fillfactor = 50)");
        run("CREATE INDEX i ON public.t (b)");
        run("INSERT INTO public.t SELECT i, 0, 0 FROM generate_series(1, 100) i");
        let table = oid("public.t");
        assert_eq!(xact_counts(table), (0, 0));
        run("UPDATE public.t SET a = 1 WHERE id <= 10");
        assert_eq!(xact_counts(table), (10, 10));
        run("UPDATE public.t SET b = 1 WHERE id <= 3");
        assert_eq!(xact_counts(table), (13, 10));
        run("CREATE TABLE public.other (a int)");
        assert_eq!(xact_counts(oid("public.other")), (0, 0));
    }

    #[pg_test]
    fn a_table_is_measured() {
        run("CREATE TABLE public.t (id int PRIMARY KEY, a text) WITH (fillfactor = 40)");
        let table = oid("public.t");
        let empty = shape(table).expect("a shape");
        assert_eq!((empty.pages, empty.fillfactor), (0, 40));
        assert!(
            empty.rows_per_page().is_finite()
                && empty.fits().is_finite()
                && empty.row_bytes.is_finite()
        );
        run("INSERT INTO public.t SELECT i, repeat('x', 100) FROM generate_series(1, 10000) i");
        run("ANALYZE public.t");
        let shape = shape(table).expect("a shape");
        let pages = value("SELECT pg_relation_size('public.t') / 8192");
        assert_eq!(Some(shape.pages.to_string()), pages);
        assert!((shape.tuples - 10_000.0).abs() < 1.0, "{shape:?}");
        // 40 % of a page in rows of 132 bytes with their line pointers.
        assert!((22.0..27.0).contains(&shape.rows_per_page()), "{shape:?}");
        assert!((33.0..41.0).contains(&shape.fits()), "{shape:?}");
        assert!((300.0..380.0).contains(&shape.row_bytes), "{shape:?}");
        assert!((15.0..40.0).contains(&shape.index_bytes), "{shape:?}");
        run("ALTER TABLE public.t RESET (fillfactor)");
        let reset = shape_of("public.t");
        assert_eq!((reset.fillfactor, reset.fits()), (100, 0.0));
    }

    fn shape_of(table: &str) -> crate::pg::hot::TableShape {
        shape(oid(table)).expect("a shape")
    }

    #[pg_test]
    fn the_cache_has_the_size_of_the_setting() {
        let wanted =
            value("SELECT setting::bigint * 8192 FROM pg_settings WHERE name = 'shared_buffers'");
        assert_eq!(Some(shared_buffers_bytes().to_string()), wanted);
    }

    #[pg_test]
    fn the_correlation_is_that_of_the_statistics() {
        run("CREATE TABLE public.t (up int, down int, \"Mixed\" int)");
        let table = oid("public.t");
        let of = |column| connected(|| correlation(table, column)).expect("an answer");
        assert_eq!(of("up"), None);
        run("INSERT INTO public.t SELECT i, -i, hashint4(i) FROM generate_series(1, 5000) i");
        run("ANALYZE public.t");
        assert_eq!((of("up"), of("down")), (Some(1.0), Some(-1.0)));
        assert!(of("Mixed").expect("a correlation").abs() < 0.2);
        assert_eq!(of("mixed"), None);
        // Also for a role that may not read it.
        run("CREATE ROLE nobody_else; SET LOCAL ROLE nobody_else");
        assert_eq!(of("up"), Some(1.0));
        run("RESET ROLE");
    }
}
