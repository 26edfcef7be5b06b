//! Products with weights, and their gradients.
//!
//! Burn's product fills its output with zeros and copies it once for alignment before anything is computed, on one thread;
//! these write it once.

use burn::Tensor;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{Dispatch, Flex};

use super::buffer::{Matrix, MatrixMut, Onto, contiguous, dims, product, reserve, tensor, values};
use super::few_rows::{FEW_ROWS, few_rows};
use super::{KernelOps, Recorded};
use crate::WeightLayout;

/// Multiplications below which a product stays on its thread.
const PARALLEL: usize = 1 << 22;

/// See [`linear`](crate::linear).
pub(crate) fn linear(x: Tensor<2>, weight: Tensor<2>, layout: WeightLayout) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as KernelOps>::project(x.into_dispatch(), weight.into_dispatch(), layout))
}

/// `x·W` or `x·Wᵀ`.
pub(super) fn project(x: FlexTensor, weight: FlexTensor, layout: WeightLayout) -> FlexTensor {
    let (x, weight) = (contiguous(x), contiguous(weight));
    let ([n, k], [rows, columns]) = (dims(&x), dims(&weight));
    let out = if layout == WeightLayout::InOut { columns } else { rows };
    if n <= FEW_ROWS {
        return few_rows(&x, &weight, layout);
    }
    let (a, b) = (Matrix::new(values(&x), k), Matrix::new(values(&weight), columns));
    let b = if layout == WeightLayout::InOut { b } else { b.transposed() };
    multiplied([n, out, k], a, b)
}

/// `a·b` as a new tensor, `[m, n]`.
fn multiplied([m, n, k]: [usize; 3], a: Matrix, b: Matrix) -> FlexTensor {
    if k == 0 {
        return tensor(vec![0.0; m * n], [m, n]);
    }
    let is_large = m * n * k >= PARALLEL && rayon::current_num_threads() > 1;
    let parallelism = if is_large { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    let mut out = reserve(m * n);
    // SAFETY: `a` and `b` cover their sizes by the callers' construction, and the product writes all of `out`.
    unsafe { product([m, n, k], MatrixMut::new(&mut out, n), Onto::Fresh, 1.0, a, b, parallelism) };
    tensor(out, [m, n])
}

/// `dx = dy·Wᵀ`.
fn input_gradient(dy: &FlexTensor, weight: &FlexTensor, layout: WeightLayout) -> FlexTensor {
    let ([n, out], [_, columns]) = (dims(dy), dims(weight));
    let b = Matrix::new(values(weight), columns);
    match layout {
        WeightLayout::InOut => {
            let [k, _] = dims(weight);
            multiplied([n, k, out], Matrix::new(values(dy), out), b.transposed())
        }
        WeightLayout::OutIn => multiplied([n, columns, out], Matrix::new(values(dy), out), b),
    }
}

/// `dW = xᵀ·dy`, in the weight's own layout.
fn weight_gradient(dy: &FlexTensor, x: &FlexTensor, layout: WeightLayout) -> FlexTensor {
    let ([n, out], [_, k]) = (dims(dy), dims(x));
    let (x, dy) = (Matrix::new(values(x), k), Matrix::new(values(dy), out));
    match layout {
        WeightLayout::InOut => multiplied([k, out, n], x.transposed(), dy),
        WeightLayout::OutIn => multiplied([out, k, n], dy.transposed(), x),
    }
}

#[derive(Debug)]
struct ProjectBackward;

impl Backward<Flex, 2> for ProjectBackward {
    type State = ([Option<NodeId>; 2], WeightLayout);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let ([x, weight], layout) = ops.state;
        let dy = contiguous(grads.consume::<Flex>(&ops.node));
        let [x_parent, weight_parent] = ops.parents;
        if let (Some(node), Some(weight)) = (x_parent, weight) {
            let weight: FlexTensor = contiguous(checkpointer.retrieve_node_output(weight));
            grads.register::<Flex>(node.id, input_gradient(&dy, &weight, layout));
        }
        if let (Some(node), Some(x)) = (weight_parent, x) {
            let x: FlexTensor = contiguous(checkpointer.retrieve_node_output(x));
            grads.register::<Flex>(node.id, weight_gradient(&dy, &x, layout));
        }
    }
}

/// [`project`] on an autodiff device. An operand is kept only if the other one wants a gradient.
pub(super) fn project_recorded<C: CheckpointStrategy>(
    x: Recorded<C>,
    weight: Recorded<C>,
    layout: WeightLayout,
) -> Recorded<C> {
    let (x_tracked, weight_tracked) = (x.is_tracked(), weight.is_tracked());
    match ProjectBackward.prepare::<C>([x.node(), weight.node()]).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let kept =
                [weight_tracked.then(|| prep.checkpoint(&x)), x_tracked.then(|| prep.checkpoint(&weight))];
            prep.finish((kept, layout), project(x.into_primitive(), weight.into_primitive(), layout))
        }
        OpsKind::UnTracked(prep) => prep.finish(project(x.into_primitive(), weight.into_primitive(), layout)),
    }
}
