//! KTO: answers one by one, and the reference point they share.

use std::slice::from_ref;

use align_core::Completions;
use align_core::number::{NonNegative, Positive};
use align_nash::loss::{KtoWeights, kto};
use align_nash::{KtoBatch, KtoConfig, KtoObjective, Mismatched, Rated, kto_microbatches, mismatched_rows};
use align_testkit::{BigramLm, assert_all_close, assert_close, device, gradient};
use align_train::Objective;
use burn::tensor::{DType, Tensor};

use crate::world::{Step, policy, reference, step, sums};

/// Answers of different lengths, good and bad.
fn rows() -> Vec<Rated> {
    let row = |prompt: &[u32], response: &[u32], desirable| {
        let completions = Completions::from_rows(&[prompt.to_vec()], &[response.to_vec()], &device());
        let anchor = sums(&reference(), &completions).into_scalar();
        Rated { prompt: prompt.to_vec(), response: response.to_vec(), anchor, desirable }
    };
    vec![
        row(&[1, 2], &[3, 4, 0], true),
        row(&[0], &[2, 2, 1, 4], false),
        row(&[3, 1, 0], &[1, 4], true),
        row(&[4], &[0], true),
        row(&[2, 2], &[4, 1, 3, 3, 0], false),
    ]
}

/// Prompts with each other's answers, `size` at a time. `raise` is added to the reference's log-probabilities.
fn mismatched(rows: &[&Rated], size: usize, raise: f32) -> Mismatched {
    let parts: Vec<Completions> = mismatched_rows(rows)
        .chunks(size)
        .map(|rows| {
            let (prompts, responses): (Vec<_>, Vec<_>) = rows.iter().cloned().unzip();
            Completions::from_rows(&prompts, &responses, &device())
        })
        .collect();
    let anchors = parts
        .iter()
        .flat_map(|part| (sums(&reference(), part) + raise).to_data().iter::<f32>().collect::<Vec<_>>());
    Mismatched { anchors: anchors.collect(), completions: parts }
}

/// A step of the given rows, cut into microbatches of `size`. `raise` moves the reference point.
fn step_of(config: KtoConfig, rows: &[Rated], size: usize, raise: f32) -> Step {
    let rows: Vec<&Rated> = rows.iter().collect();
    let batches = kto_microbatches(&rows, mismatched(&rows, size, raise), size, &device());
    step(&KtoObjective::new(config), &policy(), &batches)
}

/// What raises the reference point well above 0.
const RAISE: f32 = -3.0;

fn in_double(batch: KtoBatch) -> KtoBatch {
    KtoBatch { anchors: batch.anchors.cast(DType::F64), desirable: batch.desirable.cast(DType::F64), ..batch }
}

#[test]
fn prompts_get_the_answers_of_their_predecessors() {
    let rows = rows();
    let rows: Vec<&Rated> = rows.iter().collect();
    let expected = [(0, 4), (1, 0), (2, 1), (3, 2), (4, 3)]
        .map(|(prompt, answer)| (rows[prompt].prompt.clone(), rows[answer].response.clone()));
    assert_eq!(mismatched_rows(&rows), expected);
    assert_eq!(mismatched_rows(&rows[..1]), [(rows[0].prompt.clone(), rows[0].response.clone())]);
    assert!(mismatched_rows(&[]).is_empty());
}

#[test]
fn the_reference_point_is_the_mean_log_ratio_of_the_mismatched_and_never_negative() {
    let rows = rows();
    let refer: Vec<&Rated> = rows.iter().collect();
    let parts = mismatched(&refer, 5, 0.0);
    let log_ratios = sums(&policy(), &parts.completions[0]) - sums(&reference(), &parts.completions[0]);
    let mean: f64 = log_ratios.mean().into_scalar();
    for raise in [RAISE, 0.0, 5.0] {
        let found = step_of(KtoConfig::default(), &rows, 5, raise).metric("kl");
        assert_close(found, (mean - f64::from(raise)).max(0.0), 1e-6); // f32
    }
    assert!(mean < 3.0 && mean > -3.0, "else one of the cases is not what it should be: {mean}");
}

#[test]
fn it_belongs_to_the_step_however_the_step_is_cut() {
    let whole = step_of(KtoConfig::default(), &rows(), 5, RAISE);
    assert!(whole.metric("kl") > 0.5);
    for size in [1, 2, 3, 4] {
        let cut = step_of(KtoConfig::default(), &rows(), size, RAISE);
        // Sums in f32, of other paddings in another order.
        assert_all_close(cut.loss, whole.loss, 1e-6, 0.0);
        assert_close(&cut.gradient, &whole.gradient, 1e-7);
        for (name, expected) in whole.metrics.iter() {
            assert_all_close(cut.metric(name), expected, 1e-6, 1e-6);
        }
    }
}

#[test]
fn it_holds_until_a_microbatch_brings_another() {
    let rows = rows();
    let refer: Vec<&Rated> = rows.iter().collect();
    let objective = KtoObjective::new(KtoConfig::default());
    assert_eq!(objective.reference_point(), 0.0);
    let [first, second] = [RAISE, 2.0 * RAISE]
        .map(|raise| kto_microbatches(&refer, mismatched(&refer, 5, raise), 2, &device()));
    assert!(first[0].mismatched.is_some() && first[1..].iter().all(|batch| batch.mismatched.is_none()));
    let mut seen = Vec::new();
    for batch in first.iter().chain(&second) {
        objective.loss(&policy(), batch);
        seen.push(objective.reference_point());
    }
    assert!(seen[0] > 0.0 && seen[3] > seen[0]);
    assert_eq!(seen, [seen[0], seen[0], seen[0], seen[3], seen[3], seen[3]]);
}

