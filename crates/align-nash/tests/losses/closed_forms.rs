//! Every loss and its slope against formulas of one number, at margins of both signs and labels of every kind.

use align_core::number::Finite;
use align_nash::loss::{self, FDivergence, KtoWeights};
use align_testkit::{assert_all_close, assert_close, double, gradient, tracked_double};
use burn::tensor::Tensor;

/// σ(x) in f64.
fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Margins with a label each: every combination.
fn grid() -> (Vec<f64>, Vec<f64>) {
    let margins = [-30.0, -7.5, -1.0, -0.2, 0.0, 0.3, 2.0, 9.0, 40.0];
    let labels = [0.0, 0.25, 0.5, 0.9, 1.0];
    margins.iter().flat_map(|&margin| labels.map(|label| (margin, label))).unzip()
}

/// Values and slopes of `loss` over the grid agree with formulas of margin and label.
#[track_caller]
fn assert_formulas(
    loss: impl Fn(Tensor<1>, &Tensor<1>) -> Tensor<1>,
    value: impl Fn(f64, f64) -> f64,
    slope: impl Fn(f64, f64) -> f64,
) {
    let (margins, labels) = grid();
    let at = tracked_double::<1>(&margins[..]);
    let losses = loss(at.clone(), &double(&labels[..]));
    let along = |of: &dyn Fn(f64, f64) -> f64| -> Vec<f64> {
        margins.iter().zip(&labels).map(|(&margin, &label)| of(margin, label)).collect()
    };
    // A few roundings of f64; Burn's slope of log σ is 1 − 1/(1 + e^−|x|), off by one rounding of 1.
    assert_all_close(losses.clone(), along(&value), 1e-13, 1e-14);
    assert_all_close(gradient(&losses.sum(), &at), along(&slope), 1e-13, 1e-14);
}

#[test]
fn dpo_pulls_the_logistic_function_to_the_smoothed_label() {
    for (beta, epsilon) in [(0.1, 0.0), (0.7, 0.2), (1.0, 0.0), (1.0, 0.49)] {
        let said = |p: f64| p * (1.0 - epsilon) + (1.0 - p) * epsilon;
        assert_formulas(
            |d, p| loss::dpo(d, p, beta, epsilon),
            |d, p| -said(p) * (-(-beta * d).exp().ln_1p()) + (1.0 - said(p)) * (beta * d).exp().ln_1p(),
            |d, p| beta * (sigmoid(beta * d) - said(p)),
        );
    }
}

#[test]
fn robust_dpo_pulls_it_beyond_the_label() {
    for (beta, epsilon) in [(0.1, 0.1), (0.7, 0.3), (1.0, 0.0)] {
        let q = |p: f64| (p - epsilon) / (1.0 - 2.0 * epsilon);
        assert_formulas(
            |d, p| loss::robust_dpo(d, p, beta, epsilon),
            |d, p| q(p) * (-beta * d).exp().ln_1p() + (1.0 - q(p)) * (beta * d).exp().ln_1p(),
            |d, p| beta * (sigmoid(beta * d) - q(p)),
        );
    }
}

#[test]
fn a_hard_robust_label_has_the_slope_of_the_paper() {
    // −β [(1 − ε) σ(−βd) + ε σ(βd)] / (1 − 2ε), written another way than above.
    let (beta, epsilon) = (0.7, 0.3);
    for d in [-3.0, 0.0, 5.0] {
        let at = tracked_double::<1>([d]);
        let slope = gradient(&loss::robust_dpo(at.clone(), &double([1.0]), beta, epsilon), &at);
        let paper = -beta * ((1.0 - epsilon) * sigmoid(-beta * d) + epsilon * sigmoid(beta * d));
        assert_close(slope, paper / (1.0 - 2.0 * epsilon), 1e-14);
    }
}

#[test]
fn ipo_is_a_square_around_the_labels_target() {
    for beta in [0.005, 0.4] {
        let target = |p: f64| (p - 0.5) / beta;
        assert_formulas(
            |d, p| loss::ipo(d, p, beta),
            |d, p| (d - target(p)).powi(2),
            |d, p| 2.0 * (d - target(p)),
        );
    }
}

#[test]
fn the_hinge_pushes_until_its_margin_is_reached() {
    // β = 0.3: no margin of the grid is at a kink, ±10/3.
    let beta = 0.3;
    assert_formulas(
        |d, p| loss::hinge(d, p, beta),
        |d, p| p * (1.0 - beta * d).max(0.0) + (1.0 - p) * (1.0 + beta * d).max(0.0),
        |d, p| {
            let pushes = |on: bool| if on { beta } else { 0.0 };
            -p * pushes(beta * d < 1.0) + (1.0 - p) * pushes(beta * d > -1.0)
        },
    );
}

#[test]
fn simpo_asks_for_a_margin_of_gamma() {
    let (beta, gamma) = (2.0, 0.7);
    assert_formulas(
        |d, p| loss::simpo(d, p, beta, gamma),
        |d, p| p * (gamma - beta * d).exp().ln_1p() + (1.0 - p) * (gamma + beta * d).exp().ln_1p(),
        |d, p| -p * beta * sigmoid(gamma - beta * d) + (1.0 - p) * beta * sigmoid(gamma + beta * d),
    );
}

