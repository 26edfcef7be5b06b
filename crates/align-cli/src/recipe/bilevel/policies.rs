//! Problems above a table of choices: a KL coefficient that is tuned, a reward that is designed.

use align_bilevel::alignment::{DesignConfig, KlTuneConfig};
use align_core::number::Positive;
use serde::{Deserialize, Serialize};

/// One row of numbers for each state.
pub(crate) type Rows = Vec<Vec<f64>>;

/// States, actions and a reference policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TableConfig {
    /// Probabilities of the reference, one row for each state, or a file of JSON with such rows.
    pub(crate) reference: Values,
    /// How often each state occurs; all the same if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) frequency: Option<Vec<f64>>,
}

/// Numbers, or where they lie.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected rows of numbers such as [[0.5, 0.3, 0.2]], or a file of JSON with them"
)]
pub(crate) enum Values {
    /// As they stand.
    Rows(Rows),
    /// A file, or `@stage/file`.
    File(String),
}

/// Tunes β for a policy that maximises a proxy reward, judged by a gold reward.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CoefficientStage {
    /// Where policies live.
    pub(crate) table: TableConfig,
    /// What the policy maximises.
    pub(crate) proxy: Values,
    /// What it is judged by.
    pub(crate) gold: Values,
    /// β to begin with, one run for each.
    #[serde(default = "starts")]
    pub(crate) starts: Vec<Positive>,
    /// σ, steps and when to end.
    #[serde(default)]
    pub(crate) tuning: KlTuneConfig,
}

/// One on each side of most optima: agreement of both ends says that there is one optimum between them.
fn starts() -> Vec<Positive> {
    [0.5, 4.0].map(Positive::literal).to_vec()
}

/// Chooses a reward whose own optimal policy does what an objective wants.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DesignStage {
    /// Where policies live.
    pub(crate) table: TableConfig,
    /// How strongly the policy is held to its reference.
    pub(crate) beta: Positive,
    /// What the policy is wanted for.
    pub(crate) objective: ObjectiveConfig,
    /// The reward to begin with; none at all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) start: Option<Values>,
    /// σ, steps and when to end.
    #[serde(default)]
    pub(crate) design: DesignConfig,
}

/// What a policy is wanted for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ObjectiveConfig {
    /// To explain demonstrations.
    Demonstrations {
        /// How often each action was shown in each state.
        shares: Values,
    },
    /// To earn another reward.
    Gold {
        /// That reward.
        reward: Values,
    },
    /// To have its own answers compared rightly by the reward.
    Preferences {
        /// P(a ≻ b), a matrix for each state, row by row in one list.
        preferred: Values,
    },
}
