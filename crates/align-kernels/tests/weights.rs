//! Products with weights, sums, AdamW and norms agree with their compositions.

mod common;

use align_kernels::{AdamWState, AdamWStep, WeightLayout, adamw, add, axpby, linear, plain, square_sums};
use burn::Tensor;
use burn::tensor::{DType, Device};
use common::{ROUNDING, assert_near, check, host, numbers, tensor};

fn matrix(rows: usize, columns: usize, seed: u64) -> Tensor<2> {
    tensor(&numbers(rows * columns, seed), DType::F32, &Device::flex()).reshape([rows, columns])
}

#[test]
fn few_rows_equal_a_matrix_product() {
    // Streamed, multiplied and (the last) left to Burn; odd widths, and enough outputs for several threads.
    for n in [1, 3, 4, 5, 16, 31, 33] {
        for (k, out) in [(1, 1), (7, 3), (64, 70), (131, 1381)] {
            let (x, w) = (matrix(n, k, 1), matrix(k, out, 2));
            let expected = host(x.clone().cast(DType::F64).matmul(w.clone().cast(DType::F64)).flatten(0, 1));
            let turned = w.clone().transpose().reshape([out * k]).reshape([out, k]);
            for (layout, weight) in [(WeightLayout::InOut, w.clone()), (WeightLayout::OutIn, turned)] {
                let found = host(linear(x.clone(), weight, layout).flatten(0, 1));
                // k products of numbers below one, relative to the largest sum: a few roundings of f32.
                assert_near(&format!("{n} × {k} × {out}, {layout:?}"), &found, &expected, 1e-6);
            }
        }
    }
}

#[test]
fn few_rows_read_strided_operands_where_they_lie() {
    let (x, w) = (matrix(70, 9, 1).narrow(0, 3, 6), matrix(140, 70, 2).narrow(1, 2, 6).transpose());
    let expected = host(x.clone().transpose().matmul(w.clone()).flatten(0, 1));
    let found = linear(x.transpose(), w, WeightLayout::InOut);
    assert_near("strided", &host(found.flatten(0, 1)), &expected, 1e-6);
}

#[test]
fn products_have_the_gradients_of_their_composition() {
    for n in [1, 3, 31, 40] {
        for (k, out) in [(1, 1), (7, 3), (33, 70)] {
            let turned = |layout: WeightLayout, x: &[Tensor<1>]| {
                let w = x[1].clone().reshape([k, out]);
                let w = if layout == WeightLayout::InOut { w } else { w.transpose() };
                (x[0].clone().reshape([n, k]), w)
            };
            for layout in [WeightLayout::InOut, WeightLayout::OutIn] {
                let sizes = [n * k, k * out];
                let fused = |x: &[Tensor<1>]| {
                    let (x, w) = turned(layout, x);
                    linear(x, w, layout).reshape([n * out])
                };
                let plain = |x: &[Tensor<1>]| {
                    let (x, w) = turned(WeightLayout::InOut, x);
                    x.matmul(w).reshape([n * out])
                };
                check(&sizes, 1.0, ROUNDING, &fused, &plain);
            }
        }
    }
}

#[test]
fn only_what_is_tracked_gets_a_gradient() {
    for layout in [WeightLayout::InOut, WeightLayout::OutIn] {
        let (x, w) = (matrix(40, 3, 1), matrix(3, 3, 2));
        let tracked = w.clone().autodiff().require_grad();
        let y = linear(x.clone().autodiff(), tracked.clone(), layout);
        let dw = tracked.grad_remove(&mut y.sum().backward()).unwrap();
        // ∂Σy/∂w is the sum of the inputs along the rows, the same for each output.
        let sums = x.clone().sum_dim(0).reshape([3, 1]).expand([3, 3]);
        let expected = if layout == WeightLayout::InOut { sums } else { sums.transpose() };
        assert_near("dw", &host(dw.flatten(0, 1)), &host(expected.flatten(0, 1)), 1e-5);

        let tracked = x.autodiff().require_grad();
        let y = linear(tracked.clone(), w.autodiff(), layout);
        assert!(tracked.grad_remove(&mut y.sum().backward()).is_some());
    }
}

#[test]
fn sums_pass_the_gradient_to_both_sides() {
    for n in [1, 40_001] {
        let plain = |x: &[Tensor<1>]| x[0].clone() + x[1].clone();
        check(&[n, n], 1.0, ROUNDING, &|x| add(x[0].clone(), x[1].clone()), &plain);
        // One tensor on both sides gets the gradient twice.
        check(&[n], 1.0, ROUNDING, &|x| add(x[0].clone(), x[0].clone()), &|x| x[0].clone() + x[0].clone());
    }
}

