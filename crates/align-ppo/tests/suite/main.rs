//! One binary for all tests of the crate: linking a backend takes longer than running them.

mod algorithm;
mod analytic;
mod config;
mod details;
mod details_of_learning;
mod errors;
mod exact;
mod knobs;
mod occupancy;
mod properties;
mod resume;
mod salsa_experiment;
mod small;
mod world;
