//! The statements of a walk. Pure text: every identifier is quoted, every operator qualified, every
//! value a parameter, so that neither names nor the search_path can change what they mean.

use super::key::Column;

/// Parameters of a statement, in the order in which they are to be bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Param {
    /// The key columns of the cursor: everything up to it is done.
    After,
    /// The key columns of the batch's (or the walk's) last row.
    UpTo,
    /// A number of rows.
    Rows,
}

/// A statement and what is bound to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The text, with `$1` … in the order of `params`.
    pub text: String,
    /// The parameters; `After` and `UpTo` stand for one each per key column.
    pub params: Vec<Param>,
}

/// The relation and the clauses of a job, ready to be rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Schema of the relation.
    pub schema: String,
    /// Name of the relation.
    pub relation: String,
    /// The key's columns, in index order.
    pub key: Vec<Column>,
    /// The SET list.
    pub set_clause: String,
    /// The WHERE clause, if any.
    pub where_clause: Option<String>,
}

/// Quotes an identifier, always.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A qualified and quoted name.
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// Collects numbered parameters while a statement is written.
struct Writer<'a> {
    target: &'a Target,
    params: Vec<Param>,
    bound: usize,
}

impl Target {
    /// The relation's qualified name.
    pub fn name(&self) -> String {
        qualified(&self.schema, &self.relation)
    }

    fn writer(&self) -> Writer<'_> {
        Writer {
            target: self,
            params: Vec::new(),
            bound: 0,
        }
    }

    /// The last key of the relation. No parameters but the one that says "one row".
    pub fn last_key(&self) -> Statement {
        let mut w = self.writer();
        let text = format!(
            "SELECT {} FROM ONLY {} ORDER BY {} LIMIT {}",
            w.columns(),
            self.name(),
            w.order(true),
            w.rows()
        );
        w.statement(text)
    }

    /// The key at which a batch ends.
    ///
    /// Without a WHERE clause it is the key of the n-th row after the cursor: parameters are the
    /// cursor (if `after`), the walk's last key, n - 1, and 1. With one it is the row that holds
    /// the n-th match or that is the m-th row scanned, whichever comes first, together with the
    /// rows scanned and the matches up to there: parameters are the cursor, the last key, m, n, m.
    /// No row: fewer are left.
    pub fn bound(&self, after: bool) -> Statement {
        match &self.where_clause {
            None => self.bound_by_rows(after),
            Some(clause) => self.bound_by_matches(after, clause),
        }
    }

    fn bound_by_rows(&self, after: bool) -> Statement {
        let mut w = self.writer();
        let text = format!(
            "SELECT {} FROM ONLY {} WHERE {} ORDER BY {} OFFSET {} LIMIT {}",
            w.columns(),
            self.name(),
            w.range(after),
            w.order(false),
            w.rows(),
            w.rows()
        );
        w.statement(text)
    }

    fn bound_by_matches(&self, after: bool, clause: &str) -> Statement {
        let mut w = self.writer();
        let keys: Vec<String> = (1..=self.key.len()).map(|i| format!("k{i}")).collect();
        let keys = keys.join(", ");
        let scanned: Vec<String> = w
            .key()
            .iter()
            .enumerate()
            .map(|(i, c)| format!("{c} AS k{}", i + 1))
            .collect();
        let text = format!(
            "SELECT {keys}, scanned, matched FROM (\
             SELECT {keys}, pg_catalog.row_number() OVER walk AS scanned, \
             pg_catalog.count(*) FILTER (WHERE hit) OVER walk AS matched FROM (\
             SELECT {}, (\n{clause}\n) AS hit FROM ONLY {} WHERE {} ORDER BY {} LIMIT {}\
             ) AS s WINDOW walk AS (ROWS UNBOUNDED PRECEDING)) AS c \
             WHERE matched OPERATOR(pg_catalog.>=) {} OR scanned OPERATOR(pg_catalog.>=) {} LIMIT 1",
            scanned.join(", "),
            self.name(),
            w.range(after),
            w.order(false),
            w.rows(),
            w.rows(),
            w.rows()
        );
        w.statement(text)
    }

    /// How many rows are left, up to a limit: parameters are the cursor (if `after`), the walk's
    /// last key, and the limit.
    pub fn count(&self, after: bool) -> Statement {
        let mut w = self.writer();
        let text = format!(
            "SELECT pg_catalog.count(*) FROM (SELECT FROM ONLY {} WHERE {} LIMIT {}) AS s",
            self.name(),
            w.range(after),
            w.rows()
        );
        w.statement(text)
    }

    /// The batch itself: parameters are the cursor (if `after`) and the batch's last key.
    pub fn update(&self, after: bool) -> Statement {
        let mut w = self.writer();
        let range = w.range(after);
        let text = format!(
            "UPDATE ONLY {} SET {}\nWHERE {range}{}",
            self.name(),
            self.set_clause,
            self.and_where()
        );
        w.statement(text)
    }

    fn and_where(&self) -> String {
        self.where_clause
            .as_ref()
            .map_or(String::new(), |clause| format!(" AND (\n{clause}\n)"))
    }

    /// The same UPDATE without bounds, for the checks at `define`.
    pub fn unbounded_update(&self) -> String {
        let clause = self
            .where_clause
            .as_ref()
            .map_or(String::new(), |c| format!("\nWHERE (\n{c}\n)"));
        format!(
            "UPDATE ONLY {} SET {}{clause}",
            self.name(),
            self.set_clause
        )
    }
}

