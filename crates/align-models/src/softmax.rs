//! Softmax of one row on the host: maximum, normaliser, inverse-CDF draw.

/// Terms summed in f32 before the sum goes on in f64.
const BLOCK: usize = 128;
/// Sums kept side by side, so that adding them is vector code too.
const LANES: usize = 16;

/// The normaliser of `softmax(scores)`: everything needed to turn a score into a probability.
#[derive(Clone, Debug)]
pub(crate) struct Softmax {
    maximum: f32,
    /// `Σ exp(score − maximum)`; NaN if a score is NaN or if no score is finite.
    total: f64,
    /// The part of `total` that each block of scores contributes.
    blocks: Vec<f64>,
}

impl Softmax {
    /// Reads the scores twice: for their maximum and for their sum. −∞ counts as probability 0.
    pub(crate) fn of(scores: &[f32]) -> Self {
        let maximum = maximum(scores);
        Self::summed(scores, maximum, |score| score - maximum)
    }

    /// Of `scores / temperature`, without writing that down.
    pub(crate) fn of_scaled(scores: &[f32], temperature: f32) -> Self {
        if temperature == 1.0 {
            return Self::of(scores);
        }
        let maximum = maximum(scores) / temperature;
        Self::summed(scores, maximum, |score| score / temperature - maximum)
    }

    #[inline(always)]
    fn summed(scores: &[f32], maximum: f32, exponent: impl Fn(f32) -> f32) -> Self {
        let sum = |block: &[f32]| {
            let mut sums = [0.0f32; LANES];
            let lanes = block.chunks_exact(LANES);
            for (sum, &score) in sums.iter_mut().zip(lanes.remainder()) {
                *sum = exp_nonpositive(exponent(score));
            }
            for scores in lanes {
                for (sum, &score) in sums.iter_mut().zip(scores) {
                    *sum += exp_nonpositive(exponent(score));
                }
            }
            f64::from(sums.iter().sum::<f32>())
        };
        let blocks: Vec<f64> = scores.chunks(BLOCK).map(sum).collect();
        // An infinite maximum would leave ∞ − ∞ for one term and zeros for the others.
        let total = if maximum.is_finite() { blocks.iter().sum() } else { f64::NAN };
        Self { maximum, total, blocks }
    }

    /// `log softmax` at one score (already divided by the temperature), nats.
    pub(crate) fn log_probability(&self, score: f32) -> f64 {
        f64::from(score) - f64::from(self.maximum) - self.total.ln()
    }

    /// `softmax` at one score.
    pub(crate) fn probability(&self, score: f32) -> f64 {
        f64::from(exp_nonpositive(score - self.maximum)) / self.total
    }

    /// False if the scores did not define a distribution.
    pub(crate) fn is_finite(&self) -> bool {
        self.total.is_finite()
    }

    /// The first token at which the cumulated probability exceeds `uniform`: the inverse of the distribution function.
    ///
    /// `scores` are those this was made [`of`](Self::of). Never a token of probability 0; the last possible one of its block
    /// where rounding leaves the sum short.
    pub(crate) fn invert(&self, scores: &[f32], uniform: f64) -> u32 {
        let target = uniform * self.total;
        let (mut before, mut chosen) = (0.0, None);
        for (block, &mass) in self.blocks.iter().enumerate().filter(|(_, mass)| **mass > 0.0) {
            // Where rounding leaves the sum short, the last block with mass stands.
            chosen = Some((block, before));
            before += mass;
            if before > target {
                break;
            }
        }
        let (block, mut sum) = chosen.expect("a distribution has mass somewhere");
        let (start, mut last) = (block * BLOCK, 0);
        for (offset, &score) in scores[start..].iter().take(BLOCK).enumerate() {
            let weight = f64::from(exp_nonpositive(score - self.maximum));
            if weight > 0.0 {
                sum += weight;
                last = start + offset;
                if sum > target {
                    break;
                }
            }
        }
        last as u32
    }
}

