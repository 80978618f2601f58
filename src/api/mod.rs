//! What users call. Meets the workers only in the tables.

mod alter;
mod caller;
mod control;
mod define;
mod exports;
mod forget;
mod inspect;
mod launch;
mod session;
mod start;
mod wait;
