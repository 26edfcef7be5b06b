//! Every refusal, by its message: it names the thing, what was expected and what was found.

mod common;

use align_occupancy::sampled::{Cells, Learner, LearnerConfig, Penalty, RatioSource, Regularizer};
use align_occupancy::worlds::{Patient, TinyLm, TomatoBoard, TomatoWorld, two_state, two_state_policy};
use align_occupancy::{
    Audit, Correlation, Divergence, Mdp, Occupancy, OccupancyError, PlugIn, TabularPolicy, action_optimum,
    bandit_optimum, bootstrap_interval, bound_a, bound_b, chi_squared, fisher_interval, kl,
    nearest_optimal_policy, occupancy_optimum, optimal_policy, trimmed_mean, value_iteration,
    worst_case_reward,
};
use common::{five, occupancy};
use proptest::prelude::*;
use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};

fn message<T: std::fmt::Debug>(result: Result<T, OccupancyError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn discounts_that_are_none() {
    for (discount, found) in [(1.0, "1"), (-0.1, "-0.1"), (f64::NAN, "NaN")] {
        assert_eq!(message(two_state(discount)), format!("the discount must be in [0, 1), found {found}"));
    }
}

#[test]
fn rows_that_are_no_distributions() {
    let kernel = |row: Vec<f64>| vec![vec![vec![1.0, 0.0], vec![0.0, 1.0]], vec![vec![0.5, 0.5], row]];
    let mdp = |start: &[f64], row: Vec<f64>| message(Mdp::new(start, &kernel(row), 0.9));
    let good = [0.5, 0.5];
    assert_eq!(
        mdp(&good, vec![0.5, 0.4]),
        "row 3 of the transition kernel must sum to 1 within 1e-6, found a sum of 0.9"
    );
    assert_eq!(
        mdp(&good, vec![1.5, -0.5]),
        "entry 1 of row 3 of the transition kernel must be a probability, found -0.5"
    );
    assert_eq!(mdp(&good, vec![1.0]), "row 3 of the transition kernel must have 2 entries, found 1");
    assert_eq!(
        mdp(&[0.5, 0.25], vec![0.5, 0.5]),
        "row 0 of the start distribution must sum to 1 within 1e-6, found a sum of 0.75"
    );
    assert_eq!(mdp(&[1.0], vec![0.5, 0.5]), "row 0 of the start distribution must have 2 entries, found 1");
    let short = vec![kernel(vec![0.5, 0.5])[0].clone(), vec![vec![1.0, 0.0]]];
    assert_eq!(
        message(Mdp::new(&good, &short, 0.9)),
        "row 2 of the transition kernel must have 2 entries, found 1"
    );
    assert!(Mdp::new(&[], &[], 0.9).is_err());

    let policy = |rows: &[Vec<f64>]| message(TabularPolicy::new(rows));
    assert_eq!(
        policy(&[vec![1.0], vec![0.5]]),
        "row 1 of the policy must sum to 1 within 1e-6, found a sum of 0.5"
    );
    assert_eq!(
        policy(&[vec![f64::NAN, 1.0]]),
        "entry 0 of row 0 of the policy must be a probability, found NaN"
    );
    assert_eq!(policy(&[vec![1.0], vec![]]), "row 1 of the policy must have 1 entries, found 0");
    assert_eq!(policy(&[]), "row 0 of the policy must have 1 entries, found 0");
    assert_eq!(
        message(two_state_policy(1.5)),
        "entry 1 of row 0 of the policy must be a probability, found 1.5"
    );
    assert_eq!(
        message(TabularPolicy::softmax(&[0.0, f64::NAN], 2)),
        "entry 1 of the logits is NaN, expected a finite number"
    );
    assert_eq!(
        message(TabularPolicy::softmax(&[0.0, 0.0, f64::NEG_INFINITY, f64::NEG_INFINITY], 2)),
        "entry 2 of the logits is -inf, expected a finite number"
    );
    let part = TabularPolicy::uniform(1, 2);
    assert_eq!(
        message(TabularPolicy::mixture(&[(0.5, &part), (0.4, &part)])),
        "row 0 of the probabilities must sum to 1 within 1e-6, found a sum of 0.9"
    );
    assert!(TabularPolicy::mixture(&[]).is_err());
}

#[test]
fn printed_rows_are_accepted_and_become_distributions() {
    let policy = TabularPolicy::new(&[vec![0.333_333_3, 0.333_333_3, 0.333_333_3]]).unwrap();
    assert!((policy.row(0).iter().sum::<f64>() - 1.0).abs() < 1e-15);
}

#[test]
fn occupancies_that_are_none() {
    assert_eq!(
        message(Occupancy::new(vec![0.5, 0.4])),
        "an occupancy must sum to 1 within 1e-6, found a sum of 0.9"
    );
    assert_eq!(
        message(Occupancy::new(vec![1.5, -0.5])),
        "an occupancy must be finite and not negative, found -0.5 in cell 1"
    );
    assert_eq!(
        message(Occupancy::new(vec![f64::INFINITY])),
        "an occupancy must be finite and not negative, found inf in cell 0"
    );
    assert_eq!(message(Occupancy::new(vec![])), "an occupancy must sum to 1 within 1e-6, found a sum of 0");
}

#[test]
fn where_the_reference_never_goes_nothing_holds() {
    let (nu, mu) = (occupancy(&[0.5, 0.5, 0.0]), occupancy(&[0.5, 0.25, 0.25]));
    let expected = "the policy puts a mass of 0.25 where the reference puts none; no bound holds there";
    assert_eq!(message(chi_squared(&mu, &nu)), expected);
    assert_eq!(message(kl(&mu, &nu)), expected);
    assert_eq!(message(mu.ratio(&nu)), expected);
    let reward = [1.0, 0.0, 0.0];
    assert_eq!(message(Audit::of(&mu, &nu, &reward, &reward)), expected);
    assert_eq!(message(worst_case_reward(&mu, &nu, &reward, 0.5)), expected);
    // The other way round there is no harm: the reference may do what the policy does not.
    assert!(chi_squared(&nu, &mu).is_ok());
    let mdp = Mdp::one_step(&[1.0], 2).unwrap();
    let one = TabularPolicy::deterministic(&[0], 2);
    assert_eq!(
        message(Divergence::Kl.of_actions(&mdp, &TabularPolicy::uniform(1, 2), &one)),
        "the policy puts a mass of 0.5 where the reference puts none; no bound holds there"
    );
    assert_eq!(
        message(nearest_optimal_policy(&mdp, &[0.0, 1.0], &one)),
        "the policy puts a mass of 1 where the reference puts none; no bound holds there"
    );
}

#[test]
fn rewards_that_say_nothing() {
    let f = five();
    // A mean of equal numbers is off by rounding; the deviation is still none.
    let constant = vec![0.1; 5];
    for (proxy, gold, which) in [(&constant, &f.gold, "proxy"), (&f.proxy, &constant, "gold")] {
        let found = message(Correlation::under(&f.nu, proxy, gold));
        assert!(
            found.starts_with(&format!("the {which} reward is constant where the reference goes")),
            "{found}"
        );
    }
    // Differences where nobody goes do not count.
    let nu = occupancy(&[0.5, 0.5, 0.0]);
    assert!(matches!(
        Correlation::under(&nu, &[1.0, 1.0, 7.0], &[0.0, 1.0, 0.0]),
        Err(OccupancyError::DegenerateReward { .. })
    ));
    assert_eq!(
        message(Correlation::under(&nu, &[1.0, f64::NAN, 7.0], &[0.0, 1.0, 0.0])),
        "entry 1 of the proxy reward is NaN, expected a finite number"
    );
    assert_eq!(
        message(Correlation::of_pairs(&[1.0; 3], &[1.0; 3])),
        "a correlation needs at least 4 samples, found 3"
    );
}

#[test]
fn correlations_that_guarantee_nothing() {
    let f = five();
    let opposite: Vec<f64> = f.gold.iter().map(|r| -r).collect();
    let against = Correlation::under(&f.nu, &f.proxy, &opposite).unwrap();
    assert!(message(against.lambda_star()).starts_with(
        "the proxy must correlate positively with the gold reward where the reference goes, found r = -0.828"
    ));
    for r in [0.0, -0.2] {
        for bound in [bound_a, bound_b] {
            assert_eq!(bound(r, 0.1, 1.0), Err(OccupancyError::NotACorrelatedProxy { r }));
        }
    }
    assert!(bound_a(1.0 + 1e-10, 0.1, 1.0).is_ok(), "rounding is forgiven");
    assert_eq!(message(bound_a(1.001, 0.1, 1.0)), "a correlation must be in [-1, 1], found 1.001");
    assert_eq!(message(bound_a(f64::NAN, 0.1, 1.0)), "a correlation must be in [-1, 1], found NaN");
    assert_eq!(message(fisher_interval(1.2, 50, 1.96)), "a correlation must be in [-1, 1], found 1.2");
    assert_eq!(
        message(fisher_interval(0.5, 3, 1.96)),
        "a correlation's interval needs at least 4 samples, found 3"
    );
}

#[test]
fn estimates_that_contradict_each_other() {
    assert_eq!(
        message(bound_b(0.5, 2.0, 1.0)),
        "estimates contradict each other: the squared proxy gain 4 must not exceed chi-squared 1"
    );
    // Equality up to rounding is not a contradiction.
    let gain = 1.0 + 1e-11;
    assert_eq!(bound_b(0.5, gain, 1.0), Ok(0.5 * gain));
    for bad in [-1e-3, f64::NAN, f64::INFINITY] {
        assert!(
            message(bound_a(0.5, 0.0, bad)).starts_with("`chi_squared` must be a finite number >= 0, found")
        );
    }
}

#[test]
fn weights_and_rewards_that_are_no_numbers() {
    let world = TomatoWorld::small();
    let (mdp, proxy, reference) = (&world.mdp, &world.proxy, &world.reference);
    for lambda in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        for result in [
            occupancy_optimum(mdp, proxy, reference, Divergence::Kl, lambda),
            action_optimum(mdp, proxy, reference, Divergence::Kl, lambda),
        ] {
            assert!(message(result).starts_with("`lambda` must be a finite number > 0, found"));
        }
        assert!(bandit_optimum(Divergence::Kl, &five().nu, &five().proxy, lambda).is_err());
    }
    let mut broken = proxy.clone();
    broken[7] = f64::NAN;
    let expected = "entry 7 of the proxy reward is NaN, expected a finite number";
    assert_eq!(message(occupancy_optimum(mdp, &broken, reference, Divergence::Kl, 1.0)), expected);
    assert_eq!(message(action_optimum(mdp, &broken, reference, Divergence::Kl, 1.0)), expected);
    assert_eq!(message(Learner::new(mdp, &broken, reference, LearnerConfig::default()).map(drop)), expected);
    let expected = "entry 7 of the reward is NaN, expected a finite number";
    assert_eq!(message(optimal_policy(mdp, &broken)), expected);
    assert_eq!(message(value_iteration(mdp, &broken, 1e-9)), expected);
    assert_eq!(message(value_iteration(mdp, proxy, 0.0)), "`tolerance` must be a finite number > 0, found 0");
}

