//! Preferences, prompts and dialogues: files, templates, tokenizers, batches and a synthetic world.

pub mod collate;
pub mod encode;
pub mod order;
pub mod read;
pub mod rows;
pub mod split;
pub mod synthetic;
pub mod template;
pub mod tokenizer;

pub use collate::SftBatch;
pub use encode::{
    EncodeError, EncodeOptions, Encoded, Encoder, Example, Overlong, PlainPrompts, PreferenceExample,
    PromptResponse,
};
pub use order::{Batches, Cursor, WindowShuffle};
pub use read::{DataError, Loaded, Origin, ReadOptions, RowStream, Skipped, read_rows};
pub use rows::{
    DemonstrationRow, Dialogue, FromRow, LabelledRow, Message, PreferenceRow, PromptRow, Role, RowProblem,
};
pub use split::{Split, is_held_out, split_by_prompt};
pub use template::{ChatTemplate, RenderOptions, TemplateError};
pub use tokenizer::{
    Encoding, HfTokenizer, SpecialIds, SpecialTokens, Tokenizer, TokenizerError, check_vocabulary,
};
