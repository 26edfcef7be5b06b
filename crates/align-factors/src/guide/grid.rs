//! Choosing the weight of guidance.

use super::config::check_lambda;
use super::{FitConfig, Fitted, Guide, GuideConfig, GuideError, fit};
use crate::{Design, Network, Validation};

/// The weights that are usually tried.
pub const LAMBDAS: [f64; 6] = [0.0, 0.03, 0.1, 0.3, 1.0, 3.0];

/// The trainings of a grid of weights.
#[derive(Clone, Debug)]
pub struct Selection<N> {
    /// The weights and their trainings, ascending; the first is 0.
    pub candidates: Vec<Candidate<N>>,
    /// The place of the lowest validation loss; of equal ones the least guided.
    pub chosen: usize,
}

/// A weight, and what came of it.
#[derive(Clone, Debug)]
pub struct Candidate<N> {
    /// λ.
    pub lambda: f64,
    /// The training.
    pub fitted: Fitted<N>,
}

impl<N> Selection<N> {
    /// The training without guidance, which is always there to be compared with: wrong knowledge hurts.
    pub fn unguided(&self) -> &Fitted<N> {
        &self.candidates[0].fitted
    }

    /// The weight and the training that did best on validation rows.
    pub fn best(&self) -> &Candidate<N> {
        &self.candidates[self.chosen]
    }
}

/// Fits one network for each weight, all from the same start, and chooses by the task's loss on validation rows. The weight 0
/// is tried whether or not it is listed.
///
/// # Errors
/// As [`fit`]; [`FactorsError::InvalidWeight`](crate::FactorsError::InvalidWeight) for a weight that is negative or not finite.
pub fn fit_grid<N: Network>(
    network: &N,
    train: &Design,
    validation: &Design<Validation>,
    config: &FitConfig,
    guide: &Guide,
    lambdas: &[f64],
) -> Result<Selection<N>, GuideError> {
    lambdas.iter().try_for_each(|&lambda| check_lambda(lambda))?;
    let mut lambdas: Vec<f64> = std::iter::once(0.0).chain(lambdas.iter().copied()).collect();
    lambdas.sort_by(f64::total_cmp);
    lambdas.dedup();
    let candidates = lambdas
        .into_iter()
        .map(|lambda| {
            let guide = Guide { config: GuideConfig { lambda, ..guide.config }, ..guide.clone() };
            let fitted = fit(network.clone(), train, Some(validation), config, Some(&guide))?;
            Ok(Candidate { lambda, fitted })
        })
        .collect::<Result<Vec<_>, GuideError>>()?;
    let loss = |candidate: &Candidate<N>| candidate.fitted.validation.unwrap_or(f64::INFINITY);
    let chosen = (0..candidates.len())
        .min_by(|&a, &b| loss(&candidates[a]).total_cmp(&loss(&candidates[b])))
        .expect("the weight 0 is there");
    Ok(Selection { candidates, chosen })
}
