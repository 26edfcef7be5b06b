//! Problems above a table of choices: a tuned KL coefficient, a designed reward.

use std::path::Path;

use align_bilevel::alignment::{
    Demonstrations, DesignedReward, GoldReward, KlCoefficient, KlTuned, PolicyObjective, PreferenceLoss,
    Regularized, RewardDesign, design_reward, tune_kl_coefficient,
};
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::context::Context;
use crate::recipe::bilevel::{CoefficientStage, DesignStage, ObjectiveConfig, Rows, TableConfig, Values};
use crate::stages::figures::Figures;
use crate::stages::{read_json, write_json};
use crate::table::table;

/// The tuned coefficients, in the stage's folder.
const COEFFICIENT: &str = "coefficient.json";
/// The designed reward.
const DESIGN: &str = "reward_design.json";
/// Coefficients at which ψ is drawn.
const DRAWN: usize = 81;

/// Coefficients from every start, and ψ around them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Coefficient {
    pub(crate) sigma: f64,
    /// In the recipe's order of starts.
    pub(crate) tuned: Vec<KlTuned>,
    /// (β, ψ(β)), for the picture.
    pub(crate) psi: Vec<(f64, f64)>,
}

/// A designed reward beside what it was made from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Design {
    /// Actions in each state.
    pub(crate) actions: usize,
    /// The reference's probabilities.
    pub(crate) reference: Vec<f64>,
    /// What the policy should be, where the objective says so itself.
    pub(crate) target: Option<Vec<f64>>,
    #[serde(flatten)]
    pub(crate) designed: DesignedReward,
}

pub(in crate::stages) fn coefficient(
    name: &str,
    stage: &CoefficientStage,
    folder: &Path,
    context: &Context,
) -> Result<Value> {
    let table_of_choices = regularized(&stage.table, context)?;
    let proxy = cells("proxy", &stage.proxy, &table_of_choices, context)?;
    let gold = cells("gold", &stage.gold, &table_of_choices, context)?;
    let problem = KlCoefficient::new(table_of_choices, proxy, gold)?;
    if stage.starts.is_empty() {
        bail!("`{name}`: `starts` is empty, expected at least one β to begin with");
    }
    let tuned: Vec<KlTuned> =
        stage.starts.iter().map(|start| tune_kl_coefficient(&problem, start.get(), &stage.tuning)).collect();
    for (start, tuned) in stage.starts.iter().zip(&tuned) {
        if tuned.penalized_gradient.abs() > stage.tuning.tolerance.get() {
            eprintln!(
                "{name}: warning: from β = {start} the slope is still {:.1e} after {} steps, above `tuning.tolerance`",
                tuned.penalized_gradient,
                tuned.path.len() - 1
            );
        }
    }
    let visited = || tuned.iter().flat_map(|tuned| tuned.path.iter().copied());
    let (low, high) =
        visited().fold((f64::INFINITY, 0.0f64), |(low, high), beta| (low.min(beta), high.max(beta)));
    let (low, high) = ((low / 2.0).ln(), (high * 2.0).ln());
    let at = |step: usize| (low + (high - low) * step as f64 / (DRAWN - 1) as f64).exp();
    let psi = (0..DRAWN).map(at).map(|beta| (beta, problem.psi(beta))).collect();
    let found = Coefficient { sigma: stage.tuning.sigma.get(), tuned, psi };
    write_json(&folder.join(COEFFICIENT), &found)?;
    found.figures().write(folder)?;
    let (header, rows) = found.rows();
    println!("\n{}\n{}", table(&header, rows), found.note());
    Ok(json!({ "beta": found.tuned.iter().map(|tuned| tuned.beta).collect::<Vec<_>>() }))
}

pub(in crate::stages) fn design(
    name: &str,
    stage: &DesignStage,
    folder: &Path,
    context: &Context,
) -> Result<Value> {
    let choices = regularized(&stage.table, context)?;
    let cells_of = |key: &str, values: &Values| cells(key, values, &choices, context);
    let (target, designed) = match &stage.objective {
        ObjectiveConfig::Demonstrations { shares } => {
            let shares = cells_of("objective.shares", shares)?;
            for row in shares.chunks(choices.actions()) {
                let sum: f64 = row.iter().sum();
                if row.iter().any(|share| *share < 0.0) || (sum - 1.0).abs() > 1e-6 {
                    bail!("`objective.shares`: every row is a distribution that sums to 1, found {row:?}");
                }
            }
            (Some(shares.clone()), designed(stage, &choices, Demonstrations { shares }, context)?)
        }
        ObjectiveConfig::Gold { reward } => {
            let reward = cells_of("objective.reward", reward)?;
            (None, designed(stage, &choices, GoldReward { reward }, context)?)
        }
        ObjectiveConfig::Preferences { preferred } => {
            let width = choices.actions() * choices.actions();
            let preferred = flat("objective.preferred", preferred, choices.states(), width, context)?;
            if let Some(wrong) = preferred.iter().find(|p| !(0.0..=1.0).contains(*p)) {
                bail!("`objective.preferred` has {wrong}, and a probability lies in [0, 1]");
            }
            (None, designed(stage, &choices, PreferenceLoss { preferred }, context)?)
        }
    };
    if designed.gradient_norm > stage.design.tolerance.get() {
        eprintln!(
            "{name}: warning: ‖∇ψ_σ‖ is still {:.1e} after {} steps, above `design.tolerance`",
            designed.gradient_norm, designed.iterations
        );
    }
    let reference = choices.log_reference().iter().map(|log| log.exp()).collect();
    let found = Design { actions: choices.actions(), reference, target, designed };
    write_json(&folder.join(DESIGN), &found)?;
    found.figures().write(folder)?;
    let (header, rows) = found.rows();
    println!("\n{}\n{}", table(&header, rows), found.note());
    Ok(json!({ "psi": found.designed.psi, "kl": found.designed.kl, "steps": found.designed.iterations }))
}

