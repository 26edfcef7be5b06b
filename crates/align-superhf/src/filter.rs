//! Which of the sampled completions are learnt.
//!
//! The filter sees all scores of a group, prompt by prompt; empty completions were dropped before scoring and have none.
//! Higher is better, ties go to the earlier sample, and a score that is not finite is an error and never sorted.

use align_core::number::{Finite, UnitInterval};
use align_core::selection::top_k;
use serde::{Deserialize, Serialize};

use crate::error::{Judge, SuperHfError};

/// A rule that chooses among scored completions.
///
/// ```toml
/// filter = { kind = "top_k", k = 1 }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Filter {
    /// The `k` best of every prompt: SuperHF; with a KL of 0, RAFT (Dong et al. 2023, <https://arxiv.org/abs/2304.06767>).
    TopK {
        /// K, at most the samples of a prompt.
        k: usize,
    },
    /// Whatever scores above a constant: the filter of ReST (Gulcehre et al. 2023, <https://arxiv.org/abs/2308.08998>).
    Threshold {
        /// What a score has to exceed.
        above: Finite,
    },
    /// The best share `1 − percentile` of the whole group, whichever prompts they answer; at least one. trlX moves the
    /// percentile from 0.7 to 0.95.
    Percentile {
        /// The share that is not kept.
        percentile: UnitInterval,
    },
}

impl Default for Filter {
    /// The best one: K = 1 in every released configuration.
    fn default() -> Self {
        Self::TopK { k: 1 }
    }
}

/// What a filter kept, and how much of its choice the scores decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// For every prompt the samples kept, best first.
    pub kept: Vec<Vec<usize>>,
    /// Prompts whose last kept sample scores as one that was left out: the order of sampling decided.
    pub ties: usize,
    /// Prompts whose samples, two or more, all have one score: the filter chose nothing there.
    pub constant: usize,
}

impl Chosen {
    /// How many were kept.
    pub fn count(&self) -> usize {
        self.kept.iter().map(Vec::len).sum()
    }
}

impl Filter {
    /// Chooses. `scores` holds for every prompt one entry a sample, `None` where the completion was dropped.
    ///
    /// A prompt with fewer scores than asked for keeps what it has.
    ///
    /// # Errors
    /// [`SuperHfError::NonFiniteScore`] names the prompt by its place in `scores`.
    ///
    /// # Examples
    /// ```
    /// use align_superhf::Filter;
    ///
    /// let scores = [vec![Some(0.3), Some(-1.2), Some(2.5), Some(2.5), Some(0.9)]];
    /// let chosen = Filter::TopK { k: 3 }.choose(&scores)?;
    /// assert_eq!(chosen.kept, [[2, 3, 4]]);
    /// # Ok::<(), align_superhf::SuperHfError>(())
    /// ```
    pub fn choose(self, scores: &[Vec<Option<f64>>]) -> Result<Chosen, SuperHfError> {
        let prompts: Vec<Scored> = scores.iter().map(|row| Scored::of(row)).collect();
        for (prompt_index, prompt) in prompts.iter().enumerate() {
            if let Some(place) = prompt.scores.iter().position(|score| !score.is_finite()) {
                let (completion_index, found) = (prompt.samples[place], f64::from(prompt.scores[place]));
                let judge = Judge::Reward;
                return Err(SuperHfError::NonFiniteScore { judge, prompt_index, completion_index, found });
            }
        }
        let kept: Vec<Vec<usize>> = match self {
            Self::TopK { k } => prompts.iter().map(|prompt| prompt.best(k)).collect(),
            Self::Threshold { above } => {
                let passing = |prompt: &Scored| {
                    prompt.scores.iter().filter(|score| f64::from(**score) > above.get()).count()
                };
                prompts.iter().map(|prompt| prompt.best(passing(prompt))).collect()
            }
            Self::Percentile { percentile } => best_of_group(&prompts, percentile.get()),
        };
        Ok(Chosen {
            ties: prompts.iter().zip(&kept).filter(|(prompt, kept)| prompt.is_cut_within_a_tie(kept)).count(),
            constant: prompts.iter().filter(|prompt| prompt.is_constant()).count(),
            kept: prompts
                .iter()
                .zip(kept)
                .map(|(prompt, kept)| kept.into_iter().map(|place| prompt.samples[place]).collect())
                .collect(),
        })
    }
}

/// The scores of one prompt without gaps, and whose they are.
struct Scored {
    scores: Vec<f32>,
    samples: Vec<usize>,
}

impl Scored {
    fn of(row: &[Option<f64>]) -> Self {
        let present = row.iter().enumerate().filter_map(|(sample, score)| Some((score.as_ref()?, sample)));
        let (scores, samples) = present.map(|(score, sample)| (*score as f32, sample)).unzip();
        Self { scores, samples }
    }

    /// Places of the best, best first.
    fn best(&self, count: usize) -> Vec<usize> {
        top_k(&self.scores, count.min(self.scores.len()))
    }

    fn is_cut_within_a_tie(&self, kept: &[usize]) -> bool {
        let Some(last) = kept.last().map(|&place| self.scores[place]) else { return false };
        self.scores.iter().filter(|score| **score == last).count()
            > kept.iter().filter(|place| self.scores[**place] == last).count()
    }

    fn is_constant(&self) -> bool {
        self.scores.len() > 1 && self.scores.iter().all(|score| *score == self.scores[0])
    }
}

/// Places of the best share of all scores, prompt by prompt.
fn best_of_group(prompts: &[Scored], percentile: f64) -> Vec<Vec<usize>> {
    let owners: Vec<(usize, usize)> = prompts
        .iter()
        .enumerate()
        .flat_map(|(prompt, scored)| (0..scored.scores.len()).map(move |place| (prompt, place)))
        .collect();
    let scores: Vec<f32> = prompts.iter().flat_map(|prompt| prompt.scores.iter().copied()).collect();
    // Rounded first: 0.7 of 10 leaves 3, not 3.0000000000000004 and so 4.
    let share = (scores.len() as f64 * (1.0 - percentile) * 1e9).round() / 1e9;
    let count = (share.ceil() as usize).max(1).min(scores.len());
    let mut kept = vec![Vec::new(); prompts.len()];
    for index in top_k(&scores, count) {
        let (prompt, place) = owners[index];
        kept[prompt].push(place);
    }
    kept
}
