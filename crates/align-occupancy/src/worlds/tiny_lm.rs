//! A language model small enough to list everything it can say.

use crate::error::{OccupancyError, RowOf, distribution};
use crate::occupancy::Occupancy;

/// Six tokens drawn independently, responses of fixed length, a proxy that loves a glitch.
///
/// The gold reward counts tokens 3 and 4 and takes one off for each token 5; the proxy counts tokens 3 and 4 and *adds*
/// three for each token 5. Under the reference token 5 is rare, so the two agree where it matters and come apart
/// where it does not.
///
/// # Examples
/// ```
/// use align_occupancy::{Correlation, worlds::TinyLm};
///
/// let lm = TinyLm::new(4)?;
/// assert_eq!(lm.responses(), 1296);
/// let agreement = Correlation::under(lm.reference(), lm.proxy(), lm.gold())?;
/// assert!((agreement.r - 0.844_802_556).abs() < 1e-8);
/// # Ok::<(), align_occupancy::OccupancyError>(())
/// ```
#[derive(Clone, Debug)]
pub struct TinyLm {
    length: u32,
    reference: Occupancy,
    gold: Vec<f64>,
    proxy: Vec<f64>,
    glitches: Vec<f64>,
}

impl TinyLm {
    /// How many tokens there are.
    pub const VOCABULARY: usize = 6;

    /// How likely the reference says each token.
    pub const TOKEN_PROBABILITIES: [f64; 6] = [0.30, 0.25, 0.20, 0.15, 0.096, 0.004];

    /// Responses of `length` tokens under [`TOKEN_PROBABILITIES`](Self::TOKEN_PROBABILITIES): 6^length of them.
    ///
    /// # Errors
    /// If `length` is not in 1..=7: beyond, there is too much to list.
    pub fn new(length: u32) -> Result<Self, OccupancyError> {
        Self::with_probabilities(Self::TOKEN_PROBABILITIES, length)
    }

    /// The same under other token probabilities.
    ///
    /// # Errors
    /// If they are not a distribution, or `length` is not in 1..=7.
    pub fn with_probabilities(probabilities: [f64; 6], length: u32) -> Result<Self, OccupancyError> {
        let probabilities = distribution(RowOf::Probabilities, 0, &probabilities)?;
        if !(1..=7).contains(&length) {
            return Err(OccupancyError::Setting {
                name: "length",
                range: "in 1..=7",
                found: f64::from(length),
            });
        }
        let responses = Self::VOCABULARY.pow(length);
        let mut cells = Vec::with_capacity(responses);
        let (mut gold, mut proxy, mut glitches) = (cells.clone(), cells.clone(), cells.clone());
        for response in 0..responses {
            let tokens = Self::decode(response, length);
            let count = |wanted: &[usize]| tokens.iter().filter(|t| wanted.contains(t)).count() as f64;
            let (good, glitch) = (count(&[3, 4]), count(&[5]));
            cells.push(tokens.iter().map(|t| probabilities[*t]).product());
            gold.push(good - glitch);
            proxy.push(good + 3.0 * glitch);
            glitches.push(glitch);
        }
        Ok(Self { length, reference: Occupancy::rounded(cells), gold, proxy, glitches })
    }

    fn decode(mut response: usize, length: u32) -> Vec<usize> {
        let mut tokens = vec![0; length as usize];
        for token in tokens.iter_mut().rev() {
            *token = response % Self::VOCABULARY;
            response /= Self::VOCABULARY;
        }
        tokens
    }

    /// How many responses there are.
    pub fn responses(&self) -> usize {
        self.gold.len()
    }

    /// The tokens of a response, the first first.
    ///
    /// # Panics
    /// If there is no such response.
    pub fn tokens(&self, response: usize) -> Vec<usize> {
        assert!(response < self.responses(), "response {response} of {}", self.responses());
        Self::decode(response, self.length)
    }

    /// π_ref(response).
    pub fn reference(&self) -> &Occupancy {
        &self.reference
    }

    /// Tokens 3 and 4, less tokens 5.
    pub fn gold(&self) -> &[f64] {
        &self.gold
    }

    /// Tokens 3 and 4, and three for each token 5.
    pub fn proxy(&self) -> &[f64] {
        &self.proxy
    }

    /// How many tokens 5.
    pub fn glitches(&self) -> &[f64] {
        &self.glitches
    }
}
