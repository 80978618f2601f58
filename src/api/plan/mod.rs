//! `backfill.plan`: what a backfill would do, what it costs, and what is easily forgotten. Changes nothing.

mod estimates;
mod machine;
mod measured;
mod statements;
mod text;
mod walk;
mod warnings;

use std::time::Duration;

use pgrx::pg_sys::Oid;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::backfill::Backfill;
use super::call::Request;
use super::caller::required;
use super::sample::look_at;
use super::start::Pace;
use super::subject::Subject;
use crate::error::{Error, Result};
use crate::stranger::errand::Errand;

/// A line of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Section of the line: walk, estimates, warnings or statements.
    pub section: String,
    /// Subject of the line.
    pub item: String,
    /// The finding.
    pub value: String,
    /// Advice on what to do about it.
    pub advice: Option<String>,
}

impl Line {
    fn new(section: &str, item: &str, value: impl Into<String>) -> Line {
        Line {
            section: section.to_owned(),
            item: item.to_owned(),
            value: value.into(),
            advice: None,
        }
    }

    fn advice(self, advice: impl Into<String>) -> Line {
        Line {
            advice: Some(advice.into()),
            ..self
        }
    }
}

/// Returns the plan of a call of `backfill.start` with these arguments. In the formats `json` and `text` it is one line
/// whose value is a document.
pub fn plan(
    request: Request,
    batch_size: Option<i32>,
    sleep_ms: Option<i32>,
    format: Option<String>,
) -> Result<Vec<Line>> {
    let pace = Pace::check(
        required(batch_size, "batch_size")?,
        required(sleep_ms, "sleep_ms")?,
    )?;
    let format = required(format, "format")?;
    if !["rows", "json", "text"].contains(&format.as_str()) {
        return Err(Error::invalid(format!(
            "format must be \"rows\", \"text\" or \"json\", not \"{format}\""
        ))
        .hint("Leave it out for rows."));
    }
    let (lines, numbers) = look_at(
        request,
        pace.batch_size,
        "backfill.plan()",
        |backfill| foretell(backfill, pace),
        |subject| PlanOf { subject, pace },
    )?;
    Ok(match format.as_str() {
        "json" => vec![Line::new("plan", "json", document(&lines, numbers))],
        "text" => vec![Line::new("plan", "text", text::text(&lines))],
        _ => lines,
    })
}

/// The plan of a stored definition.
#[derive(Serialize, Deserialize)]
pub struct PlanOf {
    subject: Subject,
    pace: Pace,
}

impl Errand for PlanOf {
    const NAME: &'static str = "plan";
    const LIMIT: Option<Duration> = Some(Duration::from_secs(300));
    type Answer = (Vec<Line>, Value);

    fn owner(&self) -> Oid {
        self.subject.owner()
    }

    fn run(self) -> Result<Self::Answer> {
        let backfill = self.subject.open()?;
        backfill.under_its_settings(|| foretell(&backfill, self.pace))
    }
}

/// Returns the lines of the plan, and the numbers behind them.
fn foretell(backfill: &Backfill, pace: Pace) -> Result<(Vec<Line>, Value)> {
    let ways = walk::ways(backfill)?;
    let mut lines = walk::lines(backfill, &ways, pace)?;
    let (estimates, numbers) = estimates::lines(backfill, &ways, pace)?;
    lines.extend(estimates);
    lines.extend(warnings::lines(backfill, &ways, pace)?);
    lines.extend(statements::lines(backfill, &ways, pace)?);
    Ok((lines, numbers))
}

/// Returns the plan as JSON: a list for each section, and the estimates as numbers.
fn document(lines: &[Line], numbers: Value) -> String {
    let mut sections = Map::new();
    for line in lines {
        let entry = json!({"item": line.item, "value": line.value, "advice": line.advice});
        let section = sections
            .entry(line.section.clone())
            .or_insert_with(|| json!([]));
        if let Value::Array(list) = section {
            list.push(entry);
        }
    }
    sections.insert("numbers".to_owned(), numbers);
    Value::Object(sections).to_string()
}
