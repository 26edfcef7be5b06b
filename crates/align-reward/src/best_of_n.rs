//! Best-of-n: what the best of n answers is worth, for every n at once, from N answers a prompt.
//!
//! ```text
//! Ĝₙ = Σ_{i=n..N} wᵢ · gold(A₍ᵢ₎)      A₍₁₎ … A₍N₎ by ascending proxy
//! wᵢ = C(i−1, n−1) / C(N, n)            w_N = n/N,  w_{i−1} = wᵢ · (i−n)/(i−1)
//! ```
//!
//! That is the mean, over all sets of n of the N answers, of the gold score of the set's winner: unbiased for every n ≤ N.
//!
//! # Source
//! Nakano et al. 2021, appendix I, <https://arxiv.org/abs/2112.09332>; Coste et al. 2023, appendix B,
//! <https://arxiv.org/abs/2310.02743>. The recurrence and the treatment of ties are ours.

use crate::error::RewardError;

/// Weights below this share of the whole are left out: less than the rounding of the sum.
const NEGLIGIBLE: f64 = 1e-18;

/// KL of the best-of-n policy from the policy drawn from: `log n − (n−1)/n`.
///
/// # Units
/// Nats. Exact where no two answers score the same, an upper bound otherwise.
///
/// # Panics
/// If `n` is 0.
///
/// # Source
/// Stiennon et al. 2020, appendix G.3, <https://arxiv.org/abs/2009.01325>.
///
/// # Examples
/// ```
/// assert_eq!(align_reward::best_of_n::kl(1), 0.0);
/// assert!((align_reward::best_of_n::kl(16) - 1.835_088_722).abs() < 1e-9);
/// ```
pub fn kl(n: usize) -> f64 {
    assert!(n > 0, "best of 0 is nothing");
    (n as f64).ln() - (n as f64 - 1.0) / n as f64
}

/// N answers to one prompt in the order of a proxy's scores.
#[derive(Clone, Debug)]
pub struct Ranking {
    /// Answers by descending score.
    order: Vec<usize>,
    /// Where each run of equal scores ends in `order`.
    ends: Vec<usize>,
}

impl Ranking {
    /// Ranks the answers.
    ///
    /// # Errors
    /// Without answers, or if a score is not finite.
    pub fn new(proxy: &[f64]) -> Result<Self, RewardError> {
        if proxy.is_empty() {
            return Err(RewardError::BestOfNRange { n: 1, n_max: 0 });
        }
        if let Some(row) = proxy.iter().position(|score| !score.is_finite()) {
            return Err(RewardError::NotFinite { row, found: proxy[row] });
        }
        let mut order: Vec<usize> = (0..proxy.len()).collect();
        order.sort_by(|&a, &b| proxy[b].total_cmp(&proxy[a]));
        // By `==`, so that 0 and −0 tie.
        let mut ends: Vec<usize> =
            (1..order.len()).filter(|&at| proxy[order[at - 1]] != proxy[order[at]]).collect();
        ends.push(order.len());
        Ok(Self { order, ends })
    }

    /// N.
    pub fn answers(&self) -> usize {
        self.order.len()
    }

    /// The share of answers whose score another answer has too.
    pub fn tied_share(&self) -> f64 {
        let tied: usize = self.blocks().map(|(from, to)| if to - from > 1 { to - from } else { 0 }).sum();
        tied as f64 / self.answers() as f64
    }

    /// What the best of n is worth in `values`, for every n from 1 to N: element `n − 1`.
    ///
    /// Where scores tie, the winner is drawn among the tied: their values are averaged. Time is of order N log N.
    ///
    /// # Panics
    /// If there is not one value for each answer.
    ///
    /// # Examples
    /// ```
    /// let ranking = align_reward::best_of_n::Ranking::new(&[1.0, 1.0, 0.0, 2.0])?;
    /// let curve = ranking.curve(&[3.0, -1.0, 0.5, 1.0]);
    /// assert_eq!(curve.len(), 4);
    /// assert!((curve[0] - 0.875).abs() < 1e-12 && (curve[1] - 1.0).abs() < 1e-12);
    /// # Ok::<(), align_reward::RewardError>(())
    /// ```
    pub fn curve(&self, values: &[f64]) -> Vec<f64> {
        let ranked = self.averaged(values);
        (1..=self.answers()).map(|n| estimate(&ranked, n)).collect()
    }

