//! Every number of a SuperHF run, under the names people know.
//!
//! Names are those of the released code and of this workspace's PPO; other projects' words are accepted beside them
//! ([`ALIASES`]). Defaults are the released final configuration, departures stand with the setting.
//!
//! ```
//! use align_superhf::SuperHfConfig;
//! let config: SuperHfConfig =
//!     serde_json::from_str(r#"{ "num_generations": 8, "top_k": 2, "beta": 0.7, "stop_token_ids": [2] }"#)?;
//! assert_eq!((config.superbatch_size, config.kl_coef.get()), (8, 0.7));
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! # Words for batches
//! A group is `prompt_accumulation_steps` prompts with `superbatch_size` samples each: sampled, scored and filtered together.
//! What is kept goes through the optimiser `minibatch` completions a step, `microbatch` at once: the last is memory and not
//! results. [`SuperHfConfig::plan`] spells them out.

mod plan;

use align_core::number::{Fraction, NonNegative, Positive, UnitInterval};
use align_models::SamplingConfig;
use align_train::{OptimizerConfig, Schedule};
use serde::{Deserialize, Serialize};

use crate::filter::Filter;
use crate::loss::{KlDirection, KlReduction, LossSettings};
use crate::trim::TurnMarkers;

pub use plan::{ConfigError, GroupPlan};

/// What the prior is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PriorRole {
    /// The model that training starts from; that the two agree is checked before the first step.
    #[default]
    Start,
    /// Another model on purpose: a soup, the model before instruction tuning.
    Other,
    /// There is none: no model is asked, nothing is measured from it, and β is 0.
    None,
}

/// How length is charged for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LengthForm {
    /// `c · ln(length)`: what the released code does, though it says linear.
    #[default]
    Log,
    /// `c · length`.
    Linear,
}

/// What length is counted in, of the answer without its stop token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LengthUnit {
    /// Characters, as released; needs text.
    #[default]
    Characters,
    /// Tokens.
    Tokens,
}

