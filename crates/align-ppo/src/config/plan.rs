//! The batch sizes spelt out, and what cannot be.

use std::fmt;

use align_core::Regularizer;
use align_core::regularizer::{Coefficient, RegularizerError, Site};

use super::{AdvantageEstimator, PpoConfig};
use crate::rewards::MissingStop;

/// How a rollout is cut up. Every number counts sequences unless its name says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPlan {
    /// Sequences collected, scored and whitened together.
    pub rollout_batch: usize,
    /// Prompts of a rollout; each is answered `rollout_batch / prompts` times.
    pub prompts: usize,
    /// Sequences of an optimiser step.
    pub minibatch: usize,
    /// Sequences that go through a model at once.
    pub microbatch: usize,
    /// Optimiser steps of one iteration: epochs × minibatches.
    pub steps_per_iteration: usize,
    /// Iterations of the whole run.
    pub iterations: usize,
}

impl fmt::Display for BatchPlan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} iterations, each of {} sequences ({} prompts x {}); {} optimiser steps an iteration, \
             each of {} sequences, {} at a time",
            self.iterations,
            self.rollout_batch,
            self.prompts,
            self.rollout_batch / self.prompts,
            self.steps_per_iteration,
            self.minibatch,
            self.microbatch,
        )
    }
}

/// Settings that contradict each other.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A count that must not be 0.
    #[error("`{name}` is 0, expected at least 1")]
    Zero {
        /// The setting.
        name: &'static str,
    },
    /// One size must be a multiple of another.
    #[error("`{whole_name}` is {whole}, expected a multiple of `{part_name}`, {part}")]
    NotAMultiple {
        /// The larger setting.
        whole_name: &'static str,
        /// Its value.
        whole: usize,
        /// The smaller setting.
        part_name: &'static str,
        /// Its value.
        part: usize,
    },
    /// The rollout batch cannot be cut into that many minibatches.
    #[error("`num_mini_batches` is {count}, expected a divisor of `rollout_batch`, {rollout_batch}")]
    MiniBatches {
        /// Sequences of a rollout.
        rollout_batch: usize,
        /// How many minibatches were asked for.
        count: usize,
    },
    /// Two settings that say the same.
    #[error("found both `{first}` and `{second}`, expected one of them")]
    TwoNames {
        /// One.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// k1 has no gradient on average.
    #[error(
        "`kl_estimator` is k1 and the regulariser stands in the loss, expected k2, k3 or k3_plus: \
         the expected gradient of k1 is zero"
    )]
    K1InLoss,
    /// An estimator that exists only as a loss.
    #[error(
        "`kl_estimator` is k3_plus and the regulariser stands in the reward, expected k1, k2 or k3: \
         k3_plus differs from k3 in its gradient only"
    )]
    EstimatorOfLoss,
    /// Adaptive β starts at 0 and would stay there.
    #[error(
        "`kl_coef` is {found} beside `kl_target`, expected a number > 0: an adaptive coefficient of 0 stays 0"
    )]
    AdaptiveBeta {
        /// What it was.
        found: f64,
    },
    /// A horizon of nothing.
    #[error(
        "`kl_horizon` is given and `kl_target` is not, expected both or neither: a fixed coefficient has no horizon"
    )]
    HorizonWithoutTarget,
    /// Filters bias the ratio.
    #[error(
        "`top_k` is {top_k} and `top_p` is {top_p}, expected 0 and 1: the ratio is that of softmax(logits / temperature), \
         and a filtered sampler draws from another distribution (negative KL follows); \
         set `importance_cap` (2 to 3) to weigh tokens by the difference"
    )]
    BiasedSampling {
        /// top-k.
        top_k: usize,
        /// top-p.
        top_p: f64,
    },
    /// An estimator over groups needs groups.
    #[error(
        "`num_generations` is {found}, expected at least 2: this `advantage_estimator` compares responses to one prompt"
    )]
    NoGroups {
        /// What it was.
        found: usize,
    },
    /// The stop penalty has nothing to look for.
    #[error(
        "`{name}` is given and `stop_token_ids` is empty, expected at least one stop token: every response would be punished"
    )]
    NoStopToken {
        /// The penalty's name.
        name: &'static str,
    },
    /// A dual clip that would bind at once.
    #[error("`dual_clip` is {found}, expected more than 1: it bounds the loss from c times the advantage on")]
    DualClip {
        /// What it was.
        found: f64,
    },
    /// A decay of 1 would never take anything in.
    #[error("`{name}` is 1, expected a number in [0, 1): a running mean that forgets nothing learns nothing")]
    AdamBeta {
        /// Which of the two.
        name: &'static str,
    },
    /// A divergence at a granularity at which it means nothing.
    #[error("`regularizer`: {0}")]
    Regularizer(#[from] RegularizerError),
    /// β in deviations of the reward, where rewards or advantages are in other units.
    #[error(
        "`coefficient` is of kind reward_std and `{setting}` {why}, expected one of them: β would count in deviations of \
         something that is in deviations already"
    )]
    RewardUnits {
        /// The other setting.
        setting: &'static str,
        /// What it does.
        why: &'static str,
    },
    /// Adaptive β would leave the positive numbers.
    #[error(
        "`rollout_batch` is {rollout_batch} and `kl_horizon` is {horizon}, expected a rollout of fewer than five horizons"
    )]
    ShortHorizon {
        /// Sequences of a rollout.
        rollout_batch: usize,
        /// The horizon.
        horizon: f64,
    },
}

