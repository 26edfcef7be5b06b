//! Gold against proxy along an optimisation: peaks, falls, bands, and the forms that curves follow.
//!
//! # Source
//! Gao, Schulman, Hilton 2022, <https://arxiv.org/abs/2210.10760>; Coste et al. 2023, <https://arxiv.org/abs/2310.02743>.

use serde::{Deserialize, Serialize};

use crate::aggregate::{Divisor, mean, variance};

/// How far a curve has fallen from its highest point so far: `max_{i ≤ last} y_i − y_last`; 0 of a curve that still rises.
///
/// # Panics
/// With no points.
///
/// # Examples
/// ```
/// assert_eq!(align_reward::overoptimization::drop(&[0.0, 0.5, 0.25]), 0.25);
/// ```
pub fn drop(gold: &[f64]) -> f64 {
    let last = *gold.last().expect("a curve has at least one point");
    gold.iter().copied().fold(last, f64::max) - last
}

/// A mean with a 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// The mean.
    pub mean: f64,
    /// The interval's lower end; the mean itself where there is nothing to estimate it from.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Band {
    /// Of independent numbers: mean ± t·s/√n.
    ///
    /// # Panics
    /// With no numbers.
    ///
    /// # Examples
    /// ```
    /// let band = align_reward::overoptimization::Band::of(&[1.0, 2.0, 3.0]);
    /// assert_eq!(band.mean, 2.0);
    /// assert!((band.high - 2.0 - 4.302_652_73 / 3.0_f64.sqrt()).abs() < 1e-6);
    /// ```
    pub fn of(numbers: &[f64]) -> Self {
        let (n, mean) = (numbers.len(), mean(numbers));
        let half = match n {
            1 => 0.0,
            _ => t_quantile(n - 1) * (variance(numbers, Divisor::MembersLessOne) / n as f64).sqrt(),
        };
        Self { mean, low: mean - half, high: mean + half }
    }

    /// Of numbers in groups: prompts within seeds. With several groups the groups are what is independent; with one, its
    /// numbers are.
    ///
    /// # Panics
    /// With no groups, or an empty one.
    pub fn of_groups(groups: &[Vec<f64>]) -> Self {
        match groups {
            [only] => Self::of(only),
            _ => Self::of(&groups.iter().map(|group| mean(group)).collect::<Vec<_>>()),
        }
    }
}

/// The 97.5 % quantile of Student's t.
fn t_quantile(freedom: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706_204_74,
        4.302_652_73,
        3.182_446_31,
        2.776_445_11,
        2.570_581_84,
        2.446_911_85,
        2.364_624_25,
        2.306_004_14,
        2.262_157_16,
        2.228_138_85,
        2.200_985_16,
        2.178_812_83,
        2.160_368_66,
        2.144_786_69,
        2.131_449_55,
        2.119_905_30,
        2.109_815_58,
        2.100_922_04,
        2.093_024_05,
        2.085_963_45,
        2.079_613_84,
        2.073_873_07,
        2.068_657_61,
        2.063_898_56,
        2.059_538_55,
        2.055_529_44,
        2.051_830_52,
        2.048_407_14,
        2.045_229_64,
        2.042_272_46,
    ];
    match TABLE.get(freedom - 1) {
        Some(&quantile) => quantile,
        // Cornish and Fisher's expansion about the normal quantile; right to five digits from 31 on.
        None => {
            let (z, v) = (1.959_963_985_f64, freedom as f64);
            z + (z.powi(3) + z) / (4.0 * v) + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * v * v)
        }
    }
}

/// The shape of gold over `d = √KL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// `d(α − βd)`, as best-of-n follows it.
    BestOfN,
    /// `d(α − β log d)`, as reinforcement learning does. Its slope at 0 is infinite: not to be fitted below d ≈ 0.3.
    Reinforcement,
}

/// A form with its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// Which form.
    pub form: Form,
    /// α, the gain at first.
    pub alpha: f64,
    /// β, what is lost further out.
    pub beta: f64,
}

