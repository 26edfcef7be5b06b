//! Greedy soups: add an ingredient where that does not make the soup worse.
//!
//! [`GreedyPath`] is the search as data: it says which soup is to be scored next and takes the score, so that a search
//! may be written down after every score and gone on with later. [`greedy`] is the loop around it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::WeightError;
use crate::weights::Weights;

/// Which of two scores is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Accuracies and rewards.
    Higher,
    /// Losses.
    Lower,
}

impl Better {
    /// Whether `score` is at least as good as `other`.
    pub fn no_worse(self, score: f64, other: f64) -> bool {
        match self {
            Self::Higher => score >= other,
            Self::Lower => score <= other,
        }
    }

    /// The order that puts better scores first.
    pub(crate) fn compare(self, a: f64, b: f64) -> std::cmp::Ordering {
        match self {
            Self::Higher => b.total_cmp(&a),
            Self::Lower => a.total_cmp(&b),
        }
    }
}

impl fmt::Display for Better {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Higher => "higher is better",
            Self::Lower => "lower is better",
        })
    }
}

/// Why a greedy soup was not made.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GreedyError {
    /// There is nothing to choose from.
    #[error("a greedy soup chooses among ingredients: expected at least 2, found {found}")]
    TooFew {
        /// How many there are.
        found: usize,
    },
    /// Two ingredients are one checkpoint.
    #[error("ingredients[{second}] is ingredients[{first}] once more: expected different ingredients")]
    Repeated {
        /// The earlier one.
        first: usize,
        /// The later one.
        second: usize,
    },
    /// A score that orders nothing.
    #[error("{metric} of the soup of {} is {score}, expected a finite number", members_in_words(members))]
    NotFinite {
        /// What was measured.
        metric: String,
        /// The soup's members.
        members: Vec<usize>,
        /// The score.
        score: f64,
    },
    /// More scores than the search asks for.
    #[error("the search is over after {trials} trials: expected no further score, found {score}")]
    Over {
        /// How many there were.
        trials: usize,
        /// The score.
        score: f64,
    },
    /// The record is of a search by another measure.
    #[error("the record is of a search by {found}, expected {expected}")]
    OtherMeasure {
        /// The metric and direction asked for.
        expected: String,
        /// Those of the record.
        found: String,
    },
    /// The record is of a search among other ingredients.
    #[error("the record has {} as ingredients[{index}], expected {}", named(found), named(expected))]
    OtherIngredient {
        /// The position.
        index: usize,
        /// The identity asked for; `None` beyond the last.
        expected: Option<String>,
        /// The identity in the record.
        found: Option<String>,
    },
    /// The record contradicts the rule of the search.
    #[error("the record is damaged: {found} does not follow from its scores")]
    Damaged {
        /// What does not follow.
        found: String,
    },
}

fn members_in_words(members: &[usize]) -> String {
    let members: Vec<String> = members.iter().map(|member| format!("ingredients[{member}]")).collect();
    members.join(", ")
}

fn named(id: &Option<String>) -> &str {
    id.as_deref().unwrap_or("nothing")
}

/// A soup that the search scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// The ingredient it was to add.
    pub added: usize,
    /// Positions of its members, in the order they came; the last is `added`.
    pub members: Vec<usize>,
    /// Its score.
    pub score: f64,
    /// Whether the ingredient stays.
    pub accepted: bool,
}

/// A greedy search, from its beginning to where it is: every score in the order they came.
///
/// First every ingredient is scored alone. The best of them is the first trial; then the others are tried in the order of their
/// own scores, and one stays if the uniform soup with it scores no worse than the soup without. Ingredients with equal
/// scores keep the order they were given in, and a trial that scores exactly as well as the soup is accepted, as in the
/// paper.
///
/// # Examples
/// A search that is written down and gone on with:
/// ```
/// use align_soup::{Better, GreedyPath};
///
/// let ids = ["a", "b"].map(String::from);
/// let mut path = GreedyPath::begin("accuracy", Better::Higher, &ids)?;
/// path.record(0.5)?;
/// let saved = serde_json::to_string(&path).unwrap();
///
/// let mut path = GreedyPath::resume(serde_json::from_str(&saved).unwrap(), "accuracy", Better::Higher, &ids)?;
/// assert_eq!(path.next_members(), Some(vec![1]));
/// path.record(0.6)?;
/// assert_eq!(path.next_members(), Some(vec![1, 0])); // the better one first
/// path.record(0.55)?;
/// assert_eq!(path.next_members(), None);
/// assert_eq!(path.members(), [1]);
/// # Ok::<(), align_soup::GreedyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GreedyPath {
    metric: String,
    better: Better,
    ingredients: Vec<String>,
    alone: Vec<f64>,
    trials: Vec<Trial>,
}

