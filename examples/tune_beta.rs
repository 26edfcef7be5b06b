//! How near to its reference should a policy stay? The KL coefficient is tuned by gradients through the policy's optimum.
//!
//! A proxy reward agrees with the gold one on two answers and is fooled by the third. A small β chases the proxy, a large
//! one never leaves the reference.
//!
//! Source: Kwon et al. 2023, https://arxiv.org/abs/2309.01753, for the method; the task is ours.
//!
//! `cargo run --release --example tune_beta`

use align::bilevel::alignment::{KlCoefficient, KlTuneConfig, Regularized, tune_kl_coefficient};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let reference = Regularized::new(&[vec![0.5, 0.3, 0.2]])?;
    let (proxy, gold) = (vec![0.0, 1.0, 2.0], vec![0.0, 1.0, 0.3]);
    let problem = KlCoefficient::new(reference, proxy, gold)?;

    println!("    β   policy                 gold reward     KL");
    let show = |beta: f64| {
        let log_probs = problem.solution(beta, 0.0);
        let policy: Vec<String> = log_probs.iter().map(|log| format!("{:.3}", log.exp())).collect();
        println!(
            "{beta:6.3}  {}  {:14.4}  {:.3}",
            policy.join("  "),
            -problem.psi(beta),
            problem.table().kl(&log_probs)
        );
    };
    [0.1, 0.5, 4.0].into_iter().for_each(show);
    for start in [0.5, 4.0] {
        let tuned = tune_kl_coefficient(&problem, start, &KlTuneConfig::default());
        show(tuned.beta);
        println!("        from {start} in {} steps", tuned.path.len() - 1);
    }

    println!("\n    σ   the tuned β, off by O(σ)");
    for sigma in [0.1, 0.01, 0.001] {
        let config = KlTuneConfig { sigma: sigma.try_into()?, ..KlTuneConfig::default() };
        println!("{sigma:5.3}   {:.6}", tune_kl_coefficient(&problem, 0.5, &config).beta);
    }
    Ok(())
}
