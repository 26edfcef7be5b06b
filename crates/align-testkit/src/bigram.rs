//! A policy whose every expectation can be enumerated.

use std::path::Path;

use align_core::draws::Purpose;
use align_core::persist::{read_module, write_module};
use align_core::{CausalLm, Draws, Persist, PersistError, TokenBatch};
use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::Enumeration;

/// `p(next | last token)`: a table of logits `[V, V]`, one row for each last token.
#[derive(Module, Debug)]
pub struct BigramLm {
    /// Row `u`, column `v`: the logit of `v` after `u`.
    pub table: Param<Tensor<2>>,
}

impl BigramLm {
    /// From rows of logits, in f32.
    ///
    /// # Panics
    /// If the table is not square.
    pub fn from_logits(rows: Vec<Vec<f32>>, device: &Device) -> Self {
        let v = rows.len();
        let flat: Vec<f32> = rows.into_iter().flatten().collect();
        assert_eq!(flat.len(), v * v, "a bigram table has as many columns as rows");
        Self::from_table(Tensor::from_data(TensorData::new(flat, [v, v]), (device, DType::F32)))
    }

    /// The same distribution after every token: a policy of independent tokens.
    pub fn independent(logits: &[f32], device: &Device) -> Self {
        Self::from_logits(vec![logits.to_vec(); logits.len()], device)
    }

    /// Logits uniform on [−2, 2), decided by the seed of `draws` alone.
    pub fn random(v: usize, draws: &Draws, device: &Device) -> Self {
        let logit = |row, column| 4.0 * draws.token(Purpose::Initialize, 0, row, 0, column) - 2.0;
        let row = |u: usize| (0..v).map(|c| logit(u as u64, c as u32) as f32).collect();
        Self::from_logits((0..v).map(row).collect(), device)
    }

    /// The same table in f64, for checks to more digits than f32 has.
    #[must_use]
    pub fn to_double(&self) -> Self {
        let recording = self.table.val().is_autodiff();
        let table = self.table.val().without_autodiff().cast(DType::F64);
        Self::from_table(if recording { table.autodiff() } else { table })
    }

    fn from_table(table: Tensor<2>) -> Self {
        Self { table: Param::from_tensor(table) }
    }

    /// Every response to `prompt` up to `length` tokens; one that reaches `eos` ends with it.
    pub fn enumerate(&self, prompt: &[u32], length: usize, eos: Option<u32>) -> Enumeration {
        Enumeration::new(self.vocab_size(), prompt, length, eos, &self.device())
    }
}

impl CausalLm for BigramLm {
    fn logits(&self, tokens: &TokenBatch) -> Tensor<3> {
        let [b, t] = tokens.ids.dims();
        let table = self.table.val();
        let [_, v] = table.dims();
        table.select(0, tokens.ids.clone().reshape([b * t])).reshape([b, t, v])
    }

    fn vocab_size(&self) -> usize {
        self.table.val().dims()[1]
    }

    fn device(&self) -> Device {
        self.table.val().device()
    }
}

impl Persist for BigramLm {
    fn save(&self, folder: &Path) -> Result<(), PersistError> {
        write_module(self, &folder.join("bigram.safetensors"))
    }

    fn restore(self, folder: &Path) -> Result<Self, PersistError> {
        read_module(self, &folder.join("bigram.safetensors"))
    }
}
