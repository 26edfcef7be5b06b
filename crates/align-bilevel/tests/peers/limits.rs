//! Where hyper-gradients and iterates tend to.

use super::*;

#[test]
fn with_long_inner_loops_the_hyper_gradient_is_the_closed_form() {
    let problem = Quadratic::portable();
    let (x, y) = (vec![1.0; 5], vec![0.0; 10]);
    let exact = problem.hyper_gradient(&x);
    // The curvature of g is in [¼, 1]: at step 1 an inner step leaves ¾ of the error, 0.75¹⁵⁰ = 2e-19. Then the differences'
    // error is left, 2e-11 of vectors of length 1 or so, and in CG the condition number times that.
    let tolerance = 1e-9;
    let step = 0.1;
    let aid = |inverse| Implicit::new(implicit(150, 1.0, step, inverse), x.clone(), y.clone());
    let unrolled = UnrolledConfig {
        inner_steps: count(300),
        back_steps: count(150),
        inner_step: positive(1.0),
        ..Default::default()
    };
    let differences =
        FiniteDifferenceConfig { inner_steps: count(150), inner_step: positive(1.0), ..Default::default() };
    let solvers: [(&str, Box<dyn Solver<Quadratic>>, f64); 4] = [
        ("AID", Box::new(aid(gradients(30))), tolerance),
        ("stocBiO", Box::new(aid(series(150, 1.0))), tolerance),
        ("unrolling", Box::new(Unrolled::new(unrolled, x.clone(), y.clone())), tolerance),
        ("differences", Box::new(FiniteDifference::new(differences, x.clone(), y.clone())), 1e-8),
    ];
    for (name, mut solver, tolerance) in solvers {
        let found = direction(solver.as_mut(), &problem, step);
        assert!(found.distance(&exact) < tolerance, "{name}: {}", found.distance(&exact));
    }
    // SOBA and SABA with x held still: v and y settle, and then a step of x is the hyper-gradient.
    let config = SobaConfig { inner_step: constant(1.0), outer_step: constant(1e-13), ..Default::default() };
    let mut soba = Soba::new(config, x.clone(), y.clone());
    let oracle = Oracle::new(&problem);
    let step = go(&mut soba, &oracle, 300).unwrap();
    assert!((step.gradient_norm - exact.norm()).abs() < tolerance, "{}", step.gradient_norm - exact.norm());
    let config = SabaConfig { inner_step: positive(1.0), outer_step: positive(1e-13), ..Default::default() };
    let mut saba = Saba::new(config, x.clone(), y.clone());
    let step = go(&mut saba, &oracle, 300).unwrap();
    assert!((step.gradient_norm - exact.norm()).abs() < tolerance, "{}", step.gradient_norm - exact.norm());

    // The penalties: the gradient of ψ_σ, with a bias of the order of σ against ψ that the closed form has too.
    for sigma in [0.1, 0.01] {
        let penalized = problem.penalized(&x, sigma);
        let config = f2sa(400, sigma, 1.0, steady(1.0 / sigma));
        let mut solver = F2sa::new(config, x.clone(), y.clone(), y.clone()).unwrap();
        // α = σ: a step of y is 1 in units of σf + g, whose curvature is at most 1.01.
        let found = direction(&mut solver, &problem, sigma);
        assert!(found.distance(&penalized.gradient) < tolerance, "{}", found.distance(&penalized.gradient));

        let config = VPbgdConfig {
            inner_steps: count(150),
            inner_step: positive(1.0),
            gamma: positive(1.0 / sigma),
            ..Default::default()
        };
        let mut solver = VPbgd::new(config, x.clone(), penalized.y.clone());
        let found = direction(&mut solver, &problem, 0.1 * sigma);
        assert!(found.distance(&penalized.gradient) < tolerance, "{}", found.distance(&penalized.gradient));
    }
}

#[test]
fn going_back_through_fewer_steps_sees_fewer_terms_of_the_series() {
    // In one dimension with curvature 1 and step γ, K steps back see 1 − (1 − γ)ᴷ of the implicit term.
    let problem = Quadratic::scalar().with_outer_term(OuterTerm::Squares { weight: 0.1 });
    let (x, solution) = (vec![0.8], vec![1.6]);
    let implicit = problem.hyper_gradient(&x)[0] - 0.08;
    for back in [1, 2, 5] {
        let config = UnrolledConfig {
            inner_steps: count(6),
            back_steps: count(back),
            inner_step: positive(0.25),
            ..Default::default()
        };
        let found = direction(&mut Unrolled::new(config, x.clone(), solution.clone()), &problem, 0.1)[0];
        let expected = 0.08 + (1.0 - 0.75f64.powi(back as i32)) * implicit;
        assert!((found - expected).abs() < 1e-9, "{found} vs {expected}"); // differences, as above
    }
}

