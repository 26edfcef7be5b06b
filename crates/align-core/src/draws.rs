//! Randomness by counter: a draw is a pure function of what it is for.
//!
//! The generator is Philox4×32-10: a keyed bijection of a 128-bit counter. Nothing is advanced and nothing has to be
//! saved; a draw for (seed, step, prompt, sample, position) is the same whatever else was drawn, in whichever order.
//!
//! # Source
//! Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", SC'11; checked in the tests against
//! the known answers of the Random123 library.

use rand::{SeedableRng, rngs::StdRng};

/// What a family of draws is for. Two purposes never share a random number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Choosing the next token.
    Sample = 0,
    /// The order in which data is visited.
    Shuffle = 1,
    /// Initial weights.
    Initialize = 2,
    /// Dropout masks.
    Dropout = 3,
    /// The order of minibatches inside an update.
    Minibatch = 4,
    /// Evaluation, apart from training so that evaluating changes nothing.
    Evaluate = 5,
    /// Generated data.
    Synthesize = 6,
    /// Labels drawn from the probability of a preference.
    Label = 7,
}

/// Seeded draws, addressed by counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draws {
    seed: u64,
}

impl Draws {
    /// Draws of one run.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The seed these draws were made from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A number uniform on [0, 1), with 53 random bits, for one token of one sample of one prompt at one step.
    pub fn token(&self, purpose: Purpose, step: u64, prompt: u64, sample: u32, position: u32) -> f64 {
        // The step and the prompt are mixed into the key's stream, so that the counter holds the rest whole.
        let stream = mix(mix(self.seed ^ mix(u64::from(purpose as u32) + 1)) ^ step);
        let counter = [prompt as u32, (prompt >> 32) as u32, sample, position];
        let [high, low, ..] = philox(counter, [stream as u32, (stream >> 32) as u32]);
        unit(high, low)
    }

    /// A standard normal number (Box and Muller), for number `index` of a list.
    pub fn normal(&self, purpose: Purpose, list: u64, index: u64) -> f64 {
        let u = |sample| self.token(purpose, list, index, sample, 0);
        (-2.0 * (1.0 - u(0)).ln()).sqrt() * (std::f64::consts::TAU * u(1)).cos()
    }

    /// A generator of its own for one purpose at one step, for shuffles and initial weights.
    pub fn generator(&self, purpose: Purpose, step: u64) -> StdRng {
        let mut seed = [0u8; 32];
        let key = [self.seed as u32, (self.seed >> 32) as u32];
        for (half, bytes) in seed.chunks_mut(16).enumerate() {
            let words = philox([step as u32, (step >> 32) as u32, purpose as u32, half as u32], key);
            for (word, bytes) in words.iter().zip(bytes.chunks_mut(4)) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
        }
        StdRng::from_seed(seed)
    }

    /// Draws of a part of the run, independent of these and of every other part.
    pub fn child(&self, part: u64) -> Self {
        Self { seed: mix(self.seed ^ mix(part.wrapping_add(0x9E37_79B9_7F4A_7C15))) }
    }
}

/// 53 bits of two words as a number in [0, 1).
fn unit(high: u32, low: u32) -> f64 {
    let bits = (u64::from(high) << 21) ^ (u64::from(low) >> 11);
    bits as f64 / (1u64 << 53) as f64
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection that spreads every bit.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Philox4×32 with ten rounds.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        let first = u64::from(counter[0]) * 0xD251_1F53;
        let second = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (second >> 32) as u32 ^ counter[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ counter[3] ^ key[1],
            first as u32,
        ];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers distributed with Random123 (kat_vectors, philox4x32-10).
    #[test]
    fn philox_gives_the_published_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn every_coordinate_of_a_draw_matters() {
        let draws = Draws::new(7);
        let base = draws.token(Purpose::Sample, 1, 2, 3, 4);
        assert_eq!(base, draws.token(Purpose::Sample, 1, 2, 3, 4));
        for other in [
            Draws::new(8).token(Purpose::Sample, 1, 2, 3, 4),
            draws.token(Purpose::Evaluate, 1, 2, 3, 4),
            draws.token(Purpose::Sample, 0, 2, 3, 4),
            draws.token(Purpose::Sample, 1, 1, 3, 4),
            draws.token(Purpose::Sample, 1, 2, 2, 4),
            draws.token(Purpose::Sample, 1, 2, 3, 3),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn draws_are_uniform() {
        // n = 40 000: the mean of a uniform has standard error 0.2887 / 200 = 0.00144; five of them, fixed seed.
        let draws = Draws::new(3);
        let mean = (0..40_000).map(|p| draws.token(Purpose::Sample, 0, p, 0, 0)).sum::<f64>() / 40_000.0;
        assert!((mean - 0.5).abs() < 5.0 * 0.00144, "{mean}");
    }

    #[test]
    fn normal_draws_have_mean_0_and_variance_1() {
        // n = 40 000: standard errors 1/200 of the mean and √2/200 of the variance; five of them, fixed seed.
        let draws = Draws::new(3);
        let drawn: Vec<f64> = (0..40_000).map(|index| draws.normal(Purpose::Initialize, 1, index)).collect();
        let mean = drawn.iter().sum::<f64>() / 40_000.0;
        let variance = drawn.iter().map(|x| x * x).sum::<f64>() / 40_000.0;
        assert!(mean.abs() < 5.0 / 200.0, "{mean}");
        assert!((variance - 1.0).abs() < 5.0 * 2.0_f64.sqrt() / 200.0, "{variance}");
    }
}
