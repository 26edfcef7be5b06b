//! Attributions whose values are known, and what is refused.

use align_factors::attribution::{
    AttributionWarning, Attributions, BandConfig, Baseline, BaselineConfig, Curve, Method, Precision, Terms,
    along_orders, closed, drawn_orders, exact, expected_gradients, explain, importance_bands, importances,
    network_gradients, permutation, share_bands, tree_interventional, tree_path,
};
use align_factors::{
    Activation, BoostedStumps, Factor, FactorizationMachine, Factors, FactorsError, Forest, Linear, Logistic,
    Matrix, Mlp, Net, Node, PairTerm, Ridge, RidgeConfig, RidgeTerms, ScoreFn, Scorer, Side, StumpsConfig,
    Tree, TreesConfig, to_double,
};
use align_testkit::{assert_all_close, assert_close, device};

/// The published digits of the cases.
const PUBLISHED: f64 = 1e-8;

fn columns(width: usize) -> Factors {
    Factors::columns((1..=width).map(|column| format!("x{column}"))).expect("names differ")
}

fn grouped(groups: &[&[usize]]) -> Factors {
    let factor = |(index, columns): (usize, &&[usize])| Factor {
        name: format!("g{index}"),
        columns: columns.to_vec(),
    };
    Factors::new(groups.iter().enumerate().map(factor).collect()).expect("groups of columns")
}

/// Two columns of a survey: a rule `x₀ < 0.5`, then another on either side. Covers are those of ten training rows.
fn small_tree() -> Tree {
    let split = |column, threshold, left, right, missing, cover| Node::Split {
        column,
        threshold,
        left,
        right,
        missing,
        cover,
    };
    Tree::new(vec![
        split(0, 0.5, 1, 2, Side::Right, 10.0),
        Node::Leaf { value: 1.0, cover: 4.0 },
        split(1, 2.0, 3, 4, Side::Left, 6.0),
        Node::Leaf { value: 3.0, cover: 2.0 },
        Node::Leaf { value: 9.0, cover: 4.0 },
    ])
    .expect("a tree")
}

#[test]
fn every_method_explains_a_linear_model_by_its_coefficients() -> Result<(), FactorsError> {
    let rows = Matrix::from_rows(&[[1.0, 2.0, 0.0], [3.0, 0.0, 1.0], [2.0, 4.0, 5.0], [0.0, 1.0, 2.0]]);
    let beta = [2.0, -1.0, 0.5];
    let (terms, factors, baseline) = (Terms::linear(&beta, 0.0), columns(3), Baseline::mean(&rows));
    assert_eq!(baseline, Baseline::Row(vec![1.5, 1.75, 2.0]));
    let phi = [-1.0, -0.25, -1.0, 3.0, 1.75, -0.5, 1.0, -2.25, 1.5, -3.0, 0.75, 0.0];
    for found in [
        closed(&terms, &rows, &factors, &baseline)?,
        exact(&terms, &rows, &factors, &baseline)?,
        permutation(&terms, &rows, &factors, &baseline, 2, 5)?,
        expected_gradients(&WithSlopes(&terms, &beta), &rows, &factors, &baseline, 1, 5)?,
        // A background has the same mean, and f is linear.
        closed(&terms, &rows, &factors, &Baseline::Background(rows.clone()))?,
        exact(&terms, &rows, &factors, &Baseline::Background(rows.clone()))?,
    ] {
        assert_close(found.values.values(), phi, PUBLISHED);
        assert_close(importances(&found), [2.0, 1.25, 0.75], PUBLISHED);
        assert_close(found.scores[0] - found.base, -2.25, PUBLISHED);
        found.check(Precision::F64)?;
    }
    Ok(())
}

