//! Which columns a walk was begun with. Another column can be given a name, but never a number.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, sqlstate};

/// The numbers of the columns of a table that matter to a walk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attributes {
    /// Whose numbers they are: in a copy of the table, columns may be numbered otherwise.
    pub of: String,
    /// The columns that the clauses use, by name.
    pub clauses: BTreeMap<String, i16>,
    /// The columns of the key.
    pub key: Vec<i16>,
}

/// A column as it is now.
pub type Numbered<'a> = (i16, &'a str);

impl Attributes {
    /// Why the clauses would mean other columns now, if so. `table` is for the message.
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

    /// The column of the key, of those with these names, that was dropped, if any.
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
        }
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
