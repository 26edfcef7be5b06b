//! SuperHF where a cheap trick pays: without its prior every answer becomes the same, and the reward does not mind.
//!
//! Answers are four words. The reward likes words of the prompt, and likes one word better than any of them.
//!
//! Source: Mukobi et al. 2023, https://arxiv.org/abs/2310.16763; the task is ours.
//!
//! `cargo run --release --example superhf`

use align::core::{Completions, Draws, Frozen, RewardFn};
use align::models::{Transformer, TransformerConfig};
use align::superhf::{SuperHf, SuperHfConfig, SuperHfParts};
use burn::tensor::{Device, Tensor, TensorData};

const WORDS: u32 = 12;
/// The share of words that the prompt has too, and 1.5 for the last word.
fn proxy(completions: &Completions) -> Tensor<1> {
    let rows = completions.prompt.rows().into_iter().zip(completions.response.rows());
    let value = |prompt: &[u32], word: &u32| match *word {
        word if word == WORDS - 1 => 1.5,
        word if prompt.contains(&word) => 1.0,
        _ => 0.0,
    };
    let scores: Vec<f32> =
        rows.map(|(p, y)| y.iter().map(|word| value(&p, word)).sum::<f32>() / y.len() as f32).collect();
    let count = scores.len();
    Tensor::from_data(TensorData::new(scores, [count]), &completions.response.ids.device())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex().autodiff();
    let prompts: Vec<Vec<u32>> = (0..240).map(|i| vec![i % 5, (i / 5) % 5, 5 + i % 3]).collect();
    println!("  β    reward: first   last   METEOR between answers to different prompts: first   last");
    for beta in [0.0, 0.5, 1.0, 2.0] {
        let policy =
            Transformer::init(&TransformerConfig::llama(WORDS as usize, 32, 1, 2), &Draws::new(7), &device);
        let parts = SuperHfParts {
            prior: Box::new(Frozen::new(&policy)),
            policy,
            reward: Box::new(RewardFn(proxy)),
            validation: None,
            gold: None,
            prompts: prompts.clone(),
        };
        let config: SuperHfConfig = serde_json::from_value(serde_json::json!({
            "kl_coef": beta, "superbatch_size": 8, "prompt_accumulation_steps": 8, "minibatch": 8, "response_length": 4,
            "top_p": 1.0, "total_episodes": 6400, "learning_rate": 3e-3, "lr_schedule": { "kind": "cosine" },
        }))?;
        let mut superhf = SuperHf::new(parts, config)?.with_detokenizer(|ids: &[u32]| {
            ids.iter().map(|id| format!("w{id}")).collect::<Vec<_>>().join(" ")
        });
        let groups = (0..superhf.plan().groups)
            .map(|group| superhf.iteration(group))
            .collect::<Result<Vec<_>, _>>()?;
        let of = |name: &str, at: usize| groups[at].get(name).unwrap_or(f64::NAN);
        let ([score, similarity], last) = (["objective/scores", "superhf/similarity"], groups.len() - 1);
        let (a, b, c, d) = (of(score, 0), of(score, last), of(similarity, 0), of(similarity, last));
        println!("{beta:>4.1} {a:>14.3} {b:>7.3} {c:>57.3} {d:>7.3}");
    }
    Ok(())
}
