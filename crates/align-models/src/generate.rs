//! Batched generation: rows that are finished leave, prompts that wait take their place.
//!
//! Every draw is a function of (seed, purpose, step, prompt, sample, position) and of the row's own scores, so the number of
//! slots and the order of the prompts change nothing. Scores go through the model's own [`Decoder`](align_core::Decoder),
//! the very weights and operations that [`CausalLm::token_log_probs`] uses.

use std::collections::VecDeque;

use align_core::draws::{Draws, Purpose};
use align_core::{CausalLm, Completions, TokenBatch};
use burn::tensor::{Device, Tensor, TensorData};

use crate::processors::History;
use crate::sampler::{Sampler, SamplingConfig, SamplingError, raw_log_prob};
use crate::stop::{Detokenize, FinishReason, cut_at_stop_string, finish_reason};

/// What to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Names the prompt in its draws: its place in the data set, say. Prompts of one key and one text continue alike.
    pub key: u64,
    /// Its tokens, at least one.
    pub ids: Vec<u32>,
}

impl Prompt {
    /// Prompts keyed by their place in the list.
    pub fn numbered(rows: impl IntoIterator<Item = Vec<u32>>) -> Vec<Self> {
        rows.into_iter().enumerate().map(|(key, ids)| Self { key: key as u64, ids }).collect()
    }
}

/// How to generate. Start from [`GenerateOptions::new`].
#[derive(Clone, Copy)]
pub struct GenerateOptions<'a> {
    /// How tokens are drawn and where responses end.
    pub sampling: &'a SamplingConfig,
    /// Takes the place of the sampler that `sampling` describes; lengths, stops and the raw temperature remain `sampling`'s.
    pub sampler: Option<&'a dyn Sampler>,
    /// Needed for stop strings; with it every response gets its text.
    pub detokenize: Option<&'a dyn Detokenize>,
    /// How many responses for each prompt.
    pub samples: usize,
    /// How many rows are decoded at once, at most. Bounds memory, changes no result.
    pub slots: usize,
    /// The run's draws.
    pub draws: Draws,
    /// What these draws are for; evaluation must not share training's.
    pub purpose: Purpose,
    /// The step of the run, so that a prompt seen again is continued afresh.
    pub step: u64,
}

impl<'a> GenerateOptions<'a> {
    /// One response a prompt, 32 slots, step 0, for [`Purpose::Sample`].
    pub fn new(sampling: &'a SamplingConfig, draws: Draws) -> Self {
        Self {
            sampling,
            sampler: None,
            detokenize: None,
            samples: 1,
            slots: 32,
            draws,
            purpose: Purpose::Sample,
            step: 0,
        }
    }
}

/// One response.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// Index of the prompt in the list that was given.
    pub prompt_index: usize,
    /// Which of the prompt's samples this is.
    pub sample: usize,
    /// The prompt's tokens.
    pub prompt: Vec<u32>,
    /// The tokens drawn, the stop token included; at least one.
    pub response: Vec<u32>,
    /// For each response token its log-probability under `softmax(logits / temperature)`, nats: what a trainer computes.
    pub raw_log_probs: Vec<f32>,
    /// For each response token its log-probability under the distribution it was drawn from, after all filters, nats.
    pub sampled_log_probs: Vec<f32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The response as text, cut before the stop string if one ended it. Only with [`GenerateOptions::detokenize`].
    pub text: Option<String>,
}

/// All responses, by prompt and within a prompt by sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// `prompts × samples` rows.
    pub rows: Vec<Generated>,
}

impl Generation {
    /// The rows as a batch: prompts padded on the left, responses on the right.
    ///
    /// # Panics
    /// With no rows.
    pub fn to_completions(&self, device: &Device) -> Completions {
        let prompts: Vec<_> = self.rows.iter().map(|row| row.prompt.clone()).collect();
        let responses: Vec<_> = self.rows.iter().map(|row| row.response.clone()).collect();
        Completions::from_rows(&prompts, &responses, device)
    }

    /// Log-probabilities under `softmax(logits / temperature)`, `[B, R]`, nats; 0 past the end.
    ///
    /// # Panics
    /// With no rows.
    pub fn raw_log_probs(&self, device: &Device) -> Tensor<2> {
        padded(self.rows.iter().map(|row| row.raw_log_probs.as_slice()), device)
    }

