//! Laws of attributions, for any model, any groups of columns and any background.

use align_factors::attribution::{
    Baseline, Curve, Precision, Terms, along_orders, closed, exact, expected_gradients, permutation,
    tree_interventional, tree_path,
};
use align_factors::{Factor, Factors, Forest, Matrix, Node, PairTerm, ScoreFn, Scorer, Side, Tree};
use align_testkit::strategies::matrix;
use proptest::collection::vec;
use proptest::prelude::*;

/// Columns of every case.
const C: usize = 5;

/// Five columns in at most four factors, in any order: every factor is some column's.
fn factors() -> impl Strategy<Value = Factors> {
    vec(0usize..4, C).prop_map(|of_column| {
        let columns = |factor| (0..C).filter(|&column| of_column[column] == factor).collect::<Vec<_>>();
        let named = |factor: usize| Factor { name: format!("f{factor}"), columns: columns(factor) };
        Factors::new((0..4).map(named).filter(|factor| !factor.columns.is_empty()).collect())
            .expect("a partition")
    })
}

/// Rows to be explained, and a background.
fn question() -> impl Strategy<Value = (Matrix, Baseline)> {
    (matrix(3, C, 2.0), matrix(2, C, 2.0)).prop_map(|(rows, others)| {
        (Matrix::from_rows(&rows), Baseline::Background(Matrix::from_rows(&others)))
    })
}

/// `c + Σ β_k x_k + Σ_{k ≤ l} w_kl x_k x_l`, with its gradient.
#[derive(Clone, Debug)]
struct Quadratic {
    slopes: Vec<f64>,
    pairs: Vec<PairTerm>,
}

impl Quadratic {
    fn terms(&self) -> Terms<'_> {
        let curve = |(index, &slope): (usize, &f64)| match index {
            // Three ways to say the same.
            0 => Curve::Function(Box::new(move |x| slope * x)),
            _ if slope == 0.0 => Curve::Flat,
            _ => Curve::Line(slope),
        };
        let curves = self.slopes.iter().enumerate().map(curve).collect();
        Terms { constant: 0.3, curves, pairs: self.pairs.clone() }
    }
}

impl Scorer for Quadratic {
    fn scores(&self, rows: &Matrix) -> Vec<f64> {
        self.terms().scores(rows)
    }

    fn gradients(&self, rows: &Matrix) -> Option<Matrix> {
        let mut values = self.slopes.repeat(rows.len());
        for (row, gradient) in rows.rows().zip(values.chunks_exact_mut(C)) {
            for pair in &self.pairs {
                gradient[pair.first] += pair.weight * row[pair.second];
                gradient[pair.second] += pair.weight * row[pair.first];
            }
        }
        Some(Matrix::new(values, C))
    }
}

fn quadratic() -> impl Strategy<Value = Quadratic> {
    let pair = (0..C, 0..C, -1.0f64..1.0);
    let pairs = vec(pair.prop_map(|(first, second, weight)| PairTerm { first, second, weight }), 0..8);
    (vec(prop_oneof![Just(0.0), -1.0f64..1.0], C), pairs)
        .prop_map(|(slopes, pairs)| Quadratic { slopes, pairs })
}

/// A model whose columns interact all at once.
fn tangled(slopes: &[f64]) -> impl Fn(&[f64]) -> f64 + Sync {
    let slopes = slopes.to_vec();
    move |x: &[f64]| {
        let sum: f64 = x.iter().zip(&slopes).map(|(x, slope)| x * slope).sum();
        sum.tanh() + 0.2 * x.iter().product::<f64>()
    }
}

/// A tree as it is drawn: covers are sums of those of leaves.
#[derive(Clone, Debug)]
enum Grown {
    Leaf { value: f64, cover: f64 },
    Split { column: usize, threshold: f64, missing: Side, sides: Box<[Grown; 2]> },
}

impl Grown {
    fn cover(&self) -> f64 {
        match self {
            Self::Leaf { cover, .. } => *cover,
            Self::Split { sides, .. } => sides[0].cover() + sides[1].cover(),
        }
    }

    fn append(&self, nodes: &mut Vec<Node>) {
        match self {
            &Self::Leaf { value, cover } => nodes.push(Node::Leaf { value, cover }),
            Self::Split { column, threshold, missing, sides } => {
                let place = nodes.len();
                nodes.push(Node::Leaf { value: 0.0, cover: 0.0 });
                let left = nodes.len();
                sides[0].append(nodes);
                let right = nodes.len();
                sides[1].append(nodes);
                let (column, threshold, missing, cover) = (*column, *threshold, *missing, self.cover());
                nodes[place] = Node::Split { column, threshold, left, right, missing, cover };
            }
        }
    }
}

