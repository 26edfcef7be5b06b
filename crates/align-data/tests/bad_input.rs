//! Broken files and rows: the message names the file, the line, the field, what was expected and what was found.

use std::{io::Write, path::PathBuf};

use align_data::{DataError, DemonstrationRow, FromRow, PreferenceRow, PromptRow, ReadOptions, read_rows};
use tempfile::TempDir;

fn file(name: &str, content: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

/// The message of reading this content, without the folder's name.
fn message<T: FromRow + std::fmt::Debug>(name: &str, content: &[u8]) -> String {
    let (folder, path) = file(name, content);
    let error = read_rows::<T>(&path, &ReadOptions::default()).expect_err("the file is broken");
    error.to_string().replace(&format!("{}/", folder.path().display()), "")
}

const GOOD: &str = r#"{"prompt": "2 + 2", "chosen": "4", "rejected": "5"}"#;

#[test]
fn a_missing_file_is_named() {
    let error = read_rows::<PromptRow>("nowhere/at-all.jsonl".as_ref(), &ReadOptions::default()).unwrap_err();
    assert!(matches!(error, DataError::Open { .. }));
    let message = error.to_string();
    assert!(message.starts_with("cannot open nowhere/at-all.jsonl: "), "{message}");
}

#[test]
fn a_row_without_chosen_names_the_field_and_the_rows_own() {
    let content = format!("{GOOD}\n\n{{\"prompt\": \"a\", \"accepted\": \"b\", \"rejected\": \"c\"}}\n");
    assert_eq!(
        message::<PreferenceRow>("pairs.jsonl", content.as_bytes()),
        "pairs.jsonl, line 3: expected a preference (`chosen` and `rejected`); the field `chosen` is missing, the row \
         has `prompt`, `accepted`, `rejected`"
    );
}

#[test]
fn a_null_field_is_told_from_a_missing_one() {
    assert_eq!(
        message::<PreferenceRow>("pairs.jsonl", br#"{"prompt": "a", "chosen": null, "rejected": "c"}"#),
        "pairs.jsonl, line 1: expected a preference (`chosen` and `rejected`); the field `chosen` is missing, the row \
         has `prompt`, `chosen`, `rejected` (`chosen` is null)"
    );
}

#[test]
fn equal_sides_are_no_preference() {
    assert_eq!(
        message::<PreferenceRow>("pairs.jsonl", br#"{"prompt": "a", "chosen": "same", "rejected": "same"}"#),
        "pairs.jsonl, line 1: `chosen` and `rejected` are equal: expected two different responses, found \"same\" twice"
    );
}

#[test]
fn an_empty_prompt_is_refused() {
    for prompt in ["\"\"", "\"  \\n\"", "[]", "[{\"role\": \"user\", \"content\": \" \"}]"] {
        let row = format!("{{\"prompt\": {prompt}, \"chosen\": \"a\", \"rejected\": \"b\"}}");
        assert_eq!(
            message::<PreferenceRow>("pairs.jsonl", row.as_bytes()),
            "pairs.jsonl, line 1: the prompt is empty: expected at least one word or message"
        );
    }
    assert_eq!(
        message::<PreferenceRow>("pairs.jsonl", br#"{"chosen": "yes it is", "rejected": "no it is not"}"#),
        "pairs.jsonl, line 1: the prompt is empty: expected at least one word or message in `prompt`, or a shared \
         beginning of `chosen` and `rejected`"
    );
}

#[test]
fn an_empty_file_holds_no_preferences() {
    for content in ["", "\n \n", "[]"] {
        assert_eq!(
            message::<PreferenceRow>("pairs.json", content.as_bytes()),
            "pairs.json holds no preference rows: expected at least one, found none"
        );
    }
}

#[test]
fn a_wrong_type_names_the_way_into_the_row() {
    assert_eq!(
        message::<DemonstrationRow>(
            "chat.jsonl",
            br#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": 7}]}"#
        ),
        "chat.jsonl, line 1: field `messages[1].content`: expected text, or a list of text parts, found a number (7)"
    );
    assert_eq!(
        message::<DemonstrationRow>("chat.jsonl", br#"{"messages": [{"role": "user"}]}"#),
        "chat.jsonl, line 1: expected a message with `role` and `content`; the field `messages[0].content` is missing, \
         the row has `role`"
    );
    assert_eq!(
        message::<PreferenceRow>(
            "pairs.jsonl",
            br#"{"prompt": "a", "chosen": "b", "rejected": "c", "margin": "much"}"#
        ),
        "pairs.jsonl, line 1: field `margin`: expected a finite number, found text (\"much\")"
    );
}

#[test]
fn a_dialogue_without_an_answer_teaches_nothing() {
    assert_eq!(
        message::<DemonstrationRow>("chat.jsonl", br#"{"messages": [{"role": "user", "content": "a"}]}"#),
        "chat.jsonl, line 1: field `messages`: expected at least one turn of the assistant, found turns of user"
    );
    assert_eq!(
        message::<DemonstrationRow>("chat.jsonl", br#"{"prompt": "a", "completion": ""}"#),
        "chat.jsonl, line 1: field `completion`: expected something to learn from, found nothing"
    );
}

#[test]
fn broken_json_gives_line_and_column() {
    let content = format!("{GOOD}\n{{\"prompt\": \"a\", chosen: \"b\"}}\n");
    assert_eq!(
        message::<PreferenceRow>("pairs.jsonl", content.as_bytes()),
        "pairs.jsonl, line 2: expected a JSON object, found broken JSON at column 17: key must be a string"
    );
    assert_eq!(
        message::<PreferenceRow>("pairs.json", format!("[{GOOD},\n 5]").as_bytes()),
        "pairs.json, line 2: expected a JSON object, found a number"
    );
    assert_eq!(
        message::<PreferenceRow>("pairs.json", format!("[{GOOD},\n{GOOD}").as_bytes()),
        "pairs.json, line 2: the JSON array is broken: expected `,` or `]`, found the end of the file"
    );
}

#[test]
fn a_file_of_another_format_says_how_it_begins() {
    let found = message::<PreferenceRow>("pairs.csv", b"prompt,chosen,rejected\n");
    assert!(found.starts_with("pairs.csv: expected JSON Lines, a JSON array"), "{found}");
    assert!(found.ends_with("found \"prompt,chosen,rejected\\n\""), "{found}");
}

#[test]
fn a_truncated_archive_says_how_far_it_was_read() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for index in 0..2000 {
        writeln!(
            encoder,
            "{{\"prompt\": \"{index}\", \"chosen\": \"{}\", \"rejected\": \"n\"}}",
            index * 7919
        )
        .unwrap();
    }
    let bytes = encoder.finish().unwrap();
    let found = message::<PreferenceRow>("pairs.jsonl.gz", &bytes[..bytes.len() / 2]);
    assert!(found.starts_with("cannot read pairs.jsonl.gz after line or row "), "{found}");
}

#[test]
fn skipped_rows_are_counted_and_the_first_are_listed() {
    let mut content = String::new();
    for _ in 0..25 {
        content.push_str("{\"prompt\": \"a\"}\n");
        content.push_str(GOOD);
        content.push('\n');
    }
    let (_folder, path) = file("pairs.jsonl", content.as_bytes());
    let options = ReadOptions { skip_bad_rows: true, ..Default::default() };
    let loaded = read_rows::<PreferenceRow>(&path, &options).unwrap();
    assert_eq!((loaded.rows.len(), loaded.skipped.count, loaded.skipped.listed.len()), (25, 25, 20));
    let shown = loaded.skipped.to_string();
    assert!(shown.starts_with("skipped 25 broken rows\n"), "{shown}");
    assert!(shown.contains("line 3: expected a preference"), "{shown}");
    assert!(shown.ends_with("and 5 more"), "{shown}");
}

#[test]
fn a_file_of_broken_rows_only_is_empty_with_reasons() {
    let (_folder, path) = file("pairs.jsonl", b"{}\n{\"chosen\": 1}\n");
    let options = ReadOptions { skip_bad_rows: true, ..Default::default() };
    let message = read_rows::<PreferenceRow>(&path, &options).unwrap_err().to_string();
    assert!(message.contains("expected at least one, found skipped 2 broken rows"), "{message}");
    assert!(message.contains("the row has no fields"), "{message}");
}

#[cfg(not(feature = "parquet"))]
#[test]
fn parquet_without_the_feature_says_which_one() {
    assert_eq!(
        message::<PreferenceRow>("pairs.parquet", b"PAR1...."),
        "pairs.parquet is Parquet, which this build does not read; build with the feature `parquet`"
    );
}
