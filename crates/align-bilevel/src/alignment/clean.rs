//! Cleaning as one call.

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use align_core::number::Positive;
use serde::{Deserialize, Serialize};

use super::cleaning::Cleaning;
use super::examples::{ExampleSet, Examples};
use super::metrics::effective_sample_size;
use super::weights::Weights;
use crate::{
    BilevelError, Calls, Count, DoubleLoop, DoubleLoopConfig, LevelBatches, Oracle, Problem, Schedule,
    Smoothness, Solver, Step, Warning, run,
};

/// How data are cleaned: a [`DoubleLoop`] in the terms of the task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CleanConfig {
    /// σ: how far the model that minds the trusted examples is from the one that does not.
    pub sigma: Schedule,
    /// Steps of the weights.
    pub outer_steps: u64,
    /// The step of the weights' logits, times how many share a gradient: of examples those in a step of the weights, since each
    /// one's gradient is its share of a mean over these; of sources all.
    pub outer_step: Positive,
    /// Steps of both models for each step of the weights.
    pub inner_steps: NonZeroUsize,
    /// The step of both models. By default 1/l where the examples know a bound l on the curvature, as linear pairs do, and
    /// 0.1 otherwise.
    pub inner_step: Option<Positive>,
    /// ρ of a proximal term in both models' steps. Without one by default: C makes the lower level strongly convex for linear
    /// models, and public code does without for networks.
    pub rho: Option<Positive>,
    /// Examples of either set in each step of the models; all by default. A trusted set smaller than this is taken whole.
    pub batch: Option<NonZeroUsize>,
    /// Training examples in each step of the weights; all by default, since it takes two forward passes and no gradient of a
    /// model. A smaller batch moves the weights of its own examples only.
    pub outer_batch: Option<NonZeroUsize>,
    /// Of the batches.
    pub seed: u64,
}

impl Default for CleanConfig {
    /// σ falls from 1 to 0.05 in the first 30 % of the steps: a large σ is easily followed, a small one has little bias. The
    /// other numbers are those of the experiment in this crate's tests.
    fn default() -> Self {
        Self {
            sigma: Schedule::Geometric { first: 1.0, last: 0.05, share: 0.3 },
            outer_steps: 40,
            outer_step: Positive::literal(0.75),
            inner_steps: NonZeroUsize::new(10).expect("ten is not zero"),
            inner_step: None,
            rho: None,
            batch: None,
            outer_batch: None,
            seed: 0,
        }
    }
}

impl CleanConfig {
    /// The solver's settings for a problem, to be changed by who wants more than this.
    pub fn solver<E: Examples>(&self, problem: &Cleaning<E>) -> DoubleLoopConfig {
        let defaults = DoubleLoopConfig::default();
        // Large enough that the term vanishes in any floating-point sum.
        let rho = self.rho.map_or(f64::MAX, Positive::get);
        let sigma = self.sigma.at(0, self.outer_steps).max(self.sigma.at(self.outer_steps, self.outer_steps));
        let known = || problem.smoothness().map(|smoothness| smoothness.inner_step(sigma, rho));
        let gamma = self.inner_step.map(Positive::get).or_else(known);
        let upper = |size: NonZeroUsize| size.get().min(problem.examples().count(ExampleSet::Trusted));
        let batch = LevelBatches {
            upper: self.batch.map(|size| Count::constant(upper(size))),
            lower: self.batch.map(|size| Count::constant(size.get())),
        };
        let weights = problem.weights();
        let sharing = match (weights, self.outer_batch) {
            (Weights::PerExample { .. }, Some(batch)) => batch.get(),
            _ => weights.len(),
        };
        DoubleLoopConfig {
            outer_steps: self.outer_steps,
            sigma: self.sigma,
            rho,
            inner_steps: Count::constant(self.inner_steps.get()),
            gamma: gamma.map_or(defaults.gamma, Schedule::constant),
            alpha: Schedule::constant(self.outer_step.get() * sharing as f64),
            inner_batch: batch,
            outer_batch: LevelBatches {
                lower: self.outer_batch.map(|size| Count::constant(size.get())),
                ..batch
            },
            seed: self.seed,
            ..defaults
        }
    }
}

/// Weights, and what they were found by.
#[derive(Clone, Debug)]
pub struct Cleaned<Y> {
    /// x.
    pub logits: Vec<f64>,
    /// What the logits stand for: the weight of each example, or the share of each source.
    pub shares: Vec<f64>,
    /// The weight of each training example.
    pub weights: Vec<f64>,
    /// `(Σ s)² / Σ s²` of these weights.
    pub effective_sample_size: f64,
    /// The model trained along with the weights. It is as far as the inner loop got; fit one anew for use.
    pub model: Y,
    /// The last step.
    pub last: Step,
    /// What was asked of the oracle.
    pub calls: Calls,
    /// What to know before trusting the weights.
    pub warnings: Vec<CleaningWarning>,
}

