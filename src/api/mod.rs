//! What users call. Meets the workers only in the tables.

mod alter;
mod call;
mod caller;
mod checks;
mod control;
mod define;
mod existing;
mod exports;
mod forget;
mod inspect;
mod launch;
mod on_end;
mod retry_failed;
mod session;
mod start;
mod tables;
mod throttles;
mod wait;
