//! The game a language model plays, against numbers that are worked out in another way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use align_core::log_probs::sequence_log_probs;
use align_core::{CausalLm, Completions, Draws, OracleError, TokenBatch};
use align_models::{Transformer, TransformerConfig};
use align_nash::game::GameError;
use align_nash::{LmGame, LmGameError, LmGap, Responses};
use align_testkit::{BigramLm, assert_close, device};
use burn::tensor::{Device, Tensor};

use crate::common::{
    ByRows, Counting, PROMPTS, PrefixLm, SAID, TAU, cyclic, game, one_token, other, prompts,
};

/// Rock, paper, scissors in one token.
fn rock_paper_scissors(_: &[u32], first: &[u32], second: &[u32]) -> f64 {
    [0.5, 0.9, 0.1][((3 + second[0] - first[0]) % 3) as usize]
}

/// Longer answers do better; nothing else matters. For any tokens.
fn longer(_: &[u32], first: &[u32], second: &[u32]) -> f64 {
    1.0 / (1.0 + (second.len() as f64 - first.len() as f64).exp())
}

/// π(y | x) of the nine answers, from the table in f64.
fn probabilities(policy: &PrefixLm, x: usize) -> Vec<f64> {
    let table: Vec<f64> = policy.table.val().to_data().iter::<f64>().collect();
    let softmax = |row: usize| -> Vec<f64> {
        let exponentials: Vec<f64> =
            table[row * SAID..(row + 1) * SAID].iter().map(|logit| logit.exp()).collect();
        exponentials.iter().map(|e| e / exponentials.iter().sum::<f64>()).collect()
    };
    let (first, second) = (softmax(x), |a: usize| softmax(PROMPTS + SAID * x + a));
    (0..SAID * SAID).map(|y| first[y / SAID] * second(y / SAID)[y % SAID]).collect()
}

/// `2τ log Σ π_ref exp(P(y ≻ π)/τ) + 2τ KL(π‖π_ref) − 1` by the sums themselves, averaged over prompts.
fn gap_by_sums(policy: &PrefixLm) -> f64 {
    let answers: Vec<[u32; 2]> = (0..9).map(|y| [y / 3, y % 3]).collect();
    let of = |x: usize| {
        let (own, reference) = (probabilities(policy, x), probabilities(&PrefixLm::reference(&device()), x));
        let wins = |y: &[u32; 2]| -> f64 {
            answers.iter().zip(&own).map(|(other, p)| p * cyclic(&[x as u32], y, other)).sum()
        };
        let tilted: f64 = answers.iter().zip(&reference).map(|(y, p)| p * (wins(y) / TAU).exp()).sum();
        let kl: f64 = own.iter().zip(&reference).map(|(p, q)| p * (p / q).ln()).sum();
        2.0 * TAU * (tilted.ln() + kl) - 1.0
    };
    (0..PROMPTS).map(of).sum::<f64>() / PROMPTS as f64
}

#[test]
fn the_gap_is_that_of_the_closed_form() {
    let exact = game(&ByRows(cyclic));
    for policy in [PrefixLm::reference(&device()), other(), PrefixLm::new(|_, _| 0.0, &device())] {
        // Preferences come through f32, whose error of 6e-8 the sum of e^{P/τ} multiplies by at most 2.
        assert_close(exact.duality_gap(&policy), gap_by_sums(&policy), 1e-6);
    }
    assert_eq!(exact.reference_gap(), exact.duality_gap(&PrefixLm::reference(&device())));
    // What the prototype of the experiment printed, to its four digits.
    assert_close(exact.reference_gap(), 0.1748, 5e-5);
}

#[test]
fn rock_paper_and_scissors_have_the_published_gaps_and_equilibrium() {
    let exact = LmGame::enumerate(
        &ByRows(rock_paper_scissors),
        &one_token([0.6, 0.3, 0.1]),
        &[vec![0]],
        1,
        &[],
        0.1,
        3,
    )
    .expect("a game");
    // Logits and preferences in f32 under exponents of 1/τ = 10.
    assert_close(exact.reference_gap(), 0.107_057_222_5, 1e-6);
    assert_close(exact.duality_gap(&one_token([1.0, 1.0, 1.0])), 0.048_103_110_3, 1e-6);
    assert_close(exact.duality_gap(&one_token([0.2, 0.5, 0.3])), 0.192_050_444_4, 1e-6);
    let nash = &exact.nash().expect("an equilibrium")[0].policy;
    assert_close(nash.probabilities(), [0.460_658_929_981, 0.212_659_337_484, 0.326_681_732_535], 1e-6);
    let [rock, paper, scissors] = [0, 1, 2].map(|y| nash.probabilities()[y]);
    assert_close(exact.kl(&one_token([rock, paper, scissors])), 0.191_817_846_0, 1e-6);
}

