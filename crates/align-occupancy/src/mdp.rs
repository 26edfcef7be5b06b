//! Worlds with finitely many states and actions, and the exact occupancy of a policy in them.

use crate::error::{OccupancyError, RowOf, distribution};
use crate::linear::solve;
use crate::occupancy::Occupancy;
use crate::policy::TabularPolicy;

/// A Markov decision process (S, A, p, μ0, γ) with its kernel in the open.
///
/// A quantity of a pair is stored at `state · A + action`. A reward is such a vector: `R(s, a)`, the mean over what may
/// follow.
///
/// # Examples
/// ```
/// use align_occupancy::{Mdp, TabularPolicy};
///
/// // Two states, one action: the walk goes to and fro.
/// let mdp = Mdp::new(&[1.0, 0.0], &[vec![vec![0.0, 1.0]], vec![vec![1.0, 0.0]]], 0.5)?;
/// let occupancy = mdp.occupancy(&TabularPolicy::uniform(2, 1));
/// // (1 − γ)(1 + γ² + …) = 1/(1 + γ) in the first.
/// assert!((occupancy.cells()[0] - 2.0 / 3.0).abs() < 1e-12);
/// # Ok::<(), align_occupancy::OccupancyError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Mdp {
    states: usize,
    actions: usize,
    start: Vec<f64>,
    discount: f64,
    /// For each pair, the states that may follow with their probabilities, none of them 0.
    next: Vec<Vec<(usize, f64)>>,
}

impl Mdp {
    /// A world from its kernel.
    ///
    /// Rows may be off by printing, 1e-6 in their sum; they are divided by it.
    ///
    /// # Shapes
    /// `start`: `[S]`; `kernel`: `[S, A, S]`.
    ///
    /// # Errors
    /// If the discount is not in [0, 1), or a row is not a distribution over the states: with its index.
    pub fn new(start: &[f64], kernel: &[Vec<Vec<f64>>], discount: f64) -> Result<Self, OccupancyError> {
        let (states, actions) = (start.len(), kernel.first().map_or(0, Vec::len));
        if kernel.len() != states {
            let found = kernel.len();
            return Err(OccupancyError::RowLength {
                of: RowOf::Start,
                row: 0,
                expected: found,
                found: states,
            });
        }
        let mut next = Vec::with_capacity(states * actions);
        for (state, rows) in kernel.iter().enumerate() {
            if rows.len() != actions || actions == 0 {
                let (row, expected) = (state * actions, actions.max(1));
                let found = rows.len();
                return Err(OccupancyError::RowLength { of: RowOf::Kernel, row, expected, found });
            }
            for (action, row) in rows.iter().enumerate() {
                let index = state * actions + action;
                if row.len() != states {
                    let (expected, found) = (states, row.len());
                    return Err(OccupancyError::RowLength { of: RowOf::Kernel, row: index, expected, found });
                }
                let row = distribution(RowOf::Kernel, index, row)?;
                next.push(row.into_iter().enumerate().filter(|(_, p)| *p > 0.0).collect());
            }
        }
        Self::assemble(start, actions, next, discount)
    }

    /// A world without chance: `next[s][a]` is the state that follows.
    ///
    /// # Shapes
    /// `start`: `[S]`; `next`: `[S, A]`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    ///
    /// # Panics
    /// If the table is not `[S, A]`, or names a state that does not exist.
    pub fn deterministic(start: &[f64], next: &[Vec<usize>], discount: f64) -> Result<Self, OccupancyError> {
        let (states, actions) = (start.len(), next.first().map_or(0, Vec::len));
        assert!(actions > 0 && next.len() == states, "expected a row of actions for each of {states} states");
        let mut rows = Vec::with_capacity(states * actions);
        for row in next {
            assert_eq!(row.len(), actions, "every state has the same actions");
            for &state in row {
                assert!(state < states, "state {state} follows, and there are {states} states");
                rows.push(vec![(state, 1.0)]);
            }
        }
        Self::assemble(start, actions, rows, discount)
    }

    /// The one-step world of language models: the state is a prompt, the action a whole response, γ = 0.
    ///
    /// # Shapes
    /// `prompts`: `[S]`, how often each is asked; `responses` is A.
    ///
    /// # Errors
    /// If the prompts' frequencies are not a distribution.
    ///
    /// # Panics
    /// Without responses.
    pub fn one_step(prompts: &[f64], responses: usize) -> Result<Self, OccupancyError> {
        assert!(responses > 0, "expected at least one response");
        let rows = (0..prompts.len() * responses).map(|pair| vec![(pair / responses, 1.0)]).collect();
        Self::assemble(prompts, responses, rows, 0.0)
    }

    fn assemble(
        start: &[f64],
        actions: usize,
        next: Vec<Vec<(usize, f64)>>,
        discount: f64,
    ) -> Result<Self, OccupancyError> {
        if !(0.0..1.0).contains(&discount) {
            return Err(OccupancyError::Discount { found: discount });
        }
        let start = distribution(RowOf::Start, 0, start)?;
        Ok(Self { states: start.len(), actions, start, discount, next })
    }

    /// S.
    pub fn states(&self) -> usize {
        self.states
    }

