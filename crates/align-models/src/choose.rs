//! Which prompts an iteration answers.

use align_core::draws::{Draws, Purpose};
use rand::seq::SliceRandom;

use crate::generate::Prompt;

/// The prompts of one iteration, as a pure function of the seed and the iteration.
///
/// The pool is gone through in a new order each time; where an iteration needs more prompts than there are, a prompt that
/// comes up again gets a key of its own, so that it is answered anew.
///
/// # Panics
/// If the pool is empty.
pub fn choose_prompts(draws: &Draws, pool: &[Vec<u32>], iteration: u64, count: usize) -> Vec<Prompt> {
    let size = pool.len() as u64;
    let first = iteration * count as u64;
    let first_pass = first / size;
    let mut order: Option<(u64, Vec<usize>)> = None;
    (first..first + count as u64)
        .map(|place| {
            let pass = place / size;
            if order.as_ref().is_none_or(|(of, _)| *of != pass) {
                let mut indices: Vec<usize> = (0..pool.len()).collect();
                indices.shuffle(&mut draws.generator(Purpose::Shuffle, pass));
                order = Some((pass, indices));
            }
            let index = order.as_ref().expect("set above").1[(place % size) as usize];
            Prompt { key: index as u64 + size * (pass - first_pass), ids: pool[index].clone() }
        })
        .collect()
}
