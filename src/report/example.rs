//! A report, for tests.

use super::model::Report;

/// Returns the report of a job with everything that a report can show.
pub fn example() -> Report {
    Report {
        document: serde_json::json!({
            "made_at": "2026-11-23T14:05:00.5+00:00",
            "server": {"database": "shop", "version": "15.20", "extension": "0.3.0"},
            "job": {"job_id": 7, "name": "<b>rates</b> | x", "relation": "orders", "state": "completed", "kind": "backfill",
                "rows_done": 1_234_567, "rows_updated": 1_234_560, "rows_failed": 7, "batch_size": 1000, "sleep_ms": 5,
                "workers_wanted": 2, "set_clause": "a = 'it''s'", "where_clause": "a IS NULL", "owner": "app",
                "key_columns": ["id"], "attempt": 1, "seconds_working": 61.5, "seconds_sleeping": 2.0,
                "seconds_throttled": 12.5, "wal_bytes": 104_857_600, "hot_percent": 88.5,
                "options": {"workers": 2}, "started_at": "2026-11-23T14:00:00.123456+00:00"},
            "settings": {"search_path": "\"$user\", public"},
            "throttled_by": {"max_lag_bytes": 12.5},
            "sizes": {"heap_before": 1000, "heap_after": 1100, "indexes_before": 0, "indexes_after": 0},
            "events": [{"at": "2026-11-23T14:00:00+00:00", "actor": "app", "event": "define", "old": null, "new": "pending"}],
            "failed_rows": [{"relation": "orders", "key": ["1"], "sqlstate": "22012", "message": "a | b\n<script>"}],
            "verifications": [],
            "samples": [{"second": 0.0, "rows_per_second": 10.0, "batch_ms": 1.0}, {"second": 5.0, "rows_per_second": 1000.0, "batch_ms": 3.0}, {"second": 10.0, "rows_per_second": 2000.0, "batch_ms": 5.0,
                "settings": {"search_path": "\"$user\", public"},
            "throttled_by": {"max_lag_bytes": 2.0}}],
        }),
    }
}
