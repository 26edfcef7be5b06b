//! The checks themselves: they accept what is right and refuse what is wrong.

use std::panic::catch_unwind;

use align_core::divergence::Kl;
use align_core::{CausalLm, Draws, RewardFn};
use align_testkit::gradcheck::{assert_gradient, assert_module_gradients};
use align_testkit::statistics::{Mean, assert_frequencies, counts, pearson};
use align_testkit::{
    BigramLm, Values, assert_all_close, assert_close, device, double, fixtures, gradient, plain, strategies,
    tracked, train_device,
};
use burn::tensor::Tensor;
use proptest::prelude::*;

/// What a check says when it refuses.
fn complaint(check: impl FnOnce() + std::panic::UnwindSafe) -> String {
    let panic = catch_unwind(check).expect_err("expected the check to refuse");
    panic
        .downcast::<String>()
        .map_or_else(|panic| panic.downcast::<&str>().unwrap().to_string(), |text| *text)
}

#[test]
fn closeness_names_the_place_and_the_numbers() {
    assert_close(plain::<1>([1.0, 2.0]), [1.0, 2.25], 0.25);
    let message = complaint(|| assert_close([1.0, 2.0, 5.0], [1.0, 2.5, 9.0], 0.25));
    assert_eq!(message, "at index 1: found 2, expected 2.5, error 5e-1, tolerance 2.5e-1");
    assert!(complaint(|| assert_close(f64::NAN, f64::NAN, 1.0)).contains("found NaN"));
    assert!(complaint(|| assert_close([1.0], [1.0, 1.0], 1.0)).contains("as many numbers as expected"));
    assert_close(f64::INFINITY, f64::INFINITY, 0.0);
    assert_all_close([1000.0], [1009.0], 0.01, 0.0);
    complaint(|| assert_all_close([1000.0], [1011.0], 0.01, 0.0));
}

#[test]
fn the_gradient_check_accepts_a_right_gradient_and_refuses_a_wrong_one() {
    let at = plain::<2>([[0.3, -1.2], [2.0, 0.7]]);
    assert_gradient(|x| (x.clone().exp() * x).sum(), at.clone(), 1e-8);
    // Half of the dependence hidden from autodiff.
    let message = complaint(move || assert_gradient(|x| (x.clone().exp().detach() * x).sum(), at, 1e-8));
    assert!(message.starts_with("at index 0"), "{message}");
}

#[test]
fn the_module_check_does_the_same() {
    let model = BigramLm::random(3, &Draws::new(1), &train_device()).to_double();
    let all = model.enumerate(&[0], 2, None);
    assert_module_gradients(&model, |model| all.log_probs(model).square().mean(), 1e-7); // f32 scalars in backward
    let wrong = |model: &BigramLm| (all.log_probs(model) * all.log_probs(model).detach()).mean();
    let message = complaint(std::panic::AssertUnwindSafe(|| assert_module_gradients(&model, wrong, 1e-7)));
    assert!(message.starts_with("at index"), "{message}");
    let single = BigramLm::random(3, &Draws::new(1), &train_device());
    let check = || assert_module_gradients(&single, |model| model.table.val().sum(), 1e-7);
    assert!(complaint(std::panic::AssertUnwindSafe(check)).contains("parameter `table` must be in f64"));
}

#[test]
fn a_leaf_the_loss_does_not_reach_has_gradient_zero() {
    let (x, y) = (tracked::<2>([[1.0, 2.0]]), tracked::<2>([[3.0]]));
    assert_eq!(gradient(&x.sum(), &y), [0.0]);
}

#[test]
fn responses_end_at_the_stop_token_or_at_the_length() {
    let all = BigramLm::random(2, &Draws::new(1), &device()).enumerate(&[1], 2, Some(0));
    let mut responses = all.completions.response.rows();
    responses.sort();
    assert_eq!(responses, [vec![0], vec![1, 0], vec![1, 1]]);
    assert!(!all.is_empty());
    let without_stop = BigramLm::random(3, &Draws::new(1), &device()).enumerate(&[1], 3, None);
    assert_eq!(without_stop.len(), 27);
}

#[test]
fn expectations_are_those_of_the_table() {
    // One token after 0: p = (¼, ¾) under logits (0, log 3); the reward is the token.
    let rows = vec![vec![0.0, 3f32.ln()], vec![0.0, 0.0]];
    let model = BigramLm::from_logits(rows, &device());
    let all = model.enumerate(&[1, 0], 1, None);
    let last = RewardFn(|c: &align_core::Completions| {
        let tokens: Vec<f32> = c.response.rows().iter().map(|row| row[0] as f32).collect();
        plain::<1>(tokens.as_slice())
    });
    assert_close(all.expected_reward(&model, &last), 0.75, 1e-6); // f32
    // KL to the fair coin: log 2 − entropy.
    let fair = BigramLm::independent(&[0.0, 0.0], &device());
    let entropy = -(0.25f64 * 0.25f64.ln() + 0.75 * 0.75f64.ln());
    assert_close(all.divergence(&Kl::default(), &model, &fair), 2f64.ln() - entropy, 1e-6);
    assert_eq!(fair.vocab_size(), 2);
}

#[test]
fn means_and_frequencies_know_their_errors() {
    // 1, 2, 3, 4: mean 2.5, sample variance 5/3, standard error √(5/12).
    let mean = Mean::of(&[1.0, 2.0, 3.0, 4.0]);
    assert_close([mean.value, mean.standard_error], [2.5, (5f64 / 12.0).sqrt()], 1e-15);
    mean.assert_near(3.0, 1.0);
    assert!(complaint(move || mean.assert_near(3.5, 1.0)).contains("standard errors"));
    assert_eq!(counts([0, 2, 2], 3), [1, 0, 2]);
    assert_frequencies(&[480, 520], &[0.5, 0.5], 2.0);
    complaint(|| assert_frequencies(&[450, 550], &[0.5, 0.5], 2.0));
    complaint(|| assert_frequencies(&[1, 999], &[0.0, 1.0], 5.0));
    // (10² + 10²) / 50.
    assert_close(pearson(&[40, 60], &[0.5, 0.5]), 4.0, 1e-12);
}

#[test]
fn a_missing_fixture_is_named() {
    assert!(fixtures::workspace().join("Cargo.toml").exists());
    assert!(complaint(|| drop(fixtures::path("no such file"))).contains("expected the fixture"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn log_distributions_are_normalised(log_p in strategies::log_distribution(6)) {
        assert_close(log_p.iter().map(|p| p.exp()).sum::<f64>(), 1.0, 1e-12);
    }

    #[test]
    fn right_padded_masks_never_resume(mask in strategies::right_padded_mask(4, 5)) {
        prop_assert!(mask.iter().all(|row| row.len() == 5 && row.windows(2).all(|pair| pair[0] || !pair[1])));
    }

    #[test]
    fn values_are_read_row_by_row(rows in strategies::matrix(2, 3, 1.0)) {
        let tensor: Tensor<2> = double([[rows[0][0], rows[0][1], rows[0][2]], [rows[1][0], rows[1][1], rows[1][2]]]);
        prop_assert_eq!(tensor.values(), rows.concat());
    }
}
