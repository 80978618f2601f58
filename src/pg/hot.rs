//! Facts about heap-only (HOT) updates: whether indexes and free space allow them, and how many there were.

use pgrx::pg_sys::{self, Oid};

use super::elevate::as_extension;
use super::open::Open;
use super::spi::{self, Arg};
use super::text::{lossy, to_server};
use super::{confine, list, server};
use crate::error::{Error, Result, sqlstate};

/// Consequences that the indexes of a table have for an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotFacts {
    /// Number of indexes that get an entry for each row version that is not heap-only.
    pub indexes: i32,
    /// Name of an index that keeps updates of the columns from being heap-only, if there is one.
    pub blocked_by: Option<String>,
}

/// Returns what the indexes mean for an update of these columns. An index blocks heap-only updates by its columns (included ones too),
/// its expressions and its predicate. Changes by triggers can't be seen from here.
pub fn facts(relation: Oid, set_columns: &[String]) -> Result<HotFacts> {
    confine::require()?;
    let mut columns = numbers(relation, set_columns)?;
    let table = open(relation)?;
    add_generated(&table, &mut columns);
    let mut facts = HotFacts {
        indexes: 0,
        blocked_by: None,
    };
    for index in indexes(&table) {
        if index.is_ready() {
            facts.indexes += 1;
        }
        if facts.blocked_by.is_none() && !index.is_summarizing() && columns.meet(&index.columns()) {
            facts.blocked_by = index.name();
        }
    }
    Ok(facts)
}

/// An index of a table, and what an update of certain columns means for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexFacts {
    /// Name of the index.
    pub name: String,
    /// Name of the index's access method.
    pub method: String,
    /// Size in bytes.
    pub bytes: i64,
    /// Numbers of the index's columns, included ones too; 0 stands for an expression.
    pub columns: Vec<i16>,
    /// Whether the update changes what the index holds.
    pub changed: bool,
    /// Whether the index has a predicate.
    pub partial: bool,
}

/// Returns each index that gets entries, and what an update of these columns means for it.
pub fn indexes_of(relation: Oid, set_columns: &[String]) -> Result<Vec<IndexFacts>> {
    confine::require()?;
    let mut columns = numbers(relation, set_columns)?;
    let table = open(relation)?;
    add_generated(&table, &mut columns);
    let ready = indexes(&table).filter(Index::is_ready);
    Ok(ready
        .map(|index| IndexFacts {
            name: index.name().unwrap_or_default(),
            method: index.method(),
            bytes: bytes(i64::from(index.0.blocks())),
            columns: index.column_numbers(),
            changed: columns.meet(&index.columns()),
            partial: index.is_partial(),
        })
        .collect())
}

/// Whether an update of these columns locks rows as one that changes a key which foreign keys may refer to.
pub fn writes_key(relation: Oid, set_columns: &[String]) -> Result<bool> {
    let written = numbers(relation, set_columns)?;
    let table = open(relation)?;
    let key = pg_sys::IndexAttrBitmapKind::INDEX_ATTR_BITMAP_KEY;
    // SAFETY: the table is open; the returned set is a copy in the current memory context.
    let of_keys = unsafe { pg_sys::RelationGetIndexAttrBitmap(table.as_ptr(), key) };
    // SAFETY: both sets were allocated within this call, in a memory context that outlives it.
    Ok(unsafe { pg_sys::bms_overlap(written.0, of_keys) })
}

fn numbers(relation: Oid, columns: &[String]) -> Result<Columns> {
    let mut numbers = Columns::default();
    for name in columns {
        numbers.add(column_number(relation, name)?);
    }
    Ok(numbers)
}

fn column_number(relation: Oid, name: &str) -> Result<i32> {
    let text = to_server(name)?;
    server::require_transaction();
    // SAFETY: within a transaction any OID and any text will do: the function returns 0 if it finds nothing.
    match unsafe { pg_sys::get_attnum(relation, text.as_ptr()) } {
        0 => Err(Error::new(
            sqlstate::UNDEFINED_COLUMN,
            format!("column \"{name}\" does not exist"),
        )
        .hint("It was dropped or renamed since the job was defined.")),
        number => Ok(i32::from(number)),
    }
}

