//! Calibration: the published case, its laws, and what is refused.

use align_superhf::calibration::{CalibrationError, Prediction, Reliability, brier_score, choice_confidence};
use proptest::prelude::*;

use crate::{close, count};

fn published_predictions() -> Vec<Prediction> {
    let confidences = [0.95, 0.85, 0.80, 0.62, 0.55, 0.40, 0.35, 0.30];
    let correct = [true, true, false, true, false, false, true, false];
    confidences
        .into_iter()
        .zip(correct)
        .map(|(confidence, correct)| Prediction { confidence, correct })
        .collect()
}

#[test]
fn calibration_errors_of_the_published_case() {
    let reliability = Reliability::new(&published_predictions(), count(5)).expect("confidences");
    let bins: Vec<(usize, usize)> = reliability.bins.iter().map(|bin| (bin.index, bin.count)).collect();
    assert_eq!(bins, [(1, 2), (2, 2), (3, 1), (4, 3)]);
    for (bin, gap) in reliability.bins.iter().zip([0.175, -0.475, 0.38, -0.2]) {
        close(bin.gap(), gap, 1e-15); // a mean of at most three numbers, and a difference
    }
    close(reliability.expected_error(), 0.285, 1e-15);
    close(reliability.root_mean_square_error(), 0.31162879, 5e-9); // printed to eight decimals
    close(reliability.maximum_error(), 0.475, 1e-15);
    close(brier_score(&published_predictions()).expect("confidences"), 0.22305, 1e-15);
}

#[test]
fn a_confidence_on_an_edge_belongs_to_the_bin_above_and_one_to_the_last() {
    let bin = |confidence, bins| {
        let prediction = Prediction { confidence, correct: true };
        Reliability::new(&[prediction], count(bins)).expect("a confidence").bins[0].index
    };
    assert_eq!([0.0, 0.2, 0.4, 0.8, 1.0].map(|confidence| bin(confidence, 5)), [0, 1, 2, 4, 4]);
    assert_eq!(bin(1.0, 1), 0);
    assert_eq!(bin(0.5, 2), 1);
}

#[test]
fn confidences_that_are_no_probabilities_are_refused_by_place_and_value() {
    let of = |confidences: &[f64]| {
        let predictions: Vec<Prediction> =
            confidences.iter().map(|&confidence| Prediction { confidence, correct: true }).collect();
        let error = Reliability::new(&predictions, count(10)).unwrap_err();
        let same = brier_score(&predictions).unwrap_err();
        assert_eq!(error.to_string(), same.to_string());
        error
    };
    assert_eq!(of(&[]), CalibrationError::NoPredictions);
    assert_eq!(of(&[]).to_string(), "found no predictions, expected at least one");
    assert_eq!(of(&[0.5, 1.5]), CalibrationError::Confidence { index: 1, found: 1.5 });
    for (found, written) in [(-0.25, "-0.25"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let message = format!("the confidence of prediction 2 is {written}, expected a number in [0, 1]");
        assert_eq!(of(&[0.0, 1.0, found]).to_string(), message);
    }
}

#[test]
fn a_choice_is_as_sure_as_its_share_of_the_options() {
    let logs = |probabilities: &[f64]| probabilities.iter().map(|p| p.ln()).collect::<Vec<f64>>();
    let (choice, confidence) = choice_confidence(&logs(&[0.01, 0.03, 0.02, 0.04]));
    assert_eq!(choice, 3);
    close(confidence, 0.4, 1e-15); // four exponentials near one
    // What all options share cancels, however small; equal options go to the first; one option is certain.
    assert_eq!(choice_confidence(&[-900.0, -900.0]), (0, 0.5));
    assert_eq!(choice_confidence(&[-3.0]), (0, 1.0));
    assert_eq!(choice_confidence(&[f64::NEG_INFINITY, -5.0]), (1, 1.0));
}

#[test]
#[should_panic(expected = "expected a log-probability below infinity, found NaN for option 1")]
fn a_choice_with_an_option_that_is_no_number_panics() {
    choice_confidence(&[-1.0, f64::NAN]);
}

#[test]
#[should_panic(expected = "expected an option with a finite log-probability, found []")]
fn a_choice_without_options_panics() {
    choice_confidence(&[]);
}

fn predictions() -> impl Strategy<Value = Vec<Prediction>> {
    let prediction =
        (0.0f64..=1.0, any::<bool>()).prop_map(|(confidence, correct)| Prediction { confidence, correct });
    prop::collection::vec(prediction, 1..40)
}

proptest! {
    #[test]
    fn calibration_errors_are_ordered_and_refine_with_the_bins((predictions, bins) in (predictions(), 1usize..12)) {
        let of = |bins| Reliability::new(&predictions, count(bins)).expect("confidences");
        let coarse = of(bins);
        prop_assert_eq!(coarse.bins.iter().map(|bin| bin.count).sum::<usize>(), predictions.len());
        for bin in &coarse.bins {
            // A mean may round across an edge.
            prop_assert!(bin.confidence >= bin.index as f64 / bins as f64 - 1e-15);
            prop_assert!(bin.confidence <= (bin.index + 1) as f64 / bins as f64 + 1e-15);
        }
        let (expected, square, most) =
            (coarse.expected_error(), coarse.root_mean_square_error(), coarse.maximum_error());
        // Jensen, then the largest of what is averaged; sums of at most twelve numbers.
        prop_assert!(expected <= square + 1e-15 && square <= most + 1e-15);
        // Every bin cut in two: by the triangle inequality, gaps that cancelled no longer do. 2B·c rounds as B·c.
        prop_assert!(expected <= of(2 * bins).expected_error() + 1e-14);
        // With one bin: |accuracy − mean confidence|.
        let n = predictions.len() as f64;
        let difference: f64 = predictions.iter().map(|p| f64::from(u8::from(p.correct)) - p.confidence).sum();
        close(of(1).expected_error(), difference.abs() / n, 1e-14);
    }

    #[test]
    fn the_square_of_the_calibration_error_is_within_the_brier_score(predictions in predictions()) {
        // Within a bin (acc − conf)² ≤ mean of (correct − confidence)², by Jensen.
        let rms = Reliability::new(&predictions, count(7)).expect("confidences").root_mean_square_error();
        prop_assert!(rms * rms <= brier_score(&predictions).expect("confidences") + 1e-14);
    }
}
