//! Writes a backfill as a procedure in PL/pgSQL that does not need this extension. Pure text.
//!
//! The walk is that of hand-written procedures ("keyset pagination"), with the checkpoint in a table, so that it commits with its batch.

use std::collections::BTreeSet;

use crate::quote::literal;

const BY_KEY: &str = include_str!("standalone/by_key.sql");
const BY_PAGES: &str = include_str!("standalone/by_pages.sql");
const BATCH: &str = include_str!("standalone/batch.sql");

/// Assumed number of rows per page, to convert a batch given in rows into pages.
const ROWS_OF_A_PAGE: i32 = 50;

/// First word of the tag of the dollar quotes.
const TAG: &str = "backfill";

/// Line break and indentation of the statement of a batch.
const INDENT: &str = "\n                ";

/// A column of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyColumn {
    /// Name of the column.
    pub name: String,
    /// Type of the column, ready to be put into a statement.
    pub type_name: String,
    /// The index's collation if it is not the column's own, ready to be put into a statement.
    pub collation: Option<String>,
    /// Whether NULLs come first when the index is read in ascending order, which differs from the default of ORDER BY.
    pub nulls_first: bool,
    /// Schema of the column's operators, quoted, if it is not pg_catalog.
    pub operators: Option<String>,
}

/// A backfill, with everything that the script needs.
pub struct Standalone {
    /// Quotes an identifier if it needs quotes.
    pub quote: fn(&str) -> String,
    /// Title, in one line.
    pub title: String,
    /// The job that the script comes from, as text for people.
    pub job: String,
    /// Version of the extension.
    pub version: String,
    /// Schema of the table, and of the objects that are created.
    pub schema: String,
    /// Name of the table.
    pub table: String,
    /// Whether the table is partitioned.
    pub partitioned: bool,
    /// Names of the table's columns.
    pub columns: Vec<String>,
    /// Name of the procedure.
    pub procedure: String,
    /// Name of the table that holds the checkpoint.
    pub checkpoint: String,
    /// Name of the function that does one batch.
    pub function: String,
    /// Columns of the key that orders the walk; empty for a walk by pages.
    pub key: Vec<KeyColumn>,
    /// First key of the walk, in text form, column by column.
    pub key_from: Option<Vec<String>>,
    /// Last key of the walk, likewise.
    pub key_to: Option<Vec<String>>,
    /// The SET list.
    pub set_clause: String,
    /// The WHERE clause.
    pub where_clause: Option<String>,
    /// Settings for each transaction.
    pub settings: Vec<(String, String)>,
    /// Number of rows per transaction.
    pub batch_size: i32,
    /// Pause after a transaction, in milliseconds.
    pub sleep_ms: i32,
    /// Maximum time that a batch waits for a lock, in milliseconds.
    pub lock_timeout_ms: i32,
}

impl Standalone {
    /// Returns the script that creates the procedure and its checkpoint.
    pub fn script(&self) -> String {
        match self.key.is_empty() {
            true => self.fill(BY_PAGES),
            false => self.fill(BY_KEY),
        }
    }

    /// Returns the script that creates a function which does one batch.
    pub fn batch(&self) -> String {
        self.fill(BATCH)
    }

    fn fill(&self, template: &str) -> String {
        // The tag must occur neither in the quoted text nor in the rest: nothing in a name, a type or a clause may end the
        // quotes.
        let quotes = template.matches("{{quote}}").count();
        let taken = tags(&self.filled(template, "$"));
        let mut length = 0;
        loop {
            while taken.contains(&length) {
                length += 1;
            }
            let quote = format!("${TAG}{}$", "_".repeat(length));
            let text = self.filled(template, &quote);
            // False if the quote forms one more occurrence together with adjacent text; then the next length is tried.
            if occurrences(&text, &quote) == quotes {
                return text;
            }
            length += 1;
        }
    }

    fn filled(&self, template: &str, quote: &str) -> String {
        fill(template, |name| match name {
            "quote" => quote.to_owned(),
            _ => self
                .value(name)
                .unwrap_or_else(|| unreachable!("{name} is no part of a template")),
        })
    }

