//! Momentum, schedules and the conditions of F2SA.

use super::*;

#[test]
fn without_noise_momentum_changes_nothing() {
    // e(now) = d(now) + (1 − η)(e(before) − d(before)), and the bracket is 0 from the first step on, whatever λ does.
    let problem = Quadratic::portable();
    let ended = |momentum| {
        let config = F2saConfig { inner_steps: count(3), momentum, ..F2saConfig::f2sa(Noise::Both) };
        let mut solver = F2sa::new(config, vec![1.0; 5], vec![0.0; 10], vec![0.0; 10]).unwrap();
        go(&mut solver, &Oracle::new(&problem), 100).unwrap();
        Solver::<Quadratic>::x(&solver).clone()
    };
    let (plain, moving) = (ended(None), ended(Some(power(1.0, -0.8))));
    assert!(plain.distance(&moving) < 1e-12, "roundings, times λ = 20");
    assert!(plain.distance(&vec![1.0; 5]) > 0.02, "it moved");
}

#[test]
fn with_noise_momentum_averages_it() {
    // x and the inner variables are held still by tiny steps; what is reported is the estimate of ∇ₓ f + λ(…), of which the
    // noise is that of ∇ₓ f, 0.5 in each of five coordinates. With η = 1/10 the variance is η/(2 − η) = 1/19 of a fresh one's.
    let problem = Noisy::new(Quadratic::portable(), 0.5, count(1), 0);
    let excess = |momentum| {
        let tiny = 1e-12;
        let config = F2saConfig { momentum, ..f2sa(1, tiny, tiny, steady(1.0)) };
        let y = problem.mean().solution(&[1.0; 5]);
        let mut solver = F2sa::new(config, vec![1.0; 5], y.clone(), y).unwrap();
        let (oracle, mut squares) = (Oracle::new(&problem), Vec::new());
        run(&mut solver, &oracle, 4000, |_, step, _| {
            if step.iteration >= 100 {
                squares.push(step.gradient_norm.powi(2));
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        let mean =
            problem.gradient_x(Level::Upper, &vec![1.0; 5], &vec![0.0; 10], &Sample::full()).norm().powi(2);
        squares.iter().sum::<f64>() / squares.len() as f64 - mean
    };
    // Fresh: 5 · 0.25, of which 3900 draws know the mean to 2.5 %. With momentum the errors of neighbours agree over ten steps
    // or so.
    let (fresh, averaged) = (excess(None), excess(Some(constant(0.1))));
    assert!((fresh / 1.25 - 1.0).abs() < 0.1, "{fresh}");
    assert!((0.5..2.0).contains(&(averaged / (1.25 / 19.0))), "{averaged}");
}

#[test]
fn the_condition_on_step_sizes_is_enforced() {
    let problem = Quadratic::scalar();
    let oracle = Oracle::new(&problem);
    let growing = Multiplier::Additive {
        first: positive(1.0),
        increment: NonNegative::literal(0.1),
        decay: NonNegative::try_from(1.0 / 7.0).unwrap(),
    };
    let config = F2saConfig {
        alpha: power(0.01, -5.0 / 7.0),
        gamma: power(0.01, -4.0 / 7.0),
        ..f2sa(10, 0.01, 0.01, growing)
    };
    let mut solver = F2sa::new(config.clone(), vec![0.5], vec![0.0], vec![0.0]).unwrap();
    let mut shortened = 0;
    for _ in 0..2000 {
        let free = config.alpha.at(Solver::<Quadratic>::iterations(&solver));
        assert!(solver.alpha() * solver.multiplier() <= solver.gamma() * (1.0 + 1e-15));
        shortened += usize::from(solver.alpha() < free);
        solver.step(&oracle).unwrap();
    }
    assert!(shortened > 1000, "increments of k^(−1/7) make λ outgrow the condition: {shortened}");
    // Σ 0.1 (k + 1)^(−1/7) over 2000 steps is 0.1 · 7/6 · 2000^(6/7), to the first term.
    let expected = 1.0 + 0.1 * 7.0 / 6.0 * 2000f64.powf(6.0 / 7.0);
    assert!((solver.multiplier() - expected).abs() < 0.1, "{} vs {expected}", solver.multiplier());
    // The theory's schedules keep it by themselves.
    for noise in [Noise::Both, Noise::UpperOnly, Noise::None] {
        for (momentum, config) in [(false, F2saConfig::f2sa(noise)), (true, F2saConfig::f3sa(noise))] {
            let Multiplier::Power { law } = config.multiplier else { panic!("a power law") };
            for step in [0, 10, 100_000] {
                let [alpha, gamma, lambda] = [config.alpha, config.gamma, law].map(|law| law.at(step));
                assert!(alpha * lambda <= gamma * (1.0 + 1e-12), "{noise:?} {momentum} {step}");
            }
            assert_eq!(config.momentum.is_some(), momentum);
        }
    }
}

#[test]
fn a_multiplier_that_the_theory_finds_too_small_is_refused() {
    let constants = Some(LowerConstants { upper_smoothness: positive(1.0), lower_convexity: positive(0.25) });
    let start = || (vec![0.5], vec![0.0], vec![0.0]);
    let make = |config| {
        let (x, y, z) = start();
        F2sa::new(config, x, y, z)
    };
    let config = F2saConfig { constants, ..f2sa(1, 0.01, 0.1, steady(7.9)) };
    let refused = make(config.clone()).unwrap_err();
    assert_eq!(refused.to_string(), "InvalidMultiplier: lambda must begin at 8 or more, got 7.9");
    assert!(make(F2saConfig { multiplier: steady(8.0), ..config.clone() }).is_ok());
    assert!(make(F2saConfig { constants: None, ..config.clone() }).is_ok());
    for momentum in [constant(1.5), power(0.5, 0.1)] {
        let refused =
            make(F2saConfig { momentum: Some(momentum), constants: None, ..config.clone() }).unwrap_err();
        assert!(matches!(refused, BilevelError::InvalidWeight { name: "eta", .. }), "{refused}");
    }
}
