//! Values known in closed form, or computed apart from this code.

mod common;

use align_occupancy::continuous::{beta_chi_squared, gaussian_chi_squared};
use align_occupancy::sampled::{Penalty, discriminator_gradient, discriminator_loss, trimmed_chi_squared};
use align_occupancy::worlds::{two_state, two_state_policy};
use align_occupancy::{
    Correlation, Divergence, Mdp, Occupancy, PlugIn, TabularPolicy, bandit_optimum, bound_a, bound_b,
    chi_squared, chi_squared_of_product, effective_sample_size, fisher_interval, kl, l1, leaving_threshold,
    nearest_optimal_policy, occupancy_optimum, optimal_policy, trimmed_mean, value_iteration,
    worst_case_reward,
};
use common::{PRINTED, assert_close, five, occupancy};

#[test]
fn a_rare_action_decides_the_occupancy_of_two_states() {
    // d(s1) = (1 − γ)/(1 − γ(1 − q)).
    let reward = [1.0, 1.0, 0.0, 0.0];
    let mdp = two_state(0.9).unwrap();
    let mu = mdp.occupancy(&two_state_policy(0.1).unwrap());
    let cells = mu.cells();
    assert_close([cells[0], cells[1], cells[2] + cells[3]], [0.473684211, 0.052631579, 0.473684211], PRINTED);
    assert_close([mu.mean(&reward)], [0.1 / (1.0 - 0.9 * 0.9)], 1e-14);
    let mdp = two_state(0.99).unwrap();
    for (q, expected) in [(0.01, 0.502512563), (0.5, 0.019801980)] {
        assert_close([mdp.normalized_return(&two_state_policy(q).unwrap(), &reward)], [expected], PRINTED);
    }
}

#[test]
fn no_weight_of_action_divergence_serves_both_ends_of_the_two_state_world() {
    let mdp = two_state(0.99).unwrap();
    let reward = [1.0, 1.0, 0.0, 0.0];
    // (safe q, other q): returns, KL of actions, l1, KL and χ² of occupancies.
    let cases: [(f64, f64, [f64; 6]); 2] = [
        (1e-4, 0.05, [0.990197049, 0.168067227, 0.044049879, 1.660868328, 3.440646125, 70.341332559]),
        (0.5, 0.9, [0.019801980, 0.011098779, 0.004085063, 0.017582224, 0.006401186, 0.007883705]),
    ];
    for (safe, other, expected) in cases {
        let (safe, other) = (two_state_policy(safe).unwrap(), two_state_policy(other).unwrap());
        let (nu, mu) = (mdp.occupancy(&safe), mdp.occupancy(&other));
        let found = [
            nu.mean(&reward),
            mu.mean(&reward),
            Divergence::Kl.of_actions(&mdp, &other, &safe).unwrap(),
            l1(&mu, &nu),
            kl(&mu, &nu).unwrap(),
            chi_squared(&mu, &nu).unwrap(),
        ];
        assert_close(found, expected, PRINTED);
    }
}

#[test]
fn correlation_and_divergences_of_five_cells() {
    let f = five();
    let c = Correlation::under(&f.nu, &f.proxy, &f.gold).unwrap();
    assert_close(
        [c.gold_mean, c.proxy_mean, c.gold_deviation, c.proxy_deviation, c.r, c.lambda_star().unwrap()],
        [0.525, 0.61, 1.145371119, 1.106752005, 0.828112496, 0.620403056],
        PRINTED,
    );
    assert_close([c.lambda_of_bound_b().unwrap()], [0.620403056 / 0.828112496], PRINTED);
    assert_close(
        [
            chi_squared(&f.mu, &f.nu).unwrap(),
            kl(&f.mu, &f.nu).unwrap(),
            kl(&f.nu, &f.mu).unwrap(),
            l1(&f.mu, &f.nu),
            Divergence::SqrtChiSquared.between(&f.mu, &f.nu).unwrap().powi(2),
        ],
        [0.294166667, 0.145760840, 0.156474613, 0.5, 0.294166667],
        PRINTED,
    );
    let objective =
        f.mu.mean(&f.proxy) - c.lambda_star().unwrap() * chi_squared(&f.mu, &f.nu).unwrap().sqrt();
    assert_close([objective], [0.653511165], PRINTED);
}