fn designed(
    stage: &DesignStage,
    choices: &Regularized,
    objective: impl PolicyObjective,
    context: &Context,
) -> Result<DesignedReward> {
    let start = match &stage.start {
        None => vec![0.0; choices.cells()],
        Some(start) => cells("start", start, choices, context)?,
    };
    let problem = RewardDesign::new(choices.clone(), stage.beta, objective);
    Ok(design_reward(&problem, start, &stage.design)?)
}

/// The table of states and actions.
fn regularized(config: &TableConfig, context: &Context) -> Result<Regularized> {
    let rows = rows("table.reference", &config.reference, context)?;
    let table = match &config.frequency {
        None => Regularized::new(&rows),
        Some(frequency) => Regularized::with_frequencies(&rows, frequency.clone()),
    };
    table.context("`table`")
}

/// A number for each state and action.
fn cells(key: &str, values: &Values, choices: &Regularized, context: &Context) -> Result<Vec<f64>> {
    flat(key, values, choices.states(), choices.actions(), context)
}

fn flat(key: &str, values: &Values, states: usize, width: usize, context: &Context) -> Result<Vec<f64>> {
    let rows = rows(key, values, context)?;
    if rows.len() != states {
        bail!("`{key}` has {} rows, and `table.reference` has {states} states", rows.len());
    }
    for (state, row) in rows.iter().enumerate() {
        if row.len() != width {
            bail!("`{key}`: row {} has {} numbers, expected {width}", state + 1, row.len());
        }
        if let Some(wrong) = row.iter().find(|value| !value.is_finite()) {
            bail!("`{key}`: row {} has {wrong}, expected finite numbers", state + 1);
        }
    }
    Ok(rows.concat())
}

/// Rows as they stand, or from their file.
fn rows(key: &str, values: &Values, context: &Context) -> Result<Rows> {
    match values {
        Values::Rows(rows) => Ok(rows.clone()),
        Values::File(file) => {
            let path = context.path(file)?;
            let found: Option<Rows> =
                read_json(&path).with_context(|| format!("`{key}`: expected rows of numbers"))?;
            found.with_context(|| format!("`{key}`: there is no file {}", path.display()))
        }
    }
}

impl Coefficient {
    /// What a stage left behind, if it was one of these.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        read_json(&folder.join(COEFFICIENT))
    }

    /// The headings and rows of the table.
    pub(crate) fn rows(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let header = ["β at first", "β", "gold reward", "KL (nats)", "steps"].map(str::to_owned).to_vec();
        let rows = self.tuned.iter().map(|tuned| {
            vec![
                format!("{}", tuned.path[0]),
                format!("{:.8}", tuned.beta),
                format!("{:.6}", -tuned.psi),
                format!("{:.6}", tuned.kl),
                (tuned.path.len() - 1).to_string(),
            ]
        });
        (header, rows.collect())
    }

    /// What the figures are.
    pub(crate) fn note(&self) -> String {
        format!(
            "gold reward and KL of the policy at β; σ = {}, whose optimum is off by the order of σ",
            self.sigma
        )
    }

    fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for tuned in &self.tuned {
            let start = format!("{}", tuned.path[0]);
            figures.add(&start, "beta", tuned.beta);
            figures.add(&start, "gold", -tuned.psi);
            figures.add(&start, "kl", tuned.kl);
            figures.add(&start, "steps", (tuned.path.len() - 1) as f64);
        }
        figures
    }
}

impl Design {
    /// What a stage left behind, if it was one of these.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        read_json(&folder.join(DESIGN))
    }

    /// The headings and rows of the table.
    pub(crate) fn rows(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let mut header = ["state, action", "reference", "reward", "its policy"].map(str::to_owned).to_vec();
        header.extend(self.target.is_some().then(|| "wanted".to_owned()));
        let row = |cell: usize| {
            let mut row = vec![
                format!("{}, {}", cell / self.actions, cell % self.actions),
                format!("{:.4}", self.reference[cell]),
                format!("{:.4}", self.designed.reward[cell]),
                format!("{:.4}", self.designed.policy[cell]),
            ];
            row.extend(self.target.as_ref().map(|target| format!("{:.4}", target[cell])));
            row
        };
        (header, (0..self.reference.len()).map(row).collect())
    }

    /// What the figures are.
    pub(crate) fn note(&self) -> String {
        let Self { designed, .. } = self;
        format!(
            "objective {:.6} after {} steps, KL to the reference {:.4} nats; a reward is known up to a constant in each state",
            designed.psi, designed.iterations, designed.kl
        )
    }

    fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        figures.add("policy", "objective", self.designed.psi);
        figures.add("policy", "kl", self.designed.kl);
        figures.add("policy", "gradient_norm", self.designed.gradient_norm);
        figures.add_curve("policy", "probabilities", self.designed.policy.clone());
        if let Some(target) = &self.target {
            let farthest = self.designed.policy.iter().zip(target).map(|(p, q)| (p - q).abs());
            figures.add("policy", "largest_miss", farthest.fold(0.0, f64::max));
        }
        figures
    }
}
