use align_core::Draws;
use align_core::number::{NonNegative, Positive, UnitInterval};
use align_testkit::{BigramLm, assert_close, train_device};
use align_train::{Group, Learner, Loss, NextToken, Objective, OptimizerConfig, Schedule, StepGradients};
use burn::module::{Lora, Module, ParamGroup};
use burn::tensor::Tensor;

use crate::common::{By, Net, Rows, Squares, VOCABULARY, bits, brisk, completions, joined, learner, rows};

fn bigram() -> Learner<BigramLm> {
    Learner::new(BigramLm::random(VOCABULARY, &Draws::new(5), &train_device()), brisk(), 10).unwrap()
}

#[test]
fn one_times_eight_equals_eight_times_one() {
    let (mut whole, mut parts) = (bigram(), bigram());
    for step in 0..3 {
        let batches = completions(step);
        let together = whole.step(&NextToken, &[joined(&batches)]).unwrap();
        let apart = parts.step(&NextToken, &batches).unwrap();
        assert_eq!(together.get("count"), apart.get("count"));
        for name in ["loss", "grad_norm", "perplexity"] {
            let (a, b) = (together.get(name).unwrap(), apart.get(name).unwrap());
            assert!((a - b).abs() < 1e-5 * b, "{name}: {a} and {b}"); // f32 sums of about 30 terms in another order
        }
    }
    // Updates are η·m/√v, so a relative error of 1e-6 in a gradient is one of 1e-7 in the weights, thrice.
    assert_close(whole.model().table.val(), parts.model().table.val(), 2e-6);
}

#[test]
fn a_mean_of_microbatch_means_would_be_seen() {
    // The guard of the test above: rows of other lengths weigh otherwise under the wrong normalisation.
    let (learner, batches) = (bigram(), completions(0));
    let right = learner.gradients(&NextToken, &batches).unwrap();
    let right = right.sums["table"].clone() / right.weight;
    let mut wrong = Tensor::zeros_like(&right);
    for batch in &batches {
        let part = learner.gradients(&NextToken, std::slice::from_ref(batch)).unwrap();
        wrong = wrong + part.sums["table"].clone() / (part.weight * batches.len() as f64);
    }
    let difference: f32 = (right - wrong).abs().max().into_scalar();
    assert!(difference > 1e-3, "{difference}"); // 500 times the tolerance above
}

#[test]
fn replicas_merge_to_the_whole_step() {
    let batches = completions(0);
    let (mut whole, mut halves) = (bigram(), bigram());
    let first = halves.gradients(&NextToken, &batches[..3]).unwrap();
    let second = halves.gradients(&NextToken, &batches[3..]).unwrap();
    let merged = halves.apply(first.merge(second)).unwrap();
    let together = whole.step(&NextToken, &batches).unwrap();
    assert_eq!(merged.get("count"), together.get("count"));
    assert_close(whole.model().table.val(), halves.model().table.val(), 1e-6); // f32 sums in another order
}

#[test]
fn nothing_merged_changes_nothing() {
    let learner = bigram();
    let gradients = learner.gradients(&NextToken, &completions(0)).unwrap();
    let merged = StepGradients::default().merge(gradients.clone());
    assert_eq!(merged.weight, gradients.weight);
    assert_close(merged.sums["table"].clone(), gradients.sums["table"].clone(), 0.0);
}