/// A set of a table's columns by number, in PostgreSQL's own form: null, or allocated in the memory context that was current when the
/// set got its first member. Private to this module, in which no set outlives the call that made it.
struct Columns(*mut pg_sys::Bitmapset);

impl Default for Columns {
    fn default() -> Self {
        Columns(std::ptr::null_mut())
    }
}

/// The bit of column 0, which stands for the whole row.
const WHOLE_ROW: i32 = -pg_sys::FirstLowInvalidHeapAttributeNumber;

impl Columns {
    fn add(&mut self, number: i32) {
        // SAFETY: the set is null or this value's own, which may be moved to make room. A negative
        // member, which no column has, raises an error.
        self.0 = unsafe { pg_sys::bms_add_member(self.0, number + WHOLE_ROW) };
    }

    /// Adds the columns that an expression of the table reads.
    ///
    /// # Safety
    /// `node` must be null, an expression, or a list of expressions.
    unsafe fn add_read_by(&mut self, node: *mut pg_sys::Node) {
        // SAFETY: as the caller promises; the walk skips null. The set is as in `add`.
        unsafe { pg_sys::pull_varattnos(node, 1, &mut self.0) };
    }

    /// Whether a change of these columns affects something that reads the columns in `read`.
    fn meet(&self, read: &Columns) -> bool {
        // SAFETY: each set is null or live.
        unsafe { pg_sys::bms_overlap(self.0, read.0) || pg_sys::bms_is_member(WHOLE_ROW, read.0) }
    }
}

/// Adds the stored generated columns that are computed from columns already in the set. Generated columns can't be computed from each
/// other, so one pass suffices.
fn add_generated(table: &Open, columns: &mut Columns) {
    // SAFETY: the table is open, and its columns stay as they are under the lock. PostgreSQL fills `constr` if there are
    // defaults, and `defval` with as many as it counts, each with the text of its expression. nodeToString wrote that text, so
    // stringToNode turns it back into an expression.
    unsafe {
        let constr = (*(*table.as_ptr()).rd_att).constr;
        if constr.is_null() || !(*constr).has_generated_stored {
            return;
        }
        for n in 0..usize::from((*constr).num_defval) {
            let default = *(*constr).defval.add(n);
            let stored = pg_sys::ATTRIBUTE_GENERATED_STORED as std::ffi::c_char;
            let of = (*table.as_ptr()).rd_id;
            if default.adbin.is_null() || pg_sys::get_attgenerated(of, default.adnum) != stored {
                continue;
            }
            let mut read = Columns::default();
            read.add_read_by(pg_sys::stringToNode(default.adbin).cast());
            if columns.meet(&read) {
                columns.add(i32::from(default.adnum));
            }
        }
    }
}

/// An open index.
struct Index(Open);

impl Index {
    /// Returns `None` if the relation is not an index.
    fn of(relation: Open) -> Option<Index> {
        // SAFETY: the relation is open. An index has `rd_index`, a copy of its row in pg_index, for as long as its entry is in the
        // cache.
        let is_index = unsafe { !(*relation.as_ptr()).rd_index.is_null() };
        is_index.then_some(Index(relation))
    }

    /// Whether inserts have to keep the index up to date.
    fn is_ready(&self) -> bool {
        // SAFETY: it is open, and `rd_index` not null, as `of` saw.
        unsafe { (*(*self.0.as_ptr()).rd_index).indisready }
    }

    /// Returns a copy of the index's name.
    fn name(&self) -> Option<String> {
        // SAFETY: it is open. A relation has `rd_rel`, with a name that ends in zero.
        unsafe { lossy((*(*self.0.as_ptr()).rd_rel).relname.data.as_ptr()) }
    }

    /// Whether the index describes blocks, not rows (BRIN): such an index does not block heap-only updates.
    #[cfg(not(feature = "pg15"))]
    fn is_summarizing(&self) -> bool {
        // SAFETY: it is open, and an open index has its access method's routine.
        unsafe { (*(*self.0.as_ptr()).rd_indam).amsummarizing }
    }

