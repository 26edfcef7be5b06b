//! A fusion as a stage, and the stages that read it.

use std::fs;

use serde_json::{Value, json};

use crate::tiny::{align, at, folder, run, text, works};

/// A run of a fusion and of what reads it, on the finished run's models.
fn recipe(files: &tempfile::TempDir, rest: &str) -> String {
    let head = format!(
        "title = \"Fused\"\noutput_dir = \"{}\"\n\
         [inputs]\nlarge = \"{}\"\nsmall = \"{}\"\nfirst = \"{}\"\nreward = \"{}\"\nworld = \"{}\"\n\
         [[stage]]\nname = \"tuned\"\nkind = \"sft\"\nmodel = \"$small\"\nseed = 5\nlora = {{ rank = 2 }}\n\
         data = {{ path = \"$world/demonstrations.jsonl\" }}\n\
         training = {{ max_steps = 3, minibatch = 8, microbatch = 8 }}\noptimizer = {{ learning_rate = 1e-2 }}\n\
         [[stage]]\nname = \"fused\"\nkind = \"fusion\"\nbase = \"$large\"\nanchor = \"$small\"\n\
         weighing = {{ kind = \"dynamic\", upper = 1.5 }}\n\
         experts = {{ first = \"$first\", tuned = {{ adapter = \"@tuned/adapter\" }}, whole = \"@tuned\" }}\n",
        files.path().join("out").display(),
        at("salsa/seed-0/model"),
        at("base/model"),
        at("sft-a/model"),
        at("reward/model"),
        at("world"),
    );
    text(files, "fused.toml", &(head + rest))
}

const EVAL: &str = "[[stage]]\nname = \"compare\"\nkind = \"eval\"\narms = { large = \"$large\", fused = \"@fused\" }\n\
    anchors = { fused = \"@fused\" }\nprompts = { path = \"$world/held_out.jsonl\" }\nsampling = { max_new_tokens = 6 }\nshow = 2\n";

#[test]
fn a_stage_writes_a_file_that_other_stages_read() {
    let files = folder();
    let rest = format!(
        "{EVAL}[[stage]]\nname = \"best\"\nkind = \"bon\"\n\
         sample = {{ model = \"@fused\", n = 2, reward = \"$reward\", prompts = {{ path = \"$world/held_out.jsonl\", max_rows = 2 }}, \
         sampling = {{ max_new_tokens = 4 }} }}\n\
         [[stage]]\nname = \"pairs\"\nkind = \"pairs\"\nmodel = \"@fused\"\njudge = \"$reward\"\n\
         prompts = {{ path = \"$world/held_out.jsonl\" }}\nsampling = {{ max_new_tokens = 4 }}\n\
         [[stage]]\nname = \"held\"\nkind = \"ppo\"\npolicy = \"$large\"\nreference = \"@fused\"\nreward = \"$reward\"\n\
         anchors = {{ fused = \"@fused\" }}\nprompts = {{ path = \"$world/prompts.jsonl\" }}\n\
         ppo = {{ total_episodes = 8, rollout_batch = 8, microbatch = 8, response_length = 4 }}\n"
    );
    works(&["run", &recipe(&files, &rest)]);
    let out = files.path().join("out");
    let written: toml::Table = fs::read_to_string(out.join("fused/fusion.toml")).unwrap().parse().unwrap();
    assert_eq!(written["experts"]["tuned"]["adapter"].as_str(), Some("../tuned/adapter"));
    assert_eq!(written["experts"]["whole"].as_str(), Some("../tuned/model"));
    assert_eq!(written["weighing"]["upper"].as_float(), Some(1.5));
    assert_eq!(written["weighing"]["search"].as_str(), Some("refined"), "defaults are spelt out");
    let large = run().join("salsa/seed-0/model").canonicalize().unwrap();
    assert_eq!(written["base"].as_str(), large.to_str());

    let json =
        |path: &str| -> Value { serde_json::from_str(&fs::read_to_string(out.join(path)).unwrap()).unwrap() };
    let arms = json("compare/comparison.json")["arms"].clone();
    assert_eq!(arms[1]["arm"], "fused");
    // It is its own anchor, and not the base's.
    assert!(arms[1]["means"]["kl/fused"].as_f64().unwrap().abs() < 1e-4, "{arms}");
    assert!(arms[0]["means"]["kl/fused"].as_f64().unwrap() > 1e-4, "{arms}");
    assert_eq!(json("best/best_of_n.json")["answers"], json!(2));
    assert!(out.join("pairs/preferences.jsonl").exists());
    let metrics = fs::read_to_string(out.join("held/seed-0/metrics.jsonl")).unwrap();
    let step: Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
    assert!(step["objective/kl"].as_f64().unwrap() != 0.0, "{step}");

    // What the arms of the comparison were weighed by stands in the report.
    let weights = fs::read_to_string(out.join("compare/weights.jsonl")).unwrap();
    assert_eq!(weights.lines().count(), 2, "the shown samples of the one fusion");
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(
        page.contains("Where the experts speak: compare") && page.contains("whole"),
        "no weights in the report"
    );
    works(&["report", out.to_str().unwrap()]);
    let moved = files.path().join("moved");
    fs::rename(&out, &moved).unwrap();
    let fused = moved.join("fused");
    works(&["fuse", "generate", fused.to_str().unwrap(), "--prompt", "please", "--max-new-tokens", "2"]);
}

