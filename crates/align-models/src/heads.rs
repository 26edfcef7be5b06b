//! Scalar heads: reward models and critics.

use std::path::Path;

use align_core::persist::replace_folder;
use align_core::{Completions, Critic, Draws, Persist, PersistError, Reward, TokenBatch};
use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::backbone::Backbone;
use crate::checkpoint::{
    CheckpointError, Extra, Folder, Head, SaveOptions, head_name, persist_error, save_model,
};
use crate::config::Architecture;
use crate::lora::LoraConfig;
use crate::pretrained::{adopt, restore_apart, same_config, save_apart};
use crate::transformer::Transformer;
use crate::weights::normal;

/// The head's tensor in the files of `*ForSequenceClassification`.
const SCORE: &str = "score.weight";
/// The key of `config.json` under which normalisation is kept. Transformers passes unknown keys over.
const NORMALIZATION: &str = "align_normalization";
/// Where the draws of the head stand, far from those of any backbone parameter.
const HEAD_DRAWS: u64 = 1 << 33;

/// A linear map from a hidden state to one number, without a bias.
#[derive(Module, Debug)]
pub struct ScalarHead {
    /// `[1, E]`, as files hold it.
    weight: Param<Tensor<2>>,
}

impl ScalarHead {
    /// Draws the weights from a normal distribution with standard deviation `1/√(E + 1)`.
    ///
    /// # Source
    /// Stiennon et al. 2020, appendix B.1, <https://arxiv.org/abs/2009.01325>; `ppo-details` 9.
    pub fn init(width: usize, draws: &Draws, device: &Device) -> Self {
        let values = normal(draws, HEAD_DRAWS, width, 1.0 / ((width + 1) as f64).sqrt());
        let data = TensorData::new(values, [1, width]);
        Self { weight: Param::from_tensor(Tensor::from_data(data, (device, DType::F32))) }
    }

    /// # Shapes
    /// `[N, E]` → `[N]`, in f32.
    pub fn forward(&self, hidden: Tensor<2>) -> Tensor<1> {
        let weight = self.weight.val();
        let hidden = if hidden.dtype() == weight.dtype() { hidden } else { hidden.cast(weight.dtype()) };
        let scores = hidden.matmul(weight.transpose()).squeeze_dim::<1>(1);
        if scores.dtype() == DType::F32 { scores } else { scores.cast(DType::F32) }
    }
}

/// Makes scores comparable: `gain · raw + bias`. Chosen after training so that reference completions have mean 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalization {
    /// Multiplies the raw score.
    pub gain: f64,
    /// Added afterwards.
    pub bias: f64,
}

impl Default for Normalization {
    /// Changes nothing.
    fn default() -> Self {
        Self { gain: 1.0, bias: 0.0 }
    }
}

/// A decoder that scores completions: what transformers calls `*ForSequenceClassification` with one label.
#[derive(Module, Debug)]
pub struct RewardModel {
    backbone: Backbone,
    head: ScalarHead,
    #[module(skip)]
    normalization: Normalization,
}

/// A decoder that predicts the return at every token.
#[derive(Module, Debug)]
pub struct ValueModel {
    backbone: Backbone,
    head: ScalarHead,
}

impl RewardModel {
    /// A new head on the decoder of a language model. Parameters get ids of their own: the two can be trained side by side.
    pub fn from_transformer(model: &Transformer, draws: &Draws) -> Self {
        let backbone = fresh_ids(model.backbone().without_adapters());
        let head = ScalarHead::init(model.config().hidden_size, draws, &backbone.device());
        Self { backbone, head, normalization: Normalization::default() }
    }

    /// Reads a folder of `*ForSequenceClassification` with one label. With `init_head`, a folder without a head (of a language
    /// model, say) gets a new one.
    ///
    /// # Errors
    /// [`CheckpointError::MissingHead`] if there is no head and none was asked for; otherwise as
    /// [`Transformer::from_pretrained`].
    pub fn from_pretrained(
        folder: &Path,
        device: &Device,
        init_head: Option<&Draws>,
    ) -> Result<Self, CheckpointError> {
        Self::from_pretrained_as(folder, device, DType::F32, init_head)
    }

