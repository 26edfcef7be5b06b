//! One test for each of the details that decide whether RLHF with PPO works, by their numbers in the project's list.
//!
//! Items 9 (the reward model's loss and head) and 10 (its centring) belong to the reward crate, the other half of 1 and 8
//! (position ids, templates) to the model and data crates; here is what PPO itself has to do.

use std::sync::{Arc, Mutex};

use align_core::divergence::KlLoss;
use align_core::number::NonNegative;
use align_core::regularizer::{Coefficient, Granularity, Regularizer, Site};
use align_core::{CausalLm, Completions, Frozen, RewardFn, TokenBatch, masked};
use align_ppo::estimate::estimate;
use align_ppo::objective::{PolicyBatch, PolicyObjective};
use align_ppo::rewards::{MissingStop, RunningMoments, penalize_missing_stop};
use align_ppo::surrogate::ClipRange;
use align_ppo::{Ppo, PpoConfig, PpoError, PpoParts};
use align_testkit::gradcheck::module_gradients;
use align_testkit::{BigramLm, assert_close, device};
use align_train::Objective;
use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor};
use serde_json::json;

use crate::world::{
    STOP, VOCABULARY, completions, config, host, letters, metric, parts, plain_ppo, sft, table,
};

#[test]
fn item_01_prompts_pad_left_responses_pad_right_and_padding_changes_no_log_prob() {
    let ppo = plain_ppo(json!({}));
    let rollout = ppo.collect(0).expect("a rollout");
    let mask = |batch: &TokenBatch| -> Vec<Vec<bool>> {
        let width = batch.width();
        let flat: Vec<bool> = batch.mask.to_data().iter::<bool>().collect();
        flat.chunks(width).map(<[bool]>::to_vec).collect()
    };
    assert!(mask(&rollout.completions.prompt).iter().all(|row| row.is_sorted()), "false, then true");
    assert!(
        mask(&rollout.completions.response).iter().all(|row| row.iter().rev().is_sorted()),
        "true, then false"
    );
    let (prompts, responses) = (rollout.completions.prompt.rows(), rollout.completions.response.rows());
    let lengths: Vec<usize> = responses.iter().map(Vec::len).collect();
    assert!(lengths.iter().any(|length| *length < 4) && lengths.contains(&4), "ragged: {lengths:?}");
    let width = rollout.completions.response.width();
    let together = host(&rollout.old_log_probs);
    for row in 0..16 {
        let alone = completions(&prompts[row..=row], &responses[row..=row]);
        let alone = host(&sft(1).valid().token_log_probs(&alone, 1.0).log_probs);
        // One log-softmax over five numbers in f32, whatever stands beside it.
        assert_close(&together[row * width..row * width + lengths[row]], alone, 1e-6);
    }
}

#[test]
fn item_02_a_stop_token_with_the_id_of_padding_stays_in_loss_penalty_and_value() {
    // STOP is 0, and padding holds 0.
    let parts = parts(sft(1), Frozen::new(&sft(2)));
    let ppo = Ppo::new(parts, config(json!({}))).expect("parts");
    let rollout = ppo.collect(0).expect("a rollout");
    let estimates =
        estimate(&rollout, &ppo.config().regularizer(), ppo.config(), &mut RunningMoments::default());
    let width = rollout.completions.response.width();
    let (penalties, returns) =
        (host(&estimates.penalties), host(estimates.returns.as_ref().expect("a critic")));
    let mut stops = 0;
    for (row, response) in rollout.completions.response.rows().iter().enumerate() {
        if response.last() == Some(&STOP) {
            stops += 1;
            let last = row * width + response.len() - 1;
            assert!(penalties[last] != 0.0 && returns[last] != 0.0, "row {row}: the stop token counts");
            assert!(
                penalties[last + 1..(row + 1) * width].iter().all(|penalty| *penalty == 0.0),
                "padding does not"
            );
        }
    }
    assert!(stops > 0, "some response stopped");
}

/// Scores differ while gradients are recorded, as with dropout that is active in training.
#[derive(Module, Debug)]
struct Restless {
    inner: BigramLm,
}

impl CausalLm for Restless {
    fn logits(&self, tokens: &TokenBatch) -> Tensor<3> {
        let logits = self.inner.logits(tokens);
        if logits.is_autodiff() { logits * 1.3 } else { logits }
    }
    fn vocab_size(&self) -> usize {
        self.inner.vocab_size()
    }
    fn device(&self) -> Device {
        self.inner.device()
    }
}

