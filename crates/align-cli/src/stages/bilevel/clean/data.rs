//! The pairs of a cleaning: what is cleaned, what is trusted, what measures.

use std::collections::BTreeMap;
use std::path::PathBuf;

use align_bilevel::BilevelError;
use align_bilevel::alignment::{Flips, Weights, flip_share};
use align_core::number::UnitInterval;
use align_data::encode::{EncodeError, Encoder, PreferenceExample};
use align_data::rows::{Dialogue, FromRow, PreferenceRow, RowProblem};
use align_data::split::is_held_out;
use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value};

use crate::context::Context;
use crate::data::{self, Rows};
use crate::recipe::bilevel::{CleanStage, WeighConfig};
use crate::recipe::parts::DataConfig;

/// A labelled pair with the columns it came with.
#[derive(Clone, Debug)]
pub(super) struct Labelled {
    pub(super) columns: Map<String, Value>,
    pub(super) pair: PreferenceRow,
    /// Its place among the rows of its file, counted from 1.
    pub(super) number: usize,
}

impl FromRow for Labelled {
    const KIND: &'static str = PreferenceRow::KIND;

    fn from_row(row: &Map<String, Value>) -> Result<Self, RowProblem> {
        Ok(Self { columns: row.clone(), pair: PreferenceRow::from_row(row)?, number: 0 })
    }

    fn prompt(&self) -> Option<&Dialogue> {
        self.pair.prompt()
    }
}

impl Labelled {
    /// The same for both labels of a pair.
    fn content(&self) -> [String; 3] {
        let mut sides = [self.pair.chosen.key(), self.pair.rejected.key()];
        sides.sort();
        let [first, second] = sides;
        [self.pair.prompt.key(), first, second]
    }

    /// Chosen and rejected change places, in every pair of columns that begins with these words.
    fn flip(&mut self) {
        let other = |name: &str| Some(format!("rejected{}", name.strip_prefix("chosen")?));
        let names: Vec<String> = self.columns.keys().cloned().collect();
        let sides = names.iter().filter_map(|name| Some((name, other(name)?)));
        for (chosen, rejected) in sides.filter(|(_, rejected)| names.contains(rejected)) {
            let [first, second] = [&self.columns[chosen], &self.columns[&rejected]].map(Clone::clone);
            self.columns[chosen] = second;
            self.columns[&rejected] = first;
        }
        if !self.columns.contains_key("chosen") {
            // Ranked completions: said as a pair.
            let side = |side: &Dialogue| serde_json::to_value(side).expect("a dialogue is JSON");
            let PreferenceRow { prompt, chosen, rejected, .. } = &self.pair;
            let pair = [("prompt", prompt), ("chosen", rejected), ("rejected", chosen)];
            self.columns = pair.map(|(name, value)| (name.to_owned(), side(value))).into_iter().collect();
        }
        std::mem::swap(&mut self.pair.chosen, &mut self.pair.rejected);
    }
}

/// A labelled pair in tokens.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) row: Labelled,
    pub(super) example: PreferenceExample,
    /// Which entry of `data` it is from.
    pub(super) entry: usize,
}

/// All pairs of a stage.
pub(super) struct Pairs {
    /// The files of `data` and `trusted`.
    pub(super) paths: Vec<PathBuf>,
    /// To be cleaned, with the labels that are trained on.
    pub(super) training: Vec<Item>,
    /// Of which the labels are right.
    pub(super) trusted: Vec<PreferenceExample>,
    /// What every arm is measured on.
    pub(super) held_out: Vec<PreferenceExample>,
    /// Which training labels were made wrong on purpose.
    pub(super) flips: Option<Flips>,
    /// The names of sources, and which one each training pair is from, if sources are weighed.
    pub(super) sources: Option<(Vec<String>, Vec<usize>)>,
}

