//! The error of the penalised hyper-gradient against σ, on problems that know their answer.

use std::path::Path;

use align_bilevel::alignment::{Demonstrations, KlCoefficient, Regularized, RewardDesign};
use align_bilevel::problems::{Bilinear, Boxed, ClosedForm, Quadratic, Tied, TiedUniform};
use align_bilevel::{
    BiasOrder, BilevelError, Descent, Difference, ErrorBoundConfig, Oracle, Penalty, SigmaError, bias_order,
    error_bound, psi_sigma,
};
use align_core::number::Positive;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::with_problem;
use crate::context::Context;
use crate::recipe::bilevel::{BiasCase, BiasProblem, BiasStage, ProblemName};
use crate::stages::figures::Figures;
use crate::stages::{read_json, write_json};
use crate::table::table;

/// Lower levels are solved until nothing but the last digits moves: the residual is divided by σ.
const TIGHT: Descent = Descent { step: 1.0, tolerance: 1e-12, max_steps: 100_000 };

/// The result's file in the stage's folder.
const RESULT: &str = "bias.json";

/// Errors by case, and the control.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Bias {
    pub(crate) cases: Vec<BiasLine>,
    pub(crate) control: Option<Vec<Control>>,
}

/// The errors of one case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BiasLine {
    /// The problem's word, and `, central` where that was the difference.
    pub(crate) case: String,
    #[serde(flatten)]
    pub(crate) order: BiasOrder,
    /// The measured constant of the proximal error bound around y_σ; of problems with a lower level that is descended.
    pub(crate) bounds: Vec<SigmaBound>,
}

/// The constant at one σ.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct SigmaBound {
    pub(crate) sigma: f64,
    /// The least residual per distance from the solutions.
    pub(crate) constant: f64,
}

/// How far ψ_σ lies below ψ at x = σ, where the lower solution jumps.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Control {
    pub(crate) sigma: f64,
    /// ψ(x) − ψ_σ(x).
    pub(crate) gap: f64,
    /// |∇ψ_σ(x)|.
    pub(crate) gradient: f64,
}

pub(in crate::stages) fn run(
    name: &str,
    stage: &BiasStage,
    folder: &Path,
    context: &Context,
) -> Result<Value> {
    let sigmas: Vec<f64> = stage.sigmas.iter().map(|sigma| sigma.get()).collect();
    if sigmas.len() < 2 {
        bail!("`{name}`: `sigmas` has {} entries, and a slope needs at least 2", sigmas.len());
    }
    let mut cases: Vec<BiasLine> = Vec::new();
    for case in &stage.cases {
        context.check_interrupt()?;
        let central = if case.difference == Difference::Central { ", central" } else { "" };
        let title = format!("{}{central}", case.problem.word());
        if cases.iter().any(|line| line.case == title) {
            bail!("`{name}`: the case `{title}` stands twice in `cases`");
        }
        let bounds = match (case.problem, case.difference) {
            (BiasProblem::Known(problem), Difference::Forward) => {
                with_problem!(problem, |known| bounds(known, &problem.start().0, &sigmas))?
            }
            _ => Vec::new(),
        };
        cases.push(BiasLine { order: order(case, &sigmas)?, case: title, bounds });
    }
    let control = stage.control.then(|| sigmas.iter().map(|&sigma| control(sigma)).collect::<Result<_, _>>());
    let bias = Bias { cases, control: control.transpose()? };
    write_json(&folder.join(RESULT), &bias)?;
    bias.figures().write(folder)?;
    let (header, rows) = bias.rows();
    println!("\n{}\n{}", table(&header, rows), bias.note());
    Ok(json!({ "cases": bias.cases.len() }))
}

/// The errors of a case at every σ.
fn order(case: &BiasCase, sigmas: &[f64]) -> Result<BiasOrder> {
    let three_actions = || Regularized::new(&[vec![0.5, 0.3, 0.2]]);
    match (case.problem, case.difference) {
        (BiasProblem::Known(problem), _) => {
            Ok(with_problem!(problem, |known| solved(known, &problem.start().0, case.difference, sigmas))?)
        }
        (problem, Difference::Central) => {
            bail!("`{}` has a forward difference alone, in closed form", problem.word())
        }
        (BiasProblem::KlCoefficient, Difference::Forward) => {
            let problem = KlCoefficient::new(three_actions()?, vec![0.0, 1.0, 2.0], vec![0.0, 1.0, 0.3])?;
            let exact = vec![problem.hyper_gradient(0.5)];
            Ok(bias_order(sigmas, &exact, |sigma| Ok(vec![problem.penalized_gradient(0.5, sigma)]))?)
        }
        (BiasProblem::RewardDesign, Difference::Forward) => {
            let (beta, shown, reward) = (Positive::literal(0.5), vec![0.2, 0.5, 0.3], [0.3, -0.2, 0.1]);
            let table = three_actions()?;
            let policy = table.optimum(&reward, beta.get()).into_iter().map(f64::exp);
            // (π − p)/β.
            let exact: Vec<f64> = policy.zip(&shown).map(|(pi, p)| (pi - p) / beta.get()).collect();
            let problem = RewardDesign::new(table, beta, Demonstrations { shares: shown });
            Ok(bias_order(sigmas, &exact, |sigma| Ok(problem.penalized_gradient(&reward, sigma).0))?)
        }
    }
}

