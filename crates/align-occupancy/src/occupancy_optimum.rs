//! Optima of objectives regularised on occupancies.
//!
//! Every divergence here is convex in the occupancy μ, and occupancies form a polytope:
//! `μ ≥ 0`, `Σ_a μ(s, a) − γ Σ p(s|s', a') μ(s', a') = (1 − γ) μ0(s)`.
//! A convex program of S·A unknowns therefore gives the optimum over all policies, where gradients on logits crawl: where
//! the optimum has zeros, logits go to infinity. Its certificate is the Frank–Wolfe gap, one planning problem.

use crate::divergence::Divergence;
use crate::error::{OccupancyError, all_finite, positive};
use crate::interior_point::Problem;
use crate::linear::solve;
use crate::mdp::Mdp;
use crate::occupancy::Occupancy;
use crate::optimum::{Optimum, Score};
use crate::planning::optimal_within;
use crate::policy::TabularPolicy;

/// The polytope of occupancies within a reference's support.
struct Polytope {
    /// Pairs that the reference visits.
    pairs: Vec<usize>,
    /// Columns of the flow constraints, for each of these pairs; rows are the states that the reference visits.
    columns: Vec<Vec<(usize, f64)>>,
    /// (1 − γ) μ0 of these states.
    right: Vec<f64>,
}

impl Polytope {
    fn of(mdp: &Mdp, reference: &Occupancy) -> Self {
        let visits = reference.states(mdp.actions());
        let mut row_of = vec![usize::MAX; mdp.states()];
        let mut right = Vec::new();
        for (state, _) in visits.cells().iter().enumerate().filter(|(_, d)| **d > 0.0) {
            row_of[state] = right.len();
            right.push((1.0 - mdp.discount()) * mdp.start()[state]);
        }
        let pairs: Vec<usize> = (0..mdp.pairs()).filter(|pair| reference.cells()[*pair] > 0.0).collect();
        let column = |&pair: &usize| {
            let state = pair / mdp.actions();
            let mut entries = vec![(row_of[state], 1.0)];
            for &(next, p) in mdp.next(state, pair % mdp.actions()) {
                let flow = mdp.discount() * p;
                // A visited pair leads to visited states, unless γ = 0 and nothing leads anywhere.
                match entries.iter_mut().find(|entry| entry.0 == row_of[next]) {
                    Some(entry) => entry.1 -= flow,
                    None if flow > 0.0 => entries.push((row_of[next], -flow)),
                    None => {}
                }
            }
            entries
        };
        let columns = pairs.iter().map(column).collect();
        Self { pairs, columns, right }
    }

    /// The part of a reward that no flow can be credited with: `R̃ − Aᵀy`, of least norm `√(Σ ν (R̃ − Aᵀy)²)`.
    fn advantage(&self, proxy: &[f64], reference: &Occupancy) -> Vec<f64> {
        let m = self.right.len();
        let (mut normal, mut right) = (vec![0.0; m * m], vec![0.0; m]);
        for (&pair, column) in self.pairs.iter().zip(&self.columns) {
            for &(row, entry) in column {
                right[row] += reference.cells()[pair] * entry * proxy[pair];
                for &(other, second) in column {
                    normal[row * m + other] += reference.cells()[pair] * entry * second;
                }
            }
        }
        // The flow constraints are independent, and every pair here has weight.
        let y = solve(normal, right).unwrap_or_else(|| vec![0.0; m]);
        let mut rest = vec![0.0; proxy.len()];
        for (&pair, column) in self.pairs.iter().zip(&self.columns) {
            rest[pair] = proxy[pair] - column.iter().map(|&(row, entry)| entry * y[row]).sum::<f64>();
        }
        rest
    }

    /// The policy that minimises `Σ φ(μ)`, by its occupancy's program.
    fn minimize(
        &self,
        reference: &Occupancy,
        elsewhere: &TabularPolicy,
        scale: f64,
        derivatives: &dyn Fn(usize, f64) -> (f64, f64),
    ) -> TabularPolicy {
        let start: Vec<f64> = self.pairs.iter().map(|pair| reference.cells()[*pair]).collect();
        let by_pair = |i: usize, x: f64| derivatives(self.pairs[i], x);
        let problem = Problem { columns: &self.columns, right: &self.right, derivatives: &by_pair, scale };
        let mut cells = vec![0.0; reference.cells().len()];
        for (&pair, x) in self.pairs.iter().zip(problem.minimize(&start)) {
            cells[pair] = x;
        }
        Occupancy::rounded(cells).policy(elsewhere)
    }
}