#[test]
fn every_method_ends_at_the_stationary_point() {
    let problem = Quadratic::vector();
    let exact = vec![0.3297911323, 1.9274459509];
    let (x, y) = (vec![0.7, -0.4], vec![0.0, 0.0]);
    let oracle = Oracle::new(&problem);
    let ended = |name: &str, solver: &mut dyn Solver<Quadratic>, iterations: u64, tolerance: f64| {
        go(solver, &oracle, iterations).unwrap();
        let distance = solver.x().distance(&exact);
        assert!(distance < tolerance, "{name} is {distance} away");
    };
    // Exact but for differences of gradients, in 1e-11, over the least curvature of ψ, which is about ¼; the point is known to
    // 1e-10.
    let tight = 1e-9;
    let aid = |inverse| Implicit::new(implicit(10, 0.4, 0.2, inverse), x.clone(), y.clone());
    ended("AID", &mut aid(gradients(10)), 400, tight);
    ended("stocBiO", &mut aid(series(100, 0.4)), 400, tight);
    let config = UnrolledConfig {
        inner_steps: count(100),
        back_steps: count(100),
        inner_step: positive(0.4),
        outer_step: positive(0.2),
        ..Default::default()
    };
    ended("unrolling", &mut Unrolled::new(config, x.clone(), y.clone()), 400, tight);
    let config = SobaConfig { inner_step: constant(0.4), outer_step: constant(0.05), ..Default::default() };
    ended("SOBA", &mut Soba::new(config, x.clone(), y.clone()), 2000, tight);
    let config = SabaConfig { inner_step: positive(0.4), outer_step: positive(0.05), ..Default::default() };
    ended("SABA", &mut Saba::new(config, x.clone(), y.clone()), 2000, tight);
    let config = FiniteDifferenceConfig {
        inner_steps: count(60),
        inner_step: positive(0.4),
        outer_step: positive(0.2),
        ..Default::default()
    };
    ended("differences", &mut FiniteDifference::new(config, x.clone(), y.clone()), 400, 1e-8);
}

#[test]
fn penalties_end_where_theirs_is_stationary() {
    let problem = Quadratic::vector();
    let exact = vec![0.3297911323, 1.9274459509];
    let (x, y) = (vec![0.7, -0.4], vec![0.0, 0.0]);
    let oracle = Oracle::new(&problem);
    let mut distances = Vec::new();
    for sigma in [0.1, 0.01] {
        let config = VPbgdConfig {
            inner_steps: count(5),
            inner_step: positive(0.4),
            joint_step: positive(0.3),
            gamma: positive(1.0 / sigma),
            ..Default::default()
        };
        let mut value_gap = VPbgd::new(config, x.clone(), y.clone());
        // ξ: the step of x is α ξ = 0.08.
        let config =
            F2saConfig { xi: constant(0.2 / sigma), ..f2sa(10, 0.4 * sigma, 0.4, steady(1.0 / sigma)) };
        let mut first_order = F2sa::new(config, x.clone(), y.clone(), y.clone()).unwrap();
        let solvers: [&mut dyn Solver<Quadratic>; 2] = [&mut value_gap, &mut first_order];
        for solver in solvers {
            go(solver, &oracle, 40_000).unwrap();
            // Roundings of y and z of order 1 are divided by σ.
            assert!(problem.penalized(solver.x(), sigma).gradient.norm() < 1e-12);
            distances.push(solver.x().distance(&exact));
        }
    }
    // A bias of the order of σ: ten times less at a tenth, to the next order.
    for (wide, narrow) in [(distances[0], distances[2]), (distances[1], distances[3])] {
        assert!((8.5..10.0).contains(&(wide / narrow)), "{distances:?}");
    }
}

#[test]
fn a_growing_multiplier_leads_to_the_stationary_point_itself() {
    let problem = Quadratic::vector();
    let exact = vec![0.3297911323, 1.9274459509];
    let oracle = Oracle::new(&problem);
    // Without noise: λ from 10 like k^(1/3) with offset 1: 10 · 8000^(1/3) = 200 in the end, where the bias is 0.36/200 = 1.8e-3.
    let config = F2saConfig {
        alpha: power(0.04, -1.0 / 3.0),
        gamma: constant(0.4),
        xi: constant(3.0),
        ..F2saConfig::f2sa(Noise::None)
    };
    let mut solver = F2sa::new(config, vec![0.7, -0.4], vec![0.0, 0.0], vec![0.0, 0.0]).unwrap();
    let mut distances = Vec::new();
    for iterations in [1000, 8000] {
        go(&mut solver, &oracle, iterations).unwrap();
        distances.push(Solver::<Quadratic>::x(&solver).distance(&exact));
    }
    assert!(distances[1] < 2e-3 && distances[1] < 0.55 * distances[0], "{distances:?}");
}

