//! The extension's only error type: what a user sees when a call or a batch fails.

use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Serialize};

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// SQLSTATEs that the extension itself uses. All of them are PostgreSQL's own (Appendix A of its manual).
pub mod sqlstate {
    #![allow(missing_docs)]
    pub const NULL_VALUE_NOT_ALLOWED: &str = "22004";
    pub const INVALID_PARAMETER_VALUE: &str = "22023";
    pub const ACTIVE_SQL_TRANSACTION: &str = "25001";
    pub const READ_ONLY_SQL_TRANSACTION: &str = "25006";
    pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
    pub const SYNTAX_ERROR: &str = "42601";
    pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
    pub const WRONG_OBJECT_TYPE: &str = "42809";
    pub const UNDEFINED_TABLE: &str = "42P01";
    pub const UNDEFINED_COLUMN: &str = "42703";
    pub const AMBIGUOUS_PARAMETER: &str = "42P08";
    pub const CARDINALITY_VIOLATION: &str = "21000";
    pub const UNDEFINED_OBJECT: &str = "42704";
    pub const DUPLICATE_OBJECT: &str = "42710";
    pub const INVALID_NAME: &str = "42602";
    pub const OBJECT_IN_USE: &str = "55006";
    pub const NOT_IN_PREREQUISITE_STATE: &str = "55000";
    pub const INVALID_COLUMN_REFERENCE: &str = "42P10";
    pub const NOT_NULL_VIOLATION: &str = "23502";
    pub const UNIQUE_VIOLATION: &str = "23505";
    pub const CHECK_VIOLATION: &str = "23514";
    pub const SERIALIZATION_FAILURE: &str = "40001";
    pub const DEADLOCK_DETECTED: &str = "40P01";
    pub const QUERY_CANCELED: &str = "57014";
    pub const OUT_OF_MEMORY: &str = "53200";
    pub const CONFIGURATION_LIMIT_EXCEEDED: &str = "53400";
    pub const LOCK_NOT_AVAILABLE: &str = "55P03";
    pub const PROGRAM_LIMIT_EXCEEDED: &str = "54000";
    pub const UNTRANSLATABLE_CHARACTER: &str = "22P05";
    pub const CRASH_SHUTDOWN: &str = "57P02";
    pub const INTERNAL_ERROR: &str = "XX000";
}

/// Place of an error in a text of the extension's own (not in the client's query).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Character position, counted from 1.
    pub character: i32,
    /// The text that `character` is counted in.
    pub text: String,
}

/// An error. Boxed, since results are passed around far more often than they fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error(Box<Report>);

/// The contents of an error, as PostgreSQL reports one: SQLSTATE, message, and whatever helps to fix the cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// SQLSTATE of five characters, see [`sqlstate`].
    pub sqlstate: String,
    /// One line that names the object at fault.
    pub message: String,
    /// DETAIL: more about the circumstances.
    pub detail: Option<String>,
    /// HINT: advice to the user.
    pub hint: Option<String>,
    /// CONTEXT: PostgreSQL's lines about function, statement, trigger.
    pub context: Option<String>,
    /// Name of the violated constraint.
    pub constraint: Option<String>,
    /// Place of the error in a clause.
    pub position: Option<Position>,
    /// Reaction of the worker, if it does not simply fail. Only errors that the worker itself raised carry a signal, because a
    /// message could come from any code. Signals are not passed to other processes.
    #[serde(skip)]
    pub signal: Option<Signal>,
}

/// Meaning, to the worker, of an error that the worker itself raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Another process has taken over the slice.
    Fenced,
    /// It turned out that the table can't be walked in physical order.
    Disproved,
}

impl Error {
    /// Creates an error with an SQLSTATE and a message.
    pub fn new(sqlstate: &str, message: impl Into<String>) -> Self {
        Error(Box::new(Report {
            sqlstate: sqlstate.to_owned(),
            message: message.into(),
            detail: None,
            hint: None,
            context: None,
            constraint: None,
            position: None,
            signal: None,
        }))
    }

    /// Creates an error for a value that its parameter does not accept.
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::new(sqlstate::INVALID_PARAMETER_VALUE, message)
    }

    /// Creates an error for a bug in the extension itself.
    pub fn internal(message: impl Into<String>) -> Self {
        Error::new(sqlstate::INTERNAL_ERROR, message)
    }

    /// Sets the HINT.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Appends a sentence to the HINT.
    pub fn and_hint(mut self, hint: &str) -> Self {
        self.hint = Some(match self.hint.take() {
            Some(before) => format!("{before} {hint}"),
            None => hint.to_owned(),
        });
        self
    }

    /// Sets the DETAIL.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Sets what the error means to the worker.
    pub fn signal(mut self, signal: Signal) -> Self {
        self.signal = Some(signal);
        self
    }

    /// Sets the place of the error: `character` counts from 1 in `text`.
    pub fn at(mut self, character: i32, text: impl Into<String>) -> Self {
        self.position = Some(Position {
            character,
            text: text.into(),
        });
        self
    }
}

impl Deref for Error {
    type Target = Report;

    fn deref(&self) -> &Report {
        &self.0
    }
}

impl DerefMut for Error {
    fn deref_mut(&mut self) -> &mut Report {
        &mut self.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.sqlstate)
    }
}

impl std::error::Error for Error {}