    #[cfg(feature = "pg15")]
    fn is_summarizing(&self) -> bool {
        false
    }

    /// Returns the name of the index's access method.
    fn method(&self) -> String {
        // SAFETY: it is open, and has `rd_rel`; within a transaction. The name is null or ends in zero, a copy in the
        // current memory context.
        unsafe {
            lossy(pg_sys::get_am_name((*(*self.0.as_ptr()).rd_rel).relam)).unwrap_or_default()
        }
    }

    /// Returns the numbers of the index's columns; 0 stands for an expression.
    fn column_numbers(&self) -> Vec<i16> {
        // SAFETY: it is open, and `rd_index` not null, as `of` saw: `indkey` has `indnatts` numbers.
        unsafe {
            let form = (*self.0.as_ptr()).rd_index;
            (*form)
                .indkey
                .values
                .as_slice((*form).indnatts as usize)
                .to_vec()
        }
    }

    /// Whether the index has a predicate.
    fn is_partial(&self) -> bool {
        // SAFETY: it is open, and an index; the list is null or a copy in the current memory context.
        unsafe { !pg_sys::RelationGetIndexPredicate(self.0.as_ptr()).is_null() }
    }

    /// Returns all columns of the table that the index reads.
    fn columns(&self) -> Columns {
        let index = self.0.as_ptr();
        let mut columns = Columns::default();
        // SAFETY: it is open, and `rd_index` not null, as `of` saw: `indkey` has `indnatts` numbers.
        // The expressions and the predicate are lists, or null, copied for the caller.
        unsafe {
            let form = (*index).rd_index;
            for number in (*form).indkey.values.as_slice((*form).indnatts as usize) {
                // 0 stands for an expression.
                if *number != 0 {
                    columns.add(i32::from(*number));
                }
            }
            columns.add_read_by(pg_sys::RelationGetIndexExpressions(index).cast());
            columns.add_read_by(pg_sys::RelationGetIndexPredicate(index).cast());
        }
        columns
    }
}

/// Returns each index that has to be kept up to date, including those being built. Only one of them is open at a time.
fn indexes(table: &Open) -> impl Iterator<Item = Index> {
    // SAFETY: the table is open. The list is a copy of the cache's: of OIDs, or null.
    let of_table = unsafe { list::oids(pg_sys::RelationGetIndexList(table.as_ptr())) };
    // DROP INDEX CONCURRENTLY may drop one meanwhile.
    of_table
        .into_iter()
        .filter_map(|oid| Open::shared(oid).and_then(Index::of))
}

fn open(oid: Oid) -> Result<Open> {
    Open::shared(oid).ok_or_else(|| {
        Error::new(
            sqlstate::UNDEFINED_TABLE,
            format!("relation with OID {oid} does not exist"),
        )
        .hint("It was dropped meanwhile.")
    })
}

/// Returns how many rows of the table this backend has updated, and how many of those updates were heap-only, since it last reported
/// its statistics. The difference between two calls in a transaction is what happened between them. Both stay 0 if `track_counts`
/// is off.
pub fn xact_counts(relation: Oid) -> (i64, i64) {
    (
        xact_count(relation, pg_sys::F_PG_STAT_GET_XACT_TUPLES_UPDATED),
        xact_count(relation, pg_sys::F_PG_STAT_GET_XACT_TUPLES_HOT_UPDATED),
    )
}

/// Returns how many rows scans of the table have read, whether or not they matched; otherwise like [`xact_counts`].
pub fn xact_read(relation: Oid) -> i64 {
    xact_count(relation, pg_sys::F_PG_STAT_GET_XACT_TUPLES_RETURNED)
}

fn xact_count(relation: Oid, function: u32) -> i64 {
    let argument = pg_sys::Datum::from(relation);
    // SAFETY: the function is one of pg_stat_get_xact_...(oid), built in, strict and never NULL; it reads counters of this
    // process, and returns a bigint, which is passed by value on 64 bits.
    let count =
        unsafe { pg_sys::OidFunctionCall1Coll(Oid::from(function), Oid::INVALID, argument) };
    count.value() as i64
}

