//! INPO's loss: the numbers of the specification, which were computed apart from this code, and its identities.
//!
//! A row holds log π(w), log π(l), log π_ref(w), log π_ref(l), log π_t(w), log π_t(l). Numbers have nine digits after the point:
//! that is the tolerance in f64.

use align_core::number::Positive;
use align_nash::{Pair, PairBatch, PairLoss, PairObjective, loss, sequence_sums};
use align_testkit::{
    BigramLm, assert_all_close, assert_close, device, double, gradient, tracked_double, train_device,
};
use align_train::Objective;
use burn::tensor::Tensor;

use crate::world::{V, batches, in_double, policy, reference, step, sums, whole};

const DIGITS: f64 = 1e-9;

/// T1, with τ = 0.1 and η = 0.3.
const ROWS: [[f64; 6]; 3] = [
    [-12.0, -15.5, -13.2, -14.1, -12.6, -15.0],
    [-40.25, -38.75, -41.0, -40.0, -40.5, -39.5],
    [-5.0, -5.0, -5.0, -5.0, -5.0, -5.0],
];

/// E10's anchors of both answers, `(τ/η) log π_ref + (1 − τ/η) log π_t`.
fn anchors(row: &[f64; 6], tau: f64, eta: f64) -> [f64; 2] {
    let share = tau / eta;
    [share * row[2] + (1.0 - share) * row[4], share * row[3] + (1.0 - share) * row[5]]
}

/// h of E5, by its definition.
fn h(row: &[f64; 6], tau: f64, eta: f64) -> f64 {
    let share = tau / eta;
    (row[0] - row[1]) - share * (row[2] - row[3]) - (1.0 - share) * (row[4] - row[5])
}

/// INPO's loss of a row: IPO to the mixed anchors. Gives d, the loss, and its slopes by log π of both answers.
fn inpo(row: &[f64; 6], tau: f64, eta: f64, preference: f64) -> (f64, f64, [f64; 2]) {
    let policy = tracked_double::<1>([row[0], row[1]]);
    let ratios = policy.clone() - double(anchors(row, tau, eta));
    let margin = ratios.clone().narrow(0, 0, 1) - ratios.narrow(0, 1, 1);
    let loss = loss::ipo(margin.clone(), &double([preference]), eta);
    let slopes = gradient(&loss, &policy);
    (margin.into_scalar(), loss.into_scalar(), [slopes[0], slopes[1]])
}

#[test]
fn inpos_pairs_have_the_loss_and_the_slopes_of_the_specification() {
    let expected = [
        (1.6, 0.004444444, -0.133333333),
        (-0.5, 4.694444444, -4.333333333),
        (0.0, 2.777777778, -3.333333333),
    ];
    assert_close(anchors(&ROWS[0], 0.1, 0.3), [-12.8, -14.7], DIGITS);
    for (row, (d, loss, slope)) in ROWS.iter().zip(expected) {
        let (found_d, found_loss, slopes) = inpo(row, 0.1, 0.3, 1.0);
        assert_close(h(row, 0.1, 0.3), d, DIGITS);
        assert_close([found_d, found_loss, slopes[0], slopes[1]], [d, loss, slope, -slope], DIGITS);
    }
}

#[test]
fn the_limits_of_tau_are_other_methods() {
    let row = &ROWS[0];
    // At t = 1 the previous policy is the reference: IPO with η.
    let first = [row[0], row[1], row[2], row[3], row[2], row[3]];
    let (d, loss, _) = inpo(&first, 0.1, 0.3, 1.0);
    assert_close([d, loss], [2.6, 0.871111111], DIGITS);
    // τ = η: the previous policy drops out.
    let (d, loss, _) = inpo(row, 0.3, 0.3, 1.0);
    assert_close([d, loss], [2.6, 0.871111111], DIGITS);
    // τ = 0: the reference drops out.
    let (d, loss, _) = inpo(row, 0.0, 0.3, 1.0);
    assert_close([d, loss], [1.1, 0.321111111], DIGITS);
    // The paper's setting: the target is 100 nats.
    let (d, loss, slopes) = inpo(row, 0.005 / 3.0, 0.005, 1.0);
    assert_close([d, loss], [1.6, 9682.56], DIGITS);
    assert_close(slopes, [2.0 * (1.6 - 100.0), -2.0 * (1.6 - 100.0)], DIGITS);
    // And where nothing has moved yet, 1/(4η²).
    assert_close(inpo(&ROWS[2], 0.005 / 3.0, 0.005, 1.0).1, 10_000.0, DIGITS);
}

