//! Models of answers: a small survey fitted, explained and compared, going on after an end, and bad input.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use crate::preferences::read;
use crate::tiny::{Ended, align, folder, hashes, path, text, works};

/// A survey of five factors, fitted by three models of which one is guided twice; two seeds, then compared and claimed.
const RECIPE: &str = r#"
title = "five factors"

[[stage]]
name = "survey"
kind = "survey"
seeds = [0, 1]
train = 120
validation = 60
test = 200
survey = { primary = [1.2, -0.9], secondary = [0.3, 0.2], nuisance = 1, interaction = 0.0 }

[[stage]]
name = "fit"
kind = "factors"
seeds = [0, 1]
references = { truth = "@survey/seed-{seed}/truth.toml" }
training = { steps = 120, batch = 32 }
guidance = { probe = { rows = 4 } }
explain = { top = 2, rows = 50, bands = { resamples = 50 } }

[stage.data]
path = "@survey/seed-{seed}/train.csv"
validation = "@survey/seed-{seed}/validation.csv"
test = "@survey/seed-{seed}/test.csv"
schema = "@survey/seed-{seed}/schema.toml"

[[stage.model]]
name = "ridge"
kind = "ridge"

[[stage.model]]
name = "stumps"
kind = "boosted_stumps"
rounds = 40

[[stage.model]]
name = "net"
kind = "mlp"
hidden = [8]

[[stage.guide]]
name = "experts"
lambda = [1.0]

[stage.guide.knowledge]
kind = "groups"
groups = [{ mass = 0.8, factors = ["primary 1", "primary 2"] }]

[[stage.guide]]
name = "agreed"
knowledge = { kind = "consensus", models = [{ kind = "ridge" }, { kind = "boosted_stumps" }] }

[[stage]]
name = "agree"
kind = "consistency"
seeds = [0, 1]
models = ["@fit/seed-{seed}/models/ridge", "@fit/seed-{seed}/models/stumps"]
data = "@survey/seed-{seed}/test.csv"
top = 2

[[stage]]
name = "claims"
kind = "claims"

[[stage.claim]]
says = "the primary factors come first"
figure = { of = "@fit", by = "ridge", curve = "top_above/truth" }
at_least = 1.0
every_seed = true

[[stage.claim]]
says = "of several the least is taken"
figure = { of = ["@fit", "@agree"], by = "all", curve = "tau", least = true }
at_most = { than = { of = "@fit", by = "all", curve = "tau" } }

[[stage.claim]]
says = "… and not the largest"
figure = { of = ["@fit", "@agree"], by = "all", curve = "tau", least = true }
below = { than = { of = ["@agree", "@fit"], by = "all", curve = "tau" } }

[[stage.claim]]
says = "no certified order is broken"
figure = { of = "@agree", by = "ridge and stumps", curve = "broken" }
at_most = 0.0
"#;

/// The finished run, made once.
fn fitted() -> &'static Path {
    static RUN: OnceLock<TempDir> = OnceLock::new();
    let home = RUN.get_or_init(|| {
        let home = folder();
        run(&home, RECIPE, &[]);
        home
    });
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| home.path().join("run"))
}

#[track_caller]
fn run(home: &TempDir, recipe: &str, extra: &[&str]) -> Ended {
    let file = text(home, "recipe.toml", recipe);
    let out = format!("output_dir={}", home.path().join("run").display());
    works(&[&["run", &file, &out][..], extra].concat())
}

fn at(inside: &str) -> String {
    fitted().join(inside).display().to_string()
}

fn names(result: &Value) -> Vec<&str> {
    result["models"].as_array().unwrap().iter().map(|model| model["name"].as_str().unwrap()).collect()
}

