//! Slices: the parts of a walk, and where they begin and end.

use std::collections::BTreeMap;

use pgrx::pg_sys::Oid;

use crate::action::Found;
use crate::error::{Error, Result};
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg, Row};
use crate::pg::{lock, server};
use crate::scan::attributes::Attributes;
use crate::scan::position::Key;

/// A part of a walk.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// Id of the slice, used by its checkpoints.
    pub id: i32,
    /// The pass that the slice belongs to.
    pub pass: i32,
    /// The table or partition.
    pub relation: Oid,
    /// The name of the relation when the slice was cut.
    pub relation_name: String,
    /// The rows that the slice covers.
    pub extent: Extent,
    /// The columns that the walk of the table began with.
    pub attributes: Attributes,
}

/// The rows that a slice covers, and the order in which it is walked.
#[derive(Debug, Clone, PartialEq)]
pub enum Extent {
    /// A range of keys, in key order.
    Key(KeyRange),
    /// A range of pages, in physical order.
    Physical(BlockRange),
}

impl Extent {
    /// The columns that order the slice, by the names they had when it was cut; empty in physical order.
    pub fn columns(&self) -> &[String] {
        match self {
            Extent::Key(range) => &range.columns,
            Extent::Physical(_) => &[],
        }
    }
}

/// A range of keys.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyRange {
    /// The range begins after this key; `None`: with the first row.
    pub after: Option<Key>,
    /// The last key of the range.
    pub last: Key,
    /// The columns of the key.
    pub columns: Vec<String>,
    /// The properties that determined the order of each column when the walk began.
    pub order: Vec<String>,
}

impl KeyRange {
    /// True if the range contains no key: the slice has only rows that are left over from others.
    pub fn is_empty(&self) -> bool {
        self.after.as_ref() == Some(&self.last)
    }
}

/// A range of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRange {
    /// The first page.
    pub first: i64,
    /// The page after the last.
    pub end: i64,
    /// The file that the pages are in.
    pub filenode: Oid,
}

/// The page after the last one that any table can have.
pub(super) const NO_MORE_PAGES: i64 = u32::MAX as i64;

impl BlockRange {
    /// Returns the range of all pages of a file, including those added later.
    pub fn all(filenode: Oid) -> BlockRange {
        BlockRange {
            first: 0,
            end: NO_MORE_PAGES,
            filenode,
        }
    }

    /// True if the range is that of [`all`](BlockRange::all).
    pub fn whole(&self) -> bool {
        self.end == NO_MORE_PAGES
    }
}

const COLUMNS: &str = "s.id, s.pass, s.relation::pg_catalog.oid::bigint, s.relation_name,
    pg_catalog.to_json(s.after_key), pg_catalog.to_json(s.last_key), pg_catalog.to_json(s.key_columns),
    pg_catalog.to_json(s.key_order), s.first_block, s.end_block, s.filenode::bigint, s.attributes";

fn read(row: &Row) -> Result<Slice> {
    let extent = match row.parse(8)? {
        Some(first) => Extent::Physical(BlockRange {
            first,
            end: row.number(9)?,
            filenode: Oid::from(row.number(10)? as u32),
        }),
        None => Extent::Key(KeyRange {
            after: row.get(4).map(array).transpose()?,
            last: array(row.text(5)?)?,
            columns: array(row.text(6)?)?,
            order: array(row.text(7)?)?,
        }),
    };
    Ok(Slice {
        id: row.number(0)? as i32,
        pass: row.number(1)? as i32,
        relation: Oid::from(row.number(2)? as u32),
        relation_name: row.text(3)?.to_owned(),
        extent,
        attributes: attributes(row.text(11)?)?,
    })
}

fn attributes(json: &str) -> Result<Attributes> {
    let unreadable = |e| Error::internal(format!("attributes of a slice cannot be read: {e}"));
    serde_json::from_str(json).map_err(unreadable)
}

