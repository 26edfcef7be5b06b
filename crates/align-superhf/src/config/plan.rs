//! The batch sizes spelt out, and what cannot be.

use std::fmt;

use super::SuperHfConfig;
use crate::error::Warning;
use crate::filter::Filter;

/// How a run is cut up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupPlan {
    /// M: prompts of a group.
    pub prompts: usize,
    /// N: samples of a prompt.
    pub samples: usize,
    /// Completions of an optimiser step.
    pub minibatch: usize,
    /// Completions that go through a model at once.
    pub microbatch: usize,
    /// Samples of each prompt on which the KL is measured.
    pub kl_samples: usize,
    /// Iterations of the whole run, one a group.
    pub groups: u64,
    /// Whether all prompts are one group, so that the schedule moves with the optimiser's steps.
    pub single_pass: bool,
}

impl GroupPlan {
    /// Completions sampled in a group.
    pub fn rollout(&self) -> usize {
        self.prompts * self.samples
    }
}

impl fmt::Display for GroupPlan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} groups, each of {} sequences ({} prompts x {}); optimiser steps of {} kept sequences, {} at a time",
            self.groups,
            self.rollout(),
            self.prompts,
            self.samples,
            self.minibatch,
            self.microbatch.min(self.minibatch),
        )
    }
}

/// Settings that contradict each other or the prompts.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A count that must not be 0.
    #[error("`{name}` is 0, expected at least 1")]
    Zero {
        /// The setting.
        name: &'static str,
    },
    /// More kept than sampled.
    #[error("`top_k` is {top_k}, expected at most `superbatch_size`, {superbatch_size}")]
    TopK {
        /// K.
        top_k: usize,
        /// N.
        superbatch_size: usize,
    },
    /// A group needs more prompts than there are.
    #[error(
        "`prompt_accumulation_steps` is {prompt_accumulation_steps}, expected at most the number of prompts, {prompts}"
    )]
    TooFewPrompts {
        /// M.
        prompt_accumulation_steps: usize,
        /// How many there are.
        prompts: usize,
    },
    /// Two settings that say the same.
    #[error("found both `{first}` and `{second}`, expected one of them")]
    TwoNames {
        /// One.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// β without a prior.
    #[error("`kl_coef` is {kl_coef} and `prior` is none, expected 0: there is nothing to be held to")]
    NoPrior {
        /// β.
        kl_coef: f64,
    },
    /// A decay of 1 would never take anything in.
    #[error("`{name}` is 1, expected a number in [0, 1): a running mean that forgets nothing learns nothing")]
    AdamBeta {
        /// Which of the two.
        name: &'static str,
    },
}

impl SuperHfConfig {
    /// Checks the settings against each other.
    ///
    /// # Errors
    /// [`ConfigError`] names the settings that do not go together.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (name, value) in [
            ("superbatch_size", self.superbatch_size),
            ("minibatch", self.minibatch),
            ("microbatch", self.microbatch),
            ("passes", self.passes),
            ("total_episodes", self.total_episodes),
            ("response_length", self.response_length),
        ] {
            if value == 0 {
                return Err(ConfigError::Zero { name });
            }
        }
        match self.filter {
            Filter::TopK { k: 0 } => return Err(ConfigError::Zero { name: "top_k" }),
            Filter::TopK { k } if k > self.superbatch_size => {
                return Err(ConfigError::TopK { top_k: k, superbatch_size: self.superbatch_size });
            }
            _ => {}
        }
        for (name, beta) in [("adam_beta_1", self.adam_beta_1), ("adam_beta_2", self.adam_beta_2)] {
            if beta.get() == 1.0 {
                return Err(ConfigError::AdamBeta { name });
            }
        }
        Ok(())
    }

    /// The batch sizes spelt out, for a pool of that many prompts.
    ///
    /// # Errors
    /// As [`check`](Self::check), and if a group needs more prompts than there are.
    pub fn plan(&self, prompts: usize) -> Result<GroupPlan, ConfigError> {
        self.check()?;
        let of_group = self.prompt_accumulation_steps;
        if of_group > prompts {
            return Err(ConfigError::TooFewPrompts { prompt_accumulation_steps: of_group, prompts });
        }
        let single_pass = of_group == 0;
        let plan = GroupPlan {
            prompts: if single_pass { prompts } else { of_group },
            samples: self.superbatch_size,
            minibatch: self.minibatch,
            microbatch: self.microbatch,
            kl_samples: self.kl_samples.min(self.superbatch_size),
            groups: 1,
            single_pass,
        };
        let groups = if single_pass { 1 } else { self.total_episodes.div_ceil(plan.rollout()) as u64 };
        Ok(GroupPlan { groups, ..plan })
    }

    /// What goes together and is rarely meant.
    pub(crate) fn warnings(&self) -> Vec<Warning> {
        match self.filter {
            _ if self.superbatch_size == 1 => vec![Warning::SelfTraining],
            Filter::TopK { k } if k == self.superbatch_size => vec![Warning::NoSelection { samples: k }],
            _ => Vec::new(),
        }
    }
}
