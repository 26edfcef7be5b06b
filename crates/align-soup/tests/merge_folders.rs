//! Whole folders: against mergekit's, restacked and loaded, and refused with what is wrong.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use align_soup::merge::{
    FolderMergeError, FolderMergeWarning, MergeConfig, MergeOptions, MergeReport, ModelPath, merge_folders,
};
use align_soup::{SoupError, checkpoint_id};
use common::{Raw, Tensors, message, names, raw, read_json, values, write_json};
use half::bf16;
use safetensors::Dtype;
use serde_json::{Value, json};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/merge");

/// 24 bits in [−1/2, 1/2), as fixtures/merge/make_folders.py draws them.
fn uniform(seed: u64, name: &str, count: usize) -> Vec<f64> {
    let key = format!("{seed}/{name}")
        .bytes()
        .fold(0x811c_9dc5u32, |key, byte| (key ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let draw = |index: u32| {
        let mut x = key.wrapping_add(index.wrapping_mul(0x9e37_79b9));
        for (shift, factor) in [(16, 0x85eb_ca6b_u32), (13, 0xc2b2_ae35)] {
            x = (x ^ (x >> shift)).wrapping_mul(factor);
        }
        x ^= x >> 16;
        f64::from(x >> 8) / f64::from(1u32 << 24) - 0.5
    };
    (0..count as u32).map(draw).collect()
}

/// The tensors of a model of the fixture.
fn weights(model: &Value, vocabulary: usize) -> Tensors {
    let (hidden, inner) = (8, 12);
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocabulary, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
    ];
    if model["tied"] == false {
        shapes.push(("lm_head.weight".to_owned(), vec![vocabulary, hidden]));
    }
    for layer in 0..model["layers"].as_u64().unwrap() {
        let at = format!("model.layers.{layer}.");
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            shapes.push((format!("{at}{norm}.weight"), vec![hidden]));
        }
        for part in ["q", "k", "v", "o"] {
            shapes.push((format!("{at}self_attn.{part}_proj.weight"), vec![hidden, hidden]));
        }
        for part in ["gate", "up"] {
            shapes.push((format!("{at}mlp.{part}_proj.weight"), vec![inner, hidden]));
        }
        shapes.push((format!("{at}mlp.down_proj.weight"), vec![hidden, inner]));
    }
    let seed = model["seed"].as_u64().unwrap();
    let dtype = if model["dtype"] == "bfloat16" { Dtype::BF16 } else { Dtype::F32 };
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let count = shape.iter().product();
        let mut values = uniform(1, &name, count);
        if seed > 1 {
            values
                .iter_mut()
                .zip(uniform(seed, &name, count))
                .for_each(|(value, change)| *value += change / 8.0);
        }
        // Rounded to f32 before anything else, as the script does.
        let values: Vec<f64> = values.into_iter().map(|value| f64::from(value as f32)).collect();
        (name, raw(&values, &shape, dtype))
    };
    shapes.into_iter().map(tensor).collect()
}

/// Writes the fixture's models into a folder.
fn models(root: &Path) -> Value {
    let fixture = read_json(Path::new(&format!("{FIXTURES}/folders.json")));
    for (name, model) in fixture["models"].as_object().unwrap() {
        let vocabulary = model["vocabulary"].as_u64().unwrap() as usize;
        let folder = common::checkpoint(root, name, &weights(model, vocabulary));
        write_json(
            &folder.join("config.json"),
            &json!({
                "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "intermediate_size": 12,
                "num_attention_heads": 2, "num_hidden_layers": model["layers"], "vocab_size": vocabulary,
                "tie_word_embeddings": model["tied"], "dtype": model["dtype"], "rms_norm_eps": 1e-6,
            }),
        );
        write_json(&folder.join("tokenizer.json"), &model["tokenizer"]);
    }
    fixture
}

fn merge_with(
    root: &Path,
    text: &str,
    out: &str,
    options: &MergeOptions,
) -> Result<MergeReport, FolderMergeError> {
    let resolve = |model: &ModelPath| Ok::<PathBuf, _>(root.join(&model.path));
    merge_folders(&MergeConfig::from_yaml("m.yml", text)?, &resolve, options, root.join(out))
}

fn merge(root: &Path, text: &str, out: &str) -> Result<MergeReport, FolderMergeError> {
    merge_with(root, text, out, &MergeOptions::default())
}

