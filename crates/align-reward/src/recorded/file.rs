//! The answers of an oracle on disk, one a line, and in memory.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use align_core::oracle::probability;
use serde::{Deserialize, Serialize};

use super::RecordError;

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    prompt: Vec<u32>,
    first: Vec<u32>,
    second: Vec<u32>,
    preference: f32,
}

/// Two answers to a prompt, whichever comes first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pair {
    prompt: Vec<u32>,
    lower: Vec<u32>,
    higher: Vec<u32>,
}

/// A pair in the order in which it was asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pair: Pair,
    /// Whether the answer that sorts higher came first.
    is_exchanged: bool,
}

impl Question {
    pub(super) fn new(prompt: Vec<u32>, first: Vec<u32>, second: Vec<u32>) -> Self {
        let is_exchanged = first > second;
        let (lower, higher) = if is_exchanged { (second, first) } else { (first, second) };
        Self { pair: Pair { prompt, lower, higher }, is_exchanged }
    }

    pub(super) fn prompt(&self) -> &[u32] {
        &self.pair.prompt
    }

    pub(super) fn pair(&self) -> &Pair {
        &self.pair
    }

    fn row(&self, preference: f32) -> Row {
        let Pair { prompt, lower, higher } = self.pair.clone();
        let (first, second) = if self.is_exchanged { (higher, lower) } else { (lower, higher) };
        Row { prompt, first, second, preference }
    }
}

/// A preference as it was given, in the order in which it was asked for: `1 − p` of a small p would not come back.
struct Known {
    preference: f32,
    is_exchanged: bool,
}

/// All answers known, and the file they stand in.
pub(super) struct Answers {
    path: PathBuf,
    known: HashMap<Pair, Known>,
    /// Open for appending; `None` for a table that is only read.
    file: Option<File>,
    /// Bytes of the file's whole lines.
    length: u64,
    /// Lines that are not in the file yet.
    unwritten: Vec<u8>,
    cut_off: Option<usize>,
}

impl Answers {
    /// Reads a file, which may be missing only if it is to be written.
    pub(super) fn open(path: &Path, writes: bool) -> Result<Self, RecordError> {
        let file = match writes {
            true => open_to_append(path)?,
            false => File::open(path).map_err(|source| read_error(path, source))?,
        };
        let mut answers = Self {
            path: path.to_owned(),
            known: HashMap::new(),
            file: None,
            length: 0,
            unwritten: Vec::new(),
            cut_off: None,
        };
        answers.read(&file)?;
        if writes {
            if answers.cut_off.is_some() {
                // The next line would be glued to what is left of this one.
                file.set_len(answers.length).map_err(|source| write_error(path, source))?;
            }
            answers.file = Some(file);
        }
        Ok(answers)
    }

    fn read(&mut self, file: &File) -> Result<(), RecordError> {
        let mut reader = BufReader::new(file);
        let mut bytes = Vec::new();
        for line in 1.. {
            bytes.clear();
            let size =
                reader.read_until(b'\n', &mut bytes).map_err(|source| read_error(&self.path, source))?;
            if size == 0 {
                break;
            }
            let is_ended = bytes.ends_with(b"\n");
            if !bytes.trim_ascii().is_empty() {
                match serde_json::from_slice::<Row>(&bytes) {
                    Ok(row) => self.insert(row, line)?,
                    Err(error) if error.is_eof() && !is_ended => {
                        self.cut_off = Some(size);
                        break;
                    }
                    Err(source) => {
                        return Err(RecordError::Damaged { path: self.path.clone(), line, source });
                    }
                }
            }
            self.length += size as u64;
            if !is_ended {
                self.unwritten.push(b'\n');
            }
        }
        Ok(())
    }

    /// Takes a row over; what is known already stays.
    fn insert(&mut self, row: Row, line: usize) -> Result<(), RecordError> {
        let Row { prompt, first, second, preference } = row;
        if probability(f64::from(preference)).is_none() {
            return Err(RecordError::NotAProbability { path: self.path.clone(), line, found: preference });
        }
        let Question { pair, is_exchanged } = Question::new(prompt, first, second);
        self.known.entry(pair).or_insert(Known { preference, is_exchanged });
        Ok(())
    }

