//! Reading, checking and writing the config.

use align_core::regularizer::{Coefficient, RegularizerConfig};
use align_ppo::config::ALIASES;
use align_ppo::{BatchPlan, ConfigError, PpoConfig, Preset};
use serde_json::json;

fn read(toml: &str) -> Result<PpoConfig, String> {
    toml::from_str(toml).map_err(|error| error.to_string())
}

#[test]
fn the_names_people_know_are_read() {
    let config = read(
        "kl_coef = 0.1\nkl_estimator = 'k3'\ncliprange = 0.3\ncliprange_value = 0.4\nvf_coef = 0.2\ngamma = 0.9\n\
         lam = 0.8\nnum_ppo_epochs = 3\nnum_mini_batches = 4\nresponse_length = 7\ntemperature = 0.5\n\
         missing_eos_penalty = 1.0\nwhiten_rewards = true\nlearning_rate = 1e-4\nstop_token_ids = [2]",
    )
    .expect("all of them");
    let regularizer = config.regularizer();
    assert_eq!(regularizer.coefficient.beta(), 0.1);
    assert!(format!("{:?}", regularizer.site).contains("K3"));
    assert_eq!(config.clip_range().upper, 0.3);
    assert_eq!(config.value_clip_range(), Some(0.4));
    assert_eq!(config.plan().expect("a plan").minibatch, 16);
    assert_eq!(config.policy_optimizer().learning_rate.get(), 1e-4);
}

#[test]
fn every_alias_says_what_its_name_says() {
    for (alias, name) in ALIASES {
        // Numbers that every setting of that kind accepts; a target makes β adaptive and a horizon needs one.
        let value = if *name == "running_reward_std" { "true" } else { "2" };
        let value = if ["lam"].contains(name) { "0.5" } else { value };
        let target = if *name == "kl_horizon" { "kl_target = 50\n" } else { "" };
        let value = if *name == "kl_horizon" { "5000" } else { value };
        let value = if *name == "stop_strings" { "[\"x\"]" } else { value };
        let by_name = read(&format!("{target}{name} = {value}")).unwrap_or_else(|e| panic!("{name}: {e}"));
        let by_alias = read(&format!("{target}{alias} = {value}")).unwrap_or_else(|e| panic!("{alias}: {e}"));
        assert_eq!(by_name, by_alias, "{alias} is {name}");
        assert_ne!(by_alias, PpoConfig::default(), "{alias} changes something");
    }
}

#[test]
fn presets_survive_being_written_and_read() {
    for preset in Preset::ALL {
        let config = preset.config();
        let text = toml::to_string(&config).expect("a config is TOML");
        assert_eq!(read(&text).expect("what was written"), config, "{preset:?}");
        let named = read(&format!("preset = '{}'", preset.name())).expect("a preset's name");
        assert_eq!(named, config);
    }
    assert_eq!(read("").expect("nothing"), Preset::Trl.config());
}

#[test]
fn presets_differ_where_the_projects_do() {
    let [trl, openrlhf, details] = Preset::ALL.map(Preset::config);
    // OpenRLHF: value clip 0.5, λ 1, β 0.01, actor 1e-6, critic 9e-6, scores clipped to ±10.
    assert_eq!((openrlhf.cliprange_value.get(), openrlhf.lam.get()), (0.5, 1.0));
    assert_eq!(openrlhf.regularizer().coefficient.beta(), 0.01);
    assert_eq!((openrlhf.learning_rate.get(), openrlhf.critic_learning_rate.get()), (1e-6, 9e-6));
    assert_eq!(openrlhf.reward_clip_range.map(|limit| limit.get()), Some(10.0));
    // lm-human-preferences: adaptive β from 0.15 to 6 nats, whitened rewards, −1 without a stop.
    let RegularizerConfig::Reward { coefficient: Coefficient::Adaptive { beta, target, .. }, .. } =
        details.regularizer
    else {
        panic!("adaptive, in the reward")
    };
    assert_eq!((beta.get(), target.get()), (0.15, 6.0));
    assert!(details.whiten_rewards && details.missing_eos_score.is_some());
    // TRL: β 0.05, λ 0.95, T 0.7, 4 epochs, 1 minibatch.
    assert_eq!((trl.lam.get(), trl.temperature.get(), trl.num_ppo_epochs), (0.95, 0.7, 4));
}

