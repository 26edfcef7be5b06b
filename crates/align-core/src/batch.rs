//! Padded batches of token ids and what they are made of.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

/// A padded batch of token ids, `[B, T]`; `mask` is true where a token counts.
///
/// Both tensors live on the plain device: ids on a recording device would drag a whole forward pass onto it.
#[derive(Clone, Debug)]
pub struct TokenBatch {
    /// Token ids `[B, T]`; 0 where `mask` is false.
    pub ids: Tensor<2, Int>,
    /// True where a token counts, `[B, T]`.
    pub mask: Tensor<2, Bool>,
}

impl TokenBatch {
    /// Pads rows on the left: the last token of every row stands in the last column.
    ///
    /// # Shapes
    /// B rows of any length → `[B, T]` with `T = max(1, longest row)`.
    ///
    /// # Panics
    /// With no rows.
    pub fn left_padded(rows: &[Vec<u32>], device: &Device) -> Self {
        Self::padded(rows, device, |width, length| width - length)
    }

    /// Pads rows on the right: the first token of every row stands in column 0.
    ///
    /// # Shapes
    /// B rows of any length → `[B, T]` with `T = max(1, longest row)`.
    ///
    /// # Panics
    /// With no rows.
    pub fn right_padded(rows: &[Vec<u32>], device: &Device) -> Self {
        Self::padded(rows, device, |_, _| 0)
    }

    fn padded(rows: &[Vec<u32>], device: &Device, start: impl Fn(usize, usize) -> usize) -> Self {
        assert!(!rows.is_empty(), "a token batch needs at least one row");
        let device = device.clone().without_autodiff();
        let width = rows.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let mut ids = vec![0i64; rows.len() * width];
        let mut mask = vec![false; rows.len() * width];
        for (index, row) in rows.iter().enumerate() {
            let first = index * width + start(width, row.len());
            for (offset, &id) in row.iter().enumerate() {
                ids[first + offset] = i64::from(id);
                mask[first + offset] = true;
            }
        }
        let shape = [rows.len(), width];
        Self {
            ids: Tensor::from_data(TensorData::new(ids, shape), &device),
            mask: Tensor::from_data(TensorData::new(mask, shape), &device),
        }
    }

    /// The tokens that count, row by row, on the host.
    pub fn rows(&self) -> Vec<Vec<u32>> {
        let [_, width] = self.ids.dims();
        let ids: Vec<u32> = self.ids.to_data().iter::<i64>().map(|id| id as u32).collect();
        let mask: Vec<bool> = self.mask.to_data().iter::<bool>().collect();
        ids.chunks(width)
            .zip(mask.chunks(width))
            .map(|(ids, mask)| {
                ids.iter().zip(mask).filter(|(_, counts)| **counts).map(|(id, _)| *id).collect()
            })
            .collect()
    }

    /// How many tokens count in each row.
    pub fn lengths(&self) -> Vec<usize> {
        let [_, width] = self.ids.dims();
        let mask: Vec<bool> = self.mask.to_data().iter::<bool>().collect();
        mask.chunks(width).map(|row| row.iter().filter(|counts| **counts).count()).collect()
    }

    /// B, the number of rows.
    pub fn batch_size(&self) -> usize {
        self.ids.dims()[0]
    }

    /// T, the padded width.
    pub fn width(&self) -> usize {
        self.ids.dims()[1]
    }

    /// The given rows, in that order, at the same width.
    pub fn select(&self, rows: &[usize]) -> Self {
        let index = Tensor::<1, Int>::from_data(
            TensorData::new(rows.iter().map(|&row| row as i64).collect::<Vec<_>>(), [rows.len()]),
            &self.ids.device(),
        );
        // A boolean select is not offered everywhere; an integer one is.
        let mask = self.mask.clone().int().select(0, index.clone()).equal_elem(1);
        Self { ids: self.ids.clone().select(0, index), mask }
    }

    /// Position of every token in its row, counting only tokens that count: `cumsum(mask) − mask`, `[B, T]`.
    pub fn positions(&self) -> Tensor<2, Int> {
        let mask = self.mask.clone().int();
        mask.clone().cumsum(1) - mask
    }
}

/// Prompts padded on the left and responses padded on the right, so every response starts in the same column.
#[derive(Clone, Debug)]
pub struct Completions {
    /// What was given, `[B, P]`.
    pub prompt: TokenBatch,
    /// What was produced, `[B, R]`.
    pub response: TokenBatch,
}

impl Completions {
    /// Pads prompts on the left and responses on the right.
    ///
    /// # Panics
    /// With no rows, or with another number of responses than of prompts.
    pub fn from_rows(prompts: &[Vec<u32>], responses: &[Vec<u32>], device: &Device) -> Self {
        assert_eq!(prompts.len(), responses.len(), "as many responses as prompts");
        Self {
            prompt: TokenBatch::left_padded(prompts, device),
            response: TokenBatch::right_padded(responses, device),
        }
    }

    /// Prompt and response side by side, `[B, P + R]`.
    pub fn joined(&self) -> TokenBatch {
        TokenBatch {
            ids: Tensor::cat(vec![self.prompt.ids.clone(), self.response.ids.clone()], 1),
            mask: Tensor::cat(vec![self.prompt.mask.clone(), self.response.mask.clone()], 1),
        }
    }

    /// B, the number of rows.
    pub fn batch_size(&self) -> usize {
        self.prompt.batch_size()
    }

    /// The given rows, in that order, at the same widths.
    pub fn select(&self, rows: &[usize]) -> Self {
        Self { prompt: self.prompt.select(rows), response: self.response.select(rows) }
    }
}

/// Rows to imitate: of a dialogue with several turns, only what the assistant says is learnt.
#[derive(Clone, Debug)]
pub struct Demonstrations {
    /// What is read.
    pub completions: Completions,
    /// Where predicting the response token counts, `[B, R]`; never where `completions.response.mask` is false.
    pub counts: Tensor<2, Bool>,
}

impl From<Completions> for Demonstrations {
    /// Every response token counts.
    fn from(completions: Completions) -> Self {
        let counts = completions.response.mask.clone();
        Self { completions, counts }
    }
}

/// Labelled pairs: the completion that was preferred and the one that was not, of the same prompts.
#[derive(Clone, Debug)]
pub struct PreferencePairs {
    /// The preferred side, B rows.
    pub chosen: Completions,
    /// The other side, B rows.
    pub rejected: Completions,
    /// By how much, `[B]`, in units of reward; zero where the data does not say.
    pub margin: Tensor<1>,
}