#[track_caller]
fn refuses(root: &Path, text: &str, expected: &str) {
    let before = names(root);
    let error = merge(root, text, "refused").unwrap_err();
    let found = message(&error);
    assert!(found.contains(expected), "expected `{expected}` in `{found}`");
    assert_eq!(names(root), before, "nothing is left behind");
}

/// Bits apart, for numbers of one sign.
fn ulps(a: &Raw, b: &Raw) -> u64 {
    let ordered = |bits: i64, top: i64| if bits & top != 0 { top - bits } else { bits };
    let of = |raw: &Raw| -> Vec<i64> {
        match raw.dtype {
            Dtype::F32 => raw
                .bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| ordered(i64::from(u32::from_le_bytes(*b)), 1 << 31))
                .collect(),
            Dtype::BF16 => raw
                .bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| ordered(i64::from(u16::from_le_bytes(*b)), 1 << 15))
                .collect(),
            other => panic!("no order of {other}"),
        }
    };
    of(a).iter().zip(of(b)).map(|(a, b)| a.abs_diff(b)).max().unwrap_or(0)
}

#[test]
fn folders_are_merged_as_mergekit_merges_them() {
    let root = tempfile::tempdir().unwrap();
    let fixture = models(root.path());
    let bytes = fs::read(format!("{FIXTURES}/folders.safetensors")).unwrap();
    let merged = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for case in fixture["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let out = format!("out-{name}");
        merge(root.path(), case["yaml"].as_str().unwrap(), &out)
            .unwrap_or_else(|error| panic!("{name}: {}", message(&error)));
        let out = root.path().join(out);
        let config = read_json(&out.join("config.json"));
        assert_eq!(config["num_hidden_layers"], case["layers"], "{name}");
        assert_eq!(config["vocab_size"], case["vocab_size"], "{name}");
        if let Some(expected) = case["vocabulary"].as_object() {
            assert_eq!(vocabulary(&out), *expected, "{name}");
        }
        let found = common::read(&out);
        let prefix = format!("{name}/");
        let expected: Vec<&str> =
            merged.names().into_iter().filter_map(|tensor| tensor.strip_prefix(&prefix)).collect();
        assert_eq!(found.len(), expected.len(), "{name}");
        for tensor in expected {
            let view = merged.tensor(&format!("{prefix}{tensor}")).unwrap();
            let expected =
                Raw { dtype: view.dtype(), shape: view.shape().to_vec(), bytes: view.data().to_vec() };
            let found = &found[tensor];
            assert_eq!((found.dtype, &found.shape), (expected.dtype, &expected.shape), "{name}: {tensor}");
            if expected.dtype == Dtype::BF16 {
                // Rounded once from f64 here, from f32 there.
                assert!(ulps(found, &expected) <= 1, "{name}: {tensor}");
            } else {
                // mergekit computes in f32: a few roundings of the largest value, here below 1.
                common::assert_close(&values(found), &values(&expected), 4.0 * f64::from(f32::EPSILON) / 2.0);
            }
        }
    }
}

/// Tokens with their ids, as the JSON of the fixture has them.
fn vocabulary(folder: &Path) -> serde_json::Map<String, Value> {
    let tokenizer = read_json(&folder.join("tokenizer.json"));
    let mut tokens = tokenizer["model"]["vocab"].as_object().unwrap().clone();
    for added in tokenizer["added_tokens"].as_array().unwrap() {
        tokens.insert(added["content"].as_str().unwrap().to_owned(), added["id"].clone());
    }
    tokens
}

const SLERP: &str = "models: [{ model: base }, { model: tuned }]\nmerge_method: slerp\nbase_model: base\nparameters: { t: 0.5 }\n";

#[test]
fn shards_and_their_sizes_change_nothing() {
    let root = tempfile::tempdir().unwrap();
    models(root.path());
    for (name, text) in
        [("slerp", SLERP), ("linear", &SLERP.replace("slerp", "linear").replace("t: 0.5", "weight: 0.5"))]
    {
        let whole = merge(root.path(), text, &format!("{name}-whole")).unwrap();
        let options = MergeOptions { max_shard_bytes: 1000, ..MergeOptions::default() };
        let sharded = merge_with(root.path(), text, &format!("{name}-sharded"), &options).unwrap();
        assert_eq!(whole.shards, 1);
        assert!(sharded.shards > 5, "{}", sharded.shards);
        let [whole, sharded] = ["whole", "sharded"].map(|kind| root.path().join(format!("{name}-{kind}")));
        let (a, b) = (common::read(&whole), common::read(&sharded));
        assert!(a.iter().zip(&b).all(|((name, a), (other, b))| name == other && a.bytes == b.bytes));
        let index = read_json(&sharded.join("model.safetensors.index.json"));
        assert_eq!(index["weight_map"].as_object().unwrap().len(), a.len());
        assert_eq!(checkpoint_id(&whole).unwrap(), checkpoint_id(&sharded).unwrap());
    }
}

