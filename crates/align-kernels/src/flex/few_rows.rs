//! A few rows times a large matrix: memory is the limit, so every weight is read once and each thread has columns of its own.

use burn::backend::flex::FlexTensor;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::buffer::{Matrix, MatrixMut, Onto, SERIAL, dims, product, tensor, values};
use crate::WeightLayout;

/// More rows than this are a product like any other.
pub(super) const FEW_ROWS: usize = 32;

/// Rows up to which weights are streamed past the outputs. At 16 rows a matrix product is an eighth faster, at one a sixth slower.
const STREAMED: usize = 4;

/// Weights of consecutive inputs that are added in one pass over the outputs.
const DEPTH: usize = 8;

/// Rows and columns of a block of inner products: sixteen sums stay in registers.
const BLOCK: usize = 4;

/// Operands of one product and the outputs that a task writes: columns `start..start + count` of every row.
#[derive(Clone, Copy)]
struct Part<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    /// Rows, inputs, outputs.
    sizes: [usize; 3],
    start: usize,
    count: usize,
    y: *mut f32,
}

// SAFETY: each part writes columns of its own, through `row` and `multiply` only.
unsafe impl Send for Part<'_> {}
// SAFETY: as above.
unsafe impl Sync for Part<'_> {}

/// `x·W` or `x·Wᵀ` of contiguous operands.
pub(super) fn few_rows(x: &FlexTensor, weight: &FlexTensor, layout: WeightLayout) -> FlexTensor {
    let ([n, k], [rows, columns]) = (dims(x), dims(weight));
    let out = if layout == WeightLayout::InOut { columns } else { rows };
    let mut y = vec![0.0_f32; n * out];
    let threads = if k * out <= 4 * SERIAL { 1 } else { rayon::current_num_threads() };
    // Two tasks a thread, in whole lines of memory. An output's sum does not depend on where the cuts are.
    let width = (out / (2 * threads)).next_multiple_of(64).max(64);
    let whole = Part {
        x: values(x),
        weight: values(weight),
        sizes: [n, k, out],
        start: 0,
        count: width,
        y: y.as_mut_ptr(),
    };
    let task = |index: usize| {
        let start = index * width;
        let part = whole.columns(start, width.min(out - start));
        match layout {
            WeightLayout::InOut if n <= STREAMED => Arch::new().dispatch(Streamed(part)),
            WeightLayout::InOut => part.multiply(),
            WeightLayout::OutIn => Arch::new().dispatch(Dotted(part)),
        }
    };
    if threads == 1 {
        (0..out.div_ceil(width)).for_each(task);
    } else {
        (0..out.div_ceil(width)).into_par_iter().for_each(task);
    }
    tensor(y, [n, out])
}

impl Part<'_> {
    /// The same product, other columns.
    fn columns(&self, start: usize, count: usize) -> Self {
        Self { start, count, ..*self }
    }

    /// This part's outputs of a row.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    fn row(&self, row: usize) -> &mut [f32] {
        let [n, _, out] = self.sizes;
        assert!(row < n && self.start + self.count <= out);
        // SAFETY: inside `y` by the assertion, and no other part has these columns; callers use one row at a time.
        unsafe { std::slice::from_raw_parts_mut(self.y.add(row * out + self.start), self.count) }
    }

    /// A matrix product over this part's columns.
    fn multiply(&self) {
        let [n, k, out] = self.sizes;
        assert!(self.start + self.count <= out);
        // SAFETY: the slices hold [n, k] and [k, out]; this part's columns of `y` are its own.
        unsafe {
            let target = MatrixMut::at(self.y.add(self.start), out);
            let (a, b) = (Matrix::new(self.x, k), Matrix::new(&self.weight[self.start..], out));
            product([n, self.count, k], target, Onto::Fresh, 1.0, a, b, gemm::Parallelism::None);
        }
    }
}

/// `y += xᵢ·W[i]`, [`DEPTH`] inputs at a time.
struct Streamed<'a>(Part<'a>);

impl WithSimd for Streamed<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let part = self.0;
        let [_, k, _] = part.sizes;
        let whole = k - k % DEPTH;
        for first in (0..whole).step_by(DEPTH) {
            add_inputs::<S, DEPTH>(simd, part, first);
        }
        for first in whole..k {
            add_inputs::<S, 1>(simd, part, first);
        }
    }
}

