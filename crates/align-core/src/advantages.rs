//! From rewards to advantages: GAE, leave-one-out, group-normalised, per-position baselines.
//!
//! Rewards, values and masks are rollout data, so nothing here carries a gradient. The recursions run on the host in f64
//! and return the type of their input: a rollout is read once, and the sums do not depend on the backend.

use burn::tensor::{Bool, Tensor, TensorData};

use crate::masked::{self, WHITEN_EPSILON};
use crate::shape::assert_same_shape;

/// Advantages, and the returns a critic learns from.
#[derive(Clone, Debug)]
pub struct Gae {
    /// Â, unwhitened, `[B, R]`; 0 where nothing counts.
    pub advantages: Tensor<2>,
    /// G = Â + V, `[B, R]`; 0 where nothing counts.
    pub returns: Tensor<2>,
}

/// Generalised advantage estimation.
///
/// ```text
/// δ_t = r_t + γ V_{t+1} − V_t        V = 0 past the end
/// A_t = δ_t + γ λ A_{t+1}
/// G_t = A_t + V_t
/// ```
///
/// `t + 1` is the next position that counts: masked positions carry the accumulator through unchanged, so masking equals
/// dropping. Whiten afterwards, or the returns would be those of whitened advantages (ppo-details 17).
///
/// # Shapes
/// `rewards`, `values`, `mask`: `[B, R]`.
///
/// # Panics
/// If the shapes differ.
///
/// # Source
/// Schulman, Moritz, Levine, Jordan, Abbeel 2015, eq. 16, <https://arxiv.org/abs/1506.02438>.
pub fn gae(rewards: Tensor<2>, values: Tensor<2>, mask: &Tensor<2, Bool>, gamma: f64, lambda: f64) -> Gae {
    assert_same_shape("gae", [rewards.dims(), values.dims(), mask.dims()]);
    let (r, v, counts) = (host(&rewards), host(&values), host_mask(mask));
    let [rows, width] = rewards.dims();
    let mut advantages = vec![0.0; rows * width];
    let mut returns = vec![0.0; rows * width];
    for row in 0..rows {
        let (mut next_value, mut accumulator) = (0.0, 0.0);
        for at in (row * width..(row + 1) * width).rev().filter(|&at| counts[at]) {
            let delta = r[at] + gamma * next_value - v[at];
            accumulator = delta + gamma * lambda * accumulator;
            next_value = v[at];
            advantages[at] = accumulator;
            returns[at] = accumulator + v[at];
        }
    }
    Gae { advantages: device_like(advantages, &rewards), returns: device_like(returns, &rewards) }
}

/// Discounted sums of what is still to come: `G_t = r_t + γ G_{t+1}` over the positions that count.
///
/// # Shapes
/// `[B, R]`, `[B, R]` → `[B, R]`; 0 where nothing counts.
///
/// # Panics
/// If the shapes differ.
pub fn returns_to_go(rewards: Tensor<2>, mask: &Tensor<2, Bool>, gamma: f64) -> Tensor<2> {
    let nothing = rewards.zeros_like();
    // λ = 1 and V = 0 leave the discounted sum.
    gae(rewards, nothing, mask, gamma, 1.0).advantages
}

/// Return-to-go minus the mean of its position over the batch, divided by the standard deviation of what is left.
///
/// ```text
/// c_{b,t} = G_{b,t} − mean over rows that count at t of G_{·,t}
/// A = c / √(var_mask c + 10⁻⁸)
/// ```
///
/// One deviation for the whole batch: late positions, where little is left to win, keep their small advantages.
///
/// # Shapes
/// `[B, R]`, `[B, R]` → `[B, R]`; 0 where nothing counts, and where only one row counts at a position.
///
/// # Panics
/// If the shapes differ.
///
/// # Source
/// SALSA spec section 7 step 3; the baseline is Williams 1992, "Simple statistical gradient-following algorithms".
pub fn position_baseline(returns_to_go: Tensor<2>, mask: &Tensor<2, Bool>) -> Tensor<2> {
    assert_same_shape("position_baseline", [returns_to_go.dims(), mask.dims()]);
    let (mut returns, counts) = (host(&returns_to_go), host_mask(mask));
    let [rows, width] = returns_to_go.dims();
    for position in 0..width {
        let column = || (0..rows).map(|row| row * width + position).filter(|&at| counts[at]);
        let mean = column().map(|at| returns[at]).sum::<f64>() / column().count().max(1) as f64;
        for at in column() {
            returns[at] -= mean;
        }
    }
    let centred = device_like(returns, &returns_to_go);
    let deviation = (masked::variance(centred.clone(), mask) + WHITEN_EPSILON).sqrt();
    (centred / deviation.reshape([1, 1]).expand([rows, width])).mask_fill(mask.clone().bool_not(), 0.0)
}

/// Each sample against the mean of the other samples of its prompt: `A_i = r_i − Σ_{j≠i} r_j / (N − 1)`.
///
/// # Shapes
/// `[G·N]`, the N samples of a prompt side by side → `[G·N]`.
///
/// # Panics
/// If `samples` is below 2 or does not divide the number of scores.
///
/// # Source
/// Ahmadian et al. 2024 (RLOO), eq. 8, <https://arxiv.org/abs/2402.14740>.
pub fn leave_one_out(scores: Tensor<1>, samples: usize) -> Tensor<1> {
    per_group("leave_one_out", scores, samples, |group| {
        let total: f64 = group.iter().sum();
        let others = group.len() as f64 - 1.0;
        group.iter().map(|score| score - (total - score) / others).collect()
    })
}

/// Each sample in standard deviations from the mean of its prompt: `A_i = (r_i − mean) / (std + 10⁻⁴)`.
///
/// `std` is the sample deviation (N − 1). A group of equal scores gives zeros.
///
/// # Shapes
/// `[G·N]`, the N samples of a prompt side by side → `[G·N]`.
///
/// # Panics
/// If `samples` is below 2 or does not divide the number of scores.
///
/// # Source
/// Shao et al. 2024 (GRPO), section 4.1.2, <https://arxiv.org/abs/2402.03300>; the guard of 10⁻⁴ is TRL's.
pub fn group_normalized(scores: Tensor<1>, samples: usize) -> Tensor<1> {
    per_group("group_normalized", scores, samples, |group| {
        let count = group.len() as f64;
        let mean = group.iter().sum::<f64>() / count;
        let variance = group.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / (count - 1.0);
        group.iter().map(|score| (score - mean) / (variance.sqrt() + 1e-4)).collect()
    })
}

fn per_group(
    function: &str,
    scores: Tensor<1>,
    samples: usize,
    advantages: impl Fn(&[f64]) -> Vec<f64>,
) -> Tensor<1> {
    let [count] = scores.dims();
    assert!(
        samples >= 2 && count.is_multiple_of(samples),
        "{function}: expected groups of at least 2 samples, found {count} scores in groups of {samples}"
    );
    let values = host(&scores);
    device_like(values.chunks(samples).flat_map(advantages).collect(), &scores)
}

fn host<const D: usize>(tensor: &Tensor<D>) -> Vec<f64> {
    tensor.to_data().iter::<f64>().collect()
}

fn host_mask(mask: &Tensor<2, Bool>) -> Vec<bool> {
    mask.to_data().iter::<bool>().collect()
}

/// A constant of the shape, type and (plain) device of another tensor.
fn device_like<const D: usize>(values: Vec<f64>, like: &Tensor<D>) -> Tensor<D> {
    let device = like.device().without_autodiff();
    Tensor::from_data(TensorData::new(values, like.dims()), (&device, like.dtype()))
}
