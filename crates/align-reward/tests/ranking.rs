//! The ranking loss: values, gradients, the optimum, and what training reports.

use align_core::number::NonNegative;
use align_core::{Completions, PreferencePairs, Reward};
use align_reward::{
    BradleyTerryObjective, Judge, RewardError, Scorer, centering, evaluate_pairs, finite_scores,
    microbatches, ranking_loss, squared_scores,
};
use align_testkit::gradcheck::assert_gradient;
use align_testkit::{assert_close, device, gradient, plain, tracked};
use align_train::{Learner, Objective, OptimizerConfig, evaluate};
use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};

/// Scores a response by its last token: one number for each token of the vocabulary.
#[derive(Module, Debug)]
struct LastToken {
    table: Param<Tensor<1>>,
}

impl LastToken {
    fn new(scores: &[f32]) -> Self {
        let table = Tensor::from_data(TensorData::from(scores), &device());
        Self { table: Param::from_tensor(table.autodiff()) }
    }

    fn values(&self) -> Vec<f32> {
        self.table.val().to_data().iter::<f32>().collect()
    }
}

impl Scorer for LastToken {
    fn scores(&self, completions: &Completions) -> Tensor<1> {
        let last = completions.response.rows().iter().map(|row| i64::from(*row.last().unwrap())).collect();
        let rows = completions.batch_size();
        self.table.val().select(0, Tensor::from_data(TensorData::new::<i64, _>(last, [rows]), &device()))
    }
}

/// Pairs of one prompt; each response ends with the given token.
fn pairs(labels: &[(u32, u32)]) -> PreferencePairs {
    let side = |pick: fn(&(u32, u32)) -> u32| {
        let prompts = vec![vec![1]; labels.len()];
        let responses = labels.iter().enumerate().map(|(row, pair)| {
            let mut response = vec![0; row % 3];
            response.push(pick(pair));
            response
        });
        Completions::from_rows(&prompts, &responses.collect::<Vec<_>>(), &device())
    };
    PreferencePairs {
        chosen: side(|pair| pair.0),
        rejected: side(|pair| pair.1),
        margin: Tensor::zeros([labels.len()], &device()),
    }
}

fn centred(coefficient: f64) -> BradleyTerryObjective {
    BradleyTerryObjective {
        center_rewards_coefficient: NonNegative::try_from(coefficient).unwrap(),
        ..BradleyTerryObjective::default()
    }
}

#[test]
fn the_loss_is_the_log_odds_of_the_label() {
    // σ(0) = 1/2; σ(ln 3) = 3/4; the margin moves 1 to 1 − 1 = 0.
    let loss = ranking_loss(plain([2.0, 3f32.ln(), 1.0]), plain([2.0, 0.0, 0.0]), plain([0.0, 0.0, 1.0]));
    assert_close(loss, [2f64.ln(), (4.0f64 / 3.0).ln(), 2f64.ln()], 1e-6); // f32
}

#[test]
fn extreme_scores_stay_finite_with_their_gradients() {
    let chosen = tracked([1e4, -1e4, 0.0]);
    let loss = ranking_loss(chosen.clone(), plain([-1e4, 1e4, 0.0]), plain([0.0; 3]));
    // 0 where the label is certain, the difference itself where it is contradicted.
    assert_close(loss.clone(), [0.0, 2e4, 2f64.ln()], 1e-2); // f32 at 2e4 has steps of 2e-3
    // −σ(−d): 0, −1, and −1/2 at the tie that an untrained head starts from.
    assert_close(gradient(&loss.sum(), &chosen), [0.0, -1.0, -0.5], 1e-6);
}

#[test]
fn gradients_agree_with_finite_differences() {
    let rejected = || align_testkit::double([0.3, -0.8, 2.0]);
    let margin = || align_testkit::double([0.0, 0.5, 1.0]);
    // Central differences in f64.
    assert_gradient(|chosen| ranking_loss(chosen, rejected(), margin()).sum(), plain([0.1, 0.9, 2.5]), 1e-8);
    assert_gradient(|other| ranking_loss(rejected(), other, margin()).sum(), plain([0.1, 0.9, 2.5]), 1e-8);
    assert_gradient(|chosen| centering(chosen, rejected()).sum(), plain([0.1, 0.9, 2.5]), 1e-8);
}

