//! The origin of a job. A job that came from a copy, or was written by something other than the functions, does not
//! run.

use pgrx::pg_sys::Oid;

use crate::error::{Error, Result, sqlstate};
use crate::model::standing::Standing;
use crate::pg::elevate::{self, as_extension};
use crate::pg::spi::{self, Arg};
use crate::pg::{name, seal, server};

/// Expression for the standing of the job `j`: passes to `backfill_internal.standing` everything that decides what runs
/// with whose rights.
pub const STANDING: &str =
    "backfill_internal.standing(j.owner::pg_catalog.oid, j.owner_name::pg_catalog.text, j.system_identifier,
                          j.database_oid, backfill_internal.digest_of(j), j.seal)";

/// True if this is the cluster, database and extension that a job says it was started in. Within a transaction.
pub fn is_here(system_identifier: Option<i64>, database: Option<i64>) -> bool {
    system_identifier == Some(server::system_identifier()) && database == Some(here())
}

/// The OID of this database in the low 32 bits, and that of the table of jobs above it. The latter changes with DROP
/// EXTENSION, and so when a dump is restored, whose jobs must not run before all rows are there.
pub fn here() -> i64 {
    (i64::from(elevate::job_table().to_u32()) << 32) | i64::from(server::database().to_u32())
}

/// The columns of a job that its standing is computed from.
pub struct Row<'a> {
    /// The job's owner.
    pub owner: Oid,
    /// The owner's name when the job was defined, in the server's encoding.
    pub owner_name: Option<&'a [u8]>,
    /// System identifier of the cluster.
    pub system_identifier: Option<i64>,
    /// Database and extension, as from [`here`].
    pub database: Option<i64>,
    /// Digest of the row, from `backfill_internal.digest_of`.
    pub digest: &'a [u8],
    /// The seal of the row.
    pub seal: Option<&'a [u8]>,
}

/// Returns the standing of a job's row. An owner that no longer exists does not count here: no worker can be started
/// for such a job.
pub fn standing(row: &Row) -> Result<Standing> {
    let name = name::of_role_unquoted(row.owner);
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

/// Returns the current standing of the job.
pub fn of(id: i64) -> Result<Standing> {
    let sql = format!("SELECT {STANDING} FROM backfill_internal.job j WHERE j.id = $1");
    let row = as_extension(|| spi::first(&sql, &[Arg::Int8(id)]))?;
    row.map_or(Ok(Standing::Unsealed), |row| {
        Ok(Standing::parse(row.text(0)?))
    })
}

/// Returns the standing of the job, ignoring a change of its owner's name.
pub fn of_renamed(id: i64) -> Result<Standing> {
    let sql = "SELECT backfill_internal.standing(j.owner::pg_catalog.oid, pg_catalog.pg_get_userbyid(j.owner)::pg_catalog.text,
                      j.system_identifier, j.database_oid, backfill_internal.digest_of(j), j.seal)
               FROM backfill_internal.job j WHERE j.id = $1";
    let row = as_extension(|| spi::first(sql, &[Arg::Int8(id)]))?;
    row.map_or(Ok(Standing::Unsealed), |row| {
        Ok(Standing::parse(row.text(0)?))
    })
}

/// Writes the seal of the row as it is now. To be called only after the row's new contents have been checked.
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

/// Makes the job one of this database and of the role that its owner is now, and seals it. The caller has the right to
/// decide that it should run as it is.
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

/// Seals all jobs as they are, in an upgrade from a version without seals. Fails outside CREATE or ALTER EXTENSION.
pub fn seal_all() -> Result<()> {
    if !server::is_creating_extension() {
        return Err(Error::new(
            sqlstate::INSUFFICIENT_PRIVILEGE,
            "jobs are sealed all at once by ALTER EXTENSION backfill UPDATE only",
        )
        .hint("SELECT backfill.resume(...) seals a job, as a superuser."));
    }
    let rows = as_extension(|| {
        // Definitions, too, now record the database they belong to.
        spi::query(
            "UPDATE backfill_internal.job SET system_identifier = $1, database_oid = $2 WHERE wish = 'define' AND system_identifier IS NULL",
            &[Arg::Int8(server::system_identifier()), Arg::Int8(here())],
        )?;
        spi::query("SELECT id FROM backfill_internal.job", &[])
    })?
    .rows;
    rows.iter().try_for_each(|row| seal(row.number(0)?))
}

/// Returns the error for a job that may not be run, planned or verified as its row stands.
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
