//! Which weight makes the fused model move as far as the expert did.
//!
//! ```text
//! L(α) = (f − a)² + (g − b)²      f = KL(P̃‖P), g = KL(P‖P̃); a = KL(Q_t‖Q), b = KL(Q‖Q_t)
//! L′   = 2(f − a)f′ + 2(g − b)g′
//! ```
//!
//! # What L is not
//! - **Convex.** α = 0 is a strict local *maximum* whenever the expert moved at all: `L′(0) = 0` and `L″(0) = −2(a + b)·Var_P v`.
//!   Whatever descends from 0 stays there, and so does Newton's method.
//! - **Unimodal.** For α ≥ 0 both f and g grow, so every minimum lies between the roots of f = a and g = b; but there may be two.
//!   Logits (0, 2, 14), (0, 0, 3), (0, 0, −11) have minima at 0.81 and 1.59 with a barrier between. A weight that starts from the
//!   last token's can stay in the wrong basin; every search here looks at the whole range.
//! - **One-sided.** f and g grow to the left of 0 too, and a negative weight can fit about as well while it *inverts* the expert:
//!   negative weights are refused.
//! - **A judge of experts.** Summed over experts, L is T times the loss against the *mean* targets plus a constant: nothing in it
//!   says which expert is right. The expert with the least loss is the one along whose shift the mean distance can be met; it
//!   is no routing. With two free weights there are two equations for two unknowns and may be several zeros, with more a
//!   continuum.
//!
//! The published headline of 96 % "of the gap" (and 73, 86, 71 %) is a ratio of averages, fused over fully tuned; the closure
//! (fused − base) / (tuned − base) of the same tables is 90.5 % from the 7B expert and 27.6 % from the 1.1B.
//!
//! # Exactness
//! [`Search::Refined`] follows every basin that the grid shows and keeps the best. A basin narrower than a step, between two grid
//! points that do not show it, is not seen; in 3000 random cases against 4001 points none was missed (`tests/search.rs`).
//!
//! # Departures
//! - The best loss is reset at every token; Alg. 1 as printed keeps it and would freeze the weight.
//! - Forward is matched with forward and reverse with reverse, as in Alg. 1; one line of the appendix crosses them.
//!
//! # Source
//! Fan et al. 2024, section 3.2, Alg. 1, <https://arxiv.org/abs/2406.15480>. Grid in powers, refinement and the facts above
//! are ours.

mod candidates;
mod joint;
mod naive;
mod newton;

use serde::{Deserialize, Serialize};

use crate::tilt::{Moments, Movement, Tilt};

pub(crate) use candidates::Candidates;
pub(crate) use joint::solve_jointly;

/// Which distances are matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// `(f − a)² + (g − b)²`, as published.
    #[default]
    Both,
    /// `(f − a)²`.
    Forward,
    /// `(g − b)²`.
    Reverse,
    /// `(f + g − a − b)²`.
    Jeffreys,
}

impl Objective {
    /// L.
    pub fn loss(self, moved: Movement, target: Movement) -> f64 {
        let (f, g) = (moved.forward - target.forward, moved.reverse - target.reverse);
        match self {
            Self::Both => f * f + g * g,
            Self::Forward => f * f,
            Self::Reverse => g * g,
            Self::Jeffreys => (f + g) * (f + g),
        }
    }

    /// Whether L is smaller at `one` than at `other`.
    ///
    /// `L₁ − L₂ = (f₁ − f₂)(f₁ + f₂ − 2a) + …`: where the base is nearly certain f and g are below 1e-16, L is a² + b² at
    /// every weight in f64, and only this difference still tells that a larger weight goes the right way.
    pub fn prefers(self, one: Movement, other: Movement, target: Movement) -> bool {
        let difference = |one: f64, other: f64, target: f64| (one - other) * (one + other - 2.0 * target);
        let forward = difference(one.forward, other.forward, target.forward);
        let reverse = difference(one.reverse, other.reverse, target.reverse);
        let sum = match self {
            Self::Both => forward + reverse,
            Self::Forward => forward,
            Self::Reverse => reverse,
            Self::Jeffreys => difference(one.sum(), other.sum(), target.sum()),
        };
        sum < 0.0
    }

