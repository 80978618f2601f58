//! Signal handlers of a worker. They are PostgreSQL's own, so that cancel, terminate, lock_timeout and a fast shutdown work as they do
//! in any backend.

use std::ffi::c_int;

use pgrx::pg_sys;

type Handler = unsafe extern "C-unwind" fn(c_int);

// From tcop/tcopprot.h, postmaster/interrupt.h and port.h. The wrappers in pg_sys can't be used as function pointers. The same in the
// headers of PostgreSQL 15, 16 and 18, except for the result of pqsignal: the previous handler, and nothing from 18 on. The result is
// not used.
unsafe extern "C-unwind" {
    fn die(signal: c_int);
    fn StatementCancelHandler(signal: c_int);
    fn SignalHandlerForConfigReload(signal: c_int);
    #[cfg_attr(feature = "pg18", link_name = "pqsignal_be")]
    fn pqsignal(signal: c_int, handler: Handler);
}

const SIGHUP: c_int = 1;
const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;

/// Installs the handlers and unblocks signals. A worker calls this first.
pub fn install() {
    // SAFETY: the handlers are the server's own, made for these signals in each process that runs transactions: they set flags
    // and the latch. Signals are blocked until the last line, so no signal arrives while the handlers are only partly installed.
    unsafe {
        pqsignal(SIGTERM, die);
        pqsignal(SIGINT, StatementCancelHandler);
        pqsignal(SIGHUP, SignalHandlerForConfigReload);
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// Reads postgresql.conf again if a reload was requested. Returns whether it was.
pub fn reload_if_asked() -> bool {
    // SAFETY: the flag is set by a signal handler, and cleared before the file is read, so no reload is lost. Workers call this
    // between transactions, as PostgreSQL's own processes do.
    unsafe {
        if pg_sys::ConfigReloadPending == 0 {
            return false;
        }
        pg_sys::ConfigReloadPending = 0;
        pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        true
    }
}
