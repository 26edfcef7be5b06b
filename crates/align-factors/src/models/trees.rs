//! Gradient-boosted trees, grown by `hessboost` and kept as plain trees.

use align_core::number::{Fraction, NonNegative};
use hessboost::prelude::{BoostedModel, DMatrix, Objective, RegLoss, TrainingParams, TreeMethod, train};
use hessboost::tree::RegTree;
use serde::{Deserialize, Serialize};

use super::least_squares::check_labels;
use super::{Forest, ModelError, Node, Side, Tree};
use crate::Matrix;

/// How trees are grown.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TreesConfig {
    /// What they minimise. Default squared error.
    pub loss: TreesLoss,
    /// How many. Default 150.
    pub trees: usize,
    /// The share of each tree that is added. Default 0.1, as for stumps.
    pub learning_rate: Fraction,
    /// The most splits between root and leaf. Default 3: interactions of up to three factors.
    pub depth: usize,
    /// The penalty λ on squared leaf values. Default 1, that of XGBoost.
    pub lambda: NonNegative,
    /// Threads. Default 1: the forest does not depend on it, and pools are fitted beside others.
    pub threads: usize,
}

impl Default for TreesConfig {
    fn default() -> Self {
        Self {
            loss: TreesLoss::Squared,
            trees: 150,
            learning_rate: Fraction::literal(0.1),
            depth: 3,
            lambda: NonNegative::literal(1.0),
            threads: 1,
        }
    }
}

/// What trees minimise, and what they then score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TreesLoss {
    /// Squared error; the score is the label.
    Squared,
    /// Cross-entropy of labels 0 and 1; the score is the logit.
    Logistic,
}

impl Forest {
    /// Gradient-boosted trees. NaN counts as missing, and each split learns which side it goes to.
    ///
    /// The same data and settings give the same forest, bit for bit: nothing is sampled. Columns are read in f32; covers are sums
    /// of second derivatives, which for squared error are counts of rows.
    ///
    /// # Errors
    /// If there are no rows or another number of labels, a label is not finite, a number is infinite, a logistic label is neither 0
    /// nor 1, or a count is 0.
    ///
    /// # Source
    /// Chen, Guestrin 2016, <https://arxiv.org/abs/1603.02754>, as in <https://docs.rs/hessboost>.
    pub fn fit(rows: &Matrix, labels: &[f64], config: &TreesConfig) -> Result<Self, ModelError> {
        let (model, _) = grow(rows, labels, config)?;
        from_model(&model)
    }
}

/// Growing failed.
fn failed(error: hessboost::error::HessboostError) -> ModelError {
    ModelError::Trees(error.to_string())
}

fn grow(rows: &Matrix, labels: &[f64], config: &TreesConfig) -> Result<(BoostedModel, DMatrix), ModelError> {
    check_labels("trees", rows, labels)?;
    let objective = match config.loss {
        TreesLoss::Squared => Objective::SquaredError(RegLoss::default()),
        TreesLoss::Logistic => match labels.iter().position(|&label| label != 0.0 && label != 1.0) {
            Some(row) => return Err(ModelError::NotBinary { model: "trees", row, label: labels[row] }),
            None => Objective::BinaryLogistic(RegLoss::default()),
        },
    };
    let parameters = TrainingParams::builder()
        .objective(objective)
        .tree_method(TreeMethod::Exact)
        .eta(config.learning_rate.get())
        .max_depth(config.depth)
        .lambda(config.lambda.get())
        .nthread(config.threads)
        .build()
        .map_err(failed)?;
    let values: Vec<f32> = rows.values().iter().map(|&value| value as f32).collect();
    let labels: Vec<f32> = labels.iter().map(|&label| label as f32).collect();
    let data = DMatrix::from_dense_vec(values, rows.len(), rows.width())
        .and_then(|data| data.with_labels(&labels))
        .map_err(failed)?;
    let model = train(&parameters, &data, config.trees).map_err(failed)?;
    Ok((model, data))
}

fn from_model(model: &BoostedModel) -> Result<Forest, ModelError> {
    let trees = model.trees().iter().map(from_tree).collect::<Result<_, _>>()?;
    Ok(Forest { base: f64::from(model.base_score()), trees })
}