/// Returns the columns that the walk of the table began with, if it has begun.
pub fn begun_with(job: i64, relation: Oid) -> Result<Option<Attributes>> {
    let row = as_extension(|| {
        spi::first(
            "SELECT s.attributes FROM backfill_internal.slice s
             WHERE s.job_id = $1 AND s.relation::pg_catalog.oid = $2 ORDER BY s.no LIMIT 1",
            &[Arg::Int8(job), Arg::Oid(relation)],
        )
    })?;
    row.map(|row| attributes(row.text(0)?)).transpose()
}

/// Returns the first slice of the job that is neither done nor held, and locks its row until the transaction ends.
/// Skips rows that others are just taking.
pub fn lock_free(job: i64) -> Result<Option<Slice>> {
    let row = as_extension(|| {
        spi::first(
            &format!(
                "SELECT {COLUMNS} FROM backfill_internal.slice s
                 WHERE s.job_id = $1 AND NOT s.done AND {FREE}
                 ORDER BY s.no LIMIT 1 FOR UPDATE OF s SKIP LOCKED",
                FREE = free("s")
            ),
            &[Arg::Int8(job)],
        )
    })?;
    row.as_ref().map(read).transpose()
}

/// Returns the table of the slice that is likely to be next, so that it can be locked before there is a snapshot.
pub fn next_table(job: i64) -> Result<Option<Oid>> {
    let row = as_extension(|| {
        spi::first(
            &format!(
                "SELECT s.relation::pg_catalog.oid::bigint FROM backfill_internal.slice s
                 WHERE s.job_id = $1 AND NOT s.done AND {} ORDER BY s.no LIMIT 1",
                free("s")
            ),
            &[Arg::Int8(job)],
        )
    })?;
    row.map(|row| Ok(Oid::from(row.number(0)? as u32)))
        .transpose()
}

/// Returns the condition that nobody holds the slice `alias`. Within `spi::connect`.
pub fn free(alias: &str) -> String {
    format!(
        "NOT EXISTS (SELECT FROM pg_catalog.pg_locks l
             WHERE l.locktype = 'advisory' AND l.objsubid = {} AND l.granted AND l.database = {}
               AND l.objid = {alias}.id::pg_catalog.oid)",
        lock::SLICE,
        server::database().to_u32()
    )
}

/// Looks for slices that are neither done nor held: `None` if there are none, otherwise whether at least one of them
/// has no rows left over from a first try.
pub fn another(job: i64) -> Result<Option<bool>> {
    let row = as_extension(|| {
        spi::first(
            &format!(
                "SELECT pg_catalog.count(*), COALESCE(pg_catalog.bool_or(NOT EXISTS (
                     SELECT FROM backfill_internal.leftover l WHERE l.slice_id = s.id)), false)
                 FROM backfill_internal.slice s WHERE s.job_id = $1 AND NOT s.done AND {}",
                free("s")
            ),
            &[Arg::Int8(job)],
        )
    })?;
    let row = row.ok_or_else(|| Error::internal("count(*) returned no row"))?;
    Ok((row.number(0)? > 0).then(|| row.bool(1)))
}

/// Returns the keys between which the slices of a table lie, if there are any: the slices follow one another without a
/// gap.
pub fn edges(job: i64, relation: Oid) -> Result<Option<(Option<Key>, Key)>> {
    let row = as_extension(|| {
        spi::first(
            "WITH s AS (SELECT s.after_key, s.last_key FROM backfill_internal.slice s
                        WHERE s.job_id = $1 AND s.relation::pg_catalog.oid = $2 AND s.walk = 'key'
                          AND s.after_key IS DISTINCT FROM s.last_key)
             SELECT (SELECT pg_catalog.to_json(f.after_key) FROM s f
                     WHERE NOT EXISTS (SELECT FROM s o WHERE o.last_key = f.after_key) LIMIT 1),
                    (SELECT pg_catalog.to_json(l.last_key) FROM s l
                     WHERE NOT EXISTS (SELECT FROM s o WHERE o.after_key = l.last_key) LIMIT 1)",
            &[Arg::Int8(job), Arg::Oid(relation)],
        )
    })?;
    let Some(row) = row else { return Ok(None) };
    let Some(last) = row.get(1).map(array).transpose()? else {
        return Ok(None);
    };
    Ok(Some((row.get(0).map(array).transpose()?, last)))
}

