//! Pages of a table: their number, their file, their free space, and pruning.

use pgrx::pg_sys::{self, Datum, Oid};

use super::elevate::as_extension;
use super::open::Open;
use super::spi::{self, Arg, RawRow};
use crate::error::Result;

/// The ctid of a row: its page and its line pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tid {
    /// Number of the page.
    pub block: u32,
    /// Number of the line pointer on the page.
    pub offset: u16,
}

impl Tid {
    /// Parses the text form, `(page,line pointer)`.
    pub fn parse(text: &str) -> Option<Tid> {
        let inner = text.strip_prefix('(')?.strip_suffix(')')?;
        let (block, offset) = inner.split_once(',')?;
        Some(Tid {
            block: block.parse().ok()?,
            offset: offset.parse().ok()?,
        })
    }
}

/// Returns the number of pages and the filenode of the table; `None` if the table is gone. Within `spi::connect`.
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

/// Removes row versions that nobody can see any more from the pages of these rows, as a scan that reads them would; fetching rows by
/// TID does not prune. The table must be locked. Pages that a VACUUM has truncated meanwhile are skipped.
pub fn prune(relation: Oid, tids: &[Tid]) {
    let mut blocks: Vec<u32> = tids.iter().map(|tid| tid.block).collect();
    blocks.dedup();
    let heap = Open::locked(relation);
    let pages = heap.blocks();
    for block in blocks.into_iter().filter(|block| *block < pages) {
        // SAFETY: the relation is open and locked, and the page is one of its own: only a VACUUM that holds ACCESS EXCLUSIVE
        // could truncate it after it was counted. Pruning needs the pin, and takes a lock on the page by itself if the lock
        // is free; errors leave the pin to the abort.
        unsafe {
            let buffer = pg_sys::ReadBuffer(heap.as_ptr(), block);
            pg_sys::heap_page_prune_opt(heap.as_ptr(), buffer);
            pg_sys::ReleaseBuffer(buffer);
        }
    }
}

/// Returns, for each page of these rows (in order), the number of bytes free for new versions. The table must be locked.
pub fn room(relation: Oid, tids: &[Tid]) -> Vec<usize> {
    let mut blocks: Vec<u32> = tids.iter().map(|tid| tid.block).collect();
    blocks.dedup();
    let heap = Open::locked(relation);
    let pages = heap.blocks();
    let within = blocks.into_iter().filter(|block| *block < pages);
    let room = |block| {
        // SAFETY: as in `prune`. The page is only read, under a lock that keeps others from changing it; errors leave both the pin
        // and the lock to the abort.
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

/// Reads a tid[] column; NULL elements are skipped, and a NULL array is empty. Returns an error for a column of another type.
pub fn tids(row: &RawRow, column: usize) -> Result<Vec<Tid>> {
    let Some(array) = row.of_type(column, pg_sys::TIDARRAYOID)? else {
        return Ok(Vec::new());
    };
    let (mut elements, mut nulls, mut n) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
    // SAFETY: the value is a tid[], and length, passing and alignment are those of tid. It is taken apart into as many
    // elements and null flags as are counted, allocated in the current memory context; each element points into the
    // array, which is the row's, or a copy in that context.
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
/// `value` must be a tid, and not NULL.
pub(super) unsafe fn tid(value: Datum) -> Tid {
    // SAFETY: as the caller promises: the value points to such a struct, aligned as PostgreSQL aligns a tid.
    unsafe {
        let pointer: *const pg_sys::ItemPointerData = value.cast_mut_ptr();
        Tid {
            block: u32::from((*pointer).ip_blkid.bi_hi) << 16
                | u32::from((*pointer).ip_blkid.bi_lo),
            offset: (*pointer).ip_posid,
        }
    }
}

/// Builds a tid[] of these, in the current memory context.
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
    // SAFETY: the pointer and the count describe one vector, whose elements point to tids that live until this returns.
    // Length, passing and alignment are those of tid. The elements are copied.
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
