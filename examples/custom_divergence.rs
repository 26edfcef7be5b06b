//! A divergence of one's own: Amari's α-divergence in the place of KL. KL is its limit α → 1; α = 2 is half of χ².
//!
//! Source: Amari 2009, "α-divergence is unique", IEEE Transactions on Information Theory 55(11).
//!
//! `cargo run --release --example custom_divergence`

use align::core::divergence::{Divergence, clamp_log_ratio};
use align::core::regularizer::{Coefficient, Granularity, Site};
use align::core::{Frozen, Regularizer};
use align::{models::Transformer, playground::Playground, ppo, train};
use burn::{module::Module, tensor::Device, tensor::Tensor};

/// `D(π‖μ) = (E_π[ρ^(α−1)] − 1) / (α(α − 1))` with ρ = π/μ.
#[derive(Debug)]
struct Alpha(f64);

impl Divergence for Alpha {
    fn estimate(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        ((clamp_log_ratio(log_ratio) * (self.0 - 1.0)).exp() - 1.0) / (self.0 * (self.0 - 1.0))
    }

    fn exact(&self, log_p: Tensor<2>, log_q: Tensor<2>) -> Tensor<1> {
        let expectation = (log_p * self.0 + log_q * (1.0 - self.0)).exp().sum_dim(1).squeeze_dim::<1>(1);
        (expectation - 1.0) / (self.0 * (self.0 - 1.0))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let world = Playground::new(0, &Device::flex())?;
    let start = world.fine_tune(1)?;
    println!("gold reward before {:.3}", world.mean_gold(&start)?);
    for alpha in [0.5, 2.0, 4.0] {
        let parts = ppo::PpoParts {
            policy: start.clone().train(),
            critic: None,
            reference: Frozen::new(&start).into(),
            reward: Box::new(world.gold()),
            regularizer: Some(Regularizer {
                site: Site::Reward(Box::new(Alpha(alpha))),
                coefficient: Coefficient::default(), // β = 0.05
                granularity: Granularity::Token,
            }),
            prompts: world.prompts(64 * 15)?,
            gold: None,
            anchors: Vec::new(),
        };
        let mut algorithm: ppo::Ppo<Transformer> = ppo::Ppo::new(parts, world.ppo(15))?;
        train::run(&mut algorithm, &train::RunPlan::new(15), &mut [])?;
        let policy = algorithm.policy();
        let (gold, kl) = (world.mean_gold(policy)?, world.kl(policy, &start)?);
        println!("α = {alpha}: gold reward {gold:.3} at KL {kl:.2} nats a response");
    }
    Ok(())
}