fn tree() -> impl Strategy<Value = Tree> {
    // Some leaves saw no training rows.
    let cover = prop_oneof![4 => 0.5f64..9.0, 1 => Just(0.0)];
    let leaf = (-2.0f64..2.0, cover).prop_map(|(value, cover)| Grown::Leaf { value, cover });
    let grown = leaf.prop_recursive(5, 24, 2, |inner| {
        let side = prop_oneof![Just(Side::Left), Just(Side::Right)];
        (0..C, -1.5f64..1.5, side, [inner.clone(), inner]).prop_map(|(column, threshold, missing, sides)| {
            Grown::Split { column, threshold, missing, sides: Box::new(sides) }
        })
    });
    grown.prop_map(|grown| {
        let mut nodes = Vec::new();
        grown.append(&mut nodes);
        Tree::new(nodes).expect("a tree")
    })
}

fn forest() -> impl Strategy<Value = Forest> {
    (vec(tree(), 1..4), -1.0f64..1.0).prop_map(|(trees, base)| Forest { base, trees })
}

/// Rows with missing values.
fn patchy(rows: usize) -> impl Strategy<Value = Matrix> {
    let value = prop_oneof![5 => -2.0f64..2.0, 1 => Just(f64::NAN)];
    vec(value, rows * C).prop_map(|values| Matrix::new(values, C))
}

/// Shapley values of a game of `d` players, by the definition.
fn shapley(d: usize, v: impl Fn(usize) -> f64) -> Vec<f64> {
    let factorial = |n: usize| (1..=n).map(|k| k as f64).product::<f64>();
    let of = |player: usize| -> f64 {
        (0..1usize << d)
            .filter(|set| set >> player & 1 == 0)
            .map(|set| {
                let size = set.count_ones() as usize;
                let weight = factorial(size) * factorial(d - size - 1) / factorial(d);
                weight * (v(set | 1 << player) - v(set))
            })
            .sum()
    };
    (0..d).map(of).collect()
}

/// What a tree expects of a row of which the factors of a set are known: where another is asked for, both sides by cover.
fn expected(tree: &Tree, node: usize, row: &[f64], factors: &Factors, set: usize) -> f64 {
    match tree.nodes()[node] {
        Node::Leaf { value, .. } => value,
        Node::Split { column, threshold, left, right, missing, .. } => {
            let below = |child| expected(tree, child, row, factors, set);
            if set >> factors.of_column(column) & 1 == 1 {
                let x = row[column];
                let goes_left = if x.is_nan() { missing == Side::Left } else { x < threshold };
                return below(if goes_left { left } else { right });
            }
            let (l, r) = (tree.nodes()[left].cover(), tree.nodes()[right].cover());
            (l * below(left) + r * below(right)) / (l + r)
        }
    }
}

/// Whether every split has training weight below it.
fn is_covered(forest: &Forest) -> bool {
    let covered = |tree: &Tree, node: &Node| match *node {
        Node::Leaf { .. } => true,
        Node::Split { left, right, .. } => tree.nodes()[left].cover() + tree.nodes()[right].cover() > 0.0,
    };
    forest.trees.iter().all(|tree| tree.nodes().iter().all(|node| covered(tree, node)))
}

fn assert_equal(found: &Matrix, expected: &Matrix, tolerance: f64) -> Result<(), TestCaseError> {
    prop_assert_eq!((found.len(), found.width()), (expected.len(), expected.width()));
    for (a, b) in found.values().iter().zip(expected.values()) {
        prop_assert!((a - b).abs() <= tolerance, "{:?} and {:?}", found, expected);
    }
    Ok(())
}

