//! The transactions that hold the locks which keep two calls apart, for the error of a call that has waited in vain.

use pgrx::pg_sys::Oid;

use crate::error::{Error, Result, sqlstate};
use crate::pg::elevate::as_extension;
use crate::pg::lock::Lock;
use crate::pg::spi::{self, Arg};
use crate::pg::{server, visible};
use crate::quote::literal;

/// Returns the beginning of a query for sessions: process id, role, and start of the transaction (NULL unless
/// PostgreSQL shows it to the role in parameter `me`). The caller appends a condition on the locks `l` that the session
/// holds.
fn sessions(me: &str) -> String {
    format!(
        "SELECT a.pid::text, COALESCE(pg_catalog.quote_ident(a.usename), 'unknown'),
                CASE WHEN {} THEN pg_catalog.to_char(COALESCE(a.xact_start, a.backend_start), 'YYYY-MM-DD HH24:MI:SS TZ') END, NULL
         FROM pg_catalog.pg_stat_activity a WHERE a.pid <> pg_catalog.pg_backend_pid()
           AND a.pid IN (SELECT l.pid FROM pg_catalog.pg_locks l WHERE ",
        visible::sessions(me, "a.usesysid")
    )
}

/// Like [`sessions`], for prepared transactions, which no session owns: identifier, role, and time of PREPARE.
fn prepared(me: &str) -> String {
    format!(
        "SELECT p.gid, pg_catalog.quote_ident(p.owner),
                CASE WHEN {} THEN pg_catalog.to_char(p.prepared, 'YYYY-MM-DD HH24:MI:SS TZ') END, 'prepared'
         FROM pg_catalog.pg_prepared_xacts p JOIN pg_catalog.pg_roles r ON r.rolname = p.owner
         JOIN pg_catalog.pg_locks own ON own.pid IS NULL AND own.locktype = 'transactionid' AND own.transactionid = p.transaction
         WHERE own.virtualtransaction IN (SELECT l.virtualtransaction FROM pg_catalog.pg_locks l WHERE l.pid IS NULL AND ",
        visible::sessions(me, "r.oid")
    )
}

/// Finds the holders of the locks `l` that satisfy `condition`, whose parameters are `args`. Shows what `role` may see.
fn holders(role: Oid, condition: &str, args: &[Arg]) -> Result<Vec<spi::Row>> {
    let me = format!("${}", args.len() + 1);
    let mut args = args.to_vec();
    args.push(Arg::Oid(role));
    let mut found = Vec::new();
    for all in [sessions(&me), prepared(&me)] {
        let sql = format!("{all} ({condition}))");
        found.extend(spi::for_people(|| spi::query(&sql, &args))?.rows);
    }
    Ok(found)
}

/// Returns the error for a relation on which another transaction defines or starts a job.
pub fn of_definition(lock: Lock, relation: &str) -> Error {
    let me = server::current_user();
    let found = as_extension(|| {
        let [database, high, low, kind] = lock.shown();
        let args = [database, high, low, kind].map(Arg::Int8);
        holders(
            me,
            "l.locktype = 'advisory' AND l.granted AND l.database::bigint = $1 AND l.classid::bigint = $2
             AND l.objid::bigint = $3 AND l.objsubid = $4",
            &args,
        )
    });
    busy(
        format!(
            "table {relation} is in use by another call of the extension \"backfill\" that has not committed"
        ),
        found,
        "It has called backfill.define, start, approve, resume, retry_failed or reapply",
    )
}

/// Returns the error for a job that another transaction has changed.
pub fn of_job(id: i64) -> Error {
    let me = server::current_user();
    let found = as_extension(|| {
        // A transaction that has locked the row holds the lock on its own transaction id. If several share the row,
        // xmax is a number (a MultiXactId) that nobody holds: then everybody who has written to the table may be the
        // holder.
        let writers = "l.granted AND l.locktype = 'transactionid'
                         AND l.transactionid = (SELECT j.xmax FROM backfill_internal.job j WHERE j.id = $1)";
        let all = "l.granted AND l.locktype = 'relation'
                     AND l.relation = 'backfill_internal.job'::pg_catalog.regclass AND l.mode <> 'AccessShareLock'
                     AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())";
        let one = holders(me, writers, &[Arg::Int8(id)])?;
        if !one.is_empty() {
            return Ok(one);
        }
        holders(me, all, &[])
    });
    busy(
        format!("backfill job {id} is being changed by a call that has not committed"),
        found,
        "It has called backfill.pause, resume, alter or the like",
    )
    .and_hint("Or REVOKE UPDATE on the table from the job's owner: its next batch fails then.")
}

fn is_prepared(row: &spi::Row) -> bool {
    row.get(3).is_some()
}

fn busy(message: String, found: Result<Vec<spi::Row>>, called: &str) -> Error {
    let error = Error::new(sqlstate::LOCK_NOT_AVAILABLE, message);
    let holders = found.unwrap_or_default();
    let cell = |row: &spi::Row, column| row.get(column).unwrap_or("?").to_owned();
    let sentences: Vec<String> = holders
        .iter()
        .map(|row| {
            let (who, role) = (cell(row, 0), cell(row, 1));
            let since = |what: &str| {
                row.get(2)
                    .map_or(String::new(), |since| format!(", {what} since {since}"))
            };
            match is_prepared(row) {
                true => format!(
                    "The transaction {} of role {role} holds it{}.",
                    literal(&who),
                    since("prepared")
                ),
                false => format!(
                    "Process {who} of role {role} holds it{}.",
                    since("in a transaction that is open")
                ),
            }
        })
        .collect();
    match holders.first() {
        Some(first) if is_prepared(first) => error.detail(sentences.join(" ")).hint(format!(
            "COMMIT PREPARED {0}; or ROLLBACK PREPARED {0}; then call this again. pg_prepared_xacts has it.",
            literal(&cell(first, 0))
        )),
        None => error.hint("Call it again: whoever held it has ended meanwhile."),
        Some(first) => error.detail(sentences.join(" ")).hint(format!(
            "{called}: have it COMMIT or ROLLBACK, or end it by SELECT pg_terminate_backend({}), and call this again.",
            cell(first, 0)
        )),
    }
}
