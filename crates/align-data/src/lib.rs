//! Preferences, prompts and dialogues: files, templates, tokenizers, batches and a synthetic world.
//!
//! | step | where |
//! | --- | --- |
//! | a file or folder to typed rows | [`read_rows`], [`RowStream`], [`rows`] |
//! | a name on the hub to a folder | `hub` (feature `hub`) |
//! | a dialogue to text | [`ChatTemplate`] |
//! | text to ids | [`Tokenizer`], [`HfTokenizer`] |
//! | a row to ids and loss masks | [`Encoder`] |
//! | what a model will see, for people | [`preview`] |
//! | ids to padded batches | [`collate`] |
//! | the order of rows, and resuming in it | [`Batches`], [`WindowShuffle`], [`Cursor`] |
//! | train and held-out rows | [`split_by_prompt`] |
//! | a world with a known gold reward | [`synthetic`] |
//!
//! # Examples
//! ```
//! use std::sync::Arc;
//!
//! use align_data::{EncodeOptions, Encoder, synthetic::{World, WorldConfig}};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let world = World::new(WorldConfig::default());
//! let encoder = Encoder::new(Arc::new(world.tokenizer()?), Some(world.template()?), EncodeOptions::default());
//! let pairs = encoder.encode_all(&world.preferences(8, 0.1, 0), Encoder::encode_preference)?;
//! assert_eq!(pairs.examples.len(), 8);
//! # Ok(())
//! # }
//! ```

pub mod collate;
pub mod encode;
#[cfg(feature = "hub")]
pub mod hub;
pub mod order;
pub mod preview;
pub mod read;
pub mod rows;
pub mod split;
pub mod synthetic;
pub mod template;
pub mod tokenizer;

pub use encode::{
    EncodeError, EncodeOptions, Encoded, Encoder, Example, Overlong, PlainPrompts, PreferenceExample,
    PromptResponse,
};
pub use order::{Batches, Cursor, WindowShuffle};
pub use read::{DataError, Loaded, Origin, ReadOptions, RowStream, Skipped, read_rows};
pub use rows::{
    DemonstrationRow, Dialogue, FromRow, LabelledRow, Message, PreferenceRow, PromptRow, Role, RowProblem,
    StepwiseRow,
};
pub use split::{Split, is_held_out, split_by_prompt};
pub use template::{ChatTemplate, RenderOptions, TemplateError};
pub use tokenizer::{
    Encoding, HfTokenizer, SpecialIds, SpecialTokens, Tokenizer, TokenizerError, check_vocabulary,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
