//! Merges by mergekit's configurations, from the command line and as a stage of a recipe.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::tiny::{align, at, folder, path, text, works};

const PROMPT: &str = "please plan a meal";

fn ties(files: &TempDir) -> String {
    let config = format!(
        "models:\n  - {{ model: \"{}\", parameters: {{ weight: 0.5, density: 0.5 }} }}\n  - {{ model: \"{}\", parameters: {{ weight: 0.5, \
         density: [1.0, 0.5] }} }}\nmerge_method: ties\nbase_model: \"{}\"\n",
        at("sft-a/model"),
        at("sft-b/model"),
        at("base/model")
    );
    text(files, "ties.yml", &config)
}

fn json(path: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_merge_is_a_model_that_knows_what_it_was_made_of() {
    let files = folder();
    let (config, out) = (ties(&files), format!("{}/merged", path(&files)));
    assert_eq!(works(&["merge", &config, &out]).out.trim(), out);
    works(&["generate", "--model", &out, "--prompt", PROMPT, "--max-new-tokens", "2"]);
    let origin = json(&format!("{out}/align.json"));
    assert_eq!(origin["merge"]["method"], "ties");
    assert_eq!(
        origin["ancestor"],
        json(&at("sft-a/model/align.json"))["ancestor"],
        "both descend from the base"
    );
    assert_eq!(
        fs::read_to_string(format!("{out}/mergekit_config.yml")).unwrap(),
        fs::read_to_string(&config).unwrap()
    );

    align(&["merge", &config, &out])
        .refuses(&[&format!("{out} exists; choose another folder or ask to overwrite")]);
    works(&["merge", &config, &out, "--overwrite", "--max-shard-size", "10KB"]);
    assert!(fs::exists(format!("{out}/model.safetensors.index.json")).unwrap());
    works(&["generate", "--model", &out, "--prompt", PROMPT, "--max-new-tokens", "2"]);
}

#[test]
fn a_dry_run_says_what_every_tensor_is_made_of_and_writes_nothing() {
    let files = folder();
    let plan = works(&["merge", &ties(&files), "--dry-run"]);
    plan.says(&["layers", "nothing was written"]);
    let (base, a) = (at("base/model"), at("sft-a/model"));
    let line = plan.out.lines().find(|line| line.starts_with("model.layers.1.mlp.up_proj.weight ")).unwrap();
    assert!(line.contains(&format!("ties({a}, ")) && line.contains(&format!("{base} (base)")), "{line}");
    assert!(
        line.contains("weight=[0.5, 0.5] density=[0.5, 0.5]"),
        "the last layer is at the gradient's end: {line}"
    );
    assert!(plan.out.contains("density=[0.5, 1.0]"), "the first is at its beginning");
    assert_eq!(fs::read_dir(files.path()).unwrap().count(), 1);
}

#[test]
fn layers_stacked_from_two_models_load_and_run() {
    let files = folder();
    let config = format!(
        "slices:\n  - sources: [{{ model: \"{}\", layer_range: [0, 2] }}]\n  - sources: [{{ model: \"{}\", layer_range: [1, 2] }}]\n\
         merge_method: passthrough\ndtype: bfloat16\n",
        at("sft-a/model"),
        at("sft-b/model")
    );
    let (config, out) = (text(&files, "stacked.yml", &config), format!("{}/stacked", path(&files)));
    works(&["merge", &config, &out]);
    let made = json(&format!("{out}/config.json"));
    assert_eq!(made["num_hidden_layers"], 3);
    works(&["generate", "--model", &out, "--prompt", PROMPT, "--max-new-tokens", "2"]);
}

#[test]
fn the_seed_decides_what_dare_drops() {
    let files = folder();
    let config = format!(
        "models: [{{ model: \"{}\", parameters: {{ weight: 1, density: 0.5 }} }}]\nmerge_method: dare_linear\nbase_model: \"{}\"\n",
        at("sft-a/model"),
        at("base/model")
    );
    let config = text(&files, "dare.yml", &config);
    let id = |name: &str, seed: &str| {
        let out = format!("{}/{name}", path(&files));
        works(&["merge", &config, &out, "--seed", seed]);
        json(&format!("{out}/align.json"))["id"].clone()
    };
    assert_eq!(id("a", "3"), id("b", "3"));
    assert_ne!(id("c", "3"), id("d", "4"));
}

#[test]
fn what_is_wrong_with_a_configuration_is_named_with_its_line() {
    let files = folder();
    let out = format!("{}/out", path(&files));
    align(&["merge", "no-such.yml", &out]).refuses(&["cannot read no-such.yml"]);
    let config = text(
        &files,
        "wrong.yml",
        "models:\n  - { model: a, parameters: { wieght: 1 } }\nmerge_method: linear\n",
    );
    align(&["merge", &config, &out])
        .refuses(&["wrong.yml:2: `models[0].parameters.wieght`", "did you mean `weight`?"]);
    let config = text(&files, "nowhere.yml", "models: [{ model: ./nowhere }]\nmerge_method: passthrough\n");
    align(&["merge", &config, &out]).refuses(&["cannot find the model `./nowhere`"]);
    let unmatched = fs::read_to_string(ties(&files))
        .unwrap()
        .replace("weight: 0.5", "weight: [{ filter: mpl, value: 1 }, { value: 0.5 }]");
    let config = text(&files, "unmatched.yml", &unmatched);
    align(&["merge", &config, &out])
        .refuses(&["the filter `mpl` is in no tensor's name", "did you mean `mlp`?"]);
    works(&["merge", &config, &out, "--force"]);
    assert_eq!(align(&["merge", &config]).code, Some(2), "an output is needed");
    assert_eq!(align(&["merge", &config, &out, "--max-shard-size", "5 apples"]).code, Some(2));
}

#[test]
fn a_merge_is_a_stage_whose_models_may_be_stages() {
    let files = folder();
    let recipe = format!(
        "output_dir = \"{}/run\"\n[[stage]]\nname = \"both\"\nkind = \"merge\"\n[stage.config]\nmerge_method = \"slerp\"\n\
         base_model = \"{a}\"\nmodels = [{{ model = \"{a}\" }}, {{ model = \"{b}\" }}]\nparameters = {{ t = 0.5 }}\n\
         [[stage]]\nname = \"again\"\nkind = \"merge\"\nconfig = {{ merge_method = \"linear\", models = [{{ model = \"@both\", \
         parameters = {{ weight = 1.0 }} }}] }}\n",
        path(&files),
        a = at("sft-a/model"),
        b = at("sft-b/model")
    );
    let recipe = text(&files, "merges.toml", &recipe);
    works(&["run", &recipe]);
    let weights =
        |stage: &str| fs::read(format!("{}/run/{stage}/model/model.safetensors", path(&files))).unwrap();
    assert_eq!(weights("both"), weights("again"));
    let done = json(&format!("{}/run/both/stage.json", path(&files)));
    assert_eq!((&done["summary"]["method"], &done["summary"]["members"]), (&"slerp".into(), &2.into()));

    let wrong =
        fs::read_to_string(&recipe).unwrap().replace("t = 0.5", "s = 0.5").replace("/run\"", "/wrong\"");
    let wrong = text(&files, "wrong.toml", &wrong);
    align(&["run", &wrong]).refuses(&["`slerp` takes no such parameter here", "`parameters.s`"]);
    let unknown = fs::read_to_string(&recipe).unwrap().replace("@both", "@bath");
    let unknown = text(&files, "unknown.toml", &unknown);
    align(&["run", &unknown]).refuses(&["`@bath` is no earlier stage; did you mean `@both`?"]);
}
