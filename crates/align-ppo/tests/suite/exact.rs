//! A regulariser that is exact over the vocabulary, and √χ² in the loss: gradients, parts, what is refused.

use align_core::divergence::{Divergence, Kl, ReverseKl};
use align_core::number::{NonNegative, UnitInterval};
use align_core::regularizer::{Coefficient, Granularity, Regularizer, Site};
use align_core::{CachedReference, Frozen};
use align_ppo::objective::{PolicyBatch, PolicyObjective};
use align_ppo::surrogate::ClipRange;
use align_ppo::{Anchor, Following, MovingReference, Ppo, PpoParts};
use align_testkit::gradcheck::module_gradients;
use align_testkit::{BigramLm, Enumeration, assert_close, device};
use align_train::Objective;
use burn::module::Module;
use serde_json::{Value, json};

use crate::world::{VOCABULARY, completions, config, metric, parts, run, sft, table};

fn in_loss(granularity: &str, divergence: Value) -> Value {
    json!({
        "site": "loss", "granularity": granularity, "divergence": divergence,
        "coefficient": { "kind": "fixed", "beta": 0.3 },
    })
}

fn exact(columns: usize) -> Value {
    in_loss("token", json!({ "kind": "exact", "of": { "kind": "reverse_kl" }, "columns": columns }))
}

fn trained(reference: impl Into<Anchor<BigramLm>>, changes: Value) -> Vec<f32> {
    let mut ppo = Ppo::new(parts(sft(1), reference), config(changes)).expect("parts");
    run(&mut ppo, 2);
    table(ppo.policy())
}

#[test]
fn both_ways_to_the_gradient_agree_and_add_beta_times_the_divergence() {
    let (policy, reference) = (sft(1), sft(2).valid());
    let batch = completions(&[vec![1], vec![2]], &[vec![2, 3, 0], vec![4, 1]]);
    let rows = PolicyBatch {
        completions: batch.clone(),
        old_log_probs: align_core::CausalLm::token_log_probs(&policy.valid(), &batch, 1.0).log_probs,
        reference_log_probs: align_core::CausalLm::token_log_probs(&reference, &batch, 1.0).log_probs,
        advantages: align_testkit::plain([[1.0, -0.5, 0.3], [0.7, -1.0, 0.0]]),
    };
    let regularizer = |beta: f64, columns: usize| Regularizer {
        site: Site::Exact { divergence: Box::new(ReverseKl), columns: columns.try_into().expect("not 0") },
        coefficient: Coefficient::Fixed { beta: NonNegative::try_from(beta).expect("not negative") },
        granularity: Granularity::Token,
    };
    let clip = ClipRange::symmetric(0.2);
    let whole = |beta: f64| {
        let regularizer = regularizer(beta, 2);
        let loss = PolicyObjective::new(clip, 1.0, &regularizer, 2.5)
            .with_reference(&reference)
            .loss(&policy, &rows);
        assert_eq!(loss.weight, 5.0);
        let value: f64 = loss.value.clone().into_scalar();
        (
            value,
            loss.metrics.get("loss/regularizer_avg"),
            module_gradients(&policy, &loss.value)["table"].clone(),
        )
    };
    let (value, reported, slopes) = whole(0.4);
    for columns in [1, 2, 64] {
        let regularizer = regularizer(0.4, columns);
        let objective = PolicyObjective::new(clip, 1.0, &regularizer, 2.5).with_reference(&reference);
        let (loss, gradients) = objective.gradients(&policy, &rows);
        // f32 sums of a few numbers of order 1, in another order.
        assert_close(loss.value.without_autodiff(), value, 1e-5);
        assert_close(gradients.get::<2>(policy.table.id).expect("reached"), slopes.clone(), 1e-5);
    }
    // The divergences of the rows the five tokens were drawn from, over five.
    let log_rows = |model: &BigramLm| burn::tensor::activation::log_softmax(model.table.val(), 1);
    let by_row: Vec<f64> =
        ReverseKl.exact(log_rows(&policy.valid()), log_rows(&reference)).to_data().iter().collect();
    let expected = 0.4 * [1, 2, 3, 2, 4].map(|token: usize| by_row[token]).iter().sum::<f64>() / 5.0;
    assert_close(reported.expect("reported"), expected, 1e-6);
    let (without, nothing, _) = whole(0.0);
    assert_close(value - without, 5.0 * expected, 1e-5);
    assert_eq!(nothing, None);
}