#[test]
fn item_03_a_policy_that_trains_otherwise_than_it_samples_is_refused() {
    let still = parts(sft(1), Frozen::new(&sft(1)));
    let restless = PpoParts {
        policy: Restless { inner: still.policy },
        critic: still.critic,
        reference: Frozen::new(&sft(1)).into(),
        reward: still.reward,
        regularizer: None,
        prompts: still.prompts,
        gold: None,
        anchors: Vec::new(),
    };
    let mut ppo = Ppo::new(restless, config(json!({}))).expect("parts");
    let before = table(&ppo.policy().inner);
    let error = ppo.iteration(0).expect_err("the ratio is not 1");
    assert!(
        matches!(error, PpoError::RatioNotOne { .. }) && error.to_string().contains("dropout"),
        "{error}"
    );
    assert_eq!(table(&ppo.policy().inner), before, "nothing was learnt from it");
}

#[test]
fn item_04_one_temperature_in_sampler_old_and_reference_log_probs() {
    let parts = parts(sft(1), Frozen::new(&sft(2)));
    let ppo = Ppo::new(parts, config(json!({ "temperature": 0.7 }))).expect("parts");
    let rollout = ppo.collect(0).expect("a rollout");
    let by_hand = |model: &BigramLm| {
        let rows = host(&log_softmax(model.valid().table.val() / 0.7, 1));
        let (prompts, responses) = (rollout.completions.prompt.rows(), rollout.completions.response.rows());
        let width = rollout.completions.response.width();
        let mut log_probs = vec![0.0; responses.len() * width];
        for (row, response) in responses.iter().enumerate() {
            let mut last = *prompts[row].last().expect("a prompt") as usize;
            for (t, token) in response.iter().enumerate() {
                log_probs[row * width + t] = rows[last * VOCABULARY + *token as usize];
                last = *token as usize;
            }
        }
        log_probs
    };
    // Five numbers in f32.
    assert_close(host(&rollout.old_log_probs), by_hand(&sft(1)), 1e-6);
    assert_close(host(&rollout.reference_log_probs), by_hand(&sft(2)), 1e-6);
    assert_close(host(&rollout.raw_log_probs), by_hand(&sft(1)), 1e-6);
    assert_close(host(&rollout.sampled_log_probs), by_hand(&sft(1)), 1e-6);
}

#[test]
fn item_04_filtered_sampling_is_weighed_by_what_it_left_out() {
    let changes = json!({ "top_k": 2, "importance_cap": 3.0, "whiten_advantages": false });
    let ppo = plain_ppo(changes);
    let rollout = ppo.collect(0).expect("a rollout");
    let mut uncorrected = ppo.config().clone();
    uncorrected.importance_cap = None;
    let advantages = |config: &PpoConfig| {
        host(&estimate(&rollout, &config.regularizer(), config, &mut RunningMoments::default()).advantages)
    };
    let (weighed, plain) = (advantages(ppo.config()), advantages(&uncorrected));
    let (raw, drawn) = (host(&rollout.old_log_probs), host(&rollout.sampled_log_probs));
    let mut smaller = 0;
    for (at, plain) in plain.iter().enumerate() {
        let weight = (raw[at] - drawn[at]).exp();
        assert!((weighed[at] - weight * plain).abs() < 1e-6); // one product in f32
        smaller += usize::from(weight < 0.99);
    }
    assert!(smaller > 0, "the filter left something out");
}

