//! SuperHF where a trick pays, comparisons with an arm, what reports draw of the new stages, and their experiments shortened.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use align_superhf::meteor::Meteor;
use serde_json::Value;

use crate::preferences::{Single, curve, kept, read, summary};
use crate::tiny::{align, at, folder, text, works};

/// The world with a trick, and a policy that answers as its demonstrator.
fn trick() -> &'static Path {
    static RUN: OnceLock<PathBuf> = OnceLock::new();
    RUN.get_or_init(|| kept("trick", TRICK, ""))
}

const TRICK: &str = r#"
title = "Trick"
output_dir = "unset"
[[stage]]
name = "world"
kind = "pattern"
hack = 1.25
quality = 0.55
demonstrations = 1024
prompts = 256
held_out_prompts = 24
[[stage]]
name = "blank"
kind = "init"
tokenizer = "@world"
config = { model_type = "llama", hidden_size = 32, intermediate_size = 64, num_hidden_layers = 1, num_attention_heads = 2, max_position_embeddings = 16 }
[[stage]]
name = "start"
kind = "sft"
model = "@blank"
data = { path = "@world/demonstrations.jsonl", held_out = 0.05 }
training = { epochs = 10.0, minibatch = 64, microbatch = 64 }
optimizer = { learning_rate = 1e-2, schedule = { kind = "cosine", warmup = 10 } }
"#;

/// A path inside its run, as text.
fn inside(path: &str) -> String {
    trick().join(path).display().to_string()
}

/// Two groups of SuperHF on the proxy.
fn superhf() -> Single {
    Single::new(
        "superhf",
        &format!(
            "output_dir = \"unset\"\npolicy = \"{}\"\nreward = \"{}\"\ngold = \"{}\"\nprompts = {{ path = \"{}\" }}\n[superhf]\n\
             kl_coef = 0.1\nsuperbatch_size = 8\nprompt_accumulation_steps = 4\ntotal_episodes = 64\nminibatch = 4\ntop_p = 1.0\n\
             response_length = 8\nlearning_rate = 3e-3\nlr_schedule = {{ kind = \"cosine\" }}\nweight_decay = 0.0\n",
            inside("start/model"),
            inside("world/proxy"),
            inside("world"),
            inside("world/prompts.jsonl"),
        ),
    )
}

#[test]
fn the_proxy_rises_by_more_where_more_is_chosen_from() {
    let superhf = superhf();
    let gain = |name: &str, more: &[&str]| {
        let out = superhf.works(name, more);
        let scores = curve(&out, "objective/scores");
        assert_eq!(scores.len(), 30);
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        mean(&scores[25..]) - mean(&scores[..5])
    };
    let chosen = gain("best", &["superhf.total_episodes=960"]);
    // As many steps on answers that nothing chooses.
    let all = gain("all", &["superhf.total_episodes=960", "superhf.top_k=8", "superhf.minibatch=32"]);
    // Scores are shares of eight words, means over 160 answers: a standard error of about 0.02.
    assert!(chosen > 0.2 && chosen > all + 0.15, "{chosen} and {all}");

    let out = superhf.out("best");
    let found = summary(&out);
    assert_eq!((&found["groups"], &found["completions"]), (&30.into(), &960.into()), "{found}");
    for name in ["gold/score", "superhf/similarity", "objective/kl"] {
        assert_eq!(curve(&out, name).len(), 30, "{name}");
    }
    let model = out.join("model");
    works(&[
        "generate",
        "--model",
        model.to_str().unwrap(),
        "--prompt",
        "<|bos|> a b c",
        "--max-new-tokens",
        "2",
    ]);
    let recipe: toml::Table = fs::read_to_string(out.join("recipe.toml")).unwrap().parse().unwrap();
    assert_eq!(recipe["superhf"]["adam_beta_1"].as_float(), Some(0.9), "defaults are spelt out");

    // Both on one page.
    let (page, all) = (superhf.out("both.html"), superhf.out("all"));
    let runs = [&out, &all, &page].map(|path| path.to_str().unwrap().to_owned());
    works(&["report", &runs[0], &runs[1], "--out", &runs[2]]);
    let page = fs::read_to_string(page).unwrap();
    for heading in [
        "Learning from own answers",
        "METEOR between answers to different prompts",
        "Proxy and gold",
        "KL to the reference",
    ] {
        assert!(page.contains(heading), "{heading}");
    }
}

