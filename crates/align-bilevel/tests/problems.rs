//! The problems with known answers: their gradients against differences, their closed forms against published numbers and
//! against what they are defined to be.

use std::num::NonZeroUsize;

use align_bilevel::problems::{
    Bilinear, Boxed, ClosedForm, ClosedPenalty, FiniteSum, Noisy, OuterTerm, PlToy, Quadratic, Tied,
    TiedUniform,
};
use align_bilevel::{Batches, BilevelError, Level, Point, Problem, Sample, Stream};
use align_core::draws::{Draws, Purpose};

type Host<'a> = &'a dyn Problem<X = Vec<f64>, Y = Vec<f64>>;

/// Numbers in [−1, 1], different for every purpose `list`.
fn numbers(list: u64, length: usize) -> Vec<f64> {
    let draws = Draws::new(11);
    (0..length as u64).map(|i| 2.0 * draws.token(Purpose::Evaluate, list, i, 0, 0) - 1.0).collect()
}

/// Every gradient against central differences of its value, at three places and on the given sample.
fn assert_gradients(name: &str, problem: Host<'_>, dimensions: [usize; 2], sample: &Sample) {
    let step = 1e-5;
    for place in 0..3 {
        let (x, y) = (numbers(2 * place, dimensions[0]), numbers(2 * place + 1, dimensions[1]));
        for level in [Level::Upper, Level::Lower] {
            let differences = |moves_x: bool| -> Vec<f64> {
                let at = |index: usize, by: f64| {
                    let (mut x, mut y) = (x.clone(), y.clone());
                    let moved = if moves_x { &mut x } else { &mut y };
                    moved[index] += by;
                    problem.value(level, &x, &y, sample)
                };
                let length = dimensions[usize::from(!moves_x)];
                (0..length).map(|i| (at(i, step) - at(i, -step)) / (2.0 * step)).collect()
            };
            // Truncation: step²/6 times a third derivative below 100; rounding: 1e-16/step times a value below 100.
            let tolerance = 5e-9;
            let (along_x, along_y) = (differences(true), differences(false));
            let of_x = problem.gradient_x(level, &x, &y, sample);
            let of_y = problem.gradient_y(level, &x, &y, sample);
            assert!(of_x.distance(&along_x) < tolerance, "{name} {level:?} x: {of_x:?} vs {along_x:?}");
            assert!(of_y.distance(&along_y) < tolerance, "{name} {level:?} y: {of_y:?} vs {along_y:?}");
        }
        let z = numbers(100 + place, dimensions[1]);
        let direct = problem.lower_difference_x(&x, &y, &z, sample);
        let apart = problem.gradient_x(Level::Lower, &x, &y, sample);
        let apart = apart.minus(&problem.gradient_x(Level::Lower, &x, &z, sample));
        assert!(direct.distance(&apart) < 1e-14, "{name}: {direct:?} vs {apart:?}"); // a few roundings of numbers near 1
        let both = problem.perturbed_gradient_y(0.3, &x, &y, sample, sample);
        let sum = problem.gradient_y(Level::Lower, &x, &y, sample);
        let sum = sum.plus(0.3, &problem.gradient_y(Level::Upper, &x, &y, sample));
        assert!(both.distance(&sum) < 1e-14, "{name}");
    }
}

fn sum() -> FiniteSum {
    let draws = Draws::new(5);
    let targets = (0..20).map(|i| draws.normal(Purpose::Label, 0, i)).collect();
    let list = |list| (0..30).map(|i| draws.normal(Purpose::Label, list, i)).collect::<Vec<f64>>();
    FiniteSum::new(list(1).iter().map(|a| a.abs() + 0.5).collect(), list(2), targets).unwrap()
}

