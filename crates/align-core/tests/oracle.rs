//! Asking a preference oracle: what passes, what is refused and how it is named, and both orders averaged.

use std::sync::Mutex;

use align_core::oracle::ANTISYMMETRY_TOLERANCE;
use align_core::{
    BradleyTerry, Completions, OracleError, OrderAveraged, Preference, PreferenceFn, PreferenceMixture,
    RewardFn, check_antisymmetry, checked_preferences,
};
use align_testkit::{Values, assert_close, device};
use burn::tensor::{Tensor, TensorData};
use proptest::prelude::*;

/// Answers of one token to one prompt.
fn answers(tokens: &[u32]) -> Completions {
    let rows: Vec<Vec<u32>> = tokens.iter().map(|&token| vec![token]).collect();
    Completions::from_rows(&vec![vec![9]; tokens.len()], &rows, &device())
}

fn tensor(values: Vec<f32>) -> Tensor<1> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), &device())
}

/// A preference from a function of the two tokens.
fn by_tokens(p: impl Fn(u32, u32) -> f32 + Send + Sync) -> impl Preference {
    PreferenceFn(move |first: &Completions, second: &Completions| {
        let (first, second) = (first.response.rows(), second.response.rows());
        tensor(first.iter().zip(&second).map(|(a, b)| p(a[0], b[0])).collect())
    })
}

/// Answers from a list, whatever is asked, and says why it failed.
struct Scripted {
    answers: Vec<f32>,
    reason: Mutex<Option<String>>,
}

impl Scripted {
    fn new(answers: &[f32], reason: Option<&str>) -> Self {
        Self { answers: answers.to_vec(), reason: Mutex::new(reason.map(str::to_owned)) }
    }
}

impl Preference for Scripted {
    fn prefer(&self, _: &Completions, _: &Completions) -> Tensor<1> {
        tensor(self.answers.clone())
    }

    fn take_failure(&self) -> Option<String> {
        self.reason.lock().unwrap().take()
    }
}

#[test]
fn microbatches_change_nothing_but_the_number_of_questions() {
    let asked = Mutex::new(Vec::new());
    let oracle = PreferenceFn(|first: &Completions, second: &Completions| {
        asked.lock().unwrap().push(first.batch_size());
        let ids = |side: &Completions| side.response.ids.clone().float().squeeze_dim::<1>(1);
        (ids(first) - ids(second)) / 16.0 + 0.5
    });
    let (first, second) = (answers(&[1, 2, 3, 4, 5]), answers(&[5, 4, 3, 2, 1]));
    // Sixteenths are exact.
    let expected = [0.25, 0.375, 0.5, 0.625, 0.75];
    for (microbatch, sizes) in [(1, vec![1; 5]), (2, vec![2, 2, 1]), (5, vec![5]), (64, vec![5])] {
        asked.lock().unwrap().clear();
        assert_eq!(checked_preferences(&oracle, &first, &second, microbatch).unwrap(), expected);
        assert_eq!(*asked.lock().unwrap(), sizes, "microbatch {microbatch}");
    }
}

#[test]
fn an_answer_that_is_no_probability_is_named_by_its_row_in_the_whole_batch() {
    let first = answers(&[0, 0, 0, 7]);
    for (wrong, said) in
        [(1.5, "1.5"), (-0.25, "-0.25"), (f32::NAN, "NaN"), (f32::INFINITY, "inf"), (1.0001, "1.0001")]
    {
        let oracle = by_tokens(move |a, _| if a == 7 { wrong } else { 0.5 });
        let error = checked_preferences(&oracle, &first, &answers(&[0; 4]), 2).unwrap_err();
        let OracleError::NotAProbability { row, found } = error.clone() else { panic!("{error}") };
        assert_eq!((row, found.total_cmp(&f64::from(wrong))), (3, std::cmp::Ordering::Equal));
        let message = error.to_string();
        assert!(message.starts_with("the oracle's preference for row 3 is"), "{message}");
        assert!(message.contains(said) && message.ends_with("expected a number in [0, 1]"), "{message}");
    }
}

