//! The pass over the data: read, average, fingerprint, write.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::Progress;
use super::blocks::{Block, blocks, fingerprint, for_each_block, identity, read_block};
use super::open::{Folder, TensorEntry};
use super::plan::{Plan, Planned};
use crate::error::SoupError;
use crate::mix::{Source, mix};

/// A file under construction; tests put a failing one in its place.
pub(crate) trait Sink: Send + Sync {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Waits until the bytes are on the disk.
    fn sync(&self) -> io::Result<()>;
}

/// An output file and where its tensors begin.
pub(crate) struct Output {
    pub(crate) path: PathBuf,
    pub(crate) sink: Box<dyn Sink>,
    pub(crate) data_start: u64,
}

impl Output {
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), SoupError> {
        self.sink
            .write_at(bytes, offset)
            .map_err(|source| SoupError::Write { path: self.path.clone(), source })
    }
}

/// What the pass learned.
pub(crate) struct Streamed {
    /// Identity of each ingredient's weights.
    pub(crate) ingredients: Vec<String>,
    /// Identity of the result's weights.
    pub(crate) result: String,
    /// Whether each ingredient equals the first bit for bit.
    pub(crate) identical: Vec<bool>,
}

#[derive(Default)]
struct State {
    inputs: Vec<Vec<u8>>,
    output: Vec<u8>,
    counts: Vec<u64>,
    /// Of each ingredient, then of the result.
    fingerprints: Vec<Vec<(Block, u128)>>,
    non_finite: BTreeMap<(usize, usize), u64>,
    overflow: BTreeMap<usize, u64>,
}

/// Averages every tensor of `plan` into `outputs`.
pub(crate) fn stream(
    plan: &Plan,
    folders: &[Folder],
    weights: &[f64],
    outputs: &[Output],
    observe: &(dyn Fn(Progress) -> ControlFlow<()> + Sync),
) -> Result<Streamed, SoupError> {
    let blocks = blocks(plan.tensors.iter().map(|planned| planned.tensor.values()));
    let total = plan.bytes();
    let done = AtomicU64::new(0);
    // The first tensor found broken; later tensors are then skipped, earlier ones finished, so that the error names
    // the first broken tensor with all its values counted, whichever thread saw it.
    let broken = AtomicUsize::new(usize::MAX);
    let differs: Vec<AtomicBool> = folders.iter().map(|_| AtomicBool::new(false)).collect();

    let states = for_each_block(&blocks, |_, block, state: &mut State| {
        if block.tensor > broken.load(Ordering::Relaxed) {
            return Ok(());
        }
        state.inputs.resize_with(folders.len(), Vec::new);
        state.fingerprints.resize_with(folders.len() + 1, Vec::new);
        let planned = &plan.tensors[block.tensor];
        for (k, (folder, source)) in folders.iter().zip(&planned.sources).enumerate() {
            read_block(folder, source, block, &mut state.inputs[k])?;
            state.fingerprints[k].push((*block, fingerprint(&state.inputs[k])));
            if !differs[k].load(Ordering::Relaxed) && state.inputs[k] != state.inputs[0] {
                differs[k].store(true, Ordering::Relaxed);
            }
        }
        let size = planned.tensor.dtype.bitsize() as u64 / 8;
        if planned.float.is_some() {
            if average_block(planned, block, weights, state) {
                broken.fetch_min(block.tensor, Ordering::Relaxed);
                return Ok(());
            }
        } else {
            if let Some(k) = state.inputs.iter().position(|input| *input != state.inputs[0]) {
                let (path, ingredient) = (planned.tensor.name.clone(), folders[k].who.clone());
                return Err(SoupError::ConstantDiffers { path, ingredient });
            }
            state.output.clone_from(&state.inputs[0]);
        }
        state.fingerprints[folders.len()].push((*block, fingerprint(&state.output)));
        let output = &outputs[planned.shard];
        output.write_at(&state.output, output.data_start + planned.offset + block.start * size)?;
        let done = done.fetch_add(block.values * size, Ordering::Relaxed) + block.values * size;
        match observe(Progress { done, total }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(SoupError::Interrupted),
        }
    })?;
    refuse_broken(plan, folders, &states)?;

    let gathered = |k: usize| -> Vec<(Block, u128)> {
        states.iter().filter_map(|state| state.fingerprints.get(k)).flatten().copied().collect()
    };
    let sources =
        |k: usize| -> Vec<TensorEntry> { plan.tensors.iter().map(|p| p.sources[k].clone()).collect() };
    let results: Vec<TensorEntry> = plan.tensors.iter().map(|planned| planned.tensor.clone()).collect();
    Ok(Streamed {
        ingredients: (0..folders.len()).map(|k| identity(&sources(k), &gathered(k))).collect(),
        result: identity(&results, &gathered(folders.len())),
        identical: differs.iter().map(|differs| !differs.load(Ordering::Relaxed)).collect(),
    })
}

/// Averages one block into `state.output`; true if a value is not finite, which is counted in the state.
fn average_block(planned: &Planned, block: &Block, weights: &[f64], state: &mut State) -> bool {
    let dtype = planned.float.expect("only floats are averaged");
    let sources: Vec<Source<'_>> = state
        .inputs
        .iter()
        .zip(&planned.sources)
        .zip(weights)
        .map(|((bytes, source), &weight)| Source {
            dtype: source.float().expect("types were compared"),
            bytes,
            weight,
        })
        .collect();
    state.counts.clear();
    state.counts.resize(sources.len(), 0);
    state.output.resize(block.values as usize * dtype.size(), 0);
    let overflow = mix(&sources, dtype, &mut state.output, &mut state.counts);
    let mut broken = false;
    for (k, &count) in state.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        *state.non_finite.entry((block.tensor, k)).or_default() += count;
        broken = true;
    }
    if overflow > 0 {
        *state.overflow.entry(block.tensor).or_default() += overflow;
        broken = true;
    }
    broken
}

/// Names the first broken tensor, and in it an ingredient that is not finite before an overflow of the mean.
fn refuse_broken(plan: &Plan, folders: &[Folder], states: &[State]) -> Result<(), SoupError> {
    let mut non_finite: BTreeMap<(usize, usize), u64> = BTreeMap::new();
    let mut overflow: BTreeMap<usize, u64> = BTreeMap::new();
    for state in states {
        state.non_finite.iter().for_each(|(&key, count)| *non_finite.entry(key).or_default() += count);
        state.overflow.iter().for_each(|(&key, count)| *overflow.entry(key).or_default() += count);
    }
    let overflow = overflow.first_key_value();
    if let Some((&(tensor, k), &count)) = non_finite.first_key_value()
        && overflow.is_none_or(|(&other, _)| tensor <= other)
    {
        let path = plan.tensors[tensor].tensor.name.clone();
        return Err(SoupError::NonFiniteParameter { path, ingredient: folders[k].who.clone(), count });
    }
    match overflow {
        Some((&tensor, &count)) => {
            let planned = &plan.tensors[tensor];
            let dtype = planned.float.expect("only floats overflow");
            Err(SoupError::Overflow { path: planned.tensor.name.clone(), dtype, count })
        }
        None => Ok(()),
    }
}
