//! The best and the worst of K responses from pairwise answers, where there is no score to sort by.

/// Why a tournament was refused, or stopped.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TournamentError {
    /// A bracket needs a power of two.
    #[error("a knockout needs 2, 4, 8, ... responses, found {found}")]
    Count {
        /// How many there are.
        found: usize,
    },
    /// The oracle's answer is no probability.
    #[error("the oracle must answer with a probability, found {found} for response {first} against {second}")]
    Answer {
        /// The response that was asked about.
        first: usize,
        /// The response it was compared with.
        second: usize,
        /// What was answered.
        found: f64,
    },
    /// A round was answered in part, or with something to spare.
    #[error("the round has {expected} comparisons, found {found} answers")]
    AnswerCount {
        /// Comparisons of the round.
        expected: usize,
        /// Answers given.
        found: usize,
    },
}

/// How a tournament ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Knockout {
    /// The survivor among winners.
    pub winner: usize,
    /// The survivor among losers.
    pub loser: usize,
    /// P(winner ≻ loser), as the two met at the end.
    pub preference: f64,
    /// Whether the winner beat the loser when the two met at the end; if not, the pair is no example of anything.
    pub kept: bool,
    /// Comparisons made: 3K/2 − 1.
    pub calls: usize,
}

/// A tournament in progress: rounds of comparisons to be answered together, so that many tournaments can share a batch.
///
/// Neighbours meet; winners then meet winners and losers meet losers until one of each is left, and these two meet. A tie
/// goes to the response that stands earlier in the list.
///
/// The best and the worst of K are not a pair of independent draws, which INPO's proof needs (proposition 6 of the paper).
/// With nearly transitive preferences that is harmless; in strongly cyclic games it leaves a gap.
///
/// # Source
/// Zhang et al. 2025, section 4.1, <https://arxiv.org/abs/2407.00617>; the rule for ties is ours.
///
/// # Examples
/// ```
/// use align_nash::game::Tournament;
///
/// let scores = [0.3, 0.1, 0.9, 0.2];
/// let mut tournament = Tournament::new(4)?;
/// while !tournament.round().is_empty() {
///     let answers: Vec<f64> =
///         tournament.round().iter().map(|&(a, b)| if scores[a] > scores[b] { 1.0 } else { 0.0 }).collect();
///     tournament.answer(&answers)?;
/// }
/// let end = tournament.outcome().expect("no round is left");
/// assert_eq!((end.winner, end.loser, end.kept, end.calls), (2, 1, true, 5));
/// # Ok::<(), align_nash::game::TournamentError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tournament {
    round: Vec<(usize, usize)>,
    stage: Stage,
    calls: usize,
}

/// What the answers of the round decide.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Everyone meets a neighbour.
    First,
    /// The first half of the round is among winners, the second among losers.
    Brackets,
    /// The two survivors meet.
    Last,
    /// Nothing.
    Over(Knockout),
}

impl Tournament {
    /// Of responses 0, 1, …, `count − 1`.
    ///
    /// # Errors
    /// If `count` is not 2, 4, 8, ….
    pub fn new(count: usize) -> Result<Self, TournamentError> {
        if count < 2 || !count.is_power_of_two() {
            return Err(TournamentError::Count { found: count });
        }
        let everyone: Vec<usize> = (0..count).collect();
        Ok(Self { round: neighbours(&everyone), stage: Stage::First, calls: 0 })
    }

    /// Who meets whom now. Empty once the tournament is over.
    pub fn round(&self) -> &[(usize, usize)] {
        &self.round
    }

    /// Decides the round by P(first ≻ second) of each comparison, in order.
    ///
    /// # Errors
    /// If there is not one answer for each comparison, or one is outside [0, 1] or NaN. The round then stands as it was.
    pub fn answer(&mut self, answers: &[f64]) -> Result<(), TournamentError> {
        if answers.len() != self.round.len() {
            return Err(TournamentError::AnswerCount { expected: self.round.len(), found: answers.len() });
        }
        for (&(first, second), &found) in self.round.iter().zip(answers) {
            // Written as "not within", so that NaN is refused.
            if !(0.0..=1.0).contains(&found) {
                return Err(TournamentError::Answer { first, second, found });
            }
        }
        self.calls += answers.len();
        let decided = self.round.iter().zip(answers);
        // Brackets keep the order of the list: of two that tie, the first is the earlier.
        let decided =
            decided.map(|(&(first, second), &p)| if p < 0.5 { (second, first) } else { (first, second) });
        let (won, lost): (Vec<usize>, Vec<usize>) = decided.unzip();
        let half = won.len() / 2;
        let (winners, losers) = match self.stage {
            Stage::First => (won, lost),
            Stage::Brackets => (won[..half].to_vec(), lost[half..].to_vec()),
            Stage::Last => {
                let (winner, loser) = self.round[0];
                let preference = answers[0];
                let (kept, calls) = (preference > 0.5, self.calls);
                self.round.clear();
                self.stage = Stage::Over(Knockout { winner, loser, preference, kept, calls });
                return Ok(());
            }
            Stage::Over(_) => return Ok(()),
        };
        if let (&[winner], &[loser]) = (&winners[..], &losers[..]) {
            (self.round, self.stage) = (vec![(winner, loser)], Stage::Last);
        } else {
            (self.round, self.stage) = (neighbours(&winners), Stage::Brackets);
            self.round.extend(neighbours(&losers));
        }
        Ok(())
    }

    /// How it ended; none while a round is left.
    pub fn outcome(&self) -> Option<Knockout> {
        match self.stage {
            Stage::Over(outcome) => Some(outcome),
            _ => None,
        }
    }
}

/// First and second, third and fourth, ….
fn neighbours(responses: &[usize]) -> Vec<(usize, usize)> {
    responses.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

/// A whole tournament, one comparison at a time. `prefer(a, b)` answers P(a ≻ b).
///
/// # Errors
/// If `count` is not 2, 4, 8, …, or an answer is outside [0, 1] or NaN.
///
/// # Source
/// As [`Tournament`].
pub fn knockout(
    count: usize,
    mut prefer: impl FnMut(usize, usize) -> f64,
) -> Result<Knockout, TournamentError> {
    let mut tournament = Tournament::new(count)?;
    loop {
        if let Some(outcome) = tournament.outcome() {
            return Ok(outcome);
        }
        let answers: Vec<f64> = tournament.round().iter().map(|&(a, b)| prefer(a, b)).collect();
        tournament.answer(&answers)?;
    }
}
