//! The duality gap of a model too large to enumerate, from its own responses and the reference's.

use std::collections::HashMap;

use align_core::draws::Purpose;
use align_core::{CausalLm, Completions, Draws, Preference, checked_preferences};
use align_models::{Detokenize, GenerateOptions, Prompt, SamplingConfig, generate};

use super::LmGameError;
use super::tree::log_sum_exp;
use crate::batch::row_sums;

/// How responses are drawn for [`sampled_duality_gap`]. Start from [`GapOptions::new`].
#[derive(Clone, Copy)]
pub struct GapOptions<'a> {
    /// Where responses end. Temperature 1 and no filter, so that what is drawn is what is measured.
    pub sampling: &'a SamplingConfig,
    /// Decides what is drawn, with the step, for [`Purpose::Evaluate`].
    pub draws: Draws,
    /// The step of the run, so that each measurement draws afresh.
    pub step: u64,
    /// Rows that go through a model or to the oracle at once; changes memory, not results.
    pub microbatch: usize,
    /// Needed for stop strings.
    pub detokenize: Option<&'a dyn Detokenize>,
}

impl<'a> GapOptions<'a> {
    /// Step 0, 32 rows at once, no stop strings.
    pub fn new(sampling: &'a SamplingConfig, draws: Draws) -> Self {
        Self { sampling, draws, step: 0, microbatch: 32, detokenize: None }
    }
}

/// A duality gap measured by sampling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampledGap {
    /// The mean over prompts of the formula with means over samples in place of expectations. It may be negative.
    pub gap: f64,
    /// The jackknife's standard error of `gap`, prompts being left out: how far off it is for both the choice of prompts and the draws.
    pub standard_error: f64,
    /// The jackknife's estimate of by how much `gap` is too high (too low where negative), samples being left out. Not subtracted:
    /// beside a gap of the same size it says that more samples are needed.
    pub bias: f64,
}

/// The mean over prompts of a policy's duality gap, from `samples` responses of the policy and as many of the reference to each.
///
/// ```text
/// Gap(π) = 2τ log E_{y∼π_ref} exp(P(y ≻ π)/τ) + 2τ KL(π‖π_ref) − 1,      P(y ≻ π) = E_{y′∼π} P(y ≻ y′)
/// ```
///
/// with every response of the reference compared with every one of the policy, N² comparisons a prompt for N samples; equal pairs of
/// texts are asked about once, a text against itself never.
///
/// Means over few samples are biased inside a logarithm and an exponential:
/// - The logarithm of a mean over draws of the reference is **too low**, by about `τ χ²(b‖π_ref)/N`, b being the best response to π:
///   the mean rests on the few draws that do best. Where none of N draws is among them, it is far too low and nothing shows it; N should
///   be several times `e^{1/τ}` in the worst case, and several times `1/π_ref(b's favourites)` in any.
/// - The exponential of a mean over draws of the policy is too high, by at most about `Var P(y ≻ y′)/(τN)` ≤ `1/(4τN)`, the variance
///   over y′ for the y that do best.
///
/// [`SampledGap::bias`] estimates the sum of both.
///
/// # Errors
/// If there are fewer than two prompts or samples, τ is not a positive finite number, sampling is filtered or at another
/// temperature than 1, vocabularies differ, nothing can be generated, a log-ratio is not finite, the oracle fails.
///
/// # Source
/// The closed form is that of [`PreferenceGame::duality_gap`](crate::game::PreferenceGame::duality_gap); Efron 1982, "The jackknife, the
/// bootstrap and other resampling plans", for error and bias.
pub fn sampled_duality_gap(
    policy: &dyn CausalLm,
    reference: &dyn CausalLm,
    oracle: &dyn Preference,
    prompts: &[Vec<u32>],
    samples: usize,
    tau: f64,
    options: &GapOptions<'_>,
) -> Result<SampledGap, LmGameError> {
    for (what, found) in [("prompts", prompts.len()), ("samples", samples)] {
        if found < 2 {
            return Err(LmGameError::TooFew { what, found });
        }
    }
    if !(tau > 0.0 && tau.is_finite()) {
        return Err(LmGameError::Tau { found: tau });
    }
    if options.microbatch == 0 {
        return Err(LmGameError::Zero { name: "microbatch" });
    }
    let temperature = options.sampling.temperature.get();
    if temperature != 1.0 || !options.sampling.is_unfiltered() {
        return Err(LmGameError::Filtered { temperature });
    }
    let (expected, found) = (policy.vocab_size(), reference.vocab_size());
    if expected != found {
        return Err(LmGameError::OtherVocabulary { expected, found });
    }
    let draw = |model: &dyn CausalLm, part: u64| -> Result<Vec<Vec<u32>>, LmGameError> {
        let how = GenerateOptions {
            samples,
            slots: options.microbatch,
            step: options.step,
            purpose: Purpose::Evaluate,
            detokenize: options.detokenize,
            ..GenerateOptions::new(options.sampling, options.draws.child(part))
        };
        let rows = generate(model, &Prompt::numbered(prompts.iter().cloned()), &how)?.rows;
        Ok(rows.into_iter().map(|row| row.response).collect())
    };
    // Numbers that no other part of a run draws with.
    let (own, others) = (draw(policy, 2)?, draw(reference, 3)?);

    let of_prompts = prompts.iter().zip(own.chunks(samples)).zip(others.chunks(samples)).enumerate();
    let mut found = Vec::with_capacity(prompts.len());
    for (index, ((prompt, own), others)) in of_prompts {
        let ratios = log_ratios(policy, reference, prompt, own, options.microbatch);
        if let Some(sample) = ratios.iter().position(|ratio| !ratio.is_finite()) {
            return Err(LmGameError::LogRatio { prompt: index, sample, found: ratios[sample] });
        }
        let wins = compare(oracle, policy, prompt, [others, own], options.microbatch)
            .map_err(|source| LmGameError::Oracle { prompt: index, source })?;
        found.push(of_prompt(&wins, &ratios, tau));
    }

    let count = found.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| found.iter().map(of).sum::<f64>() / count;
    let (gap, bias) = (mean(|of| of.0), mean(|of| of.1));
    // Of a mean, the jackknife's error is the usual one.
    let variance = found.iter().map(|of| (of.0 - gap).powi(2)).sum::<f64>() / (count - 1.0);
    Ok(SampledGap { gap, standard_error: (variance / count).sqrt(), bias })
}

