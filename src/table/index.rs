//! Reads a table's indexes from the catalogs, as candidates for the key of a walk.

use pgrx::pg_sys::Oid;

use crate::error::{Error, Result, sqlstate};
use crate::pg::elevate::as_extension;
use crate::pg::spi::{self, Arg, Row};
use crate::pg::{arg, name};
use crate::quote::{ident, literal};
use crate::scan::key::{self, Candidate, Column, TextForm};
use crate::scan::sql::Target;

/// Returns all indexes of the table. Within `spi::connect`.
pub fn candidates(table: Oid) -> Result<Vec<Candidate>> {
    let rows = as_extension(|| spi::kept(COLUMNS, &[Arg::Oid(table)]))?.rows;
    let mut found: Vec<Candidate> = Vec::new();
    for row in &rows {
        let oid = row.number(0)? as u32;
        if found.last().is_none_or(|c| c.oid != oid) {
            found.push(candidate(row)?);
        }
        if let (Some(last), Some(_)) = (found.last_mut(), row.get(9)) {
            last.columns.push(column(row)?);
        }
    }
    key::mark_those_with_a_key(&mut found);
    Ok(found)
}

/// Whether the key `low` does not come after `high` in the order of the index. Both are given column by column, in text form. As the
/// current user, within `spi::connect`.
pub fn in_order(index: &Candidate, low: &[String], high: &[String]) -> Result<bool> {
    let collations = as_extension(|| spi::query(COLLATIONS, &[Arg::Oid(index.oid.into())]))?.rows;
    let mut arguments = Vec::new();
    let mut side = |values: &'_ [String]| {
        let mut parts = Vec::new();
        for ((column, value), row) in index.columns.iter().zip(values).zip(&collations) {
            arguments.push((Oid::from(column.type_oid), value.clone()));
            let collate = row
                .get(0)
                .map_or(String::new(), |name| format!(" COLLATE {name}"));
            parts.push(format!("${}{collate}", arguments.len()));
        }
        format!("ROW({})", parts.join(", "))
    };
    let schema = index.columns[0].operator_schema.as_deref();
    let operator = format!("OPERATOR({}.<=)", ident(schema.unwrap_or("pg_catalog")));
    let query = format!("SELECT {} {operator} {}", side(low), side(high));
    let arguments: Vec<Arg> = arguments
        .iter()
        .map(|(of_type, value)| Arg::Typed(*of_type, value))
        .collect();
    let row = spi::in_subtransaction(|| spi::first(&query, &arguments))?;
    Ok(row.is_some_and(|row| row.bool(0)))
}

/// Returns a condition that compares the keys of the table's rows with this key, which is in text form.
pub fn condition(target: &Target, operator: &str, key: &[String]) -> Result<String> {
    let pairs = target.key.iter().zip(key);
    let value = |(column, text): (&Column, &String)| {
        let of_type = name::of_type(column.type_oid.into())?;
        if column.depends_on_settings() && !arg::is_read_alike(column.type_oid.into(), text)? {
            return Err(misread(&column.name, text));
        }
        Ok(format!("CAST({} AS {of_type})", literal(text)))
    };
    let values: Result<Vec<String>> = pairs.map(value).collect();
    Ok(target.compared(operator, &values?))
}

/// The error for a bound that would be another value under the settings of the job.
fn misread(column: &str, text: &str) -> Error {
    Error::new(
        sqlstate::NOT_IN_PREREQUISITE_STATE,
        format!("the bound {text} of key column \"{column}\" would be read as another value under the settings of the job"),
    )
    .hint("IntervalStyle, lc_monetary and array_nulls decide how such values are read: RESET them before define or start, and leave them out of the option \"settings\".")
}

fn candidate(row: &Row) -> Result<Candidate> {
    Ok(Candidate {
        oid: row.number(0)? as u32,
        name: row.text(1)?.to_owned(),
        primary: row.bool(2),
        unique: row.bool(3),
        contains_key: false,
        valid: row.bool(4),
        immediate: row.bool(5),
        partial: row.bool(6),
        expressions: row.bool(7),
        btree: row.bool(8),
        columns: Vec::new(),
    })
}

fn column(row: &Row) -> Result<Column> {
    let declared = Oid::from(row.number(10)? as u32);
    let base = name::base_type(declared);
    let collation = row.get(16).zip(row.get(17));
    Ok(Column {
        name: row.text(9)?.to_owned(),
        number: row.number(20)? as i16,
        type_oid: base.to_u32(),
        not_null: row.bool(11),
        descending: row.bool(12),
        nulls_first: row.bool(13),
        default_opclass: row.bool(14),
        operator_schema: row.get(15).map(str::to_owned),
        collation: collation.map(|(schema, name)| (schema.to_owned(), name.to_owned())),
        generated: row.bool(18),
        order: row.text(19)?.to_owned(),
        text: match row.get(21) {
            Some("names") => TextForm::Names,
            Some("rows") => TextForm::Rows,
            _ => TextForm::Lasting,
        },
    })
}

