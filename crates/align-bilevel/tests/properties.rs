//! Laws of the penalised objective and of Moreau envelopes, on random problems.

use align_bilevel::problems::{ClosedForm, ClosedPenalty, OuterTerm, PlToy, Quadratic};
use align_bilevel::{
    Descent, Difference, Envelope, Oracle, Penalty, Point, Problem, PsiSigma, Schedule, Set, moreau_envelope,
    proximal_point, psi_sigma, stationarity,
};
use proptest::prelude::*;

const TIGHT: Descent = Descent { step: 1.0, tolerance: 1e-10, max_steps: 20_000 };

fn solved<P: Problem<X = Vec<f64>, Y = Vec<f64>>>(
    problem: &P,
    x: &[f64],
    start: &[f64],
    penalty: Penalty,
) -> PsiSigma<Vec<f64>, Vec<f64>> {
    let start = start.to_vec();
    psi_sigma(&Oracle::new(problem), &x.to_vec(), &start, &start, penalty, &TIGHT).unwrap()
}

fn vector(length: usize) -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(-2.0..2.0f64, length)
}

/// A quadratic with three dimensions below and two above: A = MMᵀ/4 + ½, so that its eigenvalues are from ½ to 9½.
fn quadratic() -> impl Strategy<Value = Quadratic> {
    (vector(9), vector(6), vector(3)).prop_map(|(m, b, target)| {
        let row = |i: usize| &m[3 * i..3 * i + 3];
        let product = |i, j| row(i).iter().zip(row(j)).map(|(a, b)| a * b / 4.0).sum::<f64>();
        let entry = |i, j| product(i, j) + if i == j { 0.5 } else { 0.0 };
        let hessian: Vec<Vec<f64>> = (0..3).map(|i| (0..3).map(|j| entry(i, j)).collect()).collect();
        let coupling: Vec<Vec<f64>> = b.chunks(2).map(<[f64]>::to_vec).collect();
        let problem = Quadratic::new(&hessian, &coupling, target).unwrap();
        problem.with_outer_term(OuterTerm::LogSquares { weight: 0.3 })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn solving_both_lower_problems_gives_the_closed_form(
        problem in quadratic(), x in vector(2), start in vector(3), sigma in 1e-3..1.0f64,
    ) {
        let found = solved(&problem, &x, &start, Penalty::forward(sigma));
        let exact = problem.penalized(&x, sigma);
        // The residual is 1e-10·σ, the least curvature ½, and B at most 5 in norm.
        prop_assert!(found.gradient.distance(&exact.gradient) < 1e-8);
        prop_assert!((found.value - exact.psi).abs() < 1e-8);
        prop_assert!(found.y.distance(&exact.y) < 1e-9);
    }

    #[test]
    fn a_central_difference_is_the_mean_of_both_signs(
        problem in quadratic(), x in vector(2), start in vector(3), sigma in 1e-3..0.4f64,
    ) {
        let found = solved(&problem, &x, &start, Penalty::central(sigma));
        let sides = [sigma, -sigma].map(|sigma| problem.penalized(&x, sigma));
        let mean = sides[0].gradient.plus(1.0, &sides[1].gradient);
        // At σ = 0.4 the least curvature is 0.1.
        prop_assert!((2.0 * found.gradient[0] - mean[0]).abs() < 1e-7);
        prop_assert!((2.0 * found.gradient[1] - mean[1]).abs() < 1e-7);
    }

    #[test]
    fn the_penalised_objective_is_below_and_grows_as_sigma_falls(
        problem in quadratic(), x in vector(2), sigma in 1e-2..1.0f64,
    ) {
        let value = |sigma| solved(&problem, &x, &[0.0; 3], Penalty::forward(sigma)).value;
        let (coarse, fine) = (value(sigma), value(sigma / 2.0));
        prop_assert!(coarse <= fine + 1e-9 && fine <= problem.psi(&x) + 1e-9);
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_value(x in 0.1..2.9f64, sigma in 0.01..0.2f64) {
        // A nonconvex lower level; solved from −x, next to its only solution.
        let h = 1e-5;
        for difference in [Difference::Forward, Difference::Central] {
            let at = |x: f64| solved(&PlToy, &[x], &[-x], Penalty { sigma, difference });
            let slope = (at(x + h).value - at(x - h).value) / (2.0 * h);
            // h² of third derivatives of the order of 1e3, and rounding of 1e-16/σ over h.
            prop_assert!((slope - at(x).gradient[0]).abs() < 1e-5, "{slope} and {:?}", at(x).gradient);
        }
    }

    #[test]
    fn an_envelope_is_below_its_function_and_smooth(
        curvature in 0.1..5.0f64, centre in -2.0..2.0f64, v in -2.0..2.0f64, rho in 0.05..3.0f64,
    ) {
        // On Y = [−1, 1], at a v inside.
        let v = v.clamp(-1.0, 1.0);
        let set = Set::bounds(vec![-1.0], vec![1.0]).unwrap();
        let q = |w: f64| curvature / 2.0 * (w - centre).powi(2);
        let envelope = |v: f64| -> Envelope<Vec<f64>> {
            let gradient = |w: &Vec<f64>| Ok(vec![curvature * (w[0] - centre)]);
            moreau_envelope(&vec![v], rho, &TIGHT, |w| Ok(q(w[0])), gradient, |w| set.project(w)).unwrap()
        };
        let found = envelope(v);
        prop_assert!(found.value <= q(v) + 1e-12);
        // The minimum is that of q, wherever the envelope is taken.
        prop_assert!(found.value >= q(centre.clamp(-1.0, 1.0)) - 1e-12);
        prop_assert!((found.residual - found.gradient.norm()).abs() < 1e-12);
        let h = 1e-5;
        let slope = (envelope(v + h).value - envelope(v - h).value) / (2.0 * h);
        prop_assert!((slope - found.gradient[0]).abs() < 1e-4, "{slope} and {:?}", found.gradient);
    }

    #[test]
    fn proximal_steps_of_a_convex_function_never_part(
        v in vector(3), w in vector(3), curvatures in prop::collection::vec(0.0..4.0f64, 3), rho in 0.05..3.0f64,
    ) {
        let set = Set::simplex(3, 1.0).unwrap();
        let gradient = |y: &Vec<f64>| Ok(y.iter().zip(&curvatures).map(|(y, a)| a * y).collect());
        let step = |v: &Vec<f64>| proximal_point(v, rho, &TIGHT, gradient, |w| set.project(w)).unwrap();
        prop_assert!(step(&v).distance(&step(&w)) <= v.distance(&w) + 1e-8);
    }

    #[test]
    fn a_point_is_stationary_where_its_own_step_leads_back(
        x in vector(3), gradient in vector(3), rho in 0.01..2.0f64,
    ) {
        let set = Set::ball(vec![0.0; 3], 1.0).unwrap();
        let mut inside = x;
        set.project(&mut inside);
        let measure = |gradient: &Vec<f64>| stationarity(&inside, gradient, rho, |x| set.project(x));
        prop_assert!(measure(&gradient) <= gradient.norm() + 1e-9);
        // Pushed outwards on the boundary, or not at all.
        prop_assert!(measure(&vec![0.0; 3]) <= 1e-12);
        let length = inside.norm();
        if length > 1.0 - 1e-12 {
            let mut outwards = inside.clone();
            outwards.scale(-1.0);
            prop_assert!(measure(&outwards) <= 1e-9);
        }
    }

    #[test]
    fn schedules_stay_between_their_ends(
        first in 0.1..2.0f64, last in 0.1..2.0f64, share in 0.05..1.0f64, step in 0u64..300,
    ) {
        let schedule = Schedule::Geometric { first, last, share };
        let (now, next) = (schedule.at(step, 200), schedule.at(step + 1, 200));
        prop_assert!((first.min(last)..=first.max(last)).contains(&now));
        prop_assert!((next - now) * (last - first) >= 0.0);
    }
}