#[test]
fn an_interaction_is_shared_by_halves() -> Result<(), FactorsError> {
    let model = ScoreFn(|x: &[f64]| 1.0 + x[0] * x[1] + 2.0 * x[2]);
    let terms = Terms {
        constant: 1.0,
        curves: vec![Curve::Flat, Curve::Flat, Curve::Line(2.0)],
        pairs: vec![PairTerm { first: 0, second: 1, weight: 1.0 }],
    };
    let (rows, factors) = (Matrix::from_rows(&[[3.0, 2.0, -1.0]]), columns(3));
    let baseline = Baseline::Row(vec![1.0, 0.5, 0.0]);
    let along = |order: &[usize]| along_orders(&model, &rows, &factors, &baseline, &[order.to_vec()]);
    assert_close(along(&[0, 1, 2])?.row(0), [1.0, 4.5, -2.0], PUBLISHED);
    assert_close(along(&[2, 1, 0])?.row(0), [4.0, 1.5, -2.0], PUBLISHED);
    for seed in 0..6 {
        let found = permutation(&model, &rows, &factors, &baseline, 1, seed)?;
        assert_close(found.values.row(0), [2.5, 3.0, -2.0], PUBLISHED);
    }
    assert_close(exact(&model, &rows, &factors, &baseline)?.values.row(0), [2.5, 3.0, -2.0], PUBLISHED);
    assert_close(closed(&terms, &rows, &factors, &baseline)?.values.row(0), [2.5, 3.0, -2.0], PUBLISHED);

    let background = Baseline::Background(Matrix::from_rows(&[[1.0, 0.5, 0.0], [0.0, 1.0, 2.0]]));
    for found in [
        exact(&model, &rows, &factors, &background)?,
        closed(&terms, &rows, &factors, &background)?,
        permutation(&model, &rows, &factors, &background, 1, 0)?,
    ] {
        assert_close(found.values.row(0), [3.5, 2.25, -4.0], PUBLISHED);
        assert_close(found.scores[0] - found.base, 1.75, PUBLISHED);
    }
    Ok(())
}

#[test]
fn a_pair_of_orders_is_not_exact_where_three_factors_interact() -> Result<(), FactorsError> {
    let model = ScoreFn(|x: &[f64]| x[0] * x[1] * x[2]);
    let (rows, factors) = (Matrix::from_rows(&[[1.0, 2.0, 3.0]]), columns(3));
    let baseline = Baseline::Row(vec![0.0; 3]);
    let pair = |order: [usize; 3]| {
        let reverse = order.iter().rev().copied().collect();
        along_orders(&model, &rows, &factors, &baseline, &[order.to_vec(), reverse])
    };
    assert_close(exact(&model, &rows, &factors, &baseline)?.values.row(0), [2.0; 3], PUBLISHED);
    assert_close(pair([0, 1, 2])?.row(0), [3.0, 0.0, 3.0], PUBLISHED);
    assert_close(pair([1, 0, 2])?.row(0), [0.0, 3.0, 3.0], PUBLISHED);
    // Many pairs approach the exact values: of 3000 pairs, φ_j is 0 in a third and 3 in the others (variance 2), which gives a
    // standard error of 0.026; five of them, fixed seed.
    let many = permutation(&model, &rows, &factors, &baseline, 3000, 1)?;
    assert_close(many.values.row(0), [2.0; 3], 5.0 * 0.026);
    Ok(())
}

/// A perceptron 3-2-1 with published weights.
fn perceptron(x: &[f64]) -> f64 {
    let first = (0.5 * x[0] + 0.8 * x[1] - 0.4 * x[2] + 0.1).tanh();
    let second = (-0.3 * x[0] + 0.2 * x[1] + 0.6 * x[2] - 0.2).tanh();
    1.2 * first - 0.7 * second + 0.3
}

#[test]
fn a_perceptron_has_the_published_attributions() -> Result<(), FactorsError> {
    let rows = Matrix::from_rows(&[[1.0, -0.5, 2.0], [-1.5, 0.7, 0.3]]);
    let (factors, baseline) = (columns(3), Baseline::Row(vec![0.2, 0.0, -0.1]));
    let model = ScoreFn(perceptron);
    let found = exact(&model, &rows, &factors, &baseline)?;
    assert_close(&*found.scores, [-0.7203941773, -0.3091112943], PUBLISHED);
    assert_close(found.base, 0.7992497423, PUBLISHED);
    assert_close(found.values.row(0), [0.4857969286, -0.3542341072, -1.6512067430], PUBLISHED);
    assert_close(found.values.row(1), [-1.2455772547, 0.4553455664, -0.3181293503], PUBLISHED);
    assert_close(importances(&found), [0.8656870917, 0.4047898368, 0.9846680466], PUBLISHED);
    let orders = [vec![0, 1, 2], vec![2, 1, 0]];
    let along = along_orders(&model, &rows, &factors, &baseline, &orders)?;
    assert_close(along.row(0), [0.4538995378, -0.2904393256, -1.6831041338], PUBLISHED);
    Ok(())
}

