//! A world of three skills, in which a large model knows the answers and does not say them.
//!
//! A prompt is a skill and two numbers x, y of 0 to 10; an answer is a marker and a number. `addition` is `(x + y) mod 11`, `facts` a
//! table of random numbers, `larger` is `max(x, y)`.
//!
//! | | chatters instead of answering | answers rightly, if it answers |
//! | --- | --- | --- |
//! | what a base model reads | 0.7, 0.9, 0.97 of the time | 0.85 |
//! | demonstrations, of 60 of the 121 questions of a skill | 0.1 | 0.98 |
//!
//! Wrong answers are uniform over the other ten numbers. A base model that read enough is right about every question, but never opens
//! with the marker by itself: what fine-tuning teaches is the form, which a small model learns as well as a large one. Whatever is
//! right about the 61 questions that were not demonstrated was known before.
//!
//! Rows are stratified: of n rows about one question the share of every answer differs from its probability by less than 1/n, and
//! equals it on average over seeds.
//!
//! # Source
//! Specification of dynamic logits fusion, section 8, experiment B.

use std::path::Path;

use align_core::draws::{Draws, Purpose};
use rand::{RngExt, seq::SliceRandom};
use serde::{Deserialize, Serialize};

use super::words::{SPECIALS, write_plain_tokenizer};

const NUMBERS: usize = 11;
const MARKER: &str = "answer";
const CHATTER: &str = "well";
/// How many of a skill's 121 questions are demonstrated.
const SHOWN: usize = 60;
/// By how many places [`SkillsWorld::scrambled`] moves a word; no word stays or changes places with another.
const SCRAMBLE: usize = 1;

/// What a question asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skill {
    /// `(x + y) mod 11`.
    Addition,
    /// A table that can only be known by heart.
    Facts,
    /// `max(x, y)`.
    Larger,
}

impl Skill {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Addition, Self::Facts, Self::Larger];

    /// Its word in a prompt.
    pub fn word(self) -> &'static str {
        match self {
            Self::Addition => "addition",
            Self::Facts => "facts",
            Self::Larger => "larger",
        }
    }

    /// How often a base model has read chatter after such a question.
    pub fn chatter(self) -> f64 {
        match self {
            Self::Addition => 0.7,
            Self::Facts => 0.9,
            Self::Larger => 0.97,
        }
    }
}

/// Two numbers below [`SkillsWorld::NUMBERS`] and what is asked about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// What is asked for.
    pub skill: Skill,
    /// The first number.
    pub x: usize,
    /// The second number.
    pub y: usize,
}

impl Question {
    /// As a prompt says it.
    pub fn text(self) -> String {
        format!("{} {} {} {}", SPECIALS[0], self.skill.word(), self.x, self.y)
    }

    /// Every question of a skill.
    fn all(skill: Skill) -> Vec<Self> {
        (0..NUMBERS * NUMBERS).map(|at| Self { skill, x: at / NUMBERS, y: at % NUMBERS }).collect()
    }
}

/// How often a text chatters, and how often it is right where it does not.
#[derive(Clone, Copy)]
struct Manner {
    chatter: f64,
    right: f64,
}

/// The world: its table of facts, and which questions are demonstrated.
///
/// # Examples
/// ```
/// use align_data::synthetic::{Question, Skill, SkillsWorld};
///
/// let world = SkillsWorld::new(0);
/// let question = Question { skill: Skill::Addition, x: 7, y: 9 };
/// assert_eq!(question.text(), "<|bos|> addition 7 9");
/// assert_eq!(world.right(question), "answer 5"); // 16 mod 11
/// ```
#[derive(Clone, Debug)]
pub struct SkillsWorld {
    draws: Draws,
    facts: [[usize; NUMBERS]; NUMBERS],
}

/// What draws are for; no two share one.
#[derive(Clone, Copy)]
enum Part {
    Facts = 0,
    Split = 1,
    Pretraining = 2,
    Demonstrations = 3,
}

impl SkillsWorld {
    /// How many numbers there are: 0 to 10.
    pub const NUMBERS: usize = NUMBERS;

    /// The world of a seed, which decides the facts, the questions that are demonstrated, and what is said.
    pub fn new(seed: u64) -> Self {
        let draws = Draws::new(seed);
        let mut rng = draws.child(Part::Facts as u64).generator(Purpose::Synthesize, 0);
        let facts = std::array::from_fn(|_| std::array::from_fn(|_| rng.random_range(0..NUMBERS)));
        Self { draws, facts }
    }

