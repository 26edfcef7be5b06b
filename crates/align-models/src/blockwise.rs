//! Gradients with one block in memory at a time.

use align_core::{BlockwiseGradients, Completions, RecomputingLm, TokenBatch, TokenLogProbs, accumulate};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use crate::transformer::Transformer;

/// A first pass keeps each block's input; then the blocks are recorded and run backward one by one, last to first.
impl RecomputingLm for Transformer {
    fn backward_blockwise(
        &self,
        completions: &Completions,
        temperature: f64,
        loss: impl FnOnce(TokenLogProbs) -> Tensor<1>,
    ) -> BlockwiseGradients {
        let [_, p] = completions.prompt.ids.dims();
        let [b, r] = completions.response.ids.dims();
        let all = completions.joined();
        let tokens = TokenBatch {
            ids: all.ids.slice([0..b, 0..p + r - 1]),
            mask: all.mask.slice([0..b, 0..p + r - 1]),
        };
        let inputs = self.backbone.inputs(&tokens);
        let mut saved = Vec::with_capacity(self.backbone.layers.len());
        // Masks of dropout are drawn by key: both passes see the same ones.
        let first = self.backbone.unrecorded();
        let mut x = {
            let context = first.context(&inputs);
            let mut x = first.embed(&inputs);
            for layer in &first.layers {
                saved.push(x.clone());
                x = layer.forward(x, &context, None);
            }
            x
        };
        let context = self.backbone.context(&inputs);
        let mut total = GradientsParams::new();

        // The end: norm, head and loss.
        let top = x.autodiff().require_grad();
        let hidden = self.backbone.norm.forward(top.clone()).narrow(1, p - 1, r);
        let value = loss(self.log_probs_from_hidden(hidden, &completions.response, temperature, true));
        let mut gradients = value.backward();
        let mut downstream = top.grad_remove(&mut gradients).expect("the loss depends on the hidden states");
        accumulate(self, GradientsParams::from_grads(gradients, self), &mut total);

        // The blocks, last to first: (y·dy).sum() has the vector-Jacobian product as its gradient.
        for layer in self.backbone.layers.iter().rev() {
            x = saved.pop().expect("one input a layer");
            let input = x.autodiff().require_grad();
            let output = layer.forward(input.clone(), &context, None);
            let mut gradients = (output * downstream).sum().backward();
            downstream = input.grad_remove(&mut gradients).expect("a block depends on its input");
            accumulate(self, GradientsParams::from_grads(gradients, layer), &mut total);
        }

        let embedded = self.backbone.embed(&inputs);
        if embedded.is_require_grad() || self.backbone.embedding.is_require_grad() {
            let gradients = (embedded * downstream).sum().backward();
            accumulate(self, GradientsParams::from_grads(gradients, self), &mut total);
        }
        BlockwiseGradients { loss: value.without_autodiff(), gradients: total }
    }
}
