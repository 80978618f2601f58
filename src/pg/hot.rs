//! What decides whether updates can be heap-only (HOT), and how many were: indexes, room, counts.

use pgrx::pg_sys::{self, Oid};

use super::elevate::as_extension;
use super::spi::{self, Arg};
use super::text::{lossy, to_server};
use crate::error::{Error, Result, sqlstate};

/// What the indexes of a table mean for an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotFacts {
    /// Indexes that get an entry for each row version that is not heap-only.
    pub indexes: i32,
    /// An index because of which an update of the columns can't be heap-only.
    pub blocked_by: Option<String>,
}

/// What an update of these columns meets. An index is in the way by its columns, included ones
/// too, its expressions and its predicate. What triggers change besides can't be seen from here.
pub fn facts(relation: Oid, set_columns: &[String]) -> Result<HotFacts> {
    let mut columns = numbers(relation, set_columns)?;
    with_relation(relation, |table| unsafe {
        add_generated(table, &mut columns);
        let mut facts = HotFacts {
            indexes: 0,
            blocked_by: None,
        };
        for_each_index(table, |index| {
            if (*(*index).rd_index).indisready {
                facts.indexes += 1;
            }
            if facts.blocked_by.is_none()
                && !is_summarizing(index)
                && columns.meet(&columns_of(index))
            {
                facts.blocked_by = lossy((*(*index).rd_rel).relname.data.as_ptr());
            }
        });
        facts
    })
}

/// Whether an update of these columns locks a row as one that writes a key that foreign keys may refer
/// to.
pub fn writes_key(relation: Oid, set_columns: &[String]) -> Result<bool> {
    let written = numbers(relation, set_columns)?;
    with_relation(relation, |table| unsafe {
        let key = pg_sys::IndexAttrBitmapKind::INDEX_ATTR_BITMAP_KEY;
        pg_sys::bms_overlap(written.0, pg_sys::RelationGetIndexAttrBitmap(table, key))
    })
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
    match unsafe { pg_sys::get_attnum(relation, text.as_ptr()) } {
        0 => Err(Error::new(
            sqlstate::UNDEFINED_COLUMN,
            format!("column \"{name}\" does not exist"),
        )
        .hint("It was dropped or renamed since the job was defined.")),
        number => Ok(i32::from(number)),
    }
}

/// A set of a table's columns by number, in PostgreSQL's own form.
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
        self.0 = unsafe { pg_sys::bms_add_member(self.0, number + WHOLE_ROW) };
    }

    /// Adds the columns that an expression of the table reads.
    unsafe fn add_read_by(&mut self, node: *mut pg_sys::Node) {
        unsafe { pg_sys::pull_varattnos(node, 1, &mut self.0) };
    }

    /// Whether a change of these columns changes what reads those.
    fn meet(&self, read: &Columns) -> bool {
        unsafe { pg_sys::bms_overlap(self.0, read.0) || pg_sys::bms_is_member(WHOLE_ROW, read.0) }
    }
}

