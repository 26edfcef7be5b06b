//! Geometric mixtures: what their distribution is, and that decoding gives what a whole pass gives.

use align_core::{CausalLm, Completions, Draws, TokenBatch};
use align_models::{
    GenerateOptions, LogLinear, Prompt, SamplingConfig, Transformer, TransformerConfig, generate,
};
use align_testkit::{BigramLm, assert_close, device};
use burn::tensor::activation::log_softmax;

const VOCABULARY: usize = 11;

fn transformer(seed: u64, layers: usize) -> Transformer {
    Transformer::init(&TransformerConfig::llama(VOCABULARY, 16, layers, 2), &Draws::new(seed), &device())
}

#[test]
fn the_mixture_is_the_weighted_sum_of_log_probabilities() {
    let (a, b) = (transformer(1, 1), transformer(2, 2));
    let tokens = TokenBatch::left_padded(&[vec![3, 1, 4], vec![5]], &device());
    let of = |model: &dyn CausalLm| log_softmax(model.logits(&tokens), 2);
    let mixture = LogLinear::new(vec![(0.7, Box::new(&a)), (0.3, Box::new(&b))]);
    let expected: Vec<f32> = log_softmax(of(&a) * 0.7 + of(&b) * 0.3, 2).to_data().iter::<f32>().collect();
    assert_close(of(&mixture), expected, 1e-6); // a few roundings in f32
}

#[test]
fn all_the_weight_on_one_member_is_that_member() {
    let (a, b) =
        (BigramLm::random(5, &Draws::new(1), &device()), BigramLm::random(5, &Draws::new(2), &device()));
    let mixture = LogLinear::new(vec![(1.0, Box::new(&a)), (0.0, Box::new(&b))]);
    let answered = Completions::from_rows(&[vec![0], vec![1]], &[vec![2, 3], vec![4]], &device());
    let log_probs = |model: &dyn CausalLm| -> Vec<f32> {
        model.token_log_probs(&answered, 1.0).log_probs.to_data().iter::<f32>().collect()
    };
    assert_close(mixture.token_log_probs(&answered, 1.0).log_probs, log_probs(&a), 1e-6);
    assert_ne!(log_probs(&a), log_probs(&b));
}

/// Rows come, go and are doubled; every member's own cache has to follow.
#[test]
fn decoding_with_the_members_caches_equals_a_whole_pass() {
    let (a, b) = (transformer(1, 1), transformer(2, 2));
    let mixture = LogLinear::new(vec![(0.5, Box::new(&a)), (0.5, Box::new(&b))]);
    let prompts = [vec![3, 1, 4], vec![5]];
    let whole = |rows: &[Vec<u32>]| -> Vec<f32> {
        let last = rows.iter().flat_map(|row| {
            let logits = mixture.logits(&TokenBatch::left_padded(std::slice::from_ref(row), &device()));
            let [_, t, v] = logits.dims();
            logits.slice([0..1, t - 1..t, 0..v]).to_data().iter::<f32>().collect::<Vec<_>>()
        });
        last.collect()
    };
    let mut decoder = mixture.decoder();
    let tolerance = 1e-5; // a cache sums in another order
    assert_close(decoder.admit(&TokenBatch::left_padded(&prompts, &device())), whole(&prompts), tolerance);
    assert_close(decoder.advance(&[2, 6]), whole(&[vec![3, 1, 4, 2], vec![5, 6]]), tolerance);
    decoder.keep(&[1, 1]);
    assert_close(decoder.advance(&[7, 8]), whole(&[vec![5, 6, 7], vec![5, 6, 8]]), tolerance);
}

#[test]
fn a_mixture_is_sampled_like_any_model() {
    let a = BigramLm::independent(&[0.0, 0.0, 40.0], &device());
    let b = BigramLm::independent(&[0.0, 60.0, 0.0], &device());
    let mixture = LogLinear::new(vec![(0.5, Box::new(&a)), (0.5, Box::new(&b))]);
    let sampling = SamplingConfig { max_new_tokens: 3, never_stop: true, ..SamplingConfig::default() };
    let drawn =
        generate(&mixture, &Prompt::numbered([vec![0]]), &GenerateOptions::new(&sampling, Draws::new(3)));
    // Scores (0, 30, 20): the second token, but for a chance of e⁻¹⁰ a draw.
    assert_eq!(drawn.unwrap().rows[0].response, [1, 1, 1]);
}

#[test]
#[should_panic(expected = "a mixture needs one vocabulary, found [5, 6]")]
fn members_of_different_vocabularies_are_refused() {
    let (a, b) =
        (BigramLm::random(5, &Draws::new(1), &device()), BigramLm::random(6, &Draws::new(2), &device()));
    LogLinear::new(vec![(0.5, Box::new(&a)), (0.5, Box::new(&b))]);
}