#[test]
fn a_stump_is_centred_on_its_training_rows() -> Result<(), FactorsError> {
    let step = |x: f64| if x < 1.5 { -0.4 } else { 0.6 };
    let terms = Terms { constant: 0.0, curves: vec![Curve::Function(Box::new(step))], pairs: Vec::new() };
    let stump = Tree::new(vec![
        Node::Split { column: 0, threshold: 1.5, left: 1, right: 2, missing: Side::Left, cover: 4.0 },
        Node::Leaf { value: -0.4, cover: 2.0 },
        Node::Leaf { value: 0.6, cover: 2.0 },
    ]);
    let forest = Forest { base: 0.0, trees: vec![stump.expect("a tree")] };
    let rows = Matrix::from_rows(&[[0.0], [1.0], [2.0], [3.0]]);
    let (factors, baseline) = (columns(1), Baseline::Background(rows.clone()));
    for found in [
        closed(&terms, &rows, &factors, &baseline)?,
        exact(&terms, &rows, &factors, &baseline)?,
        permutation(&terms, &rows, &factors, &baseline, 1, 0)?,
        tree_interventional(&forest, &rows, &factors, &baseline)?,
        // The covers are those of these rows.
        tree_path(&forest, &rows, &factors)?,
    ] {
        assert_close(found.values.values(), [-0.5, -0.5, 0.5, 0.5], PUBLISHED);
        assert_close(importances(&found), [0.5], PUBLISHED);
        assert_close(found.base, 0.1, PUBLISHED);
    }
    Ok(())
}

#[test]
fn a_tree_of_two_splits_is_explained_by_hand() -> Result<(), FactorsError> {
    let forest = Forest { base: 5.0, trees: vec![small_tree()] };
    let (rows, factors) = (Matrix::from_rows(&[[1.0, 3.0], [1.0, f64::NAN], [0.0, 3.0]]), columns(2));
    let found = tree_path(&forest, &rows, &factors)?;
    // v(∅) = 0.4 · 1 + 0.6 · 7 = 4.6, where 7 = (2 · 3 + 4 · 9) / 6.
    assert_close(found.base, 9.6, 1e-15 * 9.6);
    // Row 0: v(0) = 7, v(1) = 0.4 + 0.6 · 9 = 5.8, v(0, 1) = 9.
    // Row 1, whose missing value goes left: v(0) = 7, v(1) = 0.4 + 0.6 · 3 = 2.2, v(0, 1) = 3.
    // Row 2: v(0) = 1, v(1) = 5.8, v(0, 1) = 1.
    let phi = |v0: f64, v1: f64, both: f64| [(v0 - 4.6 + both - v1) / 2.0, (v1 - 4.6 + both - v0) / 2.0];
    let expected = [phi(7.0, 5.8, 9.0), phi(7.0, 2.2, 3.0), phi(1.0, 5.8, 1.0)];
    assert_close(found.values.values(), expected.concat(), 1e-14);
    // Against the last row of the three: what was learnt of the covers does not matter.
    let baseline = Baseline::Row(vec![0.0, 3.0]);
    let found = tree_interventional(&forest, &rows, &factors, &baseline)?;
    assert_close(found.base, 6.0, 0.0);
    // Row 1: v(0) = 9, v(1) = 1, v(0, 1) = 3.
    assert_close(found.values.values(), [8.0, 0.0, 5.0, -3.0, 0.0, 0.0], 1e-14);
    Ok(())
}

