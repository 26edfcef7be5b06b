//! The pass over the data: read, merge, fingerprint, write.
//!
//! Tensors whose result is Σ_k c_k x_k with c known beforehand go through in blocks, as those of a soup do: a few hundred
//! KiB for each model and thread. The others need norms, ranks or signs of the whole tensor and go through in lanes.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::MergeWarning;
use super::folders_error::FolderMergeError;
use super::lanes::{Buffers, in_lanes};
use super::method::Method;
use super::parameters::{MergeParameters, Parameter};
use super::plan::{MergePlan, Recipe, Work};
use super::{TensorTask, Values};
use crate::checkpoint::Progress;
use crate::checkpoint::blocks::{Block, blocks, fingerprint, for_each_block, identity, read_block};
use crate::checkpoint::open::TensorEntry;
use crate::checkpoint::plan::Planned;
use crate::checkpoint::stream::Output;
use crate::error::SoupError;
use crate::mix::{FloatDtype, Source, mix};

/// What the pass learned.
pub(crate) struct Merged {
    /// Identity of the result's weights.
    pub(crate) result: String,
    /// Identity of each model's weights, of those that were read to the last tensor.
    pub(crate) models: Vec<Option<String>>,
    pub(crate) warnings: Vec<MergeWarning>,
}

/// Fingerprints of what was read and written; a block's `tensor` is a position in its folder or in the plan.
#[derive(Default)]
struct Seen {
    /// Of each model.
    read: Vec<(usize, Block, u128)>,
    written: Vec<(Block, u128)>,
}

/// Merges every tensor of `plan` into `outputs`.
pub(crate) fn run(
    plan: &MergePlan,
    outputs: &[Output],
    seed: u64,
    observe: &(dyn Fn(Progress) -> ControlFlow<()> + Sync),
) -> Result<Merged, FolderMergeError> {
    let runner = Runner {
        plan,
        outputs,
        seed,
        observe,
        done: AtomicU64::new(0),
        positions: plan
            .folders
            .iter()
            .map(|folder| {
                folder.tensors.iter().enumerate().map(|(index, t)| (t.name.as_str(), index)).collect()
            })
            .collect(),
    };
    let (streamed, whole): (Vec<usize>, Vec<usize>) =
        (0..plan.recipes.len()).partition(|&index| coefficients(&plan.recipes[index]).is_some());
    let mut seen = runner.stream(&streamed)?;
    let (warnings, of_whole) = runner.lanes(&whole)?;
    seen.extend(of_whole);
    let written: Vec<(Block, u128)> = seen.iter().flat_map(|seen| &seen.written).copied().collect();
    let results: Vec<TensorEntry> =
        plan.layout.tensors.iter().map(|planned| planned.tensor.clone()).collect();
    Ok(Merged {
        result: identity(&results, &written),
        models: (0..plan.folders.len()).map(|model| runner.model_identity(model, &seen)).collect(),
        warnings,
    })
}

/// c of Σ_k c_k x_k, where it is known before the tensors are read and rows stay where they are.
fn coefficients(recipe: &Recipe) -> Option<Vec<f64>> {
    if recipe.rows.is_some() {
        return None;
    }
    let coefficients = match &recipe.work {
        Work::Copy | Work::Constant => vec![1.0],
        Work::Merge(parameters) => linear_coefficients(parameters)?,
    };
    // A sum without terms is the method's to make.
    coefficients.iter().any(|c| *c != 0.0).then_some(coefficients)
}

fn linear_coefficients(parameters: &MergeParameters) -> Option<Vec<f64>> {
    match parameters.method() {
        Method::Linear => Some(parameters.normalized_weights()),
        Method::Passthrough => Some(parameters.numbers(Parameter::Scale)),
        _ => None,
    }
}

struct Runner<'a> {
    plan: &'a MergePlan,
    outputs: &'a [Output],
    seed: u64,
    observe: &'a (dyn Fn(Progress) -> ControlFlow<()> + Sync),
    /// Bytes written.
    done: AtomicU64,
    /// Of each model, where its tensors stand in its folder.
    positions: Vec<HashMap<&'a str, usize>>,
}

