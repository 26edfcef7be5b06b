//! Memory over 500 steps, in a process of its own.
#![cfg(target_os = "linux")]

use align_core::{Completions, Demonstrations, Draws};
use align_testkit::{BigramLm, device, train_device};
use align_train::{Learner, NextToken, OptimizerConfig};

/// Resident memory in MiB.
fn resident() -> f64 {
    let pages: f64 =
        std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096.0 / f64::from(1 << 20)
}

#[test]
fn memory_is_flat_over_five_hundred_steps() {
    // A table of 256 × 256: weights, gradient and moments are 256 KiB each, and so is every intermediate of the update.
    // One tensor kept by mistake at each step would be 125 MiB after 500; the bound is a tenth of that. What was seen is
    // less than a page.
    let model = BigramLm::random(256, &Draws::new(1), &train_device());
    let mut learner = Learner::new(model, OptimizerConfig::default(), 600).unwrap();
    let batch: Demonstrations = Completions::from_rows(
        &vec![vec![1]; 8],
        &(0..8).map(|row| (0..16).map(|i| (row * 31 + i * 7) % 256).collect()).collect::<Vec<Vec<u32>>>(),
        &device(),
    )
    .into();
    let mut train = |steps: u64| {
        for _ in 0..steps {
            learner.step(&NextToken, std::slice::from_ref(&batch)).unwrap();
        }
    };
    train(50); // the allocator and the thread pool settle
    let before = resident();
    train(500);
    let growth = resident() - before;
    println!("resident {before:.1} MiB, grown by {growth:.2} MiB");
    assert!(growth < 12.0, "grown by {growth:.1} MiB from {before:.1} MiB");
}
