//! What is refused before a run, what stops one, and what is only said.

use std::error::Error;
use std::sync::Mutex;

use align_core::number::{Fraction, NonNegative, Positive, UnitInterval};
use align_core::{Completions, Frozen, OracleError, Preference};
use align_models::GenerateError;
use align_nash::PairLoss;
use align_nash::self_play::{
    Anchor, EtaSchedule, Method, Pairing, SelfPlay, SelfPlayConfig, SelfPlayError, SelfPlayParts, Warning,
};
use align_testkit::{BigramLm, assert_close, device};
use align_train::checkpoint::{CheckpointPlan, OnDamage};
use align_train::{RunPlan, TrainError};
use burn::tensor::Tensor;
use serde_json::json;

use crate::common::{ByRows, PrefixLm, TAU, cyclic, inpo, parts, run, small, table_optimizer};

fn refused(config: SelfPlayConfig) -> String {
    let Err(error) = SelfPlay::new(parts(ByRows(cyclic)), config) else { panic!("accepted") };
    error.to_string()
}

fn xpo() -> Method {
    Method::Xpo { loss: PairLoss::default(), alpha: NonNegative::literal(0.1) }
}

fn sppo() -> Method {
    Method::Sppo { beta: Positive::literal(0.5) }
}

fn nash_md() -> Method {
    Method::NashMd { beta: NonNegative::literal(0.1), mixture: UnitInterval::literal(0.5) }
}

#[test]
fn settings_that_contradict_each_other_are_named() {
    let with = |method: Method, num_generations: usize, pairing: Pairing| SelfPlayConfig {
        method,
        num_generations,
        pairing,
        ..small()
    };
    let independent = |method, k| refused(with(method, k, Pairing::Independent));
    let tournament = |method, k| refused(with(method, k, Pairing::Tournament));
    assert_eq!(
        independent(inpo(0.1, 0.2), 2),
        "`tau` is 0.2 and `eta` is 0.1, expected 0 <= tau <= eta: otherwise the exponent 1 − tau/eta is negative"
    );
    let even = "expected an even number, at least 2, for disjoint pairs";
    for k in [0, 1, 3] {
        assert_eq!(independent(inpo(0.5, TAU), k), format!("`num_generations` is {k}, {even}"));
        assert_eq!(independent(sppo(), k), format!("`num_generations` is {k}, {even}"));
    }
    let power = "expected a power of two, at least 2, for a knockout tournament";
    for k in [0, 1, 6] {
        assert_eq!(tournament(inpo(0.5, TAU), k), format!("`num_generations` is {k}, {power}"));
    }
    for method in [xpo(), nash_md()] {
        let message = "`num_generations` is 4, expected 2: one of the policy and one of its opponent";
        assert_eq!(independent(method, 4), message);
    }
    for method in [xpo(), nash_md(), sppo()] {
        let message = format!(
            "`pairing` is \"tournament\", and {} has no use for one: expected \"independent\"",
            method.name()
        );
        assert_eq!(tournament(method, 2), message);
    }
    let Method::Inpo { eta, loss_scaling, .. } = inpo(0.5, 0.0) else { unreachable!() };
    let tau = Some(NonNegative::literal(0.0));
    let schedule = Method::Inpo { eta, tau, schedule: EtaSchedule::Decreasing, loss_scaling };
    assert_eq!(
        independent(schedule, 2),
        "`schedule` is \"decreasing\", expected `tau` above 0 with it, found 0"
    );
}

#[test]
fn counts_of_nothing_are_named() {
    for (name, config) in [
        ("iterations", SelfPlayConfig { iterations: 0, ..small() }),
        ("num_epochs", SelfPlayConfig { num_epochs: 0, ..small() }),
        ("minibatch", SelfPlayConfig { minibatch: 0, ..small() }),
        ("microbatch", SelfPlayConfig { microbatch: 0, ..small() }),
        ("response_length", SelfPlayConfig { response_length: 0, ..small() }),
        ("prompts_per_iteration", SelfPlayConfig { prompts_per_iteration: Some(0), ..small() }),
    ] {
        assert_eq!(refused(config), format!("`{name}` is 0, expected at least 1"));
    }
    let none = SelfPlayParts { prompts: Vec::new(), ..parts(ByRows(cyclic)) };
    assert!(matches!(SelfPlay::new(none, small()), Err(SelfPlayError::NoPrompts)));
}

