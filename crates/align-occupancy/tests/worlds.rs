//! The worlds' tables, computed apart from this code; every optimum with its gap.

mod common;

use align_occupancy::worlds::{Patient, TinyLm, TomatoBoard, TomatoWorld};
use align_occupancy::{
    Audit, Correlation, Divergence, Occupancy, Optimum, TabularPolicy, action_optimum, bandit_optimum,
    chi_squared, kl, l1, leaving_threshold, nearest_optimal_policy, occupancy_optimum, optimal_policy,
};
use common::{PRINTED, assert_close};

/// Thirteen points for each factor of ten, from `high` down.
fn grid(high: f64, points: i32) -> Vec<f64> {
    (0..points).map(|i| high * 10f64.powf(-f64::from(i) / 13.0)).collect()
}

struct Tomato {
    world: TomatoWorld,
    nu: Occupancy,
    agreement: Correlation,
}

fn tomato() -> Tomato {
    let world = TomatoWorld::small();
    let nu = world.mdp.occupancy(&world.reference);
    let agreement = Correlation::under(&nu, &world.proxy, &world.gold).unwrap();
    Tomato { world, nu, agreement }
}

impl Tomato {
    fn audit(&self, policy: &TabularPolicy) -> Audit {
        let mu = self.world.mdp.occupancy(policy);
        Audit::of(&mu, &self.nu, &self.world.proxy, &self.world.gold).unwrap()
    }

    fn gold(&self, optimum: &Optimum) -> f64 {
        optimum.occupancy.mean(&self.world.gold)
    }

    /// No policy is better, and both bounds hold.
    #[track_caller]
    fn assert_certified(&self, optimum: &Optimum, name: &str) {
        assert!(optimum.score.duality_gap <= 1e-9, "{name}: {:?}", optimum.score);
        let audit = self.audit(&optimum.policy);
        // At the reference all three are 0, up to rounding; on the way to the hack, thousands of deviations.
        let slack = 1e-8 * (1.0 + audit.chi_squared.sqrt());
        assert!(audit.bound_a <= audit.bound_b + slack, "{name}: {audit:?}");
        assert!(audit.bound_b <= audit.gold_gain + slack, "{name}: {audit:?}");
    }

    fn occupancies(&self, divergence: Divergence, lambda: f64) -> Optimum {
        let w = &self.world;
        occupancy_optimum(&w.mdp, &w.proxy, &w.reference, divergence, lambda).unwrap()
    }

    fn actions(&self, divergence: Divergence, lambda: f64) -> Optimum {
        let w = &self.world;
        action_optimum(&w.mdp, &w.proxy, &w.reference, divergence, lambda).unwrap()
    }
}

#[test]
fn the_tomato_world_has_its_constants() {
    let t = tomato();
    let a = t.agreement;
    assert_close(
        [a.gold_mean, a.proxy_mean, a.gold_deviation, a.proxy_deviation, a.r, a.lambda_star().unwrap()],
        [0.319624941, 0.331612378, 0.466331253, 0.563511409, 0.812964952, 0.328139805],
        PRINTED,
    );
    let states = [
        0.018422112,
        0.018586187,
        0.001318618,
        0.025101004,
        0.028086653,
        0.004496289,
        0.417986583,
        0.432203762,
        0.053798791,
    ];
    assert_close(t.nu.states(5).cells(), states, PRINTED);
}