/// Returns the page after the last one that a job walks in its first pass over a table.
pub fn end_of_pass(job: i64, relation: Oid) -> Result<Option<i64>> {
    let row = as_extension(|| {
        spi::first(
            "SELECT pg_catalog.max(s.end_block) FROM backfill_internal.slice s
             WHERE s.job_id = $1 AND s.relation::pg_catalog.oid = $2 AND s.pass = 1",
            &[Arg::Int8(job), Arg::Oid(relation)],
        )
    })?;
    row.map_or(Ok(None), |row| row.parse(0))
}

/// Makes the first slice of a table, which is done, begin after another key.
pub fn set_edge(job: i64, relation: Oid, old: Option<&Key>, new: &Key) -> Result<()> {
    as_extension(|| {
        spi::query(
            "UPDATE backfill_internal.slice SET after_key = $4
             WHERE job_id = $1 AND relation::pg_catalog.oid = $2 AND walk = 'key'
               AND after_key IS NOT DISTINCT FROM $3 AND after_key IS DISTINCT FROM last_key",
            &[
                Arg::Int8(job),
                Arg::Oid(relation),
                Arg::texts(old.map(Vec::as_slice)),
                Arg::texts(Some(new)),
            ],
        )
    })?;
    Ok(())
}

/// Returns the number of rows that a job has updated.
pub fn updated(job: i64) -> Result<i64> {
    let sql = format!("SELECT COALESCE(pg_catalog.sum(c.rows_updated), 0) {STANDINGS}");
    let row = as_extension(|| spi::first(&sql, &[Arg::Int8(job)]))?;
    row.map_or(Ok(0), |row| row.number(0))
}

/// Returns the number of rows that a job has passed, updated or not, including those that did not match its WHERE
/// clause. At least 1 if a slice has begun, since its first rows may be passed but not yet counted.
pub fn passed(job: i64) -> Result<i64> {
    let row = as_extension(|| {
        spi::first(
            "SELECT COALESCE(pg_catalog.sum(c.rows_done), 0),
                    COALESCE(pg_catalog.bool_or(c.key IS NOT NULL OR c.wave_key IS NOT NULL OR c.wave > 0), false)
             FROM backfill_internal.slice sl
             CROSS JOIN LATERAL (
                 SELECT k.rows_done, k.key, k.wave, k.wave_key
                 FROM backfill_internal.checkpoint k WHERE k.slice_id = sl.id ORDER BY k.seq DESC LIMIT 1
             ) c
             WHERE sl.job_id = $1",
            &[Arg::Int8(job)],
        )
    })?;
    let row = row.ok_or_else(|| Error::internal("sum(*) returned no row"))?;
    Ok(row.number(0)?.max(i64::from(row.bool(1))))
}

/// Returns the findings of a job that only reads.
pub fn found(job: i64) -> Result<Found> {
    let sql = format!(
        "SELECT COALESCE(pg_catalog.sum(c.rows_done), 0), COALESCE(pg_catalog.sum(c.rows_found), 0),
                COALESCE(pg_catalog.sum(c.rows_updated), 0),
                (SELECT pg_catalog.count(*) FROM backfill_internal.failed_row f WHERE f.job_id = $1) {STANDINGS}"
    );
    let row = as_extension(|| spi::first(&sql, &[Arg::Int8(job)]))?;
    let row = row.ok_or_else(|| Error::internal("sum(*) returned no row"))?;
    Ok(Found {
        passed: row.number(0)?,
        matching: row.number(1)?,
        found: row.number(2)?,
        failed: row.number(3)?,
    })
}

