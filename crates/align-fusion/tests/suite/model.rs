//! Laws of a fusion.

use align_core::Draws;
use align_core::{CausalLm, TokenBatch, log_probs};
use align_fusion::{Expert, Fusion, Weighing};
use align_models::LogLinear;
use align_testkit::{BigramLm, assert_close, device, strategies, train_device};
use burn::module::Module;
use burn::tensor::{Bool, Int, Tensor, TensorData, activation::log_softmax};
use proptest::prelude::*;

use crate::world::{
    Members, V, after, batch, before_responses, completions, fixed, members, next_log_probs, prompts,
    responses, transformer, values, weighings,
};

/// Attention sums in another order with a cache or with other rows beside; shifts and weights of up to 2 enlarge that.
const ROUNDING: f64 = 2e-4;

#[test]
fn scores_are_normalised() {
    let members = members();
    for weighing in weighings(2) {
        let logits = members.two(weighing).logits(&batch(&prompts()[..1]));
        assert_close(logits.exp().sum_dim(2), vec![1.0; 5], 1e-5); // f32 sums of 23 terms
    }
}

#[test]
fn decoding_gives_what_the_full_forward_pass_gives() {
    let members = members();
    for weighing in weighings(2) {
        let fusion = members.two(weighing);
        let mut rows = prompts();
        let mut decoder = fusion.decoder();
        let check = |rows: &[Vec<u32>], found: Tensor<2>| {
            let expected: Vec<f32> = rows.iter().flat_map(|row| after(&fusion, row)).collect();
            assert_close(found, expected, ROUNDING);
        };
        let admitted = decoder.admit(&batch(&rows));
        check(&rows, admitted);
        for next in [[7, 8, 10], [22, 0, 3]] {
            rows.iter_mut().zip(next).for_each(|(row, id)| row.push(id));
            let scores = decoder.advance(&next);
            check(&rows, scores);
        }
        // One leaves, one goes on twice, and two are admitted beside them.
        decoder.keep(&[2, 0, 2]);
        rows = vec![rows[2].clone(), rows[0].clone(), rows[2].clone()];
        let new = vec![vec![1; 9], vec![5, 4]];
        let admitted = decoder.admit(&batch(&new));
        check(&new, admitted);
        rows.extend(new);
        rows.iter_mut().for_each(|row| row.push(6));
        let scores = decoder.advance(&[6; 5]);
        check(&rows, scores);
    }
}

#[test]
fn a_batch_is_its_rows_alone() {
    let members = members();
    for weighing in weighings(2) {
        let fusion = members.two(weighing);
        let (rows, width) = (prompts(), 5);
        let logits = fusion.logits(&batch(&rows));
        for (index, row) in rows.iter().enumerate() {
            let found = logits.clone().narrow(0, index, 1).narrow(1, width - row.len(), row.len());
            assert_close(found, fusion.logits(&batch(std::slice::from_ref(row))), ROUNDING);
        }
    }
}

#[test]
fn padding_changes_nothing() {
    let members = members();
    for weighing in weighings(2) {
        let fusion = members.two(weighing);
        let tight = batch(&[vec![2, 6, 5]]);
        // Whatever stands under a false mask, on either side.
        let ids = TensorData::new(vec![13i64, 9, 2, 6, 5, 21], [1, 6]);
        let mask = TensorData::new(vec![false, false, true, true, true, false], [1, 6]);
        let wide = TokenBatch {
            ids: Tensor::<2, Int>::from_data(ids, &device()),
            mask: Tensor::<2, Bool>::from_data(mask, &device()),
        };
        let found = fusion.logits(&wide);
        assert!(values(found.clone()).iter().all(|score| score.is_finite()));
        assert_close(found.narrow(1, 2, 3), fusion.logits(&tight), ROUNDING);
    }
}

#[test]
fn the_scores_before_responses_are_those_of_the_whole_forward_pass() {
    let members = members();
    for weighing in weighings(2) {
        let fusion = members.two(weighing);
        let expected = before_responses(&fusion, &prompts(), &responses()).concat();
        for columns in [1, 3, 4] {
            let found = next_log_probs(&fusion, &completions(), columns).concat();
            assert_close(found, &expected, ROUNDING);
        }
    }
}

#[test]
fn members_with_and_without_states_below_their_heads_stand_side_by_side() {
    let (base, anchor) = (transformer(1, 24), BigramLm::random(V, &Draws::new(5), &device()));
    let expert = BigramLm::random(V, &Draws::new(6), &device());
    let experts = vec![Expert::new("table", Box::new(&expert))];
    let weighing = Weighing::Dynamic(Default::default());
    let fusion = Fusion::new(Box::new(&base), Box::new(&anchor), experts, weighing).expect("they fit");
    let expected = before_responses(&fusion, &prompts(), &responses()).concat();
    assert_close(next_log_probs(&fusion, &completions(), 2).concat(), expected, ROUNDING);
}

