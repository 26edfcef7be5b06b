//! WGPU gives what Flex gives: every operation, a model's log-probabilities and gradients, greedy decoding, training.
//!
//! Needs a Vulkan, Metal or DirectX 12 driver; Mesa's software Vulkan will do, and is what the bounds were set on. Run it with
//! `cargo test -p align --features wgpu --test wgpu`.
#![cfg(feature = "wgpu")]

use align_core::{CausalLm, Completions, Demonstrations, Draws, Frozen};
use align_fusion::{Expert, Fusion, Weighing};
use align_kernels::{
    AdamWState, AdamWStep, Approximation, AttentionOptions, HeadOptions, KeyValueCache, RotaryTable,
    WeightLayout, adamw, add, attention, axpby, cache_attention, geglu, gelu, is_fused, layer_norm, linear,
    rms_norm, rope, square_sums, swiglu, tanh, token_log_probs,
};
use align_models::{GenerateOptions, Prompt, SamplingConfig, Transformer, TransformerConfig, generate};
use align_train::{Learner, NextToken, OptimizerConfig};
use burn::Tensor;
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Bool, Device, DeviceKind, Int, TensorData};

/// Sums run in another order and the driver's exponential is its own; relative to the largest number compared.
const VALUE: f64 = 5e-6;
const GRADIENT: f64 = 1e-5;

fn wgpu() -> Device {
    Device::wgpu(DeviceKind::DefaultDevice)
}

