//! What is refused, and how it is said.

use align_core::{CausalLm, Completions, Draws};
use align_fusion::{Expert, Fusion, FusionError, Member, RowError, Weighing, WeighingError};
use align_models::{
    GenerateError, GenerateOptions, Prompt, SamplingConfig, Transformer, TransformerConfig, generate,
};
use align_testkit::{BigramLm, device};

use crate::world::{V, batch, completions, fixed, members, values};

fn table(logits: &[f32]) -> BigramLm {
    BigramLm::independent(logits, &device())
}

fn fuse<'m>(
    base: &'m dyn CausalLm,
    anchor: &'m dyn CausalLm,
    experts: &[(&str, &'m dyn CausalLm)],
    weighing: Weighing,
) -> Result<Fusion<'m>, FusionError> {
    let experts = experts.iter().map(|(name, model)| Expert::new(*name, Box::new(*model)));
    Fusion::new(Box::new(base), Box::new(anchor), experts.collect(), weighing)
}

/// `V` random scores after every token, except after token 2, where token 4 is scored so.
fn broken(seed: u64, score: f32) -> BigramLm {
    let draws = Draws::new(seed);
    let logit = |row: usize, column: usize| {
        if (row, column) == (2, 4) {
            score
        } else {
            draws.token(align_core::draws::Purpose::Initialize, 0, row as u64, 0, column as u32) as f32
        }
    };
    BigramLm::from_logits(
        (0..6).map(|row| (0..6).map(|column| logit(row, column)).collect()).collect(),
        &device(),
    )
}

#[test]
fn a_fusion_needs_experts_of_different_names_and_weights_for_them() {
    let model = table(&[0.0, 1.0]);
    let error = |experts: &[(&str, &dyn CausalLm)], weighing| fuse(&model, &model, experts, weighing).err();
    assert_eq!(error(&[], Weighing::default()), Some(FusionError::NoExperts));
    let same = error(&[("a", &model), ("a", &model)], Weighing::default());
    assert_eq!(same, Some(FusionError::SameName { name: "a".into() }));
    let weights = WeighingError::Weights { experts: 1, weights: 2 };
    assert_eq!(error(&[("a", &model)], fixed(&[1.0, 1.0])), Some(FusionError::Weighing(weights.clone())));
    let fusion = fuse(&model, &model, &[("a", &model)], fixed(&[1.0])).expect("it fits");
    assert_eq!(fusion.with_weighing(fixed(&[1.0, 1.0])).err(), Some(FusionError::Weighing(weights)));
}

#[test]
fn another_vocabulary_is_refused_by_name_and_both_sizes() {
    let (two, three) = (table(&[0.0; 2]), table(&[0.0; 3]));
    let error = fuse(&two, &two, &[("a", &two), ("b", &three)], Weighing::default())
        .err()
        .expect("three are not two");
    assert_eq!(error, FusionError::VocabularySize { member: "expert `b`".into(), expected: 2, found: 3 });
    let message = error.to_string();
    assert!(message.contains("expert `b` scores 3 tokens, expected the base's 2"), "{message}");
    let error = fuse(&three, &two, &[("a", &three)], Weighing::default()).err();
    assert_eq!(
        error,
        Some(FusionError::VocabularySize { member: "the small base".into(), expected: 3, found: 2 })
    );
}

#[test]
fn nan_from_a_member_stops_generation_and_is_named() {
    let (whole, nan) = (broken(1, 0.5), broken(2, f32::NAN));
    let sampling = SamplingConfig { max_new_tokens: 40, never_stop: true, ..SamplingConfig::default() };
    let options = GenerateOptions::new(&sampling, Draws::new(5));
    let prompts = Prompt::numbered([vec![0], vec![1]]);
    for (models, member, name) in [
        ([&nan, &whole, &whole], Member::Base, "the large base"),
        ([&whole, &nan, &whole], Member::Anchor, "the small base"),
        ([&whole, &whole, &nan], Member::Expert(0), "expert `e`"),
    ] {
        for weighing in crate::world::weighings(1) {
            let fusion = fuse(models[0], models[1], &[("e", models[2])], weighing).expect("they fit");
            let stopped =
                generate(&fusion, &prompts, &options).expect_err("token 2 is drawn sooner or later");
            let GenerateError::NotFinite { row, position } = stopped else { panic!("{stopped}") };
            // Both prompts have one length, so rows are admitted in the order they were given.
            match fusion.take_failure().expect("it was kept") {
                FusionError::Scores { member: found, row: at, step, source } => {
                    assert_eq!((found.as_str(), at, step), (name, row, position));
                    let RowError::NotFinite { member: of, token: 4, found } = source else {
                        panic!("{source}")
                    };
                    assert!(of == member && found.is_nan());
                }
                other => panic!("{other}"),
            }
            assert_eq!(fusion.take_failure(), None);
        }
    }
}

