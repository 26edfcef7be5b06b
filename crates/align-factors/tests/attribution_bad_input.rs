//! Attributions that are refused, and why.

use align_factors::attribution::{
    BandConfig, Baseline, BaselineConfig, Method, Precision, Structure, along_orders, exact,
    expected_gradients, explain, importance_bands, permutation, share_bands, tree_interventional, tree_path,
};
use align_factors::{Factors, FactorsError, Forest, Matrix, Node, ScoreFn, Scorer, Side, Tree};

fn columns(width: usize) -> Factors {
    Factors::columns((1..=width).map(|column| format!("x{column}"))).expect("names differ")
}

/// A rule `x₀ < 0.5`, through which this many training rows came.
fn stump(cover: f64) -> Tree {
    Tree::new(vec![
        Node::Split { column: 0, threshold: 0.5, left: 1, right: 2, missing: Side::Left, cover },
        Node::Leaf { value: 1.0, cover: cover / 2.0 },
        Node::Leaf { value: 2.0, cover: cover / 2.0 },
    ])
    .expect("a tree")
}

/// Scores that are not those of the structure.
struct Liar(Forest);

impl Scorer for Liar {
    fn scores(&self, rows: &Matrix) -> Vec<f64> {
        self.0.scores(rows).into_iter().map(|score| score + 0.01).collect()
    }

    fn structure(&self) -> Structure<'_> {
        Structure::Forest(&self.0)
    }

    fn gradients(&self, rows: &Matrix) -> Option<Matrix> {
        Some(Matrix::new(vec![f64::NAN; rows.values().len()], rows.width()))
    }
}

#[test]
fn attributions_that_do_not_add_up_are_refused() {
    let model = Liar(Forest { base: 0.0, trees: vec![stump(4.0)] });
    let (rows, baseline) = (Matrix::from_rows(&[[0.0, 3.0]]), Baseline::Row(vec![0.0, 3.0]));
    for method in [Method::Auto {}, Method::TreePath {}] {
        let error = explain(&model, &rows, &columns(2), &baseline, method).unwrap_err();
        let FactorsError::AttributionMismatch { difference } = error else { panic!("{error}") };
        assert!(difference > 1e-3 && difference < 0.011, "{difference}");
    }
    // A residual of 1e-4 is rounding in f32, and not in f64; a NaN is neither.
    let mut found = exact(&model, &rows, &columns(2), &baseline).expect("a question");
    found.base += 1e-4;
    assert!(found.check(Precision::F32).is_ok());
    assert!(matches!(found.check(Precision::F64), Err(FactorsError::AttributionMismatch { .. })));
    found.base = f64::NAN;
    assert!(found.check(Precision::F32).is_err());
}

#[test]
fn a_score_that_is_not_finite_names_its_row_and_position() {
    // The root of a difference breaks when the second factor is from the row and the first is not.
    let model = ScoreFn(|x: &[f64]| (x[0] - x[1]).sqrt());
    let rows = Matrix::from_rows(&[[4.0, 1.0], [9.0, 5.0]]);
    let (factors, baseline) = (columns(2), Baseline::Row(vec![2.0, 1.0]));
    for error in [
        exact(&model, &rows, &factors, &baseline).unwrap_err(),
        permutation(&model, &rows, &factors, &baseline, 2, 0).unwrap_err(),
    ] {
        assert!(
            matches!(error, FactorsError::NonFinite { row: 1, position: 1, value } if value.is_nan()),
            "{error}"
        );
        assert_eq!(error.to_string(), "NonFinite: model returned NaN for masked input 1, order position 1");
    }
    let broken = |rows: &[[f64; 2]], b: [f64; 2]| {
        exact(&model, &Matrix::from_rows(rows), &factors, &Baseline::Row(b.to_vec())).unwrap_err()
    };
    assert!(matches!(
        broken(&[[4.0, 1.0], [1.0, 5.0]], [2.0, 1.0]),
        FactorsError::NonFinite { row: 1, position: 2, .. }
    ));
    assert!(matches!(broken(&[[4.0, 1.0]], [0.0, 1.0]), FactorsError::NonFinite { row: 0, position: 0, .. }));
    let liar = Liar(Forest { base: 0.0, trees: vec![stump(4.0)] });
    let error = expected_gradients(&liar, &rows, &factors, &baseline, 1, 0).unwrap_err();
    assert!(matches!(error, FactorsError::NonFinite { row: 0, position: 2, .. }), "{error}");
}

