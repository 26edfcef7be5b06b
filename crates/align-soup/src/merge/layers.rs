//! What the names of tensors say: which layer, before or after the layers, one row for each token.

use super::folders_error::FolderMergeError;
use crate::checkpoint::open::Folder;

/// A name such as `model.layers.7.mlp.up_proj.weight`, taken apart at its first number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerName<'a> {
    /// `model.layers`
    pub(crate) stack: &'a str,
    /// `7`
    pub(crate) layer: usize,
    /// `mlp.up_proj.weight`
    pub(crate) rest: &'a str,
}

impl<'a> LayerName<'a> {
    /// `None` for a tensor of no layer. Later numbers, such as that of an expert, are part of the rest.
    pub(crate) fn parse(name: &'a str) -> Option<Self> {
        let mut start = 0;
        for part in name.split('.') {
            let end = start + part.len();
            let number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            if number && start > 0 && end < name.len() {
                let layer = part.parse().ok()?;
                return Some(Self { stack: &name[..start - 1], layer, rest: &name[end + 1..] });
            }
            start = end + 1;
        }
        None
    }
}

/// The layers of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stack {
    /// What stands before the number; empty if there are no layers.
    pub(crate) name: String,
    pub(crate) layers: usize,
}

impl Stack {
    /// The one stack of layers of a folder.
    pub(crate) fn of(folder: &Folder, model: &str) -> Result<Self, FolderMergeError> {
        let mut stack = Self { name: String::new(), layers: 0 };
        for name in folder.tensors.iter().filter_map(|tensor| LayerName::parse(&tensor.name)) {
            if stack.layers > 0 && stack.name != name.stack {
                return Err(FolderMergeError::SeveralStacks {
                    model: model.to_owned(),
                    first: stack.name,
                    second: name.stack.to_owned(),
                });
            }
            name.stack.clone_into(&mut stack.name);
            stack.layers = stack.layers.max(name.layer + 1);
        }
        Ok(stack)
    }

    /// The name of a layer's tensor.
    pub(crate) fn tensor(&self, layer: usize, rest: &str) -> String {
        format!("{}.{layer}.{rest}", self.name)
    }
}

/// Whether a tensor of no layer comes before the layers: embeddings of tokens and positions do, final norms and heads do
/// not.
pub(crate) fn is_before_layers(name: &str) -> bool {
    let before = ["emb", "wte", "wpe", "relative_pe"];
    before.iter().any(|part| name.contains(part)) && !name.contains("embed_out")
}

/// Whether a tensor has one row for each token.
pub(crate) fn is_by_token(name: &str) -> bool {
    is_token_embedding(name) || is_head(name)
}

/// Whether a tensor embeds tokens.
pub(crate) fn is_token_embedding(name: &str) -> bool {
    let names =
        ["embed_tokens", "wte", "word_embeddings", "tok_embeddings", "embed_in", "backbone.embeddings"];
    module(name).is_some_and(|module| names.iter().any(|name| ends_with_module(module, name)))
}

/// Whether a tensor makes logits of the last state.
pub(crate) fn is_head(name: &str) -> bool {
    let heads = ["lm_head", "embed_out", "output", "output_layer"];
    LayerName::parse(name).is_none()
        && (module(name).or_else(|| name.strip_suffix(".bias")))
            .is_some_and(|module| heads.iter().any(|head| ends_with_module(module, head)))
}

/// Whether a tensor is computed from the configuration, so that there is nothing to merge.
pub(crate) fn is_buffer(name: &str) -> bool {
    let buffers =
        ["rotary_emb.inv_freq", "rotary_pos_emb.inv_freq", ".attn.masked_bias", ".attn.bias", "position_ids"];
    buffers.iter().any(|buffer| name.ends_with(buffer))
}

fn module(name: &str) -> Option<&str> {
    name.strip_suffix(".weight")
}

/// Whether the last parts of a dotted name are those of `end`.
fn ends_with_module(name: &str, end: &str) -> bool {
    name.strip_suffix(end).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_of_a_name_is_its_layer() {
        let name = LayerName::parse("model.layers.12.mlp.experts.3.w1.weight").unwrap();
        assert_eq!(name, LayerName { stack: "model.layers", layer: 12, rest: "mlp.experts.3.w1.weight" });
        assert_eq!(LayerName::parse("h.0.ln_1.weight").unwrap().stack, "h");
        for name in ["lm_head.weight", "model.layers.3", "0.weight", "model.norm2.weight"] {
            assert_eq!(LayerName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn names_say_what_stands_before_the_layers_and_what_has_a_row_for_each_token() {
        for name in ["model.embed_tokens.weight", "transformer.wpe.weight", "gpt_neox.embed_in.weight"] {
            assert!(is_before_layers(name), "{name}");
        }
        for name in ["model.norm.weight", "lm_head.weight", "embed_out.weight", "score.weight"] {
            assert!(!is_before_layers(name), "{name}");
        }
        for name in
            ["transformer.wte.weight", "lm_head.weight", "lm_head.bias", "output.weight", "embed_out.weight"]
        {
            assert!(is_by_token(name), "{name}");
        }
        for name in ["transformer.wpe.weight", "model.layers.0.attention.output.weight", "score.weight"] {
            assert!(!is_by_token(name), "{name}");
        }
        assert!(!is_by_token("bert.embeddings.position_embeddings.weight"));
    }
}