#[test]
fn gradients_are_those_of_the_values() {
    let full = Sample::full();
    assert_gradients("scalar", &Quadratic::scalar(), [1, 1], &full);
    assert_gradients("vector", &Quadratic::vector(), [2, 2], &full);
    assert_gradients("portable", &Quadratic::portable(), [5, 10], &full);
    assert_gradients("tied", &Tied, [1, 2], &full);
    assert_gradients("tied uniform", &TiedUniform, [1, 2], &full);
    assert_gradients("boxed", &Boxed, [1, 1], &full);
    assert_gradients("bilinear", &Bilinear, [1, 1], &full);
    assert_gradients("toy", &PlToy, [1, 1], &full);
    assert_gradients("sum", &sum(), [1, 1], &full);
    assert_gradients("a part of the sum", &sum(), [1, 1], &Sample::of(vec![0, 3, 11]));
    let noisy = Noisy::new(Quadratic::portable(), 0.5, NonZeroUsize::new(4).unwrap(), 3);
    assert_gradients("noisy", &noisy, [5, 10], &Sample { rows: None, id: 9 });
}

/// The gradients of ψ and ψ_σ against differences of ψ and ψ_σ, and the value of ψ_σ against its definition.
fn assert_closed_forms(name: &str, problem: &impl ClosedPenalty, x: &[f64], sigmas: &[f64]) {
    let step = 1e-5;
    let slope = |function: &dyn Fn(&[f64]) -> f64| -> Vec<f64> {
        let at = |i: usize, by: f64| {
            let mut x = x.to_vec();
            x[i] += by;
            function(&x)
        };
        (0..x.len()).map(|i| (at(i, step) - at(i, -step)) / (2.0 * step)).collect()
    };
    let found = problem.hyper_gradient(x);
    let differences = slope(&|x| problem.psi(x));
    assert!(found.distance(&differences) < 1e-8, "{name}: {found:?} vs {differences:?}");
    let (z, full, at) = (problem.solution(x), Sample::full(), x.to_vec());
    for &sigma in sigmas {
        let penalized = problem.penalized(x, sigma);
        let differences = slope(&|x| problem.penalized(x, sigma).psi);
        assert!(penalized.gradient.distance(&differences) < 1e-8, "{name} at σ = {sigma}");
        // l(x, σ) at the closed form's y, less l(x, 0); rounding of values of order 1 is divided by σ ≥ 0.01.
        let gap = problem.value(Level::Lower, &at, &penalized.y, &full)
            - problem.value(Level::Lower, &at, &z, &full);
        let psi = problem.value(Level::Upper, &at, &penalized.y, &full) + gap / sigma;
        assert!((penalized.psi - psi).abs() < 1e-12, "{name} at σ = {sigma}: {} vs {psi}", penalized.psi);
        // No neighbour of y in Y is better: it is a minimiser.
        for place in 0..20 {
            let mut other = penalized.y.plus(1e-3, &numbers(500 + place, z.len()));
            problem.project_y(&mut other);
            let h = |y| {
                sigma * problem.value(Level::Upper, &at, y, &full)
                    + problem.value(Level::Lower, &at, y, &full)
            };
            assert!(h(&other) >= h(&penalized.y) - 1e-15, "{name} at σ = {sigma}");
        }
    }
}

#[test]
fn closed_forms_are_what_they_are_defined_to_be() {
    let sigmas = [0.5, 0.1, 0.01];
    assert_closed_forms("scalar", &Quadratic::scalar(), &[0.8], &sigmas);
    assert_closed_forms("vector", &Quadratic::vector(), &[0.7, -0.4], &sigmas);
    assert_closed_forms("portable", &Quadratic::portable(), &numbers(0, 5), &sigmas);
    assert_closed_forms("portable, central", &Quadratic::portable(), &numbers(0, 5), &[-0.1]);
    assert_closed_forms("tied", &Tied, &[2.5], &sigmas);
    assert_closed_forms("tied uniform", &TiedUniform, &[2.5], &sigmas);
    assert_closed_forms("sum", &sum(), &[0.7], &sigmas);
    assert_closed_forms("bilinear", &Bilinear, &[0.05], &sigmas);
    for x in [0.3, -0.3, 1.4] {
        assert_closed_forms("boxed", &Boxed, &[x], &sigmas);
    }
}

