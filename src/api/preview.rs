//! `backfill.preview`: the result of a backfill for some rows, computed without changing any.

use std::time::Duration;

use pgrx::pg_sys::Oid;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::backfill::Backfill;
use super::call::Request;
use super::caller::required;
use super::define::DEFAULT_BATCH_SIZE;
use super::sample::{Part, look_at, shown};
use super::subject::Subject;
use crate::error::{Error, Result};
use crate::model::fate::Fate;
use crate::pg::evaluate::{self, Change, Seen};
use crate::pg::relation::Relation;
use crate::pg::report::notice;
use crate::pg::spi::{self, Arg};
use crate::pg::text::{MOST_SHOWN, to_server};
use crate::pg::tid::Tid;
use crate::quote::ident;
use crate::stranger::errand::Errand;

/// Rows that a call may ask for.
const MOST: i32 = 1000;
/// Bytes that all samples together may have: the call ends with the row that reaches them.
const BYTES: usize = 8 << 20;
/// Bytes that each value may have in any case, even if there are many values.
const LEAST_SHOWN: usize = 64;

/// A row, before and after the backfill.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// The row's key, as a condition.
    pub key: Option<String>,
    /// The columns that are set, before: a JSON object.
    pub before: Option<String>,
    /// The columns that are set, after: a JSON object.
    pub after: Option<String>,
    /// The error, if the row would fail.
    pub error: Option<String>,
}

/// Returns samples of rows from all over the table, `limit` at most.
pub fn preview(request: Request, limit: Option<i32>) -> Result<Vec<Sample>> {
    let limit = required(limit, "limit")?;
    if !(1..=MOST).contains(&limit) {
        let message = format!("limit must be between 1 and {MOST}, not {limit}");
        return Err(Error::invalid(message).hint("It is the number of rows to show."));
    }
    look_at(
        request,
        DEFAULT_BATCH_SIZE,
        "backfill.preview()",
        |backfill| samples(backfill, limit),
        |subject| PreviewOf { subject, limit },
    )
}

/// The preview of a stored definition.
#[derive(Serialize, Deserialize)]
pub struct PreviewOf {
    subject: Subject,
    limit: i32,
}

impl Errand for PreviewOf {
    const NAME: &'static str = "preview";
    const LIMIT: Option<Duration> = Some(Duration::from_secs(300));
    type Answer = Vec<Sample>;

    fn owner(&self) -> Oid {
        self.subject.owner()
    }

    fn run(self) -> Result<Self::Answer> {
        let backfill = self.subject.open()?;
        backfill.under_its_settings(|| samples(&backfill, self.limit))
    }
}

fn samples(backfill: &Backfill, limit: i32) -> Result<Vec<Sample>> {
    let found = backfill.parts(i64::from(limit))?;
    let wanted = limit as usize;
    let values = 2 * wanted * backfill.set_columns().len().max(1);
    let most = (BYTES / values).clamp(LEAST_SHOWN, MOST_SHOWN);
    let mut samples = Vec::new();
    let mut bytes = 0;
    for (part, row) in found.parts.iter().flat_map(rows_of) {
        if samples.len() == wanted {
            break;
        }
        if bytes >= BYTES {
            notice(
                &format!(
                    "{} rows are shown, not {wanted}: they are {bytes} bytes",
                    samples.len()
                ),
                Some("Ask for fewer rows, or set fewer columns."),
            );
            return Ok(samples);
        }
        let sample = match row {
            Ok((tid, key)) => sample(part, *tid, key, most),
            Err(error) => Sample {
                key: Some(format!("pages {} to {}", part.pages.0, part.pages.1 - 1)),
                error: Some(shown(error)),
                ..Sample::default()
            },
        };
        bytes += sample.bytes();
        samples.push(sample);
    }
    if samples.len() < limit as usize && found.looked < found.pages {
        let message = format!(
            "of {} pages {} were looked through: rows that match where_clause are few",
            found.pages, found.looked
        );
        notice(&message, None);
    }
    Ok(samples)
}

/// Returns the rows of a part, or the error that was found instead.
fn rows_of(
    part: &Part,
) -> impl Iterator<Item = (&Part, std::result::Result<&(Tid, String), &Error>)> {
    let (rows, error) = match &part.rows {
        Ok(rows) => (rows.as_slice(), None),
        Err(error) => (&[][..], Some(error)),
    };
    let rows = rows.iter().map(Ok).chain(error.map(Err));
    rows.map(move |row| (part, row))
}

