//! Tests of the options.

use super::*;
use crate::throttle::signals::SIGNALS;
use serde_json::json;

fn message(value: Value) -> (String, String) {
    let error = Options::parse(&value).unwrap_err();
    (
        error.message.clone(),
        error.hint.clone().unwrap_or_default(),
    )
}

#[test]
fn reads_what_it_knows() {
    let value = json!({"key": "i", "settings": {"app.user": "x"}, "scan_limit": 5});
    let options = Options::parse(&value).unwrap();
    assert_eq!(options.key.as_deref(), Some("i"));
    assert_eq!(options.settings["app.user"], "x");
    assert_eq!(options.scan_limit, Some(5));
    assert_eq!(
        serde_json::from_str::<Value>(&options.to_json()).unwrap(),
        value
    );
}

#[test]
fn names_the_unknown_key_and_the_nearest() {
    let (text, hint) = message(json!({"scan_limits": 5}));
    assert_eq!(text, "unknown option \"scan_limits\"");
    assert!(hint.starts_with("Did you mean \"scan_limit\"?"), "{hint}");
    let (_, hint) = message(json!({"zzzzzzzzzzzzzzz": 5}));
    assert!(hint.starts_with("Known options:"), "{hint}");
    let (text, hint) = message(json!({"batch_size": 5}));
    assert_eq!(text, "\"batch_size\" is an argument, not an option");
    assert!(hint.contains("batch_size => ..."), "{hint}");
}

#[test]
fn says_what_type_was_expected() {
    let (text, _) = message(json!({"scan_limit": "many"}));
    assert_eq!(
        text,
        "option \"scan_limit\" must be an integer, not \"many\""
    );
    let (text, _) = message(json!({"settings": {"a": 1}}));
    assert_eq!(
        text,
        "option \"settings\" must be an object of strings, not {\"a\":1}"
    );
    let (text, _) = message(json!({"key": null}));
    assert_eq!(text, "option \"key\" must be a string, not null");
    let (text, _) = message(json!([1]));
    assert_eq!(text, "options must be a JSON object");
}

#[test]
fn refuses_what_the_worker_pins() {
    let (text, _) = message(json!({"settings": {"Row_Security": "on"}}));
    assert!(text.contains("\"Row_Security\" is pinned"), "{text}");
}

#[test]
fn alters_the_pace_and_not_the_key() {
    let options = Options::parse(&json!({"key": "i", "scan_limit": 5})).unwrap();
    let altered = options.altered(&json!({"scan_limit": 7})).unwrap();
    assert_eq!(
        (altered.key.as_deref(), altered.scan_limit),
        (Some("i"), Some(7))
    );
    assert!(options.altered(&json!({"key": "j"})).is_err());
}

#[test]
fn reads_every_key_and_has_a_default_for_each() {
    let value = json!({
        "ordered": false, "key": "i", "walk": "physical", "strategy": "waves", "waves": 16, "workers": 4, "target_ms": 250,
        "scan_limit": 5, "max_failed_rows": 7, "locked_rows": "skip", "triggers": "skip", "lock_timeout_ms": 0,
        "statement_timeout_ms": 9000,
        "settings": {"a.b": "c"}, "vacuum": false, "analyze": false, "on_end": "SELECT 1",
        "dry_run": true, "limit_rows": 9, "key_from": 7, "key_to": ["8", "a"], "at_bounds": "complete", "only": true,
        "archive_into": "gone", "lock": "share", "from": "rates r", "priority": 3, "batch_bytes": "8MB", "after": ["a"]
    });
    // The bounds of signals have their own tests.
    let is_own = |name: &&str| SIGNALS.iter().all(|entry| entry.name != *name);
    let mut own: Vec<&str> = option::keys().map(|key| key.name).filter(is_own).collect();
    own.sort_unstable();
    let mut given: Vec<&String> = value.as_object().unwrap().keys().collect();
    given.sort();
    assert_eq!(given, own);
    let options = Options::parse(&value).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&options.to_json()).unwrap(),
        value
    );
    assert_eq!(options.walk(), Walk::Physical);
    assert_eq!(options.strategy, Some(Strategy::Waves));
    assert_eq!((options.waves, options.workers), (Some(16), Some(4)));
    assert_eq!(options.max_failed_rows(), 7);
    assert!(options.dry_run() && !Options::default().dry_run());
    let bounds = options.bounds().unwrap();
    assert_eq!(bounds.from, Some(vec!["7".to_owned()]));
    assert_eq!(bounds.to, Some(vec!["8".to_owned(), "a".to_owned()]));
    assert_eq!(Options::default().bounds(), None);
    let default = Options::default();
    assert!(options.completes_at_bounds() && !default.completes_at_bounds());
    assert!(options.only() && !default.only());
    assert!(options.skips_locked_rows() && options.skips_triggers());
    let defaults = Options::default();
    assert!(!defaults.skips_locked_rows() && !defaults.skips_triggers());
    assert_eq!(
        (options.lock_timeout_ms(), options.statement_timeout_ms()),
        (0, 9000)
    );
    assert_eq!(
        (defaults.lock_timeout_ms(), defaults.statement_timeout_ms()),
        (500, 0)
    );
    assert_eq!(options.target_ms, Some(250));
    assert!(!options.vacuum() && !options.analyze());
    let none = Options::parse(&json!({})).unwrap();
    assert_eq!(none, Options::default());
    assert_eq!((none.walk(), none.strategy()), (Walk::Auto, Strategy::Auto));
    assert_eq!(
        (none.waves, none.workers(), none.target_ms),
        (None, 1, None)
    );
    assert!(none.vacuum() && none.analyze());
    assert_eq!(none.to_json(), "{}");
}

