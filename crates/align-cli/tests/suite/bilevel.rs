//! Bilevel optimisation from outside: cleaned pairs, solvers, coefficients and rewards, and what is refused.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::preferences::read;
use crate::resume::{kill_when, lines};
use crate::tiny::{Ended, align, at, folder, hashes, rows, text, works};

/// A cleaning of the tiny run's pairs, with lines of its own behind it.
fn cleaning(files: &TempDir, out: &str, extra: &str) -> String {
    let recipe = format!(
        "output_dir = \"{}\"\nmodel = \"{}\"\ndata = {{ path = \"{}\", held_out = 0.2 }}\n\
         training = {{ max_steps = 3, minibatch = 8, microbatch = 8 }}\noptimizer = {{ learning_rate = 1e-3 }}\n{extra}",
        files.path().join(out).display(),
        at("sft-a/model"),
        at("world/preferences.jsonl"),
    );
    text(files, &format!("{out}.toml"), &recipe)
}

/// A quarter of the labels wrong, and a few steps against a share of trusted prompts.
const FLIPPED: &str = "trusted_share = 0.3\nlabel_noise = { share = 0.25, seed = 3 }\narms = [\"all\", \"trusted\", \"confident\", \"right\"]\n\
                       cleaning = { outer_steps = 5, inner_steps = 2, batch = 8 }\n";

fn clean(recipe: &str, overrides: &[&str]) -> Ended {
    align(&[&["bilevel", "clean", recipe][..], overrides].concat())
}

