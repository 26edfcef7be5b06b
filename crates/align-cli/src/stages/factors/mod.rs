//! Models of answers, guided and not, beside each other: how good they are, why they say what they say, and whether they agree.
//!
//! Unguided models come first, because knowledge may be found from them; every network that is guided stands beside itself
//! without guidance, because wrong knowledge hurts. A model's folder is written in one step, so that `--resume` goes on with
//! the first that is not there.

mod answers;
mod consistency;
mod fit;
mod folder;
mod knowledge;
mod result;
mod shown;
mod survey;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use align_factors::attribution::Attributions;
use align_factors::{
    Divergence, Encoder, ImportanceDistribution, Model, Normalization, kendall_tau_b, share_above,
    top_k_overlap,
};
use anyhow::{Context as _, Result, bail};
use rayon::prelude::*;
use serde_json::{Value, json};

pub(crate) use self::consistency::{Consistency, PairAgreement};
use self::fit::{Bench, Finished};
pub(crate) use self::folder::{OpenedModel, models_in, open};
pub(crate) use self::result::FactorsResult;
use self::result::{KnowledgeResult, ModelResult, PartSizes, RESULTS};
pub(crate) use self::shown::{importance_table, over_seeds};
pub(super) use self::survey::survey;
use super::write_json;
use crate::context::Context;
use crate::progress::models_bar;
use crate::recipe::factors::{
    ConsistencyStage, FactorModel, FactorsStage, GuideEntry, ModelKind, guided_name,
};

pub(super) fn run(name: &str, stage: &FactorsStage, folder: &Path, context: &Context) -> Result<Value> {
    let answers = answers::answers(&stage.data, &stage.encoder, stage.seed, context)?;
    for note in &answers.notes {
        eprintln!("{name}: {note}");
    }
    let factors = answers.train.factors.clone();
    let names: Vec<String> = factors.names().map(str::to_owned).collect();
    if stage.explain.top > names.len() {
        bail!(
            "`explain.top` is {}, and there are {} factors: {}",
            stage.explain.top,
            names.len(),
            names.join(", ")
        );
    }
    knowledge::check(stage, &factors, context)?;
    let references = knowledge::of_references(stage, &factors, context)?;
    let count = answers.test.len().min(stage.explain.rows);
    let probe = answers.test.rows.select(&(0..count).collect::<Vec<_>>());
    let baseline = stage.explain.baseline.of(&answers.train.rows);
    let bench = Bench { stage, answers: &answers, probe: &probe, baseline: &baseline, context };
    let folders = folder.join(folder::MODELS);
    std::fs::create_dir_all(&folders).with_context(|| format!("cannot make {}", folders.display()))?;

    let bar = models_bar(name, stage.folders().len());
    let fitted = |(name, entry, guide): Job<'_>| {
        let finished = bench.finish(&name, entry, guide, &folders.join(&name))?;
        bar.inc(1);
        Ok(finished)
    };
    let plain: Vec<Job<'_>> = stage.model.iter().map(|entry| (entry.name.clone(), entry, None)).collect();
    let mut finished = plain.into_par_iter().map(fitted).collect::<Result<Vec<Finished>>>()?;
    let unguided: Vec<(String, Model)> =
        finished.iter().map(|found| (found.result.name.clone(), found.model.clone())).collect();
    let knowledge = knowledge::of_guides(stage, &answers, &unguided, context)?;
    let distributions = knowledge.iter().map(KnowledgeResult::distribution).collect::<Result<Vec<_>>>()?;
    let guided: Vec<Job<'_>> = stage
        .guide
        .iter()
        .zip(&distributions)
        .flat_map(|(guide, q)| {
            let networks = stage.model.iter().filter(|entry| matches!(entry.kind, ModelKind::Network(_)));
            networks.map(move |entry| (guided_name(&entry.name, &guide.name), entry, Some((guide, q))))
        })
        .collect();
    finished.extend(guided.into_par_iter().map(fitted).collect::<Result<Vec<Finished>>>()?);
    bar.finish_and_clear();

    let (models, attributions): (Vec<ModelResult>, Vec<Attributions>) =
        finished.into_iter().map(|found| (found.result, found.attributions)).unzip();
    let distributions = models.iter().map(distribution_of).collect::<Result<Vec<_>>>()?;
    let consistency = Consistency::of(
        models.iter().map(|model| model.name.clone()).collect(),
        names.clone(),
        &distributions,
        Some(&attributions),
        stage.explain.top,
    )?;
    let mut result = FactorsResult {
        label: answers.label.clone(),
        factors: names,
        rows: PartSizes {
            train: answers.train.len(),
            validation: answers.validation.as_ref().map_or(0, |rows| rows.len()),
            test: answers.test.len(),
            explained: count,
        },
        notes: answers.notes.clone(),
        knowledge,
        references,
        models,
        consistency,
    };
    result.add_distances(stage.explain.top)?;
    write_json(&folder.join(RESULTS), &result)?;
    result.figures().write(folder)?;
    println!("\n{}", result.text());
    Ok(json!({ "models": result.models.len(), "factors": result.factors.len(), "rows": result.rows.train }))
}

/// A model's name, its entry, and what guides it.
type Job<'a> = (String, &'a FactorModel, Option<(&'a GuideEntry, &'a ImportanceDistribution)>);

/// A model's shares as the distribution they are.
fn distribution_of(model: &ModelResult) -> Result<ImportanceDistribution> {
    Ok(ImportanceDistribution::of(&model.distribution(), Normalization::Ratio)?)
}

