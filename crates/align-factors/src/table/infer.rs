//! The kind of a column that no schema names.

use super::read::Raw;
use super::{ColumnSchema, Levels, TableError};

/// An undeclared column with more different texts than this is a name or an essay.
const MOST_CATEGORIES: usize = 100;

/// The longest scale that is taken for one: 0 to 10.
const HIGHEST_LEVEL: f64 = 10.0;

/// What surveys with short scales keep for refusal, don't know and no answer.
const USUAL_CODES: [f64; 3] = [97.0, 98.0, 99.0];

/// Whole numbers up to ten are a scale, other numbers are numeric, texts are nominal.
pub(super) fn inferred<'a>(
    raw: &Raw,
    column: usize,
    cells: impl Iterator<Item = Option<&'a str>> + Clone,
) -> Result<ColumnSchema, TableError> {
    let name = raw.header[column].to_owned();
    let parsed: Option<Vec<f64>> = cells.clone().flatten().map(number).collect();
    let Some(numbers) = parsed else {
        let mut texts: Vec<&str> = cells.flatten().collect();
        texts.sort_unstable();
        texts.dedup();
        if texts.len() > MOST_CATEGORIES {
            return Err(TableError::TooManyCategories {
                path: raw.path.clone(),
                column: name,
                found: texts.len(),
                limit: MOST_CATEGORIES,
            });
        }
        return Ok(ColumnSchema::Nominal { categories: Vec::new(), missing: Vec::new() });
    };
    let numeric = ColumnSchema::Numeric { missing: Vec::new() };
    if numbers.is_empty() || numbers.iter().any(|number| number.fract() != 0.0) {
        return Ok(numeric);
    }
    let is_usual = |number: f64| USUAL_CODES.contains(&number);
    let short = numbers.iter().all(|&number| number <= HIGHEST_LEVEL || is_usual(number));
    let suspect = |number: f64| number < 0.0 || (short && is_usual(number));
    for (row, text) in cells.enumerate().filter_map(|(row, cell)| cell.map(|text| (row, text))) {
        if number(text).is_some_and(suspect) {
            return Err(TableError::UndeclaredCode {
                place: raw.place(row),
                column: name,
                found: text.to_owned(),
            });
        }
    }
    let (low, high) = numbers.iter().fold((f64::INFINITY, 0.0_f64), |(l, h), &x| (l.min(x), h.max(x)));
    let is_scale = short && low < high;
    Ok(if is_scale {
        ColumnSchema::Ordinal { levels: Levels::range(low as i64, high as i64), missing: Vec::new() }
    } else {
        numeric
    })
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}
