//! Work on tensors in blocks, on every thread of the pool.
//!
//! A block is read, worked on and written by one thread, so reading, arithmetic and writing of different blocks
//! overlap, and memory is a few blocks per thread whatever the size of the models.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_128;

use super::open::{Folder, TensorEntry};
use crate::error::SoupError;
use crate::mix::decode_into;
use crate::task_vector::{Sums, TaskVectors};

/// Values of a block: what two ingredients and the result take of it stays in the second-level cache.
pub(crate) const BLOCK: u64 = 1 << 16;

/// A piece of a tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    /// Position of the tensor in the plan.
    pub(crate) tensor: usize,
    /// First value.
    pub(crate) start: u64,
    /// Number of values.
    pub(crate) values: u64,
}

impl Block {
    /// Positions of its values in the tensor.
    pub(crate) fn range(&self) -> Range<usize> {
        self.start as usize..(self.start + self.values) as usize
    }
}

/// All blocks of tensors with so many values, in order.
pub(crate) fn blocks(tensors: impl Iterator<Item = u64>) -> Vec<Block> {
    tensors
        .enumerate()
        .flat_map(|(tensor, total)| {
            (0..total).step_by(BLOCK as usize).map(move |start| Block {
                tensor,
                start,
                values: BLOCK.min(total - start),
            })
        })
        .collect()
}

/// Reads a block of a tensor into `buffer`, resized to fit.
pub(crate) fn read_block(
    folder: &Folder,
    tensor: &TensorEntry,
    block: &Block,
    buffer: &mut Vec<u8>,
) -> Result<(), SoupError> {
    let size = tensor.dtype.bitsize() as u64 / 8;
    buffer.resize((block.values * size) as usize, 0);
    folder.read(tensor, block.start * size, buffer)
}

/// Hands the blocks to all threads of the pool, in order; each thread keeps a state of its own. The first error stops
/// all threads. A single block is the calling thread's.
pub(crate) fn for_each_block<S: Default + Send, E: Send>(
    blocks: &[Block],
    work: impl Fn(usize, &Block, &mut S) -> Result<(), E> + Sync,
) -> Result<Vec<S>, E> {
    if let [only] = blocks {
        let mut state = S::default();
        work(0, only, &mut state)?;
        return Ok(vec![state]);
    }
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    rayon::broadcast(|_| {
        let mut state = S::default();
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(block) = blocks.get(index) else { break };
            if let Err(error) = work(index, block, &mut state) {
                stop.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(state)
    })
    .into_iter()
    .collect()
}

/// Lanes of a fingerprint: enough that its multiplications overlap.
const HASH_LANES: usize = 64;
/// An odd multiplier, so that no step of a lane forgets (the first prime of xxHash32).
const MULTIPLIER: u32 = 0x9e37_79b1;

/// Fingerprint of a block's bytes: 64 interleaved polynomials modulo 2³² over its words, then xxh3 over these, the
/// remaining bytes and the length. A change of one word always changes the lanes, and the whole runs at the speed of
/// the cache, several times that of xxh3 compiled for the oldest vector instructions.
pub(crate) fn fingerprint(bytes: &[u8]) -> u128 {
    struct Lanes<'a>(&'a [[u8; 4 * HASH_LANES]]);
    impl pulp::WithSimd for Lanes<'_> {
        type Output = [u32; HASH_LANES];

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) -> Self::Output {
            let mut lanes = [0u32; HASH_LANES];
            for words in self.0 {
                for (lane, word) in lanes.iter_mut().zip(words.as_chunks().0) {
                    *lane = lane.wrapping_mul(MULTIPLIER).wrapping_add(u32::from_le_bytes(*word));
                }
            }
            lanes
        }
    }
    let (rows, rest) = bytes.as_chunks();
    let lanes = pulp::Arch::new().dispatch(Lanes(rows));
    let mut summary: Vec<u8> = lanes.iter().flat_map(|lane| lane.to_le_bytes()).collect();
    summary.extend_from_slice(rest);
    summary.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    xxh3_128(&summary)
}

/// The identity of a set of weights: SHA-256 over each tensor's name, type, shape and block fingerprints, by name.
/// Sharding, order in the file, metadata and configuration do not enter.
///
/// The fingerprints are fast checksums: they tell models apart, they do not resist an adversary.
pub(crate) fn identity(tensors: &[TensorEntry], fingerprints: &[(Block, u128)]) -> String {
    let mut of_tensor: Vec<Vec<(u64, u128)>> = vec![Vec::new(); tensors.len()];
    for (block, fingerprint) in fingerprints {
        of_tensor[block.tensor].push((block.start, *fingerprint));
    }
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by(|&a, &b| tensors[a].name.cmp(&tensors[b].name));
    let mut hash = Sha256::new();
    for index in order {
        let tensor = &tensors[index];
        let description = format!("{:?} {} {:?}\n", tensor.name, tensor.dtype, tensor.shape);
        hash.update(description.as_bytes());
        of_tensor[index].sort_unstable();
        for (_, fingerprint) in &of_tensor[index] {
            hash.update(fingerprint.to_le_bytes());
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The identity of a folder's weights, as recorded for the ingredients of a soup and expected as `ancestor`.
pub(crate) fn folder_identity(folder: &Folder) -> Result<String, SoupError> {
    #[derive(Default)]
    struct State {
        buffer: Vec<u8>,
        fingerprints: Vec<(Block, u128)>,
    }
    let blocks = blocks(folder.tensors.iter().map(TensorEntry::values));
    let states = for_each_block(&blocks, |_, block, state: &mut State| {
        read_block(folder, &folder.tensors[block.tensor], block, &mut state.buffer)?;
        state.fingerprints.push((*block, fingerprint(&state.buffer)));
        Ok::<_, SoupError>(())
    })?;
    let fingerprints: Vec<(Block, u128)> = states.into_iter().flat_map(|state| state.fingerprints).collect();
    Ok(identity(&folder.tensors, &fingerprints))
}

/// Compares the task vectors of two folders with the same tensors as `base`.
pub(crate) fn folder_task_vectors(base: &Folder, tuned: [&Folder; 2]) -> Result<TaskVectors, SoupError> {
    #[derive(Default)]
    struct State {
        buffer: Vec<u8>,
        values: [Vec<f64>; 3],
        /// Kept by block and added in order: the sum must not depend on which thread took which block.
        sums: Vec<(usize, Sums)>,
    }
    let floats: Vec<&TensorEntry> = base.tensors.iter().filter(|tensor| tensor.float().is_some()).collect();
    let blocks = blocks(floats.iter().map(|tensor| tensor.values()));
    let states = for_each_block(&blocks, |index, block, state: &mut State| {
        for (folder, values) in [base, tuned[0], tuned[1]].into_iter().zip(&mut state.values) {
            let tensor = folder.tensor(&floats[block.tensor].name).expect("tensors were compared");
            read_block(folder, tensor, block, &mut state.buffer)?;
            decode_into(tensor.float().expect("types were compared"), &state.buffer, values);
        }
        let mut sums = Sums::default();
        sums.add(&state.values[0], &state.values[1], &state.values[2]);
        state.sums.push((index, sums));
        Ok::<_, SoupError>(())
    })?;
    let mut sums: Vec<(usize, Sums)> = states.into_iter().flat_map(|state| state.sums).collect();
    sums.sort_unstable_by_key(|(index, _)| *index);
    Ok(sums.into_iter().fold(Sums::default(), |total, (_, sums)| total.merge(sums)).into())
}
