//! What may be differentiated, and what its gradient is (ppo-details 13), by enumeration on bigram policies.

use align_core::divergence::{
    AlphaDivergence, ChiSquared, ChiSquaredLoss, Derivative, Divergence, FDivergence, JensenShannon, Kl,
    KlEstimator, KlLoss, LossDivergence, ReverseKl, SqrtChiSquared, SqrtChiSquaredLoss, SquaredHellinger,
    clamp_log_ratio, clamped_fraction,
};
use align_core::masked::{self, Shift};
use align_core::number::{Finite, NonNegative};
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

fn alpha(alpha: f64) -> AlphaDivergence {
    AlphaDivergence { alpha: Finite::literal(alpha) }
}

/// Burn's backward pass of a product with a scalar rounds the scalar to f32, 2⁻²⁴ ≈ 6e-8 of it: α = 0.3 in the exact form.
const SCALARS: f64 = 1e-7;

/// Every α that has a formula of its own, and one between each two.
const ALPHAS: [f64; 7] = [-1.0, 0.0, 0.3, 0.5, 1.0, 2.0, 3.0];

#[test]
fn every_f_divergence_as_a_loss_descends_itself_and_has_the_value_of_its_estimate() {
    fn check<D: FDivergence + LossDivergence>(divergence: D) {
        let found = sampled_gradient(|d| divergence.surrogate(d));
        let exact = exact_gradient(&divergence);
        assert!(largest(&exact) > 0.01, "{divergence:?} could not be told from nothing");
        assert_close(found, exact, SCALARS);
        let d = || double::<2>([[0.7, -1.3, 4.0]]);
        assert_close(divergence.surrogate(d()), divergence.estimate(d()), 1e-12);
    }
    check(ReverseKl);
    check(ChiSquared);
    check(JensenShannon);
    check(SquaredHellinger);
    ALPHAS.into_iter().map(alpha).for_each(check);
}

/// The gradient of `E_π[penalty]` that the score function gives: by `Σ_y stop(π(y) penalty(y)) log π(y)`.
fn score_function_gradient(divergence: &dyn Divergence) -> Vec<f64> {
    sampled_gradient(|log_ratio| {
        let penalty = divergence.estimate(log_ratio.clone().without_autodiff());
        penalty * log_ratio
    })
}

#[test]
fn in_the_reward_the_derivative_has_the_gradient_of_the_divergence_and_the_value_only_for_kl() {
    fn check<D: FDivergence + Copy>(divergence: D) {
        let exact = exact_gradient(&divergence);
        assert_close(score_function_gradient(&Derivative(divergence)), exact, SCALARS);
    }
    check(Kl::default());
    check(ReverseKl);
    check(ChiSquared);
    check(JensenShannon);
    check(SquaredHellinger);
    ALPHAS.into_iter().map(alpha).for_each(check);
    assert_close(score_function_gradient(&Kl::default()), exact_gradient(&Kl::default()), EXACT);
    // χ² by its value: half.
    let half: Vec<f64> = exact_gradient(&ChiSquared).iter().map(|slope| slope / 2.0).collect();
    assert_close(score_function_gradient(&ChiSquared), half, 1e-10);
    for divergence in [&ReverseKl as &dyn Divergence, &JensenShannon, &SquaredHellinger] {
        let (value, exact) = (score_function_gradient(divergence), exact_gradient(divergence));
        let apart: Vec<f64> = value.iter().zip(&exact).map(|(a, b)| a - b).collect();
        assert!(largest(&apart) > 0.01, "{divergence:?}: the value's pull is another one");
    }
}

#[test]
fn the_root_of_chi_squared_has_its_gradient_in_the_reward_and_in_the_loss() {
    let (policy, reference) = setting();
    let all = policy.enumerate(&[0], 2, Some(2));
    let chi_squared = all.divergence(&ChiSquared, &policy, &reference).into_scalar();
    let exact = exact_gradient(&SqrtChiSquared::default());
    assert_close(score_function_gradient(&SqrtChiSquared::at(chi_squared)), exact.clone(), 1e-10);
    let loss = |estimator| SqrtChiSquaredLoss { estimator, chi_squared: Some(chi_squared) };
    assert_close(sampled_gradient(|d| loss(ChiSquaredLoss::Exact).surrogate(d)), exact, 1e-10);
    // As released: ½∇χ² + ∇KL(μ‖π), over twice the root.
    let (chi, kl) = (exact_gradient(&ChiSquared), exact_gradient(&ReverseKl));
    let released: Vec<f64> = chi.iter().zip(&kl).map(|(chi, kl)| chi / 2.0 + kl).collect();
    assert_close(sampled_gradient(|d| ChiSquaredLoss::Released.surrogate(d)), released.clone(), 1e-10);
    let over_root: Vec<f64> = released.iter().map(|slope| slope / (2.0 * chi_squared.sqrt())).collect();
    assert_close(sampled_gradient(|d| loss(ChiSquaredLoss::Released).surrogate(d)), over_root, 1e-10);
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
    let family = [-1.0, 0.5, 3.0].map(alpha);
    let [negative, between, above] = family.each_ref();
    let (kl, root) = (Kl::default(), SqrtChiSquared::default());
    for divergence in [&kl as &dyn Divergence, &ChiSquared, &JensenShannon, &root, negative, between, above] {
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
