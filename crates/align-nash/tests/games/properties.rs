//! Laws that hold in every game.

use align_core::Draws;
use align_nash::game::{
    LogPolicy, PreferenceGame, conservative_threshold, random_cyclic, stability_threshold,
};
use align_testkit::strategies::{log_distribution, permutation};
use proptest::collection::vec;
use proptest::prelude::*;

/// What logits within ±3 and logarithms of probabilities within 8 nats leave of the digits of a sum.
const ROUNDING: f64 = 1e-11;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Any policy over n responses.
fn any_policy(n: usize) -> impl Strategy<Value = LogPolicy> {
    log_distribution(n).prop_map(|logits| LogPolicy::from_logits(&logits).expect("a policy"))
}

/// Any preferences over n responses, mostly cyclic.
fn any_preferences(n: usize) -> impl Strategy<Value = Vec<Vec<f64>>> {
    vec(-3.0..3.0f64, n * n).prop_map(move |logits| {
        let entry = |i: usize, j: usize| match i.cmp(&j) {
            std::cmp::Ordering::Less => sigmoid(logits[i * n + j]),
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Greater => 1.0 - sigmoid(logits[j * n + i]),
        };
        (0..n).map(|i| (0..n).map(|j| entry(i, j)).collect()).collect()
    })
}

/// Any game over n responses.
fn any_game(n: usize) -> impl Strategy<Value = PreferenceGame> {
    (any_preferences(n), any_policy(n), 0.02..1.0f64).prop_map(|(preferences, reference, tau)| {
        PreferenceGame::new(preferences, reference.probabilities(), tau).expect("a game")
    })
}

/// A game and two policies.
fn game_and_policies() -> impl Strategy<Value = (PreferenceGame, LogPolicy, LogPolicy)> {
    (2usize..8).prop_flat_map(|n| (any_game(n), any_policy(n), any_policy(n)))
}

fn furthest(a: &LogPolicy, b: &LogPolicy) -> f64 {
    a.log_probs().iter().zip(b.log_probs()).fold(0.0, |furthest, (a, b)| f64::max(furthest, (a - b).abs()))
}

