//! A relation that is open: its entry in the cache of relations is kept as long as this lives.

use pgrx::pg_sys::{self, Oid};

use super::server;

/// An open relation, which is closed when this is dropped. After an error that is the abort's work: it
/// closes what the transaction, or the subtransaction, has opened.
#[derive(Debug)]
pub(super) struct Open {
    relation: pg_sys::Relation,
    /// The lock that goes with it, or NoLock.
    lock: pg_sys::LOCKMODE,
}

const SHARE: pg_sys::LOCKMODE = pg_sys::AccessShareLock as pg_sys::LOCKMODE;

impl Open {
    /// Opens a relation under a lock of its own (ACCESS SHARE), which is let go with it. `None` if it
    /// is gone.
    pub fn shared(oid: Oid) -> Option<Open> {
        server::require_transaction();
        // SAFETY: within a transaction, any OID will do: PostgreSQL gives null for one of no relation.
        let relation = unsafe { pg_sys::try_relation_open(oid, SHARE) };
        (!relation.is_null()).then(|| Open {
            relation,
            lock: SHARE,
        })
    }

    /// Opens a relation that the transaction has locked already. Raises an error if there is none.
    pub fn locked(oid: Oid) -> Open {
        server::require_transaction();
        let lock = pg_sys::NoLock as pg_sys::LOCKMODE;
        // SAFETY: within a transaction, any OID will do: one of no relation raises an error.
        let relation = unsafe { pg_sys::relation_open(oid, lock) };
        Open { relation, lock }
    }

    /// Opens a table of the system catalogs, or another that exists, under ACCESS SHARE.
    pub fn table(oid: Oid) -> Open {
        server::require_transaction();
        // SAFETY: within a transaction, any OID will do: one of no table raises an error.
        let relation = unsafe { pg_sys::table_open(oid, SHARE) };
        Open {
            relation,
            lock: SHARE,
        }
    }

    /// The entry of the cache, which stays where it is until this is dropped. What hangs below it is
    /// replaced when the definition changes, which the lock keeps from happening: read it, and keep
    /// no pointer into it.
    pub fn as_ptr(&self) -> pg_sys::Relation {
        self.relation
    }

    /// How many pages its main fork has.
    pub fn blocks(&self) -> pg_sys::BlockNumber {
        let main = pg_sys::ForkNumber::MAIN_FORKNUM;
        // SAFETY: the relation is open.
        unsafe { pg_sys::RelationGetNumberOfBlocksInFork(self.relation, main) }
    }

    /// The planner's own estimate of its rows.
    pub fn estimated_rows(&self) -> f64 {
        let (mut pages, mut rows, mut visible) = (0, 0.0, 0.0);
        let no_widths = std::ptr::null_mut();
        // SAFETY: the relation is open; the widths of its columns may be left out by a null pointer,
        // and the others point to variables of this function.
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
        // An error is on its way to whoever aborts: by now the current resource owner need not be the
        // one that knows of this relation.
        if std::thread::panicking() {
            return;
        }
        // SAFETY: it was opened by this value, is closed nowhere else, and the transaction goes on
        // that it was opened in, since only an error ends one within a function call.
        unsafe { pg_sys::relation_close(self.relation, self.lock) };
    }
}