impl Runner<'_> {
    /// Merges tensors block by block.
    fn stream(&self, tensors: &[usize]) -> Result<Vec<Seen>, SoupError> {
        #[derive(Default)]
        struct State {
            inputs: Vec<Vec<u8>>,
            output: Vec<u8>,
            seen: Seen,
        }
        let blocks = blocks(tensors.iter().map(|&index| self.plan.layout.tensors[index].tensor.values()));
        let states = for_each_block(&blocks, |_, block, state: &mut State| {
            let index = tensors[block.tensor];
            let (planned, recipe) = (&self.plan.layout.tensors[index], &self.plan.recipes[index]);
            state.inputs.resize_with(planned.sources.len(), Vec::new);
            for ((source, &model), input) in planned.sources.iter().zip(&recipe.models).zip(&mut state.inputs)
            {
                read_block(&self.plan.folders[model], source, block, input)?;
                let tensor = self.positions[model][source.name.as_str()];
                state.seen.read.push((model, Block { tensor, ..*block }, fingerprint(input)));
            }
            match planned.float {
                Some(dtype) => {
                    let coefficients = coefficients(recipe).expect("such tensors were chosen");
                    let broken = mix_block(planned, &coefficients, &state.inputs, dtype, &mut state.output);
                    if broken.iter().any(|count| *count > 0) {
                        return Err(self.broken(index)?);
                    }
                }
                None => {
                    if let Some(other) = state.inputs.iter().position(|input| *input != state.inputs[0]) {
                        let ingredient = self.plan.folders[recipe.models[other]].who.clone();
                        return Err(SoupError::ConstantDiffers {
                            path: planned.tensor.name.clone(),
                            ingredient,
                        });
                    }
                    state.output.clone_from(&state.inputs[0]);
                }
            }
            state.seen.written.push((Block { tensor: index, ..*block }, fingerprint(&state.output)));
            let size = planned.tensor.dtype.bitsize() as u64 / 8;
            self.write(planned, block.start * size, &state.output)
        })?;
        Ok(states.into_iter().map(|state| state.seen).collect())
    }

    /// The error about a tensor with values that are not finite, all of them counted.
    fn broken(&self, index: usize) -> Result<SoupError, SoupError> {
        let (planned, recipe) = (&self.plan.layout.tensors[index], &self.plan.recipes[index]);
        let dtype = planned.float.expect("only floats are mixed");
        let coefficients = coefficients(recipe).expect("such tensors are streamed");
        let mut inputs = vec![Vec::new(); planned.sources.len()];
        let (mut counts, mut output) = (vec![0; inputs.len() + 1], Vec::new());
        for block in blocks(std::iter::once(planned.tensor.values())) {
            for ((source, &model), input) in planned.sources.iter().zip(&recipe.models).zip(&mut inputs) {
                read_block(&self.plan.folders[model], source, &block, input)?;
            }
            let found = mix_block(planned, &coefficients, &inputs, dtype, &mut output);
            counts.iter_mut().zip(found).for_each(|(count, found)| *count += found);
        }
        let (path, overflow) = (planned.tensor.name.clone(), counts.pop().unwrap_or_default());
        Ok(match counts.iter().position(|count| *count > 0) {
            Some(source) => {
                let ingredient = self.plan.folders[recipe.models[source]].who.clone();
                SoupError::NonFiniteParameter { path, ingredient, count: counts[source] }
            }
            None => SoupError::Overflow { path, dtype, count: overflow },
        })
    }

    /// Merges tensors as wholes.
    fn lanes(&self, tensors: &[usize]) -> Result<(Vec<MergeWarning>, Vec<Seen>), FolderMergeError> {
        let needs: Vec<u64> = tensors.iter().map(|&index| self.need(index)).collect();
        let lanes = (rayon::current_num_threads() / 2 + 2).min(8);
        let results = Mutex::new(Vec::new());
        in_lanes(&needs, lanes, |position, buffers| -> Result<(), FolderMergeError> {
            let result = self.whole(tensors[position], buffers)?;
            results.lock().expect("no lane panics while it holds this").push((position, result));
            Ok(())
        })?;
        let mut results = results.into_inner().expect("all lanes have ended");
        results.sort_by_key(|(position, _)| *position);
        let (warnings, seen): (Vec<_>, Vec<_>) = results.into_iter().map(|(_, result)| result).unzip();
        Ok((warnings.into_iter().flatten().collect(), seen))
    }

    /// Bytes that are in hand while a tensor is merged.
    fn need(&self, index: usize) -> u64 {
        let planned = &self.plan.layout.tensors[index];
        let read: u64 = planned.sources.iter().map(|source| source.bytes).sum();
        // Rearranged rows stand beside those that were read.
        let gathered = match self.plan.recipes[index].rows {
            Some(_) => planned.sources.len() as u64 * planned.tensor.values() * 4,
            None => 0,
        };
        read + gathered + planned.tensor.bytes
    }

    fn whole(&self, index: usize, buffers: &Buffers) -> Result<(Vec<MergeWarning>, Seen), FolderMergeError> {
        let (planned, recipe) = (&self.plan.layout.tensors[index], &self.plan.recipes[index]);
        let mut seen = Seen::default();
        let mut inputs = Vec::with_capacity(planned.sources.len());
        for (source, &model) in planned.sources.iter().zip(&recipe.models) {
            let mut input = buffers.take(source.bytes as usize);
            let tensor = self.positions[model][source.name.as_str()];
            let read = in_parts(&mut input, source, |block, start, bytes| -> Result<_, SoupError> {
                self.plan.folders[model].read(source, start, bytes)?;
                // While it is still in the cache.
                Ok((model, Block { tensor, ..block }, fingerprint(bytes)))
            })?;
            seen.read.extend(read);
            inputs.push(input);
        }
        let dtypes = planned.sources.iter().map(|source| source.float().expect("only floats are merged"));
        let dtypes: Vec<FloatDtype> = dtypes.collect();
        let read: Vec<Values<'_>> = planned
            .sources
            .iter()
            .zip(&dtypes)
            .zip(&inputs)
            .map(|((source, &dtype), bytes)| Values { dtype, shape: &source.shape, bytes })
            .collect();
        let gathered = recipe.rows.as_ref().map(|rows| rows.gather(&read));
        let values: Vec<Values<'_>> = match &gathered {
            Some(gathered) => gathered
                .iter()
                .map(|(dtype, bytes)| Values { dtype: *dtype, shape: &planned.tensor.shape, bytes })
                .collect(),
            None => read,
        };
        let dtype = planned.float.expect("only floats are merged");
        let mut out = buffers.take(planned.tensor.bytes as usize);
        let warnings = match &recipe.work {
            Work::Merge(parameters) => {
                let (base, models) = apart(&values, recipe.base);
                let task = TensorTask {
                    name: &planned.tensor.name,
                    shape: &planned.tensor.shape,
                    base,
                    models: &models,
                    parameters,
                    seed: self.seed,
                };
                task.merge(dtype, &mut out).map_err(|source| FolderMergeError::Method {
                    tensor: planned.tensor.name.clone(),
                    members: self.plan.members(recipe),
                    source: Box::new(source),
                })?
            }
            Work::Copy | Work::Constant => {
                self.convert(planned, recipe, &values[0], dtype, &mut out)?;
                Vec::new()
            }
        };
        seen.written = in_parts(&mut out, &planned.tensor, |block, start, bytes| -> Result<_, SoupError> {
            let print = fingerprint(bytes);
            self.write(planned, start, bytes)?;
            Ok((Block { tensor: index, ..block }, print))
        })?;
        drop(gathered);
        inputs.into_iter().chain([out]).for_each(|buffer| buffers.give(buffer));
        Ok((warnings, seen))
    }

    /// Copies values into the type of the result.
    fn convert(
        &self,
        planned: &Planned,
        recipe: &Recipe,
        values: &Values<'_>,
        dtype: FloatDtype,
        out: &mut [u8],
    ) -> Result<(), SoupError> {
        let source = Source { dtype: values.dtype, bytes: values.bytes, weight: 1.0 };
        let mut non_finite = [0];
        let overflow = mix(&[source], dtype, out, &mut non_finite);
        let path = || planned.tensor.name.clone();
        if non_finite[0] > 0 {
            let ingredient = self.plan.folders[recipe.models[0]].who.clone();
            return Err(SoupError::NonFiniteParameter { path: path(), ingredient, count: non_finite[0] });
        }
        match overflow {
            0 => Ok(()),
            count => Err(SoupError::Overflow { path: path(), dtype, count }),
        }
    }

    /// Writes a part of a tensor and says so.
    fn write(&self, planned: &Planned, start: u64, bytes: &[u8]) -> Result<(), SoupError> {
        let output = &self.outputs[planned.shard];
        output.write_at(bytes, output.data_start + planned.offset + start)?;
        let done = self.done.fetch_add(bytes.len() as u64, Ordering::Relaxed) + bytes.len() as u64;
        match (self.observe)(Progress { done, total: self.plan.bytes() }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(SoupError::Interrupted),
        }
    }

    /// Identity of a model's weights, if every tensor of it was read.
    fn model_identity(&self, model: usize, seen: &[Seen]) -> Option<String> {
        let tensors = &self.plan.folders[model].tensors;
        let mut prints: BTreeMap<(usize, u64), (Block, u128)> = BTreeMap::new();
        for (_, block, print) in seen.iter().flat_map(|seen| &seen.read).filter(|(of, ..)| *of == model) {
            prints.insert((block.tensor, block.start), (*block, *print));
        }
        let complete =
            |(index, tensor): (usize, &TensorEntry)| tensor.values() == 0 || prints.contains_key(&(index, 0));
        tensors
            .iter()
            .enumerate()
            .all(complete)
            .then(|| identity(tensors, &prints.into_values().collect::<Vec<_>>()))
    }
}

