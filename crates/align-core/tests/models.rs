//! Laws of decoders, frozen models, references and judges, on bigram policies.

use std::sync::Arc;

use align_core::{
    BradleyTerry, CachedReference, CausalLm, Completions, Critic, Draws, Frozen, Preference, PreferenceFn,
    Reference, Reward, RewardFn, TokenBatch, log_probs,
};
use align_testkit::{BigramCritic, BigramLm, Values, assert_close, device, plain, train_device};
use burn::module::Module;
use burn::tensor::{Device, Tensor};

fn policy(device: &Device) -> BigramLm {
    BigramLm::random(5, &Draws::new(11), device)
}

fn completions() -> Completions {
    Completions::from_rows(
        &[vec![1], vec![0, 3, 2], vec![4, 4]],
        &[vec![2, 0, 1], vec![3], vec![]],
        &device(),
    )
}

/// A model whose scores depend on how many tokens count and on their sum: a decoder that loses a token is noticed.
struct Counting;

impl CausalLm for Counting {
    fn logits(&self, tokens: &TokenBatch) -> Tensor<3> {
        let [b, t] = tokens.ids.dims();
        let seen = tokens.ids.clone().float().mask_fill(tokens.mask.clone().bool_not(), 0.0).cumsum(1);
        let count = tokens.mask.clone().int().float().cumsum(1);
        Tensor::stack::<3>(vec![seen, count.clone(), count * 0.5], 2).reshape([b, t, 3])
    }
    fn vocab_size(&self) -> usize {
        3
    }
    fn device(&self) -> Device {
        device()
    }
}

/// Scores after the last token of each row, by a full forward pass of that row alone.
fn after(rows: &[&[u32]]) -> Vec<Vec<f64>> {
    rows.iter()
        .map(|row| {
            let batch = TokenBatch::left_padded(&[row.to_vec()], &device());
            Counting.logits(&batch).slice([0..1, row.len() - 1..row.len()]).values()
        })
        .collect()
}

fn rows_of(logits: Tensor<2>) -> Vec<Vec<f64>> {
    logits.values().chunks(3).map(<[f64]>::to_vec).collect()
}

#[test]
fn decoding_equals_the_full_forward_while_rows_come_and_go() {
    let mut decoder = Counting.decoder();
    let prompts = TokenBatch::left_padded(&[vec![1], vec![2, 1, 2]], &device());
    assert_eq!(rows_of(decoder.admit(&prompts)), after(&[&[1], &[2, 1, 2]]));
    assert_eq!(rows_of(decoder.advance(&[2, 0])), after(&[&[1, 2], &[2, 1, 2, 0]]));
    // A third row joins; only its scores come back, and the others do not notice.
    let late = TokenBatch::left_padded(&[vec![1, 1]], &device());
    assert_eq!(rows_of(decoder.admit(&late)), after(&[&[1, 1]]));
    assert_eq!(rows_of(decoder.advance(&[1, 1, 0])), after(&[&[1, 2, 1], &[2, 1, 2, 0, 1], &[1, 1, 0]]));
    // The first row leaves, the others change places.
    decoder.keep(&[2, 1]);
    assert_eq!(rows_of(decoder.advance(&[2, 2])), after(&[&[1, 1, 0, 2], &[2, 1, 2, 0, 1, 2]]));
}

#[test]
#[should_panic(expected = "one token for each row")]
fn a_decoder_refuses_another_number_of_tokens() {
    let mut decoder = Counting.decoder();
    decoder.admit(&TokenBatch::left_padded(&[vec![1], vec![2]], &device()));
    decoder.advance(&[0]);
}

