//! Values derived on paper; the numbered cases are those of section 9 of the SuperHF specification.

use align_core::TokenBatch;
use align_models::{History, Processor, TopP};
use align_superhf::Filter;
use align_superhf::SuperHfConfig;
use align_superhf::config::LengthForm;
use align_superhf::ideal::{
    best_of_n_distribution, expected_maximum, forward_minimizer, reverse_minimizer, trajectory,
};
use align_superhf::loss::{
    INVERSE_LOSS_FLOOR, KlDirection, KlReduction, LossSettings, inverse_loss, superhf_loss,
    token_cross_entropy, token_kl,
};
use align_superhf::report::{published_test_scale, published_train_scale};
use align_testkit::{assert_close, device, double, gradient, tracked_double};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};

/// Everything is computed in f64 and the specification prints eight digits.
const PRINTED: f64 = 1e-8;

const POLICY: [[[f64; 3]; 2]; 2] =
    [[[2.0, 0.5, -1.0], [0.0, 1.0, 0.3]], [[0.2, -0.3, 1.5], [9.0, -9.0, 4.0]]];
const PRIOR: [[[f64; 3]; 2]; 2] = [[[1.0, 0.8, -0.5], [0.4, 0.6, 0.1]], [[0.5, 0.0, 0.7], [-7.0, 8.0, 2.0]]];

/// Example 0 answers 0, 2; example 1 answers 2, and what stands behind it is padding.
fn response() -> TokenBatch {
    TokenBatch::right_padded(&[vec![0, 2], vec![2]], &device())
}

fn rows(scores: [[[f64; 3]; 2]; 2]) -> Tensor<2> {
    log_softmax(double::<3>(scores).reshape([4, 3]), 1).narrow(0, 0, 3)
}

#[test]
fn case_1_cross_entropy_and_kl_token_by_token() {
    let targets = Tensor::<1, Int>::from_ints([0, 2, 2], &device());
    let cross_entropy = token_cross_entropy(rows(POLICY), targets);
    assert_close(cross_entropy, [0.24131130, 1.32297401, 0.36313551], PRINTED);
    let forward = token_kl(rows(POLICY), rows(PRIOR), KlDirection::PriorToPolicy);
    assert_close(forward, [0.21263114, 0.05712008, 0.14849218], PRINTED);
    let reverse = token_kl(rows(POLICY), rows(PRIOR), KlDirection::PolicyToPrior);
    assert_close(reverse, [0.18600394, 0.05184809, 0.14145210], PRINTED);
}

#[test]
fn case_1_the_loss_in_every_reduction_and_direction() {
    let loss = |direction, reduction| {
        let settings = LossSettings { kl_coef: 0.35, direction, reduction, inverse_loss: 0.0 };
        superhf_loss(double(POLICY), double(PRIOR), &response(), &settings)
    };
    use KlDirection::{PolicyToPrior, PriorToPolicy};
    use KlReduction::{MeanOverExamples, SumOverExamples, TokenMean};
    for (direction, reduction, kl, total) in [
        (PriorToPolicy, SumOverExamples, 0.13487561 + 0.14849218, 0.74165233),
        (PriorToPolicy, MeanOverExamples, (0.13487561 + 0.14849218) / 2.0, 0.69206297),
        (PriorToPolicy, TokenMean, 0.13941447, 0.69126867),
        (
            PolicyToPrior,
            SumOverExamples,
            0.11892601 + 0.14145210,
            0.64247360 + 0.35 * (0.11892601 + 0.14145210),
        ),
        (PolicyToPrior, TokenMean, 0.12643471, 0.68672575),
    ] {
        let terms = loss(direction, reduction);
        assert_close(terms.cross_entropy, [0.64247360], PRINTED);
        // A sum of two printed numbers is off by up to two roundings of the eighth digit.
        assert_close(terms.kl, [kl], 2.0 * PRINTED);
        assert_close(terms.total, [total], 2.0 * PRINTED);
    }
}

