//! χ² and √χ²: the analytic cases T6 to T9 and the tiny language model of section 8.2 of the specification of correlated
//! proxies, in f64. `PRINTED` is half a unit of the last of nine decimals.

use align_core::divergence::{
    ChiSquared, ChiSquaredLoss, Divergence, Kl, KlLoss, LossDivergence, ReverseKl, SqrtChiSquared,
    SqrtChiSquaredLoss, chi_squared_estimate, continued_excess,
};
use align_core::number::NonNegative;
use align_core::regularizer::{Coefficient, Granularity, Regularizer, Site};
use align_testkit::{
    Values, all_true, assert_all_close, assert_close, double, gradient, mask, plain, tracked_double,
};
use burn::tensor::{DType, Tensor, TensorData, activation::log_softmax};

const PRINTED: f64 = 1e-9;

const LOG_RATIOS: [f64; 8] = [0.0, 0.1, -0.5, 2.0, -3.0, 10.0, 12.0, -12.0];

fn column(values: &[f64]) -> Tensor<2> {
    let data = TensorData::new(values.to_vec(), [values.len(), 1]);
    Tensor::from_data(data, (&align_testkit::device(), DType::F64))
}

fn of_sequences(site: Site, beta: f64) -> Regularizer {
    let coefficient = Coefficient::Fixed { beta: NonNegative::try_from(beta).unwrap() };
    Regularizer { site, coefficient, granularity: Granularity::Sequence }
}

fn sqrt_loss(estimator: ChiSquaredLoss) -> Site {
    Site::Loss(Box::new(SqrtChiSquaredLoss { estimator, chi_squared: None }))
}

#[test]
fn t6_the_released_estimators() {
    let excess = [
        0.0,
        0.105170918,
        -0.393469340,
        6.389056099,
        -0.950212932,
        22025.465794807,
        66078.397384420,
        -0.999993856,
    ];
    let inverse = [
        0.0,
        -0.095162582,
        0.648721271,
        -0.864664717,
        19.085536923,
        -0.999954600,
        -0.999993856,
        66078.397384420,
    ];
    let chi = [
        0.0,
        0.010008336,
        0.255251930,
        5.524391382,
        18.135323992,
        22024.465840207,
        66077.397390564,
        66077.397390564,
    ];
    assert_close(continued_excess(column(&LOG_RATIOS)), excess, PRINTED);
    assert_close(continued_excess(column(&LOG_RATIOS).neg()), inverse, PRINTED);
    assert_close(ChiSquaredLoss::Released.surrogate(column(&LOG_RATIOS)), chi, PRINTED);
    let kl = [0.0, 0.004837418, 0.148721271, 1.135335283, 16.085536923];
    assert_close(KlLoss::K3.surrogate(column(&LOG_RATIOS[..5])), kl, PRINTED);

    let counts = all_true(5, 1);
    let mean = |site| of_sequences(site, 1.0).loss(column(&LOG_RATIOS[..5]), &counts);
    assert_close(mean(Site::Loss(Box::new(KlLoss::K3))), 3.474886179, PRINTED);
    assert_close(mean(Site::Loss(Box::new(ChiSquaredLoss::Released))), 4.784995128, PRINTED);
    assert_close(mean(sqrt_loss(ChiSquaredLoss::Released)), 2.187463172, PRINTED);
    // Inside ±10 the measure of the exact form is the same number.
    assert_close(chi_squared_estimate(column(&LOG_RATIOS[..6])), &chi[..6], 1e-8);
}

#[test]
fn t6_beyond_ten_the_released_estimators_go_on_along_their_tangent() {
    for (at, slope) in [(12.0, 10f64.exp()), (10.0, 10f64.exp()), (9.0, 9f64.exp()), (-12.0, (-12f64).exp())]
    {
        let log_ratio = tracked_double::<2>([[at]]);
        let found = gradient(&continued_excess(log_ratio.clone()).sum(), &log_ratio);
        assert_all_close(found, [slope], 1e-14, 0.0);
    }
    // In f32 a ratio of e^300 neither overflows nor loses its pull.
    let log_ratio = align_testkit::tracked::<2>([[300.0, -300.0]]);
    let loss = ChiSquaredLoss::Released.surrogate(log_ratio.clone()).sum();
    let value = 2.0 * (10f64.exp() * 291.0 - 2.0);
    assert_all_close(loss.clone(), value, 1e-6, 0.0);
    assert_all_close(gradient(&loss, &log_ratio), [10f64.exp(), -10f64.exp()], 1e-6, 0.0);
}

