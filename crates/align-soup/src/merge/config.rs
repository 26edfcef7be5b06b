//! Merge configurations in mergekit's form.
//!
//! ```yaml
//! models:
//!   - model: ./math
//!     parameters: { weight: 0.6, density: [1.0, 0.5] }   # from the first layer to the last
//!   - model: ./code+./code-adapter
//!     parameters:
//!       weight:
//!         - { filter: mlp, value: 0.3 }                  # tensors whose name contains `mlp`
//!         - value: 0.5                                   # all others
//! merge_method: ties
//! base_model: ./base
//! dtype: bfloat16
//! ```
//!
//! # Departures from mergekit
//! - Keys and parameters without meaning are refused; mergekit ignores them. So is a filter that is in no tensor's name.
//! - `dtype` is the type that is written (as `out_dtype`, which goes before it). mergekit rounds the inputs to it and
//!   computes in it; here arithmetic is in f64, and the result is rounded once.
//! - Without `base_model` the first model named stands for configuration and tokenizer; mergekit takes any.
//! - A slice of one source is a copy in `slerp` and `nuslerp`, as in mergekit 0.1.4.
//! - A path that begins with `@` is a name for the caller to resolve.
//!
//! # Source
//! mergekit's `config.py` and `plan.py`, version 0.1.5, <https://github.com/arcee-ai/mergekit>.

use std::path::Path;

use super::LoneRule;
use super::config_error::{ConfigError, Problem};
use super::document::{At, Content, Node, nearest_of};
use super::method::{BaseRule, Method, Scope};
use super::reference::ModelReference;
use super::setting::Settings;
use crate::mix::FloatDtype;

const KEYS: [&str; 11] = [
    "models",
    "slices",
    "modules",
    "merge_method",
    "base_model",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "tokenizer",
    "chat_template",
];
/// What mergekit or its sister commands read at the top level, and why it is not read here.
const ELSEWHERE: [(&str, &str); 4] = [
    ("experts", "this is a configuration of mergekit-moe, which makes another architecture"),
    ("gate_mode", "this is a configuration of mergekit-moe, which makes another architecture"),
    ("trust_remote_code", "no code of a checkpoint is ever run"),
    ("name", "this is a configuration of mergekit-multi; make its merges one after the other"),
];
/// Methods of mergekit that are not merged here, and what comes near.
const OTHER_METHODS: [(&str, &str); 4] = [
    ("nearswap", "`linear` or `slerp` with a small share of the other model come near"),
    ("arcee_fusion", "`sce` selects what matters by its variance"),
    ("ram", "`ties` and `sce` resolve conflicts between models"),
    ("ramplus_tl", "`ties` and `sce` resolve conflicts between models"),
];

/// A merge as it was asked for.
///
/// # Examples
/// ```
/// use align_soup::merge::{MergeConfig, Method};
///
/// let config = MergeConfig::from_yaml(
///     "merge.yml",
///     "
/// models:
///   - { model: a, parameters: { weight: 0.25 } }
///   - { model: b, parameters: { weight: 0.75 } }
/// merge_method: linear
/// ",
/// )?;
/// assert_eq!(config.method(), Method::Linear);
///
/// let refused = MergeConfig::from_yaml("merge.yml", "models: [{ model: a }]\nmerge_methd: linear\n");
/// let expected = "merge.yml:2: `merge_methd`: unknown key; did you mean `merge_method`?";
/// assert_eq!(refused.unwrap_err().to_string(), expected);
/// # Ok::<(), align_soup::merge::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct MergeConfig {
    pub(crate) method: Method,
    pub(crate) base: Option<ModelReference>,
    pub(crate) slices: Vec<OutputSlice>,
    pub(crate) parameters: Settings,
    pub(crate) dtype: Option<FloatDtype>,
    pub(crate) tokenizer: Option<TokenizerConfig>,
    pub(crate) chat_template: Option<ChatTemplate>,
    /// As it was written.
    pub(crate) text: String,
}

/// Layers of the result and where they come from.
#[derive(Clone, Debug)]
pub(crate) struct OutputSlice {
    pub(crate) sources: Vec<SliceSource>,
    /// The slice's own, or that of the whole merge.
    pub(crate) base: Option<ModelReference>,
    pub(crate) parameters: Settings,
    /// Where it stands, for errors.
    pub(crate) place: super::config_error::Place,
}