#[test]
fn samples_that_are_none() {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(0);
    assert_eq!(message(trimmed_mean(&[], 0.01)), "a trimmed mean needs at least 1 samples, found 0");
    assert_eq!(
        message(trimmed_mean(&[0.0, f64::NAN], 0.01)),
        "entry 1 of the samples is NaN, expected a finite number"
    );
    assert_eq!(
        message(bootstrap_interval(&[], 0.95, 10, &mut rng)),
        "a bootstrap needs at least 1 samples, found 0"
    );
    assert_eq!(
        message(bootstrap_interval(&[1.0], 1.0, 10, &mut rng)),
        "`level` must be inside (0, 1), found 1"
    );
    assert_eq!(
        message(PlugIn::from_counts(&[0, 0], &[1, 1])),
        "a divergence of counts needs at least 1 samples, found 0"
    );
}

#[test]
fn worlds_that_cannot_be() {
    let board = TomatoBoard { sprinkler: 9, ..TomatoBoard::small() };
    assert_eq!(message(board.world()), "the sprinkler stands on cell 9, and the board has 9 cells");
    let board = TomatoBoard { tomatoes: vec![0, 12], ..TomatoBoard::small() };
    assert_eq!(message(board.world()), "the tomato stands on cell 12, and the board has 9 cells");
    let board = TomatoBoard { sprinkler_bonus: -1.0, ..TomatoBoard::small() };
    assert_eq!(message(board.world()), "`sprinkler_bonus` must be a finite number > 0, found -1");
    let board = TomatoBoard { rows: 0, ..TomatoBoard::small() };
    assert!(board.world().is_err());
    assert_eq!(message(TinyLm::new(0)), "`length` must be in 1..=7, found 0");
    assert_eq!(message(Patient::default().world(1)), "`cells` must be at least 2, found 1");
    let patient = Patient { start: 500.0, ..Patient::default() };
    assert_eq!(message(patient.world(24)), "`start` must be in the range of levels, found 500");
    let patient = Patient { noise: 0.0, ..Patient::default() };
    assert_eq!(message(patient.world(24)), "`noise` must be a finite number > 0, found 0");
}

