//! The contents of a report, section by section.

use serde_json::Value;

use super::words::{bytes, count, lasting, moment, plain};

/// A job's record.
#[derive(Debug, Clone)]
pub struct Report {
    /// The whole record, as tools get it.
    pub document: Value,
}

/// A section: a title, and facts, a table, or code.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// Title of the section.
    pub title: &'static str,
    /// Contents of the section.
    pub body: Body,
}

/// The contents of a section.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Names and values.
    Facts(Vec<(String, String)>),
    /// A table: its head, and its rows.
    Table(Vec<&'static str>, Vec<Vec<String>>),
    /// SQL.
    Code(String),
}

impl Report {
    pub(super) fn job(&self, field: &str) -> &Value {
        &self.document["job"][field]
    }

    pub(super) fn text(&self, field: &str) -> String {
        plain(self.job(field))
    }

    fn number(&self, field: &str) -> f64 {
        self.job(field).as_f64().unwrap_or_default()
    }

    pub(super) fn list(&self, name: &str) -> &[Value] {
        self.document[name].as_array().map_or(&[], Vec::as_slice)
    }

    /// Returns the title of the report, on one line.
    pub fn title(&self) -> String {
        let name = match self.text("name").as_str() {
            "" => String::new(),
            name => format!(" \"{name}\""),
        };
        let kind = self.text("kind");
        format!(
            "{}{} {}{name} on {}",
            kind[..1].to_uppercase(),
            &kind[1..],
            self.text("job_id"),
            self.text("relation")
        )
    }