    /// L′ and L″ in α.
    pub fn slopes(self, at: &Moments, target: Movement) -> Slopes {
        let moved = at.movement();
        let (f, g) = (moved.forward - target.forward, moved.reverse - target.reverse);
        let of_square = |residual: f64, slope: f64, curvature: f64| Slopes {
            first: 2.0 * residual * slope,
            second: 2.0 * (slope * slope + residual * curvature),
        };
        let forward = || of_square(f, at.forward_slope(), at.forward_curvature());
        let reverse = || of_square(g, at.reverse_slope(), at.reverse_curvature());
        match self {
            Self::Both => {
                let (forward, reverse) = (forward(), reverse());
                Slopes { first: forward.first + reverse.first, second: forward.second + reverse.second }
            }
            Self::Forward => forward(),
            Self::Reverse => reverse(),
            Self::Jeffreys => of_square(
                f + g,
                at.forward_slope() + at.reverse_slope(),
                at.forward_curvature() + at.reverse_curvature(),
            ),
        }
    }

    /// The least loss between two weights: f and g only grow in between.
    fn least_between(self, lower: Movement, upper: Movement, target: Movement) -> f64 {
        let nearest = |lower: f64, target: f64, upper: f64| target.clamp(lower, upper.max(lower));
        match self {
            Self::Jeffreys => {
                let distance = nearest(lower.sum(), target.sum(), upper.sum()) - target.sum();
                distance * distance
            }
            _ => {
                let moved = Movement {
                    forward: nearest(lower.forward, target.forward, upper.forward),
                    reverse: nearest(lower.reverse, target.reverse, upper.reverse),
                };
                self.loss(moved, target)
            }
        }
    }
}

/// L′ and L″ at one weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slopes {
    /// L′.
    pub first: f64,
    /// L″.
    pub second: f64,
}

/// How the least loss is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Search {
    /// Alg. 1 as published: for each candidate a softmax and two KLs. Slow; what the others are compared with.
    PaperGrid,
    /// The same candidates by [`Tilt::grid`]: the same choice, two exponentials a token in all.
    Grid,
    /// The grid, then Newton's method, kept inside the cell, in every basin the grid shows.
    #[default]
    Refined,
}

/// One expert at its best weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fit {
    pub(crate) alpha: f64,
    pub(crate) moved: Movement,
    pub(crate) log_partition: f64,
    pub(crate) loss: f64,
    /// The weight is an end of the range and the loss would go on falling beyond it.
    pub(crate) saturated: bool,
}

/// One expert to be weighed.
pub(crate) struct Problem<'p, 'a> {
    pub(crate) tilt: &'p Tilt<'a>,
    pub(crate) candidates: Candidates,
    pub(crate) target: Movement,
    pub(crate) objective: Objective,
}

impl Problem<'_, '_> {
    /// The weight of least loss; of equal ones the smallest.
    pub(crate) fn solve(&self, search: Search) -> Fit {
        let Candidates { lower, step, count, .. } = self.candidates;
        let grid = match search {
            Search::PaperGrid => naive::grid(self.tilt, &self.candidates),
            Search::Grid | Search::Refined => self.tilt.grid(lower, step, count),
        };
        match search {
            Search::PaperGrid | Search::Grid => self.candidate(&grid, self.best(&grid)),
            Search::Refined => self.refine(&grid),
        }
    }

    /// The candidate of least loss, of equal ones the first.
    fn best(&self, grid: &[Movement]) -> usize {
        (0..grid.len()).fold(0, |best, k| if self.prefers(grid[k], grid[best]) { k } else { best })
    }

    fn prefers(&self, one: Movement, other: Movement) -> bool {
        self.objective.prefers(one, other, self.target)
    }

    fn loss(&self, moved: Movement) -> f64 {
        self.objective.loss(moved, self.target)
    }

    fn slopes(&self, at: &Moments) -> Slopes {
        self.objective.slopes(at, self.target)
    }

    /// A candidate as it is; only at an end of the range is it asked where the loss is going.
    fn candidate(&self, grid: &[Movement], k: usize) -> Fit {
        let (alpha, moved) = (self.candidates.at(k), grid[k]);
        let saturated = self.candidates.is_end(alpha)
            && self.candidates.falls_outwards(alpha, self.slopes(&self.tilt.moments(alpha)).first);
        let log_partition = self.tilt.log_partition(alpha, moved.reverse);
        Fit { alpha, moved, log_partition, loss: self.loss(moved), saturated }
    }
}
