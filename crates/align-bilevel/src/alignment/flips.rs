//! Labels made wrong on purpose, once and on record.

use align_core::draws::{Draws, Purpose};
use align_core::number::UnitInterval;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

/// Which pairs have their answers exchanged.
///
/// Drawn once and kept: a mask that is drawn again on every pass corrupts nothing, it smooths the labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flips {
    /// True where chosen and rejected answer change places.
    pub mask: Vec<bool>,
}

/// Flips exactly `round(share · count)` of `count` pairs, every choice of them as likely as any other.
///
/// A pair has two labels, so a flipped one is always wrong where it was right: the share is the rate of corruption, with
/// nothing lost to "corruptions" that draw the right label again.
///
/// # Examples
/// ```
/// use align_bilevel::alignment::flip_share;
///
/// let flips = flip_share(400, 0.25.try_into()?, 7);
/// assert_eq!(flips.mask.iter().filter(|&&flipped| flipped).count(), 100);
/// # Ok::<(), align_core::number::NumberError>(())
/// ```
pub fn flip_share(count: usize, share: UnitInterval, seed: u64) -> Flips {
    let flipped = (share.get() * count as f64).round() as usize;
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut Draws::new(seed).generator(Purpose::Label, 0));
    let mut mask = vec![false; count];
    order[..flipped].iter().for_each(|&row| mask[row] = true);
    Flips { mask }
}

impl Flips {
    /// Feature differences, or margins, change sign where a pair is flipped.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn apply(&self, rows: &mut [Vec<f64>]) {
        assert_eq!(rows.len(), self.mask.len(), "one entry of the mask for each pair");
        for (row, _) in rows.iter_mut().zip(&self.mask).filter(|(_, flipped)| **flipped) {
            row.iter_mut().for_each(|feature| *feature = -*feature);
        }
    }
}
