//! Incremental decoding with keys and values kept.

use align_core::{Decoder, TokenBatch};
use align_kernels::KeyValueCache;
use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};

use crate::backbone::{Inputs, assert_ids_below};
use crate::transformer::Transformer;

/// Columns of room beyond the prompt when a decoding starts; the cache doubles when they are used up.
const ROOM: usize = 64;

/// A decoding in progress: one cache a layer, written in place.
///
/// It computes what the whole forward pass computes, with one exception: under `dynamic` rotary scaling a sequence that
/// grows past the context keeps the keys it has, as in transformers, while a whole pass would turn all of them anew.
pub(crate) struct CachedDecoder {
    /// Without gradients; shares storage with the model it was made from.
    model: Transformer,
    caches: Vec<KeyValueCache>,
}

impl CachedDecoder {
    pub(crate) fn new(model: &Transformer) -> Self {
        let layers = model.config().num_layers;
        Self { model: model.valid(), caches: vec![KeyValueCache::new(Vec::new(), 1); layers] }
    }

    /// Scores after the last column.
    fn last_scores(&self, hidden: Tensor<3>) -> Tensor<2> {
        let [_, t, _] = hidden.dims();
        self.model.score(hidden.narrow(1, t - 1, 1).squeeze_dim(1))
    }
}

impl Decoder for CachedDecoder {
    /// # Panics
    /// If a prompt is empty: there is nothing that scores could follow.
    fn admit(&mut self, prompts: &TokenBatch) -> Tensor<2> {
        let rows = prompts.rows();
        if let Some(row) = rows.iter().position(Vec::is_empty) {
            panic!("prompt {row} is empty, expected at least one token");
        }
        let prompts = TokenBatch::left_padded(&rows, &self.model.backbone.device());
        let inputs = self.model.backbone.inputs(&prompts);
        let starts: Vec<usize> = rows.iter().map(|row| prompts.width() - row.len()).collect();
        let capacity = prompts.width() + ROOM;
        let mut fresh: Vec<_> =
            self.caches.iter().map(|_| KeyValueCache::new(starts.clone(), capacity)).collect();
        let hidden = self.model.backbone.forward(&inputs, Some(&mut fresh));
        for (cache, fresh) in self.caches.iter_mut().zip(fresh) {
            cache.join(fresh);
        }
        self.last_scores(hidden)
    }

    fn advance(&mut self, next: &[u32]) -> Tensor<2> {
        let device = self.model.backbone.device().without_autodiff();
        let cache = self.caches.first().expect("a model has at least one layer");
        assert_eq!(next.len(), cache.rows(), "one token for each row");
        assert_ids_below(next.iter().map(|&id| i64::from(id)), self.model.config().vocab_size);
        let ids: Vec<i64> = next.iter().map(|&id| i64::from(id)).collect();
        let longest = cache.starts().iter().map(|&start| cache.end() - start + 1).max().unwrap_or(1);
        let inputs = Inputs {
            ids: Tensor::<2, Int>::from_data(TensorData::new(ids, [next.len(), 1]), &device),
            mask: None,
            positions: cache.next_positions(1, &device),
            length: longest,
        };
        let hidden = self.model.backbone.forward(&inputs, Some(&mut self.caches));
        self.last_scores(hidden)
    }

    fn keep(&mut self, rows: &[usize]) {
        for cache in &mut self.caches {
            cache.keep(rows);
            cache.compact();
        }
    }
}
