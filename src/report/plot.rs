//! A plot as SVG, with axes, units and a legend.

use super::history::Series;
use super::markup::escape;
use crate::throttle::quantity::Shown;

/// Size and margins of the picture, in its own units: small enough for text to stay readable on a phone.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 34.0;
/// Number of colour classes in the stylesheet; one for each series.
const COLOURS: usize = 6;

/// Draws some series over time.
pub fn svg(title: &str, unit: &str, series: &[Series]) -> String {
    let all = || series.iter().flat_map(|one| &one.points);
    let last = all().map(|(at, _)| *at).fold(0.0, f64::max).max(1.0);
    let most = all().map(|(_, value)| *value).fold(0.0, f64::max);
    let (top, step) = scale(most, if unit == "bytes" { 1024.0 } else { 1000.0 });
    let x = |at: f64| LEFT + at / last * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        escape(title)
    );
    let mut value = 0.0;
    while value <= top * 1.0001 {
        let (at, right) = (y(value), WIDTH - RIGHT);
        svg.push_str(&format!(
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0, at + 4.0, escape(&shown(value, unit))
        ));
        value += step;
    }
    let (time, every, factor) = time_axis(last);
    let mut at = 0.0;
    while at <= last * 1.0001 {
        svg.push_str(&format!(
            "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{:.0}</text>",
            x(at),
            HEIGHT - BOTTOM + 16.0,
            at / factor
        ));
        at += every;
    }
    svg.push_str(&format!(
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{time} since the start</text>",
        WIDTH - RIGHT,
        HEIGHT - 4.0
    ));
    for (n, one) in series.iter().enumerate() {
        let points: Vec<String> = one
            .points
            .iter()
            .map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value)))
            .collect();
        svg.push_str(&format!(
            "<polyline class=\"line c{}\" points=\"{}\"/>",
            n % COLOURS,
            points.join(" ")
        ));
    }
    svg.push_str("</svg>");
    svg
}

/// Returns the end of an axis for values up to `most`, and the distance of its marks: 1, 2 or 5 times a power of ten,
/// in the unit that fits.
fn scale(most: f64, base: f64) -> (f64, f64) {
    let most = if most > 0.0 { most } else { 1.0 };
    let mut unit = 1.0;
    while base == 1024.0 && most / unit >= 1024.0 {
        unit *= 1024.0;
    }
    let rough = most / unit / 4.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .iter()
        .map(|m| m * power)
        .find(|step| *step >= rough);
    let step = step.unwrap_or(10.0 * power) * unit;
    ((most / step).ceil() * step, step)
}

/// Returns the unit of the time axis, the distance of its marks in seconds, and the number of seconds in the unit.
fn time_axis(last: f64) -> (&'static str, f64, f64) {
    let (name, factor) = match last {
        ..180.0 => ("seconds", 1.0),
        180.0..10_800.0 => ("minutes", 60.0),
        _ => ("hours", 3600.0),
    };
    let (_, step) = scale(last / factor, 10.0);
    (name, step.max(1.0) * factor, factor)
}

fn shown(value: f64, unit: &str) -> String {
    match unit {
        "bytes" if value > 0.0 => Shown(value as u64).to_string(),
        _ if value >= 1e6 => format!("{}M", trimmed(value / 1e6)),
        _ if value >= 1e4 => format!("{}k", trimmed(value / 1e3)),
        _ => trimmed(value),
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round() {
        assert_eq!(scale(930.0, 1000.0), (1000.0, 500.0));
        assert_eq!(scale(0.0, 1000.0), (1.0, 0.5));
        let mb = 1024.0 * 1024.0;
        assert_eq!(scale(300.0 * mb, 1024.0), (300.0 * mb, 100.0 * mb));
        assert_eq!(time_axis(90.0).0, "seconds");
        assert_eq!(time_axis(4000.0).0, "minutes");
    }

    #[test]
    fn a_series_becomes_a_line_within_the_picture() {
        let series = [Series {
            name: "a".to_owned(),
            points: vec![(0.0, 0.0), (10.0, 2000.0)],
        }];
        let svg = svg("A <plot>", "rows/s", &series);
        assert!(svg.contains("aria-label=\"A &lt;plot&gt;\""), "{svg}");
        assert!(svg.contains("points=\"62.0,186.0 466.0,14.0\""), "{svg}");
        assert!(
            svg.contains(">2000<") && svg.contains("seconds since the start"),
            "{svg}"
        );
    }
}
