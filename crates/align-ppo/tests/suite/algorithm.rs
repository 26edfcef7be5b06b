//! The whole algorithm where the answer is known: on bigram policies every expectation can be enumerated.

use align_core::divergence::{Divergence, Kl};
use align_core::number::{Fraction, UnitInterval};
use align_core::{Completions, Frozen, Reward, RewardFn};
use align_ppo::{Anchor, Degeneration, Following, MovingReference, Ppo, PpoError, PpoParts, Warning, mix};
use align_testkit::{BigramLm, Enumeration, assert_close, device, train_device};
use burn::module::Module;
use burn::tensor::Tensor;
use serde_json::{Value, json};

use crate::world::{VOCABULARY, config, host, metric, parts, run, sft, table, without_critic};

/// The logits of case 2 of the specification and the reward of case 4.
const FIRST: [f32; 4] = [1.0, 0.0, -1.0, 0.5];
const SECOND: [f32; 4] = [0.2, 1.2, -0.4, -1.0];
const REWARD: [f32; 4] = [0.0, 1.0, 0.2, 0.6];
const BETA: f64 = 0.5;

/// One-token responses, where a bigram can be the exact optimum π* ∝ π_ref e^{r/β}.
fn one_token(reference: &BigramLm) -> Ppo<BigramLm> {
    let reward = RewardFn(|completions: &Completions| -> Tensor<1> {
        let scores: Vec<f32> =
            completions.response.rows().iter().map(|row| REWARD[row[0] as usize]).collect();
        Tensor::from_floats(scores.as_slice(), &device())
    });
    let parts = PpoParts {
        policy: BigramLm::independent(&FIRST, &train_device()),
        critic: None,
        reference: Frozen::new(reference).into(),
        reward: Box::new(reward),
        regularizer: None,
        prompts: vec![vec![0]],
        gold: None,
        anchors: Vec::new(),
    };
    let changes = json!({
        "rollout_batch": 512, "microbatch": 512, "total_episodes": 512 * 120, "num_ppo_epochs": 2,
        "response_length": 1, "stop_token_ids": [], "learning_rate": 0.05, "kl_coef": BETA,
        "advantage_estimator": "position_baseline",
    });
    Ppo::new(parts, config(changes)).expect("parts")
}

#[test]
fn ppo_approaches_the_exact_optimum_for_either_reference() {
    let first = BigramLm::independent(&FIRST, &device());
    let second = BigramLm::independent(&SECOND, &device());
    let soup = mix(&first, &second, 0.5);
    let cases = [
        (first, [0.16852235, 0.45809124, 0.03402408, 0.33936234], 0.51705982),
        (soup, [0.09789819, 0.72337523, 0.03980243, 0.13892415], 0.66529758),
    ];
    for (reference, optimum, value) in cases {
        let mut ppo = one_token(&reference);
        let last = run(&mut ppo, 120).pop().expect("iterations");
        let policy = ppo.policy().valid();
        let row: Vec<f64> = host(&policy.token_log_probs_of(0)).iter().map(|log| log.exp()).collect();
        // The rate falls to 0, which averages the noise of 512 draws away (standard error of a frequency 0.02 a step);
        // the objective is flat at its optimum, so its value is much closer than the policy.
        assert_close(&row[..], optimum, 0.03);
        let all = Enumeration::new(4, &[0], 1, None, &device());
        let reward = all.log_probs(&policy).exp() * Tensor::<1>::from_floats(REWARD, &device());
        let kl: f64 = all.divergence(&Kl::default(), &policy, &reference).into_scalar();
        let objective = reward.sum().into_scalar::<f64>() - BETA * kl;
        assert!(objective <= value + 1e-5, "nothing beats the optimum: {objective} vs {value}");
        assert_close(objective, [value], 0.004);
        assert!(metric(&last, "objective/kl") > 0.1);
    }
}

trait Row {
    fn token_log_probs_of(&self, token: usize) -> Tensor<2>;
}

impl Row for BigramLm {
    /// log π(· | token) of a policy over four tokens, `[1, 4]`.
    fn token_log_probs_of(&self, token: usize) -> Tensor<2> {
        burn::tensor::activation::log_softmax(self.table.val(), 1).slice([token..token + 1, 0..4])
    }
}

/// PPO without a critic from `sft(1)`, held to a reference, under one seed.
fn arm(reference: &BigramLm, changes: Value) -> Ppo<BigramLm> {
    let parts = without_critic(parts(sft(1), Frozen::new(reference)));
    let mut all = json!({ "advantage_estimator": "position_baseline", "total_episodes": 160 });
    changes.as_object().expect("an object").iter().for_each(|(name, value)| all[name] = value.clone());
    Ppo::new(parts, config(all)).expect("parts")
}

