//! Iterates worked out by hand.

use super::*;

#[test]
fn two_iterations_of_f2sa_by_hand() {
    let problem = Quadratic::scalar().with_outer_term(OuterTerm::Squares { weight: 0.1 });
    let oracle = Oracle::new(&problem);
    let growing = Multiplier::Additive {
        first: positive(2.0),
        increment: NonNegative::literal(0.5),
        decay: NonNegative::literal(0.0),
    };
    let mut solver = F2sa::new(f2sa(2, 0.1, 0.3, growing), vec![0.5], vec![0.0], vec![0.2]).unwrap();
    for (z, norm, x, multiplier) in [(0.608, 0.442, 0.4558, 2.5), (0.762836, 0.07721, 0.448079, 3.0)] {
        let step = solver.step(&oracle).unwrap();
        let at: &dyn Solver<Quadratic> = &solver;
        // A few roundings of numbers of order 1.
        for (found, expected) in
            [(at.y()[0], z), (step.gradient_norm, norm), (at.x()[0], x), (solver.multiplier(), multiplier)]
        {
            assert!((found - expected).abs() < 1e-14, "{found} vs {expected}");
        }
    }
    let state: serde_json::Value = serde_json::to_value(&solver).unwrap();
    assert!((state["at"]["penalized"][0].as_f64().unwrap() - 0.75651).abs() < 1e-14);
    assert_eq!(oracle.calls().total(), 2 * (3 * 2 + 3));
}

#[test]
fn the_multiplier_of_bome_by_hand() {
    let gap = [0.5, 0.25];
    for (upper, expected, along) in [([1.0, -2.0], 0.5, [1.25, -1.875]), ([-1.0, -2.0], 3.7, [0.85, -1.075])]
    {
        let dot = |a: [f64; 2], b: [f64; 2]| a[0] * b[0] + a[1] * b[1];
        let squared = dot(gap, gap);
        let found = bome_multiplier(0.5 * squared, dot(upper, gap), squared);
        assert!((found - expected).abs() < 1e-14);
        for (i, along) in along.into_iter().enumerate() {
            assert!((upper[i] + found * gap[i] - along).abs() < 1e-14);
        }
    }
    assert_eq!(bome_multiplier(0.0, 1.0, 0.0), 0.0, "nothing to divide by where the gap is closed");
    assert_eq!(bome_multiplier(0.1, 1.0, 0.5), 0.0, "never negative");
}

#[test]
fn one_step_of_bome_by_hand() {
    // f = (y − 1)²/2, g = (y − 2x)²/2 at x = 0.5, y = 0, T = 1 of size 0.5: y_T = 0.5. ∇q = (−2(y − y_T), y − 2x) = (1, −1), ∇f =
    // (0, −1): λ = (0.5·2 − 1)/2 = 0 and only y moves. With η = 2, λ = (4 − 1)/2 = 1.5 and the direction is (1.5, −2.5).
    let problem = Quadratic::scalar();
    for (eta, expected) in [(0.5, [0.5, 0.1]), (2.0, [0.35, 0.25])] {
        let config = BomeConfig {
            inner_steps: count(1),
            inner_step: positive(0.5),
            eta: positive(eta),
            ..Default::default()
        };
        let mut solver = Bome::new(config, vec![0.5], vec![0.0]);
        solver.step(&Oracle::new(&problem)).unwrap();
        let at: &dyn Solver<Quadratic> = &solver;
        assert!((at.x()[0] - expected[0]).abs() < 1e-14 && (at.y()[0] - expected[1]).abs() < 1e-14);
    }
    // q = (1 − 0.25)/2 = 0.375 in the place of ‖∇q‖² = 2: with η = 8, φ = 3 and λ = (3 − 1)/2 = 1.
    let config = BomeConfig {
        inner_steps: count(1),
        inner_step: positive(0.5),
        eta: positive(8.0),
        control: Control::Gap,
        ..Default::default()
    };
    let mut solver = Bome::new(config, vec![0.5], vec![0.0]);
    solver.step(&Oracle::new(&problem)).unwrap();
    assert!((Solver::<Quadratic>::x(&solver)[0] - 0.4).abs() < 1e-14);
}

#[test]
fn one_step_of_the_value_gap_by_hand() {
    // At x = 0.5, y = 0: ŷ = 0 + 0.5·1 = 0.5 after one inner step of 0.5; with γ = 4, ∇ₓ = 4·(−2)(0 − 0.5) = 4 and ∇ᵧ = −1 +
    // 4·(−1) = −5, both times 0.1 · 1/4. At γ = 0.5 the factor is 1: 0.5 and −1.5, times 0.1.
    let problem = Quadratic::scalar();
    for (gamma, x, y, norm) in [(4.0, 0.4, 0.125, 4.0), (0.5, 0.45, 0.15, 0.5)] {
        let config = VPbgdConfig { inner_step: positive(0.5), gamma: positive(gamma), ..Default::default() };
        let mut solver = VPbgd::new(config, vec![0.5], vec![0.0]);
        let step = solver.step(&Oracle::new(&problem)).unwrap();
        let at: &dyn Solver<Quadratic> = &solver;
        assert!((at.x()[0] - x).abs() < 1e-14 && (at.y()[0] - y).abs() < 1e-14);
        assert!((step.gradient_norm - norm).abs() < 1e-14);
        assert_eq!(step.sigma, Some(1.0 / gamma));
    }
    // The ramp: γ is 0 at first, and then a quarter, a half, ... of 4.
    let config = VPbgdConfig { gamma: positive(4.0), ramp: 4, ..Default::default() };
    let mut solver = VPbgd::new(config, vec![0.5], vec![0.0]);
    let oracle = Oracle::new(&problem);
    let sigmas: Vec<_> = (0..6).map(|_| solver.step(&oracle).unwrap().sigma).collect();
    assert_eq!(sigmas, [None, Some(1.0), Some(0.5), Some(1.0 / 3.0), Some(0.25), Some(0.25)]);
}
