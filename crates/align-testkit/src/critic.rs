//! A critic as small as the bigram policy.

use std::path::Path;

use align_core::persist::{read_module, write_module};
use align_core::{Completions, Critic, Persist, PersistError};
use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};

/// A value for each last token, `[V]`.
#[derive(Module, Debug)]
pub struct BigramCritic {
    /// Entry `u`: the value after `u`.
    pub table: Param<Tensor<1>>,
}

impl BigramCritic {
    /// From one value for each token, in f32.
    pub fn from_values(values: &[f32], device: &Device) -> Self {
        let data = TensorData::new(values.to_vec(), [values.len()]);
        Self { table: Param::from_tensor(Tensor::from_data(data, (device, DType::F32))) }
    }

    /// Zero everywhere.
    pub fn zeros(v: usize, device: &Device) -> Self {
        Self::from_values(&vec![0.0; v], device)
    }
}

impl Critic for BigramCritic {
    fn values(&self, completions: &Completions) -> Tensor<2> {
        let [_, p] = completions.prompt.ids.dims();
        let [b, r] = completions.response.ids.dims();
        // The token before each response token: the last of the prompt, then the response up to the last but one.
        let before = completions.joined().ids.slice([0..b, p - 1..p + r - 1]).reshape([b * r]);
        let values = self.table.val().select(0, before).reshape([b, r]);
        values.mask_fill(completions.response.mask.clone().bool_not(), 0.0)
    }
}

impl Persist for BigramCritic {
    fn save(&self, folder: &Path) -> Result<(), PersistError> {
        write_module(self, &folder.join("bigram-critic.safetensors"))
    }

    fn restore(self, folder: &Path) -> Result<Self, PersistError> {
        read_module(self, &folder.join("bigram-critic.safetensors"))
    }
}