#[test]
fn parts_that_do_not_fit_are_named() {
    let reference = Box::new(Frozen::new(&BigramLm::independent(&[0.0; 5], &device())));
    let Err(error) = SelfPlay::new(SelfPlayParts { reference, ..parts(ByRows(cyclic)) }, small()) else {
        panic!("accepted")
    };
    assert_eq!(error.to_string(), "the reference has a vocabulary of 5 tokens, expected the policy's 4");

    let prompts = vec![vec![0], Vec::new()];
    let mut run = SelfPlay::new(SelfPlayParts { prompts, ..parts(ByRows(cyclic)) }, small()).expect("a run");
    let error = run.step(0).expect_err("an empty prompt");
    assert!(matches!(error, SelfPlayError::Generate(GenerateError::EmptyPrompt { .. })), "{error}");

    // A reference that never says what the policy says.
    let mute = PrefixLm::new(|_, token| if token == 0 { f64::NEG_INFINITY } else { 0.0 }, &device());
    let parts = SelfPlayParts { reference: Box::new(Frozen::new(&mute)), ..parts(ByRows(cyclic)) };
    let error = SelfPlay::new(parts, small()).expect("a run").step(0).expect_err("no anchor");
    let SelfPlayError::Anchor(anchor) = error else { panic!("{error}") };
    assert_eq!(anchor.found, f32::NEG_INFINITY);
}

fn oracle_error(oracle: fn(&[u32], &[u32], &[u32]) -> f64) -> OracleError {
    let error = run(ByRows(oracle), small()).step(0).expect_err("no oracle");
    assert_eq!(error.to_string(), "the oracle failed in iteration 1");
    let SelfPlayError::Oracle { iteration: 1, source } = error else { panic!("{error}") };
    source
}

#[test]
fn an_oracle_that_is_none_is_refused_before_anything_is_learnt() {
    for found in [1.5, -0.1, f64::INFINITY] {
        let error = oracle_error(match found {
            1.5 => |_, _, _| 1.5,
            -0.1 => |_, _, _| -0.1,
            _ => |_, _, _| f64::INFINITY,
        });
        let OracleError::NotAProbability { row: 0, found: answer } = error else { panic!("{error}") };
        assert_eq!(answer, f64::from(found as f32));
    }
    let error = oracle_error(|_, _, _| f64::NAN);
    assert!(
        error.to_string().contains("preference for row 0 is NaN, expected a number in [0, 1]"),
        "{error}"
    );
}

#[test]
fn an_oracle_with_a_liking_for_a_place_is_told_how_strong_it_is() {
    let error = oracle_error(|x, a, b| 0.2 + 0.7 * cyclic(x, a, b));
    let message = error.to_string();
    let OracleError::NotAntisymmetric { excess, tolerance, .. } = error else { panic!("{message}") };
    // 2·0.2 + 0.7 − 1.
    assert_close(excess, 0.1, 1e-6); // f32
    assert_close(tolerance, 1e-3, 0.0);
    assert!(message.contains(&format!("which is {excess:+} off a sum of 1")), "{message}");
    // One that is symmetric within the tolerance learns.
    run(ByRows(|x: &[u32], a: &[u32], b: &[u32]| 0.0003 + 0.9993 * cyclic(x, a, b)), small())
        .step(0)
        .expect("a step");
}

/// An oracle that goes away after so many batches, and says why.
struct GoesAway {
    left: Mutex<usize>,
    reason: Option<&'static str>,
}

impl Preference for GoesAway {
    fn prefer(&self, first: &Completions, second: &Completions) -> Tensor<1> {
        let answers = ByRows(cyclic).prefer(first, second);
        let mut left = self.left.lock().expect("one thread");
        match left.checked_sub(1) {
            Some(rest) => *left = rest,
            None => return answers * f32::NAN,
        }
        answers
    }

    fn take_failure(&self) -> Option<String> {
        self.reason.map(str::to_owned)
    }
}

#[test]
fn an_oracle_that_fails_in_the_second_iteration_leaves_the_last_checkpoint() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = CheckpointPlan::new(folder.path(), 1, json!({}));
    // An iteration of 16 microbatches at most; two batches more for both orders of a few pairs.
    let config = || SelfPlayConfig { microbatch: 4, ..small() };
    let mut whole = run(ByRows(cyclic), config());
    let steps = whole.plan().steps();
    let per_iteration = whole.plan().steps_per_iteration as u64;
    for reason in [None, Some("the server did not answer")] {
        let first = (whole.plan().pairs / 4) + 2;
        let oracle = GoesAway { left: Mutex::new(first + 2), reason };
        let mut failing = run(oracle, config());
        let error =
            align_train::run(&mut failing, &RunPlan::new(steps).with_checkpoints(plan.clone()), &mut []);
        let error = error.expect_err("an oracle that went away");
        let TrainError::Algorithm(source) = &error else { panic!("{error}") };
        let Some(SelfPlayError::Oracle { iteration: 2, source }) = source.downcast_ref() else {
            panic!("{source}")
        };
        match reason {
            None => assert!(matches!(source, OracleError::NotAProbability { .. }), "{source}"),
            Some(said) => {
                assert!(matches!(source, OracleError::Failed { reason, .. } if reason == said), "{source}")
            }
        }
        assert!(error.source().expect("a cause").source().is_some(), "the whole story can be told");

        // What was saved after the first iteration goes on with an oracle that works, as if nothing had happened.
        let mut resumed = run(ByRows(cyclic), config());
        let begun = align_train::resume(&mut resumed, &plan, OnDamage::Refuse).expect("a checkpoint");
        assert_eq!(begun, per_iteration);
        align_train::run(&mut resumed, &RunPlan::new(steps).from(begun), &mut []).expect("a run");
        if reason.is_none() {
            align_train::run(&mut whole, &RunPlan::new(steps), &mut []).expect("a run");
        }
        assert_eq!(resumed.policy().values(), whole.policy().values());
    }
}