    /// As [`RewardModel::from_pretrained`], with weights of another type in memory, such as [`DType::BF16`]. Scores are f32.
    ///
    /// # Errors
    /// As [`RewardModel::from_pretrained`].
    pub fn from_pretrained_as(
        folder: &Path,
        device: &Device,
        dtype: DType,
        init_head: Option<&Draws>,
    ) -> Result<Self, CheckpointError> {
        let folder = Folder::open(folder)?;
        let normalization = match folder.hf.0.get(NORMALIZATION) {
            None => Normalization::default(),
            Some(value) => serde_json::from_value(value.clone()).map_err(|error| {
                let path = folder.path().join("config.json");
                CheckpointError::damaged(
                    &path,
                    format!("gain and bias in `{NORMALIZATION}`"),
                    error.to_string(),
                )
            })?,
        };
        let (backbone, head) = read_scored(folder, device, dtype, init_head)?;
        Ok(Self { backbone, head, normalization })
    }

    /// The decoder.
    pub fn backbone(&self) -> &Backbone {
        &self.backbone
    }

    pub(crate) fn head_weight(&self) -> Tensor<2> {
        self.head.weight.val()
    }

    /// Raw scores on the model's own scale.
    pub(crate) fn normalized(&self, raw: Tensor<1>) -> Tensor<1> {
        let Normalization { gain, bias } = self.normalization;
        raw * gain + bias
    }

    /// The model with everything before layer `shared` taken from another decoder, whose storage it then shares.
    pub(crate) fn sharing(mut self, base: &Backbone, shared: usize) -> Self {
        self.backbone.embedding = base.embedding.clone();
        self.backbone.position_embedding = base.position_embedding.clone();
        self.backbone.layers[..shared].clone_from_slice(&base.layers[..shared]);
        self
    }

    /// The model with another decoder and, if there is one, another head.
    pub(crate) fn with_parts(self, backbone: Backbone, head: Option<Param<Tensor<2>>>) -> Self {
        let head = head.map_or(self.head, |weight| ScalarHead { weight });
        Self { backbone, head, ..self }
    }

    /// The normalisation that [`Reward::score`] applies.
    pub fn normalization(&self) -> Normalization {
        self.normalization
    }

    /// The same model with another normalisation.
    pub fn with_normalization(self, normalization: Normalization) -> Self {
        Self { normalization, ..self }
    }

    /// The same decoder with a new head and no normalisation: how members of an ensemble begin.
    pub fn with_new_head(self, draws: &Draws) -> Self {
        let head = ScalarHead::init(self.backbone.config().hidden_size, draws, &self.backbone.device());
        Self { head, normalization: Normalization::default(), ..self }
    }

    /// The model with fresh adapters: they and the head are trained, the decoder's own weights are not.
    ///
    /// # Panics
    /// If the rank is 0 or dropout is not in [0, 1).
    pub fn with_adapters(self, config: &LoraConfig, draws: &Draws) -> Self {
        Self { backbone: self.backbone.with_adapters(config, draws), ..self }
    }

    /// An ordinary model with the adapters folded into its weights, all of them trainable.
    pub fn merged(&self) -> Self {
        Self { backbone: self.backbone.merged(), ..self.clone() }
    }

    /// Names the masks of the adapters' dropout in the next forward passes, as
    /// [`Transformer::with_dropout`](crate::Transformer::with_dropout).
    pub fn with_dropout(self, draws: &Draws, step: u64) -> Self {
        Self { backbone: self.backbone.with_dropout(draws, step), ..self }
    }

    /// Scores before normalisation, at the last token of each row that counts.
    ///
    /// # Shapes
    /// → `[B]`.
    ///
    /// # Gradient
    /// Through the weights, if the model is training. This is what a ranking loss is made of.
    ///
    /// # Panics
    /// If prompt and response of a row are both empty.
    pub fn raw_scores(&self, completions: &Completions) -> Tensor<1> {
        self.raw_scores_of_rows(&completions.joined().rows())
    }

    /// [`RewardModel::raw_scores`] of texts given as tokens.
    ///
    /// # Shapes
    /// B rows → `[B]`.
    ///
    /// # Panics
    /// If a row is empty.
    pub fn raw_scores_of_rows(&self, rows: &[Vec<u32>]) -> Tensor<1> {
        self.score_last(self.backbone.hidden(&Self::packed(rows, &self.backbone.device())), rows)
    }

    /// Rows packed anew, so that padding between prompt and response costs nothing.
    pub(crate) fn packed(rows: &[Vec<u32>], device: &Device) -> TokenBatch {
        TokenBatch::right_padded(rows, device)
    }