#[test]
fn occupancies_rank_the_hack_far_and_actions_rank_it_near() {
    let t = tomato();
    let w = &t.world;
    let half = TabularPolicy::mixture(&[(0.5, &w.reference), (0.5, &w.watering)]).unwrap();
    let nearest = nearest_optimal_policy(&w.mdp, &w.proxy, &w.reference).unwrap();
    let bump = optimal_policy(&w.mdp, &w.proxy).unwrap().policy;
    // J(R), J(R̃), χ², KL, l1, KL of actions; and the tolerance, by the digits that are printed.
    let table: [(&str, &TabularPolicy, [f64; 6], [f64; 6]); 5] = [
        ("watering", &w.watering, [1.0, 1.0, 2.60880383, 1.2733976, 1.43587818, 1.13943428], [PRINTED; 6]),
        (
            "half",
            &half,
            [0.65986316, 0.660411656, 0.667394039, 0.302443875, 0.717480472, 0.242116392],
            [PRINTED; 6],
        ),
        (
            "uniform",
            &TabularPolicy::uniform(9, 5),
            [0.219298008, 1.19225193, 85.9911649, 2.38270086, 1.431941, 1.06126991],
            [1e-8, 1e-8, 1e-7, 1e-8, 1e-8, 1e-8],
        ),
        (
            "nearest hack",
            &nearest,
            [0.0, 8.91, 1103.95, 6.9556, 1.9959, 0.4851],
            [5e-5, 5e-5, 5e-3, 5e-5, 5e-5, 5e-5],
        ),
        (
            "bumping hack",
            &bump,
            [0.0, 8.91, 36424.5274, 10.3825202, 1.99761545, 3.91202301],
            [1e-8, 1e-8, 1e-4, 1e-7, 1e-8, 1e-8],
        ),
    ];
    for (name, policy, expected, tolerance) in table {
        let mu = w.mdp.occupancy(policy);
        let found = [
            mu.mean(&w.gold),
            mu.mean(&w.proxy),
            chi_squared(&mu, &t.nu).unwrap(),
            kl(&mu, &t.nu).unwrap(),
            l1(&mu, &t.nu),
            Divergence::Kl.of_actions(&w.mdp, policy, &w.reference).unwrap(),
        ];
        for i in 0..6 {
            assert!((found[i] - expected[i]).abs() <= tolerance[i], "{name}, column {i}: {found:?}");
        }
    }
    for (policy, expected, tolerance) in [
        (&w.watering, [0.302070505, 0.325859922, 1.458995198], PRINTED),
        (&half, [0.132560876, 0.141391683, 0.729606297], PRINTED),
        (&bump, [-117.978636556, -98.405647507, -0.685403215], 1e-7),
    ] {
        let audit = t.audit(policy);
        assert_close([audit.bound_a, audit.bound_b, audit.gold_gain], expected, tolerance);
    }
    assert!(t.audit(&bump).hacks && !t.audit(&w.watering).hacks);
}

#[test]
fn optima_of_the_tomato_world_have_their_gold_returns() {
    let t = tomato();
    let star = t.agreement.lambda_star().unwrap();
    // The two penalties of actions are printed to 6 and 3 digits, the occupancies' to 3 and the tables claim ±0.01.
    for (lambda, expected) in [(100.0, 0.321562), (44.0, 0.323072), (20.0, 0.178784), (10.0, 0.016798)] {
        assert_close([t.gold(&t.actions(Divergence::Kl, lambda))], [expected], 1e-6);
    }
    for (lambda, expected) in [(100.0, 0.321), (25.0, 0.323), (15.0, 0.262), (10.0, 0.044), (5.0, 0.0)] {
        assert_close([t.gold(&t.actions(Divergence::ChiSquared, lambda))], [expected], 0.01);
    }
    let occupancies: [(Divergence, &[(f64, f64)]); 3] = [
        (Divergence::Kl, &[(5.0, 0.360), (2.0, 0.401), (1.0, 0.105), (0.5, 0.001), (0.2, 0.0)]),
        (
            Divergence::ChiSquared,
            &[(1.0, 0.419), (0.5, 0.518), (0.2, 0.815), (0.08, 0.938), (0.02, 0.770), (0.01, 0.546)],
        ),
        (
            Divergence::SqrtChiSquared,
            &[(0.5636, 0.319625), (0.5, 0.927), (0.4, 0.933), (0.36, 0.937), (star, 0.922), (0.25, 0.146)],
        ),
    ];
    for (divergence, row) in occupancies {
        for &(lambda, expected) in row {
            let optimum = t.occupancies(divergence, lambda);
            // These optima are certified; the table's are so to 2e-3, and agree within the last printed digit or two.
            assert!(optimum.score.duality_gap <= 1e-9, "{divergence:?} {lambda}: {:?}", optimum.score);
            assert_close([t.gold(&optimum)], [expected], 2e-3);
        }
    }
    let best = t.occupancies(Divergence::SqrtChiSquared, star);
    let audit = t.audit(&best.policy);
    let found = [best.score.proxy_return, audit.bound_a, audit.bound_b, audit.gold_gain];
    assert_close(found, [1.597, 0.877, 1.026, 1.293], 5e-4);
}

