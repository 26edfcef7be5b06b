//! A large model that was never tuned, steered by a small one that was: how much weight the small one gets decides.
//!
//! Small and large agree on what follows what, but after some tokens the large one is surer and after some less sure; tuning
//! would move each by its own measure. Printed: how many nats each model is from the tuned large one, per token.
//!
//! Source: Fan et al. 2024, https://arxiv.org/abs/2406.15480; the task is ours.
//!
//! `cargo run --release --example fusion`

use align::core::draws::Purpose;
use align::core::{CausalLm, Completions, Draws};
use align::fusion::{Expert, Fusion, Weighing};
use align::models::{GenerateOptions, Prompt, SamplingConfig, generate};
use align_testkit::{BigramLm, device};

const V: usize = 50;

/// Logits of the next token after each of 50 tokens: a sum of parts, times how sure the model is there.
fn model(parts: &[(u64, f64)], sure: impl Fn(usize) -> f64) -> BigramLm {
    let part = |seed, row, at| Draws::new(seed).normal(Purpose::Synthesize, row as u64, at as u64);
    let logit =
        |row, at| parts.iter().map(|(seed, size)| size * part(*seed, row, at)).sum::<f64>() * sure(row);
    BigramLm::from_logits(
        (0..V).map(|row| (0..V).map(|at| logit(row, at) as f32).collect()).collect(),
        &device(),
    )
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // What the small model knows, what tuning changes, what only the large model knows.
    let (known, tuning, more) = ((1, 1.5), (2, 1.0), (3, 0.5));
    let sure = |row: usize| [0.5, 1.0, 2.0][row % 3];
    let (small, expert) = (model(&[known], |_| 1.0), model(&[known, tuning], |_| 1.0));
    let (large, tuned) = (model(&[known, more], sure), model(&[known, tuning, more], sure));

    // Texts of the tuned large model, which nobody who fuses has.
    let sampling = SamplingConfig { max_new_tokens: 40, never_stop: true, ..SamplingConfig::default() };
    let options = GenerateOptions { samples: 4, ..GenerateOptions::new(&sampling, Draws::new(7)) };
    let texts = generate(&tuned, &Prompt::numbered((0..V as u32).map(|id| vec![id])), &options)?;
    let texts: Completions = texts.to_completions(&device());
    let nats =
        |model: &dyn CausalLm| model.token_log_probs(&texts, 1.0).log_probs.mean().into_scalar::<f32>();
    let from_tuned = |model: &dyn CausalLm| nats(&tuned) - nats(model);

    println!("large base  {:.3}   small expert  {:.3}", from_tuned(&large), from_tuned(&expert));
    let weighings = [0.5, 1.0, 1.5].map(|weight| Weighing::Static { weights: vec![weight] });
    for weighing in weighings.into_iter().chain([Weighing::default()]) {
        let experts = vec![Expert::new("expert", Box::new(&expert) as Box<dyn CausalLm>)];
        let fusion = Fusion::new(Box::new(&large), Box::new(&small), experts, weighing)?;
        let steps = fusion.explain(&texts)?.concat();
        let mean = steps.iter().map(|step| step.weights[0]).sum::<f64>() / steps.len() as f64;
        let kind = if matches!(fusion.weighing(), Weighing::Static { .. }) { "static " } else { "dynamic" };
        println!("{kind}  mean weight {mean:.2}  nats from the tuned large model {:.3}", from_tuned(&fusion));
    }
    Ok(())
}