    /// P(first ≻ second), if it is known; 1/2 for equal answers, of which nobody need be asked.
    pub(super) fn get(&self, question: &Question) -> Option<f32> {
        if question.pair.lower == question.pair.higher {
            return Some(0.5);
        }
        let known = self.known.get(&question.pair)?;
        Some(match known.is_exchanged == question.is_exchanged {
            true => known.preference,
            false => 1.0 - known.preference,
        })
    }

    /// How many pairs are known.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn cut_off(&self) -> Option<usize> {
        self.cut_off
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Remembers answers, all of them probabilities, and writes them. If they cannot be written they are still known, and
    /// written with the next ones.
    pub(super) fn append<'a>(
        &mut self,
        found: impl IntoIterator<Item = (&'a Question, f32)>,
    ) -> Result<(), RecordError> {
        for (question, preference) in found {
            serde_json::to_writer(&mut self.unwritten, &question.row(preference))
                .expect("numbers are JSON, and memory takes all");
            self.unwritten.push(b'\n');
            let known = Known { preference, is_exchanged: question.is_exchanged };
            self.known.entry(question.pair.clone()).or_insert(known);
        }
        self.write()
    }

    /// Writes what is not in the file yet, and waits until it is there.
    pub(super) fn write(&mut self) -> Result<(), RecordError> {
        let Some(file) = self.file.as_mut().filter(|_| !self.unwritten.is_empty()) else { return Ok(()) };
        if let Err(source) = file.write_all(&self.unwritten).and_then(|()| file.sync_data()) {
            // Half a line may be there. Should this fail too, the next start drops it.
            let _ = file.set_len(self.length);
            return Err(write_error(&self.path, source));
        }
        self.length += self.unwritten.len() as u64;
        self.unwritten.clear();
        Ok(())
    }
}

/// Opens a file that nobody else writes to, to be read from its beginning and written at its end.
fn open_to_append(path: &Path) -> Result<File, RecordError> {
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)
        .map_err(|source| write_error(path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(RecordError::InUse { path: path.to_owned() }),
        // Some file systems know no locks.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(source)) => Err(write_error(path, source)),
    }
}

fn read_error(path: &Path, source: io::Error) -> RecordError {
    RecordError::Read { path: path.to_owned(), source }
}

fn write_error(path: &Path, source: io::Error) -> RecordError {
    RecordError::Write { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_could_not_be_written_are_known_and_written_with_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.jsonl");
        let mut answers = Answers::open(&path, true).unwrap();
        let question = |answer| Question::new(vec![9], vec![answer], vec![0]);
        let [first, second] = [question(1), question(2)];
        // A handle that only reads stands for a full disk.
        let writable = answers.file.replace(File::open(&path).unwrap());
        let error = answers.append([(&first, 0.25)]).unwrap_err();
        assert!(matches!(error, RecordError::Write { .. }), "{error}");
        assert_eq!(answers.get(&first), Some(0.25));
        assert!(answers.write().is_err(), "it is still not there");
        answers.file = writable;
        answers.append([(&second, 0.75)]).unwrap();
        drop(answers);
        let read = Answers::open(&path, false).unwrap();
        assert_eq!((read.len(), read.get(&first), read.get(&second)), (2, Some(0.25), Some(0.75)));
    }

    #[test]
    fn a_batch_that_could_not_be_written_is_no_answer() {
        use align_core::{Completions, Preference, PreferenceFn};
        use align_testkit::device;
        use burn::tensor::Tensor;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.jsonl");
        let oracle = PreferenceFn(|first: &Completions, _: &Completions| {
            Tensor::<1>::full([first.batch_size()], 0.25, &device())
        });
        let recorded = super::super::Recorded::open(&path, oracle).unwrap();
        let side = |answer| Completions::from_rows(&[vec![9]], &[vec![answer]], &device());
        let ask = || recorded.prefer(&side(1), &side(2)).into_scalar::<f32>();
        let writable = recorded.state().answers.file.replace(File::open(&path).unwrap());
        for _ in 0..2 {
            assert!(ask().is_nan());
            let reason = recorded.take_failure().unwrap();
            assert!(reason.starts_with("cannot write answers to ") && reason.contains(": "), "{reason}");
        }
        recorded.state().answers.file = writable;
        assert_eq!(ask(), 0.25);
        assert_eq!(Answers::open(&path, false).unwrap().len(), 1);
    }
}
