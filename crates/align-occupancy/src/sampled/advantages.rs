//! From penalised rewards to advantages.

use super::robots::Batch;

/// Generalised advantages: `Â_t = Σ_k (γλ)^k δ_{t+k}` with `δ_t = r_t + γ V(s'_t) − V(s_t)`.
///
/// A restart is a way to sample, not an end: the value of what would have followed takes its place, and the trace is cut. So
/// it is at the end of a batch.
///
/// # Shapes
/// `rewards`: one for each step of the batch; `values`: `[S]`. → as `rewards`.
///
/// # Source
/// Schulman et al. 2016, eq. 16, <https://arxiv.org/abs/1506.02438>.
pub(crate) fn advantages(
    batch: &Batch,
    rewards: &[f64],
    values: &[f64],
    gamma: f64,
    lambda: f64,
) -> Vec<f64> {
    let mut result = vec![0.0; rewards.len()];
    let mut trace = 0.0;
    for step in (0..rewards.len()).rev() {
        if batch.restarted[step] || (step + 1) % batch.steps == 0 {
            trace = 0.0;
        }
        let surprise = rewards[step] + gamma * values[batch.next[step]] - values[batch.states[step]];
        trace = surprise + gamma * lambda * trace;
        result[step] = trace;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_end_at_restarts_and_batches() {
        // Two robots of two steps; the first is put back after its first step.
        let batch = Batch {
            steps: 2,
            states: vec![0, 0, 1, 1],
            actions: vec![0; 4],
            next: vec![1, 1, 1, 0],
            restarted: vec![true, false, false, false],
        };
        let (values, rewards) = ([10.0, 20.0], [1.0, 2.0, 3.0, 4.0]);
        // γ = ½: surprises 1 + 10 − 10, 2 + 10 − 10, 3 + 10 − 20, 4 + 5 − 20.
        let expected = [1.0, 2.0, -7.0 + 0.5 * 0.5 * -11.0, -11.0];
        assert_eq!(advantages(&batch, &rewards, &values, 0.5, 0.5), expected);
    }
}