impl Pairs {
    /// Reads, splits, checks that nothing is on two sides, encodes, and flips labels if that is asked for.
    pub(super) fn read(stage: &CleanStage, encoder: &Encoder, context: &Context) -> Result<Self> {
        let (mut training, mut trusted, mut held_out) = (Vec::new(), Vec::new(), Vec::new());
        let mut paths = Vec::new();
        for (entry, config) in stage.data.iter().enumerate() {
            let mut rows = numbered(config, context)?;
            paths.push(rows.path.clone());
            let taken =
                stage.trusted_share.map(|share| take_trusted(&mut rows, share.get(), config.split_seed));
            // Before anything is flipped, so that a pair is known whatever its label.
            if let Some(taken) = taken.filter(|taken| !taken.rows.is_empty()) {
                trusted.extend(encoded(&taken, "trusted pairs", encoder, entry)?);
            }
            if rows.rows.is_empty() {
                bail!(
                    "{}: all pairs are trusted, and none is left to clean; lower `trusted_share`",
                    rows.path.display()
                );
            }
            training.extend(encoded(&rows, "pairs to clean", encoder, entry)?);
            held_out.extend(rows.encode_held_out("pairs", encoder, |encoder, row| one(encoder, row, entry))?);
        }
        if let Some(config) = &stage.trusted {
            let rows = numbered(config, context)?;
            paths.push(rows.path.clone());
            trusted.extend(encoded(&rows, "trusted pairs", encoder, stage.data.len())?);
        }
        if trusted.is_empty() {
            let detail = format!("{} training and 0 trusted pairs", training.len());
            return Err(BilevelError::InvalidSplit { detail })
                .context("`trusted_share` takes no prompt: raise it");
        }
        check_apart(&trusted, &training, "are to be cleaned too")?;
        check_apart(&trusted, &held_out, "are held out of `data` too")?;
        let sources = match &stage.weights {
            WeighConfig::Pair => None,
            WeighConfig::Source { column } => Some(sources(&training, column.as_deref(), &paths)?),
        };
        let flips = stage.label_noise.as_ref().map(|noise| {
            let share =
                UnitInterval::try_from(noise.share.get()).expect("a rate below a half lies in [0, 1]");
            flip_share(training.len(), share, noise.seed)
        });
        if let Some(flips) = &flips {
            for (item, _) in training.iter_mut().zip(&flips.mask).filter(|(_, flipped)| **flipped) {
                item.row.flip();
                std::mem::swap(&mut item.example.chosen, &mut item.example.rejected);
            }
            let flipped = flips.mask.iter().filter(|flipped| **flipped).count();
            eprintln!("{flipped} of {} labels were flipped", training.len());
        }
        let examples = |items: Vec<Item>| items.into_iter().map(|item| item.example).collect();
        Ok(Self { paths, training, trusted: examples(trusted), held_out: examples(held_out), flips, sources })
    }

    /// The pairs to clean, in tokens.
    pub(super) fn examples(&self) -> Vec<PreferenceExample> {
        self.training.iter().map(|item| item.example.clone()).collect()
    }

    /// Whose weights are tuned.
    pub(super) fn weights(&self) -> Result<Weights, BilevelError> {
        match &self.sources {
            None => Ok(Weights::per_example(self.training.len())),
            Some((_, source)) => Weights::per_source(source.clone()),
        }
    }

    /// Which labels are wrong, where that is known.
    pub(super) fn flipped(&self) -> Option<&[bool]> {
        self.flips.as_ref().map(|flips| flips.mask.as_slice())
    }
}

fn numbered(config: &DataConfig, context: &Context) -> Result<Rows<Labelled>> {
    let mut rows = data::rows::<Labelled>(config, context)?;
    rows.rows.iter_mut().chain(&mut rows.held_out).for_each(|numbered| numbered.row.number = numbered.number);
    Ok(rows)
}

fn one(encoder: &Encoder, row: &Labelled, entry: usize) -> Result<Item, EncodeError> {
    Ok(Item { example: encoder.encode_preference(&row.pair)?, row: row.clone(), entry })
}

