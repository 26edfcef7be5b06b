//! SALSA in small: PPO held to one fine-tuned net, and the same PPO held to the average of two.
//!
//! Two nets are fine-tuned from one start on the same demonstrations in another order; the task, the nets and the training
//! are those of the specification's small experiment. Both arms share judge, prompts, β, seed and budget.
//!
//! Source: Chegini et al. 2024, <https://arxiv.org/abs/2411.01798>.

#[path = "../crates/align-ppo/tests/suite/salsa_experiment.rs"]
#[allow(dead_code, unreachable_pub)]
mod salsa_experiment;

use salsa_experiment::Ingredients;

fn main() {
    let (beta, updates) = (0.05, 60);
    println!(
        "{:>4} {:<6} {:>12} {:>16} {:>14}",
        "seed", "arm", "gold reward", "KL to reference", "KL to sft_1"
    );
    for seed in 0..2 {
        let nets = Ingredients::of(seed);
        let sft = &nets.tuned[0];
        for (arm, reference) in [("ppo", sft), ("salsa", &nets.soup)] {
            let policy = nets.arm(reference, beta, updates);
            let (own, start) = (nets.measure(&policy, reference), nets.measure(&policy, sft));
            println!("{seed:>4} {arm:<6} {:>12.4} {:>16.2} {:>14.2}", own.gold, own.kl, start.kl);
        }
    }
    println!("At equal β the soup allows more: higher reward, further from where it started.");
}