#[test]
fn a_prior_holds_and_is_the_one_that_is_meant() {
    let superhf = superhf();
    let kl = |name: &str, more: &[&str]| {
        let out = superhf.works(name, &[&["superhf.total_episodes=320"], more].concat());
        curve(&out, "objective/kl")
    };
    let [free, held] = [("free", "superhf.kl_coef=0.0"), ("held", "superhf.kl_coef=5.0")]
        .map(|(name, coefficient)| kl(name, &[coefficient]));
    assert!(free[0].abs() < 1e-3 && held[0].abs() < 1e-3, "the start is the prior: {free:?} {held:?}");
    assert!(held[9] < 0.5 * free[9], "{held:?} {free:?}");
    let none = kl("none", &["superhf.prior=none", "superhf.kl_coef=0.0"]);
    assert!(none.is_empty(), "nothing is measured from no prior");
    let blank = format!("prior={}", inside("blank/model"));
    let other = kl("other", &["superhf.prior=other", &blank]);
    assert!(other[0] > 1.0, "{other:?}");

    superhf.refuses(
        &[&blank],
        &["the prior is not the model that training starts from", "set `prior` to other"],
    );
    superhf.refuses(&["superhf.prior=other"], &["`superhf.prior` is \"other\" and `prior` is not given"]);
    superhf.refuses(&["superhf.prior=none"], &["`kl_coef` is 0.1 and `prior` is none, expected 0"]);
    superhf.refuses(
        &["superhf.prior=none", "superhf.kl_coef=0.0", &blank],
        &["`superhf.prior` is \"none\": expected one of the two", "blank/model"],
    );
    superhf.refuses(
        &["superhf.prior=other", &format!("prior={}", at("base/model"))],
        &["has another tokenizer"],
    );
}

#[test]
fn settings_that_cannot_be_are_refused_and_strange_ones_are_said() {
    let superhf = superhf();
    superhf.refuses(
        &["superhf.top_k=9"],
        &["r.toml:6: `superhf`", "`top_k` is 9, expected at most `superbatch_size`, 8"],
    );
    superhf.refuses(&["superhf.superbatch_size=0"], &["`superbatch_size` is 0, expected at least 1"]);
    superhf.refuses(
        &["superhf.top_k=2", "superhf.filter={ kind = \"top_k\", k = 2 }"],
        &["found both `filter` and `top_k`"],
    );
    superhf.refuses(&["superhf.kl_cof=1.0"], &["command line: `superhf.kl_cof`", "did you mean `kl_coef`?"]);
    superhf.refuses(
        &["superhf.prompt_accumulation_steps=257"],
        &["is 257, expected at most the number of prompts, 256"],
    );
    superhf.refuses(
        &["superhf.validation_interval=2"],
        &["`validation_interval` is 2 and found no validation judge"],
    );
    superhf.refuses(&["aggregate.kind=wco"], &["needs an ensemble, found the world"]);
    superhf.refuses(&[&format!("reward={}", inside("start/model"))], &["is no reward model"]);
    superhf.refuses(&["lora.rank=2", "lora.dropout=0.1"], &["`lora.dropout` is 0.1, expected 0"]);
    // Every token ends an answer, so that all are empty.
    let stops: Vec<String> = (0..21).map(|token| token.to_string()).collect();
    superhf.refuses(
        &[&format!("superhf.stop_token_ids=[{}]", stops.join(","))],
        &["4 of 4 prompts got no completion that is not empty", "does the policy stop at once"],
    );

    let says = |name: &str, more: &[&str], part: &str| {
        let ended = superhf.run(name, more);
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        ended.says(&[part]);
    };
    says(
        "all",
        &["superhf.top_k=8"],
        "superhf: warning: `top_k` is 8 of `superbatch_size` 8: all samples are kept",
    );
    says("one", &["superhf.superbatch_size=1", "superhf.total_episodes=8"], "the policy learns what it says");
    let world = format!("validation={}", inside("world"));
    says("unasked", &[&world], "found a validation judge and `validation_interval` is 0");
    let asked =
        superhf.works("asked", &[&world, "superhf.validation_interval=2", "superhf.total_episodes=128"]);
    assert_eq!(curve(&asked, "validation/score").len(), 2, "of four groups");
}

#[test]
fn a_killed_run_resumes_bit_for_bit() {
    // One answer at a time, so that there is time to kill it.
    let slow =
        ["superhf.total_episodes=640", "superhf.microbatch=1", "superhf.minibatch=32", "superhf.top_k=8"];
    superhf().resumes_bit_for_bit(&[&slow[..], &["checkpoint_every=3", "lora.rank=2"]].concat());
}