/// Query for the collations of an index's key columns.
const COLLATIONS: &str = "
SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.collname)
FROM pg_catalog.pg_index i
CROSS JOIN LATERAL pg_catalog.generate_series(0, i.indnkeyatts - 1) AS k(n)
LEFT JOIN pg_catalog.pg_collation c ON c.oid = i.indcollation[k.n]
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace
WHERE i.indexrelid = $1
ORDER BY k.n";

/// Query for one row per index and key column. 403 is btree; strategies 2, 3 and 5 are `<=`, `=` and `>`; option bits 1 and 2 are DESC
/// and NULLS FIRST. A collation is returned if it is not the column's own; the version in the order is the provider's current one, also
/// for the database's default. The OIDs are those of the types regproc, regprocedure, regoper, regoperator, regclass, regtype,
/// regconfig, regdictionary, regnamespace, regrole and regcollation, which are also looked for within arrays, domains, ranges and row
/// types.
const COLUMNS: &str = "
SELECT i.indexrelid::bigint, ic.relname, i.indisprimary, i.indisunique,
       i.indisvalid AND i.indisready AND i.indislive, i.indimmediate,
       i.indpred IS NOT NULL, i.indexprs IS NOT NULL, ic.relam = 403,
       a.attname, a.atttypid::bigint, a.attnotnull,
       (i.indoption[k.n] & 1) <> 0, (i.indoption[k.n] & 2) <> 0,
       EXISTS (SELECT FROM pg_catalog.pg_opclass d
               WHERE d.opcmethod = 403 AND d.opcfamily = oc.opcfamily AND d.opcdefault),
       (SELECT CASE WHEN pg_catalog.count(DISTINCT o.oprnamespace) = 1 THEN pg_catalog.min(n.nspname::text) END
        FROM pg_catalog.pg_amop m
        JOIN pg_catalog.pg_operator o ON o.oid = m.amopopr
        JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
        WHERE m.amopfamily = oc.opcfamily AND m.amoplefttype = oc.opcintype
          AND m.amoprighttype = oc.opcintype AND m.amopstrategy IN (2, 3, 5)),
       CASE WHEN i.indcollation[k.n] <> a.attcollation THEN cn.nspname END,
       CASE WHEN i.indcollation[k.n] <> a.attcollation THEN co.collname END,
       a.attgenerated <> '',
       pg_catalog.concat(fn.nspname, '.', f.opfname,
           -- Types of these two families are ordered alike.
           CASE WHEN f.opfname NOT IN ('integer_ops', 'text_ops') THEN
                ' of ' || pg_catalog.format_type(CASE WHEN it.typtype = 'p' THEN a.atttypid ELSE it.oid END, NULL) END,
           ', collation ' || pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname),
           ' ' ||
           CASE WHEN co.collprovider = 'd'
                THEN pg_catalog.pg_database_collation_actual_version(
                         (SELECT d.oid FROM pg_catalog.pg_database d
                          WHERE d.datname = pg_catalog.current_database()))
                ELSE pg_catalog.pg_collation_actual_version(co.oid) END), a.attnum,
       (WITH RECURSIVE within (oid) AS (
            SELECT a.atttypid
            UNION
            SELECT x.oid FROM within w JOIN pg_catalog.pg_type t ON t.oid = w.oid CROSS JOIN LATERAL (
                SELECT t.typelem UNION ALL SELECT t.typbasetype
                UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
                UNION ALL SELECT b.atttypid FROM pg_catalog.pg_attribute b
                          WHERE b.attrelid = t.typrelid AND t.typrelid <> 0 AND b.attnum > 0 AND NOT b.attisdropped
            ) AS x (oid) WHERE x.oid <> 0
        )
        SELECT CASE WHEN pg_catalog.bool_or(t.oid IN (24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191)) THEN 'names'
                    WHEN pg_catalog.bool_or(t.typtype = 'c') THEN 'rows' END
        FROM within w JOIN pg_catalog.pg_type t ON t.oid = w.oid)
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
CROSS JOIN LATERAL pg_catalog.generate_series(0, i.indnkeyatts - 1) AS k(n)
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k.n] AND i.indkey[k.n] <> 0
LEFT JOIN pg_catalog.pg_opclass oc ON oc.oid = i.indclass[k.n]
LEFT JOIN pg_catalog.pg_type it ON it.oid = oc.opcintype
LEFT JOIN pg_catalog.pg_opfamily f ON f.oid = oc.opcfamily
LEFT JOIN pg_catalog.pg_namespace fn ON fn.oid = f.opfnamespace
LEFT JOIN pg_catalog.pg_collation co ON co.oid = i.indcollation[k.n]
LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
WHERE i.indrelid = $1
ORDER BY i.indexrelid, k.n";