#[test]
fn members_may_compute_in_different_precisions() {
    let table = |seed| BigramLm::random(V, &Draws::new(seed), &device());
    let (base, anchor, expert) = (table(1), table(2), table(3));
    let double = expert.to_double();
    let fuse = |expert: &BigramLm| {
        let experts = vec![Expert::new("table", Box::new(expert.clone()) as Box<dyn CausalLm>)];
        let (base, anchor) = (Box::new(base.clone()), Box::new(anchor.clone()));
        Fusion::new(base, anchor, experts, Weighing::default()).expect("they fit")
    };
    let (found, expected) = (fuse(&double), fuse(&expert));
    // The tables hold the same numbers: the host reads them in f32 either way.
    assert_close(found.logits(&batch(&prompts())), expected.logits(&batch(&prompts())), 0.0);
    let scores = |fusion: &Fusion<'_>| fusion.next_tokens(&completions()).scores(0..4);
    assert_close(scores(&found), scores(&expected), 0.0);
    let scored = |fusion: &Fusion<'_>| fusion.token_log_probs(&completions(), 1.0).log_probs;
    assert_close(scored(&found), scored(&expected), 0.0);
}

#[test]
fn token_log_probs_are_read_off_the_fused_scores_at_any_temperature() {
    let members = members();
    let completions = completions();
    for weighing in weighings(2) {
        let fusion = members.two(weighing);
        let scores = fusion.next_tokens(&completions).scores(0..completions.response.width());
        for temperature in [1.0, 0.6] {
            let expected = log_probs::from_logits(scores.clone(), &completions.response, temperature);
            let found = fusion.token_log_probs(&completions, temperature);
            assert_close(found.log_probs, expected.log_probs, ROUNDING);
            assert_close(found.entropies, expected.entropies, ROUNDING);
        }
    }
}

#[test]
fn an_expert_that_is_its_base_leaves_the_large_base() {
    let Members { base, anchor, .. } = members();
    for weighing in weighings(1) {
        let experts = vec![Expert::new("idle", Box::new(&anchor))];
        let fusion = Fusion::new(Box::new(&base), Box::new(&anchor), experts, weighing).expect("they fit");
        let found = fusion.logits(&batch(&prompts()));
        let expected = log_softmax(base.logits(&batch(&prompts())), 2);
        // Rows of length 5, 1, 3: what stands in the padding is nobody's.
        for (row, start) in [(0, 0), (1, 4), (2, 2)] {
            let part = |x: &Tensor<3>| x.clone().narrow(0, row, 1).narrow(1, start, 5 - start);
            assert_close(part(&found), part(&expected), 1e-5); // the same softmax, summed otherwise
        }
    }
}

#[test]
fn weights_of_zero_leave_the_large_base() {
    let members = members();
    let found = after(&members.two(fixed(&[0.0, 0.0])), &[3, 1, 4]);
    assert_close(found, after(&members.base, &[3, 1, 4]), 1e-5); // the same softmax, summed otherwise
}

#[test]
fn a_large_base_that_is_the_small_one_becomes_the_expert() {
    let Members { anchor, experts: [expert, _], .. } = members();
    for weighing in [fixed(&[1.0]), Weighing::Dynamic(Default::default())] {
        let experts = vec![Expert::new("expert", Box::new(&expert))];
        let fusion = Fusion::new(Box::new(&anchor), Box::new(&anchor), experts, weighing).expect("they fit");
        // The search stops within 1e-6 of weight 1, and shifts are of some nats.
        assert_close(after(&fusion, &[3, 1, 4]), after(&expert, &[3, 1, 4]), 1e-4);
    }
}

