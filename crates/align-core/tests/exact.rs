//! Divergences over the whole vocabulary: values, gradients, parts, masks.

use align_core::divergence::{
    AlphaDivergence, ChiSquared, Divergence, JensenShannon, Kl, KlLoss, LossDivergence, ReverseKl,
    SquaredHellinger, TotalVariation,
};
use align_core::exact::{Exact, add_gradients, token_divergences};
use align_core::number::Finite;
use align_core::{
    CachedReference, CausalLm, Completions, Draws, Frozen, NextTokens, Reference, TokenBatch, log_probs,
};
use align_testkit::gradcheck::{assert_module_gradients, module_gradients};
use align_testkit::{BigramLm, Values, assert_close, device, train_device};
use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};

const V: usize = 5;

fn models() -> (BigramLm, BigramLm) {
    let policy = BigramLm::random(V, &Draws::new(1), &train_device()).to_double();
    (policy, BigramLm::random(V, &Draws::new(2), &device()).to_double())
}

fn completions() -> Completions {
    let prompts = [vec![1], vec![0, 3, 2], vec![4, 4]];
    Completions::from_rows(&prompts, &[vec![2, 0, 1, 3, 4], vec![3], vec![0, 0, 2]], &device())
}

fn every_divergence() -> Vec<Box<dyn Divergence>> {
    let alpha = |alpha| Box::new(AlphaDivergence { alpha: Finite::literal(alpha) });
    vec![
        Box::new(Kl::default()),
        Box::new(ReverseKl),
        Box::new(ChiSquared),
        Box::new(JensenShannon),
        Box::new(SquaredHellinger),
        Box::new(TotalVariation),
        alpha(0.3),
        alpha(3.0),
    ]
}

fn exact(divergence: &dyn Divergence, columns: usize) -> Exact<'_> {
    Exact { divergence, temperature: 0.8, columns }
}

fn measured(policy: &BigramLm, reference: &BigramLm, how: &Exact<'_>) -> Tensor<2> {
    let batch = completions();
    token_divergences(&policy.next_tokens(&batch), &reference.next_tokens(&batch), &batch.response.mask, how)
}

#[test]
fn every_token_has_the_divergence_between_the_rows_it_was_drawn_from() {
    let (policy, reference) = models();
    let rows = |model: &BigramLm| {
        burn::tensor::activation::log_softmax(model.table.val().without_autodiff() / 0.8, 1)
    };
    // The token before each response token decides the row of a bigram's table.
    let before = [vec![1, 2, 0, 1, 3], vec![2], vec![4, 0, 0]];
    for divergence in every_divergence() {
        let by_row = divergence.exact(rows(&policy), rows(&reference)).values();
        let expected: Vec<f64> = before
            .iter()
            .flat_map(|row| (0..5).map(|t| row.get(t).map_or(0.0, |&token: &usize| by_row[token])))
            .collect();
        for columns in [1, 2, 5, 64] {
            assert_close(
                measured(&policy, &reference, &exact(&divergence, columns)),
                expected.clone(),
                1e-12,
            );
        }
    }
    let batch = completions();
    let whole = log_probs::kl_exact(
        policy.next_tokens(&batch).scores(0..5).without_autodiff(),
        reference.next_tokens(&batch).scores(0..5),
        &batch.response.mask,
        0.8,
    );
    assert_close(measured(&policy, &reference, &exact(&Kl::default(), 3)), whole, 1e-14);
}

#[test]
fn the_gradient_is_that_of_the_divergence_and_parts_have_the_one_of_the_whole() {
    let (policy, reference) = models();
    for divergence in every_divergence() {
        let loss = |policy: &BigramLm| measured(policy, &reference, &exact(&divergence, 2)).sum() * 0.3;
        // Burn's backward pass of a division by a scalar rounds the scalar to f32.
        assert_module_gradients(&policy, loss, 1e-6);
        let expected = module_gradients(&policy, &loss(&policy))["table"].clone();
        let batch = completions();
        for columns in [1, 2, 5, 64] {
            let mut found = GradientsParams::new();
            let of_reference = reference.next_tokens(&batch);
            let how = exact(&divergence, columns);
            // Twice, into the same gradients: they add up.
            let value = add_gradients(&policy, &batch, &of_reference, &how, 0.3, &mut found);
            add_gradients(&policy, &batch, &of_reference, &how, 0.3, &mut found);
            assert_close(value, loss(&policy).without_autodiff(), 1e-12);
            let table = found.get::<2>(policy.table.id).expect("the table was reached") / 2.0;
            assert_close(table, expected.clone(), 1e-12);
        }
    }
}

