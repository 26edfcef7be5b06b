//! Nash-MD's step.

use align_core::Completions;
use align_nash::{NashMdObjective, ReinforceBatch};
use align_testkit::{assert_close, device, double, gradient};
use burn::tensor::Tensor;

use crate::world::{Step, policy, reference, step, sums};

/// How often each answer of two tokens beats the mixture's, in the order in which they are enumerated: numbers in [0, 1].
fn win_rates(count: usize) -> Vec<f64> {
    (0..count).map(|answer| (answer * 7 % 16) as f64 / 16.0).collect()
}

/// The step of one answer, in f64.
fn of_one_answer(beta: f64, prompt: &[u32], answer: &[u32], win_rate: f64) -> Step {
    let completions = Completions::from_rows(&[prompt.to_vec()], &[answer.to_vec()], &device());
    let reference = sums(&reference().to_double(), &completions);
    let batch = ReinforceBatch { completions, reference, preference: double([win_rate]) };
    step(&NashMdObjective { beta }, &policy().to_double(), &[batch])
}

#[test]
fn its_expectation_is_the_gradient_of_the_regularised_win_rate() {
    // Over every answer of two tokens: Σ π(y) (step of y) = −∇ [Σ π(y) P(y) − β KL(π‖π_ref)], the right side by autodiff.
    // What a token does to the log-ratios after it is in it, so multiplying token by token would fail here.
    let (beta, prompt) = (0.7, [2]);
    let model = policy().to_double();
    let answers = model.enumerate(&prompt, 2, None);
    let rates = win_rates(answers.len());
    let log_probs = answers.log_probs(&model);
    let probabilities: Vec<f64> = log_probs.to_data().iter::<f64>().map(f64::exp).collect();
    let log_ratios: Tensor<1> = log_probs.clone() - answers.log_probs(&reference().to_double());
    let value = (log_probs.exp() * (double(&rates[..]) - log_ratios * beta)).sum();
    let exact: Vec<f64> = gradient(&value, &model.table.val()).iter().map(|slope| -slope).collect();

    let mut expected = vec![0.0; exact.len()];
    for ((answer, rate), p) in answers.completions.response.rows().iter().zip(&rates).zip(probabilities) {
        let found = of_one_answer(beta, &prompt, answer, *rate);
        expected.iter_mut().zip(found.gradient).for_each(|(sum, slope)| *sum += p * slope);
    }
    assert_close(expected, exact, 1e-13); // 25 roundings of f64
}

#[test]
fn an_answer_that_ties_and_sits_on_the_reference_moves_nothing() {
    // The bracket is P − ½ − β log π/π_ref; with β = 0 only the win rate is left.
    let tie = of_one_answer(0.0, &[1], &[0, 3], 0.5);
    assert_eq!(tie.gradient, vec![0.0; 25]);
    let completions = Completions::from_rows(&[vec![1]], &[vec![0, 3]], &device());
    let model = policy().to_double();
    let batch =
        ReinforceBatch { reference: sums(&model, &completions), completions, preference: double([0.5]) };
    assert_close(step(&NashMdObjective { beta: 3.0 }, &model, &[batch]).gradient, vec![0.0; 25], 1e-15);
}

#[test]
fn beta_and_the_win_rate_pull_as_the_bracket_says() {
    let of = |beta: f64, rate: f64| of_one_answer(beta, &[1], &[0, 3], rate);
    // The gradient of log π(y), from a step whose bracket is −½.
    let log_prob: Vec<f64> = of(0.0, 0.0).gradient.iter().map(|slope| 2.0 * slope).collect();
    let log_ratio = of(0.0, 0.0).metric("loss/kl");
    for (beta, rate) in [(0.3, 0.0), (0.3, 1.0), (2.0, 0.25)] {
        let bracket = rate - 0.5 - beta * log_ratio;
        let expected: Vec<f64> = log_prob.iter().map(|slope| -bracket * slope).collect();
        let found = of(beta, rate);
        assert_close(found.gradient, expected, 1e-14); // a few roundings
        assert_eq!(found.metrics.get("rewards/probabilities"), Some(rate));
    }
}
