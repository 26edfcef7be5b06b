//! Rendered dialogues equal those of transformers (`fixtures/templates/make.py` made them and records versions).

use std::path::{Path, PathBuf};

use align_data::{
    ChatTemplate, FromRow, HfTokenizer, Message, PreferenceRow, ReadOptions, RenderOptions, Tokenizer,
    rows::parse_hh_dialogue,
};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

fn fixtures() -> PathBuf {
    align_testkit::fixtures::path("templates")
}

fn expected() -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixtures().join("expected.json")).unwrap()).unwrap()
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[test]
fn every_template_renders_every_dialogue_as_transformers_does() {
    let expected = expected();
    let day: Vec<i64> =
        expected["day"].as_array().unwrap().iter().map(|part| part.as_i64().unwrap()).collect();
    let mut wrong = Vec::new();
    for case in expected["cases"].as_array().unwrap() {
        let name = case["template"].as_str().unwrap();
        let source = std::fs::read_to_string(fixtures().join(format!("{name}.jinja"))).unwrap();
        let template = ChatTemplate::new(&source, object(&expected["variables"][name])).unwrap().with_date(
            day[0],
            day[1] as u32,
            day[2] as u32,
        );
        let messages: Vec<Message> =
            serde_json::from_value(expected["dialogues"][case["dialogue"].as_str().unwrap()].clone())
                .unwrap();
        let extra = case.get("extra").map(object);
        let options = RenderOptions {
            add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap(),
            tools: case.get("tools"),
            variables: extra.as_ref(),
        };
        let found = template.render_marked(&messages, &options);
        let label = format!("{name}, {}, {}", case["dialogue"], options.add_generation_prompt);
        match (case.get("text"), found) {
            (Some(text), Ok(found)) => {
                if text != &found.text {
                    wrong.push(format!("{label}\nexpected {text}\nfound    {:?}", found.text));
                }
                if let Some(spans) = case.get("generation") {
                    let found = found.generation.unwrap_or_default();
                    let found: Vec<Vec<usize>> =
                        found.iter().map(|span| vec![span.start, span.end]).collect();
                    if spans != &serde_json::json!(found) {
                        wrong.push(format!("{label}\nexpected spans {spans}, found {found:?}"));
                    }
                }
            }
            (None, Err(error)) => {
                let words = case["error"].as_str().unwrap();
                if !error.to_string().contains(words) {
                    wrong.push(format!("{label}\nexpected the error {words:?}, found {error}"));
                }
            }
            (Some(_), Err(error)) => wrong.push(format!("{label}\nexpected text, found the error {error}")),
            (None, Ok(found)) => wrong.push(format!("{label}\nexpected an error, found {:?}", found.text)),
        }
    }
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn ids_of_real_dialogues_equal_those_of_transformers() {
    let Some(shared) = align_testkit::fixtures::shared() else { return };
    let expected = expected()["shared_ids"].clone();
    let folder = shared.join("models/chat-0.4M");
    let tokenizer = HfTokenizer::from_folder(&folder).unwrap();
    let template = ChatTemplate::from_folder(&folder, tokenizer.template_variables()).unwrap().unwrap();
    let rows = raw_rows(&shared.join("data/hh-harmless-test.jsonl.gz"));
    let (mut digest, mut tokens) = (Sha256::new(), 0);
    for index in expected["rows"].as_array().unwrap() {
        let messages = parse_hh_dialogue(&rows[index.as_u64().unwrap() as usize]).unwrap();
        let text = template.render(&messages, &RenderOptions::default()).unwrap();
        let ids = tokenizer.encode_with_prefix(&text).unwrap().ids;
        tokens += ids.len() as u64;
        ids.iter().for_each(|id| digest.update(id.to_le_bytes()));
    }
    assert_eq!(expected["tokens"].as_u64().unwrap(), tokens);
    let hex: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(expected["sha256"].as_str().unwrap(), hex);
}

/// The `chosen` column as it stands.
fn raw_rows(path: &Path) -> Vec<String> {
    struct Chosen(String);
    impl FromRow for Chosen {
        const KIND: &'static str = "chosen";
        fn from_row(row: &Map<String, Value>) -> Result<Self, align_data::RowProblem> {
            Ok(Self(row["chosen"].as_str().unwrap().to_string()))
        }
        fn prompt(&self) -> Option<&align_data::Dialogue> {
            None
        }
    }
    align_data::read_rows::<Chosen>(path, &ReadOptions::default())
        .unwrap()
        .rows
        .into_iter()
        .map(|row| row.0)
        .collect()
}

#[test]
fn real_pairs_are_read_whole() {
    let Some(shared) = align_testkit::fixtures::shared() else { return };
    let options = ReadOptions { skip_bad_rows: true, ..Default::default() };
    let hh = align_data::read_rows::<PreferenceRow>(&shared.join("data/hh-harmless-test.jsonl.gz"), &options)
        .unwrap();
    // 2312 rows in the file; those passed over are pairs with an empty answer or without two different ones.
    assert_eq!(hh.rows.len() + hh.skipped.count, 2312);

    assert!(hh.skipped.count < 2312 / 50, "{}", hh.skipped);
    let alpaca =
        align_data::read_rows::<PreferenceRow>(&shared.join("data/alpaca-eval-pairs.jsonl.gz"), &options)
            .unwrap();
    assert_eq!(alpaca.rows.len() + alpaca.skipped.count, 4830);

    assert!(alpaca.rows.iter().all(|row| (0.0..=1.0).contains(&row.margin)));
}
