//! One test for each of the details that decide whether RLHF with PPO works, by their numbers in the project's list.
//!
//! Items 9 (the reward model's loss and head) and 10 (its centring) belong to the reward crate, the other half of 1 and 8
//! (position ids, templates) to the model and data crates; here is what PPO itself has to do.

use std::sync::{Arc, Mutex};

use align_core::masked::Shift;
use align_core::{
    CausalLm, Completions, Critic, Frozen, RewardFn, TokenBatch, advantages,
    divergence::KlLoss,
    masked,
    number::NonNegative,
    regularizer::{Coefficient, Granularity, Regularizer, Site},
};
use align_ppo::estimate::estimate;
use align_ppo::objective::{PolicyBatch, PolicyObjective};
use align_ppo::rewards::{MissingStop, RunningMoments, penalize_missing_stop};
use align_ppo::rollout::choose_prompts;
use align_ppo::surrogate::ClipRange;
use align_ppo::{Ppo, PpoConfig, PpoError, PpoParts, Preset};
use align_testkit::gradcheck::module_gradients;
use align_testkit::{BigramLm, assert_close, device};
use align_train::{Algorithm, Objective, Schedule};
use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor};
use serde_json::json;

use crate::world::{
    STOP, VOCABULARY, completions, config, count_of, host, metric, parts, plain_ppo, run, sft, table,
    without_critic,
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

#[test]
fn item_14_adaptive_beta_follows_the_mean_sequence_divergence() {
    let changes = json!({ "kl_coef": 0.2, "kl_target": 40.0, "kl_horizon": 100.0 });
    let mut ppo = Ppo::new(parts(sft(1), Frozen::new(&sft(2))), config(changes)).expect("parts");
    let mut expected = 0.2;
    for metrics in run(&mut ppo, 3) {
        assert_close(metric(&metrics, "objective/kl_coef"), [expected], 1e-12);
        let error = (metric(&metrics, "objective/kl") / 40.0 - 1.0f64).clamp(-0.2, 0.2);
        expected *= 1.0 + error * 16.0 / 100.0;
    }
    assert_close(ppo.beta(), [expected], 1e-6);
    assert!(ppo.beta() < 0.19, "far below the target, β falls");
}

#[test]
fn item_15_whitened_rewards_keep_their_mean_and_the_alternatives_scale_scores() {
    let ppo = plain_ppo(json!({}));
    let rollout = ppo.collect(0).expect("a rollout");
    let estimates = |changes| {
        let config = config(changes);
        estimate(&rollout, &config.regularizer(), &config, &mut RunningMoments::default())
    };
    // λ = 1 without baseline: the returns are sums of what was paid, so their first entries show the whitened rewards.
    let mask = &rollout.completions.response.mask;
    let plain = estimates(json!({}));
    let white = masked::whiten(plain.rewards.clone(), mask, Shift::Keep);
    let mean = |x: Tensor<2>| masked::mean(x, mask).into_scalar::<f64>();
    assert!(mean(plain.rewards.clone()) > 0.1, "something to keep");
    assert_close(mean(white.clone()), [mean(plain.rewards)], 1e-5);
    let values = rollout.values.clone().expect("a critic");
    let expected = advantages::gae(white, values, mask, 1.0, 0.95).returns;
    let returns = estimates(json!({ "whiten_rewards": true })).returns.expect("a critic");
    assert_close(host(&returns), host(&expected), 1e-6);

    let clipped = estimates(json!({ "reward_clip_range": 0.5 })).scores;
    assert!(clipped.iter().zip(&rollout.scores).all(|(clipped, raw)| *clipped == raw.clamp(-0.5, 0.5)));
    let mut moments = RunningMoments::default();
    moments.update(&rollout.scores);
    let scaled = estimates(json!({ "running_reward_std": true })).scores;
    let expected: Vec<f64> =
        rollout.scores.iter().map(|score| score / moments.standard_deviation()).collect();
    assert_close(scaled, expected, 1e-12);
}

#[test]
fn item_16_gae_carries_the_accumulator_through_masked_positions() {
    // Two rows of the same tokens, one with a hole: case 5 of the specification must come out of both.
    let (r, v) = ([-0.02, 0.01, -0.03, 1.16], [0.30, 0.45, 0.50, 0.70]);
    let whole = advantages::gae(
        align_testkit::double([r]),
        align_testkit::double([v]),
        &align_testkit::all_true(1, 4),
        1.0,
        0.95,
    );
    let holed = advantages::gae(
        align_testkit::double([[r[0], 9.0, r[1], r[2], r[3]]]),
        align_testkit::double([[v[0], 9.0, v[1], v[2], v[3]]]),
        &align_testkit::mask([[true, false, true, true, true]]),
        1.0,
        0.95,
    );
    let holed = host(&holed.advantages);
    assert_close(host(&whole.advantages), [holed[0], holed[2], holed[3], holed[4]], 1e-12);
    assert_close(host(&whole.advantages), [0.73481750, 0.63665, 0.607, 0.46], 1e-6);
    assert_eq!(holed[1], 0.0);
}

#[test]
fn item_17_returns_come_from_unwhitened_advantages() {
    let ppo = plain_ppo(json!({ "cliprange_value": 0.0 }));
    let rollout = ppo.collect(0).expect("a rollout");
    let estimates =
        estimate(&rollout, &ppo.config().regularizer(), ppo.config(), &mut RunningMoments::default());
    let mask = &rollout.completions.response.mask;
    let values = rollout.values.clone().expect("a critic");
    let gae = advantages::gae(estimates.rewards.clone(), values, mask, 1.0, 0.95);
    assert_close(host(&estimates.returns.expect("a critic")), host(&gae.returns), 1e-6);
    // Whitened over the whole rollout: mean 0, sample variance 1 over the tokens that count.
    assert_close(masked::mean(estimates.advantages.clone(), mask), [0.0], 1e-5);
    assert_close(masked::variance(estimates.advantages.clone(), mask), [1.0], 1e-5);
    // The critic is 0 and the scores are not: before whitening the mean is far from 0, and so are the returns.
    let unwhitened = masked::mean(gae.advantages, mask).into_scalar::<f64>();
    assert!(unwhitened > 0.2, "whitening did something: {unwhitened}");
}

#[test]
fn item_18_the_policy_loss_clips_on_the_pessimistic_side_only() {
    use align_ppo::surrogate::clipped_surrogate;
    // ρ, Â → −min(ρÂ, clip(ρ)Â): a good move back (ρ = 0.5, Â = 1) and a bad move on (ρ = 2, Â = −1) are not clipped.
    for (ratio, advantage, expected) in
        [(2.0, 1.0, -1.2), (0.5, 1.0, -0.5), (2.0, -1.0, 2.0), (0.5, -1.0, 0.8)]
    {
        let log_ratio = align_testkit::double::<2>([[f64::ln(ratio)]]);
        let all = align_testkit::all_true(1, 1);
        let loss = clipped_surrogate(
            log_ratio,
            align_testkit::double([[advantage]]),
            &all,
            ClipRange::symmetric(0.2),
            1.0,
        );
        assert_close(loss, [expected], 1e-12);
    }
}

#[test]
fn item_19_the_value_loss_holds_the_half_and_the_coefficient_multiplies_the_gradient_only() {
    // The first critic is zero everywhere, so its first loss is ½·mean(G²) with one epoch; it is logged without c_v.
    let mut ppo = plain_ppo(json!({ "num_ppo_epochs": 1, "vf_coef": 0.1 }));
    let rollout = ppo.collect(0).expect("a rollout");
    let estimates =
        estimate(&rollout, &ppo.config().regularizer(), ppo.config(), &mut RunningMoments::default());
    let returns = estimates.returns.expect("a critic");
    let expected =
        masked::mean(returns.square(), &rollout.completions.response.mask).into_scalar::<f64>() / 2.0;
    let metrics = ppo.iteration(0).expect("an iteration");
    assert_close(metric(&metrics, "loss/value_avg"), [expected], 1e-5);
    let gradient = |vf_coef: f64| {
        let mut ppo = plain_ppo(json!({ "num_ppo_epochs": 1, "vf_coef": vf_coef }));
        metric(&ppo.iteration(0).expect("an iteration"), "critic/grad_norm")
    };
    assert_close(gradient(0.4) / gradient(0.1), [4.0], 1e-4);
}

#[test]
fn item_20_the_critic_has_a_rate_a_schedule_and_a_warm_up_of_its_own() {
    let changes = json!({
        "critic_warmup": 1, "learning_rate": 0.1, "critic_learning_rate": 0.02,
        "critic_lr_schedule": { "kind": "constant" },
    });
    let mut ppo = plain_ppo(changes);
    let (policy, critic) = (table(ppo.policy()), ppo.critic().expect("a critic").table.val().to_data());
    let first = ppo.iteration(0).expect("an iteration");
    assert_eq!(table(ppo.policy()), policy, "frozen during the warm-up");
    assert_ne!(ppo.critic().expect("a critic").table.val().to_data(), critic, "the critic learns meanwhile");
    assert_eq!(first.get("lr"), None, "no policy step, no policy rate");
    let metrics = run_from(&mut ppo, 1, 4);
    assert_ne!(table(ppo.policy()), policy);
    // 3 iterations × 2 epochs of the policy: its line ends one step above 0; the critic's rate never moves.
    let last = metrics.last().expect("three iterations");
    assert_close(metric(last, "lr"), [0.1 / 6.0], 1e-9);
    assert_close(metric(last, "critic/lr"), [0.02], 1e-12);
    assert_close(metric(&first, "critic/lr"), [0.02], 1e-12);
}

fn run_from<C: Critic>(ppo: &mut Ppo<BigramLm, C>, from: u64, to: u64) -> Vec<align_train::Metrics> {
    (from..to).map(|iteration| ppo.iteration(iteration).expect("an iteration")).collect()
}

#[test]
fn item_21_the_first_minibatch_has_ratio_one_and_the_samplers_gap_is_rounding() {
    let mut ppo = plain_ppo(json!({ "num_ppo_epochs": 1, "minibatch": 16 }));
    for metrics in run(&mut ppo, 3) {
        // One forward pass against another of the same weights in f32.
        assert_close(metric(&metrics, "val/ratio"), [1.0], 1e-6);
        assert_close(metric(&metrics, "policy/approxkl_avg"), [0.0], 1e-9);
        assert!(metric(&metrics, "training/rollout_probs_diff_max") < 1e-6);
    }
    // And it does move afterwards.
    let mut ppo = plain_ppo(json!({ "num_ppo_epochs": 4 }));
    assert!(metric(&ppo.iteration(0).expect("an iteration"), "policy/approxkl_avg") > 1e-5);
}

#[test]
fn item_22_one_microbatch_of_sixteen_equals_sixteen_of_one() {
    let after = |microbatch: usize| {
        let mut ppo = plain_ppo(json!({ "microbatch": microbatch }));
        run(&mut ppo, 2);
        (
            table(ppo.policy()),
            ppo.critic().expect("a critic").table.val().to_data().iter::<f32>().collect::<Vec<_>>(),
        )
    };
    let (whole, one, odd) = (after(16), after(1), after(5));
    // Sums in another order: rounding of 1e-7 a step, divided by Adam's √v and multiplied by a rate of 0.1.
    for other in [one, odd] {
        assert_close(&whole.0[..], &other.0[..], 2e-4);
        assert_close(&whole.1[..], &other.1[..], 2e-4);
    }
    assert_ne!(whole.0, table(&sft(1)));
}

#[test]
fn item_23_four_epochs_reshuffled_adam_with_a_large_epsilon_a_line_to_zero_and_a_norm_clip() {
    let config = PpoConfig::default();
    let optimizer = config.policy_optimizer();
    assert_eq!(
        (config.num_ppo_epochs, optimizer.learning_rate.get(), optimizer.epsilon.get()),
        (4, 3e-6, 1e-5)
    );
    assert_eq!(optimizer.max_grad_norm.get(), 1.0);
    let Schedule::Linear { warmup, floor } = optimizer.schedule else { panic!("a line") };
    assert_eq!((warmup, floor.get()), (0, 0.0));
    // Minibatches of an epoch are drawn anew: with one epoch the same rollout gives other steps than with another pass.
    let draws = align_core::Draws::new(0);
    let order = |pass| {
        use rand::seq::SliceRandom;
        let mut order: Vec<usize> = (0..64).collect();
        order.shuffle(&mut draws.generator(align_core::draws::Purpose::Minibatch, pass));
        order
    };
    assert_ne!(order(0), order(1));
    // 4 iterations × 2 epochs × 4 minibatches: the last step runs at 1/32 of the rate.
    let mut ppo = plain_ppo(json!({ "num_mini_batches": 4 }));
    let metrics = run(&mut ppo, 4);
    assert_close(metric(&metrics[3], "lr"), [0.1 / 32.0], 1e-9);
}

#[test]
fn item_24_statistics_count_tokens_and_not_padding() {
    // Two prompts of the same policy, one rollout padded further by a longer response: entropy, approxkl and the rest are
    // means over tokens, computed here by hand from the rows.
    let mut ppo = plain_ppo(json!({ "num_ppo_epochs": 1 }));
    let rollout = ppo.collect(0).expect("a rollout");
    let lengths = rollout.completions.response.lengths();
    assert!(lengths.iter().any(|length| *length < 4), "some padding: {lengths:?}");
    let rows = host(&log_softmax(sft(1).valid().table.val(), 1));
    let entropy = |token: usize| -> f64 {
        rows[token * VOCABULARY..(token + 1) * VOCABULARY].iter().map(|log| -log.exp() * log).sum()
    };
    let (prompts, responses) = (rollout.completions.prompt.rows(), rollout.completions.response.rows());
    let before = |row: usize, t: usize| {
        if t == 0 { *prompts[row].last().expect("a prompt") } else { responses[row][t - 1] }
    };
    let entropies: Vec<f64> = (0..16)
        .flat_map(|row| (0..responses[row].len()).map(move |t| (row, t)))
        .map(|(row, t)| entropy(before(row, t) as usize))
        .collect();
    let metrics = ppo.iteration(0).expect("an iteration");
    let expected = entropies.iter().sum::<f64>() / entropies.len() as f64;
    assert_close(metric(&metrics, "policy/entropy_avg"), [expected], 1e-5);
    assert_close(metric(&metrics, "objective/token_entropy"), [expected], 1e-5);
    let mean_length = lengths.iter().sum::<usize>() as f64 / 16.0;
    assert_close(metric(&metrics, "response_length/mean"), [mean_length], 1e-9);
    let stops = responses.iter().flatten().filter(|token| **token == STOP).count() as f64;
    assert_eq!(metric(&metrics, "val/num_eos_tokens"), stops);
    assert_eq!(metric(&metrics, "val/stop_token_rate"), stops / 16.0);
}

#[test]
fn item_25_draws_depend_on_counters_and_not_on_batching() {
    let draws = align_core::Draws::new(7);
    let pool: Vec<Vec<u32>> = (0..10).map(|id| vec![id]).collect();
    // Every pass over the pool visits every prompt once; passes differ; nothing depends on what was asked before.
    let visited: Vec<u64> =
        (0..5).flat_map(|i| choose_prompts(&draws, &pool, i, 4)).map(|p| p.ids[0] as u64).collect();
    for pass in visited.chunks(10) {
        let mut sorted = pass.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..10).collect::<Vec<_>>());
    }
    assert_ne!(visited[..10], visited[10..]);
    assert_eq!(choose_prompts(&draws, &pool, 3, 4), choose_prompts(&draws, &pool, 3, 4));
    // A pool smaller than the rollout: prompts that come up twice get keys of their own, so they are answered anew.
    let keys: std::collections::BTreeSet<u64> =
        choose_prompts(&draws, &pool, 0, 25).into_iter().map(|prompt| prompt.key).collect();
    assert_eq!(keys.len(), 25);
    // The same rollout, whatever the microbatch (and with it the number of decoding slots).
    let ids = |microbatch: usize| {
        plain_ppo(json!({ "microbatch": microbatch }))
            .collect(1)
            .expect("a rollout")
            .completions
            .response
            .rows()
    };
    assert_eq!(ids(1), ids(16));
}

