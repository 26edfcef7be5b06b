//! Values derived on paper; the numbered cases are those of section 9 of the SALSA specification.

use align_core::divergence::{Divergence, Kl, KlEstimator};
use align_core::masked::{self, Shift};
use align_core::{
    advantages,
    number::NonNegative,
    regularizer::{Coefficient, Granularity, Regularizer, Site},
};
use align_ppo::rewards::token_rewards;
use align_ppo::surrogate::{ClipRange, RatioSums, clipped_surrogate};
use align_ppo::value::{clipped_value_loss, explained_variance};
use align_testkit::gradcheck::assert_gradient;
use align_testkit::{all_true, assert_close, double, gradient, mask, plain, tracked};

const OLD: [[f64; 4]; 1] = [[-0.9, -1.6, -0.4, -2.2]];
const SFT: [[f64; 4]; 1] = [[-1.1, -1.5, -0.7, -2.6]];
const SOUP: [[f64; 4]; 1] = [[-1.0, -1.9, -0.5, -2.1]];
const VALUES: [[f64; 4]; 1] = [[0.30, 0.45, 0.50, 0.70]];
/// Everything is computed in f64 and the specification prints eight digits.
const PRINTED: f64 = 1e-6;

fn regularizer(estimator: KlEstimator, beta: f64) -> Regularizer {
    Regularizer {
        site: Site::Reward(Box::new(Kl { estimator })),
        coefficient: Coefficient::Fixed { beta: NonNegative::try_from(beta).expect("not negative") },
        granularity: Granularity::Token,
    }
}

#[test]
fn case_5_shaped_rewards_advantages_returns_and_whitening() {
    type Row = [f64; 4];
    let cases: [(_, _, f64, Row, Row, Row, Row); 4] = [
        (
            SFT,
            KlEstimator::K1,
            0.8,
            [-0.02, 0.01, -0.03, 1.16],
            [0.73481750, 0.63665, 0.607, 0.46],
            [1.03481750, 1.08665, 1.107, 1.16],
            [1.10093592, 0.23771238, -0.02301116, -1.31563714],
        ),
        (
            SOUP,
            KlEstimator::K1,
            0.4,
            [-0.01, -0.03, -0.01, 1.21],
            [0.76773625, 0.660775, 0.6745, 0.51],
            [1.06773625, 1.110775, 1.1745, 1.21],
            [1.07324216, 0.07051788, 0.19918495, -1.34294498],
        ),
        (
            SFT,
            KlEstimator::K3,
            0.8,
            [-0.00187308, -0.00051709, -0.00408182, 1.19296800],
            [0.79461028, 0.68050879, 0.66423777, 0.49296800],
            [1.09461028, 1.13050879, 1.16423777, 1.19296800],
            [1.09729482, 0.18025224, 0.04948078, -1.32702785],
        ),
        (
            SOUP,
            KlEstimator::K3,
            0.4,
            [-0.00048374, -0.00408182, -0.00048374, 1.19948291],
            [0.80144611, 0.68624195, 0.67402502, 0.49948291],
            [1.10144611, 1.13624195, 1.17402502, 1.19948291],
            [1.09302186, 0.16813507, 0.07005463, -1.33121156],
        ),
    ];
    let counts = all_true(1, 4);
    for (reference, estimator, sum, rewards, advantage, returns, whitened) in cases {
        let log_ratio = double::<2>(OLD) - double::<2>(reference);
        assert_close(log_ratio.clone().sum(), [sum], PRINTED);
        let paid = token_rewards(&[1.2], regularizer(estimator, 0.1).penalty(log_ratio, &counts), &counts);
        assert_close(paid.clone(), rewards, PRINTED);
        let gae = advantages::gae(paid, double(VALUES), &counts, 1.0, 0.95);
        assert_close(gae.advantages.clone(), advantage, PRINTED);
        assert_close(gae.returns, returns, PRINTED);
        assert_close(masked::whiten(gae.advantages, &counts, Shift::Subtract), whitened, PRINTED);
    }
}

