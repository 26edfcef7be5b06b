//! Several rewards that judge as one.

use std::sync::Mutex;

use align_core::{Completions, Reward};
use align_models::SharedRewardModels;
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::aggregate::{Aggregate, Divisor, mean, variance};
use crate::bradley_terry::host;
use crate::error::RewardError;

/// The members of an ensemble.
pub trait Members: Send + Sync {
    /// How many there are.
    fn count(&self) -> usize;

    /// Every member's scores.
    ///
    /// # Shapes
    /// → k times `[B]`, constants.
    fn scores(&self, completions: &Completions) -> Vec<Tensor<1>>;

    /// As [`Reward::take_failure`], of any of them.
    fn take_failure(&self) -> Option<String> {
        None
    }
}

impl<R: Reward> Members for Vec<R> {
    fn count(&self) -> usize {
        self.len()
    }

    fn scores(&self, completions: &Completions) -> Vec<Tensor<1>> {
        self.iter().map(|member| member.score(completions)).collect()
    }

    fn take_failure(&self) -> Option<String> {
        self.iter().find_map(Reward::take_failure)
    }
}

impl Members for SharedRewardModels {
    fn count(&self) -> usize {
        self.members().len()
    }

    fn scores(&self, completions: &Completions) -> Vec<Tensor<1>> {
        SharedRewardModels::scores(self, completions)
    }
}

/// Rewards that differ by their seed, read as one conservative reward.
///
/// Members must be on one scale: a [`RewardModel`](align_models::RewardModel) carries its own, anything else goes into
/// [`Normalized`](crate::Normalized) first.
///
/// # Examples
/// ```
/// use align_core::{Completions, Reward, RewardFn};
/// use align_reward::{Aggregate, Ensemble};
/// use align_testkit::device;
/// use burn::Tensor;
///
/// let constant = |score: f32| RewardFn(move |_: &Completions| Tensor::from_floats([score], &device()));
/// let ensemble = Ensemble::new(vec![constant(1.0), constant(3.0)], Aggregate::WorstCase {})?;
/// let completions = Completions::from_rows(&[vec![1]], &[vec![2]], &device());
/// assert_eq!(ensemble.score(&completions).into_scalar::<f32>(), 1.0);
/// # Ok::<(), align_reward::RewardError>(())
/// ```
#[derive(Debug)]
pub struct Ensemble<M = Vec<Box<dyn Reward>>> {
    members: M,
    aggregate: Aggregate,
    /// Of the batches scored since they were last asked for.
    seen: Mutex<Tally>,
}

impl<M: Members> Ensemble<M> {
    /// Puts members together.
    ///
    /// # Errors
    /// Without members.
    pub fn new(members: M, aggregate: Aggregate) -> Result<Self, RewardError> {
        if members.count() == 0 {
            return Err(RewardError::EmptyEnsemble);
        }
        let seen = Mutex::new(Tally::new(members.count()));
        Ok(Self { members, aggregate, seen })
    }

    /// The members.
    pub fn members(&self) -> &M {
        &self.members
    }

    /// How their scores become one.
    pub fn aggregate(&self) -> Aggregate {
        self.aggregate
    }

    /// Every member's scores of every row.
    ///
    /// # Errors
    /// If members disagree about the number of rows, or a score is not finite.
    pub fn member_scores(&self, completions: &Completions) -> Result<MemberScores, RewardError> {
        MemberScores::new(self.members.scores(completions).iter().map(host).collect())
    }

    /// How far the members were apart over all batches scored since the last call; `None` if there were none.
    pub fn take_disagreement(&self) -> Option<Disagreement> {
        let mut seen = self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let tally = std::mem::replace(&mut *seen, Tally::new(self.members.count()));
        tally.finish()
    }
}

impl<M: Members> Reward for Ensemble<M> {
    /// A row on which a member's score is not a number scores NaN.
    ///
    /// # Panics
    /// If members disagree about the number of rows.
    fn score(&self, completions: &Completions) -> Tensor<1> {
        let scores = self.members.scores(completions);
        let device = scores[0].device();
        let members: Vec<Vec<f64>> = scores.iter().map(host).collect();
        let rows = members[0].len();
        assert!(members.iter().all(|member| member.len() == rows), "every member scores every row");
        let mut seen = self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let values: Vec<f32> = (0..rows)
            .map(|row| {
                let scores: Vec<f64> = members.iter().map(|member| member[row]).collect();
                let one = self.aggregate.of(&scores);
                seen.add(&scores, one);
                one as f32
            })
            .collect();
        Tensor::from_data(TensorData::new(values, [rows]), &device)
    }

