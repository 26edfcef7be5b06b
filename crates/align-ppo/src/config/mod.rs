//! Every number of a PPO run, under the names people know.
//!
//! Names are TRL's; the words of OpenRLHF, verl and lm-human-preferences are accepted beside them ([`ALIASES`]). A config
//! is read on top of a [`Preset`], so that three lines make a run:
//!
//! ```
//! use align_ppo::PpoConfig;
//! let config: PpoConfig = serde_json::from_str(
//!     r#"{ "preset": "openrlhf", "kl_coef": 0.02, "rollout_batch": 256, "stop_token_ids": [2] }"#,
//! )?;
//! assert_eq!(config.cliprange_value.get(), 0.5); // OpenRLHF's
//! assert_eq!(config.regularizer().coefficient.beta(), 0.02); // ours
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! # Three words for batches, all in sequences
//! `rollout_batch` is collected, scored and whitened together; `minibatch` makes one optimiser step; `microbatch` goes
//! through the model at once and changes memory, not results. [`PpoConfig::plan`] spells them out.

mod plan;
mod preset;

use align_core::divergence::{DivergenceConfig, KlEstimator, KlLoss, LossDivergenceConfig};
use align_core::number::{Finite, Fraction, NonNegative, Positive, UnitInterval};
use align_core::regularizer::{Coefficient, Regularizer, RegularizerConfig};
use align_train::{OptimizerConfig, Schedule};
use serde::{Deserialize, Serialize};

use crate::rewards::{MissingStop, RewardScaling};
use crate::surrogate::ClipRange;

pub use plan::{BatchPlan, ConfigError};
pub use preset::Preset;

/// How rewards become advantages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdvantageEstimator {
    /// Generalised advantage estimation with a critic.
    Gae,
    /// Return-to-go minus the mean of its position over the batch, divided by the standard deviation; no critic.
    PositionBaseline,
    /// The whole response against the other responses to its prompt (RLOO); no critic.
    #[serde(alias = "rloo")]
    LeaveOneOut,
    /// As leave-one-out, but in standard deviations of the group (GRPO); no critic.
    #[serde(alias = "group_norm")]
    GroupNormalized,
}

impl AdvantageEstimator {
    /// Whether it needs a critic.
    pub fn needs_critic(self) -> bool {
        self == Self::Gae
    }

    /// Whether it needs several responses to a prompt.
    pub fn needs_groups(self) -> bool {
        matches!(self, Self::LeaveOneOut | Self::GroupNormalized)
    }
}

/// Which estimator of the KL divergence `kl_estimator` asks for, wherever the divergence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KlEstimatorName {
    K1,
    K2,
    K3,
    K3Plus,
}

