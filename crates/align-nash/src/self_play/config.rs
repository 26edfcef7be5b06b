//! Every number of a self-play run, checked before anything is computed.

use align_core::number::{Fraction, NonNegative, Positive, UnitInterval};
use align_models::SamplingConfig;
use align_train::{OptimizerConfig, Schedule};
use serde::{Deserialize, Serialize};

use super::error::SelfPlayError;
use crate::pair_loss::PairLoss;

/// What is learnt from the answers of an iteration.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Method {
    /// INPO: mirror descent in the game that is regularised towards the reference.
    Inpo {
        /// η; `1/η` is the step size. 0.005 for language models (appendix B); for small games see the stability rule.
        #[serde(default = "default_eta")]
        eta: Positive,
        /// τ, the weight of the KL to the reference; η/3 if not given (appendix B).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tau: Option<NonNegative>,
        /// How η moves over the iterations.
        #[serde(default)]
        schedule: EtaSchedule,
        /// Minimise `(ηh − ½)²` instead of `(h − 1/(2η))²`: the same minimum, gradients of order one instead of 1/η.
        #[serde(default)]
        loss_scaling: bool,
    },
    /// A direct loss on fresh pairs: online DPO and IPO; over many pairs an iteration, iterative DPO.
    Dpo {
        /// Which loss.
        #[serde(default)]
        loss: PairLoss,
        /// What log-ratios are measured from.
        #[serde(default)]
        anchor: Anchor,
    },
    /// SPPO: every answer's log-ratio to the previous policy is drawn to its win rate over the other answers.
    Sppo {
        /// β, the inverse step size. 1e-3 as in the authors' script.
        #[serde(default = "sppo_beta")]
        beta: Positive,
    },
    /// XPO: a pair of one answer of the policy and one of the reference, and a bonus for what the reference says.
    Xpo {
        /// Which loss.
        #[serde(default)]
        loss: PairLoss,
        /// α, the weight of the bonus. 1e-5 as in TRL.
        #[serde(default = "xpo_alpha")]
        alpha: NonNegative,
    },
    /// Nash-MD: REINFORCE against answers of a mixture of policy and reference.
    NashMd {
        /// β, the weight of the KL to the reference. 0.1 as in TRL.
        #[serde(default = "nash_md_beta")]
        beta: NonNegative,
        /// The reference's share of the mixture. 0.5 as in TRL; 0 is self-play.
        #[serde(default = "half")]
        mixture: UnitInterval,
    },
}

impl Default for Method {
    fn default() -> Self {
        Self::Inpo { eta: default_eta(), tau: None, schedule: EtaSchedule::default(), loss_scaling: false }
    }
}

fn default_eta() -> Positive {
    Positive::literal(0.005)
}

fn sppo_beta() -> Positive {
    Positive::literal(1e-3)
}

fn xpo_alpha() -> NonNegative {
    NonNegative::literal(1e-5)
}

fn nash_md_beta() -> NonNegative {
    NonNegative::literal(0.1)
}

fn half() -> UnitInterval {
    UnitInterval::literal(0.5)
}

/// How η moves over iterations t = 1, 2, …
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EtaSchedule {
    /// η as given.
    #[default]
    Constant,
    /// `η_t = τ(t + 2)/2`, so that `τ/η_t = 2/(t + 2)`: the schedule under which the last iterate converges (theorem 4). The given η
    /// only decides τ.
    Decreasing,
}

/// What a direct loss measures log-ratios from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Anchor {
    /// The reference, for good.
    #[default]
    Reference,
    /// The policy that drew the answers.
    Previous,
}

/// Which of a prompt's answers are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pairing {
    /// Disjoint pairs of independent answers, what INPO's theorem asks for.
    #[default]
    Independent,
    /// The best and the worst of K = 2ᵐ by a knockout tournament: the paper's experiments. Its pairs are not independent.
    Tournament,
}

/// What becomes of the oracle's probability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Labels {
    /// A winner is drawn with it, of every comparison; a tournament's best wins as it is.
    Hard,
    /// It is learnt from as it is: the same minimum of a squared loss, less variance.
    Soft,
}