#[test]
fn the_equilibrium_as_a_model_has_no_gap() {
    let exact = game(&ByRows(cyclic));
    let nash = exact.nash().expect("equilibria");
    let place = |x: usize, a: usize, b: usize| {
        exact.responses(x).iter().position(|y| *y == [a as u32, b as u32]).expect("an answer")
    };
    let policy = PrefixLm::of(|x, a, b| nash[x].policy.probabilities()[place(x, a, b)], &device());
    assert!(exact.duality_gap(&policy) < 1e-9); // quadratic in the 1e-7 of the table's f32
    assert!(exact.duality_gap(&other()) > 0.1);
    let mean =
        nash.iter().zip(exact.games()).map(|(nash, game)| nash.policy.kl(game.reference())).sum::<f64>()
            / 4.0;
    assert_close(exact.kl(&policy), mean, 1e-6);
    assert_eq!(exact.kl(&PrefixLm::reference(&device())), 0.0);
}

#[test]
fn a_response_ends_with_its_first_stop_or_at_the_limit() {
    let reference = BigramLm::random(4, &Draws::new(5), &device());
    let policy = BigramLm::random(4, &Draws::new(6), &device());
    for (length, stop) in [(1, Some(2)), (3, None), (3, Some(0)), (4, Some(2))] {
        let stops: Vec<u32> = stop.into_iter().collect();
        let exact =
            LmGame::enumerate(&ByRows(longer), &reference, &[vec![1, 3], vec![2]], length, &stops, 0.2, 300)
                .expect("a game");
        for (prompt, tokens) in [vec![1, 3], vec![2]].iter().enumerate() {
            let all = reference.enumerate(tokens, length, stop);
            let mut expected = all.completions.response.rows();
            let mut found = exact.responses(prompt).to_vec();
            found.sort();
            expected.sort();
            assert_eq!(found, expected);
            // The same probabilities as in one pass over whole rows.
            let rows = all.completions.response.rows();
            let log_probs: Vec<f64> = all.log_probs(&policy.to_double()).to_data().iter::<f64>().collect();
            let of_game = exact.policies(&policy)[prompt].clone();
            for (row, log_prob) in rows.iter().zip(log_probs) {
                let at = exact.responses(prompt).iter().position(|y| y == row).expect("a response");
                assert_close(of_game.log_probs()[at], log_prob, 1e-12); // scores are the table's f32 in both
            }
        }
        assert!(exact.measure(&policy).dropped.abs() < 1e-12, "a complete enumeration");
    }
}

#[test]
fn a_transformer_decodes_the_probabilities_that_it_is_trained_with() {
    // Beginnings fan out and leave inside a cache; log-probabilities for training come from one pass over whole rows.
    let config = TransformerConfig::llama(5, 8, 2, 2);
    let [reference, policy] = [1, 2].map(|seed| Transformer::init(&config, &Draws::new(seed), &device()));
    let prompts = [vec![1, 3, 4], vec![2]];
    let exact = LmGame::enumerate(&ByRows(longer), &reference, &prompts, 3, &[0], 0.2, 200).expect("a game");
    let policies = exact.policies(&policy);
    for (prompt, ids) in prompts.iter().enumerate() {
        let responses = exact.responses(prompt);
        assert_eq!(responses.len(), 1 + 4 + 4 * 4 * 5);
        let rows = Completions::from_rows(&vec![ids.clone(); responses.len()], responses, &device());
        let tokens = policy.token_log_probs(&rows, 1.0).log_probs;
        let whole = sequence_log_probs(tokens, &rows.response.mask);
        assert_close(whole, policies[prompt].log_probs(), 1e-5); // f32 in another order
    }
    assert!(exact.measure(&policy).dropped.abs() < 1e-12);
}