#[test]
fn item_25_a_checkpoint_holds_beta_running_statistics_and_both_optimizers() {
    let folder = tempfile::tempdir().expect("a folder");
    let changes = json!({ "kl_target": 40.0, "kl_horizon": 100.0, "running_reward_std": true });
    let make = || Ppo::new(parts(sft(1), Frozen::new(&sft(2))), config(changes.clone())).expect("parts");
    let mut ppo = make();
    run(&mut ppo, 2);
    ppo.save(folder.path()).expect("saved");
    let state = std::fs::read_to_string(folder.path().join("ppo.json")).expect("the state");
    assert!(state.contains("adaptive") && state.contains("squares"), "{state}");
    for file in ["policy/optimizer.safetensors", "critic/optimizer.safetensors"] {
        assert!(folder.path().join(file).exists(), "{file}");
    }
    let mut restored = make();
    restored.restore(folder.path()).expect("restored");
    assert_eq!(restored.beta(), ppo.beta());
}

#[test]
fn presets_run() {
    // Smaller batches, but each preset's own choices: whitening, adaptive β, value clip, one epoch.
    for preset in Preset::ALL {
        let mut config = preset.config();
        (config.rollout_batch, config.minibatch, config.microbatch) = (8, None, 4);
        (config.total_episodes, config.response_length) = (16, 4);
        config.stop_token_ids = vec![STOP];
        let mut ppo = Ppo::new(parts(sft(1), Frozen::new(&sft(1))), config).expect("parts");
        assert_eq!(run(&mut ppo, 2).len(), 2, "{preset:?}");
    }
}

