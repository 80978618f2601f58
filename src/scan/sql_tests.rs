//! Tests of the statements of a walk.

use super::*;
use crate::scan::key::test_column;

fn target(columns: &[&str], where_clause: Option<&str>) -> Target {
    Target {
        schema: "s".into(),
        relation: "Odd \"t\"".into(),
        alias: None,
        key: columns.iter().map(|c| test_column(c)).collect(),
        where_clause: where_clause.map(Into::into),
        lock: RowLock::NoKeyUpdate,
    }
}

#[test]
fn one_column_no_predicate() {
    let t = target(&["id"], None);
    let name = r#""s"."Odd ""t""""#;
    assert_eq!(
        t.greatest(&[]).text,
        format!(
            r#"SELECT {name}."id" FROM ONLY {name} ORDER BY {name}."id" DESC NULLS FIRST LIMIT $1"#
        )
    );
    let bound = t.bound(true);
    assert_eq!(
        bound.text,
        format!(
            r#"SELECT {name}."id" FROM ONLY {name} WHERE {name}."id" OPERATOR("pg_catalog".>) $1 AND {name}."id" OPERATOR("pg_catalog".<=) $2 ORDER BY {name}."id" ASC NULLS LAST OFFSET $3 LIMIT $4"#
        )
    );
    assert_eq!(
        bound.params,
        [Param::After, Param::UpTo, Param::Rows, Param::Rows]
    );
}

#[test]
fn two_columns_with_a_predicate() {
    let t = target(&["a", "b"], Some("n IS NULL -- hm"));
    let read = t.read(true, false);
    assert_eq!(read.params, [Param::After, Param::UpTo, Param::Rows]);
    assert!(
        read.text
            .contains(", EXISTS (SELECT WHERE (\nn IS NULL -- hm\n) OFFSET 0) FROM ONLY"),
        "{}",
        read.text
    );
    assert!(read.text.ends_with("LIMIT $5"), "{}", read.text);
}

#[test]
fn rows_that_others_have_locked_are_passed_over() {
    let two = target(&["a", "b"], Some("n IS NULL"));
    let name = two.name();
    let keys = format!(
        "{name}.\"a\" OPERATOR(\"pg_catalog\".=) \"backfill keys\".\"backfill key 1\" \
         AND {name}.\"b\" OPERATOR(\"pg_catalog\".=) \"backfill keys\".\"backfill key 2\""
    );
    let lock = two.lock_list();
    assert_eq!(lock.params, [Param::Keys, Param::Rows]);
    assert_eq!(
        lock.text,
        format!(
            "SELECT \"backfill keys\".\"backfill key\" \
             FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) WITH ORDINALITY \
             AS \"backfill keys\" (\"backfill key 1\", \"backfill key 2\", \"backfill key\"), ONLY {name} \
             WHERE {keys} AND (\nn IS NULL\n) LIMIT $3 FOR NO KEY UPDATE OF \"Odd \"\"t\"\"\" SKIP LOCKED"
        )
    );
    assert!(two.find_row(true).text.contains(" FOR NO KEY UPDATE OF "));
    let mut one = target(&["a"], None);
    one.alias = Some("orders".into());
    let item = "ONLY \"s\".\"Odd \"\"t\"\"\" AS \"orders\"";
    let equal = "\"orders\".\"a\" OPERATOR(\"pg_catalog\".=) $1";
    let lock = one.find_row(true);
    assert_eq!(lock.params, [Param::UpTo, Param::Rows]);
    assert_eq!(
        lock.text,
        format!(
            "SELECT FROM {item} WHERE {equal} LIMIT $2 FOR NO KEY UPDATE OF \"orders\" SKIP LOCKED"
        )
    );
    assert!(one.find_row(false).text.ends_with(" LIMIT $2"));
    one.lock = RowLock::Update;
    let places = one.lock_listed_places();
    assert_eq!(places.params, [Param::Tids, Param::Rows]);
    assert!(
        places
            .text
            .ends_with(" LIMIT $2 FOR UPDATE OF \"orders\" SKIP LOCKED")
    );
}

#[test]
fn a_partition_goes_by_the_name_of_the_partitioned_table() {
    let mut t = target(&["id"], Some("orders.n IS NULL"));
    t.alias = Some("orders".into());
    let name = "\"s\".\"Odd \"\"t\"\"\" AS \"orders\"";
    assert!(
        t.sample(false)
            .text
            .contains(&format!("FROM ONLY {name} TABLESAMPLE"))
    );
    assert!(
        t.lock_places(true)
            .text
            .contains("\"orders\".ctid OPERATOR(pg_catalog.<) $2")
    );
    assert!(!t.lock_places(false).text.contains("OPERATOR(pg_catalog.<)"));
}

#[test]
fn descending_keys_are_walked_backwards() {
    let mut t = target(&["a"], None);
    t.key[0].descending = true;
    t.key[0].nulls_first = true;
    assert!(t.bound(false).text.contains("\"a\" ASC NULLS LAST"));
    assert!(t.greatest(&[]).text.contains("\"a\" DESC NULLS FIRST"));
}

#[test]
fn the_collation_of_the_index_is_named() {
    let mut t = target(&["a"], None);
    t.key[0].collation = Some(("pg_catalog".into(), "C".into()));
    assert!(
        t.bound(true)
            .text
            .contains(r#""a" COLLATE "pg_catalog"."C" OPERATOR("pg_catalog".>) $1"#)
    );
}

#[test]
fn identifiers_are_quoted() {
    assert_eq!(ident("a\"b"), "\"a\"\"b\"");
}
