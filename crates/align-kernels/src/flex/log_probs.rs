//! Log-probabilities of targets from hidden states, a chunk of logits at a time.

use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, AutodiffBackend, Flex};
use rayon::prelude::*;

use super::Recorded;
use super::buffer::{Matrix, MatrixMut, Onto, contiguous, dims, product, reserve, tensor, values};
use super::lanes::{LANES, exp, largest, tanh, vectorised};
use crate::HeadOptions;

/// Logits held at once: 32 MiB. Each chunk reads and packs the whole head, so fewer rows would make memory the limit.
const CHUNK: usize = 1 << 23;

/// Logits kept for the backward pass: 64 MiB. What does not fit is computed again, which costs a product with the head.
const KEPT: usize = 1 << 24;

/// What the op needs beside its tensors.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// One index a row, inside the vocabulary.
    pub(super) targets: Arc<[usize]>,
    pub(super) options: HeadOptions,
}

/// What the forward pass finds, `[N]` each.
pub(super) struct Scores {
    pub(super) log_probs: FlexTensor,
    pub(super) entropies: FlexTensor,
    /// Kept for the backward pass.
    log_sums: Vec<f32>,
    /// Finished logits of the first rows, kept for the backward pass if it was asked for.
    kept: Vec<f32>,
}

/// The operands as slices, and the sizes.
#[derive(Clone, Copy)]
struct Operands<'a> {
    hidden: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    e: usize,
    v: usize,
}

impl Operands<'_> {
    /// Rows of a chunk.
    fn rows(&self, n: usize) -> usize {
        (CHUNK / self.v / 16 * 16).clamp(16, n.max(16)).min(n.max(1))
    }

    /// Rows whose logits are kept: all, or as many whole chunks as fit.
    fn kept_rows(&self, n: usize) -> usize {
        let fit = KEPT / self.v;
        if fit >= n { n } else { fit / self.rows(n) * self.rows(n) }
    }

    /// `hidden·weightᵀ` of some rows.
    fn logits(&self, start: usize, logits: &mut [f32]) {
        let rows = logits.len() / self.v;
        let hidden = &self.hidden[start * self.e..][..rows * self.e];
        // SAFETY: the slices hold [rows, e], [v, e] and [rows, v].
        unsafe {
            let (a, b) = (Matrix::new(hidden, self.e), Matrix::new(self.weight, self.e).transposed());
            product(
                [rows, self.v, self.e],
                MatrixMut::new(logits, self.v),
                Onto::Fresh,
                1.0,
                a,
                b,
                parallelism(),
            );
        }
    }

    /// Bias, cap and temperature, in place.
    #[inline(always)]
    fn finish(&self, logits: &mut [f32], options: &HeadOptions) {
        let inverse = (1.0 / options.temperature) as f32;
        let bias = &self.bias[..logits.len()];
        match options.softcap {
            Some(cap) => {
                let cap = cap as f32;
                for j in 0..logits.len() {
                    logits[j] = cap * tanh((logits[j] + bias[j]) / cap) * inverse;
                }
            }
            None => {
                for j in 0..logits.len() {
                    logits[j] = (logits[j] + bias[j]) * inverse;
                }
            }
        }
    }
}

fn parallelism() -> gemm::Parallelism {
    if rayon::current_num_threads() > 1 { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None }
}

