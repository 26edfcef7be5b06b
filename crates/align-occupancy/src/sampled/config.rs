//! The settings of a sampled run.

use serde::{Deserialize, Serialize};

use super::penalty::Penalty;
use crate::error::{OccupancyError, positive};

/// What a cell of the occupancy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cells {
    /// A state with an action.
    #[default]
    StateActions,
    /// A state alone: enough where the rewards depend on nothing else.
    States,
}

/// Where log ρ comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RatioSource {
    /// A discriminator, from the batches.
    #[default]
    Discriminator,
    /// Linear solves: what a perfect discriminator would say, and χ² itself in the place of its estimate.
    Exact,
    /// Always 0. A control: the run must equal the one without regularisation.
    Frozen,
    /// A discriminator told at random which batch is which. A control: the effect must vanish.
    Shuffled,
}

/// What is subtracted from the reward.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Regularizer {
    /// Nothing.
    None {},
    /// λ times a divergence of occupancies.
    Occupancy {
        /// Which divergence.
        penalty: Penalty,
        /// Its weight, in units of the proxy; for √χ², start from σ_R̃·√(1 − r²).
        lambda: f64,
        /// What the occupancy is of.
        #[serde(default)]
        cells: Cells,
        /// Where its ratio comes from.
        #[serde(default)]
        source: RatioSource,
    },
    /// λ times KL(π(·|s) ‖ π_ref(·|s)) at each visited state: the customary penalty. As a reward, `R̃ − λ·log(π/π_ref)`,
    /// so that its effect on what is visited counts.
    Actions {
        /// Its weight, in units of the proxy.
        lambda: f64,
    },
}

/// Settings of [`Learner`](super::Learner). The defaults suit worlds of tens of states.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LearnerConfig {
    /// What is subtracted from the reward.
    pub regularizer: Regularizer,
    /// Robots that follow the policy; as many follow the reference.
    pub robots: usize,
    /// Steps of each robot in an iteration.
    pub steps: usize,
    /// λ of generalised advantage estimation.
    pub gae_lambda: f64,
    /// Of Adam, on the policy's logits.
    pub policy_learning_rate: f64,
    /// The part of the way that a state's value goes towards the mean of its targets in an iteration.
    pub value_learning_rate: f64,
    /// Of Adam, on the discriminator's logits.
    pub discriminator_learning_rate: f64,
    /// Adam's steps on each pair of batches. The released code takes few, and its loss then stays near 2·log 2.
    pub discriminator_steps: usize,
    /// A penalty is kept within ± this; the proxy is not clipped.
    pub penalty_clip: f64,
    /// The share of a batch left out of χ̂² at either end.
    pub trim: f64,
    /// d is taken as no larger than this in a penalty: e^20 is beyond any clip, and finite.
    pub largest_log_ratio: f64,
}

impl Default for LearnerConfig {
    fn default() -> Self {
        Self {
            regularizer: Regularizer::None {},
            robots: 64,
            steps: 64,
            gae_lambda: 0.95,
            policy_learning_rate: 0.05,
            value_learning_rate: 0.5,
            discriminator_learning_rate: 0.05,
            discriminator_steps: 40,
            penalty_clip: 50.0,
            trim: 0.01,
            largest_log_ratio: 20.0,
        }
    }
}

impl LearnerConfig {
    /// Every number in its range.
    ///
    /// # Errors
    /// On the first that is not, by its name.
    pub fn check(&self) -> Result<(), OccupancyError> {
        let share = |name, found, range, inside: bool| {
            if inside { Ok(()) } else { Err(OccupancyError::Setting { name, range, found }) }
        };
        for (name, found) in [
            ("robots", self.robots as f64),
            ("steps", self.steps as f64),
            ("policy_learning_rate", self.policy_learning_rate),
            ("discriminator_learning_rate", self.discriminator_learning_rate),
            ("penalty_clip", self.penalty_clip),
            ("largest_log_ratio", self.largest_log_ratio),
        ] {
            positive(name, found)?;
        }
        let range = |x: f64| (0.0..=1.0).contains(&x);
        share("gae_lambda", self.gae_lambda, "in [0, 1]", range(self.gae_lambda))?;
        let value = self.value_learning_rate;
        share("value_learning_rate", value, "in (0, 1]", range(value) && value > 0.0)?;
        share("trim", self.trim, "in [0, 0.5)", (0.0..0.5).contains(&self.trim))?;
        match self.regularizer {
            Regularizer::None {} => {}
            Regularizer::Occupancy { lambda, .. } | Regularizer::Actions { lambda } => {
                positive("lambda", lambda)?;
            }
        }
        Ok(())
    }
}
