//! Trees as attributions walk them: nodes that know their factor and the proportions of their children.

use crate::{Factors, Forest, Node, Side, Tree};

/// One node.
pub(super) enum Step {
    Split {
        column: usize,
        threshold: f64,
        missing: usize,
        /// Left and right.
        children: [usize; 2],
        /// Of the training weight that came through either: sums to 1, or NaN if none did.
        shares: [f64; 2],
        factor: usize,
    },
    Leaf {
        value: f64,
    },
}

impl Step {
    /// The side of a split that a row takes: 0 is left.
    pub(super) fn side(&self, row: &[f64]) -> usize {
        match *self {
            Self::Leaf { .. } => unreachable!("only splits have sides"),
            Self::Split { column, threshold, missing, .. } => {
                let x = row[column];
                if x.is_nan() { missing } else { usize::from(x >= threshold) }
            }
        }
    }

    /// Whether no training weight came through the children.
    pub(super) fn is_uncovered(&self) -> bool {
        matches!(self, Self::Split { shares, .. } if shares[0].is_nan())
    }
}

/// The steps of every tree.
///
/// # Panics
/// If the forest asks for a column that the factors do not have.
pub(super) fn steps(forest: &Forest, factors: &Factors) -> Vec<Vec<Step>> {
    let (needed, width) = (forest.width(), factors.width());
    assert!(needed <= width, "the forest looks at {needed} columns, the factors have {width}");
    let of_tree = |tree: &Tree| {
        let cover = |node: usize| tree.nodes()[node].cover();
        let step = |node: &Node| match *node {
            Node::Leaf { value, .. } => Step::Leaf { value },
            Node::Split { column, threshold, left, right, missing, .. } => {
                // Their own sum, and not the cover of the parent, which libraries round: the shares of leaves sum to 1.
                let sum = cover(left) + cover(right);
                Step::Split {
                    column,
                    threshold,
                    missing: usize::from(missing == Side::Right),
                    children: [left, right],
                    shares: [cover(left) / sum, cover(right) / sum],
                    factor: factors.of_column(column),
                }
            }
        };
        tree.nodes().iter().map(step).collect()
    };
    forest.trees.iter().map(of_tree).collect()
}

/// The most factors that one path of a tree asks for.
pub(super) fn most_on_a_path(tree: &[Step], factors: usize) -> usize {
    fn below(tree: &[Step], node: usize, asked: &mut [bool]) -> usize {
        match tree[node] {
            Step::Leaf { .. } => 0,
            Step::Split { children, factor, .. } => {
                let first = !std::mem::replace(&mut asked[factor], true);
                let deepest = children.map(|child| below(tree, child, asked)).into_iter().max().unwrap_or(0);
                asked[factor] = !first;
                deepest + usize::from(first)
            }
        }
    }
    below(tree, 0, &mut vec![false; factors])
}
