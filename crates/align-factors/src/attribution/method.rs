//! The choice between ways to compute attributions.

use serde::{Deserialize, Serialize};

use crate::attribution::question::finite;
use crate::attribution::{
    Attributions, Baseline, MOST_ENUMERATED, Terms, closed, exact, expected_gradients, permutation,
    tree_interventional, tree_path,
};
use crate::{Factors, FactorsError, Forest, Matrix, Scorer};

/// What is known of a model beside its scores.
pub enum Structure<'a> {
    /// Nothing.
    Opaque,
    /// Its score is a sum of terms of one column and of two.
    Terms(Terms<'a>),
    /// It is a sum of trees.
    Forest(&'a Forest),
}

/// How attributions are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Method {
    /// The cheapest exact method there is for the model, else [`Method::Permutation`] with the default pairs and seed 0. See
    /// [`Method::chosen`].
    Auto {},
    /// [`closed`], for sums of terms.
    Closed {},
    /// [`tree_interventional`], for sums of trees.
    TreeInterventional {},
    /// [`tree_path`], for sums of trees. Explains against what the trees saw in training, and not against the baseline.
    TreePath {},
    /// [`exact`], for any model of at most 12 factors.
    Exact {},
    /// [`permutation`], for any model.
    Permutation {
        /// Pairs of an order and its reverse for each row. One is exact for models with interactions of pairs only; 4 leave
        /// little noise in reports.
        #[serde(default = "order_pairs")]
        pairs: usize,
        /// Decides the orders.
        #[serde(default)]
        seed: u64,
    },
    /// [`expected_gradients`], for models with gradients.
    ExpectedGradients {
        /// Pairs of points for each row. 50 are a hundred gradients, half of what the `shap` package draws.
        #[serde(default = "gradient_pairs")]
        pairs: usize,
        /// Decides the points.
        #[serde(default)]
        seed: u64,
    },
}

fn order_pairs() -> usize {
    4
}

fn gradient_pairs() -> usize {
    50
}

impl Default for Method {
    fn default() -> Self {
        Self::Auto {}
    }
}

impl Method {
    /// The method that [`Method::Auto`] stands for: closed forms for sums of terms, [`tree_interventional`] for forests,
    /// enumeration up to 12 factors, sampled orders beyond. All of them answer the same question, interventional Shapley
    /// values; the last one with noise. Other methods stand for themselves.
    pub fn chosen<S: Scorer + ?Sized>(self, scorer: &S, factors: &Factors) -> Self {
        self.chosen_for(&scorer.structure(), factors.len())
    }

    fn chosen_for(self, structure: &Structure<'_>, factors: usize) -> Self {
        match (self, structure) {
            (Self::Auto {}, Structure::Terms(_)) => Self::Closed {},
            (Self::Auto {}, Structure::Forest(_)) => Self::TreeInterventional {},
            (Self::Auto {}, Structure::Opaque) if factors <= MOST_ENUMERATED => Self::Exact {},
            (Self::Auto {}, Structure::Opaque) => Self::Permutation { pairs: order_pairs(), seed: 0 },
            (method, _) => method,
        }
    }
}

/// Attributions by a method of choice, checked to add up.
///
/// # Shapes
/// `[N, C]` rows in d factors give `[N, d]`.
///
/// # Errors
/// [`FactorsError::Unsuitable`] if the model is not of the kind the method needs; [`FactorsError::AttributionMismatch`] if the
/// attributions do not add up within the precision of the scorer (not asked of expected gradients, which add up on average
/// only: see [`Attributions::residual`]); and those of the method.
///
/// # Panics
/// If rows, baseline and factors differ in width.
///
/// # Examples
/// ```
/// use align_factors::attribution::{Baseline, Method, Terms, explain, importances};
/// use align_factors::{Factors, Matrix};
///
/// let rows = Matrix::from_rows(&[[1.0, 2.0, 0.0], [3.0, 0.0, 1.0], [2.0, 4.0, 5.0], [0.0, 1.0, 2.0]]);
/// let factors = Factors::columns(["helpful", "honest", "long"])?;
/// let model = Terms::linear(&[2.0, -1.0, 0.5], 0.0);
/// let attributions = explain(&model, &rows, &factors, &Baseline::mean(&rows), Method::default())?;
/// assert_eq!(attributions.method, Method::Closed {});
/// assert_eq!(importances(&attributions), [2.0, 1.25, 0.75]);
/// # Ok::<(), align_factors::FactorsError>(())
/// ```
pub fn explain<S: Scorer + ?Sized>(
    scorer: &S,
    rows: &Matrix,
    factors: &Factors,
    baseline: &Baseline,
    method: Method,
) -> Result<Attributions, FactorsError> {
    let unsuitable = |method, needs| Err(FactorsError::Unsuitable { method, needs });
    let structure = scorer.structure();
    let mut attributions = match (method.chosen_for(&structure, factors.len()), &structure) {
        (Method::Closed {}, Structure::Terms(terms)) => closed(terms, rows, factors, baseline)?,
        (Method::Closed {}, _) => return unsuitable("closed", "a score that is a sum of terms"),
        (Method::TreeInterventional {}, Structure::Forest(forest)) => {
            tree_interventional(forest, rows, factors, baseline)?
        }
        (Method::TreeInterventional {}, _) => return unsuitable("tree_interventional", "a sum of trees"),
        (Method::TreePath {}, Structure::Forest(forest)) => tree_path(forest, rows, factors)?,
        (Method::TreePath {}, _) => return unsuitable("tree_path", "a sum of trees"),
        // `chosen_for` leaves no Auto.
        (Method::Exact {} | Method::Auto {}, _) => exact(scorer, rows, factors, baseline)?,
        (Method::Permutation { pairs, seed }, _) => {
            permutation(scorer, rows, factors, baseline, pairs, seed)?
        }
        (Method::ExpectedGradients { pairs, seed }, _) => {
            return expected_gradients(scorer, rows, factors, baseline, pairs, seed);
        }
    };
    if let Structure::Terms(_) | Structure::Forest(_) = structure {
        // What is known of a model is checked against the model, and not against itself.
        attributions.scores = finite(scorer, rows, |row| (row, factors.len()))?;
    }
    attributions.check(scorer.precision())?;
    Ok(attributions)
}
