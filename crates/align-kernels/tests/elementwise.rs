//! Activations, normalisation and rotary embedding agree with their compositions.

mod common;

use align_kernels::{
    Approximation, RotaryTable, Rotation, geglu, gelu, layer_norm, plain, rms_norm, rope, swiglu, tanh,
};
use burn::Tensor;
use burn::tensor::{Device, Int};
use common::{ROUNDING, Within, check, check_at, flat, host, numbers, tensor};

#[test]
fn gated_units_equal_their_composition() {
    // One element, an odd number, more than one chunk of 4096.
    for n in [1, 105, 9001] {
        for scale in [1.0, 12.0] {
            check(&[n, n], scale, ROUNDING, &|x| swiglu(x[0].clone(), x[1].clone()), &|x| {
                plain::swiglu(x[0].clone(), x[1].clone())
            });
            check(&[n, n], scale, ROUNDING, &|x| geglu(x[0].clone(), x[1].clone()), &|x| {
                plain::geglu(x[0].clone(), x[1].clone())
            });
        }
    }
}

#[test]
fn gelu_equals_its_composition() {
    for approximation in [Approximation::Exact, Approximation::Tanh] {
        for scale in [0.1, 1.0, 12.0] {
            check(&[1001], scale, ROUNDING, &|x| gelu(x[0].clone(), approximation), &|x| {
                plain::gelu(x[0].clone(), approximation)
            });
        }
    }
}

#[test]
fn tanh_equals_its_composition() {
    for n in [1, 1001, 20_001] {
        for scale in [0.1, 1.0, 12.0] {
            check(&[n], scale, ROUNDING, &|x| tanh(x[0].clone()), &|x| plain::tanh(x[0].clone()));
        }
    }
    let ends = tanh(tensor(&[-3e38, -20.0, 0.0, 20.0, 3e38], burn::tensor::DType::F32, &Device::flex()));
    assert_eq!(host(ends), [-1.0, -1.0, 0.0, 1.0, 1.0]);
}

#[test]
fn activations_take_strided_inputs() {
    let turned = |x: &[Tensor<1>]| {
        let gate = x[0].clone().reshape([7, 15]).transpose();
        let up = x[1].clone().reshape([15, 9]).narrow(1, 1, 7);
        (gate, up)
    };
    check(
        &[105, 135],
        1.0,
        ROUNDING,
        &|x| {
            let (gate, up) = turned(x);
            flat(swiglu(gate, up))
        },
        &|x| {
            let (gate, up) = turned(x);
            flat(plain::swiglu(gate, up))
        },
    );
}

#[test]
fn activations_stay_finite_at_extreme_inputs() {
    let extremes = [-3e38, -1e20, -1e4, -88.0, -20.0, 0.0, 20.0, 88.0, 1e4, 1e20, 3e38];
    let device = Device::flex().autodiff();
    type Activation = fn(Tensor<1>) -> Tensor<1>;
    let activations: [Activation; 3] = [
        |x| swiglu(x.clone(), x.ones_like()),
        |x| gelu(x, Approximation::Exact),
        |x| gelu(x, Approximation::Tanh),
    ];
    for activation in activations {
        let x = tensor(&extremes, burn::tensor::DType::F32, &device).require_grad();
        let y = activation(x.clone());
        let value = host(y.clone().inner());
        let slope = host(x.grad(&y.sum().backward()).unwrap());
        // Far out each is the identity or zero, to the last bit.
        for i in 0..3 {
            assert_eq!((value[i].abs(), slope[i].abs()), (0.0, 0.0), "at {}", extremes[i]);
            let last = extremes.len() - 1 - i;
            assert_eq!(
                (value[last], slope[last]),
                (f64::from(extremes[last] as f32), 1.0),
                "at {}",
                extremes[last]
            );
        }
        assert_eq!((value[5], slope[5]), (0.0, 0.5));
    }
}

#[test]
fn normalisations_equal_their_composition() {
    // Below a vector's width, odd, and more rows than one thread takes.
    for [rows, e] in [[1, 2], [3, 7], [5, 64], [75, 130], [130, 256]] {
        for offset in [0.0, 1.0] {
            check(
                &[rows * e, e],
                2.0,
                ROUNDING,
                &|x| flat(rms_norm(x[0].clone().reshape([1, rows, e]), x[1].clone(), 1e-5, offset)),
                &|x| flat(plain::rms_norm(x[0].clone().reshape([1, rows, e]), x[1].clone(), 1e-5, offset)),
            );
        }
        if e == 2 {
            continue; // two centred numbers are ±1 whatever they were; the gradient is all cancellation
        }
        check(
            &[rows * e, e, e],
            2.0,
            ROUNDING,
            &|x| flat(layer_norm(x[0].clone().reshape([rows, e]), x[1].clone(), Some(x[2].clone()), 1e-5)),
            &|x| {
                flat(plain::layer_norm(
                    x[0].clone().reshape([rows, e]),
                    x[1].clone(),
                    Some(x[2].clone()),
                    1e-5,
                ))
            },
        );
        check(
            &[rows * e, e],
            2.0,
            ROUNDING,
            &|x| flat(layer_norm(x[0].clone().reshape([rows, e]), x[1].clone(), None, 1e-5)),
            &|x| flat(plain::layer_norm(x[0].clone().reshape([rows, e]), x[1].clone(), None, 1e-5)),
        );
    }
}

