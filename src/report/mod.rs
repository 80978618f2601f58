//! The record of a job, for people and tools. Nothing here needs a server: the contents are given.

#[cfg(test)]
mod example;
mod history;
mod html;
mod markdown;
mod markup;
mod model;
mod plot;
mod repeat;
mod text;
mod words;

pub use model::Report;
pub use words::lasting;

/// The format of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Plain text for a terminal.
    Text,
    /// JSON for tools.
    Json,
    /// Markdown for a ticket or a wiki.
    Markdown,
    /// One HTML file, with plots.
    Html,
}

impl Format {
    /// Returns the format with this name.
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

/// Renders the report in this format.
pub fn render(report: &Report, format: Format) -> String {
    match format {
        Format::Text => words::printable(&text::render(report)),
        Format::Json => serde_json::to_string_pretty(&report.document).unwrap_or_default(),
        Format::Markdown => words::printable(&markdown::render(report)),
        Format::Html => html::render(report),
    }
}
