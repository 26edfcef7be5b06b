//! Losses as recipes write them.

use align_core::number::{Finite, NoiseRate, Positive};
use align_nash::loss::FDivergence;
use align_nash::{KtoConfig, Pair, PairLoss, PairObjective};
use serde::{Deserialize, Serialize};

use crate::world::{every_loss, pairs, policy, step, whole};

/// A recipe that has a loss in it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe<L> {
    loss: L,
}

fn read(loss: &str) -> Result<PairLoss, String> {
    toml::from_str::<Recipe<PairLoss>>(&format!("loss = {{ {loss} }}"))
        .map(|recipe| recipe.loss)
        .map_err(|error| error.to_string())
}

fn positive(value: f64) -> Positive {
    Positive::try_from(value).expect("above 0")
}

fn rate(value: f64) -> NoiseRate {
    NoiseRate::try_from(value).expect("below a half")
}

#[test]
fn every_kind_is_read_with_the_defaults_its_documentation_gives() {
    let expected = [
        (
            "dpo",
            PairLoss::Dpo {
                beta: positive(0.1),
                label_smoothing: rate(0.0),
                f_divergence: FDivergence::ReverseKl,
            },
        ),
        ("robust", PairLoss::Robust { beta: positive(0.1), label_smoothing: rate(0.1) }),
        ("ipo", PairLoss::Ipo { beta: positive(0.1), length_normalized: false }),
        ("hinge", PairLoss::Hinge { beta: positive(0.1) }),
        ("simpo", PairLoss::Simpo { beta: positive(2.0), gamma: Finite::literal(1.0) }),
        ("sppo", PairLoss::Sppo { beta: positive(1e-3) }),
    ];
    for (kind, loss) in expected {
        assert_eq!(read(&format!("kind = '{kind}'")), Ok(loss));
    }
    assert_eq!(read("kind = 'dpo'"), Ok(PairLoss::default()));
}

#[test]
fn the_names_of_trl_are_read() {
    assert_eq!(read("kind = 'sigmoid', beta = 0.3"), read("kind = 'dpo', beta = 0.3"));
    assert_eq!(read("kind = 'sppo_hard', beta = 0.3"), read("kind = 'sppo', beta = 0.3"));
    assert!(read("kind = 'sigmoid'").is_ok() && read("kind = 'sppo_hard'").is_ok());
}

#[test]
fn every_field_is_read() {
    let beta = positive(0.25);
    let expected = [
        (
            "kind = 'dpo', beta = 0.25, label_smoothing = 0.125, f_divergence = 'js_divergence'",
            PairLoss::Dpo { beta, label_smoothing: rate(0.125), f_divergence: FDivergence::JsDivergence },
        ),
        (
            "kind = 'robust', beta = 0.25, label_smoothing = 0.375",
            PairLoss::Robust { beta, label_smoothing: rate(0.375) },
        ),
        (
            "kind = 'ipo', beta = 0.25, length_normalized = true",
            PairLoss::Ipo { beta, length_normalized: true },
        ),
        ("kind = 'hinge', beta = 0.25", PairLoss::Hinge { beta }),
        ("kind = 'simpo', beta = 0.25, gamma = -0.5", PairLoss::Simpo { beta, gamma: Finite::literal(-0.5) }),
        ("kind = 'sppo', beta = 0.25", PairLoss::Sppo { beta }),
    ];
    for (text, loss) in expected {
        assert_eq!(read(text), Ok(loss));
    }
}

#[test]
fn every_divergence_is_read_by_trls_name() {
    let divergence = |text: &str| match read(&format!("kind = 'dpo', f_divergence = {text}")) {
        Ok(PairLoss::Dpo { f_divergence, .. }) => f_divergence,
        other => panic!("{text}: {other:?}"),
    };
    for (text, expected) in [
        ("'reverse_kl'", FDivergence::ReverseKl),
        ("'kl'", FDivergence::ReverseKl),
        ("'forward_kl'", FDivergence::ForwardKl),
        ("'js_divergence'", FDivergence::JsDivergence),
        (
            "{ alpha_divergence = { alpha = 0.5 } }",
            FDivergence::AlphaDivergence { alpha: Finite::literal(0.5) },
        ),
    ] {
        assert_eq!(divergence(text), expected);
    }
}

#[test]
fn what_is_written_is_what_was_read() {
    for (name, loss) in every_loss() {
        let text = toml::to_string(&Recipe { loss }).expect("TOML");
        assert_eq!(toml::from_str::<Recipe<PairLoss>>(&text).expect(name).loss, loss, "{text}");
    }
    let config = KtoConfig { beta: positive(0.3), ..KtoConfig::default() };
    let text = toml::to_string(&Recipe { loss: config }).expect("TOML");
    assert_eq!(toml::from_str::<Recipe<KtoConfig>>(&text).expect("KTO").loss, config, "{text}");
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    for (text, parts) in [
        ("kind = 'dpo', betta = 0.1", vec!["unknown field `betta`", "`beta`", "`label_smoothing`"]),
        ("kind = 'hinge', label_smoothing = 0.1", vec!["unknown field `label_smoothing`", "`beta`"]),
        ("kind = 'sppo', gamma = 0.1", vec!["unknown field `gamma`"]),
        ("kind = 'ppo'", vec!["unknown variant `ppo`", "`dpo`", "`simpo`"]),
        ("beta = 0.1", vec!["missing field `kind`"]),
        ("kind = 'dpo', f_divergence = 'jensen'", vec!["unknown variant `jensen`", "`js_divergence`"]),
        ("kind = 'dpo', f_divergence = { alpha_divergence = { } }", vec!["missing field `alpha`"]),
        (
            "kind = 'dpo', f_divergence = { alpha_divergence = { alpha = 0.5, beta = 1 } }",
            vec!["unknown field `beta`", "`alpha`"],
        ),
        ("kind = 'ipo', length_normalized = 1", vec!["integer `1`", "boolean"]),
    ] {
        let message = read(text).expect_err(text);
        for part in parts {
            assert!(message.contains(part), "{text}: no {part} in {message}");
        }
    }
}

