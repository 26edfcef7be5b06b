//! Recipes: what a run leaves behind, adapters, streams, single stages, used folders.

use std::fs;

use serde_json::{Value, json};

use crate::tiny::{align, at, folder, hashes, run, text, works};

#[test]
fn a_run_leaves_its_recipe_its_figures_and_a_report() {
    let table = fs::read_to_string(run().join("compare/comparison.json")).unwrap();
    let table: Value = serde_json::from_str(&table).unwrap();
    let arms: Vec<_> =
        table["arms"].as_array().unwrap().iter().map(|arm| arm["arm"].as_str().unwrap()).collect();
    assert_eq!(arms, ["start", "SALSA", "SALSA"]);
    for figure in ["gold", "reward", "kl/first", "length", "stop_rate"] {
        assert!(table["arms"][1]["means"][figure].is_number(), "{figure}: {table}");
    }
    assert_eq!(table["arms"][0]["means"]["kl/first"], 0.0, "the start is the anchor");
    let resolved: toml::Table = fs::read_to_string(run().join("recipe.toml")).unwrap().parse().unwrap();
    let ppo = &resolved["stage"].as_array().unwrap()[7]["ppo"];
    assert_eq!(ppo["lam"].as_float(), Some(0.95), "defaults are spelt out");
    let record: Value =
        serde_json::from_str(&fs::read_to_string(run().join("sft-a/run.json")).unwrap()).unwrap();
    assert!(record["versions"]["align"].is_string() && record["seeds"]["order"] == 1);
    assert_eq!(record["inputs"].as_object().unwrap().len(), 2, "model and data");
    assert!(run().join("report.html").exists());
    let lines = fs::read_to_string(run().join("salsa/seed-1/metrics.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 2);
}

/// A recipe file for fine-tuning the finished run's base.
fn sft(files: &tempfile::TempDir, extra: &str) -> String {
    let (model, data) = (at("base/model"), at("world/demonstrations.jsonl"));
    text(
        files,
        "sft.toml",
        &format!(
            "output_dir = \"{}\"\nmodel = \"{model}\"\ndata = {{ path = \"{data}\", held_out = 0.2 }}\n\
             training = {{ max_steps = 4, minibatch = 8, microbatch = 4 }}\noptimizer = {{ learning_rate = 1e-2 }}\n{extra}",
            files.path().join("out").display()
        ),
    )
}

#[test]
fn adapters_are_saved_apart_and_merged() {
    let files = folder();
    let recipe =
        sft(&files, "lora = { rank = 2, alpha = 4.0, dropout = 0.1, targets = [\"query\", \"down\"] }\n");
    works(&["sft", &recipe]);
    let out = files.path().join("out");
    let adapter: Value =
        serde_json::from_str(&fs::read_to_string(out.join("adapter/adapter_config.json")).unwrap()).unwrap();
    assert_eq!((&adapter["peft_type"], &adapter["r"]), (&json!("LORA"), &json!(2)));
    assert_eq!(adapter["target_modules"], json!(["down_proj", "q_proj"]));
    let read = |path: std::path::PathBuf| fs::read(path).unwrap();
    let (base, tuned) =
        (read(run().join("base/model/model.safetensors")), read(out.join("model/model.safetensors")));
    let [base, tuned] = [&base, &tuned].map(|bytes| safetensors::SafeTensors::deserialize(bytes).unwrap());
    for (name, tensor) in base.tensors() {
        let adapted = name.contains("q_proj") || name.contains("down_proj");
        assert_eq!(tensor.data() != tuned.tensor(&name).unwrap().data(), adapted, "{name}");
    }
    let summary = fs::read_to_string(out.join("stage.json")).unwrap();
    assert!(summary.contains("held_out_loss"), "{summary}");
}

#[test]
fn ppo_trains_adapters_beside_a_reference_that_stands_on_the_same_weights() {
    let files = folder();
    let recipe = text(
        &files,
        "ppo.toml",
        &format!(
            "output_dir = \"{3}\"\npolicy = \"{0}\"\nreference = \"{0}\"\ncritic = \"{0}\"\nreward = \"{1}\"\n\
             prompts = {{ path = \"{2}\" }}\nlora = {{ rank = 2 }}\n[ppo]\ntotal_episodes = 16\nrollout_batch = 8\n\
             microbatch = 8\nresponse_length = 4\nlearning_rate = 1e-2\n",
            at("sft-a/model"),
            at("reward/model"),
            at("world/prompts.jsonl"),
            files.path().join("out").display()
        ),
    );
    works(&["ppo", &recipe]);
    let out = files.path().join("out/seed-0");
    assert!(out.join("adapter/adapter_model.safetensors").exists());
    let [before, after] =
        [run().join("sft-a"), out.clone()].map(|f| hashes(&f.join("model"))["model.safetensors"].clone());
    assert_ne!(before, after);
    let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let kl: Vec<f64> = metrics
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["objective/kl"].as_f64().unwrap())
        .collect();
    assert_eq!(kl[0], 0.0, "fresh adapters change nothing");
    assert_ne!(kl[1], 0.0, "the reference stays behind");
}

#[test]
fn streamed_data_is_split_as_in_memory_and_lists_broken_rows_once() {
    let files = folder();
    let good = fs::read_to_string(run().join("world/demonstrations.jsonl")).unwrap();
    let data = text(&files, "holes.jsonl", &format!("{good}{{\"prompt\": \"a meal\"}}\n"));
    let recipe = sft(&files, "shuffle_window = 16\n");
    let path = format!("data.path={data}");
    // 64 rows, 32 a window: ten steps of eight go through them more than once.
    let all = [&path, "training.max_steps=10"];
    let read = align(&[&["sft", &recipe][..], &all].concat());
    read.refuses(&["holes.jsonl, line 65", "the field `completion` is missing"]);
    let skipping = [&["sft", &recipe, "--overwrite", "data.skip_bad_rows=true"][..], &all].concat();
    let skipped = works(&skipping);
    assert_eq!(skipped.err.matches("skipped 1 broken rows").count(), 1, "{}", skipped.err);
    let figures = |path: std::path::PathBuf| -> Value {
        serde_json::from_str(&fs::read_to_string(path.join("stage.json")).unwrap()).unwrap()
    };
    let (streamed, in_memory) = (figures(files.path().join("out")), figures(run().join("sft-a")));
    assert_eq!(streamed["summary"]["held_out_rows"], in_memory["summary"]["held_out_rows"]);
}

#[test]
fn recomputation_changes_memory_and_not_the_losses() {
    let losses = |extra: &str| -> Vec<f64> {
        let files = folder();
        works(&["sft", &sft(&files, extra)]);
        let lines = fs::read_to_string(files.path().join("out/metrics.jsonl")).unwrap();
        let loss = |line: &str| serde_json::from_str::<Value>(line).unwrap()["loss"].as_f64().unwrap();
        lines.lines().map(loss).collect()
    };
    for more in ["", "lora = { rank = 2, dropout = 0.2 }\n"] {
        let (plain, recomputed) = (losses(more), losses(&format!("recompute = true\n{more}")));
        assert_eq!(plain.len(), 4);
        assert_ne!(plain[0], plain[3]);
        for (found, expected) in recomputed.iter().zip(&plain) {
            // The same sums, grouped by block, over four steps of AdamW.
            assert!((found - expected).abs() < 1e-4 * expected, "{recomputed:?}, expected {plain:?}");
        }
    }
}

#[test]
fn single_stages_make_evaluate_and_report() {
    let files = folder();
    let out = |name: &str| files.path().join(name).display().to_string();
    let init = text(
        &files,
        "init.toml",
        &format!(
            "output_dir = \"{}\"\ntokenizer = \"{}\"\nseed = 3\n[config]\nmodel_type = \"gpt2\"\nn_embd = 8\nn_layer = 1\n\
             n_head = 2\nn_positions = 64\n",
            out("blank"),
            at("world")
        ),
    );
    works(&["init", &init]);
    works(&["doctor", "--model", &format!("{}/model", out("blank"))]);
    let eval = text(
        &files,
        "eval.toml",
        &format!(
            "output_dir = \"{}\"\nprompts = {{ path = \"{}\" }}\ngold = \"{}\"\nsampling = {{ max_new_tokens = 4 }}\n\
             [arms]\nblank = \"{}/model\"\ntuned = \"{}\"\n",
            out("eval"),
            at("world/held_out.jsonl"),
            at("world"),
            out("blank"),
            at("sft-a/model")
        ),
    );
    let table = works(&["eval", &eval]).out;
    for word in ["arm", "gold", "length", "stops", "blank", "tuned", "8 prompts", "report.html"] {
        assert!(table.contains(word), "expected `{word}` in:\n{table}");
    }
}

#[test]
fn a_used_folder_is_neither_overwritten_nor_resumed_by_accident() {
    let files = folder();
    let recipe = sft(&files, "");
    works(&["sft", &recipe]);
    let out = files.path().join("out");
    let before = hashes(&out.join("model"));
    align(&["sft", &recipe]).refuses(&["is not empty; give --resume", "--overwrite", "output_dir="]);
    let again = works(&["sft", &recipe, "--resume"]);
    again.says(&["sft: done already"]);
    works(&["sft", &recipe, "--overwrite"]);
    assert_eq!(hashes(&out.join("model")), before, "the same recipe gives the same bytes");

    let foreign = files.path().join("mine");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("thesis.txt"), "years").unwrap();
    let into = format!("output_dir={}", foreign.display());
    align(&["sft", &recipe, &into, "--overwrite"]).refuses(&["no run of align: it is not overwritten"]);
    align(&["sft", &recipe, &into, "--resume"]).refuses(&["holds no run of align to resume"]);
    align(&["sft", &recipe, "output_dir=nowhere", "--resume"]).refuses(&["nothing to resume in nowhere"]);

    let namesake = files.path().join("new.old");
    fs::create_dir(&namesake).unwrap();
    fs::write(namesake.join("thesis.txt"), "years").unwrap();
    let into = format!("output_dir={}", files.path().join("new").display());
    works(&["sft", &recipe, &into]);
    assert!(namesake.join("thesis.txt").exists() && foreign.join("thesis.txt").exists());
}
