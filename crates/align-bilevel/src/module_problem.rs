//! Bilevel problems over Burn modules, with gradients by automatic differentiation.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use crate::{Level, Parameters, Point, Problem, Sample};

/// A bilevel problem whose variables are modules.
///
/// Only losses are written; [`Modules`] makes a [`Problem`] of it. A loss is the mean over the terms of the sample, and
/// the same sample gives the same loss: what a loss draws, it draws from the sample's id.
///
/// Data, masks and frozen models stay on the plain device. Of the two modules that a loss is given, one records
/// gradients at most; the other is a constant.
///
/// # Examples
/// A scalar problem, whose hyper-gradient at σ is 2 (2x − 1) / (1 + σ):
/// ```
/// use align_bilevel::{Level, ModuleProblem, Modules, Parameters, Problem, Sample};
/// use burn::module::{Module, Param};
/// use burn::tensor::Tensor;
///
/// #[derive(Module, Debug)]
/// struct Number {
///     value: Param<Tensor<1>>,
/// }
///
/// struct Scalar;
///
/// impl ModuleProblem for Scalar {
///     type Upper = Number;
///     type Lower = Number;
///
///     fn upper(&self, _x: &Number, y: &Number, _: &Sample) -> Tensor<1> {
///         (y.value.val() - 1.0).square() / 2.0
///     }
///
///     fn lower(&self, x: &Number, y: &Number, _: &Sample) -> Tensor<1> {
///         (y.value.val() - x.value.val() * 2.0).square() / 2.0
///     }
/// }
///
/// let number = |value: f32| Number {
///     value: Param::from_tensor(Tensor::from_data([value], &align_testkit::train_device())),
/// };
/// let problem = Modules::new(Scalar, number(0.75), number(0.0));
/// let (x, y) = (problem.x(), problem.y());
/// let gradient = problem.gradient_y(Level::Lower, &x, &y, &Sample::full());
/// assert_eq!(gradient.to_vec(), [-1.5]); // y − 2x
/// ```
pub trait ModuleProblem: Sync {
    /// What x lives in.
    type Upper: Module + Sync;
    /// What y lives in.
    type Lower: Module + Sync;

    /// f(x, y), `[1]`.
    fn upper(&self, x: &Self::Upper, y: &Self::Lower, sample: &Sample) -> Tensor<1>;

    /// g(x, y), `[1]`.
    fn lower(&self, x: &Self::Upper, y: &Self::Lower, sample: &Sample) -> Tensor<1>;

    /// How many terms an objective is the mean of. One, unless it can be sampled.
    fn terms(&self, _level: Level) -> usize {
        1
    }

    /// Projects onto X. The whole space by default.
    fn project_x(&self, _x: &mut Parameters) {}

    /// Projects onto Y. The whole space by default.
    fn project_y(&self, _y: &mut Parameters) {}
}

/// A [`ModuleProblem`] as a [`Problem`] over [`Parameters`].
///
/// Modules are evaluated as [`Module::valid`] leaves them, without dropout: a sample must give the same loss at every
/// point, and Burn's dropout draws from a generator of the process.
#[derive(Clone, Debug)]
pub struct Modules<P: ModuleProblem> {
    problem: P,
    upper: Side<P::Upper>,
    lower: Side<P::Lower>,
}

/// One variable: a module to put numbers into, and the numbers it came with.
#[derive(Clone, Debug)]
struct Side<M> {
    template: M,
    start: Parameters,
}

impl<M: Module> Side<M> {
    fn new(module: M) -> Self {
        let start = Parameters::of(&module);
        Self { template: module.valid(), start }
    }

    fn constant(&self, point: &Parameters) -> M {
        point.put_into(self.template.clone())
    }

    fn recording(&self, point: &Parameters) -> M {
        point.put_into_recording(self.template.clone())
    }

    /// The gradient of a loss by a module that records; zero if the loss does not depend on it.
    fn gradient(&self, module: &M, loss: &Tensor<1>) -> Parameters {
        if !loss.is_tracked() {
            return self.start.zeros();
        }
        self.start.from_gradients(module, GradientsParams::from_grads(loss.backward(), module))
    }
}

impl<P: ModuleProblem> Modules<P> {
    /// The modules give the shapes, the tensors that are not trained, and the start.
    pub fn new(problem: P, upper: P::Upper, lower: P::Lower) -> Self {
        Self { problem, upper: Side::new(upper), lower: Side::new(lower) }
    }

    /// The losses.
    pub fn problem(&self) -> &P {
        &self.problem
    }

    /// Where x starts.
    pub fn x(&self) -> Parameters {
        self.upper.start.clone()
    }

    /// Where y starts.
    pub fn y(&self) -> Parameters {
        self.lower.start.clone()
    }

    /// The upper module at x, for evaluation.
    pub fn upper_module(&self, x: &Parameters) -> P::Upper {
        self.upper.constant(x)
    }

    /// The lower module at y, for evaluation.
    pub fn lower_module(&self, y: &Parameters) -> P::Lower {
        self.lower.constant(y)
    }

    fn loss(&self, level: Level, x: &P::Upper, y: &P::Lower, sample: &Sample) -> Tensor<1> {
        match level {
            Level::Upper => self.problem.upper(x, y, sample),
            Level::Lower => self.problem.lower(x, y, sample),
        }
    }
}

impl<P: ModuleProblem> Problem for Modules<P> {
    type X = Parameters;
    type Y = Parameters;

    fn value(&self, level: Level, x: &Parameters, y: &Parameters, sample: &Sample) -> f64 {
        self.loss(level, &self.upper.constant(x), &self.lower.constant(y), sample).into_scalar()
    }

    fn gradient_x(&self, level: Level, x: &Parameters, y: &Parameters, sample: &Sample) -> Parameters {
        let (x, y) = (self.upper.recording(x), self.lower.constant(y));
        self.upper.gradient(&x, &self.loss(level, &x, &y, sample))
    }

    fn gradient_y(&self, level: Level, x: &Parameters, y: &Parameters, sample: &Sample) -> Parameters {
        let (x, y) = (self.upper.constant(x), self.lower.recording(y));
        self.lower.gradient(&y, &self.loss(level, &x, &y, sample))
    }

    /// One backward pass over the sum of both losses.
    fn perturbed_gradient_y(
        &self,
        sigma: f64,
        x: &Parameters,
        y: &Parameters,
        upper: &Sample,
        lower: &Sample,
    ) -> Parameters {
        let (x, y) = (self.upper.constant(x), self.lower.recording(y));
        let loss = self.problem.upper(&x, &y, upper) * sigma + self.problem.lower(&x, &y, lower);
        self.lower.gradient(&y, &loss)
    }

    /// One backward pass, over the difference of both losses.
    fn lower_difference_x(
        &self,
        x: &Parameters,
        y: &Parameters,
        z: &Parameters,
        sample: &Sample,
    ) -> Parameters {
        let (x, y, z) = (self.upper.recording(x), self.lower.constant(y), self.lower.constant(z));
        let difference = self.problem.lower(&x, &y, sample) - self.problem.lower(&x, &z, sample);
        self.upper.gradient(&x, &difference)
    }

    fn terms(&self, level: Level) -> usize {
        self.problem.terms(level)
    }

    fn project_x(&self, x: &mut Parameters) {
        self.problem.project_x(x);
    }

    fn project_y(&self, y: &mut Parameters) {
        self.problem.project_y(y);
    }
}
