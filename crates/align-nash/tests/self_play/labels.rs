//! What becomes of the oracle's probability.

use align_core::number::{NonNegative, Positive, UnitInterval};
use align_nash::self_play::{Labels, Method, Pairing, SelfPlay, SelfPlayConfig};
use align_nash::{Pair, PairLoss};
use align_testkit::assert_close;

use crate::common::{ByRows, TAU, coin, cyclic, flipped, inpo, larger, run, small, wide};

type Oracle = fn(&[u32], &[u32], &[u32]) -> f64;

fn first_pairs(oracle: Oracle, config: SelfPlayConfig) -> Vec<Pair> {
    let mut run = run(ByRows(oracle), config);
    run.step(0).expect("a step");
    run.pairs().to_vec()
}

fn with(method: Method, labels: Labels) -> SelfPlayConfig {
    SelfPlayConfig { method, labels: Some(labels), ..small() }
}

fn sppo() -> Method {
    Method::Sppo { beta: Positive::literal(0.5) }
}

fn nash_md() -> Method {
    Method::NashMd { beta: NonNegative::literal(0.1), mixture: UnitInterval::literal(0.5) }
}

fn preference(oracle: Oracle, pair: &Pair) -> f64 {
    oracle(&pair.prompt, &pair.responses[0], &pair.responses[1])
}

/// Neither answer first.
fn unordered(pair: &Pair) -> (Vec<u32>, [Vec<u32>; 2]) {
    let mut responses = pair.responses.clone();
    responses.sort();
    (pair.prompt.clone(), responses)
}

#[test]
fn a_hard_label_is_drawn_with_the_probability() {
    let config = SelfPlayConfig { num_generations: 2048, ..with(inpo(0.5, TAU), Labels::Hard) };
    let pairs = first_pairs(cyclic, config);
    assert!(pairs.iter().all(|pair| pair.preference == 1.0 && pair.win_rates == [1.0, 0.0]));
    // Of a pair with p, the winner's p is p with probability p and 1 − p otherwise: p² + (1 − p)² in the mean, p(1 − p)(2p − 1)² in
    // variance. About 3300 pairs, five standard errors, fixed seed.
    let (mut excess, mut variance) = (0.0, 0.0);
    for pair in &pairs {
        let p = preference(cyclic, pair);
        excess += p - (p * p + (1.0 - p) * (1.0 - p));
        variance += p * (1.0 - p) * (2.0 * p - 1.0).powi(2);
    }
    assert!(excess.abs() < 5.0 * variance.sqrt(), "{excess}, error {}", variance.sqrt());
    assert!(
        pairs.len() as f64 * 0.1 > 5.0 * variance.sqrt(),
        "the test can see a label that always follows the likelier"
    );
}

#[test]
fn a_coin_labels_either_answer_half_the_time() {
    let config = SelfPlayConfig { num_generations: 2048, ..with(inpo(0.5, TAU), Labels::Hard) };
    let pairs = first_pairs(coin, config);
    // How often the smaller answer wins; binomial with ½.
    let smaller = pairs.iter().filter(|pair| pair.responses[0] < pair.responses[1]).count() as f64;
    let n = pairs.len() as f64;
    assert!((smaller - n / 2.0).abs() < 5.0 * (n / 4.0).sqrt(), "{smaller} of {n}");
}

#[test]
fn a_soft_label_is_the_probability_itself() {
    let pairs = first_pairs(cyclic, with(inpo(0.5, TAU), Labels::Soft));
    for pair in &pairs {
        let p = preference(cyclic, pair) as f32;
        assert_eq!((pair.preference, pair.win_rates), (p, [p, 1.0 - p]));
    }
}

#[test]
fn hard_and_soft_labels_are_about_the_same_answers() {
    let (hard, soft) =
        [Labels::Hard, Labels::Soft].map(|labels| first_pairs(cyclic, with(inpo(0.5, TAU), labels))).into();
    let of = |pairs: &[Pair]| pairs.iter().map(unordered).collect::<Vec<_>>();
    assert_eq!(of(&hard), of(&soft));
    assert_ne!(hard, soft);
}

#[test]
fn the_opposite_oracle_gives_the_opposite_label() {
    let of = |oracle, labels| first_pairs(oracle, with(inpo(0.5, TAU), labels));
    for (one, other) in of(cyclic, Labels::Soft).iter().zip(of(flipped, Labels::Soft)) {
        assert_eq!(one.responses, other.responses);
        assert_close(one.preference + other.preference, 1.0f32, 1e-6); // two roundings to f32
    }
    // A winner is drawn by u < p: the same u makes the other answer win, unless it is on the same side of p and 1 − p.
    let (hard, opposite) = (of(cyclic, Labels::Hard), of(flipped, Labels::Hard));
    let exchanged =
        hard.iter().zip(&opposite).filter(|(one, other)| one.responses[0] == other.responses[1]).count();
    assert!(2 * exchanged > hard.len(), "{exchanged} of {}", hard.len());
}

