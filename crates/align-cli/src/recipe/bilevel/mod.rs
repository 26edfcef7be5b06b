//! Bilevel optimisation: solvers on problems with known answers, cleaned preference data, tuned coefficients, designed
//! rewards.

mod bias;
mod clean;
mod policies;
mod solvers;

use align_bilevel::alignment::{CleanConfig, LinearWorldConfig};
use align_core::number::Positive;
use serde::{Deserialize, Serialize};

pub(crate) use bias::{BiasCase, BiasProblem, BiasStage};
pub(crate) use clean::{Arm, CleanStage, StartFrom, WeighConfig};
pub(crate) use policies::{CoefficientStage, DesignStage, ObjectiveConfig, Rows, TableConfig, Values};
pub(crate) use solvers::{NamedSolver, ProblemName, SolverConfig, SolversStage};

/// Cleaning in worlds whose best reward is linear and known: what the method is worth where everything can be checked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LinearCleaningStage {
    /// How many worlds; their seeds count on from `world.seed`.
    #[serde(deserialize_with = "super::parts::at_least_one")]
    pub(crate) worlds: usize,
    /// Every world.
    pub(crate) world: LinearWorldConfig,
    /// How its pairs are cleaned.
    pub(crate) cleaning: CleanConfig,
    /// C of the lower level, and of every reward that is fitted for comparison.
    pub(crate) ridge: Positive,
}

impl Default for LinearCleaningStage {
    /// Ten worlds, enough to tell two points of accuracy from chance.
    fn default() -> Self {
        Self {
            worlds: 10,
            world: LinearWorldConfig::default(),
            cleaning: CleanConfig::default(),
            ridge: Positive::literal(0.01),
        }
    }
}
