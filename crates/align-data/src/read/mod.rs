//! Reading files of rows: JSON Lines, JSON arrays, plain text and Parquet, the text formats perhaps compressed.
//!
//! The format is told by the content; a name only decides between plain text (`.txt`, one row a paragraph) and JSON
//! Lines. Files are streamed: one row is in memory at a time. A folder stands for the data files in it, by name.

mod decompress;
mod error;
mod json;
#[cfg(feature = "parquet")]
mod parquet;

use std::{
    fs::File,
    io::BufRead,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

pub use self::error::{DataError, Origin, Unit};
use self::json::{Elements, Lines, Paragraphs, RawError, RawRow};
use crate::rows::{FromRow, RowProblem};

/// How rows are read.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// Count and list broken rows rather than stopping at the first. Off: a broken row is usually a wrong file.
    pub skip_bad_rows: bool,
    /// At most this many rows are read; `None` reads all.
    pub limit: Option<usize>,
    /// Renamed columns, as (name in the file, name we know), before anything else looks at the row.
    pub rename: Vec<(String, String)>,
}

/// How many skipped rows are listed; the others are only counted.
pub const LISTED_SKIPS: usize = 20;

/// The broken rows that were passed over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Skipped {
    /// How many.
    pub count: usize,
    /// The first [`LISTED_SKIPS`] of them, with what was wrong.
    pub listed: Vec<(Origin, RowProblem)>,
}

impl Skipped {
    fn add(&mut self, origin: Origin, problem: RowProblem) {
        self.count += 1;
        if self.listed.len() < LISTED_SKIPS {
            self.listed.push((origin, problem));
        }
    }
}

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "skipped {} broken rows", self.count)?;
        for (origin, problem) in &self.listed {
            write!(f, "\n  {origin}: {problem}")?;
        }
        if self.count > self.listed.len() {
            write!(f, "\n  and {} more", self.count - self.listed.len())?;
        }
        Ok(())
    }
}

/// Rows in memory, and what was passed over on the way.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// The rows, in the file's order.
    pub rows: Vec<T>,
    /// The broken ones.
    pub skipped: Skipped,
}

/// Reads a whole file (or folder) of rows of one kind.
///
/// # Errors
/// When a file cannot be read, a row is broken (unless skipped), or no row is left.
///
/// # Examples
/// ```
/// use align_data::{PreferenceRow, ReadOptions, read_rows};
///
/// let path = std::env::temp_dir().join("align-doc-pairs.jsonl");
/// std::fs::write(&path, r#"{"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"}"#).unwrap();
/// let pairs = read_rows::<PreferenceRow>(&path, &ReadOptions::default()).unwrap();
/// assert_eq!(pairs.rows.len(), 1);
/// ```
pub fn read_rows<T: FromRow>(path: &Path, options: &ReadOptions) -> Result<Loaded<T>, DataError> {
    let mut stream = RowStream::<T>::open(path, options)?;
    let rows = stream.by_ref().collect::<Result<Vec<T>, _>>()?;
    let skipped = stream.into_skipped();
    if rows.is_empty() {
        let found = match skipped.count {
            0 => "none".to_string(),
            _ => skipped.to_string(),
        };
        return Err(DataError::Empty { path: path.to_path_buf(), kind: T::KIND, found });
    }
    Ok(Loaded { rows, skipped })
}

/// Rows of one kind, one at a time, from a file or the data files of a folder.
pub struct RowStream<T> {
    files: std::vec::IntoIter<PathBuf>,
    current: Option<ObjectReader>,
    options: ReadOptions,
    given: usize,
    skipped: Skipped,
    failed: bool,
    kind: std::marker::PhantomData<fn() -> T>,
}

impl<T: FromRow> RowStream<T> {
    /// Opens a file or a folder.
    ///
    /// # Errors
    /// When it is missing, or its format is not one we read.
    pub fn open(path: &Path, options: &ReadOptions) -> Result<Self, DataError> {
        let mut files = data_files(path)?.into_iter();
        let current = files.next().map(|first| ObjectReader::open(&first)).transpose()?;
        Ok(Self {
            files,
            current,
            options: options.clone(),
            given: 0,
            skipped: Skipped::default(),
            failed: false,
            kind: std::marker::PhantomData,
        })
    }

    /// The broken rows passed over so far.
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// The broken rows passed over.
    pub fn into_skipped(self) -> Skipped {
        self.skipped
    }

    fn read_next(&mut self) -> Result<Option<T>, DataError> {
        loop {
            let Some(reader) = self.current.as_mut() else { return Ok(None) };
            let Some((origin, object)) = reader.next_object()? else {
                self.current = self.files.next().map(|next| ObjectReader::open(&next)).transpose()?;
                continue;
            };
            let row = object.and_then(|object| T::from_row(&renamed(object, &self.options.rename)));
            match row {
                Ok(row) => return Ok(Some(row)),
                Err(problem) if self.options.skip_bad_rows => self.skipped.add(origin, problem),
                Err(problem) => return Err(DataError::Row { origin, problem }),
            }
        }
    }
}

impl<T: FromRow> Iterator for RowStream<T> {
    type Item = Result<T, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.options.limit.is_some_and(|limit| self.given >= limit) {
            return None;
        }
        let next = self.read_next().transpose();
        self.given += 1;
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}

fn renamed(object: Map<String, Value>, rename: &[(String, String)]) -> Map<String, Value> {
    if rename.is_empty() {
        return object;
    }
    object
        .into_iter()
        .map(|(key, value)| match rename.iter().find(|(theirs, _)| *theirs == key) {
            Some((_, ours)) => (ours.clone(), value),
            None => (key, value),
        })
        .collect()
}

