//! TreeSHAP against what the trees saw in training ("path-dependent").

use rayon::prelude::*;

use crate::attribution::question::at_least_one;
use crate::attribution::tree_walk::{Step, most_on_a_path, steps};
use crate::attribution::{Attributions, Method};
use crate::{Factors, FactorsError, Forest, Matrix};

/// Shapley values of a forest for the game that its training defines: a factor of S follows the row, and where a node asks for
/// another one the walk goes both ways, in the proportion of their covers. φ₀ is the mean of the leaves by these proportions.
///
/// Columns of one factor are masked together: the fractions of all nodes that ask for a factor are multiplied before the
/// factor enters the game. That is not what is had by summing attributions of columns, which splits a one-hot question into
/// many players and, with interactions, gives it another value. Missing values follow the side the tree learnt for them.
///
/// The covers stand for the distribution of the factors given the path, so that these attributions are not interventional:
/// a factor can get a share through others it is correlated with. Use [`tree_interventional`](super::tree_interventional) to
/// compare forests with other models.
///
/// # Shapes
/// `[N, C]` rows in d factors give `[N, d]`.
///
/// # Errors
/// [`FactorsError::InvalidCount`] if there are no rows; [`FactorsError::Uncovered`] if no training weight came through a
/// node's children, so that there is no proportion.
///
/// # Panics
/// If rows and factors differ in width, the forest asks for a column there is not, or a path of a tree asks for more than 128
/// factors.
///
/// # Source
/// The game: Lundberg et al. 2020, algorithm 1, <https://doi.org/10.1038/s42256-019-0138-9>. We do not carry the sums over
/// subset sizes of its algorithm 2. A leaf of value u under factors h with the fractions `z_h` (masked) and `o_h ∈ {0, 1}`
/// (present) gives `φ_g = u (o_g − z_g) ∫₀¹ Π_{h≠g} (z_h (1−t) + o_h t) dt`, because `∫ tˢ(1−t)ⁿ⁻¹⁻ˢ dt = s! (n−1−s)! / n!`.
/// The integrand has degree n − 1, for which Gauss–Legendre quadrature with ⌈n/2⌉ points is exact, and every term of the sum
/// is positive where algorithm 2 unwinds by differences. One walk serves all leaves: sums over the leaves below a node are
/// passed up (Yu et al. 2022, "Linear TreeShap", <https://arxiv.org/abs/2209.08192>).
pub fn tree_path(forest: &Forest, rows: &Matrix, factors: &Factors) -> Result<Attributions, FactorsError> {
    at_least_one("rows", rows.len())?;
    assert_eq!(rows.width(), factors.width(), "tree_path: columns of the rows and of the factors");
    let trees = steps(forest, factors);
    let covered = |(index, tree): (usize, &Vec<Step>)| match tree.iter().position(Step::is_uncovered) {
        Some(node) => Err(FactorsError::Uncovered { tree: index, node }),
        None => Ok(()),
    };
    trees.iter().enumerate().try_for_each(covered)?;
    let values = match trees.iter().map(|tree| most_on_a_path(tree, factors.len())).max().unwrap_or(0) {
        0..=2 => walk::<1>(&trees, rows, factors),
        3..=4 => walk::<2>(&trees, rows, factors),
        5..=6 => walk::<3>(&trees, rows, factors),
        7..=8 => walk::<4>(&trees, rows, factors),
        9..=16 => walk::<8>(&trees, rows, factors),
        17..=32 => walk::<16>(&trees, rows, factors),
        33..=128 => walk::<64>(&trees, rows, factors),
        count => panic!("tree_path: a path asks for {count} factors, at most 128"),
    };
    Ok(Attributions {
        method: Method::TreePath {},
        values,
        base: forest.base + trees.iter().map(|tree| expectation(tree)).sum::<f64>(),
        scores: rows.rows().map(|row| forest.score(row)).collect(),
        warnings: Vec::new(),
    })
}

/// The mean of a tree's leaves by the proportions of their covers.
fn expectation(tree: &[Step]) -> f64 {
    let mut below = vec![0.0; tree.len()];
    // Children stand after their parents.
    for (node, step) in tree.iter().enumerate().rev() {
        below[node] = match *step {
            Step::Leaf { value } => value,
            Step::Split { children: [left, right], shares, .. } => {
                shares[0] * below[left] + shares[1] * below[right]
            }
        };
    }
    below[0]
}

fn walk<const Q: usize>(trees: &[Vec<Step>], rows: &Matrix, factors: &Factors) -> Matrix {
    let rule = Rule::<Q>::gauss_legendre();
    let d = factors.len();
    let mut values = vec![0.0; rows.len() * d];
    values.par_chunks_exact_mut(d).enumerate().for_each_init(
        || vec![Fractions::NONE; d],
        |fractions, (index, phi)| {
            for tree in trees {
                let mut walk = Walk { tree, rule: &rule, row: rows.row(index), fractions, phi };
                walk.below(0, &[1.0; Q]);
            }
        },
    );
    Matrix::new(values, d)
}

