//! Solvers on a problem whose hyper-gradient is known: how near to stationary, for how many calls.

use std::ops::ControlFlow;
use std::path::Path;

use align_bilevel::peers::{
    Bome, F2sa, FiniteDifference, Implicit, Multiplier, Power, Saba, Soba, Unrolled, VPbgd,
};
use align_bilevel::problems::{Boxed, ClosedForm, Quadratic, Tied, TiedUniform};
use align_bilevel::{
    BilevelError, DoubleLoop, Oracle, Schedule, SingleLoop, Solver, TracePoint, run as run_solver,
    stationarity,
};
use align_core::number::Positive;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::with_problem;
use crate::context::Context;
use crate::progress::rows_bar;
use crate::recipe::bilevel::{NamedSolver, ProblemName, SolverConfig, SolversStage};
use crate::stages::figures::Figures;
use crate::stages::{read_json, write_json};
use crate::table::table;

/// The result's file in the stage's folder.
const RESULT: &str = "solvers.json";
/// ρ of the projected stationarity of x.
const RHO: f64 = 0.1;
/// Calls that claims see where an accuracy was not reached: more than any run makes.
const NEVER: f64 = 1e12;
/// Points of a trace that are kept at most.
const KEPT: usize = 250;

/// What all solvers did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Race {
    /// The problem's word.
    pub(crate) problem: String,
    /// The accuracies, as the recipe lists them.
    pub(crate) eps: Vec<f64>,
    /// In the recipe's order.
    pub(crate) solvers: Vec<SolverResult>,
}

/// What one solver did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SolverResult {
    pub(crate) name: String,
    /// The method's word.
    pub(crate) kind: String,
    /// Calls until each accuracy was reached; none where it was not.
    pub(crate) needed: Vec<Option<u64>>,
    /// One run, or one for each accuracy.
    pub(crate) runs: Vec<SolverRun>,
}

/// One run of one solver.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SolverRun {
    /// The accuracy it was for, where σ depends on it.
    pub(crate) eps: Option<f64>,
    /// Gradient calls of the whole run.
    pub(crate) calls: u64,
    /// Outer steps of it.
    pub(crate) iterations: u64,
    /// The last x.
    pub(crate) x: Vec<f64>,
    /// How stationary x is there, by the closed form.
    pub(crate) stationarity: f64,
    /// Why it ended early.
    pub(crate) failed: Option<String>,
    /// On the way, thinned.
    pub(crate) points: Vec<TracePoint>,
}

