//! Where a job comes from: elsewhere it is one of a copy, or was written by somebody else, and stands still.

use pgrx::pg_sys::Oid;

use crate::error::{Error, Result, sqlstate};
use crate::model::standing::Standing;
use crate::pg::elevate::{self, as_extension};
use crate::pg::spi::{self, Arg};
use crate::pg::{seal, server};

/// What of the job `j` decides what runs with whose rights, as `backfill_internal.standing` takes it.
pub const STANDING: &str =
    "backfill_internal.standing(j.owner::pg_catalog.oid, j.owner_name::pg_catalog.text, j.system_identifier,
                          j.database_oid, backfill_internal.digest_of(j), j.seal)";

/// Whether this is the cluster and database that a job says it was started in, and the extension.
/// Within a transaction.
pub fn is_here(system_identifier: Option<i64>, database: Option<i64>) -> bool {
    system_identifier == Some(server::system_identifier()) && database == Some(here())
}

/// The database, and above its 32 bits the table of jobs: another one after DROP EXTENSION, which is
/// how a restored dump begins. Its jobs must not run before all rows are there.
pub fn here() -> i64 {
    (i64::from(elevate::job_table().to_u32()) << 32) | i64::from(server::database().to_u32())
}

/// The columns of a job that its standing is found from.
pub struct Row<'a> {
    /// Its owner.
    pub owner: Oid,
    /// What the owner was called, in the server's encoding.
    pub owner_name: Option<&'a [u8]>,
    /// The cluster.
    pub system_identifier: Option<i64>,
    /// The database and the extension.
    pub database: Option<i64>,
    /// What `backfill_internal.digest_of` says of the row.
    pub digest: &'a [u8],
    /// The seal.
    pub seal: Option<&'a [u8]>,
}

/// How a job's row stands. An owner that is gone is another matter: no worker can be started for it.
pub fn standing(row: &Row) -> Result<Standing> {
    let name = server::name_of(row.owner);
    if name.is_some() && name.as_deref() != row.owner_name {
        return Ok(Standing::OwnerChanged);
    }
    if !is_here(row.system_identifier, row.database) {
        return Ok(Standing::Copy);
    }
    let sealed = match row.seal {
        Some(seal) => seal::fits(row.digest, seal)?,
        None => false,
    };
    Ok(if sealed {
        Standing::Here
    } else {
        Standing::Unsealed
    })
}

/// How the job's row stands now.
pub fn of(id: i64) -> Result<Standing> {
    let sql = format!("SELECT {STANDING} FROM backfill_internal.job j WHERE j.id = $1");
    let row = as_extension(|| spi::first(&sql, &[Arg::Int8(id)]))?;
    row.map_or(Ok(Standing::Unsealed), |row| {
        Ok(Standing::parse(row.text(0)?))
    })
}

/// How it stands apart from the name of its owner.
pub fn of_renamed(id: i64) -> Result<Standing> {
    let sql = "SELECT backfill_internal.standing(j.owner::pg_catalog.oid, pg_catalog.pg_get_userbyid(j.owner)::pg_catalog.text,
                      j.system_identifier, j.database_oid, backfill_internal.digest_of(j), j.seal)
               FROM backfill_internal.job j WHERE j.id = $1";
    let row = as_extension(|| spi::first(sql, &[Arg::Int8(id)]))?;
    row.map_or(Ok(Standing::Unsealed), |row| {
        Ok(Standing::parse(row.text(0)?))
    })
}

/// Writes the seal of the row as it is now. Only after a call that has checked what it writes.
pub fn seal(id: i64) -> Result<()> {
    as_extension(|| {
        let row = spi::first(
            "SELECT pg_catalog.encode(backfill_internal.digest_of(j), 'hex') FROM backfill_internal.job j WHERE j.id = $1",
            &[Arg::Int8(id)],
        )?;
        let Some(row) = row else { return Ok(()) };
        let seal = seal::of(&seal::from_hex(row.text(0)?)?)?;
        spi::query(
            "UPDATE backfill_internal.job SET seal = pg_catalog.decode($2, 'hex') WHERE id = $1",
            &[Arg::Int8(id), Arg::Text(&seal::hex(&seal))],
        )?;
        Ok(())
    })
}

/// Makes the job one of this database, of the role that its owner is now, and seals it: whoever may decide
/// so wants it to run as it is.
pub fn adopt(id: i64) -> Result<()> {
    as_extension(|| {
        spi::query(
            "UPDATE backfill_internal.job
             SET owner_name = pg_catalog.pg_get_userbyid(owner), system_identifier = $2, database_oid = $3,
                 version = version + 1
             WHERE id = $1",
            &[
                Arg::Int8(id),
                Arg::Int8(server::system_identifier()),
                Arg::Int8(here()),
            ],
        )
    })?;
    seal(id)
}

/// Seals all jobs as they are, in an upgrade from a version that had no seals.
pub fn seal_all() -> Result<()> {
    if !server::is_creating_extension() {
        return Err(Error::new(
            sqlstate::INSUFFICIENT_PRIVILEGE,
            "jobs are sealed all at once by ALTER EXTENSION backfill UPDATE only",
        )
        .hint("SELECT backfill.resume(...) seals a job, as a superuser."));
    }
    let rows = as_extension(|| {
        // Definitions bear the place, too, now.
        spi::query(
            "UPDATE backfill_internal.job SET system_identifier = $1, database_oid = $2 WHERE wish = 'define' AND system_identifier IS NULL",
            &[Arg::Int8(server::system_identifier()), Arg::Int8(here())],
        )?;
        spi::query("SELECT id FROM backfill_internal.job", &[])
    })?
    .rows;
    rows.iter().try_for_each(|row| seal(row.number(0)?))
}

/// The error for a job that may not be run, planned or verified as it stands.
pub fn refused(what: &str, shown: &str, id: i64, standing: Standing) -> Error {
    let why = match standing {
        Standing::Copy => "it is of another database, of which this one is a copy",
        Standing::OwnerChanged => {
            "its owner was renamed, or dropped and the OID used again by another role"
        }
        _ => "it was not written by backfill's functions",
    };
    let hint = match standing {
        Standing::Copy => format!(
            "SELECT backfill.resume({id}) runs it here; of one that was not started its owner says SELECT backfill.start(...). Or SELECT backfill.cancel({id}), and define it again."
        ),
        _ => format!(
            "Look at it in backfill_internal.job. If it was started, a superuser may SELECT backfill.resume({id}); else SELECT backfill.cancel({id}), and define it again."
        ),
    };
    Error::new(
        sqlstate::NOT_IN_PREREQUISITE_STATE,
        format!("cannot {what} backfill {shown}: {why}"),
    )
    .hint(hint)
}
