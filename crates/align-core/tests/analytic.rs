//! Values derived by hand or printed in the SALSA specification, in f64 unless stated.
//!
//! The specification prints eight decimals, so `PRINTED` is half a unit of the last one with room for the input's own
//! rounding.

use align_core::advantages::{gae, group_normalized, leave_one_out, position_baseline, returns_to_go};
use align_core::divergence::{
    ChiSquared, Divergence, JensenShannon, Kl, KlEstimator, ReverseKl, SquaredHellinger, TotalVariation,
};
use align_core::log_probs;
use align_core::masked::{self, Shift};
use align_core::selection::{best_of_n, top_k};
use align_testkit::{all_true, assert_close, double, mask, plain};
use burn::tensor::{Tensor, activation::log_softmax};

const PRINTED: f64 = 1e-8;

const FIRST: [f64; 4] = [1.0, 0.0, -1.0, 0.5];
const SECOND: [f64; 4] = [0.2, 1.2, -0.4, -1.0];

/// log softmax of one row of logits, `[1, 4]`.
fn policy(logits: [f64; 4]) -> Tensor<2> {
    log_softmax(double([logits]), 1)
}

/// `α z₁ + (1 − α) z₂`: the weights' average of two softmax-linear policies.
fn soup(alpha: f64) -> Tensor<2> {
    policy(std::array::from_fn(|v| alpha * FIRST[v] + (1.0 - alpha) * SECOND[v]))
}

fn kl(p: Tensor<2>, q: Tensor<2>) -> Tensor<1> {
    Kl::default().exact(p, q)
}

#[test]
fn case_2_a_softmax_linear_soup_is_the_normalised_geometric_mean() {
    let (first, second, soup) = (policy(FIRST), policy(SECOND), soup(0.5));
    assert_close(first.clone().exp(), [0.47399085, 0.17437149, 0.06414769, 0.28748998], PRINTED);
    assert_close(second.clone().exp(), [0.21890040, 0.59503298, 0.12013509, 0.06593153], PRINTED);
    assert_close(soup.clone().exp(), [0.37037768, 0.37037768, 0.10093969, 0.15830495], PRINTED);

    let geometric = ((first.clone() + second.clone()) / 2.0).exp();
    let coefficient = geometric.clone().sum();
    assert_close(coefficient.clone(), 0.86968794, PRINTED);
    assert_close(coefficient.clone().log().neg(), 0.13962082, PRINTED);
    // Two ways to the same f64 numbers; a few roundings apart.
    assert_close(geometric / coefficient.clone().unsqueeze_dim(0), soup.clone().exp(), 1e-14);
    // 1 − BC, by the other formula.
    let hellinger = SquaredHellinger.exact(first.clone(), second.clone());
    assert_close(hellinger, 1.0 - 0.86968794, PRINTED);

    assert_close(kl(first.clone(), soup.clone()), 0.12801140, PRINTED);
    assert_close(kl(second.clone(), soup), 0.13014510, PRINTED);
    assert_close(kl(first.clone(), second.clone()), 0.53526443, PRINTED);
    assert_close(ReverseKl.exact(first, second), 0.53953183, PRINTED);
}

#[test]
fn case_3_distance_to_the_soup_is_the_mean_distance_plus_log_bc() {
    let policy_of = |p: [f64; 4]| double::<2>([p]).log();
    let pi = policy_of([0.10, 0.55, 0.15, 0.20]);
    let (to_first, to_second) = (kl(pi.clone(), policy(FIRST)), kl(pi.clone(), policy(SECOND)));
    assert_close(to_first.clone(), 0.53104283, PRINTED);
    assert_close(to_second.clone(), 0.13361401, PRINTED);

    for (alpha, coefficient, distance) in [(0.5, 0.86968794, 0.19270760), (0.25, 0.90130619, 0.12906096)] {
        let bc = (policy(FIRST) * alpha + policy(SECOND) * (1.0 - alpha)).exp().sum();
        assert_close(bc.clone(), coefficient, PRINTED);
        let found = kl(pi.clone(), soup(alpha));
        assert_close(found.clone(), distance, PRINTED);
        // The identity itself holds to f64 rounding.
        let identity = to_first.clone() * alpha + to_second.clone() * (1.0 - alpha) + bc.log();
        assert_close(found, identity, 1e-14);
    }
    assert_close(soup(0.25).exp(), [0.29461513, 0.48573824, 0.11393976, 0.10570687], PRINTED);
}

