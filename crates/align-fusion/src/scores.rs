//! Scores of all members at the same rows, on the host.

use align_core::{Completions, TokenBatch};
use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use crate::row_error::RowError;
use crate::weighing::{Row, Step, Weighing};

/// Fewer scores than this are not worth another thread.
const SCORES_PER_THREAD: usize = 1 << 13;

/// Next-token scores of large base, small base and experts, in this order, at the same N rows.
pub(crate) struct MemberScores {
    members: Vec<Table>,
    /// V: what the members share; columns beyond it are padding.
    vocabulary: usize,
    rows: usize,
}

struct Table {
    values: Vec<f32>,
    width: usize,
}

impl MemberScores {
    /// Reads `[N, V or more]` of every member in f32: shifts are differences of large numbers, and are taken in full precision.
    ///
    /// Hand in all tensors at once, so that no device waits for another's scores to be read.
    pub(crate) fn read(scores: Vec<Tensor<2>>, vocabulary: usize) -> Self {
        let rows = scores.first().map_or(0, |scores| scores.dims()[0]);
        let table = |scores: Tensor<2>| {
            let [_, width] = scores.dims();
            let values = scores.without_autodiff().try_into_vec_as::<f32>().expect("scores are floats");
            Table { values, width }
        };
        Self { members: scores.into_iter().map(table).collect(), vocabulary, rows }
    }

    /// N.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// What a member scored at a row, `[V]`.
    pub(crate) fn of(&self, member: usize, row: usize) -> &[f32] {
        let Table { values, width } = &self.members[member];
        &values[row * width..row * width + self.vocabulary]
    }

    fn weigh(&self, row: usize, weighing: &Weighing, fused: &mut [f32]) -> Result<Step, RowError> {
        let experts: Vec<&[f32]> = (2..self.members.len()).map(|member| self.of(member, row)).collect();
        let scores = Row { base: self.of(0, row), anchor: self.of(1, row), experts: &experts };
        weighing.weigh(scores, fused)
    }

    /// Weighs the rows that count and gives all rows as one table, `[N, V]`: zeros where nothing counts, NaN where scores are
    /// no distributions. Errors come with their rows.
    pub(crate) fn fuse(
        &self,
        weighing: &Weighing,
        counts: impl Fn(usize) -> bool + Sync,
    ) -> (Vec<f32>, Vec<(usize, RowError)>) {
        let mut fused = vec![0.0; self.rows * self.vocabulary];
        let errors = fused
            .par_chunks_mut(self.vocabulary)
            .enumerate()
            .with_min_len(self.rows_per_thread())
            .filter(|(row, _)| counts(*row))
            .filter_map(|(row, fused)| {
                let error = self.weigh(row, weighing, fused).err()?;
                fused.fill(f32::NAN);
                Some((row, error))
            })
            .collect();
        (fused, errors)
    }

    /// Weighs every row and keeps only what `visit` makes of it, so that fused scores exist for one row a thread at a time.
    pub(crate) fn each<T: Send>(
        &self,
        weighing: &Weighing,
        visit: impl Fn(usize, &[f32], Step) -> T + Sync,
    ) -> Vec<Result<T, RowError>> {
        let scratch = || vec![0.0; self.vocabulary];
        (0..self.rows)
            .into_par_iter()
            .with_min_len(self.rows_per_thread())
            .map_init(scratch, |fused, row| {
                let step = self.weigh(row, weighing, fused)?;
                Ok(visit(row, fused, step))
            })
            .collect()
    }

    fn rows_per_thread(&self) -> usize {
        SCORES_PER_THREAD.div_ceil(self.vocabulary * self.members.len()).max(1)
    }
}

/// A token of a response that counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) row: usize,
    /// Its column in the batch.
    pub(crate) column: usize,
    /// How many tokens of the row count before it.
    pub(crate) step: usize,
    pub(crate) id: u32,
}

/// The tokens that count, row by row.
pub(crate) fn places(tokens: &TokenBatch) -> Vec<Place> {
    let width = tokens.width();
    let ids: Vec<i64> = tokens.ids.to_data().iter::<i64>().collect();
    let mask: Vec<bool> = tokens.mask.to_data().iter::<bool>().collect();
    let mut places = Vec::with_capacity(ids.len());
    for (row, (ids, mask)) in ids.chunks(width).zip(mask.chunks(width)).enumerate() {
        let counted = (0..width).filter(|&column| mask[column]);
        places.extend(counted.enumerate().map(|(step, column)| Place {
            row,
            column,
            step,
            id: ids[column] as u32,
        }));
    }
    places
}

/// The batch where a member lives, without its record.
///
/// Tokens cross devices as numbers: each backend has types of its own for integers and booleans, and Burn 0.22 moves a
/// tensor with the type it had.
pub(crate) fn on(tokens: &TokenBatch, device: &Device) -> TokenBatch {
    let device = device.clone().without_autodiff();
    if tokens.ids.device().without_autodiff() == device {
        let (ids, mask) = (tokens.ids.clone().to_device(&device), tokens.mask.clone().to_device(&device));
        return TokenBatch { ids, mask };
    }
    let shape = tokens.ids.dims();
    let ids: Vec<i64> = tokens.ids.to_data().iter::<i64>().collect();
    let mask: Vec<bool> = tokens.mask.to_data().iter::<bool>().collect();
    TokenBatch {
        ids: Tensor::from_data(TensorData::new(ids, shape), &device),
        mask: Tensor::from_data(TensorData::new(mask, shape), &device),
    }
}

/// [`on`] for both parts.
pub(crate) fn completions_on(completions: &Completions, device: &Device) -> Completions {
    Completions { prompt: on(&completions.prompt, device), response: on(&completions.response, device) }
}

/// A table of rows as a constant.
pub(crate) fn table(values: Vec<f32>, vocabulary: usize, device: &Device) -> Tensor<2> {
    let rows = values.len() / vocabulary;
    Tensor::from_data(TensorData::new(values, [rows, vocabulary]), &device.clone().without_autodiff())
}

/// Entropy of `softmax(log_probs / temperature)` in nats; an outcome of log-probability −∞ contributes 0.
pub(crate) fn entropy(log_probs: &[f32], temperature: f64) -> f64 {
    let scaled = |log_prob: &f32| f64::from(*log_prob) / temperature;
    let largest = log_probs.iter().map(scaled).fold(f64::NEG_INFINITY, f64::max);
    let (mut total, mut weighted) = (0.0, 0.0);
    for below in log_probs.iter().map(|log_prob| scaled(log_prob) - largest) {
        let weight = below.exp();
        total += weight;
        // 0 × −∞ would be NaN.
        weighted += if weight > 0.0 { weight * below } else { 0.0 };
    }
    total.ln() - weighted / total
}
