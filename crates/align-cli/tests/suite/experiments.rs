//! Experiments: stages repeated over seeds and values, worlds of traps, pairs drawn and labelled, claims, their report.

use std::fs;

use serde_json::{Value, json};

use crate::tiny::{align, at, change, copy_of, folder, hashes, path, text, works};

/// Two worlds, a model of each, best-of-n by an ensemble, PPO at two strengths in four seeds, and claims about them.
fn experiment(claims: &str) -> String {
    format!(
        r#"
title = "experiment"
output_dir = "unset"
[vary]
beta = [0.0, 0.1]
[[stage]]
name = "world"
kind = "traps"
seeds = [0, 1, 2, 3]
demonstrations = 64
preferences = 64
[[stage]]
name = "blank"
kind = "init"
seeds = [0, 1, 2, 3]
tokenizer = "@world/seed-{{seed}}"
config = {{ model_type = "llama", hidden_size = 8, intermediate_size = 8, num_hidden_layers = 1, num_attention_heads = 2, max_position_embeddings = 16 }}
[[stage]]
name = "judges"
kind = "reward"
seeds = [0, 1]
model = "@blank/seed-{{seed}}"
data = {{ path = "@world/seed-{{seed}}/preferences.jsonl", held_out = 0.25 }}
training = {{ max_steps = 2 }}
label_noise = {{ rate = 0.25, seed = "{{seed}}" }}
ensemble = {{ members = 2 }}
[[stage]]
name = "bon"
kind = "bon"
seeds = [0, 1]
sample = {{ model = "@blank/seed-{{seed}}", n = 8, reward = "@judges/seed-{{seed}}", gold = "@world/seed-{{seed}}", prompts = {{ path = "@world/seed-{{seed}}/prompts.jsonl", max_rows = 2 }}, sampling = {{ max_new_tokens = 13 }} }}
[[stage]]
name = "ppo-{{beta}}"
kind = "ppo"
seeds = [0, 1, 2, 3]
policy = "@blank/seed-{{seed}}"
reference = "@blank/seed-{{seed}}"
reward = "@judges/seed-0"
gold = "@world/seed-{{seed}}"
prompts = {{ path = "@world/seed-{{seed}}/prompts.jsonl" }}
ppo = {{ kl_coef = "{{beta}}", total_episodes = 16, rollout_batch = 8, microbatch = 8, response_length = 13, advantage_estimator = "position_baseline", learning_rate = 1e-2 }}
[[stage]]
name = "claims"
kind = "claims"
{claims}
"#
    )
}

const CLAIMS: &str = r#"
claim = [
    { says = "two is more than one", figure = { of = "@bon", by = "single", take = "last", curve = "proxy" }, above = { than = { of = "@bon", by = "single", take = "first", curve = "proxy" } }, every_seed = true },
    { says = "pigs fly", figure = { of = ["@ppo-0.0", "@ppo-0.1"], take = "peak" }, at_least = 1e6 },
]
"#;

#[test]
fn stages_are_repeated_and_their_results_claimed_and_drawn() {
    let files = folder();
    let recipe = text(&files, "r.toml", &experiment(CLAIMS));
    let out = files.path().join("run");
    let output = format!("output_dir={}", out.display());
    let ran = works(&["run", &recipe, &output]);
    assert!(ran.out.contains("1 of 2 claims hold"), "{}", ran.out);
    let read = |path: &str| -> Value {
        serde_json::from_str(&fs::read_to_string(out.join(path)).unwrap_or_else(|e| panic!("{path}: {e}")))
            .unwrap()
    };
    let claims = read("claims/claims.json");
    assert_eq!((&claims["claims"][0]["holds"], &claims["claims"][1]["holds"]), (&json!(true), &json!(false)));
    assert_eq!((&claims["claims"][0]["seeds"], &claims["claims"][1]["seeds"]), (&json!(2), &json!(4)));
    // Every value and seed has its own run, with its own number.
    for beta in ["0.0", "0.1"] {
        let resolved = fs::read_to_string(out.join(format!("ppo-{beta}/seed-3/recipe.toml"))).unwrap();
        let resolved: toml::Table = resolved.parse().unwrap();
        assert_eq!(resolved["ppo"]["regularizer"]["coefficient"]["beta"].to_string(), beta);
        assert_eq!(resolved["policy"].as_str(), Some("@blank/seed-3"));
    }
    let models: Vec<_> = (0..2).map(|seed| hashes(&out.join(format!("blank/seed-{seed}/model")))).collect();
    assert_ne!(
        models[0]["model.safetensors"], models[1]["model.safetensors"],
        "the seed decides the weights"
    );
    let panel = read("panel.json");
    assert_eq!(panel["trainings"].as_array().unwrap().len(), 8);
    assert_eq!(panel["trainings"][4]["varied"], "beta 0.1");
    assert_eq!(panel["best_of_n"][0]["seeds"], 2);
    let report = fs::read_to_string(out.join("report.html")).unwrap();
    for part in
        ["pigs fly", "FAIL", "of 4 seeds", "over 2 seeds", "Means over seeds with 95 % intervals", "beta 0.1"]
    {
        assert!(report.contains(part), "{part}");
    }
    // The resolved recipe has every stage by itself and is a recipe again: nothing is left to do.
    let again = works(&["run", out.join("recipe.toml").to_str().unwrap(), "--resume"]);
    assert!(again.err.contains("judges/seed-1: done already"), "{}", again.err);
}