/// A comparison of the start with itself and with a model that has not learnt anything.
fn eval(more: &str) -> Single {
    Single::new(
        "eval",
        &format!(
            "output_dir = \"unset\"\nprompts = {{ path = \"{2}\" }}\nsampling = {{ max_new_tokens = 8 }}\nshow = 24\n{more}\n\
             [arms]\nblank = \"{1}\"\nsame = \"{0}\"\nstart = \"{0}\"\n",
            inside("start/model"),
            inside("blank/model"),
            inside("world/held_out.jsonl"),
        ),
    )
}

#[test]
fn arms_are_compared_prompt_by_prompt_and_answers_with_one_another() {
    let judges = format!("gold = \"{}\"\nreward = \"{}\"\n", inside("world"), inside("world/proxy"));
    let eval = eval(&format!("{judges}against = \"start\""));
    let ended = eval.run("out", &[]);
    assert!(ended.out.contains("won") && ended.out.contains("METEOR"), "{}{}", ended.out, ended.err);
    let found = read(&eval.out("out").join("comparison.json"));
    let arm = |name: &str| found["arms"].as_array().unwrap().iter().find(|arm| arm["arm"] == name).unwrap();
    for name in ["start", "same"] {
        let (means, errors) = (&arm(name)["means"], &arm(name)["errors"]);
        assert_eq!(
            (&means["win_rate"], &errors["win_rate"]),
            (&0.5.into(), &0.0.into()),
            "{name}: ties are half won"
        );
    }
    // Again from what is shown, which are all prompts: completion, gold.
    let shown = |name: &str| -> Vec<(String, f64)> {
        let samples = found["samples"].as_array().unwrap();
        let row = |sample: &Value| {
            let row = sample["completions"].as_array().unwrap().iter().find(|row| row[0] == name).unwrap();
            (row[1].as_str().unwrap().to_owned(), row[2].as_f64().unwrap())
        };
        samples.iter().map(row).collect()
    };
    let (blank, start) = (shown("blank"), shown("start"));
    assert_eq!(blank.len(), 24);
    let won = blank.iter().zip(&start).map(|((_, own), (_, other))| match own.total_cmp(other) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Equal => 0.5,
        std::cmp::Ordering::Less => 0.0,
    });
    let won = won.sum::<f64>() / 24.0;
    let figure = |name: &str, figure: &str| arm(name)["means"][figure].as_f64().unwrap();
    assert!((figure("blank", "win_rate") - won).abs() < 1e-12 && won < 0.5, "{won}");
    for (name, rows) in [("blank", &blank), ("start", &start)] {
        let meteor = Meteor::exact();
        let neighbours = rows.iter().zip(rows.iter().cycle().skip(1));
        let similarity = neighbours.map(|((a, _), (b, _))| meteor.similarity(a, b)).sum::<f64>() / 24.0;
        assert!((figure(name, "similarity") - similarity).abs() < 1e-9, "{name}: {similarity}");
    }
}

#[test]
fn an_arm_to_compare_with_must_be_one_model_and_judged() {
    let gold = format!("gold = \"{}\"\n", inside("world"));
    eval(&format!("{gold}against = \"begin\""))
        .refuses(&[], &["`against` is \"begin\", expected one of `arms`"]);
    eval("against = \"start\"")
        .refuses(&[], &["`against` compares by `gold` or `reward`, expected one of them"]);
    let proxy = format!("reward = \"{}\"\nagainst = \"start\"", inside("world/proxy"));
    let by_proxy = eval(&proxy);
    assert_eq!(
        read(&by_proxy.works("out", &[]).join("comparison.json"))["arms"][2]["means"]["win_rate"],
        0.5
    );

    let files = folder();
    let recipe = format!(
        "output_dir = \"{4}\"\n[[stage]]\nname = \"policies\"\nkind = \"superhf\"\nseeds = [0, 1]\npolicy = \"{0}\"\nreward = \"{1}\"\n\
         prompts = {{ path = \"{2}\" }}\nsuperhf = {{ superbatch_size = 2, total_episodes = 4, response_length = 8 }}\n\
         [[stage]]\nname = \"compare\"\nkind = \"eval\"\ngold = \"{3}\"\nagainst = \"many\"\n\
         arms = {{ start = \"{0}\", many = \"@policies\" }}\nprompts = {{ path = \"{2}\", max_rows = 4 }}\n\
         sampling = {{ max_new_tokens = 8 }}\n",
        inside("start/model"),
        inside("world/proxy"),
        inside("world/prompts.jsonl"),
        inside("world"),
        files.path().join("run").display(),
    );
    align(&["run", &text(&files, "r.toml", &recipe)])
        .refuses(&["`against` is \"many\", which has 2 seeds, expected an arm of one model"]);
}

