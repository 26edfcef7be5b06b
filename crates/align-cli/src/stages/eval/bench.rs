//! What every model of a comparison is measured with: the same rows, judges and draws.

use std::collections::BTreeMap;

use align_core::draws::{Draws, Purpose};
use align_core::log_probs::kl_exact;
use align_core::{CausalLm, Completions, Reward};
use align_data::encode::Encoder;
use align_models::{Event, GenerateOptions, Generated, Prompt, SamplingConfig, generate_watched};
use align_superhf::meteor::Meteor;
use anyhow::{Result, bail};
use burn::tensor::Tensor;
use indicatif::ProgressBar;

use super::super::answers::{completions, sampling_for};
use super::answers::{Answers, Likelihood, likelihoods, nats_per_token};
use crate::context::Context;
use crate::data::{self, Prompts};
use crate::expert_weights::{WeighedText, fusion_weights};
use crate::judge::{judge, same_tokens};
use crate::language_model::{OpenModel, tokenizer_folder};
use crate::recipe::eval::EvalStage;
use crate::table::Spread;

/// What models are measured with, opened once for all of them.
pub(crate) struct Bench {
    encoder: Encoder,
    prompts: Option<Prompts>,
    answers: Option<Answers>,
    sampling: SamplingConfig,
    anchors: Vec<(String, OpenModel)>,
    reward: Option<Box<dyn Reward>>,
    gold: Option<Box<dyn Reward>>,
    microbatch: usize,
    seed: u64,
}

/// One model's figures, row by row.
pub(super) struct Measured {
    /// By name, a number for every prompt.
    pub(super) figures: BTreeMap<String, Vec<f64>>,
    likelihoods: Vec<Likelihood>,
    /// What it answered.
    pub(super) rows: Vec<Generated>,
}

impl Bench {
    /// Opens everything a comparison names but its arms. All arms must have the tokens of `first`.
    ///
    /// # Errors
    /// When data, a judge or an anchor cannot be opened.
    pub(crate) fn open(stage: &EvalStage, first: &OpenModel, context: &Context) -> Result<Self> {
        let encoder = first.encoder(stage.encode.options(first.lm.context_length()))?;
        let answers = match (&stage.answers, stage.draw) {
            (None, _) => None,
            (Some(answers), true) => Some(Answers::to_ask(answers, &encoder, context)?),
            (Some(answers), false) => Some(Answers::to_read(answers, &encoder, context)?),
        };
        let prompts = stage.prompts.as_ref().map(|prompts| data::prompts(prompts, &encoder, context));
        let anchors = stage.anchors.iter().map(|(name, reference)| {
            let path = context.model_to_read(reference)?;
            same_tokens(&encoder, &tokenizer_folder(&path)?)?;
            Ok((name.clone(), context.open(&path)?))
        });
        let mut bench = Self {
            prompts: prompts.transpose()?,
            answers,
            sampling: sampling_for(&stage.sampling, &encoder),
            anchors: anchors.collect::<Result<Vec<_>>>()?,
            reward: None,
            gold: None,
            microbatch: stage.microbatch.max(1),
            seed: stage.seed,
            encoder,
        };
        let open = |reference: &Option<String>, aggregate| {
            let (Some(reference), Some(prompts)) = (reference, bench.prompts()) else { return Ok(None) };
            judge(reference, aggregate, &bench.encoder, prompts, context).map(Some)
        };
        let (reward, gold) = (open(&stage.reward, stage.aggregate)?, open(&stage.gold, None)?);
        (bench.reward, bench.gold) = (reward, gold);
        Ok(bench)
    }

    /// The tokens of all models.
    pub(super) fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// What is asked, if anything is.
    fn prompts(&self) -> Option<&Prompts> {
        let of_answers = || Some(&self.answers.as_ref()?.asked.as_ref()?.prompts);
        self.prompts.as_ref().or_else(of_answers)
    }

    /// How many rows every model is measured on.
    pub(crate) fn rows(&self) -> usize {
        let answers = self.answers.as_ref().map(|answers| answers.examples.len());
        self.prompts().map(|prompts| prompts.ids.len()).or(answers).unwrap_or(0)
    }

    /// How often a bar moves for one model: every row is drawn, judged and scored, as far as it is.
    pub(super) fn work(&self) -> usize {
        let (drawn, scored) = (self.prompts().is_some(), self.answers.is_some());
        self.rows() * (2 * usize::from(drawn) + usize::from(scored))
    }

    /// The figures of a model by name, with their standard errors over rows.
    ///
    /// # Errors
    /// When its answers cannot be drawn or judged, or a figure is no number.
    pub(crate) fn figures(&self, model: &OpenModel, context: &Context) -> Result<BTreeMap<String, Spread>> {
        same_tokens(&self.encoder, &model.folder)?;
        Ok(self.measure(model, &ProgressBar::hidden(), context)?.spreads())
    }

    /// Measures a model.
    pub(super) fn measure(
        &self,
        model: &OpenModel,
        bar: &ProgressBar,
        context: &Context,
    ) -> Result<Measured> {
        let mut measured = Measured { figures: BTreeMap::new(), likelihoods: Vec::new(), rows: Vec::new() };
        if let Some(prompts) = self.prompts() {
            measured.rows = model.explained(self.draw(&*model.lm, prompts, bar))?;
            self.judge(&*model.lm, &mut measured, bar, context)?;
        }
        for chunk in self.answers.iter().flat_map(|answers| answers.examples.chunks(self.microbatch)) {
            context.check_interrupt()?;
            measured.likelihoods.extend(likelihoods(&*model.lm, chunk));
            bar.inc(chunk.len() as u64);
        }
        if let Some(failure) = model.failure() {
            return Err(failure);
        }
        match measured.spreads().into_iter().find(|(_, spread)| !spread.mean.is_finite()) {
            Some((name, spread)) => bail!("`{name}` is {}, expected a finite number", spread.mean),
            None => Ok(measured),
        }
    }

