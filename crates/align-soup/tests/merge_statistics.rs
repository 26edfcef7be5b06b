//! What DARE and DELLA keep, on average. Seeds are fixed; five standard errors is under one false alarm in a million.

mod common;

use align_soup::merge::{MergeParameters, Method, Parameter, merge_modules};
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use common::{floats, net, param};

const N: usize = 40_000;

fn drop_and_add(method: Method, density: f64, rescale: bool) -> MergeParameters {
    MergeParameters::new(method, 1)
        .with(Parameter::Weight, 1.0)
        .and_then(|parameters| parameters.with(Parameter::Density, density))
        .and_then(|parameters| parameters.with(Parameter::Rescale, rescale))
        .unwrap()
}

fn merge<M: Module>(base: &M, model: M, parameters: &MergeParameters, seed: u64) -> Vec<f64> {
    floats(&merge_modules(Some(base), &[model], parameters, seed).unwrap().module)
}

fn zeros() -> Param<Tensor<1>> {
    param(&vec![0.0; N], [N])
}

fn ones() -> Param<Tensor<1>> {
    param(&vec![1.0; N], [N])
}

#[test]
fn dare_keeps_a_share_of_density() {
    for density in [0.1, 0.5, 0.9] {
        let merged = merge(&zeros(), ones(), &drop_and_add(Method::DareLinear, density, false), 5);
        assert!(merged.iter().all(|value| *value == 0.0 || *value == 1.0));
        let kept = merged.iter().sum::<f64>() / N as f64;
        let standard_error = (density * (1.0 - density) / N as f64).sqrt();
        assert!((kept - density).abs() < 5.0 * standard_error, "{kept} for {density}");
    }
}

#[test]
fn dare_rescales_to_the_norm_it_found() {
    let merged = merge(&zeros(), ones(), &drop_and_add(Method::DareLinear, 0.25, true), 5);
    let kept: Vec<f64> = merged.into_iter().filter(|value| *value != 0.0).collect();
    // Σ|δ| = N is restored, so each of the kept is N over their number, near 1/density.
    assert!(kept.iter().all(|value| (value - N as f64 / kept.len() as f64).abs() < 1e-9));
    assert!((kept[0] - 4.0).abs() < 5.0 * 4.0 * (0.75 / 0.25 / N as f64).sqrt(), "{}", kept[0]);
}

#[test]
fn dare_is_unbiased_at_every_position() {
    // A [400, 100] tensor whose rows are equal: the mean over rows of what is merged is δ on average.
    let delta: Vec<f64> = (0..100).map(|at| f64::from(at) / 50.0 - 1.0).collect();
    let rows: Vec<f64> = (0..400).flat_map(|_| delta.clone()).collect();
    let base: Param<Tensor<2>> = param(&vec![0.0; N], [400, 100]);
    let merged = merge(&base, param(&rows, [400, 100]), &drop_and_add(Method::DareLinear, 0.5, true), 9);
    for (at, delta) in delta.iter().enumerate() {
        let mean = (0..400).map(|row| merged[row * 100 + at]).sum::<f64>() / 400.0;
        // Each term is 0 or about 2δ: variance δ² of a term.
        let standard_error = delta.abs() / 20.0;
        assert!((mean - delta).abs() <= 5.0 * standard_error, "[{at}] {mean} for {delta}");
    }
}

#[test]
fn draws_of_seeds_models_and_tensors_are_unrelated() {
    let parameters = drop_and_add(Method::DareLinear, 0.5, false);
    let first = merge(&zeros(), ones(), &parameters, 1);
    assert_eq!(first, merge(&zeros(), ones(), &parameters, 1));
    let agree =
        |a: &[f64], b: &[f64]| a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64;
    let unrelated = |a: &[f64], b: &[f64]| (agree(a, b) - 0.5).abs() < 5.0 * 0.5 / (a.len() as f64).sqrt();
    assert!(unrelated(&first, &merge(&zeros(), ones(), &parameters, 2)));
    // Neighbours in one tensor.
    assert!(unrelated(&first[1..], &first[..N - 1]));

    // Two models with changes 1 and 2 show both masks in one merge.
    let two = MergeParameters::new(Method::DareLinear, 2)
        .with(Parameter::Weight, 1.0)
        .and_then(|parameters| parameters.with(Parameter::Density, 0.5))
        .and_then(|parameters| parameters.with(Parameter::Rescale, false))
        .unwrap();
    let doubled = param(&vec![2.0; N], [N]);
    let both = floats(&merge_modules(Some(&zeros()), &[ones(), doubled], &two, 1).unwrap().module);
    let masks: [Vec<f64>; 2] =
        [1.0, 2.0].map(|bit| both.iter().map(|sum| ((sum / bit) as u32 % 2).into()).collect());
    assert_eq!(masks[0], first);
    assert!(unrelated(&masks[0], &masks[1]));

    // Two tensors of one module: 64 draws each over 200 seeds.
    let (mut weights, mut biases) = (Vec::new(), Vec::new());
    for seed in 0..2000 {
        let merged = merge(&net([0.0; 4], &[0.0; 4]), net([1.0; 4], &[1.0; 4]), &parameters, seed);
        weights.extend_from_slice(&merged[..4]);
        biases.extend_from_slice(&merged[4..]);
    }
    assert!(unrelated(&weights, &biases));
}

#[test]
fn della_keeps_the_larger_the_likelier() {
    // 4000 equal rows of ten magnitudes, each drawn on its own. Ranks 0..9 of |δ| from density − ε to density + ε.
    const ROWS: usize = 4000;
    let delta = [0.5, -3.0, 1.0, 4.0, -0.1, 2.0, -5.0, 0.7, 6.0, -1.5];
    let ranks = [1, 6, 3, 7, 0, 5, 8, 2, 9, 4];
    let (density, epsilon) = (0.6, 0.3);
    let parameters =
        drop_and_add(Method::DellaLinear, density, false).with(Parameter::Epsilon, epsilon).unwrap();
    let rows: Vec<f64> = (0..ROWS).flat_map(|_| delta).collect();
    let base: Param<Tensor<2>> = param(&vec![0.0; rows.len()], [ROWS, 10]);
    let merged = merge(&base, param(&rows, [ROWS, 10]), &parameters, 4);
    let mut overall = 0.0;
    for (at, rank) in ranks.into_iter().enumerate() {
        let kept = (0..ROWS).filter(|row| merged[row * 10 + at] != 0.0).count() as f64 / ROWS as f64;
        let expected = density - epsilon + f64::from(rank) / 9.0 * 2.0 * epsilon;
        let standard_error = (expected * (1.0 - expected) / ROWS as f64).sqrt();
        assert!((kept - expected).abs() < 5.0 * standard_error, "rank {rank}: {kept} for {expected}");
        overall += kept / 10.0;
    }
    assert!((overall - density).abs() < 5.0 * 0.5 / (10.0 * ROWS as f64).sqrt(), "{overall}");
}

#[test]
fn della_without_spread_is_dare() {
    let model: Vec<f64> = (0..N).map(|at| f64::from(at as u32 % 97) + 1.0).collect();
    let della = drop_and_add(Method::DellaLinear, 0.4, true).with(Parameter::Epsilon, 0.0).unwrap();
    let dare = drop_and_add(Method::DareLinear, 0.4, true);
    assert_eq!(merge(&zeros(), param(&model, [N]), &della, 8), merge(&zeros(), param(&model, [N]), &dare, 8));
}
