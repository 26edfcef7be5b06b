//! How much faster are the fused operations than their plain compositions, each way, at the sizes of the small model?
//!
//! Hidden 512, 8 heads of 64, FFN 1376, batch 8 × 256, vocabulary 8192: `cargo bench --bench kernels`. Recorded in docs/performance.md.

use std::hint::black_box;
use std::time::Duration;

use align_kernels::{
    AttentionOptions, HeadOptions, KeyValueCache, RotaryTable, attention, cache_attention, layer_norm, plain,
    rms_norm, rope, swiglu, token_log_probs,
};
use burn::Tensor;
use burn::tensor::{Device, Int, TensorData};
use criterion::{Criterion, criterion_group, criterion_main};

const B: usize = 8;
const T: usize = 256;
const E: usize = 512;
const H: usize = 8;
const F: usize = 1376;
const V: usize = 8192;

/// Numbers in [−1, 1), the same in each run.
fn numbers<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let n: usize = shape.iter().product();
    let value = |i: u64| ((i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32) / (1 << 23) as f32 - 1.0;
    Tensor::from_data(TensorData::new((0..n as u64).map(value).collect::<Vec<_>>(), shape), device)
}

/// An operation of a name.
type Operation<'a, const D: usize, const O: usize> = (&'a str, &'a dyn Fn(&[Tensor<D>]) -> Tensor<O>);

/// Times an operation alone and with its backward pass.
fn both_ways<const D: usize, const O: usize>(
    c: &mut Criterion,
    name: &str,
    shapes: &[[usize; D]],
    operations: [Operation<'_, D, O>; 2],
) {
    let mut group = c.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    let plain = Device::flex();
    let tracked = plain.clone().autodiff();
    for (kind, operation) in operations {
        let inputs: Vec<_> = shapes.iter().map(|&shape| numbers(shape, &plain)).collect();
        group.bench_function(format!("forward/{kind}"), |b| b.iter(|| black_box(operation(&inputs))));
        let inputs: Vec<_> = shapes.iter().map(|&shape| numbers(shape, &tracked).require_grad()).collect();
        let cotangent = numbers(operation(&inputs).dims(), &plain);
        group.bench_function(format!("training/{kind}"), |b| {
            b.iter(|| black_box((operation(&inputs) * cotangent.clone()).sum().backward()));
        });
    }
    group.finish();
}

/// `[B, T, H·D]` as heads, as a projection leaves them.
fn heads(x: &Tensor<3>) -> Tensor<4> {
    x.clone().reshape([B, T, H, E / H]).swap_dims(1, 2)
}

fn operations(c: &mut Criterion) {
    align_kernels::tune_allocator();
    let device = Device::flex();
    both_ways(
        c,
        "swiglu",
        &[[B, T, F]; 2],
        [
            ("fused", &|x| swiglu(x[0].clone(), x[1].clone())),
            ("plain", &|x| plain::swiglu(x[0].clone(), x[1].clone())),
        ],
    );
    let weight = numbers([E], &device);
    both_ways(
        c,
        "rms_norm",
        &[[B, T, E]],
        [
            ("fused", &|x| rms_norm(x[0].clone(), weight.clone(), 1e-5, 0.0)),
            ("plain", &|x| plain::rms_norm(x[0].clone(), weight.clone(), 1e-5, 0.0)),
        ],
    );
    both_ways(
        c,
        "layer_norm",
        &[[B, T, E]],
        [
            ("fused", &|x| layer_norm(x[0].clone(), weight.clone(), None, 1e-5)),
            ("plain", &|x| plain::layer_norm(x[0].clone(), weight.clone(), None, 1e-5)),
        ],
    );
    let frequencies: Vec<f32> = (0..32).map(|i| 1e4_f32.powf(-(i as f32) / 32.0)).collect();
    let positions = Tensor::<1, Int>::arange(0..T as i64, &device).reshape([1, T]);
    let rotation = RotaryTable::new(&frequencies, T, 1.0, &device).at(&positions);
    both_ways(
        c,
        "rope",
        &[[B, T, E]],
        [("fused", &|x| rope(heads(&x[0]), &rotation)), ("plain", &|x| plain::rope(heads(&x[0]), &rotation))],
    );
    let options = AttentionOptions::causal(E / H);
    both_ways(
        c,
        "attention",
        &[[B, T, E]; 3],
        [
            ("fused", &|x| attention(heads(&x[0]), heads(&x[1]), heads(&x[2]), None, &options)),
            ("plain", &|x| plain::attention(heads(&x[0]), heads(&x[1]), heads(&x[2]), None, &options)),
        ],
    );
    let targets = || Tensor::<1, Int>::arange(0..(B * T) as i64, &device);
    let head = HeadOptions::default();
    both_ways(
        c,
        "token_log_probs",
        &[[B * T, E], [V, E]],
        [
            ("fused", &|x| token_log_probs(x[0].clone(), x[1].clone(), None, targets(), &head).log_probs),
            ("plain", &|x| {
                plain::token_log_probs(x[0].clone(), x[1].clone(), None, targets(), &head).log_probs
            }),
        ],
    );
}

fn decoding(c: &mut Criterion) {
    let device = Device::flex();
    let options = AttentionOptions::causal(E / H);
    let mut group = c.benchmark_group("cache_attention");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for rows in [1, 16] {
        let mut cache = KeyValueCache::new((0..rows).collect(), 512);
        let keys = numbers([rows, H, 300, E / H], &device);
        cache.append(keys.clone(), keys);
        let q = numbers([rows, H, 1, E / H], &device);
        group.bench_function(format!("{rows}/fused"), |b| {
            b.iter(|| black_box(cache_attention(q.clone(), &cache, &options)));
        });
        group.bench_function(format!("{rows}/plain"), |b| {
            b.iter(|| black_box(plain::cache_attention(q.clone(), &cache, &options)));
        });
    }
    group.finish();
}

criterion_group!(benches, operations, decoding);
criterion_main!(benches);
