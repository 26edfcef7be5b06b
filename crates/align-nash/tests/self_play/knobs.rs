//! A knob that changes nothing is a defect: each is turned, and the outcome must differ.

use align_core::number::{Fraction, NonNegative, Positive, UnitInterval};
use align_core::{Draws, Frozen};
use align_nash::PairLoss;
use align_nash::self_play::{
    Anchor, EtaSchedule, Labels, Method, Pairing, Plan, SelfPlay, SelfPlayConfig, SelfPlayParts, Truncated,
};
use align_testkit::{BigramLm, device, train_device};
use align_train::{OptimizerConfig, Schedule};

use crate::common::{ByRows, TAU, inpo, larger, small, table_optimizer};

/// Five tokens of which the first ends an answer; a loss that clips; held-out prompts.
fn base() -> SelfPlayConfig {
    SelfPlayConfig {
        iterations: 3,
        num_generations: 16,
        minibatch: 32,
        response_length: 3,
        stop_token_ids: vec![0],
        evaluate_every: 1,
        optimizer: OptimizerConfig { max_grad_norm: NonNegative::literal(1.0), ..table_optimizer() },
        ..small()
    }
}

/// The weights at the end, and every number that was reported but seconds.
fn outcome(config: SelfPlayConfig) -> (Vec<u32>, Vec<(String, u64)>) {
    let model = |seed| BigramLm::random(5, &Draws::new(seed), &train_device());
    let parts = SelfPlayParts {
        policy: model(1),
        reference: Box::new(Frozen::new(&BigramLm::random(5, &Draws::new(2), &device()))),
        oracle: Box::new(ByRows(larger)),
        prompts: vec![vec![1], vec![2, 3], vec![4, 1, 2], vec![3], vec![4], vec![2]],
        held_out: (0..12).map(|x| vec![1 + x % 4, 2]).collect(),
        measures: Vec::new(),
    };
    // Token 0 is `a`, 1 is `b`.
    let letters =
        |ids: &[u32]| ids.iter().filter_map(|&id| char::from_u32('a' as u32 + id)).collect::<String>();
    let mut run = SelfPlay::new(parts, config).expect("a run").with_detokenizer(letters);
    let mut reported = Vec::new();
    for step in 0..run.plan().steps() {
        let metrics = run.step(step).expect("a step");
        let kept = metrics.iter().filter(|(name, _)| !name.starts_with("timing_s/"));
        reported.extend(kept.map(|(name, value)| (format!("{step} {name}"), value.to_bits())));
    }
    (run.policy().table.val().to_data().iter::<f32>().map(f32::to_bits).collect(), reported)
}

fn of_inpo(eta: f64, tau: Option<f64>, schedule: EtaSchedule, loss_scaling: bool) -> Method {
    Method::Inpo { eta: Positive::literal(eta), tau: tau.map(NonNegative::literal), schedule, loss_scaling }
}

fn dpo(beta: f64, anchor: Anchor) -> Method {
    Method::Dpo { loss: PairLoss::Ipo { beta: Positive::literal(beta), length_normalized: false }, anchor }
}

fn sppo(beta: f64) -> Method {
    Method::Sppo { beta: Positive::literal(beta) }
}

fn xpo(beta: f64, alpha: f64) -> Method {
    let loss = PairLoss::Ipo { beta: Positive::literal(beta), length_normalized: false };
    Method::Xpo { loss, alpha: NonNegative::literal(alpha) }
}

fn nash_md(beta: f64, mixture: f64) -> Method {
    Method::NashMd { beta: NonNegative::literal(beta), mixture: UnitInterval::literal(mixture) }
}

