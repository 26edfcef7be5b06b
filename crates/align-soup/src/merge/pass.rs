//! Passes over a tensor: its members are decoded block by block into f64, worked on, and the result encoded.
//!
//! Chunks go to all threads of the pool, each read where it is worked on, so that no tensor need be in memory; within a
//! chunk, blocks stay in the first-level cache. Sums are kept by chunk and added in order, so that no result depends on the
//! number of threads.

use std::ops::Range;

use super::error::{Member, MergeError};
use super::task::TensorTask;
use crate::checkpoint::blocks::{self, Block, blocks, for_each_block};
use crate::error::SoupError;
use crate::mix::{FloatDtype, add_bytes, count_non_finite, encode};

/// Values that one task works on.
pub(super) const CHUNK: usize = blocks::BLOCK as usize;
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

/// Takes a merged chunk: its positions, what it was made of (the base first, then the models), and its bytes. Called from
/// several threads, once for each chunk of the tensor.
pub(crate) type Store<'s> = dyn Fn(Range<usize>, &[Part<'_>], &[u8]) -> Result<(), SoupError> + Sync + 's;

/// Neighbouring values of one member.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) dtype: FloatDtype,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Part<'a> {
    /// The bytes of some of the values.
    #[inline(always)]
    pub(super) fn of(self, range: Range<usize>) -> &'a [u8] {
        &self.bytes[range.start * self.dtype.size()..range.end * self.dtype.size()]
    }
}

/// What a thread works with.
#[derive(Default)]
pub(super) struct Room {
    rows: Rows,
    /// Bytes of each member that lies in a file.
    bytes: Vec<Vec<u8>>,
}

impl Room {
    /// The values of `range` of each member, the base first, and rows to decode them into.
    pub(super) fn read<'r>(
        &'r mut self,
        task: &TensorTask<'r>,
        range: &Range<usize>,
    ) -> Result<(Vec<Part<'r>>, &'r mut Rows), SoupError> {
        let members = task.members();
        self.bytes.resize_with(members.len(), Vec::new);
        let parts = members.iter().zip(&mut self.bytes).map(|(member, room)| member.part(range, room));
        Ok((parts.collect::<Result<_, _>>()?, &mut self.rows))
    }
}

/// One block of every member.
#[derive(Default)]
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
    /// Decodes the values of `range` of the parts and counts those that are not finite. With a base it is the first part.
    #[inline(always)]
    pub(super) fn decode(
        &mut self,
        has_base: bool,
        parts: &[Part<'_>],
        range: Range<usize>,
        non_finite: Option<&mut [u64]>,
    ) {
        let count = range.len();
        let (base, models) = parts.split_at(usize::from(has_base));
        self.deltas.resize_with(models.len(), Vec::new);
        for row in self.spare.iter_mut().chain([&mut self.base, &mut self.out]).chain(&mut self.deltas) {
            row.resize(count, 0.0);
        }
        self.narrow.resize(count, 0.0);
        if let [base] = base {
            add_bytes(&mut self.base, base.dtype, base.of(range.clone()), 1.0, false, &mut self.narrow);
        }
        for (delta, model) in self.deltas.iter_mut().zip(models) {
            add_bytes(delta, model.dtype, model.of(range.clone()), 1.0, false, &mut self.narrow);
        }
        if let Some(counts) = non_finite {
            let rows = has_base.then_some(&self.base).into_iter().chain(&self.deltas);
            counts.iter_mut().zip(rows).for_each(|(count, row)| *count += count_non_finite(row));
        }
        if has_base {
            for delta in &mut self.deltas {
                delta.iter_mut().zip(&self.base).for_each(|(delta, base)| *delta -= base);
            }
        }
    }
}

/// A pass that only learns: what it learned of each chunk, in order.
pub(super) fn sweep<P: Pass>(task: &TensorTask<'_>, pass: &P) -> Result<Vec<P::Sum>, MergeError> {
    type State<S> = (Room, Vec<(usize, S)>);
    let states = for_each_block(&chunks(task), |index, chunk, (room, sums): &mut State<P::Sum>| {
        sums.push((index, learn(task, pass, chunk.range(), room)?));
        Ok::<_, MergeError>(())
    })?;
    let mut sums: Vec<(usize, P::Sum)> = states.into_iter().flat_map(|(_, sums)| sums).collect();
    sums.sort_unstable_by_key(|(index, _)| *index);
    Ok(sums.into_iter().map(|(_, sum)| sum).collect())
}

/// A pass that only counts: the sum over all chunks, in any order.
pub(super) fn tally<P: Pass>(
    task: &TensorTask<'_>,
    pass: &P,
    plus: fn(P::Sum, P::Sum) -> P::Sum,
) -> Result<P::Sum, MergeError> {
    let states = for_each_block(&chunks(task), |_, chunk, (room, sum): &mut (Room, P::Sum)| {
        let range = chunk.range();
        let (parts, rows) = room.read(task, &range)?;
        pulp::Arch::new().dispatch(Chunk::new(task, &parts, pass, range, rows, sum));
        Ok::<_, MergeError>(())
    })?;
    Ok(states.into_iter().map(|(_, sum)| sum).fold(P::Sum::default(), plus))
}

