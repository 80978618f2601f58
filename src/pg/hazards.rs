//! Finds, in an analysed UPDATE, whatever would give another result in batches than in one statement.

use std::ffi::{CStr, c_void};

use pgrx::pg_sys::{self, Node, NodeTag, Oid, Query, RangeTblEntry};

use super::clauses::{self, analysed};
use super::elevate::as_extension;
use super::list;
use super::relation::Relation;
use super::spi::{self, Arg};
use super::text::{lossy, lossy_whole, to_server};
use crate::error::Result;

/// Name that stands for the row in [`Shift::expression`].
pub const SHIFTED: &str = "backfill shifted";

/// The hazards found in an UPDATE.
#[derive(Debug, Default)]
pub struct Hazards {
    /// Columns that the UPDATE sets, and that one of its subqueries reads in rows of the same table.
    pub read_back: Vec<String>,
    /// Whether a value that is set comes from a sequence.
    pub draws: bool,
    /// Whether the WHERE clause has a subquery, which may be joined to the table in any order.
    pub joins: bool,
    /// Columns that are shifted by a distance: `p = p + 1`.
    pub shifts: Vec<Shift>,
}

/// A column that is set to its own value plus or minus a distance.
#[derive(Debug, Clone)]
pub struct Shift {
    /// Name of the column.
    pub column: String,
    /// Name of the column as SQL, for messages.
    pub quoted: String,
    /// New value, as an expression over a row named [`SHIFTED`].
    pub expression: String,
    /// New value, as an expression over an unnamed row, for messages.
    pub shown: String,
    /// Whether the values of the column are numbers.
    pub is_number: bool,
}

/// Examines the UPDATE or DELETE of all rows of a relation. As the current user, within [`spi::connect`]; nothing is run or planned.
pub fn of(relation: &Relation, statement: &str) -> Result<Hazards> {
    let names = (to_server(SHIFTED)?, to_server(&relation.name)?);
    let (mut found, mut texts, mut reads) = (Hazards::default(), Ok(()), Vec::new());
    analysed(statement, |it| {
        for query in it.queries() {
            let deletes = query.commandType == pg_sys::CmdType::CMD_DELETE;
            let set = match deletes {
                true => columns(relation),
                false => targets(query),
            };
            reads.extend(reads_of_what_is_set(query, &set));
            found.draws |= draws(query);
            found.joins |= asks_subqueries(query);
            for target in set.iter().filter(|_| !deletes) {
                // SAFETY: the query is whole, its target is the relation, and the names live in this function.
                match unsafe { shift(query, target, relation.oid, (&names.0, &names.1)) } {
                    Ok(shift) => found.shifts.extend(shift),
                    Err(error) => texts = Err(error),
                }
            }
        }
    })?;
    texts?;
    let mine = with_descendants(relation.oid)?;
    for read in reads {
        let from = match read.with_descendants {
            true => with_descendants(read.relation)?,
            false => vec![read.relation],
        };
        if from.iter().any(|oid| mine.contains(oid)) {
            found.read_back.extend(read.columns);
        }
    }
    found.read_back.sort();
    found.read_back.dedup();
    Ok(found)
}

/// Returns the relation, its partitions, and all tables that inherit from it.
fn with_descendants(relation: Oid) -> Result<Vec<Oid>> {
    let rows = as_extension(|| spi::kept(
        "WITH RECURSIVE tree (oid) AS (
             SELECT $1 UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree ON i.inhparent = tree.oid
         ) SELECT tree.oid::bigint FROM tree",
        &[Arg::Oid(relation)],
    ))?
    .rows;
    let oids = rows.iter().map(|row| Ok(Oid::from(row.number(0)? as u32)));
    oids.collect()
}

/// A column that the UPDATE sets.
struct Target {
    name: String,
    number: i16,
    value: *mut Node,
}

/// Returns all columns of a relation whose rows are deleted.
fn columns(relation: &Relation) -> Vec<Target> {
    let columns = relation.columns.iter();
    columns
        .map(|column| Target {
            name: column.name.clone(),
            number: column.number,
            value: std::ptr::null_mut(),
        })
        .collect()
}

/// Returns the columns that the query sets.
fn targets(query: &Query) -> Vec<Target> {
    // SAFETY: the list holds TargetEntry nodes. In an analysed UPDATE, each of them that is not junk has the number of its column,
    // and that column's name.
    unsafe {
        let entries = list::pointers::<pg_sys::TargetEntry>(query.targetList).into_iter();
        let set = entries.filter(|entry| !(**entry).resjunk);
        set.filter_map(|entry| {
            Some(Target {
                name: lossy((*entry).resname)?,
                number: (*entry).resno,
                value: (*entry).expr.cast(),
            })
        })
        .collect()
    }
}

/// State of the walk over a query tree.
struct Seen<'a> {
    /// The query whose target is ignored.
    outermost: *const Query,
    /// The columns that this query sets.
    set: &'a [Target],
    reads: Vec<Read>,
    /// Current depth, in nodes.
    depth: u32,
}

