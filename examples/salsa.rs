//! SALSA: PPO whose anchor is an average of two fine-tuned models, beside plain PPO at the same β.
//!
//! At the same β SALSA ends with a higher reward and further from where it started: the soup is a better model than
//! either fine-tune, and one that disagrees with the policy, so it holds the policy back less. At the same distance the
//! two need not differ.
//!
//! Source: Chegini et al. 2024, https://arxiv.org/abs/2411.01798.
//!
//! `cargo run --release --example salsa`

use align::{core::Frozen, models::Transformer, playground::Playground, ppo, soup, train};
use burn::{module::Module, tensor::Device};

const ITERATIONS: usize = 30;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let world = Playground::new(0, &Device::flex())?;

    // Two fine-tunes of one base on the same demonstrations; only their order differs.
    let tuned = [world.fine_tune(1)?, world.fine_tune(2)?];
    let anchor = soup::average(&tuned, &[0.5, 0.5])?;
    let [first, second, middle] = [&tuned[0], &tuned[1], &anchor].map(|model| world.mean_gold(model));
    println!("gold reward of the fine-tunes {:.3} and {:.3}, of their soup {:.3}", first?, second?, middle?);

    for (name, reference) in [("PPO", &tuned[0]), ("SALSA", &anchor)] {
        let parts = ppo::PpoParts {
            policy: tuned[0].clone().train(),
            critic: None,
            reference: Frozen::new(reference).into(),
            reward: Box::new(world.gold()),
            regularizer: None,
            prompts: world.prompts(64 * ITERATIONS)?,
            gold: None,
            anchors: Vec::new(),
        };
        let mut algorithm: ppo::Ppo<Transformer> = ppo::Ppo::new(parts, world.ppo(ITERATIONS))?;
        let mut console = train::Console::every(10).only(&["objective/scores", "objective/kl"]);
        train::run(&mut algorithm, &train::RunPlan::new(ITERATIONS as u64), &mut [&mut console])?;

        let policy = algorithm.into_policy();
        let (gold, distance) = (world.mean_gold(&policy)?, world.kl(&policy, &tuned[0])?);
        println!("{name}: gold reward {gold:.3}, {distance:.1} nats from where it started");
    }
    Ok(())
}
