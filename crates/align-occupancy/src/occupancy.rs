//! Distributions over what is visited.

use crate::error::OccupancyError;
use crate::policy::TabularPolicy;

/// A distribution over cells: over state-action pairs, over states, or over whole responses.
///
/// # Shapes
/// `[S·A]` with μ(s, a) at `s · A + a`, or `[S]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Occupancy {
    cells: Vec<f64>,
}

impl Occupancy {
    /// A checked distribution. It may be off by printing, 1e-6 in its sum; it is divided by it.
    ///
    /// # Errors
    /// If an entry is negative or not finite, or the sum is not 1.
    pub fn new(cells: Vec<f64>) -> Result<Self, OccupancyError> {
        if let Some(cell) = cells.iter().position(|p| !p.is_finite() || *p < 0.0) {
            return Err(OccupancyError::InvalidOccupancyEntry { cell, found: cells[cell] });
        }
        let sum = 0.0 + cells.iter().sum::<f64>(); // of no cells, the sum is −0
        if (sum - 1.0).abs() > 1e-6 {
            return Err(OccupancyError::InvalidOccupancy { sum });
        }
        Ok(Self { cells: cells.into_iter().map(|p| p / sum).collect() })
    }

    /// What a linear solve gives: a distribution up to rounding, which may have left −1e-17 in a cell never visited.
    pub(crate) fn rounded(mut cells: Vec<f64>) -> Self {
        cells.iter_mut().for_each(|p| *p = p.max(0.0));
        let sum: f64 = cells.iter().sum();
        cells.iter_mut().for_each(|p| *p /= sum);
        Self { cells }
    }

    /// What is a distribution already.
    pub(crate) fn normalized(cells: Vec<f64>) -> Self {
        debug_assert!((cells.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        Self { cells }
    }

    /// The probabilities.
    pub fn cells(&self) -> &[f64] {
        &self.cells
    }

    /// ⟨μ, f⟩, the mean of a quantity of cells; of a reward, J. A cell that is never visited has no say.
    ///
    /// # Panics
    /// If the quantity has another number of cells.
    pub fn mean(&self, quantity: &[f64]) -> f64 {
        assert_eq!(
            quantity.len(),
            self.cells.len(),
            "a quantity has one entry for each cell of the occupancy"
        );
        self.cells.iter().zip(quantity).filter(|(p, _)| **p > 0.0).map(|(p, x)| p * x).sum()
    }

    /// The standard deviation of a quantity of cells.
    ///
    /// # Panics
    /// If the quantity has another number of cells.
    pub fn deviation(&self, quantity: &[f64]) -> f64 {
        let mean = self.mean(quantity);
        let squares: Vec<f64> = quantity.iter().map(|x| (x - mean).powi(2)).collect();
        self.mean(&squares).sqrt()
    }

    /// The occupancy of states: `d(s) = Σ_a μ(s, a)`.
    ///
    /// # Shapes
    /// `[S·A]` → `[S]`.
    ///
    /// # Panics
    /// If the cells do not fill rows of `actions`.
    pub fn states(&self, actions: usize) -> Self {
        assert!(
            actions > 0 && self.cells.len().is_multiple_of(actions),
            "expected rows of {actions} actions"
        );
        Self { cells: self.cells.chunks(actions).map(|row| row.iter().sum()).collect() }
    }

    /// The policy behind an occupancy of pairs: `π(a|s) = μ(s, a) / d(s)`. Where no state is visited, that of `elsewhere`.
    ///
    /// # Panics
    /// If `elsewhere` is for another world.
    pub fn policy(&self, elsewhere: &TabularPolicy) -> TabularPolicy {
        assert_eq!(self.cells.len(), elsewhere.probabilities().len(), "one cell for each pair of the policy");
        let actions = elsewhere.actions();
        let mut probabilities = self.cells.clone();
        for (state, row) in probabilities.chunks_mut(actions).enumerate() {
            let visits: f64 = row.iter().sum();
            if visits < f64::MIN_POSITIVE {
                row.copy_from_slice(elsewhere.row(state));
            }
        }
        TabularPolicy::rounded(probabilities, actions)
    }

    /// ρ = μ/ν, the density ratio. 0 where both are 0.
    ///
    /// # Errors
    /// If this occupancy has mass where the reference has none.
    ///
    /// # Panics
    /// If the two have different numbers of cells.
    pub fn ratio(&self, reference: &Self) -> Result<Vec<f64>, OccupancyError> {
        let outside = self.mass_outside(reference);
        if outside > 0.0 {
            return Err(OccupancyError::NotAbsolutelyContinuous { mass: outside });
        }
        let pairs = self.cells.iter().zip(&reference.cells);
        Ok(pairs.map(|(p, q)| if *q > 0.0 { p / q } else { 0.0 }).collect())
    }

    /// How much of this occupancy lies where the reference has nothing.
    ///
    /// # Panics
    /// If the two have different numbers of cells.
    pub fn mass_outside(&self, reference: &Self) -> f64 {
        assert_eq!(
            self.cells.len(),
            reference.cells.len(),
            "two occupancies of one world have the same cells"
        );
        self.cells.iter().zip(&reference.cells).filter(|(_, q)| **q == 0.0).map(|(p, _)| p).sum()
    }
}