/// Moves the slice behind all others. Under `Lock::Council`.
pub fn put_last(id: i32) -> Result<()> {
    as_extension(|| {
        spi::query(
            "UPDATE backfill_internal.slice s
             SET no = (SELECT pg_catalog.max(o.no) + 1 FROM backfill_internal.slice o WHERE o.job_id = s.job_id)
             WHERE s.id = $1",
            &[Arg::Int4(id)],
        )
    })?;
    Ok(())
}

/// Condition that the slice `s` has only single rows, which something else has found.
pub(super) const IS_SINGLE_ROW: &str =
    "(s.walk = 'key' AND s.after_key IS NOT DISTINCT FROM s.last_key)";

/// True if a job is only about single rows that a verification has found: none of its slices has others.
pub fn are_single_rows(job: i64) -> Result<bool> {
    let row = as_extension(|| {
        spi::first(
            &format!(
                "SELECT pg_catalog.bool_and({IS_SINGLE_ROW}) FROM backfill_internal.slice s WHERE s.job_id = $1"
            ),
            &[Arg::Int8(job)],
        )
    })?;
    Ok(row.is_some_and(|row| row.bool(0)))
}

/// Returns the columns that order the slices walked by key.
pub fn key_columns(job: i64) -> Result<Vec<String>> {
    let rows = as_extension(|| {
        spi::query(
            "SELECT DISTINCT pg_catalog.unnest(s.key_columns) FROM backfill_internal.slice s WHERE s.job_id = $1",
            &[Arg::Int8(job)],
        )
    })?
    .rows;
    rows.iter()
        .map(|row| row.text(0).map(str::to_owned))
        .collect()
}

/// True if any slice of the job is, or was, walked in physical order.
pub fn are_in_physical_order(job: i64) -> Result<bool> {
    let row = as_extension(|| {
        spi::first(
            "SELECT EXISTS (SELECT FROM backfill_internal.slice s WHERE s.job_id = $1 AND s.walk = 'physical')",
            &[Arg::Int8(job)],
        )
    })?;
    Ok(row.is_some_and(|row| row.bool(0)))
}

/// Records the columns of a table that the job's new clauses use.
pub fn set_used(job: i64, relation: Oid, used: &BTreeMap<String, i16>) -> Result<()> {
    let used = serde_json::to_string(used).map_err(|e| Error::internal(e.to_string()))?;
    as_extension(|| {
        spi::query(
            "UPDATE backfill_internal.slice SET attributes = pg_catalog.jsonb_set(attributes, '{clauses}', $3::pg_catalog.jsonb)
             WHERE job_id = $1 AND relation::pg_catalog.oid = $2",
            &[Arg::Int8(job), Arg::Oid(relation), Arg::Text(&used)],
        )
    })?;
    Ok(())
}

/// Returns the number of slices of the job that are not done.
pub fn left(job: i64) -> Result<i64> {
    let row = as_extension(|| {
        spi::first(
            "SELECT pg_catalog.count(*) FROM backfill_internal.slice s WHERE s.job_id = $1 AND NOT s.done",
            &[Arg::Int8(job)],
        )
    })?;
    row.map_or(Ok(0), |row| row.number(0))
}

