//! The picture of the house, checked against the manifests: a crate uses lower floors only, and no library picks a
//! backend.

use std::process::Command;

use serde_json::Value;

/// Every crate's floor. The kernels lie under the core; test doubles stand above everything, so that nothing but a test
/// can reach them.
const FLOORS: [(&str, usize); 17] = [
    ("align-kernels", 0),
    ("align-core", 1),
    ("align-models", 2),
    ("align-data", 2),
    ("align-soup", 2),
    ("align-fusion", 3),
    ("align-train", 3),
    ("align-bilevel", 4),
    ("align-factors", 4),
    ("align-nash", 4),
    ("align-occupancy", 4),
    ("align-ppo", 4),
    ("align-reward", 4),
    ("align-superhf", 4),
    ("align", 5),
    ("align-cli", 5),
    ("align-testkit", 6),
];

fn floor(name: &str) -> usize {
    let found = FLOORS.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("`{name}` has no floor yet: give it one in FLOORS")).1
}

/// Edges that do not lead down, as messages.
fn violations(edges: &[(String, String)]) -> Vec<String> {
    let message = |(from, to): &(String, String)| match floor(from).cmp(&floor(to)) {
        std::cmp::Ordering::Greater => None,
        std::cmp::Ordering::Equal => Some(format!("`{from}` uses its sibling `{to}`")),
        std::cmp::Ordering::Less => Some(format!("`{from}` uses `{to}`, which stands above it")),
    };
    edges.iter().filter_map(message).collect()
}

/// The workspace's packages as cargo sees them.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

/// Names under a key, as strings.
fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().expect("a list").iter()
}

#[test]
fn a_crate_uses_lower_floors_only() {
    let mut edges = Vec::new();
    for package in packages() {
        let from = package["name"].as_str().expect("a name").to_owned();
        // `kind` is null for what a crate is built from; tests may use what they like.
        for dependency in list(&package, "dependencies").filter(|d| d["kind"].is_null()) {
            let to = dependency["name"].as_str().expect("a name");
            if to.starts_with("align") {
                edges.push((from.clone(), to.to_owned()));
            }
        }
    }
    assert!(edges.len() > 20, "the manifests were read: {edges:?}");
    assert_eq!(violations(&edges), Vec::<String>::new());
}

#[test]
fn sideways_and_upward_edges_are_found_and_named() {
    let edge = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let edges = [
        edge("align-ppo", "align-core"),
        edge("align-ppo", "align-reward"),
        edge("align-core", "align-train"),
        edge("align-train", "align-testkit"),
    ];
    let expected = [
        "`align-ppo` uses its sibling `align-reward`",
        "`align-core` uses `align-train`, which stands above it",
        "`align-train` uses `align-testkit`, which stands above it",
    ];
    assert_eq!(violations(&edges), expected);
}

/// Burn's features that are, or switch on, a backend.
const BACKENDS: [&str; 12] = [
    "cpu", "cuda", "default", "flex", "metal", "ndarray", "remote", "rocm", "tch", "vulkan", "webgpu", "wgpu",
];

/// Backends a package gets without asking for any: through its default features, or through Burn directly.
fn default_backends(package: &Value) -> Vec<String> {
    let features = &package["features"];
    let mut pending: Vec<&str> = if features["default"].is_array() { vec!["default"] } else { Vec::new() };
    let mut enabled = Vec::new();
    while let Some(name) = pending.pop() {
        enabled.push(name.to_owned());
        if features[name].is_array() {
            pending.extend(list(features, name).filter_map(Value::as_str));
        }
    }
    let own = list(package, "dependencies").filter(|d| d["name"] == "burn" && d["kind"].is_null());
    let asked = own.flat_map(|burn| {
        let defaults = (burn["uses_default_features"] == true).then(|| "burn/default".to_owned());
        let named = list(burn, "features").filter_map(Value::as_str).map(|name| format!("burn/{name}"));
        defaults.into_iter().chain(named).collect::<Vec<_>>()
    });
    let is_backend = |feature: &String| {
        let (owner, name) = feature.split_once('/').unwrap_or(("", feature));
        (owner == "burn" || owner.starts_with("align")) && BACKENDS.contains(&name)
    };
    enabled.into_iter().chain(asked).filter(is_backend).collect()
}

#[test]
fn no_library_enables_a_backend() {
    for package in packages() {
        let name = package["name"].as_str().expect("a name");
        let found = default_backends(&package);
        // The binary and the test doubles name the CPU backend; nothing else does.
        if name == "align-cli" || name == "align-testkit" {
            assert!(!found.is_empty(), "`{name}` enables no backend: this test would not see one");
        } else {
            assert_eq!(found, Vec::<String>::new(), "`{name}`");
        }
    }
}
