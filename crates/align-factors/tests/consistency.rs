//! Rank metrics, the margin lemma, relations, and metrics of ordinal predictions.

use std::path::Path;

use align_factors::{
    Agreement, Grid, ImportanceDistribution, Margins, Matrix, OrdinalMetrics, Relations, ScoreFn, Scorer,
    agreements, kendall_tau_b, order_agreement, share_above, spearman, top_k, top_k_jaccard, top_k_overlap,
};
use align_testkit::assert_all_close;
use proptest::collection::vec;
use proptest::prelude::*;
use serde::Deserialize;

/// The values to compare with have ten digits.
const DIGITS: f64 = 1e-9;

const A: [f64; 5] = [0.30, 0.25, 0.20, 0.15, 0.10];

#[track_caller]
fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < DIGITS, "{found} vs {expected}");
}

#[test]
fn two_rankings_of_five() {
    let c = [0.28, 0.30, 0.12, 0.20, 0.10];
    close(kendall_tau_b(&A, &c).unwrap(), 0.6);
    close(spearman(&A, &c).unwrap(), 0.8);
    assert_eq!(order_agreement(&A, &c), 0.8);
    assert_eq!(top_k_overlap(&A, &c, 2), 1.0);
    close(top_k_overlap(&A, &c, 3), 2.0 / 3.0);
    assert_eq!(top_k_jaccard(&A, &c, 3), 0.5);
    assert_eq!(top_k(&c, 3), [1, 0, 3]);
}

#[test]
fn a_tie_agrees_only_with_a_tie() {
    let v = [0.3, 0.3, 0.2, 0.1, 0.1];
    close(kendall_tau_b(&A, &v).unwrap(), 0.894_427_191_0);
    close(spearman(&A, &v).unwrap(), 0.948_683_298_1);
    assert_eq!(order_agreement(&A, &v), 0.8);
    assert_eq!(top_k_overlap(&A, &v, 3), 1.0);
    assert_eq!(order_agreement(&v, &v), 1.0);
    // Of equal numbers the first ones are the largest.
    assert_eq!(top_k(&v, 4), [0, 1, 2, 3]);
}

#[test]
fn a_model_that_thinks_all_alike_has_no_rank_correlation() {
    let flat = [0.2; 5];
    assert_eq!((kendall_tau_b(&A, &flat), spearman(&A, &flat)), (None, None));
    assert_eq!(order_agreement(&A, &flat), 0.0);
    assert_eq!(order_agreement(&flat, &flat), 1.0);
}

#[test]
fn primaries_stand_above_the_rest_pair_by_pair() {
    // Of the six pairs of {0, 3} with the others, 3 fails against 1 and 2.
    close(share_above(&A, &[0, 3]), 4.0 / 6.0);
    assert_eq!(share_above(&A, &[0, 1]), 1.0);
}

#[test]
fn agreement_of_every_two_models() {
    let models =
        [A, [0.28, 0.30, 0.12, 0.20, 0.10]].map(|p| ImportanceDistribution::new(p.to_vec()).unwrap());
    let matrix = agreements(&models, 3);
    assert_eq!(matrix[0][1], Agreement::between(&models[0], &models[1], 3));
    close(matrix[0][1].kendall_tau_b.unwrap(), 0.6);
    assert_eq!(matrix[0][1].jensen_shannon, matrix[1][0].jensen_shannon);
    assert_eq!((matrix[1][1].kl, matrix[1][1].order_agreement), (0.0, 1.0));
    assert!(matrix[0][1].kl > 0.0);
}

/// Attributions of `linear · x + pair · x₁x₂` against zero: the product is shared by its two factors.
fn attributions(linear: [f64; 3], pair: f64, rows: &Matrix) -> Matrix {
    let of_row = |x: &[f64]| {
        let half = 0.5 * pair * x[0] * x[1];
        [linear[0] * x[0] + half, linear[1] * x[1] + half, linear[2] * x[2]]
    };
    Matrix::from_rows(&rows.rows().map(of_row).collect::<Vec<_>>())
}

fn four_rows() -> Matrix {
    Matrix::from_rows(&[[1.0, -1.0, 0.5], [-0.5, 0.8, -1.2], [2.0, 0.3, 0.1], [-1.0, -1.5, 0.9]])
}

