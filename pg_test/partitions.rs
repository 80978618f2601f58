//! What partitioned tables consist of.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::pg::partition;
    use crate::server_tests::support::{connected, oid, run};

    fn table() {
        run(
            "CREATE TABLE public.p (id int, region text, day date, a int, note text) PARTITION BY LIST (region);
             CREATE TABLE public.us PARTITION OF public.p FOR VALUES IN ('us')
                 PARTITION BY RANGE ((day + a), id);
             CREATE TABLE public.us_rest PARTITION OF public.us DEFAULT;
             CREATE TABLE public.rest PARTITION OF public.p DEFAULT;
             CREATE TABLE public.\"Odd \"\"one\"\"\" PARTITION OF public.p FOR VALUES IN ('eu');
             CREATE TABLE public.stranger (id int)",
        );
    }

    fn leaves(root: &str) -> Vec<String> {
        let found = connected(|| partition::leaves(oid(root), false)).expect("leaves");
        found.into_iter().map(|leaf| leaf.shown).collect()
    }

    fn key(table: &str) -> Vec<String> {
        connected(|| partition::key_columns(oid(table))).expect("key columns")
    }

    #[pg_test]
    fn leaves_are_found_on_all_levels() {
        table();
        assert_eq!(
            leaves("public.p"),
            [
                "public.us_rest",
                "public.rest",
                "public.\"Odd \"\"one\"\"\""
            ]
        );
        assert_eq!(leaves("public.us"), ["public.us_rest"]);
        assert_eq!(leaves("public.us_rest"), ["public.us_rest"]);
        assert_eq!(leaves("public.stranger"), ["public.stranger"]);
        run("DROP TABLE public.rest, public.us");
        assert_eq!(leaves("public.p"), ["public.\"Odd \"\"one\"\"\""]);
    }

    #[pg_test]
    fn a_leaf_is_one_until_it_is_detached() {
        table();
        let (root, leaf, stranger) = (
            oid("public.p"),
            oid("public.us_rest"),
            oid("public.stranger"),
        );
        assert_eq!(partition::topmost(leaf), root);
        assert_eq!(partition::topmost(stranger), stranger);
        run("ALTER TABLE public.p DETACH PARTITION public.us");
        assert_eq!(leaves("public.p").len(), 2);
        assert_eq!(leaves("public.us"), ["public.us_rest"]);
        run("DROP TABLE public.us");
        assert_eq!(partition::topmost(leaf), leaf);
    }

    #[pg_test]
    fn tables_that_inherit_come_once_after_the_whole() {
        run("CREATE TABLE public.a (id int); CREATE TABLE public.b (id int);
             CREATE TABLE public.a1 () INHERITS (public.a);
             CREATE TABLE public.ab () INHERITS (public.a1, public.b); ALTER TABLE public.ab INHERIT public.a;
             CREATE TABLE public.late (id int)");
        assert_eq!(leaves("public.a"), ["public.a", "public.a1", "public.ab"]);
        let only = connected(|| partition::leaves(oid("public.a"), true)).expect("leaves");
        assert_eq!(only.len(), 1);
        let relatives = |table: &str| connected(|| partition::relatives(oid(table))).expect(table);
        assert_eq!(
            relatives("public.b"),
            [oid("public.a"), oid("public.a1"), oid("public.ab")]
        );
        assert_eq!(
            relatives("public.a1"),
            [oid("public.a"), oid("public.b"), oid("public.ab")]
        );
        assert!(relatives("public.late").is_empty());
        let one = |table: &str| connected(|| partition::representative(oid(table))).expect(table);
        for table in ["a", "b", "a1", "ab"] {
            assert_eq!(one(&format!("public.{table}")), oid("public.a"));
        }
        run("ALTER TABLE public.late INHERIT public.b; ALTER TABLE public.ab NO INHERIT public.b");
        assert_eq!(one("public.late"), oid("public.b"));
    }

    #[pg_test]
    fn all_columns_that_place_a_row_are_found() {
        table();
        let mut whole = key("public.p");
        whole.sort();
        assert_eq!(whole, ["a", "day", "id", "region"]);
        let mut leaf = key("public.us_rest");
        leaf.sort();
        assert_eq!(leaf, whole);
        assert_eq!(key("public.rest"), ["region"]);
        assert!(key("public.stranger").is_empty());
    }

    #[pg_test]
    fn an_index_is_found_by_the_name_of_the_whole() {
        table();
        run(
            "CREATE INDEX whole ON public.p (note); CREATE INDEX own ON public.rest (note, a);
             CREATE INDEX whole_too ON public.stranger (id)",
        );
        let root = oid("public.p");
        let named = |table: &str, name: &str| {
            connected(|| partition::index_named(oid(table), root, name)).expect(name)
        };
        for leaf in ["rest", "us_rest"] {
            let found = named(&format!("public.{leaf}"), "whole");
            assert_eq!(found, Some(format!("{leaf}_note_idx")));
        }
        assert_eq!(named("public.rest", "own"), Some("own".to_owned()));
        assert_eq!(named("public.us_rest", "own"), None);
        assert_eq!(named("public.rest", "whole_too"), None);
        assert_eq!(named("public.p", "whole"), Some("whole".to_owned()));
    }
}
