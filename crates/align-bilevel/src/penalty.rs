//! The penalised hyper-objective ψ_σ and its gradient, and when a point is stationary for it.

use serde::{Deserialize, Serialize};

use crate::curvature::least_curvature;
use crate::descent::{Descent, descend};
use crate::{BilevelError, Level, Oracle, Point, Problem, Sample};

/// Which difference quotient in σ of the value function `l(x, σ) = min_{y ∈ Y} σ f(x, y) + g(x, y)` stands for ψ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// `(l(x, σ) − l(x, 0))/σ`: a bias of the order of σ.
    #[default]
    Forward,
    /// `(l(x, σ) − l(x, −σ))/(2σ)`: of the order of σ² where the lower level is smooth enough, as long as `g − σf` keeps its
    /// minimiser. That needs σ below the curvature of g over that of f.
    Central,
}

/// The penalty: its size, and the difference quotient it is used in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Penalty {
    /// σ, the inverse of the multiplier λ of other papers.
    pub sigma: f64,
    /// Which quotient.
    pub difference: Difference,
}

/// The terms that a hyper-gradient is taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Samples {
    /// Of f.
    pub upper: Sample,
    /// Of g, at y and at z.
    pub lower: Sample,
    /// Of g at z, if it is not to be the sample at y: the deviation of the hyper-gradient is then of the order of 1/σ.
    pub apart: Option<Sample>,
}

impl Samples {
    /// All terms.
    pub fn full() -> Self {
        Self { upper: Sample::full(), lower: Sample::full(), apart: None }
    }
}

/// ψ_σ at a point, with what it was computed from.
#[derive(Clone, Debug)]
pub struct PsiSigma<X, Y> {
    /// `ψ_σ(x)`.
    pub value: f64,
    /// `∇ψ_σ(x)`.
    pub gradient: X,
    /// The minimiser of `σ f(x, ·) + g(x, ·)`.
    pub y: Y,
    /// The minimiser of `g(x, ·)`; of `g(x, ·) − σ f(x, ·)` for a central difference.
    pub z: Y,
    /// The larger of the two residuals. Above the tolerance only if the steps of a descent ran out, or the digits.
    pub residual: f64,
    /// How many descent steps the two took together.
    pub steps: usize,
}

/// Refuses a σ that is no penalty, or at which the difference of two lower gradients is lost in rounding.
///
/// The error of `(∇ₓg(x, y) − ∇ₓg(x, z))/σ` is a bias of the order of σ and rounding of the order of u/σ, with u the unit
/// roundoff. They meet at about √u; a smaller σ makes things worse. The floor is 10⁻⁴ in f32, where the turn was measured
/// on a quadratic, and in proportion to √u elsewhere: 4.3·10⁻⁹ in f64. The constant is ours.
///
/// # Errors
/// [`InvalidPenalty`](BilevelError::InvalidPenalty), with the floor.
pub fn check_sigma(sigma: f64, unit_roundoff: f64) -> Result<(), BilevelError> {
    let single = f64::from(f32::EPSILON) / 2.0;
    let floor = 1e-4 * (unit_roundoff / single).sqrt();
    if !(sigma > 0.0 && sigma.is_finite()) {
        return Err(BilevelError::InvalidPenalty { floor: 0.0, value: sigma });
    }
    match sigma < floor {
        true => Err(BilevelError::InvalidPenalty { floor, value: sigma }),
        false => Ok(()),
    }
}

impl Penalty {
    /// With the forward difference.
    pub fn forward(sigma: f64) -> Self {
        Self { sigma, difference: Difference::Forward }
    }

    /// With the central difference.
    pub fn central(sigma: f64) -> Self {
        Self { sigma, difference: Difference::Central }
    }

    /// `∇ᵧ` of what y minimises, `σf + g`. Two calls.
    ///
    /// # Errors
    /// If it is not finite.
    pub fn gradient_at_y<P: Problem>(
        &self,
        oracle: &Oracle<'_, P>,
        x: &P::X,
        y: &P::Y,
        upper: &Sample,
        lower: &Sample,
    ) -> Result<P::Y, BilevelError> {
        oracle.perturbed_gradient_y(self.sigma, x, y, upper, lower)
    }

