//! Problems whose answers are known: for tests, for benches, and to see what a method does before it is trusted.
//!
//! | problem | lower level | what it is for |
//! | --- | --- | --- |
//! | [`Quadratic`] | strongly convex | every formula in closed form; [`Quadratic::portable`] is nonconvex in x |
//! | [`Tied`] | a line of minimisers, f chooses among them | conditioning that worsens with 1/σ |
//! | [`TiedUniform`] | a line of minimisers, f does not choose | inverse-Hessian methods fail, penalties do not |
//! | [`Boxed`] | strongly convex on [0, 1] | an active set that changes with x |
//! | [`Bilinear`] | its solution set jumps | the negative control: no σ is small enough |
//! | [`PlToy`] | nonconvex, Polyak–Łojasiewicz | three local solutions |
//! | [`FiniteSum`] | a mean over terms | minibatches |
//! | [`Noisy`] | any of them | gradients with noise |
//!
//! All are in `f64` on the host.

mod boxed;
mod finite_sum;
mod linear;
mod noisy;
mod pl_toy;
mod quadratic;
mod tied;

pub use boxed::{Bilinear, Boxed};
pub use finite_sum::FiniteSum;
pub use noisy::Noisy;
pub use pl_toy::PlToy;
pub use quadratic::{OuterTerm, Quadratic};
pub use tied::{Tied, TiedUniform};

use crate::{Level, Problem, Sample};

/// A problem that knows its hyper-objective `ψ(x) = min { f(x, y) : y minimises g(x, ·) over Y }`.
pub trait ClosedForm: Problem<X = Vec<f64>, Y = Vec<f64>> {
    /// The minimiser of `g(x, ·)`; of several, the one that f likes best.
    fn solution(&self, x: &[f64]) -> Vec<f64>;

    /// `∇ψ(x)`.
    fn hyper_gradient(&self, x: &[f64]) -> Vec<f64>;

    /// `ψ(x)`.
    fn psi(&self, x: &[f64]) -> f64 {
        self.value(Level::Upper, &x.to_vec(), &self.solution(x), &Sample::full())
    }
}

/// A problem that knows its penalised objective `ψ_σ(x) = (l(x, σ) − l(x, 0)) / σ` with `l(x, σ) = min_y σ f + g`.
pub trait ClosedPenalty: ClosedForm {
    /// `ψ_σ` at x. Where it says so a problem takes σ < 0 too, and the mean of both signs is the central difference.
    fn penalized(&self, x: &[f64], sigma: f64) -> Penalized;
}

/// The penalised objective at a point.
#[derive(Clone, Debug, PartialEq)]
pub struct Penalized {
    /// The minimiser of `σ f(x, ·) + g(x, ·)` over Y.
    pub y: Vec<f64>,
    /// `ψ_σ(x)`.
    pub psi: f64,
    /// `∇ψ_σ(x)`.
    pub gradient: Vec<f64>,
}
