//! The lexical check of a user's clause, before PostgreSQL's parser sees it.
//!
//! A clause becomes part of the extension's own statements. Whatever could end it early, or hide what follows it, must be found first: a
//! semicolon, a comment, an unclosed quote, a parenthesis that closes one outside of the clause. Strings follow
//! `standard_conforming_strings = on`, which define and the worker set.

use crate::error::{Error, Result, sqlstate};

/// Returns the text without white space around it, including Unicode spaces, which PostgreSQL would take for letters.
pub fn trimmed(text: &str) -> &str {
    text.trim()
}

/// Checks that `text` can be put between parentheses in a statement. `what` names the clause in errors.
pub fn check(what: &str, text: &str) -> Result<()> {
    if text.trim().is_empty() {
        return Err(Error::invalid(format!("{what} is empty")).hint(match what {
            "set_clause" => "Write for example 'rate_new = rate_old'.",
            "from" => "Write for example 'rates r'.",
            "statement" => "Write for example 'INSERT INTO history SELECT id, now() FROM batch'.",
            "columns" => "Leave it NULL for the columns of the same names, or write for example 'id, note'.",
            "select_list" => "Leave it NULL for the columns of the same names, or write for example 'id, upper(note)'.",
            "on_conflict" => "Leave it NULL, or write 'error', 'nothing', or what follows ON CONFLICT.",
            "where_clause" => {
                "Leave it NULL to take every row, or write for example 'rate_new IS NULL'."
            }
            _ => "Leave it out, or write what is to be true of each row, as 'rate_new > 0'.",
        }));
    }
    Scanner {
        what,
        text,
        chars: text.char_indices().collect(),
        at: 0,
    }
    .run()
}

struct Scanner<'a> {
    what: &'a str,
    text: &'a str,
    chars: Vec<(usize, char)>,
    at: usize,
}

impl Scanner<'_> {
    fn run(mut self) -> Result<()> {
        let mut open: Vec<(usize, char)> = Vec::new();
        while let Some(c) = self.peek(0) {
            let start = self.at;
            match c {
                '\0' => return Err(self.refuse(start, "a zero byte")),
                ';' => return Err(self.refuse(start, "a semicolon")),
                '-' if self.peek(1) == Some('-') => return Err(self.refuse(start, "a comment")),
                '/' if self.peek(1) == Some('*') => return Err(self.refuse(start, "a comment")),
                '\'' => self.quoted('\'', self.is_escape_string())?,
                '"' => self.quoted('"', false)?,
                '$' => self.dollar()?,
                '(' | '[' => {
                    open.push((start, c));
                    self.at += 1;
                }
                ')' | ']' => {
                    let partner = if c == ')' { '(' } else { '[' };
                    if open.pop().is_none_or(|(_, o)| o != partner) {
                        return Err(self.refuse(start, &format!("an unbalanced \"{c}\"")));
                    }
                    self.at += 1;
                }
                _ if is_word(c) => self.word(),
                _ => self.at += 1,
            }
        }
        match open.pop() {
            Some((start, c)) => Err(self.refuse(start, &format!("an unbalanced \"{c}\""))),
            None => Ok(()),
        }
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).map(|(_, c)| *c)
    }

    /// Steps over an identifier or a number. A `$` inside is part of it and opens no quote.
    fn word(&mut self) {
        while self.peek(0).is_some_and(|c| is_word(c) || c == '$') {
            self.at += 1;
        }
    }

    /// Whether the current quote belongs to E'…', where a backslash escapes.
    fn is_escape_string(&self) -> bool {
        let before = |n: usize| self.at.checked_sub(n).map(|i| self.chars[i].1);
        matches!(before(1), Some('e' | 'E')) && !before(2).is_some_and(|c| is_word(c) || c == '$')
    }

    fn quoted(&mut self, quote: char, backslash: bool) -> Result<()> {
        let start = self.at;
        self.at += 1;
        while let Some(c) = self.peek(0) {
            self.at += 1;
            if backslash && c == '\\' {
                self.at += 1;
            } else if c == quote {
                if self.peek(0) == Some(quote) {
                    self.at += 1;
                } else if !(backslash && self.continued()) {
                    return Ok(());
                }
            }
        }
        Err(self.refuse(start, "an unclosed quote"))
    }

    /// Steps into the next part of a string that continues after a line break. After E'…' that part is an escape string, too, without an E
    /// of its own.
    fn continued(&mut self) -> bool {
        let blank = |c: Option<char>| c.is_some_and(|c| c.is_ascii_whitespace());
        let mut ahead = 0;
        let mut newline = false;
        while blank(self.peek(ahead)) {
            newline |= matches!(self.peek(ahead), Some('\n' | '\r'));
            ahead += 1;
        }
        let goes_on = newline && self.peek(ahead) == Some('\'');
        if goes_on {
            self.at += ahead + 1;
        }
        goes_on
    }

    /// Steps over a dollar quote `$tag$ … $tag$`, or over a lone `$` (a parameter, which the parser refuses).
    fn dollar(&mut self) -> Result<()> {
        let start = self.at;
        let mut end = start + 1;
        while self.chars.get(end).is_some_and(|(_, c)| is_word(*c)) {
            end += 1;
        }
        let digit_first = self
            .chars
            .get(start + 1)
            .is_some_and(|(_, c)| c.is_ascii_digit());
        if digit_first || self.chars.get(end).map(|(_, c)| *c) != Some('$') {
            self.at += 1;
            return Ok(());
        }
        let from = self.chars[start].0;
        let body = self.chars.get(end + 1).map_or(self.text.len(), |(i, _)| *i);
        let tag = &self.text[from..body];
        match self.text[body..].find(tag) {
            Some(found) => {
                let after = body + found + tag.len();
                self.at = self.chars.partition_point(|(i, _)| *i < after);
                Ok(())
            }
            None => Err(self.refuse(start, "an unclosed dollar quote")),
        }
    }

    fn refuse(&self, at: usize, found: &str) -> Error {
        Error::new(sqlstate::SYNTAX_ERROR, format!("{} contains {found}", self.what))
            .hint(format!(
                "{} is one {} and nothing else: no second statement, no comment, quotes and parentheses closed.",
                self.what,
                match self.what {
                    "set_clause" => "SET list",
                    "from" => "item of FROM",
                    "statement" => "INSERT, UPDATE, DELETE, MERGE or SELECT",
                    "columns" => "list of column names",
                    "select_list" => "list of expressions",
                    "on_conflict" => "action",
                    _ => "boolean expression",
                }
            ))
            .at(at as i32 + 1, self.text)
    }
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric() || !c.is_ascii()
}

