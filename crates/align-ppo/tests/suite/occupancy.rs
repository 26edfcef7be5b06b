//! Correlation, λ*, β in deviations of the reward, the distances that are logged, and √χ² against a glitch.

use align_core::regularizer::Site;
use align_core::{Completions, Frozen, Reward, RewardFn};
use align_ppo::occupancy::{Base, NoCorrelation, correlation, lambda_star, standard_deviation};
use align_ppo::{Ppo, PpoParts, Warning};
use align_testkit::{BigramCritic, BigramLm, Enumeration, assert_close, device, train_device};
use align_train::Metrics;
use burn::module::Module;
use burn::tensor::Tensor;
use serde_json::{Value, json};

use crate::world::{config, count_of, host, metric, parts, run, sft, table, without_critic};

/// A judge of token counts: `Σ_t weights[y_t]`.
fn weighing<const V: usize>(weights: [f32; V]) -> Box<dyn Reward> {
    Box::new(RewardFn(move |completions: &Completions| -> Tensor<1> {
        let score = |row: &Vec<u32>| row.iter().map(|&id| weights[id as usize]).sum::<f32>();
        let scores: Vec<f32> = completions.response.rows().iter().map(score).collect();
        Tensor::from_floats(scores.as_slice(), &device())
    }))
}

fn judged(
    reward: Box<dyn Reward>,
    gold: Option<Box<dyn Reward>>,
    changes: Value,
) -> Ppo<BigramLm, BigramCritic> {
    let parts = PpoParts { reward, gold, ..parts(sft(1), Frozen::new(&sft(2))) };
    Ppo::new(parts, config(changes)).expect("parts")
}

#[test]
fn correlation_and_lambda_star_are_pearsons_and_the_theorys() {
    // Deviations −1, 0, 1, 4, −4 of proxy (σ² = 34/4) against 0, 1, 2, 3, −6 of gold: Σxy = 0 + 0 + 2 + 12 + 24.
    let (proxy, gold) = ([1.0, 2.0, 3.0, 6.0, -2.0], [10.0, 11.0, 12.0, 13.0, 4.0]);
    let r = 38.0 / (34f64 * 50.0).sqrt();
    assert_close(standard_deviation(&proxy), 8.5f64.sqrt(), 1e-15);
    assert_close(correlation(&proxy, &gold).expect("defined"), r, 1e-15);
    let (base, undefined) = Base::of(&proxy, Some(&gold));
    assert_eq!(undefined, None);
    assert_close(base.lambda_star.expect("r > 0"), 8.5f64.sqrt() * (1.0 - r * r).sqrt(), 1e-14);
    // λ* of T2 of the specification.
    assert_close(lambda_star(1.106752005, 0.828112496).expect("r > 0"), 0.620403056, 1e-9);
    // Scaling and shifting change nothing; a perfect proxy needs no holding, whatever the rounding.
    let other = gold.map(|x| 0.1 * x - 7.0);
    assert_close(correlation(&proxy, &other).expect("defined"), r, 1e-14);
    let perfect = correlation(&proxy, &proxy.map(|x| 0.3 * x + 0.1)).expect("defined");
    assert!((1.0 - perfect).abs() < 1e-15 && perfect <= 1.0);
    assert_close(lambda_star(2.0, perfect).expect("r > 0"), 0.0, 1e-7);
}

#[test]
fn what_has_no_correlation_says_why() {
    let x = [1.0, 2.0, 3.0, 4.0];
    for (cause, message) in [
        (correlation(&x[..3], &x[..3]), "found 3 pairs of scores, expected at least 4"),
        (
            correlation(&[0.1; 4], &x),
            "the judge's scores have standard deviation 0, expected more than 1e-12",
        ),
        (correlation(&x, &[0.3; 4]), "the gold scores have standard deviation 0, expected more than 1e-12"),
        (
            lambda_star(1.0, -0.25),
            "judge and gold judge correlate by -0.2500 under the base policy, expected more than 0",
        ),
        (lambda_star(1.0, 0.0), "correlate by 0.0000"),
    ] {
        let found = cause.expect_err(message).to_string();
        assert!(found.contains(message), "{found}");
    }
    assert_eq!(standard_deviation(&[5.0]), 0.0);
    assert_eq!(standard_deviation(&[]), 0.0);
}

