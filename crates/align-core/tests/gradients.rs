//! What may be differentiated, and what its gradient is (ppo-details 13), by enumeration on bigram policies.

use align_core::divergence::{
    ChiSquared, Divergence, Kl, KlEstimator, KlLoss, LossDivergence, clamp_log_ratio, clamped_fraction,
};
use align_core::masked::{self, Shift};
use align_core::number::NonNegative;
use align_core::regularizer::{Coefficient, Granularity, Regularizer, Site};
use align_core::{CausalLm, Draws, Reference, TokenBatch, log_probs};
use align_testkit::gradcheck::{assert_gradient, assert_module_gradients, module_gradients};
use align_testkit::{
    BigramLm, assert_close, device, double, gradient, mask, plain, tracked, tracked_double, train_device,
};
use burn::tensor::{Tensor, activation::log_softmax};

/// f64 throughout; sums of a few dozen terms.
const EXACT: f64 = 1e-12;

/// The policy, its reference, and the responses to one prompt.
fn setting() -> (BigramLm, BigramLm) {
    let policy = BigramLm::random(3, &Draws::new(1), &train_device()).to_double();
    let reference = BigramLm::random(3, &Draws::new(2), &device()).to_double();
    (policy, reference)
}

/// The gradient, by the policy's table, of `Σ_y stop(π(y)) · quantity(log π(y) − log μ(y))`: what sampling averages.
fn sampled_gradient(quantity: impl Fn(Tensor<2>) -> Tensor<2>) -> Vec<f64> {
    let (policy, reference) = setting();
    let all = policy.enumerate(&[0], 2, Some(2));
    let log_probs = all.log_probs(&policy);
    let weights = log_probs.clone().without_autodiff().exp();
    let log_ratio = (log_probs - all.log_probs(&reference)).unsqueeze_dim(1);
    let loss = (quantity(log_ratio).squeeze_dim::<1>(1) * weights).sum();
    module_gradients(&policy, &loss)["table"].clone()
}