/// Mixes a block into `output`; returns how many values are not finite in each source, and how many results.
fn mix_block(
    planned: &Planned,
    coefficients: &[f64],
    inputs: &[Vec<u8>],
    dtype: FloatDtype,
    output: &mut Vec<u8>,
) -> Vec<u64> {
    let sources: Vec<Source<'_>> = planned
        .sources
        .iter()
        .zip(inputs)
        .zip(coefficients)
        .map(|((source, bytes), &weight)| Source {
            dtype: source.float().expect("only floats are mixed"),
            bytes,
            weight,
        })
        .collect();
    let values = sources[0].bytes.len() / sources[0].dtype.size();
    output.resize(values * dtype.size(), 0);
    let mut counts = vec![0; sources.len()];
    let overflow = mix(&sources, dtype, output, &mut counts);
    counts.push(overflow);
    counts
}

/// The base, and the models without it.
fn apart<'a>(values: &[Values<'a>], base: Option<usize>) -> (Option<Values<'a>>, Vec<Values<'a>>) {
    let models = values.iter().enumerate().filter(|(position, _)| Some(*position) != base);
    (base.map(|base| values[base]), models.map(|(_, values)| *values).collect())
}

/// Bytes for which a thread of its own is worth while.
const PART: usize = 4 << 20;

