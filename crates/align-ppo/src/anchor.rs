//! What the policy is held to: a reference that stands still, or one that follows the policy.

use std::collections::BTreeMap;
use std::path::Path;

use align_core::{Completions, Frozen, Persist, PersistError, Policy, Reference};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use align_core::number::{Fraction, UnitInterval};

/// The reference of the regulariser.
///
/// ```text
/// SALSA          Frozen::new(&soup).into()
/// plain PPO      Frozen::new(&sft).into()
/// TR-DPO's sync  MovingReference::new(&policy, Following::default()).into()
/// ```
pub enum Anchor<P> {
    /// Anything that stands still: a frozen model, a soup, a cache.
    Fixed(Box<dyn Reference>),
    /// Weights that follow the policy; part of the checkpoint.
    Moving(MovingReference<P>),
}

impl<P> From<Box<dyn Reference>> for Anchor<P> {
    fn from(reference: Box<dyn Reference>) -> Self {
        Self::Fixed(reference)
    }
}

impl<P, M: align_core::CausalLm + 'static> From<Frozen<M>> for Anchor<P> {
    fn from(model: Frozen<M>) -> Self {
        Self::Fixed(Box::new(model))
    }
}

impl<P> From<MovingReference<P>> for Anchor<P> {
    fn from(reference: MovingReference<P>) -> Self {
        Self::Moving(reference)
    }
}

impl<P: Policy> Anchor<P> {
    /// Log-probabilities of the response tokens, constants, `[B, R]`.
    pub fn log_probs(&self, completions: &Completions, temperature: f64) -> Tensor<2> {
        match self {
            Self::Fixed(reference) => reference.log_probs(completions, temperature).without_autodiff(),
            Self::Moving(moving) => moving.model.log_probs(completions, temperature),
        }
    }

    /// The reference as it stands.
    pub fn as_reference(&self) -> &dyn Reference {
        match self {
            Self::Fixed(reference) => reference.as_ref(),
            Self::Moving(moving) => &moving.model,
        }
    }
}

/// How a reference follows the policy, iteration by iteration.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Following {
    /// After every iteration `θ_ref ← decay·θ_ref + (1 − decay)·θ`.
    Ema {
        /// What stays of the old reference.
        decay: UnitInterval,
    },
    /// Every so many iterations `θ_ref ← alpha·θ + (1 − alpha)·θ_ref` (TRL's `sync_ref_model`).
    Periodic {
        /// Iterations between two syncs; TRL's `ref_model_sync_steps`, 512.
        #[serde(alias = "ref_model_sync_steps")]
        every: u64,
        /// Weight of the policy; TRL's `ref_model_mixup_alpha`, 0.6.
        #[serde(alias = "ref_model_mixup_alpha")]
        alpha: Fraction,
    },
}

impl Default for Following {
    /// TRL's `sync_ref_model`: every 512 iterations, 0.6 of the policy.
    ///
    /// # Source
    /// Gorbatovski et al. 2024 (TR-DPO), <https://arxiv.org/abs/2404.09656>.
    fn default() -> Self {
        Self::Periodic { every: 512, alpha: Fraction::literal(0.6) }
    }
}

impl Following {
    /// Weight of the policy after `iterations` complete iterations, if the reference moves then.
    pub fn weight(&self, iterations: u64) -> Option<f64> {
        match *self {
            Self::Ema { decay } => Some(1.0 - decay.get()),
            Self::Periodic { every, alpha } => {
                (every > 0 && iterations.is_multiple_of(every)).then(|| alpha.get())
            }
        }
    }
}

/// A reference of the policy's own shape that follows it.
#[derive(Clone, Debug)]
pub struct MovingReference<P> {
    model: P,
    following: Following,
}

impl<P: Policy> MovingReference<P> {
    /// Starts at `model`, usually the initial policy or a soup.
    pub fn new(model: &P, following: Following) -> Self {
        Self { model: model.valid(), following }
    }

    /// The reference's weights as they stand.
    pub fn model(&self) -> &P {
        &self.model
    }

    /// Moves after the given number of complete iterations.
    pub fn follow(&mut self, policy: &P, iterations: u64) {
        if let Some(weight) = self.following.weight(iterations) {
            self.model = mix(&self.model, policy, weight);
        }
    }
}

impl<P: Policy + Persist> MovingReference<P> {
    /// Writes the reference's weights into an existing folder.
    ///
    /// # Errors
    /// As the model's own.
    pub fn save(&self, folder: &Path) -> Result<(), PersistError> {
        self.model.save(folder)
    }

    /// Takes over what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// As the model's own.
    pub fn restore(&mut self, folder: &Path) -> Result<(), PersistError> {
        self.model = self.model.clone().restore(folder)?.valid();
        Ok(())
    }
}

/// `(1 − weight)·a + weight·b`, parameter by parameter, without gradients; parameters are matched by path.
///
/// # Panics
/// If the modules differ in structure.
pub fn mix<M: Module>(a: &M, b: &M, weight: f64) -> M {
    let mut collect = Collect::default();
    b.visit(&mut collect);
    a.valid().map(&mut Mix { path: Vec::new(), others: collect.tensors, weight })
}

/// Every float parameter, flat, by path.
#[derive(Default)]
struct Collect {
    path: Vec<String>,
    tensors: BTreeMap<String, Tensor<1>>,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let value = parameter.val().without_autodiff();
        let count = value.shape().num_elements();
        self.tensors.insert(self.path.join("."), value.reshape([count]));
    }
}

struct Mix {
    path: Vec<String>,
    others: BTreeMap<String, Tensor<1>>,
    weight: f64,
}

impl ModuleMapper for Mix {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        let other = self.others.remove(&path).unwrap_or_else(|| panic!("both modules have `{path}`"));
        let weight = self.weight;
        // On plain tensors: a mapper that computes on recorded ones would make parameters without gradients.
        parameter.map(|tensor| {
            let tensor = tensor.without_autodiff();
            let other = other.reshape(tensor.shape());
            tensor * (1.0 - weight) + other * weight
        })
    }
}
