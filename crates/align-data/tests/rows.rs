//! Formats and column conventions become the same rows.

use std::{io::Write, path::Path};

use align_data::{
    DemonstrationRow, Dialogue, FromRow, LabelledRow, Message, PreferenceRow, PromptRow, ReadOptions, Role,
    RowProblem, StepwiseRow, read_rows, rows::parse_hh_dialogue,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn row<T: FromRow>(value: Value) -> Result<T, RowProblem> {
    T::from_row(value.as_object().unwrap())
}

fn turns(turns: &[(Role, &str)]) -> Dialogue {
    Dialogue::Messages(turns.iter().map(|(role, content)| Message::new(*role, *content)).collect())
}

use Role::{Assistant, System, User};

#[test]
fn every_convention_of_pairs_gives_the_same_row() {
    let expected = PreferenceRow {
        prompt: turns(&[(User, "Hi")]),
        chosen: turns(&[(Assistant, "Hello!")]),
        rejected: turns(&[(Assistant, "What?")]),
        margin: 0.0,
    };
    let (user, good, bad) = (
        json!({"role": "user", "content": "Hi"}),
        json!({"role": "assistant", "content": "Hello!"}),
        json!({"role": "assistant", "content": "What?"}),
    );
    for (name, value) in [
        ("conversational", json!({"prompt": [user], "chosen": [good], "rejected": [bad]})),
        ("implicit prompt", json!({"chosen": [user, good], "rejected": [user, bad]})),
        ("prompt repeated", json!({"prompt": [user], "chosen": [user, good], "rejected": [user, bad]})),
        ("text prompt", json!({"prompt": "Hi", "chosen": [user, good], "rejected": [user, bad]})),
        (
            "HH",
            json!({"chosen": "\n\nHuman: Hi\n\nAssistant: Hello!", "rejected": "\n\nHuman: Hi\n\nAssistant: What?"}),
        ),
        (
            "parts",
            json!({"prompt": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], "chosen": good, "rejected": bad}),
        ),
        (
            "NeMo",
            json!({"context": [user], "completions": [{"rank": 1, "completion": [bad]}, {"rank": 0, "completion": [good]}], "task_name": "x"}),
        ),
        (
            "nulls of Parquet",
            json!({"prompt": [{"role": "user", "content": "Hi", "name": null}], "chosen": [good], "rejected": [bad], "margin": null}),
        ),
    ] {
        assert_eq!(row::<PreferenceRow>(value), Ok(expected.clone()), "{name}");
    }
}

#[test]
fn plain_pairs_keep_their_text_and_share_whole_words() {
    let explicit: PreferenceRow =
        row(json!({"prompt": "The sky is", "chosen": " blue.", "rejected": " green.", "margin": 0.5}))
            .unwrap();
    let shared: PreferenceRow =
        row(json!({"chosen": "The sky is blue.", "rejected": "The sky is black."})).unwrap();
    assert_eq!(explicit.prompt, Dialogue::Text("The sky is".into()));
    assert_eq!((explicit.margin, &explicit.chosen), (0.5, &Dialogue::Text(" blue.".into())));
    // `bl` is shared too, but is no word.
    assert_eq!((shared.prompt, shared.rejected), (explicit.prompt, Dialogue::Text(" black.".into())));
}

#[test]
fn the_shared_prompt_ends_where_the_assistant_answers_on_both_sides() {
    // The second answer is the same on both sides; what differs is the third.
    let start = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c";
    let pair: PreferenceRow = row(json!({
        "chosen": format!("{start}\n\nAssistant: d\n\nHuman: e\n\nAssistant: f"),
        "rejected": format!("{start}\n\nAssistant: x"),
    }))
    .unwrap();
    assert_eq!(pair.prompt, turns(&[(User, "a"), (Assistant, "b"), (User, "c")]));
    assert_eq!(pair.chosen, turns(&[(Assistant, "d"), (User, "e"), (Assistant, "f")]));
    assert_eq!(pair.rejected, turns(&[(Assistant, "x")]));
}

#[test]
fn hh_dialogues_come_apart_into_turns() {
    let text =
        "\n\nHuman: one\n\nstill one\n\nAssistant: two: Human: no marker\n\nHuman: three\n\nAssistant:";
    let Dialogue::Messages(expected) = turns(&[
        (User, "one\n\nstill one"),
        (Assistant, "two: Human: no marker"),
        (User, "three"),
        (Assistant, ""),
    ]) else {
        unreachable!()
    };
    assert_eq!(parse_hh_dialogue(text), Some(expected.clone()));
    assert_eq!(parse_hh_dialogue(text.trim_start()), Some(expected));
    assert_eq!(
        parse_hh_dialogue("Human: is a word\n\nno dialogue"),
        Some(vec![Message::new(User, "is a word\n\nno dialogue")])
    );
    assert_eq!(parse_hh_dialogue("The Human: no"), None);
    let twice = parse_hh_dialogue("\n\nHuman: a\n\nHuman: b\n\nAssistant: c").unwrap();
    assert_eq!(twice, [Message::new(User, "a\n\nb"), Message::new(Assistant, "c")]);
}

