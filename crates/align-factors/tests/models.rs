//! Models against closed forms, other implementations and their own laws.

use std::fs;
use std::path::{Path, PathBuf};

use align_core::PersistError;
use align_core::number::NonNegative;
use align_factors::attribution::{Baseline, Method, explain};
use align_factors::guide::Probe;
use align_factors::{
    Activation, AnyNetwork, BoostedStumps, Factor, FactorizationMachine, Factors, Forest, FtConfig,
    FtTransformer, Logistic, Matrix, Mlp, Model, ModelError, Net, Network, NetworkConfig, Node, Ridge,
    RidgeConfig, RidgeTerms, Scorer, Side, StumpsConfig, Tree, TreesConfig, TreesLoss, to_double,
};
use align_testkit::gradcheck::assert_module_gradients;
use align_testkit::{assert_all_close, assert_close, device, double};
use burn::module::Module;
use burn::tensor::{DType, Tensor};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Deserialize;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// What `tests/fixtures/make_models.py` wrote.
#[derive(Deserialize)]
struct Reference {
    rows: Vec<Vec<f64>>,
    labels: Vec<f64>,
    binary: Vec<f64>,
    ridge: Coefficients,
    pairwise: Coefficients,
    logistic: Coefficients,
    stumps: Vec<f64>,
    ft_transformer: Vec<f64>,
}

#[derive(Deserialize)]
struct Coefficients {
    bias: f64,
    weights: Vec<f64>,
    #[serde(default)]
    pairs: Vec<(usize, usize, f64)>,
}

fn reference() -> (Reference, Matrix) {
    let text = fs::read_to_string(fixtures().join("models.json")).unwrap();
    let reference: Reference = serde_json::from_str(&text).unwrap();
    let rows = Matrix::from_rows(&reference.rows);
    (reference, rows)
}

fn random_rows(rows: usize, width: usize, seed: u64) -> Matrix {
    let mut rng = StdRng::seed_from_u64(seed);
    Matrix::new((0..rows * width).map(|_| rng.random_range(-2.0..2.0)).collect(), width)
}

/// A question in two columns and two numbers.
fn factors() -> Factors {
    let factor = |name: &str, columns: &[usize]| Factor { name: name.into(), columns: columns.to_vec() };
    Factors::new(vec![factor("question", &[0, 2]), factor("age", &[1]), factor("income", &[3])]).unwrap()
}

fn networks() -> Vec<NetworkConfig> {
    vec![
        NetworkConfig::Linear {},
        NetworkConfig::FactorizationMachine { rank: 3 },
        NetworkConfig::Mlp { hidden: vec![5, 3], activation: Activation::Tanh },
        NetworkConfig::Mlp { hidden: vec![6], activation: Activation::Relu },
        NetworkConfig::FtTransformer(FtConfig { width: 8, heads: 2, blocks: 2, hidden: 6 }),
    ]
}

#[test]
fn ridge_regressions_are_those_of_scikit_learn() {
    let (reference, rows) = reference();
    let linear = Ridge::fit(&rows, &reference.labels, &RidgeConfig::default()).unwrap();
    // The same equations in f64; LAPACK factorises in another order.
    assert_close(&linear.weights, &reference.ridge.weights, 1e-12);
    assert_close(linear.bias, reference.ridge.bias, 1e-12);
    let pairwise = Ridge::fit(&rows, &reference.labels, &RidgeConfig::pairs()).unwrap();
    assert_close(&pairwise.weights, &reference.pairwise.weights, 1e-12);
    assert_close(pairwise.bias, reference.pairwise.bias, 1e-12);
    for (ours, &(first, second, weight)) in pairwise.pairs.iter().zip(&reference.pairwise.pairs) {
        assert_eq!((ours.first, ours.second), (first, second));
        assert_close(ours.weight, weight, 1e-12);
    }
}

#[test]
fn logistic_regression_is_that_of_scikit_learn() {
    let (reference, rows) = reference();
    let model = Logistic::fit(&rows, &reference.binary, NonNegative::literal(1.0)).unwrap();
    // L-BFGS stops at a gradient of about 1e-7.
    assert_close(&model.weights, &reference.logistic.weights, 1e-5);
    assert_close(model.bias, reference.logistic.bias, 1e-5);
    // At the minimum residuals are orthogonal to the columns, up to the penalty.
    let scores = model.scores(&rows);
    for column in 0..4 {
        let terms = rows.column(column).zip(scores.iter().zip(&reference.binary));
        let gradient: f64 = terms.map(|(x, (f, y))| x * (1.0 / (1.0 + (-f).exp()) - y)).sum();
        assert_close(gradient, -model.weights[column], 1e-8);
    }
}

