//! Walkers whose steps are distributed as the occupancy.

use rand::{Rng, RngExt};

use crate::mdp::Mdp;
use crate::policy::TabularPolicy;

/// Robots that walk side by side; after each step, each is put back to the start with probability 1 − γ.
///
/// The state of a robot that has walked for long is then distributed exactly as the discounted occupancy. Robots walk on
/// from one batch to the next.
#[derive(Clone, Debug)]
pub struct Robots {
    /// Where each stands; none before the first batch.
    states: Vec<usize>,
    count: usize,
}

/// What the robots did.
///
/// # Shapes
/// `[robots · steps]` each, robot by robot: step t of robot i at `i · steps + t`.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Steps of each robot.
    pub steps: usize,
    /// Where each step began.
    pub states: Vec<usize>,
    /// What was done there.
    pub actions: Vec<usize>,
    /// Where it led, before any restart: the value of what follows is the value of this.
    pub next: Vec<usize>,
    /// Whether the robot was then put back to the start.
    pub restarted: Vec<bool>,
}

impl Robots {
    /// So many robots.
    ///
    /// # Panics
    /// Without robots.
    pub fn new(count: usize) -> Self {
        assert!(count > 0, "expected at least one robot");
        Self { states: Vec::new(), count }
    }

    /// Lets each robot take `steps` steps.
    ///
    /// Before the first batch each walks until its first restart, so that not even the first is young.
    ///
    /// # Panics
    /// If the policy is for another world.
    pub fn walk<G: Rng>(&mut self, mdp: &Mdp, policy: &TabularPolicy, steps: usize, rng: &mut G) -> Batch {
        assert_eq!(
            policy.probabilities().len(),
            mdp.pairs(),
            "a policy has the states and actions of its world"
        );
        if self.states.is_empty() {
            let settled = |_| {
                let mut state = draw(mdp.start(), rng);
                // A geometric number of steps from the start is what the occupancy is made of.
                while rng.random::<f64>() < mdp.discount() {
                    state = follow(mdp, state, draw(policy.row(state), rng), rng);
                }
                state
            };
            self.states = (0..self.count).map(settled).collect();
        }
        let total = self.count * steps;
        let mut batch = Batch {
            steps,
            states: Vec::with_capacity(total),
            actions: Vec::with_capacity(total),
            next: Vec::with_capacity(total),
            restarted: Vec::with_capacity(total),
        };
        for state in &mut self.states {
            for _ in 0..steps {
                let action = draw(policy.row(*state), rng);
                let next = follow(mdp, *state, action, rng);
                let restarted = rng.random::<f64>() >= mdp.discount();
                batch.states.push(*state);
                batch.actions.push(action);
                batch.next.push(next);
                batch.restarted.push(restarted);
                *state = if restarted { draw(mdp.start(), rng) } else { next };
            }
        }
        batch
    }
}

impl Batch {
    /// How many steps there are in all.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// The pairs of the steps, `state · A + action`.
    pub fn pairs(&self, actions: usize) -> Vec<usize> {
        self.states.iter().zip(&self.actions).map(|(state, action)| state * actions + action).collect()
    }
}

fn follow<G: Rng>(mdp: &Mdp, state: usize, action: usize, rng: &mut G) -> usize {
    match mdp.next(state, action) {
        [(only, _)] => *only,
        next => {
            let mut left = rng.random::<f64>();
            for &(state, p) in next {
                left -= p;
                if left < 0.0 {
                    return state;
                }
            }
            next[next.len() - 1].0
        }
    }
}

/// The index of a cell, by its probability. Never one of probability 0.
fn draw<G: Rng>(probabilities: &[f64], rng: &mut G) -> usize {
    let mut left = rng.random::<f64>();
    let mut last = 0;
    for (index, &p) in probabilities.iter().enumerate() {
        if p > 0.0 {
            left -= p;
            last = index;
            if left < 0.0 {
                break;
            }
        }
    }
    last
}
