//! A disk that fills up and a merge that is stopped leave the old checkpoint and nothing half-named.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use safetensors::{Dtype, tensor::TensorView};

use super::*;
use crate::checkpoint::stream::Sink;
use crate::checkpoint::tests::FullDisk;

fn checkpoint(path: &Path, value: f32) {
    fs::create_dir(path).unwrap();
    fs::write(path.join("config.json"), r#"{"model_type":"llama","num_hidden_layers":4}"#).unwrap();
    let bytes: Vec<u8> = (0..40_000).flat_map(|i| (value + i as f32).to_le_bytes()).collect();
    let tensors = (0..4).map(|layer| {
        let tensor = TensorView::new(Dtype::F32, vec![40, 1000], &bytes).unwrap();
        (format!("model.layers.{layer}.w.weight"), tensor)
    });
    safetensors::serialize_to_file(
        tensors.collect::<BTreeMap<_, _>>(),
        None,
        &path.join("model.safetensors"),
    )
    .unwrap();
}

fn config(method: &str) -> MergeConfig {
    let rest = match method {
        "linear" => "parameters: { weight: 0.5 }",
        _ => "base_model: a\nparameters: { t: 0.5 }",
    };
    let text = format!("models: [{{ model: a }}, {{ model: b }}]\nmerge_method: {method}\n{rest}\n");
    MergeConfig::from_yaml("merge.yml", &text).unwrap()
}

#[test]
fn a_merge_that_ends_early_leaves_the_old_checkpoint_and_nothing_half_written() {
    let root = tempfile::tempdir().unwrap();
    let [a, b, out] = ["a", "b", "out"].map(|name| root.path().join(name));
    checkpoint(&a, 1.0);
    checkpoint(&b, 2.0);
    checkpoint(&out, 9.0);
    let before = fs::read(out.join("model.safetensors")).unwrap();
    let resolve = |model: &ModelPath| Ok::<PathBuf, _>(root.path().join(&model.path));
    let options = MergeOptions { overwrite: true, ..MergeOptions::default() };
    let unchanged = || {
        assert_eq!(fs::read(out.join("model.safetensors")).unwrap(), before);
        let mut left: Vec<_> =
            fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["a", "b", "out"]);
    };

    // `linear` goes through in blocks, `slerp` in lanes; 640 kB of tensors each.
    for method in ["linear", "slerp"] {
        for room in [100, 300_000, 640_000] {
            let left = Arc::new(AtomicU64::new(room));
            let create = move |path: &Path| -> io::Result<Box<dyn Sink>> {
                Ok(Box::new(FullDisk { file: File::create(path)?, left: left.clone() }))
            };
            let go_on = |_| ControlFlow::Continue(());
            let error = merge_with(&config(method), &resolve, &options, &out, &go_on, &create).unwrap_err();
            let FolderMergeError::Folder(folder) = &error else { panic!("{error}") };
            let SoupError::Write { path, source } = &**folder else { panic!("{error}") };
            assert!(path.ends_with("model.safetensors"), "{error}");
            assert_eq!(source.kind(), io::ErrorKind::StorageFull);
            unchanged();
        }
        let stop = |progress: Progress| match progress.done > 200_000 {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let error = merge_with(&config(method), &resolve, &options, &out, &stop, &create_file).unwrap_err();
        assert!(
            matches!(&error, FolderMergeError::Folder(folder) if matches!(**folder, SoupError::Interrupted)),
            "{error}"
        );
        unchanged();
    }
}
