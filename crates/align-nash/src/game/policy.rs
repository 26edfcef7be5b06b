//! A distribution over the responses of a game.

use super::error::GameError;

/// How far from 1 given probabilities may sum: what an `f32` softmax over thousands of responses leaves.
const SUM_TOLERANCE: f64 = 1e-5;

/// A policy over a list of responses, kept as normalised log-probabilities.
///
/// Probabilities of 1e-80 and far below are ordinary in these games, so that steps are taken in log space. An entry of −∞
/// is a response that is never given.
///
/// # Examples
/// ```
/// use align_nash::game::LogPolicy;
///
/// let policy = LogPolicy::from_logits(&[0.0, 3f64.ln()])?;
/// assert!((policy.probabilities()[1] - 0.75).abs() < 1e-15);
/// assert!((policy.kl(&LogPolicy::uniform(2)) - (0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln())).abs() < 1e-15);
/// # Ok::<(), align_nash::game::GameError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LogPolicy {
    log_probs: Vec<f64>,
}

impl LogPolicy {
    /// The softmax of any numbers. Log-probabilities of a model are such numbers; if they do not cover all responses,
    /// the result is the model given that one of these is the response.
    ///
    /// # Errors
    /// Without entries, with NaN or +∞ among them, or if all are −∞.
    pub fn from_logits(logits: &[f64]) -> Result<Self, GameError> {
        if logits.is_empty() {
            return Err(GameError::NoResponses);
        }
        let wrong = logits.iter().position(|&logit| logit.is_nan() || logit == f64::INFINITY);
        if let Some(response) = wrong {
            return Err(GameError::Logit { response, found: logits[response] });
        }
        if logits.iter().all(|&logit| logit == f64::NEG_INFINITY) {
            return Err(GameError::NoSupport);
        }
        Ok(Self::softmax(logits.to_vec()))
    }

    /// Given probabilities, divided by their sum.
    ///
    /// # Errors
    /// Without entries, if one is outside [0, 1] or NaN, or if the sum differs from 1 by more than 1e-5.
    pub fn from_probabilities(probabilities: &[f64]) -> Result<Self, GameError> {
        if probabilities.is_empty() {
            return Err(GameError::NoResponses);
        }
        let wrong = probabilities.iter().position(|p| !(0.0..=1.0).contains(p));
        if let Some(response) = wrong {
            return Err(GameError::Probability { response, found: probabilities[response] });
        }
        let sum: f64 = probabilities.iter().sum();
        if (sum - 1.0).abs() > SUM_TOLERANCE {
            return Err(GameError::ProbabilitySum { sum });
        }
        Ok(Self::softmax(probabilities.iter().map(|p| p.ln()).collect()))
    }

    /// All responses alike.
    ///
    /// # Panics
    /// Without responses.
    pub fn uniform(responses: usize) -> Self {
        assert!(responses > 0, "a policy needs at least one response, found 0");
        Self { log_probs: vec![-(responses as f64).ln(); responses] }
    }

    /// Of numbers that are known to be below +∞, one of them above −∞.
    pub(crate) fn softmax(mut logits: Vec<f64>) -> Self {
        let log_sum = log_sum_exp(&logits);
        logits.iter_mut().for_each(|logit| *logit -= log_sum);
        Self { log_probs: logits }
    }

    /// log π(y), in nats; −∞ for a response that is never given.
    pub fn log_probs(&self) -> &[f64] {
        &self.log_probs
    }

    /// π(y).
    pub fn probabilities(&self) -> Vec<f64> {
        self.log_probs.iter().map(|log| log.exp()).collect()
    }

    /// How many responses there are.
    pub fn responses(&self) -> usize {
        self.log_probs.len()
    }

    /// E_{y∼π}[value(y)]: a mean length, a win rate against another policy.
    ///
    /// # Panics
    /// If there is not one value for each response.
    pub fn mean(&self, values: &[f64]) -> f64 {
        assert_eq!(values.len(), self.responses(), "a mean needs one value for each response");
        self.log_probs.iter().zip(values).map(|(log, value)| log.exp() * value).sum()
    }

    /// `KL(self‖other)`; infinite if this policy goes where the other never does.
    ///
    /// Summed as `p log(p/q) − p + q`, whose terms are all at least 0: a KL of 1e-20 keeps its leading digits.
    ///
    /// # Units
    /// Nats.
    ///
    /// # Panics
    /// If the policies have different numbers of responses.
    pub fn kl(&self, other: &Self) -> f64 {
        assert_eq!(self.responses(), other.responses(), "a KL needs two policies over the same responses");
        let pairs = self.log_probs.iter().zip(&other.log_probs);
        let term = |(&log_p, &log_q): (&f64, &f64)| -> f64 {
            let (p, q) = (log_p.exp(), log_q.exp());
            let difference = log_p - log_q;
            if p == 0.0 {
                q
            } else if difference.abs() < 1.0 {
                p * (difference + (-difference).exp_m1())
            } else {
                p * difference - p + q
            }
        };
        pairs.map(term).sum()
    }

    /// `max − min` over responses of `log(self/other)`. It bounds `|log(self/other)|` too: two distributions cross, so that
    /// the logarithm is 0 somewhere between. Responses that neither gives are left out.
    ///
    /// # Units
    /// Nats.
    ///
    /// # Panics
    /// If the policies have different numbers of responses.
    pub fn log_ratio_spread(&self, other: &Self) -> f64 {
        assert_eq!(
            self.responses(),
            other.responses(),
            "a log-ratio needs two policies over the same responses"
        );
        let ratios = self.log_probs.iter().zip(&other.log_probs).map(|(log_p, log_q)| log_p - log_q);
        let (lowest, highest) = ratios
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), ratio| (low.min(ratio), high.max(ratio)));
        highest - lowest
    }

    /// Logits of the geometric mixture, `weight · log other + (1 − weight) · log self` with a weight in [0, 1].
    pub(crate) fn mixed_logits(&self, other: &Self, weight: f64) -> Vec<f64> {
        let pairs = self.log_probs.iter().zip(&other.log_probs);
        // A weight of 0 takes nothing of a policy, not 0 · −∞.
        let part = |weight: f64, log: f64| if weight == 0.0 { 0.0 } else { weight * log };
        pairs.map(|(&own, &other)| part(weight, other) + part(1.0 - weight, own)).collect()
    }
}

/// log Σ exp, without overflow.
fn log_sum_exp(values: &[f64]) -> f64 {
    let highest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    highest + values.iter().map(|value| (value - highest).exp()).sum::<f64>().ln()
}
