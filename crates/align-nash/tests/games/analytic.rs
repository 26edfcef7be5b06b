//! Numbers of the specification, and answers that are known without it.

use align_nash::game::{
    DpoReference, EtaSchedule, LogPolicy, PreferenceGame, conservative_threshold, spectral_radius,
    stability_threshold,
};
use align_testkit::assert_close;

use crate::{REFERENCE, cyclic_game, policy};

/// Half a unit of the last of the nine digits that most numbers are printed with.
const NINE: f64 = 0.5e-9;

/// Half a unit of the last of ten digits.
const TEN: f64 = 0.5e-10;

// T4

#[test]
fn the_equilibrium_and_the_gaps_around_it() {
    let game = cyclic_game(0.1);
    let nash = game.nash().expect("an equilibrium");
    assert!(nash.residual < 1e-12, "{}", nash.residual);
    // Printed with twelve digits.
    assert_close(nash.policy.probabilities(), [0.460658929981, 0.212659337484, 0.326681732535], 0.5e-12);
    let (uniform, other) = (LogPolicy::uniform(3), policy(&[0.2, 0.5, 0.3]));
    assert_close(game.duality_gap(game.reference()), [0.1070572225], TEN);
    assert_close(game.duality_gap(&uniform), [0.0481031103], TEN);
    assert_close(game.duality_gap(&other), [0.1920504444], TEN);
    assert!(game.duality_gap(&nash.policy) < 1e-12);
    assert_close(nash.policy.kl(game.reference()), [0.1918178460], TEN);
    assert_close(nash.policy.kl(&uniform), [0.0468652030], TEN);
    assert_close(nash.policy.kl(&other), [0.2303750028], TEN);
    assert_close(game.payoff(game.reference(), &uniform), [0.5240515552], TEN);
    assert_close(game.payoff(&uniform, game.reference()), [0.4759484448], TEN);
    assert_close(game.payoff(&nash.policy, game.reference()), [0.5143408702], TEN);
}

// T5

#[test]
fn steps_of_mirror_descent() {
    let game = cyclic_game(0.1);
    // Three products and a sum: a few roundings.
    assert_close(game.win_rates(game.reference()), [0.58, 0.30, 0.62], 1e-15);
    let steps = |game: &PreferenceGame, eta: f64, count: usize| -> Vec<LogPolicy> {
        game.run(count, |_, policy| game.omd_step(policy, eta)).expect("steps")
    };
    let of = |policies: &[LogPolicy]| policies.iter().map(LogPolicy::probabilities).collect::<Vec<_>>();

    let small = steps(&game, 0.3, 3);
    let expected = [
        [0.720949955, 0.141753440, 0.137296605],
        [0.660286927, 0.080895497, 0.258817576],
        [0.511667413, 0.074357549, 0.413975039],
    ];
    assert_close(of(&small), expected, NINE);
    let gaps: Vec<f64> = small.iter().map(|policy| game.duality_gap(policy)).collect();
    assert_close(gaps, [0.114585946, 0.103596186, 0.066542022], NINE);

    let expected = [
        [0.682057347, 0.194798669, 0.123143984],
        [0.694125796, 0.133894421, 0.171979783],
        [0.654524449, 0.103704933, 0.241770618],
    ];
    assert_close(of(&steps(&game, 0.5, 3)), expected, NINE);

    let greedy = steps(&game, 0.1, 1);
    assert_close(of(&greedy), [[0.781834861, 0.023771713, 0.194393426]], NINE);
    assert_close(game.duality_gap(&greedy[0]), [0.230793786], NINE);
    // τ = η: the step is the best response, to the last bits of a logarithm of size 5.
    assert_close(greedy[0].log_probs(), game.best_response(game.reference()).log_probs(), 1e-14);

    let free = steps(&cyclic_game(0.0), 0.3, 2);
    assert_close(free[0].log_probs(), small[0].log_probs(), 1e-14);
    assert_close(free[1].probabilities(), [0.666866482, 0.059857242, 0.273276277], NINE);
    // The step that knows no reference is the step at τ = 0.
    let multiplicative = game.multiplicative_weights_step(&free[0], 0.3).expect("a step");
    assert_close(multiplicative.log_probs(), free[1].log_probs(), 1e-14);
}

