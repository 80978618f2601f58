//! Finds, in the catalogs, what is easily forgotten about a table before its rows are changed.

use std::sync::LazyLock;

use pgrx::pg_sys::Oid;

use super::elevate::as_extension;
use super::spi::{self, Arg};
use super::{server, visible};
use crate::error::Result;

/// Something that one should know about before a backfill.
struct Trap {
    /// Name of the trap.
    item: &'static str,
    /// Query that finds it: returns one text, NULL if there is nothing. `$1`: the table, `$2`: the columns that are set, `$3`: whether
    /// triggers fire.
    sql: &'static str,
    /// Advice on what to do about the trap.
    advice: &'static str,
}

/// A trap that was found.
#[derive(Debug, Clone)]
pub struct Finding {
    /// Name of the trap.
    pub item: &'static str,
    /// Description of what was found.
    pub value: String,
    /// Advice on what to do about the trap.
    pub advice: &'static str,
}

/// Subquery for the numbers of the columns that are set.
const SET: &str = "(SELECT pg_catalog.array_agg(a.attnum) FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = $1 AND a.attname = ANY ($2) AND NOT a.attisdropped)";

/// Traps of the table.
const OF_TABLE: &[Trap] = &[
    Trap {
        item: "triggers",
        // Bits of tgtype: 16 is UPDATE, 2 BEFORE, 1 for each row. Triggers that name columns fire for these only.
        sql: "SELECT pg_catalog.string_agg(pg_catalog.concat(t.tgname, ' (', CASE WHEN t.tgtype & 2 > 0 THEN 'before' ELSE 'after' END,
                     CASE WHEN t.tgtype & 1 > 0 THEN ' each row, ' ELSE ' each batch, ' END, t.tgfoid::pg_catalog.regproc, ')'), ', ' ORDER BY t.tgname)
              FROM pg_catalog.pg_trigger t
              WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND t.tgtype & 16 > 0 AND $3
                AND t.tgenabled IN ('O', 'A') AND (t.tgattr::text = '' OR t.tgattr::pg_catalog.int2[] && {SET})",
        advice: "They fire for every row that is updated. What is not needed: option \"triggers\": \"skip\", or a condition on a setting.",
    },
    Trap {
        item: "time of the last change",
        sql: "SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND NOT a.attname = ANY ($2)
                AND a.atttypid IN ('pg_catalog.timestamptz'::pg_catalog.regtype, 'pg_catalog.timestamp'::pg_catalog.regtype)
                AND a.attname ~* '(updated|modified|changed)_?(at|on|time)?$'",
        advice: "It stays as it is, unless a trigger sets it. Decide whether readers (caches, exports) are to see these rows as changed.",
    },
    Trap {
        item: "unique indexes on columns that are set",
        sql: "SELECT pg_catalog.string_agg(i.indexrelid::pg_catalog.regclass::text, ', ' ORDER BY i.indexrelid::pg_catalog.regclass::text)
              FROM pg_catalog.pg_index i WHERE i.indrelid = $1 AND i.indisunique AND i.indkey::pg_catalog.int2[] && {SET}",
        advice: "Each commit has to be free of duplicates, DEFERRABLE or not: values that are shifted or swapped among rows take two steps, by way of values that no row has.",
    },
    Trap {
        item: "indexes on columns that are set",
        sql: "SELECT pg_catalog.string_agg(i.indexrelid::pg_catalog.regclass::text, ', ' ORDER BY i.indexrelid::pg_catalog.regclass::text)
              FROM pg_catalog.pg_index i WHERE i.indrelid = $1 AND NOT i.indisunique AND (i.indkey::pg_catalog.int2[] && {SET}
                 -- Columns that only its expressions or its predicate read.
                 OR EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = i.indexrelid
                              AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = $1 AND d.refobjsubid = ANY ({SET}::pg_catalog.int4[])))",
        advice: "No update can be heap-only: each gets an entry in every index, and the table grows. Create them after the backfill, if they can wait.",
    },
    Trap {
        item: "foreign keys of columns that are set",
        sql: "SELECT pg_catalog.string_agg(pg_catalog.quote_ident(c.conname), ', ' ORDER BY c.conname) FROM pg_catalog.pg_constraint c
              WHERE c.contype = 'f' AND c.conrelid = $1 AND c.conkey && {SET}",
        advice: "Each row is looked up in the other table, which takes time and locks its row there. A dry run does not: SELECT backfill.rehearse(...) finds rows without a partner.",
    },
    Trap {
        item: "foreign keys that refer to columns that are set",
        sql: "SELECT pg_catalog.string_agg(pg_catalog.concat(c.conrelid::pg_catalog.regclass, '.', pg_catalog.quote_ident(c.conname)), ', ' ORDER BY c.conrelid::pg_catalog.regclass::text)
              FROM pg_catalog.pg_constraint c WHERE c.contype = 'f' AND c.confrelid = $1 AND c.confkey && {SET}",
        advice: "Each row is looked for in those tables: they need an index on their side.",
    },
    Trap {
        item: "foreign keys that change other tables along",
        sql: "SELECT pg_catalog.string_agg(pg_catalog.concat(c.conrelid::pg_catalog.regclass, '.', pg_catalog.quote_ident(c.conname), ' (ON UPDATE ',
                         CASE c.confupdtype WHEN 'c' THEN 'CASCADE' WHEN 'n' THEN 'SET NULL' ELSE 'SET DEFAULT' END, ')'), ', ' ORDER BY c.conrelid::pg_catalog.regclass::text)
              FROM pg_catalog.pg_constraint c WHERE c.contype = 'f' AND c.confrelid = $1 AND c.confkey && {SET} AND c.confupdtype IN ('c', 'n', 'd') AND $3",
        advice: "Each row updates those that refer to it, within its batch: time, WAL and locks of theirs are in no estimate. They need an index on the referring columns.",
    },
    Trap {
        item: "logical replication",
        sql: "SELECT pg_catalog.string_agg(pg_catalog.quote_ident(p.pubname), ', ' ORDER BY p.pubname) FROM pg_catalog.pg_publication p
              WHERE p.pubupdate AND (p.puballtables OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = $1)
                 OR EXISTS (SELECT FROM pg_catalog.pg_publication_namespace n JOIN pg_catalog.pg_class c ON c.relnamespace = n.pnnspid
                            WHERE n.pnpubid = p.oid AND c.oid = $1))",
        advice: "Every row goes to each subscriber, one by one. max_lag_bytes waits for them; see that their slots have room.",
    },
    Trap {
        item: "REPLICA IDENTITY FULL",
        sql: "SELECT 'the whole old row goes to the WAL with each update' FROM pg_catalog.pg_class c WHERE c.oid = $1 AND c.relreplident = 'f'",
        advice: "Twice the WAL, and subscribers look for each row without an index. Use a key: ALTER TABLE ... REPLICA IDENTITY DEFAULT or USING INDEX.",
    },
    Trap {
        item: "row security",
        sql: "SELECT CASE WHEN c.relforcerowsecurity THEN 'forced on the owner, too' ELSE 'not for the owner of the table' END
              FROM pg_catalog.pg_class c WHERE c.oid = $1 AND c.relrowsecurity",
        advice: "A job never hides rows by a policy: it has to be defined by the table's owner, or by a role with BYPASSRLS.",
    },
    Trap {
        item: "new rows",
        sql: "SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = $1 AND a.attname = ANY ($2) AND NOT a.attisdropped AND NOT a.atthasdef AND a.attidentity = '' AND NOT a.attnotnull
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND t.tgtype & 6 = 6)",
        advice: "These have neither a default nor a trigger that could set them: see that the application writes them, or rows inserted meanwhile stay NULL.",
    },
    Trap {
        item: "constraints NOT VALID",
        sql: "SELECT pg_catalog.string_agg(pg_catalog.quote_ident(c.conname), ', ' ORDER BY c.conname) FROM pg_catalog.pg_constraint c
              WHERE c.conrelid = $1 AND NOT c.convalidated",
        advice: "They hold for each row that is updated: rows that have been wrong for long fail now. A dry run finds them.",
    },
    Trap {
        item: "generated columns",
        sql: "SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = $1 AND a.attgenerated = 's' AND NOT a.attisdropped AND EXISTS (
                  SELECT FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_depend p ON p.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND p.objid = d.oid
                  WHERE d.adrelid = $1 AND d.adnum = a.attnum AND p.refobjid = $1 AND p.refobjsubid = ANY ({SET}::pg_catalog.int4[]))",
        advice: "They are computed again for each row; indexes on them keep updates from being heap-only.",
    },
    Trap {
        item: "autovacuum",
        sql: "SELECT CASE WHEN c.reloptions::text ~* 'autovacuum_enabled=(false|off|0|no)' THEN 'off for the table' ELSE 'off for the server' END
              FROM pg_catalog.pg_class c WHERE c.oid = $1
                AND (c.reloptions::text ~* 'autovacuum_enabled=(false|off|0|no)' OR pg_catalog.current_setting('autovacuum') = 'off')",
        advice: "Dead rows stay until somebody vacuums: switch it on while the job runs.",
    },
    Trap {
        item: "children",
        sql: "SELECT pg_catalog.string_agg(i.inhrelid::pg_catalog.regclass::text, ', ' ORDER BY i.inhrelid::pg_catalog.regclass::text)
              FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhparent
              WHERE i.inhparent = $1 AND c.relkind = 'r'",
        advice: "Tables that inherit from this one are walked, too. With the option \"only\": true they are not.",
    },
    Trap {
        item: "wraparound",
        sql: "SELECT pg_catalog.concat('the oldest row is ', pg_catalog.age(c.relfrozenxid), ' transactions old') FROM pg_catalog.pg_class c
              WHERE c.oid = $1 AND c.relkind = 'r'
                AND pg_catalog.age(c.relfrozenxid) > 0.75 * pg_catalog.current_setting('autovacuum_freeze_max_age')::pg_catalog.int8",
        advice: "An aggressive VACUUM is near, and would run beside the job: VACUUM FREEZE first.",
    },
];

