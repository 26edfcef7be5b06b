//! Direct preference losses: numbers of the papers' specification, closed forms, laws, TRL.

mod analytic;
mod anchors;
mod closed_forms;
mod config;
mod extremes;
mod kto;
mod metrics;
mod nash_md;
mod parity;
mod properties;
mod world;
