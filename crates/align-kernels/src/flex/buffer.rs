//! Flex tensors as slices, and results built by several threads.

use burn::backend::flex::FlexTensor;
use burn::tensor::{Shape, TensorData};
use rayon::prelude::*;

/// Below this many numbers a kernel stays on its thread: handing work over costs more.
pub(super) const SERIAL: usize = 1 << 14;

/// The tensor with its elements in one run, copied only if they are not.
pub(super) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() }
}

/// The elements of a contiguous tensor.
pub(super) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("contiguous f32")
}

/// The dimensions of a tensor of known rank.
pub(super) fn dims<const D: usize>(tensor: &FlexTensor) -> [usize; D] {
    let shape = tensor.layout().shape();
    std::array::from_fn(|i| shape[i])
}

/// A tensor of the given elements, row by row.
pub(super) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.into()))
}

/// Builds `n` numbers in chunks of `chunk`, on all threads if there is enough to do.
///
/// `write` gets the index of the chunk and the chunk, and must write all of it; what it finds there is arbitrary.
pub(super) fn build(n: usize, chunk: usize, write: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let mut out = reserve(n);
    if n <= SERIAL {
        out.chunks_mut(chunk.max(1)).enumerate().for_each(|(i, chunk)| write(i, chunk));
    } else {
        out.par_chunks_mut(chunk).enumerate().for_each(|(i, chunk)| write(i, chunk));
    }
    out
}

/// [`build`] for two results of the same size.
pub(super) fn build_two(
    n: usize,
    chunk: usize,
    write: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
) -> (Vec<f32>, Vec<f32>) {
    let (mut a, mut b) = (reserve(n), reserve(n));
    if n <= SERIAL {
        let chunks = a.chunks_mut(chunk.max(1)).zip(b.chunks_mut(chunk.max(1)));
        chunks.enumerate().for_each(|(i, (a, b))| write(i, a, b));
    } else {
        let chunks = a.par_chunks_mut(chunk).zip(b.par_chunks_mut(chunk));
        chunks.enumerate().for_each(|(i, (a, b))| write(i, a, b));
    }
    (a, b)
}

/// `n` numbers that the caller writes before anything reads them.
///
/// Zeroing first would cost a kernel that only moves memory a quarter of its time.
#[allow(clippy::uninit_vec)]
pub(super) fn reserve(n: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(n);
    // SAFETY: the capacity is n, every bit pattern is an f32, and `build` hands the elements out for writing only.
    unsafe { out.set_len(n) };
    out
}

/// A `[B, H, T, D]` tensor as rows of `D` numbers, wherever they lie.
#[derive(Clone, Copy)]
pub(super) struct Heads<'a> {
    storage: &'a [f32],
    /// `[B, H, T, D]`.
    pub(super) dims: [usize; 4],
    /// Elements between neighbours along `B`, `H` and `T`.
    pub(super) strides: [isize; 3],
    start: usize,
}

impl<'a> Heads<'a> {
    /// The tensor with the numbers of each row side by side, copied only if they are not.
    pub(super) fn readable(tensor: FlexTensor) -> FlexTensor {
        let (width, stride) = (dims::<4>(&tensor)[3], tensor.layout().strides()[3]);
        if width == 1 || stride == 1 { tensor } else { tensor.to_contiguous() }
    }

    /// The rows of a [`readable`](Self::readable) tensor.
    pub(super) fn new(tensor: &'a FlexTensor) -> Self {
        let strides = tensor.layout().strides();
        Self {
            storage: tensor.storage(),
            dims: dims(tensor),
            strides: [strides[0], strides[1], strides[2]],
            start: tensor.layout().start_offset(),
        }
    }

    /// Whether the heads of a token lie closer together than the tokens of a head, as after a projection.
    pub(super) fn token_major(&self) -> bool {
        let [_, h, t, _] = self.dims;
        h > 1 && t > 1 && self.strides[1] < self.strides[2]
    }

    /// One row, D numbers.
    #[inline(always)]
    pub(super) fn row(&self, row: usize, head: usize, token: usize) -> &'a [f32] {
        let start = self.offset(row, head) + token as isize * self.strides[2];
        &self.storage[start as usize..][..self.dims[3]]
    }

    /// Where a head's first row starts in the storage.
    #[inline(always)]
    fn offset(&self, row: usize, head: usize) -> isize {
        self.start as isize + row as isize * self.strides[0] + head as isize * self.strides[1]
    }
}

impl<'a> Heads<'a> {
    /// Rows `from..` of a head, to be read one by one.
    pub(super) fn rows_from(&self, row: usize, head: usize, from: usize) -> Rows<'a> {
        let start = self.offset(row, head) + from as isize * self.strides[2];
        Rows {
            storage: &self.storage[start as usize..],
            stride: self.strides[2] as usize,
            width: self.dims[3],
        }
    }
}

/// Rows of equal width at equal distances.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    storage: &'a [f32],
    stride: usize,
    width: usize,
}

impl<'a> Rows<'a> {
    /// Row `i`.
    #[inline(always)]
    pub(super) fn row(&self, i: usize) -> &'a [f32] {
        &self.storage[i * self.stride..][..self.width]
    }
}

