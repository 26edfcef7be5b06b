//! The whole algorithm where the answer is known, and its laws.

use std::sync::{Arc, Mutex};

use align_core::{Completions, Frozen, Reference, Reward};
use align_superhf::ideal::{best_of_n_distribution, trajectory};
use align_superhf::{NoPrior, SuperHf, SuperHfError, SuperHfParts, Warning};
use align_testkit::{BigramLm, assert_close, device, train_device};
use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use serde_json::{Value, json};

use crate::world::{by_tokens, config, count_of, metric, parts, run, sft, superhf, table};

const START: [f32; 4] = [0.5, 0.3, 0.15, 0.05];
const REWARDS: [f32; 4] = [0.0, 1.0, 0.5, 2.0];

/// One prompt, one-token responses: the policy is a single distribution.
fn one_token(changes: Value) -> SuperHf<BigramLm> {
    let start = BigramLm::independent(&START.map(f32::ln), &train_device());
    let parts = SuperHfParts {
        prior: Box::new(Frozen::new(&start)),
        policy: start,
        reward: by_tokens(|row| REWARDS[row[0] as usize]),
        prompts: vec![vec![0]; 64],
        ..parts()
    };
    let mut all = json!({
        "prompt_accumulation_steps": 64, "top_k": 1, "minibatch": 64, "microbatch": 64, "response_length": 1,
        "stop_token_ids": [], "learning_rate": 0.05, "weight_decay": 0.0, "kl_samples": 0,
    });
    changes.as_object().expect("an object").iter().for_each(|(name, value)| all[name] = value.clone());
    SuperHf::new(parts, config(all)).expect("parts")
}

/// The policy after the prompt's token.
fn distribution(policy: &BigramLm) -> Vec<f64> {
    softmax(policy.valid().table.val(), 1).narrow(0, 0, 1).to_data().iter::<f64>().collect()
}

#[test]
fn the_policy_settles_where_the_idealised_trajectory_does() {
    let (start, rewards) = (START.map(f64::from), REWARDS.map(f64::from));
    for (samples, beta) in [(2, 1.0), (4, 0.35), (16, 1.0)] {
        let groups = 150;
        let mut superhf = one_token(json!({
            "superbatch_size": samples, "kl_coef": beta, "total_episodes": 64 * samples * groups,
        }));
        (0..groups as u64).for_each(|step| drop(superhf.iteration(step).expect("a group")));
        let limit = trajectory(&start, &rewards, samples, beta).nth(2000).expect("it never ends");
        // The rate falls to 0, which averages the noise of 64 winners (standard error of a frequency 0.06 a step) away.
        assert_close(distribution(superhf.policy()), limit, 0.03);
    }
}

#[test]
fn what_is_kept_has_the_distribution_of_the_best_of_n() {
    // 64 prompts by 16 groups that learn nothing: n = 1024, five standard errors of a frequency of ½.
    let superhf = one_token(json!({ "superbatch_size": 4, "total_episodes": 64 * 4 * 16 }));
    let mut frequency = [0.0; 4];
    for step in 0..16 {
        let superbatch = superhf.collect(step).expect("samples");
        let chosen = superbatch.choose(superhf.config().filter).expect("finite");
        superbatch.kept(&chosen).iter().for_each(|kept| frequency[kept.response[0] as usize] += 1.0 / 1024.0);
    }
    let expected = best_of_n_distribution(&START.map(f64::from), &REWARDS.map(f64::from), 4);
    assert_close(frequency, expected, 5.0 * 0.5 / 1024f64.sqrt());
}

#[test]
fn without_the_prior_the_losers_are_forgotten_and_with_it_they_keep_their_floor() {
    let end = |changes: Value| {
        let mut all = json!({ "superbatch_size": 16, "total_episodes": 64 * 16 * 100, "learning_rate": 0.1 });
        changes.as_object().expect("an object").iter().for_each(|(name, value)| all[name] = value.clone());
        let mut superhf = one_token(all);
        (0..100).for_each(|step| drop(superhf.iteration(step).expect("a group")));
        distribution(superhf.policy())
    };
    let floor = 0.35 / 1.35;
    let held = end(json!({ "kl_coef": 0.35 }));
    for loser in [0, 2] {
        let prior = f64::from(START[loser]);
        assert!((held[loser] / (floor * prior) - 1.0).abs() < 0.2, "{held:?}");
    }
    let free = end(json!({ "kl_coef": 0.0 }));
    assert!(free[0] < 0.25 * floor * 0.5, "{free:?}");
    // The other direction has no floor, but holds the policy too.
    let reverse = end(json!({ "kl_coef": 0.35, "kl_direction": "policy_to_prior" }));
    assert!(reverse[0] > 4.0 * free[0], "{reverse:?} against {free:?}");
}

