//! A tuned KL coefficient and a designed reward, against closed forms and numbers computed apart from this code.

use std::ops::ControlFlow;

use align_bilevel::alignment::{
    Demonstrations, DesignConfig, GoldReward, KlCoefficient, KlTuneConfig, PolicyObjective, PreferenceLoss,
    Regularized, RewardDesign, design_reward, tune_kl_coefficient,
};
use align_bilevel::{
    BilevelError, Count, DoubleLoop, DoubleLoopConfig, Level, Oracle, Point, Problem, Sample, Schedule,
    Solver, log_log_slope, run,
};
use align_testkit::{assert_all_close, assert_close};

/// Values printed with ten digits.
const PRINTED: f64 = 1e-8;

fn reference() -> Regularized {
    Regularized::new(&[vec![0.5, 0.3, 0.2]]).unwrap()
}

/// ψ has a maximum inside.
fn without_optimum() -> KlCoefficient {
    KlCoefficient::new(reference(), vec![1.0, 0.0, 2.0], vec![0.2, 1.0, 0.4]).unwrap()
}

/// A proxy that can be over-optimised: ψ has a minimum inside.
fn over_optimised() -> KlCoefficient {
    KlCoefficient::new(reference(), vec![0.0, 1.0, 2.0], vec![0.0, 1.0, 0.3]).unwrap()
}

/// The slope of log |error| against log σ.
fn slope(sigmas: &[f64], errors: &[f64]) -> f64 {
    let points = sigmas.iter().zip(errors).map(|(sigma, error)| (*sigma, error.abs()));
    log_log_slope(&points.collect::<Vec<_>>())
}

/// A row of a table: β, π, ψ, dψ/dβ and dψ_σ/dβ at σ = 0.1, 0.01, 0.001.
type Row = (f64, [f64; 3], f64, f64, [f64; 3]);

fn check_rows(problem: &KlCoefficient, rows: &[Row]) {
    for &(beta, policy, psi, gradient, penalized) in rows {
        let found: Vec<f64> = problem.solution(beta, 0.0).iter().map(|log| log.exp()).collect();
        assert_close(found, policy, PRINTED);
        assert_close([problem.psi(beta), problem.hyper_gradient(beta)], [psi, gradient], PRINTED);
        let found = [0.1, 0.01, 0.001].map(|sigma| problem.penalized_gradient(beta, sigma));
        assert_close(found, penalized, PRINTED);
    }
}

#[test]
fn the_kl_coefficient_has_the_known_hyper_gradients() {
    let rows = [
        (
            0.5,
            [0.2477195183, 0.0201151147, 0.7321653670],
            -0.3625251652,
            0.0584595871,
            [0.0541412191, 0.0580389469, 0.0584176349],
        ),
        (
            2.0,
            [0.4942159671, 0.1798542819, 0.3259297509],
            -0.4090693757,
            -0.0273093456,
            [-0.0267112226, -0.0272506271, -0.0273034847],
        ),
    ];
    check_rows(&without_optimum(), &rows);
    // The bias is of first order in σ.
    let sigmas = [1e-2, 1e-3, 1e-4];
    for (beta, expected) in [(0.5, 1.0039), (2.0, 1.0028)] {
        let problem = without_optimum();
        let errors =
            sigmas.map(|sigma| problem.penalized_gradient(beta, sigma) - problem.hyper_gradient(beta));
        // Differences of KL lose digits at σ = 1e-4.
        assert_close([slope(&sigmas, &errors)], [expected], 5e-3);
    }
}