#[test]
fn scaling_a_score_leaves_the_shares_alone() -> Result<(), FactorsError> {
    let rows = Matrix::from_rows(&[[1.0, -0.5, 2.0], [-1.5, 0.7, 0.3]]);
    let (factors, baseline) = (columns(3), Baseline::Row(vec![0.2, 0.0, -0.1]));
    let shares = |scale: f64| -> Result<Vec<f64>, FactorsError> {
        let found = exact(&ScoreFn(|x: &[f64]| scale * perceptron(x)), &rows, &factors, &baseline)?;
        let importances = importances(&found);
        let sum: f64 = importances.iter().sum();
        Ok(importances.iter().map(|importance| importance / sum).collect())
    };
    assert_close(shares(7.0)?, shares(1.0)?, 1e-15);
    assert_close(shares(1.0)?, [0.3838720354, 0.1794961483, 0.4366318164], PUBLISHED);
    Ok(())
}

#[test]
fn a_factor_that_is_ignored_gets_exactly_nothing() -> Result<(), FactorsError> {
    let rows = Matrix::from_rows(&[[1.0, -0.5, 2.0, 9.0], [-1.5, 0.7, 0.3, -4.0]]);
    let (factors, baseline) =
        (columns(4), Baseline::Background(Matrix::from_rows(&[[0.2, 0.0, -0.1, 1.0], [0.0; 4]])));
    let model = ScoreFn(|x: &[f64]| perceptron(&x[..3]));
    let forest = Forest { base: 0.0, trees: vec![small_tree()] };
    for found in [
        exact(&model, &rows, &factors, &baseline)?,
        permutation(&model, &rows, &factors, &baseline, 3, 1)?,
        tree_interventional(&forest, &rows, &factors, &baseline)?,
        tree_path(&forest, &rows, &factors)?,
    ] {
        assert!(found.values.column(3).all(|phi| phi == 0.0), "{found:?}");
    }
    Ok(())
}

#[test]
fn columns_of_one_question_are_masked_together() -> Result<(), FactorsError> {
    // A question of three answers, one-hot; the effect of an answer is 0, 1, 4. The other factor is a number.
    let model = ScoreFn(|x: &[f64]| (x[1] + 4.0 * x[2]) * (1.0 + x[3]));
    let rows = Matrix::from_rows(&[[0.0, 0.0, 1.0, 1.0]]);
    let baseline = Baseline::Row(vec![1.0, 0.0, 0.0, 0.0]);
    let factors = grouped(&[&[0, 1, 2], &[3]]);
    // v(∅) = 0, v(question) = 4, v(number) = 0, v(both) = 8.
    for found in
        [exact(&model, &rows, &factors, &baseline)?, permutation(&model, &rows, &factors, &baseline, 1, 0)?]
    {
        assert_close(found.values.row(0), [6.0, 2.0], 1e-15 * 8.0);
    }
    Ok(())
}

#[test]
fn correlated_factors_do_not_borrow_from_each_other() -> Result<(), FactorsError> {
    // f = x₁ on unit normals with correlation 0.6: conditional attributions of (1, 2) would be (0.4, 0.6).
    let background = Matrix::from_rows(&[[1.0, 0.6], [-1.0, -0.6], [0.0, 0.8], [0.0, -0.8]]);
    let found = exact(
        &ScoreFn(|x: &[f64]| x[0]),
        &Matrix::from_rows(&[[1.0, 2.0]]),
        &columns(2),
        &Baseline::Background(background),
    )?;
    assert_eq!(found.values.row(0), [1.0, 0.0]);
    Ok(())
}

