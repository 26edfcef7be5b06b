//! What a merge does with every tensor, before any of it is read.

mod slice;
mod vocabulary;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use serde_json::Value as Json;

use self::slice::{Slice, slice_of};
use self::vocabulary::plan_vocabulary;
use super::config::{MergeConfig, is_copy};
use super::config_error::{ConfigError, Problem};
use super::folders_error::FolderMergeError;
use super::layers::{
    LayerName, Stack, is_before_layers, is_buffer, is_by_token, is_head, is_token_embedding,
};
use super::method::{BaseRule, ParameterRule, Scope};
use super::parameters::{Kind, MergeParameters, Value};
use super::reference::{ModelPath, ModelReference};
use super::report::{FolderMergeWarning, MergeOptions};
use super::rows::RowMap;
use super::tokenizer::VocabularyPlan;
use crate::checkpoint::compat;
use crate::checkpoint::open::{Folder, TensorEntry};
use crate::checkpoint::plan::{Plan, Planned, file_dtype};

/// Finds the folder of a model: a path as it is, a hub id through a cache, whatever the caller's names mean.
pub type Resolve<'a> = dyn Fn(&ModelPath) -> Result<PathBuf, Box<dyn std::error::Error + Send + Sync>> + 'a;

/// What is done with a tensor.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// One source as it is.
    Copy,
    /// Not floats: equal in all sources.
    Constant,
    /// Merged by the method.
    Merge(Box<MergeParameters>),
}

/// A tensor of the result, beside its place in the [`Plan`].
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    /// Positions of the models it comes from.
    pub(crate) models: Vec<usize>,
    /// Which of these is the base, for methods that have one.
    pub(crate) base: Option<usize>,
    pub(crate) work: Work,
    /// How rows are found by their tokens; `None` if they stay where they are.
    pub(crate) rows: Option<RowMap>,
    /// Which slice of the result it belongs to.
    slice: usize,
    /// Its names in the sources.
    inputs: Vec<String>,
}

/// What a merge does with every tensor. Displayed, it is one line for each tensor of the result.
pub struct MergePlan {
    /// As the configuration names them; the one whose configuration is copied first.
    pub(crate) models: Vec<ModelReference>,
    pub(crate) folders: Vec<Folder>,
    pub(crate) layout: Plan,
    pub(crate) recipes: Vec<Recipe>,
    pub(crate) vocabulary: Option<VocabularyPlan>,
    /// For each layer of the result, the model and the layer it comes from first.
    pub(crate) layers: Vec<(usize, usize)>,
    pub(crate) warnings: Vec<FolderMergeWarning>,
}

impl MergePlan {
    /// Opens the models and decides about every tensor; nothing but headers, configurations and tokenizers is read.
    ///
    /// # Errors
    /// See [`FolderMergeError`]: models that are not there, of different families or depths, tensors that are missing or
    /// of different shapes, parameters that are missing or out of range, filters without a tensor, vocabularies that
    /// cannot be put together.
    pub fn new(
        config: &MergeConfig,
        resolve: &Resolve<'_>,
        options: &MergeOptions,
    ) -> Result<Self, FolderMergeError> {
        let models: Vec<ModelReference> = config.models().into_iter().cloned().collect();
        let folders = open(&models, resolve)?;
        let mut warnings = Vec::new();
        for (other, model) in folders.iter().zip(&models).skip(1) {
            expect_same_family(&folders[0], &models[0], other, model, &mut warnings)?;
        }
        let stacks = folders
            .iter()
            .zip(&models)
            .map(|(folder, model)| Stack::of(folder, &model.to_string()))
            .collect::<Result<Vec<_>, _>>()?;
        let slices = config
            .slices
            .iter()
            .map(|slice| slice_of(slice, &models, &stacks))
            .collect::<Result<Vec<_>, _>>()?;
        let vocabulary = plan_vocabulary(config, &models, &folders, resolve, options, &mut warnings)?;
        let mut planner = Planner {
            config,
            models: &models,
            folders: &folders,
            vocabulary: vocabulary.as_ref(),
            tensors: Vec::new(),
        };
        let layers = planner.plan(&slices, &stacks)?;
        if !options.allow_unmatched_filters {
            planner.expect_matches()?;
        }
        let (planned, recipes) = planner.tensors.into_iter().unzip();
        let layout = Plan::lay_out(planned, options.max_shard_bytes);
        Ok(Self { models, folders, layout, recipes, vocabulary, layers, warnings })
    }

