//! Training, validation and test rows, told apart by type.
//!
//! Which part a row is in decides what may be computed from it: encodings and knowledge come from training rows, settings
//! are chosen on validation rows, and what is claimed is measured on test rows. [`Rows`] and [`Design`](crate::Design)
//! carry the part in their type, so that a mix-up does not compile.

use std::marker::PhantomData;

use align_core::draws::{Draws, Purpose};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::table::Table;

mod sealed {
    pub trait Sealed {}
}

/// A part of the data.
pub trait Part: sealed::Sealed + Clone + std::fmt::Debug + PartialEq + 'static {
    /// What it is called.
    const NAME: &'static str;
    /// Its stream of random numbers, where rows are made rather than read.
    const STREAM: u64;
}

macro_rules! part {
    ($(#[$doc:meta])* $name:ident, $text:literal, $stream:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {}

        impl sealed::Sealed for $name {}

        impl Part for $name {
            const NAME: &'static str = $text;
            const STREAM: u64 = $stream;
        }
    };
}

part!(
    /// Rows that parameters, encodings and knowledge are fitted on.
    Train, "training", 0
);
part!(
    /// Rows that settings and stopping times are chosen on.
    Validation, "validation", 1
);
part!(
    /// Rows that nothing is chosen on.
    Test, "test", 2
);

/// Positions of one part's rows in a table, ascending.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows<P> {
    positions: Vec<usize>,
    part: PhantomData<P>,
}

impl<P: Part> Rows<P> {
    /// All rows of a table, where the parts are files of their own; the caller vouches for the part.
    pub fn all(table: &Table) -> Self {
        Self::of((0..table.len()).collect())
    }

    fn of(mut positions: Vec<usize>) -> Self {
        positions.sort_unstable();
        Self { positions, part: PhantomData }
    }

    /// The positions.
    pub fn positions(&self) -> &[usize] {
        &self.positions
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }
}

/// How much of the data each part gets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawShares", into = "RawShares")]
pub struct Shares(RawShares);

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawShares {
    train: f64,
    validation: f64,
    test: f64,
}

impl Shares {
    /// Three shares.
    ///
    /// # Errors
    /// [`SplitError::Shares`] unless they are non-negative, `train` is above 0, and they sum to 1 within 1e-9.
    pub fn new(train: f64, validation: f64, test: f64) -> Result<Self, SplitError> {
        let sum = train + validation + test;
        if train > 0.0 && validation >= 0.0 && test >= 0.0 && (sum - 1.0).abs() <= 1e-9 {
            Ok(Self(RawShares { train, validation, test }))
        } else {
            Err(SplitError::Shares { train, validation, test })
        }
    }

    fn parts(self) -> [f64; 3] {
        [self.0.train, self.0.validation, self.0.test]
    }
}

impl Default for Shares {
    /// 0.6, 0.2 and 0.2: λ and stopping times are chosen on the second, so it must be as trustworthy as the third.
    fn default() -> Self {
        Self(RawShares { train: 0.6, validation: 0.2, test: 0.2 })
    }
}

impl TryFrom<RawShares> for Shares {
    type Error = SplitError;

    fn try_from(shares: RawShares) -> Result<Self, SplitError> {
        Self::new(shares.train, shares.validation, shares.test)
    }
}

impl From<Shares> for RawShares {
    fn from(shares: Shares) -> Self {
        shares.0
    }
}

/// A table that cannot be split as asked.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum SplitError {
    /// The shares are none.
    #[error(
        "shares must be non-negative, with some for training, and sum to 1; found train {train}, \
         validation {validation}, test {test}"
    )]
    Shares {
        /// Of training rows.
        train: f64,
        /// Of validation rows.
        validation: f64,
        /// Of test rows.
        test: f64,
    },
    /// A part with a share would get no row.
    #[error("the {part} part would be empty: a share of {share} of {rows} rows is less than one row")]
    Empty {
        /// The part.
        part: &'static str,
        /// Its share.
        share: f64,
        /// Rows of the table.
        rows: usize,
    },
}

/// Three parts of a table, without a row in common, that together have every row.
///
/// # Examples
/// ```
/// use align_factors::{Shares, Split};
///
/// let split = Split::random(100, Shares::new(0.5, 0.25, 0.25)?, 7)?;
/// assert_eq!((split.train.len(), split.validation.len(), split.test.len()), (50, 25, 25));
/// # Ok::<(), align_factors::SplitError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// To fit on.
    pub train: Rows<Train>,
    /// To choose on.
    pub validation: Rows<Validation>,
    /// To be judged on.
    pub test: Rows<Test>,
}

impl Split {
    /// At random.
    ///
    /// # Errors
    /// [`SplitError::Empty`] if a part with a share gets no row.
    pub fn random(rows: usize, shares: Shares, seed: u64) -> Result<Self, SplitError> {
        Self::dealt(shuffled(rows, seed), shares)
    }

    /// At random, with every part's labels distributed as the table's, up to about one row for each label and part.
    ///
    /// # Errors
    /// [`SplitError::Empty`] if a part with a share gets no row.
    pub fn stratified(labels: &[f64], shares: Shares, seed: u64) -> Result<Self, SplitError> {
        let mut order = shuffled(labels.len(), seed);
        order.sort_by(|&a, &b| labels[a].total_cmp(&labels[b]));
        Self::dealt(order, shares)
    }

    /// Deals rows like cards: each goes to the part that is furthest behind its share, so that every stretch of the order is
    /// divided by the shares.
    fn dealt(order: Vec<usize>, shares: Shares) -> Result<Self, SplitError> {
        let shares = shares.parts();
        let rows = order.len();
        let mut parts: [Vec<usize>; 3] = Default::default();
        for (before, row) in order.into_iter().enumerate() {
            let behind = |part: usize| shares[part] * (before + 1) as f64 - parts[part].len() as f64;
            // On a tie the later part, so that training, the largest, is the one that waits.
            let next = (0..3)
                .filter(|&part| shares[part] > 0.0)
                .max_by(|&a, &b| behind(a).total_cmp(&behind(b)))
                .expect("training has a share");
            parts[next].push(row);
        }
        for (part, name) in [Train::NAME, Validation::NAME, Test::NAME].into_iter().enumerate() {
            if shares[part] > 0.0 && parts[part].is_empty() {
                return Err(SplitError::Empty { part: name, share: shares[part], rows });
            }
        }
        let [train, validation, test] = parts;
        Ok(Self { train: Rows::of(train), validation: Rows::of(validation), test: Rows::of(test) })
    }
}

fn shuffled(rows: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows).collect();
    order.shuffle(&mut Draws::new(seed).generator(Purpose::Shuffle, 0));
    order
}