#[test]
fn sppo_draws_each_answer_to_its_win_rate() {
    let beta = 0.3;
    assert_formulas(
        |ratios, win_rates| loss::sppo(ratios, win_rates, beta),
        |ratio, w| (ratio - (w - 0.5) / beta).powi(2),
        |ratio, w| 2.0 * (ratio - (w - 0.5) / beta),
    );
}

#[test]
fn kto_weighs_gains_and_losses_around_its_reference_point() {
    let (beta, z) = (0.4, 0.8);
    let weights = KtoWeights { desirable: 1.3, undesirable: 0.7 };
    let ratios = [-30.0, -2.0, 0.0, 0.8, 3.0, 40.0];
    for desirable in [1.0, 0.0] {
        let (lambda, sign) = if desirable == 1.0 { (1.3, 1.0) } else { (0.7, -1.0) };
        let at = tracked_double::<1>(ratios);
        let losses = loss::kto(at.clone(), &double([desirable; 6]), z, beta, weights);
        let gain = |r: f64| sigmoid(sign * beta * (r - z));
        assert_close(losses.clone(), ratios.map(|r| lambda * (1.0 - gain(r))), 1e-14);
        let slopes = ratios.map(|r| -sign * lambda * beta * gain(r) * (1.0 - gain(r)));
        assert_close(gradient(&losses.sum(), &at), slopes, 1e-14); // roundings of numbers below 1
    }
}

#[test]
fn labels_and_win_rates_are_constants() {
    let at = tracked_double::<1>([0.3, 0.8]);
    let margin = || tracked_double::<1>([1.0, -2.0]);
    for loss in [
        loss::dpo(margin(), &at, 0.5, 0.1),
        loss::robust_dpo(margin(), &at, 0.5, 0.1),
        loss::ipo(margin(), &at, 0.5),
        loss::hinge(margin(), &at, 0.5),
        loss::simpo(margin(), &at, 0.5, 0.1),
        loss::sppo(margin(), &at, 0.5),
        loss::kto(margin(), &at, 0.1, 0.5, KtoWeights { desirable: 1.0, undesirable: 2.0 }),
    ] {
        assert_eq!(gradient(&loss.sum(), &at), [0.0, 0.0]);
    }
}

#[test]
fn scores_of_divergences_are_their_derivatives() {
    let log_ratios = [-6.0f64, -1.5, -0.25, 0.0, 0.5, 3.0, 7.0];
    let alpha = |alpha| FDivergence::AlphaDivergence { alpha: Finite::literal(alpha) };
    // f'(u) and u f''(u), of u.
    type Formula = fn(f64) -> f64;
    let cases: [(FDivergence, Formula, Formula); 7] = [
        (FDivergence::ReverseKl, |u| u.ln(), |_| 1.0),
        (FDivergence::ForwardKl, |u| 1.0 - 1.0 / u, |u| 1.0 / u),
        (FDivergence::JsDivergence, |u| (2.0 * u / (1.0 + u)).ln(), |u| 1.0 / (1.0 + u)),
        (alpha(0.5), |u| 2.0 - 2.0 / u.sqrt(), |u| 1.0 / u.sqrt()),
        (alpha(2.0), |u| u - 1.0, |u| u),
        (alpha(0.0), |u| 1.0 - 1.0 / u, |u| 1.0 / u),
        (alpha(1.0), |u| u.ln(), |_| 1.0),
    ];
    for (divergence, score, slope) in cases {
        let at = tracked_double::<1>(log_ratios);
        let found = divergence.score(at.clone());
        // Roundings of f64 beside numbers of up to a thousand.
        assert_all_close(found.clone(), log_ratios.map(|x| score(x.exp())), 1e-13, 1e-14);
        assert_all_close(gradient(&found.sum(), &at), log_ratios.map(|x| slope(x.exp())), 1e-13, 1e-14);
    }
}

#[test]
fn near_the_reference_every_score_is_the_log_ratio_and_jensen_shannons_half_of_it() {
    // So at the start of a run β means the same for all, and half as much for Jensen–Shannon.
    for (divergence, slope) in [
        (FDivergence::ReverseKl, 1.0),
        (FDivergence::ForwardKl, 1.0),
        (FDivergence::JsDivergence, 0.5),
        (FDivergence::AlphaDivergence { alpha: Finite::literal(-0.7) }, 1.0),
    ] {
        let at = tracked_double::<1>([0.0]);
        let score = divergence.score(at.clone());
        assert_close(score.clone(), 0.0, 1e-15); // one rounding
        assert_close(gradient(&score, &at), slope, 1e-7); // Burn keeps the inverse of a divisor in f32
    }
}

#[test]
fn a_power_near_one_is_close_to_the_logarithm() {
    // f'(u) = log u + (α − 1)/2 (log u)² + …: at α = 1.0001 and |log u| ≤ 2 within 3e-4.
    let near = FDivergence::AlphaDivergence { alpha: Finite::literal(1.0001) };
    assert_close(near.score(double([-2.0, 0.5, 2.0])), [-2.0, 0.5, 2.0], 3e-4);
}
