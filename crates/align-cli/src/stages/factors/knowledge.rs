//! Knowledge and references of a recipe as distributions over the factors that there are.

use align_factors::attribution::{explain, importances};
use align_factors::guide::{Pool, PoolConfig, fit_pool};
use align_factors::{
    Factors, ImportanceDistribution, Knowledge, Model, Part, PoolMember, PoolWeights, Scorer, Validation,
    pooled,
};
use anyhow::{Context as _, Result, bail};

use super::answers::{Answers, toml_file};
use super::result::KnowledgeResult;
use crate::context::Context;
use crate::recipe::factors::{Derived, ExplainConfig, FactorsStage, KnowledgeSource};

/// The knowledge of every guide, in the recipe's order. `models` are those that are not guided, by name.
pub(super) fn of_guides(
    stage: &FactorsStage,
    answers: &Answers,
    models: &[(String, Model)],
    context: &Context,
) -> Result<Vec<KnowledgeResult>> {
    let one = |guide: &crate::recipe::factors::GuideEntry| {
        let found = match &guide.knowledge {
            KnowledgeSource::Derived(Derived::Consensus(pool)) => agreed(pool, answers),
            KnowledgeSource::Derived(Derived::Teacher { model }) => {
                let (_, teacher) =
                    models.iter().find(|(name, _)| name == model).expect("the recipe was checked");
                taught(teacher, answers, &stage.explain)
            }
            source => written(source, &answers.train.factors, context).map(KnowledgeResult::plain),
        };
        let mut found = found.with_context(|| format!("the knowledge of guide `{}`", guide.name))?;
        found.name.clone_from(&guide.name);
        Ok(found)
    };
    stage.guide.iter().map(one).collect()
}

/// Refuses what is written down and is no distribution over the factors there are, before anything is fitted.
pub(super) fn check(stage: &FactorsStage, factors: &Factors, context: &Context) -> Result<()> {
    for guide in &stage.guide {
        if !matches!(
            guide.knowledge,
            KnowledgeSource::Derived(Derived::Consensus(_) | Derived::Teacher { .. })
        ) {
            let found = written(&guide.knowledge, factors, context);
            found.with_context(|| format!("the knowledge of guide `{}`", guide.name))?;
        }
    }
    Ok(())
}

/// What models are compared with.
pub(super) fn of_references(
    stage: &FactorsStage,
    factors: &Factors,
    context: &Context,
) -> Result<Vec<KnowledgeResult>> {
    let one = |(name, source): (&String, &KnowledgeSource)| {
        let found = written(source, factors, context).with_context(|| format!("reference `{name}`"))?;
        Ok(KnowledgeResult { name: name.clone(), ..KnowledgeResult::plain(found) })
    };
    stage.references.iter().map(one).collect()
}

impl KnowledgeResult {
    fn plain(distribution: ImportanceDistribution) -> Self {
        Self { name: String::new(), masses: distribution.into(), members: Vec::new(), excluded: Vec::new() }
    }

    /// As a distribution again.
    pub(super) fn distribution(&self) -> Result<ImportanceDistribution> {
        Ok(ImportanceDistribution::new(self.masses.clone())?)
    }
}

/// What stands in a file or in the recipe.
fn written(source: &KnowledgeSource, factors: &Factors, context: &Context) -> Result<ImportanceDistribution> {
    Ok(match source {
        KnowledgeSource::File(reference) => {
            let path = context.path(reference)?;
            let knowledge: Knowledge = toml_file(&path, "knowledge")?;
            knowledge.distribution(factors).with_context(|| path.display().to_string())?
        }
        KnowledgeSource::Written(knowledge) => knowledge.distribution(factors)?,
        KnowledgeSource::Derived(Derived::Uniform {}) => ImportanceDistribution::uniform(factors.len())?,
        KnowledgeSource::Derived(_) => bail!("it is found from models, and here it must be written down"),
    })
}

/// What a pool of models agrees on.
fn agreed(config: &PoolConfig, answers: &Answers) -> Result<KnowledgeResult> {
    if config.models.is_empty() {
        bail!("a consensus needs models, and `models` is empty");
    }
    let Some(validation) = &answers.validation else { return agreed_unchecked(config, answers) };
    let Pool { consensus, .. } = fit_pool(&answers.train, validation, config)?;
    let members = consensus.members.clone();
    Ok(KnowledgeResult {
        members,
        excluded: consensus.excluded,
        ..KnowledgeResult::plain(consensus.knowledge)
    })
}

/// Without validation rows there is nothing to leave a model out by: all count the same.
fn agreed_unchecked(config: &PoolConfig, answers: &Answers) -> Result<KnowledgeResult> {
    let name = Validation::NAME;
    if config.consensus.weights == PoolWeights::Loss {
        bail!("`weights = \"loss\"` weighs models by their loss on {name} rows, and there are none");
    }
    let train = &answers.train;
    let baseline = config.baseline.of(&train.rows);
    let said = |entry: &align_factors::guide::PoolModel| -> Result<(String, ImportanceDistribution)> {
        let model = entry.fit(train)?;
        let attributions = explain(&model, &train.rows, &train.factors, &baseline, config.method)?;
        let p = ImportanceDistribution::of(&importances(&attributions), config.normalization)?;
        Ok((model.kind().to_owned(), p))
    };
    let said = config.models.iter().map(said).collect::<Result<Vec<_>>>()?;
    let weight = 1.0 / said.len() as f64;
    let (names, distributions): (Vec<String>, Vec<_>) = said.into_iter().unzip();
    let weights = vec![weight; names.len()];
    let knowledge = pooled(&distributions, &weights, config.consensus.pooling)?;
    eprintln!("consensus: without {name} rows all {} models count the same", names.len());
    let members = names.into_iter().zip(weights).collect();
    Ok(KnowledgeResult { members, ..KnowledgeResult::plain(knowledge) })
}

/// What one model says of the training rows.
fn taught(teacher: &Model, answers: &Answers, config: &ExplainConfig) -> Result<KnowledgeResult> {
    let baseline = config.baseline.of(&answers.train.rows);
    // A teacher is trusted whatever its loss.
    let loss = f64::NAN;
    let member =
        PoolMember::new(teacher.kind(), &answers.train, Default::default(), loss, |rows, factors| {
            Ok(importances(&explain(teacher as &dyn Scorer, rows, factors, &baseline, config.method)?))
        })?;
    Ok(KnowledgeResult::plain(member.distribution().clone()))
}
