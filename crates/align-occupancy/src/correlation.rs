//! How well a proxy agrees with the reward that is meant, where the reference goes.

use serde::Serialize;

use crate::error::{OccupancyError, WhichReward, all_finite};
use crate::occupancy::Occupancy;

/// Below this a standard deviation is rounding.
const CONSTANT: f64 = 1e-12;

/// Means, deviations and Pearson correlation of proxy and gold reward under one distribution.
///
/// # Source
/// Laidlaw, Singhal, Dragan 2025, definition 4.1, <https://arxiv.org/abs/2403.03185>.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Correlation {
    /// r, in [−1, 1].
    pub r: f64,
    /// Mean of the proxy; under a reference's occupancy, J(π_ref, R̃).
    pub proxy_mean: f64,
    /// σ_R̃.
    pub proxy_deviation: f64,
    /// Mean of the gold reward.
    pub gold_mean: f64,
    /// σ_R.
    pub gold_deviation: f64,
}

impl Correlation {
    /// Exact, under an occupancy.
    ///
    /// # Errors
    /// If a reward is not finite, or constant where the occupancy has mass.
    ///
    /// # Panics
    /// If a reward has another number of cells than the occupancy.
    pub fn under(occupancy: &Occupancy, proxy: &[f64], gold: &[f64]) -> Result<Self, OccupancyError> {
        all_finite("proxy reward", proxy)?;
        all_finite("gold reward", gold)?;
        let (proxy_mean, gold_mean) = (occupancy.mean(proxy), occupancy.mean(gold));
        let products: Vec<f64> =
            proxy.iter().zip(gold).map(|(p, g)| (p - proxy_mean) * (g - gold_mean)).collect();
        Self::assemble(
            occupancy.mean(&products),
            (proxy_mean, occupancy.deviation(proxy)),
            (gold_mean, occupancy.deviation(gold)),
        )
    }

    /// From pairs of rewards of the same samples, each counting the same.
    ///
    /// # Errors
    /// With fewer than four pairs, if one is not finite, or if a reward is the same in all of them.
    ///
    /// # Panics
    /// If there are not as many of the one as of the other.
    pub fn of_pairs(proxy: &[f64], gold: &[f64]) -> Result<Self, OccupancyError> {
        assert_eq!(proxy.len(), gold.len(), "rewards come in pairs");
        let found = proxy.len();
        if found < 4 {
            return Err(OccupancyError::TooFewSamples { what: "a correlation", expected: 4, found });
        }
        let equal = Occupancy::new(vec![1.0 / found as f64; found])?;
        Self::under(&equal, proxy, gold)
    }

    fn assemble(covariance: f64, proxy: (f64, f64), gold: (f64, f64)) -> Result<Self, OccupancyError> {
        for (which, deviation) in [(WhichReward::Proxy, proxy.1), (WhichReward::Gold, gold.1)] {
            if deviation <= CONSTANT {
                return Err(OccupancyError::DegenerateReward { which, deviation });
            }
        }
        let r = checked_correlation(covariance / (proxy.1 * gold.1))?;
        Ok(Self {
            r,
            proxy_mean: proxy.0,
            proxy_deviation: proxy.1,
            gold_mean: gold.0,
            gold_deviation: gold.1,
        })
    }

    /// λ* = `σ_R̃·√(1 − r²)`: with this weight of √χ², what is maximised is the certified gain of bound A, times r·σ_R̃.
    ///
    /// # Errors
    /// If r ≤ 0.
    ///
    /// # Source
    /// Laidlaw, Singhal, Dragan 2025, theorem 5.1 and eq. 5, <https://arxiv.org/abs/2403.03185>.
    pub fn lambda_star(&self) -> Result<f64, OccupancyError> {
        Ok(self.proxy_deviation * complement(positive_correlation(self.r)?))
    }

    /// `σ_R̃·√(1 − r²)/r`, the weight that bound B puts on `√(χ² − D²)`: larger, on a smaller term.
    ///
    /// # Errors
    /// If r ≤ 0.
    ///
    /// # Source
    /// Liu, Sun, Zheng 2026, theorem 1, <https://arxiv.org/abs/2604.12086>.
    pub fn lambda_of_bound_b(&self) -> Result<f64, OccupancyError> {
        Ok(self.lambda_star()? / self.r)
    }

    /// D = `(J(π, R̃) − J(π_ref, R̃)) / σ_R̃`, the proxy gain in reference standard deviations.
    pub fn proxy_gain(&self, proxy_return: f64) -> f64 {
        (proxy_return - self.proxy_mean) / self.proxy_deviation
    }

    /// The same of the gold reward.
    pub fn gold_gain(&self, gold_return: f64) -> f64 {
        (gold_return - self.gold_mean) / self.gold_deviation
    }

    /// Reward hacking: the proxy correlates, and a policy that pursues it earns less gold reward than the reference.
    ///
    /// The paper asks this of a policy optimal for the proxy. Ask it of every checkpoint: what is deployed is one.
    ///
    /// # Source
    /// Laidlaw, Singhal, Dragan 2025, definition 4.2, <https://arxiv.org/abs/2403.03185>.
    pub fn is_hacked_by(&self, gold_return: f64) -> bool {
        self.r > 0.0 && gold_return < self.gold_mean
    }
}

/// √(1 − r²), without the loss of digits near r = 1.
pub(crate) fn complement(r: f64) -> f64 {
    ((1.0 - r) * (1.0 + r)).sqrt()
}

/// In [−1, 1] up to rounding; beyond it by more than 1e-9, an error.
pub(crate) fn checked_correlation(r: f64) -> Result<f64, OccupancyError> {
    if r.abs() <= 1.0 + 1e-9 { Ok(r.clamp(-1.0, 1.0)) } else { Err(OccupancyError::Correlation { r }) }
}

/// In (0, 1].
pub(crate) fn positive_correlation(r: f64) -> Result<f64, OccupancyError> {
    let r = checked_correlation(r)?;
    if r > 0.0 { Ok(r) } else { Err(OccupancyError::NotACorrelatedProxy { r }) }
}