fn said(config: SelfPlayConfig) -> Vec<Warning> {
    let mut run = run(ByRows(cyclic), config);
    let said = run.take_warnings();
    assert_eq!(run.take_warnings(), [], "once");
    said
}

#[test]
fn what_may_orbit_or_diverge_is_said() {
    let with = |method: Method| said(SelfPlayConfig { method, ..small() });
    // (τ² + ¼)/(2τ) for τ = 0.1.
    let safe = 1.3;
    assert_eq!(with(inpo(1.300_001, TAU)), []);
    let [Warning::MayOrbit { eta: 0.5, tau: TAU, safe: found }] = with(inpo(0.5, TAU))[..] else {
        panic!("nothing said")
    };
    assert_close(found, safe, 1e-12);
    assert_eq!(with(inpo(0.5, 0.5)), [], "(0.25 + 0.25)/1 is safe");
    assert_eq!(with(inpo(0.5, 0.0)), [Warning::Unregularized]);
    // η grows past what is safe, and the last iterate converges.
    let Method::Inpo { eta, tau, loss_scaling, .. } = inpo(0.5, TAU) else { unreachable!() };
    assert_eq!(with(Method::Inpo { eta, tau, schedule: EtaSchedule::Decreasing, loss_scaling }), []);
    let dpo = Method::Dpo { loss: PairLoss::default(), anchor: Anchor::Previous };
    assert!([dpo, sppo()].map(with).iter().all(Vec::is_empty));
}

#[test]
fn pairs_that_are_not_what_the_theorem_asks_for_are_said() {
    let quiet = || SelfPlayConfig { method: inpo(2.0, TAU), num_generations: 8, ..small() };
    assert_eq!(said(quiet()), []);
    assert_eq!(said(SelfPlayConfig { pairing: Pairing::Tournament, ..quiet() }), [Warning::Tournament]);
    let warm = SelfPlayConfig { temperature: Positive::literal(0.7), ..quiet() };
    assert_eq!(said(warm), [Warning::Filtered { temperature: 0.7, top_p: 1.0 }]);
    let few = SelfPlayConfig { top_p: Fraction::literal(0.9), ..quiet() };
    assert_eq!(said(few), [Warning::Filtered { temperature: 1.0, top_p: 0.9 }]);
}

#[test]
fn a_clip_that_always_binds_is_said() {
    let of = |max_grad_norm: f64, scaled: bool| {
        let Method::Inpo { eta, tau, schedule, .. } = inpo(0.005, 0.005 / 3.0) else { unreachable!() };
        let method = Method::Inpo { eta, tau, schedule, loss_scaling: scaled };
        let optimizer = align_train::OptimizerConfig {
            max_grad_norm: NonNegative::literal(max_grad_norm),
            ..table_optimizer()
        };
        let clipped = |warning: &Warning| matches!(warning, Warning::AlwaysClipped { .. });
        said(SelfPlayConfig { method, optimizer, ..small() }).into_iter().find(clipped)
    };
    // 1/η = 200 where 1 is allowed.
    assert_eq!(of(1.0, false), Some(Warning::AlwaysClipped { slope: 200.0, limit: 1.0 }));
    assert_eq!(of(20.0, false), None);
    assert_eq!(of(19.0, false), Some(Warning::AlwaysClipped { slope: 200.0, limit: 19.0 }));
    assert_eq!(of(1.0, true), None);
    assert_eq!(of(0.0, false), None, "nothing is clipped");
}

#[test]
fn a_clipped_step_is_counted() {
    let of = |max_grad_norm: f64| {
        let optimizer = align_train::OptimizerConfig {
            max_grad_norm: NonNegative::literal(max_grad_norm),
            ..table_optimizer()
        };
        run(ByRows(cyclic), SelfPlayConfig { optimizer, ..small() }).step(0).expect("a step")
    };
    let norm = of(0.0).get("grad_norm").expect("a norm");
    for (limit, clipped) in [(0.0, 0.0), (0.99 * norm, 1.0), (1.01 * norm, 0.0)] {
        assert_eq!(of(limit).get("val/clipped"), Some(clipped), "at {limit} of {norm}");
    }
}

#[test]
fn warnings_say_what_to_do() {
    for (warning, part) in [
        (Warning::MayOrbit { eta: 0.5, tau: 0.1, safe: 1.3 }, "below (tau² + ¼)/(2 tau) = 1.300"),
        (Warning::Unregularized, "tau is 0"),
        (Warning::Tournament, "not independent"),
        (Warning::Filtered { temperature: 0.7, top_p: 0.9 }, "temperature 0.7 and top_p 0.9"),
        (Warning::AlwaysClipped { slope: 200.0, limit: 1.0 }, "`loss_scaling = true`"),
    ] {
        assert!(warning.to_string().contains(part), "{warning}");
    }
}