#[test]
fn beta_0_and_no_prior_are_one_policy_to_the_last_bit() {
    let trained = |changes: Value| {
        let mut superhf = superhf(changes);
        run(&mut superhf, 8);
        table(superhf.policy()).into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let without = trained(json!({ "prior": "none" }));
    assert_eq!(without, trained(json!({ "kl_coef": 0.0 })));
    assert_ne!(without, trained(json!({ "kl_coef": 0.35 })));
}

#[test]
fn a_prior_that_is_none_is_never_asked() {
    struct Untouchable;
    impl Reference for Untouchable {
        fn log_probs(&self, _: &Completions, _: f64) -> Tensor<2> {
            panic!("asked for log-probabilities")
        }
        fn distributions(&self, _: &Completions) -> Option<align_core::NextTokens<'_>> {
            panic!("asked for distributions")
        }
    }
    let parts = SuperHfParts { prior: Box::new(Untouchable), ..parts() };
    let mut superhf = SuperHf::new(parts, config(json!({ "prior": "none" }))).expect("parts");
    let metrics = run(&mut superhf, 1).remove(0);
    assert_eq!((metrics.get("objective/kl"), metrics.get("loss/kl")), (None, None));
    assert_eq!(metric(&metrics, "objective/kl_coef"), 0.0);
    let parts = SuperHfParts { prior: Box::new(NoPrior), ..crate::world::parts() };
    run(&mut SuperHf::new(parts, config(json!({ "prior": "none" }))).expect("parts"), 1);
}

#[test]
fn the_prior_stands_still_to_the_last_bit_even_if_it_is_made_of_the_policy() {
    let policy = sft(1);
    let prior = Frozen::new(&policy);
    let before = table(prior.get());
    let parts = SuperHfParts { policy, prior: Box::new(prior.clone()), ..parts() };
    let mut superhf = SuperHf::new(parts, config(json!({ "minibatch": 6 }))).expect("parts");
    let metrics = run(&mut superhf, 8);
    assert_eq!(table(prior.get()), before);
    assert!(!prior.get().table.val().is_autodiff(), "nothing to differentiate");
    assert_ne!(table(superhf.policy()), before);
    // f32 rounding: of four tokens by two ways, and of a KL of equals.
    assert_close(metric(&metrics[0], "objective/kl"), [0.0], 1e-5);
    assert_close(metric(&metrics[0], "loss/kl"), [0.0], 1e-6);
    assert!(metric(&metrics[7], "loss/kl") > 0.01);
}

#[test]
fn a_prior_that_is_not_the_start_is_refused_before_the_first_step_unless_it_is_meant() {
    let with = |changes: Value| {
        let parts = SuperHfParts { prior: Box::new(Frozen::new(&sft(2))), ..parts() };
        SuperHf::new(parts, config(changes)).expect("parts")
    };
    for changes in [json!({}), json!({ "kl_coef": 0.0 }), json!({ "kl_direction": "policy_to_prior" })] {
        let mut superhf = with(changes);
        let error = superhf.iteration(0).expect_err("another model");
        assert!(matches!(error, SuperHfError::PriorIsNotStart { found, .. } if found > 0.1), "{error}");
        assert_eq!(table(superhf.policy()), table(&sft(1)), "nothing was learnt");
    }
    let mut other = with(json!({ "prior": "other" }));
    let metrics = run(&mut other, 1).remove(0);
    assert!(metric(&metrics, "loss/kl") > 0.1);
}