impl Sample {
    fn bytes(&self) -> usize {
        let texts = [&self.key, &self.before, &self.after, &self.error];
        texts.into_iter().flatten().map(String::len).sum()
    }
}

/// Computes one row's sample; each value is cut to about `most` bytes.
fn sample(part: &Part, tid: Tid, key: &str, most: usize) -> Sample {
    let mut sample = Sample {
        key: Some(key.to_owned()),
        ..Sample::default()
    };
    let table = &part.table;
    if part.fate != Fate::Changed {
        // There is no new row of this table: the old one is shown, and what is copied of it.
        let both =
            row_of(part, tid, most).and_then(|before| Ok((before, copied(part, tid, most)?)));
        return match both {
            Ok((before, after)) => Sample {
                before,
                after,
                ..sample
            },
            Err(error) => Sample {
                error: Some(shown(&error)),
                ..sample
            },
        };
    }
    let evaluated = evaluate::undone(|| {
        let statement = to_server(&part.reading)?;
        let mut values = (None, None);
        let args = [Arg::Tids(&[tid])];
        evaluate::changes(table.oid, &statement, &args, Seen::Set, |change| {
            values = (
                Some(object(table, change, |n| change.before(n, most))?),
                Some(object(table, change, |n| change.after(n, most))?),
            );
            Ok(())
        })?;
        Ok(values)
    });
    match evaluated {
        Ok((before, after)) => (sample.before, sample.after) = (before, after),
        Err(error) => sample.error = Some(shown(&error)),
    }
    sample
}

/// Returns a row as a JSON object of the text forms of its columns, each cut to `most` characters; `None` if it is gone.
fn row_of(part: &Part, tid: Tid, most: usize) -> Result<Option<String>> {
    let table = &part.table;
    let columns = table.columns.iter().map(|column| column.name.as_str());
    let names: Vec<&str> = columns.collect();
    let from = format!(
        "{} WHERE ctid OPERATOR(pg_catalog.=) ANY ($1)",
        table.alone(None)
    );
    texts(&names, &names, &from, tid, most)
}

/// Returns what a copy inserts for a row, in the same form; `None` if the row is gone, or nothing is copied.
fn copied(part: &Part, tid: Tid, most: usize) -> Result<Option<String>> {
    let Some(columns) = &part.copied else {
        return Ok(None);
    };
    let statement = &part.reading;
    let values: Vec<String> = (1..=columns.len()).map(|n| format!("v{n}")).collect();
    let names: Vec<&str> = columns.iter().map(String::as_str).collect();
    let taken: Vec<&str> = values.iter().map(String::as_str).collect();
    let from = format!("({statement}) AS copied ({})", values.join(", "));
    texts(&names, &taken, &from, tid, most)
}

/// Returns columns of the only row of `from`, an item of FROM with what follows it, as a JSON object of their text forms by these names.
fn texts(
    names: &[&str],
    columns: &[&str],
    from: &str,
    tid: Tid,
    most: usize,
) -> Result<Option<String>> {
    let text = |column: &&str| {
        let text = format!("CAST({} AS pg_catalog.text)", ident(column));
        format!("pg_catalog.left({text}, {most})")
    };
    let list: Vec<String> = columns.iter().map(text).collect();
    let sql = format!("SELECT {} FROM {from}", list.join(", "));
    let rows =
        evaluate::undone(|| evaluate::read_only(|| spi::query(&sql, &[Arg::Tids(&[tid])])))?.rows;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let mut object = Map::new();
    for (number, name) in names.iter().enumerate() {
        let value = row.get(number).map(str::to_owned);
        object.insert((*name).to_owned(), value.map_or(Value::Null, Value::String));
    }
    Ok(Some(Value::Object(object).to_string()))
}

/// Returns the columns that are set, as a JSON object of their text forms.
fn object(
    table: &Relation,
    change: &Change,
    value: impl Fn(i16) -> Result<Option<String>>,
) -> Result<String> {
    let mut object = Map::new();
    for column in &table.columns {
        if change.set().contains(&column.number) {
            let value = value(column.number)?.map_or(Value::Null, Value::String);
            object.insert(column.name.clone(), value);
        }
    }
    Ok(Value::Object(object).to_string())
}