    /// Log-probabilities under the distribution that was drawn from, `[B, R]`, nats; 0 past the end.
    ///
    /// # Panics
    /// With no rows.
    pub fn sampled_log_probs(&self, device: &Device) -> Tensor<2> {
        padded(self.rows.iter().map(|row| row.sampled_log_probs.as_slice()), device)
    }

    /// For each row whether it ended by a stop rather than by length.
    pub fn stopped(&self) -> Vec<bool> {
        self.rows.iter().map(|row| row.finish_reason.stopped()).collect()
    }
}

fn padded<'a>(rows: impl Iterator<Item = &'a [f32]> + Clone, device: &Device) -> Tensor<2> {
    let width = rows.clone().map(<[f32]>::len).max().expect("at least one row");
    let mut values = Vec::new();
    for (index, row) in rows.enumerate() {
        values.extend_from_slice(row);
        values.resize((index + 1) * width, 0.0);
    }
    let shape = [values.len() / width, width];
    Tensor::from_data(TensorData::new(values, shape), &device.clone().without_autodiff())
}

/// What [`generate_watched`] reports while it works.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A token was drawn.
    Token {
        /// Index of the prompt in the list that was given.
        prompt_index: usize,
        /// Which of the prompt's samples.
        sample: usize,
        /// All tokens of the response so far.
        response: &'a [u32],
    },
    /// A response is finished. They finish in any order.
    Finished(&'a Generated),
}

/// Why nothing was generated. `row` counts the prompts given, from 0.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// A prompt without tokens gives the model nothing to continue.
    #[error("prompt {row} is empty, expected at least one token (a beginning-of-text token, say)")]
    EmptyPrompt {
        /// Which prompt.
        row: usize,
    },
    /// The context is full before the first new token.
    #[error(
        "prompt {row} has {found} tokens, expected fewer than the {context} of the model's context, so that a response fits"
    )]
    PromptTooLong {
        /// Which prompt.
        row: usize,
        /// Its length.
        found: usize,
        /// The context's length.
        context: usize,
    },
    /// A token the model does not know.
    #[error(
        "prompt {row} has token {found} at position {position}, expected ids below the vocabulary of {vocabulary}"
    )]
    TokenOutsideVocabulary {
        /// Which prompt.
        row: usize,
        /// Where in it.
        position: usize,
        /// The id.
        found: u32,
        /// V.
        vocabulary: usize,
    },
    /// A stop token the model can never give.
    #[error("stop token {found} is not in the model's vocabulary, expected ids below {vocabulary}")]
    StopOutsideVocabulary {
        /// The id.
        found: u32,
        /// V.
        vocabulary: usize,
    },
    /// Stop strings, and no way to turn tokens into text.
    #[error("stop string {string:?} needs a tokenizer to look for it, found none")]
    NoDetokenizer {
        /// The first of them.
        string: String,
    },
    /// The model's scores are no distribution.
    #[error(
        "the scores of prompt {row} for response token {position} are no distribution: expected finite numbers, found NaN, infinity or no token left"
    )]
    NotFinite {
        /// Which prompt.
        row: usize,
        /// Which token of its response, from 0.
        position: usize,
    },
    /// A count that has to be positive.
    #[error("`{name}` is 0, expected at least 1")]
    Zero {
        /// The option.
        name: &'static str,
    },
    /// A setting that cannot be.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
}

/// Continues every prompt.
///
/// Hand in a model without autodiff (`model.valid()` or `Frozen`): recording would cost memory for nothing. A response is cut
/// at the end of the model's context, whatever `max_new_tokens` says.
///
/// # Errors
/// Before anything is computed: an empty or too long prompt, an id outside the vocabulary, a setting out of range, no stop.
/// Later only if the model's scores are no distribution.
///
/// # Examples
/// ```
/// use align_core::Draws;
/// use align_models::{GenerateOptions, Prompt, SamplingConfig, generate};
/// use align_testkit::{BigramLm, device};
///
/// // Token 0 ends a response; the others are as likely as each other.
/// let model = BigramLm::independent(&[0.0; 4], &device());
/// let sampling = SamplingConfig { stop_token_ids: vec![0], max_new_tokens: 20, ..SamplingConfig::default() };
/// let options = GenerateOptions { samples: 3, ..GenerateOptions::new(&sampling, Draws::new(7)) };
/// let generation = generate(&model, &Prompt::numbered([vec![1], vec![2, 3]]), &options)?;
///
/// assert_eq!(generation.rows.len(), 6);
/// let completions = generation.to_completions(&device());
/// assert_eq!(completions.response.batch_size(), 6);
/// # Ok::<(), align_models::GenerateError>(())
/// ```
pub fn generate(
    model: &dyn CausalLm,
    prompts: &[Prompt],
    options: &GenerateOptions<'_>,
) -> Result<Generation, GenerateError> {
    generate_watched(model, prompts, options, &mut |_| ())
}

