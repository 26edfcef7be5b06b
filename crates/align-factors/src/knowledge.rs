//! Knowledge: the distribution q that a model's reasons are compared with, and pulled towards.
//!
//! It comes from experts, who name factors ([`Knowledge`]), from one trusted model or from the consensus of several
//! ([`consensus`]). The paper says that stable relations across models are used as knowledge; the sources and weights here
//! are our choice.
//!
//! What models say counts only if they say it of training rows: [`PoolMember::new`] takes a [`Design`] of [`Train`], and
//! there is no other way to make one.

use std::collections::BTreeMap;

use align_core::number::{Fraction, NonNegative, UnitInterval};
use serde::{Deserialize, Serialize};

use crate::design::Design;
use crate::distribution::{ImportanceDistribution, at_least_two, checked_sum};
use crate::split::Train;
use crate::{Factors, FactorsError, Matrix, Normalization};

/// What experts know, by the names of factors.
///
/// # Examples
/// ```
/// use align_factors::{Factors, Knowledge};
///
/// let knowledge: Knowledge = toml::from_str(r#"
///     kind = "groups"
///     groups = [
///         { mass = 0.70, factors = ["health", "fairness"] },
///         { mass = 0.25, factors = ["income"] },
///     ]
/// "#)?;
/// let factors = Factors::columns(["age", "fairness", "health", "income", "region"])?;
/// let q = knowledge.distribution(&factors)?;
/// // The five hundredths that no group has go to age and region.
/// assert!(q.iter().zip([0.025, 0.35, 0.35, 0.25, 0.025]).all(|(q, expected)| (q - expected).abs() < 1e-15));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Knowledge {
    /// A mass for each group, split evenly in it. What is left of 1 is split evenly among the factors in no group.
    Groups {
        /// The groups, such as primary and secondary factors.
        groups: Vec<Group>,
    },
    /// Masses that fall by a ratio from rank to rank. Every factor must be ranked.
    Geometric {
        /// The mass of a rank by that of the rank before. 1 is the uniform distribution.
        ratio: Fraction,
        /// Factors, the most important first.
        ranking: Vec<String>,
    },
    /// A mass for each factor; factors that are not named have none.
    Masses {
        /// Masses by name, summing to 1.
        masses: BTreeMap<String, NonNegative>,
    },
}

/// Factors that share a mass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The mass of all of them together.
    pub mass: UnitInterval,
    /// Which.
    pub factors: Vec<String>,
}

impl Knowledge {
    /// The distribution over given factors, in their order, not smoothed.
    ///
    /// # Errors
    /// [`FactorsError::UnknownFactor`] for a name that no factor has; [`FactorsError::InvalidGroups`] if a factor is named
    /// twice or a group is empty; [`FactorsError::InvalidDistribution`] if masses do not sum to 1;
    /// [`FactorsError::ShapeMismatch`] if a ranking leaves factors out; [`FactorsError::NothingToCompare`] with fewer than
    /// two factors.
    pub fn distribution(&self, factors: &Factors) -> Result<ImportanceDistribution, FactorsError> {
        at_least_two(factors.len())?;
        let mut given: Vec<Option<f64>> = vec![None; factors.len()];
        let mut give = |name: &str, mass: f64| {
            let Some(factor) = factors.position(name) else {
                let known = crate::table::listed(factors.names());
                return Err(FactorsError::UnknownFactor { name: name.to_owned(), known });
            };
            match given[factor].replace(mass) {
                Some(_) => {
                    let detail = format!("knowledge names factor `{name}` twice");
                    Err(FactorsError::InvalidGroups { detail })
                }
                None => Ok(()),
            }
        };
        match self {
            Self::Groups { groups } => {
                for (number, group) in groups.iter().enumerate() {
                    if group.factors.is_empty() {
                        let detail = format!("group {} of the knowledge has no factor", number + 1);
                        return Err(FactorsError::InvalidGroups { detail });
                    }
                    for name in &group.factors {
                        give(name, group.mass.get() / group.factors.len() as f64)?;
                    }
                }
                let left = 1.0 - groups.iter().map(|group| group.mass.get()).sum::<f64>();
                let others = given.iter().filter(|mass| mass.is_none()).count();
                // Groups with more than 1 leave nothing, and their sum is refused below.
                let rest = left.max(0.0) / others.max(1) as f64;
                given.iter_mut().for_each(|mass| *mass = mass.or(Some(rest)));
            }
            Self::Geometric { ratio, ranking } => {
                if ranking.len() != factors.len() {
                    return Err(FactorsError::ShapeMismatch {
                        expected: factors.len(),
                        found: ranking.len(),
                    });
                }
                for (name, mass) in ranking.iter().zip(geometric(*ratio, ranking.len())?.iter()) {
                    give(name, *mass)?;
                }
            }
            Self::Masses { masses } => {
                for (name, mass) in masses {
                    give(name, mass.get())?;
                }
            }
        }
        ImportanceDistribution::new(given.into_iter().map(|mass| mass.unwrap_or(0.0)).collect())
    }
}

