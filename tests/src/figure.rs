//! What a benchmark measured, in the form that `hack/bench` reads and prints.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// One figure: how often it was measured, how it was spread, and what it is compared with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    #[serde(rename = "figure")]
    name: String,
    unit: String,
    n: usize,
    min: f64,
    median: f64,
    p99: f64,
    max: f64,
    reference: Option<String>,
    ratio: Option<f64>,
}

impl Figure {
    /// The figure `name` of these measurements, in `unit`.
    ///
    /// # Errors
    /// Nothing was measured.
    pub fn of(name: &str, unit: &str, values: impl Into<Vec<f64>>) -> Result<Self> {
        let mut values = values.into();
        values.sort_by(f64::total_cmp);
        let at = |percent| {
            percentile(&values, percent).with_context(|| format!("{name}: nothing was measured"))
        };
        Ok(Self {
            name: name.to_owned(),
            unit: unit.to_owned(),
            n: values.len(),
            min: at(0)?,
            median: at(50)?,
            p99: at(99)?,
            max: at(100)?,
            reference: None,
            ratio: None,
        })
    }

    /// The same, compared with what `name` did in the same run.
    #[must_use]
    pub fn beside(mut self, name: &str, reference: &Self) -> Self {
        self.reference = Some(format!(
            "{name}: median {:.2}, p99 {:.2}, max {:.2} {}",
            reference.median, reference.p99, reference.max, self.unit
        ));
        self.ratio = Some(self.median / reference.median).filter(|ratio| ratio.is_finite());
        self
    }

    /// What 99 of 100 measurements do not exceed.
    #[must_use]
    pub fn p99(&self) -> f64 {
        self.p99
    }

    /// The largest measurement.
    #[must_use]
    pub fn max(&self) -> f64 {
        self.max
    }
}

/// The smallest of the sorted `values` that at least so many per cent of all do not exceed; nothing of none.
fn percentile(values: &[f64], percent: usize) -> Option<f64> {
    let rank = (values.len() * percent).div_ceil(100);
    values.get(rank.saturating_sub(1)).copied()
}

/// Writes the figures to `file`, or shows them where there is none.
///
/// # Errors
/// The file cannot be written.
pub fn write(file: Option<&Path>, figures: &[Figure]) -> Result<()> {
    let text = serde_json::to_string_pretty(figures)?;
    let Some(file) = file else {
        println!("{text}");
        return Ok(());
    };
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_tells_its_spread_by_nearest_rank() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        let figure = Figure::of("delay", "ms", values).unwrap();
        let spread = [figure.min, figure.median, figure.p99, figure.max];
        assert_eq!(
            spread.map(|value| value.to_string()),
            ["1", "100", "198", "200"]
        );
    }

    #[test]
    fn a_figure_of_nothing_is_an_error() {
        let none = Figure::of("delay", "ms", Vec::new()).unwrap_err();
        assert_eq!(none.to_string(), "delay: nothing was measured");
    }

    #[test]
    fn the_ratio_is_of_medians_and_left_out_where_there_is_none() {
        let ours = Figure::of("delay", "ms", [3.0]).unwrap();
        let theirs = Figure::of("delay", "ms", [2.0]).unwrap();
        assert_eq!(ours.clone().beside("BIRD", &theirs).ratio, Some(1.5));
        let none = Figure::of("delay", "ms", [0.0]).unwrap();
        assert_eq!(ours.beside("BIRD", &none).ratio, None);
    }
}