#[test]
fn bome_ends_within_its_step_of_the_stationary_point() {
    let problem = Quadratic::vector();
    let exact = vec![0.3297911323, 1.9274459509];
    let mut distances = Vec::new();
    for step in [0.1, 0.01] {
        let config = BomeConfig {
            inner_step: positive(0.4),
            outer_step: positive(step),
            joint_step: positive(step),
            ..Default::default()
        };
        let mut solver = Bome::new(config, vec![0.7, -0.4], vec![0.0, 0.0]);
        go(&mut solver, &Oracle::new(&problem), 10_000).unwrap();
        distances.push(Solver::<Quadratic>::x(&solver).distance(&exact));
    }
    // Its multiplier switches between 0 and more from step to step: it settles around the point, the closer the shorter its
    // steps.
    assert!(distances[0] < 0.1 && distances[1] < 0.15 * distances[0], "{distances:?}");
}

#[test]
fn the_value_gap_ends_at_a_local_solution_from_every_start() {
    // γ = 10, steps of 0.01, from random starts; at σ = 0.1 the penalised minimisers are at 0.366972, 1.188493 and 2.823998.
    let ends = [0.366972, 1.188493, 2.823998];
    let draws = Draws::new(2);
    let config =
        VPbgdConfig { inner_step: positive(0.1), joint_step: positive(0.01 * 10.0), ..Default::default() };
    let mut reached = [0usize; 3];
    for start in 0..200 {
        let unit = |which| draws.token(Purpose::Evaluate, which, start, 0, 0);
        let (x, y) = (vec![3.0 * unit(0)], vec![-5.0 + 13.5 * unit(1)]);
        let mut solver = VPbgd::new(config.clone(), x, y);
        go(&mut solver, &Oracle::new(&PlToy), 2000).unwrap();
        let at = Solver::<PlToy>::x(&solver)[0];
        // Known to 1e-6; 2000 steps leave less.
        let end = ends.iter().position(|end| (end - at).abs() < 2e-6);
        reached[end.unwrap_or_else(|| panic!("start {start} ended at {at}"))] += 1;
    }
    assert!(reached.iter().all(|&count| count > 0), "{reached:?}");
}

#[test]
fn an_upper_level_that_does_not_see_y_divides_nothing_by_nothing() {
    // f = |x|²/2: ∇ψ = x, y = z, v = 0, and the gap's slope vanishes as y settles.
    let problem =
        Quadratic::scalar().with_upper_weight(0.0).with_outer_term(OuterTerm::Squares { weight: 1.0 });
    for (name, mut solver) in all::<Quadratic>(0.8, 0.0, Sampling::default()) {
        go(solver.as_mut(), &Oracle::new(&problem), 5000).unwrap();
        assert!(solver.x()[0].abs() < 0.8 / 10.0, "{name}: {:?}", solver.x());
        assert!(solver.y()[0].is_finite(), "{name}");
    }
    let mut aid = Implicit::new(implicit(5, 0.5, 0.5, gradients(5)), vec![0.8], vec![1.6]);
    let oracle = Oracle::new(&problem);
    aid.step(&oracle).unwrap();
    assert_eq!(Solver::<Quadratic>::x(&aid)[0], 0.4);
    assert_eq!(oracle.calls().total(), 5 + 2, "no products with the zero vector");
}

#[test]
fn the_settings_of_differences_and_tolerance_matter() {
    // ψ is no quadratic here: a wide difference has a truncation error of h²/6 times a third derivative of tens.
    let found = |difference: f64| {
        let config = FiniteDifferenceConfig { difference: positive(difference), ..Default::default() };
        let mut solver = FiniteDifference::new(config, vec![1.0], vec![-1.0]);
        direction(&mut solver, &PlToy, 0.1)[0]
    };
    let exact = PlToy.hyper_gradient(&[1.0])[0];
    assert!((found(1e-5) - exact).abs() < 1e-8, "{} vs {exact}", found(1e-5));
    assert!((found(1e-1) - exact).abs() > 1e-2);
    let calls = |tolerance| {
        let inverse = Inverse::ConjugateGradients { iterations: count(10), tolerance };
        let mut solver = Implicit::new(implicit(1, 0.5, 0.1, inverse), vec![1.0; 5], vec![0.0; 10]);
        let problem = Quadratic::portable();
        let oracle = Oracle::new(&problem);
        solver.step(&oracle).unwrap();
        oracle.calls().total()
    };
    assert!(calls(NonNegative::literal(0.1)) < calls(NonNegative::literal(1e-8)));
}
