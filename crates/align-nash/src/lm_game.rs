//! The game that a small language model plays, exactly: every response enumerated, every pair of them compared.
//!
//! One [`PreferenceGame`] for each prompt. Whatever a run reports about itself, the numbers here come from the oracle's matrix and the
//! policy's own probabilities. Where there are too many responses to enumerate, [`sampled_duality_gap`] measures the same from draws.

mod error;
mod sampled;
mod tree;

use align_core::oracle::ANTISYMMETRY_TOLERANCE;
use align_core::{CausalLm, Completions, Preference, check_antisymmetry, checked_preferences};

pub use self::error::LmGameError;
pub use self::sampled::{GapOptions, SampledGap, sampled_duality_gap};
use self::tree::Tree;
use crate::game::{GameError, LogPolicy, Nash, PreferenceGame};

/// How much of the reference may be dropped with its unlikely responses.
const DROPPED: f64 = 1e-6;

/// How far from 1 a policy's probabilities may sum where nothing is meant to be missing.
const MISSING: f64 = 1e-3;

/// Pairs the oracle is asked about at once.
const ORACLE_BATCH: usize = 1024;

/// Pairs of each prompt that are asked about in both orders.
const ORDERS_CHECKED: usize = 4;

/// Which responses there are.
#[derive(Clone, Debug, PartialEq)]
pub struct Responses {
    /// The longest response. What is cut off there is a response too.
    pub length: usize,
    /// A response ends with the first of these, and keeps it.
    pub stop_token_ids: Vec<u32>,
    /// How many responses a prompt may have: the oracle is asked about half the square of it.
    pub most: usize,
    /// Responses that the reference gives with at most this probability are left out. With 0 only those are that it never gives.
    ///
    /// What is left out must be less than 10⁻⁶ of the reference. How wrong a gap can be for it, see [`LmGame::measure`].
    pub floor: f64,
}

/// The games of a language model that can be enumerated.
///
/// # Examples
/// A reference that says rock six times in ten, and an oracle that knows the rules:
/// ```
/// use align_core::{Completions, PreferenceFn};
/// use align_nash::LmGame;
/// use align_testkit::{BigramLm, device};
/// use burn::Tensor;
///
/// let oracle = PreferenceFn(|first: &Completions, second: &Completions| {
///     let rows = first.response.rows().into_iter().zip(second.response.rows());
///     let wins = rows.map(|(a, b)| [0.5, 0.1, 0.9][((3 + a[0] - b[0]) % 3) as usize]);
///     Tensor::from_data(wins.collect::<Vec<f32>>().as_slice(), &device())
/// });
/// let [rock, paper, scissors] = [0.6f32, 0.3, 0.1].map(f32::ln);
/// let reference = BigramLm::independent(&[rock, paper, scissors], &device());
/// let game = LmGame::enumerate(&oracle, &reference, &[vec![0]], 1, &[], 0.1, 100)?;
/// assert!((game.reference_gap() - 0.1071).abs() < 1e-4);
///
/// let nash = &game.nash()?[0].policy;
/// let [rock, paper, scissors] = [0, 1, 2].map(|y| nash.log_probs()[y] as f32);
/// assert!(game.duality_gap(&BigramLm::independent(&[rock, paper, scissors], &device())) < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct LmGame {
    trees: Vec<Tree>,
    games: Vec<PreferenceGame>,
}

/// How far a policy is from the equilibrium, and how much of it was looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LmGap {
    /// The duality gap of the policy given that it answers with one of the game's responses, averaged over the prompts.
    pub gap: f64,
    /// The probability with which it answers with none of them, at the prompt where that is largest.
    pub dropped: f64,
}

impl LmGame {
    /// The games over all responses of at most `response_length` tokens, each ending at its first stop token.
    ///
    /// The oracle is asked once about every two responses, P(b ≻ a) being 1 − P(a ≻ b); a few pairs are asked about in both orders.
    /// Preferences are those of the oracle in f32, probabilities those of the reference's scores in f64.
    ///
    /// # Errors
    /// If there are no prompts, a prompt is empty, too long or outside the vocabulary; it has more than `most` responses; the
    /// reference's scores are no distribution; the oracle fails, or is not antisymmetric; τ is negative or not finite.
    pub fn enumerate(
        oracle: &dyn Preference,
        reference: &dyn CausalLm,
        prompts: &[Vec<u32>],
        response_length: usize,
        stop_token_ids: &[u32],
        tau: f64,
        most: usize,
    ) -> Result<Self, LmGameError> {
        let stop_token_ids = stop_token_ids.to_vec();
        let responses = Responses { length: response_length, stop_token_ids, most, floor: 0.0 };
        Self::over(oracle, reference, prompts, &responses, tau)
    }