#[test]
fn demonstrations_come_from_every_column_that_holds_one() {
    let completion = DemonstrationRow::Completion {
        prompt: turns(&[(User, "Hi")]),
        completion: turns(&[(Assistant, "Hello!")]),
    };
    let messages = DemonstrationRow::Messages {
        messages: vec![
            Message::new(System, "s"),
            Message::new(User, "Hi"),
            Message::new(Assistant, "Hello!"),
        ],
        tools: None,
    };
    let hi = json!({"role": "user", "content": "Hi"});
    for (name, value, expected) in [
        (
            "chosen",
            json!({"chosen": "\n\nHuman: Hi\n\nAssistant: Hello!", "rejected": "\n\nHuman: Hi\n\nAssistant: No"}),
            completion.clone(),
        ),
        (
            "messages",
            json!({"messages": [{"role": "system", "content": "s"}, hi, {"role": "assistant", "content": "Hello!"}]}),
            messages.clone(),
        ),
        (
            "ShareGPT",
            json!({"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]}),
            messages,
        ),
        ("completion", json!({"prompt": [hi], "completion": "Hello!"}), completion),
        ("text", json!({"text": "Once"}), DemonstrationRow::Text { text: "Once".into() }),
    ] {
        assert_eq!(row::<DemonstrationRow>(value), Ok(expected), "{name}");
    }
}

#[test]
fn labels_and_prompts_of_others_are_read() {
    let labelled: LabelledRow = row(json!({"prompt": "a", "completion": "b", "label": 1})).unwrap();
    assert!(labelled.label);
    let stepwise: StepwiseRow =
        row(json!({"prompt": "2+2?", "completions": ["2+2 is", "5"], "labels": [true, 0]})).unwrap();
    assert_eq!(stepwise.steps, [("2+2 is".to_owned(), true), ("5".to_owned(), false)]);
    for (wrong, part) in [
        (json!({"prompt": "a", "completions": ["b"]}), "the field `labels` is missing"),
        (
            json!({"prompt": "a", "completions": "b", "labels": [true]}),
            "field `completions`: expected a list of texts",
        ),
        (
            json!({"prompt": "a", "completions": ["b"], "labels": []}),
            "field `labels`: expected as many as `completions`",
        ),
        (
            json!({"prompt": "a", "completions": ["b"], "labels": ["+"]}),
            "field `labels[0]`: expected true, false, 1 or 0",
        ),
        (
            json!({"prompt": "a", "completions": [], "labels": []}),
            "field `completions`: expected something to learn from",
        ),
    ] {
        let message = row::<StepwiseRow>(wrong).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
    let verl: PromptRow = row(json!({
        "data_source": "gsm8k", "prompt": [{"role": "user", "content": "2+2"}], "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "4"}, "extra_info": {"split": "train"},
    }))
    .unwrap();
    assert_eq!(verl.ground_truth.as_deref(), Some("4"));
    assert_eq!(verl.source.as_deref(), Some("gsm8k"));
    let asked: PromptRow = row(json!({"prompt": "\n\nHuman: Hi\n\nAssistant:"})).unwrap();
    assert_eq!(asked.prompt, turns(&[(User, "Hi")]));
}

#[test]
fn a_message_with_tool_calls_keeps_them_for_the_template() {
    let demonstration: DemonstrationRow = row(json!({
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f"}}]},
            {"role": "tool", "content": "1", "name": "f"},
        ],
        "tools": "[{\"name\": \"f\"}]",
    }))
    .unwrap();
    let DemonstrationRow::Messages { messages, tools } = demonstration else { panic!("expected messages") };
    assert!(messages[1].extra.contains_key("tool_calls"));
    assert_eq!(messages[2].extra["name"], "f");
    assert_eq!(tools, Some(json!([{"name": "f"}])));
}

fn pairs(count: usize) -> Vec<Value> {
    (0..count)
        .map(|i| json!({"prompt": format!("p{i} ☃"), "chosen": format!("c\"{i}]"), "rejected": "r\\"}))
        .collect()
}

fn write_gz(path: &Path, text: &str) {
    let mut out =
        flate2::write::GzEncoder::new(std::fs::File::create(path).unwrap(), flate2::Compression::fast());
    out.write_all(text.as_bytes()).unwrap();
    out.finish().unwrap();
}

fn zstd(text: &str) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(text.as_bytes(), ruzstd::encoding::CompressionLevel::Fastest)
}

#[test]
fn the_same_rows_come_from_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let rows = pairs(700);
    let lines = rows.iter().map(|row| format!("{row}\r\n")).collect::<String>();
    let array = serde_json::to_string_pretty(&rows).unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("a.jsonl"), &lines).unwrap();
    std::fs::write(path("b.json"), &array).unwrap();
    std::fs::write(path("mark.jsonl"), format!("\u{feff}{lines}")).unwrap();
    write_gz(&path("c.jsonl.gz"), &lines);
    write_gz(&path("d.json.gz"), &array);
    // Two frames, as parallel compressors write them.
    let half = lines.lines().take(300).map(|line| line.len() + 2).sum::<usize>();
    std::fs::write(path("e.jsonl.zst"), [zstd(&lines[..half]), zstd(&lines[half..])].concat()).unwrap();
    // The content decides, not the name.
    std::fs::write(path("f.jsonl"), zstd(&array)).unwrap();
    let read = |name: &str| read_rows::<PreferenceRow>(&path(name), &ReadOptions::default()).unwrap().rows;
    let expected = read("a.jsonl");
    assert_eq!(expected.len(), 700);
    assert_eq!(expected[699].prompt, Dialogue::Text("p699 ☃".into()));
    for name in ["b.json", "mark.jsonl", "c.jsonl.gz", "d.json.gz", "e.jsonl.zst", "f.jsonl"] {
        assert_eq!(read(name), expected, "{name}");
    }
    // A folder is its files one after another.
    assert_eq!(
        read_rows::<PreferenceRow>(folder.path(), &ReadOptions::default()).unwrap().rows.len(),
        7 * 700
    );
    let limited = ReadOptions { limit: Some(3), ..Default::default() };
    assert_eq!(read_rows::<PreferenceRow>(&path("b.json"), &limited).unwrap().rows, expected[..3]);
}

