//! Averages along a training, and soups of what it leaves: of checkpoints, of adapters.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use align_models::Transformer;
use align_soup::checkpoint_id;
use safetensors::SafeTensors;
use serde_json::json;

use crate::preferences::{Single, read, summary};
use crate::tiny::{align, at, folder, hashes, text, works};

/// Fine-tuning the finished run's base for eight steps, each of which leaves a checkpoint.
fn tuning(kind: &'static str) -> Single {
    let (model, data) = match kind {
        "reward" => (at("base/model"), at("world/preferences.jsonl")),
        "dpo" => (at("sft-a/model"), at("world/preferences.jsonl")),
        _ => (at("base/model"), at("world/demonstrations.jsonl")),
    };
    Single::new(
        kind,
        &format!(
            "output_dir = \"unset\"\nmodel = \"{model}\"\ndata = {{ path = \"{data}\", held_out = 0.2 }}\n\
             training = {{ max_steps = 8, minibatch = 8, microbatch = 8, checkpoint_every = 1, keep = 8 }}\n\
             optimizer = {{ learning_rate = 1e-2 }}\n"
        ),
    )
}

const LAWA: &str = "training.average={ kind = \"lawa\", every = 2, last = 3 }";
const EMA: &str = "training.average={ kind = \"ema\", decay = 0.8, every = 2 }";

