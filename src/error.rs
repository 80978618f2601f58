//! The one error type of the extension: what a person gets to see when a call or a batch fails.

use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Serialize};

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// SQLSTATEs used by the extension itself, all of them PostgreSQL's own (Appendix A of its manual).
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
    pub const UNDEFINED_OBJECT: &str = "42704";
    pub const DUPLICATE_OBJECT: &str = "42710";
    pub const INVALID_NAME: &str = "42602";
    pub const OBJECT_IN_USE: &str = "55006";
    pub const NOT_IN_PREREQUISITE_STATE: &str = "55000";
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

/// Where in a text of ours (not of the client's query) the fault lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Character, counted from 1.
    pub character: i32,
    /// The text it is counted in.
    pub text: String,
}

/// An error; boxed, since results are passed around far more often than they fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error(Box<Report>);

/// An error as PostgreSQL reports one: SQLSTATE, message, and what helps to mend it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Five characters, see [`sqlstate`].
    pub sqlstate: String,
    /// One line that names the thing at fault.
    pub message: String,
    /// More about the circumstances.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// PostgreSQL's context lines: function, statement, trigger.
    pub context: Option<String>,
    /// The constraint that was violated.
    pub constraint: Option<String>,
    /// The place of the fault in a clause.
    pub position: Option<Position>,
    /// What the worker does about it, if not just fail. Only its own errors have one: a text can
    /// be anybody's. It means nothing to another process.
    #[serde(skip)]
    pub signal: Option<Signal>,
}

/// What an error of the worker's own means to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Somebody else has taken the slice over.
    Fenced,
    /// The table can't be walked in physical order after all.
    Disproved,
}

impl Error {
    /// An error with an SQLSTATE and a message.
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

    /// A value that makes no sense for its parameter.
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::new(sqlstate::INVALID_PARAMETER_VALUE, message)
    }

    /// A fault of the extension itself.
    pub fn internal(message: impl Into<String>) -> Self {
        Error::new(sqlstate::INTERNAL_ERROR, message)
    }

    /// Adds the HINT.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a sentence to the HINT.
    pub fn and_hint(mut self, hint: &str) -> Self {
        self.hint = Some(match self.hint.take() {
            Some(before) => format!("{before} {hint}"),
            None => hint.to_owned(),
        });
        self
    }

    /// Adds the DETAIL.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds what it means to the worker.
    pub fn signal(mut self, signal: Signal) -> Self {
        self.signal = Some(signal);
        self
    }

    /// Adds the place of the fault: `character` counts from 1 in `text`.
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
