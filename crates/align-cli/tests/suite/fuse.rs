//! Fusions: as a file, as a stage, with every command that reads a model, and what is refused.

mod bad_input;
mod recipe;
mod weights;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::tiny::{Ended, at, copy_of, folder, path, rows, run, text, works};

/// A prompt of the finished run's world.
const PROMPT: &str = "please plan a meal with green rice";

/// A fusion's file in a folder: two fine-tunes of the small base steer a model that was aligned.
fn fusion(files: &TempDir, name: &str, rest: &str) -> String {
    let [base, anchor] = ["salsa/seed-0/model", "base/model"].map(at);
    text(files, name, &format!("base = \"{base}\"\nanchor = \"{anchor}\"\n{rest}"))
}

/// Both fine-tunes as experts.
fn experts() -> String {
    format!("[experts]\nfirst = \"{}\"\nsecond = \"{}\"\n", at("sft-a/model"), at("sft-b/model"))
}

/// Rows of text that the world's models know.
fn texts(files: &TempDir) -> String {
    let texts = [PROMPT, "pack a bag with green rice", "please plan a meal"];
    rows(files, "texts.jsonl", &texts.map(|text| json!({ "text": text })))
}

/// The log-probabilities of all rows of a file, row by row.
fn logprobs(model: &str, data: &str) -> Vec<Vec<f64>> {
    let lines = works(&["logprobs", "--model", model, "--data", data]).json();
    let numbers = |line: &Value| {
        let all = line["logprobs"].as_array().unwrap();
        all.iter().filter_map(Value::as_f64).collect()
    };
    lines.iter().map(numbers).collect()
}

/// Fails unless all numbers agree to rounding in f32 over a vocabulary of 75.
#[track_caller]
fn assert_same(found: &[Vec<f64>], expected: &[Vec<f64>]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!((found - expected).abs() < 2e-5, "{found}, expected {expected}");
    }
}

#[test]
fn a_fusion_stands_wherever_a_model_is_read() {
    let files = folder();
    let file = fusion(&files, "both.toml", &experts());
    let drawn = |args: &[&str]| {
        works(&[args, &["--prompt", PROMPT, "--max-new-tokens", "8", "--seed", "3", "--json"]].concat())
            .json()
    };
    let found = drawn(&["generate", "--model", &file]);
    assert_eq!(found, drawn(&["fuse", "generate", &file]));
    // Weights are a function of the text: what was drawn scores what it was drawn with.
    let whole = format!("{PROMPT} {}", found[0]["completion"].as_str().unwrap());
    let scored = logprobs(&file, &rows(&files, "drawn.jsonl", &[json!({ "text": whole })])).remove(0);
    let asked = PROMPT.split_whitespace().count();
    let of_draws = found[0]["logprobs"].as_array().unwrap().iter().map(|number| number.as_f64().unwrap());
    // The text is without the token that ends it.
    let of_draws: Vec<f64> = of_draws.take(scored.len() + 1 - asked).collect();
    assert!(of_draws.len() >= 4, "{found:?}");
    assert_same(&[scored[asked - 1..].to_vec()], &[of_draws]);
    let scored = works(&["fuse", "logprobs", &file, "--data", &texts(&files)]);
    assert_eq!(scored.json().len(), 3);
    let answer = works(&["fuse", "chat", &file]);
    assert_eq!(answer.out, "", "nothing was said");
}

#[test]
fn weights_zero_leave_the_base_and_one_from_the_expert_s_own_base_gives_the_expert() {
    let files = folder();
    let data = texts(&files);
    let weighed = |name: &str, weights: &str| {
        fusion(
            &files,
            name,
            &format!("weighing = {{ kind = \"static\", weights = {weights} }}\n{}", experts()),
        )
    };
    let base = logprobs(&at("salsa/seed-0/model"), &data);
    assert_same(&logprobs(&weighed("none.toml", "[0.0, 0.0]"), &data), &base);
    let expert = logprobs(&at("sft-b/model"), &data);
    let small = text(
        &files,
        "small.toml",
        &format!(
            "base = \"{0}\"\nsmall_base = \"{0}\"\nweighing = {{ kind = \"static\", weights = [0.0, 1.0] }}\n{1}",
            at("base/model"),
            experts()
        ),
    );
    assert_same(&logprobs(&small, &data), &expert);
    // The same by matching, whose weight is exactly 1 where large and small base agree.
    let alone = format!(
        "base = \"{0}\"\nanchor = \"{0}\"\nexperts = {{ second = \"{1}\" }}\n",
        at("base/model"),
        at("sft-b/model")
    );
    let matched = logprobs(&text(&files, "matched.toml", &alone), &data);
    for (found, expected) in matched.iter().flatten().zip(expert.iter().flatten()) {
        // The refined search stops within 1e-6 of the weight.
        assert!((found - expected).abs() < 1e-3, "{found}, expected {expected}");
    }
}

