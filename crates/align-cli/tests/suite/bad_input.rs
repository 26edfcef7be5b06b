//! Bad input: the message names the thing, what was expected, what was found and what to do, and nothing saved is lost.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::tiny::{align, at, change, copy_of, folder, hashes, path, rows, text, works};

const PROMPT: &str = "please plan a meal";

fn generate(model: &str) -> crate::tiny::Ended {
    align(&["generate", "--model", model, "--prompt", PROMPT, "--max-new-tokens", "2"])
}

/// Runs a recipe of one stage in a folder of its own.
fn train(kind: &str, recipe: &str, overrides: &[&str]) -> crate::tiny::Ended {
    let files = folder();
    let recipe = text(&files, "r.toml", recipe);
    let out = format!("output_dir={}", files.path().join("out").display());
    align(&[&[kind, &recipe, &out][..], overrides].concat())
}

fn sft() -> String {
    format!(
        "output_dir = \"out\"\nmodel = \"{}\"\ndata = {{ path = \"{}\" }}\ntraining = {{ max_steps = 2 }}\n",
        at("sft-a/model"),
        at("world/demonstrations.jsonl")
    )
}

fn reward() -> String {
    format!(
        "output_dir = \"out\"\nmodel = \"{}\"\ndata = {{ path = \"{}\" }}\ntraining = {{ max_steps = 2 }}\n",
        at("sft-a/model"),
        at("world/preferences.jsonl")
    )
}

fn ppo() -> String {
    format!(
        "output_dir = \"out\"\npolicy = \"{0}\"\nreference = \"{0}\"\nreward = \"{1}\"\nprompts = {{ path = \"{2}\" }}\n\
         [ppo]\ntotal_episodes = 8\nrollout_batch = 8\nmicrobatch = 8\nresponse_length = 4\n",
        at("sft-a/model"),
        at("reward/model"),
        at("world/prompts.jsonl")
    )
}

#[test]
fn a_missing_data_file_is_named() {
    let model = at("sft-a/model");
    for command in ["generate", "logprobs"] {
        align(&[command, "--model", &model, "--data", "no/such.jsonl"])
            .refuses(&["cannot open no/such.jsonl", "No such file"]);
    }
    train("sft", &sft(), &["data.path=no/such/file.jsonl"])
        .refuses(&["no/such/file.jsonl", "expected a file, a folder or `org/name`"]);
    align(&["run", "no-such.toml"]).refuses(&["cannot read recipe no-such.toml", "align recipes ls"]);
}

#[test]
fn a_missing_model_says_what_a_model_is() {
    generate("no/such/model").refuses(&["`no/such/model`", "expected a file, a folder or `org/name`"]);
    generate("no-org/no-model").refuses(&["`no-org/no-model`", "HF_HUB_OFFLINE"]);
}

#[test]
fn a_folder_without_config_says_what_it_holds() {
    let model = copy_of("sft-a/model");
    fs::remove_file(model.path().join("config.json")).unwrap();
    generate(path(&model)).refuses(&[
        "cannot load the model",
        "has no config.json",
        "found",
        "model.safetensors",
    ]);
}

#[test]
fn truncated_weights_are_damaged() {
    let model = copy_of("sft-a/model");
    let file = model.path().join("model.safetensors");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 100]).unwrap();
    let message = ["model.safetensors is damaged", "expected", "found"];
    generate(path(&model)).refuses(&message);
    let out = folder();
    let soup = out.path().join("soup");
    let (soup, whole) = (soup.to_str().unwrap(), at("sft-a/model"));
    align(&["soup", "--out", soup, &whole, path(&model)]).refuses(&["model.safetensors"]);
    assert!(!Path::new(soup).exists());
}

