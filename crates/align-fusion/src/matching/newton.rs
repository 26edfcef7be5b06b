//! From the best candidates of a grid to the minimum between them.

use crate::tilt::{Moments, Movement};

use super::{Fit, Problem};

/// A bisection below which the search ends.
const TOLERANCE: f64 = 1e-6;
/// A step of Newton's below which the search ends: the next would be about its square.
const NEWTON_TOLERANCE: f64 = 1e-4;
/// Candidates through which a polynomial is laid to begin with.
const STENCIL: usize = 5;

impl Problem<'_, '_> {
    /// The least loss over every basin that the grid shows.
    ///
    /// A candidate that no neighbour beats has a minimum beside it. The best one is followed first; another only if f and g,
    /// which grow from one candidate to the next, could come nearer to the target in its two cells than what is already found.
    pub(super) fn refine(&self, grid: &[Movement]) -> Fit {
        let (best, last) = (self.best(grid), grid.len() - 1);
        let mut fit = self.descend(grid, best);
        for k in (0..=last).filter(|&k| k != best) {
            let beaten = (k > 0 && !self.prefers(grid[k], grid[k - 1]))
                || (k < last && self.prefers(grid[k + 1], grid[k]));
            if beaten {
                continue;
            }
            let cells = k.saturating_sub(1)..last.min(k + 1);
            let reachable =
                cells.map(|cell| self.objective.least_between(grid[cell], grid[cell + 1], self.target));
            if reachable.fold(f64::INFINITY, f64::min) < fit.loss {
                let other = self.descend(grid, k);
                if other.loss < fit.loss {
                    fit = other;
                }
            }
        }
        fit
    }

    /// Newton on L′ from candidate `k`, between its neighbours: by halves where L is not convex or a step would leave the
    /// bracket.
    fn descend(&self, grid: &[Movement], k: usize) -> Fit {
        let last = grid.len() - 1;
        let mut low = self.candidates.at(k.saturating_sub(1));
        let mut high = self.candidates.at(last.min(k + 1));
        let mut alpha = self.start(grid, k);
        // g′ = μ − μ₀ between the neighbours: a guess of μ for the first pass.
        let mut about = self.tilt.mean() + self.reverse_slope(grid, k);
        let mut last_step = high - low;
        loop {
            let at = self.tilt.moments_about(alpha, about);
            about = at.mean;
            let slopes = self.slopes(&at);
            if slopes.first < 0.0 {
                low = alpha;
            } else {
                high = alpha;
            }
            let newton = alpha - slopes.first / slopes.second;
            let inside = slopes.second > 0.0 && newton > low && newton < high;
            // Steps that do not shrink by half are no faster than halving, and need not end.
            let shrinking = (newton - alpha).abs() < 0.5 * last_step;
            let (next, tolerance) = match inside && shrinking {
                true => (newton, NEWTON_TOLERANCE),
                false => (0.5 * (low + high), TOLERANCE),
            };
            // At an end of the cell the bracket is empty, and the step 0.
            if (next - alpha).abs() < tolerance {
                let found = self.settle(&at, next);
                // Rounding, or a barrier inside the cell, can leave the candidate itself the better one.
                return if self.prefers(grid[k], found.moved) { self.candidate(grid, k) } else { found };
            }
            last_step = (next - alpha).abs();
            alpha = next;
        }
    }

    /// Where the descent begins: the minimum beside `k` of the polynomial through the candidates around it; at the ends of the
    /// range the end itself, so that a saturated step takes one look; beside 0, which is a maximum, the middle of the first cell.
    fn start(&self, grid: &[Movement], k: usize) -> f64 {
        let (alpha, step) = (self.candidates.at(k), self.candidates.step);
        if k + 1 == grid.len() || (k == 0 && alpha > 0.0) {
            return alpha;
        }
        if k == 0 {
            return 0.5 * step;
        }
        let [before, at, after] = [k - 1, k, k + 1].map(|k| self.loss(grid[k]));
        let bend = before - 2.0 * at + after;
        let vertex = if bend > 0.0 { 0.5 * (before - after) / bend } else { 0.0 };
        alpha + step * self.polynomial_minimum(grid, k, vertex)
    }

