//! The values of given ranks by magnitude, without sorting: a sample says between which two keys a rank lies, and one pass
//! counts what is below and collects what is between. Where the sample misleads, a histogram of the leading bits narrows
//! the keys down instead, which never fails and takes a pass more.
//!
//! Magnitudes are compared as f32, whose bits without the sign are ordered as the numbers are. Equal magnitudes are
//! ranked by position, lower positions first, as by a stable sort.

use std::cell::OnceCell;
use std::ops::Range;

use super::error::MergeError;
use super::pass::{BLOCK, CHUNK, Pass, Room, Rows, learn, sweep, tally};
use super::task::TensorTask;

/// Bits of a key: an f32 without its sign.
const KEY_BITS: u32 = 31;
/// Leading bits that the histogram counts: exponent and three bits of mantissa, 16 kB of counts.
const LEADING: u32 = 11;
const TRAILING: u32 = KEY_BITS - LEADING;
/// Places that are sampled, and the values of each: many and short, since neighbours are alike.
const PLACES: usize = 256;
const PLACE: usize = 128;
/// How much larger than its sample a tensor is at least.
const SAMPLED: usize = 16;
/// How far from its place in the sample a rank is looked for, as a share of all: seven standard errors of a quantile of so
/// many independent values, since those of one place are not independent.
const MARGIN: f64 = 0.02;

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
    /// Counted only if asked for.
    counts: OnceCell<Counts>,
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
    pub(super) fn of(task: &TensorTask<'a>, keys: K) -> Self {
        Self { task: *task, keys, counts: OnceCell::new() }
    }

    /// How many keys are not zero.
    pub(super) fn nonzero(&self) -> Result<usize, MergeError> {
        Ok(self.task.values() - self.counts()?.zeros)
    }

    /// All keys by their leading bits.
    fn counts(&self) -> Result<&Counts, MergeError> {
        if let Some(counts) = self.counts.get() {
            return Ok(counts);
        }
        let counts = tally(&self.task, &Leading { keys: &self.keys }, Counts::plus)?;
        Ok(self.counts.get_or_init(|| counts))
    }

    /// The `count` largest, of equal ones those at lower positions. There must be as many, and one at least.
    pub(super) fn largest(&self, count: usize) -> Result<Band, MergeError> {
        let total = self.task.values();
        assert!((1..=total).contains(&count), "largest: {count} of {total} values");
        let found = self.find(total - count)?;
        let ties: usize = found.ties.iter().sum();
        let wanted = count - (total - found.below - ties);
        let low = Edge { key: found.key, ties: 0..self.end_of_ties(&found, wanted)? };
        Ok(Band { low, high: Edge { key: u32::MAX, ties: 0..0 } })
    }

    /// Those from rank `start` to before rank `end` in ascending order, of equal ones those at lower positions first.
    /// The range must not be empty.
    pub(super) fn between(&self, start: usize, end: usize) -> Result<Band, MergeError> {
        assert!(start < end && end <= self.task.values(), "between: ranks {start} to {end}");
        let low = self.find(start)?;
        let low = Edge { key: low.key, ties: self.end_of_ties(&low, start - low.below)?..usize::MAX };
        let high = self.find(end - 1)?;
        let high = Edge { key: high.key, ties: 0..self.end_of_ties(&high, end - high.below)? };
        Ok(Band { low, high })
    }

    /// The key of a rank in ascending order.
    fn find(&self, rank: usize) -> Result<Found, MergeError> {
        let guessed = match self.counts.get() {
            Some(_) => None,
            None => self.guess(rank)?,
        };
        guessed.map_or_else(|| self.search(rank), Ok)
    }

    /// The key of a rank, if it lies where a sample says.
    ///
    /// # Source
    /// The idea of Floyd and Rivest 1975, "Expected time bounds for selection", <https://doi.org/10.1145/360680.360691>.
    fn guess(&self, rank: usize) -> Result<Option<Found>, MergeError> {
        let total = self.task.values();
        if total < SAMPLED * PLACES * PLACE {
            return Ok(None);
        }
        let room = &mut Room::default();
        let mut sample = Vec::with_capacity(PLACES * PLACE);
        for start in (0..PLACES).map(|index| place(index, total)) {
            sample.extend(learn(&self.task, &All { keys: &self.keys }, start..start + PLACE, room)?);
        }
        let share = (rank as f64 + 0.5) / total as f64;
        let mut at = |share: f64| {
            let index = (share * (sample.len() - 1) as f64) as usize;
            *sample.select_nth_unstable(index).1
        };
        let low = if share <= MARGIN { 0 } else { at(share - MARGIN) };
        let high = if share >= 1.0 - MARGIN { u32::MAX } else { at(share + MARGIN) };

        let found = sweep(&self.task, &Between { keys: &self.keys, low, high })?;
        let below: usize = found.iter().map(|chunk| chunk.below).sum();
        let mut all: Vec<u32> = found.iter().flat_map(|chunk| &chunk.between).copied().collect();
        if rank < below || below + all.len() <= rank {
            return Ok(None);
        }
        let (_, &mut key, _) = all.select_nth_unstable(rank - below);
        Ok(Some(Found {
            key,
            below: below + all.iter().filter(|&&other| other < key).count(),
            ties: found.iter().map(|chunk| count_equal(&chunk.between, key)).collect(),
        }))
    }

    /// The key of a rank, by the leading bits of all keys.
    fn search(&self, rank: usize) -> Result<Found, MergeError> {
        let counts = self.counts()?;
        let mut before = 0;
        let leading = counts.leading.iter().position(|&count| {
            before += count;
            rank < before
        });
        let leading = leading.expect("a rank below the number of values");
        before -= counts.leading[leading];

        // A twentieth of the values, if they are spread over an octave or more; at worst all of them.
        let trailing = sweep(&self.task, &Trailing { keys: &self.keys, leading: leading as u32 })?;
        let mut all = trailing.concat();
        let (_, &mut low, _) = all.select_nth_unstable(rank - before);
        Ok(Found {
            key: (leading as u32) << TRAILING | low,
            below: before + all.iter().filter(|&&key| key < low).count(),
            ties: trailing.iter().map(|keys| count_equal(keys, low)).collect(),
        })
    }

    /// The position up to which there are `count` values with the key found.
    fn end_of_ties(&self, found: &Found, count: usize) -> Result<usize, MergeError> {
        let mut left = count;
        for (chunk, &ties) in found.ties.iter().enumerate() {
            if left < ties {
                let start = chunk * CHUNK;
                let range = start..self.task.values().min(start + CHUNK);
                let keys = learn(&self.task, &All { keys: &self.keys }, range, &mut Room::default())?;
                let mut equal = keys.iter().enumerate().filter(|(_, key)| **key == found.key);
                let (offset, _) = equal.nth(left).expect("the ties of a chunk were counted");
                return Ok(start + offset);
            }
            left -= ties;
        }
        Ok(self.task.values())
    }
}

