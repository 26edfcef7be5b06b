//! Answers, comparisons and anchors of an iteration: how many, which are dropped, and whose they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use align_core::number::{NonNegative, Positive, UnitInterval};
use align_core::{Draws, Frozen, Preference};
use align_nash::self_play::{
    Anchor, Method, Pairing, SelfPlay, SelfPlayConfig, SelfPlayError, SelfPlayParts, Truncated,
};
use align_nash::{Pair, PairLoss};
use align_testkit::{BigramLm, assert_close, device, train_device};
use align_train::Metrics;

use crate::common::{ByRows, Counting, PrefixLm, TAU, coin, cyclic, inpo, larger, parts, small, wide};

fn long(method: Method, num_generations: usize, pairing: Pairing) -> SelfPlayConfig {
    SelfPlayConfig { method, num_generations, pairing, response_length: 6, microbatch: 7, ..small() }
}

fn xpo(alpha: f64) -> Method {
    Method::Xpo { loss: PairLoss::default(), alpha: NonNegative::literal(alpha) }
}

fn nash_md(mixture: f64) -> Method {
    Method::NashMd { beta: NonNegative::literal(0.1), mixture: UnitInterval::literal(mixture) }
}

fn get(metrics: &Metrics, name: &str) -> f64 {
    metrics.get(name).unwrap_or_else(|| panic!("no {name} in {metrics:?}"))
}

#[test]
fn an_iteration_asks_as_often_as_its_method_says() {
    let sppo = Method::Sppo { beta: Positive::literal(0.5) };
    let dpo = Method::Dpo { loss: PairLoss::default(), anchor: Anchor::Reference };
    for (method, k, pairing, per_prompt) in [
        (inpo(0.5, TAU), 2, Pairing::Independent, 1),
        (inpo(0.5, TAU), 8, Pairing::Independent, 4),
        (dpo, 6, Pairing::Independent, 3),
        (inpo(0.5, TAU), 2, Pairing::Tournament, 2),
        (inpo(0.5, TAU), 8, Pairing::Tournament, 11),
        (dpo, 16, Pairing::Tournament, 23),
        (sppo, 2, Pairing::Independent, 1),
        (sppo, 6, Pairing::Independent, 15),
        (xpo(0.1), 2, Pairing::Independent, 1),
        (nash_md(0.5), 2, Pairing::Independent, 1),
        (nash_md(0.0), 2, Pairing::Independent, 1),
    ] {
        let asked = Arc::new(AtomicUsize::new(0));
        let parts = wide(Counting { oracle: ByRows(larger), asked: asked.clone() });
        let mut run = SelfPlay::new(parts, long(method, k, pairing)).expect("a run");
        let per_iteration = run.plan().steps_per_iteration as u64;
        for iteration in 0..2 {
            let metrics = run.step(iteration * per_iteration).expect("a step");
            assert_eq!(get(&metrics, "pairs/identical"), 0.0);
            let expected = (iteration + 1) * 10 * per_prompt;
            assert_eq!(get(&metrics, "oracle/calls"), expected as f64, "{} of {k}", method.name());
            // Beside them, four pairs in both orders before anything is learnt.
            assert_eq!(asked.load(Ordering::Relaxed) as u64, expected + 8, "{} of {k}", method.name());
        }
        let pairs = if pairing == Pairing::Tournament { 10 } else { 10 * k / 2 };
        let undecided = pairs - run.pairs().len();
        assert!(pairing == Pairing::Tournament || undecided == 0);
    }
}

/// A policy that says `(0, 0)` and `(1, 1)` only.
fn of_two_answers() -> PrefixLm {
    PrefixLm::of(|_, a, b| if a == b && a < 2 { 0.5 } else { 1e-9 }, &train_device())
}