#[test]
fn scoring_and_explaining_name_row_and_step() {
    let (whole, nan) = (broken(1, 0.5), broken(2, f32::INFINITY));
    let fusion = fuse(&whole, &whole, &[("e", &nan)], Weighing::default()).expect("they fit");
    let responses = [vec![1, 3], vec![0, 2, 5, 1]];
    let completions = Completions::from_rows(&[vec![3, 3], vec![4]], &responses, &device());
    let expected = FusionError::Scores {
        member: "expert `e`".into(),
        row: 1,
        step: 2,
        source: RowError::NotFinite { member: Member::Expert(0), token: 4, found: f32::INFINITY },
    };
    assert_eq!(fusion.explain(&completions), Err(expected.clone()));
    assert_eq!(fusion.check_direction(&completions), Err(expected.clone()));
    let message = expected.to_string();
    assert!(message.contains("token 2 of row 1 (expert `e`)") && message.contains("token 4"), "{message}");

    let nan_at = |values: Vec<f32>| values.iter().map(|value| value.is_nan()).collect::<Vec<_>>();
    let scored = fusion.token_log_probs(&completions, 1.0);
    let only = [false, false, false, false, false, false, true, false];
    assert_eq!(
        (nan_at(values(scored.log_probs)), nan_at(values(scored.entropies))),
        (only.to_vec(), only.to_vec())
    );
    assert_eq!(fusion.take_failure(), Some(expected.clone()));
    let next = values(fusion.next_tokens(&completions).scores(1..3));
    assert_eq!(next.chunks(6).map(|row| row[0].is_nan()).collect::<Vec<_>>(), [false, false, false, true]);
    assert_eq!(fusion.take_failure(), Some(expected));
    let whole_row = values(fusion.logits(&batch(&[vec![1, 0, 2, 3]])));
    assert_eq!(
        whole_row.chunks(6).map(|row| row[0].is_nan()).collect::<Vec<_>>(),
        [false, false, true, false]
    );
    assert!(matches!(fusion.take_failure(), Some(FusionError::Scores { row: 0, step: 2, .. })));
}

#[test]
fn a_vocabulary_of_masks_is_no_distribution() {
    let (masked, whole) = (table(&[f32::NEG_INFINITY; 3]), table(&[0.0, 1.0, 2.0]));
    for weighing in crate::world::weighings(1) {
        let fusion = fuse(&masked, &masked, &[("e", &masked)], weighing.clone()).expect("they fit");
        let sampling = SamplingConfig { max_new_tokens: 3, never_stop: true, ..SamplingConfig::default() };
        let options = GenerateOptions::new(&sampling, Draws::new(5));
        let stopped = generate(&fusion, &Prompt::numbered([vec![0]]), &options).err();
        assert_eq!(stopped, Some(GenerateError::NotFinite { row: 0, position: 0 }));
        let kept = fusion.take_failure();
        assert!(
            matches!(&kept, Some(FusionError::Scores { source: RowError::AllMasked { .. }, .. })),
            "{kept:?}"
        );

        let fusion = fuse(&whole, &whole, &[("e", &masked)], weighing).expect("they fit");
        assert!(values(fusion.logits(&batch(&[vec![0]]))).iter().all(|score| score.is_nan()));
        assert!(
            matches!(fusion.take_failure(), Some(FusionError::Scores { member, .. }) if member == "expert `e`")
        );
    }
}

