//! What a configuration says and what it must not say: against mergekit's own planner, and error by error.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use align_soup::merge::{ConfigError, MergeConfig, MergeOptions, MergePlan, Method, ModelPath};
use common::{Tensors, raw, write_json};
use safetensors::Dtype;
use serde_json::{Value, json};

fn fixture() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/merge/config.json");
    common::read_json(Path::new(path))
}

/// A Llama of the smallest size, as the fixture's script makes it.
fn llama(root: &Path, name: &str, layers: u64) {
    let mut tensors = Tensors::new();
    let mut add = |name: String, shape: &[usize]| {
        tensors.insert(name, raw(&vec![0.5; shape.iter().product()], shape, Dtype::F32));
    };
    add("model.embed_tokens.weight".into(), &[8, 4]);
    add("model.norm.weight".into(), &[4]);
    add("lm_head.weight".into(), &[8, 4]);
    for layer in 0..layers {
        for part in
            ["self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down"]
        {
            add(format!("model.layers.{layer}.{part}_proj.weight"), &[4, 4]);
        }
        for part in ["input_layernorm", "post_attention_layernorm"] {
            add(format!("model.layers.{layer}.{part}.weight"), &[4]);
        }
    }
    let folder = common::checkpoint(root, name, &tensors);
    let config =
        json!({ "model_type": "llama", "hidden_size": 4, "num_hidden_layers": layers, "vocab_size": 8 });
    write_json(&folder.join("config.json"), &config);
}

fn plan(root: &Path, config: &MergeConfig) -> MergePlan {
    let resolve = |model: &ModelPath| Ok::<PathBuf, _>(root.join(&model.path));
    MergePlan::new(config, &resolve, &MergeOptions::default()).unwrap()
}

/// One line of a displayed plan: sources (`model:name` where the name differs) and parameters.
struct Line {
    sources: Vec<String>,
    parameters: BTreeMap<String, Value>,
}

fn lines(plan: &MergePlan) -> BTreeMap<String, Line> {
    let text = plan.to_string();
    let line = |line: &str| {
        let (name, rest) = line.split_once(' ').unwrap();
        let (_, made) = rest.split_once(" = ").unwrap();
        let (_, inside) = made.split_once('(').unwrap_or(("", made));
        let (sources, parameters) = inside.rsplit_once(')').unwrap();
        // `, ` stands inside lists too, so lists are read to their bracket.
        let parameters = parameters.replace(", ", ",");
        let parameters = parameters.split_whitespace().map(|pair| {
            let (name, value) = pair.split_once('=').unwrap();
            (name.to_owned(), serde_json::from_str(value).unwrap())
        });
        let sources = sources.split(", ").map(|source| source.replace(" (base)", "")).collect();
        (name.to_owned(), Line { sources, parameters: parameters.collect() })
    };
    text.lines().map(line).collect()
}

fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        // One rounding of (1 − f)·a + f·b each.
        (Some(a), Some(b)) => (a - b).abs() <= 1e-15,
        _ => a == b,
    }
}

#[test]
fn filters_gradients_slices_and_precedence_are_mergekits() {
    let root = tempfile::tempdir().unwrap();
    let fixture = fixture();
    for (name, layers) in fixture["layers"].as_object().unwrap() {
        llama(root.path(), name, layers.as_u64().unwrap());
    }
    for case in fixture["cases"].as_array().unwrap() {
        let law = case["law"].as_str().unwrap();
        let config = MergeConfig::from_yaml(law, case["yaml"].as_str().unwrap()).unwrap();
        let found = lines(&plan(root.path(), &config));
        let expected = case["tensors"].as_array().unwrap();
        assert_eq!(found.len(), expected.len(), "{law}");
        for tensor in expected {
            let name = tensor["name"].as_str().unwrap();
            let line = found.get(name).unwrap_or_else(|| panic!("{law}: no {name}"));
            let sources: Vec<String> = tensor["sources"]
                .as_array()
                .unwrap()
                .iter()
                .map(|source| match (source[0].as_str().unwrap(), source[1].as_str().unwrap()) {
                    (model, same) if same == name => model.to_owned(),
                    (model, other) => format!("{model}:{other}"),
                })
                .collect();
            assert_eq!(line.sources, sources, "{law}: {name}");
            // mergekit takes these with task_arithmetic too, and ignores them; here they are refused.
            let ignored = |key: &String| {
                config.method() == Method::TaskArithmetic && ["density", "rescale"].contains(&key.as_str())
            };
            for (key, value) in tensor["shared"].as_object().unwrap().iter().filter(|(key, _)| !ignored(key))
            {
                let found = line.parameters.get(key).unwrap_or_else(|| panic!("{law}: {name}: no {key}"));
                assert!(same(found, value), "{law}: {name}: {key}: {found} against {value}");
            }
            // Models in the order of the sources; the base of task vectors has no parameters.
            let each = tensor["sources"]
                .as_array()
                .unwrap()
                .iter()
                .map(|source| &tensor["each"][source[0].as_str().unwrap()]);
            let each: Vec<&Value> = each.filter(|values| !values.as_object().unwrap().is_empty()).collect();
            let keys = each.first().into_iter().flat_map(|values| values.as_object().unwrap().keys());
            for key in keys.filter(|key| !ignored(key)) {
                let found = line.parameters[key].as_array().unwrap();
                assert_eq!(found.len(), each.len(), "{law}: {name}: {key}");
                for (found, values) in found.iter().zip(&each) {
                    // mergekit's `scale` is nothing by default, which is a factor of 1.
                    let expected = if values[key].is_null() { &json!(1.0) } else { &values[key] };
                    assert!(same(found, expected), "{law}: {name}: {key}: {found} against {expected}");
                }
            }
        }
    }
}