#[test]
fn several_stop_tokens_all_stop() {
    let exact = LmGame::enumerate(
        &ByRows(longer),
        &BigramLm::independent(&[0.0; 3], &device()),
        &[vec![0]],
        2,
        &[1, 2],
        0.1,
        9,
    )
    .expect("a game");
    assert_eq!(exact.responses(0), [vec![1], vec![2], vec![0, 0], vec![0, 1], vec![0, 2]]);
    let third = 1.0 / 3.0;
    assert_close(
        exact.games()[0].reference().probabilities(),
        [third, third, third / 3.0, third / 3.0, third / 3.0],
        1e-12,
    );
}

#[test]
fn the_oracle_is_asked_once_about_every_two_responses() {
    let asked = Arc::new(AtomicUsize::new(0));
    let exact = game(&Counting { oracle: ByRows(cyclic), asked: asked.clone() });
    // 9·8/2 pairs of each of four prompts, and four of them in both orders.
    assert_eq!(asked.load(Ordering::Relaxed), 4 * (36 + 2 * 4));
    for (x, one) in exact.games().iter().enumerate() {
        for (i, first) in exact.responses(x).iter().enumerate() {
            for (j, second) in exact.responses(x).iter().enumerate() {
                assert_close(one.preference(i, j), cyclic(&[x as u32], first, second), 1e-7); // f32
            }
        }
    }
}

#[test]
fn one_response_is_a_game_without_a_gap() {
    let only = BigramLm::independent(&[0.0, f32::NEG_INFINITY], &device());
    let exact = LmGame::enumerate(&ByRows(longer), &only, &[vec![0]], 3, &[], 0.1, 1).expect("a game");
    assert_eq!(exact.responses(0), [vec![0, 0, 0]]);
    assert_eq!(exact.reference_gap(), 0.0);
}

fn over(reference: &PrefixLm, floor: f64) -> Result<LmGame, LmGameError> {
    let responses = Responses { length: 2, stop_token_ids: Vec::new(), most: 100, floor };
    LmGame::over(&ByRows(cyclic), reference, &prompts(), &responses, TAU)
}

#[test]
fn what_is_never_said_can_be_left_out_and_changes_nothing() {
    let reference = PrefixLm::reference(&device());
    let (all, said) = (over(&reference, 0.0).expect("a game"), over(&reference, 1e-9).expect("a game"));
    assert_eq!((all.responses(0).len(), said.responses(0).len()), (16, 9));
    for policy in [reference, other()] {
        assert_close(all.duality_gap(&policy), said.duality_gap(&policy), 1e-12);
        assert_close(all.kl(&policy), said.kl(&policy), 1e-12);
        assert!(said.measure(&policy).dropped.abs() < 1e-12);
    }
}

/// The reference, but each second token is 2 with probability `p` after every first one, and the others share the rest.
fn seldom(p: f64) -> PrefixLm {
    let reference = PrefixLm::reference(&device()).values();
    let logit = |row: usize, token: usize| match (row < PROMPTS, token) {
        (true, _) => f64::from(reference[row * SAID + token]),
        (false, 2) => p.ln(),
        (false, _) => ((1.0 - p) / 2.0).ln(),
    };
    PrefixLm::new(logit, &device())
}

#[test]
fn what_is_left_out_of_the_policy_is_told_and_of_the_reference_limited() {
    // Three answers end in 2, with 6e-8 at most.
    let exact = over(&seldom(1e-7), 1e-6).expect("a game");
    assert_eq!(exact.responses(0).len(), 6);
    let LmGap { gap, dropped } = exact.measure(&seldom(0.25));
    assert_close(dropped, 0.25, 1e-7); // f32 logits
    // The rest of that policy is the reference's rest.
    assert_close(gap, exact.reference_gap(), 1e-9);

    let LmGameError::Dropped { prompt: 0, floor: 1e-4, found, .. } = over(&seldom(1e-5), 1e-4).unwrap_err()
    else {
        panic!("a floor that leaves out too much")
    };
    assert_close(found, 1e-5, 1e-11); // f32 logits
}

#[test]
#[should_panic(expected = "probabilities of the game's responses sum to 0.7")]
fn a_gap_without_what_was_left_out_is_refused() {
    over(&seldom(1e-7), 1e-6).expect("a game").duality_gap(&seldom(0.25));
}

#[test]
#[should_panic(expected = "the game's reference has a vocabulary of 4, the policy of 3")]
fn a_policy_of_another_vocabulary_is_refused() {
    game(&ByRows(cyclic)).duality_gap(&one_token([0.2, 0.3, 0.5]));
}

/// A model with a context.
struct Short(BigramLm);

