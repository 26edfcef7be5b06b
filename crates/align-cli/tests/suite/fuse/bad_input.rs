//! What no fusion can be made of: the message names the member and what was expected.

use std::fs::{self, File};
use std::io::Write;

use serde_json::json;
use tempfile::TempDir;

use super::{PROMPT, adapters, experts, fusion};
use crate::tiny::{Ended, align, at, change, copy_of, folder, path, text};

fn generate(file: &str) -> Ended {
    align(&["generate", "--model", file, "--prompt", PROMPT, "--max-new-tokens", "2"])
}

#[test]
fn a_wrong_path_says_whose_it_is_and_what_it_is_relative_to() {
    let files = folder();
    let file = fusion(&files, "f.toml", "experts = { first = \"no/such/model\" }\n");
    generate(&file).refuses(&[
        "expert `first`",
        "`no/such/model` is not there",
        files.path().join("no/such/model").to_str().unwrap(),
        "relative to",
    ]);
    generate("no-such.toml").refuses(&["`no-such.toml` is not there", "a fusion's file"]);
    let folder_without = files.path().to_str().unwrap();
    align(&["fuse", "generate", folder_without, "--prompt", "a"])
        .refuses(&["is no fusion", "a folder with fusion.toml"]);
    align(&["fuse", "generate", &at("base/model"), "--prompt", "a"]).refuses(&["is no fusion", "--model"]);
}

#[test]
fn a_typo_is_reported_with_its_line_and_the_nearest_name() {
    let files = folder();
    for (rest, parts) in [
        (
            "weihging = { kind = \"static\", weights = [1.0, 1.0] }\n",
            &["f.toml:3:", "did you mean `weighing`?"][..],
        ),
        ("weighing = { kind = \"dynamic\", uper = 1.0 }\n", &["f.toml:3:", "did you mean `upper`?"]),
        ("weighing = { kind = \"dinamic\" }\n", &["f.toml:3:", "did you mean `dynamic`?"]),
        (
            "weighing = { kind = \"static\", weights = [1.0] }\n",
            &["one weight for each of 2 experts, found 1"],
        ),
        (
            "weighing = { kind = \"dynamic\", lower = 2.0, upper = 1.0 }\n",
            &["between 2 and 1", "the range is empty"],
        ),
        ("weighing = { kind = \"dynamic\", lower = -1.0 }\n", &["f.toml:3:", "-1"]),
        ("dtype = \"int8\"\n", &["f.toml:3:", "unknown type `int8`"]),
    ] {
        generate(&fusion(&files, "f.toml", &format!("{rest}{}", experts()))).refuses(parts);
    }
    generate(&fusion(&files, "f.toml", "experts = { a = { modle = \"x\" } }\n")).refuses(&[
        "f.toml:3:",
        "`experts.a.modle`",
        "did you mean `model`?",
    ]);
    generate(&fusion(&files, "f.toml", "")).refuses(&["missing field `experts`"]);
}

#[test]
fn a_file_that_was_cut_off_is_not_valid_toml() {
    let files = folder();
    let file = fusion(&files, "f.toml", "[experts]\nfirst = \"sft-");
    generate(&file).refuses(&["f.toml:4: not valid TOML"]);
    let empty = text(&files, "empty.toml", "");
    generate(&empty).refuses(&["empty.toml", "missing field `base`"]);
}

#[test]
fn an_expert_equal_to_its_base_has_no_direction() {
    let files = folder();
    let named = fusion(&files, "named.toml", &format!("experts = {{ same = \"{}\" }}\n", at("base/model")));
    generate(&named).refuses(&["expert `same` is the anchor", "no direction"]);
    // A copy is found out by its scores.
    let copy = copy_of("base/model");
    let copied = fusion(&files, "copied.toml", &format!("experts = {{ same = \"{}\" }}\n", path(&copy)));
    generate(&copied).refuses(&["expert `same` gives the scores of the small base", "no direction"]);
}

