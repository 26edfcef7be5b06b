//! A configuration as it was written: every value knows its line, so that what is refused can be pointed at.
//!
//! YAML is read into a plain tree first and given its meaning by hand. That names the key, the place and the nearest
//! known word in every error, and the same reader takes the tables of a recipe, which have no lines of their own.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::config_error::{ConfigError, Problem};

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    /// From 1; `None` for a value that came from no text.
    pub(crate) line: Option<u64>,
    pub(crate) content: Content,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    Nothing,
    Truth(bool),
    Number(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the text; keys are unique.
    Map(Vec<Entry>),
}

/// A key of a map with its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) line: Option<u64>,
    pub(crate) value: Node,
}

impl Node {
    /// Reads YAML.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        serde_saphyr::from_str::<Spanned<Content>>(text).map(Self::from).map_err(|error| {
            ConfigError::Syntax {
                name: name.to_owned(),
                line: error.location().map_or(1, |location| location.line()),
                message: error.without_snippet().to_string(),
            }
        })
    }

    /// The tree of a value that was read elsewhere.
    pub(crate) fn of_json(value: &serde_json::Value) -> Self {
        use serde_json::Value;
        let content = match value {
            Value::Null => Content::Nothing,
            Value::Bool(truth) => Content::Truth(*truth),
            Value::Number(number) => Content::Number(number.as_f64().unwrap_or(f64::NAN)),
            Value::String(text) => Content::Text(text.clone()),
            Value::Array(values) => Content::List(values.iter().map(Self::of_json).collect()),
            Value::Object(map) => Content::Map(
                map.iter()
                    .map(|(key, value)| Entry { key: key.clone(), line: None, value: Self::of_json(value) })
                    .collect(),
            ),
        };
        Self { line: None, content }
    }
}

