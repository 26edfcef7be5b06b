//! Compares a fused operation in f32 with the plain composition in f64: values, gradients, and the slope along a line.

#![allow(dead_code)]

use align_kernels::is_fused;
use burn::Tensor;
use burn::tensor::{DType, Device, TensorData};

/// Numbers in [−1, 1) from a counter: the same everywhere, whatever else draws.
pub(crate) fn numbers(n: usize, seed: u64) -> Vec<f64> {
    (0..n as u64)
        .map(|i| {
            let mut x =
                (i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ seed.wrapping_mul(0xD1B5_4A32_D192_ED03);
            x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            // 24 bits, so that f32 holds the number exactly and both precisions start from the same point.
            ((x ^ (x >> 31)) >> 40) as f64 / (1 << 23) as f64 - 1.0
        })
        .collect()
}

pub(crate) fn tensor(values: &[f64], dtype: DType, device: &Device) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]).convert_dtype(dtype), (device, dtype))
}

pub(crate) fn host(tensor: Tensor<1>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

/// An operation on flat inputs that it reshapes, giving a flat output.
pub(crate) type Operation<'a> = &'a dyn Fn(&[Tensor<1>]) -> Tensor<1>;

/// Bounds relative to the largest value compared.
#[derive(Clone, Copy)]
pub(crate) struct Within {
    pub(crate) value: f64,
    pub(crate) gradient: f64,
}

/// f32 rounds at 6e-8; a value passes a dozen roundings and a gradient a sum of products on top.
pub(crate) const ROUNDING: Within = Within { value: 1e-6, gradient: 2e-6 };

struct Run {
    value: Vec<f64>,
    gradients: Vec<Vec<f64>>,
}

fn run(inputs: &[Vec<f64>], cotangent: &[f64], dtype: DType, operation: Operation) -> Run {
    let device = Device::flex().autodiff();
    let leaves: Vec<_> = inputs.iter().map(|input| tensor(input, dtype, &device).require_grad()).collect();
    assert_eq!(
        is_fused(&leaves[0]),
        dtype == DType::F32,
        "the comparison must be between kernel and composition"
    );
    let y = operation(&leaves);
    let value = host(y.clone().inner());
    let mut grads = (y * tensor(cotangent, dtype, &Device::flex())).sum().backward();
    let gradients =
        leaves.iter().map(|leaf| leaf.grad_remove(&mut grads).map_or_else(Vec::new, host)).collect();
    Run { value, gradients }
}

pub(crate) fn assert_near(name: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{name}: length");
    let size = expected.iter().fold(1e-30_f64, |size, x| size.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs();
        assert!(
            error <= tolerance * size,
            "{name}[{i}]: found {found}, expected {expected}, off by {error:e} > {tolerance:e} · {size}"
        );
    }
}

/// Checks `fused` in f32 against `plain` in f64 at the given inputs.
///
/// The gradient of each input is also multiplied with a direction and compared with the central difference of the f64 composition
/// along it, which knows nothing of autodiff; its own error is below 1e-8.
pub(crate) fn check_at(inputs: &[Vec<f64>], within: Within, fused: Operation, plain: Operation) {
    let device = Device::flex();
    let constants = |inputs: &[Vec<f64>], dtype| -> Vec<_> {
        inputs.iter().map(|input| tensor(input, dtype, &device)).collect()
    };
    let unrecorded = host(fused(&constants(inputs, DType::F32)));
    let cotangent = numbers(unrecorded.len(), 99);
    let ours = run(inputs, &cotangent, DType::F32, fused);
    let theirs = run(inputs, &cotangent, DType::F64, plain);
    assert_eq!(ours.value, unrecorded, "recording must not change the value");
    assert_near("value", &ours.value, &theirs.value, within.value);
    for (i, (found, expected)) in ours.gradients.iter().zip(&theirs.gradients).enumerate() {
        assert_near(&format!("gradient {i}"), found, expected, within.gradient);
        if found.is_empty() {
            continue;
        }
        let direction = numbers(inputs[i].len(), 7 + i as u64);
        let step = 1e-5;
        let loss = |sign: f64| -> f64 {
            let mut inputs = inputs.to_vec();
            inputs[i].iter_mut().zip(&direction).for_each(|(x, d)| *x += sign * step * d);
            host(plain(&constants(&inputs, DType::F64))).iter().zip(&cotangent).map(|(y, c)| y * c).sum()
        };
        let slope = (loss(1.0) - loss(-1.0)) / (2.0 * step);
        let along: f64 = found.iter().zip(&direction).map(|(g, d)| g * d).sum();
        let size: f64 = found.iter().zip(&direction).map(|(g, d)| (g * d).abs()).sum();
        assert!(
            (slope - along).abs() <= 1e-5 * size + 1e-7,
            "input {i}: the gradient says {along} along the direction, differences say {slope}"
        );
    }
}

/// [`check_at`] at numbers in [−scale, scale).
pub(crate) fn check(sizes: &[usize], scale: f64, within: Within, fused: Operation, plain: Operation) {
    let inputs: Vec<Vec<f64>> = sizes
        .iter()
        .enumerate()
        .map(|(i, &n)| numbers(n, i as u64 + 1).into_iter().map(|x| x * scale).collect())
        .collect();
    check_at(&inputs, within, fused, plain);
}

pub(crate) fn flat<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let n = tensor.shape().num_elements();
    tensor.reshape([n])
}
