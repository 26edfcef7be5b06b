//! Pairs on the host, and microbatches of them.

use align_core::log_probs::sequence_log_probs;
use align_core::{CausalLm, Completions, Reference};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// Two answers to one prompt and what is known about them before training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// The prompt's tokens.
    pub prompt: Vec<u32>,
    /// Both answers' tokens, the stop token included.
    pub responses: [Vec<u32>; 2],
    /// log of the anchor of both answers, sums in nats; 0 where a loss has no anchor.
    pub anchors: [f32; 2],
    /// P(first ≻ second): 1 where the data says that the first was chosen.
    pub preference: f32,
    /// P(answer ≻ its opponents) of both; of a single comparison `[p, 1 − p]`.
    pub win_rates: [f32; 2],
    /// What multiplies log π of both answers in the loss beside the pair's own: XPO's bonus, −1/length of an SFT term.
    pub likelihood: [f32; 2],
}

impl Pair {
    /// A labelled pair: the first answer was chosen.
    pub fn labelled(prompt: Vec<u32>, chosen: Vec<u32>, rejected: Vec<u32>) -> Self {
        Self::compared(prompt, [chosen, rejected], 1.0)
    }

    /// A pair of which the first answer wins with probability `preference`.
    pub fn compared(prompt: Vec<u32>, responses: [Vec<u32>; 2], preference: f32) -> Self {
        let win_rates = [preference, 1.0 - preference];
        Self { prompt, responses, anchors: [0.0; 2], preference, win_rates, likelihood: [0.0; 2] }
    }

    /// Tokens of prompt and longer answer.
    fn length(&self) -> usize {
        self.prompt.len() + self.responses.iter().map(Vec::len).max().unwrap_or(0)
    }
}

/// Pairs as a loss reads them: 2B rows, the first answers before the second ones. All constants.
#[derive(Clone, Debug)]
pub struct PairBatch {
    /// 2B rows.
    pub completions: Completions,
    /// log of the anchor, `[2B]`.
    pub anchors: Tensor<1>,
    /// Response tokens, `[2B]`.
    pub lengths: Tensor<1>,
    /// P(y ≻ its opponents), `[2B]`.
    pub win_rates: Tensor<1>,
    /// Coefficients of log π(y) in the loss, `[2B]`; `None` if they are all 0.
    pub likelihood: Option<Tensor<1>>,
    /// P(first ≻ second), `[B]`.
    pub preference: Tensor<1>,
}

impl PairBatch {
    /// Pairs side by side, padded to the longest of them.
    ///
    /// # Panics
    /// With no pair.
    pub fn new(pairs: &[&Pair], device: &Device) -> Self {
        let completions = completions(pairs, device);
        let both = |of: fn(&Pair, usize) -> f32| {
            let values = (0..2).flat_map(|side| pairs.iter().map(move |pair| of(pair, side)));
            numbers(values.collect(), device)
        };
        let likelihood = pairs.iter().any(|pair| pair.likelihood != [0.0; 2]);
        Self {
            completions,
            anchors: both(|pair, side| pair.anchors[side]),
            lengths: both(|pair, side| pair.responses[side].len() as f32),
            win_rates: both(|pair, side| pair.win_rates[side]),
            likelihood: likelihood.then(|| both(|pair, side| pair.likelihood[side])),
            preference: numbers(pairs.iter().map(|pair| pair.preference).collect(), device),
        }
    }

    /// B.
    pub fn pairs(&self) -> usize {
        self.preference.dims()[0]
    }
}

/// The 2B rows of pairs.
fn completions(pairs: &[&Pair], device: &Device) -> Completions {
    let prompts: Vec<_> = pairs.iter().chain(pairs).map(|pair| pair.prompt.clone()).collect();
    let sides = (0..2).flat_map(|side| pairs.iter().map(move |pair| pair.responses[side].clone()));
    Completions::from_rows(&prompts, &sides.collect::<Vec<_>>(), device)
}