fn count_equal(keys: &[u32], key: u32) -> usize {
    keys.iter().filter(|&&other| other == key).count()
}

/// The keys of a chunk about two others.
#[derive(Default)]
struct About {
    /// How many are less than the lower one.
    below: usize,
    /// Those from the lower to the upper one, in order of position.
    between: Vec<u32>,
}

/// Splits keys by two others.
struct Between<'a, K> {
    keys: &'a K,
    low: u32,
    high: u32,
}

impl<K: Keys> Pass for Between<'_, K> {
    type Sum = About;

    #[inline(always)]
    fn block(&self, _first: usize, rows: &mut Rows, sum: &mut About) {
        let mut keys = [0; BLOCK];
        let keys = &mut keys[..rows.out.len()];
        self.keys.keys(rows, keys);
        let mut below = 0u32;
        for &key in keys.iter() {
            below += u32::from(key < self.low);
        }
        sum.below += below as usize;
        // One comparison: what is below wraps round to the far end.
        let span = self.high - self.low;
        append_where(&mut sum.between, keys, |key| key.wrapping_sub(self.low) <= span);
    }
}

/// Where the sample looks: multiples of the golden ratio, which have no rhythm that rows and columns could share.
fn place(index: usize, total: usize) -> usize {
    ((index as f64 * 0.618_033_988_749_894_8).fract() * (total - PLACE) as f64) as usize
}

