//! The functions that something of a superuser's names, in a process where only trusted functions are called.
//!
//! These are named by the clauses of the job and the statements of superusers' functions, as they are before PostgreSQL puts views,
//! defaults or anything else that somebody wrote into them; by defaults, CHECK constraints and rules of tables and views that a
//! superuser owns; and by what PostgreSQL stores of a superuser's function as expressions.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::{CStr, c_char, c_void};

use pgrx::pg_sys::{self, Datum, Oid};

use crate::pg::open::Open;

thread_local! {
    static NAMED: RefCell<HashSet<u32>> = RefCell::default();
}

/// Fields of PostgreSQL's nodes that hold a function end so: funcid, opfuncid, hashfuncid; aggfnoid, winfnoid.
const FUNCTIONS: [&str; 2] = ["funcid", "fnoid"];
/// The field of an entry of a range table that holds its relation.
const RELATION: &str = "relid";

/// Whether something of a superuser's names the function.
pub(super) fn contains(function: Oid) -> bool {
    NAMED.with_borrow(|named| named.contains(&function.to_u32()))
}

/// Forgets all of them.
pub(super) fn forget() {
    NAMED.take();
}

/// Adds what a statement names.
///
/// # Safety
/// `query` must be whole, and not rewritten yet.
pub(super) unsafe fn by_statement(query: *const pg_sys::Query) {
    // SAFETY: as the caller promises.
    unsafe { add_node(query.cast()) };
}

/// Adds what superusers have written into the relations of a query, whichever of its subqueries they are in: a view keeps its OID where
/// its text has been put into the query.
///
/// # Safety
/// `query` must be whole.
pub(super) unsafe fn by_relations_of(query: *const pg_sys::Query) {
    let found = |text: &str| numbers(text, &[RELATION]).collect::<HashSet<u32>>();
    // SAFETY: as the caller promises.
    unsafe { as_text(query.cast(), found) }
        .into_iter()
        .filter(|relation| *relation >= pg_sys::FirstNormalObjectId)
        .for_each(|relation| by_relation(relation.into()));
}

/// Adds what the defaults, the CHECK constraints and the rules of a table or a view name, if a superuser owns it: nobody else can
/// have written them.
fn by_relation(relation: Oid) {
    let Some(open) = Open::shared(relation) else {
        return;
    };
    // SAFETY: the relation is open while its structures are read. Its constraints and rules are null, or as many as are counted; their
    // expressions are null or end with a zero, or are nodes.
    unsafe {
        let relation = open.as_ptr();
        let constraints = (*(*relation).rd_att).constr;
        if !pg_sys::superuser_arg((*(*relation).rd_rel).relowner) {
            return;
        }
        let rules = (*relation).rd_rules;
        if !rules.is_null() {
            for number in 0..(*rules).numLocks as usize {
                let rule = *(*rules).rules.add(number);
                add_node((*rule).qual.cast());
                add_node((*rule).actions.cast());
            }
        }
        if constraints.is_null() {
            return;
        }
        for number in 0..usize::from((*constraints).num_defval) {
            add((*(*constraints).defval.add(number)).adbin);
        }
        for number in 0..usize::from((*constraints).num_check) {
            add((*(*constraints).check.add(number)).ccbin);
        }
    }
}

/// Adds what PostgreSQL stores of a superuser's function as expressions: the defaults of its parameters, and its body where that
/// is `BEGIN ATOMIC`.
pub(super) fn by_function(function: Oid) {
    let (cache, columns) = (
        pg_sys::SysCacheIdentifier::PROCOID as i32,
        [
            pg_sys::Anum_pg_proc_proargdefaults,
            pg_sys::Anum_pg_proc_prosqlbody,
        ],
    );
    // SAFETY: within a transaction. The entry stays while it is held; both columns are of type pg_node_tree, which is stored as
    // text is. Where an error leaves this, the abort lets the entry go.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(cache, Datum::from(function));
        if tuple.is_null() {
            return;
        }
        for column in columns {
            let mut null = false;
            let value = pg_sys::SysCacheGetAttr(cache, tuple, column as i16, &mut null);
            if !null {
                let text = pg_sys::text_to_cstring(value.cast_mut_ptr());
                add(text);
                pg_sys::pfree(text.cast());
            }
        }
        pg_sys::ReleaseSysCache(tuple);
    }
}

/// Adds the functions in a node in text form.
///
/// # Safety
/// `text` must be null or end with a zero.
unsafe fn add(text: *const c_char) {
    if !text.is_null() {
        // SAFETY: as the caller promises.
        add_text(&unsafe { CStr::from_ptr(text) }.to_string_lossy());
    }
}

/// Adds the functions in a node.
///
/// # Safety
/// `node` must be null or a node of PostgreSQL's, or a list of nodes.
unsafe fn add_node(node: *const c_void) {
    if !node.is_null() {
        // SAFETY: as the caller promises.
        unsafe { as_text(node, add_text) };
    }
}

fn add_text(text: &str) {
    NAMED.with_borrow_mut(|named| named.extend(numbers(text, &FUNCTIONS)));
}

/// Shows a node in text form to `f`.
///
/// # Safety
/// `node` must be a node of PostgreSQL's, or a list of nodes.
unsafe fn as_text<T>(node: *const c_void, f: impl FnOnce(&str) -> T) -> T {
    // SAFETY: as the caller promises; the node is only read. Its text ends with a zero, is a new one, and is freed.
    unsafe {
        let text = pg_sys::nodeToString(node);
        let shown = f(&CStr::from_ptr(text).to_string_lossy());
        pg_sys::pfree(text.cast());
        shown
    }
}

/// Returns the numbers in fields of a node in text form, where constants are printed as bytes. `ends`: what the names of the fields end
/// with.
fn numbers(text: &str, ends: &[&str]) -> impl Iterator<Item = u32> {
    let words = text.split_ascii_whitespace();
    let next = words.clone().skip(1);
    words.zip(next).filter_map(|(field, value)| {
        let wanted = field.starts_with(':') && ends.iter().any(|end| field.ends_with(end));
        wanted.then(|| value.trim_end_matches(['}', ')']).parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::{FUNCTIONS, RELATION, numbers};

    #[test]
    fn functions_are_found_wherever_a_node_names_one() {
        let text = "{FUNCEXPR :funcid 2078 :args ({OPEXPR :opno 96 :opfuncid 65 :hashfuncid 0}) :x {AGGREF :aggfnoid 2147} :y {W :winfnoid 3100}}";
        let found: Vec<u32> = numbers(text, &FUNCTIONS).collect();
        assert_eq!(found, [2078, 65, 0, 2147, 3100]);
    }

    #[test]
    fn other_fields_are_none() {
        let text = "{CONST :consttype 25 :constvalue 9 [ 36 0 0 0 102 ] :funcresulttype 23}";
        assert_eq!(numbers(text, &FUNCTIONS).count(), 0);
    }

    #[test]
    fn relations_are_found_in_subqueries() {
        let text = "{QUERY :rtable ({RTE :rtekind 1 :subquery {QUERY :rtable ({RTE :relid 16400 :relkind v})}}) :x {P :relid 16401}}";
        let found: Vec<u32> = numbers(text, &[RELATION]).collect();
        assert_eq!(found, [16400, 16401]);
    }
}
