//! Makes the planner read a walk's table through the key's index, whatever the statistics say.
//!
//! A batch is planned once, for parameters whose values the planner does not know. Guessing, the planner may well prefer to read the
//! whole table for each batch (it expects a row comparison to match a ninth of it), or to take an index that suits the WHERE clause.
//! Settings such as `enable_seqscan` would also affect subqueries and triggers. So a pair of hooks, in this process only, acts on the
//! statements of the walk alone, and within these on the walked relation alone.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::null_mut;

use pgrx::pg_sys::{self, Oid};

use super::list;

thread_local! {
    static WALK: RefCell<Walk> = const { RefCell::new(Walk::new()) };
    static PLANNING: Cell<Kind> = const { Cell::new(Kind::Other) };
    static NEXT_PLANNER: Cell<pg_sys::planner_hook_type> = const { Cell::new(None) };
    static NEXT_PATHLIST: Cell<pg_sys::set_rel_pathlist_hook_type> = const { Cell::new(None) };
    static BEFORE: Cell<Option<Settings>> = const { Cell::new(None) };
    static INSTALLED: Cell<bool> = const { Cell::new(false) };
    /// Whether a statement is only being explained, for known parameters, which are constants by then.
    static EXPLAINED: Cell<bool> = const { Cell::new(false) };
    /// Called for each statement; returns whether it must not be planned for parallel workers.
    static WATCHER: Cell<Option<Watcher>> = const { Cell::new(None) };
}

struct Walk {
    relation: Oid,
    index: Oid,
    statements: Vec<(CString, Access)>,
    bookkeeping: Vec<CString>,
}

/// The way in which a statement of a walk must reach the rows of the walked relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Through the key's index, by bounds or a list given as parameters.
    Index,
    /// As with `Index`. About this many rows are expected, for what the statement joins them with.
    Rows(u32),
    /// As with `Index`, and in the order of the key.
    InOrder,
    /// Through the key's index, once for each row that the statement joins to it.
    Lookup,
    /// By their ctids.
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
    /// Anything else: triggers, functions, statements that users write.
    Other,
}

/// Sets the walked relation, its index and the statements of the walk. Replaces what was set before.
pub fn set_walk(relation: Oid, index: Oid, statements: Vec<(CString, Access)>) {
    install();
    WALK.with_borrow_mut(|walk| {
        walk.relation = relation;
        walk.index = index;
        walk.statements = statements;
    });
}

/// Adds a statement on the extension's own tables. The tables are tiny when it is planned, but dead rows can make them huge under an
/// old snapshot, so it must use their primary keys.
pub fn add_bookkeeping(statement: CString) {
    install();
    WALK.with_borrow_mut(|walk| {
        if !walk.bookkeeping.contains(&statement) {
            walk.bookkeeping.push(statement);
        }
    });
}

/// Runs `f`, which lets PostgreSQL explain `statement`, with the plan that a worker's walk would have for it.
pub fn explained<T>(
    relation: Oid,
    index: Oid,
    statement: CString,
    access: Access,
    f: impl FnOnce() -> T,
) -> T {
    set_walk(relation, index, vec![(statement, access)]);
    EXPLAINED.set(true);
    let _over = Over;
    f()
}

/// Guard: dropping it ends the explaining, also when an error passes through. Nothing else in this session is planned like a walk.
struct Over;

impl Drop for Over {
    fn drop(&mut self) {
        EXPLAINED.set(false);
        reset();
        set_walk(Oid::INVALID, Oid::INVALID, Vec::new());
    }
}

/// Function that is called for each statement before it is planned. Returns whether the statement must not be planned for parallel
/// workers. It must be guarded, since its errors pass through by longjmp.
pub(super) type Watcher = unsafe extern "C-unwind" fn(*mut pg_sys::Query) -> bool;

/// Calls the watcher for each statement from now on.
pub(super) fn watch(watcher: Watcher) {
    install();
    WATCHER.set(Some(watcher));
}