/// The gradient of the exact divergence over whole responses.
fn exact_gradient(divergence: &dyn Divergence) -> Vec<f64> {
    let (policy, reference) = setting();
    let all = policy.enumerate(&[0], 2, Some(2));
    module_gradients(&policy, &all.divergence(divergence, &policy, &reference))["table"].clone()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

#[test]
fn k1_as_a_loss_would_have_no_gradient_on_average() {
    let gradient = sampled_gradient(|d| Kl { estimator: KlEstimator::K1 }.estimate(d));
    assert_close(gradient.clone(), vec![0.0; gradient.len()], EXACT);
    // The policies do differ: the true gradient is far from zero.
    assert!(largest(&exact_gradient(&Kl::default())) > 0.1);
}

#[test]
fn k2_as_a_loss_descends_the_divergence_from_the_policy() {
    assert_close(sampled_gradient(|d| KlLoss::K2.surrogate(d)), exact_gradient(&Kl::default()), EXACT);
    assert_close(sampled_gradient(|d| KlLoss::K3Plus.surrogate(d)), exact_gradient(&Kl::default()), EXACT);
}

#[test]
fn k3_as_a_loss_descends_the_divergence_from_the_reference() {
    let forward = exact_gradient(&align_core::divergence::ReverseKl);
    assert_close(sampled_gradient(|d| KlLoss::K3.surrogate(d)), forward.clone(), EXACT);
    let reverse = exact_gradient(&Kl::default());
    let apart: Vec<f64> = forward.iter().zip(&reverse).map(|(a, b)| a - b).collect();
    assert!(largest(&apart) > 0.01, "the two gradients differ here, or the test could not tell them apart");
}

#[test]
fn chi_squared_as_a_loss_descends_chi_squared() {
    assert_close(sampled_gradient(|d| ChiSquared.surrogate(d)), exact_gradient(&ChiSquared), EXACT);
}

#[test]
fn k3_plus_has_the_value_of_k3() {
    let d = double([[0.7, -1.3, 4.0]]);
    assert_close(KlLoss::K3Plus.surrogate(d.clone()), KlLoss::K3.surrogate(d), 1e-15);
}

#[test]
fn a_clamped_ratio_still_pulls_back() {
    // Beyond the limit the value stands still at 20²/2 and the slope of k2 at 20.
    let log_ratio = tracked([[25.0, -25.0, 3.0]]);
    let loss = KlLoss::K2.surrogate(log_ratio.clone()).sum();
    assert_close(loss.clone(), 200.0 + 200.0 + 4.5, 0.0);
    assert_close(gradient(&loss, &log_ratio), [20.0, -20.0, 3.0], 0.0);
}

#[test]
fn clamping_keeps_infinities_finite_and_is_counted() {
    let extreme = [[f32::INFINITY, f32::NEG_INFINITY, 20.5, 20.0, 0.0]];
    assert_close(clamp_log_ratio(plain::<2>(extreme)), [20.0, -20.0, 20.0, 20.0, 0.0], 0.0);
    assert_close(clamp_log_ratio(tracked::<2>(extreme)), [20.0, -20.0, 20.0, 20.0, 0.0], 0.0);
    let counted = mask([[true, true, false, true, true]]);
    // Two of the four that count; f32 division is exact here.
    assert_eq!(clamped_fraction(&plain(extreme), &counted), 0.5);
    assert_eq!(clamped_fraction(&plain([[f32::NAN, 1.0]]), &mask([[true, true]])), 0.5);
    assert_eq!(clamped_fraction(&plain([[30.0]]), &mask([[false]])), 0.0);
}

#[test]
fn the_regulariser_weighs_and_places_its_loss() {
    let regularizer = |granularity| Regularizer {
        site: Site::Loss(Box::new(KlLoss::K2)),
        coefficient: Coefficient::Fixed { beta: NonNegative::literal(0.5) },
        granularity,
    };
    let counts = mask([[true, true, false], [true, false, false], [false, false, false]]);
    let rows = [[1.0, 2.0, f64::INFINITY], [3.0, f64::NAN, 0.0], [f64::NEG_INFINITY, 1.0, 1.0]];
    // Tokens: ½ · (1 + 4 + 9)/2 / 3; slopes ½ d / 3.
    let log_ratio = tracked_double::<2>(rows);
    let loss = regularizer(Granularity::Token).loss(log_ratio.clone(), &counts);
    assert_close(loss.clone(), 0.5 * 7.0 / 3.0, EXACT);
    let slopes = [0.5 / 3.0, 1.0 / 3.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0];
    assert_close(gradient(&loss, &log_ratio), slopes, EXACT);
    // Responses: sums 3 and 3, the empty row is none: ½ · (9/2 + 9/2) / 2; slopes ½ · 3 / 2.
    let log_ratio = tracked_double::<2>(rows);
    let loss = regularizer(Granularity::Sequence).loss(log_ratio.clone(), &counts);
    assert_close(loss.clone(), 2.25, EXACT);
    assert_close(gradient(&loss, &log_ratio), [0.75, 0.75, 0.0, 0.75, 0.0, 0.0, 0.0, 0.0, 0.0], EXACT);
    // And nothing of it stands in the reward.
    assert_close(regularizer(Granularity::Token).penalty(double(rows), &counts), [0.0; 9], 0.0);
}

#[test]
fn log_probability_gradients_agree_with_differences() {
    let response = TokenBatch::right_padded(&[vec![2, 0], vec![1]], &device());
    let logits = double::<3>([[[0.3, -1.0, 0.7], [1.2, 0.1, -0.4]], [[0.0, 0.5, -0.5], [2.0, 2.0, 2.0]]]);
    // Burn's backward pass of a division by a scalar rounds the scalar to f32, so 2⁻²⁴ ≈ 6e-8 is the most to ask for.
    let log_probs = |z: Tensor<3>| (log_probs::from_logits(z, &response, 0.7).log_probs * 1.7).sum();
    assert_gradient(log_probs, logits.clone(), 1e-7);
    let other = logits.clone().flip([2]);
    let kl = |z: Tensor<3>| log_probs::kl_exact(z, other.clone(), &response.mask, 1.3).sum();
    assert_gradient(kl, logits, 1e-7);
}

#[test]
fn a_policy_gradient_agrees_with_differences_of_the_exact_expectation() {
    let policy = BigramLm::random(3, &Draws::new(5), &train_device()).to_double();
    let all = policy.enumerate(&[1], 3, Some(0));
    let reward = align_core::RewardFn(|c: &align_core::Completions| {
        let scores: Vec<f64> =
            c.response.rows().iter().map(|row| row.iter().map(|&id| f64::from(id)).sum()).collect();
        Tensor::<1>::from_data(scores.as_slice(), (&device(), burn::tensor::DType::F64))
    });
    assert_module_gradients(&policy, |policy| all.expected_reward(policy, &reward), 1e-8);
}

#[test]
fn masked_infinities_leave_gradients_finite() {
    let counts = mask([[true, false, true]]);
    let x = tracked([[1.0, f32::NEG_INFINITY, 3.0]]);
    assert_close(gradient(&masked::mean(x.clone(), &counts), &x), [0.5, 0.0, 0.5], 0.0);
    let x = tracked([[1.0, f32::NAN, 3.0]]);
    // Sample variance of two numbers is (a − b)²/2, slope ±(a − b).
    assert_close(gradient(&masked::variance(x.clone(), &counts), &x), [-2.0, 0.0, 2.0], 1e-6); // f32 roundings
    let x = tracked([[1.0, f32::INFINITY, 3.0]]);
    let weighted = masked::whiten(x.clone(), &counts, Shift::Subtract) * plain([[1.0, 5.0, 2.0]]);
    let found = gradient(&weighted.sum(), &x);
    assert!(found.iter().all(|slope| slope.is_finite()), "{found:?}");
}

#[test]
fn impossible_outcomes_leave_the_gradient_of_exact_divergences_finite() {
    // Logits of −∞ make the outcome impossible for both; the others share a softmax.
    let logits = tracked_double::<2>([[0.2, -0.3, f64::NEG_INFINITY]]);
    let other = double::<2>([[0.5, 0.5, 0.0]]).log();
    for divergence in [&Kl::default() as &dyn Divergence, &ChiSquared] {
        let loss = divergence.exact(log_softmax(logits.clone(), 1), other.clone());
        let found = gradient(&loss, &logits);
        assert!(found.iter().all(|slope| slope.is_finite()), "{divergence:?}: {found:?}");
        assert!(found[0] != 0.0, "{divergence:?}: {found:?}");
    }
}

#[test]
fn a_reference_never_records() {
    let (policy, _) = setting();
    let all = policy.enumerate(&[0], 2, None);
    assert!(policy.token_log_probs(&all.completions, 1.0).log_probs.is_autodiff());
    assert!(!Reference::log_probs(&policy, &all.completions, 1.0).is_autodiff());
}
