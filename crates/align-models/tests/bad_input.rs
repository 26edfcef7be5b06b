//! Damaged, foreign and hostile files: a typed error that names the thing, what was expected and what was found.

use std::error::Error;
use std::fs;
use std::path::Path;

use align_core::TokenBatch;
use align_models::checkpoint::{CheckpointError, SafetensorsFile, SaveOptions};
use align_models::{Transformer, TransformerConfig};
use align_testkit::{device, fixtures};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// A copy of a fixture that may be damaged.
fn copy_of(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixtures::path(&format!("models/{name}"))).unwrap() {
        let path = entry.unwrap().path();
        if !path.ends_with("expected.safetensors") {
            fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    folder
}

/// The whole message of the error that loading gives, causes included.
fn refusal(folder: &Path) -> String {
    let error = Transformer::from_pretrained(folder, &device()).expect_err("the folder is damaged");
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        message.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    message
}

#[track_caller]
fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "expected \"{part}\" in: {message}");
    }
}

fn change_config(folder: &Path, change: impl FnOnce(&mut Map<String, Value>)) {
    let path = folder.join("config.json");
    let mut map = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut map);
    fs::write(&path, Value::Object(map).to_string()).unwrap();
}

/// Header and data of a file.
fn split(path: &Path) -> (Map<String, Value>, Vec<u8>) {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + length]).unwrap(), bytes[8 + length..].to_vec())
}