/// Returns the condition that is true where all of these are; `None` if there are none.
pub fn all_of(conditions: impl IntoIterator<Item = String>) -> Option<String> {
    let conditions: Vec<String> = conditions.into_iter().collect();
    match conditions.as_slice() {
        [] => None,
        [alone] => Some(alone.clone()),
        several => Some(format!("(\n{}\n)", several.join("\n) AND (\n"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (String, i32) {
        let error = check("set_clause", text).expect_err(text);
        (
            error.message.clone(),
            error.position.as_ref().expect("a position").character,
        )
    }

    #[test]
    fn takes_ordinary_clauses() {
        for text in [
            "a = 1",
            "a = 'x;y--z/*', b = \"odd;name\"",
            "a = 'it''s', b = E'it\\'s;' ",
            "a = $$;--$$, b = $tag$ ; $$ $tag$",
            "a = arr[1], b = (SELECT c FROM t WHERE (d))",
            "a = b - -1",
            "a = b / 2 * 3",
            "a$b = 1, c = d$$e$$f",
            "ä = 'ü'",
            "a = 'C:\\', b = 2",
        ] {
            assert_eq!(check("set_clause", text), Ok(()), "{text}");
        }
    }

    #[test]
    fn refuses_what_could_break_out() {
        for (text, what, at) in [
            ("a = 1; DROP TABLE t", "a semicolon", 6),
            ("a = 1 -- x", "a comment", 7),
            ("a = 1 /* x", "a comment", 7),
            ("a = 'x", "an unclosed quote", 5),
            ("a = \"x", "an unclosed quote", 5),
            ("a = $x$ y", "an unclosed dollar quote", 5),
            ("a = 1) , (b", "an unbalanced \")\"", 6),
            ("a = (1", "an unbalanced \"(\"", 5),
            ("a = (1]", "an unbalanced \"]\"", 7),
            ("a = E'x\\'; b", "an unclosed quote", 6),
            ("a = 'x\\'; b = 1", "a semicolon", 9),
            ("ä = 1;", "a semicolon", 6),
            ("a = name'x\\'; b", "a semicolon", 13),
            ("a = E'x'\n'y\\' || '; b", "a semicolon", 19),
        ] {
            let (message, position) = refused(text);
            assert_eq!(
                (message, position),
                (format!("set_clause contains {what}"), at),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_the_empty_clause() {
        assert_eq!(
            check("where_clause", " \n ").unwrap_err().message,
            "where_clause is empty"
        );
    }
}
