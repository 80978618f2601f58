//! Reads and builds PostgreSQL's lists.

use pgrx::pg_sys::{self, Oid};

/// Returns the pointers in the cells of a list, copied, so that the list can change or go. Null is the empty list.
///
/// # Safety
/// `list` must be null or point to a PostgreSQL list whose cells are pointers to `T`.
pub(super) unsafe fn pointers<T>(list: *const pg_sys::List) -> Vec<*mut T> {
    // SAFETY: as the caller promises; the tag is checked before the cells are read as pointers.
    unsafe {
        cells(list, pg_sys::NodeTag::T_List, |cell| {
            cell.ptr_value.cast::<T>()
        })
    }
}

/// Returns the OIDs in the cells of a list of OIDs, copied. Null is the empty list.
///
/// # Safety
/// `list` must be null or point to a PostgreSQL list.
pub(super) unsafe fn oids(list: *const pg_sys::List) -> Vec<Oid> {
    // SAFETY: as the caller promises; the tag is checked before the cells are read as OIDs.
    unsafe { cells(list, pg_sys::NodeTag::T_OidList, |cell| cell.oid_value) }
}

/// Returns the only element of a list of pointers to `T`; `None` if there is not exactly one, or if it is null.
///
/// # Safety
/// As for [`pointers`].
pub(super) unsafe fn only<T>(list: *const pg_sys::List) -> Option<*mut T> {
    // SAFETY: as the caller promises.
    match unsafe { pointers::<T>(list) }.as_slice() {
        [one] if !one.is_null() => Some(*one),
        _ => None,
    }
}

/// Builds a list of these pointers, in the current memory context; null if there are none.
pub(super) fn of<T>(items: impl IntoIterator<Item = *mut T>) -> *mut pg_sys::List {
    items.into_iter().fold(std::ptr::null_mut(), |list, item| {
        // SAFETY: the list is null or was just made in here. The item put into it is not read.
        unsafe { pg_sys::lappend(list, item.cast()) }
    })
}

/// # Safety
/// `list` must be null or point to a PostgreSQL list; `value` may read only the member of a cell that lists with that tag use.
unsafe fn cells<T>(
    list: *const pg_sys::List,
    tag: pg_sys::NodeTag,
    value: impl Fn(&pg_sys::ListCell) -> T,
) -> Vec<T> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: since PostgreSQL 13 a list is an array of `length` cells, all of the kind that its tag tells. It is not empty: an
    // empty list is null.
    unsafe {
        assert_eq!((*list).type_, tag, "a list of another kind");
        std::slice::from_raw_parts((*list).elements, (*list).length as usize)
            .iter()
            .map(value)
            .collect()
    }
}
