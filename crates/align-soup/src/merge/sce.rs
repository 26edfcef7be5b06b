//! SCE: select positions by variance, calculate weights by energy, erase minority signs.

use super::consensus::agreeing;
use super::error::MergeError;
use super::parameters::Parameter;
use super::pass::{BLOCK, Pass, Rows, Store, dot, sweep, sweep_into};
use super::select::{Band, Keys, Ranking, key_of};
use super::task::TensorTask;
use crate::mix::FloatDtype;

/// Below this sum of mean squares, all models weigh the same.
const LEAST_ENERGY: f64 = 1e-6;
/// Least sum of weights that a sum is divided by.
const LEAST_DIVISOR: f64 = 1e-6;

/// b + Σ_k w_k d_k / Σ_k w_k over the task vectors that agree in sign, with d_k the task vector at the positions of
/// largest variance over the models and w_k its share of the mean squares.
///
/// Selected are the ⌊τ·n⌋ positions of largest variance, with n the number of those whose variance is not zero.
///
/// # Source
/// Wan et al. 2024, "FuseChat", section 3.3, <https://arxiv.org/abs/2408.07990>; the floors 1e-6 as in mergekit.
pub(super) fn merge(task: &TensorTask<'_>, dtype: FloatDtype, store: &Store<'_>) -> Result<(), MergeError> {
    let selected = select(task, task.parameters.number(Parameter::SelectTopK))?;
    let count = task.models.len();
    let mut energy = vec![0.0; count];
    for sum in sweep(task, &Energy { selected: &selected })? {
        energy.iter_mut().zip(sum).for_each(|(energy, sum)| *energy += sum);
    }
    energy.iter_mut().for_each(|energy| *energy /= task.values() as f64);
    let total: f64 = energy.iter().sum();
    let weights: Vec<f64> = match total < LEAST_ENERGY {
        true => vec![1.0 / count as f64; count],
        false => energy.iter().map(|energy| energy / total).collect(),
    };
    sweep_into(task, &Erase { selected: &selected, weights: &weights }, dtype, store)
}

/// The positions selected.
enum Selected {
    All,
    Nothing,
    Band(Band),
}

fn select(task: &TensorTask<'_>, share: f64) -> Result<Selected, MergeError> {
    if share >= 1.0 {
        return Ok(Selected::All);
    }
    let ranking = Ranking::of(task, Variance);
    Ok(match (ranking.nonzero()? as f64 * share) as usize {
        0 => Selected::Nothing,
        count => Selected::Band(ranking.largest(count)?),
    })
}

impl Selected {
    /// Sets the task vectors to zero at positions that are not selected.
    #[inline(always)]
    fn mask(&self, first: usize, rows: &mut Rows) {
        match self {
            Self::All => {}
            Self::Nothing => rows.deltas.iter_mut().for_each(|delta| delta.fill(0.0)),
            Self::Band(band) => {
                let mut keys = [0; BLOCK];
                let keys = &mut keys[..rows.out.len()];
                Variance.keys(rows, keys);
                let [keep, ..] = &mut rows.spare;
                band.fill(first, keys, keep);
                for delta in &mut rows.deltas {
                    delta.iter_mut().zip(keep.iter()).for_each(|(delta, keep)| *delta *= keep);
                }
            }
        }
    }
}

/// The variance over the models.
struct Variance;

impl Keys for Variance {
    /// By the updates of Welford 1962, which give exactly 0 for equal values.
    #[inline(always)]
    fn keys(&self, rows: &Rows, keys: &mut [u32]) {
        let (mut mean, mut squares) = ([0.0; BLOCK], [0.0; BLOCK]);
        for (index, delta) in rows.deltas.iter().enumerate() {
            let share = 1.0 / (index + 1) as f64;
            for ((mean, squares), delta) in mean.iter_mut().zip(&mut squares).zip(delta) {
                let away = delta - *mean;
                *mean += away * share;
                *squares += away * (delta - *mean);
            }
        }
        for (key, squares) in keys.iter_mut().zip(squares) {
            *key = key_of(squares / rows.deltas.len() as f64);
        }
    }
}

/// Sums of squares of the selected values of each model.
struct Energy<'a> {
    selected: &'a Selected,
}

impl Pass for Energy<'_> {
    type Sum = Vec<f64>;

    #[inline(always)]
    fn block(&self, first: usize, rows: &mut Rows, sum: &mut Vec<f64>) {
        self.selected.mask(first, rows);
        sum.resize(rows.deltas.len(), 0.0);
        sum.iter_mut().zip(&rows.deltas).for_each(|(sum, delta)| *sum += dot(delta, delta));
    }
}

struct Erase<'a> {
    selected: &'a Selected,
    weights: &'a [f64],
}

impl Pass for Erase<'_> {
    type Sum = ();

    #[inline(always)]
    fn block(&self, first: usize, rows: &mut Rows, _sum: &mut ()) {
        self.selected.mask(first, rows);
        let Rows { base, deltas, out, spare: [vote, total, divisor], .. } = rows;
        vote.fill(0.0);
        for delta in deltas.iter() {
            vote.iter_mut().zip(delta).for_each(|(vote, delta)| *vote += delta);
        }
        for (delta, weight) in deltas.iter_mut().zip(self.weights) {
            delta.iter_mut().for_each(|delta| *delta *= weight);
        }
        agreeing(deltas, self.weights, vote, total, divisor);
        let sums = total.iter().zip(divisor.iter());
        for ((out, base), (total, divisor)) in out.iter_mut().zip(base.iter()).zip(sums) {
            *out = base + total / divisor.max(LEAST_DIVISOR);
        }
    }
}