fn jsonl(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_cleaning_leaves_weights_rows_models_and_a_report() {
    let files = folder();
    let recipe = cleaning(&files, "out", FLIPPED);
    works(&["bilevel", "clean", &recipe]);
    let out = files.path().join("out");
    let found = read(&out.join("cleaning.json"));
    let weights = jsonl(&out.join("weights.jsonl"));
    let labelled = jsonl(&out.join("labelled.jsonl"));
    assert_eq!((found["pairs"].as_u64().unwrap() as usize, labelled.len()), (weights.len(), weights.len()));

    // Exactly a quarter of the labels is wrong, and each row says which one it was in the file.
    let original = jsonl(Path::new(&at("world/preferences.jsonl")));
    for (line, row) in weights.iter().zip(&labelled) {
        let before = &original[line["row"].as_u64().unwrap() as usize - 1];
        let flipped = line["flipped"] == true;
        let expected = if flipped { ("rejected", "chosen") } else { ("chosen", "rejected") };
        assert_eq!((&row["chosen"], &row["rejected"]), (&before[expected.0], &before[expected.1]));
    }
    let flipped = weights.iter().filter(|line| line["flipped"] == true).count();
    assert_eq!(flipped, (0.25 * weights.len() as f64).round() as usize);

    // What is kept are the labelled rows of enough weight; what an oracle and what confidence keep is as many as are right.
    let heavy = weights.iter().zip(&labelled).filter(|(line, _)| line["weight"].as_f64().unwrap() >= 0.5);
    assert_eq!(jsonl(&out.join("kept.jsonl")), heavy.map(|(_, row)| row.clone()).collect::<Vec<_>>());
    let right = weights.iter().zip(&labelled).filter(|(line, _)| line["flipped"] == false);
    assert_eq!(jsonl(&out.join("clean.jsonl")), right.map(|(_, row)| row.clone()).collect::<Vec<_>>());
    assert_eq!(jsonl(&out.join("filtered.jsonl")).len(), weights.len() - flipped);

    let arms: Vec<&str> =
        found["arms"].as_array().unwrap().iter().map(|arm| arm["name"].as_str().unwrap()).collect();
    assert_eq!(arms, ["all", "trusted", "confident", "right", "cleaned"]);
    assert!(
        found["arms"]
            .as_array()
            .unwrap()
            .iter()
            .all(|arm| arm["accuracy"].is_number() && arm["nll"].is_number())
    );
    assert_eq!(lines(&out.join("cleaning/metrics.jsonl")), 5);
    let step = &jsonl(&out.join("cleaning/metrics.jsonl"))[0];
    for metric in
        ["hyper_gradient", "sigma", "residual", "calls", "mean_weight", "effective_sample_size", "auc"]
    {
        assert!(step[format!("clean/{metric}")].is_number(), "{metric}: {step}");
    }
    let scored = works(&[
        "score",
        "--model",
        out.join("model").to_str().unwrap(),
        "--data",
        &at("world/preferences.jsonl"),
    ]);
    assert_eq!(scored.json().last().unwrap()["pairs"], 64);
    let report = fs::read_to_string(out.join("report.html")).unwrap();
    for part in [
        "Cleaned data",
        "weights of the pairs",
        "flipped labels",
        "AUC of the weights against flipped labels",
    ] {
        assert!(report.contains(part), "{part}");
    }
    let spelt_out = fs::read_to_string(out.join("recipe.toml")).unwrap();
    for key in ["threshold", "ridge", "outer_steps", "kind = \"pair\""] {
        assert!(spelt_out.contains(key), "{key} in {spelt_out}");
    }
}

#[test]
fn a_cleaning_resumes_bit_for_bit_after_a_kill() {
    let files = folder();
    let extra = "checkpoint_every = 4\ntrusted_share = 0.3\narms = [\"all\"]\n\
                 cleaning = { outer_steps = 12, inner_steps = 3, batch = 8 }\n";
    let straight = cleaning(&files, "straight", extra);
    works(&["bilevel", "clean", &straight]);

    let broken = cleaning(&files, "broken", extra);
    let out = files.path().join("broken");
    let metrics = out.join("cleaning/metrics.jsonl");
    kill_when(&["bilevel", "clean", &broken], || {
        out.join("cleaning/checkpoints/checkpoint-4").exists() && lines(&metrics) >= 5
    });
    assert!(!out.join("model").exists(), "it was killed before its end");
    clean(&broken, &["--resume"]).says(&["clean all: done already", "going on after step"]);
    assert_eq!(lines(&metrics), 12, "each step stands in the log once");
    let [one, other] = ["straight", "broken"].map(|out| files.path().join(out));
    for file in ["weights.jsonl", "kept.jsonl", "cleaning.json", "figures.json"] {
        assert_eq!(fs::read(one.join(file)).unwrap(), fs::read(other.join(file)).unwrap(), "{file}");
    }
    assert_eq!(hashes(&one.join("model")), hashes(&other.join("model")));
    clean(&broken, &["--resume"]).says(&["done already"]);
    clean(&broken, &["--resume", "ridge=0.5"]).refuses(&["begun with another recipe", "ridge"]);
}

#[test]
fn sources_have_shares_that_sum_to_one() {
    let files = folder();
    let all = jsonl(Path::new(&at("world/preferences.jsonl")));
    let named: Vec<Value> = all
        .into_iter()
        .enumerate()
        .map(|(at, mut row)| {
            row["source"] = json!(if at % 3 == 0 { "forum" } else { "staff" });
            row
        })
        .collect();
    let data = rows(&files, "named.jsonl", &named);
    let extra = "trusted_share = 0.3\narms = []\nweights = { kind = \"source\", column = \"source\" }\n\
                 cleaning = { outer_steps = 3, inner_steps = 2, batch = 8 }\n";
    let recipe = cleaning(&files, "out", extra);
    let by_file =
        |overrides: &[&str]| clean(&recipe, &[&[&format!("data.path={data}")[..]], overrides].concat());
    assert_eq!(by_file(&[]).code, Some(0));
    let found = read(&files.path().join("out/cleaning.json"));
    let shares: Vec<f64> =
        found["sources"].as_array().unwrap().iter().map(|source| source["share"].as_f64().unwrap()).collect();
    assert_eq!(shares.len(), 2);
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    let weights: BTreeSet<String> = jsonl(&files.path().join("out/weights.jsonl"))
        .iter()
        .map(|line| line["weight"].to_string())
        .collect();
    assert_eq!(weights.len(), 2, "all pairs of a source weigh the same");
    by_file(&["weights.column=topic", "--overwrite"]).refuses(&["`weights.column`", "has no column `topic`"]);
}

#[test]
fn cleanings_that_cannot_be_say_why() {
    let files = folder();
    let recipe = cleaning(&files, "out", "");
    let refused = |overrides: &[&str], parts: &[&str]| {
        clean(&recipe, &[overrides, &["--overwrite"]].concat()).refuses(parts);
    };
    refused(&[], &["`trusted`", "give `trusted` pairs, or a `trusted_share`"]);
    let pairs = at("world/preferences.jsonl");
    let trusted = format!("trusted.path={pairs}");
    refused(&[&trusted, "trusted_share=0.1"], &["`trusted_share`", "found both"]);
    refused(&[&trusted], &["InvalidSplit", "trusted pairs are to be cleaned too", "row"]);
    // The same pair with the other label is the same pair.
    let exchanged: Vec<Value> = jsonl(Path::new(&pairs))
        .into_iter()
        .map(|row| json!({ "prompt": row["prompt"], "chosen": row["rejected"], "rejected": row["chosen"] }))
        .collect();
    let exchanged = rows(&files, "exchanged.jsonl", &exchanged);
    refused(&[&format!("trusted.path={exchanged}")], &["InvalidSplit", "are to be cleaned too"]);
    refused(&["trusted.path=no/such.jsonl"], &["no/such.jsonl", "is not a path that exists"]);
    refused(&["trusted_share=0.3", "data.paht=x"], &["`data.paht`", "did you mean `path`?"]);
    refused(
        &["trusted_share=0.3", "cleaning.inner_step_size=1"],
        &["`cleaning.inner_step_size`", "unknown field"],
    );
    refused(&["trusted_share=0.3", "ridge=0.0"], &["`ridge`", "a finite number > 0"]);
    refused(&["trusted_share=0.3", "arms=[\"right\"]"], &["`arms`", "label_noise"]);
    refused(&["trusted_share=0.3", "weights.kind=source"], &["`weights`", "`column`"]);
    refused(&["trusted_share=0.3", "start=model", "cleaning.batch=500"], &["InvalidCount", "500"]);
    let sigma = |value: &str| format!("cleaning.sigma={{ kind = \"constant\", value = {value} }}");
    for value in ["0.0", "-1.0", "1e-6"] {
        // In f32 the difference of two losses is rounding below a ten-thousandth.
        refused(
            &["trusted_share=0.3", "start=model", &sigma(value)],
            &["InvalidPenalty: sigma must be finite and >"],
        );
    }
}

/// A race of two solvers that takes no time.
const RACE: &str = "problem = \"scalar\"\neps = [1e-1, 1e-2]\nbudget = 2000\n\
    [[solver]]\nname = \"ours\"\nsigma_per_eps = 0.3\nsettings = { kind = \"double_loop\", gamma = { kind = \"constant\", value = 0.5 } }\n\
    [[solver]]\nname = \"implicit\"\nsettings = { kind = \"implicit\", inner_step = 0.5 }\n";

#[test]
fn solvers_are_compared_by_calls_and_drawn() {
    let files = folder();
    let recipe =
        text(&files, "r.toml", &format!("output_dir = \"{}\"\n{RACE}", files.path().join("out").display()));
    let said = works(&["bilevel", "bench", &recipe]);
    assert!(said.out.contains("ε = 0.01") && said.out.contains("implicit"), "{}", said.out);
    let found = read(&files.path().join("out/solvers.json"));
    for solver in found["solvers"].as_array().unwrap() {
        let needed: Vec<u64> =
            solver["needed"].as_array().unwrap().iter().map(|calls| calls.as_u64().unwrap()).collect();
        assert!(needed[0] <= needed[1] && needed[1] <= 2000, "{needed:?}");
        for (run, eps) in solver["runs"].as_array().unwrap().iter().rev().zip([0.01]) {
            assert!(run["stationarity"].as_f64().unwrap() <= eps);
        }
    }
    let report = fs::read_to_string(files.path().join("out/report.html")).unwrap();
    assert!(report.contains("norm of the true hyper-gradient") && report.contains("<polyline"));

    let refused = |overrides: &[&str], parts: &[&str]| {
        align(&[&["bilevel", "bench", &recipe, "--overwrite"][..], overrides].concat()).refuses(parts);
    };
    refused(&["ours.settings.gama=1"], &["`solver[0].settings.gama`", "did you mean `gamma`?"]);
    refused(&["ours.settings.kind=tripple_loop"], &["`solver[0].settings", "double_loop"]);
    refused(&["implicit.sigma_per_eps=0.3"], &["`implicit`", "for methods with a penalty"]);
    refused(&["ours.sigma_per_eps=1e-9"], &["InvalidPenalty"]);
    refused(&["x=[1.0, 2.0]"], &["`x` has 2 numbers, and `scalar` needs 1"]);
    refused(&["kind=bias"], &["`align bilevel bench` runs recipes of kind \"solvers\""]);
}

#[test]
fn a_coefficient_is_tuned_and_a_reward_is_designed() {
    let files = folder();
    let out = |name: &str| files.path().join(name);
    let table = "table = { reference = [[0.5, 0.3, 0.2]] }\n";
    let tune = format!(
        "output_dir = \"{}\"\n{table}proxy = \"{}\"\ngold = [[0.0, 1.0, 0.3]]\n",
        out("tuned").display(),
        text(&files, "proxy.json", "[[0.0, 1.0, 2.0]]")
    );
    let tune = text(&files, "tune.toml", &tune);
    works(&["bilevel", "tune", &tune]);
    for tuned in read(&out("tuned/coefficient.json"))["tuned"].as_array().unwrap() {
        // The optimum of the penalised objective at σ = 0.01.
        assert!((tuned["beta"].as_f64().unwrap() - 0.992_097_15).abs() < 1e-5, "{tuned}");
    }
    let report = fs::read_to_string(out("tuned/report.html")).unwrap();
    assert!(report.contains("gold reward of the policy at β") && report.contains("β on the way"));
    align(&["bilevel", "tune", &tune, "--overwrite", "gold=[[0.0, 1.0]]"])
        .refuses(&["`gold`: row 1 has 2 numbers, expected 3"]);
    align(&["bilevel", "tune", &tune, "--overwrite", "proxy=nowhere.json"])
        .refuses(&["`proxy`", "nowhere.json"]);
    align(&["bilevel", "tune", &tune, "--overwrite", "tuning.sigma=0.0"])
        .refuses(&["`tuning.sigma`", "a finite number > 0"]);
    align(&["bilevel", "tune", &tune, "--overwrite", "table.reference=[[0.5, 0.3, 0.3]]"]).refuses(&[
        "`table`",
        "InvalidDistribution",
        "a sum of 1.1",
    ]);

    let design = format!(
        "output_dir = \"{}\"\n{table}beta = 0.5\nobjective = {{ kind = \"demonstrations\", shares = [[0.2, 0.5, 0.3]] }}\n",
        out("designed").display()
    );
    let design = text(&files, "design.toml", &design);
    works(&["bilevel", "design", &design]);
    let found = read(&out("designed/reward_design.json"));
    for (found, wanted) in found["policy"].as_array().unwrap().iter().zip([0.2, 0.5, 0.3]) {
        assert!((found.as_f64().unwrap() - wanted).abs() < 1e-5);
    }
    assert!(
        fs::read_to_string(out("designed/report.html")).unwrap().contains("policy of the designed reward")
    );
    align(&["bilevel", "design", &design, "--overwrite", "objective.shares=[[0.2, 0.5, 0.4]]"])
        .refuses(&["`objective.shares`", "sums to 1"]);
    align(&["bilevel", "design", &design, "--overwrite", "objective.kind=demonstration"])
        .refuses(&["`objective", "demonstrations"]);
}

#[test]
fn the_bias_is_measured_and_its_figures_can_be_claimed() {
    let files = folder();
    let run = files.path().join("run");
    let recipe = format!(
        "title = \"x\"\noutput_dir = \"{}\"\n[[stage]]\nname = \"bias\"\nkind = \"bias\"\n\
         cases = [{{ problem = \"scalar\" }}, {{ problem = \"vector\", difference = \"central\" }}]\n\
         [[stage]]\nname = \"cleaning\"\nkind = \"linear_cleaning\"\nworlds = 2\nworld = {{ features = 5, training = 80, trusted = 60, test = 200 }}\n\
         cleaning = {{ outer_steps = 10 }}\n\
         [[stage]]\nname = \"claims\"\nkind = \"claims\"\n\
         [[stage.claim]]\nsays = \"first order\"\nfigure = {{ of = \"@bias\", by = \"scalar\", curve = \"slope\" }}\nat_most = 1.1\n\
         [[stage.claim]]\nsays = \"second order\"\nfigure = {{ of = \"@bias\", by = \"vector, central\", curve = \"slope\" }}\nat_least = 1.9\n\
         [[stage.claim]]\nsays = \"the control vanishes\"\nfigure = {{ of = \"@bias\", by = \"control\", curve = \"gap\" }}\nat_most = 0.2\n\
         [[stage.claim]]\nsays = \"by world\"\nfigure = {{ of = \"@cleaning\", by = \"weights\", curve = \"auc\" }}\nat_least = 0.5\n",
        run.display()
    );
    let recipe = text(&files, "r.toml", &recipe);
    works(&["run", &recipe]);
    let claims = read(&run.join("claims/claims.json"));
    let held: Vec<bool> =
        claims["claims"].as_array().unwrap().iter().map(|claim| claim["holds"].as_bool().unwrap()).collect();
    assert_eq!(held, [true, true, false, true], "{claims}");
    assert_eq!(claims["claims"][3]["seeds"], 2, "a figure for every world");
    let report = fs::read_to_string(run.join("report.html")).unwrap();
    for part in [
        "Bias of the penalty",
        "error of the penalised hyper-gradient",
        "Cleaning with a known answer",
        "weights in world 0",
    ] {
        assert!(report.contains(part), "{part}");
    }
    assert!(!report.contains("NaN"));
    let refused = |overrides: &[&str], parts: &[&str]| {
        align(&[&["run", &recipe, "--overwrite"][..], overrides].concat()).refuses(parts);
    };
    refused(
        &["bias.cases=[{ problem = \"skalar\" }]"],
        &["`stage[0].cases[0].problem.skalar`", "did you mean `scalar`?"],
    );
    refused(&["bias.sigmas=[0.1]"], &["`sigmas` has 1 entries"]);
    refused(&["bias.sigmas=[0.1, 0.0]"], &["`stage[0].sigmas[1]`", "a finite number > 0"]);
    refused(&["cleaning.worlds=0"], &["`stage[1].worlds`", "expected at least 1, found 0"]);
    refused(&["bias.control=false"], &["“the control vanishes”", "there is no `by` `control`"]);
}