    /// One point of [`Ranking::curve`].
    ///
    /// # Errors
    /// If n is 0 or more than there are answers.
    ///
    /// # Panics
    /// If there is not one value for each answer.
    pub fn at(&self, values: &[f64], n: usize) -> Result<f64, RewardError> {
        self.check(n)?;
        Ok(estimate(&self.averaged(values), n))
    }

    /// Each answer's chance of being the best of n, in the order the answers were given.
    ///
    /// # Errors
    /// If n is 0 or more than there are answers.
    pub fn chances(&self, n: usize) -> Result<Vec<f64>, RewardError> {
        self.check(n)?;
        let weights: Vec<f64> = Weights::new(self.answers(), n).collect();
        let mut chances = vec![0.0; self.answers()];
        for (from, to) in self.blocks() {
            let block: f64 = weights.get(from..to.min(weights.len())).unwrap_or_default().iter().sum();
            for &answer in &self.order[from..to] {
                chances[answer] = block / (to - from) as f64;
            }
        }
        Ok(chances)
    }

    fn check(&self, n: usize) -> Result<(), RewardError> {
        let n_max = self.answers();
        if (1..=n_max).contains(&n) { Ok(()) } else { Err(RewardError::BestOfNRange { n, n_max }) }
    }

    /// First and last place of every run of equal scores.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> {
        std::iter::once(0).chain(self.ends.iter().copied()).zip(self.ends.iter().copied())
    }

    /// Values by descending score, those of equal scores averaged.
    fn averaged(&self, values: &[f64]) -> Vec<f64> {
        assert_eq!(values.len(), self.answers(), "one value for each answer");
        let mut ranked: Vec<f64> = self.order.iter().map(|&answer| values[answer]).collect();
        for (from, to) in self.blocks().filter(|(from, to)| to - from > 1) {
            let mean = crate::aggregate::mean(&ranked[from..to]);
            ranked[from..to].fill(mean);
        }
        ranked
    }
}

/// Of `n` answers the winner by `first` against the winner by `second`, drawn apart from the same answers: the chance that
/// the first has the higher gold score, an equal one counting half.
///
/// # Errors
/// If n is 0 or more than there are answers.
///
/// # Panics
/// If the rankings and the gold scores are not of the same answers.
///
/// # Source
/// Coste et al. 2023, appendix F.9, <https://arxiv.org/abs/2310.02743>.
pub fn win_rate(first: &Ranking, second: &Ranking, gold: &[f64], n: usize) -> Result<f64, RewardError> {
    assert_eq!(first.answers(), gold.len(), "one gold score for each answer");
    assert_eq!(second.answers(), gold.len(), "one gold score for each answer");
    let (first, second) = (first.chances(n)?, second.chances(n)?);
    let mut order: Vec<usize> = (0..gold.len()).collect();
    order.sort_by(|&a, &b| gold[a].total_cmp(&gold[b]));
    let (mut below, mut wins) = (0.0, 0.0);
    for block in order.chunk_by(|&a, &b| gold[a] == gold[b]) {
        let [here_first, here_second] =
            [&first, &second].map(|chances| block.iter().map(|&answer| chances[answer]).sum::<f64>());
        wins += here_first * (below + here_second / 2.0);
        below += here_second;
    }
    Ok(wins)
}

/// The weights of the N answers in the best of n, by descending rank, down to those that no longer matter.
struct Weights {
    n: usize,
    /// The rank, from N, of the next weight.
    rank: usize,
    next: f64,
}

impl Weights {
    fn new(answers: usize, n: usize) -> Self {
        Self { n, rank: answers, next: n as f64 / answers as f64 }
    }
}

impl Iterator for Weights {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        // What follows is at most `rank` weights, none larger than this one.
        if self.rank < self.n || self.next * (self.rank as f64) < NEGLIGIBLE {
            return None;
        }
        let weight = self.next;
        if self.rank > 1 {
            self.next *= (self.rank - self.n) as f64 / (self.rank - 1) as f64;
        }
        self.rank -= 1;
        Some(weight)
    }
}

/// `Σ wᵢ vᵢ` of values by descending rank.
fn estimate(ranked: &[f64], n: usize) -> f64 {
    Weights::new(ranked.len(), n).zip(ranked).map(|(weight, value)| weight * value).sum()
}
