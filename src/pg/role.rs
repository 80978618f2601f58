//! Determines the roles that workers connect as. Within `spi::connect`.

use pgrx::pg_sys::{self, Oid};

use super::bgworker::{CONNECTS_WITHOUT_LOGIN, Start};
use super::elevate::as_extension;
use super::server;
use super::spi::{self, Arg};
use crate::error::{Error, Result, sqlstate};

/// Returns the role that a worker for this owner's jobs has to connect as: the owner itself if it may log in, and always from
/// PostgreSQL 17 on. Before that, for an owner without LOGIN, the server itself opens the session and gives it to the owner at once:
/// this is [`Oid::INVALID`], see `pg::owner_session`. Refuses an owner that may not connect to the database or is gone.
pub fn login_of(owner: Oid) -> Result<Oid> {
    let Some(row) = role(owner)? else {
        return Err(Error::new(
            sqlstate::UNDEFINED_OBJECT,
            format!("the role with OID {owner}, which defined the backfill, no longer exists"),
        )
        .hint("Its committed batches stay. For the rest start another job as a role that exists, with a where_clause that leaves out the rows that are done."));
    };
    let (name, may_log_in, may_connect) = (row.text(0)?, row.bool(1), row.bool(2));
    if !may_connect {
        return Err(Error::new(
            sqlstate::INSUFFICIENT_PRIVILEGE,
            format!("role {name} cannot run backfills: it may not connect to this database"),
        )
        .hint(format!(
            "GRANT CONNECT ON DATABASE {} TO {name};",
            row.text(3)?
        )));
    }
    Ok(if may_log_in || CONNECTS_WITHOUT_LOGIN {
        owner
    } else {
        Oid::INVALID
    })
}

/// Returns where a worker for this owner's jobs has to start, and as which role.
pub fn start_for(owner: Oid) -> Result<Start> {
    Ok(Start {
        database: server::database(),
        login: login_of(owner)?,
        owner,
    })
}

/// Returns the role that the processes of workers with this login belong to.
pub fn process_role(login: Oid) -> Oid {
    if login == Oid::INVALID {
        Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID)
    } else {
        login
    }
}

/// Gives the session to the role. Within a transaction, in a session opened by the server itself.
pub fn give_session_to(role: Oid) {
    server::require_transaction();
    // SAFETY: within a transaction. The role need not exist: in that case it is no superuser, and has no rights.
    unsafe { pg_sys::SetSessionAuthorization(role, pg_sys::superuser_arg(role)) };
}

fn role(oid: Oid) -> Result<Option<spi::Row>> {
    const ROLE: &str = "
        SELECT pg_catalog.quote_ident(rolname), rolcanlogin,
               pg_catalog.has_database_privilege(oid, pg_catalog.current_database(), 'CONNECT'),
               pg_catalog.quote_ident(pg_catalog.current_database())
        FROM pg_catalog.pg_roles WHERE oid = $1";
    as_extension(|| spi::for_people(|| spi::first(ROLE, &[Arg::Oid(oid)])))
}
