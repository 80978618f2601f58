//! A table's pages: how many there are, which file they are in, and pruning them.

use pgrx::pg_sys::{self, Datum, Oid};

use super::elevate::as_extension;
use super::open::Open;
use super::spi::{self, Arg, RawRow};
use crate::error::Result;

/// The place of a row: its page and its line pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tid {
    /// The page.
    pub block: u32,
    /// The line pointer on it.
    pub offset: u16,
}

impl Tid {
    /// Reads its text form, `(page,line pointer)`.
    pub fn parse(text: &str) -> Option<Tid> {
        let inner = text.strip_prefix('(')?.strip_suffix(')')?;
        let (block, offset) = inner.split_once(',')?;
        Some(Tid {
            block: block.parse().ok()?,
            offset: offset.parse().ok()?,
        })
    }
}

/// The number of pages, and the file that they are in; `None` if the table is gone. Within
/// `spi::connect`.
pub fn pages(relation: Oid) -> Result<Option<(i64, Oid)>> {
    let row = as_extension(|| {
        spi::first(
            "SELECT pg_catalog.pg_relation_size($1, 'main') / pg_catalog.current_setting('block_size')::pg_catalog.int8,
                    pg_catalog.pg_relation_filenode($1)::pg_catalog.int8",
            &[Arg::Oid(relation)],
        )
    })?;
    let Some(row) = row else { return Ok(None) };
    Ok(row
        .parse(0)?
        .zip(row.parse::<u32>(1)?)
        .map(|(pages, file)| (pages, Oid::from(file))))
}

/// Removes versions that nobody can see any more from the pages of these rows, as reading them by a
/// scan would: what a fetch by TID doesn't do. The table must be locked. Pages that a VACUUM has
/// cut off meanwhile are left out.
pub fn prune(relation: Oid, tids: &[Tid]) {
    let mut blocks: Vec<u32> = tids.iter().map(|tid| tid.block).collect();
    blocks.dedup();
    let heap = Open::locked(relation);
    let pages = heap.blocks();
    for block in blocks.into_iter().filter(|block| *block < pages) {
        // SAFETY: the relation is open and locked, and the page is one of its own: only a VACUUM that
        // holds ACCESS EXCLUSIVE could cut it off after it was counted. Pruning needs the pin, and
        // takes a lock on the page by itself if it gets one at once; errors leave the pin to the abort.
        unsafe {
            let buffer = pg_sys::ReadBuffer(heap.as_ptr(), block);
            pg_sys::heap_page_prune_opt(heap.as_ptr(), buffer);
            pg_sys::ReleaseBuffer(buffer);
        }
    }
}

/// Bytes that the pages of these rows, which come in order, have for new versions. The table must be locked.
pub fn room(relation: Oid, tids: &[Tid]) -> Vec<usize> {
    let mut blocks: Vec<u32> = tids.iter().map(|tid| tid.block).collect();
    blocks.dedup();
    let heap = Open::locked(relation);
    let pages = heap.blocks();
    let within = blocks.into_iter().filter(|block| *block < pages);
    let room = |block| {
        // SAFETY: as in `prune`. The page is only looked at, under a lock that keeps others from changing it; errors leave both
        // the pin and the lock to the abort.
        unsafe {
            let buffer = pg_sys::ReadBuffer(heap.as_ptr(), block);
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            let room = pg_sys::PageGetHeapFreeSpace(pg_sys::BufferGetPage(buffer));
            pg_sys::UnlockReleaseBuffer(buffer);
            room
        }
    };
    within.map(room).collect()
}

/// Reads a tid[] column; NULL is no element. An error for a column of another type.
pub fn tids(row: &RawRow, column: usize) -> Result<Vec<Tid>> {
    let Some(array) = row.of_type(column, pg_sys::TIDARRAYOID)? else {
        return Ok(Vec::new());
    };
    let (mut elements, mut nulls, mut n) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
    // SAFETY: the value is a tid[], and length, passing and alignment are those of tid. What it is taken apart
    // into are as many elements and marks of NULL as are counted, allocated in the current memory context;
    // each element points into the array, which is the row's, or a copy in that context.
    unsafe {
        let array = pg_sys::pg_detoast_datum(array.cast_mut_ptr());
        pg_sys::deconstruct_array(
            array.cast(),
            pg_sys::TIDOID,
            size_of::<pg_sys::ItemPointerData>() as i32,
            false,
            pg_sys::TYPALIGN_SHORT as _,
            &mut elements,
            &mut nulls,
            &mut n,
        );
        let values = (0..n as usize).filter(|i| !*nulls.add(*i));
        Ok(values.map(|i| tid(*elements.add(i))).collect())
    }
}

/// Reads a value of type tid.
///
/// # Safety
/// `value` must be one, and not NULL.
pub(super) unsafe fn tid(value: Datum) -> Tid {
    // SAFETY: as the caller promises: then it points to such a struct, aligned as PostgreSQL aligns a tid.
    unsafe {
        let pointer: *const pg_sys::ItemPointerData = value.cast_mut_ptr();
        Tid {
            block: u32::from((*pointer).ip_blkid.bi_hi) << 16
                | u32::from((*pointer).ip_blkid.bi_lo),
            offset: (*pointer).ip_posid,
        }
    }
}

/// A tid[] of these, in the current memory context.
pub(super) fn array(tids: &[Tid]) -> Datum {
    let pointers: Vec<pg_sys::ItemPointerData> = tids
        .iter()
        .map(|tid| pg_sys::ItemPointerData {
            ip_blkid: pg_sys::BlockIdData {
                bi_hi: (tid.block >> 16) as u16,
                bi_lo: tid.block as u16,
            },
            ip_posid: tid.offset,
        })
        .collect();
    let mut elements: Vec<Datum> = pointers
        .iter()
        .map(|pointer| Datum::from(std::ptr::from_ref(pointer)))
        .collect();
    // SAFETY: as many elements as are counted, each a pointer to a tid that lives until this returns. Length,
    // passing and alignment are those of tid. The elements are copied.
    unsafe {
        let array = pg_sys::construct_array(
            elements.as_mut_ptr(),
            elements.len() as i32,
            pg_sys::TIDOID,
            size_of::<pg_sys::ItemPointerData>() as i32,
            false,
            pg_sys::TYPALIGN_SHORT as _,
        );
        Datum::from(array)
    }
}