    /// `∇ᵧ` of what z minimises: g, one call; or `g − σf`, two calls, for a central difference.
    ///
    /// # Errors
    /// If it is not finite.
    pub fn gradient_at_z<P: Problem>(
        &self,
        oracle: &Oracle<'_, P>,
        x: &P::X,
        z: &P::Y,
        upper: &Sample,
        lower: &Sample,
    ) -> Result<P::Y, BilevelError> {
        match self.difference {
            Difference::Forward => oracle.gradient_y(Level::Lower, x, z, lower),
            Difference::Central => oracle.perturbed_gradient_y(-self.sigma, x, z, upper, lower),
        }
    }

    /// `D = σ ∇ψ_σ(x)` by Danskin's theorem, from the solutions of the two lower problems; no derivative of a solution
    /// appears.
    ///
    /// Forward: `σ ∇ₓf(x, y) + (∇ₓg(x, y) − ∇ₓg(x, z))`, three calls. Central:
    /// `(σ ∇ₓf(x, y) + σ ∇ₓf(x, z) + ∇ₓg(x, y) − ∇ₓg(x, z))/2`, four. The lower gradients are subtracted before anything
    /// is scaled. An error of ε in y or z appears as one of the order of ε/σ in D/σ.
    ///
    /// # Errors
    /// If a gradient is not finite.
    ///
    /// # Source
    /// Kwon, Kwon, Wright, Nowak 2024, section 1, <https://arxiv.org/abs/2309.01753>; the central difference is that of
    /// F2SA-p at p = 2, <https://arxiv.org/abs/2509.02937>.
    pub fn difference_x<P: Problem>(
        &self,
        oracle: &Oracle<'_, P>,
        x: &P::X,
        y: &P::Y,
        z: &P::Y,
        samples: &Samples,
    ) -> Result<P::X, BilevelError> {
        let mut difference = match &samples.apart {
            None => oracle.lower_difference_x(x, y, z, &samples.lower)?,
            Some(apart) => {
                let at_z = oracle.gradient_x(Level::Lower, x, z, apart)?;
                oracle.gradient_x(Level::Lower, x, y, &samples.lower)?.minus(&at_z)
            }
        };
        oracle.add_upper_x(&mut difference, self.sigma, x, y, &samples.upper)?;
        if self.difference == Difference::Central {
            oracle.add_upper_x(&mut difference, self.sigma, x, z, &samples.upper)?;
            difference.scale(0.5);
        }
        Ok(difference)
    }

    /// `ψ_σ(x)` from solutions of the two lower problems, over all terms.
    fn value<P: Problem>(
        &self,
        oracle: &Oracle<'_, P>,
        x: &P::X,
        y: &P::Y,
        z: &P::Y,
    ) -> Result<f64, BilevelError> {
        let all = Sample::full();
        let value = |level, y| oracle.value(level, x, y, &all);
        let gap = (value(Level::Lower, y)? - value(Level::Lower, z)?) / self.sigma;
        Ok(match self.difference {
            Difference::Forward => value(Level::Upper, y)? + gap,
            Difference::Central => (value(Level::Upper, y)? + value(Level::Upper, z)? + gap) / 2.0,
        })
    }
}

