//! Elementwise operations: activations, alone or multiplied by a second input, and sums.

use burn::backend::Flex;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;

use super::Recorded;
use super::buffer::{build, build_two, contiguous, tensor, values};
use super::lanes::{erf, exp, sigmoid, tanh, vectorised};
use crate::Approximation;

/// Numbers a thread takes at a time: 16 KiB of each operand stay in its first-level cache.
const CHUNK: usize = 4096;

/// An elementwise function of the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// `x·σ(x)`.
    Silu,
    /// `x·Φ(x)` by the error function.
    GeluExact,
    /// `x·Φ(x)` by the tanh approximation.
    GeluTanh,
    /// `tanh(x)`.
    Tanh,
}

impl From<Approximation> for Activation {
    fn from(approximation: Approximation) -> Self {
        match approximation {
            Approximation::Exact => Self::GeluExact,
            Approximation::Tanh => Self::GeluTanh,
        }
    }
}

/// The function's value and slope at `x`.
#[inline(always)]
fn silu(x: f32) -> (f32, f32) {
    let s = sigmoid(x);
    (x * s, s * (1.0 + x * (1.0 - s)))
}

#[inline(always)]
fn gelu_exact(x: f32) -> (f32, f32) {
    let phi = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
    let density = 0.398_942_3 * exp(-0.5 * x * x); // 1/√(2π)
    (x * phi, phi + x * density)
}

#[inline(always)]
fn gelu_tanh(x: f32) -> (f32, f32) {
    const ROOT: f32 = 0.797_884_6; // √(2/π)
    // Beyond ±20 the cube's tanh is ±1 to the last bit, and the slope's product with it would overflow.
    let bounded = x.clamp(-20.0, 20.0);
    let square = bounded * bounded;
    let t = tanh(ROOT * bounded * (0.044_715_f32.mul_add(square, 1.0)));
    let inner = ROOT * (0.134_145_f32.mul_add(square, 1.0)); // 3 · 0.044715
    (0.5 * x * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * bounded * (1.0 - t * t) * inner)
}

#[inline(always)]
fn hyperbolic_tangent(x: f32) -> (f32, f32) {
    // 1/cosh², without the cancellation of 1 − tanh² far out.
    let e = exp(-2.0 * x.abs());
    (tanh(x), 4.0 * e / ((1.0 + e) * (1.0 + e)))
}

/// Calls `$run` with the activation's function, so that each loop is compiled for each function.
macro_rules! with_function {
    ($activation:expr, $run:expr) => {
        match $activation {
            Activation::Silu => $run(silu),
            Activation::GeluExact => $run(gelu_exact),
            Activation::GeluTanh => $run(gelu_tanh),
            Activation::Tanh => $run(hyperbolic_tangent),
        }
    };
}

/// `activation(gate)·up`.
pub(super) fn gated(gate: FlexTensor, up: FlexTensor, activation: Activation) -> FlexTensor {
    #[inline(always)]
    fn run(gate: &[f32], up: &[f32], f: impl Fn(f32) -> (f32, f32) + Sync) -> Vec<f32> {
        build(gate.len(), CHUNK, |i, out| {
            let (gate, up) = (&gate[i * CHUNK..][..out.len()], &up[i * CHUNK..][..out.len()]);
            vectorised(
                #[inline(always)]
                || {
                    for j in 0..out.len() {
                        out[j] = f(gate[j]).0 * up[j];
                    }
                },
            );
        })
    }
    let (gate, up) = (contiguous(gate), contiguous(up));
    let out = with_function!(activation, |f| run(values(&gate), values(&up), f));
    tensor(out, gate.layout().shape().clone())
}

/// The gradients of [`gated`]: `dy·up·activation'(gate)` and `dy·activation(gate)`.
fn gated_backward(
    gate: FlexTensor,
    up: FlexTensor,
    dy: FlexTensor,
    activation: Activation,
) -> (FlexTensor, FlexTensor) {
    #[inline(always)]
    fn run(
        gate: &[f32],
        up: &[f32],
        dy: &[f32],
        f: impl Fn(f32) -> (f32, f32) + Sync,
    ) -> (Vec<f32>, Vec<f32>) {
        build_two(gate.len(), CHUNK, |i, dgate, dup| {
            let (n, start) = (dgate.len(), i * CHUNK);
            let (gate, up, dy) = (&gate[start..][..n], &up[start..][..n], &dy[start..][..n]);
            let dup = &mut dup[..n];
            vectorised(
                #[inline(always)]
                || {
                    for j in 0..n {
                        let (value, slope) = f(gate[j]);
                        dgate[j] = dy[j] * up[j] * slope;
                        dup[j] = dy[j] * value;
                    }
                },
            );
        })
    }
    let (gate, up, dy) = (contiguous(gate), contiguous(up), contiguous(dy));
    let (dgate, dup) = with_function!(activation, |f| run(values(&gate), values(&up), values(&dy), f));
    let shape = gate.layout().shape();
    (tensor(dgate, shape.clone()), tensor(dup, shape.clone()))
}

