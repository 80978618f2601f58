//! The line in the server log that reports a job's progress.

/// A job's row of `backfill.progress`, as text.
#[derive(Debug, Default)]
pub struct Beat<'a> {
    /// Share of the rows that is done, in percent.
    pub percent: Option<&'a str>,
    /// Rows passed.
    pub rows_done: Option<&'a str>,
    /// Estimate of all rows.
    pub rows_total: Option<&'a str>,
    /// Rows that failed and were stepped over.
    pub rows_failed: Option<&'a str>,
    /// Rows per second.
    pub rows_per_second: Option<&'a str>,
    /// Time until the job is done.
    pub eta: Option<&'a str>,
    /// The reason why there is no `eta`.
    pub eta_state: Option<&'a str>,
    /// Number of processes that work on the job.
    pub workers: Option<&'a str>,
    /// The reason why the job waits.
    pub waiting_for: Option<&'a str>,
}

impl Beat<'_> {
    /// Returns the line; whatever is not known is left out.
    pub fn line(&self) -> String {
        let rows = match (self.rows_done.unwrap_or("0"), self.rows_total) {
            (done, Some(total)) => format!("{done} of {total} rows"),
            (done, None) => format!("{done} rows"),
        };
        let eta = match (self.eta, self.eta_state) {
            (Some(eta), _) => Some(format!("ETA {eta}")),
            (None, state) => state.map(|state| format!("ETA {state}")),
        };
        let workers = match self.workers {
            None | Some("0" | "1") => None,
            Some(several) => Some(format!("{several} workers")),
        };
        let failed = self.rows_failed.filter(|rows| *rows != "0");
        let parts = [
            self.percent.map(|percent| format!("{percent} %")),
            Some(rows),
            failed.map(|rows| format!("{rows} failed")),
            self.rows_per_second.map(|rate| format!("{rate} rows/s")),
            eta,
            workers,
            self.waiting_for.map(|what| format!("waits for {what}")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_all_that_is_known() {
        let beat = Beat {
            percent: Some("42.0"),
            rows_done: Some("420"),
            rows_total: Some("1000"),
            rows_failed: Some("3"),
            rows_per_second: Some("10.5"),
            eta: Some("00:00:55"),
            eta_state: None,
            workers: Some("2"),
            waiting_for: Some("max_lag_bytes: standby replica1 lags 512 MB of 256 MB"),
        };
        assert_eq!(
            beat.line(),
            "42.0 %, 420 of 1000 rows, 3 failed, 10.5 rows/s, ETA 00:00:55, 2 workers, waits for max_lag_bytes: standby replica1 lags 512 MB of 256 MB"
        );
    }

    #[test]
    fn it_leaves_out_what_is_not_known() {
        assert_eq!(Beat::default().line(), "0 rows");
        let beat = Beat {
            rows_done: Some("7"),
            rows_failed: Some("0"),
            eta_state: Some("measuring"),
            workers: Some("1"),
            ..Beat::default()
        };
        assert_eq!(beat.line(), "7 rows, ETA measuring");
    }
}
