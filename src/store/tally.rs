//! Results of a pass in physical order.

use pgrx::pg_sys::Oid;

use crate::error::Result;
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg};
use crate::store::slice::NO_MORE_PAGES;

/// The result of a pass in physical order over one relation.
#[derive(Debug, Clone, PartialEq)]
pub struct Tally {
    /// The table or partition.
    pub relation: Oid,
    /// The name of the relation when the slices were cut.
    pub relation_name: String,
    /// The file that was walked last.
    pub filenode: Oid,
    /// Whether it was one slice of all pages.
    pub whole: bool,
    /// Rows that the relation was expected to have when the job began.
    pub expected: f64,
    /// Rows changed by all passes after the first.
    pub swept: i64,
    /// Rows found to match.
    pub found: i64,
    /// Rows changed.
    pub updated: i64,
}

/// Returns the result of this pass for each relation walked in physical order. Leaves out relations that went on by
/// key: where the predicate does not exclude updated rows, another pass would do rows twice.
pub fn tallies(job: i64, pass: i32) -> Result<Vec<Tally>> {
    let rows = as_extension(|| {
        spi::query(
            "SELECT s.relation::pg_catalog.oid::bigint, pg_catalog.min(s.relation_name),
                    (pg_catalog.array_agg(s.filenode::bigint ORDER BY s.no DESC))[1], pg_catalog.sum(c.rows_found)::bigint,
                    pg_catalog.sum(c.rows_updated)::bigint,
                    (pg_catalog.array_agg(s.end_block ORDER BY s.no DESC))[1],
                    (SELECT pg_catalog.sum(f.weight) FROM backfill_internal.slice f
                     WHERE f.job_id = $1 AND f.relation = s.relation),
                    (SELECT COALESCE(pg_catalog.sum(l.rows_updated), 0)::bigint FROM backfill_internal.slice f
                     CROSS JOIN LATERAL (SELECT * FROM backfill_internal.checkpoint k WHERE k.slice_id = f.id
                                         ORDER BY k.seq DESC LIMIT 1) l
                     WHERE f.job_id = $1 AND f.relation = s.relation AND f.pass > 1)
             FROM backfill_internal.slice s
             CROSS JOIN LATERAL (SELECT * FROM backfill_internal.checkpoint k WHERE k.slice_id = s.id
                                 ORDER BY k.seq DESC LIMIT 1) c
             WHERE s.job_id = $1 AND s.pass = $2 AND s.walk = 'physical'
               AND NOT EXISTS (SELECT FROM backfill_internal.slice k
                               WHERE k.job_id = s.job_id AND k.relation = s.relation AND k.walk = 'key')
             GROUP BY s.relation ORDER BY pg_catalog.min(s.no)",
            &[Arg::Int8(job), Arg::Int4(pass)],
        )
    })?
    .rows;
    rows.iter()
        .map(|row| {
            Ok(Tally {
                relation: Oid::from(row.number(0)? as u32),
                relation_name: row.text(1)?.to_owned(),
                filenode: Oid::from(row.number(2)? as u32),
                whole: row.number(5)? == NO_MORE_PAGES,
                expected: row.parse(6)?.unwrap_or_default(),
                swept: row.number(7)?,
                found: row.number(3)?,
                updated: row.number(4)?,
            })
        })
        .collect()
}

/// Returns the unfinished slices of a relation's walk in physical order, and locks their rows until the transaction
/// ends.
pub fn unfinished_physical(job: i64, relation: Oid) -> Result<Vec<i32>> {
    let rows = as_extension(|| {
        spi::query(
            "SELECT s.id FROM backfill_internal.slice s
             WHERE s.job_id = $1 AND s.relation::pg_catalog.oid = $2 AND s.walk = 'physical' AND NOT s.done
             ORDER BY s.no FOR UPDATE",
            &[Arg::Int8(job), Arg::Oid(relation)],
        )
    })?
    .rows;
    rows.iter().map(|row| Ok(row.number(0)? as i32)).collect()
}
