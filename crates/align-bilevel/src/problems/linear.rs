//! As much linear algebra as the closed forms need.

/// A dense matrix, row by row.
#[derive(Clone, Debug)]
pub(super) struct Dense {
    pub(super) columns: usize,
    values: Vec<f64>,
}

impl Dense {
    /// From rows of one length; `None` if they differ.
    pub(super) fn from_rows(rows: &[Vec<f64>]) -> Option<Self> {
        let columns = rows.first().map_or(0, Vec::len);
        let even = rows.iter().all(|row| row.len() == columns);
        even.then(|| Self { columns, values: rows.concat() })
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.values.chunks_exact(self.columns)
    }

    pub(super) fn row_count(&self) -> usize {
        self.values.len() / self.columns
    }

    pub(super) fn at(&self, row: usize, column: usize) -> f64 {
        self.values[row * self.columns + column]
    }

    /// `M v`.
    pub(super) fn times(&self, v: &[f64]) -> Vec<f64> {
        self.rows().map(|row| row.iter().zip(v).map(|(a, b)| a * b).sum()).collect()
    }

    /// `Mᵀ v`.
    pub(super) fn transposed_times(&self, v: &[f64]) -> Vec<f64> {
        let mut product = vec![0.0; self.columns];
        for (row, factor) in self.rows().zip(v) {
            product.iter_mut().zip(row).for_each(|(sum, a)| *sum += factor * a);
        }
        product
    }

    /// The lower Cholesky factor of `M + shift · I`, of which the lower triangle is read; `None` if that is not positive
    /// definite.
    pub(super) fn cholesky(&self, shift: f64) -> Option<Cholesky> {
        let n = self.columns;
        let mut factor = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..=i {
                let inner: f64 = (0..j).map(|k| factor[i * n + k] * factor[j * n + k]).sum();
                let rest = self.at(i, j) - inner;
                if i > j {
                    factor[i * n + j] = rest / factor[j * n + j];
                } else if rest + shift > 0.0 {
                    factor[i * n + i] = (rest + shift).sqrt();
                } else {
                    return None;
                }
            }
        }
        Some(Cholesky { n, factor })
    }
}

/// `M = L Lᵀ`.
pub(super) struct Cholesky {
    n: usize,
    factor: Vec<f64>,
}

impl Cholesky {
    /// `M⁻¹ v`.
    pub(super) fn solve(&self, v: &[f64]) -> Vec<f64> {
        let (n, l) = (self.n, &self.factor);
        let mut solution = v.to_vec();
        for i in 0..n {
            let inner: f64 = (0..i).map(|k| l[i * n + k] * solution[k]).sum();
            solution[i] = (solution[i] - inner) / l[i * n + i];
        }
        for i in (0..n).rev() {
            let inner: f64 = (i + 1..n).map(|k| l[k * n + i] * solution[k]).sum();
            solution[i] = (solution[i] - inner) / l[i * n + i];
        }
        solution
    }
}