#[test]
fn a_run_with_a_gold_judge_logs_what_the_theory_says() {
    // The proxy counts token 2, gold takes token 4 amiss.
    let make =
        || judged(count_of(2), Some(weighing([0.0, 0.0, 1.0, 0.0, -0.5])), json!({ "rollout_batch": 64 }));
    let mut ppo = make();
    let rollout = ppo.collect(0).expect("a rollout");
    let gold = rollout.gold.clone().expect("a gold judge");
    let n = gold.len() as f64;
    let sum =
        |f: &dyn Fn(f64, f64) -> f64| rollout.scores.iter().zip(&gold).map(|(x, y)| f(*x, *y)).sum::<f64>();
    let (x, y) = (sum(&|x, _| x), sum(&|_, y| y));
    let (xx, yy, xy) = (sum(&|x, _| x * x), sum(&|_, y| y * y), sum(&|x, y| x * y));
    let r = (n * xy - x * y) / ((n * xx - x * x) * (n * yy - y * y)).sqrt();
    let sigma = ((xx - x * x / n) / (n - 1.0)).sqrt();
    assert!(r > 0.1, "{r}");
    let metrics = run(&mut ppo, 3);
    for metrics in &metrics {
        assert_close(metric(metrics, "occupancy/reward_std"), sigma, 1e-12);
        assert_close(metric(metrics, "occupancy/correlation_base"), r, 1e-12);
        assert_close(metric(metrics, "occupancy/lambda_star"), sigma * (1.0 - r * r).sqrt(), 1e-12);
    }
    assert_close(metric(&metrics[0], "occupancy/correlation"), r, 1e-12);
    assert!(metric(&metrics[2], "occupancy/correlation") != metric(&metrics[0], "occupancy/correlation"));
    assert!(ppo.take_warnings().is_empty());
}

#[test]
fn what_is_undefined_is_absent_and_warned_about_and_never_nan() {
    let first = |reward, gold, changes| {
        let mut ppo = judged(reward, gold, changes);
        let metrics: Vec<Metrics> = run(&mut ppo, 2);
        assert!(metrics.iter().all(|metrics| metrics.iter().all(|(_, value)| !value.is_nan())));
        (metrics, ppo.take_warnings())
    };
    let names = ["occupancy/correlation_base", "occupancy/lambda_star", "occupancy/correlation"];
    let found = |metrics: &Metrics| names.map(|name| metrics.get(name).is_some());
    let causes = |warnings: &[Warning]| -> Vec<NoCorrelation> {
        let cause = |warning: &Warning| match *warning {
            Warning::Uncorrelated { cause } => Some(cause),
            _ => None,
        };
        warnings.iter().filter_map(cause).collect()
    };

    let (metrics, warnings) = first(count_of(2), Some(weighing([1.0; 5].map(|_| 0.0))), json!({}));
    assert_eq!(found(&metrics[0]), [false; 3]);
    assert_eq!(causes(&warnings), [NoCorrelation::ConstantGold { deviation: 0.0 }; 2]);
    let message = warnings[0].to_string();
    assert!(
        message.starts_with("`occupancy/correlation` is not reported: the gold scores have"),
        "{message}"
    );

    let (metrics, warnings) = first(weighing([0.0; 5]), Some(count_of(2)), json!({}));
    assert_eq!((found(&metrics[0]), metric(&metrics[0], "occupancy/reward_std")), ([false; 3], 0.0));
    assert_eq!(causes(&warnings), [NoCorrelation::ConstantReward { deviation: 0.0 }; 2]);

    // A judge that pays for the opposite: r = −1 is a correlation and gives no λ*.
    let (metrics, warnings) = first(count_of(2), Some(weighing([0.0, 0.0, -1.0, 0.0, 0.0])), json!({}));
    assert_eq!(found(&metrics[0]), [true, false, true]);
    assert_close(metric(&metrics[1], "occupancy/correlation_base"), -1.0, 1e-12);
    let [NoCorrelation::NotPositive { .. }] = causes(&warnings)[..] else { panic!("once: {warnings:?}") };
    let message = warnings[0].to_string();
    assert!(
        message
            .starts_with("`occupancy/lambda_star` is not reported: judge and gold judge correlate by -1.0"),
        "{message}"
    );

    let (_, warnings) = first(count_of(2), Some(count_of(2)), json!({ "rollout_batch": 2 }));
    assert_eq!(causes(&warnings), [NoCorrelation::TooFew { found: 2 }; 2]);
    let (metrics, warnings) = first(count_of(2), None, json!({}));
    assert_eq!((found(&metrics[0]), warnings), ([false; 3], Vec::new()));
}