#[test]
fn paths_are_relative_to_the_file_and_a_folder_stands_for_its_file() {
    let files = folder();
    for model in ["salsa/seed-0/model", "base/model", "sft-a/model"] {
        let copy = files.path().join(model.split('/').next().unwrap());
        fs::create_dir_all(&copy).unwrap();
        for entry in fs::read_dir(run().join(model)).unwrap() {
            let from = entry.unwrap().path();
            fs::copy(&from, copy.join(from.file_name().unwrap())).unwrap();
        }
    }
    fs::create_dir(files.path().join("fused")).unwrap();
    let file = "base = \"../salsa\"\nanchor = \"../base\"\nexperts = { first = \"../sft-a\" }\n";
    fs::write(files.path().join("fused/fusion.toml"), file).unwrap();
    let data = texts(&files);
    let fused = files.path().join("fused");
    let found = logprobs(fused.to_str().unwrap(), &data);
    let absolute =
        fusion(&files, "same.toml", &format!("experts = {{ first = \"{}\" }}\n", at("sft-a/model")));
    assert_eq!(found, logprobs(&absolute, &data));
}

/// Adapters over the small base, and the same merged.
fn adapters(files: &TempDir) -> (String, String) {
    let out = files.path().join("adapted");
    let recipe = text(
        files,
        "lora.toml",
        &format!(
            "output_dir = \"{}\"\nmodel = \"{}\"\ndata = {{ path = \"{}\" }}\nlora = {{ rank = 2 }}\n\
             training = {{ max_steps = 4, minibatch = 8, microbatch = 8 }}\noptimizer = {{ learning_rate = 1e-2 }}\n",
            out.display(),
            at("base/model"),
            at("world/demonstrations.jsonl")
        ),
    );
    works(&["sft", &recipe]);
    let inside = |part: &str| out.join(part).to_str().unwrap().to_owned();
    (inside("adapter"), inside("model"))
}

#[test]
fn adapters_over_the_anchor_score_as_their_merged_model() {
    let files = folder();
    let (adapter, merged) = adapters(&files);
    let data = texts(&files);
    let of = |name: &str, expert: &str| fusion(&files, name, &format!("experts = {{ tuned = {expert} }}\n"));
    let found = logprobs(&of("adapter.toml", &format!("{{ adapter = \"{adapter}\" }}")), &data);
    let expected = logprobs(&of("merged.toml", &format!("\"{merged}\"")), &data);
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        // The product of the factors is rounded once more where it is merged, and the search sees the difference.
        assert!((found - expected).abs() < 1e-3, "{found}, expected {expected}");
    }
    assert_ne!(found, logprobs(&at("salsa/seed-0/model"), &data), "the expert moves the base");
}

#[test]
fn an_expert_may_be_the_anchor_with_a_prefix() {
    let files = folder();
    let data = texts(&files);
    let of = |name: &str, prefix: &str| {
        fusion(&files, name, &format!("experts = {{ shown = {{ prefix = \"{prefix}\" }} }}\n"))
    };
    let [one, other] = [("one.toml", "pack a bag with green rice"), ("other.toml", "please plan")]
        .map(|(name, prefix)| logprobs(&of(name, prefix), &data));
    assert_ne!(one, other);
    assert_ne!(one, logprobs(&at("salsa/seed-0/model"), &data));
}