#[test]
fn closed_forms_give_the_published_numbers() {
    let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-8, "{found} vs {expected}");
    // Scalar: x, σ, y_σ, ψ_σ, ψ, ∇ψ_σ, ∇ψ, and the central difference's gradient.
    for row in [
        [0.8, 0.5, 1.4, 0.12, 0.18, 0.8, 1.2, 1.6],
        [0.8, 0.1, 1.5454545455, 0.1636363636, 0.18, 1.0909090909, 1.2, 1.2121212121],
        [0.8, 0.01, 1.5940594059, 0.1782178218, 0.18, 1.1881188119, 1.2, 1.2001200120],
        [-0.3, 0.1, -0.4545454545, 1.1636363636, 1.28, -2.9090909091, -3.2, -3.2323232323],
    ] {
        let problem = Quadratic::scalar();
        let [forward, backward] = [1.0, -1.0].map(|sign| problem.penalized(&row[..1], sign * row[1]));
        near(forward.y[0], row[2]);
        near(forward.psi, row[3]);
        near(problem.psi(&row[..1]), row[4]);
        near(forward.gradient[0], row[5]);
        near(problem.hyper_gradient(&row[..1])[0], row[6]);
        near((forward.gradient[0] + backward.gradient[0]) / 2.0, row[7]);
    }
    // Vector.
    let (problem, x) = (Quadratic::vector(), [0.7, -0.4]);
    near(problem.psi(&x), 5.1235204082);
    near(problem.hyper_gradient(&x)[0], 2.4291836735);
    near(problem.hyper_gradient(&x)[1], -3.7951020408);
    let penalized = problem.penalized(&x, 1e-3);
    near(penalized.y[1], 1.0533924396);
    near(penalized.psi, 5.1171503470);
    near(penalized.gradient[1], -3.7904175493);
    let stationary = [0.3297911323, 1.9274459509];
    near(problem.hyper_gradient(&stationary).norm(), 0.0);
    near(problem.psi(&stationary), 0.2574203005);
    // Portable.
    let (problem, ones) = (Quadratic::portable(), [1.0; 5]);
    near(problem.psi(&ones), 0.7889062646);
    let gradient = problem.hyper_gradient(&ones);
    for (found, expected) in
        gradient.iter().zip([0.1119053980, 0.0311452070, 0.1206653810, 0.2522125490, 0.2373222890])
    {
        near(*found, expected);
    }
    near(problem.penalized(&ones, 1e-4).gradient.distance(&gradient), 7.358054e-6);
    let stationary = [0.112883349, 0.116170035, -0.046535067, -0.143884987, -0.033577072];
    near(problem.hyper_gradient(&stationary).norm(), 0.0);
    near(problem.psi(&stationary), 0.2510587545);
    // Ties.
    for (sigma, psi, gradient) in [(0.1, 0.703125, 0.9375), (0.01, 0.7450331126, 0.9933774834)] {
        near(Tied.penalized(&[2.5], sigma).psi, psi);
        near(Tied.penalized(&[2.5], sigma).gradient[0], gradient);
    }
    assert_eq!(
        (Tied.solution(&[2.5]), Tied.psi(&[2.5]), Tied.hyper_gradient(&[2.5])[0]),
        (vec![2.0, 0.5], 0.75, 1.0)
    );
    near(TiedUniform.penalized(&[2.5], 0.1).psi, 1.0227272727);
    near(TiedUniform.penalized(&[2.5], 0.01).gradient[0], 1.4851485149);
    near(TiedUniform.psi(&[2.5]), 1.125);
    // Box: x, σ, y_σ, ψ_σ, ∇ψ_σ, ψ, ∇ψ.
    for row in [
        [0.3, 0.1, 0.31818182, 0.01818182, -0.18181818, 0.02, -0.2],
        [0.3, 0.001, 0.30019980, 0.01998002, -0.19980020, 0.02, -0.2],
        [-0.01, 0.1, 0.03636364, 0.11772727, -0.36363636, 0.125, 0.0],
        [-0.01, 0.01, 0.0, 0.125, 0.0, 0.125, 0.0],
        [1.01, 0.1, 0.96363636, 0.11772727, 0.36363636, 0.125, 0.0],
        [1.4, 0.1, 1.0, 0.125, 0.0, 0.125, 0.0],
    ] {
        let (x, penalized) = (&row[..1], Boxed.penalized(&row[..1], row[1]));
        near(penalized.y[0], row[2]);
        near(penalized.psi, row[3]);
        near(penalized.gradient[0], row[4]);
        near(Boxed.psi(x), row[5]);
        near(Boxed.hyper_gradient(x)[0], row[6]);
    }
}

