//! Folders are merged chunk by chunk, and modules in memory: to the same bits.

mod common;

use std::path::PathBuf;

use align_soup::merge::{
    BaseRule, MergeConfig, MergeOptions, MergeParameters, Method, ModelPath, Parameter, merge_folders,
    merge_modules,
};
use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};
use common::{Raw, message, raw, values};
use safetensors::Dtype;

/// Numbers of both signs that f32 holds exactly.
fn numbers(count: usize, salt: u64) -> Vec<f64> {
    let number = |i: u64| ((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(salt << 45) >> 40) as f64;
    (0..count as u64).map(|i| number(i) / f64::from(1 << 23) - 1.0).collect()
}

/// Large enough for several chunks, and small.
#[derive(Module, Debug)]
struct Two {
    large: Param<Tensor<2>>,
    small: Param<Tensor<1>>,
}

#[test]
fn what_is_read_chunk_by_chunk_merges_as_what_is_in_memory() {
    let root = tempfile::tempdir().unwrap();
    let shapes = [("large", vec![250, 601]), ("small", vec![7])];
    let modules: Vec<Two> = (0..4)
        .map(|seed| {
            let tensors: Vec<Vec<f64>> = shapes
                .iter()
                .map(|(name, shape)| numbers(shape.iter().product(), seed + name.len() as u64))
                .collect();
            let named = shapes.iter().zip(&tensors);
            let raws = named.map(|((name, shape), values)| (*name, raw(values, shape, Dtype::F32)));
            let raws: Vec<(&str, Raw)> = raws.collect();
            common::checkpoint(root.path(), &format!("m{seed}"), &common::tensors(&raws));
            Two {
                large: common::typed(&tensors[0], [250, 601], DType::F32),
                small: common::typed(&tensors[1], [7], DType::F32),
            }
        })
        .collect();

    let resolve = |model: &ModelPath| Ok::<PathBuf, _>(root.path().join(&model.path));
    let plain = [
        (Parameter::Weight, 0.5),
        (Parameter::T, 0.3),
        (Parameter::Density, 0.5),
        (Parameter::SelectTopK, 0.5),
    ];
    let flags = [None, Some(Parameter::RowWise), Some(Parameter::Flatten), Some(Parameter::FilterWise)];
    let taken = |method: Method, flag: Option<Parameter>| flag.is_none_or(|flag| method.rule(flag).is_some());
    for method in Method::ALL {
        for flag in flags.into_iter().filter(|&flag| taken(method, flag)) {
            let count = 3.min(*method.models().end());
            let mut parameters = MergeParameters::new(method, count);
            let mut yaml = String::new();
            for (parameter, value) in
                plain.into_iter().filter(|(parameter, _)| taken(method, Some(*parameter)))
            {
                parameters.set(parameter, value).unwrap();
                yaml += &format!("{}: {value}, ", parameter.name());
            }
            if let Some(flag) = flag {
                parameters.set(flag, true).unwrap();
                yaml += &format!("{}: true", flag.name());
            }
            let based = method.base() == BaseRule::Required;
            let models: Vec<String> = (1..=count).map(|model| format!("{{ model: m{model} }}")).collect();
            let base = if based { "base_model: m0\n" } else { "" };
            let text = format!(
                "models: [{}]\nmerge_method: {method}\n{base}parameters: {{ {yaml} }}\n",
                models.join(", ")
            );
            let out = format!("{method}-{flag:?}");
            let config = MergeConfig::from_yaml("m.yml", &text).unwrap();
            merge_folders(&config, &resolve, &MergeOptions::default(), root.path().join(&out))
                .unwrap_or_else(|error| panic!("{out}: {}", message(&error)));
            let found = common::read(&root.path().join(&out));
            let base = based.then_some(&modules[0]);
            let expected = merge_modules(base, &modules[1..=count], &parameters, 0).unwrap().module;
            let found: Vec<u64> =
                ["large", "small"].iter().flat_map(|name| values(&found[*name])).map(f64::to_bits).collect();
            assert!(found == common::bits(&expected), "{out}");
        }
    }
}
