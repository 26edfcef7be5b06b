//! Products with second derivatives and inverse Hessians, in both precisions.

use super::*;

#[test]
fn products_by_differences_are_those_of_the_matrices() {
    let problem = Quadratic::vector();
    let oracle = Oracle::new(&problem);
    let (x, y, v, full) = (vec![0.3, -1.0], vec![2.0, 5.0], vec![1.5, -0.25], Sample::full());
    let curvature = Curvature::at(&oracle, &x, &y);
    // A v with A = [[2, ½], [½, 1]], and −Bᵀ v with B = [[1, 0], [1, −1]]. A quadratic has no truncation; rounding is u^(2/3).
    let hessian = curvature.hessian(&v, &full).unwrap();
    assert!(hessian.distance(&vec![2.875, 0.5]) < 1e-9, "{hessian:?}");
    let cross = curvature.cross(&v, &full).unwrap();
    assert!(cross.distance(&vec![-1.25, -0.25]) < 1e-9, "{cross:?}");
    assert_eq!((oracle.calls().lower_y, oracle.calls().lower_x), (2, 2));
    // Not a quadratic: ∂²g/∂y² = 2 + 2x cos 2(x + y), ∂²g/∂x∂y = that + sin 2(x + y).
    let oracle = Oracle::new(&PlToy);
    let (x, y) = (vec![1.2], vec![-0.5]);
    let curvature = Curvature::at(&oracle, &x, &y);
    let exact = 2.0 + 2.4 * 1.4f64.cos();
    assert!((curvature.hessian(&vec![1.0], &full).unwrap()[0] - exact).abs() < 1e-9);
    assert!((curvature.cross(&vec![1.0], &full).unwrap()[0] - exact - 1.4f64.sin()).abs() < 1e-9);
    // Of nothing, nothing, and nothing is asked.
    assert_eq!(curvature.hessian(&vec![0.0], &full).unwrap(), [0.0]);
    assert_eq!(oracle.calls().total(), 4);
}

/// A point in f32, as those of a module mostly are.
#[derive(Clone)]
struct Single(Vec<f32>);

impl Point for Single {
    fn add_scaled(&mut self, scale: f64, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(value, other)| *value += scale as f32 * other);
    }

    fn scale(&mut self, factor: f64) {
        self.0.iter_mut().for_each(|value| *value *= factor as f32);
    }

    fn dot(&self, other: &Self) -> f64 {
        self.0.iter().zip(&other.0).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn zeros(&self) -> Self {
        Self(vec![0.0; self.0.len()])
    }

    fn unit_roundoff(&self) -> f64 {
        f64::from(f32::EPSILON) / 2.0
    }
}

/// A problem whose every point and gradient is rounded to f32.
struct InSingle(Quadratic);

fn wide(point: &Single) -> Place {
    point.0.iter().map(|&value| f64::from(value)).collect()
}

fn narrow(point: Place) -> Single {
    Single(point.into_iter().map(|value| value as f32).collect())
}

impl Problem for InSingle {
    type X = Single;
    type Y = Single;

    fn value(&self, level: Level, x: &Single, y: &Single, sample: &Sample) -> f64 {
        self.0.value(level, &wide(x), &wide(y), sample)
    }

    fn gradient_x(&self, level: Level, x: &Single, y: &Single, sample: &Sample) -> Single {
        narrow(self.0.gradient_x(level, &wide(x), &wide(y), sample))
    }

    fn gradient_y(&self, level: Level, x: &Single, y: &Single, sample: &Sample) -> Single {
        narrow(self.0.gradient_y(level, &wide(x), &wide(y), sample))
    }
}

#[test]
fn differences_suit_the_numbers_of_the_point() {
    let problem = InSingle(Quadratic::portable());
    let exact = problem.0.hyper_gradient(&[1.0; 5]);
    for inverse in [gradients(10), series(60, 1.0)] {
        let mut solver =
            Implicit::new(implicit(60, 1.0, 1.0, inverse), narrow(vec![1.0; 5]), narrow(vec![0.0; 10]));
        let step = solver.step(&Oracle::new(&problem)).unwrap();
        let mut found = narrow(vec![1.0; 5]).minus(Solver::<InSingle>::x(&solver));
        found.add_scaled(-1.0, &narrow(exact.clone()));
        // u^(2/3) = 1.5e-5 in f32, times the condition number 4 and a margin for sums over ten numbers.
        assert!(found.norm() < 3e-4 && step.gradient_norm > 0.3, "{}", found.norm());
    }
}

#[test]
fn both_inverses_solve_a_system() {
    let matrix = |v: &Place| vec![2.0 * v[0] + 0.5 * v[1], 0.5 * v[0] + v[1]];
    let (b, exact) = (vec![1.0, -2.0], vec![8.0 / 7.0, -18.0 / 7.0]);
    let tolerance = NonNegative::literal(0.0);
    let solved =
        |start, most| conjugate_gradients(|v| Ok(matrix(v)), &b, &start, count(most), tolerance, 0).unwrap();
    let cold = solved(vec![0.0, 0.0], 9);
    assert!(cold.v.distance(&exact) < 1e-14, "two directions are enough in two dimensions");
    assert_eq!(cold.products, 2);
    let warm = solved(exact.clone(), 9);
    assert_eq!((warm.products, warm.v), (1, exact.clone()), "nothing to do but to see that");
    let short = solved(vec![0.0, 0.0], 1);
    let rest = b.minus(&matrix(&short.v));
    assert!((short.residual - rest.norm()).abs() < 1e-14 && short.residual > 0.1);
    // Eigenvalues (3 ± √2)/2: at η = 0.5, I − ηH has the norm 0.6036, and 0.6036¹⁰⁰ is 1e-22.
    let series = neumann_series(|v, _| Ok(matrix(v)), &b, positive(0.5), count(100), 0).unwrap();
    assert!(series.v.distance(&exact) < 1e-14);
    // Of few terms: the residual is that of the sum without the last one.
    let before = neumann_series(|v, _| Ok(matrix(v)), &b, positive(0.5), count(2), 0).unwrap();
    let after = neumann_series(|v, _| Ok(matrix(v)), &b, positive(0.5), count(3), 0).unwrap();
    assert!((b.minus(&matrix(&before.v)).norm() - after.residual).abs() < 1e-14);
    // A factor of 1 − (3 + √2)/2 = −1.207 a term.
    let diverged = neumann_series(|v, _| Ok(matrix(v)), &b, positive(1.0), count(30), 7).unwrap_err();
    assert!(matches!(diverged, BilevelError::SeriesDiverged { outer: 7, .. }));
    let saddle = |v: &Place| Ok(vec![v[0], -v[1]]);
    let found =
        conjugate_gradients(saddle, &vec![1.0, 2.0], &vec![0.0, 0.0], count(5), tolerance, 3).unwrap_err();
    assert!(
        matches!(found, BilevelError::SingularHessian { curvature, outer: 3, .. } if (curvature + 0.6).abs() < 1e-14)
    );
}
