//! Filtering by confidence, the method that cleaning is compared with: train on everything, drop what does not fit.

use align_core::number::UnitInterval;

use super::examples::{ExampleSet, Examples};
use super::fit::{FitConfig, fit};
use crate::BilevelError;

/// What a filter keeps, and the model it judged by.
#[derive(Clone, Debug)]
pub struct Filtered<Y> {
    /// True for the examples that stay.
    pub kept: Vec<bool>,
    /// The loss of every example under the model.
    pub losses: Vec<f64>,
    /// The model trained on all examples alike.
    pub y: Y,
}

impl<Y> Filtered<Y> {
    /// 1 for what is kept and 0 for the rest, as weights for [`fit`].
    pub fn weights(&self) -> Vec<f64> {
        self.kept.iter().map(|&kept| f64::from(u8::from(kept))).collect()
    }
}

/// Trains on all examples and drops the share with the largest loss, which for pairs is the least margin.
///
/// It needs no trusted set, and it believes a model that was trained on the corrupted examples.
///
/// # Errors
/// Of [`fit`].
pub fn filter_by_confidence<E: Examples>(
    examples: &E,
    drop: UnitInterval,
    start: E::Y,
    config: &FitConfig,
) -> Result<Filtered<E::Y>, BilevelError> {
    let rows: Vec<usize> = (0..examples.count(ExampleSet::Training)).collect();
    let y = fit(examples, ExampleSet::Training, &vec![1.0; rows.len()], start, config)?;
    let losses = examples.losses(&y, ExampleSet::Training, &rows);
    let mut order = rows;
    order.sort_by(|&a, &b| losses[b].total_cmp(&losses[a]));
    let mut kept = vec![true; order.len()];
    let dropped = (drop.get() * order.len() as f64).round() as usize;
    order[..dropped].iter().for_each(|&row| kept[row] = false);
    Ok(Filtered { kept, losses, y })
}
