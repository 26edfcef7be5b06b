//! Laws of soups, of modules and of folders.

mod common;

use std::ops::ControlFlow;
use std::sync::Mutex;

use align_soup::{
    FloatDtype, SoupError, SoupOptions, SoupWarning, Weights, average, checkpoint_id, lerp, soup_folders,
    soup_folders_observed, task_vectors, task_vectors_of_folders, uniform,
};
use burn::module::{Module, Param, list_param_ids};
use burn::tensor::{DType, Tensor};
use common::*;
use proptest::prelude::*;
use safetensors::Dtype;

/// Values that f32 holds exactly.
fn values(n: usize) -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec((-1000i32..1000).prop_map(|v| f64::from(v) / 64.0), n)
}

fn f32_param(values: &[f64]) -> Param<Tensor<1>> {
    typed(values, [values.len()], DType::F32)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn uniform_is_the_soup_of_equal_weights(models in prop::collection::vec(values(5), 1..6)) {
        let models: Vec<_> = models.iter().map(|values| f32_param(values)).collect();
        let n = models.len();
        let weighted = average(&models, vec![1.0 / n as f64; n]).unwrap();
        prop_assert_eq!(bits(&uniform(&models).unwrap()), bits(&weighted));
    }

    #[test]
    fn the_order_of_ingredients_does_not_matter(
        a in values(6), b in values(6), c in values(6), raw in prop::collection::vec(0.01f64..1.0, 3)
    ) {
        let weights = Vec::from(Weights::normalized(&raw).unwrap());
        let [a, b, c] = [&a, &b, &c].map(|values| param(values, [6]));
        let one = average(&[a.clone(), b.clone(), c.clone()], weights.clone()).unwrap();
        let other = average(&[c, a, b], vec![weights[2], weights[0], weights[1]]).unwrap();
        // f64 sums of three terms below 16 in another order: a few units of 2⁻⁴⁹.
        assert_close(&floats(&one), &floats(&other), 1e-14);
    }

    #[test]
    fn a_weight_of_one_gives_the_ingredient_bit_for_bit(a in values(4), b in values(4)) {
        let mut a = a;
        a[0] = -0.0;
        let (a, b) = (f32_param(&a), f32_param(&b));
        prop_assert_eq!(bits(&lerp(&a, &b, 1.0).unwrap()), bits(&a));
        prop_assert_eq!(bits(&lerp(&b, &a, 0.0).unwrap()), bits(&a));
        prop_assert_eq!(bits(&uniform(std::slice::from_ref(&a)).unwrap()), bits(&a));
    }

    #[test]
    fn the_soup_of_copies_is_the_model(a in prop::collection::vec(any::<f32>(), 8), n in 1usize..70) {
        let a: Vec<f64> = a.into_iter().map(|v| if v.is_finite() { f64::from(v) } else { 0.5 }).collect();
        let a = f32_param(&a);
        prop_assert_eq!(bits(&uniform(&vec![a.clone(); n]).unwrap()), bits(&a));
    }

    #[test]
    fn a_soup_lies_between_its_ingredients(a in values(8), b in values(8), alpha in 0.0f64..=1.0) {
        let soup = floats(&lerp(&f32_param(&a), &f32_param(&b), alpha).unwrap());
        for ((a, b), soup) in a.iter().zip(&b).zip(soup) {
            prop_assert!(a.min(*b) <= soup && soup <= a.max(*b), "{soup} is not between {a} and {b}");
        }
    }

    #[test]
    fn folders_and_modules_give_the_same_soup(a in values(4), b in values(4), alpha in 0.0f64..=1.0) {
        let root = tempfile::tempdir().unwrap();
        let weights = Weights::new(&[alpha, 1.0 - alpha]).unwrap();
        for (file, module) in [
            (Dtype::F64, DType::F64), (Dtype::F32, DType::F32), (Dtype::F16, DType::F16), (Dtype::BF16, DType::BF16),
        ] {
            let folders = [("a", &a), ("b", &b)].map(|(name, values)| {
                checkpoint(root.path(), &format!("{name}-{file}"), &tensors(&[("w", raw(values, &[4], file))]))
            });
            let out = root.path().join(format!("out-{file}"));
            soup_folders(&folders, &weights, &SoupOptions::default(), &out).unwrap();
            let modules = [&a, &b].map(|values| typed(values, [4], module));
            let soup = average(&modules, weights.clone()).unwrap();
            prop_assert_eq!(common::values(&read(&out)["w"]), floats(&soup));
        }
    }
}

