//! The peers: published iterates, calls by formula, closed forms, stationary points, and what they refuse.

mod calls;
mod curvature;
mod iterates;
mod limits;
mod minibatches;
mod multiplier;
mod parity;
mod robustness;
mod ties;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use align_bilevel::peers::{
    Bome, BomeConfig, Control, Curvature, F2sa, F2saConfig, FiniteDifference, FiniteDifferenceConfig,
    Implicit, ImplicitConfig, Inverse, LowerConstants, Multiplier, Noise, Power, Saba, SabaConfig, Sampling,
    Soba, SobaConfig, TableStart, Unrolled, UnrolledConfig, VPbgd, VPbgdConfig, bome_multiplier,
    conjugate_gradients, neumann_series,
};
use align_bilevel::problems::{
    Boxed, ClosedForm, ClosedPenalty, FiniteSum, Noisy, OuterTerm, PlToy, Quadratic, Tied, TiedUniform,
};
use align_bilevel::{BilevelError, Calls, Level, Oracle, Point, Problem, Sample, Solver, Step, run};
use align_core::draws::{Draws, Purpose};
use align_core::number::{Finite, NonNegative, Positive};
use serde::{Serialize, de::DeserializeOwned};

type Place = Vec<f64>;

fn count(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

fn positive(value: f64) -> Positive {
    Positive::try_from(value).unwrap()
}

fn constant(value: f64) -> Power {
    Power::constant(positive(value))
}

fn power(first: f64, exponent: f64) -> Power {
    Power::new(positive(first), Finite::try_from(exponent).unwrap())
}

fn go<P: Problem>(
    solver: &mut dyn Solver<P>,
    oracle: &Oracle<'_, P>,
    iterations: u64,
) -> Result<Step, BilevelError> {
    let mut last = None;
    run(solver, oracle, iterations, |_, step, _| {
        last = Some(step.clone());
        ControlFlow::Continue(())
    })?;
    Ok(last.expect("at least one step"))
}

/// `(x before − x after) / step`: the direction that one step took.
fn direction<P: Problem<X = Place>>(solver: &mut dyn Solver<P>, problem: &P, step: f64) -> Place {
    let before = solver.x().clone();
    solver.step(&Oracle::new(problem)).unwrap();
    let mut direction = before.minus(solver.x());
    direction.scale(1.0 / step);
    direction
}

fn implicit(inner_steps: usize, inner_step: f64, outer_step: f64, inverse: Inverse) -> ImplicitConfig {
    ImplicitConfig {
        inner_steps: count(inner_steps),
        inner_step: positive(inner_step),
        outer_step: positive(outer_step),
        inverse,
        sampling: Sampling::default(),
    }
}

fn gradients(iterations: usize) -> Inverse {
    Inverse::ConjugateGradients { iterations: count(iterations), tolerance: NonNegative::literal(1e-12) }
}

fn series(products: usize, step: f64) -> Inverse {
    Inverse::NeumannSeries { products: count(products), step: positive(step) }
}

fn f2sa(inner_steps: usize, alpha: f64, gamma: f64, multiplier: Multiplier) -> F2saConfig {
    F2saConfig {
        inner_steps: count(inner_steps),
        alpha: constant(alpha),
        gamma: constant(gamma),
        xi: constant(1.0),
        multiplier,
        momentum: None,
        constants: None,
        sampling: Sampling::default(),
    }
}

fn steady(multiplier: f64) -> Multiplier {
    Multiplier::Power { law: constant(multiplier) }
}

/// Thirty terms below, eleven above, with curvatures from ½ to 2.5 or so.
fn finite_sum() -> FiniteSum {
    let draws = Draws::new(5);
    let normal = |list, i| draws.normal(Purpose::Synthesize, list, i);
    let curvatures = (0..30).map(|i| 0.5 + normal(0, i).abs()).collect();
    let slopes = (0..30).map(|i| 1.0 + 0.5 * normal(1, i)).collect();
    FiniteSum::new(curvatures, slopes, (0..11).map(|i| normal(2, i)).collect()).unwrap()
}

/// Every method on one problem, from one start.
fn all<P: Problem<X = Place, Y = Place>>(
    x: f64,
    y: f64,
    sampling: Sampling,
) -> Vec<(&'static str, Box<dyn Solver<P>>)> {
    let (x, y) = (vec![x], vec![y]);
    let f2sa_config = F2saConfig { sampling, xi: constant(10.0), ..f2sa(10, 0.01, 0.1, steady(10.0)) };
    vec![
        ("F2SA", Box::new(F2sa::new(f2sa_config, x.clone(), y.clone(), y.clone()).unwrap())),
        (
            "V-PBGD",
            Box::new(VPbgd::new(VPbgdConfig { sampling, ..Default::default() }, x.clone(), y.clone())),
        ),
        ("BOME", Box::new(Bome::new(BomeConfig { sampling, ..Default::default() }, x.clone(), y.clone()))),
        ("SOBA", Box::new(Soba::new(SobaConfig { sampling, ..Default::default() }, x.clone(), y.clone()))),
        (
            "AID",
            Box::new(Implicit::new(
                ImplicitConfig { sampling, ..ImplicitConfig::aid() },
                x.clone(),
                y.clone(),
            )),
        ),
        (
            "stocBiO",
            Box::new(Implicit::new(
                ImplicitConfig { sampling, ..ImplicitConfig::stoc_bio() },
                x.clone(),
                y.clone(),
            )),
        ),
        ("unrolling", Box::new(Unrolled::new(UnrolledConfig { sampling, ..Default::default() }, x, y))),
    ]
}