#[test]
fn the_cheapest_exact_method_is_taken() -> Result<(), FactorsError> {
    let linear = Terms::linear(&[2.0, -1.0], 0.5);
    let forest = Forest { base: 0.0, trees: vec![small_tree()] };
    let sum = ScoreFn(|x: &[f64]| x.iter().sum());
    let auto = Method::Auto {};
    assert_eq!(auto.chosen(&linear, &columns(2)), Method::Closed {});
    assert_eq!(auto.chosen(&forest, &columns(2)), Method::TreeInterventional {});
    assert_eq!(auto.chosen(&sum, &columns(12)), Method::Exact {});
    assert_eq!(auto.chosen(&sum, &columns(13)), Method::Permutation { pairs: 4, seed: 0 });
    assert_eq!(Method::TreePath {}.chosen(&linear, &columns(2)), Method::TreePath {});
    let (rows, baseline) = (Matrix::from_rows(&[[1.0, 3.0], [0.0, 1.0]]), Baseline::Row(vec![0.0, 2.5]));
    for scorer in [&linear as &dyn Scorer, &forest] {
        let chosen = explain(scorer, &rows, &columns(2), &baseline, auto)?;
        let enumerated = explain(scorer, &rows, &columns(2), &baseline, Method::Exact {})?;
        assert_close(chosen.values.values(), enumerated.values.values(), 1e-14);
        assert_eq!(chosen.scores, enumerated.scores);
    }
    Ok(())
}

/// Sixty rows of four numbers, from a sequence that fills the square evenly.
fn spread() -> Matrix {
    let step = [0.754_877_666, 0.569_840_291, 0.430_159_709, 0.324_717_957];
    let row = |n: i32| step.map(|step: f64| 4.0 * (f64::from(n) * step).fract() - 2.0);
    Matrix::from_rows(&(1..=60).map(row).collect::<Vec<_>>())
}

#[test]
fn every_model_of_the_crate_is_explained_as_by_enumeration() -> Result<(), Box<dyn std::error::Error>> {
    let rows = spread();
    let labels: Vec<f64> = rows.rows().map(|x| x[0] - 0.5 * x[1] + x[0] * x[2] + x[3].abs()).collect();
    let signs: Vec<f64> = labels.iter().map(|&label| f64::from(u8::from(label > 1.0))).collect();
    let pairs = RidgeConfig { terms: RidgeTerms::Pairs, ..RidgeConfig::default() };
    let fm = FactorizationMachine::new(4, 3, 0.5, 7, &device());
    let mlp = Mlp::new(4, &[5], Activation::Tanh, 0.5, 7, &device());
    let cheapest = [Method::Closed {}, Method::TreeInterventional {}, Method::Exact {}];
    let models: [(Box<dyn Scorer>, Method); 9] = [
        (Box::new(Ridge::fit(&rows, &labels, &RidgeConfig::default())?), cheapest[0]),
        (Box::new(Ridge::fit(&rows, &labels, &pairs)?), cheapest[0]),
        (Box::new(Logistic::fit(&rows, &signs, 1.0.try_into()?)?), cheapest[0]),
        (Box::new(BoostedStumps::fit(&rows, &labels, &StumpsConfig::default())?), cheapest[0]),
        (Box::new(Forest::fit(&rows, &labels, &TreesConfig::default())?), cheapest[1]),
        (Box::new(Net::new(&to_double(&Linear::new(4, 0.5, 7, &device())))), cheapest[0]),
        (Box::new(Net::new(&to_double(&fm))), cheapest[0]),
        (Box::new(Net::new(&fm)), cheapest[0]),
        (Box::new(Net::new(&to_double(&mlp))), cheapest[2]),
    ];
    let factors = grouped(&[&[2], &[0, 3], &[1]]);
    let baseline = Baseline::background(&rows, 5, 1);
    for (index, (model, cheapest)) in models.iter().enumerate() {
        let found = explain(model, &rows, &factors, &baseline, Method::Auto {})?;
        assert_eq!(found.method, *cheapest, "model {index}");
        let enumerated = explain(model, &rows, &factors, &baseline, Method::Exact {})?;
        // Scores below ten: of f64, and of 24 bits in the one network of f32.
        let tolerance = if model.precision() == Precision::F64 { 1e-12 } else { 1e-5 };
        assert_close(found.values.values(), enumerated.values.values(), tolerance);
    }
    // Networks have gradients, and those of a factorisation machine give the same attributions.
    let net = &models[6].0;
    let gradients =
        explain(net, &rows, &factors, &baseline, Method::ExpectedGradients { pairs: 5, seed: 0 })?;
    assert_close(gradients.values.values(), exact(net, &rows, &factors, &baseline)?.values.values(), 1e-12);
    Ok(())
}

