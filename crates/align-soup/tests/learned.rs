//! Learned soups: known optima, laws, bad input.

mod common;

use align_soup::{
    Better, Granularity, GreedyError, LearnedError, LearnedOptions, Region, SoupError, Weights, average,
    greedy, learned, uniform,
};
use burn::module::Module;
use burn::tensor::{DType, Tensor, TensorData};
use common::{Net, assert_close, bits, device, floats, net, typed_net};

/// Σ (θ − target)² over the weight and the bias, with any curvature.
fn distance(net: &Net, target: [f64; 4], bias: f64) -> Tensor<1> {
    let target = TensorData::new(target.to_vec(), [2, 2]);
    let target = Tensor::<2>::from_data(target, (&device(), net.weight.val().dtype()));
    let away = (net.weight.val() - target).square().sum();
    away + (net.inner[0].bias.as_ref().unwrap().val() - bias).square().sum()
}

fn options(by: Granularity, region: Region, steps: u64) -> LearnedOptions {
    LearnedOptions { by, region, steps, ..LearnedOptions::default() }
}

fn learn(
    nets: &[Net],
    options: &LearnedOptions,
    target: [f64; 4],
    bias: f64,
) -> align_soup::LearnedSoup<Net> {
    learned(nets, options, |_, soup| Ok::<_, LearnedError>(distance(soup, target, bias))).unwrap()
}

/// Three corners of a triangle in the first two values.
fn corners() -> [Net; 3] {
    [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]].map(|[x, y]| net([x, y, 7.0, 7.0], &[3.0]))
}

#[test]
fn inside_the_simplex_the_weights_are_barycentric_coordinates() {
    let soup =
        learn(&corners(), &options(Granularity::Model, Region::Simplex, 400), [0.2, 0.5, 7.0, 7.0], 3.0);
    assert_eq!(soup.weights.len(), 1);
    // Adam with a constant step circles the optimum at a distance that falls with the number of steps.
    assert_close(&soup.weights[0].weights, &[0.3, 0.2, 0.5], 1e-3);
    assert!(soup.losses[399] < 1e-6 * soup.losses[0], "{:?}", soup.losses.last());
    assert_close(&floats(&soup.module)[..2], &[0.2, 0.5], 1e-3);
}

#[test]
fn beyond_the_simplex_only_affine_weights_arrive() {
    // (1.5, 0.5) = −1·(0, 0) + 1.5·(1, 0) + 0.5·(0, 1).
    let target = [1.5, 0.5, 7.0, 7.0];
    let affine = learn(&corners(), &options(Granularity::Model, Region::Affine, 600), target, 3.0);
    assert_close(&affine.weights[0].weights, &[-1.0, 1.5, 0.5], 1e-3);
    // The nearest point of the triangle is (1, 0): reached as far as a softmax reaches a corner.
    let simplex = learn(&corners(), &options(Granularity::Model, Region::Simplex, 600), target, 3.0);
    let weights = &simplex.weights[0].weights;
    assert!(weights.iter().all(|&weight| (0.0..=1.0).contains(&weight)));
    assert!(weights[1] > 0.95, "{weights:?}");
}

#[test]
fn layers_with_their_own_weights_reach_what_one_weight_cannot() {
    // The weight wants the first ingredient, the layer's bias the second.
    let nets = [net([1.0; 4], &[0.0]), net([0.0; 4], &[1.0])];
    let learn = |by| learn(&nets, &options(by, Region::Affine, 400), [0.9; 4], 0.8);
    let (model, layer) = (learn(Granularity::Model), learn(Granularity::Layer));
    let names: Vec<&str> = layer.weights.iter().map(|group| group.group.as_str()).collect();
    assert_eq!(names, ["weight", "inner.0"]);
    assert_close(&layer.weights[0].weights, &[0.9, 0.1], 1e-3);
    assert_close(&layer.weights[1].weights, &[0.2, 0.8], 1e-3);
    // One weight w: 4(w − 0.9)² + (1 − w − 0.8)² is least at w = 3.8/5, with 0.392.
    assert_close(&model.weights[0].weights, &[0.76, 0.24], 1e-3);
    assert_close(&[*model.losses.last().unwrap()], &[0.392], 1e-3);
    assert!(*layer.losses.last().unwrap() < 1e-5);
}

#[test]
fn learnt_weights_beat_uniform_and_greedy_where_equal_shares_miss() {
    // The optimum is at 10 % of the second ingredient, which no equal shares of subsets give.
    let nets = [net([0.0; 4], &[0.0]), net([1.0; 4], &[1.0]), net([-2.0; 4], &[4.0])];
    let (target, bias) = ([0.1; 4], 0.1);
    let loss = |net: &Net| distance(net, target, bias).into_data().iter::<f64>().sum::<f64>();
    let path = greedy(&nets, "loss", Better::Lower, |members| {
        let members: Vec<Net> = members.iter().map(|net| (*net).clone()).collect();
        Ok::<_, GreedyError>(loss(&uniform(&members).unwrap()))
    })
    .unwrap();
    let soup = learn(&nets, &options(Granularity::Model, Region::Simplex, 400), target, bias);
    let (learnt, uniform) = (loss(&soup.module), loss(&uniform(&nets).unwrap()));
    let greedy = path.score().unwrap();
    // Not 0: a softmax reaches the edge of the simplex only in the limit.
    assert!(learnt < 0.1 * greedy && greedy < uniform, "{learnt} {greedy} {uniform}");
}

