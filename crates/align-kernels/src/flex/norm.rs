//! Root-mean-square and layer normalisation: one kernel, which centres or does not.

use burn::backend::Flex;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::Recorded;
use super::buffer::{SERIAL, build, contiguous, tensor, values};
use super::lanes::{sum, vectorised};

/// Rows a thread takes at a time. Fixed, so that the weight's gradient is summed in the same order on any machine.
const ROWS: usize = 32;

/// Which normalisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Norm {
    /// Whether the mean is taken off first.
    pub(super) centred: bool,
    /// Added to the mean square.
    pub(super) epsilon: f32,
    /// Added to the weight.
    pub(super) offset: f32,
}

/// The mean taken off a row and the factor that scales it.
#[inline(always)]
fn moments(x: &[f32], norm: Norm) -> (f32, f32) {
    let n = x.len();
    let mean = if norm.centred { sum(n, |i| x[i]) / n as f32 } else { 0.0 };
    let square = sum(n, |i| (x[i] - mean) * (x[i] - mean)) / n as f32;
    (mean, 1.0 / (square + norm.epsilon).sqrt())
}

/// `(x − mean)·scale·(offset + weight) + bias` for each row.
pub(super) fn normalise(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, norm: Norm) -> FlexTensor {
    let (x, weight, bias) = (contiguous(x), contiguous(weight), contiguous(bias));
    let (input, weight, bias) = (values(&x), values(&weight), values(&bias));
    let e = weight.len();
    let out = build(input.len(), ROWS * e, |i, out| {
        let input = &input[i * ROWS * e..][..out.len()];
        vectorised(
            #[inline(always)]
            || {
                for (x, y) in input.chunks_exact(e).zip(out.chunks_exact_mut(e)) {
                    let (mean, scale) = moments(x, norm);
                    for j in 0..e {
                        y[j] = (x[j] - mean) * scale * (norm.offset + weight[j]) + bias[j];
                    }
                }
            },
        );
    });
    tensor(out, x.layout().shape().clone())
}

/// The gradients of [`normalise`] for input, weight and bias.
///
/// With `x̂ = (x − mean)·scale` and `g = dy·(offset + weight)`: `dx = scale·(g − mean(g) − x̂·mean(g·x̂))`, where `mean(g)` is dropped
/// if nothing was centred; `dweight = Σ dy·x̂` and `dbias = Σ dy` over rows.
fn normalise_backward(x: FlexTensor, weight: FlexTensor, dy: FlexTensor, norm: Norm) -> [FlexTensor; 3] {
    let (x, weight, dy) = (contiguous(x), contiguous(weight), contiguous(dy));
    let shape = x.layout().shape().clone();
    let (x, weight, dy) = (values(&x), values(&weight), values(&dy));
    let e = weight.len();
    let chunk = ROWS * e;
    // Each chunk's own sums for weight and bias, added up in order afterwards.
    let mut sums = vec![0.0_f32; x.len().div_ceil(chunk.max(1)) * 2 * e];
    let mut dx = vec![0.0_f32; x.len()];
    let work = |(i, (dx, sums)): (usize, (&mut [f32], &mut [f32]))| {
        let (x, dy) = (&x[i * chunk..][..dx.len()], &dy[i * chunk..][..dx.len()]);
        let (dweight, dbias) = sums.split_at_mut(e);
        vectorised(
            #[inline(always)]
            || {
                for ((x, dy), dx) in x.chunks_exact(e).zip(dy.chunks_exact(e)).zip(dx.chunks_exact_mut(e)) {
                    let (mean, scale) = moments(x, norm);
                    let normal = |j: usize| (x[j] - mean) * scale;
                    let g = |j: usize| dy[j] * (norm.offset + weight[j]);
                    let along = sum(e, |j| g(j) * normal(j)) / e as f32;
                    let centre = if norm.centred { sum(e, g) / e as f32 } else { 0.0 };
                    for j in 0..e {
                        dx[j] = scale * (g(j) - centre - normal(j) * along);
                        dweight[j] += dy[j] * normal(j);
                        dbias[j] += dy[j];
                    }
                }
            },
        );
    };
    if x.len() <= SERIAL {
        dx.chunks_mut(chunk.max(1)).zip(sums.chunks_mut(2 * e)).enumerate().for_each(work);
    } else {
        dx.par_chunks_mut(chunk).zip(sums.par_chunks_mut(2 * e)).enumerate().for_each(work);
    }
    let mut total = vec![0.0_f32; 2 * e];
    for part in sums.chunks_exact(2 * e) {
        total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
    }
    let dbias = total.split_off(e);
    [tensor(dx, shape), tensor(total, [e]), tensor(dbias, [e])]
}

#[derive(Debug)]
struct NormBackward;

impl Backward<Flex, 3> for NormBackward {
    type State = (NodeId, NodeId, Norm);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let (x, weight, norm) = ops.state;
        let dy = grads.consume::<Flex>(&ops.node);
        let (x, weight) = (checkpointer.retrieve_node_output(x), checkpointer.retrieve_node_output(weight));
        for (parent, gradient) in ops.parents.into_iter().zip(normalise_backward(x, weight, dy, norm)) {
            if let Some(node) = parent {
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}

/// [`normalise`] on an autodiff device.
pub(super) fn normalise_recorded<C: CheckpointStrategy>(
    x: Recorded<C>,
    weight: Recorded<C>,
    bias: Recorded<C>,
    norm: Norm,
) -> Recorded<C> {
    match NormBackward.prepare::<C>([x.node(), weight.node(), bias.node()]).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let state = (prep.checkpoint(&x), prep.checkpoint(&weight), norm);
            let y = normalise(x.into_primitive(), weight.into_primitive(), bias.into_primitive(), norm);
            prep.finish(state, y)
        }
        OpsKind::UnTracked(prep) => {
            prep.finish(normalise(x.into_primitive(), weight.into_primitive(), bias.into_primitive(), norm))
        }
    }
}
