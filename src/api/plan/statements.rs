//! The statements that will run.

use super::Line;
use super::walk::{Way, bound, last};
use crate::action::statement::{self, Giving};
use crate::api::backfill::Backfill;
use crate::api::start::Pace;
use crate::error::Result;
use crate::model::fate::Fate;
use crate::pg::planner::{self, Access};
use crate::pg::settings::{self, CANONICAL};
use crate::pg::spi::{self, Arg};
use crate::pg::text::to_server;
use crate::pg::tid::Tid;
use crate::scan::order::Order;
use crate::scan::position::Key;
use crate::scan::reader::reads_first;
use crate::scan::sql::Rows;
use pgrx::pg_sys::Oid;

/// Place of the first row of a table, as a list of places.
const PLACE: &[Tid] = &[Tid {
    block: 0,
    offset: 1,
}];

/// Returns the statements of a batch, with the query plans of the first ones, for the largest table.
pub fn lines(backfill: &Backfill, ways: &[Way], pace: Pace) -> Result<Vec<Line>> {
    let Some(way) = ways.iter().max_by(|a, b| a.rows.total_cmp(&b.rows)) else {
        return Ok(Vec::new());
    };
    let line = |item: &str, value: String| Line::new("statements", item, value);
    let target = &way.target;
    let action = backfill.action.as_action();
    let batch = |rows, giving| statement::batch(action, target, rows, giving);
    let range = |after| batch(Rows::Range { after }, Giving::Nothing);
    let Order::Key(key) = &way.order else {
        return Ok(vec![
            line("read pages", target.read_pages().text),
            line(
                "rows by their places",
                statement::counted(action, target).text,
            ),
        ]);
    };
    let index = Oid::from(key.oid);
    let Some(last) = last(target)? else {
        return Ok(vec![line("batch", range(true).text)]);
    };
    let plan = |statement: &str, access, args: &[Arg]| explain(way, index, statement, access, args);
    let rows = i64::from(pace.batch_size);
    let kept = backfill.action.as_action().fate() == Fate::Kept;
    let access = match kept {
        true => Access::Rows(pace.batch_size.max(1) as u32),
        false => Access::Index,
    };
    if kept && by_list(backfill, way) {
        let first = target.read(false, true);
        let args = bound(target, &first, &last, rows);
        return Ok(vec![
            line("read a region", target.read(true, true).text),
            line("batch", batch(Rows::Keys, Giving::Nothing).text),
            line(
                "plan of the first read",
                plan(&first.text, Access::Index, &args)?,
            ),
        ]);
    }
    if by_list(backfill, way) {
        let (read, update) = (target.read(true, true), batch(Rows::Places, Giving::Key));
        let first = target.read(false, true);
        let args = bound(target, &first, &last, rows);
        return Ok(vec![
            line("read a region", read.text),
            line("batch", update.text.clone()),
            line(
                "rows that have moved",
                batch(Rows::Keys, Giving::Nothing).text,
            ),
            line(
                "plan of the first read",
                plan(&first.text, Access::Index, &args)?,
            ),
            line(
                "plan of the first batch",
                plan(&update.text, Access::Tid, &[Arg::Tids(PLACE)])?,
            ),
        ]);
    }
    let end = end(way, rows)?.unwrap_or(last);
    let first = range(false);
    let args = bound(target, &first, &end, rows);
    Ok(vec![
        line("where a batch ends", target.bound(true).text),
        line("batch", range(true).text),
        line("plan of the first batch", plan(&first.text, access, &args)?),
    ])
}

/// True if batches update lists of rows that were read before, by the same rule as in a worker.
fn by_list(backfill: &Backfill, way: &Way) -> bool {
    let share = way.matching / way.rows.max(1.0);
    let fate = backfill.action.as_action().fate();
    let sparse = reads_first(
        way.target.where_clause.is_some(),
        way.scattered,
        share,
        fate,
    );
    way.waves.is_ok() || sparse || backfill.options.skips_locked_rows()
}

/// Returns the query plan that a worker has for a statement: by the key's index, or by places, whatever other paths
/// there are.
fn explain(way: &Way, index: Oid, statement: &str, access: Access, args: &[Arg]) -> Result<String> {
    let sql = format!("EXPLAIN (COSTS off) {statement}");
    let text = to_server(&sql)?;
    let explained = planner::explained(way.table.oid, index, text, access, || {
        spi::in_subtransaction(|| settings::with(CANONICAL, || spi::query(&sql, args)))
    });
    let rows = explained?.rows;
    let lines: Result<Vec<&str>> = rows.iter().map(|row| row.text(0)).collect();
    Ok(lines?.join("\n"))
}

/// Returns the key of the n-th row; `None` if there are fewer.
fn end(way: &Way, n: i64) -> Result<Option<Key>> {
    let target = &way.target;
    let args = [Arg::Int8((n - 1).max(0)), Arg::Int8(1)];
    let found = settings::with(CANONICAL, || spi::first(&target.nth().text, &args))?;
    found.map(|row| row.texts(target.key.len())).transpose()
}
