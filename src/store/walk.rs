//! State that all workers of a job share: the pass, the phase, notes for people. Only workers write here.

use pgrx::pg_sys::Oid;

use crate::error::Result;
use crate::model::bounds::Bounds;
use crate::model::stored::cut;
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg};
use crate::store::slice::array;

/// Returns the current pass of the job, if it has begun.
pub fn pass(job: i64) -> Result<Option<i32>> {
    let row = as_extension(|| {
        spi::first(
            "SELECT pass FROM backfill_internal.walk WHERE job_id = $1",
            &[Arg::Int8(job)],
        )
    })?;
    row.map(|row| Ok(row.number(0)? as i32)).transpose()
}

/// Begins the first pass over these tables.
pub fn begin(job: i64, tables: &[Oid]) -> Result<()> {
    let tables: Vec<String> = tables.iter().map(|oid| oid.to_u32().to_string()).collect();
    as_extension(|| {
        spi::query(
            "INSERT INTO backfill_internal.walk (job_id, pass, phase, tables, at)
             VALUES ($1, 1, 'walk', $2::pg_catalog.oid[]::pg_catalog.regclass[], pg_catalog.clock_timestamp())",
            &[Arg::Int8(job), Arg::Texts(&tables)],
        )
    })?;
    Ok(())
}

/// Begins another pass, or continues one.
pub fn begin_again(job: i64, pass: i32) -> Result<()> {
    as_extension(|| {
        spi::query(
            "UPDATE backfill_internal.walk SET pass = $2, at = pg_catalog.clock_timestamp() WHERE job_id = $1",
            &[Arg::Int8(job), Arg::Int4(pass)],
        )
    })?;
    match pass {
        1 => set_phase(job, "walk"),
        _ => set_phase(job, &format!("walk, pass {pass}")),
    }
}

/// Returns the tables that are walked: those the first pass began with, and those added later.
pub fn tables(job: i64) -> Result<Vec<Oid>> {
    let rows = as_extension(|| {
        spi::query(
            "SELECT pg_catalog.unnest(w.tables)::pg_catalog.oid::pg_catalog.int8 FROM backfill_internal.walk w WHERE w.job_id = $1",
            &[Arg::Int8(job)],
        )
    })?
    .rows;
    rows.iter()
        .map(|row| row.number(0).map(|n| Oid::from(n as u32)))
        .collect()
}

/// Adds a table that appeared during the run, with its size before it was touched.
pub fn add_table(job: i64, table: Oid) -> Result<()> {
    as_extension(|| {
        spi::query(
            "UPDATE backfill_internal.walk
             SET tables = pg_catalog.array_append(tables, $2::pg_catalog.regclass),
                 bytes_before = ARRAY[bytes_before[1] + pg_catalog.pg_table_size($2),
                                      bytes_before[2] + pg_catalog.pg_indexes_size($2)]
             WHERE job_id = $1 AND NOT $2::pg_catalog.regclass = ANY (tables)",
            &[Arg::Int8(job), Arg::Oid(table)],
        )
    })?;
    Ok(())
}

/// Returns the bounds of the range that was cut into slices, as the options had them.
pub fn bounds(job: i64) -> Result<Option<Bounds>> {
    let row = as_extension(|| {
        spi::first(
            "SELECT pg_catalog.to_json(key_from), pg_catalog.to_json(key_to) FROM backfill_internal.walk WHERE job_id = $1",
            &[Arg::Int8(job)],
        )
    })?;
    let Some(row) = row else { return Ok(None) };
    let bounds = Bounds {
        from: row.get(0).map(array).transpose()?,
        to: row.get(1).map(array).transpose()?,
    };
    Ok((!bounds.is_open()).then_some(bounds))
}

/// Records the bounds of the range that is cut into slices.
pub fn set_bounds(job: i64, bounds: Option<&Bounds>) -> Result<()> {
    let side = |side: fn(&Bounds) -> Option<&[String]>| Arg::texts(bounds.and_then(side));
    as_extension(|| {
        spi::query(
            "UPDATE backfill_internal.walk SET key_from = $2, key_to = $3 WHERE job_id = $1",
            &[
                Arg::Int8(job),
                side(|bounds| bounds.from.as_deref()),
                side(|bounds| bounds.to.as_deref()),
            ],
        )
    })?;
    Ok(())
}

/// Shows the phase that the job is in after its last batch.
pub fn set_phase(job: i64, phase: &str) -> Result<()> {
    as_extension(|| {
        spi::query(
            "UPDATE backfill_internal.walk SET phase = $2, at = pg_catalog.clock_timestamp() WHERE job_id = $1",
            &[Arg::Int8(job), Arg::Text(phase)],
        )
    })?;
    Ok(())
}

/// Adds a note for the owner, unless it is there already.
pub fn add_note(job: i64, note: &str) -> Result<()> {
    let note = cut(note);
    as_extension(|| {
        spi::query(
            "UPDATE backfill_internal.walk SET notes = pg_catalog.array_append(notes, $2)
             WHERE job_id = $1 AND NOT $2 = ANY (notes)",
            &[Arg::Int8(job), Arg::Text(&note)],
        )
    })?;
    Ok(())
}

