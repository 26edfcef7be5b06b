//! Tokenizers: text to ids and back, and the special ids.

mod error;
mod hf;

pub use error::TokenizerError;
pub use hf::HfTokenizer;

/// Ids and where in the text they come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoding {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Of each token, the bytes of the text it stands for.
    pub offsets: Vec<(usize, usize)>,
}

/// The special ids of a tokenizer. Padding is never told by an id: batches carry lengths, so `pad` may equal `eos`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpecialIds {
    /// The beginning of a text.
    pub bos: Option<u32>,
    /// The end of a text.
    pub eos: Option<u32>,
    /// What fills a row, for files that other programs read.
    pub pad: Option<u32>,
    /// Ids that end a response; `eos` first, then the generation configuration's.
    pub stop: Vec<u32>,
    /// What the tokenizer itself puts before a text: usually nothing or `[bos]`.
    pub prefix: Vec<u32>,
}

/// Turns text into token ids and back.
pub trait Tokenizer: Send + Sync {
    /// The ids of a text, without any special ids the text does not itself contain.
    ///
    /// # Errors
    /// When the tokenizer has no id for a part of the text.
    fn encode(&self, text: &str) -> Result<Encoding, TokenizerError>;

    /// The text of some ids; special tokens are left out if asked.
    ///
    /// # Errors
    /// When the tokenizer cannot put the tokens together.
    fn decode(&self, ids: &[u32], special: SpecialTokens) -> Result<String, TokenizerError>;

    /// The id of a token.
    fn id(&self, token: &str) -> Option<u32>;

    /// The token of an id.
    fn token(&self, id: u32) -> Option<String>;

    /// Whether an id is a special token's.
    fn is_special(&self, id: u32) -> bool;

    /// One more than the largest id.
    fn vocab_size(&self) -> usize;

    /// The special ids.
    fn special(&self) -> &SpecialIds;

    /// SHA-256 over every id and its token, as 64 hexadecimal digits: equal exactly when ids mean the same.
    fn fingerprint(&self) -> &str;

    /// The ids of a text with what the tokenizer itself puts before it, once: a text that begins with it already is
    /// left alone. The one place where BOS is decided.
    ///
    /// # Errors
    /// As [`encode`](Tokenizer::encode).
    fn encode_with_prefix(&self, text: &str) -> Result<Encoding, TokenizerError> {
        let mut encoding = self.encode(text)?;
        let prefix = &self.special().prefix;
        if !encoding.ids.starts_with(prefix) {
            encoding.ids.splice(0..0, prefix.iter().copied());
            encoding.offsets.splice(0..0, prefix.iter().map(|_| (0, 0)));
        }
        Ok(encoding)
    }
}

/// Whether special tokens appear in decoded text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialTokens {
    /// As they are written.
    Keep,
    /// Left out.
    Skip,
}

/// Refuses a tokenizer that does not fit a model's vocabulary of `model_vocab` rows.
///
/// A model may have somewhat more rows than the tokenizer has ids, because vocabularies are padded to round sizes: 2 %
/// and 128 more are let through (the widest padding in the families we load is Phi-2's, 1.8 %).
///
/// # Errors
/// [`TokenizerError::Vocabulary`] with both sizes.
pub fn check_vocabulary(tokenizer: &dyn Tokenizer, model_vocab: usize) -> Result<(), TokenizerError> {
    let found = tokenizer.vocab_size();
    if found > model_vocab || model_vocab > found + found / 50 + 128 {
        return Err(TokenizerError::Vocabulary { tokenizer: found, model: model_vocab });
    }
    Ok(())
}
