//! A recipe as text: where every key stands, what the command line overrides, and errors that point at a line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::{Table, Value, de::DeTable, de::DeValue};

/// Why a recipe was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RecipeError {
    #[error("cannot read recipe {}; `align recipes ls` shows the built-in ones", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{name}:{line}: not valid TOML: {message}")]
    Syntax { name: String, line: usize, message: String },
    #[error("{place}: {message}{}", nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    Field { place: Place, message: String, nearest: Option<String> },
    #[error("override `{assignment}`: expected `key=value` or `table.key=value`")]
    Override { assignment: String },
    #[error("override `{assignment}`: `{segment}` is a value, not a table")]
    NotATable { assignment: String, segment: String },
}

/// Where a key stands: a line of the file, or the command line.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Line { name: String, line: usize, path: String },
    CommandLine { path: String },
    File { name: String, path: String },
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line { name, line, path } => write!(f, "{name}:{line}: `{path}`"),
            Self::CommandLine { path } => write!(f, "command line: `{path}`"),
            Self::File { name, path } if path.is_empty() => write!(f, "{name}"),
            Self::File { name, path } => write!(f, "{name}: `{path}`"),
        }
    }
}

/// A parsed recipe that still knows its lines.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    name: String,
    table: Table,
    lines: BTreeMap<String, usize>,
    overridden: Vec<String>,
}

impl Source {
    /// Reads and parses a file.
    pub(crate) fn read(path: &Path) -> Result<Self, RecipeError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| RecipeError::Read { path: path.to_owned(), source })?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Parses text; `name` stands in error messages.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, RecipeError> {
        let line_at = |offset: usize| text[..offset.min(text.len())].matches('\n').count() + 1;
        let syntax = |error: &toml::de::Error| RecipeError::Syntax {
            name: name.to_owned(),
            line: error.span().map_or(1, |span| line_at(span.start)),
            message: error.message().to_owned(),
        };
        let spanned = DeTable::parse(text).map_err(|error| syntax(&error))?;
        let table: Table = toml::from_str(text).map_err(|error| syntax(&error))?;
        let mut lines = BTreeMap::new();
        record_lines(spanned.get_ref(), "", &line_at, &mut lines);
        Ok(Self { name: name.to_owned(), table, lines, overridden: Vec::new() })
    }

    /// The recipe as it stands, overrides included.
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// Applies `a.b=c`. A segment may also name an element of an array of tables by its `name`.
    pub(crate) fn set(&mut self, assignment: &str) -> Result<(), RecipeError> {
        let Some((path, text)) = assignment.split_once('=').filter(|(path, _)| !path.trim().is_empty())
        else {
            return Err(RecipeError::Override { assignment: assignment.to_owned() });
        };
        let segments: Vec<&str> = path.trim().split('.').map(str::trim).collect();
        let value = override_value(text.trim());
        let full = assign(&mut self.table, &segments, value, String::new())
            .map_err(|segment| RecipeError::NotATable { assignment: assignment.to_owned(), segment })?;
        self.overridden.push(full);
        Ok(())
    }

    /// Deserialises the whole recipe.
    pub(crate) fn deserialize<T: DeserializeOwned>(&self) -> Result<T, RecipeError> {
        self.deserialize_value(Value::Table(self.table.clone()), "")
    }

    /// Deserialises one part of it; `prefix` is the part's path, such as `stage[2]`.
    pub(crate) fn deserialize_value<T: DeserializeOwned>(
        &self,
        value: Value,
        prefix: &str,
    ) -> Result<T, RecipeError> {
        serde_path_to_error::deserialize(value).map_err(|error| {
            let path = error.path().to_string();
            let message = error.into_inner().message().trim().to_owned();
            self.field_error(&join(prefix, path.trim_matches('.')), message)
        })
    }

    /// An error about one key of this recipe.
    pub(crate) fn field_error(&self, path: &str, message: String) -> RecipeError {
        let (path, nearest) = match unknown_field(&message) {
            Some((field, known)) => {
                // Untagged and tagged enums lose the path of the key itself.
                let path = if last_segment(path) == field { path.to_owned() } else { join(path, &field) };
                (path, nearest_of(&field, &known))
            }
            None => (path.to_owned(), None),
        };
        RecipeError::Field { place: self.place(&path), message, nearest }
    }

    fn place(&self, path: &str) -> Place {
        if self.overridden.iter().any(|set| set == path) {
            return Place::CommandLine { path: path.to_owned() };
        }
        // A missing key has no line of its own; the table it is missing from has one.
        let mut key = path;
        loop {
            if let Some(&line) = self.lines.get(key) {
                return Place::Line { name: self.name.clone(), line, path: path.to_owned() };
            }
            match key.rfind(['.', '[']) {
                Some(end) => key = &key[..end],
                None => return Place::File { name: self.name.clone(), path: path.to_owned() },
            }
        }
    }
}

/// The path of a key in the table at another.
pub(super) fn join(prefix: &str, path: &str) -> String {
    match (prefix.is_empty(), path.is_empty()) {
        (true, _) => path.to_owned(),
        (_, true) => prefix.to_owned(),
        _ => format!("{prefix}.{path}"),
    }
}