    /// The minimum near `k + vertex` of the polynomial through five candidates around `k`, as an offset from `k` in steps: the
    /// parabola's vertex is wrong by about a hundredth of a step, this by a thousandth of that. The vertex itself where there
    /// are no five, or the polynomial leads away.
    fn polynomial_minimum(&self, grid: &[Movement], k: usize, vertex: f64) -> f64 {
        let Some(last) = grid.len().checked_sub(STENCIL) else { return vertex };
        let first = k.saturating_sub(STENCIL / 2).min(last);
        // Newton's divided differences over nodes 0, 1, …, as polynomials in falling factors.
        let mut differences: [f64; STENCIL] = std::array::from_fn(|node| self.loss(grid[first + node]));
        for order in 1..STENCIL {
            for node in (order..STENCIL).rev() {
                differences[node] = (differences[node] - differences[node - 1]) / order as f64;
            }
        }
        let offset = (k - first) as f64;
        let mut x = offset + vertex;
        for _ in 0..3 {
            let (slope, curvature) = derivatives(&differences, x);
            x -= slope / curvature;
        }
        let moved = x - offset;
        if moved.abs() < 1.0 && derivatives(&differences, x).1 > 0.0 { moved } else { vertex }
    }

    /// The slope of g around candidate `k`.
    fn reverse_slope(&self, grid: &[Movement], k: usize) -> f64 {
        let (before, after) = (k.saturating_sub(1), (k + 1).min(grid.len() - 1));
        if before == after {
            return 0.0;
        }
        (grid[after].reverse - grid[before].reverse) / (self.candidates.step * (after - before) as f64)
    }

    /// The last, small step, carried through f and g by their slopes and curvatures instead of another pass.
    fn settle(&self, at: &Moments, alpha: f64) -> Fit {
        let (by, moved) = (alpha - at.alpha, at.movement());
        let carried = |value: f64, slope: f64, curvature: f64| value + by * (slope + 0.5 * by * curvature);
        let moved = Movement {
            forward: carried(moved.forward, at.forward_slope(), at.forward_curvature()),
            reverse: carried(moved.reverse, at.reverse_slope(), at.reverse_curvature()),
        };
        let falls_outwards = self.candidates.falls_outwards(alpha, self.slopes(at).first);
        Fit {
            alpha,
            moved,
            log_partition: self.tilt.log_partition(alpha, moved.reverse),
            loss: self.loss(moved),
            saturated: falls_outwards,
        }
    }
}

/// First and second derivative at `x` of the polynomial with these divided differences over nodes 0, 1, ….
fn derivatives(differences: &[f64; STENCIL], x: f64) -> (f64, f64) {
    let [mut value, mut slope, mut curvature] = [differences[STENCIL - 1], 0.0, 0.0];
    for node in (0..STENCIL - 1).rev() {
        let factor = x - node as f64;
        curvature = curvature * factor + 2.0 * slope;
        slope = slope * factor + value;
        value = value * factor + differences[node];
    }
    (slope, curvature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_of_divided_differences_are_those_of_the_polynomial() {
        // x⁴ − 3x² + 2 at 0 … 4 is 2, 0, 6, 56, 210; divided differences by hand.
        let differences = [2.0, -2.0, 4.0, 6.0, 1.0];
        for x in [-0.5f64, 0.3, 2.0, 3.7] {
            let (slope, curvature) = derivatives(&differences, x);
            assert!((slope - (4.0 * x.powi(3) - 6.0 * x)).abs() < 1e-12, "{slope}");
            assert!((curvature - (12.0 * x * x - 6.0)).abs() < 1e-12, "{curvature}");
        }
    }
}
