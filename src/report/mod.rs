//! The record of a job, for people and tools. Pure: what is to be said is given.

#[cfg(test)]
mod example;
mod history;
mod html;
mod markdown;
mod model;
mod plot;
mod repeat;
mod text;
mod words;

pub use model::Report;
pub use words::lasting;

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For a terminal.
    Text,
    /// For tools.
    Json,
    /// For a ticket or a wiki.
    Markdown,
    /// One file, with plots.
    Html,
}

impl Format {
    /// By its name.
    pub fn parse(name: &str) -> Option<Format> {
        Some(match name {
            "text" => Format::Text,
            "json" => Format::Json,
            "markdown" => Format::Markdown,
            "html" => Format::Html,
            _ => return None,
        })
    }
}

/// The report, written so.
pub fn render(report: &Report, format: Format) -> String {
    match format {
        Format::Text => words::printable(&text::render(report)),
        Format::Json => serde_json::to_string_pretty(&report.document).unwrap_or_default(),
        Format::Markdown => words::printable(&markdown::render(report)),
        Format::Html => html::render(report),
    }
}