pub(crate) fn numbers(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), &device.clone().without_autodiff())
}

/// The pairs of an optimiser step in parts of at most `size`, those of like length together, so that little is padded.
///
/// How a step is cut changes memory and speed and, but for rounding, nothing else.
pub fn microbatches(pairs: &[&Pair], size: usize, device: &Device) -> Vec<PairBatch> {
    let mut sorted = pairs.to_vec();
    sorted.sort_by_key(|pair| pair.length());
    sorted.chunks(size.max(1)).map(|pairs| PairBatch::new(pairs, device)).collect()
}

/// Whole answers' log-probabilities under a reference, in the order of the pairs, `size` pairs at a time.
///
/// # Units
/// Nats per answer, at temperature 1.
pub fn sequence_sums(
    reference: &dyn Reference,
    pairs: &[Pair],
    size: usize,
    device: &Device,
) -> Vec<[f32; 2]> {
    let rows: Vec<(&[u32], &[u32])> = pairs
        .iter()
        .flat_map(|pair| pair.responses.iter().map(|response| (pair.prompt.as_slice(), response.as_slice())))
        .collect();
    row_sums(reference, &rows, 2 * size, device).chunks_exact(2).map(|sums| [sums[0], sums[1]]).collect()
}

/// Log-probabilities of whole answers to prompts under a reference, in the order of the rows, `size` rows at a time; rows of like
/// length go together.
///
/// # Units
/// Nats per answer, at temperature 1.
pub fn row_sums(
    reference: &dyn Reference,
    rows: &[(&[u32], &[u32])],
    size: usize,
    device: &Device,
) -> Vec<f32> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&index| rows[index].0.len() + rows[index].1.len());
    let mut sums = vec![0.0; rows.len()];
    for part in order.chunks(size.max(1)) {
        let (prompts, responses): (Vec<_>, Vec<_>) =
            part.iter().map(|&index| (rows[index].0.to_vec(), rows[index].1.to_vec())).unzip();
        let completions = Completions::from_rows(&prompts, &responses, device);
        let log_probs = reference.log_probs(&completions, 1.0);
        let whole = sequence_log_probs(log_probs, &completions.response.mask).into_data();
        part.iter().zip(whole.iter::<f32>()).for_each(|(&index, sum)| sums[index] = sum);
    }
    sums
}

/// [`sequence_sums`] into the pairs' anchors: computed once, never again while training.
///
/// # Errors
/// If a log-probability is not finite: the index of the pair and which answer.
pub fn cache_anchors(
    reference: &dyn Reference,
    pairs: &mut [Pair],
    size: usize,
    device: &Device,
) -> Result<(), AnchorNotFinite> {
    let sums = sequence_sums(reference, pairs, size, device);
    for (index, (pair, sums)) in pairs.iter_mut().zip(sums).enumerate() {
        if let Some(side) = sums.iter().position(|sum| !sum.is_finite()) {
            return Err(AnchorNotFinite { of: "reference", pair: index, side, found: sums[side] });
        }
        pair.anchors = sums;
    }
    Ok(())
}

/// A model gives an answer no probability.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error(
    "pair {pair}: the {of}'s log-probability of answer {side} is {found}, expected a finite number; a token outside its \
     vocabulary does that"
)]
pub struct AnchorNotFinite {
    /// Which model: "reference" or "policy".
    pub of: &'static str,
    /// Which pair, from 0.
    pub pair: usize,
    /// Which of its answers, 0 or 1.
    pub side: usize,
    /// What was found.
    pub found: f32,
}

/// Whole answers' log-probabilities under the model that is trained.
///
/// # Shapes
/// → `[rows]`, nats, at temperature 1.
///
/// # Gradient
/// Through the model.
pub(crate) fn answer_log_probs<M: CausalLm>(model: &M, completions: &Completions) -> Tensor<1> {
    let tokens = model.token_log_probs(completions, 1.0);
    sequence_log_probs(tokens.log_probs, &completions.response.mask)
}