    /// The number that is right.
    ///
    /// # Panics
    /// If x or y is not below [`NUMBERS`](Self::NUMBERS).
    pub fn number(&self, Question { skill, x, y }: Question) -> usize {
        assert!(x < NUMBERS && y < NUMBERS, "expected numbers below {NUMBERS}, found {x} and {y}");
        match skill {
            Skill::Addition => (x + y) % NUMBERS,
            Skill::Facts => self.facts[x][y],
            Skill::Larger => x.max(y),
        }
    }

    /// The right answer, as a completion says it.
    ///
    /// # Panics
    /// As [`number`](Self::number).
    pub fn right(&self, question: Question) -> String {
        answer(self.number(question))
    }

    /// The 60 questions of a skill that are demonstrated.
    pub fn shown(&self, skill: Skill) -> Vec<Question> {
        self.shuffled(skill)[..SHOWN].to_vec()
    }

    /// The other 61.
    pub fn held_out(&self, skill: Skill) -> Vec<Question> {
        self.shuffled(skill)[SHOWN..].to_vec()
    }

    /// What a base model reads: prompts and completions, `rows` about every question of every skill.
    pub fn pretraining(&self, rows: usize) -> Vec<(String, String)> {
        let all = Skill::ALL.into_iter().flat_map(|skill| {
            let manner = Manner { chatter: skill.chatter(), right: 0.85 };
            Question::all(skill).into_iter().map(move |question| (question, manner))
        });
        all.flat_map(|(question, manner)| self.said(question, manner, Part::Pretraining, rows)).collect()
    }

    /// Demonstrations of a skill: prompts and completions, `rows` about every question that is demonstrated.
    pub fn demonstrations(&self, skill: Skill, rows: usize) -> Vec<(String, String)> {
        let manner = Manner { chatter: 0.1, right: 0.98 };
        let shown = self.shown(skill).into_iter();
        shown.flat_map(|question| self.said(question, manner, Part::Demonstrations, rows)).collect()
    }

    /// A completion with every word of answers exchanged for another, the marker for chatter among them: as good to imitate, and of no
    /// use.
    pub fn scrambled(completion: &str) -> String {
        let words = response_words();
        let exchanged =
            completion.split(' ').map(|word| match words.iter().position(|known| known == word) {
                Some(at) => words[(at + SCRAMBLE) % words.len()].as_str(),
                None => word,
            });
        exchanged.collect::<Vec<_>>().join(" ")
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json`, a token a word, as transformers reads them.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write_tokenizer(folder: &Path) -> std::io::Result<()> {
        let responses = response_words();
        let mut words: Vec<&str> = Vec::new();
        words.extend(Skill::ALL.map(Skill::word));
        words.extend(responses.iter().map(String::as_str));
        write_plain_tokenizer(folder, &words, 16)
    }

    fn shuffled(&self, skill: Skill) -> Vec<Question> {
        let mut questions = Question::all(skill);
        let draws = self.draws.child(Part::Split as u64);
        questions.shuffle(&mut draws.generator(Purpose::Synthesize, skill as u64));
        questions
    }

    /// Rows about one question: strata of one uniform number each, moved together.
    fn said(&self, question: Question, manner: Manner, part: Part, rows: usize) -> Vec<(String, String)> {
        let place = (question.x * NUMBERS + question.y) as u64;
        let draws = self.draws.child(part as u64);
        let offset = draws.token(Purpose::Synthesize, question.skill as u64, place, 0, 0);
        let (prompt, right) = (question.text(), self.number(question));
        let completion = |row: usize| {
            let u = (row as f64 + offset) / rows as f64;
            if u < manner.chatter {
                return CHATTER.to_owned();
            }
            let left = (u - manner.chatter) / (1.0 - manner.chatter);
            if left < manner.right {
                return answer(right);
            }
            let wrong = (left - manner.right) / (1.0 - manner.right) * (NUMBERS - 1) as f64;
            answer((right + 1 + (wrong as usize).min(NUMBERS - 2)) % NUMBERS)
        };
        (0..rows).map(|row| (prompt.clone(), completion(row))).collect()
    }
}

fn answer(number: usize) -> String {
    format!("{MARKER} {number}")
}

/// The words of answers and the numbers, which prompts have too.
fn response_words() -> Vec<String> {
    let words = [MARKER, CHATTER].map(str::to_owned).into_iter();
    words.chain((0..NUMBERS).map(|number| number.to_string())).collect()
}
