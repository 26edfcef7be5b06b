//! Algorithms that warn while they work, and a bar above which that is printed.

use std::path::Path;

use align_models::{Transformer, ValueModel};
use align_nash::SelfPlay;
use align_ppo::Ppo;
use align_superhf::SuperHf;
use align_train::{Algorithm, Metrics, TrainError};
use indicatif::ProgressBar;

use crate::context::Context;

/// What came up in an iteration.
pub(super) trait Warns: Algorithm {
    /// Since the last call.
    fn warnings(&mut self) -> Vec<String>;
}

/// The texts of an algorithm's own warnings.
macro_rules! warns {
    ($($algorithm:ty),+) => {
        $(impl Warns for $algorithm {
            fn warnings(&mut self) -> Vec<String> {
                self.take_warnings().iter().map(ToString::to_string).collect()
            }
        })+
    };
}
warns!(Ppo<Transformer, ValueModel>, SelfPlay<Transformer>, SuperHf<Transformer>);

/// Prints what an algorithm warns of, above the bar.
pub(super) struct Warned<'a> {
    pub(super) title: &'a str,
    pub(super) bar: ProgressBar,
    pub(super) algorithm: &'a mut dyn Warns,
}

impl<'a> Warned<'a> {
    /// Prints what is known before the first iteration, once in a run.
    pub(super) fn new(
        title: &'a str,
        bar: ProgressBar,
        algorithm: &'a mut dyn Warns,
        context: &Context,
    ) -> Self {
        for warning in algorithm.warnings().into_iter().filter(|warning| context.is_new(warning)) {
            eprintln!("{title}: warning: {warning}");
        }
        Self { title, bar, algorithm }
    }
}

impl Algorithm for Warned<'_> {
    fn iterate(&mut self, step: u64) -> Result<Metrics, TrainError> {
        let metrics = self.algorithm.iterate(step)?;
        for warning in self.algorithm.warnings() {
            self.bar.suspend(|| eprintln!("{}: step {}: warning: {warning}", self.title, step + 1));
        }
        Ok(metrics)
    }

    fn save(&self, folder: &Path) -> Result<(), TrainError> {
        self.algorithm.save(folder)
    }

    fn restore(&mut self, folder: &Path) -> Result<(), TrainError> {
        self.algorithm.restore(folder)
    }
}
