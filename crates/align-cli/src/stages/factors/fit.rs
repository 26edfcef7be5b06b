//! Fits one model, explains it, and writes its folder in one step.

use std::collections::BTreeMap;
use std::path::Path;

use align_core::persist::replace_folder;
use align_factors::attribution::{Attributions, Baseline, explain, importance_bands, share_bands};
use align_factors::guide::{FitConfig, Fitted, Guide, GuideConfig, PoolModel, TaskLoss, fit, fit_grid};
use align_factors::{
    AnyNetwork, Factors, Grid, ImportanceDistribution, Matrix, Model, Net, NetworkConfig, OrdinalMetrics,
    Scorer, TreesLoss,
};
use anyhow::{Context as _, Result, bail};

use super::answers::Answers;
use super::folder::{self, Extras};
use super::result::{ModelResult, TrainingResult};
use crate::context::Context;
use crate::recipe::factors::{FactorModel, FactorsStage, GuideEntry, Lambdas, ModelKind};

/// A model, what there is to say of it, and its attributions of the rows that are explained.
pub(super) struct Finished {
    pub(super) model: Model,
    pub(super) result: ModelResult,
    pub(super) attributions: Attributions,
}

/// What all models of a fit share.
pub(super) struct Bench<'a> {
    pub(super) stage: &'a FactorsStage,
    pub(super) answers: &'a Answers,
    /// Test rows that are explained.
    pub(super) probe: &'a Matrix,
    pub(super) baseline: &'a Baseline,
    pub(super) context: &'a Context,
}

impl Bench<'_> {
    /// Fits a model into its folder, or reads it from there.
    pub(super) fn finish(
        &self,
        name: &str,
        entry: &FactorModel,
        guide: Option<(&GuideEntry, &ImportanceDistribution)>,
        folder: &Path,
    ) -> Result<Finished> {
        let work = || -> Result<Finished> {
            if folder.is_dir() {
                return self.reopened(folder);
            }
            self.context.check_interrupt()?;
            let (model, training) = self.fitted(entry, guide)?;
            let attributions = self.explained(&model)?;
            let result = self.result(name, entry, guide, &model, training, &attributions)?;
            let extras = Extras {
                encoder: &self.answers.encoder,
                schema: &self.answers.schema,
                baseline: self.baseline,
                result: &result,
            };
            replace_folder(folder, |inside| folder::write(inside, &model, &extras))?;
            Ok(Finished { model, result, attributions })
        };
        work().with_context(|| format!("model `{name}`"))
    }

    /// A model that an interrupted fit has left.
    fn reopened(&self, folder: &Path) -> Result<Finished> {
        let (model, result) = (folder::model(folder, &self.context.device)?, folder::result(folder)?);
        let attributions = self.explained(&model)?;
        Ok(Finished { model, result, attributions })
    }

    fn explained(&self, model: &Model) -> Result<Attributions> {
        let factors = &self.answers.train.factors;
        Ok(explain(model, self.probe, factors, self.baseline, self.stage.explain.method)?)
    }

    fn fitted(
        &self,
        entry: &FactorModel,
        guide: Option<(&GuideEntry, &ImportanceDistribution)>,
    ) -> Result<(Model, Option<TrainingResult>)> {
        let train = &self.answers.train;
        let config = match &entry.kind {
            ModelKind::Fitted(kind) => return Ok((kind.fit(train)?, None)),
            ModelKind::Network(config) => config,
        };
        let settings = FitConfig { seed: self.stage.seed, ..self.stage.training.clone() };
        let network = started(config, &settings, &train.labels, &train.factors, self.context);
        let validation = self.answers.validation.as_ref();
        let trained = |lambda: f64, fitted: Fitted<AnyNetwork>, candidates| {
            let training = TrainingResult {
                lambda,
                step: fitted.step,
                validation: fitted.validation,
                skipped: fitted.skipped,
                candidates,
            };
            (Model::Network(Box::new(Net::new(&fitted.network)), train.factors.clone()), Some(training))
        };
        let Some((guide, knowledge)) = guide else {
            return Ok(trained(0.0, fit(network, train, validation, &settings, None)?, Vec::new()));
        };
        let guided = |lambda: f64| Guide {
            config: GuideConfig { lambda, ..self.stage.guidance },
            knowledge: knowledge.clone(),
        };
        let lambda = match &guide.lambda {
            None => self.stage.guidance.lambda,
            Some(Lambdas::One(lambda)) => *lambda,
            Some(Lambdas::Grid(lambdas)) => {
                let validation = validation.context("a choice among weights needs validation rows")?;
                let selection = fit_grid(&network, train, validation, &settings, &guided(0.0), lambdas)?;
                let tried = |candidate: &align_factors::guide::Candidate<AnyNetwork>| {
                    (candidate.lambda, candidate.fitted.validation)
                };
                let candidates = selection.candidates.iter().map(tried).collect();
                let best = selection.best();
                return Ok(trained(best.lambda, best.fitted.clone(), candidates));
            }
        };
        let fitted = fit(network, train, validation, &settings, Some(&guided(lambda)))?;
        Ok(trained(lambda, fitted, Vec::new()))
    }

    fn result(
        &self,
        name: &str,
        entry: &FactorModel,
        guide: Option<(&GuideEntry, &ImportanceDistribution)>,
        model: &Model,
        training: Option<TrainingResult>,
        attributions: &Attributions,
    ) -> Result<ModelResult> {
        let (test, bands) = (&self.answers.test, &self.stage.explain.bands);
        let scores = model.scores(&test.rows);
        Ok(ModelResult {
            name: name.to_owned(),
            kind: model.kind().to_owned(),
            guide: guide.map(|(guide, _)| guide.name.clone()),
            training,
            metrics: match classifies(&entry.kind, self.stage.training.loss) {
                true => of_classes(&test.labels, &scores)?,
                false => of_scale(self.answers.grid, &test.labels, &scores)?,
            },
            method: attributions.method,
            residual: attributions.residual(),
            importances: importance_bands(attributions, bands)?,
            shares: share_bands(attributions, bands)?,
            warnings: attributions.warnings.iter().map(ToString::to_string).collect(),
        })
    }
}

