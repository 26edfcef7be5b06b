//! Cases with known answers, to the digit.

use align_bilevel::problems::{
    Bilinear, Boxed, ClosedForm, ClosedPenalty, OuterTerm, PlToy, Quadratic, Tied, TiedUniform,
};
use align_bilevel::{
    Constrained, Count, Descent, Difference, DoubleLoop, DoubleLoopConfig, Level, Oracle, Penalty, Point,
    Problem, PsiSigma, Sample, Samples, Schedule, Set, SingleLoop, SingleLoopConfig, Solver, StepScale,
    log_log_slope, moreau_envelope, proximal_point, psi_sigma, recursive_momentum,
};
use align_testkit::{assert_all_close, assert_close};

/// Ten digits of a hyper-gradient, or as many as rounding leaves.
const TIGHT: Descent = Descent { step: 1.0, tolerance: 1e-11, max_steps: 20_000 };

fn solved<P: Problem<X = Vec<f64>, Y = Vec<f64>>>(
    problem: &P,
    x: &[f64],
    start: &[f64],
    penalty: Penalty,
) -> PsiSigma<Vec<f64>, Vec<f64>> {
    let start = start.to_vec();
    psi_sigma(&Oracle::new(problem), &x.to_vec(), &start, &start, penalty, &TIGHT).unwrap()
}

/// The answers are written with ten digits.
const DIGITS: f64 = 1e-8;

#[test]
fn a_scalar_problem_with_a_strongly_convex_lower_level() {
    let problem = Quadratic::scalar();
    for (x, sigma, y, value, psi, gradient, exact, central) in [
        (0.8, 0.5, 1.4000000000, 0.1200000000, 0.18, 0.8000000000, 1.2, 1.6000000000),
        (0.8, 0.1, 1.5454545455, 0.1636363636, 0.18, 1.0909090909, 1.2, 1.2121212121),
        (0.8, 0.01, 1.5940594059, 0.1782178218, 0.18, 1.1881188119, 1.2, 1.2001200120),
        (-0.3, 0.1, -0.4545454545, 1.1636363636, 1.28, -2.9090909091, -3.2, -3.2323232323),
    ] {
        let forward = solved(&problem, &[x], &[0.0], Penalty::forward(sigma));
        assert_close(&forward.y, [y], DIGITS);
        assert_close(&forward.z, [2.0 * x], DIGITS);
        assert_close([forward.value, forward.gradient[0]], [value, gradient], DIGITS);
        assert_close([problem.psi(&[x]), problem.hyper_gradient(&[x])[0]], [psi, exact], DIGITS);
        let found = solved(&problem, &[x], &[0.0], Penalty::central(sigma));
        assert_close(&found.gradient, [central], DIGITS);
        // (l(σ) − l(−σ))/(2σ) with l(σ) = σ (2x − 1)²/(2(1 + σ)).
        assert_close([found.value], [(2.0 * x - 1.0).powi(2) / (2.0 * (1.0 - sigma * sigma))], DIGITS);
    }
}

#[test]
fn an_error_of_the_inner_solution_is_divided_by_sigma() {
    let problem = Quadratic::scalar();
    let (oracle, x, sigma) = (Oracle::new(&problem), vec![0.8], 0.01);
    let y = problem.penalized(&x, sigma).y;
    let at = |error: f64| {
        let (penalty, y) = (Penalty::forward(sigma), vec![y[0] + error]);
        penalty.difference_x(&oracle, &x, &y, &problem.solution(&x), &Samples::full()).unwrap()[0] / sigma
    };
    assert_close([at(0.0) - at(1e-4)], [2e-2], DIGITS);
}