#[test]
fn equal_answers_are_dropped_and_nobody_is_asked_about_them() {
    let asked = Arc::new(AtomicUsize::new(0));
    let policy = of_two_answers();
    let parts = SelfPlayParts { policy, ..parts(Counting { oracle: ByRows(cyclic), asked: asked.clone() }) };
    let mut run = SelfPlay::new(parts, small()).expect("a run");
    let metrics = run.step(0).expect("a step");
    let (used, identical) = (get(&metrics, "pairs/used"), get(&metrics, "pairs/identical"));
    assert_eq!(used + identical, 64.0);
    // Half of 64, within four standard errors.
    assert!((identical - 32.0).abs() < 16.0, "{identical}");
    assert_eq!(run.pairs().len() as f64, used);
    assert!(run.pairs().iter().all(|pair| pair.responses[0] != pair.responses[1]));
    assert_eq!(get(&metrics, "oracle/calls"), used);
    assert_eq!(asked.load(Ordering::Relaxed), run.pairs().len() + 8);
}

#[test]
fn reinforce_learns_from_equal_answers_too() {
    let parts = SelfPlayParts { policy: of_two_answers(), ..parts(ByRows(cyclic)) };
    let config = SelfPlayConfig { num_generations: 2, prompts_per_iteration: Some(64), ..small() };
    let mut run = SelfPlay::new(parts, SelfPlayConfig { method: nash_md(0.0), ..config }).expect("a run");
    let metrics = run.step(0).expect("a step");
    assert_eq!((get(&metrics, "pairs/used"), get(&metrics, "pairs/identical")), (64.0, 0.0));
    assert!(get(&metrics, "oracle/calls") < 64.0);
    let ties = run.pairs().iter().filter(|pair| pair.responses[0] == pair.responses[1]);
    assert!(ties.clone().count() > 0);
    assert!(ties.clone().all(|pair| pair.preference == 0.5));
}

#[test]
fn a_run_with_nothing_to_learn_from_says_why() {
    let same = PrefixLm::of(|_, a, b| if (a, b) == (1, 2) { 1.0 } else { 1e-12 }, &train_device());
    let error = |parts: SelfPlayParts<PrefixLm>, config: SelfPlayConfig| {
        SelfPlay::new(parts, config).expect("a run").step(0).expect_err("no pairs")
    };
    let found = error(SelfPlayParts { policy: same, ..parts(ByRows(cyclic)) }, small());
    assert!(
        matches!(found, SelfPlayError::NoUsablePairs { iteration: 1, drawn: 64, identical: 64, .. }),
        "{found}"
    );
    assert!(found.to_string().contains("of 64 pairs none is left: 64 are the same answer twice"), "{found}");
    // Nothing ends an answer, so all are cut off; equal ones are counted as that.
    let found = error(parts(ByRows(cyclic)), SelfPlayConfig { truncated: Truncated::Drop, ..small() });
    let SelfPlayError::NoUsablePairs { drawn: 64, identical, truncated, undecided: 0, .. } = found else {
        panic!("{found}")
    };
    assert!(identical > 0 && truncated == 64 - identical);
    let config = SelfPlayConfig { pairing: Pairing::Tournament, ..small() };
    let found = error(parts(ByRows(coin)), SelfPlayConfig { num_generations: 4, ..config });
    let SelfPlayError::NoUsablePairs { drawn: 4, identical, undecided, .. } = found else {
        panic!("{found}")
    };
    assert_eq!(identical + undecided, 4);
}

// Answers that end: token 0 stops, answers are at most two long.

fn stopping(oracle: impl Preference + 'static, truncated: Truncated) -> SelfPlay<BigramLm> {
    let model = |seed| BigramLm::random(4, &Draws::new(seed), &train_device());
    let parts = SelfPlayParts {
        policy: model(1),
        reference: Box::new(Frozen::new(&model(2))),
        oracle: Box::new(oracle),
        prompts: (0..16).map(|x| vec![x % 4]).collect(),
        held_out: Vec::new(),
        measures: Vec::new(),
    };
    let config = SelfPlayConfig { num_generations: 4, stop_token_ids: vec![0], truncated, ..small() };
    SelfPlay::new(parts, config).expect("a run")
}

fn stopped(response: &[u32]) -> bool {
    response.last() == Some(&0)
}

