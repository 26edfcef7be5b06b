//! One binary for all tests but that of memory: linking Burn takes longer than running them.

mod adamw;
mod common;
mod errors;
mod folder;
mod learner;
mod metrics;
mod observers;
mod resume;
mod schedule;
mod supervised;
