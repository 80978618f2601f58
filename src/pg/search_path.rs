//! Paths that names are looked up on. Pure text.
//!
//! A path that does not name `pg_temp` is searched there first, for relations and types. What is in it anybody may have made
//! whose code ran in the session: a temporary table under the name of another one takes its place. So wherever text of users' is
//! looked at, or runs in a worker, it comes last.

/// The schema of a session's temporary tables, as a path names it.
const TEMPORARY: &str = "pg_temp";

/// The same path, with the schema of temporary tables last. One that can't be read stays as it is: PostgreSQL refuses it.
pub fn with_temporary_last(path: &str) -> String {
    let Some(mut schemas) = split(path) else {
        return path.to_owned();
    };
    schemas.retain(|schema| !is_temporary(schema));
    if schemas.is_empty() {
        // By itself it would be where new tables come.
        schemas.push("pg_catalog");
    }
    schemas.push(TEMPORARY);
    schemas.join(", ")
}

fn is_temporary(schema: &str) -> bool {
    schema.eq_ignore_ascii_case(TEMPORARY) || schema == "\"pg_temp\""
}

/// The schemas of a path as they are written, as PostgreSQL would split it.
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

/// Where the quotes end that have begun: behind them.
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
