//! What is reported is what happened.

use align_core::Reward;
use align_superhf::meteor::Meteor;
use align_superhf::{Completion, SuperHf, SuperHfParts};
use align_testkit::{BigramLm, assert_close};
use serde_json::json;

use crate::world::{by_tokens, config, count_of, letters, metric, parts, run, superhf};

fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.into_iter().collect();
    values.iter().sum::<f64>() / values.len() as f64
}

fn with(parts: SuperHfParts<BigramLm>, changes: serde_json::Value) -> SuperHf<BigramLm> {
    SuperHf::new(parts, config(changes)).expect("parts")
}

#[test]
fn scores_are_over_all_completions_and_kept_ones_are_apart() {
    let changes = json!({ "length_penalty": 0.5, "length_penalty_unit": "tokens", "stop_token_ids": [] });
    let parts = SuperHfParts { gold: Some(count_of(4)), ..parts() };
    let mut superhf = with(parts, changes);
    let superbatch = superhf.collect(0).expect("samples");
    let chosen = superbatch.choose(superhf.config().filter).expect("finite");
    let kept = superbatch.kept(&chosen);
    let metrics = run(&mut superhf, 1).remove(0);

    let all = &superbatch.completions;
    let of = |pick: fn(&Completion) -> Option<f64>| mean(all.iter().filter_map(pick));
    let cost = 0.5 * 4f64.ln();
    let raw = of(|completion| completion.score);
    assert_close(metric(&metrics, "objective/scores_raw"), [raw], 1e-12);
    assert_close(metric(&metrics, "objective/scores"), [raw - cost], 1e-12);
    assert_close(metric(&metrics, "gold/score"), [of(|completion| completion.gold)], 1e-12);
    let of_kept = mean(kept.iter().filter_map(|completion| completion.penalized));
    assert_close(metric(&metrics, "objective/scores_kept"), [of_kept], 1e-12);
    assert!(of_kept > raw - cost, "the best are better than all");
    let variance =
        all.iter().map(|completion| (completion.score.expect("a score") - raw).powi(2)).sum::<f64>() / 17.0;
    assert_close(metric(&metrics, "objective/scores_std"), [variance.sqrt()], 1e-12);
    assert_close(
        metric(&metrics, "objective/entropy"),
        [-mean(all.iter().map(|completion| completion.log_prob))],
        1e-9,
    );
    assert_eq!(metric(&metrics, "superhf/kept"), 6.0);
    assert_eq!((metric(&metrics, "episode"), metric(&metrics, "lr")), (18.0, 0.1));
    assert!(metrics.iter().all(|(_, value)| value.is_finite()), "{metrics:?}");
}

#[test]
fn ties_and_constant_prompts_are_counted() {
    let parts = SuperHfParts { reward: by_tokens(|_| 1.0), ..parts() };
    let metrics = run(&mut with(parts, json!({ "stop_token_ids": [] })), 1).remove(0);
    assert_eq!((metric(&metrics, "superhf/ties"), metric(&metrics, "superhf/constant_prompts")), (3.0, 3.0));
    assert_eq!(metric(&metrics, "objective/scores_std"), 0.0);
}

#[test]
fn the_sampled_kl_is_that_of_the_first_samples_of_each_prompt() {
    // Every sample, and the whole of each response: the mean log-ratio against the start, from both models' own passes.
    let mut superhf = superhf(json!({ "kl_samples": 6, "stop_token_ids": [], "temperature": 0.7 }));
    run(&mut superhf, 4);
    let policy = burn::module::Module::valid(superhf.policy());
    let start = burn::module::Module::valid(&crate::world::sft(1));
    let superbatch = superhf.collect(4).expect("samples");
    let log_ratios: Vec<f64> = superbatch
        .completions
        .iter()
        .map(|completion| {
            let prompt = superbatch.prompts[completion.prompt].ids.clone();
            let alone = align_core::Completions::from_rows(
                &[prompt],
                std::slice::from_ref(&completion.response),
                &align_testkit::device(),
            );
            let log_prob = |model: &BigramLm| -> f64 {
                let tokens = align_core::CausalLm::token_log_probs(model, &alone, 0.7).log_probs;
                tokens.to_data().iter::<f64>().sum()
            };
            log_prob(&policy) - log_prob(&start)
        })
        .collect();
    let metrics = superhf.iteration(4).expect("a group");
    // Sums of four f32 numbers each.
    assert_close(metric(&metrics, "objective/kl"), [mean(log_ratios.clone())], 1e-4);
    assert!(mean(log_ratios) > 0.05, "the policy has moved");
}

