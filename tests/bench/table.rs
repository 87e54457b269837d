//! Aligned tables, medians, and the targets.

use crate::chart::Chart;
use std::time::Duration;

/// A table that is printed when all of it is known.
pub struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns; the first holds names.
    pub fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        let header = columns.iter().map(|column| (*column).to_owned()).collect();
        Self { title: title.into(), rows: vec![header] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Prints it.
    pub fn print(&self) {
        println!("\n{}", self.title);
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|at| {
                let cells = self.rows.iter().filter_map(|row| row.get(at));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, width))| {
                if at == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            println!("  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
    }
}

/// The value below which this part of them lies.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len().saturating_sub(1)) as f64 * part;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    match (sorted.get(low), sorted.get(high)) {
        (Some(low_value), Some(high_value)) => {
            low_value + (high_value - low_value) * (at - low as f64)
        }
        _ => f64::NAN,
    }
}

/// The value in the middle.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Milliseconds.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// A number with one digit after the point; a dash where there is none.
pub fn one(value: f64) -> String {
    if value.is_nan() { "-".to_owned() } else { format!("{value:.1}") }
}

/// What nexcage promises of itself, with what was measured.
#[derive(Default)]
pub struct Targets {
    all: Vec<(String, f64, bool, f64, &'static str)>,
    /// The figures that are worth a picture.
    pub chart: Chart,
}

impl Targets {
    /// A figure that must not be above `limit`.
    pub fn at_most(
        &mut self,
        what: impl Into<String>,
        measured: f64,
        limit: f64,
        unit: &'static str,
    ) {
        self.all.push((what.into(), measured, true, limit, unit));
    }

    /// A figure that must not be below `limit`.
    pub fn at_least(
        &mut self,
        what: impl Into<String>,
        measured: f64,
        limit: f64,
        unit: &'static str,
    ) {
        self.all.push((what.into(), measured, false, limit, unit));
    }

    /// Prints them.
    pub fn print(&self) {
        let mut table = Table::new("nexcage's targets", &["what", "measured", "target", ""]);
        for (what, measured, most, limit, unit) in &self.all {
            let reached = if *most { measured <= limit } else { measured >= limit };
            let sign = if *most { "≤" } else { "≥" };
            table.row(vec![
                what.clone(),
                format!("{} {unit}", one(*measured)),
                format!("{sign} {limit} {unit}"),
                if reached { "ok".to_owned() } else { "MISSED".to_owned() },
            ]);
        }
        table.print();
    }
}