fn install() {
    if INSTALLED.replace(true) {
        return;
    }
    // SAFETY: the hooks are read and written by this process alone, which has one thread. The functions are this library's,
    // which is never unloaded, and they call the previous hooks.
    unsafe {
        NEXT_PLANNER.set(pg_sys::planner_hook);
        pg_sys::planner_hook = Some(plan);
        NEXT_PATHLIST.set(pg_sys::set_rel_pathlist_hook);
        pg_sys::set_rel_pathlist_hook = Some(choose_paths);
    }
}

/// The planner's settings before one of the extension's statements was planned.
#[derive(Clone, Copy)]
struct Settings {
    seqscan: bool,
    indexscan: bool,
    bitmapscan: bool,
    tidscan: bool,
    nestloop: bool,
    jit: bool,
}

impl Settings {
    fn now() -> Settings {
        // SAFETY: reads settings of this process.
        unsafe {
            Settings {
                seqscan: pg_sys::enable_seqscan,
                indexscan: pg_sys::enable_indexscan,
                bitmapscan: pg_sys::enable_bitmapscan,
                tidscan: pg_sys::enable_tidscan,
                nestloop: pg_sys::enable_nestloop,
                jit: pg_sys::jit_enabled,
            }
        }
    }

    fn put_back(self) {
        // SAFETY: writes settings of this process, with values that they had.
        unsafe {
            pg_sys::enable_seqscan = self.seqscan;
            pg_sys::enable_indexscan = self.indexscan;
            pg_sys::enable_bitmapscan = self.bitmapscan;
            pg_sys::enable_tidscan = self.tidscan;
            pg_sys::enable_nestloop = self.nestloop;
            pg_sys::jit_enabled = self.jit;
        }
    }
}

/// Puts back what planning changed, in case an error left it.
pub fn reset() {
    PLANNING.set(Kind::Other);
    if let Some(before) = BEFORE.take() {
        before.put_back();
    }
}

unsafe extern "C-unwind" {
    // From optimizer/planner.h; the same in the headers of PostgreSQL 15, 16 and 18. The wrapper in pg_sys would turn errors of user
    // code that is planned meanwhile into panics, and the exception handlers of that code would lose their SQLSTATE and context.
    fn standard_planner(
        query: *mut pg_sys::Query,
        text: *const c_char,
        options: c_int,
        params: pg_sys::ParamListInfo,
    ) -> *mut pg_sys::PlannedStmt;
}

