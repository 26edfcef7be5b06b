//! Weights of training examples, and the logits they are tuned by.

use serde::{Deserialize, Serialize};

use crate::BilevelError;

/// How tuned logits x make a weight for each training example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Weights {
    /// One logit for each of `n` examples: `sᵢ = 1 / (1 + e^{−xᵢ})`, in (0, 1).
    PerExample {
        /// n.
        count: usize,
    },
    /// One logit for each source: the shares `p = softmax(x)` are what each source contributes to the lower loss, however
    /// many examples it has, so that an example of source s weighs `sᵢ = pₛ · n / nₛ`. The mean weight is 1 at any x.
    PerSource {
        /// The source of each example.
        source: Vec<usize>,
        /// nₛ, the number of examples of each source.
        sizes: Vec<usize>,
    },
}

impl Weights {
    /// A weight for each of `count` examples.
    pub fn per_example(count: usize) -> Self {
        Self::PerExample { count }
    }

    /// A share for each source; sources are numbered from 0.
    ///
    /// # Errors
    /// [`BilevelError::InvalidSplit`] if a source between 0 and the last has no example.
    pub fn per_source(source: Vec<usize>) -> Result<Self, BilevelError> {
        let mut sizes = vec![0; source.iter().max().map_or(0, |last| last + 1)];
        source.iter().for_each(|&source| sizes[source] += 1);
        match sizes.iter().position(|&size| size == 0) {
            Some(empty) => Err(BilevelError::InvalidSplit {
                detail: format!("source {empty} of {} has no example", sizes.len()),
            }),
            None => Ok(Self::PerSource { source, sizes }),
        }
    }

    /// How many examples are weighed.
    pub fn examples(&self) -> usize {
        match self {
            Self::PerExample { count } => *count,
            Self::PerSource { source, .. } => source.len(),
        }
    }

    /// How many logits there are.
    pub fn len(&self) -> usize {
        match self {
            Self::PerExample { count } => *count,
            Self::PerSource { sizes, .. } => sizes.len(),
        }
    }

    /// Whether there is nothing to tune.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Logits at which the examples weigh the same: a half each, or 1 each where sources are weighed.
    pub fn start(&self) -> Vec<f64> {
        match self {
            Self::PerExample { count } => vec![0.0; *count],
            Self::PerSource { sizes, .. } => sizes.iter().map(|&size| (size as f64).ln()).collect(),
        }
    }

    /// What no example can weigh more than.
    pub fn largest(&self) -> f64 {
        match self {
            Self::PerExample { .. } => 1.0,
            Self::PerSource { source, sizes } => {
                let fewest = sizes.iter().min().copied().unwrap_or(1);
                source.len() as f64 / fewest as f64
            }
        }
    }

    /// The weights of some examples.
    pub fn of(&self, x: &[f64], rows: &[usize]) -> Vec<f64> {
        match self {
            Self::PerExample { .. } => rows.iter().map(|&row| sigmoid(x[row])).collect(),
            Self::PerSource { source, sizes } => {
                let (p, n) = (softmax(x), source.len() as f64);
                rows.iter().map(|&row| p[source[row]] * n / sizes[source[row]] as f64).collect()
            }
        }
    }

    /// The weights of all examples.
    pub fn all(&self, x: &[f64]) -> Vec<f64> {
        let rows: Vec<usize> = (0..self.examples()).collect();
        self.of(x, &rows)
    }

    /// What each logit's variable became: the weight of each example, or the share of each source.
    pub fn shares(&self, x: &[f64]) -> Vec<f64> {
        match self {
            Self::PerExample { .. } => x.iter().map(|&logit| sigmoid(logit)).collect(),
            Self::PerSource { .. } => softmax(x),
        }
    }

    /// `∇ₓ (1/b) Σ sᵢ(x) ℓᵢ` over the b rows of a batch.
    ///
    /// For examples `s′(xᵢ) ℓᵢ / b`, with `s′ = s (1 − s)`. For sources `pₛ (aₛ − Σₜ pₜ aₜ)`, where `aₛ` is what source s adds
    /// to the mean at a share of 1.
    pub fn gradient(&self, x: &[f64], rows: &[usize], losses: &[f64]) -> Vec<f64> {
        let mut gradient = vec![0.0; x.len()];
        let per_row = 1.0 / rows.len() as f64;
        match self {
            Self::PerExample { .. } => {
                for (&row, loss) in rows.iter().zip(losses) {
                    let s = sigmoid(x[row]);
                    gradient[row] += s * (1.0 - s) * loss * per_row;
                }
            }
            Self::PerSource { source, sizes } => {
                let (p, n) = (softmax(x), source.len() as f64);
                for (&row, loss) in rows.iter().zip(losses) {
                    gradient[source[row]] += n / sizes[source[row]] as f64 * loss * per_row;
                }
                let mean: f64 = p.iter().zip(&gradient).map(|(p, a)| p * a).sum();
                for (p, a) in p.iter().zip(&mut gradient) {
                    *a = p * (*a - mean);
                }
            }
        }
        gradient
    }
}

/// `1 / (1 + e^{−x})`, without overflow.
pub(crate) fn sigmoid(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    if x >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
}

/// `ln(1 + eˣ)`, without overflow.
pub(crate) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// `eˣ / Σ eˣ`.
pub(crate) fn softmax(x: &[f64]) -> Vec<f64> {
    let highest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut p: Vec<f64> = x.iter().map(|x| (x - highest).exp()).collect();
    let sum: f64 = p.iter().sum();
    p.iter_mut().for_each(|p| *p /= sum);
    p
}
