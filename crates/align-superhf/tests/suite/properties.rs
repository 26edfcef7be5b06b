//! Laws that hold whatever the distributions are.

use align_superhf::ideal::{best_of_n_distribution, forward_minimizer, reverse_minimizer, trajectory};
use align_superhf::loss::{KlDirection, inverse_loss, token_kl};
use align_testkit::double;
use burn::tensor::activation::log_softmax;
use proptest::prelude::*;

/// Four probabilities, none below 1e-3.
fn distribution() -> impl Strategy<Value = [f64; 4]> {
    prop::array::uniform4(0.01f64..1.0).prop_map(|weights| {
        let total: f64 = weights.iter().sum();
        weights.map(|weight| weight / total)
    })
}

fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).filter(|(p, _)| **p > 0.0).map(|(p, q)| p * (p / q).ln()).sum()
}

fn cross_entropy(q: &[f64], p: &[f64]) -> f64 {
    q.iter().zip(p).map(|(q, p)| -q * p.ln()).sum()
}

proptest! {
    #[test]
    fn an_exact_kl_is_never_negative_and_0_only_at_equality(
        policy in prop::array::uniform5(-8f64..8.0),
        prior in prop::array::uniform5(-8f64..8.0),
    ) {
        let rows = |scores: [f64; 5]| log_softmax(double::<2>([scores]), 1);
        for direction in [KlDirection::PriorToPolicy, KlDirection::PolicyToPrior] {
            let of = |a, b| token_kl(rows(a), rows(b), direction).into_scalar::<f64>();
            prop_assert!(of(policy, prior) > 0.0);
            prop_assert!(of(policy, policy).abs() < 1e-15); // f64 rounding
        }
    }

    #[test]
    fn nothing_beats_a_minimiser(q in distribution(), prior in distribution(), other in distribution(), beta in 0.01f64..3.0) {
        let forward = |p: &[f64]| cross_entropy(&q, p) + beta * kl(&prior, p);
        let reverse = |p: &[f64]| cross_entropy(&q, p) + beta * kl(p, &prior);
        let (best, reversed) = (forward_minimizer(&q, &prior, beta), reverse_minimizer(&q, &prior, beta));
        // f64 rounding of numbers below 20.
        prop_assert!((reversed.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        for rival in [&other[..], &q, &prior, &best, &reversed] {
            prop_assert!(forward(&best) <= forward(rival) + 1e-12);
            prop_assert!(reverse(&reversed) <= reverse(rival) + 1e-12);
        }
    }

    #[test]
    fn the_best_of_n_is_near_in_nats_and_no_worse(p in distribution(), rewards in prop::array::uniform4(-3i8..3), n in 1usize..40) {
        let rewards = rewards.map(f64::from);
        let q = best_of_n_distribution(&p, &rewards, n);
        let expected = |p: &[f64]| p.iter().zip(rewards).map(|(p, r)| p * r).sum::<f64>();
        prop_assert!((q.iter().sum::<f64>() - 1.0).abs() < 1e-12); // f64 rounding
        prop_assert!(expected(&q) >= expected(&p) - 1e-12);
        let bound = (n as f64).ln() - (n as f64 - 1.0) / n as f64;
        prop_assert!(kl(&q, &p) <= bound + 1e-9); // of logarithms of tiny numbers
    }

    #[test]
    fn every_token_keeps_its_floor_along_the_whole_trajectory(
        prior in distribution(), rewards in prop::array::uniform4(-3i8..3), n in 1usize..40, beta in 0.01f64..3.0,
    ) {
        let rewards = rewards.map(f64::from);
        for p in trajectory(&prior, &rewards, n, beta).take(20) {
            for (p, p_0) in p.iter().zip(prior) {
                prop_assert!(*p >= beta / (1.0 + beta) * p_0 - 1e-12); // f64 rounding
            }
        }
    }

    #[test]
    fn the_inverse_loss_is_least_at_the_root_of_its_coefficient(loss in 1e-3f64..10.0, coefficient in 1e-4f64..4.0) {
        let least = inverse_loss(coefficient.sqrt(), coefficient);
        let found = inverse_loss(loss, coefficient);
        prop_assert!(least.slope.abs() < 1e-12);
        prop_assert!(found.value >= least.value - 1e-12);
        prop_assert_eq!(found.slope > 0.0, loss > coefficient.sqrt());
    }
}