/// Appends what is wanted of a block. All keys are compared first, a register at a time. In a group with something wanted
/// every key is then written and the end moves on behind those that are, without a branch to mispredict.
#[inline(always)]
fn append_where(kept: &mut Vec<u32>, keys: &[u32], wanted: impl Fn(u32) -> bool) {
    const GROUP: usize = 16;
    let mut wants = [0u32; BLOCK];
    let wants = &mut wants[..keys.len()];
    for (want, &key) in wants.iter_mut().zip(keys) {
        *want = u32::from(wanted(key));
    }
    let start = kept.len();
    kept.resize(start + keys.len(), 0);
    let (room, mut end) = (&mut kept[start..], 0);
    for (keys, wants) in keys.chunks(GROUP).zip(wants.chunks(GROUP)) {
        if wants.iter().fold(0, |any, want| any | want) != 0 {
            for (&key, &want) in keys.iter().zip(wants) {
                room[end] = key;
                end += want as usize;
            }
        }
    }
    kept.truncate(start + end);
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
        let start = sum.len();
        append_where(sum, keys, |key| key >> TRAILING == self.leading);
        sum[start..].iter_mut().for_each(|key| *key &= (1 << TRAILING) - 1);
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

#[cfg(test)]
mod tests {
    use super::super::method::Method;
    use super::super::parameters::MergeParameters;
    use super::super::task::{Bytes, Values};
    use super::*;
    use crate::mix::FloatDtype;

    const TOTAL: usize = SAMPLED * PLACES * PLACE + 12_345;

    /// Hands the values to `check` as a tensor to be ranked.
    fn ranked(values: &[f32], check: impl FnOnce(&Ranking<'_, Magnitudes>)) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let shape = [values.len()];
        let models = [Values { dtype: FloatDtype::F32, shape: &shape, bytes: Bytes::Memory(&bytes) }];
        let parameters = MergeParameters::new(Method::Ties, 1);
        let task = TensorTask {
            name: "w",
            shape: &shape,
            base: None,
            models: &models,
            parameters: &parameters,
            seed: 0,
        };
        check(&Ranking::of(&task, Magnitudes));
    }

    fn mixed(index: usize) -> u32 {
        (index as u32).wrapping_mul(2_654_435_761).rotate_left(13).wrapping_mul(0x9E37_79B9)
    }

    #[test]
    fn a_sample_finds_what_the_histogram_finds() {
        // Rows of 1000 with scales of their own, and every magnitude many times.
        let values: Vec<f32> = (0..TOTAL)
            .map(|at| ((mixed(at) >> 16) % 4096) as f32 * (1.0 + (mixed(at / 1000) % 7) as f32) - 9000.0)
            .collect();
        ranked(&values, |ranking| {
            for rank in [0, 1, TOTAL / 100, TOTAL / 3, TOTAL / 2, TOTAL - TOTAL / 50, TOTAL - 1] {
                let (guessed, searched) =
                    (ranking.guess(rank).unwrap().expect("a fair sample"), ranking.search(rank).unwrap());
                assert_eq!((guessed.key, guessed.below), (searched.key, searched.below), "rank {rank}");
                assert_eq!(guessed.ties, searched.ties, "rank {rank}");
            }
        });
    }

    #[test]
    fn a_misleading_sample_costs_a_pass_and_nothing_else() {
        // Small wherever the sample looks, large everywhere else.
        let mut values: Vec<f32> = (0..TOTAL).map(|at| 1000.0 + (mixed(at) >> 20) as f32).collect();
        for start in (0..PLACES).map(|index| place(index, TOTAL)) {
            values[start..start + PLACE].fill(1.0);
        }
        ranked(&values, |ranking| {
            assert!(ranking.guess(TOTAL / 2).unwrap().is_none());
            let mut sorted = values.clone();
            sorted.sort_by(f32::total_cmp);
            assert_eq!(ranking.find(TOTAL / 2).unwrap().key, sorted[TOTAL / 2].to_bits());
        });
    }
}
