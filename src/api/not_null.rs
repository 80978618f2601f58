//! The steps of `backfill.set_not_null` on another role's table: ALTER TABLE evaluates constant expressions in the
//! table's CHECK constraints, which its owner wrote. So the steps run in a process of the owner's.

use std::time::Duration;

use pgrx::pg_sys::Oid;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, sqlstate};
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg};
use crate::pg::{confine, relation, server, settings};
use crate::stranger::errand::{Errand, carry_out};

/// One of the statements that set a column NOT NULL.
#[derive(Serialize, Deserialize)]
pub struct Step {
    relation: u32,
    column: String,
    statement: String,
    lock_timeout_ms: i32,
    owner: u32,
}

/// Runs one of the statements that `backfill.set_not_null_statements` returns for the column, or one that undoes them,
/// as the table's owner, in a transaction of its own. The caller needs the owner's rights.
pub fn step(relation: Oid, column: &str, statement: &str, lock_timeout_ms: i32) -> Result<()> {
    let owner = as_extension(|| {
        let sql = "SELECT c.relowner::bigint FROM pg_catalog.pg_class c WHERE c.oid = $1";
        spi::first(sql, &[Arg::Oid(relation)])
    })?;
    let owner = owner.map_or(Ok(0), |row| row.number(0))? as u32;
    if owner == 0 || !server::may_act_for(Oid::from(owner)) {
        return Err(Error::new(
            sqlstate::INSUFFICIENT_PRIVILEGE,
            "permission denied to alter a table of another role's",
        )
        .hint("It takes the rights of the table's owner."));
    }
    refuse_others_below(relation, Oid::from(owner))?;
    let step = Step {
        relation: relation.to_u32(),
        column: column.to_owned(),
        statement: statement.to_owned(),
        lock_timeout_ms,
        owner,
    };
    let me = server::current_user();
    if Oid::from(owner) == me && server::session_user() == me && !server::in_security_definer() {
        return confine::own_script(me, || step.run());
    }
    carry_out(step)
}

/// Refuses a table of which a part belongs to another role than the whole: ALTER TABLE would run that role's code as
/// the owner of the whole.
fn refuse_others_below(relation: Oid, owner: Oid) -> Result<()> {
    let row = as_extension(|| {
        spi::first(
            "WITH RECURSIVE tree AS (
                 SELECT $1::pg_catalog.oid AS oid
                 UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree t ON i.inhparent = t.oid
             )
             SELECT c.oid::pg_catalog.regclass::text, pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(c.relowner)),
                    pg_catalog.quote_ident(pg_catalog.pg_get_userbyid($2))
             FROM tree t JOIN pg_catalog.pg_class c ON c.oid = t.oid WHERE c.relowner <> $2 LIMIT 1",
            &[Arg::Oid(relation), Arg::Oid(owner)],
        )
    })?;
    let Some(row) = row else { return Ok(()) };
    let (part, its, whole) = (row.text(0)?, row.text(1)?, row.text(2)?);
    Err(Error::new(
        sqlstate::INSUFFICIENT_PRIVILEGE,
        format!("table {part} belongs to role {its}, and the whole to role {whole}: what the one wrote would run as the other"),
    )
    .hint(format!("ALTER TABLE {part} OWNER TO {whole};")))
}

/// Condition that `$3` is one of the remaining statements for the column `$2` of the table `$1`, or undoes one of them
/// by dropping a constraint that is not validated.
const KNOWN: &str = "
SELECT EXISTS (SELECT FROM backfill.set_not_null_statements($1, $2::pg_catalog.name) s WHERE $3 IN (s.statement, s.undo))
       OR EXISTS (SELECT FROM pg_catalog.pg_constraint k
                  JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                  WHERE k.conrelid = $1 AND NOT k.convalidated
                    AND $3 = pg_catalog.format('ALTER TABLE %I.%I DROP CONSTRAINT %I', n.nspname, c.relname, k.conname))";

impl Errand for Step {
    const NAME: &'static str = "set_not_null";
    /// Validating a constraint reads the whole table.
    const LIMIT: Option<Duration> = None;
    const ALWAYS_SENT: bool = true;
    const KEPT: bool = true;
    type Answer = ();

    fn owner(&self) -> Oid {
        Oid::from(self.owner)
    }

    fn run(self) -> Result<()> {
        settings::set_text_for_transaction(c"lock_timeout", &self.lock_timeout_ms.to_string());
        // From here on the table's name means this table: nobody can drop or rename it, or move it to another schema,
        // under this lock, which is one of those that the statement takes.
        let table = Oid::from(self.relation);
        relation::lock_for_alter(table);
        if relation::describe(table)?.is_none() {
            return Err(
                Error::new(sqlstate::UNDEFINED_TABLE, "the table was dropped meanwhile")
                    .hint("There is nothing to be done."),
            );
        }
        refuse_others_below(table, Oid::from(self.owner))?;
        let args = [
            Arg::Oid(Oid::from(self.relation)),
            Arg::Text(&self.column),
            Arg::Text(&self.statement),
        ];
        if !spi::fixed_first(KNOWN, &args)?.is_some_and(|row| row.bool(0)) {
            return Err(Error::new(
                sqlstate::NOT_IN_PREREQUISITE_STATE,
                "another statement is the next step by now",
            )
            .hint("Somebody else alters the table: call it again when they are through."));
        }
        settings::set_text_for_transaction(c"search_path", "pg_catalog, pg_temp");
        spi::run_for_effect(&self.statement)
    }
}
