//! The exact experiments: INPO reaches the equilibrium of cyclic games, and what it is compared with does not.

use align_core::Draws;
use align_nash::game::{
    DpoReference, GameError, LogPolicy, PreferenceGame, random_cyclic, stability_threshold,
};
use align_testkit::assert_close;

use crate::{REFERENCE, cycle, cyclic_game};

/// The β that DPO is given.
const SWEEP: [f64; 12] = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0];

/// Gaps of the game after 1, 2, … steps.
fn gaps(
    game: &PreferenceGame,
    iterations: usize,
    step: impl Fn(&LogPolicy) -> Result<LogPolicy, GameError>,
) -> Vec<f64> {
    let iterates = game.run(iterations, |_, policy| step(policy)).expect("steps");
    iterates.iter().map(|policy| game.duality_gap(policy)).collect()
}

/// The mean gap over iterations 281 to 300: orbits are averaged, what has settled has settled.
fn late_gap(game: &PreferenceGame, step: impl Fn(&LogPolicy) -> Result<LogPolicy, GameError>) -> f64 {
    gaps(game, 300, step)[280..].iter().sum::<f64>() / 20.0
}

/// Checks gaps after 3, 20, 60, … iterations against numbers printed with a last digit of that unit.
#[track_caller]
fn assert_printed(gaps: &[f64], printed: &[(f64, f64)]) {
    for (&iterations, &(expected, unit)) in [3, 20, 60, 200].iter().zip(printed) {
        assert_close(gaps[iterations - 1], [expected], unit / 2.0);
    }
}

#[test]
fn inpo_reaches_the_equilibrium_above_the_threshold_and_orbits_below_it() {
    let game = cyclic_game(0.1);
    assert_close(game.duality_gap(game.reference()), [0.107057], 0.5e-6);
    let threshold = stability_threshold(0.1, game.rotation(&game.nash().expect("an equilibrium")));
    assert!(0.2 < threshold && threshold < 0.3, "{threshold}");
    let inpo = |eta: f64| gaps(&game, 200, |policy| game.omd_step(policy, eta));

    assert_printed(&inpo(0.3), &[(6.65e-2, 1e-4), (2.85e-2, 1e-4), (3.19e-3, 1e-5), (6.07e-6, 1e-8)]);
    let faster = inpo(0.5);
    assert_printed(&faster, &[(8.58e-2, 1e-4), (3.38e-3, 1e-5), (1.42e-6, 1e-8)]);
    assert!(faster[59] <= 1e-5 && faster[199] < 1e-12, "{} and {}", faster[59], faster[199]);
    let below = inpo(0.2);
    assert_printed(&below, &[(0.207, 1e-3), (0.152, 1e-3), (0.197, 1e-3), (0.147, 1e-3)]);
    assert!(below[199] >= 0.05);
}

#[test]
fn greed_and_a_missing_reference_lead_away() {
    let game = cyclic_game(0.1);
    let greedy = gaps(&game, 60, |policy| Ok(game.best_response(policy)));
    assert_printed(&greedy, &[(0.872, 1e-3), (0.732, 1e-3), (0.882, 1e-3)]);
    let free = gaps(&game, 200, |policy| game.multiplicative_weights_step(policy, 0.5));
    assert_printed(&free, &[(0.101, 1e-3), (0.196, 1e-3), (0.317, 1e-3)]);
    // It leaves the equilibrium of the game without a reference too, which is uniform.
    let unregularized = cyclic_game(0.0);
    let start = unregularized.duality_gap(unregularized.reference());
    let free = gaps(&unregularized, 200, |policy| unregularized.omd_step(policy, 0.5));
    assert!(free[199] > 2.0 * start, "from {start} to {}", free[199]);
}

#[test]
fn nash_md_with_a_constant_step_settles_beside_the_equilibrium() {
    let game = cyclic_game(0.1);
    let nash_md = |eta: f64| gaps(&game, 400, |policy| game.nash_md_step(policy, eta));
    let gaps = nash_md(0.5);
    assert_printed(&gaps, &[(0.098, 1e-3), (0.0120, 1e-4), (0.0120, 1e-4), (0.0120, 1e-4)]);
    assert_close(nash_md(0.3)[399], [0.0380], 0.5e-4);
    // It has come to rest, apart from rounding: a matter of bias, not of patience.
    assert_close(gaps[398], [gaps[399]], 1e-14);
}

