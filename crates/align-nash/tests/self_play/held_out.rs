//! Comparing a policy with the reference and with its past, on prompts it does not learn from.

use std::sync::{Arc, Mutex};

use align_core::number::Positive;
use align_core::{Completions, Preference};
use align_nash::self_play::{SelfPlay, SelfPlayConfig, SelfPlayParts};
use align_testkit::assert_close;
use align_train::{Metrics, OptimizerConfig};
use burn::tensor::Tensor;

use crate::common::{ByRows, PrefixLm, TAU, cyclic, game, inpo, parts, prompts, small, table_optimizer};

/// How many held-out prompts; no training batch has as many.
const HELD_OUT: usize = 400;

/// Remembers the mean of its answers whenever it is asked about all held-out prompts at once.
struct Remembering(Arc<Mutex<Vec<f64>>>);

impl Preference for Remembering {
    fn prefer(&self, first: &Completions, second: &Completions) -> Tensor<1> {
        let answers = ByRows(cyclic).prefer(first, second);
        if first.batch_size() == HELD_OUT {
            let sum: f64 = answers.to_data().iter::<f64>().sum();
            self.0.lock().expect("one thread").push(sum / HELD_OUT as f64);
        }
        answers
    }
}

/// A run of so many iterations of one step each and what it reported at the end of each; the means of every comparison.
fn play(config: SelfPlayConfig) -> (Vec<Metrics>, Vec<f64>) {
    let means = Arc::new(Mutex::new(Vec::new()));
    let exact = game(&ByRows(cyclic));
    let parts = SelfPlayParts {
        held_out: prompts().into_iter().cycle().take(HELD_OUT).collect(),
        measures: vec![("gap".into(), Box::new(move |policy| exact.duality_gap(policy)))],
        ..parts(Remembering(means.clone()))
    };
    let config = SelfPlayConfig { num_epochs: 1, minibatch: 1000, microbatch: HELD_OUT, ..config };
    let mut run = SelfPlay::new(parts, config).expect("a run");
    assert_eq!(run.plan().steps_per_iteration, 1);
    let metrics = (0..run.plan().steps()).map(|step| run.step(step).expect("a step")).collect();
    let means = means.lock().expect("one thread").clone();
    (metrics, means)
}

fn get(metrics: &Metrics, name: &str) -> f64 {
    metrics.get(name).unwrap_or_else(|| panic!("no {name} in {metrics:?}"))
}

fn at_rate(learning_rate: f64) -> OptimizerConfig {
    OptimizerConfig { learning_rate: Positive::literal(learning_rate), ..table_optimizer() }
}

#[test]
fn a_policy_that_has_not_moved_wins_half_against_the_reference_and_its_past() {
    let config = SelfPlayConfig { iterations: 3, evaluate_every: 1, optimizer: at_rate(1e-12), ..small() };
    let (metrics, _) = play(config);
    // The variance of P(y ≻ y′) for two answers of the reference, from the matrix.
    let exact = game(&ByRows(cyclic));
    let variance = exact.games().iter().map(|game| {
        let p = game.reference().probabilities();
        let squares = (0..9).flat_map(|i| (0..9).map(move |j| (i, j)));
        squares.map(|(i, j)| p[i] * p[j] * (game.preference(i, j) - 0.5).powi(2)).sum::<f64>() / 4.0
    });
    let error = (variance.sum::<f64>() / HELD_OUT as f64).sqrt();
    for (done, metrics) in metrics.iter().enumerate() {
        for opponent in ["reference", "previous"].iter().take(1 + done.min(1)) {
            let mean = get(metrics, &format!("nash/win_rate_vs_{opponent}"));
            let standard_error = get(metrics, &format!("nash/win_rate_vs_{opponent}_se"));
            assert!(mean != 0.5 && (mean - 0.5).abs() < 4.0 * standard_error, "{mean} ± {standard_error}");
            // 400 numbers give their deviation to 1/√800 = 3.5 %.
            assert_close(standard_error, error, 0.15 * error);
        }
    }
}

