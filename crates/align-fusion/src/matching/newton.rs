//! From the best candidates of a grid to the minimum between them.

use crate::tilt::{Moments, Movement};

use super::{Fit, Problem};

/// A step in α below which the search ends; the next one would be about its square.
const TOLERANCE: f64 = 1e-6;

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
            let next = if inside && shrinking { newton } else { 0.5 * (low + high) };
            // At an end of the cell the bracket is empty, and the step 0.
            if (next - alpha).abs() < TOLERANCE {
                let found = self.settle(&at, next);
                // Rounding, or a barrier inside the cell, can leave the candidate itself the better one.
                return if self.prefers(grid[k], found.moved) { self.candidate(grid, k) } else { found };
            }
            last_step = (next - alpha).abs();
            alpha = next;
        }
    }

    /// Where the descent begins: the vertex of the parabola through three candidates; at the ends of the range the end itself, so
    /// that a saturated step takes one look; beside 0, which is a maximum, the middle of the first cell.
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
        if bend > 0.0 { alpha + 0.5 * step * (before - after) / bend } else { alpha }
    }

    /// The slope of g around candidate `k`.
    fn reverse_slope(&self, grid: &[Movement], k: usize) -> f64 {
        let (before, after) = (k.saturating_sub(1), (k + 1).min(grid.len() - 1));
        if before == after {
            return 0.0;
        }
        (grid[after].reverse - grid[before].reverse) / (self.candidates.step * (after - before) as f64)
    }

    /// The last, tiny step, carried through f and g by their slopes instead of another pass.
    fn settle(&self, at: &Moments, alpha: f64) -> Fit {
        let (by, moved) = (alpha - at.alpha, at.movement());
        let moved = Movement {
            forward: moved.forward + by * at.forward_slope(),
            reverse: moved.reverse + by * at.reverse_slope(),
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
