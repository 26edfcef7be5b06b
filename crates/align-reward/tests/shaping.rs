//! Normalisation, rewards made of rewards, and labels flipped on purpose.

use align_core::number::NoiseRate;
use align_core::{Completions, Draws, PreferencePairs, Reward, RewardFn};
use align_reward::{
    Clipped, LabelFlips, LengthPenalized, NoStop, Normalized, ReferenceScores, Scaled, StopRequired, Target,
    WeightedSum, finite_scores,
};
use align_testkit::{assert_close, device, plain};
use burn::tensor::{Tensor, TensorData};
use proptest::prelude::*;

/// Scores the sum of the response's token ids.
fn id_sum() -> impl Reward + Clone {
    RewardFn(|c: &Completions| {
        let ids = c.response.ids.clone() * c.response.mask.clone().int();
        ids.sum_dim(1).squeeze_dim::<1>(1).float()
    })
}

fn completions(responses: &[&[u32]]) -> Completions {
    let rows: Vec<_> = responses.iter().map(|row| row.to_vec()).collect();
    Completions::from_rows(&vec![vec![1]; rows.len()], &rows, &device())
}

#[test]
fn the_reference_set_gets_mean_zero_and_deviation_one() {
    let batches = [completions(&[&[1], &[2, 1]]), completions(&[&[8]])];
    // Scores 1, 3, 8: mean 4, deviation √((9 + 1 + 16)/3).
    let deviation = (26.0f64 / 3.0).sqrt();
    let measured = ReferenceScores::measure(&id_sum(), &batches, "three responses").unwrap();
    assert_eq!((measured.rows, measured.mean), (3, 4.0));
    assert_close(measured.deviation, deviation, 1e-12);
    let scores = |target| -> Vec<f64> {
        let normalization = measured.normalization(target).unwrap();
        let reward = Normalized { reward: id_sum(), normalization };
        finite_scores(&reward, &batches).unwrap()
    };
    // f32
    assert_close(scores(Target::Mean), [-3.0, -1.0, 4.0], 1e-6);
    assert_close(
        scores(Target::MeanAndDeviation),
        [-3.0 / deviation, -1.0 / deviation, 4.0 / deviation],
        1e-6,
    );
}

#[test]
fn what_cannot_be_measured_is_an_error() {
    let message = |scores: &[f64]| {
        let measured =
            ReferenceScores::from_scores(scores, "").and_then(|m| m.normalization(Target::MeanAndDeviation));
        measured.unwrap_err().to_string()
    };
    assert_eq!(message(&[]), "no reference completions, expected at least one to measure the mean reward of");
    assert_eq!(
        message(&[0.5; 3]),
        "all 3 reference completions score 0.5 or nearly so, expected scores that differ, to bring their deviation to 1"
    );
    // 0.1 + 0.1 + 0.1 is not 0.3: a deviation by rounding alone would give a gain of 10¹⁶.
    assert!(message(&[0.1; 3]).starts_with("all 3 reference completions score 0.1"));
    assert_eq!(message(&[1.0, f64::INFINITY]), "the score of row 1 is inf, expected a finite number");
    assert_eq!(
        ReferenceScores::from_scores(&[0.1; 3], "").unwrap().normalization(Target::Mean).unwrap().gain,
        1.0
    );
}

#[test]
fn wrappers_nest_in_the_order_of_their_types() {
    let batch = completions(&[&[1], &[4]]);
    let clip_last = Clipped { reward: Scaled { reward: id_sum(), factor: -2.0 }, limit: 3.0 };
    let clip_first = Scaled { reward: Clipped { reward: id_sum(), limit: 3.0 }, factor: -2.0 };
    assert_close(clip_last.score(&batch), [-2.0, -3.0], 0.0);
    assert_close(clip_first.score(&batch), [-2.0, -6.0], 0.0);
}

#[test]
fn length_costs_beyond_what_is_free() {
    let batch = completions(&[&[1], &[1, 1], &[1, 1, 1, 1]]);
    let reward = LengthPenalized { reward: id_sum(), per_token: 0.25, free: 2 };
    assert_close(reward.score(&batch), [1.0, 2.0, 4.0 - 0.5], 0.0);
}

