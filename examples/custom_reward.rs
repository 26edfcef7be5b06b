//! A reward of one's own is a closure: here, answers of twelve tokens, whatever they say.
//!
//! `cargo run --release --example custom_reward`

use align::core::{Completions, Frozen, RewardFn};
use align::{models::Transformer, playground::Playground, ppo, reward, train};
use burn::{module::Module, tensor::Device};

const ITERATIONS: usize = 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let world = Playground::new(0, &Device::flex())?;
    let start = world.fine_tune(1)?;

    // `[B]`: 0 for twelve tokens, less the further away. The mask is true where a token counts.
    let twelve = RewardFn(|completions: &Completions| {
        let lengths = completions.response.mask.clone().int().sum_dim(1).squeeze_dim::<1>(1);
        (lengths.float() - 12.0).abs().neg()
    });

    let parts = ppo::PpoParts {
        policy: start.clone().train(),
        critic: None,
        reference: Frozen::new(&start).into(),
        // Rewards wrap rewards: differences beyond eight tokens are all the same.
        reward: Box::new(reward::Clipped { reward: twelve, limit: 8.0 }),
        regularizer: None,
        prompts: world.prompts(64 * ITERATIONS)?,
        gold: None,
        anchors: Vec::new(),
    };
    let mut algorithm: ppo::Ppo<Transformer> = ppo::Ppo::new(parts, world.ppo(ITERATIONS))?;
    let mut console = train::Console::every(5).only(&["objective/scores", "response_length/mean"]);
    train::run(&mut algorithm, &train::RunPlan::new(ITERATIONS as u64), &mut [&mut console])?;

    for (when, model) in [("before", &start), ("after", algorithm.policy())] {
        let answers = world.answers(model, 1)?.rows;
        let tokens: usize = answers.iter().map(|row| row.response.len()).sum();
        let mean = tokens as f64 / answers.len() as f64;
        println!("{when}: {mean:.1} tokens an answer, such as: {}", world.text(&answers[0].response)?);
    }
    Ok(())
}