    /// How a fusion weighed its experts over the first of its answers; nothing of a model that is no fusion.
    pub(super) fn weights(
        &self,
        model: &OpenModel,
        arm: &str,
        measured: &Measured,
        count: usize,
    ) -> Result<Vec<WeighedText>> {
        let shown = measured.rows.iter().take(count);
        let answers = shown.map(|row| (row.prompt.as_slice(), row.response.as_slice()));
        let weights = fusion_weights(model, arm, answers, &self.encoder, self.microbatch)?;
        Ok(weights.unwrap_or_default())
    }

    fn draw(&self, model: &dyn CausalLm, prompts: &Prompts, bar: &ProgressBar) -> Result<Vec<Generated>> {
        let options = GenerateOptions {
            purpose: Purpose::Evaluate,
            slots: self.microbatch,
            ..GenerateOptions::new(&self.sampling, Draws::new(self.seed))
        };
        let prompts = Prompt::numbered(prompts.ids.iter().cloned());
        let generation = generate_watched(model, &prompts, &options, &mut |event| {
            if let Event::Finished(_) = event {
                bar.inc(1);
            }
        })?;
        Ok(generation.rows)
    }

    /// Everything that is said of answers once they are there.
    fn judge(
        &self,
        model: &dyn CausalLm,
        measured: &mut Measured,
        bar: &ProgressBar,
        context: &Context,
    ) -> Result<()> {
        let Measured { figures, rows, .. } = measured;
        let mut add =
            |name: &str, values: Vec<f64>| figures.entry(name.to_owned()).or_default().extend(values);
        let temperature = self.sampling.raw_temperature();
        for chunk in rows.chunks(self.microbatch) {
            context.check_interrupt()?;
            let completions = completions(chunk, &model.device());
            let lengths: Vec<f64> = chunk.iter().map(|row| row.response.len() as f64).collect();
            add("stop_rate", chunk.iter().map(|row| share(row.finish_reason.stopped())).collect());
            if let Some(gold) = &self.gold {
                add("gold", host(gold.score(&completions)));
            }
            if let Some(reward) = &self.reward {
                add("reward", host(reward.score(&completions)));
            }
            if !self.anchors.is_empty() {
                let policy = response_logits(model, &completions);
                for (name, anchor) in &self.anchors {
                    let anchor = response_logits(&*anchor.lm, &completions);
                    let kl = kl_exact(policy.clone(), anchor, &completions.response.mask, temperature);
                    add(&format!("kl/{name}"), host(kl.sum_dim(1).squeeze_dim(1)));
                }
            }
            let entropies = model.token_log_probs(&completions, temperature).entropies;
            let sums = host(entropies.sum_dim(1).squeeze_dim(1));
            add("entropy", sums.iter().zip(&lengths).map(|(sum, length)| sum / length).collect());
            add("length", lengths);
            bar.inc(chunk.len() as u64);
        }
        if let Some(asked) = self.answers.as_ref().and_then(|answers| answers.asked.as_ref()) {
            let pairs = rows.iter().zip(&asked.right);
            add("exact_match", pairs.map(|(row, right)| share(row.response == *right)).collect());
        }
        let similar = similarity(rows, &|ids| Ok(self.encoder.decode(ids)?))?;
        if !similar.is_empty() {
            add("similarity", similar);
        }
        Ok(())
    }
}

impl Measured {
    /// Means and standard errors over rows.
    pub(super) fn spreads(&self) -> BTreeMap<String, Spread> {
        let mut spreads: BTreeMap<String, Spread> =
            self.figures.iter().map(|(name, values)| (name.clone(), Spread::of(values))).collect();
        if !self.likelihoods.is_empty() {
            spreads.insert("nll".to_owned(), nats_per_token(&self.likelihoods));
        }
        spreads
    }
}

/// 1 of what holds, else 0.
fn share(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

/// METEOR of every answer with the next one, to another prompt: near 0 for answers to what was asked, near 1 where one answer does
/// for everything. Nothing with a single prompt.
fn similarity(rows: &[Generated], text: &dyn Fn(&[u32]) -> Result<String>) -> Result<Vec<f64>> {
    let texts: Vec<String> = rows.iter().map(|row| text(&row.response)).collect::<Result<_>>()?;
    let next = rows.iter().zip(&texts).cycle().skip(1);
    let meteor = Meteor::exact();
    let pairs = rows.iter().zip(&texts).zip(next).filter(|((a, _), (b, _))| a.prompt != b.prompt);
    Ok(pairs.map(|((_, a), (_, b))| meteor.similarity(a, b)).collect())
}

/// The scores that precede each response token, `[B, R, V]`.
fn response_logits(model: &dyn CausalLm, completions: &Completions) -> Tensor<3> {
    let (b, p, r) = (completions.batch_size(), completions.prompt.width(), completions.response.width());
    model.logits(&completions.joined()).slice([0..b, p - 1..p + r - 1])
}

fn host(values: Tensor<1>) -> Vec<f64> {
    values.into_data().iter::<f64>().collect()
}
