//! One step of mirror descent, and the losses whose minimiser it is.

use super::error::{GameError, positive_eta};
use super::policy::LogPolicy;
use super::preference_game::PreferenceGame;

/// What an iteration of INPO learns from: an anchor, and a distribution that pairs of responses are drawn from.
///
/// In the paper the pairs come from the policy π_t that the iteration starts from, and so they do here until
/// [`with_pairs_from`](Self::with_pairs_from).
///
/// # Source
/// Zhang et al. 2025, section 3.2, <https://arxiv.org/abs/2407.00617>.
#[derive(Clone, Debug)]
pub struct MirrorStep<'a> {
    game: &'a PreferenceGame,
    eta: f64,
    /// (τ/η) log π_ref + (1 − τ/η) log π_t.
    anchor: Vec<f64>,
    pairs: LogPolicy,
}

impl PreferenceGame {
    /// The step of an iteration that starts from `policy`.
    ///
    /// # Errors
    /// If η is not a positive finite number, or less than τ.
    ///
    /// # Panics
    /// If the policy is for another number of responses.
    pub fn mirror_step(&self, policy: &LogPolicy, eta: f64) -> Result<MirrorStep<'_>, GameError> {
        positive_eta(eta)?;
        if self.tau() > eta {
            return Err(GameError::EtaBelowTau { tau: self.tau(), eta });
        }
        let (expected, found) = (self.responses(), policy.responses());
        assert_eq!(expected, found, "the game has {expected} responses, the policy {found}");
        let anchor = policy.mixed_logits(self.reference(), self.tau() / eta);
        Ok(MirrorStep { game: self, eta, anchor, pairs: policy.clone() })
    }
}

impl MirrorStep<'_> {
    /// The same anchor, with pairs that are drawn from another policy: what an iteration learns from stale samples.
    ///
    /// # Panics
    /// If that policy is for another number of responses.
    pub fn with_pairs_from(self, pairs: LogPolicy) -> Self {
        let (expected, found) = (self.game.responses(), pairs.responses());
        assert_eq!(expected, found, "the game has {expected} responses, the policy {found}");
        Self { pairs, ..self }
    }

    /// The same anchor, with the anchor itself as the opponent.
    pub(crate) fn against_mixture(self) -> Self {
        let pairs = LogPolicy::softmax(self.anchor.clone());
        self.with_pairs_from(pairs)
    }

    /// The minimiser of both losses, `∝ exp(P(y ≻ μ)/η) · π_ref^{τ/η} · π_t^{1 − τ/η}` with pairs from μ.
    ///
    /// With μ ≠ π_t the policy is optimised against an old opponent, and nothing in the losses shows it.
    ///
    /// # Source
    /// Zhang et al. 2025, eq. 5 and lemma 5, for μ = π_t; any other μ is ours.
    pub fn target(&self) -> LogPolicy {
        let tilts = self.game.margins_against(&self.pairs).into_iter().map(|margin| margin / self.eta);
        LogPolicy::softmax(self.anchor.iter().zip(tilts).map(|(log, tilt)| log + tilt).collect())
    }

    /// The loss that knows every win rate,
    /// `E_{y,y′∼μ}[(h(y, y′) − (P(y ≻ μ) − P(y′ ≻ μ))/η)²]`, where
    ///
    /// ```text
    /// h(y, y′) = log π(y)/π(y′) − (τ/η) log π_ref(y)/π_ref(y′) − (1 − τ/η) log π_t(y)/π_t(y′)
    /// ```
    ///
    /// # Panics
    /// If the policy is for another number of responses.
    ///
    /// # Source
    /// Zhang et al. 2025, eq. 7.
    pub fn ideal_loss(&self, policy: &LogPolicy) -> f64 {
        let targets: Vec<f64> =
            self.game.margins_against(&self.pairs).into_iter().map(|margin| margin / self.eta).collect();
        self.mean_over_pairs(policy, |h, y, other| (h - (targets[y] - targets[other])).powi(2))
    }

    /// The loss that one answer a pair suffices for, `E[(h(y_w, y_l) − 1/(2η))²]` over pairs from μ and the oracle's answers.
    ///
    /// It exceeds [`ideal_loss`](Self::ideal_loss) by the same number for every policy, because both members of a pair are
    /// drawn from one distribution.
    ///
    /// # Panics
    /// If the policy is for another number of responses.
    ///
    /// # Source
    /// Zhang et al. 2025, eq. 8 and proposition 6.
    pub fn label_loss(&self, policy: &LogPolicy) -> f64 {
        let target = 0.5 / self.eta;
        self.mean_over_pairs(policy, |h, y, other| {
            let wins = self.game.preference(y, other);
            wins * (h - target).powi(2) + (1.0 - wins) * (h + target).powi(2)
        })
    }

    /// `E_{y,y′∼μ}[value(h(y, y′), y, y′)]`.
    fn mean_over_pairs(&self, policy: &LogPolicy, value: impl Fn(f64, usize, usize) -> f64) -> f64 {
        let (expected, found) = (self.game.responses(), policy.responses());
        assert_eq!(expected, found, "the game has {expected} responses, the policy {found}");
        let ratios: Vec<f64> =
            policy.log_probs().iter().zip(&self.anchor).map(|(log, anchor)| log - anchor).collect();
        let drawn = self.pairs.probabilities();
        // What is never drawn has no say, however far apart the logarithms are.
        let responses: Vec<usize> = (0..expected).filter(|&y| drawn[y] > 0.0).collect();
        let pairs = responses.iter().flat_map(|&y| responses.iter().map(move |&other| (y, other)));
        pairs.map(|(y, other)| drawn[y] * drawn[other] * value(ratios[y] - ratios[other], y, other)).sum()
    }
}
