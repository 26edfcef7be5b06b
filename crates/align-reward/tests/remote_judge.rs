//! A judge behind HTTP, against a server on loopback: both orders, log-probabilities and texts, and everything that goes wrong.
#![cfg(feature = "http")]

mod support;

use std::num::NonZeroUsize;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use align_core::oracle::ANTISYMMETRY_TOLERANCE;
use align_core::{
    Completions, OracleError, Preference, check_antisymmetry, checked_preferences, number::Positive,
};
use align_reward::{Recorded, RemoteError, RemoteJudge, RemoteJudgeConfig};
use align_testkit::{Values, assert_close, device};
use serde_json::{Value, json};
use support::Server;

/// A question that a server takes apart again: `prompt|first|second`.
const TEMPLATE: &str = "{prompt}|{first}|{second}";

/// Ids as letters: 1 is `a`.
fn text(ids: &[u32]) -> String {
    ids.iter().map(|&id| char::from_u32(96 + id).unwrap()).collect()
}

fn config(server: &Server) -> RemoteJudgeConfig {
    RemoteJudgeConfig {
        template: TEMPLATE.into(),
        concurrent: NonZeroUsize::MIN,
        retries: 2,
        wait_s: 0.001.try_into().unwrap(),
        timeout_s: Positive::literal(5.0),
        ..RemoteJudgeConfig::new(server.address("/v1"), "judge")
    }
}

fn judge(server: &Server) -> RemoteJudge {
    RemoteJudge::new(config(server), text).unwrap()
}

/// Prompt `z`, and answers of one letter.
fn answers(tokens: &[u32]) -> Completions {
    let rows: Vec<Vec<u32>> = tokens.iter().map(|&token| vec![token]).collect();
    Completions::from_rows(&vec![vec![26]; tokens.len()], &rows, &device())
}

/// The two answers in a request's question.
fn asked(body: &Value) -> (String, String) {
    let messages = body["messages"].as_array().unwrap();
    let parts: Vec<&str> = messages.last().unwrap()["content"].as_str().unwrap().split('|').collect();
    (parts[1].to_owned(), parts[2].to_owned())
}

/// An answer that lists these tokens with their log-probabilities.
fn listing(tokens: &[(&str, f64)]) -> (u16, String) {
    let listed: Vec<Value> =
        tokens.iter().map(|(token, logprob)| json!({ "token": token, "logprob": logprob })).collect();
    let content = tokens.first().map_or("", |first| first.0);
    let choice = json!({
        "message": { "role": "assistant", "content": content },
        "logprobs": { "content": [{ "token": content, "top_logprobs": listed }] },
    });
    (200, json!({ "choices": [choice] }).to_string())
}

fn saying(content: &str) -> (u16, String) {
    (200, json!({ "choices": [{ "message": { "role": "assistant", "content": content } }] }).to_string())
}

/// Prefers the later letter of the alphabet, as text.
fn later(body: &Value) -> (u16, String) {
    let (first, second) = asked(body);
    saying(if first > second { "A" } else { "B" })
}

#[test]
fn both_orders_are_asked_and_averaged() {
    // T11 of the description of INPO: logits (A, B) of (2.0, 1.0), and of (0.4, 0.9) with the answers exchanged. A constant
    // taken from both logits makes log-probabilities of them, and changes nothing.
    let server = Server::start(|_, body| match asked(body).0.as_str() {
        "a" => listing(&[("A", 2.0 - 3.0), ("B", 1.0 - 3.0)]),
        _ => listing(&[("B", 0.9 - 2.0), ("A", 0.4 - 2.0)]),
    });
    let judge = judge(&server);
    let (y1, y2) = (answers(&[1]), answers(&[2]));
    assert_close(judge.prefer(&y1, &y2), 0.676758955, 1e-6); // f32
    assert_eq!(
        server.requests(),
        ["z|a|b", "z|b|a"].map(|question| json!({
            "model": "judge",
            "messages": [
                { "role": "system", "content": config(&server).system },
                { "role": "user", "content": question },
            ],
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": true,
            "top_logprobs": 20,
        }))
    );
    assert!(server.seen().iter().all(|request| request.path == "/v1/chat/completions"));
    assert_close(judge.prefer(&y2, &y1), 1.0 - 0.676758955, 1e-6);
    check_antisymmetry(&judge, &y1, &y2, ANTISYMMETRY_TOLERANCE).unwrap();

    // It likes what comes first: 0.731058579 + 0.377540669 − 1.
    let metrics = judge.take_metrics();
    let names: Vec<&str> = metrics.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["judge/questions", "judge/undecided", "judge/place_bias"]);
    assert_eq!((metrics[0].1, metrics[1].1), (8.0, 0.0));
    assert_close(metrics[2].1, 0.108599248, 1e-9);
    assert_eq!(judge.take_metrics(), []);
}

