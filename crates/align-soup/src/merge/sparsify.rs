//! Which values of a task vector are kept, and by what the kept ones are multiplied.

use rayon::prelude::*;

use super::draws::{Stream, threshold};
use super::error::MergeError;
use super::method::Sparsifier;
use super::parameters::Parameter;
use super::pass::{BLOCK, Pass, Room, Rows, dot, learn, sweep};
use super::select::{All, Band, Magnitudes, Ranking, magnitudes};
use super::task::TensorTask;

/// L1 norms below this are not rescaled.
const LEAST_NORM: f64 = 1e-7;

/// The values of one task vector that are kept.
pub(super) enum Keep {
    All,
    Nothing,
    /// Those of middling or large magnitude.
    Band(Band),
    /// Each at random with the same probability.
    Drawn {
        stream: Stream,
        threshold: u64,
    },
    /// Those with a 1, one byte for each value.
    Listed(Vec<u8>),
}

impl Keep {
    /// 1 for values that are kept and 0 for the others.
    #[inline(always)]
    pub(super) fn fill(&self, first: usize, delta: &[f64], keep: &mut [f64]) {
        match self {
            Self::All => keep.fill(1.0),
            Self::Nothing => keep.fill(0.0),
            Self::Band(band) => {
                let mut keys = [0; BLOCK];
                let keys = &mut keys[..delta.len()];
                magnitudes(delta, keys);
                band.fill(first, keys, keep);
            }
            Self::Drawn { stream, threshold } => {
                for (position, keep) in keep.iter_mut().enumerate() {
                    *keep = f64::from(u8::from(stream.bits(first + position) < *threshold));
                }
            }
            Self::Listed(list) => {
                for (keep, &listed) in keep.iter_mut().zip(&list[first..]) {
                    *keep = f64::from(listed);
                }
            }
        }
    }
}

/// A task vector made sparse: factor · keep · δ.
pub(super) struct Sparse {
    pub(super) keep: Keep,
    pub(super) factor: f64,
}

impl Sparse {
    /// The task vector of one model, as the method and its parameters want it.
    pub(super) fn of(task: &TensorTask<'_>, model: usize) -> Result<Self, MergeError> {
        let parameters = task.parameters;
        let sparsifier = parameters.method().sparsifier();
        let number = |parameter| parameters.numbers(parameter)[model];
        let density = if sparsifier == Sparsifier::None { 1.0 } else { number(Parameter::Density) };
        if density >= 1.0 {
            return Ok(Self { keep: Keep::All, factor: 1.0 });
        }
        let stream = Stream::new(task.seed, task.name, model);
        let alone = task.model(model);
        let keep = match sparsifier {
            Sparsifier::None => Keep::All,
            Sparsifier::Magnitude => largest(&alone, density)?,
            Sparsifier::MiddleRanks => middle(&alone, density, number(Parameter::Gamma))?,
            Sparsifier::Random => Keep::Drawn { stream, threshold: threshold(density) },
            Sparsifier::RandomByRank => by_rank(&alone, density, number(Parameter::Epsilon), stream)?,
        };
        let factor = if parameters.flag(Parameter::Rescale) { restoring_norm(&alone, &keep)? } else { 1.0 };
        Ok(Self { keep, factor })
    }
}

/// The ⌊density · N⌋ values of largest magnitude, one at least unless the density is 0.
///
/// # Source
/// Yadav et al. 2023, "TIES-Merging", section 3.1, <https://arxiv.org/abs/2306.01708>; the one at least as in mergekit.
fn largest(task: &TensorTask<'_>, density: f64) -> Result<Keep, MergeError> {
    let total = task.values();
    if density <= 0.0 || total == 0 {
        return Ok(Keep::Nothing);
    }
    let count = ((density * total as f64) as usize).max(1);
    Ok(Keep::Band(Ranking::of(task, Magnitudes).largest(count)?))
}

