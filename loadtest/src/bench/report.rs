//! The table of a bench, for a person and as JSON.

use std::fmt;

use serde::Serialize;

use super::Bench;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub figure: String,
    /// What came out.
    pub ours: f64,
    /// What that counts.
    pub unit: &'static str,
    /// What it is held against, in the same unit.
    pub against: Option<f64>,
    /// What that is.
    pub against_what: Option<&'static str>,
    /// Ours, as a multiple of it.
    pub ratio: Option<f64>,
    /// What was to be reached.
    pub target: String,
    /// Whether it was.
    pub reached: bool,
}

impl Row {
    /// A figure of its own, which should be at most `most`.
    pub(super) fn absolute(figure: impl Into<String>, ours: f64, unit: &'static str, most: f64) -> Self {
        Self {
            figure: figure.into(),
            ours,
            unit,
            against: None,
            against_what: None,
            ratio: None,
            target: format!("≤ {most} {unit}"),
            reached: ours <= most,
        }
    }

    /// Beside something else, for comparison.
    pub(super) fn beside(mut self, what: &'static str, against: f64) -> Self {
        self.against = Some(against);
        self.against_what = Some(what);
        self.ratio = Some(self.ours / against);
        self
    }

    /// A figure that should be at most so many times something else.
    pub(super) fn ratio(
        figure: impl Into<String>,
        ours: f64,
        unit: &'static str,
        (what, against): (&'static str, f64),
        most: f64,
    ) -> Self {
        let row = Self::absolute(figure, ours, unit, f64::INFINITY).beside(what, against);
        Self { target: format!("≤ {most} ×"), reached: ours <= against * most, ..row }
    }
}

/// All figures of a run.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// What was asked for, in words.
    pub setting: String,
    /// The figures.
    pub rows: Vec<Row>,
}

impl BenchReport {
    pub(super) fn new(bench: &Bench, rows: Vec<Row>) -> Self {
        let Bench { sessions, idle, body_bytes, seconds, rounds, .. } = bench;
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let setting = format!(
            "{sessions} sessions in one chat, {idle} idle ones, bodies of {body_bytes} bytes, {rounds} slices of \
             {seconds} s each, {cores} cores shared by server, loop and readers"
        );
        Self { setting, rows }
    }
}

impl fmt::Display for BenchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.setting)?;
        writeln!(f, "{:<58} {:>14} {:>26} {:>8}   {:<12}", "", "ours", "against", "ratio", "to reach")?;
        for row in &self.rows {
            let ours = format!("{:.2} {}", row.ours, row.unit);
            let against = match (row.against, row.against_what) {
                (Some(against), Some(what)) => format!("{against:.2} {} {what}", row.unit),
                _ => String::new(),
            };
            let ratio = row.ratio.map(|ratio| format!("{ratio:.2} ×")).unwrap_or_default();
            let verdict = if row.reached { "" } else { "  NOT REACHED" };
            writeln!(
                f,
                "{:<58} {ours:>14} {against:>26} {ratio:>8}   {:<12}{verdict}",
                row.figure, row.target
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_held_against_its_target() {
        assert!(Row::absolute("x", 8.0, "KiB", 8.0).reached);
        assert!(!Row::absolute("x", 8.1, "KiB", 8.0).reached);
        let row = Row::ratio("x", 5.0, "µs", ("bare", 4.0), 1.25);
        assert_eq!((row.reached, row.ratio), (true, Some(1.25)));
        assert!(!Row::ratio("x", 5.1, "µs", ("bare", 4.0), 1.25).reached);
    }
}
