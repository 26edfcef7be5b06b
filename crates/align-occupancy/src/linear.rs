//! Dense linear systems, small enough for elimination.

/// Solves `M x = b` by elimination with partial pivoting. `None` if a pivot is 0 or not finite.
///
/// # Shapes
/// `matrix`: `[N, N]`, row-major; `right`: `[N]`. → `[N]`.
pub(crate) fn solve(mut matrix: Vec<f64>, mut right: Vec<f64>) -> Option<Vec<f64>> {
    let n = right.len();
    debug_assert_eq!(matrix.len(), n * n);
    for column in 0..n {
        let magnitude = |row: usize| matrix[row * n + column].abs();
        let pivot = (column..n).max_by(|&a, &b| magnitude(a).total_cmp(&magnitude(b)))?;
        let largest = magnitude(pivot);
        if largest == 0.0 || !largest.is_finite() {
            return None;
        }
        if pivot != column {
            for k in 0..n {
                matrix.swap(pivot * n + k, column * n + k);
            }
            right.swap(pivot, column);
        }
        let (done, rest) = matrix.split_at_mut((column + 1) * n);
        let head = &done[column * n..];
        for (below, row) in rest.chunks_mut(n).enumerate() {
            let factor = row[column] / head[column];
            if factor != 0.0 {
                for k in column + 1..n {
                    row[k] -= factor * head[k];
                }
                right[column + 1 + below] -= factor * right[column];
            }
        }
    }
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|k| matrix[row * n + k] * right[k]).sum();
        right[row] = (right[row] - known) / matrix[row * n + row];
    }
    Some(right)
}