#[test]
fn case_4_the_optimum_tilts_the_reference_and_its_value_is_the_log_moment() {
    let (reward, beta) = (double::<2>([[0.0, 1.0, 0.2, 0.6]]), 0.5);
    let expected = [
        (
            policy(FIRST),
            [0.16852235, 0.45809124, 0.03402408, 0.33936234],
            [0.51705982, 0.66851346, 0.30290728],
        ),
        (
            policy(SECOND),
            [0.04365999, 0.87693426, 0.03574577, 0.04365999],
            [0.80609240, 0.91027940, 0.20837400],
        ),
        (soup(0.5), [0.09789819, 0.72337523, 0.03980243, 0.13892415], [0.66529758, 0.81469020, 0.29878524]),
    ];
    for (reference, optimum, [value, mean_reward, distance]) in expected {
        let tilted = reference.clone() + reward.clone() / beta;
        let best = log_softmax(tilted.clone(), 1);
        assert_close(best.clone().exp(), optimum, PRINTED);
        assert_close(tilted.exp().sum().log() * beta, value, PRINTED);
        let (mean, kl) = ((best.clone().exp() * reward.clone()).sum(), kl(best, reference));
        assert_close(mean.clone(), mean_reward, PRINTED);
        assert_close(kl.clone(), distance, PRINTED);
        assert_close(mean - kl * beta, value, PRINTED);
    }
}

#[test]
fn case_5_shaped_rewards_advantages_and_whitening() {
    let old = [-0.9, -1.6, -0.4, -2.2];
    let tuned = [-1.1, -1.5, -0.7, -2.6];
    let soup = [-1.0, -1.9, -0.5, -2.1];
    let rows = [
        (
            tuned,
            KlEstimator::K1,
            [-0.02, 0.01, -0.03, 1.16],
            [0.73481750, 0.63665, 0.607, 0.46],
            [1.03481750, 1.08665, 1.107, 1.16],
            [1.10093592, 0.23771238, -0.02301116, -1.31563714],
        ),
        (
            soup,
            KlEstimator::K1,
            [-0.01, -0.03, -0.01, 1.21],
            [0.76773625, 0.660775, 0.6745, 0.51],
            [1.06773625, 1.110775, 1.1745, 1.21],
            [1.07324216, 0.07051788, 0.19918495, -1.34294498],
        ),
        (
            tuned,
            KlEstimator::K3,
            [-0.00187308, -0.00051709, -0.00408182, 1.19296800],
            [0.79461028, 0.68050879, 0.66423777, 0.49296800],
            [1.09461028, 1.13050879, 1.16423777, 1.19296800],
            [1.09729482, 0.18025224, 0.04948078, -1.32702785],
        ),
        (
            soup,
            KlEstimator::K3,
            [-0.00048374, -0.00408182, -0.00048374, 1.19948291],
            [0.80144611, 0.68624195, 0.67402502, 0.49948291],
            [1.10144611, 1.13624195, 1.17402502, 1.19948291],
            [1.09302186, 0.16813507, 0.07005463, -1.33121156],
        ),
    ];
    for (reference, estimator, rewards, advantages, returns, whitened) in rows {
        let log_ratio = double::<2>([old]) - double([reference]);
        let score = double::<2>([[0.0, 0.0, 0.0, 1.2]]);
        let shaped = score - Kl { estimator }.estimate(log_ratio) * 0.1;
        assert_close(shaped.clone(), rewards, PRINTED);
        let everything = all_true(1, 4);
        let gae = gae(shaped, double([[0.30, 0.45, 0.50, 0.70]]), &everything, 1.0, 0.95);
        assert_close(gae.advantages.clone(), advantages, PRINTED);
        assert_close(gae.returns, returns, PRINTED);
        let white = masked::whiten(gae.advantages, &everything, Shift::Subtract);
        assert_close(white, whitened, PRINTED);
    }
}