    /// Returns what the job does to its rows, as a participle.
    fn done(&self) -> &'static str {
        match self.text("kind").as_str() {
            "delete" => "deleted",
            "copy" => "copied",
            "execute" => "affected",
            _ => "updated",
        }
    }

    /// Returns the state of the job in a sentence.
    pub fn verdict(&self) -> String {
        let state = self.text("state");
        let rows = match self.is_read_only() {
            true => format!("{} rows were looked at", count(self.number("rows_done"))),
            false => format!(
                "{} rows were {}",
                count(self.number("rows_updated")),
                self.done()
            ),
        };
        match state.as_str() {
            "completed" if self.is_read_only() => format!("Completed. {}.", self.note()),
            "completed" => {
                let rows = count(self.number("rows_updated"));
                let time = self.document["seconds"].as_f64();
                let time = time.map_or(String::new(), |s| format!(" in {}", lasting(s)));
                let failed = match self.number("rows_failed") {
                    0.0 => ", 0 failed".to_owned(),
                    some => format!(", but {} failed", count(some)),
                };
                let grown = self.grown("heap_before", "heap_after");
                let grown = grown.map_or(String::new(), |percent| format!(", table {percent}"));
                format!(
                    "Completed: {rows} rows {}{time}{failed}{grown}.",
                    self.done()
                )
            }
            "failed" => format!("Failed, after {rows}. Not finished."),
            "cancelled" => format!("Cancelled, after {rows}. Not finished."),
            state => format!("Not finished: it is {state}; so far {rows}."),
        }
    }

    /// True if the job changes no rows: a dry run or a verification.
    fn is_read_only(&self) -> bool {
        ["dry run", "verification"].contains(&self.text("kind").as_str())
    }

    /// True if the job is a verification that has found wrong rows.
    fn is_wrong(&self) -> bool {
        self.text("kind") == "verification" && self.number("rows_updated") > 0.0
    }

    fn note(&self) -> String {
        self.text("note")
    }

    /// Returns how the job went: "completed", "failed", "cancelled", or "other" for anything between.
    pub fn mood(&self) -> &'static str {
        match self.text("state").as_str() {
            "completed" if self.number("rows_failed") > 0.0 || self.is_wrong() => "other",
            "completed" => "completed",
            "failed" => "failed",
            "cancelled" => "cancelled",
            _ => "other",
        }
    }

    /// Returns where and when the report was made, in a sentence.
    pub fn origin(&self) -> String {
        let server = &self.document["server"];
        format!(
            "Made {} in database {} of PostgreSQL {}, backfill {}.",
            moment(&plain(&self.document["made_at"])),
            plain(&server["database"]),
            plain(&server["version"]),
            plain(&server["extension"])
        )
    }

    /// Returns all sections, in order.
    pub fn sections(&self) -> Vec<Section> {
        let mut sections = vec![self.what(), self.rows(), self.time()];
        sections.extend(self.growth());
        sections.extend(self.failures());
        sections.extend(self.verifications());
        sections.push(self.timeline());
        sections.extend(
            self.statement()
                .map(|code| section("To repeat it", Body::Code(code))),
        );
        sections
    }

    fn what(&self) -> Section {
        let mut facts = vec![fact("Table", self.text("relation"))];
        let work = self.job("work");
        let text = |name: &str| work[name].as_str().unwrap_or_default().to_owned();
        match (work["statement"].as_str(), work["select_list"].as_str()) {
            (Some(statement), _) => facts.push(fact("Statement", statement.to_owned())),
            (None, Some(list)) => {
                let target = format!("{}.{}", text("schema"), text("name"));
                facts.push(fact("Into", target));
                facts.push(fact("Values", list.to_owned()));
            }
            (None, None) if self.text("set_clause").is_empty() => {
                facts.push(fact("Work", "DELETE".to_owned()));
            }
            (None, None) => facts.push(fact("SET", self.text("set_clause"))),
        }
        let where_clause = self.text("where_clause");
        facts.push(match where_clause.as_str() {
            "" => fact("WHERE", "every row".to_owned()),
            clause => fact("WHERE", clause.to_owned()),
        });
        let key: Vec<String> = self
            .job("key_columns")
            .as_array()
            .map_or(Vec::new(), |columns| columns.iter().map(plain).collect());
        facts.push(match key.is_empty() {
            true => fact("Order", "page by page".to_owned()),
            false => fact("Order", format!("by key ({})", key.join(", "))),
        });
        if !self.text("verifies").is_empty() {
            facts.push(fact("Verifies", format!("job {}", self.text("verifies"))));
        }
        if let Some(wanted) = self.wanted() {
            facts.push(fact("Check", wanted));
        }
        facts.push(fact("Owner", self.text("owner")));
        facts.push(fact("Defined by", self.actor("define")));
        facts.push(fact("Started by", self.actor("start")));
        for (name, field) in [("Started", "started_at"), ("Finished", "finished_at")] {
            if !self.text(field).is_empty() {
                facts.push(fact(name, moment(&self.text(field))));
            }
        }
        facts.push(fact("Attempts", self.text("attempt")));
        for (name, field) in [
            ("Waits for", "waiting_for"),
            ("Last error", "last_error"),
            ("Note", "note"),
        ] {
            if !self.text(field).is_empty() {
                facts.push(fact(name, self.text(field)));
            }
        }
        section("What", Body::Facts(facts))
    }

    fn actor(&self, event: &str) -> String {
        let mut events = self.list("events").iter();
        let found = events.find(|e| e["event"] == event);
        found.map_or_else(String::new, |e| {
            format!("{}, {}", plain(&e["actor"]), moment(&plain(&e["at"])))
        })
    }

    fn rows(&self) -> Section {
        let found = count(self.number("rows_updated"));
        let found = match self.text("kind").as_str() {
            "verification" => fact("Wrong", found),
            "dry run" => fact("Would change", found),
            _ => match self.job("hot_percent").as_f64() {
                Some(percent) => fact(
                    "Updated",
                    format!(
                        "{found}, {percent} % of them heap-only: without a new entry in any index"
                    ),
                ),
                None => fact("Updated", found),
            },
        };
        let passed = fact("Passed", count(self.number("rows_done")));
        let failed = fact("Failed", count(self.number("rows_failed")));
        section("Rows", Body::Facts(vec![passed, found, failed]))
    }

    fn time(&self) -> Section {
        let seconds = |field: &str| lasting(self.number(field));
        let mut facts = Vec::new();
        if let Some(seconds) = self.document["seconds"].as_f64() {
            facts.push(fact("From start to end", lasting(seconds)));
        }
        facts.extend([
            fact("In batches, all workers", seconds("seconds_working")),
            fact("In pauses of sleep_ms", seconds("seconds_sleeping")),
            fact("Giving way", self.throttled()),
            fact("WAL", bytes(self.number("wal_bytes"))),
            fact(
                "Pace",
                format!(
                    "{} rows a commit, {} ms between two, {} worker{}",
                    count(self.number("batch_size")),
                    self.text("sleep_ms"),
                    self.text("workers_wanted"),
                    if self.number("workers_wanted") == 1.0 {
                        ""
                    } else {
                        "s"
                    }
                ),
            ),
        ]);
        section("Time and load", Body::Facts(facts))
    }

    fn throttled(&self) -> String {
        let all = lasting(self.number("seconds_throttled"));
        let by: Vec<String> = self.document["throttled_by"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, seconds)| {
                format!("{name} {}", lasting(seconds.as_f64().unwrap_or_default()))
            })
            .collect();
        match by.is_empty() {
            true => all,
            false => format!("{all}: {}", by.join(", ")),
        }
    }

    /// Returns the growth of something in percent, if it existed before.
    fn grown(&self, before: &str, after: &str) -> Option<String> {
        let sizes = &self.document["sizes"];
        let (before, after) = (sizes[before].as_f64()?, sizes[after].as_f64()?);
        (before > 0.0).then(|| format!("{:+.0} %", (after - before) * 100.0 / before))
    }

    fn growth(&self) -> Option<Section> {
        let sizes = &self.document["sizes"];
        let line = |name: &str, before: &str, after: &str| {
            let percent = self.grown(before, after).unwrap_or_default();
            let (before, after) = (sizes[before].as_f64()?, sizes[after].as_f64()?);
            Some(vec![name.to_owned(), bytes(before), bytes(after), percent])
        };
        let rows: Vec<Vec<String>> = [
            line("table", "heap_before", "heap_after"),
            line("indexes", "indexes_before", "indexes_after"),
        ]
        .into_iter()
        .flatten()
        .collect();
        let head = vec!["", "before", "after", "growth"];
        (!rows.is_empty()).then(|| section("Size", Body::Table(head, rows)))
    }

    fn failures(&self) -> Option<Section> {
        let rows: Vec<Vec<String>> = self
            .list("failed_rows")
            .iter()
            .map(|row| {
                vec![
                    plain(&row["relation"]),
                    plain(&row["key"]),
                    plain(&row["sqlstate"]),
                    plain(&row["message"]),
                ]
            })
            .collect();
        let head = vec!["table", "key", "SQLSTATE", "message"];
        (!rows.is_empty())
            .then(|| section("Rows that failed (the first 20)", Body::Table(head, rows)))
    }

    fn verifications(&self) -> Option<Section> {
        let rows: Vec<Vec<String>> = self
            .list("verifications")
            .iter()
            .map(|row| {
                vec![
                    plain(&row["job_id"]),
                    moment(&plain(&row["finished_at"])),
                    plain(&row["state"]),
                    plain(&row["note"]),
                ]
            })
            .collect();
        let head = vec!["job", "finished", "state", "verdict"];
        (!rows.is_empty()).then(|| section("Verification", Body::Table(head, rows)))
    }

    fn timeline(&self) -> Section {
        let events = self.list("events");
        // Only the last failure's reason is known.
        let failed = events.iter().rposition(|event| event["event"] == "failed");
        let reason = self.text("last_error");
        let rows = events
            .iter()
            .enumerate()
            .map(|(at, event)| {
                let (old, new) = (plain(&event["old"]), plain(&event["new"]));
                let change = match (old.is_empty(), new.is_empty()) {
                    (true, true) => String::new(),
                    (true, false) => new,
                    (false, true) => old,
                    _ if old == new => new,
                    (false, false) => format!("{old} \u{2192} {new}"),
                };
                let change = match Some(at) == failed && !reason.is_empty() {
                    true => format!("{change}: {reason}"),
                    false => change,
                };
                vec![
                    moment(&plain(&event["at"])),
                    plain(&event["actor"]),
                    plain(&event["event"]),
                    change,
                ]
            })
            .collect();
        section(
            "Timeline",
            Body::Table(vec!["when", "who", "what", ""], rows),
        )
    }
}

fn section(title: &'static str, body: Body) -> Section {
    Section { title, body }
}

fn fact(name: &str, value: String) -> (String, String) {
    (name.to_owned(), value)
}

#[cfg(test)]
mod tests {
    use super::super::example::example;

    #[test]
    fn counts_and_times_are_for_people() {
        let report = example();
        assert_eq!(
            report.verdict(),
            "Completed: 1,234,560 rows updated, but 7 failed, table +10 %."
        );
        let all = format!("{:?}", report.sections());
        assert!(all.contains("100 MB") && all.contains("1 min 1 s"), "{all}");
        assert!(all.contains("12 s: max_lag_bytes 12 s"), "{all}");
        assert!(all.contains("+10 %"), "{all}");
    }
}
