//! A small network with its gradients written out, fast enough to train by the dozen in a test.

use align_core::{Draws, draws::Purpose};
use pulp::{Simd, WithSimd};

/// Widths are multiples of this, so that rows are whole registers; units beyond a layer's own stay 0.
const ROW: usize = 16;

/// One training example: the inputs that are 1, and the target distribution.
#[derive(Clone)]
pub(crate) struct Example {
    pub(crate) inputs: Vec<usize>,
    pub(crate) target: Vec<f32>,
}

/// Weights `[in + 1, out]`, the last row the bias.
#[derive(Clone)]
struct Layer {
    inputs: usize,
    width: usize,
    weights: Vec<f32>,
}

/// Inputs of zeros and ones, ReLU between layers, logits at the end.
#[derive(Clone)]
pub(crate) struct Mlp {
    layers: Vec<Layer>,
    outputs: usize,
}

/// How long and how fast to train.
pub(crate) struct Training {
    pub(crate) steps: u64,
    /// At the first step; it falls linearly to 0.
    pub(crate) learning_rate: f32,
    /// Examples a step, drawn anew; all of them where none.
    pub(crate) batch: Option<usize>,
}

impl Mlp {
    /// Weights uniform within ±1/√inputs.
    pub(crate) fn new(sizes: &[usize], draws: &Draws) -> Self {
        let layers = sizes.windows(2).enumerate().map(|(depth, pair)| {
            let width = pair[1].next_multiple_of(ROW);
            // Rows for the filled-up units of the layer below, which are always 0.
            let inputs = if depth == 0 { pair[0] } else { pair[0].next_multiple_of(ROW) };
            let bound = 1.0 / (pair[0] as f64).sqrt();
            let mut weights = vec![0.0; (inputs + 1) * width];
            for row in (0..pair[0]).chain([inputs]) {
                for column in 0..pair[1] {
                    let place = row * width + column;
                    let u = draws.token(Purpose::Initialize, depth as u64, place as u64, 0, 0);
                    weights[place] = (bound * (2.0 * u - 1.0)) as f32;
                }
            }
            Layer { inputs, width, weights }
        });
        Self { layers: layers.collect(), outputs: *sizes.last().expect("sizes") }
    }

    /// Logits.
    pub(crate) fn scores(&self, inputs: &[usize]) -> Vec<f32> {
        let mut hidden = self.empty();
        pulp::Arch::new().dispatch(Forward { mlp: self, inputs, hidden: &mut hidden });
        hidden.last().expect("layers")[..self.outputs].to_vec()
    }

    fn empty(&self) -> Vec<Vec<f32>> {
        self.layers.iter().map(|layer| vec![0.0; layer.width]).collect()
    }

    /// Adam on the mean cross-entropy.
    pub(crate) fn train(&mut self, examples: &[Example], training: &Training, draws: &Draws) {
        let zeros = || self.layers.iter().map(|layer| vec![0.0f32; layer.weights.len()]).collect::<Vec<_>>();
        let (mut gradients, mut first, mut second) = (zeros(), zeros(), zeros());
        let (mut hidden, mut deltas) = (self.empty(), self.empty());
        for step in 0..training.steps {
            gradients.iter_mut().for_each(|gradient| gradient.fill(0.0));
            let count = training.batch.unwrap_or(examples.len());
            for place in 0..count {
                let index = match training.batch {
                    Some(_) => {
                        let u = draws.token(Purpose::Minibatch, step, place as u64, 0, 0);
                        (u * examples.len() as f64) as usize
                    }
                    None => place,
                };
                let example = &examples[index];
                let scale = 1.0 / count as f32;
                let (hidden, deltas, gradients) = (&mut hidden[..], &mut deltas[..], &mut gradients[..]);
                pulp::Arch::new().dispatch(Backward { mlp: self, example, scale, hidden, deltas, gradients });
            }
            let left = 1.0 - step as f32 / training.steps as f32;
            let rate = training.learning_rate * left;
            let t = step as i32 + 1;
            let (unbias_first, unbias_second) = (1.0 - 0.9f32.powi(t), 1.0 - 0.999f32.powi(t));
            for (depth, layer) in self.layers.iter_mut().enumerate() {
                let moments = first[depth].iter_mut().zip(second[depth].iter_mut());
                for ((weight, &g), (m, v)) in layer.weights.iter_mut().zip(&gradients[depth]).zip(moments) {
                    *m += 0.1 * (g - *m);
                    *v += 0.001 * (g * g - *v);
                    *weight -= rate * (*m / unbias_first) / ((*v / unbias_second).sqrt() + 1e-8);
                }
            }
        }
    }
}

