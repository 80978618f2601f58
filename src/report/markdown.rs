//! The report for a ticket or a wiki.

use super::model::{Body, Report};

/// Renders the report as Markdown.
pub fn render(report: &Report) -> String {
    let mut text = format!(
        "# {}\n\n{}\n",
        inline(&report.title()),
        inline(&report.verdict())
    );
    for section in report.sections() {
        text.push_str(&format!("\n## {}\n\n", section.title));
        match section.body {
            Body::Facts(facts) => {
                text.push_str("| | |\n| --- | --- |\n");
                for (name, value) in &facts {
                    text.push_str(&format!("| {} | {} |\n", inline(name), inline(value)));
                }
            }
            Body::Table(head, rows) => {
                text.push_str(&format!(
                    "| {} |\n|{}\n",
                    head.join(" | "),
                    " --- |".repeat(head.len())
                ));
                for row in rows {
                    let cells: Vec<String> = row.iter().map(|cell| inline(cell)).collect();
                    text.push_str(&format!("| {} |\n", cells.join(" | ")));
                }
            }
            Body::Code(code) => {
                // A fence longer than any in the code.
                let longest = code
                    .split(|c| c != '`')
                    .map(str::len)
                    .max()
                    .unwrap_or_default();
                let fence = "`".repeat(longest.max(2) + 1);
                text.push_str(&format!("{fence}sql\n{code}\n{fence}\n"));
            }
        }
    }
    format!("{text}\n{}\n", inline(&report.origin()))
}

/// Escapes text so that it is nothing but text, also within a table.
fn inline(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' => escaped.push(' '),
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '~' | '!' => {
                escaped.push('\\');
                escaped.push(c);
            }
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::example::example;
    use super::inline;

    #[test]
    fn nothing_of_it_is_markup() {
        assert_eq!(inline("a | <b>\n*c*"), "a \\| &lt;b&gt; \\*c\\*");
        let text = super::render(&example());
        assert!(
            text.starts_with("# Backfill 7 \"&lt;b&gt;rates&lt;/b&gt; \\| x\" on orders\n"),
            "{text}"
        );
        assert!(!text.contains("<script>"));
        let table: Vec<&str> = text.lines().filter(|line| line.contains("22012")).collect();
        assert_eq!(table, ["| orders | 1 | 22012 | a \\| b &lt;script&gt; |"]);
    }
}
