//! Rotary position embedding, in the rotate-half form of Hugging Face checkpoints.

use burn::Tensor;
use burn::tensor::{DType, Device, Int, TensorData};

use crate::plain;

/// Cosines and sines of every position's angles: `cos(p·ωᵢ)·s`, `sin(p·ωᵢ)·s`.
///
/// Keep it on the plain device; tables are constants.
#[derive(Clone, Debug)]
pub struct RotaryTable {
    cos: Tensor<2>,
    sin: Tensor<2>,
}

/// The angles of one batch: [`RotaryTable::at`] picks them once, every layer and both of query and key use them.
#[derive(Clone, Debug)]
pub struct Rotation {
    pub(crate) cos: Tensor<3>,
    pub(crate) sin: Tensor<3>,
}

impl RotaryTable {
    /// Computes the table for `positions` positions from the inverse frequencies ω.
    ///
    /// `scale` multiplies cosine and sine (YaRN's attention factor; 1 otherwise). Angles are products in f32, as in
    /// transformers, so that long contexts agree with it; their cosine is then taken in f64.
    ///
    /// # Shapes
    /// `inverse_frequencies`: `R/2` numbers, where the first `R` of a head's dimensions are rotated.
    pub fn new(inverse_frequencies: &[f32], positions: usize, scale: f64, device: &Device) -> Self {
        let device = device.clone().without_autodiff();
        let shape = [positions, inverse_frequencies.len()];
        let table = |function: fn(f64) -> f64| {
            let values: Vec<f32> = (0..positions)
                .flat_map(|position| {
                    let angles = inverse_frequencies.iter().map(move |frequency| position as f32 * frequency);
                    angles.map(|angle| (function(f64::from(angle)) * scale) as f32)
                })
                .collect();
            Tensor::from_data(TensorData::new(values, shape), &device)
        };
        Self { cos: table(f64::cos), sin: table(f64::sin) }
    }

    /// How many positions the table holds.
    pub fn positions(&self) -> usize {
        self.cos.dims()[0]
    }

    /// How many of a head's dimensions are rotated, `R`.
    pub fn rotated(&self) -> usize {
        2 * self.cos.dims()[1]
    }

    /// The angles at the given positions. Rows padded on the left have positions of their own; a padded column may hold
    /// any position of the table, 0 by custom.
    ///
    /// # Shapes
    /// `positions`: `[B, T]`, or `[1, T]` for all rows alike.
    ///
    /// # Panics
    /// On Flex if a position is outside the table. Devices that read silently past it do not panic: size the table first.
    pub fn at(&self, positions: &Tensor<2, Int>) -> Rotation {
        let [b, t] = positions.dims();
        let indices = positions.clone().without_autodiff().reshape([b * t]);
        let pick =
            |table: &Tensor<2>| table.clone().select(0, indices.clone()).reshape([b, t, table.dims()[1]]);
        Rotation { cos: pick(&self.cos), sin: pick(&self.sin) }
    }
}

impl Rotation {
    /// Angles given directly, `[B or 1, T, R/2]` each.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn new(cos: Tensor<3>, sin: Tensor<3>) -> Self {
        assert_eq!(cos.dims(), sin.dims(), "Rotation::new: cos and sin must have the same shape");
        Self { cos: cos.without_autodiff(), sin: sin.without_autodiff() }
    }

    /// The angles in another precision, for a model that computes in it.
    pub fn cast(self, dtype: DType) -> Self {
        Self { cos: self.cos.cast(dtype), sin: self.sin.cast(dtype) }
    }

    /// `[B or 1, T, R/2]`.
    pub fn dims(&self) -> [usize; 3] {
        self.cos.dims()
    }
}

/// Turns each pair `(xᵢ, xᵢ₊ᴿᐟ²)` of the first `R` dimensions by its angle and leaves the others alone.
///
/// `yᵢ = xᵢ·cos − xᵢ₊ᴿᐟ²·sin` and `yᵢ₊ᴿᐟ² = xᵢ₊ᴿᐟ²·cos + xᵢ·sin`. Burn's own encoding pairs neighbours instead.
///
/// # Shapes
/// `x`: `[B, H, T, D]` with `D ≥ R`; `rotation`: `[B or 1, T, R/2]`.
///
/// # Gradient
/// Through `x`, turned back; the angles are constants.
///
/// # Panics
/// If the shapes do not fit.
///
/// # Source
/// Su et al. 2021, eq. 34, <https://arxiv.org/abs/2104.09864>, with the pairing of transformers' `rotate_half`.
pub fn rope(x: Tensor<4>, rotation: &Rotation) -> Tensor<4> {
    let ([b, _, t, d], [rows, columns, half]) = (x.dims(), rotation.dims());
    assert!(
        (rows == b || rows == 1) && columns == t && 2 * half <= d,
        "rope: x has shape {:?}, the rotation {:?}; expected [{b} or 1, {t}, at most {}]",
        x.dims(),
        rotation.dims(),
        d / 2
    );
    #[cfg(feature = "flex")]
    if crate::device::is_fused(&x) && crate::device::is_fused(&rotation.cos) {
        return crate::flex::rope(x, rotation);
    }
    plain::rope(x, rotation)
}