#[test]
fn case_1_the_gradient_of_one_token_and_none_under_the_mask() {
    for (direction, expected) in [
        (KlDirection::PriorToPolicy, [0.13211875, 0.08013407, -0.21225282]),
        (KlDirection::PolicyToPrior, [0.13879065, 0.08418079, -0.22297144]),
    ] {
        let settings = LossSettings { kl_coef: 0.35, direction, ..LossSettings::default() };
        let alone = tracked_double::<3>([POLICY[1]]);
        let response = TokenBatch::right_padded(&[vec![2]], &device());
        let response = TokenBatch {
            ids: Tensor::cat(vec![response.ids.clone(), response.ids], 1),
            mask: align_testkit::mask([[true, false]]),
        };
        let loss = superhf_loss(alone.clone(), double([PRIOR[1]]), &response, &settings).total;
        let found = gradient(&loss, &alone);
        assert_close(&found[..3], expected, PRINTED);
        assert_eq!(&found[3..], [0.0; 3]);
    }
}

#[test]
fn case_1_the_released_sum_depends_on_the_minibatch_and_a_mean_does_not() {
    // The same example eight times: β acts eight times as strongly in the released form.
    let repeated = |count: usize, reduction| {
        let settings = LossSettings { kl_coef: 0.35, reduction, ..LossSettings::default() };
        let scores = |row: [[f64; 3]; 2]| double::<3>([row]).repeat_dim(0, count);
        let response = TokenBatch::right_padded(&vec![vec![0, 2]; count], &device());
        let kl = superhf_loss(scores(POLICY[0]), scores(PRIOR[0]), &response, &settings).kl;
        kl.into_scalar::<f64>()
    };
    assert_close(repeated(8, KlReduction::SumOverExamples), [8.0 * 0.13487561], 8.0 * PRINTED);
    assert_close(repeated(8, KlReduction::MeanOverExamples), [0.13487561], PRINTED);
    assert_close(repeated(8, KlReduction::TokenMean), [0.13487561], PRINTED);
    // A mean at twice β is the released form at minibatch 2.
    assert_close(
        repeated(2, KlReduction::SumOverExamples),
        [2.0 * repeated(2, KlReduction::MeanOverExamples)],
        1e-12,
    );
}

const START: [f64; 4] = [0.5, 0.3, 0.15, 0.05];
const REWARDS: [f64; 4] = [0.0, 1.0, 0.5, 2.0];

fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).filter(|(p, _)| **p > 0.0).map(|(p, q)| p * (p / q).ln()).sum()
}

fn expected_reward(p: &[f64]) -> f64 {
    p.iter().zip(REWARDS).map(|(p, r)| p * r).sum()
}

#[test]
fn case_2_the_minimiser_of_either_direction() {
    let (q, beta) = ([0.1, 0.6, 0.2, 0.1], 0.35);
    let cross_entropy = |p: &[f64]| q.iter().zip(p).map(|(q, p)| -q * p.ln()).sum::<f64>();
    let forward = |p: &[f64]| cross_entropy(p) + beta * kl(&START, p);
    let reverse = |p: &[f64]| cross_entropy(p) + beta * kl(p, &START);

    let found = forward_minimizer(&q, &START, beta);
    assert_close(&found[..], [0.20370370, 0.52222222, 0.18703704, 0.08703704], PRINTED);
    assert_close(forward(&found), [1.20598946], PRINTED);
    assert_close([forward(&q), forward(&START)], [1.27053777, 1.47069562], PRINTED);
    let other = reverse_minimizer(&q, &START, beta);
    assert_close(&other[..], [0.17880467, 0.53494414, 0.19709383, 0.08915736], PRINTED);
    assert_close([reverse(&other), reverse(&found)], [1.19487273, 1.19696552], PRINTED);

    // The ends: without β the target, with much of it the prior; a target of 0 is no trouble.
    assert_close(&reverse_minimizer(&q, &START, 0.0)[..], q, 0.0);
    assert_close(&reverse_minimizer(&q, &START, 1e6)[..], START, 1e-5); // of order 1/β
    let sparse = reverse_minimizer(&[0.0, 1.0, 0.0, 0.0], &START, beta);
    assert_close(sparse.iter().sum::<f64>(), [1.0], 1e-12);
    let tilted: Vec<f64> = sparse.iter().zip(START).map(|(p, p_0)| p / p_0).collect();
    assert_close([tilted[2], tilted[3]], [tilted[0]; 2], 1e-9); // losers keep their proportions
}

