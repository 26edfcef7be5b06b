//! The levels of an ordinal answer.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ordinal::Grid;

/// More levels than this are a mistake, or a number.
const MOST: i64 = 1000;

/// Levels in rising order: whole numbers, or names that count from 1.
///
/// In a schema `"1..5"` (both ends belong), `[1, 2, 3, 4, 5]`, or `["never", "sometimes", "often"]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Levels(Inner);

#[derive(Clone, Debug, PartialEq)]
enum Inner {
    Numbers(Vec<i64>),
    Names(Vec<String>),
}

/// As it stands in a file.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Range(String),
    Numbers(Vec<i64>),
    Names(Vec<String>),
}

impl Levels {
    /// The whole numbers from `low` to `high`.
    ///
    /// # Panics
    /// If `high` is not above `low`.
    pub fn range(low: i64, high: i64) -> Self {
        assert!(low < high, "Levels::range: expected low < high, found {low}..{high}");
        Self(Inner::Numbers((low..=high).collect()))
    }

    /// The value of a cell's text, if it is a level. Numbers may be written `3` or `3.0`.
    pub fn value(&self, text: &str) -> Option<f64> {
        match &self.0 {
            Inner::Numbers(numbers) => {
                let value: f64 = text.parse().ok()?;
                numbers.iter().map(|&number| number as f64).find(|&number| number == value)
            }
            Inner::Names(names) => names.iter().position(|name| name == text).map(|index| (index + 1) as f64),
        }
    }

    /// The text of a level's value.
    ///
    /// # Panics
    /// If it is no level.
    pub fn text(&self, value: f64) -> String {
        match &self.0 {
            Inner::Numbers(_) => format!("{value}"),
            Inner::Names(names) => names[value as usize - 1].clone(),
        }
    }

    /// The values in rising order.
    pub fn values(&self) -> Vec<f64> {
        match &self.0 {
            Inner::Numbers(numbers) => numbers.iter().map(|&number| number as f64).collect(),
            Inner::Names(names) => (1..=names.len()).map(|value| value as f64).collect(),
        }
    }

    /// The grid of consecutive whole numbers that the levels are, if they are one.
    pub fn grid(&self) -> Option<Grid> {
        match &self.0 {
            Inner::Numbers(numbers) => {
                let consecutive = numbers.windows(2).all(|pair| pair[0].checked_add(1) == Some(pair[1]));
                consecutive.then(|| Grid::new(numbers[0], numbers[numbers.len() - 1]))
            }
            Inner::Names(names) => Some(Grid::new(1, names.len() as i64)),
        }
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Written::from(self.clone()) {
            Written::Range(range) => range.fmt(formatter),
            Written::Numbers(numbers) => {
                let texts: Vec<String> = numbers.iter().map(i64::to_string).collect();
                texts.join(", ").fmt(formatter)
            }
            Written::Names(names) => names.join(", ").fmt(formatter),
        }
    }
}

impl TryFrom<Written> for Levels {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Range(text) => {
                let number = |text: &str| text.trim().parse::<i64>();
                let ends = text.split_once("..").map(|(low, high)| (number(low), number(high)));
                match ends {
                    Some((Ok(low), Ok(high))) if low < high && high.saturating_sub(low) < MOST => {
                        Ok(Self::range(low, high))
                    }
                    _ => Err(format!("expected levels such as \"1..5\", at most {MOST}, found \"{text}\"")),
                }
            }
            Written::Numbers(numbers) => {
                if numbers.len() > 1 && numbers.is_sorted_by(|a, b| a < b) {
                    Ok(Self(Inner::Numbers(numbers)))
                } else {
                    Err(format!("expected at least two levels in rising order, found {numbers:?}"))
                }
            }
            Written::Names(names) => {
                let twice = names.iter().enumerate().any(|(index, name)| names[..index].contains(name));
                if names.len() > 1 && !twice {
                    Ok(Self(Inner::Names(names)))
                } else {
                    Err(format!("expected at least two levels, each once, found {names:?}"))
                }
            }
        }
    }
}

impl From<Levels> for Written {
    fn from(levels: Levels) -> Self {
        match (levels.grid(), levels.0) {
            (_, Inner::Names(names)) => Self::Names(names),
            (Some(grid), Inner::Numbers(_)) => Self::Range(grid.to_string()),
            (None, Inner::Numbers(numbers)) => Self::Numbers(numbers),
        }
    }
}