#[test]
fn numbers_out_of_range_are_refused_with_the_number_and_the_range() {
    for (text, range, found) in [
        ("kind = 'dpo', beta = 0", Positive::RANGE, "0"),
        ("kind = 'dpo', beta = -0.5", Positive::RANGE, "-0.5"),
        ("kind = 'ipo', beta = inf", Positive::RANGE, "inf"),
        ("kind = 'sppo', beta = nan", Positive::RANGE, "NaN"),
        ("kind = 'dpo', label_smoothing = 0.5", NoiseRate::RANGE, "0.5"),
        ("kind = 'robust', label_smoothing = -0.1", NoiseRate::RANGE, "-0.1"),
        ("kind = 'robust', label_smoothing = 0.7", NoiseRate::RANGE, "0.7"),
        ("kind = 'simpo', gamma = inf", Finite::RANGE, "inf"),
        ("kind = 'dpo', f_divergence = { alpha_divergence = { alpha = nan } }", Finite::RANGE, "NaN"),
    ] {
        let message = read(text).expect_err(text);
        assert!(message.contains(&format!("expected {range}, found {found}")), "{text}: {message}");
    }
}

#[test]
fn ktos_config_is_read_and_checked() {
    let read = |text: &str| toml::from_str::<KtoConfig>(text).map_err(|error| error.to_string());
    let default = read("").expect("nothing");
    assert_eq!(default, KtoConfig::default());
    assert_eq!(
        [default.beta.get(), default.desirable_weight.get(), default.undesirable_weight.get()],
        [0.1, 1.0, 1.0]
    );
    let all = read("beta = 0.2\ndesirable_weight = 1.3\nundesirable_weight = 0").expect("all of them");
    assert_eq!([all.beta.get(), all.desirable_weight.get(), all.undesirable_weight.get()], [0.2, 1.3, 0.0]);
    for (text, parts) in [
        ("desirable_weight = -1", ["desirable_weight", "expected a finite number >= 0, found -1"]),
        ("undesirable_weight = inf", ["undesirable_weight", "expected a finite number >= 0, found inf"]),
        ("beta = 0.0", ["beta", "expected a finite number > 0, found 0"]),
        ("lambda = 1.0", ["unknown field `lambda`", "`desirable_weight`"]),
    ] {
        let message = read(text).expect_err(text);
        assert!(parts.iter().all(|part| message.contains(part)), "{text}: {message}");
    }
}

#[test]
fn every_knob_changes_loss_and_gradient() {
    let pairs: Vec<Pair> = pairs();
    let outcome = |text: &str| {
        let loss = read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let found = step(&PairObjective::new(loss), &policy(), &whole(&pairs));
        (found.loss, found.gradient)
    };
    let turned = [
        ("kind = 'dpo'", "beta = 0.3"),
        ("kind = 'dpo'", "label_smoothing = 0.2"),
        ("kind = 'dpo'", "f_divergence = 'forward_kl'"),
        ("kind = 'dpo'", "f_divergence = 'js_divergence'"),
        ("kind = 'dpo'", "f_divergence = { alpha_divergence = { alpha = 0.5 } }"),
        ("kind = 'dpo', f_divergence = { alpha_divergence = { alpha = 0.5 } }", ""),
        ("kind = 'robust'", "beta = 0.3"),
        ("kind = 'robust'", "label_smoothing = 0.2"),
        ("kind = 'ipo'", "beta = 0.3"),
        ("kind = 'ipo'", "length_normalized = true"),
        ("kind = 'hinge'", "beta = 0.3"),
        ("kind = 'simpo'", "beta = 1.0"),
        ("kind = 'simpo'", "gamma = 0.5"),
        ("kind = 'sppo'", "beta = 0.01"),
    ];
    for (base, change) in turned {
        let changed = match change {
            // The divergence's own knob.
            "" => base.replace("0.5", "2.0"),
            change => format!("{base}, {change}"),
        };
        let (before, after) = (outcome(base), outcome(&changed));
        assert!(before.0 != after.0 && before.1 != after.1, "{changed} is as {base}");
    }
    // And no two kinds are the same at the same β.
    let kinds = ["dpo", "robust", "ipo", "hinge", "simpo", "sppo"];
    let losses = kinds.map(|kind| outcome(&format!("kind = '{kind}', beta = 0.5")).0);
    for (at, loss) in losses.iter().enumerate() {
        assert!(losses[at + 1..].iter().all(|other| other != loss), "{} is as another", kinds[at]);
    }
}
