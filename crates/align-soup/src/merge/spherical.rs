//! Interpolation on spheres, in coefficients: what to multiply the vectors by, found from their inner products.

use super::gram::Gram;

/// Beyond this |cosine|, slerp mixes linearly.
const SLERP_LINEAR: f64 = 0.9995;
/// Norms up to this are taken for zero in slerp.
const SLERP_NORM: f64 = 1e-8;
/// Least norm that nuslerp divides by.
const NUSLERP_NORM: f64 = 1e-7;
/// Least 1 − cos² at which nuslerp is spherical: mergekit's 1e-16 lies within the rounding of a cosine in f64, where an
/// arc between opposite vectors would be noise.
const NUSLERP_LINEAR: f64 = 8.0 * f64::EPSILON;
/// Least norm of a mean of unit vectors that inner products in f64 can tell from zero.
const LEAST_MEAN: f64 = 1e-7;

/// Coefficients of two vectors, and their cosine where they are opposite, so that the result nearly vanishes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Arc {
    pub(super) coefficients: [f64; 2],
    pub(super) antipodal: Option<f64>,
}

impl Arc {
    /// (1−t)·a + t·b.
    fn chord(t: f64, cosine: f64) -> Self {
        Self { coefficients: [1.0 - t, t], antipodal: (cosine < 0.0).then_some(cosine) }
    }

    /// sin((1−t)θ)/sin θ · a + sin(tθ)/sin θ · b.
    fn spherical(t: f64, cosine: f64) -> Self {
        let angle = cosine.acos();
        let coefficients = [((1.0 - t) * angle).sin() / angle.sin(), (t * angle).sin() / angle.sin()];
        Self { coefficients, antipodal: None }
    }
}

/// Slerp: θ is the angle between a and b, the coefficients apply to the vectors as they are, and vectors with
/// |cos θ| > 0.9995 are mixed linearly. A zero vector is at a right angle to every other.
///
/// # Source
/// Shoemake 1985, "Animating rotation with quaternion curves", SIGGRAPH; thresholds as in mergekit.
pub(super) fn slerp(gram: &Gram, t: f64) -> Arc {
    let norm = |i| if gram.norm(i) > SLERP_NORM { gram.norm(i) } else { 1.0 };
    let cosine = (gram.product(0, 1) / (norm(0) * norm(1))).clamp(-1.0, 1.0);
    if cosine.abs() > SLERP_LINEAR { Arc::chord(t, cosine) } else { Arc::spherical(t, cosine) }
}

/// mergekit's nuslerp: as [`slerp`], linear only where sin θ vanishes.
pub(super) fn nuslerp(gram: &Gram, t: f64) -> Arc {
    let norm = |i| gram.norm(i).max(NUSLERP_NORM);
    let cosine = (gram.product(0, 1) / (norm(0) * norm(1))).clamp(-1.0, 1.0);
    if 1.0 - cosine * cosine <= NUSLERP_LINEAR { Arc::chord(t, cosine) } else { Arc::spherical(t, cosine) }
}

/// Coefficients of mergekit's multislerp; `None` if the weighted directions cancel.
///
/// With unit vectors u_k = x_k/(‖x_k‖+ε) and m the direction of Σ_k w_k u_k, the barycentre is interpolated in the tangent
/// space at m. Σ_k w_k (u_k − ⟨u_k, m⟩ m) is zero there, because m is the direction of the very sum, and the exponential map
/// leaves m·cos ε. So the result is cos ε · Σ_k w_k ‖x_k‖ · m.
pub(super) fn multislerp(gram: &Gram, weights: &[f64], epsilon: f64) -> Option<Vec<f64>> {
    let units: Vec<f64> = (0..gram.order()).map(|k| weights[k] / (gram.norm(k) + epsilon)).collect();
    let length = gram.norm_of(&units);
    if length < epsilon.max(LEAST_MEAN) {
        // Two opposite vectors still have a mean on the chord.
        return (gram.order() == 2).then(|| weights.to_vec());
    }
    let norm: f64 = weights.iter().enumerate().map(|(k, weight)| weight * gram.norm(k)).sum();
    Some(units.iter().map(|unit| unit / length * norm * epsilon.cos()).collect())
}