/// Stores a slice to be walked and returns its id.
pub fn insert(
    job: i64,
    pass: i32,
    relation: (Oid, &str),
    weight: f64,
    extent: &Extent,
    attributes: &Attributes,
) -> Result<i32> {
    let attributes = serde_json::to_string(attributes)
        .map_err(|e| Error::internal(format!("attributes of a slice: {e}")))?;
    let (keys, blocks) = match extent {
        Extent::Key(range) => (Some(range), None),
        Extent::Physical(range) => (None, Some(range)),
    };
    let row = as_extension(|| {
        spi::first(
            "INSERT INTO backfill_internal.slice (job_id, no, pass, relation, relation_name, walk, weight, after_key,
                 last_key, key_columns, key_order, first_block, end_block, filenode, attributes)
             SELECT $1, COALESCE(pg_catalog.max(s.no) + 1, 0), $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,
                    $13::pg_catalog.oid, $14::pg_catalog.jsonb
             FROM backfill_internal.slice s WHERE s.job_id = $1
             RETURNING id",
            &[
                Arg::Int8(job),
                Arg::Int4(pass),
                Arg::Oid(relation.0),
                Arg::Text(relation.1),
                Arg::Text(if keys.is_some() { "key" } else { "physical" }),
                Arg::Float8(weight),
                Arg::texts(keys.and_then(|k| k.after.as_deref())),
                Arg::texts(keys.map(|k| k.last.as_slice())),
                Arg::texts(keys.map(|k| k.columns.as_slice())),
                Arg::texts(keys.map(|k| k.order.as_slice())),
                Arg::int8(blocks.map(|b| b.first)),
                Arg::int8(blocks.map(|b| b.end)),
                Arg::int8(blocks.map(|b| i64::from(b.filenode.to_u32()))),
                Arg::Text(&attributes),
            ],
        )
    })?;
    let row = row.ok_or_else(|| Error::internal("INSERT returned no row"))?;
    Ok(row.number(0)? as i32)
}

/// Marks a slice as done, in the transaction of its last batch or because its table is gone.
pub fn finish(id: i32) -> Result<()> {
    as_extension(|| {
        spi::query(
            "WITH closed AS (DELETE FROM backfill_internal.region WHERE slice_id = $1),
                  lost AS (DELETE FROM backfill_internal.leftover WHERE slice_id = $1)
             UPDATE backfill_internal.slice SET done = true WHERE id = $1",
            &[Arg::Int4(id)],
        )
    })?;
    Ok(())
}

/// Ends a slice before its end: its weight becomes the part it has done. Returns the weight that is left for others.
pub fn cut_short(id: i32, percent: f64) -> Result<f64> {
    let row = as_extension(|| {
        spi::first(
            "WITH before AS (SELECT s.weight FROM backfill_internal.slice s WHERE s.id = $1)
             UPDATE backfill_internal.slice s SET done = true, weight = s.weight * $2 / 100
             FROM before WHERE s.id = $1
             RETURNING before.weight - s.weight",
            &[Arg::Int4(id), Arg::Float8(percent)],
        )
    })?;
    Ok(row
        .map(|row| row.parse(0))
        .transpose()?
        .flatten()
        .unwrap_or_default())
}

/// Parses an array of texts from JSON.
pub fn array(json: &str) -> Result<Vec<String>> {
    serde_json::from_str(json).map_err(|e| Error::internal(format!("not an array of texts: {e}")))
}

/// Sum of the rows done, over [`STANDINGS`]. In physical order a new version may lie ahead of the walk: its row is counted as passed when
/// the walk gets there. In key order, an action may do more elsewhere than it has rows.
pub const ROWS_DONE: &str = "COALESCE(CASE WHEN pg_catalog.bool_or(sl.end_block IS NOT NULL)
                  THEN GREATEST(pg_catalog.sum(c.rows_done), pg_catalog.sum(c.rows_updated)) ELSE pg_catalog.sum(c.rows_done) END, 0)";

/// `FROM` clause for sums over the last checkpoints `c` of the slices `sl` of the job `$1`.
pub const STANDINGS: &str = "
    FROM backfill_internal.slice sl
    CROSS JOIN LATERAL (
        SELECT k.rows_done, k.rows_updated, k.rows_hot, k.rows_found, k.rows_total, k.percent, k.batch_ms, k.worked_ms, k.slept_ms, k.waited_ms, k.wal_bytes
        FROM backfill_internal.checkpoint k WHERE k.slice_id = sl.id ORDER BY k.seq DESC LIMIT 1
    ) c
    WHERE sl.job_id = $1";