#[test]
fn boosted_stumps_are_those_of_scikit_learn() {
    let (reference, rows) = reference();
    let model = BoostedStumps::fit(&rows, &reference.labels, &StumpsConfig::default()).unwrap();
    assert_eq!(model.stumps.len(), 150);
    // Sums of 150 steps; scikit-learn reads columns in f32, which parts the same rows.
    assert_close(model.scores(&rows), &reference.stumps, 1e-10);
    assert_close(model.to_forest().scores(&rows), model.scores(&rows), 1e-12);
    let by_shapes: Vec<f64> = rows
        .rows()
        .map(|row| model.base + row.iter().enumerate().map(|(j, &x)| model.shape(j, x)).sum::<f64>())
        .collect();
    assert_close(by_shapes, model.scores(&rows), 1e-12);
}

#[test]
fn the_transformer_is_that_of_pytorch_and_weights_are_read_from_its_file() {
    let (reference, rows) = reference();
    let model = Model::load(&fixtures().join("ft_transformer"), &device()).unwrap();
    assert_eq!(model.kind(), "FT-Transformer");
    // Two blocks in f64.
    assert_close(model.scores(&rows), &reference.ft_transformer, 1e-12);
}

#[test]
fn a_factorisation_machine_sums_over_pairs() {
    let network = to_double(&FactorizationMachine::new(4, 3, 0.5, 3, &device()));
    let rows = random_rows(7, 4, 1);
    let numbers = |tensor: Tensor<2>| tensor.to_data().iter::<f64>().collect::<Vec<_>>();
    let (weights, latent) = (numbers(network.weights.val()), numbers(network.latent.val()));
    let expected: Vec<f64> = rows
        .rows()
        .map(|x| {
            let linear: f64 = weights.iter().zip(x).map(|(weight, x)| weight * x).sum();
            let mut pairs = 0.0;
            for i in 0..4 {
                for j in i + 1..4 {
                    let dot: f64 = (0..3).map(|k| latent[3 * i + k] * latent[3 * j + k]).sum();
                    pairs += dot * x[i] * x[j];
                }
            }
            0.5 + linear + pairs
        })
        .collect();
    assert_close(Net::new(&network).scores(&rows), expected, 1e-14);
}

#[test]
fn gradients_of_every_network_agree_with_differences() {
    let rows = random_rows(3, 4, 2);
    let x: Tensor<2> = Tensor::from_data(
        burn::tensor::TensorData::new(rows.values().to_vec(), [3, 4]),
        (&device(), DType::F64),
    );
    for config in networks() {
        let network = to_double(&config.build(&factors(), 0.3, 4, &device())).train();
        let loss =
            |network: &AnyNetwork| (network.forward(x.clone()) - double([1.0, -1.0, 0.5])).square().mean();
        assert_module_gradients(&network, loss, 1e-6);
    }
}

#[test]
fn weights_are_decided_by_the_seed_and_scores_start_at_the_center() {
    let rows = random_rows(50, 4, 3);
    for config in networks() {
        let scores = |seed| Net::new(&config.build(&factors(), 3.0, seed, &device())).scores(&rows);
        assert_eq!(scores(1), scores(1), "{config:?}");
        assert_ne!(scores(1), scores(2), "{config:?}");
        let shifted = Net::new(&config.build(&factors(), 4.0, 1, &device())).scores(&rows);
        let expected: Vec<f64> = scores(1).iter().map(|score| score + 1.0).collect();
        // One rounding in f32.
        assert_close(shifted, expected, 1e-5);
    }
}

#[test]
fn rows_are_scored_alike_alone_and_in_any_number() {
    let rows = random_rows(9000, 4, 4);
    for config in networks() {
        let net = Net::new(&config.build(&factors(), 0.0, 5, &device()));
        let together = net.scores(&rows);
        assert_eq!(together.len(), 9000);
        for index in [0, 4095, 4096, 8999] {
            // Products of matrices of other shapes round otherwise.
            assert_close(net.scores(&rows.select(&[index])), together[index], 1e-5);
        }
    }
}