// T6

#[test]
fn the_decreasing_schedule() {
    let game = cyclic_game(0.1);
    let nash = game.nash().expect("an equilibrium").policy;
    let schedule = EtaSchedule::Decreasing {};
    let iterates = game.run(100, |t, policy| game.omd_step(policy, schedule.eta(0.1, t))).expect("steps");
    let at = |t: usize| &iterates[t - 1];
    assert_close(at(1).probabilities(), [0.772248482, 0.059709583, 0.168041935], NINE);
    assert_close(at(2).probabilities(), [0.486289863, 0.035466052, 0.478244085], NINE);
    let expected = [
        (1, 0.249290103, 0.189756812),
        (2, 0.231444383, 0.114013219),
        (10, 0.051464097, 0.046345492),
        (50, 0.000453023, 0.000505070),
        (100, 0.000036037, 0.000040599),
    ];
    for (t, kl, gap) in expected {
        assert_close(nash.kl(at(t)), [kl], NINE);
        assert_close(game.duality_gap(at(t)), [gap], NINE);
        // Theorem 4's bound with C = 1. It holds, and says little: at t = 1 it is 1067.
        assert!(nash.kl(at(t)) <= 32.0 / (0.01 * (t as f64 + 2.0)));
    }
}

// T7

#[test]
fn labels_and_win_rates_have_losses_a_constant_apart() {
    let game = cyclic_game(0.1);
    let step = game.mirror_step(&policy(&[0.5, 0.3, 0.2]), 0.3).expect("a step");
    let target = step.target();
    assert_close(target.probabilities(), [0.597869475, 0.198034182, 0.204096343], NINE);
    let cases = [
        (policy(&[0.5, 0.3, 0.2]), 0.133684318, 2.769239873),
        (policy(&REFERENCE), 0.306575237, 2.942130793),
        (LogPolicy::uniform(3), 0.597402598, 3.232958154),
        (target, 0.0, 2.635555556),
    ];
    for (policy, ideal, label) in cases {
        assert_close(step.ideal_loss(&policy), [ideal], NINE);
        assert_close(step.label_loss(&policy), [label], NINE);
        assert_close(step.label_loss(&policy) - step.ideal_loss(&policy), [2.635555556], NINE);
    }
    let stale = step.with_pairs_from(LogPolicy::uniform(3));
    assert_close(stale.target().probabilities(), [0.536658632, 0.303009065, 0.160332303], NINE);
    // A square of rounding errors.
    assert!(stale.ideal_loss(&stale.target()) < 1e-28);
}

// T8

#[test]
fn stability_of_mirror_descent() {
    let game = cyclic_game(0.1);
    let omega = game.rotation(&game.nash().expect("an equilibrium"));
    assert_close(omega, [0.2146721207], TEN);
    assert_close(stability_threshold(0.1, omega), [0.2804205971], TEN);
    for (eta, radius) in [(0.25, 1.047542797), (0.3, 0.978003178), (0.5, 0.907929776)] {
        assert_close(spectral_radius(0.1, omega, eta), [radius], NINE);
    }
    // (τ² + ¼)/(2τ), and no threshold helps without regularisation.
    assert_close(conservative_threshold(0.1), [1.3], 1e-15);
    assert_eq!(stability_threshold(0.0, omega), f64::INFINITY);
}