#[test]
fn the_regularised_loss_is_that_computed_by_hand() {
    // T5 of the description of ensembles; f64.
    let (chosen, rejected) = ([1.2, -0.3, 0.5], [0.2, 0.4, 0.5]);
    let double = align_testkit::double;
    let nll = ranking_loss(double(chosen), double(rejected), double([0.0; 3]));
    assert_close(nll.clone(), [0.313261688, 1.103186049, 2f64.ln()], 1e-8);
    assert_close(nll.mean(), 0.703198306, 1e-8);
    let regularised = |chosen: Tensor<1>, rejected: Tensor<1>| {
        let zeros = chosen.zeros_like().detach();
        let penalty = squared_scores(chosen.clone(), rejected.clone()) * 0.001;
        (ranking_loss(chosen, rejected, zeros) + penalty).mean()
    };
    let (c, r) = (double(chosen).autodiff().require_grad(), double(rejected).autodiff().require_grad());
    let loss = regularised(c.clone(), r.clone());
    assert_close(loss.clone().detach(), 0.703569972, 1e-8);
    assert_close(gradient(&loss, &c), [-0.089247140, -0.222829257, -0.1665], 1e-8);
    let loss = regularised(c.clone(), r.clone());
    assert_close(gradient(&loss, &r), [0.089713807, 0.222862591, 0.166833333], 1e-8);
    let centred = (nll_of(chosen, rejected) + centering(double(chosen), double(rejected)) * 0.01).mean();
    assert_close(centred, 0.713098306, 1e-8);
}

fn nll_of(chosen: [f64; 3], rejected: [f64; 3]) -> Tensor<1> {
    let double = align_testkit::double;
    ranking_loss(double(chosen), double(rejected), double([0.0; 3]))
}

#[test]
fn margins_are_constants() {
    let margin = tracked([0.5]);
    let chosen = tracked([1.0]);
    let loss = ranking_loss(chosen, plain([0.0]), margin.clone());
    assert_eq!(gradient(&loss, &margin), [0.0]);
}

#[test]
#[should_panic(expected = "ranking_loss: expected equal shapes, found [[2], [1], [2]]")]
fn a_missing_score_is_a_bug() {
    ranking_loss(plain([0.0, 0.0]), plain([0.0]), plain([0.0, 0.0]));
}

#[test]
fn training_finds_the_log_odds_and_centring_their_middle() {
    // Token 2 beats token 3 in three labels of four: r₂ − r₃ = ln 3 whatever the constant; centred, ±½ ln 3.
    let batch = pairs(&[(2, 3), (2, 3), (3, 2), (2, 3)]);
    let start = [0.0, 0.0, 0.9, 0.4];
    let config = OptimizerConfig { learning_rate: 0.02.try_into().unwrap(), ..OptimizerConfig::default() };
    let train = |objective: BradleyTerryObjective| {
        let mut learner = Learner::new(LastToken::new(&start), config.clone(), 600).unwrap();
        for _ in 0..600 {
            learner.step(&objective, std::slice::from_ref(&batch)).unwrap();
        }
        learner.into_model().values()
    };
    let half = 3f32.ln() / 2.0;
    let free = train(BradleyTerryObjective::default());
    assert_close(free[2] - free[3], f64::from(2.0 * half), 1e-3); // AdamW's last steps
    // The ranking loss alone keeps the sum it started from.
    assert_close(free[2] + free[3], 1.3, 1e-3);
    let tight = train(centred(0.1));
    assert_close([tight[2], tight[3]], [half, -half], 1e-3);
    assert_eq!(&tight[..2], &start[..2], "tokens that no pair ends with are left alone");
}