#[test]
fn a_negative_beta_is_refused_with_the_number_and_the_range() {
    let message = read("kl_coef = -0.1").expect_err("a negative coefficient");
    assert!(message.contains("expected a finite number >= 0, found -0.1"), "{message}");
    assert!(message.contains("kl_coef"), "{message}");
}

#[test]
fn unknown_names_are_refused_and_the_known_ones_listed() {
    let message = read("cliprnage = 0.2").expect_err("a typo");
    assert!(message.contains("unknown field `cliprnage`") && message.contains("`cliprange`"), "{message}");
}

#[test]
fn filters_without_a_correction_are_refused_with_the_cause() {
    for setting in ["top_p = 0.9", "top_k = 50"] {
        let message = read(setting).expect_err("a biased ratio");
        assert!(message.contains("importance_cap") && message.contains("negative KL"), "{message}");
        assert!(read(&format!("{setting}\nimportance_cap = 2.0")).is_ok());
    }
}

#[test]
fn scalings_of_the_reward_do_not_combine() {
    let message = read("whiten_rewards = true\nreward_clip_range = 5.0").expect_err("two scalings");
    assert!(message.contains("`whiten_rewards`") && message.contains("`reward_clip_range`"), "{message}");
    assert!(read("running_reward_std = true\nreward_clip_range = 5.0").is_err());
    assert!(read("missing_eos_penalty = 1.0\nmissing_eos_score = -1.0").is_err());
}

#[test]
fn k1_in_the_loss_cannot_be_written_down() {
    let in_loss = "[regularizer]\nsite = 'loss'\n[regularizer.divergence]\nkind = 'kl'\nestimator = 'k1'";
    assert!(read(in_loss).expect_err("k1 in the loss").contains("k1"));
    assert!(read(&in_loss.replace("'k1'", "'k2'")).is_ok());
}

#[test]
fn two_names_for_one_thing_are_refused() {
    for text in ["minibatch = 16\nnum_mini_batches = 4", "kl_coef = 0.1\n[regularizer]\nsite = 'reward'"] {
        assert!(read(text).expect_err("two names").contains("expected one of them"));
    }
}

#[test]
fn the_plan_counts_sequences() {
    let config: PpoConfig = serde_json::from_value(json!({
        "rollout_batch": 48, "num_generations": 4, "minibatch": 12, "microbatch": 5, "total_episodes": 100,
    }))
    .expect("sizes that divide");
    let plan = config.plan().expect("a plan");
    // 12 prompts × 4; 4 epochs × 4 minibatches; 100 / 48 rounded up.
    let expected = BatchPlan {
        rollout_batch: 48,
        prompts: 12,
        minibatch: 12,
        microbatch: 5,
        steps_per_iteration: 16,
        iterations: 3,
    };
    assert_eq!(plan, expected);
    let printed = plan.to_string();
    assert!(
        printed.contains("48 sequences (12 prompts x 4)") && printed.contains("16 optimiser steps"),
        "{printed}"
    );
}

#[test]
fn sizes_that_do_not_divide_are_refused_with_both_numbers() {
    let config = PpoConfig { rollout_batch: 10, minibatch: Some(4), ..PpoConfig::default() };
    let error = config.plan().expect_err("4 does not divide 10");
    assert_eq!(error.to_string(), "`rollout_batch` is 10, expected a multiple of `minibatch`, 4");
    let config = PpoConfig { response_length: 0, ..PpoConfig::default() };
    assert_eq!(config.plan(), Err(ConfigError::Zero { name: "response_length" }));
}

#[test]
fn an_adaptive_coefficient_needs_a_target_and_a_start() {
    assert!(read("kl_horizon = 100.0").is_err());
    assert!(read("kl_target = 6.0\nkl_coef = 0.0").expect_err("stays 0").contains("stays 0"));
    let config = read("kl_target = 6.0").expect("adaptive");
    let RegularizerConfig::Reward { coefficient, .. } = config.regularizer else { panic!("in the reward") };
    assert!(matches!(coefficient, Coefficient::Adaptive { .. }));
}