fn in_deviations(beta: f64) -> Value {
    json!({ "site": "reward", "coefficient": { "kind": "reward_std", "beta": beta } })
}

#[test]
fn beta_in_deviations_is_beta_times_the_deviation_to_the_last_bit() {
    let mut ppo = judged(count_of(2), None, json!({ "regularizer": in_deviations(0.25) }));
    let sigma = standard_deviation(&ppo.collect(0).expect("a rollout").scores);
    let metrics = run(&mut ppo, 3);
    for metrics in &metrics {
        assert_eq!(metric(metrics, "objective/kl_coef"), 0.25 * sigma);
    }
    let mut fixed = judged(count_of(2), None, json!({ "kl_coef": 0.25 * sigma }));
    run(&mut fixed, 3);
    assert_eq!(table(ppo.policy()), table(fixed.policy()));
    // Given beforehand, it is not measured.
    let given =
        json!({ "site": "reward", "coefficient": { "kind": "reward_std", "beta": 0.25, "deviation": 2.0 } });
    let mut given = judged(count_of(2), None, json!({ "regularizer": given }));
    assert_eq!(metric(&given.iteration(0).expect("an iteration"), "objective/kl_coef"), 0.5);
}

#[test]
fn beta_in_deviations_of_a_constant_reward_is_refused() {
    let mut ppo = judged(weighing([0.0; 5]), None, json!({ "regularizer": in_deviations(0.25) }));
    let message = ppo.iteration(0).expect_err("no deviation").to_string();
    assert!(
        message.contains("standard deviation 0, expected more than 1e-12") && message.contains("reward_std"),
        "{message}"
    );
}

#[test]
fn beta_in_deviations_of_what_is_in_deviations_already_is_refused() {
    let refused = |site: &str, changes: Value| -> String {
        let mut all =
            json!({ "regularizer": { "site": site, "coefficient": { "kind": "reward_std", "beta": 0.1 } } });
        changes.as_object().expect("an object").iter().for_each(|(name, value)| all[name] = value.clone());
        serde_json::from_value::<align_ppo::PpoConfig>(all)
            .map_or_else(|error| error.to_string(), |_| String::new())
    };
    for (site, changes, setting) in [
        ("reward", json!({ "running_reward_std": true }), "running_reward_std"),
        ("loss", json!({}), "whiten_advantages"),
        ("loss", json!({ "whiten_advantages": false, "whiten_rewards": true }), "whiten_rewards"),
        ("loss", json!({ "advantage_estimator": "group_norm", "num_generations": 4 }), "advantage_estimator"),
    ] {
        let message = refused(site, changes);
        assert!(
            message.contains(&format!("kind reward_std and `{setting}` divides")),
            "{setting}: {message}"
        );
    }
    // In the reward score and penalty are whitened together, and unwhitened advantages are in units of the reward.
    assert_eq!(refused("reward", json!({ "whiten_rewards": true })), "");
    assert_eq!(refused("loss", json!({ "whiten_advantages": false })), "");
}

