//! The values of given ranks by magnitude, without sorting: a histogram of the leading bits, then a search among the few
//! values that share them.
//!
//! Magnitudes are compared as f32, whose bits without the sign are ordered as the numbers are. Equal magnitudes are
//! ranked by position, lower positions first, as by a stable sort.

use std::ops::Range;

use super::pass::{BLOCK, CHUNK, Pass, Rows, learn, sweep, tally};
use super::task::TensorTask;

/// Bits of a key: an f32 without its sign.
const KEY_BITS: u32 = 31;
/// Leading bits that the histogram counts: exponent and three bits of mantissa, 16 kB of counts.
const LEADING: u32 = 11;
const TRAILING: u32 = KEY_BITS - LEADING;

/// Sort keys of the values of a block.
pub(super) trait Keys: Sync {
    /// Writes the keys. Must be `#[inline(always)]`.
    fn keys(&self, rows: &Rows, keys: &mut [u32]);
}

/// The magnitudes of the first task vector.
pub(super) struct Magnitudes;

impl Keys for Magnitudes {
    #[inline(always)]
    fn keys(&self, rows: &Rows, keys: &mut [u32]) {
        magnitudes(&rows.deltas[0], keys);
    }
}

/// |δ| as f32, as ordered bits.
#[inline(always)]
pub(super) fn magnitudes(deltas: &[f64], keys: &mut [u32]) {
    for (key, &delta) in keys.iter_mut().zip(deltas) {
        *key = key_of(delta);
    }
}

/// The key of one value.
#[inline(always)]
pub(super) fn key_of(value: f64) -> u32 {
    (value as f32).to_bits() & (u32::MAX >> 1)
}

/// A magnitude at which a selection is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Edge {
    key: u32,
    /// Positions at which a value of just this magnitude is kept.
    ties: Range<usize>,
}

/// The values kept: those between two edges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Band {
    low: Edge,
    high: Edge,
}

impl Band {
    /// 1 for values that are kept and 0 for the others, from their keys.
    #[inline(always)]
    pub(super) fn fill(&self, first: usize, keys: &[u32], keep: &mut [f64]) {
        let block = first..first + keys.len();
        match (around(&self.low.ties, &block), around(&self.high.ties, &block)) {
            (Some(low), Some(high)) => {
                // Of an edge whose ties are all dropped here, the next key is the first that is kept.
                let low = self.low.key + u32::from(!low);
                let high = self.high.key.wrapping_sub(u32::from(!high));
                if high == u32::MAX && self.high.key == 0 {
                    keep.fill(0.0);
                    return;
                }
                for (keep, &key) in keep.iter_mut().zip(keys) {
                    *keep = f64::from(u8::from(low <= key && key <= high));
                }
            }
            _ => {
                for ((position, keep), &key) in block.zip(keep).zip(keys) {
                    *keep = f64::from(u8::from(self.holds(position, key)));
                }
            }
        }
    }

    /// Whether the value at a position is kept.
    pub(super) fn holds(&self, position: usize, key: u32) -> bool {
        let above = key > self.low.key || (key == self.low.key && self.low.ties.contains(&position));
        let below = key < self.high.key || (key == self.high.key && self.high.ties.contains(&position));
        above && below
    }
}

/// Whether a block lies wholly inside of a range or wholly outside; `None` if it lies across an end.
fn around(range: &Range<usize>, block: &Range<usize>) -> Option<bool> {
    if range.start <= block.start && block.end <= range.end {
        return Some(true);
    }
    (block.end <= range.start || range.end <= block.start).then_some(false)
}

/// A tensor whose values are ranked by their keys.
pub(super) struct Ranking<'a, K> {
    task: TensorTask<'a>,
    keys: K,
    counts: Counts,
}

/// Where a rank was found.
struct Found {
    key: u32,
    /// How many values have smaller keys.
    below: usize,
    /// How many values have this key: in each chunk.
    ties: Vec<usize>,
}

impl<'a, K: Keys> Ranking<'a, K> {
    /// Counts the leading bits of all keys.
    pub(super) fn of(task: &TensorTask<'a>, keys: K) -> Self {
        let counts = tally(task, &Leading { keys: &keys }, Counts::plus);
        Self { task: *task, keys, counts }
    }

    /// How many keys are not zero.
    pub(super) fn nonzero(&self) -> usize {
        self.task.values() - self.counts.zeros
    }

    /// The `count` largest, of equal ones those at lower positions. There must be as many, and one at least.
    pub(super) fn largest(&self, count: usize) -> Band {
        let total = self.task.values();
        assert!((1..=total).contains(&count), "largest: {count} of {total} values");
        let found = self.find(total - count);
        let ties: usize = found.ties.iter().sum();
        let wanted = count - (total - found.below - ties);
        let low = Edge { key: found.key, ties: 0..self.end_of_ties(&found, wanted) };
        Band { low, high: Edge { key: u32::MAX, ties: 0..0 } }
    }

