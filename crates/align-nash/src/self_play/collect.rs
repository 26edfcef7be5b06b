//! Collecting: prompts are chosen and answered, answers compared, anchors computed once.

use std::time::Instant;

use align_core::draws::Purpose;
use align_core::oracle::ANTISYMMETRY_TOLERANCE;
use align_core::{
    CausalLm, Completions, Draws, OracleError, Preference, check_antisymmetry, checked_preferences,
};
use align_models::{Detokenize, GenerateOptions, Generated, LogLinear, Prompt, choose_prompts, generate};
use align_train::Metrics;
use burn::tensor::Device;

use super::config::{Anchor, Labels, Method, Pairing, Plan, SelfPlayConfig, Truncated};
use super::error::SelfPlayError;
use crate::batch::{AnchorNotFinite, Pair, sequence_sums};
use crate::game::Tournament;

/// Pairs whose both orders are asked about before anything is learnt from an oracle; not among the calls that are counted.
const ORDERS_CHECKED: usize = 4;

/// What an iteration learns from.
#[derive(Clone, Debug, Default)]
pub(super) struct Collected {
    pub(super) pairs: Vec<Pair>,
    /// log π_t of both answers: what the policy has to give them before the first step.
    pub(super) drawn: Vec<[f32; 2]>,
    /// What is worth saying about them.
    pub(super) metrics: Metrics,
    /// Comparisons the oracle was asked for.
    pub(super) calls: u64,
}

/// What it takes to collect.
pub(super) struct Collector<'a> {
    pub(super) policy: &'a dyn CausalLm,
    pub(super) reference: &'a dyn CausalLm,
    pub(super) oracle: &'a dyn Preference,
    pub(super) detokenize: Option<&'a dyn Detokenize>,
    pub(super) config: &'a SelfPlayConfig,
    pub(super) plan: &'a Plan,
    pub(super) draws: Draws,
    pub(super) iteration: u64,
}

/// Two answers of one prompt, by their place among all answers.
type Match = (usize, usize);

/// A match whose preference is known.
struct Settled {
    rows: Match,
    preference: f64,
    /// Of both answers, where each was compared with several.
    win_rates: Option<[f64; 2]>,
}

/// Why pairs are not learnt from.
#[derive(Default)]
struct Dropped {
    identical: usize,
    truncated: usize,
    undecided: usize,
}