#[test]
fn a_limit_of_rows_is_kept_by_one_worker_in_one_pass() {
    let value = json!({"limit_rows": 10, "workers": 4, "strategy": "waves"});
    let options = Options::parse(&value).unwrap();
    assert_eq!(
        (options.workers(), options.strategy()),
        (1, Strategy::Sequential)
    );
    let widened = options.altered(&json!({"limit_rows": null})).unwrap();
    assert_eq!(
        (widened.workers(), widened.strategy()),
        (4, Strategy::Waves)
    );
}

#[test]
fn a_dry_run_may_find_rows_that_fail() {
    let options = Options::parse(&json!({"dry_run": true})).unwrap();
    assert_eq!(options.max_failed_rows(), DRY_RUN_FAILURES);
    let options = Options::parse(&json!({"dry_run": true, "max_failed_rows": 0})).unwrap();
    assert_eq!(options.max_failed_rows(), 0);
    assert_eq!(Options::default().max_failed_rows(), 0);
}

#[test]
fn names_the_words_that_are_allowed() {
    for (option, words) in [
        ("walk", ["auto", "key", "physical"]),
        ("strategy", ["auto", "waves", "sequential"]),
    ] {
        for word in words {
            Options::parse(&json!({option: word})).unwrap();
        }
        let [a, b, c] = words;
        let allowed = format!("\"{a}\", \"{b}\" or \"{c}\"");
        let (text, hint) = message(json!({option: "Auto"}));
        assert_eq!(
            text,
            format!("option \"{option}\" must be {allowed}, not \"Auto\"")
        );
        assert_eq!(
            hint,
            format!("Give \"{option}\" as {allowed}, or leave it out.")
        );
    }
}

#[test]
fn integers_have_bounds() {
    for (option, least, greatest) in [
        ("waves", 2, 255),
        ("workers", 1, 64),
        ("target_ms", 1, 3_600_000),
        ("scan_limit", 1, 100_000_000),
    ] {
        for number in [least, greatest] {
            Options::parse(&json!({option: number})).unwrap();
        }
        for number in [least - 1, greatest + 1, i64::MIN, i64::MAX] {
            let (text, hint) = message(json!({option: number}));
            let wanted =
                format!("option \"{option}\" must be between {least} and {greatest}, not {number}");
            assert_eq!(text, wanted);
            assert!(hint.starts_with("It "), "{hint}");
        }
        for value in [
            json!(1.5),
            json!("5"),
            json!(true),
            json!(null),
            json!(u64::MAX),
        ] {
            let (text, _) = message(json!({option: value}));
            assert_eq!(
                text,
                format!("option \"{option}\" must be an integer, not {value}")
            );
        }
    }
}

