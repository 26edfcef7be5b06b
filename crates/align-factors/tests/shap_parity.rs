//! Attributions equal to those of the `shap` package. `fixtures/shap_parity.py` made the fixture, which names its versions and
//! seed.

use std::path::Path;
use std::sync::LazyLock;

use align_factors::attribution::{
    Attributions, Baseline, Method, Precision, Terms, closed, exact, expected_gradients, explain,
    network_gradients, tree_interventional, tree_path,
};
use align_factors::{Factors, Forest, Matrix, Network, ScoreFn, Scorer};
use align_testkit::{assert_all_close, assert_close, device};
use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor, TensorData};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    linear: LinearCase,
    perceptron: PerceptronCase,
    boosted: ForestCase,
    missing: ForestCase,
}

#[derive(Deserialize)]
struct LinearCase {
    beta: Vec<f64>,
    constant: f64,
    background: Rows,
    rows: Rows,
    base: f64,
    phi: Rows,
}

#[derive(Deserialize)]
struct PerceptronCase {
    w1: Rows,
    b1: Vec<f64>,
    w2: Vec<f64>,
    b2: f64,
    background: Rows,
    rows: Rows,
    base: f64,
    phi: Rows,
    expected_gradients: Rows,
    expected_gradients_standard_errors: Rows,
}

#[derive(Deserialize)]
struct ForestCase {
    forest: Forest,
    background: Rows,
    rows: Rows,
    scores: Vec<f64>,
    path_base: f64,
    path: Rows,
    interventional_base: f64,
    interventional: Rows,
}

/// Rows of numbers, where null is a missing one.
#[derive(Deserialize)]
struct Rows(Vec<Vec<Option<f64>>>);

impl Rows {
    fn matrix(&self) -> Matrix {
        let row = |row: &Vec<Option<f64>>| row.iter().map(|x| x.unwrap_or(f64::NAN)).collect::<Vec<f64>>();
        Matrix::from_rows(&self.0.iter().map(row).collect::<Vec<_>>())
    }

    fn background(&self) -> Baseline {
        Baseline::Background(self.matrix())
    }
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/shap_parity.json");
    let file = std::fs::read(path).expect("the fixture belongs to the repository");
    serde_json::from_slice(&file).expect("the fixture is of this form")
});

fn columns(width: usize) -> Factors {
    Factors::columns((0..width).map(|column| format!("x{column}"))).expect("names differ")
}

fn assert_equal(found: &Attributions, base: f64, phi: &Rows, tolerance: f64) {
    assert_close(found.values.values(), phi.matrix().values(), tolerance);
    assert_close(found.base, base, tolerance);
}

#[test]
fn a_linear_model_is_explained_as_by_linear_explainer() {
    let case = &FIXTURE.linear;
    let (rows, factors) = (case.rows.matrix(), columns(4));
    let terms = Terms::linear(&case.beta, case.constant);
    let found = closed(&terms, &rows, &factors, &case.background.background()).expect("a question");
    // Sums of seven products of numbers about 1.
    assert_equal(&found, case.base, &case.phi, 1e-13);
}

#[test]
fn a_perceptron_is_explained_as_by_exact_explainer() {
    let case = &FIXTURE.perceptron;
    let (w1, rows) = (case.w1.matrix(), case.rows.matrix());
    let score = |x: &[f64]| {
        let hidden = (0..case.b1.len()).map(|unit| {
            let sum: f64 = x.iter().zip(w1.column(unit)).map(|(x, w)| x * w).sum();
            case.w2[unit] * (sum + case.b1[unit]).tanh()
        });
        hidden.sum::<f64>() + case.b2
    };
    let found =
        exact(&ScoreFn(score), &rows, &columns(5), &case.background.background()).expect("a question");
    // 32 coalitions times six background rows of scores about 1.
    assert_equal(&found, case.base, &case.phi, 1e-12);
}

/// tanh with one hidden layer, in f64.
#[derive(Module, Debug)]
struct Perceptron {
    w1: Param<Tensor<2>>,
    b1: Param<Tensor<1>>,
    w2: Param<Tensor<1>>,
    b2: Param<Tensor<1>>,
}

impl Network for Perceptron {
    fn forward(&self, rows: Tensor<2>) -> Tensor<1> {
        let hidden = (rows.matmul(self.w1.val()) + self.b1.val().unsqueeze()).tanh();
        (hidden * self.w2.val().unsqueeze()).sum_dim(1).squeeze_dim::<1>(1) + self.b2.val()
    }
}

