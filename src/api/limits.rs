//! Length limits of arguments. They are checked on the value that PostgreSQL holds, before a byte of it is copied.

use crate::error::{Error, Result, sqlstate};

/// Bytes of a clause. A clause is stored, sent to workers and repeated in several statements; thousands of values
/// belong in a table.
pub const CLAUSE: usize = 1 << 20;
/// Bytes of a JSON document: all options together.
pub const JSON: usize = 1 << 20;
/// Bytes of a name, or of one of a few words: the length of PostgreSQL's own names, in any encoding.
pub const NAME: usize = 4 * 63;

/// Refuses an argument that is longer than `most` bytes.
pub fn check(what: &str, bytes: usize, most: usize) -> Result<()> {
    if bytes <= most {
        return Ok(());
    }
    let message = format!("{what} is {bytes} bytes long");
    Err(match most {
        NAME => Error::new(sqlstate::INVALID_NAME, message)
            .hint("A name has 63 bytes at most, like PostgreSQL's own."),
        _ => Error::new(sqlstate::PROGRAM_LIMIT_EXCEEDED, message).hint(format!(
            "It has {most} bytes at most. Put long lists of values into a table, and name that."
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_named() {
        assert!(check("set_clause", CLAUSE, CLAUSE).is_ok());
        let error = check("set_clause", CLAUSE + 1, CLAUSE).expect_err("too long");
        assert_eq!(error.sqlstate, sqlstate::PROGRAM_LIMIT_EXCEEDED);
        assert_eq!(error.message, "set_clause is 1048577 bytes long");
        let error = check("name", NAME + 1, NAME).expect_err("too long");
        assert_eq!(error.sqlstate, sqlstate::INVALID_NAME);
    }
}