/// Adds what inputs `first..first + D` give, two rows at a time, so that each weight is loaded once for both.
#[inline(always)]
fn add_inputs<S: Simd, const D: usize>(simd: S, part: Part, first: usize) {
    let [n, k, out] = part.sizes;
    let (mut w, mut w_rest): ([&[S::f32s]; D], [&[f32]; D]) = ([&[]; D], [&[]; D]);
    for i in 0..D {
        let row = &part.weight[(first + i) * out + part.start..][..part.count];
        (w[i], w_rest[i]) = S::as_simd_f32s(row);
    }
    let mut row = 0;
    while row + 2 <= n {
        add_rows::<S, D, 2>(simd, part, row, &part.x[row * k + first..], (&w, &w_rest));
        row += 2;
    }
    if row < n {
        add_rows::<S, D, 1>(simd, part, row, &part.x[row * k + first..], (&w, &w_rest));
    }
}

/// [`add_inputs`] for `R` rows, whose inputs lie `k` apart in `x`.
#[inline(always)]
fn add_rows<S: Simd, const D: usize, const R: usize>(
    simd: S,
    part: Part,
    row: usize,
    x: &[f32],
    (w, w_rest): (&[&[S::f32s]; D], &[&[f32]; D]),
) {
    let k = part.sizes[1];
    let mut factors = [[simd.splat_f32s(0.0); D]; R];
    for r in 0..R {
        for i in 0..D {
            factors[r][i] = simd.splat_f32s(x[r * k + i]);
        }
    }
    let vectors = w[0].len();
    let mut w_same: [&[S::f32s]; D] = [&[]; D];
    for i in 0..D {
        w_same[i] = &w[i][..vectors];
    }
    for r in 0..R {
        let rest = S::as_mut_simd_f32s(part.row(row + r)).1;
        for (j, y) in rest.iter_mut().enumerate() {
            for i in 0..D {
                *y = x[r * k + i].mul_add(w_rest[i][j], *y);
            }
        }
    }
    let mut y: [&mut [S::f32s]; R] = std::array::from_fn(|_| Default::default());
    for (r, y) in y.iter_mut().enumerate() {
        *y = &mut S::as_mut_simd_f32s(part.row(row + r)).0[..vectors];
    }
    for j in 0..vectors {
        for r in 0..R {
            let mut sum = y[r][j];
            for i in 0..D {
                sum = simd.mul_add_e_f32s(factors[r][i], w_same[i][j], sum);
            }
            y[r][j] = sum;
        }
    }
}

/// Inner products of rows with rows of the weight.
struct Dotted<'a>(Part<'a>);

impl WithSimd for Dotted<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let part = self.0;
        let [n, k, _] = part.sizes;
        let rows = n - n % BLOCK;
        let columns = part.count - part.count % BLOCK;
        let x = |row: usize| &part.x[row * k..][..k];
        let w = |column: usize| &part.weight[(part.start + column) * k..][..k];
        for column in (0..columns).step_by(BLOCK) {
            let w = [w(column), w(column + 1), w(column + 2), w(column + 3)];
            for row in (0..rows).step_by(BLOCK) {
                let found = dots(simd, [x(row), x(row + 1), x(row + 2), x(row + 3)], w);
                for (i, found) in found.iter().enumerate() {
                    part.row(row + i)[column..column + BLOCK].copy_from_slice(found);
                }
            }
            for row in rows..n {
                part.row(row)[column..column + BLOCK].copy_from_slice(&dots(simd, [x(row)], w)[0]);
            }
        }
        for column in columns..part.count {
            for row in 0..n {
                part.row(row)[column] = dots(simd, [x(row)], [w(column)])[0][0];
            }
        }
    }
}

/// `x[r]·w[c]` for each pair.
#[inline(always)]
pub(super) fn dots<S: Simd, const R: usize, const C: usize>(
    simd: S,
    x: [&[f32]; R],
    w: [&[f32]; C],
) -> [[f32; C]; R] {
    let mut sums = [[simd.splat_f32s(0.0); C]; R];
    let mut found = [[0.0_f32; C]; R];
    let mut wide_x: [&[S::f32s]; R] = [&[]; R];
    let mut wide_w: [&[S::f32s]; C] = [&[]; C];
    let (mut rest_x, mut rest_w): ([&[f32]; R], [&[f32]; C]) = ([&[]; R], [&[]; C]);
    for r in 0..R {
        (wide_x[r], rest_x[r]) = S::as_simd_f32s(x[r]);
    }
    for c in 0..C {
        (wide_w[c], rest_w[c]) = S::as_simd_f32s(w[c]);
    }
    for i in 0..wide_w[0].len() {
        for r in 0..R {
            let x = wide_x[r][i];
            for c in 0..C {
                sums[r][c] = simd.mul_add_e_f32s(x, wide_w[c][i], sums[r][c]);
            }
        }
    }
    for r in 0..R {
        for c in 0..C {
            let mut sum = simd.reduce_sum_f32s(sums[r][c]);
            for (x, w) in rest_x[r].iter().zip(rest_w[c]) {
                sum = x.mul_add(*w, sum);
            }
            found[r][c] = sum;
        }
    }
    found
}