#[test]
fn overflow_is_counted_by_the_regularisers_own_limit_and_granularity() {
    // Summed: 12, −21, 0 and no response; per token 7, 5, −21, and the last row counts nowhere.
    let log_ratio = double::<2>([[7.0, 5.0], [-21.0, 30.0], [f64::NAN, 0.0], [40.0, 40.0]]);
    let counts = mask([[true, true], [true, false], [false, true], [false, false]]);
    let fraction = |site, granularity| {
        Regularizer { granularity, ..of_sequences(site, 1.0) }.clamped_fraction(&log_ratio, &counts)
    };
    // Shares are means in f32.
    const THIRD: f64 = 1e-7;
    let (token, sequence) = (Granularity::Token, Granularity::Sequence);
    assert_eq!(fraction(Site::Reward(Box::new(ChiSquared)), token), 0.25);
    assert_close(fraction(Site::Reward(Box::new(ChiSquared)), sequence), 1.0 / 3.0, THIRD);
    assert_close(fraction(sqrt_loss(ChiSquaredLoss::Exact), sequence), 1.0 / 3.0, THIRD);
    assert_close(fraction(sqrt_loss(ChiSquaredLoss::Released), sequence), 2.0 / 3.0, THIRD);
}

#[test]
fn t7_the_gradient_identities() {
    let reference = double::<2>([[0.5, 0.3, 0.2]]).log();
    let leaf = || (reference.clone() + double([[0.3, -0.2, 0.4]])).autodiff().require_grad();
    let policy = log_softmax(leaf(), 1);
    assert_close(policy.clone().exp(), [0.553713914, 0.201506679, 0.244779406], PRINTED);
    let exact = |divergence: &dyn Divergence| {
        let logits = leaf();
        let value = divergence.exact(log_softmax(logits.clone(), 1), reference.clone());
        (value.clone().into_scalar::<f64>(), gradient(&value, &logits))
    };
    let (chi, chi_slope) = exact(&ChiSquared);
    let (kl, kl_slope) = exact(&Kl::default());
    let (_, reverse_slope) = exact(&ReverseKl);
    assert_close([chi, kl], [0.048132793, 0.025764656], PRINTED);
    let log_ratio = (policy.clone() - reference.clone()).without_autodiff();
    let weights = policy.without_autodiff().exp();
    let apart = (weights.clone() * (log_ratio.clone().exp() - 1.0 - log_ratio)).sum();
    assert_close(apart, [0.022368137], PRINTED);
    assert_close(chi_slope.clone(), [0.065664973, -0.151711905, 0.086046931], PRINTED);
    assert_close(kl_slope.clone(), [0.042234750, -0.085383337, 0.043148588], PRINTED);
    assert_close(reverse_slope.clone(), [0.053713914, -0.098493321, 0.044779406], PRINTED);

    let sampled = |divergence: &dyn LossDivergence| {
        let logits = leaf();
        let terms = divergence.surrogate(log_softmax(logits.clone(), 1) - reference.clone());
        gradient(&(terms * weights.clone()).sum(), &logits)
    };
    let released = sampled(&ChiSquaredLoss::Released);
    assert_close(released.clone(), [0.086546401, -0.174349273, 0.087802872], PRINTED);
    let identity: Vec<f64> = chi_slope.iter().zip(&reverse_slope).map(|(a, b)| a / 2.0 + b).collect();
    assert_close(released, identity, 1e-14);
    assert_close(sampled(&ChiSquaredLoss::Exact), chi_slope, 1e-14);
    assert_close(sampled(&KlLoss::K2), kl_slope, 1e-14);
    assert_close(sampled(&KlLoss::K3), reverse_slope.clone(), 1e-14);
    assert_close(sampled(&ReverseKl), reverse_slope, 1e-14);
}

