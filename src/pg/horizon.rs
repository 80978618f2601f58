//! The xmin horizon: the transaction from which on dead row versions are still kept, and whoever holds it back.

use pgrx::pg_sys::{self, Oid};

use super::elevate::as_extension;
use super::open::Open;
use super::spi::{self, Arg, Row};
use super::{server, visible};
use crate::error::Result;

/// Returns the horizon of the table: row versions that died before this transaction can be removed. The asking transaction counts
/// like any other.
pub fn horizon(relation: Oid) -> u32 {
    // If the table does not exist, use the horizon of shared catalogs, which is the oldest.
    let table = Open::shared(relation);
    let pointer = table.as_ref().map_or(std::ptr::null_mut(), Open::as_ptr);
    // SAFETY: null stands for shared catalogs; otherwise the relation is open until the end of this function.
    let oldest = unsafe { pg_sys::GetOldestNonRemovableTransactionId(pointer) };
    oldest.into_inner()
}

/// Returns the ID of this transaction; `None` if it has not written anything.
pub fn my_xid() -> Option<u32> {
    // SAFETY: reads the state of this process's transaction; invalid if there is none.
    let xid = unsafe { pg_sys::GetTopTransactionIdIfAny() }.into_inner();
    (xid != pg_sys::InvalidTransactionId.into_inner()).then_some(xid)
}

/// Returns the ID that the next transaction will get: every transaction that has begun to write precedes it.
pub fn next_xid() -> u32 {
    // SAFETY: reads a counter in shared memory under its own lock.
    unsafe { pg_sys::ReadNextTransactionId() }.into_inner()
}

/// Whether transaction `a` precedes `b`; IDs wrap around.
pub fn precedes(a: u32, b: u32) -> bool {
    // SAFETY: it computes with the two IDs, and reads nothing else.
    unsafe { pg_sys::TransactionIdPrecedes(a.into(), b.into()) }
}

/// Describes what holds back the horizon of this database's tables furthest, apart from this process and workers of the same
/// job. The text is for users; it contains no row data, and about a session no more than PostgreSQL shows the current user. Within
/// `spi::connect`.
pub fn oldest_holder() -> Result<Option<String>> {
    let me = Arg::Oid(server::current_user());
    let sql = HOLDERS.replace("{SEES}", &visible::sessions("$1", "a.usesysid"));
    let row = as_extension(|| spi::for_people(|| spi::first(&sql, &[me])))?;
    row.map(|row| describe(&row)).transpose()
}

/// Query for kind, name, activity, and seconds since the beginning; the oldest first. A snapshot is as old as the oldest writing
/// transaction at the time it was taken, in any database, but holds back rows of its own database only. Among holders of equal age,
/// the transaction that the others' snapshots depend on comes first, then the one that began first. A plain VACUUM holds nothing
/// back, and a parallel worker only what its leader does.
const HOLDERS: &str = "
SELECT kind, name, doing, CASE WHEN seen THEN (EXTRACT(epoch FROM pg_catalog.clock_timestamp() - since))::bigint END
FROM (
    SELECT CASE WHEN a.backend_type = 'walsender' THEN 'standby' ELSE 'pid' END AS kind, a.pid::text AS name,
           pg_catalog.concat_ws(', ', NULLIF(a.application_name, ''),
                                CASE WHEN {SEES} THEN COALESCE(a.state, a.backend_type) END) AS doing,
           {SEES} AS seen, a.xact_start AS since, pg_catalog.age(a.backend_xid) AS own,
           GREATEST(pg_catalog.age(a.backend_xid),
                    CASE WHEN a.datid IS NULL OR a.backend_type = 'walsender'
                              OR a.datname = pg_catalog.current_database()
                         THEN pg_catalog.age(a.backend_xmin) END) AS age
    FROM pg_catalog.pg_stat_activity a
    WHERE a.pid <> pg_catalog.pg_backend_pid() AND a.backend_type <> 'parallel worker'
      AND NOT (a.backend_type = 'backfill worker'
               AND a.application_name = pg_catalog.current_setting('application_name'))
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_vacuum v WHERE v.pid = a.pid)
    UNION ALL
    SELECT 'prepared', gid, NULL, true, prepared, pg_catalog.age(transaction), pg_catalog.age(transaction)
    FROM pg_catalog.pg_prepared_xacts
    UNION ALL
    SELECT 'slot', slot_name, CASE WHEN active THEN 'active' ELSE 'inactive' END, true, NULL, NULL, pg_catalog.age(xmin)
    FROM pg_catalog.pg_replication_slots
) AS h
WHERE age IS NOT NULL
ORDER BY age DESC, own IS NOT DISTINCT FROM age DESC, since LIMIT 1";

fn describe(row: &Row) -> Result<String> {
    let (kind, name) = (row.text(0)?, row.text(1)?);
    let what = match kind {
        "standby" => format!("hot_standby_feedback to pid {name}"),
        "prepared" => format!("prepared transaction \"{name}\""),
        "slot" => format!("replication slot \"{name}\""),
        _ => format!("transaction of pid {name}"),
    };
    let doing = row
        .get(2)
        .filter(|doing| !doing.is_empty())
        .map(str::to_owned);
    let open = row
        .parse::<i64>(3)?
        .map(|s| format!("open for {}", clock(s)));
    let more: Vec<String> = doing.into_iter().chain(open).collect();
    Ok(if more.is_empty() {
        what
    } else {
        format!("{what} ({})", more.join(", "))
    })
}

/// Formats seconds as hours, minutes and seconds; hours are not limited to 24.
fn clock(seconds: i64) -> String {
    let seconds = seconds.max(0);
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}