#[test]
fn every_network_stands_beside_itself_without_guidance() {
    let result = read(&fitted().join("fit/seed-1/factors.json"));
    assert_eq!(names(&result), ["ridge", "stumps", "net", "net-experts", "net-agreed"]);
    let [ridge, .., net, experts, agreed] = &result["models"].as_array().unwrap()[..] else {
        panic!("{result}")
    };
    assert!(ridge.get("training").is_none() && net["training"]["lambda"] == 0.0);
    let tried: Vec<f64> = experts["training"]["candidates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c[0].as_f64().unwrap())
        .collect();
    assert_eq!(tried, [0.0, 1.0], "0 is tried whether or not it is listed");
    assert_eq!(agreed["training"]["lambda"], 1.0, "the guidance's own weight");
    assert_eq!(experts["guide"], "experts");
    for model in result["models"].as_array().unwrap() {
        let shares: f64 =
            model["shares"].as_array().unwrap().iter().map(|s| s["value"].as_f64().unwrap()).sum();
        assert!((shares - 1.0).abs() < 1e-9, "{shares}");
        assert!(model["residual"].as_f64().unwrap() < 1e-3);
        for figure in
            ["mse", "accuracy", "kl/experts", "kl/agreed", "kl/truth", "tau/truth", "top_overlap/truth"]
        {
            assert!(model["metrics"][figure].is_f64(), "{figure}: {model}");
        }
    }
    let masses: Vec<f64> =
        result["knowledge"][0]["masses"].as_array().unwrap().iter().map(|m| m.as_f64().unwrap()).collect();
    // What the group leaves of 1 goes to the three factors it does not name.
    for (found, expected) in masses.iter().zip([0.4, 0.4, 0.2 / 3.0, 0.2 / 3.0, 0.2 / 3.0]) {
        assert!((found - expected).abs() < 1e-12, "{masses:?}");
    }
    assert_eq!(result["rows"]["validation"], 60);
    assert_eq!(result["rows"]["explained"], 50);
}

#[test]
fn a_model_s_folder_explains_rows_of_another_file_and_sums_are_scores() {
    let data = at("survey/seed-0/test.csv");
    for model in ["ridge", "stumps", "net-experts"] {
        let folder = at(&format!("fit/seed-0/models/{model}"));
        let found = works(&["factors", "explain", &folder, "--data", &data, "--rows", "7"]);
        let rows = found.json();
        assert_eq!(rows.len(), 7);
        for row in &rows {
            let added: f64 =
                row["attributions"].as_object().unwrap().values().map(|value| value.as_f64().unwrap()).sum();
            let score = row["score"].as_f64().unwrap();
            assert!((row["base"].as_f64().unwrap() + added - score).abs() < 1e-4, "{model}: {row}"); // networks are f32
        }
        found.says(&["primary 1", "importance", "7 rows"]);
    }
    let net = at("fit/seed-0/models/net");
    let csv = works(&[
        "factors",
        "explain",
        &net,
        "--data",
        &data,
        "--csv",
        "--method",
        "permutation",
        "--pairs",
        "2",
    ]);
    assert!(csv.out.starts_with("row,score,base,primary 1,primary 2,secondary 1,secondary 2,nuisance 1\n1,"));
    assert_eq!(csv.out.lines().count(), 201);
    csv.says(&["method permutation"]);
}

#[test]
fn labels_are_not_needed_to_explain() {
    let home = folder();
    let whole = fs::read_to_string(at("survey/seed-0/test.csv")).unwrap();
    let without: String =
        whole.lines().map(|line| format!("{}\n", line.rsplit_once(',').unwrap().0)).collect();
    let model = at("fit/seed-0/models/ridge");
    let explained = |data: &str| works(&["factors", "explain", &model, "--data", data]).out;
    assert_eq!(explained(&text(&home, "without.csv", &without)), explained(&at("survey/seed-0/test.csv")));
}

#[test]
fn agreement_is_printed_and_certified_on_common_rows() {
    let home = folder();
    let (fit, data) = (at("fit/seed-0"), at("survey/seed-0/test.csv"));
    let out = home.path().join("compare.json");
    let found = works(&[
        "factors",
        "compare",
        &fit,
        "--data",
        &data,
        "--top",
        "2",
        "--rows",
        "60",
        "--out",
        out.to_str().unwrap(),
    ]);
    assert!(found.out.contains("Kendall's τ") && found.out.contains("orders certified"), "{}", found.out);
    let compared = read(&out);
    assert_eq!(compared["models"].as_array().unwrap().len(), 5);
    assert_eq!(compared["pairs"].as_array().unwrap().len(), 10);
    for pair in compared["pairs"].as_array().unwrap() {
        assert_eq!(pair["broken"], 0, "{pair}");
    }
    let page = fs::read_to_string(home.path().join("compare.html")).unwrap();
    assert!(page.contains("above the diagonal Kendall") && page.contains("<svg"), "{page}");
    let stored = works(&["factors", "compare", &fit, "--top", "2"]);
    assert!(stored.out.contains("no orders are certified"), "{}", stored.out);
    align(&["factors", "compare", &fit, "--top", "6"]).refuses(&["`top` is 6, and there are 5 factors"]);
    align(&["factors", "compare", &at("fit/seed-0/models/ridge")]).refuses(&["expected two models at least"]);
    align(&["factors", "explain", &fit, "--data", &data]).refuses(&["holds several models", "models/"]);
    align(&["factors", "explain", &at("survey"), "--data", &data]).refuses(&["holds no models"]);
}

#[test]
fn a_run_is_claimed_and_drawn() {
    let claims = read(&fitted().join("claims/claims.json"));
    let held: Vec<bool> =
        claims["claims"].as_array().unwrap().iter().map(|claim| claim["holds"].as_bool().unwrap()).collect();
    assert_eq!(held, [true; 4], "{claims}");
    assert_eq!(claims["claims"][0]["seeds"], 2);
    let report = fs::read_to_string(fitted().join("report.html")).unwrap();
    for part in [
        "<h2>Factors: fit</h2>",
        "<h2>Consistency: agree</h2>",
        "share of each factor in a model's importances",
        "class=\"wish\"",
        "class=\"truth\"",
        "above the diagonal Kendall",
        "factors above those that are secondary to them in all models",
        "class=\"edge\"",
        "means over 2 seeds with 95 % intervals",
        "KL to its knowledge",
        "first 2 of truth",
    ] {
        assert!(report.contains(part), "{part}");
    }
    assert_eq!(report.matches("class=\"node\"").count(), 10, "five factors in each of two graphs");
    assert!(!report.contains("NaN") && !report.contains("inf\""));
}

#[test]
fn an_interrupted_fit_goes_on_with_the_models_that_are_not_there() {
    let home = folder();
    run(&home, RECIPE, &[]);
    let out = home.path().join("run");
    let finished = hashes(&out.join("fit/seed-0/models"));
    let kept = fs::metadata(out.join("fit/seed-0/models/ridge/model.json")).unwrap().modified().unwrap();
    // As a kill leaves it: one model and what stands at the end are missing.
    fs::remove_dir_all(out.join("fit/seed-0/models/net-experts")).unwrap();
    for file in ["stage.json", "factors.json", "figures.json"] {
        fs::remove_file(out.join("fit/seed-0").join(file)).unwrap();
    }
    let before = fs::read(fitted().join("fit/seed-0/factors.json")).unwrap();
    run(&home, RECIPE, &["--resume"]);
    assert_eq!(hashes(&out.join("fit/seed-0/models")), finished);
    assert_eq!(fs::read(out.join("fit/seed-0/factors.json")).unwrap(), before, "as in one go");
    let again = fs::metadata(out.join("fit/seed-0/models/ridge/model.json")).unwrap().modified().unwrap();
    assert_eq!(kept, again, "what was there is not made again");
    let changed = RECIPE.replace("steps = 120", "steps = 121");
    let file = text(&home, "recipe.toml", &changed);
    align(&["run", &file, &format!("output_dir={}", out.display()), "--resume"])
        .refuses(&["was begun with another recipe", "steps"]);
}

/// A recipe of one fit of answers in a file.
fn single(home: &TempDir, answers: &str, keys: &str) -> Vec<String> {
    let data = text(home, "answers.csv", answers);
    let recipe = format!(
        "output_dir = \"{}\"\ndata = {{ path = \"{data}\", schema = {{ label = \"happy\" }} }}\n{keys}",
        home.path().join("out").display()
    );
    let file = text(home, "recipe.toml", &recipe);
    ["factors", "fit", &file, "--overwrite"].map(str::to_owned).to_vec()
}

/// Forty people of two towns: age, town and happiness from 1 to 5.
fn people() -> String {
    let row = |at: usize| {
        let town = if at.is_multiple_of(3) { "north" } else { "south" };
        format!("{}.5,{town},{}\n", 20 + at, 1 + at % 5)
    };
    format!("age,town,happy\n{}", (0..40).map(row).collect::<String>())
}

const RIDGE: &str = "[[model]]\nname = \"ridge\"\nkind = \"ridge\"\n";

#[track_caller]
fn refused(answers: &str, keys: &str, parts: &[&str]) {
    let home = folder();
    let words = single(&home, answers, keys);
    align(&words.iter().map(String::as_str).collect::<Vec<_>>()).refuses(parts);
}

#[test]
fn a_recipe_that_is_mistyped_is_refused_with_its_key() {
    let people = people();
    let net = "[[model]]\nname = \"net\"\nkind = \"mlp\"\n";
    let guide = |keys: &str| format!("explain = {{ top = 2 }}\n{net}[[guide]]\nname = \"q\"\n{keys}\n");
    refused(&people, "", &["missing field `model`"]);
    refused(
        &people,
        "trainign = {}\n[[model]]\nname = \"a\"\nkind = \"ridge\"",
        &["`trainign`", "did you mean `training`?"],
    );
    refused(
        &people,
        "[[model]]\nname = \"a\"\nkind = \"rige\"",
        &["no kind of model is called `rige`", "`ridge`"],
    );
    refused(&people, "[[model]]\nname = \"a\"\nkind = \"mlp\"\nhiden = [3]", &["hiden", "hidden"]);
    refused(&people, &format!("{RIDGE}{RIDGE}"), &["two models would be called `ridge`"]);
    refused(&people, &format!("training = {{ seed = 3 }}\n{RIDGE}"), &["`training.seed`", "one seed"]);
    refused(
        &people,
        &format!("{RIDGE}[[guide]]\nname = \"q\"\nknowledge = {{ kind = \"uniform\" }}"),
        &["`guide", "only networks are guided"],
    );
    refused(
        &people,
        &guide("knowledge = { kind = \"uniform\" }\nlambda = -1.0"),
        &["`guide[0].lambda`", "lambda must be finite and >= 0, got -1"],
    );
    refused(
        &people,
        &guide("knowledge = { kind = \"teacher\", model = \"nett\" }"),
        &["no model is called `nett`; did you mean `net`?"],
    );
    refused(
        &people,
        &guide("knowledge = { kind = \"groups\", groups = [{ mass = 0.9, factors = [\"agee\"] }] }"),
        &["guide `q`", "knowledge names `agee`; the factors are `age`, `town`"],
    );
    refused(
        &people,
        &guide("knowledge = { kind = \"masses\", masses = { age = 0.5, town = 0.4 } }"),
        &["guide `q`", "must be non-negative and sum to 1 (sum 0.9"],
    );
    refused(
        &people,
        &format!("{RIDGE}\n[encoder]\nordinal = \"nubmer\""),
        &["ordinal", "did you mean `number`?"],
    );
    let home = folder();
    for (assignment, parts) in [
        ("data.validation=v.csv", ["`data.validation`", "`data.test` must be one too"]),
        ("data.split={train=0.9,validation=0.2,test=0.2}", ["`data.split`", "sum to 1"]),
    ] {
        let mut words = single(&home, &people, RIDGE);
        words.push(assignment.to_owned());
        align(&words.iter().map(String::as_str).collect::<Vec<_>>()).refuses(&parts);
    }
    refused(
        &people,
        &format!("explain = {{ top = 3 }}\n{RIDGE}"),
        &["`explain.top` is 3, and there are 2 factors"],
    );
}

#[test]
fn answers_that_cannot_be_used_say_where() {
    let model = format!("explain = {{ top = 1 }}\n{RIDGE}");
    let people = people();
    refused("", &model, &["answers.csv is empty"]);
    let (cut, _) = people.split_at(people.len() - 4);
    refused(cut, &model, &["answers.csv, line 41", "found 2"]);
    refused(&people.replace("happy", "hapy"), &model, &["no column `happy`"]);
    refused(
        &people.replace(",south,5\n", ",south,\n"),
        &model,
        &["the label `happy` is missing", "missing_label"],
    );
    // One factor is left, which has nothing to be compared with.
    let constant = people.replace("north", "south");
    let home = folder();
    let words = single(&home, &constant, &model);
    let ended = align(&words.iter().map(String::as_str).collect::<Vec<_>>());
    ended.refuses(&["importance distribution needs at least 2 factors"]);
    ended.says(&["column `town` is constant in the training rows and was left out"]);
    refused(
        &constant,
        &format!("encoder = {{ constant = \"refuse\" }}\n{model}"),
        &["column `town` is constant"],
    );
    let missing = single(&home, &people, &model);
    fs::remove_file(home.path().join("answers.csv")).unwrap();
    align(&missing.iter().map(String::as_str).collect::<Vec<_>>()).refuses(&["cannot read", "answers.csv"]);
}

#[test]
fn a_category_that_no_model_has_seen_is_named() {
    let home = folder();
    let words = single(&home, &people(), &format!("explain = {{ top = 1 }}\n{RIDGE}"));
    works(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let others = text(&home, "others.csv", "age,town\n30,south\n31,west\n");
    let model = home.path().join("out/models/ridge").display().to_string();
    align(&["factors", "explain", &model, "--data", &others])
        .refuses(&["row 1, column `town`: category `west` does not occur in the training rows"]);
    align(&["factors", "explain", &model, "--data", path(&home)]).refuses(&["cannot read"]);
    align(&["factors", "explain", &model, "--data", &others, "--method", "exakt"])
        .refuses(&["--method exakt", "`exact`"]);
    let south = text(&home, "south.csv", "age,town\n30,south\n");
    align(&["factors", "explain", &model, "--data", &south, "--method", "tree_path"])
        .refuses(&["Unsuitable: tree_path needs a sum of trees"]);
}