/// The numbers of a stage's metrics, step by step.
fn metrics(out: &std::path::Path, stage: &str, metric: &str) -> Vec<f64> {
    let lines = fs::read_to_string(out.join(stage).join("metrics.jsonl")).unwrap();
    let of_line = |line: &str| serde_json::from_str::<Value>(line).unwrap()[metric].as_f64();
    lines.lines().filter_map(of_line).collect()
}

#[test]
fn a_policy_is_held_to_a_fusion_as_to_a_model() {
    let kinds = [
        (
            "dpo",
            "model",
            "reference",
            "rewards/margins",
            "data = { path = \"$world/preferences.jsonl\", max_rows = 16 }\n\
          training = { max_steps = 3, minibatch = 8, microbatch = 8 }\noptimizer = { learning_rate = 3e-3 }\n",
        ),
        (
            "online",
            "policy",
            "reference",
            "objective/kl",
            "oracle = { kind = \"reward\", model = \"$reward\" }\n\
          prompts = { path = \"$world/prompts.jsonl\", max_rows = 16 }\n[stage.self_play]\nmethod = { kind = \"dpo\" }\n\
          iterations = 1\nprompts_per_iteration = 16\nminibatch = 8\nmicrobatch = 8\nresponse_length = 4\n",
        ),
        (
            "nash",
            "policy",
            "reference",
            "objective/kl",
            "oracle = { kind = \"reward\", model = \"$reward\" }\n\
          prompts = { path = \"$world/prompts.jsonl\", max_rows = 16 }\n[stage.self_play]\n\
          method = { kind = \"inpo\", eta = 0.5, tau = 0.1 }\n\
          iterations = 1\nprompts_per_iteration = 16\nminibatch = 8\nmicrobatch = 8\nresponse_length = 4\n",
        ),
        (
            "superhf",
            "policy",
            "prior",
            "objective/kl",
            "reward = \"$reward\"\nprompts = { path = \"$world/prompts.jsonl\" }\n\
          [stage.superhf]\nprior = \"other\"\nkl_coef = 0.1\nsuperbatch_size = 4\nprompt_accumulation_steps = 2\n\
          total_episodes = 8\nminibatch = 2\ntop_p = 1.0\nresponse_length = 4\nlearning_rate = 3e-3\n",
        ),
    ];
    let files = folder();
    // A fusion whose experts have no weight is its base.
    let mut rest = "[[stage]]\nname = \"idle\"\nkind = \"fusion\"\nbase = \"$large\"\nanchor = \"$small\"\n\
                    weighing = { kind = \"static\", weights = [0.0] }\nexperts = { first = \"$first\" }\n"
        .to_owned();
    for (kind, start, held, _, more) in kinds {
        for (name, reference) in [("large", "$large"), ("idle", "@idle"), ("fused", "@fused")] {
            rest += &format!(
                "[[stage]]\nname = \"{kind}-{name}\"\nkind = \"{kind}\"\n{start} = \"$first\"\n{held} = \"{reference}\"\n{more}"
            );
        }
    }
    works(&["run", &recipe(&files, &rest)]);
    let out = files.path().join("out");
    for (kind, _, _, metric, _) in kinds {
        let [large, idle, fused] =
            ["large", "idle", "fused"].map(|name| metrics(&out, &format!("{kind}-{name}"), metric));
        assert!(!large.is_empty(), "{kind} has no {metric}");
        let apart = |other: &[f64]| large.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(apart(&idle) < 1e-4, "{kind}: {large:?} and {idle:?}");
        assert!(apart(&fused) > 1e-3, "{kind}: {large:?} and {fused:?}");
    }
    // What the fusion is made of belongs to what a resumed run must find unchanged.
    let record: Value =
        serde_json::from_str(&fs::read_to_string(out.join("dpo-fused/run.json")).unwrap()).unwrap();
    let inputs: Vec<&String> = record["inputs"].as_object().unwrap().keys().collect();
    for part in ["fused/fusion.toml", "base/model", "tuned/adapter"] {
        assert!(inputs.iter().any(|input| input.ends_with(part)), "{part} is not in {inputs:?}");
    }
}

