//! Bad input: each error names the thing, what was expected and what was found.

use align_core::{CachedReference, Completions, Frozen, Reference, Reward, RewardFn};
use align_superhf::{Judge, NoPrior, SuperHf, SuperHfConfig, SuperHfError, SuperHfParts, Warning};
use align_testkit::{BigramLm, device, train_device};
use align_train::{Algorithm, TrainError};
use burn::tensor::Tensor;
use serde_json::json;

use crate::world::{by_tokens, config, count_of, letters, metric, parts, run, sft, superhf};

type Parts = SuperHfParts<BigramLm>;

fn refused(parts: Parts, config: SuperHfConfig) -> SuperHfError {
    SuperHf::new(parts, config).err().expect("refused")
}

#[test]
fn no_prompts() {
    let error = refused(Parts { prompts: Vec::new(), ..parts() }, config(json!({})));
    assert_eq!(error.to_string(), "found no prompts, expected at least one");
}

#[test]
fn an_empty_prompt_is_named_by_its_row() {
    let parts = Parts { prompts: vec![Vec::new(); 3], ..parts() };
    let mut superhf = SuperHf::new(parts, config(json!({}))).expect("found out when sampling");
    assert!(superhf.iteration(0).expect_err("nothing to continue").to_string().contains("prompt 0 is empty"));
}

#[test]
fn a_prior_has_to_be_a_model_of_the_same_tokens() {
    let answered = Completions::from_rows(&[vec![1]], &[vec![1]], &device());
    let cached: Box<dyn Reference> = Box::new(CachedReference::new(&Frozen::new(&sft(1)), &answered, 1.0));
    for prior in [cached, Box::new(NoPrior)] {
        let error = refused(Parts { prior, ..parts() }, config(json!({})));
        assert!(matches!(error, SuperHfError::PriorWithoutScores), "{error}");
    }
    let wider = Frozen::new(&BigramLm::independent(&[0.0; 9], &device()));
    let error = refused(Parts { prior: Box::new(wider), ..parts() }, config(json!({})));
    assert_eq!(error.to_string(), "the prior scores 9 tokens, expected the policy's 5");
}

#[test]
fn a_score_that_is_no_number_is_named_by_prompt_and_sample() {
    let poisoned = || -> Box<dyn Reward> {
        Box::new(RewardFn(|completions: &Completions| -> Tensor<1> {
            let rows = completions.prompt.rows();
            let scores: Vec<f32> = rows.iter().map(|row| if row[0] == 4 { f32::NAN } else { 1.0 }).collect();
            Tensor::from_floats(scores.as_slice(), &device())
        }))
    };
    let all = json!({ "prompt_accumulation_steps": 6, "stop_token_ids": [] });
    let error = |parts: Parts| {
        SuperHf::new(parts, config(all.clone())).expect("parts").iteration(0).expect_err("not a number")
    };
    let found = error(Parts { reward: poisoned(), ..parts() });
    let SuperHfError::NonFiniteScore { judge: Judge::Reward, prompt_index, completion_index: 0, found } =
        found
    else {
        panic!("another error: {found}")
    };
    // Prompts 2 and 4 begin with token 4.
    assert!([2, 4].contains(&prompt_index) && found.is_nan(), "{prompt_index}");
    let found = error(Parts { gold: Some(poisoned()), ..parts() });
    assert!(matches!(found, SuperHfError::NonFiniteScore { judge: Judge::Gold, .. }), "{found}");
    assert!(found.to_string().starts_with("the gold reward of prompt "), "{found}");
}

#[test]
fn a_judge_of_the_wrong_length_and_one_that_says_why_it_gave_nothing() {
    let with = |reward: Box<dyn Reward>| {
        SuperHf::new(Parts { reward, ..parts() }, config(json!({ "stop_token_ids": [] }))).expect("parts")
    };
    let short = RewardFn(|_: &Completions| -> Tensor<1> { Tensor::zeros([3], &device()) });
    let error = with(Box::new(short)).iteration(0).expect_err("three scores");
    assert_eq!(error.to_string(), "the reward gave 3 scores, expected 4, one for each completion");

    struct Silent;
    impl Reward for Silent {
        fn score(&self, completions: &Completions) -> Tensor<1> {
            Tensor::full([completions.batch_size()], f32::NAN, &device())
        }
        fn take_failure(&self) -> Option<String> {
            Some("nobody answered".to_owned())
        }
    }
    let error = with(Box::new(Silent)).iteration(0).expect_err("no scores");
    assert_eq!(error.to_string(), "the reward gave no scores: nobody answered");
}