#[test]
fn every_spelling_of_a_letter_counts_and_nothing_else_does() {
    let ln = f64::ln;
    for (listed, expected) in [
        // 0.3 + 0.3 against 0.2.
        (vec![("A", ln(0.3)), (" A", ln(0.3)), ("B", ln(0.2)), ("Both", ln(0.1)), ("a", ln(0.1))], 0.75),
        // What is not listed has probability 0.
        (vec![("\nB", ln(0.5)), ("the", ln(0.5))], 0.0),
        (vec![("**A**", -0.1)], 1.0),
        // Some servers write −9999 for impossible.
        (vec![("A", -9999.0), ("B", -9999.0)], 0.5),
        (vec![("A", 0.0), ("B", -9999.0)], 1.0),
    ] {
        // The same whichever answer comes first, so that averaging changes nothing: A is always the letter `b`.
        let (forward, backward) = (listed.clone(), listed.clone());
        let server = Server::start(move |_, body| match asked(body).0.as_str() {
            "b" => listing(&forward),
            _ => {
                let exchanged: Vec<(String, f64)> = backward
                    .iter()
                    .map(|(token, log_prob)| {
                        let turn = |letter| match letter {
                            'A' => 'B',
                            'B' => 'A',
                            other => other,
                        };
                        (token.chars().map(turn).collect(), *log_prob)
                    })
                    .collect();
                let exchanged: Vec<(&str, f64)> =
                    exchanged.iter().map(|(token, log_prob)| (token.as_str(), *log_prob)).collect();
                listing(&exchanged)
            }
        });
        let judge = judge(&server);
        assert_close(judge.prefer(&answers(&[2]), &answers(&[1])), expected, 1e-6); // f32
        let metrics = judge.take_metrics();
        assert_close(metrics[2].1, 0.0, 1e-12);
        assert_eq!(metrics[1].1, 0.0, "{listed:?}");
    }
}

#[test]
fn without_log_probabilities_the_text_decides() {
    let server = Server::start(|_, body| {
        assert!(body.get("logprobs").is_none() && body.get("top_logprobs").is_none());
        match asked(body) {
            (first, second) if first == "d" || second == "d" => saying("I cannot say"),
            (first, second) => saying(if first > second { " A." } else { "B" }),
        }
    });
    let judge = RemoteJudge::new(
        RemoteJudgeConfig { top_logprobs: 0, system: String::new(), ..config(&server) },
        text,
    )
    .unwrap();
    let found = judge.prefer(&answers(&[1, 3, 4, 2]), &answers(&[2, 2, 1, 2])).values();
    // Equal answers: B in both orders.
    assert_eq!(found, [0.0, 1.0, 0.5, 0.5]);
    let request = server.requests().remove(0);
    assert_eq!(request["messages"], json!([{ "role": "user", "content": "z|a|b" }]), "no system message");
    assert_eq!(
        judge.take_metrics(),
        [("judge/questions", 8.0), ("judge/undecided", 0.25), ("judge/place_bias", -0.25)]
            .map(|(name, value)| (name.to_owned(), value))
    );
    // Log-probabilities without either letter say nothing; neither does the text then.
    let silent = Server::start(|_, _| listing(&[("The", -0.1), ("I", -2.0)]));
    assert_eq!(self::judge(&silent).prefer(&answers(&[1]), &answers(&[2])).values(), [0.5]);
}

#[test]
fn a_text_that_looks_like_a_placeholder_is_left_alone() {
    let server = Server::start(|_, _| saying("A"));
    let names = |ids: &[u32]| ["{second}", "{prompt}", "{first}{", "é"][ids[0] as usize].to_owned();
    let template = "{{first}} {prompt} {second} {first}";
    let judge =
        RemoteJudge::new(RemoteJudgeConfig { template: template.into(), ..config(&server) }, names).unwrap();
    let side = |answer: u32| Completions::from_rows(&[vec![0]], &[vec![answer]], &device());
    judge.prefer(&side(1), &side(2));
    let question = |request: &Value| request["messages"][1]["content"].as_str().unwrap().to_owned();
    let seen: Vec<String> = server.requests().iter().map(question).collect();
    assert_eq!(
        seen,
        ["{{prompt}} {second} {first}{ {prompt}", "{{first}{} {second} {prompt} {first}{"],
        "each text once, where the template says"
    );
}