#[test]
fn gaps_beyond_the_margins_certify_every_order() {
    let rows = four_rows();
    let f = attributions([1.2, -0.9, 0.4], 0.3, &rows);
    let g = attributions([1.1, -0.7, 0.6], 0.0, &rows);
    let margins = Margins::between(&f, &g);
    assert_all_close(margins.first.clone(), vec![1.29375, 0.82125, 0.27], 0.0, 1e-12);
    assert_all_close(margins.second.clone(), vec![1.2375, 0.63, 0.405], 0.0, 1e-12);
    assert_all_close(margins.deltas.clone(), vec![0.14375, 0.20625, 0.135], 0.0, 1e-12);
    let gap = |i: usize, j: usize| margins.first[i] - margins.first[j];
    assert_all_close(vec![gap(0, 1), gap(0, 2), gap(1, 2)], vec![0.4725, 1.02375, 0.55125], 0.0, 1e-12);
    let certified = margins.certified();
    let pairs: Vec<_> = certified.iter().map(|pair| (pair.primary, pair.secondary)).collect();
    assert_eq!(pairs, [(0, 1), (0, 2), (1, 2)]);
    let sums: Vec<f64> = certified.iter().map(|pair| pair.margin).collect();
    assert_all_close(sums, vec![0.35, 0.27875, 0.34125], 0.0, 1e-12);
    assert!(certified.iter().all(|pair| margins.second[pair.primary] > margins.second[pair.secondary]));
    assert_eq!(Relations::certified(&margins).share(), 1.0);
}

#[test]
fn attributions_differ_by_at_most_twice_what_scores_do() {
    let rows = four_rows();
    let difference = ScoreFn(|x: &[f64]| 0.1 * x[0] - 0.2 * x[1] - 0.2 * x[2] + 0.3 * x[0] * x[1]);
    let masked: Vec<[f64; 3]> = rows
        .rows()
        .flat_map(|row| {
            (0..8).map(|mask| std::array::from_fn(|j| if mask >> j & 1 == 1 { row[j] } else { 0.0 }))
        })
        .collect();
    let furthest =
        difference.scores(&Matrix::from_rows(&masked)).into_iter().fold(0.0, |m: f64, d| m.max(d.abs()));
    close(furthest, 0.65);
    let f = attributions([1.2, -0.9, 0.4], 0.3, &rows);
    let g = attributions([1.1, -0.7, 0.6], 0.0, &rows);
    let largest = f.values().iter().zip(g.values()).fold(0.0, |m: f64, (f, g)| m.max((f - g).abs()));
    close(largest, 0.525);
    assert!(largest <= 2.0 * furthest);
}

#[test]
fn small_gaps_are_not_certified() {
    let f = Matrix::from_rows(&[[1.0, 0.9], [-1.0, -0.9]]);
    let g = Matrix::from_rows(&[[0.9, 1.0], [-0.9, -1.0]]);
    // The gap of 0.1 is not above 0.1 + 0.1, and indeed the other model orders them the other way round.
    let margins = Margins::between(&f, &g);
    assert!(margins.certified().is_empty());
    assert_eq!(Relations::certified(&margins).pairs(), []);
    assert_eq!(Relations::shared(&[&margins.first, &margins.second]).share(), 0.0);
}

#[test]
fn a_ranking_is_drawn_as_a_chain() {
    let relations = Relations::of(&[0.1, 0.4, 0.2, 0.3]);
    assert_eq!(relations.share(), 1.0);
    assert_eq!(relations.reduction(), [(1, 3), (2, 0), (3, 2)]);
    // With a tie, both stand between the same neighbours.
    let tied = Relations::of(&[0.1, 0.4, 0.2, 0.2]);
    assert_eq!(tied.reduction(), [(1, 2), (1, 3), (2, 0), (3, 0)]);
}