fn trained(reference: &BigramLm, changes: Value) -> Vec<f32> {
    let mut ppo = arm(reference, changes);
    run(&mut ppo, 10);
    table(ppo.policy())
}

#[test]
fn without_beta_the_reference_is_not_felt_to_the_last_bit() {
    let soup = mix(&sft(1), &sft(2), 0.5);
    for site in ["reward", "loss"] {
        let with = |beta: f64| json!({ "regularizer": { "site": site, "coefficient": { "kind": "fixed", "beta": beta } } });
        let bits = |table: Vec<f32>| table.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(trained(&sft(1), with(0.0))), bits(trained(&soup, with(0.0))), "{site}");
        assert_ne!(trained(&sft(1), with(0.05)), trained(&soup, with(0.05)), "{site}");
    }
}

#[test]
fn a_soup_of_one_is_plain_ppo_to_the_last_bit() {
    let plain = trained(&sft(1), json!({}));
    // α = 1, and θ_2 := θ_1 at α = ½.
    assert_eq!(plain, trained(&mix(&sft(1), &sft(2), 0.0), json!({})));
    assert_eq!(plain, trained(&mix(&sft(1), &sft(1), 0.5), json!({})));
    assert_ne!(plain, trained(&mix(&sft(1), &sft(2), 0.5), json!({})));
}

#[test]
fn a_large_beta_walks_from_the_policy_to_the_soup() {
    let soup = mix(&sft(1), &sft(2), 0.5);
    let changes =
        json!({ "kl_coef": 50.0, "rollout_batch": 64, "microbatch": 64, "total_episodes": 64 * 60 });
    let mut ppo = arm(&soup, changes);
    let distance = |policy: &BigramLm| -> f64 {
        // Nothing follows the stop token, so its row is never learnt.
        let from = |token| Enumeration::new(VOCABULARY, &[token], 3, Some(0), &device());
        (1..5)
            .map(|token| {
                from(token).divergence(&Kl::default(), &policy.valid(), &soup.valid()).into_scalar::<f64>()
            })
            .sum()
    };
    let start = distance(ppo.policy());
    let metrics = run(&mut ppo, 60);
    let end = distance(ppo.policy());
    assert!(start > 1.0 && end < 0.1 * start, "from {start} to {end} nats");
    assert!(metric(&metrics[59], "objective/kl") < 0.2 * metric(&metrics[0], "objective/kl"));
}

#[test]
fn the_divergence_before_the_first_update_is_the_one_between_start_and_reference() {
    // 2048 responses of up to four tokens: the exact expectation by enumeration, prompts in equal shares.
    let changes = json!({ "rollout_batch": 2048, "microbatch": 2048, "total_episodes": 2048 });
    let soup = mix(&sft(1), &sft(2), 0.5);
    let exact = |prompt: &Vec<u32>| -> f64 {
        let all = Enumeration::new(VOCABULARY, prompt, 4, Some(0), &device());
        all.divergence(&Kl::default(), &sft(1).valid(), &soup.valid()).into_scalar()
    };
    let prompts = crate::world::prompts();
    let expected = prompts.iter().map(exact).sum::<f64>() / prompts.len() as f64;
    let mut ppo = arm(&soup, changes.clone());
    let found = metric(&ppo.iteration(0).expect("an iteration"), "objective/kl");
    // A response's log-ratio has a deviation of about 1.5 nats: five standard errors of 2048 draws.
    assert_close(found, [expected], 5.0 * 1.5 / 2048f64.sqrt());
    assert!(expected > 0.5, "a soup is not where the policy starts: {expected}");
    assert_eq!(metric(&arm(&sft(1), changes).iteration(0).expect("an iteration"), "objective/kl"), 0.0);
}

#[test]
fn the_frozen_reference_stands_still_and_shares_nothing_with_the_policy() {
    let policy = sft(1);
    // The worst case: the reference is made of the very policy that learns.
    let reference = Frozen::new(&policy);
    let before = table(reference.get());
    let parts = without_critic(parts(policy, reference.clone()));
    let changes = json!({ "advantage_estimator": "position_baseline", "total_episodes": 320 });
    let mut ppo = Ppo::new(parts, config(changes)).expect("parts");
    run(&mut ppo, 20);
    assert_eq!(table(reference.get()), before);
    assert!(!reference.get().table.val().is_autodiff(), "nothing to differentiate");
    assert_ne!(table(ppo.policy()), before);
    let kept = ppo.reference().log_probs(&crate::world::completions(&[vec![1]], &[vec![2]]), 1.0);
    let fresh: Anchor<BigramLm> = Frozen::new(&sft(1)).into();
    assert_eq!(host(&kept), host(&fresh.log_probs(&crate::world::completions(&[vec![1]], &[vec![2]]), 1.0)));
}

