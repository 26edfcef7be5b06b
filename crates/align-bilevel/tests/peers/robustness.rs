//! Resuming, broken gradients, and settings that are refused.

use super::*;

/// Twenty steps at once equal ten, a round trip through JSON, and ten more, to the last bit.
fn assert_resumes<P, S>(name: &str, problem: &P, make: impl Fn() -> S)
where
    P: Problem<X = Place, Y = Place>,
    S: Solver<P> + Serialize + DeserializeOwned,
{
    let oracle = Oracle::new(problem);
    let mut whole = make();
    go(&mut whole, &oracle, 20).unwrap();
    let mut first = make();
    let part = Oracle::new(problem);
    go(&mut first, &part, 10).unwrap();
    let mut second: S = serde_json::from_str(&serde_json::to_string(&first).unwrap()).unwrap();
    let part = Oracle::resumed(problem, part.calls());
    go(&mut second, &part, 20).unwrap();
    assert_eq!((whole.x(), whole.y()), (second.x(), second.y()), "{name}");
    assert_eq!(oracle.calls(), part.calls(), "{name}");
    assert!(whole.x().distance(make().x()) > 1e-6, "{name} moved");
}

#[test]
fn a_saved_run_goes_on_bit_for_bit() {
    let problem = finite_sum();
    let sampling = Sampling { seed: 9, upper: Some(count(3)), lower: Some(count(5)) };
    let (x, y) = (vec![0.5], vec![0.3]);
    for config in [F2saConfig::f2sa(Noise::Both), F2saConfig::f3sa(Noise::Both)] {
        let config = F2saConfig { sampling, ..config };
        assert_resumes("F2SA", &problem, || {
            F2sa::new(config.clone(), x.clone(), y.clone(), y.clone()).unwrap()
        });
    }
    let config = VPbgdConfig { sampling, ramp: 15, ..Default::default() };
    assert_resumes("V-PBGD", &problem, || VPbgd::new(config.clone(), x.clone(), y.clone()));
    let config = BomeConfig { sampling, ..Default::default() };
    assert_resumes("BOME", &problem, || Bome::new(config.clone(), x.clone(), y.clone()));
    let config = SobaConfig { sampling, ..Default::default() };
    assert_resumes("SOBA", &problem, || Soba::new(config.clone(), x.clone(), y.clone()));
    let config = SabaConfig { sampling, ..Default::default() };
    assert_resumes("SABA", &problem, || Saba::new(config.clone(), x.clone(), y.clone()));
    for config in [ImplicitConfig::aid(), ImplicitConfig::stoc_bio()] {
        let config = ImplicitConfig { sampling, ..config };
        assert_resumes("implicit", &problem, || Implicit::new(config.clone(), x.clone(), y.clone()));
    }
    let config = UnrolledConfig { sampling, ..Default::default() };
    assert_resumes("unrolling", &problem, || Unrolled::new(config.clone(), x.clone(), y.clone()));
    let config = FiniteDifferenceConfig::default();
    assert_resumes("differences", &problem, || FiniteDifference::new(config.clone(), x.clone(), y.clone()));
}

/// The scalar quadratic, whose lower gradient is NaN once x is below a threshold.
struct Broken;

impl Problem for Broken {
    type X = Place;
    type Y = Place;

    fn value(&self, level: Level, x: &Place, y: &Place, sample: &Sample) -> f64 {
        if x[0] < 0.79 { f64::NAN } else { Quadratic::scalar().value(level, x, y, sample) }
    }

    fn gradient_x(&self, level: Level, x: &Place, y: &Place, sample: &Sample) -> Place {
        Quadratic::scalar().gradient_x(level, x, y, sample)
    }

    fn gradient_y(&self, level: Level, x: &Place, y: &Place, sample: &Sample) -> Place {
        if x[0] < 0.79 { vec![f64::NAN] } else { Quadratic::scalar().gradient_y(level, x, y, sample) }
    }
}