#[test]
fn item_05_responses_end_with_the_first_of_several_stop_tokens() {
    let ppo = plain_ppo(json!({ "stop_token_ids": [0, 3], "response_length": 8 }));
    let rollout = ppo.collect(0).expect("a rollout");
    let mut seen = [0, 0];
    for (row, response) in rollout.completions.response.rows().iter().enumerate() {
        let first = response.iter().position(|token| [0, 3].contains(token));
        assert_eq!(rollout.stopped[row], first.is_some());
        if let Some(first) = first {
            assert_eq!(
                first + 1,
                response.len(),
                "nothing after the stop token, and the token itself is kept"
            );
            seen[usize::from(response[first] == 3)] += 1;
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "both stop tokens occurred: {seen:?}");
}

#[test]
fn item_05_responses_end_with_a_stop_string_as_with_a_stop_token() {
    let ppo = plain_ppo(json!({ "stop_strings": ["dc"], "missing_eos_penalty": 1.5, "response_length": 8 }));
    let rollout = ppo.collect(0).expect("a rollout");
    let mut by_string = 0;
    for (row, response) in rollout.completions.response.rows().iter().enumerate() {
        let text = letters(response);
        let by_token = text.ends_with('a');
        assert_eq!(rollout.stopped[row], by_token || text.ends_with("dc"), "{text}");
        assert!(!text[..text.len() - 1].contains("dc"), "nothing after it: {text}");
        by_string += usize::from(rollout.stopped[row] && !by_token);
    }
    assert!(by_string > 0, "a stop string occurred");

    let config = config(json!({ "stop_strings": ["dc"] }));
    let blind = Ppo::new(parts(sft(1), Frozen::new(&sft(1))), config).expect("found out when generating");
    let message = blind.collect(0).expect_err("no text to look in").to_string();
    assert!(message.contains("stop string \"dc\" needs a tokenizer"), "{message}");
}

#[test]
fn item_06_only_responses_without_any_configured_stop_are_punished() {
    let (scores, stopped) = ([1.0, 2.0, 3.0], [true, false, true]);
    assert_eq!(penalize_missing_stop(&scores, &stopped, MissingStop::Keep), [1.0, 2.0, 3.0]);
    assert_eq!(penalize_missing_stop(&scores, &stopped, MissingStop::Subtract(1.0)), [1.0, 1.0, 3.0]);
    assert_eq!(penalize_missing_stop(&scores, &stopped, MissingStop::Replace(-1.0)), [1.0, -1.0, 3.0]);
    // Through a rollout with two stop tokens: scores differ exactly where none of them occurred.
    let ppo = plain_ppo(json!({ "stop_token_ids": [0, 3], "missing_eos_penalty": 1.5 }));
    let rollout = ppo.collect(0).expect("a rollout");
    let estimates =
        estimate(&rollout, &ppo.config().regularizer(), ppo.config(), &mut RunningMoments::default());
    let responses = rollout.completions.response.rows();
    for (row, response) in responses.iter().enumerate() {
        let missing = !response.iter().any(|token| [0, 3].contains(token));
        let expected = rollout.scores[row] - if missing { 1.5 } else { 0.0 };
        assert_eq!(estimates.scores[row], expected);
    }
    assert!(rollout.stopped.contains(&false) && rollout.stopped.contains(&true));
}

#[test]
fn item_07_the_judge_sees_the_last_real_token_at_length_minus_one() {
    // Pays the id of the last token, found by the length, so padding must not count.
    let last_token = RewardFn(|completions: &Completions| -> Tensor<1> {
        let last: Vec<f32> =
            completions.response.rows().iter().map(|row| row[row.len() - 1] as f32).collect();
        Tensor::from_floats(last.as_slice(), &device())
    });
    let parts = PpoParts { reward: Box::new(last_token), ..parts(sft(1), Frozen::new(&sft(1))) };
    let rollout = Ppo::new(parts, config(json!({}))).expect("parts").collect(0).expect("a rollout");
    for (score, row) in rollout.scores.iter().zip(rollout.completions.response.rows()) {
        assert_eq!(*score, f64::from(row[row.len() - 1]));
    }
}

#[test]
fn item_08_a_judge_may_read_text_of_the_very_tokens() {
    // Its own alphabet: the judge decodes and counts letters; no token is lost or doubled on the way.
    let heard = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&heard);
    let letters = RewardFn(move |completions: &Completions| -> Tensor<1> {
        let text = |row: &Vec<u32>| row.iter().map(|id| char::from(b'a' + *id as u8)).collect::<String>();
        let texts: Vec<String> = completions.joined().rows().iter().map(text).collect();
        let scores: Vec<f32> = texts.iter().map(|text| text.matches('c').count() as f32).collect();
        noted.lock().expect("one thread").extend(texts);
        Tensor::from_floats(scores.as_slice(), &device())
    });
    let parts = PpoParts { reward: Box::new(letters), ..parts(sft(1), Frozen::new(&sft(1))) };
    let rollout = Ppo::new(parts, config(json!({}))).expect("parts").collect(0).expect("a rollout");
    let heard = heard.lock().expect("one thread");
    assert_eq!(heard.len(), 16);
    for (text, row) in heard.iter().zip(rollout.completions.joined().rows()) {
        assert_eq!(text.bytes().map(|letter| u32::from(letter - b'a')).collect::<Vec<_>>(), row);
    }
}

