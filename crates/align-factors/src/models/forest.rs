//! Regression trees and sums of them, as plain numbers.
//!
//! Whatever grew a forest, its attributions are computed from this form alone.

use serde::{Deserialize, Serialize};

use crate::attribution::Structure;
use crate::{Matrix, ModelError, Scorer};

/// A binary regression tree. Node 0 is the root, and children stand after their parents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Node>", into = "Vec<Node>")]
pub struct Tree {
    nodes: Vec<Node>,
}

/// One node of a [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Node {
    /// Sends a row on: to the left where `x < threshold`, to the right where it is not, and where `x` is NaN to the side that
    /// training found better for missing values.
    Split {
        /// The column that is looked at.
        column: usize,
        /// Where the two sides part. Rules of the form `x ≤ t` are `x < t.next_up()`.
        threshold: f64,
        /// The node of rows below the threshold.
        left: usize,
        /// The node of the others.
        right: usize,
        /// Where missing values go.
        missing: Side,
        /// How many training rows, or how much of their weight, came through.
        cover: f64,
    },
    /// Gives a value.
    Leaf {
        /// The value.
        value: f64,
        /// How many training rows, or how much of their weight, ended here.
        cover: f64,
    },
}

/// One side of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Below the threshold.
    Left,
    /// At the threshold and above.
    Right,
}

impl Node {
    /// How many training rows, or how much of their weight, came here.
    pub fn cover(&self) -> f64 {
        let (Self::Split { cover, .. } | Self::Leaf { cover, .. }) = *self;
        cover
    }
}

impl Tree {
    /// A tree of these nodes.
    ///
    /// # Errors
    /// [`ModelError::Tree`] if there is no node, a node other than the root is not the child of exactly one, a child does not
    /// stand after its parent, a number is not finite, or a cover is negative.
    pub fn new(nodes: Vec<Node>) -> Result<Self, ModelError> {
        let invalid = |node: usize, detail: String| Err(ModelError::Tree { node, detail });
        let mut parents = vec![0_usize; nodes.len()];
        for (index, node) in nodes.iter().enumerate() {
            let (Node::Split { threshold: number, .. } | Node::Leaf { value: number, .. }) = *node;
            if !number.is_finite() {
                return invalid(index, format!("its threshold or value is {number}"));
            }
            if !node.cover().is_finite() || node.cover() < 0.0 {
                return invalid(index, format!("its cover is {}", node.cover()));
            }
            if let Node::Split { left, right, .. } = *node {
                for child in [left, right] {
                    if child <= index || child >= nodes.len() {
                        return invalid(index, format!("its child {child} is not one of the later nodes"));
                    }
                    parents[child] += 1;
                }
            }
        }
        match parents.iter().skip(1).position(|&count| count != 1) {
            _ if nodes.is_empty() => invalid(0, "a tree needs a root".to_owned()),
            Some(before) => invalid(before + 1, format!("it has {} parents", parents[before + 1])),
            None => Ok(Self { nodes }),
        }
    }

    /// The nodes, the root first.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The position of the leaf that a row ends in.
    ///
    /// # Panics
    /// If the row lacks a column that is looked at.
    pub fn leaf(&self, row: &[f64]) -> usize {
        let mut index = 0;
        while let Node::Split { column, threshold, left, right, missing, .. } = self.nodes[index] {
            let x = row[column];
            let side = match x.is_nan() {
                true => missing,
                false if x < threshold => Side::Left,
                false => Side::Right,
            };
            index = if side == Side::Left { left } else { right };
        }
        index
    }

    /// The value of the leaf that a row ends in.
    ///
    /// # Panics
    /// If the row lacks a column that is looked at.
    pub fn score(&self, row: &[f64]) -> f64 {
        match self.nodes[self.leaf(row)] {
            Node::Leaf { value, .. } => value,
            Node::Split { .. } => unreachable!("`leaf` ends in a leaf"),
        }
    }

    /// How many columns rows must have.
    pub fn width(&self) -> usize {
        let column = |node: &Node| match *node {
            Node::Split { column, .. } => column + 1,
            Node::Leaf { .. } => 0,
        };
        self.nodes.iter().map(column).max().unwrap_or(0)
    }
}

impl TryFrom<Vec<Node>> for Tree {
    type Error = ModelError;

    fn try_from(nodes: Vec<Node>) -> Result<Self, ModelError> {
        Self::new(nodes)
    }
}

impl From<Tree> for Vec<Node> {
    fn from(tree: Tree) -> Self {
        tree.nodes
    }
}

/// A sum of trees: `f(x) = base + Σ_t tree_t(x)`.
///
/// # Examples
/// ```
/// use align_factors::{Forest, Matrix, Node, Scorer, Side, Tree};
///
/// let stump = Tree::new(vec![
///     Node::Split { column: 0, threshold: 1.5, left: 1, right: 2, missing: Side::Left, cover: 4.0 },
///     Node::Leaf { value: -0.4, cover: 2.0 },
///     Node::Leaf { value: 0.6, cover: 2.0 },
/// ])?;
/// let forest = Forest { base: 3.0, trees: vec![stump] };
/// assert_eq!(forest.scores(&Matrix::from_rows(&[[1.0], [2.0], [f64::NAN]])), [2.6, 3.6, 2.6]);
/// # Ok::<(), align_factors::ModelError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forest {
    /// What is added to every row.
    pub base: f64,
    /// The trees.
    pub trees: Vec<Tree>,
}

impl Forest {
    /// The score of one row.
    ///
    /// # Panics
    /// If the row lacks a column that is looked at.
    pub fn score(&self, row: &[f64]) -> f64 {
        self.trees.iter().fold(self.base, |sum, tree| sum + tree.score(row))
    }

    /// How many columns rows must have.
    pub fn width(&self) -> usize {
        self.trees.iter().map(Tree::width).max().unwrap_or(0)
    }
}

impl Scorer for Forest {
    fn scores(&self, rows: &Matrix) -> Vec<f64> {
        rows.rows().map(|row| self.score(row)).collect()
    }

    fn structure(&self) -> Structure<'_> {
        Structure::Forest(self)
    }
}