/// Traps of a table whose rows are deleted. `$2` is not used. Those of [`OF_TABLE`] that are named in [`OF_BOTH`] come after them.
const OF_DELETE: &[Trap] = &[
    Trap {
        item: "triggers",
        // Bits of tgtype: 8 is DELETE, 2 BEFORE, 1 for each row.
        sql: "SELECT pg_catalog.string_agg(pg_catalog.concat(t.tgname, ' (', CASE WHEN t.tgtype & 2 > 0 THEN 'before' ELSE 'after' END,
                     CASE WHEN t.tgtype & 1 > 0 THEN ' each row, ' ELSE ' each batch, ' END, t.tgfoid::pg_catalog.regproc, ')'), ', ' ORDER BY t.tgname)
              FROM pg_catalog.pg_trigger t
              WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND t.tgtype & 8 > 0 AND $3 AND t.tgenabled IN ('O', 'A')",
        advice: "They fire for every row that is deleted; one that fires before it may keep the row.",
    },
    Trap {
        item: "foreign keys without an index",
        sql: "SELECT pg_catalog.string_agg(pg_catalog.concat(c.conrelid::pg_catalog.regclass, '.', pg_catalog.quote_ident(c.conname)), ', ' ORDER BY c.conrelid::pg_catalog.regclass::text)
              FROM pg_catalog.pg_constraint c WHERE c.contype = 'f' AND c.confrelid = $1 AND $3
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i
                    WHERE i.indrelid = c.conrelid AND i.indisvalid AND i.indpred IS NULL
                      AND (SELECT pg_catalog.array_agg(i.indkey[n] ORDER BY i.indkey[n]) FROM pg_catalog.generate_series(0, pg_catalog.cardinality(c.conkey) - 1) n)
                          = (SELECT pg_catalog.array_agg(k ORDER BY k) FROM pg_catalog.unnest(c.conkey) k))",
        advice: "Each deleted row is looked for in that whole table, row by row. Build the index first: CREATE INDEX CONCURRENTLY on the referring columns.",
    },
    Trap {
        item: "foreign keys that refer to the table",
        sql: "SELECT pg_catalog.string_agg(pg_catalog.concat(c.conrelid::pg_catalog.regclass, '.', pg_catalog.quote_ident(c.conname)), ', ' ORDER BY c.conrelid::pg_catalog.regclass::text)
              FROM pg_catalog.pg_constraint c WHERE c.contype = 'f' AND c.confrelid = $1 AND c.confdeltype IN ('a', 'r') AND $3",
        advice: "A row that is referred to cannot be deleted: it fails the job, or is stepped over (option \"max_failed_rows\"). Delete the referring rows first.",
    },
    Trap {
        item: "foreign keys that change other tables along",
        sql: "SELECT pg_catalog.string_agg(pg_catalog.concat(c.conrelid::pg_catalog.regclass, '.', pg_catalog.quote_ident(c.conname), ' (ON DELETE ',
                         CASE c.confdeltype WHEN 'c' THEN 'CASCADE' WHEN 'n' THEN 'SET NULL' ELSE 'SET DEFAULT' END, ')'), ', ' ORDER BY c.conrelid::pg_catalog.regclass::text)
              FROM pg_catalog.pg_constraint c WHERE c.contype = 'f' AND c.confrelid = $1 AND c.confdeltype IN ('c', 'n', 'd') AND $3",
        advice: "Rows that refer to a deleted one are deleted or set along with it, within its batch: time, WAL and locks of theirs are in no estimate, and there is no bound on how many they are.",
    },
    Trap {
        item: "logical replication",
        sql: "SELECT pg_catalog.string_agg(pg_catalog.quote_ident(p.pubname), ', ' ORDER BY p.pubname) FROM pg_catalog.pg_publication p
              WHERE p.pubdelete AND (p.puballtables OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = $1)
                 OR EXISTS (SELECT FROM pg_catalog.pg_publication_namespace n JOIN pg_catalog.pg_class c ON c.relnamespace = n.pnnspid
                            WHERE n.pnpubid = p.oid AND c.oid = $1))",
        advice: "Every deleted row goes to each subscriber, one by one. max_lag_bytes waits for them; see that their slots have room.",
    },
];