/// Log-probability of each target and entropy of each row.
///
/// With `z` the logits less their largest and `Z = Σ eᶻ`: `log p = z − log Z` and the entropy is `log Z − Σ eᶻ·z / Z`.
pub(super) fn score(
    hidden: FlexTensor,
    weight: FlexTensor,
    bias: FlexTensor,
    head: &Head,
    keep: bool,
) -> Scores {
    let (hidden, weight, bias) = (contiguous(hidden), contiguous(weight), contiguous(bias));
    let ([n, e], [v, _]) = (dims(&hidden), dims(&weight));
    let operands = Operands { hidden: values(&hidden), weight: values(&weight), bias: values(&bias), e, v };
    let rows = operands.rows(n);
    let kept_rows = if keep { operands.kept_rows(n) } else { 0 };
    let mut kept = reserve(kept_rows * v);
    let mut chunk = reserve(if kept_rows < n { rows * v } else { 0 });
    let mut found = vec![(0.0_f32, 0.0_f32, 0.0_f32); n];
    for (i, found) in found.chunks_mut(rows).enumerate() {
        let chunk = match i * rows < kept_rows {
            true => &mut kept[i * rows * v..][..found.len() * v],
            false => &mut chunk[..found.len() * v],
        };
        operands.logits(i * rows, chunk);
        let targets = &head.targets[i * rows..][..found.len()];
        let rows = chunk.par_chunks_exact_mut(v).zip(targets).zip(found);
        rows.for_each(|((logits, &target), found)| {
            vectorised(
                #[inline(always)]
                || {
                    operands.finish(logits, &head.options);
                    let top = largest(logits);
                    let (sum, moment) = moments(logits, top);
                    let log_sum = sum.ln();
                    *found = (logits[target] - top - log_sum, log_sum - moment / sum, top + log_sum);
                },
            );
        });
    }
    let column = |pick: fn(&(f32, f32, f32)) -> f32| -> Vec<f32> { found.iter().map(pick).collect() };
    Scores {
        log_probs: tensor(column(|found| found.0), [n]),
        entropies: tensor(column(|found| found.1), [n]),
        log_sums: column(|found| found.2),
        kept,
    }
}

/// `Σ eᶻ` and `Σ eᶻ·z` with `z = logit − top`.
#[inline(always)]
fn moments(logits: &[f32], top: f32) -> (f32, f32) {
    let (mut sums, mut moments) = ([0.0_f32; LANES], [0.0_f32; LANES]);
    let chunks = logits.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            // Below −87 the exponential is 0; bounded so that −∞ · 0 stays 0.
            let z = if chunk[lane] - top < -88.0 { -88.0 } else { chunk[lane] - top };
            let p = exp(z);
            sums[lane] += p;
            moments[lane] = p.mul_add(z, moments[lane]);
        }
    }
    for (lane, logit) in rest.iter().enumerate() {
        let z = if logit - top < -88.0 { -88.0 } else { logit - top };
        sums[lane] += exp(z);
        moments[lane] = exp(z).mul_add(z, moments[lane]);
    }
    (sums.iter().sum(), moments.iter().sum())
}

/// Which gradients are wanted: of hidden states, weight and bias.
#[derive(Clone, Copy)]
struct Wanted([bool; 3]);

