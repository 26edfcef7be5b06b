//! Sparse task vectors put together: added, or added where they agree in sign.

use super::error::MergeError;
use super::method::Consensus;
use super::parameters::Parameter;
use super::pass::{Pass, Rows, Store, sweep_into};
use super::sparsify::Sparse;
use super::task::TensorTask;
use crate::mix::FloatDtype;

/// b + λ · Σ_k w_k d_k / D with sparse task vectors d_k.
///
/// With an elected sign, only the terms count whose sign is that of Σ_k w_k d_k (plus, if it is zero), and with `normalize`
/// D is the sum of the weights of those that count, or 1 if that is zero. Without, D is the sum of all weights. Without
/// `normalize`, D is 1.
///
/// # Source
/// Yadav et al. 2023, "TIES-Merging", section 3, <https://arxiv.org/abs/2306.01708>. As in mergekit the sign is elected by
/// the weighted sum and the mean is weighted.
pub(super) fn merge(task: &TensorTask<'_>, dtype: FloatDtype, store: &Store<'_>) -> Result<(), MergeError> {
    let parameters = task.parameters;
    let sparse = (0..task.models.len()).map(|model| Sparse::of(task, model));
    let sparse: Vec<Sparse> = sparse.collect::<Result<_, _>>()?;
    let weights = parameters.normalized_weights();
    let lambda = parameters.number(Parameter::Lambda);
    match parameters.method().consensus() {
        Consensus::Sum => sweep_into(task, &Sum { sparse: &sparse, weights: &weights, lambda }, dtype, store),
        Consensus::ElectedSign => {
            let normalize = parameters.flag(Parameter::Normalize);
            let pass = ElectedSign { sparse: &sparse, weights: &weights, lambda, normalize };
            sweep_into(task, &pass, dtype, store)
        }
    }
}

struct Sum<'a> {
    sparse: &'a [Sparse],
    weights: &'a [f64],
    lambda: f64,
}

impl Pass for Sum<'_> {
    type Sum = ();

    #[inline(always)]
    fn block(&self, first: usize, rows: &mut Rows, _sum: &mut ()) {
        let Rows { base, deltas, out, spare: [keep, total, _], .. } = rows;
        total.fill(0.0);
        for ((delta, sparse), weight) in deltas.iter().zip(self.sparse).zip(self.weights) {
            sparse.keep.fill(first, delta, keep);
            let factor = weight * sparse.factor;
            for ((total, delta), keep) in total.iter_mut().zip(delta).zip(keep.iter()) {
                *total += factor * (delta * keep);
            }
        }
        for ((out, base), total) in out.iter_mut().zip(base.iter()).zip(total.iter()) {
            *out = base + self.lambda * total;
        }
    }
}

struct ElectedSign<'a> {
    sparse: &'a [Sparse],
    weights: &'a [f64],
    lambda: f64,
    normalize: bool,
}

impl Pass for ElectedSign<'_> {
    type Sum = ();

    #[inline(always)]
    fn block(&self, first: usize, rows: &mut Rows, _sum: &mut ()) {
        let Rows { base, deltas, out, spare: [vote, total, divisor], .. } = rows;
        // Weighted deltas in place of the deltas; `total` is the mask until all have voted.
        vote.fill(0.0);
        for ((delta, sparse), weight) in deltas.iter_mut().zip(self.sparse).zip(self.weights) {
            sparse.keep.fill(first, delta, total);
            let factor = weight * sparse.factor;
            for ((delta, keep), vote) in delta.iter_mut().zip(total.iter()).zip(vote.iter_mut()) {
                *delta = factor * (*delta * keep);
                *vote += *delta;
            }
        }
        agreeing(deltas, self.weights, vote, total, divisor);
        if self.normalize {
            for (total, divisor) in total.iter_mut().zip(divisor.iter()) {
                *total /= if *divisor == 0.0 { 1.0 } else { *divisor };
            }
        }
        for ((out, base), total) in out.iter_mut().zip(base.iter()).zip(total.iter()) {
            *out = base + self.lambda * total;
        }
    }
}