fn join(path: &Path, header: &Map<String, Value>, data: &[u8]) {
    let header = Value::Object(header.clone()).to_string().into_bytes();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(&header);
    bytes.extend(data);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_missing_folder_says_what_was_expected() {
    let message = refusal(Path::new("no/such/model"));
    assert_says(&message, &["no/such/model is not a folder", "config.json", "model.safetensors"]);
}

#[test]
fn a_folder_without_config_says_what_it_holds() {
    let folder = copy_of("llama");
    fs::remove_file(folder.path().join("config.json")).unwrap();
    assert_says(&refusal(folder.path()), &["has no config.json", "found model.safetensors"]);
}

#[test]
fn a_folder_without_weights_says_what_it_holds() {
    let folder = copy_of("llama");
    fs::rename(folder.path().join("model.safetensors"), folder.path().join("pytorch_model.bin")).unwrap();
    assert_says(
        &refusal(folder.path()),
        &["has no model.safetensors or model.safetensors.index.json", "found config.json, pytorch_model.bin"],
    );
}

#[test]
fn unknown_families_and_options_are_refused_by_name() {
    type Change = fn(&mut Map<String, Value>);
    let cases: [(&str, Change, &[&str]); 10] = [
        (
            "llama",
            |c| drop(c.insert("model_type".into(), json!("mamba"))),
            &["unknown model family `mamba`", "gpt_neox"],
        ),
        ("llama", |c| drop(c.remove("model_type")), &["unknown model family ``"]),
        (
            "llama",
            |c| drop(c.insert("rope_parameters".into(), json!({ "rope_type": "longrope" }))),
            &["`rope_type` is \"longrope\"", "yarn"],
        ),
        (
            "llama",
            |c| drop(c.insert("hidden_act".into(), json!("mish"))),
            &["`hidden_act` is \"mish\"", "silu"],
        ),
        (
            "llama",
            |c| drop(c.insert("quantization_config".into(), json!({ "bits": 4 }))),
            &["`quantization_config` is {\"bits\":4}"],
        ),
        ("llama", |c| drop(c.insert("num_local_experts".into(), json!(8))), &["`num_local_experts` is 8"]),
        (
            "llama",
            |c| drop(c.insert("hidden_size".into(), json!(-3))),
            &["`hidden_size` is -3", "whole number"],
        ),
        ("llama", |c| drop(c.remove("vocab_size")), &["`vocab_size` is missing"]),
        (
            "llama",
            |c| drop(c.insert("num_hidden_layers".into(), json!(1_000_000_000))),
            &["`num_hidden_layers` is 1000000000", "at most 4096"],
        ),
        (
            "gpt2",
            |c| drop(c.insert("scale_attn_by_inverse_layer_idx".into(), json!(true))),
            &["`scale_attn_by_inverse_layer_idx` is true"],
        ),
    ];
    for (name, change, parts) in cases {
        let folder = copy_of(name);
        change_config(folder.path(), change);
        assert_says(&refusal(folder.path()), parts);
    }
}

#[test]
fn config_that_is_no_json_is_refused() {
    let folder = copy_of("llama");
    fs::write(folder.path().join("config.json"), "{ \"model_type\": ").unwrap();
    assert_says(&refusal(folder.path()), &["cannot use", "config.json", "not a JSON object", "EOF"]);
}

#[test]
fn missing_surplus_and_misshapen_tensors_are_all_listed() {
    let folder = copy_of("llama");
    let path = folder.path().join("model.safetensors");
    let (mut header, data) = split(&path);
    let moved = header.remove("model.norm.weight").unwrap();
    header.insert("model.norm.gamma".into(), moved);
    let query = header.get_mut("model.layers.1.self_attn.q_proj.weight").unwrap();
    query["shape"] = json!([16, 64]);
    join(&path, &header, &data);
    let error = Transformer::from_pretrained(folder.path(), &device()).unwrap_err();
    let CheckpointError::Mismatch { mismatch, .. } = &error else { panic!("{error}") };
    assert_eq!(mismatch.missing, ["model.norm.weight"]);
    assert_eq!(mismatch.surplus, ["model.norm.gamma"]);
    assert_eq!(mismatch.wrong_shape[0].expected, [32, 32]);
    assert_says(
        &error.to_string(),
        &[
            "1 missing: model.norm.weight",
            "1 surplus: model.norm.gamma",
            "model.layers.1.self_attn.q_proj.weight [16, 64] instead of [32, 32]",
        ],
    );
}

#[test]
fn a_truncated_file_is_found_out_at_every_length() {
    let folder = copy_of("llama");
    let path = folder.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for length in [0, 5, 8, 100, 1000, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        assert_says(&refusal(folder.path()), &["model.safetensors is damaged: expected", "found"]);
    }
}

#[test]
fn a_header_longer_than_its_file_is_not_believed() {
    let folder = copy_of("llama");
    let path = folder.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    assert_says(&refusal(folder.path()), &["is damaged", "a header of 18446744073709551615 bytes"]);
}

#[test]
fn sizes_that_overflow_are_not_believed() {
    let folder = copy_of("llama");
    let path = folder.path().join("model.safetensors");
    let (mut header, data) = split(&path);
    header["model.norm.weight"]["shape"] = json!([1u64 << 40, 1u64 << 40]);
    join(&path, &header, &data);
    assert_says(&refusal(folder.path()), &["128 bytes for tensor `model.norm.weight`", "1099511627776"]);
    header["model.norm.weight"]["shape"] = json!([32]);
    header["model.norm.weight"]["data_offsets"] = json!([0, u64::MAX]);
    join(&path, &header, &data);
    assert_says(&refusal(folder.path()), &["offsets 0 to 18446744073709551615"]);
}

#[test]
fn tensors_that_share_bytes_are_refused() {
    let folder = copy_of("llama");
    let path = folder.path().join("model.safetensors");
    let (mut header, data) = split(&path);
    header["model.norm.weight"]["data_offsets"] =
        header["model.layers.0.input_layernorm.weight"]["data_offsets"].clone();
    join(&path, &header, &data);
    assert_says(&refusal(folder.path()), &["tensors that share no bytes", "overlapping"]);
}

#[test]
fn an_index_cannot_leave_its_folder() {
    for shard in ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "..\\x", "C:x"] {
        let folder = copy_of("llama-sharded");
        let path = folder.path().join("model.safetensors.index.json");
        fs::write(&path, json!({ "weight_map": { "model.norm.weight": shard } }).to_string()).unwrap();
        let error = Transformer::from_pretrained(folder.path(), &device()).unwrap_err();
        assert!(
            matches!(&error, CheckpointError::ShardOutside { shard: named, .. } if named == shard),
            "{error}"
        );
        assert_says(&error.to_string(), &["model.safetensors.index.json names the shard"]);
    }
}