    /// Scores of packed rows from their hidden states.
    ///
    /// # Shapes
    /// `[B, T, E]` → `[B]`.
    pub(crate) fn score_last(&self, hidden: Tensor<3>, rows: &[Vec<u32>]) -> Tensor<1> {
        let [b, t, e] = hidden.dims();
        let last: Vec<i64> = rows
            .iter()
            .enumerate()
            .map(|(row, tokens)| {
                assert!(!tokens.is_empty(), "row {row} is empty, expected at least one token");
                (row * t + tokens.len() - 1) as i64
            })
            .collect();
        let last =
            Tensor::<1, Int>::from_data(TensorData::new(last, [b]), &hidden.device().without_autodiff());
        self.head.forward(hidden.reshape([b * t, e]).select(0, last))
    }

    /// Writes a folder that transformers loads as `*ForSequenceClassification`; a folder that stood there is replaced.
    ///
    /// Transformers finds the last token by the padding id, so one is named even if the model has none: the beginning of
    /// text, which never ends one, or 0. Adapters are merged.
    ///
    /// # Errors
    /// If it cannot be written; what stood there is untouched.
    pub fn save_pretrained(&self, folder: &Path) -> Result<(), CheckpointError> {
        replace_folder(folder, |folder| self.save_into(folder, &SaveOptions::default()))
    }

    /// Writes configuration and weights into an existing folder and leaves its other files alone.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save_into(&self, folder: &Path, options: &SaveOptions) -> Result<(), CheckpointError> {
        let keys = Map::from_iter([(NORMALIZATION.to_owned(), json!(self.normalization))]);
        save_scored(&self.backbone, &self.head, keys, folder, options)
    }
}

impl Reward for RewardModel {
    fn score(&self, completions: &Completions) -> Tensor<1> {
        self.normalized(self.valid().raw_scores(completions))
    }
}

impl Persist for RewardModel {
    fn save(&self, folder: &Path) -> Result<(), PersistError> {
        self.save_into(folder, &SaveOptions::default()).map_err(persist_error(folder))?;
        save_apart(self, &self.backbone, folder)
    }

    fn restore(self, folder: &Path) -> Result<Self, PersistError> {
        if self.backbone.has_adapters() {
            return restore_apart(self, folder);
        }
        let read = Self::from_pretrained_as(folder, &self.backbone.device(), self.backbone.dtype(), None);
        let read = read.map_err(persist_error(folder))?;
        same_config(&self.backbone, &read.backbone, folder)?;
        let normalization = read.normalization;
        Ok(adopt(self, &read).with_normalization(normalization))
    }
}

impl ValueModel {
    /// A new head on the decoder of a language model. Parameters get ids of their own: policy and critic can be one module.
    pub fn from_transformer(model: &Transformer, draws: &Draws) -> Self {
        let RewardModel { backbone, head, .. } = RewardModel::from_transformer(model, draws);
        Self { backbone, head }
    }

    /// A critic that starts as the reward model: its decoder and its head, with the gain of the normalisation in the head's
    /// weights. The bias has no place in a head without one and is left out.
    pub fn from_reward_model(model: &RewardModel) -> Self {
        let gain = model.normalization.gain;
        let head = ScalarHead { weight: Param::from_tensor(scaled(model.head.weight.val(), gain)) };
        Self { backbone: fresh_ids(model.backbone.without_adapters()), head }
    }

    /// The same decoder with a new head.
    pub fn with_new_head(self, draws: &Draws) -> Self {
        let head = ScalarHead::init(self.backbone.config().hidden_size, draws, &self.backbone.device());
        Self { head, ..self }
    }

    /// The model with fresh adapters: they and the head are trained, the decoder's own weights are not. A critic made from a
    /// policy's base shares it in memory.
    ///
    /// # Panics
    /// If the rank is 0 or dropout is not in [0, 1).
    pub fn with_adapters(self, config: &LoraConfig, draws: &Draws) -> Self {
        Self { backbone: self.backbone.with_adapters(config, draws), ..self }
    }

    /// Reads a folder that [`ValueModel::save_pretrained`] or [`RewardModel::save_pretrained`] wrote.
    ///
    /// # Errors
    /// As [`RewardModel::from_pretrained`].
    pub fn from_pretrained(
        folder: &Path,
        device: &Device,
        init_head: Option<&Draws>,
    ) -> Result<Self, CheckpointError> {
        let (backbone, head) = read_scored(Folder::open(folder)?, device, DType::F32, init_head)?;
        Ok(Self { backbone, head })
    }