#[test]
fn without_a_critic_the_three_baselines_center_what_they_should() {
    for (estimator, generations) in [("position_baseline", 1), ("leave_one_out", 4), ("group_normalized", 4)]
    {
        let changes = json!({ "advantage_estimator": estimator, "num_generations": generations });
        let parts = without_critic(parts(sft(1), Frozen::new(&sft(1))));
        let mut ppo = Ppo::new(parts, config(changes)).expect("parts");
        let rollout = ppo.collect(0).expect("a rollout");
        let estimates =
            estimate(&rollout, &ppo.config().regularizer(), ppo.config(), &mut RunningMoments::default());
        assert!(estimates.returns.is_none());
        let advantages = host(&estimates.advantages);
        let width = rollout.completions.response.width();
        let first: Vec<f64> = advantages.iter().step_by(width).copied().collect();
        match estimator {
            // Every response has a first token: that column is centred.
            "position_baseline" => assert!(first.iter().sum::<f64>().abs() < 1e-4),
            "group_normalized" => {
                assert!(first.chunks(4).all(|group| group.iter().sum::<f64>().abs() < 1e-4))
            }
            // Whitened over tokens afterwards: responses of one group keep their order.
            _ => assert!(first.iter().any(|advantage| *advantage > 0.0) && first.iter().any(|a| *a < 0.0)),
        }
        let before = table(ppo.policy());
        let metrics = run(&mut ppo, 2);
        assert_ne!(table(ppo.policy()), before);
        assert_eq!(metrics[0].get("critic/vf_explained_var"), None);
    }
}

