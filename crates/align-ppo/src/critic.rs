//! The absence of a critic, as a type.

use align_core::{Completions, Critic, Persist, PersistError};
use burn::module::Module;
use burn::tensor::Tensor;
use std::path::Path;

/// Stands for the critic's type where there is none: `PpoParts { critic: None::<NoCritic>, .. }`.
#[derive(Module, Debug)]
pub struct NoCritic {}

impl Critic for NoCritic {
    fn values(&self, completions: &Completions) -> Tensor<2> {
        Tensor::zeros(completions.response.ids.dims(), &completions.response.ids.device())
    }
}

impl Persist for NoCritic {
    fn save(&self, _: &Path) -> Result<(), PersistError> {
        Ok(())
    }
    fn restore(self, _: &Path) -> Result<Self, PersistError> {
        Ok(self)
    }
}