#[test]
fn draws_from_the_policy_average_to_the_exact_gradient_token_by_token() {
    // One-token responses, all of them, weighed by the policy: what sampling averages is what is exact.
    let (policy, reference) = models();
    let all = policy.enumerate(&[2], 1, None);
    for (sampled, divergence) in [
        (&KlLoss::K2 as &dyn LossDivergence, &Kl::default() as &dyn Divergence),
        (&KlLoss::K3, &ReverseKl),
        (&ChiSquared, &ChiSquared),
        (&JensenShannon, &JensenShannon),
    ] {
        let log_probs = all.log_probs(&policy);
        let weights = log_probs.clone().without_autodiff().exp();
        let log_ratio = (log_probs - all.log_probs(&reference)).unsqueeze_dim(1);
        let loss = (sampled.surrogate(log_ratio).squeeze_dim::<1>(1) * weights).sum();
        let by_draws = module_gradients(&policy, &loss)["table"].clone();
        let one = Completions::from_rows(&[vec![2]], &[vec![0]], &device());
        let how = Exact { divergence, temperature: 1.0, columns: 1 };
        let mut found = GradientsParams::new();
        add_gradients(&policy, &one, &reference.next_tokens(&one), &how, 1.0, &mut found);
        assert_close(found.get::<2>(policy.table.id).expect("reached"), by_draws, 1e-12);
    }
}

/// A model with a head of its own: states are rows of one table, scores a product with another.
#[derive(Module, Debug)]
struct TwoParts {
    states: Param<Tensor<2>>,
    head: Param<Tensor<2>>,
}

impl TwoParts {
    fn new(device: &Device) -> Self {
        let draw = |seed| BigramLm::random(V, &Draws::new(seed), device).to_double().table;
        Self { states: draw(3), head: draw(4) }
    }

    fn score(&self, states: Tensor<3>) -> Tensor<3> {
        let [b, c, e] = states.dims();
        states.reshape([b * c, e]).matmul(self.head.val()).reshape([b, c, V])
    }

    fn states_of(&self, tokens: &TokenBatch) -> Tensor<3> {
        let [b, t] = tokens.ids.dims();
        self.states.val().select(0, tokens.ids.clone().reshape([b * t])).reshape([b, t, V])
    }
}

impl CausalLm for TwoParts {
    fn logits(&self, tokens: &TokenBatch) -> Tensor<3> {
        self.score(self.states_of(tokens))
    }
    fn vocab_size(&self) -> usize {
        V
    }
    fn device(&self) -> Device {
        self.states.val().device()
    }
    fn next_tokens<'a>(&'a self, completions: &Completions) -> NextTokens<'a> {
        let [b, r] = completions.response.ids.dims();
        let [_, p] = completions.prompt.ids.dims();
        let states = self.states_of(&completions.joined()).slice([0..b, p - 1..p + r - 1]);
        NextTokens::new(states, |states| self.score(states))
    }
}