#[test]
fn the_radius_is_that_of_the_step_itself() {
    // Close to the equilibrium a change δ of log π has a KL of ½ δᵀ S δ, and turning by K S keeps that: each step takes
    // √KL by the radius. What is of third order is still felt in the third digit after 100 steps at η = 0.3.
    let game = cyclic_game(0.1);
    let nash = game.nash().expect("an equilibrium");
    for eta in [0.3, 0.5] {
        let radius = spectral_radius(0.1, game.rotation(&nash), eta);
        let iterates = game.run(140, |_, policy| game.omd_step(policy, eta)).expect("steps");
        let shrunk = nash.policy.kl(&iterates[139]) / nash.policy.kl(&iterates[99]);
        let rate = shrunk.powf(1.0 / 80.0);
        assert_close(rate, [radius], 1e-3);
    }
}

// T9

#[test]
fn scores_fitted_to_a_cycle_and_the_dpo_they_lead_to() {
    let game = cyclic_game(0.1);
    let scores = game.bradley_terry_scores(game.reference()).expect("scores");
    assert_close(&scores[..], [0.364516241, -0.910284385, 0.543755710], NINE);
    assert_close(game.reference().mean(&scores), [0.0], 1e-12);
    let dpo = |beta: f64| game.dpo_step(game.reference(), beta, DpoReference::Fixed).expect("a step");
    assert_close(dpo(1.0).probabilities(), [0.746754675, 0.104353994, 0.148891331], NINE);
    assert_close(game.duality_gap(&dpo(1.0)), [0.143967344], NINE);
    assert_close(dpo(0.4).probabilities(), [0.780313252, 0.016111716, 0.203575033], NINE);
    assert_close(game.duality_gap(&dpo(0.4)), [0.238868931], NINE);
    // Under uniform pairs everyone wins half: the model cannot see the cycle.
    assert_close(game.bradley_terry_scores(&LogPolicy::uniform(3)).expect("scores"), [0.0; 3], 1e-15);
    let iterates =
        game.run(1000, |_, policy| game.dpo_step(policy, 0.9, DpoReference::Fixed)).expect("steps");
    assert_close(iterates[999].probabilities(), [0.582667389, 0.173896433, 0.243436179], NINE);
    assert_close(game.duality_gap(&iterates[999]), [0.029647804], NINE);
}

// T12

#[test]
fn with_scores_the_regularised_best_policy_is_what_answers_itself() {
    let game = PreferenceGame::try_from_scores(&[1.0, 0.0, -1.0], REFERENCE.to_vec(), 0.1).expect("a game");
    let nash = game.nash().expect("an equilibrium").policy;
    assert_close(nash.probabilities(), [0.949399317, 0.047221281, 0.003379402], NINE);
    assert!(game.duality_gap(&nash) < 1e-12);
    // Scores come back from preferences that have them.
    let scores = game.bradley_terry_scores(&LogPolicy::uniform(3)).expect("scores");
    assert_close(scores, [1.0, 0.0, -1.0], 1e-12);
}

// T13

#[test]
fn iterates_stay_within_the_inverse_of_tau_of_the_reference() {
    let game = cyclic_game(0.1);
    for (eta, widest) in [(0.1, 7.856144588), (0.3, 2.815532773)] {
        let iterates = game.run(500, |_, policy| game.omd_step(policy, eta)).expect("steps");
        let spreads = iterates.iter().map(|policy| policy.log_ratio_spread(game.reference()));
        let found = spreads.fold(0.0, f64::max);
        assert_close(found, [widest], NINE);
        assert!(found < 10.0);
    }
    // Without τ nothing bounds them.
    let game = cyclic_game(0.0);
    let free = game.run(500, |_, policy| game.omd_step(policy, 0.3)).expect("steps");
    let spreads = free.iter().map(|policy| policy.log_ratio_spread(game.reference()));
    assert!(spreads.fold(0.0, f64::max) > 40.0);
}

