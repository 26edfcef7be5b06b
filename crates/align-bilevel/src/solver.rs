//! What every solver is: outer iterations, and the points they stand at.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::{BilevelError, Calls, Oracle, Problem};

/// What one outer iteration reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Which one it was, from 0.
    pub iteration: u64,
    /// The penalty parameter σ, where the method has one.
    pub sigma: Option<f64>,
    /// The norm of the estimate of `∇ψ(x)` that x was moved by, before projection and step size.
    pub gradient_norm: f64,
    /// How far the inner problems were from solved, where the method knows: the largest residual of the inner loops.
    pub residual: Option<f64>,
}

/// A method for bilevel problems. One [`step`](Self::step) moves x once, whatever that takes inside.
///
/// After an error, x and y are the last finite ones.
pub trait Solver<P: Problem> {
    /// One outer iteration.
    ///
    /// # Errors
    /// If a gradient is not finite, or the method sees that it diverges.
    fn step(&mut self, oracle: &Oracle<'_, P>) -> Result<Step, BilevelError>;

    /// The outer variable.
    fn x(&self) -> &P::X;

    /// The method's solution of the lower level at about `x`.
    fn y(&self) -> &P::Y;

    /// How many outer iterations were made.
    fn iterations(&self) -> u64;
}

/// Runs a solver to `iterations` in all, or until `observe` breaks. Returns what was asked of the oracle.
///
/// # Errors
/// Of the solver's steps.
pub fn run<P: Problem, S: Solver<P> + ?Sized>(
    solver: &mut S,
    oracle: &Oracle<'_, P>,
    iterations: u64,
    mut observe: impl FnMut(&S, &Step, Calls) -> ControlFlow<()>,
) -> Result<Calls, BilevelError> {
    while solver.iterations() < iterations {
        let step = solver.step(oracle)?;
        if observe(solver, &step, oracle.calls()).is_break() {
            break;
        }
    }
    Ok(oracle.calls())
}