#[test]
fn bound_b_is_above_bound_a_and_attained() {
    let f = five();
    let c = Correlation::under(&f.nu, &f.proxy, &f.gold).unwrap();
    let chi2 = chi_squared(&f.mu, &f.nu).unwrap();
    let gain = c.proxy_gain(f.mu.mean(&f.proxy));
    let (a, b) = (bound_a(c.r, gain, chi2).unwrap(), bound_b(c.r, gain, chi2).unwrap());
    let actual = c.gold_gain(f.mu.mean(&f.gold));
    assert_close([gain, a, b, actual], [0.343347018, 0.047474572, 0.048974372, 0.458366717], PRINTED);
    assert_close([a * c.gold_deviation, actual * c.gold_deviation], [0.054376004, 0.525], PRINTED);

    let worst = worst_case_reward(&f.mu, &f.nu, &f.proxy, c.r).unwrap();
    let expected = [-0.649292239, -0.724031731, 0.367001226, -0.837953390, 2.060823667];
    assert_close(&worst, expected, PRINTED);
    let seen = Correlation::under(&f.nu, &f.proxy, &worst).unwrap();
    assert_close([seen.gold_mean, seen.gold_deviation, seen.r], [0.0, 1.0, c.r], 1e-12);
    assert_close([f.mu.mean(&worst)], [b], 1e-12);
}

#[test]
fn a_perfect_proxy_guarantees_its_gain_and_the_reference_guarantees_nothing() {
    for gain in [-0.5, 0.0, 0.7] {
        assert_close([bound_a(1.0, gain, 0.5).unwrap(), bound_b(1.0, gain, 0.5).unwrap()], [gain, gain], 0.0);
    }
    assert_close([bound_a(0.5, 0.0, 0.0).unwrap(), bound_b(0.5, 0.0, 0.0).unwrap()], [0.0, 0.0], 0.0);
}

#[test]
fn the_discriminator_is_least_at_the_log_ratio() {
    let f = five();
    let (mu, nu) = (f.mu.cells(), f.nu.cells());
    let best = [2f64, 0.75, 1.5, 0.4, 2.0 / 3.0].map(f64::ln);
    let logits: Vec<f64> = f.mu.ratio(&f.nu).unwrap().iter().map(|rho| rho.ln()).collect();
    assert_close(&logits, best, 1e-14);
    assert_close(discriminator_gradient(&logits, mu, nu), [0.0; 5], 1e-16);
    // 2 log 2 − 2 JSD.
    assert_close([discriminator_loss(&logits, mu, nu)], [1.312378110], PRINTED);
    assert_close([discriminator_loss(&[0.0; 5], mu, nu)], [2.0 * 2f64.ln()], 1e-15);
    let mean =
        |of: &Occupancy, f: &dyn Fn(f64) -> f64| of.mean(&logits.iter().map(|d| f(*d)).collect::<Vec<_>>());
    assert_close(
        [mean(&f.mu, &f64::exp_m1), mean(&f.mu, &|d| d), mean(&f.nu, &f64::exp)],
        [0.294166667, 0.145760840, 1.0],
        PRINTED,
    );
    let elsewhere = [0.5, -0.2, 0.3, -0.7, 0.0];
    assert_close([discriminator_loss(&elsewhere, mu, nu)], [1.321740045], PRINTED);
    let slope = [-0.013262201, 0.007558101, -0.019168112, 0.016134280, 0.025];
    assert_close(discriminator_gradient(&elsewhere, mu, nu), slope, PRINTED);
}

#[test]
fn the_discriminator_survives_any_logit() {
    let loss = discriminator_loss(&[1e4, -1e4], &[0.5, 0.5], &[0.5, 0.5]);
    assert_close([loss], [1e4], 1e-9); // half of the mass on either side is wrong by 1e4
    assert_close(discriminator_gradient(&[1e4, -1e4], &[0.5, 0.5], &[0.5, 0.5]), [0.5, -0.5], 1e-15);
}