#[test]
fn case_6_the_masked_means_and_the_ratio_statistics() {
    // The clipped loss itself belongs to PPO; its reductions and its distance statistic live here.
    let change = double::<2>([[-0.7, -1.75, -0.15, -2.6]]) - double([[-0.9, -1.6, -0.4, -2.2]]);
    assert_close(change.clone().exp(), [1.22140276, 0.86070798, 1.28402542, 0.67032005], PRINTED);
    let per_token = double([[-1.2, 0.43035399, -0.96, 0.96]]);
    assert_close(masked::mean(per_token.clone(), &all_true(1, 4)), -0.19241150, PRINTED);
    assert_close(masked::mean(per_token, &mask([[true, true, true, false]])), -0.57654867, PRINTED);
    assert_close(masked::mean(change.square() / 2.0, &all_true(1, 4)), 0.03562500, PRINTED);
}

#[test]
fn case_7_three_estimators_of_one_divergence() {
    let (pi, mu) = (policy(FIRST), soup(0.5));
    let log_ratio = pi.clone() - mu;
    let expected = [
        (KlEstimator::K1, [0.24666477, -0.75333523, -0.45333523, 0.59666477], 0.12801140),
        (KlEstimator::K2, [0.03042175, 0.28375698, 0.10275641, 0.17800443], 0.12166484),
        (KlEstimator::K3, [0.02806737, 0.37073725, 0.12021637, 0.14730988], 0.12801140),
    ];
    for (estimator, at_tokens, mean) in expected {
        let estimates = Kl { estimator }.estimate(log_ratio.clone());
        assert_close(estimates.clone(), at_tokens, PRINTED);
        assert_close((pi.clone().exp() * estimates).sum(), mean, PRINTED);
    }
}

#[test]
fn case_10_every_token_costs_beta_times_its_divergence() {
    // 0.5 − 0.1 · 0.03 · n, with the penalty summed over the tokens that count.
    for (tokens, expected) in [(10, 0.47), (100, 0.20)] {
        let config = align_core::RegularizerConfig::Reward {
            divergence: Default::default(),
            coefficient: align_core::regularizer::Coefficient::Fixed {
                beta: align_core::number::NonNegative::literal(0.1),
            },
            granularity: Default::default(),
        };
        let log_ratio = double::<2>([[0.03]]).expand([1, tokens]);
        let penalty = config.build().penalty(log_ratio, &all_true(1, tokens));
        assert_close(penalty.sum().neg() + 0.5, expected, 1e-12);
    }
}

#[test]
fn case_16_a_tie_is_half_a_win() {
    assert_eq!(align_core::adjusted_win_rate(46, 9, 25), 0.63125);
}

#[test]
fn exact_divergences_of_two_coins() {
    // p = (¾, ¼), q = (¼, ¾): χ² = 9/4 + 1/12 − 1 = 4/3; TV = ½; H² = 1 − 2·√3/4; KL = ½ log 3;
    // JS = ¾ log(3/2) + ¼ log(1/2).
    let (p, q) = (double::<2>([[0.75, 0.25]]).log(), double::<2>([[0.25, 0.75]]).log());
    assert_close(ChiSquared.exact(p.clone(), q.clone()), 4.0 / 3.0, 1e-14);
    assert_close(TotalVariation.exact(p.clone(), q.clone()), 0.5, 1e-14);
    assert_close(SquaredHellinger.exact(p.clone(), q.clone()), 1.0 - 3f64.sqrt() / 2.0, 1e-14);
    assert_close(kl(p.clone(), q.clone()), 3f64.ln() / 2.0, 1e-14);
    assert_close(JensenShannon.exact(p, q), 0.75 * 1.5f64.ln() - 0.25 * 2f64.ln(), 1e-14);
}

#[test]
fn impossible_outcomes_cost_nothing_where_the_policy_never_goes_and_everything_where_it_does() {
    let certain = double::<2>([[0.0, f64::NEG_INFINITY]]);
    let fair = double::<2>([[0.5, 0.5]]).log();
    assert_close(kl(certain.clone(), fair.clone()), 2f64.ln(), 1e-15);
    assert_close(ChiSquared.exact(certain.clone(), fair.clone()), 1.0, 1e-15);
    assert_close(JensenShannon.exact(certain.clone(), fair.clone()), 0.75 * (4f64 / 3.0).ln(), 1e-15);
    assert_close(kl(fair, certain), f64::INFINITY, 0.0);
}