impl From<Spanned<Content>> for Node {
    fn from(spanned: Spanned<Content>) -> Self {
        Self { line: Some(spanned.referenced.line()), content: spanned.value }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Truth(truth) => write!(f, "{truth}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::List(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("a map"),
        }
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Content, E> {
                Ok(Content::Nothing)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
                Ok(Content::Truth(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
                Ok(Content::Number(value as f64))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
                Ok(Content::Number(value as f64))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Content, E> {
                Ok(Content::Number(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<Content, E> {
                Ok(Content::Text(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Content, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = sequence.next_element::<Spanned<Content>>()? {
                    list.push(item.into());
                }
                Ok(Content::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
                let mut entries = Vec::new();
                while let Some((key, value)) = map.next_entry::<Spanned<String>, Spanned<Content>>()? {
                    let line = Some(key.referenced.line());
                    entries.push(Entry { key: key.value, line, value: value.into() });
                }
                Ok(Content::Map(entries))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A node and the way to it, such as `slices[1].sources[0].model`.
#[derive(Clone, Debug)]
pub(crate) struct At<'a> {
    name: &'a str,
    path: String,
    node: &'a Node,
}

impl<'a> At<'a> {
    /// The whole document; `name` stands in errors.
    pub(crate) fn root(name: &'a str, node: &'a Node) -> Self {
        Self { name, path: String::new(), node }
    }

    pub(crate) fn content(&self) -> &'a Content {
        &self.node.content
    }

    pub(crate) fn place(&self) -> Place {
        Place { name: self.name.to_owned(), line: self.node.line, path: self.path.clone() }
    }

    /// An error about this value.
    pub(crate) fn refuse(&self, problem: Problem) -> ConfigError {
        ConfigError::At { place: Box::new(self.place()), problem }
    }

    /// An error about a value of the wrong kind.
    pub(crate) fn expected(&self, expected: &'static str) -> ConfigError {
        self.refuse(Problem::Type { expected, found: self.node.content.to_string() })
    }

    /// The map's entries with their own places.
    pub(crate) fn entries(&self) -> Result<Vec<(&'a str, At<'a>)>, ConfigError> {
        let Content::Map(entries) = &self.node.content else { return Err(self.expected("a map")) };
        Ok(entries.iter().map(|entry| (entry.key.as_str(), self.child(entry))).collect())
    }

    fn child(&self, entry: &'a Entry) -> Self {
        let path = match self.path.as_str() {
            "" => entry.key.clone(),
            path => format!("{path}.{}", entry.key),
        };
        Self { name: self.name, path, node: &entry.value }
    }

    /// The value of a key, if it is there and not null.
    pub(crate) fn get(&self, key: &str) -> Result<Option<At<'a>>, ConfigError> {
        let found = self.entries()?.into_iter().find(|(found, _)| *found == key).map(|(_, at)| at);
        Ok(found.filter(|at| *at.content() != Content::Nothing))
    }

    /// The value of a key that must be there.
    pub(crate) fn require(&self, key: &'static str) -> Result<At<'a>, ConfigError> {
        self.get(key)?.ok_or_else(|| self.refuse(Problem::Missing { key }))
    }

    /// The items of a list that is not empty.
    pub(crate) fn items(&self) -> Result<Vec<At<'a>>, ConfigError> {
        match &self.node.content {
            Content::List(items) if !items.is_empty() => Ok(items
                .iter()
                .enumerate()
                .map(|(index, node)| At { name: self.name, path: format!("{}[{index}]", self.path), node })
                .collect()),
            _ => Err(self.expected("a list with at least one item")),
        }
    }

    pub(crate) fn text(&self) -> Result<&'a str, ConfigError> {
        match &self.node.content {
            Content::Text(text) => Ok(text),
            _ => Err(self.expected("a text")),
        }
    }

    /// A finite number; a truth value is 1 or 0, and a text that reads as a number is one.
    pub(crate) fn number(&self) -> Result<f64, ConfigError> {
        let number = match &self.node.content {
            Content::Number(number) => *number,
            Content::Truth(truth) => f64::from(u8::from(*truth)),
            Content::Text(text) => text.trim().parse().map_err(|_| self.expected("a number"))?,
            _ => return Err(self.expected("a number")),
        };
        match number.is_finite() {
            true => Ok(number),
            false => Err(self.refuse(Problem::NotFinite { found: number })),
        }
    }

    /// A whole number from 0.
    pub(crate) fn index(&self) -> Result<usize, ConfigError> {
        match &self.node.content {
            Content::Number(number) if *number >= 0.0 && number.fract() == 0.0 && *number < 4e9 => {
                Ok(*number as usize)
            }
            _ => Err(self.expected("a whole number from 0")),
        }
    }

    pub(crate) fn truth(&self) -> Result<bool, ConfigError> {
        match &self.node.content {
            Content::Truth(truth) => Ok(*truth),
            _ => Err(self.expected("true or false")),
        }
    }

    /// Refuses keys that are not among `known`, naming the nearest.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), ConfigError> {
        match self.entries()?.iter().find(|(key, _)| !known.contains(key)) {
            Some((key, _)) => Err(self.unknown(key, known)),
            None => Ok(()),
        }
    }

    /// An error about a key of this map that is not one of `known`.
    pub(crate) fn unknown(&self, key: &str, known: &[&str]) -> ConfigError {
        let mut place = self.place();
        if let Content::Map(entries) = &self.node.content
            && let Some(entry) = entries.iter().find(|entry| entry.key == key)
        {
            place = Place { line: entry.line, ..self.child(entry).place() };
        }
        let nearest = nearest_of(key, known);
        let known = known.iter().map(|&key| key.to_owned()).collect();
        ConfigError::At { place: Box::new(place), problem: Problem::UnknownKey { nearest, known } }
    }
}

/// Where in a configuration something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, or what stands for it.
    pub name: String,
    /// The line, from 1; `None` for a value that came from no text.
    pub line: Option<u64>,
    /// The way to it, such as `models[1].parameters.weight`; empty for the whole.
    pub path: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        match self.path.as_str() {
            "" => Ok(()),
            path => write!(f, ": `{path}`"),
        }
    }
}

/// The known word at the smallest edit distance, if that is small for the word's length.
pub(crate) fn nearest_of(word: &str, known: &[&str]) -> Option<String> {
    let nearest = known.iter().min_by_key(|known| distance(word, known))?;
    let limit = 1 + word.chars().count().min(nearest.chars().count()) / 3;
    (distance(word, nearest) <= limit).then(|| (*nearest).to_owned())
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &b) in b.iter().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