    /// Bytes of all tensors of the result.
    pub fn bytes(&self) -> u64 {
        self.layout.bytes()
    }

    /// Number of tensors of the result.
    pub fn tensors(&self) -> usize {
        self.recipes.len()
    }

    /// Number of layers of the result.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// What the user should know before it begins.
    pub fn warnings(&self) -> &[FolderMergeWarning] {
        &self.warnings
    }

    /// The models that errors of a method speak of, by their numbers there.
    pub(crate) fn members(&self, recipe: &Recipe) -> String {
        members(&self.models, &recipe.models, recipe.base)
    }
}

fn members(models: &[ModelReference], positions: &[usize], base: Option<usize>) -> String {
    let counted = positions.iter().enumerate().filter(|(position, _)| Some(*position) != base);
    let named =
        counted.enumerate().map(|(index, (_, &model))| format!("models[{index}] is `{}`", models[model]));
    let base = base.map(|base| format!("the base is `{}`", models[positions[base]]));
    base.into_iter().chain(named).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for MergePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (planned, recipe) in self.layout.tensors.iter().zip(&self.recipes) {
            let tensor = &planned.tensor;
            write!(f, "{} {} {:?} = ", tensor.name, tensor.dtype, tensor.shape)?;
            let source = |position: usize| {
                let (model, name) = (&self.models[recipe.models[position]], &planned.sources[position].name);
                let base = if recipe.base == Some(position) { " (base)" } else { "" };
                match *name == tensor.name {
                    true => format!("{model}{base}"),
                    false => format!("{model}:{name}{base}"),
                }
            };
            let sources: Vec<String> = (0..recipe.models.len()).map(source).collect();
            match &recipe.work {
                Work::Copy => write!(f, "copy of {}", sources.join(", "))?,
                Work::Constant => write!(f, "constant of {}", sources.join(", "))?,
                Work::Merge(parameters) => {
                    write!(f, "{}({}){}", parameters.method(), sources.join(", "), shown(parameters))?;
                }
            }
            writeln!(f, "{}", if recipe.rows.is_some() { ", rows by token" } else { "" })?;
        }
        Ok(())
    }
}

/// The parameters of a tensor, those of models in the order of the models.
fn shown(parameters: &MergeParameters) -> String {
    let value = |rule: &ParameterRule| match (rule.parameter.kind(), rule.scope) {
        (Kind::Flag, _) => parameters.flag(rule.parameter).to_string(),
        (Kind::Count, _) => parameters.count(rule.parameter).to_string(),
        (Kind::Number, Scope::Shared) => parameters.number(rule.parameter).to_string(),
        (Kind::Number, Scope::PerModel) => format!("{:?}", parameters.numbers(rule.parameter)),
    };
    let rules = parameters.method().parameters();
    rules.iter().map(|rule| format!(" {}={}", rule.parameter, value(rule))).collect()
}

/// Opens every model, with its adapter where it has one.
fn open(models: &[ModelReference], resolve: &Resolve<'_>) -> Result<Vec<Folder>, FolderMergeError> {
    let path = |path: &ModelPath| {
        resolve(path).map_err(|source| FolderMergeError::Resolve { model: path.to_string(), source })
    };
    let open = |(index, model): (usize, &ModelReference)| {
        let folder = path(&model.model)?;
        Ok(match &model.adapter {
            Some(adapter) => Folder::open_with_adapter(&path(adapter)?, &folder, index)?,
            None => Folder::open(&folder, index)?,
        })
    };
    models.iter().enumerate().map(open).collect()
}

/// Keys of `config.json` that decide what the weights mean.
const FAMILY_KEYS: [&str; 13] = [
    "model_type",
    "architectures",
    "hidden_size",
    "n_embd",
    "intermediate_size",
    "num_attention_heads",
    "n_head",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "activation_function",
    "num_local_experts",
    "num_experts",
];
/// Keys that merges change themselves, or that differ without consequence for the weights.
const FREE_KEYS: [&str; 11] = [
    "num_hidden_layers",
    "n_layer",
    "num_layers",
    "n_layers",
    "layer_types",
    "vocab_size",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "max_window_layers",
];

