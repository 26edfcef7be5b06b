//! The documentation keeps up with the code: every page is compiled, every setting and every metric is explained.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use align::core::{Completions, Draws, Frozen, PreferenceFn, Reward, RewardFn};
use align::fusion::Weighing;
use align::nash::self_play::{Labels, Method};
use align::nash::{
    KtoConfig, KtoObjective, Mismatched, Pair, PairBatch, PairLoss, PairObjective, Rated, SelfPlay,
    SelfPlayConfig, SelfPlayParts, kto_microbatches, mismatched_rows, row_sums,
};
use align::ppo::config::{ALIASES, NAMES, PpoConfig};
use align::ppo::{Ppo, PpoParts};
use align::reward::Recorded;
use align::superhf::trim::TurnMarkers;
use align::superhf::{Filter, SuperHf, SuperHfConfig, SuperHfParts};
use align::train::{Learner, Metrics, Objective, OptimizerConfig};
use align_testkit::{BigramCritic, BigramLm, device, train_device};
use burn::module::Module;
use burn::tensor::Tensor;
use serde_json::{Value, json};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names of `docs/`'s pages, relative to it.
fn pages(folder: &Path, prefix: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            found.extend(pages(&path, &format!("{name}/")));
        } else if name.ends_with(".md") {
            found.insert(name);
        }
    }
    found
}

#[test]
fn every_page_is_compiled_and_listed() {
    let (library, summary) = (read("crates/align/src/lib.rs"), read("docs/SUMMARY.md"));
    let pages = pages(&root().join("docs"), "");
    assert!(pages.len() > 10, "{pages:?}");
    for page in pages.iter().filter(|page| *page != "SUMMARY.md") {
        assert!(
            library.contains(&format!("\"{page}\"")),
            "crates/align/src/lib.rs does not compile docs/{page}"
        );
        assert!(summary.contains(&format!("({page})")), "docs/SUMMARY.md does not list {page}");
    }
}

/// The sections of a page under these headings of the second level, one after the other.
fn sections(page: &str, headings: &[&str]) -> String {
    let text = read(page);
    let parts: Vec<&str> = text.split("\n## ").collect();
    let section = |heading: &&str| {
        let found = parts.iter().find(|part| part.lines().next() == Some(heading));
        *found.unwrap_or_else(|| panic!("{page} has no section `{heading}`"))
    };
    headings.iter().map(section).collect()
}

/// Whether a text has the word between backticks, alone or in a list.
fn explains(text: &str, word: &str) -> bool {
    text.contains(&format!("`{word}`"))
}

/// Fails on names that the sections do not have.
fn assert_explained<'a>(page: &str, headings: &[&str], names: impl IntoIterator<Item = &'a str>) {
    let text = sections(page, headings);
    let missing: BTreeSet<&str> = names.into_iter().filter(|name| !explains(&text, name)).collect();
    assert!(missing.is_empty(), "{page}, {headings:?}, says nothing about {missing:?}");
}

/// Everything that has a name in a value: keys, and texts such as the word for a kind.
fn names(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Object(entries) => {
            entries.iter().flat_map(|(key, value)| names(value).into_iter().chain([key.clone()])).collect()
        }
        Value::String(text) => BTreeSet::from([text.clone()]),
        Value::Array(values) => values.iter().flat_map(names).collect(),
        _ => BTreeSet::new(),
    }
}

/// The keys, and the words for kinds, of everything that is read as a type: with all defaults spelt out.
macro_rules! names_of {
    ($of:ty: $($text:tt),+ $(,)?) => {{
        let mut found = BTreeSet::new();
        $(
            let value: $of = serde_json::from_value(json!($text)).expect("it can be read");
            found.extend(names(&serde_json::to_value(value).expect("it can be written")));
        )+
        found
    }};
}

#[test]
fn every_ppo_setting_is_explained() {
    assert_explained("docs/recipes.md", &["The `ppo` table"], NAMES.iter().copied());
}

