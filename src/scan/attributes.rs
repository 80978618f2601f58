//! Remembers which columns a walk was begun with. A column's name can pass to another column, its number never.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, sqlstate};

/// The numbers of the columns of a table that matter to a walk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attributes {
    /// Identifies the table that the numbers belong to: in a copy of it, columns may have other numbers.
    pub of: String,
    /// The columns that the clauses use, by name.
    pub clauses: BTreeMap<String, i16>,
    /// The columns of the key.
    pub key: Vec<i16>,
    /// The labels of the enums among the types of the key columns, or contained in them.
    pub labels: Vec<Label>,
}

/// A label of an enum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// OID of the value, which stays the same when the value is renamed.
    pub oid: u32,
    /// The label itself.
    pub label: String,
}

/// A column as it is now: number and name.
pub type Numbered<'a> = (i16, &'a str);

impl Attributes {
    /// Returns an error if the clauses would refer to other columns now. `table` is for the message.
    pub fn changed(&self, table: &str, now: &[Numbered]) -> Option<Error> {
        let column = self.clauses.iter().find(|(name, number)| {
            let found = now.iter().find(|(n, _)| n == *number);
            found.is_none_or(|(_, called)| called != name)
        })?;
        let (name, number) = column;
        let what = format!("column \"{name}\" of table {table}, which the clauses use,");
        let renamed = now.iter().find(|(n, _)| n == number);
        let error = match renamed {
            Some((_, called)) => Error::new(
                sqlstate::UNDEFINED_COLUMN,
                format!("{what} is called \"{called}\" now"),
            )
            .hint("Rename it back and resume the job; or cancel the job and start another, with clauses and a where_clause that suit what is done."),
            None => Error::new(sqlstate::UNDEFINED_COLUMN, format!("{what} was dropped")).hint(
                "Cancel this job and start another; with a where_clause that tells done rows, only the rest is done.",
            ),
        };
        let taken = now.iter().any(|(n, called)| called == name && n != number);
        Some(match taken {
            true => error.detail(format!(
                "Another column is called \"{name}\" now. What it holds, or would be given, is not what the job began with."
            )),
            false => error,
        })
    }

    /// Returns an error if a key that was stored as a label would be another value now, or none. `same`: whether OIDs are those of the
    /// database that the walk was begun in; in a copy of it, only the order of the labels counts.
    pub fn relabelled(&self, now: &[Label], same: bool) -> Option<Error> {
        let mut rest = now.iter();
        let is = |begun: &Label, found: &Label| {
            found.label == begun.label && (!same || found.oid == begun.oid)
        };
        // New labels may have been added in between.
        let lost = self
            .labels
            .iter()
            .find(|begun| !rest.any(|found| is(begun, found)))?;
        let renamed = now.iter().find(|found| same && found.oid == lost.oid);
        let became = renamed.map_or("is gone, or elsewhere in the order".to_owned(), |found| {
            format!("is \"{}\" now", found.label)
        });
        let error = Error::new(
            sqlstate::NOT_IN_PREREQUISITE_STATE,
            format!(
                "the key has an enum whose labels have changed since the job began: \"{}\" {became}",
                lost.label
            ),
        );
        Some(error.detail("Where the walk stands is known by its labels: rows would be skipped, or done twice.")
            .hint("Rename them back (ALTER TYPE ... RENAME VALUE) and resume the job. Or cancel it and start another; with a where_clause that tells done rows, only the rest is done."))
    }

    /// Returns the name of a key column that was dropped, if any. `names` are the names of the key columns.
    pub fn dropped_key<'a>(&self, names: &'a [String], now: &[Numbered]) -> Option<&'a str> {
        let dropped = |number: &i16| !now.iter().any(|(n, _)| n == number);
        let mut columns = self.key.iter().zip(names);
        let found = columns.find(|(number, _)| dropped(number));
        found.map(|(_, name)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun() -> Attributes {
        Attributes {
            of: "1/2/3".into(),
            clauses: [("a".to_owned(), 2), ("b".to_owned(), 3)].into(),
            key: vec![1],
            labels: labels(&[(10, "low"), (11, "high")]),
        }
    }

    fn labels(of: &[(u32, &str)]) -> Vec<Label> {
        let label = |(oid, label): &(u32, &str)| Label {
            oid: *oid,
            label: (*label).to_owned(),
        };
        of.iter().map(label).collect()
    }

    #[test]
    fn labels_may_be_added_and_not_renamed() {
        let lost = |now: &[(u32, &str)], same| begun().relabelled(&labels(now), same);
        assert_eq!(lost(&[(10, "low"), (11, "high")], true), None);
        assert_eq!(
            lost(&[(9, "none"), (10, "low"), (20, "mid"), (11, "high")], true),
            None
        );
        let swapped = lost(&[(10, "high"), (11, "low")], true).unwrap();
        assert!(swapped.message.ends_with("\"low\" is \"high\" now"));
        assert!(swapped.hint.is_some());
        assert!(lost(&[(10, "low"), (11, "top")], true).is_some());
        // Shifted by a label that was added in front: the names are in the same order.
        assert!(lost(&[(9, "low"), (10, "high"), (11, "top")], true).is_some());
    }

    #[test]
    fn in_a_copy_labels_are_known_by_their_order() {
        let lost = |now: &[(u32, &str)]| begun().relabelled(&labels(now), false);
        assert_eq!(lost(&[(70, "low"), (71, "high")]), None);
        assert!(lost(&[(70, "high"), (71, "low")]).is_some());
        assert!(lost(&[(70, "low")]).is_some());
    }

    #[test]
    fn other_columns_may_come_and_go() {
        let now = [(1, "key"), (2, "a"), (3, "b"), (7, "new")];
        assert_eq!(begun().changed("t", &now), None);
    }

    #[test]
    fn a_column_that_was_renamed_or_dropped_is_named() {
        let message = |now: &[Numbered]| begun().changed("public.t", now).unwrap();
        let error = message(&[(1, "id"), (2, "c"), (3, "b")]);
        assert_eq!(
            error.message,
            "column \"a\" of table public.t, which the clauses use, is called \"c\" now"
        );
        assert_eq!((&error.detail, error.hint.is_some()), (&None, true));
        let error = message(&[(1, "id"), (2, "a")]);
        assert_eq!(
            error.message,
            "column \"b\" of table public.t, which the clauses use, was dropped"
        );
    }

    #[test]
    fn a_name_that_another_column_has_now_is_not_that_column() {
        let swapped = begun().changed("t", &[(2, "b"), (3, "a")]).unwrap();
        assert!(swapped.message.ends_with("is called \"b\" now"));
        assert!(swapped.detail.is_some());
        let anew = begun().changed("t", &[(2, "a"), (9, "b")]).unwrap();
        assert!(anew.message.ends_with("was dropped"));
        assert!(anew.detail.is_some());
    }

    #[test]
    fn a_key_is_known_by_its_numbers() {
        let names = ["id".to_owned()];
        assert_eq!(begun().dropped_key(&names, &[(1, "other")]), None);
        assert_eq!(begun().dropped_key(&names, &[(2, "id")]), Some("id"));
    }
}