/// ⌊density · N⌋ values: without the ⌊gamma · N⌋ largest, or fewer of them where the density leaves no room, then without
/// the smallest.
///
/// # Source
/// Davari and Belilovsky 2024, "Model Breadcrumbs", section 3.2, <https://arxiv.org/abs/2312.06795>; counts as in mergekit.
fn middle(task: &TensorTask<'_>, density: f64, gamma: f64) -> Result<Keep, MergeError> {
    let total = task.values();
    let count = (density * total as f64) as usize;
    if count == 0 {
        return Ok(Keep::Nothing);
    }
    let top = (gamma * total as f64) as usize;
    let start = total.saturating_sub(count + top);
    Ok(Keep::Band(Ranking::of(task, Magnitudes).between(start, start + count)?))
}

/// Each value with a probability by the rank of its magnitude in its row, from density − ε for the smallest to
/// density + ε for the largest. Rows run along the second axis, or the only one.
///
/// # Source
/// Deep, Bhardwaj, Poria 2024, "DELLA-Merging", section 3.1, <https://arxiv.org/abs/2406.11617>; rows and ranks as in
/// mergekit.
fn by_rank(task: &TensorTask<'_>, density: f64, epsilon: f64, stream: Stream) -> Result<Keep, MergeError> {
    if density <= 0.0 {
        return Ok(Keep::Nothing);
    }
    let (row, stride) = match task.shape {
        [] => (1, 1),
        [length] => (*length, 1),
        [_, length, inner @ ..] => (*length, inner.iter().product()),
    };
    let slab = row * stride;
    let mut listed = vec![0; task.values()];
    if listed.is_empty() {
        return Ok(Keep::Nothing);
    }
    listed.par_chunks_mut(slab).enumerate().try_for_each_init(
        || (Room::default(), Vec::with_capacity(row)),
        |(room, order), (index, listed)| {
            let start = index * slab;
            let keys = learn(task, &All { keys: &Magnitudes }, start..start + slab, room)?;
            for first in 0..stride {
                order.clear();
                // Equal magnitudes are ranked by position.
                order.extend((0..row).map(|at| u64::from(keys[first + at * stride]) << 32 | at as u64));
                order.sort_unstable();
                for (rank, &entry) in order.iter().enumerate() {
                    let at = first + (entry as u32) as usize * stride;
                    let share = if row == 1 { 0.5 } else { rank as f64 / (row - 1) as f64 };
                    let probability = density - epsilon + share * 2.0 * epsilon;
                    listed[at] = u8::from(stream.bits(start + at) < threshold(probability));
                }
            }
            Ok::<_, MergeError>(())
        },
    )?;
    Ok(Keep::Listed(listed))
}

/// The factor that gives the kept values the L1 norm of all: Σ|δ| / Σ_kept |δ|.
///
/// DARE's paper rescales by 1/density, which has this value on average; mergekit restores the norm, so that the scale of
/// the update does not depend on which values were drawn.
pub(super) fn restoring_norm(task: &TensorTask<'_>, keep: &Keep) -> Result<f64, MergeError> {
    let mut total = Norms::default();
    for sum in sweep(task, &Norm { keep })? {
        total.before += sum.before;
        total.after += sum.after;
    }
    Ok(if total.before < LEAST_NORM || total.after < LEAST_NORM { 1.0 } else { total.before / total.after })
}

#[derive(Clone, Copy, Default)]
struct Norms {
    before: f64,
    after: f64,
}

struct Norm<'a> {
    keep: &'a Keep,
}

impl Pass for Norm<'_> {
    type Sum = Norms;

    #[inline(always)]
    fn block(&self, first: usize, rows: &mut Rows, sum: &mut Norms) {
        let [keep, magnitude, ones] = &mut rows.spare;
        self.keep.fill(first, &rows.deltas[0], keep);
        magnitude.iter_mut().zip(&rows.deltas[0]).for_each(|(magnitude, delta)| *magnitude = delta.abs());
        ones.fill(1.0);
        sum.before += dot(magnitude, ones);
        sum.after += dot(magnitude, keep);
    }
}
