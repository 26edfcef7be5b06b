//! Values derived by hand or in `specs/salsa.md`, section 9.

mod common;

use align_soup::{Ema, HealthGate, SoupError, Weights, average, lerp, task_vectors, uniform, weighted_mean};
use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};
use common::{assert_close, floats, net, param, typed};

const A: [f64; 4] = [0.10, -0.40, 2.00, 0.05];
const B: [f64; 4] = [0.30, 0.20, -1.00, -0.15];
const C: [f64; 4] = [-0.20, 0.60, 0.50, 0.25];
/// The digits printed in the specification.
const PRINTED: f64 = 1e-8;

#[test]
fn linear_soups_of_vectors_have_the_printed_digits() {
    let mean = |vectors: &[&[f64]], weights: Weights| weighted_mean(vectors, &weights).unwrap();
    assert_close(&mean(&[&A, &B], Weights::new(&[0.5, 0.5]).unwrap()), &[0.2, -0.1, 0.5, -0.05], PRINTED);
    assert_close(
        &mean(&[&A, &B], Weights::new(&[0.25, 0.75]).unwrap()),
        &[0.25, 0.05, -0.25, -0.10],
        PRINTED,
    );
    assert_close(
        &mean(&[&A, &B], Weights::normalized(&[1.0, 3.0]).unwrap()),
        &[0.25, 0.05, -0.25, -0.10],
        PRINTED,
    );
    assert_close(
        &mean(&[&A, &B, &C], Weights::uniform(3).unwrap()),
        &[0.06666667, 0.13333333, 0.5, 0.05],
        PRINTED,
    );
    assert_close(
        &mean(&[&A, &B, &C], Weights::new(&[0.2, 0.3, 0.5]).unwrap()),
        &[0.01, 0.28, 0.35, 0.09],
        PRINTED,
    );
}

#[test]
fn linear_soups_of_modules_have_the_printed_digits() {
    let [a, b, c] = [A, B, C].map(|weight| net(weight, &[weight[0]]));
    let with_bias = |weight: [f64; 4]| [&weight[..], &weight[..1]].concat();
    let ab = [a.clone(), b.clone()];
    assert_close(&floats(&average(&ab, &[0.5, 0.5]).unwrap()), &with_bias([0.2, -0.1, 0.5, -0.05]), PRINTED);
    assert_close(&floats(&lerp(&a, &b, 0.25).unwrap()), &with_bias([0.25, 0.05, -0.25, -0.10]), PRINTED);
    let normalized = Weights::normalized(&[1.0, 3.0]).unwrap();
    assert_close(
        &floats(&average(&ab, normalized).unwrap()),
        &with_bias([0.25, 0.05, -0.25, -0.10]),
        PRINTED,
    );
    let all = [a, b, c];
    let expected = with_bias([0.06666667, 0.13333333, 0.5, 0.05]);
    assert_close(&floats(&uniform(&all).unwrap()), &expected, PRINTED);
    let expected = with_bias([0.01, 0.28, 0.35, 0.09]);
    assert_close(&floats(&average(&all, &[0.2, 0.3, 0.5]).unwrap()), &expected, PRINTED);
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let exp: Vec<f64> = logits.iter().map(|z| z.exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.into_iter().map(|e| e / sum).collect()
}

fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum()
}

#[test]
fn the_soup_of_softmax_linear_models_is_their_geometric_mean() {
    let (z1, z2) = ([1.0, 0.0, -1.0, 0.5], [0.2, 1.2, -0.4, -1.0]);
    let (p1, p2) = (softmax(&z1), softmax(&z2));
    let soup_of = |alpha: f64| {
        let weights = Weights::new(&[alpha, 1.0 - alpha]).unwrap();
        softmax(&weighted_mean(&[&z1, &z2], &weights).unwrap())
    };
    let soup = soup_of(0.5);
    assert_close(&soup, &[0.37037768, 0.37037768, 0.10093969, 0.15830495], PRINTED);
    assert_close(&[kl(&p1, &soup), kl(&p2, &soup)], &[0.12801140, 0.13014510], PRINTED);
    // KL(π‖soup) = α KL(π‖π₁) + (1−α) KL(π‖π₂) + log BC.
    let p = [0.10, 0.55, 0.15, 0.20];
    assert_close(&[kl(&p, &soup)], &[0.5 * kl(&p, &p1) + 0.5 * kl(&p, &p2) - 0.13962082], PRINTED);
    let quarter = soup_of(0.25);
    assert_close(&quarter, &[0.29461513, 0.48573824, 0.11393976, 0.10570687], PRINTED);
    assert_close(&[kl(&p, &quarter)], &[0.12906096], PRINTED);
}

