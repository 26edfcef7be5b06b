//! Ensembles and best-of-n: the numeric cases T1 to T4, T6, T7, T10, T13 and T14 of the method's description, and laws.

use align_core::number::NonNegative;
use align_core::{Completions, Reward, RewardFn};
use align_reward::best_of_n::{Ranking, kl, win_rate};
use align_reward::overoptimization::{Band, Fit, Form, correlation, drop};
use align_reward::{Aggregate, Divisor, Ensemble, MemberScores, ReferenceScores, RewardError};
use align_testkit::device;
use burn::Tensor;
use proptest::prelude::*;

/// The values have nine digits.
fn close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() < 1e-8, "{index}: {found} and {expected}");
    }
}

fn members() -> MemberScores {
    MemberScores::new(vec![vec![1.0, -0.5, 2.0, 0.25], vec![0.4, 0.1, 1.0, -0.75], vec![1.6, -0.2, 3.6, 0.5]])
        .unwrap()
}

#[test]
fn three_members_are_aggregated_as_computed_by_hand() {
    let of = |aggregate: Aggregate| members().aggregate(&aggregate);
    close(&of(Aggregate::Mean {}), &[1.0, -0.2, 2.2, 0.0]);
    close(&of(Aggregate::WorstCase {}), &[0.4, -0.5, 1.0, -0.75]);
    close(&of(Aggregate::uncertainty_weighted(0.5)), &[0.88, -0.23, 1.626666667, -0.145833333]);
    close(&of(Aggregate::uncertainty_weighted(0.1)), &[0.976, -0.206, 2.085333333, -0.029166667]);
    close(&of(Aggregate::uncertainty_weighted(2.0)), &[0.52, -0.32, -0.093333333, -0.583333333]);
    let sample = Aggregate::UncertaintyWeighted {
        lambda: NonNegative::literal(0.5),
        divisor: Divisor::MembersLessOne,
    };
    close(&of(sample), &[0.82, -0.245, 1.34, -0.21875]);
    assert_eq!(
        of(Aggregate::uncertainty_weighted(0.0)),
        of(Aggregate::Mean {}),
        "λ = 0 is the mean, bit for bit"
    );
    let found = members().disagreement(&Aggregate::Mean {});
    close(
        &[found.aggregate, found.mean, found.min, found.variance],
        &[0.75, 0.75, 0.0375, (0.24 + 0.06 + 1.146666667 + 0.291666667) / 4.0],
    );
    close(&found.worst, &[0.25, 0.75, 0.0]);
}

#[test]
fn the_divergence_of_best_of_n_is_the_formula_s() {
    for (n, expected) in [
        (1, 0.0),
        (2, 0.193147181),
        (4, 0.636294361),
        (8, 1.204441542),
        (16, 1.835088722),
        (64, 3.174508083),
        (128, 3.859842764),
        (1000, 5.908755279),
        (12500, 8.433563923),
        (60000, 10.002116508),
    ] {
        close(&[kl(n)], &[expected]);
    }
}

const PROXY: [f64; 6] = [0.3, -1.2, 2.5, 0.9, 1.7, -0.4];
const GOLD: [f64; 6] = [0.1, -0.8, -2.0, 1.1, 0.6, 0.0];

#[test]
fn the_estimator_gives_the_values_computed_by_hand() {
    let ranking = Ranking::new(&PROXY).unwrap();
    close(&ranking.curve(&GOLD), &[-0.166666667, -0.273333333, -0.65, -1.1, -1.566666667, -2.0]);
    close(&ranking.curve(&PROXY), &[0.633333333, 1.48, 1.91, 2.18, 2.366666667, 2.5]);
    // By ascending proxy: 0, 0, 0.05, 0.15, 0.3, 0.5.
    close(&ranking.chances(3).unwrap(), &[0.05, 0.0, 0.5, 0.15, 0.3, 0.0]);
    let many = Ranking::new(&(0..12_600).map(f64::from).collect::<Vec<_>>()).unwrap();
    let top = |n| many.chances(n).unwrap().into_iter().rev().take(3).collect::<Vec<_>>();
    close(&top(12_500)[..2], &[0.992063492, 0.007874145]);
    close(&top(1024), &[0.081269841, 0.074670980, 0.068607446]);
}

#[test]
fn tied_scores_share_the_win() {
    let ranking = Ranking::new(&[1.0, 1.0, 0.0, 2.0]).unwrap();
    close(&ranking.curve(&[3.0, -1.0, 0.5, 1.0]), &[0.875, 1.0, 1.0, 1.0]);
    assert_eq!(ranking.tied_share(), 0.5);
}

#[test]
fn the_win_rate_is_the_double_sum() {
    let [a, b] = [[0.2, 1.5, 0.7], [1.0, 0.1, 0.4]].map(|proxy| Ranking::new(&proxy).unwrap());
    let rates: Vec<f64> = (1..=3).map(|n| win_rate(&a, &b, &[0.0, 1.0, 2.0], n).unwrap()).collect();
    close(&rates, &[0.5, 0.722222222, 1.0]);
}

