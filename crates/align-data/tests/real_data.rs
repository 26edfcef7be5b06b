//! Real dialogues through a real tokenizer and template, where the shared data is there.

use std::sync::Arc;

use align_data::{
    ChatTemplate, DemonstrationRow, EncodeOptions, Encoder, HfTokenizer, Overlong, PreferenceRow,
    ReadOptions, SpecialTokens, check_vocabulary, read_rows,
};

fn encoder(folder: &std::path::Path) -> Encoder {
    let tokenizer = HfTokenizer::from_folder(folder).unwrap();
    check_vocabulary(&tokenizer, 2048).unwrap();
    let template = ChatTemplate::from_folder(folder, tokenizer.template_variables()).unwrap();
    let options = EncodeOptions { max_length: Some(512), overlong: Overlong::Drop, ..Default::default() };
    Encoder::new(Arc::new(tokenizer), template, options)
}

#[test]
fn pairs_of_both_files_encode_with_a_stop_token_on_each_side() {
    let Some(shared) = align_testkit::shared() else { return };
    let encoder = encoder(&shared.join("models/chat-0.4M"));
    assert_eq!(encoder.stop_ids(), [5]);
    let options = ReadOptions { skip_bad_rows: true, limit: Some(400), ..Default::default() };
    for name in ["hh-harmless-test", "alpaca-eval-pairs"] {
        let path = shared.join(format!("data/{name}.jsonl.gz"));
        let rows = read_rows::<PreferenceRow>(&path, &options).unwrap().rows;
        let encoded = encoder.encode_all(&rows, Encoder::encode_preference).unwrap();
        assert_eq!(encoded.examples.len() + encoded.dropped, 400, "{name}");
        // Of AlpacaEval's pairs a fifth fit into 512 tokens of this small vocabulary on both sides, of HH's most.
        assert!(encoded.examples.len() > 50, "{name}: {} of 400 fit", encoded.examples.len());
        for (example, row) in encoded.examples.iter().zip(encoded.indices.iter().map(|&index| &rows[index])) {
            assert_eq!(example.prompt, encoder.encode_prompt(&row.prompt).unwrap());
            assert_eq!(example.prompt.iter().filter(|id| **id == 0).count(), 1, "BOS once");
            for (side, dialogue) in [(&example.chosen, &row.chosen), (&example.rejected, &row.rejected)] {
                assert_eq!(side.last(), Some(&5));
                let said = encoder.tokenizer().decode(side, SpecialTokens::Skip).unwrap();
                let words = dialogue.plain_text();
                assert!(said.contains(words.lines().last().unwrap_or_default().trim()), "{said:?} {words:?}");
            }
        }
    }
}

#[test]
fn every_answer_of_a_real_dialogue_is_learnt_with_its_end() {
    let Some(shared) = align_testkit::shared() else { return };
    let encoder = encoder(&shared.join("models/chat-0.4M"));
    let options = ReadOptions { skip_bad_rows: true, limit: Some(200), ..Default::default() };
    let pairs =
        read_rows::<PreferenceRow>(&shared.join("data/hh-harmless-test.jsonl.gz"), &options).unwrap().rows;
    for pair in &pairs {
        let mut messages = pair.prompt.clone().into_messages(align_data::Role::User);
        messages.extend(pair.chosen.clone().into_messages(align_data::Role::Assistant));
        let answers: Vec<String> = messages
            .iter()
            .filter(|turn| turn.is_assistant())
            .map(|turn| turn.content.trim().to_string())
            .collect();
        let row = DemonstrationRow::Messages { messages, tools: None };
        let Ok(example) = encoder.encode_sft(&row) else { continue };
        // Cut at the stop tokens, the learnt tokens are the answers, one after another.
        let learnt: Vec<u32> = example
            .ids
            .iter()
            .zip(&example.loss_mask)
            .filter(|(_, counts)| **counts)
            .map(|(id, _)| *id)
            .collect();
        assert_eq!(learnt.last(), Some(&5));
        let said: Vec<String> = learnt
            .split(|id| *id == 5)
            .map(|ids| encoder.tokenizer().decode(ids, SpecialTokens::Keep).unwrap().trim().to_string())
            .filter(|text| !text.is_empty())
            .collect();
        assert_eq!(said, answers);
    }
}
