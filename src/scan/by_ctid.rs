//! The statements of a walk in physical order, in which rows are identified by their ctids.

use crate::quote::ident;
use crate::scan::sql::{Param, Statement, Target, Writer};

impl Target {
    /// Selects the ctids of the matching rows in a range of pages. Parameters: the range, and 1.
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

    /// Locks those rows of a list of ctids that match and that nobody else has locked, and returns the ctids of their newest versions.
    /// Parameters: the list, and its length.
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

    /// Selects these columns of the row at a ctid. Parameters: the ctid, in a list, and 1.
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

    /// Counts the rows in a sample of the table's pages, and how many of them match. Parameter: the percentage of pages.
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

    /// Counts the rows in a sample of the table's pages. Parameter: the percentage of pages.
    pub fn sample_count(&self) -> Statement {
        let mut w = self.writer();
        let percent = w.one(Param::Percent);
        let text = format!(
            "SELECT pg_catalog.count(*) FROM ONLY {} TABLESAMPLE SYSTEM ({percent})",
            self.item()
        );
        w.statement(text)
    }

    /// Counts the matching rows, up to a limit. Parameter: the limit.
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

    /// Locks matching rows from a page on, and returns their ctids. The ctid is that of each row's newest version, since a wait for a lock
    /// ends with that version. Parameters: the range, and the maximum number of rows. In a small table there is no upper bound (`bounded`
    /// is false): it would exclude a row that has moved beyond it meanwhile.
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

    /// Counts the rows in a range of pages. Parameters: the range.
    pub fn count_pages(&self) -> Statement {
        let mut w = self.writer();
        let text = format!(
            "SELECT pg_catalog.count(*) FROM ONLY {} WHERE {}",
            self.item(),
            w.pages()
        );
        w.statement(text)
    }

    /// Selects the ctids and keys of matching rows in a range of pages. Parameters: the range, and the maximum number of rows.
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
    /// Returns the condition for a range of pages, which a TID range scan can use.
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
