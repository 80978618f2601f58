//! Refuses a shift of unique values (`p = p + 1`) whose batches would meet rows that still have the values they set.

use super::call::Call;
use crate::action::Update;
use crate::action::statement::reading;
use crate::error::{Error, Result, sqlstate};
use crate::pg::evaluate;
use crate::pg::hazards::{self, SHIFTED, Shift};
use crate::pg::relation::{self, Relation};
use crate::pg::spi::{self, Row};
use crate::quote::{ident, literal, qualified};
use crate::scan::key::{Candidate, Column};
use crate::scan::sql;
use crate::table::index;

/// Rows that are looked at, in about as many of the table's pages.
const LOOKED_AT: f64 = 2_000.0;
/// Partitions that are looked at.
const TABLES: usize = 10;
/// Alias of the row that has the value which another row would get.
const MET: &str = "backfill met";
const PLACE: &str = "backfill place";

/// A table, and the key that orders its walk, if there is one.
pub type Ordered = (Relation, Option<Candidate>);

/// Looks among some rows for one that would get a value which another row still has, because that row's turn comes
/// later: a batch would fail with it. Commits are of `batch_size` rows. Within a session of the owner's.
pub fn refuse(call: &Call, update: &Update, tables: &[Ordered], batch_size: i32) -> Result<()> {
    let (relation, clause) = (&call.relation, call.where_clause.as_deref());
    let name = sql::name_of(&relation.schema, &relation.name, None);
    let statement = reading(update, &relation.alone(None), &name, clause);
    let shifts = hazards::of(relation, &statement)?.shifts;
    for shift in &shifts {
        for (table, key) in tables.iter().take(TABLES) {
            for unique in index::candidates(table.oid)? {
                if !is_at_stake(&unique, shift, &update.set_columns) {
                    continue;
                }
                let pair = Pair {
                    call,
                    table,
                    key: key.as_ref(),
                    unique: &unique,
                    shift,
                };
                if let Some(met) = pair.find(batch_size)? {
                    return Err(pair.error(&met, &update.set_columns));
                }
            }
        }
    }
    Ok(())
}

/// True if the index keeps the shifted column unique, and contains no other column that is set.
fn is_at_stake(index: &Candidate, shift: &Shift, set_columns: &[String]) -> bool {
    let set = |column: &&Column| set_columns.contains(&column.name);
    let plain = index.unique && index.valid && index.btree && !index.partial && !index.expressions;
    let names: Vec<&str> = index
        .columns
        .iter()
        .filter(set)
        .map(|c| c.name.as_str())
        .collect();
    plain && names == [shift.column.as_str()]
}

/// A search for two rows of a table, of which the first would get a value that the second has.
struct Pair<'a> {
    call: &'a Call,
    table: &'a Relation,
    key: Option<&'a Candidate>,
    unique: &'a Candidate,
    shift: &'a Shift,
}

