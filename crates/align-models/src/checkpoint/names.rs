//! Where each parameter stands in a family's files.

use crate::config::{BlockKind, Family, TransformerConfig};
use crate::weights::Parameter;

/// A tensor of a file, and how a parameter stands in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) layout: Layout,
}

/// How a parameter stands in a tensor of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// As in the module.
    Same,
    /// Rows and columns exchanged: `[out, in]`.
    Transposed,
    /// One of three parts in turn for each head, `[H, 3, D, in]`, or `[H, 3, D]` for a bias: GPT-NeoX.
    Interleaved {
        /// 0 queries, 1 keys, 2 values.
        part: usize,
        /// D.
        head_dim: usize,
    },
    /// One of three blocks of columns, `[in, 3·out]`: GPT-2.
    Columns {
        /// 0 queries, 1 keys, 2 values.
        part: usize,
    },
}

impl Layout {
    /// The shape of the file's tensor, given the parameter's.
    pub(crate) fn file_shape(self, shape: &[usize]) -> Vec<usize> {
        match (self, shape) {
            (Self::Transposed, [from, to]) => vec![*to, *from],
            (Self::Interleaved { .. }, [from, to]) => vec![3 * to, *from],
            (Self::Columns { .. }, [from, to]) => vec![*from, 3 * to],
            (Self::Interleaved { .. } | Self::Columns { .. }, [to]) => vec![3 * to],
            (_, shape) => shape.to_vec(),
        }
    }

    /// For each number of the parameter in order, its index in the file's tensor.
    fn index(self, shape: &[usize]) -> impl Fn(usize, usize) -> usize {
        let (from, to) = match *shape {
            [to] => (1, to),
            [from, to] => (from, to),
            _ => unreachable!("parameters have one or two dimensions"),
        };
        move |row, column| match self {
            Self::Same => row * to + column,
            Self::Transposed => column * from + row,
            Self::Interleaved { part, head_dim } => {
                let (head, within) = (column / head_dim, column % head_dim);
                ((head * 3 + part) * head_dim + within) * from + row
            }
            Self::Columns { part } => row * 3 * to + part * to + column,
        }
    }

    /// Takes the parameter out of the file's numbers.
    pub(crate) fn extract(self, file: Vec<f32>, shape: &[usize]) -> Vec<f32> {
        if self == Self::Same {
            return file;
        }
        let index = self.index(shape);
        let (rows, columns) = if let [rows, columns] = *shape { (rows, columns) } else { (1, shape[0]) };
        (0..rows)
            .flat_map(|row| (0..columns).map(move |column| (row, column)))
            .map(|(r, c)| file[index(r, c)])
            .collect()
    }

    /// Puts the parameter into the file's numbers.
    pub(crate) fn insert(self, values: &[f32], shape: &[usize], file: &mut [f32]) {
        let index = self.index(shape);
        let columns = shape[shape.len() - 1];
        for (at, &value) in values.iter().enumerate() {
            file[index(at / columns, at % columns)] = value;
        }
    }
}

/// The name of the head's tensor.
pub(crate) fn head_name(family: Family) -> &'static str {
    if family == Family::GptNeoX { "embed_out.weight" } else { "lm_head.weight" }
}

/// The prefix of everything but heads. Files of a bare decoder lack it.
pub(crate) fn prefix(family: Family) -> &'static str {
    match family {
        Family::GptNeoX => "gpt_neox.",
        Family::Gpt2 => "transformer.",
        _ => "model.",
    }
}

/// Where a parameter of the backbone stands.
pub(crate) fn place(config: &TransformerConfig, parameter: &Parameter) -> Place {
    let family = config.family;
    let prefix = prefix(family);
    let path = parameter.path.as_str();
    let top = |llama: &str, neox: &str, gpt2: &str| {
        let name = if family == Family::GptNeoX {
            neox
        } else if family == Family::Gpt2 {
            gpt2
        } else {
            llama
        };
        Place { name: format!("{prefix}{name}"), layout: Layout::Same }
    };
    match path {
        "embedding" => return top("embed_tokens.weight", "embed_in.weight", "wte.weight"),
        "position_embedding" => return top("", "", "wpe.weight"),
        "norm.weight" => return top("norm.weight", "final_layer_norm.weight", "ln_f.weight"),
        "norm.bias" => return top("norm.bias", "final_layer_norm.bias", "ln_f.bias"),
        _ => {}
    }
    let inside = path.strip_prefix("layers.").and_then(|rest| rest.split_once('.'));
    let (index, rest) = inside.unwrap_or_else(|| unreachable!("`{path}` is no path of a backbone"));
    let (part, leaf) =
        rest.rsplit_once('.').unwrap_or_else(|| unreachable!("`{path}` ends in weight or bias"));
    let third = match part {
        "attention.query" => 0,
        "attention.key" => 1,
        _ => 2,
    };
    let turned = if leaf == "weight" { Layout::Transposed } else { Layout::Same };
    let (stack, name, layout) = match family {
        Family::GptNeoX => {
            let fused = Layout::Interleaved { part: third, head_dim: config.head_dim };
            let (name, layout) = match part {
                "attention_norm" => ("input_layernorm", Layout::Same),
                "mlp_norm" => ("post_attention_layernorm", Layout::Same),
                "attention.output" => ("attention.dense", turned),
                "mlp.up" => ("mlp.dense_h_to_4h", turned),
                "mlp.down" => ("mlp.dense_4h_to_h", turned),
                _ => ("attention.query_key_value", fused),
            };
            ("layers", name, layout)
        }
        Family::Gpt2 => {
            let (name, layout) = match part {
                "attention_norm" => ("ln_1", Layout::Same),
                "mlp_norm" => ("ln_2", Layout::Same),
                "attention.output" => ("attn.c_proj", Layout::Same),
                "mlp.up" => ("mlp.c_fc", Layout::Same),
                "mlp.down" => ("mlp.c_proj", Layout::Same),
                _ => ("attn.c_attn", Layout::Columns { part: third }),
            };
            ("h", name, layout)
        }
        _ => {
            let is_sandwich = config.block == BlockKind::Sandwich;
            let (name, layout) = match part {
                "attention_norm" => ("input_layernorm", Layout::Same),
                "mlp_norm" if is_sandwich => ("pre_feedforward_layernorm", Layout::Same),
                "mlp_norm" => ("post_attention_layernorm", Layout::Same),
                "attention_post_norm" => ("post_attention_layernorm", Layout::Same),
                "mlp_post_norm" => ("post_feedforward_layernorm", Layout::Same),
                "attention.query_norm" => ("self_attn.q_norm", Layout::Same),
                "attention.key_norm" => ("self_attn.k_norm", Layout::Same),
                "attention.query" => ("self_attn.q_proj", turned),
                "attention.key" => ("self_attn.k_proj", turned),
                "attention.value" => ("self_attn.v_proj", turned),
                "attention.output" => ("self_attn.o_proj", turned),
                "mlp.gate" => ("mlp.gate_proj", turned),
                "mlp.up" => ("mlp.up_proj", turned),
                _ => ("mlp.down_proj", turned),
            };
            ("layers", name, layout)
        }
    };
    Place { name: format!("{prefix}{stack}.{index}.{name}.{leaf}"), layout }
}

/// Tensors that older files carry and that are no weights: buffers of rotary angles and causal masks.
pub(crate) fn is_known_buffer(name: &str) -> bool {
    [".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias"]
        .iter()
        .any(|suffix| name.ends_with(suffix))
}
