//! Numbers that have a range, checked where they enter the program.
//!
//! A recipe with `beta = -1.0` is refused while it is read, with the value and the range; the program never sees an
//! unchecked number.
//!
//! # Examples
//! ```
//! use align_core::number::{NumberError, Positive};
//!
//! let epsilon = Positive::try_from(0.2)?;
//! assert_eq!(epsilon.get(), 0.2);
//! let error = Positive::try_from(-1.0).unwrap_err();
//! assert_eq!(error.to_string(), "expected a finite number > 0, found -1");
//! # Ok::<(), NumberError>(())
//! ```

// The ranges are checked in constants too, where `RangeInclusive::contains` cannot be called.
#![allow(clippy::manual_range_contains)]

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// A number outside its range.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[error("expected {range}, found {value}")]
pub struct NumberError {
    /// What was given.
    pub value: f64,
    /// What would have been accepted, in words.
    pub range: &'static str,
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $range:literal, |$value:ident| $accept:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(try_from = "f64", into = "f64")]
        pub struct $name(f64);

        impl $name {
            /// What is accepted, in words.
            pub const RANGE: &'static str = $range;

            /// A number written in the source; in a constant the check happens while compiling.
            ///
            /// # Panics
            /// If the number is out of range.
            pub const fn literal($value: f64) -> Self {
                assert!($accept, "a literal is out of range");
                Self($value)
            }

            /// The number.
            pub const fn get(self) -> f64 {
                self.0
            }
        }

        impl TryFrom<f64> for $name {
            type Error = NumberError;

            fn try_from($value: f64) -> Result<Self, NumberError> {
                if $accept { Ok(Self($value)) } else { Err(NumberError { value: $value, range: $range }) }
            }
        }

        impl From<$name> for f64 {
            fn from(number: $name) -> Self {
                number.0
            }
        }

        impl Deref for $name {
            type Target = f64;

            fn deref(&self) -> &f64 {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

number!(
    /// A finite number above 0: a learning rate, a clip range, a temperature.
    Positive, "a finite number > 0", |value| value > 0.0 && value.is_finite()
);
number!(
    /// A finite number of at least 0: a coefficient that may be switched off.
    NonNegative, "a finite number >= 0", |value| value >= 0.0 && value.is_finite()
);
number!(
    /// Any finite number: a penalty, a margin, a target.
    Finite, "a finite number", |value| value.is_finite()
);
number!(
    /// A number in [0, 1]: a discount, a decay, an interpolation weight.
    UnitInterval, "a number in [0, 1]", |value| value >= 0.0 && value <= 1.0
);
number!(
    /// A probability, in [0, 1].
    Probability, "a probability in [0, 1]", |value| value >= 0.0 && value <= 1.0
);
number!(
    /// A share of wrong labels, in [0, 0.5): at a half they say nothing, beyond they say the opposite.
    NoiseRate, "a number in [0, 0.5)", |value| value >= 0.0 && value < 0.5
);
number!(
    /// A part of a whole that may be all of it but not nothing, in (0, 1]: the mass kept by top-p.
    Fraction, "a number in (0, 1]", |value| value > 0.0 && value <= 1.0
);