#[test]
fn normalisation_takes_heads_and_strides() {
    let heads = |x: &Tensor<1>| x.clone().reshape([2, 5, 3, 16]).swap_dims(1, 2);
    check(&[480, 16], 1.0, ROUNDING, &|x| flat(rms_norm(heads(&x[0]), x[1].clone(), 1e-6, 0.0)), &|x| {
        flat(plain::rms_norm(heads(&x[0]), x[1].clone(), 1e-6, 0.0))
    });
}

#[test]
fn a_row_of_zeros_normalises_to_zero_with_a_finite_gradient() {
    let mut inputs = vec![vec![0.0; 32], numbers(16, 1)];
    inputs[0][16..].copy_from_slice(&numbers(16, 2));
    let within = Within { value: 1e-6, gradient: 2e-6 };
    check_at(
        &inputs,
        within,
        &|x| flat(rms_norm(x[0].clone().reshape([2, 16]), x[1].clone(), 1e-3, 0.0)),
        &|x| flat(plain::rms_norm(x[0].clone().reshape([2, 16]), x[1].clone(), 1e-3, 0.0)),
    );
}

#[test]
fn a_frozen_weight_gets_no_gradient_and_changes_none() {
    let device = Device::flex().autodiff();
    let x = tensor(&numbers(64, 1), burn::tensor::DType::F32, &device).require_grad();
    let weight = tensor(&numbers(16, 2), burn::tensor::DType::F32, &Device::flex());
    let gradient = |weight: Tensor<1>| {
        let y = rms_norm(x.clone().reshape([4, 16]), weight, 1e-5, 0.0);
        host(x.grad(&(y.clone() * y).sum().backward()).unwrap())
    };
    assert_eq!(gradient(weight.clone()), gradient(weight.autodiff().require_grad()));
}

fn rotation(positions: &[[i32; 5]], rotated: usize, x: &Tensor<1>) -> Rotation {
    let device = Device::flex();
    let frequencies: Vec<f32> =
        (0..rotated / 2).map(|i| 1e4_f32.powf(-2.0 * i as f32 / rotated as f32)).collect();
    let table = RotaryTable::new(&frequencies, 64, 1.0, &device);
    assert_eq!((table.positions(), table.rotated()), (64, rotated));
    let rows = positions.len();
    let flat: Vec<i32> = positions.iter().flatten().copied().collect();
    let positions = Tensor::<1, Int>::from_ints(flat.as_slice(), &device).reshape([rows, 5]);
    let rotation = table.at(&positions);
    // The f64 composition turns by the same f32 angles.
    rotation.cast(x.dtype())
}

#[test]
fn rope_equals_its_composition_for_rows_with_their_own_positions() {
    for (positions, rotated) in [
        (vec![[0, 0, 0, 1, 2], [0, 1, 2, 3, 40]], 8),
        (vec![[3, 4, 5, 6, 7]], 8),
        (vec![[9, 9, 1, 0, 63]], 4),
    ] {
        for token_major in [false, true] {
            let heads = |x: &Tensor<1>| match token_major {
                true => x.clone().reshape([2, 5, 3, 8]).swap_dims(1, 2),
                false => x.clone().reshape([2, 3, 5, 8]),
            };
            check(
                &[240],
                1.0,
                ROUNDING,
                &|x| flat(rope(heads(&x[0]), &rotation(&positions, rotated, &x[0]))),
                &|x| flat(plain::rope(heads(&x[0]), &rotation(&positions, rotated, &x[0]))),
            );
        }
    }
}

#[test]
fn rope_pairs_the_halves_as_transformers_does() {
    // D = 4 at position 1 with ω = (1, 0.01): (x₀, x₂) turn by 1 rad, (x₁, x₃) by 0.01 rad.
    let device = Device::flex();
    let table = RotaryTable::new(&[1.0, 0.01], 2, 1.0, &device);
    let angles = table.at(&Tensor::from_ints([[1]], &device));
    let x = Tensor::<1>::from_floats([1.0, 0.0, 0.0, 1.0], &device).reshape([1, 1, 1, 4]);
    let (one, hundredth) = (1.0_f64, 0.01_f64);
    let expected = [one.cos(), -hundredth.sin(), one.sin(), hundredth.cos()];
    common::assert_near("rope", &host(flat(rope(x, &angles))), &expected, 1e-7); // one rounding
}

#[test]
#[should_panic(expected = "expected a last dimension of 3 as the weight has")]
fn a_weight_of_another_width_is_refused() {
    let device = Device::flex();
    rms_norm(Tensor::<2>::zeros([2, 4], &device), Tensor::zeros([3], &device), 1e-5, 0.0);
}