#[test]
fn eight_ordinal_predictions() {
    let grid = Grid::new(1, 5);
    let truth = [1.0, 2.0, 2.0, 3.0, 4.0, 5.0, 5.0, 3.0];
    let prediction = [1.0, 2.0, 3.0, 3.0, 4.0, 4.0, 5.0, 3.0];
    let metrics = OrdinalMetrics::of(grid, &truth, &prediction).unwrap();
    assert_eq!((metrics.accuracy, metrics.mae, metrics.mse), (0.75, 0.25, 0.25));
    close(metrics.macro_f1, 0.76);
}

#[test]
fn halves_are_rounded_away_from_zero() {
    let grid = Grid::new(-5, 5);
    assert_eq!([2.5, 3.5, -2.5, -0.5, 0.49].map(|score| grid.round(score)), [3, 4, -3, -1, 0]);
    assert_eq!([9.0, f64::INFINITY, -9.0].map(|score| grid.round(score)), [5, 5, -5]);
    // Scores count as they are for the errors, and rounded for the accuracy.
    let metrics = OrdinalMetrics::of(grid, &[3.0, 4.0], &[2.5, 3.25]).unwrap();
    assert_eq!((metrics.accuracy, metrics.mae, metrics.mse), (0.5, 0.625, (0.25 + 0.5625) / 2.0));
}

#[derive(Deserialize)]
struct Reference {
    rankings: Vec<RankingCase>,
    predictions: Vec<PredictionCase>,
}

#[derive(Deserialize)]
struct RankingCase {
    first: Vec<f64>,
    second: Vec<f64>,
    kendall_tau_b: f64,
    spearman: f64,
}

#[derive(Deserialize)]
struct PredictionCase {
    labels: Vec<f64>,
    predictions: Vec<f64>,
    accuracy: f64,
    macro_f1: f64,
    mae: f64,
    mse: f64,
}