impl GreedyPath {
    /// Begins a search among ingredients with these identities; `metric` says what their scores are.
    ///
    /// # Errors
    /// If there are fewer than two ingredients, or two have one identity.
    pub fn begin(metric: &str, better: Better, ids: &[String]) -> Result<Self, GreedyError> {
        if ids.len() < 2 {
            return Err(GreedyError::TooFew { found: ids.len() });
        }
        for (second, id) in ids.iter().enumerate() {
            if let Some(first) = ids[..second].iter().position(|earlier| earlier == id) {
                return Err(GreedyError::Repeated { first, second });
            }
        }
        let ingredients = ids.to_vec();
        Ok(Self { metric: metric.to_owned(), better, ingredients, alone: Vec::new(), trials: Vec::new() })
    }

    /// Goes on with a search that was written down.
    ///
    /// # Errors
    /// As [`GreedyPath::begin`]; if the record is of another metric or of other ingredients, or its trials do not follow from its
    /// scores.
    pub fn resume(record: Self, metric: &str, better: Better, ids: &[String]) -> Result<Self, GreedyError> {
        let mut path = Self::begin(metric, better, ids)?;
        if (&record.metric, record.better) != (&path.metric, path.better) {
            let measure = |path: &Self| format!("{} ({})", path.metric, path.better);
            return Err(GreedyError::OtherMeasure { expected: measure(&path), found: measure(&record) });
        }
        for index in 0..ids.len().max(record.ingredients.len()) {
            let (expected, found) = (ids.get(index), record.ingredients.get(index));
            if expected != found {
                let (expected, found) = (expected.cloned(), found.cloned());
                return Err(GreedyError::OtherIngredient { index, expected, found });
            }
        }
        let later = record.trials.iter().skip(1).map(|trial| trial.score);
        for score in record.alone.iter().copied().chain(later) {
            path.record(score)?;
        }
        if path.alone != record.alone {
            return Err(GreedyError::Damaged { found: format!("the list of {} scores", record.alone.len()) });
        }
        let differs = (0..path.trials.len().max(record.trials.len()))
            .find(|&at| path.trials.get(at) != record.trials.get(at));
        match differs {
            Some(at) => Err(GreedyError::Damaged { found: format!("trial {at}") }),
            None => Ok(path),
        }
    }

    /// Positions of the members of the soup to be scored next; `None` when the search is over.
    pub fn next_members(&self) -> Option<Vec<usize>> {
        if self.alone.len() < self.ingredients.len() {
            return Some(vec![self.alone.len()]);
        }
        let candidate = *self.order().get(self.trials.len())?;
        let mut members = self.members();
        members.push(candidate);
        Some(members)
    }

    /// Takes the score of the soup of [`next_members`](Self::next_members).
    ///
    /// # Errors
    /// If the score is not finite, or the search is over.
    pub fn record(&mut self, score: f64) -> Result<(), GreedyError> {
        let Some(members) = self.next_members() else {
            return Err(GreedyError::Over { trials: self.trials.len(), score });
        };
        if !score.is_finite() {
            return Err(GreedyError::NotFinite { metric: self.metric.clone(), members, score });
        }
        if self.alone.len() < self.ingredients.len() {
            self.alone.push(score);
            if self.alone.len() == self.ingredients.len() {
                let best = self.order()[0];
                let (members, score) = (vec![best], self.alone[best]);
                self.trials.push(Trial { added: best, members, score, accepted: true });
            }
            return Ok(());
        }
        let added = *members.last().expect("a trial adds an ingredient");
        let soup = self.score().expect("the first trial is accepted");
        let accepted = self.better.no_worse(score, soup);
        self.trials.push(Trial { added, members, score, accepted });
        Ok(())
    }