/// Removes the note about a pause that the job made by itself.
pub fn remove_pause_note(job: i64) -> Result<()> {
    as_extension(|| {
        spi::query(
            "UPDATE backfill_internal.walk w
             SET notes = ARRAY(SELECT n.note FROM pg_catalog.unnest(w.notes) WITH ORDINALITY AS n (note, no)
                               WHERE NOT pg_catalog.starts_with(n.note, $2) ORDER BY n.no)
             WHERE w.job_id = $1 AND EXISTS (SELECT FROM pg_catalog.unnest(w.notes) AS n (note)
                                             WHERE pg_catalog.starts_with(n.note, $2))",
            &[Arg::Int8(job), Arg::Text(PAUSED_AT)],
        )
    })?;
    Ok(())
}

/// Returns the note about a pause that the job made by itself, if any: where it paused, and how to go on.
pub fn pause_note(job: i64) -> Result<Option<(String, String)>> {
    let row = as_extension(|| {
        spi::first(
            "SELECT pg_catalog.substr(n.note, pg_catalog.length($2) + 1)
             FROM backfill_internal.walk w CROSS JOIN LATERAL pg_catalog.unnest(w.notes) AS n (note)
             WHERE w.job_id = $1 AND pg_catalog.starts_with(n.note, $2)",
            &[Arg::Int8(job), Arg::Text(PAUSED_AT)],
        )
    })?;
    let note = row.and_then(|row| row.get(0).map(str::to_owned));
    Ok(note.map(|note| match note.rsplit_once(FOR_THE_REST) {
        Some((at, rest)) => (at.to_owned(), rest.to_owned()),
        None => (note, String::new()),
    }))
}

/// Returns the last note of a job that begins with `opening`.
pub fn note_beginning(job: i64, opening: &str) -> Result<Option<String>> {
    let row = as_extension(|| {
        spi::first(
            "SELECT n.note FROM backfill_internal.walk w CROSS JOIN LATERAL pg_catalog.unnest(w.notes) WITH ORDINALITY AS n (note, no)
             WHERE w.job_id = $1 AND pg_catalog.starts_with(n.note, $2) ORDER BY n.no DESC LIMIT 1",
            &[Arg::Int8(job), Arg::Text(opening)],
        )
    })?;
    Ok(row.and_then(|row| row.get(0).map(str::to_owned)))
}

/// Separates, in the note about such a pause, where the job paused from how to go on.
pub const FOR_THE_REST: &str = ": for the rest ";

/// Beginning of the note about a pause that the job made by itself.
pub const PAUSED_AT: &str = "paused at ";

/// Returns the size of a table and the number of its VACUUMs, taken when its growth was first looked at or after its
/// last VACUUM.
pub fn size_at(job: i64, table: Oid) -> Result<Option<(u64, i64)>> {
    let row = as_extension(|| {
        spi::first(
            "SELECT w.sizes -> $2 ->> 0, w.sizes -> $2 ->> 1 FROM backfill_internal.walk w WHERE w.job_id = $1",
            &[Arg::Int8(job), Arg::Text(&table.to_u32().to_string())],
        )
    })?;
    let Some(row) = row else { return Ok(None) };
    Ok(row.parse(0)?.zip(row.parse(1)?))
}

/// Records the size of a table and the number of its VACUUMs.
pub fn set_size_at(job: i64, table: Oid, size: u64, vacuums: i64) -> Result<()> {
    as_extension(|| {
        spi::query(
            "UPDATE backfill_internal.walk
             SET sizes = pg_catalog.jsonb_set(sizes, ARRAY[$2], pg_catalog.jsonb_build_array($3, $4))
             WHERE job_id = $1",
            &[
                Arg::Int8(job),
                Arg::Text(&table.to_u32().to_string()),
                Arg::Int8(i64::try_from(size).unwrap_or(i64::MAX)),
                Arg::Int8(vacuums),
            ],
        )
    })?;
    Ok(())
}

/// Records the size of the tables and their indexes: at the beginning of the walk, or (`after`) when everything is
/// done.
pub fn measure(job: i64, after: bool) -> Result<()> {
    let column = if after { "bytes_after" } else { "bytes_before" };
    let sql = format!(
        "UPDATE backfill_internal.walk w
         SET {column} = (SELECT ARRAY[COALESCE(pg_catalog.sum(pg_catalog.pg_table_size(t.oid)), 0)::pg_catalog.int8,
                                      COALESCE(pg_catalog.sum(pg_catalog.pg_indexes_size(t.oid)), 0)::pg_catalog.int8]
                         FROM pg_catalog.unnest(w.tables::pg_catalog.oid[]) AS t (oid))
         WHERE w.job_id = $1"
    );
    as_extension(|| spi::query(&sql, &[Arg::Int8(job)]))?;
    Ok(())
}

/// Bytes of tables, and bytes of their indexes.
pub type Bytes = Option<(i64, i64)>;

/// Returns the sizes at the beginning of the walk, and those when everything was done.
pub fn bytes(job: i64) -> Result<(Bytes, Bytes)> {
    let row = as_extension(|| {
        spi::first(
            "SELECT bytes_before[1], bytes_before[2], bytes_after[1], bytes_after[2] FROM backfill_internal.walk WHERE job_id = $1",
            &[Arg::Int8(job)],
        )
    })?;
    let Some(row) = row else {
        return Ok((None, None));
    };
    Ok((
        row.parse(0)?.zip(row.parse(1)?),
        row.parse(2)?.zip(row.parse(3)?),
    ))
}
