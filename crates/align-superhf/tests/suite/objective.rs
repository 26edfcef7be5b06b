//! The objective of a step against the whole equation, finite differences, and itself cut up differently.

use align_core::number::{NonNegative, Positive};
use align_core::{Completions, Draws, Frozen, Reference};
use align_models::{Transformer, TransformerConfig};
use align_superhf::loss::{KlDirection, KlReduction, LossSettings, superhf_loss};
use align_superhf::objective::{Minibatch, SuperHfObjective};
use align_testkit::gradcheck::{assert_module_gradients, module_gradients};
use align_testkit::{BigramLm, assert_all_close, assert_close, device, train_device};
use align_train::{Learner, Objective, OptimizerConfig, StepGradients};

use crate::world::{VOCABULARY, sft};

const DIRECTIONS: [KlDirection; 2] = [KlDirection::PriorToPolicy, KlDirection::PolicyToPrior];
const REDUCTIONS: [KlReduction; 3] =
    [KlReduction::MeanOverExamples, KlReduction::TokenMean, KlReduction::SumOverExamples];

/// Four completions of 1 to 4 tokens; padding holds id 0, which is also an answer.
fn rows() -> (Vec<Vec<u32>>, Vec<Vec<u32>>) {
    let prompts = vec![vec![1], vec![2, 3], vec![4, 1, 2], vec![3]];
    let responses = vec![vec![2, 0], vec![3], vec![4, 4, 1, 0], vec![1, 2, 0]];
    (prompts, responses)
}

fn batch(rows_of: &[usize]) -> Completions {
    let (prompts, responses) = rows();
    let pick = |from: &[Vec<u32>]| rows_of.iter().map(|&row| from[row].clone()).collect::<Vec<_>>();
    Completions::from_rows(&pick(&prompts), &pick(&responses), &device())
}

fn whole(cross_entropy: f64) -> Minibatch {
    Minibatch { examples: 4, tokens: 10, cross_entropy }
}

fn every_setting() -> impl Iterator<Item = LossSettings> {
    DIRECTIONS.into_iter().flat_map(|direction| {
        REDUCTIONS.into_iter().flat_map(move |reduction| {
            [0.0, 0.05].map(|inverse_loss| LossSettings { kl_coef: 0.35, direction, reduction, inverse_loss })
        })
    })
}

/// Equation (2) in one graph.
fn direct(policy: &BigramLm, prior: &BigramLm, settings: &LossSettings) -> (f64, f64, Vec<f64>) {
    let completions = batch(&[0, 1, 2, 3]);
    let scores = |model: &BigramLm| align_core::CausalLm::next_tokens(model, &completions).scores(0..4);
    let terms = superhf_loss(scores(policy), scores(prior), &completions.response, settings);
    let number = |tensor: &burn::tensor::Tensor<1>| tensor.to_data().iter::<f64>().sum();
    let gradients = module_gradients(policy, &terms.total).remove("table").expect("a gradient");
    (number(&terms.cross_entropy), number(&terms.total), gradients)
}

fn learner(policy: BigramLm) -> Learner<BigramLm> {
    let config = OptimizerConfig {
        learning_rate: Positive::literal(0.1),
        max_grad_norm: NonNegative::literal(0.0),
        ..OptimizerConfig::default()
    };
    Learner::new(policy, config, 10).expect("something to train")
}

/// What the microbatches add up to, divided.
fn summed(sum: &StepGradients, path: &str) -> (f64, Vec<f64>) {
    let gradient = sum.sums[path].to_data().iter::<f64>().map(|component| component / sum.weight).collect();
    (sum.loss / sum.weight, gradient)
}

#[test]
fn however_a_minibatch_is_cut_the_step_is_that_of_the_equation() {
    let (policy, prior) = (sft(1), sft(2).valid_double());
    let frozen = Frozen::new(&sft(2));
    for settings in every_setting() {
        let (cross_entropy, value, gradient) = direct(&policy.to_double(), &prior, &settings);
        let cuts: [&[&[usize]]; 4] =
            [&[&[0, 1, 2, 3]], &[&[0], &[1], &[2], &[3]], &[&[3, 1], &[2, 0]], &[&[2], &[1, 0, 3]]];
        for cut in cuts {
            // Seven tokens' scores at a time, then one's, then all.
            for scores in [7 * VOCABULARY, 1, 1 << 20] {
                let objective =
                    SuperHfObjective::new(settings, Some(&frozen), whole(cross_entropy)).holding(scores);
                let batches: Vec<Completions> = cut.iter().map(|rows| batch(rows)).collect();
                let sum = learner(policy.clone()).gradients(&objective, &batches).expect("finite");
                let (found, table) = summed(&sum, "table");
                assert_eq!(sum.weight, 10.0);
                // f32 sums of ten numbers below 10.
                assert_close(found, [value], 1e-5);
                assert_close(table, gradient.clone(), 1e-5);
                assert_eq!(objective.seen_kl().tokens, 10);
            }
        }
    }
}

