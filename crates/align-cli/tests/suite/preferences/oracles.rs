//! What can say which of two answers is better, and what cannot.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::self_play::nash;
use super::{Single, around, circle, curve, summary};
use crate::tiny::{at, folder, hashes, rows, text, works};

fn oracle(kind: &str, rest: &str) -> String {
    format!("oracle={{ kind = \"{kind}\", {rest} }}")
}

fn model(kind: &str, path: &str) -> String {
    oracle(kind, &format!("model = \"{path}\""))
}

#[test]
fn a_pairwise_model_learns_a_circle_that_no_score_explains() {
    let accuracy = |stage: &str| summary(&circle().join(stage))["held_out_accuracy"].as_f64().unwrap();
    let (scores, pairwise) = (accuracy("scores"), accuracy("pairwise"));
    // Labels are drawn, so nobody is always right. Of three answers in a circle a score gets two pairs right at most.
    assert!(pairwise > 0.75 && pairwise > scores + 0.1, "{pairwise} and {scores}");
}

#[test]
fn trained_models_answer_and_mixtures_of_them() {
    let nash = nash("nash");
    let part = |weight: f64, oracle: &str| format!("{{ weight = {weight}, oracle = {{ {oracle} }} }}");
    let (scores, pairwise) = (around("scores/model"), around("pairwise/model"));
    let mixture = |first: f64, second: f64| {
        let parts = [
            part(first, &format!("kind = \"reward\", model = \"{scores}\"")),
            part(second, &format!("kind = \"pairwise\", model = \"{pairwise}\"")),
        ];
        oracle("mixture", &format!("parts = [{}]", parts.join(", ")))
    };
    // Answers of one word, so that all can be asked about. The start's distance from the equilibrium tells games apart.
    let gap = |name: &str, oracle: &str| {
        let small = ["exact_gap={ tau = 0.1 }", "self_play.response_length=1", "self_play.iterations=1"];
        let out = nash.works(name, &[&[oracle], &small[..]].concat());
        assert_eq!(curve(&out, "nash/duality_gap").len(), 1);
        summary(&out)["reference_gap"].as_f64().unwrap()
    };
    let (scores, pairwise) =
        (gap("scores", &model("reward", &scores)), gap("pairwise", &model("pairwise", &pairwise)));
    let [even, uneven, scaled] =
        [(1.0, 1.0), (3.0, 1.0), (6.0, 2.0)].map(|(a, b)| gap(&format!("mix-{a}"), &mixture(a, b)));
    for (first, second) in [(scores, pairwise), (scores, even), (pairwise, even), (even, uneven)] {
        assert!((first - second).abs() > 1e-4, "{first} and {second}");
    }
    assert!((uneven - scaled).abs() < 1e-9, "weights are divided by their sum: {uneven} and {scaled}");
}

#[test]
fn what_is_no_oracle_is_refused() {
    let nash = nash("nash");
    let (scores, pairwise) = (around("scores/model"), around("pairwise/model"));
    nash.refuses(
        &[&model("pairwise", &scores)],
        &["is no pairwise preference model", "trained with `pairwise = true`"],
    );
    nash.refuses(&[&model("pairwise", &around("start/model"))], &["is no pairwise preference model"]);
    nash.refuses(&[&model("pairwise", &at("reward/model"))], &["has another tokenizer"]);
    nash.refuses(
        &[&model("reward", &pairwise)],
        &["is no reward model", "use it as an oracle of kind \"pairwise\""],
    );
    nash.refuses(&[&model("reward", &around("start/model"))], &["is no reward model", "has no head"]);
    nash.refuses(&[&oracle("world", &format!("world = \"{scores}\""))], &["is no generated world"]);
    nash.refuses(&[&oracle("world", &format!("world = \"{}\"", at("world")))], &["has another tokenizer"]);
    nash.refuses(
        &[&oracle("mixture", "parts = []")],
        &["`oracle.parts` is empty, expected at least one criterion"],
    );
    let nothing = format!(
        "parts = [{{ weight = 0.0, oracle = {{ kind = \"world\", world = \"{}\" }} }}]",
        around("world")
    );
    nash.refuses(&[&oracle("mixture", &nothing)], &["expected a finite number > 0, found 0"]);
    nash.refuses(&[&model("rewards", "x")], &["unknown variant `rewards`", "did you mean `reward`?"]);
    nash.refuses(
        &[&oracle("http", "url = \"http://localhost:1\", model = \"m\", template = \"{first} {second}\"")],
        &["{prompt}"],
    );
    // A pairwise model gives no answer a score anywhere else either.
    let single = format!(
        "output_dir = \"unset\"\narms = {{ a = \"{}\" }}\nreward = \"{pairwise}\"\nprompts = {{ path = \"{}\" }}\n",
        around("start/model"),
        around("world/prompts.jsonl"),
    );
    Single::new("eval", &single).refuses(&[], &["it compares two answers and gives none a score"]);
}

#[test]
fn a_pairwise_model_may_begin_as_a_reward_model_of_any_scale() {
    let files = folder();
    let data = rows(&files, "pairs.jsonl", &super::pairs(16));
    let reward = Single::new(
        "reward",
        &format!(
            "output_dir = \"unset\"\npairwise = true\nmodel = \"{}\"\ndata = {{ path = \"{data}\" }}\ntraining = {{ max_steps = 1 }}\n",
            around("scores/model")
        ),
    );
    let out = reward.works("out", &[]);
    let oracle = model("pairwise", out.join("model").to_str().unwrap());
    nash("nash").works("out", &[&oracle, "self_play.iterations=1"]);
    reward.refuses(&["ensemble.members=2"], &["`pairwise` and `ensemble` do not go together"]);
    reward.refuses(
        &["shuffle_window=8", "training.max_steps=1"],
        &["`pairwise` and `shuffle_window` do not go together"],
    );
}

