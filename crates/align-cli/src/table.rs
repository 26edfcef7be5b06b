//! Figures with their uncertainty, and tables of them.

/// A mean and its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    /// The mean.
    pub(crate) mean: f64,
    /// The standard error of the mean; 0 of a single value.
    pub(crate) error: f64,
    /// Of how many values.
    pub(crate) count: usize,
}

impl Spread {
    /// Mean and standard error, with the sample variance.
    ///
    /// # Panics
    /// With no values.
    pub(crate) fn of(values: &[f64]) -> Self {
        assert!(!values.is_empty(), "a mean needs at least one value");
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        let error = if values.len() > 1 { (squares / (n - 1.0) / n).sqrt() } else { 0.0 };
        Self { mean, error, count: values.len() }
    }

    /// Of a ratio of sums, `Σ a / Σ n` over rows (a, n), by linearisation: the rows' residuals `a − ratio · n` vary, divided by the mean n.
    ///
    /// # Panics
    /// With no rows.
    pub(crate) fn of_ratio(rows: impl Iterator<Item = (f64, f64)> + Clone) -> Self {
        let (parts, whole) = rows.clone().fold((0.0, 0.0), |(a, n), (part, size)| (a + part, n + size));
        let mean = parts / whole;
        let count = rows.clone().count();
        let residuals: Vec<f64> = rows.map(|(part, size)| part - mean * size).collect();
        Self { mean, error: Self::of(&residuals).error * count as f64 / whole, count }
    }

    /// `0.714 ±0.012`, with digits that the error justifies.
    pub(crate) fn show(&self, z: f64) -> String {
        let digits = if self.mean.abs() >= 100.0 {
            1
        } else if self.mean.abs() >= 10.0 {
            2
        } else {
            3
        };
        format!("{:.digits$} ±{:.digits$}", self.mean, z * self.error)
    }
}

/// A plain table: the first column on the left, figures on the right.
pub(crate) fn table(header: &[String], rows: Vec<Vec<String>>) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .chain([header[column].chars().count()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &[String]| -> String {
        let cells = cells.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let rule = "─".repeat(widths.iter().sum::<usize>() + 2 * (widths.len() - 1));
    let mut lines = vec![line(header), rule];
    lines.extend(rows.iter().map(|row| line(row)));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_mean_and_its_standard_error() {
        // Values 1, 2, 3: mean 2, sample variance 1, standard error 1/√3.
        let spread = Spread::of(&[1.0, 2.0, 3.0]);
        assert!((spread.mean - 2.0).abs() < 1e-12);
        assert!((spread.error - 1.0 / 3.0f64.sqrt()).abs() < 1e-12);
        assert_eq!(Spread::of(&[5.0]).error, 0.0);
    }

    #[test]
    fn a_ratio_of_sums_weighs_long_rows_more() {
        // Sums 1 + 5 over 1 + 3 tokens: 1.5 a token. Residuals −0.5 and 0.5: standard error 0.5, by the mean length of 2.
        let rows = [(1.0, 1.0), (5.0, 3.0)];
        let spread = Spread::of_ratio(rows.into_iter());
        assert_eq!((spread.mean, spread.error, spread.count), (1.5, 0.25, 2));
        // Rows of one length: the mean of rows.
        let values = [1.0, 2.0, 6.0];
        let same = Spread::of_ratio(values.iter().map(|value| (2.0 * value, 2.0)));
        let plain = Spread::of(&values);
        assert!((same.mean - plain.mean).abs() < 1e-12 && (same.error - plain.error).abs() < 1e-12);
    }

    #[test]
    fn a_table_lines_up() {
        let text = table(
            &["arm".into(), "n".into()],
            vec![vec!["PPO".into(), "10".into()], vec!["S".into(), "5".into()]],
        );
        assert_eq!(text, "arm   n\n───────\nPPO  10\nS     5");
    }
}
