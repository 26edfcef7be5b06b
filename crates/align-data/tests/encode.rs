//! Token ids and loss masks: BOS once, responses only, the stop token learnt.

use std::sync::Arc;

use Role::{Assistant, User};
use align_data::{
    ChatTemplate, DemonstrationRow, Dialogue, EncodeError, EncodeOptions, Encoder, Example, HfTokenizer,
    Message, Overlong, PlainPrompts, PreferenceRow, Role, SpecialTokens, check_vocabulary, collate,
};
use serde_json::{Map, Value, json};

/// A tokenizer of whole words; `post` is its post-processor.
fn words(post: Value, config: Value) -> HfTokenizer {
    let specials = ["<s>", "</s>", "<|user|>", "<|assistant|>", "<|end|>", "<unk>"];
    let plain = ["a", "b", "c", "d", "e", "Human:", "Assistant:"];
    let vocab: Map<String, Value> =
        specials.iter().chain(&plain).enumerate().map(|(id, word)| (word.to_string(), id.into())).collect();
    let added: Vec<Value> = specials
        .iter()
        .enumerate()
        .map(|(id, word)| {
            json!({"id": id, "content": word, "special": true, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false})
        })
        .collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": null, "added_tokens": added, "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": post, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    });
    HfTokenizer::from_json(&tokenizer.to_string(), &config.to_string()).unwrap()
}

fn adds_bos() -> Value {
    let bos = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
    let eos = json!({"SpecialToken": {"id": "</s>", "type_id": 0}});
    let (first, second) =
        (json!({"Sequence": {"id": "A", "type_id": 0}}), json!({"Sequence": {"id": "B", "type_id": 1}}));
    json!({
        "type": "TemplateProcessing", "single": [bos, first, eos], "pair": [first, second],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]},
                           "</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
    })
}

const TURNS: &str = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}{% if \
                     add_generation_prompt %}<|assistant|>{% endif %}";

fn encoder(tokenizer: HfTokenizer, template: Option<&str>, options: EncodeOptions) -> Encoder {
    let template = template.map(|source| ChatTemplate::new(source, tokenizer.template_variables()).unwrap());
    Encoder::new(Arc::new(tokenizer), template, options)
}

fn specials() -> Value {
    json!({"bos_token": "<s>", "eos_token": {"content": "</s>", "special": true}})
}

fn chat() -> Encoder {
    encoder(words(Value::Null, specials()), Some(TURNS), EncodeOptions::default())
}

fn text(words: &str) -> Dialogue {
    Dialogue::Text(words.into())
}