/// From this λ on, the reference maximises `J(π, R̃) − λ·√χ²(μ_π‖ν)`; below it, something else does.
///
/// The largest proxy gain per unit of √χ² that a small change of policy can bring: `min_y √(Σ ν (R̃ − Aᵀy)²)`, with A
/// the flow constraints. Never above σ_R̃, which it equals with one step and one state; in a world with dynamics, not
/// every change of occupancy is some policy's.
///
/// # Shapes
/// `proxy`: `[S·A]`.
///
/// # Errors
/// If a reward is not finite.
///
/// # Panics
/// If the reward or the reference is for another world.
pub fn leaving_threshold(mdp: &Mdp, proxy: &[f64], reference: &TabularPolicy) -> Result<f64, OccupancyError> {
    assert_eq!(proxy.len(), mdp.pairs(), "a reward has one entry for each pair");
    all_finite("proxy reward", proxy)?;
    let nu = mdp.occupancy(reference);
    let rest = Polytope::of(mdp, &nu).advantage(proxy, &nu);
    Ok(norm(&nu, &rest))
}

/// √(Σ ν f²).
fn norm(nu: &Occupancy, entries: &[f64]) -> f64 {
    nu.mean(&entries.iter().map(|x| x * x).collect::<Vec<_>>()).sqrt()
}

/// Maximises `J(π, R̃) − λ·D(μ_π‖ν)` over all policies that go nowhere the reference does not.
///
/// With [`SqrtChiSquared`](Divergence::SqrtChiSquared) the objective has a kink at the reference: from
/// [`leaving_threshold`] on, the reference itself is returned, to the last bit. Below, √χ² and χ² share their solution
/// when `λ = 2λ₂·√χ²`, and λ₂ is searched for.
///
/// # Shapes
/// `proxy`: `[S·A]`.
///
/// # Errors
/// If a reward is not finite, λ not a finite number above 0, or the gap is more than a thousandth of the range of the
/// proxy.
///
/// # Panics
/// If the reward or the reference is for another world.
///
/// # Source
/// Laidlaw, Singhal, Dragan 2025, eq. 5, <https://arxiv.org/abs/2403.03185>.
pub fn occupancy_optimum(
    mdp: &Mdp,
    proxy: &[f64],
    reference: &TabularPolicy,
    divergence: Divergence,
    lambda: f64,
) -> Result<Optimum, OccupancyError> {
    assert_eq!(proxy.len(), mdp.pairs(), "a reward has one entry for each pair");
    all_finite("proxy reward", proxy)?;
    positive("lambda", lambda)?;
    let nu = mdp.occupancy(reference);
    let polytope = Polytope::of(mdp, &nu);
    let inside = polytope.pairs.iter().map(|pair| proxy[*pair]);
    let (low, high) = inside.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), r| (l.min(r), h.max(r)));
    // A reward that is constant where the reference goes leaves nothing to gain.
    let scale = if high > low { high - low } else { 1.0 };
    let program = Program { mdp, proxy, reference, nu: &nu, polytope: &polytope, scale };
    let policy = match divergence {
        Divergence::Kl => polytope.minimize(&nu, reference, scale + lambda, &|pair, x| {
            (lambda * ((x / nu.cells()[pair]).ln() + 1.0) - proxy[pair], lambda / x)
        }),
        Divergence::ChiSquared => program.chi_squared(lambda),
        Divergence::SqrtChiSquared => {
            if lambda >= norm(&nu, &polytope.advantage(proxy, &nu)) {
                return Ok(program.at_reference());
            }
            program.sqrt_chi_squared(lambda)?
        }
    };
    let optimum = program.certified(policy, divergence, lambda)?;
    if optimum.score.duality_gap > 1e-3 * scale {
        let residual = optimum.score.duality_gap;
        return Err(OccupancyError::NotConverged {
            what: "the occupancy program",
            iterations: 300,
            residual,
        });
    }
    Ok(optimum)
}

struct Program<'a> {
    mdp: &'a Mdp,
    proxy: &'a [f64],
    reference: &'a TabularPolicy,
    nu: &'a Occupancy,
    polytope: &'a Polytope,
    scale: f64,
}

