//! All responses to a prompt as a tree of their beginnings: each beginning is read once, not once for every response.

use align_core::{CausalLm, Decoder, TokenBatch};

use super::{LmGameError, Responses};

/// The responses to one prompt, and how they grow out of each other.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    prompt: Vec<u32>,
    vocabulary: usize,
    /// One for each length of a beginning, from 0 on.
    levels: Vec<Level>,
    /// By the level at which they end, in it by beginning and token.
    responses: Vec<Vec<u32>>,
}

/// Beginnings of one length and what ends one token later.
#[derive(Clone, Debug, Default)]
struct Level {
    /// Of which beginning of the level above each continues, and by which token. Nothing at the root, whose one beginning is empty.
    grown: Vec<Branch>,
    /// Responses.
    ended: Vec<Branch>,
}

/// A beginning, by its place in its level, and the token after it.
type Branch = (usize, u32);

impl Tree {
    /// The responses that the reference gives with more than the floor's probability, and the probability of the others.
    pub(super) fn grow(
        reference: &dyn CausalLm,
        index: usize,
        prompt: &[u32],
        responses: &Responses,
    ) -> Result<(Self, f64), LmGameError> {
        let vocabulary = reference.vocab_size();
        let floor = responses.floor.ln();
        let mut tree = Self {
            prompt: prompt.to_vec(),
            vocabulary,
            levels: vec![Level::default()],
            responses: Vec::new(),
        };
        let mut beginnings: Vec<Vec<u32>> = vec![Vec::new()];
        let mut walk = Walk::start(reference, prompt);
        let mut dropped = 0.0;
        for length in 1..=responses.length {
            let mut next = Level::default();
            let mut longer = Vec::new();
            let ended = &mut tree.levels[length - 1].ended;
            for (row, beginning) in beginnings.iter().enumerate() {
                for token in 0..vocabulary as u32 {
                    let log_prob = walk.branch((row, token));
                    if log_prob.is_nan() {
                        return Err(LmGameError::NotADistribution { prompt: index, position: length - 1 });
                    }
                    if log_prob <= floor {
                        dropped += log_prob.exp();
                        continue;
                    }
                    if tree.responses.len() + longer.len() == responses.most {
                        return Err(LmGameError::TooMany { prompt: index, most: responses.most });
                    }
                    let grown = [beginning.as_slice(), &[token]].concat();
                    if length == responses.length || responses.stop_token_ids.contains(&token) {
                        ended.push((row, token));
                        tree.responses.push(grown);
                    } else {
                        next.grown.push((row, token));
                        longer.push(grown);
                    }
                }
            }
            if longer.is_empty() {
                break;
            }
            walk.descend(&next.grown);
            tree.levels.push(next);
            beginnings = longer;
        }
        Ok((tree, dropped))
    }

    /// The responses.
    pub(super) fn responses(&self) -> &[Vec<u32>] {
        &self.responses
    }

    /// log π of every response: scores as the model decodes them, their softmax and its products in f64.
    ///
    /// # Panics
    /// If the model has another vocabulary.
    pub(super) fn log_probs(&self, model: &dyn CausalLm) -> Vec<f64> {
        let (expected, found) = (self.vocabulary, model.vocab_size());
        assert_eq!(
            expected, found,
            "the game's reference has a vocabulary of {expected}, the policy of {found}"
        );
        let mut walk = Walk::start(model, &self.prompt);
        let mut log_probs = Vec::with_capacity(self.responses.len());
        for (depth, level) in self.levels.iter().enumerate() {
            if depth > 0 {
                walk.descend(&level.grown);
            }
            log_probs.extend(level.ended.iter().map(|&branch| walk.branch(branch)));
        }
        log_probs
    }
}

/// A model read level by level.
struct Walk<'m> {
    decoder: Box<dyn Decoder + 'm>,
    vocabulary: usize,
    /// log π of every beginning of the level with every token after it, `[beginnings × V]`.
    branches: Vec<f64>,
}

impl<'m> Walk<'m> {
    fn start(model: &'m dyn CausalLm, prompt: &[u32]) -> Self {
        let mut decoder = model.decoder();
        let scores = decoder.admit(&TokenBatch::left_padded(&[prompt.to_vec()], &model.device()));
        let branches = after(&[0.0], &scores.into_data().iter::<f64>().collect::<Vec<_>>());
        Self { decoder, vocabulary: model.vocab_size(), branches }
    }

    fn branch(&self, (row, token): Branch) -> f64 {
        self.branches[row * self.vocabulary + token as usize]
    }

    fn descend(&mut self, grown: &[Branch]) {
        let (rows, tokens): (Vec<usize>, Vec<u32>) = grown.iter().copied().unzip();
        let beginnings: Vec<f64> = grown.iter().map(|&branch| self.branch(branch)).collect();
        self.decoder.keep(&rows);
        let scores = self.decoder.advance(&tokens);
        self.branches = after(&beginnings, &scores.into_data().iter::<f64>().collect::<Vec<_>>());
    }
}

/// log π of beginnings with a token after them, from the scores of that token.
fn after(beginnings: &[f64], scores: &[f64]) -> Vec<f64> {
    let rows = scores.chunks(scores.len() / beginnings.len());
    let row = |(beginning, scores): (&f64, &[f64])| -> Vec<f64> {
        let normalizer = log_sum_exp(scores);
        scores.iter().map(|score| beginning + score - normalizer).collect()
    };
    beginnings.iter().zip(rows).flat_map(row).collect()
}

/// log Σ exp, without overflow; NaN if there is no such number.
pub(super) fn log_sum_exp(values: &[f64]) -> f64 {
    let highest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    highest + values.iter().map(|value| (value - highest).exp()).sum::<f64>().ln()
}
