//! The statements of a walk. Pure text: every identifier is quoted, every operator qualified, every
//! value a parameter, so that neither names nor the search_path can change what they mean.

use crate::quote::{ident, qualified};
use crate::scan::key::Column;

/// Parameters of a statement, in the order in which they are to be bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Param {
    /// The key columns of the cursor: everything up to it is done.
    After,
    /// The key columns of the batch's (or the walk's) last row.
    UpTo,
    /// A number of rows.
    Rows,
    /// A list of keys: an array for each key column.
    Keys,
    /// A tid[]: a list of rows by their place.
    Tids,
    /// The place (tid) at which a range of pages begins.
    From,
    /// The place (tid) before which it ends.
    Until,
    /// A percentage (real).
    Percent,
}

/// A statement and what is bound to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The text, with `$1` … in the order of `params`.
    pub text: String,
    /// The parameters; `After`, `UpTo` and `Keys` stand for one each per key column.
    pub params: Vec<Param>,
}

/// How a statement names rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// A range of keys: up to `UpTo`, and behind `After` if so.
    Range {
        /// Whether it has a lower bound.
        after: bool,
    },
    /// A list of keys (`Keys`).
    Keys,
    /// One key (`UpTo`).
    Key,
    /// A list of places (`Tids`).
    Places,
    /// A range of pages (`From`, `Until`).
    Pages,
}

/// Rows, as parts of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// A list of keys that is joined, as an item of FROM.
    pub list: Option<String>,
    /// What is true of them.
    pub condition: String,
}

/// Whether a row matches, as a value. Not the clause itself: after WHERE the server looks first at what costs
/// least, and no further once something is not true; as a value, NULL AND an error is an error. OFFSET keeps the
/// planner from making a hash table of what it takes for a comparison with other rows.
pub fn matches(where_clause: &str) -> String {
    format!("EXISTS (SELECT WHERE (\n{where_clause}\n) OFFSET 0)")
}

/// What is scanned: a relation, the key that orders it, and which of its rows are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Schema of the relation.
    pub schema: String,
    /// Name of the relation.
    pub relation: String,
    /// What the clauses may call it: a partition goes by the name of the partitioned table.
    pub alias: Option<String>,
    /// The key's columns, in index order.
    pub key: Vec<Column>,
    /// The WHERE clause, if any.
    pub where_clause: Option<String>,
    /// Whether the action writes a column of a unique key: rows are locked for more then.
    pub writes_key: bool,
}

/// Collects numbered parameters while a statement is written.
pub struct Writer<'a> {
    pub(super) target: &'a Target,
    params: Vec<Param>,
    bound: usize,
}

impl Target {
    /// What columns are qualified with.
    pub fn name(&self) -> String {
        match &self.alias {
            Some(alias) => ident(alias),
            None => qualified(&self.schema, &self.relation),
        }
    }

    /// The relation as the item of a FROM list.
    pub fn item(&self) -> String {
        let name = qualified(&self.schema, &self.relation);
        match &self.alias {
            Some(alias) => format!("{name} AS {}", ident(alias)),
            None => name,
        }
    }

    /// Begins a statement.
    pub fn writer(&self) -> Writer<'_> {
        Writer {
            target: self,
            params: Vec::new(),
            bound: 0,
        }
    }

    /// The parts of a statement that name rows. `clauses` is what else stands in it: names that are added are not to be met there.
    pub fn select(&self, w: &mut Writer, rows: Rows, clauses: &[&str]) -> Selected {
        let condition = match rows {
            Rows::Range { after } => w.range(after),
            Rows::Keys => return self.listed(w, clauses),
            Rows::Key => w.compare("=", Param::UpTo),
            Rows::Places => {
                let list = w.one(Param::Tids);
                format!("{}.ctid OPERATOR(pg_catalog.=) ANY ({list})", self.name())
            }
            Rows::Pages => w.pages(),
        };
        Selected {
            list: None,
            condition,
        }
    }

    /// How the rows' keys compare to this one: its values as SQL, column by column.
    pub fn compared(&self, operator: &str, values: &[String]) -> String {
        self.writer().compared(operator, values)
    }

    /// The last key of the relation, or the last that stands so to each of these: parameters are theirs, and the one that says "one row".
    pub fn greatest(&self, bounds: &[(&str, Param)]) -> Statement {
        let mut w = self.writer();
        let conditions: Vec<String> = bounds
            .iter()
            .map(|(operator, param)| w.compare(operator, *param))
            .collect();
        let where_clause = match conditions.is_empty() {
            true => String::new(),
            false => format!(" WHERE {}", conditions.join(" AND ")),
        };
        let text = format!(
            "SELECT {} FROM ONLY {}{where_clause} ORDER BY {} LIMIT {}",
            w.columns(),
            self.item(),
            w.order(true),
            w.rows()
        );
        w.statement(text)
    }

    /// What the planner expects of a range of keys: parameters are the cursor (if `after`) and the last key.
    pub fn explain_range(&self, after: bool) -> Statement {
        let mut w = self.writer();
        let range = w.range(after);
        let text = format!(
            "EXPLAIN (FORMAT JSON) SELECT FROM ONLY {} WHERE {range}",
            self.item()
        );
        w.statement(text)
    }

    /// The key at which a batch without a WHERE clause ends: that of the n-th row after the cursor.
    /// Parameters are the cursor (if `after`), the walk's last key, n - 1, and 1. No row: fewer
    /// are left.
    pub fn bound(&self, after: bool) -> Statement {
        let mut w = self.writer();
        let text = format!(
            "SELECT {} FROM ONLY {} WHERE {} ORDER BY {} OFFSET {} LIMIT {}",
            w.columns(),
            self.item(),
            w.range(after),
            w.order(false),
            w.rows(),
            w.rows()
        );
        w.statement(text)
    }

    /// The key of the n-th row of the table: parameters are n - 1, and 1.
    pub fn nth(&self) -> Statement {
        let mut w = self.writer();
        let text = format!(
            "SELECT {} FROM ONLY {} ORDER BY {} OFFSET {} LIMIT {}",
            w.columns(),
            self.item(),
            w.order(false),
            w.rows(),
            w.rows()
        );
        w.statement(text)
    }

    /// The keys of the next rows, with a WHERE clause whether each matches it, and, if wanted, where
    /// each is: parameters are the cursor (if `after`), the last key, and how many rows.
    pub fn read(&self, after: bool, places: bool) -> Statement {
        let mut w = self.writer();
        let hit = self.where_clause.as_ref();
        let hit = hit.map_or(String::new(), |clause| format!(", {}", matches(clause)));
        let place = match places {
            true => format!(", {}.ctid", self.name()),
            false => String::new(),
        };
        let text = format!(
            "SELECT {}{hit}{place} FROM ONLY {} WHERE {} ORDER BY {} LIMIT {}",
            w.columns(),
            self.item(),
            w.range(after),
            w.order(false),
            w.rows()
        );
        w.statement(text)
    }

    /// Keys of rows from all over the table, in order: parameters are the key that they come after (if
    /// `after`), the walk's last key and the percentage of pages to look at.
    pub fn sample(&self, after: bool) -> Statement {
        let mut w = self.writer();
        let range = w.range(after);
        let percent = w.one(Param::Percent);
        let text = format!(
            "SELECT {} FROM ONLY {} TABLESAMPLE SYSTEM ({percent}) WHERE {range} ORDER BY {}",
            w.columns(),
            self.item(),
            w.order(false),
        );
        w.statement(text)
    }

    /// How many rows are left, up to a limit: parameters are the cursor (if `after`), the walk's
    /// last key, and the limit.
    pub fn count(&self, after: bool) -> Statement {
        let mut w = self.writer();
        let text = format!(
            "SELECT pg_catalog.count(*) FROM (SELECT FROM ONLY {} WHERE {} LIMIT {}) AS s",
            self.item(),
            w.range(after),
            w.rows()
        );
        w.statement(text)
    }

    /// The WHERE clause as a further condition; nothing where there is none.
    pub fn and_where(&self) -> String {
        self.where_clause
            .as_ref()
            .map_or(String::new(), |clause| format!(" AND (\n{clause}\n)"))
    }
}