// Tolerances: some hundred f64 operations on numbers below 100 leave 1e-12.
proptest! {
    #[test]
    fn pairwise_models_have_one_attribution_however_it_is_computed(
        model in quadratic(), (rows, baseline) in question(), factors in factors(), seed in any::<u64>(), turns in 1usize..4,
    ) {
        let expected = closed(&model.terms(), &rows, &factors, &baseline).expect("a question");
        let enumerated = exact(&model, &rows, &factors, &baseline).expect("a question");
        let one_pair = permutation(&model, &rows, &factors, &baseline, 1, seed).expect("a question");
        let pairs = turns * baseline.rows().len();
        let gradients = expected_gradients(&model, &rows, &factors, &baseline, pairs, seed).expect("gradients");
        for found in [&enumerated, &one_pair, &gradients] {
            assert_equal(&found.values, &expected.values, 1e-12)?;
            prop_assert!((found.base - expected.base).abs() < 1e-12);
        }
    }

    #[test]
    fn attributions_add_up_for_any_model(
        slopes in vec(-1.0f64..1.0, C), (rows, baseline) in question(), factors in factors(), seed in any::<u64>(),
    ) {
        let model = ScoreFn(tangled(&slopes));
        for found in [
            exact(&model, &rows, &factors, &baseline),
            permutation(&model, &rows, &factors, &baseline, 3, seed),
        ] {
            let found = found.expect("a question");
            prop_assert!(found.check(Precision::F64).is_ok());
            prop_assert!(found.residual() < 1e-12, "{}", found.residual());
        }
    }

    #[test]
    fn enumeration_is_the_definition(
        slopes in vec(-1.0f64..1.0, C), (rows, baseline) in question(), factors in factors(),
    ) {
        let model = tangled(&slopes);
        let d = factors.len();
        let found = exact(&ScoreFn(&model), &rows, &factors, &baseline).expect("a question");
        let others = baseline.rows();
        for (x, phi) in rows.rows().zip(found.values.rows()) {
            let value = |set: usize| {
                let masked = |b: &[f64]| -> Vec<f64> {
                    (0..C).map(|k| if set >> factors.of_column(k) & 1 == 1 { x[k] } else { b[k] }).collect()
                };
                others.rows().map(|b| model(&masked(b))).sum::<f64>() / others.len() as f64
            };
            assert_equal(&Matrix::new(phi.to_vec(), d), &Matrix::new(shapley(d, value), d), 1e-12)?;
        }
    }

    #[test]
    fn the_mean_over_all_orders_is_the_enumeration(
        slopes in vec(-1.0f64..1.0, C), (rows, baseline) in question(), factors in factors(),
    ) {
        fn orders(left: &[usize]) -> Vec<Vec<usize>> {
            match left {
                [] => vec![Vec::new()],
                _ => left.iter().flat_map(|&first| {
                    let others: Vec<usize> = left.iter().copied().filter(|&other| other != first).collect();
                    orders(&others).into_iter().map(move |rest| [vec![first], rest].concat())
                }).collect(),
            }
        }
        let model = ScoreFn(tangled(&slopes));
        let all = orders(&(0..factors.len()).collect::<Vec<_>>());
        let found = along_orders(&model, &rows, &factors, &baseline, &all).expect("a question");
        assert_equal(&found, &exact(&model, &rows, &factors, &baseline).expect("a question").values, 1e-12)?;
    }

    #[test]
    fn attributions_are_linear_in_the_model(
        first in vec(-1.0f64..1.0, C), second in vec(-1.0f64..1.0, C), (rows, baseline) in question(),
        factors in factors(), seed in any::<u64>(),
    ) {
        let (f, g) = (tangled(&first), tangled(&second));
        let difference = ScoreFn(|x: &[f64]| f(x) - g(x));
        // With equal orders for both models this holds of sampled attributions too.
        let phi = |model: &dyn Scorer| permutation(model, &rows, &factors, &baseline, 2, seed).expect("a question").values;
        let apart: Vec<f64> =
            phi(&ScoreFn(&f)).values().iter().zip(phi(&ScoreFn(&g)).values()).map(|(f, g)| f - g).collect();
        assert_equal(&phi(&difference), &Matrix::new(apart, factors.len()), 1e-12)?;
    }

    #[test]
    fn permuting_factors_permutes_attributions(
        slopes in vec(-1.0f64..1.0, C), (rows, baseline) in question(), order in Just((0..C).collect::<Vec<_>>()).prop_shuffle(),
        forest in forest(),
    ) {
        let model = ScoreFn(tangled(&slopes));
        let named = |order: &[usize]| {
            let factor = |&column: &usize| Factor { name: format!("x{column}"), columns: vec![column] };
            Factors::new(order.iter().map(factor).collect()).expect("a partition")
        };
        let (plain, permuted) = (named(&(0..C).collect::<Vec<_>>()), named(&order));
        let mut pairs = vec![
            (exact(&model, &rows, &plain, &baseline), exact(&model, &rows, &permuted, &baseline)),
            (
                tree_interventional(&forest, &rows, &plain, &baseline),
                tree_interventional(&forest, &rows, &permuted, &baseline),
            ),
        ];
        if is_covered(&forest) {
            pairs.push((tree_path(&forest, &rows, &plain), tree_path(&forest, &rows, &permuted)));
        }
        for (plain, permuted) in pairs {
            let (plain, permuted) = (plain.expect("a question").values, permuted.expect("a question").values);
            let moved: Vec<f64> = plain.rows().flat_map(|phi| order.iter().map(|&column| phi[column])).collect();
            assert_equal(&permuted, &Matrix::new(moved, C), 1e-12)?;
        }
    }

    #[test]
    fn trees_against_a_background_equal_the_enumeration(
        forest in forest(), rows in patchy(4), others in patchy(3), factors in factors(),
    ) {
        let baseline = Baseline::Background(others);
        let found = tree_interventional(&forest, &rows, &factors, &baseline).expect("a question");
        let enumerated = exact(&forest, &rows, &factors, &baseline).expect("a question");
        assert_equal(&found.values, &enumerated.values, 1e-13)?;
        prop_assert_eq!(found.base, enumerated.base);
        prop_assert!(found.residual() < 1e-13);
    }

    #[test]
    fn trees_along_paths_equal_the_enumeration_of_their_game(
        forest in forest(), rows in patchy(4), factors in factors(),
    ) {
        prop_assume!(is_covered(&forest));
        let d = factors.len();
        let found = tree_path(&forest, &rows, &factors).expect("covered trees");
        for (x, phi) in rows.rows().zip(found.values.rows()) {
            let value = |set| forest.trees.iter().map(|tree| expected(tree, 0, x, &factors, set)).sum::<f64>();
            assert_equal(&Matrix::new(phi.to_vec(), d), &Matrix::new(shapley(d, value), d), 1e-13)?;
            prop_assert!((found.base - forest.base - value(0)).abs() < 1e-13);
        }
        prop_assert!(found.residual() < 1e-13);
    }

    #[test]
    fn rows_are_explained_alone_as_in_company(
        slopes in vec(-1.0f64..1.0, C), forest in forest(), factors in factors(), (rows, baseline) in question(),
    ) {
        let model = ScoreFn(tangled(&slopes));
        let together = exact(&model, &rows, &factors, &baseline).expect("a question").values;
        let trees = tree_interventional(&forest, &rows, &factors, &baseline).expect("a question").values;
        for row in 0..rows.len() {
            let one = rows.select(&[row]);
            let alone = exact(&model, &one, &factors, &baseline).expect("a question").values;
            prop_assert_eq!(alone.row(0), together.row(row));
            let alone = tree_interventional(&forest, &one, &factors, &baseline).expect("a question").values;
            prop_assert_eq!(alone.row(0), trees.row(row));
        }
    }
}

