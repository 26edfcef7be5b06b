//! Parquet files give the rows JSON gives.
#![cfg(feature = "parquet")]

use align_data::{DataError, DemonstrationRow, Message, PreferenceRow, ReadOptions, Role, read_rows};

#[test]
fn pairs_and_dialogues_come_out_of_parquet() {
    let path = |name: &str| align_testkit::fixtures::path("parquet").join(name);
    let read = |name: &str| read_rows::<PreferenceRow>(&path(name), &ReadOptions::default()).unwrap().rows;
    let pairs = read("pairs-snappy.parquet");
    assert_eq!(pairs.len(), 3);
    assert_eq!((pairs[2].prompt.plain_text(), pairs[2].margin), ("prompt 2 ☃".to_string(), 1.0));
    assert_eq!(read("pairs-zstd.parquet"), pairs);
    let rows =
        read_rows::<DemonstrationRow>(&path("messages.parquet"), &ReadOptions::default()).unwrap().rows;
    let messages = vec![Message::new(Role::User, "Hi"), Message::new(Role::Assistant, "Hello!")];
    assert_eq!(rows, [DemonstrationRow::Messages { messages, tools: None }]);
}

#[test]
fn a_broken_parquet_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.parquet");
    std::fs::write(&path, b"PAR1 and nothing else").unwrap();
    let error = read_rows::<PreferenceRow>(&path, &ReadOptions::default()).unwrap_err();
    assert!(matches!(error, DataError::Read { .. }));
    assert!(error.to_string().contains("cut.parquet"), "{error}");
}

#[test]
fn a_bad_row_of_parquet_is_counted_by_rows() {
    let path = align_testkit::fixtures::path("parquet").join("messages.parquet");
    let message = read_rows::<PreferenceRow>(&path, &ReadOptions::default()).unwrap_err().to_string();
    assert!(
        message.contains("messages.parquet, row 1: ") && message.contains("`chosen` is missing"),
        "{message}"
    );
}