pub(in crate::stages) fn run(
    name: &str,
    stage: &SolversStage,
    folder: &Path,
    context: &Context,
) -> Result<Value> {
    let (usual, length) = stage.problem.start();
    let width = usual.len();
    let (x, y) = (stage.x.clone().unwrap_or(usual), stage.y.clone().unwrap_or(vec![0.0; length]));
    for (key, found, expected) in [("x", x.len(), width), ("y", y.len(), length)] {
        if found != expected {
            let problem = stage.problem.word();
            bail!("`{name}`: `{key}` has {found} numbers, and `{problem}` needs {expected}");
        }
    }
    if stage.eps.is_empty() || stage.solver.is_empty() {
        bail!("`{name}`: expected at least one accuracy in `eps` and one `[[stage.solver]]`");
    }
    for (at, solver) in stage.solver.iter().enumerate() {
        if stage.solver[..at].iter().any(|earlier| earlier.name == solver.name) {
            bail!("`{name}`: two solvers are called `{}`", solver.name);
        }
    }
    let bar = rows_bar(name, stage.solver.len());
    let mut solvers = Vec::new();
    for solver in &stage.solver {
        let result = with_problem!(stage.problem, |problem| race(problem, stage, solver, (&x, &y), context));
        solvers.push(result?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let eps = stage.eps.iter().map(|eps| eps.get()).collect();
    let race = Race { problem: stage.problem.word().to_owned(), eps, solvers };
    write_json(&folder.join(RESULT), &race)?;
    race.figures().write(folder)?;
    let (header, rows) = race.rows();
    println!("\n{}\n{}", table(&header, rows), race.note());
    for solver in &race.solvers {
        if let Some(error) = solver.runs.iter().find_map(|run| run.failed.as_ref()) {
            eprintln!("{name}: `{}` ended early: {error}", solver.name);
        }
    }
    Ok(json!({ "solvers": race.solvers.len() }))
}

/// All runs of one solver.
fn race<P: ClosedForm>(
    problem: &P,
    stage: &SolversStage,
    solver: &NamedSolver,
    start: (&[f64], &[f64]),
    context: &Context,
) -> Result<SolverResult> {
    let least = stage.eps.iter().map(|eps| eps.get()).fold(f64::INFINITY, f64::min);
    let mut runs = Vec::new();
    let mut needed = vec![None; stage.eps.len()];
    let first_below = |run: &SolverRun, eps: f64| {
        run.points.iter().find(|point| point.stationarity <= eps).map(|point| point.calls.total())
    };
    match solver.sigma_per_eps {
        None => {
            let run = one(problem, stage, solver, &solver.settings, start, least, context)?;
            for (needed, eps) in needed.iter_mut().zip(&stage.eps) {
                *needed = first_below(&run, eps.get());
            }
            runs.push(run);
        }
        Some(times) => {
            for (needed, eps) in needed.iter_mut().zip(&stage.eps) {
                let sigma = Positive::try_from(times.get() * eps.get())?;
                let Some(settings) = with_sigma(&solver.settings, sigma) else {
                    bail!(
                        "`{}`: `sigma_per_eps` is for methods with a penalty, and `{}` has none",
                        solver.name,
                        solver.settings.word()
                    );
                };
                let mut run = one(problem, stage, solver, &settings, start, eps.get(), context)?;
                *needed = first_below(&run, eps.get());
                run.eps = Some(eps.get());
                runs.push(run);
            }
        }
    }
    runs.iter_mut().for_each(|run| run.points = thinned(std::mem::take(&mut run.points)));
    let (name, kind) = (solver.name.clone(), solver.settings.word().to_owned());
    Ok(SolverResult { name, kind, needed, runs })
}

/// One run, to the accuracy `eps`, the budget, or the number of steps that the recipe sets.
fn one<P: ClosedForm>(
    problem: &P,
    stage: &SolversStage,
    solver: &NamedSolver,
    settings: &SolverConfig,
    (x, y): (&[f64], &[f64]),
    eps: f64,
    context: &Context,
) -> Result<SolverRun> {
    let oracle = Oracle::new(problem);
    let mut points: Vec<TracePoint> = Vec::new();
    let measure = |x: &Vec<f64>| stationarity(x, &problem.hyper_gradient(x), RHO, |x| problem.project_x(x));
    let mut made = made(settings, problem, x.to_vec(), y.to_vec())?;
    let fixed = solver.iterations;
    let ended = run_solver(&mut *made, &oracle, fixed.unwrap_or(u64::MAX), |solver, step, calls| {
        let stationarity = measure(solver.x());
        let estimate = step.gradient_norm;
        points.push(TracePoint {
            iteration: step.iteration + 1,
            calls,
            sigma: step.sigma,
            estimate,
            stationarity,
        });
        let reached = fixed.is_none() && stationarity <= eps;
        match reached || calls.total() >= stage.budget || context.check_interrupt().is_err() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    context.check_interrupt()?;
    let x = made.x().clone();
    Ok(SolverRun {
        eps: None,
        calls: oracle.calls().total(),
        iterations: made.iterations(),
        stationarity: measure(&x),
        failed: ended.err().map(|error| error.to_string()),
        x,
        points,
    })
}

/// The solver of some settings, at its start.
fn made<'a, P: ClosedForm + 'a>(
    settings: &SolverConfig,
    problem: &P,
    x: Vec<f64>,
    y: Vec<f64>,
) -> Result<Box<dyn Solver<P> + 'a>, BilevelError> {
    let z = y.clone();
    Ok(match settings.clone() {
        SolverConfig::DoubleLoop(config) => Box::new(DoubleLoop::new(config, problem, x, y, z)?),
        SolverConfig::SingleLoop(config) => Box::new(SingleLoop::new(config, problem, x, y, z)?),
        SolverConfig::F2sa(config) => Box::new(F2sa::new(config, x, y, z)?),
        SolverConfig::VPbgd(config) => Box::new(VPbgd::new(config, x, y)),
        SolverConfig::Bome(config) => Box::new(Bome::new(config, x, y)),
        SolverConfig::Implicit(config) => Box::new(Implicit::new(config, x, y)),
        SolverConfig::Soba(config) => Box::new(Soba::new(config, x, y)),
        SolverConfig::Saba(config) => Box::new(Saba::new(config, x, y)),
        SolverConfig::Unrolled(config) => Box::new(Unrolled::new(config, x, y)),
        SolverConfig::FiniteDifference(config) => Box::new(FiniteDifference::new(config, x, y)),
    })
}

/// The settings with a constant penalty; 1/σ where the method counts in multipliers. `None` of methods without one.
fn with_sigma(settings: &SolverConfig, sigma: Positive) -> Option<SolverConfig> {
    let multiplier = Positive::try_from(sigma.get().recip()).ok()?;
    let mut settings = settings.clone();
    match &mut settings {
        SolverConfig::DoubleLoop(config) => config.sigma = Schedule::constant(sigma.get()),
        SolverConfig::SingleLoop(config) => config.sigma = Schedule::constant(sigma.get()),
        SolverConfig::F2sa(config) => {
            config.multiplier = Multiplier::Power { law: Power::constant(multiplier) }
        }
        SolverConfig::VPbgd(config) => config.gamma = multiplier,
        _ => return None,
    }
    Some(settings)
}

/// Points about equally far apart in the logarithm of calls, both ends among them.
fn thinned(points: Vec<TracePoint>) -> Vec<TracePoint> {
    if points.len() <= KEPT {
        return points;
    }
    let last = (points.len() - 1) as f64;
    let mut kept: Vec<usize> = (0..KEPT)
        .map(|at| ((last + 1.0).powf(at as f64 / (KEPT - 1) as f64) - 1.0).round() as usize)
        .collect();
    kept.dedup();
    kept.into_iter().map(|at| points[at]).collect()
}

impl Race {
    /// What a stage left behind, if it was one of these.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        read_json(&folder.join(RESULT))
    }

    /// The headings and rows of the table.
    pub(crate) fn rows(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let header = ["solver".to_owned()].into_iter().chain(self.eps.iter().map(|eps| format!("ε = {eps}")));
        let calls = |needed: &Option<u64>| needed.map_or("–".to_owned(), |calls| calls.to_string());
        let rows = self
            .solvers
            .iter()
            .map(|solver| [solver.name.clone()].into_iter().chain(solver.needed.iter().map(calls)).collect());
        (header.collect(), rows.collect())
    }

    /// What the figures are.
    pub(crate) fn note(&self) -> String {
        format!(
            "gradient calls until the true hyper-gradient of `{}` is no longer than ε, by its closed form; – not reached",
            self.problem
        )
    }

    fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for solver in &self.solvers {
            for (eps, needed) in self.eps.iter().zip(&solver.needed) {
                figures.add(
                    &solver.name,
                    &format!("calls/{eps}"),
                    needed.map_or(NEVER, |calls| calls as f64),
                );
            }
            let Some(run) = solver.runs.last() else { continue };
            figures.add(&solver.name, "calls", run.calls as f64);
            figures.add(&solver.name, "stationarity", run.stationarity);
            for (at, x) in run.x.iter().enumerate() {
                figures.add(&solver.name, &format!("x/{at}"), *x);
            }
        }
        figures
    }
}

#[cfg(test)]
mod tests {
    use align_bilevel::Calls;

    use super::*;

    #[test]
    fn a_thinned_trace_keeps_both_ends() {
        let point = |iteration| TracePoint {
            iteration,
            calls: Calls::default(),
            sigma: None,
            estimate: 0.0,
            stationarity: 0.0,
        };
        let kept = thinned((0..5000).map(point).collect());
        assert!(kept.len() <= KEPT && kept.windows(2).all(|pair| pair[0].iteration < pair[1].iteration));
        assert_eq!((kept[0].iteration, kept[kept.len() - 1].iteration), (0, 4999));
    }

    #[test]
    fn only_methods_with_a_penalty_take_one() {
        let sigma = Positive::literal(0.01);
        let v_pbgd = with_sigma(&SolverConfig::VPbgd(Default::default()), sigma);
        assert!(matches!(v_pbgd, Some(SolverConfig::VPbgd(config)) if config.gamma.get() == 100.0));
        assert!(with_sigma(&SolverConfig::Soba(Default::default()), sigma).is_none());
    }
}
