//! What a cleaning found, as files.

use std::path::Path;

use align_bilevel::Calls;
use align_bilevel::alignment::{CleaningWarning, Detection};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::data::Pairs;
use crate::stages::figures::Figures;
use crate::stages::world::write_rows;
use crate::stages::{read_json, write_json};

/// The result's file in the stage's folder.
const RESULT: &str = "cleaning.json";
/// A line for every pair.
const WEIGHTS: &str = "weights.jsonl";
/// Letters of a prompt that stand beside its weight.
const BEGINNING: usize = 80;

/// What was found of the pairs, and what it was worth.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CleanedData {
    /// Pairs that were weighed.
    pub(crate) pairs: usize,
    pub(crate) trusted: usize,
    pub(crate) held_out: usize,
    /// Labels that were made wrong on purpose.
    pub(crate) flipped: Option<usize>,
    /// Pairs that weigh at least `threshold`.
    pub(crate) kept: usize,
    pub(crate) threshold: f64,
    /// P(a right pair outweighs a flipped one).
    pub(crate) auc: Option<f64>,
    /// What the threshold finds.
    pub(crate) detection: Option<Detection>,
    /// `(Σ s)² / Σ s²`.
    pub(crate) effective_sample_size: f64,
    pub(crate) mean_weight: f64,
    /// By source, where sources are weighed.
    pub(crate) sources: Vec<SourceShare>,
    /// Gradients that the search for weights asked for.
    pub(crate) calls: Calls,
    pub(crate) warnings: Vec<CleaningWarning>,
    /// Models trained for comparison; the cleaned pairs' comes last.
    pub(crate) arms: Vec<ArmFigures>,
    /// Each pair's weight, and whether it was flipped: read from the lines beside this file.
    #[serde(skip)]
    pub(crate) weights: Vec<(f64, bool)>,
}

/// How a model does on held-out pairs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ArmFigures {
    pub(crate) name: String,
    /// Pairs it was trained on.
    pub(crate) pairs: usize,
    pub(crate) accuracy: Option<f64>,
    /// Nats a pair, before the scale.
    pub(crate) nll: Option<f64>,
}

/// What a source contributes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SourceShare {
    pub(crate) name: String,
    pub(crate) pairs: usize,
    /// Its share of the lower loss; by its number of pairs at first.
    pub(crate) share: f64,
}

impl SourceShare {
    /// Of all sources; none where pairs are weighed.
    pub(super) fn of(pairs: &Pairs, shares: &[f64]) -> Vec<Self> {
        let Some((names, source)) = &pairs.sources else { return Vec::new() };
        let count = |at: usize| source.iter().filter(|found| **found == at).count();
        let named = names.iter().zip(shares).enumerate();
        named.map(|(at, (name, &share))| Self { name: name.clone(), pairs: count(at), share }).collect()
    }
}

/// Writes a line for every pair, the rows that are kept, and, where labels were flipped, the rows of other choices.
pub(super) fn write_rows_of(
    folder: &Path,
    pairs: &Pairs,
    weights: &[f64],
    kept: &[bool],
    confident: Option<&[bool]>,
) -> Result<()> {
    let lines = pairs.training.iter().zip(weights).enumerate().map(|(at, (item, weight))| {
        let prompt: String = item.row.pair.prompt.plain_text().chars().take(BEGINNING).collect();
        let mut line = json!({ "row": item.row.number, "weight": weight });
        if pairs.paths.len() > 1 {
            line["file"] = json!(pairs.paths[item.entry]);
        }
        if let Some(id) = item.row.columns.get("id") {
            line["id"] = id.clone();
        }
        if let Some((names, source)) = &pairs.sources {
            line["source"] = json!(names[source[at]]);
        }
        if let Some(flipped) = pairs.flipped() {
            line["flipped"] = json!(flipped[at]);
        }
        line["prompt"] = json!(prompt);
        line
    });
    write_rows(&folder.join(WEIGHTS), lines.collect())?;
    let rows = |mask: &[bool]| -> Vec<Value> {
        let chosen = pairs.training.iter().zip(mask).filter(|(_, kept)| **kept);
        chosen.map(|(item, _)| Value::Object(item.row.columns.clone())).collect()
    };
    write_rows(&folder.join("kept.jsonl"), rows(kept))?;
    if let Some(flipped) = pairs.flipped() {
        write_rows(&folder.join("labelled.jsonl"), rows(&vec![true; flipped.len()]))?;
        let right: Vec<bool> = flipped.iter().map(|flipped| !flipped).collect();
        write_rows(&folder.join("clean.jsonl"), rows(&right))?;
        if let Some(confident) = confident {
            write_rows(&folder.join("filtered.jsonl"), rows(confident))?;
        }
    }
    Ok(())
}

impl CleanedData {
    /// What a stage left behind, if it was one of these.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        let Some(mut found): Option<Self> = read_json(&folder.join(RESULT))? else { return Ok(None) };
        let path = folder.join(WEIGHTS);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        for line in text.lines() {
            let line: Value =
                serde_json::from_str(line).with_context(|| format!("{} is damaged", path.display()))?;
            let flipped = line["flipped"].as_bool().unwrap_or(false);
            found.weights.push((line["weight"].as_f64().unwrap_or(f64::NAN), flipped));
        }
        Ok(Some(found))
    }

    /// Writes it, and the figures that claims read, into the stage's folder.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        write_json(&folder.join(RESULT), self)?;
        self.figures().write(folder)
    }

    /// The headings and rows of the table.
    pub(crate) fn rows(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let header = ["trained on", "pairs", "accuracy", "NLL (nats a pair)"].map(str::to_owned).to_vec();
        let show = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.4}"));
        let rows = self
            .arms
            .iter()
            .map(|arm| vec![arm.name.clone(), arm.pairs.to_string(), show(arm.accuracy), show(arm.nll)]);
        (header, rows.collect())
    }

    /// What the figures are.
    pub(crate) fn note(&self) -> String {
        let mut note = format!(
            "{} held-out pairs; {} pairs were weighed against {} trusted ones, {} weigh {:.3} or more, effective sample size {:.0}",
            self.held_out, self.pairs, self.trusted, self.kept, self.threshold, self.effective_sample_size
        );
        if let (Some(flipped), Some(auc), Some(detection)) = (self.flipped, self.auc, self.detection) {
            note += &format!(
                "; {flipped} labels were flipped: AUC of the weights {auc:.3}, F1 of what is kept {:.3}",
                detection.f1
            );
        }
        let shares = self.sources.iter().map(|source| format!("{} {:.3}", source.name, source.share));
        let shares: Vec<String> = shares.collect();
        if !shares.is_empty() {
            note += &format!("; shares of the sources: {}", shares.join(", "));
        }
        note
    }

    fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for arm in &self.arms {
            for (name, value) in [("accuracy", arm.accuracy), ("nll", arm.nll)] {
                if let Some(value) = value {
                    figures.add(&arm.name, name, value);
                }
            }
        }
        figures.add("weights", "effective_sample_size", self.effective_sample_size);
        figures.add("weights", "kept", self.kept as f64 / self.pairs as f64);
        for (name, value) in [("auc", self.auc), ("f1", self.detection.map(|found| found.f1))] {
            if let Some(value) = value {
                figures.add("weights", name, value);
            }
        }
        for source in &self.sources {
            figures.add(&source.name, "share", source.share);
        }
        figures
    }
}