#[test]
fn soft_labels_move_the_target() {
    for (p, loss) in [(0.5, 2.56), (0.8, 0.36), (1.0, 0.004444444), (0.0, 10.671111111)] {
        assert_close(inpo(&ROWS[0], 0.1, 0.3, p).1, loss, DIGITS);
    }
    // E9 at p = 0.8: hard labels cost 2.137777778 on average, of which 1.777777778 moves nothing.
    let [won, lost, soft] = [1.0, 0.0, 0.8].map(|p| inpo(&ROWS[0], 0.1, 0.3, p));
    let expected = 0.8 * won.1 + 0.2 * lost.1;
    assert_close([expected, expected - soft.1], [2.137777778, 1.777777778], DIGITS);
    let mean = [0, 1].map(|side| 0.8 * won.2[side] + 0.2 * lost.2[side]);
    assert_close(soft.2, mean, DIGITS);
}

/// A model whose log-probabilities of tokens 0 and 1 after prompt u are those of row u; token 2 takes the rest.
fn model(column: usize, train: bool) -> BigramLm {
    let logits = ROWS
        .map(|row| {
            let rest = (-(row[column].exp() + row[column + 1].exp())).ln_1p();
            vec![row[column] as f32, row[column + 1] as f32, rest as f32]
        })
        .to_vec();
    BigramLm::from_logits(logits, &if train { train_device() } else { device() })
}

#[test]
fn an_objective_with_mixed_anchors_minimises_inpos_loss() {
    let (eta, share) = (0.3, 1.0 / 3.0);
    let mut pairs: Vec<Pair> = (0..3).map(|u| Pair::labelled(vec![u], vec![0], vec![1])).collect();
    let [reference, previous] =
        [2, 4].map(|column| sequence_sums(&model(column, false), &pairs, 2, &device()));
    for (pair, (reference, previous)) in pairs.iter_mut().zip(reference.iter().zip(&previous)) {
        pair.anchors = [0, 1].map(|side| share * reference[side] + (1.0 - share) * previous[side]);
    }
    let objective =
        PairObjective::new(PairLoss::Ipo { beta: Positive::literal(eta), length_normalized: false });
    let found = step(&objective, &model(0, true), &whole(&pairs));
    // f32 keeps 4e-6 of log-probabilities of 40 nats, and the steepest of these losses has slope 4.3.
    assert_close(found.loss, 2.492222222, 2e-5);
    assert_close(found.metric("margin/mean"), (1.6 - 0.5 + 0.0) / 3.0, 1e-5);
    // One token an answer: the slope by log π(w) is the slope by w's logit, for what the softmax takes from both cancels.
    let slopes = [-0.133333333, -4.333333333, -3.333333333].map(|slope| [slope / 3.0, -slope / 3.0, 0.0]);
    assert_close(found.gradient, slopes, 1e-5);
}

/// E7 written out for three models and whole answers, `[1]`.
fn e7(models: [&BigramLm; 3], batch: &PairBatch, share: f64, eta: f64) -> Tensor<1> {
    let pairs = batch.pairs();
    let difference = |model: &BigramLm| {
        let tokens = align_core::CausalLm::token_log_probs(model, &batch.completions, 1.0).log_probs;
        let whole = align_core::log_probs::sequence_log_probs(tokens, &batch.completions.response.mask);
        whole.clone().narrow(0, 0, pairs) - whole.narrow(0, pairs, pairs)
    };
    let [policy, reference, previous] = models.map(difference);
    let h = policy - reference * share - previous * (1.0 - share);
    (h - 0.5 / eta).square().mean()
}

#[test]
fn ipo_to_mixed_anchors_is_inpo_for_answers_of_any_length() {
    // E10, in f64: anchors from the two frozen models, mixed, against E7 with its three log-ratios.
    let (tau, eta) = (0.1, 0.4);
    let (policy, reference) = (policy().to_double(), reference().to_double());
    let previous = BigramLm::random(V, &align_core::Draws::new(13), &device()).to_double();
    let pairs = [
        Pair::labelled(vec![1, 2], vec![3, 4, 0], vec![4]),
        Pair::labelled(vec![0], vec![2, 2, 1, 4], vec![1, 3, 4]),
        Pair::labelled(vec![4, 4], vec![0], vec![3, 1]),
    ];
    let [batch] = &batches(&pairs, 3)[..] else { panic!("one batch") };
    let share = tau / eta;
    let [from_reference, from_previous] =
        [&reference, &previous].map(|model| sums(model, &batch.completions));
    let anchors = from_reference * share + from_previous * (1.0 - share);
    let batch = PairBatch { anchors, ..in_double(batch) };
    let objective =
        PairObjective::new(PairLoss::Ipo { beta: Positive::literal(eta), length_normalized: false });
    let found = step(&objective, &policy, std::slice::from_ref(&batch));

    let written_out = e7([&policy, &reference, &previous], &batch, share, eta);
    assert_all_close(found.loss, written_out.clone(), 1e-13, 0.0); // a few dozen roundings of f64
    assert_close(found.gradient, gradient(&written_out, &policy.table.val()), 1e-12);
}