/// `ψ_σ(x)` and `∇ψ_σ(x)`, with both lower problems solved to a residual of `σ · descent.tolerance`, from the starts `y`
/// and `z`.
///
/// The residual has to shrink with σ since it is divided by σ in the end; the tolerance is therefore about that of the
/// hyper-gradient. All terms are used. Where f breaks ties among minimisers of g, the first problem has a condition
/// number of the order of 1/σ.
///
/// # Errors
/// Of [`check_sigma`] and [`descend`]; if a gradient is not finite; for a central difference
/// [`LostConvexity`](BilevelError::LostConvexity) if `g − σf` has no minimum that is strict in the directions which f pulls
/// in, found by a short Lanczos iteration at z that costs up to 21 calls of ∇ᵧf and 20 of ∇ᵧg.
///
/// # Examples
/// ```
/// use align_bilevel::problems::Quadratic;
/// use align_bilevel::{Descent, Oracle, Penalty, psi_sigma};
///
/// let problem = Quadratic::scalar();
/// let oracle = Oracle::new(&problem);
/// let start = vec![0.0];
/// let psi = psi_sigma(&oracle, &vec![0.8], &start, &start, Penalty::forward(0.1), &Descent::default())?;
/// assert!((psi.gradient[0] - 1.2 / 1.1).abs() < 1e-8);
/// # Ok::<(), align_bilevel::BilevelError>(())
/// ```
pub fn psi_sigma<P: Problem>(
    oracle: &Oracle<'_, P>,
    x: &P::X,
    y: &P::Y,
    z: &P::Y,
    penalty: Penalty,
    descent: &Descent,
) -> Result<PsiSigma<P::X, P::Y>, BilevelError> {
    check_sigma(penalty.sigma, x.unit_roundoff().max(y.unit_roundoff()))?;
    let descent = Descent { tolerance: penalty.sigma * descent.tolerance, ..*descent };
    let (problem, all) = (oracle.problem(), Sample::full());
    let project = |y: &mut P::Y| problem.project_y(y);
    let at_y = |y: &P::Y| penalty.gradient_at_y(oracle, x, y, &all, &all);
    let at_z = |z: &P::Y| penalty.gradient_at_z(oracle, x, z, &all, &all);

    let first = descend(y.clone(), &descent, at_y, project)?;
    let second = match (descend(z.clone(), &descent, at_z, project), penalty.difference) {
        (second, Difference::Forward) => second?,
        (Ok(second), Difference::Central) => {
            keeps_convexity(oracle, x, &second.point, penalty)?;
            second
        }
        (Err(error), Difference::Central) => {
            keeps_convexity(oracle, x, z, penalty)?;
            return Err(error);
        }
    };
    let (y, z) = (first.point, second.point);
    let mut gradient = penalty.difference_x(oracle, x, &y, &z, &Samples::full())?;
    gradient.scale(1.0 / penalty.sigma);
    Ok(PsiSigma {
        value: penalty.value(oracle, x, &y, &z)?,
        gradient,
        residual: first.residual.max(second.residual),
        steps: first.steps + second.steps,
        y,
        z,
    })
}

/// Refuses a σ at which `g − σf` curves downwards at z in a direction that the slope of f reaches.
fn keeps_convexity<P: Problem>(
    oracle: &Oracle<'_, P>,
    x: &P::X,
    z: &P::Y,
    penalty: Penalty,
) -> Result<(), BilevelError> {
    let all = Sample::full();
    let pull = oracle.gradient_y(Level::Upper, x, z, &all)?;
    let found = least_curvature(z, &pull, 10, |z| penalty.gradient_at_z(oracle, x, z, &all, &all))?;
    match found {
        Some(curvature) if curvature <= 0.0 => {
            Err(BilevelError::LostConvexity { sigma: penalty.sigma, curvature })
        }
        _ => Ok(()),
    }
}

/// `‖x − P_X(x − ρ ∇ψ)‖/ρ`: 0 exactly where x is stationary for ψ on X, and `‖∇ψ‖` without constraints.
///
/// # Examples
/// ```
/// use align_bilevel::{Set, stationarity};
///
/// let interval = Set::bounds(vec![-1.0], vec![1.0])?;
/// let measure = |x, gradient| stationarity(&vec![x], &vec![gradient], 0.1, |x| interval.project(x));
/// assert_eq!(measure(1.0, -2.0), 0.0); // pushed against the bound
/// assert!((measure(0.95, -2.0) - 0.5).abs() < 1e-12); // half of the step is cut off
/// # Ok::<(), align_bilevel::BilevelError>(())
/// ```
pub fn stationarity<X: Point>(x: &X, gradient: &X, rho: f64, project: impl Fn(&mut X)) -> f64 {
    let mut next = x.plus(-rho, gradient);
    project(&mut next);
    x.distance(&next) / rho
}
