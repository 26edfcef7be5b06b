//! The fused log-probabilities themselves.

use pulp::{Simd, WithSimd};

use super::Tilt;
use super::block::{BLOCK, Column, blocks, load, load_shift, width};

/// `out ← log P + Σ_t α_t v_t − A`.
pub(crate) fn fuse(tilts: &[Tilt<'_>], weights: &[f64], log_partition: f64, out: &mut [f32]) {
    pulp::Arch::new().dispatch(Fuse { tilts, weights, log_partition, out });
}

struct Fuse<'a, 'b> {
    tilts: &'b [Tilt<'a>],
    weights: &'b [f64],
    log_partition: f64,
    out: &'b mut [f32],
}

impl WithSimd for Fuse<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let base = &self.tilts[0];
        let log_norm = base.certainty.log_norm() + self.log_partition;
        let [mut x, mut v]: [Column; 2] = [[0.0; BLOCK]; 2];
        for tokens in blocks(base.base.len()) {
            let width = width(tokens.len());
            let (x, v) = (&mut x[..width], &mut v[..width]);
            load(&base.base[tokens.clone()], base.certainty.peak, log_norm, x);
            for (tilt, &weight) in self.tilts.iter().zip(self.weights) {
                if weight != 0.0 {
                    load_shift(&tilt.expert[tokens.clone()], &tilt.anchor[tokens.clone()], tilt.offset, v);
                    for (x, &v) in x.iter_mut().zip(v.iter()) {
                        *x += weight * v;
                    }
                }
            }
            for (out, &x) in self.out[tokens].iter_mut().zip(x.iter()) {
                *out = x as f32;
            }
        }
    }
}