#[test]
fn over_optimisation_has_the_known_table() {
    let rows = [
        (
            0.5,
            [0.0366667118, 0.1625594345, 0.8007738537],
            -0.4027915906,
            -0.2701750997,
            [-0.2761578769, -0.2708330168, -0.2702414606],
        ),
        (
            1.0,
            [0.1790000206, 0.2919435019, 0.5290564775],
            -0.4506604452,
            0.0009603445,
            [0.0042833384, 0.0012831533, 0.0009925295],
        ),
        (
            4.0,
            [0.4115389330, 0.3170558700, 0.2714051970],
            -0.3984774291,
            0.0085788556,
            [0.0091227119, 0.0086330688, 0.0085842752],
        ),
    ];
    check_rows(&over_optimised(), &rows);
}

#[test]
fn both_starts_reach_the_optimum_of_the_penalised_objective() {
    let problem = over_optimised();
    let config = KlTuneConfig { tolerance: 1e-12.try_into().unwrap(), ..KlTuneConfig::default() };
    for (start, expected) in [(0.5, 141), (4.0, 167)] {
        let tuned = tune_kl_coefficient(&problem, start, &config);
        assert_close([tuned.beta], [0.99209715], PRINTED);
        let steps = tuned.path.len() - 1;
        println!("from beta = {start}: {steps} steps");
        // The slope shrinks by about a sixth in a step, so that a rounding of 1e-14 may move the end by one.
        assert!(steps.abs_diff(expected) <= 1, "{steps} steps, {expected} expected");
        assert!(problem.hyper_gradient(tuned.beta).abs() <= 5e-4);
    }
}

#[test]
fn the_tuned_coefficient_is_off_by_the_order_of_sigma() {
    let problem = over_optimised();
    let (best, psi) = (0.9940537596, -0.4506633145);
    assert!(problem.hyper_gradient(best).abs() < 1e-9, "ψ is stationary at the known optimum");
    assert_close([problem.psi(best)], [psi], PRINTED);
    assert_close([problem.table().kl(&problem.solution(best, 0.0))], [0.3263416663], PRINTED);
    let sigmas = [0.1, 0.01, 0.001];
    let found = sigmas.map(|sigma| {
        let config = KlTuneConfig {
            sigma: sigma.try_into().unwrap(),
            tolerance: 1e-10.try_into().unwrap(),
            ..KlTuneConfig::default()
        };
        tune_kl_coefficient(&problem, 0.5, &config).beta
    });
    assert_close(found, [0.97480445, 0.99209715, 0.99385776], 1e-7);
    let gaps = found.map(|beta| best - beta);
    for pair in gaps.windows(2) {
        assert_close([pair[0] / pair[1]], [10.0], 0.5); // O(σ) with a correction of O(σ²)
    }
    // ψ is flat at its minimum: what is lost by σ = 0.01 is of second order.
    assert!(problem.psi(found[1]) - psi < 1e-6);
}

#[test]
fn a_reward_above_a_policy_has_the_known_gradient() {
    let reward = [0.3, -0.2, 0.1];
    let shown = Demonstrations { shares: vec![0.2, 0.5, 0.3] };
    let problem = RewardDesign::new(reference(), 0.5.try_into().unwrap(), shown.clone());
    let policy: Vec<f64> = reference().optimum(&reward, 0.5).iter().map(|log| log.exp()).collect();
    assert_close(&policy, [0.6716567706, 0.1482532305, 0.1800899990], PRINTED);
    assert_close([problem.psi(&reward)], [1.5483078584], PRINTED);

    let exact: Vec<f64> = policy.iter().zip(&shown.shares).map(|(pi, p)| (pi - p) / 0.5).collect();
    assert_close(&exact, [0.9433135412, -0.7034935391, -0.2398200021], PRINTED);
    let bent = reference().penalized_optimum(&reward, 0.5, 0.01, &shown);
    let probabilities: Vec<f64> = bent.log_probs.iter().map(|log| log.exp()).collect();
    assert_close(probabilities, [0.6624972461, 0.1550355363, 0.1824672176], PRINTED);
    assert!(bent.residual < 1e-14, "solved to roundoff, not to {}", bent.residual);

    let gradients = [1e-2, 1e-3, 1e-4].map(|sigma| problem.penalized_gradient(&reward, sigma).0);
    assert_close(&gradients[0], [0.9159524508, -0.6782305879, -0.2377218629], PRINTED);
    assert_close(&gradients[1], [0.9404334702, -0.7008063316, -0.2396271386], PRINTED);
    let errors: Vec<f64> = gradients.iter().map(|gradient| gradient.distance(&exact)).collect();
    assert_all_close(&errors, [3.7299e-2, 3.9437e-3, 3.9670e-4], 1e-4, 0.0); // five printed digits
    let found = slope(&[1e-2, 1e-3, 1e-4], &errors);
    assert!((0.9..=1.1).contains(&found), "slope {found}");
}