#[test]
fn counts_of_nothing_are_refused() {
    let model = ScoreFn(|x: &[f64]| x[0]);
    let (rows, factors, baseline) = (Matrix::from_rows(&[[1.0]]), columns(1), Baseline::Row(vec![0.0]));
    let none = Matrix::new(Vec::new(), 1);
    let count = |error: FactorsError| match error {
        FactorsError::InvalidCount { name, least: 1, found: 0 } => name,
        other => panic!("{other}"),
    };
    let forest = Forest { base: 0.0, trees: Vec::new() };
    let empty = Baseline::Background(none.clone());
    assert_eq!(count(exact(&model, &none, &factors, &baseline).unwrap_err()), "rows");
    assert_eq!(count(exact(&model, &rows, &factors, &empty).unwrap_err()), "background rows");
    assert_eq!(count(tree_path(&forest, &none, &factors).unwrap_err()), "rows");
    assert_eq!(count(permutation(&model, &rows, &factors, &baseline, 0, 0).unwrap_err()), "pairs of orders");
    assert_eq!(count(along_orders(&model, &rows, &factors, &baseline, &[]).unwrap_err()), "orders");
    assert_eq!(
        count(expected_gradients(&model, &rows, &factors, &baseline, 0, 0).unwrap_err()),
        "pairs of points"
    );
    let found = exact(&model, &rows, &factors, &baseline).expect("a question");
    let config = BandConfig { resamples: 0, ..BandConfig::default() };
    assert_eq!(count(importance_bands(&found, &config).unwrap_err()), "resamples");
}

#[test]
fn methods_refuse_models_they_do_not_fit() {
    let model = ScoreFn(|x: &[f64]| x[0]);
    let (rows, baseline) = (Matrix::new(vec![1.0; 13], 13), Baseline::Row(vec![0.0; 13]));
    let error = |method| explain(&model, &rows, &columns(13), &baseline, method).unwrap_err().to_string();
    assert_eq!(
        error(Method::Exact {}),
        "TooManyFactors: enumeration takes at most 12 factors, got 13; sample orders instead"
    );
    assert_eq!(error(Method::Closed {}), "Unsuitable: closed needs a score that is a sum of terms");
    assert_eq!(error(Method::TreePath {}), "Unsuitable: tree_path needs a sum of trees");
    assert_eq!(error(Method::TreeInterventional {}), "Unsuitable: tree_interventional needs a sum of trees");
    assert_eq!(
        error(Method::ExpectedGradients { pairs: 2, seed: 0 }),
        "Unsuitable: expected_gradients needs a model with gradients"
    );
}

#[test]
fn paths_without_training_weight_are_refused() {
    let forest = Forest { base: 0.0, trees: vec![stump(4.0), stump(0.0)] };
    let rows = Matrix::from_rows(&[[0.0, 1.0]]);
    assert_eq!(tree_path(&forest, &rows, &columns(2)), Err(FactorsError::Uncovered { tree: 1, node: 0 }));
    // Against a baseline covers do not matter.
    let baseline = Baseline::Row(vec![1.0, 1.0]);
    assert!(tree_interventional(&forest, &rows, &columns(2), &baseline).is_ok());
}

#[test]
fn shares_of_nothing_are_refused() {
    let rows = Matrix::from_rows(&[[1.0, 2.0]]);
    let baseline = Baseline::Row(vec![0.0; 2]);
    let found = exact(&ScoreFn(|_: &[f64]| 3.0), &rows, &columns(2), &baseline).expect("a question");
    assert_eq!(share_bands(&found, &BandConfig::default()), Err(FactorsError::DegenerateExplanation));
}

#[test]
fn settings_are_read_with_their_defaults_and_refuse_strangers() {
    let method = |text: &str| toml::from_str::<Method>(text);
    assert_eq!(method("kind = 'auto'").expect("a method"), Method::default());
    assert_eq!(method("kind = 'permutation'").expect("a method"), Method::Permutation { pairs: 4, seed: 0 });
    assert_eq!(
        method("kind = 'expected_gradients'\nseed = 9").expect("a method"),
        Method::ExpectedGradients { pairs: 50, seed: 9 }
    );
    assert!(method("kind = 'exact'\npairs = 2").is_err());
    assert!(method("kind = 'kernel'").is_err());
    let baseline = toml::from_str::<BaselineConfig>("kind = 'background'").expect("a baseline");
    assert_eq!(baseline, BaselineConfig::Background { rows: 32, seed: 0 });
    assert_eq!(BaselineConfig::default(), BaselineConfig::Mean {});
    assert_eq!(toml::from_str::<BandConfig>("").expect("all defaults"), BandConfig::default());
    assert!(toml::from_str::<BandConfig>("level = 1.5").is_err());
}
