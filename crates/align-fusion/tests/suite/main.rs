//! A fusion as a language model, and what its members may be.

mod adapters;
mod bad_input;
mod mapped;
mod model;
mod prefixed;
mod uses;
mod vocabulary;
mod world;