#[test]
fn a_soup_has_identifiers_of_its_own_and_can_be_trained() {
    let a = net([1.0, 2.0, 3.0, 4.0], &[1.0]);
    let b = a.clone();
    let soup = uniform(&[a.clone().train(), b]).unwrap();
    let old = list_param_ids(&a);
    assert!(list_param_ids(&soup).iter().all(|id| !old.contains(id)));
    assert!(!soup.weight.val().is_autodiff(), "a soup is on the plain device");
    let soup = soup.train();
    let loss = soup.weight.val().powi_scalar(2).sum();
    let gradient = soup.weight.val().grad(&loss.backward()).expect("a leaf that requires a gradient");
    assert_close(
        &gradient.into_data().convert::<f64>().try_to_vec::<f64>().unwrap(),
        &[2.0, 4.0, 6.0, 8.0],
        1e-12,
    );
}

/// Input and output embeddings that are one parameter.
#[derive(Module, Debug)]
struct Tied {
    input: Param<Tensor<1>>,
    output: Param<Tensor<1>>,
}

#[test]
fn tied_parameters_stay_tied() {
    let tied = |values: &[f64]| {
        let input = param(values, [2]);
        Tied { output: input.clone(), input }
    };
    let soup = uniform(&[tied(&[1.0, 2.0]), tied(&[3.0, 4.0])]).unwrap();
    assert_eq!(soup.input.id, soup.output.id);
    assert_eq!(floats(&soup), [2.0, 3.0, 2.0, 3.0]);

    let untied = Tied { input: param(&[3.0, 4.0], [2]), output: param(&[3.0, 5.0], [2]) };
    let error = uniform(&[tied(&[1.0, 2.0]), untied]).unwrap_err().to_string();
    assert_eq!(
        error,
        "parameters `output` and `input` are tied in the first ingredient and differ in ingredients[1]"
    );
}

#[test]
fn ingredients_are_left_alone() {
    let [a, b] = [net([1.0; 4], &[1.0]), net([2.0; 4], &[2.0])];
    let before = [bits(&a), bits(&b)];
    uniform(&[a.clone(), b.clone()]).unwrap();
    assert_eq!([bits(&a), bits(&b)], before);
}

/// More values than a block holds, so that blocks, threads and shards all meet.
fn large(seed: f64) -> Tensors {
    let wave = |n: usize, phase: f64| (0..n).map(|i| (i as f64 * 0.37 + phase).sin()).collect::<Vec<_>>();
    tensors(&[
        ("embed_tokens.weight", raw(&wave(150_000, seed), &[1500, 100], Dtype::F32)),
        ("layers.0.norm.weight", raw(&wave(100, seed + 1.0), &[100], Dtype::F32)),
        ("layers.0.up.weight", raw(&wave(70_001, seed + 2.0), &[70_001], Dtype::BF16)),
        ("positions", raw(&[0.0, 1.0, 2.0], &[3], Dtype::I64)),
    ])
}

fn split(tensors: &Tensors) -> [Tensors; 2] {
    let mut left = tensors.clone();
    let right = left.split_off("layers.0.up.weight");
    [left, right]
}

#[test]
fn sharding_does_not_matter_on_either_side() {
    let root = tempfile::tempdir().unwrap();
    let whole = checkpoint(root.path(), "whole", &large(0.0));
    let parts = sharded_checkpoint(root.path(), "parts", &split(&large(0.0)));
    let other = checkpoint(root.path(), "other", &large(5.0));
    let soup = |first: &std::path::Path, out: &str, options: &SoupOptions| {
        let report =
            soup_folders(&[first, &other], &Weights::uniform(2).unwrap(), options, root.path().join(out))
                .unwrap();
        (report, read(&root.path().join(out)))
    };
    let (one, expected) = soup(&whole, "one", &SoupOptions::default());
    let (two, found) = soup(&parts, "two", &SoupOptions::default());
    let sharded = SoupOptions { max_shard_bytes: 200_000, ..SoupOptions::default() };
    let (three, again) = soup(&whole, "three", &sharded);
    for (name, raw) in &expected {
        assert_eq!(raw.bytes, found[name].bytes, "{name}");
        assert_eq!(raw.bytes, again[name].bytes, "{name}");
    }
    // The integers, the embeddings (alone larger than a shard), the rest.
    assert_eq!((one.shards, two.shards, three.shards), (1, 1, 3));
    assert_eq!([&two.id, &three.id], [&one.id; 2]);
    assert_eq!(one.id, checkpoint_id(root.path().join("three")).unwrap());
    assert_eq!(checkpoint_id(&whole).unwrap(), checkpoint_id(&parts).unwrap());
    assert_ne!(checkpoint_id(&whole).unwrap(), checkpoint_id(&other).unwrap());

    let index = read_json(&root.path().join("three/model.safetensors.index.json"));
    assert_eq!(index["metadata"]["total_size"], three.bytes);
    assert_eq!(index["weight_map"]["embed_tokens.weight"], "model-00002-of-00003.safetensors");
    assert_eq!(index["weight_map"].as_object().unwrap().len(), 4);
}

