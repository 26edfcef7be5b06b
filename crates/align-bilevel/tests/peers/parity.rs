//! The same iterates as the solvers of the public benchmark_bilevel, in jax.

use super::*;

/// Where a solver of the benchmark was after some step.
#[derive(serde::Deserialize)]
struct Seen {
    step: u64,
    x: Vec<f64>,
}

fn seen(name: &str) -> Vec<Seen> {
    let text = include_str!("../fixtures/benchmark_bilevel.json");
    let fixture: serde_json::Value = serde_json::from_str(text).unwrap();
    serde_json::from_value(fixture["cases"][name].clone()).unwrap()
}

fn assert_follows(name: &str, solver: &mut dyn Solver<Quadratic>, tolerance: f64) {
    let problem = Quadratic::portable();
    let oracle = Oracle::new(&problem);
    for Seen { step, x } in seen(name) {
        go(solver, &oracle, step).unwrap();
        assert!(solver.x().distance(&x) < tolerance, "{name} after {step} steps: {:?} vs {x:?}", solver.x());
    }
}

#[test]
fn the_public_benchmark_takes_the_same_steps() {
    let (x, y) = (vec![1.0; 5], vec![0.0; 10]);
    // Roundings in f64 over 40 steps; theirs begin with x in f64 too.
    let rounding = 1e-12;
    // The benchmark's step of x decays like k^(−4/7), that of y like k^(−5/7): ξ makes up for it. Its increments of λ decay like
    // k^(−1/7), and small ones leave αλ ≤ γ.
    let config = F2saConfig {
        inner_steps: count(5),
        alpha: power(0.1, -5.0 / 7.0),
        gamma: power(0.1, -4.0 / 7.0),
        xi: power(2.0, 1.0 / 7.0),
        multiplier: Multiplier::Additive {
            first: positive(1.0),
            increment: NonNegative::literal(0.01),
            decay: NonNegative::try_from(1.0 / 7.0).unwrap(),
        },
        ..f2sa(5, 0.1, 0.1, steady(1.0))
    };
    let mut solver = F2sa::new(config, x.clone(), y.clone(), y.clone()).unwrap();
    assert_follows("f2sa", &mut solver, rounding);

    let config = BomeConfig {
        inner_steps: count(10),
        inner_step: positive(0.3),
        outer_step: positive(0.15),
        joint_step: positive(0.3),
        ..Default::default()
    };
    assert_follows("bome", &mut Bome::new(config, x.clone(), y.clone()), rounding);

    // Theirs have exact products; ours differ by 2e-11 of a vector of length 1 or so a step.
    let differences = 1e-9;
    let config = SobaConfig {
        inner_step: power(0.5, -0.5),
        outer_step: power(0.25, -0.5),
        sampling: Sampling::default(),
    };
    assert_follows("soba", &mut Soba::new(config, x.clone(), y.clone()), differences);
    let config = SabaConfig {
        inner_step: positive(0.5),
        outer_step: positive(0.25),
        start: TableStart::Zeros,
        sampling: Sampling::default(),
    };
    assert_follows("saba", &mut Saba::new(config, x.clone(), y.clone()), differences);
    let config = implicit(3, 0.5, 0.25, series(7, 0.5));
    assert_follows("stocbio", &mut Implicit::new(config, x, y), differences);
}