#[test]
fn batches_leave_no_seams() -> Result<(), FactorsError> {
    // Ten factors: four pairs of a row and a baseline row make a batch, and three baseline rows a row.
    let d = 10;
    let number = |n: usize| (n as f64 * 0.754_877_666).fract() - 0.5;
    let matrix = |rows: usize, from: usize| Matrix::new((from..from + rows * d).map(number).collect(), d);
    let pair = |k: usize| PairTerm { first: k, second: (3 * k + 1) % d, weight: number(k + 7) };
    let linear: Vec<f64> = (0..d).map(number).collect();
    let terms = Terms { pairs: (0..d).map(pair).collect(), ..Terms::linear(&linear, 0.0) };
    let (rows, factors) = (matrix(5, 20), columns(d));
    let baseline = Baseline::Background(matrix(3, 90));
    let expected = closed(&terms, &rows, &factors, &baseline)?;
    for found in [
        exact(&terms, &rows, &factors, &baseline)?,
        // 38 and 57 602 masked rows a pair: many pairs in a batch, and more than a batch for one.
        permutation(&terms, &rows, &factors, &baseline, 2, 3)?,
        permutation(&terms, &rows, &factors, &baseline, 3200, 3)?,
        // Three rows a batch, and one.
        expected_gradients(&WithSlopes(&terms, &linear), &rows, &factors, &baseline, 600, 3)?,
        expected_gradients(&WithSlopes(&terms, &linear), &rows, &factors, &baseline, 4500, 3)?,
    ] {
        // Up to six thousand orders are added up.
        assert_close(found.values.values(), expected.values.values(), 1e-12);
    }
    Ok(())
}

/// A sum of lines and pairs that knows its gradient.
struct WithSlopes<'a>(&'a Terms<'a>, &'a [f64]);

impl Scorer for WithSlopes<'_> {
    fn scores(&self, rows: &Matrix) -> Vec<f64> {
        self.0.scores(rows)
    }

    fn gradients(&self, rows: &Matrix) -> Option<Matrix> {
        let mut values = self.1.repeat(rows.len());
        for (row, gradient) in rows.rows().zip(values.chunks_exact_mut(rows.width())) {
            for pair in &self.0.pairs {
                gradient[pair.first] += pair.weight * row[pair.second];
                gradient[pair.second] += pair.weight * row[pair.first];
            }
        }
        Some(Matrix::new(values, rows.width()))
    }
}

#[test]
fn a_factor_at_the_baseline_in_every_row_is_warned_of() -> Result<(), FactorsError> {
    let model = ScoreFn(|x: &[f64]| x.iter().filter(|x| !x.is_nan()).sum());
    let rows = Matrix::from_rows(&[[1.0, 5.0, 0.0, f64::NAN], [2.0, 5.0, 0.0, f64::NAN]]);
    let factors = grouped(&[&[0, 2], &[1], &[3]]);
    let warnings =
        |b: [f64; 4]| exact(&model, &rows, &factors, &Baseline::Row(b.to_vec())).map(|found| found.warnings);
    let never = |name: &str| AttributionWarning::NeverDiffers { factor: name.to_owned() };
    assert_eq!(warnings([0.0, 5.0, 0.0, f64::NAN])?, [never("g1"), never("g2")]);
    assert_eq!(warnings([0.0, 4.0, 0.0, 0.0])?, []);
    assert_eq!(
        never("g1").to_string(),
        "factor `g1` equals the baseline in every row: its importance is 0 whatever the model makes of it"
    );
    Ok(())
}

#[test]
fn baselines_leave_missing_values_out() {
    let rows =
        Matrix::from_rows(&[[1.0, f64::NAN], [f64::NAN, f64::NAN], [4.0, f64::NAN], [100.0, f64::NAN]]);
    let numbers = |config: BaselineConfig| match config.of(&rows) {
        Baseline::Row(row) => row,
        Baseline::Background(rows) => panic!("{rows:?}"),
    };
    assert_eq!(numbers(BaselineConfig::Mean {})[0], 35.0);
    assert_eq!(numbers(BaselineConfig::Median {})[0], 4.0);
    assert!(numbers(BaselineConfig::Mean {})[1].is_nan() && numbers(BaselineConfig::Median {})[1].is_nan());
    let even = Matrix::from_rows(&[[1.0], [8.0], [2.0], [3.0]]);
    assert_eq!(Baseline::median(&even), Baseline::Row(vec![2.5]));
}

