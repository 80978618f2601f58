//! The choice of the key: the unique index that orders the walk.

use crate::error::{Error, Result, sqlstate};

/// A column of an index, as the catalogs describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name of the table's column.
    pub name: String,
    /// Number of the column in the table, which stays the same when the column is renamed.
    pub number: i16,
    /// OID of the column's type; for a domain, of its base type.
    pub type_oid: u32,
    /// Whether the column is NOT NULL.
    pub not_null: bool,
    /// Whether the column is DESC in the index.
    pub descending: bool,
    /// Whether the column is NULLS FIRST in the index.
    pub nulls_first: bool,
    /// Whether the operator class belongs to the default operator family of its type.
    pub default_opclass: bool,
    /// Schema of the operators `>`, `=` and `<=` of the operator family; `None` if they are in several schemas.
    pub operator_schema: Option<String>,
    /// The index's collation, as (schema, name), if it is not the column's own.
    pub collation: Option<(String, String)>,
    /// Whether PostgreSQL computes the column from others.
    pub generated: bool,
    /// Everything that determines the order of the values: operator family, type, collation and its version.
    pub order: String,
    /// Stability of the values' text form.
    pub text: TextForm,
}

/// Stability of values that are stored in their text form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextForm {
    /// The text keeps its meaning.
    Lasting,
    /// The type is an OID alias type (regproc, regclass, ...), or contains one: the text is a name, which can change its meaning.
    Names,
    /// The type is a row type, or contains one, whose attributes can be dropped and others added.
    Rows,
}

/// Built-in types whose text form is the same under all settings: bool, "char", name, int8, int2, int4, text, oid, cidr, macaddr, inet,
/// bpchar, varchar, bit, varbit, numeric, uuid.
const SAME_UNDER_ALL_SETTINGS: &[u32] = &[
    16, 18, 19, 20, 21, 23, 25, 26, 650, 829, 869, 1042, 1043, 1560, 1562, 1700, 2950,
];

impl Column {
    /// Whether settings such as DateStyle may change the text form of the values.
    pub fn depends_on_settings(&self) -> bool {
        !SAME_UNDER_ALL_SETTINGS.contains(&self.type_oid)
    }
}

/// An index, as the catalogs describe it: a candidate for the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// OID of the index.
    pub oid: u32,
    /// Name of the index.
    pub name: String,
    /// Whether the index is that of the primary key.
    pub primary: bool,
    /// Whether the index is unique.
    pub unique: bool,
    /// Whether the index contains all columns of a unique key of the table, and so has each key once, though it is not unique itself.
    pub contains_key: bool,
    /// Whether the index is valid, ready and live.
    pub valid: bool,
    /// Whether uniqueness is checked at once (not DEFERRABLE).
    pub immediate: bool,
    /// Whether the index has a predicate.
    pub partial: bool,
    /// Whether the index has expressions.
    pub expressions: bool,
    /// Whether the index is a btree.
    pub btree: bool,
    /// Key columns of the index, without INCLUDE columns.
    pub columns: Vec<Column>,
}

impl Candidate {
    /// Returns why the index can't order a walk, as a phrase that follows the index's name; `None` if it can.
    pub fn unusable(&self) -> Option<&'static str> {
        let columns = &self.columns;
        if !self.btree {
            Some("is no btree index")
        } else if !self.unique && !self.contains_key {
            Some("is not unique")
        } else if !self.valid {
            Some("is not valid")
        } else if !self.immediate {
            Some("is deferrable")
        } else if self.partial {
            Some("is partial")
        } else if self.expressions {
            Some("has an expression")
        } else if columns.iter().any(|c| !c.not_null) {
            Some("has a column that may be NULL")
        } else if columns.iter().any(|c| c.generated) {
            Some("has a generated column, which may change while it is walked")
        } else if columns.iter().any(|c| c.text == TextForm::Names) {
            Some(
                "has a column of an OID alias type, or with one within, whose values are read as names",
            )
        } else if columns.iter().any(|c| c.text == TextForm::Rows) {
            Some(
                "has a column of a row type, or with one within, whose attributes may be replaced by others",
            )
        } else if columns.iter().any(|c| !c.default_opclass) {
            Some("has a non-default operator class")
        } else if columns
            .iter()
            .any(|c| c.descending != columns[0].descending)
        {
            Some("mixes ascending and descending columns")
        } else if columns.iter().any(|c| c.operator_schema.is_none())
            || columns
                .iter()
                .any(|c| c.operator_schema != columns[0].operator_schema)
        {
            Some("has columns whose operators are in different schemas")
        } else {
            None
        }
    }

    /// Whether this index has the columns of a unique key, each in the same order: then it has each key once.
    fn has_columns_of(&self, key: &Candidate) -> bool {
        let has = |column: &Column| {
            let mut mine = self.columns.iter();
            mine.any(|c| c.number == column.number && c.order == column.order)
        };
        key.unique && key.unusable().is_none() && key.columns.iter().all(has)
    }

    /// Returns what determines the order of the keys, for each column.
    pub fn order(&self) -> Vec<String> {
        self.columns.iter().map(|c| c.order.clone()).collect()
    }

    /// Returns the numbers of the columns.
    pub fn numbers(&self) -> Vec<i16> {
        self.columns.iter().map(|c| c.number).collect()
    }

    /// Returns the names of the columns.
    pub fn column_names(&self) -> Vec<String> {
        self.columns.iter().map(|c| c.name.clone()).collect()
    }
}

