//! Roles, as far as workers have to connect as them. Within `spi::connect`.

use pgrx::pg_sys::Oid;

use super::bgworker::{CONNECTS_WITHOUT_LOGIN, Identity};
use super::elevate::as_extension;
use super::spi::{self, Arg};
use crate::error::{Error, Result, sqlstate};

/// As whom the worker is to connect.
///
/// The owner itself where it may log in, and always from PostgreSQL 17 on. Before that, an owner
/// without LOGIN is worked for in a session of the role that had logged in when the job was
/// defined; see `txn::act_as` for what keeps the owner's code from that role's rights.
pub fn identity(owner: Oid, login: Oid) -> Result<Identity> {
    if may_connect(owner)? {
        return Ok(Identity {
            login: owner,
            owner,
        });
    }
    if !CONNECTS_WITHOUT_LOGIN && login != owner && may_connect(login)? {
        return Ok(Identity { login, owner });
    }
    let Some(row) = role(owner)? else {
        return Err(Error::new(
            sqlstate::UNDEFINED_OBJECT,
            format!("the role with OID {owner}, which defined the backfill, no longer exists"),
        )
        .hint("Cancel it, and start it again as a role that exists."));
    };
    let name = row.text(0)?;
    Err(Error::new(
        sqlstate::INSUFFICIENT_PRIVILEGE,
        format!("role {name} cannot run backfills: it may not connect to this database"),
    )
    .hint(format!(
        "GRANT CONNECT ON DATABASE ... TO {name}, and ALTER ROLE {name} LOGIN; without a password, and with a reject line in pg_hba.conf, nobody can log in as it."
    )))
}

/// Whether a background worker can connect to this database as the role.
fn may_connect(oid: Oid) -> Result<bool> {
    let row = role(oid)?;
    Ok(row.is_some_and(|row| (CONNECTS_WITHOUT_LOGIN || row.bool(1)) && row.bool(2)))
}

fn role(oid: Oid) -> Result<Option<spi::Row>> {
    as_extension(|| {
        spi::first(
            "SELECT pg_catalog.quote_ident(rolname), rolcanlogin,
                    pg_catalog.has_database_privilege(oid, pg_catalog.current_database(), 'CONNECT')
             FROM pg_catalog.pg_roles WHERE oid = $1",
            &[Arg::Oid(oid)],
        )
    })
}