/// Masses that fall by `ratio` from rank to rank: `r^k / Σ r^k`, for ranks 0 to `ranks` − 1.
///
/// # Errors
/// [`FactorsError::NothingToCompare`] with fewer than two ranks.
pub fn geometric(ratio: Fraction, ranks: usize) -> Result<ImportanceDistribution, FactorsError> {
    at_least_two(ranks)?;
    Ok(ImportanceDistribution::from_weights((0..ranks).map(|rank| ratio.powi(rank as i32)).collect()))
}

/// What one model of a pool says of the training rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PoolMember {
    name: String,
    distribution: ImportanceDistribution,
    validation_loss: f64,
}

impl PoolMember {
    /// Explains a model on training rows: `importances` is given the rows and returns one importance for each factor.
    ///
    /// # Errors
    /// Those of `importances`, and of [`ImportanceDistribution::of`]; [`FactorsError::ShapeMismatch`] if it returns more or fewer
    /// numbers than there are factors.
    ///
    /// # Examples
    /// What is found on test rows is no knowledge, and does not compile:
    /// ```compile_fail
    /// use align_factors::{Normalization, PoolMember, Survey, SurveyConfig, Test};
    ///
    /// let probe = Survey::new(SurveyConfig::default())?.draw::<Test>(200, 7);
    /// let member = PoolMember::new("ridge", &probe, Normalization::Ratio, 1.0, |_, _| Ok(vec![1.0; 12]))?;
    /// # Ok::<(), align_factors::FactorsError>(())
    /// ```
    /// With training rows the same does:
    /// ```
    /// use align_factors::{Normalization, PoolMember, Survey, SurveyConfig, Train};
    ///
    /// let probe = Survey::new(SurveyConfig::default())?.draw::<Train>(200, 7);
    /// let member = PoolMember::new("ridge", &probe, Normalization::Ratio, 1.0, |_, _| Ok(vec![1.0; 12]))?;
    /// # Ok::<(), align_factors::FactorsError>(())
    /// ```
    pub fn new(
        name: impl Into<String>,
        probe: &Design<Train>,
        normalization: Normalization,
        validation_loss: f64,
        importances: impl FnOnce(&Matrix, &Factors) -> Result<Vec<f64>, FactorsError>,
    ) -> Result<Self, FactorsError> {
        let importances = importances(&probe.rows, &probe.factors)?;
        let (expected, found) = (probe.factors.len(), importances.len());
        if expected != found {
            return Err(FactorsError::ShapeMismatch { expected, found });
        }
        let distribution = ImportanceDistribution::of(&importances, normalization)?;
        Ok(Self { name: name.into(), distribution, validation_loss })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its importance distribution. As knowledge, this is the teacher's.
    pub fn distribution(&self) -> &ImportanceDistribution {
        &self.distribution
    }

    /// Its loss on validation rows.
    pub fn validation_loss(&self) -> f64 {
        self.validation_loss
    }
}

/// How the distributions of a pool become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// `Σ_m w_m p^(m)`: a factor matters if it does to some.
    #[default]
    Arithmetic,
    /// `Π_m (p^(m))^w_m`, normalised: a factor matters if it does to all.
    Geometric,
}

