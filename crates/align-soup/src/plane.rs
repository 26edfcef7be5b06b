//! The plane through three models in weight space, to look at a soup's neighbourhood.
//!
//! Every point of it is an affine combination of the three, Σ_k w_k θ_k with Σ_k w_k = 1, so that a soup by these weights *is*
//! the model at that point: nothing but distances between the models has to be known to find them.

use std::path::Path;

use burn::module::Module;
use serde::{Deserialize, Serialize};

use crate::checkpoint::task_vectors_of_folders;
use crate::error::SoupError;
use crate::task_vector::{TaskVectors, task_vectors};
use crate::weights::Weights;

/// A sine below this leaves no plane: the rounding of stored weights would decide its second axis. (In f32 a soup of two fine-tunes
/// that are a hundredth of their weights apart is off their line by about 1e-5 of that distance.)
const FLAT: f64 = 1e-3;
/// Models closer than this share of their distance to the first are one model.
const CLOSE: f64 = 1e-6;

/// Why three models span no plane, or no grid lies on it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaneError {
    /// The models could not be compared.
    #[error(transparent)]
    Soup(#[from] SoupError),
    /// Two of the models are one point.
    #[error("models {} and {} have equal weights; a plane needs three different models", pair[0], pair[1])]
    Coincide {
        /// Which, counted from 0.
        pair: [usize; 2],
    },
    /// The models lie on one line.
    #[error(
        "the three models lie on a line (the angle at the first has a sine of {sine:.1e}, expected at least 1e-3); a \
         plane needs a third model off the line, such as one fine-tuned apart"
    )]
    Collinear {
        /// The sine of the angle at the first model.
        sine: f64,
    },
    /// A distance is not a number: a model holds NaN or infinity.
    #[error("the distance between models 0 and {other} is {found}, expected a finite number")]
    NotFinite {
        /// The other model, counted from 0.
        other: usize,
        /// The distance.
        found: f64,
    },
    /// A grid needs two points a side.
    #[error("a grid needs at least 2 points on its longer side, found {points}")]
    Points {
        /// How many were asked for.
        points: usize,
    },
    /// A margin outside its range.
    #[error(
        "a grid's margin is a share of the models' extent: expected a finite number of at least 0, found {margin}"
    )]
    Margin {
        /// The margin.
        margin: f64,
    },
}

/// A place on a [`Plane`], in distances in weight space: x along the way from the first model to the second, y at right angles
/// to it on the third model's side.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Along the first axis.
    pub x: f64,
    /// Along the second axis.
    pub y: f64,
}

/// The plane through three models a, b, c, with the orthonormal axes of Garipov et al.:
///
/// û = (b − a) / ‖b − a‖,  v̂ = (c − a − ⟨c − a, û⟩ û) / ‖…‖,  and the model at (x, y) is a + x û + y v̂.
///
/// # Source
/// Garipov et al. 2018, <https://arxiv.org/abs/1802.10026>, figure 1 and appendix A; of soups Wortsman et al. 2022, figure 2.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plane {
    /// ‖b − a‖.
    base: f64,
    /// ⟨c − a, û⟩.
    foot: f64,
    /// ⟨c − a, v̂⟩, above 0.
    height: f64,
}

/// The plane through three modules.
///
/// # Errors
/// If parameters are missing, quantised or of another shape, a value is not finite, two modules are equal or all three lie on
/// one line.
pub fn plane<M: Module>(a: &M, b: &M, c: &M) -> Result<Plane, PlaneError> {
    Plane::of(task_vectors(a, b, c)?)
}

/// The plane through the models of three checkpoint folders, streaming.
///
/// # Errors
/// As [`plane`], and if a folder cannot be read.
pub fn plane_of_folders(
    a: impl AsRef<Path>,
    b: impl AsRef<Path>,
    c: impl AsRef<Path>,
) -> Result<Plane, PlaneError> {
    Plane::of(task_vectors_of_folders(a, b, c)?)
}

