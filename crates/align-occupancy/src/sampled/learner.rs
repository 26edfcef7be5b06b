//! One iteration after another: walk, tell apart, penalise, climb.

use rand::{Rng, RngExt};
use serde::Serialize;

use super::account::Account;
use super::adam::Adam;
use super::advantages::advantages;
use super::config::{Cells, LearnerConfig, RatioSource, Regularizer};
use super::discriminator::Discriminator;
use super::health::{Health, Watch};
use super::penalty::{Penalty, trimmed_chi_squared};
use super::robots::{Batch, Robots};
use crate::divergence::Divergence;
use crate::error::{OccupancyError, all_finite};
use crate::mdp::Mdp;
use crate::policy::TabularPolicy;

/// What one iteration saw. Returns are means over the steps of the robots.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Iteration {
    /// Mean proxy of the policy's steps.
    pub proxy_return: f64,
    /// Mean gold reward of the policy's steps, if it is known.
    pub gold_return: Option<f64>,
    /// χ̂² = mean(e^d − 1), trimmed; 0 without a ratio.
    pub chi_squared: f64,
    /// Mean d of the policy's steps, an estimate of KL(μ‖ν); 0 without a ratio.
    pub occupancy_kl: f64,
    /// Mean over the policy's steps of KL(π(·|s) ‖ π_ref(·|s)).
    pub action_kl: f64,
    /// The share of the policy's steps in pairs that the reference has not been seen in during the whole run.
    pub unseen_mass: f64,
    /// D, against all that the reference has done so far. `None` if the proxy was constant in it.
    pub proxy_gain: Option<f64>,
    /// What bound B makes of these estimates. `None` if the gold reward is not known or does not correlate, without a
    /// ratio, with unseen mass, or if the estimates contradict each other. χ̂² is trimmed, hence low: this is an estimate
    /// of a guarantee, and no guarantee.
    pub bound_b: Option<f64>,
    /// The discriminator's loss on these batches after training on them; 2·log 2 means it learned nothing.
    pub discriminator_loss: Option<f64>,
    /// The same before training: on batches it had not seen.
    pub held_out_loss: Option<f64>,
    /// The share of penalties that were clipped.
    pub clipped: f64,
    /// The share of log ratios above the largest allowed.
    pub clamped: f64,
    /// χ̂² was not positive, and √χ² was replaced by χ² for this iteration.
    pub fell_back: bool,
    /// Signs of trouble.
    pub health: Health,
}

/// A tabular policy climbing a regularised proxy, from samples.
///
/// It starts at the reference. The same generator gives the same run.
///
/// # Examples
/// ```
/// use align_occupancy::sampled::{Learner, LearnerConfig, Penalty, Regularizer};
/// use align_occupancy::worlds::TomatoWorld;
/// use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};
///
/// let world = TomatoWorld::small();
/// let regularizer = Regularizer::Occupancy {
///     penalty: Penalty::SqrtChiSquared,
///     lambda: 0.328,
///     cells: Default::default(),
///     source: Default::default(),
/// };
/// let config = LearnerConfig { regularizer, ..LearnerConfig::default() };
/// let mut learner = Learner::new(&world.mdp, &world.proxy, &world.reference, config)?.with_gold(&world.gold)?;
/// let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
/// let first = learner.iterate(&mut rng)?;
/// assert!(first.chi_squared.abs() < 0.2, "it starts at the reference");
/// # Ok::<(), align_occupancy::OccupancyError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Learner {
    mdp: Mdp,
    proxy: Vec<f64>,
    gold: Option<Vec<f64>>,
    reference: TabularPolicy,
    config: LearnerConfig,
    logits: Vec<f64>,
    policy: TabularPolicy,
    values: Vec<f64>,
    policy_adam: Adam,
    discriminator: Discriminator,
    robots: (Robots, Robots),
    account: Account,
    watch: Watch,
    fallbacks: usize,
}

/// Log ratios of the policy's steps, and how they were come by.
struct Ratios {
    d: Vec<f64>,
    /// χ², where it is known exactly.
    exact_chi_squared: Option<f64>,
    losses: Option<(f64, f64)>,
}

impl Learner {
    /// A learner at the reference.
    ///
    /// # Shapes
    /// `proxy`: `[S·A]`.
    ///
    /// # Errors
    /// If a reward is not finite, or a setting is out of its range.
    ///
    /// # Panics
    /// If the reward or the reference is for another world.
    pub fn new(
        mdp: &Mdp,
        proxy: &[f64],
        reference: &TabularPolicy,
        config: LearnerConfig,
    ) -> Result<Self, OccupancyError> {
        assert_eq!(proxy.len(), mdp.pairs(), "a reward has one entry for each pair");
        assert_eq!(reference.probabilities().len(), mdp.pairs(), "the reference is a policy of this world");
        all_finite("proxy reward", proxy)?;
        config.check()?;
        let cells = match config.regularizer {
            Regularizer::Occupancy { cells: Cells::States, .. } => mdp.states(),
            _ => mdp.pairs(),
        };
        Ok(Self {
            // Of what the reference never does, −∞: the policy will not do it either.
            logits: reference.probabilities().iter().map(|p| p.ln()).collect(),
            policy: reference.clone(),
            values: vec![0.0; mdp.states()],
            policy_adam: Adam::new(mdp.pairs(), config.policy_learning_rate),
            discriminator: Discriminator::new(cells, config.discriminator_learning_rate),
            robots: (Robots::new(config.robots), Robots::new(config.robots)),
            account: Account::new(mdp.pairs(), mdp.actions()),
            watch: Watch::new(mdp.states()),
            fallbacks: 0,
            mdp: mdp.clone(),
            proxy: proxy.to_vec(),
            gold: None,
            reference: reference.clone(),
            config,
        })
    }