#[test]
fn no_gradient_flows_through_it() {
    // Autodiff of the objective is autodiff of the loss around a constant; were z₀ part of the graph, its slope would show: it
    // is not small.
    let rows = rows();
    let refer: Vec<&Rated> = rows.iter().collect();
    let model = policy().to_double();
    let batches: Vec<KtoBatch> = kto_microbatches(&refer, mismatched(&refer, 5, RAISE), 5, &device())
        .into_iter()
        .map(in_double)
        .collect();
    let objective = KtoObjective::new(KtoConfig::default());
    let found = step(&objective, &model, &batches);

    let ratios = |completions: &Completions, anchors: &Tensor<1>| {
        let tokens = align_core::CausalLm::token_log_probs(&model, completions, 1.0).log_probs;
        let mask = &completions.response.mask;
        align_core::log_probs::sequence_log_probs(tokens, mask) - anchors.clone()
    };
    let weights = KtoWeights { desirable: 1.0, undesirable: 1.0 };
    let batch = &batches[0];
    let losses = kto(
        ratios(&batch.completions, &batch.anchors),
        &batch.desirable,
        objective.reference_point(),
        0.1,
        weights,
    );
    assert_close(found.gradient, gradient(&losses.mean(), &model.table.val()), 1e-15); // f64

    let other = batch.mismatched.as_ref().expect("the first microbatch");
    let anchors = Tensor::<1>::from_data(&other.anchors[..], &device()).cast(DType::F64);
    let point = ratios(&other.completions[0], &anchors).mean();
    assert_close(point.clone(), objective.reference_point(), 1e-12);
    assert!(crate::world::largest(&gradient(&point, &model.table.val())) > 0.1);
}

#[test]
fn weights_belong_to_their_kind() {
    let config = |desirable, undesirable| KtoConfig {
        desirable_weight: NonNegative::literal(desirable),
        undesirable_weight: NonNegative::literal(undesirable),
        ..KtoConfig::default()
    };
    let loss = |config| step_of(config, &rows(), 5, RAISE).loss;
    let [good, bad] = [loss(config(1.0, 0.0)), loss(config(0.0, 1.0))];
    assert!(good > 0.0 && bad > 0.0);
    assert_all_close(loss(config(1.3, 0.7)), 1.3 * good + 0.7 * bad, 1e-6, 0.0); // f32
}

#[test]
fn beta_changes_the_loss() {
    let with = |beta| step_of(KtoConfig { beta, ..KtoConfig::default() }, &rows(), 5, RAISE).loss;
    assert!((with(Positive::literal(0.1)) - with(Positive::literal(0.2))).abs() > 1e-3);
}

#[test]
fn rewards_are_means_over_the_answers_of_their_kind() {
    let rows = rows();
    let beta = 0.1;
    let reward = |row: &Rated| {
        let completions = Completions::from_rows(from_ref(&row.prompt), from_ref(&row.response), &device());
        let log_prob: f64 = sums(&policy(), &completions).into_scalar();
        beta * (log_prob - f64::from(row.anchor))
    };
    let mean = |kind: bool| {
        let of_kind: Vec<f64> = rows.iter().filter(|row| row.desirable == kind).map(reward).collect();
        of_kind.iter().sum::<f64>() / of_kind.len() as f64
    };
    // Cut so that microbatches hold three, two, one or no answer of a kind.
    for size in [1, 2, 5] {
        let found = step_of(KtoConfig::default(), &rows, size, 0.0);
        assert_close(found.metric("rewards/chosen"), mean(true), 1e-6); // f32
        assert_close(found.metric("rewards/rejected"), mean(false), 1e-6);
        assert_close(found.metric("rewards/margins"), mean(true) - mean(false), 1e-6);
    }
}

#[test]
fn a_kind_that_is_missing_has_no_reward() {
    for kind in [true, false] {
        let of_kind: Vec<Rated> = rows().into_iter().filter(|row| row.desirable == kind).collect();
        let found = step_of(KtoConfig::default(), &of_kind, 2, 0.0);
        assert_eq!(found.metrics.get("rewards/chosen").is_some(), kind);
        assert_eq!(found.metrics.get("rewards/rejected").is_some(), !kind);
        assert_eq!(found.metrics.get("rewards/margins"), None);
    }
}

#[test]
fn a_reference_that_is_no_number_shows_in_the_loss() {
    let rows = rows();
    let refer: Vec<&Rated> = rows.iter().collect();
    let mut other = mismatched(&refer, 5, 0.0);
    other.anchors[2] = f32::NAN;
    let batches = kto_microbatches(&refer, other, 5, &device());
    let loss = KtoObjective::new(KtoConfig::default()).loss(&policy(), &batches[0]);
    assert!(loss.value.into_scalar::<f64>().is_nan());
}

#[test]
fn a_model_that_does_not_record_has_the_same_loss() {
    // As in evaluation.
    let rows = rows();
    let refer: Vec<&Rated> = rows.iter().collect();
    let batches = kto_microbatches(&refer, mismatched(&refer, 5, RAISE), 5, &device());
    let value = |model: &BigramLm| -> f64 {
        KtoObjective::new(KtoConfig::default()).loss(model, &batches[0]).value.into_scalar()
    };
    let plain = burn::module::Module::valid(&policy());
    assert_all_close(value(&plain), value(&policy()), 1e-6, 0.0); // f32
}
