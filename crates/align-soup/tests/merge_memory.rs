//! Merges take no more memory for larger tensors: measured.

#![cfg(target_os = "linux")]

mod common;

use std::path::PathBuf;

use align_soup::merge::{MergeConfig, MergeOptions, ModelPath, merge_folders};
use align_testkit::memory;
use common::raw;
use safetensors::Dtype;

/// What this process had in memory at most, in MiB.
fn peak() -> f64 {
    memory("VmHWM").expect("linux")
}

/// Alone in its file: what other tests allocate would be counted too.
#[test]
fn a_tensor_is_never_in_memory_whole() {
    let root = tempfile::tempdir().unwrap();
    // 32 MiB in each of three models and the result.
    let (rows, columns) = (4096, 2048);
    for seed in 0..3u32 {
        let value = |index: u32| f64::from((index.wrapping_mul(2_654_435_761) >> (7 + seed)) % 4096) - 2048.0;
        let values: Vec<f64> = (0..rows * columns).map(|index| value(index as u32)).collect();
        let tensors = [("weight", raw(&values, &[rows, columns], Dtype::F32))];
        common::checkpoint(root.path(), &format!("m{seed}"), &common::tensors(&tensors));
    }
    // Writing the models took far more than merging does.
    if std::fs::write("/proc/self/clear_refs", "5").is_err() {
        eprintln!("skipped: /proc/self/clear_refs cannot be written here, so a peak cannot be measured anew");
        return;
    }
    let before = peak();
    for (method, parameters) in [
        ("ties", "weight: 0.5, density: 0.3"),
        ("model_stock", "filter_wise: true"),
        ("breadcrumbs", "weight: 0.5, density: 0.3"),
        ("sce", "select_topk: 0.5"),
        ("dare_linear", "weight: 0.5, density: 0.5, rescale: true"),
    ] {
        let text = format!(
            "models: [{{ model: m1 }}, {{ model: m2 }}]\nmerge_method: {method}\nbase_model: m0\n\
             parameters: {{ {parameters} }}\n"
        );
        let resolve = |model: &ModelPath| Ok::<PathBuf, _>(root.path().join(&model.path));
        let config = MergeConfig::from_yaml("m.yml", &text).unwrap();
        merge_folders(&config, &resolve, &MergeOptions::default(), root.path().join(method)).unwrap();
    }
    let grown = peak() - before;
    // Two threads take about 10 MiB: three parts and a result of 256 KiB each, and what ranks are found by.
    let most = 16.0 + 4.0 * rayon::current_num_threads() as f64;
    assert!(grown < most, "merging took {grown:.1} MiB, expected less than {most}; the tensors take 128");

    // The measure sees a tensor where there is one.
    let tensor = std::hint::black_box(vec![1u8; 4 * rows * columns]);
    assert!(peak() - before > 30.0, "a tensor of {} bytes was not seen", tensor.len());
}