/// Planner hook. Errors pass through by longjmp, so nothing in here may need to be dropped. [`reset`] puts back what they leave
/// changed.
///
/// # Safety
/// Called by PostgreSQL as its hook `planner_hook`, with the arguments of that hook.
unsafe extern "C-unwind" fn plan(
    query: *mut pg_sys::Query,
    text: *const c_char,
    options: c_int,
    params: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: the arguments are passed on unchanged. The text is null or ends with a zero, and is only compared. Wherever an
    // error may jump out, no frame of this module has anything to drop or a RefCell borrowed.
    unsafe {
        let options = match WATCHER.get() {
            Some(watcher) if watcher(query) => options & !(pg_sys::CURSOR_OPT_PARALLEL_OK as c_int),
            _ => options,
        };
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
    // SAFETY: writes settings of this process, which are put back by `reset`.
    unsafe {
        pg_sys::enable_indexscan = true;
        // A bitmap scan would be cheaper, and would displace the plain index scan.
        pg_sys::enable_bitmapscan &= kind != Kind::Walk(Access::InOrder);
        pg_sys::enable_tidscan |= kind == Kind::Walk(Access::Tid);
        pg_sys::enable_nestloop |= kind == Kind::Walk(Access::Lookup);
        pg_sys::enable_seqscan &= kind != Kind::Bookkeeping;
        // Because of the guessed costs of a large table, every batch would be compiled anew.
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

/// Hook for the paths of a relation. Like [`plan`], it lets errors of others pass.
///
/// # Safety
/// Called by PostgreSQL as its hook `set_rel_pathlist_hook`, with the arguments of that hook.
unsafe extern "C-unwind" fn choose_paths(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    rti: pg_sys::Index,
    rte: *mut pg_sys::RangeTblEntry,
) {
    // SAFETY: the arguments are passed on unchanged; nothing in here needs to be dropped.
    unsafe {
        if let Some(next) = NEXT_PATHLIST.get() {
            next(root, rel, rti, rte);
        }
        if PLANNING.get() != Kind::Other {
            choose_walk_paths(root, rel, rti, rte);
        }
    }
}

/// # Safety
/// As for [`choose_paths`].
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
    // SAFETY: the planner's own structs of the statement that it is planning, which nobody else changes meanwhile. `pathlist`
    // is a list of paths.
    unsafe {
        if (*rte).relid == relation && is_walked(root, rti, relation, access) {
            let found = (*rel).pathlist;
            match access {
                Access::Index => only_by_index(root, rel, index),
                Access::Rows(rows) => {
                    only_by_index(root, rel, index);
                    expect(rel, f64::from(rows));
                }
                Access::InOrder => {
                    only_by_index(root, rel, index);
                    retain(rel, |path| (*path).pathtype == pg_sys::NodeTag::T_IndexScan);
                    make_ascending(rel);
                }
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

/// Whether this entry is the walked relation itself, not the same relation in a user's subquery: it is the target of the UPDATE or,
/// in one of the extension's own query levels (whose LIMIT is a parameter), the first entry of the relation. Relations that the
/// planner has pulled up from subqueries come after it.
///
/// # Safety
/// `root` and `rti` must be those that the planner called its hook with.
unsafe fn is_walked(
    root: *mut pg_sys::PlannerInfo,
    rti: pg_sys::Index,
    relation: Oid,
    access: Access,
) -> bool {
    // SAFETY: each relation that the planner looks at has an entry in `simple_rte_array`, and so have those with smaller
    // numbers, counted from 1.
    unsafe {
        let query = (*root).parse;
        let limit = (*query).limitCount;
        let is_ours = |tag| match EXPLAINED.get() {
            true => tag == pg_sys::NodeTag::T_Const || tag == pg_sys::NodeTag::T_Param,
            false => tag == pg_sys::NodeTag::T_Param,
        };
        let limited = !limit.is_null() && is_ours((*limit).type_);
        let is_first = || {
            (1..rti as usize)
                .all(|before| (**(*root).simple_rte_array.add(before)).relid != relation)
        };
        // A statement that keeps the rows of the walk may be the user's own, and change the same table.
        let is_target = (*query).resultRelation == rti as i32;
        is_target && !matches!(access, Access::Rows(_)) || limited && is_first()
    }
}

/// Keeps only those paths of the relation that use this index, if there are any.
///
/// # Safety
/// `root` and `rel` must be those that the planner called its hook with.
unsafe fn only_by_index(root: *mut pg_sys::PlannerInfo, rel: *mut pg_sys::RelOptInfo, index: Oid) {
    // SAFETY: `indexlist` is a list of IndexOptInfo. While the paths are made, it holds this index alone, and the relation has
    // no paths; an error on the way ends the planning of the statement.
    unsafe {
        let mut all = list::pointers::<pg_sys::IndexOptInfo>((*rel).indexlist);
        all.retain(|info| (**info).indexoid == index);
        if all.is_empty() {
            return;
        }
        let (paths, indexes) = ((*rel).pathlist, (*rel).indexlist);
        (*rel).pathlist = null_mut();
        (*rel).indexlist = list::of(all);
        (*rel).partial_pathlist = null_mut();
        pg_sys::create_index_paths(root, rel);
        (*rel).partial_pathlist = null_mut();
        (*rel).indexlist = indexes;
        if (*rel).pathlist.is_null() {
            (*rel).pathlist = paths;
        }
    }
}

/// Makes the planner expect this many rows above the statement's own limit.
///
/// # Safety
/// `rel` must be the relation that the planner called its hook with.
unsafe fn expect(rel: *mut pg_sys::RelOptInfo, rows: f64) {
    /// A limit that is a parameter is taken for a tenth of the rows (PostgreSQL's `adjust_limit_rows_costs`).
    const LIMITED: f64 = 10.0;
    // SAFETY: `pathlist` is a list of paths, each of a struct that begins with a Path.
    unsafe {
        (*rel).rows = rows * LIMITED;
        for path in list::pointers::<pg_sys::Path>((*rel).pathlist) {
            if (*path).param_info.is_null() {
                (*path).rows = rows * LIMITED;
            }
        }
    }
}

/// Makes the plain index scans of the relation read descending indexes backwards.
///
/// # Safety
/// `rel` must be the relation that the planner called its hook with.
unsafe fn make_ascending(rel: *mut pg_sys::RelOptInfo) {
    // SAFETY: `pathlist` is a list of paths. A path of this type is an IndexPath, of a btree, as all keys are, whose
    // `reverse_sort` has an entry for each key column.
    unsafe {
        for path in list::pointers::<pg_sys::Path>((*rel).pathlist) {
            if (*path).pathtype != pg_sys::NodeTag::T_IndexScan {
                continue;
            }
            let scan = path.cast::<pg_sys::IndexPath>();
            let descending = (*(*scan).indexinfo).reverse_sort;
            if !descending.is_null() && *descending {
                (*scan).indexscandir = pg_sys::ScanDirection::BackwardScanDirection;
                // Nothing above the scan of an UPDATE asks for an order.
                (*path).pathkeys = null_mut();
            }
        }
    }
}

/// Keeps only those paths of the relation for which `wanted` returns true, if there are any.
///
/// # Safety
/// `rel` must be the relation that the planner called its hook with.
unsafe fn retain(rel: *mut pg_sys::RelOptInfo, wanted: impl Fn(*mut pg_sys::Path) -> bool) {
    // SAFETY: `pathlist` is a list of paths, each of a struct that begins with a Path.
    unsafe {
        let mut paths = list::pointers::<pg_sys::Path>((*rel).pathlist);
        paths.retain(|path| wanted(*path));
        if !paths.is_empty() {
            (*rel).pathlist = list::of(paths);
            (*rel).partial_pathlist = null_mut();
        }
    }
}

/// If all paths that are left need a row of another relation, gives back those of `found` that do not, at a cost that keeps them out
/// of the plan. Without any such path, the planner fails as soon as it considers a join of this relation with one of a user's
/// subquery.
///
/// # Safety
/// `rel` must be the relation that the planner called its hook with, and `found` a list of its paths.
unsafe fn leave_in_reserve(rel: *mut pg_sys::RelOptInfo, found: *mut pg_sys::List) {
    // SAFETY: both are lists of paths, each of a struct that begins with a Path. A path that is made expensive is not in
    // `pathlist`, so nobody has compared it with others there at its old cost.
    unsafe {
        let mut left = list::pointers::<pg_sys::Path>((*rel).pathlist);
        if left.iter().any(|path| (**path).param_info.is_null()) {
            return;
        }
        for path in list::pointers::<pg_sys::Path>(found) {
            if (*path).param_info.is_null() {
                make_dear(path);
                left.push(path);
            }
        }
        (*rel).pathlist = list::of(left);
    }
}

/// Makes a path expensive, as `enable_seqscan = off` does.
///
/// # Safety
/// `path` must be a path of the statement that is being planned.
unsafe fn make_dear(path: *mut pg_sys::Path) {
    // SAFETY: as the caller promises; nobody else looks at the path meanwhile.
    #[cfg(feature = "pg18")]
    unsafe {
        (*path).disabled_nodes += 1;
    }
    // SAFETY: as above.
    #[cfg(not(feature = "pg18"))]
    unsafe {
        const DISABLE_COST: f64 = 1.0e10;
        (*path).startup_cost += DISABLE_COST;
        (*path).total_cost += DISABLE_COST;
    }
}