#[test]
fn case_3_the_best_of_n() {
    for (n, q, reward, divergence) in [
        (1, START, 0.475, 0.0),
        (2, [0.25, 0.48, 0.1725, 0.0975], 0.76125, 0.14153725),
        (4, [0.0625, 0.636, 0.11600625, 0.18549375], 1.06499063, 0.56130492),
        (16, [0.00001526, 0.43911132, 0.00100009, 0.55987333], 1.55935803, 1.51459787),
    ] {
        let found = best_of_n_distribution(&START, &REWARDS, n);
        assert_close(&found[..], q, PRINTED);
        assert_close([expected_reward(&found), kl(&found, &START)], [reward, divergence], PRINTED);
        let bound = (n as f64).ln() - (n as f64 - 1.0) / n as f64;
        assert!(kl(&found, &START) <= bound + 1e-12, "{n}"); // f64 rounding
    }
    // Equal rewards share what falls to them in proportion.
    let tied = best_of_n_distribution(&[0.2, 0.3, 0.5], &[1.0, 1.0, 0.0], 2);
    assert_close(&tied[..], [0.75 * 0.4, 0.75 * 0.6, 0.25], 1e-12);
}

#[test]
fn case_4_the_idealised_trajectory() {
    let steps = |n, beta, count| trajectory(&START, &REWARDS, n, beta).take(count).collect::<Vec<_>>();
    let limit = |n, beta| steps(n, beta, 2000).pop().expect("steps");
    let path = steps(16, 0.35, 2);
    assert_close(&path[0][..], [0.12964093, 0.40304542, 0.03962969, 0.42768395], PRINTED);
    assert_close(&path[1][..], [0.12962963, 0.07787592, 0.03888889, 0.75360556], PRINTED);
    let end = limit(16, 0.35);
    assert_close(&end[..], [0.12962963, 0.07777778, 0.03888889, 0.75370370], PRINTED);
    assert_close([expected_reward(&end), kl(&START, &end)], [1.60462963, 1.14678156], PRINTED);
    let floor: Vec<f64> = START[..3].iter().map(|p_0| 0.35 / 1.35 * p_0).collect();
    assert_close(&end[..3], floor, 1e-9); // what a loser still wins: 0.246¹⁶

    assert_close(&steps(2, 0.35, 1)[0][..], [0.31481481, 0.43333333, 0.16666667, 0.08518519], PRINTED);
    for (n, beta, expected) in [
        (2, 0.35, [0.14525950, 0.12673261, 0.05211617, 0.67589172]),
        (16, 1.0, [0.25, 0.15000335, 0.07500001, 0.52499664]),
        (2, 1.0, [0.29289322, 0.36800118, 0.11549880, 0.22360680]),
        (16, 0.1, [0.04545455, 0.02727273, 0.01363636, 0.91363636]),
        (16, 0.0, [0.0, 0.0, 0.0, 1.0]),
    ] {
        assert_close(&limit(n, beta)[..], expected, PRINTED);
    }
    let rewards = [(2, 0.35, 1.50457414), (16, 1.0, 1.23749664), (2, 1.0, 0.87296418)];
    rewards.into_iter().for_each(|(n, beta, reward)| {
        assert_close(expected_reward(&limit(n, beta)), [reward], PRINTED);
    });
}

#[test]
fn case_5_the_largest_of_n_normal_numbers() {
    for (n, expected) in [
        (1, 0.0),
        (2, 0.56418958),
        (4, 1.02937537),
        (8, 1.42360031),
        (16, 1.76599139),
        (32, 2.06966883),
        (64, 2.34373347),
        (128, 2.59459737),
    ] {
        assert_close(expected_maximum(n), [expected], PRINTED);
    }
}