proptest! {
    #[test]
    fn what_one_player_wins_the_other_loses((game, p, q) in game_and_policies()) {
        prop_assert!((game.payoff(&p, &q) + game.payoff(&q, &p) - 1.0).abs() < ROUNDING);
        prop_assert!((p.mean(&game.win_rates(&p)) - 0.5).abs() < ROUNDING);
    }

    #[test]
    fn nothing_does_better_than_the_best_response((game, p, q) in game_and_policies()) {
        let best = game.best_response(&q);
        prop_assert!(game.payoff(&p, &q) <= game.payoff(&best, &q) + ROUNDING);
        // Free of regularisation it is a single response, or several alike.
        let free = game.clone().with_tau(0.0).expect("a tau");
        prop_assert!(free.payoff(&p, &q) <= free.payoff(&free.best_response(&q), &q) + ROUNDING);
    }

    #[test]
    fn the_gap_is_what_its_definition_and_its_closed_form_say((game, p, _) in game_and_policies()) {
        let (gap, best) = (game.duality_gap(&p), game.best_response(&p));
        // max_p J(p, π) − min_q J(π, q): the minimiser is the best response too.
        prop_assert!((gap - (game.payoff(&best, &p) - game.payoff(&p, &best))).abs() < ROUNDING);
        let tau = game.tau();
        let partition: f64 = game.win_rates(&p).iter().zip(game.reference().probabilities())
            .map(|(win_rate, reference)| reference * (win_rate / tau).exp())
            .sum();
        let closed = 2.0 * tau * partition.ln() + 2.0 * tau * p.kl(game.reference()) - 1.0;
        prop_assert!((gap - closed).abs() < ROUNDING, "{gap} and {closed}");
        let free = game.clone().with_tau(0.0).expect("a tau");
        let best = free.best_response(&p);
        let defined = free.payoff(&best, &p) - free.payoff(&p, &best);
        prop_assert!((free.duality_gap(&p) - defined).abs() < ROUNDING);
    }

    #[test]
    fn the_gap_is_zero_at_the_equilibrium_and_nowhere_else((game, p, _) in game_and_policies()) {
        let nash = game.nash().expect("an equilibrium");
        prop_assert!(nash.residual < 1e-12);
        // A square of rounding errors.
        prop_assert!(game.duality_gap(&nash.policy) < 1e-22);
        prop_assert!(game.duality_gap(&p) >= 2.0 * game.tau() * p.kl(&nash.policy) * (1.0 - 1e-9));
    }

    #[test]
    fn the_equilibrium_stays_where_it_is_for_every_eta((game, ..) in game_and_policies(), longer in 1.0..50.0f64) {
        let nash = game.nash().expect("an equilibrium").policy;
        let step = game.omd_step(&nash, longer * game.tau()).expect("a step");
        prop_assert!(furthest(&step, &nash) < 1e-11, "{}", furthest(&step, &nash));
    }

    #[test]
    fn the_order_of_responses_is_of_no_account(
        (game, p, order) in (2usize..8).prop_flat_map(|n| (any_game(n), any_policy(n), permutation(n))),
    ) {
        let shuffled = |policy: &LogPolicy| {
            let log_probs: Vec<f64> = order.iter().map(|&y| policy.log_probs()[y]).collect();
            LogPolicy::from_logits(&log_probs).expect("a policy")
        };
        let preferences =
            order.iter().map(|&i| order.iter().map(|&j| game.preference(i, j)).collect()).collect();
        let reference = shuffled(game.reference()).probabilities();
        let other = PreferenceGame::new(preferences, reference, game.tau()).expect("a game");
        prop_assert!((other.duality_gap(&shuffled(&p)) - game.duality_gap(&p)).abs() < ROUNDING);
        let (nash, other_nash) = (game.nash().expect("an equilibrium"), other.nash().expect("an equilibrium"));
        prop_assert!(furthest(&other_nash.policy, &shuffled(&nash.policy)) < 1e-11);
        // A square root of differences of size 1e-16 where the game does not turn at all.
        prop_assert!((other.rotation(&other_nash) - game.rotation(&nash)).abs() < 1e-8);
        let (step, other_step) = (game.omd_step(&p, 1.5), other.omd_step(&shuffled(&p), 1.5));
        prop_assert!(furthest(&other_step.unwrap(), &shuffled(&step.unwrap())) < ROUNDING);
    }

    #[test]
    fn iterates_stay_within_the_inverse_of_tau_of_the_reference(
        (game, ..) in game_and_policies(), longer in 1.0..5.0f64,
    ) {
        let iterates = game.run(50, |_, policy| game.omd_step(policy, longer * game.tau())).expect("steps");
        for policy in iterates {
            prop_assert!(policy.log_ratio_spread(game.reference()) <= 1.0 / game.tau());
        }
    }

    #[test]
    fn a_game_turns_as_fast_as_its_linearised_step(
        (game, start) in (3usize..8).prop_flat_map(|n| (any_game(n), any_policy(n))),
    ) {
        let nash = game.nash().expect("an equilibrium");
        let omega = game.rotation(&nash);
        prop_assert!((0.0..=0.5).contains(&omega), "{omega}");
        prop_assert!(conservative_threshold(game.tau()) >= stability_threshold(game.tau(), omega));
        // Where nothing turns, the powers below are rounding errors.
        prop_assume!(omega > 1e-6);
        // K S is normal in the inner product of S: each application lengthens a vector by ω at most, and in the long run by ω.
        let p = nash.policy.probabilities();
        let times_s = |x: &[f64]| -> Vec<f64> {
            let mean: f64 = x.iter().zip(&p).map(|(x, p)| x * p).sum();
            x.iter().zip(&p).map(|(x, p)| p * (x - mean)).collect()
        };
        let length =
            |x: &[f64]| x.iter().zip(times_s(x)).map(|(x, sx)| x * sx).sum::<f64>().max(0.0).sqrt();
        let mut x = start.log_probs().to_vec();
        let mut factor = 0.0;
        for _ in 0..2000 {
            let scale = length(&x);
            x.iter_mut().for_each(|x| *x /= scale);
            let turned = times_s(&x);
            let row = |i: usize| -> f64 {
                (0..p.len()).map(|j| (game.preference(i, j) - 0.5) * turned[j]).sum()
            };
            x = (0..p.len()).map(row).collect();
            factor = length(&x);
            prop_assert!(factor <= omega * (1.0 + 1e-6), "{factor} beyond {omega}");
        }
        // A start with a share of 1e-6 in the fastest direction is within log(1e6)/2000 after as many steps.
        prop_assert!(factor >= omega * (1.0 - 7e-3), "{factor} short of {omega}");
    }

    #[test]
    fn the_step_minimises_both_losses_which_differ_by_a_constant(
        (game, from, other) in game_and_policies(),
        stale in any::<bool>(),
        longer in 1.0..5.0f64,
    ) {
        let step = game.mirror_step(&from, longer * game.tau()).expect("a step");
        let step = if stale { step.with_pairs_from(game.best_response(&from)) } else { step };
        let target = step.target();
        let (least, least_ideal) = (step.label_loss(&target), step.ideal_loss(&target));
        // Losses go up to (1/τ)² = 2500.
        prop_assert!(least_ideal < 1e-20, "{least_ideal}");
        for policy in [&from, &other, game.reference()] {
            let (label, ideal) = (step.label_loss(policy), step.ideal_loss(policy));
            prop_assert!((label - ideal - least).abs() < 1e-9 * label, "{label} − {ideal} is not {least}");
        }
    }

    #[test]
    fn fitted_scores_match_the_win_rates((game, pairs, _) in game_and_policies()) {
        let scores = game.bradley_terry_scores(&pairs).expect("scores");
        prop_assert!(pairs.mean(&scores).abs() < 1e-11);
        let probabilities = pairs.probabilities();
        for (score, win_rate) in scores.iter().zip(game.win_rates(&pairs)) {
            let terms = scores.iter().zip(&probabilities);
            let modelled: f64 = terms.map(|(other, p)| p * sigmoid(score - other)).sum();
            prop_assert!((modelled - win_rate).abs() < 1e-11);
        }
    }

    #[test]
    fn preferences_from_scores_give_the_scores_back(
        (scores, pairs) in (2usize..8).prop_flat_map(|n| (vec(-3.0..3.0f64, n), any_policy(n))),
    ) {
        let uniform = LogPolicy::uniform(scores.len());
        let game = PreferenceGame::try_from_scores(&scores, uniform.probabilities(), 0.1).expect("a game");
        let mean = pairs.mean(&scores);
        for (found, score) in game.bradley_terry_scores(&pairs).expect("scores").iter().zip(&scores) {
            // The slope of a win rate is at least 0.002 here: six nats apart.
            prop_assert!((found - (score - mean)).abs() < 1e-8, "{found} and {}", score - mean);
        }
    }

    #[test]
    fn kl_is_its_definition((_, p, q) in game_and_policies()) {
        let terms = p.log_probs().iter().zip(q.log_probs()).map(|(p, q)| p.exp() * (p - q));
        prop_assert!((p.kl(&q) - terms.sum::<f64>()).abs() < ROUNDING);
        prop_assert!(p.kl(&q) >= 0.0);
        prop_assert_eq!(p.kl(&p), 0.0);
    }
}

