//! Warnings about clauses whose result differs between batches and a single UPDATE.

use crate::action::Changes;
use crate::action::statement::reading;
use crate::error::Result;
use crate::model::fate::Fate;
use crate::model::options::Options;
use crate::pg::hazards::{self, Hazards};
use crate::pg::relation::Relation;
use crate::pg::report::warning;
use crate::scan::sql;

/// A danger in the clauses, reported before they run.
pub struct Hazard {
    /// The heading in the plan.
    pub item: &'static str,
    /// The finding, as a sentence.
    pub value: String,
    /// The advice, as a sentence.
    pub advice: String,
}

/// Looks for such clauses. Within a session of the owner's.
pub fn of(
    relation: &Relation,
    changes: &Changes,
    where_clause: Option<&str>,
    options: &Options,
) -> Result<Vec<Hazard>> {
    let action = changes.as_action();
    if action.fate() == Fate::Kept {
        return Ok(Vec::new());
    }
    let name = sql::name_of(&relation.schema, &relation.name, None);
    let statement = reading(action, &relation.alone(None), &name, where_clause);
    let found = hazards::of(relation, &statement)?;
    let read_back = match found.read_back.is_empty() {
        true => None,
        false if action.fate() == Fate::Removed => Some(removed(relation)),
        false => Some(read_back(relation, &found)),
    };
    let in_order = relation.kind != 'p' && options.keeps_key_order() && !found.joins;
    let drawn = (found.draws && !in_order).then(drawn);
    Ok(read_back.into_iter().chain(drawn).collect())
}

/// Sends the hazards to the client as warnings.
pub fn warn(hazards: &[Hazard]) {
    for Hazard { value, advice, .. } in hazards {
        warning(value, Some(advice));
    }
}

fn read_back(relation: &Relation, found: &Hazards) -> Hazard {
    let names: Vec<String> = found.read_back.iter().map(|c| format!("\"{c}\"")).collect();
    let columns = match names.len() {
        1 => "column",
        _ => "columns",
    };
    let shown = &relation.shown;
    Hazard {
        item: "rows read back",
        value: format!(
            "a subquery reads {columns} {} of table {shown}, which the backfill sets: in each batch it sees what the batches before have committed, not what one UPDATE would see",
            names.join(", ")
        ),
        advice: format!(
            "If the values of before are meant, compute what the subquery reads once, before the start: CREATE TABLE before AS SELECT ... FROM {shown}; and let it read that table."
        ),
    }
}

fn removed(relation: &Relation) -> Hazard {
    let shown = &relation.shown;
    Hazard {
        item: "rows read back",
        value: format!(
            "a subquery reads table {shown}, whose rows the backfill deletes: in each batch it does not see what the batches before have deleted, which one DELETE would see"
        ),
        advice: format!(
            "If the rows of before are meant, find those to be deleted once, before the start: CREATE TABLE doomed AS SELECT ... FROM {shown}; and let where_clause read that table."
        ),
    }
}

fn drawn() -> Hazard {
    Hazard {
        item: "sequence",
        value: "set_clause draws from a sequence: batches do not take rows in the order of the key, so that the numbers are in no order either".to_owned(),
        advice: "With options => '{\"ordered\": true}', and no subquery in where_clause, a table without partitions is numbered in the order of its key.".to_owned(),
    }
}
