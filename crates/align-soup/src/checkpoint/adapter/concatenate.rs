//! The soup of adapters as one adapter: exact, at the cost of rank.
//!
//! `Σ_k w_k s_k B_k A_k = [w_1 s_1 B_1 … w_K s_K B_K] · [A_1; …; A_K]`, so the factors one beside the other, scaled, are
//! an adapter of rank Σ r_k whose product is the mean of the products. (The mean of the factors is none.)

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Map, Value, json};

use super::AdapterError;
use super::config::CONFIG;
use super::file::{AdapterFile, PREFIX, WEIGHTS};
use super::low_rank::numbers;
use crate::checkpoint::compat::named_ancestor;
use crate::checkpoint::file::TensorEntry;
use crate::checkpoint::place::Partial;
use crate::checkpoint::{SoupOptions, pretty};
use crate::error::{Ingredient, SoupError};
use crate::weights::Weights;

/// An adapter that was made of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterSoup {
    /// The folder.
    pub out: PathBuf,
    /// How many modules are adapted.
    pub modules: usize,
    /// The largest rank of a module.
    pub rank: usize,
    /// Bytes of the tensors as written, in f32.
    pub bytes: u64,
}

/// Writes the soup of adapters of one base as one adapter in PEFT's form: the factors concatenated, `B` scaled, so that its
/// update is Σ_k w_k (α_k/r_k) B_k A_k in every module. Exact but for one rounding of `B` to f32.
///
/// A module's rank is the sum over the adapters that change it and have a weight. Whole tensors in the files
/// (`modules_to_save`, biases) are averaged, and must then be in every file. Of the options only `overwrite` and
/// `allow_different_ancestors` count.
///
/// # Errors
/// If an adapter is not plain LoRA, adapters differ in base, task or shapes, a value is not finite, or the result cannot
/// be written.
///
/// # Examples
/// ```no_run
/// use align_soup::{SoupOptions, Weights, soup_adapters};
///
/// let soup = soup_adapters(&["a/adapter", "b/adapter"], &Weights::uniform(2)?, &SoupOptions::default(), "soup")?;
/// println!("{} modules of rank {} at most", soup.modules, soup.rank);
/// # Ok::<(), align_soup::SoupError>(())
/// ```
pub fn soup_adapters(
    adapters: &[impl AsRef<Path>],
    weights: &Weights,
    options: &SoupOptions,
    out: impl AsRef<Path>,
) -> Result<AdapterSoup, SoupError> {
    let paths: Vec<&Path> = adapters.iter().map(AsRef::as_ref).collect();
    if paths.is_empty() {
        return Err(SoupError::NoIngredients);
    }
    weights.expect_count(paths.len())?;
    let files = paths.iter().map(|path| AdapterFile::open(path, 0)).collect::<Result<Vec<_>, _>>()?;
    let ancestor = expect_alike(&files, options.allow_different_ancestors)?;
    let partial = Partial::begin(out.as_ref(), options.overwrite, &paths)?;

    let counting: Vec<Member<'_>> = files
        .iter()
        .zip(weights.as_slice())
        .enumerate()
        .filter(|(_, (_, weight))| **weight != 0.0)
        .map(|(index, (file, &weight))| Member { index, file, weight })
        .collect();
    let mut tensors = BTreeMap::new();
    let mut ranks = BTreeMap::new();
    for module in counting.iter().flat_map(|member| member.file.pairs.keys()).collect::<BTreeSet<_>>() {
        let [a, b] = joined(&counting, module)?;
        ranks.insert(module.clone(), a.shape[0]);
        tensors.insert(format!("{PREFIX}{module}.lora_A.weight"), a);
        tensors.insert(format!("{PREFIX}{module}.lora_B.weight"), b);
    }
    for name in counting.iter().flat_map(|member| member.file.whole.keys()).collect::<BTreeSet<_>>() {
        let (stored, mean) = averaged(&counting, name)?;
        tensors.insert(stored, mean);
    }

    let path = partial.path().join(WEIGHTS);
    let views = tensors.iter().map(|(name, tensor)| (name, tensor.view()));
    safetensors::serialize_to_file(views, None, &path)
        .map_err(|error| SoupError::Write { path, source: std::io::Error::other(error) })?;
    let rank = ranks.values().copied().max().unwrap_or(1);
    partial.write(CONFIG, &pretty(&configuration(&files[0], &ranks, rank)))?;
    let ingredients: Vec<Value> = paths
        .iter()
        .zip(weights.as_slice())
        .map(|(path, weight)| {
            let name = path.file_name().map(|name| name.to_string_lossy());
            json!({ "name": name, "weight": weight })
        })
        .collect();
    let soup = json!({ "method": "linear", "ingredients": ingredients });
    partial.write("align.json", &pretty(&json!({ "ancestor": ancestor, "soup": soup })))?;
    partial.publish()?;
    let bytes = tensors.values().map(|tensor| tensor.bytes.len() as u64).sum();
    Ok(AdapterSoup { out: out.as_ref().to_owned(), modules: ranks.len(), rank, bytes })
}

/// An adapter with a weight other than zero.
struct Member<'a> {
    index: usize,
    file: &'a AdapterFile,
    weight: f64,
}

impl Member<'_> {
    fn numbers(&self, tensor: &TensorEntry) -> Result<Vec<f64>, SoupError> {
        let values = numbers(tensor, &self.file.shard)?;
        match values.iter().filter(|value| !value.is_finite()).count() as u64 {
            0 => Ok(values),
            count => Err(SoupError::NonFiniteParameter {
                path: tensor.name.clone(),
                ingredient: Ingredient { index: self.index, folder: Some(self.file.path.clone()) },
                count,
            }),
        }
    }
}