/// Adds the stored generated columns that are computed from what is there already. These can't
/// be computed from each other.
unsafe fn add_generated(table: pg_sys::Relation, columns: &mut Columns) {
    unsafe {
        let constr = (*(*table).rd_att).constr;
        if constr.is_null() || !(*constr).has_generated_stored {
            return;
        }
        for n in 0..usize::from((*constr).num_defval) {
            let default = &*(*constr).defval.add(n);
            let stored = pg_sys::ATTRIBUTE_GENERATED_STORED as std::ffi::c_char;
            if pg_sys::get_attgenerated((*table).rd_id, default.adnum) != stored {
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

/// All columns of the table that an index reads.
unsafe fn columns_of(index: pg_sys::Relation) -> Columns {
    unsafe {
        let form = (*index).rd_index;
        let mut columns = Columns::default();
        for number in (*form).indkey.values.as_slice((*form).indnatts as usize) {
            // 0 is an expression.
            if *number != 0 {
                columns.add(i32::from(*number));
            }
        }
        columns.add_read_by(pg_sys::RelationGetIndexExpressions(index).cast());
        columns.add_read_by(pg_sys::RelationGetIndexPredicate(index).cast());
        columns
    }
}

/// Whether an index tells of blocks and not of rows (BRIN): such a one does not stand in the way.
#[cfg(not(feature = "pg15"))]
unsafe fn is_summarizing(index: pg_sys::Relation) -> bool {
    unsafe { (*(*index).rd_indam).amsummarizing }
}

#[cfg(feature = "pg15")]
unsafe fn is_summarizing(_index: pg_sys::Relation) -> bool {
    false
}

/// Calls `f` with each index that has to be kept up to date, also one that is being built.
unsafe fn for_each_index(table: pg_sys::Relation, mut f: impl FnMut(pg_sys::Relation)) {
    let lock = pg_sys::AccessShareLock as i32;
    unsafe {
        let list = pg_sys::RelationGetIndexList(table);
        let length = if list.is_null() { 0 } else { (*list).length };
        for n in 0..length {
            let oid = (*(*list).elements.add(n as usize)).oid_value;
            let index = pg_sys::try_relation_open(oid, lock);
            if !index.is_null() {
                f(index);
                pg_sys::relation_close(index, lock);
            }
        }
        pg_sys::list_free(list);
    }
}

/// Runs `f` on a table. After an error nothing is left to do: the abort closes it.
fn with_relation<T>(oid: Oid, f: impl FnOnce(pg_sys::Relation) -> T) -> Result<T> {
    let lock = pg_sys::AccessShareLock as i32;
    let relation = unsafe { pg_sys::try_relation_open(oid, lock) };
    if relation.is_null() {
        return Err(Error::new(
            sqlstate::UNDEFINED_TABLE,
            format!("relation with OID {oid} does not exist"),
        )
        .hint("It was dropped meanwhile."));
    }
    let result = f(relation);
    unsafe { pg_sys::relation_close(relation, lock) };
    Ok(result)
}

/// Rows of the table that this backend has updated, and those of them that were heap-only, since
/// it last reported its statistics. The difference of two calls in a transaction is what came
/// between them. Both stay 0 where `track_counts` is off.
pub fn xact_counts(relation: Oid) -> (i64, i64) {
    (
        xact_count(relation, pg_sys::F_PG_STAT_GET_XACT_TUPLES_UPDATED),
        xact_count(relation, pg_sys::F_PG_STAT_GET_XACT_TUPLES_HOT_UPDATED),
    )
}

/// The same for the rows that scans of the table have read, whether or not they matched.
pub fn xact_read(relation: Oid) -> i64 {
    xact_count(relation, pg_sys::F_PG_STAT_GET_XACT_TUPLES_RETURNED)
}

fn xact_count(relation: Oid, function: u32) -> i64 {
    let argument = pg_sys::Datum::from(relation);
    let count =
        unsafe { pg_sys::OidFunctionCall1Coll(Oid::from(function), Oid::INVALID, argument) };
    count.value() as i64
}

/// How much room a table and its rows take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TableShape {
    /// Pages of the heap.
    pub pages: i64,
    /// Rows, as the planner estimates them.
    pub tuples: f64,
    /// Bytes of the heap per row.
    pub row_bytes: f64,
    /// Bytes of all indexes per row.
    pub index_bytes: f64,
    /// To how many percent an INSERT fills a page.
    pub fillfactor: i32,
}

impl TableShape {
    /// Rows on a page.
    pub fn rows_per_page(&self) -> f64 {
        self.tuples / self.pages.max(1) as f64
    }

    /// New versions that fit on a page as INSERTs left it.
    pub fn fits(&self) -> f64 {
        let used = f64::from(self.fillfactor.clamp(10, 100));
        self.rows_per_page() * (100.0 - used) / used
    }
}

/// Whether updates are counted at all (`track_counts`).
pub fn counted() -> bool {
    unsafe { pg_sys::pgstat_track_counts }
}

/// The most line pointers that a page of a table has: `MaxHeapTuplesPerPage`, of the smallest rows.
pub const MOST_POINTERS: f64 = ((pg_sys::BLCKSZ as usize - 24) / (24 + 4)) as f64;

/// Measures a table.
pub fn shape(relation: Oid) -> Result<TableShape> {
    with_relation(relation, |table| unsafe {
        let (mut pages, mut tuples, mut visible) = (0, 0.0, 0.0);
        let no_widths = std::ptr::null_mut();
        pg_sys::estimate_rel_size(table, no_widths, &mut pages, &mut tuples, &mut visible);
        // The estimate takes a small table that was never vacuumed for a larger one.
        let pages = blocks(table);
        let mut index_pages = 0;
        for_each_index(table, |index| index_pages += blocks(index));
        let per_row = |pages: i64| bytes(pages) as f64 / tuples.max(1.0);
        let options = (*table).rd_options.cast::<pg_sys::StdRdOptions>();
        TableShape {
            pages,
            tuples,
            row_bytes: per_row(pages),
            index_bytes: per_row(index_pages),
            fillfactor: if options.is_null() {
                100
            } else {
                (*options).fillfactor
            },
        }
    })
}

unsafe fn blocks(relation: pg_sys::Relation) -> i64 {
    let main = pg_sys::ForkNumber::MAIN_FORKNUM;
    i64::from(unsafe { pg_sys::RelationGetNumberOfBlocksInFork(relation, main) })
}

fn bytes(pages: i64) -> i64 {
    pages * i64::from(pg_sys::BLCKSZ)
}

/// The size of PostgreSQL's own cache.
pub fn shared_buffers_bytes() -> i64 {
    bytes(i64::from(unsafe { pg_sys::NBuffers }))
}

/// How well the order of a column is that of the table, from -1 to 1. `None` if the table was not
/// analysed since the column has values. Within `spi::connect`.
pub fn correlation(relation: Oid, column: &str) -> Result<Option<f64>> {
    let row = as_extension(|| {
        spi::first(
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