#[test]
fn t8_the_root_is_taken_of_the_mean_over_prompts() {
    let reference = [[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]];
    let policy = [[0.4, 0.4, 0.2], [0.3, 0.4, 0.3]];
    let logs = |rows: [[f64; 3]; 2]| double::<2>(rows).log();
    let by_prompt = ChiSquared.exact(logs(policy), logs(reference));
    assert_close(by_prompt.clone(), [0.053333333, 0.466666667], PRINTED);
    let roots = SqrtChiSquared::default().exact(logs(policy), logs(reference)).values();
    assert_close(0.6 * roots[0] + 0.4 * roots[1], 0.411816085, PRINTED);

    // 25 responses in the very shares of prompts and policies: means over them are the expectations.
    let counts = [[6usize, 6, 3], [3, 4, 3]];
    let drawn: Vec<f64> = (0..2)
        .flat_map(|x| (0..3).map(move |y| (x, y)))
        .flat_map(|(x, y)| vec![(policy[x][y] / reference[x][y]).ln(); counts[x][y]])
        .collect();
    let all = all_true(25, 1);
    let (joint, root) = (0.218666667, 0.467618078);
    assert_close(ChiSquared.estimate(column(&drawn)).mean(), joint, PRINTED);
    assert_close(chi_squared_estimate(column(&drawn)).mean(), joint, PRINTED);
    let penalties =
        of_sequences(Site::Reward(Box::new(SqrtChiSquared::default())), 1.0).penalty(column(&drawn), &all);
    assert_close(penalties.clone().mean(), root, PRINTED);
    // (λ/√χ²)(ρ − 1), response by response.
    let expected: Vec<f64> =
        drawn.iter().map(|d| (d.exp() - 1.0) / (0.6f64 * 0.16 / 3.0 + 0.4 * 1.4 / 3.0).sqrt()).collect();
    assert_close(penalties, expected, 1e-12);
    for estimator in [ChiSquaredLoss::Exact, ChiSquaredLoss::Released] {
        assert_close(of_sequences(sqrt_loss(estimator), 1.0).loss(column(&drawn), &all), root, PRINTED);
    }
}

#[test]
fn t9_chi_squared_grows_with_length_and_tokens_do_not_add_up() {
    let (p, q) = ([0.7f64, 0.3], [0.5f64, 0.5]);
    // Of n tokens, k the first: C(n, k) p₀ᵏ p₁ⁿ⁻ᵏ and a summed log-ratio.
    let chi = |n: u32| -> f64 {
        let mut choose = 1.0;
        let (mut weights, mut log_ratios) = (Vec::new(), Vec::new());
        for k in 0..=n {
            let (k_, rest) = (f64::from(k), f64::from(n - k));
            weights.push(choose * p[0].powf(k_) * p[1].powf(rest));
            log_ratios.push(k_ * (p[0] / q[0]).ln() + rest * (p[1] / q[1]).ln());
            choose *= rest / (k_ + 1.0);
        }
        (ChiSquared.estimate(column(&log_ratios)) * column(&weights)).sum().into_scalar()
    };
    assert_close([chi(1), chi(2)], [0.16, 0.3456], 1e-12);
    assert_all_close(chi(32), 114.519594368, 1e-11, PRINTED);

    // Two tokens, every pair in its share of 100: the whole response against the sum of its tokens.
    let (a, b) = ((p[0] / q[0]).ln(), (p[1] / q[1]).ln());
    let mut rows = [a, a].repeat(49);
    rows.extend([a, b].repeat(21));
    rows.extend([b, a].repeat(21));
    rows.extend([b, b].repeat(9));
    let log_ratio =
        Tensor::<2>::from_data(TensorData::new(rows, [100, 2]), (&align_testkit::device(), DType::F64));
    let total = |granularity| {
        let regularizer =
            Regularizer { granularity, ..of_sequences(Site::Reward(Box::new(ChiSquared)), 1.0) };
        regularizer.penalty(log_ratio.clone(), &all_true(100, 2)).sum() / 100.0
    };
    assert_close(total(Granularity::Sequence), 0.3456, 1e-12);
    assert_close(total(Granularity::Token), 0.32, 1e-12);
}

#[test]
fn at_the_kink_the_value_is_the_roots_floor_and_nothing_pulls() {
    let all = all_true(4, 1);
    // χ̂² = 0, and 10⁻⁶ < 10⁻⁴.
    for d in [0.0, 1e-3] {
        let log_ratios = [d, -d, d, -d];
        let reward = of_sequences(Site::Reward(Box::new(SqrtChiSquared::default())), 2.0);
        assert_close(reward.penalty(column(&log_ratios), &all), [0.02; 4], 1e-15);
        for estimator in [ChiSquaredLoss::Exact, ChiSquaredLoss::Released] {
            let leaf = column(&log_ratios).autodiff().require_grad();
            let loss = of_sequences(sqrt_loss(estimator), 2.0).loss(leaf.clone(), &all);
            assert_close(loss.clone(), 0.02, 1e-15);
            assert_close(gradient(&loss, &leaf), [0.0; 4], 0.0);
        }
    }
    // Just above, it pulls with full strength: d = 0.02 gives χ̂² ≈ 4·10⁻⁴, √ ≈ 0.02 and a slope of ±½·(2/4).
    let leaf = column(&[0.02, -0.02, 0.02, -0.02]).autodiff().require_grad();
    let loss = of_sequences(sqrt_loss(ChiSquaredLoss::Exact), 1.0).loss(leaf.clone(), &all);
    assert_close(loss.clone(), 0.02, 1e-5);
    assert_close(gradient(&loss, &leaf), [0.25, -0.25, 0.25, -0.25], 0.01);
}

