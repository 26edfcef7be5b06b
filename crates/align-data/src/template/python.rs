//! Where Python's Jinja and Rust's differ in what they write: values as Python's `str` and `json.dumps` write them.

use std::fmt::Write;

use minijinja::{
    Error, ErrorKind, Value as Jinja,
    value::{Kwargs, ValueKind},
};
use serde_json::Value;

/// Python's `str` of a value: text as it is, everything else by [`repr`].
pub(super) fn str(value: &Jinja) -> String {
    match value.kind() {
        ValueKind::Undefined => String::new(),
        ValueKind::String => value.as_str().unwrap_or_default().to_string(),
        _ => {
            let mut out = String::new();
            repr(&mut out, value);
            out
        }
    }
}

/// Python's `repr` of the values JSON can hold.
fn repr(out: &mut String, value: &Jinja) {
    match value.kind() {
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::String => quoted(out, value.as_str().unwrap_or_default()),
        ValueKind::Seq | ValueKind::Iterable => {
            let tuple = value.is_tuple();
            out.push(if tuple { '(' } else { '[' });
            for (index, item) in value.try_iter().into_iter().flatten().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                repr(out, &item);
            }
            out.push_str(match (tuple, value.len()) {
                (true, Some(1)) => ",)",
                (true, _) => ")",
                (false, _) => "]",
            });
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter().into_iter().flatten().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                repr(out, &key);
                out.push_str(": ");
                repr(out, &value.get_item(&key).unwrap_or_default());
            }
            out.push('}');
        }
        _ => {
            let _ = write!(out, "{value}"); // writing to a String cannot fail
        }
    }
}

/// Single quotes, unless the text holds some and no double ones.
fn quoted(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for letter in text.chars() {
        match letter {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            _ if letter == quote => out.extend(['\\', letter]),
            _ if (letter as u32) < 0x20 || letter as u32 == 0x7f => {
                let _ = write!(out, "\\x{:02x}", letter as u32); // writing to a String cannot fail
            }
            _ => out.push(letter),
        }
    }
    out.push(quote);
}

/// transformers' `tojson`: `json.dumps` with `ensure_ascii=False` and no escaping for HTML.
pub(super) fn tojson(value: Jinja, kwargs: Kwargs) -> Result<Jinja, Error> {
    let indent: Option<Jinja> = kwargs.get("indent")?;
    let separators: Option<Vec<String>> = kwargs.get("separators")?;
    let ascii: Option<bool> = kwargs.get("ensure_ascii")?;
    let sort_keys: Option<bool> = kwargs.get("sort_keys")?;
    kwargs.assert_all_used()?;
    let indent = match indent {
        None => None,
        Some(value) if value.is_none() => None,
        Some(value) => match (value.as_usize(), value.as_str()) {
            (Some(width), _) => Some(" ".repeat(width)),
            (_, Some(text)) => Some(text.to_string()),
            _ => {
                let message =
                    format!("tojson: expected `indent` to be a number or text, found {}", value.kind());
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        },
    };
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(other) => {
            let message = format!("tojson: expected two separators, found {}", other.len());
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
        // With an indent Python drops the space after the comma.
        None => (if indent.is_some() { "," } else { ", " }.to_string(), ": ".to_string()),
    };
    let json = serde_json::to_value(&value)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, format!("tojson: {error}")))?;
    let writer =
        Dumps { indent, item, key, ascii: ascii.unwrap_or(false), sort_keys: sort_keys.unwrap_or(false) };
    let mut out = String::new();
    writer.write(&mut out, &json, 0);
    Ok(Jinja::from(out))
}

/// Python's `json.dumps`.
struct Dumps {
    indent: Option<String>,
    item: String,
    key: String,
    ascii: bool,
    sort_keys: bool,
}

impl Dumps {
    fn write(&self, out: &mut String, value: &Value, depth: usize) {
        match value {
            Value::String(text) => self.text(out, text),
            Value::Array(list) if list.is_empty() => out.push_str("[]"),
            Value::Object(map) if map.is_empty() => out.push_str("{}"),
            Value::Array(list) => {
                out.push('[');
                for (index, item) in list.iter().enumerate() {
                    self.separate(out, index, depth + 1);
                    self.write(out, item, depth + 1);
                }
                self.line(out, depth);
                out.push(']');
            }
            Value::Object(map) => {
                out.push('{');
                let mut entries: Vec<_> = map.iter().collect();
                if self.sort_keys {
                    entries.sort_by_key(|(key, _)| *key);
                }
                for (index, (key, item)) in entries.into_iter().enumerate() {
                    self.separate(out, index, depth + 1);
                    self.text(out, key);
                    out.push_str(&self.key);
                    self.write(out, item, depth + 1);
                }
                self.line(out, depth);
                out.push('}');
            }
            other => out.push_str(&other.to_string()),
        }
    }

    fn separate(&self, out: &mut String, index: usize, depth: usize) {
        if index > 0 {
            out.push_str(&self.item);
        }
        self.line(out, depth);
    }

    fn line(&self, out: &mut String, depth: usize) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
    }

    fn text(&self, out: &mut String, text: &str) {
        let quoted = Value::String(text.to_string()).to_string();
        for letter in quoted.chars() {
            match letter {
                '\u{7f}' if self.ascii => out.push('\u{7f}'),
                letter if self.ascii && !letter.is_ascii() => {
                    for unit in letter.encode_utf16(&mut [0; 2]) {
                        let _ = write!(out, "\\u{unit:04x}"); // writing to a String cannot fail
                    }
                }
                letter => out.push(letter),
            }
        }
    }
}
