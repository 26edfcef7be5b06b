//! Passes over a tensor: its members are decoded block by block into f64, worked on, and the result encoded.
//!
//! Chunks go to all threads of the pool; within a chunk, blocks stay in the first-level cache. Sums are kept by chunk
//! and added in order, so that no result depends on the number of threads.

use std::ops::Range;

use rayon::prelude::*;

use super::error::{Member, MergeError};
use super::task::{TensorTask, Values};
use crate::mix::{FloatDtype, add_bytes, count_non_finite, encode};

/// Values that one task works on.
pub(super) const CHUNK: usize = 1 << 16;
/// Values that are decoded at once: half of what [`crate::mix`] takes, since more rows of them are alive.
pub(super) const BLOCK: usize = 512;

/// Work on a block of a tensor.
pub(super) trait Pass: Sync {
    /// What is learned of a chunk.
    type Sum: Default + Send;

    /// Works on the values from position `first`. Must be `#[inline(always)]`, to be compiled for each level of vector
    /// instructions.
    fn block(&self, first: usize, rows: &mut Rows, sum: &mut Self::Sum);
}

/// One block of every member.
pub(super) struct Rows {
    /// b; zeros without a base.
    pub(super) base: Vec<f64>,
    /// δ_k = x_k − b, or x_k without a base.
    pub(super) deltas: Vec<Vec<f64>>,
    /// Where a pass leaves the result.
    pub(super) out: Vec<f64>,
    /// Room for what a pass needs in between.
    pub(super) spare: [Vec<f64>; 3],
    narrow: Vec<f32>,
}

impl Rows {
    pub(super) fn new(models: usize) -> Self {
        Self {
            base: Vec::with_capacity(BLOCK),
            deltas: vec![Vec::with_capacity(BLOCK); models],
            out: Vec::with_capacity(BLOCK),
            spare: std::array::from_fn(|_| Vec::with_capacity(BLOCK)),
            narrow: Vec::with_capacity(BLOCK),
        }
    }

    /// Reads the values of `range` and counts those that are not finite: of the base first, then of the models.
    #[inline(always)]
    pub(super) fn read(
        &mut self,
        base: Option<Values<'_>>,
        models: &[Values<'_>],
        range: Range<usize>,
        non_finite: Option<&mut [u64]>,
    ) {
        let count = range.len();
        for row in self.spare.iter_mut().chain([&mut self.base, &mut self.out]).chain(&mut self.deltas) {
            row.resize(count, 0.0);
        }
        self.narrow.resize(count, 0.0);
        if let Some(base) = base {
            add_bytes(&mut self.base, base.dtype, base.part(range.clone()), 1.0, false, &mut self.narrow);
        }
        for (delta, model) in self.deltas.iter_mut().zip(models) {
            add_bytes(delta, model.dtype, model.part(range.clone()), 1.0, false, &mut self.narrow);
        }
        if let Some(counts) = non_finite {
            let rows = base.map(|_| &self.base).into_iter().chain(&self.deltas);
            counts.iter_mut().zip(rows).for_each(|(count, row)| *count += count_non_finite(row));
        }
        if base.is_some() {
            for delta in &mut self.deltas {
                delta.iter_mut().zip(&self.base).for_each(|(delta, base)| *delta -= base);
            }
        }
    }
}

/// A pass that only learns: what it learned of each chunk, in order.
pub(super) fn sweep<P: Pass>(task: &TensorTask<'_>, pass: &P) -> Vec<P::Sum> {
    chunks(task)
        .map_init(|| Rows::new(task.models.len()), |rows, range| learn(task, pass, range, rows))
        .collect()
}

/// A pass that only counts: the sum over all chunks, in any order.
pub(super) fn tally<P: Pass>(task: &TensorTask<'_>, pass: &P, plus: fn(P::Sum, P::Sum) -> P::Sum) -> P::Sum {
    let start = || (Rows::new(task.models.len()), P::Sum::default());
    chunks(task)
        .fold(start, |(mut rows, mut sum), range| {
            let work = Chunk { task, pass, range, rows: &mut rows, sum: &mut sum, target: None };
            pulp::Arch::new().dispatch(work);
            (rows, sum)
        })
        .map(|(_, sum)| sum)
        .reduce(P::Sum::default, plus)
}

/// What a pass learns of the values of `range`.
pub(super) fn learn<P: Pass>(
    task: &TensorTask<'_>,
    pass: &P,
    range: Range<usize>,
    rows: &mut Rows,
) -> P::Sum {
    let mut sum = P::Sum::default();
    pulp::Arch::new().dispatch(Chunk { task, pass, range, rows, sum: &mut sum, target: None });
    sum
}

/// The range of each chunk.
pub(super) fn chunks(task: &TensorTask<'_>) -> impl IndexedParallelIterator<Item = Range<usize>> {
    let total = task.values();
    (0..total.div_ceil(CHUNK)).into_par_iter().map(move |chunk| chunk * CHUNK..total.min((chunk + 1) * CHUNK))
}

/// A pass that writes the merged tensor into `out`.
///
/// # Errors
/// If a value of a member is not finite, or the result overflows `dtype`.
pub(super) fn sweep_into<P: Pass>(
    task: &TensorTask<'_>,
    pass: &P,
    dtype: FloatDtype,
    out: &mut [u8],
) -> Result<(), MergeError> {
    let members = task.models.len() + usize::from(task.base.is_some());
    let counted = out
        .par_chunks_mut(CHUNK * dtype.size())
        .enumerate()
        .map_init(
            || Rows::new(task.models.len()),
            |rows, (chunk, out)| {
                let range = chunk * CHUNK..chunk * CHUNK + out.len() / dtype.size();
                let mut counts = Counts::new(members);
                let target = Some(Target { dtype, out, counts: &mut counts });
                let work = Chunk { task, pass, range, rows, sum: &mut P::Sum::default(), target };
                pulp::Arch::new().dispatch(work);
                counts
            },
        )
        .reduce(|| Counts::new(members), Counts::plus);
    counted.check(task, dtype)
}

/// The call that is compiled once for each level of vector instructions.
struct Chunk<'a, 'o, P: Pass> {
    task: &'a TensorTask<'a>,
    pass: &'a P,
    range: Range<usize>,
    rows: &'o mut Rows,
    sum: &'o mut P::Sum,
    target: Option<Target<'o>>,
}

struct Target<'o> {
    dtype: FloatDtype,
    out: &'o mut [u8],
    counts: &'o mut Counts,
}

