//! Soups of modules.

use burn::module::Module;
use burn::tensor::TensorData;
use rayon::prelude::*;

use crate::combine::combine;
use crate::error::{SoupError, WeightError};
use crate::mix::{FloatDtype, Source, mix};
use crate::weights::Weights;

/// Values that one task averages.
const VALUES_PER_TASK: usize = 1 << 16;

/// The soup θ = Σ_k w_k θ_k of modules.
///
/// Parameters are matched by path and summed in f64; each is stored in the first ingredient's type. The result is on
/// the plain device (`.train()` makes it trainable), its parameters have identifiers of their own, parameters that
/// the first ingredient ties stay tied, and LoRA adapters are merged before the average.
///
/// The weights are `&[f64]`, an array, or [`Weights`]; plain numbers must not be negative and must sum to 1.
///
/// # Errors
/// If the weights are invalid, a parameter is missing, quantised, of another shape or not finite, the mean overflows
/// the first ingredient's type, or a parameter that is not a float differs.
///
/// # Source
/// Wortsman et al. 2022, <https://arxiv.org/abs/2203.05482>; Chegini et al. 2024, section 3,
/// <https://arxiv.org/abs/2411.01798>.
pub fn average<M, W>(ingredients: &[M], weights: W) -> Result<M, SoupError>
where
    M: Module,
    W: TryInto<Weights>,
    SoupError: From<W::Error>,
{
    if ingredients.is_empty() {
        return Err(SoupError::NoIngredients);
    }
    let weights = weights.try_into()?;
    weights.expect_count(ingredients.len())?;
    let ingredients: Vec<&M> = ingredients.iter().collect();
    combine(&ingredients, |path, data| mean(path, data, weights.as_slice()))
}

/// The uniform soup: [`average`] with 1/n for each of n modules.
///
/// # Errors
/// As [`average`].
pub fn uniform<M: Module>(ingredients: &[M]) -> Result<M, SoupError> {
    match Weights::uniform(ingredients.len()) {
        Ok(weights) => average(ingredients, weights),
        Err(WeightError::Empty) => Err(SoupError::NoIngredients),
        Err(other) => Err(other.into()),
    }
}

/// Σ_k w_k x_k of one parameter, in the first ingredient's type.
fn mean(path: &str, data: &[(TensorData, FloatDtype)], weights: &[f64]) -> Result<Vec<u8>, SoupError> {
    let (first, dtype) = (&data[0].0, data[0].1);
    let mut out = vec![0u8; first.as_bytes().len()];
    let (non_finite, overflow) = out
        .par_chunks_mut(VALUES_PER_TASK * dtype.size())
        .enumerate()
        .map(|(task, out)| {
            let values = out.len() / dtype.size();
            let start = task * VALUES_PER_TASK;
            let sources: Vec<Source<'_>> = data
                .iter()
                .zip(weights)
                .map(|((data, dtype), &weight)| Source {
                    dtype: *dtype,
                    bytes: &data.as_bytes()[start * dtype.size()..(start + values) * dtype.size()],
                    weight,
                })
                .collect();
            let mut non_finite = vec![0; sources.len()];
            let overflow = mix(&sources, dtype, out, &mut non_finite);
            (non_finite, overflow)
        })
        .reduce(
            || (vec![0; data.len()], 0),
            |(mut a, x), (b, y)| {
                a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
                (a, x + y)
            },
        );
    if let Some(index) = non_finite.iter().position(|&count| count > 0) {
        let count = non_finite[index];
        return Err(SoupError::NonFiniteParameter { path: path.to_owned(), ingredient: index.into(), count });
    }
    if overflow > 0 {
        return Err(SoupError::Overflow { path: path.to_owned(), dtype, count: overflow });
    }
    Ok(out)
}
