//! Laws of pair losses, for any model, pairs and labels.

use align_core::{Completions, TokenBatch};
use align_nash::loss::{dpo, robust_dpo};
use align_nash::{Pair, PairBatch, PairLoss, PairObjective, PairView, cache_anchors};
use align_testkit::gradcheck::assert_module_gradients;
use align_testkit::strategies::{matrix, permutation};
use align_testkit::{
    BigramLm, assert_all_close, assert_close, device, gradient, tracked_double, train_device,
};
use align_train::Objective;
use burn::tensor::{Bool, DType, Int, Tensor, TensorData};
use proptest::prelude::*;

use crate::world::{Step, V, batches, every_loss, in_double, largest, policy, step, whole};

/// A policy to train and pairs anchored to another model.
#[derive(Clone, Debug)]
struct World {
    policy: BigramLm,
    pairs: Vec<Pair>,
}

impl World {
    /// A step of the given loss over microbatches of `size`.
    fn step(&self, loss: PairLoss, size: usize) -> Step {
        step(&PairObjective::new(loss), &self.policy, &batches(&self.pairs, size))
    }
}

/// A row of one to `longest` tokens.
fn tokens(longest: usize) -> impl Strategy<Value = Vec<u32>> {
    proptest::collection::vec(0..V as u32, 1..=longest)
}

/// A pair with a label in sixteenths, which f32 subtracts from 1 exactly, and coefficients of likelihood for some.
fn pair() -> impl Strategy<Value = Pair> {
    (tokens(4), tokens(5), tokens(5), 0u8..=16, prop_oneof![Just([0.0; 2]), Just([-0.25, 0.125])]).prop_map(
        |(prompt, first, second, sixteenths, likelihood)| Pair {
            likelihood,
            ..Pair::compared(prompt, [first, second], f32::from(sixteenths) / 16.0)
        },
    )
}

fn world() -> impl Strategy<Value = World> {
    let table = || matrix(V, V, 2.0);
    (table(), table(), proptest::collection::vec(pair(), 1..6)).prop_map(|(policy, reference, mut pairs)| {
        let model = |rows: Vec<Vec<f64>>, device: &_| {
            let rows = rows.into_iter().map(|row| row.into_iter().map(|logit| logit as f32).collect());
            BigramLm::from_logits(rows.collect(), device)
        };
        let reference = model(reference, &device());
        cache_anchors(&reference, &mut pairs, 3, &device()).expect("finite logits");
        World { policy: model(policy, &train_device()), pairs }
    })
}

/// Two steps see the same, but for rounding in f32: log-probabilities of up to 30 nats, 2e-6 apart, and exponentials of their
/// differences under some divergences.
#[track_caller]
fn assert_same(name: &str, found: &Step, expected: &Step) {
    println!("{name}");
    let gradient = &expected.gradient;
    assert_all_close(found.loss, expected.loss, 1e-5, 1e-5);
    assert_all_close(found.gradient.as_slice(), &gradient[..], 1e-5, 1e-5 * (1.0 + largest(gradient)));
    assert_eq!(found.metrics.len(), expected.metrics.len());
    for (metric, expected) in expected.metrics.iter() {
        // A margin that rounds to 0 in one order may not in the other: a tie then counts as one side.
        if metric != "rewards/accuracies" {
            assert_all_close(found.metric(metric), expected, 1e-5, 1e-5);
        }
    }
}

/// A view of pairs whose log-probabilities are a leaf in f64.
fn view(log_probs: &Tensor<1>, anchors: &[f64], preference: &[f64]) -> PairView {
    let constant = |values: Vec<f64>| {
        let count = values.len();
        Tensor::from_data(TensorData::new(values, [count]), (&device(), DType::F64))
    };
    let lengths = (0..anchors.len()).map(|row| 1.0 + (row % 3) as f64).collect();
    let win_rates = preference.iter().copied().chain(preference.iter().map(|p| 1.0 - p)).collect();
    PairView {
        log_probs: log_probs.clone(),
        anchors: constant(anchors.to_vec()),
        lengths: constant(lengths),
        win_rates: constant(win_rates),
        preference: constant(preference.to_vec()),
    }
}

