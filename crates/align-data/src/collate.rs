//! Encoded rows to padded batches: prompts on the left, responses and dialogues on the right.

use align_core::{Completions, Demonstrations, PreferencePairs, TokenBatch};
use burn::tensor::{Device, Tensor, TensorData};

use crate::encode::{Example, PreferenceExample, PromptResponse};

/// Pads rows to imitate: what comes before the first token that counts is the prompt.
///
/// # Shapes
/// B examples → `[B, P]` and `[B, R]`. A first token that counts is given all the same: nothing precedes it.
///
/// # Panics
/// With no rows, or with an empty one.
pub fn demonstrations(examples: &[Example], device: &Device) -> Demonstrations {
    let start = |example: &Example| example.loss_mask.iter().position(|counts| *counts).unwrap_or(1).max(1);
    let side = |part: fn(&Example, usize) -> &[u32]| -> Vec<Vec<u32>> {
        examples.iter().map(|example| part(example, start(example)).to_vec()).collect()
    };
    let prompts = side(|example, start| &example.ids[..start]);
    let responses = side(|example, start| &example.ids[start..]);
    let completions = Completions::from_rows(&prompts, &responses, device);
    let width = completions.response.width();
    let mut counts = vec![false; examples.len() * width];
    for (example, row) in examples.iter().zip(counts.chunks_mut(width)) {
        let learnt = &example.loss_mask[start(example)..];
        row[..learnt.len()].copy_from_slice(learnt);
    }
    let counts = Tensor::from_data(
        TensorData::new(counts, [examples.len(), width]),
        &completions.response.ids.device(),
    );
    Demonstrations { completions, counts }
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