#[test]
fn a_reference_that_moves_although_it_is_fixed_is_found_out() {
    use std::sync::atomic::{AtomicU32, Ordering};
    struct Drifting(AtomicU32);
    impl align_core::Reference for Drifting {
        fn log_probs(&self, completions: &Completions, _: f64) -> Tensor<2> {
            let calls = self.0.fetch_add(1, Ordering::Relaxed) as f32;
            let zeros = Tensor::<2>::zeros(completions.response.ids.dims(), &device());
            (zeros - 1.0 - 0.01 * calls).mask_fill(completions.response.mask.clone().bool_not(), 0.0)
        }
    }
    let parts = parts(sft(1), Anchor::Fixed(Box::new(Drifting(AtomicU32::new(0)))));
    let error = Ppo::new(parts, config(json!({}))).expect("parts").iteration(0).expect_err("it moved");
    assert!(matches!(error, PpoError::ReferenceMoved { expected: -1.0, .. }), "{error}");
}

#[test]
fn references_follow_by_their_rule() {
    let (policy, start) = (sft(1), sft(2));
    let mean = |weight: f32| -> Vec<f32> {
        table(&policy)
            .iter()
            .zip(table(&start))
            .map(|(new, old)| weight * new + (1.0 - weight) * old)
            .collect()
    };
    let mut ema = MovingReference::new(&start, Following::Ema { decay: UnitInterval::literal(0.75) });
    ema.follow(&policy, 1);
    assert_close(table(ema.model()), mean(0.25), 1e-6); // one rounding in f32
    ema.follow(&policy, 2);
    assert_close(table(ema.model()), mean(1.0 - 0.75 * 0.75), 1e-6);
    assert!(!ema.model().table.val().is_autodiff());

    let mut synced =
        MovingReference::new(&start, Following::Periodic { every: 3, alpha: Fraction::literal(0.6) });
    (1..3).for_each(|iteration| synced.follow(&policy, iteration));
    assert_eq!(table(synced.model()), table(&start));
    synced.follow(&policy, 3);
    assert_close(table(synced.model()), mean(0.6), 1e-6);
    assert_eq!(Following::default().weight(512), Some(0.6));
}

#[test]
fn ppo_moves_its_reference_after_each_iteration() {
    let make = |following| {
        let parts = parts(sft(1), MovingReference::new(&sft(1), following));
        Ppo::new(parts, config(json!({}))).expect("parts")
    };
    let mut ppo = make(Following::Periodic { every: 2, alpha: Fraction::literal(1.0) });
    let reference = |ppo: &Ppo<BigramLm, _>| match ppo.reference() {
        Anchor::Moving(moving) => table(moving.model()),
        Anchor::Fixed(_) => panic!("it moves"),
    };
    let metrics: Vec<_> = (0..3)
        .map(|iteration| {
            let metrics = ppo.iteration(iteration).expect("an iteration");
            (metric(&metrics, "objective/kl"), reference(&ppo) == table(ppo.policy()))
        })
        .collect();
    // Synced after the second iteration: the third starts at distance 0.
    assert_eq!((metrics[0].0, metrics[0].1, metrics[1].1), (0.0, false, true));
    assert!(metrics[1].0 != 0.0);
    assert_eq!(metrics[2].0, 0.0);
}

#[test]
fn a_reward_is_raised() {
    for estimator in ["gae", "leave_one_out", "group_normalized"] {
        let changes = json!({
            "advantage_estimator": estimator, "num_generations": 4, "rollout_batch": 64, "microbatch": 64,
            "total_episodes": 64 * 30, "kl_coef": 0.01,
        });
        let parts = parts(sft(1), Frozen::new(&sft(1)));
        let metrics = match estimator {
            "gae" => run(&mut Ppo::new(parts, config(changes)).expect("parts"), 30),
            _ => run(&mut Ppo::new(without_critic(parts), config(changes)).expect("parts"), 30),
        };
        let score = |index: usize| metric(&metrics[index], "objective/scores");
        // At most four hits a response.
        assert!(score(29) > score(0) + 1.0, "{estimator}: {} to {}", score(0), score(29));
    }
}

#[test]
fn the_critic_comes_to_explain_the_returns() {
    let changes = json!({
        "rollout_batch": 64, "microbatch": 64, "total_episodes": 64 * 30, "learning_rate": 0.001,
        "critic_learning_rate": 0.2, "cliprange_value": 0.0, "lam": 1.0,
    });
    let metrics =
        run(&mut Ppo::new(parts(sft(1), Frozen::new(&sft(1))), config(changes)).expect("parts"), 30);
    let explained = |index: usize| metric(&metrics[index], "critic/vf_explained_var");
    assert_close(explained(0), [0.0], 1e-9); // a critic that is 0 everywhere
    assert!(explained(29) > 0.1, "{}", explained(29));
    assert!(metric(&metrics[29], "loss/value_avg") < 0.7 * metric(&metrics[0], "loss/value_avg"));
}