/// Names of the traps of a table that matter whatever is done to its rows.
const OF_BOTH: &[&str] = &["row security", "autovacuum", "children", "wraparound"];

/// Traps of the server in its current state, as far as PostgreSQL's own views show it to the role `$1`. `{SEES a}` stands for whether
/// that role sees sessions of the role `a`.
const OF_SERVER: &[Trap] = &[
    Trap {
        item: "long transactions",
        sql: "SELECT NULLIF(pg_catalog.concat_ws(', ',
                         pg_catalog.string_agg(pg_catalog.concat('pid ', a.pid, ' since ', pg_catalog.to_char(a.xact_start, 'YYYY-MM-DD HH24:MI')),
                                               ', ' ORDER BY a.xact_start) FILTER (WHERE {SEES a.usesysid}),
                         CASE pg_catalog.count(*) FILTER (WHERE NOT {SEES a.usesysid})
                             WHEN 0 THEN NULL WHEN 1 THEN 'another transaction' ELSE 'other transactions' END), '')
              FROM pg_catalog.pg_stat_activity a
              WHERE a.xact_start < pg_catalog.clock_timestamp() - interval '5 minutes' AND a.backend_type = 'client backend'
                AND a.pid <> pg_catalog.pg_backend_pid()",
        advice: "While they are open, no dead row can be removed: waves rest, and the table grows. End them, or wait.",
    },
    Trap {
        item: "prepared transactions",
        sql: "SELECT pg_catalog.string_agg(p.gid, ', ' ORDER BY p.prepared) FROM pg_catalog.pg_prepared_xacts p",
        advice: "They hold back VACUUM until COMMIT PREPARED or ROLLBACK PREPARED.",
    },
    Trap {
        item: "slots that hold back VACUUM",
        sql: "SELECT pg_catalog.string_agg(s.slot_name, ', ' ORDER BY s.slot_name) FROM pg_catalog.pg_replication_slots s WHERE s.xmin IS NOT NULL AND NOT s.active",
        advice: "Nobody reads them: pg_drop_replication_slot, if they are left over.",
    },
    Trap {
        item: "replication lag",
        sql: "SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', l.name, CASE WHEN l.shown THEN pg_catalog.pg_size_pretty(l.bytes) END), ', ' ORDER BY l.bytes DESC) FROM (
                  SELECT COALESCE(NULLIF(r.application_name, ''), r.pid::text) AS name, {SEES NULL::pg_catalog.oid} AS shown,
                         pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), COALESCE(r.replay_lsn, r.flush_lsn)) AS bytes
                  FROM pg_catalog.pg_stat_replication r
                  UNION ALL
                  SELECT s.slot_name, true, pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), COALESCE(s.confirmed_flush_lsn, s.restart_lsn))
                  FROM pg_catalog.pg_replication_slots s WHERE NOT s.active AND NOT s.temporary) AS l
              WHERE l.bytes > 64 * 1024 * 1024 AND NOT pg_catalog.pg_is_in_recovery()",
        advice: "A job waits while one lags more than max_lag_bytes (256 MB by default).",
    },
    Trap {
        item: "preload",
        sql: "SELECT 'the library is not in shared_preload_libraries'
              WHERE pg_catalog.current_setting('shared_preload_libraries') !~ '(^|[, /])\"?backfill\"?($|[, .])'",
        advice: "After a restart or a crash nothing takes the job up by itself: SELECT backfill.resume(...), or preload it.",
    },
];