#[test]
fn an_index_that_leads_out_of_the_folder_is_refused() {
    let model = copy_of("sft-a/model");
    fs::rename(
        model.path().join("model.safetensors"),
        model.path().parent().unwrap().join("outside.safetensors"),
    )
    .ok();
    let index = json!({ "weight_map": { "model.embed_tokens.weight": "../outside.safetensors" } });
    fs::write(model.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    generate(path(&model)).refuses(&[
        "names the shard `../outside.safetensors`",
        "expected the name of a file in the same folder",
    ]);
}

/// Overwrites the first number of the first tensor.
fn poison(model: &TempDir) {
    let file = model.path().join("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[data..data + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&file, bytes).unwrap();
}

#[test]
fn weights_that_are_not_numbers_are_counted() {
    let model = copy_of("sft-a/model");
    poison(&model);
    generate(path(&model)).refuses(&["has 1 of", "numbers that are NaN or infinite", "tensor `"]);
    let out = folder();
    let soup = out.path().join("soup");
    align(&["soup", "--out", soup.to_str().unwrap(), &at("sft-a/model"), path(&model)])
        .refuses(&["holds 1 values that are not finite", path(&model)]);
    assert!(!soup.exists());
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let model = copy_of("sft-a/model");
    change(&model.path().join("tokenizer.json"), |tokenizer| {
        let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        let size = vocabulary.len();
        vocabulary.extend((size..size + 3).map(|id| (format!("surplus{id}"), json!(id))));
    });
    generate(path(&model))
        .refuses(&["the tokenizer has 78 tokens and the model's vocabulary 75", "do not belong together"]);
    // The same number of tokens that mean other things is found out where two models meet.
    let other = copy_of("reward/model");
    change(&other.path().join("tokenizer.json"), |tokenizer| {
        let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        let names: Vec<String> = vocabulary.keys().rev().take(2).cloned().collect();
        let (a, b) = (vocabulary[&names[0]].clone(), vocabulary[&names[1]].clone());
        vocabulary[&names[0]] = b;
        vocabulary[&names[1]] = a;
    });
    // A reward model may have a tokenizer of its own; a critic that starts from it may not.
    let reward = format!("reward={}", path(&other));
    train("ppo", &ppo(), &[&reward]).refuses(&["with a tokenizer of its own", "`critic` is not given"]);
    let reference = format!("reference={}", path(&other));
    train("ppo", &ppo(), &[&reference]).refuses(&[
        "has another tokenizer",
        "expected the policy's",
        path(&other),
    ]);
}

#[test]
fn a_prompt_longer_than_the_context_is_measured() {
    let model = at("sft-a/model");
    let long = "please ".repeat(100);
    align(&["generate", "--model", &model, "--prompt", &long])
        .refuses(&["prompt 0 has 100 tokens, expected fewer than the 96 of the model's context"]);
    let files = folder();
    let data = rows(&files, "long.jsonl", &[json!({ "text": "please" }), json!({ "text": long })]);
    align(&["logprobs", "--model", &model, "--data", &data]).refuses(&[
        "cannot use row 2 of",
        "long.jsonl",
        "100 tokens, the model's context is 96",
    ]);
    let chat = rows(&files, "chat.jsonl", &[json!({ "prompt": long, "completion": "no" })]);
    let path = format!("data.path={chat}");
    train("sft", &sft(), &[&path]).refuses(&[
        "cannot use row 1 of",
        "encode.overlong=\"drop\"",
        "the prompt has",
        "at most 95 fit",
    ]);
    train("sft", &sft(), &[&path, "encode.overlong=drop"])
        .refuses(&["no demonstrations are left", "of 1 rows 1 are too long"]);
}

#[test]
fn an_empty_prompt_is_named() {
    let model = at("sft-a/model");
    align(&["generate", "--model", &model, "--prompt", ""])
        .refuses(&["cannot use prompt 0", "the prompt is empty: expected at least one token"]);
    let files = folder();
    let data = rows(&files, "p.jsonl", &[json!({ "prompt": "please" }), json!({ "prompt": "  " })]);
    align(&["generate", "--model", &model, "--data", &data])
        .refuses(&["p.jsonl, line 2", "the prompt is empty"]);
    train("ppo", &ppo(), &[&format!("prompts.path={data}")])
        .refuses(&["p.jsonl, line 2", "the prompt is empty"]);
}

/// Takes every stop token from a model.
fn without_stop(model: &TempDir) {
    for (file, key) in [
        ("config.json", "eos_token_id"),
        ("generation_config.json", "eos_token_id"),
        ("tokenizer_config.json", "eos_token"),
        ("tokenizer_config.json", "chat_template"),
    ] {
        change(&model.path().join(file), |map: &mut Map<String, Value>| drop(map.remove(key)));
    }
}

#[test]
fn a_model_without_stop_token_cannot_learn_to_stop() {
    let model = copy_of("sft-a/model");
    without_stop(&model);
    let start = format!("model={}", path(&model));
    train("sft", &sft(), &[&start]).refuses(&[
        "no stop token",
        "expected `eos_token`",
        "could never learn to stop",
    ]);
    let policy = format!("policy={}", path(&model));
    train("ppo", &ppo(), &[&policy, "ppo.missing_eos_penalty=1.0"]).refuses(&["missing_eos_penalty", "stop"]);
    let doctor = align(&["doctor", "--model", path(&model)]);
    assert!(
        doctor.out.contains("it has no stop token") && doctor.out.contains("generation_config.json"),
        "{}",
        doctor.out
    );
    let drawn = works(&["generate", "--model", path(&model), "--prompt", PROMPT, "--max-new-tokens", "2"]);
    drawn.says(&["warning: the model has no stop token"]);
}

#[test]
fn an_empty_preference_file_holds_no_rows() {
    let files = folder();
    let empty = text(&files, "empty.jsonl", "");
    train("reward", &reward(), &[&format!("data.path={empty}")])
        .refuses(&["empty.jsonl holds no preference rows: expected at least one, found none"]);
    align(&["score", "--model", &at("reward/model"), "--data", &empty])
        .refuses(&["empty.jsonl holds no", "found none"]);
    let doctor = align(&["doctor", "--data", &empty]);
    assert!(doctor.out.contains("empty.jsonl holds no rows"), "{}", doctor.out);
}

#[test]
fn a_row_without_chosen_is_placed_and_can_be_skipped() {
    let files = folder();
    let good = |word: &str| json!({ "prompt": PROMPT, "chosen": word, "rejected": "no" });
    let bad = json!({ "prompt": PROMPT, "rejected": "no" });
    let same = json!({ "prompt": PROMPT, "chosen": "no", "rejected": "no" });
    let data = rows(&files, "pairs.jsonl", &[good("red rice"), bad, good("blue beans"), same]);
    let path = format!("data.path={data}");
    train("reward", &reward(), &[&path]).refuses(&[
        "pairs.jsonl, line 2",
        "expected a preference (`chosen` and `rejected`); the field `chosen` is missing",
    ]);
    let skipped = train("reward", &reward(), &[&path, "data.skip_bad_rows=true"]);
    assert_eq!(skipped.code, Some(0), "{}", skipped.err);
    skipped.says(&[
        "skipped 2 broken rows",
        "line 2: expected a preference",
        "line 4: `chosen` and `rejected` are equal",
    ]);
}

#[test]
fn equal_sides_teach_nothing() {
    let files = folder();
    let pair = |chosen: &str| json!({ "prompt": PROMPT, "chosen": chosen, "rejected": "red rice" });
    let data = rows(&files, "same.jsonl", &[pair("blue beans"), pair("red rice")]);
    train("reward", &reward(), &[&format!("data.path={data}")]).refuses(&[
        "same.jsonl, line 2",
        "`chosen` and `rejected` are equal: expected two different responses",
    ]);
    // Two spaces are no token of their own: different text, the same ids.
    let data = rows(&files, "ids.jsonl", &[pair("red  rice"), pair("blue beans")]);
    let path = format!("data.path={data}");
    train("reward", &reward(), &[&path])
        .refuses(&["cannot use row 1 of", "chosen and rejected have the same"]);
    let skipped = train("reward", &reward(), &[&path, "data.skip_bad_rows=true"]);
    assert_eq!(skipped.code, Some(0), "{}", skipped.err);
    skipped.says(&["skipped 1 rows that cannot be encoded", "row 1: chosen and rejected have the same"]);
}

#[test]
fn a_typo_in_a_recipe_has_a_line_and_the_nearest_name() {
    let typo = sft().replace("max_steps", "max_stesp");
    train("sft", &typo, &[]).refuses(&["r.toml:4: `training.max_stesp`", "did you mean `max_steps`?"]);
    train("sft", &sft(), &["optimizer.learning_rat=1"])
        .refuses(&["command line: `optimizer.learning_rat`", "did you mean `learning_rate`?"]);
    train("ppo", &ppo(), &["ppo.kl_coeff=0.1"]).refuses(&["`ppo.kl_coeff`", "did you mean `kl_coef`?"]);
    let files = folder();
    let run = |stages: &str| {
        let recipe = text(
            &files,
            "run.toml",
            &format!("output_dir = \"{}\"\n{stages}", files.path().join("o").display()),
        );
        align(&["run", &recipe])
    };
    run("[[stage]]\nname = \"a\"\nkind = \"sfft\"\n")
        .refuses(&["run.toml:4: `stage[0].kind`", "did you mean `sft`?"]);
    run("[[stage]]\nname = \"a\"\nkind = \"soup\"\nmodels = [\"@b\"]\n")
        .refuses(&["run.toml:2", "`@b` is no earlier stage"]);
    run("tittle = \"x\"\n[[stage]]\nname = \"a\"\nkind = \"soup\"\n")
        .refuses(&["run.toml:2: `tittle`", "did you mean `title`?"]);
    align(&["sft", crate::tiny::RECIPE]).refuses(&["run it with `align run`"]);
}

#[test]
fn a_negative_beta_is_out_of_range() {
    train("ppo", &ppo(), &["ppo.kl_coef=-0.1"]).refuses(&["command line: `ppo.kl_coef`", "-0.1", "expected"]);
    let written = format!("{}kl_coef = -0.1\n", ppo());
    train("ppo", &written, &[]).refuses(&["r.toml:11: `ppo.kl_coef`", "-0.1"]);
    let model = at("sft-a/model");
    let cold = align(&["generate", "--model", &model, "--prompt", "a", "--temperature=-1"]);
    assert_eq!(cold.code, Some(2));
    cold.says(&["--temperature", "-1"]);
}

#[test]
fn models_that_do_not_belong_together_make_no_soup() {
    let out = folder();
    let soup = out.path().join("soup");
    let made = |models: &[&str]| align(&[&["soup", "--out", soup.to_str().unwrap()], models].concat());
    let model = at("sft-a/model");

    let wide = folder();
    let recipe = format!("output_dir = \"out\"\ntokenizer = \"{}\"\n[config]\n", at("world"));
    let config = "model_type = \"llama\"\nhidden_size = 8\nintermediate_size = 32\nnum_hidden_layers = 2\n\
                  num_attention_heads = 2\nnum_key_value_heads = 1\nmax_position_embeddings = 96\ntie_word_embeddings = true\n";
    let recipe = text(&wide, "init.toml", &(recipe + config));
    let init = wide.path().join("out");
    works(&["init", &recipe, &format!("output_dir={}", init.display())]);
    made(&[&model, init.join("model").to_str().unwrap()]).refuses(&[
        "has shape",
        "expected",
        "as in the first ingredient",
    ]);

    let (base, tuned) = (at("base/model"), at("salsa/seed-0/model"));
    made(&[&base, &tuned]).refuses(&[
        "ingredients[1]",
        "descends from",
        "models of different ancestors do not average",
    ]);
    made(&[&model, &at("sft-b/model"), "--weights", "0.5"]).refuses(&["2 models and 1 weights"]);
    made(&[&model, &at("sft-b/model"), "--weights", "0.5,0.6"]).refuses(&["weights must sum to 1", "1.1"]);
    assert!(!soup.exists());

    made(&[&model, &at("sft-b/model")]);
    let before = hashes(&soup);
    made(&[&model, &model]).refuses(&["soup"]);
    assert_eq!(hashes(&soup), before);
}

#[test]
fn a_reward_model_is_no_language_model_and_the_other_way_round() {
    let data = at("world/preferences.jsonl");
    align(&["score", "--model", &at("sft-a/model"), "--data", &data])
        .refuses(&["cannot load the reward model", "has no head"]);
}

#[test]
fn a_loss_that_is_not_finite_stops_at_its_step_and_names_its_term() {
    let mad = ["optimizer.learning_rate=1e15", "optimizer.max_grad_norm=0", "training.max_steps=6"];
    train("sft", &sft(), &mad).refuses(&[
        "stopped; what was saved before stands in",
        "optimizer step 1: `loss` is NaN, expected a finite number",
    ]);
}

#[test]
fn adapters_that_cannot_be_are_refused() {
    train("sft", &sft(), &["lora.rank=0"]).refuses(&["`lora.rank` is 0, expected at least 1"]);
    train("sft", &sft(), &["lora.rnak=2"]).refuses(&["`lora.rnak`", "did you mean `rank`?"]);
    train("ppo", &ppo(), &["lora.dropout=0.1"]).refuses(&["`lora.dropout` is 0.1, expected 0: a policy"]);
    train("sft", &sft().replace("training = { max_steps = 2 }", ""), &["shuffle_window=8"]).refuses(&[
        "`shuffle_window`",
        "`training.max_steps`",
        "found a window of 8 and no max_steps",
    ]);
    let streamed = |more: &[&str]| train("reward", &reward(), &[&["shuffle_window=8"], more].concat());
    streamed(&["label_noise.rate=0.1"]).refuses(&["`label_noise` flips labels by their place"]);
    streamed(&["data.held_out=0.0"])
        .refuses(&["`normalize` measures the scale on held-out pairs", "`data.held_out` is 0"]);
}