/// Finds the indexes that contain a unique key among all indexes of a table.
pub fn mark_those_with_a_key(candidates: &mut [Candidate]) {
    let keys: Vec<Candidate> = candidates.iter().filter(|c| c.unique).cloned().collect();
    for candidate in candidates.iter_mut().filter(|c| !c.unique) {
        candidate.contains_key = keys.iter().any(|key| candidate.has_columns_of(key));
    }
}

/// Requirements for the key that orders a walk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// The index of this table that the option `key` refers to.
    pub named: Option<&'a str>,
    /// The columns of the key that was chosen when the job was defined; empty if there was none.
    pub columns: &'a [String],
    /// The columns that are set: a row whose key changes would move during the walk.
    pub written: &'a [String],
}

/// Picks the index that orders a walk: one on the columns chosen at definition, if any; otherwise the best one without a column that is
/// set. `relation` is for the error.
pub fn pick(mut candidates: Vec<Candidate>, wanted: Wanted, relation: &str) -> Result<Candidate> {
    if wanted.columns.is_empty() {
        let written = |name: &String| wanted.written.contains(name);
        candidates.retain(|c| !c.column_names().iter().any(written));
        // One that is not unique itself has to be asked for.
        candidates.retain(|c| !c.contains_key || wanted.named == Some(c.name.as_str()));
        return choose(candidates, wanted.named, relation);
    }
    candidates.retain(|c| c.column_names() == wanted.columns && c.unusable().is_none());
    let is_named = |name: &&str| candidates.iter().any(|c| c.name == *name);
    let named = wanted.named.filter(is_named);
    choose(candidates, named, relation)
}

/// Chooses the index that orders the walk: the named one; otherwise the primary key; otherwise the usable unique index with the fewest
/// columns (the first by name if there are several). `relation` is for the error.
pub fn choose(
    candidates: Vec<Candidate>,
    named: Option<&str>,
    relation: &str,
) -> Result<Candidate> {
    if let Some(name) = named {
        let found = candidates
            .into_iter()
            .find(|c| c.name == name)
            .ok_or_else(|| {
                Error::new(
                    sqlstate::UNDEFINED_OBJECT,
                    format!("table {relation} has no index \"{name}\""),
                )
                .hint("Option \"key\" names an index of the table itself, without its schema.")
            })?;
        return match found.unusable() {
            None => Ok(found),
            Some(why) => Err(Error::new(
                sqlstate::FEATURE_NOT_SUPPORTED,
                format!("index \"{name}\" of table {relation} cannot order the walk: it {why}"),
            )
            .hint(WANTED)),
        };
    }
    let reasons: Vec<String> = candidates
        .iter()
        .filter_map(|c| c.unusable().map(|why| format!("\"{}\" {why}", c.name)))
        .collect();
    let best = candidates
        .into_iter()
        .filter(|c| c.unusable().is_none())
        .min_by_key(|c| (!c.primary, !c.unique, c.columns.len(), c.name.clone()));
    best.ok_or_else(|| {
        let error = Error::new(
            sqlstate::FEATURE_NOT_SUPPORTED,
            format!("table {relation} has no key to walk it by"),
        )
        .hint(WANTED);
        if reasons.is_empty() {
            error.detail("The table has no index.")
        } else {
            error.detail(format!("Index {}.", reasons.join("; index ")))
        }
    })
}

const WANTED: &str = "A walk needs a primary key, or a unique btree index (or one, named by the option \"key\", that contains the columns of a unique one) that is valid, not deferrable, not partial, without expressions, over NOT NULL columns, all ascending or all descending. CREATE UNIQUE INDEX CONCURRENTLY makes one without blocking writers.";

