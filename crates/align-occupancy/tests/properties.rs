//! Laws that hold in every world.

mod common;

use align_occupancy::{
    Audit, Correlation, Divergence, Mdp, Occupancy, TabularPolicy, action_optimum, bandit_optimum, bound_a,
    bound_b, chi_squared, kl, l1, leaving_threshold, nearest_optimal_policy, occupancy_optimum,
    optimal_policy, value_iteration, worst_case_reward,
};
use common::assert_close;
use proptest::prelude::*;

const ALL: [Divergence; 3] = [Divergence::Kl, Divergence::ChiSquared, Divergence::SqrtChiSquared];

/// A distribution over `n` cells, none of them nearly 0.
fn distribution(n: usize) -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(0.02f64..1.0, n).prop_map(|weights| {
        let sum: f64 = weights.iter().sum();
        weights.iter().map(|w| w / sum).collect()
    })
}

fn occupancy(n: usize) -> impl Strategy<Value = Occupancy> {
    distribution(n).prop_map(|cells| Occupancy::new(cells).expect("a distribution"))
}

fn reward(n: usize) -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(-3.0f64..3.0, n)
}

#[derive(Clone, Debug)]
struct World {
    mdp: Mdp,
    reference: TabularPolicy,
    policy: TabularPolicy,
    proxy: Vec<f64>,
    gold: Vec<f64>,
}

/// Four states, three actions; half of the rows of the kernel are certain.
fn world() -> impl Strategy<Value = World> {
    let row = prop_oneof![
        distribution(4),
        (0usize..4).prop_map(|s| (0..4).map(|i| f64::from(u8::from(i == s))).collect()),
    ];
    let kernel = prop::collection::vec(prop::collection::vec(row, 3), 4);
    let policy = || prop::collection::vec(distribution(3), 4);
    (distribution(4), kernel, 0.0f64..0.97, policy(), policy(), reward(12), reward(12)).prop_map(
        |(start, kernel, discount, reference, policy, proxy, gold)| World {
            mdp: Mdp::new(&start, &kernel, discount).expect("a world"),
            reference: TabularPolicy::new(&reference).expect("a policy"),
            policy: TabularPolicy::new(&policy).expect("a policy"),
            proxy,
            gold,
        },
    )
}

