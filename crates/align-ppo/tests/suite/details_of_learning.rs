//! The second half of the list, items 14 to 25: from rewards to optimiser steps. See `details` for what is elsewhere.

use align_core::masked::Shift;
use align_core::{Critic, Frozen, advantages, masked};
use align_models::choose_prompts;
use align_ppo::estimate::estimate;
use align_ppo::rewards::RunningMoments;
use align_ppo::surrogate::ClipRange;
use align_ppo::{Ppo, PpoConfig, Preset};
use align_testkit::{BigramLm, assert_close};
use align_train::{Algorithm, Schedule};
use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;
use serde_json::json;

use crate::world::{
    STOP, VOCABULARY, config, count_of, host, metric, parts, plain_ppo, run, sft, table, without_critic,
};

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