/// Two states, three actions, unequally frequent.
fn two_states() -> Regularized {
    let rows = [vec![0.5, 0.3, 0.2], vec![0.1, 0.2, 0.7]];
    Regularized::with_frequencies(&rows, vec![0.25, 0.75]).unwrap()
}

fn differences(at: &[f64], value: impl Fn(&Vec<f64>) -> f64) -> Vec<f64> {
    let step = 1e-5; // truncation about 1e-10, rounding about 1e-11
    let moved = |i: usize, by: f64| {
        let mut at = at.to_vec();
        at[i] += by;
        value(&at)
    };
    (0..at.len()).map(|i| (moved(i, step) - moved(i, -step)) / (2.0 * step)).collect()
}

fn check_gradients<P: Problem<X = Vec<f64>, Y = Vec<f64>>>(problem: &P, x: &Vec<f64>, y: &Vec<f64>) {
    let full = Sample::full();
    for level in [Level::Upper, Level::Lower] {
        let by_x = differences(x, |x| problem.value(level, x, y, &full));
        assert_all_close(problem.gradient_x(level, x, y, &full), by_x, 1e-8, 1e-8);
        let by_y = differences(y, |y| problem.value(level, x, y, &full));
        assert_all_close(problem.gradient_y(level, x, y, &full), by_y, 1e-8, 1e-8);
    }
}

/// P(a ≻ b) from another reward.
fn preferences(gold: &[f64], actions: usize) -> PreferenceLoss {
    let preferred = gold.chunks(actions).flat_map(|gold| {
        gold.iter().flat_map(|a| gold.iter().map(|b| 1.0 / (1.0 + (b - a).exp())).collect::<Vec<_>>())
    });
    PreferenceLoss { preferred: preferred.collect() }
}

#[test]
fn gradients_of_every_policy_problem_agree_with_differences() {
    let logits = vec![0.3, -0.4, 0.8, 0.0, 1.1, -0.7];
    let reward = vec![0.2, -0.5, 0.4, 1.0, 0.1, -0.3];
    let gold = vec![0.0, 1.0, 0.3, -0.2, 0.5, 0.7];
    let tuned = KlCoefficient::new(two_states(), reward.clone(), gold.clone()).unwrap();
    check_gradients(&tuned, &vec![0.6f64.ln()], &logits);

    fn design<O: PolicyObjective>(objective: O) -> RewardDesign<O> {
        RewardDesign::new(two_states(), 0.7.try_into().unwrap(), objective)
    }
    let shares = vec![0.2, 0.5, 0.3, 0.0, 0.9, 0.1];
    check_gradients(&design(Demonstrations { shares }), &reward, &logits);
    check_gradients(&design(GoldReward { reward: gold.clone() }), &reward, &logits);
    check_gradients(&design(preferences(&gold, 3)), &reward, &logits);
}

