//! Knowledge from several models of the same rows.

use align_core::number::NonNegative;
use serde::{Deserialize, Serialize};

use super::{GuideError, TaskLoss};
use crate::attribution::{Baseline, BaselineConfig, Method, explain, importances};
use crate::{
    BoostedStumps, Consensus, ConsensusConfig, Design, Forest, Logistic, Model, ModelError, Normalization,
    PoolMember, Ridge, RidgeConfig, Scorer, StumpsConfig, TreesConfig, Validation, consensus,
};

/// A model that is fitted for a pool.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum PoolModel {
    /// [`Ridge`].
    Ridge(RidgeConfig),
    /// [`Logistic`].
    Logistic {
        /// The penalty α.
        ridge: NonNegative,
    },
    /// [`BoostedStumps`].
    BoostedStumps(StumpsConfig),
    /// [`Forest`].
    BoostedTrees(TreesConfig),
}

impl PoolModel {
    /// The model, fitted to rows of any part of the data.
    ///
    /// # Errors
    /// Those of the model.
    pub fn fit<P: crate::Part>(&self, design: &Design<P>) -> Result<Model, ModelError> {
        let (rows, labels) = (&design.rows, &design.labels);
        Ok(match self {
            Self::Ridge(config) => Model::Ridge(Ridge::fit(rows, labels, config)?),
            &Self::Logistic { ridge } => Model::Logistic(Logistic::fit(rows, labels, ridge)?),
            Self::BoostedStumps(config) => Model::BoostedStumps(BoostedStumps::fit(rows, labels, config)?),
            Self::BoostedTrees(config) => Model::Forest(Forest::fit(rows, labels, config)?),
        })
    }
}

/// Which models are asked, and how they are heard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolConfig {
    /// The models. Default ridge, ridge with pair terms, boosted stumps and boosted trees: none of them like a perceptron.
    pub models: Vec<PoolModel>,
    /// The loss that they are compared by. Default squared error.
    pub loss: TaskLoss,
    /// Which of them count, and how much.
    pub consensus: ConsensusConfig,
    /// How their importances become distributions.
    pub normalization: Normalization,
    /// What masked factors are set to. Default the mean of the training rows.
    pub baseline: BaselineConfig,
    /// How they are explained. Default the cheapest exact way.
    pub method: Method,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            models: vec![
                PoolModel::Ridge(RidgeConfig::default()),
                PoolModel::Ridge(RidgeConfig::pairs()),
                PoolModel::BoostedStumps(StumpsConfig::default()),
                PoolModel::BoostedTrees(TreesConfig::default()),
            ],
            loss: TaskLoss::default(),
            consensus: ConsensusConfig::default(),
            normalization: Normalization::default(),
            baseline: BaselineConfig::default(),
            method: Method::default(),
        }
    }
}

/// A pool that was fitted.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The models and what they say, in the order of the configuration.
    pub models: Vec<(Model, PoolMember)>,
    /// What they agree on.
    pub consensus: Consensus,
}

/// Fits the models of a pool to training rows, explains them on the same rows, and pools those that do nearly as well on
/// validation rows as the best.
///
/// # Errors
/// Those of the models, of [`explain`] and of [`consensus`].
pub fn fit_pool(
    train: &Design,
    validation: &Design<Validation>,
    config: &PoolConfig,
) -> Result<Pool, GuideError> {
    let baseline = config.baseline.of(&train.rows);
    let mut models = Vec::with_capacity(config.models.len());
    for entry in &config.models {
        let model = entry.fit(train)?;
        let loss = config.loss.mean_on_host(&model.scores(&validation.rows), &validation.labels);
        let member = said_by(&model, train, loss, &baseline, config)?;
        models.push((model, member));
    }
    let members: Vec<PoolMember> = models.iter().map(|(_, member)| member.clone()).collect();
    let consensus = consensus(&members, &config.consensus)?;
    Ok(Pool { models, consensus })
}

fn said_by(
    model: &Model,
    train: &Design,
    loss: f64,
    baseline: &Baseline,
    config: &PoolConfig,
) -> Result<PoolMember, GuideError> {
    let member = PoolMember::new(model.kind(), train, config.normalization, loss, |rows, factors| {
        Ok(importances(&explain(model, rows, factors, baseline, config.method)?))
    })?;
    Ok(member)
}