#[test]
fn on_the_negative_control_no_sigma_is_small_enough() {
    for sigma in [0.1, 0.01, 0.001] {
        let penalized = Bilinear.penalized(&[sigma], sigma);
        assert!((Bilinear.psi(&[sigma]) - penalized.psi - 0.25).abs() < 1e-12);
        assert!((penalized.gradient[0] - (2.0 * sigma + 0.5 / sigma)).abs() < 1e-9); // 1e-16 · 500
    }
    assert_eq!(Bilinear.psi(&[0.0]), 0.0);
    assert_eq!(Bilinear.penalized(&[0.2], 0.1).psi, Bilinear.psi(&[0.2])); // |x| ≥ 2σ: no gap
}

#[test]
fn the_toy_has_the_published_values_and_minima() {
    let full = Sample::full();
    let f = |x: f64, y: f64| PlToy.value(Level::Upper, &vec![x], &vec![y], &full);
    let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-8, "{found} vs {expected}");
    near(f(1.0, 0.3), -0.0745761653);
    near(f(2.2, -1.9), 2.7023235292);
    near(PlToy.value(Level::Lower, &vec![2.2], &vec![-1.9], &full), 0.2821308236);
    near(PlToy.gradient_x(Level::Upper, &vec![2.2], &vec![-1.9], &full)[0], 0.5792307747);
    near(PlToy.gradient_y(Level::Lower, &vec![1.0], &vec![0.3], &full)[0], 3.1155013718);
    for (x, psi) in [(0.38236, 0.4427057), (1.21515, 0.1999109), (2.82964, 1.2434583)] {
        // The places are known to 1e-5: the slope changes sign within it, and ψ is known to 1e-7.
        assert!(
            PlToy.hyper_gradient(&[x - 1e-5])[0] < 0.0 && 0.0 < PlToy.hyper_gradient(&[x + 1e-5])[0],
            "{x}"
        );
        assert!((PlToy.psi(&[x]) - psi).abs() < 1e-7);
    }
    let differences = (PlToy.psi(&[1.7 + 1e-5]) - PlToy.psi(&[1.7 - 1e-5])) / 2e-5;
    assert!((PlToy.hyper_gradient(&[1.7])[0] - differences).abs() < 1e-8);
}

#[test]
fn the_mean_over_all_minibatches_is_the_whole() {
    let problem = sum();
    let (x, y) = (vec![0.4], vec![-0.2]);
    for (level, terms) in [(Level::Upper, 20), (Level::Lower, 30)] {
        assert_eq!(problem.terms(level), terms);
        let whole = problem.gradient_y(level, &x, &y, &Sample::full())[0];
        let of = |row: usize| problem.gradient_y(level, &x, &y, &Sample::of(vec![row]))[0];
        let mean = (0..terms).map(of).sum::<f64>() / terms as f64;
        assert!((mean - whole).abs() < 1e-14); // roundings of thirty terms of order 1
    }
}

