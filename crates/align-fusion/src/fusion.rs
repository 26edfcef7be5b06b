//! Large base, small base and experts as one model.

mod lm;

use align_core::{CausalLm, Completions};
use burn::tensor::Tensor;

use crate::error::{FirstFailure, FusionError};
use crate::row_error::{Member, RowError};
use crate::scores::{MemberScores, table};
use crate::weighing::{Step, Weighing};

/// A small model tuned from the small base, and what it is called in logs.
pub struct Expert<'m> {
    /// Its name.
    pub name: String,
    /// The model. An adapter over the small base shares the base's weights in memory.
    pub model: Box<dyn CausalLm + 'm>,
}

impl<'m> Expert<'m> {
    /// A named model.
    pub fn new(name: impl Into<String>, model: Box<dyn CausalLm + 'm>) -> Self {
        Self { name: name.into(), model }
    }
}

/// `π(v | s) ∝ P(v | s) · Π_t (Q_t(v | s) / Q(v | s))^{α_t(s)}`: the large base P moved as the small experts Q_t moved from
/// their own base Q, by weights that are the same everywhere or found anew at every token.
///
/// It is a [`CausalLm`]: it is sampled with the caches of all members, scored, put into best-of-n, taken as a reference. Its
/// scores are normalised log-probabilities, constants, on the large base's device; members may live on others. Temperature
/// and filters come after fusion, never inside it. Weights are a function of the row's own scores, so scoring finds those
/// that sampling used, and [`explain`](Self::explain) gives them.
///
/// Members are read only: hand in models without autodiff (`model.valid()`, [`Frozen`](align_core::Frozen)), else every pass
/// records a graph that nobody runs.
///
/// # When scores are no distribution
/// The methods of [`CausalLm`] return no errors. Where a member gives NaN, masks every token, or cannot hold the row in its
/// context, the scores become NaN, so that [`generate`](align_models::generate()) stops, and the first failure is kept for
/// [`take_failure`](Self::take_failure).
///
/// # Source
/// Equations F1 to F4 of the [crate](crate): Liu et al. 2024, eq. 1, <https://arxiv.org/abs/2401.08565>; Fan et al. 2024, eq. 2
/// and §3.3, <https://arxiv.org/abs/2406.15480>.
///
/// # Examples
/// The expert doubled the odds of token 1, and so does the large base now:
/// ```
/// use align_core::{CausalLm, TokenBatch};
/// use align_fusion::Fusion;
/// use align_testkit::{BigramLm, device};
///
/// let model = |odds: f32| BigramLm::independent(&[0.0, odds.ln()], &device());
/// let (large, small, tuned) = (model(3.0), model(1.0), model(2.0));
/// let fusion = Fusion::proxy_tuning(Box::new(&large), Box::new(&small), Box::new(&tuned))?;
///
/// let scores = fusion.logits(&TokenBatch::left_padded(&[vec![0]], &device()));
/// let scores: Vec<f32> = scores.to_data().iter::<f32>().collect();
/// assert!(((scores[1] - scores[0]).exp() - 6.0).abs() < 1e-5);
/// # Ok::<(), align_fusion::FusionError>(())
/// ```
pub struct Fusion<'m> {
    /// Large base, small base, experts.
    members: Vec<Box<dyn CausalLm + 'm>>,
    names: Vec<String>,
    weighing: Weighing,
    vocabulary: usize,
    failure: FirstFailure<FusionError>,
}

impl<'m> Fusion<'m> {
    /// A large base steered by experts that were tuned from `anchor`, the small base.
    ///
    /// Ids have to mean the same to all members; where tables of strings are at hand, check that by
    /// [`same_vocabulary`](crate::same_vocabulary). That an expert was tuned from the anchor cannot be seen; that it differs from
    /// it can: [`check_direction`](Self::check_direction).
    ///
    /// # Errors
    /// With no experts, two of one name, members of other vocabularies than the base's, or a weighing that does not fit.
    pub fn new(
        base: Box<dyn CausalLm + 'm>,
        anchor: Box<dyn CausalLm + 'm>,
        experts: Vec<Expert<'m>>,
        weighing: Weighing,
    ) -> Result<Self, FusionError> {
        let fusion = Self::with_same_tokenizers(base, anchor, experts, weighing)?;
        let expected = fusion.members[0].vocab_size();
        match fusion.members.iter().position(|member| member.vocab_size() != expected) {
            None => Ok(fusion),
            Some(index) => Err(FusionError::VocabularySize {
                member: fusion.name(index),
                expected,
                found: fusion.members[index].vocab_size(),
            }),
        }
    }

