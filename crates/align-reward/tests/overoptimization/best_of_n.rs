//! The claim of ensembles on the small task: criteria (i) to (v) of the specification, section 8.4, and its controls.
//!
//! Five proxies a world, trained on a thousand pairs with and without a quarter of the labels wrong, choose among the best of
//! up to 4000 of 4096 texts. Everything is seeded; the figures are means over six worlds of 24 prompts.

use align_data::synthetic::TrapWorld;
use align_reward::best_of_n::Ranking;
use align_reward::overoptimization::drop;
use align_reward::{Aggregate, MemberScores};
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};

use crate::proxy::{completions, members};

const PROMPTS: u64 = 24;
const ANSWERS: u64 = 4096;
const NS: [usize; 10] = [1, 4, 16, 64, 256, 512, 1024, 2048, 3000, 4000];

/// Mean curves over prompts at [`NS`].
#[derive(Clone, Debug)]
struct Curve {
    proxy: Vec<f64>,
    gold: Vec<f64>,
}

impl Curve {
    fn last(&self) -> f64 {
        self.gold[NS.len() - 1]
    }
}

/// One member alone (a mean over the five), mean, WCO and UWO 0.5.
struct World {
    single: Curve,
    ensembles: [Curve; 3],
}

fn averaged(curves: &[Curve]) -> Curve {
    let mean = |side: usize| -> Vec<f64> {
        let at = |at: usize| curves.iter().map(|curve| [&curve.proxy, &curve.gold][side][at]).sum::<f64>();
        (0..NS.len()).map(|n| at(n) / curves.len() as f64).collect()
    };
    Curve { proxy: mean(0), gold: mean(1) }
}

fn curve(proxy: &[f64], gold: &[f64]) -> Curve {
    let ranking = Ranking::new(proxy).unwrap();
    let at = |values: &[f64]| {
        let all = ranking.curve(values);
        NS.map(|n| all[n - 1]).to_vec()
    };
    Curve { proxy: at(proxy), gold: at(gold) }
}

fn world(seed: u64, noise: f64) -> World {
    let task = TrapWorld::new(seed);
    let members = members(&task, seed, noise);
    let aggregates = [Aggregate::Mean {}, Aggregate::WorstCase {}, Aggregate::uncertainty_weighted(0.5)];
    let (mut single, mut ensembles) = (Vec::new(), [const { Vec::new() }; 3]);
    for prompt in 0..PROMPTS {
        let texts: Vec<Vec<u32>> = (0..ANSWERS).map(|answer| task.text(100 + prompt, answer)).collect();
        let gold: Vec<f64> = texts.iter().map(|text| task.gold(text)).collect();
        let batch = completions(&texts);
        let scores = MemberScores::new(members.iter().map(|member| member(&batch)).collect()).unwrap();
        single.extend(scores.members().iter().map(|proxy| curve(proxy, &gold)));
        for (curves, aggregate) in ensembles.iter_mut().zip(&aggregates) {
            curves.push(curve(&scores.aggregate(aggregate), &gold));
        }
    }
    World { single: averaged(&single), ensembles: ensembles.map(|curves| averaged(&curves)) }
}

