//! Keys and values of one layer, kept across decoding steps.

use burn::Tensor;
use burn::tensor::{Bool, Int, TensorData};

/// Keys and values of one layer for rows padded on the left, written in place at a column all rows share.
///
/// Row `r`'s keys are the columns `starts[r]..end`; the next keys of every row go to column `end`. So the position of the
/// next token in row `r` is `end − starts[r]`. Space is allocated by the first [`append`](Self::append) and doubles when it runs out.
///
/// # Shapes
/// Keys `[B, G, capacity, D]`, values `[B, G, capacity, Dᵥ]`.
#[derive(Clone, Debug)]
pub struct KeyValueCache {
    /// Taken out while written to, so that no second handle forces a copy.
    buffers: Option<(Tensor<4>, Tensor<4>)>,
    starts: Vec<usize>,
    end: usize,
    capacity: usize,
}

impl KeyValueCache {
    /// An empty cache with room for `capacity` columns; row `r` ignores its first `starts[r]` columns (its left padding).
    pub fn new(starts: Vec<usize>, capacity: usize) -> Self {
        Self { buffers: None, starts, end: 0, capacity: capacity.max(1) }
    }

    /// How many rows there are, B.
    pub fn rows(&self) -> usize {
        self.starts.len()
    }

    /// The column that the next keys go to.
    pub fn end(&self) -> usize {
        self.end
    }

    /// The first column of each row that counts.
    pub fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// How many columns fit before the next growth.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Positions of the next `count` tokens, `[B, count]`: `end − starts[r] + i`, 0 inside the padding.
    pub fn next_positions(&self, count: usize, device: &burn::tensor::Device) -> Tensor<2, Int> {
        let positions: Vec<i64> = self
            .starts
            .iter()
            .flat_map(|&start| (0..count).map(move |i| (self.end + i).saturating_sub(start) as i64))
            .collect();
        Tensor::from_data(
            TensorData::new(positions, [self.rows(), count]),
            &device.clone().without_autodiff(),
        )
    }

    /// Writes the keys and values of the next `S` tokens of every row.
    ///
    /// # Shapes
    /// `k`: `[B, G, S, D]`, `v`: `[B, G, S, Dᵥ]`.
    ///
    /// # Panics
    /// If the shapes do not fit the cache.
    pub fn append(&mut self, k: Tensor<4>, v: Tensor<4>) {
        let (k, v) = (k.without_autodiff(), v.without_autodiff());
        let ([b, g, s, d], [bv, gv, sv, dv]) = (k.dims(), v.dims());
        assert!(
            b == self.rows() && [b, g, s] == [bv, gv, sv],
            "KeyValueCache::append: k {:?} and v {:?} do not fit {} rows",
            k.dims(),
            v.dims(),
            self.rows()
        );
        self.reserve(self.end + s);
        let (keys, values) = self.buffers.take().unwrap_or_else(|| {
            let room = |width| Tensor::zeros([b, g, self.capacity, width], (&k.device(), k.dtype()));
            (room(d), room(dv))
        });
        let columns = [0..b, 0..g, self.end..self.end + s];
        let write = |buffer: Tensor<4>, new: Tensor<4>| {
            let [rows, heads, columns] = columns.clone();
            let width = new.dims()[3];
            buffer.slice_assign([rows, heads, columns, 0..width], new)
        };
        self.buffers = Some((write(keys, k), write(values, v)));
        self.end += s;
    }

    /// The keys written so far, padding included: `[B, G, end, D]`, a view.
    ///
    /// # Panics
    /// If nothing was appended yet.
    pub fn keys(&self) -> Tensor<4> {
        self.buffers().0.clone().narrow(2, 0, self.end)
    }

    /// The values written so far, padding included: `[B, G, end, Dᵥ]`, a view.
    ///
    /// # Panics
    /// If nothing was appended yet.
    pub fn values(&self) -> Tensor<4> {
        self.buffers().1.clone().narrow(2, 0, self.end)
    }

