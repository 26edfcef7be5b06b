//! The world of skills, and comparisons on rows with right answers: exact match and likelihood.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::preferences::{kept, read};
use crate::tiny::{align, at, folder, rows, text, works};

/// Two worlds, in each a base that reads and what becomes of it after few and many demonstrations; compared, and the gaps.
pub(crate) fn skills() -> &'static Path {
    static RUN: OnceLock<PathBuf> = OnceLock::new();
    RUN.get_or_init(|| kept("skills", SKILLS, ""))
}

const SKILLS: &str = r#"
title = "Skills"
output_dir = "unset"
[vary]
steps = [10, 60]
skill = ["addition", "facts", "larger"]
[[stage]]
name = "world"
kind = "skills"
seeds = [0, 1]
pretraining = 10
demonstrations = 10
together = ["larger", "facts", "addition"]
[[stage]]
name = "blank"
kind = "init"
seeds = [0, 1]
tokenizer = "@world/seed-{seed}"
config = { model_type = "llama", hidden_size = 32, intermediate_size = 64, num_hidden_layers = 1, num_attention_heads = 2, max_position_embeddings = 16 }
[[stage]]
name = "base"
kind = "sft"
seeds = [0, 1]
model = "@blank/seed-{seed}"
data = { path = "@world/seed-{seed}/pretrain.jsonl" }
training = { max_steps = 25, minibatch = 128, microbatch = 128 }
optimizer = { learning_rate = 1e-2 }
[[stage]]
name = "tuned-{steps}"
kind = "sft"
seeds = [0, 1]
model = "@base/seed-{seed}"
data = { path = "@world/seed-{seed}/together.jsonl" }
training = { max_steps = "{steps}", minibatch = 64, microbatch = 64 }
optimizer = { learning_rate = 5e-3 }
[[stage]]
name = "eval-{skill}"
kind = "eval"
seeds = [0, 1]
arms = { base = "@base/seed-{seed}", "ten steps" = "@tuned-10/seed-{seed}", tuned = "@tuned-60/seed-{seed}" }
answers = { path = "@world/seed-{seed}/{skill}/held_out.jsonl" }
sampling = { temperature = 0.0, max_new_tokens = 4 }
show = 2
[[stage]]
name = "gaps"
kind = "gaps"
tasks = { larger = "@eval-larger", addition = "@eval-addition" }
unseen = { facts = "@eval-facts" }
metric = "nll"
floor = "base"
ceiling = "tuned"
[[stage]]
name = "matches"
kind = "gaps"
tasks = { larger = "@eval-larger" }
floor = "base"
ceiling = "tuned"
smallest = 0.01
[[stage]]
name = "claims"
kind = "claims"
claim = [
    { says = "the ceiling closes everything", figure = { of = "@gaps", by = "tuned" }, at_least = 1.0, every_seed = true },
    { says = "ten steps are on the way", figure = { of = "@gaps", by = "ten steps", curve = "closure/larger" }, above = 0.0, share_of_seeds = 0.5 },
    { says = "answers become likelier", figure = { of = "@gaps", by = "tuned", curve = "nll/facts" }, below = { than = { of = "@gaps", by = "base", curve = "nll/facts" } }, every_seed = true },
    { says = "pigs fly", figure = { of = "@gaps", by = "ten steps" }, above = 2.0, share_of_seeds = 0.5 },
]
"#;

/// A path inside its run, as text.
fn inside(path: &str) -> String {
    skills().join(path).display().to_string()
}