#[test]
fn after_a_broken_gradient_the_last_finite_point_is_kept() {
    let mut solvers = all::<Broken>(0.8, 1.6, Sampling::default());
    let config = SabaConfig::default();
    solvers.push(("SABA", Box::new(Saba::new(config, vec![0.8], vec![1.6]))));
    let config = FiniteDifferenceConfig::default();
    solvers.push(("differences", Box::new(FiniteDifference::new(config, vec![0.8], vec![1.6]))));
    for (name, mut solver) in solvers {
        let error = go(solver.as_mut(), &Oracle::new(&Broken), 1000).unwrap_err();
        let at = solver.iterations();
        assert!(matches!(error, BilevelError::NonFinite { outer, .. } if outer == at), "{name}: {error}");
        assert!(at > 0 && solver.x()[0].is_finite() && solver.y()[0].is_finite(), "{name}");
    }
}

#[test]
fn steps_that_are_too_long_end_in_an_error_and_not_in_nan() {
    let problem = Quadratic::scalar();
    let config = SobaConfig { inner_step: constant(0.5), outer_step: constant(50.0), ..Default::default() };
    let mut solver = Soba::new(config, vec![0.8], vec![1.6]);
    let error = go(&mut solver, &Oracle::new(&problem), 10_000).unwrap_err();
    assert!(matches!(error, BilevelError::NonFinite { .. }), "{error}");
    assert!(Solver::<Quadratic>::x(&solver).is_finite() && Solver::<Quadratic>::y(&solver).is_finite());
}

#[test]
fn starts_outside_and_samples_larger_than_the_sum_are_refused() {
    for (name, mut solver) in all::<Boxed>(0.3, 1.25, Sampling::default()) {
        let error = solver.step(&Oracle::new(&Boxed)).unwrap_err();
        assert_eq!(error, BilevelError::Infeasible { which: "y", distance: 0.25 }, "{name}");
    }
    for (name, mut solver) in all::<PlToy>(3.5, 0.0, Sampling::default()) {
        let error = solver.step(&Oracle::new(&PlToy)).unwrap_err();
        assert_eq!(error, BilevelError::Infeasible { which: "x", distance: 0.5 }, "{name}");
    }
    let problem = finite_sum();
    let sampling = Sampling { seed: 0, upper: None, lower: Some(count(31)) };
    for (name, mut solver) in all::<FiniteSum>(0.3, 0.2, sampling) {
        let error = solver.step(&Oracle::new(&problem)).unwrap_err();
        let expected = BilevelError::InvalidCount { name: "the lower batch", least: 1, most: 30, found: 31 };
        assert_eq!(error, expected, "{name}");
    }
}

#[test]
fn settings_say_what_they_do_not_know() {
    let stray = serde_json::from_str::<VPbgdConfig>(r#"{ "gama": 3.0 }"#).unwrap_err().to_string();
    assert!(stray.contains("unknown field `gama`"), "{stray}");
    let range = serde_json::from_str::<SabaConfig>(r#"{ "inner_step": 0.0 }"#).unwrap_err().to_string();
    assert!(range.contains("expected a finite number > 0, found 0"), "{range}");
    let none = serde_json::from_str::<BomeConfig>(r#"{ "inner_steps": 0 }"#).unwrap_err().to_string();
    assert!(none.contains("nonzero"), "{none}");
    let inverse = r#"{ "inverse": { "kind": "neumann_series", "products": 3, "step": 0.2 } }"#;
    let read: ImplicitConfig = serde_json::from_str(inverse).unwrap();
    assert_eq!(read, ImplicitConfig { inverse: series(3, 0.2), ..ImplicitConfig::aid() });
    let law: Power = serde_json::from_str(r#"{ "first": 0.5 }"#).unwrap();
    assert_eq!(law, constant(0.5));
    let law = Power { first: positive(2.0), exponent: Finite::literal(-0.5), offset: positive(10.0) };
    assert_eq!((law.at(0), law.at(30)), (2.0, 1.0));
}
