//! The C entry points behind `sql/functions.sql`. They only convert arguments and errors.

mod arguments;
mod internal;
mod jobs;
mod looks;
mod named;