    /// `ensemble/mean`, `ensemble/min`, `ensemble/variance`, and `ensemble/worst_i`, the share of rows in which member i is
    /// the worst.
    fn take_metrics(&self) -> Vec<(String, f64)> {
        let Some(found) = self.take_disagreement() else { return Vec::new() };
        let fixed = [("mean", found.mean), ("min", found.min), ("variance", found.variance)];
        let worst = found.worst.iter().enumerate().map(|(i, share)| (format!("ensemble/worst_{i}"), *share));
        fixed.into_iter().map(|(name, value)| (format!("ensemble/{name}"), value)).chain(worst).collect()
    }

    fn take_failure(&self) -> Option<String> {
        self.members.take_failure()
    }
}

/// Scores of k members for the same rows, all finite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberScores(Vec<Vec<f64>>);

impl MemberScores {
    /// One list a member.
    ///
    /// # Errors
    /// Without members, with lists of different length, or with a score that is not finite.
    pub fn new(members: Vec<Vec<f64>>) -> Result<Self, RewardError> {
        let Some(first) = members.first() else { return Err(RewardError::EmptyEnsemble) };
        let expected = first.len();
        for (member, scores) in members.iter().enumerate() {
            if scores.len() != expected {
                return Err(RewardError::MemberShape { member, expected, found: scores.len() });
            }
            if let Some(row) = scores.iter().position(|score| !score.is_finite()) {
                return Err(RewardError::MemberNotFinite { member, row, found: scores[row] });
            }
        }
        Ok(Self(members))
    }

    /// One list a member.
    pub fn members(&self) -> &[Vec<f64>] {
        &self.0
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.0[0].len()
    }

    /// The scores of one row, one a member.
    pub fn row(&self, row: usize) -> Vec<f64> {
        self.0.iter().map(|member| member[row]).collect()
    }

    /// One score a row.
    pub fn aggregate(&self, aggregate: &Aggregate) -> Vec<f64> {
        (0..self.rows()).map(|row| aggregate.of(&self.row(row))).collect()
    }

    /// How far the members are apart.
    ///
    /// # Panics
    /// With no rows.
    pub fn disagreement(&self, aggregate: &Aggregate) -> Disagreement {
        let mut tally = Tally::new(self.0.len());
        (0..self.rows()).for_each(|row| {
            let scores = self.row(row);
            tally.add(&scores, aggregate.of(&scores));
        });
        tally.finish().expect("at least one row")
    }
}

/// Where an ensemble's members part: what to watch while a policy is pushed against them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Disagreement {
    /// How many rows were scored.
    pub rows: usize,
    /// Mean of the one score.
    pub aggregate: f64,
    /// Mean over rows of the members' mean.
    pub mean: f64,
    /// Mean over rows of the worst member's score.
    pub min: f64,
    /// Mean over rows of the variance between members, divided by k.
    pub variance: f64,
    /// For each member the share of rows in which it is the worst; equal scores share a row.
    pub worst: Vec<f64>,
}

/// Sums of what [`Disagreement`] averages.
#[derive(Debug)]
struct Tally {
    rows: usize,
    sums: [f64; 4],
    worst: Vec<f64>,
}

impl Tally {
    fn new(members: usize) -> Self {
        Self { rows: 0, sums: [0.0; 4], worst: vec![0.0; members] }
    }

    fn add(&mut self, scores: &[f64], one: f64) {
        let min = Aggregate::WorstCase {}.of(scores);
        let found = [one, mean(scores), min, variance(scores, Divisor::Members)];
        self.rows += 1;
        self.sums.iter_mut().zip(found).for_each(|(sum, value)| *sum += value);
        let share = 1.0 / scores.iter().filter(|score| **score == min).count() as f64;
        for (worst, score) in self.worst.iter_mut().zip(scores) {
            *worst += if *score == min { share } else { 0.0 };
        }
    }

    fn finish(self) -> Option<Disagreement> {
        let rows = self.rows as f64;
        let [aggregate, mean, min, variance] = self.sums.map(|sum| sum / rows);
        let worst = self.worst.into_iter().map(|count| count / rows).collect();
        (self.rows > 0).then_some(Disagreement { rows: self.rows, aggregate, mean, min, variance, worst })
    }
}