/// Does `work` with every block of a tensor whose bytes are given: its place, where it starts, and its bytes. A large tensor is
/// read or written by several threads, which are none of the pool's: those would wait for a disk instead of computing.
///
/// Results are in the order of the blocks. Of several errors one is returned.
fn in_parts<T: Send, E: Send>(
    bytes: &mut [u8],
    tensor: &TensorEntry,
    work: impl Fn(Block, u64, &mut [u8]) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let size = tensor.dtype.bitsize() / 8;
    let blocks = blocks(std::iter::once(tensor.values()));
    let threads = (bytes.len() / PART).clamp(1, rayon::current_num_threads());
    let per_thread = blocks.len().div_ceil(threads).max(1);
    let of_part = |part: &[Block], mut bytes: &mut [u8]| -> Result<Vec<T>, E> {
        let mut done = Vec::with_capacity(part.len());
        for block in part {
            let (own, rest) = bytes.split_at_mut(block.values as usize * size);
            bytes = rest;
            done.push(work(*block, block.start * size as u64, own)?);
        }
        Ok(done)
    };
    if blocks.len() <= per_thread {
        return of_part(&blocks, bytes);
    }
    std::thread::scope(|scope| {
        let mut rest = bytes;
        let mut parts = Vec::with_capacity(threads);
        for part in blocks.chunks(per_thread) {
            let values: u64 = part.iter().map(|block| block.values).sum();
            let (own, others) = rest.split_at_mut(values as usize * size);
            rest = others;
            let of_part = &of_part;
            parts.push(scope.spawn(move || of_part(part, own)));
        }
        let mut done = Vec::with_capacity(blocks.len());
        for part in parts {
            done.extend(part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(done)
    })
}