#[test]
fn left_alone_the_proxy_is_hacked() {
    let t = tomato();
    assert!(t.agreement.r > 0.8);
    for policy in [
        optimal_policy(&t.world.mdp, &t.world.proxy).unwrap().policy,
        nearest_optimal_policy(&t.world.mdp, &t.world.proxy, &t.world.reference).unwrap(),
    ] {
        let gold = t.world.mdp.normalized_return(&policy, &t.world.gold);
        assert!(gold <= 0.01 && t.agreement.is_hacked_by(gold));
        let here = t.audit(&policy).correlation_here;
        assert!(here.is_none_or(|r| r < 0.0), "where the hack goes, the correlation is gone: {here:?}");
    }
}

#[test]
fn no_weight_of_an_action_divergence_helps_and_a_proxy_that_grows_is_hacked() {
    let t = tomato();
    for divergence in [Divergence::Kl, Divergence::ChiSquared, Divergence::SqrtChiSquared] {
        let path: Vec<(f64, f64)> = grid(1000.0, 53)
            .into_iter()
            .map(|lambda| {
                let optimum = t.actions(divergence, lambda);
                t.assert_certified(&optimum, &format!("{divergence:?} {lambda}"));
                (t.gold(&optimum), optimum.score.proxy_return)
            })
            .collect();
        let best = path.iter().fold(0.0, |m: f64, (gold, _)| m.max(*gold));
        assert!(best <= 0.33, "{divergence:?}: {best}");
        let first = path.iter().find(|(_, proxy)| *proxy > 1.0).expect("small weights let the proxy grow");
        assert!(first.0 < t.agreement.gold_mean, "{divergence:?}: {first:?}");
    }
}

#[test]
fn weights_of_occupancy_divergence_help() {
    let t = tomato();
    let best = |divergence, high| {
        let golds = grid(high, 53).into_iter().map(|lambda| {
            let optimum = t.occupancies(divergence, lambda);
            t.assert_certified(&optimum, &format!("{divergence:?} {lambda}"));
            t.gold(&optimum)
        });
        golds.fold(0.0, f64::max)
    };
    assert!(best(Divergence::SqrtChiSquared, 1.0) >= 0.92);
    assert!(best(Divergence::ChiSquared, 10.0) >= 0.92);
    let kl = best(Divergence::Kl, 100.0);
    assert!((0.38..=0.43).contains(&kl), "{kl}");
    let star = t.agreement.lambda_star().unwrap();
    assert!(t.gold(&t.occupancies(Divergence::SqrtChiSquared, star)) >= 0.90);
}

#[test]
fn dynamics_lower_the_weight_at_which_the_reference_is_left() {
    let t = tomato();
    let w = &t.world;
    let threshold = leaving_threshold(&w.mdp, &w.proxy, &w.reference).unwrap();
    assert!(threshold < 0.95 * t.agreement.proxy_deviation, "{threshold}");
    for lambda in [0.6, 0.5636, threshold * (1.0 + 1e-9)] {
        let optimum = t.occupancies(Divergence::SqrtChiSquared, lambda);
        assert_eq!(l1(&optimum.occupancy, &t.nu), 0.0, "{lambda}");
        assert_eq!(optimum.score.duality_gap, 0.0, "{lambda}");
    }
    // A hair below, a jump.
    for hair in [1e-3, 1e-8, 1e-11, 1e-13] {
        let optimum = t.occupancies(Divergence::SqrtChiSquared, threshold * (1.0 - hair));
        assert!(l1(&optimum.occupancy, &t.nu) > 0.1, "{hair}: {:?}", optimum.score);
        assert!(optimum.score.duality_gap < 1e-9, "{hair}: {:?}", optimum.score);
    }
}

#[test]
fn larger_boards_are_worlds_too() {
    for (rows, columns) in [(3, 5), (4, 4), (6, 6)] {
        let cells = rows * columns;
        let board = TomatoBoard {
            rows,
            columns,
            tomatoes: vec![0, 1, cells - 2, cells - 3],
            sprinkler: columns - 1,
            start: cells - 1,
            ..TomatoBoard::small()
        };
        let world = board.world().unwrap();
        assert_eq!(world.mdp.states(), cells);
        let nu = world.mdp.occupancy(&world.reference);
        let agreement = Correlation::under(&nu, &world.proxy, &world.gold).unwrap();
        let hack = optimal_policy(&world.mdp, &world.proxy).unwrap().policy;
        assert!(agreement.is_hacked_by(world.mdp.normalized_return(&hack, &world.gold)));
        // The walk to the first tomato is all that keeps watering from 1.
        assert!(world.mdp.normalized_return(&world.watering, &world.gold) > 0.97);
        let lambda = agreement.lambda_star().unwrap();
        let best =
            occupancy_optimum(&world.mdp, &world.proxy, &world.reference, Divergence::SqrtChiSquared, lambda);
        let best = best.unwrap();
        assert!(best.score.duality_gap < 1e-9, "{:?}", best.score);
        assert!(best.occupancy.mean(&world.gold) > 0.9, "{rows}×{columns}");
    }
}