impl Collector<'_> {
    pub(super) fn collect(&self, pool: &[Vec<u32>]) -> Result<Collected, SelfPlayError> {
        let begun = Instant::now();
        let prompts = choose_prompts(&self.draws, pool, self.iteration, self.plan.prompts);
        let answers = self.answer(&prompts)?;
        let generated = begun.elapsed().as_secs_f64();

        let begun = Instant::now();
        let mut dropped = Dropped::default();
        let mut calls = 0;
        let settled = self.compare(&answers, &prompts, &mut dropped, &mut calls)?;
        if settled.is_empty() {
            let Dropped { identical, truncated, undecided } = dropped;
            let drawn = identical + truncated + undecided;
            let iteration = self.iteration as usize + 1;
            return Err(SelfPlayError::NoUsablePairs { iteration, drawn, identical, truncated, undecided });
        }
        let compared = begun.elapsed().as_secs_f64();

        let begun = Instant::now();
        let mut pairs: Vec<Pair> =
            settled.iter().map(|settled| self.pair(settled, &answers, &prompts)).collect();
        let (drawn, reference) = self.anchor(&mut pairs)?;
        let passed = begun.elapsed().as_secs_f64();

        let mut metrics = metrics(&pairs, &answers);
        metrics.set("objective/kl", self.kl(&pairs, &settled, &answers, [&drawn, &reference]));
        for (name, value) in [
            ("pairs/used", pairs.len()),
            ("pairs/identical", dropped.identical),
            ("pairs/truncated", dropped.truncated),
            ("pairs/undecided", dropped.undecided),
        ] {
            metrics.set(name, value as f64);
        }
        let mean =
            settled.iter().map(|s| (s.preference - 0.5).abs() + 0.5).sum::<f64>() / settled.len() as f64;
        metrics.set("objective/preference_of_winner", mean);
        metrics.set("timing_s/generate", generated);
        metrics.set("timing_s/oracle", compared);
        metrics.set("timing_s/log_probs", passed);
        self.oracle.take_metrics().into_iter().for_each(|(name, value)| metrics.set(name, value));
        Ok(Collected { pairs, drawn, metrics, calls })
    }

    /// K answers to each prompt, side by side; where the opponent is another model, its answer stands second.
    fn answer(&self, prompts: &[Prompt]) -> Result<Vec<Generated>, SelfPlayError> {
        let k = self.config.num_generations;
        let mixture = |share: f64| {
            LogLinear::new(vec![(1.0 - share, Box::new(self.policy)), (share, Box::new(self.reference))])
        };
        let opponent: Option<Vec<Generated>> = match self.config.method {
            Method::Xpo { .. } => Some(self.generate(self.reference, prompts, 1, self.draws.child(1))?),
            Method::NashMd { mixture: share, .. } if share.get() > 0.0 => {
                Some(self.generate(&mixture(share.get()), prompts, 1, self.draws.child(1))?)
            }
            _ => None,
        };
        match opponent {
            None => self.generate(self.policy, prompts, k, self.draws),
            Some(second) => {
                let first = self.generate(self.policy, prompts, 1, self.draws)?;
                Ok(first.into_iter().zip(second).flat_map(|(first, second)| [first, second]).collect())
            }
        }
    }

    fn generate(
        &self,
        model: &dyn CausalLm,
        prompts: &[Prompt],
        samples: usize,
        draws: Draws,
    ) -> Result<Vec<Generated>, SelfPlayError> {
        let sampling = self.config.sampling();
        let options = GenerateOptions {
            samples,
            // Decoding keeps no activations, so more rows fit than in a training microbatch.
            slots: (8 * self.config.microbatch).min(prompts.len() * samples),
            step: self.iteration,
            detokenize: self.detokenize,
            ..GenerateOptions::new(&sampling, draws)
        };
        Ok(generate(model, prompts, &options)?.rows)
    }

    /// Every pair that can be learnt from, with the oracle's word on it.
    fn compare(
        &self,
        answers: &[Generated],
        prompts: &[Prompt],
        dropped: &mut Dropped,
        calls: &mut u64,
    ) -> Result<Vec<Settled>, SelfPlayError> {
        let groups: Vec<Vec<usize>> = {
            let rows: Vec<usize> = (0..answers.len()).collect();
            rows.chunks(self.config.num_generations).map(<[usize]>::to_vec).collect()
        };
        match (self.config.method, self.config.pairing) {
            (_, Pairing::Tournament) => self.knockout(&groups, answers, dropped, calls),
            (Method::Sppo { .. }, _) => self.everybody(&groups, answers, prompts, dropped, calls),
            (_, Pairing::Independent) => {
                let pairs = groups.iter().flat_map(|group| group.chunks(2)).map(|two| (two[0], two[1]));
                let usable: Vec<Match> = pairs.filter(|rows| self.usable(*rows, answers, dropped)).collect();
                let preferences = self.ask(&usable, answers, calls)?;
                Ok(usable
                    .into_iter()
                    .zip(preferences)
                    .map(|(rows, preference)| Settled { rows, preference, win_rates: None })
                    .collect())
            }
        }
    }

    /// Best and worst of every group, all groups' rounds together.
    fn knockout(
        &self,
        groups: &[Vec<usize>],
        answers: &[Generated],
        dropped: &mut Dropped,
        calls: &mut u64,
    ) -> Result<Vec<Settled>, SelfPlayError> {
        const CHECKED: &str = "the plan has groups of a power of two, the oracle answers with probabilities";
        let mut tournaments: Vec<Tournament> =
            groups.iter().map(|group| Tournament::new(group.len()).expect(CHECKED)).collect();
        // Groups are of one size, so that all are over together.
        while tournaments.iter().any(|tournament| tournament.outcome().is_none()) {
            let rounds: Vec<Vec<Match>> = tournaments
                .iter()
                .zip(groups)
                .map(|(tournament, group)| {
                    tournament.round().iter().map(|&(a, b)| (group[a], group[b])).collect()
                })
                .collect();
            let preferences = self.ask(&rounds.concat(), answers, calls)?;
            let mut rest = preferences.as_slice();
            for (tournament, round) in tournaments.iter_mut().zip(&rounds) {
                let (own, others) = rest.split_at(round.len());
                tournament.answer(own).expect(CHECKED);
                rest = others;
            }
        }
        let mut settled = Vec::new();
        for (tournament, group) in tournaments.iter().zip(groups) {
            let Some(end) = tournament.outcome() else { continue };
            let rows = (group[end.winner], group[end.loser]);
            match (self.usable(rows, answers, dropped), end.kept) {
                (true, true) => {
                    settled.push(Settled { rows, preference: end.preference, win_rates: None });
                }
                (true, false) => dropped.undecided += 1,
                (false, _) => {}
            }
        }
        Ok(settled)
    }

    /// Every answer against all others of its prompt; neighbours make a pair.
    fn everybody(
        &self,
        groups: &[Vec<usize>],
        answers: &[Generated],
        prompts: &[Prompt],
        dropped: &mut Dropped,
        calls: &mut u64,
    ) -> Result<Vec<Settled>, SelfPlayError> {
        let matches: Vec<Match> = groups
            .iter()
            .flat_map(|group| {
                group.iter().enumerate().flat_map(|(at, &a)| group[at + 1..].iter().map(move |&b| (a, b)))
            })
            .collect();
        let preferences = self.ask(&matches, answers, calls)?;
        let mut won = vec![0.0; answers.len()];
        let mut direct = std::collections::HashMap::new();
        for (&(a, b), p) in matches.iter().zip(preferences) {
            let share = match self.plan.labels {
                Labels::Soft => p,
                Labels::Hard => {
                    f64::from(u8::from(self.first_wins((a, b), p, &prompts[answers[a].prompt_index])))
                }
            };
            won[a] += share;
            won[b] += 1.0 - share;
            direct.insert((a, b), p);
        }
        let opponents = (self.config.num_generations - 1) as f64;
        let pairs = groups.iter().flat_map(|group| group.chunks(2)).map(|two| (two[0], two[1]));
        Ok(pairs
            .filter(|rows| self.usable(*rows, answers, dropped))
            .map(|rows| Settled {
                rows,
                preference: direct[&rows],
                win_rates: Some([won[rows.0] / opponents, won[rows.1] / opponents]),
            })
            .collect())
    }

    /// Whether there is something to learn from a pair; counts why not. REINFORCE learns from ties too.
    fn usable(&self, (a, b): Match, answers: &[Generated], dropped: &mut Dropped) -> bool {
        let needs_two = !matches!(self.config.method, Method::NashMd { .. });
        if needs_two && answers[a].response == answers[b].response {
            dropped.identical += 1;
            return false;
        }
        let cut_off = |row: usize| !answers[row].finish_reason.stopped();
        if self.config.truncated == Truncated::Drop && (cut_off(a) || cut_off(b)) {
            dropped.truncated += 1;
            return false;
        }
        true
    }

    /// P(first ≻ second) of every match. Answers that are the same are equally good, and nobody is asked.
    fn ask(
        &self,
        matches: &[Match],
        answers: &[Generated],
        calls: &mut u64,
    ) -> Result<Vec<f64>, SelfPlayError> {
        let known = |&(a, b): &Match| -> Option<f64> {
            if answers[a].response == answers[b].response {
                return Some(0.5);
            }
            if self.config.truncated != Truncated::Lose {
                return None;
            }
            match (answers[a].finish_reason.stopped(), answers[b].finish_reason.stopped()) {
                (true, false) => Some(1.0),
                (false, true) => Some(0.0),
                _ => None,
            }
        };
        let mut preferences: Vec<Option<f64>> = matches.iter().map(known).collect();
        let open: Vec<usize> = (0..matches.len()).filter(|&at| preferences[at].is_none()).collect();
        let device = self.policy.device().without_autodiff();
        if self.iteration == 0 && *calls == 0 && !open.is_empty() {
            let few: Vec<Match> = open.iter().take(ORDERS_CHECKED).map(|&at| matches[at]).collect();
            let [first, second] = sides(&few, answers, &device);
            check_antisymmetry(self.oracle, &first, &second, ANTISYMMETRY_TOLERANCE)
                .map_err(|e| self.failed(e))?;
        }
        for part in open.chunks(8 * self.config.microbatch) {
            let rows: Vec<Match> = part.iter().map(|&at| matches[at]).collect();
            let [first, second] = sides(&rows, answers, &device);
            let found = checked_preferences(self.oracle, &first, &second, self.config.microbatch)
                .map_err(|error| self.failed(error))?;
            part.iter().zip(found).for_each(|(&at, p)| preferences[at] = Some(p));
            *calls += part.len() as u64;
        }
        Ok(preferences.into_iter().map(|p| p.expect("asked or known")).collect())
    }

    fn failed(&self, source: OracleError) -> SelfPlayError {
        SelfPlayError::Oracle { iteration: self.iteration as usize + 1, source }
    }

    /// A settled match as a pair, its label drawn or kept.
    fn pair(&self, settled: &Settled, answers: &[Generated], prompts: &[Prompt]) -> Pair {
        let (a, b) = settled.rows;
        let prompt = &prompts[answers[a].prompt_index];
        let responses = [a, b].map(|row| answers[row].response.clone());
        let mut pair = Pair::compared(prompt.ids.clone(), responses, settled.preference as f32);
        if let Some(win_rates) = settled.win_rates {
            pair.win_rates = win_rates.map(|rate| rate as f32);
        }
        if let Method::Xpo { alpha, .. } = self.config.method {
            pair.likelihood = [0.0, alpha.get() as f32];
        }
        if self.plan.labels == Labels::Soft {
            return pair;
        }
        let first_wins = match self.config.pairing {
            Pairing::Tournament => true,
            Pairing::Independent => self.first_wins(settled.rows, settled.preference, prompt),
        };
        if matches!(self.config.method, Method::NashMd { .. }) {
            // The policy's own answer stands first, whether it won or not.
            pair.preference = f32::from(u8::from(first_wins));
            return pair;
        }
        if !first_wins {
            pair.responses.swap(0, 1);
            pair.win_rates.swap(0, 1);
            pair.likelihood.swap(0, 1);
        }
        pair.preference = 1.0;
        if settled.win_rates.is_none() {
            pair.win_rates = [1.0, 0.0];
        }
        pair
    }

    /// A winner drawn by P(first ≻ second).
    fn first_wins(&self, (a, b): Match, preference: f64, prompt: &Prompt) -> bool {
        let [first, second] = [a, b].map(|row| (row % self.config.num_generations) as u32);
        self.draws.token(Purpose::Label, self.iteration, prompt.key, first, second) < preference
    }

    /// Fills in the anchors; gives log π_t and log π_ref of every answer.
    #[allow(clippy::type_complexity)]
    fn anchor(&self, pairs: &mut [Pair]) -> Result<(Vec<[f32; 2]>, Vec<[f32; 2]>), SelfPlayError> {
        let device = self.policy.device().without_autodiff();
        let sums = |of, model: &dyn CausalLm| -> Result<Vec<[f32; 2]>, AnchorNotFinite> {
            let sums = sequence_sums(&model, pairs, self.config.microbatch, &device);
            for (pair, sums) in sums.iter().enumerate() {
                if let Some(side) = sums.iter().position(|sum| !sum.is_finite()) {
                    return Err(AnchorNotFinite { of, pair, side, found: sums[side] });
                }
            }
            Ok(sums)
        };
        let (previous, reference) = (sums("policy", self.policy)?, sums("reference", self.reference)?);
        // The reference's share of the anchor.
        let ratio = match self.config.method {
            Method::Inpo { .. } => {
                self.config.method.inpo(self.iteration as usize)?.map_or(1.0, |step| step.ratio())
            }
            Method::Dpo { anchor: Anchor::Previous, .. } | Method::Sppo { .. } => 0.0,
            Method::Dpo { .. } | Method::Xpo { .. } | Method::NashMd { .. } => 1.0,
        };
        for ((pair, previous), reference) in pairs.iter_mut().zip(&previous).zip(&reference) {
            for side in 0..2 {
                let (previous, reference) = (f64::from(previous[side]), f64::from(reference[side]));
                pair.anchors[side] = (ratio * reference + (1.0 - ratio) * previous) as f32;
            }
        }
        Ok((previous, reference))
    }
}

