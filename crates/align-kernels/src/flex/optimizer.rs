//! AdamW and weighted sums in place, and sums of squares.

use burn::Tensor;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::buffer::{SERIAL, contiguous, values};
use super::lanes::{sum, vectorised};
use crate::{AdamWState, AdamWStep};

/// Numbers a thread takes at a time; also what is summed in f32 before the sum goes on in f64.
const CHUNK: usize = 1 << 14;

fn primitive(tensor: Tensor<1>) -> FlexTensor {
    contiguous(tensor.try_into_primitive::<Flex>().expect("the caller checked the device"))
}

/// See [`adamw`](crate::adamw).
pub(crate) fn adamw(state: AdamWState, gradient: Tensor<1>, step: &AdamWStep) -> AdamWState {
    let AdamWState { parameter, first, second } = state;
    let gradient = primitive(gradient);
    let [mut parameter, mut first, mut second] =
        [parameter, first, second].map(|tensor| whole(primitive(tensor)));
    let factor = ((1.0 - step.beta_1) * step.scale) as f32;
    let square_factor = ((1.0 - step.beta_2) * step.scale * step.scale) as f32;
    let (beta_1, beta_2) = (step.beta_1 as f32, step.beta_2 as f32);
    let (epsilon, rate, decay) = (step.epsilon as f32, step.rate as f32, step.decay as f32);
    let inverse = (1.0 / step.second_correction) as f32;
    let work = |p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]| {
        let n = p.len();
        let (m, v, g) = (&mut m[..n], &mut v[..n], &g[..n]);
        vectorised(
            #[inline(always)]
            || {
                for i in 0..n {
                    m[i] = beta_1 * m[i] + factor * g[i];
                    v[i] = beta_2 * v[i] + square_factor * (g[i] * g[i]);
                    p[i] = decay * p[i] - rate * (m[i] / (v[i].sqrt() * inverse + epsilon));
                }
            },
        );
    };
    let (p, m, v, g) =
        (parameter.storage_mut(), first.storage_mut(), second.storage_mut(), values(&gradient));
    if g.len() <= SERIAL {
        work(p, m, v, g);
    } else {
        let chunks = p.par_chunks_mut(CHUNK).zip(m.par_chunks_mut(CHUNK)).zip(v.par_chunks_mut(CHUNK));
        chunks.zip(g.par_chunks(CHUNK)).for_each(|(((p, m), v), g)| work(p, m, v, g));
    }
    let [parameter, first, second] = [parameter, first, second].map(Tensor::from_primitive::<Flex>);
    AdamWState { parameter, first, second }
}

/// See [`axpby`](crate::axpby).
pub(crate) fn axpby(a: f64, x: Tensor<1>, b: f64, y: &Tensor<1>) -> Tensor<1> {
    let (mut x, y) = (whole(primitive(x)), primitive(y.clone()));
    let (a, b) = (a as f32, b as f32);
    let work = |x: &mut [f32], y: &[f32]| {
        let y = &y[..x.len()];
        vectorised(
            #[inline(always)]
            || {
                for i in 0..x.len() {
                    x[i] = a * x[i] + b * y[i];
                }
            },
        );
    };
    let (xs, ys) = (x.storage_mut(), values(&y));
    if ys.len() <= SERIAL {
        work(xs, ys);
    } else {
        xs.par_chunks_mut(CHUNK).zip(ys.par_chunks(CHUNK)).for_each(|(x, y)| work(x, y));
    }
    Tensor::from_primitive::<Flex>(x)
}

/// The tensor with a storage that holds its numbers and no others, so that it can be written as a whole.
fn whole(tensor: FlexTensor) -> FlexTensor {
    let n = tensor.layout().num_elements();
    if tensor.layout().start_offset() == 0 && tensor.storage::<f32>().len() == n {
        return tensor;
    }
    super::buffer::tensor(values(&tensor).to_vec(), [n])
}

/// `Σ x²`.
pub(crate) fn square_sum(tensor: &Tensor<1>) -> f64 {
    let tensor = primitive(tensor.clone());
    let chunk = |x: &[f32]| {
        vectorised(
            #[inline(always)]
            || f64::from(sum(x.len(), |i| x[i] * x[i])),
        )
    };
    let x = values(&tensor);
    if x.len() <= SERIAL {
        return x.chunks(CHUNK).map(chunk).sum();
    }
    // Collected before adding, so that the order of the sum does not depend on who finished first.
    let sums: Vec<f64> = x.par_chunks(CHUNK).map(chunk).collect();
    sums.iter().sum()
}
