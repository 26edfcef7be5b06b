//! Nash-MD: its gradient against a real mixture, and where it settles.

use align_core::number::{NonNegative, Positive, UnitInterval};
use align_core::{CausalLm, Completions, Draws, Frozen};
use align_models::LogLinear;
use align_nash::game::{LogPolicy, PreferenceGame};
use align_nash::self_play::{Method, SelfPlay, SelfPlayConfig};
use align_nash::{LmGame, NashMdObjective, ReinforceBatch};
use align_testkit::{BigramLm, assert_close, device, double, gradient, train_device};
use align_train::{Objective, OptimizerConfig, Schedule};
use burn::tensor::Tensor;

use crate::common::{ByRows, PrefixLm, TAU, cyclic, game, parts, small};

/// No score explains it: the first tokens go round in a circle, the second ones have an order.
fn oracle(_: &[u32], first: &[u32], second: &[u32]) -> f64 {
    let circle = [0.0, 1.5, -1.5][((3 + second[0] - first[0]) % 3) as usize];
    1.0 / (1.0 + (f64::from(first[1]) - f64::from(second[1]) - circle).exp())
}

#[test]
fn the_mean_of_its_gradient_is_that_of_the_regularised_win_rate_over_the_mixture() {
    // ∇ of −(E_{y∼π}[P(y ≻ mixture)] − β KL(π‖π_ref)), the mixture held fixed, over all nine answers.
    let beta = 0.3;
    let policy = BigramLm::random(3, &Draws::new(1), &train_device()).to_double();
    let reference = BigramLm::random(3, &Draws::new(2), &device()).to_double();
    let frozen = Frozen::new(&policy);
    let mixture = LogLinear::new(vec![(0.5, Box::new(&frozen)), (0.5, Box::new(&reference))]);
    let exact = LmGame::enumerate(&ByRows(oracle), &reference, &[vec![1]], 2, &[], 0.1, 9).expect("a game");
    let wins = exact.games()[0].win_rates(&exact.policies(&mixture)[0]);

    let all = Completions::from_rows(&vec![vec![1]; 9], exact.responses(0), &device());
    let sums = |model: &BigramLm| -> Tensor<1> {
        model.token_log_probs(&all, 1.0).log_probs.sum_dim(1).squeeze_dim(1)
    };
    let (own, of_reference) = (sums(&policy), sums(&reference));
    let value = (own.clone().exp() * (double(&wins[..]) - (own.clone() - of_reference.clone()) * beta)).sum();
    let expected: Vec<f64> = gradient(&value, &policy.table.val()).iter().map(|slope| -slope).collect();

    let weights: Vec<f64> = own.to_data().iter::<f64>().map(f64::exp).collect();
    let references: Vec<f64> = of_reference.to_data().iter::<f64>().collect();
    let mut found = vec![0.0; expected.len()];
    for (y, weight) in weights.iter().enumerate() {
        let batch = ReinforceBatch {
            completions: all.select(&[y]),
            reference: double([references[y]]),
            preference: double([wins[y]]),
        };
        let loss = NashMdObjective { beta }.loss(&policy, &batch);
        let slopes = gradient(&loss.value, &policy.table.val());
        found.iter_mut().zip(slopes).for_each(|(sum, slope)| *sum += weight * slope / loss.weight);
    }
    assert_close(found, &expected, 1e-12); // f64
    assert!(expected.iter().any(|slope| slope.abs() > 1e-3));
}

/// Where the gradient vanishes: `π ∝ π_ref exp(P(y ≻ mixture of π)/β)`, by a damped iteration in f64.
fn fixed_point(game: &PreferenceGame, responses: &[Vec<u32>], share: f64) -> LogPolicy {
    let mut policy = game.reference().clone();
    for _ in 0..4000 {
        let best = game.best_response(&by_token(&policy, game.reference(), responses, share));
        let slow =
            policy.log_probs().iter().zip(best.log_probs()).map(|(own, best)| 0.98 * own + 0.02 * best);
        policy = LogPolicy::from_logits(&slow.collect::<Vec<_>>()).expect("a policy");
    }
    policy
}

/// The geometric mixture of next-token distributions, of answers of two tokens.
fn by_token(policy: &LogPolicy, reference: &LogPolicy, responses: &[Vec<u32>], share: f64) -> LogPolicy {
    let first = |of: &LogPolicy, a: u32| -> f64 {
        let with = responses.iter().zip(of.probabilities()).filter(|(y, _)| y[0] == a);
        with.map(|(_, p)| p).sum::<f64>().ln()
    };
    let mixed = |own: f64, other: f64| (1.0 - share) * own + share * other;
    let log_sum = |logs: Vec<f64>| logs.iter().map(|log| log.exp()).sum::<f64>().ln();
    let of_first = |a: u32| mixed(first(policy, a), first(reference, a));
    let all_first = log_sum((0..3).map(of_first).collect());
    let of_second = |y: usize| {
        let a = responses[y][0];
        mixed(policy.log_probs()[y] - first(policy, a), reference.log_probs()[y] - first(reference, a))
    };
    let logs = (0..responses.len()).map(|y| {
        let a = responses[y][0];
        let beside = (0..responses.len()).filter(|&other| responses[other][0] == a).map(of_second);
        of_first(a) - all_first + of_second(y) - log_sum(beside.collect())
    });
    LogPolicy::from_logits(&logs.collect::<Vec<_>>()).expect("a mixture")
}

/// One step of REINFORCE an iteration, on 1024 fresh answers.
fn settled(mixture: f64) -> SelfPlay<PrefixLm> {
    let config = SelfPlayConfig {
        method: Method::NashMd { beta: NonNegative::literal(TAU), mixture: UnitInterval::literal(mixture) },
        iterations: 300,
        num_generations: 2,
        prompts_per_iteration: Some(1024),
        num_epochs: 1,
        minibatch: 1024,
        microbatch: 512,
        optimizer: OptimizerConfig {
            learning_rate: Positive::literal(0.03),
            schedule: Schedule::Linear { warmup: 0, floor: UnitInterval::literal(0.0) },
            max_grad_norm: NonNegative::literal(0.0),
            ..OptimizerConfig::default()
        },
        ..small()
    };
    let mut run = SelfPlay::new(parts(ByRows(cyclic)), config).expect("a run");
    assert_eq!(run.plan().steps(), 300);
    (0..300).for_each(|step| drop(run.step(step).expect("a step")));
    run
}

#[test]
fn it_settles_where_its_gradient_vanishes_which_in_self_play_is_the_equilibrium() {
    let exact = game(&ByRows(cyclic));
    for mixture in [0.0, 0.5] {
        let policy = Frozen::new(settled(mixture).policy());
        let policies = exact.policies(&policy);
        let (mut off, mut at_first) = (0.0, 0.0);
        for (x, game) in exact.games().iter().enumerate() {
            let target = fixed_point(game, exact.responses(x), mixture);
            off += policies[x].kl(&target) / 4.0;
            at_first += game.reference().kl(&target) / 4.0;
            // Self-play has the equilibrium as its fixed point; a mixture has another one.
            assert_eq!(game.duality_gap(&target) < 1e-9, mixture == 0.0, "{}", game.duality_gap(&target));
        }
        // What is left is the noise of the last steps.
        assert!(off < 0.1 * at_first, "KL {off} to the fixed point, {at_first} at first");
        let gap = exact.duality_gap(&policy);
        assert_eq!(gap < 0.2 * exact.reference_gap(), mixture == 0.0, "{gap} of {}", exact.reference_gap());
    }
}