#[test]
fn an_early_stop_to_pay_less_divergence_ends_the_run() {
    // To this reference every token is as unlikely as the next: each costs nats, so the shortest response is the cheapest.
    struct Costly;
    impl align_core::Reference for Costly {
        fn log_probs(&self, completions: &Completions, _: f64) -> Tensor<2> {
            let zeros = Tensor::<2>::zeros(completions.response.ids.dims(), &device());
            (zeros - 5.0).mask_fill(completions.response.mask.clone().bool_not(), 0.0)
        }
    }
    // Longer is better, a little: the score falls with the length.
    let longer: Box<dyn Reward> = Box::new(RewardFn(|completions: &Completions| -> Tensor<1> {
        let lengths: Vec<f32> =
            completions.response.lengths().iter().map(|length| *length as f32 * 1e-3).collect();
        Tensor::from_floats(lengths.as_slice(), &device())
    }));
    let talkative = BigramLm::independent(&[-1.0, 1.0, 1.0, 1.0, 1.0], &train_device());
    let parts = parts(talkative, Anchor::Fixed(Box::new(Costly)));
    let parts = without_critic(PpoParts { reward: longer, ..parts });
    let changes = json!({
        "advantage_estimator": "position_baseline", "early_stop_fraction": 0.5, "rollout_batch": 64, "microbatch": 64,
        "total_episodes": 64 * 60, "response_length": 12, "kl_coef": 1.0, "learning_rate": 0.2,
    });
    let mut ppo = Ppo::new(parts, config(changes)).expect("parts");
    let error = (0..60).find_map(|iteration| ppo.iteration(iteration).err()).expect("it degenerates");
    let PpoError::DegeneratePolicy { kind: Degeneration::EarlyStop { length, first_length, .. } } = error
    else {
        panic!("another error: {error}")
    };
    assert!(length < 0.5 * first_length);
    assert!(error.to_string().starts_with("degenerate policy: responses shrank from"), "{error}");
}

#[test]
fn a_negative_mean_divergence_is_warned_about_with_the_causes() {
    // A "reference" that finds everything more likely than the policy does: no distribution, like a filtered sampler's.
    struct Flattering;
    impl align_core::Reference for Flattering {
        fn log_probs(&self, completions: &Completions, _: f64) -> Tensor<2> {
            Tensor::zeros(completions.response.ids.dims(), &device())
        }
    }
    let parts = parts(sft(1), Anchor::Fixed(Box::new(Flattering)));
    let mut ppo = Ppo::new(parts, config(json!({}))).expect("parts");
    let metrics = ppo.iteration(0).expect("an iteration");
    let warnings = ppo.take_warnings();
    let [Warning::NegativeKl { mean }] = warnings[..] else { panic!("one warning: {warnings:?}") };
    assert_eq!(mean, metric(&metrics, "objective/kl"));
    assert!(mean < -0.05 && warnings[0].to_string().contains("top-k"));
    assert_eq!(metrics.get("warning/negative_kl"), Some(1.0));
    assert!(ppo.take_warnings().is_empty());
}

#[test]
fn any_divergence_can_take_the_place_of_kl() {
    /// Half the squared log-ratio, as somebody might write it outside.
    #[derive(Debug)]
    struct Own;
    impl Divergence for Own {
        fn estimate(&self, log_ratio: Tensor<2>) -> Tensor<2> {
            log_ratio.square() / 2.0
        }
        fn exact(&self, _: Tensor<2>, _: Tensor<2>) -> Tensor<1> {
            unimplemented!("only estimated here")
        }
    }
    let own = || align_core::Regularizer {
        site: align_core::regularizer::Site::Reward(Box::new(Own)),
        coefficient: align_core::regularizer::Coefficient::default(),
        granularity: align_core::regularizer::Granularity::Token,
    };
    let with = |regularizer| {
        let parts = PpoParts { regularizer, ..parts(sft(1), Frozen::new(&sft(2))) };
        let mut ppo = Ppo::new(parts, config(json!({}))).expect("parts");
        run(&mut ppo, 2);
        table(ppo.policy())
    };
    assert_ne!(with(Some(own())), with(None));
    // k2 by name is the same thing.
    let mut named = Ppo::new(parts(sft(1), Frozen::new(&sft(2))), config(json!({ "kl_estimator": "k2" })))
        .expect("parts");
    run(&mut named, 2);
    assert_eq!(with(Some(own())), table(named.policy()));
}