#[test]
fn claims_that_cannot_be_judged_say_why() {
    let files = folder();
    let out = files.path().join("run");
    let output = format!("output_dir={}", out.display());
    works(&["run", &text(&files, "r.toml", &experiment(CLAIMS)), &output]);
    let refused = |claim: &str, parts: &[&str]| {
        fs::remove_dir_all(out.join("claims")).unwrap();
        let recipe = text(&files, "r.toml", &experiment(&format!("claim = [{{ says = \"x\", {claim} }}]")));
        align(&["run", &recipe, &output, "--resume"]).refuses(parts);
    };
    refused(
        "figure = { of = \"@bon\", by = \"WCO\", take = \"last\" }, above = 0.0",
        &["was not judged by `WCO`, but by single, mean"],
    );
    refused("figure = { of = \"@bon\", take = \"last\" }, above = 0.0", &["say `by`"]);
    refused(
        "figure = { of = \"@ppo-0.0\", take = \"last\", curve = \"gold/scor\" }, above = 0.0",
        &["has logged no `gold/scor`", "did you mean `gold/score`?"],
    );
    refused(
        "figure = { of = \"@ppo-0.0\", take = \"last\" }",
        &["expected one of `at_least`, `at_most`, `above` and `below`, found 0"],
    );
    refused(
        "figure = { of = \"@ppo-0.0\", take = \"last\" }, above = { than = { of = \"@bon\", by = \"mean\", take = \"last\" } }, every_seed = true",
        &["as many seeds on both sides, found 4 and 2"],
    );
    refused(
        "figure = { of = \"@world\", take = \"last\" }, above = 0.0",
        &["neither curves of best-of-n nor metrics"],
    );
    refused(
        "figure = { of = \"@ppo-0.2\", take = \"last\" }, above = 0.0",
        &["`@ppo-0.2` is no earlier stage"],
    );
}

#[test]
fn a_typo_in_what_varies_is_found() {
    let files = folder();
    let refused = |from: &str, to: &str, parts: &[&str]| {
        let recipe = experiment(CLAIMS).replacen(from, to, 1);
        assert_ne!(recipe, experiment(CLAIMS));
        let out = format!("output_dir={}", files.path().join("run").display());
        align(&["run", &text(&files, "r.toml", &recipe), &out]).refuses(parts);
    };
    refused("name = \"ppo-{beta}\"", "name = \"ppo\"", &["`vary.beta`", "no stage has `{beta}` in its name"]);
    refused(
        "name = \"bon\"",
        "name = \"bon\"\nvary = { betta = [1] }",
        &["`{betta}` is not in the stage's name"],
    );
    refused("seeds = [0, 1, 2, 3]", "seeds = 4", &["expected a list of seeds such as [0, 1, 2]"]);
    refused("beta = [0.0, 0.1]", "beta = 0.1", &["`beta` needs a list of numbers or texts"]);
    refused(
        "@blank/seed-{seed}",
        "@blunk/seed-{seed}",
        &["`@blunk` is no earlier stage", "did you mean `@blank`?"],
    );
}

