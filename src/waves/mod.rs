//! Waves: several passes over a region of pages, each of which updates some rows of every page, so that later updates find room on the
//! page and stay heap-only. Nothing here needs a server. See docs/waves.md.

pub mod backoff;
pub mod cost;
pub mod costs;
pub mod dead_versions;
pub mod passes;
pub mod spread;