impl Program<'_> {
    fn chi_squared(&self, lambda: f64) -> TabularPolicy {
        let slope = |pair: usize, x: f64| {
            let curvature = 2.0 * lambda / self.nu.cells()[pair];
            (curvature * x - 2.0 * lambda - self.proxy[pair], curvature)
        };
        self.polytope.minimize(self.nu, self.reference, self.scale + lambda, &slope)
    }

    /// λ₂ such that `2λ₂·√χ²` of its solution is λ. Below the threshold that product grows strictly with λ₂: λ√χ² is
    /// the least of `λ(χ²/t + t)/2` over t > 0, convex in t and μ together, and λ₂ = λ/(2t).
    fn sqrt_chi_squared(&self, lambda: f64) -> Result<TabularPolicy, OccupancyError> {
        let miss = |log: f64| {
            let policy = self.chi_squared(log.exp());
            let root = Divergence::SqrtChiSquared.between(&self.mdp.occupancy(&policy), self.nu)?;
            Ok::<_, OccupancyError>(((2.0 * log.exp() * root / lambda).ln(), policy))
        };
        // t is at most √χ² of the unregularised optimum and the solution at λ₂ = λ/2 has t = 1.
        let (mut low, mut high) = ((lambda / 2.0).ln(), (lambda / 2.0).ln());
        let mut at_low = miss(low)?.0;
        let mut at_high = at_low;
        while at_low > 0.0 {
            (high, at_high) = (low, at_low);
            low -= 2.0;
            at_low = miss(low)?.0;
        }
        while at_high <= 0.0 {
            (low, at_low) = (high, at_high);
            high += 1.0;
            let (missed, policy) = miss(high)?;
            at_high = missed;
            if missed.abs() <= 1e-11 || high > (lambda / 2.0).ln() + 50.0 {
                // A hair below the threshold: from here on the solutions are one ray to the reference, all alike.
                return Ok(policy);
            }
        }
        for round in 0..200 {
            // False position, with a bisection every third round for the flat ends.
            let guess = if round % 3 == 2 {
                (low + high) / 2.0
            } else {
                low - at_low * (high - low) / (at_high - at_low)
            };
            let middle = if guess > low && guess < high { guess } else { (low + high) / 2.0 };
            let (missed, policy) = miss(middle)?;
            if missed.abs() <= 1e-12 || high - low <= 1e-13 * low.abs().max(1.0) {
                return Ok(policy);
            }
            if missed > 0.0 { (high, at_high) = (middle, missed) } else { (low, at_low) = (middle, missed) }
        }
        Err(OccupancyError::NotConverged {
            what: "the weight of chi-squared",
            iterations: 200,
            residual: high - low,
        })
    }

    /// The kink, where the gradient is a set: it holds `R̃ − λu` with `λu = R̃ − Aᵀy`, for u is of dual norm ≤ 1, and of
    /// Aᵀy every policy has the same. The gap is 0.
    fn at_reference(&self) -> Optimum {
        let proxy_return = self.nu.mean(self.proxy);
        let score = Score { proxy_return, divergence: 0.0, objective: proxy_return, duality_gap: 0.0 };
        Optimum { policy: self.reference.clone(), occupancy: self.nu.clone(), score }
    }

    /// The gap `max_π' ⟨μ_π' − μ, ∇⟩` with ∇ the gradient of the objective at μ: by concavity no policy is better by
    /// more.
    fn certified(
        &self,
        policy: TabularPolicy,
        divergence: Divergence,
        lambda: f64,
    ) -> Result<Optimum, OccupancyError> {
        let occupancy = self.mdp.occupancy(&policy);
        let ratio = occupancy.ratio(self.nu)?;
        let distance = divergence.between(&occupancy, self.nu)?;
        let slope = |rho: f64| match divergence {
            // A cell that has underflowed to 0 has an infinite slope; the smallest number stands in for it.
            Divergence::Kl => rho.max(f64::MIN_POSITIVE).ln() + 1.0,
            Divergence::ChiSquared => 2.0 * (rho - 1.0),
            Divergence::SqrtChiSquared if distance > 0.0 => (rho - 1.0) / distance,
            Divergence::SqrtChiSquared => 0.0,
        };
        let allowed: Vec<bool> = self.nu.cells().iter().map(|q| *q > 0.0).collect();
        let entries = self.proxy.iter().zip(&ratio).zip(&allowed);
        let gradient: Vec<f64> =
            entries.map(|((r, rho), inside)| if *inside { r - lambda * slope(*rho) } else { 0.0 }).collect();
        let best = optimal_within(self.mdp, &gradient, &allowed)?;
        let duality_gap =
            (self.mdp.normalized_return(&best.policy, &gradient) - occupancy.mean(&gradient)).max(0.0);
        let proxy_return = occupancy.mean(self.proxy);
        let objective = proxy_return - lambda * distance;
        let score = Score { proxy_return, divergence: distance, objective, duality_gap };
        Ok(Optimum { policy, occupancy, score })
    }
}