#[test]
fn the_soup_is_the_average_by_its_weights() {
    let soup = learn(&corners(), &options(Granularity::Model, Region::Simplex, 5), [0.2, 0.5, 7.0, 7.0], 3.0);
    let weights = Weights::new(&soup.weights[0].weights).unwrap();
    let expected = average(&corners(), weights).unwrap();
    assert_close(&floats(&soup.module), &floats(&expected), 1e-12); // the same sums in f64
    assert!(!soup.module.weight.val().is_autodiff());
}

#[test]
fn every_step_is_told_its_number_and_sees_the_soup_so_far() {
    let mut seen = Vec::new();
    let soup = learned(&corners(), &options(Granularity::Model, Region::Simplex, 3), |step, soup: &Net| {
        seen.push((step, floats(soup)));
        Ok::<_, LearnedError>(distance(soup, [0.2, 0.5, 7.0, 7.0], 3.0))
    })
    .unwrap();
    assert_eq!(seen.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 1, 2]);
    // It begins with equal weights and moves.
    assert_close(&seen[0].1, &floats(&uniform(&corners()).unwrap()), 1e-12);
    assert_ne!(seen[1].1, seen[0].1);
    assert_eq!(soup.losses.len(), 3);
}

#[test]
fn the_same_search_twice_is_the_same_soup_and_every_option_matters() {
    let learn =
        |options: &LearnedOptions| bits(&learn(&corners(), options, [1.5, 0.5, 7.0, 7.0], 2.0).module);
    let start = options(Granularity::Model, Region::Simplex, 3);
    assert_eq!(learn(&start), learn(&start));
    let turned = [
        LearnedOptions { steps: 4, ..start },
        LearnedOptions { learning_rate: 0.2, ..start },
        LearnedOptions { region: Region::Affine, ..start },
    ];
    for options in turned {
        assert_ne!(learn(&options), learn(&start), "{options:?}");
    }
}

#[test]
fn frozen_parameters_and_sixteen_bits_are_weighed_too() {
    let nets: Vec<Net> =
        [[0.0; 4], [1.0; 4]].map(|weight| typed_net(weight, &[0.0], DType::F32).train().freeze()).into();
    let frozen = learn(&nets, &options(Granularity::Model, Region::Simplex, 200), [0.25; 4], 0.0);
    assert_close(&frozen.weights[0].weights, &[0.75, 0.25], 1e-2);
    let nets = [[0.0; 4], [1.0; 4]].map(|weight| typed_net(weight, &[0.0], DType::BF16));
    let narrow = learned(&nets, &options(Granularity::Model, Region::Simplex, 200), |_, soup: &Net| {
        let away = (soup.weight.val().cast(DType::F32) - 0.25).square().sum();
        Ok::<_, LearnedError>(away)
    })
    .unwrap();
    assert_eq!(narrow.module.weight.val().dtype(), DType::BF16);
    assert_close(&narrow.weights[0].weights, &[0.75, 0.25], 2e-2); // the soup itself has 8 bits
}

#[test]
fn bad_input_is_named() {
    let refused = |nets: &[Net], options: LearnedOptions| {
        learned(nets, &options, |_, soup: &Net| Ok::<_, LearnedError>(distance(soup, [0.0; 4], 0.0)))
            .unwrap_err()
    };
    let good = LearnedOptions::default();
    let one = refused(&corners()[..1], good);
    assert_eq!(one.to_string(), "a learned soup weighs ingredients: expected at least 2, found 1");
    assert!(matches!(refused(&corners(), LearnedOptions { steps: 0, ..good }), LearnedError::NoSteps));
    for learning_rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = refused(&corners(), LearnedOptions { learning_rate, ..good });
        assert!(matches!(error, LearnedError::LearningRate { .. }), "{error}");
    }
    let error = refused(&[net([0.0; 4], &[0.0]), net([0.0; 4], &[0.0, 1.0])], good);
    assert!(matches!(error, LearnedError::Soup(SoupError::ShapeMismatch { .. })), "{error}");
    let broken = [net([0.0; 4], &[0.0]), net([f64::NAN, 0.0, 0.0, 0.0], &[0.0])];
    let error = refused(&broken, good);
    assert!(matches!(error, LearnedError::Soup(SoupError::NonFiniteParameter { .. })), "{error}");

    let cut_off = learned(&corners(), &good, |_, soup: &Net| {
        Ok::<_, LearnedError>(distance(&soup.valid(), [0.0; 4], 0.0))
    });
    assert!(matches!(cut_off, Err(LearnedError::Untracked { step: 0 })), "{cut_off:?}");
    let infinite = learned(&corners(), &good, |step, soup: &Net| {
        Ok::<_, LearnedError>(distance(soup, [0.0; 4], 0.0) / (1.0 - step as f64))
    });
    let error = infinite.unwrap_err();
    assert_eq!(error.to_string(), "the loss of step 1 is inf, expected a finite number");
    // A finite loss with a slope that is not: √ at 0.
    let steep = learned(&corners(), &good, |_, soup: &Net| {
        Ok::<_, LearnedError>((soup.weight.val() * 0.0).sum().sqrt())
    });
    assert!(matches!(steep, Err(LearnedError::Gradient { step: 0, .. })), "{steep:?}");
}
