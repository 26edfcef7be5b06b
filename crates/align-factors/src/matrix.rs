//! Rows of numbers on the host.

/// N rows of equal width, one after another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix {
    values: Vec<f64>,
    width: usize,
}

impl Matrix {
    /// Rows of `width` numbers.
    ///
    /// # Panics
    /// If the width is zero or does not divide the number of values.
    pub fn new(values: Vec<f64>, width: usize) -> Self {
        assert!(width > 0, "Matrix::new: rows without columns");
        assert!(
            values.len().is_multiple_of(width),
            "Matrix::new: {} values in rows of {width}",
            values.len()
        );
        Self { values, width }
    }

    /// From rows.
    ///
    /// # Panics
    /// If there is no row, or rows differ in width.
    pub fn from_rows<R: AsRef<[f64]>>(rows: &[R]) -> Self {
        let width = rows.first().expect("Matrix::from_rows: no rows").as_ref().len();
        let mut values = Vec::with_capacity(rows.len() * width);
        for row in rows {
            assert_eq!(row.as_ref().len(), width, "Matrix::from_rows: rows of one width");
            values.extend_from_slice(row.as_ref());
        }
        Self::new(values, width)
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// One row.
    pub fn row(&self, index: usize) -> &[f64] {
        &self.values[index * self.width..(index + 1) * self.width]
    }

    /// All rows in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f64]> {
        self.values.chunks_exact(self.width.max(1))
    }

    /// One column.
    pub fn column(&self, index: usize) -> impl ExactSizeIterator<Item = f64> + '_ {
        self.rows().map(move |row| row[index])
    }

    /// Row after row.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The rows of given positions, in that order.
    pub fn select(&self, rows: &[usize]) -> Self {
        Self { values: rows.iter().flat_map(|&row| self.row(row)).copied().collect(), width: self.width }
    }

    /// The mean of every column.
    ///
    /// # Panics
    /// If there are no rows.
    pub fn column_means(&self) -> Vec<f64> {
        assert!(!self.is_empty(), "column_means: no rows");
        let mut sums = vec![0.0; self.width];
        for row in self.rows() {
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        let count = self.len() as f64;
        sums.into_iter().map(|sum| sum / count).collect()
    }
}