impl CausalLm for Short {
    fn logits(&self, tokens: &TokenBatch) -> Tensor<3> {
        self.0.logits(tokens)
    }
    fn vocab_size(&self) -> usize {
        self.0.vocab_size()
    }
    fn device(&self) -> Device {
        self.0.device()
    }
    fn context_length(&self) -> Option<usize> {
        Some(4)
    }
}

#[test]
fn what_cannot_be_enumerated_is_named() {
    let model = || BigramLm::independent(&[0.0; 3], &device());
    let enumerate = |prompts: &[Vec<u32>], length: usize, stops: &[u32], tau: f64, most: usize| {
        LmGame::enumerate(&ByRows(longer), &Short(model()), prompts, length, stops, tau, most)
            .map(|game| game.games().len())
    };
    let one = [vec![1, 2]];
    assert_eq!(enumerate(&one, 2, &[], 0.1, 9), Ok(1));
    assert_eq!(enumerate(&one, 2, &[], 0.1, 8), Err(LmGameError::TooMany { prompt: 0, most: 8 }));
    assert_eq!(enumerate(&[], 2, &[], 0.1, 9), Err(LmGameError::NoPrompts));
    assert_eq!(enumerate(&one, 0, &[], 0.1, 9), Err(LmGameError::Zero { name: "response_length" }));
    assert_eq!(enumerate(&one, 2, &[], 0.1, 0), Err(LmGameError::Zero { name: "most" }));
    assert_eq!(enumerate(&[vec![1], vec![]], 1, &[], 0.1, 9), Err(LmGameError::EmptyPrompt { prompt: 1 }));
    let outside = LmGameError::TokenOutsideVocabulary { prompt: 0, found: 3, vocabulary: 3 };
    assert_eq!(enumerate(&[vec![3]], 1, &[], 0.1, 9), Err(outside));
    let outside = LmGameError::StopOutsideVocabulary { found: 7, vocabulary: 3 };
    assert_eq!(enumerate(&one, 1, &[7], 0.1, 9), Err(outside));
    assert_eq!(
        enumerate(&one, 3, &[], 0.1, 99),
        Err(LmGameError::TooLong { prompt: 0, found: 5, context: 4 })
    );
    let wrong = LmGameError::Game { prompt: 0, source: GameError::Tau { found: -0.1 } };
    assert_eq!(enumerate(&one, 1, &[], -0.1, 9), Err(wrong));
    let nan = BigramLm::independent(&[0.0, f32::NAN, 0.0], &device());
    let found = LmGame::enumerate(&ByRows(longer), &nan, &one, 1, &[], 0.1, 9).unwrap_err();
    assert_eq!(found, LmGameError::NotADistribution { prompt: 0, position: 0 });
    let floor = over(&PrefixLm::reference(&device()), f64::NAN).unwrap_err();
    assert!(matches!(floor, LmGameError::Floor { found } if found.is_nan()));
}

#[test]
fn an_oracle_that_cannot_be_one_is_named() {
    let of = |oracle: fn(&[u32], &[u32], &[u32]) -> f64| {
        LmGame::enumerate(&ByRows(oracle), &one_token([0.2, 0.3, 0.5]), &[vec![0]], 1, &[], 0.1, 3)
            .unwrap_err()
    };
    let LmGameError::Oracle { prompt: 0, source } = of(|_, _, _| 0.6) else { panic!("the first is liked") };
    assert!(
        matches!(source, OracleError::NotAntisymmetric { excess, .. } if (excess - 0.2).abs() < 1e-6),
        "{source}"
    );
    let LmGameError::Oracle { source, .. } = of(|_, _, _| f64::NAN) else { panic!("no number") };
    assert!(matches!(source, OracleError::NotAProbability { row: 0, found } if found.is_nan()), "{source}");
}

#[test]
fn without_tau_there_is_a_gap_and_no_equilibrium() {
    let exact = LmGame::enumerate(
        &ByRows(rock_paper_scissors),
        &one_token([0.6, 0.3, 0.1]),
        &[vec![0]],
        1,
        &[],
        0.0,
        3,
    )
    .expect("a game");
    // 2 max P(y ≻ π_ref) − 1 with P = (0.58, 0.30, 0.62).
    assert_close(exact.reference_gap(), 0.24, 1e-6);
    assert_eq!(exact.nash().unwrap_err(), GameError::NotRegularized);
}