impl Form {
    fn columns(self, d: f64) -> [f64; 2] {
        match self {
            Self::BestOfN => [d, -d * d],
            // d log d is 0 at 0.
            Self::Reinforcement => [d, if d > 0.0 { -d * d.ln() } else { 0.0 }],
        }
    }

    /// Least squares through the origin, over points `(d, gold)`. Gold must be shifted so that the start scores 0.
    ///
    /// `None` with fewer than two points, or where they do not tell α from β.
    pub fn fit(self, points: &[(f64, f64)]) -> Option<Fit> {
        let (mut a, mut b, mut c, mut u, mut v) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for &(d, y) in points {
            let [p, q] = self.columns(d);
            a += p * p;
            b += p * q;
            c += q * q;
            u += p * y;
            v += q * y;
        }
        let determinant = a * c - b * b;
        let fits = determinant.abs() > 1e-12 * a * c;
        fits.then(|| Fit {
            form: self,
            alpha: (c * u - b * v) / determinant,
            beta: (a * v - b * u) / determinant,
        })
    }
}

impl Fit {
    /// Gold at distance `d`.
    pub fn at(&self, d: f64) -> f64 {
        let [p, q] = self.form.columns(d);
        self.alpha * p + self.beta * q
    }

    /// The distance of the highest point; infinite if the form never falls.
    pub fn peak(&self) -> f64 {
        match self.form {
            _ if self.beta <= 0.0 => f64::INFINITY,
            Form::BestOfN => self.alpha / (2.0 * self.beta),
            Form::Reinforcement => (self.alpha / self.beta - 1.0).exp(),
        }
    }

    /// Sum of squared residuals.
    pub fn residual(&self, points: &[(f64, f64)]) -> f64 {
        points.iter().map(|&(d, y)| (y - self.at(d)).powi(2)).sum()
    }
}

/// Correlation of two scores of the same rows (Pearson).
///
/// `None` with fewer than two rows or if either is constant.
///
/// # Panics
/// If there are not as many of the one as of the other.
pub fn correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    assert_eq!(a.len(), b.len(), "two scores of the same rows");
    if a.len() < 2 {
        return None;
    }
    let (mean_a, mean_b) = (mean(a), mean(b));
    let covariance: f64 = a.iter().zip(b).map(|(a, b)| (a - mean_a) * (b - mean_b)).sum();
    let [var_a, var_b] = [(a, mean_a), (b, mean_b)]
        .map(|(scores, mean)| scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>());
    (var_a > 0.0 && var_b > 0.0).then(|| (covariance / (var_a * var_b).sqrt()).clamp(-1.0, 1.0))
}

/// Means and intervals of many curves, point by point, without keeping the curves.
#[derive(Clone, Debug, Default)]
pub struct Bands {
    curves: usize,
    /// Mean and sum of squares about it, by Welford's recurrence.
    points: Vec<(f64, f64)>,
}

impl Bands {
    /// Takes a curve in.
    ///
    /// # Panics
    /// If it has not as many points as the ones before.
    pub fn add(&mut self, curve: &[f64]) {
        if self.curves == 0 {
            self.points = vec![(0.0, 0.0); curve.len()];
        }
        assert_eq!(curve.len(), self.points.len(), "curves of one length");
        self.curves += 1;
        for ((mean, squares), value) in self.points.iter_mut().zip(curve) {
            let off = value - *mean;
            *mean += off / self.curves as f64;
            *squares += off * (value - *mean);
        }
    }

    /// A band a point, as [`Band::of`] gives it.
    pub fn bands(&self) -> Vec<Band> {
        let curves = self.curves;
        let half = |squares: f64| match curves {
            0 | 1 => 0.0,
            _ => t_quantile(curves - 1) * (squares / (curves - 1) as f64 / curves as f64).sqrt(),
        };
        self.points
            .iter()
            .map(|&(mean, squares)| Band { mean, low: mean - half(squares), high: mean + half(squares) })
            .collect()
    }
}
