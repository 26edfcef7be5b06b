//! Several models as one: weighted log-probabilities, token by token.

use align_core::{CausalLm, Decoder, TokenBatch};
use burn::tensor::{Device, Tensor, activation::log_softmax};

/// `π(v | s) ∝ Π_i π_i(v | s)^{w_i}`: the geometric mixture of next-token distributions.
///
/// Its decoder holds its members' decoders, so that each keeps its own cache. With weights `1 − β` and `β` on a policy and a
/// reference it is the opponent of Nash-MD.
///
/// # Source
/// Munos et al. 2023, section 7.3, <https://arxiv.org/abs/2312.00886>: the mixture by token, not by whole answer.
///
/// # Examples
/// ```
/// use align_core::{CausalLm, TokenBatch};
/// use align_models::LogLinear;
/// use align_testkit::{BigramLm, device};
///
/// let policy = BigramLm::independent(&[0.0, 2.0], &device());
/// let reference = BigramLm::independent(&[0.0, 0.0], &device());
/// let mixture = LogLinear::new(vec![(0.5, Box::new(&policy)), (0.5, Box::new(&reference))]);
/// let tokens = TokenBatch::left_padded(&[vec![0]], &device());
/// let scores: Vec<f32> = mixture.logits(&tokens).to_data().iter::<f32>().collect();
/// assert!((scores[1] - scores[0] - 1.0).abs() < 1e-6); // half of 2
/// ```
pub struct LogLinear<'m> {
    parts: Vec<(f64, Box<dyn CausalLm + 'm>)>,
}

impl<'m> LogLinear<'m> {
    /// Weights may be negative and need not sum to 1.
    ///
    /// # Panics
    /// With no part, or parts of different vocabularies.
    pub fn new(parts: Vec<(f64, Box<dyn CausalLm + 'm>)>) -> Self {
        assert!(!parts.is_empty(), "a mixture of models needs at least one");
        let sizes: Vec<usize> = parts.iter().map(|(_, part)| part.vocab_size()).collect();
        assert!(
            sizes.iter().all(|size| *size == sizes[0]),
            "a mixture needs one vocabulary, found {sizes:?}"
        );
        Self { parts }
    }

    /// Σ wᵢ log πᵢ from the members' scores.
    fn weigh<const D: usize>(&self, scores: impl Iterator<Item = Tensor<D>>) -> Tensor<D> {
        let weighed =
            self.parts.iter().zip(scores).map(|((weight, _), scores)| log_softmax(scores, D - 1) * *weight);
        weighed.reduce(|sum, part| sum + part).expect("a mixture has a part")
    }
}

impl CausalLm for LogLinear<'_> {
    fn logits(&self, tokens: &TokenBatch) -> Tensor<3> {
        self.weigh(self.parts.iter().map(|(_, part)| part.logits(tokens)))
    }

    fn vocab_size(&self) -> usize {
        self.parts[0].1.vocab_size()
    }

    fn device(&self) -> Device {
        self.parts[0].1.device()
    }

    fn context_length(&self) -> Option<usize> {
        self.parts.iter().filter_map(|(_, part)| part.context_length()).min()
    }

    fn decoder<'a>(&'a self) -> Box<dyn Decoder + 'a> {
        Box::new(MixtureDecoder {
            mixture: self,
            members: self.parts.iter().map(|(_, part)| part.decoder()).collect(),
        })
    }
}

struct MixtureDecoder<'a, 'm> {
    mixture: &'a LogLinear<'m>,
    members: Vec<Box<dyn Decoder + 'a>>,
}

impl Decoder for MixtureDecoder<'_, '_> {
    fn admit(&mut self, prompts: &TokenBatch) -> Tensor<2> {
        self.mixture.weigh(self.members.iter_mut().map(|member| member.admit(prompts)))
    }

    fn advance(&mut self, next: &[u32]) -> Tensor<2> {
        self.mixture.weigh(self.members.iter_mut().map(|member| member.advance(next)))
    }

    fn keep(&mut self, rows: &[usize]) {
        self.members.iter_mut().for_each(|member| member.keep(rows));
    }
}