#[test]
fn the_surrogate_reward_has_the_objective_as_its_mean() {
    let f = five();
    let chi2 = chi_squared(&f.mu, &f.nu).unwrap();
    let lambda = Correlation::under(&f.nu, &f.proxy, &f.gold).unwrap().lambda_star().unwrap();
    let logits: Vec<f64> = f.mu.ratio(&f.nu).unwrap().iter().map(|rho| rho.ln()).collect();
    let surrogate: Vec<f64> =
        f.proxy.iter().zip(&logits).map(|(r, d)| r - Penalty::SqrtChiSquared.of(*d, lambda, chi2)).collect();
    assert_close(&surrogate, [0.056128607, -0.014032152, 0.928064303, -0.113677164, 2.381290464], PRINTED);
    assert_close([f.mu.mean(&surrogate)], [0.653511165], PRINTED);
    // With e^d in the place of e^d − 1, all entries are lower by the same.
    let constant = lambda / chi2.sqrt();
    let uncentred: Vec<f64> = surrogate.iter().map(|r| r - constant).collect();
    assert_close(uncentred, [-1.087742787, -1.157903545, -0.215807090, -1.257548557, 1.237419071], PRINTED);
}

#[test]
fn penalties_are_gradients_of_their_divergences() {
    // D((1 − t)μ + tη) has the slope ⟨η − μ, ∇D(μ)⟩ at t = 0; η any third distribution.
    let f = five();
    let eta = occupancy(&[0.3, 0.1, 0.1, 0.3, 0.2]);
    let chi2 = chi_squared(&f.mu, &f.nu).unwrap();
    let logits: Vec<f64> = f.mu.ratio(&f.nu).unwrap().iter().map(|rho| rho.ln()).collect();
    let moved = |t: f64| {
        let cells = f.mu.cells().iter().zip(eta.cells());
        occupancy(&cells.map(|(m, e)| (1.0 - t) * m + t * e).collect::<Vec<_>>())
    };
    let numeric = |divergence: &dyn Fn(&Occupancy) -> f64| {
        (divergence(&moved(1e-5)) - divergence(&moved(-1e-5))) / 2e-5
    };
    let analytic = |penalty: Penalty| {
        let slopes: Vec<f64> = logits.iter().map(|d| penalty.of(*d, 1.0, chi2)).collect();
        eta.mean(&slopes) - f.mu.mean(&slopes)
    };
    // Central differences of smooth functions: 1e-5² and rounding over 1e-5.
    let between = |d: Divergence| numeric(&|mu| d.between(mu, &f.nu).unwrap());
    assert_close([analytic(Penalty::Kl)], [between(Divergence::Kl)], 1e-8);
    assert_close([2.0 * analytic(Penalty::ChiSquared)], [between(Divergence::ChiSquared)], 1e-8);
    assert_close([analytic(Penalty::SqrtChiSquared)], [between(Divergence::SqrtChiSquared)], 1e-8);
    assert_close([analytic(Penalty::TotalVariation)], [numeric(&|mu| l1(mu, &f.nu))], 1e-8);
}

#[test]
fn without_a_root_the_penalty_is_that_of_chi_squared() {
    for chi2 in [0.0, -0.3] {
        let d = 0.7;
        assert_eq!(Penalty::SqrtChiSquared.of(d, 2.0, chi2), Penalty::ChiSquared.of(d, 2.0, chi2));
    }
    assert_eq!(Penalty::TotalVariation.of(0.0, 1.0, 1.0), 0.0);
}

#[test]
fn bandits_under_chi_squared() {
    let f = five();
    let best = |lambda| bandit_optimum(Divergence::ChiSquared, &f.nu, &f.proxy, lambda).unwrap();
    // Nothing cut off: J̃ = J̃_ref + σ²/(2λ), χ² = σ²/(4λ²).
    let loose = best(2.0);
    assert_close(loose.cells(), [0.11475, 0.1545, 0.36675, 0.161875, 0.202125], 1e-12);
    assert_close([loose.mean(&f.proxy), chi_squared(&loose, &f.nu).unwrap()], [0.916225, 0.07655625], 1e-12);
    let middle = best(1.0);
    assert_close([middle.mean(&f.proxy), chi_squared(&middle, &f.nu).unwrap()], [1.22245, 0.306225], 1e-12);
    // Two responses cut off: b = −0.2363….
    let tight = best(0.5);
    assert_close(tight.cells(), [0.143636364, 0.0, 0.520909091, 0.0, 0.335454545], PRINTED);
    assert_eq!((tight.cells()[1], tight.cells()[3]), (0.0, 0.0));
    assert_close([chi_squared(&tight, &f.nu).unwrap()], [0.861], PRINTED);
    let b = -0.236363636;
    assert_close([tight.cells()[0] / 0.1], [1.2 - b], PRINTED); // ρ = (R̃ − b)/(2λ)
}