impl Scorer for Perceptron {
    fn scores(&self, rows: &Matrix) -> Vec<f64> {
        let data = TensorData::new(rows.values().to_vec(), [rows.len(), rows.width()]);
        let rows = Tensor::from_data(data, (&device(), DType::F64));
        self.forward(rows).into_data().iter::<f64>().collect()
    }

    fn gradients(&self, rows: &Matrix) -> Option<Matrix> {
        Some(network_gradients(self, rows))
    }
}

#[test]
fn expected_gradients_are_those_of_gradient_explainer() {
    let case = &FIXTURE.perceptron;
    let (w1, rows) = (case.w1.matrix(), case.rows.matrix());
    let double = |values: Vec<f64>| {
        let count = values.len();
        Param::from_tensor(Tensor::<1>::from_data(TensorData::new(values, [count]), (&device(), DType::F64)))
    };
    let matrix = TensorData::new(w1.values().to_vec(), [w1.len(), w1.width()]);
    let network = Perceptron {
        w1: Param::from_tensor(Tensor::<2>::from_data(matrix, (&device(), DType::F64))),
        b1: double(case.b1.clone()),
        w2: double(case.w2.clone()),
        b2: double(vec![case.b2]),
    };
    let background = case.background.background();
    let found = expected_gradients(&network, &rows, &columns(5), &background, 1200, 3).expect("a question");
    // Two hundred parts of each of six paths leave little of a smooth score.
    let residual = found.residual();
    assert!(residual < 2e-4, "{residual}");
    let (theirs, errors) =
        (case.expected_gradients.matrix(), case.expected_gradients_standard_errors.matrix());
    for (index, (ours, theirs)) in found.values.values().iter().zip(theirs.values()).enumerate() {
        // Five standard errors of their 40 000 draws, and our residual.
        let tolerance = 5.0 * errors.values()[index] + residual;
        assert!((ours - theirs).abs() < tolerance, "{index}: {ours} and {theirs}, tolerance {tolerance}");
    }
}

#[test]
fn boosted_trees_are_explained_as_by_tree_explainer_along_paths() {
    let case = &FIXTURE.boosted;
    let rows = case.rows.matrix();
    let found = tree_path(&case.forest, &rows, &columns(6)).expect("covered trees");
    // Twenty trees with leaves about 1.
    assert_close(found.scores.clone(), case.scores.clone(), 1e-12);
    assert_equal(&found, case.path_base, &case.path, 1e-11);
    found.check(Precision::F64).expect("they add up");
}

#[test]
fn boosted_trees_are_explained_as_by_tree_explainer_against_a_background() {
    let case = &FIXTURE.boosted;
    let rows = case.rows.matrix();
    let baseline = case.background.background();
    let found = tree_interventional(&case.forest, &rows, &columns(6), &baseline).expect("a question");
    // Their weights of coalitions are f32, and some of their errors cancel; ours are those of the enumeration.
    assert_equal(&found, case.interventional_base, &case.interventional, 1e-7);
    let enumerated = exact(&case.forest, &rows, &columns(6), &baseline).expect("a question");
    assert_close(found.values.values(), enumerated.values.values(), 1e-13);
}

#[test]
fn trees_with_missing_values_are_explained_as_by_xgboost_along_paths() {
    let case = &FIXTURE.missing;
    let rows = case.rows.matrix();
    assert!(rows.values().iter().any(|x| x.is_nan()));
    let found = tree_path(&case.forest, &rows, &columns(5)).expect("covered trees");
    // xgboost sums in f32: 24 bits of numbers about 3, over twelve trees.
    assert_all_close(found.scores.clone(), case.scores.clone(), 1e-6, 1e-6);
    assert_equal(&found, case.path_base, &case.path, 5e-6);
}

#[test]
fn trees_with_missing_values_are_explained_as_by_tree_explainer_against_a_background() {
    let case = &FIXTURE.missing;
    let rows = case.rows.matrix();
    let baseline = case.background.background();
    assert!(case.background.matrix().values().iter().any(|x| x.is_nan()));
    let found = explain(&case.forest, &rows, &columns(5), &baseline, Method::TreeInterventional {});
    // The leaves of xgboost are f32 and are added in f64 here as there.
    assert_equal(&found.expect("a question"), case.interventional_base, &case.interventional, 1e-6);
}