#[test]
fn exact_kl_of_scores_divides_by_the_temperature_and_respects_the_mask() {
    let logits = |row: [f64; 4]| double::<3>([[row, row]]);
    let halved = kl(policy(FIRST.map(|z| z / 2.0)), policy(SECOND.map(|z| z / 2.0)));
    let found = log_probs::kl_exact(logits(FIRST), logits(SECOND), &mask([[true, false]]), 2.0);
    assert_close(found, [halved.into_scalar::<f64>(), 0.0], 1e-15);
}

#[test]
fn leave_one_out_compares_with_the_others() {
    // 3 − (1 + 2)/2 = 1.5, 1 − 2.5 = −1.5, 2 − 2 = 0; the second prompt does not mix in. Exact in f32.
    let scores = plain::<1>([3.0, 1.0, 2.0, 10.0, 10.0, 13.0]);
    assert_close(leave_one_out(scores, 3), [1.5, -1.5, 0.0, -1.5, -1.5, 3.0], 0.0);
}

#[test]
fn group_normalisation_counts_in_sample_deviations() {
    // Deviations −1, 0, 1 over (1 + 10⁻⁴); equal scores give zeros and not NaN.
    let scores = double::<1>([1.0, 2.0, 3.0, 4.0, 4.0, 4.0]);
    let unit = 1.0 / (1.0 + 1e-4);
    assert_close(group_normalized(scores, 3), [-unit, 0.0, unit, 0.0, 0.0, 0.0], 1e-12);
}

#[test]
fn returns_to_go_discount_what_is_still_to_come() {
    // 2 + ½·4 = 4, 1 + ½·4 = 3; the padded 9 is nobody's.
    let found = returns_to_go(plain([[1.0, 2.0, 4.0, 9.0]]), &mask([[true, true, true, false]]), 0.5);
    assert_close(found, [3.0, 4.0, 4.0, 0.0], 0.0);
}

#[test]
fn the_position_baseline_centres_each_position_and_scales_the_whole() {
    // Column means 2 and 5 leave ±1 and, where one row counts, 0; sample variance over three tokens is (1 + 1)/2 = 1.
    let returns = double::<2>([[1.0, 5.0], [3.0, 7.0]]);
    let found = position_baseline(returns, &mask([[true, true], [true, false]]));
    assert_close(found, [-1.0, 0.0, 1.0, 0.0], 1e-8);
}

#[test]
fn whitening_rewards_keeps_their_mean() {
    // Mean 2, sample deviation 2: (1 − 3)/2 … with the mean put back.
    let found = masked::whiten(double([[1.0, 3.0, 5.0]]), &all_true(1, 3), Shift::Keep);
    assert_close(found, [2.0, 3.0, 4.0], 1e-8);
}

#[test]
fn one_token_has_no_variance_and_whitens_to_zero() {
    let one = mask([[false, true]]);
    assert_close(masked::variance(plain([[7.0, 3.0]]), &one), 0.0, 0.0);
    assert_close(masked::whiten(plain([[7.0, 3.0]]), &one, Shift::Subtract), [0.0, 0.0], 0.0);
}

#[test]
fn nothing_that_counts_has_sum_zero_and_no_mean() {
    let none = mask([[false, false]]);
    assert_close(masked::sum(plain([[7.0, f32::NAN]]), &none), 0.0, 0.0);
    assert_close(masked::variance(plain([[7.0, f32::NAN]]), &none), 0.0, 0.0);
    assert_close(masked::whiten(plain([[7.0, 1.0]]), &none, Shift::Subtract), [0.0, 0.0], 0.0);
    assert!(masked::mean(plain([[7.0, 1.0]]), &none).into_scalar::<f32>().is_nan());
}

#[test]
fn selection_is_stable_and_leaves_nan_for_last() {
    assert_eq!(top_k(&[1.0, 3.0, 3.0, 2.0], 3), [1, 2, 3]);
    assert_eq!(top_k(&[f32::NAN, f32::NEG_INFINITY, 0.0], 3), [2, 1, 0]);
    assert_eq!(best_of_n(&[1.0, 1.0, f32::NAN, -5.0, 0.0, 2.0], 2), [0, 3, 5]);
    assert_eq!(top_k(&[], 0), [0usize; 0]);
}
