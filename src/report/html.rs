//! The report as one HTML file that loads nothing else: styles and plots are in it, and there is no script.

use super::markup::escape;
use super::model::{Body, Report, Section};
use super::plot;

const STYLE: &str = "
:root{color-scheme:light dark;--fg:#1c2430;--dim:#5b6675;--bg:#fff;--card:#f5f7fa;--line:#d8dee6;--good:#1a7f4b;--bad:#b42318;--busy:#8a5a00;
--c0:#1f6feb;--c1:#d9730d;--c2:#1a7f4b;--c3:#8250df;--c4:#b42318;--c5:#0e7490}
@media(prefers-color-scheme:dark){:root{--fg:#e6eaf0;--dim:#9aa6b5;--bg:#12161c;--card:#1b212a;--line:#323b47;--good:#4ac38a;--bad:#ff8a80;--busy:#e0b050;
--c0:#6ea8fe;--c1:#f0a35e;--c2:#4ac38a;--c3:#b79bff;--c4:#ff8a80;--c5:#5cc8dc}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif}
main{max-width:1100px;margin:0 auto;padding:24px 16px 48px}h1{font-size:1.5rem;line-height:1.25;margin:0 0 8px;overflow-wrap:anywhere}
h2{font-size:1.05rem;margin:32px 0 8px}h3{font-size:.9rem;margin:0 0 4px;font-weight:600}h3 small{color:var(--dim);font-weight:400}
.verdict{font-weight:600;margin:0;overflow-wrap:anywhere}.completed{color:var(--good)}.failed,.cancelled{color:var(--bad)}.other{color:var(--busy)}
.grid2{display:grid;gap:0 32px;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr))}
.plots{display:grid;gap:16px;grid-template-columns:repeat(auto-fill,minmax(min(100%,420px),1fr))}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px}
svg{display:block;width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:var(--dim)}.grid{stroke:var(--line)}
.line{fill:none;stroke-width:2;stroke-linejoin:round}.c0{stroke:var(--c0)}.c1{stroke:var(--c1)}.c2{stroke:var(--c2)}.c3{stroke:var(--c3)}.c4{stroke:var(--c4)}.c5{stroke:var(--c5)}
figcaption{font-size:.85rem;color:var(--dim);display:flex;flex-wrap:wrap;gap:4px 16px;margin-top:6px}figcaption svg{width:18px;height:8px;display:inline-block;margin-right:6px}
dl{display:grid;grid-template-columns:minmax(7rem,max-content) 1fr;gap:4px 16px;margin:0}dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere;white-space:pre-wrap}
table{border-collapse:collapse;width:100%;font-size:.9rem}th{text-align:left;color:var(--dim);font-weight:400}td,th{padding:4px 12px 4px 0;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px;overflow-x:auto;white-space:pre-wrap;overflow-wrap:anywhere;font:13px/1.5 ui-monospace,monospace}
footer{margin-top:40px;color:var(--dim);font-size:.85rem}
@media(max-width:560px){dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:8px}thead{display:none}td{display:block;border:0;padding:0}td[data-of]:not([data-of=''])::before{content:attr(data-of) ' ';color:var(--dim)}tr{display:block;padding:6px 0;border-bottom:1px solid var(--line)}}
@media print{main{max-width:none;padding:0}figure,tr,dl{break-inside:avoid}}
";

/// Renders the report as HTML.
pub fn render(report: &Report) -> String {
    let title = escape(&report.title());
    let mood = report.mood();
    let mut sections = report.sections().into_iter();
    let mut body = String::new();
    // The sections about the job and its figures stand side by side where there is room.
    body.push_str("<div class=\"grid2\">");
    let first: Vec<Section> = sections.by_ref().take(3).collect();
    if let [what, rest @ ..] = first.as_slice() {
        let rest: String = rest.iter().map(of_section).collect();
        body.push_str(&format!("<div>{}</div><div>{rest}</div>", of_section(what)));
    }
    body.push_str("</div>");
    body.push_str(&plots(report));
    body.extend(sections.map(|section| of_section(&section)));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head><body><main><h1>{title}</h1><p class=\"verdict {mood}\">{}</p>{body}\
         <footer>{}</footer></main></body></html>\n",
        escape(&report.verdict()),
        escape(&report.origin())
    )
}

fn plots(report: &Report) -> String {
    let plots = report.plots();
    if plots.is_empty() {
        return String::new();
    }
    let mut html = "<h2>History</h2><div class=\"plots\">".to_owned();
    for (title, unit, series) in plots {
        let legend: String = series
            .iter()
            .enumerate()
            .map(|(n, one)| {
                format!(
                    "<span><svg viewBox=\"0 0 18 8\" aria-hidden=\"true\"><line class=\"line c{}\" x1=\"0\" y1=\"4\" x2=\"18\" y2=\"4\"/></svg>{}</span>",
                    n % 6,
                    escape(&one.name)
                )
            })
            .collect();
        html.push_str(&format!(
            "<figure><h3>{} <small>{}</small></h3>{}<figcaption>{legend}</figcaption></figure>",
            escape(title),
            escape(unit),
            plot::svg(title, unit, &series)
        ));
    }
    html.push_str("</div>");
    html
}

fn of_section(section: &Section) -> String {
    let body = match &section.body {
        Body::Facts(facts) => {
            let facts: String = facts
                .iter()
                .map(|(name, value)| format!("<dt>{}</dt><dd>{}</dd>", escape(name), escape(value)))
                .collect();
            format!("<dl>{facts}</dl>")
        }
        Body::Table(head, rows) => {
            let titles: String = head
                .iter()
                .map(|name| format!("<th>{}</th>", escape(name)))
                .collect();
            // Some layouts show a row as a block, so each cell carries its column's name.
            let cell = |(name, cell): (&&str, &String)| {
                format!("<td data-of=\"{}\">{}</td>", escape(name), escape(cell))
            };
            let row = |cells: &Vec<String>| {
                let cells: String = head.iter().zip(cells).map(cell).collect();
                format!("<tr>{cells}</tr>")
            };
            let rows: String = rows.iter().map(row).collect();
            format!("<table><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table>")
        }
        Body::Code(code) => format!("<pre>{}</pre>", escape(code)),
    };
    format!(
        "<section><h2>{}</h2>{body}</section>",
        escape(section.title)
    )
}

#[cfg(test)]
mod tests {
    use super::super::example::example;
    use super::*;

    #[test]
    fn nothing_of_it_is_markup_and_nothing_is_asked_for() {
        let html = render(&example());
        assert!(
            html.contains("&lt;script&gt;") && !html.contains("<script"),
            "{html}"
        );
        assert!(html.contains("&lt;b&gt;rates&lt;/b&gt;"));
        for asking in ["src=", "href=", "url(", "@import", "http://", "https://"] {
            assert!(!html.contains(asking), "{asking}");
        }
        assert_eq!(html.matches("<svg viewBox=\"0 0 480").count(), 3);
        assert_eq!(escape("\u{1}\"'"), "\u{fffd}&quot;&#39;");
    }
}
