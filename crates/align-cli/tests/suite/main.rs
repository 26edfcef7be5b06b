//! The command from outside: its fixed forms, what it says of bad input, and going on after any end.

mod averages;
mod bad_input;
mod bilevel;
mod ensembles;
mod experiments;
mod factors;
mod forms;
mod fuse;
mod gaps;
mod merge;
mod preferences;
mod recipes;
mod resume;
mod skills;
mod soups;
mod superhf;
mod tiny;
