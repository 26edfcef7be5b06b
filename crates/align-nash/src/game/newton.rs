//! Newton's method for small dense systems.

/// Halvings of a step before it counts as no progress.
const HALVINGS: i32 = 40;

/// Steps after which the method gives up. The systems here take a dozen as a rule, and some hundreds for τ near 1e-4.
const MOST_STEPS: usize = 500;

/// A system of as many equations as unknowns.
pub(crate) trait System {
    /// F(x), to be brought to 0.
    fn value(&self, x: &[f64]) -> Vec<f64>;

    /// ∂Fᵢ/∂xⱼ, row by row; not singular anywhere.
    fn jacobian(&self, x: &[f64]) -> Vec<Vec<f64>>;
}

/// Where the method stopped.
pub(crate) struct Solution {
    /// x.
    pub(crate) point: Vec<f64>,
    /// max |F(x)|.
    pub(crate) residual: f64,
    /// max |Δx| of the last step.
    pub(crate) step: f64,
    /// Steps taken.
    pub(crate) iterations: usize,
}

/// Newton's method from `start`, steps halved until ‖F‖₂ falls enough; goes on below `tolerance` until rounding lets max |F|
/// fall no further.
///
/// The step is downhill for ‖F‖₂², and where the Jacobian is not singular nothing but a root is flat: it goes to the root
/// from any start.
pub(crate) fn newton(system: &impl System, start: Vec<f64>, tolerance: f64) -> Solution {
    let (mut point, mut step, mut iterations) = (start, f64::INFINITY, 0);
    let mut value = system.value(&point);
    while iterations < MOST_STEPS && norm(&value) > 0.0 {
        let Some(direction) = solve(system.jacobian(&point), value.clone()) else { break };
        let shortened = (0..HALVINGS).map(|halvings| 0.5_f64.powi(halvings)).find_map(|length| {
            let next: Vec<f64> = point.iter().zip(&direction).map(|(x, d)| x - length * d).collect();
            let reached = system.value(&next);
            // Armijo's condition with its usual constant.
            (norm(&reached) < (1.0 - 1e-4 * length) * norm(&value)).then_some((next, reached, length))
        });
        let Some((next, reached, length)) = shortened else { break };
        // Near the root a step squares the residual; one that does not halve it moves in rounding errors.
        let rounding = largest(&value) < tolerance && norm(&reached) > 0.5 * norm(&value);
        (point, value, step) = (next, reached, length * largest(&direction));
        iterations += 1;
        if rounding {
            break;
        }
    }
    Solution { point, residual: largest(&value), step, iterations }
}

/// x with `A x = b` by Gaussian elimination with row exchanges; none if A is singular to the last bit.
fn solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Option<Vec<f64>> {
    let n = b.len();
    for column in 0..n {
        let pivot = (column..n).max_by(|&i, &j| a[i][column].abs().total_cmp(&a[j][column].abs()))?;
        a.swap(column, pivot);
        b.swap(column, pivot);
        let (upper, lower) = a.split_at_mut(column + 1);
        let top = &upper[column];
        if top[column] == 0.0 {
            return None;
        }
        for (offset, row) in lower.iter_mut().enumerate() {
            let factor = row[column] / top[column];
            for (entry, above) in row[column..].iter_mut().zip(&top[column..]) {
                *entry -= factor * above;
            }
            b[column + 1 + offset] -= factor * b[column];
        }
    }
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|column| a[row][column] * b[column]).sum();
        b[row] = (b[row] - known) / a[row][row];
    }
    Some(b)
}

/// max |xᵢ|; NaN if one is.
pub(crate) fn largest(x: &[f64]) -> f64 {
    let larger = |largest: f64, x: f64| if x > largest || x.is_nan() { x } else { largest };
    x.iter().map(|x| x.abs()).fold(0.0, larger)
}

/// ‖x‖₂.
fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}