    fn value(&self, name: &str) -> Option<String> {
        self.name_or_number(name)
            .or_else(|| self.clause(name))
            .or_else(|| self.of_the_key(name))
    }

    fn name_or_number(&self, name: &str) -> Option<String> {
        Some(match name {
            "title" => self.title.clone(),
            "job" => self.job.clone(),
            "version" => self.version.clone(),
            "v" => self.prefix(),
            "table" => self.qualified(&self.table),
            "table_literal" => format!("{}::regclass", literal(&self.qualified(&self.table))),
            "name" => self.name(),
            "from" => self.from(),
            "procedure" => self.qualified(&self.procedure),
            "checkpoint" => self.qualified(&self.checkpoint),
            "function" => self.qualified(&self.function),
            "comment" => literal(&format!("{}. From {}.", self.title, self.job)),
            "checkpoint_comment" => {
                literal(&format!("How far {} is.", self.qualified(&self.procedure)))
            }
            "batch_size" => self.batch_size.to_string(),
            "batch_pages" => (self.batch_size / ROWS_OF_A_PAGE).max(1).to_string(),
            "sleep_ms" => self.sleep_ms.to_string(),
            "lock_timeout_ms" => self.lock_timeout_ms.to_string(),
            _ => return None,
        })
    }

    fn clause(&self, name: &str) -> Option<String> {
        Some(match name {
            "set_clause" => self.set_clause.clone(),
            "and_where" => self.where_clause.as_ref().map_or(String::new(), |clause| {
                format!(" AND CASE WHEN ({clause}) THEN true END")
            }),
            "why_case" => match self.where_clause {
                Some(_) => {
                    format!("-- CASE, so that no index but the one of the walk is used.{INDENT}")
                }
                None => String::new(),
            },
            "where" => self.where_clause.clone().unwrap_or("true".to_owned()),
            "settings" => self.settings(),
            _ => return None,
        })
    }

    fn of_the_key(&self, name: &str) -> Option<String> {
        let after = |text: &str| self.list(|c| self.variable(&format!("{text}_"), c));
        Some(match name {
            "key_names" => match self.key.as_slice() {
                [only] => only.name.clone(),
                _ => format!("({})", self.list(|c| c.name.clone())),
            },
            "columns" => self.list(|c| self.column(c)),
            "checkpoint_columns" => self.checkpoint_columns(),
            "checkpoint_names" => format!(
                "{}, {}",
                self.list(|c| self.kept("after_", c)),
                self.list(|c| self.kept("last_", c))
            ),
            "variables" => self.variables(),
            "last" => after("last"),
            "first" => after("first"),
            "end" => after("end"),
            "state" => format!("{}, {}", after("after"), after("last")),
            "first_after" => self.variable("after_", &self.key[0]),
            "ascending" => self.order(false),
            "descending" => self.order(true),
            "set_last" => self.list(|c| self.assignment("last_", c, "last_", " = ")),
            "set_done" => self.list(|c| self.assignment("after_", c, "end_", " = ")),
            "end_is_last" => {
                let each = self.key.iter().map(|c| {
                    format!(
                        "{} := {};",
                        self.variable("end_", c),
                        self.variable("last_", c)
                    )
                });
                each.collect::<Vec<_>>().join(" ")
            }
            "where_bounds" => self.where_bounds(),
            "from_bound" => match &self.key_from {
                Some(values) => format!("{} AND ", self.compare_to(">=", values)),
                None => String::new(),
            },
            "after_done" => self.compare(">", "after_"),
            "up_to_last" => self.compare("<=", "last_"),
            "from_first" => self.compare(">=", "first_"),
            "up_to_end" => self.compare("<=", "end_"),
            "parameters" => self.parameters(),
            "range" => self.range(),
            _ => return None,
        })
    }