/// Maximum depth of the walk. A PostgreSQL error at the bottom, such as an exhausted stack, is caught and raised again on each level,
/// and each level adds to it: with thousands of levels that would take minutes. Nobody writes subqueries that deep.
const DEEPEST: u32 = 200;

/// A relation, and those columns read from it that have the name of a column that is set.
struct Read {
    relation: Oid,
    /// Whether tables that inherit from the relation are read, too.
    with_descendants: bool,
    columns: Vec<String>,
}

/// Returns the relations from which subqueries read columns that have the name of a column that is set.
fn reads_of_what_is_set(query: &Query, set: &[Target]) -> Vec<Read> {
    let mut seen = Seen {
        outermost: query,
        set,
        reads: Vec::new(),
        depth: 0,
    };
    let node = std::ptr::from_ref(query).cast_mut();
    // SAFETY: the query is whole, and only read; `seen` outlives the call.
    unsafe { visit(node.cast(), (&raw mut seen).cast()) };
    seen.reads
}

#[cfg(feature = "pg15")]
mod walkers {
    use std::ffi::{c_int, c_void};

    use super::{Node, Query};

    type Visit = unsafe extern "C-unwind" fn(*mut Node, *mut c_void) -> bool;

    unsafe extern "C-unwind" {
        // From nodes/nodeFuncs.h of PostgreSQL 15, which declares the walker without its arguments. In later majors pg_sys has both.
        pub fn query_tree_walker(
            query: *mut Query,
            visit: Visit,
            seen: *mut c_void,
            flags: c_int,
        ) -> bool;
        pub fn expression_tree_walker(node: *mut Node, visit: Visit, seen: *mut c_void) -> bool;
    }
}

/// Visits a node and everything below it.
///
/// # Safety
/// `node` must be null or a part of an analysed query, and `seen` point to a [`Seen`].
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn visit(node: *mut Node, seen: *mut c_void) -> bool {
    // SAFETY: as the caller promises. The walkers call this with the same `seen`, and with nodes below this one. An error in
    // them (an exhausted stack) becomes a panic at the boundary, and an error again where this returns to C.
    unsafe {
        let state = seen.cast::<Seen>();
        if node.is_null() || (*state).depth >= DEEPEST {
            return false;
        }
        (*state).depth += 1;
        let found = below(node, seen);
        (*state).depth -= 1;
        found
    }
}

/// Visits everything below a node, and the node itself if it is a query.
///
/// # Safety
/// As for [`visit`].
unsafe fn below(node: *mut Node, seen: *mut c_void) -> bool {
    // SAFETY: as the caller promises; see `visit`.
    unsafe {
        if (*node).type_ != NodeTag::T_Query {
            #[cfg(feature = "pg15")]
            return pg_sys::ffi::pg_guard_ffi_boundary(|| {
                walkers::expression_tree_walker(node, visit, seen)
            });
            #[cfg(not(feature = "pg15"))]
            return pg_sys::expression_tree_walker_impl(node, Some(visit), seen);
        }
        let query = node.cast::<Query>();
        note_reads(&*query, &mut *seen.cast::<Seen>());
        #[cfg(feature = "pg15")]
        return pg_sys::ffi::pg_guard_ffi_boundary(|| {
            walkers::query_tree_walker(query, visit, seen, 0)
        });
        #[cfg(not(feature = "pg15"))]
        pg_sys::query_tree_walker_impl(query, Some(visit), seen, 0)
    }
}

/// Notes the relations from which a query reads columns that have the name of a column that is set.
///
/// # Safety
/// The query must be an analysed one.
unsafe fn note_reads(query: &Query, seen: &mut Seen) {
    // SAFETY: the list holds range table entries; the target is one of them, by its number from 1. The sets of columns are null
    // or whole.
    unsafe {
        let tables = list::pointers::<RangeTblEntry>(query.rtable);
        for (at, table) in tables.into_iter().enumerate() {
            let is_target =
                std::ptr::eq(query, seen.outermost) && at as i32 + 1 == query.resultRelation;
            if is_target || (*table).rtekind != pg_sys::RTEKind::RTE_RELATION {
                continue;
            }
            #[cfg(feature = "pg15")]
            let columns = (*table).selectedCols;
            #[cfg(not(feature = "pg15"))]
            let columns = match (*table).perminfoindex {
                0 => std::ptr::null_mut(),
                _ => (*pg_sys::getRTEPermissionInfo(query.rteperminfos, table)).selectedCols,
            };
            let numbers = clauses::members(columns);
            let names: Vec<String> = match numbers.contains(&0) {
                // The row as a whole.
                true => seen.set.iter().map(|target| target.name.clone()).collect(),
                false => {
                    let name =
                        |number: &i16| lossy(pg_sys::get_attname((*table).relid, *number, true));
                    let names = numbers.iter().filter_map(name);
                    names
                        .filter(|name| seen.set.iter().any(|target| target.name == *name))
                        .collect()
                }
            };
            if !names.is_empty() {
                seen.reads.push(Read {
                    relation: (*table).relid,
                    with_descendants: (*table).inh,
                    columns: names,
                });
            }
        }
    }
}

