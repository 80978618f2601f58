//! VACUUM and ANALYZE after the last batch: waves leave no page all-visible, and a new column has no statistics yet. A
//! failure here never fails the job: notes say what was not done, with the statement that does it by hand.

use pgrx::pg_sys::Oid;

use crate::error::{Error, Result};
use crate::model::names;
use crate::pg::maintenance::{self, WHO_MAY};
use crate::pg::relation::{self, Relation};
use crate::pg::txn::{self, Durability};
use crate::pg::{name, report, server};

/// A command that was not done on a table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Undone {
    verb: &'static str,
    table: String,
    why: String,
}

/// Commands that were not done for the same reason, and share one note.
#[derive(Debug)]
struct Group {
    verb: &'static str,
    tables: Vec<String>,
    why: String,
}

/// Runs VACUUM on each of the `relations` walked, then ANALYZE on each, and on `root` if that is partitioned. Outside
/// of any transaction, with the session's own identity in force.
///
/// Calls `between` with the next phase, such as `vacuum public.orders`; if it returns false, nothing more is done.
/// Returns a line for each thing that was skipped or failed; the job ends all the same.
pub fn run(
    root: Oid,
    relations: &[Oid],
    vacuum: bool,
    analyze: bool,
    mut between: impl FnMut(&str) -> bool,
) -> Vec<String> {
    let mut undone = Vec::new();
    let top = described(root).ok().flatten();
    let partitioned = top.filter(|top| top.kind == 'p').map(|top| top.shown);
    let to_analyze = relations.iter().chain(partitioned.iter().map(|_| &root));
    let steps = relations
        .iter()
        .filter(|_| vacuum)
        .map(|relation| ("VACUUM", *relation))
        .chain(to_analyze.filter(|_| analyze).map(|r| ("ANALYZE", *r)));
    let mut stopped = false;
    let mut next = |phase: &str| {
        stopped = stopped || !between(phase);
        !stopped
    };
    for (verb, relation) in steps {
        undone.extend(step(verb, relation, &mut next));
    }
    notes(undone, partitioned.as_deref())
}

/// Returns a reason without the error's message, which may contain row data: everyone who may see the job can read the
/// notes.
fn failed(error: &Error) -> String {
    report::log(&format!("backfill: {error}"));
    format!(
        "failed with SQLSTATE {}, see the server log",
        error.sqlstate
    )
}

/// Runs one command; returns it if it was not done.
fn step(verb: &'static str, relation: Oid, next: &mut impl FnMut(&str) -> bool) -> Option<Undone> {
    let undone = |table: String, why: String| Some(Undone { verb, table, why });
    let (table, refused) = match permitted(relation) {
        Ok(found) => found?,
        Err(error) => {
            let table = format!("the table with OID {relation}");
            return undone(table, failed(&error));
        }
    };
    if !next(&format!("{} {table}", verb.to_ascii_lowercase())) {
        return undone(table, "skipped: the job was told to stop".to_owned());
    }
    if let Some(why) = refused {
        return undone(table, why);
    }
    let done = match verb {
        "VACUUM" => maintenance::vacuum(relation),
        _ => maintenance::analyze(relation),
    };
    report::idle();
    let error = done.err()?;
    undone(table, failed(&error))
}

/// Returns the table's name, and why the session's user may not maintain it, if that is so. `None`: the table is gone.
fn permitted(relation: Oid) -> Result<Option<(String, Option<String>)>> {
    txn::run(Durability::Deferred, || {
        let Some(found) = relation::describe(relation)? else {
            return Ok(None);
        };
        let refused = if maintenance::may_maintain(relation)? {
            None
        } else {
            let role = name::of_role(server::current_user());
            Some(format!("skipped: role {role} may not ({WHO_MAY})"))
        };
        Ok(Some((found.shown, refused)))
    })
}

fn described(relation: Oid) -> Result<Option<Relation>> {
    txn::run(Durability::Deferred, || relation::describe(relation))
}