#[test]
fn equilibria_are_found_for_a_small_tau_and_hundreds_of_responses() {
    for (responses, seeds) in [(3, 20), (20, 20), (300, 2)] {
        for seed in 0..seeds {
            let game = random_cyclic(&Draws::new(seed), responses, 0.02).expect("a game");
            let nash = game.nash().expect("an equilibrium");
            let step = game.omd_step(&nash.policy, 1.0).expect("a step");
            assert!(nash.residual < 1e-12 && furthest(&step, &nash.policy) < 1e-12);
            assert!(nash.iterations < 50, "{responses} responses, seed {seed}: {}", nash.iterations);
            let omega = game.rotation(&nash);
            assert!((0.0..0.5).contains(&omega), "{responses} responses, seed {seed}: {omega}");
        }
    }
}

#[test]
fn a_small_kl_keeps_its_digits() {
    // (1 ± ε)/2 against ½: ε²/2 + ε⁴/12 + …
    let epsilon: f64 = 1e-9;
    let near = LogPolicy::from_logits(&[epsilon.ln_1p(), (-epsilon).ln_1p()]).expect("a policy");
    let found = near.kl(&LogPolicy::uniform(2));
    // The logarithm that ε is kept as has an error of 1e-16/1e-9.
    assert!((found / (epsilon * epsilon / 2.0) - 1.0).abs() < 1e-6, "{found:e}");
    let certain = LogPolicy::from_probabilities(&[1.0, 0.0]).expect("a policy");
    assert_eq!(LogPolicy::uniform(2).kl(&certain), f64::INFINITY);
    assert!((certain.kl(&LogPolicy::uniform(2)) - 2f64.ln()).abs() < 1e-15);
}

#[test]
fn random_games_are_a_function_of_their_seed() {
    let game = |seed| random_cyclic(&Draws::new(seed), 6, 0.1).expect("a game");
    assert_eq!(game(3), game(3));
    assert_ne!(game(3), game(4));
}
