//! Separable convex problems over the polytope of occupancies, by a primal-dual interior-point method.

use crate::linear::solve;

/// minimise `Σ φᵢ(xᵢ)` subject to `A x = b`, `x ≥ 0`, with every φᵢ convex.
pub(crate) struct Problem<'a> {
    /// The entries of each column of A, as (row, number).
    pub(crate) columns: &'a [Vec<(usize, f64)>],
    /// b.
    pub(crate) right: &'a [f64],
    /// φᵢ' and φᵢ'' at xᵢ > 0.
    pub(crate) derivatives: &'a dyn Fn(usize, f64) -> (f64, f64),
    /// The size of φ', to measure residuals by.
    pub(crate) scale: f64,
}

/// How one point misses the optimality conditions.
struct Residual {
    /// φ' + Aᵀy − z.
    dual: Vec<f64>,
    /// A x − b.
    primal: Vec<f64>,
    /// Of both, with `x z − τ`, in the norm that a step must shrink.
    norm: f64,
}

#[derive(Clone)]
struct Point {
    x: Vec<f64>,
    y: Vec<f64>,
    z: Vec<f64>,
}

impl Problem<'_> {
    /// Solves it from a strictly positive feasible start. What it returns is strictly positive, and has to be certified
    /// by other means.
    ///
    /// # Source
    /// Boyd and Vandenberghe 2004, "Convex optimization", section 11.7.
    pub(crate) fn minimize(&self, start: &[f64]) -> Vec<f64> {
        let n = start.len();
        let slack = self.scale / n as f64;
        let mut point = Point {
            x: start.to_vec(),
            y: vec![0.0; self.right.len()],
            z: start.iter().map(|x| slack / (n as f64 * x)).collect(),
        };
        for _ in 0..300 {
            let gap: f64 = point.x.iter().zip(&point.z).map(|(x, z)| x * z).sum();
            if gap <= 1e-13 * self.scale
                && self.residual(&point, 0.0, &point.x).norm <= (1e-11 * self.scale).powi(2)
            {
                break;
            }
            let Some(next) = self.step(&point, 0.1 * gap / n as f64) else { break };
            point = next;
        }
        point.x
    }

    /// `weights` are the x of the point a step starts from: what a cell with little mass misses matters little.
    fn residual(&self, point: &Point, tau: f64, weights: &[f64]) -> Residual {
        let mut primal: Vec<f64> = self.right.iter().map(|b| -b).collect();
        let mut dual = Vec::with_capacity(point.x.len());
        let mut norm = 0.0;
        for (i, column) in self.columns.iter().enumerate() {
            let mut slope = (self.derivatives)(i, point.x[i]).0 - point.z[i];
            for &(row, entry) in column {
                primal[row] += entry * point.x[i];
                slope += entry * point.y[row];
            }
            norm += weights[i] * slope * slope + (point.x[i] * point.z[i] - tau).powi(2) / weights[i];
            dual.push(slope);
        }
        norm += primal.iter().map(|r| (r * self.scale).powi(2)).sum::<f64>();
        Residual { dual, primal, norm }
    }

    /// One damped Newton step towards `x z = τ`. `None` where rounding leaves no step to take.
    fn step(&self, point: &Point, tau: f64) -> Option<Point> {
        let m = self.right.len();
        let here = self.residual(point, tau, &point.x);
        let (mut normal, mut right) = (vec![0.0; m * m], here.primal.clone());
        let mut inverse = Vec::with_capacity(point.x.len());
        let mut slopes = Vec::with_capacity(point.x.len());
        for (i, column) in self.columns.iter().enumerate() {
            let (x, z) = (point.x[i], point.z[i]);
            let weight = 1.0 / ((self.derivatives)(i, x).1 + z / x);
            let slope = here.dual[i] + z - tau / x;
            for &(row, entry) in column {
                right[row] -= entry * weight * slope;
                for &(other, second) in column {
                    normal[row * m + other] += entry * weight * second;
                }
            }
            inverse.push(weight);
            slopes.push(slope);
        }
        let dy = solve(normal, right)?;
        let (mut dx, mut dz) = (Vec::with_capacity(point.x.len()), Vec::with_capacity(point.x.len()));
        for (i, column) in self.columns.iter().enumerate() {
            let pull: f64 = column.iter().map(|&(row, entry)| entry * dy[row]).sum();
            let (x, z) = (point.x[i], point.z[i]);
            let change = -inverse[i] * (slopes[i] + pull);
            dx.push(change);
            dz.push((tau - x * z - z * change) / x);
        }
        let room = |values: &[f64], changes: &[f64]| {
            let limits = values.iter().zip(changes).filter(|(_, d)| **d < 0.0).map(|(v, d)| -v / d);
            limits.fold(1.0f64, |m, limit| m.min(0.995 * limit))
        };
        let mut length = room(&point.x, &dx).min(room(&point.z, &dz));
        let moved = |values: &[f64], changes: &[f64], length: f64| -> Vec<f64> {
            values.iter().zip(changes).map(|(v, d)| v + length * d).collect()
        };
        for _ in 0..40 {
            let next = Point {
                x: moved(&point.x, &dx, length),
                y: moved(&point.y, &dy, length),
                z: moved(&point.z, &dz, length),
            };
            let finite = next.x.iter().chain(&next.y).chain(&next.z).all(|v| v.is_finite());
            if finite && self.residual(&next, tau, &point.x).norm <= (1.0 - 0.01 * length) * here.norm {
                return Some(next);
            }
            length *= 0.5;
        }
        None
    }
}