    /// A.
    pub fn actions(&self) -> usize {
        self.actions
    }

    /// S·A, the length of a reward.
    pub fn pairs(&self) -> usize {
        self.states * self.actions
    }

    /// γ.
    pub fn discount(&self) -> f64 {
        self.discount
    }

    /// μ0.
    ///
    /// # Shapes
    /// → `[S]`.
    pub fn start(&self) -> &[f64] {
        &self.start
    }

    /// The states that may follow a pair, with their probabilities; those of probability 0 are left out.
    pub fn next(&self, state: usize, action: usize) -> &[(usize, f64)] {
        &self.next[state * self.actions + action]
    }

    /// Σ p(s'|s,a) V(s').
    pub(crate) fn expected(&self, pair: usize, values: &[f64]) -> f64 {
        self.next[pair].iter().map(|&(state, p)| p * values[state]).sum()
    }

    /// How much each state is visited: `d = (1 − γ) μ0 + γ P_πᵀ d`, by a linear solve.
    ///
    /// # Shapes
    /// → `[S]`, sums to 1.
    ///
    /// # Panics
    /// If the policy is for another number of states or actions.
    pub fn state_occupancy(&self, policy: &TabularPolicy) -> Occupancy {
        self.check(policy);
        let mut matrix = identity(self.states);
        for (pair, row) in self.next.iter().enumerate() {
            let weight = self.discount * policy.probabilities()[pair];
            for &(state, p) in row {
                matrix[state * self.states + pair / self.actions] -= weight * p;
            }
        }
        let right = self.start.iter().map(|p| (1.0 - self.discount) * p).collect();
        // I − γPᵀ is strictly diagonally dominant by columns: it has an inverse, whose entries are not negative.
        let solution = solve(matrix, right).expect("I - gamma P has an inverse for gamma < 1");
        Occupancy::rounded(solution)
    }

    /// How much each pair is visited: `μ(s, a) = d(s) π(a|s) = (1 − γ) E_π Σ_t γ^t 1{s_t = s, a_t = a}`.
    ///
    /// # Shapes
    /// → `[S·A]`, sums to 1.
    ///
    /// # Panics
    /// As [`state_occupancy`](Self::state_occupancy).
    ///
    /// # Source
    /// Laidlaw, Singhal, Dragan 2025, section 3, <https://arxiv.org/abs/2403.03185>.
    pub fn occupancy(&self, policy: &TabularPolicy) -> Occupancy {
        let states = self.state_occupancy(policy);
        let pairs = policy.probabilities().iter().enumerate();
        Occupancy::rounded(pairs.map(|(pair, p)| states.cells()[pair / self.actions] * p).collect())
    }

    /// J(π, R) = ⟨μ_π, R⟩: the discounted return, normalised, so that a reward of 1 at every step gives 1.
    ///
    /// # Panics
    /// If the policy or the reward (`[S·A]`) is for another world.
    pub fn normalized_return(&self, policy: &TabularPolicy, reward: &[f64]) -> f64 {
        self.occupancy(policy).mean(reward)
    }

    /// V^π: `V = R_π + γ P_π V`, by a linear solve. Not normalised: the scale is that of a sum.
    ///
    /// # Shapes
    /// `reward`: `[S·A]`. → `[S]`.
    ///
    /// # Panics
    /// If the policy or the reward is for another world.
    pub fn values(&self, policy: &TabularPolicy, reward: &[f64]) -> Vec<f64> {
        assert_eq!(reward.len(), self.pairs(), "a reward has one entry for each pair");
        self.check(policy);
        let mut matrix = identity(self.states);
        let mut right = vec![0.0; self.states];
        for (pair, row) in self.next.iter().enumerate() {
            let (state, p) = (pair / self.actions, policy.probabilities()[pair]);
            if p == 0.0 {
                continue; // what the policy never does has no say, even where its reward is infinite
            }
            right[state] += p * reward[pair];
            for &(after, q) in row {
                matrix[state * self.states + after] -= self.discount * p * q;
            }
        }
        solve(matrix, right).expect("I - gamma P has an inverse for gamma < 1")
    }

    /// `Q(s, a) = R(s, a) + γ Σ p(s'|s,a) V(s')`.
    ///
    /// # Shapes
    /// `values`: `[S]`, `reward`: `[S·A]`. → `[S·A]`.
    ///
    /// # Panics
    /// If the lengths are others.
    pub fn action_values(&self, values: &[f64], reward: &[f64]) -> Vec<f64> {
        assert_eq!(
            (values.len(), reward.len()),
            (self.states, self.pairs()),
            "values are [S], a reward is [S·A]"
        );
        reward.iter().enumerate().map(|(pair, r)| r + self.discount * self.expected(pair, values)).collect()
    }

    fn check(&self, policy: &TabularPolicy) {
        let found = (policy.states(), policy.actions());
        assert_eq!(found, (self.states, self.actions), "a policy has the states and actions of its world");
    }
}

fn identity(n: usize) -> Vec<f64> {
    let mut matrix = vec![0.0; n * n];
    matrix.iter_mut().step_by(n + 1).for_each(|entry| *entry = 1.0);
    matrix
}