macro_rules! ppo_config {
    ($($(#[$doc:meta])* $([$($alias:literal),+])? $field:ident: $type:ty $(= skip $skip:literal)?;)+) => {
        /// Every number of a PPO run. The defaults are those of [`Preset::Trl`].
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(try_from = "Overrides")]
        pub struct PpoConfig {
            $($(#[$doc])* $(#[serde(skip_serializing_if = $skip)])? pub $field: $type,)+
        }

        /// What a file says: a preset and the values that differ from it.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, default)]
        #[derive(Default)]
        struct Overrides {
            preset: Option<Preset>,
            num_mini_batches: Option<usize>,
            #[serde(alias = "beta", alias = "init_kl_coef")]
            kl_coef: Option<NonNegative>,
            kl_estimator: Option<KlEstimatorName>,
            #[serde(alias = "target_kl")]
            kl_target: Option<Positive>,
            #[serde(alias = "horizon")]
            kl_horizon: Option<Positive>,
            $($($(#[serde(alias = $alias)])+)? $field: Option<$type>,)+
        }

        impl Overrides {
            /// The preset with the plain values taken over.
            fn plain(&self) -> PpoConfig {
                let mut config = self.preset.unwrap_or_default().config();
                $(if let Some(value) = self.$field.clone() { config.$field = value; })+
                config
            }
        }

        /// Every setting's name; `preset` and the short forms of [`ALIASES`] are read beside them.
        pub const NAMES: &[&str] = &[$(stringify!($field)),+];

        /// Other projects' names, and ours for them.
        pub const ALIASES: &[(&str, &str)] = &[
            ("beta", "kl_coef"), ("init_kl_coef", "kl_coef"), ("target_kl", "kl_target"), ("horizon", "kl_horizon"),
            $($($(($alias, stringify!($field)),)+)?)+
        ];
    };
}

ppo_config! {
    /// Sequences collected, scored and whitened together.
    ["rollout_batch_size", "batch_size"]
    rollout_batch: usize;
    /// Responses drawn for each prompt.
    ["n_samples_per_prompt"]
    num_generations: usize;
    /// Sequences of one optimiser step; the whole rollout batch if not given. `num_mini_batches` says the same as a count.
    ["mini_batch_size", "train_batch_size"]
    minibatch: Option<usize> = skip "Option::is_none";
    /// Sequences that go through a model at once.
    ["per_device_train_batch_size", "micro_train_batch_size"]
    microbatch: usize;
    /// Sequences of the whole run; schedules stretch over them.
    total_episodes: usize;
    /// Passes over every rollout, each in an order of its own.
    ["epochs", "max_epochs", "noptepochs"]
    num_ppo_epochs: usize;
    /// The longest response, in tokens.
    ["max_completion_length", "generate_max_len", "max_new_tokens"]
    response_length: usize;
    /// Divides logits when sampling and in every log-probability: policy, old policy and reference.
    temperature: Positive;
    /// Keeps the k likeliest tokens; 0 keeps all. Anything else needs `importance_cap`.
    top_k: usize;
    /// Keeps the smallest set of tokens with this mass; 1 keeps all. Anything else needs `importance_cap`.
    top_p: Fraction;
    /// Weighs every token by `min(π_old / π_sampled, cap)`: the correction for a sampler that draws from another
    /// distribution than the trainer's. 2 to 3 is usual.
    importance_cap: Option<Positive> = skip "Option::is_none";
    /// A response ends with the first of these and keeps it. None: every response has `response_length` tokens.
    stop_token_ids: Vec<u32>;
    /// A response ends, too, with the token that completes one of these texts, and keeps it; see
    /// [`Ppo::with_detokenizer`](crate::Ppo::with_detokenizer).
    ["stop", "stop_sequences"]
    stop_strings: Vec<String> = skip "Vec::is_empty";
    /// Subtracted from the score of a response without a stop token; 0 leaves it alone.
    missing_eos_penalty: NonNegative;
    /// Takes the place of the score of a response without a stop token.
    ["penalty_reward_value"]
    missing_eos_score: Option<Finite> = skip "Option::is_none";
    /// Takes the place of the score of a response that holds nothing but its stop token.
    empty_response_score: Option<Finite> = skip "Option::is_none";
    /// What keeps the policy near its reference. `kl_coef`, `kl_estimator`, `kl_target` and `kl_horizon` are short for it.
    regularizer: RegularizerConfig;
    /// ε: the ratio is clipped to `[1 − ε, 1 + ε]`.
    ["eps_clip", "epsilon", "clip_ratio"]
    cliprange: Positive;
    /// ε above 1, if it differs ("clip higher").
    ["epsilon_high"]
    cliprange_high: Option<Positive> = skip "Option::is_none";
    /// c: where Â < 0 a token loses at most `−c·Â`. 3 is usual.
    ["clip_ratio_c"]
    dual_clip: Option<Positive> = skip "Option::is_none";
    /// How far a value may move from the rollout's value before its loss stops pushing; 0 turns clipping off.
    ["value_clip"]
    cliprange_value: NonNegative;
    /// c_v: multiplies the value loss (whose ½ is already in). The critic has an optimiser of its own, so this matters only
    /// through gradient clipping and Adam's ε.
    vf_coef: Positive;
    /// γ, the discount per token.
    gamma: UnitInterval;
    /// λ of generalised advantage estimation.
    ["lambd", "lambda", "gae_lambda"]
    lam: UnitInterval;
    /// How rewards become advantages; all but `gae` do without a critic.
    advantage_estimator: AdvantageEstimator;
    /// Whitens the advantages of `gae` and `leave_one_out` over the whole rollout batch; the other two are scaled already.
    whiten_advantages: bool;
    /// Divides per-token rewards by their standard deviation and keeps their mean.
    whiten_rewards: bool;
    /// Clips scores to `± this`.
    reward_clip_range: Option<Positive> = skip "Option::is_none";
    /// Divides scores by the standard deviation of all scores so far.
    ["normalize_reward"]
    running_reward_std: bool;
    /// η of the policy.
    ["actor_learning_rate", "lr"]
    learning_rate: Positive;
    /// η of the critic.
    critic_learning_rate: Positive;
    /// How the policy's learning rate moves over its optimiser steps.
    lr_schedule: Schedule;
    /// How the critic's learning rate moves over its optimiser steps.
    critic_lr_schedule: Schedule;
    /// Adam's β₁.
    adam_beta_1: UnitInterval;
    /// Adam's β₂.
    adam_beta_2: UnitInterval;
    /// Adam's ε.
    ["eps"]
    adam_epsilon: Positive;
    /// AdamW's λ, on matrices.
    ["l2"]
    weight_decay: NonNegative;
    /// Longest global norm of a gradient; 0 turns clipping off.
    ["max_norm"]
    max_grad_norm: NonNegative;
    /// Parts of paths whose tensors may get a zero gradient at the first step.
    allow_zero_gradient: Vec<String>;
    /// Iterations in which only the critic learns.
    ["freezing_actor_steps"]
    critic_warmup: usize;
    /// How far the mean ratio of the first minibatch may be from 1.
    ratio_tolerance: Positive;
    /// Stops the run if the mean length falls below this share of its first value while the score falls too.
    early_stop_fraction: Option<UnitInterval> = skip "Option::is_none";
    /// The run stops where the members of the reward's ensemble differ by a larger variance than this, a mean over responses.
    max_disagreement: Option<Positive> = skip "Option::is_none";
    /// Decides every draw of the run.
    seed: u64;
}

impl Default for PpoConfig {
    fn default() -> Self {
        Preset::default().config()
    }
}

impl TryFrom<Overrides> for PpoConfig {
    type Error = ConfigError;

    fn try_from(overrides: Overrides) -> Result<Self, ConfigError> {
        let mut config = overrides.plain();
        if let Some(count) = overrides.num_mini_batches {
            if overrides.minibatch.is_some() {
                return Err(ConfigError::TwoNames { first: "minibatch", second: "num_mini_batches" });
            }
            if count == 0 || !config.rollout_batch.is_multiple_of(count) {
                return Err(ConfigError::MiniBatches { rollout_batch: config.rollout_batch, count });
            }
            config.minibatch = Some(config.rollout_batch / count);
        }
        let short = [
            ("kl_coef", overrides.kl_coef.is_some()),
            ("kl_estimator", overrides.kl_estimator.is_some()),
            ("kl_target", overrides.kl_target.is_some()),
            ("kl_horizon", overrides.kl_horizon.is_some()),
        ];
        if let (Some(_), Some((name, _))) = (&overrides.regularizer, short.iter().find(|(_, given)| *given)) {
            return Err(ConfigError::TwoNames { first: "regularizer", second: name });
        }
        if let Some(estimator) = overrides.kl_estimator {
            set_estimator(&mut config.regularizer, estimator)?;
        }
        set_coefficient(&mut config.regularizer, &overrides)?;
        config.plan()?;
        Ok(config)
    }
}

/// `kl_estimator`, wherever the divergence stands.
fn set_estimator(regularizer: &mut RegularizerConfig, name: KlEstimatorName) -> Result<(), ConfigError> {
    match regularizer {
        RegularizerConfig::Reward { divergence, .. } => {
            let estimator = match name {
                KlEstimatorName::K1 => KlEstimator::K1,
                KlEstimatorName::K2 => KlEstimator::K2,
                KlEstimatorName::K3 => KlEstimator::K3,
                KlEstimatorName::K3Plus => return Err(ConfigError::EstimatorOfLoss),
            };
            *divergence = DivergenceConfig::Kl { estimator };
        }
        RegularizerConfig::Loss { divergence, .. } => {
            let estimator = match name {
                KlEstimatorName::K1 => return Err(ConfigError::K1InLoss),
                KlEstimatorName::K2 => KlLoss::K2,
                KlEstimatorName::K3 => KlLoss::K3,
                KlEstimatorName::K3Plus => KlLoss::K3Plus,
            };
            *divergence = LossDivergenceConfig::Kl { estimator };
        }
    }
    Ok(())
}

/// `kl_coef`, `kl_target` and `kl_horizon`: a target makes the coefficient adaptive.
fn set_coefficient(regularizer: &mut RegularizerConfig, overrides: &Overrides) -> Result<(), ConfigError> {
    let (RegularizerConfig::Reward { coefficient, .. } | RegularizerConfig::Loss { coefficient, .. }) =
        regularizer;
    let positive = |beta: NonNegative| {
        Positive::try_from(beta.get()).map_err(|_| ConfigError::AdaptiveBeta { found: beta.get() })
    };
    match (overrides.kl_target, &coefficient) {
        (None, Coefficient::Fixed { beta }) => {
            if overrides.kl_horizon.is_some() {
                return Err(ConfigError::HorizonWithoutTarget);
            }
            *coefficient = Coefficient::Fixed { beta: overrides.kl_coef.unwrap_or(*beta) };
        }
        (Some(target), Coefficient::Fixed { beta }) => {
            *coefficient = Coefficient::Adaptive {
                beta: positive(overrides.kl_coef.unwrap_or(*beta))?,
                target,
                horizon: overrides.kl_horizon.unwrap_or(Positive::literal(10_000.0)),
            };
        }
        (new, Coefficient::Adaptive { beta, target, horizon }) => {
            *coefficient = Coefficient::Adaptive {
                beta: overrides.kl_coef.map_or(Ok(*beta), positive)?,
                target: new.unwrap_or(*target),
                horizon: overrides.kl_horizon.unwrap_or(*horizon),
            };
        }
        // Only a whole `regularizer` names it, and the short forms do not stand beside one.
        (_, Coefficient::RewardStd { .. }) => {}
    }
    Ok(())
}

impl PpoConfig {
    /// The regulariser described.
    pub fn regularizer(&self) -> Regularizer {
        self.regularizer.build()
    }

    /// The clip range of the ratio.
    pub fn clip_range(&self) -> ClipRange {
        ClipRange {
            lower: self.cliprange.get(),
            upper: self.cliprange_high.unwrap_or(self.cliprange).get(),
            dual: self.dual_clip.map(Positive::get),
        }
    }

    /// The clip range of the value, if values are clipped.
    pub fn value_clip_range(&self) -> Option<f64> {
        (self.cliprange_value.get() > 0.0).then(|| self.cliprange_value.get())
    }

    /// What happens to the score of a response that never stopped.
    pub fn missing_stop(&self) -> MissingStop {
        match self.missing_eos_score {
            Some(score) => MissingStop::Replace(score.get()),
            None if self.missing_eos_penalty.get() > 0.0 => {
                MissingStop::Subtract(self.missing_eos_penalty.get())
            }
            None => MissingStop::Keep,
        }
    }

    /// How scores are brought to a common scale.
    pub fn reward_scaling(&self) -> RewardScaling {
        match (self.whiten_rewards, self.running_reward_std, self.reward_clip_range) {
            (true, ..) => RewardScaling::Whiten,
            (_, true, _) => RewardScaling::RunningStd,
            (.., Some(limit)) => RewardScaling::Clip(limit.get()),
            _ => RewardScaling::None,
        }
    }

    /// Whether the sampler draws from another distribution than the one the trainer's log-probabilities are of.
    pub fn is_filtered(&self) -> bool {
        self.top_k > 0 || self.top_p.get() < 1.0
    }

    /// The policy's optimiser.
    pub fn policy_optimizer(&self) -> OptimizerConfig {
        self.optimizer(self.learning_rate, self.lr_schedule)
    }

    /// The critic's optimiser.
    pub fn critic_optimizer(&self) -> OptimizerConfig {
        self.optimizer(self.critic_learning_rate, self.critic_lr_schedule)
    }

    fn optimizer(&self, learning_rate: Positive, schedule: Schedule) -> OptimizerConfig {
        OptimizerConfig {
            learning_rate,
            beta_1: self.adam_beta_1.get(),
            beta_2: self.adam_beta_2.get(),
            epsilon: self.adam_epsilon,
            weight_decay: self.weight_decay,
            max_grad_norm: self.max_grad_norm,
            schedule,
            groups: Vec::new(),
            allow_zero_gradient: self.allow_zero_gradient.clone(),
        }
    }
}
