//! Test doubles and checks for Align. For tests only: it is the one library crate that enables a backend.
//!
//! | topic | where |
//! | --- | --- |
//! | devices | [`device`], [`train_device`] |
//! | small tensors and their gradients | [`plain`], [`double`], [`tracked`], [`mask`], [`all_true`], [`gradient`] |
//! | closeness, with the place and the numbers | [`assert_close`], [`assert_all_close`] |
//! | policies whose every expectation can be enumerated | [`BigramLm`], [`BigramCritic`], [`Enumeration`] |
//! | gradients against finite differences | [`gradcheck`] |
//! | proptest strategies | [`strategies`] |
//! | sampling statistics | [`statistics`] |
//! | the task on which the claims of SALSA and SuperHF are checked | [`salsa_task`] |
//! | memory of the process | [`memory`] |
//! | reference tensors and shared data | [`fixtures`], [`shared`] |

mod assert;
mod bigram;
mod critic;
mod device;
mod enumeration;
pub mod fixtures;
pub mod gradcheck;
mod memory;
pub mod salsa_task;
pub mod statistics;
pub mod strategies;
mod tensors;

pub use assert::{Values, assert_all_close, assert_close};
pub use bigram::BigramLm;
pub use critic::BigramCritic;
pub use device::{device, train_device};
pub use enumeration::Enumeration;
pub use fixtures::{shared, shared_file};
pub use memory::memory;
pub use tensors::{all_true, double, gradient, mask, plain, tracked, tracked_double};