#[test]
fn gold_and_anchors_are_logged_and_never_learnt_from() {
    let make = |gold: bool| {
        let mut parts = parts(sft(1), Frozen::new(&sft(1)));
        if gold {
            parts.gold = Some(count_of(4));
            parts.anchors = vec![("other".to_owned(), Box::new(Frozen::new(&sft(2))))];
        }
        Ppo::new(parts, config(json!({}))).expect("parts")
    };
    let (mut with, mut without) = (make(true), make(false));
    let rollout = with.collect(0).expect("a rollout");
    let metrics = run(&mut with, 2);
    run(&mut without, 2);
    assert_eq!(table(with.policy()), table(without.policy()));
    let gold = rollout.gold.as_ref().expect("a gold judge");
    assert_close(metric(&metrics[0], "gold/score"), [gold.iter().sum::<f64>() / 16.0], 1e-9);
    assert!(metric(&metrics[0], "objective/kl_to_other") > 0.1);
}

#[test]
fn every_metric_of_trl_is_reported_under_its_name() {
    let mut ppo = plain_ppo(json!({}));
    let metrics = ppo.iteration(0).expect("an iteration");
    for name in [
        "objective/kl",
        "objective/entropy",
        "objective/non_score_reward",
        "objective/rlhf_reward",
        "objective/scores",
        "policy/approxkl_avg",
        "policy/clipfrac_avg",
        "policy/entropy_avg",
        "loss/policy_avg",
        "loss/value_avg",
        "val/clipfrac_avg",
        "val/ratio",
        "val/ratio_var",
        "val/num_eos_tokens",
        "lr",
        "episode",
        "eps",
        "critic/vf_explained_var",
        "response_length/mean",
        "response_length/max",
        "response_length/min",
        "response_length/clip_ratio",
        "val/stop_token_rate",
        "actor/grad_norm",
        "objective/kl0",
        "objective/kl1",
        "objective/kl2",
        "objective/kl3",
        "training/rollout_probs_diff_mean",
        "training/rollout_probs_diff_max",
        "training/rollout_probs_diff_std",
        "divergence/log_ratio_clipfrac",
        "timing_s/generate",
        "perf/throughput",
    ] {
        assert!(metric(&metrics, name).is_finite(), "{name}");
    }
    let sum = metric(&metrics, "objective/scores") + metric(&metrics, "objective/non_score_reward");
    assert_close(metric(&metrics, "objective/rlhf_reward"), [sum], 1e-12);
}
