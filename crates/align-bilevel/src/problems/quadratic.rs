//! A strongly convex quadratic below: every quantity of the theory in closed form.

use super::linear::{Cholesky, Dense};
use super::{ClosedForm, ClosedPenalty, Penalized};
use crate::{BilevelError, Level, Point, Problem, Sample};

/// `g = yᵀAy/2 − yᵀBx + (q/2)|x|²` below and `f = (w/2)|y − c|² + r(x)` above, without constraints.
///
/// The lower solution is `A⁻¹Bx`. The term in q moves no solution and no hyper-gradient.
///
/// # Examples
/// Between the penalised gradient and the true one lies a bias of the order of σ:
/// ```
/// use align_bilevel::problems::{ClosedForm, ClosedPenalty, Quadratic};
///
/// let problem = Quadratic::scalar();
/// let exact = problem.hyper_gradient(&[0.8])[0];
/// let bias = |sigma| exact - problem.penalized(&[0.8], sigma).gradient[0];
/// assert!((exact - 1.2).abs() < 1e-12);
/// assert!((bias(0.01) - 1.2 * 0.01 / 1.01).abs() < 1e-12);
/// ```
#[derive(Clone, Debug)]
pub struct Quadratic {
    hessian: Dense,
    coupling: Dense,
    target: Vec<f64>,
    upper_weight: f64,
    lower_squares: f64,
    outer: OuterTerm,
}

/// The part r(x) of an upper objective that is of x alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OuterTerm {
    /// `(weight/2) Σ xⱼ²`.
    Squares {
        /// Its factor.
        weight: f64,
    },
    /// `weight Σ ln(1 + xⱼ²)`: nonconvex where |xⱼ| > 1.
    LogSquares {
        /// Its factor.
        weight: f64,
    },
}

impl OuterTerm {
    fn value(self, x: &[f64]) -> f64 {
        match self {
            Self::Squares { weight } => weight / 2.0 * x.iter().map(|x| x * x).sum::<f64>(),
            Self::LogSquares { weight } => weight * x.iter().map(|x| (x * x).ln_1p()).sum::<f64>(),
        }
    }

    fn derivative(self, x: f64) -> f64 {
        match self {
            Self::Squares { weight } => weight * x,
            Self::LogSquares { weight } => 2.0 * weight * x / (1.0 + x * x),
        }
    }
}

impl Quadratic {
    /// From A (symmetric positive definite; its lower triangle is read), B and c, with w = 1, q = 0 and r = 0.
    ///
    /// # Errors
    /// If the sizes do not fit, or A is not positive definite.
    pub fn new(hessian: &[Vec<f64>], coupling: &[Vec<f64>], target: Vec<f64>) -> Result<Self, BilevelError> {
        let expected = target.len();
        let mismatch = |which, found| BilevelError::ShapeMismatch { which, expected, found };
        let square = hessian.len() == expected && hessian.iter().all(|row| row.len() == expected);
        let a = Dense::from_rows(hessian).filter(|_| square && expected > 0);
        let a = a.ok_or_else(|| mismatch("the rows and columns of A", hessian.len()))?;
        let b = Dense::from_rows(coupling).filter(|b| coupling.len() == expected && b.columns > 0);
        let b = b.ok_or_else(|| mismatch("the rows of B", coupling.len()))?;
        if a.cholesky(0.0).is_none() {
            let detail = "A is not positive definite".to_owned();
            return Err(BilevelError::UnboundedLowerLevel { detail });
        }
        Ok(Self {
            hessian: a,
            coupling: b,
            target,
            upper_weight: 1.0,
            lower_squares: 0.0,
            outer: OuterTerm::Squares { weight: 0.0 },
        })
    }

    /// With w in the upper objective.
    pub fn with_upper_weight(mut self, weight: f64) -> Self {
        self.upper_weight = weight;
        self
    }

    /// With q in the lower objective.
    pub fn with_lower_squares(mut self, weight: f64) -> Self {
        self.lower_squares = weight;
        self
    }

    /// With r in the upper objective.
    pub fn with_outer_term(mut self, outer: OuterTerm) -> Self {
        self.outer = outer;
        self
    }

    /// One dimension each: `f = (y − 1)²/2`, `g = (y − 2x)²/2`.
    pub fn scalar() -> Self {
        let small = Self::new(&[vec![1.0]], &[vec![2.0]], vec![1.0]);
        small.expect("1 is positive").with_lower_squares(4.0)
    }

    /// Two dimensions each: `A = [[2, ½], [½, 1]]`, `B = [[1, 0], [1, −1]]`, `f = |y − (1, −2)|²/2 + 0.05|x|²`.
    ///
    /// Its only stationary point is (0.3297911323, 1.9274459509), where ψ = 0.2574203005.
    pub fn vector() -> Self {
        let a = [vec![2.0, 0.5], vec![0.5, 1.0]];
        let b = [vec![1.0, 0.0], vec![1.0, -1.0]];
        let small = Self::new(&a, &b, vec![1.0, -2.0]).expect("the eigenvalues of A are (3 ± √2)/2");
        small.with_outer_term(OuterTerm::Squares { weight: 0.1 })
    }