/// The gap at one prompt and the jackknife's estimate of its bias. `wins[i][j]` is P(the reference's i ≻ the policy's j).
fn of_prompt(wins: &[Vec<f64>], log_ratios: &[f64], tau: f64) -> (f64, f64) {
    let n = wins.len() as f64;
    let sums: Vec<f64> = wins.iter().map(|row| row.iter().sum()).collect();
    let log_mean = |exponents: &[f64]| log_sum_exp(exponents) - (exponents.len() as f64).ln();
    let whole = log_mean(&sums.iter().map(|sum| sum / (n * tau)).collect::<Vec<_>>());
    // Without the k-th draw of both.
    let without = |k: usize| {
        let rest = (0..wins.len()).filter(|&i| i != k);
        log_mean(&rest.map(|i| (sums[i] - wins[i][k]) / ((n - 1.0) * tau)).collect::<Vec<_>>())
    };
    let left_out = (0..wins.len()).map(without).sum::<f64>() / n;
    let kl = log_ratios.iter().sum::<f64>() / n;
    (2.0 * tau * (whole + kl) - 1.0, 2.0 * tau * (n - 1.0) * (left_out - whole))
}

/// log π/π_ref of responses to one prompt, nats.
fn log_ratios(
    policy: &dyn CausalLm,
    reference: &dyn CausalLm,
    prompt: &[u32],
    responses: &[Vec<u32>],
    microbatch: usize,
) -> Vec<f64> {
    let device = policy.device().without_autodiff();
    let rows: Vec<(&[u32], &[u32])> =
        responses.iter().map(|response| (prompt, response.as_slice())).collect();
    let [own, others] = [policy, reference].map(|model| row_sums(&model, &rows, microbatch, &device));
    own.into_iter().zip(others).map(|(own, other)| f64::from(own) - f64::from(other)).collect()
}

/// P(first ≻ second) of all first responses with all second ones.
fn compare(
    oracle: &dyn Preference,
    policy: &dyn CausalLm,
    prompt: &[u32],
    [first, second]: [&[Vec<u32>]; 2],
    microbatch: usize,
) -> Result<Vec<Vec<f64>>, align_core::OracleError> {
    let device = policy.device().without_autodiff();
    let ((first, of_first), (second, of_second)) = (distinct(first), distinct(second));
    let mut known = vec![vec![0.5; second.len()]; first.len()];
    let pairs = (0..first.len()).flat_map(|a| (0..second.len()).map(move |b| (a, b)));
    let open: Vec<(usize, usize)> = pairs.filter(|&(a, b)| first[a] != second[b]).collect();
    for part in open.chunks(microbatch) {
        let side =
            |rows: Vec<Vec<u32>>| Completions::from_rows(&vec![prompt.to_vec(); rows.len()], &rows, &device);
        let firsts = side(part.iter().map(|&(a, _)| first[a].clone()).collect());
        let seconds = side(part.iter().map(|&(_, b)| second[b].clone()).collect());
        let answers = checked_preferences(oracle, &firsts, &seconds, microbatch)?;
        part.iter().zip(answers).for_each(|(&(a, b), p)| known[a][b] = p);
    }
    Ok(of_first.iter().map(|&a| of_second.iter().map(|&b| known[a][b]).collect()).collect())
}

/// The texts there are, and which of them each row is.
fn distinct(rows: &[Vec<u32>]) -> (Vec<&Vec<u32>>, Vec<usize>) {
    let mut places: HashMap<&Vec<u32>, usize> = HashMap::new();
    let mut texts = Vec::new();
    let mut place = |row| {
        *places.entry(row).or_insert_with(|| {
            texts.push(row);
            texts.len() - 1
        })
    };
    let of_rows = rows.iter().map(&mut place).collect();
    (texts, of_rows)
}