/// A tensor of the result.
struct Matrix {
    shape: Vec<usize>,
    /// f32.
    bytes: Vec<u8>,
}

impl Matrix {
    fn new(shape: Vec<usize>, values: impl Iterator<Item = f64>) -> Self {
        Self { shape, bytes: values.flat_map(|value| (value as f32).to_le_bytes()).collect() }
    }

    fn view(&self) -> TensorView<'_> {
        TensorView::new(Dtype::F32, self.shape.clone(), &self.bytes).expect("as many bytes as the shape says")
    }
}

/// `A` and `B` of a module over all members that have it.
fn joined(members: &[Member<'_>], module: &str) -> Result<[Matrix; 2], SoupError> {
    let having: Vec<_> =
        members.iter().filter_map(|member| Some((member, member.file.pairs.get(module)?))).collect();
    let [first_a, first_b] = having[0].1;
    let (inputs, outputs) = (first_a.shape[1], first_b.shape[0]);
    let (mut left, mut right, mut rank) = (Vec::new(), Vec::new(), 0);
    for (member, [a, b]) in &having {
        for (tensor, expected, found) in [(a, inputs, a.shape[1]), (b, outputs, b.shape[0])] {
            if expected != found {
                let shown = |size: usize| size.to_string();
                return Err(differs(member.file, &tensor.name, shown(expected), shown(found)).into());
            }
        }
        let own = a.shape[0];
        let scale = member.weight * member.file.config.scale(module, own);
        left.extend(member.numbers(a)?);
        right.push((own, member.numbers(b)?, scale));
        rank += own;
    }
    let columns = right.iter();
    let b = (0..outputs).flat_map(|row| {
        columns.clone().flat_map(move |(own, values, scale)| {
            values[row * own..(row + 1) * own].iter().map(move |value| scale * value)
        })
    });
    Ok([Matrix::new(vec![rank, inputs], left.into_iter()), Matrix::new(vec![outputs, rank], b)])
}

/// The mean of a tensor that stands whole in the files, under the name the first file has for it.
fn averaged(members: &[Member<'_>], name: &str) -> Result<(String, Matrix), SoupError> {
    let mut mean: Vec<f64> = Vec::new();
    let mut first: Option<&TensorEntry> = None;
    for member in members {
        let Some(tensor) = member.file.whole.get(name) else {
            let expected = "a whole tensor".to_owned();
            return Err(differs(member.file, name, expected, "none".to_owned()).into());
        };
        let expected = &first.get_or_insert(tensor).shape;
        if tensor.shape != *expected {
            return Err(
                differs(member.file, name, format!("{expected:?}"), format!("{:?}", tensor.shape)).into()
            );
        }
        let values = member.numbers(tensor)?;
        mean.resize(values.len(), 0.0);
        mean.iter_mut().zip(values).for_each(|(mean, value)| *mean += member.weight * value);
    }
    let first = first.expect("the name is of a member's file");
    Ok((first.name.clone(), Matrix::new(first.shape.clone(), mean.into_iter())))
}

/// Fails unless the adapters stand on one base and mean the same by their shapes; returns the base's identity if recorded.
fn expect_alike(files: &[AdapterFile], any_base: bool) -> Result<Option<String>, SoupError> {
    let first = &files[0];
    let mut ancestor: Option<String> = None;
    let mut base_name: Option<&str> = None;
    for file in files {
        let (own, others) = (&file.config, &first.config);
        if own.fan_in_fan_out != others.fan_in_fan_out {
            let [expected, found] = [others, own].map(|config| config.fan_in_fan_out.to_string());
            return Err(differs(file, "fan_in_fan_out", expected, found).into());
        }
        if own.task_type != others.task_type {
            let [expected, found] = [others, own].map(|config| format!("{:?}", config.task_type));
            return Err(differs(file, "task_type", expected, found).into());
        }
        if any_base {
            continue;
        }
        let other_base = |recorded: String, expected: String| AdapterError::OtherBase {
            adapter: file.path.clone(),
            recorded,
            expected,
        };
        if let Some(recorded) = named_ancestor(&file.path)? {
            let expected = ancestor.get_or_insert_with(|| recorded.clone());
            if recorded != *expected {
                return Err(other_base(recorded, expected.clone()).into());
            }
        }
        if let Some(name) = own.base_name.as_deref() {
            let expected = *base_name.get_or_insert(name);
            if expected != name {
                return Err(other_base(name.to_owned(), expected.to_owned()).into());
            }
        }
    }
    Ok(ancestor)
}

fn differs(file: &AdapterFile, key: &str, expected: String, found: String) -> AdapterError {
    AdapterError::Differs { adapter: file.path.clone(), key: key.to_owned(), expected, found }
}

/// The first adapter's configuration with the new ranks. α = r, so that `B` holds all of the scale.
fn configuration(first: &AdapterFile, ranks: &BTreeMap<String, usize>, rank: usize) -> Value {
    let others: Map<String, Value> =
        ranks.iter().filter(|(_, own)| **own != rank).map(|(name, own)| (name.clone(), json!(own))).collect();
    let mut config = first.config.map.clone();
    for (key, value) in [
        ("r", json!(rank)),
        ("lora_alpha", json!(rank)),
        ("rank_pattern", json!(others)),
        ("alpha_pattern", json!(others)),
        ("use_rslora", json!(false)),
        ("target_modules", json!(ranks.keys().collect::<Vec<_>>())),
        ("exclude_modules", Value::Null),
        ("layers_to_transform", Value::Null),
        ("layers_pattern", Value::Null),
        ("lora_dropout", json!(0.0)),
        ("init_lora_weights", json!(true)),
        ("inference_mode", json!(true)),
    ] {
        config.insert(key.to_owned(), value);
    }
    Value::Object(config)
}
