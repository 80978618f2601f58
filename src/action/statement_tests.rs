//! Tests of the statements of each action.

use super::*;
use crate::action::{Archive, Changes, Check, Delete, Look, Question, Update};
use crate::model::row_lock::RowLock;
use crate::scan::key::test_column;
use crate::scan::sql::Param;

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

fn update() -> Update {
    Update::new("n = n + 1", &["n"])
}

fn look(question: Question) -> Look {
    Look {
        of: Changes::Update(update()),
        question,
    }
}

fn of(target: &Target, rows: Rows) -> Statement {
    batch(&update(), target, rows, Giving::Nothing)
}

#[test]
fn a_range_of_one_column() {
    let t = target(&["id"], None);
    let name = t.name();
    assert_eq!(
        of(&t, Rows::Range { after: false }).text,
        format!(
            "UPDATE ONLY {name} SET n = n + 1\nWHERE {name}.\"id\" OPERATOR(\"pg_catalog\".<=) $1"
        )
    );
}

#[test]
fn a_range_of_two_columns_with_a_predicate() {
    let t = target(&["a", "b"], Some("n IS NULL -- hm"));
    let update = of(&t, Rows::Range { after: true });
    let name = t.name();
    assert_eq!(
        update.text,
        format!(
            "UPDATE ONLY {name} SET n = n + 1\nWHERE ROW({name}.\"a\", {name}.\"b\") OPERATOR(\"pg_catalog\".>) ROW($1, $2) AND ROW({name}.\"a\", {name}.\"b\") OPERATOR(\"pg_catalog\".<=) ROW($3, $4) AND (\nn IS NULL -- hm\n)"
        )
    );
}

#[test]
fn a_list_of_keys() {
    let name = target(&["a"], None).name();
    let one = of(&target(&["a"], Some("n IS NULL")), Rows::Keys);
    assert_eq!(
        one.text,
        format!(
            "UPDATE ONLY {name} SET n = n + 1\nWHERE {name}.\"a\" OPERATOR(\"pg_catalog\".=) ANY ($1) AND (\nn IS NULL\n)"
        )
    );
    let two = of(&target(&["a", "b"], None), Rows::Keys);
    assert_eq!(two.params, [Param::Keys]);
    assert_eq!(
        two.text,
        format!(
            "UPDATE ONLY {name} SET n = n + 1\nFROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) \
             AS \"backfill keys\" (\"backfill key 1\", \"backfill key 2\") \
             WHERE {name}.\"a\" OPERATOR(\"pg_catalog\".=) \"backfill keys\".\"backfill key 1\" \
             AND {name}.\"b\" OPERATOR(\"pg_catalog\".=) \"backfill keys\".\"backfill key 2\""
        )
    );
}

#[test]
fn names_of_a_list_are_not_those_of_a_clause() {
    let action = Update::new("n = \"backfill key\"", &["n"]);
    let two = batch(
        &action,
        &target(&["a", "b"], None),
        Rows::Keys,
        Giving::Nothing,
    );
    assert!(two.text.contains("AS \"backfill list\""), "{}", two.text);
}

#[test]
fn one_row() {
    let mut one = target(&["a"], None);
    one.alias = Some("orders".into());
    assert_eq!(
        of(&one, Rows::Key).text,
        "UPDATE ONLY \"s\".\"Odd \"\"t\"\"\" AS \"orders\" SET n = n + 1\nWHERE \"orders\".\"a\" OPERATOR(\"pg_catalog\".=) $1"
    );
}

#[test]
fn places() {
    let mut t = target(&["id"], Some("orders.n IS NULL"));
    t.alias = Some("orders".into());
    let update = counted(&update(), &t).text;
    let name = "\"s\".\"Odd \"\"t\"\"\" AS \"orders\"";
    let at = "\"orders\".ctid OPERATOR(pg_catalog.=) ANY ($1)";
    assert!(
        update.contains(&format!(
            "UPDATE ONLY {name} SET n = n + 1\nWHERE {at} AND (\norders.n IS NULL\n)\nRETURNING EXISTS (SELECT WHERE"
        )),
        "{update}"
    );
    let keys = batch(&self::update(), &t, Rows::Places, Giving::Key);
    assert_eq!(keys.params, [Param::Tids]);
    assert!(
        keys.text.ends_with("\nRETURNING \"orders\".\"id\""),
        "{}",
        keys.text
    );
    let unasked = unasked(&self::update(), &t).text;
    assert_eq!(
        unasked,
        format!("UPDATE ONLY {name} SET n = n + 1\nWHERE {at}")
    );
    assert_eq!(
        whole(&self::update(), &t),
        format!("UPDATE ONLY {name} SET n = n + 1")
    );
}

