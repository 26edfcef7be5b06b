//! Factors: named groups of columns that are masked together.

use serde::{Deserialize, Serialize};

use crate::FactorsError;

/// The factors of a matrix of rows. Every column belongs to exactly one; the columns of a question that was one-hot encoded
/// belong to one factor, so that its importance is not split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Factor>", into = "Vec<Factor>")]
pub struct Factors {
    factors: Vec<Factor>,
    /// The factor of each column.
    of_column: Vec<usize>,
}

/// One factor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Factor {
    /// What it is called.
    pub name: String,
    /// Its columns.
    pub columns: Vec<usize>,
}

impl Factors {
    /// Factors over the columns 0 to the largest one named.
    ///
    /// # Errors
    /// [`FactorsError::InvalidGroups`] if there is no factor, one has no column, a name or column occurs twice, or a column is
    /// left out.
    pub fn new(factors: Vec<Factor>) -> Result<Self, FactorsError> {
        let invalid = |detail: String| Err(FactorsError::InvalidGroups { detail });
        let width = factors.iter().flat_map(|factor| &factor.columns).max().map_or(0, |last| last + 1);
        if width == 0 {
            return invalid("there is no factor with a column".to_owned());
        }
        let mut of_column = vec![None; width];
        for (index, factor) in factors.iter().enumerate() {
            if factor.columns.is_empty() {
                return invalid(format!("factor `{}` has no column", factor.name));
            }
            if factors[..index].iter().any(|other| other.name == factor.name) {
                return invalid(format!("there are two factors `{}`", factor.name));
            }
            for &column in &factor.columns {
                if let Some(other) = of_column[column].replace(index) {
                    let (first, second) = (&factors[other].name, &factor.name);
                    return invalid(format!("column {column} is in `{first}` and in `{second}`"));
                }
            }
        }
        match of_column.iter().position(Option::is_none) {
            Some(column) => invalid(format!("column {column} is in no factor")),
            None => Ok(Self { factors, of_column: of_column.into_iter().flatten().collect() }),
        }
    }

    /// One factor for each column.
    ///
    /// # Errors
    /// [`FactorsError::InvalidGroups`] if there is no name, or one occurs twice.
    pub fn columns<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Result<Self, FactorsError> {
        let single = |(column, name): (usize, N)| Factor { name: name.into(), columns: vec![column] };
        Self::new(names.into_iter().enumerate().map(single).collect())
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.factors.len()
    }

    /// Never: there is one at least.
    pub fn is_empty(&self) -> bool {
        self.factors.is_empty()
    }

    /// How many columns rows have.
    pub fn width(&self) -> usize {
        self.of_column.len()
    }

    /// Names in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.factors.iter().map(|factor| factor.name.as_str())
    }

    /// The columns of one factor.
    pub fn columns_of(&self, factor: usize) -> &[usize] {
        &self.factors[factor].columns
    }

    /// The factor of one column.
    pub fn of_column(&self, column: usize) -> usize {
        self.of_column[column]
    }

    /// The position of a name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.factors.iter().position(|factor| factor.name == name)
    }
}

impl TryFrom<Vec<Factor>> for Factors {
    type Error = FactorsError;

    fn try_from(factors: Vec<Factor>) -> Result<Self, FactorsError> {
        Self::new(factors)
    }
}

impl From<Factors> for Vec<Factor> {
    fn from(factors: Factors) -> Self {
        factors.factors
    }
}
