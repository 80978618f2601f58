//! Makes the planner read a walk's table through the key's index, whatever statistics say.
//!
//! A batch is planned once, for parameters it does not know. Guessing, the planner may well prefer
//! to read the whole table for each batch (for a row comparison it expects a ninth of it), or to
//! take an index that suits the WHERE clause. Settings such as `enable_seqscan` would reach into
//! subqueries and triggers. So a pair of hooks, in this process only, acts on the statements of
//! the walk alone, and in these on the walked relation alone.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::null_mut;

use pgrx::pg_sys::{self, Oid};

thread_local! {
    static WALK: RefCell<Walk> = const { RefCell::new(Walk::new()) };
    static PLANNING: Cell<Kind> = const { Cell::new(Kind::Other) };
    static NEXT_PLANNER: Cell<pg_sys::planner_hook_type> = const { Cell::new(None) };
    static NEXT_PATHLIST: Cell<pg_sys::set_rel_pathlist_hook_type> = const { Cell::new(None) };
    static BEFORE: Cell<Option<Settings>> = const { Cell::new(None) };
    static INSTALLED: Cell<bool> = const { Cell::new(false) };
}

struct Walk {
    relation: Oid,
    index: Oid,
    statements: Vec<(CString, Access)>,
    bookkeeping: Vec<CString>,
}

/// How a statement of a walk is to reach the rows of the walked relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Through the key's index, by bounds or a list that are parameters.
    Index,
    /// Through the key's index, once for each row that the statement joins to it.
    Lookup,
    /// By their place in the table.
    Tid,
}

