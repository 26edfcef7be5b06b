//! How columns are encoded.

use serde::{Deserialize, Serialize};

/// Settings of an [`Encoder`](super::Encoder).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EncoderConfig {
    /// What an ordinal answer becomes.
    pub ordinal: OrdinalCode,
    /// What a missing answer becomes.
    pub missing: MissingCode,
    /// What happens to categories that no training row has.
    pub unseen: Unseen,
    /// What happens to columns that are constant in the training rows.
    pub constant: Constant,
}

/// What an ordinal answer becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrdinalCode {
    /// Its number, standardised: one column, and its order is kept.
    #[default]
    Number,
    /// One column for each level that occurs, for scales whose steps are not alike.
    OneHot,
}

/// What a missing answer becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingCode {
    /// The training mean, of a number as of one-hot columns: an answer that says nothing.
    Mean,
    /// A column that is 1 where the answer is missing, and 0 or the mean in the others. It belongs to the question's factor:
    /// who does not answer says something. There is one only where training rows have missing answers; elsewhere they become
    /// the mean.
    #[default]
    Indicator,
}

/// What happens to categories that no training row has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Unseen {
    /// An error.
    Refuse {},
    /// They share a column with the categories that fewer than `rare` training rows have, so that models have seen it. If
    /// there are none of these, they become the training mean.
    Bucket {
        /// From how many training rows on a category has a column of its own.
        rare: usize,
    },
}

impl Default for Unseen {
    /// An error: a category that no model has seen is worth a look.
    fn default() -> Self {
        Self::Refuse {}
    }
}

/// What happens to columns that are constant in the training rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Constant {
    /// They are left out, and listed by [`Encoder::constant`](super::Encoder::constant): no model can use them.
    #[default]
    Drop,
    /// An error.
    Refuse,
}
