//! The report for a terminal.

use super::model::{Body, Report};

/// Renders the report as plain text.
pub fn render(report: &Report) -> String {
    let title = report.title();
    let mut text = format!(
        "{title}\n{}\n{}\n",
        "=".repeat(title.chars().count()),
        report.verdict()
    );
    for section in report.sections() {
        text.push_str(&format!(
            "\n{}\n{}\n",
            section.title,
            "-".repeat(section.title.chars().count())
        ));
        match section.body {
            Body::Facts(facts) => {
                let width = facts.iter().map(|(name, _)| name.chars().count()).max();
                for (name, value) in &facts {
                    text.push_str(&row(&[name, value], &[width.unwrap_or_default()]));
                }
            }
            Body::Table(head, rows) => {
                let mut widths: Vec<usize> = head.iter().map(|name| name.chars().count()).collect();
                for row in &rows {
                    for (width, cell) in widths.iter_mut().zip(row) {
                        *width = cell.chars().count().max(*width);
                    }
                }
                widths.pop();
                let head: Vec<String> = head.iter().map(|name| (*name).to_owned()).collect();
                for cells in std::iter::once(&head).chain(&rows) {
                    let cells: Vec<&String> = cells.iter().collect();
                    text.push_str(&row(&cells, &widths));
                }
            }
            Body::Code(code) => text.push_str(&format!("{code}\n")),
        }
    }
    format!("{text}\n{}\n", report.origin())
}

/// Puts cells side by side. The last one is not padded; its further lines are indented below its first.
fn row<T: AsRef<str>>(cells: &[T], widths: &[usize]) -> String {
    let mut text = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        text.push_str(&format!("{:width$}  ", one_line(cell.as_ref())));
    }
    let indent = format!("\n{}", " ".repeat(text.chars().count()));
    let last = cells.get(widths.len()).map_or("", AsRef::as_ref);
    text.push_str(&last.replace('\n', &indent));
    format!("{}\n", text.trim_end())
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::super::example::example;

    #[test]
    fn values_stand_below_each_other() {
        let text = super::render(&example());
        assert!(
            text.contains(
                "\nPassed   1,234,567\nUpdated  1,234,560, 88.5 % of them heap-only: without a new entry"
            ),
            "{text}"
        );
        assert!(
            text.contains("2026-11-23 14:00:00+00:00  app  define  pending"),
            "{text}"
        );
        assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
    }
}