#[test]
fn noise_belongs_to_the_sample_and_to_one_gradient() {
    let (batch, std) = (NonZeroUsize::new(25).unwrap(), 0.5);
    let noisy = Noisy::new(Quadratic::scalar(), std, batch, 1);
    let noise = |level, along_x: bool, sample: &Sample, at: f64| {
        let (x, y) = (vec![at], vec![-at]);
        match along_x {
            true => {
                noisy.gradient_x(level, &x, &y, sample)[0] - noisy.mean().gradient_x(level, &x, &y, sample)[0]
            }
            false => {
                noisy.gradient_y(level, &x, &y, sample)[0] - noisy.mean().gradient_y(level, &x, &y, sample)[0]
            }
        }
    };
    let batches = Batches::new(0, None);
    let samples: Vec<Sample> =
        (0..20_000).map(|outer| batches.draw(Stream::OuterLower, outer, 0, 1)).collect();
    let all: Vec<[f64; 4]> = samples
        .iter()
        .map(|sample| {
            let places =
                [(Level::Upper, true), (Level::Upper, false), (Level::Lower, true), (Level::Lower, false)];
            places.map(|(level, along_x)| {
                let here = noise(level, along_x, sample, 0.0);
                assert!((here - noise(level, along_x, sample, 1.5)).abs() < 1e-14); // a rounding of numbers near 5
                here
            })
        })
        .collect();
    // n = 20 000, deviation 0.5/√25 = 0.1: five standard errors are 0.0035 of a mean, 5e-4 of a variance of 0.01 (its
    // deviation is √2 · 0.01), and 3.6e-4 of a covariance of 0.
    for i in 0..4 {
        let mean = all.iter().map(|noise| noise[i]).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 3.6e-3, "{mean}");
        for j in 0..=i {
            let moment = all.iter().map(|noise| noise[i] * noise[j]).sum::<f64>() / 20_000.0;
            let expected = if i == j { 0.01 } else { 0.0 };
            assert!((moment - expected).abs() < 5.1e-4, "{i} {j}: {moment}");
        }
    }
    assert_eq!(noise(Level::Upper, false, &Sample::full(), 0.3), 0.0);
}

#[test]
fn a_lower_level_without_a_minimum_is_refused() {
    let indefinite =
        Quadratic::new(&[vec![1.0, 2.0], vec![2.0, 1.0]], &[vec![1.0], vec![0.0]], vec![0.0, 0.0]);
    assert!(matches!(indefinite, Err(BilevelError::UnboundedLowerLevel { .. })));
    let uneven = Quadratic::new(&[vec![1.0, 0.0], vec![0.0, 1.0]], &[vec![1.0]], vec![0.0, 0.0]);
    assert!(matches!(uneven, Err(BilevelError::ShapeMismatch { expected: 2, found: 1, .. })));
    let flat = FiniteSum::new(vec![1.0, -1.0], vec![0.0, 0.0], vec![1.0]);
    assert!(matches!(flat, Err(BilevelError::UnboundedLowerLevel { .. })));
    let none = FiniteSum::new(vec![1.0], vec![1.0], vec![]);
    assert!(matches!(none, Err(BilevelError::InvalidCount { found: 0, .. })));
    let unpaired = FiniteSum::new(vec![1.0], vec![1.0, 2.0], vec![0.0]);
    assert!(matches!(unpaired, Err(BilevelError::ShapeMismatch { expected: 1, found: 2, .. })));
}

#[test]
#[should_panic(expected = "not positive definite at σ = -1.5")]
fn a_central_difference_beyond_the_curvature_is_refused() {
    Quadratic::scalar().penalized(&[0.8], -1.5);
}

#[test]
fn every_term_of_the_quadratic_shows() {
    let plain = Quadratic::scalar();
    let outer = plain.clone().with_outer_term(OuterTerm::Squares { weight: 0.1 });
    let weighted = plain.clone().with_upper_weight(3.0);
    let bare = plain.clone().with_lower_squares(0.0);
    let (x, y, full) = (vec![0.8], vec![0.2], Sample::full());
    assert!((outer.psi(&x) - plain.psi(&x) - 0.05 * 0.64).abs() < 1e-15);
    assert!((weighted.psi(&x) - 3.0 * plain.psi(&x)).abs() < 1e-15);
    let lower = |problem: &Quadratic| problem.value(Level::Lower, &x, &y, &full);
    assert!((lower(&plain) - lower(&bare) - 2.0 * 0.64).abs() < 1e-15);
    assert_eq!(bare.hyper_gradient(&x), plain.hyper_gradient(&x));
    assert_eq!((Quadratic::portable().upper_dimension(), Quadratic::portable().lower_dimension()), (5, 10));
}
