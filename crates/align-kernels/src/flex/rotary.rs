//! Rotary embedding over strided heads.

use burn::backend::Flex;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;

use super::Recorded;
use super::buffer::{Heads, build, contiguous, dims, tensor, values};
use super::lanes::vectorised;

/// Which way the pairs are turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Forward,
    Back,
}

/// Turns the pairs of `x` by the angles. The result lies in memory as `x` does: heads inside tokens, or tokens inside heads.
pub(super) fn rotate(x: FlexTensor, cos: FlexTensor, sin: FlexTensor) -> FlexTensor {
    let token_major = Heads::new(&x).token_major();
    turn(x, cos, sin, Direction::Forward, token_major)
}

fn turn(
    x: FlexTensor,
    cos: FlexTensor,
    sin: FlexTensor,
    direction: Direction,
    token_major: bool,
) -> FlexTensor {
    let (cos, sin) = (contiguous(cos), contiguous(sin));
    let [rows, _, half] = dims(&cos);
    let (cos, sin) = (values(&cos), values(&sin));
    let sign = if direction == Direction::Forward { 1.0 } else { -1.0 };
    let x = Heads::readable(x);
    let heads = Heads::new(&x);
    let [b, h, t, d] = heads.dims;
    // One chunk is what lies together: the heads of a token, or the tokens of a head.
    let (outer, inner) = if token_major { (t, h) } else { (h, t) };
    let out = build(b * h * t * d, inner * d, |i, out| {
        let (row, outer) = (i / outer, i % outer);
        vectorised(
            #[inline(always)]
            || {
                for (inner, y) in out.chunks_exact_mut(d).enumerate() {
                    let (head, token) = if token_major { (inner, outer) } else { (outer, inner) };
                    let x = heads.row(row, head, token);
                    let angles = ((if rows == 1 { 0 } else { row }) * t + token) * half;
                    let (cos, sin) = (&cos[angles..][..half], &sin[angles..][..half]);
                    let (first, second) = (&x[..half], &x[half..2 * half]);
                    let (turned, rest) = y.split_at_mut(2 * half);
                    let (y_first, y_second) = turned.split_at_mut(half);
                    for j in 0..half {
                        let (c, s) = (cos[j], sign * sin[j]);
                        y_first[j] = first[j] * c - second[j] * s;
                        y_second[j] = second[j] * c + first[j] * s;
                    }
                    rest.copy_from_slice(&x[2 * half..]);
                }
            },
        );
    });
    if token_major { tensor(out, [b, t, h, d]).transpose(1, 2) } else { tensor(out, [b, h, t, d]) }
}

#[derive(Debug)]
struct RotateBackward;

impl Backward<Flex, 1> for RotateBackward {
    type State = (FlexTensor, FlexTensor, bool);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (cos, sin, token_major) = ops.state;
        let dy = grads.consume::<Flex>(&ops.node);
        let [parent] = ops.parents;
        if let Some(node) = parent {
            grads.register::<Flex>(node.id, turn(dy, cos, sin, Direction::Back, token_major));
        }
    }
}

/// [`rotate`] on an autodiff device. Only the angles are kept.
pub(super) fn rotate_recorded<C: CheckpointStrategy>(
    x: Recorded<C>,
    cos: Recorded<C>,
    sin: Recorded<C>,
) -> Recorded<C> {
    let (cos, sin) = (cos.into_primitive(), sin.into_primitive());
    match RotateBackward.prepare::<C>([x.node()]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let token_major = Heads::new(x.primitive()).token_major();
            let state = (cos.clone(), sin.clone(), token_major);
            prep.finish(state, rotate(x.into_primitive(), cos, sin))
        }
        OpsKind::UnTracked(prep) => prep.finish(rotate(x.into_primitive(), cos, sin)),
    }
}