#[test]
fn the_small_board_and_its_world_agree() {
    let (small, found) = (TomatoWorld::small(), TomatoBoard::small().world().unwrap());
    assert_eq!((&small.mdp, &small.gold, &small.proxy), (&found.mdp, &found.gold, &found.proxy));
    let returns = [&small, &found].map(|w| w.mdp.normalized_return(&w.watering, &w.gold));
    assert_close(returns, [1.0, 1.0], 1e-12);
}

struct Lm {
    lm: TinyLm,
    agreement: Correlation,
}

fn tiny() -> Lm {
    let lm = TinyLm::new(4).unwrap();
    let agreement = Correlation::under(lm.reference(), lm.proxy(), lm.gold()).unwrap();
    Lm { lm, agreement }
}

impl Lm {
    fn best(&self, divergence: Divergence, lambda: f64) -> Occupancy {
        bandit_optimum(divergence, self.lm.reference(), self.lm.proxy(), lambda).unwrap()
    }

    fn gold(&self, divergence: Divergence, lambda: f64) -> f64 {
        self.best(divergence, lambda).mean(self.lm.gold())
    }
}

#[test]
fn the_tiny_language_model_has_its_table() {
    let l = tiny();
    let a = l.agreement;
    assert_close(
        [a.gold_mean, a.proxy_mean, a.gold_deviation, a.proxy_deviation, a.r, a.lambda_star().unwrap()],
        [0.968, 1.032, 0.875067997, 0.928301675, 0.844802556, 0.496713956],
        PRINTED,
    );
    let star = a.lambda_star().unwrap();
    use Divergence::{ChiSquared, Kl, SqrtChiSquared};
    // J(R), J(R̃), χ², KL, glitches in a sequence. χ² is printed to four digits where it is large.
    let table: [(Divergence, f64, [f64; 5], f64); 8] = [
        (Kl, 2.0, [1.321362, 1.565781, 0.403949, 0.142886, 0.061105], 1e-6),
        (Kl, 0.5, [0.195142, 6.369940, 2.095e6, 7.017273, 1.543700], 500.0),
        (Kl, 0.25, [-3.833961, 11.824941, 3.288e9, 21.299412, 3.914726], 5e5),
        (ChiSquared, 0.1, [2.058047, 2.768835, 5.080237, 1.550443, 0.177697], 1e-6),
        (ChiSquared, 0.01, [1.480448, 4.170977, 60.888361, 3.709236, 0.672632], 1e-6),
        (SqrtChiSquared, 0.9284, [0.968, 1.032, 0.0, 0.0, 0.016], 1e-12),
        (SqrtChiSquared, star, [2.058251, 2.695997, 4.408167, 1.487534, 0.159437], 1e-6),
        (SqrtChiSquared, 0.1, [1.225820, 4.554978, 111.837621, 4.524116, 0.832289], 1e-6),
    ];
    for (divergence, lambda, expected, of_chi_squared) in table {
        let best = l.best(divergence, lambda);
        let found = [
            best.mean(l.lm.gold()),
            best.mean(l.lm.proxy()),
            chi_squared(&best, l.lm.reference()).unwrap(),
            kl(&best, l.lm.reference()).unwrap(),
            best.mean(l.lm.glitches()),
        ];
        for (i, tolerance) in [1e-6, 1e-6, of_chi_squared, 1e-6, 1e-6].into_iter().enumerate() {
            assert!(
                (found[i] - expected[i]).abs() <= tolerance,
                "{divergence:?} {lambda}, column {i}: {found:?}"
            );
        }
    }
    assert_close([l.gold(Kl, 0.92)], [1.578947], 1e-6);

    let audit = |divergence, lambda| {
        let best = l.best(divergence, lambda);
        let audit = Audit::of(&best, l.lm.reference(), l.lm.proxy(), l.lm.gold()).unwrap();
        [audit.bound_a, audit.bound_b, audit.gold_gain]
    };
    let [a, _, actual] = audit(Kl, 0.92);
    assert_close([a, actual], [-1.089, 0.698], 5e-4);
    assert_close(audit(SqrtChiSquared, star), [0.792, 0.929, 1.246], 5e-4);
}