impl FactorsResult {
    /// Adds to every model how far its reasons are from each knowledge and reference: `kl/…` and, of references, `tau/…`,
    /// `top_overlap/…` and `top_above/…`.
    fn add_distances(&mut self, top: usize) -> Result<()> {
        for model in &mut self.models {
            let p = distribution_of(model)?;
            for known in self.knowledge.iter().chain(&self.references) {
                let kl = Divergence::Forward.reported(&known.distribution()?, &p);
                model.metrics.insert(format!("kl/{}", known.name), kl);
            }
            for known in &self.references {
                let (q, name) = (known.distribution()?, &known.name);
                if let Some(tau) = kendall_tau_b(&p, &q) {
                    model.metrics.insert(format!("tau/{name}"), tau);
                }
                let first = align_factors::top_k(&q, top);
                model.metrics.insert(format!("top_overlap/{name}"), top_k_overlap(&p, &q, top));
                model.metrics.insert(format!("top_above/{name}"), share_above(&p, &first));
            }
        }
        Ok(())
    }
}

/// Compares models that other stages have fitted.
pub(super) fn compare(
    name: &str,
    stage: &ConsistencyStage,
    folder: &Path,
    context: &Context,
) -> Result<Value> {
    let folders = stage.models.iter().map(|model| context.path(model)).collect::<Result<Vec<_>>>()?;
    let data = stage.data.as_ref().map(|data| context.path(data)).transpose()?;
    let found = compared(&folders, data.as_deref(), stage.rows, stage.top, context)
        .with_context(|| format!("`{name}`"))?;
    write_json(&folder.join(consistency::RESULTS), &found)?;
    found.figures().write(folder)?;
    println!("\n{}", found.text());
    Ok(json!({ "models": found.models.len(), "tau": found.mean("tau") }))
}

/// Compares the models in folders, on the rows of a file if there is one.
pub(crate) fn compared(
    folders: &[PathBuf],
    data: Option<&Path>,
    rows: usize,
    top: usize,
    context: &Context,
) -> Result<Consistency> {
    let mut paths = Vec::new();
    for folder in folders {
        paths.extend(models_in(folder)?);
    }
    if paths.len() < 2 {
        bail!("expected two models at least, found {}", paths.len());
    }
    let models = names_for(&paths)
        .into_iter()
        .zip(&paths)
        .map(|(name, path)| Ok((name, open(path, &context.device)?)))
        .collect::<Result<Vec<(String, OpenedModel)>>>()?;
    let factors = names_of(&models[0].1.encoder);
    for (name, model) in &models {
        let others = names_of(&model.encoder);
        if others != factors {
            bail!(
                "`{name}` has the factors {}, and `{}` has {}: only models of the same factors can be compared",
                others.join(", "),
                models[0].0,
                factors.join(", ")
            );
        }
    }
    let attributions = match data {
        None => None,
        Some(data) => {
            let explained = |(name, model): &(String, OpenedModel)| {
                model.explain(data, Some(rows), None).with_context(|| format!("model `{name}`"))
            };
            Some(models.iter().map(explained).collect::<Result<Vec<Attributions>>>()?)
        }
    };
    let distribution = |at: usize| -> Result<ImportanceDistribution> {
        match &attributions {
            None => distribution_of(&models[at].1.result),
            Some(all) => {
                let found = align_factors::attribution::importances(&all[at]);
                Ok(ImportanceDistribution::of(&found, Normalization::Ratio)?)
            }
        }
    };
    let distributions = (0..models.len()).map(distribution).collect::<Result<Vec<_>>>()?;
    let names = models.into_iter().map(|(name, _)| name).collect();
    Consistency::of(names, factors, &distributions, attributions.as_deref(), top)
}

fn names_of(encoder: &Encoder) -> Vec<String> {
    encoder.factors().names().map(str::to_owned).collect()
}

/// The shortest names that tell models apart: their folders', or with those of the fits they are from. What only says that
/// there are models, or which seed, is left out if nothing depends on it, so that seeds have the same names.
fn names_for(paths: &[PathBuf]) -> Vec<String> {
    let parts = |path: &PathBuf| -> Vec<String> {
        path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect()
    };
    let all: Vec<Vec<String>> = paths.iter().map(parts).collect();
    let shared =
        (0..).take_while(|&at| all.iter().all(|path| at + 1 < path.len() && path[at] == all[0][at])).count();
    let seed = |part: &String| part.starts_with("seed-");
    let inside = |path: &[String]| path[shared..].join("/");
    let plain = |path: &[String]| {
        let kept = path[shared..].iter().filter(|part| *part != folder::MODELS && !seed(part));
        kept.cloned().collect::<Vec<_>>().join("/")
    };
    let named = |way: &dyn Fn(&[String]) -> String| all.iter().map(|path| way(path)).collect::<Vec<String>>();
    let ways = [named(&|path| path.last().cloned().unwrap_or_default()), named(&plain), named(&inside)];
    let [.., whole] = &ways;
    let differ = |names: &&Vec<String>| names.iter().collect::<BTreeSet<_>>().len() == names.len();
    ways.iter().find(differ).unwrap_or(whole).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_have_the_shortest_names_that_differ() {
        let names = |paths: &[&str]| names_for(&paths.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(names(&["r/a/models/x", "r/b/models/y"]), ["x", "y"]);
        assert_eq!(names(&["r/a/seed-0/models/x", "r/b/seed-0/models/x"]), ["a/x", "b/x"]);
        assert_eq!(
            names(&["r/a/seed-0/models/x", "r/a/seed-1/models/x"]),
            ["seed-0/models/x", "seed-1/models/x"]
        );
    }
}
