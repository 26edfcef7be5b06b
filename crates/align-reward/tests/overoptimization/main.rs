//! The claim of ensembles on the small task: criteria (i) to (ix) of the specification, section 8.4, and its controls.

mod best_of_n;
mod proxy;
mod reinforcement;
