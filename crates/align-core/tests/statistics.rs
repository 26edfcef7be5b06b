//! Draws are uniform, independent, and addressed by what they are for. Every seed is fixed; five standard errors are
//! exceeded by chance less than once in a million.

use align_core::Draws;
use align_core::divergence::{Divergence, Kl, KlEstimator};
use align_core::draws::Purpose;
use align_testkit::statistics::{Mean, assert_frequencies, counts, pearson};
use align_testkit::{BigramLm, Values, double};
use burn::tensor::{Tensor, activation::log_softmax};
use rand::{Rng, RngExt, seq::SliceRandom};

const N: u32 = 20_000;

/// One number for each of `N` addresses that differ in one coordinate only.
fn along(coordinate: usize, draws: &Draws) -> Vec<f64> {
    (0..N)
        .map(|n| {
            let at = |index: usize| if index == coordinate { u64::from(n) } else { 3 };
            draws.token(Purpose::Sample, at(0), at(1), at(2) as u32, at(3) as u32)
        })
        .collect()
}

#[test]
fn draws_are_uniform_along_every_coordinate() {
    for coordinate in 0..4 {
        let sample = along(coordinate, &Draws::new(7));
        assert!(sample.iter().all(|u| (0.0..1.0).contains(u)));
        Mean::of(&sample).assert_near(0.5, 5.0);
        let squares: Vec<f64> = sample.iter().map(|u| u * u).collect();
        Mean::of(&squares).assert_near(1.0 / 3.0, 5.0);
        let cells = counts(sample.iter().map(|u| (u * 64.0) as usize), 64);
        assert_frequencies(&cells, &[1.0 / 64.0; 64], 5.0);
        // 63 degrees of freedom: 63 ± 5·√126.
        let fit = pearson(&cells, &[1.0 / 64.0; 64]);
        assert!((fit - 63.0).abs() < 5.0 * 126f64.sqrt(), "coordinate {coordinate}: {fit}");
    }
}

#[test]
fn neighbouring_draws_are_uncorrelated() {
    for coordinate in 0..4 {
        let sample = along(coordinate, &Draws::new(8));
        let products: Vec<f64> = sample.windows(2).map(|pair| (pair[0] - 0.5) * (pair[1] - 0.5)).collect();
        Mean::of(&products).assert_near(0.0, 5.0);
    }
}

#[test]
fn purposes_seeds_and_children_do_not_share_draws() {
    let draws = Draws::new(9);
    let families: Vec<Vec<f64>> = [
        along(3, &draws),
        along(3, &Draws::new(10)),
        along(3, &draws.child(0)),
        along(3, &draws.child(1)),
        along(3, &draws.child(0).child(0)),
        (0..N).map(|n| draws.token(Purpose::Evaluate, 3, 3, 3, n)).collect(),
    ]
    .into();
    for (index, first) in families.iter().enumerate() {
        for second in &families[..index] {
            let products: Vec<f64> = first.iter().zip(second).map(|(a, b)| (a - 0.5) * (b - 0.5)).collect();
            Mean::of(&products).assert_near(0.0, 5.0);
        }
    }
}

#[test]
fn generators_shuffle_without_preference_and_by_address() {
    let draws = Draws::new(4);
    let first = |step: u64| {
        let mut order: Vec<usize> = (0..6).collect();
        order.shuffle(&mut draws.generator(Purpose::Shuffle, step));
        order[0]
    };
    assert_frequencies(&counts((0..6_000).map(first), 6), &[1.0 / 6.0; 6], 5.0);
    let number = |purpose, step| draws.generator(purpose, step).next_u64();
    assert_eq!(number(Purpose::Shuffle, 1), number(Purpose::Shuffle, 1));
    assert_ne!(number(Purpose::Shuffle, 1), number(Purpose::Shuffle, 2));
    assert_ne!(number(Purpose::Shuffle, 1), number(Purpose::Minibatch, 1));
    let mean: Vec<f64> = (0..2_000).map(|step| draws.generator(Purpose::Dropout, step).random()).collect();
    Mean::of(&mean).assert_near(0.5, 5.0);
}

#[test]
fn sampled_estimates_of_kl_gather_round_the_exact_value() {
    // Tokens of the policy of the SALSA specification, case 7, by inverting its distribution function.
    let pi = log_softmax(double::<2>([[1.0, 0.0, -1.0, 0.5]]), 1);
    let mu = log_softmax(double::<2>([[0.6, 0.6, -0.7, -0.25]]), 1);
    let probabilities = pi.clone().exp().values();
    let draws = Draws::new(12);
    let tokens: Vec<usize> = (0..N)
        .map(|n| {
            let mut left = draws.token(Purpose::Sample, 0, 0, 0, n);
            probabilities[..3]
                .iter()
                .take_while(|p| {
                    left -= **p;
                    left >= 0.0
                })
                .count()
        })
        .collect();
    assert_frequencies(&counts(tokens.iter().copied(), 4), &probabilities, 5.0);
    let sample = |estimator| -> Vec<f64> {
        let at_tokens: Tensor<2> = Kl { estimator }.estimate(pi.clone() - mu.clone());
        let at_tokens = at_tokens.values();
        tokens.iter().map(|&token| at_tokens[token]).collect()
    };
    let (k1, k3) = (Mean::of(&sample(KlEstimator::K1)), Mean::of(&sample(KlEstimator::K3)));
    k1.assert_near(0.12801140, 5.0);
    k3.assert_near(0.12801140, 5.0);
    // What k3 is for: a third of the error here.
    assert!(k3.standard_error < 0.5 * k1.standard_error, "{k3:?} {k1:?}");
}

#[test]
fn random_tables_depend_on_the_seed_alone() {
    let table =
        |seed: u64| BigramLm::random(4, &Draws::new(seed), &align_testkit::device()).table.val().values();
    assert_eq!(table(1), table(1));
    assert_ne!(table(1), table(2));
    Mean::of(&(0..500).flat_map(table).collect::<Vec<_>>()).assert_near(0.0, 5.0);
}