#[test]
fn two_dimensions_each() {
    let problem = Quadratic::vector();
    let x = vec![0.7, -0.4];
    let exact = problem.hyper_gradient(&x);
    assert_close(problem.solution(&x), [0.0857142857, 1.0571428571], DIGITS);
    assert_close([problem.psi(&x)], [5.1235204082], DIGITS);
    assert_close(&exact, [2.4291836735, -3.7951020408], DIGITS);
    assert_close(problem.hyper_gradient(&[0.3297911323, 1.9274459509]), [0.0, 0.0], DIGITS);

    let (mut forward, mut central, mut gaps) = (Vec::new(), Vec::new(), Vec::new());
    for (sigma, y, value, gradient, error, central_error) in [
        (
            1e-1,
            [0.2087378641, 0.7233009709],
            4.5569798890,
            [2.1781830791, -3.3784188627],
            4.864424e-1,
            6.958696e-2,
        ),
        (
            1e-2,
            [0.0994887928, 1.0200550531],
            5.0605321330,
            [2.4013297006, -3.7487804056],
            5.405125e-2,
            6.849512e-4,
        ),
        (
            1e-3,
            [0.0871083359, 1.0533924396],
            5.1171503470,
            [2.4263673299, -3.7904175493],
            5.465917e-3,
            6.848437e-6,
        ),
        (
            1e-4,
            [0.0858538588, 1.0567673938],
            5.1228826808,
            [2.4289017258, -3.7946330619],
            5.472072e-4,
            6.848265e-8,
        ),
    ] {
        let found = solved(&problem, &x, &[0.0, 0.0], Penalty::forward(sigma));
        assert_close(&found.y, y, DIGITS);
        assert_close([found.value], [value], DIGITS);
        assert_close(&found.gradient, gradient, DIGITS);
        forward.push((sigma, found.gradient.distance(&exact)));
        gaps.push((sigma, problem.psi(&x) - found.value));
        assert_all_close([forward[forward.len() - 1].1], [error], 1e-5, 0.0);
        let found = solved(&problem, &x, &[0.0, 0.0], Penalty::central(sigma));
        central.push((sigma, found.gradient.distance(&exact)));
        // Rounding of 1e-16 in y is divided by 2σ: 5e-13 of the last error.
        assert_all_close([central[central.len() - 1].1], [central_error], 1e-5, 2e-12);
    }
    assert_close([log_log_slope(&forward), log_log_slope(&gaps)], [0.9842, 0.9841], 5e-5);
    assert_close([log_log_slope(&central)], [2.0021], 5e-5);
}

#[test]
fn the_upper_level_breaks_a_tie_of_the_lower() {
    let problem = Tied;
    assert_close(problem.solution(&[2.5]), [2.0, 0.5], DIGITS);
    assert_close([problem.psi(&[2.5]), problem.hyper_gradient(&[2.5])[0]], [0.75, 1.0], DIGITS);
    for (sigma, value, gradient) in [
        (0.1, 0.7031250000, 0.9375000000),
        (0.01, 0.7450331126, 0.9933774834),
        (0.001, 0.7495003331, 0.9993337775),
    ] {
        let found = solved(&problem, &[2.5], &[0.0, 0.0], Penalty::forward(sigma));
        assert_close([found.value, found.gradient[0]], [value, gradient], DIGITS);
    }
    let error = |sigma| 1.0 - solved(&problem, &[2.5], &[0.0, 0.0], Penalty::forward(sigma)).gradient[0];
    let errors = [1e-1, 1e-2, 1e-3, 1e-4].map(|sigma| (sigma, error(sigma)));
    assert_close([log_log_slope(&errors)], [0.9913], 5e-5);
}

#[test]
fn a_singular_lower_hessian_is_no_obstacle() {
    let problem = TiedUniform;
    assert_close([problem.psi(&[2.5]), problem.hyper_gradient(&[2.5])[0]], [1.125, 1.5], DIGITS);
    // Wherever on the line of minimisers the two copies end.
    for start in [[0.0, 0.0], [5.0, -3.0]] {
        for (sigma, value, gradient) in
            [(0.1, 1.0227272727, 1.3636363636), (0.01, 1.1138613861, 1.4851485149)]
        {
            let found = solved(&problem, &[2.5], &start, Penalty::forward(sigma));
            assert_close([found.value, found.gradient[0]], [value, gradient], DIGITS);
            // f and g are flat together, so that g − σf curves upwards wherever it curves.
            let found = solved(&problem, &[2.5], &start, Penalty::central(sigma));
            assert_close(&found.gradient, [1.5 / (1.0 - sigma * sigma)], DIGITS);
        }
    }
}

#[test]
fn a_bound_of_the_lower_level_becomes_active() {
    let problem = Boxed;
    for (x, sigma, y, value, gradient) in [
        (0.3, 0.1, 0.31818182, 0.01818182, -0.18181818),
        (0.3, 0.001, 0.30019980, 0.01998002, -0.19980020),
        (-0.01, 0.1, 0.03636364, 0.11772727, -0.36363636),
        (-0.01, 0.01, 0.0, 0.125, 0.0),
        (1.01, 0.1, 0.96363636, 0.11772727, 0.36363636),
        (1.4, 0.1, 1.0, 0.125, 0.0),
    ] {
        let found = solved(&problem, &[x], &[0.5], Penalty::forward(sigma));
        assert_close([found.y[0], found.value, found.gradient[0]], [y, value, gradient], DIGITS);
    }
}

