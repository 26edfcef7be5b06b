//! A model of another tokenizer in the base's ids.

use align_core::{CausalLm, Draws};
use align_fusion::{
    Expert, Fusion, MapOptions, Mapped, Vocabulary, VocabularyError, VocabularyMap, Weighing,
};
use align_models::{GenerateOptions, Prompt, SamplingConfig, Transformer, TransformerConfig, generate};
use align_testkit::{BigramLm, assert_close, device};
use burn::tensor::activation::log_softmax;

use crate::world::{
    after, batch, before_responses, completions, next_log_probs, prompts, responses, transformer, values,
};

/// With a cache, or beside other rows, attention sums in another order.
const ROUNDING: f64 = 5e-5;

/// A letter for each id: `a` is 0.
fn letters(count: u8) -> Vec<String> {
    (0..count).map(|id| char::from(b'a' + id).to_string()).collect()
}

/// A member that has the letters in reverse order.
fn reversed() -> VocabularyMap {
    let base = Vocabulary::from_tokens(letters(23)).expect("letters");
    let member = Vocabulary::from_tokens(letters(23).into_iter().rev()).expect("letters");
    VocabularyMap::by_strings(&base, &member, &MapOptions::default()).expect("all shared")
}

/// A base of letters, pairs of letters and a sign, and a member of letters only.
fn spelling() -> VocabularyMap {
    let mut tokens = letters(20);
    tokens.extend(["ab".into(), "cde".into(), "?".into()]);
    let (base, member) = (Vocabulary::from_tokens(tokens), Vocabulary::from_tokens(letters(20)));
    VocabularyMap::by_strings(&base.expect("different"), &member.expect("letters"), &MapOptions::default())
        .expect("letters are shared")
}

/// The member of [`spelling`].
fn member() -> Transformer {
    let mut config = TransformerConfig::llama(20, 12, 2, 2);
    config.initializer_range = 0.35;
    config.context_length = 16;
    Transformer::init(&config, &Draws::new(9), &device())
}

/// What the member's scores are in the base's ids: letters, then 0 for what it does not have.
fn letters_of(scores: Vec<f32>) -> Vec<f32> {
    scores.chunks(20).flat_map(|row| [row, &[-1e4; 3]].concat()).collect()
}

#[test]
fn the_order_of_the_members_ids_changes_nothing() {
    let model = transformer(2, 12);
    let mapped = Mapped::new(&model, reversed()).expect("as many ids");
    let mirror = |ids: &[u32]| -> Vec<u32> { ids.iter().map(|id| 22 - id).collect() };
    for row in prompts() {
        let mut expected = after(&model, &mirror(&row));
        expected.reverse();
        assert_close(after(&mapped, &row), expected, ROUNDING);
    }
}

#[test]
fn tokens_without_partner_are_read_piece_by_piece() {
    let model = member();
    let mapped = Mapped::new(&model, spelling()).expect("the member's ids");
    // 20 is "ab", 21 is "cde".
    let rows = [vec![20, 5], vec![7, 21, 21, 0], vec![19]];
    let pieces = [vec![0, 1, 5], vec![7, 2, 3, 4, 2, 3, 4, 0], vec![19]];
    let logits = mapped.logits(&batch(&rows));
    for (index, (row, pieces)) in rows.iter().zip(&pieces).enumerate() {
        let expected = letters_of(after(&model, pieces));
        let found = logits.clone().narrow(0, index, 1).narrow(1, 3, 1);
        assert_close(found, &expected, ROUNDING);
        assert_close(
            mapped.logits(&batch(std::slice::from_ref(row))).narrow(1, row.len() - 1, 1),
            &expected,
            ROUNDING,
        );
    }
    // In the middle of a row, scores follow the last piece.
    let found = logits.narrow(0, 1, 1).narrow(1, 1, 1);
    assert_close(found, letters_of(after(&model, &[7, 2, 3, 4])), ROUNDING);
    assert_eq!(mapped.take_failure(), None);
}

#[test]
fn decoding_reads_pieces_while_other_rows_go_on() {
    let model = member();
    let mapped = Mapped::new(&model, spelling()).expect("the member's ids");
    let mut rows = vec![vec![20, 5], vec![7], vec![19, 3, 2]];
    let mut decoder = mapped.decoder();
    let admitted = decoder.admit(&batch(&rows));
    let expected = |rows: &[Vec<u32>]| {
        let scores = rows
            .iter()
            .map(|row| values(mapped.logits(&batch(std::slice::from_ref(row))).narrow(1, row.len() - 1, 1)));
        scores.collect::<Vec<_>>().concat()
    };
    assert_close(admitted, expected(&rows), ROUNDING);
    for next in [[4, 21, 6], [1, 2, 3], [20, 20, 21], [20, 8, 9], [5, 6, 7]] {
        rows.iter_mut().zip(next).for_each(|(row, id)| row.push(id));
        let scores = decoder.advance(&next);
        assert_close(scores, expected(&rows), ROUNDING);
    }
    decoder.keep(&[2, 0, 2]);
    rows = vec![rows[2].clone(), rows[0].clone(), rows[2].clone()];
    rows.iter_mut().for_each(|row| row.push(11));
    assert_close(decoder.advance(&[11; 3]), expected(&rows), ROUNDING);
}