    /// True where a column counts, `[B, end]`; `None` if all do.
    ///
    /// # Panics
    /// If nothing was appended yet.
    pub fn mask(&self) -> Option<Tensor<2, Bool>> {
        if self.starts.iter().all(|&start| start == 0) {
            return None;
        }
        let counts: Vec<bool> =
            self.starts.iter().flat_map(|&start| (0..self.end).map(move |column| column >= start)).collect();
        Some(Tensor::from_data(TensorData::new(counts, [self.rows(), self.end]), &self.buffers().0.device()))
    }

    /// Keeps the given rows, in the given order; a row may occur twice.
    ///
    /// # Panics
    /// If a row is outside the cache.
    pub fn keep(&mut self, rows: &[usize]) {
        self.starts = rows.iter().map(|&row| self.starts[row]).collect();
        if let Some((keys, values)) = self.buffers.take() {
            let indices: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
            let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [rows.len()]), &keys.device());
            self.buffers = Some((keys.select(0, indices.clone()), values.select(0, indices)));
        }
    }

    /// Adds the rows of `other` below these; whichever ends earlier is moved right, so that all end at the same column.
    ///
    /// # Panics
    /// If heads or widths differ.
    pub fn join(&mut self, mut other: Self) {
        if self.rows() == 0 || other.rows() == 0 {
            if self.rows() == 0 {
                *self = other;
            }
            return;
        }
        let end = self.end.max(other.end);
        let capacity = self.capacity.max(other.capacity).max(end);
        self.place(end, capacity);
        other.place(end, capacity);
        self.starts.append(&mut other.starts);
        self.buffers = match (self.buffers.take(), other.buffers.take()) {
            (Some((k, v)), Some((more_k, more_v))) => {
                Some((Tensor::cat(vec![k, more_k], 0), Tensor::cat(vec![v, more_v], 0)))
            }
            (None, None) => None,
            _ => panic!("KeyValueCache::join: one cache holds {end} columns, the other none"),
        };
    }

    /// Moves everything left by the smallest start, which makes room when the rows with the longest prompts have left.
    pub fn compact(&mut self) {
        let shift = self.starts.iter().copied().min().unwrap_or(0).min(self.end);
        if shift == 0 {
            return;
        }
        self.end -= shift;
        self.starts.iter_mut().for_each(|start| *start -= shift);
        if let Some((keys, values)) = self.buffers.take() {
            let (end, capacity) = (self.end, self.capacity);
            let moved = |buffer: Tensor<4>| moved(buffer, shift, 0, end, capacity);
            self.buffers = Some((moved(keys), moved(values)));
        }
    }

    /// The whole buffers, `[B, G, capacity, ·]`.
    pub(crate) fn buffers(&self) -> &(Tensor<4>, Tensor<4>) {
        self.buffers.as_ref().expect("KeyValueCache: nothing was appended yet")
    }

    /// Makes room for `columns` columns in all.
    fn reserve(&mut self, columns: usize) {
        if columns <= self.capacity {
            return;
        }
        let capacity = columns.max(2 * self.capacity);
        self.place(self.end, capacity);
        self.capacity = capacity;
    }

    /// Moves the contents right so that they end at `end`, in buffers of `capacity` columns.
    fn place(&mut self, end: usize, capacity: usize) {
        let shift = end - self.end;
        if let Some((keys, values)) = self.buffers.take() {
            let length = self.end;
            let fits = shift == 0 && capacity == self.capacity;
            let moved = |buffer| if fits { buffer } else { moved(buffer, 0, shift, length, capacity) };
            self.buffers = Some((moved(keys), moved(values)));
        }
        self.starts.iter_mut().for_each(|start| *start += shift);
        self.end = end;
        self.capacity = capacity;
    }
}

/// `length` columns of `buffer` from `from`, put at `to` in a new buffer of `capacity` columns.
fn moved(buffer: Tensor<4>, from: usize, to: usize, length: usize, capacity: usize) -> Tensor<4> {
    let [b, g, _, d] = buffer.dims();
    let fresh = Tensor::zeros([b, g, capacity, d], (&buffer.device(), buffer.dtype()));
    if length == 0 {
        return fresh;
    }
    fresh.slice_assign([0..b, 0..g, to..to + length, 0..d], buffer.narrow(2, from, length))
}