impl Walk {
    const fn new() -> Walk {
        Walk {
            relation: Oid::INVALID,
            index: Oid::INVALID,
            statements: Vec::new(),
            bookkeeping: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A statement of a walk.
    Walk(Access),
    /// A statement on the extension's own tables, by primary key.
    Bookkeeping,
    /// Anything else: triggers, functions, what users write.
    Other,
}

/// Sets what is walked and by which statements; replaces what was set before.
pub fn set_walk(relation: Oid, index: Oid, statements: Vec<(CString, Access)>) {
    install();
    WALK.with_borrow_mut(|walk| {
        walk.relation = relation;
        walk.index = index;
        walk.statements = statements;
    });
}

/// Adds a statement on the extension's own tables. They are tiny when it is planned, but dead
/// rows can make them huge under an old snapshot: it has to go by their primary keys.
pub fn add_bookkeeping(statement: CString) {
    install();
    WALK.with_borrow_mut(|walk| {
        if !walk.bookkeeping.contains(&statement) {
            walk.bookkeeping.push(statement);
        }
    });
}

fn install() {
    if INSTALLED.replace(true) {
        return;
    }
    unsafe {
        NEXT_PLANNER.set(pg_sys::planner_hook);
        pg_sys::planner_hook = Some(plan);
        NEXT_PATHLIST.set(pg_sys::set_rel_pathlist_hook);
        pg_sys::set_rel_pathlist_hook = Some(choose_paths);
    }
}

/// The planner's settings, as they were before a statement of ours was planned.
#[derive(Clone, Copy)]
struct Settings {
    seqscan: bool,
    indexscan: bool,
    tidscan: bool,
    nestloop: bool,
    jit: bool,
}

impl Settings {
    fn now() -> Settings {
        unsafe {
            Settings {
                seqscan: pg_sys::enable_seqscan,
                indexscan: pg_sys::enable_indexscan,
                tidscan: pg_sys::enable_tidscan,
                nestloop: pg_sys::enable_nestloop,
                jit: pg_sys::jit_enabled,
            }
        }
    }

    fn put_back(self) {
        unsafe {
            pg_sys::enable_seqscan = self.seqscan;
            pg_sys::enable_indexscan = self.indexscan;
            pg_sys::enable_tidscan = self.tidscan;
            pg_sys::enable_nestloop = self.nestloop;
            pg_sys::jit_enabled = self.jit;
        }
    }
}

/// Puts back what planning changed when it was left by an error.
pub fn reset() {
    PLANNING.set(Kind::Other);
    if let Some(before) = BEFORE.take() {
        before.put_back();
    }
}

unsafe extern "C-unwind" {
    // pg_sys' wrapper would turn errors of user code, met while a statement of its own is
    // planned, into panics: their SQLSTATE and context would be lost to its exception handlers.
    fn standard_planner(
        query: *mut pg_sys::Query,
        text: *const c_char,
        options: c_int,
        params: pg_sys::ParamListInfo,
    ) -> *mut pg_sys::PlannedStmt;
}

/// Errors pass through by longjmp: nothing in here may need to be dropped. What they leave
/// changed, [`reset`] puts back.
unsafe extern "C-unwind" fn plan(
    query: *mut pg_sys::Query,
    text: *const c_char,
    options: c_int,
    params: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    unsafe {
        let around = PLANNING.get();
        begin(if text.is_null() {
            Kind::Other
        } else {
            classify(CStr::from_ptr(text))
        });
        let planned = match NEXT_PLANNER.get() {
            Some(next) => next(query, text, options, params),
            None => standard_planner(query, text, options, params),
        };
        if around == Kind::Other {
            reset();
        }
        PLANNING.set(around);
        planned
    }
}

fn begin(kind: Kind) {
    PLANNING.set(kind);
    if kind == Kind::Other {
        return;
    }
    if BEFORE.get().is_none() {
        BEFORE.set(Some(Settings::now()));
    }
    unsafe {
        pg_sys::enable_indexscan = true;
        pg_sys::enable_tidscan |= kind == Kind::Walk(Access::Tid);
        pg_sys::enable_nestloop |= kind == Kind::Walk(Access::Lookup);
        pg_sys::enable_seqscan &= kind != Kind::Bookkeeping;
        // Guessed costs of a large table would have every batch compiled anew.
        pg_sys::jit_enabled = false;
    }
}

fn classify(text: &CStr) -> Kind {
    WALK.with_borrow(|walk| {
        if let Some((_, access)) = walk.statements.iter().find(|(s, _)| s.as_c_str() == text) {
            Kind::Walk(*access)
        } else if walk.bookkeeping.iter().any(|s| s.as_c_str() == text) {
            Kind::Bookkeeping
        } else {
            Kind::Other
        }
    })
}

/// Like [`plan`], lets errors of others pass.
unsafe extern "C-unwind" fn choose_paths(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    rti: pg_sys::Index,
    rte: *mut pg_sys::RangeTblEntry,
) {
    unsafe {
        if let Some(next) = NEXT_PATHLIST.get() {
            next(root, rel, rti, rte);
        }
        if PLANNING.get() != Kind::Other {
            choose_walk_paths(root, rel, rti, rte);
        }
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn choose_walk_paths(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    rti: pg_sys::Index,
    rte: *mut pg_sys::RangeTblEntry,
) {
    let Kind::Walk(access) = PLANNING.get() else {
        return;
    };
    let (relation, index) = WALK.with_borrow(|walk| (walk.relation, walk.index));
    unsafe {
        if (*rte).relid == relation && is_walked(root, rti, relation) {
            let found = (*rel).pathlist;
            match access {
                Access::Index => only_by_index(root, rel, index),
                Access::Lookup => {
                    only_by_index(root, rel, index);
                    retain(rel, |path| !(*path).param_info.is_null());
                }
                Access::Tid => retain(rel, |path| {
                    let kind = (*path).pathtype;
                    kind == pg_sys::NodeTag::T_TidScan || kind == pg_sys::NodeTag::T_TidRangeScan
                }),
            }
            leave_in_reserve(rel, found);
        }
    }
}

/// Whether it is the walked relation itself and not the same relation in a user's subquery: the
/// target of the UPDATE, or in a query level of ours, which has a parameter for its LIMIT, the first
/// one of the relation. What the planner has pulled up from subqueries comes after it.
unsafe fn is_walked(root: *mut pg_sys::PlannerInfo, rti: pg_sys::Index, relation: Oid) -> bool {
    unsafe {
        let query = (*root).parse;
        let limit = (*query).limitCount;
        let limited = !limit.is_null() && (*limit).type_ == pg_sys::NodeTag::T_Param;
        let is_first = || {
            (1..rti as usize)
                .all(|before| (**(*root).simple_rte_array.add(before)).relid != relation)
        };
        (*query).resultRelation == rti as i32 || limited && is_first()
    }
}

unsafe fn only_by_index(root: *mut pg_sys::PlannerInfo, rel: *mut pg_sys::RelOptInfo, index: Oid) {
    unsafe {
        let all = pgrx::PgList::<pg_sys::IndexOptInfo>::from_pg((*rel).indexlist);
        let mut only = pgrx::PgList::<pg_sys::IndexOptInfo>::new();
        all.iter_ptr()
            .filter(|info| (**info).indexoid == index)
            .for_each(|info| only.push(info));
        if only.is_empty() {
            return;
        }
        let paths = std::mem::replace(&mut (*rel).pathlist, null_mut());
        let indexes = std::mem::replace(&mut (*rel).indexlist, only.into_pg());
        (*rel).partial_pathlist = null_mut();
        pg_sys::create_index_paths(root, rel);
        (*rel).partial_pathlist = null_mut();
        (*rel).indexlist = indexes;
        if (*rel).pathlist.is_null() {
            (*rel).pathlist = paths;
        }
        std::mem::forget(all);
    }
}

/// Leaves the relation only those of its paths that `wanted` names, if there is one.
unsafe fn retain(rel: *mut pg_sys::RelOptInfo, wanted: impl Fn(*mut pg_sys::Path) -> bool) {
    unsafe {
        let all = pgrx::PgList::<pg_sys::Path>::from_pg((*rel).pathlist);
        let mut kept = pgrx::PgList::<pg_sys::Path>::new();
        all.iter_ptr()
            .filter(|path| wanted(*path))
            .for_each(|path| kept.push(path));
        if !kept.is_empty() {
            (*rel).pathlist = kept.into_pg();
            (*rel).partial_pathlist = null_mut();
        }
        std::mem::forget(all);
    }
}

/// Where all paths that are left need a row of another relation, gives back those of `found` that do
/// not, at a price that keeps them out of the plan. Without any, the planner gives up as soon as it
/// looks at the join of this relation and one of a user's subquery.
unsafe fn leave_in_reserve(rel: *mut pg_sys::RelOptInfo, found: *mut pg_sys::List) {
    unsafe {
        let mut left = pgrx::PgList::<pg_sys::Path>::from_pg((*rel).pathlist);
        if left.iter_ptr().all(|path| !(*path).param_info.is_null()) {
            let found = pgrx::PgList::<pg_sys::Path>::from_pg(found);
            for path in found.iter_ptr().filter(|p| (**p).param_info.is_null()) {
                make_dear(path);
                left.push(path);
            }
            std::mem::forget(found);
        }
        (*rel).pathlist = left.into_pg();
    }
}

/// What `enable_seqscan = off` does to a path.
unsafe fn make_dear(path: *mut pg_sys::Path) {
    #[cfg(feature = "pg18")]
    unsafe {
        (*path).disabled_nodes += 1;
    }
    #[cfg(not(feature = "pg18"))]
    unsafe {
        const DISABLE_COST: f64 = 1.0e10;
        (*path).startup_cost += DISABLE_COST;
        (*path).total_cost += DISABLE_COST;
    }
}
