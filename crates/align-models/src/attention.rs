//! Self-attention of one block.

use align_kernels::{AttentionOptions, KeyValueCache, Rotation};
use burn::module::Module;
use burn::tensor::{Bool, Tensor};

use crate::mlp::{Norm, Projection};

/// Grouped-query self-attention with everything the families add: biases, norms of queries and keys, caps and windows.
#[derive(Module, Debug)]
pub struct Attention {
    pub(crate) query: Projection,
    pub(crate) key: Projection,
    pub(crate) value: Projection,
    pub(crate) output: Projection,
    pub(crate) query_norm: Option<Norm>,
    pub(crate) key_norm: Option<Norm>,
    #[module(skip)]
    pub(crate) head_dim: usize,
    #[module(skip)]
    pub(crate) options: AttentionOptions,
}

/// What the layers of one forward pass share.
pub(crate) struct Context<'a> {
    /// True where a key counts, `[B, T]`; `None` if all do. Not used with a cache, which knows its own.
    pub(crate) mask: Option<&'a Tensor<2, Bool>>,
    /// Angles of layers that see everything; `None` with learned positions.
    pub(crate) global: Option<Rotation>,
    /// Angles of layers with a window, where they differ.
    pub(crate) local: Option<Rotation>,
}

impl Context<'_> {
    fn rotation(&self, has_window: bool) -> Option<&Rotation> {
        if has_window { self.local.as_ref().or(self.global.as_ref()) } else { self.global.as_ref() }
    }
}

impl Attention {
    /// # Shapes
    /// `[B, T, E]` → `[B, T, E]`. With a cache the queries follow what it holds, and their keys are appended to it.
    pub(crate) fn forward(
        &self,
        x: Tensor<3>,
        context: &Context<'_>,
        cache: Option<&mut KeyValueCache>,
    ) -> Tensor<3> {
        let [b, t, _] = x.dims();
        let heads = |y: Tensor<3>| {
            let [_, _, width] = y.dims();
            y.reshape([b, t, width / self.head_dim, self.head_dim]).swap_dims(1, 2)
        };
        let mut q = heads(self.query.forward(x.clone()));
        let mut k = heads(self.key.forward(x.clone()));
        let v = heads(self.value.forward(x));
        if let Some(norm) = &self.query_norm {
            q = norm.forward(q);
        }
        if let Some(norm) = &self.key_norm {
            k = norm.forward(k);
        }
        if let Some(rotation) = context.rotation(self.options.window.is_some()) {
            q = align_kernels::rope(q, rotation);
            k = align_kernels::rope(k, rotation);
        }
        let mixed = match cache {
            Some(cache) => {
                cache.append(k, v);
                align_kernels::cache_attention(q, cache, &self.options)
            }
            None => align_kernels::attention(q, k, v, context.mask, &self.options),
        };
        let [_, h, _, d] = mixed.dims();
        self.output.forward(mixed.swap_dims(1, 2).reshape([b, t, h * d]))
    }
}
