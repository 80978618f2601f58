//! Statements about rows that are identified by their keys: a list of keys, or one.

use crate::quote::ident;
use crate::scan::sql::{Param, Selected, Statement, Target, Writer};

/// Names for a list of keys and for its columns in a statement that joins it. The second pair is for statements whose table or clauses
/// contain a name of the first.
const LIST: [(&str, &str); 2] = [
    ("backfill keys", "backfill key"),
    ("backfill list", "backfill column"),
];

impl Target {
    /// Selects rows by a list of keys. Keys of one column are an index condition; keys of several columns are joined.
    pub(super) fn listed(&self, w: &mut Writer, clauses: &[&str]) -> Selected {
        if let [key] = w.key().as_slice() {
            let arrays = w.many(Param::Keys);
            return Selected {
                list: None,
                condition: format!("{key} {} ANY ({})", w.operator("="), arrays[0]),
            };
        }
        let (list, condition) = self.joined(w, None, clauses);
        Selected {
            list: Some(list),
            condition,
        }
    }

    /// Locks those rows of a list of keys that match and that nobody else has locked, and returns the numbers of their keys in the list,
    /// counted from 1. Parameters: the list, and its length.
    pub fn lock_list(&self) -> Statement {
        let mut w = self.writer();
        let (list, column) = self.names_of_list(&[]);
        let number = format!("{}.{}", ident(list), ident(column));
        let (list, equal) = self.joined(&mut w, Some(column), &[]);
        let text = format!(
            "SELECT {number} FROM {list}, ONLY {} WHERE {equal}{} LIMIT {}{}",
            self.item(),
            self.and_where(),
            w.rows(),
            self.skipping(),
        );
        w.statement(text)
    }

    /// Tests whether there is a matching row with this key. With `lock`, only a row counts that nobody else has locked; it is locked then.
    /// Parameters: the key, and 1.
    pub fn find_row(&self, lock: bool) -> Statement {
        let mut w = self.writer();
        let text = format!(
            "SELECT FROM ONLY {} WHERE {}{} LIMIT {}{}",
            self.item(),
            w.compare("=", Param::UpTo),
            self.and_where(),
            w.rows(),
            if lock { self.skipping() } else { String::new() },
        );
        w.statement(text)
    }

    /// Returns the clause at the end of a SELECT that locks its rows as the action does.
    pub(super) fn locking(&self) -> String {
        let known_as = self.alias.as_ref().unwrap_or(&self.relation);
        self.lock.clause(Some(&ident(known_as)))
    }

    /// Returns the clause that locks the rows as the action does, but skips those that others have locked.
    pub(super) fn skipping(&self) -> String {
        match self.locking() {
            none if none.is_empty() => none,
            locking => format!("{locking} SKIP LOCKED"),
        }
    }

    /// Returns the list of keys as an item of FROM, with their numbers in a column named `number`, and the condition that a row's key is
    /// one of them.
    fn joined(&self, w: &mut Writer, number: Option<&str>, clauses: &[&str]) -> (String, String) {
        let arrays = w.many(Param::Keys);
        let lists: Vec<String> = arrays
            .iter()
            .map(|array| format!("pg_catalog.unnest({array})"))
            .collect();
        let (joined, column) = self.names_of_list(clauses);
        let joined = ident(joined);
        let keys = w.key();
        let names: Vec<String> = (1..=keys.len())
            .map(|n| ident(&format!("{column} {n}")))
            .collect();
        let equal: Vec<String> = keys
            .iter()
            .zip(&names)
            .map(|(key, name)| format!("{key} {} {joined}.{name}", w.operator("=")))
            .collect();
        let ordinality = number.map_or("", |_| " WITH ORDINALITY");
        let columns: Vec<String> = names.into_iter().chain(number.map(ident)).collect();
        let item = format!(
            "ROWS FROM ({}){ordinality} AS {joined} ({})",
            lists.join(", "),
            columns.join(", ")
        );
        (item, equal.join(" AND "))
    }

    /// Returns names for a list of keys and its columns that have no other meaning in the statement.
    fn names_of_list(&self, clauses: &[&str]) -> (&'static str, &'static str) {
        let known_as = self.alias.as_ref().unwrap_or(&self.relation);
        let mine = [self.where_clause.as_deref(), Some(known_as)];
        let all = clauses.iter().copied().chain(mine.into_iter().flatten());
        let texts: Vec<&str> = all.collect();
        let taken = |name: &str| texts.iter().any(|text| text.contains(name));
        let [first, second] = LIST;
        if taken(first.1) { second } else { first }
    }
}