proptest! {
    #[test]
    fn divergences_are_ordered_and_zero_only_at_equality((mu, nu) in (occupancy(6), occupancy(6))) {
        let (chi2, kl, l1) = (chi_squared(&mu, &nu).unwrap(), kl(&mu, &nu).unwrap(), l1(&mu, &nu));
        // Sums of six terms of order one.
        prop_assert!(kl <= chi2.ln_1p() + 1e-13);
        prop_assert!(l1 <= chi2.sqrt() + 1e-13, "Cauchy–Schwarz");
        prop_assert!(l1 * l1 <= 2.0 * kl + 1e-13, "Pinsker");
        prop_assert_eq!(chi_squared(&nu, &nu).unwrap(), 0.0);
        prop_assert_eq!(align_occupancy::kl(&nu, &nu).unwrap(), 0.0);
        let ratio = mu.ratio(&nu).unwrap();
        let excess: Vec<f64> = ratio.iter().map(|rho| rho - 1.0).collect();
        prop_assert!((mu.mean(&excess) - chi2).abs() <= 1e-12 * (1.0 + chi2));
    }

    #[test]
    fn the_proxy_gain_is_within_the_root_of_chi_squared(
        (mu, nu, proxy) in (occupancy(6), occupancy(6), reward(6)),
    ) {
        let scale = Correlation::under(&nu, &proxy, &proxy);
        prop_assume!(nu.deviation(&proxy) > 1e-3);
        let gain = scale.unwrap().proxy_gain(mu.mean(&proxy));
        prop_assert!(gain.abs() <= chi_squared(&mu, &nu).unwrap().sqrt() + 1e-9);
    }

    #[test]
    fn the_gold_reward_is_above_bound_b_and_bound_b_above_bound_a(
        (mu, nu, proxy, gold) in (occupancy(6), occupancy(6), reward(6), reward(6)),
    ) {
        prop_assume!(nu.deviation(&proxy) > 1e-3 && nu.deviation(&gold) > 1e-3);
        let r = Correlation::under(&nu, &proxy, &gold).unwrap().r;
        // A proxy that does not correlate does when turned round; near 0 both bounds are as good as none.
        let proxy: Vec<f64> = proxy.iter().map(|x| x * r.signum()).collect();
        prop_assume!(r.abs() > 1e-3);
        let audit = Audit::of(&mu, &nu, &proxy, &gold).unwrap();
        // Bound A divides rounding by r.
        prop_assert!(audit.bound_a <= audit.bound_b + 1e-8, "{audit:?}");
        prop_assert!(audit.bound_b <= audit.gold_gain + 1e-8, "{audit:?}");
        let certified = audit.proxy_gain - (1.0 - r * r).sqrt() * audit.chi_squared.sqrt();
        if certified.abs() > 1e-6 {
            prop_assert_eq!(audit.bound_a > 0.0, certified > 0.0);
            prop_assert_eq!(audit.bound_b > 0.0, certified > 0.0);
        }
    }

    #[test]
    fn the_worst_reward_attains_bound_b(
        (mu, nu, proxy, r) in (occupancy(6), occupancy(6), reward(6), 0.05f64..1.0),
    ) {
        prop_assume!(nu.deviation(&proxy) > 1e-2);
        let worst = worst_case_reward(&mu, &nu, &proxy, r).unwrap();
        let seen = Correlation::under(&nu, &proxy, &worst).unwrap();
        let gain = seen.proxy_gain(mu.mean(&proxy));
        let chi2 = chi_squared(&mu, &nu).unwrap();
        prop_assume!(chi2 - gain * gain > 1e-6);
        // Divided by the norm of a remainder of at least 1e-3.
        assert_close([seen.gold_mean, seen.gold_deviation, seen.r], [0.0, 1.0, r], 1e-9);
        assert_close([mu.mean(&worst)], [bound_b(r, gain, chi2).unwrap()], 1e-9);
        prop_assert!(bound_a(r, gain, chi2).unwrap() <= mu.mean(&worst) + 1e-9);
    }

    #[test]
    fn occupancies_obey_their_flow(w in world()) {
        let mu = w.mdp.occupancy(&w.policy);
        let (states, actions) = (w.mdp.states(), w.mdp.actions());
        let visits = mu.states(actions);
        for state in 0..states {
            let mut inflow = (1.0 - w.mdp.discount()) * w.mdp.start()[state];
            for pair in 0..w.mdp.pairs() {
                let from = w.mdp.next(pair / actions, pair % actions).iter().find(|(s, _)| *s == state);
                inflow += w.mdp.discount() * mu.cells()[pair] * from.map_or(0.0, |(_, p)| *p);
            }
            prop_assert!((visits.cells()[state] - inflow).abs() < 1e-13);
        }
        assert_close([mu.cells().iter().sum::<f64>()], [1.0], 1e-13);
        assert_close(mu.policy(&w.reference).probabilities(), w.policy.probabilities(), 1e-12);
        // ⟨μ, R⟩ = (1 − γ)⟨μ0, V⟩.
        let values = w.mdp.values(&w.policy, &w.gold);
        let from_start: f64 = w.mdp.start().iter().zip(&values).map(|(p, v)| p * v).sum();
        assert_close([mu.mean(&w.gold)], [(1.0 - w.mdp.discount()) * from_start], 1e-11);
    }

    #[test]
    fn returns_differ_by_no_more_than_occupancies(w in world()) {
        // Of rewards in [0, 1].
        let reward: Vec<f64> = w.gold.iter().map(|r| (r + 3.0) / 6.0).collect();
        let (mu, nu) = (w.mdp.occupancy(&w.policy), w.mdp.occupancy(&w.reference));
        prop_assert!((mu.mean(&reward) - nu.mean(&reward)).abs() <= l1(&mu, &nu) + 1e-14);
    }

    #[test]
    fn planning_beats_every_policy_and_agrees_with_value_iteration(w in world()) {
        let plan = optimal_policy(&w.mdp, &w.gold).unwrap();
        for policy in [&w.policy, &w.reference] {
            let (best, other) = (&plan.values, w.mdp.values(policy, &w.gold));
            prop_assert!(best.iter().zip(&other).all(|(b, o)| *b >= o - 1e-10));
        }
        assert_close(value_iteration(&w.mdp, &w.gold, 1e-12).unwrap(), &plan.values, 1e-10);
        let nearest = nearest_optimal_policy(&w.mdp, &w.gold, &w.reference).unwrap();
        assert_close(w.mdp.values(&nearest, &w.gold), &plan.values, 1e-8);
    }

    #[test]
    fn no_policy_beats_a_certified_optimum(
        (w, lambda, which) in (world(), prop_oneof![0.01f64..0.2, 0.2f64..4.0], 0usize..3),
    ) {
        let divergence = ALL[which];
        let nu = w.mdp.occupancy(&w.reference);
        let best = occupancy_optimum(&w.mdp, &w.proxy, &w.reference, divergence, lambda).unwrap();
        prop_assert!(best.score.duality_gap < 1e-7, "{:?}", best.score);
        let objective = |policy: &TabularPolicy| {
            let mu = w.mdp.occupancy(policy);
            mu.mean(&w.proxy) - lambda * divergence.between(&mu, &nu).unwrap()
        };
        assert_close([objective(&best.policy)], [best.score.objective], 1e-12);
        let (score, gap) = (best.score.objective, best.score.duality_gap + 1e-12);
        let greedy = optimal_policy(&w.mdp, &w.proxy).unwrap().policy;
        for other in [&w.policy, &w.reference, &greedy] {
            prop_assert!(objective(other) <= score + gap);
            for part in [1e-3, 0.1] {
                let near = TabularPolicy::mixture(&[(part, other), (1.0 - part, &best.policy)]).unwrap();
                prop_assert!(objective(&near) <= score + gap);
            }
        }

        let best = action_optimum(&w.mdp, &w.proxy, &w.reference, divergence, lambda).unwrap();
        prop_assert!(best.score.duality_gap < 1e-7, "{:?}", best.score);
        let objective = |policy: &TabularPolicy| {
            let penalty = divergence.of_actions(&w.mdp, policy, &w.reference).unwrap();
            w.mdp.normalized_return(policy, &w.proxy) - lambda * penalty
        };
        assert_close([objective(&best.policy)], [best.score.objective], 1e-10);
        for other in [&w.policy, &w.reference, &greedy] {
            prop_assert!(objective(other) <= best.score.objective + best.score.duality_gap + 1e-11);
        }
    }

    #[test]
    fn optima_are_found_at_any_weight((w, exponent, which) in (world(), -8.0f64..6.0, 0usize..3)) {
        let (divergence, lambda) = (ALL[which], 10f64.powf(exponent));
        let best = occupancy_optimum(&w.mdp, &w.proxy, &w.reference, divergence, lambda).unwrap();
        prop_assert!(best.score.duality_gap < 1e-6, "{:?}", best.score);
        prop_assert!(best.score.objective >= w.mdp.normalized_return(&w.reference, &w.proxy) - 1e-6);
        let best = action_optimum(&w.mdp, &w.proxy, &w.reference, divergence, lambda).unwrap();
        prop_assert!(best.score.duality_gap < 1e-6, "{:?}", best.score);
        // Nothing to gain: the reference is as good as anything.
        let constant = vec![0.3; w.mdp.pairs()];
        let best = occupancy_optimum(&w.mdp, &constant, &w.reference, divergence, lambda).unwrap();
        prop_assert!((best.score.objective - 0.3).abs() < 1e-6, "{:?}", best.score);
    }

    #[test]
    fn the_reference_is_left_exactly_below_the_threshold(w in world()) {
        let threshold = leaving_threshold(&w.mdp, &w.proxy, &w.reference).unwrap();
        let nu = w.mdp.occupancy(&w.reference);
        prop_assert!(threshold <= nu.deviation(&w.proxy) + 1e-12);
        prop_assume!(threshold > 1e-3);
        let best = |lambda| {
            occupancy_optimum(&w.mdp, &w.proxy, &w.reference, Divergence::SqrtChiSquared, lambda).unwrap()
        };
        let above = best(threshold * 1.001);
        prop_assert_eq!(&above.policy, &w.reference);
        prop_assert_eq!(above.score.duality_gap, 0.0);
        let below = best(threshold * 0.97);
        prop_assert!(below.score.divergence > 1e-3, "{:?}", below.score);
        prop_assert!(below.score.objective > above.score.objective);
    }

    #[test]
    fn shifting_and_scaling_the_proxy_changes_no_optimum(
        (w, lambda, shift, scale, which) in (world(), 0.05f64..2.0, -5.0f64..5.0, 0.1f64..10.0, 0usize..3),
    ) {
        let divergence = ALL[which];
        let moved: Vec<f64> = w.proxy.iter().map(|r| scale * r + shift).collect();
        let before = occupancy_optimum(&w.mdp, &w.proxy, &w.reference, divergence, lambda).unwrap();
        let after = occupancy_optimum(&w.mdp, &moved, &w.reference, divergence, scale * lambda).unwrap();
        // The optimum's value is known to the gap; χ² is flat there, and its cells to the root of it.
        assert_close([after.score.objective], [scale * before.score.objective + shift], 1e-7 * (1.0 + scale));
        prop_assume!((leaving_threshold(&w.mdp, &w.proxy, &w.reference).unwrap() / lambda - 1.0).abs() > 0.05);
        assert_close(after.occupancy.cells(), before.occupancy.cells(), 2e-4);
    }

    #[test]
    fn chi_squared_and_its_root_share_solutions(
        (nu, proxy, share) in (occupancy(6), reward(6), 0.05f64..0.95),
    ) {
        let lambda = share * nu.deviation(&proxy);
        let root = bandit_optimum(Divergence::SqrtChiSquared, &nu, &proxy, lambda).unwrap();
        let chi2 = chi_squared(&root, &nu).unwrap();
        let square = bandit_optimum(Divergence::ChiSquared, &nu, &proxy, lambda / (2.0 * chi2.sqrt())).unwrap();
        assert_close(root.cells(), square.cells(), 1e-9);
    }

    #[test]
    fn bandit_optima_beat_their_neighbours(
        (nu, other, proxy, lambda, which) in (occupancy(6), occupancy(6), reward(6), 0.05f64..3.0, 0usize..3),
    ) {
        let divergence = ALL[which];
        let best = bandit_optimum(divergence, &nu, &proxy, lambda).unwrap();
        let objective = |mu: &Occupancy| mu.mean(&proxy) - lambda * divergence.between(mu, &nu).unwrap();
        for part in [1e-4, 0.01, 0.3, 1.0] {
            let cells = best.cells().iter().zip(other.cells()).map(|(b, o)| (1.0 - part) * b + part * o);
            let near = Occupancy::new(cells.collect()).unwrap();
            prop_assert!(objective(&near) <= objective(&best) + 1e-12);
        }
    }
}
