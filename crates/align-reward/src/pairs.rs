//! Cutting labelled pairs into microbatches, and making labels wrong on purpose.

use std::mem::swap;

use align_core::draws::{Draws, Purpose};
use align_core::number::NoiseRate;
use align_core::{Completions, PreferencePairs};
use burn::tensor::{Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// Cuts a batch of pairs into parts of at most `size`, in order; the padding stays that of the whole.
///
/// # Panics
/// If `size` is 0.
pub fn microbatches(pairs: &PreferencePairs, size: usize) -> Vec<PreferencePairs> {
    assert!(size > 0, "a microbatch holds at least one pair");
    let rows: Vec<usize> = (0..pairs.chosen.batch_size()).collect();
    rows.chunks(size)
        .map(|rows| {
            let index: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
            let index =
                Tensor::<1, Int>::from_data(TensorData::new(index, [rows.len()]), &pairs.margin.device());
            PreferencePairs {
                chosen: pairs.chosen.select(rows),
                rejected: pairs.rejected.select(rows),
                margin: pairs.margin.clone().select(0, index),
            }
        })
        .collect()
}

/// The prompts that two answers share, row by row.
///
/// # Panics
/// If a row's two prompts differ, or the sides have different numbers of rows.
#[track_caller]
pub(crate) fn shared_prompts(function: &str, first: &Completions, second: &Completions) -> Vec<Vec<u32>> {
    let (prompts, others) = (first.prompt.rows(), second.prompt.rows());
    let [expected, found] = [prompts.len(), others.len()];
    assert!(
        expected == found,
        "{function}: {expected} first answers and {found} second ones, expected as many"
    );
    for (row, (prompt, other)) in prompts.iter().zip(&others).enumerate() {
        assert!(prompt == other, "{function}: the prompts of row {row} differ: {prompt:?} and {other:?}");
    }
    prompts
}

/// Which labels were made wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelFlips {
    /// The probability of each flip.
    pub rate: f64,
    /// The seed of the draws.
    pub seed: u64,
    /// For each pair whether it was flipped.
    pub flipped: Vec<bool>,
}

impl LabelFlips {
    /// Decides pair by pair, by its key alone: neither order nor number of the other pairs matters.
    ///
    /// A higher rate flips the pairs that a lower one flips, and more.
    ///
    /// # Source
    /// Label noise as in Coste et al. 2023, §4, <https://arxiv.org/abs/2310.02743> (rate 0.25).
    pub fn draw(keys: impl IntoIterator<Item = u64>, rate: NoiseRate, draws: &Draws) -> Self {
        // A stream of its own, so that no other draw of the run decides a label too.
        let own = draws.child(u64::from_le_bytes(*b"flip-lab"));
        let flipped =
            keys.into_iter().map(|key| own.token(Purpose::Synthesize, 0, key, 0, 0) < rate.get()).collect();
        Self { rate: rate.get(), seed: draws.seed(), flipped }
    }

    /// How many labels were flipped.
    pub fn count(&self) -> usize {
        self.flipped.iter().filter(|flipped| **flipped).count()
    }

    /// The pairs with chosen and rejected exchanged where flipped. Margins stay: the wrong label claims as much as the right one.
    ///
    /// # Panics
    /// If there are not as many pairs as were drawn for.
    pub fn apply(&self, pairs: &PreferencePairs) -> PreferencePairs {
        assert_eq!(self.flipped.len(), pairs.chosen.batch_size(), "one draw for each pair");
        let rows = |side: &Completions| (side.prompt.rows(), side.response.rows());
        let (mut chosen, mut rejected) = (rows(&pairs.chosen), rows(&pairs.rejected));
        for row in (0..self.flipped.len()).filter(|&row| self.flipped[row]) {
            swap(&mut chosen.0[row], &mut rejected.0[row]);
            swap(&mut chosen.1[row], &mut rejected.1[row]);
        }
        let device = pairs.chosen.prompt.ids.device();
        PreferencePairs {
            chosen: Completions::from_rows(&chosen.0, &chosen.1, &device),
            rejected: Completions::from_rows(&rejected.0, &rejected.1, &device),
            margin: pairs.margin.clone(),
        }
    }
}