/// Which models of a pool count, and how much.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConsensusConfig {
    /// How their distributions are pooled.
    pub pooling: Pooling,
    /// How much each counts.
    pub weights: PoolWeights,
    /// Models count whose validation loss exceeds the best by at most this part of it. A twentieth: of competitive accuracy, and
    /// still several.
    pub tolerance: NonNegative,
}

impl Default for ConsensusConfig {
    fn default() -> Self {
        Self {
            pooling: Pooling::default(),
            weights: PoolWeights::default(),
            tolerance: NonNegative::literal(0.05),
        }
    }
}

/// How much each model of a pool counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolWeights {
    /// All that are within the tolerance the same.
    #[default]
    Uniform,
    /// `softmax(−validation loss)`.
    Loss,
}

/// What a pool agrees on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Consensus {
    /// Knowledge, not smoothed.
    pub knowledge: ImportanceDistribution,
    /// The models that count, with their weights.
    pub members: Vec<(String, f64)>,
    /// The models whose loss is too high.
    pub excluded: Vec<String>,
}

/// Knowledge from the models of a pool that are nearly as good as its best.
///
/// # Errors
/// [`FactorsError::EmptyPool`] if there is no model, or none with a finite loss; those of [`pooled`].
///
/// # Panics
/// If members differ in their number of factors.
pub fn consensus(pool: &[PoolMember], config: &ConsensusConfig) -> Result<Consensus, FactorsError> {
    let losses = pool.iter().map(|member| member.validation_loss).filter(|loss| loss.is_finite());
    let tolerance = config.tolerance.get();
    let best = losses.reduce(f64::min).ok_or(FactorsError::EmptyPool { tolerance, best: f64::NAN })?;
    // |best|, so that a loss may be negative, as log densities make it.
    let is_good = |member: &&PoolMember| member.validation_loss <= best + tolerance * best.abs();
    let (good, excluded): (Vec<_>, Vec<_>) = pool.iter().partition(is_good);
    let weight = |member: &&PoolMember| match config.weights {
        PoolWeights::Uniform => 1.0,
        PoolWeights::Loss => (best - member.validation_loss).exp(),
    };
    let total: f64 = good.iter().map(weight).sum();
    let weights: Vec<f64> = good.iter().map(|member| weight(member) / total).collect();
    let distributions: Vec<_> = good.iter().map(|member| member.distribution.clone()).collect();
    Ok(Consensus {
        knowledge: pooled(&distributions, &weights, config.pooling)?,
        members: good.iter().zip(&weights).map(|(member, weight)| (member.name.clone(), *weight)).collect(),
        excluded: excluded.iter().map(|member| member.name.clone()).collect(),
    })
}

/// Several distributions as one, not smoothed.
///
/// # Errors
/// [`FactorsError::InvalidDistribution`] if weights are negative or do not sum to 1 within 1e-6, or if a geometric pool has
/// no factor to which all models give mass.
///
/// # Panics
/// If there is no model, not one weight for each, or models differ in their number of factors.
pub fn pooled(
    models: &[ImportanceDistribution],
    weights: &[f64],
    pooling: Pooling,
) -> Result<ImportanceDistribution, FactorsError> {
    assert_eq!(models.len(), weights.len(), "pooled: one weight for each model");
    assert!(!models.is_empty(), "pooled: no models");
    checked_sum(weights)?;
    let start = if pooling == Pooling::Arithmetic { 0.0 } else { 1.0 };
    let mut pool = vec![start; models[0].len()];
    for (model, &weight) in models.iter().zip(weights) {
        assert_eq!(model.len(), pool.len(), "pooled: distributions over the same factors");
        for (pool, &mass) in pool.iter_mut().zip(model.iter()) {
            match pooling {
                Pooling::Arithmetic => *pool += weight * mass,
                Pooling::Geometric => *pool *= mass.powf(weight),
            }
        }
    }
    let sum: f64 = pool.iter().sum();
    if sum > 0.0 {
        Ok(ImportanceDistribution::from_weights(pool))
    } else {
        Err(FactorsError::InvalidDistribution { sum })
    }
}