impl Writer<'_> {
    /// The statement with this text, and the parameters that were asked for.
    pub fn statement(self, text: String) -> Statement {
        Statement {
            text,
            params: self.params,
        }
    }

    /// The key's columns, with the index' collation where it is not the column's.
    pub(super) fn key(&self) -> Vec<String> {
        let table = self.target.name();
        let column = |c: &Column| {
            let name = format!("{table}.{}", ident(&c.name));
            match &c.collation {
                Some((schema, collation)) => {
                    format!("{name} COLLATE {}", qualified(schema, collation))
                }
                None => name,
            }
        };
        self.target.key.iter().map(column).collect()
    }

    /// The key's columns, as a list.
    pub fn columns(&self) -> String {
        self.key().join(", ")
    }

    /// ORDER BY in ascending order: forwards through an ascending index, backwards through a
    /// descending one (which turns the place of its NULLs around too).
    fn order(&self, reversed: bool) -> String {
        let item = |(name, c): (String, &Column)| {
            let nulls_first = c.nulls_first != (c.descending != reversed);
            format!(
                "{name} {} NULLS {}",
                if reversed { "DESC" } else { "ASC" },
                if nulls_first { "FIRST" } else { "LAST" }
            )
        };
        let items: Vec<String> = self
            .key()
            .into_iter()
            .zip(&self.target.key)
            .map(item)
            .collect();
        items.join(", ")
    }

    pub(super) fn rows(&mut self) -> String {
        self.one(Param::Rows)
    }

    /// A parameter that is one value.
    pub(super) fn one(&mut self, param: Param) -> String {
        self.params.push(param);
        self.bound += 1;
        format!("${}", self.bound)
    }

    /// A parameter that is one value per key column.
    pub(super) fn many(&mut self, param: Param) -> Vec<String> {
        self.params.push(param);
        let first = self.bound + 1;
        self.bound += self.target.key.len();
        (first..=self.bound).map(|n| format!("${n}")).collect()
    }

    /// An operator of the key's, which is in one schema for all its columns.
    pub(super) fn operator(&self, name: &str) -> String {
        let schema = self.target.key[0].operator_schema.as_deref();
        format!("OPERATOR({}.{name})", ident(schema.unwrap_or("pg_catalog")))
    }

    pub(super) fn range(&mut self, after: bool) -> String {
        let up_to = |w: &mut Self| w.compare("<=", Param::UpTo);
        if after {
            format!("{} AND {}", self.compare(">", Param::After), up_to(self))
        } else {
            up_to(self)
        }
    }

    /// A row comparison: one index condition, however many columns.
    pub(super) fn compare(&mut self, operator: &str, param: Param) -> String {
        let values = self.many(param);
        self.compared(operator, &values)
    }

    fn compared(&self, operator: &str, values: &[String]) -> String {
        let operator = self.operator(operator);
        match self.target.key.len() {
            1 => format!("{} {operator} {}", self.columns(), values[0]),
            _ => format!(
                "ROW({}) {operator} ROW({})",
                self.columns(),
                values.join(", ")
            ),
        }
    }
}

#[cfg(test)]
#[path = "sql_tests.rs"]
mod tests;
