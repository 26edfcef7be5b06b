//! Hugging Face folders: reading other people's and writing our own.
//!
//! Nothing in a foreign file is trusted. Lengths and offsets are checked against the size of the file before anything is
//! allocated, shard names cannot leave the folder, and tensors are compared with what the configuration asks for: those
//! missing, surplus or of the wrong shape are listed together.

mod error;
mod load;
mod names;
mod peft;
mod read;
mod save;

pub use error::{CheckpointError, Mismatch, WrongShape};
pub(crate) use load::{Folder, Head};
pub(crate) use names::head_name;
pub use read::{Dtype, SafetensorsFile, TensorEntry};
pub(crate) use save::{Extra, persist_error, save_model};
pub use save::{MAX_SHARD_BYTES, SaveOptions, copy_companions};
