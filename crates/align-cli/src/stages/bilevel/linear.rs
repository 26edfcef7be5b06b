//! Cleaning in worlds whose best reward is linear and known, over seeds.

use std::ops::ControlFlow;
use std::path::Path;

use align_bilevel::alignment::{
    CleanConfig, Cleaning, ExampleSet, FitConfig, LinearPairs, LinearWorld, LinearWorldConfig, Weights, auc,
    clean, detection, filter_by_confidence,
};
use align_reward::overoptimization::Band;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::context::Context;
use crate::progress::rows_bar;
use crate::recipe::bilevel::{Arm, LinearCleaningStage};
use crate::stages::figures::Figures;
use crate::stages::{read_json, write_json};
use crate::table::table;

/// The result's file in the stage's folder.
const RESULT: &str = "linear_cleaning.json";
/// Trusted and cleaned pairs together, with labels as they are.
const POOLED: &str = "pooled";

/// Every world's figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LinearCleaning {
    /// The worlds' seeds.
    pub(crate) seeds: Vec<u64>,
    /// By what the reward was fitted to.
    pub(crate) arms: Vec<LinearArm>,
    /// P(a right pair outweighs a flipped one), by world; none without flips.
    pub(crate) auc: Vec<f64>,
    /// F1 of keeping what weighs more than a half, by world.
    pub(crate) f1: Vec<f64>,
    /// `(Σ s)² / Σ s²`, by world.
    pub(crate) effective_sample_size: Vec<f64>,
    /// Weights of the first world, each with whether its label was flipped.
    pub(crate) weights: Vec<(f64, bool)>,
}

/// What rewards fitted to something are worth on clean pairs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct LinearArm {
    pub(crate) name: String,
    /// Share of test pairs in the right order, by world.
    pub(crate) accuracy: Vec<f64>,
    /// Nats a test pair, by world.
    pub(crate) nll: Vec<f64>,
}

pub(in crate::stages) fn run(
    name: &str,
    stage: &LinearCleaningStage,
    folder: &Path,
    context: &Context,
) -> Result<Value> {
    let mut found = LinearCleaning {
        seeds: (0..stage.worlds as u64).map(|world| stage.world.seed + world).collect(),
        arms: Vec::new(),
        auc: Vec::new(),
        f1: Vec::new(),
        effective_sample_size: Vec::new(),
        weights: Vec::new(),
    };
    let bar = rows_bar(name, stage.worlds);
    for seed in found.seeds.clone() {
        let world = LinearWorldConfig { seed, ..stage.world.clone() }.draw();
        found.add(stage, &world, context).with_context(|| format!("`{name}`: world {seed}"))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    write_json(&folder.join(RESULT), &found)?;
    found.figures().write(folder)?;
    let (header, rows) = found.rows();
    println!("\n{}\n{}", table(&header, rows), found.note());
    Ok(json!({ "worlds": stage.worlds, "auc": mean(&found.auc) }))
}

/// `None` of nothing.
fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

impl LinearCleaning {
    /// What a stage left behind, if it was one of these.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        read_json(&folder.join(RESULT))
    }

    /// Cleans the pairs of one world and fits a reward to each arm.
    fn add(&mut self, stage: &LinearCleaningStage, world: &LinearWorld, context: &Context) -> Result<()> {
        let (n, features, ridge) = (world.training.len(), world.theta.len(), stage.ridge.get());
        let pairs = LinearPairs::new(&world.training, &world.trusted)?;
        let problem = Cleaning::new(pairs.clone(), Weights::per_example(n), ridge.try_into()?)?;
        let config =
            CleanConfig { seed: stage.cleaning.seed + self.f1.len() as u64, ..stage.cleaning.clone() };
        let cleaned =
            clean(&problem, vec![0.0; features], &config, |_, _| match context.check_interrupt() {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            })?;
        context.check_interrupt()?;
        let flipped = &world.flips.mask;
        self.auc.extend(auc(&cleaned.weights, flipped));
        self.f1.push(detection(&cleaned.weights, flipped, 0.5).f1);
        self.effective_sample_size.push(cleaned.effective_sample_size);
        if self.weights.is_empty() {
            self.weights = cleaned.weights.iter().copied().zip(flipped.iter().copied()).collect();
        }

        let fits = FitConfig { ridge: stage.ridge, ..FitConfig::default() };
        let confident = filter_by_confidence(&pairs, stage.world.flipped, vec![0.0; features], &fits)?;
        let right = flipped.iter().map(|&flipped| f64::from(u8::from(!flipped))).collect();
        let trusted = pairs.fit(ExampleSet::Trusted, &vec![1.0; world.trusted.len()], ridge)?;
        let pooled = [&world.training[..], &world.trusted[..]].concat();
        let together = LinearPairs::new(&pooled, &world.trusted)?;
        let weighted = |weights: Vec<f64>| pairs.fit(ExampleSet::Training, &weights, ridge);
        for (arm, reward) in [
            (Arm::All.word(), weighted(vec![1.0; n])?),
            (Arm::Trusted.word(), trusted),
            (POOLED, together.fit(ExampleSet::Training, &vec![1.0; pooled.len()], ridge)?),
            (Arm::Confident.word(), weighted(confident.weights())?),
            (Arm::Cleaned.word(), weighted(cleaned.weights)?),
            (Arm::Right.word(), weighted(right)?),
        ] {
            let scores = LinearPairs::evaluate(&world.test, &reward);
            let known = self.arms.iter().position(|known| known.name == arm);
            let at = known.unwrap_or_else(|| {
                self.arms.push(LinearArm { name: arm.to_owned(), ..LinearArm::default() });
                self.arms.len() - 1
            });
            self.arms[at].accuracy.push(scores.accuracy);
            self.arms[at].nll.push(scores.loss);
        }
        Ok(())
    }

    /// The headings and rows of the table.
    pub(crate) fn rows(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let header = ["reward fitted to", "accuracy", "NLL (nats a pair)"].map(str::to_owned).to_vec();
        let show = |values: &[f64]| {
            let Band { mean, high, .. } = Band::of(values);
            format!("{mean:.3} ±{:.3}", high - mean)
        };
        let rows = self.arms.iter().map(|arm| vec![arm.name.clone(), show(&arm.accuracy), show(&arm.nll)]);
        (header, rows.collect())
    }

    /// What the figures are.
    pub(crate) fn note(&self) -> String {
        let shown = |name: &str, values: &[f64]| {
            mean(values).map(|mean| format!("; {name} {mean:.3}")).unwrap_or_default()
        };
        format!(
            "means over {} worlds on clean pairs, ± a 95 % interval over worlds{}{}; effective sample size {:.0}",
            self.seeds.len(),
            shown("AUC of the weights", &self.auc),
            shown("F1 at a half", &self.f1),
            mean(&self.effective_sample_size).unwrap_or(0.0)
        )
    }

    fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for arm in &self.arms {
            arm.accuracy.iter().for_each(|value| figures.add(&arm.name, "accuracy", *value));
            arm.nll.iter().for_each(|value| figures.add(&arm.name, "nll", *value));
        }
        self.auc.iter().for_each(|value| figures.add("weights", "auc", *value));
        self.f1.iter().for_each(|value| figures.add("weights", "f1", *value));
        self.effective_sample_size
            .iter()
            .for_each(|value| figures.add("weights", "effective_sample_size", *value));
        figures
    }
}
