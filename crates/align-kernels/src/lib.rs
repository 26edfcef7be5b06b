//! The operations a transformer spends its time in, each fused on the CPU and composed of plain tensor operations
//! everywhere else.
//!
//! Every function takes and gives ordinary [`burn::Tensor`]s. On Burn's Flex device, in f32 and with the feature `flex`, it runs a
//! kernel of this crate that keeps no large intermediate and brings its own gradient; on any other device or type it is
//! the composition in [`plain`], which is also what the tests compare with. Nothing else decides: two calls with the
//! same tensors take the same path.
//!
//! | topic | where |
//! | --- | --- |
//! | gated and plain activations | [`swiglu`], [`geglu`], [`gelu`], [`Approximation`] |
//! | the residual connection | [`add`] |
//! | normalisation | [`rms_norm`], [`layer_norm`] |
//! | rotary position embedding | [`RotaryTable`], [`Rotation`], [`rope`] |
//! | attention over whole sequences | [`attention`], [`AttentionOptions`] |
//! | decoding from a cache | [`KeyValueCache`], [`cache_attention`] |
//! | log-probabilities without the logits | [`token_log_probs`], [`HeadOptions`], [`TokenLogProbs`] |
//! | products with weights, fast for the few rows of a decoding step | [`linear`], [`WeightLayout`] |
//! | the optimizer's pass over memory | [`adamw`], [`axpby`], [`square_sums`] |
//! | whether the kernels serve a tensor | [`is_fused`] |
//! | freed memory stays in the process | [`tune_allocator`] |
//!
//! ```
//! use align_kernels::{is_fused, plain, swiglu};
//! use burn::Tensor;
//! use burn::tensor::Device;
//!
//! let device = Device::flex().autodiff();
//! let gate = Tensor::<2>::from_floats([[1.0, -2.0], [0.5, 3.0]], &device).require_grad();
//! let y = swiglu(gate.clone(), gate.ones_like());
//! assert!(is_fused(&gate)); // the kernel ran, and records its own gradient
//! let slope = gate.grad(&y.sum().backward()).unwrap();
//! let composed = plain::swiglu(gate.clone(), gate.ones_like()).sum().backward();
//! assert!((slope - gate.grad(&composed).unwrap()).abs().max().into_scalar::<f32>() < 1e-6);
//! ```
//!
//! # Agreement
//! Measured against the composition in f64, values are within 2e-6 of the largest one and gradients within 5e-6; the tests
//! state each bound and its reason. The exponential is our own, within two units in the last place.
//!
//! # Shapes
//! `B` rows, `H` query heads, `G` key heads (`G` divides `H`), `T` queries, `S` keys, `D` head width, `N` tokens, `E` hidden
//! width, `V` vocabulary. A `mask` is true where a position **counts**.

// The kernels hand raw pointers to `gemm` and share disjoint parts of one output among threads; nothing else in the
// workspace may.
#![allow(unsafe_code)]

mod activation;
mod allocator;
mod attention;
mod cache;
mod device;
#[cfg(feature = "flex")]
mod flex;
mod linear;
mod log_probs;
mod norm;
mod optimizer;
pub mod plain;
mod rotary;

pub use activation::{Approximation, add, geglu, gelu, swiglu, tanh};
pub use allocator::tune_allocator;
pub use attention::{AttentionOptions, attention, cache_attention};
pub use cache::KeyValueCache;
pub use device::is_fused;
pub use linear::{WeightLayout, linear};
pub use log_probs::{HeadOptions, TokenLogProbs, token_log_probs};
pub use norm::{layer_norm, rms_norm};
pub use optimizer::{AdamWState, AdamWStep, adamw, axpby, square_sums};
pub use rotary::{RotaryTable, Rotation, rope};
