//! Tests of the estimates.

use super::*;

fn index(name: &str, method: &str, bytes: f64) -> Index {
    Index {
        name: name.into(),
        method: method.into(),
        bytes,
        changed: false,
        width: None,
        correlation: 0.0,
    }
}

/// The benchmark's main scenario.
fn main() -> Given {
    Given {
        rows: 1e6,
        matching: 1e6,
        heap: 172e6,
        indexes: (0..5)
            .map(|n| Index {
                // The key's own index is in the order of the table.
                correlation: if n == 0 { 1.0 } else { 0.0 },
                ..index("i", "btree", 21.6e6)
            })
            .collect(),
        waves: true,
        passes: 16.0,
        elsewhere: 0.12,
        free: 0.0,
        blocked: false,
        full_page_writes: true,
        logged: true,
        logical: false,
        read_only: false,
        removes: false,
        batch_size: 10_000.0,
        sleep: 0.0,
        workers: 1.0,
        processors: 2.0,
        reading: 0.0,
        sample: None,
        slower: 1.0,
    }
}

fn sequential() -> Given {
    Given {
        waves: false,
        passes: 1.0,
        elsewhere: 1.0,
        ..main()
    }
}

fn near(value: f64, measured: f64) {
    let ratio = value / measured;
    assert!((0.8..1.25).contains(&ratio), "{value} of {measured}");
}

#[test]
fn the_rules_fit_what_they_were_measured_on() {
    let measured = |given: Given| {
        let sample = Sample {
            seconds: 0.5e-6,
            ..given.sample()
        };
        Given {
            sample: Some(sample),
            ..given
        }
    };
    let waves = estimate(&measured(main()), None);
    near(waves.wal, 421e6);
    near(waves.seconds, 5.7);
    near(waves.heap_growth, 19e6);
    let one_pass = estimate(&measured(sequential()), None);
    near(one_pass.wal, 880e6);
    near(one_pass.seconds, 21.6);
    near(one_pass.heap_growth, 180e6);
    let two = Given {
        workers: 2.0,
        ..main()
    };
    near(estimate(&measured(two), None).seconds, 4.0);
}

#[test]
fn few_rows_touch_few_pages() {
    let few = Given {
        matching: 1000.0,
        ..main()
    };
    let few = estimate(&few, None);
    // One image of a heap page for each row, and some of each index.
    assert!(few.wal > 8e6 && few.wal < 14e6, "{few:?}");
    assert!(few.seconds > 0.25 && few.seconds < 0.5, "{few:?}");
}

#[test]
fn what_is_known_is_better_than_a_rule() {
    let known = Known {
        seconds: 1e-3,
        wal: 10.0,
    };
    let slow = estimate(&main(), Some(known));
    assert!((slow.seconds - 1000.0).abs() < 1e-6);
    assert!((slow.wal - 1e7).abs() < 1e-3);
    let paused = Given {
        sleep: 0.1,
        ..main()
    };
    // A hundred pauses in addition to the work.
    let pauses = estimate(&paused, None).seconds - estimate(&main(), None).seconds;
    assert!((pauses - 10.0).abs() < 1e-6, "{pauses}");
    let unlogged = Given {
        logged: false,
        ..main()
    };
    assert_eq!(estimate(&unlogged, None).wal, 0.0);
}

#[test]
fn large_values_go_to_the_toast_table() {
    // 4,000 documents of 25 kB that are rewritten.
    let sample = Sample {
        rows: 100.0,
        before: 50.0,
        after: 50.0,
        set: 18.0,
        toast: (25_000.0, 25_000.0),
        chunks: 13.0,
        ..Sample::default()
    };
    let documents = Given {
        rows: 4000.0,
        matching: 4000.0,
        heap: 4000.0 * 50.0,
        indexes: vec![index("pkey", "btree", 1e5)],
        sample: Some(sample),
        full_page_writes: false,
        ..main()
    };
    near(estimate(&documents, None).wal, 109e6);
    near(estimate(&documents, None).heap_growth, 103e6);
    let images = Given {
        full_page_writes: true,
        ..documents
    };
    near(estimate(&images, None).wal, 209e6);
}

#[test]
fn dear_expressions_take_their_time() {
    let sample = Sample {
        seconds: 1e-3,
        startup: 0.1,
        ..main().sample()
    };
    let dear = Given {
        sample: Some(sample),
        ..main()
    };
    near(estimate(&dear, None).seconds, 1000.0 + 10.0 + 6.5);
    // Each evaluating worker needs a processor of its own.
    let four = Given {
        workers: 4.0,
        ..dear
    };
    near(estimate(&four, None).seconds, 505.0);
}

#[test]
fn what_the_kind_of_an_index_does_not_tell_is_not_told() {
    let mut given = sequential();
    given.indexes.push(index("tags", "gin", 1e6));
    given.indexes.push(index("at", "brin", 1e5));
    let without = estimate(&sequential(), None);
    let with = estimate(&given, None);
    assert_eq!(with.unknown_indexes, ["tags (gin)"]);
    assert_eq!(with.index_growth, without.index_growth);
    // An index on changed columns grows by the size of the new values.
    let mut given = sequential();
    given.blocked = true;
    for (method, width) in [("btree", Some(8.0)), ("gist", Some(8.0)), ("btree", None)] {
        given.indexes = vec![Index {
            changed: true,
            width,
            ..index("new", method, 8192.0)
        }];
        let estimate = estimate(&given, None);
        match (method, width) {
            ("btree", Some(_)) => near(estimate.index_growth, 26.7e6),
            _ => assert_eq!(estimate.unknown_indexes, [format!("new ({method})")]),
        }
    }
}
