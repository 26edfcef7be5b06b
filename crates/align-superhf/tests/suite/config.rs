//! Settings: defaults, names, what is refused.

use align_superhf::config::{ALIASES, NAMES};
use align_superhf::{ConfigError, Filter, GroupPlan, SuperHfConfig, SuperHfError};
use align_train::Schedule;
use serde_json::{Value, json};

use crate::world::{self, config, parts};

fn read(value: Value) -> Result<SuperHfConfig, serde_json::Error> {
    serde_json::from_value(value)
}

fn refused(value: Value) -> String {
    read(value).expect_err("refused").to_string()
}

#[test]
fn the_defaults_are_those_of_the_released_final_configuration() {
    let config = SuperHfConfig::default();
    assert_eq!((config.superbatch_size, config.prompt_accumulation_steps), (16, 2));
    assert_eq!(config.filter, Filter::TopK { k: 1 });
    assert_eq!(
        (config.kl_coef.get(), config.inverse_loss.get(), config.length_penalty.get()),
        (0.35, 0.0, 0.0)
    );
    assert_eq!((config.temperature.get(), config.top_p.get(), config.response_length), (1.0, 0.95, 64));
    assert_eq!((config.minibatch, config.learning_rate.get()), (2, 2e-5));
    let optimizer = config.optimizer();
    assert_eq!((optimizer.weight_decay.get(), optimizer.max_grad_norm.get()), (0.01, 0.0));
    assert!(matches!(optimizer.schedule, Schedule::Cosine { warmup: 32, floor } if floor.get() == 0.0));
    assert_eq!((config.validation_interval, config.max_skipped_fraction.get()), (0, 0.2));
    assert_eq!(config, read(json!({})).expect("nothing said"));
}

#[test]
fn a_config_survives_a_round_trip_with_every_value_spelt_out() {
    for changes in
        [json!({}), json!({ "top_k": 4 }), json!({ "prior": "none" }), json!({ "lr": 1e-4, "passes": 2 })]
    {
        let config = read(changes).expect("known names");
        let written = serde_json::to_value(&config).expect("JSON");
        let names: Vec<&str> = written.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(names, NAMES);
        assert_eq!(read(written).expect("its own words"), config);
        let toml = toml::to_string(&config).expect("TOML");
        assert_eq!(toml::from_str::<SuperHfConfig>(&toml).expect("its own words"), config);
    }
}

#[test]
fn other_projects_words_are_read() {
    for (alias, name) in ALIASES {
        let mut default = serde_json::to_value(SuperHfConfig::default()).expect("JSON");
        let value = default.as_object_mut().expect("an object").remove(*name).expect("a setting");
        let changed = match value {
            Value::Number(number) if number.is_u64() => json!(number.as_u64().expect("whole") + 1),
            Value::Number(number) => json!(number.as_f64().expect("a number") + 0.125),
            _ => json!(["x"]),
        };
        let by_alias = read(json!({ *alias: changed.clone() })).expect("an alias");
        assert_eq!(by_alias, read(json!({ *name: changed })).expect("a name"), "{alias}");
        assert_ne!(by_alias, SuperHfConfig::default(), "{alias}");
    }
    assert_eq!(read(json!({ "top_k": 3 })).expect("short").filter, Filter::TopK { k: 3 });
}

#[test]
fn impossible_settings_name_themselves() {
    for (value, expected) in [
        (json!({ "superbatch_size": 0 }), "`superbatch_size` is 0, expected at least 1"),
        (json!({ "top_k": 0 }), "`top_k` is 0, expected at least 1"),
        (json!({ "top_k": 17 }), "`top_k` is 17, expected at most `superbatch_size`, 16"),
        (json!({ "superbatch_size": 2, "top_k": 3 }), "`top_k` is 3, expected at most `superbatch_size`, 2"),
        (json!({ "minibatch": 0 }), "`minibatch` is 0"),
        (json!({ "microbatch": 0 }), "`microbatch` is 0"),
        (json!({ "passes": 0 }), "`passes` is 0"),
        (json!({ "total_episodes": 0 }), "`total_episodes` is 0"),
        (json!({ "response_length": 0 }), "`response_length` is 0"),
        (json!({ "adam_beta_1": 1.0 }), "`adam_beta_1` is 1"),
        (json!({ "top_k": 1, "filter": { "kind": "top_k", "k": 1 } }), "found both `filter` and `top_k`"),
        (json!({ "prior": "none", "kl_coef": 0.1 }), "`kl_coef` is 0.1 and `prior` is none"),
        (json!({ "kl_coef": -1 }), "expected a finite number >= 0, found -1"),
        (json!({ "temperature": 0 }), "expected a finite number > 0, found 0"),
        (json!({ "top_p": 0 }), "expected a number in (0, 1], found 0"),
        (json!({ "max_skipped_fraction": 1.5 }), "expected a number in [0, 1], found 1.5"),
        (json!({ "kl_direction": "forward" }), "expected `prior_to_policy` or `policy_to_prior`"),
        (json!({ "kl_coeff": 0.1 }), "unknown field `kl_coeff`"),
    ] {
        let message = refused(value.clone());
        assert!(message.contains(expected), "{value}: {message}");
    }
}

#[test]
fn a_config_made_in_the_source_is_checked_too() {
    let made =
        SuperHfConfig { filter: Filter::TopK { k: 9 }, superbatch_size: 8, ..SuperHfConfig::default() };
    assert_eq!(made.check(), Err(ConfigError::TopK { top_k: 9, superbatch_size: 8 }));
    let error = align_superhf::SuperHf::new(parts(), made).err().expect("refused");
    assert!(matches!(error, SuperHfError::Config(ConfigError::TopK { .. })), "{error}");
}

#[test]
fn a_group_needs_as_many_prompts_as_it_accumulates() {
    let error = config(json!({ "prompt_accumulation_steps": 7 })).plan(6).expect_err("six prompts");
    assert_eq!(
        error.to_string(),
        "`prompt_accumulation_steps` is 7, expected at most the number of prompts, 6"
    );
    let error = align_superhf::SuperHf::new(parts(), config(json!({ "prompt_accumulation_steps": 7 })));
    assert!(matches!(error.err(), Some(SuperHfError::Config(ConfigError::TooFewPrompts { .. }))));
}

#[test]
fn the_plan_spells_a_run_out() {
    let plan = config(json!({ "total_episodes": 100 })).plan(6).expect("a plan");
    let expected = GroupPlan {
        prompts: 3,
        samples: 6,
        minibatch: 4,
        microbatch: 4,
        kl_samples: 4,
        groups: 6, // ⌈100 / 18⌉
        single_pass: false,
    };
    assert_eq!(plan, expected);
    assert_eq!(
        plan.to_string(),
        "6 groups, each of 18 sequences (3 prompts x 6); optimiser steps of 4 kept sequences, 4 at a time"
    );
    let single = config(json!({ "prompt_accumulation_steps": 0 })).plan(6).expect("a plan");
    assert_eq!((single.prompts, single.groups, single.single_pass), (6, 1, true));
    assert_eq!(config(json!({ "superbatch_size": 2, "top_k": 1 })).plan(6).expect("a plan").kl_samples, 2);
    assert_eq!(world::prompts().len(), 6);
}