fn last_segment(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

fn record_lines(
    table: &DeTable<'_>,
    prefix: &str,
    line_at: &dyn Fn(usize) -> usize,
    lines: &mut BTreeMap<String, usize>,
) {
    for (key, value) in table.iter() {
        let path = join(prefix, key.get_ref());
        lines.insert(path.clone(), line_at(key.span().start));
        match value.get_ref() {
            DeValue::Table(inner) => record_lines(inner, &path, line_at, lines),
            DeValue::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    lines.insert(path.clone(), line_at(element.span().start));
                    if let DeValue::Table(inner) = element.get_ref() {
                        record_lines(inner, &path, line_at, lines);
                    }
                }
            }
            _ => {}
        }
    }
}

/// What stands right of `=`: TOML if it is TOML, a string otherwise, so that paths need no quotes.
fn override_value(text: &str) -> Value {
    toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Sets a value and returns its full path; the error is the segment that is not a table.
fn assign(table: &mut Table, segments: &[&str], value: Value, prefix: String) -> Result<String, String> {
    let (first, rest) = segments.split_first().expect("an assignment has a path");
    if rest.is_empty() {
        table.insert((*first).to_owned(), value);
        return Ok(join(&prefix, first));
    }
    if !table.contains_key(*first) {
        // `ppo.kl_coef` finds the stage called `ppo`.
        let named = table.iter_mut().find_map(|(key, candidate)| {
            let index = position_of_named(candidate, first)?;
            Some((key.clone(), index, candidate.as_array_mut()?.get_mut(index)?))
        });
        if let Some((key, index, Value::Table(element))) = named {
            return assign(element, rest, value, format!("{}[{index}]", join(&prefix, &key)));
        }
    }
    let path = join(&prefix, first);
    match table.entry((*first).to_owned()).or_insert_with(|| Value::Table(Table::new())) {
        Value::Table(inner) => assign(inner, rest, value, path),
        _ => Err(path),
    }
}

fn position_of_named(candidate: &Value, name: &str) -> Option<usize> {
    candidate.as_array()?.iter().position(|element| element.get("name").and_then(Value::as_str) == Some(name))
}

/// Reads serde's "unknown field `x`, expected one of `a`, `b`" (and the same of variants).
fn unknown_field(message: &str) -> Option<(String, Vec<String>)> {
    let rest =
        message.strip_prefix("unknown field `").or_else(|| message.strip_prefix("unknown variant `"))?;
    let (field, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Some((field.to_owned(), known))
}

/// The known name closest to what was written, if any is close enough to be meant.
pub(crate) fn nearest_of(written: &str, known: &[String]) -> Option<String> {
    known
        .iter()
        .map(|name| (strsim::jaro_winkler(written, name), name))
        .filter(|(similarity, _)| *similarity > 0.75)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Recipe {
        seed: u64,
        training: Training,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Training {
        learning_rate: f64,
    }

    fn refusal(text: &str, overrides: &[&str]) -> String {
        let mut source = Source::parse("r.toml", text).unwrap();
        for assignment in overrides {
            source.set(assignment).unwrap();
        }
        source.deserialize::<Recipe>().unwrap_err().to_string()
    }

    #[test]
    fn a_typo_is_reported_with_its_line_and_the_nearest_name() {
        let message = refusal("seed = 1\n[training]\nlearning_rat = 0.1\n", &[]);
        assert!(message.starts_with("r.toml:3: `training.learning_rat`: unknown field"), "{message}");
        assert!(message.ends_with("did you mean `learning_rate`?"), "{message}");
    }

    #[test]
    fn a_typo_on_the_command_line_says_so() {
        let message = refusal("seed = 1\n[training]\nlearning_rate = 0.1\n", &["training.sed=3"]);
        assert!(message.starts_with("command line: `training.sed`"), "{message}");
    }

    #[test]
    fn a_wrong_type_is_reported_with_its_line() {
        let message = refusal("seed = \"one\"\n[training]\nlearning_rate = 0.1\n", &[]);
        assert!(message.starts_with("r.toml:1: `seed`: invalid type: string \"one\""), "{message}");
    }

    #[test]
    fn a_missing_key_points_at_its_table() {
        let message = refusal("seed = 1\n\n[training]\n", &[]);
        assert!(message.starts_with("r.toml:3: `training`: missing field `learning_rate`"), "{message}");
    }

    #[test]
    fn broken_toml_is_reported_with_its_line() {
        let message = Source::parse("r.toml", "seed = 1\nx = [\n").unwrap_err().to_string();
        assert!(message.starts_with("r.toml:"), "{message}");
        assert!(message.contains("not valid TOML"), "{message}");
    }

    #[test]
    fn overrides_reach_tables_that_are_not_there_and_stages_by_name() {
        let mut source = Source::parse("r.toml", "[[stage]]\nname = \"ppo\"\nkind = \"ppo\"\n").unwrap();
        source.set("ppo.ppo.kl_coef=0.2").unwrap();
        source.set("output_dir=runs/x y").unwrap();
        let stage = &source.table()["stage"][0];
        assert_eq!(stage["ppo"]["kl_coef"].as_float(), Some(0.2));
        assert_eq!(source.table()["output_dir"].as_str(), Some("runs/x y"));
    }
}
