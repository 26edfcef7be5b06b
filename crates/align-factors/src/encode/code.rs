//! The code of one column.

use std::borrow::Cow;
use std::collections::HashMap;

use align_core::number::{Finite, Positive, Probability};
use serde::{Deserialize, Serialize};

use super::{Answer, EncoderConfig, MissingCode, OrdinalCode, Unseen};
use crate::table::{TableError, Values, listed};

/// From cells to numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Code {
    /// `(x − mean) / deviation`, 0 where missing; then the indicator.
    Number { ordinal: bool, mean: Finite, deviation: Positive, indicator: bool },
    /// A column for each category, then the shared one, then the indicator.
    OneHot {
        ordinal: bool,
        categories: Vec<String>,
        /// Categories that share a column.
        rare: Vec<String>,
        /// Of the training rows with an answer, by column: what a cell becomes that says nothing.
        shares: Vec<Probability>,
        indicator: bool,
        refuse_unseen: bool,
    },
}

impl Code {
    /// By the training rows; as an error, what a constant column says.
    pub(super) fn fit(values: &Values, rows: &[usize], config: &EncoderConfig) -> Result<Self, String> {
        match (values, config.ordinal) {
            (Values::Numeric(cells), _) => number(cells, rows, false, config),
            (Values::Ordinal { answers, .. }, OrdinalCode::Number) => number(answers, rows, true, config),
            _ => one_hot(values, rows, config),
        }
    }

    /// Whether a code that was read has a share for every column.
    pub(super) fn check(&self) -> Result<(), String> {
        let Self::OneHot { categories, rare, shares, .. } = self else { return Ok(()) };
        let expected = categories.len() + usize::from(!rare.is_empty());
        if shares.len() == expected && expected > 0 {
            Ok(())
        } else {
            Err(format!("expected {expected} shares, and at least one, found {}", shares.len()))
        }
    }

    /// The kind of column it is for.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Number { ordinal: true, .. } | Self::OneHot { ordinal: true, .. } => "ordinal",
            Self::Number { .. } => "numeric",
            Self::OneHot { .. } => "nominal",
        }
    }

    /// How many columns it takes.
    pub(super) fn width(&self) -> usize {
        match self {
            Self::Number { indicator, .. } => 1 + usize::from(*indicator),
            Self::OneHot { shares, indicator, .. } => shares.len() + usize::from(*indicator),
        }
    }

    /// What its columns are called.
    pub(super) fn names(&self, column: &str) -> Vec<String> {
        let (mut names, indicator) = match self {
            Self::Number { indicator, .. } => (vec![column.to_owned()], *indicator),
            Self::OneHot { categories, rare, indicator, .. } => {
                let mut names: Vec<String> =
                    categories.iter().map(|category| format!("{column} = {category}")).collect();
                if !rare.is_empty() {
                    names.push(format!("{column} (other)"));
                }
                (names, *indicator)
            }
        };
        if indicator {
            names.push(format!("{column} (missing)"));
        }
        names
    }

    /// Writes the column's cells into rows of `width` zeros, from column `first` on.
    pub(super) fn write(
        &self,
        column: &str,
        values: &Values,
        rows: &[usize],
        encoded: &mut [f64],
        first: usize,
        width: usize,
    ) -> Result<(), TableError> {
        let own = first..first + self.width();
        let cells = rows.iter().zip(encoded.chunks_exact_mut(width).map(|row| &mut row[own.clone()]));
        match (self, values) {
            (
                Self::Number { mean, deviation, indicator, .. },
                Values::Numeric(numbers) | Values::Ordinal { answers: numbers, .. },
            ) => {
                for (&row, cell) in cells {
                    match numbers[row] {
                        Some(number) => cell[0] = (number - mean.get()) / deviation.get(),
                        None if *indicator => cell[1] = 1.0,
                        None => {}
                    }
                }
            }
            (Self::OneHot { categories, rare, shares, indicator, refuse_unseen, .. }, values) => {
                let (known, choices) = choices(values);
                let own = categories.iter().enumerate().map(|(index, category)| (category, index));
                let shared = rare.iter().map(|category| (category, categories.len()));
                let columns: HashMap<&String, usize> = own.chain(shared).collect();
                let columns: Vec<Option<usize>> =
                    known.iter().map(|name| columns.get(name).copied()).collect();
                for (&row, cell) in cells {
                    let one = match choices[row] {
                        Some(choice) => match columns[choice] {
                            None if *refuse_unseen => {
                                return Err(TableError::UnseenCategory {
                                    row,
                                    column: column.to_owned(),
                                    found: known[choice].clone(),
                                    known: listed(categories.iter().map(String::as_str)),
                                });
                            }
                            None if !rare.is_empty() => Some(categories.len()),
                            own => own,
                        },
                        None => indicator.then_some(shares.len()),
                    };
                    match one {
                        Some(one) => cell[one] = 1.0,
                        None => cell.iter_mut().zip(shares).for_each(|(cell, share)| *cell = share.get()),
                    }
                }
            }
            (Self::Number { .. }, Values::Nominal { .. }) => unreachable!("the column's kind was checked"),
        }
        Ok(())
    }

    /// What encoded cells say.
    pub(super) fn read(&self, cell: &[f64]) -> Answer {
        match self {
            Self::Number { indicator: true, .. } if cell[1] == 1.0 => Answer::Missing,
            Self::Number { mean, deviation, .. } => Answer::Number(mean.get() + deviation.get() * cell[0]),
            Self::OneHot { categories, rare, .. } => match cell.iter().position(|&x| x == 1.0) {
                Some(one) if one < categories.len() => Answer::Category(categories[one].clone()),
                Some(one) if one == categories.len() && !rare.is_empty() => Answer::Other,
                _ => Answer::Missing,
            },
        }
    }
}