#[test]
fn scores_are_normalised_as_computed_by_hand() {
    let scores = [2.0, -1.0, 0.5, 3.5, 1.0];
    let measured = ReferenceScores::from_scores(&scores, "five numbers").unwrap();
    close(
        &[measured.mean, measured.sample_deviation(), measured.deviation],
        &[1.2, 1.680773631, 1.503329638],
    );
    let normalised = scores.map(|score| (score - measured.mean) / measured.sample_deviation());
    close(&normalised, &[0.475971294, -1.308921058, -0.416474882, 1.368417470, -0.118992823]);
}

#[test]
fn the_forms_peak_and_fit_where_they_should() {
    let of = |form, alpha, beta| Fit { form, alpha, beta };
    let best = of(Form::BestOfN, 0.9, 0.12);
    close(&[best.peak(), best.at(best.peak())], &[3.75, 1.6875]);
    let learnt = of(Form::Reinforcement, 1.1, 0.45);
    close(
        &[learnt.peak(), learnt.peak().powi(2), learnt.at(learnt.peak()), learnt.at(11.524145517)],
        &[4.239496213, 17.973328138, 1.907773296, 0.0],
    );
    let points: Vec<(f64, f64)> = [2, 4, 16, 64, 256, 1024]
        .into_iter()
        .map(|n| kl(n).sqrt())
        .zip([0.35, 0.62, 0.98, 1.15, 1.20, 1.18])
        .collect();
    let fit = Form::BestOfN.fit(&points).unwrap();
    close(
        &[fit.alpha, fit.beta, fit.peak(), fit.residual(&points)],
        &[0.975065195, 0.196287577, 2.483766957, 0.005492435],
    );
    let fit = Form::Reinforcement.fit(&points).unwrap();
    close(&[fit.alpha, fit.beta], &[0.761697243, 0.274890879]);
    assert_eq!(Form::BestOfN.fit(&points[..1]), None);
}

/// All sets of n of N answers, each with its winner; ties go half and half by averaging over the winners.
fn enumerated(proxy: &[f64], gold: &[f64], n: usize) -> f64 {
    let (mut sum, mut sets) = (0.0, 0.0);
    for set in 0_u32..1 << proxy.len() {
        let members: Vec<usize> = (0..proxy.len()).filter(|answer| set >> answer & 1 == 1).collect();
        if members.len() == n {
            let best = members.iter().map(|&answer| proxy[answer]).fold(f64::NEG_INFINITY, f64::max);
            let winners: Vec<f64> =
                members.iter().filter(|&&answer| proxy[answer] == best).map(|&answer| gold[answer]).collect();
            sum += winners.iter().sum::<f64>() / winners.len() as f64;
            sets += 1.0;
        }
    }
    sum / sets
}

proptest! {
    #[test]
    fn the_estimator_is_the_mean_over_all_sets(
        answers in prop::collection::vec((0_i8..6, -3.0_f64..3.0), 1..9),
    ) {
        // Few distinct proxy scores, so that ties are common.
        let proxy: Vec<f64> = answers.iter().map(|(proxy, _)| f64::from(*proxy)).collect();
        let gold: Vec<f64> = answers.iter().map(|(_, gold)| *gold).collect();
        let curve = Ranking::new(&proxy).unwrap().curve(&gold);
        for (at, found) in curve.iter().enumerate() {
            let expected = enumerated(&proxy, &gold, at + 1);
            prop_assert!((found - expected).abs() < 1e-9, "n = {}: {found} and {expected}", at + 1);
        }
    }

    #[test]
    fn conservative_scores_lie_below_the_mean_and_order_of_members_is_nothing(
        scores in prop::collection::vec(-5.0_f64..5.0, 1..7),
        lambda in 0.0_f64..3.0,
        shift in -4.0_f64..4.0,
    ) {
        let mean = Aggregate::Mean {}.of(&scores);
        let turned: Vec<f64> = scores.iter().rev().copied().collect();
        let doubled = [&scores[..], &scores].concat();
        let shifted: Vec<f64> = scores.iter().map(|score| score + shift).collect();
        for aggregate in [Aggregate::Mean {}, Aggregate::WorstCase {}, Aggregate::uncertainty_weighted(lambda)] {
            let found = aggregate.of(&scores);
            prop_assert!(found <= mean + 1e-12);
            prop_assert!((aggregate.of(&turned) - found).abs() < 1e-12);
            prop_assert!((aggregate.of(&doubled) - found).abs() < 1e-12);
            prop_assert!((aggregate.of(&shifted) - found - shift).abs() < 1e-12);
            prop_assert_eq!(aggregate.of(&[scores[0]; 5]), scores[0], "copies of one member are that member");
            prop_assert_eq!(aggregate.of(&scores[..1]), scores[0]);
        }
    }

    #[test]
    fn chances_sum_to_one_and_a_proxy_never_falls(
        proxy in prop::collection::vec(-3.0_f64..3.0, 1..200),
        n in 1_usize..200,
    ) {
        let ranking = Ranking::new(&proxy).unwrap();
        if n <= proxy.len() {
            let sum: f64 = ranking.chances(n).unwrap().iter().sum();
            prop_assert!((sum - 1.0).abs() < 1e-12);
        }
        let curve = ranking.curve(&proxy);
        prop_assert!(curve.windows(2).all(|pair| pair[1] >= pair[0] - 1e-12));
        prop_assert_eq!(drop(&curve) < 1e-12, true);
    }
}