fn refused(text: &str) -> String {
    let error: ConfigError = MergeConfig::from_yaml("m.yml", text).unwrap_err();
    common::message(&error)
}

#[track_caller]
fn refuses(text: &str, message: &str) {
    let found = refused(text);
    assert!(found.contains(message), "expected `{message}` in `{found}`");
}

#[test]
fn what_has_no_meaning_is_refused_with_its_line_and_the_nearest_word() {
    let two = "models: [{ model: a }, { model: b }]\n";
    refuses("models: [\n", "m.yml:");
    refuses("[]", "m.yml:1: expected a map, found a list");
    refuses(
        &format!("{two}merge_method: linaer\n"),
        "m.yml:2: `merge_method`: no merge method is called `linaer`; did you mean `linear`?",
    );
    refuses(&format!("{two}merge_method: lerp_of_the_century\n"), "known are linear, slerp,");
    refuses(
        &format!("{two}merge_method: karcher\nbase-model: a\n"),
        "m.yml:3: `base-model`: unknown key; did you mean `base_model`?",
    );
    refuses(two, "m.yml:1: `merge_method` is missing");
    refuses(
        &format!("{two}merge_method: karcher\nparameters:\n  max_iters: 5\n"),
        "m.yml:4: `parameters.max_iters`: `karcher` takes no such parameter here; did you mean `max_iter`?",
    );
    let density = "models:\n  - model: a\n    parameters:\n      wieght: 1\nmerge_method: linear\n";
    refuses(
        density,
        "m.yml:4: `models[0].parameters.wieght`: `linear` takes no such parameter here; did you mean `weight`?",
    );
    let shared =
        "models:\n  - model: a\n    parameters: { weight: 1, normalize: true }\nmerge_method: linear\n";
    refuses(
        shared,
        "m.yml:3: `models[0].parameters.normalize`: `normalize` is a parameter of the whole merge",
    );
    refuses("merge_method: linear\n", "expected exactly one of `models`, `slices` and `modules`, found none");
    refuses(&format!("{two}slices: []\nmerge_method: linear\n"), "found models and slices");
    refuses(
        "models: []\nmerge_method: linear\n",
        "m.yml:1: `models`: expected a list with at least one item",
    );
    refuses(
        "models: [{ mode: a }]\nmerge_method: linear\n",
        "`models[0].mode`: unknown key; did you mean `model`?",
    );
    refuses(
        "models: [{ model: a }, { model: a }]\nmerge_method: linear\n",
        "`models[1]`: `a` stands here twice",
    );
    refuses("models: [{ model: a+b+c }]\nmerge_method: linear\n", "`a+b+c` is not a model");
    refuses("models: [{ model: a@b@c }]\nmerge_method: linear\n", "`a@b@c` is not a model");
    refuses(
        &format!("{two}merge_method: linear\ndtype: int8\n"),
        "m.yml:3: `dtype`: expected float64, float32, float16 or bfloat16, found \"int8\"",
    );
    refuses(
        &format!("{two}merge_method: linear\nchat_template: alpaca\n"),
        "expected `auto`, `chatml` or the text of a template, found \"alpaca\"",
    );
    refuses(
        &format!("{two}merge_method: linear\ntokenizer: {{ sauce: union }}\n"),
        "`tokenizer.sauce`: unknown key; did you mean `source`?",
    );
    refuses(
        &format!("{two}merge_method: linear\ntokenizer_source: union\ntokenizer: {{ source: base }}\n"),
        "expected exactly one of `tokenizer_source` and `tokenizer`, found both",
    );
}

