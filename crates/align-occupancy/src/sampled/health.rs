//! What has gone wrong in a run, where the return alone would not tell.

use serde::Serialize;

/// For how many iterations in a row something must be wrong before it is said.
const PATIENCE: usize = 10;
/// A discriminator's loss below this means: no pair could come from either batch, and ρ has no meaning.
const PERFECT: f64 = 0.05;
/// A held-out loss above this is that of guessing, 2·log 2 = 1.386.
const GUESSING: f64 = 1.38;
/// From this χ² of the actions on, guessing is no excuse: a loss of about 2·log 2 − χ²/4 was to be had.
const DIFFERENT: f64 = 0.1;

/// Signs of trouble, as of the latest iteration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Health {
    /// The discriminator has told the batches apart without error for ten iterations: policy and reference no longer meet,
    /// and the penalty is a wall instead of a slope. Less learning per iteration, or a larger λ.
    pub separates_perfectly: bool,
    /// The discriminator has been guessing for ten iterations though the action distributions differ: the penalty is noise.
    /// More steps, or a larger learning rate.
    pub learned_nothing: bool,
    /// States that the reference has visited in the last ten iterations and the policy has not. Its ratio there is an
    /// extrapolation.
    pub abandoned: Vec<usize>,
}

/// Counts of consecutive iterations.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    perfect: usize,
    guessing: usize,
    /// For each state, iterations since the policy and the reference were last there.
    since: Vec<(usize, usize)>,
}

impl Watch {
    pub(crate) fn new(states: usize) -> Self {
        Self { perfect: 0, guessing: 0, since: vec![(0, PATIENCE); states] }
    }

    /// `losses`: after training and before it, on batches not yet seen; `None` without a discriminator.
    pub(crate) fn look(
        &mut self,
        losses: Option<(f64, f64)>,
        action_chi_squared: f64,
        policy_states: &[usize],
        reference_states: &[usize],
    ) -> Health {
        let (perfect, guessing) =
            losses.map_or((false, false), |(trained, fresh)| (trained < PERFECT, fresh > GUESSING));
        self.perfect = if perfect { self.perfect + 1 } else { 0 };
        self.guessing = if guessing && action_chi_squared > DIFFERENT { self.guessing + 1 } else { 0 };
        for (policy, reference) in &mut self.since {
            (*policy, *reference) = (*policy + 1, *reference + 1);
        }
        policy_states.iter().for_each(|state| self.since[*state].0 = 0);
        reference_states.iter().for_each(|state| self.since[*state].1 = 0);
        let gone = |since: &(usize, usize)| since.0 >= PATIENCE && since.1 < PATIENCE;
        Health {
            separates_perfectly: self.perfect >= PATIENCE,
            learned_nothing: self.guessing >= PATIENCE,
            abandoned: self
                .since
                .iter()
                .enumerate()
                .filter(|(_, s)| gone(s))
                .map(|(state, _)| state)
                .collect(),
        }
    }
}