#[test]
fn regression_to_the_mean_alone_makes_no_curve_fall() {
    // Gold is normal, each member adds noise of the same size: the best of 16 by one member is worth m₁₆/√2, by the mean of
    // five m₁₆/√1.2. 3000 prompts of 64 answers; the standard error of the mean over prompts is measured, the bound is four
    // of them, so a right estimator fails once in 16 000 runs of other seeds.
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    let mut generator = StdRng::seed_from_u64(11);
    let mut normal = || {
        let (u, v): (f64, f64) = (generator.random(), generator.random());
        (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    };
    let (mut single, mut five) = (Vec::new(), Vec::new());
    for _ in 0..3000 {
        let gold: Vec<f64> = (0..64).map(|_| normal()).collect();
        let members: Vec<Vec<f64>> =
            (0..5).map(|_| gold.iter().map(|gold| gold + normal()).collect()).collect();
        let at_16 = |proxy: &[f64]| Ranking::new(proxy).unwrap().at(&gold, 16).unwrap();
        single.push(at_16(&members[0]));
        five.push(at_16(&MemberScores::new(members).unwrap().aggregate(&Aggregate::Mean {})));
    }
    for (found, expected) in [(single, 1.248744490), (five, 1.612122204)] {
        let band = Band::of(&found);
        // The band is 1.96 standard errors wide on each side.
        let error = (band.high - band.mean) / 1.96;
        assert!((band.mean - expected).abs() < 4.0 * error, "{} ± {error} and {expected}", band.mean);
    }
}

#[test]
fn what_an_ensemble_cannot_be_is_refused() {
    let message = |error: RewardError| error.to_string();
    let empty = Ensemble::<Vec<Box<dyn Reward>>>::new(Vec::new(), Aggregate::Mean {}).err().unwrap();
    assert_eq!(message(empty), "an ensemble without members, expected at least one");
    let ragged = MemberScores::new(vec![vec![1.0, 2.0], vec![1.0]]).unwrap_err();
    assert_eq!(message(ragged), "member 1 scored 1 rows, expected 2 as of member 0");
    let broken = MemberScores::new(vec![vec![1.0], vec![f64::NAN]]).unwrap_err();
    assert_eq!(message(broken), "the score of row 0 by member 1 is NaN, expected a finite number");
    for n in [0, 7] {
        let error = Ranking::new(&PROXY).unwrap().at(&GOLD, n).unwrap_err();
        assert_eq!(
            message(error),
            format!("best of {n}, expected n from 1 to 6, the number of answers to a prompt")
        );
    }
    assert!(serde_json::from_str::<Aggregate>(r#"{"kind":"uwo","lambda":-0.5}"#).is_err(), "λ < 0");
    assert!(
        serde_json::from_str::<Aggregate>(r#"{"kind":"wco","lambda":0.5}"#).is_err(),
        "WCO takes nothing"
    );
    assert_eq!(correlation(&[1.0, 1.0], &[0.0, 2.0]), None, "a constant correlates with nothing");
}

#[test]
fn an_ensemble_scores_batches_and_remembers_how_far_its_members_were_apart() {
    let by_token = |factor: f64| {
        RewardFn(move |completions: &Completions| {
            let last: Vec<f32> =
                completions.response.rows().iter().map(|row| (factor * f64::from(row[0])) as f32).collect();
            Tensor::from_floats(last.as_slice(), &device())
        })
    };
    let ensemble =
        Ensemble::new(vec![by_token(1.0), by_token(-1.0)], Aggregate::uncertainty_weighted(0.5)).unwrap();
    let completions = Completions::from_rows(&[vec![1], vec![1]], &[vec![2], vec![0]], &device());
    let scores: Vec<f32> = ensemble.score(&completions).to_data().iter().collect();
    assert_eq!(scores, [-2.0, 0.0]);
    let found = ensemble.take_disagreement().unwrap();
    assert_eq!((found.rows, found.variance, found.min), (2, 2.0, -1.0));
    assert_eq!(found.worst, [0.25, 0.75], "an equal score is shared");
    assert_eq!(ensemble.take_disagreement(), None);

    let broken = RewardFn(|_: &Completions| Tensor::from_floats([f32::NAN, 1.0], &device()));
    let members: Vec<Box<dyn Reward>> = vec![Box::new(by_token(1.0)), Box::new(broken)];
    let ensemble = Ensemble::new(members, Aggregate::WorstCase {}).unwrap();
    let scores: Vec<f32> = ensemble.score(&completions).to_data().iter().collect();
    assert!(scores[0].is_nan() && scores[1] == 0.0, "a minimum does not pass NaN over");
}
