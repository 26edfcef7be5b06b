//! The gold reward as a judge of token ids.

use align_core::{Completions, Reward};
use burn::tensor::{Tensor, TensorData};

use super::World;
use crate::tokenizer::{SpecialTokens, Tokenizer};

/// A world's gold reward, for completions in the world's tokens.
#[derive(Clone)]
pub struct GoldReward<T> {
    world: World,
    tokenizer: T,
}

impl<T: Tokenizer> GoldReward<T> {
    /// Judges completions of a tokenizer, usually [`World::tokenizer`].
    pub fn new(world: World, tokenizer: T) -> Self {
        Self { world, tokenizer }
    }

    /// The rewards of every row, on the host. Ids without a text count as an empty response.
    pub fn scores(&self, completions: &Completions) -> Vec<f64> {
        let text = |ids: &Vec<u32>| self.tokenizer.decode(ids, SpecialTokens::Skip).unwrap_or_default();
        let prompts = completions.prompt.rows();
        let responses = completions.response.rows();
        prompts
            .iter()
            .zip(&responses)
            .map(|(prompt, response)| self.world.gold(&text(prompt), &text(response)))
            .collect()
    }
}

impl<T: Tokenizer> Reward for GoldReward<T> {
    fn score(&self, completions: &Completions) -> Tensor<1> {
        let scores: Vec<f32> = self.scores(completions).into_iter().map(|score| score as f32).collect();
        let count = scores.len();
        Tensor::from_data(TensorData::new(scores, [count]), &completions.prompt.ids.device())
    }
}