#[test]
fn the_transformer_sees_a_group_as_one_token() {
    let config = FtConfig { width: 8, heads: 2, blocks: 2, hidden: 6 };
    let network = FtTransformer::new(&factors(), config, 0.0, 6, &device());
    assert_eq!(network.factors().len(), 3);
    // A row that is 0 has biases for tokens; it makes no difference which column of a group that is.
    let rows = Matrix::from_rows(&[[0.0; 4], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]);
    let scores = Net::new(&network).scores(&rows);
    assert!(scores[0] != scores[1] && scores[1] != scores[2]);
    let parameters = |factors: &Factors| FtTransformer::new(factors, config, 0.0, 6, &device()).num_params();
    let single = Factors::columns(["a", "b", "c", "d"]).unwrap();
    // One bias of 8 numbers more.
    assert_eq!(parameters(&single), parameters(&factors()) + 8);
}

#[test]
fn one_pair_of_orders_is_exact_for_a_factorisation_machine_and_not_for_a_perceptron() {
    let factors = Factors::columns(["a", "b", "c", "d"]).unwrap();
    let (rows, baseline) = (random_rows(4, 4, 7), Baseline::Row(vec![0.3, -0.2, 0.1, 0.0]));
    let orders = vec![vec![vec![2, 0, 3, 1], vec![1, 3, 0, 2]]; 4];
    let probe = Probe::new(&rows, &orders, &factors, &baseline, (&device(), DType::F64));
    let distance = |network: &AnyNetwork| {
        let exact = explain(&Net::new(network), &rows, &factors, &baseline, Method::Exact {}).unwrap();
        let sampled: Vec<f64> = probe.attributions(network).to_data().iter::<f64>().collect();
        exact.values.values().iter().zip(sampled).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    let build = |config: NetworkConfig| to_double(&config.build(&factors, 0.0, 8, &device()));
    assert!(distance(&build(NetworkConfig::FactorizationMachine { rank: 3 })) < 1e-12);
    assert!(distance(&build(NetworkConfig::Mlp { hidden: vec![6], activation: Activation::Tanh })) > 1e-3);
}

#[test]
fn closed_forms_are_what_enumeration_finds() {
    let (reference, rows) = reference();
    let labels = &reference.labels;
    let machine = NetworkConfig::FactorizationMachine { rank: 3 }.build(&factors(), 0.0, 9, &device());
    let linear = NetworkConfig::Linear {}.build(&factors(), 0.0, 9, &device());
    let models: Vec<Box<dyn Scorer>> = vec![
        Box::new(Ridge::fit(&rows, labels, &RidgeConfig::pairs()).unwrap()),
        Box::new(Logistic::fit(&rows, &reference.binary, NonNegative::literal(1.0)).unwrap()),
        Box::new(BoostedStumps::fit(&rows, labels, &StumpsConfig::default()).unwrap()),
        Box::new(Forest::fit(&rows, labels, &TreesConfig::default()).unwrap()),
        Box::new(Net::new(&to_double(&machine))),
        Box::new(Net::new(&to_double(&linear))),
    ];
    let baseline = Baseline::background(&rows, 5, 1);
    for model in models {
        let chosen = Method::Auto {}.chosen(&model, &factors());
        assert!(matches!(chosen, Method::Closed {} | Method::TreeInterventional {}), "{chosen:?}");
        let by = |method| explain(&model, &rows, &factors(), &baseline, method).unwrap().values;
        assert_close(by(chosen).values(), by(Method::Exact {}).values(), 1e-10);
    }
}

#[test]
fn trees_learn_interactions_and_missing_values_and_do_not_depend_on_threads() {
    let mut rng = StdRng::seed_from_u64(12);
    let mut values = Vec::new();
    let mut labels = Vec::new();
    for _ in 0..600 {
        let x: [f64; 3] = [0; 3].map(|_| rng.random_range(-1.0..1.0));
        let missing = rng.random_range(0.0..1.0) < 0.2;
        labels.push(f64::from(x[0] * x[1] > 0.0) + if missing { 3.0 } else { 0.0 });
        values.extend([x[0], x[1], if missing { f64::NAN } else { x[2] }]);
    }
    let rows = Matrix::new(values, 3);
    let fit = |config: TreesConfig| Forest::fit(&rows, &labels, &config).unwrap();
    let error = |forest: &Forest| {
        let scores = forest.scores(&rows);
        scores.iter().zip(&labels).map(|(score, label)| (score - label).powi(2)).sum::<f64>() / 600.0
    };
    let usual = TreesConfig::default();
    assert!(error(&fit(usual)) < 0.02, "{}", error(&fit(usual)));
    // A sum of functions of one column knows nothing of the sign of a product, whose variance is 1/4.
    assert!(error(&fit(TreesConfig { depth: 1, ..usual })) > 0.2);
    assert_eq!(fit(usual), fit(TreesConfig { threads: 2, ..usual }));
    for other in [
        TreesConfig { trees: 20, ..usual },
        TreesConfig { learning_rate: align_core::number::Fraction::literal(0.3), ..usual },
        TreesConfig { depth: 2, ..usual },
        TreesConfig { lambda: NonNegative::literal(20.0), ..usual },
    ] {
        assert_ne!(fit(other), fit(usual), "{other:?}");
    }
    let binary: Vec<f64> = labels.iter().map(|&label| f64::from(label > 0.5)).collect();
    let logistic = TreesConfig { loss: TreesLoss::Logistic, ..usual };
    let scores = Forest::fit(&rows, &binary, &logistic).unwrap().scores(&rows);
    let right =
        scores.iter().zip(&binary).filter(|(score, label)| (**score > 0.0) == (**label > 0.5)).count();
    assert!(right > 580, "{right} of 600");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn ridge_has_no_better_neighbour(seed in 0_u64..10_000, ridge in 0.01..10.0_f64, pairs in any::<bool>()) {
        let rows = random_rows(20, 3, seed);
        let labels: Vec<f64> = random_rows(20, 1, seed + 1).values().to_vec();
        let terms = if pairs { RidgeTerms::Pairs } else { RidgeTerms::Linear };
        let config = RidgeConfig { terms, ridge: ridge.try_into().unwrap() };
        let best = Ridge::fit(&rows, &labels, &config).unwrap();
        let loss = |model: &Ridge| {
            let errors = model.scores(&rows).iter().zip(&labels).map(|(f, y)| (y - f).powi(2)).sum::<f64>();
            let squares = model.weights.iter().map(|weight| weight * weight).sum::<f64>()
                + model.pairs.iter().map(|pair| pair.weight * pair.weight).sum::<f64>();
            errors + ridge * squares
        };
        let least = loss(&best);
        for step in [-1e-3, 1e-3] {
            let mut other = best.clone();
            other.bias += step;
            prop_assert!(loss(&other) > least);
            for index in 0..3 {
                let mut other = best.clone();
                other.weights[index] += step;
                prop_assert!(loss(&other) > least);
            }
            for index in 0..best.pairs.len() {
                let mut other = best.clone();
                other.pairs[index].weight += step;
                prop_assert!(loss(&other) > least);
            }
        }
    }

    #[test]
    fn no_other_first_step_explains_more(seed in 0_u64..10_000) {
        let rows = random_rows(15, 2, seed);
        let labels: Vec<f64> = random_rows(15, 1, seed + 1).values().to_vec();
        let config = StumpsConfig { rounds: 1, learning_rate: align_core::number::Fraction::literal(1.0) };
        let model = BoostedStumps::fit(&rows, &labels, &config).unwrap();
        let error = |scores: &[f64]| scores.iter().zip(&labels).map(|(f, y)| (f - y).powi(2)).sum::<f64>();
        let ours = error(&model.scores(&rows));
        for column in 0..2 {
            for threshold in rows.column(column) {
                let side = |below: bool| {
                    let chosen: Vec<f64> = rows
                        .column(column)
                        .zip(&labels)
                        .filter(|(x, _)| (*x < threshold) == below)
                        .map(|(_, label)| *label)
                        .collect();
                    chosen.iter().sum::<f64>() / chosen.len().max(1) as f64
                };
                let (below, above) = (side(true), side(false));
                let scores: Vec<f64> =
                    rows.column(column).map(|x| if x < threshold { below } else { above }).collect();
                prop_assert!(ours <= error(&scores) + 1e-9);
            }
        }
    }
}

#[test]
fn every_model_survives_a_round_trip_bit_for_bit() {
    let (reference, rows) = reference();
    let labels = &reference.labels;
    let mut models = vec![
        Model::Ridge(Ridge::fit(&rows, labels, &RidgeConfig::default()).unwrap()),
        Model::Ridge(Ridge::fit(&rows, labels, &RidgeConfig::pairs()).unwrap()),
        Model::Logistic(Logistic::fit(&rows, &reference.binary, NonNegative::literal(1.0)).unwrap()),
        Model::BoostedStumps(BoostedStumps::fit(&rows, labels, &StumpsConfig::default()).unwrap()),
        Model::Forest(Forest::fit(&rows, labels, &TreesConfig::default()).unwrap()),
    ];
    for config in networks() {
        let network = config.build(&factors(), 0.4, 13, &device());
        models.push(Model::Network(Box::new(Net::new(&to_double(&network))), factors()));
        models.push(Model::Network(Box::new(Net::new(&network)), factors()));
    }
    for model in models {
        let folder = tempfile::tempdir().unwrap();
        model.save(folder.path()).unwrap();
        let read = Model::load(folder.path(), &device()).unwrap();
        assert_eq!(read.kind(), model.kind());
        assert_eq!(read.scores(&rows), model.scores(&rows), "{}", model.kind());
        assert_eq!(read.precision(), model.precision());
    }
}

#[test]
fn damaged_and_foreign_files_are_refused_by_name() {
    let load = |folder: &Path| Model::load(folder, &device()).unwrap_err();
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(load(folder.path()), PersistError::Read { path, .. } if path.ends_with("model.json")));
    let file = folder.path().join("model.json");
    fs::write(&file, r#"{"kind": "oracle"}"#).unwrap();
    let message = load(folder.path()).to_string();
    assert!(message.contains("model.json") && message.contains("oracle"), "{message}");
    // A tree whose child is its parent.
    fs::write(
        &file,
        r#"{"kind": "forest", "base": 0, "trees": [[{"kind": "split", "column": 0, "threshold": 0, "left": 0, "right": 0,
            "missing": "left", "cover": 1}]]}"#,
    )
    .unwrap();
    let message = load(folder.path()).to_string();
    assert!(message.contains("node 0") && message.contains("child 0"), "{message}");
    // Weights of another width.
    let network = NetworkConfig::default().build(&factors(), 0.0, 1, &device());
    Model::Network(Box::new(Net::new(&network)), factors()).save(folder.path()).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("32", "16")).unwrap();
    assert!(matches!(load(folder.path()), PersistError::Shape { .. }), "{}", load(folder.path()));
    fs::remove_file(folder.path().join("network.safetensors")).unwrap();
    assert!(matches!(load(folder.path()), PersistError::Read { .. }));
}

