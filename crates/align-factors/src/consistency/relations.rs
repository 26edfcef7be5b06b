//! Which factors are primary to which.

use serde::Serialize;

use super::Margins;

/// A strict partial order of factors: i is primary to j where `I_i > I_j`.
///
/// Of one model it is a ranking. What several models share, or what is certified of two, leaves pairs open.
///
/// # Examples
/// ```
/// use align_factors::Relations;
///
/// let relations = Relations::shared(&[[0.5, 0.3, 0.2], [0.5, 0.2, 0.3]]);
/// assert_eq!(relations.pairs(), [(0, 1), (0, 2)]);
/// assert!(!relations.holds(1, 2) && !relations.holds(2, 1));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Relations {
    factors: usize,
    /// Whether i is primary to j, at `i · factors + j`.
    above: Vec<bool>,
}

impl Relations {
    /// Of one model.
    pub fn of(importances: &[f64]) -> Self {
        Self::shared(&[importances])
    }

    /// Those that hold in every one of several models.
    ///
    /// # Panics
    /// If there is no model, or they have different numbers of factors.
    pub fn shared<I: AsRef<[f64]>>(models: &[I]) -> Self {
        let factors = models.first().expect("Relations::shared: no models").as_ref().len();
        for model in models {
            assert_eq!(model.as_ref().len(), factors, "Relations::shared: models of the same factors");
        }
        Self::where_holds(factors, |i, j| models.iter().all(|model| model.as_ref()[i] > model.as_ref()[j]))
    }

    /// Those that two models must share by how little their attributions differ.
    pub fn certified(margins: &Margins) -> Self {
        Self::where_holds(margins.factors(), |i, j| margins.certifies(i, j))
    }

    /// From a strict partial order.
    fn where_holds(factors: usize, above: impl Fn(usize, usize) -> bool) -> Self {
        let above = (0..factors * factors).map(|pair| above(pair / factors, pair % factors)).collect();
        Self { factors, above }
    }

    /// How many factors.
    pub fn factors(&self) -> usize {
        self.factors
    }

    /// Whether i is primary to j.
    pub fn holds(&self, i: usize, j: usize) -> bool {
        self.above[i * self.factors + j]
    }

    /// All pairs (i, j) with i primary to j.
    pub fn pairs(&self) -> Vec<(usize, usize)> {
        self.pairs_where(|i, j| self.holds(i, j))
    }

    /// The pairs with no factor in between: the fewest that imply the others, and what to draw as a graph.
    pub fn reduction(&self) -> Vec<(usize, usize)> {
        let between = |i, j| (0..self.factors).any(|k| self.holds(i, k) && self.holds(k, j));
        self.pairs_where(|i, j| self.holds(i, j) && !between(i, j))
    }

    /// How many pairs hold, of those that could: `d (d − 1) / 2`. 1 for a full ranking; 1 where there is no pair.
    pub fn share(&self) -> f64 {
        let pairs = self.factors * self.factors.saturating_sub(1) / 2;
        let held = self.above.iter().filter(|above| **above).count();
        if pairs == 0 { 1.0 } else { held as f64 / pairs as f64 }
    }

    fn pairs_where(&self, condition: impl Fn(usize, usize) -> bool) -> Vec<(usize, usize)> {
        let all = (0..self.factors).flat_map(|i| (0..self.factors).map(move |j| (i, j)));
        all.filter(|&(i, j)| condition(i, j)).collect()
    }
}