    /// Ten dimensions below and five above, from formulas that any language reproduces, and nonconvex in x:
    /// `A = diag(4^(−i/9))`, `Bᵢⱼ = ¼ sin(3i + 5j + 1)`, `cᵢ = cos 2i`, `f = 0.05|y − c|² + 0.15 Σ ln(1 + xⱼ²)`.
    ///
    /// A stationary point is (0.112883349, 0.116170035, −0.046535067, −0.143884987, −0.033577072), where
    /// ψ = 0.2510587545.
    pub fn portable() -> Self {
        let index = |i: usize| i as f64;
        let diagonal = |i, j| if i == j { 4f64.powf(-index(i) / 9.0) } else { 0.0 };
        let a: Vec<Vec<f64>> = (0..10).map(|i| (0..10).map(|j| diagonal(i, j)).collect()).collect();
        let wave = |i, j| 0.25 * (3.0 * index(i) + 5.0 * index(j) + 1.0).sin();
        let b: Vec<Vec<f64>> = (0..10).map(|i| (0..5).map(|j| wave(i, j)).collect()).collect();
        let target = (0..10).map(|i| (2.0 * index(i)).cos()).collect();
        let problem = Self::new(&a, &b, target).expect("A is a positive diagonal");
        problem.with_upper_weight(0.1).with_outer_term(OuterTerm::LogSquares { weight: 0.15 })
    }

    /// How many numbers x has.
    pub fn upper_dimension(&self) -> usize {
        self.coupling.columns
    }

    /// How many numbers y has.
    pub fn lower_dimension(&self) -> usize {
        self.coupling.row_count()
    }

    /// A factor of `A + σwI`.
    fn factor(&self, sigma: f64) -> Cholesky {
        let factor = self.hessian.cholesky(sigma * self.upper_weight);
        factor.unwrap_or_else(|| panic!("A + σwI is not positive definite at σ = {sigma}"))
    }

    /// `w (y − c)`.
    fn upper_slope(&self, y: &[f64]) -> Vec<f64> {
        y.iter().zip(&self.target).map(|(y, c)| self.upper_weight * (y - c)).collect()
    }

    /// `∇r(x) + Bᵀv`.
    fn outer_gradient(&self, x: &[f64], v: &[f64]) -> Vec<f64> {
        let pulled = self.coupling.transposed_times(v);
        x.iter().zip(pulled).map(|(&x, pulled)| self.outer.derivative(x) + pulled).collect()
    }
}

impl Problem for Quadratic {
    type X = Vec<f64>;
    type Y = Vec<f64>;

    fn value(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _sample: &Sample) -> f64 {
        match level {
            Level::Upper => {
                let distance = y.iter().zip(&self.target).map(|(y, c)| (y - c).powi(2)).sum::<f64>();
                self.upper_weight / 2.0 * distance + self.outer.value(x)
            }
            Level::Lower => {
                y.dot(&self.hessian.times(y)) / 2.0 - y.dot(&self.coupling.times(x))
                    + self.lower_squares / 2.0 * x.dot(x)
            }
        }
    }

    fn gradient_x(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _sample: &Sample) -> Vec<f64> {
        match level {
            Level::Upper => x.iter().map(|&x| self.outer.derivative(x)).collect(),
            Level::Lower => {
                let pulled = self.coupling.transposed_times(y);
                x.iter().zip(pulled).map(|(x, pulled)| self.lower_squares * x - pulled).collect()
            }
        }
    }

    fn gradient_y(&self, level: Level, x: &Vec<f64>, y: &Vec<f64>, _sample: &Sample) -> Vec<f64> {
        match level {
            Level::Upper => self.upper_slope(y),
            Level::Lower => self.hessian.times(y).minus(&self.coupling.times(x)),
        }
    }

    /// `Bᵀ(z − y)`, in which the term in x never enters.
    fn lower_difference_x(&self, _x: &Vec<f64>, y: &Vec<f64>, z: &Vec<f64>, _sample: &Sample) -> Vec<f64> {
        self.coupling.transposed_times(&z.minus(y))
    }
}

impl ClosedForm for Quadratic {
    fn solution(&self, x: &[f64]) -> Vec<f64> {
        self.factor(0.0).solve(&self.coupling.times(x))
    }

    /// `∇r(x) + Bᵀ A⁻¹ w(y* − c)`.
    fn hyper_gradient(&self, x: &[f64]) -> Vec<f64> {
        let factor = self.factor(0.0);
        let solution = factor.solve(&self.coupling.times(x));
        self.outer_gradient(x, &factor.solve(&self.upper_slope(&solution)))
    }
}

impl ClosedPenalty for Quadratic {
    /// With `v = (A + σwI)⁻¹ w(y* − c)`: `y_σ = y* − σv`, `ψ_σ = ψ − (σ/2) w(y* − c)·v`, `∇ψ_σ = ∇r + Bᵀv`. Nothing cancels
    /// as σ → 0, and σ may be negative as long as A + σwI is positive definite.
    ///
    /// # Panics
    /// If it is not.
    fn penalized(&self, x: &[f64], sigma: f64) -> Penalized {
        let solution = self.solution(x);
        let slope = self.upper_slope(&solution);
        let v = self.factor(sigma).solve(&slope);
        Penalized {
            psi: self.psi(x) - sigma / 2.0 * slope.dot(&v),
            gradient: self.outer_gradient(x, &v),
            y: solution.plus(-sigma, &v),
        }
    }
}
