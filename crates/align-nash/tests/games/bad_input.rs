//! Every refusal, by its message: it names the thing, what was expected and what was found.

use align_nash::game::{DpoReference, EtaSchedule, GameError, LogPolicy, PreferenceGame};

use crate::{REFERENCE, cycle, cyclic_game, policy};

fn message<T: std::fmt::Debug>(result: Result<T, GameError>) -> String {
    result.unwrap_err().to_string()
}

/// The cycle with one entry changed.
fn with_entry(row: usize, column: usize, entry: f64) -> Result<PreferenceGame, GameError> {
    let mut preferences = cycle();
    preferences[row][column] = entry;
    PreferenceGame::new(preferences, REFERENCE.to_vec(), 0.1)
}

#[test]
fn matrices_that_are_no_preferences() {
    let game = |preferences| PreferenceGame::new(preferences, REFERENCE.to_vec(), 0.1);
    assert_eq!(message(game(vec![])), "found no responses, expected at least one");
    let mut ragged = cycle();
    ragged[1].pop();
    assert_eq!(message(game(ragged)), "row 1 of the preferences must have 3 entries, found 2");
    for (entry, shown) in [(1.25, "1.25"), (-0.5, "-0.5"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        assert_eq!(
            message(with_entry(1, 2, entry)),
            format!("the preference in row 1, column 2 must be a probability, found {shown}")
        );
    }
    assert_eq!(
        message(with_entry(2, 2, 0.75)),
        "response 2 must tie with itself, a preference of 0.5; found 0.75"
    );
    assert_eq!(
        message(with_entry(1, 0, 0.35)),
        "the preferences are not antisymmetric: P(1 > 0) = 0.35 and P(0 > 1) = 0.9, whose sum differs from 1 by \
         2.500e-1, expected at most 1e-3; average the oracle over both orders"
    );
}

#[test]
fn orders_that_almost_agree_are_averaged() {
    let game = with_entry(0, 1, 0.901).expect("within 1e-3");
    assert!((game.preference(0, 1) - 0.9005).abs() < 1e-15);
    assert_eq!(game.preference(0, 1) + game.preference(1, 0), 1.0);
    assert_eq!(game.preferences()[0][0], 0.5);
    assert!(matches!(with_entry(0, 1, 0.9011), Err(GameError::NotAntisymmetric { row: 1, column: 0, .. })));
}

#[test]
fn references_that_are_none() {
    let game = |reference: &[f64]| PreferenceGame::new(cycle(), reference.to_vec(), 0.1);
    assert_eq!(message(game(&[0.5, 0.5])), "the game has 3 responses, the reference has 2");
    assert_eq!(
        message(game(&[0.5, 0.0, 0.5])),
        "the reference must give every response a positive probability, found 0 for response 1"
    );
    assert_eq!(message(game(&[0.5, 0.25, 0.5])), "a policy must sum to 1 within 1e-5, found a sum of 1.25");
    assert_eq!(
        message(game(&[0.5, f64::NAN, 0.5])),
        "entry 1 of the policy must be a probability, found NaN"
    );
    assert_eq!(message(game(&[1.5, -0.5, 0.0])), "entry 0 of the policy must be a probability, found 1.5");
    assert_eq!(
        message(cyclic_game(0.1).with_reference(LogPolicy::uniform(4))),
        "the game has 3 responses, the reference has 4"
    );
    // 1e-80 is a probability; 1e-400 is not a number in f64, and a logarithm of −921 is.
    assert!(game(&[0.5, 1e-80, 0.5]).is_ok());
    let faint = LogPolicy::from_logits(&[0.0, -921.0, 0.0]).expect("a policy");
    assert!(cyclic_game(0.1).with_reference(faint).is_ok());
}

#[test]
fn policies_that_are_none() {
    assert_eq!(message(LogPolicy::from_logits(&[])), "found no responses, expected at least one");
    assert_eq!(message(LogPolicy::from_probabilities(&[])), "found no responses, expected at least one");
    assert_eq!(
        message(LogPolicy::from_logits(&[0.0, f64::NAN])),
        "logit 1 of the policy must be a number or minus infinity, found NaN"
    );
    assert_eq!(
        message(LogPolicy::from_logits(&[f64::INFINITY, 0.0])),
        "logit 0 of the policy must be a number or minus infinity, found inf"
    );
    assert_eq!(
        message(LogPolicy::from_logits(&[f64::NEG_INFINITY; 2])),
        "all logits of the policy are minus infinity, expected at least one number"
    );
}

#[test]
fn weights_and_step_sizes_out_of_range() {
    for (tau, shown) in [(-0.1, "-0.1"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let game = PreferenceGame::new(cycle(), REFERENCE.to_vec(), tau);
        assert_eq!(message(game), format!("`tau` must be a finite number >= 0, found {shown}"));
    }
    let (game, from) = (cyclic_game(0.1), policy(&REFERENCE));
    for (eta, shown) in [(0.0, "0"), (-1.0, "-1"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let expected = format!("`eta` must be a positive finite number, found {shown}");
        assert_eq!(message(game.omd_step(&from, eta)), expected);
        assert_eq!(message(game.nash_md_step(&from, eta)), expected);
        assert_eq!(message(game.multiplicative_weights_step(&from, eta)), expected);
        let beta = game.dpo_step(&from, eta, DpoReference::Fixed);
        assert_eq!(message(beta), format!("`beta` must be a positive finite number, found {shown}"));
    }
    assert_eq!(
        message(game.omd_step(&from, 0.05)),
        "need 0 <= tau <= eta, found tau = 0.1 and eta = 0.05; otherwise the exponent 1 - tau/eta of the current policy \
         is negative"
    );
    assert_eq!(
        message(game.run(3, |_, policy| game.omd_step(policy, 0.0))),
        message(game.omd_step(&from, 0.0))
    );
}

#[test]
fn equilibria_that_are_not_there() {
    assert_eq!(message(cyclic_game(0.0).nash()), "the equilibrium is unique for tau > 0 only, found tau = 0");
    // 1/τ is infinite, and what comes of it no number.
    assert!(matches!(cyclic_game(1e-310).nash(), Err(GameError::NashNotFound { .. })));
    // u = K π/τ of size 4e14 has no digit left of a residual of 1e-12.
    let error = cyclic_game(1e-15).nash().unwrap_err();
    let GameError::NashNotFound { residual, iterations, .. } = error else { panic!("{error}") };
    assert!(residual >= 1e-12);
    assert_eq!(
        error.to_string(),
        format!(
            "no equilibrium after {iterations} iterations: the residual is {residual:.3e}, expected less than 1e-12"
        )
    );
}

#[test]
fn scores_that_are_not_there() {
    let error = PreferenceGame::try_from_scores(&[0.0, f64::NAN, 1.0], REFERENCE.to_vec(), 0.1);
    assert_eq!(message(error), "score 1 must be finite, found NaN");
    // A response that always wins wants an infinite score.
    let game =
        PreferenceGame::new(vec![vec![0.5, 1.0], vec![0.0, 0.5]], vec![0.5, 0.5], 0.1).expect("a game");
    let error = game.dpo_step(game.reference(), 1.0, DpoReference::Fixed).unwrap_err();
    let GameError::ScoresNotFound { step, .. } = error else { panic!("{error}") };
    assert!(step > 0.1, "{error}");
    assert!(error.to_string().starts_with("no finite Bradley-Terry scores after "), "{error}");
    // Certainty that goes round in a circle has scores: all win half.
    let rows = [[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]].map(Vec::from).to_vec();
    let game = PreferenceGame::new(rows, vec![0.5, 0.25, 0.25], 0.1).expect("a game");
    assert!(game.bradley_terry_scores(game.reference()).is_ok());
}

#[test]
#[should_panic(expected = "the game has 3 responses, the policy 2")]
fn a_policy_of_another_game_is_a_bug() {
    cyclic_game(0.1).duality_gap(&LogPolicy::uniform(2));
}

#[test]
fn schedules_are_read_and_stray_keys_refused() {
    let read = |json: &str| serde_json::from_str::<EtaSchedule>(json);
    let constant = read(r#"{"kind": "constant", "eta": 0.5}"#).expect("a schedule");
    assert_eq!((constant.eta(0.1, 1), constant.eta(0.1, 9)), (0.5, 0.5));
    let decreasing = read(r#"{"kind": "decreasing"}"#).expect("a schedule");
    // τ(t + 2)/2, so that τ/η = 2/(t + 2).
    assert_eq!((decreasing.eta(0.5, 2), decreasing.eta(0.5, 6)), (1.0, 2.0));
    assert!(read(r#"{"kind": "decreasing", "eta": 0.5}"#).is_err());
    let error = read(r#"{"kind": "constant", "eta": 0.0}"#).unwrap_err().to_string();
    assert!(error.contains("expected a finite number > 0, found 0"), "{error}");
}
