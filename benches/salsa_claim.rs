//! The claim of SALSA on the small task: criteria 1 to 7 of the specification, section 7, over five seeds.
//!
//! `cargo bench --bench salsa_claim [-- seeds updates]`; prints every figure and whether each criterion holds, and ends with
//! an error if one does not. Gold rewards and distances are measured from final weights.

#[path = "../crates/align-ppo/tests/suite/salsa_experiment.rs"]
mod salsa_experiment;

use salsa_experiment::{Ingredients, bits};

/// What one seed gave.
struct Seed {
    without_beta_equal: bool,
    soup_of_one_equal: bool,
    start_kl: f64,
    gold_tuned: [f64; 2],
    gold_soup: f64,
    gold_nonsense: f64,
    /// Gold of PPO and SALSA and the KL of each to its own reference, for β = 0.05 and 0.2.
    arms: [[f64; 4]; 2],
    gold_held_back: f64,
}

fn measure(seed: u64, updates: usize) -> Seed {
    let nets = Ingredients::of(seed);
    let [first, second] = &nets.tuned;
    let arms = [0.05, 0.2].map(|beta| {
        let (ppo, salsa) = (nets.arm(first, beta, updates), nets.arm(&nets.soup, beta, updates));
        let (ppo, salsa) = (nets.measure(&ppo, first), nets.measure(&salsa, &nets.soup));
        [ppo.gold, salsa.gold, ppo.kl, salsa.kl]
    });
    let same = |a, b| bits(&a) == bits(&b);
    let twin = align_ppo::mix(first, first, 0.5);
    Seed {
        without_beta_equal: same(nets.arm(first, 0.0, updates), nets.arm(&nets.soup, 0.0, updates)),
        soup_of_one_equal: same(nets.arm(first, 0.05, updates), nets.arm(&twin, 0.05, updates)),
        start_kl: nets.measure(first, &nets.soup).kl,
        gold_tuned: [nets.measure(first, first).gold, nets.measure(second, first).gold],
        gold_soup: nets.measure(&nets.soup, first).gold,
        gold_nonsense: nets.measure(&nets.nonsense, first).gold,
        arms,
        gold_held_back: nets.measure(&nets.arm(&nets.nonsense, 0.05, updates), first).gold,
    }
}

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let count = numbers.first().copied().unwrap_or(5);
    let updates = numbers.get(1).copied().unwrap_or(150);
    println!(
        "seed  KL_0   sft_1  sft_2  soup   | b=0.05 ppo salsa  KL    KL    | b=0.2 ppo salsa  KL    KL    | control"
    );
    let seeds: Vec<Seed> = (0..count as u64)
        .map(|seed| {
            let s = measure(seed, updates);
            let arm =
                |[ppo, salsa, kl, kl_soup]: [f64; 4]| format!("{ppo:.4} {salsa:.4} {kl:.2} {kl_soup:.2}");
            let (first, second) = (arm(s.arms[0]), arm(s.arms[1]));
            let [a, b] = s.gold_tuned;
            println!(
                "{seed:>4}  {:.2}  {a:.4} {b:.4} {:.4} | {first} | {second} | {:.4} -> {:.4}",
                s.start_kl, s.gold_soup, s.gold_nonsense, s.gold_held_back
            );
            s
        })
        .collect();

    let every = |holds: &dyn Fn(&Seed) -> bool| seeds.iter().all(holds);
    let mean = |f: &dyn Fn(&Seed) -> f64| seeds.iter().map(f).sum::<f64>() / seeds.len() as f64;
    let better = |s: &Seed| s.gold_tuned.iter().all(|gold| s.gold_soup > *gold);
    let gain = |s: &Seed| s.gold_soup - s.gold_tuned.iter().sum::<f64>() / 2.0;
    let lead = |s: &Seed, arm: usize| s.arms[arm][1] - s.arms[arm][0];
    let criteria = [
        ("1  beta = 0: PPO and SALSA bit-identical", every(&|s| s.without_beta_equal)),
        ("2  soup of one: PPO and SALSA bit-identical", every(&|s| s.soup_of_one_equal)),
        ("3  KL(sft_1 || soup) >= 1 nat", every(&|s| s.start_kl >= 1.0)),
        (
            "4  soup above both ingredients on 4 of 5, mean gain >= 0.02",
            5 * seeds.iter().filter(|s| better(s)).count() >= 4 * seeds.len() && mean(&gain) >= 0.02,
        ),
        (
            "5  SALSA above PPO on every seed, mean >= 0.02, at both beta",
            (0..2).all(|arm| every(&|s| lead(s, arm) > 0.0) && mean(&|s| lead(s, arm)) >= 0.02),
        ),
        (
            "6  KL of SALSA to the soup above KL of PPO to sft_1",
            (0..2).all(|arm| every(&|s| s.arms[arm][3] > s.arms[arm][2])),
        ),
        (
            "7  control: reference below both, final below PPO by 0.05",
            every(&|s| {
                s.gold_tuned.iter().all(|gold| s.gold_nonsense < *gold)
                    && s.arms[0][0] - s.gold_held_back >= 0.05
            }),
        ),
    ];
    println!(
        "mean gain of the soup {:.4}, lead of SALSA {:.4} and {:.4}",
        mean(&gain),
        mean(&|s| lead(s, 0)),
        mean(&|s| lead(s, 1))
    );
    for (name, holds) in criteria {
        println!("{} {name}", if holds { "pass" } else { "FAIL" });
    }
    assert!(criteria.iter().all(|(_, holds)| *holds), "a criterion does not hold");
}
