//! The Karcher mean: the point on the unit sphere with the least mean squared angle to the directions of the models.

use super::gram::Gram;

/// Below this sine at an obtuse angle, a vector is opposite and no shortest arc leads to it.
const OPPOSITE: f64 = 1e-7;

/// Coefficients c of the Karcher mean Σ_k c_k x_k of vectors with equal weights, times their mean norm.
///
/// Starting at the direction of the mean, each step goes along the mean of the logarithms
/// Log_u(v) = θ/sin θ · (v − cos θ · u), until the step is shorter than `tolerance` or `steps` are made. Vectors with a
/// norm up to `tolerance` have no direction; they count for the mean norm only. The iteration runs on coefficients and
/// inner products, so it reads the vectors once however many steps it takes.
///
/// # Source
/// Karcher 1977, "Riemannian center of mass and mollifier smoothing"; iteration and defaults as in mergekit.
pub(super) fn karcher(gram: &Gram, steps: u32, tolerance: f64) -> Vec<f64> {
    let count = gram.order();
    if count == 1 {
        return vec![1.0];
    }
    let norms: Vec<f64> = (0..count).map(|k| gram.norm(k)).collect();
    let directed: Vec<usize> = (0..count).filter(|&k| norms[k] > tolerance).collect();
    let Some(&first) = directed.first() else { return vec![0.0; count] };
    let inverse: Vec<f64> =
        (0..count).map(|k| if norms[k] > tolerance { 1.0 / norms[k] } else { 0.0 }).collect();
    let units = gram.scaled(&inverse);
    let share = 1.0 / directed.len() as f64;

    // The mean as coefficients of the unit vectors.
    let mut mean = vec![0.0; count];
    directed.iter().for_each(|&k| mean[k] = share);
    let length = units.norm_of(&mean);
    if length < tolerance {
        mean.fill(0.0);
        mean[first] = 1.0;
    } else {
        mean.iter_mut().for_each(|c| *c /= length);
    }
    for _ in 0..steps {
        let mut tangent = vec![0.0; count];
        for &k in &directed {
            let cosine = units.along(k, &mean).clamp(-1.0, 1.0);
            let angle = cosine.acos();
            if angle < tolerance || angle.sin() < OPPOSITE {
                continue;
            }
            let stretch = share * angle / angle.sin();
            tangent.iter_mut().zip(&mean).for_each(|(tangent, mean)| *tangent -= stretch * cosine * mean);
            tangent[k] += stretch;
        }
        let step = units.norm_of(&tangent);
        if step < tolerance {
            break;
        }
        for (mean, tangent) in mean.iter_mut().zip(&tangent) {
            *mean = step.cos() * *mean + step.sin() / step * tangent;
        }
        let length = units.norm_of(&mean);
        mean.iter_mut().for_each(|c| *c /= length);
    }
    let scale = norms.iter().sum::<f64>() / count as f64;
    mean.iter().zip(inverse).map(|(c, inverse)| scale * c * inverse).collect()
}
