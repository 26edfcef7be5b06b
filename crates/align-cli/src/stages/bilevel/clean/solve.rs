//! The double loop as a training: step by step, saved and taken up again to the last bit.

use std::io::BufReader;
use std::path::Path;

use align_bilevel::alignment::{Cleaning, ModulePairs, auc, effective_sample_size};
use align_bilevel::{Calls, DoubleLoop, Oracle, Parameters, Solver};
use align_core::persist::{PersistError, replace_file};
use align_models::RewardModel;
use align_train::{Algorithm, Metrics, TrainError};
use serde::{Deserialize, Serialize};

use super::pairs::PairSet;

/// The problem of a stage.
pub(super) type Problem = Cleaning<ModulePairs<RewardModel, PairSet, PairSet>>;
/// Its solver.
type Loop = DoubleLoop<Vec<f64>, Parameters>;

/// The state's file in a checkpoint.
const STATE: &str = "cleaning.json";

/// Everything that is needed to go on.
#[derive(Serialize, Deserialize)]
struct State<S> {
    solver: S,
    calls: Calls,
}

/// Weights under way.
pub(super) struct Weighing<'a> {
    problem: &'a Problem,
    solver: Loop,
    oracle: Oracle<'a, Problem>,
    /// Which labels are wrong, where that is known; it is only reported.
    flipped: Option<&'a [bool]>,
}

impl<'a> Weighing<'a> {
    pub(super) fn new(problem: &'a Problem, solver: Loop, flipped: Option<&'a [bool]>) -> Self {
        Self { problem, solver, oracle: Oracle::new(problem), flipped }
    }

    /// The logits of the weights.
    pub(super) fn logits(&self) -> &Vec<f64> {
        Solver::<Problem>::x(&self.solver)
    }

    /// What was asked of the oracle.
    pub(super) fn calls(&self) -> Calls {
        self.oracle.calls()
    }
}

impl Algorithm for Weighing<'_> {
    fn iterate(&mut self, _: u64) -> Result<Metrics, TrainError> {
        let step = self.solver.step(&self.oracle).map_err(TrainError::algorithm)?;
        let weights = self.problem.weights().all(self.logits());
        let mut metrics = Metrics::new()
            .with("clean/hyper_gradient", step.gradient_norm)
            .with("clean/calls", self.calls().total() as f64)
            .with("clean/mean_weight", weights.iter().sum::<f64>() / weights.len() as f64)
            .with("clean/effective_sample_size", effective_sample_size(&weights));
        for (name, value) in [
            ("clean/sigma", step.sigma),
            ("clean/residual", step.residual),
            ("clean/auc", self.flipped.and_then(|flipped| auc(&weights, flipped))),
        ] {
            if let Some(value) = value {
                metrics.set(name, value);
            }
        }
        Ok(metrics)
    }

    fn save(&self, folder: &Path) -> Result<(), TrainError> {
        let state = State { solver: &self.solver, calls: self.calls() };
        // Compact: there is a number for every parameter of two models.
        Ok(replace_file(&folder.join(STATE), |file| Ok(serde_json::to_writer(file, &state)?))?)
    }

    fn restore(&mut self, folder: &Path) -> Result<(), TrainError> {
        let path = folder.join(STATE);
        let file = std::fs::File::open(&path).map_err(PersistError::read(&path))?;
        let state: State<Loop> =
            serde_json::from_reader(BufReader::new(file)).map_err(|error| PersistError::Damaged {
                path,
                expected: "the state of a cleaning".to_owned(),
                found: error.to_string(),
            })?;
        self.solver = state.solver;
        self.oracle = Oracle::resumed(self.problem, state.calls);
        Ok(())
    }
}