#[test]
fn a_chi_squared_that_is_no_number_is_seen_and_not_floored() {
    let all = all_true(2, 1);
    let penalties = of_sequences(Site::Reward(Box::new(SqrtChiSquared::at(f64::NAN))), 1.0)
        .penalty(plain([[0.1], [0.2]]), &all);
    assert!(penalties.values().iter().all(|penalty| penalty.is_nan()));
}

#[test]
fn with_chi_squared_fixed_a_batch_in_parts_is_the_whole_batch() {
    let rows = [[0.5, -0.2], [1.0, 0.4], [-0.7, 0.1], [0.3, 0.9], [2.0, 7.0]];
    let counts = [[true, true], [true, true], [true, true], [true, true], [true, false]];
    for estimator in [ChiSquaredLoss::Exact, ChiSquaredLoss::Released] {
        let regularizer = of_sequences(sqrt_loss(estimator), 0.7);
        let whole = tracked_double::<2>(rows);
        let loss = regularizer.loss_terms(whole.clone(), &mask(counts)).sum();
        let fixed = regularizer.fixed_to(double(rows), &mask(counts)).expect("a root takes the whole batch");
        let (mut value, mut slopes) = (0.0, Vec::new());
        for (row, counts) in rows.into_iter().zip(counts) {
            let part = tracked_double::<2>([row]);
            let loss = fixed.loss_terms(part.clone(), &mask([counts])).sum();
            value += loss.clone().into_scalar::<f64>();
            slopes.extend(gradient(&loss, &part));
        }
        assert_close(loss.clone(), value, 1e-13);
        assert_close(gradient(&loss, &whole), slopes, 1e-13);
        // Row by row without it every part would be a batch of its own, with a root of its own.
        let alone: f64 = rows
            .into_iter()
            .zip(counts)
            .map(|(row, counts)| {
                regularizer.loss_terms(double([row]), &mask([counts])).sum().into_scalar::<f64>()
            })
            .sum();
        assert!((alone - value).abs() > 0.1, "{alone} and {value}");
        assert!(fixed.fixed_to(double(rows), &mask(counts)).is_none(), "once is enough");
    }
    let every_draw_for_itself = of_sequences(Site::Loss(Box::new(KlLoss::K2)), 1.0);
    assert!(every_draw_for_itself.fixed_to(double(rows), &mask(counts)).is_none());
}

/// Section 8.2: all 1296 sequences of four independent tokens; the proxy loves a glitch that the gold reward does not.
struct TinyLm {
    log_reference: Vec<f64>,
    gold: Vec<f64>,
    proxy: Vec<f64>,
}

/// What is known of a policy over the sequences.
struct Point {
    gold: f64,
    proxy: f64,
    chi_squared: f64,
}

impl TinyLm {
    fn new() -> Self {
        let p = [0.30f64, 0.25, 0.20, 0.15, 0.096, 0.004];
        let tokens = |sequence: usize| (0..4).map(move |at| sequence / 6usize.pow(at) % 6);
        let each = |of: &dyn Fn(usize) -> f64| (0..1296).map(|s| tokens(s).map(of).sum()).collect();
        let good = |token: usize| f64::from(u8::from(token == 3 || token == 4));
        let glitch = |token: usize| f64::from(u8::from(token == 5));
        Self {
            log_reference: each(&|token| p[token].ln()),
            gold: each(&|token| good(token) - glitch(token)),
            proxy: each(&|token| good(token) + 3.0 * glitch(token)),
        }
    }

