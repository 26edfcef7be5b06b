//! Which adapters stand in which module of the files, and how.

use std::collections::BTreeMap;

use crate::backbone::Backbone;
use crate::checkpoint::names::{Layout, place};
use crate::lora::{Adapter, LoraTarget};
use crate::weights::Parameter;

/// A projection's part of a module: the whole of it, or a third where queries, keys and values are one module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) layer: usize,
    pub(crate) target: LoraTarget,
    layout: Layout,
    /// The projection's own outputs.
    outputs: usize,
}

/// Every module that can be adapted, by its name in files, with its parts.
pub(crate) type Modules = BTreeMap<String, Vec<Part>>;

/// The modules of a model.
pub(crate) fn modules(backbone: &Backbone) -> Modules {
    let mut modules = Modules::new();
    for layer in 0..backbone.config().num_layers {
        for target in LoraTarget::ALL {
            let Some(projection) = backbone.layers[layer].projection(target) else { continue };
            let [from, to] = projection.weight.dims();
            let path = format!("layers.{layer}.{}.weight", target.path());
            let place = place(backbone.config(), &Parameter { path, shape: vec![from, to] });
            let name = place.name.strip_suffix(".weight").unwrap_or(&place.name).to_owned();
            let part = Part { layer, target, layout: place.layout, outputs: to };
            modules.entry(name).or_default().push(part);
        }
    }
    modules
}

/// The end of a module's name that PEFT is told. GPT-2 has two `c_proj`.
pub(crate) fn short_name(module: &str) -> &str {
    let mut dots = module.rmatch_indices('.').map(|(at, _)| at + 1);
    let last = dots.next().unwrap_or(0);
    if &module[last..] == "c_proj" { &module[dots.next().unwrap_or(0)..] } else { &module[last..] }
}

impl Part {
    /// How many outputs the whole module has.
    pub(crate) fn module_outputs(&self) -> usize {
        match self.layout {
            Layout::Same | Layout::Transposed => self.outputs,
            Layout::Interleaved { .. } | Layout::Columns { .. } => 3 * self.outputs,
        }
    }

    /// Which of the module's outputs is the part's `output`.
    fn place(&self, output: usize) -> usize {
        match self.layout {
            Layout::Same | Layout::Transposed => output,
            Layout::Interleaved { part, head_dim } => {
                (output / head_dim * 3 + part) * head_dim + output % head_dim
            }
            Layout::Columns { part } => part * self.outputs + output,
        }
    }

    /// The part's `B`, `[r, outputs]`, out of the module's `[module outputs, r]`.
    pub(crate) fn extract(&self, module: &[f32], rank: usize) -> Vec<f32> {
        let entry = |(k, output): (usize, usize)| module[self.place(output) * rank + k];
        (0..rank).flat_map(|k| (0..self.outputs).map(move |output| (k, output))).map(entry).collect()
    }
}

/// The adapters of one module as PEFT holds them.
pub(crate) struct Stacked {
    pub(crate) rank: usize,
    pub(crate) scale: f64,
    /// `[rank, in]`.
    pub(crate) a: Vec<f32>,
    /// `[module outputs, rank]`.
    pub(crate) b: Vec<f32>,
}

impl Stacked {
    /// One adapter that does what those of the parts do: their `A` one below the other, and `B` zero where a part's `A` has
    /// no say. Parts with the same `A`, as after reading such a file, share it. At least one part.
    pub(crate) fn new(parts: &[(Part, &Adapter)]) -> Self {
        let numbers = |tensor: burn::Tensor<2>| -> Vec<f32> {
            tensor.without_autodiff().to_data().iter::<f32>().collect()
        };
        let (first, adapter) = parts[0];
        let [inputs, _] = adapter.a.dims();
        let scale = adapter.scale;
        let mut a: Vec<f32> = Vec::new();
        // Each part with the row of `a` at which its own begins.
        let mut starts: Vec<usize> = Vec::new();
        for (_, adapter) in parts {
            let own = numbers(adapter.a.val().transpose());
            let rows = own.len() / inputs;
            let known = (0..(a.len() / inputs + 1).saturating_sub(rows))
                .find(|start| a[start * inputs..(start + rows) * inputs] == own[..]);
            starts.push(known.unwrap_or(a.len() / inputs));
            if known.is_none() {
                a.extend(own);
            }
        }
        let rank = a.len() / inputs;
        let mut b = vec![0.0; first.module_outputs() * rank];
        for ((part, adapter), start) in parts.iter().zip(starts) {
            let factor = (adapter.scale / scale) as f32;
            for (at, value) in numbers(adapter.b.val()).into_iter().enumerate() {
                let (k, output) = (at / part.outputs, at % part.outputs);
                b[part.place(output) * rank + start + k] = value * factor;
            }
        }
        Self { rank, scale, a, b }
    }
}
