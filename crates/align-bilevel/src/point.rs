//! What solvers do with x and y: arithmetic in a Euclidean space, wherever the numbers live.

/// A point of a Euclidean space, or a gradient there: a `Vec<f64>`, or the trained tensors of a module.
///
/// Algorithms are written once over this trait. Two points that meet have the same shape; that is checked at the door
/// of [`Oracle`](crate::Oracle), not in every sum.
pub trait Point: Clone + Send + Sync {
    /// `self ← self + scale · other`.
    fn add_scaled(&mut self, scale: f64, other: &Self);

    /// `self ← factor · self`.
    fn scale(&mut self, factor: f64);

    /// `self ← factor · self + scale · other`.
    fn scale_add(&mut self, factor: f64, scale: f64, other: &Self) {
        self.scale(factor);
        self.add_scaled(scale, other);
    }

    /// `⟨self, other⟩`.
    fn dot(&self, other: &Self) -> f64;

    /// How many numbers it has.
    fn len(&self) -> usize;

    /// The origin of the same space.
    fn zeros(&self) -> Self;

    /// The unit roundoff of its numbers: 2⁻⁵³ in f64, 2⁻²⁴ in f32. Floors and difference steps are made of it.
    fn unit_roundoff(&self) -> f64;

    /// Whether it has no numbers.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `‖self‖`.
    fn norm(&self) -> f64 {
        self.dot(self).sqrt()
    }

    /// Whether every number is finite.
    fn is_finite(&self) -> bool {
        // A sum of squares that overflows is as useless to a solver as a broken number.
        self.dot(self).is_finite()
    }

    /// `self + scale · other`, as a new point.
    fn plus(&self, scale: f64, other: &Self) -> Self {
        let mut sum = self.clone();
        sum.add_scaled(scale, other);
        sum
    }

    /// `self − other`, as a new point.
    fn minus(&self, other: &Self) -> Self {
        self.plus(-1.0, other)
    }

    /// `self ← (1 − weight) · self + weight · other`; a weight of 1 copies.
    fn move_towards(&mut self, weight: f64, other: &Self) {
        if weight == 1.0 {
            *self = other.clone();
        } else {
            self.scale_add(1.0 - weight, weight, other);
        }
    }

    /// `‖self − other‖`.
    fn distance(&self, other: &Self) -> f64 {
        self.minus(other).norm()
    }
}

impl Point for Vec<f64> {
    fn add_scaled(&mut self, scale: f64, other: &Self) {
        for (value, other) in self.iter_mut().zip(other) {
            *value += scale * other;
        }
    }

    fn scale(&mut self, factor: f64) {
        self.iter_mut().for_each(|value| *value *= factor);
    }

    fn scale_add(&mut self, factor: f64, scale: f64, other: &Self) {
        for (value, other) in self.iter_mut().zip(other) {
            *value = factor * *value + scale * other;
        }
    }

    fn dot(&self, other: &Self) -> f64 {
        dot(self, other)
    }

    fn len(&self) -> usize {
        Vec::len(self)
    }

    fn zeros(&self) -> Self {
        vec![0.0; Vec::len(self)]
    }

    fn unit_roundoff(&self) -> f64 {
        f64::EPSILON / 2.0
    }
}

/// `Σ aᵢ bᵢ`, in sixteen sums that the processor can add side by side: one alone would wait for itself at every term.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    const SUMS: usize = 16;
    let mut sums = [0.0; SUMS];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<SUMS>(), b.as_chunks::<SUMS>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..SUMS {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
}
