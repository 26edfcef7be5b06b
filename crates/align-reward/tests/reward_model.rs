//! The ranking objective on a transformer with a score head.

use align_core::{Completions, Draws, PreferencePairs, Reward};
use align_models::{RewardModel, Transformer, TransformerConfig};
use align_reward::{BradleyTerryObjective, ReferenceScores, Scorer, Target, evaluate_pairs, finite_scores};
use align_testkit::{assert_close, device, train_device};
use align_train::{Learner, OptimizerConfig};
use burn::module::Module;
use burn::tensor::{Device, Tensor};

fn model(device: &Device) -> RewardModel {
    let config = TransformerConfig { initializer_range: 0.1, ..TransformerConfig::llama(20, 16, 2, 4) };
    RewardModel::from_transformer(&Transformer::init(&config, &Draws::new(1), device), &Draws::new(2))
}

/// Prompts and responses of several lengths; a chosen response holds token 7, a rejected one token 8.
fn pairs() -> PreferencePairs {
    let prompts: Vec<Vec<u32>> =
        (0..12u32).map(|row| (0..row % 5 + 1).map(|i| (row + i) % 6 + 1).collect()).collect();
    let responses = |token: u32| -> Vec<Vec<u32>> {
        let filler = |row| (0..row % 4).map(|i| 9 + i);
        (0..12u32).map(|row| filler(row).chain([token]).chain(filler(row / 4)).chain([0]).collect()).collect()
    };
    PreferencePairs {
        chosen: Completions::from_rows(&prompts, &responses(7), &device()),
        rejected: Completions::from_rows(&prompts, &responses(8), &device()),
        margin: Tensor::zeros([12], &device()),
    }
}

#[test]
fn a_score_is_the_same_alone_and_in_any_batch() {
    let (model, batch) = (model(&device()), pairs().chosen);
    let together = finite_scores(&model, [&batch]).unwrap();
    let spread = together.iter().copied().fold(f64::NEG_INFINITY, f64::max)
        - together.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(spread > 0.1, "scores differ by more than any tolerance: {spread}");
    let (prompts, responses) = (batch.prompt.rows(), batch.response.rows());
    for row in 0..prompts.len() {
        let alone = Completions::from_rows(&prompts[row..=row], &responses[row..=row], &device());
        assert_close(model.score(&alone), together[row], 1e-5); // f32, another order of addition
    }
    let order: Vec<usize> = (0..12).rev().collect();
    let mut reversed = finite_scores(&model, [&batch.select(&order)]).unwrap();
    reversed.reverse();
    assert_close(reversed, together, 1e-5);
}

#[test]
fn training_learns_to_rank_and_normalising_keeps_the_ranking() {
    let batch = pairs();
    let config = OptimizerConfig { learning_rate: 3e-3.try_into().unwrap(), ..OptimizerConfig::default() };
    let mut learner = Learner::new(model(&train_device()), config, 40).unwrap();
    let before = evaluate_pairs(&learner.model().valid(), std::slice::from_ref(&batch)).unwrap();
    let mut first = None;
    for _ in 0..40 {
        let metrics = learner.step(&BradleyTerryObjective::default(), std::slice::from_ref(&batch)).unwrap();
        first.get_or_insert(metrics.get("loss").unwrap());
        assert!(metrics.get("accuracy").is_some());
    }
    let raw = learner.into_model().valid();
    let after = evaluate_pairs(&raw, std::slice::from_ref(&batch)).unwrap();
    assert!(first.unwrap() > 0.4, "untrained scores lie close together: {first:?}");
    assert_eq!(after.accuracy, 1.0, "{before:?} became {after:?}");
    assert!(after.mean_margin > before.mean_margin + 1.0, "{before:?} became {after:?}");

    let measured = ReferenceScores::measure(&raw, [&batch.chosen], "the chosen side").unwrap();
    let normalized =
        raw.clone().with_normalization(measured.normalization(Target::MeanAndDeviation).unwrap());
    let scores = finite_scores(&normalized, [&batch.chosen]).unwrap();
    let mean = scores.iter().sum::<f64>() / 12.0;
    let deviation = (scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / 12.0).sqrt();
    assert_close([mean, deviation], [0.0, 1.0], 1e-5); // f32 scores
    // Training goes on from the raw scale.
    assert_close(normalized.scores(&batch.chosen), raw.scores(&batch.chosen), 0.0);
}