/// Losses of pairs and the slopes of their sum by log π.
fn losses_and_slopes(loss: PairLoss, log_probs: &[f64], anchors: &[f64], labels: &[f64]) -> [Vec<f64>; 2] {
    let leaf = tracked_double::<1>(log_probs);
    let losses = loss.per_pair(&view(&leaf, anchors, labels));
    [losses.to_data().iter::<f64>().collect(), gradient(&losses.sum(), &leaf)]
}

/// What a soft label takes from the mean over hard ones, a constant: squares are drawn to the mean target.
fn constant(loss: PairLoss, p: f64) -> f64 {
    let variance = p * (1.0 - p) / loss.beta().powi(2);
    match loss {
        PairLoss::Ipo { .. } => variance,
        PairLoss::Sppo { .. } => 2.0 * variance,
        _ => 0.0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_soft_label_is_the_mean_over_hard_labels(
        rows in matrix(2, 8, 6.0),
        labels in proptest::collection::vec(0.0..=1.0f64, 4),
    ) {
        let [log_probs, anchors] = &rows[..] else { unreachable!() };
        for (name, loss) in every_loss() {
            println!("{name}");
            let hard = [1.0, 0.0].map(|label| losses_and_slopes(loss, log_probs, anchors, &[label; 4]));
            let [losses, slopes] = losses_and_slopes(loss, log_probs, anchors, &labels);
            let mean = |part: usize, at: usize, p: f64| p * hard[0][part][at] + (1.0 - p) * hard[1][part][at];
            let expected: Vec<f64> =
                (0..4).map(|at| mean(0, at, labels[at]) - constant(loss, labels[at])).collect();
            // Roundings of f64 beside the hard losses, which are exponentials under some divergences.
            assert_all_close(&losses[..], expected, 1e-12, 1e-11);
            let expected: Vec<f64> = (0..8).map(|row| mean(1, row, labels[row % 4])).collect();
            assert_all_close(&slopes[..], expected, 1e-12, 1e-11);
        }
    }

    #[test]
    fn the_order_of_the_answers_says_nothing_once_the_label_is_turned_too(world in world()) {
        let mut turned = world.clone();
        for pair in &mut turned.pairs {
            // At an even label the first answer counts as the chosen one, in either order.
            prop_assume!(pair.preference != 0.5);
            pair.responses.swap(0, 1);
            pair.anchors.swap(0, 1);
            pair.win_rates.swap(0, 1);
            pair.likelihood.swap(0, 1);
            pair.preference = 1.0 - pair.preference;
        }
        for (name, loss) in every_loss() {
            assert_same(name, &turned.step(loss, 3), &world.step(loss, 3));
        }
    }

    #[test]
    fn how_a_step_is_cut_changes_nothing(world in world(), size in 1usize..5) {
        for (name, loss) in every_loss() {
            assert_same(name, &world.step(loss, size), &world.step(loss, world.pairs.len()));
        }
    }

    #[test]
    fn the_order_of_the_pairs_says_nothing(
        (world, order) in world().prop_flat_map(|world| { let count = world.pairs.len(); (Just(world), permutation(count)) }),
    ) {
        let pairs = order.iter().map(|&index| world.pairs[index].clone()).collect();
        let shuffled = World { pairs, ..world.clone() };
        for (name, loss) in every_loss() {
            assert_same(name, &shuffled.step(loss, 4), &world.step(loss, 4));
        }
    }

    #[test]
    fn padding_changes_nothing(world in world(), by in 1usize..4, with in 1..V as u32) {
        let batches = whole(&world.pairs);
        let [batch] = &batches[..] else { unreachable!() };
        let padded = PairBatch {
            completions: Completions {
                prompt: widened(&batch.completions.prompt, by, with, true),
                response: widened(&batch.completions.response, by, with, false),
            },
            ..batch.clone()
        };
        for (name, loss) in every_loss() {
            let wide = step(&PairObjective::new(loss), &world.policy, std::slice::from_ref(&padded));
            assert_same(name, &wide, &world.step(loss, world.pairs.len()));
        }
    }

    #[test]
    fn robust_dpo_is_unbiased_under_flipped_labels(
        margins in proptest::collection::vec(-20.0..20.0f64, 6),
        beta in 0.05..1.0f64,
        rate in 0.01..0.45f64,
    ) {
        // Seen labels are flipped at the rate that is believed; the mean over flips is plain DPO of the true label.
        let of = |label: f64| robust_dpo(tracked_double(&margins[..]), &tracked_double([label; 6]), beta, rate);
        let mean = of(1.0) * (1.0 - rate) + of(0.0) * rate;
        let plain = dpo(tracked_double(&margins[..]), &tracked_double([1.0; 6]), beta, 0.0);
        // At a rate of 0.45 errors are multiplied by ten, and losses reach 20.
        assert_close(mean, plain, 1e-12);
    }
}

/// More columns that do not count, filled with an ordinary token: before a prompt, behind a response.
fn widened(batch: &TokenBatch, by: usize, with: u32, left: bool) -> TokenBatch {
    let [rows, _] = batch.ids.dims();
    let hidden = batch.mask.clone().bool_not();
    let ids = batch.ids.clone().mask_fill(hidden, i64::from(with));
    let filler: Tensor<2, Int> = Tensor::full([rows, by], i64::from(with), &device());
    let false_mask: Tensor<2, Bool> = Tensor::full([rows, by], false, &device());
    let (ids, mask) = match left {
        true => (vec![filler, ids], vec![false_mask, batch.mask.clone()]),
        false => (vec![ids, filler], vec![batch.mask.clone(), false_mask]),
    };
    TokenBatch { ids: Tensor::cat(ids, 1), mask: Tensor::cat(mask, 1) }
}

#[test]
fn gradients_agree_with_finite_differences() {
    let mut pairs = crate::world::pairs();
    pairs[1].likelihood = [-0.25, 0.5];
    pairs[4].win_rates = [0.375, 0.75]; // against other opponents than each other
    let batch = in_double(&whole(&pairs)[0]);
    let model = policy().to_double();
    for (name, loss) in every_loss() {
        println!("{name}");
        let objective = PairObjective { loss, scale: 1.5 };
        // In f64 differences are good to 1e-9 beside values of up to a hundred; no margin is at the hinge's kink (below).
        assert_module_gradients(&model, |model| objective.loss(model, &batch).value, 1e-7);
    }
}

#[test]
fn no_pair_sits_at_the_kink_of_the_hinge() {
    let hinge = every_loss().into_iter().find(|(name, _)| *name == "hinge").expect("a hinge").1;
    for pair in crate::world::pairs() {
        let margin = step(&PairObjective::new(hinge), &policy(), &whole(&[pair])).metric("rewards/margins");
        assert!((margin.abs() - 1.0).abs() > 1e-3, "{margin}");
    }
}

#[test]
fn win_rates_matter_to_sppo_and_to_no_other_loss() {
    let mut pairs = crate::world::pairs();
    let before: Vec<f64> = every_loss()
        .iter()
        .map(|(_, loss)| step(&PairObjective::new(*loss), &policy(), &whole(&pairs)).loss)
        .collect();
    pairs.iter_mut().for_each(|pair| pair.win_rates = [0.375, 0.5]);
    for ((name, loss), before) in every_loss().into_iter().zip(before) {
        let after = step(&PairObjective::new(loss), &policy(), &whole(&pairs)).loss;
        assert_eq!(after != before, matches!(loss, PairLoss::Sppo { .. }), "{name}");
    }
}

#[test]
fn dividing_by_lengths_is_noticed_only_where_lengths_differ() {
    // Answers of one token: IPO by lengths is IPO.
    let beta = align_core::number::Positive::literal(0.3);
    let mut pairs =
        vec![Pair::labelled(vec![1], vec![2], vec![3]), Pair::labelled(vec![0], vec![4], vec![1])];
    let losses = |pairs: &[Pair]| {
        [false, true].map(|length_normalized| {
            step(&PairObjective::new(PairLoss::Ipo { beta, length_normalized }), &policy(), &whole(pairs))
                .loss
        })
    };
    let [sums, means] = losses(&pairs);
    assert_eq!(sums, means);
    pairs[0].responses[1].push(4);
    let [sums, means] = losses(&pairs);
    assert!((sums - means).abs() > 1e-3, "{sums} and {means}");
}
