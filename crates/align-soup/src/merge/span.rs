//! Results in the span of the members: b + Σ_k c_k δ_k, or Σ_k c_k x_k without a base.

use super::error::MergeError;
use super::gram::Vectors;
use super::method::Method;
use super::parameters::{MergeParameters, Parameter};
use super::pass::{Pass, Rows, Store, fill, sweep_into};
use super::task::TensorTask;
use crate::mix::{FloatDtype, Source, mix};

/// The c_k that do not depend on the tensor: those of linear, passthrough and task arithmetic.
///
/// # Source
/// Linear: Wortsman et al. 2022, <https://arxiv.org/abs/2203.05482>. Task arithmetic: Ilharco et al. 2023,
/// <https://arxiv.org/abs/2212.04089>; `normalize` and `lambda` as in mergekit.
pub(super) fn fixed(parameters: &MergeParameters) -> Option<Vec<f64>> {
    match parameters.method() {
        Method::Linear => Some(parameters.normalized_weights()),
        Method::Passthrough => Some(parameters.numbers(Parameter::Scale)),
        Method::TaskArithmetic => {
            let lambda = parameters.number(Parameter::Lambda);
            Some(parameters.normalized_weights().into_iter().map(|weight| lambda * weight).collect())
        }
        _ => None,
    }
}

/// The coefficient of the base in Σ c x: 1 − Σ_k c_k.
pub(super) fn base_coefficient(coefficients: &[f64]) -> f64 {
    1.0 - coefficients.iter().sum::<f64>()
}

/// Writes b + Σ_k c_k δ_k, with one list of c_k for each of `vectors`.
///
/// # Errors
/// As [`fill`].
pub(super) fn combine(
    task: &TensorTask<'_>,
    vectors: Vectors,
    coefficients: &[Vec<f64>],
    dtype: FloatDtype,
    store: &Store<'_>,
) -> Result<(), MergeError> {
    match vectors {
        Vectors::Whole => mix_vectors(task, task.values(), coefficients, dtype, store),
        Vectors::Last(length) => mix_vectors(task, length, coefficients, dtype, store),
        Vectors::First(columns) => {
            let by_model: Vec<Vec<f64>> = (0..task.models.len())
                .map(|model| coefficients.iter().map(|column| column[model]).collect())
                .collect();
            sweep_into(task, &Columns { columns, by_model: &by_model }, dtype, store)
        }
    }
}

/// [`mix`] of vectors of `length` neighbours.
fn mix_vectors(
    task: &TensorTask<'_>,
    length: usize,
    coefficients: &[Vec<f64>],
    dtype: FloatDtype,
    store: &Store<'_>,
) -> Result<(), MergeError> {
    fill(task, dtype, store, |parts, _, range, out, counts| {
        let mut start = range.start;
        while start < range.end {
            let vector = start / length;
            let end = range.end.min((vector + 1) * length);
            let within = start - range.start..end - range.start;
            let coefficients = &coefficients[vector];
            let base = task.base.map(|_| base_coefficient(coefficients));
            let sources: Vec<Source<'_>> = parts
                .iter()
                .zip(base.iter().chain(coefficients))
                .map(|(part, &weight)| Source { dtype: part.dtype, bytes: part.of(within.clone()), weight })
                .collect();
            let out = &mut out[within.start * dtype.size()..within.end * dtype.size()];
            counts.overflow += mix(&sources, dtype, out, &mut counts.non_finite);
            start = end;
        }
    })
}

/// b + Σ_k c_k δ_k with c_k by column.
struct Columns<'a> {
    columns: usize,
    by_model: &'a [Vec<f64>],
}

impl Pass for Columns<'_> {
    type Sum = ();

    #[inline(always)]
    fn block(&self, first: usize, rows: &mut Rows, _sum: &mut ()) {
        rows.out.copy_from_slice(&rows.base);
        for (delta, coefficients) in rows.deltas.iter().zip(self.by_model) {
            let mut column = first % self.columns;
            for (out, delta) in rows.out.iter_mut().zip(delta) {
                *out += coefficients[column] * delta;
                column = if column + 1 == self.columns { 0 } else { column + 1 };
            }
        }
    }
}