#[test]
fn columns_can_be_renamed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.jsonl");
    std::fs::write(&path, r#"{"question": "a", "win": "b", "lose": "c"}"#).unwrap();
    let rename = [("question", "prompt"), ("win", "chosen"), ("lose", "rejected")];
    let rename = rename.map(|(theirs, ours)| (theirs.to_string(), ours.to_string())).to_vec();
    let rows = read_rows::<PreferenceRow>(&path, &ReadOptions { rename, ..Default::default() }).unwrap().rows;
    assert_eq!(rows[0].chosen, Dialogue::Text("b".into()));
}

#[test]
fn plain_text_is_a_row_a_paragraph() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("book.txt");
    std::fs::write(&path, "\n{one\nline two\n\n\n[three]\n  \nfour").unwrap();
    let rows = read_rows::<DemonstrationRow>(&path, &ReadOptions::default()).unwrap().rows;
    let texts: Vec<_> = rows
        .iter()
        .map(|row| match row {
            DemonstrationRow::Text { text } => text.as_str(),
            other => panic!("expected text, found {other:?}"),
        })
        .collect();
    assert_eq!(texts, ["{one\nline two", "[three]", "four"]);
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    prop::collection::vec("[a-z\"\\\\\n☃]{0,6}[a-z]", 1..4).prop_map(|texts| {
        let role = |index: usize| if index.is_multiple_of(2) { User } else { Assistant };
        texts.into_iter().enumerate().map(|(index, text)| Message::new(role(index), text.trim())).collect()
    })
}

proptest! {
    #[test]
    fn a_written_pair_reads_back(asked in messages(), good in "[a-z ]{0,8}x", bad in "[a-z ]{0,8}y", margin in -2.0..2.0) {
        let mut prompt = asked;
        if prompt.last().is_some_and(Message::is_assistant) {
            prompt.push(Message::new(User, "go on"));
        }
        let pair = PreferenceRow {
            prompt: Dialogue::Messages(prompt),
            chosen: Dialogue::Messages(vec![Message::new(Assistant, good)]),
            rejected: Dialogue::Messages(vec![Message::new(Assistant, bad)]),
            margin,
        };
        prop_assert_eq!(row::<PreferenceRow>(serde_json::to_value(&pair).unwrap()), Ok(pair));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0usize..4) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.jsonl");
        let head: &[u8] = [&b""[..], &[0x1f, 0x8b, 8, 0], &[0x28, 0xb5, 0x2f, 0xfd], b"[{\"a\": \"\\"][kind];
        std::fs::write(&path, [head, &bytes].concat()).unwrap();
        // Random bytes hold no pair; whatever comes back is an error that names the file.
        let error = read_rows::<PreferenceRow>(&path, &ReadOptions::default()).unwrap_err();
        prop_assert!(error.to_string().contains("x.jsonl"));
    }
}
