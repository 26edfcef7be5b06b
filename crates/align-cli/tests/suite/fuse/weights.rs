//! The experts' weights: written, drawn over the text, the same for an answer given as for the same answer drawn.

use std::fs;

use serde_json::{Value, json};

use super::{PROMPT, experts, fusion};
use crate::tiny::{align, folder, rows, works};

/// What a folder of weights holds, an answer a line.
fn written(folder: &std::path::Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("weights.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_answer_has_the_weights_it_was_drawn_with() {
    let files = folder();
    let file = fusion(&files, "both.toml", &experts());
    let explained = |name: &str, args: &[&str]| {
        let out = files.path().join(name);
        let said = works(&[&["fuse", "explain", &file, "--out", out.to_str().unwrap()], args].concat());
        for part in ["first", "second", "mean weight", "at bound", "weights.jsonl", "report.html"] {
            assert!(said.out.contains(part), "expected `{part}` in:\n{}", said.out);
        }
        (written(&out), fs::read_to_string(out.join("report.html")).unwrap())
    };
    let (drawn, page) = explained("drawn", &["--prompt", PROMPT, "--max-new-tokens", "8", "--seed", "4"]);
    assert_eq!(drawn.len(), 1);
    let answer = &drawn[0];
    assert_eq!(answer["experts"], json!(["first", "second"]));
    assert_eq!((&answer["fusion"], &answer["prompt"]), (&json!("both"), &json!(PROMPT)));
    let tokens = answer["tokens"].as_array().unwrap();
    assert!((4..=8).contains(&tokens.len()), "{answer}");
    let said: String = tokens.iter().map(|token| token["token"].as_str().unwrap()).collect();
    for token in tokens {
        let weights: Vec<f64> =
            token["weights"].as_array().unwrap().iter().map(|weight| weight.as_f64().unwrap()).collect();
        let expert = token["expert"].as_u64().unwrap() as usize;
        // One at a time: the other's weight is 0, and none leaves the range of the search.
        assert_eq!(weights[1 - expert], 0.0, "{token}");
        assert!((0.0..=2.0).contains(&weights[expert]), "{token}");
        for number in ["f", "g", "a", "b", "loss"] {
            assert!(token[number].as_f64().unwrap() >= 0.0, "{number}: {token}");
        }
        assert!(token["saturated"].is_boolean() && token["skipped"].is_boolean(), "{token}");
    }
    assert_eq!(
        page.matches("<span class=\"t ").count(),
        tokens.len() + 2,
        "tokens and two marks of the legend"
    );

    // The same answer given: without the token that ended it, if one did.
    let completion = said.replace("<|eos|>", "");
    let (given, _) = explained("given", &["--prompt", PROMPT, "--completion", completion.trim()]);
    let again = given[0]["tokens"].as_array().unwrap();
    let common = again.len().min(tokens.len()) - 1;
    assert!(common >= 3, "{given:?}");
    for (found, expected) in again.iter().zip(tokens).take(common) {
        assert_eq!((&found["id"], &found["expert"]), (&expected["id"], &expected["expert"]));
        let [found, expected] = [found, expected]
            .map(|token| token["weights"][token["expert"].as_u64().unwrap() as usize].as_f64().unwrap());
        // Rounding of a forward pass with and without a cache, seen through the search.
        assert!((found - expected).abs() < 1e-2, "{found}, expected {expected}");
    }
}

#[test]
fn rows_of_a_file_are_explained_with_their_completions_or_answered() {
    let files = folder();
    let file = fusion(&files, "both.toml", &experts());
    let data = rows(
        &files,
        "rows.jsonl",
        &[
            json!({ "prompt": PROMPT, "completion": "a green meal" }),
            json!({ "prompt": "please plan a meal" }),
        ],
    );
    let out = files.path().join("out");
    works(&[
        "fuse",
        "explain",
        &file,
        "--data",
        &data,
        "--out",
        out.to_str().unwrap(),
        "--max-new-tokens",
        "3",
    ]);
    let found = written(&out);
    assert_eq!(found.len(), 2);
    let text = |row: &Value| -> String {
        row["tokens"].as_array().unwrap().iter().map(|token| token["token"].as_str().unwrap()).collect()
    };
    assert!(text(&found[0]).contains("a green meal"), "{}", found[0]);
    assert!(found[1]["tokens"].as_array().unwrap().len() <= 3);
    let both = ["--data", &data, "--prompt", "a"];
    let ended = align(&[&["fuse", "explain", &file, "--out", "x"], &both[..]].concat());
    assert_eq!(ended.code, Some(2), "{}", ended.err);
}

#[test]
fn static_weights_are_the_same_everywhere() {
    let files = folder();
    let weighing = "weighing = { kind = \"static\", weights = [0.5, -0.25] }\n";
    let file = fusion(&files, "static.toml", &format!("{weighing}{}", experts()));
    let out = files.path().join("out");
    let out = out.to_str().unwrap();
    works(&["fuse", "explain", &file, "--prompt", PROMPT, "--out", out, "--max-new-tokens", "4"]);
    for token in written(out.as_ref())[0]["tokens"].as_array().unwrap() {
        assert_eq!((&token["weights"], &token["expert"]), (&json!([0.5, -0.25]), &Value::Null));
    }
}