fn encoded(rows: &Rows<Labelled>, what: &str, encoder: &Encoder, entry: usize) -> Result<Vec<Item>> {
    rows.encode(what, encoder, |encoder, row| one(encoder, row, entry))
}

/// Takes a share of the prompts out of the training side. The seed is another than that of the held-out side: with the
/// same one, the prompts that are left would be those that no small share takes.
fn take_trusted(rows: &mut Rows<Labelled>, share: f64, split_seed: u64) -> Rows<Labelled> {
    let seed = split_seed.wrapping_add(1);
    let all = std::mem::take(&mut rows.rows);
    let (trusted, rest) = all.into_iter().partition(|numbered| is_held_out(&numbered.row.key(), share, seed));
    rows.rows = rest;
    rows.with(trusted)
}

/// Refuses pairs that stand on two sides, whatever their labels.
fn check_apart(trusted: &[Item], others: &[Item], complaint: &str) -> Result<(), BilevelError> {
    let known: BTreeMap<[String; 3], &Item> = others.iter().map(|item| (item.row.content(), item)).collect();
    let shared: Vec<(usize, usize)> = trusted
        .iter()
        .filter_map(|item| Some((item.row.number, known.get(&item.row.content())?.row.number)))
        .collect();
    let Some((trusted_row, row)) = shared.first() else { return Ok(()) };
    let detail = format!(
        "{} of {} trusted pairs {complaint}, the first is row {trusted_row} of the trusted pairs and row {row} of `data`",
        shared.len(),
        trusted.len()
    );
    Err(BilevelError::InvalidSplit { detail })
}

/// The sources by name, and which one each pair is from.
fn sources(training: &[Item], column: Option<&str>, paths: &[PathBuf]) -> Result<(Vec<String>, Vec<usize>)> {
    let name = |item: &Item| match column {
        None => Ok(paths[item.entry].display().to_string()),
        Some(column) => match item.row.columns.get(column) {
            Some(Value::String(name)) => Ok(name.clone()),
            Some(Value::Null) | None => bail!(
                "`weights.column`: row {} of {} has no column `{column}`",
                item.row.number,
                paths[item.entry].display()
            ),
            Some(other) => Ok(other.to_string()),
        },
    };
    let mut names: Vec<String> = Vec::new();
    let mut source = Vec::with_capacity(training.len());
    for item in training {
        let name = name(item)?;
        let at = names.iter().position(|known| *known == name);
        source.push(at.unwrap_or(names.len()));
        if at.is_none() {
            names.push(name);
        }
    }
    if names.len() < 2 {
        bail!("`weights`: all pairs are from one source, {names:?}, and a share of one source is always 1");
    }
    Ok((names, source))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn labelled(row: Value) -> Labelled {
        Labelled::from_row(row.as_object().unwrap()).unwrap()
    }

    #[test]
    fn a_flip_exchanges_all_that_belongs_to_the_sides() {
        let mut row = labelled(
            json!({ "prompt": "q", "chosen": "a", "rejected": "b", "chosen_score": 2, "rejected_score": 1, "id": 7 }),
        );
        let content = row.content();
        row.flip();
        let expected = json!({ "prompt": "q", "chosen": "b", "rejected": "a", "chosen_score": 1, "rejected_score": 2, "id": 7 });
        assert_eq!(Value::Object(row.columns.clone()), expected);
        assert_eq!(row.content(), content, "a pair is the same pair whatever its label");
        let again = PreferenceRow::from_row(&row.columns).unwrap();
        assert_eq!(again, row.pair);
    }

    #[test]
    fn ranked_completions_are_flipped_as_a_pair() {
        let ranked = json!({ "context": "q", "completions": [{ "rank": 0, "completion": "a" }, { "rank": 1, "completion": "b" }] });
        let mut row = labelled(ranked);
        row.flip();
        assert_eq!(PreferenceRow::from_row(&row.columns).unwrap().chosen.plain_text(), "b");
    }
}
