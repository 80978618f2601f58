//! PostgreSQL's lists.

use pgrx::pg_sys::{self, Oid};

/// What the cells of a list hold, copied out of it, so that the list can change or go. Null is the empty list.
///
/// # Safety
/// `list` must be null or point to a list of PostgreSQL's whose cells are pointers to `T`.
pub(super) unsafe fn pointers<T>(list: *const pg_sys::List) -> Vec<*mut T> {
    // SAFETY: as the caller promises; the tag is looked at before the cells are read as pointers.
    unsafe {
        cells(list, pg_sys::NodeTag::T_List, |cell| {
            cell.ptr_value.cast::<T>()
        })
    }
}

/// The same for a list of OIDs.
///
/// # Safety
/// `list` must be null or point to a list of PostgreSQL's.
pub(super) unsafe fn oids(list: *const pg_sys::List) -> Vec<Oid> {
    // SAFETY: as the caller promises; the tag is looked at before the cells are read as OIDs.
    unsafe { cells(list, pg_sys::NodeTag::T_OidList, |cell| cell.oid_value) }
}

/// The one element of a list of pointers to `T`; `None` if there is not exactly one, or if it is null.
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

/// A list of these pointers, in the current memory context; null if there is none.
pub(super) fn of<T>(items: impl IntoIterator<Item = *mut T>) -> *mut pg_sys::List {
    items.into_iter().fold(std::ptr::null_mut(), |list, item| {
        // SAFETY: the list is null or was made in here just now. What is put into it is not looked at.
        unsafe { pg_sys::lappend(list, item.cast()) }
    })
}

/// # Safety
/// `list` must be null or point to a list of PostgreSQL's; `value` may take of a cell what a list with that tag has.
unsafe fn cells<T>(
    list: *const pg_sys::List,
    tag: pg_sys::NodeTag,
    value: impl Fn(&pg_sys::ListCell) -> T,
) -> Vec<T> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: since PostgreSQL 13 a list is an array of `length` cells, all of the kind that its tag
    // says. It is not empty: an empty one is null.
    unsafe {
        assert_eq!((*list).type_, tag, "a list of another kind");
        std::slice::from_raw_parts((*list).elements, (*list).length as usize)
            .iter()
            .map(value)
            .collect()
    }
}
