//! Going on after an end gives the same bits, and how a step is cut changes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use align_core::number::{NonNegative, Positive, UnitInterval};
use align_nash::PairLoss;
use align_nash::self_play::{Anchor, Method, SelfPlay, SelfPlayConfig, SelfPlayParts};
use align_testkit::assert_close;
use align_train::{Algorithm, Metrics};

use crate::common::{ByRows, PrefixLm, TAU, cyclic, game, inpo, parts, prompts, run, small};

/// One of every method.
fn methods() -> Vec<Method> {
    let alpha = NonNegative::literal(0.1);
    vec![
        inpo(0.5, TAU),
        Method::Dpo { loss: PairLoss::default(), anchor: Anchor::Previous },
        Method::Sppo { beta: Positive::literal(0.5) },
        Method::Xpo { loss: PairLoss::default(), alpha },
        Method::NashMd { beta: alpha, mixture: UnitInterval::literal(0.5) },
    ]
}

/// Three iterations of four steps each, compared with the past on held-out prompts, the gap measured.
fn config(method: Method) -> SelfPlayConfig {
    let pairs = matches!(method, Method::Xpo { .. } | Method::NashMd { .. });
    let (num_generations, prompts_per_iteration) = if pairs { (2, Some(64)) } else { (32, None) };
    SelfPlayConfig { method, num_generations, prompts_per_iteration, evaluate_every: 1, seed: 5, ..small() }
}

fn make(config: &SelfPlayConfig) -> SelfPlay<PrefixLm> {
    let exact = game(&ByRows(cyclic));
    let measures: Vec<(String, align_nash::self_play::Measure)> =
        vec![("gap".into(), Box::new(move |policy| exact.duality_gap(policy)))];
    let held_out = prompts().into_iter().cycle().take(12).collect();
    let run = SelfPlay::new(SelfPlayParts { held_out, measures, ..parts(ByRows(cyclic)) }, config.clone());
    let run = run.expect("a run");
    assert_eq!((run.plan().steps_per_iteration, run.plan().steps()), (4, 12));
    run
}

/// Everything but seconds.
fn timeless(metrics: Metrics) -> Vec<(String, u64)> {
    let kept = metrics.iter().filter(|(name, _)| !name.starts_with("timing_s/"));
    kept.map(|(name, value)| (name.to_owned(), value.to_bits())).collect()
}

fn steps(run: &mut SelfPlay<PrefixLm>, range: std::ops::Range<u64>) -> Vec<Vec<(String, u64)>> {
    range.map(|step| timeless(run.iterate(step).expect("a step"))).collect()
}

fn hashes(folder: &Path) -> BTreeMap<String, String> {
    let hashed = align_train::hash_all(folder).expect("readable");
    hashed.into_iter().map(|(name, hash)| (name, format!("{hash:?}"))).collect()
}

fn folder_in(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(&path).expect("a folder");
    path
}

#[test]
fn a_restored_run_goes_on_bit_for_bit() {
    // After step 6 an iteration is half done, after step 8 one is complete and the next not begun.
    for method in methods() {
        for (stop, reset_optimizer) in [(6, None), (8, None), (6, Some(false)), (8, Some(false))] {
            let folder = tempfile::tempdir().expect("a folder");
            let config = SelfPlayConfig { reset_optimizer, ..config(method) };
            let mut whole = make(&config);
            let first = steps(&mut whole, 0..stop);
            whole.save(&folder_in(folder.path(), "stopped")).expect("saved");
            let rest = steps(&mut whole, stop..12);
            whole.save(&folder_in(folder.path(), "whole")).expect("saved");

            let mut second = make(&config);
            second.restore(&folder.path().join("stopped")).expect("restored");
            assert_eq!(steps(&mut second, stop..12), rest, "{} after {stop}", method.name());
            second.save(&folder_in(folder.path(), "resumed")).expect("saved");
            assert_eq!(hashes(&folder.path().join("whole")), hashes(&folder.path().join("resumed")));
            assert_ne!(hashes(&folder.path().join("whole")), hashes(&folder.path().join("stopped")));
            assert_ne!(first[0], rest[0]);
        }
    }
}

#[test]
fn equal_seeds_give_equal_runs_and_others_do_not() {
    let of = |seed| steps(&mut make(&SelfPlayConfig { seed, ..config(inpo(0.5, TAU)) }), 0..12);
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
}

#[test]
fn a_damaged_checkpoint_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(inpo(0.5, TAU));
    let mut run = make(&config);
    steps(&mut run, 0..1);
    run.save(folder.path()).expect("saved");
    let pairs = folder.path().join("pairs.jsonl");
    let text = std::fs::read_to_string(&pairs).expect("pairs");
    let count = text.lines().count();
    let broken = |damaged: &str| {
        std::fs::write(&pairs, damaged).expect("written");
        let mut other = make(&config);
        let before = other.policy().values();
        let message = other.restore(folder.path()).expect_err("damaged").to_string();
        assert_eq!(other.policy().values(), before, "nothing was taken over");
        message
    };
    let last = text.trim_end().rfind('\n').expect("several lines") + 1;
    let message = broken(&text[..last]);
    assert!(
        message.contains(&format!("expected {count} pairs, one a line, found {} pairs", count - 1)),
        "{message}"
    );
    let message = broken(&text.replacen("\"prompt\"", "\"question\"", 1));
    assert!(message.contains("pairs.jsonl is damaged") && message.contains("question"), "{message}");
}

#[test]
fn a_microbatch_is_memory_and_nothing_else() {
    for method in methods() {
        let of = |microbatch: usize| {
            let mut run = make(&SelfPlayConfig { microbatch, ..config(method) });
            run.step(0).expect("a step");
            (run.pairs().to_vec(), run.policy().values())
        };
        let (pairs, weights) = of(64);
        for microbatch in [1, 5, 32] {
            let (other_pairs, other_weights) = of(microbatch);
            // The same answers and labels; anchors are read off row by row.
            assert_eq!(pairs, other_pairs, "{}", method.name());
            // The order of a sum of 32 terms in f32. Adam divides a gradient by its size: an error of 1e-7 of it is one of 1e-7 of
            // the step of 0.05, unless terms cancel to almost nothing.
            assert_close(other_weights, &weights, 1e-5);
        }
    }
}

#[test]
fn what_is_taken_out_is_the_policy_that_was_trained() {
    let mut run = run(ByRows(cyclic), small());
    let before = run.policy().values();
    run.step(0).expect("a step");
    let after = run.policy().values();
    assert_ne!(before, after);
    assert_eq!(run.into_policy().values(), after);
}
