//! Log-probabilities and entropies from hidden states agree with whole logits.

mod common;

use align_kernels::{HeadOptions, plain, token_log_probs};
use burn::Tensor;
use burn::tensor::{DType, Device, Int};
use common::{Within, assert_near, check, host, numbers, tensor};

/// A log-probability is a difference of sums over V numbers, and its gradient a sum over them.
const WITHIN: Within = Within { value: 2e-6, gradient: 5e-6 };

fn targets(n: usize, v: usize) -> Tensor<1, Int> {
    let targets: Vec<i32> = (0..n).map(|i| ((i * 7919 + 3) % v) as i32).collect();
    Tensor::from_ints(targets.as_slice(), &Device::flex())
}

fn agree([n, e, v]: [usize; 3], biased: bool, options: HeadOptions, scale: f64) {
    let inputs = |x: &[Tensor<1>]| {
        let (hidden, head) = (x[0].clone().reshape([n, e]), x[1].clone().reshape([v, e]));
        (hidden, head, biased.then(|| x[2].clone()))
    };
    let fused = |x: &[Tensor<1>]| {
        let (hidden, head, bias) = inputs(x);
        token_log_probs(hidden, head, bias, targets(n, v), &options)
    };
    let composed = |x: &[Tensor<1>]| {
        let (hidden, head, bias) = inputs(x);
        plain::token_log_probs(hidden, head, bias, targets(n, v), &options)
    };
    let sizes = if biased { vec![n * e, v * e, v] } else { vec![n * e, v * e] };
    check(&sizes, scale, WITHIN, &|x| fused(x).log_probs, &|x| composed(x).log_probs);
    let constants = |dtype| -> Vec<_> {
        let values = |i: usize| numbers(sizes[i], i as u64 + 1).iter().map(|x| x * scale).collect::<Vec<_>>();
        (0..sizes.len()).map(|i| tensor(&values(i), dtype, &Device::flex())).collect()
    };
    let (found, expected) =
        (fused(&constants(DType::F32)).entropies, composed(&constants(DType::F64)).entropies);
    assert_near("entropies", &host(found), &host(expected), WITHIN.value);
}

#[test]
fn log_probs_equal_those_of_whole_logits() {
    let plainly = HeadOptions::default();
    for biased in [false, true] {
        agree([1, 1, 1], biased, plainly, 1.0);
        agree([5, 3, 7], biased, plainly, 1.0);
        agree([33, 24, 101], biased, plainly, 2.0);
        agree([6, 8, 50], biased, HeadOptions { temperature: 0.7, ..plainly }, 2.0);
        agree([6, 8, 50], biased, HeadOptions { softcap: Some(3.0), recompute: true, ..plainly }, 2.0);
        agree(
            [6, 8, 50],
            biased,
            HeadOptions { temperature: 1.3, softcap: Some(3.0), recompute: false },
            2.0,
        );
    }
}

#[test]
fn several_chunks_equal_whole_logits() {
    // 8 Mi logits a chunk: 208 rows of 40 003. Of 500 rows the first two chunks are kept, the third is computed again.
    agree([500, 4, 40_003], false, HeadOptions::default(), 1.0);
}

#[test]
fn certain_and_impossible_targets_stay_finite() {
    let device = Device::flex();
    let hidden = Tensor::<2>::from_floats([[1.0], [1.0]], &device).autodiff().require_grad();
    let head = Tensor::<2>::from_floats([[1000.0], [0.0], [-1000.0]], &device);
    let found = token_log_probs(
        hidden.clone(),
        head,
        None,
        Tensor::from_ints([0, 2], &device),
        &HeadOptions::default(),
    );
    assert_eq!(host(found.log_probs.clone().inner()), [0.0, -2000.0]);
    assert_eq!(host(found.entropies), [0.0, 0.0]);
    // ∂/∂h = head[target] − Σ p·head: 0 for the certain token, −2000 for the impossible one.
    let gradient = hidden.grad(&found.log_probs.sum().backward()).unwrap();
    assert_eq!(host(gradient.reshape([2])), [0.0, -2000.0]);
}

#[test]
fn a_frozen_head_changes_no_other_gradient() {
    let device = Device::flex();
    let hidden = tensor(&numbers(24, 1), DType::F32, &device).autodiff().require_grad();
    let head = tensor(&numbers(44, 2), DType::F32, &device);
    let gradient = |head: Tensor<1>| {
        let (x, head) = (hidden.clone().reshape([6, 4]), head.reshape([11, 4]));
        let found = token_log_probs(x, head, None, targets(6, 11), &HeadOptions::default());
        assert!(!found.entropies.is_autodiff());
        host(hidden.grad(&found.log_probs.sum().backward()).unwrap())
    };
    assert_eq!(gradient(head.clone()), gradient(head.autodiff().require_grad()));
}

#[test]
#[should_panic(expected = "target 5 is outside the vocabulary of 5")]
fn a_target_outside_the_vocabulary_is_refused() {
    let device = Device::flex();
    let (hidden, head) = (Tensor::zeros([1, 2], &device), Tensor::zeros([5, 2], &device));
    token_log_probs(hidden, head, None, Tensor::from_ints([5], &device), &HeadOptions::default());
}
