//! Angles of rotary position embeddings, and tables of them made on demand.

use std::sync::{Arc, Mutex, PoisonError};

use align_kernels::{RotaryTable, Rotation};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::config::{RotaryConfig, RotaryScaling};

/// The inverse frequencies ω and the factor of cosine and sine, for sequences of the given length.
///
/// The length matters to `dynamic` scaling only.
///
/// # Source
/// transformers 5, `modeling_rope_utils.py`; Peng et al. 2023 (YaRN), <https://arxiv.org/abs/2309.00071>.
pub fn inverse_frequencies(config: &RotaryConfig, length: usize) -> (Vec<f32>, f64) {
    let dims = config.rotated as f64;
    let plain = |theta: f64| move |i: usize| theta.powf(-(2.0 * i as f64) / dims);
    let half = 0..config.rotated / 2;
    let base = plain(config.theta);
    let to_f32 = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect();
    match config.scaling {
        RotaryScaling::Default => (to_f32(half.map(base).collect()), 1.0),
        RotaryScaling::Linear { factor } => (to_f32(half.map(|i| base(i) / factor).collect()), 1.0),
        RotaryScaling::Dynamic { factor, max_positions } => {
            let length = length.max(max_positions) as f64;
            let growth = factor * length / max_positions as f64 - (factor - 1.0);
            let stretched = plain(config.theta * growth.powf(dims / (dims - 2.0)));
            (to_f32(half.map(stretched).collect()), 1.0)
        }
        RotaryScaling::Llama3 { factor, low, high, original } => {
            let original = original as f64;
            let stretch = |frequency: f64| {
                let wavelength = std::f64::consts::TAU / frequency;
                if wavelength < original / high {
                    frequency
                } else if wavelength > original / low {
                    frequency / factor
                } else {
                    let smooth = (original / wavelength - low) / (high - low);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            };
            (to_f32(half.map(|i| stretch(base(i))).collect()), 1.0)
        }
        RotaryScaling::Yarn { factor, original, attention_factor, beta_fast, beta_slow, truncate } => {
            // The dimension that turns `rotations` times over the original context.
            let dimension = |rotations: f64| {
                dims * (original as f64 / (rotations * std::f64::consts::TAU)).ln()
                    / (2.0 * config.theta.ln())
            };
            let (mut low, mut high) = (dimension(beta_fast), dimension(beta_slow));
            if truncate {
                (low, high) = (low.floor(), high.ceil());
            }
            (low, high) = (low.max(0.0), high.min(dims - 1.0));
            if low == high {
                high += 0.001;
            }
            let stretch = |i: usize| {
                let divided = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                base(i) / factor * divided + base(i) * (1.0 - divided)
            };
            (to_f32(half.map(stretch).collect()), attention_factor)
        }
    }
}

/// Rotations for any positions: tables grow to the longest sequence seen and are shared by clones of a model.
#[derive(Clone, Debug)]
pub(crate) struct Rotary {
    config: Arc<RotaryConfig>,
    /// One table for each device used so far.
    tables: Arc<Mutex<Vec<(Device, RotaryTable)>>>,
}

impl Rotary {
    pub(crate) fn new(config: RotaryConfig) -> Self {
        Self { config: Arc::new(config), tables: Arc::default() }
    }

    /// The angles at `positions`, of which none reaches `length`.
    ///
    /// # Shapes
    /// `[B, T]` → `[B, T, R/2]`.
    pub(crate) fn rotation(&self, positions: &Tensor<2, Int>, length: usize, dtype: DType) -> Rotation {
        if dtype != DType::F32 {
            return self.rounded(positions, length, dtype);
        }
        match self.config.scaling {
            RotaryScaling::Dynamic { max_positions, .. } if length > max_positions => {
                self.rounded(positions, length, dtype)
            }
            _ => self.table(length, &positions.device()).at(positions),
        }
    }

    fn table(&self, length: usize, device: &Device) -> RotaryTable {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, table)) =
            tables.iter().find(|(on, table)| on == device && table.positions() >= length)
        {
            return table.clone();
        }
        let (frequencies, scale) = inverse_frequencies(&self.config, length);
        let table = RotaryTable::new(&frequencies, length.next_power_of_two().max(64), scale, device);
        tables.retain(|(on, _)| on != device);
        tables.push((device.clone(), table.clone()));
        table
    }

    /// Angles computed on the host: for types other than f32, and for rows whose frequencies depend on their own length,
    /// so that a row gets the same angles alone and in a batch.
    fn rounded(&self, positions: &Tensor<2, Int>, length: usize, dtype: DType) -> Rotation {
        let [b, t] = positions.dims();
        let half = self.config.rotated / 2;
        let positions_data: Vec<i64> = positions.to_data().iter::<i64>().collect();
        let is_dynamic = matches!(self.config.scaling, RotaryScaling::Dynamic { .. });
        let (mut cos, mut sin) = (Vec::with_capacity(b * t * half), Vec::with_capacity(b * t * half));
        for row in positions_data.chunks(t) {
            let own = row.iter().max().map_or(0, |&last| last as usize + 1);
            let (frequencies, scale) =
                inverse_frequencies(&self.config, if is_dynamic { own } else { length });
            for &position in row {
                for frequency in &frequencies {
                    let angle = f64::from(position as f32 * frequency);
                    cos.push((angle.cos() * scale) as f32);
                    sin.push((angle.sin() * scale) as f32);
                }
            }
        }
        let device = positions.device();
        let tensor = |values| {
            Tensor::<3>::from_data(TensorData::new(values, [b, t, half]), (&device, DType::F32)).cast(dtype)
        };
        Rotation::new(tensor(cos), tensor(sin))
    }
}