/// Size of a table and its rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TableShape {
    /// Number of pages of the heap.
    pub pages: i64,
    /// Number of rows, as the planner estimates it.
    pub tuples: f64,
    /// Bytes of the heap per row.
    pub row_bytes: f64,
    /// Bytes of all indexes per row.
    pub index_bytes: f64,
    /// Percentage to which an INSERT fills a page.
    pub fillfactor: i32,
}

impl TableShape {
    /// Returns the number of rows per page.
    pub fn rows_per_page(&self) -> f64 {
        self.tuples / self.pages.max(1) as f64
    }

    /// Returns the shape of the same table with `rows` rows.
    pub fn with_rows(self, rows: f64) -> TableShape {
        let more = self.tuples.max(1.0) / rows.max(1.0);
        TableShape {
            tuples: rows,
            row_bytes: self.row_bytes * more,
            index_bytes: self.index_bytes * more,
            ..self
        }
    }

    /// Returns how many new versions fit on a page that INSERTs have filled.
    pub fn fits(&self) -> f64 {
        let used = f64::from(self.fillfactor.clamp(10, 100));
        self.rows_per_page() * (100.0 - used) / used
    }
}

/// Whether updates are counted at all (`track_counts`).
pub fn counted() -> bool {
    // SAFETY: reads a setting of this process.
    unsafe { pg_sys::pgstat_track_counts }
}

/// Maximum number of line pointers on a heap page (`MaxHeapTuplesPerPage`), which the smallest rows would reach.
pub const MOST_POINTERS: f64 = ((pg_sys::BLCKSZ as usize - 24) / (24 + 4)) as f64;

/// Measures a table.
pub fn shape(relation: Oid) -> Result<TableShape> {
    let table = open(relation)?;
    let tuples = table.estimated_rows();
    // For a small table that was never vacuumed, the estimate assumes more pages than there are.
    let pages = i64::from(table.blocks());
    let index_pages = indexes(&table)
        .map(|index| i64::from(index.0.blocks()))
        .sum();
    let per_row = |pages: i64| bytes(pages) as f64 / tuples.max(1.0);
    Ok(TableShape {
        pages,
        tuples,
        row_bytes: per_row(pages),
        index_bytes: per_row(index_pages),
        fillfactor: fillfactor(&table),
    })
}

fn fillfactor(table: &Open) -> i32 {
    // SAFETY: the relation is open. For a table or a materialized view, and only for these, `rd_options` is null or
    // StdRdOptions.
    unsafe {
        let relation = table.as_ptr();
        let kind = (*(*relation).rd_rel).relkind as u8;
        let options = (*relation).rd_options.cast::<pg_sys::StdRdOptions>();
        if options.is_null() || ![pg_sys::RELKIND_RELATION, pg_sys::RELKIND_MATVIEW].contains(&kind)
        {
            return 100;
        }
        (*options).fillfactor
    }
}

fn bytes(pages: i64) -> i64 {
    pages * i64::from(pg_sys::BLCKSZ)
}

/// Returns the size of PostgreSQL's own cache in bytes.
pub fn shared_buffers_bytes() -> i64 {
    // SAFETY: set when the server starts.
    bytes(i64::from(unsafe { pg_sys::NBuffers }))
}

/// Returns how well the order of a column matches the physical order of the table, from -1 to 1. `None` if the column has no
/// statistics from ANALYZE. Within `spi::connect`.
pub fn correlation(relation: Oid, column: &str) -> Result<Option<f64>> {
    let row = as_extension(|| {
        spi::kept_first(
            "SELECT s.correlation
             FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             JOIN pg_catalog.pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname
             WHERE c.oid = $1 AND s.attname = $2 AND NOT s.inherited",
            &[Arg::Oid(relation), Arg::Text(column)],
        )
    })?;
    row.map_or(Ok(None), |row| row.parse(0))
}