#[test]
fn settings_out_of_range() {
    let check = |config: LearnerConfig| message(config.check());
    let base = LearnerConfig::default;
    for (config, expected) in [
        (LearnerConfig { robots: 0, ..base() }, "`robots` must be a finite number > 0, found 0"),
        (LearnerConfig { steps: 0, ..base() }, "`steps` must be a finite number > 0, found 0"),
        (LearnerConfig { gae_lambda: 1.5, ..base() }, "`gae_lambda` must be in [0, 1], found 1.5"),
        (
            LearnerConfig { value_learning_rate: 0.0, ..base() },
            "`value_learning_rate` must be in (0, 1], found 0",
        ),
        (LearnerConfig { trim: 0.5, ..base() }, "`trim` must be in [0, 0.5), found 0.5"),
        (
            LearnerConfig { penalty_clip: 0.0, ..base() },
            "`penalty_clip` must be a finite number > 0, found 0",
        ),
        (
            LearnerConfig { regularizer: Regularizer::Actions { lambda: -1.0 }, ..base() },
            "`lambda` must be a finite number > 0, found -1",
        ),
    ] {
        assert_eq!(check(config), expected);
    }
    assert!(serde_json::from_str::<LearnerConfig>(r#"{"penalty_clipp": 3}"#).is_err());
}

#[test]
fn settings_survive_a_round_trip() {
    let config = LearnerConfig {
        regularizer: Regularizer::Occupancy {
            penalty: Penalty::Kl,
            lambda: 2.0,
            cells: Cells::States,
            source: RatioSource::Exact,
        },
        ..LearnerConfig::default()
    };
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<LearnerConfig>(&text).unwrap(), config);
    let short = r#"{"regularizer": {"kind": "occupancy", "penalty": "sqrt_chi_squared", "lambda": 0.3}}"#;
    let read: LearnerConfig = serde_json::from_str(short).unwrap();
    assert!(matches!(read.regularizer, Regularizer::Occupancy { cells: Cells::StateActions, .. }));
}

#[test]
#[should_panic(expected = "a reward has one entry for each pair")]
fn a_reward_of_another_world_is_a_bug() {
    let _ = optimal_policy(&two_state(0.9).unwrap(), &[1.0]);
}

#[test]
#[should_panic(expected = "a policy has the states and actions of its world")]
fn a_policy_of_another_world_is_a_bug() {
    two_state(0.9).unwrap().occupancy(&TabularPolicy::uniform(4, 1));
}

proptest! {
    #[test]
    fn no_numbers_make_a_constructor_panic(entries in prop::collection::vec(any::<f64>(), 0..5), discount: f64) {
        let _ = Occupancy::new(entries.clone());
        let _ = TabularPolicy::new(&[entries.clone(), entries.clone()]);
        let _ = Mdp::one_step(&entries, 2);
        let _ = Mdp::new(&entries, &vec![vec![entries.clone()]; entries.len()], discount);
        let _ = trimmed_mean(&entries, discount);
        let _ = bound_a(discount, 0.3, 1.0);
        let _ = bound_b(discount, 0.3, 1.0);
    }
}
