//! A progress bar.

use indicatif::{ProgressBar, ProgressStyle};

use crate::console::short;
use crate::error::TrainError;
use crate::metrics::Metrics;
use crate::observer::{Control, Observer};

/// A bar on standard error with the iterations done, the time left and some metrics; silent where there is no terminal.
#[derive(Clone, Debug)]
pub struct Progress {
    bar: ProgressBar,
    shown: Vec<String>,
}

impl Progress {
    /// A bar that shows these metrics.
    pub fn new(title: &str, shown: &[&str]) -> Self {
        let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} · {eta} left{msg}");
        let bar = ProgressBar::no_length().with_prefix(title.to_owned());
        if let Ok(style) = style {
            bar.set_style(style);
        }
        Self { bar, shown: shown.iter().map(|&name| name.to_owned()).collect() }
    }

    /// The bar itself, to print lines above it.
    pub fn bar(&self) -> &ProgressBar {
        &self.bar
    }
}

impl Observer for Progress {
    fn started(&mut self, step: u64, steps: u64) -> Result<(), TrainError> {
        self.bar.set_length(steps);
        self.bar.set_position(step);
        // The time before this step is not a measure of what is to come.
        self.bar.reset_eta();
        Ok(())
    }

    fn iterated(&mut self, step: u64, metrics: &Metrics) -> Result<Control, TrainError> {
        let values = self.shown.iter().filter_map(|name| Some((name, metrics.get(name)?)));
        let message: String = values.map(|(name, value)| format!(" · {name} {}", short(value))).collect();
        self.bar.set_message(message);
        self.bar.set_position(step);
        Ok(Control::Continue)
    }

    fn finished(&mut self, _: u64) -> Result<(), TrainError> {
        self.bar.abandon();
        Ok(())
    }
}
