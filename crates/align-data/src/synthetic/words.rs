//! The words of the world and the tokenizer over them.

use std::path::Path;

use serde_json::{Map, Value, json};

/// What can be asked for: a verb and its object.
pub(super) const TASKS: [(&str, &str); 6] = [
    ("plan", "meal"),
    ("pack", "bag"),
    ("plant", "garden"),
    ("draw", "picture"),
    ("fill", "shelf"),
    ("wrap", "gift"),
];

/// Colours to choose from.
pub(super) const COLOURS: [&str; 12] = [
    "red", "blue", "green", "white", "black", "golden", "silver", "brown", "pink", "grey", "orange", "violet",
];

/// Things to choose from.
pub(super) const THINGS: [&str; 40] = [
    "rice", "beans", "tea", "bread", "rope", "lamp", "rose", "boat", "book", "cup", "hat", "kite", "apple",
    "pear", "plum", "corn", "shoe", "coat", "drum", "bell", "ball", "cake", "fish", "fern", "lily", "moss",
    "oak", "map", "pen", "ring", "sock", "spoon", "stone", "tulip", "vase", "wool", "shell", "candle",
    "basket", "mirror",
];

/// What an answer may begin with; the gold reward does not care.
pub(super) const FLATTERY: [&str; 3] = ["certainly ,", "of course ,", "happy to help ,"];
/// How an answer names what it is about; the object follows.
pub(super) const OPENINGS: [&str; 3] = ["here is your", "this is your", "i made your"];
/// How an answer ends.
pub(super) const CLOSINGS: [&str; 3] = ["enjoy it", "take care", "good luck"];
/// What a rambling answer adds.
pub(super) const FILLERS: [&str; 3] = ["it is very nice", "i really like it", "it was very very easy"];
/// The other words of requests and answers.
const OTHERS: [&str; 8] = ["please", "a", "with", "and", ",", ":", ".", "your"];

/// The special tokens, whose ids are 0, 1, …
pub(super) const SPECIALS: [&str; 6] =
    ["<|bos|>", "<|pad|>", "<|unk|>", "<|user|>", "<|assistant|>", "<|end|>"];

/// The dialogue's form: `<|bos|><|user|>…<|end|><|assistant|>…<|end|>`.
pub(super) const TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + \
                                   message['content'] + eos_token }}{% endfor %}{% if add_generation_prompt %}{{ \
                                   '<|assistant|>' }}{% endif %}";

/// Every word of a world with these colours and things, in a fixed order, each once.
pub(super) fn vocabulary(colours: &[&'static str], things: &[&'static str]) -> Vec<&'static str> {
    let mut words: Vec<&'static str> = OTHERS.to_vec();
    words.extend(TASKS.iter().flat_map(|(verb, object)| [*verb, *object]));
    words.extend(colours);
    words.extend(things);
    for phrase in FLATTERY.iter().chain(&OPENINGS).chain(&CLOSINGS).chain(&FILLERS) {
        words.extend(phrase.split(' '));
    }
    let mut seen = std::collections::BTreeSet::new();
    words.retain(|word| seen.insert(*word));
    words
}

/// `tokenizer.json` of a word-level tokenizer: special tokens first, then the words; white space separates.
pub(super) fn tokenizer_json(words: &[&str]) -> Value {
    let added: Vec<Value> = SPECIALS
        .iter()
        .enumerate()
        .map(|(id, token)| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            })
        })
        .collect();
    let vocabulary: Map<String, Value> = SPECIALS
        .iter()
        .chain(words)
        .enumerate()
        .map(|(id, token)| (token.to_string(), Value::from(id)))
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<|unk|>"},
    })
}

/// `tokenizer_config.json`, with the template.
pub(super) fn tokenizer_config() -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|bos|>", "eos_token": "<|end|>",
        "pad_token": "<|pad|>", "unk_token": "<|unk|>", "clean_up_tokenization_spaces": false,
        "model_max_length": 128, "chat_template": TEMPLATE,
    })
}

/// Writes the two files of a tokenizer without a dialogue's form, a token a word.
pub(super) fn write_plain_tokenizer(folder: &Path, words: &[&str], longest: usize) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("tokenizer.json"), format!("{:#}\n", tokenizer_json(words)))?;
    let [bos, pad, unk, _, _, end] = SPECIALS;
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": end, "pad_token": pad,
        "unk_token": unk, "clean_up_tokenization_spaces": false, "model_max_length": longest,
    });
    std::fs::write(folder.join("tokenizer_config.json"), format!("{config:#}\n"))
}
