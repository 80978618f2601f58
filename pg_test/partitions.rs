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
        let found = connected(|| partition::leaves(oid(root))).expect("leaves");
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
        assert!(leaves("public.us_rest").is_empty() && leaves("public.stranger").is_empty());
        run("DROP TABLE public.rest, public.us");
        assert_eq!(leaves("public.p"), ["public.\"Odd \"\"one\"\"\""]);
    }

    #[pg_test]
    fn a_leaf_is_one_until_it_is_detached() {
        table();
        let (root, between) = (oid("public.p"), oid("public.us"));
        let (leaf, stranger) = (oid("public.us_rest"), oid("public.stranger"));
        assert!(partition::is_leaf_of(leaf, root) && partition::is_leaf_of(leaf, between));
        assert!(!partition::is_leaf_of(stranger, root) && !partition::is_leaf_of(root, root));
        assert!(!partition::is_leaf_of(0.into(), root));
        assert_eq!(partition::topmost(leaf), root);
        assert_eq!(partition::topmost(stranger), stranger);
        run("ALTER TABLE public.p DETACH PARTITION public.us");
        assert!(!partition::is_leaf_of(leaf, root) && partition::is_leaf_of(leaf, between));
        run("DROP TABLE public.us");
        assert!(!partition::is_leaf_of(leaf, root) && partition::topmost(leaf) == leaf);
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
