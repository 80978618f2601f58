//! The checks of the clauses with PostgreSQL's own parser and analyser, and where they see a fault.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::error::Error;
    use crate::pg::clauses::{check_expression, set_columns};
    use crate::server_tests::support::{connected, refused, run};

    fn columns(clause: &str) -> Vec<String> {
        connected(|| set_columns(clause)).unwrap_or_else(|error| panic!("{clause}: {error}"))
    }

    fn place(error: &Error) -> (i32, &str) {
        let position = error.position.as_ref().expect("a position");
        (position.character, position.text.as_str())
    }

    #[pg_test]
    fn the_columns_of_a_set_list_are_found() {
        for (clause, wanted) in [
            ("a = 1", &["a"][..]),
            ("a = 1, \"B b\" = a", &["a", "B b"]),
            ("A = 1, B = (SELECT c FROM d WHERE e = f)", &["a", "b"]),
            ("(a, b) = (SELECT 1, 2), c = DEFAULT", &["a", "b", "c"]),
            ("(a, b) = ROW (1, 2)", &["a", "b"]),
            ("a[1] = 2, b.c = 3", &["a", "b"]),
            ("\"wéird \"\"x\"\"\" = 1", &["wéird \"x\""]),
        ] {
            assert_eq!(columns(clause), wanted, "{clause}");
        }
    }

    #[pg_test]
    fn other_parts_of_an_update_are_refused() {
        for clause in [
            "a = 1 WHERE true",
            "a = 1, b = 2 WHERE true",
            "a = x FROM t2",
            "a = 1 RETURNING a",
            "a = 1 WHERE CURRENT OF c",
            "a = 1; DELETE FROM t",
        ] {
            let error = connected(|| set_columns(clause)).expect_err(clause);
            assert_eq!(error.sqlstate, "42601", "{clause}");
            assert!(
                error.message.starts_with("set_clause "),
                "{clause}: {error}"
            );
            assert!(error.hint.is_some(), "{clause}");
        }
    }

    #[pg_test]
    fn an_expression_is_one_and_nothing_else() {
        for clause in [
            "true",
            "a = 1 AND (b OR c)",
            "EXISTS (SELECT FROM t WHERE a)",
            "a IN (SELECT 1)",
        ] {
            connected(|| check_expression("where_clause", clause))
                .unwrap_or_else(|error| panic!("{clause}: {error}"));
        }
        for clause in [
            "a, b",
            "a AS x",
            "a FROM t",
            "a ORDER BY b",
            "*",
            "WHERE a",
            "a LIMIT 1",
        ] {
            let error = connected(|| check_expression("where_clause", clause)).expect_err(clause);
            assert_eq!(error.sqlstate, "42601", "{clause}: {error}");
        }
    }

    #[pg_test]
    fn the_place_of_a_syntax_error_is_counted_in_the_clause() {
        for (clause, character) in [
            ("a = = 1", 5),
            ("a 1", 3),
            ("ä = 'öü', b = = 1", 15),
            ("a = 1,\n  = 2", 10),
        ] {
            let error = connected(|| set_columns(clause)).expect_err(clause);
            assert_eq!(place(&error), (character, clause));
        }
        for (clause, character) in [("a = = 1", 5), ("ä AND\nOR b", 7)] {
            let error = connected(|| check_expression("where_clause", clause)).expect_err(clause);
            assert_eq!(place(&error), (character, clause));
        }
    }

    #[pg_test]
    fn the_place_of_a_fault_in_meaning_is_counted_in_its_clause() {
        run("CREATE TABLE public.t (id int PRIMARY KEY, a int, b text)");
        for (set, filter, sqlstate, character, clause) in [
            ("nosuch = 1", "a > 0", "42703", 1, "nosuch = 1"),
            ("a = nosuch", "a > 0", "42703", 5, "a = nosuch"),
            (
                "b = 'äöü', a = nosuch",
                "a > 0",
                "42703",
                16,
                "b = 'äöü', a = nosuch",
            ),
            ("a = 1", "nosuch > 0", "42703", 1, "nosuch > 0"),
            (
                "a = 1",
                "b = 'äö'\n AND nosuch",
                "42703",
                15,
                "b = 'äö'\n AND nosuch",
            ),
            (
                "a = 1",
                "a = 1 AND nosuch(a)",
                "42883",
                11,
                "a = 1 AND nosuch(a)",
            ),
            ("a = max(id)", "true", "42803", 5, "a = max(id)"),
            ("a = 1", "a + 1", "42804", 1, "a + 1"),
            // The same text in both clauses: it is the second that has the fault.
            ("a = 1", "a = 1 AND a", "42804", 11, "a = 1 AND a"),
        ] {
            let error = refused(&format!(
                "SELECT backfill.define('public.t', $q${set}$q$, $q${filter}$q$)"
            ));
            assert_eq!(error.sqlstate, sqlstate, "{set} / {filter}: {error}");
            assert_eq!(place(&error), (character, clause), "{error}");
        }
    }
}
