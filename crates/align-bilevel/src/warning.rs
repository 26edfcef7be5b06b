//! What is allowed but unlikely to be meant.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A setting or a measurement that a user should hear about before trusting a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Warning {
    /// The inner step is longer than smoothness guarantees to be stable.
    StepTooLarge {
        /// The first outer step at which it is.
        outer: u64,
        /// γ there.
        gamma: f64,
        /// `1/(σ l_f + l_g + 1/ρ)` there.
        bound: f64,
    },
    /// The proximal error bound hardly holds: hyper-gradients near this point may say nothing about ψ.
    WeakErrorBound {
        /// The least `R(y)/dist(y, T(x, σ))` that was seen.
        constant: f64,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StepTooLarge { outer, gamma, bound } => write!(
                formatter,
                "StepTooLarge: gamma is {gamma} at outer {outer}, above 1/(sigma l_f + l_g + 1/rho) = {bound}"
            ),
            Self::WeakErrorBound { constant } => write!(
                formatter,
                "WeakErrorBound: the residual is only {constant} of the distance to the lower solutions; \
                 the penalised gradient may be far from that of the hyper-objective"
            ),
        }
    }
}

/// Lipschitz constants of the gradients in y, where they are known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Smoothness {
    /// l_f, of `∇ᵧ f`.
    pub upper: f64,
    /// l_g, of `∇ᵧ g`.
    pub lower: f64,
}

impl Smoothness {
    /// `l = σ l_f + l_g`, of `∇ᵧ (σf + g)`.
    pub fn of_penalised(&self, sigma: f64) -> f64 {
        sigma * self.upper + self.lower
    }

    /// `ρ = 1/(2l)`, at which the proximal problem is strongly convex whatever f and g are.
    pub fn rho(&self, sigma: f64) -> f64 {
        0.5 / self.of_penalised(sigma)
    }

    /// `γ = 1/(l + 1/ρ)`: the longest inner step that is certain to be stable.
    pub fn inner_step(&self, sigma: f64, rho: f64) -> f64 {
        1.0 / (self.of_penalised(sigma) + 1.0 / rho)
    }

    /// The first of `steps` outer steps at which γ is too long, if there is one.
    pub(crate) fn first_excess(
        &self,
        steps: u64,
        rho: f64,
        at: impl Fn(u64) -> (f64, f64),
    ) -> Option<Warning> {
        (0..steps).find_map(|outer| {
            let (sigma, gamma) = at(outer);
            let bound = self.inner_step(sigma, rho);
            // A γ that was computed from the bound may be above it by rounding.
            (gamma > bound * (1.0 + 1e-12)).then_some(Warning::StepTooLarge { outer, gamma, bound })
        })
    }
}
