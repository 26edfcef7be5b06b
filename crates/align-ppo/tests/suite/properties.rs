//! Laws.

use align_ppo::rewards::{MissingStop, RunningMoments, penalize_missing_stop, token_rewards};
use align_ppo::surrogate::{ClipRange, RatioSums, clipped_surrogate};
use align_ppo::value::{clipped_value_loss, explained_variance};
use align_testkit::strategies::{matrix, right_padded_mask};
use align_testkit::{assert_close, double};
use burn::tensor::{Bool, Tensor, TensorData};
use proptest::prelude::*;

const ROWS: usize = 3;
const WIDTH: usize = 5;

fn tensor(rows: &[Vec<f64>]) -> Tensor<2> {
    double(TensorData::new(rows.concat(), [rows.len(), rows[0].len()]))
}

fn counts(rows: &[Vec<bool>]) -> Tensor<2, Bool> {
    align_testkit::mask(TensorData::new(rows.concat(), [rows.len(), rows[0].len()]))
}

/// The same numbers with something else under the mask.
fn polluted(rows: &[Vec<f64>], mask: &[Vec<bool>], garbage: f64) -> Tensor<2> {
    let row = |(row, mask): (&Vec<f64>, &Vec<bool>)| -> Vec<f64> {
        row.iter().zip(mask).map(|(x, counts)| if *counts { *x } else { garbage }).collect()
    };
    tensor(&rows.iter().zip(mask).map(row).collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Item 11: what a row is paid is its score minus its penalties, and the score stands at length − 1.
    #[test]
    fn rewards_of_a_row_sum_to_score_minus_penalty(
        penalties in matrix(ROWS, WIDTH, 2.0),
        mask in right_padded_mask(ROWS, WIDTH),
        scores in proptest::collection::vec(-5.0..5.0f64, ROWS),
    ) {
        let paid = token_rewards(&scores, tensor(&penalties), &counts(&mask));
        let paid: Vec<f64> = paid.to_data().iter::<f64>().collect();
        for row in 0..ROWS {
            let length = mask[row].iter().filter(|counts| **counts).count();
            let found = &paid[row * WIDTH..(row + 1) * WIDTH];
            let penalty: f64 = penalties[row][..length].iter().sum();
            let score = if length == 0 { 0.0 } else { scores[row] };
            prop_assert!((found.iter().sum::<f64>() - (score - penalty)).abs() < 1e-9); // f64 sums of five numbers
            for (t, found) in found.iter().enumerate() {
                let score = if t + 1 == length { scores[row] } else { 0.0 };
                let expected = if t < length { score - penalties[row][t] } else { 0.0 };
                prop_assert!((found - expected).abs() < 1e-12, "row {row}, token {t}: {found} vs {expected}");
            }
        }
    }

    /// What stands under the mask enters nothing: neither losses nor statistics, not even as an infinity.
    #[test]
    fn garbage_under_the_mask_changes_nothing(
        log_ratio in matrix(ROWS, WIDTH, 0.5),
        advantages in matrix(ROWS, WIDTH, 2.0),
        mask in right_padded_mask(ROWS, WIDTH),
    ) {
        let counts = counts(&mask);
        let clip = ClipRange { lower: 0.2, upper: 0.3, dual: Some(1.5) };
        let loss = |garbage| {
            let (l, a) = (polluted(&log_ratio, &mask, garbage), polluted(&advantages, &mask, garbage));
            let value = clipped_value_loss(l.clone(), a.clone(), a.clone(), &counts, Some(0.2), 7.0);
            (clipped_surrogate(l.clone(), a.clone(), &counts, clip, 7.0).into_scalar::<f64>(),
             value.into_scalar::<f64>(), RatioSums::of(&l, &a, &counts, clip), explained_variance(&l, &a, &counts))
        };
        let reference = loss(0.0);
        prop_assert_eq!(reference, loss(f64::INFINITY));
        prop_assert_eq!(reference, loss(f64::NAN));
    }

    /// Item 22: sums over microbatches divided by the tokens of the step are the loss of the step.
    #[test]
    fn microbatches_add_up(
        log_ratio in matrix(ROWS, WIDTH, 0.5),
        advantages in matrix(ROWS, WIDTH, 2.0),
        mask in right_padded_mask(ROWS, WIDTH),
    ) {
        let clip = ClipRange::symmetric(0.2);
        let tokens = mask.iter().flatten().filter(|counts| **counts).count().max(1) as f64;
        let loss = |rows: std::ops::Range<usize>| {
            let (l, a) = (tensor(&log_ratio[rows.clone()]), tensor(&advantages[rows.clone()]));
            let counts = counts(&mask[rows]);
            (clipped_surrogate(l.clone(), a.clone(), &counts, clip, tokens).into_scalar::<f64>(),
             RatioSums::of(&l, &a, &counts, clip))
        };
        let (whole, sums) = loss(0..ROWS);
        let parts: Vec<_> = (0..ROWS).map(|row| loss(row..row + 1)).collect();
        prop_assert!((whole - parts.iter().map(|(loss, _)| loss).sum::<f64>()).abs() < 1e-12);
        let added = parts.iter().fold(RatioSums::default(), |sum, (_, part)| sum.plus(*part));
        prop_assert!((sums.ratio_variance() - added.ratio_variance()).abs() < 1e-9);
        prop_assert!((sums.approx_kl() - added.approx_kl()).abs() < 1e-9);
        prop_assert_eq!(sums.clipped, added.clipped);
    }

    /// At the policy that drew the rollout the loss is minus the mean advantage and nothing is clipped.
    #[test]
    fn at_ratio_one_the_loss_is_minus_the_mean_advantage(advantages in matrix(ROWS, WIDTH, 2.0)) {
        let all = align_testkit::all_true(ROWS, WIDTH);
        let zero = Tensor::zeros_like(&tensor(&advantages));
        let tokens = (ROWS * WIDTH) as f64;
        let mean = advantages.iter().flatten().sum::<f64>() / tokens;
        for dual in [None, Some(3.0)] {
            let clip = ClipRange { dual, ..ClipRange::symmetric(0.2) };
            let loss = clipped_surrogate(zero.clone(), tensor(&advantages), &all, clip, tokens);
            assert_close(loss, [-mean], 1e-12);
            let sums = RatioSums::of(&zero, &tensor(&advantages), &all, clip);
            prop_assert_eq!((sums.ratio_mean(), sums.clip_fraction(), sums.approx_kl()), (1.0, 0.0, 0.0));
        }
    }

    /// Welford's recurrence gives the sample deviation, in whatever portions the numbers come.
    #[test]
    fn running_moments_do_not_depend_on_portions(values in proptest::collection::vec(-5.0..5.0f64, 2..20), cut in 0usize..20) {
        let cut = cut.min(values.len());
        let mut portions = RunningMoments::default();
        portions.update(&values[..cut]);
        portions.update(&values[cut..]);
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64;
        prop_assert!((portions.standard_deviation() - variance.sqrt()).abs() < 1e-9);
    }

    /// A response that stopped keeps its score under every rule.
    #[test]
    fn stopping_is_never_punished(scores in proptest::collection::vec(-5.0..5.0f64, 4), by in 0.0..3.0f64) {
        for rule in [MissingStop::Keep, MissingStop::Subtract(by), MissingStop::Replace(-by)] {
            prop_assert_eq!(penalize_missing_stop(&scores, &[true; 4], rule), scores.clone());
        }
    }
}
