//! Closed convex sets of vectors, and the nearest point of each.

use serde::{Deserialize, Serialize};

use crate::BilevelError;
use crate::point::dot;

/// A closed convex set with at least one point.
///
/// In a recipe it is written as a [`SetConfig`], and checked while it is read.
///
/// # Examples
/// ```
/// use align_bilevel::Set;
///
/// let simplex = Set::simplex(4, 1.0)?;
/// let mut v = vec![0.8, -0.3, 0.6, 0.1];
/// simplex.project(&mut v);
/// assert!(simplex.contains(&v, 1e-12));
/// assert_eq!(v[1], 0.0);
/// # Ok::<(), align_bilevel::BilevelError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "SetConfig", into = "SetConfig")]
pub struct Set(SetConfig);

/// A set as it is described, before it is known to have a point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SetConfig {
    /// ℝⁿ.
    Whole {},
    /// `{v : lowerᵢ ≤ vᵢ ≤ upperᵢ}`. Bounds may be infinite.
    Box {
        /// The least of each coordinate.
        lower: Vec<f64>,
        /// The most of each coordinate.
        upper: Vec<f64>,
    },
    /// `{v : ‖v − centre‖ ≤ radius}`.
    Ball {
        /// The middle.
        centre: Vec<f64>,
        /// 0 leaves the centre alone.
        radius: f64,
    },
    /// `{v ≥ 0 : Σ vᵢ = total}`.
    Simplex {
        /// How many coordinates.
        length: usize,
        /// What they sum to: 1 for probabilities.
        total: f64,
    },
    /// `{v : ⟨normal, v⟩ ≤ offset}`.
    Halfspace {
        /// Points outwards; of any length.
        normal: Vec<f64>,
        /// The most that the product with the normal may be.
        offset: f64,
    },
    /// `{v : v ≥ 0}`.
    NonNegative {},
    /// Consecutive coordinates, each run of them in a set of its own.
    Product {
        /// The runs, in order.
        parts: Vec<Part>,
    },
}

/// Consecutive coordinates of a product of sets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// How many coordinates.
    pub length: usize,
    /// Where they live.
    pub set: Set,
}

impl Set {
    /// ℝⁿ, for any n.
    pub fn whole() -> Self {
        Self(SetConfig::Whole {})
    }

    /// `{v : lowerᵢ ≤ vᵢ ≤ upperᵢ}`. Bounds may be infinite.
    ///
    /// # Errors
    /// If a lower bound is above its upper one, or a bound leaves no number.
    pub fn bounds(lower: Vec<f64>, upper: Vec<f64>) -> Result<Self, BilevelError> {
        SetConfig::Box { lower, upper }.try_into()
    }

    /// `{v : ‖v − centre‖ ≤ radius}`.
    ///
    /// # Errors
    /// If the radius is negative, or a number is not finite.
    pub fn ball(centre: Vec<f64>, radius: f64) -> Result<Self, BilevelError> {
        SetConfig::Ball { centre, radius }.try_into()
    }

    /// `{v ≥ 0 : Σ vᵢ = total}`, with `length` coordinates.
    ///
    /// # Errors
    /// If there are no coordinates, or the total is negative or not finite.
    pub fn simplex(length: usize, total: f64) -> Result<Self, BilevelError> {
        SetConfig::Simplex { length, total }.try_into()
    }

    /// `{v : ⟨normal, v⟩ ≤ offset}`.
    ///
    /// # Errors
    /// If the normal is zero and the offset negative, or a number is not finite.
    pub fn halfspace(normal: Vec<f64>, offset: f64) -> Result<Self, BilevelError> {
        SetConfig::Halfspace { normal, offset }.try_into()
    }

    /// `{v : v ≥ 0}`, of any length.
    pub fn non_negative() -> Self {
        Self(SetConfig::NonNegative {})
    }

    /// Consecutive coordinates, each run of them in a set of its own.
    ///
    /// # Errors
    /// If a set is of another length than its run.
    pub fn product(parts: Vec<(usize, Set)>) -> Result<Self, BilevelError> {
        let parts = parts.into_iter().map(|(length, set)| Part { length, set }).collect();
        SetConfig::Product { parts }.try_into()
    }

    /// How many coordinates its points have; `None` where any number will do.
    pub fn length(&self) -> Option<usize> {
        match &self.0 {
            SetConfig::Whole {} | SetConfig::NonNegative {} => None,
            SetConfig::Box { lower, .. } => Some(lower.len()),
            SetConfig::Ball { centre, .. } => Some(centre.len()),
            SetConfig::Simplex { length, .. } => Some(*length),
            SetConfig::Halfspace { normal, .. } => Some(normal.len()),
            SetConfig::Product { parts } => Some(parts.iter().map(|part| part.length).sum()),
        }
    }