#[test]
fn the_kl_is_measured_on_as_many_samples_as_asked_for() {
    for (samples, expected) in [(0, 0), (1, 3), (4, 12), (100, 18)] {
        let superhf = superhf(json!({ "kl_samples": samples }));
        assert_eq!(superhf.collect(0).expect("samples").log_ratios.len(), expected);
    }
    let metrics = run(&mut superhf(json!({ "kl_samples": 0 })), 1).remove(0);
    assert_eq!(metrics.get("objective/kl"), None);
}

#[test]
fn validation_is_asked_every_so_many_groups_and_never_at_0() {
    let groups = |interval: u64| {
        let parts = SuperHfParts { validation: Some(count_of(3)), ..parts() };
        let metrics = run(&mut with(parts, json!({ "validation_interval": interval })), 5);
        metrics.iter().map(|of| of.get("validation/score").is_some()).collect::<Vec<_>>()
    };
    assert_eq!(groups(0), [false; 5]);
    assert_eq!(groups(1), [true; 5]);
    assert_eq!(groups(2), [true, false, true, false, true]);
}

#[test]
fn similarity_is_between_kept_completions_of_different_prompts() {
    let mut superhf = superhf(json!({ "top_k": 1, "stop_token_ids": [] }))
        .with_detokenizer(|ids: &[u32]| ids.iter().map(|id| letters(&[*id])).collect::<Vec<_>>().join(" "));
    let superbatch = superhf.collect(0).expect("samples");
    let chosen = superbatch.choose(superhf.config().filter).expect("finite");
    let texts: Vec<String> =
        superbatch.kept(&chosen).iter().map(|kept| kept.text.clone().expect("a text")).collect();
    assert_eq!(texts.len(), 3);
    let meteor = Meteor::exact();
    let pairs = (0..3).flat_map(|a| (0..3).filter(move |b| *b != a).map(move |b| (a, b)));
    let expected = mean(pairs.map(|(a, b)| meteor.similarity(&texts[a], &texts[b])));
    let metrics = superhf.iteration(0).expect("a group");
    assert_close(metric(&metrics, "superhf/similarity"), [expected], 1e-12);
}

#[test]
fn similarity_needs_two_prompts_and_no_tokenizer() {
    let of = |changes| run(&mut superhf(changes), 1).remove(0).get("superhf/similarity");
    assert_eq!(of(json!({ "prompt_accumulation_steps": 1 })), None);
    assert!(of(json!({ "stop_token_ids": [] })).is_some());
    // Every response is 3 3 3 3: identical sets of four words score 1 − 0.5/4³.
    let fixed = BigramLm::independent(&[0.0, 0.0, 0.0, 50.0, 0.0], &align_testkit::train_device());
    let parts = SuperHfParts { prior: Box::new(align_core::Frozen::new(&fixed)), policy: fixed, ..parts() };
    let metrics = run(&mut with(parts, json!({ "top_k": 1 })), 1).remove(0);
    assert_close(metric(&metrics, "superhf/similarity"), [1.0 - 0.5 / 64.0], 1e-12);
}

#[test]
fn what_the_judge_noticed_is_reported() {
    struct Talkative(Box<dyn Reward>);
    impl Reward for Talkative {
        fn score(&self, completions: &align_core::Completions) -> burn::tensor::Tensor<1> {
            self.0.score(completions)
        }
        fn take_metrics(&self) -> Vec<(String, f64)> {
            vec![("ensemble/variance".to_owned(), 0.25)]
        }
    }
    let parts = SuperHfParts { reward: Box::new(Talkative(count_of(2))), ..parts() };
    let metrics = run(&mut with(parts, json!({})), 1).remove(0);
    assert_eq!(metric(&metrics, "ensemble/variance"), 0.25);
}

#[test]
fn the_inverse_loss_says_when_it_turned_the_gradient_round() {
    let metrics = run(&mut superhf(json!({ "inverse_loss": 3.3, "kl_coef": 0.0 })), 1).remove(0);
    // Five tokens: the cross-entropy of the start is near ln 5, below √3.3.
    let cross_entropy = metric(&metrics, "loss/ce");
    assert!(cross_entropy < 3.3f64.sqrt());
    assert!(metric(&metrics, "superhf/inverse_slope") < 0.0);
    assert_eq!(metric(&metrics, "superhf/inverse_guarded"), 0.0);
    assert_eq!(run(&mut superhf(json!({})), 1)[0].get("superhf/inverse_slope"), None);
}
