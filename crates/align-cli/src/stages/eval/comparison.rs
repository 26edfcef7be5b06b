//! What a comparison leaves behind: figures of every arm, and its table.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::super::read_json;
use crate::table::{Spread, table};

/// The result's file in the stage's folder.
pub(super) const RESULTS: &str = "comparison.json";

/// All arms of a comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Comparison {
    /// How many prompts every model answered.
    pub(crate) prompts: usize,
    /// The rewards and anchors there are, in the table's order.
    pub(crate) anchors: Vec<String>,
    /// Multiplies the standard error.
    pub(crate) z: f64,
    /// One per arm and seed.
    pub(crate) arms: Vec<ArmResult>,
    /// Completions side by side.
    pub(crate) samples: Vec<Sample>,
}

/// One model's figures, means over prompts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ArmResult {
    /// The arm.
    pub(crate) arm: String,
    /// The seed of the run that made the model, if there were several.
    pub(crate) seed: Option<u64>,
    /// Mean figures by name: `gold`, `reward`, `exact_match`, `nll`, `kl/<anchor>`, `length`, `stop_rate`, `entropy`, `similarity`,
    /// `win_rate`.
    pub(crate) means: BTreeMap<String, f64>,
    /// Their standard errors over prompts.
    pub(crate) errors: BTreeMap<String, f64>,
}

/// A prompt and what every arm made of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// The prompt's text.
    pub(crate) prompt: String,
    /// Arm, completion, gold, reward.
    pub(crate) completions: Vec<(String, String, Option<f64>, Option<f64>)>,
}

impl Comparison {
    /// Reads a stage's result, if it has one.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        read_json(&folder.join(RESULTS))
    }

    /// Comparisons of a stage that was repeated over seeds, as one; the completions shown are the first seed's.
    pub(crate) fn over_seeds(seeds: Vec<(u64, Self)>) -> Option<Self> {
        let mut seeds = seeds.into_iter().map(|(seed, mut comparison)| {
            // A model that is the same for all seeds has been measured on other rows.
            comparison.arms.iter_mut().for_each(|arm| arm.seed = arm.seed.or(Some(seed)));
            comparison
        });
        let first = seeds.next()?;
        Some(seeds.fold(first, |mut all, next| {
            all.arms.extend(next.arms);
            all
        }))
    }

    /// The arms in the order they were given, each with its models.
    pub(crate) fn by_arm(&self) -> Vec<(&str, Vec<&ArmResult>)> {
        let mut arms: Vec<(&str, Vec<&ArmResult>)> = Vec::new();
        for result in &self.arms {
            match arms.iter_mut().find(|(arm, _)| *arm == result.arm) {
                Some((_, results)) => results.push(result),
                None => arms.push((&result.arm, vec![result])),
            }
        }
        arms
    }

    /// The figures in the table's order: names and headings.
    pub(crate) fn columns(&self) -> Vec<(String, String)> {
        let mut columns: Vec<_> = [
            ("gold", "gold"),
            ("reward", "proxy"),
            ("win_rate", "won"),
            ("exact_match", "exact match"),
            ("nll", "nll"),
        ]
        .map(|(name, heading)| (name.to_owned(), heading.to_owned()))
        .into();
        columns.extend(self.anchors.iter().map(|anchor| (format!("kl/{anchor}"), format!("KL to {anchor}"))));
        columns.extend(
            [("length", "length"), ("stop_rate", "stops"), ("similarity", "METEOR")]
                .map(|(a, b)| (a.to_owned(), b.to_owned())),
        );
        columns.retain(|(name, _)| self.arms.iter().any(|arm| arm.means.contains_key(name)));
        columns
    }

    /// One figure of one arm: mean and standard error, over seeds where there are several, else over prompts.
    pub(crate) fn figure(&self, results: &[&ArmResult], name: &str) -> Option<Spread> {
        let means: Vec<f64> = results.iter().filter_map(|result| result.means.get(name).copied()).collect();
        match means.as_slice() {
            [] => None,
            [mean] => Some(Spread { mean: *mean, error: results[0].errors[name], count: self.prompts }),
            means => Some(Spread::of(means)),
        }
    }

    /// The table for a terminal.
    pub(crate) fn table(&self) -> String {
        let columns = self.columns();
        let mut header = vec!["arm".to_owned(), "seeds".to_owned()];
        header.extend(columns.iter().map(|(_, heading)| heading.clone()));
        let rows = self.by_arm().into_iter().map(|(arm, results)| {
            let mut row = vec![arm.to_owned(), results.len().to_string()];
            row.extend(columns.iter().map(|(name, _)| match self.figure(&results, name) {
                Some(spread) => spread.show(self.z),
                None => "–".to_owned(),
            }));
            row
        });
        format!(
            "{}\n{} prompts; ± is {} standard errors, over seeds where there are several, else over prompts",
            table(&header, rows.collect()),
            self.prompts,
            self.z
        )
    }
}
