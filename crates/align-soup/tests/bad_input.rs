//! Every refusal, by its message: it names the thing, what was expected and what was found.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use align_soup::{Ema, HealthGate, SoupError, SoupOptions, Weights, average, lerp, soup_folders, uniform};
use burn::module::{Param, ParamId};
use burn::tensor::{DType, Tensor};
use common::*;
use proptest::prelude::*;
use safetensors::Dtype;
use serde_json::json;

fn weights_message(weights: &[f64]) -> String {
    let ab = [net([1.0; 4], &[1.0]), net([2.0; 4], &[2.0])];
    average(&ab, weights).unwrap_err().to_string()
}

#[test]
fn weights_that_are_none() {
    let prefix = "invalid soup weights: ";
    for (weights, expected) in [
        (&[][..], "expected at least one weight, found none"),
        (&[0.5, f64::NAN], "weights[1] must be finite, found NaN"),
        (
            &[1.5, -0.5],
            "weights[1] must not be negative, found -0.5; extrapolation is `Weights::extrapolating`",
        ),
        (
            &[0.1, 1.0],
            "weights must sum to 1 within 1e-6, found a sum of 1.1; `Weights::normalized` divides by the sum",
        ),
        (&[1.0], "expected 2 weights, one for each ingredient, found 1"),
        (&[0.5, 0.25, 0.25], "expected 2 weights, one for each ingredient, found 3"),
    ] {
        assert_eq!(weights_message(weights), format!("{prefix}{expected}"));
    }
    let zero = Weights::normalized(&[0.0, 0.0]).unwrap_err().to_string();
    assert_eq!(zero, "weights that are normalised must have a positive, finite sum, found 0");
    let recipe = serde_json::from_str::<Weights>("[0.1, 1.0]").unwrap_err().to_string();
    assert!(recipe.contains("found a sum of 1.1"), "{recipe}");
    let none = uniform::<Param<Tensor<1>>>(&[]).unwrap_err().to_string();
    assert_eq!(none, "a soup needs at least one ingredient, found none");
}

#[test]
fn numbers_outside_their_range() {
    let a = net([1.0; 4], &[1.0]);
    assert_eq!(
        lerp(&a, &a, 1.5).unwrap_err().to_string(),
        "invalid soup weights: alpha must be in [0, 1], found 1.5; extrapolation is `average` with \
         `Weights::extrapolating`"
    );
    assert!(lerp(&a, &a, f64::NAN).is_err());
    assert_eq!(Ema::new(&a, 1.0).unwrap_err().to_string(), "decay must be in [0, 1), found 1");
    assert_eq!(
        HealthGate::new(-0.1).unwrap_err().to_string(),
        "tolerance must be finite and not negative, found -0.1"
    );
}

#[test]
fn an_unhealthy_soup_shows_its_figures() {
    let error = HealthGate::default().judge(2.6, &[1.95, 1.97]).unwrap_err().to_string();
    assert_eq!(
        error,
        "the soup is unhealthy: negative log-likelihood 2.6000 nats per token, ingredients 1.9500, 1.9700: +0.6300 \
         against the worst, allowed +0.0500; the ingredients are not linearly connected"
    );
    for (soup, ingredients) in [(f64::NAN, [1.0, 2.0]), (1.0, [f64::NAN, 2.0]), (1.0, [1.0, f64::INFINITY])] {
        assert!(HealthGate::default().judge(soup, &ingredients).is_err(), "{soup} {ingredients:?}");
    }
    assert!(matches!(HealthGate::default().judge(1.0, &[]), Err(SoupError::NoIngredients)));
}

