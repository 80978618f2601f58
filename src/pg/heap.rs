//! Pages of a table: their number, their file, their free space, and pruning.

use pgrx::pg_sys::{self, Oid};

use super::elevate::as_extension;
use super::open::Open;
use super::spi::{self, Arg};
use super::tid::Tid;
use crate::error::Result;

/// Returns the size of the table in bytes: its pages, and what is out of line. Within `spi::connect`.
pub fn bytes(relation: Oid) -> Result<i64> {
    let row =
        as_extension(|| spi::first("SELECT pg_catalog.pg_table_size($1)", &[Arg::Oid(relation)]))?;
    row.map_or(Ok(0), |row| row.number(0))
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
