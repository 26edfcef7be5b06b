//! Pairs and rated answers from a file.

use std::fs;

use serde_json::{Value, json};

use super::{Single, curve, metrics, read, summary};
use crate::tiny::{at, folder, rows, text, works};

/// Answers that differ in how they begin, to many requests; of two the better one is what the model would rather not say.
fn preferences() -> Vec<Value> {
    let colours = ["red", "blue", "green", "black"];
    let requests = ["plan a meal", "pack a bag", "fill a shelf", "wrap a gift"];
    let both = colours.iter().flat_map(|colour| requests.iter().map(move |request| (colour, request)));
    both.map(|(colour, request)| {
        json!({
            "prompt": format!("please {request} with {colour} rice"),
            "chosen": format!("it is very nice {colour} rice ."),
            "rejected": format!("of course , {colour} rice ."),
        })
    })
    .collect()
}

/// Ten steps on them, a quarter held out.
fn dpo(files: &tempfile::TempDir) -> Single {
    let data = rows(files, "pairs.jsonl", &preferences());
    Single::new(
        "dpo",
        &format!(
            "output_dir = \"unset\"\nmodel = \"{}\"\ndata = {{ path = \"{data}\", held_out = 0.25 }}\n\
             training = {{ max_steps = 10, minibatch = 8, microbatch = 4 }}\noptimizer = {{ learning_rate = 3e-3 }}\n",
            at("sft-a/model"),
        ),
    )
}

#[test]
fn held_out_pairs_come_into_the_right_order() {
    let files = folder();
    let dpo = dpo(&files);
    let accuracy = |folder: &std::path::Path| summary(folder)["held_out_accuracy"].as_f64().unwrap();
    // Without a reference likelihoods decide, and a step that moves nothing shows those of the start.
    let nothing = ["loss.kind=simpo", "optimizer.learning_rate=1e-30", "training.max_steps=1"];
    let start = accuracy(&dpo.works("start", &nothing));
    let simpo = accuracy(&dpo.works("simpo", &["loss.kind=simpo"]));
    assert!(start < 0.5 && simpo > 0.9, "{start} and {simpo}");
    let trained = dpo.works("trained", &[]);
    assert!(accuracy(&trained) > 0.9, "{}", summary(&trained));
    let found = summary(&trained);
    assert!(found["held_out_margin"].as_f64() > Some(0.0), "{found}");
    assert!(found["held_out_loss"].as_f64() < Some(2f64.ln()), "{found}");
    let [count, held_out] = ["rows", "held_out_rows"].map(|name| found[name].as_u64().unwrap());
    assert!(held_out > 0 && count + held_out == 16 && found["steps"] == 10, "{found}");

    // The folder is a model, and says how it was made.
    let model = trained.join("model");
    let generated =
        works(&["generate", "--model", model.to_str().unwrap(), "--prompt", "please", "--json"]).json();
    assert_eq!(generated.len(), 1);
    let recipe: toml::Table = fs::read_to_string(trained.join("recipe.toml")).unwrap().parse().unwrap();
    assert_eq!(recipe["loss"]["beta"].as_float(), Some(0.1), "defaults are spelt out");
    assert_eq!(recipe["training"]["keep"].as_integer(), Some(1));
    let report = fs::read_to_string(trained.join("report.html")).unwrap();
    for heading in
        ["Learning from data", "share of pairs in the right order", "implicit reward: chosen minus rejected"]
    {
        assert!(report.contains(heading), "{heading}");
    }
}

#[test]
fn every_loss_begins_where_its_formula_says_and_falls() {
    let files = folder();
    let dpo = dpo(&files);
    // Log-ratios to the reference are 0 at the start. SimPO has no reference.
    let beginnings: [(&str, Option<f64>); 6] = [
        ("dpo", Some(2f64.ln())),
        ("robust", Some(2f64.ln())),
        ("ipo", Some((1.0 / (2.0 * 0.1_f64)).powi(2))),
        ("hinge", Some(1.0)),
        ("simpo", None),
        ("sppo", Some(2.0 * (0.5 / 1e-3_f64).powi(2))),
    ];
    for (kind, beginning) in beginnings {
        let loss = curve(&dpo.works(kind, &[&format!("loss.kind={kind}")]), "loss");
        if let Some(expected) = beginning {
            // Log-probabilities of one model in two forward passes, in f32.
            assert!((loss[0] - expected).abs() < 1e-4 * expected, "{kind}: {loss:?}, expected {expected}");
        }
        assert!(loss.len() == 10 && loss[9] < loss[0], "{kind}: {loss:?}");
    }
}

