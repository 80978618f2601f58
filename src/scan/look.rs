//! The statements of a walk that changes nothing.

use crate::scan::sql::{Param, Statement, Target};

impl Target {
    /// The keys of the rows in a range for which a condition is true: parameters are the cursor (if
    /// `after`) and the last key.
    pub fn search(&self, after: bool, condition: &str) -> Statement {
        let mut w = self.writer();
        let range = w.range(after);
        let text = format!(
            "SELECT {} FROM ONLY {} WHERE {range} AND (\n{condition}\n)",
            w.columns(),
            self.item()
        );
        w.statement(text)
    }

    /// The places of the rows in a range of pages for which a condition is true: parameters are the range.
    pub fn search_pages(&self, condition: &str) -> Statement {
        let mut w = self.writer();
        let text = format!(
            "SELECT {}.ctid FROM ONLY {} WHERE {} AND (\n{condition}\n)",
            self.name(),
            self.item(),
            w.pages()
        );
        w.statement(text)
    }

    /// How many rows there are in a range of pages: parameters are the range.
    pub fn count_pages(&self) -> Statement {
        let mut w = self.writer();
        let text = format!(
            "SELECT pg_catalog.count(*) FROM ONLY {} WHERE {}",
            self.item(),
            w.pages()
        );
        w.statement(text)
    }

    /// The UPDATE of a range of pages: parameters are the range.
    pub fn update_pages(&self) -> Statement {
        let mut w = self.writer();
        let text = format!(
            "UPDATE ONLY {} SET {}\nWHERE {}{}",
            self.item(),
            self.set_clause,
            w.pages(),
            self.and_where()
        );
        w.statement(text)
    }

    /// The places of rows in a range of pages that match, with their keys: parameters are the range and the
    /// number of rows at most.
    pub fn sample_pages(&self) -> Statement {
        let mut w = self.writer();
        let key: String = w.key().iter().map(|column| format!(", {column}")).collect();
        let text = format!(
            "SELECT {}.ctid{key} FROM ONLY {} WHERE {}{} LIMIT {}",
            self.name(),
            self.item(),
            w.pages(),
            self.and_where(),
            w.rows()
        );
        w.statement(text)
    }

    /// The UPDATE of a row by its place, whether or not it matches: the parameter is a list of places.
    pub fn update_listed(&self) -> Statement {
        let mut w = self.writer();
        let name = self.name();
        let list = w.one(Param::Tids);
        let text = format!(
            "UPDATE ONLY {} SET {}\nWHERE {name}.ctid OPERATOR(pg_catalog.=) ANY ({list})",
            self.item(),
            self.set_clause
        );
        w.statement(text)
    }
}