#[test]
fn every_loss_starts_at_its_value_of_no_margin() {
    // The policy is its own anchor, as at the first step of a run: d = 0 for every pair.
    let policy = policy();
    let mut pairs = crate::world::pairs();
    pairs.iter_mut().for_each(|pair| pair.preference = 1.0);
    align_nash::cache_anchors(&policy, &mut pairs, 2, &device()).expect("finite");
    let beta = Positive::literal(0.4);
    let at_start = |loss| step(&PairObjective::new(loss), &policy, &whole(&pairs)).loss;
    let ln_2 = std::f64::consts::LN_2;
    // f32: an anchor and its policy are rounded alike, what is left is the loss's own rounding.
    assert_close(at_start(crate::world::every_loss()[0].1), ln_2, 1e-6);
    assert_close(at_start(PairLoss::Ipo { beta, length_normalized: false }), 1.0 / (4.0 * 0.16), 1e-6);
    assert_close(at_start(PairLoss::Ipo { beta, length_normalized: true }), 1.0 / (4.0 * 0.16), 1e-6);
    assert_close(at_start(PairLoss::Hinge { beta }), 1.0, 1e-6);
    let label_smoothing = align_core::number::NoiseRate::literal(0.2);
    assert_close(at_start(PairLoss::Robust { beta, label_smoothing }), ln_2, 1e-6);
}

#[test]
fn scaling_multiplies_loss_and_gradient_and_no_metric() {
    let pairs = crate::world::pairs();
    let loss = PairLoss::Ipo { beta: Positive::literal(0.05), length_normalized: false };
    let plain = step(&PairObjective::new(loss), &policy(), &whole(&pairs));
    // η² undoes INPO's: (ηd − ½)².
    let scaled = step(&PairObjective { loss, scale: 0.05 * 0.05 }, &policy(), &whole(&pairs));
    assert_all_close(scaled.loss, plain.loss * 0.0025, 1e-6, 0.0); // one rounding in f32
    let expected: Vec<f64> = plain.gradient.iter().map(|slope| slope * 0.0025).collect();
    assert_all_close(scaled.gradient, expected, 1e-5, 1e-7); // sums of a dozen terms in f32
    assert_eq!(scaled.metrics, plain.metrics);
}

#[test]
fn terms_of_likelihood_are_added_with_their_coefficients() {
    // An SFT term: −1/|y| of the chosen answer.
    let mut pairs = crate::world::pairs();
    let loss = PairLoss::default();
    let model = policy().to_double();
    let bare: Vec<PairBatch> = whole(&pairs).iter().map(in_double).collect();
    let without = step(&PairObjective::new(loss), &model, &bare);
    assert!(bare[0].likelihood.is_none());
    for pair in &mut pairs {
        // Lengths of 1, 2 and 4 have inverses in f32; the other pairs get no term.
        let length = pair.responses[0].len();
        pair.likelihood = [if length.is_power_of_two() { -1.0 / length as f32 } else { 0.0 }, 0.0];
    }
    let batch = in_double(&whole(&pairs)[0]);
    let log_probs: Vec<f64> = sums(&model, &batch.completions).to_data().iter::<f64>().collect();
    let rows = batch.completions.response.rows();
    let cross_entropy: f64 = (0..pairs.len())
        .filter(|&row| rows[row].len().is_power_of_two())
        .map(|row| -log_probs[row] / rows[row].len() as f64)
        .sum::<f64>()
        / pairs.len() as f64;
    for scale in [1.0, 3.0] {
        let objective = PairObjective { loss, scale };
        let found = step(&objective, &model, std::slice::from_ref(&batch));
        assert_all_close(found.loss, scale * (without.loss + cross_entropy), 1e-13, 0.0); // roundings of f64
        let terms = Objective::loss(&objective, &model, &batch).terms;
        let names: Vec<&str> = terms.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["preference", "likelihood"]);
        let count = pairs.len() as f64;
        assert_all_close(
            [terms[0].1.clone(), terms[1].1.clone()].map(|term| term.into_scalar::<f64>() / count),
            [scale * without.loss, scale * cross_entropy],
            1e-13,
            0.0,
        );
    }
}