#[test]
fn no_beta_takes_dpo_to_the_equilibrium() {
    let game = cyclic_game(0.1);
    let dpo = |beta: f64, reference| late_gap(&game, |policy| game.dpo_step(policy, beta, reference));
    let inpo = late_gap(&game, |policy| game.omd_step(policy, 0.5));
    for beta in SWEEP {
        let fixed = dpo(beta, DpoReference::Fixed);
        assert!(fixed >= 0.02 && fixed >= 1000.0 * inpo, "{beta}: {fixed} against {inpo}");
        // 0.4 to 1.0, printed with one digit. Among three responses 1.02 is the most the game has.
        let moving = dpo(beta, DpoReference::Moving);
        assert!((0.4..1.05).contains(&moving), "{beta}: {moving}");
    }
    // The best there is, between the β of the sweep, and what happens below it.
    let best = gaps(&game, 300, |policy| game.dpo_step(policy, 0.88, DpoReference::Fixed));
    assert_close(best[280..].iter().sum::<f64>() / 20.0, [0.028], 0.5e-3);
    let orbit = gaps(&game, 300, |policy| game.dpo_step(policy, 0.7, DpoReference::Fixed));
    let (low, high) =
        orbit[280..].iter().fold((f64::MAX, 0f64), |(low, high), &gap| (low.min(gap), high.max(gap)));
    assert!(high - low > 0.1, "from {low} to {high}");
}

#[test]
fn on_random_cyclic_games_inpo_is_a_thousand_times_closer_than_the_best_dpo() {
    for seed in 0..8 {
        let game = random_cyclic(&Draws::new(seed), 6, 0.1).expect("a game");
        let inpo = late_gap(&game, |policy| game.omd_step(policy, 0.5));
        let dpo =
            SWEEP.map(|beta| late_gap(&game, |policy| game.dpo_step(policy, beta, DpoReference::Fixed)));
        let best = dpo.into_iter().fold(f64::INFINITY, f64::min);
        println!("seed {seed}: INPO {inpo:.1e}, the best DPO {best:.4}");
        assert!(inpo <= 1e-5, "seed {seed}: {inpo}");
        assert!(best >= 1000.0 * inpo, "seed {seed}: {best} against {inpo}");
        let nash = game.nash().expect("an equilibrium");
        assert!(
            stability_threshold(0.1, game.rotation(&nash)) < 0.5,
            "seed {seed}: η is above the threshold"
        );
    }
}

#[test]
fn the_reference_keeps_length_bounded() {
    // Responses are their lengths 1 to 8, and longer is always liked better.
    let lengths: Vec<f64> = (1..=8).map(f64::from).collect();
    let scores: Vec<f64> = lengths.iter().map(|length| 0.3 * length).collect();
    let reference =
        LogPolicy::from_logits(&lengths.iter().map(|l| l * 0.6f64.ln()).collect::<Vec<_>>()).unwrap();
    let eta = 0.5;
    let run = |tau: f64| {
        let game = PreferenceGame::try_from_scores(&scores, reference.probabilities(), tau).expect("a game");
        let iterates = game.run(200, |_, policy| game.omd_step(policy, eta)).expect("steps");
        [3, 10, 30, 200].map(|t| (iterates[t - 1].mean(&lengths), iterates[t - 1].kl(&reference)))
    };
    // Printed with six digits behind the point.
    assert_close(reference.mean(&lengths), [2.363335], 0.5e-6);
    let free = run(0.0);
    let expected = [[3.837551, 0.312799], [7.110899, 2.718091], [7.972830, 4.335752], [8.000000, 4.475131]];
    assert_close(free.map(|(length, kl)| [length, kl]), expected, 0.5e-6);
    let held = run(eta / 3.0);
    let expected = [[3.319793, 0.141900], [3.822506, 0.306162], [3.854975, 0.318519], [3.854980, 0.318521]];
    assert_close(held.map(|(length, kl)| [length, kl]), expected, 0.5e-6);
    assert!((held[3].0 - held[2].0).abs() < 1e-3, "it has stopped growing");
    assert!(8.0 - free[3].0 < 0.1, "nothing stops it");
}

#[test]
fn an_oracle_that_flips_coins_or_lies_leaves_a_large_gap() {
    // Trained on another oracle, judged by the true one.
    let game = cyclic_game(0.1);
    let judged = |preferences: Vec<Vec<f64>>| {
        let oracle = PreferenceGame::new(preferences, REFERENCE.to_vec(), 0.1).expect("a game");
        // From a policy that is far from the reference.
        let mut policy = LogPolicy::from_probabilities(&[0.05, 0.05, 0.9]).expect("a policy");
        for _ in 0..200 {
            policy = oracle.omd_step(&policy, 0.5).expect("a step");
        }
        game.duality_gap(&policy)
    };
    let at_reference = game.duality_gap(game.reference());
    assert!(judged(cycle()) < 1e-12);
    // Coins: back to the reference, by a factor of 1 − τ/η = 0.8 a step.
    assert_close(judged(vec![vec![0.5; 3]; 3]), [at_reference], 1e-12);
    let lies = judged(cycle().into_iter().map(|row| row.into_iter().map(|p| 1.0 - p).collect()).collect());
    assert!(lies > 1.2 * at_reference, "{lies} against {at_reference}");
}
