//! Rows of JSON Lines and JSON arrays, one at a time.

use std::io::{self, BufRead, Read};

/// No row of text is longer; a longer one is refused rather than held in memory.
pub(super) const MAX_ROW_BYTES: u64 = 64 << 20;

/// The bytes of one row and the line it begins on.
#[derive(Debug)]
pub(super) struct RawRow {
    pub line: u64,
    pub bytes: Vec<u8>,
}

/// Why no row came.
#[derive(Debug)]
pub(super) enum RawError {
    Io(io::Error),
    /// The structure around the rows is broken at this line; nothing after it can be trusted.
    Structure {
        line: u64,
        problem: String,
    },
}

impl From<io::Error> for RawError {
    fn from(source: io::Error) -> Self {
        Self::Io(source)
    }
}

/// Lines that are not blank.
pub(super) struct Lines<R> {
    source: R,
    line: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, line: 0 }
    }

    pub(super) fn next_row(&mut self) -> Result<Option<RawRow>, RawError> {
        loop {
            let mut bytes = Vec::new();
            let read = self.source.by_ref().take(MAX_ROW_BYTES + 1).read_until(b'\n', &mut bytes)?;
            if read == 0 {
                return Ok(None);
            }
            self.line += 1;
            if bytes.len() as u64 > MAX_ROW_BYTES {
                return Err(too_long(self.line));
            }
            let kept = bytes.trim_ascii();
            if !kept.is_empty() {
                return Ok(Some(RawRow { line: self.line, bytes: kept.to_vec() }));
            }
        }
    }
}

/// Paragraphs: runs of lines between blank ones.
pub(super) struct Paragraphs<R> {
    source: R,
    line: u64,
}

impl<R: BufRead> Paragraphs<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, line: 0 }
    }

    pub(super) fn next_row(&mut self) -> Result<Option<RawRow>, RawError> {
        let mut paragraph = Vec::new();
        let mut first = 0;
        loop {
            let before = paragraph.len();
            let read = self.source.by_ref().take(MAX_ROW_BYTES + 1).read_until(b'\n', &mut paragraph)?;
            if paragraph.len() as u64 > MAX_ROW_BYTES {
                return Err(too_long(self.line + 1));
            }
            if read > 0 {
                self.line += 1;
            }
            let blank = paragraph[before..].trim_ascii().is_empty();
            if blank {
                paragraph.truncate(before);
                if !paragraph.is_empty() {
                    return Ok(Some(RawRow { line: first, bytes: paragraph.trim_ascii().to_vec() }));
                }
                if read == 0 {
                    return Ok(None);
                }
            } else if before == 0 {
                first = self.line;
            }
        }
    }
}

/// The elements of one JSON array, split without parsing them, so that a broken element does not end the reading.
pub(super) struct Elements<R> {
    source: R,
    line: u64,
    state: Inside,
}

#[derive(Clone, Copy, PartialEq)]
enum Inside {
    Start,
    Array,
    End,
}

impl<R: BufRead> Elements<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, line: 1, state: Inside::Start }
    }

    fn next_byte(&mut self) -> io::Result<Option<u8>> {
        let Some(&byte) = self.source.fill_buf()?.first() else { return Ok(None) };
        self.source.consume(1);
        self.line += u64::from(byte == b'\n');
        Ok(Some(byte))
    }

    fn next_visible(&mut self) -> io::Result<Option<u8>> {
        loop {
            match self.next_byte()? {
                Some(byte) if byte.is_ascii_whitespace() => {}
                other => return Ok(other),
            }
        }
    }

    pub(super) fn next_row(&mut self) -> Result<Option<RawRow>, RawError> {
        if self.state == Inside::End {
            return Ok(None);
        }
        if self.state == Inside::Start {
            match self.next_visible()? {
                Some(b'[') => self.state = Inside::Array,
                other => return Err(self.unexpected("`[`", other)),
            }
        }
        let first = match self.next_visible()? {
            Some(b']') => {
                self.state = Inside::End;
                return Ok(None);
            }
            Some(byte) => byte,
            None => return Err(self.unexpected("a row or `]`", None)),
        };
        let line = self.line;
        let mut bytes = vec![first];
        let mut depth = usize::from(matches!(first, b'{' | b'['));
        let mut text = first == b'"';
        let mut escaped = false;
        loop {
            let Some(byte) = self.next_byte()? else { return Err(self.unexpected("`,` or `]`", None)) };
            if text {
                text = escaped || byte != b'"';
                escaped = !escaped && byte == b'\\';
            } else {
                match byte {
                    b'"' => text = true,
                    b'{' | b'[' => depth += 1,
                    b',' | b']' if depth == 0 => {
                        if byte == b']' {
                            self.state = Inside::End;
                        }
                        return Ok(Some(RawRow { line, bytes: bytes.trim_ascii().to_vec() }));
                    }
                    b'}' | b']' => {
                        if depth == 0 {
                            return Err(self.unexpected("`,` or `]`", Some(byte)));
                        }
                        depth -= 1;
                    }
                    _ => {}
                }
            }
            bytes.push(byte);
            if bytes.len() as u64 > MAX_ROW_BYTES {
                return Err(too_long(line));
            }
        }
    }

    fn unexpected(&mut self, expected: &str, found: Option<u8>) -> RawError {
        self.state = Inside::End;
        let found = match found {
            Some(byte) => format!("`{}`", byte as char),
            None => "the end of the file".to_string(),
        };
        RawError::Structure { line: self.line, problem: format!("expected {expected}, found {found}") }
    }
}

fn too_long(line: u64) -> RawError {
    RawError::Structure {
        line,
        problem: format!("expected rows of at most {MAX_ROW_BYTES} bytes, found a longer one"),
    }
}
