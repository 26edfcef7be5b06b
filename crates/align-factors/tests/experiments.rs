//! What guidance does on a survey whose reasons are known: agreement and accuracy, right and wrong knowledge, knowledge from a
//! pool, and what keeps it stable.
//!
//! The ignored test prints every figure over all seeds (`cargo test -p align-factors --test experiments -- --ignored
//! --nocapture`, six minutes); the others check the same claims on fewer. The survey, its sizes and the criteria are ours, not
//! those of arXiv 2402.12398.

use align_core::draws::{Draws, Purpose};
use align_core::number::{NonNegative, Positive, UnitInterval};
use align_factors::attribution::{Attributions, Baseline, Method, explain, importances};
use align_factors::guide::{FitConfig, Guide, GuideConfig, PoolModel, fit};
use align_factors::{
    Activation, Design, Divergence, ImportanceDistribution, Margins, Matrix, Mlp, Net, Normalization,
    OrdinalMetrics, Pooling, RidgeConfig, Scorer, StumpsConfig, Survey, SurveyConfig, Test, Train,
    Validation, kendall_tau_b, pooled, share_above, top_k_overlap,
};
use align_testkit::device;
use rand::seq::SliceRandom;
use rayon::prelude::*;

const ROWS: usize = 200;

/// Four pairs of orders: little noise in what is reported.
const REPORT: Method = Method::Permutation { pairs: 4, seed: 0 };

fn survey() -> Survey {
    Survey::new(SurveyConfig::default()).unwrap()
}

/// One training of the perceptron with 32 hidden units.
#[derive(Clone)]
struct Case {
    l2: f64,
    knowledge: ImportanceDistribution,
    lambda: f64,
    learning_rate: f64,
    warmup: f64,
    clip: f64,
}

impl Case {
    fn unguided(l2: f64) -> Self {
        let knowledge = survey().true_distribution();
        Self { l2, knowledge, lambda: 0.0, learning_rate: 5e-3, warmup: 0.2, clip: 1.0 }
    }

    fn guided(l2: f64, lambda: f64) -> Self {
        Self { lambda, ..Self::unguided(l2) }
    }

    fn network(&self, train: &Design, seed: u64) -> Net<Mlp> {
        let config = FitConfig {
            l2: NonNegative::literal(self.l2),
            learning_rate: Positive::literal(self.learning_rate),
            max_grad_norm: NonNegative::literal(self.clip),
            seed,
            ..FitConfig::default()
        };
        let center = train.labels.iter().sum::<f64>() / train.len() as f64;
        let network = Mlp::new(train.rows.width(), &[32], Activation::Tanh, center, seed, &device());
        let guide = Guide {
            config: GuideConfig {
                lambda: self.lambda,
                warmup: UnitInterval::literal(self.warmup),
                ..GuideConfig::default()
            },
            knowledge: self.knowledge.clone(),
        };
        Net::new(&fit(network, train, None, &config, Some(&guide)).unwrap().network)
    }

