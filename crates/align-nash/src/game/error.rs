//! What can be wrong with a game, a policy or a step.

/// Why a game, a policy or a step was refused, or a solver gave up.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GameError {
    /// There is nothing to choose between.
    #[error("found no responses, expected at least one")]
    NoResponses,
    /// A row of the preferences with another number of entries than there are rows.
    #[error("row {row} of the preferences must have {expected} entries, found {found}")]
    NotSquare {
        /// Which row.
        row: usize,
        /// How many rows there are.
        expected: usize,
        /// How many entries the row has.
        found: usize,
    },
    /// A preference that is no probability.
    #[error("the preference in row {row}, column {column} must be a probability, found {found}")]
    Preference {
        /// The response that is asked about.
        row: usize,
        /// The response it is compared with.
        column: usize,
        /// What stands there.
        found: f64,
    },
    /// A response that does not tie with itself.
    #[error("response {response} must tie with itself, a preference of 0.5; found {found}")]
    Diagonal {
        /// Which response.
        response: usize,
        /// What stands there.
        found: f64,
    },
    /// Two answers about one pair that contradict each other.
    #[error(
        "the preferences are not antisymmetric: P({row} > {column}) = {forward} and P({column} > {row}) = {backward}, \
         whose sum differs from 1 by {by:.3e}, expected at most 1e-3; average the oracle over both orders"
    )]
    NotAntisymmetric {
        /// The first response.
        row: usize,
        /// The second.
        column: usize,
        /// P(first ≻ second).
        forward: f64,
        /// P(second ≻ first).
        backward: f64,
        /// |forward + backward − 1|.
        by: f64,
    },
    /// A Bradley–Terry score that is no number.
    #[error("score {response} must be finite, found {found}")]
    Score {
        /// Of which response.
        response: usize,
        /// What was given.
        found: f64,
    },
    /// A reference over another number of responses.
    #[error("the game has {expected} responses, the reference has {found}")]
    ReferenceLength {
        /// How many responses the game has.
        expected: usize,
        /// How many the reference has.
        found: usize,
    },
    /// A response the reference never gives: its log-ratio is infinite.
    #[error("the reference must give every response a positive probability, found 0 for response {response}")]
    ReferenceSupport {
        /// Which response.
        response: usize,
    },
    /// An entry of a policy that is no probability.
    #[error("entry {response} of the policy must be a probability, found {found}")]
    Probability {
        /// Which response.
        response: usize,
        /// What was given.
        found: f64,
    },
    /// Probabilities that are no distribution.
    #[error("a policy must sum to 1 within 1e-5, found a sum of {sum}")]
    ProbabilitySum {
        /// What they sum to.
        sum: f64,
    },
    /// A logit that is NaN or +∞.
    #[error("logit {response} of the policy must be a number or minus infinity, found {found}")]
    Logit {
        /// Of which response.
        response: usize,
        /// What was given.
        found: f64,
    },
    /// No response has any probability.
    #[error("all logits of the policy are minus infinity, expected at least one number")]
    NoSupport,
    /// The weight of the KL terms.
    #[error("`tau` must be a finite number >= 0, found {found}")]
    Tau {
        /// What was given.
        found: f64,
    },
    /// The inverse step size.
    #[error("`eta` must be a positive finite number, found {found}")]
    Eta {
        /// What was given.
        found: f64,
    },
    /// A step so long that it leaves the current policy on the other side.
    #[error(
        "need 0 <= tau <= eta, found tau = {tau} and eta = {eta}; otherwise the exponent 1 - tau/eta of the current \
         policy is negative"
    )]
    EtaBelowTau {
        /// The game's τ.
        tau: f64,
        /// What was given.
        eta: f64,
    },
    /// DPO's temperature.
    #[error("`beta` must be a positive finite number, found {found}")]
    Beta {
        /// What was given.
        found: f64,
    },
    /// Without regularisation the equilibrium need not be unique.
    #[error("the equilibrium is unique for tau > 0 only, found tau = 0")]
    NotRegularized,
    /// The equilibrium was not found to the accuracy that is promised.
    #[error(
        "no equilibrium after {iterations} iterations: the residual is {residual:.3e}, expected less than {tolerance:e}"
    )]
    NashNotFound {
        /// Newton steps taken.
        iterations: usize,
        /// max |log π − log best response to π| where the solver stopped.
        residual: f64,
        /// What was promised.
        tolerance: f64,
    },
    /// The likelihood of the Bradley–Terry model has no maximum at finite scores, or it was not found.
    #[error(
        "no finite Bradley-Terry scores after {iterations} iterations: win rates are matched to {residual:.3e} and scores \
         still move by {step:.3e}; is a response preferred with certainty?"
    )]
    ScoresNotFound {
        /// Newton steps taken.
        iterations: usize,
        /// The largest difference of a win rate and the model's.
        residual: f64,
        /// The largest change of a score in the last step.
        step: f64,
    },
}

/// η > 0 and finite.
pub(crate) fn positive_eta(eta: f64) -> Result<(), GameError> {
    if eta > 0.0 && eta.is_finite() { Ok(()) } else { Err(GameError::Eta { found: eta }) }
}