    /// The games over the responses that [`Responses`] describes, unlikely ones left out if it says so.
    ///
    /// # Errors
    /// As [`enumerate`](Self::enumerate), and if the floor is no probability or leaves out 10⁻⁶ of the reference or more.
    pub fn over(
        oracle: &dyn Preference,
        reference: &dyn CausalLm,
        prompts: &[Vec<u32>],
        responses: &Responses,
        tau: f64,
    ) -> Result<Self, LmGameError> {
        check(reference, prompts, responses)?;
        // The games would say so too, after the oracle was asked.
        if !(tau >= 0.0 && tau.is_finite()) {
            return Err(LmGameError::Game { prompt: 0, source: GameError::Tau { found: tau } });
        }
        let mut game = Self { trees: Vec::new(), games: Vec::new() };
        for (prompt, ids) in prompts.iter().enumerate() {
            let (tree, dropped) = Tree::grow(reference, prompt, ids, responses)?;
            if dropped >= DROPPED {
                let floor = responses.floor;
                return Err(LmGameError::Dropped { prompt, floor, found: dropped, expected: DROPPED });
            }
            let preferences = matrix(oracle, reference, &tree, ids)
                .map_err(|source| LmGameError::Oracle { prompt, source })?;
            let of_game = |source: GameError| LmGameError::Game { prompt, source };
            let log_probs = LogPolicy::from_logits(&tree.log_probs(reference)).map_err(of_game)?;
            let uniform = LogPolicy::uniform(tree.responses().len()).probabilities();
            // By logarithms: some probabilities may be too small for a number.
            let built = PreferenceGame::new(preferences, uniform, tau)
                .and_then(|built| built.with_reference(log_probs))
                .map_err(of_game)?;
            game.games.push(built);
            game.trees.push(tree);
        }
        Ok(game)
    }

    /// The game of each prompt.
    pub fn games(&self) -> &[PreferenceGame] {
        &self.games
    }

    /// The responses to a prompt, in the order of its game.
    ///
    /// # Panics
    /// If there is no such prompt.
    pub fn responses(&self, prompt: usize) -> &[Vec<u32>] {
        self.trees[prompt].responses()
    }

    /// The mean over prompts of the policy's [duality gap](PreferenceGame::duality_gap).
    ///
    /// # Panics
    /// If the policy has another vocabulary, or its probabilities of the responses do not sum to 1 within 10⁻³: its scores are no
    /// distribution, or it gives what was left out. Where it may, ask [`measure`](Self::measure).
    pub fn duality_gap(&self, policy: &dyn CausalLm) -> f64 {
        let LmGap { gap, dropped } = self.measure(policy);
        let sum = 1.0 - dropped;
        assert!(
            dropped.abs() <= MISSING,
            "LmGame::duality_gap: the policy's probabilities of the game's responses sum to {sum}, expected 1"
        );
        gap
    }

    /// The duality gap over the responses that were kept, and the policy's probability m of others.
    ///
    /// Both numbers are needed: a policy that has moved to what was left out has a gap that says nothing. What can be said is this.
    /// A kept response's win rate is right to within m. With r < 10⁻⁶ the reference's probability of others, a best response could
    /// gain `2τ log(1 + r e^{1/τ})` from them at most, which at τ = 0.1 is below 0.005. And the policy's KL is at least
    /// `m log(m/r)` larger, up to terms of order m.
    ///
    /// # Panics
    /// If the policy has another vocabulary, its scores are no distribution, or it gives none of the responses.
    pub fn measure(&self, policy: &dyn CausalLm) -> LmGap {
        let found = self.conditioned(policy);
        let gaps = self.games.iter().zip(&found).map(|(game, (policy, _))| game.duality_gap(policy));
        let gap = gaps.sum::<f64>() / self.games.len() as f64;
        let dropped = found.iter().map(|(_, dropped)| *dropped).fold(f64::NEG_INFINITY, f64::max);
        LmGap { gap, dropped }
    }

    /// The policy in each prompt's game, given that it answers with one of the game's responses.
    ///
    /// # Panics
    /// As [`measure`](Self::measure).
    pub fn policies(&self, policy: &dyn CausalLm) -> Vec<LogPolicy> {
        self.conditioned(policy).into_iter().map(|(policy, _)| policy).collect()
    }

