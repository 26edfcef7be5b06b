//! Expected gradients: integrated gradients averaged over a background.

use align_core::draws::{Draws, Purpose};
use burn::tensor::{Tensor, TensorData};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::attribution::question::{BATCH, Question, at_least_one};
use crate::attribution::{Attributions, Baseline, Method};
use crate::models::first_parameter;
use crate::{Factors, FactorsError, Matrix, Network, Scorer};

/// Expected gradients: `φ_j(x) = E_{b, α} Σ_{k of j} (x_k − b_k) ∂f/∂x_k (b + α (x − b))` with b from the background and
/// α uniform on [0, 1].
///
/// Points come in pairs α, 1 − α towards the same b, rows of the background take turns in an order drawn for each row, and the
/// α of one b are drawn one from each of as many equal parts of the path. For a score with products of two columns at most, the
/// values are exact as soon as `pairs` is a multiple of the size of the background, and equal to Shapley values. Else they
/// are unbiased, and add up on average only: how far they are from it is [`Attributions::residual`]. Draws depend on the seed,
/// the number of the row and the size of the background alone, and are the same for every model.
///
/// # Shapes
/// `[N, C]` rows in d factors give `[N, d]`. Costs 2·pairs gradients for each row.
///
/// # Errors
/// [`FactorsError::Unsuitable`] if the model has no gradients, [`FactorsError::InvalidCount`] if there are no rows, no
/// background or no pairs, [`FactorsError::NonFinite`] if a score or gradient is not finite.
///
/// # Panics
/// If rows, baseline and factors differ in width.
///
/// # Source
/// Erion, Janizek, Sturmfels, Lundberg, Lee 2021, eq. 3, <https://arxiv.org/abs/1906.10670>; the pairs and the parts of the
/// path are ours, and change the noise only.
pub fn expected_gradients<S: Scorer + ?Sized>(
    scorer: &S,
    rows: &Matrix,
    factors: &Factors,
    baseline: &Baseline,
    pairs: usize,
    seed: u64,
) -> Result<Attributions, FactorsError> {
    at_least_one("pairs of points", pairs)?;
    let question = Question::new(rows, factors, baseline)?;
    let scores = question.scores(scorer)?;
    let (width, d, draws) = (rows.width(), factors.len(), Draws::new(seed));
    let share = 1.0 / (2 * pairs) as f64;
    let mut values = vec![0.0; rows.len() * d];
    let per_batch = (BATCH / (2 * pairs)).max(1);
    for first in (0..rows.len()).step_by(per_batch) {
        let batch = first..(first + per_batch).min(rows.len());
        let mut points = Vec::with_capacity(batch.len() * 2 * pairs * width);
        let mut toward = Vec::with_capacity(batch.len() * 2 * pairs);
        for row in batch.clone() {
            let mut generator = draws.generator(Purpose::Evaluate, row as u64);
            for Point { other, alpha } in drawn_points(question.background.len(), pairs, &mut generator) {
                let (x, b) = (rows.row(row), question.background.row(other));
                points.extend(x.iter().zip(b).map(|(x, b)| b + alpha * (x - b)));
                toward.push(other);
            }
        }
        let Some(gradients) = scorer.gradients(&Matrix::new(points, width)) else {
            return Err(FactorsError::Unsuitable {
                method: "expected_gradients",
                needs: "a model with gradients",
            });
        };
        for (index, (gradient, &other)) in gradients.rows().zip(&toward).enumerate() {
            let row = first + index / (2 * pairs);
            let (x, b) = (rows.row(row), question.background.row(other));
            for (column, slope) in gradient.iter().enumerate() {
                if !slope.is_finite() {
                    // Along the path all factors move together.
                    return Err(FactorsError::NonFinite { value: *slope, row, position: d });
                }
                values[row * d + factors.of_column(column)] += share * (x[column] - b[column]) * slope;
            }
        }
    }
    let method = Method::ExpectedGradients { pairs, seed };
    Ok(question.answer(method, Matrix::new(values, d), scores))
}

/// Where a gradient is taken: a row of the background, and the share of the way from it.
struct Point {
    other: usize,
    alpha: f64,
}

/// The points for one row: `pairs` times α and 1 − α.
fn drawn_points(background: usize, pairs: usize, generator: &mut StdRng) -> Vec<Point> {
    let mut order: Vec<usize> = (0..background).collect();
    order.shuffle(generator);
    let parts = pairs.div_ceil(background);
    // Which part of its path a row begins with is drawn, or a last round that is not full would favour some parts.
    let starts: Vec<usize> = (0..background).map(|_| generator.random_range(0..parts)).collect();
    let pair = |index: usize| {
        let (turn, place) = (index / background, index % background);
        let part = (starts[place] + turn) % parts;
        let alpha = (part as f64 + generator.random::<f64>()) / (2 * parts) as f64;
        [alpha, 1.0 - alpha].map(|alpha| Point { other: order[place], alpha })
    };
    (0..pairs).flat_map(pair).collect()
}

/// The gradient of every score by its row, from one backward pass over all rows. Parameters are constants.
///
/// # Shapes
/// `[N, C]` rows give `[N, C]`.
///
/// # Panics
/// If the network has no parameters, whose device and type the rows take.
pub fn network_gradients<N: Network>(network: &N, rows: &Matrix) -> Matrix {
    let network = network.valid();
    let Some((device, dtype)) = first_parameter(&network) else {
        panic!("network_gradients: a network has parameters");
    };
    let data = TensorData::new(rows.values().to_vec(), [rows.len(), rows.width()]);
    let leaf = Tensor::<2>::from_data(data, (&device, dtype)).autodiff().require_grad();
    // The score of a row depends on that row alone, so that the gradient of the sum holds the gradients of all.
    let sum = network.forward(leaf.clone()).sum();
    let gradient = if sum.is_tracked() { leaf.grad_remove(&mut sum.backward()) } else { None };
    let values = match gradient {
        Some(gradient) => gradient.into_data().iter::<f64>().collect(),
        // The network does not look at its rows.
        None => vec![0.0; rows.values().len()],
    };
    Matrix::new(values, rows.width())
}
