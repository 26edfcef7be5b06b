//! What is explained: a function from rows to scores.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::Matrix;
use crate::attribution::{Precision, Structure, Terms};

/// A model as attributions see it: one number for each row. A regression's output, the expected class of an ordinal model,
/// a logit or a margin.
pub trait Scorer: Sync {
    /// The score of every row.
    fn scores(&self, rows: &Matrix) -> Vec<f64>;

    /// What is known of the model beside its scores, for attributions in closed form.
    fn structure(&self) -> Structure<'_> {
        Structure::Opaque
    }

    /// The gradient of every score by its row, `[N, C]`, if the model has gradients. Networks get theirs from
    /// [`network_gradients`](crate::attribution::network_gradients).
    fn gradients(&self, _rows: &Matrix) -> Option<Matrix> {
        None
    }

    /// The numbers that scores are computed in.
    fn precision(&self) -> Precision {
        Precision::F64
    }
}

/// A model that can be trained, and guided: its scores are differentiable in its parameters.
///
/// # Shapes
/// `[N, C]` rows give `[N]` scores.
pub trait Network: Module {
    /// The score of every row.
    fn forward(&self, rows: Tensor<2>) -> Tensor<1>;

    /// The score as a sum of terms of one column and of two, where it is one: attributions then have a closed form.
    fn terms(&self) -> Option<Terms<'_>> {
        None
    }
}

impl<S: Scorer + ?Sized> Scorer for Box<S>
where
    Box<S>: Sync,
{
    fn scores(&self, rows: &Matrix) -> Vec<f64> {
        (**self).scores(rows)
    }

    fn structure(&self) -> Structure<'_> {
        (**self).structure()
    }

    fn gradients(&self, rows: &Matrix) -> Option<Matrix> {
        (**self).gradients(rows)
    }

    fn precision(&self) -> Precision {
        (**self).precision()
    }
}

/// A closure as a scorer, row by row.
pub struct ScoreFn<F>(pub F);

impl<F: Fn(&[f64]) -> f64 + Sync> Scorer for ScoreFn<F> {
    fn scores(&self, rows: &Matrix) -> Vec<f64> {
        rows.rows().map(&self.0).collect()
    }
}