    /// [`new`](Self::new) for members that are known to have one tokenizer and differ by rows of padding at the end of their
    /// vocabularies: only the ids that all of them have are scored.
    ///
    /// # Errors
    /// As [`new`](Self::new), but for the sizes.
    pub fn with_same_tokenizers(
        base: Box<dyn CausalLm + 'm>,
        anchor: Box<dyn CausalLm + 'm>,
        experts: Vec<Expert<'m>>,
        weighing: Weighing,
    ) -> Result<Self, FusionError> {
        if experts.is_empty() {
            return Err(FusionError::NoExperts);
        }
        weighing.check(experts.len())?;
        let mut members = vec![base, anchor];
        let mut names: Vec<String> = Vec::new();
        for Expert { name, model } in experts {
            if names.contains(&name) {
                return Err(FusionError::SameName { name });
            }
            names.push(name);
            members.push(model);
        }
        let vocabulary = members.iter().map(|member| member.vocab_size()).min().expect("there are members");
        Ok(Self { members, names, weighing, vocabulary, failure: FirstFailure::default() })
    }

    /// Proxy tuning: one expert, called `expert`, with weight 1 everywhere.
    ///
    /// # Errors
    /// If the vocabularies differ.
    ///
    /// # Source
    /// Liu et al. 2024, eq. 1, <https://arxiv.org/abs/2401.08565>.
    pub fn proxy_tuning(
        base: Box<dyn CausalLm + 'm>,
        anchor: Box<dyn CausalLm + 'm>,
        expert: Box<dyn CausalLm + 'm>,
    ) -> Result<Self, FusionError> {
        let weighing = Weighing::Static { weights: vec![1.0] };
        Self::new(base, anchor, vec![Expert::new("expert", expert)], weighing)
    }

    /// The same members, weighed otherwise.
    ///
    /// # Errors
    /// If the weighing does not fit the number of experts.
    pub fn with_weighing(mut self, weighing: Weighing) -> Result<Self, FusionError> {
        weighing.check(self.names.len())?;
        self.weighing = weighing;
        Ok(self)
    }

    /// The experts' names, in the order of their weights.
    pub fn experts(&self) -> &[String] {
        &self.names
    }

    /// How the experts are weighed.
    pub fn weighing(&self) -> &Weighing {
        &self.weighing
    }

    /// What was decided before every response token: weights, divergences, and whether a bound was met.
    ///
    /// One list a row, one entry for each token that counts.
    ///
    /// # Errors
    /// If a row is longer than a member's context, or a member's scores are no distribution.
    pub fn explain(&self, completions: &Completions) -> Result<Vec<Vec<Step>>, FusionError> {
        self.check_lengths((0..).zip(completions.joined().lengths()))?;
        let mut rows: Vec<Vec<Step>> = vec![Vec::new(); completions.batch_size()];
        for (place, step) in self.weigh_each(completions, |_, _, step| step) {
            rows[place.row].push(step.map_err(|error| self.failed(place.row, place.step, error))?);
        }
        Ok(rows)
    }

    /// Refuses experts that move no token at any of these responses' positions.
    ///
    /// Decoding goes on with such an expert and leaves the base as it is; where that is surely a mistake (the wrong folder, an
    /// adapter that was never trained), ask here first. An expert differs if its shift varies over the vocabulary by more than
    /// 10⁻⁵ of the largest score: less is rounding in f32.
    ///
    /// # Errors
    /// [`FusionError::NoDirection`] names the expert. A row that is too long, or scores that are no distribution.
    pub fn check_direction(&self, completions: &Completions) -> Result<(), FusionError> {
        self.check_lengths((0..).zip(completions.joined().lengths()))?;
        let mut moves = vec![false; self.names.len()];
        let mut positions = 0;
        let found = self.chunks(completions, |places, scores| {
            positions += places.len();
            for row in 0..scores.rows() {
                let anchor = scores.of(1, row);
                for (expert, moves) in moves.iter_mut().enumerate().filter(|(_, moves)| !**moves) {
                    *moves = differs(scores.of(2 + expert, row), anchor);
                }
            }
            // Scores that are no distribution are a failure of their own.
            scores.each(&self.weighing, |_, _, _| ())
        });
        for (place, weighed) in found {
            weighed.map_err(|error| self.failed(place.row, place.step, error))?;
        }
        match moves.iter().position(|moves| !moves) {
            None => Ok(()),
            Some(expert) => Err(FusionError::NoDirection { expert: self.names[expert].clone(), positions }),
        }
    }