impl<P: Pass> pulp::WithSimd for Chunk<'_, '_, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) {
        let (base, models) = (self.task.base, self.task.models);
        for first in self.range.clone().step_by(BLOCK) {
            let range = first..self.range.end.min(first + BLOCK);
            let counts = self.target.as_mut().map(|target| &mut target.counts.non_finite[..]);
            self.rows.read(base, models, range.clone(), counts);
            self.pass.block(first, self.rows, self.sum);
            if let Some(Target { dtype, out, counts }) = &mut self.target {
                let bytes =
                    (first - self.range.start) * dtype.size()..(range.end - self.range.start) * dtype.size();
                counts.overflow += encode(&self.rows.out, *dtype, &mut out[bytes], &mut self.rows.narrow);
            }
        }
    }
}

/// Values that are not finite.
pub(super) struct Counts {
    /// Of the base, if there is one, then of each model.
    pub(super) non_finite: Vec<u64>,
    /// Of the result.
    pub(super) overflow: u64,
}

impl Counts {
    pub(super) fn new(members: usize) -> Self {
        Self { non_finite: vec![0; members], overflow: 0 }
    }

    pub(super) fn plus(mut self, other: Self) -> Self {
        self.non_finite.iter_mut().zip(other.non_finite).for_each(|(sum, count)| *sum += count);
        self.overflow += other.overflow;
        self
    }

    /// Names the first member with a broken value; only if there is none, the result.
    pub(super) fn check(&self, task: &TensorTask<'_>, dtype: FloatDtype) -> Result<(), MergeError> {
        let tensor = || task.name.to_owned();
        if let Some(index) = self.non_finite.iter().position(|&count| count > 0) {
            let member = match (task.base, index) {
                (Some(_), 0) => Member::Base,
                (base, index) => Member::Model(index - usize::from(base.is_some())),
            };
            return Err(MergeError::NonFinite { tensor: tensor(), member, count: self.non_finite[index] });
        }
        match self.overflow {
            0 => Ok(()),
            count => Err(MergeError::Overflow { tensor: tensor(), dtype, count }),
        }
    }
}

/// Σ_i a_i b_i, in 16 sums that the processor can add side by side.
#[inline(always)]
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    const SUMS: usize = 16;
    let mut sums = [0.0; SUMS];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<SUMS>(), b.as_chunks::<SUMS>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..SUMS {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}
