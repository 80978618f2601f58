//! The choice of the key against real indexes.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::error::Result;
    use crate::scan::key::{Candidate, choose};
    use crate::server_tests::support::{connected, oid, run};
    use crate::table::index;

    /// The index that is chosen for `public.t`, or why there is none.
    fn chosen(named: Option<&str>) -> Result<Candidate> {
        let table = oid("public.t");
        connected(|| choose(index::candidates(table)?, named, "public.t"))
    }

    /// The reason why the table's only index is not taken, or its columns.
    fn outcome(create: &str) -> String {
        run(
            "CREATE TABLE public.t (a int NOT NULL, b int NOT NULL, c text NOT NULL, n int, u uuid NOT NULL, p point, d char(3) NOT NULL)",
        );
        run(create);
        let outcome = match chosen(None) {
            Ok(index) => format!("{} ({})", index.name, index.column_names().join(", ")),
            Err(error) => error.detail.clone().unwrap_or_default(),
        };
        run("DROP TABLE public.t");
        outcome
    }

    #[pg_test]
    fn each_kind_of_index_is_judged() {
        for (create, wanted) in [
            ("SELECT 1", "The table has no index."),
            (
                "ALTER TABLE public.t ADD CONSTRAINT i PRIMARY KEY (a)",
                "i (a)",
            ),
            (
                "ALTER TABLE public.t ADD CONSTRAINT i PRIMARY KEY (b, a)",
                "i (b, a)",
            ),
            (
                "ALTER TABLE public.t ADD CONSTRAINT i UNIQUE (c, u)",
                "i (c, u)",
            ),
            (
                "CREATE UNIQUE INDEX i ON public.t (a DESC, b DESC)",
                "i (a, b)",
            ),
            ("CREATE UNIQUE INDEX i ON public.t (a NULLS FIRST)", "i (a)"),
            ("CREATE UNIQUE INDEX i ON public.t (a) INCLUDE (n)", "i (a)"),
            (
                "CREATE UNIQUE INDEX i ON public.t (c COLLATE \"C\")",
                "i (c)",
            ),
            ("CREATE UNIQUE INDEX i ON public.t (c varchar_ops)", "i (c)"),
            ("CREATE UNIQUE INDEX i ON public.t (d)", "i (d)"),
            (
                "CREATE INDEX i ON public.t (a)",
                "Index \"i\" is not unique.",
            ),
            (
                "CREATE UNIQUE INDEX i ON public.t (a, n)",
                "Index \"i\" has a column that may be NULL.",
            ),
            (
                "CREATE UNIQUE INDEX i ON public.t (a) WHERE a > 0",
                "Index \"i\" is partial.",
            ),
            (
                "CREATE UNIQUE INDEX i ON public.t ((a + 1))",
                "Index \"i\" has an expression.",
            ),
            (
                "CREATE UNIQUE INDEX i ON public.t (b, (a + 1))",
                "Index \"i\" has an expression.",
            ),
            (
                "CREATE UNIQUE INDEX i ON public.t (a, b DESC)",
                "Index \"i\" mixes ascending and descending columns.",
            ),
            (
                "CREATE UNIQUE INDEX i ON public.t (c text_pattern_ops)",
                "Index \"i\" has a non-default operator class.",
            ),
            (
                "CREATE UNIQUE INDEX i ON public.t (d bpchar_pattern_ops)",
                "Index \"i\" has a non-default operator class.",
            ),
            (
                "ALTER TABLE public.t ADD CONSTRAINT i UNIQUE (a) DEFERRABLE",
                "Index \"i\" is deferrable.",
            ),
            (
                "ALTER TABLE public.t ADD CONSTRAINT i PRIMARY KEY (a) DEFERRABLE INITIALLY DEFERRED",
                "Index \"i\" is deferrable.",
            ),
            (
                "CREATE INDEX i ON public.t USING hash (a)",
                "Index \"i\" is no btree index.",
            ),
            (
                "CREATE INDEX i ON public.t USING gist (p)",
                "Index \"i\" is no btree index.",
            ),
            (
                "ALTER TABLE public.t ADD CONSTRAINT i EXCLUDE (a WITH =)",
                "Index \"i\" is not unique.",
            ),
        ] {
            assert_eq!(outcome(create), wanted, "{create}");
        }
    }

    #[pg_test]
    fn an_index_that_is_not_valid_is_passed_over() {
        run("CREATE TABLE public.t (a int NOT NULL, b int NOT NULL)");
        run(
            "CREATE UNIQUE INDEX broken ON public.t (a); CREATE UNIQUE INDEX whole ON public.t (a, b)",
        );
        assert_eq!(chosen(None).expect("an index").name, "broken");
        run("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'public.broken'::regclass");
        assert_eq!(chosen(None).expect("an index").name, "whole");
        let error = chosen(Some("broken")).expect_err("not valid");
        assert!(error.message.ends_with("it is not valid"), "{error}");
    }

    #[pg_test]
    fn the_best_index_is_taken_unless_one_is_named() {
        run(
            "CREATE TABLE public.t (a int NOT NULL UNIQUE, b int NOT NULL, c text, PRIMARY KEY (b, a))",
        );
        run(
            "CREATE UNIQUE INDEX \"Odd \"\"name\"\"\" ON public.t (b, a); CREATE INDEX plain ON public.t (c)",
        );
        assert_eq!(chosen(None).expect("an index").name, "t_pkey");
        assert_eq!(
            chosen(Some("t_a_key")).expect("an index").column_names(),
            ["a"]
        );
        assert_eq!(
            chosen(Some("Odd \"name\""))
                .expect("an index")
                .column_names(),
            ["b", "a"]
        );
        assert!(chosen(Some("plain")).is_err());
        assert_eq!(
            chosen(Some("nosuch")).expect_err("no index").sqlstate,
            "42704"
        );
    }

    #[pg_test]
    fn columns_are_described_as_the_walk_needs_them() {
        run("CREATE DOMAIN public.code AS text");
        run(
            "CREATE TABLE public.t (a public.code NOT NULL, b text COLLATE \"C\" NOT NULL, c timestamptz NOT NULL)",
        );
        run("ALTER TABLE public.t DROP COLUMN c, ADD COLUMN d date NOT NULL");
        run(
            "CREATE UNIQUE INDEX i ON public.t (a COLLATE \"POSIX\" DESC, b DESC NULLS LAST, d DESC)",
        );
        let index = chosen(None).expect("an index");
        let [a, b, d] = &index.columns[..] else {
            panic!("three columns, not {:?}", index.columns)
        };
        // A domain counts as the type below it, which is what parameters are bound as.
        assert_eq!(a.type_oid, pgrx::pg_sys::TEXTOID.to_u32());
        assert_eq!(
            a.collation,
            Some(("pg_catalog".to_owned(), "POSIX".to_owned()))
        );
        assert_eq!(b.collation, None);
        assert!(a.descending && a.nulls_first);
        assert!(b.descending && !b.nulls_first);
        assert_eq!(d.name.as_str(), "d");
        assert_eq!(d.operator_schema.as_deref(), Some("pg_catalog"));
        assert!(!a.depends_on_settings() && d.depends_on_settings());
    }

    #[pg_test]
    fn columns_that_were_dropped_confuse_nobody() {
        run("CREATE TABLE public.t (x int, a int NOT NULL, y int, b int NOT NULL, UNIQUE (b, a))");
        run("ALTER TABLE public.t DROP COLUMN x, DROP COLUMN y");
        assert_eq!(chosen(None).expect("an index").column_names(), ["b", "a"]);
    }
}