#[test]
fn a_long_gradient_is_shortened_to_the_limit_and_reported_in_full() {
    // With β₁ = 0 and an ε that dwarfs |g|, the first step is −η·g/ε: linear in the clipped gradient.
    let config = |max| OptimizerConfig {
        learning_rate: Positive::literal(1e3),
        beta_1: 0.0,
        epsilon: Positive::literal(1e3),
        max_grad_norm: NonNegative::literal(max),
        ..brisk()
    };
    let moved = |max| {
        let mut learner = learner(config(max));
        let before = learner.model().first.val().without_autodiff();
        let norm = learner.step(&Squares, &[rows()]).unwrap().get("grad_norm").unwrap();
        (learner.model().first.val().without_autodiff() - before, norm)
    };
    let ((free, norm), (clipped, reported)) = (moved(0.0), moved(0.25));
    assert!(norm > 0.5, "the gradient is long enough to be clipped: {norm}");
    assert_eq!(norm, reported);
    // g/(g + ε) departs from g/ε by |g|/ε < 0.3 %, of steps below 2.
    assert_close(clipped * (norm / 0.25), free.clone(), 1e-2);
    // A limit above the norm leaves the gradient alone.
    assert_close(moved(100.0).0, free, 0.0);
}

#[test]
fn the_norm_is_that_of_the_normalised_gradient() {
    // d/dw of Σ 3w over two rows of weight 1 each, at one weight: 6 / 2 = 3 in every entry of `second`: norm 3·√4 = 6.
    let config = OptimizerConfig { allow_zero_gradient: vec!["first".into(), "bias".into()], ..brisk() };
    let objective = By(|net: &Net| Loss::new(net.second.val().sum() * 3.0, 1.0));
    let metrics = learner(config).step(&objective, &[(), ()]).unwrap();
    assert!((metrics.get("grad_norm").unwrap() - 6.0).abs() < 1e-6);
    assert_eq!(metrics.get("count"), Some(2.0));
}

#[test]
fn frozen_tensors_keep_their_bits_even_under_decay() {
    let net = Net::new(1, &train_device()).freeze_group(ParamGroup::from_predicate("first"));
    let config = OptimizerConfig { weight_decay: NonNegative::literal(0.5), ..brisk() };
    let mut learner = Learner::new(net.clone(), config, 10).unwrap();
    learner.step(&Squares, &[rows()]).unwrap();
    assert_eq!(learner.model().first.val().to_data(), net.first.val().to_data());
    assert_ne!(learner.model().second.val().to_data(), net.second.val().to_data());
}

#[test]
fn a_model_from_the_plain_device_is_trained_and_keeps_what_is_frozen() {
    let net = Net::new(1, &train_device()).freeze_group(ParamGroup::from_predicate("bias"));
    let mut learner = Learner::new(net.valid(), brisk(), 10).unwrap();
    learner.step(&Squares, &[rows()]).unwrap();
    assert_eq!(learner.model().bias.val().to_data(), net.bias.val().to_data());
    assert_ne!(learner.model().first.val().to_data(), net.first.val().to_data());
}

#[test]
fn decay_spares_vectors_unless_a_group_says_otherwise() {
    // A loss without gradient on the bias's scale: compare with and without decay.
    let after = |config: OptimizerConfig| {
        let mut learner = learner(config);
        learner.step(&Squares, &[rows()]).unwrap();
        learner.into_model()
    };
    let decay = NonNegative::literal(0.5);
    let without = after(brisk());
    let with = after(OptimizerConfig { weight_decay: decay, ..brisk() });
    assert_eq!(with.bias.val().to_data(), without.bias.val().to_data());
    // θ(1 − ηλ) − step against θ − step: the difference is ηλθ = 0.05·θ.
    let start = Net::new(1, &train_device());
    assert_close(without.first.val() - with.first.val(), start.first.val() * 0.05, 1e-6); // f32 rounding
    let group = Group { weight_decay: Some(decay), ..Group::new("bias", &["bias"]) };
    let grouped = after(OptimizerConfig { groups: vec![group], ..brisk() });
    assert_close(without.bias.val() - grouped.bias.val(), start.bias.val() * 0.05, 1e-6); // f32 rounding
}