#[test]
fn every_knob_changes_the_outcome() {
    // A field more than these does not compile: turn it below.
    let SelfPlayConfig {
        method: _,
        iterations: _,
        prompts_per_iteration: _,
        num_generations: _,
        pairing: _,
        labels: _,
        truncated: _,
        num_epochs: _,
        minibatch: _,
        microbatch: _, // memory, not results: held to that among the tests of resuming
        optimizer: _,
        reset_optimizer: _,
        temperature: _,
        top_p: _,
        response_length: _,
        stop_token_ids: _,
        stop_strings: _,
        evaluate_every: _,
        past_policies: _,
        seed: _,
    } = base();
    let with = |method: Method| SelfPlayConfig { method, ..base() };
    let in_twos = |method: Method| SelfPlayConfig { num_generations: 2, ..with(method) };
    let hard = |config: SelfPlayConfig| SelfPlayConfig { labels: Some(Labels::Hard), ..config };
    let soft = |config: SelfPlayConfig| SelfPlayConfig { labels: Some(Labels::Soft), ..config };
    let turned: Vec<(&str, SelfPlayConfig)> = vec![
        ("nothing", base()),
        ("eta", with(inpo(0.6, TAU))),
        ("tau", with(inpo(0.5, 0.2))),
        ("tau of eta / 3", with(of_inpo(0.5, None, EtaSchedule::Constant, false))),
        ("schedule", with(of_inpo(0.5, Some(TAU), EtaSchedule::Decreasing, false))),
        ("eta of the schedule", with(of_inpo(0.5, None, EtaSchedule::Decreasing, false))),
        ("eta of the schedule", with(of_inpo(0.6, None, EtaSchedule::Decreasing, false))),
        ("loss_scaling", with(of_inpo(0.5, Some(TAU), EtaSchedule::Constant, true))),
        ("dpo", with(dpo(0.5, Anchor::Reference))),
        ("dpo beta", with(dpo(0.4, Anchor::Reference))),
        ("dpo anchor", with(dpo(0.5, Anchor::Previous))),
        ("dpo loss", with(Method::Dpo { loss: PairLoss::default(), anchor: Anchor::Reference })),
        ("dpo labels", soft(with(dpo(0.5, Anchor::Reference)))),
        ("sppo", with(sppo(0.5))),
        ("sppo beta", with(sppo(0.4))),
        ("sppo labels", hard(with(sppo(0.5)))),
        ("two", in_twos(inpo(0.5, TAU))),
        ("xpo", in_twos(xpo(0.5, 0.1))),
        ("xpo beta", in_twos(xpo(0.4, 0.1))),
        ("xpo alpha", in_twos(xpo(0.5, 0.2))),
        ("xpo labels", soft(in_twos(xpo(0.5, 0.1)))),
        ("nash_md", in_twos(nash_md(0.1, 0.5))),
        ("nash_md beta", in_twos(nash_md(0.2, 0.5))),
        ("nash_md mixture", in_twos(nash_md(0.1, 0.4))),
        ("nash_md self-play", in_twos(nash_md(0.1, 0.0))),
        ("nash_md labels", hard(in_twos(nash_md(0.1, 0.5)))),
        ("iterations", SelfPlayConfig { iterations: 4, ..base() }),
        ("prompts_per_iteration", SelfPlayConfig { prompts_per_iteration: Some(4), ..base() }),
        ("num_generations", SelfPlayConfig { num_generations: 8, ..base() }),
        ("pairing", SelfPlayConfig { pairing: Pairing::Tournament, ..base() }),
        ("labels", soft(base())),
        ("tournament's labels", soft(SelfPlayConfig { pairing: Pairing::Tournament, ..base() })),
        ("truncated", SelfPlayConfig { truncated: Truncated::Drop, ..base() }),
        ("truncated", SelfPlayConfig { truncated: Truncated::Lose, ..base() }),
        ("num_epochs", SelfPlayConfig { num_epochs: 3, ..base() }),
        ("minibatch", SelfPlayConfig { minibatch: 16, ..base() }),
        (
            "optimizer",
            SelfPlayConfig {
                optimizer: OptimizerConfig { schedule: Schedule::default(), ..base().optimizer },
                ..base()
            },
        ),
        ("reset_optimizer", SelfPlayConfig { reset_optimizer: Some(false), ..base() }),
        ("temperature", SelfPlayConfig { temperature: Positive::literal(0.8), ..base() }),
        ("top_p", SelfPlayConfig { top_p: Fraction::literal(0.7), ..base() }),
        ("response_length", SelfPlayConfig { response_length: 4, ..base() }),
        ("stop_token_ids", SelfPlayConfig { stop_token_ids: vec![0, 2], ..base() }),
        ("stop_strings", SelfPlayConfig { stop_strings: vec!["bc".to_owned()], ..base() }),
        ("evaluate_every", SelfPlayConfig { evaluate_every: 2, ..base() }),
        ("evaluate_every", SelfPlayConfig { evaluate_every: 0, ..base() }),
        ("past_policies", SelfPlayConfig { past_policies: 0, ..base() }),
        ("seed", SelfPlayConfig { seed: 4, ..base() }),
    ];
    let mut seen: Vec<(&str, _)> = Vec::new();
    for (name, config) in turned {
        let found = outcome(config);
        for (other, outcome) in &seen {
            assert_ne!(*outcome, found, "{name} and {other} have one outcome");
        }
        seen.push((name, found));
    }
}