#[test]
fn metrics_have_trls_names_and_values() {
    let model = LastToken::new(&[0.0, 0.0, 2.0, -1.0]);
    let batches = [pairs(&[(2, 3), (3, 2), (2, 2), (2, 3)])];
    let metrics = evaluate(&model, &centred(0.5), &batches).unwrap();
    let get = |name: &str| metrics.get(name).unwrap();
    assert_eq!(get("accuracy"), 0.625, "two right, one wrong, one tie");
    assert_close(get("margin"), (3.0 - 3.0 + 0.0 + 3.0) / 4.0, 1e-6);
    assert_eq!((get("min_reward"), get("max_reward"), get("count")), (-1.0, 2.0, 4.0));
    assert_close(get("mean_reward"), (5.0 * 2.0 - 3.0) / 8.0, 1e-6);
    // d = 3, −3, 0, 3; sums 1, 1, 4, 1; softplus(−d) by hand.
    let softplus = |x: f64| x.exp().ln_1p();
    let ranking = (2.0 * softplus(-3.0) + softplus(3.0) + softplus(0.0)) / 4.0;
    assert_close(get("loss"), ranking + 0.5 * (1.0 + 1.0 + 16.0 + 1.0) / 4.0, 1e-5); // f32
}

#[test]
fn microbatches_add_up_to_the_batch() {
    let batch = pairs(&[(2, 3), (3, 2), (2, 2), (2, 3), (0, 1)]);
    let model = LastToken::new(&[0.3, -0.2, 1.0, 0.4]);
    let parts = microbatches(&batch, 2);
    assert_eq!(parts.iter().map(|part| part.chosen.batch_size()).collect::<Vec<_>>(), [2, 2, 1]);
    let whole = Objective::loss(&centred(0.3), &model, &batch);
    let summed: f64 = parts
        .iter()
        .map(|part| {
            Objective::loss(&centred(0.3), &model, part).value.without_autodiff().into_scalar::<f64>()
        })
        .sum();
    assert_close(summed, whole.value.without_autodiff().into_scalar::<f64>(), 1e-5); // order of an f32 sum
    assert_eq!(whole.weight, 5.0);
    // Margins travel with their pairs.
    let margins = PreferencePairs { margin: plain([0.0, 1.0, 2.0, 3.0, 4.0]), ..batch };
    assert_close(microbatches(&margins, 2).remove(1).margin, [2.0, 3.0], 0.0);
}

#[test]
fn a_judge_scores_as_the_model_did_and_records_nothing() {
    let model = LastToken::new(&[0.3, -0.2, 1.0, 0.4]);
    let batch = pairs(&[(2, 3), (3, 2)]).chosen;
    let judge = Judge::new(&model);
    let scores = judge.score(&batch);
    assert!(!scores.is_autodiff() && model.scores(&batch).is_autodiff());
    assert_close(scores, [1.0f32, 0.4], 0.0);
    assert_close(judge.get().values(), model.values(), 0.0);
}

#[test]
fn pairs_are_counted_over_batches() {
    let judge = Judge::new(&LastToken::new(&[0.0, 0.0, 2.0, -1.0]));
    let report = evaluate_pairs(&judge, &[pairs(&[(2, 3), (3, 2)]), pairs(&[(2, 2)])]).unwrap();
    assert_eq!((report.pairs, report.correct, report.ties, report.accuracy), (3, 1, 1, 0.5));
    assert_eq!((report.mean_margin, report.mean_chosen, report.mean_rejected), (0.0, 1.0, 1.0));
}

#[test]
fn scores_that_are_not_numbers_and_empty_sets_are_errors() {
    let judge = Judge::new(&LastToken::new(&[0.0, 0.0, 2.0, f32::NAN]));
    let batches = [pairs(&[(2, 2), (2, 2)]), pairs(&[(2, 2), (3, 2)])];
    let error = finite_scores(&judge, batches.iter().map(|batch| &batch.chosen)).unwrap_err();
    assert_eq!(error.to_string(), "the score of row 3 is NaN, expected a finite number");
    let error = evaluate_pairs(&judge, &[]).unwrap_err();
    assert!(matches!(error, RewardError::NoPairs), "{error}");
}