#[test]
fn a_group_has_its_own_rate_and_schedule_and_reports_them() {
    let mut still = Group::new("head", &["second"]);
    still.learning_rate_factor = NonNegative::literal(0.0);
    let mut slow = Group::new("trunk", &["first", "bias"]);
    slow.schedule = Some(Schedule::Linear { warmup: 0, floor: UnitInterval::literal(0.0) });
    let mut learner = learner(OptimizerConfig { groups: vec![still, slow], ..brisk() });
    let start = learner.model().clone();
    let first = learner.step(&Squares, &[rows()]).unwrap();
    let second = learner.step(&Squares, &[rows()]).unwrap();
    assert_eq!(learner.model().second.val().to_data(), start.second.val().to_data());
    assert_ne!(learner.model().first.val().to_data(), start.first.val().to_data());
    assert_eq!((first.get("lr"), first.get("lr/head")), (Some(0.1), Some(0.0)));
    assert_eq!(first.get("lr/trunk"), Some(0.1));
    assert!((second.get("lr/trunk").unwrap() - 0.09).abs() < 1e-12); // one of ten steps down the line
}

#[test]
fn a_held_schedule_moves_only_when_it_is_told_to() {
    let mut slow = Group::new("trunk", &["first", "bias"]);
    slow.schedule = Some(Schedule::Constant { warmup: 4 });
    let line = Schedule::Linear { warmup: 0, floor: UnitInterval::literal(0.0) };
    let config = OptimizerConfig { schedule: line, groups: vec![slow], ..brisk() };
    let (mut held, mut free) = (learner(config.clone()), learner(config));
    let mut rates = Vec::new();
    for (step, total) in [(0, 2), (0, 2), (1, 2), (1, 2)] {
        held.hold_schedule(step, total);
        let metrics = held.step(&Squares, &[rows()]).unwrap();
        rates.push((metrics.get("lr").unwrap(), metrics.get("lr/trunk").unwrap()));
    }
    // Half of the line from 0.1 to 0 is left at step 1 of 2; the warm-up is at 1/4, then 2/4.
    assert_eq!(rates, [(0.1, 0.025), (0.1, 0.025), (0.05, 0.05), (0.05, 0.05)]);
    assert_eq!(held.steps(), 4, "optimizer steps are counted all the same");
    // What is held stays until the next call, and it is the rate that is taken, not only reported.
    free.hold_schedule(0, 2);
    (0..2).for_each(|_| drop(free.step(&Squares, &[rows()]).unwrap()));
    free.hold_schedule(1, 2);
    (0..2).for_each(|_| drop(free.step(&Squares, &[rows()]).unwrap()));
    assert_eq!(bits(held.model()), bits(free.model()));
    let mut elsewhere = learner(held.config().clone());
    (0..4).for_each(|_| drop(elsewhere.step(&Squares, &[rows()]).unwrap()));
    assert_ne!(bits(held.model()), bits(elsewhere.model()));
}

#[test]
fn where_groups_overlap_the_last_one_holds() {
    let mut first = Group::new("all", &["first", "bias", "second"]);
    first.learning_rate_factor = NonNegative::literal(0.0);
    let second = Group::new("bias", &["bias"]);
    let mut learner = learner(OptimizerConfig { groups: vec![first, second], ..brisk() });
    let start = learner.model().clone();
    learner.step(&Squares, &[rows()]).unwrap();
    assert_eq!(learner.model().first.val().to_data(), start.first.val().to_data());
    assert_ne!(learner.model().bias.val().to_data(), start.bias.val().to_data());
}

#[test]
fn every_knob_changes_the_outcome() {
    let outcome = |config: OptimizerConfig| {
        let mut learner = learner(config);
        for _ in 0..3 {
            learner.step(&Squares, &[rows()]).unwrap();
        }
        bits(learner.model())
    };
    let base = outcome(brisk());
    let knobs = [
        ("learning_rate", OptimizerConfig { learning_rate: Positive::literal(0.2), ..brisk() }),
        ("beta_1", OptimizerConfig { beta_1: 0.5, ..brisk() }),
        ("beta_2", OptimizerConfig { beta_2: 0.5, ..brisk() }),
        ("epsilon", OptimizerConfig { epsilon: Positive::literal(1e-1), ..brisk() }),
        ("weight_decay", OptimizerConfig { weight_decay: NonNegative::literal(0.1), ..brisk() }),
        // Seen through ε alone at the first step, and through the ratio of steps afterwards.
        ("max_grad_norm", OptimizerConfig { max_grad_norm: NonNegative::literal(0.1), ..brisk() }),
        ("schedule", OptimizerConfig { schedule: Schedule::Constant { warmup: 3 }, ..brisk() }),
    ];
    for (name, config) in knobs {
        assert_ne!(outcome(config), base, "`{name}` changes nothing");
    }
}