#[test]
fn a_policy_that_learns_beats_the_reference_and_its_gap_is_measured() {
    let config = SelfPlayConfig {
        iterations: 20,
        num_generations: 128,
        evaluate_every: 1,
        optimizer: at_rate(0.05),
        ..small()
    };
    let (metrics, _) = play(SelfPlayConfig { method: inpo(0.5, TAU), ..config });
    let last = metrics.last().expect("iterations");
    let (mean, error) = (get(last, "nash/win_rate_vs_reference"), get(last, "nash/win_rate_vs_reference_se"));
    assert!(mean - 0.5 > 3.0 * error, "{mean} ± {error}");
    assert!(get(last, "gap") < game(&ByRows(cyclic)).reference_gap());
}

#[test]
fn the_worst_win_rate_is_the_least_over_the_reference_and_the_past_that_is_kept() {
    for past_policies in [0, 1, 3, 10] {
        let config = SelfPlayConfig { iterations: 6, evaluate_every: 1, optimizer: at_rate(0.3), ..small() };
        let (metrics, means) = play(SelfPlayConfig { method: inpo(0.5, 0.0), past_policies, ..config });
        let mut rest = means.as_slice();
        for (past, metrics) in metrics.iter().enumerate() {
            // The reference first, then the past, the newest first.
            let (own, others) = rest.split_at(1 + past.min(past_policies));
            rest = others;
            assert_close(get(metrics, "nash/win_rate_vs_reference"), own[0], 1e-12); // one sum of f64
            let worst = own.iter().copied().fold(f64::INFINITY, f64::min);
            assert_close(get(metrics, "nash/worst_win_rate"), worst, 1e-12);
            match own.get(1) {
                Some(previous) => assert_close(get(metrics, "nash/win_rate_vs_previous"), *previous, 1e-12),
                None => assert_eq!(metrics.get("nash/win_rate_vs_previous"), None),
            }
        }
        assert!(rest.is_empty(), "{} comparisons more than policies that are kept", rest.len());
    }
}

#[test]
fn comparisons_are_counted_and_come_when_they_are_due() {
    let due = |evaluate_every: usize| -> Vec<usize> {
        let config = SelfPlayConfig { iterations: 5, evaluate_every, ..small() };
        let (metrics, _) = play(config);
        let compared = |metrics: &Metrics| metrics.get("nash/win_rate_vs_reference").is_some();
        assert!(metrics.iter().all(|metrics| metrics.get("gap").is_some() == compared(metrics)));
        // Calls of an iteration: its usable pairs, and the held-out prompts for each opponent.
        let mut calls = 0.0;
        let mut opponents = 0.0;
        for metrics in &metrics {
            calls += get(metrics, "pairs/used");
            if compared(metrics) {
                opponents += 1.0;
                calls += opponents * HELD_OUT as f64;
            }
            assert_eq!(get(metrics, "oracle/calls"), calls);
        }
        (1..=5).filter(|&done| compared(&metrics[done - 1])).collect()
    };
    assert_eq!(due(1), [1, 2, 3, 4, 5]);
    assert_eq!(due(2), [2, 4, 5]);
    assert_eq!(due(9), [5]);
    assert_eq!(due(0), [0usize; 0]);
}

#[test]
fn without_held_out_prompts_measures_are_taken_all_the_same() {
    let exact = game(&ByRows(cyclic));
    let measures: Vec<(String, align_nash::self_play::Measure)> =
        vec![("gap".into(), Box::new(move |policy| exact.duality_gap(policy)))];
    let parts = SelfPlayParts::<PrefixLm> { measures, ..parts(ByRows(cyclic)) };
    let mut run = SelfPlay::new(parts, SelfPlayConfig { evaluate_every: 1, ..small() }).expect("a run");
    let steps = run.plan().steps_per_iteration as u64;
    let metrics: Vec<Metrics> = (0..steps).map(|step| run.step(step).expect("a step")).collect();
    let taken: Vec<bool> = metrics.iter().map(|metrics| metrics.get("gap").is_some()).collect();
    assert_eq!(taken, [false, false, false, true], "after the last step of the iteration");
    assert!(metrics.iter().all(|metrics| metrics.get("nash/worst_win_rate").is_none()));
}
