//! What SuperHF does to one categorical distribution, in closed form and in f64.
//!
//! | | |
//! | --- | --- |
//! | the filter's target q: the best of N draws | [`best_of_n_distribution`] |
//! | where the loss is least for that q | [`forward_minimizer`], [`reverse_minimizer`] |
//! | filter and fit, over and over | [`trajectory`] |
//! | what the filter gains where rewards are normal | [`expected_maximum`] |
//!
//! # Examples
//! Sixteen draws and β = 0.35: the best answer wins, and every loser keeps 0.35/1.35 of its prior probability.
//! ```
//! use align_superhf::ideal::trajectory;
//!
//! let (prior, rewards) = ([0.5, 0.3, 0.15, 0.05], [0.0, 1.0, 0.5, 2.0]);
//! let limit = trajectory(&prior, &rewards, 16, 0.35).nth(100).expect("it never ends");
//! assert!((limit[0] - 0.35 / 1.35 * 0.5).abs() < 1e-9);
//! assert!(limit[3] > 0.75);
//! ```

/// The distribution of the best of `n` draws: `q_i = F_i^n − F_{i−1}^n`, with F the probability of a reward up to that of i.
///
/// Answers of one reward share what falls to them in proportion to `p`, as ties that go to the earlier draw do.
///
/// # Panics
/// If `n` is 0, or there are not as many rewards as probabilities, or a reward is not a number.
///
/// # Source
/// SuperHF's filter as a distribution; KL(q‖p) ≤ `ln n − (n−1)/n`.
///
/// # Examples
/// ```
/// use align_superhf::ideal::best_of_n_distribution;
/// // Of two draws the worse answer wins only if both are it.
/// assert_eq!(best_of_n_distribution(&[0.5, 0.5], &[0.0, 1.0], 2), [0.25, 0.75]);
/// ```
pub fn best_of_n_distribution(p: &[f64], rewards: &[f64], n: usize) -> Vec<f64> {
    assert!(n > 0, "the best of 0 is nothing");
    assert_eq!(p.len(), rewards.len(), "one reward for each probability");
    assert!(
        rewards.iter().all(|reward| !reward.is_nan()),
        "expected rewards that are numbers, found {rewards:?}"
    );
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| rewards[a].total_cmp(&rewards[b]));
    let mut q = vec![0.0; p.len()];
    let mut below = 0.0;
    for tied in order.chunk_by(|&a, &b| rewards[a] == rewards[b]) {
        let mass: f64 = tied.iter().map(|&index| p[index]).sum();
        let here = (below + mass).powf(n as f64) - f64::powf(below, n as f64);
        if mass > 0.0 {
            tied.iter().for_each(|&index| q[index] = here * p[index] / mass);
        }
        below += mass;
    }
    q
}

/// `argmin_p −Σ q log p + β KL(p_0‖p) = (q + β p_0)/(1 + β)`: what a step with
/// [`KlDirection::PriorToPolicy`](crate::loss::KlDirection::PriorToPolicy) aims at.
///
/// # Panics
/// If the lengths differ or β is negative.
///
/// # Examples
/// ```
/// assert_eq!(align_superhf::ideal::forward_minimizer(&[0.0, 1.0], &[0.5, 0.5], 1.0), [0.25, 0.75]);
/// ```
pub fn forward_minimizer(target: &[f64], prior: &[f64], beta: f64) -> Vec<f64> {
    assert_eq!(target.len(), prior.len(), "one prior probability for each target's");
    assert!(beta >= 0.0, "expected β of at least 0, found {beta}");
    target.iter().zip(prior).map(|(q, p_0)| (q + beta * p_0) / (1.0 + beta)).collect()
}

