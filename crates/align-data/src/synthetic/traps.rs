//! A world of rare traps: texts of twelve words, some of which nobody has seen often enough to know that they are bad.
//!
//! 40 words: 16 common ones and 24 rare ones ("traps") of probability 0.001 each or less; the words of a text are drawn apart from one
//! another. With c the counts of the words in a text, gold is `w·c + cᵀQc/√12`, brought to mean 0 and deviation 1: common words
//! have moderate weights, a trap a large negative one. A reward model trained on a thousand pairs sees each trap some two dozen
//! times, so what it thinks of one is decided by its initial weights: members of an ensemble differ in exactly what a policy that
//! is pushed against one of them finds.
//!
//! Prompts are one word out of 32 and mean nothing. A word that is none of the 40 weighs as a trap, and every word that a text has
//! too few or too many half as much.
//!
//! # Source
//! The mechanism is that of Coste et al. 2023, section 4, <https://arxiv.org/abs/2310.02743>; the world is ours.

use std::path::Path;

use align_core::draws::{Draws, Purpose};
use align_core::{Completions, Reward};
use burn::tensor::{Tensor, TensorData};

use super::words::{SPECIALS, write_plain_tokenizer};

/// How many words a text is made of.
const WORDS: usize = 40;
/// How many of them are common; the rest are traps.
const COMMON: usize = 16;
/// How many prompts there are.
const PROMPTS: usize = 32;
/// Words of a text.
const LENGTH: usize = 12;
/// The weight of a trap in gold, before it is standardised.
const TRAP_WEIGHT: f64 = -10.0;
/// The weight of a word too few or too many.
const LENGTH_WEIGHT: f64 = TRAP_WEIGHT / 2.0;
/// Texts that gold is standardised on.
const REFERENCE: u64 = 20_000;
/// Token id of the first word.
const FIRST: u32 = SPECIALS.len() as u32;
/// Token id of what ends a text.
const END: u32 = FIRST - 1;

/// A world: what is good in it.
///
/// # Examples
/// ```
/// use align_data::synthetic::TrapWorld;
///
/// let world = TrapWorld::new(0);
/// let text = world.text(0, 0);
/// assert_eq!(text.len(), TrapWorld::LENGTH);
/// // A trap in the place of a common word.
/// let trapped = [&[TrapWorld::COMMON as u32], &text[1..]].concat();
/// assert!(world.gold(&trapped) < world.gold(&text) - 1.0);
/// ```
#[derive(Clone, Debug)]
pub struct TrapWorld {
    draws: Draws,
    weights: Vec<f64>,
    interactions: Vec<f64>,
    mean: f64,
    deviation: f64,
    rarity: f64,
}

impl TrapWorld {
    /// How many words there are; texts are lists of numbers below it.
    pub const WORDS: usize = WORDS;
    /// How many of the words are common; numbers from here on are traps.
    pub const COMMON: usize = COMMON;
    /// How many prompts there are.
    pub const PROMPTS: usize = PROMPTS;
    /// How many words a text has.
    pub const LENGTH: usize = LENGTH;

    /// The probability of each trap, unless one says otherwise.
    pub const RARITY: f64 = 0.001;

    /// The world of a seed.
    pub fn new(seed: u64) -> Self {
        Self::with_rarity(seed, Self::RARITY)
    }

    /// The world of a seed in which each trap has this probability.
    ///
    /// # Panics
    /// If the traps together have more than half of it.
    pub fn with_rarity(seed: u64, rarity: f64) -> Self {
        let together = (WORDS - COMMON) as f64 * rarity;
        assert!((0.0..=0.5).contains(&together), "rarity: expected 0 to {}, found {rarity}", 0.5 / 24.0);
        let draws = Draws::new(seed).child(u64::from_le_bytes(*b"glitches"));
        let normal = |which: u64, index: usize| draws.normal(Purpose::Initialize, which, index as u64);
        let weights =
            (0..WORDS).map(|word| if word < COMMON { 0.6 * normal(0, word) } else { TRAP_WEIGHT }).collect();
        let half: Vec<f64> = (0..WORDS * WORDS).map(|at| 0.156 * normal(1, at)).collect();
        // The mean of a matrix and its transpose: deviation 0.11 off the diagonal.
        let interactions =
            (0..WORDS * WORDS).map(|at| (half[at] + half[at % WORDS * WORDS + at / WORDS]) / 2.0).collect();
        let mut world = Self { draws, weights, interactions, mean: 0.0, deviation: 1.0, rarity };
        let raw: Vec<f64> = (0..REFERENCE).map(|index| world.gold(&world.text(u64::MAX, index))).collect();
        world.mean = raw.iter().sum::<f64>() / raw.len() as f64;
        world.deviation =
            (raw.iter().map(|gold| (gold - world.mean).powi(2)).sum::<f64>() / raw.len() as f64).sqrt();
        world
    }

