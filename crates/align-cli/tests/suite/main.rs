//! The command from outside: its fixed forms, what it says of bad input, and going on after any end.

mod bad_input;
mod ensembles;
mod experiments;
mod forms;
mod preferences;
mod recipes;
mod resume;
mod superhf;
mod tiny;
