//! A fusion wherever a model goes: sampled, scored, selected from, a reference, a member of something else.

use align_core::selection::best_of_n;
use align_core::{CachedReference, CausalLm, Completions, Draws, Reference};
use align_fusion::{Expert, Fusion, Weighing};
use align_models::{GenerateOptions, Generation, LogLinear, Prompt, SamplingConfig, generate};
use align_testkit::{assert_close, device};

use crate::world::{after, before_responses, completions, members, prompts, responses, weighings};

fn sampling(changes: impl FnOnce(&mut SamplingConfig)) -> SamplingConfig {
    let mut sampling =
        SamplingConfig { max_new_tokens: 6, stop_token_ids: vec![0, 1], ..SamplingConfig::default() };
    changes(&mut sampling);
    sampling
}

fn drawn(model: &dyn CausalLm, sampling: &SamplingConfig, samples: usize, slots: usize) -> Generation {
    let options = GenerateOptions { samples, slots, ..GenerateOptions::new(sampling, Draws::new(11)) };
    generate(model, &Prompt::numbered(prompts()), &options).expect("finite")
}

#[test]
fn scoring_gives_the_log_probabilities_that_sampling_used() {
    let members = members();
    for weighing in weighings(2) {
        let fusion = members.two(weighing);
        let sampling = sampling(|_| ());
        let generation = drawn(&fusion, &sampling, 3, 4);
        let completions = generation.to_completions(&device());
        let scored = fusion.token_log_probs(&completions, 1.0).log_probs;
        // With a cache attention sums in another order; the weights are found anew.
        assert_close(scored, generation.sampled_log_probs(&device()), 2e-4);
    }
}

#[test]
fn temperature_comes_after_fusion() {
    let members = members();
    for weighing in weighings(1) {
        let fusion = members.one(weighing);
        let sampling =
            sampling(|sampling| sampling.temperature = "0.5".parse::<f64>().unwrap().try_into().unwrap());
        let generation = drawn(&fusion, &sampling, 2, 8);
        let completions = generation.to_completions(&device());
        let scored = fusion.token_log_probs(&completions, 0.5).log_probs;
        assert_close(scored, generation.raw_log_probs(&device()), 4e-4); // scores are doubled, and so is their rounding
    }
}

#[test]
fn the_number_of_slots_changes_nothing() {
    let members = members();
    for weighing in weighings(2) {
        let fusion = members.two(weighing);
        let sampling = sampling(|_| ());
        let responses = |slots| -> Vec<Vec<u32>> {
            drawn(&fusion, &sampling, 4, slots).rows.into_iter().map(|row| row.response).collect()
        };
        let one = responses(1);
        assert_eq!(responses(2), one);
        assert_eq!(responses(12), one);
    }
}

#[test]
fn the_best_of_n_is_chosen_from_its_samples() {
    let members = members();
    let fusion = members.two(Weighing::default());
    let generation = drawn(&fusion, &sampling(|_| ()), 8, 16);
    let scores: Vec<f32> = generation.rows.iter().map(|row| row.response.len() as f32).collect();
    let best = best_of_n(&scores, 8);
    assert_eq!(best.len(), 3);
    let mean = scores.iter().sum::<f32>() / scores.len() as f32;
    assert!(best.iter().all(|&index| scores[index] > mean), "{best:?} of {scores:?}");
}

#[test]
fn it_is_a_reference() {
    let members = members();
    let fusion = members.one(Weighing::default());
    let reference: &dyn Reference = &fusion;
    let found = reference.log_probs(&completions(), 1.0);
    let expected = before_responses(&fusion, &prompts(), &responses());
    let rows = responses();
    let tokens = rows.iter().flatten().zip(&expected).map(|(&id, scores)| scores[id as usize]);
    // `[B, R]`: 0 past the end.
    let mut tokens = tokens;
    let padded: Vec<f32> = rows
        .iter()
        .flat_map(|row| {
            let mut row: Vec<f32> = row.iter().map(|_| tokens.next().expect("one a token")).collect();
            row.resize(4, 0.0);
            row
        })
        .collect();
    assert_close(found.clone(), padded, 2e-4); // other orders of summation
    assert_close(
        CachedReference::new(reference, &completions(), 1.0).log_probs(&completions(), 1.0),
        found,
        0.0,
    );
    assert!(reference.distributions(&completions()).is_some());
}

#[test]
fn it_is_a_member_of_a_mixture_and_of_a_fusion() {
    let members = members();
    let inner = || -> Box<dyn CausalLm + '_> { Box::new(members.one(Weighing::default())) };
    let half = LogLinear::new(vec![(0.5, inner()), (0.5, inner())]);
    let row = [3, 1, 4];
    assert_close(after(&half, &row), after(&inner(), &row), 1e-5); // halves of the same scores

    // A fusion as the large base of another, whose expert takes the first one's shift back.
    let experts = vec![Expert::new("back", Box::new(&members.anchor) as Box<dyn CausalLm>)];
    let weighing = Weighing::Static { weights: vec![1.0] };
    let forth = members.one(weighing.clone());
    let back =
        Fusion::new(Box::new(forth), Box::new(&members.experts[0]), experts, weighing).expect("they fit");
    assert_close(after(&back, &row), after(&members.base, &row), 1e-4); // f32 sums of four scores of about ten
    let mut decoder = back.decoder();
    let scores = decoder.admit(&crate::world::batch(&[row.to_vec()]));
    assert_close(scores, after(&members.base, &row), 2e-4);
}

#[test]
fn a_row_is_explained_as_it_was_drawn() {
    let members = members();
    let fusion = members.two(Weighing::default());
    let generation = drawn(&fusion, &sampling(|_| ()), 1, 3);
    let together = fusion.explain(&generation.to_completions(&device())).expect("finite");
    for (row, expected) in generation.rows.iter().zip(&together) {
        let alone = Completions::from_rows(
            std::slice::from_ref(&row.prompt),
            std::slice::from_ref(&row.response),
            &device(),
        );
        let found = fusion.explain(&alone).expect("finite").remove(0);
        assert_eq!(found.len(), row.response.len());
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found.expert, expected.expert);
            assert_close(&found.weights, &expected.weights, 1e-3); // the loss is flat at its minimum
        }
    }
}
