//! An oracle whose answers are written down.
//!
//! A judge that reads is slow and costs money; what it has said once is kept. The file has one answer a line, appended as soon as
//! it is there:
//!
//! ```json
//! {"prompt": [1, 2], "first": [3, 0], "second": [4, 0], "preference": 0.75}
//! ```
//!
//! Rows hold token ids, not text: a table belongs to a tokenizer and a template. It belongs to one oracle too; the answers of
//! another want another file. `preference` is P(first ≻ second), and that of the exchanged pair is 1 minus it: an oracle with a liking
//! for a place goes into [`OrderAveraged`](align_core::OrderAveraged) before it is recorded. Where a pair stands in the file
//! twice, the first line counts.

mod file;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use align_core::oracle::probability;
use align_core::{Completions, Preference};
use burn::tensor::{Tensor, TensorData};

use crate::error::with_source;
use crate::pairs::shared_prompts;
use file::{Answers, Question};

/// How many pairs an oracle is asked about before its answers are written, unless stated: what an end in the middle can cost.
const AT_ONCE: usize = 64;

/// Why recorded answers cannot be used or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file could not be opened for writing, or answers not be written; those already there are untouched.
    #[error("cannot write answers to {}", path.display())]
    Write {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process writes to it.
    #[error("{} is in use, expected that no other run writes to it", path.display())]
    InUse {
        /// Its path.
        path: PathBuf,
    },
    /// A line is no answer.
    #[error("line {line} of {} is damaged: expected token ids `prompt`, `first`, `second` and a number `preference`", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A line's preference is none.
    #[error("line {line} of {} has preference {found}, expected a number in [0, 1]", path.display())]
    NotAProbability {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What stands there.
        found: f32,
    },
    /// There is no answer, and nobody to ask.
    #[error("{} has no preference between the answers of row {row}, to the prompt {}", path.display(), beginning(prompt))]
    Missing {
        /// The file.
        path: PathBuf,
        /// Which pair of the batch, the first without an answer.
        row: usize,
        /// Its prompt.
        prompt: Vec<u32>,
    },
    /// The oracle answered about other rows than it was asked about.
    #[error("the oracle gave {found} preferences, expected {expected}, one a row")]
    Count {
        /// How many pairs it was asked about.
        expected: usize,
        /// How many answers came.
        found: usize,
    },
}

/// An oracle that is asked about each pair once: answers are looked up, and new ones appended to a JSON Lines file at once.
///
/// A run that ends in the middle, or an oracle that does, costs at most the answers of the last few questions: the next run goes
/// on where this one stopped. Equal answers are preferred to each other by 1/2 without asking.
///
/// Rows without an answer are NaN, which stops whoever reads them; [`Preference::take_failure`] says why. Rows for which the
/// oracle gave one are kept all the same.
///
/// # Examples
/// ```
/// use align_core::{Completions, Preference, PreferenceFn};
/// use align_reward::Recorded;
/// use align_testkit::device;
/// use burn::Tensor;
///
/// let folder = tempfile::tempdir()?;
/// let file = folder.path().join("answers.jsonl");
/// let judge = PreferenceFn(|first: &Completions, _: &Completions| Tensor::full([first.batch_size()], 0.75, &device()));
/// let answer = |token| Completions::from_rows(&[vec![9]], &[vec![token]], &device());
/// Recorded::open(&file, judge)?.prefer(&answer(1), &answer(2));
///
/// // Without the judge, and the other way round.
/// let table = Recorded::table(&file)?;
/// assert_eq!(table.prefer(&answer(2), &answer(1)).into_scalar::<f32>(), 0.25);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Recorded<P = Box<dyn Preference>> {
    oracle: Option<P>,
    at_once: usize,
    state: Mutex<State>,
}

struct State {
    answers: Answers,
    /// Rows asked of the oracle, and rows that were known, since they were last told.
    asked: usize,
    recalled: usize,
    failure: Option<RecordError>,
}

impl Recorded {
    /// A table: answers are those of the file, and there is nobody to ask about others.
    ///
    /// # Errors
    /// If the file cannot be read or has a broken line. A last line that was cut off is no error, see [`Recorded::cut_off`].
    pub fn table(path: &Path) -> Result<Self, RecordError> {
        Ok(Self::new(None, Answers::open(path, false)?))
    }
}

impl<P: Preference> Recorded<P> {
    /// Asks `oracle` what the file does not say. A missing file is made; a last line that was cut off by a crash is taken away,
    /// see [`Recorded::cut_off`].
    ///
    /// # Errors
    /// If the file cannot be read or written, has a broken line, or another run writes to it.
    pub fn open(path: &Path, oracle: P) -> Result<Self, RecordError> {
        Ok(Self::new(Some(oracle), Answers::open(path, true)?))
    }

    fn new(oracle: Option<P>, answers: Answers) -> Self {
        let state = Mutex::new(State { answers, asked: 0, recalled: 0, failure: None });
        Self { oracle, at_once: AT_ONCE, state }
    }

