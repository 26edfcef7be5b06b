//! `W + scale · B·A`, by rows of `W`.

use crate::checkpoint::file::{Shard, TensorEntry};
use crate::error::SoupError;
use crate::mix::decode_into;

/// Columns that are summed at once: their accumulators stay in the first-level cache.
const LANES: usize = 512;

/// A low-rank update of one tensor of the base.
#[derive(Clone, Debug)]
pub(super) struct LowRank {
    /// `[r, in]`.
    pub(super) a: TensorEntry,
    /// `[out, r]`.
    pub(super) b: TensorEntry,
    pub(super) scale: f64,
    /// The base holds `[in, out]`.
    pub(super) transposed: bool,
}

impl LowRank {
    pub(super) fn rank(&self) -> usize {
        self.a.shape[0]
    }

    /// Reads both factors.
    pub(super) fn load(&self, file: &Shard) -> Result<Factors, SoupError> {
        let (a, b, rank) = (numbers(&self.a, file)?, numbers(&self.b, file)?, self.rank());
        let mut factors = if self.transposed {
            let left = transposed(&a, rank);
            Factors { left, right: transposed(&b, b.len() / rank), rank }
        } else {
            Factors { left: b, right: a, rank }
        };
        factors.left.iter_mut().for_each(|value| *value *= self.scale);
        Ok(factors)
    }
}

/// All values of a float tensor.
pub(super) fn numbers(tensor: &TensorEntry, file: &Shard) -> Result<Vec<f64>, SoupError> {
    let mut bytes = vec![0; tensor.bytes as usize];
    file.read(tensor, 0, &mut bytes)?;
    let mut values = Vec::new();
    decode_into(tensor.float().expect("only floats are in an adapter"), &bytes, &mut values);
    Ok(values)
}

/// `[rows, columns]` as `[columns, rows]`.
fn transposed(matrix: &[f64], rows: usize) -> Vec<f64> {
    let columns = matrix.len() / rows;
    (0..columns).flat_map(|column| (0..rows).map(move |row| matrix[row * columns + column])).collect()
}

/// The factors of an update, in the orientation of the base's tensor: `update = left · right`.
pub(super) struct Factors {
    /// `[rows, r]`, scaled.
    left: Vec<f64>,
    /// `[r, columns]`.
    right: Vec<f64>,
    rank: usize,
}

impl Factors {
    /// Adds the update to `values`, the base's from position `first` on. Every sum runs over the ranks in order, so that it
    /// does not depend on where blocks begin.
    pub(super) fn add_to(&self, values: &mut [f64], first: usize) {
        // Without the dispatch the compiler may only use the oldest vector instructions of the platform.
        pulp::Arch::new().dispatch(AddProduct { factors: self, values, first });
    }
}

struct AddProduct<'a> {
    factors: &'a Factors,
    values: &'a mut [f64],
    first: usize,
}

impl pulp::WithSimd for AddProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Factors { left, right, rank } = self.factors;
        let columns = right.len() / rank;
        let mut sums = [0.0f64; LANES];
        let (mut values, mut position) = (self.values, self.first);
        while !values.is_empty() {
            let (row, column) = (position / columns, position % columns);
            let count = LANES.min(columns - column).min(values.len());
            let (now, later) = values.split_at_mut(count);
            let sums = &mut sums[..count];
            sums.fill(0.0);
            for (k, &coefficient) in left[row * rank..(row + 1) * rank].iter().enumerate() {
                let start = k * columns + column;
                for (sum, &value) in sums.iter_mut().zip(&right[start..start + count]) {
                    *sum += coefficient * value;
                }
            }
            for (value, &sum) in now.iter_mut().zip(sums.iter()) {
                *value += sum;
            }
            values = later;
            position += count;
        }
    }
}