#[test]
fn what_is_trained_averaged_or_judged_by_is_no_fusion() {
    for (stage, parts) in [
        (
            "kind = \"sft\"\nmodel = \"@fused\"\ndata = { path = \"$world/demonstrations.jsonl\" }\n",
            "`@fused` is a fusion",
        ),
        ("kind = \"soup\"\nmodels = [\"$first\", \"@fused\"]\n", "`@fused` is a fusion"),
        (
            "kind = \"ppo\"\npolicy = \"@fused\"\nreference = \"$large\"\nreward = \"$reward\"\n\
             prompts = { path = \"$world/prompts.jsonl\" }\n",
            "`@fused` is a fusion",
        ),
        (
            "kind = \"ppo\"\npolicy = \"$large\"\nreference = \"@fused\"\nfollowing = { kind = \"ema\", decay = 0.9 }\n\
             reward = \"$reward\"\nprompts = { path = \"$world/prompts.jsonl\" }\n",
            "`@fused` is a fusion",
        ),
        (
            "kind = \"fusion\"\nbase = \"@fused\"\nanchor = \"$small\"\nexperts = { first = \"$first\" }\n",
            "`@fused` is a fusion",
        ),
    ] {
        let files = folder();
        let rest = format!("[[stage]]\nname = \"wrong\"\n{stage}");
        align(&["run", &recipe(&files, &rest)]).refuses(&["stage `wrong`", parts, "no weights of its own"]);
    }
}

#[test]
fn a_fusion_that_was_interrupted_is_made_again_and_one_that_is_done_is_kept() {
    let files = folder();
    let recipe = recipe(&files, EVAL);
    works(&["run", &recipe]);
    let out = files.path().join("out");
    let before = fs::read_to_string(out.join("fused/fusion.toml")).unwrap();
    works(&["run", &recipe, "--resume"]).says(&["fused: done already"]);
    fs::remove_file(out.join("fused/stage.json")).unwrap();
    fs::remove_file(out.join("fused/fusion.toml")).unwrap();
    works(&["run", &recipe, "--resume"]);
    assert_eq!(fs::read_to_string(out.join("fused/fusion.toml")).unwrap(), before);
    let changed = align(&["run", &recipe, "--resume", "fused.weighing.upper=1.0"]);
    changed.refuses(&["`fused`", "was begun with another recipe", "upper"]);
}
