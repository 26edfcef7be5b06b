//! How much of the way from a base to a fully tuned model other models go, task by task and then averaged.
//!
//! Of every task and seed, `closure = (arm − floor) / (ceiling − floor)`, by the figure of a comparison; figures of which less is better
//! change their sign above and below, which cancels. Tasks are averaged within a seed, and intervals are over seeds.
//!
//! Beside it stands what papers print as “share of the performance of the tuned model”, `mean of arm / mean of ceiling` over tasks. It
//! counts what the base can do already as gained: a base that is 80 % as good as the ceiling has a ratio of 80 % and closes nothing.
//!
//! # Source
//! Liu et al. 2024, section 4.2, <https://arxiv.org/abs/2401.08565>, for the closure; Fan et al. 2024, tables 1 and 2,
//! <https://arxiv.org/abs/2406.15480>, for the ratio.

mod closure;
mod shown;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

pub(crate) use self::closure::{ArmGap, Gaps, Over};
use super::eval::Comparison;
use super::write_json;
use crate::context::Context;
use crate::recipe::gaps::{GapMetric, GapsStage};
use crate::recipe::source::nearest_of;
use crate::results::seeds_of;

/// The result's file in the stage's folder.
const RESULTS: &str = "gaps.json";

pub(super) fn run(name: &str, stage: &GapsStage, folder: &Path, context: &Context) -> Result<Value> {
    if stage.tasks.is_empty() {
        bail!("`{name}`: `tasks` is empty, expected at least one");
    }
    let read = |tasks: &toml::Table| -> Result<Vec<(String, Figures)>> {
        let one = |(task, reference): (&String, &toml::Value)| {
            let figures = figures(reference, stage.metric, context);
            Ok((task.clone(), figures.with_context(|| format!("`{name}`: task `{task}`"))?))
        };
        tasks.iter().map(one).collect()
    };
    let (tasks, unseen) = (read(&stage.tasks)?, read(&stage.unseen)?);
    let gaps = Gaps::of(stage, &tasks, &unseen).with_context(|| format!("`{name}`"))?;
    write_json(&folder.join(RESULTS), &gaps)?;
    println!("\n{}", gaps.text());
    Ok(json!({ "tasks": gaps.tasks.len(), "seeds": gaps.seeds.len() }))
}

/// The figure of every arm by seed, in the order of the comparison; an arm that is one model for all seeds has none.
#[derive(Debug, Default)]
struct Figures(Vec<(String, BTreeMap<Option<u64>, f64>)>);

/// Reads one figure of the comparison, or of the comparisons by seed, that a reference means.
fn figures(reference: &toml::Value, metric: GapMetric, context: &Context) -> Result<Figures> {
    let Some(reference) = reference.as_str() else {
        bail!("expected a comparison, found {}", reference.type_str());
    };
    let folder = context.path(reference)?;
    let mut comparisons: Vec<(Option<u64>, Comparison)> = Vec::new();
    comparisons.extend(Comparison::read(&folder)?.map(|comparison| (None, comparison)));
    for (seed, folder) in seeds_of(&folder)? {
        comparisons.extend(Comparison::read(&folder)?.map(|comparison| (Some(seed), comparison)));
    }
    if comparisons.is_empty() {
        bail!("`{reference}` holds no comparison: expected a stage of kind `eval`");
    }
    let mut figures = Figures::default();
    for (seed, comparison) in &comparisons {
        for result in &comparison.arms {
            let value = result.means.get(metric.name()).with_context(|| {
                let known: Vec<&str> = result.means.keys().map(String::as_str).collect();
                format!("`{reference}` has no figure `{}`, but {}", metric.name(), known.join(", "))
            })?;
            let seeds = figures.entry(&result.arm);
            if seeds.insert(seed.or(result.seed), *value).is_some() {
                bail!("`{reference}` has several models of arm `{}` for one seed, expected one", result.arm);
            }
        }
    }
    Ok(figures)
}

impl Figures {
    fn entry(&mut self, arm: &str) -> &mut BTreeMap<Option<u64>, f64> {
        let at = self.0.iter().position(|(known, _)| known == arm).unwrap_or_else(|| {
            self.0.push((arm.to_owned(), BTreeMap::new()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    fn arm(&self, arm: &str) -> Result<&BTreeMap<Option<u64>, f64>> {
        let found = self.0.iter().find(|(known, _)| known == arm);
        found.map(|(_, seeds)| seeds).with_context(|| {
            let known: Vec<String> = self.0.iter().map(|(known, _)| known.clone()).collect();
            let hint = match nearest_of(arm, &known) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => format!("arms are {}", known.join(", ")),
            };
            format!("no arm is called `{arm}`; {hint}")
        })
    }

    /// The figures of an arm for the given seeds; a model without seed stands for all of them.
    fn over(&self, arm: &str, seeds: &[Option<u64>]) -> Result<Over> {
        let found = self.arm(arm)?;
        let one = |seed: &Option<u64>| {
            let value = found.get(seed).or_else(|| found.get(&None)).copied();
            value.with_context(|| {
                let seed = seed.map_or_else(|| "none".to_owned(), |seed| seed.to_string());
                format!("arm `{arm}` has no model of seed {seed}, which others have")
            })
        };
        Ok(Over::of(seeds.iter().map(one).collect::<Result<_>>()?))
    }

    /// The seeds of these arms.
    fn seeds(&self, arms: &[String]) -> Result<BTreeSet<Option<u64>>> {
        let mut all = BTreeSet::new();
        for arm in arms {
            all.extend(self.arm(arm)?.keys().copied());
        }
        Ok(all)
    }
}