/// A copy of a model whose numbers are all NaN from here on.
fn poisoned(model: &str) -> TempDir {
    let copy = copy_of(model);
    let file = copy.path().join("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&file, bytes).unwrap();
    copy
}

#[test]
fn weights_that_are_not_numbers_are_counted_and_the_member_is_named() {
    let files = folder();
    let broken = poisoned("sft-a/model");
    let file = fusion(&files, "f.toml", &format!("experts = {{ broken = \"{}\" }}\n", path(&broken)));
    generate(&file).refuses(&["cannot open expert `broken`", "has 1 of", "NaN or infinite", path(&broken)]);
}

#[test]
fn more_experts_than_memory_are_refused_before_anything_is_loaded() {
    let files = folder();
    let large = copy_of("base/model");
    // Two tebibytes that take no room on the disk.
    let bytes: u64 = 1 << 41;
    let header = json!({ "model.embed_tokens.weight": {
        "dtype": "F32", "shape": [bytes / 4096, 1024], "data_offsets": [0, bytes],
    } })
    .to_string();
    let mut file = File::create(large.path().join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    if let Err(error) = file.set_len(8 + header.len() as u64 + bytes) {
        eprintln!("skipped: no sparse files here ({error})");
        return;
    }
    if cfg!(not(target_os = "linux")) {
        eprintln!("skipped: nothing is known of this system's memory");
        return;
    }
    let file = fusion(&files, "f.toml", &format!("experts = {{ huge = \"{}\" }}\n", path(&large)));
    generate(&file).refuses(&[
        "need 2.00 TiB of memory",
        "expert `huge` 2.00 TiB",
        "are available",
        "fewer experts",
    ]);
}

#[test]
fn members_that_cannot_be_members_are_refused_by_name() {
    let files = folder();
    let inner = fusion(&files, "inner.toml", &experts());
    let nested = fusion(&files, "nested.toml", &format!("experts = {{ inner = \"{inner}\" }}\n"));
    generate(&nested).refuses(&["expert `inner`", "is a fusion itself", "expected a model with weights"]);
    let reward =
        fusion(&files, "reward.toml", &format!("experts = {{ judge = \"{}\" }}\n", at("reward/model")));
    generate(&reward).refuses(&["cannot open expert `judge`"]);
    let other = copy_of("sft-a/model");
    change(&other.path().join("tokenizer.json"), |tokenizer| {
        let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        let size = vocabulary.len();
        vocabulary.insert("surplus".into(), json!(size));
    });
    let file = fusion(&files, "other.toml", &format!("experts = {{ other = \"{}\" }}\n", path(&other)));
    generate(&file).refuses(&[
        "expert `other`",
        "[75, 76]",
        "id 75 is nothing in one and \"surplus\" in the other",
    ]);
}

#[test]
fn adapters_go_over_a_member_and_not_over_a_fusion() {
    let files = folder();
    let (adapter, _) = adapters(&files);
    let file = fusion(&files, "f.toml", &experts());
    align(&["generate", "--model", &file, "--prompt", "a", "--adapter", &adapter])
        .refuses(&["is a fusion", "name them in the file"]);
    let wrong = fusion(
        &files,
        "wrong.toml",
        &format!("experts = {{ a = {{ adapter = \"{}\" }} }}\n", at("sft-a/model")),
    );
    generate(&wrong).refuses(&[
        "cannot open expert `a`",
        "cannot load the adapters in",
        "adapter_config.json",
    ]);
}

#[test]
fn a_row_longer_than_the_shortest_context_is_measured() {
    let files = folder();
    let file = fusion(&files, "f.toml", &experts());
    let long = "please ".repeat(100);
    align(&["generate", "--model", &file, "--prompt", &long]).refuses(&["has 100 tokens", "96"]);
    align(&["fuse", "explain", &file, "--prompt", "please", "--completion", &long, "--out", "x"])
        .refuses(&["row 1 is longer than the fusion's context of 96 tokens"]);
    assert!(!std::path::Path::new("x").exists());
}