#[test]
fn sampling_does_not_depend_on_what_is_sampled_at_once() {
    let sampled = |microbatch: usize| {
        let superhf = superhf(json!({ "microbatch": microbatch }));
        let superbatch = superhf.collect(5).expect("samples");
        superbatch.completions.iter().map(|of| (of.response.clone(), of.penalized)).collect::<Vec<_>>()
    };
    let (one, four, all) = (sampled(1), sampled(4), sampled(64));
    assert_eq!(one.len(), 18);
    assert_eq!(one, four);
    assert_eq!(one, all);
    let distinct: std::collections::BTreeSet<_> = one.iter().map(|(response, _)| response).collect();
    assert!(distinct.len() > 9, "samples of a prompt differ: {distinct:?}");
}

#[test]
fn the_microbatch_is_memory_and_not_results() {
    // Adam divides by the root of a moment, so f32 rounding of a small gradient shows in the third digit of a step of 0.1.
    for changes in [json!({}), json!({ "inverse_loss": 0.05 }), json!({ "kl_reduction": "token_mean" })] {
        let trained = |microbatch: usize| {
            let mut all = changes.clone();
            all["microbatch"] = json!(microbatch);
            let mut superhf = superhf(all);
            run(&mut superhf, 8);
            table(superhf.policy())
        };
        let whole = trained(4);
        assert_close(&trained(1)[..], whole.clone(), 1e-3);
        assert_close(&trained(3)[..], whole, 1e-3);
    }
}

#[test]
fn what_is_learnt_is_what_was_kept() {
    // The judge likes token 2 alone; the first step raises it after the tokens it was kept after, and others lose.
    let mut superhf =
        superhf(json!({ "kl_coef": 0.0, "minibatch": 64, "response_length": 1, "stop_token_ids": [] }));
    let superbatch = superhf.collect(0).expect("samples");
    let chosen = superbatch.choose(superhf.config().filter).expect("finite");
    let before = table(superhf.policy());
    let kept: Vec<(u32, u32)> = superbatch
        .kept(&chosen)
        .iter()
        .map(|kept| (*superbatch.prompts[kept.prompt].ids.last().expect("a token"), kept.response[0]))
        .collect();
    superhf.iteration(0).expect("a group");
    let after = table(superhf.policy());
    for row in 0..5u32 {
        let answers: Vec<u32> =
            kept.iter().filter(|(last, _)| *last == row).map(|(_, answer)| *answer).collect();
        for token in 0..5u32 {
            let place = (row * 5 + token) as usize;
            match (answers.is_empty(), answers.contains(&token)) {
                // Decay alone: 0.1 · 0.01 of the value.
                (true, _) => assert_close(after[place], [before[place] * 0.999], 1e-6),
                (false, false) => assert!(after[place] < before[place] - 0.05, "row {row}, token {token}"),
                (false, true) if answers.iter().all(|answer| *answer == token) => {
                    assert!(after[place] > before[place] + 0.05, "row {row}, token {token}");
                }
                _ => {}
            }
        }
    }
}

#[test]
fn the_rate_moves_once_a_group_and_stretches_over_all_groups() {
    // Three prompts, two kept each, two to a step: three steps a group.
    let mut superhf = superhf(json!({
        "minibatch": 2, "lr_schedule": { "kind": "linear" }, "stop_token_ids": [], "total_episodes": 18 * 4,
    }));
    assert_eq!(superhf.plan().groups, 4);
    let rates: Vec<f64> = run(&mut superhf, 4).iter().map(|metrics| metric(metrics, "lr")).collect();
    assert_close(rates, [0.1, 0.075, 0.05, 0.025], 1e-12); // f64 rounding
}