#[test]
fn the_default_question_shows_everything_and_asks_for_a_letter() {
    let config = RemoteJudgeConfig::new("http://localhost/", "judge");
    for part in
        ["{prompt}", "{first}", "{second}", "Answer A\n{first}", "Answer B\n{second}", "Reply with A or B"]
    {
        assert_eq!(config.template.matches(part).count(), 1, "{part}");
    }
}

#[test]
fn what_may_pass_is_asked_again() {
    let server = Server::start(|request, body| match request {
        0 => (429, "slow down".into()),
        2 => (0, String::new()),
        3 => (503, "busy".into()),
        _ => later(body),
    });
    assert_eq!(judge(&server).prefer(&answers(&[2]), &answers(&[1])).values(), [1.0]);
    assert_eq!(server.requests().len(), 5, "three failures and two questions");
}

#[test]
fn failures_are_named_and_end_the_asking() {
    let cases: [(u16, String, &str); 5] = [
        (401, "wrong key".into(), "status 401, expected 200; it says \"wrong key\""),
        (200, "<html>".into(), "answered \"<html>\", expected JSON"),
        (200, json!({ "choices": [] }).to_string(), "expected log-probabilities or a text in `choices[0]`"),
        (200, json!({ "error": "no" }).to_string(), "expected log-probabilities or a text in `choices[0]`"),
        (
            200,
            json!({ "choices": [{ "message": { "content": null } }] }).to_string(),
            "expected log-probabilities or a text in `choices[0]`",
        ),
    ];
    for (status, body, part) in cases {
        let server = Server::start(move |_, _| (status, body.clone()));
        let judge = judge(&server);
        let (first, second) = (answers(&[1, 2, 3]), answers(&[2, 3, 4]));
        let error = checked_preferences(&judge, &first, &second, 3).unwrap_err();
        let OracleError::Failed { row: 0, reason, .. } = error else { panic!("{error}") };
        assert!(reason.contains(part), "{reason}");
        assert!(reason.contains("/v1/chat/completions"), "{reason}");
        assert_eq!(server.requests().len(), 1, "a judge that refuses is not asked on");
        assert_eq!(judge.take_failure(), None);
    }
    let slow = Server::start(|_, body| {
        std::thread::sleep(Duration::from_secs(2));
        later(body)
    });
    let config = RemoteJudgeConfig { timeout_s: Positive::literal(0.05), retries: 0, ..config(&slow) };
    let judge = RemoteJudge::new(config, text).unwrap();
    assert!(judge.prefer(&answers(&[1]), &answers(&[2])).values()[0].is_nan());
    let error = judge.take_error().unwrap();
    assert!(matches!(error, RemoteError::NoAnswer { attempts: 1, .. }), "{error}");
}

#[test]
fn a_row_needs_both_of_its_answers() {
    // The fourth question, the second of row 1, fails; row 0 is whole.
    let server = Server::start(|request, body| if request == 3 { (400, "no".into()) } else { later(body) });
    let judge = judge(&server);
    let found = judge.prefer(&answers(&[1, 2, 3]), &answers(&[2, 3, 4])).values();
    assert_eq!(found[0], 0.0);
    assert!(found[1].is_nan() && found[2].is_nan(), "{found:?}");
    assert_eq!(server.requests().len(), 4);
    let metrics = judge.take_metrics();
    assert_eq!((metrics[0].1, metrics[2].1), (3.0, 0.0), "three questions, one whole row");
}

#[test]
fn questions_are_on_their_way_together_and_come_back_in_order() {
    // No answer leaves before three questions have arrived, so one that waits for the one before it gets none.
    let barrier = Arc::new(Barrier::new(3));
    let server = Server::start(move |_, body| {
        barrier.wait();
        later(body)
    });
    let config = RemoteJudgeConfig { concurrent: NonZeroUsize::new(3).unwrap(), ..config(&server) };
    let judge = RemoteJudge::new(config, text).unwrap();
    // Six rows, twelve questions.
    let (first, second) = (answers(&[1, 5, 2, 7, 3, 1]), answers(&[2, 4, 3, 6, 4, 9]));
    assert_eq!(judge.prefer(&first, &second).values(), [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]);
    assert_eq!(server.requests().len(), 12);
}

