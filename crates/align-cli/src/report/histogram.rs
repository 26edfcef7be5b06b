//! How numbers are distributed, by class.

use std::fmt::Write;

use super::svg::{Frame, escape, framed, label};

/// Columns of a histogram.
const COLUMNS: usize = 24;

/// Bars of how many are `counted`, classes on top of one another. `values` has the class of each number; `classes` a class of the style sheet and a
/// name for each.
pub(super) fn histogram(
    title: &str,
    x_label: &str,
    counted: &str,
    values: &[(usize, f64)],
    classes: &[(String, String)],
) -> String {
    let edges = Edges::around(values.iter().map(|(_, value)| *value));
    let mut counts = vec![vec![0usize; classes.len()]; COLUMNS];
    for &(class, value) in values {
        counts[edges.column(value)][class] += 1;
    }
    let tallest = counts.iter().map(|column| column.iter().sum::<usize>()).max();
    let frame = Frame { x: (edges.low, edges.high), y: (0.0, 1.05 * tallest.unwrap_or(0).max(1) as f64) };
    framed(title, x_label, counted, &frame, |out| {
        for (column, counts) in counts.iter().enumerate() {
            let (left, right) = (edges.edge(column), edges.edge(column + 1));
            let mut below = 0;
            for ((style, name), &count) in classes.iter().zip(counts) {
                if count == 0 {
                    continue;
                }
                let (top, bottom) = (frame.py((below + count) as f64), frame.py(below as f64));
                let _ = write!(
                    out,
                    r#"<rect class="bar {style}" x="{:.1}" y="{top:.1}" width="{:.1}" height="{:.1}"><title>{}: {count} from {} to {}</title></rect>"#,
                    frame.px(left) + 0.5,
                    frame.px(right) - frame.px(left) - 1.0,
                    bottom - top,
                    escape(name),
                    label(left),
                    label(right)
                );
                below += count;
            }
        }
    })
}

/// Equal columns over a range that includes 0.
struct Edges {
    low: f64,
    high: f64,
}

impl Edges {
    fn around(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) =
            values.fold((0.0f64, 0.0f64), |(low, high), value| (low.min(value), high.max(value)));
        match high > low {
            true => Self { low, high },
            false => Self { low, high: low + 1.0 },
        }
    }

    fn edge(&self, column: usize) -> f64 {
        self.low + (self.high - self.low) * column as f64 / COLUMNS as f64
    }

    /// The last column holds its upper edge too.
    fn column(&self, value: f64) -> usize {
        let place = (value - self.low) / (self.high - self.low) * COLUMNS as f64;
        (place as usize).min(COLUMNS - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(values: &[(usize, f64)]) -> String {
        let classes = [("x0".to_owned(), "a".to_owned()), ("x1".to_owned(), "b".to_owned())];
        histogram("t", "x", "n", values, &classes)
    }

    #[test]
    fn every_number_is_in_one_column() {
        let values: Vec<(usize, f64)> = (0..50).map(|at| (at % 2, at as f64 / 10.0 - 1.0)).collect();
        let svg = drawn(&values);
        let counted: usize = svg
            .split("<title>")
            .skip(1)
            .map(|title| title[3..].split(' ').next().unwrap().parse::<usize>().unwrap())
            .sum();
        assert_eq!(counted, 50, "{svg}");
    }

    #[test]
    fn equal_numbers_have_a_column_and_finite_coordinates() {
        for values in [&[(0, 1.0), (1, 1.0)][..], &[(0, 0.0)], &[(0, -1.0)]] {
            let svg = drawn(values);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert_eq!(svg.matches("<rect").count(), values.len());
        }
    }
}