#[test]
fn every_superhf_setting_is_explained_and_so_are_its_other_names() {
    use align::superhf::config::{ALIASES, NAMES};
    let aliases = ALIASES.iter().map(|(alias, _)| *alias);
    assert_explained(
        "docs/recipes.md",
        &["The `superhf` table"],
        NAMES.iter().copied().chain(aliases).chain(["top_k"]),
    );
    let choices = [
        ("prior", "start"),
        ("prior", "other"),
        ("prior", "none"),
        ("kl_direction", "prior_to_policy"),
        ("kl_direction", "policy_to_prior"),
        ("kl_reduction", "mean_over_examples"),
        ("kl_reduction", "token_mean"),
        ("kl_reduction", "sum_over_examples"),
        ("length_penalty_form", "log"),
        ("length_penalty_form", "linear"),
        ("length_penalty_unit", "characters"),
        ("length_penalty_unit", "tokens"),
    ];
    for (key, choice) in choices {
        let config = json!({ "kl_coef": 0.0, key: choice });
        serde_json::from_value::<SuperHfConfig>(config).unwrap_or_else(|e| panic!("{key} = {choice}: {e}"));
    }
    assert_explained("docs/recipes.md", &["The `superhf` table"], choices.map(|(_, choice)| choice));
    let filters = names_of!(Filter:
        { "kind": "top_k", "k": 2 },
        { "kind": "threshold", "above": 0.0 },
        { "kind": "percentile", "percentile": 0.5 },
    );
    let trim = serde_json::to_value(TurnMarkers::default()).expect("it can be written");
    let keys = trim.as_object().expect("a table").keys();
    assert_explained(
        "docs/recipes.md",
        &["The `superhf` table"],
        filters.iter().chain(keys).map(String::as_str),
    );
}

#[test]
fn every_self_play_setting_is_explained() {
    let config = SelfPlayConfig {
        prompts_per_iteration: Some(1),
        labels: Some(Labels::Hard),
        reset_optimizer: Some(true),
        ..SelfPlayConfig::default()
    };
    let config = serde_json::to_value(config).expect("it can be written");
    let keys: Vec<&str> = config.as_object().expect("a table").keys().map(String::as_str).collect();
    assert!(keys.contains(&"labels") && keys.contains(&"past_policies"), "{keys:?}");
    assert_explained("docs/recipes.md", &["The `self_play` table"], keys);

    // Every method with all its keys; losses have a table of their own.
    let methods = names_of!(Method:
        { "kind": "inpo", "tau": 0.001, "schedule": "constant" },
        { "kind": "inpo", "schedule": "decreasing" },
        { "kind": "dpo", "anchor": "reference" },
        { "kind": "dpo", "anchor": "previous" },
        { "kind": "sppo" },
        { "kind": "xpo" },
        { "kind": "nash_md" },
    );
    let choices = ["independent", "tournament", "hard", "soft", "keep", "drop", "lose"];
    let headings = &["The `self_play` table", "Losses of pairs"];
    assert_explained("docs/recipes.md", headings, methods.iter().map(String::as_str).chain(choices));
}

#[test]
fn every_way_of_weighing_experts_is_explained() {
    let names = names_of!(Weighing:
        { "kind": "static", "weights": [1.0] },
        { "kind": "dynamic", "bounds": [{ "lower": 0.0, "upper": 1.0 }] },
        { "kind": "dynamic", "search": "grid", "objective": "forward", "experts": "joint", "targets": "own" },
        { "kind": "dynamic", "search": "paper_grid", "objective": "reverse" },
        { "kind": "dynamic", "objective": "jeffreys" },
    );
    assert!(names.contains("skip_below") && names.contains("refined"), "{names:?}");
    assert_explained("docs/recipes.md", &["Stages"], names.iter().map(String::as_str));
}

#[test]
fn every_loss_of_pairs_is_explained_and_so_is_kto() {
    let losses = names_of!(PairLoss:
        { "kind": "dpo", "f_divergence": "reverse_kl" },
        { "kind": "dpo", "f_divergence": "forward_kl" },
        { "kind": "dpo", "f_divergence": "js_divergence" },
        { "kind": "dpo", "f_divergence": { "alpha_divergence": { "alpha": 0.5 } } },
        { "kind": "robust" },
        { "kind": "ipo" },
        { "kind": "hinge" },
        { "kind": "simpo" },
        { "kind": "sppo" },
    );
    let kto = names_of!(KtoConfig: {});
    let names = losses.iter().chain(&kto).map(String::as_str);
    assert_explained("docs/recipes.md", &["Losses of pairs"], names);
}

