//! One binary for all tests of training: linking a backend takes longer than running them.

mod algorithm;
mod analytic;
mod config;
mod endings;
mod errors;
mod filter;
mod hacking;
mod knobs;
mod metrics;
mod objective;
mod properties;
mod resume;
mod world;