#[test]
fn where_eta_only_decides_tau_it_changes_nothing_beside_a_given_tau() {
    let of = |eta: f64| {
        outcome(SelfPlayConfig { method: of_inpo(eta, Some(TAU), EtaSchedule::Decreasing, false), ..base() })
    };
    assert_eq!(of(0.5), of(0.7));
}

#[test]
fn sizes_are_spelt_out() {
    let plan = |config: SelfPlayConfig| config.plan(6).expect("a plan");
    let expected = Plan {
        prompts: 6,
        pairs: 48,
        steps_per_iteration: 4,
        iterations: 3,
        reset_optimizer: true,
        labels: Labels::Hard,
    };
    assert_eq!(plan(base()), expected);
    assert_eq!(expected.steps(), 12);
    assert_eq!(expected.to_string(), "3 iterations of 6 prompts, 48 comparisons and 4 optimiser steps each");
    // More prompts than there are come round again.
    let more = plan(SelfPlayConfig { prompts_per_iteration: Some(9), ..base() });
    assert_eq!((more.prompts, more.pairs, more.steps_per_iteration), (9, 72, 6));
    let best = plan(SelfPlayConfig { pairing: Pairing::Tournament, ..base() });
    assert_eq!((best.pairs, best.steps_per_iteration), (6, 2));
    // Where an iteration is a single step there is no training of its own to begin.
    let one = plan(SelfPlayConfig { num_epochs: 1, minibatch: 48, ..base() });
    assert_eq!((one.steps_per_iteration, one.reset_optimizer), (1, false));
    let forced = plan(SelfPlayConfig { num_epochs: 1, minibatch: 48, reset_optimizer: Some(true), ..base() });
    assert!(forced.reset_optimizer);
}

#[test]
fn a_recipe_is_read_back_as_it_was_written() {
    for config in [
        base(),
        SelfPlayConfig::default(),
        SelfPlayConfig { method: xpo(0.5, 0.1), labels: Some(Labels::Soft), ..base() },
    ] {
        let text = toml::to_string(&config).expect("TOML");
        assert_eq!(toml::from_str::<SelfPlayConfig>(&text).expect("a recipe"), config);
    }
    let of = |text: &str| toml::from_str::<SelfPlayConfig>(text).map_err(|error| error.message().to_owned());
    let short = of("method = { kind = \"nash_md\" }\nlabels = \"hard\"").expect("a recipe");
    assert_eq!(short.method, nash_md(0.1, 0.5));
    assert_eq!(of("method = { kind = \"sppo\" }").expect("a recipe").method, sppo(1e-3));
    assert_eq!(of("").expect("a recipe"), SelfPlayConfig::default());
    for (text, part) in [
        ("methods = 1", "unknown field `methods`"),
        ("method = { kind = \"sppo\", eta = 0.5 }", "unknown field `eta`"),
        ("method = { kind = \"inpo\", eta = 0 }", "expected a finite number > 0, found 0"),
        ("method = { kind = \"inpo\", tau = -1 }", "expected a finite number >= 0, found -1"),
        ("method = { kind = \"rlhf\" }", "unknown variant `rlhf`"),
        ("labels = \"firm\"", "unknown variant `firm`"),
        ("top_p = 0", "expected a number in (0, 1], found 0"),
    ] {
        let message = of(text).expect_err(text);
        assert!(message.contains(part), "{text}: {message}");
    }
}