#[test]
fn bandits_under_kl() {
    let f = five();
    let best = bandit_optimum(Divergence::Kl, &f.nu, &f.proxy, 1.0).unwrap();
    let expected = [0.109021694, 0.048652056, 0.441491682, 0.036886205, 0.363948363];
    assert_close(best.cells(), expected, PRINTED);
    assert_close([kl(&best, &f.nu).unwrap()], [0.363232406], PRINTED);
    let sharp = bandit_optimum(Divergence::Kl, &f.nu, &f.proxy, 0.25).unwrap();
    assert_close([sharp.mean(&f.gold), sharp.mean(&f.proxy)], [0.823182416, 1.878699196], PRINTED);
    // Rewards far apart, or far from 0, overflow nothing.
    let far = bandit_optimum(Divergence::Kl, &f.nu, &[1e6, 1e6 - 1.0, 0.0, -1e6, 1e6], 1e-3).unwrap();
    assert_close(far.cells(), [0.4, 0.0, 0.0, 0.0, 0.6], 1e-12);
}

#[test]
fn bandits_under_the_root_of_chi_squared_jump_off_the_reference() {
    let f = five();
    let sigma = f.nu.deviation(&f.proxy);
    let best = |lambda| bandit_optimum(Divergence::SqrtChiSquared, &f.nu, &f.proxy, lambda).unwrap();
    assert_eq!(best(1.106753), f.nu, "from the deviation on, the reference, to the last bit");
    assert_eq!(best(100.0), f.nu);
    let just_below = best(sigma * (1.0 - 1e-9));
    assert!(l1(&just_below, &f.nu) > 0.3 && just_below.cells()[3] < 1e-7, "{just_below:?}");
    // Printed to 1e-5.
    let near = best(1.1);
    assert_close(near.cells(), [0.141941291, 0.068683629, 0.490383561, 0.0, 0.298991519], 1e-5);
    assert_close([near.mean(&f.proxy)], [1.483282839], 1e-5);
    let lambda = Correlation::under(&f.nu, &f.proxy, &f.gold).unwrap().lambda_star().unwrap();
    let star = best(lambda);
    assert_close(star.cells(), [0.122768637, 0.0, 0.507494124, 0.0, 0.369737239], 1e-5);
    let chi2 = chi_squared(&star, &f.nu).unwrap();
    assert_close([star.mean(&f.gold), chi2], [1.322625505, 0.920593174], 1e-5);
    assert_close([star.mean(&f.proxy) - lambda * chi2.sqrt()], [1.052776515], 1e-5);
}

#[test]
fn a_bandit_without_reference_mass_on_the_best_response_never_takes_it() {
    let nu = occupancy(&[0.5, 0.5, 0.0]);
    for divergence in [Divergence::Kl, Divergence::ChiSquared, Divergence::SqrtChiSquared] {
        let best = bandit_optimum(divergence, &nu, &[0.0, 1.0, 1e9], 0.1).unwrap();
        assert_eq!(best.cells()[2], 0.0, "{divergence:?}");
        assert!(best.cells()[1] > 0.9, "{divergence:?}");
    }
}

#[test]
fn one_step_worlds_and_bandits_have_the_same_optima() {
    let f = five();
    let mdp = Mdp::one_step(&[1.0], 5).unwrap();
    let reference = TabularPolicy::new(&[f.nu.cells().to_vec()]).unwrap();
    // With one step and one state, every change of occupancy is a policy's: the threshold is σ.
    let threshold = leaving_threshold(&mdp, &f.proxy, &reference).unwrap();
    assert_close([threshold], [1.106752005], PRINTED);
    for divergence in [Divergence::Kl, Divergence::ChiSquared, Divergence::SqrtChiSquared] {
        for lambda in [0.1, 0.5, 1.0, 1.1, 3.0] {
            let closed = bandit_optimum(divergence, &f.nu, &f.proxy, lambda).unwrap();
            let program = occupancy_optimum(&mdp, &f.proxy, &reference, divergence, lambda).unwrap();
            // χ² is flat at its optimum: a gap of 1e-12 leaves 1e-6 in the cells.
            assert_close(program.occupancy.cells(), closed.cells(), 1e-6);
            assert!(program.score.duality_gap < 1e-10, "{divergence:?} {lambda}: {:?}", program.score);
        }
    }
}

