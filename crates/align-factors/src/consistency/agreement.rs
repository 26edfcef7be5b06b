//! All measures of agreement of two models, and of every two of several.

use serde::Serialize;

use super::{kendall_tau_b, order_agreement, spearman, top_k_jaccard, top_k_overlap};
use crate::distribution::ImportanceDistribution;
use crate::divergence::Divergence;

/// How far two models have the same reasons.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// Kendall's τ_b; nothing where a model thinks all factors alike.
    pub kendall_tau_b: Option<f64>,
    /// Spearman's ρ; nothing where a model thinks all factors alike.
    pub spearman: Option<f64>,
    /// Share of the k most important factors in common.
    pub top_k_overlap: f64,
    /// Those in common by those that either has.
    pub top_k_jaccard: f64,
    /// Share of pairs ordered alike.
    pub order_agreement: f64,
    /// `KL(first‖second)` in nats, with the floor of reports.
    pub kl: f64,
    /// The Jensen–Shannon divergence in nats.
    pub jensen_shannon: f64,
}

impl Agreement {
    /// Compares two models.
    ///
    /// # Panics
    /// If the models have different numbers of factors, or k is 0 or more than these.
    pub fn between(first: &ImportanceDistribution, second: &ImportanceDistribution, k: usize) -> Self {
        Self {
            kendall_tau_b: kendall_tau_b(first, second),
            spearman: spearman(first, second),
            top_k_overlap: top_k_overlap(first, second, k),
            top_k_jaccard: top_k_jaccard(first, second, k),
            order_agreement: order_agreement(first, second),
            kl: Divergence::Forward.reported(first, second),
            jensen_shannon: Divergence::JensenShannon.value(first, second),
        }
    }
}

/// The agreement of every two models, as a matrix: row i, column j compares i with j.
///
/// # Panics
/// As [`Agreement::between`].
pub fn agreements(models: &[ImportanceDistribution], k: usize) -> Vec<Vec<Agreement>> {
    let row = |first| models.iter().map(|second| Agreement::between(first, second, k)).collect();
    models.iter().map(row).collect()
}