#[test]
fn scoring_gives_what_the_whole_forward_pass_gives() {
    let model = member();
    let mapped = Mapped::new(&model, spelling()).expect("the member's ids");
    let rows = (vec![vec![20, 5], vec![7], vec![19, 21]], vec![vec![21, 3, 20], vec![20, 1], vec![6]]);
    let completions = align_core::Completions::from_rows(&rows.0, &rows.1, &device());
    let expected = before_responses(&mapped, &rows.0, &rows.1);
    assert_close(next_log_probs(&mapped, &completions, 2).concat(), expected.concat(), ROUNDING);
    let found = values(mapped.token_log_probs(&completions, 1.0).log_probs);
    assert_close(f64::from(found[1]), f64::from(expected[1][3]), ROUNDING);
    assert_eq!((found[5], found[7], found[8]), (0.0, 0.0, 0.0));
}

#[test]
fn a_row_that_cannot_be_read_is_nan_from_there_on_and_says_so() {
    let model = member();
    let mapped = Mapped::new(&model, spelling()).expect("the member's ids");
    let unreadable = |position| VocabularyError::Unreadable { position, id: 22, token: Some("?".into()) };
    let rows = [vec![5, 22, 6], vec![1, 2, 3]];
    let found = values(mapped.logits(&batch(&rows)));
    let nan: Vec<bool> = found.chunks(23).map(|scores| scores.iter().all(|score| score.is_nan())).collect();
    assert_eq!(nan, [false, true, true, false, false, false]);
    assert_eq!(mapped.take_failure(), Some(unreadable(1)));
    assert_eq!(mapped.take_failure(), None);

    let mut decoder = mapped.decoder();
    decoder.admit(&batch(&[vec![5], vec![1]]));
    let dead =
        |scores| values(scores).chunks(23).map(|scores: &[f32]| scores[0].is_nan()).collect::<Vec<_>>();
    assert_eq!(dead(decoder.advance(&[22, 2])), [true, false]);
    assert_eq!(dead(decoder.advance(&[6, 3])), [true, false]);
    assert_eq!(mapped.take_failure(), Some(unreadable(1)));
    let alive = values(decoder.advance(&[6, 4]));
    assert_close(&alive[23..], letters_of(after(&model, &[1, 2, 3, 4])), ROUNDING);

    // As a token that is only predicted it needs no reading.
    let completions =
        |response: Vec<u32>| align_core::Completions::from_rows(&[vec![5]], &[response], &device());
    let found = values(mapped.token_log_probs(&completions(vec![6, 22]), 1.0).log_probs);
    assert!(
        found.iter().all(|log_prob| log_prob.is_finite()) && mapped.take_failure().is_none(),
        "{found:?}"
    );
    let found = values(mapped.token_log_probs(&completions(vec![22, 6]), 1.0).log_probs);
    assert!(found[0].is_finite() && found[1].is_nan(), "{found:?}");
}

#[test]
fn pieces_that_do_not_fit_the_context_are_a_failure() {
    let model = member();
    let mapped = Mapped::new(&model, spelling()).expect("the member's ids");
    // Six times "cde" is 18 letters of 16.
    let found = values(mapped.logits(&batch(&[vec![21; 6]])));
    assert!(found.iter().all(|score| score.is_nan()));
    assert_eq!(mapped.take_failure(), Some(VocabularyError::TooLong { found: 18, context: 16 }));
    let mut decoder = mapped.decoder();
    assert!(values(decoder.admit(&batch(&[vec![21; 5]]))).iter().all(|score| score.is_finite()));
    assert!(values(decoder.advance(&[21])).iter().all(|score| score.is_nan()));
    assert_eq!(mapped.take_failure(), Some(VocabularyError::TooLong { found: 18, context: 16 }));
}

#[test]
fn a_map_must_not_reach_beyond_the_model() {
    let small = BigramLm::independent(&[0.0; 3], &device());
    let found = Mapped::new(&small, spelling()).err();
    assert_eq!(found, Some(VocabularyError::MapOutsideModel { id: 19, vocabulary: 3 }));
}

