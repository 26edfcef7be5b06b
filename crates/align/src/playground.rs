//! A place to try a method: the generated world of [`align_data::synthetic`] and small transformers that have learnt to
//! answer in it.
//!
//! The world knows what a good answer is, so whatever a method claims can be read off [`Playground::mean_gold`]. It stands
//! in the facade because it needs both the data and the trainer, and those do not know each other.
//!
//! # Examples
//! ```no_run
//! use align::playground::Playground;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let device = align_testkit::device();
//! let world = Playground::new(0, &device)?;
//! let tuned = world.fine_tune(1)?;
//! println!("{:.3} of 1", world.mean_gold(&tuned)?);
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;

use align_core::draws::Purpose;
use align_core::number::{NonNegative, Positive, UnitInterval};
use align_core::{CausalLm, Completions, Demonstrations, Draws};
use align_data::rows::Dialogue;
use align_data::synthetic::{GoldReward, World, WorldConfig};
use align_data::{
    Batches, EncodeError, EncodeOptions, Encoder, HfTokenizer, TemplateError, TokenizerError, collate,
};
use align_models::{
    GenerateError, GenerateOptions, Generation, Prompt, SamplingConfig, Transformer, TransformerConfig,
    generate,
};
use align_ppo::{AdvantageEstimator, PpoConfig};
use align_train::{Learner, NextToken, OptimizerConfig, Schedule, TrainError};
use burn::module::Module;
use burn::tensor::Device;

/// Texts the base model reads.
const TEXTS: usize = 2048;
/// Demonstrations the fine-tunes imitate, and how good their author is.
const DEMONSTRATIONS: (usize, f64) = (256, 0.5);
/// Passes over them: many, and fast, so that two fine-tunes differ enough for an average to be something else.
const EPOCHS: u64 = 20;
/// Prompts that models are judged on.
const HELD_OUT: usize = 128;
/// The longest answer, in tokens; a perfect one has at most 24.
const ANSWER: usize = 32;

/// A world, its tokens and a base model that has read in it.
pub struct Playground {
    world: World,
    tokenizer: HfTokenizer,
    encoder: Encoder,
    device: Device,
    draws: Draws,
    base: Transformer,
}

/// Why a playground could not be made or used. Only a mistake of ours or a device that fails leads here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaygroundError {
    /// The world's tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The world's template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A row of the world.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// An optimizer step.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// An answer.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}

impl Playground {
    /// Makes the world of a seed and lets a small transformer read in it.
    ///
    /// # Errors
    /// If a training step fails.
    pub fn new(seed: u64, device: &Device) -> Result<Self, PlaygroundError> {
        let world = World::new(WorldConfig { seed, ..WorldConfig::default() });
        let tokenizer = world.tokenizer()?;
        let encoder =
            Encoder::new(Arc::new(world.tokenizer()?), Some(world.template()?), EncodeOptions::default());
        let config = TransformerConfig {
            context_length: 96,
            initializer_range: 0.1,
            ..TransformerConfig::llama(encoder.tokenizer().vocab_size(), 48, 2, 4)
        };
        let draws = Draws::new(seed);
        let plain = device.clone().without_autodiff();
        let blank = Transformer::init(&config, &draws, &plain);
        let rows: Vec<Vec<u32>> = world
            .pretraining_texts(TEXTS, 0)
            .iter()
            .map(|text| Ok(encoder.tokenizer().encode(text)?.ids))
            .collect::<Result<_, TokenizerError>>()?;
        // The first token is given, the others are learnt.
        let batch = |rows: &[Vec<u32>]| {
            let (given, learnt): (Vec<_>, Vec<_>) =
                rows.iter().map(|row| (row[..1].to_vec(), row[1..].to_vec())).unzip();
            Demonstrations::from(Completions::from_rows(&given, &learnt, &plain))
        };
        let base = learn(blank, rows.chunks(32).map(batch), TEXTS.div_ceil(32) as u64, 5e-3)?;
        Ok(Self { world, tokenizer, encoder, device: plain, draws, base })
    }

    /// The world behind it.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The model that has read in the world and imitated nobody.
    pub fn base(&self) -> &Transformer {
        &self.base
    }

    /// The base, fine-tuned on the same demonstrations whatever the seed; the seed decides their order alone.
    ///
    /// # Errors
    /// If a training step fails.
    pub fn fine_tune(&self, seed: u64) -> Result<Transformer, PlaygroundError> {
        let (count, quality) = DEMONSTRATIONS;
        let rows = self.world.demonstrations(count, quality, 0);
        let examples = self.encoder.encode_all(&rows, Encoder::encode_sft)?.examples;
        let mut batches = Batches::new(examples.len(), 16, seed);
        let steps = EPOCHS * batches.per_epoch();
        let data = (0..steps).map(|step| {
            let rows: Vec<_> = batches.batch(step).into_iter().map(|row| examples[row].clone()).collect();
            collate::demonstrations(&rows, &self.device)
        });
        learn(self.base.clone(), data, steps, 6e-3)
    }

