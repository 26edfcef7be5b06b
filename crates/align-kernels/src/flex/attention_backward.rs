//! The gradients of attention, from the inputs and the log-sum-exp of each row.
//!
//! For a block of queries, with `P` computed again: `dV += Pᵀ·dO`, `dP = dO·Vᵀ`, `dS = P·(dP − Σ P·dP)`, times the cap's slope if there is a
//! cap, `dQ = scale·dS·K`, `dK += scale·dSᵀ·Q`. Dao et al. 2022, <https://arxiv.org/abs/2205.14135>, with the row sum taken from `P` and `dP`
//! rather than from the output.

use std::sync::Arc;

use burn::backend::Flex;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::Recorded;
use super::attention::{Sizes, View, attend, scores};
use super::buffer::{Heads, HeadsMut, Matrix, MatrixMut, Onto, SERIAL, product};
use super::lanes::{exp, sum, vectorised};

/// What a task needs for its blocks.
struct Scratch {
    probabilities: Vec<f32>,
    slopes: Vec<f32>,
    /// The cap's slope at each score; empty without a cap.
    cap: Vec<f32>,
}

/// The gradients for `q`, `k` and `v`.
fn attend_backward(
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    dy: FlexTensor,
    log_sums: &[f32],
    view: &View,
) -> [FlexTensor; 3] {
    let [q, k, v, dy] = [q, k, v, dy].map(Heads::readable);
    let [q, k, v, dy] = [&q, &k, &v, &dy].map(Heads::new);
    let sizes = Sizes::new(&q, &k, &v);
    let Sizes { b, h, g, t, s, d, dv } = sizes;
    let [mut dq, mut dk, mut dvalue] =
        [(q, d), (k, d), (v, dv)].map(|(like, _)| HeadsMut::zeros(like.dims, like.token_major()));
    let (write_q, write_k, write_v) = (dq.writer(), dk.writer(), dvalue.writer());
    let (block, scale, cap) = (sizes.block(), view.options.scale as f32, view.options.softcap);
    let serial = gemm::Parallelism::None;
    // One task is a key head with all query heads that read it, so that it owns its rows of all three gradients.
    let run = |scratch: &mut Scratch, task: usize| {
        let (row, shared) = (task / g, task % g);
        for head in shared * h / g..(shared + 1) * h / g {
            for start in (0..t).step_by(block) {
                let queries = start..(start + block).min(t);
                let keys = view.keys_of_block(row, &queries, sizes);
                let (m, n) = (queries.len(), keys.len());
                if n == 0 {
                    continue;
                }
                let log_sums = &log_sums[(row * h + head) * t + start..][..m];
                let probabilities = &mut scratch.probabilities[..m * n];
                let slopes = &mut scratch.slopes[..m * n];
                let (q, dy) = (q.matrix(row, head, start), dy.matrix(row, head, start));
                let (k, v) = (k.matrix(row, shared, keys.start), v.matrix(row, shared, keys.start));
                scores(probabilities, view, (q, k), [m, n], d);
                vectorised(
                    #[inline(always)]
                    || {
                        if let Some(cap) = cap {
                            let inverse = 1.0 / cap as f32;
                            for (slope, score) in scratch.cap.iter_mut().zip(probabilities.iter()) {
                                *slope = 1.0 - (score * inverse) * (score * inverse);
                            }
                        }
                        for (i, all) in probabilities.chunks_exact_mut(n).enumerate() {
                            let seen = view.hide(all, (row, start + i), &keys, sizes, f32::NEG_INFINITY);
                            seen.iter_mut().for_each(|score| *score = exp(*score - log_sums[i]));
                        }
                    },
                );
                // SAFETY: the key head's gradients belong to this task alone; the operands cover the block.
                unsafe {
                    let target = write_v.matrix(row, shared, keys.start, n);
                    let p = Matrix::new(probabilities, n);
                    product([n, dv, m], target, Onto::Sum, 1.0, p.transposed(), dy, serial);
                    let target = MatrixMut::new(slopes, n);
                    product([m, n, dv], target, Onto::Fresh, 1.0, dy, v.transposed(), serial);
                }
                vectorised(
                    #[inline(always)]
                    || {
                        for (i, slopes) in slopes.chunks_exact_mut(n).enumerate() {
                            let p = &probabilities[i * n..][..n];
                            let along = sum(n, |j| p[j] * slopes[j]);
                            for j in 0..n {
                                slopes[j] = p[j] * (slopes[j] - along);
                            }
                        }
                        if cap.is_some() {
                            slopes.iter_mut().zip(&scratch.cap).for_each(|(slope, cap)| *slope *= cap);
                        }
                    },
                );
                // SAFETY: as above; the queries' gradients belong to this task too, as it alone has their head.
                unsafe {
                    let ds = Matrix::new(slopes, n);
                    let target = write_q.matrix(row, head, start, m);
                    product([m, d, n], target, Onto::Fresh, scale, ds, k, serial);
                    let target = write_k.matrix(row, shared, keys.start, n);
                    product([n, d, m], target, Onto::Sum, scale, ds.transposed(), q, serial);
                }
            }
        }
    };
    let scratch = || Scratch {
        probabilities: vec![0.0; block * s],
        slopes: vec![0.0; block * s],
        cap: vec![0.0; if cap.is_some() { block * s } else { 0 }],
    };
    if sizes.work() <= SERIAL * 8 {
        let mut scratch = scratch();
        (0..b * g).for_each(|task| run(&mut scratch, task));
    } else {
        (0..b * g).into_par_iter().for_each_init(scratch, run);
    }
    [dq, dk, dvalue].map(HeadsMut::into_tensor)
}

#[derive(Debug)]
struct AttendBackward;

/// Inputs, each row's log-sum-exp, and the view.
type State = ([NodeId; 3], Arc<[f32]>, View);

impl Backward<Flex, 3> for AttendBackward {
    type State = State;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let (nodes, log_sums, view) = ops.state;
        let dy = grads.consume::<Flex>(&ops.node);
        let [q, k, v] = nodes.map(|node| checkpointer.retrieve_node_output(node));
        let found = attend_backward(q, k, v, dy, &log_sums, &view);
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let Some(node) = parent {
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}

/// [`attend`] on an autodiff device.
pub(super) fn attend_recorded<C: CheckpointStrategy>(
    q: Recorded<C>,
    k: Recorded<C>,
    v: Recorded<C>,
    view: View,
) -> Recorded<C> {
    match AttendBackward.prepare::<C>([q.node(), k.node(), v.node()]).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let nodes = [&q, &k, &v].map(|input| prep.checkpoint(input));
            let (y, log_sums) = attend(q.into_primitive(), k.into_primitive(), v.into_primitive(), &view);
            prep.finish((nodes, log_sums.into(), view), y)
        }
        OpsKind::UnTracked(prep) => {
            prep.finish(attend(q.into_primitive(), k.into_primitive(), v.into_primitive(), &view).0)
        }
    }
}
