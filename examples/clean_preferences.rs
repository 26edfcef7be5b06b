//! A quarter of the preference labels is wrong, and nobody knows which: 200 trusted pairs are enough to tell.
//!
//! Every training pair gets a weight, tuned so that a reward trained on the weighted pairs explains the trusted ones.
//!
//! Source: Kwon et al. 2023, https://arxiv.org/abs/2309.01753, for the method; the task is ours.
//!
//! `cargo run --release --example clean_preferences`

use std::ops::ControlFlow;

use align::bilevel::alignment::{
    CleanConfig, Cleaning, ExampleSet, FitConfig, LinearPairs, LinearWorldConfig, Weights, auc, clean,
    detection, filter_by_confidence,
};

const RIDGE: f64 = 0.01;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let world = LinearWorldConfig::default().draw();
    let (n, features) = (world.training.len(), world.theta.len());
    let pairs = LinearPairs::new(&world.training, &world.trusted)?;

    let problem = Cleaning::new(pairs.clone(), Weights::per_example(n), RIDGE.try_into()?)?;
    let cleaned = clean(&problem, vec![0.0; features], &CleanConfig::default(), |step, _| {
        if step.iteration % 10 == 0 {
            println!(
                "step {:2}: σ = {:.2}, |∇ψ_σ| = {:.1e}",
                step.iteration,
                step.sigma.unwrap(),
                step.gradient_norm
            );
        }
        ControlFlow::Continue(())
    })?;
    cleaned.warnings.iter().for_each(|warning| println!("{warning}"));
    let found = detection(&cleaned.weights, &world.flips.mask, 0.5);
    println!(
        "a clean pair weighs more than a flipped one with probability {:.3}; F1 at 0.5 is {:.3}",
        auc(&cleaned.weights, &world.flips.mask).unwrap_or(f64::NAN),
        found.f1
    );

    let fits = FitConfig { ridge: RIDGE.try_into()?, ..FitConfig::default() };
    let filtered = filter_by_confidence(&pairs, 0.25.try_into()?, vec![0.0; features], &fits)?;
    let truth: Vec<f64> = world.flips.mask.iter().map(|&flipped| if flipped { 0.0 } else { 1.0 }).collect();
    println!("\nreward trained on        accuracy   NLL, on {} clean pairs", world.test.len());
    for (name, set, weights) in [
        ("all pairs", ExampleSet::Training, vec![1.0; n]),
        ("the trusted pairs", ExampleSet::Trusted, vec![1.0; world.trusted.len()]),
        ("the confident pairs", ExampleSet::Training, filtered.weights()),
        ("cleaned pairs", ExampleSet::Training, cleaned.weights),
        ("the right pairs (oracle)", ExampleSet::Training, truth),
    ] {
        let scores = LinearPairs::evaluate(&world.test, &pairs.fit(set, &weights, RIDGE)?);
        println!("{name:<25} {:.3}      {:.3}", scores.accuracy, scores.loss);
    }
    Ok(())
}