    /// Prompts to train on; none of them is held out.
    ///
    /// # Errors
    /// Never in practice; the texts are the world's own.
    pub fn prompts(&self, count: usize) -> Result<Vec<Vec<u32>>, PlaygroundError> {
        self.encode(&self.world.prompts(count, 1))
    }

    /// Token ids that end an answer.
    pub fn stop_token_ids(&self) -> Vec<u32> {
        self.encoder.stop_ids().to_vec()
    }

    /// What the world thinks of an answer, as a reward in [−1, 1].
    pub fn gold(&self) -> GoldReward<HfTokenizer> {
        GoldReward::new(self.world.clone(), self.tokenizer.clone())
    }

    /// A model's answers to held-out prompts at temperature 1, those to one prompt side by side.
    ///
    /// The same model gives the same answers: the draws are keyed by the playground's seed.
    ///
    /// # Errors
    /// If the model's scores are no distribution.
    pub fn answers(&self, model: &Transformer, samples: usize) -> Result<Generation, PlaygroundError> {
        let sampling = SamplingConfig {
            max_new_tokens: ANSWER,
            stop_token_ids: self.stop_token_ids(),
            ..SamplingConfig::default()
        };
        let options = GenerateOptions {
            samples,
            slots: 128,
            purpose: Purpose::Evaluate,
            ..GenerateOptions::new(&sampling, self.draws)
        };
        let prompts = Prompt::numbered(self.encode(&self.world.held_out_prompts(HELD_OUT, 0))?);
        Ok(generate(&model.valid(), &prompts, &options)?)
    }

    /// The mean gold reward of one answer to each held-out prompt.
    ///
    /// # Errors
    /// As [`answers`](Self::answers).
    pub fn mean_gold(&self, model: &Transformer) -> Result<f64, PlaygroundError> {
        let completions = self.answers(model, 1)?.to_completions(&self.device);
        let scores = self.gold().scores(&completions);
        Ok(scores.iter().sum::<f64>() / scores.len() as f64)
    }

    /// KL(π‖μ) between two models' answers to held-out prompts, in nats per response, by k1 on one draw from `model` each.
    ///
    /// # Errors
    /// As [`answers`](Self::answers).
    pub fn kl(&self, model: &Transformer, from: &Transformer) -> Result<f64, PlaygroundError> {
        let completions = self.answers(model, 1)?.to_completions(&self.device);
        let log_probs = |model: &Transformer| model.valid().token_log_probs(&completions, 1.0).log_probs;
        let total: f64 = (log_probs(model) - log_probs(from)).sum().to_data().iter::<f64>().sum();
        Ok(total / completions.batch_size() as f64)
    }

    /// A response as text.
    ///
    /// # Errors
    /// Never in practice; every id of the vocabulary is a word.
    pub fn text(&self, response: &[u32]) -> Result<String, PlaygroundError> {
        Ok(self.encoder.decode(response)?)
    }

    /// PPO settings that suit these models: 64 answers an iteration, no critic, β = 0.05 per token in the reward.
    pub fn ppo(&self, iterations: usize) -> PpoConfig {
        PpoConfig {
            rollout_batch: 64,
            microbatch: 64,
            total_episodes: 64 * iterations,
            num_ppo_epochs: 2,
            response_length: ANSWER,
            temperature: Positive::literal(1.0),
            stop_token_ids: self.stop_token_ids(),
            missing_eos_penalty: NonNegative::literal(1.0),
            advantage_estimator: AdvantageEstimator::PositionBaseline,
            learning_rate: Positive::literal(1e-3),
            lr_schedule: Schedule::Constant { warmup: 0 },
            ..PpoConfig::default()
        }
    }

    fn encode(&self, prompts: &[String]) -> Result<Vec<Vec<u32>>, PlaygroundError> {
        let encode = |prompt: &String| self.encoder.encode_prompt(&Dialogue::Text(prompt.clone()));
        Ok(prompts.iter().map(encode).collect::<Result<_, _>>()?)
    }
}

/// One pass over `data`, with AdamW and a rate that falls to 0 on a line; the result is on the plain device.
fn learn(
    model: Transformer,
    data: impl Iterator<Item = Demonstrations>,
    steps: u64,
    rate: f64,
) -> Result<Transformer, PlaygroundError> {
    let config = OptimizerConfig {
        learning_rate: Positive::literal(rate),
        schedule: Schedule::Linear { warmup: 5, floor: UnitInterval::literal(0.0) },
        ..OptimizerConfig::default()
    };
    let mut learner = Learner::new(model.train(), config, steps)?;
    for batch in data {
        learner.step(&NextToken, &[batch])?;
    }
    Ok(learner.into_model().valid())
}
