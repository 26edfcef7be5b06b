//! The pass over the data: read, merge, fingerprint, write.
//!
//! Tensors whose result is Σ_k c_k x_k with c known beforehand go through in one stream of blocks, as those of a soup do.
//! The others need norms or ranks of the whole tensor first: one tensor after the other is gone through several times, and
//! is still in the system's cache when its turn to be merged comes.

use std::collections::{BTreeMap, HashMap};
use std::ops::{ControlFlow, Range};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::error::{MergeError, MergeWarning};
use super::folders_error::FolderMergeError;
use super::method::Method;
use super::parameters::{MergeParameters, Parameter};
use super::pass::Part;
use super::plan::{MergePlan, Recipe, Work};
use super::{Bytes, TensorTask, Values};
use crate::checkpoint::Progress;
use crate::checkpoint::blocks::{BLOCK, Block, blocks, fingerprint, for_each_block, identity, read_block};
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

impl Seen {
    fn extend(&mut self, other: Self) {
        self.read.extend(other.read);
        self.written.extend(other.written);
    }
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
    let mut warnings = Vec::new();
    for (unusual, of_tensor) in runner.each(&whole)? {
        warnings.extend(unusual);
        seen.push(of_tensor);
    }
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

    /// Merges tensors one by one, each on all threads; neighbours of one block each, side by side.
    fn each(&self, tensors: &[usize]) -> Result<Vec<(Vec<MergeWarning>, Seen)>, FolderMergeError> {
        let small = |index: usize| self.plan.layout.tensors[index].tensor.values() <= BLOCK;
        let mut done = Vec::with_capacity(tensors.len());
        for run in tensors.chunk_by(|&a, &b| small(a) && small(b)) {
            match run {
                [only] => done.push(self.tensor(*only)?),
                run => {
                    let merged = run.par_iter().map(|&index| self.tensor(index));
                    done.extend(merged.collect::<Result<Vec<_>, _>>()?);
                }
            }
        }
        Ok(done)
    }

    fn tensor(&self, index: usize) -> Result<(Vec<MergeWarning>, Seen), FolderMergeError> {
        let (planned, recipe) = (&self.plan.layout.tensors[index], &self.plan.recipes[index]);
        let seen = Mutex::new(Seen::default());
        let read: Vec<Values<'_>> = planned
            .sources
            .iter()
            .zip(&recipe.models)
            .map(|(source, &model)| Values {
                dtype: source.float().expect("only floats are merged"),
                shape: &source.shape,
                bytes: Bytes::Folder(&self.plan.folders[model], source),
            })
            .collect();
        let gathered = match &recipe.rows {
            Some(rows) => {
                seen.lock().expect("nobody holds it yet").read = self.prints(planned, recipe)?;
                Some(rows.gather(&read)?)
            }
            None => None,
        };
        let values: Vec<Values<'_>> = match &gathered {
            Some(gathered) => gathered
                .iter()
                .map(|(dtype, bytes)| Values {
                    dtype: *dtype,
                    shape: &planned.tensor.shape,
                    bytes: Bytes::Memory(bytes),
                })
                .collect(),
            None => read,
        };
        let dtype = planned.float.expect("only floats are merged");
        // A tensor that is copied is passed through.
        let passed = MergeParameters::new(Method::Passthrough, 1);
        let parameters = match &recipe.work {
            Work::Merge(parameters) => parameters,
            Work::Copy | Work::Constant => &passed,
        };
        let (base, others): (Vec<usize>, Vec<usize>) =
            (0..values.len()).partition(|&position| Some(position) == recipe.base);
        let models: Vec<Values<'_>> = others.iter().map(|&position| values[position]).collect();
        let task = TensorTask {
            name: &planned.tensor.name,
            shape: &planned.tensor.shape,
            base: base.first().map(|&position| values[position]),
            models: &models,
            parameters,
            seed: self.seed,
        };
        let members: Vec<usize> = base.into_iter().chain(others).collect();
        let store = |range: Range<usize>, parts: &[Part<'_>], merged: &[u8]| {
            // While all of it is still in the cache.
            let chunk = self.see(index, &members, &range, parts, merged);
            seen.lock().expect("no thread panics while it holds this").extend(chunk);
            self.write(planned, (range.start * dtype.size()) as u64, merged)
        };
        let warnings = task.merge(dtype, &store).map_err(|source| match source {
            MergeError::Soup(source) => FolderMergeError::from(source),
            source => FolderMergeError::Method {
                tensor: planned.tensor.name.clone(),
                members: self.plan.members(recipe),
                source: Box::new(source),
            },
        })?;
        Ok((warnings, seen.into_inner().expect("no thread panics while it holds this")))
    }

    /// Fingerprints of a merged chunk and of what it was made of: the parts of `members`, by their places in the recipe.
    fn see(
        &self,
        index: usize,
        members: &[usize],
        range: &Range<usize>,
        parts: &[Part<'_>],
        merged: &[u8],
    ) -> Seen {
        let (planned, recipe) = (&self.plan.layout.tensors[index], &self.plan.recipes[index]);
        let block = |tensor| Block { tensor, start: range.start as u64, values: range.len() as u64 };
        let of_member = |(&member, part): (&usize, &Part<'_>)| {
            let model = recipe.models[member];
            let tensor = self.positions[model][planned.sources[member].name.as_str()];
            (model, block(tensor), fingerprint(part.bytes))
        };
        let read = match &recipe.rows {
            None => members.iter().zip(parts).map(of_member).collect(),
            // Rows that were rearranged are none of the model's.
            Some(_) => Vec::new(),
        };
        Seen { read, written: vec![(block(index), fingerprint(merged))] }
    }

    /// Fingerprints of the tensors that one of the result is made of.
    fn prints(
        &self,
        planned: &Planned,
        recipe: &Recipe,
    ) -> Result<Vec<(usize, Block, u128)>, FolderMergeError> {
        type State = (Vec<u8>, Vec<(usize, Block, u128)>);
        let mut prints = Vec::new();
        for (source, &model) in planned.sources.iter().zip(&recipe.models) {
            let tensor = self.positions[model][source.name.as_str()];
            let blocks = blocks(std::iter::once(source.values()));
            let states = for_each_block(&blocks, |_, block, (buffer, prints): &mut State| {
                read_block(&self.plan.folders[model], source, block, buffer)?;
                prints.push((model, Block { tensor, ..*block }, fingerprint(buffer)));
                Ok::<_, SoupError>(())
            })?;
            prints.extend(states.into_iter().flat_map(|(_, prints)| prints));
        }
        Ok(prints)
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