    /// `v ← argmin_{w in the set} ‖w − v‖`.
    ///
    /// # Panics
    /// If `v` has another length than the set's points.
    pub fn project(&self, v: &mut [f64]) {
        if let Some(length) = self.length() {
            assert_eq!(v.len(), length, "a point of {} numbers, projected onto a set of {length}", v.len());
        }
        match &self.0 {
            SetConfig::Whole {} => {}
            SetConfig::Box { lower, upper } => {
                for ((v, lower), upper) in v.iter_mut().zip(lower).zip(upper) {
                    *v = v.clamp(*lower, *upper);
                }
            }
            SetConfig::Ball { centre, radius } => project_onto_ball(v, centre, *radius),
            SetConfig::Simplex { total, .. } => project_onto_simplex(v, *total),
            SetConfig::Halfspace { normal, offset } => {
                let excess = dot(normal, v) - offset;
                if excess > 0.0 {
                    let squared = dot(normal, normal);
                    v.iter_mut().zip(normal).for_each(|(v, a)| *v -= excess / squared * a);
                }
            }
            SetConfig::NonNegative {} => v.iter_mut().for_each(|v| *v = v.max(0.0)),
            SetConfig::Product { parts } => {
                let mut rest = v;
                for part in parts {
                    let (run, after) = rest.split_at_mut(part.length);
                    part.set.project(run);
                    rest = after;
                }
            }
        }
    }

    /// `min_{w in the set} ‖w − v‖`.
    ///
    /// # Panics
    /// If `v` has another length than the set's points.
    pub fn distance(&self, v: &[f64]) -> f64 {
        let mut nearest = v.to_vec();
        self.project(&mut nearest);
        nearest.iter().zip(v).map(|(w, v)| (w - v).powi(2)).sum::<f64>().sqrt()
    }

    /// Whether `v` is in the set, or at most `tolerance` away.
    ///
    /// # Panics
    /// If `v` has another length than the set's points.
    pub fn contains(&self, v: &[f64], tolerance: f64) -> bool {
        self.distance(v) <= tolerance
    }
}

impl TryFrom<SetConfig> for Set {
    type Error = BilevelError;

    fn try_from(config: SetConfig) -> Result<Self, BilevelError> {
        let empty = |set, detail| Err(BilevelError::EmptySet { set, detail });
        match &config {
            SetConfig::Whole {} | SetConfig::NonNegative {} => {}
            SetConfig::Box { lower, upper } => {
                if lower.len() != upper.len() {
                    let (expected, found) = (lower.len(), upper.len());
                    return Err(BilevelError::ShapeMismatch {
                        which: "the upper bounds of a box",
                        expected,
                        found,
                    });
                }
                for (i, (l, u)) in lower.iter().zip(upper).enumerate() {
                    // Written so that NaN is refused too.
                    if !(l <= u && *l < f64::INFINITY && *u > f64::NEG_INFINITY) {
                        return empty("box", format!("coordinate {i} from {l} to {u}"));
                    }
                }
            }
            SetConfig::Ball { centre, radius } => {
                if !(*radius >= 0.0 && radius.is_finite() && centre.iter().all(|c| c.is_finite())) {
                    return empty("ball", format!("radius {radius} around {centre:?}"));
                }
            }
            SetConfig::Simplex { length, total } => {
                if *length == 0 || !(*total >= 0.0 && total.is_finite()) {
                    return empty("simplex", format!("{length} coordinates that sum to {total}"));
                }
            }
            SetConfig::Halfspace { normal, offset } => {
                let squared = dot(normal, normal);
                if !(squared.is_finite() && offset.is_finite() && (squared > 0.0 || *offset >= 0.0)) {
                    return empty("halfspace", format!("product with {normal:?} at most {offset}"));
                }
            }
            SetConfig::Product { parts } => {
                for part in parts {
                    if let Some(found) = part.set.length().filter(|length| *length != part.length) {
                        let (which, expected) = ("a set of a product", part.length);
                        return Err(BilevelError::ShapeMismatch { which, expected, found });
                    }
                }
            }
        }
        Ok(Self(config))
    }
}

impl From<Set> for SetConfig {
    fn from(set: Set) -> Self {
        set.0
    }
}

fn project_onto_ball(v: &mut [f64], centre: &[f64], radius: f64) {
    let distance = v.iter().zip(centre).map(|(v, c)| (v - c).powi(2)).sum::<f64>().sqrt();
    if distance > radius {
        let shrink = radius / distance;
        v.iter_mut().zip(centre).for_each(|(v, c)| *v = c + shrink * (*v - c));
    }
}

/// `vᵢ ← max(vᵢ − θ, 0)` with θ such that the result sums to `total`.
///
/// # Source
/// Held, Wolfe, Crowder 1974, "Validation of subgradient optimization", <https://doi.org/10.1007/BF01580223>.
fn project_onto_simplex(v: &mut [f64], total: f64) {
    let mut descending = v.to_vec();
    descending.sort_unstable_by(|a, b| b.total_cmp(a));
    // θ is the threshold of the largest k at which the k-th largest coordinate still exceeds it.
    let (mut sum, mut threshold) = (0.0, descending[0] - total);
    for (k, value) in descending.iter().enumerate() {
        sum += value;
        let candidate = (sum - total) / (k + 1) as f64;
        if *value <= candidate {
            break;
        }
        threshold = candidate;
    }
    v.iter_mut().for_each(|v| *v = (*v - threshold).max(0.0));
}