fn reference() -> Reference {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/agreement.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn rank_correlations_are_scipys() {
    let cases = reference().rankings;
    assert_eq!(cases.len(), 12);
    for case in cases {
        // Sums of at most 91 pairs in f64, in another order.
        let near = |found: Option<f64>, expected: f64| (found.unwrap() - expected).abs() < 1e-12;
        assert!(near(kendall_tau_b(&case.first, &case.second), case.kendall_tau_b));
        assert!(near(spearman(&case.first, &case.second), case.spearman));
    }
}

#[test]
fn ordinal_metrics_are_scikit_learns() {
    let cases = reference().predictions;
    assert_eq!(cases.len(), 6);
    for case in cases {
        let found = OrdinalMetrics::of(Grid::new(1, 5), &case.labels, &case.predictions).unwrap();
        let expected = [case.accuracy, case.macro_f1, case.mae, case.mse];
        assert_all_close(
            vec![found.accuracy, found.macro_f1, found.mae, found.mse],
            expected.to_vec(),
            0.0,
            1e-12,
        );
    }
}

/// Numbers with ties among them, not all equal.
fn with_ties(count: usize) -> impl Strategy<Value = Vec<f64>> {
    vec((0..6i32).prop_map(f64::from), count)
        .prop_filter("a ranking needs two levels", |list| list.iter().any(|x| *x != list[0]))
}

fn attribution_rows() -> impl Strategy<Value = (Matrix, Matrix)> {
    let rows = |size: f64| vec(-size..size, 5 * 4);
    (rows(2.0), rows(0.6)).prop_map(|(first, change)| {
        let second = first.iter().zip(&change).map(|(a, b)| a + b).collect();
        (Matrix::new(first, 4), Matrix::new(second, 4))
    })
}

proptest! {
    #[test]
    fn correlations_are_bounded_symmetric_and_turn_with_a_ranking(a in with_ties(7), b in with_ties(7)) {
        let reversed: Vec<f64> = b.iter().map(|x| -x).collect();
        for correlation in [kendall_tau_b, spearman] {
            let found = correlation(&a, &b).unwrap();
            prop_assert!((-1.0..=1.0).contains(&found));
            prop_assert_eq!(Some(found), correlation(&b, &a));
            prop_assert!((correlation(&a, &a).unwrap() - 1.0).abs() < 1e-14); // roots of counts, squared
            prop_assert!((correlation(&a, &reversed).unwrap() + found).abs() < 1e-14);
        }
    }

    #[test]
    fn only_order_matters(a in with_ties(7), b in with_ties(7)) {
        let grown: Vec<f64> = b.iter().map(|x| x.exp() + x).collect();
        prop_assert_eq!(kendall_tau_b(&a, &b), kendall_tau_b(&a, &grown));
        prop_assert_eq!(spearman(&a, &b), spearman(&a, &grown));
        prop_assert_eq!(order_agreement(&a, &b), order_agreement(&a, &grown));
        prop_assert_eq!(top_k(&b, 3), top_k(&grown, 3));
    }

    #[test]
    fn renaming_factors_changes_no_metric(
        (a, b, order) in (with_ties(6), with_ties(6), Just((0..6).collect::<Vec<usize>>()).prop_shuffle())
    ) {
        let permuted = |list: &[f64]| order.iter().map(|&factor| list[factor]).collect::<Vec<f64>>();
        prop_assert_eq!(kendall_tau_b(&a, &b), kendall_tau_b(&permuted(&a), &permuted(&b)));
        prop_assert_eq!(order_agreement(&a, &b), order_agreement(&permuted(&a), &permuted(&b)));
        let (one, other) = (spearman(&a, &b).unwrap(), spearman(&permuted(&a), &permuted(&b)).unwrap());
        prop_assert!((one - other).abs() < 1e-14); // sums of six products in another order
    }

    #[test]
    fn overlap_and_jaccard_say_the_same(a in with_ties(8), b in with_ties(8), k in 1..8usize) {
        let (overlap, jaccard) = (top_k_overlap(&a, &b, k), top_k_jaccard(&a, &b, k));
        prop_assert!((jaccard - overlap / (2.0 - overlap)).abs() < 1e-14);
        prop_assert_eq!(top_k_overlap(&a, &b, 8), 1.0);
    }

    #[test]
    fn importances_differ_by_no_more_than_the_deltas_and_certificates_hold((f, g) in attribution_rows()) {
        let margins = Margins::between(&f, &g);
        for j in 0..4 {
            prop_assert!((margins.first[j] - margins.second[j]).abs() <= margins.deltas[j] + 1e-14);
        }
        for pair in margins.certified() {
            prop_assert!(margins.first[pair.primary] > margins.first[pair.secondary]);
            prop_assert!(margins.second[pair.primary] > margins.second[pair.secondary]);
        }
        // Which model comes first does not matter.
        prop_assert_eq!(Margins::between(&g, &f).certified(), margins.certified());
    }

    #[test]
    fn relations_are_strict_transitive_and_implied_by_their_reduction(models in vec(with_ties(6), 1..4)) {
        let relations = Relations::shared(&models);
        let mut reached = [[false; 6]; 6];
        for (i, j) in relations.reduction() {
            prop_assert!(relations.holds(i, j));
            reached[i][j] = true;
        }
        for k in 0..6 {
            for i in 0..6 {
                for j in 0..6 {
                    reached[i][j] |= reached[i][k] && reached[k][j];
                }
            }
        }
        for (i, reached) in reached.iter().enumerate() {
            prop_assert!(!relations.holds(i, i));
            for (j, reached) in reached.iter().enumerate() {
                prop_assert!(!(relations.holds(i, j) && relations.holds(j, i)));
                prop_assert_eq!(*reached, relations.holds(i, j));
            }
        }
    }

    #[test]
    fn every_prediction_is_right_or_wrong_by_a_class(
        (labels, scores) in (2..30usize).prop_flat_map(|n| (vec(1..6i32, n), vec(-1.0..7.0f64, n)))
    ) {
        let labels: Vec<f64> = labels.into_iter().map(f64::from).collect();
        let metrics = OrdinalMetrics::of(Grid::new(1, 5), &labels, &scores).unwrap();
        prop_assert!((0.0..=1.0).contains(&metrics.accuracy) && (0.0..=1.0).contains(&metrics.macro_f1));
        prop_assert!(metrics.mae * metrics.mae <= metrics.mse + 1e-12); // Jensen
        let perfect = OrdinalMetrics::of(Grid::new(1, 5), &labels, &labels).unwrap();
        prop_assert_eq!(perfect, OrdinalMetrics { accuracy: 1.0, macro_f1: 1.0, mae: 0.0, mse: 0.0 });
    }
}