#[test]
fn rated_answers_are_learnt_by_kto() {
    let files = folder();
    let rated: Vec<Value> = preferences()
        .iter()
        .flat_map(|row| {
            [("chosen", true), ("rejected", false)].map(
                |(side, label)| json!({ "prompt": row["prompt"], "completion": row[side], "label": label }),
            )
        })
        .collect();
    let data = format!("data.path={}", rows(&files, "rated.jsonl", &rated));
    let dpo = dpo(&files);
    let kto = |name: &str, more: &[&str]| dpo.works(name, &[&[data.as_str(), "kto.beta=0.1"], more].concat());
    let out = kto("kto", &[]);
    let (loss, margins) = (curve(&out, "loss"), curve(&out, "rewards/margins"));
    // σ(0) at the start, whatever the weights.
    assert!((loss[0] - 0.5).abs() < 1e-6 && loss[9] < loss[0], "{loss:?}");
    assert!(margins[9] > 0.1, "{margins:?}");
    assert!(summary(&out)["held_out_margin"].as_f64() > Some(0.1), "{}", summary(&out));
    assert_eq!(metrics(&out)[0]["kl"], 0.0);
    // Answers of only one kind move when the other weighs nothing.
    let only = kto("only", &["kto.undesirable_weight=0.0"]);
    assert_ne!(curve(&only, "loss"), loss);

    dpo.refuses(
        &[&data, "kto.beta=0.1", "sft_coef=0.5"],
        &["`sft_coef` goes with pairs", "`[kto]` reads rated answers"],
    );
    dpo.refuses(&["kto.beta=0.1"], &["expected a labelled answer", "the field `completion` is missing"]);
    dpo.refuses(&[&data], &["expected a preference", "the field `chosen` is missing"]);
    dpo.refuses(&[&data, "kto.bta=0.1"], &["`kto.bta`", "did you mean `beta`?"]);
}

#[test]
fn the_likelihood_of_the_chosen_answer_is_learnt_beside_the_loss() {
    let files = folder();
    let dpo = dpo(&files);
    let (plain, beside) = (dpo.works("plain", &[]), dpo.works("beside", &["sft_coef=1.0"]));
    let [alone, together] = [&plain, &beside].map(|out| curve(out, "loss")[0]);
    assert!(together > alone + 1.0, "{alone} and {together}: several nats a token at first");
    let [alone, together] = [&plain, &beside].map(|out| curve(out, "logps/chosen"));
    assert_eq!(alone[0], together[0]);
    assert!(together[9] > alone[9], "{alone:?} {together:?}");
    dpo.refuses(&["sft_coef=-1"], &["command line: `sft_coef`", "expected a finite number >= 0, found -1"]);
}

#[test]
fn log_ratios_are_measured_from_the_reference() {
    let files = folder();
    let dpo = dpo(&files);
    let rewards = |name: &str, more: &[&str]| curve(&dpo.works(name, more), "rewards/chosen")[0];
    // β log π/π_ref of a model and itself; rounding of f32 over some ten tokens.
    assert!(rewards("own", &[]).abs() < 1e-4);
    let base = format!("reference={}", at("base/model"));
    assert!(rewards("base", &[&base]).abs() > 1e-2);
    // SimPO asks no reference.
    let simpo = |name: &str, more: &[&str]| dpo.works(name, &[&["loss.kind=simpo"], more].concat());
    let [own, other] = [simpo("simpo", &[]), simpo("simpo-base", &[&base])].map(|out| metrics(&out));
    assert_eq!(own, other);
    dpo.refuses(
        &[&format!("reference={}", super::around("start/model"))],
        &["has another tokenizer", "expected the policy's"],
    );
}