/// The largest score; NaN is passed over, −∞ if there is none.
fn maximum(scores: &[f32]) -> f32 {
    let mut best = [f32::NEG_INFINITY; LANES];
    let lanes = scores.chunks_exact(LANES);
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    for &score in lanes.remainder() {
        best[0] = larger(best[0], score);
    }
    for scores in lanes {
        for (best, &score) in best.iter_mut().zip(scores) {
            *best = larger(*best, score);
        }
    }
    best.into_iter().fold(f32::NEG_INFINITY, larger)
}

/// The first of the largest scores.
pub(crate) fn argmax(scores: &[f32]) -> u32 {
    let mut best = 0;
    for (id, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = id;
        }
    }
    best as u32
}

/// `eˣ` for `x ≤ 0`, within two units in the last place; 0 below −87, NaN for NaN.
///
/// `eˣ = 2ᵏ·eʳ` with `k = round(x / ln 2)` and `|r| ≤ ln 2 / 2`, `eʳ` by its series to r⁷ (remainder below 1e-8).
/// Free of branches and calls, so that the loops around it become vector code; the C library's is not.
#[inline(always)]
fn exp_nonpositive(x: f32) -> f32 {
    /// 1.5·2²³: adding it rounds to an integer and leaves that integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts, the first with enough trailing zeros that k times it is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x < -87.0 { -87.0 } else { x };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = clamped - k * LN_2_HIGH - k * LN_2_LOW;
    let series = 1.0
        + r * (1.0
            + r * (0.5
                + r * (1.0 / 6.0
                    + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0)))))));
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.0 { 0.0 } else { series * power }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_agrees_with_the_library() {
        for step in 0..=87_000 {
            let x = -(step as f32) / 1000.0;
            let (found, exact) = (f64::from(exp_nonpositive(x)), f64::from(x).exp());
            // Two units of 2⁻²³ relative: the last rounding and those of the series.
            assert!((found - exact).abs() <= exact * 2.4e-7, "exp({x}) = {exact}, found {found}");
        }
        assert_eq!(exp_nonpositive(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp_nonpositive(-88.0), 0.0);
        assert!(exp_nonpositive(f32::NAN).is_nan());
    }

    #[test]
    fn a_row_without_a_distribution_is_noticed() {
        for bad in [[f32::NAN, 0.0], [f32::NEG_INFINITY; 2], [f32::INFINITY, 0.0]] {
            assert!(!Softmax::of(&bad).is_finite(), "{bad:?}");
        }
        assert!(Softmax::of(&[0.0, f32::NEG_INFINITY]).is_finite());
    }

    #[test]
    fn the_inverse_walks_the_blocks_as_one_row() {
        // 1000 tokens over eight blocks; every third is removed. The running sum in f64 says which token it has to be.
        let scores: Vec<f32> = (0..1000)
            .map(|id| if id % 3 == 0 { f32::NEG_INFINITY } else { (id as f32 * 0.7).sin() * 3.0 })
            .collect();
        let softmax = Softmax::of(&scores);
        let (mut cumulated, mut middle) = (0.0, Vec::new());
        let total: f64 = scores.iter().map(|&score| f64::from(score).exp()).sum();
        for &score in &scores {
            let p = f64::from(score).exp() / total;
            middle.push((cumulated + 0.5 * p, p));
            cumulated += p;
        }
        for (id, &(uniform, p)) in middle.iter().enumerate() {
            // The middle of a step of 1e-5 is far from its ends in f32 sums.
            if p > 1e-5 {
                assert_eq!(softmax.invert(&scores, uniform), id as u32);
            }
        }
        assert!(
            middle.iter().filter(|(_, p)| *p > 1e-5).count() > 600,
            "nearly all that remain are asked for"
        );
        assert_eq!(softmax.invert(&scores, 0.0), 1);
        assert_eq!(softmax.invert(&scores, 1.0), 998);
    }

    #[test]
    fn a_removed_token_is_never_drawn() {
        // Only token 1 is possible, whatever is drawn, the ends of the interval included.
        let scores = [f32::NEG_INFINITY, 3.0, f32::NEG_INFINITY];
        let softmax = Softmax::of(&scores);
        for uniform in [0.0, 0.5, 1.0 - f64::EPSILON, 1.0] {
            assert_eq!(softmax.invert(&scores, uniform), 1);
        }
    }
}