/// Nodes renumbered so that children stand after their parents.
fn from_tree(tree: &RegTree) -> Result<Tree, ModelError> {
    let mut order = vec![0_usize];
    let mut nodes = Vec::with_capacity(tree.num_nodes());
    while let Some(&number) = order.get(nodes.len()) {
        let node = tree.node(number);
        let cover = f64::from(node.sum_hess);
        if node.is_leaf() {
            nodes.push(Node::Leaf { value: f64::from(node.leaf_value), cover });
            continue;
        }
        let left = order.len();
        order.extend([node.left as usize, node.right as usize]);
        nodes.push(Node::Split {
            column: node.split_feature as usize,
            threshold: in_double(node.split_cond),
            left,
            right: left + 1,
            missing: if node.default_left { Side::Left } else { Side::Right },
            cover,
        });
    }
    Tree::new(nodes)
}

/// The least f64 that is not below the threshold once it is rounded to f32: the rule on rows in f64 is then the rule that
/// the trees were grown by.
fn in_double(threshold: f32) -> f64 {
    let middle = f64::midpoint(f64::from(threshold.next_down()), f64::from(threshold));
    if middle as f32 >= threshold { middle } else { middle.next_up() }
}

#[cfg(test)]
mod tests {
    use align_core::Draws;
    use align_core::draws::Purpose;
    use align_testkit::assert_all_close;
    use hessboost::prelude::Iterations;

    use super::*;
    use crate::Scorer;

    /// Four columns, the last one constant, a tenth of the second missing; a product and a step.
    fn survey(rows: usize) -> (Matrix, Vec<f64>) {
        let draws = Draws::new(11);
        let mut labels = Vec::new();
        let mut values = Vec::new();
        for row in 0..rows as u64 {
            let x = |column| draws.normal(Purpose::Synthesize, column, row);
            let missing = draws.token(Purpose::Synthesize, 9, row, 0, 0) < 0.1;
            labels.push(x(0) * x(1) + f64::from(x(2) > 0.3) + if missing { 2.0 } else { 0.0 });
            values.extend([x(0), if missing { f64::NAN } else { x(1) }, x(2), 1.0]);
        }
        (Matrix::new(values, 4), labels)
    }

    #[test]
    fn a_converted_forest_scores_as_hessboost_does() {
        let (rows, labels) = survey(400);
        for loss in [TreesLoss::Squared, TreesLoss::Logistic] {
            let labels: Vec<f64> = match loss {
                TreesLoss::Squared => labels.clone(),
                TreesLoss::Logistic => labels.iter().map(|&label| f64::from(label > 0.5)).collect(),
            };
            let config = TreesConfig { loss, ..TreesConfig::default() };
            let (model, data) = grow(&rows, &labels, &config).unwrap();
            let forest = from_model(&model).unwrap();
            assert_eq!(forest.trees.len(), config.trees);
            let theirs = model.predict_margin(&data, Iterations::Best).unwrap();
            let theirs: Vec<f64> = theirs.as_slice().iter().map(|&score| f64::from(score)).collect();
            // Theirs are sums of 150 numbers below 1 in f32.
            assert_all_close(forest.scores(&rows), theirs, 1e-5, 1e-5);
        }
    }

    #[test]
    fn thresholds_in_f64_part_rows_as_their_f32_do() {
        for threshold in [0.1_f32, 1.0, -1.0, 0.0, 3.0e-39, 1.5e20] {
            let double = in_double(threshold);
            assert!(double as f32 >= threshold && (double.next_down() as f32) < threshold, "{threshold}");
        }
    }

    #[test]
    fn covers_are_rows_and_add_up() {
        let (rows, labels) = survey(400);
        let forest = Forest::fit(&rows, &labels, &TreesConfig::default()).unwrap();
        for tree in &forest.trees {
            let nodes = tree.nodes();
            // Second derivatives of ½ (y − f)² are 1.
            assert_eq!(nodes[0].cover(), 400.0);
            for node in nodes {
                if let Node::Split { left, right, cover, .. } = *node {
                    assert_eq!(nodes[left].cover() + nodes[right].cover(), cover);
                }
            }
        }
    }
}