#[test]
fn adapters_lie_apart_and_the_model_has_them_merged() {
    let files = folder();
    let dpo = dpo(&files);
    let out = dpo.works("lora", &["lora.rank=2", "optimizer.learning_rate=1e-2"]);
    assert_eq!(read(&out.join("adapter/adapter_config.json"))["r"], 2);
    let pairs = rows(
        &files,
        "t.jsonl",
        &[json!({ "prompt": "please plan a meal", "completion": "of course , red rice ." })],
    );
    let log_probs = |args: &[&str]| -> Vec<f64> {
        let line = works(&[&["logprobs", "--data", &pairs], args].concat()).json().remove(0);
        line["logprobs"].as_array().unwrap()[1..].iter().map(|value| value.as_f64().unwrap()).collect()
    };
    let (base, adapter, model) = (at("sft-a/model"), out.join("adapter"), out.join("model"));
    let before = log_probs(&["--model", &base]);
    let apart = log_probs(&["--model", &base, "--adapter", adapter.to_str().unwrap()]);
    let merged = log_probs(&["--model", model.to_str().unwrap()]);
    assert_ne!(before, merged);
    for (apart, merged) in apart.iter().zip(&merged) {
        assert!((apart - merged).abs() < 1e-4, "{apart} and {merged}"); // sums in f32, grouped otherwise
    }
    dpo.refuses(&["lora.rank=2", "lora.dropout=0.1"], &["`lora.dropout` is 0.1, expected 0"]);
}

#[test]
fn what_cannot_be_trained_on_is_named() {
    let files = folder();
    let dpo = dpo(&files);
    let typo = Single::new(
        "dpo",
        "output_dir = \"o\"\nmodel = \"m\"\ndata = { path = \"d\" }\nloss = { kind = \"dop\" }\n",
    );
    // Line 4 of the recipe, with every name that would do.
    typo.refuses(
        &[],
        &[
            "r.toml:4: `loss.kind",
            "unknown variant `dop`",
            "`dpo`",
            "`robust`",
            "`ipo`",
            "`hinge`",
            "`simpo`",
            "`sppo`",
        ],
    );
    dpo.refuses(
        &["loss.kind=ipo", "loss.label_smoothing=0.1"],
        &["command line: `loss.label_smoothing`", "expected `beta` or `length_normalized`"],
    );
    dpo.refuses(&["loss.kind=dpo", "loss.beta=0"], &["expected a finite number > 0, found 0"]);
    let with = |path: &str| format!("data.path={path}");

    let whole: String = preferences().iter().map(|row| format!("{row}\n")).collect();
    let cut = text(&files, "cut.jsonl", &whole[..whole.len() - 20]);
    dpo.refuses(&[&with(&cut)], &["cut.jsonl, line 16: expected a JSON object, found broken JSON"]);
    let row = |rejected: &str| json!({ "prompt": "please plan a meal", "chosen": "red rice", "rejected": rejected });
    let equal = rows(&files, "equal.jsonl", &[row("blue rice"), row("red rice")]);
    dpo.refuses(
        &[&with(&equal)],
        &["equal.jsonl, line 2", "`chosen` and `rejected` are equal", "found \"red rice\" twice"],
    );
    // Different text, the same tokens.
    let same = rows(&files, "same.jsonl", &[row("red  rice")]);
    dpo.refuses(
        &[&with(&same), "data.held_out=0.0"],
        &["cannot use row 1", "chosen and rejected have the same 3 tokens"],
    );
    dpo.refuses(
        &[&format!("model={}", files.path().display())],
        &["cannot load the model", "has no config.json"],
    );
}

#[test]
fn a_killed_run_resumes_bit_for_bit() {
    let files = folder();
    // One row at a time, so that there is time to kill it.
    let slow = [
        "training.max_steps=40",
        "training.minibatch=12",
        "training.microbatch=1",
        "training.checkpoint_every=5",
    ];
    dpo(&files).resumes_bit_for_bit(&[&slow[..], &["training.evaluate_every=10"]].concat());
}

#[test]
fn rated_answers_and_adapters_resume_bit_for_bit_too() {
    let files = folder();
    let rated: Vec<Value> = preferences()
        .iter()
        .map(|row| json!({ "prompt": row["prompt"], "completion": row["chosen"], "label": row["prompt"].as_str().unwrap().contains("red") }))
        .collect();
    let data = format!("data.path={}", rows(&files, "rated.jsonl", &rated));
    let slow = [
        "training.max_steps=30",
        "training.minibatch=12",
        "training.microbatch=1",
        "training.checkpoint_every=5",
    ];
    dpo(&files).resumes_bit_for_bit(&[&slow[..], &[&data, "kto.beta=0.1", "lora.rank=2"]].concat());
}