#[test]
fn the_ends_are_probabilities_and_rounding_is_brought_to_them() {
    // 1 + 1.2e-7 is the next f32 after 1; -1e-7 is what the difference of two sums may leave.
    let oracle = Scripted::new(&[0.0, 1.0, 1.0 + f32::EPSILON, -1e-7], None);
    let found = checked_preferences(&oracle, &answers(&[0; 4]), &answers(&[0; 4]), 4).unwrap();
    assert_eq!(found, [0.0, 1.0, 1.0, 0.0]);
    // Weights that do not add up to 1 in f32: whatever the mixture of certain criteria gives is accepted.
    for parts in 1..40 {
        let certain = |_| -> (f64, Box<dyn Preference>) { (0.1, Box::new(by_tokens(|_, _| 1.0))) };
        let mixture = PreferenceMixture::new((0..parts).map(certain).collect());
        let found = checked_preferences(&mixture, &answers(&[0]), &answers(&[0]), 1).unwrap();
        assert!((1.0 - 1e-6..=1.0).contains(&found[0]), "{parts} parts give {}", found[0]);
    }
}

#[test]
fn a_failed_oracle_gives_its_reason() {
    let oracle = Scripted::new(&[0.5, f32::NAN, f32::NAN], Some("the server is gone"));
    let error = checked_preferences(&oracle, &answers(&[0; 3]), &answers(&[0; 3]), 3).unwrap_err();
    assert_eq!(error.to_string(), "the oracle's preference for row 1 is NaN: the server is gone");
    assert!(matches!(error, OracleError::Failed { row: 1, .. }));
    // The reason is that of one failure.
    let error = checked_preferences(&oracle, &answers(&[0; 3]), &answers(&[0; 3]), 3).unwrap_err();
    assert!(matches!(error, OracleError::NotAProbability { row: 1, .. }), "{error}");
}

#[test]
fn a_wrong_number_of_answers_is_named() {
    let oracle = Scripted::new(&[0.5, 0.5], None);
    let error = checked_preferences(&oracle, &answers(&[0; 5]), &answers(&[0; 5]), 2).unwrap_err();
    assert_eq!(error, OracleError::Count { row: 4, expected: 1, found: 2 });
}

#[test]
#[should_panic(expected = "as many second answers as first ones")]
fn sides_of_different_size_are_a_bug() {
    let _ = checked_preferences(&by_tokens(|_, _| 0.5), &answers(&[0; 2]), &answers(&[0; 3]), 2);
}

#[test]
#[should_panic(expected = "a microbatch holds at least one pair")]
fn an_empty_microbatch_is_a_bug() {
    let _ = checked_preferences(&by_tokens(|_, _| 0.5), &answers(&[0]), &answers(&[0]), 0);
}

#[test]
fn a_liking_for_a_place_is_refused_where_it_is_strongest() {
    // Row 1 leans by 1/32 towards what comes first, row 2 by 1/8 away from it; binary fractions are exact.
    let lean = |a: u32, b: u32| match a.max(b) {
        1 => 1.0 / 64.0,
        2 => -1.0 / 16.0,
        _ => 0.0,
    };
    let oracle = by_tokens(move |a, b| 0.5 + lean(a, b));
    let (first, second) = (answers(&[0, 1, 2]), answers(&[0, 0, 0]));
    let error = check_antisymmetry(&oracle, &first, &second, ANTISYMMETRY_TOLERANCE).unwrap_err();
    let expected = OracleError::NotAntisymmetric {
        row: 2,
        forward: 0.4375,
        backward: 0.4375,
        excess: -0.125,
        tolerance: 1e-3,
    };
    assert_eq!(error, expected);
    assert_eq!(
        error.to_string(),
        "the oracle is not antisymmetric: the preferences for row 2 are 0.4375 and, exchanged, 0.4375, which is -0.125 off a sum of 1, expected at most 0.001; average both orders"
    );
    // What is tolerated is the caller's.
    check_antisymmetry(&oracle, &first, &second, 0.125).unwrap();
    let error = check_antisymmetry(&oracle, &first, &second, 0.124).unwrap_err();
    assert!(matches!(error, OracleError::NotAntisymmetric { row: 2, .. }));
    check_antisymmetry(&OrderAveraged(oracle), &first, &second, 0.0).unwrap();
}

