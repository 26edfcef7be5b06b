//! Reward hacking in nine cells: a robot that should water tomatoes finds the sprinkler that makes them look watered.
//!
//! What is printed is exact: occupancies come from linear solves, optima with a certificate.
//!
//! Source: Laidlaw, Singhal, Dragan 2025, https://arxiv.org/abs/2403.03185; the board's rewards and reference are ours.
//!
//! `cargo run --release --example tomatoes`

use align::occupancy::worlds::TomatoWorld;
use align::occupancy::{Correlation, Divergence, action_optimum, occupancy_optimum, optimal_policy};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let TomatoWorld { mdp, gold, proxy, reference, .. } = TomatoWorld::small();
    let nu = mdp.occupancy(&reference);
    let agreement = Correlation::under(&nu, &proxy, &gold)?;
    let best = agreement.lambda_star()?;
    println!(
        "reference: gold {:.3}, correlation of proxy and gold {:.3}, λ* {best:.3}",
        nu.mean(&gold),
        agreement.r
    );

    let free = mdp.normalized_return(&optimal_policy(&mdp, &proxy)?.policy, &gold);
    println!("left alone: gold {free:.3}, hacked: {}", agreement.is_hacked_by(free));

    println!("\nheld by                    λ     gold    proxy");
    for lambda in [100.0, 44.0, 20.0, 10.0] {
        let kept = action_optimum(&mdp, &proxy, &reference, Divergence::Kl, lambda)?.occupancy;
        println!("KL of actions        {lambda:7.3}  {:7.3}  {:7.3}", kept.mean(&gold), kept.mean(&proxy));
    }
    for lambda in [0.6, 0.5, 0.4, best, 0.25] {
        let kept = occupancy_optimum(&mdp, &proxy, &reference, Divergence::SqrtChiSquared, lambda)?.occupancy;
        println!("√χ² of occupancies   {lambda:7.3}  {:7.3}  {:7.3}", kept.mean(&gold), kept.mean(&proxy));
    }
    Ok(())
}