#[test]
fn a_missing_shard_is_named() {
    let folder = copy_of("llama-sharded");
    let shard = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("00002-of"))
        .unwrap();
    fs::remove_file(&shard).unwrap();
    assert_says(&refusal(folder.path()), &["cannot read", "model-00002-of"]);
}

#[test]
fn numbers_that_are_not_finite_are_refused_with_their_count() {
    let folder = copy_of("llama");
    let path = folder.path().join("model.safetensors");
    let (header, mut data) = split(&path);
    let start = header["model.norm.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
    data[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    data[start + 8..start + 12].copy_from_slice(&f32::INFINITY.to_le_bytes());
    join(&path, &header, &data);
    assert_says(
        &refusal(folder.path()),
        &["tensor `model.norm.weight`", "2 of 32 numbers that are NaN or infinite"],
    );
}

#[test]
fn tensors_of_other_types_are_refused() {
    let folder = copy_of("llama");
    let path = folder.path().join("model.safetensors");
    let (mut header, data) = split(&path);
    header["model.norm.weight"]["dtype"] = json!("I32");
    join(&path, &header, &data);
    assert_says(
        &refusal(folder.path()),
        &["tensor `model.norm.weight`", "has type I32, expected F32, F16 or BF16"],
    );
}

#[test]
fn a_failed_save_leaves_the_old_folder() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model");
    let model = Transformer::from_pretrained(&fixtures::path("models/llama"), &device()).unwrap();
    model.save_pretrained(&target).unwrap();
    let before = fs::read(target.join("model.safetensors")).unwrap();
    let mut config = TransformerConfig::llama(50, 32, 2, 4);
    config.attention_scale = 0.5;
    let other = Transformer::init(&config, &align_core::Draws::new(1), &device());
    assert!(other.save_pretrained(&target).is_err());
    assert_eq!(fs::read(target.join("model.safetensors")).unwrap(), before);
    // A folder that cannot be written to: a file stands where it should be.
    let blocked = folder.path().join("file");
    fs::write(&blocked, "").unwrap();
    let message = model.save_into(&blocked, &SaveOptions::default()).unwrap_err().to_string();
    assert_says(&message, &["cannot write", "what was saved before is untouched"]);
}

#[test]
fn a_file_that_fails_half_way_leaves_the_old_one() {
    use align_models::checkpoint::Dtype;
    let folder = tempfile::tempdir().unwrap();
    let model = Transformer::from_pretrained(&fixtures::path("models/llama"), &device()).unwrap();
    model.save_into(folder.path(), &SaveOptions::default()).unwrap();
    let before = fs::read(folder.path().join("model.safetensors")).unwrap();
    // The header and some tensors are written before a number does not fit.
    let mut config = TransformerConfig::llama(97, 32, 2, 4);
    config.initializer_range = 1e6;
    let other = Transformer::init(&config, &align_core::Draws::new(1), &device());
    let options = SaveOptions { dtype: Some(Dtype::F16), ..SaveOptions::default() };
    let error = other.save_into(folder.path(), &options).unwrap_err();
    assert_says(&error.to_string(), &["cannot write", "what was saved before is untouched"]);
    let cause = error.source().map_or(String::new(), ToString::to_string);
    assert_says(&cause, &["tensor `model.embed_tokens.weight` is too large for f16"]);
    assert_eq!(fs::read(folder.path().join("model.safetensors")).unwrap(), before);
    assert!(Transformer::from_pretrained(folder.path(), &device()).is_ok());
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains(".align-")), "{left:?}");
}