const STEP: AdamWStep = AdamWStep {
    scale: 0.7,
    beta_1: 0.9,
    beta_2: 0.999,
    epsilon: 1e-8,
    rate: 0.01,
    second_correction: 0.06,
    decay: 0.999,
};

#[test]
fn adamw_equals_its_composition() {
    // One number, less than a vector, several chunks with a rest.
    for n in [1, 13, 40_001] {
        let run = |dtype: DType, step: fn(AdamWState, Tensor<1>, &AdamWStep) -> AdamWState| {
            let make = |seed| tensor(&numbers(n, seed), dtype, &Device::flex());
            let mut state = AdamWState { parameter: make(1), first: make(2), second: make(3).square() };
            for seed in 4..7 {
                state = step(state, make(seed), &STEP);
            }
            [state.parameter, state.first, state.second].map(host)
        };
        let (found, expected) = (run(DType::F32, adamw), run(DType::F64, plain::adamw));
        for (name, (found, expected)) in
            ["parameter", "first", "second"].iter().zip(found.iter().zip(&expected))
        {
            // A dozen roundings a step, three steps; the square root of a small second moment magnifies none of them.
            assert_near(name, found, expected, 3e-6);
        }
    }
}

#[test]
fn adamw_leaves_shared_tensors_alone() {
    let make = |seed| tensor(&numbers(50, seed), DType::F32, &Device::flex());
    let state = AdamWState { parameter: make(1), first: make(2), second: make(3).square() };
    let kept = state.clone();
    let moved = adamw(state, make(4), &STEP);
    assert_eq!(host(kept.parameter), host(make(1)));
    assert_eq!(host(kept.second), host(make(3).square()));
    assert_ne!(host(moved.parameter), host(make(1)));
}

#[test]
fn adamw_updates_a_view_of_a_larger_tensor() {
    let make = |seed| tensor(&numbers(50, seed), DType::F32, &Device::flex());
    let large = make(1);
    let state = AdamWState {
        parameter: large.clone().narrow(0, 10, 20),
        first: make(2).narrow(0, 0, 20),
        second: make(3).square().narrow(0, 30, 20),
    };
    let expected = plain::adamw(state.clone(), make(4).narrow(0, 5, 20), &STEP);
    let found = adamw(state, make(4).narrow(0, 5, 20), &STEP);
    assert_near("parameter", &host(found.parameter), &host(expected.parameter), 1e-6);
    assert_near("second", &host(found.second), &host(expected.second), 1e-6);
    assert_eq!(host(large), host(make(1)));
}

#[test]
fn weighted_sums_equal_their_composition() {
    for n in [1, 13, 40_001] {
        let make = |seed, dtype| tensor(&numbers(n, seed), dtype, &Device::flex());
        let shared = make(1, DType::F32);
        for (a, b) in [(1.0, 0.5), (-0.25, 1.0), (0.9, -0.1)] {
            let found = axpby(a, shared.clone(), b, &make(2, DType::F32));
            let expected = plain::axpby(a, make(1, DType::F64), b, &make(2, DType::F64));
            // Two factors and two products that are rounded, and their sum.
            assert_near("a·x + b·y", &host(found), &host(expected), 3e-7);
        }
        assert_eq!(host(shared), host(make(1, DType::F32)), "a shared tensor is left alone");
    }
    let part = |seed, from| tensor(&numbers(50, seed), DType::F32, &Device::flex()).narrow(0, from, 20);
    let (found, expected) =
        (axpby(2.0, part(1, 10), 3.0, &part(2, 5)), plain::axpby(2.0, part(1, 10), 3.0, &part(2, 5)));
    assert_near("views of larger tensors", &host(found), &host(expected), 3e-7);
}

#[test]
fn square_sums_are_those_of_f64() {
    let values: Vec<Vec<f64>> = [1, 7, 16_385, 50_000].iter().map(|&n| numbers(n, n as u64)).collect();
    let tensors: Vec<_> = values.iter().map(|values| tensor(values, DType::F32, &Device::flex())).collect();
    let found = square_sums(&tensors.iter().collect::<Vec<_>>());
    for (found, values) in found.iter().zip(&values) {
        let expected: f64 = values.iter().map(|x| x * x).sum();
        // Partial sums of at most 512 numbers in f32.
        assert!((found - expected).abs() <= 1e-6 * expected, "{found} vs {expected}");
    }
    assert!(square_sums(&[]).is_empty());
    let odd = tensor(&[1.0, f64::NAN], DType::F32, &Device::flex());
    assert!(square_sums(&[&odd])[0].is_nan());
}