#[test]
fn penalised_gradients_tend_to_the_differences_of_psi() {
    let reward = vec![0.2, -0.5, 0.4, 1.0, 0.1, -0.3];
    let gold = vec![0.0, 1.0, 0.3, -0.2, 0.5, 0.7];
    fn check<O: PolicyObjective>(objective: O, reward: &[f64]) {
        let problem = RewardDesign::new(two_states(), 0.7.try_into().unwrap(), objective);
        let exact = differences(reward, |reward| problem.psi(reward));
        let sigmas = [1e-2, 1e-3, 1e-4];
        let errors = sigmas.map(|sigma| problem.penalized_gradient(reward, sigma).0.distance(&exact));
        let found = slope(&sigmas, &errors);
        assert!((0.9..=1.1).contains(&found), "slope {found}, errors {errors:?}");
    }
    check(Demonstrations { shares: vec![0.2, 0.5, 0.3, 0.1, 0.8, 0.1] }, &reward);
    check(GoldReward { reward: gold.clone() }, &reward);
    check(preferences(&gold, 3), &reward);
    let tuned = KlCoefficient::new(two_states(), reward, gold).unwrap();
    let exact = differences(&[0.6], |beta| tuned.psi(beta[0]));
    assert_close([tuned.hyper_gradient(0.6)], exact, 1e-9);
}

#[test]
fn a_designed_reward_has_the_demonstrated_policy_as_its_optimum() {
    let shares = vec![0.2, 0.5, 0.3, 0.05, 0.85, 0.1];
    let problem =
        RewardDesign::new(two_states(), 0.5.try_into().unwrap(), Demonstrations { shares: shares.clone() });
    let designed = design_reward(&problem, vec![0.0; 6], &DesignConfig::default()).unwrap();
    assert!(designed.gradient_norm <= 1e-6);
    // ∇ψ = μ (π − p)/β and μ ≥ 1/4: a gradient of 1e-6 leaves π within 2e-6.
    assert_close(&designed.policy, &shares, 2e-6);
    let entropy = |p: &[f64]| -p.iter().map(|p| p * p.ln()).sum::<f64>();
    assert_close([designed.psi], [0.25 * entropy(&shares[..3]) + 0.75 * entropy(&shares[3..])], 1e-10);
    assert_eq!(problem.psi(&designed.reward), designed.psi);
}

#[test]
fn a_preference_loss_under_its_own_policy_is_least_where_little_is_compared() {
    let gold = vec![0.0, 1.0, 0.3, -0.2, 0.5, 0.7];
    let problem = RewardDesign::new(two_states(), 2.0.try_into().unwrap(), preferences(&gold, 3));
    let config = DesignConfig { iterations: 300, ..DesignConfig::default() };
    let designed = design_reward(&problem, vec![0.0; 6], &config).unwrap();
    // The true reward explains every preference as well as can be; a reward that keeps its policy to one answer is still
    // "better". This is what the objective says, and why its documentation warns.
    assert!(designed.psi < problem.psi(&gold) - 0.05, "{} against {}", designed.psi, problem.psi(&gold));
    assert!(designed.policy[5] > 0.95, "{:?}", designed.policy);
}

/// Runs the double loop from y = z = `start`.
fn double_loop<P: Problem<X = Vec<f64>, Y = Vec<f64>>>(
    problem: &P,
    config: DoubleLoopConfig,
    x: Vec<f64>,
    start: &[f64],
) -> DoubleLoop<Vec<f64>, Vec<f64>> {
    let steps = config.outer_steps;
    let mut solver = DoubleLoop::new(config, problem, x, start.to_vec(), start.to_vec()).unwrap();
    run(&mut solver, &Oracle::new(problem), steps, |_, _, _| ControlFlow::Continue(())).unwrap();
    solver
}