#[test]
fn data_that_cannot_be_fitted_is_refused_by_name() {
    let rows = Matrix::from_rows(&[[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]]);
    let holes = Matrix::from_rows(&[[1.0, 2.0], [2.0, f64::NAN], [3.0, 6.0]]);
    let labels = [1.0, 0.0, 1.0];
    let ridge = |rows: &Matrix, labels: &[f64]| {
        let config = RidgeConfig { ridge: NonNegative::literal(0.0), ..RidgeConfig::default() };
        Ridge::fit(rows, labels, &config).unwrap_err().to_string()
    };
    assert_eq!(
        ridge(&rows, &labels),
        "cannot fit ridge: column 1 is a combination of others; set a ridge above 0"
    );
    assert_eq!(ridge(&rows, &labels[..2]), "cannot fit ridge: 3 rows and 2 labels");
    assert_eq!(ridge(&holes, &labels), "cannot fit ridge: column 1 of row 1 is NaN");
    assert_eq!(ridge(&rows, &[1.0, f64::INFINITY, 0.0]), "cannot fit ridge: the label of row 1 is inf");

    let error = Logistic::fit(&rows, &[0.0, 2.0, 1.0], NonNegative::literal(1.0)).unwrap_err();
    assert!(matches!(error, ModelError::NotBinary { row: 1, .. }), "{error}");
    // A plane separates the classes: without a penalty the weights grow for ever.
    let line = Matrix::from_rows(&[[-2.0], [-1.0], [1.0], [2.0]]);
    let error = Logistic::fit(&line, &[0.0, 0.0, 1.0, 1.0], NonNegative::literal(0.0)).unwrap_err();
    assert!(matches!(error, ModelError::NotConverged { .. } | ModelError::Singular { .. }), "{error}");

    let logistic = TreesConfig { loss: TreesLoss::Logistic, ..TreesConfig::default() };
    let error = Forest::fit(&holes, &[0.0, 1.0, 3.0], &logistic).unwrap_err();
    assert!(matches!(error, ModelError::NotBinary { row: 2, .. }), "{error}");
    let error = Forest::fit(&rows, &labels, &TreesConfig { depth: 0, ..TreesConfig::default() }).unwrap_err();
    assert!(error.to_string().contains("max_depth"), "{error}");
    let infinite = Matrix::from_rows(&[[1.0], [f64::INFINITY], [2.0]]);
    assert!(matches!(
        Forest::fit(&infinite, &labels, &TreesConfig::default()).unwrap_err(),
        ModelError::Trees(_)
    ));

    // Constant columns have no step to take.
    let constant = Matrix::from_rows(&[[1.0], [1.0], [1.0]]);
    let model = BoostedStumps::fit(&constant, &labels, &StumpsConfig::default()).unwrap();
    assert!(model.stumps.is_empty());
    assert_close(model.score(&[1.0]), 2.0 / 3.0, 1e-15);
}

