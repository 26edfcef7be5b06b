//! Metrics on the terminal.

use std::io::Write;

use crate::error::TrainError;
use crate::metrics::Metrics;
use crate::observer::{Control, Observer};

/// Prints a line every so many iterations, on standard error.
#[derive(Clone, Debug)]
pub struct Console {
    every: u64,
    steps: u64,
    only: Vec<String>,
}

impl Console {
    /// Every `every` iterations, and at the last one.
    pub fn every(every: u64) -> Self {
        Self { every: every.max(1), steps: 0, only: Vec::new() }
    }

    /// Only these metrics, in this order.
    #[must_use]
    pub fn only(mut self, names: &[&str]) -> Self {
        self.only = names.iter().map(|&name| name.to_owned()).collect();
        self
    }

    /// The line for one iteration: `step 20/200 · loss 1.234 · lr 2e-5`.
    pub fn line(&self, step: u64, metrics: &Metrics) -> String {
        let values: Vec<(&str, f64)> = if self.only.is_empty() {
            metrics.iter().collect()
        } else {
            self.only.iter().filter_map(|name| Some((name.as_str(), metrics.get(name)?))).collect()
        };
        let values: String =
            values.iter().map(|(name, value)| format!(" · {name} {}", short(*value))).collect();
        format!("step {step}/{}{values}", self.steps)
    }
}

impl Observer for Console {
    fn started(&mut self, _: u64, steps: u64) -> Result<(), TrainError> {
        self.steps = steps;
        Ok(())
    }

    fn iterated(&mut self, step: u64, metrics: &Metrics) -> Result<Control, TrainError> {
        if step.is_multiple_of(self.every) || step == self.steps {
            // A terminal that went away is no reason to end a run.
            let _ = writeln!(std::io::stderr(), "{}", self.line(step, metrics));
        }
        Ok(Control::Continue)
    }
}

/// Four significant digits; small and large numbers in scientific notation.
pub(crate) fn short(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || (1e-3..1e5).contains(&size) {
        let digits = if size < 1.0 { 4 } else { 3usize.saturating_sub(size.log10().floor() as usize) };
        format!("{value:.digits$}")
    } else {
        format!("{value:.2e}")
    }
}