/// Ids with the learnt ones negated, as tokens.
fn shown(encoder: &Encoder, example: &Example) -> String {
    let token = |(id, learnt): (&u32, &bool)| {
        let token = encoder.tokenizer().token(*id).unwrap();
        if *learnt { format!("[{token}]") } else { token }
    };
    example.ids.iter().zip(&example.loss_mask).map(token).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_loss_is_on_every_answer_and_its_end_of_turn() {
    let encoder = chat();
    let turns = [(User, "a b"), (Assistant, "c"), (User, "d"), (Assistant, "e a")];
    let messages = turns.map(|(role, content)| Message::new(role, content)).to_vec();
    let example = encoder.encode_sft(&DemonstrationRow::Messages { messages, tools: None }).unwrap();
    assert_eq!(
        shown(&encoder, &example),
        "<|user|> a b <|end|> <|assistant|> [c] [<|end|>] <|user|> d <|end|> <|assistant|> [e] [a] [<|end|>]"
    );
    // The template's end of turn is a stop token beside the tokenizer's own.
    assert_eq!(encoder.stop_ids(), [1, 4]);
}

#[test]
fn generation_blocks_say_what_is_learnt() {
    let marked = "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|> a {% generation %}{{ m.content \
                  }}<|end|>{% endgeneration %}{% else %}<|user|>{{ m.content }}<|end|>{% endif %}{% endfor %}";
    let encoder = encoder(words(Value::Null, specials()), Some(marked), EncodeOptions::default());
    let messages = vec![Message::new(User, "b"), Message::new(Assistant, "c")];
    let example = encoder.encode_sft(&DemonstrationRow::Messages { messages, tools: None }).unwrap();
    assert_eq!(shown(&encoder, &example), "<|user|> b <|end|> <|assistant|> a [c] [<|end|>]");
}

#[test]
fn a_template_that_rewrites_old_turns_still_gives_the_right_mask() {
    // As Qwen 3: only the last answer carries its (empty) reasoning.
    let rewriting = "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' and loop.last %} e e {% endif \
                     %}{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";
    let encoder = encoder(words(Value::Null, specials()), Some(rewriting), EncodeOptions::default());
    let turns = [(User, "a"), (Assistant, "b"), (User, "c"), (Assistant, "d")];
    let messages = turns.map(|(role, content)| Message::new(role, content)).to_vec();
    let example = encoder.encode_sft(&DemonstrationRow::Messages { messages, tools: None }).unwrap();
    assert_eq!(
        shown(&encoder, &example),
        "<|user|> a <|end|> <|assistant|> [b] [<|end|>] <|user|> c <|end|> <|assistant|> [e] [e] [d] [<|end|>]"
    );
}

#[test]
fn the_prompt_has_the_same_ids_in_training_and_in_generation() {
    let encoder = chat();
    let pair = PreferenceRow { prompt: text("a b"), chosen: text("c"), rejected: text("d e"), margin: 0.5 };
    let example = encoder.encode_preference(&pair).unwrap();
    assert_eq!(example.prompt, encoder.encode_prompt(&pair.prompt).unwrap());
    assert_eq!(
        encoder.tokenizer().decode(&example.prompt, SpecialTokens::Keep).unwrap(),
        "<|user|> a b <|end|> <|assistant|>"
    );
    assert_eq!((example.chosen, example.rejected, example.margin), (vec![8, 4], vec![9, 10, 4], 0.5));
}

#[test]
fn bos_stands_exactly_once_whoever_writes_it() {
    let with_bos = format!("{{{{ bos_token }}}}{TURNS}");
    let count = |ids: &[u32]| ids.iter().filter(|id| **id == 0).count();
    for (name, post, config, template, expected) in [
        ("nobody", Value::Null, specials(), TURNS, 0),
        ("template", Value::Null, specials(), &with_bos, 1),
        ("tokenizer", adds_bos(), specials(), TURNS, 1),
        ("both", adds_bos(), specials(), &with_bos, 1),
        (
            "configuration",
            Value::Null,
            json!({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true}),
            TURNS,
            1,
        ),
        (
            "configuration against",
            adds_bos(),
            json!({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": false}),
            TURNS,
            0,
        ),
    ] {
        let encoder = encoder(words(post, config), Some(template), EncodeOptions::default());
        let prompt = encoder.encode_prompt(&text("a")).unwrap();
        assert_eq!(count(&prompt), expected, "{name}: {prompt:?}");
        assert_eq!(prompt[0] == 0, expected == 1, "{name}: {prompt:?}");
        let messages = vec![Message::new(User, "a"), Message::new(Assistant, "b")];
        let example = encoder.encode_sft(&DemonstrationRow::Messages { messages, tools: None }).unwrap();
        assert_eq!(count(&example.ids), expected, "{name}: {example:?}");
        // What the tokenizer puts at the end of a text never gets between prompt and response.
        assert_eq!(prompt[prompt.len() - 1], 3, "{name}");
    }
}

#[test]
fn without_a_template_text_stays_text_and_ends_with_eos() {
    let encoder = encoder(words(adds_bos(), specials()), None, EncodeOptions::default());
    let example = encoder
        .encode_sft(&DemonstrationRow::Completion { prompt: text("a b"), completion: text(" c") })
        .unwrap();
    assert_eq!(shown(&encoder, &example), "<s> a b [c] [</s>]");
    let example = encoder.encode_sft(&DemonstrationRow::Text { text: "a b".into() }).unwrap();
    assert_eq!(shown(&encoder, &example), "<s> [a] [b] [</s>]");
    let dialogue = Dialogue::Messages(vec![Message::new(User, "a")]);
    let message = encoder.encode_prompt(&dialogue).unwrap_err().to_string();
    assert!(message.contains("has no chat template"), "{message}");
}

#[test]
fn plain_prompts_can_stay_plain_beside_a_template() {
    let options = EncodeOptions { plain_prompts: PlainPrompts::AsText, ..Default::default() };
    let encoder = encoder(words(Value::Null, specials()), Some(TURNS), options);
    assert_eq!(encoder.encode_prompt(&text("a b")).unwrap(), [6, 7]);
}

#[test]
fn a_tokenizer_without_a_stop_token_is_refused_where_a_response_must_end() {
    let encoder = encoder(words(Value::Null, json!({"bos_token": "<s>"})), None, EncodeOptions::default());
    let error = encoder.encode_completion(&text("a"), &text("b")).unwrap_err();
    assert!(matches!(error, EncodeError::NoStopToken));
    let message = error.to_string();
    assert!(
        message.starts_with("no stop token: expected `eos_token` in `tokenizer_config.json`"),
        "{message}"
    );
}

#[test]
fn padding_that_is_the_stop_token_changes_nothing() {
    let config = json!({"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"});
    let encoder = encoder(words(Value::Null, config), None, EncodeOptions::default());
    let rows = [("a", "b"), ("a b c", "d e")].map(|(prompt, response)| {
        encoder
            .encode_sft(&DemonstrationRow::Completion { prompt: text(prompt), completion: text(response) })
            .unwrap()
    });
    let batch = collate::demonstrations(&rows, &align_testkit::device());
    assert_eq!(batch.completions.prompt.rows(), [vec![6], vec![6, 7, 8]]);
    assert_eq!(batch.completions.response.rows(), [vec![7, 1], vec![9, 10, 1]]);
    let counts: Vec<bool> = batch.counts.to_data().iter::<bool>().collect();
    assert_eq!(counts, [true, true, false, true, true, true]);
    assert!(rows.iter().all(|row| row.ids.last() == Some(&1) && row.loss_mask.last() == Some(&true)));
}

#[test]
fn what_stands_between_two_answers_is_given_and_not_learnt() {
    let encoder = chat();
    let turns = [(User, "a"), (Assistant, "b"), (User, "c"), (Assistant, "d")];
    let messages = turns.map(|(role, content)| Message::new(role, content)).to_vec();
    let example = encoder.encode_sft(&DemonstrationRow::Messages { messages, tools: None }).unwrap();
    let batch = collate::demonstrations(std::slice::from_ref(&example), &align_testkit::device());
    let joined =
        [batch.completions.prompt.rows()[0].clone(), batch.completions.response.rows()[0].clone()].concat();
    assert_eq!(joined, example.ids);
    // `<|user|> a <|end|> <|assistant|>` is the prompt; the loss is on `b <|end|>` and `d <|end|>`.
    let counts: Vec<bool> = batch.counts.to_data().iter::<bool>().collect();
    assert_eq!(counts, [true, true, false, false, false, false, true, true]);
}

#[test]
fn pairs_are_padded_on_their_sides() {
    let encoder = chat();
    let pairs = [("a", "b", "c"), ("a b c", "d e", "a")].map(|(prompt, chosen, rejected)| {
        let row = PreferenceRow {
            prompt: text(prompt),
            chosen: text(chosen),
            rejected: text(rejected),
            margin: 2.0,
        };
        encoder.encode_preference(&row).unwrap()
    });
    let batch = collate::preference_pairs(&pairs, &align_testkit::device());
    assert_eq!(batch.chosen.prompt.rows(), [pairs[0].prompt.clone(), pairs[1].prompt.clone()]);
    assert_eq!(batch.chosen.response.rows(), [pairs[0].chosen.clone(), pairs[1].chosen.clone()]);
    assert_eq!(batch.rejected.response.rows(), [pairs[0].rejected.clone(), pairs[1].rejected.clone()]);
    // The last token of every prompt stands in the last column.
    let ids: Vec<i64> = batch.chosen.prompt.ids.to_data().iter::<i64>().collect();
    assert_eq!(ids.chunks(6).map(|row| row[5]).collect::<Vec<_>>(), [3, 3]);
    let margins: Vec<f32> = batch.margin.to_data().iter::<f32>().collect();
    assert_eq!(margins, [2.0, 2.0]);
}

#[test]
fn rows_beyond_the_context_are_errors_or_dropped_or_cut() {
    let options = |overlong| EncodeOptions { max_length: Some(6), overlong, ..Default::default() };
    let rows = ["b", "b c d", "b"]
        .map(|answer| DemonstrationRow::Completion { prompt: text("a"), completion: text(answer) });
    let encode = |overlong| {
        encoder(words(Value::Null, specials()), Some(TURNS), options(overlong))
            .encode_all(&rows, Encoder::encode_sft)
    };
    let message = encode(Overlong::Error).unwrap_err().to_string();
    assert_eq!(
        message,
        "prompt and response have 8 tokens and at most 6 fit; the row begins \"<|user|>a<|end|>\\n<|assistant|>\""
    );
    let dropped = encode(Overlong::Drop).unwrap();
    assert_eq!((dropped.indices, dropped.dropped), (vec![0, 2], 1));
    let cut = encode(Overlong::CutResponse).unwrap();
    assert_eq!((cut.dropped, cut.examples[1].ids.len()), (0, 6));
    // A cut answer did not stop, so no stop token is learnt.
    assert_eq!(cut.examples[1].ids[4..], [7, 8]);
}

#[test]
fn a_prompt_beyond_the_context_is_named() {
    let options = EncodeOptions { max_length: Some(4), ..Default::default() };
    let encoder = encoder(words(Value::Null, specials()), None, options);
    let error = encoder.encode_prompt(&text("a b c d")).unwrap_err();
    assert!(error.is_overlong());
    assert_eq!(error.to_string(), "the prompt has 4 tokens and at most 3 fit; it begins \"a b c d\"");
}

#[test]
fn nothing_asked_and_nothing_answered_are_refused() {
    let encoder = chat();
    let message = encoder.encode_prompt(&text(" ")).unwrap_err().to_string();
    assert_eq!(message, "the prompt is empty: expected at least one token before the response, found none");
    let message = encoder.encode_completion(&text("a"), &text(" ")).unwrap_err().to_string();
    assert!(message.starts_with("the response is empty: expected at least one token after "), "{message}");
    let same = PreferenceRow { prompt: text("a"), chosen: text("b"), rejected: text("b "), margin: 0.0 };
    let message = encoder.encode_preference(&same).unwrap_err().to_string();
    assert!(message.starts_with("chosen and rejected have the same 2 tokens"), "{message}");
}

#[test]
fn vocabularies_that_do_not_belong_together_are_refused() {
    let tokenizer = words(Value::Null, specials());
    check_vocabulary(&tokenizer, 13).unwrap();
    check_vocabulary(&tokenizer, 128).unwrap();
    for model in [12, 50_257] {
        let message = check_vocabulary(&tokenizer, model).unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("the tokenizer has 13 tokens and the model's vocabulary {model}:")),
            "{message}"
        );
    }
}

#[test]
fn a_preview_shows_what_is_learnt() {
    let encoder = chat();
    let row = DemonstrationRow::Completion { prompt: text("a"), completion: text("b") };
    let preview = align_data::preview::demonstration(&encoder, &row).unwrap();
    let shown = preview.to_string();
    assert!(shown.starts_with("demonstration: 6 tokens, 2 learnt\n"), "{shown}");
    assert!(shown.contains(" <|assistant|> 3 [b 7] [<|end|>■ 4]"), "{shown}");
}
