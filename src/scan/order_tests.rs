//! Tests of the order of a walk.

use super::*;

use crate::scan::key::{Candidate, test_column};

/// A table; facts that must not be looked up are `None`.
#[derive(Default)]
struct Table {
    unsound: Option<&'static str>,
    stays: bool,
    pages: Option<i64>,
    correlation: f64,
    planned: Option<f64>,
    sample: Option<(f64, f64)>,
}

impl Pages for Table {
    fn table(&self) -> &str {
        "public.t"
    }
    fn unsound(&self) -> Result<Option<String>> {
        Ok(self.unsound.map(str::to_owned))
    }
}

impl Facts for Table {
    fn extinguishes(&self) -> bool {
        !self.stays
    }
    fn pages(&self) -> Result<i64> {
        Ok(self.pages.expect("not asked for"))
    }
    fn correlation(&self, _: &Candidate) -> Result<Option<f64>> {
        Ok(Some(self.correlation))
    }
    fn planned(&self) -> Result<(f64, Option<f64>)> {
        Ok((1e6, self.planned))
    }
    fn sample(&self) -> Result<(f64, f64)> {
        Ok(self.sample.expect("not asked for"))
    }
}

const LARGE: Table = Table {
    unsound: None,
    stays: false,
    pages: Some(50_000),
    correlation: 1.0,
    planned: Some(1e6),
    sample: None,
};

const ASKED: Asked = Asked {
    walk: Walk::Auto,
    bounded: false,
    named: false,
    read_only: false,
};

fn key() -> Result<Candidate> {
    Ok(Candidate {
        oid: 1,
        name: "t_pkey".into(),
        primary: true,
        unique: true,
        contains_key: false,
        valid: true,
        immediate: true,
        partial: false,
        expressions: false,
        btree: true,
        columns: vec![test_column("id")],
    })
}

fn no_key() -> Result<Candidate> {
    crate::scan::key::choose(Vec::new(), None, "public.t")
}

fn why(asked: Asked, key: Result<Candidate>, table: &Table) -> (bool, Why) {
    let (order, why) = decide(asked, key, table).unwrap();
    (order == Order::Pages, why)
}

#[test]
fn what_is_asked_for_is_done_without_a_look_at_the_table() {
    let table = Table::default();
    let walk = |walk| Asked { walk, ..ASKED };
    assert_eq!(why(walk(Walk::Key), key(), &table), (false, Why::Walk));
    assert_eq!(why(walk(Walk::Physical), key(), &table), (true, Why::Walk));
    let named = Asked {
        named: true,
        ..ASKED
    };
    assert_eq!(why(named, key(), &table), (false, Why::Named));
    let bounded = Asked {
        bounded: true,
        ..ASKED
    };
    assert_eq!(why(bounded, key(), &table), (false, Why::Bounds));
    for asked in [
        bounded,
        Asked {
            walk: Walk::Physical,
            ..bounded
        },
    ] {
        let error = decide(asked, no_key(), &table).unwrap_err();
        assert!(error.message.contains("need a key to walk by"), "{error}");
    }
    for asked in [named, walk(Walk::Key)] {
        let error = decide(asked, no_key(), &table).unwrap_err();
        assert_eq!(error.message, "table public.t has no key to walk it by");
    }
}

#[test]
fn pages_are_taken_where_they_pay_and_are_sound() {
    assert_eq!(why(ASKED, key(), &LARGE), (false, Why::Best));
    let scattered = Table {
        correlation: 0.1,
        ..LARGE
    };
    assert_eq!(why(ASKED, key(), &scattered), (true, Why::Scattered));
    let few = Table {
        planned: Some(10.0),
        sample: Some((2000.0, 1.0)),
        ..LARGE
    };
    assert_eq!(why(ASKED, key(), &few), (true, Why::FewMatch));
    let mistaken = Table {
        sample: Some((2000.0, 1000.0)),
        ..few
    };
    assert_eq!(why(ASKED, key(), &mistaken), (false, Why::Best));
    let unsound = Table {
        unsound: Some("a trigger"),
        ..scattered
    };
    assert_eq!(why(ASKED, key(), &unsound), (false, Why::Unsound));
    let small = Table {
        pages: Some(10),
        ..scattered
    };
    assert_eq!(why(ASKED, key(), &small), (false, Why::Best));
    let stays = Table {
        stays: true,
        pages: None,
        ..scattered
    };
    assert_eq!(why(ASKED, key(), &stays), (false, Why::Best));
    let read_only = Asked {
        read_only: true,
        ..ASKED
    };
    assert_eq!(why(read_only, key(), &scattered), (false, Why::Best));
}

#[test]
fn without_a_key_the_pages_have_to_do() {
    assert_eq!(why(ASKED, no_key(), &LARGE), (true, Why::NoKey));
    let unsound = Table {
        unsound: Some("a trigger"),
        ..LARGE
    };
    let error = decide(ASKED, no_key(), &unsound).unwrap_err();
    assert_eq!(error.message, "table public.t has no key to walk it by");
    assert!(
        error
            .detail
            .clone()
            .unwrap()
            .ends_with("physical order: a trigger.")
    );
    let physical = Asked {
        walk: Walk::Physical,
        ..ASKED
    };
    let error = decide(physical, key(), &unsound).unwrap_err();
    assert!(error.message.ends_with("in physical order: a trigger"));
    // Rows that are only read do not move.
    let read_only = Asked {
        read_only: true,
        ..ASKED
    };
    assert_eq!(why(read_only, no_key(), &unsound), (true, Why::NoKey));
}

#[test]
fn a_clause_that_names_a_column_that_is_set_may_become_false() {
    let set = ["Rate_New".to_owned()];
    assert!(extinguishes(Some("rate_new IS NULL"), &set));
    assert!(!extinguishes(Some("id > 7"), &set));
    assert!(!extinguishes(None, &set));
}

#[test]
fn a_small_sample_says_nothing() {
    assert!(few_seen(1.0, 2000.0));
    assert!(!few_seen(0.0, 10.0));
    assert!(!few_seen(100.0, 2000.0));
}