#[test]
fn a_server_that_dies_half_way_is_asked_only_for_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("answers.jsonl");
    let (first, second) = (answers(&[1, 5, 2, 7]), answers(&[2, 4, 3, 6]));
    // Five questions are answered: two rows and a half.
    let dying = Server::start(|request, body| if request < 5 { later(body) } else { (0, String::new()) });
    let recorded = Recorded::open(&file, judge(&dying)).unwrap();
    let error = checked_preferences(&recorded, &first, &second, 4).unwrap_err();
    let OracleError::Failed { row: 2, reason, .. } = error else { panic!("{error}") };
    assert!(reason.contains("gave no answer in 3 attempts"), "{reason}");
    assert_eq!(recorded.known(), 2);
    drop(recorded);

    let server = Server::start(|_, body| later(body));
    let recorded = Recorded::open(&file, judge(&server)).unwrap();
    let found = checked_preferences(&recorded, &first, &second, 4).unwrap();
    assert_eq!(found, [0.0, 1.0, 0.0, 1.0]);
    let questions: Vec<(String, String)> = server.requests().iter().map(asked).collect();
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(questions, [pair("b", "c"), pair("c", "b"), pair("g", "f"), pair("f", "g")]);
    // Nobody need be there any more.
    drop(recorded);
    let table = Recorded::table(&file).unwrap();
    assert_eq!(checked_preferences(&table, &second, &first, 4).unwrap(), [1.0, 0.0, 1.0, 0.0]);
}

#[test]
fn the_key_goes_there_from_its_variable_and_nowhere_else() {
    // A variable that is set while tests run.
    const VARIABLE: &str = "CARGO_PKG_NAME";
    let key = std::env::var(VARIABLE).unwrap();
    let server = Server::start(|_, _| (401, "who are you".into()));
    let with_key = RemoteJudgeConfig { api_key_env: Some(VARIABLE.into()), ..config(&server) };
    let judge = RemoteJudge::new(with_key.clone(), text).unwrap();
    judge.prefer(&answers(&[1]), &answers(&[2]));
    assert_eq!(server.seen()[0].authorization, Some(format!("Bearer {key}")));
    let reason = judge.take_failure().unwrap();
    assert!(!reason.contains(&key), "{reason}");
    assert!(!serde_json::to_string(&with_key).unwrap().contains(&key));

    RemoteJudge::new(config(&server), text).unwrap().prefer(&answers(&[1]), &answers(&[2]));
    assert_eq!(server.seen()[1].authorization, None);

    let missing = RemoteJudgeConfig { api_key_env: Some("ALIGN_TEST_NO_SUCH_KEY".into()), ..config(&server) };
    let message = RemoteJudge::new(missing, text).err().unwrap().to_string();
    assert!(
        message.starts_with("the environment variable `ALIGN_TEST_NO_SUCH_KEY` is not set or empty"),
        "{message}"
    );
}

#[test]
fn recipes_are_read_and_checked() {
    let read = |text: &str| serde_json::from_str::<RemoteJudgeConfig>(text);
    let short = read(r#"{"url": "http://localhost:8000/v1", "model": "judge"}"#).unwrap();
    assert_eq!(short, RemoteJudgeConfig::new("http://localhost:8000/v1", "judge"));
    let written = serde_json::to_string(&short).unwrap();
    assert_eq!(read(&written).unwrap(), short);
    for wrong in [
        r#"{"url": "u", "model": "m", "api_key": "secret"}"#,
        r#"{"url": "u", "model": "m", "concurrent": 0}"#,
        r#"{"url": "u", "model": "m", "timeout_s": 0}"#,
        r#"{"url": "u", "model": "m", "wait_s": -1}"#,
        r#"{"url": "u"}"#,
    ] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
    for (placeholder, template) in
        [("{prompt}", "{first}{second}"), ("{first}", "{prompt}{second}"), ("{second}", "{prompt}{first}")]
    {
        let config = RemoteJudgeConfig { template: template.into(), ..short.clone() };
        let message = RemoteJudge::new(config, text).err().unwrap().to_string();
        assert_eq!(
            message,
            format!("the judge's template has no `{placeholder}`, expected it where that text goes")
        );
    }
    // The address may be the whole one.
    let server = Server::start(|_, _| saying("A"));
    let whole = server.address("/openai/chat/completions/");
    let judge = RemoteJudge::new(RemoteJudgeConfig { url: whole, ..config(&server) }, text).unwrap();
    judge.prefer(&answers(&[1]), &answers(&[2]));
    assert_eq!(server.seen()[0].path, "/openai/chat/completions");
}

#[test]
#[should_panic(expected = "RemoteJudge: the prompts of row 0 differ: [26] and [25]")]
fn answers_to_different_prompts_are_a_bug() {
    let server = Server::start(|_, _| saying("A"));
    let other = Completions::from_rows(&[vec![25]], &[vec![1]], &device());
    judge(&server).prefer(&answers(&[1]), &other);
}
