//! The forms that people script.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::tiny::{ALIGN, align, at, command, folder, path, rows, run, works};

const PROMPT: &str = "please plan a meal with red rice";

fn generate(extra: &[&str]) -> String {
    let model = at("sft-a/model");
    let base = ["generate", "--model", &model, "--max-new-tokens", "12"];
    works(&[&base[..], extra].concat()).out
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// Four prompts of different lengths.
fn prompts(folder: &tempfile::TempDir) -> String {
    let texts = ["please", PROMPT, "pack a bag with green rice and brown basket", "please plan a meal"];
    rows(folder, "prompts.jsonl", &texts.map(|text| json!({ "prompt": text })))
}

#[test]
fn greedy_generation_takes_the_likeliest_token_whatever_the_seed() {
    let [first, second] =
        ["1", "2"].map(|seed| generate(&["--prompt", PROMPT, "--temperature", "0", "--seed", seed]));
    assert_eq!(first, second);
    assert_eq!(generate(&["--prompt", PROMPT, "--top-k", "1", "--seed", "3"]), first);
}

#[test]
fn the_same_seed_gives_the_same_text_in_any_batch() {
    let files = folder();
    let data = prompts(&files);
    let drawn = |seed: &str, batch: &str| {
        generate(&["--data", &data, "--json", "--seed", seed, "--batch", batch, "--temperature", "0.8"])
    };
    let one = drawn("7", "1");
    assert_eq!(one, drawn("7", "3"));
    assert_ne!(one, drawn("8", "3"));
}

#[test]
fn json_lines_have_the_five_keys() {
    let files = folder();
    let out = generate(&["--data", &prompts(&files), "--json", "--top-p", "0.9", "--stop", " and"]);
    assert_eq!(out.lines().count(), 4);
    for line in out.lines() {
        let row: serde_json::Map<String, Value> = serde_json::from_str(line).unwrap();
        let keys: Vec<_> = row.keys().map(String::as_str).collect();
        assert_eq!(keys, ["prompt", "completion", "token_ids", "logprobs", "finish_reason"]);
        let count = row["token_ids"].as_array().unwrap().len();
        assert!((1..=12).contains(&count), "{count}");
        assert_eq!(numbers(&row["logprobs"]).len(), count);
        assert!(numbers(&row["logprobs"]).iter().all(|log_prob| *log_prob <= 0.0));
        assert!(
            ["stop", "stop_string", "length"].contains(&row["finish_reason"].as_str().unwrap()),
            "{row:?}"
        );
        assert!(!row["completion"].as_str().unwrap().contains(" and"));
    }
}

#[test]
fn plain_output_is_the_completion_of_the_json_line() {
    let plain = generate(&["--prompt", PROMPT, "--seed", "4"]);
    let json: Value =
        serde_json::from_str(&generate(&["--prompt", PROMPT, "--seed", "4", "--json"])).unwrap();
    assert_eq!(plain.trim_end_matches('\n'), json["completion"].as_str().unwrap());
    assert_eq!(json["prompt"], PROMPT);
}

#[test]
fn generate_and_logprobs_agree_on_the_same_tokens() {
    let files = folder();
    let drawn = generate(&["--prompt", PROMPT, "--seed", "4", "--top-k", "5", "--json"]);
    let drawn: Value = serde_json::from_str(&drawn).unwrap();
    let whole = format!("{PROMPT} {}", drawn["completion"].as_str().unwrap());
    let data = rows(&files, "t.jsonl", &[json!({ "text": PROMPT }), json!({ "text": whole })]);
    let scored = works(&["logprobs", "--model", &at("sft-a/model"), "--data", &data]).json();
    let prompt = numbers(&scored[0]["token_ids"]).len();
    // A stop token has no text, so it is not among the words.
    let words = &numbers(&scored[1]["token_ids"])[prompt..];
    assert!(words.len() >= 3, "too few tokens to compare: {drawn}");
    assert_eq!(words, &numbers(&drawn["token_ids"])[..words.len()]);
    let again = scored[1]["logprobs"].as_array().unwrap()[prompt..].iter().map(|n| n.as_f64().unwrap());
    for (a, b) in again.zip(numbers(&drawn["logprobs"])) {
        // One forward pass with a cache against one without, in f32.
        assert!((a - b).abs() < 1e-4, "{a} vs {b}");
    }
}

#[test]
fn weights_of_another_type_score_nearly_the_same() {
    let files = folder();
    let data = rows(&files, "t.jsonl", &[json!({ "text": "please plan a meal of rice and beans" })]);
    let scored = |dtype: &str| -> Vec<f64> {
        let lines =
            works(&["logprobs", "--model", &at("sft-a/model"), "--data", &data, "--dtype", dtype]).json();
        lines[0]["logprobs"].as_array().unwrap()[1..].iter().map(|n| n.as_f64().unwrap()).collect()
    };
    let exact = scored("f32");
    // Significand bits: 8 and 11; log-probabilities of a few nats.
    for (dtype, tolerance) in [("bf16", 0.2), ("f16", 0.02)] {
        let rounded = scored(dtype);
        let gap = exact.iter().zip(&rounded).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(gap > 0.0 && gap < tolerance, "{dtype}: {gap}");
    }
    align(&["logprobs", "--model", &at("sft-a/model"), "--data", &data, "--dtype", "int8"])
        .says(&["unknown type `int8`: expected f32, bf16 or f16"]);
}

#[test]
fn logprobs_start_with_null_and_follow_the_row_s_form() {
    let files = folder();
    let data = rows(
        &files,
        "t.jsonl",
        &[
            json!({ "text": "please plan a meal" }),
            json!({ "prompt": "please plan", "completion": " a meal" }),
            json!({ "messages": [{ "role": "user", "content": "please plan" }, { "role": "assistant", "content": "of" }] }),
        ],
    );
    let model = at("sft-a/model");
    let lines = works(&["logprobs", "--model", &model, "--data", &data]).json();
    for line in &lines {
        assert_eq!(line.as_object().unwrap().keys().collect::<Vec<_>>(), ["token_ids", "logprobs"]);
        let log_probs = line["logprobs"].as_array().unwrap();
        assert_eq!(log_probs.len(), line["token_ids"].as_array().unwrap().len());
        assert!(log_probs[0].is_null());
        assert!(log_probs[1..].iter().all(|log_prob| log_prob.as_f64().unwrap() < 0.0));
    }
    assert_eq!(lines[0], lines[1], "prompt and completion stand one after the other");
    // Beginning, user, two words, end, assistant, one word, end: the template's tokens.
    assert_eq!(lines[2]["token_ids"].as_array().unwrap().len(), 8);

    let out = files.path().join("out.jsonl");
    let quiet = works(&["logprobs", "--model", &model, "--data", &data, "--out", out.to_str().unwrap()]);
    assert_eq!(quiet.out, "");
    let written = fs::read_to_string(&out).unwrap();
    assert_eq!(
        written.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>(),
        lines
    );
    let alone = works(&["logprobs", "--model", &model, "--data", &data, "--batch", "1"]).json();
    for (a, b) in alone.iter().zip(&lines) {
        let pairs =
            a["logprobs"].as_array().unwrap()[1..].iter().zip(&b["logprobs"].as_array().unwrap()[1..]);
        for (a, b) in pairs {
            assert!((a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-5); // padding moves roundings
        }
    }
}

#[test]
fn special_tokens_are_added_to_text_only_when_asked_for() {
    let files = folder();
    let copy = crate::tiny::copy_of("sft-a/model");
    // A tokenizer that puts the beginning of text before what it encodes, as Llama's does.
    crate::tiny::change(&copy.path().join("tokenizer.json"), |tokenizer| {
        tokenizer["post_processor"] = json!({
            "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": "<|bos|>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 0 } }],
            "special_tokens": { "<|bos|>": { "id": "<|bos|>", "ids": [0], "tokens": ["<|bos|>"] } },
        });
    });
    let data = rows(&files, "t.jsonl", &[json!({ "text": "please plan a meal" })]);
    let ids = |extra: &[&str]| {
        let base = ["logprobs", "--model", path(&copy), "--data", &data];
        numbers(&works(&[&base[..], extra].concat()).json()[0]["token_ids"])
    };
    let plain = ids(&[]);
    assert_eq!(plain.len(), 4);
    assert_eq!(ids(&["--add-special-tokens"]), [&[0.0], &plain[..]].concat());
}

#[test]
fn scores_of_pairs_end_with_accuracy_and_mean_margin() {
    let pairs = at("world/preferences.jsonl");
    let lines = works(&["score", "--model", &at("reward/model"), "--data", &pairs]).json();
    let (last, rows) = lines.split_last().unwrap();
    assert_eq!(rows.len(), 64);
    let margins: Vec<f64> = rows.iter().map(|row| row["margin"].as_f64().unwrap()).collect();
    for row in rows {
        let difference = row["chosen"].as_f64().unwrap() - row["rejected"].as_f64().unwrap();
        assert!((row["margin"].as_f64().unwrap() - difference).abs() < 1e-9);
    }
    assert_eq!(last["pairs"], 64);
    let right = margins.iter().filter(|margin| **margin > 0.0).count() as f64 / 64.0;
    assert_eq!(last["accuracy"].as_f64().unwrap(), right);
    let mean = margins.iter().sum::<f64>() / 64.0;
    assert!((last["mean_margin"].as_f64().unwrap() - mean).abs() < 1e-9);
}

#[test]
fn a_completion_scores_the_same_in_every_form_and_batch() {
    let files = folder();
    let (asked, said) = ("please plan a meal", "of course , enjoy it .");
    let turns = |answer: &str| json!([{ "role": "user", "content": asked }, { "role": "assistant", "content": answer }]);
    let one = [
        json!({ "prompt": asked, "completion": said }),
        json!({ "messages": turns(said) }),
        json!({ "prompt": asked, "completion": "red rice" }),
    ];
    let score = |file: &str, rows_: &[Value], batch: &str| {
        let data = rows(&files, file, rows_);
        works(&["score", "--model", &at("reward/model"), "--data", &data, "--batch", batch]).json()
    };
    let scores: Vec<f64> =
        score("one.jsonl", &one, "8").iter().map(|row| row["score"].as_f64().unwrap()).collect();
    assert_eq!(scores.len(), 3);
    assert!((scores[0] - scores[1]).abs() < 1e-5, "{scores:?}");
    let alone = score("alone.jsonl", &one[..1], "1")[0]["score"].as_f64().unwrap();
    assert!((alone - scores[0]).abs() < 1e-4, "{alone} vs {scores:?}"); // padding moves roundings of a few units
    let pair = [json!({ "prompt": asked, "chosen": said, "rejected": "red rice" })];
    let pair = score("pair.jsonl", &pair, "8").remove(0);
    assert!((pair["chosen"].as_f64().unwrap() - scores[0]).abs() < 1e-4);
    assert!((pair["rejected"].as_f64().unwrap() - scores[2]).abs() < 1e-4);
}

/// The numbers of a tensor in a model's folder, and its type.
fn tensor(folder: &std::path::Path, name: &str) -> (Vec<f32>, safetensors::Dtype) {
    let bytes = fs::read(folder.join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(name).unwrap();
    let values = match tensor.dtype() {
        safetensors::Dtype::F32 => {
            tensor.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        }
        safetensors::Dtype::BF16 => tensor
            .data()
            .chunks(2)
            .map(|b| f32::from_bits(u32::from(u16::from_le_bytes(b.try_into().unwrap())) << 16))
            .collect(),
        other => panic!("{other:?}"),
    };
    (values, tensor.dtype())
}

#[test]
fn a_soup_weighs_its_models_and_is_written_in_the_type_asked_for() {
    const NAME: &str = "model.layers.0.mlp.down_proj.weight";
    let out = folder();
    let soup = out.path().join("soup");
    let (a, b) = (at("sft-a/model"), at("sft-b/model"));
    let made = works(&["soup", "--out", soup.to_str().unwrap(), "--weights", "0.25,0.75", &a, &b]);
    assert!(!made.err.contains("warning"), "both name the same ancestor: {}", made.err);
    let [(a_values, _), (b_values, _), (values, dtype)] =
        [a.as_ref(), b.as_ref(), soup.as_path()].map(|folder| tensor(folder, NAME));
    assert_eq!(dtype, safetensors::Dtype::F32);
    for ((a, b), soup) in a_values.iter().zip(&b_values).zip(&values) {
        assert_eq!(*soup, (0.25 * f64::from(*a) + 0.75 * f64::from(*b)) as f32);
    }
    works(&["generate", "--model", soup.to_str().unwrap(), "--prompt", PROMPT, "--max-new-tokens", "2"]);

    let half = out.path().join("half");
    works(&["soup", "--out", half.to_str().unwrap(), "--dtype", "bf16", &a, &b]);
    let (values, dtype) = tensor(&half, NAME);
    assert_eq!(dtype, safetensors::Dtype::BF16);
    for ((a, b), soup) in a_values.iter().zip(&b_values).zip(&values) {
        let exact = (a + b) / 2.0;
        assert!((soup - exact).abs() <= exact.abs() / 256.0); // eight bits of mantissa
    }
    let config = fs::read_to_string(half.join("config.json")).unwrap();
    assert!(config.contains("bfloat16"), "{config}");
}

#[test]
fn fine_tunes_of_one_base_name_it_as_their_ancestor() {
    let ancestor = |stage: &str| -> Value {
        let text = fs::read_to_string(run().join(stage).join("model/align.json")).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["ancestor"].clone()
    };
    assert_eq!(ancestor("sft-a"), ancestor("sft-b"));
    assert_eq!(ancestor("soup"), ancestor("sft-a"));
    assert_eq!(ancestor("salsa/seed-0"), ancestor("reward"), "both begin at the first fine-tune");
    assert_ne!(ancestor("salsa/seed-0"), ancestor("sft-a"));
}

#[test]
fn the_doctor_finds_good_things_good_and_bad_things_bad() {
    let model = at("sft-a/model");
    let good = works(&["doctor", "--model", &model, "--data", &at("world/preferences.jsonl")]);
    for part in ["device flex: works", "language model, vocabulary 75", "a chat template", "64 preferences"] {
        assert!(good.out.contains(part), "expected `{part}` in:\n{}", good.out);
    }
    assert!(works(&["doctor", "--model", &at("reward/model")]).out.contains("reward model"));

    let files = folder();
    let data = rows(&files, "bad.jsonl", &[json!({ "prompt": "a meal", "rejected": "no" })]);
    let bad = align(&["doctor", "--model", path(&files), "--data", &data]);
    bad.refuses(&["something above needs attention"]);
    for part in ["will not do", "has no config.json", "bad.jsonl, line 1", "the field `chosen` is missing"] {
        assert!(bad.out.contains(part), "expected `{part}` in:\n{}", bad.out);
    }
}

#[test]
fn a_preview_shows_tokens_and_what_is_learnt() {
    let files = folder();
    let row = json!({ "prompt": "plan a meal", "chosen": "black rice", "rejected": "green rice" });
    let data = rows(&files, "pairs.jsonl", &[row]);
    let shown = works(&["data", "preview", &data, "--model", &at("sft-a/model"), "--rows", "1"]).out;
    assert!(shown.contains("chosen:") && shown.contains("rejected:"), "{shown}");
    assert!(shown.contains("[black ") && shown.contains("<|user|>") && !shown.contains("[plan "), "{shown}");
}

#[test]
fn built_in_recipes_are_listed_and_copied_once() {
    let listed = works(&["recipes", "ls"]).out;
    let names: Vec<_> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(
        names,
        [
            "quickstart",
            "salsa",
            "sft",
            "reward",
            "ppo",
            "dpo",
            "nash",
            "online",
            "superhf",
            "inpo-cyclic",
            "superhf-hack",
            "preferences-chat",
            "soups",
            "weak-to-strong",
            "weak-to-strong-chat",
            "ensemble",
            "judges",
            "overoptimization",
            "overoptimization-chat",
            "factors",
            "factor-consistency",
            "bilevel-bench",
            "clean-chat",
            "ablations"
        ]
    );
    let out = folder();
    let to = out.path().join("mine.toml");
    works(&["recipes", "cp", "sft", to.to_str().unwrap()]);
    let original = concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/sft.toml");
    assert_eq!(fs::read(&to).unwrap(), fs::read(original).unwrap());
    align(&["recipes", "cp", "sft", to.to_str().unwrap()])
        .refuses(&["is there already and is not overwritten"]);
    align(&["recipes", "cp", "quikstart"]).refuses(&["`quikstart`; did you mean `quickstart`?"]);
}

#[test]
fn several_runs_stand_in_one_report() {
    let out = folder();
    let page = out.path().join("both.html");
    works(&["report", &at(""), &at("sft-a"), "--out", page.to_str().unwrap()]);
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("SALSA") && page.contains("sft-a") && page.contains("</html>"));
    assert!(!page.contains("http://") && !page.contains("src=\"http"), "one file, no server");
    align(&["report", path(&folder())]).refuses(&["nothing to report", "expected metrics.jsonl"]);
}

#[test]
fn a_chat_answers_every_line_and_remembers() {
    let chat = |lines: &str| {
        let model = at("sft-a/model");
        let mut child = command(&["chat", "--model", &model, "--max-new-tokens", "5", "--temperature", "0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{ALIGN} chat {lines:?}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let two = chat("plan a meal\nplan a meal\n");
    assert_eq!(two.len(), 2, "{two:?}");
    let afresh = chat("plan a meal\n/new\nplan a meal\n/quit\nnever read\n");
    assert_eq!(afresh, [two[0].clone(), two[0].clone()]);
}

#[test]
fn a_device_that_cannot_be_had_says_how_to_get_it() {
    let model = at("sft-a/model");
    let on = |device: &str| {
        align(&["generate", "--model", &model, "--prompt", "a", "--max-new-tokens", "1", "--device", device])
    };
    assert_eq!(on("auto").code, Some(0));
    let unknown = on("gpu");
    assert_eq!(unknown.code, Some(2));
    unknown.says(&["unknown device `gpu`: expected flex, wgpu, wgpu:1, cuda, cuda:1 or auto"]);
    #[cfg(not(feature = "cuda"))]
    on("cuda:1").refuses(&["`cuda:1` was not compiled in", "--features cuda"]);
}

#[test]
fn every_sub_command_has_help_with_an_example() {
    for words in [
        &["run"][..],
        &["init"],
        &["sft"],
        &["reward"],
        &["ppo"],
        &["soup"],
        &["generate"],
        &["chat"],
        &["logprobs"],
        &["score"],
        &["eval"],
        &["report"],
        &["data", "preview"],
        &["doctor"],
        &["bilevel", "clean"],
        &["bilevel", "tune"],
        &["bilevel", "design"],
        &["bilevel", "bench"],
    ] {
        let help = works(&[words, &["--help"]].concat()).out;
        let example = format!("align {}", words.join(" "));
        let (_, examples) = help.split_once("Example").unwrap_or_else(|| panic!("no example: {help}"));
        assert!(examples.contains(&example), "expected `{example}` in:\n{help}");
    }
}

#[test]
fn a_checkpoint_of_transformers_passes_the_doctor_and_chats() {
    let Some(shared) = align_testkit::fixtures::shared() else { return };
    let at = |path: &str| shared.join(path).to_str().unwrap().to_owned();
    let model = &at("models/chat-0.4M");
    let found = works(&["doctor", "--model", model]);
    assert!(found.out.contains("loads; llama") && found.out.contains("a chat template"), "{}", found.out);
    // Real data has real holes: an answer without words.
    let holes = align(&["doctor", "--data", &at("data/hh-harmless-test.jsonl.gz")]);
    assert!(holes.out.contains("data.skip_bad_rows=true") && holes.out.contains("line 87"), "{}", holes.out);
    let answer =
        works(&["generate", "--model", model, "--prompt", "Hello", "--max-new-tokens", "4", "--json"]);
    assert_eq!(answer.json().len(), 1);
}

#[test]
fn a_reader_that_stops_reading_is_no_error() {
    let data = at("world/preferences.jsonl");
    let mut child = command(&["data", "preview", &data, "--model", &at("sft-a/model"), "--rows", "60"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
