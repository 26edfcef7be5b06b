//! Whether models have the same reasons: agreement pair by pair, and the orders of factors that all share.

use std::path::Path;

use align_factors::attribution::Attributions;
use align_factors::{Agreement, ImportanceDistribution, Margins, Relations};
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::super::figures::Figures;
use super::super::read_json;

/// The result's file in the folder of a stage of kind `consistency`.
pub(super) const RESULTS: &str = "consistency.json";

/// What claims call the mean over all pairs of models.
const ALL: &str = "all";

/// How far several models of the same factors agree.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Consistency {
    /// Names of models.
    pub(crate) models: Vec<String>,
    /// Names of factors.
    pub(crate) factors: Vec<String>,
    /// How many factors count as the first ones.
    pub(crate) top: usize,
    /// The importance distribution of every model.
    pub(crate) shares: Vec<Vec<f64>>,
    /// Every two models once.
    pub(crate) pairs: Vec<PairAgreement>,
    /// Pairs of factors, the primary first, whose order the margin lemma certifies for every two models; absent where models were
    /// not explained on the same rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) certified: Option<Vec<(usize, usize)>>,
}

/// How far two models agree.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PairAgreement {
    /// Places among the models.
    pub(crate) models: (usize, usize),
    /// Kendall's τ_b; nothing where a model thinks all factors alike.
    pub(crate) tau: Option<f64>,
    /// Spearman's ρ; likewise.
    pub(crate) spearman: Option<f64>,
    /// The share of the first factors in common.
    pub(crate) top_overlap: f64,
    /// Those in common by those that either has.
    pub(crate) top_jaccard: f64,
    /// The share of pairs of factors ordered alike.
    pub(crate) order_agreement: f64,
    /// The Jensen–Shannon divergence in nats.
    pub(crate) jensen_shannon: f64,
    /// The share of pairs of factors whose order is certified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) certified: Option<f64>,
    /// Certified pairs that the two order differently: none, or the lemma is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) broken: Option<usize>,
}

impl Consistency {
    /// Compares models by their importance distributions, and by their attributions of the same rows if those are given.
    pub(crate) fn of(
        models: Vec<String>,
        factors: Vec<String>,
        distributions: &[ImportanceDistribution],
        attributions: Option<&[Attributions]>,
        top: usize,
    ) -> Result<Self> {
        if top > factors.len() {
            bail!("`top` is {top}, and there are {} factors", factors.len());
        }
        let mut pairs = Vec::new();
        let mut certified: Option<Vec<(usize, usize)>> = None;
        for first in 0..models.len() {
            for second in first + 1..models.len() {
                let agreement = Agreement::between(&distributions[first], &distributions[second], top);
                let margins =
                    attributions.map(|all| Margins::between(&all[first].values, &all[second].values));
                let pair = PairAgreement::of((first, second), agreement, margins.as_ref());
                if let Some(margins) = margins {
                    let found = Relations::certified(&margins).pairs();
                    certified = Some(match certified {
                        None => found,
                        Some(all) => all.into_iter().filter(|pair| found.contains(pair)).collect(),
                    });
                }
                pairs.push(pair);
            }
        }
        let shares = distributions.iter().map(|p| p.to_vec()).collect();
        Ok(Self { models, factors, top, shares, pairs, certified })
    }

    /// What a stage left behind, if it was one of these.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        read_json(&folder.join(RESULTS))
    }

    /// Two models, in whichever order.
    pub(crate) fn between(&self, first: usize, second: usize) -> Option<&PairAgreement> {
        let wanted = (first.min(second), first.max(second));
        self.pairs.iter().find(|pair| pair.models == wanted)
    }

    /// What claims read off: of every two models as `a and b`, and the mean over every two as `all`.
    pub(super) fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for (name, measure) in MEASURES {
            for pair in &self.pairs {
                let (first, second) = pair.models;
                let by = format!("{} and {}", self.models[first], self.models[second]);
                if let Some(value) = measure(pair) {
                    figures.add(&by, name, value);
                }
            }
            if let Some(mean) = self.mean(name) {
                figures.add(ALL, name, mean);
            }
        }
        figures
    }

    /// The mean of a measure over every two models, if there is one.
    pub(crate) fn mean(&self, name: &str) -> Option<f64> {
        let (_, measure) = MEASURES.iter().find(|(known, _)| *known == name)?;
        let values: Vec<f64> = self.pairs.iter().filter_map(measure).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }
}

/// Measures by name.
type Measure = fn(&PairAgreement) -> Option<f64>;
const MEASURES: [(&str, Measure); 8] = [
    ("tau", |pair| pair.tau),
    ("spearman", |pair| pair.spearman),
    ("top_overlap", |pair| Some(pair.top_overlap)),
    ("top_jaccard", |pair| Some(pair.top_jaccard)),
    ("order_agreement", |pair| Some(pair.order_agreement)),
    ("jensen_shannon", |pair| Some(pair.jensen_shannon)),
    ("certified", |pair| pair.certified),
    ("broken", |pair| pair.broken.map(|count| count as f64)),
];

impl PairAgreement {
    fn of(models: (usize, usize), agreement: Agreement, margins: Option<&Margins>) -> Self {
        let certified = margins.map(|margins| Relations::certified(margins).share());
        let broken = margins.map(|margins| {
            let contradicts = |pair: &align_factors::CertifiedPair| {
                let (i, j) = (pair.primary, pair.secondary);
                margins.first[i] <= margins.first[j] || margins.second[i] <= margins.second[j]
            };
            margins.certified().iter().filter(|pair| contradicts(pair)).count()
        });
        Self {
            models,
            tau: agreement.kendall_tau_b,
            spearman: agreement.spearman,
            top_overlap: agreement.top_k_overlap,
            top_jaccard: agreement.top_k_jaccard,
            order_agreement: agreement.order_agreement,
            jensen_shannon: agreement.jensen_shannon,
            certified,
            broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Consistency {
        let p = |masses: [f64; 3]| ImportanceDistribution::new(masses.to_vec()).unwrap();
        let distributions = [p([0.5, 0.3, 0.2]), p([0.5, 0.2, 0.3]), p([0.2, 0.3, 0.5])];
        let names = |names: [&str; 3]| names.map(str::to_owned).to_vec();
        Consistency::of(names(["a", "b", "c"]), names(["x", "y", "z"]), &distributions, None, 1).unwrap()
    }

    #[test]
    fn figures_are_of_two_models_and_of_all() {
        let figures = three().figures();
        let one = |by, curve| figures.curves(Some(by), Some(curve)).unwrap()[0][0];
        // Of three pairs of factors a and b order two alike, a and c none, b and c one.
        assert_eq!(one("a and b", "order_agreement"), 2.0 / 3.0);
        assert_eq!(one("a and c", "tau"), -1.0);
        assert!((one("all", "order_agreement") - 1.0 / 3.0).abs() < 1e-15);
        assert!((one("all", "top_overlap") - 1.0 / 3.0).abs() < 1e-15);
        assert!(figures.curves(Some("all"), Some("certified")).is_err(), "there are no attributions");
    }

    #[test]
    fn no_more_factors_than_there_are_can_come_first() {
        let p = ImportanceDistribution::uniform(2).unwrap();
        let names = vec!["a".to_owned(), "b".to_owned()];
        let found = Consistency::of(names.clone(), names, &[p.clone(), p], None, 3);
        assert_eq!(found.unwrap_err().to_string(), "`top` is 3, and there are 2 factors");
    }
}