#[test]
fn what_the_soup_equals_is_computed_apart() {
    let root = tempfile::tempdir().unwrap();
    let [a, b] = [0.0, 5.0].map(|seed| checkpoint(root.path(), &format!("m{seed}"), &large(seed)));
    let out = root.path().join("out");
    soup_folders(&[a, b], &Weights::new(&[0.3, 0.7]).unwrap(), &SoupOptions::default(), &out).unwrap();
    let found = read(&out);
    for (name, first) in large(0.0).iter().filter(|(_, raw)| raw.dtype != Dtype::I64) {
        let mean: Vec<f64> = common::values(first)
            .iter()
            .zip(common::values(&large(5.0)[name]))
            .map(|(a, b)| 0.3 * a + 0.7 * b)
            .collect();
        assert_eq!(found[name].bytes, raw(&mean, &first.shape, first.dtype).bytes, "{name}");
        assert_eq!(found[name].shape, first.shape);
    }
    assert_eq!(found["positions"].bytes, large(0.0)["positions"].bytes);
}

#[test]
fn types_may_be_mixed_and_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let w = |values: &[f64], dtype| tensors(&[("w", raw(values, &[2], dtype))]);
    let a = checkpoint(root.path(), "a", &w(&[1.0, 2.0], Dtype::BF16));
    let b = checkpoint(root.path(), "b", &w(&[2.0, 2.0625], Dtype::F16));
    let c = checkpoint(root.path(), "c", &w(&[3.0, 2.5], Dtype::F64));
    let inputs = [a, b, c];
    let weights = Weights::new(&[0.5, 0.25, 0.25]).unwrap();
    for (asked, written, name) in [
        (None, Dtype::BF16, "float32"), // the configuration is copied as it was
        (Some(FloatDtype::F64), Dtype::F64, "float64"),
        (Some(FloatDtype::F32), Dtype::F32, "float32"),
        (Some(FloatDtype::F16), Dtype::F16, "float16"),
        (Some(FloatDtype::BF16), Dtype::BF16, "bfloat16"),
    ] {
        let out = root.path().join(format!("out-{asked:?}"));
        let options = SoupOptions { dtype: asked, ..SoupOptions::default() };
        soup_folders(&inputs, &weights, &options, &out).unwrap();
        let found = &read(&out)["w"];
        assert_eq!(found.dtype, written);
        assert_eq!(found.bytes, raw(&[1.75, 2.140625], &[2], written).bytes);
        assert_eq!(read_json(&out.join("config.json"))["dtype"], name);
    }
}

#[test]
fn a_soup_carries_its_recipe_and_its_companions() {
    let root = tempfile::tempdir().unwrap();
    let base = checkpoint(root.path(), "base", &large(0.0));
    let ancestor = checkpoint_id(&base).unwrap();
    let inputs = [1.0, 2.0].map(|seed| {
        let path = checkpoint(root.path(), &format!("sft-{seed}"), &large(seed));
        write_json(&path.join("align.json"), &serde_json::json!({ "ancestor": ancestor }));
        std::fs::write(path.join("tokenizer.json"), "{}").unwrap();
        std::fs::write(path.join("chat_template.jinja"), "{{ messages }}").unwrap();
        path
    });
    let out = root.path().join("deep/er/out");
    let report =
        soup_folders(&inputs, &Weights::new(&[0.25, 0.75]).unwrap(), &SoupOptions::default(), &out).unwrap();
    assert_eq!(report.warnings, []);
    assert_eq!(report.ancestor.as_deref(), Some(ancestor.as_str()));
    assert_eq!(
        names(&out),
        ["align.json", "chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json"]
    );
    assert_eq!(names(&root.path().join("deep/er")), ["out"]);
    let recipe = read_json(&out.join("align.json"));
    assert_eq!(recipe["ancestor"], ancestor);
    assert_eq!(recipe["soup"]["ingredients"][1]["weight"], 0.75);
    assert_eq!(recipe["soup"]["ingredients"][1]["name"], "sft-2");
    assert_eq!(recipe["soup"]["ingredients"][1]["id"], checkpoint_id(&inputs[1]).unwrap());
    let bytes = std::fs::read(out.join("model.safetensors")).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().clone().unwrap();
    assert_eq!(metadata["format"], "pt");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&metadata["soup"]).unwrap(), recipe["soup"]);

    // A soup of soups keeps the ancestor, also where only the weights' metadata tells of it.
    std::fs::remove_file(out.join("align.json")).unwrap();
    let again = root.path().join("again");
    let report =
        soup_folders(&[&out, &inputs[0]], &Weights::uniform(2).unwrap(), &SoupOptions::default(), &again)
            .unwrap();
    assert_eq!(report.ancestor.as_deref(), Some(ancestor.as_str()));
}

