//! Signal handlers of a worker: PostgreSQL's own, so that cancel, terminate, lock_timeout and a
//! fast shutdown work as they do in any backend.

use std::ffi::c_int;

use pgrx::pg_sys;

type Handler = unsafe extern "C-unwind" fn(c_int);

// The wrappers in pg_sys can't be taken as function pointers.
unsafe extern "C-unwind" {
    fn die(signal: c_int);
    fn StatementCancelHandler(signal: c_int);
    fn SignalHandlerForConfigReload(signal: c_int);
    #[cfg_attr(feature = "pg18", link_name = "pqsignal_be")]
    fn pqsignal(signal: c_int, handler: Handler) -> *const std::ffi::c_void;
}

const SIGHUP: c_int = 1;
const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;

/// Installs the handlers and unblocks signals; the first thing a worker does.
pub fn install() {
    unsafe {
        pqsignal(SIGTERM, die);
        pqsignal(SIGINT, StatementCancelHandler);
        pqsignal(SIGHUP, SignalHandlerForConfigReload);
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// Reads postgresql.conf again if a reload was asked for; says whether it was.
pub fn reload_if_asked() -> bool {
    unsafe {
        if pg_sys::ConfigReloadPending == 0 {
            return false;
        }
        pg_sys::ConfigReloadPending = 0;
        pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        true
    }
}