/// The answers an oracle's file holds.
fn recorded(path: &Path) -> usize {
    fs::read_to_string(path).unwrap().lines().count()
}

#[test]
fn recorded_answers_stand_in_for_the_oracle() {
    let nash = nash("nash");
    let asked = nash.works("asked", &["record_oracle=true"]);
    let table = asked.join("oracle.jsonl");
    assert!(recorded(&table) > 0);
    let first = fs::read_to_string(&table).unwrap().lines().next().unwrap().to_owned();
    let row: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(
        row.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["prompt", "first", "second", "preference"]
    );

    let recall = |path: &str| oracle("recorded", &format!("path = \"{path}\""));
    let recalled = nash.works("recalled", &[&recall(table.to_str().unwrap())]);
    assert!(curve(&recalled, "recorded/asked").iter().all(|asked| *asked == 0.0));
    assert!(curve(&asked, "recorded/asked")[0] > 0.0);
    assert_eq!(hashes(&recalled.join("model")), hashes(&asked.join("model")));
    assert!(!recalled.join("oracle.jsonl").exists());

    let files = folder();
    let few = text(&files, "few.jsonl", &format!("{first}\n"));
    nash.refuses(
        &[&recall(&few)],
        &["the oracle failed in iteration 1", "few.jsonl has no preference between the answers of row"],
    );
    let bad = text(&files, "bad.jsonl", &format!("{first}\n{{\"prompt\": [1]}}\n"));
    nash.refuses(
        &[&recall(&bad)],
        &["line 2 of", "bad.jsonl is damaged", "expected token ids `prompt`, `first`, `second`"],
    );
    let no = text(&files, "no.jsonl", &first.replace(&row["preference"].to_string(), "1.5"));
    nash.refuses(&[&recall(&no)], &["line 1 of", "has preference 1.5, expected a number in [0, 1]"]);
    nash.refuses(&[&recall("no/such.jsonl")], &["no/such.jsonl"]);
}

/// A judge on loopback that prefers what comes later in the alphabet, until it has answered so many questions.
struct Judge {
    address: String,
    answered: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Judge {
    fn start(most: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/v1", listener.local_addr().unwrap());
        let (answered, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(most)));
        let (count, limit) = (answered.clone(), most.clone());
        // The thread ends with the test's process.
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let Some(question) = question(&mut BufReader::new(&stream)) else { continue };
                let texts: Vec<&str> = question.split('|').collect();
                let verdict =
                    json!({ "message": { "content": if texts[1] > texts[2] { "A" } else { "B" } } });
                let (status, body) = match count.load(Ordering::SeqCst) < limit.load(Ordering::SeqCst) {
                    true => ("200 OK", json!({ "choices": [verdict] }).to_string()),
                    false => ("503 Service Unavailable", "asleep".to_owned()),
                };
                count.fetch_add(usize::from(status.starts_with("200")), Ordering::SeqCst);
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            }
        });
        Self { address, answered, most }
    }

    fn oracle(&self) -> String {
        let form = "template = \"{prompt}|{first}|{second}\", top_logprobs = 0, concurrent = 1, retries = 0";
        oracle("http", &format!("url = \"{}\", model = \"judge\", {form}", self.address))
    }

    /// Questions answered so far.
    fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }
}

/// The last message of a request.
fn question(request: &mut impl BufRead) -> Option<String> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        request.read_line(&mut line).ok()?;
        match line.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().ok()?
            }
            _ if line.trim().is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    request.read_exact(&mut body).ok()?;
    let body: Value = serde_json::from_slice(&body).ok()?;
    Some(body["messages"].as_array()?.last()?["content"].as_str()?.to_owned())
}

#[test]
fn a_judge_over_http_that_dies_half_way_is_asked_only_the_rest() {
    let nash = nash("nash");
    let whole = Judge::start(usize::MAX);
    let straight = nash.works("straight", &[&whole.oracle()]);
    let all = recorded(&straight.join("oracle.jsonl"));
    // Each pair in both orders, and none twice.
    assert_eq!(whole.answered(), 2 * all);

    // Into the second iteration, with the second order of a pair unanswered.
    let judge = Judge::start(all + 11);
    let asks = judge.oracle();
    let ended = nash.run("broken", &[&asks]);
    ended.refuses(&["the oracle failed in iteration", &judge.address, "status 503", "asleep"]);
    let known = recorded(&nash.out("broken").join("oracle.jsonl"));
    assert_eq!(known, judge.answered() / 2);

    judge.most.store(usize::MAX, Ordering::SeqCst);
    let before = judge.answered();
    let resumed = nash.run("broken", &[&asks, "--resume"]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.err);
    resumed.says(&[&format!("{known} recorded answers of the oracle are used again")]);
    assert_eq!(judge.answered() - before, 2 * (all - known));
    let out = nash.out("broken");
    assert_eq!(hashes(&out.join("model")), hashes(&straight.join("model")));
    // A finished run is not asked about again.
    works(&["report", out.to_str().unwrap()]);
}