#[test]
fn the_same_soup_twice_is_the_same_file() {
    let root = tempfile::tempdir().unwrap();
    let inputs = [1.0, 2.0].map(|seed| checkpoint(root.path(), &format!("m{seed}"), &large(seed)));
    let bytes = ["one", "two"].map(|name| {
        let out = root.path().join(name);
        soup_folders(&inputs, &Weights::uniform(2).unwrap(), &SoupOptions::default(), &out).unwrap();
        std::fs::read(out.join("model.safetensors")).unwrap()
    });
    assert_eq!(bytes[0], bytes[1]);
}

#[test]
fn copies_and_single_ingredients_are_called_plain_ppo() {
    let root = tempfile::tempdir().unwrap();
    let a = checkpoint(root.path(), "a", &large(0.0));
    let b = checkpoint(root.path(), "b", &large(0.0));
    let c = checkpoint(root.path(), "c", &large(1.0));
    let warnings = |inputs: &[&std::path::PathBuf], weights: &[f64], out: &str| {
        let weights = Weights::new(weights).unwrap();
        soup_folders(inputs, &weights, &SoupOptions::default(), root.path().join(out)).unwrap().warnings
    };
    let equals = |warnings: &[SoupWarning]| warnings.contains(&SoupWarning::EqualsIngredient);
    let identical = |warnings: &[SoupWarning]| {
        warnings.iter().any(|warning| matches!(warning, SoupWarning::Identical { .. }))
    };
    let copies = warnings(&[&a, &b], &[0.5, 0.5], "copies");
    assert!(equals(&copies) && identical(&copies), "{copies:?}");
    let single = warnings(&[&a], &[1.0], "single");
    assert!(equals(&single) && !identical(&single), "{single:?}");
    let one_counts = warnings(&[&a, &c], &[1.0, 0.0], "one-counts");
    assert!(equals(&one_counts) && !identical(&one_counts), "{one_counts:?}");
    let soup = warnings(&[&a, &c], &[0.5, 0.5], "soup");
    assert!(!equals(&soup) && !identical(&soup), "{soup:?}");
    let text = SoupWarning::EqualsIngredient.to_string();
    assert_eq!(text, "the soup equals an ingredient; as a reference it makes the run plain PPO");
}

#[test]
fn folders_and_modules_give_the_same_task_vectors() {
    let root = tempfile::tempdir().unwrap();
    let numbers = [[1.0, 1.0, 1.0], [4.0, 5.0, 1.0], [1.0, 5.0, 4.0]];
    let [base, a, b] = numbers.map(|values| {
        checkpoint(root.path(), &format!("{values:?}"), &tensors(&[("w", raw(&values, &[3], Dtype::F32))]))
    });
    let folders = task_vectors_of_folders(base, a, b).unwrap();
    let [base, a, b] = numbers.map(|values| param(&values, [3]));
    assert_eq!(folders, task_vectors(&base, &a, &b).unwrap());
    assert_close(&[folders.cosine.unwrap()], &[0.64], 1e-15);
}

#[test]
fn an_observer_sees_everything_written_and_can_stop() {
    let root = tempfile::tempdir().unwrap();
    let inputs = [1.0, 2.0].map(|seed| checkpoint(root.path(), &format!("m{seed}"), &large(seed)));
    let weights = Weights::uniform(2).unwrap();
    let seen = Mutex::new((0, 0));
    let watch = |progress: align_soup::Progress| {
        let mut seen = seen.lock().unwrap();
        *seen = (seen.0.max(progress.done), progress.total);
        ControlFlow::Continue(())
    };
    let options = SoupOptions::default();
    let report = soup_folders_observed(&inputs, &weights, &options, root.path().join("out"), &watch).unwrap();
    assert_eq!(*seen.lock().unwrap(), (report.bytes, report.bytes));

    let stop = |_| ControlFlow::Break(());
    let error =
        soup_folders_observed(&inputs, &weights, &options, root.path().join("stopped"), &stop).unwrap_err();
    assert!(matches!(error, SoupError::Interrupted));
    assert_eq!(names(root.path()), ["m1", "m2", "out"]);
}

#[test]
fn a_checkpoint_is_replaced_only_when_asked_and_whole() {
    let root = tempfile::tempdir().unwrap();
    let inputs = [1.0, 2.0].map(|seed| checkpoint(root.path(), &format!("m{seed}"), &large(seed)));
    let out = checkpoint(root.path(), "out", &large(9.0));
    std::fs::write(out.join("stale.txt"), "of the old one").unwrap();
    let overwrite = SoupOptions { overwrite: true, ..SoupOptions::default() };
    soup_folders(&inputs, &Weights::uniform(2).unwrap(), &overwrite, &out).unwrap();
    assert_eq!(names(&out), ["align.json", "config.json", "model.safetensors"]);
    assert_eq!(names(root.path()), ["m1", "m2", "out"]);
}
