//! Encoded rows to padded batches: prompts on the left, responses and dialogues on the right.

use align_core::{Completions, PreferencePairs, TokenBatch};
use burn::tensor::{Bool, Device, Tensor, TensorData};

use crate::encode::{Example, PreferenceExample, PromptResponse};

/// Rows to imitate, padded on the right.
#[derive(Clone, Debug)]
pub struct SftBatch {
    /// Whole rows, `[B, T]`.
    pub tokens: TokenBatch,
    /// Where predicting the token counts, `[B, T]`; never where `tokens.mask` is false.
    pub loss_mask: Tensor<2, Bool>,
}

/// Pads rows to imitate.
///
/// # Shapes
/// B examples → `[B, T]` with T the longest.
///
/// # Panics
/// With no rows.
pub fn sft_batch(examples: &[Example], device: &Device) -> SftBatch {
    let rows: Vec<Vec<u32>> = examples.iter().map(|example| example.ids.clone()).collect();
    let tokens = TokenBatch::right_padded(&rows, device);
    let width = tokens.width();
    let mut mask = vec![false; examples.len() * width];
    for (example, row) in examples.iter().zip(mask.chunks_mut(width)) {
        row[..example.loss_mask.len()].copy_from_slice(&example.loss_mask);
    }
    let loss_mask = Tensor::from_data(TensorData::new(mask, [examples.len(), width]), &tokens.ids.device());
    SftBatch { tokens, loss_mask }
}

/// Pads prompts on the left.
///
/// # Shapes
/// B prompts → `[B, P]`.
///
/// # Panics
/// With no rows.
pub fn prompt_batch(prompts: &[Vec<u32>], device: &Device) -> TokenBatch {
    TokenBatch::left_padded(prompts, device)
}

/// Pads questions on the left and answers on the right.
///
/// # Shapes
/// B rows → `[B, P]` and `[B, R]`.
///
/// # Panics
/// With no rows.
pub fn completions(rows: &[PromptResponse], device: &Device) -> Completions {
    let prompts: Vec<_> = rows.iter().map(|row| row.prompt.clone()).collect();
    let responses: Vec<_> = rows.iter().map(|row| row.response.clone()).collect();
    Completions::from_rows(&prompts, &responses, device)
}

/// Pads labelled pairs.
///
/// # Shapes
/// B pairs → both sides `[B, P]` and `[B, R]`, margins `[B]`.
///
/// # Panics
/// With no rows.
pub fn preference_pairs(examples: &[PreferenceExample], device: &Device) -> PreferencePairs {
    let prompts: Vec<_> = examples.iter().map(|example| example.prompt.clone()).collect();
    let chosen: Vec<_> = examples.iter().map(|example| example.chosen.clone()).collect();
    let rejected: Vec<_> = examples.iter().map(|example| example.rejected.clone()).collect();
    let margins: Vec<f32> = examples.iter().map(|example| example.margin as f32).collect();
    let chosen = Completions::from_rows(&prompts, &chosen, device);
    let rejected = Completions::from_rows(&prompts, &rejected, device);
    let device = chosen.prompt.ids.device();
    PreferencePairs {
        chosen,
        rejected,
        margin: Tensor::from_data(TensorData::new(margins, [examples.len()]), &device),
    }
}