    /// Returns a prefix that no column's name begins with, so that variables can't be taken for columns.
    fn prefix(&self) -> String {
        let mut prefix = "_".to_owned();
        let taken = |prefix: &str| {
            let mut names = self.columns.iter().chain([&self.table]);
            names.any(|name| name.starts_with(prefix))
        };
        while taken(&prefix) {
            prefix.push('_');
        }
        prefix
    }

    fn qualified(&self, name: &str) -> String {
        format!("{}.{}", (self.quote)(&self.schema), (self.quote)(name))
    }

    /// Returns the name that the clauses may use for the table.
    fn name(&self) -> String {
        (self.quote)(&self.table)
    }

    fn from(&self) -> String {
        let only = if self.partitioned { "" } else { "ONLY " };
        format!("{only}{}", self.qualified(&self.table))
    }

    fn list(&self, f: impl Fn(&KeyColumn) -> String) -> String {
        self.key.iter().map(f).collect::<Vec<_>>().join(", ")
    }

    /// Returns the column as it is written in a statement.
    fn column(&self, column: &KeyColumn) -> String {
        let name = format!("{}.{}", self.name(), (self.quote)(&column.name));
        match &column.collation {
            Some(collation) => format!("{name} COLLATE {collation}"),
            None => name,
        }
    }

    /// Returns a name made of a column's name, or of its number if any of these names would be too long for the server.
    fn made_of(&self, text: &str, column: &KeyColumn) -> String {
        const LONGEST: usize = 63;
        let name = |c: &KeyColumn| format!("{text}{}", c.name);
        if self.key.iter().all(|c| name(c).len() <= LONGEST) {
            return name(column);
        }
        let number = self.key.iter().position(|c| c == column).unwrap_or(0) + 1;
        format!("{text}{number}")
    }

    fn variable(&self, text: &str, column: &KeyColumn) -> String {
        (self.quote)(&self.made_of(&format!("{}{text}", self.prefix()), column))
    }

    /// Returns the name of a column of the checkpoint.
    fn kept(&self, text: &str, column: &KeyColumn) -> String {
        (self.quote)(&self.made_of(text, column))
    }

    fn assignment(&self, to: &str, column: &KeyColumn, from: &str, by: &str) -> String {
        format!(
            "{}{by}{}",
            self.kept(to, column),
            self.variable(from, column)
        )
    }

    fn checkpoint_columns(&self) -> String {
        let lines = |text: &str, note: &str| {
            let line = |c: &KeyColumn| format!("{} {}, -- {note}", self.kept(text, c), c.type_name);
            self.key.iter().map(line).collect::<Vec<_>>()
        };
        let mut all = lines("after_", "of the last row that is done; null: none is");
        all.extend(lines("last_", "of the last row of the walk"));
        all.join("\n    ")
    }

    fn variables(&self) -> String {
        let lines = |text: &str, note: &str| {
            let line =
                |c: &KeyColumn| format!("{} {}; -- {note}", self.variable(text, c), c.type_name);
            self.key.iter().map(line).collect::<Vec<_>>()
        };
        let mut all = lines("after_", "what is done: up to here");
        all.extend(lines("last_", "the end of the walk"));
        all.extend(lines("first_", "the first row of the batch"));
        all.extend(lines("end_", "its last row"));
        all.join("\n    ")
    }

    fn order(&self, descending: bool) -> String {
        self.list(|c| {
            let direction = if descending { " DESC" } else { "" };
            let nulls = match (c.nulls_first, descending) {
                (false, _) => "",
                (true, false) => " NULLS FIRST",
                (true, true) => " NULLS LAST",
            };
            format!("{}{direction}{nulls}", self.column(c))
        })
    }

    /// Returns a row comparison, which is a single index condition.
    fn compared(&self, operator: &str, with: &str) -> String {
        let operator = match self.key.first().and_then(|c| c.operators.as_ref()) {
            Some(schema) => format!("OPERATOR({schema}.{operator})"),
            None => operator.to_owned(),
        };
        let columns = self.list(|c| self.column(c));
        match self.key.len() {
            1 => format!("{columns} {operator} {with}"),
            _ => format!("({columns}) {operator} ({with})"),
        }
    }