#[test]
fn the_double_loop_finds_what_the_closed_forms_find() {
    // Logits are known up to a constant: the lower level has a line of minimisers, as the method allows.
    let config = DoubleLoopConfig {
        outer_steps: 300,
        sigma: Schedule::constant(0.01),
        rho: 10.0,
        inner_steps: Count::constant(60),
        gamma: Schedule::constant(1.0),
        alpha: Schedule::constant(1.0),
        ..DoubleLoopConfig::default()
    };
    let problem = over_optimised();
    let solver = double_loop(&problem, config.clone(), vec![4f64.ln()], problem.table().log_reference());
    let beta = Solver::<KlCoefficient>::x(&solver)[0].exp();
    println!("double loop: beta {beta:.6}");
    assert_close([beta], [0.99209715], 1e-4); // inner loops of 60 steps, amplified by 1/σ

    let shares = vec![0.2, 0.5, 0.3];
    let problem =
        RewardDesign::new(reference(), 0.5.try_into().unwrap(), Demonstrations { shares: shares.clone() });
    let config = DoubleLoopConfig { alpha: Schedule::constant(0.25), ..config };
    let solver = double_loop(&problem, config, vec![0.0; 3], problem.table().log_reference());
    let policy = reference().optimum(Solver::<RewardDesign<Demonstrations>>::x(&solver), 0.5);
    assert_close(policy.iter().map(|log| log.exp()).collect::<Vec<_>>(), &shares, 1e-4);
}

#[test]
fn each_setting_of_a_tuning_and_a_design_matters() {
    let problem = over_optimised();
    let base = KlTuneConfig::default();
    let run = |config: &KlTuneConfig| tune_kl_coefficient(&problem, 0.5, config).path.len();
    for other in [
        KlTuneConfig { sigma: 0.1.try_into().unwrap(), ..base.clone() },
        KlTuneConfig { step: 0.5.try_into().unwrap(), ..base.clone() },
        KlTuneConfig { iterations: 10, ..base.clone() },
        KlTuneConfig { tolerance: 1e-3.try_into().unwrap(), ..base.clone() },
    ] {
        assert_ne!(run(&other), run(&base), "{other:?}");
    }
    let problem =
        RewardDesign::new(reference(), 0.5.try_into().unwrap(), GoldReward { reward: vec![0.0, 1.0, 0.3] });
    let base = DesignConfig { iterations: 50, ..DesignConfig::default() };
    let run = |config: &DesignConfig| design_reward(&problem, vec![0.0; 3], config).unwrap();
    for other in [
        DesignConfig { sigma: 0.1.try_into().unwrap(), ..base.clone() },
        DesignConfig { step: 0.5.try_into().unwrap(), ..base.clone() },
        DesignConfig { iterations: 20, ..base.clone() },
        DesignConfig { tolerance: 0.1.try_into().unwrap(), ..base.clone() },
    ] {
        assert_ne!(run(&other), run(&base), "{other:?}");
    }
}

#[test]
fn tables_that_are_none_are_refused() {
    let shape = |which, expected, found| Some(BilevelError::ShapeMismatch { which, expected, found });
    let rows = vec![vec![0.5, 0.5], vec![1.0]];
    assert_eq!(Regularized::new(&rows).err(), shape("a row of the reference", 2, 1));
    let rows = [vec![0.5, 0.5]];
    assert_eq!(
        Regularized::with_frequencies(&rows, vec![0.5, 0.5]).err(),
        shape("the states' frequencies", 1, 2)
    );
    for (rows, message) in [
        (
            vec![vec![0.5, 0.4]],
            "a row of the reference must be probabilities that sum to 1, found a sum of 0.9",
        ),
        (vec![vec![1.0, 0.0]], "found an entry of 0"),
        (vec![vec![f64::NAN, 1.0]], "found an entry of NaN"),
        (vec![], "a row of the reference must be probabilities that sum to 1, found none"),
    ] {
        let error = Regularized::new(&rows).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let short = KlCoefficient::new(reference(), vec![0.0; 3], vec![0.0; 2]).err();
    assert_eq!(short, shape("the gold reward", 3, 2));
    let problem =
        RewardDesign::new(reference(), 0.5.try_into().unwrap(), GoldReward { reward: vec![0.0; 3] });
    let short = design_reward(&problem, vec![0.0; 4], &DesignConfig::default()).err();
    assert_eq!(short, shape("the reward", 3, 4));
}
