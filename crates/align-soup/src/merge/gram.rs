//! Inner products of the members of a tensor: all that the methods on spheres need to know of it.
//!
//! One pass gives G_ij = ⟨x_i, x_j⟩ (or ⟨δ_i, δ_j⟩ over a base). Every norm, angle and iteration is then arithmetic on a
//! K × K matrix, and the result is Σ_k c_k x_k.

use std::ops::Range;

use rayon::prelude::*;

use super::error::MergeError;
use super::pass::{BLOCK, CHUNK, Part, Pass, Room, Rows, dot, sweep};
use super::task::TensorTask;

/// Along what a tensor is cut into vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vectors {
    /// The tensor is one vector.
    Whole,
    /// Vectors of this many neighbours: the last axis.
    Last(usize),
    /// Vectors along the first axis, of which there are this many.
    First(usize),
}

impl Vectors {
    /// Along the last axis; a tensor of one axis is one vector.
    pub(super) fn along_last(shape: &[usize]) -> Self {
        match shape {
            [] | [_] => Self::Whole,
            [.., last] => Self::Last(*last),
        }
    }

    /// Along the first axis; a tensor of one axis is one vector.
    pub(super) fn along_first(shape: &[usize]) -> Self {
        match shape {
            [] | [_] => Self::Whole,
            [_, rest @ ..] => Self::First(rest.iter().product()),
        }
    }
}

/// The symmetric matrix G of inner products.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Gram {
    order: usize,
    entries: Vec<f64>,
}

impl Gram {
    /// From the upper triangle, row by row.
    fn from_triangle(order: usize, triangle: impl IntoIterator<Item = f64>) -> Self {
        let mut gram = Self { order, entries: vec![0.0; order * order] };
        for ((i, j), value) in pairs(order).zip(triangle) {
            gram.entries[i * order + j] = value;
            gram.entries[j * order + i] = value;
        }
        gram
    }

    /// Of vectors given as they are.
    #[cfg(test)]
    pub(super) fn of_vectors<const N: usize>(vectors: &[[f64; N]]) -> Self {
        let triangle = pairs(vectors.len()).map(|(i, j)| dot(&vectors[i], &vectors[j]));
        Self::from_triangle(vectors.len(), triangle)
    }

    /// K.
    pub(super) fn order(&self) -> usize {
        self.order
    }

    /// ⟨x_i, x_j⟩.
    pub(super) fn product(&self, i: usize, j: usize) -> f64 {
        self.entries[i * self.order + j]
    }

    /// ‖x_i‖.
    pub(super) fn norm(&self, i: usize) -> f64 {
        self.product(i, i).sqrt()
    }

    /// ⟨x_i, Σ_j c_j x_j⟩.
    pub(super) fn along(&self, i: usize, coefficients: &[f64]) -> f64 {
        coefficients.iter().enumerate().map(|(j, c)| c * self.product(i, j)).sum()
    }

    /// ‖Σ_j c_j x_j‖; rounding may make the square negative.
    pub(super) fn norm_of(&self, coefficients: &[f64]) -> f64 {
        let square: f64 = coefficients.iter().enumerate().map(|(i, c)| c * self.along(i, coefficients)).sum();
        square.max(0.0).sqrt()
    }

    /// The matrix of f_i x_i.
    pub(super) fn scaled(&self, factors: &[f64]) -> Self {
        let entries = (0..self.order * self.order)
            .map(|at| self.entries[at] * factors[at / self.order] * factors[at % self.order])
            .collect();
        Self { order: self.order, entries }
    }