impl PpoConfig {
    /// The batch sizes spelt out, after every setting was checked against the others.
    ///
    /// # Errors
    /// [`ConfigError`] names the settings that do not go together.
    pub fn plan(&self) -> Result<BatchPlan, ConfigError> {
        let minibatch = self.minibatch.unwrap_or(self.rollout_batch);
        for (name, value) in [
            ("rollout_batch", self.rollout_batch),
            ("num_generations", self.num_generations),
            ("minibatch", minibatch),
            ("microbatch", self.microbatch),
            ("total_episodes", self.total_episodes),
            ("num_ppo_epochs", self.num_ppo_epochs),
            ("response_length", self.response_length),
        ] {
            if value == 0 {
                return Err(ConfigError::Zero { name });
            }
        }
        for (part_name, part) in [("num_generations", self.num_generations), ("minibatch", minibatch)] {
            if !self.rollout_batch.is_multiple_of(part) {
                let (whole_name, whole) = ("rollout_batch", self.rollout_batch);
                return Err(ConfigError::NotAMultiple { whole_name, whole, part_name, part });
            }
        }
        self.check_choices()?;
        Ok(BatchPlan {
            rollout_batch: self.rollout_batch,
            prompts: self.rollout_batch / self.num_generations,
            minibatch,
            microbatch: self.microbatch.min(minibatch),
            steps_per_iteration: self.num_ppo_epochs * (self.rollout_batch / minibatch),
            iterations: self.total_episodes.div_ceil(self.rollout_batch),
        })
    }

    /// Refuses a penalty for missing stops where there are none to miss.
    ///
    /// Apart from [`plan`](Self::plan), because a preset may ask for the penalty and cannot know the tokens.
    ///
    /// # Errors
    /// [`ConfigError::NoStopToken`].
    pub fn check_stop_tokens(&self) -> Result<(), ConfigError> {
        let name = match self.missing_stop() {
            MissingStop::Keep => return Ok(()),
            MissingStop::Subtract(_) => "missing_eos_penalty",
            MissingStop::Replace(_) => "missing_eos_score",
        };
        let none = self.stop_token_ids.is_empty() && self.stop_strings.is_empty();
        if none { Err(ConfigError::NoStopToken { name }) } else { Ok(()) }
    }

    /// Settings that cannot stand beside each other.
    fn check_choices(&self) -> Result<(), ConfigError> {
        let penalized = self.missing_eos_penalty.get() > 0.0;
        let scalings = [
            ("whiten_rewards", self.whiten_rewards),
            ("running_reward_std", self.running_reward_std),
            ("reward_clip_range", self.reward_clip_range.is_some()),
        ];
        let given: Vec<&str> =
            scalings.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect();
        if let [first, second, ..] = given[..] {
            return Err(ConfigError::TwoNames { first, second });
        }
        if penalized && self.missing_eos_score.is_some() {
            return Err(ConfigError::TwoNames { first: "missing_eos_penalty", second: "missing_eos_score" });
        }
        if self.is_filtered() && self.importance_cap.is_none() {
            return Err(ConfigError::BiasedSampling { top_k: self.top_k, top_p: self.top_p.get() });
        }
        if self.advantage_estimator.needs_groups() && self.num_generations < 2 {
            return Err(ConfigError::NoGroups { found: self.num_generations });
        }
        for (name, beta) in [("adam_beta_1", self.adam_beta_1), ("adam_beta_2", self.adam_beta_2)] {
            if beta.get() == 1.0 {
                return Err(ConfigError::AdamBeta { name });
            }
        }
        match self.dual_clip {
            Some(c) if c.get() <= 1.0 => return Err(ConfigError::DualClip { found: c.get() }),
            _ => {}
        }
        self.check_regularizer(&self.regularizer())?;
        self.check_horizon()
    }

    /// Refuses a regulariser that does not go with its granularity or with how rewards are scaled.
    pub(crate) fn check_regularizer(&self, regularizer: &Regularizer) -> Result<(), ConfigError> {
        regularizer.check()?;
        if !matches!(regularizer.coefficient, Coefficient::RewardStd { .. }) {
            return Ok(());
        }
        let refuse = |setting, why| Err(ConfigError::RewardUnits { setting, why });
        if self.running_reward_std {
            return refuse("running_reward_std", "divides scores by their deviation");
        }
        // In the reward, penalty and score are scaled together.
        if matches!(regularizer.site, Site::Reward(_)) {
            return Ok(());
        }
        if self.whiten_rewards {
            return refuse("whiten_rewards", "divides rewards by their deviation");
        }
        match self.advantage_estimator {
            AdvantageEstimator::Gae | AdvantageEstimator::LeaveOneOut if !self.whiten_advantages => Ok(()),
            AdvantageEstimator::Gae | AdvantageEstimator::LeaveOneOut => {
                refuse("whiten_advantages", "divides advantages by their deviation")
            }
            AdvantageEstimator::PositionBaseline | AdvantageEstimator::GroupNormalized => {
                refuse("advantage_estimator", "divides advantages by their deviation")
            }
        }
    }

    /// Adaptive β moves by at most a fifth of rollout/horizon, which must stay below 1.
    fn check_horizon(&self) -> Result<(), ConfigError> {
        match self.regularizer.coefficient() {
            Coefficient::Adaptive { horizon, .. } if self.rollout_batch as f64 >= 5.0 * horizon.get() => {
                Err(ConfigError::ShortHorizon { rollout_batch: self.rollout_batch, horizon: horizon.get() })
            }
            _ => Ok(()),
        }
    }
}
