//! Tokenizers as folders hold them.

use align_data::{
    ChatTemplate, HfTokenizer, SpecialTokens, Tokenizer,
    synthetic::{World, WorldConfig},
};
use serde_json::json;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    World::new(WorldConfig::default()).write_tokenizer(folder.path()).unwrap();
    folder
}

#[test]
fn several_stop_ids_come_from_the_generation_configuration() {
    let folder = folder();
    std::fs::write(
        folder.path().join("generation_config.json"),
        json!({"eos_token_id": [3, 5, 1]}).to_string(),
    )
    .unwrap();
    let tokenizer = HfTokenizer::from_folder(folder.path()).unwrap();
    // The tokenizer's own `<|end|>` is 5 and comes first, once.
    assert_eq!(tokenizer.special().stop, [5, 3, 1]);
    assert_eq!((tokenizer.special().bos, tokenizer.special().pad), (Some(0), Some(1)));
}

#[test]
fn a_folder_without_a_tokenizer_says_what_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.model"), "").unwrap();
    let message = HfTokenizer::from_folder(folder.path()).unwrap_err().to_string();
    assert!(message.contains("has no `tokenizer.json`"), "{message}");
    assert!(message.ends_with("found tokenizer.model"), "{message}");
}

#[test]
fn a_special_token_outside_the_vocabulary_is_named() {
    let folder = folder();
    let config = json!({"bos_token": "<|bos|>", "eos_token": "<|nowhere|>"});
    std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let message = HfTokenizer::from_folder(folder.path()).unwrap_err().to_string();
    assert!(
        message.starts_with("`eos_token` is `<|nowhere|>`, which is not in the vocabulary of "),
        "{message}"
    );
}

#[test]
fn broken_files_are_named() {
    let folder = folder();
    std::fs::write(folder.path().join("tokenizer_config.json"), "[1]").unwrap();
    let message = HfTokenizer::from_folder(folder.path()).unwrap_err().to_string();
    assert!(message.contains("tokenizer_config.json: expected a JSON object"), "{message}");
    std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    let message = HfTokenizer::from_folder(folder.path()).unwrap_err().to_string();
    assert!(message.contains("tokenizer.json"), "{message}");
}

#[test]
fn a_fingerprint_tells_vocabularies_apart() {
    let world = |things| World::new(WorldConfig { things, ..Default::default() }).tokenizer().unwrap();
    assert_eq!(world(20).fingerprint(), world(20).fingerprint());
    assert_ne!(world(20).fingerprint(), world(19).fingerprint());
    assert_eq!(world(20).fingerprint().len(), 64);
}

#[test]
fn a_template_file_counts_before_the_configuration() {
    let folder = folder();
    let tokenizer = HfTokenizer::from_folder(folder.path()).unwrap();
    let read = || ChatTemplate::from_folder(folder.path(), tokenizer.template_variables()).unwrap().unwrap();
    assert!(read().source().contains("bos_token"));
    std::fs::write(folder.path().join("chat_template.jinja"), "plain").unwrap();
    assert_eq!(read().source(), "plain");
    std::fs::write(folder.path().join("chat_template.jinja"), "one\n{% if %}").unwrap();
    let error =
        ChatTemplate::from_folder(folder.path(), tokenizer.template_variables()).unwrap_err().to_string();
    assert!(error.starts_with("chat template `default`, line 2: "), "{error}");
}

#[test]
fn a_list_of_templates_has_one_for_tools() {
    let folder = folder();
    let config = json!({"chat_template": [
        {"name": "default", "template": "plain"}, {"name": "tool_use", "template": "with {{ tools | length }} tools"},
    ]});
    std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let template = ChatTemplate::from_folder(folder.path(), Default::default()).unwrap().unwrap();
    let tools = json!([{"name": "f"}]);
    let options = align_data::RenderOptions { tools: Some(&tools), ..Default::default() };
    assert_eq!(template.render(&[], &options).unwrap(), "with 1 tools");
    assert_eq!(template.render(&[], &Default::default()).unwrap(), "plain");
}

#[test]
fn real_text_survives_the_shared_tokenizer() {
    let Some(shared) = align_testkit::fixtures::shared() else { return };
    let tokenizer = HfTokenizer::from_folder(&shared.join("models/chat-0.4M")).unwrap();
    let text = "Naïve words, “quotes”, 12 numbers\nand lines ☃.";
    let ids = tokenizer.encode(text).unwrap().ids;
    assert_eq!(tokenizer.decode(&ids, SpecialTokens::Skip).unwrap(), text);
    assert_eq!(tokenizer.special().prefix, [0]);
    assert_eq!(tokenizer.special().stop, [5]);
    assert_eq!(tokenizer.vocab_size(), 2048);
}