#[test]
fn means_of_adjacent_bf16_round_to_even_once() {
    let soup = |a: f64, b: f64| {
        let [a, b] = [a, b].map(|value| typed(&[value], [1], DType::BF16));
        let soup = average(&[a, b], &[0.5, 0.5]).unwrap();
        assert_eq!(soup.val().dtype(), DType::BF16);
        floats(&soup)[0]
    };
    assert_eq!(soup(1.0, 1.0078125), 1.0);
    assert_eq!(soup(1.0078125, 1.015625), 1.015625);
}

/// A factorised linear map x ↦ B A x.
#[derive(Module, Debug)]
struct Factors {
    b: Param<Tensor<2>>,
    a: Param<Tensor<2>>,
}

#[test]
fn the_mean_of_low_rank_factors_is_not_the_mean_of_their_products() {
    let first = Factors { b: param(&[1.0, 0.0], [2, 1]), a: param(&[1.0, 0.0], [1, 2]) };
    let second = Factors { b: param(&[0.0, 1.0], [2, 1]), a: param(&[0.0, 1.0], [1, 2]) };
    let product = |factors: &Factors| Param::from_tensor(factors.b.val().matmul(factors.a.val()));
    let mean_of_products = uniform(&[product(&first), product(&second)]).unwrap();
    assert_close(&floats(&mean_of_products), &[0.5, 0.0, 0.0, 0.5], PRINTED);
    let product_of_means = product(&uniform(&[first, second]).unwrap());
    assert_close(&floats(&product_of_means), &[0.25; 4], PRINTED);
}

/// Adapters on modules are merged before they are averaged, so their soup is the mean of products.
#[test]
fn adapters_are_merged_before_the_average() {
    use burn::module::Lora;
    use burn::nn::LinearConfig;
    let linear = LinearConfig::new(3, 3).with_bias(false).init(&common::device());
    let merged: Vec<_> = [1.0, 2.0]
        .into_iter()
        .map(|scale| {
            let adapted = linear.clone().apply_lora(Lora::new(2, 4.0));
            // The second factor starts at zero; give both something to say.
            adapted.map(&mut Shift(scale))
        })
        .collect();
    let soup = floats(&uniform(&merged).unwrap());
    let dense: Vec<Vec<f64>> = merged.iter().map(|m| floats(&m.clone().valid().materialize())).collect();
    let mean: Vec<f64> = dense[0].iter().zip(&dense[1]).map(|(a, b)| (a + b) / 2.0).collect();
    // One rounding to f32 of values below 16.
    assert_close(&soup, &mean, 1e-6);
    assert!(dense[0].iter().zip(&dense[1]).any(|(a, b)| (a - b).abs() > 0.1), "the adapters differ");
}

struct Shift(f64);

impl burn::module::ModuleMapper for Shift {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shift = self.0;
        param.map(|tensor| {
            let [rows, columns] = [tensor.dims()[0], tensor.dims()[D - 1]];
            if rows == columns { tensor } else { tensor.without_autodiff() + shift }
        })
    }
}

/// f(x) = Σ v·tanh(a x + b).
fn tanh_net(parameters: &[f64], x: f64) -> f64 {
    parameters.chunks(3).map(|unit| unit[2] * (unit[0] * x + unit[1]).tanh()).sum()
}