impl Plane {
    /// The plane through a and the ends of two task vectors b − a and c − a.
    ///
    /// # Errors
    /// If a norm is zero or not finite, or the vectors are parallel.
    ///
    /// # Examples
    /// ```
    /// use align_soup::{Plane, Point, TaskVectors};
    ///
    /// let plane = Plane::of(TaskVectors { norms: [2.0, 3.0], cosine: Some(0.0) })?;
    /// assert_eq!(plane.models()[2], Point { x: 0.0, y: 3.0 });
    /// // Half-way between b and c, at the foot of nothing else.
    /// assert_eq!(plane.weights_at(Point { x: 1.0, y: 1.5 }).as_slice(), [0.0, 0.5, 0.5]);
    /// # Ok::<(), align_soup::PlaneError>(())
    /// ```
    pub fn of(vectors: TaskVectors) -> Result<Self, PlaneError> {
        let [b, c] = vectors.norms;
        for (other, found) in [(1, b), (2, c)] {
            if !found.is_finite() {
                return Err(PlaneError::NotFinite { other, found });
            }
            if found == 0.0 {
                return Err(PlaneError::Coincide { pair: [0, other] });
            }
        }
        let cosine = vectors.cosine.unwrap_or(0.0).clamp(-1.0, 1.0);
        // (1 − cos)(1 + cos) keeps the digits that 1 − cos² loses near a line.
        let sine = ((1.0 - cosine) * (1.0 + cosine)).sqrt();
        if sine < FLAT {
            let apart = (b * b + c * c - 2.0 * b * c * cosine).max(0.0).sqrt();
            return Err(match apart <= CLOSE * b.max(c) {
                true => PlaneError::Coincide { pair: [1, 2] },
                false => PlaneError::Collinear { sine },
            });
        }
        Ok(Self { base: b, foot: c * cosine, height: c * sine })
    }

    /// Where a, b and c are.
    pub fn models(&self) -> [Point; 3] {
        [Point { x: 0.0, y: 0.0 }, Point { x: self.base, y: 0.0 }, Point { x: self.foot, y: self.height }]
    }

    /// The weights w of a, b and c with Σ_k w_k θ_k at a point. They sum to 1, and some are negative outside the triangle.
    ///
    /// # Panics
    /// If a coordinate is not finite.
    pub fn weights_at(&self, point: Point) -> Weights {
        let c = point.y / self.height;
        let b = (point.x - c * self.foot) / self.base;
        Weights::extrapolating(&[1.0 - b - c, b, c]).expect("points of a plane have finite coordinates")
    }

    /// Where the combination of a, b and c by these weights is.
    pub fn point_of(&self, weights: [f64; 3]) -> Point {
        let [_, b, c] = weights;
        Point { x: b * self.base + c * self.foot, y: c * self.height }
    }

    /// A grid of points around the three models: their bounding box, wider on each side by `margin` times its longer side, with
    /// `points` points on its longer side and square cells.
    ///
    /// # Errors
    /// If there are fewer than 2 points, or the margin is negative or not finite.
    pub fn grid(&self, points: usize, margin: f64) -> Result<PlaneGrid, PlaneError> {
        if points < 2 {
            return Err(PlaneError::Points { points });
        }
        if !(margin.is_finite() && margin >= 0.0) {
            return Err(PlaneError::Margin { margin });
        }
        let (left, right) = (self.foot.min(0.0), self.foot.max(self.base));
        let around = margin * (right - left).max(self.height);
        let (width, height) = (right - left + 2.0 * around, self.height + 2.0 * around);
        let step = width.max(height) / (points - 1) as f64;
        // Centred, so that what rounding to whole cells adds is the same on both sides.
        let axis = |middle: f64, length: f64| -> Vec<f64> {
            let cells = (length / step - 1e-9).ceil().max(1.0);
            (0..=cells as usize).map(|at| middle + (at as f64 - cells / 2.0) * step).collect()
        };
        Ok(PlaneGrid { x: axis(f64::midpoint(left, right), width), y: axis(self.height / 2.0, height) })
    }
}

/// Places to evaluate: every x with every y, evenly spaced, the same distance apart on both axes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaneGrid {
    /// Along the first axis, rising.
    pub x: Vec<f64>,
    /// Along the second axis, rising.
    pub y: Vec<f64>,
}

impl PlaneGrid {
    /// Every point, row by row from the lowest y, each row from the lowest x.
    pub fn points(&self) -> impl Iterator<Item = Point> + '_ {
        self.y.iter().flat_map(|&y| self.x.iter().map(move |&x| Point { x, y }))
    }
}