    /// Writes the form of [`RewardModel::save_pretrained`], without a normalisation.
    ///
    /// # Errors
    /// If it cannot be written; what stood there is untouched.
    pub fn save_pretrained(&self, folder: &Path) -> Result<(), CheckpointError> {
        replace_folder(folder, |folder| self.save_into(folder, &SaveOptions::default()))
    }

    /// Writes configuration and weights into an existing folder and leaves its other files alone.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save_into(&self, folder: &Path, options: &SaveOptions) -> Result<(), CheckpointError> {
        save_scored(&self.backbone, &self.head, Map::new(), folder, options)
    }

    /// The decoder.
    pub fn backbone(&self) -> &Backbone {
        &self.backbone
    }
}

impl Critic for ValueModel {
    fn values(&self, completions: &Completions) -> Tensor<2> {
        let hidden = self.backbone.hidden_before_responses(completions);
        let [b, r, e] = hidden.dims();
        let values = self.head.forward(hidden.reshape([b * r, e])).reshape([b, r]);
        values.mask_fill(completions.response.mask.clone().without_autodiff().bool_not(), 0.0)
    }
}

impl Persist for ValueModel {
    fn save(&self, folder: &Path) -> Result<(), PersistError> {
        self.save_into(folder, &SaveOptions::default()).map_err(persist_error(folder))?;
        save_apart(self, &self.backbone, folder)
    }

    fn restore(self, folder: &Path) -> Result<Self, PersistError> {
        if self.backbone.has_adapters() {
            return restore_apart(self, folder);
        }
        let read = Folder::open(folder)
            .and_then(|opened| read_scored(opened, &self.backbone.device(), self.backbone.dtype(), None));
        let (backbone, head) = read.map_err(persist_error(folder))?;
        same_config(&self.backbone, &backbone, folder)?;
        Ok(adopt(self, &Self { backbone, head }))
    }
}

fn read_scored(
    folder: Folder,
    device: &Device,
    dtype: DType,
    init_head: Option<&Draws>,
) -> Result<(Backbone, ScalarHead), CheckpointError> {
    let width = folder.config.hidden_size;
    let head = Head {
        name: SCORE.into(),
        shape: vec![1, width],
        // The head of the language model it grew from.
        ignored: vec![head_name(folder.config.family).into()],
    };
    let has_head = folder.contains(SCORE);
    if !has_head && init_head.is_none() {
        return Err(CheckpointError::MissingHead {
            folder: folder.path().to_owned(),
            expected: SCORE.into(),
        });
    }
    let mut weights = folder.weights(&head, has_head, device, dtype)?;
    let own = match init_head {
        Some(draws) if !has_head => ScalarHead::init(width, draws, device),
        _ => {
            let data = TensorData::new(folder.numbers(SCORE)?, [1, width]);
            ScalarHead { weight: Param::from_tensor(Tensor::from_data(data, (device, dtype))) }
        }
    };
    Ok((Backbone::assemble(folder.config, &mut weights), own))
}

fn save_scored(
    backbone: &Backbone,
    head: &ScalarHead,
    mut keys: Map<String, Value>,
    folder: &Path,
    options: &SaveOptions,
) -> Result<(), CheckpointError> {
    keys.insert("num_labels".into(), json!(1));
    keys.insert("id2label".into(), json!({ "0": "LABEL_0" }));
    keys.insert("label2id".into(), json!({ "LABEL_0": 0 }));
    let tokens = &backbone.config().tokens;
    keys.insert("pad_token_id".into(), json!(tokens.pad.or(tokens.bos).unwrap_or(0)));
    let extra = Extra {
        architecture: Architecture::SequenceClassification,
        head: Some((SCORE.to_owned(), head.weight.val().without_autodiff())),
        config: keys,
    };
    save_model(backbone, extra, folder, options)
}

/// A leaf of its own with the values times `factor`.
fn scaled(tensor: Tensor<2>, factor: f64) -> Tensor<2> {
    let records = tensor.is_autodiff();
    let scaled = tensor.without_autodiff() * factor;
    if records { scaled.autodiff() } else { scaled }
}

/// The same values under new ids and free to train: gradients and optimizer state are kept by id, and those of a critic must
/// not meet those of the policy it was cloned from.
fn fresh_ids<M: Module>(module: M) -> M {
    struct Renew;
    impl ModuleMapper for Renew {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (_, tensor, mapper) = param.consume();
            let tensor = if tensor.is_autodiff() { tensor.without_autodiff().autodiff() } else { tensor };
            Param::from_mapped_value(ParamId::new(), tensor, mapper).set_require_grad(true)
        }
    }
    module.map(&mut Renew)
}
