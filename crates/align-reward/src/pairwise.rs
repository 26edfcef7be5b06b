//! A pairwise preference model: both answers are read at once, so preferences may go round in circles.
//!
//! One sequence holds prompt, first answer and second answer, and a scalar head at its last token gives `s(x, a, b)`. Read in
//! both orders, `P(a ≻ b) = σ(s(x, a, b) − s(x, b, a))`: antisymmetric whatever the head has learnt, and 1/2 for equal answers.
//!
//! Training needs no loss of its own. The negative log-likelihood of a label is `−log σ(s(x, c, r) − s(x, r, c))`, the ranking
//! loss of a reward that scores the completions `x → c r` and `x → r c`: [`PairForm::pairs`] makes those, and
//! [`BradleyTerryObjective`](crate::BradleyTerryObjective) trains on them.
//!
//! Departures: the pair model of RLHFlow answers with the token `A` or `B` and averages two probabilities; here a scalar head
//! takes the place of the two tokens, and its scores are subtracted before the sigmoid, as in training. PairRM reads both
//! candidates in one sequence too, with a score for each of them.
//!
//! # Source
//! Dong et al. 2024, "RLHF workflow" (the pair preference model), <https://arxiv.org/abs/2405.07863>; Jiang et al. 2023,
//! "LLM-Blender" (PairRM), <https://arxiv.org/abs/2306.02561>.

use align_core::{Completions, Preference, PreferencePairs, Reward};
use burn::tensor::{Tensor, activation::sigmoid};

use crate::pairs::shared_prompts;

/// How two answers become one sequence: `prompt → first separator second separator`.
///
/// # Examples
/// ```
/// use align_reward::PairForm;
///
/// // The stop token parts the answers; one that stands there already is not repeated.
/// let form = PairForm::new(vec![0]);
/// let (prompt, both) = form.join(&[7], &[1, 2, 0], &[3]);
/// assert_eq!((prompt, both), (vec![7], vec![1, 2, 0, 3, 0]));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairForm {
    separator: Vec<u32>,
}

impl PairForm {
    /// A form with these tokens after each answer that does not end in them already: a stop token, say. An answer that was
    /// cut off is thereby read like one that ended.
    ///
    /// # Panics
    /// Without a token: where one answer ends and the other begins could not be told.
    pub fn new(separator: Vec<u32>) -> Self {
        assert!(!separator.is_empty(), "a separator has at least one token");
        Self { separator }
    }

    /// The tokens after each answer.
    pub fn separator(&self) -> &[u32] {
        &self.separator
    }

    /// Prompt and response of the sequence that holds both answers.
    pub fn join(&self, prompt: &[u32], first: &[u32], second: &[u32]) -> (Vec<u32>, Vec<u32>) {
        let missing = |answer: &[u32]| match answer.ends_with(&self.separator) {
            true => Vec::new(),
            false => self.separator.clone(),
        };
        (prompt.to_vec(), [first, &missing(first), second, &missing(second)].concat())
    }

    /// How many tokens that sequence has, in either order. Whether a model's context holds them is for the caller to ask.
    pub fn length(&self, prompt: &[u32], first: &[u32], second: &[u32]) -> usize {
        let (prompt, both) = self.join(prompt, first, second);
        prompt.len() + both.len()
    }

    /// The sequences of a batch, one a row.
    ///
    /// # Panics
    /// If a row's two prompts differ, or the sides have different numbers of rows.
    pub fn joined(&self, first: &Completions, second: &Completions) -> Completions {
        let prompts = shared_prompts("PairForm", first, second);
        let answers = first.response.rows().into_iter().zip(second.response.rows());
        let rows: Vec<Vec<u32>> =
            prompts.iter().zip(answers).map(|(prompt, (a, b))| self.join(prompt, &a, &b).1).collect();
        Completions::from_rows(&prompts, &rows, &first.prompt.ids.device())
    }

    /// Labelled pairs as a pairwise model learns them: chosen is the sequence in which the preferred answer comes first, rejected
    /// the one in which it comes second. Margins stay.
    ///
    /// # Panics
    /// As [`PairForm::joined`].
    pub fn pairs(&self, pairs: &PreferencePairs) -> PreferencePairs {
        PreferencePairs {
            chosen: self.joined(&pairs.chosen, &pairs.rejected),
            rejected: self.joined(&pairs.rejected, &pairs.chosen),
            margin: pairs.margin.clone(),
        }
    }
}

/// A reward of joined sequences as a preference: `P(a ≻ b) = σ(s(a, b) − s(b, a))`.
///
/// The difference is read on the scorer's own scale: whatever multiplies its scores makes the preferences sharper or flatter than
/// those that were learnt. A [`RewardModel`](align_models::RewardModel) trained on [`PairForm::pairs`] needs no normalisation;
/// [`PairwiseManifest::load`](crate::PairwiseManifest::load) refuses one that has it.
///
/// # Examples
/// ```
/// use align_core::{Completions, Preference, RewardFn};
/// use align_reward::{PairForm, Pairwise};
/// use align_testkit::device;
///
/// // Likes the sequence whose first answer is the smaller token, by ln 3: three times in four, if s is antisymmetric.
/// let scorer = RewardFn(|c: &Completions| {
///     let ids = c.response.ids.clone();
///     let (first, second) = (ids.clone().slice([0..1, 0..1]), ids.slice([0..1, 2..3]));
///     (second - first).float().squeeze_dim::<1>(1) * (3f64.ln() / 2.0)
/// });
/// let oracle = Pairwise { scorer, form: PairForm::new(vec![0]) };
/// let answer = |token| Completions::from_rows(&[vec![9]], &[vec![token]], &device());
/// let preference = oracle.prefer(&answer(1), &answer(2)).into_scalar::<f32>();
/// assert!((preference - 0.75).abs() < 1e-6);
/// ```
#[derive(Clone, Debug)]
pub struct Pairwise<R> {
    /// Scores joined sequences: s.
    pub scorer: R,
    /// How they are joined.
    pub form: PairForm,
}

impl<R: Reward> Pairwise<R> {
    /// The log-odds `s(a, b) − s(b, a)` of every row; exchanging the sides changes its sign and nothing else.
    ///
    /// # Shapes
    /// → `[B]`.
    ///
    /// # Units
    /// Nats.
    ///
    /// # Panics
    /// As [`PairForm::joined`].
    pub fn log_odds(&self, first: &Completions, second: &Completions) -> Tensor<1> {
        let forward = self.scorer.score(&self.form.joined(first, second));
        forward - self.scorer.score(&self.form.joined(second, first))
    }
}

impl<R: Reward> Preference for Pairwise<R> {
    /// # Panics
    /// As [`PairForm::joined`].
    fn prefer(&self, first: &Completions, second: &Completions) -> Tensor<1> {
        sigmoid(self.log_odds(first, second))
    }

    fn take_metrics(&self) -> Vec<(String, f64)> {
        self.scorer.take_metrics()
    }

    fn take_failure(&self) -> Option<String> {
        self.scorer.take_failure()
    }
}