/// The floats of a folder's weights, by tensor.
fn weights(folder: &Path) -> BTreeMap<String, Vec<f32>> {
    let bytes = fs::read(folder.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .map(|(name, view)| {
            let words = view.data().as_chunks().0.iter();
            (name.to_owned(), words.map(|word| f32::from_le_bytes(*word)).collect())
        })
        .collect()
}

/// Bytes of every tensor, without the metadata that says where they come from.
fn bits(folder: &Path) -> BTreeMap<String, Vec<u32>> {
    weights(folder)
        .into_iter()
        .map(|(name, values)| (name, values.into_iter().map(f32::to_bits).collect()))
        .collect()
}

fn checkpoint(out: &Path, step: u64) -> String {
    out.join(format!("checkpoints/checkpoint-{step}")).display().to_string()
}

#[test]
fn the_mean_of_snapshots_is_the_soup_of_their_checkpoints() {
    // Also with adapters, whose checkpoints hold the merged weights: products are averaged, not factors.
    for (name, more) in [("whole", &[][..]), ("adapters", &["lora.rank=2"][..])] {
        let tuning = tuning("sft");
        let out = tuning.works(name, &[&[LAWA], more].concat());
        let files = folder();
        let soup = files.path().join("soup").display().to_string();
        let [a, b, c] = [4, 6, 8].map(|step| checkpoint(&out, step));
        works(&["soup", "--out", &soup, &a, &b, &c]);
        assert_eq!(bits(&out.join("average")), bits(Path::new(&soup)), "{name}");
        assert_ne!(bits(&out.join("average")), bits(&out.join("model")), "{name}");
        let plain = tuning.works(&format!("{name}-plain"), more);
        assert_eq!(
            hashes(&out.join("model")),
            hashes(&plain.join("model")),
            "training is as without an average"
        );
        assert!(!plain.join("average").exists());
    }
}

#[test]
fn the_moving_average_follows_its_equation() {
    let tuning = tuning("sft");
    let out = tuning.works("out", &[EMA]);
    let mut expected: BTreeMap<String, Vec<f64>> = weights(Path::new(&at("base/model")))
        .into_iter()
        .map(|(name, values)| (name, values.into_iter().map(f64::from).collect()))
        .collect();
    for step in [2, 4, 6, 8] {
        for (name, values) in weights(Path::new(&checkpoint(&out, step))) {
            for (mean, value) in expected.get_mut(&name).unwrap().iter_mut().zip(values) {
                *mean = 0.8 * *mean + 0.2 * f64::from(value);
            }
        }
    }
    for (name, values) in weights(&out.join("average")) {
        for (found, expected) in values.iter().zip(&expected[&name]) {
            // Four updates in f32 of weights below 1.
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{name}: {found} against {expected}");
        }
    }
    let summary = summary(&out);
    assert!(summary["average_held_out_loss"].is_f64() && summary["held_out_loss"].is_f64(), "{summary}");
    assert_ne!(summary["average_held_out_loss"], summary["held_out_loss"]);
}

#[test]
fn a_killed_training_goes_on_with_the_same_average() {
    let longer = ["training.max_steps=40", "training.checkpoint_every=10", "training.microbatch=2"];
    let adapters = "lora={ rank = 2, dropout = 0.2 }";
    for (kind, more) in [("sft", [EMA, adapters]), ("sft", [LAWA, adapters]), ("reward", [LAWA, "seed=3"])] {
        let tuning = tuning(kind);
        tuning.resumes_bit_for_bit(&[&longer[..], &more].concat());
        let [broken, straight] = ["broken", "straight"].map(|name| hashes(&tuning.out(name).join("average")));
        assert!(broken.contains_key("model.safetensors"), "{kind}: {broken:?}");
        assert_eq!(broken, straight, "{kind} {more:?}");
    }
}

/// A few steps of the loops that sample, each with a moving average, and where in their folder they write.
fn sampling_loops() -> [(&'static str, String, &'static str); 3] {
    let (policy, world) = (at("sft-a/model"), at("world"));
    let common = format!(
        "output_dir = \"unset\"\npolicy = \"{policy}\"\nprompts = {{ path = \"{world}/prompts.jsonl\" }}\n\
         average = {{ kind = \"ema\", decay = 0.5 }}\n"
    );
    let reward = format!("reward = \"{}\"\n", at("reward/model"));
    let ppo = "[ppo]\ntotal_episodes = 16\nrollout_batch = 8\nmicrobatch = 8\nresponse_length = 6\nlearning_rate = 1e-3\n";
    let reference = format!("reference = \"{policy}\"\n");
    let superhf = "[superhf]\nsuperbatch_size = 4\nprompt_accumulation_steps = 2\ntotal_episodes = 32\nminibatch = 2\n\
                   response_length = 6\nlearning_rate = 1e-3\n";
    let online = format!(
        "oracle = {{ kind = \"reward\", model = \"{}\" }}\n[self_play]\nmethod = {{ kind = \"dpo\" }}\n\
         iterations = 2\nprompts_per_iteration = 8\n\
         minibatch = 4\nresponse_length = 6\noptimizer = {{ learning_rate = 1e-3 }}\n",
        at("reward/model")
    );
    [
        ("ppo", format!("{common}{reward}{reference}{ppo}"), "seed-0"),
        ("superhf", format!("{common}{reward}{superhf}"), ""),
        ("online", format!("{common}{online}"), ""),
    ]
}

#[test]
fn every_loop_keeps_an_average() {
    for kind in ["reward", "dpo"] {
        let tuning = tuning(kind);
        let out = tuning.works("out", &[LAWA]);
        assert_ne!(bits(&out.join("average")), bits(&out.join("model")), "{kind}");
        let summary = summary(&out);
        let measured = ["average", "average_held_out_loss"].iter().any(|key| !summary[*key].is_null());
        assert!(measured, "{kind}: {summary}");
    }
    for (kind, body, place) in sampling_loops() {
        let single = Single::new(kind, &body);
        let out = single.works("out", &[]).join(place);
        assert_ne!(bits(&out.join("average")), bits(&out.join("model")), "{kind}");
        assert!(out.join("average/tokenizer.json").exists(), "{kind}: a whole folder");
    }
}

#[test]
fn a_killed_loop_that_samples_goes_on_with_the_same_average() {
    // PPO's is with its other kills.
    for (kind, body, _) in sampling_loops().into_iter().filter(|(kind, ..)| *kind != "ppo") {
        let single = Single::new(kind, &body);
        let longer: &[&str] = match kind {
            "superhf" => &["checkpoint_every=4", "superhf.total_episodes=240"],
            _ => &["checkpoint_every=4", "self_play.iterations=20"],
        };
        single.resumes_bit_for_bit(longer);
        let [broken, straight] = ["broken", "straight"].map(|name| hashes(&single.out(name).join("average")));
        assert!(broken.contains_key("model.safetensors"), "{kind}: {broken:?}");
        assert_eq!(broken, straight, "{kind}");
    }
}

#[test]
fn stages_name_the_average_beside_the_model() {
    let files = folder();
    let out = files.path().join("run");
    let recipe = format!(
        "title = \"Averages\"\noutput_dir = \"{}\"\n[[stage]]\nname = \"tune\"\nkind = \"sft\"\nmodel = \"{}\"\n\
         data = {{ path = \"{}\" }}\noptimizer = {{ learning_rate = 1e-2 }}\n\
         training = {{ max_steps = 4, minibatch = 8, microbatch = 8, average = {{ kind = \"lawa\", every = 1, last = 2 }} }}\n\
         [[stage]]\nname = \"mix\"\nkind = \"soup\"\nmodels = [\"@tune\", \"@tune/average\"]\n",
        out.display(),
        at("base/model"),
        at("world/demonstrations.jsonl")
    );
    let ran = works(&["run", &text(&files, "averages.toml", &recipe)]);
    assert!(!ran.err.contains("warning"), "both name their ancestor: {}", ran.err);
    let ancestor = read(&out.join("tune/average/align.json"))["ancestor"].clone();
    assert_eq!(ancestor, json!(checkpoint_id(at("base/model")).unwrap()));
    let average = out.join("tune/average");
    Transformer::from_pretrained(&average, &align_testkit::device()).unwrap();
    assert!(average.join("tokenizer.json").exists(), "a whole folder");
}

#[test]
fn knobs_that_would_change_nothing_are_refused() {
    let sft = tuning("sft");
    let cases = [
        ("{ kind = \"ema\", decay = 1.0 }", "expected a number above 0 and below 1, found 1"),
        ("{ kind = \"ema\", decay = 0.0 }", "expected a number above 0 and below 1, found 0"),
        ("{ kind = \"ema\", decay = 0.9, every = 0 }", "expected at least 1, found 0"),
        ("{ kind = \"ema\", decay = 0.9, every = 9 }", "`average.every` is 9, expected at most the 8 steps"),
        ("{ kind = \"ema\" }", "decay"),
        ("{ kind = \"lawa\", every = 1, last = 1 }", "expected at least 2, found 1"),
        ("{ kind = \"lawa\", every = 0, last = 2 }", "expected at least 1, found 0"),
        (
            "{ kind = \"lawa\", every = 3, last = 3 }",
            "`average.last` is 3, expected at most 2: 8 steps give so many snapshots, one every 3",
        ),
        ("{ kind = \"swa\", every = 3 }", "swa"),
    ];
    for (value, expected) in cases {
        sft.refuses(&[&format!("training.average={value}")], &[expected]);
    }
    let refusal = "`training.average` and `ensemble` do not go together";
    tuning("reward").refuses(&[LAWA, "ensemble.members=2"], &[refusal]);
}

#[test]
fn adapters_become_a_dense_soup_or_one_adapter() {
    let tuning = tuning("sft");
    let tuned = ["1", "2"].map(|seed| {
        let out = tuning
            .works(seed, &["lora={ rank = 2, targets = [\"query\", \"down\"] }", &format!("seed={seed}")]);
        let path = |inside: &str| out.join(inside).display().to_string();
        (path("adapter"), path("model"))
    });
    let files = folder();
    let out = |name: &str| files.path().join(name).display().to_string();
    let [(a, merged_a), (b, merged_b)] = &tuned;
    let base = at("base/model");
    let made = works(&["soup", "--out", &out("dense"), "--weights", "0.25,0.75", "--base", &base, a, b]);
    assert!(!made.err.contains("warning"), "{}", made.err);
    works(&["soup", "--out", &out("merged"), "--weights", "0.25,0.75", merged_a, merged_b]);
    works(&["soup", "--out", &out("adapter"), "--weights", "0.25,0.75", "--as-adapter", a, b])
        .says(&["of rank 4"]);
    works(&["soup", "--out", &out("applied"), "--base", &base, &out("adapter")]);
    let dense = weights(&files.path().join("dense"));
    for other in ["merged", "applied"] {
        for (name, values) in weights(&files.path().join(other)) {
            for (found, expected) in values.iter().zip(&dense[&name]) {
                // Merged folders were rounded to f32 before, and B of the joined adapter was: weights below 1.
                assert!((found - expected).abs() < 1e-6, "{other}: {name}: {found} against {expected}");
            }
        }
    }
    assert_eq!(
        read(&files.path().join("dense/align.json"))["ancestor"],
        json!(checkpoint_id(&base).unwrap())
    );
    // An adapter knows the weights it was trained on.
    let other = align(&["soup", "--out", &out("x"), "--base", &at("sft-a/model"), a, b]);
    other.refuses(&["was trained on the base", "an update means nothing on other weights"]);
    align(&["soup", "--out", &out("x"), a, b]).refuses(&["give the adapter together with its base"]);
}