/// A bigint column of an ordinary primary key, for tests.
#[cfg(test)]
pub fn test_column(name: &str) -> Column {
    Column {
        name: name.into(),
        number: 1,
        type_oid: 20,
        not_null: true,
        descending: false,
        nulls_first: false,
        default_opclass: true,
        operator_schema: Some("pg_catalog".into()),
        collation: None,
        generated: false,
        order: "pg_catalog.integer_ops".into(),
        text: TextForm::Lasting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(name: &str, columns: &[&str]) -> Candidate {
        Candidate {
            oid: 1,
            name: name.into(),
            primary: false,
            unique: true,
            contains_key: false,
            valid: true,
            immediate: true,
            partial: false,
            expressions: false,
            btree: true,
            columns: columns.iter().map(|c| test_column(c)).collect(),
        }
    }

    #[test]
    fn the_primary_key_comes_first() {
        let pkey = Candidate {
            primary: true,
            ..index("z", &["a", "b"])
        };
        let chosen = choose(vec![index("a", &["c"]), pkey], None, "t").unwrap();
        assert_eq!(chosen.name, "z");
    }

    #[test]
    fn settled_columns_outrank_all_else() {
        let all = || vec![index("a", &["x"]), index("b", &["y"]), index("c", &["y"])];
        let columns = ["y".to_owned()];
        let wanted = Wanted {
            named: Some("c"),
            columns: &columns,
            written: &[],
        };
        assert_eq!(pick(all(), wanted, "t").unwrap().name, "c");
        let renamed = Wanted {
            named: Some("z"),
            ..wanted
        };
        assert_eq!(pick(all(), renamed, "t").unwrap().name, "b");
        let written = ["x".to_owned()];
        let free = Wanted {
            written: &written,
            ..Wanted::default()
        };
        assert_eq!(pick(all(), free, "t").unwrap().name, "b");
    }

    #[test]
    fn an_index_that_contains_a_key_is_taken_by_its_name() {
        let more = Candidate {
            unique: false,
            ..index("more", &["tenant", "id"])
        };
        let other = Candidate {
            unique: false,
            ..index("other", &["tenant"])
        };
        let numbered = |mut candidate: Candidate| {
            for column in &mut candidate.columns {
                column.number = column.name.len() as i16;
            }
            candidate
        };
        let mut all: Vec<Candidate> = [index("pkey", &["id"]), more, other].map(numbered).into();
        mark_those_with_a_key(&mut all);
        let marked: Vec<bool> = all.iter().map(|c| c.contains_key).collect();
        assert_eq!(marked, [false, true, false]);
        let named = |named| Wanted {
            named,
            ..Wanted::default()
        };
        assert_eq!(pick(all.clone(), named(None), "t").unwrap().name, "pkey");
        let chosen = pick(all.clone(), named(Some("more")), "t").unwrap();
        assert_eq!(chosen.name, "more");
        assert!(pick(all.clone(), named(Some("other")), "t").is_err());
        // By the columns that were settled.
        let columns = ["tenant".to_owned(), "id".to_owned()];
        let settled = Wanted {
            columns: &columns,
            ..Wanted::default()
        };
        assert_eq!(pick(all.clone(), settled, "t").unwrap().name, "more");
        // Another collation may take for equal what the key tells apart.
        all[1].columns[1].order = "another".to_owned();
        mark_those_with_a_key(&mut all);
        assert!(!all[1].contains_key);
    }

    #[test]
    fn an_unusable_one_is_passed_over() {
        let mut mixed = Candidate {
            primary: true,
            ..index("p", &["a", "b"])
        };
        mixed.columns[1].descending = true;
        let chosen = choose(
            vec![mixed, index("u2", &["a", "b"]), index("u1", &["c"])],
            None,
            "t",
        );
        assert_eq!(chosen.unwrap().name, "u1");
    }

    #[test]
    fn each_flaw_is_named() {
        let base = || index("i", &["a"]);
        let mut nullable = base();
        nullable.columns[0].not_null = false;
        let mut generated = base();
        generated.columns[0].generated = true;
        let mut pattern = base();
        pattern.columns[0].default_opclass = false;
        let (mut names, mut rows) = (base(), base());
        names.columns[0].text = TextForm::Names;
        rows.columns[0].text = TextForm::Rows;
        for (candidate, why) in [
            (
                Candidate {
                    btree: false,
                    ..base()
                },
                "is no btree index",
            ),
            (
                Candidate {
                    unique: false,
                    ..base()
                },
                "is not unique",
            ),
            (
                Candidate {
                    valid: false,
                    ..base()
                },
                "is not valid",
            ),
            (
                Candidate {
                    immediate: false,
                    ..base()
                },
                "is deferrable",
            ),
            (
                Candidate {
                    partial: true,
                    ..base()
                },
                "is partial",
            ),
            (
                Candidate {
                    expressions: true,
                    ..base()
                },
                "has an expression",
            ),
            (nullable, "has a column that may be NULL"),
            (
                generated,
                "has a generated column, which may change while it is walked",
            ),
            (pattern, "has a non-default operator class"),
            (
                names,
                "has a column of an OID alias type, or with one within, whose values are read as names",
            ),
            (
                rows,
                "has a column of a row type, or with one within, whose attributes may be replaced by others",
            ),
        ] {
            let error = choose(vec![candidate], None, "public.t").unwrap_err();
            assert_eq!(error.message, "table public.t has no key to walk it by");
            assert_eq!(error.detail, Some(format!("Index \"i\" {why}.")));
            assert!(error.hint.is_some());
        }
    }

    #[test]
    fn a_named_index_must_exist_and_serve() {
        let error = choose(vec![index("i", &["a"])], Some("j"), "t").unwrap_err();
        assert_eq!(error.message, "table t has no index \"j\"");
        let partial = Candidate {
            partial: true,
            ..index("i", &["a"])
        };
        let error = choose(vec![partial], Some("i"), "t").unwrap_err();
        assert_eq!(
            error.message,
            "index \"i\" of table t cannot order the walk: it is partial"
        );
        assert_eq!(
            choose(vec![index("i", &["a"])], Some("i"), "t")
                .unwrap()
                .name,
            "i"
        );
    }
}
