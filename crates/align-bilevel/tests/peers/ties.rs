//! Lower levels with many minimisers.

use super::*;

#[test]
fn on_ties_inverse_hessians_fail_and_penalties_do_not() {
    // ψ = (x − 1)²/2, or (x − 1)²/3 on `Tied`: both are stationary at 1. The second y is off the line that f likes.
    let (x, y) = (vec![2.5], vec![1.8, 0.4]);
    fn error<P: Problem<X = Place, Y = Place>>(mut solver: impl Solver<P>, problem: &P) -> BilevelError {
        go(&mut solver, &Oracle::new(problem), 50).unwrap_err()
    }
    let aid = || Implicit::new(implicit(20, 0.3, 0.1, gradients(10)), x.clone(), y.clone());
    let singular = error(aid(), &Tied);
    assert!(matches!(singular, BilevelError::SingularHessian { outer: 0, .. }), "{singular}");
    // Where f is constant along the ties, ∇ᵧ f lies in the range of the Hessian to the last bit, and conjugate gradients from 0
    // find the pseudo-inverse. The least noise leaves it.
    assert!((direction(&mut aid(), &TiedUniform, 0.1)[0] - 1.5).abs() < 1e-6);
    let noisy = Noisy::new(TiedUniform, 1e-4, count(1), 0);
    let singular = error(aid(), &noisy);
    assert!(matches!(singular, BilevelError::SingularHessian { outer: 0, .. }), "{singular}");

    // The series and SOBA do not notice; what they have left over says so.
    let residual = |inverse| {
        let mut solver = Implicit::new(implicit(60, 0.3, 1e-9, inverse), x.clone(), y.clone());
        go(&mut solver, &Oracle::new(&Tied), 1).unwrap().residual.unwrap()
    };
    let (short, long) = (residual(series(20, 0.3)), residual(series(2000, 0.3)));
    assert!(short > 0.1 && (short - long).abs() < 1e-6, "{short} {long}");
    let config = SobaConfig { inner_step: constant(0.3), outer_step: constant(1e-9), ..Default::default() };
    let mut soba = Soba::new(config, x.clone(), y.clone());
    let length = |soba: &Soba<Place, Place>| -> f64 {
        let v = serde_json::to_value(soba).unwrap()["at"]["v"].clone();
        serde_json::from_value::<Vec<f64>>(v).unwrap().norm()
    };
    let oracle = Oracle::new(&Tied);
    go(&mut soba, &oracle, 100).unwrap();
    let before = length(&soba);
    go(&mut soba, &oracle, 1000).unwrap();
    assert!((8.0..12.0).contains(&(length(&soba) / before)), "v grows in proportion to the steps");

    // Penalties, with and without the noise.
    let ended = |solver: &mut dyn Solver<TiedUniform>| {
        go(solver, &Oracle::new(&TiedUniform), 4000).unwrap();
        assert!((solver.x()[0] - 1.0).abs() < 1e-6, "{:?}", solver.x());
    };
    let config = F2saConfig { xi: constant(5.0), ..f2sa(10, 0.02, 0.2, steady(10.0)) };
    ended(&mut F2sa::new(config.clone(), x.clone(), y.clone(), y.clone()).unwrap());
    let config_of_gap = VPbgdConfig { inner_step: positive(0.3), ..Default::default() };
    ended(&mut VPbgd::new(config_of_gap, x.clone(), y.clone()));
    let mut solver = F2sa::new(config, x.clone(), y.clone(), y.clone()).unwrap();
    go(&mut solver, &Oracle::new(&noisy), 4000).unwrap();
    assert!((Solver::<Noisy<TiedUniform>>::x(&solver)[0] - 1.0).abs() < 0.01);
}
