//! The history of a job as plots: the series that a report draws.

use serde_json::Value;

use super::model::Report;

/// Least number of points of a line that is worth drawing: two only make a straight line.
const TELLING: usize = 3;

/// A series of the history.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Name of the series.
    pub name: String,
    /// Points: seconds since the first sample, and the value.
    pub points: Vec<(f64, f64)>,
}

impl Report {
    /// Returns the plots: title, unit, and series of each.
    pub fn plots(&self) -> Vec<(&'static str, &'static str, Vec<Series>)> {
        let samples = self.list("samples");
        let one = |field: &str, name: &str| Series {
            name: name.to_owned(),
            points: points(samples, |sample| sample[field].as_f64()),
        };
        let mut plots = vec![
            (
                "Rate",
                "rows/s",
                vec![one("rows_per_second", "rows passed")],
            ),
            ("Batch", "ms", vec![one("batch_ms", "last batch")]),
            (
                "Lag of the furthest-behind standby or slot",
                "bytes",
                vec![one("lag_bytes", "lag")],
            ),
            ("Waiting, of each interval", "s", waits(samples)),
        ];
        plots.retain(|(_, _, series)| series.iter().any(|one| one.points.len() >= TELLING));
        plots
    }
}

/// Returns the seconds of waiting, one series for each signal.
fn waits(samples: &[Value]) -> Vec<Series> {
    let mut names: Vec<String> = Vec::new();
    for sample in samples {
        for name in sample["throttled_by"]
            .as_object()
            .into_iter()
            .flat_map(|by| by.keys())
        {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
    }
    let series = names.into_iter().map(|name| Series {
        points: points(samples, |sample| {
            Some(sample["throttled_by"][&name].as_f64().unwrap_or_default())
        }),
        name,
    });
    series.collect()
}

fn points(samples: &[Value], value: impl Fn(&Value) -> Option<f64>) -> Vec<(f64, f64)> {
    let at = |sample: &Value| sample["second"].as_f64();
    samples
        .iter()
        .filter_map(|sample| at(sample).zip(value(sample)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::example::example;

    #[test]
    fn only_what_has_a_history_is_drawn() {
        let plots = example().plots();
        let titles: Vec<&str> = plots.iter().map(|(title, ..)| *title).collect();
        assert_eq!(titles, ["Rate", "Batch", "Waiting, of each interval"]);
    }
}
