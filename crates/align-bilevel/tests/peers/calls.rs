//! Calls, counted against their formulas, and to stationarity.

use super::*;

/// What one step asked for, after a first one.
fn second_step<P: Problem>(solver: &mut dyn Solver<P>, problem: &P) -> Calls {
    solver.step(&Oracle::new(problem)).unwrap();
    let oracle = Oracle::new(problem);
    solver.step(&oracle).unwrap();
    oracle.calls()
}

fn calls(upper_x: u64, upper_y: u64, lower_x: u64, lower_y: u64, values: u64) -> Calls {
    let terms = upper_x + upper_y + lower_x + lower_y; // the quadratic is one term
    Calls { upper_x, upper_y, lower_x, lower_y, values, terms }
}

#[test]
fn calls_follow_the_formulas() {
    let problem = Quadratic::vector();
    let start = || (vec![0.7, -0.4], vec![0.0, 0.0]);
    let (x, y) = start();
    for t in [1, 4] {
        let steps = t as u64;
        let mut solver =
            F2sa::new(f2sa(t, 0.01, 0.1, steady(10.0)), x.clone(), y.clone(), y.clone()).unwrap();
        assert_eq!(second_step(&mut solver, &problem), calls(1, steps, 2, 2 * steps, 0), "3T + 3");
        let config = F2saConfig { momentum: Some(power(1.0, -0.8)), ..f2sa(t, 0.01, 0.1, steady(10.0)) };
        let mut solver = F2sa::new(config, x.clone(), y.clone(), y.clone()).unwrap();
        let first = Oracle::new(&problem);
        solver.step(&first).unwrap();
        assert_eq!(first.calls().total(), 6 * steps, "nothing before the first of either kind");
        let second = Oracle::new(&problem);
        solver.step(&second).unwrap();
        assert_eq!(second.calls(), calls(2, 2 * steps, 4, 4 * steps, 0), "6T + 6");

        let config = VPbgdConfig { inner_steps: count(t), ..Default::default() };
        let mut solver = VPbgd::new(config, x.clone(), y.clone());
        assert_eq!(second_step(&mut solver, &problem), calls(1, 1, 2, steps + 1, 0), "T + 5");

        for (control, values) in [(Control::GradientNorm, 0), (Control::Gap, 2)] {
            let config = BomeConfig { inner_steps: count(t), control, ..Default::default() };
            let mut solver = Bome::new(config, x.clone(), y.clone());
            assert_eq!(second_step(&mut solver, &problem), calls(1, 1, 2, steps, values), "T + 4");
        }

        // CG of two iterations is one short of the tolerance, and starts from what was there: one product more.
        let mut solver = Implicit::new(implicit(t, 0.1, 0.1, gradients(1)), x.clone(), y.clone());
        assert_eq!(second_step(&mut solver, &problem), calls(1, 1, 2, steps + 2 * 2, 0), "T + 2K + 4, and 2");
        let mut solver = Implicit::new(implicit(t, 0.1, 0.1, series(7, 0.1)), x.clone(), y.clone());
        assert_eq!(second_step(&mut solver, &problem), calls(1, 1, 2, steps + 2 * 7, 0), "T + 2K + 4");

        for back in [1, 3, 9] {
            let k = back.min(t) as u64;
            let config =
                UnrolledConfig { inner_steps: count(t), back_steps: count(back), ..Default::default() };
            let mut solver = Unrolled::new(config, x.clone(), y.clone());
            assert_eq!(
                second_step(&mut solver, &problem),
                calls(1, 1, 2 * k, steps + 2 * (k - 1), 0),
                "T + 4K"
            );
        }

        let config = FiniteDifferenceConfig { inner_steps: count(t), ..Default::default() };
        let mut solver = FiniteDifference::new(config, x.clone(), y.clone());
        assert_eq!(second_step(&mut solver, &problem), calls(0, 0, 0, 5 * steps, 4), "(2 dim x + 1) T");
    }
    let mut solver = Soba::new(SobaConfig::default(), x.clone(), y.clone());
    let first = Oracle::new(&problem);
    solver.step(&first).unwrap();
    assert_eq!(first.calls(), calls(1, 1, 0, 1, 0), "v is 0");
    let second = Oracle::new(&problem);
    solver.step(&second).unwrap();
    assert_eq!(second.calls(), calls(1, 1, 2, 3, 0));
}

#[test]
fn tables_cost_one_pass_and_then_seven_calls() {
    let problem = FiniteSum::new(vec![1.0; 10], vec![2.0; 10], vec![1.0, 2.0, 3.0]).unwrap();
    let sampling = Sampling { seed: 1, upper: Some(count(2)), lower: Some(count(4)) };
    for (start, pass) in [(TableStart::Pass, 3 + 2 * 2), (TableStart::Zeros, 0)] {
        let config = SabaConfig { sampling, start, ..Default::default() };
        let mut solver = Saba::new(config, vec![0.5], vec![0.1]);
        let oracle = Oracle::new(&problem);
        solver.step(&oracle).unwrap();
        assert_eq!(oracle.calls().total(), pass + 3);
        solver.step(&oracle).unwrap();
        assert_eq!(oracle.calls().total(), pass + 3 + 7);
    }
}

#[test]
fn calls_to_stationarity_are_the_published_ones() {
    let problem = Quadratic::portable();
    let (x, y) = (vec![1.0; 5], vec![0.0; 10]);
    for (epsilon, expected) in [
        (1e-1, [432, 7200]),
        (3e-2, [648, 10800]),
        (1e-2, [837, 13950]),
        (3e-3, [1026, 17100]),
        (1e-3, [1215, 20250]),
    ] {
        let until = |solver: &mut dyn Solver<Quadratic>| {
            let oracle = Oracle::new(&problem);
            let calls = run(solver, &oracle, 1000, |solver, _, _| {
                match problem.hyper_gradient(solver.x()).norm() <= epsilon {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            });
            calls.unwrap()
        };
        let aid = until(&mut Implicit::new(implicit(5, 0.5, 0.5, gradients(8)), x.clone(), y.clone()));
        // Two less: the first step has no v to go on from.
        assert_eq!(aid.total(), expected[0] - 2);
        let config = FiniteDifferenceConfig {
            inner_steps: count(40),
            inner_step: positive(1.0),
            outer_step: positive(0.5),
            ..Default::default()
        };
        let differences = until(&mut FiniteDifference::new(config, x.clone(), y.clone()));
        // The published count has the values of f in it.
        assert_eq!(differences.total() + differences.values, expected[1]);
    }
}
