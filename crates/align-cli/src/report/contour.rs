//! Contours of numbers on a grid: where they are at least some level, as closed lines.

/// Numbers at every x with every y, row by row from the first y.
pub(super) struct Field<'a> {
    pub(super) x: &'a [f64],
    pub(super) y: &'a [f64],
    pub(super) values: &'a [f64],
}

/// A corner of a contour.
type Corner = (f64, f64);

impl Field<'_> {
    /// The region where the field, linear between neighbours, is at least `level`: closed lines around it and around its holes, to be
    /// filled by the even-odd rule.
    ///
    /// Marching squares on the grid with a frame of −∞ around it, so that every line is closed: along the border it follows the
    /// border.
    pub(super) fn at_least(&self, level: f64) -> Vec<Vec<Corner>> {
        let (columns, rows) = (self.x.len() + 2, self.y.len() + 2);
        // Of every edge that the contour crosses the two it comes from and goes to.
        let mut next: Vec<Vec<usize>> = vec![Vec::new(); 2 * columns * rows];
        for row in 0..rows - 1 {
            for column in 0..columns - 1 {
                let mut join = |(a, b): (usize, usize)| {
                    next[a].push(b);
                    next[b].push(a);
                };
                self.crossings(column, row, level).into_iter().for_each(&mut join);
            }
        }
        let mut lines = Vec::new();
        for start in 0..next.len() {
            let mut line = Vec::new();
            let mut at = start;
            // Each crossing has two neighbours; what was walked is forgotten.
            while let Some(to) = next[at].pop() {
                line.push(self.corner(at, level));
                let back = next[to].iter().position(|&from| from == at).expect("edges are joined both ways");
                next[to].swap_remove(back);
                at = to;
            }
            if !line.is_empty() {
                lines.push(line);
            }
        }
        lines
    }

    /// −∞ in the frame.
    fn value(&self, column: usize, row: usize) -> f64 {
        let inside = (1..=self.x.len()).contains(&column) && (1..=self.y.len()).contains(&row);
        if inside { self.values[(row - 1) * self.x.len() + column - 1] } else { f64::NEG_INFINITY }
    }

    /// The frame has no width.
    fn place(&self, column: usize, row: usize) -> Corner {
        let along = |axis: &[f64], at: usize| axis[at.clamp(1, axis.len()) - 1];
        (along(self.x, column), along(self.y, row))
    }

    /// An edge to the right of a node (even) or above it (odd).
    fn edge(&self, column: usize, row: usize, upward: bool) -> usize {
        2 * (row * (self.x.len() + 2) + column) + usize::from(upward)
    }

    /// Pairs of edges that the contour joins in the cell above and to the right of a node.
    fn crossings(&self, column: usize, row: usize, level: f64) -> Vec<(usize, usize)> {
        let corners = [(0, 0), (1, 0), (1, 1), (0, 1)].map(|(x, y)| self.value(column + x, row + y));
        let [a, b, c, d] = corners.map(|value| value >= level);
        let bottom = self.edge(column, row, false);
        let right = self.edge(column + 1, row, true);
        let top = self.edge(column, row + 1, false);
        let left = self.edge(column, row, true);
        match (a, b, c, d) {
            (true, true, true, true) | (false, false, false, false) => Vec::new(),
            (true, false, true, false) | (false, true, false, true) => {
                // A saddle: the middle decides which corners hang together.
                let middle = corners.iter().sum::<f64>() / 4.0 >= level;
                match middle == a {
                    true => vec![(bottom, right), (top, left)],
                    false => vec![(bottom, left), (top, right)],
                }
            }
            _ => {
                let crossed = [(a != b, bottom), (b != c, right), (c != d, top), (d != a, left)];
                let crossed: Vec<usize> =
                    crossed.into_iter().filter(|(crossed, _)| *crossed).map(|(_, edge)| edge).collect();
                vec![(crossed[0], crossed[1])]
            }
        }
    }

    /// Where the contour crosses an edge.
    fn corner(&self, edge: usize, level: f64) -> Corner {
        let columns = self.x.len() + 2;
        let (column, row) = (edge / 2 % columns, edge / 2 / columns);
        let (column_2, row_2) = if edge % 2 == 1 { (column, row + 1) } else { (column + 1, row) };
        let (a, b) = (self.value(column, row), self.value(column_2, row_2));
        let ((x, y), (x_2, y_2)) = (self.place(column, row), self.place(column_2, row_2));
        // At the frame both ends are one place.
        let share = if a.is_finite() && b.is_finite() { (level - a) / (b - a) } else { 0.0 };
        (x + share * (x_2 - x), y + share * (y_2 - y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The area by the even-odd rule, if lines do not cross: holes lie inside and count against it.
    fn area(lines: &[Vec<Corner>]) -> f64 {
        let signed = |line: &Vec<Corner>| -> f64 {
            let ends = line.iter().zip(line.iter().cycle().skip(1));
            ends.map(|(a, b)| (a.0 * b.1 - b.0 * a.1) / 2.0).sum::<f64>().abs()
        };
        let mut areas: Vec<f64> = lines.iter().map(signed).collect();
        areas.sort_by(|a, b| b.total_cmp(a));
        areas.first().map_or(0.0, |outer| outer - areas[1..].iter().sum::<f64>())
    }

    fn axis(points: usize) -> Vec<f64> {
        (0..points).map(|at| at as f64 / (points - 1) as f64 * 2.0 - 1.0).collect()
    }

    fn of(points: usize, value: impl Fn(f64, f64) -> f64) -> (Vec<f64>, Vec<f64>) {
        let axis = axis(points);
        let values = axis.iter().flat_map(|&y| axis.iter().map(move |&x| (x, y))).map(|(x, y)| value(x, y));
        (axis.clone(), values.collect())
    }

    #[test]
    fn a_disc_has_its_area_and_its_hole() {
        let (axis, values) = of(41, |x, y| -(x * x + y * y));
        let field = Field { x: &axis, y: &axis, values: &values };
        let inside = field.at_least(-0.49);
        assert_eq!(inside.len(), 1);
        // Linear between points 0.05 apart: the polygon misses about h² of the area.
        assert!((area(&inside) - std::f64::consts::PI * 0.49).abs() < 5e-3, "{}", area(&inside));
        let negated: Vec<f64> = values.iter().map(|value| -value).collect();
        let outside = Field { values: &negated, ..field }.at_least(0.49);
        assert_eq!(outside.len(), 2, "the border and the hole");
        assert!((area(&outside) - (4.0 - std::f64::consts::PI * 0.49)).abs() < 5e-3);
    }

    #[test]
    fn all_is_the_border_and_nothing_is_no_line() {
        let (axis, values) = of(3, |x, _| x);
        let field = Field { x: &axis, y: &axis, values: &values };
        assert!((area(&field.at_least(-5.0)) - 4.0).abs() < 1e-12);
        assert!(field.at_least(5.0).is_empty());
        assert!((area(&field.at_least(0.5)) - 1.0).abs() < 1e-12, "a plane is cut exactly");
    }

    #[test]
    fn a_saddle_is_two_regions_or_one() {
        let (axis, values) = of(2, |x, y| x * y);
        let field = Field { x: &axis, y: &axis, values: &values };
        assert_eq!(field.at_least(0.1).len(), 2);
        assert_eq!(field.at_least(-0.1).len(), 1);
    }
}