#[test]
fn the_divergence_of_prompts_is_averaged_before_the_root() {
    let mdp = Mdp::one_step(&[0.6, 0.4], 3).unwrap();
    let reference = TabularPolicy::new(&[vec![0.5, 0.3, 0.2], vec![0.1, 0.6, 0.3]]).unwrap();
    let policy = TabularPolicy::new(&[vec![0.4, 0.4, 0.2], vec![0.3, 0.4, 0.3]]).unwrap();
    let (mu, nu) = (mdp.occupancy(&policy), mdp.occupancy(&reference));
    let parts: Vec<f64> = (0..2)
        .map(|s| chi_squared(&occupancy(policy.row(s)), &occupancy(reference.row(s))).unwrap())
        .collect();
    assert_close(&parts, [0.053333333, 0.466666667], PRINTED);
    let joint = chi_squared(&mu, &nu).unwrap();
    let mean = Divergence::ChiSquared.of_actions(&mdp, &policy, &reference).unwrap();
    assert_close([joint, mean], [0.218666667; 2], PRINTED);
    let roots = [
        Divergence::SqrtChiSquared.between(&mu, &nu).unwrap(),
        Divergence::SqrtChiSquared.of_actions(&mdp, &policy, &reference).unwrap(),
    ];
    assert_close(roots, [0.467618078, 0.411816085], PRINTED);
}

#[test]
fn chi_squared_of_sequences_grows_exponentially() {
    let token = chi_squared(&occupancy(&[0.7, 0.3]), &occupancy(&[0.5, 0.5])).unwrap();
    let grown: Vec<f64> = [1, 2, 32].map(|n| chi_squared_of_product(vec![token; n])).to_vec();
    assert_close(grown, [0.16, 0.3456, 114.519594368], PRINTED);
    // Two tokens written out: the outer product.
    let outer = |p: [f64; 2]| occupancy(&[p[0] * p[0], p[0] * p[1], p[1] * p[0], p[1] * p[1]]);
    assert_close([chi_squared(&outer([0.7, 0.3]), &outer([0.5, 0.5])).unwrap()], [0.3456], 1e-14);
}

#[test]
fn continuous_distributions_in_closed_form() {
    assert_close(
        [gaussian_chi_squared((1.0, 1.0), (0.0, 1.0)), gaussian_chi_squared((0.5, 0.8), (0.0, 1.0))],
        [1.718281828, 0.288172736],
        PRINTED,
    );
    assert_close(
        [beta_chi_squared((3.0, 2.0), (2.0, 2.0)), beta_chi_squared((2.0, 2.0), (1.0, 1.0))],
        [0.2, 0.2],
        1e-12,
    );
    assert_close(
        [gaussian_chi_squared((3.0, 2.0), (3.0, 2.0)), beta_chi_squared((0.4, 7.0), (0.4, 7.0))],
        [0.0; 2],
        1e-13,
    );
    assert_eq!(gaussian_chi_squared((0.0, 1.5), (0.0, 1.0)), f64::INFINITY);
    assert_eq!(gaussian_chi_squared((0.0, 2f64.sqrt()), (0.0, 1.0)), f64::INFINITY);
    assert_eq!(beta_chi_squared((1.0, 1.0), (3.0, 1.0)), f64::INFINITY);
    // The integral, by the midpoint rule over ±12.
    let density =
        |x: f64, m: f64, s: f64| (-0.5 * ((x - m) / s).powi(2)).exp() / (s * std::f64::consts::TAU.sqrt());
    let n = 100_000;
    let width = 24.0 / f64::from(n);
    let integral: f64 = (0..n)
        .map(|i| {
            let x = (f64::from(i) + 0.5) * width - 12.0;
            density(x, -0.3, 0.9).powi(2) / density(x, 0.4, 1.1) * width
        })
        .sum();
    assert_close([gaussian_chi_squared((-0.3, 0.9), (0.4, 1.1))], [integral - 1.0], 1e-9);
}