#[test]
fn modules_that_do_not_match() {
    let a = net([1.0; 4], &[1.0]);
    let message = |b: Net| uniform(&[a.clone(), b]).unwrap_err().to_string();

    let mut missing = a.clone();
    missing.inner[0].bias = None;
    assert_eq!(
        message(missing.clone()),
        "parameter `inner.0.bias` is in ingredients[0] and missing in ingredients[1]; a soup needs models of one \
         architecture"
    );
    let surplus = uniform(&[missing, a.clone()]).unwrap_err().to_string();
    assert!(surplus.contains("is in ingredients[1] and missing in ingredients[0]"), "{surplus}");

    assert_eq!(
        message(net([1.0; 4], &[1.0, 2.0])),
        "parameter `inner.0.bias` of ingredients[1] has shape [2], expected [1] as in the first ingredient"
    );

    let mut constant = a.clone();
    constant.table = Param::initialized(ParamId::new(), Tensor::from_data([1, 2, 4], &device()));
    assert_eq!(
        message(constant),
        "parameter `table` is not a float and differs between the first ingredient and ingredients[1]; such values \
         must be equal"
    );

    let broken = net([1.0, f64::NAN, f64::INFINITY, 1.0], &[1.0]);
    assert_eq!(
        message(broken.clone()),
        "parameter `weight` of ingredients[1] holds 2 values that are not finite; averaging would hide a broken model"
    );
    // Also where its weight is zero.
    assert!(matches!(
        average(&[a.clone(), broken.clone()], &[1.0, 0.0]),
        Err(SoupError::NonFiniteParameter { count: 2, .. })
    ));
    assert!(matches!(Ema::new(&broken, 0.5), Err(SoupError::NonFiniteParameter { count: 2, .. })));

    let mut ema = Ema::new(&a, 0.5).unwrap();
    let error = ema.update(&net([1.0; 4], &[1.0, 2.0])).unwrap_err();
    assert!(matches!(error, SoupError::ShapeMismatch { .. }), "{error}");
}

#[test]
fn a_mean_that_overflows_its_type() {
    let [a, b] = [6e4, 6e4].map(|value| typed(&[value], [1], DType::F16));
    let error = average(&[a, b], Weights::extrapolating(&[3.0, -2.0]).unwrap());
    assert!(error.is_ok(), "3·6e4 − 2·6e4 fits: sums are in f64");
    let [a, b] = [6e4, 0.0].map(|value| typed(&[value], [1], DType::F16));
    let error = average(&[a, b], Weights::extrapolating(&[2.0, -1.0]).unwrap()).unwrap_err().to_string();
    assert!(error.ends_with("overflow float16; choose a type with a larger range"), "{error}");
}

/// Two good checkpoints, the second changed by `spoil`, and what came of their soup.
struct Kitchen {
    root: tempfile::TempDir,
    a: PathBuf,
    b: PathBuf,
}

fn good() -> Tensors {
    tensors(&[
        ("model.embed_tokens.weight", raw(&[0.5; 6], &[3, 2], Dtype::F32)),
        ("model.norm.weight", raw(&[1.0, 2.0], &[2], Dtype::F32)),
    ])
}

impl Kitchen {
    fn new() -> Self {
        Self::with(&good())
    }

    fn with(second: &Tensors) -> Self {
        let root = tempfile::tempdir().unwrap();
        let a = checkpoint(root.path(), "a", &good());
        let b = checkpoint(root.path(), "b", second);
        Self { root, a, b }
    }

    fn out(&self) -> PathBuf {
        self.root.path().join("out")
    }

    fn cook(&self, options: &SoupOptions) -> Result<align_soup::SoupReport, SoupError> {
        soup_folders(&[&self.a, &self.b], &Weights::uniform(2).unwrap(), options, self.out())
    }

    /// The message of a soup that must fail and leave nothing, with the folder's path left out.
    fn refusal(&self) -> String {
        let before = names(self.root.path());
        let error = self.cook(&SoupOptions::default()).expect_err("this soup must be refused");
        assert_eq!(names(self.root.path()), before, "nothing is left behind");
        message(&error).replace(&format!("{}/", self.root.path().display()), "")
    }
}

#[test]
fn folders_that_are_no_checkpoints() {
    let kitchen = Kitchen::new();
    fs::remove_file(kitchen.b.join("model.safetensors")).unwrap();
    assert_eq!(kitchen.refusal(), "b has neither model.safetensors nor model.safetensors.index.json");
    fs::remove_file(kitchen.b.join("config.json")).unwrap();
    assert_eq!(kitchen.refusal(), "b has no config.json; expected a checkpoint folder");
    fs::write(kitchen.b.join("config.json"), "{").unwrap();
    assert!(kitchen.refusal().starts_with("cannot parse b/config.json: EOF"), "{}", kitchen.refusal());
    fs::remove_dir_all(&kitchen.b).unwrap();
    assert!(kitchen.refusal().starts_with("cannot read b: "), "{}", kitchen.refusal());

    let kitchen = Kitchen::new();
    write_json(&kitchen.b.join("adapter_config.json"), &json!({ "r": 8 }));
    assert_eq!(
        kitchen.refusal(),
        "ingredients[1] (b) holds LoRA factors (adapter_config.json); the mean of factors is not the mean of \
         updates, give the adapter together with its base"
    );
}