/// What makes cleaned data doubtful.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum CleaningWarning {
    /// The trusted set is fitted rather than generalised from: weights have as many degrees of freedom as examples.
    FewTrusted {
        /// Trusted examples.
        trusted: usize,
        /// Parameters of the linear model.
        parameters: usize,
    },
    /// Nearly everything was thrown away.
    FewEffective {
        /// `(Σ s)² / Σ s²`.
        effective: f64,
        /// Training examples.
        examples: usize,
    },
    /// Of the solver's settings.
    Solver {
        /// Which.
        warning: Warning,
    },
}

impl fmt::Display for CleaningWarning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FewTrusted { trusted, parameters } => write!(
                formatter,
                "FewTrusted: {trusted} trusted examples for {parameters} parameters, fewer than 5 each; \
                 compare with a model trained on the trusted examples alone"
            ),
            Self::FewEffective { effective, examples } => write!(
                formatter,
                "FewEffective: the weights are worth {effective:.1} of {examples} examples, less than 5 %"
            ),
            Self::Solver { warning } => warning.fmt(formatter),
        }
    }
}

/// Finds weights of the training examples under which a model does well on the trusted ones.
///
/// `start` is the model to begin with; `observe` sees every step with the logits after it, and may end the run. Compare the
/// result with a model that is [`fit`](super::fit) to the trusted examples alone, and to all examples alike.
///
/// # Errors
/// If a setting is out of range for the problem, a gradient is not finite, or the outer steps diverge.
///
/// # Examples
/// Two pairs agree with a trusted one and the third contradicts it:
/// ```
/// use std::ops::ControlFlow;
///
/// use align_bilevel::alignment::{CleanConfig, Cleaning, LinearPairs, Weights, clean};
///
/// let pairs = LinearPairs::new(&[vec![1.0], vec![0.8], vec![-0.9]], &[vec![1.0]])?;
/// let problem = Cleaning::new(pairs, Weights::per_example(3), 0.01.try_into()?)?;
/// let cleaned =
///     clean(&problem, vec![0.0], &CleanConfig::default(), |_, _| ControlFlow::Continue(()))?;
/// assert!(cleaned.weights[0] > 0.6 && cleaned.weights[2] < 0.4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn clean<E: Examples>(
    problem: &Cleaning<E>,
    start: E::Y,
    config: &CleanConfig,
    mut observe: impl FnMut(&Step, &[f64]) -> ControlFlow<()>,
) -> Result<Cleaned<E::Y>, BilevelError> {
    let settings = config.solver(problem);
    let mut warnings = problem.warnings();
    if let Some(smoothness) = problem.smoothness() {
        let solver = settings.warnings(smoothness).into_iter();
        warnings.extend(solver.map(|warning| CleaningWarning::Solver { warning }));
    }
    let mut solver = DoubleLoop::new(settings, problem, problem.weights().start(), start.clone(), start)?;
    let oracle = Oracle::new(problem);
    let mut last = Step { iteration: 0, sigma: None, gradient_norm: 0.0, residual: None };
    run(&mut solver, &oracle, config.outer_steps, |solver: &DoubleLoop<_, E::Y>, step, _| {
        last = step.clone();
        observe(step, Solver::<Cleaning<E>>::x(solver))
    })?;
    let logits: Vec<f64> = Solver::<Cleaning<E>>::x(&solver).clone();
    let weights = problem.weights().all(&logits);
    let effective = effective_sample_size(&weights);
    if effective < 0.05 * weights.len() as f64 {
        warnings.push(CleaningWarning::FewEffective { effective, examples: weights.len() });
    }
    Ok(Cleaned {
        shares: problem.weights().shares(&logits),
        weights,
        effective_sample_size: effective,
        model: Solver::<Cleaning<E>>::y(&solver).clone(),
        logits,
        last,
        calls: oracle.calls(),
        warnings,
    })
}

impl<E: Examples> Cleaning<E> {
    /// What can be said before anything is computed.
    pub fn warnings(&self) -> Vec<CleaningWarning> {
        let trusted = self.terms(crate::Level::Upper);
        let parameters = self.examples().linear_parameters().filter(|parameters| trusted < 5 * parameters);
        parameters.map(|parameters| CleaningWarning::FewTrusted { trusted, parameters }).into_iter().collect()
    }

    /// Bounds on the curvature in y of both levels at any weights, where the examples know them.
    pub fn smoothness(&self) -> Option<Smoothness> {
        let [training, trusted] =
            [ExampleSet::Training, ExampleSet::Trusted].map(|set| self.examples().curvature(set));
        Some(Smoothness { upper: trusted?, lower: self.ridge() + self.weights().largest() * training? })
    }
}