#[test]
fn what_was_merged_is_recorded() {
    let root = tempfile::tempdir().unwrap();
    models(root.path());
    let base = checkpoint_id(root.path().join("base")).unwrap();
    for tuned in ["tuned", "other"] {
        write_json(&root.path().join(tuned).join("align.json"), &json!({ "ancestor": base }));
    }
    let text = "models:\n  - { model: tuned, parameters: { weight: 0.5 } }\n  - { model: other, parameters: { weight: 0.5 } }\n\
                merge_method: ties\nbase_model: base\n";
    let report = merge(root.path(), text, "out").unwrap();
    let out = root.path().join("out");
    let origin = read_json(&out.join("align.json"));
    assert_eq!(report.id, checkpoint_id(&out).unwrap());
    assert_eq!(origin["id"], json!(report.id));
    assert_eq!(origin["ancestor"], json!(base), "the others descend from the base");
    assert_eq!(origin["merge"]["method"], "ties");
    let ids: Vec<Option<String>> = report.models.iter().map(|model| model.id.clone()).collect();
    let expected =
        ["base", "tuned", "other"].map(|name| Some(checkpoint_id(root.path().join(name)).unwrap()));
    assert_eq!(ids, expected);
    assert_eq!(fs::read_to_string(out.join("mergekit_config.yml")).unwrap(), text);
    assert_eq!(
        names(&out),
        ["align.json", "config.json", "mergekit_config.yml", "model.safetensors", "tokenizer.json"]
    );
    // Of a model that is not read to the end there is no identity, and no common ancestor without one.
    let text = "slices: [{ sources: [{ model: base, layer_range: [0, 2] }] }]\nmerge_method: passthrough\n";
    let report = merge(root.path(), text, "short").unwrap();
    assert_eq!((report.models[0].id.as_deref(), report.layers), (None, 2));
    assert_eq!(read_json(&root.path().join("short/config.json"))["num_hidden_layers"], 2);
}

#[test]
fn a_head_that_is_no_longer_tied_is_said_to_be_free() {
    let root = tempfile::tempdir().unwrap();
    models(root.path());
    let text = "models: [{ model: tied }, { model: tuned }]\nmerge_method: slerp\nbase_model: tied\nparameters: { t: 0.5 }\n";
    merge(root.path(), text, "free").unwrap();
    assert_eq!(read_json(&root.path().join("free/config.json"))["tie_word_embeddings"], false);
    let tensors = common::read(&root.path().join("free"));
    assert_ne!(tensors["lm_head.weight"].bytes, tensors["model.embed_tokens.weight"].bytes);
    // Tied models stay tied.
    let text = "models: [{ model: tied, parameters: { weight: 1 } }]\nmerge_method: linear\n";
    merge(root.path(), text, "tied-still").unwrap();
    assert_eq!(read_json(&root.path().join("tied-still/config.json"))["tie_word_embeddings"], true);
    assert!(!common::read(&root.path().join("tied-still")).contains_key("lm_head.weight"));
}

#[test]
fn types_may_be_mixed_and_the_result_has_the_one_asked_for() {
    let root = tempfile::tempdir().unwrap();
    models(root.path());
    let text = |dtype: &str| {
        format!(
            "models: [{{ model: other, parameters: {{ weight: 1 }} }}, {{ model: tuned, parameters: {{ weight: 1 }} }}]\n\
             merge_method: linear\n{dtype}"
        )
    };
    merge(root.path(), &text(""), "own").unwrap();
    merge(root.path(), &text("dtype: float16\nout_dtype: float64\n"), "wide").unwrap();
    let (own, wide) = (common::read(&root.path().join("own")), common::read(&root.path().join("wide")));
    assert_eq!(own["model.norm.weight"].dtype, Dtype::BF16, "the first model's");
    assert_eq!(read_json(&root.path().join("own/config.json"))["dtype"], "bfloat16");
    assert_eq!(read_json(&root.path().join("wide/config.json"))["dtype"], "float64");
    let [other, tuned] = ["other", "tuned"].map(|name| common::read(&root.path().join(name)));
    for (name, wide) in &wide {
        assert_eq!(wide.dtype, Dtype::F64);
        let mean: Vec<f64> =
            values(&other[name]).iter().zip(values(&tuned[name])).map(|(a, b)| 0.5 * a + 0.5 * b).collect();
        assert_eq!(values(wide), mean, "exact in f64: no input is rounded to `dtype`");
        let rounded: Vec<f64> = mean.iter().map(|value| bf16::from_f64(*value).to_f64()).collect();
        assert_eq!(values(&own[name]), rounded);
    }
}