#[test]
fn where_the_solution_set_jumps_no_sigma_is_small_enough() {
    let problem = Bilinear;
    for (x, sigma, value, gradient) in [
        (0.1, 0.1, 0.7600000000, 5.2),
        (0.01, 0.01, 0.7501000000, 50.02),
        (0.001, 0.001, 0.7500010000, 500.002),
        (0.05, 0.1, 0.44, 7.6),
    ] {
        let found = solved(&problem, &[x], &[0.3], Penalty::forward(sigma));
        assert_close([found.value], [value], DIGITS);
        // The inner residual is allowed 1e-11·σ, of a curvature of 2σ, and y is divided by σ.
        assert_close(&found.gradient, [gradient], 1e-7);
        if x == sigma {
            assert_close([problem.psi(&[x]) - found.value], [0.25], 1e-9);
        }
    }
    // Away from the jump there is no gap at all.
    let found = solved(&problem, &[0.2], &[0.3], Penalty::forward(0.1));
    assert_close([found.value], [1.04], DIGITS);
}

#[test]
fn a_proximal_step_and_its_envelope() {
    let value = |w: &Vec<f64>| Ok(1.5 * (w[0] - 1.5).powi(2));
    let gradient = |w: &Vec<f64>| Ok(vec![3.0 * (w[0] - 1.5)]);
    let v = vec![-0.4];
    let found = moreau_envelope(&v, 0.2, &TIGHT, value, gradient, |_| {}).unwrap();
    assert_close([found.prox[0], found.value], [0.3125, 3.384375], DIGITS);
    assert_close([found.gradient[0], found.residual], [-3.5625, 3.5625], DIGITS);
    // The error bound of a curvature of 3: R/dist = 3/(1 + 3ρ).
    assert_close([found.residual / 1.9], [1.875], DIGITS);

    let set = Set::bounds(vec![-1.0], vec![0.2]).unwrap();
    let found = moreau_envelope(&v, 0.2, &TIGHT, value, gradient, |w| set.project(w)).unwrap();
    assert_close([found.prox[0], found.value], [0.2, 3.435], DIGITS);
    let alone = proximal_point(&v, 0.2, &TIGHT, gradient, |w| set.project(w)).unwrap();
    assert_eq!(alone, found.prox);
}