/// What a pass learns of the values of `range`.
pub(super) fn learn<P: Pass>(
    task: &TensorTask<'_>,
    pass: &P,
    range: Range<usize>,
    room: &mut Room,
) -> Result<P::Sum, MergeError> {
    let mut sum = P::Sum::default();
    let (parts, rows) = room.read(task, &range)?;
    pulp::Arch::new().dispatch(Chunk::new(task, &parts, pass, range, rows, &mut sum));
    Ok(sum)
}

/// The chunks of the tensor.
fn chunks(task: &TensorTask<'_>) -> Vec<Block> {
    blocks(std::iter::once(task.values() as u64))
}

/// A pass that merges the tensor.
///
/// # Errors
/// If a value of a member is not finite, the result overflows `dtype`, or a chunk cannot be read or stored.
pub(super) fn sweep_into<P: Pass>(
    task: &TensorTask<'_>,
    pass: &P,
    dtype: FloatDtype,
    store: &Store<'_>,
) -> Result<(), MergeError> {
    fill(task, dtype, store, |parts, rows, range, out, counts| {
        let mut sum = P::Sum::default();
        let mut work = Chunk::new(task, parts, pass, range, rows, &mut sum);
        work.target = Some(Target { dtype, out, counts });
        pulp::Arch::new().dispatch(work);
    })
}

/// Merges the tensor chunk by chunk: `work` gets the members' values, rows to decode into, the positions, room for the
/// merged bytes and the counts to add to.
///
/// # Errors
/// As [`sweep_into`].
pub(super) fn fill(
    task: &TensorTask<'_>,
    dtype: FloatDtype,
    store: &Store<'_>,
    work: impl Fn(&[Part<'_>], &mut Rows, Range<usize>, &mut [u8], &mut Counts) + Sync,
) -> Result<(), MergeError> {
    type State = (Room, Vec<u8>, Counts);
    let states = for_each_block(&chunks(task), |_, chunk, (room, out, counts): &mut State| {
        let range = chunk.range();
        let (parts, rows) = room.read(task, &range)?;
        out.resize(range.len() * dtype.size(), 0);
        counts.non_finite.resize(parts.len(), 0);
        work(&parts, rows, range.clone(), out, counts);
        store(range, &parts, out)?;
        Ok::<_, MergeError>(())
    })?;
    states.into_iter().fold(Counts::default(), |sum, (_, _, counts)| sum.plus(counts)).check(task, dtype)
}

/// The call that is compiled once for each level of vector instructions.
struct Chunk<'a, P: Pass> {
    has_base: bool,
    parts: &'a [Part<'a>],
    pass: &'a P,
    range: Range<usize>,
    rows: &'a mut Rows,
    sum: &'a mut P::Sum,
    target: Option<Target<'a>>,
}

struct Target<'a> {
    dtype: FloatDtype,
    out: &'a mut [u8],
    counts: &'a mut Counts,
}

impl<'a, P: Pass> Chunk<'a, P> {
    fn new(
        task: &TensorTask<'_>,
        parts: &'a [Part<'a>],
        pass: &'a P,
        range: Range<usize>,
        rows: &'a mut Rows,
        sum: &'a mut P::Sum,
    ) -> Self {
        Self { has_base: task.base.is_some(), parts, pass, range, rows, sum, target: None }
    }
}

impl<P: Pass> pulp::WithSimd for Chunk<'_, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) {
        for start in (0..self.range.len()).step_by(BLOCK) {
            let block = start..self.range.len().min(start + BLOCK);
            let counts = self.target.as_mut().map(|target| &mut target.counts.non_finite[..]);
            self.rows.decode(self.has_base, self.parts, block.clone(), counts);
            self.pass.block(self.range.start + start, self.rows, self.sum);
            if let Some(Target { dtype, out, counts }) = &mut self.target {
                let bytes = block.start * dtype.size()..block.end * dtype.size();
                counts.overflow += encode(&self.rows.out, *dtype, &mut out[bytes], &mut self.rows.narrow);
            }
        }
    }
}

/// Values that are not finite.
#[derive(Default)]
pub(super) struct Counts {
    /// Of the base, if there is one, then of each model.
    pub(super) non_finite: Vec<u64>,
    /// Of the result.
    pub(super) overflow: u64,
}

impl Counts {
    fn plus(mut self, other: Self) -> Self {
        self.non_finite.resize(self.non_finite.len().max(other.non_finite.len()), 0);
        self.non_finite.iter_mut().zip(other.non_finite).for_each(|(sum, count)| *sum += count);
        self.overflow += other.overflow;
        self
    }

    /// Names the first member with a broken value; only if there is none, the result.
    fn check(&self, task: &TensorTask<'_>, dtype: FloatDtype) -> Result<(), MergeError> {
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
