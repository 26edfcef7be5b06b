//! Self-play on the circle, where the distance from equilibrium is exact, and online training.

use std::fs;
use std::path::Path;

use super::{Single, around, curve, metrics, read, summary};
use crate::tiny::{at, hashes};

/// A few iterations on the world's own preferences; four optimiser steps each.
pub(super) fn nash(kind: &'static str) -> Single {
    Single::new(
        kind,
        &format!(
            "output_dir = \"unset\"\npolicy = \"{}\"\noracle = {{ kind = \"world\", world = \"{}\" }}\n\
             prompts = {{ path = \"{}\" }}\n[self_play]\nmethod = {{ kind = \"dpo\" }}\niterations = 2\n\
             prompts_per_iteration = 64\nnum_epochs = 2\nminibatch = 32\nmicrobatch = 32\nresponse_length = 2\n\
             optimizer = {{ learning_rate = 5e-3, max_grad_norm = 0.0 }}\n",
            around("start/model"),
            around("world"),
            around("world/prompts.jsonl"),
        ),
    )
}

const INPO: &str = "self_play.method={ kind = \"inpo\", eta = 0.5, tau = 0.1 }";
const GAP: &str = "nash/duality_gap";

/// INPO for five iterations with more to learn from.
const LONGER: [&str; 7] = [
    INPO,
    "exact_gap={ tau = 0.1 }",
    "self_play.iterations=5",
    "self_play.prompts_per_iteration=1024",
    "self_play.minibatch=128",
    "self_play.microbatch=128",
    "self_play.optimizer.learning_rate=1e-3",
];

#[test]
fn inpo_comes_closer_to_the_equilibrium_and_not_on_wrong_labels() {
    let nash = nash("nash");
    let gap = |name: &str, more: &[&str]| -> (f64, Vec<f64>) {
        let out = nash.works(name, &[&LONGER[..], more].concat());
        let gaps = curve(&out, GAP);
        assert_eq!(gaps.len(), 5, "one an iteration");
        (summary(&out)["reference_gap"].as_f64().unwrap(), gaps)
    };
    let (start, gaps) = gap("right", &[]);
    assert!(start > 0.1 && gaps[4] < 0.6 * start, "{start}, {gaps:?}");
    // The gap is that of the game itself, whatever is done to its labels: coins teach nothing, labels turned round the opposite.
    let (same, coin) = gap("coin", &["label_noise=0.5"]);
    assert!(same == start && coin[4] > 0.75 * start && coin[4] < 1.3 * start, "{start}, {coin:?}");
    let (_, wrong) = gap("wrong", &["label_noise=1.0"]);
    assert!(wrong[4] > 1.5 * start, "{start}, {wrong:?}");
    // INPO knows its own τ.
    let own = nash.works("own", &[INPO, "exact_gap={}", "self_play.iterations=1"]);
    assert_eq!(summary(&own)["reference_gap"], start);
}

#[test]
fn every_method_plays() {
    let nash = nash("nash");
    let methods = [
        "{ kind = \"inpo\", eta = 0.5, tau = 0.1, loss_scaling = true }",
        "{ kind = \"inpo\", eta = 0.5, schedule = \"decreasing\" }",
        "{ kind = \"sppo\", beta = 1.0 }",
        "{ kind = \"nash_md\", mixture = 0.25 }",
        "{ kind = \"dpo\", anchor = \"previous\" }",
        "{ kind = \"dpo\", loss = { kind = \"ipo\" } }",
    ];
    let mut models = Vec::new();
    for (at, method) in methods.iter().enumerate() {
        let out = nash.works(&at.to_string(), &[&format!("self_play.method={method}")]);
        assert_eq!((metrics(&out).len(), &summary(&out)["steps"]), (8, &8.into()), "{method}");
        models.push(hashes(&out.join("model"))["model.safetensors"].clone());
    }
    models.push(hashes(Path::new(&around("start/model")))["model.safetensors"].clone());
    let count = models.len();
    models.sort();
    models.dedup();
    assert_eq!(models.len(), count, "each moves the policy in its own way");
}

#[test]
fn answers_are_paired_as_they_can_be() {
    let nash = nash("nash");
    let four = ["self_play.num_generations=4", "self_play.prompts_per_iteration=32"];
    let used = |name: &str, more: &[&str]| {
        metrics(&nash.works(name, &[&four[..], more].concat()))[0]["pairs/used"].as_f64()
    };
    // Two pairs a prompt, or the best and the worst; some are the same answer twice.
    assert!(used("independent", &[]) > Some(32.0));
    assert!(used("tournament", &["self_play.pairing=tournament"]) <= Some(32.0));

    for odd in ["0", "1", "3"] {
        let k = format!("self_play.num_generations={odd}");
        nash.refuses(&[&k], &[&format!("`num_generations` is {odd}, expected an even number, at least 2")]);
    }
    nash.refuses(
        &["self_play.num_generations=6", "self_play.pairing=tournament"],
        &["`num_generations` is 6, expected a power of two, at least 2, for a knockout tournament"],
    );
    nash.refuses(
        &["self_play.method={ kind = \"sppo\" }", "self_play.pairing=tournament"],
        &["`pairing` is \"tournament\", and sppo has no use for one"],
    );
    nash.refuses(
        &["self_play.num_generations=4", "self_play.method.kind=xpo"],
        &["`num_generations` is 4, expected 2"],
    );
}