#[test]
fn token_log_probs_read_the_row_before_each_token() {
    let model = policy(&device());
    let found = model.token_log_probs(&completions(), 2.0);
    // By hand from the table: log softmax(row / 2) at the next token.
    let table = model.table.val().values();
    let log_prob = |last: usize, next: usize| {
        let row: Vec<f64> = table[last * 5..last * 5 + 5].iter().map(|z| z / 2.0).collect();
        row[next] - row.iter().map(|z| z.exp()).sum::<f64>().ln()
    };
    let expected = [log_prob(1, 2), log_prob(2, 0), log_prob(0, 1), log_prob(2, 3), 0.0, 0.0, 0.0, 0.0, 0.0];
    assert_close(found.log_probs.clone(), expected, 1e-6); // one softmax in f32
    let entropy = |last: usize| (0..5).map(|v| -log_prob(last, v).exp() * log_prob(last, v)).sum::<f64>();
    let expected = [entropy(1), entropy(2), entropy(0), entropy(2), 0.0, 0.0, 0.0, 0.0, 0.0];
    assert_close(found.entropies, expected, 1e-6);
    let sums = log_probs::sequence_log_probs(found.log_probs, &completions().response.mask);
    assert_close(sums, [log_prob(1, 2) + log_prob(2, 0) + log_prob(0, 1), log_prob(2, 3), 0.0], 2e-6);
}

#[test]
fn probabilities_of_all_responses_add_up_to_one() {
    let all = policy(&device()).to_double().enumerate(&[3], 3, Some(0));
    // 1 + 4·1 + 16·5: stopped at once, stopped second, and the rest.
    assert_eq!(all.len(), 85);
    let total = all.log_probs(&policy(&device()).to_double()).exp().sum();
    assert_close(total, 1.0, 1e-12);
}

#[test]
fn a_frozen_model_records_nothing_and_answers_the_same() {
    let trained = policy(&train_device());
    let frozen = Frozen::new(&trained);
    let batch = completions().joined();
    assert!(trained.logits(&batch).is_autodiff());
    assert!(!frozen.logits(&batch).is_autodiff());
    assert_eq!(frozen.logits(&batch).values(), trained.logits(&batch).values());
    assert!(!frozen.token_log_probs(&completions(), 1.0).log_probs.is_autodiff());
    assert_eq!((frozen.vocab_size(), frozen.context_length()), (5, None));
}

#[test]
fn a_frozen_model_shares_no_leaf_with_the_policy_it_was_made_of() {
    // T1: the log-ratio of a policy to its frozen self is 0 everywhere, and still has the policy's whole gradient.
    let trained = policy(&train_device());
    let frozen = Frozen::new(&trained);
    let difference = |reference: Tensor<2>| {
        let loss = (trained.token_log_probs(&completions(), 1.0).log_probs - reference).sum();
        (loss.clone().into_scalar::<f32>(), align_testkit::gradient(&loss, &trained.table.val()))
    };
    let (value, gradient) = difference(Reference::log_probs(&frozen, &completions(), 1.0));
    assert_eq!(value, 0.0);
    assert!(gradient.iter().any(|slope| *slope != 0.0), "the gradient cancelled: {gradient:?}");
}

#[test]
fn a_later_change_of_the_policy_leaves_the_frozen_copy_alone() {
    let trained = policy(&train_device());
    let frozen = Frozen::new(&trained);
    let before = frozen.logits(&completions().joined()).values();
    let moved = BigramLm {
        table: trained.table.map(|table| (table.without_autodiff() + 1.0).autodiff().require_grad()),
    };
    assert_eq!(frozen.logits(&completions().joined()).values(), before);
    assert_ne!(moved.logits(&completions().joined()).values(), before);
    assert!(!frozen.get().table.val().is_require_grad());
}

/// Counts its calls, to see which method a wrapper forwards.
struct Overriding(BigramLm);

impl CausalLm for Overriding {
    fn logits(&self, tokens: &TokenBatch) -> Tensor<3> {
        self.0.logits(tokens)
    }
    fn vocab_size(&self) -> usize {
        self.0.vocab_size()
    }
    fn device(&self) -> Device {
        self.0.device()
    }
    fn context_length(&self) -> Option<usize> {
        Some(17)
    }
    fn token_log_probs(&self, completions: &Completions, temperature: f64) -> log_probs::TokenLogProbs {
        let found = self.0.token_log_probs(completions, temperature);
        log_probs::TokenLogProbs { log_probs: found.log_probs + 100.0, entropies: found.entropies }
    }
}