/// Refuses models whose weights mean different things, and warns of the rest.
fn expect_same_family(
    first: &Folder,
    first_name: &ModelReference,
    other: &Folder,
    name: &ModelReference,
    warnings: &mut Vec<FolderMergeWarning>,
) -> Result<(), FolderMergeError> {
    let (expected, found) = (compat::comparable(&first.config), compat::comparable(&other.config));
    let keys: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    for key in keys {
        let (a, b) = (expected.get(key).unwrap_or(&Json::Null), found.get(key).unwrap_or(&Json::Null));
        if compat::same(a, b) || FREE_KEYS.contains(&key.as_str()) {
            continue;
        }
        if FAMILY_KEYS.contains(&key.as_str()) {
            return Err(FolderMergeError::Family {
                key: key.clone(),
                first: first_name.to_string(),
                expected: Box::new(a.clone()),
                model: name.to_string(),
                found: Box::new(b.clone()),
            });
        }
        warnings.push(FolderMergeWarning::ConfigDiffers { key: key.clone(), model: name.to_string() });
    }
    Ok(())
}

/// Collects the tensors of the result.
struct Planner<'a> {
    config: &'a MergeConfig,
    models: &'a [ModelReference],
    folders: &'a [Folder],
    vocabulary: Option<&'a VocabularyPlan>,
    tensors: Vec<(Planned, Recipe)>,
}