/// The figures that a short circular run must draw.
const NASH: [&str; 4] = [
    "duality gap, exact",
    "how far a step went: h over its target",
    "share of pairs in the right order",
    "implicit reward: chosen minus rejected",
];

#[test]
fn inpo_on_the_circle_runs_to_its_claims() {
    let files = folder();
    let out = files.path().join("run");
    let mut args = vec![
        "run".to_owned(),
        "inpo-cyclic".to_owned(),
        format!("output_dir={}", out.display()),
        "world.demonstrations=512".to_owned(),
        "start.training.epochs=1.0".to_owned(),
    ];
    for stage in ["inpo", "dpo-{beta}", "dpo-moving", "without-kl", "greedy", "coin", "turned-round"] {
        args.push(format!("{stage}.seeds=[0]"));
        // Claims are read off the last five iterations.
        for size in ["iterations=5", "num_epochs=1", "prompts_per_iteration=64", "minibatch=64"] {
            args.push(format!("{stage}.self_play.{size}"));
        }
    }
    claims(&out, &args, 10);
    let report = fs::read_to_string(out.join("report.html")).unwrap();
    for heading in NASH {
        assert!(report.contains(heading), "{heading}");
    }
    let gaps = curve(&out.join("dpo-2.0/seed-0"), "nash/duality_gap");
    assert_eq!(gaps.len(), 5);
    // All begin at the same start, in the same game.
    let start = |stage: &str| summary(&out.join(stage).join("seed-0"))["reference_gap"].clone();
    assert!(start("inpo") == start("coin") && start("coin") == start("dpo-0.5"));
}

#[test]
fn superhf_against_a_trick_runs_to_its_claims() {
    let files = folder();
    let out = files.path().join("run");
    let mut args = vec![
        "run".to_owned(),
        "superhf-hack".to_owned(),
        format!("output_dir={}", out.display()),
        "world.demonstrations=512".to_owned(),
        "world.prompts=64".to_owned(),
        "world.held_out_prompts=8".to_owned(),
        "start.training.epochs=8.0".to_owned(),
        "ppo-{kl}.seeds=[0]".to_owned(),
        "ppo-{kl}.ppo.total_episodes=64".to_owned(),
    ];
    // Claims are read off the last twenty groups, of four prompts each.
    for (stage, samples) in [
        ("superhf-{beta}", 16),
        ("all-16", 16),
        ("best-of-1", 1),
        ("best-of-2", 2),
        ("best-of-4", 4),
        ("best-of-8", 8),
        ("best-of-32", 32),
    ] {
        args.push(format!("{stage}.seeds=[0]"));
        args.push(format!("{stage}.superhf.total_episodes={}", 20 * 4 * samples));
        // A policy that has learnt for so short a time may stop at once.
        args.push(format!("{stage}.superhf.max_skipped_fraction=0.75"));
    }
    claims(&out, &args, 25);
    let report = fs::read_to_string(out.join("report.html")).unwrap();
    for heading in [
        "METEOR between answers to different prompts",
        "proxy reward",
        "gold reward (logged, never trained on)",
    ] {
        assert!(report.contains(heading), "{heading}");
    }
    let compared = read(&out.join("compare/comparison.json"));
    assert_eq!(compared["arms"].as_array().unwrap().len(), 17);
}

/// Runs an experiment and expects a verdict on every claim, whichever it is.
fn claims(out: &Path, args: &[String], count: usize) {
    let ran = works(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let verdicts =
        ran.out.lines().filter(|line| line.contains("  pass  ") || line.contains("  FAIL  ")).count();
    assert_eq!(verdicts, count, "{}", ran.out);
    assert!(ran.out.contains(&format!("of {count} claims hold")), "{}", ran.out);
    let found = read(&out.join("claims/claims.json"));
    let claims = found["claims"].as_array().unwrap();
    assert!(claims.len() == count && claims.iter().all(|claim| claim["value"].is_number()), "{found}");
}