#[test]
fn item_11_rewards_are_minus_beta_k1_everywhere_plus_the_score_at_the_end() {
    let ppo =
        Ppo::new(parts(sft(1), Frozen::new(&sft(2))), config(json!({ "kl_coef": 0.3 }))).expect("parts");
    let rollout = ppo.collect(0).expect("a rollout");
    let estimates =
        estimate(&rollout, &ppo.config().regularizer(), ppo.config(), &mut RunningMoments::default());
    let width = rollout.completions.response.width();
    let (old, reference) = (host(&rollout.old_log_probs), host(&rollout.reference_log_probs));
    let rewards = host(&estimates.rewards);
    for (row, length) in rollout.completions.response.lengths().into_iter().enumerate() {
        for t in 0..width {
            let at = row * width + t;
            let penalty = if t < length { -0.3 * (old[at] - reference[at]) } else { 0.0 };
            let score = if t + 1 == length { rollout.scores[row] } else { 0.0 };
            assert!((rewards[at] - penalty - score).abs() < 1e-6); // two f32 operations on numbers below 4
        }
    }
}

#[test]
fn item_12_the_estimators_are_logged_in_nats_per_response_and_clamps_are_counted() {
    let mut ppo = Ppo::new(parts(sft(1), Frozen::new(&sft(2))), config(json!({}))).expect("parts");
    let rollout = ppo.collect(0).expect("a rollout");
    let metrics = ppo.iteration(0).expect("an iteration");
    let d: Vec<f64> = host(&rollout.old_log_probs)
        .iter()
        .zip(host(&rollout.reference_log_probs))
        .map(|(a, b)| a - b)
        .collect();
    let mean = |f: fn(f64) -> f64| d.iter().map(|d| f(*d)).sum::<f64>() / 16.0;
    // Sums of at most 64 numbers of order 1 in f32.
    assert_close(metric(&metrics, "objective/kl"), [mean(|d| d)], 1e-5);
    assert_close(metric(&metrics, "objective/kl1"), [mean(|d| d * d / 2.0)], 1e-5);
    assert_close(metric(&metrics, "objective/kl2"), [mean(|d| (-d).exp() - 1.0 + d)], 1e-5);
    assert_eq!(metric(&metrics, "divergence/log_ratio_clipfrac"), 0.0);

    // A reference that all but forbids a token: −30 nats are clamped, and it is said how often.
    let forbidding = BigramLm::independent(&[0.0, 0.0, -30.0, 0.0, 0.0], &device());
    let mut ppo = Ppo::new(parts(sft(1), Frozen::new(&forbidding)), config(json!({}))).expect("parts");
    let rollout = ppo.collect(0).expect("a rollout");
    let forbidden =
        rollout.completions.response.rows().concat().iter().filter(|token| **token == 2).count() as f64;
    let tokens = rollout.completions.response.lengths().iter().sum::<usize>() as f64;
    assert!(forbidden > 0.0);
    let metrics = ppo.iteration(0).expect("an iteration");
    assert_close(metric(&metrics, "divergence/log_ratio_clipfrac"), [forbidden / tokens], 1e-6);
}

#[test]
fn item_13_in_the_loss_the_gradient_is_that_of_the_surrogate_plus_beta_times_k2() {
    let (policy, reference) = (sft(1), sft(2).valid());
    let batch = completions(&[vec![1], vec![2]], &[vec![2, 3, 0], vec![4, 1]]);
    let old = policy.valid().token_log_probs(&batch, 1.0).log_probs;
    let reference_log_probs = reference.token_log_probs(&batch, 1.0).log_probs;
    let advantages = align_testkit::plain::<2>([[1.0, -0.5, 0.3], [0.7, -1.0, 0.0]]);
    let regularizer = |beta: f64| Regularizer {
        site: Site::Loss(Box::new(KlLoss::K2)),
        coefficient: Coefficient::Fixed { beta: NonNegative::try_from(beta).expect("not negative") },
        granularity: Granularity::Token,
    };
    let gradient = |beta: f64| {
        let regularizer = regularizer(beta);
        let objective = PolicyObjective::new(ClipRange::symmetric(0.2), 1.0, &regularizer, 2.5);
        let rows = PolicyBatch {
            completions: batch.clone(),
            old_log_probs: old.clone(),
            reference_log_probs: reference_log_probs.clone(),
            advantages: advantages.clone(),
        };
        let loss = objective.loss(&policy, &rows);
        assert_eq!(loss.weight, 5.0);
        module_gradients(&policy, &loss.value)["table"].clone()
    };
    let k2 = (policy.token_log_probs(&batch, 1.0).log_probs - reference_log_probs.clone()).square() / 2.0;
    let k2 = module_gradients(&policy, &masked::sum(k2, &batch.response.mask))["table"].clone();
    let (without, with) = (gradient(0.0), gradient(0.4));
    let expected: Vec<f64> = without.iter().zip(&k2).map(|(surrogate, k2)| surrogate + 0.4 * k2).collect();
    assert!(k2.iter().any(|slope| slope.abs() > 0.1));
    assert_close(with, expected, 1e-5); // f32 sums of a few numbers of order 1
}
