//! The defaults of other projects. They differ, so there is no one truth to ship.

use align_core::divergence::{DivergenceConfig, KlEstimator};
use align_core::number::{Finite, Fraction, NonNegative, Positive, UnitInterval};
use align_core::regularizer::{Coefficient, Granularity, RegularizerConfig};
use align_train::Schedule;
use serde::{Deserialize, Serialize};

use super::{AdvantageEstimator, PpoConfig};

/// Whose defaults to start from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Preset {
    /// TRL's `experimental.ppo.PPOConfig` with the batch sizes of its TL;DR script.
    ///
    /// Departures: Adam's ε is 1e-5 (transformers' default is 1e-8) and gradients are clipped at norm 1 (TRL's PPO did
    /// not clip); both are what the N+ details found to matter.
    #[default]
    #[serde(rename = "trl", alias = "trl-tldr")]
    Trl,
    /// OpenRLHF's `train_ppo_ray`.
    ///
    /// Departure: its warm-up is 3 % of all steps; ours is a number of steps and starts at 0.
    #[serde(rename = "openrlhf")]
    OpenRlhf,
    /// lm-human-preference-details (Huang et al. 2023, "The N implementation details of RLHF with PPO"): adaptive β,
    /// whitened rewards, −1 for a response that never stopped.
    ///
    /// Departure: its stop token counts only from position 16 on; ours counts everywhere.
    #[serde(rename = "n-details")]
    NDetails,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Trl, Self::OpenRlhf, Self::NDetails];

    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trl => "trl",
            Self::OpenRlhf => "openrlhf",
            Self::NDetails => "n-details",
        }
    }

    /// The numbers.
    pub fn config(self) -> PpoConfig {
        match self {
            Self::Trl => trl(),
            Self::OpenRlhf => openrlhf(),
            Self::NDetails => n_details(),
        }
    }
}

fn k1(coefficient: Coefficient) -> RegularizerConfig {
    RegularizerConfig::Reward {
        divergence: DivergenceConfig::Kl { estimator: KlEstimator::K1 },
        coefficient,
        granularity: Granularity::Token,
    }
}

fn trl() -> PpoConfig {
    PpoConfig {
        // 16 sequences × 4 accumulation steps.
        rollout_batch: 64,
        num_generations: 1,
        minibatch: None,
        microbatch: 16,
        total_episodes: 10_000,
        num_ppo_epochs: 4,
        response_length: 53,
        temperature: Positive::literal(0.7),
        top_k: 0,
        top_p: Fraction::literal(1.0),
        importance_cap: None,
        stop_token_ids: Vec::new(),
        stop_strings: Vec::new(),
        missing_eos_penalty: NonNegative::literal(0.0),
        missing_eos_score: None,
        empty_response_score: None,
        regularizer: k1(Coefficient::Fixed { beta: NonNegative::literal(0.05) }),
        cliprange: Positive::literal(0.2),
        cliprange_high: None,
        dual_clip: None,
        cliprange_value: NonNegative::literal(0.2),
        vf_coef: Positive::literal(0.1),
        gamma: UnitInterval::literal(1.0),
        lam: UnitInterval::literal(0.95),
        advantage_estimator: AdvantageEstimator::Gae,
        whiten_advantages: true,
        whiten_rewards: false,
        reward_clip_range: None,
        running_reward_std: false,
        learning_rate: Positive::literal(3e-6),
        // One optimiser for both in TRL, hence one rate.
        critic_learning_rate: Positive::literal(3e-6),
        lr_schedule: Schedule::Linear { warmup: 0, floor: UnitInterval::literal(0.0) },
        critic_lr_schedule: Schedule::Linear { warmup: 0, floor: UnitInterval::literal(0.0) },
        adam_beta_1: UnitInterval::literal(0.9),
        adam_beta_2: UnitInterval::literal(0.999),
        adam_epsilon: Positive::literal(1e-5),
        weight_decay: NonNegative::literal(0.0),
        max_grad_norm: NonNegative::literal(1.0),
        allow_zero_gradient: Vec::new(),
        critic_warmup: 0,
        // Sampling and training share the forward pass; what is left is rounding.
        ratio_tolerance: Positive::literal(1e-2),
        early_stop_fraction: None,
        max_disagreement: None,
        seed: 0,
    }
}

fn openrlhf() -> PpoConfig {
    let schedule = Schedule::Cosine { warmup: 0, floor: UnitInterval::literal(0.1) };
    PpoConfig {
        rollout_batch: 1024,
        minibatch: Some(128),
        microbatch: 4,
        num_ppo_epochs: 1,
        response_length: 1024,
        temperature: Positive::literal(1.0),
        regularizer: k1(Coefficient::Fixed { beta: NonNegative::literal(0.01) }),
        cliprange_value: NonNegative::literal(0.5),
        // Its value loss is ½·mean and has an optimiser of its own.
        vf_coef: Positive::literal(1.0),
        lam: UnitInterval::literal(1.0),
        reward_clip_range: Some(Positive::literal(10.0)),
        learning_rate: Positive::literal(1e-6),
        critic_learning_rate: Positive::literal(9e-6),
        lr_schedule: schedule,
        critic_lr_schedule: schedule,
        adam_beta_2: UnitInterval::literal(0.95),
        adam_epsilon: Positive::literal(1e-8),
        seed: 42,
        ..trl()
    }
}

fn n_details() -> PpoConfig {
    PpoConfig {
        // 64 sequences on each of 8 ranks.
        rollout_batch: 512,
        microbatch: 64,
        total_episodes: 1_000_000,
        response_length: 24,
        missing_eos_score: Some(Finite::literal(-1.0)),
        regularizer: k1(Coefficient::Adaptive {
            beta: Positive::literal(0.15),
            target: Positive::literal(6.0),
            horizon: Positive::literal(10_000.0),
        }),
        whiten_rewards: true,
        learning_rate: Positive::literal(1e-5),
        critic_learning_rate: Positive::literal(1e-5),
        max_grad_norm: NonNegative::literal(0.0),
        seed: 1,
        ..trl()
    }
}