    /// The same, asking about at most `pairs` at a time (64 unless stated) and writing their answers before it asks on.
    ///
    /// # Panics
    /// If `pairs` is 0.
    pub fn asking_at_once(self, pairs: usize) -> Self {
        assert!(pairs > 0, "an oracle is asked about at least one pair at a time");
        Self { at_once: pairs, ..self }
    }

    /// How many pairs have an answer.
    pub fn known(&self) -> usize {
        self.state().answers.len()
    }

    /// How many bytes of a last line were dropped, which a crash had cut off; `None` if all lines were whole. Worth a warning: its
    /// answer is asked for again.
    pub fn cut_off(&self) -> Option<usize> {
        self.state().answers.cut_off()
    }

    /// Why rows of an earlier batch have no answer, where the oracle is not to blame; the last reason since this was asked.
    pub fn take_error(&self) -> Option<RecordError> {
        self.state().failure.take()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Asks about the given rows, as long as all goes well. What the oracle answered that is no probability stands in `values`
    /// afterwards.
    fn ask(
        &self,
        state: &mut State,
        (first, second): (&Completions, &Completions),
        (questions, missing): (&[Question], &[usize]),
        values: &mut [f32],
    ) -> Result<(), RecordError> {
        // Of an earlier time, if that failed.
        state.answers.write()?;
        let Some(oracle) = &self.oracle else {
            let Some(&row) = missing.first() else { return Ok(()) };
            let (path, prompt) = (state.answers.path().to_owned(), questions[row].prompt().to_vec());
            return Err(RecordError::Missing { path, row, prompt });
        };
        for part in missing.chunks(self.at_once) {
            let found = oracle.prefer(&first.select(part), &second.select(part));
            let found: Vec<f32> = found.into_data().iter::<f32>().collect();
            if found.len() != part.len() {
                return Err(RecordError::Count { expected: part.len(), found: found.len() });
            }
            state.asked += part.len();
            let mut whole = Vec::with_capacity(part.len());
            for (&row, found) in part.iter().zip(found) {
                values[row] = found;
                if let Some(preference) = probability(f64::from(found)) {
                    whole.push((&questions[row], preference as f32));
                }
            }
            let has_failed = whole.len() < part.len();
            state.answers.append(whole)?;
            if has_failed {
                break;
            }
        }
        Ok(())
    }
}

impl<P: Preference> Preference for Recorded<P> {
    /// # Panics
    /// If a row's two prompts differ.
    fn prefer(&self, first: &Completions, second: &Completions) -> Tensor<1> {
        let prompts = shared_prompts("Recorded", first, second);
        let answers = first.response.rows().into_iter().zip(second.response.rows());
        let questions: Vec<Question> =
            prompts.into_iter().zip(answers).map(|(prompt, (a, b))| Question::new(prompt, a, b)).collect();
        let mut state = self.state();
        let missing = first_of_each(&questions, &state.answers);
        let mut values = vec![f32::NAN; questions.len()];
        match self.ask(&mut state, (first, second), (&questions, &missing), &mut values) {
            Ok(()) => {}
            Err(error @ RecordError::Write { .. }) => {
                // Going on would lose what is said from now on.
                state.failure = Some(error);
                values.fill(f32::NAN);
                return tensor(values, first);
            }
            Err(error) => state.failure = Some(error),
        }
        for (value, question) in values.iter_mut().zip(&questions) {
            *value = state.answers.get(question).unwrap_or(*value);
        }
        state.recalled += questions.len() - missing.len();
        tensor(values, first)
    }

    /// The oracle's own, and `recorded/asked` and `recorded/recalled`: how many pairs it was asked about, and how many not.
    fn take_metrics(&self) -> Vec<(String, f64)> {
        let mut metrics = self.oracle.as_ref().map_or_else(Vec::new, Preference::take_metrics);
        let mut state = self.state();
        let (asked, recalled) = (std::mem::take(&mut state.asked), std::mem::take(&mut state.recalled));
        if asked + recalled > 0 {
            metrics.push(("recorded/asked".into(), asked as f64));
            metrics.push(("recorded/recalled".into(), recalled as f64));
        }
        metrics
    }

    fn take_failure(&self) -> Option<String> {
        let own = self.take_error().map(|error| with_source(&error));
        own.or_else(|| self.oracle.as_ref()?.take_failure())
    }
}

/// The rows without an answer, of several about the same pair the first.
fn first_of_each(questions: &[Question], answers: &Answers) -> Vec<usize> {
    let mut seen = std::collections::HashSet::new();
    (0..questions.len())
        .filter(|&row| answers.get(&questions[row]).is_none() && seen.insert(questions[row].pair()))
        .collect()
}

fn tensor(values: Vec<f32>, completions: &Completions) -> Tensor<1> {
    let device = completions.response.ids.device().without_autodiff();
    let rows = values.len();
    Tensor::from_data(TensorData::new(values, [rows]), &device)
}

/// Enough of a prompt to recognise it.
fn beginning(ids: &[u32]) -> String {
    const SHOWN: usize = 32;
    match ids.len() > SHOWN {
        true => format!("{:?} and {} tokens more", &ids[..SHOWN], ids.len() - SHOWN),
        false => format!("{ids:?}"),
    }
}
