//! The least curvature of a function around a point, from gradients.

use crate::{BilevelError, Point};

/// The least eigenvalue of the Hessian at `at`, among the directions that `direction` reaches through it: the smallest Ritz
/// value of at most `steps` Lanczos steps. `None` if the direction is zero.
///
/// Exact, up to the rounding of the differences, when `steps` is at least the dimension of that space; too large otherwise.
/// A Hessian times a vector is a central difference of two gradients, so that `2 · steps` of them are asked for at
/// most. Values within rounding of 0 are returned as 0.
///
/// # Errors
/// Of `gradient`.
///
/// # Source
/// Golub and Van Loan 2013, "Matrix computations", section 10.1, with every vector made orthogonal to all before it.
pub fn least_curvature<Y: Point>(
    at: &Y,
    direction: &Y,
    steps: usize,
    mut gradient: impl FnMut(&Y) -> Result<Y, BilevelError>,
) -> Result<Option<f64>, BilevelError> {
    let length = direction.norm();
    if length == 0.0 {
        return Ok(None);
    }
    // A central difference errs by h² of its own and by u/h from rounding.
    let h = at.unit_roundoff().cbrt() * (1.0 + at.norm());
    let mut next = direction.clone();
    next.scale(1.0 / length);
    let mut basis: Vec<Y> = Vec::with_capacity(steps);
    let (mut diagonal, mut beside) = (Vec::with_capacity(steps), Vec::with_capacity(steps));
    let mut largest = 0.0f64;
    while basis.len() < steps.min(at.len()) {
        let mut image = gradient(&at.plus(h, &next))?;
        image.add_scaled(-1.0, &gradient(&at.plus(-h, &next))?);
        image.scale(0.5 / h);
        diagonal.push(image.dot(&next));
        largest = largest.max(image.norm());
        basis.push(next);
        // Twice is enough to remove what rounding left behind.
        for _ in 0..2 {
            for known in &basis {
                image.add_scaled(-image.dot(known), known);
            }
        }
        let rest = image.norm();
        // What is left of a space that is exhausted is rounding.
        if rest <= at.unit_roundoff().sqrt() * largest {
            break;
        }
        beside.push(rest);
        image.scale(1.0 / rest);
        next = image;
    }
    let least = least_eigenvalue(&diagonal, &beside);
    Ok(Some(if least.abs() <= at.unit_roundoff().sqrt() * largest { 0.0 } else { least }))
}

/// The least eigenvalue of a symmetric tridiagonal matrix, by bisection on how many lie below a number.
fn least_eigenvalue(diagonal: &[f64], beside: &[f64]) -> f64 {
    let off = |i: usize| if i < diagonal.len() { beside.get(i).copied().unwrap_or(0.0).abs() } else { 0.0 };
    let reach = |i: usize| off(i) + if i > 0 { off(i - 1) } else { 0.0 };
    let mut low = (0..diagonal.len()).map(|i| diagonal[i] - reach(i)).fold(f64::INFINITY, f64::min);
    let mut high = diagonal.iter().copied().fold(f64::INFINITY, f64::min);
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        // The pivots of T − middle·I; the first negative one shows an eigenvalue below.
        let mut pivot = f64::INFINITY;
        let below = (0..diagonal.len()).any(|i| {
            let coupling = if i > 0 { off(i - 1).powi(2) / pivot } else { 0.0 };
            pivot = diagonal[i] - middle - coupling;
            pivot < 0.0
        });
        if below { high = middle } else { low = middle }
    }
    (low + high) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_eigenvalue_of_a_second_difference_is_known() {
        // Eigenvalues 2 − 2 cos(jπ/(n + 1)).
        let n = 7;
        let expected = 2.0 - 2.0 * (std::f64::consts::PI / (n + 1) as f64).cos();
        let found = least_eigenvalue(&vec![2.0; n], &vec![-1.0; n - 1]);
        assert!((found - expected).abs() < 1e-14, "{found} and {expected}");
    }

    #[test]
    fn only_directions_that_are_reached_count() {
        // Curvatures 3, −2 and 1; the last is never reached.
        let gradient = |y: &Vec<f64>| Ok(vec![3.0 * y[0], -2.0 * y[1], y[2]]);
        let at = vec![0.4, -0.1, 2.0];
        let along = |direction: [f64; 3]| least_curvature(&at, &direction.to_vec(), 10, gradient).unwrap();
        // A central difference of a linear gradient errs by rounding over h, 1e-16/1e-5.
        assert!((along([1.0, 1.0, 0.0]).unwrap() + 2.0).abs() < 1e-9);
        assert!((along([1.0, 0.0, 1.0]).unwrap() - 1.0).abs() < 1e-9);
        assert_eq!(along([0.0; 3]), None);
    }
}