#[test]
fn weights_files_that_lie_about_themselves() {
    let kitchen = Kitchen::new();
    let file = kitchen.b.join("model.safetensors");
    let bytes = fs::read(&file).unwrap();

    fs::write(&file, &bytes[..bytes.len() - 3]).unwrap();
    assert_eq!(
        kitchen.refusal(),
        format!(
            "b/model.safetensors is truncated or damaged: its header describes {} bytes, the file has {}",
            bytes.len(),
            bytes.len() - 3
        )
    );
    fs::write(&file, &bytes[..5]).unwrap();
    assert_eq!(
        kitchen.refusal(),
        "b/model.safetensors is truncated or damaged: its header describes 8 bytes, the file has 5"
    );
    let mut long = bytes.clone();
    long[..8].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
    fs::write(&file, &long).unwrap();
    assert_eq!(
        kitchen.refusal(),
        format!(
            "b/model.safetensors announces a header of 9223372036854775807 bytes, the file has {} and a header may \
             have 100000000",
            bytes.len()
        )
    );
    // A shape that its offsets contradict: the same length, other digits.
    let text = String::from_utf8_lossy(&bytes).replace("[3,2]", "[9,2]");
    let mut wrong = bytes.clone();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    wrong[8..header].copy_from_slice(&text.as_bytes()[text.find('{').unwrap()..][..header - 8]);
    fs::write(&file, &wrong).unwrap();
    assert!(kitchen.refusal().starts_with("b/model.safetensors has a broken safetensors header: "));
}

#[test]
fn an_index_that_leads_astray() {
    let kitchen = Kitchen::new();
    fs::remove_dir_all(&kitchen.b).unwrap();
    let mut norm = good();
    let embed = norm.remove_entry("model.embed_tokens.weight").unwrap();
    let b = sharded_checkpoint(kitchen.root.path(), "b", &[Tensors::from([embed]), norm]);
    kitchen.cook(&SoupOptions { overwrite: true, ..SoupOptions::default() }).unwrap();
    fs::remove_dir_all(kitchen.out()).unwrap();
    let index = b.join("model.safetensors.index.json");
    let with = |shard: &str| {
        write_json(
            &index,
            &json!({ "weight_map": {
                "model.embed_tokens.weight": shard, "model.norm.weight": "model-00002-of-00002.safetensors"
            } }),
        );
        kitchen.refusal()
    };
    for outside in ["../a/model.safetensors", "/etc/passwd", "..", "sub/x.safetensors", "c:x", "..\\x"] {
        let expected = format!(
            "b/model.safetensors.index.json names the shard `{outside}`, expected the name of a file in the same folder"
        );
        assert_eq!(with(outside), expected);
    }
    assert_eq!(
        with("gone.safetensors"),
        "b/model.safetensors.index.json names the shard `gone.safetensors`, which is not in the folder"
    );
    assert_eq!(
        with("model-00002-of-00002.safetensors"),
        "b/model.safetensors.index.json and the shard `model-00002-of-00002.safetensors` disagree about the tensor \
         `model.embed_tokens.weight`: it must be named by the index exactly where it lies"
    );
    write_json(&index, &json!({ "weights": {} }));
    assert!(kitchen.refusal().contains("missing field `weight_map`"), "{}", kitchen.refusal());
}

#[test]
fn tensors_that_do_not_match() {
    let refusal = |change: &dyn Fn(&mut Tensors)| {
        let mut second = good();
        change(&mut second);
        Kitchen::with(&second).refusal()
    };
    let insert =
        |name: &'static str, raw: Raw| move |t: &mut Tensors| drop(t.insert(name.to_owned(), raw.clone()));

    assert_eq!(
        refusal(&|t| drop(t.remove("model.norm.weight"))),
        "parameter `model.norm.weight` is in ingredients[0] (a) and missing in ingredients[1] (b); a soup needs \
         models of one architecture"
    );
    assert_eq!(
        refusal(&insert("lm_head.weight", raw(&[0.0; 6], &[3, 2], Dtype::F32))),
        "parameter `lm_head.weight` is in ingredients[1] (b) and missing in ingredients[0] (a); a soup needs models \
         of one architecture"
    );
    assert_eq!(
        refusal(&insert("model.norm.weight", raw(&[1.0; 3], &[3], Dtype::F32))),
        "parameter `model.norm.weight` of ingredients[1] (b) has shape [3], expected [2] as in the first ingredient"
    );
    assert_eq!(
        refusal(&insert("model.embed_tokens.weight", raw(&[0.5; 8], &[4, 2], Dtype::F32))),
        "parameter `model.embed_tokens.weight` of ingredients[1] (b) has shape [4, 2], expected [3, 2] as in the \
         first ingredient; the vocabularies seem to differ, often by an added pad or special token: give every \
         ingredient the same tokenizer and the same number of embedding and output rows"
    );
    assert_eq!(
        refusal(&insert("model.norm.weight", raw(&[1.0, f64::NAN], &[2], Dtype::F32))),
        "parameter `model.norm.weight` of ingredients[1] (b) holds 1 values that are not finite; averaging would \
         hide a broken model"
    );
    let quantized = Raw { dtype: Dtype::F8_E4M3, shape: vec![2], bytes: vec![0; 2] };
    assert_eq!(
        refusal(&insert("model.norm.weight", quantized)),
        "parameter `model.norm.weight` of ingredients[1] (b) is quantised (F8_E4M3); dequantise it first"
    );
    let packed = Raw { dtype: Dtype::U8, shape: vec![2], bytes: vec![0; 2] };
    assert!(refusal(&insert("model.norm.weight", packed)).contains("is quantised (U8)"));
}