#[test]
fn answers_that_were_cut_off_are_kept_dropped_or_lose() {
    let never = |_: &[u32], first: &[u32], second: &[u32]| {
        // Of what it is asked about, the cut-off one is the better.
        f64::from(u8::from(!stopped(first))) / 2.0 + f64::from(u8::from(stopped(second))) / 2.0
    };
    let of = |truncated| {
        let asked = Arc::new(AtomicUsize::new(0));
        let mut run = stopping(Counting { oracle: ByRows(never), asked: asked.clone() }, truncated);
        let metrics = run.step(0).expect("a step");
        // Beside the comparisons, up to four pairs in both orders.
        let calls = get(&metrics, "oracle/calls") as usize;
        assert_eq!(asked.load(Ordering::Relaxed), calls + 2 * calls.min(4));
        (run.pairs().to_vec(), metrics, calls)
    };
    let mixed = |pair: &Pair| stopped(&pair.responses[0]) != stopped(&pair.responses[1]);

    let (kept, metrics, asked) = of(Truncated::Keep);
    assert!(
        kept.iter().filter(|pair| mixed(pair)).all(|pair| !stopped(&pair.responses[0])),
        "as the oracle says"
    );
    assert_eq!((asked, get(&metrics, "pairs/truncated")), (kept.len(), 0.0));
    assert!(kept.iter().any(mixed));

    let (dropped, metrics, asked) = of(Truncated::Drop);
    assert!(dropped.iter().flat_map(|pair| &pair.responses).all(|response| stopped(response)));
    assert_eq!(
        (get(&metrics, "pairs/truncated"), asked),
        ((kept.len() - dropped.len()) as f64, dropped.len())
    );

    let (lost, metrics, asked) = of(Truncated::Lose);
    assert_eq!((lost.len(), get(&metrics, "pairs/truncated")), (kept.len(), 0.0));
    assert!(
        lost.iter().filter(|pair| mixed(pair)).all(|pair| stopped(&pair.responses[0])),
        "whatever the oracle says"
    );
    assert_eq!(asked, lost.iter().filter(|pair| !mixed(pair)).count());
}

// Whose answers they are.

/// A policy of one answer, nearly.
fn says(answer: [usize; 2], device: &burn::tensor::Device) -> PrefixLm {
    PrefixLm::of(|_, a, b| if [a, b] == answer { 1.0 } else { 1e-12 }, device)
}

fn of_two_models(method: Method) -> SelfPlay<PrefixLm> {
    let policy = says([0, 1], &train_device());
    let reference = Box::new(Frozen::new(&says([2, 0], &device())));
    let parts = SelfPlayParts { policy, reference, ..parts(ByRows(cyclic)) };
    let config = SelfPlayConfig { method, num_generations: 2, prompts_per_iteration: Some(32), ..small() };
    SelfPlay::new(parts, config).expect("a run")
}

#[test]
fn xpo_compares_the_policy_with_the_reference_and_marks_the_latter() {
    let mut run = of_two_models(xpo(0.25));
    run.step(0).expect("a step");
    assert_eq!(run.pairs().len(), 32);
    for pair in run.pairs() {
        let side =
            pair.responses.iter().position(|response| *response == [2, 0]).expect("the reference's answer");
        assert_eq!(pair.responses[1 - side], [0, 1]);
        assert_eq!((pair.likelihood[side], pair.likelihood[1 - side]), (0.25, 0.0));
    }
    // Both orders occur, as labels are drawn.
    let first = run.pairs().iter().filter(|pair| pair.responses[0] == [2, 0]).count();
    assert!(first > 0 && first < 32, "{first}");
}

#[test]
fn the_kl_is_that_of_what_the_policy_itself_answers() {
    // log π/π_ref of its one answer: 0 − log 1e-12.
    for method in [xpo(0.25), xpo(0.0), nash_md(1.0)] {
        let kl = get(&of_two_models(method).step(0).expect("a step"), "objective/kl");
        assert_close(kl, 1e12f64.ln(), 1e-3); // logits of −28 in f32
    }
}

