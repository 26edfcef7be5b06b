//! The documentation keeps up with the code: every page is compiled, every PPO setting and every metric is explained.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use align::core::{Draws, Frozen, RewardFn};
use align::ppo::config::{ALIASES, NAMES, PpoConfig};
use align::ppo::{Ppo, PpoParts};
use align_testkit::{BigramCritic, BigramLm, train_device};
use burn::module::Module;

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

/// Whether a page has the word between backticks, alone or in a list.
fn explains(page: &str, word: &str) -> bool {
    page.contains(&format!("`{word}`"))
}

#[test]
fn every_ppo_setting_is_explained() {
    let page = read("docs/recipes.md");
    let missing: Vec<_> = NAMES.iter().filter(|name| !explains(&page, name)).collect();
    assert!(missing.is_empty(), "docs/recipes.md says nothing about {missing:?}");
}

#[test]
fn aliases_that_a_page_names_exist() {
    let page = read("docs/coming-from-trl.md");
    let accepted = page.split("Accepted as well:").nth(1).unwrap().split("The full list").next().unwrap();
    for name in accepted.split('`').skip(1).step_by(2) {
        assert!(ALIASES.iter().any(|(alias, _)| *alias == name), "`{name}` is not accepted");
    }
}

#[test]
fn every_metric_of_a_ppo_run_is_explained() {
    let config: PpoConfig = serde_json::from_value(serde_json::json!({
        "rollout_batch": 4, "microbatch": 4, "total_episodes": 8, "num_ppo_epochs": 1, "response_length": 3,
        "stop_token_ids": [1],
        "regularizer": { "site": "loss", "divergence": { "kind": "kl", "estimator": "k2" } },
    }))
    .unwrap();
    let policy = BigramLm::random(4, &Draws::new(0), &train_device());
    let parts = PpoParts {
        reference: Frozen::new(&policy).into(),
        critic: Some(BigramCritic::zeros(4, &train_device())),
        reward: Box::new(RewardFn(|c: &align::core::Completions| {
            c.response.mask.clone().int().sum_dim(1).squeeze_dim::<1>(1).float()
        })),
        gold: Some(Box::new(RewardFn(|c: &align::core::Completions| {
            c.response.mask.clone().int().sum_dim(1).squeeze_dim::<1>(1).float()
        }))),
        anchors: vec![("<anchor>".to_owned(), Box::new(policy.clone().valid()))],
        regularizer: None,
        prompts: vec![vec![0], vec![2]],
        policy,
    };
    let metrics = Ppo::new(parts, config).unwrap().iteration(0).unwrap();
    let page = read("docs/metrics.md");
    let missing: Vec<_> =
        metrics.iter().map(|(name, _)| name).filter(|name| !explains(&page, name)).collect();
    assert!(metrics.len() > 30, "{}", metrics.len());
    assert!(missing.is_empty(), "docs/metrics.md says nothing about {missing:?}");
}