/// The errors of a problem whose lower levels are solved by descent.
fn solved<P: ClosedForm>(
    problem: &P,
    x: &[f64],
    difference: Difference,
    sigmas: &[f64],
) -> Result<BiasOrder, BilevelError> {
    let (x, oracle) = (x.to_vec(), Oracle::new(problem));
    let start = problem.solution(&x);
    bias_order(sigmas, &problem.hyper_gradient(&x), |sigma| {
        let penalty = Penalty { sigma, difference };
        Ok(psi_sigma(&oracle, &x, &start, &start, penalty, &TIGHT)?.gradient)
    })
}

/// The error bound's constant at every σ.
fn bounds<P: ClosedForm>(problem: &P, x: &[f64], sigmas: &[f64]) -> Result<Vec<SigmaBound>, BilevelError> {
    let (x, oracle) = (x.to_vec(), Oracle::new(problem));
    let start = problem.solution(&x);
    let constant = |&sigma: &f64| {
        let y = psi_sigma(&oracle, &x, &start, &start, Penalty::forward(sigma), &TIGHT)?.y;
        let bound = error_bound(&oracle, &x, &y, sigma, &ErrorBoundConfig::default())?;
        Ok(SigmaBound { sigma, constant: bound.constant })
    };
    sigmas.iter().map(constant).collect()
}

/// The control at one σ. The lower level on [−1, 1] is solved from 0.3, a point of neither of its ends.
fn control(sigma: f64) -> Result<Control, BilevelError> {
    let (x, start) = (vec![sigma], vec![0.3]);
    let penalized = psi_sigma(&Oracle::new(&Bilinear), &x, &start, &start, Penalty::forward(sigma), &TIGHT)?;
    Ok(Control { sigma, gap: Bilinear.psi(&x) - penalized.value, gradient: penalized.gradient[0].abs() })
}

impl Bias {
    /// What a stage left behind, if it was one of these.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        read_json(&folder.join(RESULT))
    }

    /// The penalties, in the order of the recipe.
    fn sigmas(&self) -> Vec<f64> {
        let of = |errors: &[SigmaError]| errors.iter().map(|at| at.sigma).collect();
        let control = || self.control.iter().flatten().map(|at| at.sigma).collect();
        self.cases.first().map_or_else(control, |line| of(&line.order.errors))
    }

    /// The headings and rows of the table.
    pub(crate) fn rows(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let sigmas = self.sigmas();
        let header = ["hyper-gradient error".to_owned()]
            .into_iter()
            .chain(sigmas.iter().map(|sigma| format!("σ = {sigma}")))
            .chain(["slope", "error bound"].map(str::to_owned));
        let mut rows: Vec<Vec<String>> = Vec::new();
        for line in &self.cases {
            let errors = line.order.errors.iter().map(|at| format!("{:.3e}", at.error));
            let cells = [line.case.clone()].into_iter().chain(errors);
            let bound = |at: &SigmaBound| format!("{:.2e}", at.constant);
            let bound = line.bounds.last().map_or_else(|| "–".to_owned(), bound);
            rows.push(cells.chain([format!("{:.4}", line.order.slope), bound]).collect());
        }
        if let Some(control) = &self.control {
            let gaps = control.iter().map(|at| format!("{:.9}", at.gap));
            let cells = ["control: ψ − ψ_σ at x = σ".to_owned()].into_iter().chain(gaps);
            rows.push(cells.chain(["–", "–"].map(str::to_owned)).collect());
        }
        (header.collect(), rows)
    }

    /// What the figures are.
    pub(crate) fn note(&self) -> String {
        "‖∇ψ_σ − ∇ψ‖ against closed forms, in f64; the slope is that of ln error against ln σ. The error bound is the least residual per \
         distance from the lower solutions, measured at the last σ: where f breaks ties, it falls with σ. In the control the lower \
         solution jumps, and no σ is small enough"
            .to_owned()
    }

    fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for line in &self.cases {
            figures.add(&line.case, "slope", line.order.slope);
            if !line.bounds.is_empty() {
                figures.add_curve(&line.case, "bound", line.bounds.iter().map(|at| at.constant).collect());
            }
            figures.add_curve(&line.case, "error", line.order.errors.iter().map(|at| at.error).collect());
        }
        if let Some(control) = &self.control {
            figures.add_curve("control", "gap", control.iter().map(|at| at.gap).collect());
        }
        figures
    }
}
