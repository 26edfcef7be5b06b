//! The optimizer's configuration: every number of AdamW, its schedule and its parameter groups.

use align_core::number::{NonNegative, Positive, UnitInterval};
use serde::{Deserialize, Deserializer, Serialize, de::Error};

use crate::adamw::AdamW;
use crate::schedule::Schedule;

/// AdamW, its schedule, clipping and parameter groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// η. Default 2e-5, usual for fine-tuning a whole model.
    pub learning_rate: Positive,
    /// β₁. Default 0.9 (Kingma, Ba 2015).
    #[serde(deserialize_with = "below_one")]
    pub beta_1: f64,
    /// β₂. Default 0.999 (Kingma, Ba 2015).
    #[serde(deserialize_with = "below_one")]
    pub beta_2: f64,
    /// ε. Default 1e-8, that of PyTorch; 1e-5 for PPO.
    pub epsilon: Positive,
    /// λ, on matrices only: vectors (norms, biases) do not decay unless a group says so. Default 0, that of
    /// transformers' `Trainer`; PyTorch's AdamW would take 1e-2 and Burn's 1e-4.
    pub weight_decay: NonNegative,
    /// The largest global norm of the gradient; longer ones are shortened to it. 0 turns clipping off. Default 1.
    pub max_grad_norm: NonNegative,
    /// How the learning rate moves. Default constant.
    pub schedule: Schedule,
    /// Exceptions by path; where several match, the last one holds.
    pub groups: Vec<Group>,
    /// Parts of paths whose tensors may get a zero gradient at the first step.
    pub allow_zero_gradient: Vec<String>,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            learning_rate: Positive::literal(2e-5),
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: Positive::literal(1e-8),
            weight_decay: NonNegative::literal(0.0),
            max_grad_norm: NonNegative::literal(1.0),
            schedule: Schedule::default(),
            groups: Vec::new(),
            allow_zero_gradient: Vec::new(),
        }
    }
}

/// Parameters that are trained otherwise than the rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// What its learning rate is reported as: `lr/<name>`.
    pub name: String,
    /// Parts of paths; a tensor belongs to the group if its path contains one of them.
    pub paths: Vec<String>,
    /// Multiplies the learning rate.
    #[serde(default = "one")]
    pub learning_rate_factor: NonNegative,
    /// λ of this group, for vectors too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<NonNegative>,
    /// A schedule of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
}

impl Group {
    /// A group that differs in nothing yet.
    pub fn new(name: impl Into<String>, paths: &[&str]) -> Self {
        Self {
            name: name.into(),
            paths: paths.iter().map(|&path| path.to_owned()).collect(),
            learning_rate_factor: one(),
            weight_decay: None,
            schedule: None,
        }
    }

    fn contains(&self, path: &str) -> bool {
        self.paths.iter().any(|part| path.contains(part.as_str()))
    }
}

impl OptimizerConfig {
    /// What PPO implementations share: ε = 1e-5, η = 3e-6 falling to 0 on a line, no weight decay, norm clipped at 1.
    ///
    /// # Source
    /// Huang et al. 2023, "The N implementation details of RLHF with PPO"; the norm clip is that of OpenRLHF and verl,
    /// TRL's PPO had none.
    pub fn ppo() -> Self {
        Self {
            learning_rate: Positive::literal(3e-6),
            epsilon: Positive::literal(1e-5),
            schedule: Schedule::Linear { warmup: 0, floor: UnitInterval::literal(0.0) },
            ..Self::default()
        }
    }

    /// The learning rate outside all groups at `step` of `total`.
    pub fn learning_rate_at(&self, step: u64, total: u64) -> f64 {
        self.learning_rate.get() * self.schedule.factor(step, total)
    }

    /// The learning rate of a group at `step` of `total`.
    pub fn group_learning_rate_at(&self, group: &Group, step: u64, total: u64) -> f64 {
        let schedule = group.schedule.unwrap_or(self.schedule);
        self.learning_rate.get() * group.learning_rate_factor.get() * schedule.factor(step, total)
    }

    /// The rule for one tensor at `step` of `total`.
    pub fn rule(&self, path: &str, rank: usize, step: u64, total: u64) -> AdamW {
        let group = self.groups.iter().rev().find(|group| group.contains(path));
        let learning_rate = match group {
            Some(group) => self.group_learning_rate_at(group, step, total),
            None => self.learning_rate_at(step, total),
        };
        let usual_decay = if rank < 2 { 0.0 } else { self.weight_decay.get() };
        AdamW {
            learning_rate,
            beta_1: self.beta_1,
            beta_2: self.beta_2,
            epsilon: self.epsilon.get(),
            weight_decay: group.and_then(|group| group.weight_decay).map_or(usual_decay, f64::from),
        }
    }
}

fn one() -> NonNegative {
    NonNegative::literal(1.0)
}

/// A decay rate of 1 would never forget its start and divide by 1 − 1ᵗ = 0.
fn below_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let value = f64::deserialize(deserializer)?;
    if (0.0..1.0).contains(&value) {
        Ok(value)
    } else {
        Err(D::Error::custom(format_args!("expected a number in [0, 1), found {value}")))
    }
}
