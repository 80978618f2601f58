//! What the server tells of how busy it is, by its own views, read with the extension's rights: plain
//! roles see NULL there.

use pgrx::pg_sys::Oid;

use crate::error::{Error, Result, sqlstate};
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg, Row};

/// Where the WAL ends, and who is furthest behind that.
#[derive(Debug, Clone, PartialEq)]
pub struct Lag {
    /// The end, in bytes since the first.
    pub end: u64,
    /// Who is behind, if there is anybody.
    pub last: Option<Follower>,
}

/// A standby, or a replication slot.
#[derive(Debug, Clone, PartialEq)]
pub struct Follower {
    /// For people: `standby replica1`, `slot orders_cdc`.
    pub shown: String,
    /// Where it has come to, in bytes since the first.
    pub at: u64,
    /// What it says itself of how long its answers take, in seconds.
    pub seconds: f64,
}

/// What `LAG` and the lists of names mean: a walsender counts by what its standby has replayed, or else
/// flushed; a slot by what its reader has confirmed. An active physical slot is its walsender's. One
/// whose WAL is gone will never catch up, and has to be dropped.
const LAG: &str = "
WITH wal AS (SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), '0/0') AS lsn), followers AS (
    SELECT 'standby' AS kind, a.application_name::text AS name,
           COALESCE(a.replay_lsn, a.flush_lsn, a.write_lsn, a.sent_lsn) AS at, a.state IS NULL AS hidden,
           pg_catalog.date_part('epoch', a.replay_lag) AS seconds
    FROM pg_catalog.pg_stat_replication a
    WHERE a.state IS NULL OR a.state IN ('streaming', 'catchup')
    UNION ALL
    SELECT 'slot', s.slot_name::text, COALESCE(s.confirmed_flush_lsn, s.restart_lsn), false, NULL
    FROM pg_catalog.pg_replication_slots s
    WHERE (s.slot_type = 'logical' OR NOT s.active) AND NOT s.temporary AND s.wal_status IS DISTINCT FROM 'lost'
)
SELECT wal.lsn, f.kind, f.name, f.lsn, f.seconds,
       (SELECT pg_catalog.bool_or(h.hidden) FROM followers h),
       (SELECT pg_catalog.min(m.name) FROM pg_catalog.unnest($1) AS m(name)
        WHERE NOT m.name IN (SELECT k.name FROM followers k))
FROM wal LEFT JOIN LATERAL (
    SELECT f.kind, f.name, pg_catalog.pg_wal_lsn_diff(f.at, '0/0') AS lsn, f.seconds
    FROM followers f
    WHERE f.at IS NOT NULL AND NOT f.hidden AND NOT f.name = ANY ($2)
      AND (pg_catalog.cardinality($1) = 0 OR f.name = ANY ($1))
    ORDER BY f.at LIMIT 1
) f ON true";

/// Who is furthest behind, of those named, or of all but those excluded.
pub fn lag(include: &[String], exclude: &[String]) -> Result<Lag> {
    let row = one(LAG, &[Arg::Texts(include), Arg::Texts(exclude)])?;
    if row.bool(5) {
        return Err(hidden("pg_stat_replication"));
    }
    if let Some(name) = row.get(6) {
        return Err(Error::new(
            sqlstate::UNDEFINED_OBJECT,
            format!("no standby or slot \"{name}\" is there"),
        ));
    }
    let last = row.get(1).map(|kind| -> Result<Follower> {
        Ok(Follower {
            shown: format!("{kind} {}", row.text(2)?),
            at: row.number(3)?.unsigned_abs(),
            seconds: row.parse(4)?.unwrap_or(0.0),
        })
    });
    Ok(Lag {
        end: row.number(0)?.unsigned_abs(),
        last: last.transpose()?,
    })
}

/// Segments of WAL that wait to be archived.
pub fn archive_backlog() -> Result<u64> {
    count(
        "SELECT pg_catalog.count(*) FROM pg_catalog.pg_ls_archive_statusdir() f WHERE f.name LIKE '%.ready'",
        &[],
    )
}

/// Clients' backends that are at work.
pub fn active_backends() -> Result<u64> {
    let row = one(
        "SELECT pg_catalog.count(*) FILTER (WHERE a.state IN ('active', 'fastpath function call')),
                pg_catalog.count(*) FILTER (WHERE a.state IS NULL OR a.state = 'disabled')
         FROM pg_catalog.pg_stat_activity a
         WHERE a.backend_type = 'client backend' OR a.backend_type IS NULL",
        &[],
    )?;
    if row.number(1)? > 0 {
        return Err(hidden("pg_stat_activity").hint("track_activities may be off."));
    }
    Ok(row.number(0)?.unsigned_abs())
}

/// What VACUUM does to the table or its TOAST table now, if it does: `scanning heap`.
pub fn vacuum_of(table: Oid) -> Result<Option<String>> {
    let found = first(
        "SELECT v.phase FROM pg_catalog.pg_stat_progress_vacuum v JOIN pg_catalog.pg_class c ON v.relid IN (c.oid, c.reltoastrelid)
         WHERE c.oid = $1 AND v.datid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())",
        &[Arg::Oid(table)],
    )?;
    Ok(found.and_then(|row| row.get(0).map(str::to_owned)))
}

