//! Exact steps from policy to policy: INPO's, and those it is compared with.

use align_core::number::Positive;
use serde::{Deserialize, Serialize};

use super::error::{GameError, positive_eta};
use super::policy::LogPolicy;
use super::preference_game::PreferenceGame;

/// η from iteration to iteration; 1/η is the step size of mirror descent, so that a large η is a small step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum EtaSchedule {
    /// The same throughout. Above [`stability_threshold`](super::stability_threshold) it leads to the equilibrium.
    Constant {
        /// η.
        eta: Positive,
    },
    /// `η_t = τ(t + 2)/2` at iteration t = 1, 2, …: the share τ/η of the reference falls as 2/(t + 2).
    ///
    /// Zhang et al. 2025, theorem 4, <https://arxiv.org/abs/2407.00617>.
    Decreasing {},
}

impl EtaSchedule {
    /// η at an iteration, counted from 1.
    pub fn eta(self, tau: f64, iteration: usize) -> f64 {
        match self {
            Self::Constant { eta } => eta.get(),
            Self::Decreasing {} => tau * (iteration as f64 + 2.0) / 2.0,
        }
    }
}

/// What the log-ratios of DPO are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DpoReference {
    /// The game's reference, at every iteration.
    Fixed,
    /// The policy of the iteration before.
    Moving,
}

impl PreferenceGame {
    /// One step of mirror descent, the exact solution of an iteration of INPO:
    ///
    /// ```text
    /// π′(y) ∝ exp(P(y ≻ π)/η) · π_ref(y)^{τ/η} · π(y)^{1 − τ/η}
    /// ```
    ///
    /// The equilibrium is its fixed point whatever η is (ours, by the fixed point of [`nash`](Self::nash)).
    ///
    /// # Errors
    /// If η is not a positive finite number, or less than τ.
    ///
    /// # Panics
    /// If the policy is for another number of responses.
    ///
    /// # Source
    /// Zhang et al. 2025, eq. 4 and 5, <https://arxiv.org/abs/2407.00617>.
    pub fn omd_step(&self, policy: &LogPolicy, eta: f64) -> Result<LogPolicy, GameError> {
        Ok(self.mirror_step(policy, eta)?.target())
    }

    /// The step without the reference, `π′(y) ∝ π(y) exp(P(y ≻ π)/η)`: what SPPO aims for, and INPO at τ = 0. The game's
    /// own τ plays no part.
    ///
    /// Multiplicative weights. Where preferences are cyclic the iterates run away from the equilibrium.
    ///
    /// # Errors
    /// If η is not a positive finite number.
    ///
    /// # Panics
    /// If the policy is for another number of responses.
    ///
    /// # Source
    /// Wu et al. 2024, "Self-play preference optimization for language model alignment",
    /// <https://arxiv.org/abs/2405.00675>.
    pub fn multiplicative_weights_step(&self, policy: &LogPolicy, eta: f64) -> Result<LogPolicy, GameError> {
        positive_eta(eta)?;
        let tilts = self.margins_against(policy).into_iter().map(|margin| margin / eta);
        Ok(LogPolicy::softmax(policy.log_probs().iter().zip(tilts).map(|(log, tilt)| log + tilt).collect()))
    }

    /// One step of Nash-MD: the policy is first mixed with the reference, and the opponent is the mixture.
    ///
    /// ```text
    /// μ ∝ π_ref^{τ/η} · π^{1 − τ/η},      π′(y) ∝ μ(y) exp(P(y ≻ μ)/η)
    /// ```
    ///
    /// With a constant η it settles at a policy that is not the equilibrium (ours: there μ, not π, answers itself).
    ///
    /// # Errors
    /// If η is not a positive finite number, or less than τ.
    ///
    /// # Panics
    /// If the policy is for another number of responses.
    ///
    /// # Source
    /// Munos et al. 2023, Nash-MD, with 1/η for its η, <https://arxiv.org/abs/2312.00886>.
    pub fn nash_md_step(&self, policy: &LogPolicy, eta: f64) -> Result<LogPolicy, GameError> {
        Ok(self.mirror_step(policy, eta)?.against_mixture().target())
    }

    /// One iteration of DPO trained to the end, on pairs from the policy itself: Bradley–Terry scores r of the pairs, then
    /// `π′ ∝ anchor · exp(r/β)`.
    ///
    /// # Errors
    /// If β is not a positive finite number, or no finite scores fit ([`bradley_terry_scores`](Self::bradley_terry_scores)).
    ///
    /// # Panics
    /// If the policy is for another number of responses.
    ///
    /// # Source
    /// The minimiser of Rafailov et al. 2023, eq. 7, <https://arxiv.org/abs/2305.18290>, over all policies; that it factors
    /// into a fit and a tilt is ours.
    pub fn dpo_step(
        &self,
        policy: &LogPolicy,
        beta: f64,
        reference: DpoReference,
    ) -> Result<LogPolicy, GameError> {
        if !(beta > 0.0 && beta.is_finite()) {
            return Err(GameError::Beta { found: beta });
        }
        let scores = self.bradley_terry_scores(policy)?;
        let anchor = match reference {
            DpoReference::Fixed => self.reference(),
            DpoReference::Moving => policy,
        };
        let tilted = anchor.log_probs().iter().zip(scores).map(|(log, score)| log + score / beta);
        Ok(LogPolicy::softmax(tilted.collect()))
    }

    /// Policies after 1, 2, …, `iterations` steps from the reference. `step` is given the iteration, counted from 1, and the
    /// policy at its start.
    ///
    /// # Errors
    /// The first error of a step.
    ///
    /// # Examples
    /// ```
    /// use align_nash::game::{EtaSchedule, PreferenceGame};
    ///
    /// let game = PreferenceGame::try_from_scores(&[1.0, 0.0, -1.0], vec![0.2, 0.3, 0.5], 0.1)?;
    /// let schedule = EtaSchedule::Decreasing {};
    /// let iterates = game.run(50, |t, policy| game.omd_step(policy, schedule.eta(game.tau(), t)))?;
    /// assert!(game.duality_gap(&iterates[49]) < 0.01 * game.duality_gap(game.reference()));
    /// # Ok::<(), align_nash::game::GameError>(())
    /// ```
    pub fn run(
        &self,
        iterations: usize,
        mut step: impl FnMut(usize, &LogPolicy) -> Result<LogPolicy, GameError>,
    ) -> Result<Vec<LogPolicy>, GameError> {
        let mut iterates: Vec<LogPolicy> = Vec::with_capacity(iterations);
        for iteration in 1..=iterations {
            let next = step(iteration, iterates.last().unwrap_or(self.reference()))?;
            iterates.push(next);
        }
        Ok(iterates)
    }
}
