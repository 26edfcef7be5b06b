//! Adapters as ingredients: what PEFT merges is what we merge, products are averaged and factors are not.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use align_soup::merge::{MergeConfig, MergeOptions, ModelPath, merge_folders};
use align_soup::{
    SoupError, SoupOptions, SoupReport, Source, Weights, checkpoint_id, soup_adapters, soup_folders,
};
use common::{Tensors, assert_close, checkpoint, message, raw, read, read_json, tensors, values, write_json};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/adapters").join(name)
}

/// Writes an adapter of rank-`r` factors `(module, A, B)` in f32.
fn adapter(root: &Path, name: &str, config: Value, list: &[(&str, common::Raw)]) -> PathBuf {
    let path = root.join(name);
    fs::create_dir(&path).unwrap();
    write_json(&path.join("adapter_config.json"), &config);
    let list = tensors(list);
    let views = list.iter().map(|(name, raw)| {
        (
            format!("base_model.model.{name}"),
            TensorView::new(raw.dtype, raw.shape.clone(), &raw.bytes).unwrap(),
        )
    });
    safetensors::serialize_to_file(views, None, &path.join("adapter_model.safetensors")).unwrap();
    path
}

fn plain(rank: usize, alpha: f64) -> Value {
    json!({ "peft_type": "LORA", "r": rank, "lora_alpha": alpha, "use_rslora": false, "fan_in_fan_out": false, "bias": "none" })
}

fn f32s(values: &[f64], shape: &[usize]) -> common::Raw {
    raw(values, shape, Dtype::F32)
}

fn soup(sources: &[Source], weights: &[f64], out: &Path) -> Result<SoupReport, SoupError> {
    soup_folders(sources, &Weights::new(weights).unwrap(), &SoupOptions::default(), out)
}

/// Numbers of both signs without a pattern, a pure function of their place.
fn numbers(count: usize, salt: u64) -> Vec<f64> {
    let number = |i: usize| {
        let mixed = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(salt * 0x1234_5677) >> 40;
        f64::from((mixed as f64 / f64::from(1 << 23) - 1.0) as f32)
    };
    (0..count).map(number).collect()
}

#[test]
fn merged_tensors_are_those_of_peft() {
    let cases = [
        ("llama", "plain", 0.0),
        ("llama", "patterns", 0.0),
        ("llama", "whole", 0.0),
        ("gpt2", "plain", 0.0),
        // PEFT adds to sixteen bits in sixteen bits; we round a wider sum: one unit in the last place, 2⁻⁷ of the value.
        ("llama-bf16", "plain", 1.0 / 128.0),
    ];
    for (family, name, relative) in cases {
        let root = tempdir().unwrap();
        let folder = fixture(family);
        let out = root.path().join("merged");
        let source = Source::adapted(folder.join("base"), folder.join(name));
        soup(&[source], &[1.0], &out).unwrap();
        let bytes = fs::read(folder.join(format!("{name}.merged.safetensors"))).unwrap();
        let expected = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let found = read(&out);
        assert_eq!(found.len(), expected.len(), "{family}/{name}");
        let base = read(&folder.join("base"));
        let mut changed = 0;
        for (tensor, ours) in &found {
            let view = expected.tensor(tensor).unwrap();
            let theirs = common::Raw {
                dtype: view.dtype(),
                shape: view.shape().to_vec(),
                bytes: view.data().to_vec(),
            };
            assert_eq!((ours.dtype, &ours.shape), (theirs.dtype, &theirs.shape), "{family}/{name}: {tensor}");
            changed += usize::from(theirs.bytes != base[tensor].bytes);
            for (a, b) in values(ours).iter().zip(values(&theirs)) {
                // PEFT's product of rank 4 at most and its sum are in f32: six roundings of terms below 4.
                let tolerance = 6.0 * 2f64.powi(-24) * 4.0 + relative * b.abs();
                assert!((a - b).abs() <= tolerance, "{family}/{name}: {tensor}: {a} against {b}");
            }
        }
        assert!(changed >= 2, "{family}/{name} changes something");
    }
}