/// The statements of [`OF_TABLE`], [`OF_SERVER`] and [`OF_DELETE`], in the same order.
static QUESTIONS: LazyLock<[Vec<String>; 3]> = LazyLock::new(|| {
    let of = |traps: &[Trap], args| traps.iter().map(|trap| question(trap, args)).collect();
    [of(OF_TABLE, 3), of(OF_SERVER, 1), of(OF_DELETE, 3)]
});

/// Returns the traps of a table.
pub fn of_table(table: Oid, set_columns: &[String], triggers_fire: bool) -> Result<Vec<Finding>> {
    let args = [
        Arg::Oid(table),
        Arg::Texts(set_columns),
        Arg::Bool(triggers_fire),
    ];
    find(OF_TABLE, &QUESTIONS[0], &args)
}

/// Returns the traps of a table whose rows are deleted.
pub fn of_delete(table: Oid, triggers_fire: bool) -> Result<Vec<Finding>> {
    let none: &[String] = &[];
    let args = [Arg::Oid(table), Arg::Texts(none), Arg::Bool(triggers_fire)];
    let mut found = find(OF_DELETE, &QUESTIONS[2], &args)?;
    found.extend(of_any(table)?);
    Ok(found)
}

/// Returns the traps of a table that do not depend on what is done to its rows.
pub fn of_any(table: Oid) -> Result<Vec<Finding>> {
    let of_both = of_table(table, &[], true)?.into_iter();
    Ok(of_both
        .filter(|finding| OF_BOTH.contains(&finding.item))
        .collect())
}

