//! Bad input: each error names the thing, what was expected and what was found.

use align_core::{Completions, Frozen, RewardFn};
use align_ppo::{Ppo, PpoConfig, PpoError, PpoParts};
use align_testkit::{BigramCritic, BigramLm, device};
use burn::tensor::Tensor;
use serde_json::json;

use crate::world::{config, parts, sft, without_critic};

type Parts = PpoParts<BigramLm, BigramCritic>;

fn usual() -> Parts {
    parts(sft(1), Frozen::new(&sft(1)))
}

fn refused(parts: Parts, config: PpoConfig) -> String {
    Ppo::new(parts, config).err().expect("refused").to_string()
}

#[test]
fn no_prompts() {
    let message = refused(PpoParts { prompts: Vec::new(), ..usual() }, config(json!({})));
    assert_eq!(message, "found no prompts, expected at least one");
}

#[test]
fn an_empty_prompt_is_named_by_its_row() {
    let parts = PpoParts { prompts: vec![Vec::new()], ..usual() };
    let error = Ppo::new(parts, config(json!({}))).expect("found out when generating").iteration(0);
    assert!(error.expect_err("nothing to continue").to_string().contains("prompt 0 is empty"));
}

#[test]
fn gae_without_a_critic_and_a_critic_without_gae() {
    let error = Ppo::new(without_critic(usual()), config(json!({}))).err().expect("refused");
    assert!(matches!(error, PpoError::CriticMissing), "{error}");
    let message = refused(usual(), config(json!({ "advantage_estimator": "position_baseline" })));
    assert!(message.contains("trained for nothing"), "{message}");
}

#[test]
fn a_penalty_for_missing_stops_needs_a_stop_token() {
    let message = refused(usual(), config(json!({ "stop_token_ids": [], "missing_eos_penalty": 1.0 })));
    assert!(
        message.contains("`missing_eos_penalty`") && message.contains("`stop_token_ids` is empty"),
        "{message}"
    );
}

#[test]
fn a_stop_token_outside_the_vocabulary() {
    let mut ppo =
        Ppo::new(usual(), config(json!({ "stop_token_ids": [99] }))).expect("found out when generating");
    let message = ppo.iteration(0).expect_err("no such token").to_string();
    assert!(message.contains("stop token 99") && message.contains('5'), "{message}");
}

#[test]
fn a_reward_that_is_no_number_is_named_by_its_row() {
    let reward = RewardFn(|completions: &Completions| -> Tensor<1> {
        let scores: Vec<f32> =
            (0..completions.batch_size()).map(|row| if row == 5 { f32::NAN } else { 1.0 }).collect();
        Tensor::from_floats(scores.as_slice(), &device())
    });
    let mut ppo =
        Ppo::new(PpoParts { reward: Box::new(reward), ..usual() }, config(json!({}))).expect("parts");
    let error = ppo.iteration(0).expect_err("not a number");
    // Eight sequences go to the judge at a time.
    assert!(matches!(error, PpoError::NonFiniteReward { row: 5, found } if found.is_nan()), "{error}");
    assert_eq!(error.to_string(), "the reward of row 5 is NaN, expected a finite number");
}

#[test]
fn a_reward_of_the_wrong_length() {
    let reward = RewardFn(|_: &Completions| -> Tensor<1> { Tensor::zeros([3], &device()) });
    let mut ppo =
        Ppo::new(PpoParts { reward: Box::new(reward), ..usual() }, config(json!({}))).expect("parts");
    let message = ppo.iteration(0).expect_err("three scores").to_string();
    assert_eq!(message, "the reward gave 6 scores, expected 16, one for each response");
}

#[test]
fn an_adaptive_target_below_the_start_is_out_of_reach() {
    // sft(1) and sft(2) are unrelated: their distance is far above a thousandth of a nat.
    let parts = parts(sft(1), Frozen::new(&sft(2)));
    let mut ppo = Ppo::new(parts, config(json!({ "kl_target": 0.001 }))).expect("parts");
    let message = ppo.iteration(0).expect_err("out of reach").to_string();
    assert!(message.contains("expected an adaptive target above"), "{message}");
}

#[test]
fn a_judge_that_says_why_it_gave_no_scores_is_heard_and_members_that_disagree_stop_the_run() {
    use align_core::{Completions, Reward};
    use burn::tensor::Tensor;

    /// Pays a constant, or nothing; reports a variance that grows by one each batch.
    struct Judge {
        score: f32,
        batches: std::sync::Mutex<f64>,
    }
    impl Reward for Judge {
        fn score(&self, completions: &Completions) -> Tensor<1> {
            *self.batches.lock().unwrap() += 0.5;
            let rows = completions.batch_size();
            let device = completions.response.ids.device();
            Tensor::from_floats(vec![self.score; rows].as_slice(), &device)
        }
        fn take_metrics(&self) -> Vec<(String, f64)> {
            vec![("ensemble/variance".into(), *self.batches.lock().unwrap())]
        }
        fn take_failure(&self) -> Option<String> {
            self.score.is_nan().then(|| "nobody answered".to_owned())
        }
    }
    let with = |score, changes| {
        let reward = Judge { score, batches: Default::default() };
        let parts = PpoParts { reward: Box::new(reward), ..usual() };
        Ppo::new(parts, config(changes)).expect("parts")
    };
    let error = with(f32::NAN, json!({})).iteration(0).expect_err("no scores");
    assert_eq!(error.to_string(), "the judge gave no scores: nobody answered");

    // Two microbatches an iteration: variance 1, then 2.
    let mut ppo = with(1.0, json!({ "max_disagreement": 1.5 }));
    let metrics = ppo.iteration(0).expect("within the limit");
    assert_eq!(metrics.get("ensemble/variance"), Some(1.0));
    let error = ppo.iteration(1).expect_err("beyond it").to_string();
    assert!(error.contains("a variance of 2.0000, `max_disagreement` is 1.5"), "{error}");

    let mut alone = Ppo::new(usual(), config(json!({ "max_disagreement": 1.5 }))).expect("parts");
    let error = alone.iteration(0).expect_err("no members").to_string();
    assert!(error.contains("needs an ensemble"), "{error}");
}