#[test]
fn the_distance_of_whole_responses_is_logged_whatever_the_regulariser_is() {
    let mut ppo = judged(count_of(2), None, json!({}));
    let rollout = ppo.collect(0).expect("a rollout");
    let d = host(&(rollout.old_log_probs.clone() - rollout.reference_log_probs.clone()));
    let width = rollout.completions.response.width();
    let whole: Vec<f64> = d.chunks(width).map(|row| row.iter().sum()).collect();
    let chi = whole.iter().map(|d| d.exp() + (-d).exp() - 2.0).sum::<f64>() / 16.0;
    let metrics = ppo.iteration(0).expect("an iteration");
    // Exponentials of f32 sums of a few nats.
    assert_close(metric(&metrics, "regularizer/chi_squared") / chi, 1.0, 1e-5);
    assert_close(metric(&metrics, "regularizer/sqrt_chi_squared") / chi.sqrt(), 1.0, 1e-5);
    assert_close(metric(&metrics, "objective/kl"), whole.iter().sum::<f64>() / 16.0, 1e-5);
    assert_eq!(metric(&metrics, "regularizer/clampfrac"), 0.0);
    assert_eq!(metric(&metrics, "regularizer/sequence_clampfrac"), 0.0);
    assert_eq!(metrics.get("regularizer/clampfrac_avg"), None, "nothing in the loss");
}

#[test]
fn overflow_is_reported_at_the_regularisers_own_granularity() {
    // 12 nats for every token 2: one is beyond 10, two are beyond 20.
    let forbidding = || BigramLm::independent(&[0.0, 0.0, -12.0, 0.0, 0.0], &device());
    let start = BigramLm::independent(&[0.0, 0.0, 1.0, 0.0, 0.0], &train_device());
    let first = |regularizer: Value| {
        let parts = parts(start.clone(), Frozen::new(&forbidding()));
        let mut ppo = Ppo::new(parts, config(json!({ "regularizer": regularizer, "num_ppo_epochs": 1 })))
            .expect("parts");
        let rows = ppo.collect(0).expect("a rollout").completions.response.rows();
        let twos: Vec<usize> = rows.iter().map(|row| row.iter().filter(|id| **id == 2).count()).collect();
        let share = |least: usize| twos.iter().filter(|count| **count >= least).count() as f64 / 16.0;
        let tokens = rows.iter().map(Vec::len).sum::<usize>() as f64;
        let of_tokens = twos.iter().sum::<usize>() as f64 / tokens;
        (ppo.iteration(0).expect("an iteration"), share(1), share(2), of_tokens)
    };
    let loss = |divergence: &str, estimator: &str, granularity: &str| {
        let divergence = json!({ "kind": divergence, "estimator": estimator });
        json!({ "site": "loss", "granularity": granularity, "divergence": divergence })
    };
    // A rollout's shares and means over the step: f32.
    let near = |found: f64, expected: f64| assert_close(found, expected, 1e-6);
    let (metrics, one, two, _) = first(loss("sqrt_chi_squared", "released", "sequence"));
    assert!(two > 0.1 && one > two, "{one} and {two}");
    near(metric(&metrics, "regularizer/clampfrac"), one);
    near(metric(&metrics, "regularizer/clampfrac_avg"), one);
    near(metric(&metrics, "regularizer/sequence_clampfrac"), two);
    let (metrics, _, two, _) = first(loss("chi_squared", "exact", "sequence"));
    near(metric(&metrics, "regularizer/clampfrac"), two);
    near(metric(&metrics, "regularizer/clampfrac_avg"), two);
    let (metrics, _, _, of_tokens) = first(loss("chi_squared", "released", "token"));
    near(metric(&metrics, "regularizer/clampfrac"), of_tokens);
    near(metric(&metrics, "regularizer/clampfrac_avg"), of_tokens);
}

