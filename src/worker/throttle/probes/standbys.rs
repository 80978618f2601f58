//! Probes of standbys and replication slots: how far they are behind.

use std::time::Instant;

use crate::error::{Error, Result, sqlstate};
use crate::pg::spi::Arg;
use crate::throttle::holds::Found;
use crate::throttle::signals::Signal;
use crate::worker::throttle::probes::look::{Behind, Look};
use crate::worker::throttle::probes::reading::{hidden, one};

/// Probe of `max_lag_bytes`.
pub fn bytes(look: &mut Look) -> Result<Found> {
    read(look)?;
    Ok(found(look, |behind| behind.bytes as f64))
}

/// Probe of `max_lag`.
pub fn time(look: &mut Look) -> Result<Found> {
    // Otherwise the probe of the bytes has read the lag, or has reported why it cannot be read.
    if look.limits.bound(Signal::LagBytes).is_none() {
        read(look)?;
    }
    Ok(found(look, |behind| behind.seconds))
}

fn found(look: &Look, amount: impl Fn(&Behind) -> f64) -> Found {
    match &look.readings.behind {
        Some(behind) => Found::Amount(amount(behind), behind.shown.clone()),
        None => Found::Nothing,
    }
}

/// Reads which standby or slot is furthest behind.
fn read(look: &mut Look) -> Result<()> {
    let (include, exclude) = look.limits.names();
    let lag = lag(include, exclude)?;
    let now = Instant::now();
    let clock = &mut look.readings.clock;
    clock.note(now, lag.end);
    look.readings.behind = lag.last.map(|Follower { shown, at, seconds }| {
        let bytes = lag.end.saturating_sub(at);
        let counted = clock.since(now, at).as_secs_f64();
        Behind {
            shown,
            bytes,
            // The standby's own figure is outdated if it lacks nothing.
            seconds: if bytes > 0 {
                counted.max(seconds)
            } else {
                counted
            },
        }
    });
    Ok(())
}

/// The end of the WAL, and the standby or slot that is furthest behind it.
#[derive(Debug, Clone, PartialEq)]
struct Lag {
    /// End of the WAL, in bytes since its beginning.
    end: u64,
    /// The standby or slot that is furthest behind, if there is one.
    last: Option<Follower>,
}

/// A standby, or a replication slot.
#[derive(Debug, Clone, PartialEq)]
struct Follower {
    /// Name for people: `standby replica1`, `slot orders_cdc`.
    shown: String,
    /// Position it has reached, in bytes since the beginning of the WAL.
    at: u64,
    /// Its own figure for its replay lag, in seconds.
    seconds: f64,
}

/// Query for the lag. The position of a standby is what it has replayed, or else flushed; that of a slot is what its
/// consumer has confirmed. An active physical slot is represented by its walsender. A slot whose WAL is gone will never
/// catch up, and has to be dropped: it is left out.
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

/// Returns the standby or slot that is furthest behind, of those named, or of all but those excluded.
fn lag(include: &[String], exclude: &[String]) -> Result<Lag> {
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