/// The age of the table's oldest transaction, and the one that has VACUUM freeze it.
pub fn age_of(table: Oid) -> Result<Option<(u64, u64)>> {
    let found = first(
        "SELECT pg_catalog.age(c.relfrozenxid), pg_catalog.current_setting('autovacuum_freeze_max_age')
         FROM pg_catalog.pg_class c WHERE c.oid = $1 AND c.relfrozenxid <> '0'::pg_catalog.xid",
        &[Arg::Oid(table)],
    )?;
    found
        .map(|row| Ok((row.number(0)?.unsigned_abs(), row.number(1)?.unsigned_abs())))
        .transpose()
}

/// The table's dead tuples, as far as they are counted.
pub fn dead_tuples(table: Oid) -> Result<u64> {
    counted()?;
    count(
        "SELECT pg_catalog.pg_stat_get_dead_tuples($1)",
        &[Arg::Oid(table)],
    )
}

/// The table's size in bytes, and how often it was vacuumed.
pub fn size_of(table: Oid) -> Result<(u64, i64)> {
    counted()?;
    let row = one(
        "SELECT COALESCE(pg_catalog.pg_relation_size($1), 0),
                pg_catalog.pg_stat_get_vacuum_count($1) + pg_catalog.pg_stat_get_autovacuum_count($1)",
        &[Arg::Oid(table)],
    )?;
    Ok((row.number(0)?.unsigned_abs(), row.number(1)?))
}

/// Backends that wait for this transaction, which has written to `table`: for it to end, in a queue for one
/// of the table's rows, or for the table itself.
pub fn lock_waiters(table: Oid) -> Result<u64> {
    count(
        "SELECT pg_catalog.count(DISTINCT l.pid) FROM pg_catalog.pg_locks l
         WHERE NOT l.granted
           AND (l.locktype = 'transactionid' AND l.transactionid = pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.xid
                OR l.locktype IN ('tuple', 'relation') AND l.relation = $1
                   AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))",
        &[Arg::Oid(table)],
    )
}

/// What ALTER ROLE and ALTER DATABASE say of `default_transaction_read_only` for new sessions of the role in this database;
/// what is said for both comes first.
const READ_ONLY_OF_ROLE: &str = "
SELECT pg_catalog.split_part(c.entry, '=', 2)::boolean
FROM pg_catalog.pg_db_role_setting s CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS c (entry)
WHERE s.setrole IN (0, $1)
  AND s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))
  AND pg_catalog.lower(pg_catalog.split_part(c.entry, '=', 1)) = 'default_transaction_read_only'
ORDER BY s.setrole <> 0 DESC, s.setdatabase <> 0 DESC LIMIT 1";

/// Whether a new session of the role in this database would begin with transactions that are read only. `overridden` is
/// set once the role or the database is found to have a value of its own: what this process knows of the server's may
/// be that one from then on.
pub fn is_read_only(role: Oid, overridden: &mut bool) -> Result<bool> {
    if let Some(row) = first(READ_ONLY_OF_ROLE, &[Arg::Oid(role)])? {
        *overridden = true;
        return Ok(row.bool(0));
    }
    // A RESET would give this value; the worker has set another one.
    let of_server = "SELECT s.reset_val = 'on' FROM pg_catalog.pg_settings s WHERE s.name = 'default_transaction_read_only'";
    let of_files = "SELECT f.setting::boolean FROM pg_catalog.pg_file_settings f
                    WHERE pg_catalog.lower(f.name) = 'default_transaction_read_only' AND f.applied ORDER BY f.seqno DESC LIMIT 1";
    let found = first(if *overridden { of_files } else { of_server }, &[])?;
    Ok(found.is_some_and(|row| row.bool(0)))
}

/// The minute of the week, which begins on Monday, in a time zone; without one, in the session's. An error that names a zone that
/// there is not.
pub fn minute_of_week(zone: Option<&str>) -> Result<u16> {
    let zone = match zone {
        Some(zone) => Arg::Text(zone),
        None => Arg::text(None),
    };
    let minutes = count(
        "SELECT (pg_catalog.date_part('isodow', t.at) - 1) * 1440 + pg_catalog.floor(pg_catalog.date_part('epoch', t.at::pg_catalog.time) / 60)
         FROM (SELECT pg_catalog.timezone(COALESCE($1, pg_catalog.current_setting('TimeZone')), pg_catalog.clock_timestamp()) AS at) t",
        &[zone],
    )?;
    Ok(minutes as u16)
}

fn first(sql: &str, args: &[Arg]) -> Result<Option<Row>> {
    as_extension(|| spi::first(sql, args))
}

fn one(sql: &str, args: &[Arg]) -> Result<Row> {
    first(sql, args)?.ok_or_else(|| Error::internal("a signal has no row"))
}

fn count(sql: &str, args: &[Arg]) -> Result<u64> {
    Ok(one(sql, args)?.number(0)?.unsigned_abs())
}

/// An error where the server does not count what happens to tables.
fn counted() -> Result<()> {
    if crate::pg::hot::counted() {
        return Ok(());
    }
    Err(Error::new(
        sqlstate::NOT_IN_PREREQUISITE_STATE,
        "track_counts is off",
    ))
}

fn hidden(view: &str) -> Error {
    Error::new(
        sqlstate::INSUFFICIENT_PRIVILEGE,
        format!("{view} does not show all to the extension's owner"),
    )
}
