//! An open relation, whose entry in the relation cache is kept for as long as the value lives.

use pgrx::pg_sys::{self, Oid};

use super::server;

/// An open relation. Dropping it closes the relation, except after an error: then the abort closes what the (sub)transaction has opened.
#[derive(Debug)]
pub(super) struct Open {
    relation: pg_sys::Relation,
    /// The lock to release when the relation is closed, or NoLock.
    lock: pg_sys::LOCKMODE,
}

const SHARE: pg_sys::LOCKMODE = pg_sys::AccessShareLock as pg_sys::LOCKMODE;

impl Open {
    /// Opens a relation under ACCESS SHARE, which is released when this is dropped. `None` if the relation is gone.
    pub fn shared(oid: Oid) -> Option<Open> {
        server::require_transaction();
        // SAFETY: within a transaction, any OID will do: PostgreSQL returns null for one of no relation.
        let relation = unsafe { pg_sys::try_relation_open(oid, SHARE) };
        (!relation.is_null()).then(|| Open {
            relation,
            lock: SHARE,
        })
    }

    /// Opens a relation that the transaction has locked already. Raises an error if it does not exist.
    pub fn locked(oid: Oid) -> Open {
        server::require_transaction();
        let lock = pg_sys::NoLock as pg_sys::LOCKMODE;
        // SAFETY: within a transaction, any OID will do: one of no relation raises an error.
        let relation = unsafe { pg_sys::relation_open(oid, lock) };
        Open { relation, lock }
    }

    /// Opens a table that exists, such as one of the system catalogs, under ACCESS SHARE.
    pub fn table(oid: Oid) -> Open {
        server::require_transaction();
        // SAFETY: within a transaction, any OID will do: one of no table raises an error.
        let relation = unsafe { pg_sys::table_open(oid, SHARE) };
        Open {
            relation,
            lock: SHARE,
        }
    }

    /// Returns the relation's cache entry, which stays in place until this is dropped. The structures that it points to are replaced when
    /// the definition changes, which the lock prevents: read them, and keep no pointers to them.
    pub fn as_ptr(&self) -> pg_sys::Relation {
        self.relation
    }

    /// Returns the number of pages in the relation's main fork.
    pub fn blocks(&self) -> pg_sys::BlockNumber {
        let main = pg_sys::ForkNumber::MAIN_FORKNUM;
        // SAFETY: the relation is open.
        unsafe { pg_sys::RelationGetNumberOfBlocksInFork(self.relation, main) }
    }

    /// Returns the planner's own estimate of the number of rows.
    pub fn estimated_rows(&self) -> f64 {
        let (mut pages, mut rows, mut visible) = (0, 0.0, 0.0);
        let no_widths = std::ptr::null_mut();
        // SAFETY: the relation is open; a null pointer leaves out the widths of its columns, and the others point to variables of
        // this function.
        unsafe {
            pg_sys::estimate_rel_size(
                self.relation,
                no_widths,
                &mut pages,
                &mut rows,
                &mut visible,
            );
        }
        rows
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // An error is on its way to the code that aborts: by now the current resource owner need not be the one that knows of
        // this relation.
        if std::thread::panicking() {
            return;
        }
        // SAFETY: it was opened by this value, is closed nowhere else, and the transaction that it was opened in goes on, since
        // only an error ends a transaction within a function call.
        unsafe { pg_sys::relation_close(self.relation, self.lock) };
    }
}