#[test]
fn the_order_of_experts_changes_nothing() {
    let Members { base, anchor, experts: [first, second] } = members();
    let build = |names: [&str; 2], weighing| {
        let of = |name: &str| if name == "first" { &first } else { &second };
        let experts = names.map(|name| Expert::new(name, Box::new(of(name)))).into();
        Fusion::new(Box::new(&base), Box::new(&anchor), experts, weighing).expect("they fit")
    };
    for (weighing, swapped) in [
        (fixed(&[0.8, -0.3]), fixed(&[-0.3, 0.8])),
        (Weighing::Dynamic(Default::default()), Weighing::Dynamic(Default::default())),
    ] {
        let found = build(["second", "first"], swapped);
        let expected = build(["first", "second"], weighing);
        assert_close(after(&found, &[3, 1, 4]), after(&expected, &[3, 1, 4]), 1e-5); // sums in another order
        // The same expert by name, at every token.
        let chosen = |fusion: &Fusion<'_>| {
            let steps = fusion.explain(&completions()).expect("finite").concat();
            steps
                .iter()
                .map(|step| step.expert.map(|index| fusion.experts()[index].clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(chosen(&found), chosen(&expected));
    }
}

#[test]
fn fixed_weights_are_a_product_of_powers() {
    let members = members();
    let [first, second] = &members.experts;
    let product = LogLinear::new(vec![
        (1.0, Box::new(&members.base)),
        (0.8, Box::new(first)),
        (-0.3, Box::new(second)),
        (-0.5, Box::new(&members.anchor)),
    ]);
    let found = after(&members.two(fixed(&[0.8, -0.3])), &[3, 1, 4]);
    assert_close(found, after(&product, &[3, 1, 4]), 1e-4); // f32 sums of four scores of about ten
}

#[test]
fn explained_weights_give_the_fused_scores() {
    let members = members();
    let fusion = members.two(Weighing::Dynamic(Default::default()));
    let steps = fusion.explain(&completions()).expect("finite");
    assert_eq!(steps.iter().map(Vec::len).collect::<Vec<_>>(), [2, 4, 1]);
    let before = |model: &dyn CausalLm| before_responses(model, &prompts(), &responses());
    let found = before(&fusion);
    let (base, anchor) = (before(&members.base), before(&members.anchor));
    let experts = [before(&members.experts[0]), before(&members.experts[1])];
    for (at, step) in steps.concat().iter().enumerate() {
        assert_eq!(step.weights.len(), 2);
        let moved = (0..V).map(|v| {
            let shift = |expert: usize| f64::from(experts[expert][at][v]) - f64::from(anchor[at][v]);
            f64::from(base[at][v]) + step.weights[0] * shift(0) + step.weights[1] * shift(1)
        });
        let moved: Vec<f64> = moved.collect();
        let total = moved.iter().map(|score| score.exp()).sum::<f64>().ln();
        assert_close(&found[at], moved.iter().map(|score| score - total).collect::<Vec<_>>(), ROUNDING);
    }
    // Weights that never moved would explain nothing.
    let weights: Vec<f64> = steps.concat().iter().map(|step| step.weights.iter().sum()).collect();
    assert!(weights.iter().any(|weight| (weight - weights[0]).abs() > 0.05), "{weights:?}");
}

#[test]
fn padding_rows_of_the_vocabulary_are_cut_off_when_asked() {
    let table = |logits: &[f32]| BigramLm::independent(logits, &device());
    let base = table(&[2.0, 1.0, 0.5, -1.0]);
    let (anchor, expert) = (table(&[1.0, 1.2, 0.0, -0.5]), table(&[0.2, 2.5, 0.0, -0.5, 9.9]));
    let experts = || vec![Expert::new("wide", Box::new(&expert) as Box<dyn CausalLm>)];
    let refused = Fusion::new(Box::new(&base), Box::new(&anchor), experts(), fixed(&[1.0]));
    assert!(refused.is_err());
    let fusion = Fusion::with_same_tokenizers(Box::new(&base), Box::new(&anchor), experts(), fixed(&[1.0]))
        .expect("sliced");
    assert_eq!(fusion.vocab_size(), 4);
    let found: Vec<f32> = after(&fusion, &[0]).iter().map(|score| score.exp()).collect();
    // T11 of the specification: T1's static vector.
    assert_close(found, [0.216_846_619, 0.651_443_246, 0.107_682_844, 0.024_027_29], 1e-6);
}

#[test]
fn recording_members_give_constants() {
    let Members { base, anchor, experts: [expert, _] } = members();
    let plain = after(
        &Fusion::proxy_tuning(Box::new(&base), Box::new(&anchor), Box::new(&expert)).expect("fit"),
        &[3, 1],
    );
    let (base, expert) = (base.train(), expert.train());
    let fusion = Fusion::proxy_tuning(Box::new(&base), Box::new(&anchor), Box::new(&expert)).expect("fit");
    assert_eq!(fusion.device(), train_device());
    assert!(!fusion.logits(&batch(&prompts())).is_autodiff());
    let scored = fusion.token_log_probs(&completions(), 1.0);
    assert!(!scored.log_probs.is_autodiff() && !fusion.next_tokens(&completions()).states.is_autodiff());
    assert_close(after(&fusion, &[3, 1]), plain, ROUNDING);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn rows_do_not_notice_each_other(rows in strategies::ragged_rows(4, 6, 7), seed in 0u64..1000) {
        let rows: Vec<Vec<u32>> = rows.into_iter().map(|mut row| { row.push(1); row }).collect();
        let table = |part| BigramLm::random(7, &Draws::new(seed).child(part), &device());
        let (base, anchor, expert) = (table(0), table(1), table(2));
        let experts = vec![Expert::new("table", Box::new(&expert))];
        let fusion = Fusion::new(Box::new(&base), Box::new(&anchor), experts, Weighing::default()).expect("they fit");
        let together = values(fusion.decoder().admit(&batch(&rows)));
        let alone: Vec<f32> = rows.iter().flat_map(|row| after(&fusion, row)).collect();
        // `after` takes the softmax of what is normalised already.
        for (found, expected) in together.iter().zip(&alone) {
            prop_assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }
}
