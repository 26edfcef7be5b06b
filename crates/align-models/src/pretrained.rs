//! Language models from and to Hugging Face folders.

use std::path::Path;

use align_core::persist::{read_module, replace_folder, write_module};
use align_core::{Persist, PersistError};
use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use serde_json::{Map, Value};

use crate::backbone::Backbone;
use crate::checkpoint::{CheckpointError, Extra, Folder, SaveOptions, head_name, persist_error, save_model};
use crate::config::Architecture;
use crate::transformer::Transformer;

impl Transformer {
    /// Reads a Hugging Face folder in f32: `config.json` and `model.safetensors`, or the shards an index names.
    ///
    /// # Errors
    /// If a file is missing or damaged, the family or an option is not supported, weights are missing, surplus or of the
    /// wrong shape, or a number is not finite.
    pub fn from_pretrained(folder: &Path, device: &Device) -> Result<Self, CheckpointError> {
        Self::from_pretrained_as(folder, device, DType::F32)
    }

    /// As [`Transformer::from_pretrained`], with weights of another type in memory, such as [`DType::BF16`].
    ///
    /// # Errors
    /// As [`Transformer::from_pretrained`].
    pub fn from_pretrained_as(folder: &Path, device: &Device, dtype: DType) -> Result<Self, CheckpointError> {
        let folder = Folder::open(folder)?;
        let head = folder.language_head();
        let is_tied = folder.config.tied;
        let mut weights = folder.weights(&head, !is_tied, device, dtype)?;
        let own = (!is_tied)
            .then(|| -> Result<_, CheckpointError> {
                let shape = [folder.config.vocab_size, folder.config.hidden_size];
                let data = TensorData::new(folder.numbers(&head.name)?, shape);
                Ok(Param::from_tensor(Tensor::from_data(data, (device, dtype))))
            })
            .transpose()?;
        Ok(Self { backbone: Backbone::assemble(folder.config, &mut weights), head: own })
    }

    /// Writes a Hugging Face folder that transformers loads; a folder that stood there is replaced as a whole.
    ///
    /// Adapters are merged, so that the folder computes what the model computes.
    ///
    /// # Errors
    /// If it cannot be written; what stood there is untouched.
    pub fn save_pretrained(&self, folder: &Path) -> Result<(), CheckpointError> {
        replace_folder(folder, |folder| self.save_into(folder, &SaveOptions::default()))
    }

    /// Writes configuration and weights into an existing folder and leaves its other files alone. Adapters are merged.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save_into(&self, folder: &Path, options: &SaveOptions) -> Result<(), CheckpointError> {
        let head = self
            .head
            .as_ref()
            .map(|head| (head_name(self.config().family).to_owned(), head.val().without_autodiff()));
        let extra = Extra { architecture: Architecture::CausalLm, head, config: Map::new() };
        save_model(&self.backbone, extra, folder, options)
    }
}

/// Every parameter under its module's path, written beside the folder of an adapted model.
const PARAMETERS: &str = "adapted.safetensors";

/// Bit for bit: the model's own type, nothing rounded. The folder of a model without adapters is a Hugging Face folder. With
/// adapters it is one too, of the merged model, and a second file holds base and adapters apart.
impl Persist for Transformer {
    fn save(&self, folder: &Path) -> Result<(), PersistError> {
        self.save_into(folder, &SaveOptions::default()).map_err(persist_error(folder))?;
        save_apart(self, &self.backbone, folder)
    }

    fn restore(self, folder: &Path) -> Result<Self, PersistError> {
        if self.has_adapters() {
            return restore_apart(self, folder);
        }
        let read = Self::from_pretrained_as(folder, &self.backbone.device(), self.backbone.dtype());
        let read = read.map_err(persist_error(folder))?;
        same_config(&self.backbone, &read.backbone, folder)?;
        Ok(adopt(self, &read))
    }
}

/// Writes the parameters of an adapted model one by one; the folder's other weights are merged ones.
pub(crate) fn save_apart<M: Module>(
    module: &M,
    backbone: &Backbone,
    folder: &Path,
) -> Result<(), PersistError> {
    if backbone.has_adapters() { write_module(module, &folder.join(PARAMETERS)) } else { Ok(()) }
}

/// Reads what [`save_apart`] wrote.
pub(crate) fn restore_apart<M: Module>(module: M, folder: &Path) -> Result<M, PersistError> {
    read_module(module, &folder.join(PARAMETERS))
}

/// A value is restored only from one of the same structure.
pub(crate) fn same_config(own: &Backbone, read: &Backbone, folder: &Path) -> Result<(), PersistError> {
    if own.config() == read.config() {
        return Ok(());
    }
    let [own, read] = [own, read].map(|side| side.config().to_map(Architecture::CausalLm, ""));
    let (mut expected, mut found) = (Vec::new(), Vec::new());
    for key in own.keys().chain(read.keys().filter(|key| !own.contains_key(*key))) {
        if own.get(key) != read.get(key) {
            let show = |side: &Map<String, Value>| format!("{key} {}", side.get(key).unwrap_or(&Value::Null));
            expected.push(show(&own));
            found.push(show(&read));
        }
    }
    Err(PersistError::Damaged {
        path: folder.join("config.json"),
        expected: expected.join(", "),
        found: found.join(", "),
    })
}

/// The values of one module under the parameter ids and gradient settings of another of the same structure.
pub(crate) fn adopt<M: Module>(module: M, values: &M) -> M {
    use burn::module::{ModuleMapper, ModuleVisitor};
    use burn::tensor::container::TensorContainer;

    struct Collect {
        path: Vec<String>,
        found: TensorContainer<String>,
    }
    impl ModuleVisitor for Collect {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.found.register(self.path.join("."), param.val().without_autodiff());
        }
    }
    struct Replace {
        path: Vec<String>,
        found: TensorContainer<String>,
    }
    impl ModuleMapper for Replace {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let value: Option<Tensor<D>> = self.found.remove(&self.path.join("."));
            let Some(value) = value else { return param };
            param.map(|old| {
                let (records, keeps_gradient) = (old.is_autodiff(), old.is_require_grad());
                // A computed tensor would be no leaf and get no gradient.
                if records { value.autodiff().set_require_grad(keeps_gradient) } else { value }
            })
        }
    }
    let mut collect = Collect { path: Vec::new(), found: TensorContainer::new() };
    values.visit(&mut collect);
    module.map(&mut Replace { path: Vec::new(), found: collect.found })
}
