//! The terms of the guided loss and their gradients, to the digit.

use align_core::number::Positive;
use align_factors::attribution::Baseline;
use align_factors::guide::{
    Probe, TaskLoss, antithetic_orders, divergence_loss, half_squared_norm, jensen_shannon_loss, log_shares,
    smoothed_importances,
};
use align_factors::{
    Divergence, Factor, Factors, ImportanceDistribution, Linear, Matrix, Net, Network, Normalization, Scorer,
    generalized_jensen_shannon,
};
use align_testkit::gradcheck::{assert_gradient, assert_module_gradients, module_gradients};
use align_testkit::{assert_close, device, double, gradient, tracked_double};
use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Everything below is in f64, to the eight digits that are known.
const DIGITS: f64 = 1e-8;

fn distribution(masses: &[f64]) -> ImportanceDistribution {
    ImportanceDistribution::new(masses.to_vec()).unwrap()
}

fn columns(count: usize) -> Factors {
    Factors::columns((0..count).map(|column| format!("x{column}"))).unwrap()
}

/// The pair of the order 0, 1, 2, … and its reverse, for every row.
fn pair_of_orders(rows: usize, d: usize) -> Vec<Vec<Vec<usize>>> {
    vec![vec![(0..d).collect(), (0..d).rev().collect()]; rows]
}

/// Every order, which makes the attributions exact.
fn all_orders(rows: usize) -> Vec<Vec<Vec<usize>>> {
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    vec![orders.map(|order| order.to_vec()).to_vec(); rows]
}

fn probe(rows: &Matrix, orders: &[Vec<Vec<usize>>], baseline: &Baseline) -> Probe {
    Probe::new(rows, orders, &columns(rows.width()), baseline, (&device(), DType::F64))
}

/// `β·x + c` in f64, recording.
fn linear(beta: [f64; 3], bias: f64) -> Linear {
    let weights = double([[beta[0]], [beta[1]], [beta[2]]]);
    Linear { weights: Param::from_tensor(weights), bias: Param::from_tensor(double([bias])) }.train()
}

fn linear_rows() -> Matrix {
    Matrix::from_rows(&[[1.0, 2.0, 0.0], [3.0, 0.0, 1.0], [2.0, 4.0, 5.0], [0.0, 1.0, 2.0]])
}

#[test]
fn attributions_of_a_linear_model_are_its_weights_times_the_distance_to_the_baseline() {
    let rows = linear_rows();
    let model = linear([2.0, -1.0, 0.5], 0.2);
    let phi = probe(&rows, &pair_of_orders(4, 3), &Baseline::mean(&rows)).attributions(&model);
    let expected = [-1.0, -0.25, -1.0, 3.0, 1.75, -0.5, 1.0, -2.25, 1.5, -3.0, 0.75, 0.0];
    assert_close(phi.clone(), expected, DIGITS);
    let importances = smoothed_importances(phi, 0.0);
    assert_close(importances.clone(), [2.0, 1.25, 0.75], DIGITS);
    assert_close(log_shares(importances, Normalization::Ratio).exp(), [0.5, 0.3125, 0.1875], DIGITS);
}

#[test]
fn task_and_divergence_and_their_gradients_add_up() {
    let rows = linear_rows();
    let q = distribution(&[0.5, 0.3, 0.2]);
    let probe = probe(&rows, &pair_of_orders(4, 3), &Baseline::mean(&rows));
    let x = double([[1.0, 2.0, 0.0], [3.0, 0.0, 1.0], [2.0, 4.0, 5.0], [0.0, 1.0, 2.0]]);
    let targets = double([1.0, 6.0, 3.0, -1.0]);
    let task = |model: &Linear| TaskLoss::Squared.mean(model.forward(x.clone()), targets.clone());
    let divergence = |model: &Linear| {
        let importances = smoothed_importances(probe.attributions(model), 0.0);
        divergence_loss(log_shares(importances, Normalization::Ratio), &q, Divergence::Forward)
    };
    let total = |model: &Linear| task(model) + divergence(model).mul_scalar(0.1);

    let model = linear([2.0, -1.0, 0.5], 0.2);
    assert_close(task(&model), [0.665], DIGITS);
    assert_close(divergence(&model), [0.0006611059], 1e-10);
    assert_close(total(&model), [0.6650661106], 1e-10);
    let by_weights = |loss: Tensor<1>| module_gradients(&model, &loss).remove("weights").unwrap();
    assert_close(by_weights(task(&model)), [0.35, -0.8, 0.8], DIGITS);
    assert_close(by_weights(divergence(&model)), [0.0, -0.0125, -0.025], DIGITS);
    assert_close(by_weights(total(&model)), [0.35, -0.80125, 0.7975], DIGITS);
}