#[test]
fn nash_md_plays_against_the_mixture() {
    let opponents = |mixture: f64| -> Vec<Vec<u32>> {
        let mut run = of_two_models(nash_md(mixture));
        run.step(0).expect("a step");
        assert!(run.pairs().iter().all(|pair| pair.responses[0] == [0, 1]));
        run.pairs().iter().map(|pair| pair.responses[1].clone()).collect()
    };
    assert_eq!(opponents(0.0), vec![vec![0, 1]; 32]);
    assert_eq!(opponents(1.0), vec![vec![2, 0]; 32]);
    // The geometric mean of 1 and 1e-12 is as large for either first token; the others have 1e-12.
    let half = opponents(0.5);
    let own = half.iter().filter(|answer| answer[0] == 0).count();
    assert!(half.iter().all(|answer| answer[0] != 1));
    assert!(own > 4 && own < 28, "16 of 32 within four standard errors, found {own}");
}

#[test]
fn anchors_are_those_of_the_method() {
    let model = |seed: usize| {
        PrefixLm::new(move |row, token| ((seed + 7 * row + 5 * token) % 11) as f64 / 5.0, &train_device())
    };
    let anchors = |method: Method| {
        let (num_generations, prompts_per_iteration) =
            if matches!(method, Method::NashMd { .. } | Method::Xpo { .. }) {
                (2, Some(16))
            } else {
                (8, None)
            };
        let parts = SelfPlayParts {
            policy: model(1),
            reference: Box::new(Frozen::new(&model(2))),
            ..parts(ByRows(cyclic))
        };
        let config = SelfPlayConfig { method, num_generations, prompts_per_iteration, ..small() };
        let mut run = SelfPlay::new(parts, config).expect("a run");
        run.step(0).expect("a step");
        run.pairs().to_vec()
    };
    let of = |pairs: &[Pair], which: usize| -> Vec<[f32; 2]> {
        let model = Frozen::new(&model(which));
        align_nash::sequence_sums(&model, pairs, 64, &device())
    };
    let found = |pairs: &[Pair]| pairs.iter().map(|pair| pair.anchors).collect::<Vec<_>>();
    let [reference, previous] = [Anchor::Reference, Anchor::Previous]
        .map(|anchor| anchors(Method::Dpo { loss: PairLoss::default(), anchor }));
    assert_eq!(found(&reference), of(&reference, 2));
    assert_eq!(found(&previous), of(&previous, 1));
    for method in [xpo(0.1), nash_md(0.5)] {
        let pairs = anchors(method);
        assert_eq!(found(&pairs), of(&pairs, 2));
    }
    let pairs = anchors(Method::Sppo { beta: Positive::literal(0.5) });
    assert_eq!(found(&pairs), of(&pairs, 1));
    // A fifth of the reference.
    let pairs = anchors(inpo(0.5, 0.1));
    for ((found, own), reference) in found(&pairs).iter().zip(of(&pairs, 1)).zip(of(&pairs, 2)) {
        let expected = [0, 1].map(|side| 0.2 * f64::from(reference[side]) + 0.8 * f64::from(own[side]));
        assert_close(found, expected, 1e-6); // rounded to f32
    }
}

#[test]
fn every_iteration_draws_afresh_from_the_policy_as_it_is() {
    let mut run = SelfPlay::new(parts(ByRows(cyclic)), small()).expect("a run");
    let steps = run.plan().steps_per_iteration as u64;
    let mut seen: Vec<Vec<Pair>> = Vec::new();
    for iteration in 0..3 {
        run.step(iteration * steps).expect("a step");
        let answers = |pairs: &[Pair]| pairs.iter().map(|pair| pair.responses.clone()).collect::<Vec<_>>();
        assert!(seen.iter().all(|before| answers(before) != answers(run.pairs())));
        let before = run.pairs().to_vec();
        run.step(iteration * steps + 1).expect("a step");
        assert_eq!(run.pairs(), before, "pairs stay for an iteration");
        seen.push(before);
    }
}