#[test]
fn only_a_stop_token_that_counts_is_a_stop() {
    // Id 0 is a stop here, and padding holds id 0 as well: the second row has none of its own.
    let batch = completions(&[&[3, 7, 2], &[3], &[3, 0], &[7]]);
    let stops = vec![0, 7];
    let subtract =
        StopRequired { reward: id_sum(), stop_token_ids: stops.clone(), without: NoStop::Subtract(1.0) };
    assert_close(subtract.score(&batch), [12.0, 2.0, 3.0, 7.0], 0.0);
    let replace = StopRequired { reward: id_sum(), stop_token_ids: stops, without: NoStop::Replace(-1.0) };
    assert_close(replace.score(&batch), [12.0, -1.0, 3.0, 7.0], 0.0);
    let none = StopRequired { reward: id_sum(), stop_token_ids: vec![], without: NoStop::Replace(-1.0) };
    assert_close(none.score(&batch), [-1.0; 4], 0.0);
}

#[test]
fn a_score_that_is_not_a_number_can_be_replaced() {
    let broken = RewardFn(|_: &Completions| plain([f32::NAN, 1.0]));
    let reward = StopRequired { reward: broken, stop_token_ids: vec![7], without: NoStop::Replace(-1.0) };
    assert_close(reward.score(&completions(&[&[3], &[7]])), [-1.0, 1.0], 0.0);
}

#[test]
fn sums_weigh_their_parts() {
    let constant = RewardFn(|c: &Completions| Tensor::ones([c.batch_size()], &device()));
    let sum = WeightedSum { parts: vec![(2.0, Box::new(id_sum())), (-0.5, Box::new(constant))] };
    assert_close(sum.score(&completions(&[&[1], &[4]])), [1.5, 7.5], 0.0);
}

/// Pairs whose chosen response is [row, 1] and whose rejected response is [row].
fn labelled(rows: u32) -> PreferencePairs {
    let prompts: Vec<_> = (0..rows).map(|row| vec![1; row as usize + 1]).collect();
    let responses =
        |longer: bool| (0..rows).map(|row| if longer { vec![row, 1] } else { vec![row] }).collect::<Vec<_>>();
    PreferencePairs {
        chosen: Completions::from_rows(&prompts, &responses(true), &device()),
        rejected: Completions::from_rows(&prompts, &responses(false), &device()),
        margin: Tensor::from_data(
            TensorData::new((0..rows).map(|x| x as f32).collect::<Vec<_>>(), [rows as usize]),
            &device(),
        ),
    }
}

#[test]
fn flips_exchange_the_sides_they_name_and_undo_themselves() {
    let pairs = labelled(40);
    let flips = LabelFlips::draw(0..40, NoiseRate::literal(0.25), &Draws::new(3));
    assert!(flips.count() > 0 && flips.count() < 40, "{}", flips.count());
    let flipped = flips.apply(&pairs);
    for (row, (chosen, rejected)) in
        flipped.chosen.response.rows().iter().zip(flipped.rejected.response.rows()).enumerate()
    {
        let (long, short) = if flips.flipped[row] { (&rejected, chosen) } else { (chosen, &rejected) };
        assert_eq!((long.len(), short.len()), (2, 1), "row {row}");
        assert_eq!(short[0], row as u32);
    }
    let back = flips.apply(&flipped);
    assert_eq!(back.chosen.response.rows(), pairs.chosen.response.rows());
    assert_eq!(back.rejected.prompt.rows(), pairs.rejected.prompt.rows());
    assert_close(back.margin, pairs.margin, 0.0);
}

#[test]
fn the_flipped_share_is_the_rate() {
    // n = 20 000, p = 0.25: five standard errors of 0.0031; seed 1.
    let flips = LabelFlips::draw(0..20_000, NoiseRate::literal(0.25), &Draws::new(1));
    assert!((flips.count() as f64 / 20_000.0 - 0.25).abs() < 5.0 * 0.0031, "{}", flips.count());
}

proptest! {
    #[test]
    fn a_flip_depends_on_its_own_key_alone(seed: u64, keys in prop::collection::vec(any::<u64>(), 1..20)) {
        let draw = |keys: &[u64], rate| LabelFlips::draw(keys.iter().copied(), rate, &Draws::new(seed)).flipped;
        let rate = NoiseRate::literal(0.4);
        let together = draw(&keys, rate);
        for (key, flipped) in keys.iter().zip(&together) {
            prop_assert_eq!(draw(&[*key], rate), vec![*flipped]);
        }
        // More noise flips what less noise flips, none and all at the ends.
        let more = draw(&keys, NoiseRate::literal(0.49));
        prop_assert!(together.iter().zip(&more).all(|(less, more)| !less || *more));
        prop_assert!(!draw(&keys, NoiseRate::literal(0.0)).contains(&true));
    }
}
