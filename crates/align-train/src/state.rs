//! The learner's state on disk, keyed by path.
//!
//! `optimizer.safetensors` holds `<path>.first` and `<path>.second` (AdamW's moments, f32, in the parameter's shape) and,
//! as metadata, the number of optimizer steps of the learner and of every tensor. Equal states give equal bytes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use align_core::persist::{Persist, PersistError, replace_file};
use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use crate::adamw::Moments;
use crate::error::TrainError;
use crate::gradients::parameters;
use crate::learner::Learner;

/// The file's name inside a checkpoint.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";

/// The one metadata entry; one, because the order of several is not fixed.
const COUNTS: &str = "align";

#[derive(Serialize, Deserialize)]
struct Counts {
    steps: u64,
    times: BTreeMap<String, u64>,
}

impl<M: Module + Persist> Learner<M> {
    /// Writes the model and the optimizer's state into an existing folder.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), TrainError> {
        self.model().save(folder)?;
        let shapes: BTreeMap<String, Vec<usize>> = parameters(self.model())?
            .into_iter()
            .map(|parameter| (parameter.path, parameter.shape))
            .collect();
        replace_file(&folder.join(OPTIMIZER_FILE), |file| {
            write_moments(file, &self.moments, &shapes, self.steps)
        })?;
        Ok(())
    }

    /// Takes over what [`save`](Self::save) wrote: weights, moments and the count of steps, bit for bit.
    ///
    /// # Errors
    /// If a file is missing, damaged, or of another model; the learner is then as it was.
    pub fn restore(&mut self, folder: &Path) -> Result<(), TrainError> {
        let model = self.model().clone().restore(folder)?;
        let (steps, moments) = read_moments(&folder.join(OPTIMIZER_FILE), &model)?;
        self.set_model(model)?;
        self.steps = steps;
        self.moments = moments;
        // A run that got this far has passed the first-step check.
        self.skip_first_step_check(steps > 0);
        Ok(())
    }
}

fn write_moments(
    out: &mut impl Write,
    moments: &BTreeMap<String, Moments>,
    shapes: &BTreeMap<String, Vec<usize>>,
    steps: u64,
) -> io::Result<()> {
    let times = moments.iter().map(|(path, moments)| (path.clone(), moments.time)).collect();
    let counts = serde_json::to_string(&Counts { steps, times })?;
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), serde_json::json!({ COUNTS: counts }));
    let mut offset = 0;
    for path in moments.keys() {
        for part in ["first", "second"] {
            let shape = &shapes[path];
            let end = offset + 4 * shape.iter().product::<usize>();
            let entry = serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [offset, end] });
            header.insert(format!("{path}.{part}"), entry);
            offset = end;
        }
    }
    let mut header = serde_json::to_vec(&header)?;
    // The format wants its data aligned to 8 bytes; the padding is spaces.
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for moments in moments.values() {
        for tensor in [&moments.first, &moments.second] {
            for value in tensor.to_data().iter::<f32>() {
                out.write_all(&value.to_le_bytes())?;
            }
        }
    }
    Ok(())
}

fn read_moments<M: Module>(path: &Path, model: &M) -> Result<(u64, BTreeMap<String, Moments>), TrainError> {
    let damaged = |expected: &str, found: String| PersistError::Damaged {
        path: path.to_owned(),
        expected: expected.to_owned(),
        found,
    };
    let bytes = fs::read(path).map_err(PersistError::read(path))?;
    let (_, header) = SafeTensors::read_metadata(&bytes)
        .map_err(|error| damaged("a safetensors header", error.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| damaged("safetensors", error.to_string()))?;
    let counts = header.metadata().as_ref().and_then(|entries| entries.get(COUNTS));
    let counts: Counts = match counts.map(|text| serde_json::from_str(text)) {
        Some(Ok(counts)) => counts,
        Some(Err(error)) => return Err(damaged("counts of optimizer steps", error.to_string()).into()),
        None => return Err(damaged("counts of optimizer steps", "none".to_owned()).into()),
    };

    let mut known: BTreeMap<String, _> =
        parameters(model)?.into_iter().map(|parameter| (parameter.path.clone(), parameter)).collect();
    let mut moments = BTreeMap::new();
    for (name, time) in counts.times {
        let Some(parameter) = known.remove(&name).filter(|parameter| parameter.trainable) else {
            return Err(damaged("moments of the model's trainable tensors", format!("`{name}`")).into());
        };
        let read = |part: &str| -> Result<Tensor<1>, TrainError> {
            let name = format!("{name}.{part}");
            let view =
                file.tensor(&name).map_err(|_| damaged(&format!("a tensor `{name}`"), "none".into()))?;
            if view.dtype() != Dtype::F32 || view.shape() != parameter.shape {
                let expected = format!("`{name}` as F32 {:?}", parameter.shape);
                return Err(damaged(&expected, format!("{:?} {:?}", view.dtype(), view.shape())).into());
            }
            Ok(Tensor::from_data(TensorData::new(floats(&view), [view.data().len() / 4]), &parameter.device))
        };
        moments.insert(name.clone(), Moments { first: read("first")?, second: read("second")?, time });
    }
    Ok((counts.steps, moments))
}

fn floats(view: &TensorView) -> Vec<f32> {
    view.data()
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .collect()
}