/// `argmin_p −Σ q log p + β KL(p‖p_0)`: what a step with
/// [`KlDirection::PolicyToPrior`](crate::loss::KlDirection::PolicyToPrior) aims at.
///
/// It solves `−q/p + β (log(p/p_0) + 1) + λ = 0` with λ such that p sums to 1: an answer for given λ is a root of
/// `x + log x = z`, and the sum falls with λ.
///
/// # Panics
/// If the lengths differ or β is negative.
pub fn reverse_minimizer(target: &[f64], prior: &[f64], beta: f64) -> Vec<f64> {
    assert_eq!(target.len(), prior.len(), "one prior probability for each target's");
    assert!(beta >= 0.0, "expected β of at least 0, found {beta}");
    if beta == 0.0 {
        return target.to_vec();
    }
    let answer = |q: f64, p_0: f64, lambda: f64| -> f64 {
        if p_0 == 0.0 {
            return 0.0;
        }
        // β log p − q/p = c.
        let c = beta * (p_0.ln() - 1.0) - lambda;
        if q == 0.0 { (c / beta).exp() } else { q / (beta * root((q / beta).ln() - c / beta)) }
    };
    let answers = |lambda: f64| -> Vec<f64> {
        target.iter().zip(prior).map(|(&q, &p_0)| answer(q, p_0, lambda)).collect()
    };
    // Weighed by p and summed the condition says λ = 1 − β (1 + KL(p‖p_0)), and KL is at most −log of the least p_0.
    let farthest = prior.iter().filter(|p_0| **p_0 > 0.0).map(|p_0| -p_0.ln()).fold(0.0, f64::max);
    let (mut low, mut high) = (1.0 - beta * (1.0 + farthest), 1.0 - beta);
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if answers(middle).iter().sum::<f64>() > 1.0 { low = middle } else { high = middle }
    }
    answers((low + high) / 2.0)
}

/// The x with `x + log x = z`, by Newton's method for `log x` from the right of the root, where it cannot overshoot.
fn root(z: f64) -> f64 {
    let mut y = if z < 1.0 { z } else { z.ln() };
    for _ in 0..60 {
        y -= (y.exp() + y - z) / (y.exp() + 1.0);
    }
    y.exp()
}

/// Filter and fit with an exact step each: `p ← (BoN_n(p) + β p_0)/(1 + β)` from `p = p_0`, which is not part of it.
///
/// Every step is divided by its sum: the n-th power would turn a rounding of the total into collapse to zero.
///
/// # Panics
/// As [`best_of_n_distribution`] and [`forward_minimizer`].
pub fn trajectory(
    prior: &[f64],
    rewards: &[f64],
    n: usize,
    beta: f64,
) -> impl Iterator<Item = Vec<f64>> + use<> {
    let (prior, rewards) = (prior.to_vec(), rewards.to_vec());
    let mut p = prior.clone();
    std::iter::repeat_with(move || {
        p = forward_minimizer(&best_of_n_distribution(&p, &rewards, n), &prior, beta);
        let total: f64 = p.iter().sum();
        p.iter_mut().for_each(|probability| *probability /= total);
        p.clone()
    })
}

/// The mean of the largest of `n` standard normal numbers: what best-of-n gains, in deviations of a normal reward.
///
/// # Panics
/// If `n` is 0.
///
/// # Examples
/// ```
/// // Of two it is 1/√π.
/// let two = align_superhf::ideal::expected_maximum(2);
/// assert!((two - 1.0 / std::f64::consts::PI.sqrt()).abs() < 1e-12);
/// ```
pub fn expected_maximum(n: usize) -> f64 {
    assert!(n > 0, "the largest of 0 numbers is nothing");
    // ∫ x n φ(x) Φ(x)^{n−1} dx. All derivatives vanish at ±9, so the trapezoid rule errs less than rounding does.
    let step: f64 = 1.0 / 64.0;
    let term = |index: i32| {
        let x = f64::from(index) * step;
        x * density(x) * cumulative(x).powf(n as f64 - 1.0)
    };
    n as f64 * step * (-9 * 64..=9 * 64).map(term).sum::<f64>()
}

/// φ.
fn density(x: f64) -> f64 {
    (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

/// Φ, by its series at 0.
///
/// # Source
/// Marsaglia 2004, "Evaluating the normal distribution", Journal of Statistical Software 11(4).
fn cumulative(x: f64) -> f64 {
    let (mut sum, mut term, mut odd) = (x, x, 1.0);
    loop {
        odd += 2.0;
        term *= x * x / odd;
        let next = sum + term;
        if next == sum {
            return (0.5 + sum * density(x)).clamp(0.0, 1.0);
        }
        sum = next;
    }
}
