//! Inverse Hessians times vectors, by products alone.

use std::num::NonZeroUsize;

use align_core::number::{NonNegative, Positive};

use crate::{BilevelError, Point};

/// An approximate solution of `H v = b`.
#[derive(Clone, Debug)]
pub struct LinearSolution<Y> {
    /// The solution.
    pub v: Y,
    /// `‖b − H v‖`, as the method's recursion has it.
    pub residual: f64,
    /// Products with H that were asked for.
    pub products: usize,
}

/// How many times the error of a difference of gradients something has to be to be believed.
const CLEAR: f64 = 10.0;

/// The relative error of a product by differences, u^(2/3), with a margin.
fn noise(b: &impl Point) -> f64 {
    CLEAR * b.unit_roundoff().powf(2.0 / 3.0)
}

/// `H⁻¹ b` by conjugate gradients from `start`; stops at `‖b − H v‖ ≤ tolerance · ‖b‖`.
///
/// Products with H may be differences of gradients: below their error, `10 u^(2/3)` relatively, neither residuals nor curvatures
/// are believed. Only what b and the start excite is seen of H: where `b − H v` lies in the range of a singular H the
/// result is the pseudo-inverse's.
///
/// # Errors
/// [`SingularHessian`](BilevelError::SingularHessian) if a direction has no curvature, or a negative one; and those of
/// `product`.
///
/// # Source
/// Hestenes and Stiefel 1952, <https://doi.org/10.6028/jres.049.044>.
pub fn conjugate_gradients<Y: Point>(
    mut product: impl FnMut(&Y) -> Result<Y, BilevelError>,
    b: &Y,
    start: &Y,
    iterations: NonZeroUsize,
    tolerance: NonNegative,
    outer: u64,
) -> Result<LinearSolution<Y>, BilevelError> {
    let mut v = start.clone();
    let mut rest = b.clone();
    let mut products = 0;
    if start.norm() > 0.0 {
        rest.add_scaled(-1.0, &product(start)?);
        products += 1;
    }
    let enough = tolerance.get().max(noise(b)) * b.norm();
    let mut direction = rest.clone();
    let mut square = rest.dot(&rest);
    let mut largest = 0.0f64;
    for _ in 0..iterations.get() {
        if square.sqrt() <= enough {
            break;
        }
        let image = product(&direction)?;
        products += 1;
        let (bend, length) = (direction.dot(&image), direction.dot(&direction));
        let curvature = bend / length;
        largest = largest.max(image.norm() / length.sqrt());
        if curvature <= noise(b) * largest {
            return Err(BilevelError::SingularHessian { curvature, largest, outer });
        }
        let stride = square / bend;
        v.add_scaled(stride, &direction);
        rest.add_scaled(-stride, &image);
        let next = rest.dot(&rest);
        direction.scale_add(next / square, 1.0, &rest);
        square = next;
    }
    Ok(LinearSolution { v, residual: square.sqrt(), products })
}

/// `η Σₖ (I − ηH)ᵏ b` for k from 0 to `products`, which tends to `H⁻¹ b` if the eigenvalues of ηH lie in (0, 2).
///
/// `product` is also told which one it is, from 0, for samples that differ from one to the next. Directions
/// without curvature are not noticed: the sum grows along them, and the residual does not fall.
///
/// # Errors
/// [`SeriesDiverged`](BilevelError::SeriesDiverged) if the last term is longer than b, which no η and H as above allow; and
/// those of `product`.
///
/// # Source
/// Ji, Yang, Liang 2021, algorithm 3, <https://arxiv.org/abs/2010.07962>.
pub fn neumann_series<Y: Point>(
    mut product: impl FnMut(&Y, usize) -> Result<Y, BilevelError>,
    b: &Y,
    step: Positive,
    products: NonZeroUsize,
    outer: u64,
) -> Result<LinearSolution<Y>, BilevelError> {
    let mut term = b.clone();
    let mut v = b.clone();
    for index in 0..products.get() {
        let image = product(&term, index)?;
        term.add_scaled(-step.get(), &image);
        v.add_scaled(1.0, &term);
    }
    v.scale(step.get());
    // H η Σ_{k<K} (I − ηH)ᵏ b = b − (I − ηH)ᴷ b: the last term is what the sum without it leaves over.
    let (from, to) = (b.norm(), term.norm());
    if to > from * (1.0 + noise(b)) || !to.is_finite() {
        return Err(BilevelError::SeriesDiverged { from, to, outer });
    }
    Ok(LinearSolution { v, residual: to, products: products.get() })
}
