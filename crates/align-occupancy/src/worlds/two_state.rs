//! The two states of the argument against penalties on action distributions.

use crate::error::{OccupancyError, RowOf};
use crate::mdp::Mdp;
use crate::policy::TabularPolicy;

/// Two states, two actions: in the first, action 0 stays and action 1 leaves for good. A reward of 1 in the first state
/// makes the return the time spent there.
///
/// A rare action decides everything that follows, so action distributions that are close have occupancies that are far
/// apart.
///
/// # Errors
/// If the discount is not in [0, 1).
///
/// # Source
/// Laidlaw, Singhal, Dragan 2023, proof of proposition 3.1.
///
/// # Examples
/// ```
/// use align_occupancy::worlds::{two_state, two_state_policy};
///
/// let mdp = two_state(0.99)?;
/// // Leaving one time in a hundred costs half of the return.
/// let stay = mdp.normalized_return(&two_state_policy(0.01)?, &[1.0, 1.0, 0.0, 0.0]);
/// assert!((stay - 0.502_512_563).abs() < 1e-9);
/// # Ok::<(), align_occupancy::OccupancyError>(())
/// ```
pub fn two_state(discount: f64) -> Result<Mdp, OccupancyError> {
    Mdp::deterministic(&[1.0, 0.0], &[vec![0, 1], vec![1, 1]], discount)
}

/// Leaves the first state with probability `leave`. In the second it takes action 0, which changes nothing.
///
/// # Errors
/// If `leave` is not a probability.
pub fn two_state_policy(leave: f64) -> Result<TabularPolicy, OccupancyError> {
    if !(0.0..=1.0).contains(&leave) {
        return Err(OccupancyError::RowEntry { of: RowOf::Policy, row: 0, column: 1, found: leave });
    }
    TabularPolicy::new(&[vec![1.0 - leave, leave], vec![1.0, 0.0]])
}