/// A model's share of a slice.
#[derive(Clone, Debug)]
pub(crate) struct SliceSource {
    pub(crate) model: ModelReference,
    /// First layer and one past the last; `None` for all.
    pub(crate) layers: Option<(usize, usize)>,
    pub(crate) parameters: Settings,
}

/// The vocabulary of the result.
#[derive(Clone, Debug)]
pub(crate) struct TokenizerConfig {
    pub(crate) source: TokenizerSource,
    pub(crate) tokens: Vec<(String, TokenConfig)>,
    pub(crate) pad_to_multiple_of: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenizerSource {
    /// The base model's, or the first model's.
    Base,
    /// Every token of every model.
    Union,
    /// That of one model.
    Model(ModelReference),
}

/// Where a token's rows come from.
#[derive(Clone, Debug)]
pub(crate) struct TokenConfig {
    pub(crate) source: TokenSource,
    /// Also in models that have the token.
    pub(crate) force: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenSource {
    Zero,
    /// The same token of a model.
    Model(ModelReference),
    /// Another token of a model, by its text.
    Token(ModelReference, String),
    /// A row of a model's.
    Row(ModelReference, usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ChatTemplate {
    /// The most frequent among the models.
    Auto,
    Text(String),
}

/// ChatML as OpenAI published it, <https://github.com/openai/openai-python/blob/release-v0.28.0/chatml.md>.
const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + \
                      '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' \
                      }}{% endif %}";

impl MergeConfig {
    /// Reads a configuration from a file.
    ///
    /// # Errors
    /// As [`MergeConfig::from_yaml`], or if the file cannot be read.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::from_yaml(&path.display().to_string(), &text)
    }

    /// Reads a configuration from text; `name` is what errors begin with.
    ///
    /// # Errors
    /// If the text is not YAML, or says something that has no meaning or cannot be done. The error names line and key.
    pub fn from_yaml(name: &str, text: &str) -> Result<Self, ConfigError> {
        read_config(&At::root(name, &Node::parse(name, text)?), text.to_owned())
    }

    /// Reads a configuration from a value of the same form, such as a table of a recipe.
    ///
    /// # Errors
    /// As [`MergeConfig::from_yaml`]; there are no lines to name.
    pub fn from_value(name: &str, value: &serde_json::Value) -> Result<Self, ConfigError> {
        read_config(&At::root(name, &Node::of_json(value)), format!("{value:#}\n"))
    }

    /// How the models are merged.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The base model, if there is one for all slices.
    pub fn base_model(&self) -> Option<&ModelReference> {
        self.base.as_ref()
    }