#[test]
fn flags_are_flags() {
    let (text, _) = message(json!({"vacuum": "yes"}));
    assert_eq!(text, "option \"vacuum\" must be true or false, not \"yes\"");
    let (text, _) = message(json!({"analyze": 1}));
    assert_eq!(text, "option \"analyze\" must be true or false, not 1");
}

#[test]
fn all_but_what_the_job_is_can_be_altered() {
    let fixed: Vec<&str> = option::keys()
        .map(|key| key.name)
        .filter(|name| !is_alterable(name))
        .collect();
    assert_eq!(
        fixed,
        [
            "key",
            "ordered",
            "only",
            "walk",
            "triggers",
            "dry_run",
            "archive_into",
            "from",
            "after",
            "lock"
        ]
    );
    let options = Options::parse(&json!({"walk": "key", "workers": 2})).unwrap();
    let altered = options
        .altered(&json!({"workers": 3, "strategy": "sequential"}))
        .unwrap();
    assert_eq!(
        altered.to_json(),
        r#"{"strategy":"sequential","walk":"key","workers":3}"#
    );
    let error = options.altered(&json!({"walk": "key"})).unwrap_err();
    assert_eq!(error.message, "option \"walk\" cannot be altered");
}

#[test]
fn what_start_is_given_is_laid_over_what_is_stored() {
    let stored =
        json!({"key": "i", "workers": 2, "vacuum": false, "settings": {"a.a": "1", "a.b": "1"}});
    let stored = Options::parse(&stored).unwrap();
    let start = |value: Value| stored.started_with(&Options::parse(&value).unwrap());
    assert_eq!(start(json!({})).unwrap(), stored);
    let given =
        json!({"key": "i", "workers": 3, "target_ms": 9, "settings": {"a.b": "2", "a.c": "2"}});
    let wanted = json!({
        "key": "i", "workers": 3, "target_ms": 9, "vacuum": false,
        "settings": {"a.a": "1", "a.b": "2", "a.c": "2"}
    });
    assert_eq!(start(given).unwrap(), Options::parse(&wanted).unwrap());
    for (name, value) in [
        ("key", json!({"key": "j"})),
        ("walk", json!({"walk": "auto"})),
    ] {
        let error = start(value).unwrap_err();
        let wanted = format!("option \"{name}\" cannot be given to start a stored definition");
        assert_eq!(error.message, wanted);
    }
    assert!(Options::default().started_with(&stored).is_err());
}

#[test]
fn differences_name_what_changed_and_hide_the_values_of_settings() {
    let options = |value| Options::parse(&value).unwrap();
    let before = options(
        json!({"strategy": "auto", "waves": 8, "vacuum": false, "settings": {"a.a": "secret"}}),
    );
    let after = options(json!({
        "strategy": "waves", "waves": 8, "vacuum": true, "target_ms": 5,
        "settings": {"a.a": "other secret", "a.b": "x"}
    }));
    let found = before.differences(&after);
    let found: Vec<(&str, &str, &str)> = found
        .iter()
        .map(|(name, old, new)| (*name, old.as_str(), new.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            ("strategy", "auto", "waves"),
            ("target_ms", "default", "5"),
            ("settings", "a.a", "a.a, a.b (values not shown)"),
            ("vacuum", "false", "true"),
        ]
    );
    assert_eq!(after.differences(&after), []);
}

#[test]
fn bounds_of_signals_are_options_like_others() {
    let value =
        json!({"key": "i", "max_lag_bytes": "64MB", "max_lock_waiters": 0, "run_window": "Sat"});
    let options = Options::parse(&value).unwrap();
    let stored: Value = serde_json::from_str(&options.to_json()).unwrap();
    assert_eq!(stored, value);
    let altered = options.altered(&json!({"max_lag_bytes": null, "max_growth": 7}));
    let wanted = json!({"key": "i", "max_lock_waiters": 0, "run_window": "Sat", "max_growth": 7});
    assert_eq!(altered.unwrap(), Options::parse(&wanted).unwrap());
    let (text, hint) = message(json!({"max_growth": -2}));
    assert_eq!(
        text,
        "option \"max_growth\" must be between -1 and 1000000, not -2"
    );
    assert!(hint.starts_with("It is by how many per cent"), "{hint}");
    let (text, _) = message(json!({"lag_include": [1]}));
    assert_eq!(
        text,
        "option \"lag_include\" must be an array of names, not [1]"
    );
}
