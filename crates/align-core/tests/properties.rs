//! Laws that hold whatever the numbers.

use align_core::advantages::{gae, group_normalized, leave_one_out, returns_to_go};
use align_core::divergence::{
    AlphaDivergence, ChiSquared, Divergence, DivergenceConfig, JensenShannon, Kl, KlEstimator, ReverseKl,
    SquaredHellinger, TotalVariation,
};
use align_core::masked::{self, Shift};
use align_core::number::Finite;
use align_core::selection::top_k;
use align_core::{Completions, log_probs};
use align_testkit::strategies::{
    any_mask, matrix, permutation, ragged_rows, right_padded_mask, two_log_distributions,
};
use align_testkit::{Values, assert_close, device};
use burn::tensor::{Bool, DType, Tensor, TensorData};
use proptest::prelude::*;

/// f64 sums of a few dozen numbers of size about ten.
const ROUNDING: f64 = 1e-11;

fn tensor(rows: &[Vec<f64>]) -> Tensor<2> {
    let shape = [rows.len(), rows[0].len()];
    Tensor::from_data(TensorData::new(rows.concat(), shape), (&device(), DType::F64))
}

fn mask_of(rows: &[Vec<bool>]) -> Tensor<2, Bool> {
    let shape = [rows.len(), rows[0].len()];
    Tensor::from_data(TensorData::new(rows.concat(), shape), &device())
}

fn rows_of(x: &Tensor<2>) -> Vec<Vec<f64>> {
    x.values().chunks(x.dims()[1]).map(<[f64]>::to_vec).collect()
}

fn permuted<T: Clone>(rows: &[T], order: &[usize]) -> Vec<T> {
    order.iter().map(|&row| rows[row].clone()).collect()
}

fn one(divergence: &dyn Divergence, p: &[f64], q: &[f64]) -> f64 {
    divergence.exact(tensor(&[p.to_vec()]), tensor(&[q.to_vec()])).into_scalar()
}

fn all_divergences() -> Vec<Box<dyn Divergence>> {
    vec![
        Box::new(Kl::default()),
        Box::new(ReverseKl),
        Box::new(ChiSquared),
        Box::new(JensenShannon),
        Box::new(TotalVariation),
        Box::new(SquaredHellinger),
        Box::new(alpha(-1.0)),
        Box::new(alpha(0.3)),
        Box::new(alpha(3.0)),
    ]
}

fn alpha(alpha: f64) -> AlphaDivergence {
    AlphaDivergence { alpha: Finite::literal(alpha) }
}