impl Writer<'_> {
    fn statement(self, text: String) -> Statement {
        Statement {
            text,
            params: self.params,
        }
    }

    /// The key's columns, with the index' collation where it is not the column's.
    fn key(&self) -> Vec<String> {
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

    fn columns(&self) -> String {
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

    fn rows(&mut self) -> String {
        self.params.push(Param::Rows);
        self.bound += 1;
        format!("${}", self.bound)
    }

    fn range(&mut self, after: bool) -> String {
        let up_to = |w: &mut Self| w.compare("<=", Param::UpTo);
        if after {
            format!("{} AND {}", self.compare(">", Param::After), up_to(self))
        } else {
            up_to(self)
        }
    }

    /// A row comparison: one index condition, however many columns.
    fn compare(&mut self, operator: &str, param: Param) -> String {
        self.params.push(param);
        let first = self.bound + 1;
        self.bound += self.target.key.len();
        let values: Vec<String> = (first..=self.bound).map(|n| format!("${n}")).collect();
        let schema = self.target.key[0]
            .operator_schema
            .as_deref()
            .unwrap_or("pg_catalog");
        let operator = format!("OPERATOR({}.{operator})", ident(schema));
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
mod tests {
    use super::super::key::test_column;
    use super::*;

    fn target(columns: &[&str], where_clause: Option<&str>) -> Target {
        Target {
            schema: "s".into(),
            relation: "Odd \"t\"".into(),
            key: columns.iter().map(|c| test_column(c)).collect(),
            set_clause: "n = n + 1".into(),
            where_clause: where_clause.map(Into::into),
        }
    }

    #[test]
    fn one_column_no_predicate() {
        let t = target(&["id"], None);
        let name = r#""s"."Odd ""t""""#;
        assert_eq!(
            t.last_key().text,
            format!(
                r#"SELECT {name}."id" FROM ONLY {name} ORDER BY {name}."id" DESC NULLS FIRST LIMIT $1"#
            )
        );
        let bound = t.bound(true);
        assert_eq!(
            bound.text,
            format!(
                r#"SELECT {name}."id" FROM ONLY {name} WHERE {name}."id" OPERATOR("pg_catalog".>) $1 AND {name}."id" OPERATOR("pg_catalog".<=) $2 ORDER BY {name}."id" ASC NULLS LAST OFFSET $3 LIMIT $4"#
            )
        );
        assert_eq!(
            bound.params,
            [Param::After, Param::UpTo, Param::Rows, Param::Rows]
        );
        assert_eq!(
            t.update(false).text,
            format!(
                "UPDATE ONLY {name} SET n = n + 1\nWHERE {name}.\"id\" OPERATOR(\"pg_catalog\".<=) $1"
            )
        );
    }

    #[test]
    fn two_columns_with_a_predicate() {
        let t = target(&["a", "b"], Some("n IS NULL -- hm"));
        let update = t.update(true);
        let name = t.name();
        assert_eq!(
            update.text,
            format!(
                "UPDATE ONLY {name} SET n = n + 1\nWHERE ROW({name}.\"a\", {name}.\"b\") OPERATOR(\"pg_catalog\".>) ROW($1, $2) AND ROW({name}.\"a\", {name}.\"b\") OPERATOR(\"pg_catalog\".<=) ROW($3, $4) AND (\nn IS NULL -- hm\n)"
            )
        );
        let bound = t.bound(true);
        assert_eq!(
            bound.params,
            [
                Param::After,
                Param::UpTo,
                Param::Rows,
                Param::Rows,
                Param::Rows
            ]
        );
        assert!(
            bound.text.contains("(\nn IS NULL -- hm\n) AS hit"),
            "{}",
            bound.text
        );
        assert!(
            bound
                .text
                .ends_with("(pg_catalog.>=) $6 OR scanned OPERATOR(pg_catalog.>=) $7 LIMIT 1")
        );
    }

    #[test]
    fn descending_keys_are_walked_backwards() {
        let mut t = target(&["a"], None);
        t.key[0].descending = true;
        t.key[0].nulls_first = true;
        assert!(t.bound(false).text.contains("\"a\" ASC NULLS LAST"));
        assert!(t.last_key().text.contains("\"a\" DESC NULLS FIRST"));
    }

    #[test]
    fn the_collation_of_the_index_is_named() {
        let mut t = target(&["a"], None);
        t.key[0].collation = Some(("pg_catalog".into(), "C".into()));
        assert!(
            t.bound(true)
                .text
                .contains(r#""a" COLLATE "pg_catalog"."C" OPERATOR("pg_catalog".>) $1"#)
        );
    }

    #[test]
    fn identifiers_are_quoted() {
        assert_eq!(ident("a\"b"), "\"a\"\"b\"");
    }
}