#[test]
fn a_fusion_of_mapped_members_is_the_fusion_of_members_with_the_bases_ids() {
    let (base, anchor, expert) = (transformer(1, 24), transformer(2, 12), transformer(3, 12));
    let mapped =
        [Mapped::new(&anchor, reversed()), Mapped::new(&expert, reversed())].map(|m| m.expect("fits"));
    let experts = vec![Expert::new("mapped", Box::new(&mapped[1]) as Box<dyn CausalLm>)];
    let fusion =
        Fusion::new(Box::new(&base), Box::new(&mapped[0]), experts, Weighing::default()).expect("they fit");

    // The same members, whose rows are read and scored in reverse by hand.
    let row = [3u32, 1, 4];
    let mirrored: Vec<u32> = row.iter().map(|id| 22 - id).collect();
    let reverse = |model: &dyn CausalLm| {
        let mut scores = after(model, &mirrored);
        scores.reverse();
        scores
    };
    let (p, q, q1) = (after(&base, &row), reverse(&anchor), reverse(&expert));
    let mut expected = vec![0.0; 23];
    let scores = align_fusion::Row { base: &p, anchor: &q, experts: &[&q1] };
    Weighing::default().weigh(scores, &mut expected).expect("finite");
    assert_close(after(&fusion, &row), expected, 2e-4); // the weight is found from rounded scores
    let scored = next_log_probs(&fusion, &completions(), 3).concat();
    assert_close(scored, before_responses(&fusion, &prompts(), &responses()).concat(), 2e-4);
}

#[test]
fn tokens_without_partner_are_not_moved() {
    let (base, anchor) = (transformer(1, 24), member());
    let expert = BigramLm::random(20, &Draws::new(4), &device());
    let (anchor, expert) = (Mapped::new(&anchor, spelling()), Mapped::new(&expert, spelling()));
    let (anchor, expert) = (anchor.expect("fits"), expert.expect("fits"));
    for weighing in crate::world::weighings(1) {
        let experts = vec![Expert::new("letters", Box::new(&expert) as Box<dyn CausalLm>)];
        let fusion = Fusion::new(Box::new(&base), Box::new(&anchor), experts, weighing).expect("they fit");
        let row = [3, 20, 4];
        let (moved, before) = (after(&fusion, &row), after(&base, &row));
        let step = {
            let completions = align_core::Completions::from_rows(&[row.to_vec()], &[vec![1]], &device());
            fusion.explain(&completions).expect("finite")[0][0].clone()
        };
        // Tokens 20 to 22 keep their odds among each other, and letters move by the weighted shift against them.
        for id in [21, 22] {
            assert_close(f64::from(moved[id] - moved[20]), f64::from(before[id] - before[20]), 1e-4);
        }
        let shift = |id: usize| {
            let score = |model: &dyn CausalLm| {
                let scores = model.logits(&batch(&[row.to_vec()])).narrow(1, 2, 1);
                f64::from(values(scores)[id])
            };
            score(&expert) - score(&anchor)
        };
        let found = f64::from(moved[6] - moved[20]) - f64::from(before[6] - before[20]);
        assert_close(found, step.weights[0] * shift(6), 1e-3); // scores of 10⁴ beside: one f32 rounding there is 10⁻³
        assert!(step.forward > 0.0);
    }
}

#[test]
fn sampling_goes_on_through_tokens_that_are_spelt() {
    let (base, anchor, expert) =
        (transformer(1, 24), member(), BigramLm::random(20, &Draws::new(4), &device()));
    let options = spelling();
    let anchor = Mapped::new(&anchor, options.clone()).expect("fits");
    let expert = Mapped::new(&expert, options).expect("fits");
    let experts = vec![Expert::new("letters", Box::new(&expert) as Box<dyn CausalLm>)];
    let fusion =
        Fusion::new(Box::new(&base), Box::new(&anchor), experts, Weighing::default()).expect("they fit");
    let sampling =
        SamplingConfig { max_new_tokens: 4, stop_token_ids: vec![22], ..SamplingConfig::default() };
    let options = GenerateOptions { samples: 8, slots: 5, ..GenerateOptions::new(&sampling, Draws::new(2)) };
    let drawn = generate(&fusion, &Prompt::numbered([vec![20], vec![1, 2]]), &options).expect("finite");
    let spelt = drawn
        .rows
        .iter()
        .filter(|row| row.response[..row.response.len() - 1].iter().any(|id| [20, 21].contains(id)));
    assert!(spelt.count() > 0, "no spelt token was drawn: {:?}", drawn.rows);
    let scored = fusion.token_log_probs(&drawn.to_completions(&device()), 1.0).log_probs;
    assert_close(scored, drawn.raw_log_probs(&device()), 1e-3); // scores of 10⁴ beside: one f32 rounding there is 10⁻³
}

#[test]
fn scores_are_the_members_own_log_probabilities() {
    let model = member();
    let mapped = Mapped::new(&model, spelling()).expect("fits");
    let found = mapped.logits(&batch(&[vec![3, 4]]));
    let expected = letters_of(values(log_softmax(model.logits(&batch(&[vec![3, 4]])), 2)));
    assert_close(found, expected, ROUNDING);
}