/// GAE as Schulman et al. write it: `Σ_l (γλ)^l δ_{t+l}`, over one row without padding.
fn slow_gae(rewards: &[f64], values: &[f64], gamma: f64, lambda: f64) -> Vec<f64> {
    let delta = |t: usize| rewards[t] + gamma * values.get(t + 1).unwrap_or(&0.0) - values[t];
    (0..rewards.len())
        .map(|t| (t..rewards.len()).map(|u| (gamma * lambda).powi((u - t) as i32) * delta(u)).sum())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn gae_equals_its_definition_with_masked_tokens_dropped(
        rewards in matrix(3, 6, 2.0), values in matrix(3, 6, 2.0), counts in any_mask(3, 6),
        gamma in 0.0..=1.0f64, lambda in 0.0..=1.0f64,
    ) {
        let found = gae(tensor(&rewards), tensor(&values), &mask_of(&counts), gamma, lambda);
        let (advantages, returns) = (rows_of(&found.advantages), rows_of(&found.returns));
        for row in 0..3 {
            let kept: Vec<usize> = (0..6).filter(|&t| counts[row][t]).collect();
            let dropped = |rows: &[Vec<f64>]| kept.iter().map(|&t| rows[row][t]).collect::<Vec<_>>();
            let expected = slow_gae(&dropped(&rewards), &dropped(&values), gamma, lambda);
            assert_close(dropped(&advantages), expected.clone(), ROUNDING);
            let with_values: Vec<f64> = expected.iter().zip(dropped(&values)).map(|(a, v)| a + v).collect();
            assert_close(dropped(&returns), with_values, ROUNDING);
            for t in (0..6).filter(|t| !kept.contains(t)) {
                prop_assert_eq!((advantages[row][t], returns[row][t]), (0.0, 0.0));
            }
        }
    }

    #[test]
    fn with_lambda_one_returns_do_not_depend_on_the_values(
        rewards in matrix(2, 5, 2.0), values in matrix(2, 5, 2.0), counts in right_padded_mask(2, 5), gamma in 0.0..=1.0f64,
    ) {
        let counts = mask_of(&counts);
        let found = gae(tensor(&rewards), tensor(&values), &counts, gamma, 1.0).returns;
        assert_close(found, returns_to_go(tensor(&rewards), &counts, gamma), ROUNDING);
    }

    #[test]
    fn permuting_rows_permutes_advantages(
        rewards in matrix(4, 5, 2.0), values in matrix(4, 5, 2.0), counts in any_mask(4, 5), order in permutation(4),
    ) {
        let found = gae(tensor(&rewards), tensor(&values), &mask_of(&counts), 0.99, 0.95).advantages;
        let shuffled = gae(
            tensor(&permuted(&rewards, &order)), tensor(&permuted(&values, &order)),
            &mask_of(&permuted(&counts, &order)), 0.99, 0.95,
        );
        // The same sums in the same order: equal to the bit.
        prop_assert_eq!(rows_of(&shuffled.advantages), permuted(&rows_of(&found), &order));
    }

    #[test]
    fn masking_equals_dropping(x in matrix(3, 5, 10.0), counts in any_mask(3, 5)) {
        let mask = mask_of(&counts);
        let kept: Vec<f64> = x.concat().into_iter().zip(counts.concat()).filter(|(_, c)| *c).map(|(x, _)| x).collect();
        assert_close(masked::sum(tensor(&x), &mask), kept.iter().sum::<f64>(), ROUNDING);
        prop_assume!(kept.len() >= 2);
        let n = kept.len() as f64;
        let mean = kept.iter().sum::<f64>() / n;
        let variance = kept.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
        assert_close(masked::mean(tensor(&x), &mask), mean, ROUNDING);
        assert_close(masked::variance(tensor(&x), &mask), variance, 1e-10);
    }

    #[test]
    fn whitened_tokens_have_mean_zero_and_variance_one(x in matrix(3, 5, 10.0), counts in any_mask(3, 5)) {
        prop_assume!(counts.concat().iter().filter(|counts| **counts).count() >= 3);
        let mask = mask_of(&counts);
        let white = masked::whiten(tensor(&x), &mask, Shift::Subtract);
        assert_close(masked::mean(white.clone(), &mask), 0.0, 1e-9);
        // The guard of 1e-8 in the root takes 1e-8/var off; variances here are above 1e-2.
        prop_assume!(masked::variance(tensor(&x), &mask).into_scalar::<f64>() > 1e-2);
        assert_close(masked::variance(white, &mask), 1.0, 2e-6);
        let kept = masked::whiten(tensor(&x), &mask, Shift::Keep);
        assert_close(masked::mean(kept, &mask), masked::mean(tensor(&x), &mask), 1e-9);
    }

    #[test]
    fn divergences_are_zero_only_at_equality((p, q) in two_log_distributions(5)) {
        let apart = p.iter().zip(&q).any(|(p, q)| (p - q).abs() > 1e-3);
        for divergence in all_divergences() {
            let (itself, other) = (one(&divergence, &p, &p), one(&divergence, &p, &q));
            prop_assert!(itself.abs() < 1e-12, "{divergence:?} of a policy to itself is {itself}");
            prop_assert!(!apart || other > 1e-10, "{divergence:?} of different policies is {other}");
        }
    }

    #[test]
    fn estimates_average_to_the_exact_divergence((p, q) in two_log_distributions(5)) {
        let mut unbiased = all_divergences();
        unbiased.push(Box::new(Kl { estimator: KlEstimator::K3 }));
        for divergence in unbiased {
            let (p, q) = (tensor(std::slice::from_ref(&p)), tensor(std::slice::from_ref(&q)));
            let mean = (p.clone().exp() * divergence.estimate(p.clone() - q.clone())).sum();
            let exact = divergence.exact(p, q);
            // χ² reaches e^9 here and α = 3 e^18; their terms round relatively.
            let scale = 1.0 + exact.clone().into_scalar::<f64>();
            assert_close(mean, exact, 1e-12 * scale);
        }
    }

    #[test]
    fn the_alpha_family_passes_through_its_members((p, q) in two_log_distributions(5)) {
        let of = |a: f64| one(&alpha(a), &p, &q);
        let (kl, reverse) = (one(&Kl::default(), &p, &q), one(&ReverseKl, &p, &q));
        let (chi, hellinger) = (one(&ChiSquared, &p, &q), one(&SquaredHellinger, &p, &q));
        assert_close([of(1.0), of(0.0)], [kl, reverse], 1e-12);
        assert_close([of(0.5), of(2.0) / (1.0 + chi)], [4.0 * hellinger, chi / 2.0 / (1.0 + chi)], 1e-11);
        // The ends are limits: 10⁻⁶ beside them the family is that far off, relatively, and 1/10⁻⁶ roundings.
        for (end, limit) in [(1.0, kl), (0.0, reverse)] {
            assert_close([of(end - 1e-6), of(end + 1e-6)], [limit; 2], 1e-4 * (1.0 + limit));
        }
        // D_α(π‖μ) = D_{1−α}(μ‖π).
        assert_close(of(0.3), one(&alpha(0.7), &q, &p), 1e-11);
    }

    #[test]
    fn the_alpha_estimates_have_the_members_estimates_as_limits(log_ratio in matrix(2, 4, 5.0)) {
        let at = |a: f64| alpha(a).estimate(tensor(&log_ratio)).values();
        let k3 = Kl { estimator: KlEstimator::K3 }.estimate(tensor(&log_ratio));
        assert_close(at(1.0), k3, 1e-12 * 5f64.exp());
        assert_close(at(1e-6), ReverseKl.estimate(tensor(&log_ratio)), 1e-4 * 5f64.exp());
        let hellinger = SquaredHellinger.estimate(tensor(&log_ratio)) * 4.0;
        assert_close(at(0.5), hellinger, 1e-12 * 5f64.exp());
    }

    #[test]
    fn kl_never_exceeds_log_one_plus_chi_squared((p, q) in two_log_distributions(5)) {
        // Jensen: KL = E_p log(p/q) ≤ log E_p[p/q].
        let (kl, chi) = (one(&Kl::default(), &p, &q), one(&ChiSquared, &p, &q));
        prop_assert!(kl <= chi.ln_1p() + 1e-12, "{kl} > log(1 + {chi})");
    }

    #[test]
    fn pinsker_and_le_cam_hold((p, q) in two_log_distributions(5)) {
        let (kl, tv) = (one(&Kl::default(), &p, &q), one(&TotalVariation, &p, &q));
        let (hellinger, shannon) = (one(&SquaredHellinger, &p, &q), one(&JensenShannon, &p, &q));
        prop_assert!(2.0 * tv * tv <= kl + 1e-12);
        prop_assert!(hellinger <= tv + 1e-12 && tv <= (hellinger * (2.0 - hellinger)).sqrt() + 1e-12);
        prop_assert!(shannon <= 2f64.ln() + 1e-12);
        assert_close(shannon, one(&JensenShannon, &q, &p), 1e-12);
        assert_close(kl, one(&ReverseKl, &q, &p), 1e-12);
    }

    #[test]
    fn normalised_estimates_are_never_negative(log_ratio in matrix(2, 4, 30.0)) {
        for config in [
            DivergenceConfig::Kl { estimator: KlEstimator::K2 }, DivergenceConfig::Kl { estimator: KlEstimator::K3 },
            DivergenceConfig::ReverseKl {}, DivergenceConfig::JensenShannon {},
            DivergenceConfig::TotalVariation {}, DivergenceConfig::SquaredHellinger {},
            DivergenceConfig::Alpha { alpha: Finite::literal(-0.5) }, DivergenceConfig::Alpha { alpha: Finite::literal(2.0) },
        ] {
            for estimate in config.build().estimate(tensor(&log_ratio)).values() {
                // Terms of size e^20 cancel to within their rounding.
                prop_assert!(estimate >= -1e-7 && estimate.is_finite(), "{config:?} gives {estimate}");
            }
        }
    }

    #[test]
    fn leave_one_out_adds_up_to_nothing(scores in prop::collection::vec(-5.0..5.0f64, 12), shift in -9.0..9.0f64) {
        let vector = |by: f64| {
            let scores: Vec<f64> = scores.iter().map(|score| score + by).collect();
            Tensor::<1>::from_data(TensorData::new(scores, [12]), (&device(), DType::F64))
        };
        let found = leave_one_out(vector(0.0), 4);
        for group in found.values().chunks(4) {
            assert_close(group.iter().sum::<f64>(), 0.0, ROUNDING);
        }
        assert_close(leave_one_out(vector(shift), 4), found, ROUNDING);
        assert_close(group_normalized(vector(shift), 4), group_normalized(vector(0.0), 4), 1e-9);
    }

    #[test]
    fn top_k_is_a_prefix_of_the_descending_order(scores in prop::collection::vec(-3i8..3, 1..12), k in 0usize..12) {
        let scores: Vec<f32> = scores.into_iter().map(f32::from).collect();
        let k = k.min(scores.len());
        let chosen = top_k(&scores, k);
        prop_assert_eq!(&chosen[..], &top_k(&scores, scores.len())[..k]);
        for pair in chosen.windows(2) {
            let (a, b) = (pair[0], pair[1]);
            prop_assert!(scores[a] > scores[b] || (scores[a] == scores[b] && a < b));
        }
    }

    #[test]
    fn padding_and_selection_keep_every_token(prompts in ragged_rows(4, 5, 9), order in permutation(4)) {
        let responses: Vec<Vec<u32>> = prompts.iter().map(|row| row.iter().rev().skip(1).copied().collect()).collect();
        let completions = Completions::from_rows(&prompts, &responses, &device());
        prop_assert_eq!(&completions.prompt.rows(), &prompts);
        prop_assert_eq!(&completions.response.rows(), &responses);
        let joined: Vec<Vec<u32>> = prompts.iter().zip(&responses).map(|(p, r)| [p.as_slice(), r].concat()).collect();
        prop_assert_eq!(completions.joined().rows(), joined);
        prop_assert_eq!(completions.select(&order).prompt.rows(), permuted(&prompts, &order));
        prop_assert_eq!(completions.select(&order).response.lengths(),
            permuted(&responses, &order).iter().map(Vec::len).collect::<Vec<_>>());
    }

    #[test]
    fn chunked_log_probabilities_equal_the_whole(logits in matrix(2, 15, 4.0), rows in ragged_rows(2, 5, 3), columns in 1usize..7) {
        let response = align_core::TokenBatch::right_padded(&rows, &device());
        let r = response.width();
        let logits = tensor(&logits).reshape([2, 5, 3]).slice([0..2, 0..r]);
        let whole = log_probs::from_logits(logits.clone(), &response, 0.8);
        let parts = log_probs::chunked(logits, &response, 0.8, columns);
        // Rows do not meet, so the sums are the same to the bit.
        prop_assert_eq!(parts.log_probs.values(), whole.log_probs.values());
        prop_assert_eq!(parts.entropies.values(), whole.entropies.values());
    }
}