#[test]
fn random_methods_draw_by_the_seed() {
    let root = tempfile::tempdir().unwrap();
    models(root.path());
    let text = "models: [{ model: tuned, parameters: { weight: 1, density: 0.5 } }]\nmerge_method: dare_linear\nbase_model: base\n";
    let with = |seed, out| {
        merge_with(root.path(), text, out, &MergeOptions { seed, ..MergeOptions::default() }).unwrap().id
    };
    let (a, again, b) = (with(1, "a"), with(1, "again"), with(2, "b"));
    assert_eq!(a, again);
    assert_ne!(a, b);
    assert_eq!(read_json(&root.path().join("a/align.json"))["merge"]["seed"], 1);
}

#[test]
fn layers_carry_their_entries_of_the_configuration() {
    let root = tempfile::tempdir().unwrap();
    models(root.path());
    for (name, layers) in
        [("base", json!(["x0", "x1", "x2"])), ("deep", json!(["y0", "y1", "y2", "y3", "y4"]))]
    {
        let path = root.path().join(name).join("config.json");
        let mut config = read_json(&path);
        config["layer_types"] = layers;
        write_json(&path, &config);
    }
    let text = "slices:\n  - sources: [{ model: base, layer_range: [1, 3] }]\n  - sources: [{ model: deep, layer_range: [3, 4] }]\n\
                merge_method: passthrough\n";
    merge(root.path(), text, "out").unwrap();
    assert_eq!(read_json(&root.path().join("out/config.json"))["layer_types"], json!(["x1", "x2", "y3"]));
    let (out, base, deep) = ("out", "base", "deep");
    let [out, base, deep] = [out, base, deep].map(|name| common::read(&root.path().join(name)));
    let up = |layer: usize| format!("model.layers.{layer}.mlp.up_proj.weight");
    assert_eq!(out[&up(0)].bytes, base[&up(1)].bytes);
    assert_eq!(out[&up(2)].bytes, deep[&up(3)].bytes);
    assert_eq!(
        out["model.embed_tokens.weight"].bytes, base["model.embed_tokens.weight"].bytes,
        "the first slice's"
    );
    assert_eq!(out["lm_head.weight"].bytes, deep["lm_head.weight"].bytes, "the last slice's");
}

#[test]
fn a_tokenizer_that_changes_is_written_with_what_stands_beside_it() {
    let root = tempfile::tempdir().unwrap();
    models(root.path());
    let template = "{% for message in messages %}{{ message.content }}{% endfor %}";
    for name in ["base", "foreign"] {
        let folder = root.path().join(name);
        write_json(
            &folder.join("tokenizer_config.json"),
            &json!({ "chat_template": template, "unk_token": "<unk>" }),
        );
        fs::write(folder.join("tokenizer.model"), "old form").unwrap();
    }
    let text = |source: &str| {
        format!(
            "models: [{{ model: base }}, {{ model: foreign }}]\nmerge_method: slerp\nbase_model: base\nparameters: {{ t: 0.5 }}\n{source}\n"
        )
    };
    merge(root.path(), &text("tokenizer_source: union\nchat_template: auto"), "union").unwrap();
    let out = root.path().join("union");
    assert!(!out.join("tokenizer.model").exists(), "it no longer agrees with tokenizer.json");
    assert_eq!(fs::read_to_string(out.join("chat_template.jinja")).unwrap(), template);
    assert_eq!(read_json(&out.join("tokenizer_config.json")), json!({ "unk_token": "<unk>" }));
    let added = read_json(&out.join("tokenizer.json"))["added_tokens"].as_array().unwrap().clone();
    let start = added.iter().find(|entry| entry["content"] == "<|im_start|>").unwrap();
    assert_eq!((&start["id"], &start["special"]), (&json!(16), &json!(true)), "with the settings it had");
    let plain = added.iter().find(|entry| entry["content"] == "xy").unwrap();
    assert_eq!(plain["special"], json!(false));
    // The vocabulary of the base is the base's file.
    merge(root.path(), &text("tokenizer_source: base\nchat_template: chatml"), "same").unwrap();
    let [same, base] =
        ["same", "base"].map(|name| fs::read(root.path().join(name).join("tokenizer.json")).unwrap());
    assert_eq!(same, base);
    assert!(
        fs::read_to_string(root.path().join("same/chat_template.jinja")).unwrap().contains("<|im_start|>")
    );
}