#[test]
fn a_single_pass_samples_everything_from_the_start_and_moves_the_rate_with_its_steps() {
    let seen: Arc<Mutex<usize>> = Arc::default();
    struct Counting(Box<dyn Reward>, Arc<Mutex<usize>>);
    impl Reward for Counting {
        fn score(&self, completions: &Completions) -> Tensor<1> {
            *self.1.lock().expect("alone") += completions.batch_size();
            self.0.score(completions)
        }
    }
    let parts = SuperHfParts { reward: Box::new(Counting(count_of(2), seen.clone())), ..parts() };
    let changes = json!({
        "prompt_accumulation_steps": 0, "minibatch": 3, "stop_token_ids": [], "lr_schedule": { "kind": "linear" },
    });
    let mut superhf = SuperHf::new(parts, config(changes)).expect("parts");
    assert_eq!((superhf.plan().groups, superhf.plan().prompts), (1, 6));
    let pool = superhf.collect(0).expect("samples").pool_index;
    assert_eq!(pool.iter().collect::<std::collections::BTreeSet<_>>().len(), 6);
    let metrics = run(&mut superhf, 1).remove(0);
    assert_eq!(*seen.lock().expect("alone"), 2 * 36, "once for `collect`, once for the group");
    assert_eq!((metric(&metrics, "episode"), metric(&metrics, "superhf/kept")), (36.0, 12.0));
    // Four steps of three: the last one has a quarter of the line left.
    assert_close(metric(&metrics, "lr"), [0.025], 1e-12);
}

#[test]
fn without_selection_the_reward_decides_nothing() {
    let trained = |reward: Box<dyn Reward>, changes: Value| {
        let mut superhf = SuperHf::new(SuperHfParts { reward, ..parts() }, config(changes)).expect("parts");
        let warnings = superhf.take_warnings();
        run(&mut superhf, 4);
        (table(superhf.policy()), warnings)
    };
    // With one sample a prompt nothing is chosen at all.
    let alone = json!({ "superbatch_size": 1, "top_k": 1, "stop_token_ids": [] });
    let ((first, warnings), (second, _)) = (trained(count_of(2), alone.clone()), trained(count_of(3), alone));
    assert_eq!(first, second);
    assert_eq!(warnings, [Warning::SelfTraining]);
    let all = json!({ "top_k": 6 });
    let (_, warnings) = trained(count_of(2), all);
    assert_eq!(warnings, [Warning::NoSelection { samples: 6 }]);
    let some = json!({ "top_k": 1 });
    assert_ne!(trained(count_of(2), some.clone()).0, trained(count_of(3), some).0);
}

#[test]
fn a_score_is_raised() {
    for filter in [
        json!({ "kind": "top_k", "k": 1 }),
        json!({ "kind": "threshold", "above": 1.5 }),
        json!({ "kind": "percentile", "percentile": 0.7 }),
    ] {
        let mut superhf = superhf(json!({ "filter": filter, "total_episodes": 18 * 40, "kl_coef": 0.05 }));
        let metrics = run(&mut superhf, 40);
        let mean = |range: std::ops::Range<usize>| {
            let count = range.len() as f64;
            range.map(|index| metric(&metrics[index], "objective/scores")).sum::<f64>() / count
        };
        // At most four hits a response.
        let (start, end) = (mean(0..5), mean(35..40));
        assert!(end > start + 1.0, "{filter}: {start} to {end}");
    }
}

#[test]
fn a_group_of_which_nothing_is_kept_teaches_nothing() {
    let mut superhf = superhf(json!({ "filter": { "kind": "threshold", "above": 100.0 } }));
    let before = table(superhf.policy());
    let metrics = run(&mut superhf, 1).remove(0);
    assert_eq!(table(superhf.policy()), before);
    assert_eq!((metric(&metrics, "superhf/kept"), metrics.get("loss")), (0.0, None));
    assert!(metrics.iter().all(|(_, value)| value.is_finite()), "{metrics:?}");
}

#[test]
fn padding_changes_no_score_that_is_selected_by() {
    // P9: each response alone and all together, longest prompts and shortest.
    let superhf = superhf(json!({ "microbatch": 18 }));
    let superbatch = superhf.collect(0).expect("samples");
    let reward = count_of(2);
    for completion in superbatch.completions.iter().filter(|completion| completion.score.is_some()) {
        let prompt = superbatch.prompts[completion.prompt].ids.clone();
        let alone = Completions::from_rows(&[prompt], std::slice::from_ref(&completion.response), &device());
        assert_eq!(Some(reward.score(&alone).into_scalar::<f64>()), completion.score);
    }
}

#[test]
fn the_prompts_of_a_run_are_gone_through_evenly() {
    let superhf = superhf(json!({}));
    let mut times = [0; 6];
    for step in 0..4 {
        superhf.collect(step).expect("samples").pool_index.iter().for_each(|index| times[*index] += 1);
    }
    assert_eq!(times, [2; 6]);
}