/// A copy of a model in which two words have changed ids, in the tokenizer and in the embedding: it says what it said.
fn renumbered(model: &str) -> TempDir {
    let copy = copy_of(model);
    let mut ids = [0; 2];
    crate::tiny::change(&copy.path().join("tokenizer.json"), |tokenizer| {
        let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        for (at, word) in ["meal", "rice"].into_iter().enumerate() {
            ids[at] = vocabulary[word].as_u64().unwrap() as usize;
        }
        vocabulary["meal"] = json!(ids[1]);
        vocabulary["rice"] = json!(ids[0]);
    });
    swap_rows(&copy.path().join("model.safetensors"), "model.embed_tokens.weight", ids);
    copy
}

/// Exchanges two rows of a matrix of f32 in a file.
fn swap_rows(file: &Path, name: &str, rows: [usize; 2]) {
    let mut bytes = fs::read(file).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let width = header[name]["shape"][1].as_u64().unwrap() as usize * 4;
    let start = 8 + length + header[name]["data_offsets"][0].as_u64().unwrap() as usize;
    for byte in 0..width {
        let [one, other] = rows.map(|row| start + row * width + byte);
        bytes.swap(one, other);
    }
    fs::write(file, bytes).unwrap();
}

#[test]
fn members_with_other_ids_are_refused_by_the_first_that_differs_and_mapped_when_asked() {
    let files = folder();
    let data = texts(&files);
    let [anchor, expert] = ["base/model", "sft-a/model"].map(renumbered);
    let large = at("salsa/seed-0/model");
    let file = |name: &str, rest: &str| {
        let (anchor, expert) = (path(&anchor), path(&expert));
        text(
            &files,
            name,
            &format!(
                "base = \"{large}\"\nanchor = \"{anchor}\"\n{rest}experts = {{ first = \"{expert}\" }}\n"
            ),
        )
    };
    let refused = crate::tiny::align(&["logprobs", "--model", &file("same.toml", ""), "--data", &data]);
    refused.refuses(&[
        "the anchor",
        path(&anchor),
        "another vocabulary than the base",
        "\"meal\"",
        "\"rice\"",
        "vocabulary = \"shared_strings\"",
        "75",
    ]);
    let mapped = file("mapped.toml", "vocabulary = \"shared_strings\"\n");
    let said = works(&["logprobs", "--model", &mapped, "--data", &data]);
    said.says(&["the anchor: 75 tokens are shared with the base; 0 of the base alone"]);
    let plain = fusion(&files, "plain.toml", &format!("experts = {{ first = \"{}\" }}\n", at("sft-a/model")));
    assert_same(&logprobs(&mapped, &data), &logprobs(&plain, &data));
}

/// The line that `align fuse eval` prints.
fn evaluated(args: &[&str]) -> Value {
    let ended: Ended = works(&[&["fuse", "eval"], args].concat());
    ended.json().remove(0)
}

#[test]
fn an_evaluation_is_the_mean_of_log_probabilities_and_counts_exact_answers() {
    let files = folder();
    let file = fusion(&files, "both.toml", &experts());
    let answer = |prompt: &str| {
        let drawn = ["--max-new-tokens", "12", "--temperature", "0", "--json", "--data", prompt];
        works(&[&["fuse", "generate", &file], &drawn[..]].concat()).json()
    };
    let asked = rows(&files, "asked.jsonl", &[json!({ "prompt": [{ "role": "user", "content": PROMPT }] })]);
    let said = answer(&asked)[0].clone();
    let completion = said["completion"].as_str().unwrap();
    let data = rows(
        &files,
        "right.jsonl",
        &[
            json!({ "prompt": PROMPT, "completion": completion }),
            json!({ "prompt": PROMPT, "completion": "please please please" }),
        ],
    );
    let found = evaluated(&[&file, "--data", &data]);
    assert_eq!((&found["rows"], &found["exact_match"]), (&json!(2), &Value::Null));
    assert!(found["nll"].as_f64().unwrap() > 0.0 && found["nll_error"].as_f64().unwrap() > 0.0, "{found}");
    let counted = evaluated(&[&file, "--data", &data, "--exact-match", "--max-new-tokens", "12"]);
    assert_eq!(counted["nll"], found["nll"]);
    let ended = said["finish_reason"] == "stop";
    assert_eq!(counted["exact_match"], json!(if ended { 0.5 } else { 0.0 }), "{counted}, {said}");
}
