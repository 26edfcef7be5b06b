//! What models read: rows of numbers, their factors and their labels, marked with the part of the data they are from.

use std::marker::PhantomData;

use crate::split::{Part, Train};
use crate::{Factors, Matrix};

/// Encoded rows of one part of the data.
///
/// The part is in the type, so that knowledge, which is computed from [`Train`] designs only, cannot come from a test split.
///
/// # Shapes
/// N rows of C columns, d ≤ C factors, N labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Design<P = Train> {
    /// The rows.
    pub rows: Matrix,
    /// Which columns belong together.
    pub factors: Factors,
    /// What is to be predicted, one number a row.
    pub labels: Vec<f64>,
    part: PhantomData<P>,
}

impl<P: Part> Design<P> {
    /// Rows encoded elsewhere; the caller vouches for the part.
    ///
    /// # Panics
    /// If the factors are of another width than the rows, or labels of another number.
    pub fn new(rows: Matrix, factors: Factors, labels: Vec<f64>) -> Self {
        assert_eq!(rows.width(), factors.width(), "Design::new: factors for every column of the rows");
        assert_eq!(rows.len(), labels.len(), "Design::new: one label for each row");
        Self { rows, factors, labels, part: PhantomData }
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The rows of given positions, with their labels.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn select(&self, rows: &[usize]) -> Self {
        let labels = rows.iter().map(|&row| self.labels[row]).collect();
        Self { rows: self.rows.select(rows), factors: self.factors.clone(), labels, part: PhantomData }
    }
}