#[test]
fn every_kind_of_stage_in_a_recipe_is_explained() {
    let stages = sections("docs/recipes.md", &["Stages"]);
    let mut kinds = BTreeSet::new();
    for entry in std::fs::read_dir(root().join("recipes")).expect("the folder is there") {
        let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("a recipe");
        // Of stages themselves, not of a table inside one.
        let mut header = "";
        for line in text.lines() {
            if line.starts_with('[') {
                header = line;
            }
            let kind = line.strip_prefix("kind = \"").and_then(|rest| rest.strip_suffix('"'));
            kinds.extend(kind.filter(|_| header == "[[stage]]").map(str::to_owned));
        }
    }
    assert!(kinds.len() > 10, "{kinds:?}");
    let missing: Vec<_> = kinds.iter().filter(|kind| !stages.contains(&format!("**`{kind}`**"))).collect();
    assert!(missing.is_empty(), "docs/recipes.md says nothing about stages of kind {missing:?}");
}

#[test]
fn aliases_that_a_page_names_exist() {
    let page = read("docs/coming-from-trl.md");
    let accepted = page.split("Accepted as well:").nth(1).unwrap().split("The full list").next().unwrap();
    for name in accepted.split('`').skip(1).step_by(2) {
        assert!(ALIASES.iter().any(|(alias, _)| *alias == name), "`{name}` is not accepted");
    }
}

/// Every name in some metrics is explained in one of these sections of the page, or among those of every training; `expected` are
/// some that a run only reports if it did what it was meant to.
fn assert_metrics_explained(metrics: &Metrics, headings: &[&str], expected: &[&str]) {
    let names: Vec<&str> = metrics.iter().map(|(name, _)| name).collect();
    let absent: Vec<_> = expected.iter().filter(|name| !names.contains(name)).collect();
    assert!(absent.is_empty(), "the run did not report {absent:?}");
    assert_explained("docs/metrics.md", &[&["Every training"], headings].concat(), names);
}

/// How many tokens a response has.
fn length() -> Box<dyn Reward> {
    Box::new(RewardFn(|c: &Completions| c.response.mask.clone().int().sum_dim(1).squeeze_dim::<1>(1).float()))
}

#[test]
fn every_metric_of_a_ppo_run_is_explained() {
    let config: PpoConfig = serde_json::from_value(json!({
        "rollout_batch": 4, "microbatch": 4, "total_episodes": 8, "num_ppo_epochs": 1, "response_length": 3,
        "stop_token_ids": [1],
        "regularizer": { "site": "loss", "divergence": { "kind": "kl", "estimator": "k2" } },
    }))
    .unwrap();
    let policy = BigramLm::random(4, &Draws::new(0), &train_device());
    let parts = PpoParts {
        reference: Frozen::new(&policy).into(),
        critic: Some(BigramCritic::zeros(4, &train_device())),
        reward: length(),
        gold: Some(length()),
        anchors: vec![("<anchor>".to_owned(), Box::new(policy.clone().valid()))],
        regularizer: None,
        prompts: vec![vec![0], vec![2]],
        policy,
    };
    let metrics = Ppo::new(parts, config).unwrap().iteration(0).unwrap();
    let headings = [
        "PPO: what is aimed at",
        "PPO: the policy's step",
        "PPO: the critic",
        "PPO: the responses",
        "PPO: time",
    ];
    let expected =
        ["gold/score", "objective/kl_to_<anchor>", "loss/regularizer_avg", "critic/vf_explained_var"];
    assert_metrics_explained(&metrics, &headings, &expected);
}

/// What the steps of a self-play run report, all together.
fn self_play(changes: Value) -> Metrics {
    let mut settings = json!({
        "iterations": 2, "num_generations": 2, "minibatch": 8, "microbatch": 8, "response_length": 3,
        "stop_token_ids": [1], "evaluate_every": 1,
    });
    for (key, value) in changes.as_object().expect("a table") {
        settings[key] = value.clone();
    }
    let config: SelfPlayConfig = serde_json::from_value(settings).expect("settings go together");
    let folder = tempfile::tempdir().expect("a folder");
    // The longer answer wins.
    let oracle = PreferenceFn(|first: &Completions, second: &Completions| -> Tensor<1> {
        burn::tensor::activation::sigmoid(length().score(first) - length().score(second))
    });
    let policy = BigramLm::random(8, &Draws::new(0), &train_device());
    let parts = SelfPlayParts {
        reference: Box::new(Frozen::new(&policy)),
        oracle: Box::new(Recorded::open(&folder.path().join("oracle.jsonl"), oracle).expect("a file")),
        prompts: (0..8).map(|x| vec![x]).collect(),
        held_out: vec![vec![2, 3], vec![4, 5]],
        measures: vec![("nash/duality_gap".to_owned(), Box::new(|_| 0.0))],
        policy,
    };
    let mut run = SelfPlay::new(parts, config).expect("parts go together");
    let mut all = Metrics::new();
    for step in 0..run.plan().steps() {
        all.merge(run.step(step).expect("a step"));
    }
    all
}