impl Heads<'_> {
    /// Rows `from..` of a head as a matrix for [`product`].
    #[inline(always)]
    pub(super) fn matrix(&self, row: usize, head: usize, from: usize) -> Matrix {
        let start = self.offset(row, head) + from as isize * self.strides[2];
        Matrix { start: self.storage[start as usize..].as_ptr(), rows: self.strides[2], columns: 1 }
    }
}

/// A matrix to read: where it starts and how far apart its rows and its columns are.
#[derive(Clone, Copy)]
pub(super) struct Matrix {
    start: *const f32,
    rows: isize,
    columns: isize,
}

impl Matrix {
    /// A matrix stored row by row, `columns` numbers a row.
    pub(super) fn new(values: &[f32], columns: usize) -> Self {
        Self { start: values.as_ptr(), rows: columns as isize, columns: 1 }
    }

    /// Rows and columns exchanged.
    pub(super) fn transposed(self) -> Self {
        Self { start: self.start, rows: self.columns, columns: self.rows }
    }
}

/// A matrix to write, its rows `rows` numbers apart.
#[derive(Clone, Copy)]
pub(super) struct MatrixMut {
    start: *mut f32,
    rows: isize,
}

impl MatrixMut {
    /// A matrix stored row by row, `columns` numbers a row.
    pub(super) fn new(values: &mut [f32], columns: usize) -> Self {
        Self { start: values.as_mut_ptr(), rows: columns as isize }
    }

    /// A matrix that starts at `start`, its rows `columns` numbers apart; [`product`] follows the pointer.
    pub(super) fn at(start: *mut f32, columns: usize) -> Self {
        Self { start, rows: columns as isize }
    }
}

/// What a product does with what is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Onto {
    /// Overwrites it, without reading it.
    Fresh,
    /// Adds to it.
    Sum,
}

/// `out = factor·a·b`, or `out += factor·a·b`, with `a`: `[m, k]`, `b`: `[k, n]`.
///
/// # Safety
/// All three must cover their sizes, and nothing else may touch `out` meanwhile.
pub(super) unsafe fn product(
    [m, n, k]: [usize; 3],
    out: MatrixMut,
    onto: Onto,
    factor: f32,
    a: Matrix,
    b: Matrix,
    parallelism: gemm::Parallelism,
) {
    // SAFETY: the caller's promise.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.start,
            1,
            out.rows,
            onto == Onto::Sum,
            a.start,
            a.columns,
            a.rows,
            b.start,
            b.columns,
            b.rows,
            1.0,
            factor,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// A `[B, H, T, D]` result that several threads fill, each its own heads or rows of them.
pub(super) struct HeadsMut {
    values: Vec<f32>,
    dims: [usize; 4],
    token_major: bool,
}

impl HeadsMut {
    /// Zeros, lying in memory with the heads inside each token or the other way round.
    pub(super) fn zeros(dims: [usize; 4], token_major: bool) -> Self {
        Self { values: vec![0.0; dims.iter().product()], dims, token_major }
    }

    /// Rights to write, to be shared among threads.
    pub(super) fn writer(&mut self) -> HeadsWriter<'_> {
        let [_, h, t, d] = self.dims;
        let (head, token) = if self.token_major { (d, h * d) } else { (t * d, d) };
        HeadsWriter {
            start: self.values.as_mut_ptr(),
            strides: [h * t * d, head, token],
            dims: self.dims,
            owner: std::marker::PhantomData,
        }
    }

    /// The result as a tensor `[B, H, T, D]`.
    pub(super) fn into_tensor(self) -> FlexTensor {
        let [b, h, t, d] = self.dims;
        if self.token_major {
            tensor(self.values, [b, t, h, d]).transpose(1, 2)
        } else {
            tensor(self.values, self.dims)
        }
    }
}

/// Write access to a [`HeadsMut`].
#[derive(Clone, Copy)]
pub(super) struct HeadsWriter<'a> {
    start: *mut f32,
    strides: [usize; 3],
    dims: [usize; 4],
    owner: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: the pointer is only followed through `matrix` and `row`, whose callers promise to keep to rows of their own.
unsafe impl Send for HeadsWriter<'_> {}
// SAFETY: as above.
unsafe impl Sync for HeadsWriter<'_> {}

impl HeadsWriter<'_> {
    /// Rows `from..from + count` of a head as a matrix.
    ///
    /// # Safety
    /// No other thread may use these rows while the matrix lives.
    pub(super) unsafe fn matrix(&self, row: usize, head: usize, from: usize, count: usize) -> MatrixMut {
        let [b, h, t, _] = self.dims;
        assert!(row < b && head < h && from + count <= t);
        let start = row * self.strides[0] + head * self.strides[1] + from * self.strides[2];
        // SAFETY: the position lies inside the buffer by the assertion.
        MatrixMut { start: unsafe { self.start.add(start) }, rows: self.strides[2] as isize }
    }

    /// One row of a head.
    ///
    /// # Safety
    /// No other thread, and no matrix, may use this row while the slice lives.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn row(&self, row: usize, head: usize, token: usize) -> &mut [f32] {
        // SAFETY: the caller's promise; `matrix` checks the position.
        unsafe { std::slice::from_raw_parts_mut(self.matrix(row, head, token, 1).start, self.dims[3]) }
    }
}
