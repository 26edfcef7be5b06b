//! A reward whose own optimal policy does what was demonstrated, found through the policy's optimum.
//!
//! The policy maximises the reward, held to a reference. Taking the demonstrations' log-ratios as a reward is the solution
//! in closed form, so that the search can be checked against it.
//!
//! Source: Shen, Yang, Chen 2024, https://arxiv.org/abs/2402.06886, for the problem; the task is ours.
//!
//! `cargo run --release --example design_reward`

use align::bilevel::alignment::{Demonstrations, DesignConfig, Regularized, RewardDesign, design_reward};

const BETA: f64 = 0.5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Two prompts with three answers each, and how often each answer was given by the reference and by the demonstrator.
    let reference = [vec![0.5, 0.3, 0.2], vec![0.1, 0.2, 0.7]];
    let shares = vec![0.2, 0.5, 0.3, 0.6, 0.3, 0.1];
    let table = Regularized::new(&reference)?;
    let problem = RewardDesign::new(table, BETA.try_into()?, Demonstrations { shares: shares.clone() });

    for sigma in [0.1, 0.01, 0.001] {
        let (gradient, residual) = problem.penalized_gradient(&[0.0; 6], sigma);
        // At a reward of 0 the policy is the reference, and ∇ψ = μ (reference − demonstrated)/β.
        let exact =
            reference.concat().iter().zip(&shares).map(|(q, p)| 0.5 * (q - p) / BETA).collect::<Vec<_>>();
        let error = gradient.iter().zip(exact).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        println!("σ = {sigma:<5}: gradient off by {error:.1e}, inner residual {residual:.0e}");
    }

    let designed = design_reward(&problem, vec![0.0; 6], &DesignConfig::default())?;
    println!("\n{} steps to |∇ψ_σ| = {:.0e}", designed.iterations, designed.gradient_norm);
    println!("answer  reward  policy  demonstrated  closed form");
    for prompt in 0..2 {
        // A reward is known up to a constant for each prompt.
        let closed: Vec<f64> =
            (0..3).map(|a| BETA * (shares[3 * prompt + a] / reference[prompt][a]).ln()).collect();
        let shift = designed.reward[3 * prompt] - closed[0];
        for (answer, closed) in closed.iter().enumerate() {
            let at = 3 * prompt + answer;
            let (reward, policy) = (designed.reward[at], designed.policy[at]);
            println!(
                "   {prompt}.{answer} {reward:7.3} {policy:7.4} {:13.4} {:12.3}",
                shares[at],
                closed + shift
            );
        }
    }
    Ok(())
}