#[test]
fn pairs_are_drawn_and_labelled_by_gold_and_train_a_reward_model() {
    let files = folder();
    let recipe = text(
        &files,
        "pairs.toml",
        &format!(
            "title = \"pairs\"\noutput_dir = \"{}\"\n[[stage]]\nname = \"labels\"\nkind = \"pairs\"\nmodel = \"{1}\"\njudge = \"{2}\"\n\
             prompts = {{ path = \"{2}/prompts.jsonl\", max_rows = 12 }}\npairs_per_prompt = 2\nsampling = {{ max_new_tokens = 24 }}\n\
             [[stage]]\nname = \"reward\"\nkind = \"reward\"\nmodel = \"{1}\"\ndata = {{ path = \"@labels/preferences.jsonl\" }}\n\
             training = {{ max_steps = 1 }}\n",
            files.path().join("run").display(),
            at("sft-a/model"),
            at("world"),
        ),
    );
    works(&["run", &recipe]);
    let drawn = fs::read_to_string(files.path().join("run/labels/preferences.jsonl")).unwrap();
    let drawn: Vec<Value> = drawn.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!drawn.is_empty());
    for row in &drawn {
        assert!(row["chosen_score"].as_f64() > row["rejected_score"].as_f64(), "{row}");
    }
    let done: Value =
        serde_json::from_str(&fs::read_to_string(files.path().join("run/labels/stage.json")).unwrap())
            .unwrap();
    let [pairs, dropped] = ["pairs", "dropped"].map(|key| done["summary"][key].as_u64().unwrap());
    assert_eq!((pairs, pairs + dropped), (drawn.len() as u64, 24));
}

#[test]
fn a_reward_model_with_another_tokenizer_judges_the_words() {
    // Two tokens change places, in the tokenizer and in the embedding: another tokenizer, the same judge.
    let other = copy_of("reward/model");
    let mut exchanged = Vec::new();
    change(&other.path().join("tokenizer.json"), |tokenizer| {
        let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        let (a, b) = (vocabulary["and"].clone(), vocabulary["your"].clone());
        exchanged = vec![a.as_u64().unwrap() as usize, b.as_u64().unwrap() as usize];
        (vocabulary["and"], vocabulary["your"]) = (b, a);
    });
    let weights = other.path().join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut changed: Vec<(String, Vec<u8>, Vec<usize>)> = tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, view.data().to_vec(), view.shape().to_vec()))
        .collect();
    for (name, data, shape) in &mut changed {
        if name.ends_with("embed_tokens.weight") {
            let width = 4 * shape[1];
            let row = |at: usize| at * width..(at + 1) * width;
            let (first, second) = (data[row(exchanged[0])].to_vec(), data[row(exchanged[1])].to_vec());
            data[row(exchanged[0])].copy_from_slice(&second);
            data[row(exchanged[1])].copy_from_slice(&first);
        }
    }
    let views = changed.iter().map(|(name, data, shape)| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), data).unwrap();
        (name.clone(), view)
    });
    fs::write(&weights, safetensors::serialize(views, None).unwrap()).unwrap();

    let files = folder();
    let scored = |reward: &str, out: &str| {
        let out = files.path().join(out);
        let recipe = format!(
            "output_dir = \"{}\"\n[sample]\nmodel = \"{}\"\nn = 4\nreward = \"{reward}\"\nprompts = {{ path = \"{}\", max_rows = 3 }}\n\
             sampling = {{ max_new_tokens = 12, temperature = 0.3 }}\n",
            out.display(),
            at("sft-a/model"),
            at("world/held_out.jsonl"),
        );
        let ended = works(&["bon", &text(&files, "bon.toml", &recipe)]);
        let lines = fs::read_to_string(out.join("scores.jsonl")).unwrap();
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (lines.iter().map(|line| line["members"].clone()).collect::<Vec<_>>(), ended.err)
    };
    let (own, said) = scored(&at("reward/model"), "own");
    assert!(!said.contains("another tokenizer"), "{said}");
    let (foreign, said) = scored(path(&other), "foreign");
    assert!(said.contains("has another tokenizer than the policy: it judges the words"), "{said}");
    // A special token inside an answer is lost on the way through the words; answers of words alone score the same.
    let flat = |rows: &[Value]| -> Vec<f64> {
        rows.iter().flat_map(|row| row[0].as_array().unwrap()).map(|score| score.as_f64().unwrap()).collect()
    };
    let same = flat(&own).iter().zip(flat(&foreign)).filter(|(a, b)| (*a - b).abs() < 1e-6).count();
    assert!(flat(&own).len() == 12 && same >= 8, "{own:?} {foreign:?}");
    // And PPO runs against it, with a critic of the policy's own.
    let recipe = format!(
        "output_dir = \"{3}\"\npolicy = \"{0}\"\nreference = \"{0}\"\ncritic = \"{0}\"\nreward = \"{1}\"\nprompts = {{ path = \"{2}\" }}\n\
         [ppo]\ntotal_episodes = 8\nrollout_batch = 8\nmicrobatch = 8\nresponse_length = 8\n",
        at("sft-a/model"),
        path(&other),
        at("world/prompts.jsonl"),
        files.path().join("ppo").display(),
    );
    works(&["ppo", &text(&files, "ppo.toml", &recipe)]);
}
