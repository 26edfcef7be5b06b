//! What the columns of a file are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Levels;

/// The columns of a survey file, how it writes a missing answer, and what is to be predicted.
///
/// # Examples
/// The Chinese General Social Survey writes what was not answered as negative numbers, and asks for happiness from 1 to 5.
/// The data need a registration; this is a schema for a file of one's own:
/// ```
/// let schema: align_factors::Schema = toml::from_str(r#"
///     label = "happiness"
///     missing_label = "drop"
///     missing = [-1, -2, -3, -8, "NA"]
///     ignore = ["id", "survey_time", "edu_other"]
///     others = "ignore"
///
///     [columns]
///     happiness = { kind = "ordinal", levels = "1..5" }
///     health = { kind = "ordinal", levels = "1..5" }
///     equity = { kind = "ordinal", levels = "1..5" }
///     class = { kind = "ordinal", levels = "1..10" }
///     income = { kind = "numeric", missing = [9999997, 9999998, 9999999] }
///     province = { kind = "nominal" }
///     gender = { kind = "nominal", categories = ["1", "2"] }
/// "#)?;
/// assert_eq!(schema.columns.len(), 7);
/// # Ok::<(), toml::de::Error>(())
/// ```
/// The European Social Survey asks for happiness from 0 to 10 and keeps 77, 88 and 99 for refusal, don't know and no answer.
/// Where a code is an answer elsewhere, it is declared for its column only:
/// ```
/// let schema: align_factors::Schema = toml::from_str(r#"
///     label = "happy"
///     missing_label = "drop"
///     others = "ignore"
///
///     [columns]
///     happy = { kind = "ordinal", levels = "0..10", missing = [77, 88, 99] }
///     health = { kind = "ordinal", levels = "1..5", missing = [7, 8, 9] }
///     sclmeet = { kind = "ordinal", levels = "1..7", missing = [77, 88, 99] }
///     agea = { kind = "numeric", missing = [999] }
///     cntry = { kind = "nominal" }
/// "#)?;
/// assert_eq!(schema.label.as_deref(), Some("happy"));
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schema {
    /// The column to predict. Without one a table has no labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What happens to rows without a label.
    pub missing_label: MissingLabels,
    /// What stands between the fields of a CSV file.
    pub delimiter: Delimiter,
    /// What means a missing answer in every column, beside the empty cell. `NA` and `NaN`, which R and pandas write.
    pub missing: Vec<Code>,
    /// Columns to leave out.
    pub ignore: Vec<String>,
    /// What happens to columns that are not named here.
    pub others: Others,
    /// Columns by name.
    pub columns: BTreeMap<String, ColumnSchema>,
}

impl Default for Schema {
    fn default() -> Self {
        Self {
            label: None,
            missing_label: MissingLabels::default(),
            delimiter: Delimiter::default(),
            missing: vec![Code::Text("NA".to_owned()), Code::Text("NaN".to_owned())],
            ignore: Vec::new(),
            others: Others::default(),
            columns: BTreeMap::new(),
        }
    }
}

/// What one column holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ColumnSchema {
    /// A number that is measured or counted. Negative ones are numbers like others.
    Numeric {
        /// What means missing here, beside the schema's codes.
        #[serde(default)]
        missing: Vec<Code>,
    },
    /// An answer on a scale. Whatever is neither a level nor a declared code is refused.
    Ordinal {
        /// The scale.
        levels: Levels,
        /// What means missing here, beside the schema's codes.
        #[serde(default)]
        missing: Vec<Code>,
    },
    /// One of several categories without order.
    Nominal {
        /// The categories; none for those that the file has, sorted.
        #[serde(default)]
        categories: Vec<String>,
        /// What means missing here, beside the schema's codes.
        #[serde(default)]
        missing: Vec<Code>,
    },
}

impl ColumnSchema {
    /// The codes of this column alone.
    pub(super) fn missing(&self) -> &[Code] {
        let (Self::Numeric { missing } | Self::Ordinal { missing, .. } | Self::Nominal { missing, .. }) =
            self;
        missing
    }
}

/// What a file writes for a missing answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Code {
    /// A number, however it is written: −8 is `-8` and `-8.0`.
    Number(f64),
    /// A text, to the letter.
    Text(String),
}

impl Code {
    /// Whether a cell is the code, by its text and the number that the text is, if it is one.
    pub(super) fn is(&self, text: &str, number: Option<f64>) -> bool {
        match self {
            Self::Number(code) => number == Some(*code),
            Self::Text(code) => code == text,
        }
    }
}

/// What happens to rows without a label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingLabels {
    /// An error: nobody loses rows without having said so.
    #[default]
    Refuse,
    /// They are left out, and counted.
    Drop,
}

/// What happens to columns that a schema does not name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Others {
    /// Their kind is inferred. Whole numbers of which some are negative, or a short scale with 97, 98 or 99 in it, are
    /// refused: those are codes for missing answers more often than answers.
    #[default]
    Infer,
    /// They are left out.
    Ignore,
    /// An error.
    Refuse,
}

/// What stands between the fields of a CSV file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delimiter {
    /// `,`
    #[default]
    #[serde(rename = ",")]
    Comma,
    /// `;`
    #[serde(rename = ";")]
    Semicolon,
    /// A tab.
    #[serde(rename = "\t")]
    Tab,
    /// `|`
    #[serde(rename = "|")]
    Pipe,
}

impl Delimiter {
    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Comma => b',',
            Self::Semicolon => b';',
            Self::Tab => b'\t',
            Self::Pipe => b'|',
        }
    }
}
