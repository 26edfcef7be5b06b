//! Many seeds as one curve with its interval.

use align_reward::overoptimization::Band;

/// From this many seeds on a stage is drawn as one mean curve.
pub(super) const MANY: usize = 4;
/// Points a mean curve is drawn with at most.
const POINTS: usize = 80;

/// Point by point the mean of x, the mean of y and the half-width of its 95 % interval over seeds; as many points as all have.
pub(super) fn mean_curve(curves: &[Vec<(f64, f64)>]) -> Vec<(f64, f64, f64)> {
    let points = curves.iter().map(Vec::len).min().unwrap_or(0);
    let every = points.div_ceil(POINTS).max(1);
    (0..points)
        // The last point is what the curve is about.
        .filter(|at| (points - 1 - at).is_multiple_of(every))
        .map(|at| {
            let x = curves.iter().map(|curve| curve[at].0).sum::<f64>() / curves.len() as f64;
            let y = Band::of(&curves.iter().map(|curve| curve[at].1).collect::<Vec<_>>());
            (x, y.mean, y.high - y.mean)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_curve_ends_where_the_shortest_ends() {
        let curves = [vec![(0.0, 1.0), (1.0, 2.0)], vec![(0.0, 3.0), (2.0, 2.0), (3.0, 9.0)]];
        let found = mean_curve(&curves);
        assert_eq!(found.len(), 2);
        assert_eq!((found[1].0, found[1].1, found[1].2), (1.5, 2.0, 0.0));
        assert_eq!(found[0].1, 2.0);
        let long = vec![vec![(0.0, 0.0); 1001]; 2];
        assert!(mean_curve(&long).len() <= POINTS);
        assert!(mean_curve(&[]).is_empty());
    }
}