/// The file itself, or the data files of a folder in the order of their names.
fn data_files(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let open = |source| DataError::Open { path: path.to_path_buf(), source };
    if !std::fs::metadata(path).map_err(open)?.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(open)? {
        let file = entry.map_err(open)?.path();
        if file.is_file() && looks_like_data(&file) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn looks_like_data(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = name.strip_suffix(".gz").or(name.strip_suffix(".zst")).unwrap_or(&name);
    [".jsonl", ".ndjson", ".json", ".parquet"].iter().any(|ending| name.ends_with(ending))
}

/// The objects of one file.
struct ObjectReader {
    path: PathBuf,
    rows: Rows,
    last: u64,
}

enum Rows {
    Lines(Lines<Box<dyn BufRead + Send>>),
    Elements(Elements<Box<dyn BufRead + Send>>),
    Paragraphs(Paragraphs<Box<dyn BufRead + Send>>),
    #[cfg(feature = "parquet")]
    Parquet(parquet::ParquetRows),
    Nothing,
}

impl ObjectReader {
    fn open(path: &Path) -> Result<Self, DataError> {
        let open = |source| DataError::Open { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(open)?;
        let mut source = decompress::decompressed(file).map_err(open)?;
        let head = source.fill_buf().map_err(|source| DataError::Read {
            path: path.to_path_buf(),
            after: 0,
            source,
        })?;
        if head.starts_with(b"PAR1") {
            return Self::open_parquet(path);
        }
        if head.starts_with(b"\xEF\xBB\xBF") {
            source.consume(3); // a byte-order mark
        }
        let head = source
            .fill_buf()
            .map_err(|source| DataError::Read { path: path.to_path_buf(), after: 0, source })?
            .trim_ascii_start();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let plain = name.contains(".txt");
        let rows = match head.first() {
            None => Rows::Nothing,
            Some(_) if plain => Rows::Paragraphs(Paragraphs::new(source)),
            Some(b'{') => Rows::Lines(Lines::new(source)),
            Some(b'[') => Rows::Elements(Elements::new(source)),
            Some(_) if name.contains(".json") || name.contains(".ndjson") => Rows::Lines(Lines::new(source)),
            Some(_) => {
                let found = String::from_utf8_lossy(&head[..head.len().min(24)]).into_owned();
                return Err(DataError::Format { path: path.to_path_buf(), found: format!("{found:?}") });
            }
        };
        Ok(Self { path: path.to_path_buf(), rows, last: 0 })
    }

    #[cfg(feature = "parquet")]
    fn open_parquet(path: &Path) -> Result<Self, DataError> {
        let rows = parquet::ParquetRows::open(path).map_err(|source| DataError::Read {
            path: path.to_path_buf(),
            after: 0,
            source,
        })?;
        Ok(Self { path: path.to_path_buf(), rows: Rows::Parquet(rows), last: 0 })
    }

    #[cfg(not(feature = "parquet"))]
    fn open_parquet(path: &Path) -> Result<Self, DataError> {
        Err(DataError::Unsupported { path: path.to_path_buf(), format: "Parquet", feature: "parquet" })
    }

    fn next_object(&mut self) -> Result<Option<(Origin, ParsedRow)>, DataError> {
        let raw = match &mut self.rows {
            Rows::Lines(lines) => lines.next_row(),
            Rows::Elements(elements) => elements.next_row(),
            Rows::Paragraphs(paragraphs) => {
                let row = paragraphs.next_row().map_err(|error| self.failure(error))?;
                return Ok(row.map(|raw| {
                    let text = String::from_utf8_lossy(&raw.bytes).into_owned();
                    (self.origin(raw.line), Ok(Map::from_iter([("text".to_string(), Value::String(text))])))
                }));
            }
            #[cfg(feature = "parquet")]
            Rows::Parquet(rows) => {
                self.last += 1;
                let row = rows.next_row().map_err(|source| DataError::Read {
                    path: self.path.clone(),
                    after: self.last - 1,
                    source,
                })?;
                let origin = Origin { path: self.path.clone(), number: self.last, unit: Unit::Row };
                return Ok(row.map(|row| (origin, Ok(row))));
            }
            Rows::Nothing => Ok(None),
        };
        let Some(raw) = raw.map_err(|error| self.failure(error))? else { return Ok(None) };
        self.last = raw.line;
        Ok(Some((self.origin(raw.line), parsed(&raw))))
    }

    fn origin(&self, line: u64) -> Origin {
        Origin { path: self.path.clone(), number: line, unit: Unit::Line }
    }

    fn failure(&self, error: RawError) -> DataError {
        match error {
            RawError::Io(source) => DataError::Read { path: self.path.clone(), after: self.last, source },
            RawError::Structure { line, problem } => DataError::Array { origin: self.origin(line), problem },
        }
    }
}

type ParsedRow = Result<Map<String, Value>, RowProblem>;

fn parsed(raw: &RawRow) -> ParsedRow {
    match serde_json::from_slice::<Value>(&raw.bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(RowProblem::NotAnObject { found: crate::rows::kind_of(&other) }),
        Err(error) => {
            Err(RowProblem::Syntax { column: error.column(), message: without_place(&error.to_string()) })
        }
    }
}

/// serde's messages end in a place of their own, counted inside the row.
fn without_place(message: &str) -> String {
    message.split(" at line ").next().unwrap_or(message).to_string()
}
