//! The statements of a walk in physical order, where rows are known by their place.

use crate::quote::ident;
use crate::scan::sql::{Param, Statement, Target, Writer};

impl Target {
    /// The places of the rows in a range of pages that match the WHERE clause: parameters are the
    /// range and 1.
    pub fn read_pages(&self) -> Statement {
        let mut w = self.writer();
        let text = format!(
            "SELECT pg_catalog.array_agg({}.ctid) FROM ONLY {} WHERE {}{} LIMIT {}",
            self.name(),
            self.item(),
            w.pages(),
            self.and_where(),
            w.rows()
        );
        w.statement(text)
    }

    /// Those of a list of rows, by their place, that match and that nobody else has locked: locks them,
    /// and gives the places of their newest versions. Parameters are the list and its length.
    pub fn lock_listed_places(&self) -> Statement {
        let mut w = self.writer();
        let name = self.name();
        let list = w.one(Param::Tids);
        let text = format!(
            "SELECT {name}.ctid FROM ONLY {} WHERE {name}.ctid OPERATOR(pg_catalog.=) ANY ({list}){} LIMIT {}{}",
            self.item(),
            self.and_where(),
            w.rows(),
            self.skipping(),
        );
        w.statement(text)
    }

    /// The values of these columns of the row at a place: parameters are the place, in a list, and 1.
    pub fn columns_at(&self, columns: &[String]) -> Statement {
        let mut w = self.writer();
        let name = self.name();
        let columns: Vec<String> = columns
            .iter()
            .map(|column| format!("{name}.{}", ident(column)))
            .collect();
        let list = w.one(Param::Tids);
        let text = format!(
            "SELECT {} FROM ONLY {} WHERE {name}.ctid OPERATOR(pg_catalog.=) ANY ({list}) LIMIT {}",
            columns.join(", "),
            self.item(),
            w.rows(),
        );
        w.statement(text)
    }

    /// How many rows there are in a sample of the table's pages, and how many of them match: the
    /// parameter is the percentage of pages.
    pub fn sample_matches(&self) -> Statement {
        let mut w = self.writer();
        let percent = w.one(Param::Percent);
        let clause = self.where_clause.as_deref().unwrap_or("true");
        let text = format!(
            "SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE (\n{clause}\n)) \
             FROM ONLY {} TABLESAMPLE SYSTEM ({percent})",
            self.item()
        );
        w.statement(text)
    }

    /// How many rows there are on a percentage of the pages, which is the parameter.
    pub fn sample_count(&self) -> Statement {
        let mut w = self.writer();
        let percent = w.one(Param::Percent);
        let text = format!(
            "SELECT pg_catalog.count(*) FROM ONLY {} TABLESAMPLE SYSTEM ({percent})",
            self.item()
        );
        w.statement(text)
    }

    /// How many rows match, up to a limit.
    pub fn count_matches(&self) -> Statement {
        let mut w = self.writer();
        let text = format!(
            "SELECT pg_catalog.count(*) FROM (SELECT FROM ONLY {} WHERE true{} LIMIT {}) AS s",
            self.item(),
            self.and_where(),
            w.rows()
        );
        w.statement(text)
    }

    /// Locks rows that match, from a page on, and gives their places: that of the newest version of
    /// each, since who waits for a lock gets that. Parameters are the range and the number of rows
    /// at most. In a small table there is no upper bound: a row that moved behind it meanwhile would be
    /// left out.
    pub fn lock_places(&self, bounded: bool) -> Statement {
        let mut w = self.writer();
        let name = self.name();
        let range = if bounded { w.pages() } else { w.pages_from() };
        let text = format!(
            "SELECT {name}.ctid FROM ONLY {} WHERE {range}{} LIMIT {}{}",
            self.item(),
            self.and_where(),
            w.rows(),
            self.locking(),
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
}

impl Writer<'_> {
    /// A range of pages: one condition of a scan by place.
    pub fn pages(&mut self) -> String {
        format!(
            "{} AND {}.ctid OPERATOR(pg_catalog.<) {}",
            self.pages_from(),
            self.target.name(),
            self.one(Param::Until)
        )
    }

    fn pages_from(&mut self) -> String {
        format!(
            "{}.ctid OPERATOR(pg_catalog.>=) {}",
            self.target.name(),
            self.one(Param::From)
        )
    }
}
