//! Files to typed tables: CSV and Parquet.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use csv::{ByteRecord, ReaderBuilder, StringRecord, Trim};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;

use super::{Place, Schema, Table, TableError, Unit};

/// What a file says, before anything is made of it.
pub(super) struct Raw {
    pub(super) path: PathBuf,
    pub(super) header: StringRecord,
    /// Rows with the line or position each stands at.
    pub(super) records: Vec<(u64, StringRecord)>,
    unit: Unit,
}

impl Raw {
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|column| column == name)
    }

    pub(super) fn place(&self, row: usize) -> Place {
        self.at(self.records[row].0)
    }

    pub(super) fn cells(&self, column: usize) -> impl Iterator<Item = &str> + Clone {
        self.records.iter().map(move |(_, record)| &record[column])
    }

    fn at(&self, number: u64) -> Place {
        Place { path: self.path.clone(), number, unit: self.unit }
    }

    fn check_header(&self) -> Result<(), TableError> {
        let path = || self.path.clone();
        for (index, name) in self.header.iter().enumerate() {
            if name.is_empty() {
                return Err(TableError::UnnamedColumn { path: path(), number: index + 1 });
            }
            if self.header.iter().take(index).any(|other| other == name) {
                return Err(TableError::DuplicateColumn { path: path(), name: name.to_owned() });
            }
        }
        if self.records.is_empty() {
            return Err(TableError::Empty { path: path(), found: "no rows" });
        }
        Ok(())
    }
}

/// Reads a CSV file with a header. Fields may be quoted, and spaces around them do not count; a byte order mark is skipped.
///
/// # Errors
/// [`TableError`] names the file, line and column, what was expected and what was found.
///
/// # Examples
/// ```
/// use align_factors::{Schema, Values, read_csv};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("answers.csv");
/// std::fs::write(&path, "health,region,happiness\n4,north,5\n-8,\"south, coast\",2\n")?;
///
/// let schema: Schema = toml::from_str(r#"
///     label = "happiness"
///     columns.health = { kind = "ordinal", levels = "1..5", missing = [-8] }
/// "#)?;
/// let table = read_csv(&path, &schema)?;
/// assert_eq!(table.columns()[0].values.missing(), 1);
/// assert!(matches!(&table.columns()[1].values, Values::Nominal { categories, .. } if categories[1] == "south, coast"));
/// assert_eq!(table.label().unwrap().values, [5.0, 2.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_csv(path: &Path, schema: &Schema) -> Result<Table, TableError> {
    let bytes = fs::read(path).map_err(unreadable(path))?;
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
    let delimiter = schema.delimiter.byte();
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter)
        .trim(Trim::All)
        .flexible(true)
        .has_headers(false)
        .from_reader(bytes);

    let mut raw =
        Raw { path: path.to_path_buf(), header: StringRecord::new(), records: Vec::new(), unit: Unit::Line };
    let mut record = ByteRecord::new();
    // The lines a quoted field spans are counted to the record that begins there.
    let (mut line, mut start, mut seen_header) = (1, 0, false);
    loop {
        let more = reader.read_byte_record(&mut record).map_err(|error| unreadable(path)(error.into()))?;
        if !more {
            break;
        }
        let position = record.position().expect("a record that was read has a position");
        // The position is where the previous record ended; blank lines in between belong to neither.
        start = position.byte() as usize;
        let blank = bytes[start..].iter().take_while(|byte| matches!(byte, b'\n' | b'\r'));
        line = position.line() + blank.filter(|&&byte| byte == b'\n').count() as u64;
        let text = StringRecord::from_byte_record(record.clone())
            .map_err(|_| TableError::Encoding { place: raw.at(line) })?;
        if !seen_header {
            raw.header = text;
            seen_header = true;
        } else if text.len() == raw.header.len() {
            raw.records.push((line, text));
        } else {
            let last = reader.position().byte() as usize == bytes.len();
            let hint = match text.len() < raw.header.len() && last {
                true => "; it is the last row, and the file may have been cut off",
                false => "",
            };
            let (expected, found) = (raw.header.len(), text.len());
            return Err(TableError::Ragged { place: raw.at(line), expected, found, hint });
        }
    }
    if !seen_header {
        return Err(TableError::Empty { path: raw.path, found: "nothing" });
    }
    if ends_in_quotes(&bytes[start..], delimiter) {
        return Err(TableError::CutOff { place: raw.at(line) });
    }
    raw.check_header()?;
    Table::from_raw(raw, schema)
}