fn number(
    cells: &[Option<f64>],
    rows: &[usize],
    ordinal: bool,
    config: &EncoderConfig,
) -> Result<Code, String> {
    let present: Vec<f64> = rows.iter().filter_map(|&row| cells[row]).collect();
    let indicator = config.missing == MissingCode::Indicator && present.len() < rows.len();
    let Some(&first) = present.first() else { return Err("nobody answers".to_owned()) };
    if present.iter().all(|&number| number == first) {
        if !indicator {
            return Err(format!("{first}"));
        }
        // Only who answers varies.
        let mean = Finite::try_from(first).expect("cells are finite");
        return Ok(Code::Number { ordinal, mean, deviation: Positive::literal(1.0), indicator });
    }
    let count = present.len() as f64;
    let mean = present.iter().map(|number| number / count).sum::<f64>();
    // Divided by the largest, so that squares neither overflow nor vanish.
    let largest = present.iter().map(|number| (number - mean).abs()).fold(0.0, f64::max);
    let variance = present.iter().map(|number| ((number - mean) / largest).powi(2)).sum::<f64>() / count;
    match (Finite::try_from(mean), Positive::try_from(largest * variance.sqrt())) {
        (Ok(mean), Ok(deviation)) => Ok(Code::Number { ordinal, mean, deviation, indicator }),
        _ => Err(format!("numbers about {mean} that differ by {largest}")),
    }
}

fn one_hot(values: &Values, rows: &[usize], config: &EncoderConfig) -> Result<Code, String> {
    let (known, choices) = choices(values);
    let mut counts = vec![0_usize; known.len()];
    for choice in rows.iter().filter_map(|&row| choices[row]) {
        counts[choice] += 1;
    }
    let answers: usize = counts.iter().sum();
    let indicator = config.missing == MissingCode::Indicator && answers < rows.len();
    let enough = match config.unseen {
        Unseen::Refuse {} => 1,
        Unseen::Bucket { rare } => rare.max(1),
    };
    let (mut categories, mut rare, mut columns, mut shared) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for (category, count) in known.iter().zip(counts).filter(|(_, count)| *count > 0) {
        if count >= enough {
            categories.push(category.clone());
            columns.push(count);
        } else {
            rare.push(category.clone());
            shared += count;
        }
    }
    if shared > 0 {
        columns.push(shared);
    }
    if columns.len() + usize::from(indicator) < 2 {
        let only = categories.first().or(rare.first());
        return Err(only.cloned().unwrap_or_else(|| "nobody answers".to_owned()));
    }
    let share = |count: usize| Probability::try_from(count as f64 / answers as f64).expect("a share");
    let ordinal = matches!(values, Values::Ordinal { .. });
    let refuse_unseen = config.unseen == Unseen::Refuse {};
    let shares = columns.into_iter().map(share).collect();
    Ok(Code::OneHot { ordinal, categories, rare, shares, indicator, refuse_unseen })
}

/// Categories and what each row chooses; the levels of an ordinal column are its categories.
fn choices(values: &Values) -> (Cow<'_, [String]>, Cow<'_, [Option<usize>]>) {
    match values {
        Values::Nominal { categories, choices } => (categories.into(), choices.into()),
        Values::Ordinal { levels, answers } => {
            let values = levels.values();
            let position = |answer: f64| values.iter().position(|&value| value == answer);
            let texts: Vec<String> = values.iter().map(|&value| levels.text(value)).collect();
            let choices: Vec<_> = answers.iter().map(|answer| answer.and_then(position)).collect();
            (texts.into(), choices.into())
        }
        Values::Numeric(_) => unreachable!("numbers are not one-hot encoded"),
    }
}