#[test]
fn overrides_survive_pointers_and_boxes() {
    let model = Arc::new(Overriding(policy(&device())));
    let boxed: Box<dyn CausalLm> = Box::new(model.clone());
    let expected = model.token_log_probs(&completions(), 1.0).log_probs.values();
    for found in [
        (&boxed as &dyn CausalLm).token_log_probs(&completions(), 1.0),
        boxed.token_log_probs(&completions(), 1.0),
    ] {
        assert_eq!(found.log_probs.values(), expected);
    }
    assert_eq!(boxed.context_length(), Some(17));
    assert_eq!(Reference::log_probs(&boxed, &completions(), 1.0).values(), expected);
}

#[test]
fn a_cached_reference_replays_what_it_was_asked() {
    let model = policy(&device());
    let cached = CachedReference::new(&model, &completions(), 0.7);
    let fresh = Reference::log_probs(&model, &completions(), 0.7);
    assert_eq!(cached.log_probs(&completions(), 0.7).values(), fresh.values());
}

#[test]
#[should_panic(expected = "cached at another temperature")]
fn a_cached_reference_refuses_another_temperature() {
    CachedReference::new(&policy(&device()), &completions(), 0.7).log_probs(&completions(), 1.0);
}

#[test]
#[should_panic(expected = "cached for other completions")]
fn a_cached_reference_refuses_other_completions() {
    let other = Completions::from_rows(&[vec![1]], &[vec![2, 2]], &device());
    CachedReference::new(&policy(&device()), &completions(), 1.0).log_probs(&other, 1.0);
}

#[test]
fn a_critic_values_the_state_before_each_token() {
    let critic = BigramCritic::from_values(&[0.0, 10.0, 20.0, 30.0, 40.0], &device());
    // Before 2 stands the prompt's 1, before 0 stands 2, before 1 stands 0; padding is worth 0.
    assert_close(critic.values(&completions()), [10.0, 20.0, 0.0, 20.0, 0.0, 0.0, 0.0, 0.0, 0.0], 0.0);
}

#[test]
fn bradley_terry_compares_scores() {
    let lengths = RewardFn(|c: &Completions| {
        let lengths: Vec<f32> = c.response.lengths().iter().map(|&length| length as f32).collect();
        plain::<1>(lengths.as_slice())
    });
    let reversed = completions().select(&[2, 1, 0]);
    // Lengths 3, 1, 0 against 0, 1, 3: σ(3), σ(0), σ(−3).
    let odds = 1.0 / (1.0 + (-3f64).exp());
    let found = BradleyTerry(&lengths).prefer(&completions(), &reversed);
    assert_close(found.clone(), [odds, 0.5, 1.0 - odds], 1e-6); // one sigmoid in f32
    // Asking the other way round gives the complement.
    let other = BradleyTerry(&lengths).prefer(&reversed, &completions());
    assert_close(found + other, [1.0; 3], 1e-6);
    let boxed: Box<dyn Preference> =
        Box::new(PreferenceFn(|first: &Completions, _: &Completions| lengths.score(first) * 0.0 + 0.25));
    assert_close(boxed.prefer(&completions(), &reversed), [0.25; 3], 0.0);
}

#[test]
fn positions_count_only_what_counts() {
    let batch = TokenBatch::left_padded(&[vec![7], vec![7, 8, 9]], &device());
    assert_eq!(batch.positions().to_data().iter::<i64>().collect::<Vec<_>>(), [0, 0, 0, 0, 1, 2]);
    assert!(!TokenBatch::left_padded(&[vec![7]], &train_device()).ids.is_autodiff());
}

#[test]
fn a_module_counts_its_parameters() {
    assert_eq!(policy(&device()).num_params(), 25);
}