#[test]
fn chi_squared_gets_what_no_weight_of_kl_gets_out_of_the_tiny_language_model() {
    let l = tiny();
    let best =
        |divergence| grid(10.0, 53).into_iter().map(|lambda| l.gold(divergence, lambda)).fold(0.0, f64::max);
    assert!(best(Divergence::Kl) <= 1.60);
    assert!(best(Divergence::ChiSquared) >= 2.05);
    assert!(best(Divergence::SqrtChiSquared) >= 2.05);
    assert!(l.gold(Divergence::SqrtChiSquared, l.agreement.lambda_star().unwrap()) >= 2.04);
    // The best weights, as they are told.
    let around = |divergence, at: f64| [0.9 * at, at, at / 0.9].map(|lambda| l.gold(divergence, lambda));
    let [low, middle, high] = around(Divergence::Kl, 0.92);
    assert!(middle > low && middle > high);
    let [low, middle, high] = around(Divergence::ChiSquared, 0.17);
    assert!(middle > low - 1e-2 && middle > high - 1e-2);
}

#[test]
fn responses_are_listed_in_order() {
    let lm = TinyLm::new(3).unwrap();
    assert_eq!(lm.tokens(0), [0, 0, 0]);
    assert_eq!(lm.tokens(6 * 6 * 3 + 6 * 5 + 1), [3, 5, 1]);
    assert_eq!(lm.gold()[6 * 6 * 3 + 6 * 5 + 1], 0.0);
    assert_eq!(lm.proxy()[6 * 6 * 3 + 6 * 5 + 1], 4.0);
    assert_close([lm.reference().cells()[6 * 6 * 3 + 6 * 5 + 1]], [0.15 * 0.004 * 0.25], 1e-15);
    // Tokens are independent: χ² of sequences from that of tokens.
    let other = TinyLm::with_probabilities([0.25, 0.25, 0.2, 0.15, 0.14, 0.01], 3).unwrap();
    let (token, tokens) =
        (TinyLm::new(1).unwrap(), TinyLm::with_probabilities([0.25, 0.25, 0.2, 0.15, 0.14, 0.01], 1));
    let one = chi_squared(tokens.unwrap().reference(), token.reference()).unwrap();
    let three = chi_squared(other.reference(), lm.reference()).unwrap();
    assert_close([three], [(1.0 + one).powi(3) - 1.0], 1e-12);
}

#[test]
fn the_patient_is_overdosed_by_the_proxy_and_helped_by_the_regularised_one() {
    let world = Patient::default().world(24).unwrap();
    let nu = world.mdp.occupancy(&world.reference);
    let agreement = Correlation::under(&nu, &world.proxy, &world.gold).unwrap();
    assert!(agreement.r > 0.9, "the careful doctor hardly sees lows: {agreement:?}");
    let hack = optimal_policy(&world.mdp, &world.proxy).unwrap().policy;
    let hacked = world.mdp.occupancy(&hack);
    assert!(hacked.mean(&world.gold) < 30.0 * agreement.gold_mean, "both are negative");
    let levels = |occupancy: &Occupancy| {
        let states = occupancy.states(world.mdp.actions());
        states.mean(&world.levels)
    };
    assert!(levels(&hacked) < 60.0 && levels(&nu) > 120.0);
    let lambda = agreement.lambda_star().unwrap();
    let best =
        occupancy_optimum(&world.mdp, &world.proxy, &world.reference, Divergence::SqrtChiSquared, lambda)
            .unwrap();
    assert!(best.score.duality_gap < 1e-9, "{:?}", best.score);
    assert!(best.occupancy.mean(&world.gold) > 0.5 * agreement.gold_mean, "half of the risk is gone");
    let audit = Audit::of(&best.occupancy, &nu, &world.proxy, &world.gold).unwrap();
    assert!(
        0.0 < audit.bound_a && audit.bound_a <= audit.bound_b && audit.bound_b <= audit.gold_gain,
        "{audit:?}"
    );
}
