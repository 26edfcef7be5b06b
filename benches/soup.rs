//! Does a soup of two checkpoints on disk cost no more than copying them?
//!
//! Rounds alternate between `std::fs::copy` of both inputs and a soup of the two into a new folder, so that what else
//! the machine does falls on both. Printed for each type of weights: throughput over the bytes of the *inputs*, and
//! the ratio copy time / soup time per round (1 = as fast as copying; the aim is at least 0.8), median and range.
//!
//! `cargo bench --bench soup`; `SOUP_MB` sets the size of one input (default 256).

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use align_soup::{SoupOptions, Weights, soup_folders};
use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

const ROUNDS: usize = 9;

fn main() {
    let megabytes = std::env::var("SOUP_MB").map_or(256, |text| text.parse().expect("SOUP_MB is a number"));
    let root = tempfile::tempdir().expect("a temporary folder");
    println!("two inputs of {megabytes} MB, {ROUNDS} rounds, {} threads", rayon::current_num_threads());
    for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16] {
        let inputs = ["a", "b"].map(|name| root.path().join(format!("{name}-{dtype}")));
        for (input, phase) in inputs.iter().zip([0.0, 1.0]) {
            checkpoint(input, dtype, megabytes << 20, phase);
        }
        let mut rounds: Vec<(Duration, Duration)> = (0..=ROUNDS)
            .map(|_| {
                let copies = [root.path().join("copy-a"), root.path().join("copy-b")];
                let copied = timed(|| {
                    for (input, copy) in inputs.iter().zip(&copies) {
                        fs::copy(input.join("model.safetensors"), copy).expect("a copy");
                    }
                });
                copies.iter().for_each(|copy| fs::remove_file(copy).expect("removed"));
                let out = root.path().join("soup");
                let souped = timed(|| {
                    let weights = Weights::uniform(2).expect("two ingredients");
                    soup_folders(&inputs, &weights, &SoupOptions::default(), &out).expect("a soup");
                });
                fs::remove_dir_all(&out).expect("removed");
                (copied, souped)
            })
            .skip(1) // the first round fills caches
            .collect();
        report(dtype, megabytes, &mut rounds);
        inputs.iter().for_each(|input| fs::remove_dir_all(input).expect("removed"));
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn report(dtype: Dtype, megabytes: usize, rounds: &mut [(Duration, Duration)]) {
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        (values[values.len() / 2], values[0], values[values.len() - 1])
    };
    let rate = |seconds: f64| 2.0 * megabytes as f64 / 1024.0 / seconds;
    let (copied, ..) = median(rounds.iter().map(|(copied, _)| copied.as_secs_f64()).collect());
    let (souped, ..) = median(rounds.iter().map(|(_, souped)| souped.as_secs_f64()).collect());
    let (ratio, low, high) =
        median(rounds.iter().map(|(copied, souped)| copied.as_secs_f64() / souped.as_secs_f64()).collect());
    println!(
        "{dtype:>5}: copy {:.2} GiB/s, soup {:.2} GiB/s, ratio {ratio:.2} ({low:.2} to {high:.2})",
        rate(copied),
        rate(souped)
    );
}

/// A folder with one file of `bytes` bytes in tensors of 32 MiB, as the layers of a model would be.
fn checkpoint(path: &Path, dtype: Dtype, bytes: usize, phase: f32) {
    fs::create_dir(path).expect("a folder");
    fs::write(path.join("config.json"), "{}").expect("a file");
    let size = dtype.bitsize() / 8;
    let values = (32 << 20) / size;
    let data: Vec<u8> = (0..values)
        .flat_map(|i| {
            let value = (i as f32 * 0.01 + phase).sin();
            match dtype {
                Dtype::BF16 => bf16::from_f32(value).to_le_bytes().to_vec(),
                Dtype::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
                _ => value.to_le_bytes().to_vec(),
            }
        })
        .collect();
    let tensors = (0..bytes / data.len()).map(|layer| {
        (format!("layers.{layer}.weight"), TensorView::new(dtype, vec![values], &data).expect("a view"))
    });
    safetensors::serialize_to_file(tensors, None, &path.join("model.safetensors")).expect("written");
}