#[test]
fn ensembles_hold_back_what_a_single_reward_model_overrates() {
    let worlds = |noise| (0..6).map(|seed| world(seed, noise)).collect::<Vec<_>>();
    let (clean, noisy) = (worlds(0.0), worlds(0.25));
    let over = |worlds: &[World]| {
        let single = averaged(&worlds.iter().map(|world| world.single.clone()).collect::<Vec<_>>());
        let ensembles =
            [0, 1, 2].map(|at| averaged(&worlds.iter().map(|w| w.ensembles[at].clone()).collect::<Vec<_>>()));
        (single, ensembles)
    };
    let (single_clean, clean_ensembles) = over(&clean);
    let (single, [mean, worst, uncertain]) = over(&noisy);
    println!("n         {NS:?}");
    for (name, curve) in [("single", &single), ("mean", &mean), ("WCO", &worst), ("UWO 0.5", &uncertain)] {
        let gold: Vec<String> = curve.gold.iter().map(|gold| format!("{gold:.3}")).collect();
        println!("{name:<8} {} drop {:.3}", gold.join(" "), drop(&curve.gold));
    }
    println!("clean: single {:.3}, {:?}", single_clean.last(), clean_ensembles.each_ref().map(Curve::last));

    for curve in [&single, &mean, &worst, &uncertain] {
        assert!(curve.proxy.windows(2).all(|pair| pair[1] > pair[0]), "(i) a proxy rises: {curve:?}");
    }
    assert!(drop(&single.gold) >= 0.02, "(ii) one member turns over: {:?}", single.gold);
    for curve in [&worst, &uncertain] {
        assert!(drop(&curve.gold) <= 0.02, "(iii) conservative ensembles do not: {:?}", curve.gold);
        assert!(curve.last() >= 1.4 * single.last(), "(iv) and end far higher: {:?}", curve.gold);
    }
    for (seed, world) in noisy.iter().enumerate() {
        assert!(world.ensembles[1].last() > world.single.last(), "(iv) WCO in world {seed}");
    }
    let gain = |ensemble: &Curve, single: &Curve| ensemble.last() / single.last();
    assert!(
        gain(&clean_ensembles[1], &single_clean) < gain(&worst, &single),
        "(v) the gain grows with the noise"
    );
}

#[test]
fn copies_an_oracle_shuffled_gold_and_a_planted_member_behave_as_they_must() {
    let task = TrapWorld::new(3);
    let texts: Vec<Vec<u32>> = (0..ANSWERS).map(|answer| task.text(50, answer)).collect();
    let gold: Vec<f64> = texts.iter().map(|text| task.gold(text)).collect();
    let proxy: Vec<f64> = texts.iter().map(|text| text.iter().map(|&t| f64::from(t % 7)).sum()).collect();
    // Five copies of one member are that member.
    let copies = MemberScores::new(vec![proxy.clone(); 5]).unwrap();
    for aggregate in [Aggregate::Mean {}, Aggregate::WorstCase {}, Aggregate::uncertainty_weighted(0.5)] {
        assert_eq!(copies.aggregate(&aggregate), proxy);
    }
    // Gold as its own proxy only rises.
    let oracle = curve(&gold, &gold);
    assert!(drop(&oracle.gold) == 0.0 && oracle.gold.windows(2).all(|pair| pair[1] > pair[0]));
    // Gold of other answers is worth nothing at any n: four standard errors of the best of n, of which there are about N/n.
    let mut shuffled = gold.clone();
    shuffled.shuffle(&mut StdRng::seed_from_u64(5));
    for (n, value) in NS.iter().zip(curve(&proxy, &shuffled).gold) {
        let error = (*n as f64 / ANSWERS as f64).sqrt().max(1.0 / (ANSWERS as f64).sqrt());
        assert!(value.abs() <= 4.0 * error, "{n}: {value}");
    }
    // A member that loves glitches draws the mean to them, not the minimum.
    let glitches =
        |text: &[u32]| text.iter().filter(|&&token| token >= TrapWorld::COMMON as u32).count() as f64;
    let planted: Vec<f64> = texts.iter().zip(&proxy).map(|(text, p)| p + 60.0 * glitches(text)).collect();
    let members = MemberScores::new(vec![proxy.clone(), proxy.clone(), proxy, planted]).unwrap();
    let taken = |aggregate: Aggregate| {
        let scores = members.aggregate(&aggregate);
        let best = (0..texts.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap();
        glitches(&texts[best])
    };
    assert!(taken(Aggregate::Mean {}) > 0.0);
    assert_eq!(taken(Aggregate::WorstCase {}), 0.0);
}