/// Returns a line for each reason, covering all tables that share it. `root` is the partitioned table above them, if
/// there is one.
fn notes(undone: Vec<Undone>, root: Option<&str>) -> Vec<String> {
    let mut groups: Vec<Group> = Vec::new();
    for what in undone {
        let same = |group: &&mut Group| group.verb == what.verb && group.why == what.why;
        match groups.iter_mut().find(same) {
            Some(group) => group.tables.push(what.table),
            None => groups.push(Group {
                verb: what.verb,
                tables: vec![what.table],
                why: what.why,
            }),
        }
    }
    let mut lines = Vec::new();
    while !groups.is_empty() {
        let first = groups.remove(0);
        let twin = groups.iter().position(|other| twins(&first, other, root));
        let both = twin.map(|at| groups.remove(at));
        lines.push(line(&first, both.as_ref(), root));
    }
    lines
}

/// True if one is about VACUUM and the other about ANALYZE of the same tables, ignoring the root, which is only
/// analysed.
fn twins(one: &Group, other: &Group, root: Option<&str>) -> bool {
    let tables = |group: &Group| -> Vec<String> {
        let without_root = |table: &&String| Some(table.as_str()) != root;
        group.tables.iter().filter(without_root).cloned().collect()
    };
    one.verb != other.verb && one.why == other.why && tables(one) == tables(other)
}

fn line(group: &Group, twin: Option<&Group>, root: Option<&str>) -> String {
    let (what, command, were) = match twin {
        Some(_) => ("VACUUM and ANALYZE", "VACUUM (ANALYZE)", "were"),
        None => (group.verb, group.verb, "was"),
    };
    let (many, tables) = (names::are_many(&group.tables), names::listed(&group.tables));
    let has_root = |group: &Group| {
        group
            .tables
            .iter()
            .any(|table| Some(table.as_str()) == root)
    };
    let target = match root {
        // A command on a partitioned table also covers its partitions.
        Some(root) if many || has_root(group) || twin.is_some_and(has_root) => root.to_owned(),
        _ => group.tables.join(", "),
    };
    let why = if group.why.starts_with("failed") {
        group.why.clone()
    } else {
        format!("{were} {}", group.why)
    };
    format!("{what} of {tables} {why}. Run: {command} {target}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAY_NOT: &str = "skipped: role app may not (owner needed)";

    fn undone(verb: &'static str, table: &str, why: &str) -> Undone {
        let (table, why) = (table.to_owned(), why.to_owned());
        Undone { verb, table, why }
    }

    #[test]
    fn one_table_has_one_line() {
        let vacuum = undone("VACUUM", "public.t", MAY_NOT);
        let analyze = undone("ANALYZE", "public.t", MAY_NOT);
        assert_eq!(
            notes(vec![vacuum.clone()], None),
            [
                "VACUUM of public.t was skipped: role app may not (owner needed). Run: VACUUM public.t"
            ]
        );
        assert_eq!(
            notes(vec![vacuum, analyze], None),
            [
                "VACUUM and ANALYZE of public.t were skipped: role app may not (owner needed). Run: VACUUM (ANALYZE) public.t"
            ]
        );
    }

    #[test]
    fn many_partitions_have_one_line() {
        let mut all = Vec::new();
        for verb in ["VACUUM", "ANALYZE"] {
            all.extend((1..=24).map(|i| undone(verb, &format!("public.t_{i}"), MAY_NOT)));
        }
        all.push(undone("ANALYZE", "public.t", MAY_NOT));
        assert_eq!(
            notes(all, Some("public.t")),
            [
                "VACUUM and ANALYZE of 24 tables (public.t_1, public.t_2, public.t_3, ...) were skipped: role app may not (owner needed). Run: VACUUM (ANALYZE) public.t"
            ]
        );
    }

    #[test]
    fn what_differs_has_lines_of_its_own() {
        let all = vec![
            undone(
                "VACUUM",
                "public.a",
                "failed: canceling statement due to user request",
            ),
            undone("VACUUM", "public.b", MAY_NOT),
            undone("ANALYZE", "public.b", MAY_NOT),
        ];
        assert_eq!(
            notes(all, Some("public.t")),
            [
                "VACUUM of public.a failed: canceling statement due to user request. Run: VACUUM public.a",
                "VACUUM and ANALYZE of public.b were skipped: role app may not (owner needed). Run: VACUUM (ANALYZE) public.b"
            ]
        );
    }
}