impl Collector<'_> {
    /// log π_t − log π_ref, averaged over the policy's own answers among those that are learnt from.
    fn kl(
        &self,
        pairs: &[Pair],
        settled: &[Settled],
        answers: &[Generated],
        [drawn, reference]: [&[[f32; 2]]; 2],
    ) -> f64 {
        let own = |at: usize, side: usize| match self.config.method {
            Method::NashMd { .. } => side == 0,
            // A label may have exchanged the two; they are not the same answer, or there would be no pair.
            Method::Xpo { .. } => pairs[at].responses[side] == answers[settled[at].rows.0].response,
            _ => true,
        };
        let sides = (0..pairs.len()).flat_map(|at| [(at, 0), (at, 1)]).filter(|&(at, side)| own(at, side));
        let ratios = sides.map(|(at, side)| f64::from(drawn[at][side] - reference[at][side]));
        let (count, sum) = ratios.fold((0.0, 0.0), |(count, sum), ratio| (count + 1.0, sum + ratio));
        sum / f64::max(count, 1.0)
    }
}

/// First and second answers of matches as batches.
fn sides(matches: &[Match], answers: &[Generated], device: &Device) -> [Completions; 2] {
    let rows = |row: &dyn Fn(&Match) -> usize| {
        let (prompts, responses): (Vec<_>, Vec<_>) = matches
            .iter()
            .map(|of| (answers[row(of)].prompt.clone(), answers[row(of)].response.clone()))
            .unzip();
        Completions::from_rows(&prompts, &responses, device)
    };
    [rows(&|of| of.0), rows(&|of| of.1)]
}

/// Lengths and stops.
fn metrics(pairs: &[Pair], answers: &[Generated]) -> Metrics {
    let mean = |values: &mut dyn Iterator<Item = f64>| {
        let (count, sum) = values.fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
        if count > 0.0 { sum / count } else { 0.0 }
    };
    let length = |side: usize| pairs.iter().map(move |pair| pair.responses[side].len() as f64);
    let stopped = answers.iter().map(|answer| f64::from(u8::from(answer.finish_reason.stopped())));
    Metrics::new()
        .with("response_length/chosen", mean(&mut length(0)))
        .with("response_length/rejected", mean(&mut length(1)))
        .with("response_length/mean", mean(&mut answers.iter().map(|answer| answer.response.len() as f64)))
        .with("val/stop_token_rate", mean(&mut stopped.into_iter()))
}