#[test]
fn tokens_masked_by_all_members_stay_masked() {
    let members = [[0.0, 1.0, 2.0], [0.5, 0.0, 1.0], [1.0, 0.2, 0.0]];
    let masked = members.map(|[a, b, c]| table(&[a, f32::NEG_INFINITY, b, c]));
    let plain = members.map(|scores| table(&scores));
    for weighing in crate::world::weighings(1) {
        let fusion = |[base, anchor, expert]: &[BigramLm; 3]| {
            let fusion = fuse(base, anchor, &[("e", expert)], weighing.clone()).expect("they fit");
            values(fusion.logits(&batch(&[vec![0]])))
        };
        let (found, expected) = (fusion(&masked), fusion(&plain));
        assert_eq!(found[1], f32::NEG_INFINITY);
        assert_eq!([found[0], found[2], found[3]], expected[..]);
    }
}

#[test]
fn a_row_longer_than_the_shortest_context_is_refused_by_the_members_name() {
    let members = members();
    let mut config = TransformerConfig::llama(V, 12, 1, 2);
    config.context_length = 8;
    let short = Transformer::init(&config, &Draws::new(8), &device());
    let fusion =
        fuse(&members.base, &members.anchor, &[("short", &short)], Weighing::default()).expect("they fit");
    assert_eq!(fusion.context_length(), Some(8));
    let long = Completions::from_rows(&[vec![1; 4], vec![1; 6]], &[vec![2; 4], vec![2; 3]], &device());
    let too_long = |row| FusionError::TooLong { row, found: 9, context: 8, member: "expert `short`".into() };
    assert_eq!(fusion.explain(&long), Err(too_long(1)));
    assert_eq!(fusion.check_direction(&long), Err(too_long(1)));
    assert!(values(fusion.token_log_probs(&long, 1.0).log_probs).iter().all(|value| value.is_nan()));
    assert_eq!(fusion.take_failure(), Some(too_long(1)));
    assert!(values(fusion.next_tokens(&long).scores(0..1)).iter().all(|value| value.is_nan()));
    assert_eq!(fusion.take_failure(), Some(too_long(1)));
    assert!(values(fusion.logits(&batch(&[vec![1; 9]]))).iter().all(|value| value.is_nan()));
    assert_eq!(fusion.take_failure(), Some(too_long(0)));
    let mut decoder = fusion.decoder();
    assert!(values(decoder.admit(&batch(&[vec![1; 8]]))).iter().all(|value| value.is_finite()));
    assert!(values(decoder.advance(&[1])).iter().all(|value| value.is_nan()));
    assert_eq!(fusion.take_failure(), Some(too_long(0)));

    // Generation ends at the context instead.
    let sampling = SamplingConfig { max_new_tokens: 20, never_stop: true, ..SamplingConfig::default() };
    let options = GenerateOptions::new(&sampling, Draws::new(5));
    let drawn = generate(&fusion, &Prompt::numbered([vec![1; 5], vec![1; 7]]), &options).expect("it fits");
    assert_eq!(drawn.rows.iter().map(|row| row.response.len()).collect::<Vec<_>>(), [3, 1]);
    assert_eq!(fusion.take_failure(), None);
}

#[test]
fn experts_without_direction_are_named_and_decoding_goes_on_without_them() {
    let members = members();
    let anchor: &dyn CausalLm = &members.anchor;
    let experts: [(&str, &dyn CausalLm); 2] = [("tuned", &members.experts[0]), ("untouched", anchor)];
    let fusion = fuse(&members.base, anchor, &experts, Weighing::default()).expect("they fit");
    let found = fusion.check_direction(&completions());
    assert_eq!(found, Err(FusionError::NoDirection { expert: "untouched".into(), positions: 7 }));
    let steps = fusion.explain(&completions()).expect("finite").concat();
    assert!(steps.iter().all(|step| step.expert == Some(0)), "{steps:?}");

    // Scores that differ by a constant are the same distribution.
    let (one, other) = (table(&[0.0, 1.0, 2.0]), table(&[5.0, 6.0, 7.0]));
    let fusion = fuse(&one, &one, &[("shifted", &other)], Weighing::default()).expect("they fit");
    let completions = Completions::from_rows(&[vec![0]], &[vec![1, 2]], &device());
    assert!(matches!(
        fusion.check_direction(&completions),
        Err(FusionError::NoDirection { positions: 2, .. })
    ));
    let steps = fusion.explain(&completions).expect("finite").concat();
    assert!(steps.iter().all(|step| step.skipped), "{steps:?}");
}
