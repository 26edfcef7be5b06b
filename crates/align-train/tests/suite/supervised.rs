use align_core::{Completions, Demonstrations};
use align_testkit::{BigramLm, device, train_device};
use align_train::{Algorithm, BatchesFn, Evaluation, Learner, NextToken, RunPlan, Supervised, evaluate, run};

use crate::common::{bits, brisk};

#[test]
fn a_uniform_model_has_perplexity_v_whatever_the_lengths() {
    let model = BigramLm::independent(&[0.0; 5], &device());
    let batches = [
        Completions::from_rows(&[vec![1]], &[vec![2, 3, 4]], &device()).into(),
        Completions::from_rows(&[vec![1, 1], vec![0]], &[vec![0], vec![1, 2]], &device()).into(),
    ];
    let metrics = evaluate(&model, &NextToken, &batches).unwrap();
    assert!((metrics.get("loss").unwrap() - 5f64.ln()).abs() < 1e-6); // f32 log-softmax
    assert!((metrics.get("perplexity").unwrap() - 5.0).abs() < 1e-5); // the same, exponentiated
    assert_eq!(metrics.get("count"), Some(6.0));
}

fn cycle() -> Demonstrations {
    Completions::from_rows(&[vec![0]], &[vec![1, 2, 0, 1, 2]], &device()).into()
}

#[test]
fn fine_tuning_learns_a_cycle_and_evaluates_on_time() {
    let model = BigramLm::independent(&[0.0; 3], &train_device());
    let learner = Learner::new(model, brisk(), 100).unwrap();
    let mut tuning = Supervised::new(learner, NextToken, BatchesFn(|_| Ok(vec![cycle()])))
        .with_evaluation(Evaluation { every: 50, batches: vec![cycle()] });
    let mut evaluated = Vec::new();
    let mut watch = align_train::ObserverFn(|step, metrics: &align_train::Metrics| {
        evaluated.extend(metrics.get("eval/loss").map(|loss| (step, loss)));
        align_train::Control::Continue
    });
    run(&mut tuning, &RunPlan::new(100), &mut [&mut watch]).unwrap();
    let steps: Vec<u64> = evaluated.iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, [50, 100]);
    // From ln 3 = 1.10; 100 Adam steps of 0.1 move a logit gap by up to 20, and 0.05 needs one of 3.7.
    assert!(evaluated[1].1 < 0.05 && evaluated[1].1 < evaluated[0].1, "{evaluated:?}");
}

#[test]
fn evaluating_changes_nothing() {
    let tuned = |every| {
        let model = BigramLm::independent(&[0.0, 0.5, 1.0], &train_device());
        let learner = Learner::new(model, brisk(), 10).unwrap();
        let mut tuning = Supervised::new(learner, NextToken, BatchesFn(|_| Ok(vec![cycle()])))
            .with_evaluation(Evaluation { every, batches: vec![cycle()] });
        for step in 0..4 {
            tuning.iterate(step).unwrap();
        }
        bits(&tuning.into_model())
    };
    assert_eq!(tuned(0), tuned(1));
}

#[test]
fn only_tokens_that_count_are_learnt() {
    // Of the response 2, 3, 4 only the 3 counts, and `independent` gives each token −log softmax(scores).
    let scores = [0.0, 0.5, 1.0, 1.5, 2.0];
    let model = BigramLm::independent(&scores, &device());
    let mut batch: Demonstrations = Completions::from_rows(&[vec![1]], &[vec![2, 3, 4]], &device()).into();
    batch.counts = burn::tensor::Tensor::from_data([[false, true, false]], &device());
    let metrics = evaluate(&model, &NextToken, &[batch]).unwrap();
    let log_sum = scores.iter().map(|score| f64::from(*score).exp()).sum::<f64>().ln();
    assert_eq!(metrics.get("count"), Some(1.0));
    assert!((metrics.get("loss").unwrap() - (log_sum - 1.5)).abs() < 1e-6); // f32 log-softmax
}
