//! Runs one statement of the owner's for each batch, which names the rows of the batch `batch`.

use serde::{Deserialize, Serialize};

use super::{Action, Batch, Rendered, Writes};
use crate::model::fate::Fate;
use crate::model::row_lock::RowLock;

/// Name of the rows of a batch in the owner's statement.
pub const BATCH: &str = "batch";

/// A statement that is run for each batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execute {
    /// The statement.
    pub statement: String,
    /// Lock that the rows of the batch get.
    pub lock: RowLock,
}

impl Action for Execute {
    fn name(&self) -> &'static str {
        "execute"
    }

    fn done(&self) -> &'static str {
        "handled"
    }

    fn counted(&self) -> &'static str {
        "affected"
    }

    fn writes(&self) -> Writes<'_> {
        Writes::Elsewhere(None)
    }

    fn excludes_itself(&self, _: Option<&str>) -> bool {
        false
    }

    fn lock(&self) -> Option<RowLock> {
        Some(self.lock)
    }

    fn fate(&self) -> Fate {
        Fate::Kept
    }

    fn clauses(&self) -> Vec<&str> {
        vec![&self.statement]
    }

    fn render(&self, batch: &Batch) -> Rendered {
        let rows = batch.selecting(&format!("{}.*", batch.name), self.lock);
        // Materialized, so that it is one set of rows however often the statement names it.
        let rows = format!("{BATCH} AS MATERIALIZED (\n{rows}\n)");
        Rendered::alone(match after_with(&self.statement) {
            Some((recursive, rest)) => {
                let recursive = if recursive { "RECURSIVE " } else { "" };
                format!("WITH {recursive}{rows}, {rest}")
            }
            None => format!("WITH {rows}\n{}", self.statement),
        })
    }

    fn reading(&self, batch: &Batch) -> Rendered {
        Rendered::alone(batch.selecting(&format!("{}.*", batch.name), RowLock::None))
    }
}

/// Returns what follows the WITH that a statement begins with, and whether it is recursive.
fn after_with(statement: &str) -> Option<(bool, &str)> {
    let rest = after_word(statement, "with")?;
    Some(match after_word(rest, "recursive") {
        Some(rest) => (true, rest),
        None => (false, rest),
    })
}

/// Returns what follows a word at the beginning of a text, without white space before it.
fn after_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let text = text.trim_start();
    let (first, rest) = text.split_at_checked(word.len())?;
    let ends = !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
    (first.eq_ignore_ascii_case(word) && ends).then(|| rest.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::sql::Selected;

    fn rendered(statement: &str) -> String {
        let batch = Batch {
            item: "ONLY s.old AS t".to_owned(),
            name: "t".to_owned(),
            rows: Some(Selected {
                list: None,
                condition: "id <= $1".to_owned(),
            }),
            returning: Vec::new(),
            limit: Some("$2".to_owned()),
        };
        let execute = Execute {
            statement: statement.to_owned(),
            lock: RowLock::NoKeyUpdate,
        };
        execute.render(&batch).text()
    }

    const ROWS: &str = "batch AS MATERIALIZED (\nSELECT t.*\nFROM ONLY s.old AS t\nWHERE id <= $1 LIMIT $2 FOR NO KEY UPDATE\n)";

    #[test]
    fn a_statement_is_preceded_by_its_rows() {
        let call = "SELECT f(array_agg(id)) FROM batch";
        assert_eq!(rendered(call), format!("WITH {ROWS}\n{call}"));
        // A word that only begins like it.
        let call = "without(1)";
        assert_eq!(rendered(call), format!("WITH {ROWS}\n{call}"));
    }

    #[test]
    fn common_table_expressions_follow_the_rows() {
        assert_eq!(
            rendered(" with\n a AS (SELECT) INSERT INTO b TABLE a"),
            format!("WITH {ROWS}, a AS (SELECT) INSERT INTO b TABLE a")
        );
        assert_eq!(
            rendered("WITH Recursive a AS (SELECT) TABLE a"),
            format!("WITH RECURSIVE {ROWS}, a AS (SELECT) TABLE a")
        );
        assert_eq!(
            rendered("WITH recursively AS (SELECT) TABLE recursively"),
            format!("WITH {ROWS}, recursively AS (SELECT) TABLE recursively")
        );
    }
}
