//! Preference pairs under a reward model that is a Burn module.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::activation::log_sigmoid;
use burn::tensor::{Tensor, TensorData};

use super::examples::{ExampleSet, Examples, Part};
use crate::{Parameters, Point};

/// Pairs that a model of type `M` can judge.
///
/// # Shapes
/// [`margins`](Self::margins) returns `[b]` for b rows: reward of the chosen answer less that of the rejected one.
pub trait Margins<M>: Sync {
    /// How many pairs there are.
    fn count(&self) -> usize;

    /// The margins of some pairs. Data stay on the plain device; whether gradients are recorded is the model's matter.
    fn margins(&self, model: &M, rows: &[usize]) -> Tensor<1>;
}

/// [`Margins`] by a closure.
#[derive(Clone, Copy, Debug)]
pub struct MarginsFn<F> {
    /// How many pairs there are.
    pub count: usize,
    /// The margins of some of them, as in [`Margins::margins`].
    pub margins: F,
}

impl<M, F: Fn(&M, &[usize]) -> Tensor<1> + Sync> Margins<M> for MarginsFn<F> {
    fn count(&self) -> usize {
        self.count
    }

    fn margins(&self, model: &M, rows: &[usize]) -> Tensor<1> {
        (self.margins)(model, rows)
    }
}

/// Training and trusted pairs under one model: the loss of a pair is `−ln σ(margin)`.
///
/// The model is evaluated as [`Module::valid`] leaves it, without dropout.
///
/// # Examples
/// A model with one number, the worth of a feature; the last training pair is labelled the wrong way round:
/// ```
/// use std::ops::ControlFlow;
///
/// use align_bilevel::alignment::{CleanConfig, Cleaning, MarginsFn, ModulePairs, Weights, clean};
/// use align_testkit::{device, train_device};
/// use burn::module::{Module, Param};
/// use burn::tensor::Tensor;
///
/// #[derive(Module, Debug)]
/// struct Worth {
///     value: Param<Tensor<1>>,
/// }
///
/// let pairs = |differences: Vec<f32>| MarginsFn {
///     count: differences.len(),
///     margins: move |model: &Worth, rows: &[usize]| {
///         let rows: Vec<f32> = rows.iter().map(|&row| differences[row]).collect();
///         Tensor::from_data(rows.as_slice(), &device()) * model.value.val()
///     },
/// };
/// let model = Worth { value: Param::from_tensor(Tensor::zeros([1], &train_device())) };
/// let examples = ModulePairs::new(model, pairs(vec![1.0, 0.8, -0.9]), pairs(vec![1.0]));
/// let start = examples.start();
/// let problem = Cleaning::new(examples, Weights::per_example(3), 0.01.try_into()?)?;
/// let cleaned = clean(&problem, start, &CleanConfig::default(), |_, _| ControlFlow::Continue(()))?;
/// assert!(cleaned.weights[0] > 0.55 && cleaned.weights[2] < 0.45);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ModulePairs<M, T, V> {
    template: M,
    start: Parameters,
    training: T,
    trusted: V,
    passes_of: usize,
}

impl<M: Module + Sync, T: Margins<M>, V: Margins<M>> ModulePairs<M, T, V> {
    /// The model gives the start and the tensors that are not trained.
    pub fn new(model: M, training: T, trusted: V) -> Self {
        let start = Parameters::of(&model);
        Self { template: model.valid(), start, training, trusted, passes_of: 1024 }
    }

    /// Forward passes without gradients take so many rows at a time; 1024 unless set.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn with_passes_of(self, rows: usize) -> Self {
        assert!(rows > 0, "a pass takes at least one row");
        Self { passes_of: rows, ..self }
    }

    /// Where y starts.
    pub fn start(&self) -> Parameters {
        self.start.clone()
    }

    /// The model at y, for evaluation.
    pub fn model(&self, y: &Parameters) -> M {
        y.put_into(self.template.clone())
    }

    fn margins(&self, model: &M, set: ExampleSet, rows: &[usize]) -> Tensor<1> {
        match set {
            ExampleSet::Training => self.training.margins(model, rows),
            ExampleSet::Trusted => self.trusted.margins(model, rows),
        }
    }
}

impl<M: Module + Sync, T: Margins<M>, V: Margins<M>> Examples for ModulePairs<M, T, V> {
    type Y = Parameters;

    fn count(&self, set: ExampleSet) -> usize {
        match set {
            ExampleSet::Training => self.training.count(),
            ExampleSet::Trusted => self.trusted.count(),
        }
    }

    fn losses(&self, y: &Parameters, set: ExampleSet, rows: &[usize]) -> Vec<f64> {
        let model = self.model(y);
        let pass = |rows| log_sigmoid(self.margins(&model, set, rows)).neg().into_data();
        rows.chunks(self.passes_of).flat_map(|rows| pass(rows).iter::<f64>().collect::<Vec<_>>()).collect()
    }

    fn gradient(&self, y: &Parameters, parts: &[Part<'_>]) -> Parameters {
        let model = y.put_into_recording(self.template.clone());
        let term = |part: &Part<'_>| {
            let losses = log_sigmoid(self.margins(&model, part.set, part.rows)).neg();
            let coefficients = TensorData::new(part.coefficients.to_vec(), [part.coefficients.len()]);
            let device = losses.device().without_autodiff();
            let coefficients: Tensor<1> = Tensor::from_data(coefficients, (&device, losses.dtype()));
            (losses * coefficients).sum()
        };
        match parts.iter().map(term).reduce(|sum, term| sum + term) {
            Some(loss) if loss.is_tracked() => {
                self.start.from_gradients(&model, GradientsParams::from_grads(loss.backward(), &model))
            }
            _ => self.start.zeros(),
        }
    }
}