    /// With a gold reward to report; it is never learned from.
    ///
    /// # Errors
    /// If it is not finite.
    ///
    /// # Panics
    /// If it is for another world.
    pub fn with_gold(mut self, gold: &[f64]) -> Result<Self, OccupancyError> {
        assert_eq!(gold.len(), self.mdp.pairs(), "a reward has one entry for each pair");
        all_finite("gold reward", gold)?;
        self.gold = Some(gold.to_vec());
        Ok(self)
    }

    /// The policy as it stands.
    pub fn policy(&self) -> &TabularPolicy {
        &self.policy
    }

    /// The discriminator as it stands.
    pub fn discriminator(&self) -> &Discriminator {
        &self.discriminator
    }

    /// In how many iterations √χ² had to be replaced by χ².
    pub fn fallbacks(&self) -> usize {
        self.fallbacks
    }

    /// So many iterations. → what each saw.
    ///
    /// # Errors
    /// As [`iterate`](Self::iterate).
    pub fn run<G: Rng>(&mut self, iterations: usize, rng: &mut G) -> Result<Vec<Iteration>, OccupancyError> {
        (0..iterations).map(|_| self.iterate(rng)).collect()
    }

    /// One iteration: both walk, the discriminator learns, the penalised reward moves policy and values.
    ///
    /// # Errors
    /// If a logit leaves the finite numbers.
    pub fn iterate<G: Rng>(&mut self, rng: &mut G) -> Result<Iteration, OccupancyError> {
        let steps = self.config.steps;
        let batch = self.robots.0.walk(&self.mdp, &self.policy, steps, rng);
        let baseline = self.robots.1.walk(&self.mdp, &self.reference, steps, rng);
        let pairs = batch.pairs(self.mdp.actions());
        let Ratios { d, exact_chi_squared, losses } = self.ratios(&batch, &baseline, rng);
        let chi_squared = match exact_chi_squared {
            Some(exact) => exact,
            None if d.is_empty() => 0.0,
            None => trimmed_chi_squared(&d, self.config.trim)?,
        };

        let mut clipped = 0;
        let mut rewards = Vec::with_capacity(pairs.len());
        let wants_root = matches!(
            self.config.regularizer,
            Regularizer::Occupancy { penalty: Penalty::SqrtChiSquared, .. }
        );
        for (step, &pair) in pairs.iter().enumerate() {
            let cost = match self.config.regularizer {
                Regularizer::None {} => 0.0,
                Regularizer::Actions { lambda } => {
                    lambda * (self.policy.probabilities()[pair] / self.reference.probabilities()[pair]).ln()
                }
                Regularizer::Occupancy { penalty, lambda, .. } => {
                    let whole = penalty.of(d[step], lambda, chi_squared);
                    let clip = self.config.penalty_clip;
                    clipped += usize::from(whole.abs() > clip);
                    whole.clamp(-clip, clip)
                }
            };
            rewards.push(self.proxy[pair] - cost);
        }
        let fell_back = wants_root && chi_squared <= 0.0;
        self.fallbacks += usize::from(fell_back);
        let largest = self.config.largest_log_ratio;
        let clamped = d.iter().filter(|d| **d >= largest).count();

        let of_states = |divergence: Divergence| -> Vec<f64> {
            (0..self.mdp.states())
                .map(|s| divergence.of_rows(self.policy.row(s), self.reference.row(s)))
                .collect()
        };
        let over_steps = |by_state: &[f64]| mean(batch.states.iter().map(|state| by_state[*state]));
        let action_chi_squared = over_steps(&of_states(Divergence::ChiSquared));
        let health = self.watch.look(losses, action_chi_squared, &batch.states, &baseline.states);
        self.account.add(&baseline);
        let known = (!d.is_empty()).then_some(chi_squared);
        let standing = self.account.standing(&pairs, &self.proxy, self.gold.as_deref(), known);
        let seen = Iteration {
            proxy_return: mean(pairs.iter().map(|pair| self.proxy[*pair])),
            gold_return: self.gold.as_ref().map(|gold| mean(pairs.iter().map(|pair| gold[*pair]))),
            chi_squared,
            occupancy_kl: if d.is_empty() { 0.0 } else { mean(d.iter().copied()) },
            action_kl: over_steps(&of_states(Divergence::Kl)),
            unseen_mass: standing.unseen_mass,
            proxy_gain: standing.proxy_gain,
            bound_b: standing.bound_b,
            discriminator_loss: losses.map(|(trained, _)| trained),
            held_out_loss: losses.map(|(_, fresh)| fresh),
            clipped: clipped as f64 / pairs.len() as f64,
            clamped: clamped as f64 / pairs.len() as f64,
            fell_back,
            health,
        };
        self.improve(&batch, &pairs, &rewards)?;
        Ok(seen)
    }