/// Whether the query draws from a sequence, including for a default or an identity column.
fn draws(query: &Query) -> bool {
    let signs = [
        format!("{{FUNCEXPR :funcid {} ", pg_sys::F_NEXTVAL),
        "{NEXTVALUEEXPR ".to_owned(),
    ];
    // The query tree as text, in which constants are printed as bytes, so none of them can match by chance.
    // SAFETY: the query is whole, and only read. Its text ends with a zero, and stays in the current memory context,
    // which is SPI's.
    let text = unsafe {
        let node = std::ptr::from_ref(query).cast_mut();
        CStr::from_ptr(pg_sys::nodeToString(node.cast()))
    };
    let text = String::from_utf8_lossy(text.to_bytes());
    signs.iter().any(|sign| text.contains(sign))
}

/// Whether the WHERE clause of the query has a subquery.
fn asks_subqueries(query: &Query) -> bool {
    // SAFETY: the query is an analysed one, which has a jointree; the condition is null or an expression.
    unsafe { pg_sys::contain_subplans((*query.jointree).quals) }
}

/// Whether an UPDATE draws from a sequence. As the current user, within [`spi::connect`]; nothing is run or planned.
pub fn draws_from_sequence(statement: &str) -> Result<bool> {
    let mut found = false;
    analysed(statement, |it| found |= it.queries().into_iter().any(draws))?;
    Ok(found)
}

/// Returns the shift if the new value of a column is the column itself plus or minus a distance that is the same for all rows.
///
/// # Safety
/// `target` must belong to the query, whose target is `relation`. `names` are those of a shifted row, and of the relation.
unsafe fn shift(
    query: &Query,
    target: &Target,
    relation: Oid,
    names: (&CStr, &CStr),
) -> Result<Option<Shift>> {
    // SAFETY: as the caller promises; a node is treated as what its tag says. What is deparsed has no variables but the
    // target's, as `is_distance` has made sure, and its text is copied.
    unsafe {
        let value = pg_sys::strip_implicit_coercions(target.value);
        if (*value).type_ != NodeTag::T_OpExpr {
            return Ok(None);
        }
        let operation = &*value.cast::<pg_sys::OpExpr>();
        let sides = list::pointers::<Node>(operation.args);
        let [left, right] = sides.as_slice() else {
            return Ok(None);
        };
        let name = lossy(pg_sys::get_opname(operation.opno)).unwrap_or_default();
        let own = |side| is_column(side, query.resultRelation, target.number);
        let is_shift = match name.as_str() {
            "+" => own(*left) && is_distance(*right) || own(*right) && is_distance(*left),
            "-" => own(*left) && is_distance(*right),
            _ => false,
        };
        if !is_shift || operation.opno.to_u32() >= pg_sys::FirstNormalObjectId {
            return Ok(None);
        }
        let mut category = (0, false);
        pg_sys::get_type_category_preferred(
            pg_sys::getBaseType(pg_sys::exprType(value)),
            &mut category.0,
            &mut category.1,
        );
        let text = |name: &CStr, prefix| {
            // In the deparse context, variables must refer to the first relation.
            let node = pg_sys::copyObjectImpl(value.cast()).cast();
            pg_sys::ChangeVarNodes(node, query.resultRelation, 1, 0);
            let context = pg_sys::deparse_context_for(name.as_ptr(), relation);
            lossy_whole(pg_sys::deparse_expression(node, context, prefix, false))
        };
        Ok(Some(Shift {
            column: target.name.clone(),
            quoted: quoted(&target.name)?,
            expression: text(names.0, true)?,
            shown: text(names.1, false)?,
            is_number: category.0 as u8 == pg_sys::TYPCATEGORY_NUMERIC,
        }))
    }
}

/// Returns the name as a user would write it: quoted where it needs quotes.
fn quoted(name: &str) -> Result<String> {
    let name = to_server(name)?;
    // SAFETY: the name ends with a zero, and the result is the name itself or a quoted copy.
    unsafe { lossy_whole(pg_sys::quote_identifier(name.as_ptr())) }
}

/// Whether an expression is this column of the target.
///
/// # Safety
/// `node` must be an expression of an analysed query.
unsafe fn is_column(node: *mut Node, target: i32, number: i16) -> bool {
    // SAFETY: as the caller promises.
    unsafe {
        let node = pg_sys::strip_implicit_coercions(node);
        if (*node).type_ != NodeTag::T_Var {
            return false;
        }
        let var = &*node.cast::<pg_sys::Var>();
        i64::from(var.varno) == i64::from(target) && var.varattno == number && var.varlevelsup == 0
    }
}

/// Whether an expression has the same value for all rows: it reads no columns and no other rows, and calls no VOLATILE function.
///
/// # Safety
/// As for [`is_column`].
unsafe fn is_distance(node: *mut Node) -> bool {
    // SAFETY: as the caller promises; these functions only read.
    unsafe {
        !pg_sys::contain_var_clause(node)
            && !pg_sys::contain_subplans(node)
            && !pg_sys::contain_volatile_functions(node)
    }
}
