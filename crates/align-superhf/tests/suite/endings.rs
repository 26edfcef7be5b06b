//! Where a response ends, on policies that say one thing.

use align_superhf::{Completion, Ending, SuperHf, SuperHfParts, Warning};
use align_testkit::{BigramLm, train_device};
use serde_json::{Value, json};

use crate::world::{by_tokens, config, metric, parts};

/// What each token says. 0 is the stop token and 7 the prompt; neither says anything.
const WORDS: [&str; 9] =
    ["", " Sure", ", here", " it is.", "\n\n", "Human:", " and", "", " The Human body has 206 bones."];

fn words(ids: &[u32]) -> String {
    ids.iter().map(|&id| WORDS[id as usize]).collect()
}

/// Says `script` after token 7 and then what the rest of the table says: the stop token.
fn scripted(script: &[u32]) -> BigramLm {
    let mut rows = vec![vec![0.0; 9]; 9];
    rows.iter_mut().for_each(|row| row[0] = 50.0);
    let mut last = 7;
    for &next in script {
        rows[last] = (0..9).map(|token| if token == next { 50.0 } else { 0.0 }).collect();
        last = next as usize;
    }
    BigramLm::from_logits(rows, &train_device())
}

fn superhf(script: &[u32], changes: Value) -> SuperHf<BigramLm> {
    let policy = scripted(script);
    let parts = SuperHfParts {
        prior: Box::new(align_core::Frozen::new(&policy)),
        policy,
        reward: by_tokens(|row| row.len() as f32),
        prompts: vec![vec![7]],
        ..parts()
    };
    let mut all = json!({
        "superbatch_size": 2, "top_k": 1, "prompt_accumulation_steps": 1, "response_length": 8, "total_episodes": 8,
    });
    changes.as_object().expect("an object").iter().for_each(|(name, value)| all[name] = value.clone());
    SuperHf::new(parts, config(all)).expect("parts")
}

fn ended(script: &[u32], changes: Value) -> Completion {
    let superhf = superhf(script, changes).with_detokenizer(words);
    superhf.collect(0).expect("samples").completions.remove(0)
}

#[test]
fn a_sample_that_stops_keeps_its_stop_token_and_is_learnt_as_drawn() {
    let found = ended(&[1, 2, 3, 0], json!({}));
    assert_eq!((&found.response[..], found.ending), (&[1, 2, 3, 0][..], Ending::Stop));
    assert_eq!((found.content_length, found.text.as_deref()), (3, Some("Sure, here it is.")));
    assert_eq!((found.drawn, found.score), (4, Some(4.0)));
}

#[test]
fn a_simulated_next_turn_is_cut_off_token_by_token_and_an_end_is_learnt() {
    // White space before the turn goes with it.
    let found = ended(&[1, 2, 3, 4, 5, 6, 0], json!({}));
    assert_eq!((&found.response[..], found.ending), (&[1, 2, 3, 0][..], Ending::Turn));
    assert_eq!((found.drawn, found.text.as_deref()), (7, Some("Sure, here it is.")));
    // Without a stop token there is no end to learn.
    let found = ended(&[1, 2, 3, 4, 5, 6], json!({ "stop_token_ids": [] }));
    assert_eq!((&found.response[..], found.ending), (&[1, 2, 3][..], Ending::Turn));
}

#[test]
fn a_sample_that_hits_the_length_learns_no_end() {
    let found = ended(&[1, 2, 3, 6, 0], json!({ "response_length": 3 }));
    assert_eq!((&found.response[..], found.ending), (&[1, 2, 3][..], Ending::Length));
    assert_eq!(found.content_length, 3);
}

#[test]
fn a_stop_string_ends_before_itself_and_without_a_stop_token_is_what_is_learnt() {
    let with = |changes: Value| ended(&[1, 2, 3, 6, 0], changes);
    let found = with(json!({ "stop_strings": [" is."] }));
    // The token " it is." holds the string, so it goes as a whole.
    assert_eq!((&found.response[..], found.ending), (&[1, 2, 0][..], Ending::Stop));
    assert_eq!(found.text.as_deref(), Some("Sure, here it"));
    let found = with(json!({ "stop_strings": [" is."], "stop_token_ids": [] }));
    assert_eq!((&found.response[..], found.content_length), (&[1, 2, 3][..], 2));
}

#[test]
fn a_bare_word_is_no_turn_and_the_pattern_is_a_parameter() {
    let found = ended(&[8, 0], json!({}));
    assert_eq!((found.ending, found.text.as_deref()), (Ending::Stop, Some("The Human body has 206 bones.")));
    let released = json!({ "trim": { "line_start": [], "anywhere": ["Human", "Assistant"] } });
    let found = ended(&[8, 0], released);
    // The token that holds the marker goes as a whole, and nothing is left of it to learn.
    assert_eq!((found.ending, found.content_length, found.is_empty()), (Ending::Turn, 0, true));
}

#[test]
fn what_is_empty_is_dropped_before_it_is_scored() {
    for script in [&[0][..], &[4, 0], &[5, 6, 0]] {
        let superhf = superhf(script, json!({})).with_detokenizer(words);
        let superbatch = superhf.collect(0).expect("samples");
        assert!(superbatch.completions.iter().all(|completion| completion.is_empty()), "{script:?}");
        assert!(superbatch.completions.iter().all(|completion| completion.score.is_none()));
    }
}

#[test]
fn without_text_a_warning_says_that_turns_are_not_looked_for() {
    let mut without = superhf(&[1, 2, 3, 0], json!({}));
    let metrics = without.iteration(0).expect("a group");
    assert_eq!(without.take_warnings(), [Warning::TurnsNotLookedFor]);
    assert_eq!(metric(&metrics, "val/stop_token_rate"), 1.0);
    without.iteration(1).expect("a group");
    assert_eq!(without.take_warnings(), [], "once");
    let mut unwanted = superhf(&[1, 2, 3, 0], json!({ "trim": { "line_start": [], "anywhere": [] } }));
    unwanted.iteration(0).expect("a group");
    assert_eq!(unwanted.take_warnings(), []);
}

#[test]
fn shares_and_lengths_are_of_what_is_learnt() {
    let mut superhf = superhf(&[1, 2, 3, 4, 5, 6, 0], json!({})).with_detokenizer(words);
    let metrics = superhf.iteration(0).expect("a group");
    for (name, expected) in [
        ("superhf/turn_rate", 1.0),
        ("val/stop_token_rate", 0.0),
        ("response_length/clip_ratio", 0.0),
        ("response_length/mean", 4.0),
        ("response_length/max", 4.0),
        ("response_length/min", 4.0),
        ("val/num_empty_responses", 0.0),
    ] {
        assert_eq!(metric(&metrics, name), expected, "{name}");
    }
}