#[test]
fn case_6_the_inverse_loss_and_its_guard() {
    for (loss, value, slope) in
        [(0.5, 0.7, 0.6), (2.0, 2.05, 0.975), (0.1f64.sqrt(), 0.63245553, 0.0), (0.05, 2.05, -39.0)]
    {
        let found = inverse_loss(loss, 0.1);
        assert_close([found.value, found.slope], [value, slope], PRINTED);
        assert!(!found.guarded);
    }
    let (at, below) = (inverse_loss(INVERSE_LOSS_FLOOR, 0.1), inverse_loss(0.0, 0.1));
    assert!(below.guarded && !at.guarded);
    assert_eq!(below.slope, at.slope, "along the tangent");
    // f64 rounding of numbers near 1000.
    assert_close(below.value, [at.value - at.slope * INVERSE_LOSS_FLOOR], 1e-9);
    assert_eq!(inverse_loss(0.3, 0.0).value, 0.3);
    assert!(inverse_loss(f64::NAN, 0.1).value.is_nan());
}

#[test]
fn case_6_the_loss_has_the_value_and_the_slope_of_the_inverse() {
    let settings = |inverse_loss| LossSettings { inverse_loss, ..LossSettings::default() };
    let of = |coefficient| {
        let leaf = tracked_double::<3>(POLICY);
        let terms = superhf_loss(leaf.clone(), double(PRIOR), &response(), &settings(coefficient));
        (terms.total.to_data().iter::<f64>().sum::<f64>(), gradient(&terms.total, &leaf))
    };
    let ((_, plain), (value, found)) = (of(0.0), of(0.1));
    assert_close(value, [0.64247360 + 0.1 / 0.64247360], 2.0 * PRINTED);
    let slope = 1.0 - 0.1 / (0.64247360f64 * 0.64247360);
    let scaled: Vec<f64> = plain.iter().map(|component| component * slope).collect();
    assert_close(found, scaled, 2.0 * PRINTED);
}

#[test]
fn case_8_the_top_k() {
    let scores = [vec![Some(0.3), Some(-1.2), Some(2.5), Some(2.5), Some(0.9)]];
    assert_eq!(Filter::TopK { k: 3 }.choose(&scores).expect("finite").kept, [[2, 3, 4]]);
}

#[test]
fn case_9_the_published_scale_and_the_length_penalty() {
    assert_close(published_train_scale(-1.0), [1.31188525], PRINTED);
    assert_close(published_test_scale(-1.5), [0.72], 1e-12); // f64 rounding
    let mut config: SuperHfConfig = serde_json::from_str(r#"{ "length_penalty": 0.1 }"#).expect("a config");
    assert_close(1.5 - config.length_cost(200), [0.97016826], PRINTED);
    config.length_penalty_form = LengthForm::Linear;
    assert_close(config.length_cost(200), [20.0], 1e-12);
}

#[test]
fn case_10_the_schedule_of_the_defaults() {
    // The released schedule starts at 0; ours is one step ahead of it while warming up and spends none on nothing.
    let config = SuperHfConfig::default();
    let plan = config.plan(10_000).expect("enough prompts");
    assert_eq!(plan.groups, 5000);
    let rate = |step| config.optimizer().learning_rate_at(step, plan.groups);
    for (released, expected) in [(1, 6.25e-7), (16, 1e-5), (32, 2e-5)] {
        assert_close(rate(released - 1), [expected], 1e-18); // f64 rounding of 1e-5
    }
    // The specification prints seven digits here.
    for (step, expected) in [(32, 2e-5), (1274, 1.707107e-5), (2516, 1e-5), (3758, 2.928932e-6), (5000, 0.0)]
    {
        assert_close(rate(step), [expected], 1e-11);
    }
}

#[test]
fn case_11_top_p_keeps_the_smallest_set_that_reaches_it() {
    let mut scores: Vec<f32> = [0.5f32, 0.3, 0.15, 0.05].iter().map(|p| p.ln()).collect();
    TopP(0.9).process(History { prompt: &[], response: &[] }, &mut scores);
    let total: f32 = scores.iter().map(|score| score.exp()).sum();
    let kept: Vec<f32> = scores.iter().map(|score| score.exp() / total).collect();
    assert_close(&kept[..], [0.52631579, 0.31578947, 0.15789474, 0.0], 1e-7); // f32 rounding
}
