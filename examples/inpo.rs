//! Rock, paper, scissors: preferences that no reward explains, and who finds the policy that nobody beats.
//!
//! What is printed is exact: every method takes its population step, and the duality gap says how much another policy would
//! win against the one it ends with.
//!
//! Source: Zhang et al. 2025 (INPO), https://arxiv.org/abs/2407.00617; the game is ours.
//!
//! `cargo run --release --example inpo`

use align::nash::game::{DpoReference, LogPolicy, PreferenceGame, stability_threshold};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let beats = vec![vec![0.5, 0.9, 0.1], vec![0.1, 0.5, 0.9], vec![0.9, 0.1, 0.5]];
    let tau = 0.1;
    let game = PreferenceGame::new(beats, vec![0.6, 0.3, 0.1], tau)?;

    let nash = game.nash()?;
    let threshold = stability_threshold(tau, game.rotation(&nash));
    let shown =
        |policy: &LogPolicy| policy.probabilities().iter().map(|p| format!("{p:.3} ")).collect::<String>();
    println!("reference  {} gap {:.4}", shown(game.reference()), game.duality_gap(game.reference()));
    println!("Nash       {} gap {:.4}", shown(&nash.policy), game.duality_gap(&nash.policy));
    println!(
        "INPO settles for η above {threshold:.4}\n\ngap after          3          20          60         200"
    );

    let show = |name: &str, policies: Vec<LogPolicy>| {
        let gaps = [3, 20, 60, 200].map(|t: usize| format!("{:>11.2e}", game.duality_gap(&policies[t - 1])));
        println!("{name:<10} {}", gaps.join(" "));
    };
    for eta in [0.5, 0.3, 0.2] {
        show(&format!("INPO {eta}"), game.run(200, |_, policy| game.omd_step(policy, eta))?);
    }
    show("greedy", game.run(200, |_, policy| game.omd_step(policy, tau))?);
    show("Nash-MD", game.run(200, |_, policy| game.nash_md_step(policy, 0.5))?);
    for beta in [0.3, 0.88, 3.0] {
        let dpo = game.run(200, |_, policy| game.dpo_step(policy, beta, DpoReference::Fixed))?;
        show(&format!("DPO {beta}"), dpo);
    }
    Ok(())
}
