//! The critic's loss and how good the critic is.

use align_core::shape::assert_same_shape;
use burn::tensor::{Bool, Tensor};

/// The clipped value loss: `½·Σ max((V−G)², (clip(V, V_old−ε, V_old+ε)−G)²) / tokens`. **The half is in**; the
/// coefficient `c_v` is not.
///
/// Without `epsilon` it is the plain `½·Σ (V−G)² / tokens`.
///
/// # Shapes
/// `values`, `old_values`, `returns`, `mask`: `[B, R]`. Returns `[1]`. `tokens` is the number of tokens that count in the
/// whole optimiser step.
///
/// # Gradient
/// Through `values` only. Zero where the clipped branch is the larger one and the clip binds.
///
/// # Panics
/// If the shapes disagree.
///
/// # Source
/// OpenAI baselines' PPO2; TRL's PPO; equation (9) of SALSA's usual form, <https://arxiv.org/abs/2411.01798>.
pub fn clipped_value_loss(
    values: Tensor<2>,
    old_values: Tensor<2>,
    returns: Tensor<2>,
    mask: &Tensor<2, Bool>,
    epsilon: Option<f64>,
    tokens: f64,
) -> Tensor<1> {
    let (plain, clipped) = branches(values, old_values, returns, mask, epsilon);
    plain.max_pair(clipped).sum() * 0.5 / tokens
}

/// Over how many tokens that count the clipped branch is the larger loss (TRL's `val/clipfrac`, before the division).
///
/// # Shapes
/// As [`clipped_value_loss`].
pub fn value_clip_count(
    values: Tensor<2>,
    old_values: Tensor<2>,
    returns: Tensor<2>,
    mask: &Tensor<2, Bool>,
    epsilon: Option<f64>,
) -> f64 {
    let (plain, clipped) = branches(values.without_autodiff(), old_values, returns, mask, epsilon);
    clipped.greater(plain).int().sum().into_scalar::<i64>() as f64
}

/// Squared errors of both branches, 0 under a false mask.
fn branches(
    values: Tensor<2>,
    old_values: Tensor<2>,
    returns: Tensor<2>,
    mask: &Tensor<2, Bool>,
    epsilon: Option<f64>,
) -> (Tensor<2>, Tensor<2>) {
    assert_same_shape("clipped_value_loss", [values.dims(), old_values.dims(), returns.dims(), mask.dims()]);
    let hidden = mask.clone().bool_not();
    let fill = |x: Tensor<2>| x.mask_fill(hidden.clone(), 0.0);
    let (values, old_values, returns) = (fill(values), fill(old_values), fill(returns));
    let plain = (values.clone() - returns.clone()).square();
    let Some(epsilon) = epsilon else { return (plain.clone(), plain) };
    // clip(V, V_old − ε, V_old + ε) = V_old + clip(V − V_old, −ε, ε): the bounds are scalars that way.
    let clipped = old_values.clone() + (values - old_values).clamp(-epsilon, epsilon);
    (plain, (clipped - returns).square())
}

/// How much of the returns' variance the critic explains: `1 − Var(G − V) / Var(G)`; 1 is perfect, 0 is a constant,
/// negative is worse than a constant. 0 if the returns do not vary.
///
/// # Shapes
/// `[B, R]` each, over the tokens that count.
pub fn explained_variance(values: &Tensor<2>, returns: &Tensor<2>, mask: &Tensor<2, Bool>) -> f64 {
    let read = |x: &Tensor<2>| -> Vec<f64> { x.to_data().iter::<f64>().collect() };
    let counts: Vec<bool> = mask.to_data().iter::<bool>().collect();
    let pairs: Vec<(f64, f64)> = read(values)
        .into_iter()
        .zip(read(returns))
        .zip(counts)
        .filter(|(_, counts)| *counts)
        .map(|(pair, _)| pair)
        .collect();
    let total = variance(pairs.iter().map(|(_, g)| *g));
    if total == 0.0 {
        return 0.0;
    }
    1.0 - variance(pairs.iter().map(|(v, g)| g - v)) / total
}

/// Population variance on the host; 0 of nothing.
fn variance(x: impl Iterator<Item = f64> + Clone) -> f64 {
    let n = x.clone().count().max(1) as f64;
    let mean = x.clone().sum::<f64>() / n;
    x.map(|x| (x - mean) * (x - mean)).sum::<f64>() / n
}