#[test]
fn case_6_clipped_policy_and_value_loss() {
    let log_ratio = double::<2>([[-0.7, -1.75, -0.15, -2.6]]) - double::<2>(OLD);
    let advantage = double::<2>([[1.0, -0.5, 0.8, -1.2]]);
    let clip = ClipRange::symmetric(0.2);
    let all = all_true(1, 4);
    let loss = clipped_surrogate(log_ratio.clone(), advantage.clone(), &all, clip, 4.0);
    assert_close(loss.clone(), [-0.19241150], PRINTED);
    let three = mask([[true, true, true, false]]);
    let masked_loss = clipped_surrogate(log_ratio.clone(), advantage.clone(), &three, clip, 3.0);
    assert_close(masked_loss, [-0.57654867], PRINTED);

    let sums = RatioSums::of(&log_ratio, &advantage, &all, clip);
    assert_close(sums.clip_fraction(), [0.75], PRINTED);
    assert_close(sums.approx_kl(), [0.03562500], PRINTED);
    let ratios = [1.22140276, 0.86070798, 1.28402542, 0.67032005];
    assert_close(log_ratio.exp(), ratios, PRINTED);
    let mean = ratios.iter().sum::<f64>() / 4.0;
    assert_close(sums.ratio_mean(), [mean], PRINTED);
    let variance = ratios.iter().map(|ratio| (ratio - mean).powi(2)).sum::<f64>() / 3.0;
    assert_close(sums.ratio_variance(), [variance], PRINTED);

    let returns = double([[1.06773625, 1.110775, 1.1745, 1.21]]);
    let value =
        clipped_value_loss(double([[0.35, 0.30, 0.90, 0.65]]), double(VALUES), returns, &all, Some(0.2), 4.0);
    assert_close(value.clone(), [0.21390646], PRINTED);
    assert_close(loss + value * 0.1, [-0.17102086], PRINTED);
}

#[test]
fn case_10_a_longer_response_pays_more_divergence() {
    // Score 0.5, β = 0.1, 0.03 nat a token: 0.5 − 0.1·0.03·n.
    for (length, expected) in [(10, 0.47), (100, 0.20)] {
        let log_ratio = double::<2>(burn::tensor::TensorData::new(vec![0.03; length], [1, length]));
        let counts = all_true(1, length);
        let penalty = regularizer(KlEstimator::K1, 0.1).penalty(log_ratio, &counts);
        assert_close(token_rewards(&[0.5], penalty, &counts).sum(), [expected], 1e-12); // f64 sums
    }
}

#[test]
fn beyond_the_clip_the_surrogate_stops_pushing() {
    // r = e, Â = 1, ε = 0.2: the loss is −min(e, 1.2) = −1.2 and its slope is 0.
    let log_ratio = tracked::<2>([[1.0]]);
    let loss =
        clipped_surrogate(log_ratio.clone(), plain([[1.0]]), &all_true(1, 1), ClipRange::symmetric(0.2), 1.0);
    assert_close(loss.clone(), [-1.2], 1e-6); // one rounding in f32
    assert_eq!(gradient(&loss, &log_ratio), vec![0.0]);
}

#[test]
fn an_upper_range_of_its_own_clips_later() {
    // r = 1.25: clipped at 1.2 by ε = 0.2, untouched by an upper ε of 0.28.
    let log_ratio = double::<2>([[1.25f64.ln()]]);
    let higher = ClipRange { upper: 0.28, ..ClipRange::symmetric(0.2) };
    let loss = |clip| clipped_surrogate(log_ratio.clone(), double([[1.0]]), &all_true(1, 1), clip, 1.0);
    assert_close(loss(ClipRange::symmetric(0.2)), [-1.2], 1e-12);
    assert_close(loss(higher), [-1.25], 1e-12);
}

#[test]
fn dual_clip_bounds_the_loss_of_a_negative_advantage_and_no_other() {
    // r = 10: the loss is 10 for Â = −1, at most c = 3 with dual clip; for Â = 1 it is −1.2 either way.
    let log_ratio = double::<2>([[10.0f64.ln(), 10.0f64.ln()]]);
    let dual = ClipRange { dual: Some(3.0), ..ClipRange::symmetric(0.2) };
    let per_token =
        |clip, counts| clipped_surrogate(log_ratio.clone(), double([[-1.0, 1.0]]), &mask(counts), clip, 1.0);
    assert_close(per_token(ClipRange::symmetric(0.2), [[true, false]]), [10.0], 1e-9);
    assert_close(per_token(dual, [[true, false]]), [3.0], 1e-9);
    assert_close(per_token(dual, [[false, true]]), [-1.2], 1e-9);
}