/// Returns the traps of the server.
pub fn of_server() -> Result<Vec<Finding>> {
    let args = [Arg::Oid(server::current_user())];
    find(OF_SERVER, &QUESTIONS[1], &args)
}

fn find(traps: &[Trap], questions: &'static [String], args: &[Arg]) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for (trap, question) in traps.iter().zip(questions) {
        let row = as_extension(|| spi::for_people(|| spi::kept_first(question, args)))?;
        let value = row.as_ref().and_then(|row| row.get(0));
        found.extend(value.map(|value| Finding {
            item: trap.item,
            value: value.to_owned(),
            advice: trap.advice,
        }));
    }
    Ok(found)
}

/// Builds the statement that looks for the trap, with `args` arguments.
fn question(trap: &Trap, args: usize) -> String {
    let mut sql = trap.sql.replace("{SET}", SET);
    for role in ["a.usesysid", "NULL::pg_catalog.oid"] {
        sql = sql.replace(&format!("{{SEES {role}}}"), &visible::sessions("$1", role));
    }
    // Each statement gets all arguments, whether or not it uses them.
    let given: Vec<String> = (1..=args).map(|n| format!("${n} IS NOT NULL")).collect();
    let given = given.join(" AND ");
    format!("SELECT f.value FROM ({sql}) AS f (value) WHERE {given}")
}