/// [`generate`], telling `watch` about every token and every finished response.
///
/// # Errors
/// As [`generate`].
pub fn generate_watched(
    model: &dyn CausalLm,
    prompts: &[Prompt],
    options: &GenerateOptions<'_>,
    watch: &mut dyn FnMut(Event<'_>),
) -> Result<Generation, GenerateError> {
    check(model, prompts, options)?;
    let configured;
    let sampler: &dyn Sampler = match options.sampler {
        Some(sampler) => sampler,
        None => {
            configured = options.sampling.sampler()?;
            &configured
        }
    };
    let run = Run { model, prompts, options, sampler };
    let mut waiting = run.queue();
    let mut results: Vec<Option<Generated>> = vec![None; waiting.len()];
    let mut decoder = model.decoder();
    let mut active: Vec<Row> = Vec::new();
    loop {
        let free = options.slots - active.len();
        // Prompts are taken in groups, so that their first forward pass stays a batch.
        if !waiting.is_empty() && (active.is_empty() || free >= options.slots.div_ceil(4)) {
            let mut new: Vec<Row> = waiting.drain(..free.min(waiting.len())).collect();
            // Samples of one prompt stand side by side: each prompt is read once, then its row is kept as often as needed.
            let mut first_of: Vec<usize> = (0..new.len()).collect();
            first_of.dedup_by_key(|index| new[*index].prompt_index);
            let rows: Vec<_> =
                first_of.iter().map(|&index| prompts[new[index].prompt_index].ids.clone()).collect();
            let scores = decoder.admit(&TokenBatch::left_padded(&rows, &model.device()));
            let scores = Scores::read(scores);
            let source: Vec<usize> =
                (0..new.len()).map(|index| first_of.partition_point(|&first| first <= index) - 1).collect();
            if first_of.len() < new.len() {
                let kept = 0..active.len();
                let fanned = source.iter().map(|row| active.len() + row);
                decoder.keep(&kept.chain(fanned).collect::<Vec<_>>());
            }
            for (row, &source) in new.iter_mut().zip(&source) {
                run.draw(row, scores.row(source), watch)?;
            }
            active.append(&mut new);
        } else if active.is_empty() {
            break;
        } else {
            let next: Vec<u32> = active.iter().map(|row| row.response[row.response.len() - 1]).collect();
            let scores = Scores::read(decoder.advance(&next));
            for (index, row) in active.iter_mut().enumerate() {
                run.draw(row, scores.row(index), watch)?;
            }
        }
        let going: Vec<usize> = (0..active.len()).filter(|&index| active[index].finished.is_none()).collect();
        if going.len() < active.len() {
            if going.is_empty() {
                decoder = model.decoder();
            } else {
                decoder.keep(&going);
            }
            for row in active.extract_if(.., |row| row.finished.is_some()) {
                let place = row.prompt_index * options.samples + row.sample;
                let generated = run.generated(row);
                watch(Event::Finished(&generated));
                results[place] = Some(generated);
            }
        }
    }
    Ok(Generation { rows: results.into_iter().flatten().collect() })
}

/// What stays the same during one call.
struct Run<'a> {
    model: &'a dyn CausalLm,
    prompts: &'a [Prompt],
    options: &'a GenerateOptions<'a>,
    sampler: &'a dyn Sampler,
}

/// A response in the making.
struct Row {
    prompt_index: usize,
    sample: usize,
    response: Vec<u32>,
    raw_log_probs: Vec<f32>,
    sampled_log_probs: Vec<f32>,
    finished: Option<FinishReason>,
}