    /// Text number `index` of a set: word numbers, each drawn by itself.
    pub fn text(&self, set: u64, index: u64) -> Vec<u32> {
        let rare_mass = (WORDS - COMMON) as f64 * self.rarity;
        (0..LENGTH as u32)
            .map(|position| {
                let u = self.draws.token(Purpose::Synthesize, set, index, 0, position);
                let word = if u < rare_mass {
                    COMMON as f64 + u / self.rarity
                } else {
                    (u - rare_mass) / (1.0 - rare_mass) * COMMON as f64
                };
                (word as u32).min(if u < rare_mass { WORDS as u32 - 1 } else { COMMON as u32 - 1 })
            })
            .collect()
    }

    /// What is meant: mean 0 and deviation 1 over the texts of this world.
    pub fn gold(&self, text: &[u32]) -> f64 {
        let words = || text.iter().map(|&word| word as usize).filter(|word| *word < WORDS);
        let linear: f64 = words().map(|word| self.weights[word]).sum();
        let pairs: f64 = words()
            .flat_map(|a| words().map(move |b| (a, b)))
            .map(|(a, b)| self.interactions[a * WORDS + b])
            .sum();
        let strange = (text.len() - words().count()) as f64 * TRAP_WEIGHT;
        let off = text.len().abs_diff(LENGTH) as f64 * LENGTH_WEIGHT;
        let raw = linear + pairs / (LENGTH as f64).sqrt() + strange + off;
        (raw - self.mean) / self.deviation
    }

    /// Pairs of texts labelled by gold, the better one first.
    pub fn pairs(&self, count: usize) -> Vec<[Vec<u32>; 2]> {
        (0..count as u64)
            .map(|index| {
                let [a, b] = [0, 1].map(|set| self.text(set, index));
                if self.gold(&a) > self.gold(&b) { [a, b] } else { [b, a] }
            })
            .collect()
    }

    /// A text as its words.
    pub fn words(text: &[u32]) -> String {
        let words: Vec<String> = text.iter().map(|&word| word_of(word as usize)).collect();
        words.join(" ")
    }

    /// A prompt, the same one again after 32.
    pub fn prompt(index: usize) -> String {
        format!("{} q{}", SPECIALS[0], index % PROMPTS)
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json`, a token a word, as transformers reads them.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write_tokenizer(folder: &Path) -> std::io::Result<()> {
        let words: Vec<String> =
            (0..WORDS).map(word_of).chain((0..PROMPTS).map(|index| format!("q{index}"))).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        write_plain_tokenizer(folder, &words, 32)
    }
}

/// `c0` to `c15` are common, `t0` to `t23` traps.
fn word_of(number: usize) -> String {
    match number.checked_sub(COMMON) {
        None => format!("c{number}"),
        Some(trap) => format!("t{trap}"),
    }
}

/// Gold of completions in the world's tokens. What stands after the end of a text does not count.
impl Reward for TrapWorld {
    fn score(&self, completions: &Completions) -> Tensor<1> {
        let scores: Vec<f32> = completions
            .response
            .rows()
            .iter()
            .map(|row| {
                let text: Vec<u32> = row
                    .iter()
                    .take_while(|id| **id != END)
                    // A special token is none of the words.
                    .map(|id| id.checked_sub(FIRST).unwrap_or(u32::MAX))
                    .collect();
                self.gold(&text) as f32
            })
            .collect();
        let device = completions.response.ids.device().without_autodiff();
        let count = scores.len();
        Tensor::from_data(TensorData::new(scores, [count]), &device)
    }
}