#[test]
fn different_vocabularies_are_refused_with_the_first_token_that_differs() {
    let root = tempfile::tempdir().unwrap();
    models(root.path());
    let text = "models: [{ model: base }, { model: foreign }]\nmerge_method: karcher\n";
    refuses(root.path(), text, "token 3 is \"j\" in `foreign` and \"a\" in `base`");
    // Allowed, rows of different numbers are still never cropped.
    let options = MergeOptions { allow_different_tokenizers: true, ..MergeOptions::default() };
    let error = merge_with(root.path(), text, "out", &options).unwrap_err();
    assert!(matches!(&error, FolderMergeError::Shape { by_token: true, .. }), "{error}");
    let tokens = |token: &str| {
        format!(
            "models: [{{ model: base, parameters: {{ weight: 1 }} }}]\nmerge_method: linear\n\
             tokenizer: {{ source: base, tokens: {{ {token} }} }}\n"
        )
    };
    refuses(
        root.path(),
        &tokens("a: { source: foreign, force: true }"),
        "is to come from `foreign`, which is no source of",
    );
    refuses(
        root.path(),
        &tokens("z: { source: { kind: model_token, model: base, token: q } }"),
        "the token \"z\" is to come from the token \"q\" of `base`, which has no such token",
    );
    refuses(
        root.path(),
        &tokens("z: { source: { kind: model_token, model: base, token_id: 99 } }"),
        "from row 99 of `base`",
    );
    fs::remove_file(root.path().join("base/tokenizer.json")).unwrap();
    refuses(root.path(), &tokens("z: { source: { kind: zero } }"), "has no tokenizer.json");
}