#[test]
fn a_reward_is_antisymmetric_and_a_broken_oracle_is_refused_in_either_order() {
    let reward = RewardFn(|c: &Completions| c.response.ids.clone().float().squeeze_dim::<1>(1));
    let (first, second) = (answers(&[0, 3, 40]), answers(&[1, 3, 0]));
    // Two sigmoids of f32, each rounded once.
    check_antisymmetry(&BradleyTerry(reward), &first, &second, 1e-6).unwrap();
    for broken in [(2, 5), (5, 2)] {
        let oracle = by_tokens(move |a, b| if (a, b) == broken { f32::NAN } else { 0.5 });
        let error = check_antisymmetry(&oracle, &answers(&[1, 2]), &answers(&[1, 5]), 1e-3).unwrap_err();
        assert!(matches!(error, OracleError::NotAProbability { row: 1, .. }), "{error}");
    }
}

#[test]
fn averaging_both_orders_is_that_computed_by_hand() {
    // T11 of the description of INPO: logits (A, B) of (2.0, 1.0), and of (0.4, 0.9) with the answers exchanged.
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    let judge = by_tokens(move |a, b| if a < b { sigmoid(2.0 - 1.0) } else { sigmoid(0.4 - 0.9) });
    let (y1, y2) = (answers(&[1]), answers(&[2]));
    assert_close(judge.prefer(&y1, &y2), 0.731058579, 1e-6); // f32
    assert_close(1.0 - judge.prefer(&y2, &y1).values()[0], 0.622459331, 1e-6);
    let averaged = OrderAveraged(judge);
    assert_close(averaged.prefer(&y1, &y2), 0.676758955, 1e-6);
    assert_close(averaged.prefer(&y2, &y1), 1.0 - 0.676758955, 1e-6);
}

#[test]
fn averaging_forwards_what_the_judge_says() {
    struct Talking;
    impl Preference for Talking {
        fn prefer(&self, first: &Completions, _: &Completions) -> Tensor<1> {
            tensor(vec![f32::NAN; first.batch_size()])
        }
        fn take_metrics(&self) -> Vec<(String, f64)> {
            vec![("questions".into(), 2.0)]
        }
        fn take_failure(&self) -> Option<String> {
            Some("no answer".into())
        }
    }
    let averaged = OrderAveraged(Talking);
    assert_eq!(averaged.take_metrics(), [("questions".to_owned(), 2.0)]);
    let error = checked_preferences(&averaged, &answers(&[0]), &answers(&[0]), 1).unwrap_err();
    assert!(matches!(error, OracleError::Failed { reason, .. } if reason == "no answer"));
}

proptest! {
    #[test]
    fn averaging_makes_any_table_antisymmetric_and_leaves_an_antisymmetric_one_alone(
        table in prop::collection::vec(0.0f32..=1.0, 16),
    ) {
        let tokens: Vec<(u32, u32)> = (0..4).flat_map(|a| (0..4).map(move |b| (a, b))).collect();
        let first = answers(&tokens.iter().map(|pair| pair.0).collect::<Vec<_>>());
        let second = answers(&tokens.iter().map(|pair| pair.1).collect::<Vec<_>>());
        let any = table.clone();
        let averaged = OrderAveraged(by_tokens(move |a, b| any[(4 * a + b) as usize]));
        // Two roundings of f32 in each order.
        prop_assert!(check_antisymmetry(&averaged, &first, &second, 2.5e-7).is_ok());
        let half = move |a: u32, b: u32| match a.cmp(&b) {
            std::cmp::Ordering::Less => table[(4 * a + b) as usize],
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Greater => 1.0 - table[(4 * b + a) as usize],
        };
        let oracle = by_tokens(half);
        let plain = oracle.prefer(&first, &second).values();
        for (averaged, plain) in OrderAveraged(oracle).prefer(&first, &second).values().iter().zip(plain) {
            prop_assert!((averaged - plain).abs() < 2.5e-7, "{averaged} vs {plain}");
        }
    }
}