    /// The order in which ingredients are tried: better alone, earlier in the search.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.alone.len()).collect();
        order.sort_by(|&a, &b| self.better.compare(self.alone[a], self.alone[b]));
        order
    }

    /// The soup so far: positions of its members in the order they came.
    pub fn members(&self) -> Vec<usize> {
        self.accepted().map(|trial| trial.members.clone()).unwrap_or_default()
    }

    /// The score of the soup so far; `None` before every ingredient was scored alone.
    pub fn score(&self) -> Option<f64> {
        self.accepted().map(|trial| trial.score)
    }

    fn accepted(&self) -> Option<&Trial> {
        self.trials.iter().rev().find(|trial| trial.accepted)
    }

    /// 1/n for each member of the soup so far and 0 for the other ingredients, in the order of the ingredients.
    ///
    /// # Errors
    /// [`WeightError::Empty`] before every ingredient was scored alone.
    pub fn weights(&self) -> Result<Weights, WeightError> {
        let members = self.members();
        if members.is_empty() {
            return Err(WeightError::Empty);
        }
        let share = |k: usize| if members.contains(&k) { 1.0 / members.len() as f64 } else { 0.0 };
        Weights::new(&(0..self.ingredients.len()).map(share).collect::<Vec<_>>())
    }

    /// What the scores are.
    pub fn metric(&self) -> &str {
        &self.metric
    }

    /// Which scores are better.
    pub fn better(&self) -> Better {
        self.better
    }

    /// The identities of the ingredients.
    pub fn ingredients(&self) -> &[String] {
        &self.ingredients
    }

    /// The score of each ingredient alone, as far as they were scored.
    pub fn alone(&self) -> &[f64] {
        &self.alone
    }

    /// Every soup of the second phase: first the best ingredient alone, then one for each other ingredient.
    pub fn trials(&self) -> &[Trial] {
        &self.trials
    }

    /// How many scores there are, and how many there will be: 2n − 1 for n ingredients.
    pub fn progress(&self) -> (usize, usize) {
        let done = self.alone.len() + self.trials.len().saturating_sub(1);
        (done, 2 * self.ingredients.len() - 1)
    }
}

/// The greedy soup of ingredients, which may be modules, folders or anything else: `evaluate` scores the *uniform soup* of
/// those it is given (of one: the ingredient itself).
///
/// Ingredients are told apart by position here; a search that is to survive an interruption keeps a [`GreedyPath`].
///
/// # Errors
/// If there are fewer than two ingredients or a score is not finite, and whatever `evaluate` fails with.
///
/// # Source
/// Wortsman et al. 2022, Recipe 1, <https://arxiv.org/abs/2203.05482>.
///
/// # Examples
/// ```
/// use align_soup::{Better, GreedyError, greedy};
///
/// // The best point on a line is 0; −1 and 1.5 lie on both sides of it, and 9 is far away.
/// let path = greedy(&[1.5, -1.0, 9.0], "distance", Better::Lower, |members| {
///     let mean = members.iter().copied().sum::<f64>() / members.len() as f64;
///     Ok::<f64, GreedyError>(mean.abs())
/// })?;
/// assert_eq!(path.members(), [1, 0]);
/// assert_eq!(path.score(), Some(0.25));
/// # Ok::<(), align_soup::GreedyError>(())
/// ```
pub fn greedy<T, E: From<GreedyError>>(
    ingredients: &[T],
    metric: &str,
    better: Better,
    mut evaluate: impl FnMut(&[&T]) -> Result<f64, E>,
) -> Result<GreedyPath, E> {
    let ids: Vec<String> = (0..ingredients.len()).map(|index| index.to_string()).collect();
    let mut path = GreedyPath::begin(metric, better, &ids)?;
    while let Some(members) = path.next_members() {
        let members: Vec<&T> = members.iter().map(|&member| &ingredients[member]).collect();
        path.record(evaluate(&members)?)?;
    }
    Ok(path)
}
