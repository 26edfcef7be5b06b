//! The language the Align crates share: batches, traits of policies, rewards and references, divergences, advantages.