#[test]
fn a_head_of_its_own_gets_its_gradients_and_the_model_below_it_gets_its() {
    let (policy, (_, reference)) = (TwoParts::new(&train_device()), models());
    let batch = completions();
    let of_reference = reference.next_tokens(&batch);
    let loss = |policy: &TwoParts| {
        let how = exact(&ReverseKl, 2);
        token_divergences(&policy.next_tokens(&batch), &of_reference, &batch.response.mask, &how).sum()
    };
    let expected = module_gradients(&policy, &loss(&policy));
    let whole = token_divergences(
        &NextTokens::of_scores(policy.valid().next_tokens(&batch).scores(0..5)),
        &of_reference,
        &batch.response.mask,
        &exact(&ReverseKl, 5),
    );
    assert_close(loss(&policy).without_autodiff(), whole.sum(), 1e-12);
    for columns in [1, 3, 9] {
        let mut found = GradientsParams::new();
        let how = exact(&ReverseKl, columns);
        add_gradients(&policy, &batch, &of_reference, &how, 1.0, &mut found);
        for (name, param) in [("states", &policy.states), ("head", &policy.head)] {
            assert_close(found.get::<2>(param.id).expect(name), expected[name].clone(), 1e-12);
        }
        // What is frozen below the head stays out of it.
        let mut frozen = policy.clone();
        frozen.states = frozen.states.set_require_grad(false);
        let mut found = GradientsParams::new();
        add_gradients(&frozen, &batch, &of_reference, &how, 1.0, &mut found);
        assert_close(found.get::<2>(frozen.head.id).expect("the head"), expected["head"].clone(), 1e-12);
        assert!(found.get::<2>(frozen.states.id).is_none());
    }
}

#[test]
fn what_overflows_under_a_false_mask_reaches_no_gradient() {
    // After token 1 the reference all but forbids what the policy is sure of: e^{200} in χ². It only precedes padding.
    let certain =
        |token: usize| (0..2).map(|v| if v == token { 100.0 } else { -100.0 }).collect::<Vec<f32>>();
    let policy = BigramLm::from_logits(vec![vec![0.3, 0.0], certain(0)], &train_device());
    let reference = BigramLm::from_logits(vec![vec![0.0, 0.3], certain(1)], &device());
    let batch = Completions::from_rows(&[vec![0], vec![0]], &[vec![1], vec![0, 0]], &device());
    assert_eq!(batch.response.ids.to_data().iter::<i64>().collect::<Vec<_>>(), [1, 0, 0, 0]);
    let how = Exact { divergence: &ChiSquared, temperature: 1.0, columns: 1 };
    let mut found = GradientsParams::new();
    add_gradients(&policy, &batch, &reference.next_tokens(&batch), &how, 1.0, &mut found);
    let table = found.get::<2>(policy.table.id).expect("reached").values();
    assert!(table.iter().all(|slope| slope.is_finite()), "{table:?}");
    assert_eq!(&table[2..], [0.0, 0.0]);
    assert!(table[0] > 0.0 && table[1] < 0.0);
}

#[test]
fn models_have_distributions_and_caches_have_none() {
    let (policy, reference) = models();
    let batch = completions();
    let frozen = Frozen::new(&policy);
    let of_frozen = Reference::distributions(&frozen, &batch).expect("a model").scores(1..3);
    assert!(!of_frozen.is_autodiff());
    assert_close(of_frozen, policy.next_tokens(&batch).scores(1..3).without_autodiff(), 0.0);
    let boxed: Box<dyn Reference> = Box::new(reference.clone());
    assert!(boxed.distributions(&batch).is_some());
    let cached = CachedReference::new(&reference, &batch, 1.0);
    assert!(cached.distributions(&batch).is_none());
}

#[test]
#[should_panic(expected = "exact::token_divergences: expected equal shapes, found [[3, 5, 5], [3, 5, 3]]")]
fn two_vocabularies_are_refused() {
    let (policy, _) = models();
    let other = BigramLm::independent(&[0.0; 3], &device()).to_double();
    let batch =
        Completions::from_rows(&[vec![1], vec![0], vec![2]], &vec![vec![2, 0, 1, 2, 0]; 3], &device());
    let how = exact(&ReverseKl, 64);
    token_divergences(&policy.next_tokens(&batch), &other.next_tokens(&batch), &batch.response.mask, &how);
}

#[test]
#[should_panic(expected = "expected at least one column at a time, found 0")]
fn no_columns_at_a_time_are_refused() {
    let (policy, reference) = models();
    measured(&policy, &reference, &exact(&ReverseKl, 0));
}
