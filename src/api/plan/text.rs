//! The plan as text, about 80 columns wide.

use super::Line;

/// Columns of a line.
const WIDTH: usize = 80;
/// Indentation of items, and of their values.
const INDENT: (usize, usize) = (2, 6);

/// Returns the plan: a heading for each section, a paragraph for each item.
pub fn text(lines: &[Line]) -> String {
    let mut text = String::new();
    let mut section = "";
    for line in lines {
        if line.section != section {
            section = &line.section;
            let gap = if text.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{gap}{section}\n"));
        }
        let own_lines = line.value.contains('\n') || line.section == "statements";
        if own_lines {
            text.push_str(&format!("{}{}:\n", " ".repeat(INDENT.0), line.item));
            for part in line.value.lines() {
                text.push_str(&format!("{}{part}\n", " ".repeat(INDENT.1)));
            }
        } else {
            let whole = format!("{}: {}", line.item, line.value);
            wrap(&mut text, &whole, INDENT);
        }
        if let Some(advice) = &line.advice {
            wrap(&mut text, advice, (INDENT.1, INDENT.1));
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// Adds words in lines of [`WIDTH`] columns. The first line and the others have their own indentation.
fn wrap(text: &mut String, words: &str, (first, others): (usize, usize)) {
    let mut line = " ".repeat(first);
    let mut begun = false;
    for word in words.split_whitespace() {
        let wide = line.chars().count() + 1 + word.chars().count() > WIDTH;
        if begun && wide {
            text.push_str(&line);
            text.push('\n');
            line = " ".repeat(others);
            begun = false;
        }
        if begun {
            line.push(' ');
        }
        line.push_str(word);
        begun = true;
    }
    text.push_str(&line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_wider_than_a_terminal_unless_a_word_is() {
        let lines = [
            Line::new("walk", "table", "public.t"),
            Line::new("warnings", "triggers", "word ".repeat(40)).advice("what to do ".repeat(20)),
            Line::new("statements", "batch", "UPDATE t\nWHERE id > $1"),
        ];
        let text = text(&lines);
        assert!(text.starts_with("walk\n  table: public.t\n\nwarnings\n  triggers: word word"));
        assert!(text.ends_with("statements\n  batch:\n      UPDATE t\n      WHERE id > $1"));
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        assert!(text.lines().count() > 10);
    }
}
