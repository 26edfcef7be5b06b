//! One binary for all tests of self-play: linking a backend takes longer than running them.

mod collecting;
mod common;
mod errors;
mod experiment;
mod first_step;
mod held_out;
mod knobs;
mod labels;
mod lm_game;
mod nash_md;
mod resume;
mod sampled_gap;
mod xpo;