#[test]
fn a_permutation_of_hidden_units_makes_the_soup_nonsense() {
    let a = [2.0, 0.5, 1.0, -1.0, 0.2, 0.7];
    let b = [-1.0, 0.2, 0.7, 2.0, 0.5, 1.0];
    assert_close(&[tanh_net(&a, 0.9), tanh_net(&b, 0.9)], &[0.55703895, 0.55703895], PRINTED);
    let soup = uniform(&[param(&a, [6]), param(&b, [6])]).unwrap();
    assert_close(&[tanh_net(&floats(&soup), 0.9)], &[1.12886251], PRINTED);

    let (a, b) = ([1.2, -0.3, 0.8], [0.7, 0.4, 1.1]);
    assert_close(&[tanh_net(&a, 0.9), tanh_net(&b, 0.9)], &[0.52216536, 0.85129917], PRINTED);
    let soup = uniform(&[param(&a, [3]), param(&b, [3])]).unwrap();
    assert_close(&[tanh_net(&floats(&soup), 0.9)], &[0.68278756], PRINTED);
}

#[test]
fn extrapolation_leaves_the_segment_when_asked_to() {
    let ab = [param(&[1.0, 2.0], [2]), param(&[3.0, 2.0], [2])];
    let beyond = average(&ab, Weights::extrapolating(&[1.5, -0.5]).unwrap()).unwrap();
    assert_eq!(floats(&beyond), [0.0, 2.0]);
}

#[test]
fn task_vectors_have_norms_and_a_cosine() {
    // a − base = (3, 4, 0), b − base = (0, 4, 3): norms 5, cosine 16/25.
    let [base, a, b] = [[1.0, 1.0, 1.0], [4.0, 5.0, 1.0], [1.0, 5.0, 4.0]].map(|values| param(&values, [3]));
    let both = task_vectors(&base, &a, &b).unwrap();
    assert_eq!(both.norms, [5.0, 5.0]);
    assert_close(&[both.cosine.unwrap()], &[0.64], 1e-15);
    assert_eq!(task_vectors(&base, &base, &b).unwrap().cosine, None);
    // Specification, case 15: the task vectors of m1 and m2.
    let [base, a, b] = [[0.0, 0.1, 1.0, 0.0, 0.3], [0.5, 0.0, 1.2, -0.3, 0.31], [-0.2, 0.3, 1.1, -0.5, 0.30]]
        .map(|values| param(&values, [5]));
    assert_close(&[task_vectors(&base, &a, &b).unwrap().cosine.unwrap()], &[0.13729116], PRINTED);
}

#[test]
fn a_moving_average_forgets_geometrically() {
    // From 0 towards 1 with decay 0.9: after n steps 1 − 0.9ⁿ.
    let (zero, one) = (param(&[0.0], [1]), param(&[1.0], [1]));
    let mut ema = Ema::new(&zero, 0.9).unwrap();
    for _ in 0..5 {
        ema.update(&one).unwrap();
    }
    assert_close(&floats(&ema.model()), &[1.0 - 0.9_f64.powi(5)], 1e-15);
}

#[test]
fn a_moving_average_of_sixteen_bits_is_kept_in_more() {
    // Each step moves by 0.001·(1−s); bf16 next to 0.5 steps by 0.004 and would stop moving.
    let (zero, one) = (typed(&[0.0], [1], DType::BF16), typed(&[1.0], [1], DType::BF16));
    let mut ema = Ema::new(&zero, 0.999).unwrap();
    for _ in 0..1000 {
        ema.update(&one).unwrap();
    }
    assert_eq!(ema.model().val().dtype(), DType::BF16);
    // 1 − 0.999¹⁰⁰⁰ = 0.6323; bf16 rounds within 0.002.
    assert_close(&floats(&ema.model()), &[1.0 - 0.999_f64.powi(1000)], 0.002);
}

#[test]
fn the_health_gate_opens_up_to_its_tolerance_above_the_worst() {
    let gate = HealthGate::default();
    let health = gate.judge(2.05, &[1.0, 2.0]).unwrap();
    assert_close(&[health.excess], &[0.05], 1e-12);
    let Err(SoupError::Unhealthy(health)) = HealthGate::new(0.0).unwrap().judge(2.05, &[1.0, 2.0]) else {
        panic!("a tolerance of nothing lets nothing through")
    };
    assert_eq!(health.ingredients, [1.0, 2.0]);
}
