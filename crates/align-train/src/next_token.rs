//! Cross-entropy of the next token: supervised fine-tuning.

use align_core::{CausalLm, Demonstrations};

use crate::metrics::Metrics;
use crate::objective::{Loss, Objective};

/// `−Σ log π(y_t | x, y_<t)` over the response tokens that count; prompts are given, not learned, and so is what others
/// say between two turns of the assistant.
///
/// # Units
/// Nats; divided by the number of tokens of the step. Reports `perplexity = exp(loss)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct NextToken;

impl<M: CausalLm> Objective<M> for NextToken {
    type Batch = Demonstrations;

    fn loss(&self, model: &M, batch: &Demonstrations) -> Loss {
        let tokens = batch.counts.clone().int().sum().to_data().iter::<f64>().sum();
        let log_probs = model.token_log_probs(&batch.completions, 1.0).log_probs;
        let hidden = batch.counts.clone().bool_not();
        Loss::new(log_probs.mask_fill(hidden, 0.0).sum().neg(), tokens)
    }

    fn finish(&self, metrics: &mut Metrics) {
        if let Some(loss) = metrics.get("loss") {
            metrics.set("perplexity", loss.exp());
        }
    }
}
