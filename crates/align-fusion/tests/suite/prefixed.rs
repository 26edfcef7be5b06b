//! A prefix before every row is the row with the prefix in it.

use align_core::Draws;
use align_core::{CausalLm, Completions};
use align_fusion::{Expert, Fusion, Placement, PrefixError, Prefixed, Weighing};
use align_models::{GenerateOptions, Prompt, SamplingConfig, generate};
use align_testkit::{assert_close, device};

use crate::world::{
    after, batch, before_responses, completions, members, next_log_probs, prompts, responses, transformer,
};

/// Token 3 begins a text: the first prompt has it, the others do not.
const BOS: u32 = 3;
const PREFIX: [u32; 3] = [12, 17, 3];
const PLACEMENTS: [Placement; 2] = [Placement::Front, Placement::After(BOS)];
/// With a cache, or beside other rows, attention sums in another order.
const ROUNDING: f64 = 5e-5;

fn with_prefix(row: &[u32], placement: Placement) -> Vec<u32> {
    match placement {
        Placement::After(bos) if row.first() == Some(&bos) => [&row[..1], &PREFIX, &row[1..]].concat(),
        _ => [&PREFIX, row].concat(),
    }
}

#[test]
fn scores_are_those_of_the_rows_with_the_prefix_in_them() {
    let model = transformer(1, 24);
    for placement in PLACEMENTS {
        let prefixed = Prefixed::new(&model, PREFIX.to_vec(), placement).expect("a prefix");
        let logits = prefixed.logits(&batch(&prompts()));
        assert_eq!(logits.dims(), [3, 5, crate::world::V]);
        for (index, row) in prompts().iter().enumerate() {
            let whole = model.logits(&batch(&[with_prefix(row, placement)]));
            let found = logits.clone().narrow(0, index, 1).narrow(1, 5 - row.len(), row.len());
            assert_close(found, whole.narrow(1, 3, row.len()), ROUNDING);
        }
    }
}

#[test]
fn a_beginning_of_text_is_followed_by_the_prefix() {
    let model = transformer(1, 24);
    let after_bos = |placement| {
        let prefixed = Prefixed::new(&model, PREFIX.to_vec(), placement).expect("a prefix");
        after(&prefixed, &[BOS])
    };
    assert_close(after_bos(Placement::After(BOS)), after(&model, &[BOS, 12, 17, 3]), ROUNDING);
    assert_close(after_bos(Placement::Front), after(&model, &[12, 17, 3, BOS]), ROUNDING);
    // The two are not the same thing.
    let apart = after(&model, &[BOS, 12, 17, 3])
        .iter()
        .zip(after(&model, &[12, 17, 3, BOS]))
        .any(|(a, b)| (a - b).abs() > 0.1);
    assert!(apart);
}

#[test]
fn decoding_and_scoring_see_the_prefix_too() {
    let model = transformer(1, 24);
    for placement in PLACEMENTS {
        let prefixed = Prefixed::new(&model, PREFIX.to_vec(), placement).expect("a prefix");
        let mut rows = prompts();
        let mut decoder = prefixed.decoder();
        let admitted = decoder.admit(&batch(&rows));
        let expected = |rows: &[Vec<u32>]| {
            let scores = rows.iter().map(|row| after(&model, &with_prefix(row, placement)));
            scores.collect::<Vec<_>>().concat()
        };
        let normalised = |scores| burn::tensor::activation::log_softmax(scores, 1);
        assert_close(normalised(admitted), expected(&rows), ROUNDING);
        decoder.keep(&[2, 0]);
        rows = vec![rows[2].clone(), rows[0].clone()];
        rows.iter_mut().for_each(|row| row.push(8));
        assert_close(normalised(decoder.advance(&[8, 8])), expected(&rows), ROUNDING);

        let given: Vec<Vec<u32>> = prompts().iter().map(|row| with_prefix(row, placement)).collect();
        let whole = Completions::from_rows(&given, &responses(), &device());
        let (found, wanted) =
            (prefixed.token_log_probs(&completions(), 0.7), model.token_log_probs(&whole, 0.7));
        assert_close(found.log_probs, wanted.log_probs, ROUNDING);
        assert_close(found.entropies, wanted.entropies, ROUNDING);
        let wanted = before_responses(&prefixed, &prompts(), &responses()).concat();
        assert_close(next_log_probs(&prefixed, &completions(), 2).concat(), wanted, ROUNDING);
    }
}

#[test]
fn the_prefix_takes_its_share_of_the_context() {
    let prefixed = Prefixed::new(transformer(1, 24), PREFIX.to_vec(), Placement::Front).expect("a prefix");
    assert_eq!(prefixed.context_length(), Some(29));
    let wrong = |prefix: Vec<u32>| Prefixed::new(transformer(1, 24), prefix, Placement::Front).err();
    assert_eq!(wrong(vec![]), Some(PrefixError::Empty));
    let outside = PrefixError::TokenOutsideVocabulary { position: 1, found: 23, vocabulary: 23 };
    assert_eq!(wrong(vec![2, 23]), Some(outside));
    assert_eq!(wrong(vec![2; 32]), Some(PrefixError::TooLong { found: 32, context: 32 }));
}

#[test]
fn the_small_base_with_examples_before_it_is_an_expert() {
    let members = members();
    let taught = Prefixed::new(&members.anchor, PREFIX.to_vec(), Placement::After(BOS)).expect("a prefix");
    let experts = vec![Expert::new("in context", Box::new(&taught) as Box<dyn CausalLm>)];
    let fusion =
        Fusion::new(Box::new(&members.base), Box::new(&members.anchor), experts, Weighing::default())
            .expect("they fit");
    assert_eq!(fusion.context_length(), Some(29));
    fusion.check_direction(&completions()).expect("examples move it");

    let sampling = SamplingConfig { max_new_tokens: 5, never_stop: true, ..SamplingConfig::default() };
    let options = GenerateOptions { samples: 2, ..GenerateOptions::new(&sampling, Draws::new(3)) };
    let drawn = generate(&fusion, &Prompt::numbered(prompts()), &options).expect("finite");
    let scored = fusion.token_log_probs(&drawn.to_completions(&device()), 1.0).log_probs;
    assert_close(scored, drawn.raw_log_probs(&device()), 2e-4); // shifts and weights enlarge the rounding
    // It says something else than the base alone.
    let apart = after(&fusion, &[9]).iter().zip(after(&members.base, &[9])).any(|(a, b)| (a - b).abs() > 0.1);
    assert!(apart);
}