/// Σ of the terms whose sign is that of `vote` (plus, if it is zero), and Σ of their weights.
#[inline(always)]
pub(super) fn agreeing(
    terms: &[Vec<f64>],
    weights: &[f64],
    vote: &[f64],
    total: &mut [f64],
    divisor: &mut [f64],
) {
    total.fill(0.0);
    divisor.fill(0.0);
    for (term, &weight) in terms.iter().zip(weights) {
        for (((total, divisor), term), vote) in total.iter_mut().zip(divisor.iter_mut()).zip(term).zip(vote) {
            let sign = if *vote >= 0.0 { 1.0 } else { -1.0 };
            let agrees = term * sign > 0.0;
            *total += if agrees { *term } else { 0.0 };
            *divisor += if agrees { weight } else { 0.0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::method::Method;
    use super::super::parameters::MergeParameters;
    use super::super::sparsify::{Keep, restoring_norm};
    use super::super::task::{Bytes, Values};
    use super::*;

    /// `specs/salsa.md`, section 9, test 9: base, three models and what each keeps.
    const BASE: [f64; 5] = [0.0, 0.1, 1.0, 0.0, 0.3];
    const MODELS: [[f64; 5]; 3] =
        [[0.5, 0.0, 1.2, -0.3, 0.31], [-0.2, 0.3, 1.1, -0.5, 0.30], [0.4, 0.15, 0.6, 0.1, 0.29]];
    const KEPT: [[u8; 5]; 3] = [[1, 0, 1, 1, 0], [0, 1, 1, 0, 1], [1, 1, 0, 1, 1]];

    /// DARE with the masks above and weights ⅓; `factor` is what a task vector is multiplied by.
    fn dare(factor: impl Fn(&TensorTask<'_>, &Keep) -> f64) -> Vec<f64> {
        let bytes = |values: &[f64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let (base, models) = (bytes(&BASE), MODELS.map(|model| bytes(&model)));
        let values = |bytes| Values { dtype: FloatDtype::F64, shape: &[5], bytes: Bytes::Memory(bytes) };
        let models = [values(&models[0]), values(&models[1]), values(&models[2])];
        let parameters = MergeParameters::new(Method::DareLinear, 3);
        let base = Some(values(&base));
        let task =
            TensorTask { name: "w", shape: &[5], base, models: &models, parameters: &parameters, seed: 0 };
        let sparse: Vec<Sparse> = (0..3)
            .map(|model| {
                let keep = Keep::Listed(KEPT[model].to_vec());
                let factor = factor(&task.model(model), &keep);
                Sparse { keep, factor }
            })
            .collect();
        let out = std::sync::Mutex::new(Vec::new());
        let pass = Sum { sparse: &sparse, weights: &[1.0 / 3.0; 3], lambda: 1.0 };
        sweep_into(&task, &pass, FloatDtype::F64, &|_, _, merged| {
            *out.lock().unwrap() = merged.to_vec();
            Ok(())
        })
        .unwrap();
        out.into_inner().unwrap().as_chunks().0.iter().map(|word| f64::from_le_bytes(*word)).collect()
    }

    fn assert_printed(found: &[f64], expected: [f64; 5]) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-8, "{found} against {expected}"); // the digits printed
        }
    }

    #[test]
    fn dare_with_given_masks_has_the_printed_digits() {
        let by_density = dare(|_, _| 1.0 / 0.6);
        assert_printed(&by_density, [0.5, 0.23888889, 1.16666667, -0.11111111, 0.29444444]);
        let by_norm = dare(|task, keep| restoring_norm(task, keep).unwrap());
        assert_printed(&by_norm, [0.41357143, 0.35079365, 1.18511111, -0.05385714, 0.29428571]);
    }
}