#[test]
fn integers_that_differ_and_types_that_do() {
    let positions = |values: &[f64], dtype| {
        let mut all = good();
        all.insert("positions".to_owned(), raw(values, &[2], dtype));
        all
    };
    let refusal = |second: &Tensors| {
        let kitchen = Kitchen::with(second);
        fs::remove_dir_all(&kitchen.a).unwrap();
        checkpoint(kitchen.root.path(), "a", &positions(&[0.0, 1.0], Dtype::I64));
        kitchen.refusal()
    };
    assert_eq!(
        refusal(&positions(&[0.0, 2.0], Dtype::I64)),
        "parameter `positions` is not a float and differs between the first ingredient and ingredients[1] (b); such \
         values must be equal"
    );
    assert_eq!(
        refusal(&positions(&[0.0, 1.0], Dtype::F64)),
        "parameter `positions` of ingredients[1] (b) has type F64, the first ingredient has I64; only floats are \
         averaged, with floats"
    );
}

#[test]
fn a_mean_that_does_not_fit_the_type_asked_for() {
    let mut second = good();
    second.insert("model.norm.weight".to_owned(), raw(&[1.0, 1e6], &[2], Dtype::F32));
    let kitchen = Kitchen::with(&second);
    let options = SoupOptions { dtype: Some("f16".parse().unwrap()), ..SoupOptions::default() };
    assert_eq!(
        kitchen.cook(&options).unwrap_err().to_string(),
        "1 values of the averaged parameter `model.norm.weight` overflow float16; choose a type with a larger range"
    );
    assert!(!kitchen.out().exists());
    assert_eq!(
        "float8".parse::<align_soup::FloatDtype>().unwrap_err().to_string(),
        "expected float64, float32, float16 or bfloat16 (f64, f32, f16, bf16), found `float8`"
    );
}

#[test]
fn configurations_that_differ() {
    let kitchen = Kitchen::new();
    let with = |key: &str, value: serde_json::Value| {
        let mut config = config();
        config[key] = value;
        write_json(&kitchen.b.join("config.json"), &config);
    };
    with("hidden_act", json!("gelu"));
    assert_eq!(
        kitchen.refusal(),
        "config.json of ingredients[1] (b) has hidden_act = \"gelu\", the first ingredient has null; models of \
         different configurations do not average (override with allow_different_configs)"
    );
    with("rope_parameters", json!({ "rope_theta": 500000.0, "rope_type": "default" }));
    assert!(kitchen.refusal().contains("has rope.rope_theta = 500000.0, the first ingredient has 10000.0"));
    let allow = SoupOptions { allow_different_configs: true, ..SoupOptions::default() };
    kitchen.cook(&allow).unwrap();
    fs::remove_dir_all(kitchen.out()).unwrap();
    with("quantization_config", json!({ "bits": 4 }));
    assert_eq!(
        kitchen.refusal(),
        "config.json of ingredients[1] (b) has a quantization_config; dequantise the checkpoint first"
    );
}

#[test]
fn configurations_that_only_look_different() {
    let kitchen = Kitchen::new();
    // The newer spelling of the same rotary settings, an integer for a float, and what training leaves behind.
    write_json(
        &kitchen.b.join("config.json"),
        &json!({
            "model_type": "llama", "hidden_size": 2.0, "vocab_size": 3, "torch_dtype": "bfloat16", "use_cache": false,
            "rope_parameters": { "rope_theta": 10000, "rope_type": "default" }, "transformers_version": "4.1.0",
            "attention_dropout": 0.1, "sliding_window": null, "_name_or_path": "somewhere"
        }),
    );
    kitchen.cook(&SoupOptions::default()).unwrap();
}