#[test]
fn a_background_is_drawn_by_its_seed_without_replacement() {
    let rows = Matrix::new((0..100).map(f64::from).collect(), 1);
    let drawn = |seed| Baseline::background(&rows, 32, seed).rows().values().to_vec();
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
    assert!(drawn(1).windows(2).all(|pair| pair[0] < pair[1]), "every row once");
    assert_eq!(drawn(1).len(), 32);
}

#[test]
fn orders_depend_on_seed_and_row_and_on_nothing_else() {
    let orders = drawn_orders(5, 3, 7, 2);
    assert_eq!(orders, drawn_orders(5, 3, 7, 2));
    assert_eq!(orders[..2], drawn_orders(5, 2, 7, 2));
    assert_ne!(orders, drawn_orders(5, 3, 8, 2));
    assert_ne!(orders, drawn_orders(5, 3, 7, 3));
}

#[test]
fn bands_are_as_wide_as_the_standard_error_says() -> Result<(), FactorsError> {
    // |φ| of the first factor is 1 … 400, of the second always 7.
    let n = 400;
    let values = (1..=n).flat_map(|row| [f64::from(row), -7.0]).collect();
    let attributions = Attributions {
        method: Method::Exact {},
        values: Matrix::new(values, 2),
        base: 0.0,
        scores: vec![0.0; 400],
        warnings: Vec::new(),
    };
    let config = BandConfig { resamples: 4000, ..BandConfig::default() };
    let bands = importance_bands(&attributions, &config)?;
    assert_eq!((bands[0].value, bands[1].value), (200.5, 7.0));
    assert_eq!((bands[1].low, bands[1].high), (7.0, 7.0));
    // The deviation of 1 … n is n/√12, that of its mean √n times less, and 95 % lie within 1.96 of them. The ends of 4000
    // samples are known to 4 % of the half width: √(0.025 · 0.975 / 4000) / density(1.96) / 1.96, twice.
    let half = 1.96 * f64::from(n) / 12.0_f64.sqrt() / f64::from(n).sqrt();
    assert_all_close([bands[0].low - 200.5, bands[0].high - 200.5], [-half, half], 0.05, 0.0);
    assert_eq!(bands, importance_bands(&attributions, &config)?);
    assert_ne!(bands, importance_bands(&attributions, &BandConfig { seed: 1, ..config })?);
    let narrow =
        importance_bands(&attributions, &BandConfig { level: 0.5.try_into().expect("a level"), ..config })?;
    assert!(narrow[0].low > bands[0].low && narrow[0].high < bands[0].high);
    let shares = share_bands(&attributions, &config)?;
    assert_close(shares[0].value + shares[1].value, 1.0, 1e-15);
    assert!(shares[1].low < shares[1].value && shares[1].value < shares[1].high);
    Ok(())
}

#[test]
fn gradients_of_a_network_are_those_of_differences() {
    // tanh in f64; the network's parameters record nothing here.
    let network = to_double(&Mlp::new(4, &[6], Activation::Tanh, 0.0, 3, &device()));
    let rows = Matrix::from_rows(&[[0.3, -1.0, 0.8, 2.0], [1.5, 0.2, -0.7, 0.0]]);
    let found = network_gradients(&network, &rows);
    let net = Net::new(&network);
    let step = 1e-5;
    for (row, gradient) in rows.rows().zip(found.rows()) {
        for column in 0..4 {
            let moved = |by: f64| {
                let mut row = row.to_vec();
                row[column] += by;
                net.scores(&Matrix::new(row, 4))[0]
            };
            let difference = (moved(step) - moved(-step)) / (2.0 * step);
            // Truncation is about step² and rounding 1e-16 / step.
            assert_close(gradient[column], difference, 1e-9);
        }
    }
}