#[test]
fn lora_may_start_with_no_gradient_at_a_and_trains_both_factors() {
    let net = Net::new(1, &train_device()).apply_lora(Lora::new(2, 4.0));
    let mut learner = Learner::new(net.clone(), brisk(), 10).unwrap();
    for _ in 0..2 {
        learner.step(&Squares, &[rows()]).unwrap();
    }
    let changed = |read: fn(&Net) -> Tensor<2>| read(learner.model()).to_data() != read(&net).to_data();
    assert!(changed(|net| net.first.adapter().unwrap().a.val()), "A moves once B has");
    assert!(changed(|net| net.first.adapter().unwrap().b.val()));
    assert!(!changed(|net| net.first.base()), "the base is frozen");
}

#[test]
fn a_step_leaves_clones_alone() {
    let mut learner = learner(brisk());
    let reference = learner.model().clone();
    let before = bits(&reference);
    learner.step(&Squares, &[rows()]).unwrap();
    assert_eq!(bits(&reference), before);
    assert_ne!(bits(learner.model()), before);
}

#[test]
fn set_model_keeps_moments_and_steps() {
    let (mut kept, mut swapped) = (learner(brisk()), learner(brisk()));
    kept.step(&Squares, &[rows()]).unwrap();
    swapped.step(&Squares, &[rows()]).unwrap();
    // The same weights under other parameter ids: a fresh module that takes over the values.
    let (_guard, folder) = crate::common::folder();
    align_core::Persist::save(kept.model(), &folder).unwrap();
    let fresh = align_core::Persist::restore(Net::new(9, &train_device()), &folder).unwrap();
    swapped.set_model(fresh).unwrap();
    assert_eq!(swapped.steps(), 1);
    kept.step(&Squares, &[rows()]).unwrap();
    swapped.step(&Squares, &[rows()]).unwrap();
    assert_eq!(bits(kept.model()), bits(swapped.model()));
}

#[test]
fn beginning_again_is_a_training_of_its_own_from_the_present_weights() {
    let falling = OptimizerConfig {
        schedule: Schedule::Linear { warmup: 0, floor: UnitInterval::literal(0.0) },
        ..brisk()
    };
    let mut again = learner(falling.clone());
    for _ in 0..3 {
        again.step(&Squares, &[rows()]).unwrap();
    }
    let mut fresh = Learner::new(again.model().clone(), falling, 5).unwrap();
    again.begin_again(5);
    assert_eq!(again.steps(), 0);
    for _ in 0..2 {
        let (a, b) = (again.step(&Squares, &[rows()]).unwrap(), fresh.step(&Squares, &[rows()]).unwrap());
        assert_eq!(a, b);
    }
    assert_eq!(bits(again.model()), bits(fresh.model()));
}

#[test]
fn a_microbatch_in_which_nothing_counts_changes_nothing() {
    struct Some_;
    impl Objective<Net> for Some_ {
        type Batch = (Rows, bool);
        fn loss(&self, model: &Net, (rows, counts): &(Rows, bool)) -> Loss {
            let loss = Squares.loss(model, rows);
            if *counts { loss } else { Loss::new(loss.value * 0.0, 0.0) }
        }
    }
    let (mut with, mut without) = (learner(brisk()), learner(brisk()));
    with.step(&Some_, &[(rows(), false), (rows(), true)]).unwrap();
    without.step(&Some_, &[(rows(), true)]).unwrap();
    assert_eq!(bits(with.model()), bits(without.model()));
}