impl Pair<'_> {
    /// Returns the values of two such rows. An error in the clauses proves nothing; it will come up in the batches.
    fn find(&self, batch_size: i32) -> Result<Option<Row>> {
        let rows = relation::estimate_rows(self.table.oid).unwrap_or(0);
        let several = rows > i64::from(batch_size);
        // A deferred check sees the batch as a whole.
        if !several && !self.unique.immediate {
            return Ok(None);
        }
        let query = self.query(rows, several);
        match spi::undone(|| evaluate::read_only(|| spi::first(&query, &[]))) {
            Err(error) if error.sqlstate == sqlstate::QUERY_CANCELED => Err(error),
            found => Ok(found.unwrap_or_default()),
        }
    }

    fn query(&self, rows: i64, several: bool) -> String {
        let (shifted, met) = (ident(SHIFTED), ident(MET));
        let name = ident(&self.call.relation.name);
        let percent = (LOOKED_AT * 100.0 / rows.max(1) as f64).clamp(0.0001, 100.0);
        let clause = self.call.where_clause.as_deref();
        let condition = clause.map_or(String::new(), |clause| format!(" WHERE (\n{clause}\n)"));
        let column = ident(&self.shift.column);
        let same = self.unique.columns.iter().map(|c| {
            let own = ident(&c.name);
            match c.name == self.shift.column {
                true => format!("{met}.{own} = {}", self.shift.expression),
                false => format!("{met}.{own} = {shifted}.{own}"),
            }
        });
        let same: Vec<String> = same.collect();
        let places = format!("{shifted}.{} < {met}.ctid", ident(PLACE));
        let before = match self.key {
            None => places,
            Some(key) if several => before(key),
            // Within one statement, rows come in the order of the key or of their places.
            Some(key) => format!("{} AND {places}", before(key)),
        };
        format!(
            "SELECT {shifted}.{column}, {met}.{column} FROM (
                 SELECT {name}.*, {name}.ctid AS {} FROM ONLY {} AS {name} TABLESAMPLE SYSTEM ({percent}){condition} LIMIT {LOOKED_AT}
             ) AS {shifted} JOIN ONLY {} AS {met} ON {} WHERE {before} LIMIT 1",
            ident(PLACE),
            self.table.quoted(),
            self.table.quoted(),
            same.join(" AND "),
        )
    }

    fn error(&self, met: &Row, set_columns: &[String]) -> Error {
        let column = &self.shift.column;
        let value = |at| met.get(at).unwrap_or("NULL");
        Error::new(
            sqlstate::UNIQUE_VIOLATION,
            format!(
                "set_clause shifts column \"{column}\", which index \"{}\" of table {} keeps unique: batches would meet rows that still have the values they set",
                self.unique.name, self.table.shown
            ),
        )
        .detail(format!(
            "The row with {column} = {} would get {}, which another row has until its turn comes.",
            value(0),
            value(1)
        ))
        .hint(self.steps(set_columns))
    }

    /// Returns the hint on what to do instead.
    fn steps(&self, set_columns: &[String]) -> String {
        let others = match set_columns.len() {
            1 => "",
            _ => " What else set_clause sets goes into the first.",
        };
        if !self.shift.is_number || self.has_negative() {
            return format!(
                "Take two steps, each a job of its own: first to values that no row has, far away from all others; then from there to those wanted.{others}"
            );
        }
        let column = &self.shift.quoted;
        let clause = self.call.where_clause.as_deref();
        let first = match clause {
            Some(clause) => format!("({clause}) AND {column} >= 0"),
            None => format!("{column} >= 0"),
        };
        format!(
            "Take two steps, each a job of its own: set_clause => {}, where_clause => {}; then set_clause => {}, where_clause => {}.{others}",
            literal(&format!("{column} = -{}", self.shift.shown)),
            literal(&first),
            literal(&format!("{column} = -{column}")),
            literal(&format!("{column} < 0")),
        )
    }

    /// True if a row has a value below zero, or if that cannot be told quickly.
    fn has_negative(&self) -> bool {
        let column = ident(&self.shift.column);
        if self.unique.columns[0].name != self.shift.column {
            return true;
        }
        let query = format!("SELECT min({column}) < 0 FROM ONLY {}", self.table.quoted());
        let found = spi::undone(|| evaluate::read_only(|| spi::first(&query, &[])));
        !matches!(found, Ok(Some(row)) if row.get(0) == Some("f"))
    }
}

/// Returns the condition that the walk reaches the shifted row before the other one.
fn before(key: &Candidate) -> String {
    let side = |name: &str| {
        let column = |c: &Column| {
            let collate = c
                .collation
                .as_ref()
                .map_or(String::new(), |(schema, name)| {
                    format!(" COLLATE {}", qualified(schema, name))
                });
            format!("{}.{}{collate}", ident(name), ident(&c.name))
        };
        let columns: Vec<String> = key.columns.iter().map(column).collect();
        format!("ROW({})", columns.join(", "))
    };
    let schema = key.columns[0].operator_schema.as_deref();
    format!(
        "{} OPERATOR({}.<) {}",
        side(SHIFTED),
        ident(schema.unwrap_or("pg_catalog")),
        side(MET)
    )
}
