//! TreeSHAP against a baseline ("interventional").

use rayon::prelude::*;

use crate::attribution::question::Question;
use crate::attribution::tree_walk::{Step, most_on_a_path, steps};
use crate::attribution::{Attributions, Baseline, Method};
use crate::{Factors, FactorsError, Forest, Matrix};

/// Shapley values of a forest for the game that every other method here plays, `v(S) = E_b f(x on S, b elsewhere)`: equal to
/// [`exact`](super::exact), and possible for any number of factors.
///
/// Columns of one factor are masked together, and missing values, in rows or in the background, follow the side the tree
/// learnt for them.
///
/// # Shapes
/// `[N, C]` rows in d factors give `[N, d]`. Every row walks every tree once for each row of the background, and visits the
/// nodes that a mixture of the two can reach.
///
/// # Errors
/// [`FactorsError::InvalidCount`] if there are no rows or no background.
///
/// # Panics
/// If rows, baseline and factors differ in width, or the forest asks for a column there is not.
///
/// # Source
/// Lundberg et al. 2020, "From local explanations to global understanding with explainable AI for trees", methods,
/// <https://doi.org/10.1038/s42256-019-0138-9>. A leaf of value u that is reached if a factors come from the row and c from
/// the baseline gives each of the former `u (a−1)! c! / (a+c)!` and each of the latter `−u a! (c−1)! / (a+c)!`.
pub fn tree_interventional(
    forest: &Forest,
    rows: &Matrix,
    factors: &Factors,
    baseline: &Baseline,
) -> Result<Attributions, FactorsError> {
    let question = Question::new(rows, factors, baseline)?;
    let scores = question.scores(forest)?;
    let trees = steps(forest, factors);
    let most = trees.iter().map(|tree| most_on_a_path(tree, factors.len())).max().unwrap_or(0);
    let weights = Weights::new(most);
    let d = factors.len();
    let share = 1.0 / question.background.len() as f64;
    let mut values = vec![0.0; rows.len() * d];
    values.par_chunks_exact_mut(d).enumerate().for_each_init(
        || vec![Origin::Open; d],
        |origins, (index, phi)| {
            for b in question.background.rows() {
                for tree in &trees {
                    let mut walk = Walk { tree, weights: &weights, x: rows.row(index), b, origins, phi };
                    walk.below(0, 0, 0);
                }
            }
            phi.iter_mut().for_each(|phi| *phi *= share);
        },
    );
    Ok(question.answer(Method::TreeInterventional {}, Matrix::new(values, d), scores))
}

/// Where a factor must come from for a node to be reached.
#[derive(Clone, Copy)]
enum Origin {
    Open,
    Row,
    Baseline,
}

/// One row against one baseline row in one tree.
struct Walk<'a> {
    tree: &'a [Step],
    weights: &'a Weights,
    x: &'a [f64],
    b: &'a [f64],
    origins: &'a mut [Origin],
    phi: &'a mut [f64],
}

/// What the leaves below a node give to each factor that must come from the row, and to each that must come from the baseline.
struct Given {
    row: f64,
    baseline: f64,
}

impl Walk<'_> {
    /// `from_row` and `from_baseline` factors are decided above.
    fn below(&mut self, node: usize, from_row: usize, from_baseline: usize) -> Given {
        let step = &self.tree[node];
        let (children, factor) = match *step {
            Step::Leaf { value } => {
                return Given {
                    row: value * self.weights.of(from_row, from_baseline),
                    baseline: -value * self.weights.of(from_baseline, from_row),
                };
            }
            Step::Split { children, factor, .. } => (children, factor),
        };
        let (own, other) = (children[step.side(self.x)], children[step.side(self.b)]);
        match self.origins[factor] {
            _ if own == other => self.below(own, from_row, from_baseline),
            Origin::Row => self.below(own, from_row, from_baseline),
            Origin::Baseline => self.below(other, from_row, from_baseline),
            Origin::Open => {
                self.origins[factor] = Origin::Row;
                let present = self.below(own, from_row + 1, from_baseline);
                self.origins[factor] = Origin::Baseline;
                let masked = self.below(other, from_row, from_baseline + 1);
                self.origins[factor] = Origin::Open;
                self.phi[factor] += present.row + masked.baseline;
                Given { row: present.row + masked.row, baseline: present.baseline + masked.baseline }
            }
        }
    }
}

/// `(a−1)! c! / (a+c)!`, and 0 for a = 0.
struct Weights {
    table: Vec<f64>,
    side: usize,
}

impl Weights {
    fn new(most: usize) -> Self {
        let side = most + 1;
        let mut table = vec![0.0; side * side];
        for c in 0..side {
            let mut weight = 1.0 / (c as f64 + 1.0);
            for a in 1..side {
                table[a * side + c] = weight;
                weight *= a as f64 / (a + c + 1) as f64;
            }
        }
        Self { table, side }
    }

    fn of(&self, a: usize, c: usize) -> f64 {
        self.table[a * self.side + c]
    }
}