#[test]
fn a_mean_of_microbatch_means_would_be_another_objective() {
    // What the test above would not notice if all microbatches were of one length.
    let (policy, frozen) = (sft(1), Frozen::new(&sft(2)));
    let settings = LossSettings { kl_coef: 0.35, ..LossSettings::default() };
    let gradient = |rows: &[usize], whole| {
        let objective = SuperHfObjective::new(settings, Some(&frozen), whole);
        let sum = learner(policy.clone()).gradients(&objective, &[batch(rows)]).expect("finite");
        summed(&sum, "table").1
    };
    let right = gradient(&[0, 1, 2, 3], whole(0.0));
    let halves = [(&[0, 1], 3), (&[2, 3], 7)]
        .map(|(rows, tokens)| gradient(rows, Minibatch { examples: 2, tokens, cross_entropy: 0.0 }));
    let wrong: Vec<f64> = halves[0].iter().zip(&halves[1]).map(|(a, b)| (a + b) / 2.0).collect();
    let off = right.iter().zip(&wrong).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(off > 1e-2, "{off}"); // a thousand times the tolerance above
}

trait Double {
    fn valid_double(&self) -> BigramLm;
}

impl Double for BigramLm {
    fn valid_double(&self) -> BigramLm {
        burn::module::Module::valid(self).to_double()
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    let (policy, prior) = (sft(1).to_double(), sft(2).valid_double());
    let completions = batch(&[0, 1, 2, 3]);
    for settings in every_setting().filter(|settings| settings.inverse_loss == 0.0) {
        let objective = SuperHfObjective::new(settings, Some(&prior), whole(0.0));
        let loss = |policy: &BigramLm| objective.loss(policy, &completions).value;
        assert_module_gradients(&policy, loss, 1e-7); // truncation of the differences
    }
}

#[test]
fn with_beta_0_the_kl_is_measured_and_moves_nothing() {
    let (policy, frozen) = (sft(1), Frozen::new(&sft(2)));
    let step = |prior: Option<&dyn Reference>, kl_coef| {
        let settings = LossSettings { kl_coef, ..LossSettings::default() };
        let objective = SuperHfObjective::new(settings, prior, whole(0.0));
        let sum = learner(policy.clone()).gradients(&objective, &[batch(&[0, 1, 2, 3])]).expect("finite");
        let reported = sum.metrics[0].1.get("loss/kl");
        (summed(&sum, "table"), reported)
    };
    let ((without, none), (measured, kl)) = (step(None, 0.0), step(Some(&frozen), 0.0));
    assert_eq!(without, measured, "to the last bit");
    let (_, acting) = step(Some(&frozen), 0.35);
    assert_eq!(none, None);
    // The same numbers by two ways, in f32.
    assert_close(kl.expect("measured"), [acting.expect("measured")], 1e-6);
    assert!(kl.expect("measured") > 0.1, "another model is elsewhere");
    // Without a prior β counts for nothing.
    assert_eq!(step(None, 0.35).0, without);
}

#[test]
fn a_transformer_gets_the_gradients_of_the_whole_equation() {
    let config = TransformerConfig::llama(11, 16, 2, 2);
    let policy = Transformer::init(&config, &Draws::new(1), &train_device());
    let prior = Frozen::new(&Transformer::init(&config, &Draws::new(2), &device()));
    let completions = batch(&[0, 1, 2, 3]);
    let settings = LossSettings { kl_coef: 0.35, ..LossSettings::default() };
    let scores = |model: &dyn align_core::CausalLm| model.next_tokens(&completions).scores(0..4);
    let expected = module_gradients(
        &policy,
        &superhf_loss(scores(&policy), scores(&prior), &completions.response, &settings).total,
    );
    let objective = SuperHfObjective::new(settings, Some(&prior), whole(0.0)).holding(3 * 11);
    let learner = Learner::new(policy, OptimizerConfig::default(), 1).expect("something to train");
    let sum = learner.gradients(&objective, &[batch(&[0, 3]), batch(&[1, 2])]).expect("finite");
    assert_eq!(sum.sums.len(), expected.len());
    for (path, expected) in expected {
        // f32, another order of sums and other padding.
        assert_all_close(summed(&sum, &path).1, expected, 1e-4, 1e-6);
    }
}

#[test]
fn what_stands_in_padding_changes_nothing() {
    let (policy, frozen) = (sft(1), Frozen::new(&sft(2)));
    let settings = LossSettings { kl_coef: 0.35, ..LossSettings::default() };
    let with_padding_of = |id: i64| {
        let mut completions = batch(&[0, 1, 2, 3]);
        let fill = |batch: &mut align_core::TokenBatch| {
            batch.ids = batch.ids.clone().mask_fill(batch.mask.clone().bool_not(), id);
        };
        fill(&mut completions.response);
        let objective = SuperHfObjective::new(settings, Some(&frozen), whole(0.0));
        let sum = learner(policy.clone()).gradients(&objective, &[completions]).expect("finite");
        summed(&sum, "table")
    };
    assert_eq!(with_padding_of(0), with_padding_of(3));
}

#[test]
fn a_microbatch_in_which_nothing_counts_has_no_loss() {
    let (policy, frozen) = (sft(1), Frozen::new(&sft(2)));
    let settings = LossSettings { kl_coef: 0.35, ..LossSettings::default() };
    let objective = SuperHfObjective::new(settings, Some(&frozen), whole(0.0));
    let nothing = Completions::from_rows(&[vec![1]], &[vec![]], &device());
    let loss = objective.loss(&policy, &nothing);
    assert_eq!((loss.weight, loss.value.into_scalar::<f32>()), (0.0, 0.0));
    let sum = learner(policy).gradients(&objective, &[nothing, batch(&[0, 1, 2, 3])]).expect("finite");
    assert_eq!(sum.weight, 10.0);
}
