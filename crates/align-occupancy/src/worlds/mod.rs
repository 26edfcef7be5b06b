//! Small worlds whose every number can be computed: test beds for anything that claims to prevent reward hacking.

mod glucose;
mod tiny_lm;
mod tomato;
mod two_state;

pub use glucose::{GlucoseWorld, Patient};
pub use tiny_lm::TinyLm;
pub use tomato::{Move, TomatoBoard, TomatoWorld};
pub use two_state::{two_state, two_state_policy};
