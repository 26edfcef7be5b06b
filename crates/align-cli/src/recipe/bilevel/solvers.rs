//! Solvers side by side on a problem whose hyper-gradient is known.
//!
//! ```toml
//! [[stage]]
//! name = "race"
//! kind = "solvers"
//! problem = "portable"
//! eps = [1e-1, 1e-2, 1e-3]
//!
//! [[stage.solver]]
//! name = "double loop, T = 5"
//! sigma_per_eps = 0.3
//! settings = { kind = "double_loop", inner_steps = { kind = "constant", value = 5 } }
//! ```

use align_bilevel::peers::{
    BomeConfig, F2saConfig, FiniteDifferenceConfig, ImplicitConfig, SabaConfig, SobaConfig, UnrolledConfig,
    VPbgdConfig,
};
use align_bilevel::{DoubleLoopConfig, SingleLoopConfig};
use align_core::number::Positive;
use serde::{Deserialize, Serialize};

/// How near to stationary each solver comes for how many gradient calls.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SolversStage {
    /// What is solved.
    #[serde(default)]
    pub(crate) problem: ProblemName,
    /// Where x starts; a point away from the solution if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) x: Option<Vec<f64>>,
    /// Where y starts; the origin if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) y: Option<Vec<f64>>,
    /// Norms of the true hyper-gradient, known in closed form and shown to no solver, that are to be reached.
    #[serde(default = "accuracies")]
    pub(crate) eps: Vec<Positive>,
    /// A run ends after so many gradient calls.
    #[serde(default = "budget")]
    pub(crate) budget: u64,
    /// Who takes part.
    pub(crate) solver: Vec<NamedSolver>,
}

/// The five accuracies of the crate's own experiment.
fn accuracies() -> Vec<Positive> {
    [1e-1, 3e-2, 1e-2, 3e-3, 1e-3].map(Positive::literal).to_vec()
}

/// Enough for finite differences to reach a thousandth on the 10×5 problem.
fn budget() -> u64 {
    30_000
}

/// A solver under a name.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedSolver {
    /// What tables and claims call it.
    pub(crate) name: String,
    /// σ is this times ε, in a run of its own for each ε, instead of what the settings say. For methods with a penalty, whose
    /// bias is of the order of σ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sigma_per_eps: Option<Positive>,
    /// End after so many outer steps, whatever was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) iterations: Option<u64>,
    /// Which method, and its numbers.
    pub(crate) settings: SolverConfig,
}

/// Our two solvers and their peers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum SolverConfig {
    /// Proximal inner steps of two copies, then one step of x.
    DoubleLoop(DoubleLoopConfig),
    /// One step of everything at a time, with recursive momentum.
    SingleLoop(SingleLoopConfig),
    /// F2SA; with `momentum` F3SA.
    F2sa(F2saConfig),
    /// The value-gap penalty.
    VPbgd(VPbgdConfig),
    /// BOME.
    Bome(BomeConfig),
    /// AID by conjugate gradients, or stocBiO by a Neumann series.
    Implicit(ImplicitConfig),
    /// SOBA.
    Soba(SobaConfig),
    /// SABA.
    Saba(SabaConfig),
    /// Truncated back-propagation.
    Unrolled(UnrolledConfig),
    /// The lower level solved anew for every coordinate.
    FiniteDifference(FiniteDifferenceConfig),
}

impl SolverConfig {
    /// The word for the method.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::DoubleLoop(_) => "double_loop",
            Self::SingleLoop(_) => "single_loop",
            Self::F2sa(_) => "f2sa",
            Self::VPbgd(_) => "v_pbgd",
            Self::Bome(_) => "bome",
            Self::Implicit(_) => "implicit",
            Self::Soba(_) => "soba",
            Self::Saba(_) => "saba",
            Self::Unrolled(_) => "unrolled",
            Self::FiniteDifference(_) => "finite_difference",
        }
    }
}

/// A problem whose hyper-gradient is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProblemName {
    /// Ten dimensions below, five above, nonconvex in x.
    #[default]
    Portable,
    /// One dimension each.
    Scalar,
    /// Two dimensions each.
    Vector,
    /// A line of minimisers, among which the upper objective chooses.
    Tied,
    /// A line of minimisers, all alike to the upper objective.
    TiedUniform,
    /// The lower variable lies in [0, 1].
    Boxed,
}

impl ProblemName {
    /// Its word in recipes and results.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Scalar => "scalar",
            Self::Vector => "vector",
            Self::Tied => "tied",
            Self::TiedUniform => "tied_uniform",
            Self::Boxed => "boxed",
        }
    }

    /// Where x starts unless something else is said, and how long y is.
    pub(crate) fn start(self) -> (Vec<f64>, usize) {
        match self {
            Self::Portable => (vec![1.0; 5], 10),
            Self::Scalar => (vec![0.8], 1),
            Self::Vector => (vec![0.7, -0.4], 2),
            Self::Tied | Self::TiedUniform => (vec![2.5], 2),
            Self::Boxed => (vec![0.3], 1),
        }
    }
}