/// Numbers in [−1, 1) from a counter.
fn numbers(n: usize, salt: u64) -> Vec<f32> {
    let value = |i: u64| ((i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32) / (1 << 23) as f32 - 1.0;
    (0..n as u64).map(|i| value(i + 1 + (salt << 20))).collect()
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

fn flat<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let n = tensor.shape().num_elements();
    tensor.reshape([n])
}

fn assert_near(name: &str, found: &[f32], expected: &[f32], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{name}: length");
    let size = expected.iter().fold(1e-30_f64, |size, x| size.max(f64::from(*x).abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = f64::from(found - expected).abs();
        assert!(
            error <= tolerance * size,
            "{name}[{i}]: WGPU found {found}, Flex {expected}: off by {error:e} > {tolerance:e} · {size}"
        );
    }
}

type Operation<'a> = &'a dyn Fn(&[Tensor<1>], &Device) -> Tensor<1>;

/// Value and gradients of an operation on flat inputs of the given sizes.
fn run(sizes: &[usize], device: &Device, operation: Operation) -> (Vec<f32>, Vec<Vec<f32>>) {
    let tracked = device.clone().autodiff();
    let leaves: Vec<Tensor<1>> = sizes
        .iter()
        .enumerate()
        .map(|(i, &n)| Tensor::from_floats(numbers(n, i as u64).as_slice(), &tracked).require_grad())
        .collect();
    assert_eq!(is_fused(&leaves[0]), *device == Device::flex(), "kernel on Flex, composition elsewhere");
    let y = operation(&leaves, device);
    let value = host(y.clone().inner());
    let cotangent = Tensor::<1>::from_floats(numbers(value.len(), 99).as_slice(), device);
    let mut grads = (y * cotangent).sum().backward();
    let gradients = leaves.iter().map(|leaf| host(leaf.grad_remove(&mut grads).expect("a gradient")));
    (value, gradients.collect())
}

/// Compares the two devices on one operation.
fn agree(name: &str, sizes: &[usize], operation: Operation) {
    let (expected, slopes) = run(sizes, &Device::flex(), operation);
    let (found, found_slopes) = run(sizes, &wgpu(), operation);
    assert_near(name, &found, &expected, VALUE);
    for (i, (found, expected)) in found_slopes.iter().zip(&slopes).enumerate() {
        assert_near(&format!("{name}, gradient {i}"), found, expected, GRADIENT);
    }
}

fn ids<const D: usize>(values: &[i32], shape: [usize; D], device: &Device) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

#[test]
fn elementwise_operations_agree() {
    let n = 3 * 33;
    agree("add", &[n, n], &|x, _| add(x[0].clone(), x[1].clone()));
    agree("tanh", &[n], &|x, _| tanh(x[0].clone() * 4.0));
    agree("swiglu", &[n, n], &|x, _| swiglu(x[0].clone() * 4.0, x[1].clone()));
    agree("geglu", &[n, n], &|x, _| geglu(x[0].clone() * 4.0, x[1].clone()));
    for approximation in [Approximation::Exact, Approximation::Tanh] {
        agree("gelu", &[n], &|x, _| gelu(x[0].clone() * 4.0, approximation));
    }
}

#[test]
fn norms_rotations_and_projections_agree() {
    agree("rms_norm", &[5 * 24, 24], &|x, _| {
        flat(rms_norm(x[0].clone().reshape([5, 24]), x[1].clone(), 1e-6, 1.0))
    });
    agree("layer_norm", &[5 * 24, 24, 24], &|x, _| {
        flat(layer_norm(x[0].clone().reshape([5, 24]), x[1].clone(), Some(x[2].clone()), 1e-5))
    });
    agree("rope", &[2 * 3 * 5 * 8], &|x, device| {
        let table = RotaryTable::new(&[1.0, 0.1, 0.01], 64, 1.0, device);
        let positions = ids(&[0, 1, 2, 3, 4, 0, 0, 0, 9, 60], [2, 5], device);
        flat(rope(x[0].clone().reshape([2, 3, 5, 8]), &table.at(&positions)))
    });
    for (layout, shape) in [(WeightLayout::InOut, [24, 10]), (WeightLayout::OutIn, [10, 24])] {
        agree("linear", &[7 * 24, 240], &|x, _| {
            flat(linear(x[0].clone().reshape([7, 24]), x[1].clone().reshape(shape), layout))
        });
    }
}

#[test]
fn attention_agrees_with_fewer_key_heads_padding_windows_and_caps() {
    let [b, h, g, t, d] = [2, 4, 2, 9, 8];
    let base = AttentionOptions::causal(d);
    for options in [
        base,
        AttentionOptions { window: Some(3), ..base },
        AttentionOptions { softcap: Some(2.0), ..base },
        AttentionOptions { causal: false, ..base },
    ] {
        for padded in [false, true] {
            agree("attention", &[b * h * t * d, b * g * t * d, b * g * t * d], &|x, device| {
                let counts: Vec<bool> = (0..b * t).map(|i| i / t == 0 || i % t >= 4).collect();
                let mask = Tensor::<2, Bool>::from_data(TensorData::new(counts, [b, t]), device);
                let heads = |i: usize, count: usize| x[i].clone().reshape([b, count, t, d]);
                flat(attention(heads(0, h), heads(1, g), heads(2, g), padded.then_some(&mask), &options))
            });
        }
    }
}

#[test]
fn decoding_from_a_cache_agrees() {
    let [b, h, g, d] = [2, 4, 2, 8];
    let decode = |device: &Device| {
        let tensor = |heads: usize, tokens: usize, salt: u64| {
            let values = numbers(b * heads * tokens * d, salt);
            Tensor::<4>::from_data(TensorData::new(values, [b, heads, tokens, d]), device)
        };
        let mut cache = KeyValueCache::new(vec![0, 3], 16);
        cache.append(tensor(g, 6, 1), tensor(g, 6, 2));
        cache.append(tensor(g, 1, 3), tensor(g, 1, 4));
        host(cache_attention(tensor(h, 1, 5), &cache, &AttentionOptions::causal(d)))
    };
    assert_near("cache_attention", &decode(&wgpu()), &decode(&Device::flex()), VALUE);
}

#[test]
fn log_probabilities_agree() {
    let [n, e, v] = [11, 16, 37];
    for options in
        [HeadOptions::default(), HeadOptions { temperature: 0.7, softcap: Some(3.0), recompute: false }]
    {
        agree("token_log_probs", &[n * e, v * e, v], &|x, device| {
            let targets: Vec<i32> = (0..n as i32).map(|i| i * 7 % v as i32).collect();
            let (hidden, head) = (x[0].clone().reshape([n, e]), x[1].clone().reshape([v, e]));
            let targets = ids(&targets, [n], device);
            token_log_probs(hidden, head, Some(x[2].clone()), targets, &options).log_probs
        });
    }
}

#[test]
fn the_optimizer_s_pass_agrees() {
    let step = AdamWStep {
        scale: 0.5,
        beta_1: 0.9,
        beta_2: 0.999,
        epsilon: 1e-8,
        rate: 1e-2,
        second_correction: 0.5,
        decay: 0.99,
    };
    let update = |device: &Device| {
        let tensor = |salt| Tensor::<1>::from_floats(numbers(1001, salt).as_slice(), device);
        let state = AdamWState { parameter: tensor(1), first: tensor(2), second: tensor(3).abs() };
        let gradient = tensor(4);
        let sums = square_sums(&[&gradient]).iter().map(|sum| *sum as f32).collect::<Vec<_>>();
        let mixed = axpby(0.3, tensor(5), -2.0, &gradient);
        let found = adamw(state, gradient, &step);
        [host(found.parameter), host(found.first), host(found.second), host(mixed), sums].concat()
    };
    assert_near("adamw", &update(&wgpu()), &update(&Device::flex()), VALUE);
}

/// A Llama with fewer key heads than query heads: what Burn's own attention gets wrong.
fn model(device: &Device) -> Transformer {
    let config = TransformerConfig { intermediate_size: 48, ..TransformerConfig::llama(61, 32, 2, 4) };
    Transformer::init(&config, &Draws::new(5), device)
}

fn completions(device: &Device) -> Completions {
    let row = |length: usize, salt: usize| (0..length).map(|i| ((i * 17 + salt) % 61) as u32).collect();
    let (prompts, responses): (Vec<Vec<u32>>, Vec<Vec<u32>>) =
        ([row(3, 1), row(6, 2)].into(), [row(5, 3), row(2, 4)].into());
    Completions::from_rows(&prompts, &responses, device)
}

struct Collect<'a> {
    gradients: &'a GradientsParams,
    found: Vec<(usize, Vec<f32>)>,
}

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let gradient = self.gradients.get::<D>(parameter.id).expect("a gradient for every parameter");
        self.found.push((D, host(gradient)));
    }
}

