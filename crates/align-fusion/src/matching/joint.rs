//! Two experts with a weight each: two equations in two unknowns.
//!
//! There may be several exact zeros. Of weights that match equally well the pair with the least sum is taken: the gentlest
//! steering that goes far enough.

use crate::tilt::{Movement, Pair, PairMoments, Tilt};

use super::{Candidates, Objective, Search, naive};

/// A step in both weights below which the refinement ends.
const TOLERANCE: f64 = 1e-9;
/// Steps of one refinement. Newton's method takes five to ten; a flat valley is left where it is after these.
const MOST_STEPS: usize = 100;
/// A loss below this share of a² + b² is a zero: the square of what rounding leaves of f − a and g − b.
const ZERO: f64 = 1e-18;

/// A pair of weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct JointFit {
    pub(crate) weights: [f64; 2],
    pub(crate) moved: Movement,
    pub(crate) log_partition: f64,
    pub(crate) loss: f64,
    /// A weight is an end of its range and the loss would go on falling beyond it.
    pub(crate) saturated: bool,
}

/// The pair of weights of least `(f − a)² + (g − b)²`; of equal ones that of the least sum.
pub(crate) fn solve_jointly(
    tilts: &[Tilt<'_>],
    candidates: [&Candidates; 2],
    target: Movement,
    search: Search,
) -> JointFit {
    let pair = Pair::new(tilts);
    let counts = candidates.map(|candidates| candidates.count);
    let grid = match search {
        Search::PaperGrid => naive::pair_grid([&tilts[0], &tilts[1]], candidates),
        Search::Grid | Search::Refined => {
            pair.grid(candidates.map(|c| c.lower), candidates.map(|c| c.step), counts)
        }
    };
    let losses: Vec<f64> = grid.iter().map(|&moved| Objective::Both.loss(moved, target)).collect();
    let weights = |index: usize| [candidates[0].at(index / counts[1]), candidates[1].at(index % counts[1])];
    let from_grid = |index: usize| look(&pair, weights(index), candidates, target);
    let zero = ZERO * (target.forward * target.forward + target.reverse * target.reverse);
    let better = |loss: f64, sum: f64, than: (f64, f64)| {
        let (loss, least) = (loss.max(zero), than.0.max(zero));
        loss < least || (loss == least && sum < than.1)
    };
    let sum = |[first, second]: [f64; 2]| first + second;
    let mut best = 0;
    for index in 1..losses.len() {
        if better(losses[index], sum(weights(index)), (losses[best], sum(weights(best)))) {
            best = index;
        }
    }
    let chosen = from_grid(best).fit;
    if search != Search::Refined {
        return chosen;
    }
    let basins = (0..losses.len()).filter(|&index| unbeaten(&losses, counts, index));
    basins.fold(chosen, |best, index| {
        let found = descend(&pair, weights(index), candidates, target);
        if better(found.loss, sum(found.weights), (best.loss, sum(best.weights))) { found } else { best }
    })
}

/// Whether no neighbour of a grid point, diagonal ones too, has a smaller loss.
fn unbeaten(losses: &[f64], [rows, columns]: [usize; 2], index: usize) -> bool {
    let (row, column) = (index / columns, index % columns);
    (row.saturating_sub(1)..rows.min(row + 2)).all(|row| {
        (column.saturating_sub(1)..columns.min(column + 2))
            .all(|column| losses[row * columns + column] >= losses[index])
    })
}

/// A pair of weights with everything known there.
struct Look {
    fit: JointFit,
    at: PairMoments,
    /// ∇L.
    gradient: [f64; 2],
    /// Weights at an end of their range from which the loss falls outwards.
    pinned: [bool; 2],
}

fn look(pair: &Pair<'_>, weights: [f64; 2], candidates: [&Candidates; 2], target: Movement) -> Look {
    let at = pair.moments(weights);
    let moved = at.movement();
    let (f, g) = (moved.forward - target.forward, moved.reverse - target.reverse);
    let (of_f, of_g) = (at.forward_gradient(), at.reverse_gradient());
    let gradient = [0, 1].map(|t: usize| 2.0 * (f * of_f[t] + g * of_g[t]));
    let outwards = |t: usize| {
        let (weight, range) = (weights[t], candidates[t]);
        (weight == range.upper && gradient[t] < 0.0) || (weight == range.lower && gradient[t] > 0.0)
    };
    let falls = |t: usize| candidates[t].falls_outwards(weights[t], gradient[t]);
    let fit = JointFit {
        weights,
        moved,
        log_partition: at.log_partition,
        loss: Objective::Both.loss(moved, target),
        saturated: falls(0) || falls(1),
    };
    Look { fit, at, gradient, pinned: [outwards(0), outwards(1)] }
}

/// Levenberg and Marquardt's method inside the box: steps of Gauss and Newton, shortened until the loss falls.
fn descend(pair: &Pair<'_>, start: [f64; 2], candidates: [&Candidates; 2], target: Movement) -> JointFit {
    let mut here = look(pair, start, candidates, target);
    let mut damping = 1e-3;
    for _ in 0..MOST_STEPS {
        let step = damped_step(&here, damping);
        let weights = [0, 1]
            .map(|t: usize| (here.fit.weights[t] + step[t]).clamp(candidates[t].lower, candidates[t].upper));
        let length = (0..2).map(|t| (weights[t] - here.fit.weights[t]).abs()).fold(0.0, f64::max);
        if length < TOLERANCE {
            break;
        }
        let there = look(pair, weights, candidates, target);
        if there.fit.loss < here.fit.loss {
            here = there;
            damping *= 0.1;
        } else {
            damping *= 10.0;
        }
    }
    here.fit
}

/// `−(JᵀJ + λ·diag JᵀJ)⁻¹ Jᵀr` over the weights that are not pinned, J the slopes of f and g.
fn damped_step(here: &Look, damping: f64) -> [f64; 2] {
    let (f, g) = (here.at.forward_gradient(), here.at.reverse_gradient());
    let product = |i: usize, j: usize| f[i] * f[j] + g[i] * g[j];
    // An expert that moves nothing has a row of zeros: a little of the other's keeps the system solvable.
    let floor = 1e-12 * (product(0, 0) + product(1, 1));
    let diagonal = |i: usize| product(i, i) * (1.0 + damping) + floor;
    let right = here.gradient.map(|slope| -0.5 * slope);
    match here.pinned {
        [false, false] => {
            let (first, cross, second) = (diagonal(0), product(0, 1), diagonal(1));
            let determinant = first * second - cross * cross;
            [
                (second * right[0] - cross * right[1]) / determinant,
                (first * right[1] - cross * right[0]) / determinant,
            ]
        }
        [true, false] => [0.0, right[1] / diagonal(1)],
        [false, true] => [right[0] / diagonal(0), 0.0],
        [true, true] => [0.0, 0.0],
    }
}