#[test]
fn tokenizers_that_differ() {
    let kitchen = Kitchen::new();
    let write = |folder: &Path, vocabulary: serde_json::Value, truncation: serde_json::Value| {
        let tokenizer = json!({ "truncation": truncation, "model": { "vocab": vocabulary } });
        write_json(&folder.join("tokenizer.json"), &tokenizer);
    };
    write(&kitchen.a, json!({ "a": 0, "b": 1 }), json!(null));
    write(&kitchen.b, json!({ "a": 1, "b": 0 }), json!(null));
    assert_eq!(
        kitchen.refusal(),
        "tokenizer.json of ingredients[1] (b) differs from the first ingredient's; rows of the embeddings would mean \
         different tokens (override with allow_different_tokenizers)"
    );
    kitchen.cook(&SoupOptions { allow_different_tokenizers: true, ..SoupOptions::default() }).unwrap();
    fs::remove_dir_all(kitchen.out()).unwrap();
    write(&kitchen.b, json!({ "a": 0, "b": 1 }), json!({ "max_length": 512 }));
    kitchen.cook(&SoupOptions::default()).unwrap();
    fs::remove_dir_all(kitchen.out()).unwrap();
    fs::remove_file(kitchen.b.join("tokenizer.json")).unwrap();
    let warnings = kitchen.cook(&SoupOptions::default()).unwrap().warnings;
    let text = warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(
        text.contains("tokenizer.json is in only one of the first ingredient and ingredients[1]"),
        "{text}"
    );
}

#[test]
fn ancestors_that_differ() {
    let kitchen = Kitchen::new();
    write_json(&kitchen.a.join("align.json"), &json!({ "ancestor": "aaaa" }));
    let report = kitchen.cook(&SoupOptions::default()).unwrap();
    assert_eq!(report.ancestor, None, "an ancestor that only one names is not the soup's");
    let text = report.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(
        text.contains("(`ancestor` in align.json); whether it shares one with the others is unknown"),
        "{text}"
    );
    fs::remove_dir_all(kitchen.out()).unwrap();

    write_json(&kitchen.b.join("ORIGIN.json"), &json!({ "ancestor": "bbbb", "tokens": 3 }));
    assert_eq!(
        kitchen.refusal(),
        "ingredients[1] (b) descends from bbbb, the first ingredient that names an ancestor from aaaa; models of \
         different ancestors do not average (override with allow_different_ancestors)"
    );
    let allow = SoupOptions { allow_different_ancestors: true, ..SoupOptions::default() };
    assert_eq!(kitchen.cook(&allow).unwrap().ancestor, None);
}

#[test]
fn outputs_that_are_in_the_way() {
    let kitchen = Kitchen::new();
    let overwrite = SoupOptions { overwrite: true, ..SoupOptions::default() };
    fs::create_dir(kitchen.out()).unwrap();
    kitchen.cook(&SoupOptions::default()).expect("an empty folder is taken over");
    assert_eq!(kitchen.refusal(), "out exists; choose another folder or ask to overwrite");
    fs::remove_file(kitchen.out().join("config.json")).unwrap();
    let error = kitchen.cook(&overwrite).unwrap_err().to_string();
    assert!(error.ends_with("is not a checkpoint folder (no config.json); it is not overwritten"), "{error}");
    let weights = Weights::uniform(2).unwrap();
    let error =
        soup_folders(&[&kitchen.a, &kitchen.b], &weights, &overwrite, &kitchen.b).unwrap_err().to_string();
    assert!(error.ends_with("is an ingredient; a soup is not written over what it is made of"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the bytes, reading ends in a value or a typed error, and what is accepted is a soup.
    #[test]
    fn damaged_files_are_refused_or_read(at in 0usize..300, bytes in prop::collection::vec(any::<u8>(), 1..9)) {
        let kitchen = Kitchen::new();
        let file = kitchen.b.join("model.safetensors");
        let mut damaged = fs::read(&file).unwrap();
        let at = at.min(damaged.len() - 1);
        for (old, new) in damaged[at..].iter_mut().zip(&bytes) {
            *old = *new;
        }
        fs::write(&file, damaged).unwrap();
        match kitchen.cook(&SoupOptions::default()) {
            Ok(report) => prop_assert_eq!(report.values, 8),
            Err(_) => prop_assert!(!kitchen.out().exists()),
        }
    }
}