/// A file's rows.
fn lines(path: &str) -> Vec<Value> {
    let text = fs::read_to_string(skills().join(path)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A comparison of the tuned model of seed 0 on some rows; more keys as TOML.
fn compare(files: &TempDir, answers: &str, more: &str) -> Value {
    let out = files.path().join(format!("out-{}", fs::read_dir(files.path()).unwrap().count()));
    let recipe = format!(
        "output_dir = \"{}\"\narms = {{ tuned = \"{}\" }}\nanswers = {{ path = \"{answers}\" }}\n{more}",
        out.display(),
        inside("tuned-60/seed-0/model")
    );
    works(&["eval", &text(files, "eval.toml", &recipe)]);
    read(&out.join("comparison.json"))
}

const GREEDY: &str = "sampling = { temperature = 0.0, max_new_tokens = 4 }\n";

#[test]
fn the_world_is_written_in_folders_of_its_skills() {
    for (path, count) in [
        ("world/seed-0/pretrain.jsonl", 3 * 121 * 10),
        ("world/seed-0/facts/demonstrations.jsonl", 600),
        ("world/seed-0/facts/scrambled.jsonl", 600),
        ("world/seed-0/facts/held_out.jsonl", 61),
        ("world/seed-0/together.jsonl", 1800),
    ] {
        assert_eq!(lines(path).len(), count, "{path}");
    }
    let asked = |path: &str| lines(path).into_iter().map(|row| row["prompt"].clone()).collect::<Vec<_>>();
    let [shown, held_out] =
        ["demonstrations", "held_out"].map(|name| asked(&format!("world/seed-0/larger/{name}.jsonl")));
    assert!(held_out.iter().all(|prompt| !shown.contains(prompt)));
    let scrambled = lines("world/seed-0/facts/scrambled.jsonl");
    assert!(scrambled.iter().zip(lines("world/seed-0/facts/demonstrations.jsonl")).all(
        |(scrambled, plain)| {
            scrambled["prompt"] == plain["prompt"] && scrambled["completion"] != plain["completion"]
        }
    ));
    assert_ne!(
        lines("world/seed-0/facts/held_out.jsonl"),
        lines("world/seed-1/facts/held_out.jsonl"),
        "the seed decides"
    );
    // `together` holds the skills it names, in its order.
    assert_eq!(lines("world/seed-0/together.jsonl")[0], lines("world/seed-0/larger/demonstrations.jsonl")[0]);
}

#[test]
fn an_answer_matches_if_every_token_does() {
    let files = folder();
    let model = inside("tuned-60/seed-0/model");
    let prompts: Vec<Value> = lines("world/seed-0/larger/held_out.jsonl")
        .into_iter()
        .take(8)
        .map(|row| json!({ "prompt": row["prompt"] }))
        .collect();
    let asked = rows(&files, "asked.jsonl", &prompts);
    let said = works(&[
        "generate",
        "--model",
        &model,
        "--data",
        &asked,
        "--temperature",
        "0",
        "--max-new-tokens",
        "4",
        "--json",
    ])
    .json();
    // What the model says itself is right of the first three; the others have another answer, or one word too many.
    let answers: Vec<Value> = said
        .iter()
        .enumerate()
        .map(|(at, row)| {
            assert_eq!(row["finish_reason"], "stop", "{row}");
            let said = row["completion"].as_str().unwrap();
            let answer = match at {
                0..3 => said.to_owned(),
                3..6 => "well answer".to_owned(),
                _ => format!("{said} well"),
            };
            json!({ "prompt": row["prompt"], "completion": answer })
        })
        .collect();
    let answers = rows(&files, "answers.jsonl", &answers);
    let found = compare(&files, &answers, GREEDY);
    assert_eq!(found["prompts"], 8);
    let (means, errors) = (&found["arms"][0]["means"], &found["arms"][0]["errors"]);
    assert_eq!(means["exact_match"], 0.375);
    // Of a share p of n rows: √(p(1 − p)/(n − 1)).
    let expected = (0.375f64 * 0.625 / 7.0).sqrt();
    assert!((errors["exact_match"].as_f64().unwrap() - expected).abs() < 1e-12);
    // Cut off before the end, nothing is the whole answer.
    let cut = compare(&files, &answers, "sampling = { temperature = 0.0, max_new_tokens = 1 }\n");
    assert_eq!(cut["arms"][0]["means"]["exact_match"], 0.0);
}

#[test]
fn the_likelihood_is_that_of_the_answer_s_tokens_and_its_end() {
    let files = folder();
    let held_out = inside("world/seed-0/larger/held_out.jsonl");
    let texts: Vec<Value> = lines("world/seed-0/larger/held_out.jsonl")
        .iter()
        .map(|row| {
            let [prompt, completion] = ["prompt", "completion"].map(|key| row[key].as_str().unwrap());
            json!({ "text": format!("{prompt} {completion} <|end|>") })
        })
        .collect();
    let data = rows(&files, "texts.jsonl", &texts);
    let scored = works(&["logprobs", "--model", &inside("tuned-60/seed-0/model"), "--data", &data]).json();
    // Beginning, skill, two numbers; then marker, number and end.
    let nats: Vec<f64> = scored
        .iter()
        .map(|row| {
            let log_probs = row["logprobs"].as_array().unwrap();
            assert_eq!(log_probs.len(), 7);
            -log_probs[4..].iter().map(|log_prob| log_prob.as_f64().unwrap()).sum::<f64>() / 3.0
        })
        .collect();
    let expected = nats.iter().sum::<f64>() / nats.len() as f64;
    let figure = |found: &Value, kind: &str| found["arms"][0][kind]["nll"].as_f64().unwrap();
    let drawn = compare(&files, &held_out, GREEDY);
    // The same numbers in f32, padded otherwise.
    assert!((figure(&drawn, "means") - expected).abs() < 1e-5, "{drawn} {expected}");
    let variance = nats.iter().map(|nats| (nats - expected).powi(2)).sum::<f64>() / 60.0;
    assert!((figure(&drawn, "errors") - (variance / 61.0).sqrt()).abs() < 1e-5);

    let read_only = compare(&files, &held_out, "draw = false\nmicrobatch = 7\n");
    let known: Vec<&String> = read_only["arms"][0]["means"].as_object().unwrap().keys().collect();
    assert_eq!(known, ["nll"], "nothing is drawn");
    assert!((figure(&read_only, "means") - expected).abs() < 1e-5);
    // All of a text counts but its beginning, so that prompts count too.
    let of_texts = compare(&files, &data, "draw = false\n");
    assert!(figure(&of_texts, "means") > figure(&drawn, "means") + 0.3, "{of_texts}");
}

#[test]
fn dialogues_are_asked_for_their_last_answer() {
    let files = folder();
    let turn = |role: &str, content: &str| json!({ "role": role, "content": content });
    let (ask, answer) = (turn("user", "plan a meal"), turn("assistant", "of course ."));
    let dialogue = rows(&files, "one.jsonl", &[json!({ "messages": [ask, answer] })]);
    let plain = rows(&files, "two.jsonl", &[json!({ "prompt": "plan a meal", "completion": "of course ." })]);
    let nll = |answers: &str, more: &str| -> f64 {
        let out = files.path().join(format!("out-{}", fs::read_dir(files.path()).unwrap().count()));
        let recipe = format!(
            "output_dir = \"{}\"\narms = {{ a = \"{}\" }}\nanswers = {{ path = \"{answers}\" }}\n{more}",
            out.display(),
            at("sft-a/model")
        );
        works(&["eval", &text(&files, "eval.toml", &recipe)]);
        read(&out.join("comparison.json"))["arms"][0]["means"]["nll"].as_f64().unwrap()
    };
    let short = "sampling = { max_new_tokens = 2 }\n";
    assert_eq!(nll(&dialogue, short), nll(&plain, short));
    assert!((nll(&dialogue, "draw = false\n") - nll(&plain, short)).abs() < 1e-6);
}

#[test]
fn rows_and_keys_that_do_not_fit_together_are_refused() {
    let files = folder();
    let texts = rows(&files, "texts.jsonl", &[json!({ "text": "answer 3" })]);
    let refused = |keys: &str, parts: &[&str]| {
        let recipe = format!(
            "output_dir = \"{}\"\narms = {{ a = \"{}\" }}\n{keys}",
            files.path().join("out").display(),
            inside("base/seed-0/model")
        );
        align(&["eval", &text(&files, "eval.toml", &recipe), "--overwrite"]).refuses(parts);
    };
    let held_out = inside("world/seed-0/larger/held_out.jsonl");
    refused("", &["missing field `prompts` (or `answers`)"]);
    refused(
        &format!("prompts = {{ path = \"{held_out}\" }}\nanswers = {{ path = \"{held_out}\" }}\n"),
        &["expected one of `prompts` and `answers`, found both"],
    );
    refused(
        &format!("draw = false\nprompts = {{ path = \"{held_out}\" }}\n"),
        &["`draw` is false", "expected `answers`"],
    );
    refused(
        &format!("draw = false\nanswers = {{ path = \"{held_out}\" }}\nanchors = {{ a = \"x\" }}\n"),
        &["`anchors` is about answers that are drawn"],
    );
    refused(
        &format!("answers = {{ path = \"{texts}\" }}\n"),
        &[
            "texts.jsonl, line 1",
            "expected a prompt and its answer",
            "set `draw` to false",
            "found text alone",
        ],
    );
}
