//! Who holds the locks that keep two calls apart, for the error of a call that has waited for one in vain.

use crate::error::{Error, Result, sqlstate};
use crate::pg::elevate::as_extension;
use crate::pg::lock::Lock;
use crate::pg::spi::{self, Arg};
use crate::pg::{server, visible};

/// Sessions by process id, with role and the time since when the transaction is open, if `me`, a parameter, is told that by
/// PostgreSQL.
fn sessions(me: &str) -> String {
    format!(
        "SELECT a.pid::text, COALESCE(pg_catalog.quote_ident(a.usename), 'unknown'),
                CASE WHEN {} THEN pg_catalog.to_char(COALESCE(a.xact_start, a.backend_start), 'YYYY-MM-DD HH24:MI:SS TZ') END
         FROM pg_catalog.pg_stat_activity a WHERE a.pid <> pg_catalog.pg_backend_pid() AND ",
        visible::sessions(me, "a.usesysid")
    )
}

/// The error for a relation on which somebody else's transaction defines or starts a job.
pub fn of_definition(lock: Lock, relation: &str) -> Error {
    let me = Arg::Oid(server::current_user());
    let found = as_extension(|| {
        let [database, high, low, kind] = lock.shown();
        let sql = format!(
            "{} a.pid IN (
                 SELECT l.pid FROM pg_catalog.pg_locks l
                 WHERE l.locktype = 'advisory' AND l.granted AND l.database::bigint = $1 AND l.classid::bigint = $2
                   AND l.objid::bigint = $3 AND l.objsubid = $4)",
            sessions("$5")
        );
        let [database, high, low, kind] = [database, high, low, kind].map(Arg::Int8);
        Ok(spi::query(&sql, &[database, high, low, kind, me])?.rows)
    });
    busy(
        format!(
            "table {relation} is in use by another call of the extension \"backfill\" that has not committed"
        ),
        found,
        "It has called backfill.define, start, approve, resume, retry_failed or reapply",
    )
}

/// The error for a job that somebody else's transaction has changed.
pub fn of_job(id: i64) -> Error {
    let me = server::current_user();
    let found = as_extension(|| {
        // Who has locked the row holds the lock of its own transaction id. Of several that share the row, xmax tells a
        // number that nobody holds: then all who have written to the table come into question.
        let writers = "SELECT l.pid FROM pg_catalog.pg_locks l WHERE l.granted AND l.locktype = 'transactionid'
                         AND l.transactionid = (SELECT j.xmax FROM backfill.job j WHERE j.id = $1)";
        let all = "SELECT l.pid FROM pg_catalog.pg_locks l WHERE l.granted AND l.locktype = 'relation'
                     AND l.relation = 'backfill.job'::pg_catalog.regclass AND l.mode <> 'AccessShareLock'
                     AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())";
        let one = spi::query(
            &format!("{} a.pid IN ({writers})", sessions("$2")),
            &[Arg::Int8(id), Arg::Oid(me)],
        )?
        .rows;
        if !one.is_empty() {
            return Ok(one);
        }
        let sql = format!("{} a.pid IN ({all})", sessions("$1"));
        Ok(spi::query(&sql, &[Arg::Oid(me)])?.rows)
    });
    busy(
        format!("backfill job {id} is being changed by a call that has not committed"),
        found,
        "It has called backfill.pause, resume, alter or the like",
    )
    .and_hint("Or REVOKE UPDATE on the table from the job's owner: its next batch fails then.")
}

fn busy(message: String, found: Result<Vec<spi::Row>>, called: &str) -> Error {
    let error = Error::new(sqlstate::LOCK_NOT_AVAILABLE, message);
    let holders = found.unwrap_or_default();
    let cell = |row: &spi::Row, column| row.get(column).unwrap_or("?").to_owned();
    let sentences: Vec<String> = holders
        .iter()
        .map(|row| {
            let (pid, role) = (cell(row, 0), cell(row, 1));
            let since = row
                .get(2)
                .map(|since| format!(", in a transaction that is open since {since}"));
            format!(
                "Process {pid} of role {role} holds it{}.",
                since.unwrap_or_default()
            )
        })
        .collect();
    match holders.first() {
        None => error.hint("Call it again: whoever held it has ended meanwhile."),
        Some(first) => error.detail(sentences.join(" ")).hint(format!(
            "{called}: have it COMMIT or ROLLBACK, or end it by SELECT pg_terminate_backend({}), and call this again.",
            cell(first, 0)
        )),
    }
}
