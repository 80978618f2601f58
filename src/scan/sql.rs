//! The statements of a walk. Pure text: every identifier is quoted, every operator is qualified, and every value is a parameter, so that
//! neither names nor the search_path can change their meaning.

use crate::model::row_lock::RowLock;
use crate::quote::{ident, qualified};
use crate::scan::key::Column;

/// Parameters of a statement, in the order in which they must be bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Param {
    /// The key columns of the cursor, up to which everything is done.
    After,
    /// The key columns of the last row of the batch (or of the walk).
    UpTo,
    /// A number of rows.
    Rows,
    /// A list of keys: one array per key column.
    Keys,
    /// A list of ctids (tid[]).
    Tids,
    /// The ctid at which a range of pages begins.
    From,
    /// The ctid before which a range of pages ends.
    Until,
    /// A percentage (real).
    Percent,
    /// More rows than there can be.
    All,
}

/// A statement and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The text, with `$1` … in the order of `params`.
    pub text: String,
    /// The parameters; `After`, `UpTo` and `Keys` each stand for one value per key column.
    pub params: Vec<Param>,
}

/// The ways in which a statement selects rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// A range of keys: up to `UpTo` and, if it has a lower bound, after `After`.
    Range {
        /// Whether the range has a lower bound.
        after: bool,
    },
    /// A list of keys (`Keys`).
    Keys,
    /// One key (`UpTo`).
    Key,
    /// A list of ctids (`Tids`).
    Places,
    /// A range of pages (`From`, `Until`).
    Pages,
}

/// A selection of rows, as parts of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// The list of keys to be joined, as an item of FROM, if there is one.
    pub list: Option<String>,
    /// The condition that is true for the rows.
    pub condition: String,
}

/// Returns an expression for whether a row matches. It is not the clause itself: in a WHERE, the server evaluates the cheapest condition
/// first, and no further ones once one is not true, whereas in an expression, NULL AND an error is an error. OFFSET keeps the planner
/// from building a hash table for what looks like a comparison with other rows.
pub fn matches(where_clause: &str) -> String {
    format!("EXISTS (SELECT WHERE (\n{where_clause}\n) OFFSET 0)")
}

/// The object of a scan: a relation, the key that orders it, and the condition on its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Schema of the relation.
    pub schema: String,
    /// Name of the relation.
    pub relation: String,
    /// Name that the clauses may use for the relation: for a partition, that of the partitioned table.
    pub alias: Option<String>,
    /// Columns of the key, in index order.
    pub key: Vec<Column>,
    /// The WHERE clause, if any.
    pub where_clause: Option<String>,
    /// Lock that the action takes on its rows.
    pub lock: RowLock,
}

/// Returns the name that qualifies the columns of a relation: its alias, or its own name.
pub fn name_of(schema: &str, relation: &str, alias: Option<&str>) -> String {
    match alias {
        Some(alias) => ident(alias),
        None => qualified(schema, relation),
    }
}

/// Collects numbered parameters while a statement is written.
pub struct Writer<'a> {
    pub(super) target: &'a Target,
    params: Vec<Param>,
    bound: usize,
}

impl Target {
    /// Returns the name that qualifies columns.
    pub fn name(&self) -> String {
        name_of(&self.schema, &self.relation, self.alias.as_deref())
    }

    /// Returns the relation as an item of a FROM list.
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

    /// Returns the parts of a statement that select rows. `clauses` are the other texts in the statement: names that are added must not
    /// occur in them.
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

    /// Returns a condition that compares the rows' keys with this key, given as SQL expressions for its columns.
    pub fn compared(&self, operator: &str, values: &[String]) -> String {
        self.writer().compared(operator, values)
    }

    /// Selects the greatest key that satisfies all `bounds`. Parameters: each bound, then 1 for LIMIT.
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

    /// Explains a range of keys, to learn what the planner expects. Parameters: the cursor (if `after`), and the last key.
    pub fn explain_range(&self, after: bool) -> Statement {
        let mut w = self.writer();
        let range = w.range(after);
        let text = format!(
            "EXPLAIN (FORMAT JSON) SELECT FROM ONLY {} WHERE {range}",
            self.item()
        );
        w.statement(text)
    }

    /// Selects the key at which a batch without a WHERE clause ends: that of the n-th row after the cursor. Parameters: the cursor (if
    /// `after`), the walk's last key, n - 1, and 1. Returns no row if fewer rows are left.
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

    /// Selects the key of the n-th row of the table. Parameters: n - 1, and 1.
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

    /// Selects the keys of the next rows; with a WHERE clause, also whether each row matches it; with `places`, also each row's ctid.
    /// Parameters: the cursor (if `after`), the last key, and the number of rows.
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

    /// Selects keys of rows from all over the table, in order. Parameters: the key that they come after (if `after`), the walk's last key,
    /// and the percentage of pages to look at.
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

    /// Counts the rows that are left, up to a limit. Parameters: the cursor (if `after`), the walk's last key, and the limit.
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

    /// Returns the WHERE clause as a further condition; empty if there is none.
    pub fn and_where(&self) -> String {
        self.where_clause
            .as_ref()
            .map_or(String::new(), |clause| format!(" AND (\n{clause}\n)"))
    }
}

impl Writer<'_> {
    /// Finishes the statement with this text and the parameters requested so far.
    pub fn statement(self, text: String) -> Statement {
        Statement {
            text,
            params: self.params,
        }
    }

    /// Returns a limit that limits nothing. It tells the planner's hooks that a query level is one of ours.
    pub fn no_limit(&mut self) -> String {
        self.one(Param::All)
    }

    /// Returns the key's columns, with the index's collation if it is not the column's own.
    pub fn key(&self) -> Vec<String> {
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

    /// Returns the key's columns as a list.
    pub fn columns(&self) -> String {
        self.key().join(", ")
    }

    /// Returns the ORDER BY list for ascending order: this reads an ascending index forwards, and a descending one backwards (which also
    /// reverses the position of its NULLs). `reversed` returns descending order.
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

    /// Adds a parameter that is one value.
    pub(super) fn one(&mut self, param: Param) -> String {
        self.params.push(param);
        self.bound += 1;
        format!("${}", self.bound)
    }

    /// Adds a parameter that is one value per key column.
    pub(super) fn many(&mut self, param: Param) -> Vec<String> {
        self.params.push(param);
        let first = self.bound + 1;
        self.bound += self.target.key.len();
        (first..=self.bound).map(|n| format!("${n}")).collect()
    }

    /// Returns an operator of the key, qualified by the one schema that it has for all key columns.
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

    /// Returns a row comparison, which is a single index condition for any number of columns.
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
