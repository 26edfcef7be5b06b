//! Small modules and data for the tests.

use std::path::{Path, PathBuf};

use align_core::draws::Purpose;
use align_core::number::{NonNegative, Positive};
use align_core::persist::{read_module, write_module};
use align_core::{Completions, Demonstrations, Draws, Persist, PersistError};
use align_testkit::{BigramLm, device, plain, train_device};
use align_train::{
    Algorithm, BatchesFn, Learner, Loss, NextToken, Objective, OptimizerConfig, Supervised, TrainError,
};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

/// `tanh(x W₁ + b) W₂`, with matrices and a vector.
#[derive(Module, Debug)]
pub(crate) struct Net {
    pub(crate) first: Param<Tensor<2>>,
    pub(crate) bias: Param<Tensor<1>>,
    pub(crate) second: Param<Tensor<2>>,
}

impl Net {
    /// Weights decided by the seed alone.
    pub(crate) fn new(seed: u64, device: &Device) -> Self {
        let draws = Draws::new(seed);
        let values = |tensor: u64, count: u32| -> Vec<f32> {
            (0..count).map(|i| draws.token(Purpose::Initialize, 0, tensor, 0, i) as f32 - 0.5).collect()
        };
        let tensor = |data: Vec<f32>| Tensor::<1>::from_floats(data.as_slice(), device);
        Self {
            first: Param::from_tensor(tensor(values(0, 12)).reshape([3, 4]).detach()),
            bias: Param::from_tensor(tensor(values(1, 4)).detach()),
            second: Param::from_tensor(tensor(values(2, 4)).reshape([4, 1]).detach()),
        }
    }

    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        (x.matmul(self.first.val()) + self.bias.val().unsqueeze()).tanh().matmul(self.second.val())
    }
}

impl Persist for Net {
    fn save(&self, folder: &Path) -> Result<(), PersistError> {
        write_module(self, &folder.join("net.safetensors"))
    }
    fn restore(self, folder: &Path) -> Result<Self, PersistError> {
        read_module(self, &folder.join("net.safetensors"))
    }
}

/// Rows of inputs and their targets.
#[derive(Clone)]
pub(crate) struct Rows(pub(crate) Tensor<2>, pub(crate) Tensor<2>);

pub(crate) fn rows() -> Rows {
    Rows(
        plain([[1.0, 0.5, -1.0], [0.0, 2.0, 0.3], [-1.0, 0.2, 0.7], [0.4, -0.6, 1.5]]),
        plain([[1.0], [-1.0], [0.5], [0.0]]),
    )
}

/// `Σ (f(x) − y)²`, weighted by the number of rows.
pub(crate) struct Squares;

impl Objective<Net> for Squares {
    type Batch = Rows;
    fn loss(&self, model: &Net, Rows(x, y): &Rows) -> Loss {
        let value = (model.forward(x.clone()) - y.clone()).square().sum();
        Loss::new(value, x.dims()[0] as f64)
    }
}

/// An objective by closure.
pub(crate) struct By<F>(pub(crate) F);

impl<M, F: Fn(&M) -> Loss> Objective<M> for By<F> {
    type Batch = ();
    fn loss(&self, model: &M, (): &()) -> Loss {
        (self.0)(model)
    }
}

/// A configuration whose steps are large enough to see.
pub(crate) fn brisk() -> OptimizerConfig {
    OptimizerConfig {
        learning_rate: Positive::literal(0.1),
        max_grad_norm: NonNegative::literal(0.0),
        ..OptimizerConfig::default()
    }
}

pub(crate) fn learner(config: OptimizerConfig) -> Learner<Net> {
    Learner::new(Net::new(1, &train_device()), config, 10).unwrap()
}

/// All float tensors of a module as bits, in order: equal means equal to the last bit.
pub(crate) fn bits<M: Module>(module: &M) -> Vec<u32> {
    struct Bits(Vec<u32>);
    impl ModuleVisitor for Bits {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.extend(param.base().to_data().iter::<f32>().map(f32::to_bits));
        }
    }
    let mut all = Bits(Vec::new());
    module.visit(&mut all);
    all.0
}

pub(crate) const VOCABULARY: usize = 7;

/// Eight ragged completions, drawn for one step.
pub(crate) fn completions(step: u64) -> Vec<Demonstrations> {
    let draws = Draws::new(11);
    let number = |row: u64, position: u32, below: u32| {
        (draws.token(Purpose::Synthesize, step, row, 0, position) * f64::from(below)) as u32
    };
    let row = |row: u64, length: u32, salt: u32| -> Vec<u32> {
        (0..length).map(|i| number(row, salt + i, VOCABULARY as u32)).collect()
    };
    (0..8u64)
        .map(|index| {
            let length = 1 + number(index, 1000, 6);
            Completions::from_rows(&[row(index, 2, 0)], &[row(index, length, 100)], &device()).into()
        })
        .collect()
}

/// The rows of several completions in one batch.
pub(crate) fn joined(parts: &[Demonstrations]) -> Demonstrations {
    let prompts: Vec<_> = parts.iter().flat_map(|part| part.completions.prompt.rows()).collect();
    let responses: Vec<_> = parts.iter().flat_map(|part| part.completions.response.rows()).collect();
    Completions::from_rows(&prompts, &responses, &device()).into()
}

/// Fine-tunes a bigram table; everything is a function of the step.
pub(crate) fn fine_tuning(total: u64) -> impl Algorithm {
    let model = BigramLm::random(VOCABULARY, &Draws::new(5), &train_device());
    let learner = Learner::new(model, brisk(), total).unwrap();
    Supervised::new(learner, NextToken, BatchesFn(|step| Ok::<_, TrainError>(completions(step))))
}

/// An empty folder that is removed when dropped, and a path below it.
pub(crate) fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    (folder, path)
}

/// A message with those of its sources.
pub(crate) fn message(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}
