//! Best of N: draw N answers, keep the one a judge likes best. No training, and yet a policy that moved.
//!
//! Its KL from the model it draws from is at most `log N − (N − 1)/N`, so the table is a curve of reward against KL.
//!
//! Source: Stiennon et al. 2020, https://arxiv.org/abs/2009.01325, footnote 2, for the KL.
//!
//! `cargo run --release --example best_of_n`

use align::core::{Reward, selection::best_of_n};
use align::playground::Playground;
use burn::tensor::Device;

const MOST: usize = 16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex();
    let world = Playground::new(0, &device)?;
    let policy = world.fine_tune(1)?;

    // Sixteen answers to each held-out prompt, side by side, and what the world thinks of each.
    let answers = world.answers(&policy, MOST)?;
    let scores: Vec<f32> = world.gold().score(&answers.to_completions(&device)).to_data().iter().collect();

    println!(" N   KL (nats, at most)   reward");
    for n in [1, 2, 4, 8, 16] {
        // The first N of each sixteen.
        let tried: Vec<f32> = scores.chunks(MOST).flat_map(|scores| &scores[..n]).copied().collect();
        let best = best_of_n(&tried, n);
        let mean = best.iter().map(|&row| tried[row]).sum::<f32>() / best.len() as f32;
        let divergence = (n as f64).ln() - (n as f64 - 1.0) / n as f64;
        println!("{n:>2}   {divergence:>18.3}   {mean:.3}");
    }

    let row = best_of_n(&scores, MOST)[0];
    let (first, best) = (&answers.rows[0], &answers.rows[row]);
    println!(
        "\nfirst draw  {}\nbest of {MOST}  {}",
        world.text(&first.response)?,
        world.text(&best.response)?
    );
    Ok(())
}