#[test]
fn nodes_that_are_no_tree_are_refused() {
    let leaf = |value| Node::Leaf { value, cover: 1.0 };
    let split =
        |left, right| Node::Split { column: 0, threshold: 0.0, left, right, missing: Side::Left, cover: 2.0 };
    let refused = |nodes: Vec<Node>| match Tree::new(nodes).unwrap_err() {
        ModelError::Tree { node, .. } => node,
        error => panic!("{error}"),
    };
    assert_eq!(refused(vec![]), 0);
    assert_eq!(refused(vec![split(1, 2), leaf(0.0)]), 0);
    assert_eq!(refused(vec![split(1, 1), leaf(0.0)]), 1);
    assert_eq!(refused(vec![leaf(0.0), leaf(1.0)]), 1);
    assert_eq!(refused(vec![split(1, 2), leaf(f64::NAN), leaf(1.0)]), 1);
    assert_eq!(refused(vec![split(1, 2), leaf(0.0), Node::Leaf { value: 0.0, cover: -1.0 }]), 2);
    assert_eq!(refused(vec![split(1, 2), split(1, 3), leaf(0.0), leaf(0.0)]), 1);
    let tree = Tree::new(vec![split(1, 2), leaf(-1.0), leaf(1.0)]).unwrap();
    assert_eq!([-0.5, 0.0, f64::NAN].map(|x| tree.score(&[x])), [-1.0, 1.0, -1.0]);
}

#[test]
fn perceptrons_bend_as_they_are_told() {
    let rows = random_rows(20, 4, 15);
    let of = |activation| {
        let network = Mlp::new(4, &[6, 5], activation, 0.0, 3, &device());
        assert_eq!((network.columns(), network.hidden()), (4, vec![6, 5]));
        Net::new(&network).scores(&rows)
    };
    let (tanh, relu) = (of(Activation::Tanh), of(Activation::Relu));
    assert_ne!(tanh, relu);
    // Without a hidden layer there is nothing to bend.
    let line = |activation| Net::new(&Mlp::new(4, &[], activation, 0.0, 3, &device())).scores(&rows);
    assert_eq!(line(Activation::Tanh), line(Activation::Relu));
    // Relu is positively homogeneous where biases are 0, as they are at the start.
    let double: Vec<f64> = rows.values().iter().map(|x| 2.0 * x).collect();
    let network = Mlp::new(4, &[6, 5], Activation::Relu, 0.0, 3, &device());
    let doubled = Net::new(&network).scores(&Matrix::new(double, 4));
    let expected: Vec<f64> = relu.iter().map(|score| 2.0 * score).collect();
    assert_all_close(doubled, expected, 1e-5, 1e-6);
}