    /// Test error, accuracy, and how far the reasons are from the true ones.
    fn run(&self, seed: u64) -> Outcome {
        let survey = survey();
        let (train, test) = (survey.draw::<Train>(ROWS, seed), survey.draw::<Test>(3000, seed));
        let network = self.network(&train, seed);
        let metrics = OrdinalMetrics::of(survey.grid(), &test.labels, &network.scores(&test.rows)).unwrap();
        let probe = test.rows.select(&(0..300).collect::<Vec<_>>());
        let attributions = explained(&network, &probe, &train, REPORT);
        let p = ImportanceDistribution::of(&importances(&attributions), Normalization::Ratio).unwrap();
        Outcome {
            mse: metrics.mse,
            accuracy: metrics.accuracy,
            kl: Divergence::Forward.reported(&survey.true_distribution(), &p),
            tau: kendall_tau_b(&p, &survey.true_importances()).unwrap(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Outcome {
    mse: f64,
    accuracy: f64,
    kl: f64,
    tau: f64,
}

fn explained<S: Scorer>(model: &S, probe: &Matrix, train: &Design, method: Method) -> Attributions {
    explain(model, probe, &train.factors, &Baseline::mean(&train.rows), method).unwrap()
}

/// All cases with all seeds, side by side.
fn run_all(cases: &[Case], seeds: u64) -> Vec<Vec<Outcome>> {
    let jobs: Vec<(usize, u64)> =
        (0..cases.len()).flat_map(|case| (0..seeds).map(move |seed| (case, seed))).collect();
    let outcomes: Vec<Outcome> = jobs.par_iter().map(|&(case, seed)| cases[case].run(seed)).collect();
    outcomes.chunks(seeds as usize).map(<[Outcome]>::to_vec).collect()
}

fn mean(outcomes: &[Outcome], of: impl Fn(&Outcome) -> f64) -> f64 {
    outcomes.iter().map(of).sum::<f64>() / outcomes.len() as f64
}

fn mse(outcomes: &[Outcome]) -> f64 {
    mean(outcomes, |outcome| outcome.mse)
}

fn kl(outcomes: &[Outcome]) -> f64 {
    mean(outcomes, |outcome| outcome.kl)
}

fn tau(outcomes: &[Outcome]) -> f64 {
    mean(outcomes, |outcome| outcome.tau)
}

/// The standard deviation over seeds.
fn deviation(outcomes: &[Outcome]) -> f64 {
    let mean = mse(outcomes);
    let squares: f64 = outcomes.iter().map(|outcome| (outcome.mse - mean).powi(2)).sum();
    (squares / (outcomes.len() - 1) as f64).sqrt()
}

/// In how many seeds the first is better than the second.
fn wins(first: &[Outcome], second: &[Outcome]) -> usize {
    first.iter().zip(second).filter(|(first, second)| first.mse < second.mse).count()
}

/// Knowledge of the right masses at the wrong factors.
fn permuted(q: &ImportanceDistribution) -> ImportanceDistribution {
    let mut masses = q.to_vec();
    masses.shuffle(&mut Draws::new(3).generator(Purpose::Shuffle, 0));
    ImportanceDistribution::new(masses).unwrap()
}

/// Knowledge from the same 200 rows: the mean of what ridge, stumps and ridge with pairs say.
fn consensus_of(train: &Design) -> ImportanceDistribution {
    let said = pool().map(|model| {
        let model = model.fit(train).unwrap();
        let attributions = explained(&model, &train.rows, train, Method::default());
        ImportanceDistribution::of(&importances(&attributions), Normalization::Ratio).unwrap()
    });
    pooled(&said, &[1.0 / 3.0; 3], Pooling::Arithmetic).unwrap()
}

fn pool() -> [PoolModel; 3] {
    [
        PoolModel::Ridge(RidgeConfig::default()),
        PoolModel::BoostedStumps(StumpsConfig::default()),
        PoolModel::Ridge(RidgeConfig::pairs()),
    ]
}

/// How four models of the same rows agree.
struct Agreed {
    tau: f64,
    above: f64,
    overlap: f64,
    certified: f64,
    broken: usize,
}

/// Ridge, stumps, ridge with pairs and the perceptron, each explained on 300 rows that none was fitted on.
fn agreement(rows: usize, seed: u64) -> Agreed {
    let survey = survey();
    let train = survey.draw::<Train>(rows, seed);
    let probe = survey.draw::<Validation>(300, seed).rows;
    let network = Case::unguided(0.03).network(&train, seed);
    let mut attributions = vec![explained(&network, &probe, &train, REPORT)];
    for model in pool() {
        attributions.push(explained(&model.fit(&train).unwrap(), &probe, &train, Method::default()));
    }
    let said: Vec<Vec<f64>> = attributions.iter().map(importances).collect();
    let primaries: Vec<usize> = survey.primaries().collect();
    let mut agreed = Agreed { tau: 0.0, above: 0.0, overlap: 0.0, certified: 0.0, broken: 0 };
    let pairs: Vec<(usize, usize)> = (0..4).flat_map(|a| (a + 1..4).map(move |b| (a, b))).collect();
    for &(a, b) in &pairs {
        agreed.tau += kendall_tau_b(&said[a], &said[b]).unwrap() / pairs.len() as f64;
        agreed.overlap += top_k_overlap(&said[a], &said[b], 4) / pairs.len() as f64;
        let margins = Margins::between(&attributions[a].values, &attributions[b].values);
        let certified = margins.certified();
        agreed.certified += certified.len() as f64 / (66 * pairs.len()) as f64;
        agreed.broken +=
            certified.iter().filter(|pair| said[b][pair.primary] <= said[b][pair.secondary]).count();
    }
    agreed.above = said.iter().map(|said| share_above(said, &primaries)).sum::<f64>() / 4.0;
    agreed
}

fn agreements(rows: usize, seeds: u64) -> Agreed {
    let all: Vec<Agreed> = (0..seeds).into_par_iter().map(|seed| agreement(rows, seed)).collect();
    let mean = |of: fn(&Agreed) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
    Agreed {
        tau: mean(|agreed| agreed.tau),
        above: mean(|agreed| agreed.above),
        overlap: mean(|agreed| agreed.overlap),
        certified: mean(|agreed| agreed.certified),
        broken: all.iter().map(|agreed| agreed.broken).sum(),
    }
}

/// L2 1e-4, guided by what other models say of the same rows.
fn by_consensus(lambda: f64, seeds: u64) -> Vec<Outcome> {
    let run = |seed| {
        let knowledge = consensus_of(&survey().draw::<Train>(ROWS, seed));
        Case { knowledge, ..Case::guided(1e-4, lambda) }.run(seed)
    };
    (0..seeds).into_par_iter().map(run).collect()
}

#[test]
fn models_agree_more_the_more_rows_they_have_seen() {
    let (few, many) = (agreements(100, 3), agreements(1600, 3));
    assert!(many.tau > few.tau + 0.12, "{} and {}", many.tau, few.tau);
    assert_eq!(many.above, 1.0, "every model puts every primary factor above all others");
    assert_eq!(
        few.broken + many.broken,
        0,
        "a certified pair is ordered alike by the two models that certify it"
    );
    assert!(many.certified > few.certified);
}

#[test]
fn right_knowledge_helps_and_wrong_knowledge_hurts() {
    let q = survey().true_distribution();
    let seeds = 2;
    for l2 in [0.03, 0.1] {
        let wrong = Case { knowledge: permuted(&q), ..Case::guided(l2, 1.0) };
        let outcomes = run_all(&[Case::unguided(l2), Case::guided(l2, 1.0), wrong], seeds);
        let [none, right, wrong] = [&outcomes[0], &outcomes[1], &outcomes[2]];
        assert_eq!(wins(right, none), seeds as usize, "{right:?} {none:?}");
        assert_eq!(wins(none, wrong), seeds as usize, "{none:?} {wrong:?}");
        assert!(kl(right) < 0.5 * kl(none), "{} and {}", kl(right), kl(none));
    }
}

#[test]
fn what_other_models_say_of_the_same_rows_helps() {
    let (none, guided) = (by_consensus(0.0, 2), by_consensus(3.0, 2));
    assert!(mse(&guided) < 0.9 * mse(&none), "{} and {}", mse(&guided), mse(&none));
    assert!(tau(&guided) >= tau(&none), "{} and {}", tau(&guided), tau(&none));
}

#[test]
fn warm_up_and_clipping_keep_guidance_of_free_networks_stable() {
    let outcomes = run_all(&[Case::guided(1e-4, 1.0)], 3);
    assert!(deviation(&outcomes[0]) < 0.15, "{:?}", outcomes[0]);
}

#[test]
#[ignore = "all figures, six minutes on two cores"]
fn every_figure() {
    println!("agreement of four models, 4 seeds");
    println!("{:>6} {:>7} {:>7} {:>7} {:>9} {:>6}", "rows", "tau", "above", "top 4", "certified", "broken");
    let all = [100, 400, 1600, 6400].map(|rows| (rows, agreements(rows, 4)));
    for (rows, Agreed { tau, above, overlap, certified, broken }) in &all {
        println!("{rows:>6} {tau:>7.3} {above:>7.3} {overlap:>7.3} {certified:>9.3} {broken:>6}");
        assert_eq!(*broken, 0);
    }
    assert!(all[2].1.tau > all[0].1.tau + 0.12);

    println!("right knowledge, 5 seeds");
    println!(
        "{:>6} {:>6} {:>7} {:>8} {:>7} {:>7} {:>7}  wins",
        "l2", "lambda", "mse", "accuracy", "kl", "tau", "sd"
    );
    // The least error without guidance, and with it.
    let (mut unguided, mut guided) = (f64::INFINITY, f64::INFINITY);
    for l2 in [1e-4, 0.01, 0.03, 0.1, 0.3] {
        let cases = [0.0, 0.3, 1.0, 3.0].map(|lambda| Case::guided(l2, lambda));
        let outcomes = run_all(&cases, 5);
        for (case, runs) in cases.iter().zip(&outcomes) {
            let accuracy = mean(runs, |run| run.accuracy);
            let (mse, kl, tau) = (mse(runs), kl(runs), tau(runs));
            let (sd, wins) = (deviation(runs), wins(runs, &outcomes[0]));
            println!(
                "{l2:>6} {:>6} {mse:>7.3} {accuracy:>8.3} {kl:>7.3} {tau:>7.3} {sd:>7.3}  {wins}",
                case.lambda
            );
        }
        unguided = unguided.min(mse(&outcomes[0]));
        guided = outcomes[1..].iter().map(|runs| mse(runs)).fold(guided, f64::min);
        assert!(wins(&outcomes[2], &outcomes[0]) >= 4, "l2 {l2}");
        assert!(kl(&outcomes[2]) < 0.5 * kl(&outcomes[0]), "l2 {l2}");
    }
    println!("best unguided {unguided:.4}, best guided {guided:.4}: {:.3}", guided / unguided);
    assert!(guided < 0.97 * unguided);

    println!("knowledge of all kinds, lambda 1, 5 seeds: mse, kl");
    let q = survey().true_distribution();
    let reversed = ImportanceDistribution::new(q.iter().rev().copied().collect()).unwrap();
    for l2 in [1e-4, 0.03, 0.1] {
        let of = |knowledge| Case { knowledge, ..Case::guided(l2, 1.0) };
        let uniform = ImportanceDistribution::uniform(12).unwrap();
        let cases = [Case::unguided(l2), of(q.clone()), of(permuted(&q)), of(uniform), of(reversed.clone())];
        let outcomes = run_all(&cases, 5);
        for (name, runs) in ["none", "right", "permuted", "uniform", "reversed"].iter().zip(&outcomes) {
            println!("{l2:>6} {name:>9} {:>7.3} {:>7.3}", mse(runs), kl(runs));
        }
        assert!(mse(&outcomes[1]) < mse(&outcomes[0]) && mse(&outcomes[0]) < mse(&outcomes[2]));
    }

    println!("consensus of the same rows, l2 1e-4, 5 seeds: mse, kl, tau");
    let outcomes = [0.0, 1.0, 3.0].map(|lambda| by_consensus(lambda, 5));
    for (lambda, runs) in [0.0, 1.0, 3.0].iter().zip(&outcomes) {
        println!("{lambda:>6} {:>7.3} {:>7.3} {:>7.3}", mse(runs), kl(runs), tau(runs));
    }
    assert!(mse(&outcomes[2]) < 0.9 * mse(&outcomes[0]) && tau(&outcomes[2]) >= tau(&outcomes[0]));

    println!("l2 1e-4, without and with warm-up and clipping, 5 seeds: mse, sd");
    for lambda in [0.3, 1.0] {
        let both = Case::guided(1e-4, lambda);
        let neither = Case { learning_rate: 0.01, warmup: 0.0, clip: 0.0, ..both.clone() };
        let outcomes = run_all(&[neither, both], 5);
        for (name, runs) in ["neither", "both"].iter().zip(&outcomes) {
            println!("{lambda:>6} {name:>8} {:>7.3} {:>7.3}", mse(runs), deviation(runs));
        }
        assert!(deviation(&outcomes[1]) < 0.15);
    }
}