#[test]
fn a_log_ratio_beyond_twenty_is_clamped_and_counted() {
    let log_ratio = double::<2>([[25.0, 0.5, -30.0]]);
    let (advantage, counts) = (double::<2>([[-1.0, 1.0, 1.0]]), all_true(1, 3));
    let sums = RatioSums::of(&log_ratio, &advantage, &counts, ClipRange::symmetric(0.2));
    assert_close(sums.clamp_fraction(), [2.0 / 3.0], 1e-12);
    let loss = clipped_surrogate(
        log_ratio,
        advantage,
        &mask([[true, false, false]]),
        ClipRange::symmetric(0.2),
        1.0,
    );
    assert_close(loss.into_scalar::<f64>() / 20f64.exp(), [1.0], 1e-9);
}

#[test]
fn the_surrogate_has_the_gradient_of_its_value() {
    let advantage = double::<2>([[1.0, -0.5, 0.8, -1.2, 0.3, -2.0]]);
    let counts = mask([[true, true, true, true, true, false]]);
    // None of the ratios stands on a kink (0.8, 1.2, or 3 for the dual clip).
    let at = double::<2>([[0.1, -0.15, 0.3, -0.5, -0.4, 1.3]]);
    let dual = ClipRange { lower: 0.2, upper: 0.28, dual: Some(3.0) };
    for clip in [ClipRange::symmetric(0.2), dual] {
        assert_gradient(
            |log_ratio| clipped_surrogate(log_ratio, advantage.clone(), &counts, clip, 5.0),
            at.clone(),
            1e-6,
        );
    }
}

#[test]
fn the_value_loss_has_the_gradient_of_its_value() {
    let (old, returns) = (double::<2>([[0.3, 0.45, 0.5]]), double::<2>([[1.0, 0.2, 0.6]]));
    let counts = mask([[true, true, false]]);
    for epsilon in [None, Some(0.2)] {
        let loss = |values| clipped_value_loss(values, old.clone(), returns.clone(), &counts, epsilon, 2.0);
        assert_gradient(loss, double([[0.35, 0.9, 0.1]]), 1e-6);
    }
}

#[test]
fn explained_variance_is_one_for_the_returns_and_zero_for_a_constant() {
    let returns = double([[1.0, 3.0, 2.0, 99.0]]);
    let counts = mask([[true, true, true, false]]);
    assert_close(explained_variance(&returns, &returns, &counts), [1.0], 1e-12);
    assert_close(explained_variance(&double([[5.0, 5.0, 5.0, 0.0]]), &returns, &counts), [0.0], 1e-12);
    // Residuals 1, 3, 2 around values twice the returns have the returns' variance; around values −G four times it: 1 − 4.
    assert_close(explained_variance(&double([[-1.0, -3.0, -2.0, 0.0]]), &returns, &counts), [-3.0], 1e-12);
    assert_eq!(explained_variance(&returns, &double([[2.0, 2.0, 2.0, 7.0]]), &counts), 0.0);
}

#[test]
fn case_7_expectations_of_the_estimators_are_what_the_report_logs() {
    // One-token responses drawn in proportion: the mean of k1 over π_1 is the exact KL, that of k2 is biased.
    let p = [0.47399085, 0.17437149, 0.06414769, 0.28748998];
    let k1 = double::<2>([[0.24666477, -0.75333523, -0.45333523, 0.59666477]]);
    let expected = |estimator| -> f64 {
        let estimates: Vec<f64> = Kl { estimator }.estimate(k1.clone()).to_data().iter::<f64>().collect();
        estimates.iter().zip(p).map(|(estimate, p)| estimate * p).sum()
    };
    assert_close(expected(KlEstimator::K1), [0.12801140], PRINTED);
    assert_close(expected(KlEstimator::K2), [0.12166484], PRINTED);
    assert_close(expected(KlEstimator::K3), [0.12801140], PRINTED);
}