#[test]
fn columns_and_microbatches_are_memory_and_not_mathematics() {
    let with = |regularizer: Value, microbatch: usize| {
        trained(Frozen::new(&sft(2)), json!({ "regularizer": regularizer, "microbatch": microbatch }))
    };
    let whole = with(exact(64), 16);
    // Sums in another order, divided by Adam's √v and multiplied by a rate of 0.1, as in item 22.
    for (columns, microbatch) in [(1, 16), (3, 16), (64, 1), (2, 5)] {
        assert_close(&with(exact(columns), microbatch)[..], &whole[..], 2e-4);
    }
    for estimator in ["exact", "released"] {
        let root = || in_loss("sequence", json!({ "kind": "sqrt_chi_squared", "estimator": estimator }));
        let whole = with(root(), 16);
        for microbatch in [1, 5, 8] {
            assert_close(&with(root(), microbatch)[..], &whole[..], 2e-4);
        }
    }
}

#[test]
fn what_is_exact_draws_the_policy_to_its_reference() {
    let changes = json!({
        "regularizer": { "site": "loss", "divergence": { "kind": "exact", "of": { "kind": "kl" } },
            "coefficient": { "kind": "fixed", "beta": 20.0 } },
        "rollout_batch": 64, "microbatch": 64, "total_episodes": 64 * 30,
    });
    let distance = |policy: &BigramLm| -> f64 {
        // Nothing follows the stop token, so its row is never learnt.
        let from = |token| Enumeration::new(VOCABULARY, &[token], 3, Some(0), &device());
        let to = sft(2).valid();
        (1..5)
            .map(|token| from(token).divergence(&Kl::default(), &policy.valid(), &to).into_scalar::<f64>())
            .sum()
    };
    // A reference that moves is a model as well; this one moves nowhere.
    let still = Following::Ema { decay: UnitInterval::literal(1.0) };
    let mut ppo =
        Ppo::new(parts(sft(1), MovingReference::new(&sft(2), still)), config(changes)).expect("parts");
    let start = distance(ppo.policy());
    let metrics = run(&mut ppo, 30);
    let end = distance(ppo.policy());
    assert!(start > 1.0 && end < 0.1 * start, "from {start} to {end} nats");
    assert!(metric(&metrics[29], "loss/regularizer_avg") < 0.2 * metric(&metrics[0], "loss/regularizer_avg"));
    // Nothing of it is paid, and nothing of it overflows.
    assert_eq!(metric(&metrics[0], "objective/non_score_reward"), 0.0);
    assert_eq!(metric(&metrics[0], "regularizer/clampfrac"), 0.0);
}

#[test]
fn a_reference_without_distributions_or_of_another_vocabulary_is_refused() {
    let refused = |reference: Anchor<BigramLm>| {
        let config = config(json!({ "regularizer": exact(64) }));
        Ppo::new(parts(sft(1), reference), config).err().expect("refused").to_string()
    };
    let one = completions(&[vec![1]], &[vec![2]]);
    let cached = CachedReference::new(&Frozen::new(&sft(2)), &one, 1.0);
    let message = refused(Anchor::Fixed(Box::new(cached)));
    assert!(
        message.contains("log-probabilities of single tokens, expected a reference that is a model"),
        "{message}"
    );
    let small = BigramLm::independent(&[0.0; 7], &device());
    let message = refused(Frozen::new(&small).into());
    assert!(message.ends_with("the reference scores 7 tokens, expected the policy's 5"), "{message}");
}

#[test]
fn a_granularity_at_which_a_divergence_means_nothing_is_refused_wherever_it_comes_from() {
    let read = |regularizer: Value| {
        serde_json::from_value::<align_ppo::PpoConfig>(json!({ "regularizer": regularizer }))
            .expect_err("refused")
            .to_string()
    };
    let message = read(in_loss("token", json!({ "kind": "sqrt_chi_squared" })));
    assert!(message.starts_with("`regularizer`: `granularity` is token, expected sequence"), "{message}");
    let message = read(in_loss("sequence", json!({ "kind": "exact", "of": { "kind": "kl" } })));
    assert!(message.starts_with("`regularizer`: `granularity` is sequence, expected token"), "{message}");
    let own = Regularizer {
        site: Site::Reward(Box::new(align_core::divergence::SqrtChiSquared::default())),
        coefficient: Coefficient::default(),
        granularity: Granularity::Token,
    };
    let parts = PpoParts { regularizer: Some(own), ..parts(sft(1), Frozen::new(&sft(1))) };
    let message = Ppo::new(parts, config(json!({}))).err().expect("refused").to_string();
    assert!(
        message.contains("SqrtChiSquared { chi_squared: None } is measured on whole responses"),
        "{message}"
    );
}
