//! Averages of the weights along a training.

use serde::{Deserialize, Deserializer, Serialize, de::Error};

/// Which average is kept beside the last weights.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum AverageConfig {
    /// s ← d·s + (1−d)·θ, beginning at the weights training begins at.
    Ema {
        /// d, between 0 and 1, both excluded: 0 is the last weights, 1 the first.
        #[serde(deserialize_with = "decay")]
        decay: f64,
        /// Steps between updates.
        #[serde(default = "every_step", deserialize_with = "steps")]
        every: u64,
    },
    /// The mean of the last snapshots (Kaddour 2022).
    Lawa {
        /// Steps between snapshots.
        #[serde(deserialize_with = "steps")]
        every: u64,
        /// How many snapshots; one would be the weights themselves.
        #[serde(deserialize_with = "snapshots")]
        last: usize,
    },
}

impl AverageConfig {
    /// Steps between updates or snapshots.
    pub(crate) fn every(&self) -> u64 {
        match self {
            Self::Ema { every, .. } | Self::Lawa { every, .. } => *every,
        }
    }

    /// Refuses what would make no difference in a training of so many steps.
    pub(crate) fn check(&self, total: u64) -> Result<(), AverageError> {
        let taken = total / self.every();
        match self {
            _ if taken == 0 => Err(AverageError::Never { every: self.every(), steps: total }),
            Self::Lawa { last, every } if taken < *last as u64 => {
                Err(AverageError::TooFew { last: *last, taken, every: *every, steps: total })
            }
            _ => Ok(()),
        }
    }
}

/// Why an average would be none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AverageError {
    /// Training ends before the first update.
    #[error("`average.every` is {every}, expected at most the {steps} steps of the training")]
    Never {
        /// Steps between updates.
        every: u64,
        /// Steps of the training.
        steps: u64,
    },
    /// Training ends before there are as many snapshots as asked for.
    #[error(
        "`average.last` is {last}, expected at most {taken}: {steps} steps give so many snapshots, one every {every}"
    )]
    TooFew {
        /// How many snapshots are asked for.
        last: usize,
        /// How many there will be.
        taken: u64,
        /// Steps between snapshots.
        every: u64,
        /// Steps of the training.
        steps: u64,
    },
}

fn every_step() -> u64 {
    1
}

fn decay<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let decay = f64::deserialize(deserializer)?;
    match decay > 0.0 && decay < 1.0 {
        true => Ok(decay),
        false => Err(D::Error::custom(format_args!("expected a number above 0 and below 1, found {decay}"))),
    }
}

fn steps<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match u64::deserialize(deserializer)? {
        0 => Err(D::Error::custom("expected at least 1, found 0")),
        steps => Ok(steps),
    }
}

fn snapshots<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    match usize::deserialize(deserializer)? {
        count @ (0 | 1) => Err(D::Error::custom(format_args!("expected at least 2, found {count}"))),
        count => Ok(count),
    }
}