/// An AND of thirty factors on one path: each has a thirtieth, whatever the game, if each halves the training rows.
#[test]
fn a_deep_path_keeps_its_digits() {
    let depth = 30;
    let mut nodes = Vec::new();
    for column in 0..depth {
        let half = 0.5_f64.powi(column as i32 + 1);
        let (left, right) = (nodes.len() + 1, nodes.len() + 2);
        nodes.push(Node::Split {
            column,
            threshold: 0.5,
            left,
            right,
            missing: Side::Left,
            cover: 2.0 * half,
        });
        nodes.push(Node::Leaf { value: 0.0, cover: half });
    }
    let rest = 0.5_f64.powi(depth as i32);
    nodes.push(Node::Leaf { value: 1.0, cover: rest });
    let forest = Forest { base: 0.0, trees: vec![Tree::new(nodes).expect("a tree")] };
    let factors = Factors::columns((0..depth).map(|column| format!("x{column}"))).expect("names differ");
    let rows = Matrix::new(vec![1.0; depth], depth);
    let found =
        tree_interventional(&forest, &rows, &factors, &Baseline::Row(vec![0.0; depth])).expect("a question");
    found.values.values().iter().for_each(|phi| assert!((phi * 30.0 - 1.0).abs() < 1e-14, "{phi}"));
    let found = tree_path(&forest, &rows, &factors).expect("covered trees");
    found.values.values().iter().for_each(|phi| assert!((phi * 30.0 - (1.0 - rest)).abs() < 1e-13, "{phi}"));
}