/// Where a function that rises through 0 within 0.02 of `near` does so.
fn root(near: f64, f: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (near - 0.02, near + 0.02);
    assert!(f(low) < 0.0 && f(high) > 0.0, "no minimum near {near}");
    for _ in 0..40 {
        let middle = (low + high) / 2.0;
        if f(middle) < 0.0 { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

#[test]
fn a_nonconvex_lower_level_has_the_gradients_and_minima_it_should() {
    let problem = PlToy;
    for (x, y, f, g, f_gradient, g_gradient) in [
        (1.0, 0.3, -0.0745761653, 2.6184443767, [1.1807418088, 0.2056630998], [4.0439457485, 3.1155013718]),
        (2.2, -1.9, 2.7023235292, 0.2821308236, [0.5792307747, -2.5222573240], [1.9295456340, 1.8422134415]),
    ] {
        let (x, y, all) = (vec![x], vec![y], Sample::full());
        for (level, value, gradient) in [(Level::Upper, f, f_gradient), (Level::Lower, g, g_gradient)] {
            assert_close([problem.value(level, &x, &y, &all)], [value], DIGITS);
            let found =
                [problem.gradient_x(level, &x, &y, &all)[0], problem.gradient_y(level, &x, &y, &all)[0]];
            assert_close(found, gradient, DIGITS);
        }
    }
    for (x, psi) in [(0.38236, 0.4427057), (1.21515, 0.1999109), (2.82964, 1.2434583)] {
        let found = root(x, |x| problem.hyper_gradient(&[x])[0]);
        assert_close([found], [x], 1e-5); // the grid on which they were found
        assert_close([problem.psi(&[found])], [psi], 1e-7);
    }
}

#[test]
fn penalised_minimisers_approach_the_true_ones_like_sigma_and_lower_gaps_like_its_square() {
    let problem = PlToy;
    let truth = [0.38236, 1.21515, 2.82964].map(|x| root(x, |x| problem.hyper_gradient(&[x])[0]));
    let mut gaps = Vec::new();
    let mut offsets = Vec::new();
    for (sigma, minimisers, gap) in [
        (0.1, [0.366972, 1.188493, 2.823998], 1.53e-3),
        (0.01, [0.380910, 1.212569, 2.829080], 9.30e-6),
        (0.001, [0.382217, 1.214889, 2.829586], 8.84e-8),
    ] {
        let slope = |x: f64| solved(&problem, &[x], &[-x], Penalty::forward(sigma)).gradient[0];
        let found = minimisers.map(|x| root(x, slope));
        assert_close(found, minimisers, 1e-6);
        offsets.push((sigma, (found[0] - truth[0]).abs()));
        let y = solved(&problem, &[found[0]], &[-found[0]], Penalty::forward(sigma)).y;
        // The least of g is 0.
        gaps.push((sigma, problem.value(Level::Lower, &vec![found[0]], &y, &Sample::full())));
        assert_all_close([gaps[gaps.len() - 1].1], [gap], 5e-3, 0.0); // three digits are written
    }
    assert_close([log_log_slope(&offsets), log_log_slope(&gaps)], [1.0, 2.0], 0.15); // σ = 0.1 is not yet small
}

#[test]
fn one_step_of_the_double_loop() {
    let problem = Constrained {
        problem: Quadratic::scalar().with_outer_term(OuterTerm::Squares { weight: 0.1 }),
        x: Set::bounds(vec![-1.0], vec![1.0]).unwrap(),
        y: Set::bounds(vec![-3.0], vec![3.0]).unwrap(),
    };
    let oracle = Oracle::new(&problem);
    let stepped = |inner, beta| {
        let config = DoubleLoopConfig {
            sigma: Schedule::constant(0.1),
            rho: 0.5,
            inner_steps: Count::constant(inner),
            warm_up: 1,
            gamma: Schedule::constant(0.2),
            beta: Schedule::constant(beta),
            alpha: Schedule::constant(0.3),
            step_scale: StepScale::OnDifference,
            ..Default::default()
        };
        let mut solver = DoubleLoop::new(config, &problem, vec![0.5], vec![0.0], vec![0.2]).unwrap();
        let step = solver.step(&oracle).unwrap();
        (solver, step)
    };
    let rounding = 1e-15;
    for (inner, expected) in [(1, [0.22, 0.36]), (2, [0.3036, 0.424]), (3, [0.335368, 0.4496])] {
        // With β = 1, y and z are the inner points.
        let (solver, _) = stepped(inner, 1.0);
        assert_close(
            [solver.perturbed()[0], Solver::<Constrained<Quadratic>>::y(&solver)[0]],
            expected,
            rounding,
        );
    }
    let (solver, step) = stepped(3, 0.5);
    let solver: &dyn Solver<Constrained<Quadratic>> = &{
        assert_close([solver.perturbed()[0]], [0.167684], rounding);
        solver
    };
    assert_close([solver.y()[0], solver.x()[0]], [0.3248, 0.4299608], rounding);
    assert_close([step.gradient_norm], [2.33464], 1e-14); // D, divided by 0.1
    assert_eq!((step.iteration, step.sigma, solver.iterations()), (0, Some(0.1), 1));
    // The last inner step moved w_y by 0.031768 and w_z by 0.0256.
    assert_close([step.residual.unwrap()], [0.031768 / 0.2], 1e-14);

    let (x, all) = (vec![0.5], Sample::full());
    let penalty = Penalty::forward(0.1);
    let project = |y: &mut Vec<f64>| problem.project_y(y);
    let at_y = |y: &Vec<f64>| penalty.gradient_at_y(&oracle, &x, y, &all, &all);
    let at_z = |z: &Vec<f64>| penalty.gradient_at_z(&oracle, &x, z, &all, &all);
    let exact_y = proximal_point(&vec![0.0], 0.5, &TIGHT, at_y, project).unwrap();
    let exact_z = proximal_point(&vec![0.2], 0.5, &TIGHT, at_z, project).unwrap();
    assert_close([exact_y[0], exact_z[0]], [0.3548387097, 0.4666666667], DIGITS);
}

#[test]
fn recursive_momentum_follows_its_recursion() {
    let fresh = [1.2, 0.7, 0.4];
    let before = [f64::NAN, 1.0, 0.5];
    let eta = [1.0, 0.5, 0.25];
    let mut estimate = vec![fresh[0]];
    for (k, expected) in [(1, 0.8), (2, 0.625)] {
        estimate = recursive_momentum(&estimate, eta[k], vec![fresh[k]], &vec![before[k]]);
        assert_close(&estimate, [expected], 1e-15);
    }
}

#[test]
fn without_noise_momentum_is_the_exact_gradient_at_every_step() {
    let problem = Quadratic::portable();
    let config = SingleLoopConfig { outer_steps: 60, ..Default::default() };
    let zeros = vec![0.0; 10];
    let mut solver = SingleLoop::new(config, &problem, vec![1.0; 5], zeros.clone(), zeros).unwrap();
    let (oracle, all) = (Oracle::new(&problem), Sample::full());
    for _ in 0..60 {
        let x = Solver::<Quadratic>::x(&solver).clone();
        let (w_y, w_z) = (solver.inner_points().0.clone(), solver.inner_points().1.clone());
        solver.step(&oracle).unwrap();
        let (next_y, next_z) = solver.inner_points();
        let found = solver.estimates().unwrap();
        // Sixty additions and subtractions of numbers of the order of 1.
        let rounding = 1e-14;
        assert_close(&found.upper_y, problem.gradient_y(Level::Upper, &x, &w_y, &all), rounding);
        assert_close(&found.lower_y, problem.gradient_y(Level::Lower, &x, &w_y, &all), rounding);
        assert_close(&found.lower_z, problem.gradient_y(Level::Lower, &x, &w_z, &all), rounding);
        assert_close(&found.upper_x, problem.gradient_x(Level::Upper, &x, next_y, &all), rounding);
        assert_close(&found.difference_x, problem.lower_difference_x(&x, next_y, next_z, &all), rounding);
    }
    assert_eq!(oracle.calls().total(), 6 + 59 * 12);
}

#[test]
fn twenty_steps_of_the_double_loop_on_the_portable_problem() {
    let problem = Quadratic::portable();
    let gradient = problem.hyper_gradient(&[1.0; 5]);
    assert_close([problem.psi(&[1.0; 5])], [0.7889062646], DIGITS);
    assert_close(&gradient, [0.1119053980, 0.0311452070, 0.1206653810, 0.2522125490, 0.2373222890], DIGITS);
    assert_close([gradient.norm()], [0.3846895046], DIGITS);

    let config = DoubleLoopConfig {
        outer_steps: 20,
        sigma: Schedule::constant(0.1),
        rho: 1.0,
        inner_steps: Count::constant(5),
        warm_up: 1,
        gamma: Schedule::constant(0.5),
        alpha: Schedule::constant(0.1),
        ..Default::default()
    };
    let zeros = vec![0.0; 10];
    let mut solver = DoubleLoop::new(config, &problem, vec![1.0; 5], zeros.clone(), zeros).unwrap();
    let oracle = Oracle::new(&problem);
    for _ in 0..20 {
        solver.step(&oracle).unwrap();
    }
    let expected = [0.767149618, 0.837205272, 0.717484871, 0.582660606, 0.623150200];
    assert_close(solver.answer(), expected, 1e-9);
    let calls = oracle.calls();
    assert_eq!(calls.total(), 360);
    assert_eq!((calls.upper_x, calls.upper_y, calls.lower_x, calls.lower_y), (20, 100, 40, 200));

    let stationary = [0.112883349, 0.116170035, -0.046535067, -0.143884987, -0.033577072];
    assert_close(problem.hyper_gradient(&stationary), [0.0; 5], 1e-9);
    assert_close([problem.psi(&stationary)], [0.2510587545], DIGITS);
}

#[test]
fn an_upper_objective_without_y_leaves_nothing_to_divide() {
    // w = 0: f = 0.05 x², whatever y is; the two copies coincide, and their difference is exactly 0.
    let problem =
        Quadratic::scalar().with_upper_weight(0.0).with_outer_term(OuterTerm::Squares { weight: 0.1 });
    for difference in [Difference::Forward, Difference::Central] {
        let found = solved(&problem, &[0.7], &[0.0], Penalty { sigma: 1e-6, difference });
        assert_eq!(found.y, found.z);
        assert_close(&found.gradient, [0.07], 1e-15);
    }
}
