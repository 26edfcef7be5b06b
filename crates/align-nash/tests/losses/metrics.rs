//! What pair losses report.

use align_core::number::{Finite, Positive};
use align_nash::{Pair, PairLoss, PairObjective, cache_anchors};
use align_testkit::{assert_close, device};

use crate::world::{V, policy, reference, step, sums, whole};

/// The metrics of one loss over pairs.
fn metric(loss: PairLoss, pairs: &[Pair], name: &str) -> f64 {
    step(&PairObjective::new(loss), &policy(), &whole(pairs)).metric(name)
}

/// log π and log π_ref of both answers, written out.
fn written_out(pair: &Pair) -> [(f64, f64); 2] {
    let batch = &whole(std::slice::from_ref(pair))[0];
    let both = [sums(&policy(), &batch.completions), sums(&reference(), &batch.completions)];
    let [policy, reference] = both.map(|sums| sums.to_data().iter::<f64>().collect::<Vec<_>>());
    [0, 1].map(|side| (policy[side], reference[side]))
}

#[test]
fn rewards_are_beta_times_log_ratios_of_the_likelier_and_the_less_likely_answer() {
    let mut pair = Pair::compared(vec![1, 2], [vec![3, 4, 0], vec![4]], 0.75);
    cache_anchors(&reference(), std::slice::from_mut(&mut pair), 1, &device()).expect("finite");
    let [(first, first_ref), (second, second_ref)] = written_out(&pair);
    let beta = 0.1;
    for (preference, sign) in [(0.75, 1.0), (0.25, -1.0)] {
        pair.preference = preference;
        let found = |name: &str| metric(PairLoss::default(), std::slice::from_ref(&pair), name);
        let ratios = [first - first_ref, second - second_ref];
        let [chosen, rejected] = if sign > 0.0 { ratios } else { [ratios[1], ratios[0]] };
        // Differences of sums of three numbers in f32.
        assert_close(found("rewards/chosen"), beta * chosen, 1e-6);
        assert_close(found("rewards/rejected"), beta * rejected, 1e-6);
        assert_close(found("rewards/margins"), beta * (chosen - rejected), 1e-6);
        assert_close(found("margin/mean"), chosen - rejected, 2e-6);
        let right = if chosen > rejected { 1.0 } else { 0.0 };
        assert_eq!(found("rewards/accuracies"), right);
        let [chosen, rejected] = if sign > 0.0 { [first, second] } else { [second, first] };
        assert_close([found("logps/chosen"), found("logps/rejected")], [chosen, rejected], 1e-6);
    }
}

#[test]
fn a_tie_is_right_by_half() {
    let mut pairs = crate::world::pairs();
    cache_anchors(&policy(), &mut pairs, 3, &device()).expect("finite");
    // The policy is its own anchor: every log-ratio is 0.
    assert_eq!(metric(PairLoss::default(), &pairs, "rewards/accuracies"), 0.5);
    assert_eq!(metric(PairLoss::default(), &pairs, "rewards/margins"), 0.0);
    // The same answer twice, beside two pairs of which one is right and the other, its mirror image, wrong.
    let mut pairs = vec![
        Pair::labelled(vec![0], vec![1, 2], vec![1, 2]),
        Pair::labelled(vec![0], vec![1, 2, 4], vec![3]),
        Pair::labelled(vec![0], vec![3], vec![1, 2, 4]),
        Pair::labelled(vec![2], vec![4], vec![4]),
    ];
    cache_anchors(&reference(), &mut pairs, 3, &device()).expect("finite");
    assert_eq!(metric(PairLoss::default(), &pairs, "rewards/accuracies"), 0.5);
    let found = metric(PairLoss::default(), &pairs[..2], "rewards/accuracies");
    assert!([0.25, 0.75].contains(&found), "a tie and a pair that is wrong or right: {found}");
}

#[test]
fn simpos_rewards_are_means_over_tokens_and_know_no_anchor() {
    let beta = 2.0;
    let loss = PairLoss::Simpo { beta: Positive::literal(beta), gamma: Finite::literal(1.0) };
    let mut pairs = vec![Pair::labelled(vec![1, 2], vec![3, 4, 0], vec![4])];
    let [(first, _), (second, _)] = written_out(&pairs[0]);
    for anchors in [[0.0; 2], [-7.0, 3.0]] {
        pairs[0].anchors = anchors;
        let found = |name: &str| metric(loss, &pairs, name);
        let expected = [beta * first / 3.0, beta * second];
        assert_close([found("rewards/chosen"), found("rewards/rejected")], expected, 1e-6); // f32
        assert_close(found("margin/mean"), (expected[0] - expected[1]) / beta, 1e-6);
        assert_close([found("logps/chosen"), found("logps/rejected")], [first, second], 1e-6);
    }
}

#[test]
fn only_simpo_needs_no_reference() {
    for (name, loss) in crate::world::every_loss() {
        let mut pairs = crate::world::pairs();
        let anchored = step(&PairObjective::new(loss), &policy(), &whole(&pairs)).loss;
        pairs.iter_mut().for_each(|pair| pair.anchors = [0.0, 0.5]);
        let moved = step(&PairObjective::new(loss), &policy(), &whole(&pairs)).loss != anchored;
        assert_eq!(moved, loss.needs_reference(), "{name}");
    }
}

#[test]
fn a_batch_is_first_answers_then_second_ones() {
    let pairs = crate::world::pairs();
    let batch = align_nash::PairBatch::new(&pairs.iter().collect::<Vec<_>>(), &device());
    assert_eq!(batch.pairs(), pairs.len());
    let both = |of: fn(&Pair, usize) -> f32| -> Vec<f32> {
        (0..2).flat_map(|side| pairs.iter().map(move |pair| of(pair, side))).collect()
    };
    let rows: Vec<Vec<u32>> =
        (0..2).flat_map(|side| pairs.iter().map(move |pair| pair.responses[side].clone())).collect();
    assert_eq!(batch.completions.response.rows(), rows);
    assert_close(batch.anchors.clone(), both(|pair, side| pair.anchors[side]), 0.0);
    assert_close(batch.lengths.clone(), both(|pair, side| pair.responses[side].len() as f32), 0.0);
    assert_close(batch.win_rates.clone(), both(|pair, side| pair.win_rates[side]), 0.0);
    let preference: Vec<f32> = pairs.iter().map(|pair| pair.preference).collect();
    assert_close(batch.preference.clone(), preference, 0.0);
    assert!(pairs.iter().all(|pair| pair.win_rates[0] + pair.win_rates[1] == 1.0));
    assert!(rows.iter().flatten().all(|&token| (token as usize) < V));
}