    fn ratios<G: Rng>(&mut self, batch: &Batch, baseline: &Batch, rng: &mut G) -> Ratios {
        let Regularizer::Occupancy { cells, source, .. } = self.config.regularizer else {
            return Ratios { d: Vec::new(), exact_chi_squared: None, losses: None };
        };
        let actions = self.mdp.actions();
        let of = |batch: &Batch| match cells {
            Cells::StateActions => batch.pairs(actions),
            Cells::States => batch.states.clone(),
        };
        let (mut ours, mut theirs) = (of(batch), of(baseline));
        let steps = ours.clone();
        if source == RatioSource::Shuffled {
            for (one, other) in ours.iter_mut().zip(&mut theirs) {
                if rng.random::<bool>() {
                    std::mem::swap(one, other);
                }
            }
        }
        let count = self.discriminator.logits().len();
        let (policy, reference) = (frequencies(&ours, count), frequencies(&theirs, count));
        let fresh = self.discriminator.loss(&policy, &reference);
        let trained = match source {
            RatioSource::Discriminator | RatioSource::Shuffled => {
                self.discriminator.fit(&policy, &reference, self.config.discriminator_steps)
            }
            RatioSource::Exact | RatioSource::Frozen => fresh,
        };
        let exact = (source == RatioSource::Exact).then(|| self.exact_ratios(cells));
        let by_cell = exact.as_ref().map_or(self.discriminator.logits(), |(d, _)| d);
        let largest = self.config.largest_log_ratio;
        Ratios {
            d: steps.iter().map(|cell| by_cell[*cell].min(largest)).collect(),
            exact_chi_squared: exact.as_ref().map(|(_, chi_squared)| *chi_squared),
            losses: exact.is_none().then_some((trained, fresh)),
        }
    }

    /// log ρ of each cell, and χ².
    fn exact_ratios(&self, cells: Cells) -> (Vec<f64>, f64) {
        let pairs = (self.mdp.occupancy(&self.policy), self.mdp.occupancy(&self.reference));
        let (mu, nu) = match cells {
            Cells::StateActions => pairs,
            Cells::States => (pairs.0.states(self.mdp.actions()), pairs.1.states(self.mdp.actions())),
        };
        let chi_squared = Divergence::ChiSquared.of_rows(mu.cells(), nu.cells());
        (mu.cells().iter().zip(nu.cells()).map(|(p, q)| (p / q).ln()).collect(), chi_squared)
    }

    /// Advantages, a step of Adam up the policy gradient, values towards their targets.
    fn improve(&mut self, batch: &Batch, pairs: &[usize], rewards: &[f64]) -> Result<(), OccupancyError> {
        let actions = self.mdp.actions();
        let raw = advantages(batch, rewards, &self.values, self.mdp.discount(), self.config.gae_lambda);
        let middle = mean(raw.iter().copied());
        let spread = mean(raw.iter().map(|a| (a - middle).powi(2))).sqrt();
        let mut gradient = vec![0.0; self.logits.len()];
        // Σ Â ∇log π: the softmax's part is subtracted once for each state.
        let mut weights = vec![0.0; self.values.len()];
        for (&pair, advantage) in pairs.iter().zip(&raw) {
            let normalized = (advantage - middle) / (spread + 1e-8) / pairs.len() as f64;
            gradient[pair] -= normalized;
            weights[pair / actions] += normalized;
        }
        for (pair, slope) in gradient.iter_mut().enumerate() {
            *slope += weights[pair / actions] * self.policy.probabilities()[pair];
        }
        self.policy_adam.descend(&mut self.logits, &gradient);

        // The target of a step is its advantage and the value it was measured from.
        let mut sums = vec![(0.0, 0.0); self.values.len()];
        for (&state, advantage) in batch.states.iter().zip(&raw) {
            sums[state] = (sums[state].0 + advantage, sums[state].1 + 1.0);
        }
        for (value, (sum, visits)) in self.values.iter_mut().zip(sums) {
            if visits > 0.0 {
                *value += self.config.value_learning_rate * sum / visits;
            }
        }
        self.policy = TabularPolicy::softmax(&self.logits, actions)?;
        Ok(())
    }
}

fn mean(numbers: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = numbers.len();
    numbers.sum::<f64>() / count as f64
}

fn frequencies(cells: &[usize], count: usize) -> Vec<f64> {
    let mut frequencies = vec![0.0; count];
    let share = 1.0 / cells.len() as f64;
    cells.iter().for_each(|cell| frequencies[*cell] += share);
    frequencies
}