/// The gradients, the logits of each chunk that was not kept computed again: `dz = dy·(1[target] − p)·slope/temperature`.
fn score_backward(
    inputs: [FlexTensor; 3],
    dy: FlexTensor,
    head: &Head,
    log_sums: &[f32],
    mut kept: Vec<f32>,
    Wanted(wanted): Wanted,
) -> [Option<FlexTensor>; 3] {
    let [hidden, weight, bias] = inputs.map(contiguous);
    let dy = contiguous(dy);
    let ([n, e], [v, _], dy) = (dims(&hidden), dims(&weight), values(&dy));
    let operands = Operands { hidden: values(&hidden), weight: values(&weight), bias: values(&bias), e, v };
    let rows = operands.rows(n);
    let room = |wanted: bool, size: usize| vec![0.0_f32; if wanted { size } else { 0 }];
    let (mut dhidden, mut dweight, mut dbias) =
        (room(wanted[0], n * e), room(wanted[1], v * e), room(wanted[2], v));
    let kept_rows = kept.len() / v;
    let mut chunk = reserve(if kept_rows < n { rows * v } else { 0 });
    let inverse = (1.0 / head.options.temperature) as f32;
    for start in (0..n).step_by(rows) {
        let count = rows.min(n - start);
        let is_kept = start < kept_rows;
        let chunk = match is_kept {
            true => &mut kept[start * v..][..count * v],
            false => &mut chunk[..count * v],
        };
        if !is_kept {
            operands.logits(start, chunk);
        }
        chunk.par_chunks_exact_mut(v).enumerate().for_each(|(i, logits)| {
            let (target, factor, log_sum) =
                (head.targets[start + i], dy[start + i] * inverse, log_sums[start + i]);
            vectorised(
                #[inline(always)]
                || {
                    if !is_kept {
                        operands.finish(logits, &head.options);
                    }
                    let at_target = logits[target];
                    // The cap's slope is 1 − (z·temperature/cap)².
                    let ratio =
                        head.options.softcap.map_or(0.0, |cap| (head.options.temperature / cap) as f32);
                    for logit in logits.iter_mut() {
                        let slope = 1.0 - (*logit * ratio) * (*logit * ratio);
                        *logit = -factor * exp(*logit - log_sum) * slope;
                    }
                    logits[target] += factor * (1.0 - (at_target * ratio) * (at_target * ratio));
                },
            );
        });
        let gradient = Matrix::new(chunk, v);
        // SAFETY: the slices hold [count, e], [v, e] and [count, v].
        unsafe {
            if wanted[0] {
                let target = MatrixMut::new(&mut dhidden[start * e..][..count * e], e);
                let b = Matrix::new(operands.weight, e);
                product([count, e, v], target, Onto::Fresh, 1.0, gradient, b, parallelism());
            }
            if wanted[1] {
                let target = MatrixMut::new(&mut dweight, e);
                let b = Matrix::new(&operands.hidden[start * e..][..count * e], e);
                product([v, e, count], target, Onto::Sum, 1.0, gradient.transposed(), b, parallelism());
            }
        }
        if wanted[2] {
            for row in chunk.chunks_exact(v) {
                dbias.iter_mut().zip(row).for_each(|(sum, row)| *sum += row);
            }
        }
    }
    [
        wanted[0].then(|| tensor(dhidden, [n, e])),
        wanted[1].then(|| tensor(dweight, [v, e])),
        wanted[2].then(|| tensor(dbias, [v])),
    ]
}

/// Logits that the one backward pass takes out and overwrites.
#[derive(Clone, Debug)]
struct Kept(Arc<Mutex<Vec<f32>>>);

#[derive(Debug)]
struct ScoreBackward;

impl Backward<Flex, 3> for ScoreBackward {
    type State = ([NodeId; 3], Arc<[f32]>, Kept, Head);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let (nodes, log_sums, kept, head) = ops.state;
        let dy = grads.consume::<Flex>(&ops.node);
        let inputs = nodes.map(|node| checkpointer.retrieve_node_output(node));
        let wanted = Wanted(std::array::from_fn(|i| ops.parents[i].is_some()));
        let kept = std::mem::take(&mut *kept.0.lock().unwrap_or_else(PoisonError::into_inner));
        let found = score_backward(inputs, dy, &head, &log_sums, kept, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let (Some(node), Some(gradient)) = (parent, gradient) {
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}

/// [`score`] on an autodiff device.
pub(super) fn score_recorded<C: CheckpointStrategy>(
    hidden: Recorded<C>,
    weight: Recorded<C>,
    bias: Recorded<C>,
    head: Head,
) -> (Recorded<C>, Recorded<C>) {
    let nodes = [hidden.node(), weight.node(), bias.node()];
    let run = |hidden: Recorded<C>, weight: Recorded<C>, bias: Recorded<C>, keep: bool| {
        score(hidden.into_primitive(), weight.into_primitive(), bias.into_primitive(), &head, keep)
    };
    let (log_probs, entropies) = match ScoreBackward.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let inputs = [&hidden, &weight, &bias].map(|input| prep.checkpoint(input));
            let scores = run(hidden, weight, bias, !head.options.recompute);
            let kept = Kept(Arc::new(Mutex::new(scores.kept)));
            (prep.finish((inputs, scores.log_sums.into(), kept, head), scores.log_probs), scores.entropies)
        }
        OpsKind::UnTracked(prep) => {
            let scores = run(hidden, weight, bias, false);
            (prep.finish(scores.log_probs), scores.entropies)
        }
    };
    (log_probs, <Autodiff<Flex, C> as AutodiffBackend>::from_inner(entropies))
}
