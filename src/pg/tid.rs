//! Places of rows (ctid): read from values of PostgreSQL's types tid and tid[], and built.

use pgrx::pg_sys::{self, Datum};

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

/// Reads a value of type tid.
///
/// # Safety
/// `value` must be a tid, and not NULL.
pub(super) unsafe fn of_datum(value: Datum) -> Tid {
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

/// Reads a value of type tid[]; NULL elements are skipped.
///
/// # Safety
/// `value` must be a tid[], and not NULL.
pub(super) unsafe fn of_array(value: Datum) -> Vec<Tid> {
    let (mut elements, mut nulls, mut n) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
    // SAFETY: as the caller promises; length, passing and alignment are those of tid. It is taken apart into as many
    // elements and null flags as are counted, allocated in the current memory context; each element points into the
    // array, which is the caller's, or a copy in that context.
    unsafe {
        let array = pg_sys::pg_detoast_datum(value.cast_mut_ptr());
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
        values.map(|i| of_datum(*elements.add(i))).collect()
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
