//! Gradients by path, and the walk over a module's parameters.

use std::collections::{BTreeMap, HashMap};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor};

use crate::error::TrainError;
use crate::metrics::Metrics;

/// One float tensor of a module.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Names from the root to the tensor, joined by dots.
    pub path: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Whether it is trained.
    pub trainable: bool,
    /// Where it lives.
    pub device: Device,
}

/// Lists the float tensors of a module, in its own order. Lazy tensors are drawn on the way.
///
/// # Errors
/// If a trainable parameter stands at two paths.
pub fn parameters<M: Module>(module: &M) -> Result<Vec<Parameter>, TrainError> {
    struct List {
        path: Vec<String>,
        found: Vec<Parameter>,
        seen: HashMap<ParamId, String>,
        shared: Option<(String, String)>,
    }
    impl ModuleVisitor for List {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let path = self.path.join(".");
            let trainable = param.is_require_grad();
            if trainable && let Some(first) = self.seen.insert(param.id, path.clone()) {
                self.shared.get_or_insert((first, path.clone()));
            }
            let tensor = param.base();
            let (shape, device) = (tensor.dims().to_vec(), tensor.device().without_autodiff());
            self.found.push(Parameter { path, shape, trainable, device });
        }
    }
    let mut list = List { path: Vec::new(), found: Vec::new(), seen: HashMap::new(), shared: None };
    module.visit(&mut list);
    match list.shared {
        Some((first, second)) => Err(TrainError::SharedParameter { first, second }),
        None => Ok(list.found),
    }
}

/// The paths of trainable tensors that hold nothing but zeros.
pub(crate) fn zero_tensors<M: Module>(module: &M) -> Vec<String> {
    struct Zeros(Vec<String>, Vec<String>);
    impl ModuleVisitor for Zeros {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.0.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.is_require_grad() && largest(param.base().without_autodiff().flatten_all()) == 0.0 {
                self.1.push(self.0.join("."));
            }
        }
    }
    let mut zeros = Zeros(Vec::new(), Vec::new());
    module.visit(&mut zeros);
    zeros.1
}

/// Any rank as `[N]`.
trait FlattenAll {
    fn flatten_all(self) -> Tensor<1>;
}

impl<const D: usize> FlattenAll for Tensor<D> {
    fn flatten_all(self) -> Tensor<1> {
        let elements = self.shape().num_elements();
        self.reshape([elements])
    }
}

/// `max |x|`; NaN where there is one.
pub(crate) fn largest(tensor: Tensor<1>) -> f64 {
    tensor.abs().max().to_data().iter::<f64>().fold(0.0, |a, b| if b.is_nan() { b } else { a.max(b) })
}

/// What the microbatches of one optimizer step, or of one replica's share of it, add up to.
///
/// Nothing is divided yet, so the shares of several replicas simply [merge](Self::merge): an average over replicas,
/// weighted by what counted on each, has its place there.
#[derive(Clone, Debug, Default)]
pub struct StepGradients {
    /// Summed gradients, `[N]` each in f32 and untracked, by path.
    pub sums: BTreeMap<String, Tensor<1>>,
    /// The summed loss.
    pub loss: f64,
    /// What it is a sum over.
    pub weight: f64,
    /// Each microbatch's metrics and weight.
    pub metrics: Vec<(f64, Metrics)>,
}

impl StepGradients {
    /// The sum of two shares of the same step.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        for (path, gradient) in other.sums {
            self.add(path, gradient);
        }
        self.loss += other.loss;
        self.weight += other.weight;
        self.metrics.extend(other.metrics);
        self
    }

    /// Adds one microbatch's gradients, path by path.
    pub(crate) fn accumulate<M: Module>(&mut self, module: &M, gradients: GradientsParams) {
        struct Fold<'a> {
            path: Vec<String>,
            gradients: GradientsParams,
            into: &'a mut StepGradients,
        }
        impl ModuleVisitor for Fold<'_> {
            fn enter_module(&mut self, name: &str, _: &str) {
                self.path.push(name.to_owned());
            }
            fn exit_module(&mut self, _: &str, _: &str) {
                self.path.pop();
            }
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if let Some(gradient) = self.gradients.remove::<D>(param.id) {
                    let gradient = gradient.without_autodiff().flatten_all().cast(DType::F32);
                    self.into.add(self.path.join("."), gradient);
                }
            }
        }
        module.visit(&mut Fold { path: Vec::new(), gradients, into: self });
    }

    fn add(&mut self, path: String, gradient: Tensor<1>) {
        let sum = match self.sums.remove(&path) {
            Some(sum) => sum + gradient,
            None => gradient,
        };
        self.sums.insert(path, sum);
    }

    /// `‖Σ g‖` of every tensor, in order of path.
    pub(crate) fn norms(&self) -> Vec<(String, f64)> {
        let sums = align_kernels::square_sums(&self.sums.values().collect::<Vec<_>>());
        self.sums.keys().cloned().zip(sums.into_iter().map(f64::sqrt)).collect()
    }
}

/// Gives every tensor that has a gradient to `update(path, rank, parameter, gradient)` and puts back what it returns.
///
/// Parameter and gradient are `[N]`, in f32 and untracked. What comes back is a leaf again, with the same id, type and
/// checkpointing strategy: computing on the tracked tensor would make a non-leaf that never gets a gradient again,
/// without an error. Tensors without a gradient are not touched.
pub(crate) fn update_parameters<M: Module>(
    module: M,
    gradients: BTreeMap<String, Tensor<1>>,
    update: impl FnMut(&str, usize, Tensor<1>, Tensor<1>) -> Tensor<1>,
) -> M {
    struct Update<F> {
        path: Vec<String>,
        gradients: BTreeMap<String, Tensor<1>>,
        update: F,
    }
    impl<F: FnMut(&str, usize, Tensor<1>, Tensor<1>) -> Tensor<1>> ModuleMapper for Update<F> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let path = self.path.join(".");
            let Some(gradient) = self.gradients.remove(&path) else {
                return param;
            };
            let (id, tensor, mapper) = param.consume();
            let (strategy, shape, dtype) =
                (tensor.gradient_checkpointing_strategy(), tensor.dims(), tensor.dtype());
            // Moved, not cloned: an unshared tensor is then updated in place.
            let plain = tensor.without_autodiff().flatten_all().cast(DType::F32);
            let updated = (self.update)(&path, D, plain, gradient);
            let mut updated = Tensor::from_inner(updated.cast(dtype).reshape(shape));
            if let Some(strategy) = strategy {
                updated = updated.with_gradient_checkpointing_strategy(strategy);
            }
            Param::from_mapped_value(id, updated.require_grad(), mapper)
        }
    }
    module.map(&mut Update { path: Vec::new(), gradients, update })
}