#[test]
fn whole_tensors_take_the_place_of_the_base_s_bit_for_bit() {
    let root = tempdir().unwrap();
    let folder = fixture("llama");
    let out = root.path().join("merged");
    soup(&[Source::adapted(folder.join("base"), folder.join("whole"))], &[1.0], &out).unwrap();
    let bytes = fs::read(folder.join("whole/adapter_model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let found = read(&out);
    assert_eq!(found["lm_head.weight"].bytes, file.tensor("base_model.model.lm_head.weight").unwrap().data());
}

#[test]
fn a_whole_tensor_is_written_in_the_type_of_the_base() {
    let root = tempdir().unwrap();
    let base = checkpoint(root.path(), "base", &tensors(&[("w.weight", raw(&[0.0; 2], &[2], Dtype::BF16))]));
    let list = [("w.weight", f32s(&[1.5, 1.0 + 2f64.powi(-10)], &[2]))];
    let adapter = adapter(root.path(), "a", plain(1, 1.0), &list);
    let out = root.path().join("out");
    soup(&[Source::adapted(base, adapter)], &[1.0], &out).unwrap();
    let found = &read(&out)["w.weight"];
    assert_eq!((found.dtype, values(found)), (Dtype::BF16, vec![1.5, 1.0]));
}

#[test]
fn embeddings_without_a_head_beside_them_count_as_tied() {
    // transformers leaves `tie_word_embeddings` out where it is the family's default.
    let with = |head: Option<(&str, common::Raw)>| {
        let root = tempdir().unwrap();
        let table = || f32s(&[1.0; 6], &[3, 2]);
        let all: Vec<_> = [("transformer.wte.weight", table())].into_iter().chain(head).collect();
        let base = checkpoint(root.path(), "base", &tensors(&all));
        let adapter = adapter(root.path(), "a", plain(1, 1.0), &[("transformer.wte.weight", table())]);
        soup(&[Source::adapted(base, adapter)], &[1.0], &root.path().join("out"))
    };
    assert!(message(&with(None).unwrap_err()).contains("ties to its other embedding"));
    with(Some(("lm_head.weight", f32s(&[1.0; 6], &[3, 2])))).unwrap();
}

/// A base with a 2×2 weight of zeros, and the two adapters of the specification: B₁A₁ and B₂A₂ have one 1 each.
fn unit_adapters(root: &TempDir) -> (PathBuf, [PathBuf; 2]) {
    let root = root.path();
    let base = checkpoint(root, "base", &tensors(&[("w.weight", f32s(&[0.0; 4], &[2, 2]))]));
    let one = [[1.0, 0.0], [0.0, 1.0]];
    let [a, b] = [0, 1].map(|k| {
        let factors =
            [("w.lora_A.weight", f32s(&one[k], &[1, 2])), ("w.lora_B.weight", f32s(&one[k], &[2, 1]))];
        adapter(root, ["a", "b"][k], plain(1, 1.0), &factors)
    });
    (base, [a, b])
}

#[test]
fn a_soup_of_adapters_is_the_mean_of_their_products() {
    // The specification's case: [[½, 0], [0, ½]], where the product of the mean factors is ¼ everywhere.
    let root = tempdir().unwrap();
    let (base, adapters) = unit_adapters(&root);
    let sources = adapters.map(|adapter| Source::adapted(&base, adapter));
    let out = root.path().join("soup");
    let report = soup(&sources, &[0.5, 0.5], &out).unwrap();
    assert_eq!(values(&read(&out)["w.weight"]), [0.5, 0.0, 0.0, 0.5]);
    let id = checkpoint_id(&base).unwrap();
    assert_eq!(report.ancestor.as_ref(), Some(&id), "the base is the ancestor, measured");
    let written = &read_json(&out.join("align.json"))["soup"]["ingredients"];
    assert_eq!((&written[0]["name"], &written[1]["adapter"]), (&json!("base"), &json!("b")));
}

#[test]
fn as_one_adapter_the_soup_has_the_same_product() {
    let root = tempdir().unwrap();
    let (base, adapters) = unit_adapters(&root);
    let joined = root.path().join("joined");
    let weights = Weights::new(&[0.25, 0.75]).unwrap();
    let made = soup_adapters(&adapters, &weights, &SoupOptions::default(), &joined).unwrap();
    assert_eq!((made.modules, made.rank), (1, 2));
    let found = read(&joined);
    assert_eq!(values(&found["base_model.model.w.lora_A.weight"]), [1.0, 0.0, 0.0, 1.0]);
    assert_eq!(values(&found["base_model.model.w.lora_B.weight"]), [0.25, 0.0, 0.0, 0.75]);
    let out = root.path().join("merged");
    soup(&[Source::adapted(&base, &joined)], &[1.0], &out).unwrap();
    assert_eq!(values(&read(&out)["w.weight"]), [0.25, 0.0, 0.0, 0.75]);
}

#[test]
fn adapters_of_different_ranks_and_modules_join_exactly() {
    // PEFT's own adapters: ranks 2 to 4, scales by pattern, modules that only one of them changes.
    let root = tempdir().unwrap();
    let folder = fixture("llama");
    let adapters = [folder.join("plain"), folder.join("patterns")];
    let weights = [0.3, 0.7];
    let joined = root.path().join("joined");
    let checked = Weights::new(&weights).unwrap();
    let made = soup_adapters(&adapters, &checked, &SoupOptions::default(), &joined).unwrap();
    // q_proj of layer 1 has 2 + 4; the two projections of plain that patterns has too are among its fourteen.
    assert_eq!((made.modules, made.rank), (14, 6));
    let config = read_json(&joined.join("adapter_config.json"));
    assert_eq!((&config["r"], &config["lora_alpha"]), (&json!(6), &json!(6)));
    assert_eq!(config["rank_pattern"]["model.layers.0.mlp.down_proj"], 3);

    let sources = adapters.map(|adapter| Source::adapted(folder.join("base"), adapter));
    let [dense, merged] = ["dense", "merged"].map(|name| root.path().join(name));
    soup(&sources, &weights, &dense).unwrap();
    soup(&[Source::adapted(folder.join("base"), &joined)], &[1.0], &merged).unwrap();
    let (dense, merged) = (read(&dense), read(&merged));
    for (name, tensor) in &dense {
        // Both sum in f64; B is rounded to f32 in the adapter: 2⁻²⁴ of terms below 4, and the result's own rounding.
        assert_close(&values(&merged[name]), &values(tensor), 2f64.powi(-20));
    }
}

#[test]
fn blocks_of_a_large_tensor_agree_with_the_product_as_a_whole() {
    // 300 × 257 values are two blocks that meet within a row.
    let (rows, columns, rank) = (300, 257, 3);
    let root = tempdir().unwrap();
    let (w, a, b) = (numbers(rows * columns, 1), numbers(rank * columns, 2), numbers(rows * rank, 3));
    let base = checkpoint(root.path(), "base", &tensors(&[("w.weight", f32s(&w, &[rows, columns]))]));
    let factors =
        [("w.lora_A.weight", f32s(&a, &[rank, columns])), ("w.lora_B.weight", f32s(&b, &[rows, rank]))];
    let update = adapter(root.path(), "a", plain(rank, 6.0), &factors);
    let out = root.path().join("merged");
    soup(&[Source::adapted(base, update)], &[1.0], &out).unwrap();
    let expected: Vec<f64> = (0..rows * columns)
        .map(|at| {
            let (row, column) = (at / columns, at % columns);
            let sum: f64 = (0..rank).map(|k| 2.0 * b[row * rank + k] * a[k * columns + column]).sum();
            f64::from((w[at] + sum) as f32)
        })
        .collect();
    assert_eq!(values(&read(&out)["w.weight"]), expected); // the same sums in the same order
}

#[test]
fn a_merge_takes_a_model_with_its_adapter_as_the_merged_model() {
    let root = tempdir().unwrap();
    // More than a chunk, so that the product is made anew in every pass.
    let (rows, columns) = (260, 300);
    let weight = f32s(&numbers(rows * columns, 1), &[rows, columns]);
    let base = checkpoint(root.path(), "base", &tensors(&[("w.weight", weight)]));
    let list = [
        ("w.lora_A.weight", f32s(&numbers(2 * columns, 2), &[2, columns])),
        ("w.lora_B.weight", f32s(&numbers(2 * rows, 3), &[rows, 2])),
    ];
    let adapter = adapter(root.path(), "adapter", plain(2, 1.0), &list);
    soup(&[Source::adapted(base, adapter)], &[1.0], &root.path().join("whole")).unwrap();
    let resolve = |model: &ModelPath| Ok::<PathBuf, _>(root.path().join(&model.path));
    let merged = |model: &str, method: &str, parameters: &str| {
        let text = format!(
            "models: [{{ model: {model}, parameters: {{ {parameters} }} }}]\nmerge_method: {method}\nbase_model: base\n"
        );
        let out = root.path().join(format!("{model}-{method}"));
        let config = MergeConfig::from_yaml("m.yml", &text).unwrap();
        merge_folders(&config, &resolve, &MergeOptions::default(), &out).unwrap();
        read(&out)["w.weight"].bytes.clone()
    };
    for (method, parameters) in [("ties", "weight: 1, density: 0.3"), ("task_arithmetic", "weight: 0.5")] {
        let found = merged("base+adapter", method, parameters);
        assert!(found == merged("whole", method, parameters), "{method}");
        assert!(found != read(&root.path().join("base"))["w.weight"].bytes, "{method} changes something");
    }
}

#[test]
fn over_sixteen_bits_a_soup_of_adapters_rounds_once() {
    // 1 + 2⁻⁹ and 1 + 3·2⁻⁹ would round to 1 and 1 + 2⁻⁷ in bf16, whose mean 1 + 2⁻⁸ rounds to 1. The exact mean is
    // 1 + 2⁻⁸, and a little more in the second adapter makes it round up.
    let root = tempdir().unwrap();
    let base = checkpoint(root.path(), "base", &tensors(&[("w.weight", raw(&[1.0], &[1, 1], Dtype::BF16))]));
    let sources: Vec<Source> = [("a", 2f64.powi(-9)), ("b", 3.0 * 2f64.powi(-9) + 2f64.powi(-16))]
        .map(|(name, update)| {
            let factors =
                [("w.lora_A.weight", f32s(&[1.0], &[1, 1])), ("w.lora_B.weight", f32s(&[update], &[1, 1]))];
            Source::adapted(&base, adapter(root.path(), name, plain(1, 1.0), &factors))
        })
        .into();
    let out = root.path().join("soup");
    soup(&sources, &[0.5, 0.5], &out).unwrap();
    let found = &read(&out)["w.weight"];
    assert_eq!((found.dtype, values(found)), (Dtype::BF16, vec![1.0 + 2f64.powi(-7)]));
}

#[test]
fn adapters_of_different_bases_are_refused_unless_allowed() {
    let root = tempdir().unwrap();
    let (base, adapters) = unit_adapters(&root);
    let sources = || adapters.clone().map(|adapter| Source::adapted(&base, adapter));
    let named = |adapter: &Path, name: &str| {
        let mut config = plain(1, 1.0);
        config["base_model_name_or_path"] = json!(name);
        write_json(&adapter.join("adapter_config.json"), &config);
    };
    named(&adapters[0], "org/one");
    named(&adapters[1], "org/other");
    let out = root.path().join("soup");
    let expected = "was trained on the base org/other, expected org/one";
    let dense = soup(&sources(), &[0.5, 0.5], &out).unwrap_err();
    assert!(message(&dense).contains(expected), "{dense}");
    let half = Weights::uniform(2).unwrap();
    let joined = soup_adapters(&adapters, &half, &SoupOptions::default(), &out).unwrap_err();
    assert!(message(&joined).contains(expected), "{joined}");
    let allowing = SoupOptions { allow_different_ancestors: true, ..SoupOptions::default() };
    soup_folders(&sources(), &half, &allowing, &out).unwrap();

    // What the adapter records of its base's weights is compared with the weights.
    named(&adapters[1], "org/one");
    write_json(&adapters[1].join("align.json"), &json!({ "ancestor": "0".repeat(64) }));
    let error = soup(&sources(), &[0.5, 0.5], &root.path().join("again")).unwrap_err();
    assert!(message(&error).contains(&format!("expected {}", checkpoint_id(&base).unwrap())), "{error}");
    write_json(&adapters[1].join("align.json"), &json!({ "ancestor": checkpoint_id(&base).unwrap() }));
    soup(&sources(), &[0.5, 0.5], &root.path().join("again")).unwrap();
}

#[test]
fn what_is_not_plain_lora_is_refused_by_name() {
    let refused = |change: &dyn Fn(&mut Value)| {
        let root = tempdir().unwrap();
        let (base, [first, _]) = unit_adapters(&root);
        let mut config = plain(1, 1.0);
        change(&mut config);
        write_json(&first.join("adapter_config.json"), &config);
        message(&soup(&[Source::adapted(base, first)], &[1.0], &root.path().join("out")).unwrap_err())
    };
    let cases: [(&str, Value); 10] = [
        ("peft_type", json!("IA3")),
        ("use_dora", json!(true)),
        ("lora_bias", json!(true)),
        ("use_qalora", json!(true)),
        ("layer_replication", json!([[0, 1]])),
        ("target_parameters", json!(["experts.gate_up_proj"])),
        ("trainable_token_indices", json!([3])),
        ("init_lora_weights", json!("pissa")),
        ("bias", json!("all")),
        ("alpha_pattern", json!({ "layers.[01].up_proj": 3 })),
    ];
    for (key, value) in cases {
        let error = refused(&|config| config[key] = value.clone());
        assert!(error.contains(&format!("`{key}` = ")), "{key}: {error}");
        assert!(error.contains("not plain LoRA"), "{key}: {error}");
    }
    let error = refused(&|config| config["lora_alpha"] = json!("large"));
    assert!(error.ends_with("has `lora_alpha` = \"large\", expected a finite number"), "{error}");
}

/// The message of a soup of one adapter with these tensors over a base with `w.weight` `[2, 2]` and a tied embedding.
fn refusal(list: &[(&str, common::Raw)]) -> String {
    let root = tempdir().unwrap();
    let weights: Tensors = tensors(&[
        ("model.embed_tokens.weight", f32s(&[0.0; 6], &[3, 2])),
        ("w.weight", f32s(&[0.0; 4], &[2, 2])),
    ]);
    let base = checkpoint(root.path(), "base", &weights);
    let mut config = common::config();
    config["tie_word_embeddings"] = json!(true);
    write_json(&base.join("config.json"), &config);
    let adapter = adapter(root.path(), "a", plain(1, 1.0), list);
    let out = root.path().join("out");
    let error = message(&soup(&[Source::adapted(base, adapter)], &[1.0], &out).unwrap_err());
    assert!(!out.exists());
    error.replace(&format!("{}/", root.path().display()), "")
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let a = || f32s(&[1.0, 2.0], &[1, 2]);
    let b = || f32s(&[1.0, 2.0], &[2, 1]);
    let cases: [(&[(&str, common::Raw)], &str); 11] = [
        (
            &[
                ("w.lora_A.weight", a()),
                ("w.lora_B.weight", b()),
                ("x.w.lora_A.weight", a()),
                ("x.w.lora_B.weight", b()),
            ],
            "a holds the tensor `base_model.model.x.w.lora_A.weight`, which is not merged: another update has the same tensor of \
             the base",
        ),
        (&[], "a holds no tensor; an adapter that changes nothing is not an ingredient"),
        (
            &[("w.lora_A.weight", a())],
            "a has no tensor `base_model.model.w.lora_B.weight`, the other factor of `base_model.model.w.lora_A.weight`",
        ),
        (
            &[("w.lora_B.weight", b())],
            "a has no tensor `base_model.model.w.lora_A.weight`, the other factor of `base_model.model.w.lora_B.weight`",
        ),
        (
            &[("v.lora_A.weight", a()), ("v.lora_B.weight", b())],
            "a changes `v.weight`, and the base base has no tensor of that name; is it the base the adapter was trained on?",
        ),
        (
            &[("w.lora_A.weight", f32s(&[1.0; 3], &[1, 3])), ("w.lora_B.weight", b())],
            "`base_model.model.w.lora_A.weight` of a has shape [1, 3], expected [1, 2] over the base base",
        ),
        (
            &[("w.lora_A.weight", a()), ("w.lora_B.weight", f32s(&[1.0; 4], &[2, 2]))],
            "a holds the tensor `base_model.model.w.lora_B.weight`, which is not merged: its rank is not that of its other \
             factor, or is 0",
        ),
        (
            &[("model.embed_tokens.weight", f32s(&[1.0; 6], &[3, 2]))],
            "a changes `model.embed_tokens.weight`, which the base base ties to its other embedding; untie them in a dense \
             model first",
        ),
        (
            &[("model.embed_tokens.lora_embedding_A", a())],
            "a holds the tensor `base_model.model.model.embed_tokens.lora_embedding_A`, which is not merged: low-rank updates \
             of embeddings are not supported",
        ),
        (
            &[("w.lora_magnitude_vector", f32s(&[1.0; 2], &[2]))],
            "a holds the tensor `base_model.model.w.lora_magnitude_vector`, which is not merged: DoRA is not supported",
        ),
        (
            &[("w.lora_A.weight", f32s(&[f64::NAN, 1.0], &[1, 2])), ("w.lora_B.weight", b())],
            "parameter `w.weight` of ingredients[0] (a) holds 2 values that are not finite; averaging would hide a broken model",
        ),
    ];
    for (list, expected) in cases {
        assert_eq!(refusal(list), expected);
    }
}

#[test]
fn missing_and_damaged_files_are_named() {
    let root = tempdir().unwrap();
    let (base, [first, second]) = unit_adapters(&root);
    let made = |adapter: &Path| {
        message(&soup(&[Source::adapted(&base, adapter)], &[1.0], &root.path().join("out")).unwrap_err())
    };
    let weights = first.join("adapter_model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 3]).unwrap();
    assert!(made(&first).contains("is truncated or damaged"), "{}", made(&first));
    fs::rename(&weights, first.join("adapter_model.bin")).unwrap();
    assert!(made(&first).contains("has no adapter_model.safetensors"), "{}", made(&first));
    fs::remove_file(first.join("adapter_config.json")).unwrap();
    assert!(made(&first).contains("has no adapter_config.json"), "{}", made(&first));
    // An adapter alone is no model, and neither it nor its base is written over.
    let alone = soup_folders(
        &[&second],
        &Weights::new(&[1.0]).unwrap(),
        &SoupOptions::default(),
        root.path().join("out"),
    );
    assert!(message(&alone.unwrap_err()).contains("give the adapter together with its base"));
    for out in [&base, &second] {
        let error = soup(&[Source::adapted(&base, &second)], &[1.0], out).unwrap_err();
        assert!(matches!(error, SoupError::OutputIsIngredient { .. }), "{error}");
    }
}
