//! Search paths that names are looked up on. Pure text processing.
//!
//! If a path does not name `pg_temp`, PostgreSQL searches that schema first for relations and types. Any code that ran in the session
//! may have created objects in it, and a temporary table hides a permanent one of the same name. So `pg_temp` comes last wherever
//! users' text is examined, or runs in a worker.

use std::ffi::CStr;

/// The setting on which nothing is looked up in a schema that others may write to.
pub const PINNED: (&CStr, &CStr) = (c"search_path", c"pg_catalog, pg_temp");

/// Name of the schema of a session's temporary tables in a path.
const TEMPORARY: &str = "pg_temp";

/// Returns the path with the schema of temporary tables last. A path that can't be parsed is returned unchanged: PostgreSQL refuses it.
pub fn with_temporary_last(path: &str) -> String {
    let Some(mut schemas) = split(path) else {
        return path.to_owned();
    };
    schemas.retain(|schema| !is_temporary(schema));
    if schemas.is_empty() {
        // If pg_temp were the only schema, new tables would be created there.
        schemas.push("pg_catalog");
    }
    schemas.push(TEMPORARY);
    schemas.join(", ")
}

fn is_temporary(schema: &str) -> bool {
    schema.eq_ignore_ascii_case(TEMPORARY) || schema == "\"pg_temp\""
}

/// Splits a path into its schemas as they are written, in the way PostgreSQL does.
fn split(path: &str) -> Option<Vec<&str>> {
    let mut schemas = Vec::new();
    let mut rest = path.trim_start();
    if rest.is_empty() {
        return Some(schemas);
    }
    loop {
        let end = match rest.strip_prefix('"') {
            Some(quoted) => 1 + end_of_quoted(quoted)?,
            None => rest
                .find(|c: char| c == ',' || is_space(c))
                .unwrap_or(rest.len()),
        };
        let (schema, after) = rest.split_at(end);
        if schema.is_empty() {
            return None;
        }
        schemas.push(schema);
        let after = after.trim_start_matches(is_space);
        match after.strip_prefix(',') {
            Some(more) => rest = more.trim_start_matches(is_space),
            None if after.is_empty() => return Some(schemas),
            None => return None,
        }
    }
}

/// Returns the offset after the closing quote of a quoted identifier, whose opening quote is before `text`.
fn end_of_quoted(text: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        at += text[at..].find('"')? + 1;
        match text[at..].starts_with('"') {
            true => at += 1,
            false => return Some(at),
        }
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}' | '\u{b}')
}

#[cfg(test)]
mod tests {
    use super::with_temporary_last;

    #[test]
    fn temporary_tables_come_last() {
        for (path, last) in [
            ("public", "public, pg_temp"),
            ("\"$user\", public", "\"$user\", public, pg_temp"),
            ("", "pg_catalog, pg_temp"),
            (" ", "pg_catalog, pg_temp"),
            ("pg_temp", "pg_catalog, pg_temp"),
            ("pg_temp, a", "a, pg_temp"),
            ("a,PG_Temp ,\"pg_temp\",b", "a, b, pg_temp"),
            ("pg_catalog, pg_temp", "pg_catalog, pg_temp"),
            (
                "\"a, pg_temp\", \"b\"\"c\"",
                "\"a, pg_temp\", \"b\"\"c\", pg_temp",
            ),
            ("\"PG_TEMP\"", "\"PG_TEMP\", pg_temp"),
            ("\"\"", "\"\", pg_temp"),
        ] {
            assert_eq!(with_temporary_last(path), last, "{path}");
        }
    }

    #[test]
    fn what_is_no_path_stays() {
        for path in ["a b", "\"a", "a,", ",a"] {
            assert_eq!(with_temporary_last(path), path);
        }
    }
}