#[test]
fn a_game_that_cannot_be_is_refused() {
    let nash = nash("nash");
    nash.refuses(
        &[INPO, "self_play.method.tau=0.9"],
        &["`tau` is 0.9 and `eta` is 0.5, expected 0 <= tau <= eta"],
    );
    nash.refuses(&["exact_gap={}"], &["`exact_gap.tau` is not given", "dpo has no tau of its own"]);
    nash.refuses(&["exact_gap={ tau = 0.1, most = 3 }"], &["prompt 0 has more than 3 responses"]);
    nash.refuses(
        &["label_noise=1.5"],
        &["command line: `label_noise`", "expected a probability in [0, 1], found 1.5"],
    );
    nash.refuses(&[&format!("reference={}", at("base/model"))], &["has another tokenizer"]);
    nash.refuses(&["self_play.method.kind=impo"], &["unknown variant `impo`", "did you mean `inpo`?"]);
    nash.refuses(&["self_play.iteration=2"], &["`self_play.iteration`", "did you mean `iterations`?"]);
    nash.refuses(&["self_play.minibatch=0"], &["`minibatch` is 0, expected at least 1"]);
    nash.refuses(&["lora.rank=2", "lora.dropout=0.5"], &["`lora.dropout` is 0.5, expected 0"]);
    // What may be meant otherwise is said and done.
    let orbit = nash.run("orbit", &[INPO, "self_play.iterations=1"]);
    orbit.says(&["nash: warning: eta 0.5 is below", "the policies would circle"]);
    assert_eq!(orbit.code, Some(0), "{}", orbit.err);
}

#[test]
fn policies_are_compared_on_prompts_that_are_held_out() {
    let nash = nash("nash");
    let out = nash.works("out", &["prompts.held_out=0.5", "self_play.iterations=3"]);
    let [reference, worst, previous] =
        ["nash/win_rate_vs_reference", "nash/worst_win_rate", "nash/win_rate_vs_previous"]
            .map(|name| curve(&out, name));
    assert_eq!([reference.len(), worst.len(), previous.len()], [3, 3, 2]);
    assert!(reference.iter().chain(&worst).all(|rate| (0.0..=1.0).contains(rate)), "{reference:?} {worst:?}");
    assert!(worst.iter().zip(&reference).all(|(worst, reference)| worst <= reference));
    let report = fs::read_to_string(out.join("report.html")).unwrap();
    for heading in [
        "win rate against the reference, held-out prompts",
        "worst win rate against reference and past policies",
    ] {
        assert!(report.contains(heading), "{heading}");
    }
    let now_and_then = nash.works("then", &["prompts.held_out=0.5", "self_play.evaluate_every=2"]);
    assert_eq!(curve(&now_and_then, "nash/win_rate_vs_reference").len(), 1);
    assert!(curve(&nash.works("none", &[]), "nash/win_rate_vs_reference").is_empty());
}

#[test]
fn online_training_has_losses_of_its_own() {
    let online = nash("online");
    let fresh = ["self_play.iterations=6", "self_play.prompts_per_iteration=32", "self_play.num_epochs=1"];
    let with = |name: &str, more: &[&str]| online.works(name, &[&fresh[..], more].concat());
    let plain = with("dpo", &["lora.rank=2"]);
    assert_eq!(curve(&plain, "pairs/used").len(), 6, "every step has fresh answers");
    assert_eq!(read(&plain.join("adapter/adapter_config.json"))["r"], 2);
    let weights = |alpha: &str| {
        let out = with(alpha, &["self_play.method.kind=xpo", &format!("self_play.method.alpha={alpha}")]);
        (curve(&out, "loss"), hashes(&out.join("model"))["model.safetensors"].clone())
    };
    let [(least, none), (most, some)] = ["0.0", "0.5"].map(weights);
    // The bonus is α log π of the reference's answers, some nats below 0.
    assert!(most[0] < least[0] - 0.1, "{most:?} {least:?}");
    assert_ne!(none, some);

    for method in ["inpo", "sppo"] {
        online.refuses(
            &[&format!("self_play.method={{ kind = \"{method}\" }}")],
            &[
                &format!("`self_play.method` is \"{method}\""),
                "expected \"dpo\", \"xpo\" or \"nash_md\"",
                "of kind \"nash\"",
            ],
        );
    }
}

/// So many small forward passes that there is time to kill it.
const SLOW: [&str; 4] = [INPO, "self_play.iterations=8", "self_play.microbatch=1", "prompts.held_out=0.25"];

#[test]
fn a_run_killed_inside_an_iteration_resumes_bit_for_bit() {
    // An iteration has four steps: the first checkpoint is inside the second.
    nash("nash").resumes_bit_for_bit(&[&SLOW[..], &["checkpoint_every=5", "exact_gap={}"]].concat());
}

#[test]
fn a_run_killed_between_two_iterations_resumes_bit_for_bit() {
    nash("nash").resumes_bit_for_bit(&[&SLOW[..], &["checkpoint_every=4", "label_noise=0.25"]].concat());
}