/// Whether text that begins with a record ends inside a quoted field, which the reader takes for its end.
fn ends_in_quotes(text: &[u8], delimiter: u8) -> bool {
    let (mut quoted, mut field_begins) = (false, true);
    for &byte in text {
        match byte {
            // A doubled quote closes and opens again.
            b'"' if quoted || field_begins => (quoted, field_begins) = (!quoted, quoted),
            _ => field_begins = !quoted && (byte == delimiter || matches!(byte, b'\n' | b'\r')),
        }
    }
    quoted
}

/// Reads a Parquet file whose columns hold plain values.
///
/// Numbers are taken as they are written in decimal, so that a schema's levels and codes mean the same as in CSV.
///
/// # Errors
/// [`TableError`] names the file, row and column, what was expected and what was found.
pub fn read_parquet(path: &Path, schema: &Schema) -> Result<Table, TableError> {
    let broken = |error| unreadable(path)(io::Error::other(error));
    let file = File::open(path).map_err(unreadable(path))?;
    let reader = SerializedFileReader::new(file).map_err(broken)?;
    let header: StringRecord = reader
        .metadata()
        .file_metadata()
        .schema()
        .get_fields()
        .iter()
        .map(|field| field.name().trim())
        .collect();
    if header.is_empty() {
        return Err(TableError::Empty { path: path.to_path_buf(), found: "no columns" });
    }
    let mut raw = Raw { path: path.to_path_buf(), header, records: Vec::new(), unit: Unit::Row };
    for row in reader.get_row_iter(None).map_err(broken)? {
        let row = row.map_err(broken)?;
        let number = raw.records.len() as u64 + 1;
        let mut record = StringRecord::new();
        for (name, field) in row.get_column_iter() {
            match text(field) {
                Some(text) => record.push_field(text.trim()),
                None => {
                    return Err(TableError::Cell {
                        place: raw.at(number),
                        column: name.clone(),
                        expected: "a plain value".to_owned(),
                        found: field.to_string(),
                    });
                }
            }
        }
        raw.records.push((number, record));
    }
    raw.check_header()?;
    Table::from_raw(raw, schema)
}

/// A value as CSV would write it; nothing for a list, map or group.
fn text(field: &Field) -> Option<String> {
    Some(match field {
        Field::Null => String::new(),
        Field::Double(number) if number.is_nan() => String::new(),
        Field::Float(number) if number.is_nan() => String::new(),
        // As short as it can be and come back; `Field` would print exponents and trailing zeros.
        Field::Double(number) => number.to_string(),
        Field::Float(number) => number.to_string(),
        Field::Str(text) => text.clone(),
        Field::Bytes(bytes) => bytes.as_utf8().ok()?.to_owned(),
        Field::Group(_) | Field::ListInternal(_) | Field::MapInternal(_) => return None,
        other => other.to_string(),
    })
}

/// Reads Parquet where the file begins as one, CSV otherwise.
///
/// # Errors
/// As [`read_csv`] and [`read_parquet`].
pub fn read_table(path: &Path, schema: &Schema) -> Result<Table, TableError> {
    let mut magic = [0; 4];
    let begins = File::open(path).and_then(|mut file| io::Read::read_exact(&mut file, &mut magic));
    match begins {
        Ok(()) if magic == *b"PAR1" => read_parquet(path, schema),
        _ => read_csv(path, schema),
    }
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> TableError {
    let path = path.to_path_buf();
    move |source| TableError::Read { path: path.clone(), source }
}