impl Run<'_> {
    /// All rows to be: longest prompts first, so that those padded together are of similar length; samples side by side.
    fn queue(&self) -> VecDeque<Row> {
        let mut order: Vec<usize> = (0..self.prompts.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(self.prompts[index].ids.len()));
        let row = |prompt_index, sample| Row {
            prompt_index,
            sample,
            response: Vec::new(),
            raw_log_probs: Vec::new(),
            sampled_log_probs: Vec::new(),
            finished: None,
        };
        order
            .into_iter()
            .flat_map(|prompt| (0..self.options.samples).map(move |sample| row(prompt, sample)))
            .collect()
    }

    /// Draws the row's next token and says whether that was its last.
    fn draw(
        &self,
        row: &mut Row,
        logits: &[f32],
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), GenerateError> {
        let (options, prompt) = (self.options, &self.prompts[row.prompt_index]);
        let position = row.response.len();
        let uniform = options.draws.token(
            options.purpose,
            options.step,
            prompt.key,
            row.sample as u32,
            position as u32,
        );
        let history = History { prompt: &prompt.ids, response: &row.response };
        let drawn = self.sampler.sample(logits, history, uniform);
        let raw = if options.sampler.is_none() && options.sampling.is_unfiltered() {
            drawn.log_prob
        } else {
            raw_log_prob(logits, drawn.token, options.sampling.raw_temperature())
        };
        if !(raw.is_finite() && drawn.log_prob.is_finite()) {
            return Err(GenerateError::NotFinite { row: row.prompt_index, position });
        }
        row.response.push(drawn.token);
        row.raw_log_probs.push(raw as f32);
        row.sampled_log_probs.push(drawn.log_prob as f32);
        let room = self.model.context_length().map_or(usize::MAX, |context| context - prompt.ids.len());
        let limit = options.sampling.max_new_tokens.min(room);
        row.finished = finish_reason(&row.response, options.sampling, options.detokenize, limit);
        watch(Event::Token { prompt_index: row.prompt_index, sample: row.sample, response: &row.response });
        Ok(())
    }

    fn generated(&self, row: Row) -> Generated {
        let text = self.options.detokenize.map(|detokenize| {
            let text = detokenize.text(&row.response);
            match row.finished {
                Some(FinishReason::StopString(_)) => {
                    cut_at_stop_string(&text, &self.options.sampling.stop_strings).to_owned()
                }
                _ => text,
            }
        });
        Generated {
            prompt_index: row.prompt_index,
            sample: row.sample,
            prompt: self.prompts[row.prompt_index].ids.clone(),
            response: row.response,
            raw_log_probs: row.raw_log_probs,
            sampled_log_probs: row.sampled_log_probs,
            finish_reason: row.finished.unwrap_or(FinishReason::Length),
            text,
        }
    }
}

/// The scores of one step on the host.
struct Scores {
    values: Vec<f32>,
    vocabulary: usize,
}

impl Scores {
    /// Copies nothing where the backend's memory is the host's and nothing else holds the tensor.
    fn read(scores: Tensor<2>) -> Self {
        let [_, vocabulary] = scores.dims();
        let values = scores.into_data().try_into_vec_as::<f32>().expect("scores are floats");
        Self { values, vocabulary }
    }

    fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.vocabulary..(index + 1) * self.vocabulary]
    }
}

/// Refuses what cannot be generated from, before anything is computed.
fn check(
    model: &dyn CausalLm,
    prompts: &[Prompt],
    options: &GenerateOptions<'_>,
) -> Result<(), GenerateError> {
    options.sampling.check()?;
    for (name, count) in [("samples", options.samples), ("slots", options.slots)] {
        if count == 0 {
            return Err(GenerateError::Zero { name });
        }
    }
    if let (Some(string), None) = (options.sampling.stop_strings.first(), options.detokenize) {
        return Err(GenerateError::NoDetokenizer { string: string.clone() });
    }
    let vocabulary = model.vocab_size();
    let outside = |id: &u32| *id as usize >= vocabulary;
    if let Some(&found) = options.sampling.stop_token_ids.iter().find(|id| outside(id)) {
        return Err(GenerateError::StopOutsideVocabulary { found, vocabulary });
    }
    for (row, prompt) in prompts.iter().enumerate() {
        let found = prompt.ids.len();
        if found == 0 {
            return Err(GenerateError::EmptyPrompt { row });
        }
        if let Some(context) = model.context_length().filter(|&context| found >= context) {
            return Err(GenerateError::PromptTooLong { row, found, context });
        }
        if let Some(position) = prompt.ids.iter().position(outside) {
            return Err(GenerateError::TokenOutsideVocabulary {
                row,
                position,
                found: prompt.ids[position],
                vocabulary,
            });
        }
    }
    Ok(())
}