#[test]
fn numbers_that_are_none_are_refused() {
    let with = |value: &str| {
        format!("models:\n  - {{ model: a, parameters: {{ weight: {value} }} }}\nmerge_method: linear\n")
    };
    refuses(&with(".nan"), "m.yml:2: not valid YAML: non-finite float `.nan`");
    let text = "m.yml:2: `models[0].parameters.weight`: expected a finite number, found NaN";
    refuses(&with("\"nan\""), text);
    refuses(&with("[1, infinity]"), "`models[0].parameters.weight[1]`: expected a finite number, found inf");
    refuses(&with("heavy"), "expected a number, found \"heavy\"");
    refuses(&with("[]"), "expected a list with at least one item, found a list");
    refuses(&with("[{ filter: mlp }]"), "`models[0].parameters.weight[0]`: `value` is missing");
    refuses(&with("[{ fliter: mlp, value: 1 }]"), "unknown key; did you mean `filter`?");
    // What reads as a number is one, as in mergekit.
    assert!(MergeConfig::from_yaml("m.yml", &with("\"1e-3\"")).is_ok());
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let two = "models: [{ model: a }, { model: b }]\n";
    for method in ["nearswap", "arcee_fusion", "ram", "ramplus_tl"] {
        refuses(
            &format!("{two}merge_method: {method}\nbase_model: a\n"),
            &format!("m.yml:2: `merge_method`: `{method}` is not supported: "),
        );
    }
    refuses(
        "base_model: a\ngate_mode: hidden\nexperts: []\n",
        "m.yml:2: `gate_mode`: `gate_mode` is not supported: this is a configuration of mergekit-moe",
    );
    let modules = "modules:\n  text: { models: [{ model: a }] }\n  vision: { models: [{ model: a }] }\nmerge_method: passthrough\n";
    refuses(modules, "`modules` is not supported: one stack of layers is merged");
    let residual = "slices:\n  - sources: [{ model: a, layer_range: [0, 1] }]\n    residual_weight: 0.5\nmerge_method: passthrough\n";
    refuses(residual, "m.yml:3: `slices[0].residual_weight`: `residual_weight` is not supported");
    refuses(
        "models: [{ model: { model: a, override_architecture: LlamaForCausalLM } }]\nmerge_method: passthrough\n",
        "`override_architecture` is not supported",
    );
    // One module is what its models are.
    let one = "modules: { default: { models: [{ model: a }] } }\nmerge_method: passthrough\n";
    assert_eq!(MergeConfig::from_yaml("m.yml", one).unwrap().models().len(), 1);
}

#[test]
fn bases_counts_of_models_and_layers_are_checked() {
    let two = "models: [{ model: a }, { model: b }]\n";
    refuses(&format!("{two}merge_method: ties\n"), "`models`: `ties` needs a `base_model`");
    refuses(
        "models: [{ model: a }, { model: b }, { model: c }]\nmerge_method: slerp\nbase_model: a\n",
        "`slerp` merges 1 model beside the base, found 2",
    );
    refuses(
        &format!("{two}merge_method: model_stock\nbase_model: a\n"),
        "`model_stock` merges 2 or more models beside the base, found 1",
    );
    refuses(&format!("{two}merge_method: passthrough\n"), "`passthrough` merges 1 model, found 2");
    let slices = |first: &str, second: &str| {
        format!(
            "slices:\n  - sources:\n      - {{ model: a, layer_range: {first} }}\n      - {{ model: b, layer_range: {second} }}\n\
             merge_method: linear\nparameters: {{ weight: 1 }}\n"
        )
    };
    refuses(
        &slices("[0, 3]", "[0, 2]"),
        "m.yml:4: `slices[0].sources[1]`: the sources of a slice must have as many layers each: 3 here and 2 in `b`",
    );
    refuses(
        &slices("[3, 3]", "[0, 2]"),
        "expected a range of layers [first, past the last] that is not empty, found [3, 3]",
    );
    refuses(&slices("[0, 2.5]", "[0, 2]"), "expected a whole number from 0, found 2.5");
    refuses(&slices("[0]", "[0, 2]"), "expected two numbers of layers");
    refuses(
        "slices: [{ sources: [{ model: a, layer_range: [0, 1] }, { model: b, layer_range: [0, 1] }] }]\nmerge_method: slerp\nbase_model: c\n",
        "the base model `c` is not among the sources of this slice, and `slerp` needs it there",
    );
}

#[test]
fn models_are_named_by_text_or_map() {
    let text = "models:\n  - model: org/name@v2+./adapter\n  - model: { model: { path: b, revision: main }, lora: \"@stage/adapter\" }\n\
                merge_method: karcher\n";
    let config = MergeConfig::from_yaml("m.yml", text).unwrap();
    let names: Vec<String> = config.models().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["org/name@v2+./adapter", "b@main+@stage/adapter"]);
    assert_eq!(config.models()[0].model.revision.as_deref(), Some("v2"));
    assert_eq!(config.base_model(), None);
}