/// `activation(x)`.
pub(super) fn activate(x: FlexTensor, activation: Activation) -> FlexTensor {
    #[inline(always)]
    fn run(x: &[f32], f: impl Fn(f32) -> (f32, f32) + Sync) -> Vec<f32> {
        build(x.len(), CHUNK, |i, out| {
            let x = &x[i * CHUNK..][..out.len()];
            vectorised(
                #[inline(always)]
                || {
                    for j in 0..out.len() {
                        out[j] = f(x[j]).0;
                    }
                },
            );
        })
    }
    let x = contiguous(x);
    let out = with_function!(activation, |f| run(values(&x), f));
    tensor(out, x.layout().shape().clone())
}

/// `a + b`, on all threads.
pub(super) fn add(a: FlexTensor, b: FlexTensor) -> FlexTensor {
    let (a, b) = (contiguous(a), contiguous(b));
    let (left, right) = (values(&a), values(&b));
    let out = build(left.len(), CHUNK, |i, out| {
        let (left, right) = (&left[i * CHUNK..][..out.len()], &right[i * CHUNK..][..out.len()]);
        vectorised(
            #[inline(always)]
            || {
                for j in 0..out.len() {
                    out[j] = left[j] + right[j];
                }
            },
        );
    });
    tensor(out, a.layout().shape().clone())
}

/// The gradient of [`activate`].
fn activate_backward(x: FlexTensor, dy: FlexTensor, activation: Activation) -> FlexTensor {
    #[inline(always)]
    fn run(x: &[f32], dy: &[f32], f: impl Fn(f32) -> (f32, f32) + Sync) -> Vec<f32> {
        build(x.len(), CHUNK, |i, out| {
            let (x, dy) = (&x[i * CHUNK..][..out.len()], &dy[i * CHUNK..][..out.len()]);
            vectorised(
                #[inline(always)]
                || {
                    for j in 0..out.len() {
                        out[j] = dy[j] * f(x[j]).1;
                    }
                },
            );
        })
    }
    let (x, dy) = (contiguous(x), contiguous(dy));
    let out = with_function!(activation, |f| run(values(&x), values(&dy), f));
    tensor(out, x.layout().shape().clone())
}

#[derive(Debug)]
struct GatedBackward;

impl Backward<Flex, 2> for GatedBackward {
    type State = (NodeId, NodeId, Activation);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let (gate, up, activation) = ops.state;
        let dy = grads.consume::<Flex>(&ops.node);
        let (gate, up) = (checkpointer.retrieve_node_output(gate), checkpointer.retrieve_node_output(up));
        let (dgate, dup) = gated_backward(gate, up, dy, activation);
        let [gate, up] = ops.parents;
        if let Some(node) = gate {
            grads.register::<Flex>(node.id, dgate);
        }
        if let Some(node) = up {
            grads.register::<Flex>(node.id, dup);
        }
    }
}

/// [`gated`] on an autodiff device.
pub(super) fn gated_recorded<C: CheckpointStrategy>(
    gate: Recorded<C>,
    up: Recorded<C>,
    activation: Activation,
) -> Recorded<C> {
    match GatedBackward.prepare::<C>([gate.node(), up.node()]).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let state = (prep.checkpoint(&gate), prep.checkpoint(&up), activation);
            prep.finish(state, gated(gate.into_primitive(), up.into_primitive(), activation))
        }
        OpsKind::UnTracked(prep) => {
            prep.finish(gated(gate.into_primitive(), up.into_primitive(), activation))
        }
    }
}

#[derive(Debug)]
struct ActivateBackward;

impl Backward<Flex, 1> for ActivateBackward {
    type State = (NodeId, Activation);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let (x, activation) = ops.state;
        let dy = grads.consume::<Flex>(&ops.node);
        let x = checkpointer.retrieve_node_output(x);
        let [parent] = ops.parents;
        if let Some(node) = parent {
            grads.register::<Flex>(node.id, activate_backward(x, dy, activation));
        }
    }
}

/// [`activate`] on an autodiff device.
pub(super) fn activate_recorded<C: CheckpointStrategy>(
    x: Recorded<C>,
    activation: Activation,
) -> Recorded<C> {
    match ActivateBackward.prepare::<C>([x.node()]).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let state = (prep.checkpoint(&x), activation);
            prep.finish(state, activate(x.into_primitive(), activation))
        }
        OpsKind::UnTracked(prep) => prep.finish(activate(x.into_primitive(), activation)),
    }
}

#[derive(Debug)]
struct AddBackward;

impl Backward<Flex, 2> for AddBackward {
    type State = ();

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node);
        for node in ops.parents.into_iter().flatten() {
            grads.register::<Flex>(node.id, dy.clone());
        }
    }
}

/// [`add`] on an autodiff device.
pub(super) fn add_recorded<C: CheckpointStrategy>(a: Recorded<C>, b: Recorded<C>) -> Recorded<C> {
    match AddBackward.prepare::<C>([a.node(), b.node()]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish((), add(a.into_primitive(), b.into_primitive())),
        OpsKind::UnTracked(prep) => prep.finish(add(a.into_primitive(), b.into_primitive())),
    }
}
