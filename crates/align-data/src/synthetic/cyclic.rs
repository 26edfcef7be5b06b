//! A world whose preferences are no order: rock, paper and scissors, said well or badly.
//!
//! A prompt is one of four words x = 0..3; an answer is two words, a ∈ {rock, paper, scissors} and b ∈ {good, fair, poor}, numbered
//! 0 to 2. With `C = [[0, 1, −1], [−1, 0, 1], [1, −1, 0]]`, `q = (½, 0, −½)` and `s_x = +1` for even x, −1 for odd,
//!
//! ```text
//! log-odds(y ≻ y') = s_x ln(9) C[(a − x) mod 3, (a' − x) mod 3] + q[(b + x) mod 3] − q[(b' + x) mod 3]
//! ```
//!
//! The first words beat one another in a circle, nine times out of ten; the second words have an order. No score explains the
//! first, so a reward model can learn the second alone. What is no such answer loses to one that is.
//!
//! # Source
//! Specification of INPO, section 8, experiment E2.

use std::path::Path;

use align_core::draws::{Draws, Purpose};
use align_core::{Completions, Preference};
use burn::tensor::{Tensor, TensorData};

use super::words::{SPECIALS, write_plain_tokenizer};

const PROMPTS: [&str; 4] = ["north", "east", "south", "west"];
const FIRST: [&str; 3] = ["rock", "paper", "scissors"];
const SECOND: [&str; 3] = ["good", "fair", "poor"];
/// Token id of the first prompt; the others follow, then the words of answers.
const OFFSET: u32 = SPECIALS.len() as u32;
/// Who beats whom.
const CIRCLE: [[f64; 3]; 3] = [[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]];
const QUALITY: [f64; 3] = [0.5, 0.0, -0.5];
/// The log-odds by which an answer beats what is none.
const VALID: f64 = 5.0;

/// How the demonstrator chooses: its first word by (a − x) mod 3, its second by b.
const REFERENCE: [[f64; 3]; 2] = [[0.6, 0.3, 0.1], [0.5, 0.3, 0.2]];

/// The world. There is only one; `draws` decide its demonstrations.
///
/// # Examples
/// ```
/// use align_data::synthetic::CyclicWorld;
///
/// let beats = |a, b| CyclicWorld::preference(0, (a, 0), (b, 0)) > 0.5;
/// assert!(beats(0, 1) && beats(1, 2) && beats(2, 0)); // a circle
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct CyclicWorld;

/// The two words of an answer, by number.
type Answer = (usize, usize);

impl CyclicWorld {
    /// How many prompts there are.
    pub const PROMPTS: usize = PROMPTS.len();

    /// P(first ≻ second) after prompt x.
    pub fn preference(x: usize, first: Answer, second: Answer) -> f64 {
        sigmoid(Self::log_odds(x, first, second))
    }

    fn log_odds(x: usize, (a, b): Answer, (other_a, other_b): Answer) -> f64 {
        let sign = if x.is_multiple_of(2) { 1.0 } else { -1.0 };
        let place = |word: usize| (word + 2 * x) % 3; // (a − x) mod 3
        let quality = |word: usize| QUALITY[(word + x) % 3];
        sign * 9.0_f64.ln() * CIRCLE[place(a)][place(other_a)] + quality(b) - quality(other_b)
    }

    /// The probability that the demonstrator gives an answer.
    pub fn demonstrated(x: usize, (a, b): Answer) -> f64 {
        REFERENCE[0][(a + 2 * x) % 3] * REFERENCE[1][b]
    }

    /// Demonstration number `row`: the prompt and its answer, as text.
    pub fn demonstration(draws: &Draws, row: usize) -> (String, String) {
        let x = row % PROMPTS.len();
        let mut mass = draws.token(Purpose::Synthesize, 0, row as u64, 0, 0);
        let answers = (0..9).map(|at| (at / 3, at % 3));
        let mut chosen = (2, 2);
        for answer in answers {
            mass -= Self::demonstrated(x, answer);
            if mass < 0.0 {
                chosen = answer;
                break;
            }
        }
        (Self::prompt(x), format!("{} {}", FIRST[chosen.0], SECOND[chosen.1]))
    }

    /// Prompt x as text.
    pub fn prompt(x: usize) -> String {
        format!("{} {}", SPECIALS[0], PROMPTS[x % PROMPTS.len()])
    }

    /// What the words of a completion are, where it is an answer: x, a, b. What stands after the second word does not count.
    fn read(prompt: &[u32], response: &[u32]) -> (usize, Option<Answer>) {
        let number = |id: u32, from: usize, count: usize| {
            let number = (id as usize).checked_sub(OFFSET as usize + from)?;
            (number < count).then_some(number)
        };
        let x = prompt.last().and_then(|&id| number(id, 0, PROMPTS.len())).unwrap_or(0);
        let answer = match response {
            [a, b, ..] => number(*a, PROMPTS.len(), 3).zip(number(*b, PROMPTS.len() + 3, 3)),
            _ => None,
        };
        (x, answer)
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json`, a token a word, as transformers reads them.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write_tokenizer(folder: &Path) -> std::io::Result<()> {
        write_plain_tokenizer(folder, &[PROMPTS.as_slice(), &FIRST, &SECOND].concat(), 16)
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Preferences between completions in the world's tokens.
impl Preference for CyclicWorld {
    fn prefer(&self, first: &Completions, second: &Completions) -> Tensor<1> {
        let (prompts, first_rows, second_rows) =
            (first.prompt.rows(), first.response.rows(), second.response.rows());
        let preferences: Vec<f32> = prompts
            .iter()
            .zip(first_rows.iter().zip(&second_rows))
            .map(|(prompt, (first, second))| {
                let (x, first) = Self::read(prompt, first);
                let log_odds = match (first, Self::read(prompt, second).1) {
                    (Some(first), Some(second)) => Self::log_odds(x, first, second),
                    (Some(_), None) => VALID,
                    (None, Some(_)) => -VALID,
                    (None, None) => 0.0,
                };
                sigmoid(log_odds) as f32
            })
            .collect();
        let device = first.response.ids.device().without_autodiff();
        let count = preferences.len();
        Tensor::from_data(TensorData::new(preferences, [count]), &device)
    }
}