#[test]
fn bad_input_is_named_and_leaves_nothing_behind() {
    let root = tempfile::tempdir().unwrap();
    models(root.path());
    let root = root.path();
    let ties = |parameters: &str| {
        format!(
            "models: [{{ model: tuned, parameters: {{ {parameters} }} }}]\nmerge_method: ties\nbase_model: base\n"
        )
    };
    refuses(root, &SLERP.replace("tuned", "nowhere"), "nowhere");
    refuses(
        root,
        &SLERP.replace("t: 0.5", "t: 1.5"),
        "parameters of the tensor `model.embed_tokens.weight` (the base is `base`, models[0] is `tuned`): `t` must be in [0, 1], found 1.5",
    );
    refuses(
        root,
        &SLERP.replace("parameters: { t: 0.5 }\n", ""),
        "m.yml:1: `models`: `slerp` needs `t`, and nothing gives it for `model.embed_tokens.weight`",
    );
    refuses(
        root,
        &ties("density: 0.5"),
        "`ties` needs `weight`, and nothing gives it for `model.embed_tokens.weight` of `tuned`",
    );
    refuses(
        root,
        &ties("weight: 1, density: 1.2"),
        "(the base is `base`, models[0] is `tuned`): `density` of models[0] must be in [0, 1], found 1.2",
    );
    refuses(root, &ties("weight: 1, density: -0.1"), "`density` of models[0] must be in [0, 1], found -0.1");
    let linear = "models: [{ model: base, parameters: { weight: -1 } }, { model: tuned, parameters: { weight: 2 } }]\nmerge_method: linear\n";
    refuses(root, linear, "the `weight` of models[0] is -1");
    refuses(
        root,
        &ties("weight: [{ filter: self_atn, value: 1 }, { value: 0.5 }]"),
        "the filter `self_atn` is in no tensor's name, so that this value is never used; did you mean `self_attn`?",
    );
    let options = MergeOptions { allow_unmatched_filters: true, ..MergeOptions::default() };
    merge_with(
        root,
        &ties("weight: [{ filter: self_atn, value: 1 }, { value: 0.5 }]"),
        "unmatched",
        &options,
    )
    .unwrap();
    refuses(
        root,
        &SLERP.replace("tuned", "deep"),
        "the sources of a slice must have as many layers each: 3 here and 5 in `deep`",
    );
    let beyond = "slices: [{ sources: [{ model: base, layer_range: [1, 4] }] }]\nmerge_method: passthrough\n";
    refuses(root, beyond, "m.yml:1: `slices[0]`: the layers end at 4, and `base` has 3");

    let config = root.join("tuned/config.json");
    let original = fs::read(&config).unwrap();
    for (key, value) in [("model_type", json!("mistral")), ("num_attention_heads", json!(4))] {
        let mut changed = read_json(&config);
        changed[key] = value.clone();
        write_json(&config, &changed);
        refuses(root, SLERP, &format!("`tuned` has {key} = {value} in its config.json, `base` has "));
        fs::write(&config, &original).unwrap();
    }
    let mut changed = read_json(&config);
    changed["rms_norm_eps"] = json!(1e-5);
    write_json(&config, &changed);
    let report = merge(root, SLERP, "warned").unwrap();
    let warning = FolderMergeWarning::ConfigDiffers { key: "rms_norm_eps".into(), model: "tuned".into() };
    assert_eq!(report.warnings, [warning]);
    fs::write(&config, &original).unwrap();

    refuses_damaged(
        root,
        "a tensor less",
        |tensors| {
            tensors.remove("model.layers.1.mlp.up_proj.weight");
        },
        "`tuned` has no tensor `model.layers.1.mlp.up_proj.weight`, which is in `base`",
    );
    refuses_damaged(
        root,
        "another shape",
        |tensors| {
            tensors.insert("model.norm.weight".into(), raw(&[1.0; 7], &[7], Dtype::F32));
        },
        "the tensor `model.norm.weight` has shape [7] in `tuned` and [8] in `base`",
    );
    refuses_damaged(
        root,
        "not a number",
        |tensors| {
            tensors.insert("model.norm.weight".into(), raw(&[f64::NAN; 8], &[8], Dtype::F32));
        },
        "`model.norm.weight`",
    );
    refuses_damaged(
        root,
        "a second stack",
        |tensors| {
            tensors.insert("vision.blocks.0.weight".into(), raw(&[1.0], &[1], Dtype::F32));
        },
        "models with one stack of layers are merged",
    );
    refuses_damaged(
        root,
        "another kind",
        |tensors| {
            tensors.insert("model.norm.weight".into(), raw(&[1.0; 8], &[8], Dtype::I64));
        },
        "quantised",
    );

    let weights = root.join("tuned/model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 10]).unwrap();
    refuses(root, SLERP, "is truncated or damaged");
    fs::write(&weights, &bytes).unwrap();

    let error = merge(root, SLERP, "base").unwrap_err();
    assert!(
        matches!(&error, FolderMergeError::Folder(folder) if matches!(**folder, SoupError::OutputIsIngredient { .. })),
        "{error}"
    );
    merge(root, SLERP, "out").unwrap();
    let error = merge(root, SLERP, "out").unwrap_err();
    assert!(
        matches!(&error, FolderMergeError::Folder(folder) if matches!(**folder, SoupError::OutputExists { .. })),
        "{error}"
    );
    merge_with(root, SLERP, "out", &MergeOptions { overwrite: true, ..MergeOptions::default() }).unwrap();
}

/// Refuses a slerp of `base` with a changed `tuned`.
#[track_caller]
fn refuses_damaged(root: &Path, what: &str, damage: impl FnOnce(&mut Tensors), expected: &str) {
    let name = format!("damaged {what}");
    let mut tensors: BTreeMap<String, Raw> = common::read(&root.join("tuned"));
    damage(&mut tensors);
    let folder = common::checkpoint(root, &name, &tensors);
    for file in ["config.json", "tokenizer.json"] {
        fs::copy(root.join("tuned").join(file), folder.join(file)).unwrap();
    }
    let text = format!(
        "models: [{{ model: base }}, {{ model: {name} }}]\nmerge_method: slerp\nbase_model: base\nparameters: {{ t: 0.5 }}\n"
    );
    let before = names(root);
    let found = message(&merge(root, &text, "refused").unwrap_err()).replace(&name, "tuned");
    assert!(found.contains(expected), "{what}: expected `{expected}` in `{found}`");
    assert_eq!(names(root), before, "nothing is left behind");
}