    fn compare(&self, operator: &str, variables: &str) -> String {
        self.compared(operator, &self.list(|c| self.variable(variables, c)))
    }

    fn compare_to(&self, operator: &str, values: &[String]) -> String {
        let pairs = self.key.iter().zip(values);
        let values: Vec<String> = pairs
            .map(|(c, value)| format!("CAST({} AS {})", literal(value), c.type_name))
            .collect();
        self.compared(operator, &values.join(", "))
    }

    fn where_bounds(&self) -> String {
        match &self.key_to {
            Some(values) => format!("\n        WHERE {}", self.compare_to("<=", values)),
            None => String::new(),
        }
    }

    fn settings(&self) -> String {
        let pair =
            |(name, value): &(String, String)| format!("({}, {})", literal(name), literal(value));
        let pairs: Vec<String> = self.settings.iter().map(pair).collect();
        pairs.join(",\n            ")
    }

    /// Returns the parameters of a batch: its range.
    fn parameters(&self) -> String {
        let prefix = self.prefix();
        if self.key.is_empty() {
            return format!(
                "{prefix}from_page bigint, -- the first page\n    {prefix}until_page bigint -- the one after the last"
            );
        }
        let ends = [("first_", "of the first row"), ("end_", "of the last row")];
        let lines: Vec<(String, &str)> = ends
            .iter()
            .flat_map(|(text, note)| {
                let line =
                    move |c: &KeyColumn| format!("{} {}", self.variable(text, c), c.type_name);
                self.key.iter().map(move |c| (line(c), *note))
            })
            .collect();
        let last = lines.len() - 1;
        let line = |(n, (text, note)): (usize, &(String, &str))| {
            format!("{text}{} -- {note}", if n < last { "," } else { "" })
        };
        let lines: Vec<String> = lines.iter().enumerate().map(line).collect();
        lines.join("\n    ")
    }

    fn range(&self) -> String {
        if !self.key.is_empty() {
            return format!(
                "{} AND {}",
                self.compare(">=", "first_"),
                self.compare("<=", "end_")
            );
        }
        let (name, prefix) = (self.name(), self.prefix());
        let place = |page: &str| format!("pg_catalog.format('(%s,0)', {prefix}{page}_page)::tid");
        format!(
            "{name}.ctid >= {} AND {name}.ctid < {}",
            place("from"),
            place("until")
        )
    }
}

/// Returns the numbers of underscores with which the tag's word occurs in a text, from `$` to `$`. One scan of the text finds them all,
/// however many there are.
fn tags(text: &str) -> BTreeSet<usize> {
    let start = format!("${TAG}");
    let lengths = text.match_indices(&start).filter_map(|(at, _)| {
        let rest = &text[at + start.len()..];
        let length = rest.bytes().take_while(|byte| *byte == b'_').count();
        rest[length..].starts_with('$').then_some(length)
    });
    lengths.collect()
}

/// Counts the occurrences of a text in another one, overlapping ones included.
fn occurrences(text: &str, part: &str) -> usize {
    text.char_indices()
        .filter(|(at, _)| text[*at..].starts_with(part))
        .count()
}

/// Replaces the `{{name}}`s of a template by values. In a comment line, control characters of a value become spaces, so that it stays on
/// that line.
fn fill(template: &str, value: impl Fn(&str) -> String) -> String {
    let mut out = String::new();
    for line in template.split_inclusive('\n') {
        let comment = line.starts_with("--");
        let mut rest = line;
        while let Some((before, from)) = rest.split_once("{{") {
            let (name, after) = from.split_once("}}").unwrap_or((from, ""));
            let value = value(name);
            out.push_str(before);
            match comment {
                true => out.push_str(&value.replace(char::is_control, " ")),
                false => out.push_str(&value),
            }
            rest = after;
        }
        out.push_str(rest);
    }
    out
}

#[cfg(test)]
#[path = "standalone_tests.rs"]
mod tests;