macro_rules! superhf_config {
    ($($(#[$doc:meta])* $([$($alias:literal),+])? $field:ident: $type:ty = $default:expr;)+) => {
        /// Every number of a SuperHF run.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(try_from = "Overrides")]
        pub struct SuperHfConfig {
            $($(#[$doc])* pub $field: $type,)+
        }

        impl Default for SuperHfConfig {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        /// What a file says.
        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct Overrides {
            top_k: Option<usize>,
            $($($(#[serde(alias = $alias)])+)? $field: Option<$type>,)+
        }

        impl Overrides {
            /// The defaults with the values that are given.
            fn plain(self) -> SuperHfConfig {
                let mut config = SuperHfConfig::default();
                $(if let Some(value) = self.$field { config.$field = value; })+
                config
            }
        }

        /// Every setting's name; `top_k` is read beside them, short for the filter.
        pub const NAMES: &[&str] = &[$(stringify!($field)),+];

        /// Other projects' names, and ours for them.
        pub const ALIASES: &[(&str, &str)] = &[$($($(($alias, stringify!($field)),)+)?)+];
    };
}

superhf_config! {
    /// N: completions sampled for each prompt. 16: where the published curve becomes flat.
    ["num_generations", "n_samples_per_prompt"]
    superbatch_size: usize = 16;
    /// M: prompts sampled, scored and filtered before each fine-tuning phase. 2, as released. 0 takes all prompts at once:
    /// one pass of best-of-N distillation from the start.
    prompt_accumulation_steps: usize = 2;
    /// What is kept. `top_k` is short for it: the best one of each prompt, as released.
    filter: Filter = Filter::default();
    /// β. 0.35, as released; 0 only measures. Beside a mean over examples it is half as strong as the released sum at
    /// minibatch 2, whose equal is 0.7.
    ["beta", "kl_coefficient", "init_kl_coef"]
    kl_coef: NonNegative = NonNegative::literal(0.35);
    /// What the prior is: `start` (checked), `other`, or `none`, which asks no prior at all.
    prior: PriorRole = PriorRole::Start;
    /// Which way the KL is taken. As released: from the prior.
    kl_direction: KlDirection = KlDirection::PriorToPolicy;
    /// How the KL of all tokens becomes one number. A mean over examples, so that β does not depend on the minibatch.
    kl_reduction: KlReduction = KlReduction::MeanOverExamples;
    /// Samples of each prompt, the first ones, on which `objective/kl` is measured: one pass of the prior over them, and over
    /// nothing else of what is not kept. 4 of 16 costs a quarter of PPO's pass. 0 measures none.
    kl_samples: usize = 4;
    /// C of the inverse-loss penalty. 0, as released: its authors dropped it.
    ["inverse_loss_penalty"]
    inverse_loss: NonNegative = NonNegative::literal(0.0);
    /// c of the length penalty, subtracted from the score that is selected by. 0, as released.
    length_penalty: NonNegative = NonNegative::literal(0.0);
    /// How length is charged for. As the released code does.
    length_penalty_form: LengthForm = LengthForm::Log;
    /// What length is counted in. As released.
    length_penalty_unit: LengthUnit = LengthUnit::Characters;
    /// Divides logits when sampling, and for `objective/kl`; the loss is that of temperature 1. 1, as released.
    temperature: Positive = Positive::literal(1.0);
    /// Sampling keeps the smallest set of tokens with this mass. 0.95, as released.
    top_p: Fraction = Fraction::literal(0.95);
    /// The longest completion, in tokens. 64, as released.
    ["max_new_tokens", "max_completion_length", "generate_max_len"]
    response_length: usize = 64;
    /// A completion ends with the first of these and keeps it. The first of the list is put where a turn was cut off, so
    /// that the policy learns to end there. None: nothing ends a completion but its length and its text.
    stop_token_ids: Vec<u32> = Vec::new();
    /// A completion ends, too, before one of these texts, and with a stop token in its place if there is one; see
    /// [`SuperHf::with_detokenizer`](crate::SuperHf::with_detokenizer).
    ["stop", "stop_sequences"]
    stop_strings: Vec<String> = Vec::new();
    /// Where a simulated next turn begins: what comes from there on is neither scored nor learnt. Needs text.
    trim: TurnMarkers = TurnMarkers::default();
    /// Kept completions of one optimiser step. 2, as released.
    ["mini_batch_size", "minibatch_size", "train_batch_size"]
    minibatch: usize = 2;
    /// Completions that go through a model at once, with gradients or to a judge; four times as many are sampled at once. 16.
    ["per_device_train_batch_size", "micro_train_batch_size"]
    microbatch: usize = 16;
    /// Passes over what a group kept, each in an order of its own. 1, as released.
    ["epochs", "num_train_epochs"]
    passes: usize = 1;
    /// Completions sampled in the whole run; the schedule stretches over their groups. 160 000: 10 000 prompts with 16 each,
    /// as released. Without effect where `prompt_accumulation_steps` is 0.
    total_episodes: usize = 160_000;
    /// Groups between two reports of the validation judge. 0, as released: never.
    validation_interval: u64 = 0;
    /// The largest share of a group's prompts that may get nothing but empty completions, and of its optimiser steps that
    /// may be skipped because their loss is not finite. 0.2: more is a broken policy and no accident.
    max_skipped_fraction: UnitInterval = UnitInterval::literal(0.2);
    /// η. 2e-5, as released.
    ["lr"]
    learning_rate: Positive = Positive::literal(2e-5);
    /// How the learning rate moves over the **groups**, or over the optimiser steps where there is but one group. Half a cosine
    /// to 0 after 32 groups of warm-up, as released; ours starts at 1/32 where that starts at 0.
    lr_schedule: Schedule = Schedule::Cosine { warmup: 32, floor: UnitInterval::literal(0.0) };
    /// Adam's β₁. 0.9, PyTorch's.
    adam_beta_1: UnitInterval = UnitInterval::literal(0.9);
    /// Adam's β₂. 0.999, PyTorch's.
    adam_beta_2: UnitInterval = UnitInterval::literal(0.999);
    /// Adam's ε. 1e-8, PyTorch's.
    ["eps"]
    adam_epsilon: Positive = Positive::literal(1e-8);
    /// AdamW's λ, on matrices. 0.01: PyTorch's, which the released code leaves alone (there it holds for vectors too).
    ["l2"]
    weight_decay: NonNegative = NonNegative::literal(0.01);
    /// Longest global norm of a gradient. 0, as released: gradients are not clipped.
    ["max_norm"]
    max_grad_norm: NonNegative = NonNegative::literal(0.0);
    /// Parts of paths whose tensors may get a zero gradient at the first step.
    allow_zero_gradient: Vec<String> = Vec::new();
    /// Decides every draw of the run.
    seed: u64 = 0;
}

impl TryFrom<Overrides> for SuperHfConfig {
    type Error = ConfigError;

    fn try_from(overrides: Overrides) -> Result<Self, ConfigError> {
        let (top_k, beta) = (overrides.top_k, overrides.kl_coef);
        if top_k.is_some() && overrides.filter.is_some() {
            return Err(ConfigError::TwoNames { first: "filter", second: "top_k" });
        }
        let mut config = overrides.plain();
        if let Some(k) = top_k {
            config.filter = Filter::TopK { k };
        }
        if config.prior == PriorRole::None {
            match beta {
                Some(beta) if beta.get() > 0.0 => return Err(ConfigError::NoPrior { kl_coef: beta.get() }),
                _ => config.kl_coef = NonNegative::literal(0.0),
            }
        }
        config.check()?;
        Ok(config)
    }
}

impl SuperHfConfig {
    /// β as it acts: 0 where there is no prior.
    pub fn beta(&self) -> f64 {
        if self.prior == PriorRole::None { 0.0 } else { self.kl_coef.get() }
    }

    /// The coefficients of the loss.
    pub fn loss(&self) -> LossSettings {
        LossSettings {
            kl_coef: self.beta(),
            direction: self.kl_direction,
            reduction: self.kl_reduction,
            inverse_loss: self.inverse_loss.get(),
        }
    }

    /// What length costs a completion of that many characters or tokens.
    ///
    /// # Panics
    /// If the length is 0: empty completions are dropped before they are scored.
    pub fn length_cost(&self, length: usize) -> f64 {
        assert!(length > 0, "an empty completion has no logarithm of its length");
        let length = length as f64;
        self.length_penalty.get()
            * match self.length_penalty_form {
                LengthForm::Log => length.ln(),
                LengthForm::Linear => length,
            }
    }

    /// How completions are sampled.
    pub fn sampling(&self) -> SamplingConfig {
        SamplingConfig::for_rollouts(
            self.temperature,
            self.top_p,
            self.response_length,
            &self.stop_token_ids,
            &self.stop_strings,
        )
    }

    /// The optimiser.
    pub fn optimizer(&self) -> OptimizerConfig {
        OptimizerConfig {
            learning_rate: self.learning_rate,
            beta_1: self.adam_beta_1.get(),
            beta_2: self.adam_beta_2.get(),
            epsilon: self.adam_epsilon,
            weight_decay: self.weight_decay,
            max_grad_norm: self.max_grad_norm,
            schedule: self.lr_schedule,
            groups: Vec::new(),
            allow_zero_gradient: self.allow_zero_gradient.clone(),
        }
    }
}
