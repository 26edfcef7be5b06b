//! Reductions over the positions that count.
//!
//! Everything fills what does not count with a constant and reduces afterwards: `0 × −∞` is NaN, and so is its gradient.

use burn::tensor::{Bool, Tensor};

use crate::shape::assert_same_shape;

/// What whitening does with the mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shift {
    /// The result has mean 0: advantages.
    Subtract,
    /// The result keeps the mean of the input: rewards, whose sign must survive (ppo-details 15).
    Keep,
}

/// Added to the variance before its root, so that a constant batch whitens to zeros.
pub const WHITEN_EPSILON: f64 = 1e-8;

/// Sum over the positions that count: `Σ_mask x`.
///
/// # Shapes
/// `[B, R]`, `[B, R]` → `[1]`; 0 if nothing counts.
///
/// # Gradient
/// 1 where the mask is true, 0 elsewhere, also where `x` is not finite.
///
/// # Panics
/// If the shapes differ.
pub fn sum(x: Tensor<2>, mask: &Tensor<2, Bool>) -> Tensor<1> {
    assert_same_shape("masked::sum", [x.dims(), mask.dims()]);
    x.mask_fill(mask.clone().bool_not(), 0.0).sum()
}

/// Mean over the positions that count: `Σ_mask x / |mask|`.
///
/// # Shapes
/// `[B, R]`, `[B, R]` → `[1]`; NaN if nothing counts, because an empty batch is to be seen and not smoothed over.
///
/// # Gradient
/// `1 / |mask|` where the mask is true, 0 elsewhere.
///
/// # Panics
/// If the shapes differ.
pub fn mean(x: Tensor<2>, mask: &Tensor<2, Bool>) -> Tensor<1> {
    let count = count(&x, mask);
    sum(x, mask) / count
}

/// Sample variance over the positions that count: `Σ_mask (x − mean)² / (|mask| − 1)`.
///
/// # Shapes
/// `[B, R]`, `[B, R]` → `[1]`; 0 with fewer than two positions, never NaN.
///
/// # Panics
/// If the shapes differ.
pub fn variance(x: Tensor<2>, mask: &Tensor<2, Bool>) -> Tensor<1> {
    let count = count(&x, mask);
    let centred = centred(x, mask);
    // Centred values of fewer than two positions are all 0, so the bound below decides nothing but the division.
    sum(centred.square(), mask) / (count - 1.0).clamp_min(1.0)
}

/// Whitens over the positions that count: `(x − mean) / √(var + 10⁻⁸)`, with the mean put back for [`Shift::Keep`].
///
/// # Shapes
/// `[B, R]`, `[B, R]` → `[B, R]`; 0 where nothing counts. A single position gives 0 (or itself for [`Shift::Keep`]).
///
/// # Panics
/// If the shapes differ.
///
/// # Source
/// SALSA spec eq. 7, the sample variance of TRL's `masked_whiten`.
pub fn whiten(x: Tensor<2>, mask: &Tensor<2, Bool>, shift: Shift) -> Tensor<2> {
    let shape = x.dims();
    let hidden = mask.clone().bool_not();
    let deviation = (variance(x.clone(), mask) + WHITEN_EPSILON).sqrt();
    let white = centred(x.clone(), mask) / deviation.reshape([1, 1]).expand(shape);
    let white = match shift {
        Shift::Subtract => white,
        Shift::Keep => white + mean(x, mask).reshape([1, 1]).expand(shape),
    };
    white.mask_fill(hidden, 0.0)
}

/// `x − mean` where the mask is true, 0 elsewhere.
fn centred(x: Tensor<2>, mask: &Tensor<2, Bool>) -> Tensor<2> {
    let shape = x.dims();
    let mean = mean(x.clone(), mask).reshape([1, 1]).expand(shape);
    (x - mean).mask_fill(mask.clone().bool_not(), 0.0)
}

/// How many positions count, `[1]`, in the type of `x`.
fn count(x: &Tensor<2>, mask: &Tensor<2, Bool>) -> Tensor<1> {
    mask.clone().int().sum().float().cast(x.dtype())
}
