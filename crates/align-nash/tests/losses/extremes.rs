//! Margins of ten thousand nats: values and slopes stay numbers, in f32, and are the right limits.

use align_core::number::{Finite, NoiseRate, Positive};
use align_nash::loss::{self, FDivergence, KtoWeights};
use align_nash::{PairLoss, PairView};
use align_testkit::{assert_all_close, gradient, plain, tracked};
use burn::tensor::Tensor;

use crate::world::every_loss;

const FAR: f32 = 1e4;

/// Both answers far from their anchors, in every combination of signs; labels of three kinds.
fn far(log_probs: &Tensor<1>) -> PairView {
    PairView {
        log_probs: log_probs.clone(),
        anchors: plain([0.0; 24]),
        lengths: plain([2.0; 24]),
        win_rates: plain([0.5; 24]),
        preference: plain([1.0, 1.0, 1.0, 1.0, 0.3, 0.3, 0.3, 0.3, 0.0, 0.0, 0.0, 0.0]),
    }
}

#[test]
fn every_loss_is_finite_ten_thousand_nats_from_its_anchor() {
    let signs = [[FAR, FAR], [FAR, -FAR], [-FAR, FAR], [-FAR, -FAR]];
    let side = |side: usize| [signs; 3].concat().into_iter().map(move |pair| pair[side]);
    let values: Vec<f32> = side(0).chain(side(1)).collect();
    for (name, loss) in every_loss() {
        let log_probs = tracked::<1>(&values[..]);
        let losses = loss.per_pair(&far(&log_probs));
        let found: Vec<f64> = losses.to_data().iter::<f64>().collect();
        assert!(found.iter().all(|loss| loss.is_finite()), "{name}: {found:?}");
        let slopes = gradient(&losses.sum(), &log_probs);
        assert!(slopes.iter().all(|slope| slope.is_finite()), "{name}: {slopes:?}");
    }
}

#[test]
fn the_losses_of_hard_labels_go_to_their_asymptotes() {
    // At βd = ±1000: log σ is 0 or −1000, its slope 0 or 1, without any rounding.
    let losses = |loss: fn(Tensor<1>, &Tensor<1>) -> Tensor<1>| {
        let margin = tracked::<1>([FAR, -FAR]);
        let value = loss(margin.clone(), &plain([1.0, 1.0]));
        let found: Vec<f64> = value.to_data().iter::<f64>().collect();
        (found, gradient(&value.sum(), &margin))
    };
    let assert_are = |found: (Vec<f64>, Vec<f64>), values: [f64; 2], slopes: [f64; 2]| {
        assert_all_close(found.0, values, 1e-6, 0.0); // f32
        assert_all_close(found.1, slopes, 1e-6, 0.0);
    };
    assert_are(losses(|d, p| loss::dpo(d, p, 0.1, 0.0)), [0.0, 1000.0], [0.0, -0.1]);
    assert_are(losses(|d, p| loss::dpo(d, p, 0.1, 0.2)), [200.0, 800.0], [0.02, -0.08]);
    assert_are(losses(|d, p| loss::robust_dpo(d, p, 0.1, 0.25)), [-500.0, 1500.0], [-0.05, -0.15]);
    assert_are(losses(|d, p| loss::hinge(d, p, 0.1)), [0.0, 1001.0], [0.0, -0.1]);
    assert_are(losses(|d, p| loss::simpo(d, p, 0.1, 3.0)), [0.0, 1003.0], [0.0, -0.1]);
    let ipo = losses(|d, p| loss::ipo(d, p, 0.1));
    assert_are(ipo, [9995.0f64.powi(2), 10_005.0f64.powi(2)], [2.0 * 9995.0, -2.0 * 10_005.0]);
}

#[test]
fn kto_loses_interest_far_from_its_reference_point() {
    let ratios = tracked::<1>([FAR, -FAR, FAR, -FAR]);
    let weights = KtoWeights { desirable: 2.0, undesirable: 3.0 };
    let losses = loss::kto(ratios.clone(), &plain([1.0, 1.0, 0.0, 0.0]), 5.0, 0.1, weights);
    assert_all_close(losses.clone(), [0.0, 2.0, 3.0, 0.0], 1e-6, 1e-30);
    assert_all_close(gradient(&losses.sum(), &ratios), [0.0; 4], 0.0, 1e-30);
}

#[test]
fn a_score_is_cut_off_where_f32_ends() {
    // 1/u = e^100 is no number of f32: the score stays at −e^80 + 1, and does not move.
    let at = tracked::<1>([-100.0, -79.0]);
    let score = FDivergence::ForwardKl.score(at.clone());
    assert_all_close(score.clone(), [-80f64.exp(), -79f64.exp()], 1e-6, 0.0); // f32
    assert_all_close(gradient(&score.sum(), &at), [0.0, 79f64.exp()], 1e-6, 0.0);
    // Powers below 1 and above are cut off on their own side.
    let alpha = |alpha| FDivergence::AlphaDivergence { alpha: Finite::literal(alpha) };
    let far = |divergence: FDivergence| {
        let at = tracked::<1>([-FAR, FAR]);
        let score = divergence.score(at.clone());
        (score.to_data().iter::<f64>().collect::<Vec<_>>(), gradient(&score.sum(), &at))
    };
    let (values, slopes) = far(alpha(0.5));
    assert_all_close(values, [-2.0 * 80f64.exp(), 2.0], 1e-6, 0.0);
    assert_all_close(slopes, [0.0, 0.0], 0.0, 0.0);
    let (values, slopes) = far(alpha(2.0));
    assert_all_close(values, [-1.0, 80f64.exp()], 1e-6, 0.0);
    assert_all_close(slopes, [0.0, 0.0], 0.0, 0.0);
}

#[test]
fn a_margin_of_f32s_largest_powers_is_a_margin() {
    // The forward KL makes of 100 nats a score of 5e34; DPO of that is still a number, and so is conservative DPO.
    for label_smoothing in [0.0, 0.2] {
        let loss = PairLoss::Dpo {
            beta: Positive::literal(1.0),
            label_smoothing: NoiseRate::literal(label_smoothing),
            f_divergence: FDivergence::ForwardKl,
        };
        let log_probs = tracked::<1>([-100.0, 0.0]);
        let view = PairView {
            log_probs: log_probs.clone(),
            anchors: plain([0.0, 0.0]),
            lengths: plain([1.0, 1.0]),
            win_rates: plain([1.0, 0.0]),
            preference: plain([1.0]),
        };
        let found = loss.per_pair(&view);
        assert_all_close(found.clone(), (1.0 - label_smoothing) * 80f64.exp(), 1e-6, 0.0); // f32
        // The chosen score is cut off; the rejected one has slope 1 at its anchor.
        assert_all_close(gradient(&found, &log_probs), [0.0, 1.0 - label_smoothing], 1e-6, 0.0);
    }
}