/// What becomes of answers that were cut off at the length limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncated {
    /// They are answers like the others: what is learnt is the policy over texts of at most that length.
    #[default]
    Keep,
    /// Pairs with one of them are dropped.
    Drop,
    /// They lose to answers that ended; between two of them the oracle decides.
    Lose,
}

/// A self-play run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SelfPlayConfig {
    /// What is learnt.
    pub method: Method,
    /// T, how often fresh answers are drawn. 3 as in the paper.
    pub iterations: usize,
    /// Prompts of an iteration; the whole pool if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompts_per_iteration: Option<usize>,
    /// K, answers to each prompt. 2, one pair.
    pub num_generations: usize,
    /// Which of them are compared.
    pub pairing: Pairing,
    /// What becomes of the oracle's probability. If not given: hard, one answer a pair, where pairs are what is learnt from (INPO, direct
    /// losses, XPO); soft for SPPO and Nash-MD, whose papers have the probability itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// What becomes of answers that were cut off.
    pub truncated: Truncated,
    /// Passes over the pairs of an iteration.
    pub num_epochs: usize,
    /// Pairs of an optimiser step. 128 as in the paper.
    pub minibatch: usize,
    /// Pairs that go through the policy at once; changes memory, not results.
    pub microbatch: usize,
    /// AdamW with a peak rate of 5e-7 and a cosine, as in the paper; its 3 % of warm-up are `schedule.warmup` steps.
    pub optimizer: OptimizerConfig,
    /// Begin every iteration with fresh moments and the schedule anew. If not given: yes where an iteration has several
    /// optimiser steps, no where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_optimizer: Option<bool>,
    /// Divides logits while sampling. 1; anything else draws pairs from another policy than the one that is trained.
    pub temperature: Positive,
    /// Keeps the smallest set of tokens with this mass while sampling. 1.
    pub top_p: Fraction,
    /// The longest answer.
    pub response_length: usize,
    /// An answer ends with the first of these.
    pub stop_token_ids: Vec<u32>,
    /// An answer ends with the token that completes one of these.
    pub stop_strings: Vec<String>,
    /// Compare the policy with its past and the reference on held-out prompts, and take measures, after every so many iterations and
    /// after the last one; 0 never does.
    pub evaluate_every: usize,
    /// How many past policies it is compared with, the newest ones.
    pub past_policies: usize,
    /// Decides everything that is drawn.
    pub seed: u64,
}

impl Default for SelfPlayConfig {
    fn default() -> Self {
        Self {
            method: Method::default(),
            iterations: 3,
            prompts_per_iteration: None,
            num_generations: 2,
            pairing: Pairing::default(),
            labels: None,
            truncated: Truncated::default(),
            num_epochs: 1,
            minibatch: 128,
            microbatch: 8,
            optimizer: OptimizerConfig {
                learning_rate: Positive::literal(5e-7),
                schedule: Schedule::Cosine { warmup: 0, floor: UnitInterval::literal(0.0) },
                ..OptimizerConfig::default()
            },
            reset_optimizer: None,
            temperature: Positive::literal(1.0),
            top_p: Fraction::literal(1.0),
            response_length: 256,
            stop_token_ids: Vec::new(),
            stop_strings: Vec::new(),
            evaluate_every: 1,
            past_policies: 4,
            seed: 0,
        }
    }
}

/// Sizes that follow from the config and the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Prompts of an iteration.
    pub prompts: usize,
    /// Pairs of an iteration, if none is dropped; of Nash-MD, answers.
    pub pairs: usize,
    /// Optimiser steps of an iteration.
    pub steps_per_iteration: usize,
    /// Iterations.
    pub iterations: usize,
    /// Whether every iteration begins with a fresh optimiser.
    pub reset_optimizer: bool,
    /// What becomes of the oracle's probability.
    pub labels: Labels,
}

impl Plan {
    /// Optimiser steps in all.
    pub fn steps(&self) -> u64 {
        (self.iterations * self.steps_per_iteration) as u64
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { prompts, pairs, steps_per_iteration, iterations, .. } = self;
        write!(
            f,
            "{iterations} iterations of {prompts} prompts, {pairs} comparisons and {steps_per_iteration} optimiser steps each"
        )
    }
}

/// What an INPO iteration works with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InpoStep {
    /// η of this iteration.
    pub eta: f64,
    /// τ.
    pub tau: f64,
}