#[test]
fn sqrt_chi_squared_is_paid_with_its_mean_and_only_by_whole_responses() {
    let regularizer = json!({
        "site": "reward", "granularity": "sequence", "divergence": { "kind": "sqrt_chi_squared" },
        "coefficient": { "kind": "fixed", "beta": 0.5 },
    });
    let mut ppo = judged(count_of(2), None, json!({ "regularizer": regularizer }));
    assert!(matches!(ppo.config().regularizer().site, Site::Reward(_)));
    let metrics = ppo.iteration(0).expect("an iteration");
    let paid = -metric(&metrics, "objective/non_score_reward");
    assert_close(paid / (0.5 * metric(&metrics, "regularizer/sqrt_chi_squared")), 1.0, 1e-5);
}

/// Section 8.2 of the specification of correlated proxies, sampled: six tokens, four to a response, and a glitch (token 5)
/// that the proxy loves and gold does not.
const REFERENCE: [f32; 6] = [0.30, 0.25, 0.20, 0.15, 0.096, 0.004];
const PROXY: [f32; 6] = [0.0, 0.0, 0.0, 1.0, 1.0, 3.0];
const GOLD: [f32; 6] = [0.0, 0.0, 0.0, 1.0, 1.0, -1.0];

/// Mean gold reward, by enumeration, after PPO from the reference with the given regulariser.
fn gold_after(regularizer: Value) -> f64 {
    let start = |device| BigramLm::independent(&REFERENCE.map(f32::ln), device);
    let usual = without_critic(parts(start(&train_device()), Frozen::new(&start(&device()))));
    let (reward, gold) = (weighing(PROXY), Some(weighing(GOLD)));
    let parts = PpoParts { reward, gold, prompts: vec![vec![0]], ..usual };
    let changes = json!({
        "regularizer": regularizer, "advantage_estimator": "leave_one_out", "whiten_advantages": false,
        "num_generations": 512, "rollout_batch": 512, "microbatch": 512, "total_episodes": 512 * 60,
        "stop_token_ids": [], "learning_rate": 0.1, "num_ppo_epochs": 4,
    });
    let mut ppo = Ppo::new(parts, config(changes)).expect("parts");
    run(&mut ppo, 60);
    let all = Enumeration::new(6, &[0], 4, None, &device());
    all.expected_reward(&ppo.policy().valid(), &weighing(GOLD)).into_scalar()
}

#[test]
fn the_root_of_chi_squared_keeps_ppo_from_the_glitch() {
    let root = |site: &str, divergence: Value, beta: f64| {
        gold_after(json!({
            "site": site, "granularity": "sequence", "divergence": divergence,
            "coefficient": { "kind": "reward_std", "beta": beta },
        }))
    };
    let in_reward = |beta: f64| root("reward", json!({ "kind": "sqrt_chi_squared" }), beta);
    let in_loss =
        |estimator: &str| root("loss", json!({ "kind": "sqrt_chi_squared", "estimator": estimator }), BEST);
    // λ* is √(1 − r²) of the proxy's deviation.
    const BEST: f64 = 0.535;
    let (reward, exact, released) = (in_reward(BEST), in_loss("exact"), in_loss("released"));
    println!("√χ² at λ*: in the reward {reward:.3}, in the loss exact {exact:.3}, released {released:.3}");
    // What the best bigram policy has, by gradient ascent over the 1296 sequences; over all policies it is 2.058 and 1.938.
    // A minibatch of 512 puts σ, and with it λ, a few percent off, and gold with them.
    assert_close([reward, exact], [2.0384; 2], 0.05);
    assert_close(released, 2.2414, 0.05);

    // KL's optimum has independent tokens and is in reach; the table of the specification has 1.321, 1.579 at best, −3.834.
    let kl = [2.0, 0.92, 0.25].map(|beta| {
        gold_after(json!({ "site": "reward", "coefficient": { "kind": "fixed", "beta": beta } }))
    });
    println!("KL at 2, 0.92, 0.25: {kl:.3?}");
    assert_close(&kl[..2], [1.321, 1.579], 0.03);
    assert!(kl[2] < 0.5, "once found, the glitch pays: {}", kl[2]);
    assert!([reward, exact, released].iter().all(|gold| *gold > 1.579 + 0.15));

    // From a whole deviation on the reference is optimal.
    assert_close(in_reward(1.5), 0.968, 0.05);
}