#[test]
fn unless_told_otherwise_labels_are_as_in_the_papers() {
    let of = |method: Method| {
        let prompts_per_iteration =
            matches!(method, Method::Xpo { .. } | Method::NashMd { .. }).then_some(32);
        let num_generations = if prompts_per_iteration.is_some() { 2 } else { 4 };
        SelfPlayConfig { method, num_generations, prompts_per_iteration, ..small() }
            .plan(4)
            .expect("a plan")
            .labels
    };
    let xpo = Method::Xpo { loss: PairLoss::default(), alpha: NonNegative::literal(0.0) };
    let dpo = Method::Dpo { loss: PairLoss::default(), anchor: Default::default() };
    assert_eq!([inpo(0.5, TAU), dpo, xpo].map(of), [Labels::Hard; 3]);
    assert_eq!([sppo(), nash_md()].map(of), [Labels::Soft; 2]);
}

#[test]
fn sppo_learns_from_shares_of_comparisons_won() {
    let config = |labels| SelfPlayConfig {
        num_generations: 4,
        prompts_per_iteration: Some(64),
        ..with(sppo(), labels)
    };
    // Soft: the mean of the probabilities of three comparisons, one of them with the pair's other answer.
    for pair in first_pairs(cyclic, config(Labels::Soft)) {
        assert_eq!(pair.preference, preference(cyclic, &pair) as f32);
        let others = pair.win_rates.map(|rate| 3.0 * f64::from(rate));
        let p = f64::from(pair.preference);
        assert!(others[0] - p > -1e-6 && others[0] - p < 2.0 + 1e-6); // f32
        assert!(others[1] - (1.0 - p) > -1e-6 && others[1] - (1.0 - p) < 2.0 + 1e-6);
    }
    // Hard: thirds; equal answers tie, and a winner of that is drawn too.
    let hard = first_pairs(cyclic, config(Labels::Hard));
    for pair in &hard {
        assert_eq!(pair.preference, 1.0);
        for rate in pair.win_rates.map(|rate| 3.0 * f64::from(rate)) {
            assert_close(rate, rate.round(), 1e-6); // f32
        }
        assert!(pair.win_rates[0] > 0.3, "who won the pair's own comparison won one at least");
    }
}

#[test]
fn win_rates_of_sppo_add_up_to_half_a_group() {
    // Of every group of K answers with one prompt, each of K(K − 1)/2 comparisons gives one point.
    for labels in [Labels::Soft, Labels::Hard] {
        let config = SelfPlayConfig { num_generations: 4, response_length: 6, ..with(sppo(), labels) };
        let mut run = SelfPlay::new(wide(ByRows(larger)), config).expect("a run");
        let metrics = run.step(0).expect("a step");
        assert_eq!(metrics.get("pairs/identical"), Some(0.0), "all groups are whole");
        for group in run.pairs().chunks(2) {
            assert_eq!(group[0].prompt, group[1].prompt);
            let sum: f32 = group.iter().flat_map(|pair| pair.win_rates).sum();
            assert_close(sum * 3.0, 6.0f32, 1e-5); // a few roundings to f32
        }
    }
}

#[test]
fn nash_md_keeps_its_own_answer_first() {
    let of = |labels| {
        let config =
            SelfPlayConfig { num_generations: 2, prompts_per_iteration: Some(64), ..with(nash_md(), labels) };
        first_pairs(cyclic, config)
    };
    let (soft, hard) = (of(Labels::Soft), of(Labels::Hard));
    let mut won = 0;
    for (soft, hard) in soft.iter().zip(&hard) {
        assert_eq!(soft.responses, hard.responses);
        let p = if soft.responses[0] == soft.responses[1] { 0.5 } else { preference(cyclic, soft) as f32 };
        assert_eq!(soft.preference, p);
        assert!(hard.preference == 0.0 || hard.preference == 1.0);
        won += usize::from(hard.preference == 1.0);
    }
    assert!(won > 16 && won < 48, "{won} of 64 won, each with about ½: four standard errors");
}

#[test]
fn a_tournament_has_the_best_first() {
    for labels in [Labels::Hard, Labels::Soft] {
        let config = SelfPlayConfig {
            pairing: Pairing::Tournament,
            num_generations: 8,
            prompts_per_iteration: Some(32),
            ..with(inpo(0.5, TAU), labels)
        };
        for pair in first_pairs(cyclic, config) {
            let p = preference(cyclic, &pair) as f32;
            assert!(p > 0.5, "the best beats the worst strictly");
            assert_eq!(pair.preference, if labels == Labels::Hard { 1.0 } else { p });
        }
    }
}
