//! A tiny module of every kind of parameter, and checkpoint folders written by hand.
#![allow(dead_code, unreachable_pub)] // each test file uses its share

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

/// Two float parameters, one of them nested, and an integer table.
#[derive(Module, Debug)]
pub struct Net {
    pub weight: Param<Tensor<2>>,
    pub inner: Vec<Layer>,
    pub table: Param<Tensor<1, Int>>,
}

#[derive(Module, Debug)]
pub struct Layer {
    pub bias: Option<Param<Tensor<1>>>,
}

pub fn device() -> Device {
    align_testkit::device()
}

/// A parameter of f64 values.
pub fn param<const D: usize>(values: &[f64], shape: [usize; D]) -> Param<Tensor<D>> {
    typed(values, shape, DType::F64)
}

pub fn typed<const D: usize>(values: &[f64], shape: [usize; D], dtype: DType) -> Param<Tensor<D>> {
    let data = TensorData::new(values.to_vec(), shape).convert_dtype(dtype);
    Param::from_tensor(Tensor::from_data(data, (&device(), dtype)))
}

/// A net with a `[2, 2]` weight and one bias of `bias.len()`.
pub fn net(weight: [f64; 4], bias: &[f64]) -> Net {
    typed_net(weight, bias, DType::F64)
}

pub fn typed_net(weight: [f64; 4], bias: &[f64], dtype: DType) -> Net {
    Net {
        weight: typed(&weight, [2, 2], dtype),
        inner: vec![Layer { bias: Some(typed(bias, [bias.len()], dtype)) }],
        table: Param::initialized(ParamId::new(), Tensor::from_data([1, 2, 3], &device())),
    }
}

/// The float values of a module, by path order, as f64.
pub fn floats<M: Module>(module: &M) -> Vec<f64> {
    struct Floats(Vec<f64>);
    impl ModuleVisitor for Floats {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let data = param.val().without_autodiff().into_data().convert::<f64>();
            self.0.extend(data.try_to_vec::<f64>().unwrap());
        }
    }
    let mut floats = Floats(Vec::new());
    module.visit(&mut floats);
    floats.0
}

/// The bits of a module's floats, for equality that sees the sign of zero.
pub fn bits<M: Module>(module: &M) -> Vec<u64> {
    floats(module).into_iter().map(f64::to_bits).collect()
}

pub fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{found:?} against {expected:?}");
    for (index, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance, "[{index}]: {a} against {b}, tolerance {tolerance}");
    }
}

/// A tensor to write.
#[derive(Clone)]
pub struct Raw {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// Floats stored as `dtype`.
pub fn raw(values: &[f64], shape: &[usize], dtype: Dtype) -> Raw {
    let bytes = match dtype {
        Dtype::F64 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Dtype::F32 => values.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect(),
        Dtype::F16 => values.iter().flat_map(|v| f16::from_f64(*v).to_le_bytes()).collect(),
        Dtype::BF16 => values.iter().flat_map(|v| bf16::from_f64(*v).to_le_bytes()).collect(),
        Dtype::I64 => values.iter().flat_map(|v| (*v as i64).to_le_bytes()).collect(),
        other => panic!("no writer for {other}"),
    };
    Raw { dtype, shape: shape.to_vec(), bytes }
}

/// Reads a tensor's values as f64.
pub fn values(raw: &Raw) -> Vec<f64> {
    let bytes = &raw.bytes;
    match raw.dtype {
        Dtype::F64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        Dtype::F32 => bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
        Dtype::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f64()).collect(),
        Dtype::BF16 => bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f64()).collect(),
        other => panic!("no reader for {other}"),
    }
}

pub type Tensors = BTreeMap<String, Raw>;

pub fn tensors(list: &[(&str, Raw)]) -> Tensors {
    list.iter().map(|(name, raw)| ((*name).to_owned(), raw.clone())).collect()
}

fn write_file(path: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, raw)| {
        (name.clone(), TensorView::new(raw.dtype, raw.shape.clone(), &raw.bytes).unwrap())
    });
    safetensors::serialize_to_file(views.collect::<Vec<_>>(), None, path).unwrap();
}

/// A checkpoint folder with one file of weights.
pub fn checkpoint(root: &Path, name: &str, tensors: &Tensors) -> PathBuf {
    let path = root.join(name);
    fs::create_dir(&path).unwrap();
    write_json(&path.join("config.json"), &config());
    write_file(&path.join("model.safetensors"), tensors);
    path
}

/// A checkpoint folder with a shard for each group of tensors.
pub fn sharded_checkpoint(root: &Path, name: &str, groups: &[Tensors]) -> PathBuf {
    let path = root.join(name);
    fs::create_dir(&path).unwrap();
    write_json(&path.join("config.json"), &config());
    let mut weight_map = serde_json::Map::new();
    for (number, group) in groups.iter().enumerate() {
        let shard = format!("model-{:05}-of-{:05}.safetensors", number + 1, groups.len());
        write_file(&path.join(&shard), group);
        weight_map.extend(group.keys().map(|name| (name.clone(), json!(shard))));
    }
    write_json(
        &path.join("model.safetensors.index.json"),
        &json!({ "metadata": {}, "weight_map": weight_map }),
    );
    path
}

pub fn config() -> Value {
    json!({
        "model_type": "llama", "hidden_size": 2, "vocab_size": 3, "rope_theta": 10000.0, "dtype": "float32",
        "transformers_version": "5.0.0"
    })
}

pub fn write_json(path: &Path, value: &Value) {
    fs::write(path, value.to_string()).unwrap();
}

pub fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// All tensors of a folder, through the safetensors crate, whichever shard they are in.
pub fn read(path: &Path) -> Tensors {
    let mut found = Tensors::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let bytes = fs::read(&path).unwrap();
            for (name, view) in safetensors::SafeTensors::deserialize(&bytes).unwrap().tensors() {
                let raw =
                    Raw { dtype: view.dtype(), shape: view.shape().to_vec(), bytes: view.data().to_vec() };
                assert!(found.insert(name, raw).is_none(), "a tensor in two shards");
            }
        }
    }
    found
}

/// Whole message of an error with its sources.
pub fn message(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// Names in a folder, sorted.
pub fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