/// Two hidden units with tanh; rows of W₁ are inputs.
#[derive(Module, Debug)]
struct Small {
    first: Param<Tensor<2>>,
    first_bias: Param<Tensor<1>>,
    second: Param<Tensor<2>>,
    second_bias: Param<Tensor<1>>,
}

impl Network for Small {
    fn forward(&self, rows: Tensor<2>) -> Tensor<1> {
        let hidden = (rows.matmul(self.first.val()) + self.first_bias.val().unsqueeze()).tanh();
        hidden.matmul(self.second.val()).squeeze_dim(1) + self.second_bias.val()
    }
}

fn small() -> Small {
    Small {
        first: Param::from_tensor(double([[0.5, -0.3], [0.8, 0.2], [-0.4, 0.6]])),
        first_bias: Param::from_tensor(double([0.1, -0.2])),
        second: Param::from_tensor(double([[1.2], [-0.7]])),
        second_bias: Param::from_tensor(double([0.3])),
    }
    .train()
}

fn small_rows() -> (Matrix, Baseline) {
    (Matrix::from_rows(&[[1.0, -0.5, 2.0], [-1.5, 0.7, 0.3]]), Baseline::Row(vec![0.2, 0.0, -0.1]))
}

fn small_divergence(network: &Small) -> Tensor<1> {
    let (rows, baseline) = small_rows();
    let phi = probe(&rows, &all_orders(2), &baseline).attributions(network);
    let log_p = log_shares(smoothed_importances(phi, 0.0), Normalization::Ratio);
    divergence_loss(log_p, &distribution(&[0.5, 0.2, 0.3]), Divergence::Forward)
}

#[test]
fn attributions_of_a_perceptron_are_its_shapley_values() {
    let (rows, baseline) = small_rows();
    let scores = Net::new(&small()).scores(&rows);
    assert_close(scores, [-0.7203941773, -0.3091112943], 1e-10);
    let phi = probe(&rows, &all_orders(2), &baseline).attributions(&small());
    let expected = [0.4857969286, -0.3542341072, -1.6512067430, -1.2455772547, 0.4553455664, -0.3181293503];
    assert_close(phi.clone(), expected, 1e-10);
    let importances = smoothed_importances(phi.clone(), 0.0);
    assert_close(importances.clone(), [0.8656870917, 0.4047898368, 0.9846680466], 1e-10);
    assert_close(smoothed_importances(phi, 1e-3), [0.8656878070, 0.4047910916, 0.9846689839], 1e-10);
    let p = log_shares(importances, Normalization::Ratio).exp();
    assert_close(p, [0.3838720354, 0.1794961483, 0.4366318164], 1e-10);
    let pair = probe(&rows, &pair_of_orders(2, 3), &baseline).attributions(&small());
    let first_row = pair.slice([0..1, 0..3]);
    assert_close(first_row, [0.4538995378, -0.2904393256, -1.6831041338], 1e-10);
}

#[test]
fn the_divergence_of_a_perceptron_has_the_known_gradient_and_none_along_the_last_layer() {
    let network = small();
    assert_close(small_divergence(&network), [0.0411897927], 1e-10);
    let gradients = module_gradients(&network, &small_divergence(&network));
    // Known to six digits.
    assert_close(&gradients["second"], [-0.0302951847, -0.0519346023], 1e-6);
    let first = [-0.1543989, 0.1005529, -0.0231689, 0.0190337, -0.1850412, 0.0868055];
    assert_close(&gradients["first"], first, 1e-6);
    // Scaling the scores leaves p as it is, so that guidance does not pull along W₂.
    let along = 1.2 * gradients["second"][0] - 0.7 * gradients["second"][1];
    assert_close(along, 0.0, 1e-15);
    assert_module_gradients(&network, small_divergence, 1e-7);
}