    /// Natural gradient ascent on `E_π[proxy] − λ·D` over all policies, where `pull` gives each sequence's part of ∇D from
    /// log-ratios `[1296, 1]` and χ².
    fn ascend(&self, lambda: f64, pull: impl Fn(Tensor<2>, f64) -> Vec<f64>) -> Point {
        // A step of 0.1 is a tenth of the stiffest curvature; a thousand of them leave 1e-8.
        const STEP: f64 = 0.1;
        // Away from the kink at the reference.
        let mut logits: Vec<f64> =
            self.log_reference.iter().zip(&self.proxy).map(|(log, r)| log + 0.1 * r).collect();
        for _ in 0..1000 {
            let (log_ratio, weights) = self.policy(&mut logits);
            let chi_squared =
                expectation(&weights, &log_ratio.iter().map(|d| d.exp() - 1.0).collect::<Vec<_>>());
            let pulls = pull(column(&log_ratio), chi_squared);
            let gains: Vec<f64> = self.proxy.iter().zip(pulls).map(|(r, pull)| r - lambda * pull).collect();
            let mean = expectation(&weights, &gains);
            logits.iter_mut().zip(gains).for_each(|(logit, gain)| *logit += STEP * (gain - mean));
        }
        let (log_ratio, weights) = self.policy(&mut logits);
        let excess: Vec<f64> = log_ratio.iter().map(|d| d.exp() - 1.0).collect();
        Point {
            gold: expectation(&weights, &self.gold),
            proxy: expectation(&weights, &self.proxy),
            chi_squared: expectation(&weights, &excess),
        }
    }

    /// Normalises; gives log-ratios and probabilities.
    fn policy(&self, logits: &mut [f64]) -> (Vec<f64>, Vec<f64>) {
        let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = highest + logits.iter().map(|logit| (logit - highest).exp()).sum::<f64>().ln();
        // What is driven out stops at e^−700: the logarithm of f64's smallest numbers.
        logits.iter_mut().for_each(|logit| *logit = (*logit - log_sum).max(-700.0));
        let log_ratio =
            logits.iter().zip(&self.log_reference).map(|(log, reference)| log - reference).collect();
        (log_ratio, logits.iter().map(|log| log.exp()).collect())
    }
}

fn expectation(weights: &[f64], x: &[f64]) -> f64 {
    weights.iter().zip(x).map(|(w, x)| w * x).sum()
}

/// λ* = σ √(1 − r²) of the proxy under the reference.
const LAMBDA_STAR: f64 = 0.496713956;

#[test]
fn the_tiny_language_model_reaches_its_optima() {
    let world = TinyLm::new();
    let reward = |log_ratio: Tensor<2>, chi: f64| SqrtChiSquared::at(chi).estimate(log_ratio).values();
    let exact = world.ascend(LAMBDA_STAR, reward);
    // The table prints six decimals of an optimum that is flat there.
    assert_close([exact.gold, exact.proxy, exact.chi_squared], [2.058251, 2.695997, 4.408167], 1e-5);

    let in_loss = |estimator: ChiSquaredLoss| {
        move |log_ratio: Tensor<2>, chi: f64| {
            let leaf = log_ratio.autodiff().require_grad();
            let divergence = SqrtChiSquaredLoss { estimator, chi_squared: Some(chi) };
            gradient(&divergence.surrogate(leaf.clone()).sum(), &leaf)
        }
    };
    let same = world.ascend(LAMBDA_STAR, in_loss(ChiSquaredLoss::Exact));
    assert_close([same.gold, same.chi_squared], [exact.gold, exact.chi_squared], 1e-5);
    // The released form pulls half as strongly against large ratios.
    let released = world.ascend(LAMBDA_STAR, in_loss(ChiSquaredLoss::Released));
    assert_close([released.gold, released.chi_squared], [1.9375, 18.46], 5e-3);

    // χ² in the loss holds the whole gradient and λ is that of the objective; KL cannot tell the glitch from the gain.
    let chi = world.ascend(0.1, |log_ratio, _| {
        let leaf = log_ratio.autodiff().require_grad();
        gradient(&ChiSquaredLoss::Exact.surrogate(leaf.clone()).sum(), &leaf)
    });
    assert_close([chi.gold, chi.proxy, chi.chi_squared], [2.058047, 2.768835, 5.080237], 1e-5);
    for (lambda, gold, proxy) in [(2.0, 1.321362, 1.565781), (0.5, 0.195142, 6.369940)] {
        let kl = world.ascend(lambda, |log_ratio, _| Kl::default().estimate(log_ratio).values());
        assert_close([kl.gold, kl.proxy], [gold, proxy], 1e-5);
    }
}