impl InpoStep {
    /// `τ/η`: the reference's share of the anchor.
    pub fn ratio(&self) -> f64 {
        self.tau / self.eta
    }
}

impl Method {
    /// η and τ of iteration `t`, counted from 0; `None` of other methods.
    ///
    /// # Errors
    /// If `τ > η`, or a decreasing schedule without τ.
    pub fn inpo(&self, t: usize) -> Result<Option<InpoStep>, SelfPlayError> {
        let Self::Inpo { eta, tau, schedule, .. } = *self else { return Ok(None) };
        let tau = tau.map_or(eta.get() / 3.0, NonNegative::get);
        let eta = match schedule {
            EtaSchedule::Constant => eta.get(),
            EtaSchedule::Decreasing if tau == 0.0 => return Err(SelfPlayError::ScheduleWithoutTau),
            EtaSchedule::Decreasing => tau * (t as f64 + 3.0) / 2.0,
        };
        if tau > eta {
            return Err(SelfPlayError::TauAboveEta { tau, eta });
        }
        Ok(Some(InpoStep { eta, tau }))
    }

    /// The word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Inpo { .. } => "inpo",
            Self::Dpo { .. } => "dpo",
            Self::Sppo { .. } => "sppo",
            Self::Xpo { .. } => "xpo",
            Self::NashMd { .. } => "nash_md",
        }
    }
}

impl SelfPlayConfig {
    /// Checks what the types of the fields cannot, and works out the sizes.
    ///
    /// # Errors
    /// [`SelfPlayError`] names the setting.
    pub fn plan(&self, pool: usize) -> Result<Plan, SelfPlayError> {
        let k = self.num_generations;
        for (name, value) in [
            ("iterations", self.iterations),
            ("num_epochs", self.num_epochs),
            ("minibatch", self.minibatch),
            ("microbatch", self.microbatch),
            ("response_length", self.response_length),
            ("prompts_per_iteration", self.prompts_per_iteration.unwrap_or(1)),
        ] {
            if value == 0 {
                return Err(SelfPlayError::Zero { name });
            }
        }
        if pool == 0 {
            return Err(SelfPlayError::NoPrompts);
        }
        self.method.inpo(0)?;
        self.check_generations(k)?;
        let prompts = self.prompts_per_iteration.unwrap_or(pool);
        let pairs = match (self.method, self.pairing) {
            (Method::Xpo { .. } | Method::NashMd { .. }, _) | (_, Pairing::Tournament) => prompts,
            (_, Pairing::Independent) => prompts * k / 2,
        };
        let steps_per_iteration = self.num_epochs * pairs.div_ceil(self.minibatch);
        Ok(Plan {
            prompts,
            pairs,
            steps_per_iteration,
            iterations: self.iterations,
            reset_optimizer: self.reset_optimizer.unwrap_or(steps_per_iteration > 1),
            labels: self.labels.unwrap_or(match self.method {
                Method::Sppo { .. } | Method::NashMd { .. } => Labels::Soft,
                Method::Inpo { .. } | Method::Dpo { .. } | Method::Xpo { .. } => Labels::Hard,
            }),
        })
    }

    fn check_generations(&self, k: usize) -> Result<(), SelfPlayError> {
        let expected = match (self.method, self.pairing) {
            (Method::Xpo { .. } | Method::NashMd { .. }, _) if k != 2 => {
                "2: one of the policy and one of its opponent"
            }
            (Method::Xpo { .. } | Method::NashMd { .. } | Method::Sppo { .. }, Pairing::Tournament) => {
                return Err(SelfPlayError::NoTournament { method: self.method.name() });
            }
            (_, Pairing::Tournament) if k < 2 || !k.is_power_of_two() => {
                "a power of two, at least 2, for a knockout tournament"
            }
            (_, Pairing::Independent) if k < 2 || k % 2 == 1 => {
                "an even number, at least 2, for disjoint pairs"
            }
            _ => return Ok(()),
        };
        Err(SelfPlayError::Generations { found: k, expected })
    }

    /// How answers are drawn.
    pub fn sampling(&self) -> SamplingConfig {
        SamplingConfig::for_rollouts(
            self.temperature,
            self.top_p,
            self.response_length,
            &self.stop_token_ids,
            &self.stop_strings,
        )
    }
}