/// A network that has learned nothing but the mean.
fn started(
    config: &NetworkConfig,
    settings: &FitConfig,
    labels: &[f64],
    factors: &Factors,
    context: &Context,
) -> AnyNetwork {
    let count = labels.len() as f64;
    let mean = labels.iter().sum::<f64>() / count;
    let center = match settings.loss {
        TaskLoss::Squared => mean,
        // Half an answer on either side keeps the logit of unanimous answers finite.
        TaskLoss::Logistic => ((mean * count + 0.5) / (count - mean * count + 0.5)).ln(),
    };
    config.build(factors, center, settings.seed, &context.device)
}

/// Whether scores are logits.
fn classifies(kind: &ModelKind, loss: TaskLoss) -> bool {
    match kind {
        ModelKind::Network(_) => loss == TaskLoss::Logistic,
        ModelKind::Fitted(PoolModel::Logistic { .. }) => true,
        ModelKind::Fitted(PoolModel::BoostedTrees(trees)) => trees.loss == TreesLoss::Logistic,
        ModelKind::Fitted(PoolModel::Ridge(_) | PoolModel::BoostedStumps(_)) => false,
    }
}

/// Log-loss, and the share of labels on the right side.
fn of_classes(labels: &[f64], scores: &[f64]) -> Result<BTreeMap<String, f64>> {
    finite(scores)?;
    let right = |(label, score): &(&f64, &f64)| (**score > 0.0) == (**label > 0.5);
    let accuracy = labels.iter().zip(scores).filter(right).count() as f64 / labels.len() as f64;
    let loss = TaskLoss::Logistic.mean_on_host(scores, labels);
    Ok([("log_loss".to_owned(), loss), ("accuracy".to_owned(), accuracy)].into())
}

/// Errors, and on a scale of classes the accuracy of rounded scores.
fn of_scale(grid: Option<Grid>, labels: &[f64], scores: &[f64]) -> Result<BTreeMap<String, f64>> {
    finite(scores)?;
    if let Some(grid) = grid {
        let OrdinalMetrics { accuracy, macro_f1, mae, mse } = OrdinalMetrics::of(grid, labels, scores)?;
        let figures = [("accuracy", accuracy), ("macro_f1", macro_f1), ("mae", mae), ("mse", mse)];
        return Ok(figures.map(|(name, value)| (name.to_owned(), value)).into());
    }
    let count = labels.len() as f64;
    let mae = labels.iter().zip(scores).map(|(label, score)| (label - score).abs()).sum::<f64>() / count;
    let mse = TaskLoss::Squared.mean_on_host(scores, labels);
    Ok([("mae".to_owned(), mae), ("mse".to_owned(), mse)].into())
}

fn finite(scores: &[f64]) -> Result<()> {
    match scores.iter().position(|score| !score.is_finite()) {
        Some(row) => bail!("the score of test row {row} is {}", scores[row]),
        None => Ok(()),
    }
}
