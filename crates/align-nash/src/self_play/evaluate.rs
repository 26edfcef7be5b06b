//! How a policy does against the reference and its own past, on prompts it does not learn from.

use align_core::draws::Purpose;
use align_core::{CausalLm, Completions, Policy, checked_preferences};
use align_models::{GenerateOptions, Prompt, generate};
use align_train::Metrics;
use serde::{Deserialize, Serialize};

use super::{SelfPlay, SelfPlayError};

/// Answers to the held-out prompts that new answers are compared with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Opponents {
    /// The reference's.
    reference: Option<Vec<Vec<u32>>>,
    /// Earlier policies', the oldest first.
    past: Vec<Vec<Vec<u32>>>,
}

/// A mean win rate and its standard error.
#[derive(Clone, Copy, Debug)]
struct WinRate {
    mean: f64,
    standard_error: f64,
}

impl<P: Policy> SelfPlay<P> {
    /// The policy after `done` iterations: its measures, and its win rates where there are held-out prompts.
    pub(super) fn compare(&mut self, done: u64) -> Result<Metrics, SelfPlayError> {
        let policy = self.learner.model().valid();
        let mut metrics = Metrics::new();
        for (name, measure) in &self.measures {
            metrics.set(name.as_str(), measure(&policy));
        }
        if self.held_out.is_empty() {
            return Ok(metrics);
        }
        let answers = self.answers(&policy, done)?;
        if self.opponents.reference.is_none() {
            self.opponents.reference = Some(self.answers(&*self.reference, 0)?);
        }
        let reference = self.opponents.reference.clone().expect("set above");
        let against = self.win_rate(done, &answers, &reference)?;
        metrics.set("nash/win_rate_vs_reference", against.mean);
        metrics.set("nash/win_rate_vs_reference_se", against.standard_error);
        let mut worst = against.mean;
        for (at, past) in self.opponents.past.clone().iter().enumerate().rev() {
            let found = self.win_rate(done, &answers, past)?;
            if at + 1 == self.opponents.past.len() {
                metrics.set("nash/win_rate_vs_previous", found.mean);
                metrics.set("nash/win_rate_vs_previous_se", found.standard_error);
            }
            worst = worst.min(found.mean);
        }
        metrics.set("nash/worst_win_rate", worst);
        self.opponents.past.push(answers);
        let beyond = self.opponents.past.len().saturating_sub(self.config.past_policies);
        self.opponents.past.drain(..beyond);
        Ok(metrics)
    }

    /// One answer to each held-out prompt.
    fn answers(&self, model: &dyn CausalLm, step: u64) -> Result<Vec<Vec<u32>>, SelfPlayError> {
        let sampling = self.config.sampling();
        let options = GenerateOptions {
            purpose: Purpose::Evaluate,
            slots: (8 * self.config.microbatch).min(self.held_out.len()),
            step,
            detokenize: self.detokenize.as_deref(),
            ..GenerateOptions::new(&sampling, self.draws)
        };
        let rows = generate(model, &Prompt::numbered(self.held_out.iter().cloned()), &options)?.rows;
        Ok(rows.into_iter().map(|row| row.response).collect())
    }

    fn win_rate(
        &mut self,
        done: u64,
        answers: &[Vec<u32>],
        others: &[Vec<u32>],
    ) -> Result<WinRate, SelfPlayError> {
        let device = self.learner.model().device().without_autodiff();
        let size = 8 * self.config.microbatch;
        let mut won = Vec::with_capacity(answers.len());
        let parts = self.held_out.chunks(size).zip(answers.chunks(size)).zip(others.chunks(size));
        for ((prompts, answers), others) in parts {
            let [first, second] =
                [answers, others].map(|responses| Completions::from_rows(prompts, responses, &device));
            let found = checked_preferences(&*self.oracle, &first, &second, self.config.microbatch)
                .map_err(|source| SelfPlayError::Oracle { iteration: done as usize, source })?;
            won.extend(found);
        }
        self.calls += won.len() as u64;
        let count = won.len() as f64;
        let mean = won.iter().sum::<f64>() / count;
        let variance = won.iter().map(|p| (p - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
        Ok(WinRate { mean, standard_error: (variance / count).sqrt() })
    }
}
