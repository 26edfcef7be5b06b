//! Cross-entropy of the next token: supervised fine-tuning.

use align_core::{CausalLm, Demonstrations, RecomputingLm, TokenLogProbs};
use burn::optim::GradientsParams;

use crate::metrics::Metrics;
use crate::objective::{Loss, Objective};

/// `−Σ log π(y_t | x, y_<t)` over the response tokens that count; prompts are given, not learned, and so is what others
/// say between two turns of the assistant.
///
/// # Units
/// Nats; divided by the number of tokens of the step. Reports `perplexity = exp(loss)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct NextToken;

impl NextToken {
    fn loss_of(log_probs: TokenLogProbs, batch: &Demonstrations) -> Loss {
        let tokens = batch.counts.clone().int().sum().to_data().iter::<f64>().sum();
        let hidden = batch.counts.clone().bool_not();
        Loss::new(log_probs.log_probs.mask_fill(hidden, 0.0).sum().neg(), tokens)
    }
}

impl<M: CausalLm> Objective<M> for NextToken {
    type Batch = Demonstrations;

    fn loss(&self, model: &M, batch: &Demonstrations) -> Loss {
        Self::loss_of(model.token_log_probs(&batch.completions, 1.0), batch)
    }

    fn finish(&self, metrics: &mut Metrics) {
        if let Some(loss) = metrics.get("loss") {
            metrics.set("perplexity", loss.exp());
        }
    }
}

/// [`NextToken`] with every block computed again in the backward pass: the same loss, the same gradients up to rounding,
/// one more forward pass, and the activations of one block in memory instead of all.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecomputedNextToken;

impl<M: RecomputingLm> Objective<M> for RecomputedNextToken {
    type Batch = Demonstrations;

    fn loss(&self, model: &M, batch: &Demonstrations) -> Loss {
        NextToken.loss(model, batch)
    }

    fn gradients(&self, model: &M, batch: &Demonstrations) -> (Loss, GradientsParams) {
        let mut weight = 0.0;
        let found = model.backward_blockwise(&batch.completions, 1.0, |log_probs| {
            let loss = NextToken::loss_of(log_probs, batch);
            weight = loss.weight;
            loss.value
        });
        (Loss::new(found.loss, weight), found.gradients)
    }

    fn finish(&self, metrics: &mut Metrics) {
        <NextToken as Objective<M>>::finish(&NextToken, metrics);
    }
}