    /// The first failure since this was last asked; see [above](Self#when-scores-are-no-distribution).
    pub fn take_failure(&self) -> Option<FusionError> {
        self.failure.take()
    }

    pub(crate) fn members(&self) -> &[Box<dyn CausalLm + 'm>] {
        &self.members
    }

    pub(crate) fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Fused scores `[N, V]` on the base's device; failures are named by the row and step that `at` gives for their row.
    pub(crate) fn fuse(
        &self,
        scores: &MemberScores,
        counts: impl Fn(usize) -> bool + Sync,
        at: impl Fn(usize) -> (usize, usize),
    ) -> Tensor<2> {
        let (fused, errors) = scores.fuse(&self.weighing, counts);
        if let Some((index, error)) = errors.into_iter().next() {
            let (row, step) = at(index);
            self.failure.keep(self.failed(row, step, error));
        }
        table(fused, self.vocabulary, &self.device())
    }

    /// NaN for so many rows.
    pub(crate) fn nothing(&self, rows: usize) -> Tensor<2> {
        table(vec![f32::NAN; rows * self.vocabulary], self.vocabulary, &self.device())
    }

    /// Whether a row, given by number and length, exceeds a member's context, which then is the failure.
    pub(crate) fn too_long(&self, rows: impl IntoIterator<Item = (usize, usize)>) -> bool {
        let checked = self.check_lengths(rows);
        checked.map_err(|error| self.failure.keep(error)).is_err()
    }

    fn check_lengths(&self, rows: impl IntoIterator<Item = (usize, usize)>) -> Result<(), FusionError> {
        let contexts = self.members.iter().enumerate().filter_map(|(index, member)| {
            let context = member.context_length()?;
            Some((context, index))
        });
        let Some((context, shortest)) = contexts.min() else { return Ok(()) };
        match rows.into_iter().find(|(_, length)| *length > context) {
            None => Ok(()),
            Some((row, found)) => {
                Err(FusionError::TooLong { row, found, context, member: self.name(shortest) })
            }
        }
    }

    /// A member's name, by its place among all members.
    fn name(&self, member: usize) -> String {
        match member {
            0 => Member::Base.to_string(),
            1 => Member::Anchor.to_string(),
            _ => format!("expert `{}`", self.names[member - 2]),
        }
    }

    pub(crate) fn failed(&self, row: usize, step: usize, source: RowError) -> FusionError {
        let member = match source {
            RowError::NotFinite { member, .. } | RowError::AllMasked { member } => member,
            RowError::MaskedOnlyInExpert { expert, .. } => Member::Expert(expert),
            RowError::MaskedOnlyInAnchor { .. } => Member::Anchor,
        };
        let member = self.name(match member {
            Member::Base => 0,
            Member::Anchor => 1,
            Member::Expert(expert) => 2 + expert,
        });
        FusionError::Scores { member, row, step, source }
    }
}

/// Whether the expert's shift varies over the tokens by more than rounding.
fn differs(expert: &[f32], anchor: &[f32]) -> bool {
    let scores =
        || expert.iter().zip(anchor).filter(|(expert, anchor)| expert.is_finite() && anchor.is_finite());
    let largest = scores().map(|(expert, anchor)| expert.abs().max(anchor.abs())).fold(1.0, f32::max);
    let shifts = || scores().map(|(expert, anchor)| expert - anchor);
    let (low, high) = (shifts().fold(f32::INFINITY, f32::min), shifts().fold(f32::NEG_INFINITY, f32::max));
    high - low > 1e-5 * largest
}
