use super::*;
use crate::quote::ident;

fn column(name: &str) -> KeyColumn {
    KeyColumn {
        name: name.into(),
        type_name: "bigint".into(),
        collation: None,
        nulls_first: false,
        operators: None,
    }
}

fn standalone(key: &[&str]) -> Standalone {
    Standalone {
        quote: ident,
        title: "A backfill of table public.orders".into(),
        job: "job 7".into(),
        version: "1.2.3".into(),
        schema: "public".into(),
        table: "orders".into(),
        partitioned: false,
        columns: vec!["id".into(), "rate".into()],
        procedure: "backfill_orders".into(),
        checkpoint: "backfill_orders_checkpoint".into(),
        function: "backfill_orders_batch".into(),
        key: key.iter().map(|name| column(name)).collect(),
        key_from: None,
        key_to: None,
        set_clause: "rate = rate + 1".into(),
        where_clause: Some("rate < 5".into()),
        settings: vec![("TimeZone".into(), "UTC".into())],
        batch_size: 1000,
        sleep_ms: 50,
        lock_timeout_ms: 500,
    }
}

#[test]
fn each_part_of_each_template_is_known() {
    for key in [&["id"][..], &["id", "rate"][..], &[][..]] {
        let it = standalone(key);
        for text in [it.script(), it.batch()] {
            assert!(!text.contains("{{") && !text.contains("}}"), "{text}");
        }
    }
}

#[test]
fn a_batch_is_a_range_of_the_key() {
    let text = standalone(&["id"]).script();
    for part in [
        "UPDATE ONLY \"public\".\"orders\"\n                SET rate = rate + 1\n",
        "WHERE \"orders\".\"id\" >= \"_first_id\" AND \"orders\".\"id\" <= \"_end_id\" AND CASE WHEN (rate < 5) THEN true END;",
        "                -- CASE, so that no index but the one of the walk is used.\n                UPDATE ONLY",
        "\"after_id\" bigint, -- of the last row that is done",
        "ORDER BY \"orders\".\"id\" DESC LIMIT 1;",
        "('TimeZone', 'UTC')\n",
    ] {
        assert!(text.contains(part), "{part} in:\n{text}");
    }
}

#[test]
fn several_columns_are_compared_as_rows() {
    let mut it = standalone(&["id", "rate"]);
    it.key_to = Some(vec!["5".into(), "it's".into()]);
    let text = it.script();
    for part in [
        "(\"orders\".\"id\", \"orders\".\"rate\") >= (\"_first_id\", \"_first_rate\")",
        "WHERE (\"orders\".\"id\", \"orders\".\"rate\") <= (CAST('5' AS bigint), CAST('it''s' AS bigint))",
        "\"_end_id\" := \"_last_id\"; \"_end_rate\" := \"_last_rate\";",
    ] {
        assert!(text.contains(part), "{part} in:\n{text}");
    }
}

#[test]
fn an_odd_index_is_read_as_it_is() {
    let mut it = standalone(&["id"]);
    it.key[0].nulls_first = true;
    it.key[0].collation = Some("\"C\"".into());
    it.key[0].operators = Some("mine".into());
    it.partitioned = true;
    let text = it.script();
    for part in [
        "ORDER BY \"orders\".\"id\" COLLATE \"C\" NULLS FIRST LIMIT 1",
        "ORDER BY \"orders\".\"id\" COLLATE \"C\" DESC NULLS LAST LIMIT 1",
        "\"orders\".\"id\" COLLATE \"C\" OPERATOR(mine.>) \"_after_id\"",
        "UPDATE \"public\".\"orders\"\n",
    ] {
        assert!(text.contains(part), "{part} in:\n{text}");
    }
}

#[test]
fn variables_are_never_columns() {
    let mut it = standalone(&["id"]);
    it.columns.push("_rows".into());
    assert!(it.script().contains("__rows bigint;"));
    it.table = "__rows".into();
    assert!(it.script().contains("___rows bigint;"));
}

#[test]
fn names_of_variables_have_room() {
    let long = "k".repeat(63);
    let mut it = standalone(&["id", &long]);
    it.columns.push(long);
    let text = it.script();
    assert!(text.contains("\"_after_2\" bigint;"), "{text}");
    assert!(text.contains("\"_after_1\" bigint;"), "{text}");
    assert!(
        standalone(&["id"])
            .script()
            .contains("\"_after_id\" bigint;")
    );
}

#[test]
fn nothing_ends_the_body_or_a_comment_early() {
    let mut it = standalone(&["id"]);
    it.set_clause = "rate = $backfill$1$backfill$".into();
    it.job = "job 7 (\"a\nb\")".into();
    it.title = "A backfill of table \"a\n; DROP TABLE x; --\"".into();
    let text = it.script();
    assert!(text.contains("AS $backfill_$\n"), "{text}");
    assert!(text.starts_with("-- A backfill of table \"a ; DROP TABLE x; --\"\n"));
    assert!(text.contains("from job 7 (\"a b\")"));
    assert!(it.batch().contains("AS $backfill_$\n"));
}

#[test]
fn without_a_key_it_goes_by_pages() {
    let it = standalone(&[]);
    let text = it.script();
    let range = "\"orders\".ctid >= _from AND \"orders\".ctid < _until";
    assert!(text.contains(&format!("{range} AND CASE WHEN (rate < 5) THEN true END\n")));
    assert!(text.contains("_batch_pages integer DEFAULT 20"));
    assert!(it.batch().contains("_until_page bigint"));
}

/// A name, type or value that contains the tag must not end the quotes, whoever it is from.
#[test]
fn nothing_in_it_ends_the_quotes() {
    let evil = "x$backfill$;ALTER ROLE eve SUPERUSER;--";
    let spoils: [fn(&mut Standalone, String); 10] = [
        |it, text| it.key[0].type_name = text,
        |it, text| it.key[0].name = text,
        |it, text| it.key[0].collation = Some(text),
        |it, text| it.key[0].operators = Some(text),
        |it, text| it.settings = vec![(text, "x".into())],
        |it, text| it.settings = vec![("TimeZone".into(), text)],
        |it, text| it.where_clause = Some(text),
        |it, text| it.table = text,
        |it, text| it.key_from = Some(vec![text]),
        |it, text| it.procedure = text,
    ];
    for (n, spoil) in spoils.into_iter().enumerate() {
        let mut it = standalone(&["id"]);
        spoil(&mut it, evil.to_owned());
        for text in [it.script(), it.batch()] {
            let start = text.find("AS $").expect("a quote") + 3;
            let end = start + 1 + text[start + 1..].find('$').expect("its end");
            let quote = &text[start..=end];
            assert_eq!(
                text.matches(quote).count(),
                2,
                "case {n}: {quote} in:\n{text}"
            );
        }
        assert!(it.script().contains(evil), "case {n} does not spoil it");
    }
}

/// Thousands of tags are found in one scan, and the shortest unused one is taken.
#[test]
fn a_clause_full_of_tags() {
    let mut it = standalone(&["id"]);
    let tags = (0..1400).filter(|n| *n != 700);
    let tags: String = tags
        .map(|n| format!("$backfill{}$", "_".repeat(n)))
        .collect();
    it.where_clause = Some(format!("a = '{tags}'"));
    let begun = std::time::Instant::now();
    let script = it.script();
    assert!(begun.elapsed().as_secs() < 5);
    let quote = format!("${}{}$", super::TAG, "_".repeat(700));
    assert_eq!(script.matches(&quote).count(), 2);
}