    /// Those from rank `start` to before rank `end` in ascending order, of equal ones those at lower positions first.
    /// The range must not be empty.
    pub(super) fn between(&self, start: usize, end: usize) -> Band {
        assert!(start < end && end <= self.task.values(), "between: ranks {start} to {end}");
        let low = self.find(start);
        let low = Edge { key: low.key, ties: self.end_of_ties(&low, start - low.below)..usize::MAX };
        let high = self.find(end - 1);
        let high = Edge { key: high.key, ties: 0..self.end_of_ties(&high, end - high.below) };
        Band { low, high }
    }

    /// The key of a rank in ascending order.
    fn find(&self, rank: usize) -> Found {
        let mut before = 0;
        let leading = self.counts.leading.iter().position(|&count| {
            before += count;
            rank < before
        });
        let leading = leading.expect("a rank below the number of values");
        before -= self.counts.leading[leading];

        // A twentieth of the values, if they are spread over an octave or more; at worst all of them.
        let trailing = sweep(&self.task, &Trailing { keys: &self.keys, leading: leading as u32 });
        let mut all = trailing.concat();
        let (_, &mut low, _) = all.select_nth_unstable(rank - before);
        Found {
            key: (leading as u32) << TRAILING | low,
            below: before + all.iter().filter(|&&key| key < low).count(),
            ties: trailing.iter().map(|keys| keys.iter().filter(|&&key| key == low).count()).collect(),
        }
    }

    /// The position up to which there are `count` values with the key found.
    fn end_of_ties(&self, found: &Found, count: usize) -> usize {
        let mut left = count;
        for (chunk, &ties) in found.ties.iter().enumerate() {
            if left < ties {
                let start = chunk * CHUNK;
                let range = start..self.task.values().min(start + CHUNK);
                let rows = &mut Rows::new(self.task.models.len());
                let keys = learn(&self.task, &All { keys: &self.keys }, range, rows);
                let mut equal = keys.iter().enumerate().filter(|(_, key)| **key == found.key);
                let (offset, _) = equal.nth(left).expect("the ties of a chunk were counted");
                return start + offset;
            }
            left -= ties;
        }
        self.task.values()
    }
}

/// Values by the leading bits of their keys.
struct Counts {
    leading: Vec<usize>,
    zeros: usize,
}

impl Default for Counts {
    fn default() -> Self {
        Self { leading: vec![0; 1 << LEADING], zeros: 0 }
    }
}

impl Counts {
    fn plus(mut self, other: Self) -> Self {
        self.leading.iter_mut().zip(other.leading).for_each(|(sum, count)| *sum += count);
        self.zeros += other.zeros;
        self
    }
}

/// Counts keys by their leading bits.
struct Leading<'a, K> {
    keys: &'a K,
}

impl<K: Keys> Pass for Leading<'_, K> {
    type Sum = Counts;

    #[inline(always)]
    fn block(&self, _first: usize, rows: &mut Rows, sum: &mut Counts) {
        let mut keys = [0; BLOCK];
        let keys = &mut keys[..rows.out.len()];
        self.keys.keys(rows, keys);
        let mut zeros = 0u32;
        for &key in keys.iter() {
            zeros += u32::from(key == 0);
        }
        sum.zeros += zeros as usize;
        for &key in keys.iter() {
            sum.leading[(key >> TRAILING) as usize] += 1;
        }
    }
}

/// The trailing bits of the keys with given leading bits.
struct Trailing<'a, K> {
    keys: &'a K,
    leading: u32,
}

impl<K: Keys> Pass for Trailing<'_, K> {
    type Sum = Vec<u32>;

    #[inline(always)]
    fn block(&self, _first: usize, rows: &mut Rows, sum: &mut Vec<u32>) {
        let mut keys = [0; BLOCK];
        let keys = &mut keys[..rows.out.len()];
        self.keys.keys(rows, keys);
        // Every key is written, and the end moves on behind those that are wanted: no branch to mispredict.
        let start = sum.len();
        sum.resize(start + keys.len(), 0);
        let mut end = start;
        for &key in keys.iter() {
            sum[end] = key & ((1 << TRAILING) - 1);
            end += usize::from(key >> TRAILING == self.leading);
        }
        sum.truncate(end);
    }
}

/// The keys themselves.
pub(super) struct All<'a, K> {
    pub(super) keys: &'a K,
}

impl<K: Keys> Pass for All<'_, K> {
    type Sum = Vec<u32>;

    #[inline(always)]
    fn block(&self, _first: usize, rows: &mut Rows, sum: &mut Vec<u32>) {
        let start = sum.len();
        sum.resize(start + rows.out.len(), 0);
        self.keys.keys(rows, &mut sum[start..]);
    }
}