struct Forward<'a> {
    mlp: &'a Mlp,
    inputs: &'a [usize],
    hidden: &'a mut [Vec<f32>],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        forward(simd, self.mlp, self.inputs, self.hidden);
    }
}

#[inline(always)]
fn forward<S: Simd>(simd: S, mlp: &Mlp, inputs: &[usize], hidden: &mut [Vec<f32>]) {
    for (depth, layer) in mlp.layers.iter().enumerate() {
        let (below, here) = hidden.split_at_mut(depth);
        let out = &mut here[0];
        let row = |input: usize| &layer.weights[input * layer.width..(input + 1) * layer.width];
        out.copy_from_slice(row(layer.inputs));
        match below.last() {
            None => inputs.iter().for_each(|&input| add_scaled(simd, out, 1.0, row(input))),
            Some(below) => {
                for (input, &value) in below.iter().enumerate().filter(|(_, value)| **value > 0.0) {
                    add_scaled(simd, out, value, row(input));
                }
            }
        }
        if depth + 1 < mlp.layers.len() {
            out.iter_mut().for_each(|value| *value = value.max(0.0));
        }
    }
}

struct Backward<'a> {
    mlp: &'a Mlp,
    example: &'a Example,
    scale: f32,
    /// Activations.
    hidden: &'a mut [Vec<f32>],
    /// Their gradients.
    deltas: &'a mut [Vec<f32>],
    /// Gradients of the weights, which are added to.
    gradients: &'a mut [Vec<f32>],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { mlp, example, scale, hidden, deltas, gradients } = self;
        forward(simd, mlp, &example.inputs, hidden);
        let last = mlp.layers.len() - 1;
        let logits = &hidden[last][..mlp.outputs];
        let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = logits.iter().map(|logit| (logit - peak).exp()).sum();
        for ((delta, logit), target) in deltas[last].iter_mut().zip(logits).zip(&example.target) {
            *delta = scale * ((logit - peak).exp() / sum - target);
        }
        for depth in (0..=last).rev() {
            let layer = &mlp.layers[depth];
            let (below, here) = deltas.split_at_mut(depth);
            let delta = &here[0];
            let row = |input: usize| input * layer.width..(input + 1) * layer.width;
            let gradient = &mut gradients[depth];
            add_scaled(simd, &mut gradient[row(layer.inputs)], 1.0, delta);
            if depth == 0 {
                for &input in &example.inputs {
                    add_scaled(simd, &mut gradient[row(input)], 1.0, delta);
                }
                continue;
            }
            for (input, &value) in hidden[depth - 1].iter().enumerate() {
                let slope = &mut below[depth - 1][input];
                *slope = 0.0;
                if value > 0.0 {
                    add_scaled(simd, &mut gradient[row(input)], value, delta);
                    *slope = dot(simd, delta, &layer.weights[row(input)]);
                }
            }
        }
    }
}

#[inline(always)]
fn add_scaled<S: Simd>(simd: S, out: &mut [f32], by: f32, row: &[f32]) {
    let by = simd.splat_f32s(by);
    for (out, &value) in S::as_mut_simd_f32s(out).0.iter_mut().zip(S::as_simd_f32s(row).0) {
        *out = simd.mul_add_e_f32s(by, value, *out);
    }
}

#[inline(always)]
fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sum = simd.splat_f32s(0.0);
    for (&a, &b) in S::as_simd_f32s(a).0.iter().zip(S::as_simd_f32s(b).0) {
        sum = simd.mul_add_e_f32s(a, b, sum);
    }
    simd.reduce_sum_f32s(sum)
}