/// What the nodes above have made of one factor.
#[derive(Clone, Copy)]
struct Fractions {
    /// z: of the training weight, if the factor is masked.
    masked: f64,
    /// o: 1 if the row itself comes this way, else 0.
    present: f64,
}

impl Fractions {
    /// Of a factor that no node has asked for.
    const NONE: Self = Self { masked: 1.0, present: 1.0 };

    /// `z (1−t) + o t`.
    fn at(self, t: f64) -> f64 {
        self.masked * (1.0 - t) + self.present * t
    }
}

/// One row in one tree.
struct Walk<'a, const Q: usize> {
    tree: &'a [Step],
    rule: &'a Rule<Q>,
    row: &'a [f64],
    fractions: &'a mut [Fractions],
    phi: &'a mut [f64],
}

impl<const Q: usize> Walk<'_, Q> {
    /// `Σ u Π_h (z_h (1−t) + o_h t)` over the leaves below a node, at every point t, given the product above.
    fn below(&mut self, node: usize, product: &[f64; Q]) -> [f64; Q] {
        let (children, shares, factor, own) = match self.tree[node] {
            Step::Leaf { value } => return product.map(|product| value * product),
            Step::Split { children, shares, factor, .. } => {
                (children, shares, factor, self.tree[node].side(self.row))
            }
        };
        let above = self.fractions[factor];
        let over_above: [f64; Q] = self.rule.points.map(|t| 1.0 / above.at(t));
        let mut sum = [0.0; Q];
        for side in 0..2 {
            let here = Fractions {
                masked: above.masked * shares[side],
                present: if side == own { above.present } else { 0.0 },
            };
            if here.masked == 0.0 && here.present == 0.0 {
                continue; // No coalition comes this way.
            }
            let at: [f64; Q] = self.rule.points.map(|t| here.at(t));
            self.fractions[factor] = here;
            let leaves =
                self.below(children[side], &std::array::from_fn(|q| product[q] * at[q] * over_above[q]));
            // What the nodes above count for these leaves is replaced by what holds here.
            let (gain, counted) = (here.present - here.masked, above.present - above.masked);
            for q in 0..Q {
                self.phi[factor] +=
                    self.rule.weights[q] * leaves[q] * (gain / at[q] - counted * over_above[q]);
                sum[q] += leaves[q];
            }
        }
        self.fractions[factor] = above;
        sum
    }
}

/// Quadrature on [0, 1] with Q points, exact for polynomials up to degree 2Q − 1.
struct Rule<const Q: usize> {
    points: [f64; Q],
    weights: [f64; Q],
}

impl<const Q: usize> Rule<Q> {
    /// Gauss–Legendre: roots of the Legendre polynomial P_Q by Newton's method from Tricomi's estimate.
    fn gauss_legendre() -> Self {
        let n = Q as f64;
        let mut rule = Self { points: [0.0; Q], weights: [0.0; Q] };
        for index in 0..Q {
            let mut x = (std::f64::consts::PI * (index as f64 + 0.75) / (n + 0.5)).cos();
            let mut slope = 0.0;
            // Quadratic convergence from a good start: five steps reach rounding for every Q used.
            for _ in 0..8 {
                let (mut before, mut value) = (1.0, x);
                for k in 2..=Q {
                    let k = k as f64;
                    (before, value) = (value, ((2.0 * k - 1.0) * x * value - (k - 1.0) * before) / k);
                }
                slope = n * (x * value - before) / (x * x - 1.0);
                x -= value / slope;
            }
            rule.points[index] = (1.0 - x) / 2.0;
            rule.weights[index] = 1.0 / ((1.0 - x * x) * slope * slope);
        }
        rule
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest relative error over `∫₀¹ tᵏ (1−t)^{D−k} dt`, D = 2Q − 1, whose value is `1 / ((D+1) C(D, k))`.
    fn error<const Q: usize>() -> f64 {
        let rule = Rule::<Q>::gauss_legendre();
        let degree = 2 * Q - 1;
        let mut expected = 1.0 / (degree as f64 + 1.0);
        let mut worst = 0.0_f64;
        for k in 0..=degree {
            let of = |(t, w): (&f64, &f64)| w * t.powi(k as i32) * (1.0 - t).powi((degree - k) as i32);
            let found: f64 = rule.points.iter().zip(&rule.weights).map(of).sum();
            worst = worst.max((found / expected - 1.0).abs());
            expected *= (k as f64 + 1.0) / (degree - k).max(1) as f64;
        }
        worst
    }

    #[test]
    fn quadrature_gives_the_weights_of_coalitions() {
        // Powers up to 127 of points that are right to 2⁻⁵³ lose two digits.
        for error in [
            error::<1>(),
            error::<2>(),
            error::<3>(),
            error::<4>(),
            error::<8>(),
            error::<16>(),
            error::<64>(),
        ] {
            assert!(error < 1e-12, "{error:e}");
        }
    }
}