#[test]
#[should_panic(expected = "token id 97 is outside the vocabulary of 97")]
fn ids_outside_the_vocabulary_do_not_pass() {
    let model = Transformer::from_pretrained(&fixtures::path("models/llama"), &device()).unwrap();
    model.hidden(&TokenBatch::left_padded(&[vec![3, 97]], &device()));
}

#[test]
#[should_panic(expected = "a row of 161 tokens is longer than the model's 160 learned positions")]
fn learned_positions_end() {
    let model = Transformer::from_pretrained(&fixtures::path("models/gpt2"), &device()).unwrap();
    model.hidden(&TokenBatch::left_padded(&[vec![3; 161]], &device()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is done to a header, opening gives a value or an error: no panic, no allocation beyond the file.
    #[test]
    fn mutated_files_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in prop::option::of(any::<prop::sample::Index>()),
        length in prop::option::of(any::<u64>()),
    ) {
        let bytes = small_file();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut bytes = bytes;
        for (at, value) in edits {
            let at = 8 + at.index(header - 8);
            bytes[at] = value;
        }
        if let Some(length) = length {
            bytes[..8].copy_from_slice(&length.to_le_bytes());
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        fs::write(&path, &bytes).unwrap();
        if let Ok(file) = SafetensorsFile::open(&path) {
            for name in file.entries().keys() {
                let _ = file.numbers(name);
            }
        }
    }

    /// Digits of offsets and shapes changed in place: the JSON stays valid, the sizes lie.
    #[test]
    fn lying_sizes_never_panic(
        shape in prop::collection::vec(any::<u64>(), 0..4),
        offsets in any::<[u64; 2]>(),
        dtype in prop::sample::select(vec!["F32", "BF16", "F16", "I64", "U8", "F4", "X"]),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        fs::write(&path, small_file()).unwrap();
        let (mut header, data) = split(&path);
        header["b"] = json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets });
        join(&path, &header, &data);
        if let Ok(file) = SafetensorsFile::open(&path) {
            for name in file.entries().keys() {
                let _ = file.numbers(name);
            }
        }
    }
}

/// Keys of `config.json` and values that someone might put there.
fn strange_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0u64..200).prop_map(Value::from),
        "[a-z0-9_]{0,8}".prop_map(Value::from),
        Just(json!([])),
        Just(json!(["sliding_attention", "full_attention"])),
        Just(json!({ "rope_type": "yarn", "factor": 1e300, "original_max_position_embeddings": 1e-300 })),
        Just(json!({ "rope_type": "dynamic", "factor": 2.0, "partial_rotary_factor": 0.0 })),
        Just(json!({ "full_attention": 3, "sliding_attention": {} })),
    ]
}

proptest! {
    /// A configuration is understood or refused, whatever stands in it.
    #[test]
    fn strange_configurations_never_panic(
        family in prop::sample::select(vec!["llama", "gemma3", "gemma2", "qwen2", "gpt-neox", "gpt2", "mistral"]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), strange_value()), 1..5),
        rope in prop::option::of(strange_value()),
    ) {
        let text = fs::read_to_string(fixtures::path(&format!("models/{family}/config.json"))).unwrap();
        let mut map: Map<String, Value> = serde_json::from_str(&text).unwrap();
        let keys: Vec<String> = map.keys().cloned().collect();
        for (at, value) in changes {
            map.insert(keys[at.index(keys.len())].clone(), value);
        }
        if let Some(rope) = rope {
            map.insert("rope_scaling".into(), rope);
        }
        let _ = TransformerConfig::from_json(&Value::Object(map).to_string());
    }
}

/// Two tensors of six numbers.
fn small_file() -> Vec<u8> {
    let header = json!({
        "__metadata__": { "format": "pt" },
        "a": { "dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24] },
        "b": { "dtype": "BF16", "shape": [6], "data_offsets": [24, 36] },
    })
    .to_string()
    .into_bytes();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(&header);
    bytes.extend([0; 36]);
    bytes
}