#[test]
fn trimming_tames_one_outlier_and_never_trims_everything() {
    let mut d: Vec<f64> = (0..199).map(|i| -1.0 + 2.0 * f64::from(i) / 198.0).collect();
    d.push(6.0);
    assert_close([trimmed_chi_squared(&d, 0.0).unwrap()], [2.188318445], PRINTED);
    let trimmed = trimmed_chi_squared(&d, 0.01).unwrap();
    assert_close([trimmed], [0.177434285], PRINTED);
    assert_close([Penalty::SqrtChiSquared.of(6.0, 0.3, trimmed)], [286.610126296], PRINTED);
    // int(0.01 · 50) = 0: nothing is trimmed, and something is left.
    let few = &d[..50];
    assert_eq!(trimmed_chi_squared(few, 0.01).unwrap(), trimmed_chi_squared(few, 0.0).unwrap());
    // 0.01 · 2900 is 28.999… in binary: 29 from either end.
    let many: Vec<f64> = (0..2900).map(|i| f64::from(u8::from(i < 29)) * 1e6).collect();
    assert_eq!(trimmed_mean(&many, 0.01).unwrap(), 0.0);
    assert_eq!(trimmed_mean(&[3.0], 0.4).unwrap(), 3.0);
    assert_eq!(trimmed_mean(&[1.0, 2.0, 90.0], 0.499).unwrap(), 2.0);
}

#[test]
fn fishers_interval() {
    let interval = fisher_interval(0.8, 50, 1.959963984540054).unwrap();
    assert_close([interval.lower, interval.upper], [0.671089200, 0.881955482], PRINTED);
    // λ*/σ = √(1 − r²).
    let weight = |r: f64| (1.0 - r * r).sqrt();
    let at = [weight(0.8), weight(interval.lower), weight(interval.upper)];
    assert_close(at, [0.6, 0.741376616, 0.471332715], PRINTED);
    let certain = fisher_interval(1.0, 5, 1.96).unwrap();
    assert_eq!((certain.lower, certain.upper), (1.0, 1.0));
}

#[test]
fn pairs_of_samples_correlate_as_their_frequencies() {
    let f = five();
    // ν in twentieths.
    let times = [2, 4, 6, 5, 3];
    let spread = |reward: &[f64]| -> Vec<f64> {
        reward.iter().zip(times).flat_map(|(r, n)| std::iter::repeat_n(*r, n)).collect()
    };
    let sampled = Correlation::of_pairs(&spread(&f.proxy), &spread(&f.gold)).unwrap();
    let exact = Correlation::under(&f.nu, &f.proxy, &f.gold).unwrap();
    assert_close([sampled.r, sampled.proxy_deviation], [exact.r, exact.proxy_deviation], 1e-14);
    assert_close([effective_sample_size(0.25)], [0.8], 0.0);
}

#[test]
fn counts_know_what_they_have_not_seen() {
    let seen = PlugIn::from_counts(&[5, 3, 2], &[50, 50, 0]).unwrap();
    assert_close([seen.unseen_mass, seen.chi_squared], [0.2, 0.04 / 0.5], 1e-14);
    assert_eq!(seen.bounds(0.8, 0.1).unwrap(), None);
    let seen = PlugIn::from_counts(&[6, 4], &[50, 50]).unwrap();
    assert_close([seen.upward_bias], [0.1 + 0.01], 1e-15);
    let (a, b) = seen.bounds(0.8, 0.1).unwrap().unwrap();
    // χ² = 0.04: (0.1 − 0.6·0.2)/0.8 and 0.8·0.1 − 0.6·√0.03.
    assert_close([a, b], [-0.025, 0.08 - 0.6 * 0.03f64.sqrt()], 1e-14);
}

#[test]
fn planning_agrees_with_value_iteration() {
    let mdp = two_state(0.9).unwrap();
    let reward = [1.0, 3.0, 0.0, 0.25];
    let plan = optimal_policy(&mdp, &reward).unwrap();
    // Stay: 1/(1 − γ) = 10; leave: 3 + 0.9·2.5 = 5.25.
    assert_close(&plan.values, [10.0, 2.5], 1e-12);
    assert_close(plan.policy.probabilities(), [1.0, 0.0, 0.0, 1.0], 0.0);
    assert_close(value_iteration(&mdp, &reward, 1e-13).unwrap(), plan.values, 1e-11); // 1e-13·γ/(1 − γ)
}

#[test]
fn ties_are_broken_towards_the_reference() {
    // Both actions lead nowhere else and pay the same: nothing to choose but the reference's own mixture.
    let mdp = Mdp::deterministic(&[1.0], &[vec![0, 0, 0]], 0.9).unwrap();
    let reference = TabularPolicy::new(&[vec![0.2, 0.3, 0.5]]).unwrap();
    let nearest = nearest_optimal_policy(&mdp, &[1.0, 1.0, 0.0], &reference).unwrap();
    assert_close(nearest.probabilities(), [0.4, 0.6, 0.0], 1e-14);
}