    /// The reference's duality gap, averaged over the prompts.
    pub fn reference_gap(&self) -> f64 {
        let gaps = self.games.iter().map(|game| game.duality_gap(game.reference()));
        gaps.sum::<f64>() / self.games.len() as f64
    }

    /// The equilibrium of every prompt's game.
    ///
    /// # Errors
    /// As [`PreferenceGame::nash`]; for τ = 0 there is no unique one.
    pub fn nash(&self) -> Result<Vec<Nash>, GameError> {
        self.games.iter().map(PreferenceGame::nash).collect()
    }

    /// `KL(π‖π_ref)` over the game's responses, averaged over the prompts.
    ///
    /// # Units
    /// Nats per response.
    ///
    /// # Panics
    /// As [`measure`](Self::measure).
    pub fn kl(&self, policy: &dyn CausalLm) -> f64 {
        let found = self.conditioned(policy);
        let kls = self.games.iter().zip(&found).map(|(game, (policy, _))| policy.kl(game.reference()));
        kls.sum::<f64>() / self.games.len() as f64
    }

    /// For each prompt the policy given that it answers with one of the responses, and the probability that it does not.
    fn conditioned(&self, policy: &dyn CausalLm) -> Vec<(LogPolicy, f64)> {
        let one = |tree: &Tree| {
            let log_probs = tree.log_probs(policy);
            let sum: f64 = log_probs.iter().map(|log| log.exp()).sum();
            let conditioned = LogPolicy::from_logits(&log_probs);
            let conditioned = conditioned.expect("a policy's scores are a distribution over the responses");
            (conditioned, 1.0 - sum)
        };
        self.trees.iter().map(one).collect()
    }
}

/// Refuses what cannot be enumerated.
fn check(reference: &dyn CausalLm, prompts: &[Vec<u32>], responses: &Responses) -> Result<(), LmGameError> {
    for (name, value) in [("response_length", responses.length), ("most", responses.most)] {
        if value == 0 {
            return Err(LmGameError::Zero { name });
        }
    }
    if !(0.0..1.0).contains(&responses.floor) {
        return Err(LmGameError::Floor { found: responses.floor });
    }
    if prompts.is_empty() {
        return Err(LmGameError::NoPrompts);
    }
    let vocabulary = reference.vocab_size();
    let outside = |ids: &[u32]| ids.iter().copied().find(|id| *id as usize >= vocabulary);
    if let Some(found) = outside(&responses.stop_token_ids) {
        return Err(LmGameError::StopOutsideVocabulary { found, vocabulary });
    }
    for (prompt, ids) in prompts.iter().enumerate() {
        if ids.is_empty() {
            return Err(LmGameError::EmptyPrompt { prompt });
        }
        if let Some(found) = outside(ids) {
            return Err(LmGameError::TokenOutsideVocabulary { prompt, found, vocabulary });
        }
        let found = ids.len() + responses.length;
        if let Some(context) = reference.context_length().filter(|context| found > *context) {
            return Err(LmGameError::TooLong { prompt, found, context });
        }
    }
    Ok(())
}

/// P(y ≻ y′) of every two responses.
fn matrix(
    oracle: &dyn Preference,
    reference: &dyn CausalLm,
    tree: &Tree,
    prompt: &[u32],
) -> Result<Vec<Vec<f64>>, align_core::OracleError> {
    let responses = tree.responses();
    let count = responses.len();
    let device = reference.device().without_autodiff();
    let pairs: Vec<(usize, usize)> = (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b))).collect();
    let side = |pairs: &[(usize, usize)], of: fn(&(usize, usize)) -> usize| {
        let rows: Vec<_> = pairs.iter().map(|pair| responses[of(pair)].clone()).collect();
        Completions::from_rows(&vec![prompt.to_vec(); rows.len()], &rows, &device)
    };
    let few: Vec<_> = pairs.iter().copied().step_by(pairs.len().div_ceil(ORDERS_CHECKED).max(1)).collect();
    if !few.is_empty() {
        check_antisymmetry(oracle, &side(&few, |p| p.0), &side(&few, |p| p.1), ANTISYMMETRY_TOLERANCE)?;
    }
    let mut matrix = vec![vec![0.5; count]; count];
    for part in pairs.chunks(ORACLE_BATCH) {
        let (first, second) = (side(part, |p| p.0), side(part, |p| p.1));
        for (&(a, b), p) in part.iter().zip(checked_preferences(oracle, &first, &second, ORACLE_BATCH)?) {
            (matrix[a][b], matrix[b][a]) = (p, 1.0 - p);
        }
    }
    Ok(matrix)
}