    /// One matrix for each vector of the tensor, of the task vectors where the task has a base.
    pub(super) fn of(task: &TensorTask<'_>, vectors: Vectors) -> Result<Vec<Self>, MergeError> {
        let order = task.models.len();
        match vectors {
            Vectors::Whole => {
                let sums = sweep(task, &Products)?;
                let start = vec![0.0; pairs(order).count()];
                let total = sums.into_iter().fold(start, |mut total, sum| {
                    total.iter_mut().zip(sum).for_each(|(total, sum)| *total += sum);
                    total
                });
                Ok(vec![Self::from_triangle(order, total)])
            }
            Vectors::Last(length) => {
                let rows = task.values() / length.max(1);
                let per_group = (CHUNK / length.max(1)).max(1);
                let groups = (0..rows.div_ceil(per_group)).into_par_iter();
                let grams = groups.map_init(Room::default, |room, group| {
                    let group = group * per_group..rows.min((group + 1) * per_group);
                    let (parts, rows) = room.read(task, &(group.start * length..group.end * length))?;
                    let of_row = |row| {
                        let mut sum = Vec::new();
                        let range = row * length..(row + 1) * length;
                        let work = Row { task, parts: &parts, range, rows, sum: &mut sum };
                        pulp::Arch::new().dispatch(work);
                        Self::from_triangle(order, sum)
                    };
                    Ok((0..group.len()).map(of_row).collect())
                });
                Ok(grams.collect::<Result<Vec<Vec<Self>>, MergeError>>()?.concat())
            }
            Vectors::First(columns) => {
                let blocks = (0..columns.div_ceil(BLOCK)).into_par_iter();
                let grams = blocks.map_init(Room::default, |room, block| {
                    let columns = block * BLOCK..columns.min((block + 1) * BLOCK);
                    let mut sums = vec![vec![0.0; columns.len()]; pairs(order).count()];
                    let work = Columns { task, columns: columns.clone(), room, sums: &mut sums };
                    pulp::Arch::new().dispatch(work)?;
                    let of_column =
                        |column| Self::from_triangle(order, sums.iter().map(|sums: &Vec<f64>| sums[column]));
                    Ok((0..columns.len()).map(of_column).collect())
                });
                Ok(grams.collect::<Result<Vec<Vec<Self>>, MergeError>>()?.concat())
            }
        }
    }
}

/// i ≤ j < order, row by row.
fn pairs(order: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    (0..order).flat_map(move |i| (i..order).map(move |j| (i, j)))
}

/// The upper triangle of the whole tensor's matrix.
struct Products;

impl Pass for Products {
    type Sum = Vec<f64>;

    #[inline(always)]
    fn block(&self, _first: usize, rows: &mut Rows, sum: &mut Vec<f64>) {
        let order = rows.deltas.len();
        sum.resize(order * (order + 1) / 2, 0.0);
        let mut entries = sum.iter_mut();
        for i in 0..order {
            for j in i..order {
                if let Some(entry) = entries.next() {
                    *entry += dot(&rows.deltas[i], &rows.deltas[j]);
                }
            }
        }
    }
}

/// [`Products`] of one vector of neighbours.
struct Row<'a> {
    task: &'a TensorTask<'a>,
    parts: &'a [Part<'a>],
    /// Within the parts.
    range: Range<usize>,
    rows: &'a mut Rows,
    sum: &'a mut Vec<f64>,
}

impl pulp::WithSimd for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        for first in self.range.clone().step_by(BLOCK) {
            let range = first..self.range.end.min(first + BLOCK);
            self.rows.decode(self.task.base.is_some(), self.parts, range, None);
            Products.block(first, self.rows, self.sum);
        }
    }
}

/// The products of neighbouring vectors along the first axis, side by side.
struct Columns<'a> {
    task: &'a TensorTask<'a>,
    columns: Range<usize>,
    room: &'a mut Room,
    sums: &'a mut [Vec<f64>],
}

impl pulp::WithSimd for Columns<'_> {
    type Output = Result<(), MergeError>;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> Self::Output {
        let stride: usize = self.task.shape[1..].iter().product();
        for row in 0..self.task.shape[0] {
            let range = row * stride + self.columns.start..row * stride + self.columns.end;
            let (parts, rows) = self.room.read(self.task, &range)?;
            rows.decode(self.task.base.is_some(), &parts, 0..range.len(), None);
            for ((i, j), sums) in pairs(rows.deltas.len()).zip(self.sums.iter_mut()) {
                for ((sum, a), b) in sums.iter_mut().zip(&rows.deltas[i]).zip(&rows.deltas[j]) {
                    *sum += a * b;
                }
            }
        }
        Ok(())
    }
}