#[test]
fn a_look_that_evaluates_is_about_the_update() {
    let t = target(&["id"], Some("n IS NULL"));
    let rows = Rows::Range { after: true };
    let dry = batch(&look(Question::DryRun), &t, rows, Giving::Nothing);
    assert_eq!(dry, of(&t, rows));
}

#[test]
fn another_look_gives_the_rows_that_are_wrong() {
    let check = Check::Clause("n > 0".to_owned());
    let verify = look(Question::Verify { job: 7, check });
    let t = target(&["id"], Some("(\nn > 0\n) IS NOT TRUE"));
    let name = t.name();
    let pages = batch(&verify, &t, Rows::Pages, Giving::Place);
    assert_eq!(pages.params, [Param::From, Param::Until]);
    assert_eq!(
        pages.text,
        format!(
            "SELECT {name}.ctid FROM ONLY {name} WHERE {name}.ctid OPERATOR(pg_catalog.>=) $1 \
             AND {name}.ctid OPERATOR(pg_catalog.<) $2 AND (\n(\nn > 0\n) IS NOT TRUE\n)"
        )
    );
    let keys = batch(&verify, &t, Rows::Range { after: false }, Giving::Key);
    assert!(
        keys.text
            .starts_with(&format!("SELECT {name}.\"id\" FROM ONLY")),
        "{}",
        keys.text
    );
}

fn archive() -> Delete {
    Delete {
        archive: Some(Archive {
            oid: 7,
            schema: "s".into(),
            name: "gone".into(),
            columns: vec!["a".into(), "B".into()],
            overriding: false,
        }),
    }
}

#[test]
fn a_delete_by_a_range_and_by_a_list_of_keys() {
    let t = target(&["id"], Some("old"));
    let name = t.name();
    let delete = Delete::default();
    let range = batch(&delete, &t, Rows::Range { after: false }, Giving::Nothing);
    assert_eq!(
        range.text,
        format!(
            "DELETE FROM ONLY {name}\nWHERE {name}.\"id\" OPERATOR(\"pg_catalog\".<=) $1 AND (\nold\n)"
        )
    );
    let list = batch(&delete, &target(&["a", "b"], None), Rows::Keys, Giving::Key);
    assert_eq!(
        list.text,
        format!(
            "DELETE FROM ONLY {name}\nUSING ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) \
             AS \"backfill keys\" (\"backfill key 1\", \"backfill key 2\") \
             WHERE {name}.\"a\" OPERATOR(\"pg_catalog\".=) \"backfill keys\".\"backfill key 1\" \
             AND {name}.\"b\" OPERATOR(\"pg_catalog\".=) \"backfill keys\".\"backfill key 2\"\n\
             RETURNING {name}.\"a\", {name}.\"b\""
        )
    );
}

#[test]
fn deleted_rows_go_into_the_archive_by_the_same_statement() {
    let t = target(&["id"], Some("old"));
    let name = t.name();
    let by_place = batch(&archive(), &t, Rows::Places, Giving::Key);
    assert_eq!(
        by_place.text,
        format!(
            "WITH \"backfill gone\" (c1, c2, r1) AS (DELETE FROM ONLY {name}\n\
             WHERE {name}.ctid OPERATOR(pg_catalog.=) ANY ($1) AND (\nold\n)\n\
             RETURNING {name}.\"a\", {name}.\"B\", {name}.\"id\"), \
             \"backfill kept\" AS (INSERT INTO \"s\".\"gone\" (\"a\", \"B\") SELECT c1, c2 FROM \"backfill gone\")\n\
             SELECT r1 FROM \"backfill gone\""
        )
    );
    let counted = counted(&archive(), &t);
    assert!(
        counted.text.ends_with(
            ", done (again, ahead) AS (SELECT r1, r2 FROM \"backfill gone\")\n\
             SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE done.again), \
             pg_catalog.count(*) FILTER (WHERE done.ahead) FROM done"
        ),
        "{}",
        counted.text
    );
    // Whether rows match again, or have moved ahead, is not asked of rows that are gone.
    assert_eq!(counted.params, [Param::Tids]);
}