#[test]
fn every_metric_of_self_play_is_explained() {
    let inpo = json!({ "kind": "inpo", "eta": 0.5, "tau": 0.1, "loss_scaling": true });
    let always =
        ["nash/win_rate_vs_previous_se", "nash/worst_win_rate", "nash/duality_gap", "recorded/asked"];
    for (changes, expected) in [
        (json!({ "method": inpo }), vec!["nash/h_over_target", "loss/inpo_scaled", "val/clipped"]),
        (
            json!({ "method": inpo, "pairing": "tournament", "num_generations": 4 }),
            vec!["nash/h_over_target"],
        ),
        (json!({ "method": { "kind": "dpo" } }), vec!["rewards/margins"]),
        (json!({ "method": { "kind": "sppo", "beta": 0.1 } }), vec!["rewards/margins"]),
        (json!({ "method": { "kind": "xpo" } }), vec!["rewards/margins"]),
        (json!({ "method": { "kind": "nash_md" } }), vec!["rewards/probabilities", "loss/kl"]),
    ] {
        let expected = [always.as_slice(), &expected].concat();
        assert_metrics_explained(&self_play(changes), &["Pairs: direct losses", "Self-play"], &expected);
    }
}

/// What one optimizer step reports.
fn step<O: Objective<BigramLm>>(objective: &O, batches: &[O::Batch]) -> Metrics {
    let policy = BigramLm::random(4, &Draws::new(0), &train_device());
    let mut learner = Learner::new(policy, OptimizerConfig::default(), 1).expect("it can be trained");
    learner.step(objective, batches).expect("a step")
}

#[test]
fn every_metric_of_a_direct_loss_is_explained() {
    let pairs = [Pair::labelled(vec![0], vec![2, 1], vec![3]), Pair::labelled(vec![2], vec![1], vec![3, 0])];
    let batch = PairBatch::new(&pairs.iter().collect::<Vec<_>>(), &device());
    let metrics = step(&PairObjective::new(PairLoss::default()), &[batch]);
    assert_metrics_explained(&metrics, &["Pairs: direct losses"], &["rewards/accuracies", "margin/mean"]);
}

#[test]
fn every_metric_of_kto_is_explained() {
    let answer = |response: Vec<u32>, desirable| Rated { prompt: vec![0], response, anchor: 0.0, desirable };
    let rows = [answer(vec![2, 1], true), answer(vec![3], false)];
    let rows: Vec<&Rated> = rows.iter().collect();
    let others = mismatched_rows(&rows);
    let answers: Vec<(&[u32], &[u32])> =
        others.iter().map(|(prompt, response)| (prompt.as_slice(), response.as_slice())).collect();
    let reference = BigramLm::random(4, &Draws::new(1), &device());
    let (prompts, responses): (Vec<_>, Vec<_>) = others.iter().cloned().unzip();
    let mismatched = Mismatched {
        completions: vec![Completions::from_rows(&prompts, &responses, &device())],
        anchors: row_sums(&reference, &answers, 2, &device()),
    };
    let batches = kto_microbatches(&rows, mismatched, 2, &device());
    let metrics = step(&KtoObjective::new(KtoConfig::default()), &batches);
    assert_metrics_explained(&metrics, &["Rated answers: KTO"], &["kl", "rewards/margins"]);
}

#[test]
fn every_metric_of_superhf_is_explained() {
    let config: SuperHfConfig = serde_json::from_value(json!({
        "superbatch_size": 4, "prompt_accumulation_steps": 3, "total_episodes": 12, "response_length": 4,
        "stop_token_ids": [1], "inverse_loss": 0.1, "validation_interval": 1,
    }))
    .unwrap();
    let policy = BigramLm::random(8, &Draws::new(0), &train_device());
    let parts = SuperHfParts {
        prior: Box::new(Frozen::new(&policy)),
        reward: length(),
        validation: Some(length()),
        gold: Some(length()),
        prompts: vec![vec![0], vec![2], vec![3]],
        policy,
    };
    let metrics = SuperHf::new(parts, config).unwrap().iteration(0).unwrap();
    let expected = [
        "gold/score",
        "validation/score",
        "superhf/similarity",
        "superhf/inverse_slope",
        "objective/kl",
        "loss/kl",
    ];
    assert_metrics_explained(&metrics, &["SuperHF"], &expected);
}