#[test]
fn prompts_with_nothing_but_empty_completions_are_skipped_up_to_a_share() {
    // After token 4 the policy stops at once: prompt 4 is always empty, prompt 2 is not.
    let stops = |rows: Vec<u32>| {
        let stop = |row| if rows.contains(&row) { 50.0 } else { -50.0 };
        let table = (0..5).map(|row| vec![stop(row), 0.0, 0.0, 0.0, 0.0]).collect();
        let policy = BigramLm::from_logits(table, &train_device());
        Parts { prior: Box::new(Frozen::new(&policy)), policy, ..parts() }
    };
    let with = |rows, limit: f64| {
        let changes = json!({ "prompt_accumulation_steps": 6, "max_skipped_fraction": limit });
        SuperHf::new(stops(rows), config(changes)).expect("parts").iteration(0)
    };
    let metrics = with(vec![4], 0.2).expect("one of six");
    assert_eq!(metric(&metrics, "superhf/skipped_prompts"), 1.0);
    assert_eq!((metric(&metrics, "superhf/kept"), metric(&metrics, "val/num_empty_responses")), (10.0, 6.0));

    let error = with(vec![4], 0.1).expect_err("more than a tenth");
    assert!(
        matches!(error, SuperHfError::NoValidCompletion { prompt_index: 4, skipped: 1, prompts: 6, .. }),
        "{error}"
    );
    // Never all, whatever the share.
    let error = with(vec![0, 1, 2, 3, 4], 1.0).expect_err("nothing at all");
    assert!(matches!(error, SuperHfError::NoValidCompletion { skipped: 6, prompts: 6, .. }), "{error}");
}

#[test]
fn a_loss_that_is_not_finite_is_skipped_and_counted_up_to_a_share() {
    // A poisoned row of the prior's table, which some minibatches reach: two of six prompts end with token 3.
    let mut rows: Vec<Vec<f32>> = crate::world::table(&sft(1)).chunks(5).map(<[f32]>::to_vec).collect();
    rows[3] = vec![f32::NAN; 5];
    let with = |limit: f64| {
        let prior = Box::new(BigramLm::from_logits(rows.clone(), &device()));
        let changes = json!({
            "prior": "other", "prompt_accumulation_steps": 6, "minibatch": 2, "response_length": 1, "stop_token_ids": [],
            "max_skipped_fraction": limit, "kl_samples": 0,
        });
        SuperHf::new(Parts { prior, ..parts() }, config(changes)).expect("parts").iteration(0)
    };
    let metrics = with(0.7).expect("some minibatches are whole");
    let skipped = metric(&metrics, "superhf/skipped_steps");
    assert!((1.0..=4.0).contains(&skipped), "{skipped}");
    assert!(metric(&metrics, "loss").is_finite());
    let error = with(0.0).expect_err("any is too many");
    assert!(matches!(error, SuperHfError::Train(TrainError::LossNotFinite { .. })), "{error}");
}

#[test]
fn a_length_in_characters_needs_text() {
    let mut without = superhf(json!({ "length_penalty": 0.1 }));
    let error = without.iteration(0).expect_err("no text");
    assert!(matches!(error, SuperHfError::NoText { setting: "length_penalty" }), "{error}");
    run(&mut superhf(json!({ "length_penalty": 0.1 })).with_detokenizer(letters), 1);
    run(&mut superhf(json!({ "length_penalty": 0.1, "length_penalty_unit": "tokens" })), 1);
}

#[test]
fn reports_need_a_judge_and_a_judge_that_is_never_asked_is_warned_about() {
    let error = refused(parts(), config(json!({ "validation_interval": 4 })));
    assert_eq!(
        error.to_string(),
        "`validation_interval` is 4 and found no validation judge, expected one; 0 asks none"
    );
    let with = |changes| {
        let parts = Parts { validation: Some(count_of(3)), ..parts() };
        SuperHf::new(parts, config(changes)).expect("parts")
    };
    assert_eq!(with(json!({})).take_warnings(), [Warning::ValidationNeverAsked]);
    assert_eq!(with(json!({ "validation_interval": 1 })).take_warnings(), []);
}

#[test]
fn a_stop_string_needs_text_and_a_stop_token_a_place_in_the_vocabulary() {
    let error = superhf(json!({ "stop_strings": ["ab"] })).iteration(0).expect_err("no text");
    assert!(error.to_string().contains("stop string \"ab\" needs a tokenizer"), "{error}");
    let error = superhf(json!({ "stop_token_ids": [99] })).iteration(0).expect_err("no such token");
    assert!(error.to_string().contains("stop token 99"), "{error}");
}

#[test]
fn the_outer_loop_gets_the_cause() {
    let parts = Parts { reward: by_tokens(|_| f32::INFINITY), ..parts() };
    let error = SuperHf::new(parts, config(json!({}))).expect("parts").iterate(0).expect_err("infinite");
    let source = std::error::Error::source(&error).expect("the cause").to_string();
    assert!(source.contains("is inf, expected a finite number"), "{source}");
}