/// What a model says to two prompts when it always takes the likeliest token.
fn greedy(model: &dyn CausalLm) -> Vec<Vec<u32>> {
    let sampling = SamplingConfig {
        temperature: 0.0.try_into().expect("zero is allowed"),
        max_new_tokens: 16,
        never_stop: true,
        ..SamplingConfig::default()
    };
    let prompts = Prompt::numbered(vec![vec![1, 2, 3], vec![4, 5, 6, 7, 8]]);
    let options = GenerateOptions::new(&sampling, Draws::new(1));
    let rows = generate(model, &prompts, &options).expect("a generation").rows;
    rows.into_iter().map(|row| row.response).collect()
}

#[test]
fn a_model_and_its_gradients_agree_and_greedy_decoding_is_identical() {
    let both = [Device::flex(), wgpu()].map(|device| {
        let model = model(&device);
        let batch = completions(&device);
        let scored = host(model.token_log_probs(&batch, 1.0).log_probs);
        let trained = model.clone().train();
        let loss = trained.token_log_probs(&batch, 1.0).log_probs.mean().neg();
        let gradients = GradientsParams::from_grads(loss.backward(), &trained);
        let mut collect = Collect { gradients: &gradients, found: Vec::new() };
        trained.visit(&mut collect);
        (scored, collect.found, greedy(&Frozen::new(&model)))
    });
    let [(expected, slopes, tokens), (found, found_slopes, found_tokens)] = both;
    assert_near("log-probabilities", &found, &expected, VALUE);
    assert_eq!(found_slopes.len(), slopes.len());
    for ((_, found), (_, expected)) in found_slopes.iter().zip(&slopes) {
        assert_near("a parameter's gradient", found, expected, GRADIENT);
    }
    assert_eq!(found_tokens, tokens, "greedy tokens");
}

/// The base on one device, the small models on another, as when a card holds no more than the large one.
#[test]
fn a_fusion_over_two_devices_agrees_and_decodes_the_same_tokens() {
    let (flex, wgpu) = (Device::flex(), wgpu());
    let small = |seed, device: &Device| {
        let mut config =
            TransformerConfig { intermediate_size: 24, ..TransformerConfig::llama(61, 16, 1, 2) };
        config.initializer_range = 0.3;
        Transformer::init(&config, &Draws::new(seed), device)
    };
    let both = [[&flex, &flex], [&wgpu, &flex], [&flex, &wgpu]].map(|[large, other]| {
        let experts = (7..9)
            .map(|seed| Expert::new(format!("{seed}"), Box::new(small(seed, other)) as Box<dyn CausalLm>));
        let (base, anchor) = (Box::new(model(large)), Box::new(small(6, other)));
        let fusion = Fusion::new(base, anchor, experts.collect(), Weighing::default()).expect("they fit");
        let scored = host(fusion.token_log_probs(&completions(large), 1.0).log_probs);
        let tokens = greedy(&fusion);
        assert!(fusion.take_failure().is_none());
        (scored, tokens)
    });
    let (expected, tokens) = &both[0];
    for (found, found_tokens) in &both[1..] {
        // A weight is searched to 1e-6, and scores move with it.
        assert_near("log-probabilities", found, expected, 1e-5);
        assert_eq!(found_tokens, tokens, "greedy tokens");
    }
}

#[test]
fn training_goes_the_same_way() {
    let losses = |device: Device| -> Vec<f64> {
        let config = OptimizerConfig {
            learning_rate: 1e-2.try_into().expect("above 0"),
            ..OptimizerConfig::default()
        };
        let mut learner = Learner::new(model(&device), config, 100).expect("a model to train");
        let batch = Demonstrations::from(completions(&device));
        let mut step = || learner.step(&NextToken, std::slice::from_ref(&batch)).expect("a step");
        (0..5).map(|_| step().get("loss").expect("a loss")).collect()
    };
    let (expected, found) = (losses(Device::flex()), losses(wgpu()));
    assert!(expected[4] < expected[0] - 0.1, "five steps learn something: {expected:?}");
    for (found, expected) in found.iter().zip(&expected) {
        // AdamW's first steps divide by gradients: their rounding is amplified.
        assert!((found - expected).abs() < 1e-4 * expected, "{found} on WGPU, {expected} on Flex");
    }
}