impl Planner<'_> {
    /// What comes before the layers, from the first slice; every layer; what comes after, from the last slice. Returns the
    /// origin of each layer.
    fn plan(
        &mut self,
        slices: &[Slice<'_>],
        stacks: &[Stack],
    ) -> Result<Vec<(usize, usize)>, FolderMergeError> {
        let (first, last) = (0, slices.len() - 1);
        self.loose(first, &slices[first], true)?;
        let mut origins = Vec::new();
        let stack = &stacks[slices[0].models[0]];
        for (index, slice) in slices.iter().enumerate() {
            let layers = slice.layers();
            for offset in 0..layers {
                // A slice of one layer is at its end.
                let t = if layers > 1 { offset as f64 / (layers - 1) as f64 } else { 1.0 };
                for rest in self.layer_tensors(slice, stacks, offset) {
                    let inputs = slice
                        .models
                        .iter()
                        .zip(&slice.ranges)
                        .map(|(&model, range)| stacks[model].tensor(range.start + offset, &rest))
                        .collect();
                    self.tensor(index, slice, stack.tensor(origins.len(), &rest), inputs, t)?;
                }
                origins.push((slice.models[0], slice.ranges[0].start + offset));
            }
        }
        self.loose(last, &slices[last], false)?;
        Ok(origins)
    }

    /// What a layer's tensors are called in it: those of the first source, then those that only others have.
    fn layer_tensors(&self, slice: &Slice<'_>, stacks: &[Stack], offset: usize) -> Vec<String> {
        let mut rests: Vec<String> = Vec::new();
        let mut seen = BTreeSet::new();
        for (&model, range) in slice.models.iter().zip(&slice.ranges) {
            let layer = range.start + offset;
            let names =
                self.folders[model].tensors.iter().filter_map(|tensor| LayerName::parse(&tensor.name));
            for name in names.filter(|name| name.layer == layer && name.stack == stacks[model].name) {
                if seen.insert(name.rest) {
                    rests.push(name.rest.to_owned());
                }
            }
        }
        rests
    }

    /// The tensors of no layer that stand before (or after) the layers.
    fn loose(&mut self, index: usize, slice: &Slice<'_>, before: bool) -> Result<(), FolderMergeError> {
        let mut names: Vec<&str> = Vec::new();
        let mut seen = BTreeSet::new();
        for &model in &slice.models {
            let loose = self.folders[model].tensors.iter().map(|tensor| tensor.name.as_str());
            let loose =
                loose.filter(|name| LayerName::parse(name).is_none() && is_before_layers(name) == before);
            names.extend(loose.filter(|name| seen.insert(*name)));
        }
        for name in names.into_iter().map(str::to_owned).collect::<Vec<_>>() {
            let inputs = vec![name.clone(); slice.models.len()];
            self.tensor(index, slice, name, inputs, 0.0)?;
        }
        Ok(())
    }

    /// Plans one tensor of the result.
    fn tensor(
        &mut self,
        index: usize,
        slice: &Slice<'_>,
        name: String,
        inputs: Vec<String>,
        t: f64,
    ) -> Result<(), FolderMergeError> {
        let base = slice.base.and_then(|base| slice.models.iter().position(|&model| model == base));
        let lead = base.unwrap_or(0);
        let method = self.config.method;
        let mut recipe = Recipe {
            models: slice.models.clone(),
            base: base.filter(|_| method.base() != BaseRule::Counted),
            work: Work::Copy,
            rows: None,
            slice: index,
            inputs,
        };
        if is_buffer(&name) {
            let having =
                |&position: &usize| self.find(recipe.models[position], &recipe.inputs[position]).is_some();
            let positions = std::iter::once(lead).chain(0..recipe.models.len());
            let position = positions.into_iter().find(having).expect("the name came from a source");
            recipe.only(position);
        }
        let sources = self.sources(&recipe)?;
        let lead = if sources.len() == 1 { 0 } else { lead };
        let by_token = is_by_token(&name);
        if let (Some(vocabulary), true) = (self.vocabulary, by_token) {
            let rows: Vec<usize> = sources.iter().map(|source| source.shape[0]).collect();
            recipe.rows = vocabulary.map(&name, &recipe.models, slice.base, &rows)?;
        }
        self.expect_same_form(&name, &recipe, &sources, lead, by_token)?;

        let mut tensor = sources[lead].clone();
        let float = sources[lead].stored_float().map(|own| self.config.dtype.unwrap_or(own));
        if let Some(rows) = &recipe.rows {
            tensor.shape[0] = rows.rows();
        }
        if let Some(float) = float {
            tensor.dtype = file_dtype(float);
            tensor.bytes = tensor.values() * float.size() as u64;
        }
        if !is_buffer(&name) {
            if float.is_none() {
                recipe.work = Work::Constant;
            } else if !is_copy(method, &slice.config.sources, slice.config.base.as_ref()) {
                recipe.work = Work::Merge(Box::new(self.parameters(slice, &recipe, &name, t)?));
            }
        }
        tensor.name = name;
        self.tensors.push((Planned { tensor, sources, float, shard: 0, offset: 0 }, recipe));
        Ok(())
    }

    /// A model's tensor; a head that it lacks is its embedding, to which it is tied.
    fn find(&self, model: usize, name: &str) -> Option<&TensorEntry> {
        let folder = &self.folders[model];
        folder.tensor(name).or_else(|| match is_head(name) && name.ends_with(".weight") {
            true => folder.tensors.iter().find(|tensor| is_token_embedding(&tensor.name)),
            false => None,
        })
    }

    fn sources(&self, recipe: &Recipe) -> Result<Vec<TensorEntry>, FolderMergeError> {
        let find = |(&model, name): (&usize, &String)| {
            self.find(model, name).cloned().ok_or_else(|| {
                let other = |(other, name): &(&usize, &String)| self.folders[**other].tensor(name).is_some();
                let mut named = recipe.models.iter().zip(&recipe.inputs);
                let (&other, counterpart) = named.find(other).expect("the name came from a source");
                FolderMergeError::MissingTensor {
                    model: self.models[model].to_string(),
                    tensor: name.clone(),
                    other: self.models[other].to_string(),
                    counterpart: counterpart.clone(),
                }
            })
        };
        recipe.models.iter().zip(&recipe.inputs).map(find).collect()
    }

    /// Refuses sources that differ in shape, apart from rows that are found by token, or of which only some are floats.
    fn expect_same_form(
        &self,
        name: &str,
        recipe: &Recipe,
        sources: &[TensorEntry],
        lead: usize,
        by_token: bool,
    ) -> Result<(), FolderMergeError> {
        let first = &sources[lead];
        let skipped = usize::from(recipe.rows.is_some());
        for (source, &model) in sources.iter().zip(&recipe.models) {
            let same_rank = source.shape.len() == first.shape.len();
            if !same_rank || source.shape[skipped..] != first.shape[skipped..] {
                return Err(FolderMergeError::Shape {
                    tensor: name.to_owned(),
                    first: self.models[recipe.models[lead]].to_string(),
                    expected: first.shape.clone().into(),
                    model: self.models[model].to_string(),
                    found: source.shape.clone().into(),
                    by_token,
                });
            }
            let floats = source.float().is_some() && first.float().is_some();
            if !floats && source.dtype != first.dtype {
                return Err(FolderMergeError::Kind {
                    tensor: name.to_owned(),
                    first: self.models[recipe.models[lead]].to_string(),
                    expected: first.dtype.to_string().into(),
                    model: self.models[model].to_string(),
                    found: source.dtype.to_string().into(),
                });
            }
        }
        Ok(())
    }

    /// The parameters of one tensor. Those of a model are looked up by the tensor's name in that model: with the model,
    /// then in its slice, then at the top; those of the merge by the name in the result: in the slice, then at the top.
    fn parameters(
        &self,
        slice: &Slice<'_>,
        recipe: &Recipe,
        name: &str,
        t: f64,
    ) -> Result<MergeParameters, FolderMergeError> {
        let method = self.config.method;
        let refused = |source| FolderMergeError::Parameters {
            tensor: name.to_owned(),
            members: members(self.models, &recipe.models, recipe.base),
            source: Box::new(source),
        };
        let others: Vec<usize> =
            (0..recipe.models.len()).filter(|position| Some(*position) != recipe.base).collect();
        let mut parameters = MergeParameters::new(method, others.len());
        for rule in method.parameters() {
            let wide = |name: &str| {
                let parameter = rule.parameter;
                let of_slice = slice.config.parameters.at(parameter, name, t);
                of_slice.or_else(|| self.config.parameters.at(parameter, name, t))
            };
            let missing = |subject: String| -> FolderMergeError {
                let problem = Problem::MissingParameter {
                    method: method.name().to_owned(),
                    parameter: rule.parameter.name().to_owned(),
                    subject,
                };
                ConfigError::At { place: Box::new(slice.config.place.clone()), problem }.into()
            };
            match rule.scope {
                Scope::Shared => match wide(name) {
                    Some(number) => parameters
                        .set(rule.parameter, value(rule.parameter.kind(), number))
                        .map_err(refused)?,
                    None if rule.default.is_none() => return Err(missing(format!("`{name}`"))),
                    None => {}
                },
                Scope::PerModel => {
                    for (model, &position) in others.iter().enumerate() {
                        let input = &recipe.inputs[position];
                        let own = slice.config.sources[position].parameters.at(rule.parameter, input, t);
                        match own.or_else(|| wide(input)) {
                            Some(number) => parameters
                                .set_model(rule.parameter, model, value(rule.parameter.kind(), number))
                                .map_err(refused)?,
                            None if rule.default.is_none() => {
                                let model = &self.models[recipe.models[position]];
                                return Err(missing(format!("`{input}` of `{model}`")));
                            }
                            None => {}
                        }
                    }
                }
            }
        }
        parameters.check().map_err(refused)?;
        Ok(parameters)
    }

    /// Refuses filters that select no tensor.
    fn expect_matches(&self) -> Result<(), ConfigError> {
        let mut everywhere = BTreeSet::new();
        for (index, slice) in self.config.slices.iter().enumerate() {
            let of_slice: Vec<&(Planned, Recipe)> =
                self.tensors.iter().filter(|(_, recipe)| recipe.slice == index).collect();
            let mut here = BTreeSet::new();
            for (position, source) in slice.sources.iter().enumerate() {
                let inputs = of_slice.iter().filter_map(|(_, recipe)| recipe.inputs.get(position));
                let inputs: Vec<&str> = inputs.map(String::as_str).collect();
                source.parameters.expect_matches(&inputs)?;
                here.extend(inputs);
            }
            here.extend(of_slice.iter().map(|(planned, _)| planned.tensor.name.as_str()));
            slice.parameters.expect_matches(&here.iter().copied().collect::<Vec<_>>())?;
            everywhere.extend(here);
        }
        self.config.parameters.expect_matches(&everywhere.into_iter().collect::<Vec<_>>())
    }
}

impl Recipe {
    /// Keeps one source and has it copied.
    fn only(&mut self, position: usize) {
        self.models = vec![self.models[position]];
        self.inputs = vec![self.inputs[position].clone()];
        self.base = None;
    }
}

/// A number of a configuration as what the parameter is. A truth value is 1 or 0 there.
fn value(kind: Kind, number: f64) -> Value {
    match kind {
        Kind::Number => Value::Number(number),
        Kind::Flag => Value::Flag(number != 0.0),
        // A number that is no count is left to the check of kinds.
        Kind::Count if number >= 0.0 && number.fract() == 0.0 && number <= f64::from(u32::MAX) => {
            Value::Count(number as u32)
        }
        Kind::Count => Value::Number(number),
    }
}