    /// Every model that is read, once each, the one whose configuration and tokenizer are copied first.
    pub fn models(&self) -> Vec<&ModelReference> {
        let mut models: Vec<&ModelReference> = Vec::new();
        let sources = self.slices.iter().flat_map(|slice| &slice.sources).map(|source| &source.model);
        for model in self.base.iter().chain(sources) {
            if !models.contains(&model) {
                models.push(model);
            }
        }
        models
    }
}

fn read_config(root: &At<'_>, text: String) -> Result<MergeConfig, ConfigError> {
    for (key, value) in root.entries()? {
        if let Some((what, instead)) = ELSEWHERE.iter().find(|(what, _)| *what == key) {
            return Err(value.refuse(Problem::Unsupported { what: (*what).to_owned(), instead }));
        }
    }
    root.only(&KEYS)?;
    let method = read_method(&root.require("merge_method")?)?;
    let base = root.get("base_model")?.map(|base| ModelReference::read(&base)).transpose()?;
    let slices = read_layout(root, method, base.as_ref())?;
    let parameters = read_settings(root, method, true)?;
    let dtype = match root.get("out_dtype")? {
        Some(dtype) => Some(read_dtype(&dtype)?),
        None => root.get("dtype")?.map(|dtype| read_dtype(&dtype)).transpose()?,
    };
    let tokenizer = read_tokenizer(root)?;
    let chat_template = root.get("chat_template")?.map(|template| read_template(&template)).transpose()?;
    Ok(MergeConfig { method, base, slices, parameters, dtype, tokenizer, chat_template, text })
}

fn read_method(at: &At<'_>) -> Result<Method, ConfigError> {
    let found = at.text()?;
    if let Some((what, instead)) = OTHER_METHODS.iter().find(|(what, _)| *what == found) {
        return Err(at.refuse(Problem::Unsupported { what: (*what).to_owned(), instead }));
    }
    found.parse().map_err(|_| {
        let known = Method::ALL.map(Method::name);
        at.refuse(Problem::UnknownMethod {
            found: found.to_owned(),
            nearest: nearest_of(found, &known),
            known: known.map(str::to_owned).to_vec(),
        })
    })
}

/// `models`, `slices`, or one module that holds either.
fn read_layout(
    root: &At<'_>,
    method: Method,
    base: Option<&ModelReference>,
) -> Result<Vec<OutputSlice>, ConfigError> {
    let found = [root.get("models")?, root.get("slices")?, root.get("modules")?];
    match found {
        [Some(models), None, None] => Ok(vec![read_models(&models, method, base)?]),
        [None, Some(slices), None] => slices.items()?.iter().map(|at| read_slice(at, method, base)).collect(),
        [None, None, Some(modules)] => read_module(&modules, method, base),
        _ => {
            let names = ["models", "slices", "modules"];
            let there: Vec<&str> = names
                .into_iter()
                .zip(&found)
                .filter(|(_, found)| found.is_some())
                .map(|(name, _)| name)
                .collect();
            let found = if there.is_empty() { "none".to_owned() } else { there.join(" and ") };
            Err(root.refuse(Problem::ExactlyOne { expected: "`models`, `slices` and `modules`", found }))
        }
    }
}

/// Models of one module are what `modules` says of `default`.
fn read_module(
    modules: &At<'_>,
    method: Method,
    base: Option<&ModelReference>,
) -> Result<Vec<OutputSlice>, ConfigError> {
    let entries = modules.entries()?;
    let [("default", module)] = entries.as_slice() else {
        let instead = "one stack of layers is merged: give its `models` or `slices` at the top level";
        return Err(modules.refuse(Problem::Unsupported { what: "modules".to_owned(), instead }));
    };
    module.only(&["models", "slices", "parameters"])?;
    if let Some(parameters) = module.get("parameters")? {
        let instead = "with one module these are the parameters at the top level";
        return Err(parameters
            .refuse(Problem::Unsupported { what: "modules.default.parameters".to_owned(), instead }));
    }
    read_layout(module, method, base)
}

/// Whole models: one slice of all layers, with the base added where it is not listed.
fn read_models(
    at: &At<'_>,
    method: Method,
    base: Option<&ModelReference>,
) -> Result<OutputSlice, ConfigError> {
    let mut sources = Vec::new();
    for model in at.items()? {
        model.only(&["model", "parameters"])?;
        let reference = ModelReference::read(&model.require("model")?)?;
        let parameters = read_settings(&model, method, false)?;
        sources.push((model, SliceSource { model: reference, layers: None, parameters }));
    }
    let mut sources = expect_distinct(sources)?;
    if let Some(base) = base
        && !sources.iter().any(|source| source.model == *base)
    {
        sources.push(SliceSource { model: base.clone(), layers: None, parameters: Settings::default() });
    }
    expect_models(at, method, &sources, base)?;
    Ok(OutputSlice { sources, base: base.cloned(), parameters: Settings::default(), place: at.place() })
}

fn read_slice(
    at: &At<'_>,
    method: Method,
    base: Option<&ModelReference>,
) -> Result<OutputSlice, ConfigError> {
    at.only(&["sources", "base_model", "parameters", "residual_weight"])?;
    if let Some(weight) = at.get("residual_weight")? {
        let instead = "mergekit reads it and does nothing with it";
        return Err(weight.refuse(Problem::Unsupported { what: "residual_weight".to_owned(), instead }));
    }
    let mut sources = Vec::new();
    for source in at.require("sources")?.items()? {
        source.only(&["model", "layer_range", "parameters"])?;
        let model = ModelReference::read(&source.require("model")?)?;
        let range = source.require("layer_range")?;
        let ends = range.items()?.iter().map(At::index).collect::<Result<Vec<_>, _>>()?;
        let &[first, end] = ends.as_slice() else { return Err(range.expected("two numbers of layers")) };
        if first >= end {
            return Err(range.refuse(Problem::LayerRange { first, end }));
        }
        let parameters = read_settings(&source, method, false)?;
        sources.push((source, SliceSource { model, layers: Some((first, end)), parameters }));
    }
    let length = |source: &SliceSource| source.layers.map_or(0, |(first, end)| end - first);
    let first = length(&sources[0].1);
    if let Some((place, other)) = sources.iter().find(|(_, source)| length(source) != first) {
        let (other, model) = (length(other), other.model.to_string());
        return Err(place.refuse(Problem::LayerCounts { first, other, model }));
    }
    let sources = expect_distinct(sources)?;
    let own = at.get("base_model")?.map(|base| ModelReference::read(&base)).transpose()?;
    let base = own.or_else(|| base.cloned());
    expect_models(at, method, &sources, base.as_ref())?;
    Ok(OutputSlice { sources, base, parameters: read_settings(at, method, true)?, place: at.place() })
}

fn expect_distinct(sources: Vec<(At<'_>, SliceSource)>) -> Result<Vec<SliceSource>, ConfigError> {
    for (index, (at, source)) in sources.iter().enumerate() {
        if sources[..index].iter().any(|(_, earlier)| earlier.model == source.model) {
            return Err(at.refuse(Problem::Twice { model: source.model.to_string() }));
        }
    }
    Ok(sources.into_iter().map(|(_, source)| source).collect())
}

/// Refuses a slice with more or fewer models than the method merges, or without the base it needs.
fn expect_models(
    at: &At<'_>,
    method: Method,
    sources: &[SliceSource],
    base: Option<&ModelReference>,
) -> Result<(), ConfigError> {
    if is_copy(method, sources, base) {
        return Ok(());
    }
    let name = method.name().to_owned();
    let has_base = base.is_some_and(|base| sources.iter().any(|source| source.model == *base));
    match (method.base(), base) {
        (BaseRule::Required, None) => return Err(at.refuse(Problem::BaseMissing { method: name })),
        (BaseRule::Required | BaseRule::Optional, Some(base)) if !has_base => {
            return Err(at.refuse(Problem::BaseNotInSlice { base: base.to_string(), method: name }));
        }
        _ => {}
    }
    let taken = usize::from(has_base && method.base() != BaseRule::Counted);
    let found = sources.len() - taken;
    let allowed = method.models();
    if allowed.contains(&found) {
        return Ok(());
    }
    let number = match (*allowed.start(), *allowed.end()) {
        (low, usize::MAX) => format!("{low} or more models"),
        (low, high) if low == high => format!("{low} model{}", if low == 1 { "" } else { "s" }),
        (low, high) => format!("{low} to {high} models"),
    };
    let expected = match method.base() {
        BaseRule::Required => format!("{number} beside the base"),
        BaseRule::Optional if taken == 1 => format!("{number} beside the base"),
        _ => number,
    };
    Err(at.refuse(Problem::ModelCount { method: name, expected, found }))
}

/// Whether a slice is one model's layers as they are: with spherical methods any model's, with task vectors the base's.
pub(crate) fn is_copy(method: Method, sources: &[SliceSource], base: Option<&ModelReference>) -> bool {
    let [only] = sources else { return false };
    method.lone() == LoneRule::Copy || (method.base() == BaseRule::Required && base == Some(&only.model))
}

/// The `parameters` of a map. Those of one model are the method's parameters of models; elsewhere all may stand.
fn read_settings(at: &At<'_>, method: Method, shared: bool) -> Result<Settings, ConfigError> {
    let rules = method.parameters();
    let all: Vec<&str> = rules.iter().map(|rule| rule.parameter.name()).collect();
    let own: Vec<&str> =
        rules.iter().filter(|rule| rule.scope == Scope::PerModel).map(|rule| rule.parameter.name()).collect();
    let known = if shared { &all } else { &own };
    Settings::read(at.get("parameters")?.as_ref(), |name, value| {
        if known.contains(&name) {
            return Ok(());
        }
        Err(value.refuse(if all.contains(&name) {
            Problem::NotPerModel { parameter: name.to_owned() }
        } else {
            Problem::UnknownParameter {
                method: method.name().to_owned(),
                nearest: nearest_of(name, known),
                known: known.iter().map(|&name| name.to_owned()).collect(),
            }
        }))
    })
}

fn read_dtype(at: &At<'_>) -> Result<FloatDtype, ConfigError> {
    let text = at.text()?;
    text.strip_prefix("torch.")
        .unwrap_or(text)
        .parse()
        .map_err(|_| at.expected("float64, float32, float16 or bfloat16"))
}

fn read_tokenizer(root: &At<'_>) -> Result<Option<TokenizerConfig>, ConfigError> {
    let source = |at: &At<'_>| -> Result<TokenizerSource, ConfigError> {
        Ok(match at.content() {
            Content::Text(text) if text == "base" => TokenizerSource::Base,
            Content::Text(text) if text == "union" => TokenizerSource::Union,
            _ => TokenizerSource::Model(ModelReference::read(at)?),
        })
    };
    match (root.get("tokenizer_source")?, root.get("tokenizer")?) {
        (None, None) => Ok(None),
        (Some(at), None) => {
            Ok(Some(TokenizerConfig { source: source(&at)?, tokens: Vec::new(), pad_to_multiple_of: None }))
        }
        (None, Some(at)) => {
            at.only(&["source", "tokens", "pad_to_multiple_of"])?;
            let source =
                at.get("source")?.map(|at| source(&at)).transpose()?.unwrap_or(TokenizerSource::Union);
            let mut tokens = Vec::new();
            if let Some(at) = at.get("tokens")? {
                for (token, at) in at.entries()? {
                    tokens.push((token.to_owned(), read_token(&at)?));
                }
            }
            let multiple = at.get("pad_to_multiple_of")?;
            let pad_to_multiple_of = multiple
                .map(|at| match at.index()? {
                    0 => Err(at.expected("a whole number from 1")),
                    multiple => Ok(multiple),
                })
                .transpose()?;
            Ok(Some(TokenizerConfig { source, tokens, pad_to_multiple_of }))
        }
        (Some(_), Some(_)) => Err(root.refuse(Problem::ExactlyOne {
            expected: "`tokenizer_source` and `tokenizer`",
            found: "both".to_owned(),
        })),
    }
}

fn read_token(at: &At<'_>) -> Result<TokenConfig, ConfigError> {
    at.only(&["source", "force"])?;
    let force = at.get("force")?.map(|force| force.truth()).transpose()?.unwrap_or(false);
    let source = at.require("source")?;
    let kind = match source.content() {
        Content::Map(_) => source.get("kind")?,
        _ => None,
    };
    let source = match kind.as_ref().map(At::text).transpose()? {
        None => TokenSource::Model(ModelReference::read(&source)?),
        Some("zero") => {
            source.only(&["kind"])?;
            TokenSource::Zero
        }
        Some("model_token") => {
            source.only(&["kind", "model", "token", "token_id"])?;
            let model = ModelReference::read(&source.require("model")?)?;
            match (source.get("token")?, source.get("token_id")?) {
                (Some(token), None) => TokenSource::Token(model, token.text()?.to_owned()),
                (None, Some(id)) => TokenSource::Row(model, id.index()?),
                (token, _) => {
                    let found = if token.is_some() { "both" } else { "none" }.to_owned();
                    return Err(
                        source.refuse(Problem::ExactlyOne { expected: "`token` and `token_id`", found })
                    );
                }
            }
        }
        Some(_) => return Err(source.expected("`kind: zero` or `kind: model_token`, or a model")),
    };
    Ok(TokenConfig { source, force })
}

fn read_template(at: &At<'_>) -> Result<ChatTemplate, ConfigError> {
    match at.text()? {
        "auto" => Ok(ChatTemplate::Auto),
        "chatml" => Ok(ChatTemplate::Text(CHATML.to_owned())),
        text if text.len() >= 20 && text.contains('{') => Ok(ChatTemplate::Text(text.to_owned())),
        text => Err(at.refuse(Problem::ChatTemplate { found: text.to_owned() })),
    }
}