#[test]
fn divergences_have_the_known_values_and_gradients() {
    let q = distribution(&[0.5, 0.3, 0.2]);
    let importances = [2.0, 1.0, 3.0];
    let tau = |tau| Normalization::Softmax { tau: Positive::literal(tau) };
    let cases = [
        (Divergence::Forward, Normalization::Ratio, 0.1958104071, Some([-0.0833333333, -0.1333333333, 0.1])),
        (
            Divergence::Reverse,
            Normalization::Ratio,
            0.2250258858,
            Some([-0.10508183, -0.13546876, 0.11521081]),
        ),
        (Divergence::JensenShannon, Normalization::Ratio, 0.0512547657, None),
        (Divergence::Forward, tau(1.0), 0.4779529504, Some([-0.25527153, -0.20996943, 0.46524096])),
        (Divergence::Forward, tau(0.5), 1.3132786144, Some([-0.76537914, -0.56824752, 1.33362666])),
    ];
    for (divergence, normalization, value, slope) in cases {
        let leaf = tracked_double(importances);
        let loss = divergence_loss(log_shares(leaf.clone(), normalization), &q, divergence);
        assert_close(loss.clone(), [value], 1e-9);
        let found = gradient(&loss, &leaf);
        // The host's gradient is written by hand, this one is recorded.
        let by_hand = divergence.gradient(&q, &importances, normalization).unwrap();
        assert_close(&found, by_hand, 1e-12);
        if let Some(slope) = slope {
            assert_close(found, slope, DIGITS);
        }
    }
}