#[test]
fn two_responses_have_an_equilibrium_by_hand() {
    // P(first ≻ second) = p: P(y ≻ π) differs by p − ½ between the two whatever π is, so that π*₁/π*₂ = e^{(p − ½)/τ} r₁/r₂.
    let game =
        PreferenceGame::new(vec![vec![0.5, 0.8], vec![0.2, 0.5]], vec![0.25, 0.75], 0.2).expect("a game");
    let nash = game.nash().expect("an equilibrium");
    let odds = 1.5f64.exp() / 3.0;
    assert_close(nash.policy.probabilities(), [odds / (1.0 + odds), 1.0 / (1.0 + odds)], 1e-15);
    // Nothing to turn in: the only direction is a line.
    assert!(game.rotation(&nash) < 1e-15);
}

#[test]
fn without_regularisation_the_gap_is_what_the_best_single_response_wins() {
    let game = cyclic_game(0.0);
    // Against rock paper wins 0.9, against uniform nothing wins more than half.
    assert_close(game.duality_gap(&policy(&[0.0, 0.0, 1.0])), [0.8], 1e-15);
    assert_close(game.duality_gap(&LogPolicy::uniform(3)), [0.0], 1e-15);
    assert_eq!(game.best_response(&policy(&[0.0, 0.0, 1.0])).probabilities(), vec![0.0, 1.0, 0.0]);
    // Ties keep the proportions of the reference.
    let ties = PreferenceGame::new(vec![vec![0.5; 3]; 3], REFERENCE.to_vec(), 0.0).expect("a game");
    assert_close(ties.best_response(&LogPolicy::uniform(3)).probabilities(), REFERENCE, 1e-15);
    // The limit of a small τ.
    let gap = cyclic_game(1e-9).duality_gap(&policy(&[0.0, 0.0, 1.0]));
    assert_close(gap, [0.8], 1e-7);
}

#[test]
fn a_reference_of_one_in_10_to_the_80_is_no_trouble() {
    // A paper that the reference practically never plays: rock and scissors are left, and by hand as above
    // π*₂/π*₀ = e^{0.4/τ} r₂/r₀ to within 1e-80 of what paper could change.
    let game =
        cyclic_game(0.1).with_reference(LogPolicy::from_logits(&[0.0, -80.0 * 10f64.ln(), -1.0]).unwrap());
    let game = game.expect("a game");
    let nash = game.nash().expect("an equilibrium").policy;
    let logs = nash.log_probs();
    assert_close(logs[2] - logs[0], [4.0 - 1.0], 1e-13);
    let (rock, scissors) = (logs[0].exp(), logs[2].exp());
    let won_by_paper = (0.1 * rock + 0.9 * scissors) - (0.5 * rock + 0.1 * scissors);
    assert_close(logs[1] - logs[0], [-80.0 * 10f64.ln() + won_by_paper / 0.1], 1e-12);
    assert!(game.duality_gap(&nash) < 1e-15);
    // Far below what a probability in f64 can be.
    let game = game.with_reference(LogPolicy::from_logits(&[0.0, -5000.0, -1.0]).unwrap()).expect("a game");
    let nash = game.nash().expect("an equilibrium").policy;
    assert_close(nash.log_probs()[1] - nash.log_probs()[0], [-5000.0 + won_by_paper / 0.1], 1e-11);
    let step = game.omd_step(game.reference(), 0.5).expect("a step");
    assert!(step.log_probs()[1] < -4990.0 && game.duality_gap(&step).is_finite());
}

#[test]
fn the_exponent_of_a_policy_that_plays_no_part_is_not_felt() {
    // τ = η, from a policy that never plays scissors: 0 · (−∞) would be NaN.
    let game = cyclic_game(0.1);
    let from = policy(&[0.5, 0.5, 0.0]);
    let step = game.omd_step(&from, 0.1).expect("a step");
    assert_close(step.probabilities(), game.best_response(&from).probabilities(), 1e-14);
    assert_eq!(game.omd_step(&from, 0.2).expect("a step").probabilities()[2], 0.0);
}
