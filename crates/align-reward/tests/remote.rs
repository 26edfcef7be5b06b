//! A reward behind HTTP, against a server on loopback.
#![cfg(feature = "http")]

mod support;

use std::net::TcpListener;

use align_core::{Completions, Reward};
use align_reward::{Clipped, RemoteConfig, RemoteError, RemoteReward, RequestForm};
use align_testkit::device;
use serde_json::{Value, json};
use support::Server;

impl Server {
    fn reward(&self, form: RequestForm) -> RemoteReward {
        let config = RemoteConfig {
            batch: 2,
            retries: 2,
            wait_s: 0.001,
            timeout_s: 5.0,
            ..RemoteConfig::new(self.address("/get_reward"), form)
        };
        RemoteReward::new(config, |ids: &[u32]| ids.iter().map(|id| format!("<{id}>")).collect())
    }
}

fn three() -> Completions {
    Completions::from_rows(&[vec![1, 2], vec![3], vec![4]], &[vec![5], vec![6, 7], vec![8]], &device())
}

fn scores(reward: &dyn Reward) -> Vec<f32> {
    reward.score(&three()).to_data().iter().collect()
}

/// One score for each text: its length.
fn lengths(texts: &Value) -> Vec<usize> {
    texts.as_array().unwrap().iter().map(|text| text.as_str().unwrap().len()).collect()
}

#[test]
fn openrlhf_s_form_goes_there_in_batches_and_comes_back_in_order() {
    let server = Server::start(|_, body| (200, json!({ "rewards": lengths(&body["query"]) }).to_string()));
    let reward = server.reward(RequestForm::OpenRlhf {});
    assert_eq!(scores(&reward), [9.0, 9.0, 6.0]);
    assert_eq!(
        server.requests(),
        [
            json!({ "query": ["<1><2><5>", "<3><6><7>"], "prompts": ["<1><2>", "<3>"] }),
            json!({ "query": ["<4><8>"], "prompts": ["<4>"] }),
        ]
    );
    // A reward like any other.
    assert_eq!(scores(&Clipped { reward, limit: 7.0 }), [7.0, 7.0, 6.0]);
}

#[test]
fn vllm_s_forms_are_read_by_index() {
    let classify = Server::start(|_, body| {
        let rows: Vec<Value> = lengths(&body["input"])
            .into_iter()
            .enumerate()
            .map(|(index, length)| json!({ "index": index, "label": "LABEL_0", "probs": [length], "num_classes": 1 }))
            .rev()
            .collect();
        (200, json!({ "object": "list", "data": rows }).to_string())
    });
    let form = RequestForm::VllmClassify { model: "rm".into() };
    assert_eq!(scores(&classify.reward(form)), [9.0, 9.0, 6.0]);
    assert_eq!(classify.requests()[1], json!({ "model": "rm", "input": ["<4><8>"] }));

    let pooling = Server::start(|_, body| {
        let rows: Vec<Value> = lengths(&body["input"])
            .into_iter()
            .enumerate()
            .map(|(index, length)| json!({ "index": index, "data": [[0.5], [length]] }))
            .collect();
        (200, json!({ "data": rows }).to_string())
    });
    let form = RequestForm::VllmPooling { model: "rm".into() };
    assert_eq!(scores(&pooling.reward(form)), [9.0, 9.0, 6.0]);
}

#[test]
fn what_may_pass_is_tried_again_and_what_may_not_is_not() {
    let recovers = Server::start(|request, body| match request {
        0 => (0, String::new()),
        1 => (503, "busy".into()),
        _ => (200, json!({ "rewards": lengths(&body["query"]) }).to_string()),
    });
    assert_eq!(scores(&recovers.reward(RequestForm::OpenRlhf {})), [9.0, 9.0, 6.0]);
    assert_eq!(recovers.requests().len(), 4, "two failures and two batches");

    let refuses = Server::start(|_, _| (422, "no such field".into()));
    let reward = refuses.reward(RequestForm::OpenRlhf {});
    assert!(scores(&reward).iter().all(|score| score.is_nan()));
    let said = reward.take_failure().unwrap();
    assert!(said.contains("status 422, expected 200") && said.contains("no such field"), "{said}");
    assert_eq!(refuses.requests().len(), 1);
    assert_eq!(reward.take_failure(), None);

    let never = Server::start(|_, _| (500, "broken".into()));
    let error = never.reward(RequestForm::OpenRlhf {}).try_score(&three()).unwrap_err();
    assert!(matches!(error, RemoteError::Status { status: 500, .. }), "{error}");
    assert_eq!(never.requests().len(), 3, "two repetitions");
}

#[test]
fn answers_that_are_no_scores_are_named() {
    for (answer, part) in [
        (json!({ "rewards": [1.0] }).to_string(), "expected 2 numbers in `rewards`"),
        (json!({ "rewards": ["a", "b"] }).to_string(), "expected 2 numbers in `rewards`"),
        ("<html>".to_owned(), "answered \"<html>\", expected 2 numbers in JSON"),
    ] {
        let server = Server::start(move |_, _| (200, answer.clone()));
        let message = server.reward(RequestForm::OpenRlhf {}).try_score(&three()).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
    // Nobody there.
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    let config =
        RemoteConfig { retries: 1, wait_s: 0.0, ..RemoteConfig::new(gone, RequestForm::OpenRlhf {}) };
    let message =
        RemoteReward::new(config, |_: &[u32]| String::new()).try_score(&three()).unwrap_err().to_string();
    assert!(message.contains("gave no answer in 2 attempts"), "{message}");
}

#[test]
fn a_server_that_is_too_slow_is_given_up() {
    let slow = Server::start(|_, _| {
        std::thread::sleep(std::time::Duration::from_secs(2));
        (200, json!({ "rewards": [1.0, 1.0] }).to_string())
    });
    let config = RemoteConfig {
        timeout_s: 0.05,
        retries: 0,
        ..RemoteConfig::new(slow.address("/"), RequestForm::OpenRlhf {})
    };
    let error = RemoteReward::new(config, |_: &[u32]| String::new()).try_score(&three()).unwrap_err();
    assert!(matches!(error, RemoteError::NoAnswer { attempts: 1, .. }), "{error}");
}