#[test]
fn the_divergence_of_several_models_is_the_host_s() {
    let models = [[0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [0.6, 0.1, 0.3]].map(|p| distribution(&p));
    let expected = generalized_jensen_shannon(&models, &[1.0 / 3.0; 3]).unwrap();
    assert_close(expected, 0.0444358662, 1e-9);
    for turn in 0..3 {
        let others: Vec<_> =
            (0..3).filter(|&other| other != turn).map(|other| models[other].clone()).collect();
        let log_p: Tensor<1> = double([models[turn][0], models[turn][1], models[turn][2]]).log();
        assert_close(jensen_shannon_loss(log_p, &others), [expected], 1e-12);
    }
}

#[test]
fn the_logistic_loss_is_finite_at_any_logit_and_the_same_on_the_host() {
    let (scores, labels) = ([-800.0, -1.0, 0.0, 2.0, 800.0], [0.0, 1.0, 1.0, 0.0, 1.0]);
    let on_device = TaskLoss::Logistic.mean(double(scores), double(labels));
    let on_host = TaskLoss::Logistic.mean_on_host(&scores, &labels);
    assert!(on_host.is_finite());
    // Sums of five numbers, in f64.
    assert_close(on_device, [on_host], 1e-12);
    let expected = ((1.0_f64.exp() + 1.0).ln() + 2.0_f64.ln() + (2.0_f64.exp() + 1.0).ln()) / 5.0;
    assert_close(on_host, expected, 1e-12);
    let leaf = tracked_double(scores);
    let slope = gradient(&TaskLoss::Logistic.mean(leaf.clone(), double(labels)), &leaf);
    let sigmoid = |f: f64| 1.0 / (1.0 + (-f).exp());
    let expected: Vec<f64> = scores.iter().zip(labels).map(|(&f, y)| (sigmoid(f) - y) / 5.0).collect();
    assert_close(slope, expected, 1e-12);
}

#[test]
fn only_matrices_are_penalised() {
    let network = small();
    let expected = 0.5 * (0.25 + 0.09 + 0.64 + 0.04 + 0.16 + 0.36 + 1.44 + 0.49);
    assert_close(half_squared_norm(&network).unwrap(), [expected], 1e-12);
    let gradients = module_gradients(&network, &half_squared_norm(&network).unwrap());
    // The gradient of ½ Σ W² is W.
    assert_close(&gradients["second"], [1.2, -0.7], 1e-15);
    assert!(!gradients.contains_key("first_bias"));
}

#[test]
fn columns_of_a_factor_are_switched_together() {
    let factors = Factors::new(vec![
        Factor { name: "question".into(), columns: vec![0, 2] },
        Factor { name: "number".into(), columns: vec![1] },
    ])
    .unwrap();
    let rows = Matrix::from_rows(&[[1.0, -0.5, 2.0]]);
    let baseline = Baseline::Row(vec![0.2, 0.0, -0.1]);
    let orders = vec![vec![vec![0, 1], vec![1, 0]]];
    let network = small();
    let probe = Probe::new(&rows, &orders, &factors, &baseline, (&device(), DType::F64));
    let scores = Net::new(&network).scores(&Matrix::from_rows(&[
        [0.2, 0.0, -0.1],
        [1.0, 0.0, 2.0],
        [0.2, -0.5, -0.1],
        [1.0, -0.5, 2.0],
    ]));
    let question = 0.5 * (scores[1] - scores[0] + scores[3] - scores[2]);
    let number = 0.5 * (scores[2] - scores[0] + scores[3] - scores[1]);
    assert_close(probe.attributions(&network), [question, number], 1e-12);
}

#[test]
fn attributions_against_a_background_are_the_mean_over_its_rows() {
    let rows = Matrix::from_rows(&[[1.0, -0.5, 2.0], [0.3, 0.3, 0.3]]);
    let background = Matrix::from_rows(&[[0.2, 0.0, -0.1], [-1.0, 1.0, 0.5]]);
    let network = small();
    let of = |baseline: Baseline| probe(&rows, &pair_of_orders(2, 3), &baseline).attributions(&network);
    let row = |index: usize| of(Baseline::Row(background.row(index).to_vec()));
    let mean = (row(0) + row(1)).mul_scalar(0.5);
    let expected: Vec<f64> = mean.to_data().iter::<f64>().collect();
    assert_close(of(Baseline::Background(background.clone())), expected, 1e-14);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn recorded_gradients_agree_with_differences(
        importances in proptest::collection::vec(0.2..3.0_f64, 4),
        weights in proptest::collection::vec(0.05..1.0_f64, 4),
        tau in 0.3..2.0_f64,
    ) {
        let sum: f64 = weights.iter().sum();
        let q = distribution(&weights.iter().map(|weight| weight / sum).collect::<Vec<_>>());
        let at: Tensor<1> = double([importances[0], importances[1], importances[2], importances[3]]);
        for normalization in [Normalization::Ratio, Normalization::Softmax { tau: Positive::literal(tau) }] {
            for divergence in [Divergence::Forward, Divergence::Reverse, Divergence::JensenShannon] {
                let loss = |at| divergence_loss(log_shares(at, normalization), &q, divergence);
                assert_gradient(loss, at.clone(), 1e-7);
            }
            let others = [q.clone(), ImportanceDistribution::uniform(4).unwrap()];
            assert_gradient(|at| jensen_shannon_loss(log_shares(at, normalization), &others), at.clone(), 1e-7);
        }
    }

    #[test]
    fn sums_are_exact_whatever_the_orders(seed in 0_u64..1000, x in proptest::array::uniform3(-2.0..2.0_f64)) {
        let network = small();
        let rows = Matrix::from_rows(&[x]);
        let orders = antithetic_orders(1, 3, 2, &mut StdRng::seed_from_u64(seed));
        let (_, baseline) = small_rows();
        let phi = probe(&rows, &orders, &baseline).attributions(&network);
        let scores = Net::new(&network).scores(&Matrix::from_rows(&[x, [0.2, 0.0, -0.1]]));
        assert_close(phi.sum(), scores[0] - scores[1], 1e-12);
    }

    #[test]
    fn scaling_scores_changes_no_share_and_permuting_factors_permutes_them(scale in 0.1..20.0_f64) {
        let (rows, baseline) = small_rows();
        let share = |network: &Small, rows: &Matrix, baseline: &Baseline| {
            let phi = probe(rows, &all_orders(2), baseline).attributions(network);
            log_shares(smoothed_importances(phi, 0.0), Normalization::Ratio).exp()
        };
        let plain: Vec<f64> = share(&small(), &rows, &baseline).to_data().iter::<f64>().collect();
        let mut scaled = small();
        scaled.second = Param::from_tensor(double([[1.2 * scale], [-0.7 * scale]]));
        assert_close(share(&scaled, &rows, &baseline), plain.clone(), 1e-12);

        let mut moved = small();
        moved.first = Param::from_tensor(double([[-0.4, 0.6], [0.5, -0.3], [0.8, 0.2]]));
        let turned = Matrix::from_rows(&[[2.0, 1.0, -0.5], [0.3, -1.5, 0.7]]);
        let found = share(&moved, &turned, &Baseline::Row(vec![-0.1, 0.2, 0.0]));
        assert_close(found, [plain[2], plain[0], plain[1]], 1e-12);
    }
}

#[test]
fn a_factor_that_a_network_ignores_gets_exactly_nothing() {
    let mut network = small();
    network.first = Param::from_tensor(double([[0.5, -0.3], [0.0, 0.0], [-0.4, 0.6]]));
    let (rows, baseline) = small_rows();
    let phi = probe(&rows, &all_orders(2), &baseline).attributions(&network);
    let phi: Vec<f64> = phi.to_data().iter::<f64>().collect();
    assert_eq!((phi[1], phi[4]), (0.0, 0.0));
}
